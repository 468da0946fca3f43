//! The nest's half of a restore: it starts `runc restore` early, and the [`proxy`](super::proxy) that runc takes for
//! CRIU reports here.
//!
//! ```text
//! ProxyListener ──armed()──► ArmedRestore ──go()──► Restoring ──held()──► HeldTree
//!    runc starts               images arrive          CRIU restores          frozen
//!                                  └── go_wiring() ──► Wiring ──namespaces()──► Unwired ──wired()──► Restoring
//! ```
//! An [`ArmedRestore`] that is dropped is refused: nothing is restored and `runc restore` fails.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

pub use super::deadlines::RestoreDeadlines;
pub use super::link::HeldTree;

use super::failure::CriuFailure;
use super::link::{FromNest, FromProxy, MAX_LINE};
use super::mounts;
use super::proxy::{CGROUP_VARIABLE, DEADLINES_VARIABLE, SOCKET_VARIABLE};
use crate::cgroup::Cgroup;
use crate::tools::Tool;

/// File in the image directory from which runc reads what the standard streams were.
const DESCRIPTORS: &str = "descriptors.json";

/// A restore did not come to HELD.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// CRIU, or the proxy, says why. What had been restored is dead.
    #[error("cannot restore")]
    Failed(#[source] Box<CriuFailure>),
    /// The proxy ended without a word (runc failed before it came to it, or was killed). Something may have been
    /// restored: kill what is in the cgroup.
    #[error("runc or its criu ended before {what}")]
    Lost {
        /// What was still to come.
        what: &'static str,
    },
    /// It takes too long. Something may have been restored: kill what is in the cgroup.
    #[error("{what} did not come within {} s", waited.as_secs_f64())]
    Late {
        /// What was waited for.
        what: &'static str,
        /// How long.
        waited: Duration,
    },
    /// The socket to the proxy failed.
    #[error("cannot {action}")]
    Socket {
        /// What was tried.
        action: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The proxy said something else than it should. It is of another version, or not ours.
    #[error("the proxy said {said:?} where {expected} was expected")]
    Confused {
        /// What it said.
        said: String,
        /// What it should have said.
        expected: &'static str,
    },
}

/// Waits for the proxy of one restore. The socket file is removed with it.
#[derive(Debug)]
pub struct ProxyListener {
    listener: UnixListener,
    path: PathBuf,
    deadlines: RestoreDeadlines,
}

/// runc and CRIU stand ready; nothing has been restored.
#[derive(Debug)]
pub struct ArmedRestore {
    link: Link,
}

/// CRIU restores.
#[derive(Debug)]
pub struct Restoring {
    link: Link,
}

/// CRIU restores, and will ask for its network namespace to be wired.
#[derive(Debug)]
pub struct Wiring {
    link: Link,
}

/// The namespaces of the tree exist, and CRIU waits. Dropped, the restore fails and nothing is left of it.
#[derive(Debug)]
pub struct Unwired {
    /// The first process of the tree.
    pub pid: i32,
    link: Link,
}

#[derive(Debug)]
struct Link {
    stream: BufReader<UnixStream>,
    deadlines: RestoreDeadlines,
}

/// Makes a directory in which this program is called `criu`, to stand first in the `PATH` of runc.
///
/// `program` must call [`proxy::main`](super::proxy::main) when its own name is `criu`. Safe to repeat.
pub fn make_path(directory: &Path, program: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let link = directory.join(Tool::Criu.name());
    match fs::remove_file(&link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => symlink(program, link),
    }
}

/// Tells runc what the standard streams of the dumped service were, as `pipe:[123]`, in the order 0, 1, 2; it then
/// gives the restored service its own in their place. To be written before runc starts.
pub fn write_descriptors(images: &Path, streams: &[String]) -> io::Result<()> {
    fs::write(images.join(DESCRIPTORS), serde_json::to_vec(streams)?)
}

/// What the standard streams of a service are, for [`write_descriptors`].
pub fn read_descriptors(pid: i32) -> io::Result<Vec<String>> {
    let name = |number| fs::read_link(format!("/proc/{pid}/fd/{number}"));
    (0..3).map(|number| Ok(name(number)?.to_string_lossy().into_owned())).collect()
}

/// Takes away what a restore that was killed has left mounted below a directory: runc's state of the container (the
/// root that was meant for CRIU) and the work directory (CRIU's own cgroup mounts).
///
/// On `Ok` the directory can be deleted with all in it; before that, deleting it would delete the service's files.
/// Safe to repeat.
pub fn unmount_below(directory: &Path) -> io::Result<()> {
    mounts::unmount_below(directory)
}

impl ProxyListener {
    /// Starts to listen, for a restore that may take as long as `deadlines` say. A socket left over from an earlier run
    /// is replaced.
    pub fn bind(path: &Path, deadlines: RestoreDeadlines) -> Result<Self, RestoreError> {
        let action = "listen for the proxy";
        match fs::remove_file(path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(RestoreError::Socket { action, source });
            }
            _ => {}
        }
        let listener = UnixListener::bind(path).map_err(|source| RestoreError::Socket { action, source })?;
        Ok(Self { listener, path: path.to_owned(), deadlines })
    }

    /// The variables with which runc has to be started, `PATH` first: it then finds the proxy as its `criu`, and
    /// the proxy finds us.
    pub fn environment(
        &self,
        path_directory: &Path,
        criu: &Path,
        cgroup: &Cgroup,
    ) -> Result<Vec<(&'static str, OsString)>, RestoreError> {
        let inherited = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::iter::once(path_directory.to_owned()).chain(std::env::split_paths(&inherited));
        let path = std::env::join_paths(folders).map_err(|error| RestoreError::Socket {
            action: "put the proxy into PATH",
            source: io::Error::other(error),
        })?;
        let cgroup = serde_json::to_string(cgroup)
            .map_err(|error| RestoreError::Socket { action: "name the cgroup", source: error.into() })?;
        let deadlines = serde_json::to_string(&self.deadlines)
            .map_err(|error| RestoreError::Socket { action: "name the deadlines", source: error.into() })?;
        Ok(vec![
            ("PATH", path),
            (Tool::Criu.variable(), criu.into()),
            (SOCKET_VARIABLE, self.path.clone().into()),
            (CGROUP_VARIABLE, cgroup.into()),
            (DEADLINES_VARIABLE, deadlines.into()),
        ])
    }

    /// Waits until runc has done its part and CRIU is started. Watch runc meanwhile: where it fails, nothing comes.
    ///
    /// On `Ok` nothing has been restored and nothing will be before [`ArmedRestore::go`]. On `Err` neither.
    pub async fn armed(self) -> Result<ArmedRestore, RestoreError> {
        let what = "an armed proxy";
        let deadline = self.deadlines.arm;
        let accepted = timeout(deadline, self.listener.accept()).await;
        let (stream, _) = accepted
            .map_err(|_| RestoreError::Late { what, waited: deadline })?
            .map_err(|source| RestoreError::Socket { action: "accept the proxy", source })?;
        let mut link = Link { stream: BufReader::new(stream), deadlines: self.deadlines };
        match link.next(what, deadline).await? {
            FromProxy::Armed { .. } => Ok(ArmedRestore { link }),
            FromProxy::Failed(failure) => Err(RestoreError::Failed(Box::new(failure))),
            said => Err(RestoreError::Confused { said: format!("{said:?}"), expected: "armed" }),
        }
    }
}

impl Drop for ProxyListener {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl ArmedRestore {
    /// Lets CRIU restore; the images must be complete.
    ///
    /// From here on something may be restored, also on `Err` and after our own death; it ends frozen or dead.
    pub async fn go(mut self) -> Result<Restoring, RestoreError> {
        self.link.send(&FromNest::Go { wire: false }).await?;
        Ok(Restoring { link: self.link })
    }

    /// As [`go`](Self::go), for a tree whose network namespace is made by CRIU and wired by us.
    pub async fn go_wiring(mut self) -> Result<Wiring, RestoreError> {
        self.link.send(&FromNest::Go { wire: true }).await?;
        Ok(Wiring { link: self.link })
    }
}

impl Wiring {
    /// Waits until the namespaces exist. On [`RestoreError::Failed`] nothing is left of the tree.
    pub async fn namespaces(mut self) -> Result<Unwired, RestoreError> {
        let RestoreDeadlines { restore, answer, .. } = self.link.deadlines;
        match self.link.next("namespaces", restore + answer).await? {
            FromProxy::Namespaces { pid } => Ok(Unwired { pid, link: self.link }),
            FromProxy::Failed(failure) => Err(RestoreError::Failed(Box::new(failure))),
            said => {
                Err(RestoreError::Confused { said: format!("{said:?}"), expected: "namespaces or failed" })
            }
        }
    }
}

impl Unwired {
    /// Lets CRIU go on to the sockets.
    pub async fn wired(mut self) -> Result<Restoring, RestoreError> {
        self.link.send(&FromNest::Wired).await?;
        Ok(Restoring { link: self.link })
    }
}

impl Restoring {
    /// Waits for the tree.
    ///
    /// On `Ok` it is restored and has not run: see [`HeldTree`]. On [`RestoreError::Failed`] nothing is left of it.
    /// On other errors that is not known.
    pub async fn held(mut self) -> Result<HeldTree, RestoreError> {
        let RestoreDeadlines { restore, freeze, kill, answer, .. } = self.link.deadlines;
        match self.link.next("a held tree", restore + freeze + kill + answer).await? {
            FromProxy::Held(tree) => Ok(tree),
            FromProxy::Failed(failure) => Err(RestoreError::Failed(Box::new(failure))),
            said => Err(RestoreError::Confused { said: format!("{said:?}"), expected: "held or failed" }),
        }
    }
}

impl Link {
    async fn send(&mut self, message: &FromNest) -> Result<(), RestoreError> {
        let action = "tell the proxy to go";
        let mut line = serde_json::to_vec(message)
            .map_err(|error| RestoreError::Socket { action, source: error.into() })?;
        line.push(b'\n');
        let waited = self.deadlines.answer;
        match timeout(waited, self.stream.write_all(&line)).await {
            Ok(sent) => sent.map_err(|source| RestoreError::Socket { action, source }),
            Err(_) => Err(RestoreError::Late { what: "a proxy that listens", waited }),
        }
    }

    async fn next(&mut self, what: &'static str, deadline: Duration) -> Result<FromProxy, RestoreError> {
        let mut line = String::new();
        let mut limited = (&mut self.stream).take(MAX_LINE);
        let read = timeout(deadline, limited.read_line(&mut line)).await;
        match read.map_err(|_| RestoreError::Late { what, waited: deadline })? {
            Ok(_) if !line.ends_with('\n') => Err(RestoreError::Lost { what }),
            Ok(_) => serde_json::from_str(&line)
                .map_err(|_| RestoreError::Confused { said: line.trim().to_owned(), expected: what }),
            Err(source) if source.kind() == io::ErrorKind::ConnectionReset => {
                Err(RestoreError::Lost { what })
            }
            Err(source) => Err(RestoreError::Socket { action: "listen to the proxy", source }),
        }
    }
}
