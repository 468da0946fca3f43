//! `/v1/services/{name}/logs`: what a service wrote to its standard output and error.

use std::io::{self, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;
use serde::Deserialize;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use ums_model::error::{ErrorCode, WireError};
use ums_model::names::ServiceName;
use ums_sites::adapter::SiteAdapter;

use super::extract::{Failure, Named, Params};
use crate::core::Core;
use crate::services;

/// How much is read, and sent, at once.
const BLOCK: usize = 64 * 1024;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Which {
    /// Go on until the client has enough.
    follow: bool,
    /// Only this many lines of what is there already.
    tail: Option<usize>,
}

struct Log<S> {
    core: Arc<Core<S>>,
    path: PathBuf,
    file: File,
    at: u64,
    follow: bool,
}

pub(super) async fn logs<S: SiteAdapter>(
    State(core): State<Arc<Core<S>>>,
    Named(name): Named<ServiceName>,
    Params(which): Params<Which>,
) -> Result<Response, Failure> {
    let path = services::log_path(&core, &name).await?;
    let failed = |error: io::Error| {
        WireError::new(
            ErrorCode::Internal,
            format!("cannot read the log of {name} ({}): {error}", path.display()),
        )
    };
    let mut file = File::open(&path).await.map_err(failed)?;
    let at = match which.tail {
        Some(lines) => begin_of_last(&mut file, lines).await.map_err(failed)?,
        None => 0,
    };
    file.seek(SeekFrom::Start(at)).await.map_err(failed)?;
    let log = Log { core, path: path.clone(), file, at, follow: which.follow };
    let body = Body::from_stream(unfold(log, |mut log| async move {
        log.next().await.transpose().map(|block| (block, log))
    }));
    Ok(([(CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response())
}

impl<S: SiteAdapter> Log<S> {
    /// The next block; `None` at the end of what the client wants.
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            let mut block = Vec::with_capacity(BLOCK);
            (&mut self.file).take(BLOCK as u64).read_to_end(&mut block).await?;
            if !block.is_empty() {
                self.at += block.len() as u64;
                return Ok(Some(block.into()));
            }
            if !self.follow {
                return Ok(None);
            }
            tokio::select! {
                biased;
                () = self.core.stopping.cancelled() => return Ok(None),
                () = tokio::time::sleep(self.core.config.deadlines.follow) => {}
            }
            if !self.renew().await? {
                return Ok(None);
            }
        }
    }

    /// Goes on with the file that now has the name, and from the start if it has become shorter. `false`: there is
    /// none any more.
    async fn renew(&mut self) -> io::Result<bool> {
        let named = match tokio::fs::metadata(&self.path).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            named => named?,
        };
        let own = self.file.metadata().await?;
        if (named.dev(), named.ino()) != (own.dev(), own.ino()) {
            self.file = File::open(&self.path).await?;
            self.at = 0;
        } else if named.len() < self.at {
            self.file.seek(SeekFrom::Start(0)).await?;
            self.at = 0;
        }
        Ok(true)
    }
}

/// Where the last `lines` lines begin, found from the end without reading the whole file.
async fn begin_of_last(file: &mut File, lines: usize) -> io::Result<u64> {
    let end = file.metadata().await?.len();
    let (mut at, mut seen) = (end, 0);
    while at > 0 {
        let length = at.min(BLOCK as u64);
        at -= length;
        file.seek(SeekFrom::Start(at)).await?;
        let mut block = Vec::with_capacity(BLOCK);
        (&mut *file).take(length).read_to_end(&mut block).await?;
        for (index, _) in block.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            let after = at + index as u64 + 1;
            // The newline at the very end closes the last line and begins none.
            if after == end {
                continue;
            }
            seen += 1;
            if seen == lines {
                return Ok(after);
            }
        }
    }
    Ok(if lines == 0 { end } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_lines_are_found_from_the_end() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("log");
        let long = "x".repeat(BLOCK);
        for text in ["", "a", "a\n", "a\nb\nc\n", "a\nb\nc", "\n\n\n", &format!("a\n{long}\nb\n")] {
            std::fs::write(&path, text).unwrap();
            let lines: Vec<&str> = text.split_inclusive('\n').collect();
            for count in 0..5 {
                let at = begin_of_last(&mut File::open(&path).await.unwrap(), count).await.unwrap();
                let expected: String = lines[lines.len().saturating_sub(count)..].concat();
                assert_eq!(
                    text[usize::try_from(at).unwrap()..],
                    expected,
                    "{count} of {:?}",
                    &text[..text.len().min(9)]
                );
            }
        }
    }
}
