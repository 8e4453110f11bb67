//! One generation, as asked for.

use super::Message;
use serde::{Deserialize, Serialize};

/// What to generate. The history is complete: a backend keeps nothing of its own but a cache.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenRequest {
    /// The backend's id of the model (for the engine also a path to a GGUF file).
    pub model: String,
    /// Oldest first. A trailing assistant message is continued.
    pub messages: Vec<Message>,
    /// How to sample. Unset values are left to the server.
    pub sampling: Sampling,
    /// Upper bound on output tokens; 0 only prefills.
    pub max_tokens: Option<u32>,
    /// Strings that end the answer; they are not part of it.
    pub stop: Vec<String>,
    /// A JSON schema the answer must follow.
    pub schema: Option<serde_json::Value>,
    /// The saved session this belongs to; none where nothing is saved. An engine of ours may keep what it
    /// computed for it on disk, and deletes that with the session; others are not told.
    pub session: Option<String>,
    /// Whether this gets things ready for a question that may come, with [`Self::max_tokens`] 0. An engine of ours sends no
    /// model away for it.
    pub is_ahead: bool,
}

/// Sampling settings; `None` leaves a value to the server's default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sampling {
    /// 0 is greedy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    /// Keep the k most likely tokens; 0 keeps all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<i32>,
    /// Keep the smallest set with this much probability.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f32>,
    /// Keep tokens at least this likely, relative to the likeliest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_p: Option<f32>,
    /// Divides the logits of recent tokens; 1 is off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repeat_penalty: Option<f32>,
    /// Subtracted once for tokens already used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub presence_penalty: Option<f32>,
    /// Subtracted for each use of a token so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frequency_penalty: Option<f32>,
    /// Seed of the random numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u32>,
}

impl Sampling {
    /// These settings, with gaps filled from `other`.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            temperature: self.temperature.or(other.temperature),
            top_k: self.top_k.or(other.top_k),
            top_p: self.top_p.or(other.top_p),
            min_p: self.min_p.or(other.min_p),
            repeat_penalty: self.repeat_penalty.or(other.repeat_penalty),
            presence_penalty: self.presence_penalty.or(other.presence_penalty),
            frequency_penalty: self.frequency_penalty.or(other.frequency_penalty),
            seed: self.seed.or(other.seed),
        }
    }

    /// What is sent when nobody chose anything: greedy for the built-in model, mild otherwise.
    #[must_use]
    pub fn default_for(is_builtin: bool) -> Self {
        if is_builtin {
            Self { temperature: Some(0.0), ..Self::default() }
        } else {
            Self {
                temperature: Some(0.7),
                top_k: Some(40),
                top_p: Some(0.95),
                min_p: Some(0.05),
                ..Self::default()
            }
        }
    }
}
