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
    /// Decode speed, tokens per second.
    pub decode_tokens_per_s: f64,
    /// Whether a speed in it was guessed from the hardware, not measured.
    pub is_guess: bool,
}
