//! Every decoder bears every kept input, and as many changed ones as `test` has time for.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use ums_fuzz::corpus::{REFUSED, kept};
use ums_fuzz::run::{Until, many, one};
use ums_fuzz::targets::{TARGETS, named};

/// With this, all targets together take about three minutes of one core.
const TIMES: u64 = 50;

fn bears(name: &str) {
    let target = named(name).unwrap();
    match many(target, 1, Until::Count(target.count * TIMES)).unwrap() {
        Ok(tally) => println!("{name}: {} inputs, {} of them taken", tally.inputs, tally.taken),
        Err(failure) => {
            let shown = failure.input.escape_ascii();
            panic!("{name}: {}\ninput of {} bytes: {shown}", failure.what, failure.input.len());
        }
    }
}

/// A changed input comes no further than the one that it was made from.
#[test]
fn kept_inputs_reach_the_end_of_their_decoder() {
    let mut wrong = Vec::new();
    for target in &TARGETS {
        for input in kept(target.name).unwrap() {
            let taken = one(target, &input.bytes);
            if taken != Ok(!input.name.starts_with(REFUSED)) {
                wrong.push(format!("{}/{}: {taken:?}", target.name, input.name));
            }
        }
    }
    assert!(wrong.is_empty(), "taken or not against their names:\n{}", wrong.join("\n"));
}

macro_rules! targets {
    ($($test:ident $name:literal),+ $(,)?) => {
        $(
            #[test]
            fn $test() {
                bears($name);
            }
        )+

        #[test]
        fn none_is_left_out() {
            let tested = [$($name),+];
            assert!(TARGETS.iter().all(|target| tested.contains(&target.name)));
        }
    };
}

targets! {
    frames_are_borne "frames",
    archives_are_borne "archive",
    messages_are_borne "message",
    greetings_are_borne "hello",
    invites_are_borne "invite",
    specs_are_borne "spec",
    requests_to_a_nest_are_borne "nest",
    tree_entries_are_borne "tree-entry",
    records_are_borne "record",
    archives_of_images_are_borne "image-archive",
    documents_of_images_are_borne "image-document",
    words_of_criu_are_borne "criu-rpc",
    images_are_borne "images",
    dumps_are_borne "dump",
    contents_of_tmpfs_are_borne "tmpfs",
    contents_of_tmpfs_unpacked_are_borne "tmpfs-tar",
}
