//! What is asked beside a question: whether the model has to be loaded for it, and which one answers where a server
//! takes no notice of the name. The question does not wait for it.

use crate::backend::catalogue::{self, Entry};
use crate::backend::decode::is_same_model;
use crate::backend::http::Http;
use crate::backend::{lmstudio, swap};
use crate::chat::{GenEvent, ModelState, Note};
use crate::config::BackendKind;
use serde_json::Value;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// For all of it.
const BUDGET: Duration = Duration::from_secs(2);

/// The events it gives.
pub(super) type Aside = Pin<Box<dyn Future<Output = Vec<GenEvent>> + Send>>;

/// Asks, where there is something to learn.
pub(super) fn ask(http: &Arc<Http>, kind: BackendKind, model: &str) -> Option<Aside> {
    if model.is_empty() {
        return None;
    }
    let (http, model) = (Arc::clone(http), model.to_owned());
    let asks: Aside = match kind {
        BackendKind::LlamaServer => Box::pin(async move {
            let list = http.get("/v1/models", BUDGET).await;
            list.map(|list| of_llama_server(&list, &model)).unwrap_or_default()
        }),
        BackendKind::LmStudio => Box::pin(async move {
            let entries = timeout(BUDGET, lmstudio::fetch(&http)).await;
            entries.ok().and_then(Result::ok).flatten().map(|all| load_of(&all, &model)).unwrap_or_default()
        }),
        BackendKind::LlamaSwap => Box::pin(async move {
            let entries = timeout(BUDGET, swap::fetch(&http)).await;
            entries.ok().and_then(Result::ok).flatten().map(|all| load_of(&all, &model)).unwrap_or_default()
        }),
        BackendKind::Duet
        | BackendKind::Ollama
        | BackendKind::Mlx
        | BackendKind::Vllm
        | BackendKind::TensorrtLlm
        | BackendKind::Openai => return None,
    };
    Some(asks)
}

/// Whether the model is about to be loaded.
fn load_of(entries: &[Entry], model: &str) -> Vec<GenEvent> {
    match entries.iter().find(|entry| entry.card.id == model).map(|entry| &entry.card.state) {
        Some(ModelState::Unloaded) => vec![GenEvent::Loading { fraction: 0.0 }],
        Some(ModelState::Loading { fraction }) => vec![GenEvent::Loading { fraction: *fraction }],
        _ => Vec::new(),
    }
}

/// Of a router whether the model is about to be loaded; of one with a single model whether that is the one.
fn of_llama_server(list: &Value, model: &str) -> Vec<GenEvent> {
    let items: Vec<&Value> = list.get("data").and_then(Value::as_array).into_iter().flatten().collect();
    let aliases = |item: &Value| -> Vec<String> {
        let aliases = item.get("aliases").and_then(Value::as_array).into_iter().flatten();
        let names = item.get("id").into_iter().chain(aliases);
        names.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    if items.iter().any(|item| item.get("status").is_some()) {
        let entries = catalogue::entries(list).unwrap_or_default();
        let meant =
            items.iter().map(|item| aliases(item)).find(|names| names.iter().any(|name| name == model));
        return meant
            .and_then(|names| names.first().cloned())
            .map(|id| load_of(&entries, &id))
            .unwrap_or_default();
    }
    let [only] = items.as_slice() else { return Vec::new() };
    let names = aliases(only);
    match names.first() {
        Some(answers) if !names.iter().any(|name| is_same_model(model, name)) => {
            vec![GenEvent::Note(Note::OtherModel { asked: model.to_owned(), answers: answers.clone() })]
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;
    use serde_json::json;

    #[test]
    fn one_model_answers_whatever_it_is_called() {
        let single = json!({"models": [{"name": "fixture.gguf"}],
            "data": [{"id": "fixture.gguf", "aliases": ["tiny"], "owned_by": "llamacpp", "meta": {"n_ctx": 1}}]});
        for name in ["fixture.gguf", "fixture", "tiny"] {
            assert_eq!(of_llama_server(&single, name), [], "{name}");
        }
        let note = Note::OtherModel { asked: "large".to_owned(), answers: "fixture.gguf".to_owned() };
        assert_eq!(of_llama_server(&single, "large"), [GenEvent::Note(note)]);
    }

    #[test]
    fn a_router_loads_what_it_is_asked_for() {
        let item = |id: &str, value: &str| json!({"id": id, "aliases": [format!("{id}-alias")], "status": {"value": value}});
        let router = json!({"data": [item("a", "loaded"), item("b", "unloaded"), item("c", "loading")]});
        let loading = [GenEvent::Loading { fraction: 0.0 }];
        assert_eq!(of_llama_server(&router, "a"), []);
        assert_eq!(of_llama_server(&router, "b"), loading);
        assert_eq!(of_llama_server(&router, "b-alias"), loading);
        assert_eq!(of_llama_server(&router, "c"), loading);
        assert_eq!(of_llama_server(&router, "nowhere"), []);
        for odd in [json!(null), json!({"data": []}), json!({"data": [5]}), json!({"data": [{}, {}]})] {
            assert_eq!(of_llama_server(&odd, "a"), []);
        }
    }
}
