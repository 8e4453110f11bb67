//! A fake LM Studio. Nobody ran the real one for it: it is built from what is known of LM Studio's wire, read in its
//! documentation and issues, and says what they say of version 0.4, or of 0.3 when it is told to be that old.

#![allow(dead_code, reason = "each test uses its own part")]

use crate::recorder::{Piece, Recorder, body, serve};
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use tokio::task::JoinSet;

/// What it does with the next answers, in place of giving them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// An error event after a word.
    ErrorEvent,
    /// It waits at the gate after each word.
    Slow,
}

/// The server; it ends with the test.
#[derive(Debug)]
pub(crate) struct FakeLmStudio {
    pub(crate) url: String,
    pub(crate) recorder: Arc<Recorder>,
    state: Arc<Mutex<Inside>>,
    _serving: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Inside {
    /// Instances of the one model it has: id and context.
    instances: Vec<(String, u64)>,
    fault: Option<Fault>,
}

#[derive(Clone)]
struct Shared {
    recorder: Arc<Recorder>,
    state: Arc<Mutex<Inside>>,
}

const MODEL: &str = "acme/small";
const WORDS: [&str; 6] = ["It ", "is ", "five ", "past ", "nine", "."];

impl FakeLmStudio {
    /// One of version 0.4.
    pub(crate) async fn start() -> Self {
        Self::of_version(true).await
    }

    /// One of version 0.3.
    pub(crate) async fn old() -> Self {
        Self::of_version(false).await
    }

    async fn of_version(is_new: bool) -> Self {
        let recorder = Recorder::new();
        let state = Arc::new(Mutex::new(Inside::default()));
        let shared = Shared { recorder: Arc::clone(&recorder), state: Arc::clone(&state) };
        let mut routes = Router::new()
            .route("/v1/models", get(async || Json(json!({"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "organization_owner"}]}))))
            .route("/v1/chat/completions", post(chat))
            .route("/api/v0/models", get(old_models));
        if is_new {
            routes = routes
                .route("/api/v1/models", get(models))
                .route("/api/v1/models/load", post(load))
                .route("/api/v1/models/unload", post(unload));
        }
        // It knows no 404.
        let routes = routes.fallback(unexpected).method_not_allowed_fallback(unexpected).with_state(shared);
        let (url, serving) = serve(routes, &recorder).await;
        Self { url, recorder, state, _serving: serving }
    }

    pub(crate) fn fault(&self, fault: Option<Fault>) {
        self.state.lock().expect("not poisoned").fault = fault;
    }

    /// Instances that are loaded, with their contexts.
    pub(crate) fn instances(&self) -> Vec<(String, u64)> {
        self.state.lock().expect("not poisoned").instances.clone()
    }
}

async fn unexpected(method: Method, uri: Uri) -> Json<Value> {
    Json(json!({"error": format!("Unexpected endpoint or method. ({method} {uri})")}))
}

async fn models(State(shared): State<Shared>) -> Json<Value> {
    let instances: Vec<Value> = shared
        .state
        .lock()
        .expect("not poisoned")
        .instances
        .iter()
        .map(
            |(id, context)| json!({"id": id, "config": {"context_length": context, "flash_attention": true}}),
        )
        .collect();
    Json(json!({"models": [
        {"type": "llm", "publisher": "acme", "key": MODEL, "display_name": "Small", "architecture": "llama",
         "quantization": {"name": "Q4_K_M", "bits_per_weight": 4}, "size_bytes": 2_019_393_189_u64, "params_string": "3B",
         "loaded_instances": instances, "max_context_length": 131_072, "format": "gguf",
         "capabilities": {"vision": false, "trained_for_tool_use": true}},
        {"type": "embedding", "key": "nomic", "quantization": {"name": "F16"}, "size_bytes": 274_290_560, "params_string": null,
         "loaded_instances": [], "max_context_length": 2048, "format": "gguf"},
    ]}))
}

async fn old_models(State(shared): State<Shared>) -> Json<Value> {
    let is_loaded = !shared.state.lock().expect("not poisoned").instances.is_empty();
    let state = if is_loaded { "loaded" } else { "not-loaded" };
    Json(
        json!({"object": "list", "data": [{"id": MODEL, "object": "model", "type": "llm", "quantization": "Q4_K_M",
        "state": state, "max_context_length": 131_072}]}),
    )
}

fn missing(model: &Value) -> Response {
    let error = json!({"error": {"type": "invalid_request", "code": "model_not_found", "param": "model",
        "message": format!("Model not found: {}", model.as_str().unwrap_or_default())}});
    (StatusCode::NOT_FOUND, Json(error)).into_response()
}

async fn load(State(shared): State<Shared>, Json(body): Json<Value>) -> Response {
    if body["model"] != MODEL {
        return missing(&body["model"]);
    }
    let mut inside = shared.state.lock().expect("not poisoned");
    // Each load makes an instance more.
    let id = match inside.instances.len() {
        0 => MODEL.to_owned(),
        n => format!("{MODEL}:{}", n + 1),
    };
    inside.instances.push((id.clone(), body["context_length"].as_u64().unwrap_or(4096)));
    Json(json!({"type": "llm", "instance_id": id, "load_time_seconds": 1.5, "status": "loaded"}))
        .into_response()
}

async fn unload(State(shared): State<Shared>, Json(body): Json<Value>) -> Response {
    let mut inside = shared.state.lock().expect("not poisoned");
    let before = inside.instances.len();
    inside.instances.retain(|(id, _)| body["instance_id"] != id.as_str());
    if inside.instances.len() == before {
        return missing(&body["instance_id"]);
    }
    Json(json!({"instance_id": body["instance_id"]})).into_response()
}

async fn chat(State(shared): State<Shared>, Json(sent): Json<Value>) -> Response {
    if sent["model"] != MODEL {
        return missing(&sent["model"]);
    }
    let fault = {
        let mut inside = shared.state.lock().expect("not poisoned");
        if inside.instances.is_empty() {
            inside.instances.push((MODEL.to_owned(), 4096));
        }
        inside.fault
    };
    let limit = sent["max_tokens"].as_u64().map_or(WORDS.len(), |n| n as usize);
    let said = WORDS.len().min(limit);
    let event = |value: Value| Piece::Say(format!("data: {value}\n\n"));
    let chunk = |delta: Value, finish: Value| {
        json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": MODEL,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})
    };
    let mut pieces = Vec::new();
    for word in &WORDS[..said] {
        pieces.push(event(chunk(json!({"role": "assistant", "content": word}), Value::Null)));
        match fault {
            Some(Fault::ErrorEvent) => {
                pieces.push(Piece::Say(
                    "event: error\ndata: {\"error\":{\"message\":\"The model has crashed\"}}\n\n".to_owned(),
                ));
                break;
            }
            Some(Fault::Slow) => pieces.push(Piece::Gate),
            None => {}
        }
    }
    if fault != Some(Fault::ErrorEvent) {
        let reason = if said < WORDS.len() { "length" } else { "stop" };
        pieces.push(event(chunk(json!({}), json!(reason))));
        if sent["stream_options"]["include_usage"] == json!(true) {
            pieces.push(event(json!({"id": "chatcmpl-1", "model": MODEL, "choices": [],
                "usage": {"prompt_tokens": 12, "completion_tokens": said, "total_tokens": 12 + said}})));
        }
        pieces.push(Piece::Say("data: [DONE]\n\n".to_owned()));
    }
    ([(header::CONTENT_TYPE, "text/event-stream")], body(&shared.recorder, pieces)).into_response()
}
