//! A fake Ollama. Nobody ran the real one for it: it is built from what is known of Ollama's wire, read in its sources
//! and documentation, and says what they say in its versions since 0.12.

#![allow(dead_code, reason = "each test uses its own part")]

use crate::recorder::{Piece, Recorder, body, serve};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::task::JoinSet;

/// What it does with the next answer, in place of giving it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It fails after a word, under status 200.
    ErrorLine,
    /// It ends after a word.
    Cut,
    /// It waits at the gate after each word.
    Slow,
    /// It reads the last 40 tokens, whatever it was told of truncating, as old ones do.
    Truncates,
}

/// The server; it ends with the test.
#[derive(Debug)]
pub(crate) struct FakeOllama {
    pub(crate) url: String,
    pub(crate) recorder: Arc<Recorder>,
    state: Arc<Mutex<Inside>>,
    _serving: JoinSet<()>,
}

#[derive(Debug)]
struct Inside {
    /// The context of each resident model.
    resident: BTreeMap<String, u64>,
    /// How often a model was loaded.
    loads: usize,
    fault: Option<Fault>,
    /// Tokens of the prompt before, of which the cache holds as many.
    last_prompt: u64,
}

#[derive(Clone)]
struct Shared {
    recorder: Arc<Recorder>,
    state: Arc<Mutex<Inside>>,
}

/// The context it chooses by itself.
const DEFAULT_CONTEXT: u64 = 4096;
const WORDS: [&str; 6] = ["It ", "is ", "five ", "past ", "nine", "."];

impl FakeOllama {
    pub(crate) async fn start() -> Self {
        let recorder = Recorder::new();
        let inside = Inside { resident: BTreeMap::new(), loads: 0, fault: None, last_prompt: 0 };
        let state = Arc::new(Mutex::new(inside));
        let shared = Shared { recorder: Arc::clone(&recorder), state: Arc::clone(&state) };
        let routes = Router::new()
            .route("/", get(async || "Ollama is running"))
            .route("/api/version", get(async || Json(json!({"version": "0.12.6"}))))
            .route("/api/tags", get(async || Json(tags())))
            .route("/api/ps", get(ps))
            .route("/api/show", post(show))
            .route("/api/generate", post(generate))
            .route("/api/chat", post(chat))
            .route(
                "/v1/models",
                get(async || {
                    Json(json!({"object": "list", "data": [{"id": "small:latest", "owned_by": "library"}]}))
                }),
            )
            .fallback(async || (StatusCode::NOT_FOUND, "404 page not found"))
            .with_state(shared);
        let (url, serving) = serve(routes, &recorder).await;
        Self { url, recorder, state, _serving: serving }
    }

    fn inside(&self) -> std::sync::MutexGuard<'_, Inside> {
        self.state.lock().expect("not poisoned")
    }

    /// What it does with the next answers.
    pub(crate) fn fault(&self, fault: Option<Fault>) {
        self.inside().fault = fault;
    }

    /// The contexts of what is resident.
    pub(crate) fn resident(&self) -> Vec<(String, u64)> {
        self.inside().resident.clone().into_iter().collect()
    }

    /// Makes a model resident, as another client would.
    pub(crate) fn make_resident(&self, model: &str, context: u64) {
        self.inside().resident.insert(model.to_owned(), context);
    }

    /// How often a model was loaded, reloads included.
    pub(crate) fn loads(&self) -> usize {
        self.inside().loads
    }
}

fn tags() -> Value {
    json!({"models": [
        {"name": "small:latest", "model": "small:latest", "modified_at": "2026-10-01T10:00:00Z", "size": 2_019_393_189_u64, "digest": "a80c4f17",
         "details": {"format": "gguf", "family": "llama", "families": ["llama"], "parameter_size": "3.2B", "quantization_level": "Q4_K_M"},
         "capabilities": ["completion"]},
        {"name": "gpt-oss:120b-cloud", "model": "gpt-oss:120b-cloud", "size": 384, "digest": "569f02ee", "remote_model": "gpt-oss:120b",
         "remote_host": "https://ollama.com:443", "details": {"parameter_size": "116.8B", "quantization_level": "MXFP4"}},
    ]})
}

fn known(model: &str) -> Option<String> {
    let full = if model.contains(':') { model.to_owned() } else { format!("{model}:latest") };
    tags()["models"].as_array()?.iter().any(|tag| tag["name"] == full.as_str()).then_some(full)
}

fn missing(model: &str) -> Response {
    (StatusCode::NOT_FOUND, Json(json!({"error": format!("model '{model}' not found")}))).into_response()
}

fn text<'a>(body: &'a Value, name: &str) -> &'a str {
    body[name].as_str().unwrap_or_default()
}

async fn ps(State(shared): State<Shared>) -> Json<Value> {
    let inside = shared.state.lock().expect("not poisoned");
    let models = inside.resident.iter().map(|(name, context)| {
        json!({"name": name, "model": name, "size": 3_000_000_000_u64, "size_vram": 3_000_000_000_u64,
            "expires_at": "2318-01-01T00:00:00Z", "context_length": context})
    });
    Json(json!({"models": models.collect::<Vec<_>>()}))
}

async fn show(State(_): State<Shared>, Json(body): Json<Value>) -> Response {
    if known(text(&body, "model")).is_none() {
        return missing(text(&body, "model"));
    }
    Json(json!({"details": {}, "model_info": {
        "general.architecture": "llama", "general.parameter_count": 3_212_749_888_u64, "llama.block_count": 28,
        "llama.attention.head_count": 24, "llama.attention.head_count_kv": 8, "llama.attention.key_length": 128,
        "llama.attention.value_length": 128, "llama.embedding_length": 3072, "llama.context_length": 131_072,
        "tokenizer.ggml.tokens": [],
    }}))
    .into_response()
}

/// Loads a model, or loads it anew when the context is another one.
fn bring_in(inside: &mut Inside, model: &str, asked: Option<u64>) -> bool {
    let context = asked.or(inside.resident.get(model).copied()).unwrap_or(DEFAULT_CONTEXT);
    let is_there = inside.resident.get(model) == Some(&context);
    if !is_there {
        inside.loads += 1;
        inside.last_prompt = 0;
        inside.resident.insert(model.to_owned(), context);
    }
    !is_there
}

/// Without a prompt: loads and unloads.
async fn generate(State(shared): State<Shared>, Json(body): Json<Value>) -> Response {
    let Some(model) = known(text(&body, "model")) else { return missing(text(&body, "model")) };
    let mut inside = shared.state.lock().expect("not poisoned");
    let reason = if body["keep_alive"] == json!(0) {
        inside.resident.remove(&model);
        "unload"
    } else {
        bring_in(&mut inside, &model, body["options"]["num_ctx"].as_u64());
        "load"
    };
    Json(json!({"model": model, "response": "", "done": true, "done_reason": reason})).into_response()
}

async fn chat(State(shared): State<Shared>, Json(body_sent): Json<Value>) -> Response {
    let Some(model) = known(text(&body_sent, "model")) else { return missing(text(&body_sent, "model")) };
    let mut inside = shared.state.lock().expect("not poisoned");
    bring_in(&mut inside, &model, body_sent["options"]["num_ctx"].as_u64());
    let context = inside.resident.get(&model).copied().unwrap_or(DEFAULT_CONTEXT);
    let messages = body_sent["messages"].as_array().cloned().unwrap_or_default();
    let words = |message: &Value| text(message, "content").split_whitespace().count() as u64;
    let mut prompt = messages.iter().map(words).sum::<u64>() + 10;
    let fault = inside.fault;
    if fault == Some(Fault::Truncates) {
        prompt = 40;
    } else if prompt > context {
        // With `truncate: false` it refuses rather than forget.
        assert_eq!(body_sent["truncate"], json!(false), "a client that lets it truncate");
        let error = json!({"error": "the input length exceeds the context length"});
        return (StatusCode::BAD_REQUEST, Json(error)).into_response();
    }
    let cached = inside.last_prompt.min(prompt.saturating_sub(1));
    inside.last_prompt = prompt;
    drop(inside);

    let limit = body_sent["options"]["num_predict"].as_u64().map_or(WORDS.len(), |n| n as usize);
    let said = WORDS.len().min(limit);
    let line = |value: Value| Piece::Say(format!("{value}\n"));
    let mut pieces = Vec::new();
    for word in &WORDS[..said] {
        pieces.push(line(json!({"model": model, "created_at": "2026-11-25T03:00:00Z",
            "message": {"role": "assistant", "content": word}, "done": false})));
        match fault {
            Some(Fault::ErrorLine) => {
                pieces.push(line(
                    json!({"error": "an error was encountered while running the model: CUDA error"}),
                ));
                break;
            }
            Some(Fault::Cut) => break,
            Some(Fault::Slow) => pieces.push(Piece::Gate),
            Some(Fault::Truncates) | None => {}
        }
    }
    if !matches!(fault, Some(Fault::ErrorLine | Fault::Cut)) {
        pieces.push(line(json!({"model": model, "message": {"role": "assistant", "content": ""}, "done": true,
            "done_reason": if said < WORDS.len() { "length" } else { "stop" }, "total_duration": 300_000_000, "load_duration": 20_000_000,
            "prompt_eval_count": prompt, "prompt_eval_cached_count": cached, "prompt_eval_duration": 100_000_000,
            "eval_count": said, "eval_duration": 180_000_000})));
    }
    ([(header::CONTENT_TYPE, "application/x-ndjson")], body(&shared.recorder, pieces)).into_response()
}
