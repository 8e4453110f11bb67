//! `/v1/embeddings`.

use super::super::embed_thread;
use super::super::gguf::ModelKind;
use super::super::host::{Counted, Host, Resident};
use super::super::job::{EmbedJob, Embedded};
use super::super::llama;
use super::super::request::{EmbeddingInput, EmbeddingsRequest};
use super::Failure;
use super::chat::{away, body, json_body, refused, resident, resolve};
use crate::chat::{GenError, GenErrorKind};
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use tokio::sync::oneshot;

pub(super) async fn create(
    State(host): State<Host>,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Response, Failure> {
    let arrived = Instant::now();
    let request = EmbeddingsRequest::parse(&json_body(&body(bytes)?)?).map_err(refused)?;
    let name = request.model.clone().or_else(|| last_used(&host));
    let Some(name) = name else {
        return Err(Failure::bad_request(
            "model is missing; it must be the id of a model that makes embeddings",
        ));
    };
    let (id, _) = resolve(&host, Some(&name)).await?;
    let kind = {
        let (host, id) = (host.clone(), id.clone());
        away(move || host.kind(&id)).await?
    };
    if let Some(kind) = kind.filter(|kind| *kind != ModelKind::Embedding) {
        let what = kind.why_not_chat().unwrap_or("made to chat with");
        return Err(Failure::new(
            StatusCode::BAD_REQUEST,
            "model_error",
            format!("`{id}` has no embeddings: it is {what}. Choose a model that is made for them"),
        ));
    }
    let _busy = Busy { counted: Some(host.count_answer()), host: host.clone() };
    let (resident, mut lease) = resident(&host, Some(&id)).await?;
    lease.is_warming = false;
    check_dimensions(&resident, request.dimensions)?;
    let texts = {
        let (resident, input) = (Arc::clone(&resident), request.input);
        away(move || tokenised(&resident, input)).await??
    };
    let (reply, answer) = oneshot::channel();
    host.note_use(&resident);
    let ended = |error: GenError| {
        host.forget(&resident);
        Failure::from(error)
    };
    resident.embed(EmbedJob { texts, arrived, reply }).map_err(ended)?;
    let embedded = answer
        .await
        .map_err(|_| {
            let message = format!("the thread of `{id}` ended. Send again to load it anew");
            ended(GenError::new(GenErrorKind::EngineDied, message))
        })?
        .map_err(Failure::from)?;
    let is_base64 = request.is_base64;
    let answer = away(move || answer_of(&id, &embedded, is_base64)).await?;
    Ok(axum::Json(answer).into_response())
}

/// Counts the request, and notes when nothing is going on any more.
struct Busy {
    counted: Option<Counted>,
    host: Host,
}

impl Drop for Busy {
    fn drop(&mut self) {
        drop(self.counted.take());
        if self.host.answers() == 0 {
            self.host.record_activity();
        }
    }
}

/// The resident embedding model that was used last.
fn last_used(host: &Host) -> Option<String> {
    let embedders = host.residents().into_iter().filter(|r| r.info.kind == ModelKind::Embedding);
    embedders.max_by_key(|r| r.last_used.load(Ordering::Relaxed)).map(|r| r.id.clone())
}

/// Vectors can't be shortened: only models that were trained for it bear that, and no file says so.
fn check_dimensions(resident: &Resident, asked: Option<u32>) -> Result<(), Failure> {
    let width = u32::try_from(resident.model.n_embd_out()).unwrap_or(0);
    match asked {
        Some(asked) if asked != width => Err(Failure::bad_request(format!(
            "dimensions must be left out: vectors of `{}` have {width} numbers and are not shortened",
            resident.id
        ))),
        _ => Ok(()),
    }
}

/// The texts as tokens, each short enough for the model.
fn tokenised(resident: &Resident, input: Vec<EmbeddingInput>) -> Result<Vec<Vec<i32>>, Failure> {
    let longest = embed_thread::longest(&resident.model, resident.options.context);
    let is_one = input.len() == 1;
    let mut texts = Vec::with_capacity(input.len());
    for (index, entry) in input.into_iter().enumerate() {
        let name = if is_one { "input".to_owned() } else { format!("input[{index}]") };
        let tokens = match entry {
            // The text's own words are never special tokens.
            EmbeddingInput::Text(text) => {
                let vocab = resident.model.vocab();
                vocab.tokenize(text.as_bytes(), true, false).iter().map(|token| token.0).collect()
            }
            EmbeddingInput::Tokens(tokens) => tokens,
        };
        if let Some(id) = tokens.iter().find(|id| !llama::is_token(&resident.model, **id)) {
            return Err(Failure::bad_request(format!(
                "{name} holds the token {id}, which `{}` does not have",
                resident.id
            )));
        }
        if tokens.is_empty() {
            return Err(Failure::bad_request(format!("{name} has no tokens for `{}`", resident.id)));
        }
        if tokens.len() > longest {
            return Err(Failure::too_long(
                format!(
                    "{name} has {} tokens, `{}` takes {longest} at once. Split it",
                    tokens.len(),
                    resident.id
                ),
                tokens.len(),
                longest,
            ));
        }
        texts.push(tokens);
    }
    Ok(texts)
}

fn answer_of(id: &str, embedded: &Embedded, is_base64: bool) -> Value {
    let data: Vec<Value> = embedded
        .vectors
        .iter()
        .enumerate()
        .map(|(index, vector)| {
            let vector = if is_base64 {
                let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
                Value::from(base64::engine::general_purpose::STANDARD.encode(bytes))
            } else {
                json!(vector)
            };
            json!({"object": "embedding", "index": index, "embedding": vector})
        })
        .collect();
    json!({
        "object": "list",
        "model": id,
        "data": data,
        "usage": {"prompt_tokens": embedded.tokens, "total_tokens": embedded.tokens},
        "timings": {"queue_ms": embedded.queue_ms, "prompt_n": embedded.tokens, "prompt_ms": embedded.ms},
    })
}
