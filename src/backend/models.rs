//! The models of a backend: listing them, loading them, and how they are kept. What each kind of server can't be told
//! is refused in its words.

use super::catalogue::{Entry, entries};
use super::dialect::Identity;
use super::engine::{Engine, absolute_model, wall_ms};
use super::fault::{self, ErrorBody, Origin};
use super::http::{Http, HttpError, QUICK, Reach};
use super::{Inner, LoadReason, LoadWish, lmstudio, ollama, openai, swap};
use crate::chat::{Change, GenError, GenErrorKind, ModelState};
use crate::config::BackendKind;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Between two looks at a load.
const LOOK: Duration = Duration::from_millis(100);
/// For a load that was accepted to show in the list.
const APPEAR: Duration = Duration::from_secs(10);

/// The list of models of an engine of ours, or of a server that speaks like it.
pub(super) async fn list(http: &Http) -> Result<Vec<Entry>, HttpError> {
    let list = http.get("/v1/models", QUICK).await?;
    entries(&list).ok_or_else(|| no_list(http, &list))
}

/// The list of models as the server gives it: an array.
pub(super) async fn raw_list(http: &Http) -> Result<Vec<Value>, HttpError> {
    let list = http.get("/v1/models", QUICK).await?;
    list.get("data").and_then(Value::as_array).cloned().ok_or_else(|| no_list(http, &list))
}

fn no_list(http: &Http, answer: &Value) -> HttpError {
    let body = ErrorBody::from_bytes(answer.to_string().as_bytes());
    HttpError {
        error: fault::not_a_chat(http.backend(), http.place(), &body),
        reach: Reach::Answered { status: 200 },
    }
}

/// The list of models of any server, by its own dialect. One that answers otherwise than its kind is looked at anew.
pub(super) async fn of_dialect(inner: &Inner) -> Result<Vec<Entry>, HttpError> {
    let (http, known) = (&inner.http, &inner.known);
    let identity = known.find_now(http).await?;
    let first = fetch(inner, &identity).await;
    let is_surprise = match &first {
        Ok(fetched) => !fetched.is_like_its_kind && !known.is_odd(),
        Err(error) => matches!(error.reach, Reach::Answered { status: 200 | 404 | 405 }),
    };
    if matches!(&first, Err(error) if !error.reach.is_answered()) {
        known.forget();
    }
    let fetched = match if is_surprise { known.replaced(http).await } else { None } {
        Some(other) => fetch(inner, &other).await?,
        None => first?,
    };
    known.remember(&fetched.entries);
    Ok(fetched.entries)
}

struct Fetched {
    entries: Vec<Entry>,
    is_like_its_kind: bool,
}

async fn fetch(inner: &Inner, identity: &Identity) -> Result<Fetched, HttpError> {
    let http = &inner.http;
    let own = match identity.kind {
        BackendKind::Ollama => ollama::listing::fetch(http, &inner.known).await?,
        BackendKind::LmStudio => lmstudio::fetch(http).await?,
        BackendKind::LlamaSwap => swap::fetch(http).await?,
        BackendKind::Mlx => return of_mlx(http).await,
        kind => {
            let list = http.get("/v1/models", QUICK).await?;
            let mut entries = entries(&list).ok_or_else(|| no_list(http, &list))?;
            if matches!(kind, BackendKind::Vllm | BackendKind::TensorrtLlm) {
                // What it lists is what it was started with.
                entries.iter_mut().for_each(|entry| entry.card.state = ModelState::Loaded);
            }
            return Ok(Fetched { entries, is_like_its_kind: is_like(kind, &list) });
        }
    };
    match own {
        Some(entries) => Ok(Fetched { entries, is_like_its_kind: true }),
        None => Err(no_list(http, &json!({ "error": "a list that is none of its kind" }))),
    }
}

/// The list of `mlx_lm.server`, which is empty, or breaks off, where Hugging Face's cache has nothing for it: then there
/// is the model it was started with.
async fn of_mlx(http: &Http) -> Result<Fetched, HttpError> {
    let look = http.look("/v1/models", QUICK).await?;
    let list = look.json();
    let is_like_its_kind = look.server.starts_with("basehttp") && is_like(BackendKind::Mlx, &list);
    let entries = entries(&list).filter(|entries| !entries.is_empty());
    let entries = match entries {
        Some(entries) => entries,
        None if is_like_its_kind && look.status == 200 => {
            entries_of(&json!({ "data": [{ "id": openai::MLX_STARTED_WITH }] }))
        }
        None => return Err(no_list(http, &list)),
    };
    Ok(Fetched { entries, is_like_its_kind })
}

fn entries_of(list: &Value) -> Vec<Entry> {
    entries(list).unwrap_or_default()
}

/// Whether a list looks as those of this kind do.
fn is_like(kind: BackendKind, list: &Value) -> bool {
    let items: Vec<&Value> = list.get("data").and_then(Value::as_array).into_iter().flatten().collect();
    let owner = items.iter().find_map(|item| item.get("owned_by")?.as_str()).unwrap_or_default();
    let all = |is_like: fn(&Value) -> bool| items.iter().all(|item| is_like(item));
    match kind {
        BackendKind::LlamaServer => {
            all(|item| item.get("meta").is_some_and(Value::is_object) || item.get("status").is_some())
        }
        BackendKind::Vllm => all(|item| item.get("max_model_len").is_some()),
        BackendKind::TensorrtLlm => items.is_empty() || owner == "tensorrt_llm",
        BackendKind::Mlx => owner.is_empty(),
        BackendKind::Openai => {
            !["vllm", "tensorrt_llm", "llamacpp", "llama-swap", "library"].contains(&owner)
        }
        BackendKind::Duet | BackendKind::Ollama | BackendKind::LmStudio | BackendKind::LlamaSwap => true,
    }
}

/// Loads a model and waits until it is resident; returns its id. `look` is told how the load goes.
pub(super) async fn load(
    inner: &Inner,
    model: &str,
    wish: LoadWish,
    why: LoadReason,
    look: &mut (dyn FnMut(&Entry) + Send),
) -> Result<String, GenError> {
    let (http, engine) = (&inner.http, inner.engine.as_deref());
    let model = if engine.is_some() { absolute_model(model) } else { model.to_owned() };
    let kind = inner.known.find(http).await?.kind;
    let able = kind.abilities();
    if wish.pin == Some(true) && !able.pins {
        return Err(cant(http, kind, "pin").error);
    }
    if wish.context.is_some() && !able.sets_context {
        return Err(cant(http, kind, "load with a context").error);
    }
    if wish.keep_alive.is_some() && !able.keeps_alive {
        return Err(cant(http, kind, "keep").error);
    }
    let began_ms = wall_ms();
    let result = match kind {
        BackendKind::Duet | BackendKind::LlamaServer => load_and_wait(inner, &model, wish, why, look).await,
        BackendKind::Ollama => ollama::manage::load(http, &model, wish).await.map(|()| model),
        BackendKind::LmStudio => lmstudio::load(http, &model, wish).await.map(|()| model),
        BackendKind::LlamaSwap => swap::load(http, &model).await.map(|()| model),
        BackendKind::Mlx | BackendKind::Vllm | BackendKind::TensorrtLlm | BackendKind::Openai => {
            Err(cant(http, kind, "load"))
        }
    };
    or_death(engine, began_ms, noticed(inner, result)).await
}

/// Changes how a model is kept. A load is waited for, all else is done when the server says so.
pub(super) async fn change(inner: &Inner, model: &str, change: Change) -> Result<(), GenError> {
    let kind = inner.known.find(&inner.http).await?.kind;
    let keep = match change {
        Change::Load { context } => {
            let wish = LoadWish { context, ..LoadWish::default() };
            return load(inner, model, wish, LoadReason::Asked, &mut |_| {}).await.map(drop);
        }
        Change::Unload if matches!(kind, BackendKind::Duet | BackendKind::LlamaServer) => {
            ("unload", json!({}))
        }
        Change::Unload => {
            return match unload(inner, model).await? {
                true => Ok(()),
                false => Err(refused(&inner.http, &format!("`{model}` is not loaded")).error),
            };
        }
        Change::Pin(_) if !kind.abilities().pins => return Err(cant(&inner.http, kind, "pin").error),
        Change::KeepAlive(_) if !kind.abilities().keeps_alive => {
            return Err(cant(&inner.http, kind, "keep").error);
        }
        Change::Pin(pinned) => ("pin", json!({ "pinned": pinned })),
        Change::KeepAlive(keep) if kind == BackendKind::Ollama => {
            let result = ollama::manage::keep_alive(&inner.http, model, keep).await;
            return noticed(inner, result).map_err(|error| error.error);
        }
        Change::KeepAlive(keep) => ("keep_alive", json!({ "seconds": keep.seconds() })),
    };
    let began_ms = wall_ms();
    let result = tell(inner, kind, model, keep.0, keep.1).await;
    or_death(inner.engine.as_deref(), began_ms, noticed(inner, result)).await
}

/// Unloads a model, or stops its load. `false` when it was neither resident nor on its way.
pub(super) async fn unload(inner: &Inner, model: &str) -> Result<bool, GenError> {
    let http = &inner.http;
    let kind = inner.known.find(http).await?.kind;
    let began_ms = wall_ms();
    let result = match kind {
        BackendKind::Duet | BackendKind::LlamaServer => {
            match tell(inner, kind, model, "unload", json!({})).await {
                Ok(()) => Ok(true),
                Err(HttpError { reach: Reach::Answered { status: 400 }, .. }) => Ok(false),
                Err(error) => Err(error),
            }
        }
        BackendKind::Ollama => ollama::manage::unload(http, model).await,
        BackendKind::LmStudio => lmstudio::unload(http, model).await,
        BackendKind::LlamaSwap => swap::unload(http, model).await,
        BackendKind::Mlx | BackendKind::Vllm | BackendKind::TensorrtLlm | BackendKind::Openai => {
            Err(cant(http, kind, "unload"))
        }
    };
    or_death(inner.engine.as_deref(), began_ms, noticed(inner, result)).await
}

/// Tells a server of a change that is done when it answers: `body`, and the model, to `/models/DEED`.
async fn tell(
    inner: &Inner,
    kind: BackendKind,
    model: &str,
    deed: &str,
    mut body: Value,
) -> Result<(), HttpError> {
    let model = if inner.engine.is_some() { absolute_model(model) } else { model.to_owned() };
    if let Some(body) = body.as_object_mut() {
        body.insert("model".to_owned(), model.clone().into());
    }
    let http = &inner.http;
    let route = format!("/models/{deed}");
    http.post(&route, &body, QUICK, Some(&model)).await.map(drop).map_err(|error| match error.reach {
        Reach::Answered { status: 404 | 405 | 501 } if error.error.kind != GenErrorKind::Model => {
            HttpError { reach: error.reach, ..cant(http, kind, deed.trim_end_matches("_alive")) }
        }
        _ => error,
    })
}

/// Takes note of a server that broke off: it may be another one by now.
fn noticed<T>(inner: &Inner, result: Result<T, HttpError>) -> Result<T, HttpError> {
    if matches!(&result, Err(error) if !error.reach.is_answered()) {
        inner.known.forget();
    }
    result
}

/// The refusal of what this kind of server can't be told.
fn cant(http: &Http, kind: BackendKind, deed: &str) -> HttpError {
    use BackendKind as Kind;
    let why = match (kind, deed) {
        (Kind::Ollama, "pin") => "it sends away whatever it likes\nkeep it for ever instead",
        (Kind::LmStudio, "keep") => {
            "it keeps what it was told to load until it is unloaded\nunload it instead"
        }
        (Kind::LlamaServer | Kind::LlamaSwap, "load with a context") => {
            "the context is in its configuration\nload it without one"
        }
        (Kind::LlamaServer, "pin" | "keep") | (Kind::LlamaSwap, _) => {
            "that is in its configuration\nlook at its settings"
        }
        (Kind::LlamaServer, _) => "it has the one it was started with\nstart it as a router, or with another",
        (Kind::Vllm | Kind::TensorrtLlm, _) => "it has the one it was started with\nstart it with another",
        (Kind::Mlx, "load" | "load with a context") | (Kind::Openai, "load") => {
            "it loads one when it is asked a question\nsend the question"
        }
        (Kind::Mlx, _) => "it holds one until it is asked for another\nend it there",
        _ => "it manages its models itself\nlook at its settings",
    };
    let deed = match deed {
        "load with a context" => "load a model with a context".to_owned(),
        deed => format!("{deed} a model"),
    };
    refused(http, &format!("{} can't be told to {deed}: {why}", http.backend()))
}

/// A refusal of ours.
pub(super) fn refused(http: &Http, message: &str) -> HttpError {
    tracing::debug!(backend = http.backend(), message, "not asked");
    HttpError { error: GenError::new(GenErrorKind::Refused, message), reach: Reach::Answered { status: 501 } }
}

/// The error for a load whose answer is none.
pub(super) fn cant_load(http: &Http, model: &str, answer: &Value) -> HttpError {
    let body = ErrorBody::from_bytes(answer.to_string().as_bytes());
    let why =
        fault::foreign_words(if body.message.is_empty() { "it doesn't say why" } else { &body.message });
    HttpError {
        error: GenError::new(
            GenErrorKind::Model,
            format!("{} can't load {model}: {why}\nchoose another model", http.backend()),
        ),
        reach: Reach::Answered { status: 200 },
    }
}

/// An engine that did not answer may have died of it: then that is what went wrong.
async fn or_death<T>(
    engine: Option<&Engine>,
    began_ms: u64,
    result: Result<T, HttpError>,
) -> Result<T, GenError> {
    match (result, engine) {
        (Err(error), Some(engine)) if !error.reach.is_answered() => {
            Err(match engine.death_since(began_ms).await {
                Some(death) => GenError::new(GenErrorKind::EngineDied, death.message),
                None => error.error,
            })
        }
        (result, _) => result.map_err(|error| error.error),
    }
}

async fn load_and_wait(
    inner: &Inner,
    model: &str,
    wish: LoadWish,
    why: LoadReason,
    look: &mut (dyn FnMut(&Entry) + Send),
) -> Result<String, HttpError> {
    let http = &inner.http;
    let mut body = json!({ "model": model });
    if let Some(body) = body.as_object_mut() {
        body.extend(wish.context.map(|tokens| ("context".to_owned(), tokens.into())));
        body.extend(wish.pin.map(|on| ("pin".to_owned(), on.into())));
        body.extend(wish.keep_alive.map(|seconds| ("keep_alive".to_owned(), seconds.into())));
        body.extend((why == LoadReason::Restored).then(|| ("restore".to_owned(), true.into())));
    }
    let answer = match http.post("/models/load", &body, QUICK, Some(model)).await {
        Ok(answer) => answer,
        Err(error) => {
            // llama-server refuses to load what is loaded.
            let is_loaded = error.reach.is_answered()
                && list(http).await.is_ok_and(|all| {
                    all.iter().any(|e| names(e, model) && e.card.state == ModelState::Loaded)
                });
            return match error.reach {
                _ if is_loaded => Ok(model.to_owned()),
                Reach::Answered { status: 404 | 405 | 501 } if error.error.kind != GenErrorKind::Model => {
                    // A router says no more than 404 of a model it hasn't got.
                    let is_router =
                        raw_list(http).await.is_ok_and(|all| all.iter().any(|i| i.get("status").is_some()));
                    let kind = inner.known.identity().map_or(BackendKind::Openai, |identity| identity.kind);
                    Err(if is_router && kind == BackendKind::LlamaServer {
                        cant_load(http, model, &json!({ "error": "it has no model of that name" }))
                    } else {
                        HttpError { reach: error.reach, ..cant(http, kind, "load") }
                    })
                }
                _ => Err(error),
            };
        }
    };
    // The server may know a path by another name.
    let id = answer.get("model").and_then(Value::as_str).unwrap_or(model).to_owned();
    let mut missing_since = Instant::now();
    loop {
        let all = list(http).await?;
        let entry = all.iter().find(|entry| names(entry, &id));
        if let Some(entry) = entry {
            look(entry);
        }
        match entry.map(|entry| &entry.card.state) {
            Some(ModelState::Loaded) => return Ok(entry.map_or(id, |entry| entry.card.id.clone())),
            Some(ModelState::Failed { reason }) if http.origin() == Origin::Engine => {
                let error = GenError::new(GenErrorKind::Model, fault::engine_words(reason));
                return Err(HttpError { error, reach: Reach::Answered { status: 200 } });
            }
            Some(ModelState::Failed { reason }) => {
                return Err(cant_load(http, model, &json!({ "error": reason })));
            }
            Some(ModelState::Loading { .. }) => missing_since = Instant::now(),
            Some(ModelState::Unloaded | ModelState::Unknown) | None => {
                if missing_since.elapsed() > APPEAR {
                    let why =
                        json!({ "error": "it took the request, but the model does not become resident" });
                    return Err(cant_load(http, model, &why));
                }
            }
        }
        sleep(LOOK).await;
    }
}

/// Whether this is the model meant by an id or a path.
fn names(entry: &Entry, model: &str) -> bool {
    let same_file = |path: &String| {
        path == model
            || (model.starts_with('/')
                && std::fs::canonicalize(model).is_ok_and(|real| Path::new(path) == real))
    };
    entry.card.id == model || entry.path.as_ref().is_some_and(same_file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_tell_their_kind() {
        use BackendKind::{LlamaServer, Mlx, Openai, TensorrtLlm, Vllm};
        let of = |item: Value| json!({ "data": [item] });
        let single = of(json!({"id": "a", "owned_by": "llamacpp", "meta": {"n_ctx": 1}}));
        let router = of(json!({"id": "a", "owned_by": "llamacpp", "status": {"value": "unloaded"}}));
        let vllm = of(json!({"id": "a", "owned_by": "vllm", "max_model_len": 1}));
        let tensorrt = of(json!({"id": "a", "owned_by": "tensorrt_llm"}));
        let ollama = of(json!({"id": "a", "owned_by": "library"}));
        let bare = of(json!({"id": "a"}));
        let lists = [&single, &router, &vllm, &tensorrt, &ollama, &bare];
        for (kind, expected) in [
            (LlamaServer, [true, true, false, false, false, false]),
            (Vllm, [false, false, true, false, false, false]),
            (TensorrtLlm, [false, false, false, true, false, false]),
            (Mlx, [false, false, false, false, false, true]),
            (Openai, [false, false, false, false, false, true]),
        ] {
            assert_eq!(lists.map(|list| is_like(kind, list)), expected, "{kind:?}");
            assert!(is_like(kind, &json!({"data": []})), "an empty list is anybody's");
        }
    }
}
