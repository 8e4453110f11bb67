//! How Ollama keeps models: a question without a prompt loads one, with a `keep_alive` of 0 it unloads it.

use crate::backend::LoadWish;
use crate::backend::fault::{self, ErrorBody};
use crate::backend::http::{Http, HttpError, QUICK, Reach};
use crate::chat::{GenError, GenErrorKind, KeepAlive};
use serde_json::{Value, json};
use std::time::Duration;

/// For a load: nothing is heard of it until it is over.
const LOAD: Duration = Duration::from_secs(30 * 60);

/// Loads a model; returns when it is resident.
///
/// # Errors
/// When it can't be loaded.
pub(in crate::backend) async fn load(http: &Http, model: &str, wish: LoadWish) -> Result<(), HttpError> {
    let mut body = json!({ "model": model, "stream": false });
    if let Some(body) = body.as_object_mut() {
        body.extend(wish.keep_alive.map(|seconds| ("keep_alive".to_owned(), json!(seconds))));
        body.extend(wish.context.map(|tokens| ("options".to_owned(), json!({ "num_ctx": tokens }))));
    }
    tell(http, model, &body, LOAD).await
}

/// Unloads a model. `false` when it wasn't resident.
///
/// # Errors
/// When there is no such model.
pub(in crate::backend) async fn unload(http: &Http, model: &str) -> Result<bool, HttpError> {
    let was_resident = super::resident(http, model).await.is_none_or(|resident| resident.is_some());
    tell(http, model, &json!({ "model": model, "stream": false, "keep_alive": 0 }), QUICK).await?;
    Ok(was_resident)
}

/// Says when a model leaves after its last use.
///
/// # Errors
/// When it isn't resident: telling would load it. For what it can't be told.
pub(in crate::backend) async fn keep_alive(
    http: &Http,
    model: &str,
    keep: KeepAlive,
) -> Result<(), HttpError> {
    let refuse = |why: &str| Err(super::super::models::refused(http, &format!("{model}: {why}")));
    let seconds = match keep {
        KeepAlive::Default => return refuse("what it does by default is not known here\ngive a time, as 5m"),
        KeepAlive::Seconds(0) => {
            return refuse("it would leave at once, not after the next answer\nunload it instead");
        }
        KeepAlive::Seconds(_) | KeepAlive::ForEver => keep.seconds(),
    };
    if super::resident(http, model).await == Some(None) {
        return refuse("it isn't loaded, and telling its server would load it\nload it first");
    }
    tell(http, model, &json!({ "model": model, "stream": false, "keep_alive": seconds }), LOAD).await
}

async fn tell(http: &Http, model: &str, body: &Value, patience: Duration) -> Result<(), HttpError> {
    let answer = http.post("/api/generate", body, patience, Some(model)).await?;
    match ErrorBody::from_json(&answer) {
        None => Ok(()),
        Some(error) => Err(HttpError {
            error: GenError::new(
                GenErrorKind::Model,
                fault::refusal(http.backend(), Some(model), 500, &error, http.origin()).message,
            ),
            reach: Reach::Answered { status: 200 },
        }),
    }
}
