//! The words every backend speaks while it answers.

use super::{ServerTimings, Usage};
use serde::{Deserialize, Serialize};

/// One step of a generation. A stream of these ends with exactly one [`GenEvent::Done`] or
/// [`GenEvent::Failed`], and nothing follows it.
#[derive(Clone, Debug, PartialEq)]
pub enum GenEvent {
    /// The server took the request (its headers arrived). Only waiting and loading are told before it.
    Accepted,
    /// Waiting for a slot behind this many requests.
    Queued {
        /// Requests ahead.
        ahead: u32,
    },
    /// The model is being loaded.
    Loading {
        /// 0 to 1.
        fraction: f32,
    },
    /// The prompt is being evaluated.
    Prefill {
        /// Tokens done, cached ones included.
        done: u32,
        /// Tokens of the whole prompt.
        total: u32,
        /// Tokens that came from the KV cache.
        cached: u32,
    },
    /// A piece of text, in the original.
    Delta {
        /// Answer or thinking.
        channel: Channel,
        /// Whole characters only.
        text: String,
    },
    /// How many tokens were produced so far, from servers that tell while they answer.
    Produced {
        /// Tokens, those that gave no text yet included.
        tokens: u32,
    },
    /// Token counts.
    Usage(Usage),
    /// Something is not as it was asked for. The answer goes on.
    Note(Note),
    /// The end, complete.
    Done {
        /// Why it ended.
        finish: Finish,
        /// What the server measured, where it says.
        timings: Option<ServerTimings>,
    },
    /// The end, not complete.
    Failed(GenError),
}

/// Something that is not as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "what")]
pub enum Note {
    /// Another model answers: some servers have but one, whatever they are asked for.
    OtherModel {
        /// The one that was asked for.
        asked: String,
        /// The one that answers, by the server's word.
        answers: String,
    },
    /// The server read less than it was sent, and did not say so.
    Cut {
        /// Tokens that were sent; at least so many where `is_exact` is false.
        sent: u32,
        /// Tokens it read.
        read: u32,
        /// Whether `sent` was counted by the server's own tokenizer.
        is_exact: bool,
    },
    /// The server passes the conversation on to a foreign host.
    PassedOn {
        /// That host.
        to: String,
    },
}

impl Note {
    /// It in one line for people; may quote foreign text, so it is sanitised where it is shown.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::OtherModel { asked, answers } => format!("{answers} answers, not {asked}"),
            Self::Cut { sent, read, is_exact } => {
                let least = if *is_exact { "" } else { "at least " };
                format!("the server read {read} of {least}{sent} tokens: the beginning was cut off")
            }
            Self::PassedOn { to } => format!("the server passed the conversation on to {to}"),
        }
    }
}

/// Which of a model's two voices a text belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Channel {
    /// What the person asked for.
    Answer,
    /// Reasoning before it.
    Thinking,
}

/// Why a complete answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Finish {
    /// The model ended its turn, or a stop string was reached.
    Stop,
    /// `max_tokens` or the context was reached.
    Length,
}

/// Why a generation failed. The message says the thing, the cause and the next step on one or two lines.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct GenError {
    /// What kind of failure, for decisions.
    pub kind: GenErrorKind,
    /// For people; may quote foreign text, so it is sanitised where it is shown.
    pub message: String,
}

impl GenError {
    /// An error of the given kind.
    #[must_use]
    pub fn new(kind: GenErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

/// The kinds of failure that lead to different next steps or exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GenErrorKind {
    /// No connection.
    Unreachable,
    /// The server refused the request (its status and message are in the text).
    Refused,
    /// A key is missing or wrong.
    Auth,
    /// The server shows another certificate than the pinned one, or one nobody vouches for. Nothing was sent.
    Untrusted,
    /// The privacy fence keeps something here. Nothing was sent.
    Fenced,
    /// The server broke the protocol, or ended without a finish reason.
    Protocol,
    /// Nothing came for too long.
    Timeout,
    /// The model is not there or cannot be loaded.
    Model,
    /// The prompt does not fit the context.
    ContextFull,
    /// Not enough memory to load.
    OutOfMemory,
    /// The engine ended while it worked.
    EngineDied,
}
