//! What routing remembers beside the fleet: rules, measured speeds, what was sent where, and what is half done.

use super::warm::Warm;
use crate::chat::record::SpeedRecord;
use crate::chat::{GenKey, LaneId, SessionId, TurnId};
use crate::config::{AliasConfig, RouteConfig};
use crate::router::Decision;
use std::time::Duration;

/// What routing knows beside the fleet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Routing {
    /// Names for several targets.
    pub aliases: Vec<AliasConfig>,
    /// The person's rules.
    pub rules: RouteConfig,
    /// How things stand around.
    pub around: Around,
    /// Measured speeds, smoothed.
    pub speeds: Vec<SpeedRecord>,
    /// What was last sent to each model.
    pub sent: Vec<Sent>,
    /// Characters in a token, learnt from what servers counted.
    pub densities: Vec<Density>,
    /// Whether the privacy fence is lifted for the next turn.
    pub is_fence_lifted: bool,
    /// Another machine that could take a turn that failed, or finish what it was cut in.
    pub offer: Option<Offer>,
    /// A turn that waits until its machine is back.
    pub wait: Option<Wait>,
    /// What is got ready while the person types.
    pub warm: Warm,
}

/// How things stand around this machine, as last looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Around {
    /// Whether it runs without mains power.
    pub on_battery: bool,
    /// Local time less UTC, in seconds.
    pub utc_offset_s: i32,
    /// When that was asked for last, monotonic.
    pub looked_at: Option<Duration>,
}

/// What a model was sent last, and so probably has in its KV cache.
#[derive(Clone, Debug, PartialEq)]
pub struct Sent {
    /// The backend's name.
    pub backend: String,
    /// The model's id.
    pub model: String,
    /// The conversation.
    pub session: SessionId,
    /// Its messages, the answer included, each with its characters.
    pub pieces: Vec<(Piece, usize)>,
    /// Tokens of all of them, as the server counted.
    pub tokens: u32,
    /// What part of a known prefix was found in the cache last time, from 0 to 1.
    pub reuse: f64,
}

/// A message of a conversation, by where it comes from: within a session that never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// This system prompt.
    System(String),
    /// What the person said in this turn.
    User(TurnId),
    /// The answer that ends with this attempt.
    Answer(GenKey),
}

/// Characters in a token of one model.
#[derive(Clone, Debug, PartialEq)]
pub struct Density {
    /// The model's id.
    pub model: String,
    /// Characters in a token, smoothed.
    pub chars_per_token: f64,
}

/// Another machine that could take a turn.
#[derive(Clone, Debug, PartialEq)]
pub struct Offer {
    /// The attempt that failed.
    pub key: GenKey,
    /// Where the turn could go.
    pub decision: Decision,
    /// Whether text has come: then it is an answer to be finished there.
    pub is_cut: bool,
}

/// A turn that waits for its machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// The turn.
    pub turn: TurnId,
    /// The lane of it.
    pub lane: LaneId,
    /// The machine.
    pub backend: String,
    /// How often it was looked for.
    pub tries: u32,
}

impl Routing {
    /// Characters in a token of this model.
    #[must_use]
    pub fn chars_per_token(&self, model: &str) -> f64 {
        let known = self.densities.iter().find(|density| density.model == model);
        known.map_or(CHARS_PER_TOKEN, |density| density.chars_per_token)
    }

    /// What this model was sent last in this conversation.
    pub(super) fn sent_to(&self, backend: &str, model: &str, session: &SessionId) -> Option<&Sent> {
        let same = |sent: &&Sent| sent.backend == backend && sent.model == model && sent.session == *session;
        self.sent.iter().find(same)
    }
}

/// Characters in a token before a server has counted any: text in English, and code, in common vocabularies.
pub(super) const CHARS_PER_TOKEN: f64 = 3.6;
