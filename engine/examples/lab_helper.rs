//! What the lab tests need as a program: statically linked, so that it is a container image of one file.
//!
//! Called `criu` it is the proxy, as the product's own program is. Otherwise its first argument says what it does.

#[path = "lab_helper/checked.rs"]
mod checked;

use std::env;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::Duration;

use ums_engine::criu::proxy;

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args_os().collect();
    if arguments.first().is_some_and(|name| Path::new(name).file_name().is_some_and(|name| name == "criu")) {
        return proxy::main(arguments);
    }
    let word = |index: usize| arguments.get(index).and_then(|word| word.to_str()).unwrap_or_default();
    match word(1) {
        "tree" => tree(word(2)),
        "writer" => writer(word(2)),
        "checked" => checked::parent(word(2)),
        "checked-one" => checked::one(word(2)),
        "io-uring" => io_uring(word(2)),
        "sleep" => sleep(),
        "nothing" => ExitCode::SUCCESS,
        "descriptors" => descriptors(),
        other => {
            eprintln!("what is {other:?}?");
            ExitCode::from(2)
        }
    }
}

/// A parent with a second thread, a child that writes, and a zombie.
fn tree(file: &str) -> ExitCode {
    thread::spawn(sleep);
    let own = env::current_exe().expect("own program file");
    let mut zombie = Command::new(&own).arg("nothing").spawn().expect("start the child that ends");
    let mut child = Command::new(&own).args(["writer", file]).spawn().expect("start the child that writes");
    let status = child.wait().expect("wait for the child that writes");
    let _ = zombie.wait();
    ExitCode::from(u8::from(!status.success()))
}

/// One line every two milliseconds: whoever looks at the file knows whether this runs.
fn writer(file: &str) -> ExitCode {
    let mut file = OpenOptions::new().create(true).append(true).open(file).expect("open the file");
    loop {
        file.write_all(b"alive\n").expect("write the file");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Holds an io_uring, and writes.
#[allow(unsafe_code)]
fn io_uring(file: &str) -> ExitCode {
    let mut parameters = [0_u64; 15];
    // SAFETY: the kernel fills in `struct io_uring_params`, which is 120 bytes long.
    let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 4, parameters.as_mut_ptr()) };
    if ring < 0 {
        eprintln!("no io_uring: {}", std::io::Error::last_os_error());
        return ExitCode::FAILURE;
    }
    writer(file)
}

/// Prints the numbers of all open descriptors.
fn descriptors() -> ExitCode {
    let entries = std::fs::read_dir("/proc/self/fd").expect("list the descriptors");
    let names =
        entries.map(|entry| entry.expect("a descriptor").file_name().into_string().expect("a number"));
    let mut numbers: Vec<_> = names.collect();
    numbers.sort_unstable();
    println!("{}", numbers.join(" "));
    ExitCode::SUCCESS
}

fn sleep() -> ExitCode {
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}
