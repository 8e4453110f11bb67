//! Loading, unloading and holding the models of this machine's engine.

use super::engine::{Engine, absolute_model};
use super::http::{HttpError, QUICK, Reach};
use super::{Backend, fault};
use crate::chat::{GenError, GenErrorKind};
use serde_json::{Value, json};

/// How a model is to be loaded. What is left out stays as it is configured, or as it was asked for last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadWish {
    /// Context in tokens.
    pub context: Option<u32>,
    /// Whether it stays whatever else is wanted.
    pub pin: Option<bool>,
    /// Seconds it stays after its last answer; -1 is for ever.
    pub keep_alive: Option<i64>,
}

impl Backend {
    /// The list of models as the server gives it: an array. The engine is started first when it isn't running.
    ///
    /// # Errors
    /// When it can't be reached, refuses, or answers nonsense.
    pub async fn model_list(&self) -> Result<Vec<Value>, GenError> {
        self.ready().await?;
        let list = self.inner.http.get("/v1/models", QUICK).await?;
        match list.get("data").and_then(Value::as_array) {
            Some(models) => Ok(models.clone()),
            None => Err(fault::not_a_chat(
                self.inner.http.backend(),
                self.inner.http.place(),
                &fault::ErrorBody::from_bytes(list.to_string().as_bytes()),
            )),
        }
    }

    /// Begins to load a model and returns its id. How the load goes is in [`Self::model_list`].
    ///
    /// # Errors
    /// When there is no such model, when it does not fit (with the numbers and what would have to go), and for a
    /// server elsewhere.
    pub async fn begin_load(&self, model: &str, wish: LoadWish) -> Result<String, GenError> {
        let mut body = json!({ "model": absolute_model(model) });
        if let Some(body) = body.as_object_mut() {
            body.extend(wish.context.map(|n| ("context".to_owned(), n.into())));
            body.extend(wish.pin.map(|on| ("pin".to_owned(), on.into())));
            body.extend(wish.keep_alive.map(|s| ("keep_alive".to_owned(), s.into())));
        }
        let answer = self.manage("/models/load", &body).await?;
        Ok(answer.get("model").and_then(Value::as_str).unwrap_or(model).to_owned())
    }

    /// Unloads a model, or stops its load. `false` when it was neither resident nor on its way.
    ///
    /// # Errors
    /// When there is no such model, and for a server elsewhere.
    pub async fn unload(&self, model: &str) -> Result<bool, GenError> {
        let (http, _) = self.manageable()?;
        self.ready().await?;
        let body = json!({ "model": absolute_model(model) });
        match http.post("/models/unload", &body, QUICK, Some(model)).await {
            Ok(_) => Ok(true),
            Err(HttpError { reach: Reach::Answered { status: 400 }, .. }) => Ok(false),
            Err(error) => Err(error.error),
        }
    }

    /// Makes a model stay whatever else is wanted, or no longer. It need not be resident.
    ///
    /// # Errors
    /// When there is no such model, and for a server elsewhere.
    pub async fn pin(&self, model: &str, is_pinned: bool) -> Result<(), GenError> {
        let body = json!({ "model": absolute_model(model), "pinned": is_pinned });
        self.manage("/models/pin", &body).await.map(drop)
    }

    async fn manage(&self, route: &str, body: &Value) -> Result<Value, GenError> {
        let (http, _) = self.manageable()?;
        self.ready().await?;
        let model = body.get("model").and_then(Value::as_str);
        Ok(http.post(route, body, QUICK, model).await?)
    }

    fn manageable(&self) -> Result<(&super::Http, &Engine), GenError> {
        match &self.inner.engine {
            Some(engine) => Ok((&self.inner.http, engine)),
            None => Err(GenError::new(
                GenErrorKind::Refused,
                format!(
                    "the models of {} can't be managed from here: only those of this machine's engine can\nleave out --on, or manage them there",
                    self.name()
                ),
            )),
        }
    }
}
