//! A copy that a dump has harmed stands frozen, and nobody thaws it: not the undo of that dump, and not a nest that
//! starts later. It ends with the copy: a service that is started anew has no harm.

use std::path::Path;

use ums_model::error::{ErrorCode, WireError};
use ums_model::names::ServiceName;

use crate::state::{FileError, read_json, write_json};

/// Writes down what is wrong. Where that fails it is told in the log: the copy is frozen already.
pub(crate) fn note(path: &Path, harm: &str) {
    if let Err(error) = write_json(path, &harm) {
        tracing::error!(%error, harm, "cannot note that a dump has harmed the service");
    }
}

/// Ok if nothing is known to be wrong. A note that cannot be read is one.
pub(crate) fn none(path: &Path, service: &ServiceName) -> Result<(), WireError> {
    let harm = match read_json::<String>(path) {
        Ok(harm) => harm,
        Err(FileError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => error.to_string(),
    };
    let message = format!("service {service} stays frozen, because a dump has harmed it: {harm}");
    let hint = format!("its memory is lost: begin it anew with ums stop {service}, then ums start {service}");
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
}
