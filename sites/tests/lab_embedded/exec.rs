//! Commands inside a service, and their ends.

use tokio::io::split;
use ums_model::names::{Epoch, ServiceName};
use ums_nest::client::local_deadlines;
use ums_nest::exec::{ExecReply, ExecRequest, STDOUT};
use ums_nest::protocol::Request;
use ums_sites::adapter::{NestStream, SiteAdapter};
use ums_sites::embedded::Embedded;
use ums_transfer::frame::{Conversation, Kind};

use crate::pair::{Pair, eventually, kill_nest, move_to};

type Session =
    Conversation<tokio::io::ReadHalf<Box<dyn NestStream>>, tokio::io::WriteHalf<Box<dyn NestStream>>>;

/// Prints for ever.
const FLOOD: &[&str] = &["counter", "--interval-ms", "0"];

async fn exec(site: &Embedded, name: &ServiceName, command: &[&str]) -> Session {
    let (reader, writer) = split(site.exec_stream(name).await.unwrap());
    let mut session = Conversation::new(reader, writer, &local_deadlines());
    let args =
        std::iter::once("/bin/ums-workload").chain(command.iter().copied()).map(str::to_owned).collect();
    session.send(&Request::Exec(ExecRequest { args, env: Vec::new(), workdir: None })).await.unwrap();
    session
}

async fn reply(session: &mut Session) -> ExecReply {
    loop {
        let frame = session.reader.read().await.unwrap().unwrap();
        if frame.kind == Kind::Control {
            return frame.control().unwrap();
        }
    }
}

async fn wait_for_output(session: &mut Session) {
    let frame = session.reader.read().await.unwrap().unwrap();
    assert_eq!((frame.kind, frame.channel), (Kind::Data, STDOUT));
}

/// Processes of the service.
async fn tasks(site: &Embedded, name: &ServiceName) -> u32 {
    site.restore_requirements(name).await.unwrap().tasks
}

#[tokio::test(flavor = "multi_thread")]
async fn lab_commands_end_with_their_callers_their_nests_and_the_dump() {
    let pair = Pair::new();
    let Pair { a, b, .. } = &pair;
    let name = pair.run("signals", &["signals"]).await;
    let mut session = exec(a, &name, &["exit", "--code", "3"]).await;
    assert!(matches!(reply(&mut session).await, ExecReply::Exited(3)));

    // Whoever hangs up ends the command, whether it says something or not.
    for command in [FLOOD, &["signals"]] {
        let mut session = exec(a, &name, command).await;
        wait_for_output(&mut session).await;
        assert_eq!(tasks(a, &name).await, 2);
        drop(session);
        eventually("the command has ended", async || tasks(a, &name).await == 1).await;
    }

    let mut orphan = exec(a, &name, FLOOD).await;
    wait_for_output(&mut orphan).await;
    kill_nest(a, &name).await;
    eventually("the command has ended", async || tasks(a, &name).await == 1).await;

    // Neither one who does not read nor one who waits keeps a service from moving.
    let mut deaf = exec(a, &name, FLOOD).await;
    wait_for_output(&mut deaf).await;
    let mut waiting = exec(a, &name, &["signals"]).await;
    wait_for_output(&mut waiting).await;
    assert_eq!(tasks(a, &name).await, 3);
    move_to(a, b, &name, Epoch(1)).await;
    assert!(matches!(reply(&mut waiting).await, ExecReply::Failed(_)));
    let mut session = exec(b, &name, &["exit", "--code", "4"]).await;
    assert!(matches!(reply(&mut session).await, ExecReply::Exited(4)));
}
