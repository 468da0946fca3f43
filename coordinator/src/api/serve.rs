//! One connection: HTTP/1.1, with upgrades, until the client or the daemon ends it.

use std::pin::pin;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

/// Serves `router` on one connection. `head` bounds how long a client may take for the head of a request. When
/// `stopping` is cancelled, the request under way is still answered.
pub(crate) async fn serve(
    router: Router,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    head: Duration,
    stopping: CancellationToken,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .with_upgrades();
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        biased;
        ended = &mut connection => ended,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an API connection broke");
    }
}
