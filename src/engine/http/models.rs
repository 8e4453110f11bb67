//! `/v1/models`, `/models/load`, `/models/unload`, `/models/pin`, `/models/keep_alive`, `/models/sse`.

use super::super::catalogue::Entry;
use super::super::gguf::{ModelKind, plain};
use super::super::host::{Forecast, Host, Outlook, State as ModelState};
use super::super::request::{self, LoadRequest};
use super::super::residency::plan::Verdict;
use super::super::supervisor;
use super::Failure;
use super::chat::{away, body, json_body, named_model, refused, resolve};
use super::chunk;
use crate::chat::GenErrorKind;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A comment this often tells the client that the engine lives.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// How long the answer to a load waits for the decision whether there is room.
const DECISION: Duration = Duration::from_secs(2);

fn snapshot(host: &Host) -> Value {
    let entries = host.catalogue().entries().to_vec();
    let outlook = host.outlook();
    // A projector belongs to the model it lies beside, and is none itself.
    let is_model = |entry: &&Entry| !entry.info.as_ref().is_ok_and(|info| info.kind == ModelKind::Projector);
    Value::Array(entries.iter().filter(is_model).map(|entry| describe(host, &outlook, entry)).collect())
}

fn describe(host: &Host, outlook: &Outlook, entry: &Entry) -> Value {
    let card = entry.card(crate::chat::ModelState::Unloaded);
    let mut meta = json!({
        "n_ctx_train": card.context,
        "n_params": card.parameters,
        "size": entry.bytes,
        "ftype": card.quantisation,
    });
    let state = host.state(&entry.id);
    if let (ModelState::Loaded(resident), Some(meta)) = (&state, meta.as_object_mut()) {
        meta.insert("n_ctx".to_owned(), resident.options.context.into());
        meta.insert("n_vocab".to_owned(), resident.model.n_vocab().into());
        meta.insert("n_embd".to_owned(), resident.model.n_embd().into());
    }
    let failed = |why: &str| json!({"failed": true, "error": why, "value": "unloaded"});
    let status = match &state {
        ModelState::Loaded(_) => json!({"value": "loaded"}),
        ModelState::Loading(progress) => json!({
            "progress": {
                "stages": ["text_model"],
                "current": "text_model",
                "value": progress.fraction,
                "bytes_done": progress.bytes_done,
                "bytes_total": progress.bytes_total,
            },
            "value": "loading",
        }),
        // What there was no room for is no failure any more once there is, or could be.
        ModelState::Failed(error)
            if error.kind == GenErrorKind::OutOfMemory && has_room_now(host, outlook, entry) =>
        {
            json!({"value": "unloaded"})
        }
        ModelState::Failed(error) => failed(&error.message),
        ModelState::Unloaded => match entry.unusable() {
            Some(problem) => failed(&host.told(&entry.id, &files(entry), problem)),
            None => json!({"value": "unloaded"}),
        },
    };
    let mut described = json!({
        "id": entry.id,
        "object": "model",
        "owned_by": "duet",
        "created": 0,
        "status": status,
        "architecture": {"input_modalities": ["text"], "output_modalities": [output(entry)]},
        "meta": meta,
        "duet": ours(host, outlook, entry, &state),
    });
    if !host.terms().ids_only {
        described["path"] = json!(entry.path);
        described["duet"]["path"] = json!(entry.path);
    }
    described
}

/// Whether a model would fit with the context it is loaded with, as far as is known without trying.
fn has_room_now(host: &Host, outlook: &Outlook, entry: &Entry) -> bool {
    entry.info.as_ref().is_ok_and(|info| {
        let verdict = host.forecast(outlook, &entry.id, &entry.path, info).verdict;
        matches!(verdict, Verdict::Fits | Verdict::IfUnloaded(_) | Verdict::Partial { .. })
    })
}

/// All the paths a message about a model may name.
fn files(entry: &Entry) -> Vec<&Path> {
    std::iter::once(&entry.path).chain(&entry.aliases).map(PathBuf::as_path).collect()
}

/// What llama-server has no field for: how a model is held, what it takes, and whether it would fit.
fn ours(host: &Host, outlook: &Outlook, entry: &Entry, state: &ModelState) -> Value {
    let card = entry.card(crate::chat::ModelState::Unloaded);
    let wish = host.wish(&entry.id);
    let mut value = json!({
        "builtin": entry.is_builtin,
        "quantisation": card.quantisation,
        "pinned": wish.pinned,
        "keep_alive": wish.keep_alive,
        "expires_s": null,
        "idle_s": null,
        "running": 0,
        "queued": host.leases(&entry.id),
        "context": null,
        "slots": null,
        "load_ms": null,
        "prefill_tokens_per_s": null,
        "decode_tokens_per_s": null,
        "bytes": {"weights": null, "kv": null, "compute": null},
        "need": null,
        "verdict": null,
    });
    let more = match (state, &entry.info) {
        (ModelState::Loaded(resident), _) => {
            let hold = host.hold(resident);
            let counters = resident.stats.read();
            let bytes = resident.allocated().footprint.totals();
            json!({
                "expires_s": hold.expires_s,
                "idle_s": hold.idle_s,
                "running": counters.busy,
                "queued": host.leases(&entry.id).saturating_sub(counters.busy),
                "context": resident.options.context,
                "slots": resident.options.slots,
                "load_ms": resident.load_ms,
                "prefill_tokens_per_s": counters.prefill_rate,
                "decode_tokens_per_s": counters.decode_rate,
                "bytes": bytes,
                "need": bytes.total(),
            })
        }
        (_, Ok(info)) if entry.unusable().is_none() => {
            let forecast = host.forecast(outlook, &entry.id, &entry.path, info);
            let bytes = forecast.footprint.totals();
            let verdict = match state {
                ModelState::Loading(_) => Value::Null,
                _ => verdict(&forecast, outlook),
            };
            json!({"bytes": bytes, "need": bytes.total(), "verdict": verdict})
        }
        _ => json!({}),
    };
    if let (Some(value), Value::Object(more)) = (value.as_object_mut(), more) {
        value.extend(more);
    }
    value
}

fn verdict(forecast: &Forecast, outlook: &Outlook) -> Value {
    let (fit, context, unload, gpu_layers, slowdown): (_, _, &[String], _, _) = match &forecast.verdict {
        Verdict::Fits if outlook.is_unknown() => ("unknown", None, &[], None, None),
        Verdict::Fits => ("fits", None, &[], None, None),
        Verdict::IfUnloaded(ids) => ("if_unloaded", None, ids, None, None),
        Verdict::SmallerContext { context, unload } => {
            ("smaller_context", Some(*context), unload, None, None)
        }
        Verdict::Partial { gpu_layers, slowdown, unload } => {
            ("partial", None, unload, Some(*gpu_layers), Some(*slowdown))
        }
        Verdict::DoesNotFit if forecast.fits_alone => ("no_room", None, &[], None, None),
        Verdict::DoesNotFit => ("does_not_fit", None, &[], None, None),
    };
    json!({
        "fit": fit,
        "context": context,
        "unload": unload,
        "gpu_layers": gpu_layers,
        "slowdown": slowdown,
        "say": forecast.say,
    })
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

/// One of the list, by its id.
pub(super) async fn one(
    State(host): State<Host>,
    axum::extract::Path(id): axum::extract::Path<String>,
) -> Result<Response, Failure> {
    scan(&host).await;
    let all = away(move || snapshot(&host)).await?;
    let found = all.as_array().and_then(|all| all.iter().find(|model| model["id"] == id.as_str()));
    found.map(|model| axum::Json(model).into_response()).ok_or_else(|| {
        let message =
            format!("there is no model \"{}\"\nGET /v1/models lists those there are", plain(&id, 80));
        Failure::new(StatusCode::NOT_FOUND, "model_not_found_error", message)
    })
}

/// Refuses what changes things for all clients where that is not everybody's to do.
pub(super) fn refuse_unless_managing(host: &Host) -> Result<(), Failure> {
    if host.terms().manages {
        return Ok(());
    }
    Err(Failure::new(
        StatusCode::FORBIDDEN,
        "permission_error",
        "models are not managed from the network here\n\
         start the server with `tui serve --allow-manage` where all clients are trusted",
    ))
}

pub(super) async fn load(
    State(host): State<Host>,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Response, Failure> {
    let asked = LoadRequest::parse(&json_body(&body(bytes)?)?).map_err(refused)?;
    if asked.context.is_some() || asked.pin.is_some() || asked.keep_alive.is_some() {
        refuse_unless_managing(&host)?;
    }
    let (id, path) = resolve(&host, Some(&asked.model)).await?;
    if asked.is_restored || !host.terms().manages {
        // A client that brings back what was resident must not start a crash loop, nor may just anybody.
        host.refuse_if_quarantined(&id)?;
    } else {
        supervisor::pardon(host.runtime_dir(), &id);
    }
    let asking = host.clone();
    let known = id.clone();
    // The model may be measured, and drivers are asked for their memory.
    away(move || {
        asking.ask(&known, &path, |wish| {
            wish.context = asked.context.unwrap_or(wish.context);
            wish.pinned = asked.pin.unwrap_or(wish.pinned);
            wish.keep_alive = asked.keep_alive.or(wish.keep_alive);
        })
    })
    .await??;
    // A refusal comes before the load, so it is the answer; how the load itself goes is in the list.
    let mut changed = host.changed();
    let decided = async {
        loop {
            match host.state(&id) {
                ModelState::Loading(progress) if !progress.has_room => {}
                ModelState::Failed(error) if error.kind == GenErrorKind::OutOfMemory => return Err(error),
                _ => return Ok(()),
            }
            if changed.changed().await.is_err() {
                return Ok(());
            }
        }
    };
    if let Ok(decision) = tokio::time::timeout(DECISION, decided).await {
        decision?;
    }
    Ok(axum::Json(json!({"success": true, "model": id})).into_response())
}

pub(super) async fn unload(
    State(host): State<Host>,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Response, Failure> {
    refuse_unless_managing(&host)?;
    let (id, _) = resolve(&host, Some(&named_model(&json_body(&body(bytes)?)?)?)).await?;
    if host.unload(&id) {
        Ok(axum::Json(json!({"success": true})).into_response())
    } else {
        Err(Failure::bad_request(format!("`{id}` is not loaded")))
    }
}

/// Whether a model stays whatever else is wanted; it need not be resident.
pub(super) async fn pin(
    State(host): State<Host>,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Response, Failure> {
    refuse_unless_managing(&host)?;
    let (name, pinned) = request::parse_pin(&json_body(&body(bytes)?)?).map_err(refused)?;
    let (id, _) = resolve(&host, Some(&name)).await?;
    host.set_wish(&id, |wish| wish.pinned = pinned);
    Ok(axum::Json(json!({"success": true, "model": id, "pinned": pinned})).into_response())
}

/// How long a model stays after its last answer; it need not be resident.
pub(super) async fn keep_alive(
    State(host): State<Host>,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Response, Failure> {
    refuse_unless_managing(&host)?;
    let (name, seconds) = request::parse_keep_alive(&json_body(&body(bytes)?)?).map_err(refused)?;
    let (id, _) = resolve(&host, Some(&name)).await?;
    host.set_wish(&id, |wish| wish.keep_alive = seconds);
    Ok(axum::Json(json!({"success": true, "model": id, "keep_alive": seconds})).into_response())
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
                let mut out = Vec::new();
                chunk::event(&mut out, &json!({"model": "*", "event": "engine_ending"}));
                f.changed.mark_changed();
                return Some((Ok(Bytes::from(out)), f));
            }
            let host = f.host.clone();
            let now = away(move || snapshot(&host)).await.unwrap_or_default();
            if now == f.last {
                continue;
            }
            let mut out = Vec::new();
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
