//! What the store keeps, as plain data. Text here is the original.

use super::{GenKey, LaneId, Metrics, SessionId, TurnId};
use serde::{Deserialize, Serialize};

/// A saved session without its turns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionRecord {
    /// Its id.
    pub id: SessionId,
    /// Creation, milliseconds since the epoch.
    pub created_ms: i64,
    /// First line of the first question, until somebody names it.
    pub title: String,
    /// The system prompt in force.
    pub system: Option<String>,
}

/// A turn with its attempts, oldest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TurnRecord {
    /// Its number.
    pub id: TurnId,
    /// What the person sent.
    pub user: String,
    /// When, milliseconds since the epoch.
    pub created_ms: i64,
    /// All attempts at all lanes, in order of (lane, attempt).
    pub attempts: Vec<AttemptRecord>,
    /// The lane that counts as its answer, where the person chose one.
    pub kept: Option<LaneId>,
    /// The privacy fence's part in it, where it has one.
    pub fence: Option<FenceRecord>,
}

/// What the privacy fence had to say about a turn.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FenceRecord {
    /// Files behind the fence whose contents the question holds, as they were named.
    pub files: Vec<String>,
    /// Whether the person lifted the fence for this turn.
    pub is_lifted: bool,
}

/// One attempt at one lane.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// Which one.
    pub key: GenKey,
    /// Backend name.
    pub backend: String,
    /// Model id.
    pub model: String,
    /// Quantisation, where known.
    pub quantisation: Option<String>,
    /// The router's rule.
    pub rule: String,
    /// The router's reason, one line.
    pub reason: String,
    /// The whole decision and what became of it, as JSON; empty where an older version wrote it.
    pub decision: String,
    /// The answer so far.
    pub answer: String,
    /// The thinking so far.
    pub thinking: String,
    /// How it stands.
    pub outcome: Outcome,
    /// What was measured.
    pub metrics: Metrics,
}

/// How an attempt stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Outcome {
    /// Still being written; found at start it means the program ended abruptly.
    Open,
    /// Complete; the model ended it.
    Stop,
    /// Complete; cut by length.
    Length,
    /// Stopped by the person.
    Stopped,
    /// Ended by a failure.
    Interrupted {
        /// One line.
        error: String,
    },
}

/// One thing for the store's writer to do, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum StoreJob {
    /// A new session. Written with its first turn.
    OpenSession(SessionRecord),
    /// The system prompt changed.
    SetSystem {
        /// The session.
        session: SessionId,
        /// The new prompt.
        system: Option<String>,
    },
    /// A turn, before it is sent. A boundary: synced.
    OpenTurn {
        /// The session.
        session: SessionId,
        /// Its number.
        turn: TurnId,
        /// What the person sent.
        user: String,
        /// Milliseconds since the epoch.
        created_ms: i64,
    },
    /// A turn taken back before its first token: it leaves no trace.
    DropTurn {
        /// The session.
        session: SessionId,
        /// Its number.
        turn: TurnId,
    },
    /// An attempt begins (its texts are empty).
    OpenAttempt {
        /// The session.
        session: SessionId,
        /// The attempt.
        attempt: Box<AttemptRecord>,
    },
    /// More text; on disk within 250 ms.
    Append {
        /// The session.
        session: SessionId,
        /// The attempt.
        key: GenKey,
        /// Answer or thinking.
        channel: super::Channel,
        /// The new text.
        text: String,
    },
    /// An attempt ends. A boundary: synced.
    CloseAttempt {
        /// The session.
        session: SessionId,
        /// The attempt.
        key: GenKey,
        /// How it ended.
        outcome: Outcome,
        /// What was measured.
        metrics: Box<Metrics>,
    },
    /// What the privacy fence had to say about a turn.
    Fence {
        /// The session.
        session: SessionId,
        /// The turn.
        turn: TurnId,
        /// It.
        fence: FenceRecord,
    },
    /// More became known of an attempt than when it was opened: its whole decision anew.
    Decide {
        /// The session.
        session: SessionId,
        /// The attempt.
        key: GenKey,
        /// As [`AttemptRecord::decision`].
        decision: String,
    },
    /// The person chose which of several answers counts.
    KeepLane {
        /// The session.
        session: SessionId,
        /// The turn.
        turn: TurnId,
        /// The lane.
        lane: LaneId,
    },
    /// Smoothed speeds, in place of those before.
    KeepSpeed(Box<SpeedRecord>),
    /// How an attempt went, for the record.
    LogOutcome(Box<OutcomeRecord>),
    /// A line typed into the composer, for the input history.
    RememberInput {
        /// The text.
        text: String,
        /// Milliseconds since the epoch.
        created_ms: i64,
    },
}

/// Smoothed speeds of one model on one backend, for contexts of one size.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SpeedRecord {
    /// The backend's name.
    pub backend: String,
    /// The model's id.
    pub model: String,
    /// Which contexts: a number of the router's.
    pub bucket: u8,
    /// Prefill, tokens per second.
    pub prefill: Option<f64>,
    /// Turns it comes from.
    pub prefill_samples: u32,
    /// Decode, tokens per second.
    pub decode: Option<f64>,
    /// Turns it comes from.
    pub decode_samples: u32,
    /// Time a load took, in milliseconds.
    pub load_ms: Option<f64>,
    /// When it was last measured, milliseconds since the epoch.
    pub updated_ms: i64,
}

/// How one complete answer went, and how it was predicted to go. It holds no text.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OutcomeRecord {
    /// When it ended, milliseconds since the epoch.
    pub ended_ms: i64,
    /// The backend's name.
    pub backend: String,
    /// The model's id.
    pub model: String,
    /// Quantisation, where known.
    pub quantisation: Option<String>,
    /// Tokens of the prompt.
    pub prompt_tokens: Option<u32>,
    /// Those of them that came from the KV cache.
    pub cached_tokens: Option<u32>,
    /// Tokens of the answer.
    pub output_tokens: Option<u32>,
    /// Prefill, tokens per second.
    pub prefill: Option<f64>,
    /// Decode, tokens per second.
    pub decode: Option<f64>,
    /// Time from Enter to the first token, in milliseconds.
    pub first_ms: Option<f64>,
    /// Time from Enter to the end, in milliseconds.
    pub total_ms: Option<f64>,
    /// The rule that chose it.
    pub rule: String,
    /// What was predicted for it, as JSON; none: nothing.
    pub predicted: Option<String>,
    /// What was predicted for the others that could have answered, as JSON: backend, model and prediction of each.
    pub others: String,
}
