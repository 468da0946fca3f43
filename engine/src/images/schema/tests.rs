use super::*;

fn message(name: &str, bytes: &[u8]) -> Result<Message, String> {
    MessageType::named(name).decode(bytes).map_err(|error| error.to_string())
}

#[test]
fn the_schema_can_be_read() {
    assert!(SCHEMA.len() > 60);
    for of in SCHEMA.iter() {
        assert!(of.fields.windows(2).all(|pair| pair[0].number < pair[1].number), "{}", of.name);
        assert_eq!(SCHEMA.iter().filter(|other| other.name == of.name).count(), 1, "{}", of.name);
    }
    for broken in [
        "message a {\n  required uint32 x\n}",
        "required uint32 x = 1;",
        "message a {\n  maybe uint32 x = 1;\n}",
    ] {
        assert!(parse::parse(&[broken]).is_err(), "{broken}");
    }
}

#[test]
fn what_is_read_is_written_again() {
    // pid 1, parent 0, group 300, session 1, threads 1 and 7, the numbers longer than they need be.
    let bytes = [0x08, 0x81, 0x00, 0x10, 0x00, 0x18, 0xac, 0x02, 0x20, 0x01, 0x28, 0x01, 0x28, 0x07];
    let read = message("pstree_entry", &bytes).unwrap();
    assert_eq!((read.number("pid"), read.number("pgid")), (1, 300));
    assert_eq!(read.numbers("threads").collect::<Vec<_>>(), [1, 7]);
    assert_eq!(read.encode(), [0x08, 0x01, 0x10, 0x00, 0x18, 0xac, 0x02, 0x20, 0x01, 0x28, 0x01, 0x28, 0x07]);
}

#[test]
fn numbers_with_a_sign_survive() {
    let mut vma = Message::new("vma_entry");
    for (name, number) in [("start", 0x1000), ("end", 0x2000), ("pgoff", 0), ("shmid", 0)] {
        vma.set(name, [Value::Number(number)]);
    }
    for name in ["prot", "flags", "status"] {
        vma.set(name, [Value::Number(1)]);
    }
    for fd in [-1_i64, 0, 5, i64::MIN] {
        vma.set("fd", [Value::Number(fd.cast_unsigned())]);
        assert_eq!(message("vma_entry", &vma.encode()).unwrap(), vma);
    }
}

#[test]
fn what_the_schema_does_not_say_is_refused_by_its_path() {
    let refused = |bytes: &[u8]| message("fs_entry", bytes).unwrap_err();
    assert_eq!(refused(&[0x08, 1, 0x10, 1, 0x38, 1]), "fs_entry: unknown field 7");
    assert_eq!(refused(&[0x08, 1]), "fs_entry.root_id: it is missing");
    assert_eq!(refused(&[0x08, 1, 0x10, 1, 0x10, 2]), "fs_entry.root_id: it is there twice");
    assert_eq!(refused(&[0x0a, 1, 0x10]), "fs_entry.cwd_id: wire type 2 where 0 belongs");
    assert_eq!(
        refused(&[0x08, 0xff, 0xff, 0xff, 0xff, 0x1f]),
        "fs_entry.cwd_id: 8589934591 is out of its range"
    );
    assert_eq!(refused(&[0x08]), "fs_entry.cwd_id: it ends in the middle");
    assert_eq!(
        refused(&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]),
        "fs_entry.cwd_id: a number has too many bits"
    );
    let nested = message("utsns_entry", b"\x0a\x03a\0b\x12\x00").unwrap_err();
    assert_eq!(nested, "utsns_entry.nodename: a text with NUL");
    assert!(message("utsns_entry", b"\x0a\x01\xff\x12\x00").unwrap_err().ends_with("no UTF-8"));
    let inner = message("timens_entry", &[0x0a, 2, 0x48, 1]).unwrap_err();
    assert_eq!(inner, "timens_entry.monotonic: unknown field 9");
}

#[test]
fn directories_in_each_other_have_an_end() {
    let mut inner = vec![0x0a, 1, b'x'];
    for _ in 0..100 {
        let mut outer = vec![0x0a, 1, b'x', 0x12];
        let mut length = inner.len();
        while length >= 0x80 {
            outer.push(0x80 | (length & 0x7f) as u8);
            length >>= 7;
        }
        outer.push(length as u8);
        outer.extend(inner);
        inner = outer;
    }
    assert!(message("cgroup_dir_entry", &inner).unwrap_err().ends_with("too deep in each other"));
}
