//! The conversation as messages for a backend.
//!
//! Append-only: what was sent before stays in its place, so that the cache of the prefix holds. Nothing of
//! ours is added, thinking is never sent again. An answer counts when it is complete, or was stopped with
//! some text; of several, the one that was kept. A turn without such an answer (it failed, and was not retried) is
//! left out with its question.

use super::restore;
use super::routing::Piece;
use super::turn::{Lane, Turn};
use crate::chat::record::TurnRecord;
use crate::chat::{Message, Role};

/// One message, and where it comes from.
#[derive(Clone, Debug)]
pub(super) struct Part<'a> {
    pub(super) piece: Piece,
    role: Role,
    /// Its text, in pieces where an answer was finished elsewhere.
    texts: Vec<&'a str>,
}

impl Part<'_> {
    /// Characters of it.
    pub(super) fn chars(&self) -> usize {
        self.texts.iter().map(|text| text.chars().count()).sum()
    }
}

/// The messages before the next question.
pub(super) fn parts<'a>(system: Option<&'a str>, turns: &'a [Turn]) -> Vec<Part<'a>> {
    let mut parts = Vec::new();
    if let Some(system) = system.filter(|system| !system.is_empty()) {
        parts.push(Part { piece: Piece::System(system.to_owned()), role: Role::System, texts: vec![system] });
    }
    for turn in turns {
        if let Some(answer) = turn.answer().and_then(answer) {
            parts.push(question(turn));
            parts.push(answer);
        }
    }
    parts
}

/// The question of a turn.
pub(super) fn question(turn: &Turn) -> Part<'_> {
    Part { piece: Piece::User(turn.id), role: Role::User, texts: vec![&turn.user] }
}

/// The answer of a lane so far.
pub(super) fn answer(lane: &Lane) -> Option<Part<'_>> {
    let parts = lane.parts();
    let last = parts.last()?;
    let piece = Piece::Answer(last.key);
    Some(Part { piece, role: Role::Assistant, texts: parts.iter().map(|part| part.answer.raw()).collect() })
}

/// As they are sent.
pub(super) fn messages(parts: &[Part<'_>]) -> Vec<Message> {
    parts.iter().map(|part| Message::new(part.role, part.texts.concat())).collect()
}

/// The messages that ask something at the end of a saved conversation.
#[must_use]
pub fn asked_after(system: Option<&str>, turns: &[TurnRecord], question: &str) -> Vec<Message> {
    let turns = restore::turns(turns.to_vec());
    let mut messages = messages(&parts(system, &turns));
    messages.push(Message::new(Role::User, question));
    messages
}
