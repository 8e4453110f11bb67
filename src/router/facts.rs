//! What is known when a turn is about to be sent. Plain values: whoever asks fills in what is known, and leaves the
//! rest at its default, which means unknown and never zero.

use crate::chat::{ModelCard, ModelState, Residency};
use crate::config::{AliasConfig, BackendKind, RouteConfig};
use serde::{Deserialize, Serialize};

/// What is known when a turn is about to be sent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// The person's choice for this program run or session: backend and/or model.
    pub pin: Target,
    /// What answered last in the conversation that goes on; empty in a new one.
    pub session: Target,
    /// The configured default.
    pub configured: Target,
    /// Backends that exist, in order of preference; the first is this machine's engine, if built in.
    pub backends: Vec<BackendFacts>,
    /// Names for several targets.
    pub aliases: Vec<AliasConfig>,
    /// The person's rules.
    pub rules: RouteConfig,
    /// What is to be sent.
    pub turn: TurnFacts,
    /// How things stand around.
    pub surroundings: Surroundings,
}

/// A backend and a model, each of which may be left open.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Target {
    /// The backend's name.
    pub backend: Option<String>,
    /// The model's id, or the name of an alias.
    pub model: Option<String>,
}

/// What is to be sent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TurnFacts {
    /// Tokens of the whole prompt. None: not counted yet.
    pub prompt_tokens: Option<u32>,
    /// Tokens the answer will probably have. None: nothing to judge by.
    pub expected_tokens: Option<u32>,
    /// Tokens of thinking before it. None: nothing to judge by.
    pub expected_thinking: Option<u32>,
    /// Turns that will probably follow in this conversation: what is loaded and prefilled now serves those too. None: as if
    /// none did, which is right for a single question.
    pub follow_ups: Option<f64>,
    /// New tokens each of those will probably bring. None: as a short question.
    pub follow_up_tokens: Option<u32>,
    /// Files among what is sent that the privacy fence keeps here, as they were named. Empty: none.
    pub fenced: Vec<String>,
    /// Whether the person lifted the fence for this turn.
    pub is_fence_lifted: bool,
    /// Backends this turn was tried on and failed; none of them gets it again by itself.
    pub tried: Vec<String>,
}

/// How things stand around.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Whether this machine runs without mains power.
    pub on_battery: bool,
    /// Whether it is within the quiet hours.
    pub is_quiet_hour: bool,
}

/// What is known of one backend.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BackendFacts {
    /// Its name.
    pub name: String,
    /// Whether it is the engine of this machine.
    pub is_here: bool,
    /// What it is, where known.
    pub kind: Option<BackendKind>,
    /// The model it answers with when none is asked for.
    pub default_model: Option<String>,
    /// The models it is known to have; empty when not asked yet.
    pub models: Vec<ModelFacts>,
    /// How it is.
    pub health: Health,
    /// Time for a round trip in milliseconds, smoothed.
    pub rtt_ms: Option<f64>,
    /// Time it takes to wake up in milliseconds, learnt or guessed; of use while it is asleep.
    pub wake_ms: Option<f64>,
    /// Time until a request would be looked at, in milliseconds, because of others before it.
    pub queue_ms: Option<f64>,
    /// Seconds since a generation failed there, while that is recent.
    pub failed_s: Option<f64>,
    /// What the machine is, by a name of [`super::machines`].
    pub hardware: Option<String>,
    /// Memory models may hold there together, in bytes.
    pub memory: Option<u64>,
    /// Watts it takes while it answers; none: as its hardware usually does.
    pub watts: Option<f64>,
    /// Whether it makes noise.
    pub is_noisy: bool,
    /// Whether fenced files may go there.
    pub is_private: bool,
}

/// How a backend is, judged by real generations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Health {
    /// Nobody has asked it for anything yet.
    #[default]
    Unknown,
    /// It answers.
    Ready,
    /// It is there and loads a model.
    Loading,
    /// It is there and all its slots are taken.
    Busy,
    /// It does not answer and can be woken.
    Asleep,
    /// It wants a key, or another one.
    KeyNeeded,
    /// It shows another certificate than the pinned one.
    Untrusted,
    /// It is there and has no model of the name that was asked for last.
    ModelMissing,
    /// Generations fail there; none is sent until `again_s` seconds have passed.
    Failing {
        /// Seconds until it is tried again.
        again_s: u32,
    },
    /// It can't be reached; it is tried again in `again_s` seconds.
    Unreachable {
        /// Seconds until it is tried again.
        again_s: u32,
    },
}

/// What is known of one model on one backend.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelFacts {
    /// What to send as `model`.
    pub id: String,
    /// Number of weights.
    pub parameters: Option<u64>,
    /// Weights that take part in one token, of a mixture of experts; none: all.
    pub active_parameters: Option<u64>,
    /// Size of its weights in bytes.
    pub bytes: Option<u64>,
    /// Quantisation, as `q4_k_m`.
    pub quantisation: Option<String>,
    /// Context in force when resident, else the one it could have; in tokens.
    pub context: Option<u32>,
    /// Bytes of KV cache for each token.
    pub kv_bytes_per_token: Option<u64>,
    /// Whether it is resident. None: the server does not say.
    pub is_resident: Option<bool>,
    /// Time its load took when last measured, in milliseconds.
    pub load_ms: Option<f64>,
    /// Seconds since it left memory, where it was seen there: its file is read faster while that is recent.
    pub left_s: Option<f64>,
    /// What the server says of how it is kept.
    pub residency: Option<Residency>,
    /// Whether its load failed for good, and why.
    pub failed: Option<String>,
    /// Whether it makes embeddings and no text.
    pub embeds: bool,
    /// The foreign host a prompt for it would be passed on to.
    pub hosted_by: Option<String>,
    /// Measured speeds.
    pub speeds: Speeds,
    /// Tokens of this conversation that are probably in its KV cache.
    pub cached_tokens: u32,
    /// Whether it got a turn today by the rule `explore`, to be measured.
    pub is_explored_today: bool,
}

/// Measured speeds of one model on one backend, for contexts as long as the one at hand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Speeds {
    /// Prefill.
    pub prefill: Option<Speed>,
    /// Decode.
    pub decode: Option<Speed>,
}

/// One speed, smoothed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Speed {
    /// Tokens per second.
    pub tokens_per_s: f64,
    /// Turns it comes from.
    pub samples: u32,
}

impl From<&ModelCard> for ModelFacts {
    fn from(card: &ModelCard) -> Self {
        Self {
            id: card.id.clone(),
            parameters: card.parameters,
            active_parameters: card.active_parameters,
            bytes: card.bytes,
            quantisation: card.quantisation.clone(),
            context: card.context,
            kv_bytes_per_token: card.kv_bytes_per_token,
            is_resident: match card.state {
                ModelState::Loaded => Some(true),
                ModelState::Unloaded | ModelState::Loading { .. } | ModelState::Failed { .. } => Some(false),
                ModelState::Unknown => None,
            },
            failed: match &card.state {
                ModelState::Failed { reason } => Some(reason.clone()),
                _ => None,
            },
            hosted_by: card.hosted_by.clone(),
            ..Self::default()
        }
    }
}
