//! The nest's durable record as a file: which epoch it has seen and what it may do. What may follow what, and what a
//! record grants, is decided by [`ums_model::nest`]; here it is only read and written.

use std::path::Path;

use ums_model::nest::Record;

use crate::state::{FileError, read_json, write_json};

/// Reads a record; `None` only if there is certainly none. One that cannot be read is an error and never taken for a
/// missing one.
pub fn read(path: &Path) -> Result<Option<Record>, FileError> {
    match read_json(path) {
        Ok(record) => Ok(Some(record)),
        Err(FileError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a record durably. Ok = it survives a crash of the host.
pub fn write(path: &Path, record: &Record) -> Result<(), FileError> {
    write_json(path, record)
}

#[cfg(test)]
mod tests {
    use ums_model::names::Epoch;
    use ums_model::nest::Right;

    use super::*;

    #[test]
    fn what_cannot_be_read_is_not_taken_for_a_nest_that_never_wrote() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("right.json");
        assert_eq!(read(&path).unwrap(), None);
        let record = Record::prepared(Epoch(7), 3);
        write(&path, &record).unwrap();
        assert_eq!(read(&path).unwrap(), Some(record));
        std::fs::write(&path, b"").unwrap();
        assert!(read(&path).is_err());
        // A path through something that is no directory says nothing about the record.
        assert!(read(&path.join("right.json")).is_err());
    }

    #[test]
    fn files_of_older_versions_still_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("right.json");
        let of = |text: &str| {
            std::fs::write(&path, text).unwrap();
            read(&path).unwrap().unwrap()
        };
        let first = of(r#"{"epoch":1,"right":"run"}"#);
        assert_eq!((first.epoch(), first.right(), first.is_fenced()), (Epoch(1), Right::Run, false));
        for right in Right::ALL {
            let text = format!(r#"{{ "epoch": 4, "right": "{right}", "tasks": 2, "fenced": true }}"#);
            let record = of(&text);
            assert_eq!((record.epoch(), record.right(), record.tasks()), (Epoch(4), *right, 2));
            assert_eq!(
                serde_json::to_value(record).unwrap(),
                serde_json::from_str::<serde_json::Value>(&text).unwrap()
            );
        }
    }
}
