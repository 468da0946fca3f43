//! `/v1/services/{name}/exec`: the HTTP connection becomes a connection to the service's nest.
//!
//! ```text
//! POST /v1/services/web/exec            Connection: upgrade, Upgrade: ums-exec
//! 101 Switching Protocols               Connection: upgrade, Upgrade: ums-exec
//! bytes both ways, until either side closes; what they mean only the client and the nest know
//! ```

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::{CONNECTION, UPGRADE};
use axum::response::{IntoResponse, Response};
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;
use ums_model::error::{ErrorCode, WireError};
use ums_model::names::ServiceName;
use ums_sites::adapter::SiteAdapter;

use super::extract::{Failure, Named};
use crate::core::Core;
use crate::services;

/// The protocol that is switched to.
const PROTOCOL: &str = "ums-exec";

pub(super) async fn exec<S: SiteAdapter>(
    State(core): State<Arc<Core<S>>>,
    Named(name): Named<ServiceName>,
    mut request: Request,
) -> Result<Response, Failure> {
    let asked = request.headers().get(UPGRADE).and_then(|value| value.to_str().ok());
    if !asked.is_some_and(|asked| asked.eq_ignore_ascii_case(PROTOCOL)) {
        let message = format!("exec needs a connection that can be upgraded: Upgrade: {PROTOCOL}");
        return Err(WireError::new(ErrorCode::BadRequest, message).into());
    }
    // What can go wrong does so before the protocol is switched, where it can still be told.
    let mut nest = services::exec(&core, &name).await?;
    let upgrade = hyper::upgrade::on(&mut request);
    core.tasks.clone().spawn(async move {
        let relay = async {
            let mut client = TokioIo::new(upgrade.await?);
            copy_bidirectional(&mut client, &mut nest)
                .await
                .map(drop)
                .map_err(Box::<dyn std::error::Error + Send + Sync>::from)
        };
        tokio::select! {
            biased;
            () = core.stopping.cancelled() => {}
            ended = relay => if let Err(error) = ended {
                tracing::debug!(service = %name, %error, "an exec connection broke");
            },
        }
    });
    Ok((StatusCode::SWITCHING_PROTOCOLS, [(CONNECTION, "upgrade"), (UPGRADE, PROTOCOL)]).into_response())
}
