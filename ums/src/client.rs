//! Talks to a site's daemon: HTTP/1.1 over its Unix socket, or over TLS with a token and a pinned fingerprint.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;
use ums_model::error::{ErrorCode, WireError};
use ums_model::event::MigrationEvent;
use ums_model::names::Fingerprint;
use ums_transfer::Deadlines;
use ums_transfer::identity::Identity;
use ums_transfer::tls::{Dial, connect};

pub(crate) use ums_model::error::chain;

/// Longest wait for the head of an answer. Starting a service may unpack an image first.
const ANSWER: Duration = Duration::from_secs(600);

/// Which daemon.
#[derive(Debug, Clone)]
pub(crate) enum Daemon {
    /// The one of this host.
    Local(PathBuf),
    /// A remote one.
    Remote { address: String, fingerprint: Fingerprint, token: String },
}

/// A failed call: an error of the daemon, or none could be reached.
pub(crate) type CallResult<T> = Result<T, WireError>;

fn unreachable(daemon: &Daemon, why: impl std::fmt::Display) -> WireError {
    match daemon {
        Daemon::Local(path) => WireError::new(
            ErrorCode::Unreachable,
            format!("cannot reach the site's daemon at {}: {why}", path.display()),
        )
        .with_hint("start it with `ums site --name NAME`, or say --socket PATH of a running one"),
        Daemon::Remote { address, .. } => WireError::new(
            ErrorCode::Unreachable,
            format!("cannot reach the site at {address}: {why}"),
        )
        .with_hint(
            "check the address, the fingerprint (there: ums sites) and UMS_TOKEN (there: ums token new NAME)",
        ),
    }
}

impl Daemon {
    /// From the command line.
    pub(crate) fn from_args(
        socket: PathBuf,
        url: Option<String>,
        fingerprint: Option<&str>,
    ) -> anyhow::Result<Self> {
        let Some(url) = url else { return Ok(Self::Local(socket)) };
        let address = url.trim_start_matches("https://").trim_end_matches('/').to_owned();
        let fingerprint =
            fingerprint.context("--url needs --fingerprint (or UMS_FINGERPRINT) of that site")?;
        let token = std::env::var("UMS_TOKEN")
            .context("--url needs a token in UMS_TOKEN (`ums token new` at that site)")?;
        Ok(Self::Remote { address, fingerprint: fingerprint.parse()?, token })
    }

    async fn sender(&self) -> CallResult<SendRequest<Full<Bytes>>> {
        match self {
            Self::Local(path) => {
                let stream = UnixStream::connect(path).await.map_err(|error| unreachable(self, error))?;
                self.speak(stream).await
            }
            Self::Remote { address, fingerprint, .. } => {
                let identity = Identity::ephemeral().map_err(|error| unreachable(self, error))?;
                let dial = Dial::Api(*fingerprint);
                let stream = connect(address, &identity, dial, &Deadlines::default()).await;
                self.speak(stream.map_err(|error| unreachable(self, chain(&error)))?).await
            }
        }
    }

    async fn speak<S>(&self, stream: S) -> CallResult<SendRequest<Full<Bytes>>>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    {
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|error| unreachable(self, error))?;
        tokio::spawn(connection.with_upgrades());
        Ok(sender)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        upgrade: Option<&str>,
    ) -> CallResult<Response<Incoming>> {
        let mut request = Request::builder().method(method).uri(path).header("host", "ums");
        if let Self::Remote { token, .. } = self {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some(protocol) = upgrade {
            request = request.header("connection", "upgrade").header("upgrade", protocol);
        }
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let bytes = body.map(Value::to_string).unwrap_or_default();
        let request =
            request.body(Full::new(Bytes::from(bytes))).map_err(|error| unreachable(self, error))?;
        let mut sender = self.sender().await?;
        let answer = tokio::time::timeout(ANSWER, sender.send_request(request)).await;
        let response = answer
            .map_err(|_| unreachable(self, "it did not answer"))?
            .map_err(|error| unreachable(self, error))?;
        if response.status().is_success() || response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response);
        }
        let status = response.status();
        let text = response.into_body().collect().await.map_err(|error| unreachable(self, error))?.to_bytes();
        Err(serde_json::from_slice(&text).unwrap_or_else(|_| {
            WireError::new(
                ErrorCode::Internal,
                format!("the daemon answered {status}: {}", String::from_utf8_lossy(&text)),
            )
        }))
    }

    /// One call with a JSON answer; null where there is none.
    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> CallResult<Value> {
        let response = self.send(method, path, body, None).await?;
        let text = response.into_body().collect().await.map_err(|error| unreachable(self, error))?.to_bytes();
        if text.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&text).map_err(|error| {
            WireError::new(ErrorCode::Internal, format!("the daemon's answer is no JSON: {error}"))
        })
    }

    /// GET.
    pub(crate) async fn get(&self, path: &str) -> CallResult<Value> {
        self.call(Method::GET, path, None).await
    }

    /// POST.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> CallResult<Value> {
        self.call(Method::POST, path, Some(body)).await
    }

    /// PUT.
    pub(crate) async fn put(&self, path: &str, body: &Value) -> CallResult<Value> {
        self.call(Method::PUT, path, Some(body)).await
    }

    /// DELETE.
    pub(crate) async fn delete(&self, path: &str) -> CallResult<Value> {
        self.call(Method::DELETE, path, None).await
    }

    /// A body that is handed over piece by piece until it ends or `each` says stop.
    pub(crate) async fn stream(&self, path: &str, mut each: impl FnMut(&[u8]) -> bool) -> CallResult<()> {
        let mut body = self.send(Method::GET, path, None, None).await?.into_body();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| unreachable(self, error))?;
            if let Ok(data) = frame.into_data()
                && !each(&data)
            {
                break;
            }
        }
        Ok(())
    }

    /// The events of a migration, from its first; ends when `each` says stop or the daemon goes.
    pub(crate) async fn events(
        &self,
        path: &str,
        mut each: impl FnMut(MigrationEvent) -> bool,
    ) -> CallResult<()> {
        let mut buffer = Vec::new();
        self.stream(path, |data| {
            buffer.extend_from_slice(data);
            while let Some(end) = buffer.windows(2).position(|pair| pair == b"\n\n") {
                let message: Vec<u8> = buffer.drain(..end + 2).collect();
                let text = String::from_utf8_lossy(&message);
                let data: String =
                    text.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim_start).collect();
                if let Ok(event) = serde_json::from_str::<MigrationEvent>(&data)
                    && !each(event)
                {
                    return false;
                }
            }
            true
        })
        .await
    }

    /// A connection that leaves HTTP behind.
    pub(crate) async fn upgrade(
        &self,
        path: &str,
        protocol: &str,
    ) -> CallResult<TokioIo<hyper::upgrade::Upgraded>> {
        let response = self.send(Method::POST, path, None, Some(protocol)).await?;
        let upgraded = hyper::upgrade::on(response).await.map_err(|error| unreachable(self, error))?;
        Ok(TokioIo::new(upgraded))
    }
}
