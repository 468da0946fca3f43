//! Other changes: whole files, bytes, and what is in archives.

use super::dump::Dump;
use crate::images::admit::archive::Archive;
use crate::images::schema::Value;

/// What is said about a dump after a change.
fn refusal(service: &str, change: impl FnOnce(&mut Dump)) -> String {
    let mut dump = Dump::of(service);
    let admission = dump.admission();
    change(&mut dump);
    match dump.take(&admission) {
        Ok(_) => "admitted".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn every_image_must_be_there() {
    // Those without which there is less, but nothing wrong.
    const SPARE: [&str; 2] = ["pipes-data.img", "tcp-stream"];
    for name in Dump::of("memhog").files.keys() {
        let said = refusal("memhog", |dump| drop(dump.files.remove(name)));
        let spare = SPARE.iter().any(|spare| name.starts_with(spare)) || name.starts_with("tmpfs-dev");
        assert_eq!(said == "admitted", spare, "without {name}: {said}");
    }
}

#[test]
fn no_image_may_be_more_than_there_is() {
    for (name, like) in [
        ("core-99.img", "core-7.img"),
        ("mm-99.img", "mm-7.img"),
        ("ids-99.img", "ids-7.img"),
        ("fs-99.img", "fs-7.img"),
        ("fdinfo-99.img", "fdinfo-2.img"),
        ("userns-16.img", "userns-15.img"),
        ("mountpoints-99.img", "mountpoints-14.img"),
        ("utsns-99.img", "utsns-12.img"),
        ("netns-99.img", "netns-10.img"),
        ("pagemap-99.img", "pagemap-7.img"),
        ("tcp-stream-99.img", "tcp-stream-1f401.img"),
        ("tmpfs-dev-99.tar.gz.img", "tmpfs-dev-65.tar.gz.img"),
        ("netdev-10.img", "netns-10.img"),
        ("packetsk.img", "files.img"),
        ("tunfile.img", "files.img"),
        ("bpfmap-file.img", "files.img"),
        ("apparmor.img", "files.img"),
        ("iptables-10.img", "files.img"),
        ("binfmt-misc.img", "files.img"),
        ("autofs-1.img", "files.img"),
        ("route-10.img", "files.img"),
        ("cpuinfo.img", "files.img"),
    ] {
        let said = refusal("memhog", |dump| {
            let bytes = dump.files[like].clone();
            dump.files.insert(name.to_owned(), bytes);
        });
        assert!(said.contains("is refused"), "with {name}: {said}");
    }
    let said = refusal("memhog", |dump| {
        dump.pages.insert("pages-9.img".to_owned(), 4096);
    });
    assert!(said.contains("pages-9.img of the source is refused: no page map"), "{said}");
}

#[test]
fn pages_are_as_many_as_the_maps_say() {
    for change in [-4096_i64, -1, 1, 4096] {
        let said = refusal("redis", |dump| {
            let size = dump.pages.get_mut("pages-1.img").unwrap();
            *size = size.checked_add_signed(change).unwrap();
        });
        assert!(said.contains("belong to it"), "{change}: {said}");
    }
    let dump = Dump::of("redis");
    let mut admission = dump.admission();
    admission.process_memory = 16 << 20;
    assert!(dump.take(&admission).unwrap_err().to_string().contains("a process may have"));
    admission.process_memory = 1 << 30;
    admission.processes = 0;
    assert!(dump.take(&admission).unwrap_err().to_string().contains("more than 0 processes"));
}

#[test]
fn nothing_may_be_cut_or_added_or_called_otherwise() {
    for (name, bytes) in &Dump::of("zombie").files {
        for cut in [0, 3, 7, bytes.len() / 2, bytes.len() - 1] {
            let said = refusal("zombie", |dump| dump.files.get_mut(name).unwrap().truncate(cut));
            assert!(said.contains("is refused"), "{name} cut to {cut}: {said}");
        }
        let said = refusal("zombie", |dump| dump.files.get_mut(name).unwrap().extend([1, 0]));
        assert!(said.contains("is refused"), "{name} with two bytes more: {said}");
        let said = refusal("zombie", |dump| dump.files.get_mut(name).unwrap()[1] ^= 1);
        assert!(said.contains("is refused"), "{name} with another beginning: {said}");
    }
}

#[test]
fn a_field_that_nobody_knows_is_named() {
    for (name, field) in
        [("core-1.img", "core_entry: unknown field 9"), ("files.img", "file_entry: unknown field 9")]
    {
        let said = refusal("plain", |dump| {
            let bytes = dump.files.get_mut(name).unwrap();
            // The first message, and a field of what this kind of machine does not have behind it.
            let length = u32::from_le_bytes(bytes[8..12].try_into().unwrap());
            let end = 12 + length as usize;
            let number = if name == "files.img" { 0x98_u8 } else { 0x48 };
            let more: &[u8] = if name == "files.img" { &[number, 0x06, 1] } else { &[number, 1] };
            bytes.splice(end..end, more.iter().copied());
            bytes[8..12].copy_from_slice(&(length + more.len() as u32).to_le_bytes());
        });
        assert!(said.contains(&field[..field.len() - 1]), "{name}: {said}");
    }
}

#[test]
fn an_archive_holds_only_what_a_service_may_have() {
    let with = |entries: &[(&str, u8, &str, [u64; 2])]| {
        let archive = Archive::forged(entries);
        refusal("plain", |dump| {
            dump.files.insert("tmpfs-dev-52.tar.gz.img".to_owned(), archive.write());
        })
    };
    let none = [0, 0];
    assert_eq!(
        with(&[
            ("./null", b'3', "", [1, 3]),
            ("./pipe", b'6', "", none),
            ("./fd", b'2', "/proc/self/fd", none)
        ]),
        "admitted"
    );
    for (entry, expected) in [
        (("./sda", b'3', "", [8, 0]), "a device that the service does not have"),
        (("./mem", b'3', "", [1, 1]), "a device that the service does not have"),
        (("./sda", b'4', "", [8, 0]), "a device with blocks"),
        (("../etc/passwd", b'0', "", none), "leads out"),
        (("/etc/passwd", b'0', "", none), "leads out"),
        (("./a/../../b", b'5', "", none), "leads out"),
        (("./hard", b'1', "../../etc/shadow", none), "leads out"),
        (("./odd", b'V', "", none), "an entry of kind V"),
    ] {
        let said = with(&[entry]);
        assert!(said.contains(expected), "{}: {said}", entry.0);
    }
    let long = format!("./{}", "x".repeat(300));
    assert_eq!(with(&[(&long, b'0', "", none), ("./link", b'2', &long, none)]), "admitted");
    let said = refusal("plain", |dump| {
        dump.files.insert("tmpfs-dev-52.tar.gz.img".to_owned(), b"\x1f\x8b".to_vec());
    });
    assert!(said.contains("cannot be unpacked"), "{said}");
}

#[test]
fn a_mount_that_hides_something_must_be_there() {
    for point in ["/proc/sys", "/proc/keys", "/proc/irq", "/sys", "/dev/shm", "/etc/hosts", "/sys/fs/cgroup"]
    {
        let said = refusal("plain", |dump| {
            dump.edit("mountpoints-14.img", |entries| {
                entries.retain(|entry| entry.message.text("mountpoint") != point);
            });
        });
        let below = point == "/sys" || point == "/sys/fs/cgroup";
        assert!(
            said.contains("would lie open") || below && said.contains("hangs on another"),
            "{point}: {said}"
        );
    }
}

#[test]
fn files_without_a_name_are_small_and_plain() {
    let ghost = |mode: u64, rdev: u64, uid: u64, content: usize| {
        refusal("zombie", |dump| {
            let image = |kind: u32, message: &[u8], rest: &[u8]| {
                let length = u32::try_from(message.len()).unwrap();
                [
                    &0x5456_4319_u32.to_le_bytes()[..],
                    &kind.to_le_bytes(),
                    &length.to_le_bytes(),
                    message,
                    rest,
                ]
                .concat()
            };
            dump.files
                .insert("remap-fpath.img".to_owned(), image(0x5913_3954, &[0x08, 9, 0x10, 5, 0x18, 1], &[]));
            let plain = image(0x5258_3605, &[0x08, 0, 0x10, 0, 0x18, 0], &vec![0; content]);
            dump.files.insert("ghost-file-5.img".to_owned(), plain);
            dump.edit("ghost-file-5.img", |entries| {
                for (field, number) in [("mode", mode), ("rdev", rdev), ("uid", uid)] {
                    entries[0].message.set(field, [Value::Number(number)]);
                }
            });
        })
    };
    assert_eq!(ghost(0o100_644, 0, 0, 100), "admitted");
    assert_eq!(ghost(0o020_666, 0x103, 0, 0), "admitted");
    assert!(ghost(0o060_660, 0x800, 0, 0).contains("no file that a service may have"));
    assert!(ghost(0o020_660, 0x800, 0, 0).contains("no file that a service may have"));
    assert!(ghost(0o020_660, 0x10_0103, 0, 0).contains("no file that a service may have"));
    assert!(ghost(0o100_644, 0, 65_536, 0).contains("not one of the 65536"));
    assert!(ghost(0o100_644, 0, 0, (64 << 20) + 1).contains("are more than"));
}
