//! LM Studio beyond its OpenAI routes: its lists of models in two versions, loading and unloading. Every answer is
//! judged by its shape: paths it does not know are answered with 200.

use super::LoadWish;
use super::catalogue::{Entry, MAX_ID, MAX_MODELS, parameters_of, quantisation_of};
use super::http::{Http, HttpError, QUICK};
use super::models::{cant_load, refused};
use crate::chat::{ModelCard, ModelState, Residency};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::time::Duration;

/// For a load: nothing is heard of it until it is over.
const LOAD: Duration = Duration::from_secs(30 * 60);

/// The list of models: that of version 0.4 and later, else the older one. None when it has neither.
///
/// # Errors
/// When it can't be reached or refuses.
pub(super) async fn fetch(http: &Http) -> Result<Option<Vec<Entry>>, HttpError> {
    if let Some(models) = new_list(http).await? {
        return Ok(Some(read(&models, new_entry)));
    }
    let list = http.get("/api/v0/models", QUICK).await?;
    Ok(list.get("data").and_then(Value::as_array).map(|models| read(models, old_entry)))
}

async fn new_list(http: &Http) -> Result<Option<Vec<Value>>, HttpError> {
    let list = http.get("/api/v1/models", QUICK).await?;
    Ok(list.get("models").and_then(Value::as_array).cloned())
}

fn read(models: &[Value], entry: impl Fn(&Value) -> Option<Entry>) -> Vec<Entry> {
    let mut seen = HashSet::new();
    let known = models.iter().filter_map(entry).filter(|entry| seen.insert(entry.card.id.clone()));
    known.take(MAX_MODELS).collect()
}

fn text<'a>(item: &'a Value, name: &str) -> Option<&'a str> {
    item.get(name).and_then(Value::as_str).filter(|text| !text.is_empty() && text.chars().count() <= MAX_ID)
}

fn tokens(value: Option<&Value>) -> Option<u32> {
    value?.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0)
}

fn instances(item: &Value) -> impl Iterator<Item = &Value> {
    item.get("loaded_instances").and_then(Value::as_array).into_iter().flatten()
}

fn instance_context(instance: &Value) -> Option<u32> {
    tokens(instance.get("config").and_then(|config| config.get("context_length")))
}

fn new_entry(item: &Value) -> Option<Entry> {
    let id = text(item, "key")?.to_owned();
    let loaded = instances(item).next();
    let context = loaded.and_then(instance_context);
    let slots = loaded.and_then(|instance| tokens(instance.get("config")?.get("parallel")));
    let quantisation = item.get("quantization").and_then(|q| text(q, "name")).and_then(quantisation_of);
    let card = ModelCard {
        state: if loaded.is_some() { ModelState::Loaded } else { ModelState::Unloaded },
        parameters: text(item, "params_string").and_then(parameters_of),
        bytes: item.get("size_bytes").and_then(Value::as_u64).filter(|bytes| *bytes > 0),
        quantisation,
        context: context.or_else(|| tokens(item.get("max_context_length"))),
        id: id.clone(),
        ..ModelCard::default()
    };
    let residency = loaded.map(|_| Residency { id, context, slots, ..Residency::default() });
    Some(Entry { card, path: None, residency, embeds: is_embedder(item) })
}

fn old_entry(item: &Value) -> Option<Entry> {
    let state = match text(item, "state") {
        Some("loaded") => ModelState::Loaded,
        Some("loading") => ModelState::Loading { fraction: 0.0 },
        Some("not-loaded") => ModelState::Unloaded,
        _ => ModelState::Unknown,
    };
    let card = ModelCard {
        quantisation: text(item, "quantization").and_then(quantisation_of),
        context: tokens(item.get("loaded_context_length")).or_else(|| tokens(item.get("max_context_length"))),
        id: text(item, "id")?.to_owned(),
        state,
        ..ModelCard::default()
    };
    Some(Entry { card, path: None, residency: None, embeds: is_embedder(item) })
}

fn is_embedder(item: &Value) -> bool {
    text(item, "type").is_some_and(|kind| kind.starts_with("embedding"))
}

/// The model's own entry of the list, by its key or the id of an instance of it.
fn find<'a>(models: &'a [Value], model: &str) -> Option<&'a Value> {
    let is_meant = |item: &&Value| {
        text(item, "key") == Some(model) || instances(item).any(|i| text(i, "id") == Some(model))
    };
    models.iter().find(is_meant)
}

fn too_old(http: &Http, deed: &str) -> HttpError {
    let message = format!(
        "{} can't be told to {deed} a model: its LM Studio is older than 0.4\nupdate it, or do it there",
        http.backend()
    );
    refused(http, &message)
}

/// Loads a model; returns when it is resident. One that is already, with the context that is wanted, is left alone:
/// LM Studio would load it a second time.
///
/// # Errors
/// When it can't be loaded, or the version is too old to be told.
pub(super) async fn load(http: &Http, model: &str, wish: LoadWish) -> Result<(), HttpError> {
    let Some(models) = new_list(http).await? else { return Err(too_old(http, "load")) };
    if let Some(item) = find(&models, model) {
        let fits =
            |instance: &Value| wish.context.is_none_or(|wanted| instance_context(instance) == Some(wanted));
        if instances(item).any(fits) {
            return Ok(());
        }
        // With another context it is there twice, which nobody asked for.
        if instances(item).next().is_some() {
            unload(http, model).await?;
        }
    }
    let mut body = json!({ "model": model });
    if let (Some(context), Some(body)) = (wish.context, body.as_object_mut()) {
        body.insert("context_length".to_owned(), json!(context));
    }
    let answer = http.post("/api/v1/models/load", &body, LOAD, Some(model)).await?;
    let is_loaded = ["instance_id", "model_instance_id"].iter().any(|name| text(&answer, name).is_some());
    if is_loaded { Ok(()) } else { Err(cant_load(http, model, &answer)) }
}

/// Unloads all instances of a model. `false` when there was none.
///
/// # Errors
/// When it refuses, or the version is too old to be told.
pub(super) async fn unload(http: &Http, model: &str) -> Result<bool, HttpError> {
    let Some(models) = new_list(http).await? else { return Err(too_old(http, "unload")) };
    let ids: Vec<&str> =
        find(&models, model).into_iter().flat_map(instances).filter_map(|i| text(i, "id")).collect();
    for id in &ids {
        let answer =
            http.post("/api/v1/models/unload", &json!({ "instance_id": id }), QUICK, Some(model)).await?;
        if text(&answer, "instance_id").is_none() {
            return Err(cant_load(http, model, &answer));
        }
    }
    Ok(!ids.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn the_list_of_version_0_4() {
        let models = json!([
            {"type": "llm", "key": "google/gemma-3-270m", "architecture": "gemma3", "quantization": {"name": "Q4_0", "bits_per_weight": 4},
             "size_bytes": 241_410_208, "params_string": "270M", "max_context_length": 32768,
             "loaded_instances": [{"id": "google/gemma-3-270m:2", "config": {"context_length": 4096, "parallel": 4}}]},
            {"type": "embedding", "key": "nomic", "quantization": null, "size_bytes": 0, "params_string": null,
             "loaded_instances": [], "max_context_length": 2048},
            {"key": 5}, {"loaded_instances": []}, {"key": "nomic"}, 7,
        ]);
        let models = models.as_array().expect("a list");
        let all = read(models, new_entry);
        assert_eq!(all.len(), 2);
        assert_eq!(
            all[0].card,
            ModelCard {
                id: "google/gemma-3-270m".to_owned(),
                state: ModelState::Loaded,
                parameters: Some(270_000_000),
                bytes: Some(241_410_208),
                quantisation: Some("q4_0".to_owned()),
                context: Some(4096),
                ..ModelCard::default()
            }
        );
        let kept = all[0].residency.as_ref().expect("it is loaded");
        assert_eq!((kept.context, kept.slots), (Some(4096), Some(4)));
        assert_eq!((all[1].card.state.clone(), all[1].card.context), (ModelState::Unloaded, Some(2048)));
        assert_eq!((all[1].embeds, all[1].card.bytes, all[1].residency.clone()), (true, None, None));
        for name in ["google/gemma-3-270m", "google/gemma-3-270m:2"] {
            assert_eq!(find(models, name).and_then(|item| text(item, "key")), Some("google/gemma-3-270m"));
        }
        assert_eq!(find(models, "gemma"), None);
    }

    #[test]
    fn the_older_list() {
        let models = json!([
            {"id": "qwen2-vl", "type": "vlm", "quantization": "4bit", "state": "not-loaded", "max_context_length": 32768},
            {"id": "llama", "type": "llm", "quantization": "Q4_K_M", "state": "loaded", "max_context_length": 131_072, "loaded_context_length": 8192},
            {"id": "nomic", "type": "embeddings", "state": "?"},
        ]);
        let all = read(models.as_array().expect("a list"), old_entry);
        let states: Vec<ModelState> = all.iter().map(|entry| entry.card.state.clone()).collect();
        assert_eq!(states, [ModelState::Unloaded, ModelState::Loaded, ModelState::Unknown]);
        assert_eq!(all.iter().map(|e| e.card.context).collect::<Vec<_>>(), [Some(32768), Some(8192), None]);
        assert_eq!(all.iter().map(|e| e.embeds).collect::<Vec<_>>(), [false, false, true]);
        assert_eq!(all[1].card.quantisation.as_deref(), Some("q4_k_m"));
    }
}
