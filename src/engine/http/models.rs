//! `/v1/models`, `/models/load`, `/models/unload`, `/models/sse`.

use super::super::catalogue::Entry;
use super::super::gguf::ModelKind;
use super::super::host::{Host, State as ModelState};
use super::super::supervisor;
use super::Failure;
use super::chat::{away, body, json_body, named_model, resolve};
use super::chunk;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::time::Duration;

/// A comment this often tells the client that the engine lives.
const HEARTBEAT: Duration = Duration::from_secs(15);

fn snapshot(host: &Host) -> Value {
    let entries = host.catalogue().entries().to_vec();
    let data: Vec<Value> = entries
        .iter()
        .map(|entry| {
            let card = entry.card(crate::chat::ModelState::Unloaded);
            let mut status = json!({});
            let mut meta = json!({
                "n_ctx_train": card.context,
                "n_params": card.parameters,
                "size": entry.bytes,
                "ftype": card.quantisation,
            });
            let state = host.state(&entry.id);
            let value = match &state {
                ModelState::Loaded(resident) => {
                    if let Some(meta) = meta.as_object_mut() {
                        meta.insert("n_ctx".to_owned(), resident.options.context.into());
                        meta.insert("n_vocab".to_owned(), resident.model.n_vocab().into());
                        meta.insert("n_embd".to_owned(), resident.model.n_embd().into());
                    }
                    "loaded"
                }
                ModelState::Loading(fraction) => {
                    status = json!({"progress": {"stages": ["text_model"], "current": "text_model", "value": fraction}});
                    "loading"
                }
                ModelState::Failed(error) => {
                    status = json!({"failed": true, "error": error.message});
                    "unloaded"
                }
                ModelState::Unloaded => match entry.unusable() {
                    Some(problem) => {
                        status = json!({"failed": true, "error": problem});
                        "unloaded"
                    }
                    None => "unloaded",
                },
            };
            if let Some(status) = status.as_object_mut() {
                status.insert("value".to_owned(), value.into());
            }
            json!({
                "id": entry.id,
                "object": "model",
                "owned_by": "duet",
                "created": 0,
                "path": entry.path,
                "status": status,
                "architecture": {"input_modalities": ["text"], "output_modalities": [output(entry)]},
                "meta": meta,
                "duet": {"builtin": entry.is_builtin, "quantisation": card.quantisation, "path": entry.path},
            })
        })
        .collect();
    Value::Array(data)
}

/// What comes out of a model, in the words of llama-server's router.
fn output(entry: &Entry) -> &'static str {
    match &entry.info {
        Ok(info) if info.kind == ModelKind::Embedding => "embeddings",
        Ok(_) | Err(_) => "text",
    }
}

/// Looks at the folders again. Reading the headers of many files takes a while, the first time only.
async fn scan(host: &Host) {
    let host = host.clone();
    let _ = tokio::task::spawn_blocking(move || host.catalogue().scan()).await;
}

pub(super) async fn list(State(host): State<Host>) -> Response {
    scan(&host).await;
    let data = away(move || snapshot(&host)).await.unwrap_or_default();
    axum::Json(json!({"object": "list", "data": data})).into_response()
}

pub(super) async fn load(
    State(host): State<Host>,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Response, Failure> {
    let body = json_body(&body(bytes)?)?;
    let (id, path) = resolve(&host, Some(&named_model(&body)?)).await?;
    if body["restore"] == true {
        // A client that brings back what was resident must not start a crash loop.
        host.refuse_if_quarantined(&id)?;
    } else {
        supervisor::pardon(host.runtime_dir(), &id);
    }
    host.begin_load(&id, &path);
    Ok(axum::Json(json!({"success": true, "model": id})).into_response())
}

pub(super) async fn unload(
    State(host): State<Host>,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Response, Failure> {
    let (id, _) = resolve(&host, Some(&named_model(&json_body(&body(bytes)?)?)?)).await?;
    if host.unload(&id) {
        Ok(axum::Json(json!({"success": true})).into_response())
    } else {
        Err(Failure::bad_request(format!("`{id}` is not loaded")))
    }
}

/// A stream of what happens to models. Besides llama-server's `model_status` events there is a snapshot
/// of the whole list, at once and after every change.
pub(super) async fn events(State(host): State<Host>) -> Response {
    struct Following {
        host: Host,
        changed: tokio::sync::watch::Receiver<u64>,
        last: Value,
    }
    scan(&host).await;
    let mut changed = host.changed();
    changed.mark_changed();
    let following = Following { host, changed, last: Value::Null };
    let stream = futures_util::stream::unfold(following, async |mut f| {
        loop {
            match tokio::time::timeout(HEARTBEAT, f.changed.changed()).await {
                Err(_) => return Some((Ok::<_, Infallible>(Bytes::from_static(b":\n\n")), f)),
                Ok(Err(_)) => return None,
                Ok(Ok(())) => {}
            }
            if f.host.is_closing() {
                if f.last.is_null() {
                    return None;
                }
                f.last = Value::Null;
                let mut out = String::new();
                chunk::event(&mut out, &json!({"model": "*", "event": "engine_ending"}));
                f.changed.mark_changed();
                return Some((Ok(Bytes::from(out)), f));
            }
            let host = f.host.clone();
            let now = away(move || snapshot(&host)).await.unwrap_or_default();
            if now == f.last {
                continue;
            }
            let mut out = String::new();
            for (before, model) in differing(&f.last, &now) {
                if before {
                    chunk::event(
                        &mut out,
                        &json!({"model": model["id"], "event": "model_status", "data": {
                            "status": model["status"]["value"], "progress": model["status"]["progress"],
                        }}),
                    );
                }
            }
            chunk::event(&mut out, &json!({"model": "*", "event": "models", "data": now}));
            f.last = now;
            return Some((Ok(Bytes::from(out)), f));
        }
    });
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")];
    (headers, Body::from_stream(stream)).into_response()
}

/// Models whose status is another than before; `true` when there was a before.
fn differing<'a>(before: &'a Value, now: &'a Value) -> Vec<(bool, &'a Value)> {
    let before = before.as_array();
    now.as_array()
        .into_iter()
        .flatten()
        .filter(|model| {
            let old = before.and_then(|all| all.iter().find(|m| m["id"] == model["id"]));
            old.is_none_or(|old| old["status"] != model["status"])
        })
        .map(|model| (before.is_some(), model))
        .collect()
}
