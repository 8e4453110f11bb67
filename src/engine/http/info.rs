//! `/health`, `/props`, `/metrics`, `/engine/status`, `/engine/shutdown`.

use super::super::host::{Host, State as ModelState};
use super::super::llama;
use super::super::request;
use super::Failure;
use super::chat::{away, body, json_body, resolve};
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::atomic::Ordering;

pub(super) async fn health() -> Response {
    axum::Json(json!({"status": "ok"})).into_response()
}

/// Of the engine, or with `?model=` of a model; asking never loads one.
pub(super) async fn props(
    State(host): State<Host>,
    Query(query): Query<HashMap<String, String>>,
) -> Result<Response, Failure> {
    let Some(name) = query.get("model") else {
        return Ok(axum::Json(json!({
            "role": "router",
            "build_info": concat!("duet-", env!("CARGO_PKG_VERSION")),
            "models_autoload": true,
            "max_instances": null,
        }))
        .into_response());
    };
    let (id, path) = resolve(&host, Some(name)).await?;
    let mut props = json!({"model_alias": id, "is_sleeping": false});
    if !host.terms().ids_only {
        props["model_path"] = json!(path);
    }
    if let (ModelState::Loaded(resident), Some(object)) = (host.state(&id), props.as_object_mut()) {
        object.insert("total_slots".to_owned(), resident.options.slots.into());
        object.insert("chat_template".to_owned(), resident.template.source().into());
        let settings = json!({"n_ctx": resident.options.context, "params": {}});
        object.insert("default_generation_settings".to_owned(), settings);
    }
    Ok(axum::Json(props).into_response())
}

/// Prometheus text with llama-server's names, labelled by model.
pub(super) async fn metrics(State(host): State<Host>) -> Response {
    let mut out = String::new();
    let all: Vec<_> = host.residents().iter().map(|r| (r.id.clone(), r.stats.read())).collect();
    type Read = fn(&super::super::stats::Counters) -> f64;
    let rows: [(&str, &str, &str, Read); 8] = [
        ("prompt_tokens_total", "counter", "Prompt tokens evaluated", |c| c.prompt_tokens as f64),
        ("prompt_seconds_total", "counter", "Time of prefill", |c| c.prompt_seconds),
        ("tokens_predicted_total", "counter", "Tokens produced", |c| c.output_tokens as f64),
        ("tokens_predicted_seconds_total", "counter", "Time of decode", |c| c.output_seconds),
        ("requests_processing", "gauge", "Requests in a slot", |c| c.busy as f64),
        ("requests_deferred", "gauge", "Requests without a slot", |c| c.queued as f64),
        ("requests_cancelled_total", "counter", "Requests cancelled", |c| c.cancelled as f64),
        ("kv_cache_tokens", "gauge", "Tokens in the KV cache", |c| c.cells as f64),
    ];
    for (name, kind, help, read) in rows {
        let _ = writeln!(out, "# HELP llamacpp:{name} {help}.\n# TYPE llamacpp:{name} {kind}");
        for (id, counters) in &all {
            let label = id.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', " ");
            let _ = writeln!(out, "llamacpp:{name}{{model=\"{label}\"}} {}", read(counters));
        }
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], out).into_response()
}

pub(super) async fn status(State(host): State<Host>) -> Result<Response, Failure> {
    // Devices are asked for their memory, which may take a moment.
    let status = super::chat::away(move || describe(&host)).await?;
    Ok(axum::Json(status).into_response())
}

fn describe(host: &Host) -> Value {
    let is_private = !host.terms().ids_only;
    let models: Vec<Value> = host
        .residents()
        .iter()
        .map(|resident| {
            let counters = resident.stats.read();
            let hold = host.hold(resident);
            let held = resident.allocated().footprint;
            let mut model = json!({
                "id": resident.id,
                "state": "loaded",
                "bytes": held.totals(),
                "device_bytes": held.shares,
                "context": resident.options.context,
                "threads": resident.options.threads,
                "slots": resident.options.slots,
                "slots_used": counters.busy,
                "queued": counters.queued,
                "cached_tokens": counters.cells,
                "pinned": hold.wish.pinned,
                "keep_alive": hold.wish.keep_alive,
                "expires_s": hold.expires_s,
                "idle_s": hold.idle_s,
                "last_used": resident.last_used.load(Ordering::Relaxed),
                "load_ms": resident.load_ms,
                "prefill_tokens_per_s": counters.prefill_rate,
                "decode_tokens_per_s": counters.decode_rate,
            });
            if is_private {
                model["path"] = json!(resident.path);
                model["draft_model"] = json!(resident.draft_model());
            }
            model
        })
        .collect();
    let (in_memory, on_disk) = host.cache().used();
    let mut status = json!({
        "version": crate::VERSION,
        "uptime_s": host.uptime(),
        "devices": devices(host),
        "models": models,
        "cache": {"memory_bytes": in_memory, "disk_bytes": on_disk},
        "queue": host.answers(),
        "evictions": host.evictions(),
    });
    if is_private {
        status["pid"] = json!(std::process::id());
    }
    status
}

/// All devices; those that models can be put on have a budget.
fn devices(host: &Host) -> Vec<Value> {
    let budgets = host.outlook().budgets;
    let bytes = |n: u64| if n == u64::MAX { Value::Null } else { n.into() };
    let known = budgets.iter().map(|b| {
        json!({
            "name": b.device.name,
            "kind": b.device.kind,
            "description": b.device.description,
            "backend": b.device.backend,
            "total": b.device.total,
            "free": b.device.free,
            "budget": bytes(b.budget),
            "reserved": b.reserved,
        })
    });
    let others = llama::devices().into_iter().filter(|d| !budgets.iter().any(|b| b.device.name == d.name));
    known.chain(others.filter_map(|d| serde_json::to_value(d).ok())).collect()
}

/// Deletes what is kept of a session: in slots, in memory, on disk.
pub(super) async fn forget(
    State(host): State<Host>,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Response, Failure> {
    super::models::refuse_unless_managing(&host)?;
    let session = request::parse_session(&json_body(&body(bytes)?)?)
        .map_err(|error| Failure::bad_request(error.to_string()))?;
    // Models answer between two batches, and files are deleted.
    let forgotten = away(move || host.forget_session(&session)).await?;
    Ok(axum::Json(json!({ "forgotten": forgotten })).into_response())
}

/// Running answers go on, new ones are refused, then the engine ends.
pub(super) async fn shutdown(State(host): State<Host>) -> Response {
    host.close();
    axum::Json(json!({"success": true})).into_response()
}
