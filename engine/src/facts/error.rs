//! Why facts could not be read.

use std::io;
use std::path::PathBuf;

/// A fact without which there is no plan could not be read.
#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    /// A file cannot be read, or a directory not be asked.
    #[error("cannot read {path}")]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file does not say what it should.
    #[error("{path} does not tell {what}")]
    Unclear {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
    },
    /// The service ended.
    #[error("the service's first process, {pid}, is gone")]
    Gone {
        /// Its pid.
        pid: i32,
    },
}

impl FactsError {
    pub(super) fn read(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Read { path, source }
    }
}
