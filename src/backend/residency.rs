//! Loading and unloading models as the command line asks for it.

use super::catalogue::{Entry, as_ours};
use super::{Backend, LoadReason, models};
use crate::chat::{GenError, ModelState};
use crate::config::BackendKind;
use serde_json::Value;

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
    /// The list of models, in the shape an engine of ours gives it: what one says of itself, and what others tell put
    /// into the same words. The engine is started first when it isn't running.
    ///
    /// # Errors
    /// When it can't be reached, refuses, or answers nonsense.
    pub async fn model_list(&self) -> Result<Vec<Value>, GenError> {
        self.ready().await?;
        let inner = &self.inner;
        if inner.known.find(&inner.http).await?.kind == BackendKind::Duet {
            return Ok(models::raw_list(&inner.http).await?);
        }
        Ok(models::of_dialect(inner).await?.iter().map(as_ours).collect())
    }

    /// Loads a model as wished and returns its id when it is resident. `progress` is told of it meanwhile: the part
    /// that is done, from 0 to 1, and bytes done and in all where the server says.
    ///
    /// # Errors
    /// When there is no such model, when it does not fit (with the numbers and what would have to go), and when the
    /// load ended the engine.
    pub async fn load_as(
        &self,
        model: &str,
        wish: LoadWish,
        mut progress: impl FnMut(f32, Option<(u64, u64)>) + Send,
    ) -> Result<String, GenError> {
        self.ready().await?;
        let mut look = |entry: &Entry| {
            if let ModelState::Loading { fraction } = entry.card.state {
                progress(fraction, entry.residency.as_ref().and_then(|kept| kept.loading));
            }
        };
        models::load(&self.inner, model, wish, LoadReason::Asked, &mut look).await
    }

    /// Unloads a model, or stops its load. `false` when it was neither resident nor on its way.
    ///
    /// # Errors
    /// As [`Backend::change`].
    pub async fn unload(&self, model: &str) -> Result<bool, GenError> {
        self.ready().await?;
        models::unload(&self.inner, model).await
    }
}
