//! What the store keeps, as plain data. Text here is the original.

use super::{GenKey, Metrics, SessionId, TurnId};
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
    /// A line typed into the composer, for the input history.
    RememberInput {
        /// The text.
        text: String,
        /// Milliseconds since the epoch.
        created_ms: i64,
    },
}
