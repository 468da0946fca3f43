#!/bin/sh
# A stand-in for `ums` that keeps its promises towards the testbed, or breaks them where its name says so. Its services
# are loops that count into the witness file of whichever site the file `at` names; migrating one changes that file.
set -eu
socket=
if [ "$1" = --socket ]; then socket=$2; shift 2; fi
if [ "$1" = --json ]; then shift; fi
command=$1; shift

# The daemon is told its state directory, everybody else finds it by the socket.
if [ "$command" = site ]; then
    while [ $# -gt 0 ]; do
        case $1 in --state) state=$2 ;; esac
        shift
    done
    echo $$ > "$state/daemon.pid"
    echo "${UMS_FAULT-}" > "$state/fault"
    echo '{"ready":true,"fingerprint":"00112233445566778899"}'
    exec sleep 100000
fi
state=$(dirname "$socket")
lab=$(dirname "$(dirname "$state")")

count() {
    exec < /dev/null > /dev/null 2>&1
    n=$1
    while :; do
        echo "00000000000000aa $n" >> "$(cat "$2")"
        n=$((n + 1))
        sleep 0.005
    done
}

case $command in
    pair)
        case "$*" in
            invite) echo '{"token":"let-me-in"}' ;;
            'accept let-me-in') echo '{"paired":true}' ;;
            *) exit 2 ;;
        esac
        ;;
    sites)
        case "$*" in
            'policy '*) echo '{}' ;;
            *) exit 2 ;;
        esac
        ;;
    run)
        name=$2
        echo "$state/../witness/$name" > "$lab/$name.at"
        count 1 "$lab/$name.at" &
        echo $! > "$state/$name.pid"
        echo "{\"name\":\"$name\"}"
        ;;
    ps)
        for file in "$state"/*-*.pid; do
            name=$(basename "$file" .pid)
            echo "{\"services\":[{\"spec\":{\"name\":\"$name\"},\"pid\":$(cat "$file"),\"keeper_pid\":$(cat "$file")}]}"
        done
        ;;
    migrate)
        name=$1; destination=$3
        fault=$(cat "$state/fault")
        case $fault in
            *:kill) kill -9 "$(cat "$state/daemon.pid")"; echo '{"error":"no daemon"}'; exit 1 ;;
            *:pause:*)
                file=${fault#*:pause:}
                touch "$file.reached"
                while [ -e "$file" ]; do sleep 0.005; done
                echo '{"outcome":"rolled-back"}'; echo 'the link is cut' >&2; exit 1 ;;
        esac
        case $0 in
            *splits*)
                # Both copies run: the old one where it was, a new one at the destination.
                echo "$lab/$destination/witness/$name" > "$lab/$name.second"
                next=$(($(tail -n 1 "$(cat "$lab/$name.at")" | cut -d ' ' -f 2) + 1))
                count "$next" "$lab/$name.second" &
                ;;
            *) echo "$lab/$destination/witness/$name" > "$lab/$name.new"; mv "$lab/$name.new" "$lab/$name.at" ;;
        esac
        echo '{"event":"phase-started","phase":"freeze"}'
        echo '{"report":{"frozen_ms":12.5}}'
        ;;
    *) echo "no such command" >&2; exit 2 ;;
esac
