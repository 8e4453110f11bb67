//! The engine's HTTP face: llama-server's routes and shapes, plus `/engine/*`. Two ways lead here: the private
//! socket, which only this user's programs can open, and the guard of `tui serve`.

mod answer;
mod chat;
mod chunk;
mod embeddings;
mod info;
mod models;
mod streams;

pub(super) use streams::{Client, Counted, Cut};

use super::host::Host;
use crate::chat::{GenError, GenErrorKind};
use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRef};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};
use streams::Streams;

/// Largest request body in bytes: more than any paste or file a client takes, so that a prompt too long is
/// answered with its number of tokens.
const BODY_LIMIT: usize = 32 << 20;

/// All routes.
pub fn router(host: Host) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(chat::completions))
        .route("/chat/completions", post(chat::completions))
        .route("/v1/chat/completions/input_tokens", post(chat::input_tokens))
        .route("/v1/stream", get(streams::resume).delete(streams::stop))
        .route("/v1/streams/lookup", post(streams::look_up))
        .route("/v1/embeddings", post(embeddings::create))
        .route("/tokenize", post(chat::tokenize))
        .route("/apply-template", post(chat::apply_template))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*id}", get(models::one))
        .route("/models", get(models::list))
        .route("/models/load", post(models::load))
        .route("/models/unload", post(models::unload))
        .route("/models/pin", post(models::pin))
        .route("/models/keep_alive", post(models::keep_alive))
        .route("/models/sse", get(models::events))
        .route("/health", get(info::health))
        .route("/v1/health", get(info::health))
        .route("/props", get(info::props))
        .route("/metrics", get(info::metrics))
        .route("/engine/status", get(info::status))
        .route("/engine/forget", post(info::forget))
        .route("/engine/shutdown", post(info::shutdown))
        .fallback(async || Failure::new(StatusCode::NOT_FOUND, "not_found_error", "no such route"))
        .method_not_allowed_fallback(async || {
            Failure::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "invalid_request_error",
                "this route takes another method",
            )
        })
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(axum::middleware::map_response(async |mut response: Response| {
            response.headers_mut().insert(header::SERVER, HeaderValue::from_static(SERVER));
            response
        }))
        .with_state(Shared { host, streams: Streams::default() })
}

/// What the routes share.
#[derive(Clone)]
struct Shared {
    host: Host,
    streams: Streams,
}

impl FromRef<Shared> for Host {
    fn from_ref(shared: &Shared) -> Self {
        shared.host.clone()
    }
}

impl FromRef<Shared> for Streams {
    fn from_ref(shared: &Shared) -> Self {
        shared.streams.clone()
    }
}

const SERVER: &str = concat!("duet/", env!("CARGO_PKG_VERSION"));

/// An error in llama-server's shape: `{"error":{"code":…,"message":…,"type":…}}`.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    status: StatusCode,
    kind: &'static str,
    message: String,
    extra: Option<(usize, usize)>,
}

impl Failure {
    pub(super) fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self { status, kind, message: message.into(), extra: None }
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
    }

    /// The prompt does not fit: llama-server gives both numbers in fields of their own.
    pub(super) fn context(prompt: usize, context: usize) -> Self {
        let message = format!(
            "the prompt has {prompt} tokens, the context holds {context}. Shorten it, or raise [engine] context"
        );
        Self::too_long(message, prompt, context)
    }

    /// The same for a text that is no prompt.
    pub(super) fn too_long(message: impl Into<String>, tokens: usize, context: usize) -> Self {
        Self {
            extra: Some((tokens, context)),
            ..Self::new(StatusCode::BAD_REQUEST, "exceed_context_size_error", message)
        }
    }

    pub(super) fn body(&self) -> Value {
        let mut error = json!({"code": self.status.as_u16(), "message": self.message, "type": self.kind});
        if let (Some((prompt, context)), Some(object)) = (self.extra, error.as_object_mut()) {
            object.insert("n_prompt_tokens".to_owned(), prompt.into());
            object.insert("n_ctx".to_owned(), context.into());
        }
        json!({ "error": error })
    }
}

impl From<GenError> for Failure {
    fn from(error: GenError) -> Self {
        let (status, kind) = match error.kind {
            GenErrorKind::Model => (StatusCode::INTERNAL_SERVER_ERROR, "model_error"),
            GenErrorKind::OutOfMemory => (StatusCode::INSUFFICIENT_STORAGE, "out_of_memory_error"),
            GenErrorKind::ContextFull => (StatusCode::BAD_REQUEST, "exceed_context_size_error"),
            GenErrorKind::Refused => (StatusCode::SERVICE_UNAVAILABLE, "unavailable_error"),
            GenErrorKind::EngineDied => (StatusCode::INTERNAL_SERVER_ERROR, "engine_error"),
            GenErrorKind::Unreachable
            | GenErrorKind::Auth
            | GenErrorKind::Untrusted
            | GenErrorKind::Fenced
            | GenErrorKind::Protocol
            | GenErrorKind::Timeout => (StatusCode::INTERNAL_SERVER_ERROR, "server_error"),
        };
        Self::new(status, kind, error.message)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.status, axum::Json(self.body())).into_response()
    }
}
