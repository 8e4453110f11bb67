//! llama-swap beyond its OpenAI routes: `/running` tells which servers it has started, one for each model.

use super::catalogue::{self, Entry};
use super::http::{Http, HttpError, QUICK};
use super::models::cant_load;
use crate::chat::{KeepAlive, ModelState, Residency};
use serde_json::{Value, json};
use std::time::Duration;

/// For a load: nothing is heard of it until it is over.
const LOAD: Duration = Duration::from_secs(30 * 60);

/// The list of models. None when the answer is no list.
///
/// # Errors
/// When it can't be reached or refuses.
pub(super) async fn fetch(http: &Http) -> Result<Option<Vec<Entry>>, HttpError> {
    let list = http.get("/v1/models", QUICK).await?;
    let running = http.get("/running", QUICK).await?;
    Ok(catalogue::entries(&list).map(|entries| with_states(entries, &running)))
}

/// Adds what runs to what there is.
fn with_states(mut entries: Vec<Entry>, running: &Value) -> Vec<Entry> {
    let Some(running) = running.get("running").and_then(Value::as_array) else { return entries };
    for entry in &mut entries {
        let process = running.iter().find(|p| p.get("model").and_then(Value::as_str) == Some(&entry.card.id));
        let state = process.map(|process| process.get("state").and_then(Value::as_str).unwrap_or_default());
        entry.card.state = match state {
            Some("ready") => ModelState::Loaded,
            Some("starting") => ModelState::Loading { fraction: 0.0 },
            // It stops, or has stopped.
            Some(_) | None => ModelState::Unloaded,
        };
        let stays = process.and_then(|p| p.get("ttl")?.as_u64()).filter(|seconds| *seconds > 0);
        if entry.card.state == ModelState::Loaded && stays.is_some() {
            let keep_alive = stays.map(KeepAlive::Seconds);
            entry.residency =
                Some(Residency { id: entry.card.id.clone(), keep_alive, ..Residency::default() });
        }
    }
    entries
}

/// Loads a model by looking at its own server, which is started for that; returns when it is resident.
///
/// # Errors
/// When it does not start.
pub(super) async fn load(http: &Http, model: &str) -> Result<(), HttpError> {
    if leaves_its_place(model) {
        return Err(cant_load(http, model, &json!({ "error": "no model has such a name" })));
    }
    let look = http.look(&format!("/upstream/{}/health", escaped(model)), LOAD).await?;
    let entries = fetch(http).await?.unwrap_or_default();
    let is_there = entries.iter().any(|e| e.card.id == model && e.card.state == ModelState::Loaded);
    if is_there {
        return Ok(());
    }
    let answer = look.json();
    let answer =
        if answer.is_object() { answer } else { json!({ "error": String::from_utf8_lossy(&look.body) }) };
    Err(cant_load(http, model, &answer))
}

/// Unloads a model. `false` when it did not run.
///
/// # Errors
/// When it refuses.
pub(super) async fn unload(http: &Http, model: &str) -> Result<bool, HttpError> {
    let entries = fetch(http).await?.unwrap_or_default();
    let runs = entries.iter().any(|e| e.card.id == model && e.card.state != ModelState::Unloaded);
    if runs && !leaves_its_place(model) {
        let route = format!("/api/models/unload/{}", escaped(model));
        let post = http.request(reqwest::Method::POST, &route)?;
        http.send(post, QUICK, Some(model)).await?;
    }
    Ok(runs)
}

/// Whether a name would lead to another path.
fn leaves_its_place(model: &str) -> bool {
    model.split('/').any(|part| matches!(part, "." | ".."))
}

/// A model's id as a part of a path. Slashes stay: llama-swap looks for the longest name that fits.
fn escaped(model: &str) -> String {
    let mut path = String::with_capacity(model.len());
    for byte in model.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' | b':' => {
                path.push(byte.into());
            }
            other => path.push_str(&format!("%{other:02X}")),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn what_runs() {
        let list =
            json!({"data": [{"id": "a", "owned_by": "llama-swap"}, {"id": "b"}, {"id": "c"}, {"id": "d"}]});
        let running = json!({"running": [{"model": "a", "state": "ready", "ttl": 300}, {"model": "b", "state": "starting"},
            {"model": "c", "state": "stopping"}, 5]});
        let entries = with_states(catalogue::entries(&list).expect("a list"), &running);
        let states: Vec<ModelState> = entries.iter().map(|entry| entry.card.state.clone()).collect();
        assert_eq!(
            states,
            [
                ModelState::Loaded,
                ModelState::Loading { fraction: 0.0 },
                ModelState::Unloaded,
                ModelState::Unloaded
            ]
        );
        assert_eq!(entries[0].residency.as_ref().and_then(|r| r.keep_alive), Some(KeepAlive::Seconds(300)));
        let odd = with_states(catalogue::entries(&list).expect("a list"), &json!([]));
        assert_eq!(odd[0].card.state, ModelState::Unknown);
    }

    #[test]
    fn ids_in_paths() {
        assert_eq!(escaped("org/qwen 3:8b?x=#"), "org/qwen%203:8b%3Fx%3D%23");
        assert_eq!(escaped("日"), "%E6%97%A5");
    }
}
