//! Turns, lanes and attempts as the app holds them while it runs.

use super::story::{Hope, Story};
use crate::chat::record::FenceRecord;
use crate::chat::{Channel, Finish, GenError, GenKey, LaneId, Metrics, TurnId};
use crate::markdown::block::{BlockKind, Blocks};
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
    /// Its lanes: one, unless it was answered by another machine as well.
    pub lanes: Vec<Lane>,
    /// The lane that counts as its answer, once the person chose among several.
    pub kept: Option<LaneId>,
    /// What the privacy fence had to say about it.
    pub fence: Option<FenceRecord>,
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
    /// What else became of that.
    pub story: Story,
    /// What its server was expected to have in its cache.
    pub hope: Hope,
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
    /// Whether the shown text begins with a fence that was opened in the text before it.
    is_led: bool,
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

    /// An empty text that goes on from `before`: a code block that is open there is open here.
    #[must_use]
    pub fn after(before: &str) -> Self {
        let mut prose = Self::default();
        if let Some(fence) = open_fence(before) {
            prose.is_led = true;
            prose.stream.push(&fence, &mut prose.shown);
            prose.blocks.update(&prose.shown);
        }
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

    /// Whether it begins inside a code block that was opened in the text before it.
    #[must_use]
    pub const fn is_led(&self) -> bool {
        self.is_led
    }

    /// Code blocks that begin in it.
    #[must_use]
    pub fn own_codes(&self) -> usize {
        self.blocks.code_count() - usize::from(self.is_led)
    }
}

/// The line that opens the code block a text ends in, if it ends in one.
fn open_fence(text: &str) -> Option<String> {
    let mut blocks = Blocks::default();
    blocks.update(text);
    let last =
        blocks.all().last().filter(|block| block.is_open && matches!(block.kind, BlockKind::Code { .. }))?;
    let line = text.get(last.range.clone())?.lines().next()?;
    Some(format!("{line}\n"))
}

impl Turn {
    /// The lane that counts as the answer: the one that was chosen, else the first one that is an answer.
    #[must_use]
    pub fn answer(&self) -> Option<&Lane> {
        match self.kept {
            Some(kept) => self.lanes.iter().find(|lane| lane.id == kept).filter(|lane| lane.counts()),
            None => self.lanes.iter().find(|lane| lane.counts()),
        }
    }

    /// Whether there are several answers and none was chosen.
    #[must_use]
    pub fn is_undecided(&self) -> bool {
        self.kept.is_none() && self.lanes.iter().filter(|lane| lane.counts()).count() > 1
    }

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

    /// The attempts whose texts together are its answer, oldest first: the current one, and those it goes on
    /// from.
    #[must_use]
    pub fn parts(&self) -> Vec<&Attempt> {
        let mut parts: Vec<&Attempt> = self.current().into_iter().collect();
        while let Some(from) = parts.last().and_then(|last| last.story.continues)
            && let Some(before) = self.attempts.iter().find(|attempt| attempt.key.attempt == from)
            && parts.iter().all(|part| part.key != before.key)
        {
            parts.push(before);
        }
        parts.reverse();
        parts
    }

    /// The text an attempt of this lane goes on from, if it does.
    pub(super) fn before(&self, attempt: &Attempt) -> Option<String> {
        let (mut texts, mut from) = (Vec::new(), attempt.story.continues);
        while let Some(number) = from
            && let Some(before) = self.attempts.iter().find(|before| before.key.attempt == number)
            && texts.len() < self.attempts.len()
        {
            texts.push(before.answer.raw());
            from = before.story.continues;
        }
        texts.reverse();
        (!texts.is_empty()).then(|| texts.concat())
    }

    /// The text of the whole answer.
    #[must_use]
    pub fn text(&self) -> String {
        self.parts().iter().map(|part| part.answer.raw()).collect()
    }

    /// Whether its answer counts as context: it is complete, or was stopped by the person, and not empty.
    #[must_use]
    pub fn counts(&self) -> bool {
        let is_over = |attempt: &Attempt| matches!(attempt.phase, Phase::Done(_) | Phase::Stopped);
        self.current().is_some_and(is_over) && self.parts().iter().any(|part| !part.answer.is_empty())
    }

    /// The number on the screen of the first code block of its answer.
    #[must_use]
    pub fn first_code(&self) -> usize {
        self.parts().first().map_or(1, |part| part.first_code)
    }

    /// Fenced code blocks in the current answer.
    #[must_use]
    pub fn code_count(&self) -> usize {
        self.parts().iter().map(|part| part.answer.own_codes()).sum()
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
