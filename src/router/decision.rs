//! What the router says.

use serde::{Deserialize, Serialize};

/// Where the turn goes and why.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// The backend.
    pub backend: String,
    /// The model.
    pub model: String,
    /// The rule that decided, one word for programs.
    pub rule: String,
    /// One line for people.
    pub reason: String,
    /// Candidates ruled out or beaten, and why.
    pub rejected: Vec<Rejected>,
    /// What it will probably cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predicted: Option<Prediction>,
    /// The alias that led here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// Whether the model is another quantisation or format of the one that was meant.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_variant: bool,
    /// Whether it is another model than the one that was meant, because nobody else has that one. Only
    /// [`super::elsewhere`] says so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_other_model: bool,
    /// The backend this turn was moved away from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_from: Option<String>,
}

/// A candidate that does not get the turn.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rejected {
    /// The backend.
    pub backend: String,
    /// The model, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Why, one line.
    pub why: String,
    /// Whether it could have answered: then it was beaten, not ruled out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub could_answer: bool,
    /// What it would have cost, where it could have answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predicted: Option<Prediction>,
}

/// What a turn will probably cost on one target; times in milliseconds since sending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// The first token.
    pub first_ms: f64,
    /// The first token of the answer proper.
    pub answer_ms: f64,
    /// The whole answer.
    pub total_ms: f64,
    /// Of the first token: network, waking up and queue.
    pub wait_ms: f64,
    /// Of the first token: loading the model.
    pub load_ms: f64,
    /// Of the first token: prefill.
    pub prefill_ms: f64,
    /// Prompt tokens that are not in the cache.
    pub new_tokens: u32,
    /// Tokens of the whole prompt.
    #[serde(default)]
    pub prompt_tokens: u32,
    /// Decode speed, tokens per second.
    pub decode_tokens_per_s: f64,
    /// Turns that speed was measured in; 0: it was guessed.
    #[serde(default)]
    pub samples: u32,
    /// Whether a speed in it was guessed from the hardware, not measured.
    pub is_guess: bool,
    /// Time for a round trip, in milliseconds, where it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<f64>,
    /// What was added before comparing.
    #[serde(default, skip_serializing_if = "Penalties::is_none")]
    pub penalties: Penalties,
    /// What was compared, in milliseconds: by the policy, penalties included. Less is better.
    #[serde(default)]
    pub score_ms: f64,
}

/// What makes a target less welcome than its times say. Milliseconds each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Penalties {
    /// This machine runs on battery.
    #[serde(skip_serializing_if = "is_nothing")]
    pub battery_ms: f64,
    /// The machine makes noise when it should not.
    #[serde(skip_serializing_if = "is_nothing")]
    pub noise_ms: f64,
    /// A generation failed there not long ago.
    #[serde(skip_serializing_if = "is_nothing")]
    pub failure_ms: f64,
    /// Models used not long ago would have to leave, and to be loaded again.
    #[serde(skip_serializing_if = "is_nothing")]
    pub eviction_ms: f64,
    /// It is another quantisation or format.
    #[serde(skip_serializing_if = "is_nothing")]
    pub variant_ms: f64,
}

impl Penalties {
    /// All of them together.
    #[must_use]
    pub fn total_ms(&self) -> f64 {
        self.battery_ms + self.noise_ms + self.failure_ms + self.eviction_ms + self.variant_ms
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_none(&self) -> bool {
        is_nothing(&self.total_ms())
    }
}

// serde asks for a reference.
fn is_nothing(ms: &f64) -> bool {
    *ms <= 0.0
}
