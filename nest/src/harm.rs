//! A copy that a dump has harmed stands frozen, and nobody thaws it: not the undo of that dump, and not a nest that
//! starts later. It ends with the copy: a service that is started anew has no harm.
//!
//! A dump is in doubt from before its first task is stopped until it is known how its CRIU ended: so a nest that is
//! killed together with its CRIU is followed by one that knows that it does not know.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use ums_engine::cgroup::Cgroup;
use ums_engine::criu::mend::came_to_its_end;
use ums_engine::criu::running::running;
use ums_model::error::{ErrorCode, WireError, chain};
use ums_model::names::ServiceName;

use crate::layout::{harm, images};
use crate::state::{FileError, forget, read_json, write_json};

/// What is noted while a dump is in doubt.
const DOUBT: &str = "it is being dumped";

/// What is noted when a doubt could not be resolved.
const UNKNOWN: &str = "its CRIU and its nest ended in the middle of a dump";

/// Notes that a dump begins. On `Err` it must not.
pub(crate) fn doubt(path: &Path) -> Result<(), FileError> {
    write_json(path, &DOUBT)
}

/// Notes what is wrong. Where that fails, the doubt stays, which is as good.
pub(crate) fn note(path: &Path, harm: &str) {
    if let Err(error) = write_json(path, &harm) {
        tracing::error!(%error, harm, "cannot note that a dump has harmed the service");
    }
}

/// Takes the note away: the copy is whole, or another one. Where that fails, the copy is taken for harmed.
pub(crate) fn clear(path: &Path) {
    if let Err(error) = forget(path) {
        tracing::error!(error = %chain(&error), "cannot take away a note about harm");
    }
}

/// Ends a doubt where no CRIU is left, by what the last one wrote into `images`: one that came to its own end has let go
/// of the service; of any other it stays unknown what it did.
pub(crate) fn judge(path: &Path, images: &Path) {
    if read_json::<String>(path).is_ok_and(|noted| noted == DOUBT) {
        match came_to_its_end(images) {
            true => clear(path),
            false => note(path, UNKNOWN),
        }
    }
}

/// Stops a copy that a dump has harmed, as soon as that is known: when the next nest is there, or when its CRIU has ended.
/// One whose CRIU lives is in its hands. Whether it may go on is seen when it is settled, and what fails here fails there.
pub(crate) async fn hold(cgroup: &Cgroup, within: Duration) {
    if let Ok(None) = running() {
        judge(&harm(), &images());
    }
    if is_known(&harm())
        && let Err(error) = cgroup.freeze_async(within).await
    {
        tracing::error!(error = %chain(&error), "a copy that a dump has harmed does not stand still");
    }
}

/// Whether it is known that the copy is not what it was, and will not be again. A dump that goes on is no harm.
pub(crate) fn is_known(path: &Path) -> bool {
    match read_json::<String>(path) {
        Ok(harm) => harm != DOUBT,
        Err(FileError::Read { source, .. }) => source.kind() != ErrorKind::NotFound,
        Err(_) => true,
    }
}

/// Ok if nothing is known to be wrong. A note that cannot be read is one.
pub(crate) fn none(path: &Path, service: &ServiceName) -> Result<(), WireError> {
    let harm = match read_json::<String>(path) {
        Ok(harm) => harm,
        Err(FileError::Read { source, .. }) if source.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => error.to_string(),
    };
    let message = format!("service {service} stays frozen, because a dump has harmed it: {harm}");
    let hint = format!("its memory is lost; look at it: ums status {service}");
    Err(WireError::new(ErrorCode::Stuck, message).with_hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_harmed_copy_is_not_let_go() {
        let dir = tempfile::tempdir().unwrap();
        let (path, service) = (dir.path().join("harm.json"), "web".parse::<ServiceName>().unwrap());
        none(&path, &service).unwrap();
        note(&path, "process 7 has died");
        let refused = none(&path, &service).unwrap_err();
        assert_eq!(refused.code, ErrorCode::Stuck);
        assert!(refused.message.contains("process 7 has died"), "{refused:?}");
        std::fs::write(&path, b"").unwrap();
        assert!(none(&path, &service).is_err());
    }

    #[test]
    fn a_doubt_is_resolved_only_by_a_criu_that_came_to_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let (path, service) = (dir.path().join("harm.json"), "web".parse::<ServiceName>().unwrap());
        doubt(&path).unwrap();
        assert!(none(&path, &service).is_err() && !is_known(&path));
        judge(&path, dir.path());
        assert!(none(&path, &service).is_err() && is_known(&path));
        doubt(&path).unwrap();
        std::fs::write(dir.path().join("dump.log"), "Dumping FAILED.\n").unwrap();
        judge(&path, dir.path());
        none(&path, &service).unwrap();
        assert!(!is_known(&path));
        // What is known to be harmed is not a matter of logs.
        note(&path, "process 7 has died");
        judge(&path, dir.path());
        assert!(none(&path, &service).is_err());
        clear(&path);
        clear(&path);
        none(&path, &service).unwrap();
    }
}
