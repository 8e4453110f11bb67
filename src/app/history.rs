//! The conversation as messages for a backend.
//!
//! Append-only: what was sent before stays in its place, so that the cache of the prefix holds. Nothing of
//! ours is added, thinking is never sent again. An answer counts when it is complete, or was stopped with
//! some text. A turn without such an answer (it failed, and was not retried) is left out with its question.

use super::turn::{Phase, Turn};
use crate::chat::{Message, Role};

/// The messages that ask the last of these turns.
pub(super) fn messages(system: Option<&str>, turns: &[Turn]) -> Vec<Message> {
    let mut messages = Vec::new();
    if let Some(system) = system.filter(|system| !system.is_empty()) {
        messages.push(Message::new(Role::System, system));
    }
    let Some((asked, earlier)) = turns.split_last() else { return messages };
    for turn in earlier {
        if let Some(answer) = answer(turn) {
            messages.push(Message::new(Role::User, &turn.user));
            messages.push(Message::new(Role::Assistant, answer));
        }
    }
    messages.push(Message::new(Role::User, &asked.user));
    messages
}

/// What of a turn counts as its answer.
fn answer(turn: &Turn) -> Option<&str> {
    let attempt = turn.lanes.first()?.current()?;
    let counts = matches!(attempt.phase, Phase::Done(_) | Phase::Stopped) && !attempt.answer.is_empty();
    counts.then(|| attempt.answer.raw())
}
