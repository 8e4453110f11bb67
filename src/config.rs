//! The configuration: one total value, defaults filled in. Loading and its errors are in [`mod@file`], changes
//! by the program in [`edit`].

mod abilities;
pub mod address;
mod backends;
pub mod edit;
pub mod file;
pub mod fingerprint;
pub mod pool;
mod routing;
mod serve;
mod units;

pub use abilities::{Abilities, Continues};
pub use backends::{BackendConfig, BackendKind};
pub use routing::{AliasConfig, Fallback, Pick, Policy, PrivacyConfig, QuietHours, RouteConfig, WarmConfig};
pub use serve::{ServeConfig, ServeLimits};
pub use units::{ByteSize, GpuLayers};

use crate::chat::Sampling;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Everything a person can set. Every field has a default that is right without a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Default target: `backend/model`, `backend`, `model` or a path. None: the built-in model.
    pub model: Option<String>,
    /// Name of a theme in `themes/` or the user's folder.
    pub theme: String,
    /// Default system prompt. None: the model's own default.
    pub system: Option<String>,
    /// Whether sessions are saved.
    pub save: bool,
    /// Upper bound on output tokens; none: the engine's.
    pub max_tokens: Option<u32>,
    /// Default sampling.
    pub sampling: Sampling,
    /// The engine of this machine.
    pub engine: EngineConfig,
    /// The engine for other machines.
    pub serve: ServeConfig,
    /// One model over several machines.
    pub pool: pool::PoolConfig,
    /// Copying.
    pub clipboard: ClipboardConfig,
    /// Where turns go.
    pub route: RouteConfig,
    /// Getting ready while the person types.
    pub warm: WarmConfig,
    /// What never leaves this machine.
    pub privacy: PrivacyConfig,
    /// Names for several targets.
    #[serde(rename = "alias", skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<AliasConfig>,
    /// Other servers.
    #[serde(rename = "backend", skip_serializing_if = "Vec::is_empty")]
    pub backends: Vec<BackendConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            model: None,
            theme: "default".to_owned(),
            system: None,
            save: true,
            max_tokens: None,
            sampling: Sampling::default(),
            engine: EngineConfig::default(),
            serve: ServeConfig::default(),
            pool: pool::PoolConfig::default(),
            clipboard: ClipboardConfig::default(),
            route: RouteConfig::default(),
            warm: WarmConfig::default(),
            privacy: PrivacyConfig::default(),
            aliases: Vec::new(),
            backends: Vec::new(),
        }
    }
}

/// Settings of the engine process; read by it when it starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EngineConfig {
    /// Seconds the engine stays after its last client left.
    pub linger: u64,
    /// Context per model in tokens, at most what the model was trained with.
    pub context: u32,
    /// Threads for llama.cpp; 0: physical cores, and one for models of less than 20 million weights.
    pub threads: u32,
    /// Conversations one model serves at once.
    pub slots: u32,
    /// Folders searched for GGUF files, beside `~/models`, the data folder's `models`, and where other programs
    /// keep theirs: Hugging Face's cache, llama.cpp's, LM Studio's and Ollama's.
    pub model_dirs: Vec<PathBuf>,
    /// Main memory models may hold together, as `"20GiB"`. None: what the system has available, less a margin.
    pub memory: Option<ByteSize>,
    /// Seconds a model stays resident after its last answer; -1: for ever, 0: it leaves at once.
    pub keep_alive: i64,
    /// Models loaded when the engine starts, by id.
    pub preload: Vec<String>,
    /// Layers on accelerators: `"auto"`, or how many.
    pub gpu_layers: GpuLayers,
    /// Main memory for conversations that left their slot; 0 keeps none. Beside it, a model that can't take tokens back
    /// (recurrent and hybrid ones) has up to a quarter of that for its checkpoints.
    pub cache_memory: ByteSize,
    /// Room on disk for conversations of sessions, so that they are warm after a restart; 0 keeps none.
    pub cache_disk: ByteSize,
    /// Whether tokens are guessed and checked together.
    pub draft: DraftMode,
    /// Settings of single models.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<EngineModelConfig>,
}

/// Whether tokens are guessed ahead (speculative decoding). What is answered does not depend on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DraftMode {
    /// From repetitions in the context, and by the `draft_model` of a model that has one, where that was measured to
    /// be faster.
    #[default]
    Auto,
    /// Never.
    Off,
}

/// Settings of one model, in `[[engine.models]]`. What is left out is as in `[engine]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EngineModelConfig {
    /// Its id, as `tui models` lists it.
    pub id: String,
    /// Whether it stays resident whatever else is wanted.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub pinned: bool,
    /// Seconds it stays after its last answer; -1: for ever, 0: it leaves at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_alive: Option<i64>,
    /// Context in tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<u32>,
    /// Conversations it serves at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slots: Option<u32>,
    /// A smaller model with the same vocabulary that guesses ahead for it, where that is measured to be faster: its
    /// id, or the path of its file. Loaded and unloaded with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub draft_model: Option<String>,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            linger: 600,
            context: 8192,
            threads: 0,
            slots: 4,
            model_dirs: Vec::new(),
            memory: None,
            keep_alive: 1800,
            preload: Vec::new(),
            gpu_layers: GpuLayers::Auto,
            cache_memory: ByteSize(1 << 30),
            cache_disk: ByteSize(4 << 30),
            draft: DraftMode::Auto,
            models: Vec::new(),
        }
    }
}

/// How copying reaches the clipboard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClipboardConfig {
    /// The way: `auto` picks by environment.
    pub mode: ClipboardMode,
}

/// A way to the clipboard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClipboardMode {
    /// tmux, then OSC 52 over SSH, then the system's, then a file.
    #[default]
    Auto,
    /// The system's clipboard only.
    System,
    /// The terminal, by OSC 52.
    Osc52,
    /// `tmux load-buffer`.
    Tmux,
    /// A file only.
    File,
}

/// Checks that sampling settings are in range, for the file and the command line alike.
///
/// # Errors
/// The setting's name and what is wrong with it, as (`temperature`, `must be between 0 and 5`).
pub fn check_sampling(sampling: &Sampling) -> Result<(), (&'static str, String)> {
    let Sampling {
        temperature,
        top_k,
        top_p,
        min_p,
        repeat_penalty,
        presence_penalty,
        frequency_penalty,
        seed: _,
    } = *sampling;
    let ranges = [
        ("temperature", temperature, 0.0, 5.0),
        ("top_p", top_p, 0.0, 1.0),
        ("min_p", min_p, 0.0, 1.0),
        ("repeat_penalty", repeat_penalty, 0.1, 10.0),
        ("presence_penalty", presence_penalty, -2.0, 2.0),
        ("frequency_penalty", frequency_penalty, -2.0, 2.0),
    ];
    for (name, value, low, high) in ranges {
        if value.is_some_and(|value| !(low..=high).contains(&value)) {
            return Err((name, format!("must be between {low} and {high}")));
        }
    }
    if top_k.is_some_and(|k| k < 0) {
        return Err(("top_k", "must be 0 or more".to_owned()));
    }
    Ok(())
}
