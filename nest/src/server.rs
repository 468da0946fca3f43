//! The nest process: one request per connection, one life-changing operation at a time.

use std::error::Error;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::split;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use ums_engine::cgroup::Cgroup;
use ums_engine::criu::version::warm_up;
use ums_engine::tools::{Tool, locate};
use ums_frontman::{NetError, fence};
use ums_model::error::{ErrorCode, WireError};
use ums_model::message::RestoreRequirements;
use ums_model::nest::{Decision, Deed, Record, Right};
use ums_transfer::frame::{Conversation, FrameError};

use crate::client::local_deadlines;
use crate::deadlines::{Deadlines, DeadlinesFile};
use crate::destination::Armed;
use crate::exec;
use crate::layout::NestDir;
use crate::outcome::Outcome;
use crate::protocol::{DumpedCopy, Reply, Request, RestoredCopy};
use crate::recipe::Recipe;
use crate::runc::Runc;

pub(crate) use ums_model::error::chain;

/// Pause after a connection that could not be accepted, for want of descriptors mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The programs that a nest starts.
pub(crate) struct Tools {
    pub(crate) criu: std::path::PathBuf,
    pub(crate) runc: std::path::PathBuf,
}

/// One service and everything that may be done with it.
pub(crate) struct Nest {
    pub(crate) dir: NestDir,
    pub(crate) recipe: Recipe,
    pub(crate) cgroup: Cgroup,
    pub(crate) runc: Runc,
    pub(crate) tools: Tools,
    /// Held by whoever changes the copy's life: start, stop, dump, thaw, restore ...
    pub(crate) life: tokio::sync::Mutex<()>,
    /// Destination: a restore that waits for its images.
    pub(crate) armed: tokio::sync::Mutex<Option<Armed>>,
    /// How the last dump of an epoch ended.
    pub(crate) dumped: Outcome<DumpedCopy>,
    /// How the last restore of an epoch ended.
    pub(crate) restored: Outcome<RestoredCopy>,
    /// Read by every exec session, written by who must be without any.
    gate: tokio::sync::RwLock<()>,
    memory: Mutex<Memory>,
    quit: Notify,
}

/// What changes; locked for moments only.
struct Memory {
    record: Record,
    since: u64,
    stopped: bool,
    /// Cancelled when running exec sessions must end.
    sessions: CancellationToken,
}

/// An error and its causes in the form that crosses the wire.
pub(crate) fn failure(code: ErrorCode, error: &dyn Error) -> WireError {
    WireError::new(code, chain(error))
}

/// Runs the nest in `dir` until it is told to quit. `stdio` are the service's ends of its standard streams, inherited
/// from the keeper. Ok = the service has ended for good and the keeper may end too.
pub async fn serve(dir: &Path, stdio: [OwnedFd; 3]) -> Result<(), WireError> {
    let internal = |error: &dyn Error| failure(ErrorCode::Internal, error);
    let dir = NestDir::new(dir);
    let recipe = Recipe::read(&dir.recipe()).map_err(|error| internal(&error))?;
    // Without a record there is no right: the site writes one before it starts a keeper.
    let record = crate::right::read(&dir.right()).map_err(|error| internal(&error))?.ok_or_else(|| {
        let message = format!("there is no record of what the copy in {} may do", dir.path().display());
        WireError::new(ErrorCode::Internal, message)
    })?;
    let find = |tool| locate(tool).map_err(|error| failure(ErrorCode::CriuMissing, &error));
    let tools = Tools { criu: find(Tool::Criu)?, runc: find(Tool::Runc)? };
    let deadlines = DeadlinesFile::of(&dir);
    let cgroup =
        Cgroup::of_container(&Path::new("/").join(&recipe.cgroup)).map_err(|error| internal(&error))?;
    crate::harm::hold(&cgroup, deadlines.read().stand_still).await;
    let inner =
        crate::mounts::provide_namespaces(&recipe, record.right()).map_err(|error| internal(&error))?;
    let Deadlines { network, warm_up: patience, .. } = deadlines.read();
    if let Err(error) = ums_frontman::place::build(&recipe.place, inner, &network).await {
        // A service that runs goes on without its uplink until the site plugs it in again.
        if crate::keeper::recorded_service().is_none() {
            return Err(internal(&error));
        }
        tracing::warn!(error = %chain(&error), "the place on the network is incomplete");
    }
    // CRIU keeps what it finds out about the kernel in the keeper's own /run. Only a dump would be slower without.
    let criu = tools.criu.clone();
    tokio::spawn(async move {
        if let Err(error) = warm_up(&criu, patience).await {
            tracing::warn!(error = %chain(&error), "CRIU does not look usable");
        }
    });
    let runc = Runc::new(tools.runc.clone(), stdio, deadlines);
    let nest = Arc::new(Nest {
        dir,
        recipe,
        cgroup,
        runc,
        tools,
        life: tokio::sync::Mutex::new(()),
        armed: tokio::sync::Mutex::new(None),
        dumped: Outcome::new(),
        restored: Outcome::new(),
        memory: Mutex::new(Memory {
            record,
            since: crate::state::read_json(&crate::layout::since())
                .unwrap_or_else(|_| crate::keeper::unix_ms()),
            stopped: false,
            sessions: CancellationToken::new(),
        }),
        gate: tokio::sync::RwLock::new(()),
        quit: Notify::new(),
    });
    // Only a settled copy is shown to the outside.
    nest.settle().await?;
    tokio::spawn(crate::restart::watch(Arc::clone(&nest)));
    let socket = nest.dir.socket();
    let _ = std::fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).map_err(|error| internal(&error))?;
    // Who may speak to it may do everything with the service.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&socket, mode).map_err(|error| internal(&error))?;
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => { tokio::spawn(Arc::clone(&nest).answer(stream)); }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            () = nest.quit.notified() => return Ok(()),
        }
    }
}

impl Nest {
    /// After a predecessor died: brings the copy into the state that its record grants.
    async fn settle(&self) -> Result<(), WireError> {
        exec::end_leftovers();
        let record = self.record();
        if record.right() == Right::Dumping {
            // Nothing is done to a service that a CRIU still has in its hands.
            self.wait_for_orphans().await?;
        }
        let Decision { record, deed } = record.settle();
        record.map_or(Ok(()), |event| self.note(event))?;
        if deed == Deed::LetRun
            && let Some(harm) = self.held_by_harm().await?
        {
            // Who is asked can say so, and can end it; a nest that did not start could do neither.
            tracing::error!(%harm, "the copy is not let go");
            return Ok(());
        }
        self.act(deed).await
    }

    async fn answer(self: Arc<Self>, stream: UnixStream) {
        let (reader, writer) = split(stream);
        let mut conversation = Conversation::new(reader, writer, &local_deadlines());
        let result = match conversation.next::<Request>().await {
            Ok(Some(request)) => self.handle(request, &mut conversation).await,
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            tracing::debug!(error = %chain(&error), "a connection ended early");
        }
    }

    async fn handle<R, W>(
        self: &Arc<Self>,
        request: Request,
        conversation: &mut Conversation<R, W>,
    ) -> Result<(), FrameError>
    where
        R: tokio::io::AsyncRead + Unpin,
        W: tokio::io::AsyncWrite + Unpin,
    {
        let reply = match request {
            Request::Exec(request) => {
                // Before the look at the right: a dump that begins waits for this session, or this session for it.
                let _session = self.gate.read().await;
                if let Err(error) = self.require_right("run a command in") {
                    return conversation.send(&exec::ExecReply::Failed(error)).await;
                }
                let end = self.memory().sessions.clone();
                return exec::run(&self.runc, &request, conversation, &end).await;
            }
            Request::Dump { epoch } => {
                self.dumped.begin(epoch);
                let result = self.dump(epoch, &mut conversation.writer).await;
                self.dumped.set(epoch, result);
                return Ok(());
            }
            Request::Restore { epoch } => {
                self.restored.begin(epoch);
                let result = self.restore(epoch, &mut conversation.reader).await;
                self.restored.set(epoch, result);
                return Ok(());
            }
            Request::Quit => {
                let reply = done(self.quit().await);
                conversation.send(&reply).await?;
                if matches!(reply, Reply::Done) {
                    self.quit.notify_one();
                }
                return Ok(());
            }
            other => self.reply(other).await,
        };
        conversation.send(&reply).await
    }

    async fn reply(&self, request: Request) -> Reply {
        match request {
            Request::Status => return Reply::Status(self.status()),
            // Reads a lot of /proc.
            Request::Facts => {
                let facts = tokio::task::block_in_place(|| crate::facts::observe(self));
                return facts.map_or_else(failed, Reply::Facts);
            }
            Request::Requirements => return self.requirements().map_or_else(failed, Reply::Requirements),
            Request::DumpResult { epoch } => {
                return self.dump_result(epoch).await.map_or_else(failed, Reply::Dumped);
            }
            Request::RestoreResult { epoch } => {
                return self.restore_result(epoch).await.map_or_else(failed, Reply::Restored);
            }
            Request::Signal { signal } => return done(self.signal(signal)),
            Request::Wire => {
                return done(self.wire().await);
            }
            _ => {}
        }
        let _life = self.life.lock().await;
        done(match request {
            Request::Start => self.start().await,
            Request::Stop { grace_ms } => match self.require_right("stop") {
                Ok(()) => self.stop(Duration::from_millis(grace_ms)).await,
                Err(error) => Err(error),
            },
            Request::Freeze { epoch } => self.freeze(epoch).await,
            Request::Thaw { epoch } => self.thaw(epoch).await,
            Request::ComeHome { epoch } => self.come_home(epoch).await,
            Request::Release { epoch } => self.release(epoch).await,
            Request::Arm { epoch, requirements } => self.arm(epoch, &requirements).await,
            Request::Resume { epoch } => self.resume(epoch).await,
            Request::Open { epoch } => self.open(epoch).await,
            Request::Discard { epoch } => self.discard(epoch).await,
            other => Err(WireError::new(ErrorCode::Internal, format!("not a plain request: {other:?}"))),
        })
    }

    async fn quit(&self) -> Result<(), WireError> {
        let _life = self.life.lock().await;
        self.disarm().await;
        self.kill_all().await
    }

    /// Names of the stdio pipes, as CRIU will know them, and the number of tasks.
    fn requirements(&self) -> Result<RestoreRequirements, WireError> {
        if !self.is_alive() {
            let message = format!("service {} does not run", self.recipe.spec.name);
            return Err(WireError::new(ErrorCode::ServiceNotFound, message));
        }
        // Our pipes, whatever its first process has made of its descriptors meanwhile: others may have them still.
        let stdio_pipes = self.runc.stdio_pipes().map_err(|error| failure(ErrorCode::Internal, &error))?;
        let tasks = u32::try_from(self.cgroup.procs().map_or(0, |procs| procs.len())).unwrap_or(u32::MAX);
        Ok(RestoreRequirements { stdio_pipes: stdio_pipes.map(Some), tasks })
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long it waits, from now on.
    pub(crate) fn deadlines(&self) -> Deadlines {
        self.runc.deadlines()
    }

    /// Cuts the service off; see [`fence::close`].
    pub(crate) async fn close_fence(&self) -> Result<(), NetError> {
        fence::close(&self.deadlines().network).await
    }

    /// Lets packets pass again; see [`fence::open`].
    pub(crate) async fn open_fence(&self) -> Result<(), NetError> {
        fence::open(&self.deadlines().network).await
    }

    pub(crate) fn record(&self) -> Record {
        self.memory().record
    }

    pub(crate) fn set_record(&self, record: Record) {
        self.memory().record = record;
    }

    pub(crate) fn since(&self) -> u64 {
        self.memory().since
    }

    pub(crate) fn set_since(&self, since: u64) {
        self.memory().since = since;
        // Only shown to people.
        let _ = crate::state::write_json(&crate::layout::since(), &since);
    }

    /// Whether its user has stopped it.
    pub(crate) fn is_stopped(&self) -> bool {
        self.memory().stopped || crate::stopped::is_noted(&self.dir)
    }

    pub(crate) fn set_stopped(&self, stopped: bool) {
        self.memory().stopped = stopped;
    }

    /// Ends all exec sessions and keeps new ones out while the answer is held: their processes do not belong to the
    /// service's tree and would break its dump.
    pub(crate) async fn end_sessions(&self) -> Result<tokio::sync::RwLockWriteGuard<'_, ()>, WireError> {
        {
            let mut memory = self.memory();
            memory.sessions.cancel();
            memory.sessions = CancellationToken::new();
        }
        tokio::time::timeout(self.deadlines().sessions, self.gate.write()).await.map_err(|_| {
            let message = format!("commands that run in service {} do not end", self.recipe.spec.name);
            WireError::new(ErrorCode::Busy, message).with_hint("end them, then try again: ums migrate")
        })
    }
}

fn done(result: Result<(), WireError>) -> Reply {
    result.map_or_else(failed, |()| Reply::Done)
}

fn failed(error: WireError) -> Reply {
    Reply::Failed { error }
}
