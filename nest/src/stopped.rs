//! The note that a user has stopped the service: from then on only a user starts it, also after its host was off.

use std::io::ErrorKind;

use crate::layout::NestDir;
use crate::state::{FileError, forget, write_json};

/// Notes it. Ok = the note survives a crash of the host.
pub fn note(dir: &NestDir) -> Result<(), FileError> {
    write_json(&dir.stopped(), &true)
}

/// Takes the note away: a user has started the service. Ok = it stays away after a crash of the host.
pub fn clear(dir: &NestDir) -> Result<(), FileError> {
    forget(&dir.stopped())
}

/// Whether there is such a note. One that cannot be looked for is one: nothing is started against a user's will.
pub fn is_noted(dir: &NestDir) -> bool {
    match std::fs::symlink_metadata(dir.stopped()) {
        Err(error) => error.kind() != ErrorKind::NotFound,
        Ok(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_stays_until_it_is_taken_away() {
        let place = tempfile::tempdir().unwrap();
        let dir = NestDir::new(place.path());
        assert!(!is_noted(&dir));
        clear(&dir).unwrap();
        note(&dir).unwrap();
        note(&dir).unwrap();
        assert!(is_noted(&dir));
        clear(&dir).unwrap();
        assert!(!is_noted(&dir));
        // Behind something that is no directory nobody can tell.
        let file = place.path().join("file");
        std::fs::write(&file, b"").unwrap();
        assert!(is_noted(&NestDir::new(file)));
    }
}
