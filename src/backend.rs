//! Backends: the engine of this machine and servers elsewhere, driven by one HTTP client.
//!
//! A [`Backend`] is a cheap handle. [`Backend::generate`] gives a stream of events; dropping the stream
//! closes the connection, which cancels. Nothing is retried and nothing redirected.

use crate::chat::{GenError, GenErrorKind, GenEvent, GenRequest, ModelCard};
use crate::config::Config;
use crate::paths::Paths;
use futures_util::Stream;
mod catalogue;
mod fault;
mod openai;
mod sse;
mod think;

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

/// The events of one generation; ends after exactly one `Done` or `Failed`. Dropping it cancels.
pub type GenStream = Pin<Box<dyn Stream<Item = GenEvent> + Send>>;

/// The name of this machine's engine among the backends.
pub const LOCAL: &str = "local";

/// All backends, in order of preference.
#[derive(Clone, Debug)]
pub struct Backends {
    all: Vec<Backend>,
}

impl Backends {
    /// Makes handles for the engine (if this build has one) and every configured server. No IO.
    /// `config_file` is passed on to an engine that has to be started.
    ///
    /// # Errors
    /// One line naming the backend whose URL is no good.
    pub fn new(_config: &Config, _paths: &Paths, _config_file: Option<&Path>) -> Result<Self, String> {
        Ok(Self { all: Vec::new() })
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[Backend] {
        &self.all
    }

    /// The one with this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Backend> {
        self.all.iter().find(|b| b.name() == name)
    }
}

/// One backend.
#[derive(Clone, Debug)]
pub struct Backend {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    engine: Option<PathBuf>,
}

/// News of the engine process, for those who stay connected.
#[derive(Clone, Debug, PartialEq)]
pub enum EngineEvent {
    /// It is being started.
    Starting,
    /// It answers; these are its models.
    Ready(Vec<ModelCard>),
    /// Its models changed state.
    Models(Vec<ModelCard>),
    /// It ended: one or two lines with its last words, and the ids of the models that were resident.
    Died {
        /// What happened and what to do.
        message: String,
        /// Ids to load again.
        residents: Vec<String>,
    },
    /// It could not be started: one or two lines.
    Failed(String),
}

impl Backend {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Whether it is the engine of this machine.
    #[must_use]
    pub fn is_engine(&self) -> bool {
        self.inner.engine.is_some()
    }

    /// The model it answers with when none is named.
    #[must_use]
    pub fn default_model(&self) -> Option<&str> {
        None
    }

    /// Generates. The engine is started first when it isn't running.
    #[must_use]
    pub fn generate(&self, _request: GenRequest) -> GenStream {
        Box::pin(futures_util::stream::once(async {
            GenEvent::Failed(GenError::new(GenErrorKind::Unreachable, "not written"))
        }))
    }

    /// The models it has.
    ///
    /// # Errors
    /// When it can't be reached, refuses, or answers nonsense.
    pub async fn models(&self) -> Result<Vec<ModelCard>, GenError> {
        Ok(Vec::new())
    }

    /// Loads a model; returns when it is resident.
    ///
    /// # Errors
    /// As [`Self::models`], and when the model can't be loaded.
    pub async fn load(&self, _model: &str) -> Result<(), GenError> {
        Ok(())
    }

    /// Starts the engine if needed, stays connected (which keeps the engine from lingering out) and tells
    /// what happens to it. Ends after `Died` or `Failed`; call it again to start the engine anew.
    /// For a server elsewhere: an empty stream.
    #[must_use]
    pub fn watch(&self) -> Pin<Box<dyn Stream<Item = EngineEvent> + Send>> {
        Box::pin(futures_util::stream::empty())
    }
}
