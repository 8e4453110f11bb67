//! A loaded model, as the rest of the engine sees it.

use super::companions::Draft;
use super::lock;
use super::registry::Moments;
use crate::chat::{GenError, GenErrorKind};
use crate::engine::gguf::ModelInfo;
use crate::engine::job::{Command, Commands, EmbedJob, Job};
use crate::engine::llama::LoadOptions;
use crate::engine::residency::budget::Held;
use crate::engine::residency::footprint::Footprint;
use crate::engine::stats::Stats;
use crate::engine::template::Template;
use llama_cpp_2::model::LlamaModel;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};

/// A loaded model.
#[derive(Debug)]
pub struct Resident {
    /// Its id.
    pub id: String,
    /// Its file.
    pub path: PathBuf,
    /// llama.cpp's model, for its vocabulary; the context belongs to the model's thread.
    pub model: Arc<LlamaModel>,
    /// Its chat template, compiled.
    pub template: Template,
    /// What its file says.
    pub info: ModelInfo,
    /// The model that guesses for it.
    pub(super) draft: Option<Draft>,
    /// Context and slots in force.
    pub options: LoadOptions,
    /// What it was loaded with, as it was allocated.
    pub(super) held: Held,
    /// What its projector takes once it is open.
    pub(super) projector: Footprint,
    /// How long loading took.
    pub load_ms: f64,
    /// Counters.
    pub stats: Arc<Stats>,
    /// Larger is later.
    pub last_used: AtomicU64,
    pub(super) commands: Commands,
    pub(super) moments: Mutex<Moments>,
    /// Set when its thread has ended.
    pub(super) has_ended: Arc<AtomicBool>,
    #[cfg(feature = "mtmd")]
    pub(super) eyes: std::sync::OnceLock<Result<Arc<crate::engine::vision::Eyes>, String>>,
}

impl Resident {
    /// The id of the model that guesses for it.
    #[must_use]
    pub fn draft_model(&self) -> Option<&str> {
        self.draft.as_ref().map(|draft| draft.id.as_str())
    }

    /// What it holds now.
    #[must_use]
    pub fn allocated(&self) -> Held {
        let mut held = self.held.clone();
        if self.sees() {
            held.footprint.add(&self.projector);
        }
        held
    }

    /// Whether its projector is open.
    fn sees(&self) -> bool {
        #[cfg(feature = "mtmd")]
        return self.eyes.get().is_some_and(Result::is_ok);
        #[cfg(not(feature = "mtmd"))]
        false
    }

    /// What it may come to hold: nobody else gets it.
    pub(super) fn reserved(&self) -> Footprint {
        let mut reserved = self.held.footprint.clone();
        reserved.add(&self.projector);
        reserved
    }

    /// What lets it see; loaded when it is asked for the first time.
    ///
    /// # Errors
    /// Two lines: there is no projector beside it, or it can't be used.
    #[cfg(feature = "mtmd")]
    pub fn eyes(&self) -> Result<Arc<crate::engine::vision::Eyes>, String> {
        let open = || {
            let projector = crate::engine::vision::projector(&self.path).ok_or_else(|| {
                format!("`{}` can't see: there is no projector (mmproj) beside it", self.id)
            })?;
            crate::engine::vision::Eyes::open(&self.model, &self.path, &projector, self.options.threads)
        };
        self.eyes.get_or_init(open).clone()
    }

    /// Gives the model's thread a job.
    ///
    /// # Errors
    /// When the thread has ended.
    pub fn submit(&self, job: Job) -> Result<(), GenError> {
        self.tell(Command::Generate(Box::new(job)))
    }

    /// Gives the thread of an embedding model texts.
    ///
    /// # Errors
    /// When the thread has ended.
    pub fn embed(&self, job: EmbedJob) -> Result<(), GenError> {
        self.tell(Command::Embed(Box::new(job)))
    }

    fn tell(&self, command: Command) -> Result<(), GenError> {
        self.commands.send(command).map_err(|_| {
            GenError::new(
                GenErrorKind::EngineDied,
                format!("the thread of `{}` has ended. Send again to load it anew", self.id),
            )
        })
    }

    /// Tells the model's thread to end: its jobs fail, the memory of its context is freed.
    pub(super) fn end(&self) {
        let _ = self.commands.send(Command::Unload);
    }

    pub(super) fn moments(&self) -> Moments {
        *lock(&self.moments)
    }
}

impl Drop for Resident {
    fn drop(&mut self) {
        self.end();
    }
}
