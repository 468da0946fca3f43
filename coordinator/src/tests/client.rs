//! What a user does: HTTP over the Unix socket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::runtime::Handle;
use ums_model::error::WireError;

/// How long a test waits for anything before it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A user at one site.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    runtime: Handle,
    socket: PathBuf,
}

impl Client {
    pub(crate) fn new(runtime: &Handle, socket: &Path) -> Self {
        Self { runtime: runtime.clone(), socket: socket.to_owned() }
    }

    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, WireError> {
        self.call(Method::GET, path, None)
    }

    pub(crate) fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, WireError> {
        self.call(Method::POST, path, Some(body))
    }

    pub(crate) fn delete(&self, path: &str) -> Result<Value, WireError> {
        self.call(Method::DELETE, path, None)
    }

    /// A call that is answered in JSON; an empty answer is `null`.
    pub(crate) fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, WireError> {
        let (status, text) = self.raw(method, path, body, &[]);
        if !(200..300).contains(&status) {
            let error: WireError = serde_json::from_slice(&text).expect("every error is a WireError");
            assert!(
                status == error.code.http_status() || matches!(status, 401 | 403 | 404 | 405),
                "{status} {error}"
            );
            return Err(error);
        }
        let text = if text.is_empty() { b"null" } else { &text[..] };
        Ok(serde_json::from_slice(text).unwrap())
    }

    /// A call, its status and the whole body of its answer.
    pub(crate) fn raw(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> (u16, Vec<u8>) {
        self.runtime.block_on(async {
            let whole = async {
                let response = self.send(method, path, body, headers).await;
                let status = response.status().as_u16();
                (status, response.into_body().collect().await.unwrap().to_bytes().to_vec())
            };
            tokio::time::timeout(PATIENCE, whole).await.expect("an answer")
        })
    }

    /// Reads an answer that does not end until it contains `part`.
    pub(crate) fn follow_until(&self, path: &str, part: &str) {
        self.runtime.block_on(async {
            let follow = async {
                let mut body = self.send(Method::GET, path, None, &[]).await.into_body();
                let mut text = String::new();
                while !text.contains(part) {
                    let frame = body.frame().await.unwrap_or_else(|| panic!("no {part:?} in {text}"));
                    let data = frame.unwrap().into_data().unwrap_or_default();
                    text.push_str(&String::from_utf8_lossy(&data));
                }
            };
            tokio::time::timeout(PATIENCE, follow).await.expect("it says so");
        });
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> Response<Incoming> {
        let stream = UnixStream::connect(&self.socket).await.expect("a daemon");
        speak(stream).await.send_request(request(method, path, body, headers)).await.unwrap()
    }
}

pub(crate) async fn speak(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
) -> SendRequest<Full<Bytes>> {
    let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    sender
}

pub(crate) fn request(
    method: Method,
    path: &str,
    body: Option<&Value>,
    headers: &[(&str, &str)],
) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(path).header("host", "site");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::new(body.map(|body| body.to_string().into()).unwrap_or_default())).unwrap()
}
