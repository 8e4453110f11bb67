//! Turns, lanes and attempts as the app holds them while it runs.

use crate::chat::{Channel, Finish, GenError, GenKey, LaneId, Metrics, TurnId};
use crate::markdown::block::Blocks;
use crate::router::Decision;
use crate::text::{ShowStream, Shown};
use std::time::Duration;

/// One user message and its answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    /// Its number.
    pub id: TurnId,
    /// What the person sent, in the original.
    pub user: String,
    /// The same, for the screen.
    pub user_shown: Shown,
    /// When it was sent, milliseconds since the epoch.
    pub created_ms: i64,
    /// Its lanes; one unless the turn was split.
    pub lanes: Vec<Lane>,
}

/// One answer of a turn.
#[derive(Clone, Debug, PartialEq)]
pub struct Lane {
    /// Its number.
    pub id: LaneId,
    /// Attempts, oldest first; the last one is current. Never empty. One that was stopped before its first
    /// token stands before the attempt it was to replace, so that this one is current again.
    pub attempts: Vec<Attempt>,
}

/// One try at a lane.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// Its name; events with another one are late and ignored.
    pub key: GenKey,
    /// Where it goes and why.
    pub decision: Decision,
    /// Quantisation of the model, where known.
    pub quantisation: Option<String>,
    /// Where it is in its life.
    pub phase: Phase,
    /// What the model says.
    pub answer: Prose,
    /// What it thought before.
    pub thinking: Prose,
    /// Whether the thinking is unfolded.
    pub thinking_open: bool,
    /// Number of the first code block of the answer on the screen: they count through the session.
    pub first_code: usize,
    /// Monotonic time of Enter.
    pub entered_at: Duration,
    /// What was measured so far.
    pub metrics: Metrics,
}

/// Where an attempt is in its life. The last three are terminal and nothing leaves them.
#[derive(Clone, Debug, PartialEq)]
pub enum Phase {
    /// On its way to the server (the user's text is being written to disk, the request sent).
    Sending,
    /// Behind other requests.
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
    Prefilling {
        /// Tokens done, cached ones included.
        done: u32,
        /// Tokens of the prompt.
        total: u32,
        /// Tokens from the cache.
        cached: u32,
    },
    /// Text is coming, on this channel.
    Streaming(Channel),
    /// Complete.
    Done(Finish),
    /// Stopped by the person; the text counts as context.
    Stopped,
    /// Ended by a failure; the text is kept, and is not sent as context by itself.
    Interrupted(GenError),
}

impl Phase {
    /// Whether nothing will change any more.
    #[must_use]
    pub const fn is_terminal(&self) -> bool {
        matches!(self, Self::Done(_) | Self::Stopped | Self::Interrupted(_))
    }
}

/// Growing text: the original, what may be shown of it, and the shown text's Markdown blocks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prose {
    raw: String,
    shown: Shown,
    stream: ShowStream,
    blocks: Blocks,
}

impl Prose {
    /// A finished text.
    #[must_use]
    pub fn finished(raw: &str) -> Self {
        let mut prose = Self::default();
        prose.push(raw);
        prose.finish();
        prose
    }

    /// Appends a piece.
    pub fn push(&mut self, text: &str) {
        self.raw.push_str(text);
        self.stream.push(text, &mut self.shown);
        self.blocks.update(&self.shown);
    }

    /// The text has ended.
    pub fn finish(&mut self) {
        self.stream.finish(&mut self.shown);
        self.blocks.update(&self.shown);
        self.blocks.finish(&self.shown);
    }

    /// The original: stored, sent and copied.
    #[must_use]
    pub fn raw(&self) -> &str {
        &self.raw
    }

    /// What may be drawn.
    #[must_use]
    pub const fn shown(&self) -> &Shown {
        &self.shown
    }

    /// The blocks of the shown text.
    #[must_use]
    pub const fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    /// Whether nothing has come.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }
}

impl Turn {
    /// Fenced code blocks in the current answers.
    #[must_use]
    pub fn code_count(&self) -> usize {
        self.lanes.iter().map(Lane::code_count).sum()
    }
}

impl Lane {
    /// The current attempt.
    #[must_use]
    pub fn current(&self) -> Option<&Attempt> {
        self.attempts.last()
    }

    /// Fenced code blocks in the current answer.
    #[must_use]
    pub fn code_count(&self) -> usize {
        self.current().map_or(0, |attempt| attempt.answer.blocks().code_count())
    }

    /// Puts attempts that were stopped before their first token before the one they were to replace.
    pub(super) fn settle(&mut self) {
        if self.attempts.iter().all(Attempt::is_void) {
            return;
        }
        while self.current().is_some_and(Attempt::is_void) {
            self.attempts.rotate_right(1);
        }
    }
}

impl Attempt {
    /// Whether anything came from the model.
    #[must_use]
    pub const fn has_text(&self) -> bool {
        !self.answer.is_empty() || !self.thinking.is_empty()
    }

    /// Stopped before anything came.
    const fn is_void(&self) -> bool {
        matches!(self.phase, Phase::Stopped) && !self.has_text()
    }
}
