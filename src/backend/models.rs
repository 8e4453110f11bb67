//! The models of a backend: listing them, loading them, and how they are kept.

use super::catalogue::{Entry, entries};
use super::engine::{Engine, absolute_model, wall_ms};
use super::fault::{self, ErrorBody, Origin};
use super::http::{Http, HttpError, QUICK, Reach};
use super::{LoadReason, LoadWish};
use crate::chat::{Change, GenError, GenErrorKind, ModelState};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Between two looks at a load.
const LOOK: Duration = Duration::from_millis(100);
/// For a load that was accepted to show in the list.
const APPEAR: Duration = Duration::from_secs(10);

/// The list of models.
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

/// Loads a model and waits until it is resident; returns its id. `look` is told how the load goes.
pub(super) async fn load(
    http: &Http,
    engine: Option<&Engine>,
    model: &str,
    wish: LoadWish,
    why: LoadReason,
    look: &mut (dyn FnMut(&Entry) + Send),
) -> Result<String, GenError> {
    let model = if engine.is_some() { absolute_model(model) } else { model.to_owned() };
    let began_ms = wall_ms();
    let result = load_and_wait(http, &model, wish, why, look).await;
    or_death(engine, began_ms, result).await
}

/// Changes how a model is kept. A load is waited for, all else is done when the server says so.
pub(super) async fn change(
    http: &Http,
    engine: Option<&Engine>,
    model: &str,
    change: Change,
) -> Result<(), GenError> {
    let (route, body) = match change {
        Change::Load { context } => {
            let wish = LoadWish { context, ..LoadWish::default() };
            return load(http, engine, model, wish, LoadReason::Asked, &mut |_| {}).await.map(drop);
        }
        Change::Unload => ("unload", json!({})),
        Change::Pin(pinned) => ("pin", json!({ "pinned": pinned })),
        Change::KeepAlive(keep) => ("keep_alive", json!({ "seconds": keep.seconds() })),
    };
    let began_ms = wall_ms();
    let result = tell(http, engine, model, route, body).await;
    or_death(engine, began_ms, result).await
}

/// Unloads a model, or stops its load. `false` when it was neither resident nor on its way.
pub(super) async fn unload(http: &Http, engine: Option<&Engine>, model: &str) -> Result<bool, GenError> {
    let began_ms = wall_ms();
    let result = match tell(http, engine, model, "unload", json!({})).await {
        Ok(()) => Ok(true),
        Err(HttpError { reach: Reach::Answered { status: 400 }, .. }) => Ok(false),
        Err(error) => Err(error),
    };
    or_death(engine, began_ms, result).await
}

/// Tells a server of a change that is done when it answers: `body`, and the model, to `/models/DEED`.
async fn tell(
    http: &Http,
    engine: Option<&Engine>,
    model: &str,
    deed: &str,
    mut body: Value,
) -> Result<(), HttpError> {
    let model = if engine.is_some() { absolute_model(model) } else { model.to_owned() };
    if let Some(body) = body.as_object_mut() {
        body.insert("model".to_owned(), model.clone().into());
    }
    let route = format!("/models/{deed}");
    http.post(&route, &body, QUICK, Some(&model)).await.map(drop).map_err(|error| match error.reach {
        Reach::Answered { status: 404 | 405 | 501 } if error.error.kind != GenErrorKind::Model => {
            let message = format!(
                "{} can't be told to {} a model\nit manages its models itself: look at its settings",
                http.backend(),
                deed.trim_end_matches("_alive")
            );
            HttpError { error: GenError::new(GenErrorKind::Refused, message), ..error }
        }
        _ => error,
    })
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
    http: &Http,
    model: &str,
    wish: LoadWish,
    why: LoadReason,
    look: &mut (dyn FnMut(&Entry) + Send),
) -> Result<String, HttpError> {
    let failed = |why: &str| HttpError {
        error: GenError::new(
            GenErrorKind::Model,
            format!("{} can't load {model}: {why}\nchoose another model", http.backend()),
        ),
        reach: Reach::Answered { status: 200 },
    };
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
                    let message = format!(
                        "{} can't be told to load a model: it loads one when it is asked a question\nsend the question",
                        http.backend()
                    );
                    Err(HttpError { error: GenError::new(GenErrorKind::Refused, message), ..error })
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
            Some(ModelState::Failed { reason }) => return Err(failed(&fault::foreign_words(reason))),
            Some(ModelState::Loading { .. }) => missing_since = Instant::now(),
            Some(ModelState::Unloaded | ModelState::Unknown) | None => {
                if missing_since.elapsed() > APPEAR {
                    return Err(failed("it took the request, but the model does not become resident"));
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
