//! What every request from the network passes before it reaches the engine's routes.
//!
//! Order matters: nobody learns anything before the token is right, and nothing is read of a body before.

use super::super::host::Host;
use super::super::http::{Client, Counted, Cut, Failure};
use super::failures::Failures;
use super::folder::Folder;
use super::hosts::{Allowed, Wrong};
use super::listener::Ending;
use super::outgoing::{Entry, Outgoing, Teller, ending, too_long};
use super::pairing::{self, Redeemed};
use super::settings::Settings;
use super::tokens::Keyring;
use crate::config::ServeLimits;
use crate::error::AppError;
use crate::text::sanitize::log_safe;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// Both ends of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    pub(super) from: IpAddr,
    pub(super) to: IpAddr,
}

/// What the checks need.
pub(super) struct Guard {
    host: Host,
    folder: Folder,
    keyring: Keyring,
    allowed: Allowed,
    failures: Failures,
    limits: ServeLimits,
    /// One permit for each answer that runs or waits.
    room: Arc<Semaphore>,
    ending: watch::Receiver<Ending>,
    teller: Option<Teller>,
}

/// Seconds after which a refused client may try again.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("2");
/// Query parameters that look like a token.
const TOKEN_LIKE: [&str; 5] = ["token", "access_token", "api_key", "key", "authorization"];

impl Guard {
    pub(super) fn new(
        host: Host,
        folder: Folder,
        keyring: Keyring,
        settings: &Settings,
        slots: u32,
        ending: watch::Receiver<Ending>,
    ) -> Self {
        Self {
            host,
            folder,
            keyring,
            allowed: Allowed::new(&settings.names, &settings.origins),
            failures: Failures::default(),
            limits: settings.limits,
            room: Arc::new(Semaphore::new((slots + settings.limits.queue) as usize)),
            ending,
            teller: settings.tell.then(Teller::start),
        }
    }

    /// Whose token it is; every way of not having one looks the same.
    fn who(&self, headers: &HeaderMap) -> Presented {
        let mut all = headers.get_all(header::AUTHORIZATION).iter();
        let value = match (all.next(), all.next()) {
            (None, _) => return Presented::Nothing,
            (Some(value), None) => value.as_bytes(),
            (Some(_), Some(_)) => return Presented::Wrong,
        };
        let token = match value.split_at_checked(7) {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => token.trim_ascii(),
            _ => return Presented::Wrong,
        };
        self.keyring.who(token).map_or(Presented::Wrong, Presented::Right)
    }

    /// Waits as long as the address has to, and refuses.
    async fn unauthorized(&self, from: IpAddr, was_wrong: bool) -> Response {
        if was_wrong {
            let wait = self.failures.note(from, Instant::now());
            if !wait.is_zero() {
                tracing::warn!(%from, seconds = wait.as_secs(), "wrong tokens: the next answer waits");
                tokio::time::sleep(wait).await;
            }
        }
        let mut response = refusal(StatusCode::UNAUTHORIZED, "unauthorized");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        response
    }

    /// Ends when a running answer has to.
    fn cut(&self, bounded: bool) -> Cut {
        let mut now = self.ending.clone();
        let run = self.limits.run;
        Box::pin(async move {
            let told = async {
                if now.wait_for(|ending| *ending == Ending::Now).await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            if !bounded {
                told.await;
                return ending();
            }
            tokio::select! {
                () = told => ending(),
                () = tokio::time::sleep(Duration::from_secs(run.into())) => too_long(run),
            }
        })
    }

    /// Who asks, for what outlives the connection.
    fn client(self: &Arc<Self>, name: &str, permit: Option<&Arc<OwnedSemaphorePermit>>) -> Client {
        let guard = Arc::clone(self);
        Client {
            name: name.to_owned(),
            place: permit.map(|permit| Arc::clone(permit) as Arc<_>),
            cut: Arc::new(move || guard.cut(true)),
            unread: Duration::from_secs(self.limits.resume.into()),
        }
    }

    /// The whole body, in time and within bounds.
    async fn body(&self, request: &mut Request) -> Result<Bytes, Failure> {
        let limit = (self.limits.body_mib as usize) << 20;
        let too_large = || {
            Failure::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "invalid_request_error",
                format!("the request is larger than {} MiB. Send less", self.limits.body_mib),
            )
        };
        let body = std::mem::take(request.body_mut());
        if hyper::body::Body::size_hint(&body).lower() > limit as u64 {
            return Err(too_large());
        }
        let patience = Duration::from_secs(self.limits.body.into());
        match tokio::time::timeout(patience, to_bytes(body, limit)).await {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(error)) if is_limit(&error) => Err(too_large()),
            Ok(Err(_)) => Err(Failure::bad_request("the request body could not be read")),
            Err(_) => Err(Failure::new(
                StatusCode::REQUEST_TIMEOUT,
                "timeout_error",
                format!("the request body took more than {} s", self.limits.body),
            )),
        }
    }

    /// A place among the answers that run or wait.
    fn room(&self) -> Result<OwnedSemaphorePermit, Failure> {
        Arc::clone(&self.room).try_acquire_owned().map_err(|_| {
            Failure::new(
                StatusCode::TOO_MANY_REQUESTS,
                "rate_limit_error",
                format!("{} requests wait already. Send again in a moment", self.limits.queue),
            )
        })
    }

    /// Exchanges a pairing code for a token: `POST /engine/pair {"code", "name"}`.
    async fn pair(&self, request: &mut Request, from: IpAddr) -> Response {
        let refused = |failure: Failure| failure.into_response();
        let length = hyper::body::Body::size_hint(request.body()).upper();
        // Nobody's body is read at length before they are known.
        if !is_json(request.headers()) || length.is_none_or(|length| length > 1024) {
            return self.unauthorized(from, true).await;
        }
        let bytes = match self.body(request).await {
            Ok(bytes) => bytes,
            Err(failure) => return refused(failure),
        };
        let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let (Some(code), Some(name)) = (body["code"].as_str(), body["name"].as_str()) else {
            return self.unauthorized(from, true).await;
        };
        match pairing::redeem(&self.folder, code, name) {
            Ok(Redeemed::Token(token)) => {
                tracing::info!(name, %from, "paired");
                self.failures.forgive(from);
                axum::Json(json!({"token": token.show(), "name": name})).into_response()
            }
            Ok(Redeemed::Refused) => self.unauthorized(from, true).await,
            Ok(Redeemed::BadName(AppError { message, hint, .. })) => {
                let message = format!("{message}\n{}", hint.unwrap_or_default());
                refused(Failure::new(StatusCode::CONFLICT, "invalid_request_error", message))
            }
            Err(error) => {
                tracing::error!(%error, "pairing");
                refused(Failure::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "server_error",
                    "pairing failed here",
                ))
            }
        }
    }
}

enum Presented {
    Right(String),
    Wrong,
    Nothing,
}

/// Refuses with as little as possible: no version, no names, no routes.
fn refusal(status: StatusCode, message: &str) -> Response {
    let body = json!({"error": {"message": message}});
    (status, axum::Json(body)).into_response()
}

fn is_limit(error: &axum::Error) -> bool {
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = source {
        if error.to_string().contains("length limit") {
            return true;
        }
        source = error.source();
    }
    false
}

fn is_json(headers: &HeaderMap) -> bool {
    let mut all = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(kind), None) = (all.next(), all.next()) else { return false };
    let kind = kind.to_str().unwrap_or_default();
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

/// Answers and what is like them: they take room and time.
fn is_work(method: &Method, path: &str) -> bool {
    method == Method::POST
        && !path.starts_with("/models/")
        && !path.starts_with("/engine/")
        && path != "/v1/streams/lookup"
}

/// The checks, then the engine, then the bounds of the answer.
pub(super) async fn guard(State(guard): State<Arc<Guard>>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().copied();
    let Some(peer) = peer else { return refusal(StatusCode::INTERNAL_SERVER_ERROR, "no address") };
    let path: String = log_safe(request.uri().path()).chars().take(100).collect();
    let mut entry = Entry {
        from: peer.from,
        client: None,
        method: log_safe(request.method().as_str()).chars().take(20).collect(),
        path,
        status: 0,
        began: Instant::now(),
        teller: guard.teller.clone(),
        bytes: 0,
    };
    let mut permit = None;
    let (response, origin) = match guard.allowed.check(request.headers(), request.uri(), peer.to) {
        Err(Wrong::Host) => {
            // Often a name this machine is known by and nobody has configured.
            let host =
                request.headers().get(header::HOST).map(|host| String::from_utf8_lossy(host.as_bytes()));
            let host: String = log_safe(&host.unwrap_or_default()).chars().take(100).collect();
            tracing::warn!(from = %peer.from, host, "refused: not a name of this machine (see [serve] names)");
            (refusal(StatusCode::MISDIRECTED_REQUEST, "misdirected"), None)
        }
        Err(Wrong::Origin) => (refusal(StatusCode::FORBIDDEN, "forbidden"), None),
        Ok(_) if request.headers().contains_key(header::UPGRADE) && is_websocket(request.headers()) => {
            (refusal(StatusCode::FORBIDDEN, "forbidden"), None)
        }
        Ok(origin) if origin.is_some() && request.method() == Method::OPTIONS => {
            (StatusCode::NO_CONTENT.into_response(), origin)
        }
        Ok(origin) => (enter(&guard, &mut request, next, peer, &mut entry, &mut permit).await, origin),
    };
    entry.status = response.status().as_u16();
    let is_stream = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    // What can be taken up again ends by itself, and nothing is put into it. What follows the list of models may do so
    // for as long as it likes.
    let is_counted = response.extensions().get::<Counted>().is_some();
    let cut = (is_stream && !is_counted).then(|| guard.cut(permit.is_some()));
    let mut response = response.map(|body| Body::new(Outgoing::new(body, cut, entry, permit)));
    if let Some(origin) = origin {
        share_with(&mut response, origin);
    }
    response
}

fn is_websocket(headers: &HeaderMap) -> bool {
    headers.get_all(header::UPGRADE).iter().any(|kind| kind.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Lets a configured page read the response.
fn share_with(response: &mut Response, origin: HeaderValue) {
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, DELETE"));
    let allowed = HeaderValue::from_static("Authorization, Content-Type, X-Conversation-Id");
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed);
}

/// From the token on.
async fn enter(
    guard: &Arc<Guard>,
    request: &mut Request,
    next: Next,
    peer: Peer,
    entry: &mut Entry,
    permit: &mut Option<Arc<OwnedSemaphorePermit>>,
) -> Response {
    let route = (request.method().clone(), request.uri().path().to_owned());
    let route = (route.0, route.1.as_str());
    if route == (Method::GET, "/health") {
        return axum::Json(json!({"status": "ok"})).into_response();
    }
    if route == (Method::POST, "/engine/pair") {
        return guard.pair(request, peer.from).await;
    }
    let query = request.uri().query().unwrap_or_default();
    let names_token = |pair: &str| {
        let name = pair.split('=').next().unwrap_or_default();
        TOKEN_LIKE.iter().any(|known| name.eq_ignore_ascii_case(known))
    };
    if query.split('&').any(names_token) {
        tracing::warn!(from = %peer.from, "a token in an address is ignored: send `Authorization: Bearer`");
    }
    match guard.who(request.headers()) {
        Presented::Right(name) => {
            guard.failures.forgive(peer.from);
            entry.client = Some(name);
        }
        Presented::Wrong => return guard.unauthorized(peer.from, true).await,
        Presented::Nothing => return guard.unauthorized(peer.from, false).await,
    }
    request.headers_mut().remove(header::AUTHORIZATION);
    match admit(guard, request, &route).await {
        Ok(room) => *permit = room.map(Arc::new),
        Err(failure) => {
            let is_busy =
                matches!(failure.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
            let mut response = failure.into_response();
            if is_busy {
                response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
            }
            return response;
        }
    }
    let mut request = std::mem::take(request);
    if let Some(name) = &entry.client {
        request.extensions_mut().insert(guard.client(name, permit.as_ref()));
    }
    if permit.is_none() {
        return next.run(request).await;
    }
    tokio::select! {
        response = next.run(request) => response,
        failure = guard.cut(true) => failure.into_response(),
    }
}

/// Whether a client that is known may do that, and whether there is room. The body is there then.
async fn admit(
    guard: &Guard,
    request: &mut Request,
    (method, path): &(Method, &str),
) -> Result<Option<OwnedSemaphorePermit>, Failure> {
    if guard.host.is_closing() {
        return Err(ending());
    }
    // Only who sits at the machine may end it.
    if *path == "/engine/shutdown" {
        return Err(Failure::new(StatusCode::NOT_FOUND, "not_found_error", "no such route"));
    }
    if *method != Method::POST {
        return Ok(None);
    }
    if !is_json(request.headers()) {
        return Err(Failure::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "invalid_request_error",
            "send JSON, with `Content-Type: application/json`",
        ));
    }
    let is_plain = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"identity");
    if !request.headers().get_all(header::CONTENT_ENCODING).iter().all(is_plain) {
        return Err(Failure::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "invalid_request_error",
            "send the body as it is, without Content-Encoding",
        ));
    }
    // Before the body: who can't be served need not send it.
    let permit = if is_work(method, path) { Some(guard.room()?) } else { None };
    let bytes = guard.body(request).await?;
    *request.body_mut() = Body::from(bytes);
    Ok(permit)
}
