use super::*;

fn image(kind: u32, rest: &[u8]) -> Vec<u8> {
    [&COMMON.to_le_bytes()[..], &kind.to_le_bytes(), rest].concat()
}

fn reason(name: &str, bytes: &[u8]) -> String {
    Image::read(name, bytes).unwrap_err().reason
}

#[test]
fn names_are_those_that_criu_writes() {
    for name in
        ["core-1.img", "inventory.img", "ghost-file-a.img", "tmpfs-dev-52.tar.gz.img", "pagemap-shmem-3.img"]
    {
        assert!(Kind::of(name).is_some(), "{name}");
    }
    assert_eq!(
        Kind::of("pagemap-shmem-3.img").map(|(kind, number)| (kind.stem, number)),
        Some(("pagemap-shmem", 3))
    );
    assert_eq!(Kind::of("tcp-stream-1f.img").unwrap().1, 0x1f);
    for name in [
        "core.img",
        "core-.img",
        "core-01.img",
        "core-+1.img",
        "core--1.img",
        "core-1",
        "netdev-9.img",
        "ghost-file-A.img",
        "tmpfs-dev-52.img",
        "inventory-1.img",
        "autofs-1.img",
        "core-18446744073709551616.img",
    ] {
        assert!(Kind::of(name).is_none(), "{name}");
    }
}

#[test]
fn a_fifth_word_and_a_cut_are_noticed() {
    let fs = image(0x5140_3912, &[4, 0, 0, 0, 0x08, 1, 0x10, 2]);
    let read = Image::read("fs-1.img", &fs).unwrap();
    assert_eq!(read.entries[0].message.number("root_id"), 2);
    assert_eq!(read.write(), fs);
    for cut in 0..fs.len() {
        assert!(Image::read("fs-1.img", &fs[..cut]).is_err(), "cut after {cut} bytes");
    }
    assert_eq!(reason("mm-1.img", &fs), "it does not begin as such an image does");
    assert_eq!(reason("fs-1.img", &[&fs[..], &fs[8..]].concat()), "there is more than one message in it");
    assert_eq!(reason("netdev-1.img", &fs), "no service of ours has an image of this name");
    let long = image(0x5140_3912, &u32::MAX.to_le_bytes());
    assert_eq!(reason("fs-1.img", &long), "a message of 4294967295 bytes is too long");
}

#[test]
fn payloads_stay_with_their_messages() {
    let pipe = |id: u8, content: &[u8]| {
        let length = u8::try_from(content.len()).unwrap();
        [&[4, 0, 0, 0, 0x08, id, 0x10, length][..], content].concat()
    };
    let bytes = image(0x5645_3709, &[pipe(1, b"hello"), pipe(2, b"")].concat());
    let read = Image::read("pipes-data.img", &bytes).unwrap();
    assert_eq!(read.entries[0].payload, b"hello");
    assert_eq!(read.write(), bytes);
    let short = image(0x5645_3709, &pipe(1, b"hello")[..11]);
    assert_eq!(reason("pipes-data.img", &short), "it ends in the middle of a payload");
}

#[test]
fn what_fills_up_is_not_passed_on() {
    let identity = [0x08, 1, 0x10, 0, 0x18, 0, 0x20, 0, 0x28, 0, 0x30, 0, 0x38, 0];
    let entry = [&[18, 0, 0, 0, 0x0a, 14][..], &identity, &[0x10, 1]].concat();
    let bytes = image(0x5957_3019, &[&entry[..], &[7, 0], b"secret"].concat());
    let read = Image::read("ipcns-sem-3.img", &bytes).unwrap();
    assert_eq!(read.entries[0].payload, [7, 0]);
    assert_eq!(read.write(), image(0x5957_3019, &[&entry[..], &[7, 0], &[0; 6]].concat()));
}
