//! Files that move: whatever a service did to its image, its volumes and its shared memory is so at the other site.

use ums_testbed::net::{A, B, SiteIndex};
use ums_testbed::site::Site;

use crate::rig::Rig;
use crate::script::Script;

/// Done inside, by a shell: everything that a file system can show.
const CHANGES: &str = r"
    set -e
    mkdir -p /made/deep && echo created > /made/deep/file
    rm /etc/issue
    rm -r /usr/share/common-licenses && mkdir /usr/share/common-licenses && echo new > /usr/share/common-licenses/own
    echo linked > /made/one && ln /made/one /made/two
    ln -s /made/one /made/symbolic && ln -s /nowhere /made/dangling
    echo appended >> /etc/hostname.image && echo changed >> /etc/passwd
    chmod 0751 /made/deep/file && chown 1234:4321 /made/deep/file && touch -d '2001-02-03 04:05:06 UTC' /made/deep/file
    mkfifo /made/fifo
    truncate -s 1M /made/sparse && printf end >> /made/sparse
    echo 'a name' > '/made/with space' && : > /made/empty && mkdir /made/emptydir
    echo kept > /data/kept && mkdir /data/sub && ln /data/kept /data/sub/again
    echo shared > /dev/shm/segment
    mv /usr/games /usr/moved-games 2>/dev/null || mkdir -p /usr/moved-games
";
/// What a shell inside sees of it, in lines to compare.
const LOOK: &str = r"
    cd /
    find made data usr/share/common-licenses usr/moved-games dev/shm -type d -printf '%p d %m %U:%G\n' \
        -o -printf '%p %y %m %U:%G %n %s %l\n' | sort
    stat -c '%Y' made/deep/file
    cat made/deep/file made/one made/two made/symbolic 'made/with space' data/kept data/sub/again dev/shm/segment
    cat usr/share/common-licenses/own etc/passwd etc/hostname.image
    test ! -e etc/issue && echo deleted
    test made/one -ef made/two && test data/kept -ef data/sub/again && echo hard-linked
    tail -c 3 made/sparse; echo
    ls -A usr/share/common-licenses etc | wc -l
    hostname; cat /etc/hosts /etc/resolv.conf; ls /
    ip -oneline address 2>/dev/null | cut -d ' ' -f 2-7
";

/// Opens what will be deleted, maps what is shared, and takes a lock; all before the first number.
const PREPARE: &str = r#"
    open(our $deleted, "+>", "/made-by-perl") or die; syswrite($deleted, "first\n"); unlink("/made-by-perl") or die;
    open(our $shared, "+>", "/dev/shm/perl") or die; syswrite($shared, "in memory\n");
    open(our $log, ">>", "/data/log") or die;
    pipe(our $out, our $in) or die; syswrite($in, "in the pipe\n");
"#;
/// Goes on using all of it: whatever is not as it was ends the service.
const AGAIN: &str = r#"
    our ($deleted, $shared, $log, $out, $in, $number);
    syswrite($log, "$number\n") or die "log: $!";
    if ($number % 10 == 0) {
        sysseek($deleted, 0, 0); sysread($deleted, my $text, 100) or die "deleted: $!";
        $text eq "first\n" or die "the deleted file holds $text";
        sysseek($shared, 0, 0); sysread($shared, $text, 100) or die "shared: $!";
        $text eq "in memory\n" or die "the shared file holds $text";
        sysread($out, $text, 100) or die "pipe: $!";
        $text eq "in the pipe\n" or die "the pipe held $text";
        syswrite($in, "in the pipe\n");
    }
"#;

fn volume(site: &Site, name: &str) -> std::path::PathBuf {
    site.state().join("volumes").join(name)
}

#[test]
fn files_volumes_and_shared_memory_move_with_their_service() {
    let rig = &Rig::new().unwrap();
    let service = Script::start(rig, A, "files", PREPARE, AGAIN, &["-v", "data:/data"]).unwrap();
    service.shell(CHANGES).unwrap();
    let before = service.shell(LOOK).unwrap();
    for expected in ["deleted\n", "hard-linked\n", "created\n", "shared\n", "made/fifo p ", "0751"] {
        let shorter = expected.trim_start_matches('0');
        assert!(before.contains(shorter), "{expected} is missing before anything moved: {before}");
    }

    let move_and_look = |destination: SiteIndex| {
        let source = service.site();
        service.migrate(destination).unwrap();
        service.check().unwrap();
        let after = service.shell(LOOK).unwrap();
        let differs = before.lines().zip(after.lines()).find(|(one, other)| one != other);
        // The log grows while the service runs; it is checked below.
        let grows = |pair: &(&str, &str)| pair.0.starts_with("data/log ") && pair.1.starts_with("data/log ");
        let differs = differs.filter(|pair| !grows(pair));
        assert_eq!(differs, None, "before {before}\nafter {after}");
        assert_eq!(before.lines().count(), after.lines().count());
        assert!(!volume(source, "data").exists(), "the volume has moved, it is not copied");
    };
    move_and_look(B);
    move_and_look(A);

    // What was appended during all this is there, every line once.
    let log = service.shell("cat /data/log").unwrap();
    let numbers: Vec<u64> = log.lines().map(|line| line.parse().unwrap()).collect();
    assert!(numbers.iter().copied().eq(1..=numbers.len() as u64), "{} lines", numbers.len());

    rig.a().ums(&["rm", "--force", service.name()]).unwrap().success().unwrap();
    assert!(volume(rig.a(), "data").join("kept").exists(), "volumes stay");
}
