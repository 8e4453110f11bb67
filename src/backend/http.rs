//! HTTP to one backend: how it is reached, and what can go wrong before an answer begins. Knows no routes'
//! meaning and never retries, redirects, compresses or uses a proxy.

mod address;
mod look;
mod trouble;

use super::fault::{self, ErrorBody, Origin};
use crate::chat::{GenError, GenErrorKind};
use address::Address;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, LOCATION, SERVER};
use reqwest::{Client, ClientBuilder, Method, RequestBuilder, Response};
use serde_json::Value;
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

pub(super) use look::Look;
pub(super) use trouble::{HttpError, Reach, why};

/// Bytes of a body that is not a stream.
const MAX_BODY: usize = 8 * 1024 * 1024;
/// Bytes of an error body that are read.
const MAX_ERROR_BODY: usize = 256 * 1024;
/// For a connection.
const CONNECT: Duration = Duration::from_secs(3);
/// For a small answer that needs no model.
pub(super) const QUICK: Duration = Duration::from_secs(10);

/// One backend's address and client.
#[derive(Debug)]
pub(super) struct Http {
    backend: String,
    /// Without a slash at the end and without `/v1`.
    base: String,
    /// The address as people know it.
    place: String,
    /// What to do when nobody is there.
    next_step: String,
    client: Client,
    key: Key,
    family: AtomicU8,
}

/// Which key a backend wants.
pub(super) enum Key {
    /// None.
    None,
    /// The one in this variable, which is not set.
    Missing(String),
    /// This one.
    Value(HeaderValue),
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Missing(_) => "Missing",
            Self::Value(_) => "Value",
        })
    }
}

/// Whose words a server's answers are, by its last `Server` header.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Family {
    Foreign = 0,
    /// Our engine, here or elsewhere.
    Engine = 1,
    /// `mlx_lm.server`, or something else made of Python's own server.
    Mlx = 2,
}

/// What every client has in common.
fn builder() -> ClientBuilder {
    Client::builder()
        .user_agent(concat!("duet/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .connect_timeout(CONNECT)
        // A connection that lay idle may be dead, and a request on it could be sent twice.
        .pool_max_idle_per_host(0)
}

impl Http {
    /// For a server at `http://host:port` or `http://host:port/v1`. No IO.
    ///
    /// # Errors
    /// One line naming the backend, when the address is no good.
    pub(super) fn tcp(backend: &str, address: &str, key: Key) -> Result<Self, String> {
        let Address { base, is_here } = address::parse(backend, address)?;
        if !matches!(key, Key::None) && !is_here {
            return Err(format!(
                "backend `{backend}`: a key is not sent over plain http to another machine; use an SSH tunnel to localhost"
            ));
        }
        let mut client = builder()
            .tcp_nodelay(true)
            .tcp_keepalive(Duration::from_secs(10))
            .tcp_keepalive_interval(Duration::from_secs(5))
            .tcp_keepalive_retries(3);
        #[cfg(target_os = "linux")]
        {
            client = client.tcp_user_timeout(Duration::from_secs(20));
        }
        let client = client.build().map_err(|error| format!("backend `{backend}`: {error}"))?;
        Ok(Self {
            backend: backend.to_owned(),
            place: base.clone(),
            next_step: format!("start the server there, or correct `url` of backend {backend}"),
            base,
            client,
            key,
            family: AtomicU8::new(Family::Foreign as u8),
        })
    }

    /// For the engine behind this socket. No IO.
    ///
    /// # Errors
    /// One line, when no client can be made.
    pub(super) fn unix(backend: &str, socket: &Path) -> Result<Self, String> {
        let client =
            builder().unix_socket(socket).build().map_err(|error| format!("backend `{backend}`: {error}"))?;
        Ok(Self {
            backend: backend.to_owned(),
            base: "http://duet".to_owned(),
            place: socket.display().to_string(),
            next_step: "try again: it is started by itself".to_owned(),
            client,
            key: Key::None,
            family: AtomicU8::new(Family::Engine as u8),
        })
    }

    /// The backend's name.
    pub(super) fn backend(&self) -> &str {
        &self.backend
    }

    /// The address as people know it.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// Whose words its errors are.
    pub(super) fn origin(&self) -> Origin {
        match self.family.load(Ordering::Relaxed) {
            family if family == Family::Engine as u8 => Origin::Engine,
            family if family == Family::Mlx as u8 => Origin::Mlx,
            _ => Origin::Foreign,
        }
    }

    /// A request to one route.
    ///
    /// # Errors
    /// When the backend's key is missing.
    pub(super) fn request(&self, method: Method, route: &str) -> Result<RequestBuilder, HttpError> {
        let request = self.client.request(method, format!("{}{route}", self.base));
        let request = request.header(ACCEPT_ENCODING, "identity");
        match &self.key {
            Key::None => Ok(request),
            Key::Value(key) => Ok(request.header(reqwest::header::AUTHORIZATION, key.clone())),
            Key::Missing(variable) => {
                let message = format!(
                    "{} wants the key in ${variable}, which is not set\nset it, or remove `token_env` from backend {}",
                    self.backend, self.backend
                );
                Err(HttpError { error: GenError::new(GenErrorKind::Auth, message), reach: Reach::Nobody })
            }
        }
    }

    /// Sends a request and waits for the headers, at most this long. The answer's status is a good one.
    ///
    /// # Errors
    /// When there is no connection, no answer, or a refusal (`model` is named in it).
    pub(super) async fn send(
        &self,
        request: RequestBuilder,
        patience: Duration,
        model: Option<&str>,
    ) -> Result<Response, HttpError> {
        let response = match tokio::time::timeout(patience, request.send()).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(self.unsent(&error)),
            Err(_) => return Err(self.silent(patience)),
        };
        self.learn_family(&response);
        let status = response.status();
        let refused = |error| HttpError { error, reach: Reach::Answered { status: status.as_u16() } };
        if status.is_redirection() {
            let to = response
                .headers()
                .get(LOCATION)
                .map(|to| String::from_utf8_lossy(to.as_bytes()).into_owned());
            let message = format!(
                "{}: the server redirects to {}; change the address if that is meant",
                self.backend,
                fault::clean(to.as_deref().unwrap_or("nowhere"))
            );
            return Err(refused(GenError::new(GenErrorKind::Refused, message)));
        }
        if !status.is_success() {
            let body = tokio::time::timeout(QUICK, read_body(response, MAX_ERROR_BODY)).await;
            // Half an error body still says more than none.
            let body = match body {
                Ok(Ok(body) | Err((_, body))) => body,
                Err(_) => Vec::new(),
            };
            let body = ErrorBody::from_bytes(&body);
            let error = fault::refusal(&self.backend, model, status.as_u16(), &body, self.origin());
            return Err(refused(error));
        }
        if let Some(coding) = response.headers().get(CONTENT_ENCODING).filter(|c| *c != "identity") {
            let coding = fault::clean(&String::from_utf8_lossy(coding.as_bytes()));
            let message = format!(
                "{} compresses its answers ({coding}) though it was asked not to\nturn compression off there",
                self.backend
            );
            return Err(refused(GenError::new(GenErrorKind::Protocol, message)));
        }
        Ok(response)
    }

    /// Gets JSON.
    ///
    /// # Errors
    /// As [`Self::send`], and when the answer is too large or no JSON.
    pub(super) async fn get(&self, route: &str, patience: Duration) -> Result<Value, HttpError> {
        self.json(self.request(Method::GET, route)?, patience, None).await
    }

    /// Posts JSON and gets JSON.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub(super) async fn post(
        &self,
        route: &str,
        body: &Value,
        patience: Duration,
        model: Option<&str>,
    ) -> Result<Value, HttpError> {
        self.json(self.request(Method::POST, route)?.json(body), patience, model).await
    }

    async fn json(
        &self,
        request: RequestBuilder,
        patience: Duration,
        model: Option<&str>,
    ) -> Result<Value, HttpError> {
        let response = self.send(request, patience, model).await?;
        let body = match tokio::time::timeout(patience, read_body(response, MAX_BODY)).await {
            Ok(Ok(body)) => body,
            Ok(Err((why, _))) => return Err(self.broken(&why)),
            Err(_) => return Err(self.silent(patience)),
        };
        serde_json::from_slice(&body).map_err(|_| HttpError {
            error: fault::not_a_chat(&self.backend, &self.place, &ErrorBody::from_bytes(&body)),
            reach: Reach::Answered { status: 200 },
        })
    }

    /// The whole body of an answer that is no stream.
    ///
    /// # Errors
    /// Why it can't be had, and what came.
    pub(super) async fn body(&self, response: Response, patience: Duration) -> Result<Vec<u8>, HttpError> {
        match tokio::time::timeout(patience, read_body(response, MAX_BODY)).await {
            Ok(Ok(body)) => Ok(body),
            Ok(Err((why, _))) => Err(self.broken(&why)),
            Err(_) => Err(self.silent(patience)),
        }
    }

    fn learn_family(&self, response: &Response) {
        let header =
            response.headers().get(SERVER).map(|s| String::from_utf8_lossy(s.as_bytes()).to_lowercase());
        let family = match header {
            Some(server) if server.starts_with("duet/") => Family::Engine,
            Some(server) if server.starts_with("basehttp/") => Family::Mlx,
            Some(_) => Family::Foreign,
            None => return,
        };
        self.family.store(family as u8, Ordering::Relaxed);
    }
}

/// Whether an answer says it is a stream of events, JSON, or something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyKind {
    /// Server-sent events.
    Events,
    /// One JSON value.
    Json,
    /// JSON values, one a line.
    Lines,
    /// Anything else.
    Other,
}

impl BodyKind {
    /// By the content type; a missing one is taken for events.
    pub(super) fn of(response: &Response) -> Self {
        let Some(kind) = response.headers().get(CONTENT_TYPE) else { return Self::Events };
        let kind = String::from_utf8_lossy(kind.as_bytes()).to_ascii_lowercase();
        if kind.starts_with("text/event-stream") {
            Self::Events
        } else if kind.contains("ndjson") || kind.contains("jsonl") {
            Self::Lines
        } else if kind.starts_with("application/json") {
            Self::Json
        } else {
            Self::Other
        }
    }
}

/// Reads a body up to `max` bytes; on an error, why, and what came.
async fn read_body(mut response: Response, max: usize) -> Result<Vec<u8>, (String, Vec<u8>)> {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > max => {
                return Err((format!("the answer is larger than {} KiB", max / 1024), body));
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body),
            Err(error) => return Err((why(&error), body)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stay_on_this_machine() {
        let key = || Key::Value(HeaderValue::from_static("Bearer x"));
        assert!(Http::tcp("mac", "http://localhost:1", key()).is_ok());
        assert!(Http::tcp("mac", "http://127.0.0.1:1", key()).is_ok());
        assert!(Http::tcp("mac", "http://[::1]:1", key()).is_ok());
        assert!(Http::tcp("mac", "http://192.168.0.2:1", key()).is_err());
        assert!(!format!("{:?}", key()).contains("Bearer"));
        let missing =
            Http::tcp("mac", "http://localhost:1", Key::Missing("MAC_KEY".to_owned())).expect("fine");
        let error = missing.get_error();
        assert!(error.starts_with("mac wants the key in $MAC_KEY, which is not set"), "{error}");
    }

    impl Http {
        fn get_error(&self) -> String {
            self.request(Method::GET, "/").err().map(|e| e.error.message).unwrap_or_default()
        }
    }
}
