//! How many tokens a prompt has, before it is sent: asked of servers that count without answering, and counted here
//! by a `tokenizer.json` where there is one. Nothing is loaded or woken for it.

mod file;

pub use file::{TokenizerFile, find_tokenizer};

use super::catalogue::entries;
use super::http::{HttpError, QUICK, Reach};
use super::{Backend, Inner, models, openai};
use crate::chat::{GenError, GenRequest, ModelState};
use crate::config::BackendKind;
use serde_json::{Value, json};
use std::time::Duration;

/// For a look at what is resident.
const GLANCE: Duration = Duration::from_secs(2);

impl Backend {
    /// Tokens of the prompt this request becomes, by the server's own tokenizer and template. None where the server
    /// doesn't count, or would have to load the model for it. What was counted is remembered: the answer to the same
    /// prompt says so when less of it was read.
    ///
    /// # Errors
    /// When it can't be reached or refuses.
    pub async fn count(&self, request: &GenRequest) -> Result<Option<u32>, GenError> {
        let inner = &*self.inner;
        if let Some(known) = inner.known.count(request) {
            return Ok(Some(known));
        }
        if let Some(engine) = &inner.engine
            && engine.status(&inner.http).await?.is_none()
        {
            return Ok(None);
        }
        let counted = match inner.known.find(&inner.http).await?.kind {
            BackendKind::Duet | BackendKind::LlamaServer => by_llama_server(inner, request).await,
            BackendKind::Vllm => by_vllm(inner, request).await,
            BackendKind::Ollama
            | BackendKind::Mlx
            | BackendKind::LmStudio
            | BackendKind::LlamaSwap
            | BackendKind::TensorrtLlm
            | BackendKind::Openai => Ok(None),
        };
        if let Ok(Some(tokens)) = counted {
            inner.known.remember_count(request, tokens);
        }
        Ok(counted?)
    }

    /// How many answers a model is at work on; none where the server doesn't say. After a cancelled answer it shows that
    /// the server has stopped. Wakes and loads nothing.
    ///
    /// # Errors
    /// When it can't be reached or refuses.
    pub async fn running(&self, model: &str) -> Result<Option<u32>, GenError> {
        let inner = &*self.inner;
        if let Some(engine) = &inner.engine
            && engine.status(&inner.http).await?.is_none()
        {
            return Ok(None);
        }
        match inner.known.find(&inner.http).await?.kind {
            BackendKind::Duet => {
                let entries = models::list(&inner.http).await?;
                let entry = entries.into_iter().find(|entry| entry.card.id == model);
                Ok(entry.and_then(|entry| entry.residency?.running))
            }
            BackendKind::LlamaServer if is_awake(inner, model).await? => {
                let route = format!("/slots?autoload=false&model={}", in_query(model));
                let slots = absent(inner.http.get(&route, GLANCE).await)?;
                let is_at_work =
                    |slot: &&Value| slot.get("is_processing").and_then(Value::as_bool) == Some(true);
                let count = |slots: &Vec<Value>| u32::try_from(slots.iter().filter(is_at_work).count()).ok();
                Ok(slots.as_ref().and_then(Value::as_array).and_then(count))
            }
            _ => Ok(None),
        }
    }
}

/// A model's id in a query.
fn in_query(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(byte);
    text.bytes()
        .map(|byte| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// An answer that says that the server has no such thing is none.
fn absent(result: Result<Value, HttpError>) -> Result<Option<Value>, HttpError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(HttpError { reach: Reach::Answered { status: 400 | 404 | 405 | 501 | 503 }, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a model of an engine of ours or a llama-server is in memory and would not have to be fetched back.
async fn is_awake(inner: &Inner, model: &str) -> Result<bool, HttpError> {
    let Some(list) = absent(inner.http.get("/v1/models", GLANCE).await)? else { return Ok(false) };
    let items: Vec<&Value> = list.get("data").and_then(Value::as_array).into_iter().flatten().collect();
    let status =
        |item: &Value| item.get("status").and_then(|status| status.get("value")?.as_str().map(str::to_owned));
    if items.iter().any(|item| item.get("status").is_some()) {
        let names = |item: &Value| {
            let aliases = item.get("aliases").and_then(Value::as_array).into_iter().flatten();
            item.get("id").into_iter().chain(aliases).any(|name| name == model)
        };
        let meant = items.iter().find(|item| names(item));
        return Ok(meant.and_then(|item| status(item)).as_deref() == Some("loaded"));
    }
    let is_loaded = entries(&list).is_some_and(|all| all.iter().any(|e| e.card.state == ModelState::Loaded));
    // One with a single model may have sent it away.
    let look = inner.http.look("/props", GLANCE).await?;
    let is_asleep = look.json().get("is_sleeping").and_then(Value::as_bool).unwrap_or_default();
    Ok(is_loaded && !is_asleep)
}

async fn by_llama_server(inner: &Inner, request: &GenRequest) -> Result<Option<u32>, HttpError> {
    if !is_awake(inner, &request.model).await? {
        return Ok(None);
    }
    let post = |route: &'static str, body: Value| async move {
        absent(inner.http.post(&format!("{route}?autoload=false"), &body, QUICK, Some(&request.model)).await)
    };
    let chat = json!({ "model": request.model, "messages": request.messages });
    if let Some(answer) = post("/v1/chat/completions/input_tokens", chat.clone()).await? {
        return Ok(number(answer.get("input_tokens")));
    }
    // Older ones render and count in two steps.
    let Some(rendered) = post("/apply-template", chat).await? else { return Ok(None) };
    let Some(prompt) = rendered.get("prompt").and_then(Value::as_str) else { return Ok(None) };
    let text =
        json!({ "model": request.model, "content": prompt, "add_special": true, "parse_special": true });
    let tokens = post("/tokenize", text).await?;
    let count = |tokens: &Vec<Value>| u32::try_from(tokens.len()).ok();
    Ok(tokens.and_then(|answer| answer.get("tokens").and_then(Value::as_array).and_then(count)))
}

async fn by_vllm(inner: &Inner, request: &GenRequest) -> Result<Option<u32>, HttpError> {
    let chat = openai::chat_request(request, BackendKind::Vllm);
    let mut body = json!({ "model": request.model, "messages": request.messages });
    if let Some(body) = body.as_object_mut() {
        for name in ["continue_final_message", "add_generation_prompt"] {
            body.extend(chat.get(name).map(|value| (name.to_owned(), value.clone())));
        }
    }
    let answer = absent(inner.http.post("/tokenize", &body, QUICK, Some(&request.model)).await)?;
    Ok(answer.and_then(|answer| number(answer.get("count"))))
}

fn number(value: Option<&Value>) -> Option<u32> {
    value?.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0)
}
