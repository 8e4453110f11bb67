//! HTTP to one backend: how it is reached, and what can go wrong before an answer begins. Knows no routes'
//! meaning and never retries, redirects, compresses or uses a proxy.

mod look;
mod peer;
mod trouble;

use super::fault::{self, ErrorBody, Origin};
use super::meter::{Meter, Network};
use super::ssh::Tunnel;
use super::tls::{self, Trust};
use crate::chat::{GenError, GenErrorKind};
use crate::config::address::{Address, HttpAddress};
use crate::config::fingerprint::Fingerprint;
use peer::Peer;
use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, LOCATION, SERVER};
use reqwest::{Client, ClientBuilder, Method, RequestBuilder, Response};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub(super) use super::secret::Key;
pub(super) use look::Look;
pub(super) use trouble::{HttpError, Reach, why};

/// Bytes of a body that is not a stream.
const MAX_BODY: usize = 8 * 1024 * 1024;
/// Bytes of an error body that are read.
const MAX_ERROR_BODY: usize = 256 * 1024;
/// For a connection, TLS included, however many addresses are tried.
const CONNECT: Duration = Duration::from_secs(2);
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
    way: Way,
    /// Whom it takes for the server, where it speaks TLS.
    trust: Trust,
    /// A key that was not taken for its.
    stranger: Mutex<Option<Fingerprint>>,
    meter: Meter,
    family: AtomicU8,
}

/// How a server is reached.
#[derive(Debug)]
enum Way {
    /// By a socket of this machine.
    Socket(PathBuf),
    /// By TCP.
    Network(Peer),
    /// Through SSH.
    Tunnel(Arc<Tunnel>),
}

/// Whose words a server's answers are, by its last `Server` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Family {
    Foreign = 0,
    /// Our engine, here or elsewhere.
    Engine = 1,
    /// `mlx_lm.server`, or something else made of Python's own server.
    Mlx = 2,
}

/// What every client has in common.
///
/// # Errors
/// One line, when there is no TLS.
fn builder(trust: Trust) -> Result<ClientBuilder, String> {
    Ok(Client::builder()
        .user_agent(concat!("duet/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .tls_backend_preconfigured(tls::config(trust)?)
        .connect_timeout(CONNECT)
        // A connection that lay idle may be dead, and a request on it could be sent twice.
        .pool_max_idle_per_host(0))
}

/// For connections over TCP.
fn network(builder: ClientBuilder) -> ClientBuilder {
    let client = builder
        .tcp_nodelay(true)
        .tcp_keepalive(Duration::from_secs(10))
        .tcp_keepalive_interval(Duration::from_secs(5))
        .tcp_keepalive_retries(3);
    #[cfg(target_os = "linux")]
    let client = client.tcp_user_timeout(Duration::from_secs(20));
    client
}

impl Http {
    /// For a server at `http://host:port` or `http://host:port/v1`, without TLS to speak of. No IO.
    ///
    /// # Errors
    /// One line naming the backend, when the address is no good.
    #[cfg(test)]
    pub(super) fn tcp(backend: &str, address: &str, key: Key) -> Result<Self, String> {
        match address.parse() {
            Ok(Address::Http(address)) => Self::direct(backend, &address, key, Trust::System),
            other => Err(format!("{other:?}")),
        }
    }

    /// For a server that is reached without help. No IO.
    ///
    /// # Errors
    /// One line naming the backend, when no client can be made.
    pub(super) fn direct(
        backend: &str,
        address: &HttpAddress,
        key: Key,
        trust: Trust,
    ) -> Result<Self, String> {
        let peer = Peer::new(address);
        let make = || {
            let builder = network(builder(trust)?).dns_resolver(peer.resolver());
            builder.build().map_err(|error| error.to_string())
        };
        let client = make().map_err(|error| format!("backend `{backend}`: {error}"))?;
        Ok(Self {
            backend: backend.to_owned(),
            place: address.base.clone(),
            next_step: format!("start the server there, or correct `url` of backend {backend}"),
            base: address.base.clone(),
            client,
            key,
            way: Way::Network(peer),
            trust,
            stranger: Mutex::default(),
            meter: Meter::default(),
            family: AtomicU8::new(Family::Foreign as u8),
        })
    }

    /// For the engine of this machine behind its socket. No IO.
    ///
    /// # Errors
    /// One line, when no client can be made.
    pub(super) fn unix(backend: &str, socket: &Path) -> Result<Self, String> {
        let http = Self::socket(backend, socket, Key::None)?;
        Ok(Self {
            next_step: "try again: it is started by itself".to_owned(),
            family: AtomicU8::new(Family::Engine as u8),
            ..http
        })
    }

    /// For a server behind a socket of this machine. No IO.
    ///
    /// # Errors
    /// One line, when no client can be made.
    pub(super) fn socket(backend: &str, socket: &Path, key: Key) -> Result<Self, String> {
        let make = || builder(Trust::Nobody)?.unix_socket(socket).build().map_err(|error| error.to_string());
        let client = make().map_err(|error| format!("backend `{backend}`: {error}"))?;
        Ok(Self {
            backend: backend.to_owned(),
            base: "http://duet".to_owned(),
            place: socket.display().to_string(),
            next_step: format!("start the server there, or correct `url` of backend {backend}"),
            client,
            key,
            way: Way::Socket(socket.to_owned()),
            trust: Trust::Nobody,
            stranger: Mutex::default(),
            meter: Meter::default(),
            family: AtomicU8::new(Family::Foreign as u8),
        })
    }

    /// For a server at the far end of a tunnel, which has this address as the host there sees it. No IO.
    ///
    /// # Errors
    /// One line naming the backend, when no client can be made.
    pub(super) fn tunnel(
        backend: &str,
        address: &Address,
        tunnel: Tunnel,
        key: Key,
        trust: Trust,
    ) -> Result<Self, String> {
        let make = || {
            let builder = builder(trust)?.unix_socket(tunnel.socket());
            builder.build().map_err(|error| error.to_string())
        };
        let client = make().map_err(|error| format!("backend `{backend}`: {error}"))?;
        let (base, place) = match address {
            Address::Http(address) => {
                (address.base.clone(), format!("{} on {}", address.base, tunnel.host()))
            }
            Address::Unix(path) => {
                ("http://duet".to_owned(), format!("{} on {}", path.display(), tunnel.host()))
            }
            Address::Ssh(_) => ("http://duet".to_owned(), format!("ssh://{}", tunnel.host())),
        };
        let family = if matches!(address, Address::Ssh(_)) { Family::Engine } else { Family::Foreign };
        let next_step = match address {
            Address::Ssh(_) => "try again: it is started by itself".to_owned(),
            _ => format!("start the server on {}, or correct `url` of backend {backend}", tunnel.host()),
        };
        Ok(Self {
            backend: backend.to_owned(),
            next_step,
            place,
            base,
            client,
            key,
            way: Way::Tunnel(Arc::new(tunnel)),
            trust,
            stranger: Mutex::default(),
            meter: Meter::default(),
            family: AtomicU8::new(family as u8),
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

    /// Where its key comes from, for people; none when it has none.
    pub(super) fn key_source(&self) -> Option<String> {
        self.key.source()
    }

    /// Whether its key is there, as far as that is known without asking anybody.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub(super) fn check_key(&self) -> Result<(), GenError> {
        self.key.at_hand(&self.backend).map(drop)
    }

    /// In words, who is taken for the server; none where it does not speak TLS.
    pub(super) fn trust(&self) -> Option<String> {
        if !self.base.starts_with("https:") {
            return None;
        }
        Some(match self.trust {
            Trust::Pinned(fingerprint) => format!("the paired key {fingerprint}"),
            Trust::System | Trust::Nobody => "by the system's certificate authorities".to_owned(),
        })
    }

    /// The key of whoever answered in its place, when that was not the one it should have.
    pub(super) fn stranger(&self) -> Option<Fingerprint> {
        *self.stranger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tunnel it is behind.
    pub(super) fn tunnel_of(&self) -> Option<&Arc<Tunnel>> {
        match &self.way {
            Way::Tunnel(tunnel) => Some(tunnel),
            Way::Socket(_) | Way::Network(_) => None,
        }
    }

    /// Why the engine at the far end of an SSH tunnel ended, when it just did.
    pub(super) async fn far_death(&self) -> Option<GenError> {
        let is_engine = self.family.load(Ordering::Relaxed) == Family::Engine as u8;
        self.tunnel_of().filter(|_| is_engine)?.death().await
    }

    /// Whether it is on another machine.
    pub(super) const fn is_elsewhere(&self) -> bool {
        !matches!(self.way, Way::Socket(_))
    }

    /// The addresses of its host, where it has any; the one that is tried first at the front.
    ///
    /// # Errors
    /// When its name is not known.
    pub(super) async fn addresses(&self) -> Result<Vec<SocketAddr>, HttpError> {
        match &self.way {
            Way::Network(peer) => peer.find().await.map_err(|why| self.no_address(&why)),
            Way::Socket(_) | Way::Tunnel(_) => Ok(Vec::new()),
        }
    }

    /// What is known of the network to it.
    pub(super) fn network(&self) -> Option<Network> {
        match &self.way {
            Way::Tunnel(tunnel) => tunnel.network(),
            Way::Network(_) | Way::Socket(_) => self.meter.read(),
        }
    }

    /// One look at whether somebody is there: the milliseconds a connection takes. Nothing is sent; a tunnel that is not
    /// open is not opened.
    pub(super) async fn knock(&self) -> Option<f64> {
        let took = match &self.way {
            Way::Network(peer) => peer.knock(CONNECT).await,
            Way::Socket(path) => {
                let began = Instant::now();
                tokio::net::UnixStream::connect(path).await.ok()?;
                Some(began.elapsed().as_secs_f64() * 1000.0)
            }
            // It counts its round trips itself.
            Way::Tunnel(tunnel) => return tunnel.round_trip().await,
        };
        match took {
            Some(ms) => self.meter.add(ms),
            None => self.meter.lost(),
        }
        took
    }

    /// Whose words its errors are.
    pub(super) fn origin(&self) -> Origin {
        match self.family.load(Ordering::Relaxed) {
            family if family == Family::Engine as u8 => Origin::Engine,
            family if family == Family::Mlx as u8 => Origin::Mlx,
            _ => Origin::Foreign,
        }
    }

    /// A request to one route, with the key where that is at hand.
    ///
    /// # Errors
    /// When the backend's key is missing, or others can read it.
    pub(super) fn request(&self, method: Method, route: &str) -> Result<RequestBuilder, HttpError> {
        let request = self.client.request(method, format!("{}{route}", self.base));
        let request = request.header(ACCEPT_ENCODING, "identity");
        match self.key.at_hand(&self.backend) {
            Ok(None) => Ok(request),
            Ok(Some(key)) => Ok(request.header(AUTHORIZATION, key)),
            Err(error) => Err(HttpError { error, reach: Reach::Nobody }),
        }
    }

    /// Makes the way to the server ready: opens its tunnel, looks its name up.
    async fn open(&self) -> Result<(), HttpError> {
        match &self.way {
            Way::Socket(_) => Ok(()),
            Way::Network(_) => self.addresses().await.map(drop),
            Way::Tunnel(tunnel) => {
                tunnel.ready().await.map_err(|error| HttpError { error, reach: Reach::Nobody })
            }
        }
    }

    /// Sends a request and waits for the headers, at most this long once the way is open. Any status will do. The only door:
    /// what goes past it has no tunnel, no addresses and no key of the keyring.
    ///
    /// # Errors
    /// When there is no connection, no key, or no answer.
    pub(super) async fn answered(
        &self,
        mut request: RequestBuilder,
        patience: Duration,
    ) -> Result<Response, HttpError> {
        self.open().await?;
        let key = self.key.keyring_header(&self.backend).await;
        if let Some(key) = key.map_err(|error| HttpError { error, reach: Reach::Nobody })? {
            request = request.header(AUTHORIZATION, key);
        }
        let again = self.tunnel_of().and_then(|tunnel| Some((tunnel, request.try_clone()?)));
        let mut sent = tokio::time::timeout(patience, request.send()).await;
        // Only where nobody can have seen it.
        if let (Ok(Err(_)), Some((tunnel, again))) = (&sent, again)
            && tunnel.revive().await
        {
            sent = tokio::time::timeout(patience, again.send()).await;
        }
        let response = match sent {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                if let Way::Network(peer) = &self.way {
                    peer.answered(None);
                }
                return Err(self.unsent(&error).await);
            }
            Err(_) => return Err(self.silent(patience)),
        };
        if let Way::Network(peer) = &self.way {
            peer.answered(response.remote_addr());
        }
        if response.status() == reqwest::StatusCode::UNAUTHORIZED {
            self.key.forget();
        }
        self.learn_family(&response);
        Ok(response)
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
        let response = self.answered(request, patience).await?;
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
            // What guards `tui serve` says as little as it can, so that the words are ours.
            let is_guard = matches!(status.as_u16(), 401 | 403 | 421);
            let origin = if is_guard { Origin::Foreign } else { self.origin() };
            let error = fault::refusal(&self.backend, model, status.as_u16(), &body, origin);
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
mod tests;
