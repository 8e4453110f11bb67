//! Keys and pastes: to whatever is in front, and there to the command they mean.

use super::effect::{Effect, TimerId};
use super::model::{Level, Overlay};
use super::scroll::By;
use super::update::Step;
use crate::command::Command;
use crate::keymap::{Chord, Context, Key, keys, lookup};
use crate::text::EditBuffer;
use std::time::Duration;

/// A second Ctrl+C within this time quits.
const QUIT_ARMED: Duration = Duration::from_secs(2);
/// Keys this soon after a paste are its tail: a paste may contain its own end mark.
const PASTE_TAIL: Duration = Duration::from_millis(50);
/// A paste above this many bytes is refused.
const PASTE_BYTES: usize = 16 << 20;

/// Whether this key press may quit as the second Ctrl+C.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Armed {
    No,
    Yes,
}

impl Step<'_> {
    /// A key.
    pub(super) fn key(&mut self, chord: Chord) {
        let chord = chord.normal();
        if self.model.pending.paste_until.is_some_and(|until| self.ctx.now < until) {
            return self.tail_key(chord);
        }
        self.model.pending.paste_until = None;
        self.dismiss_notice();
        let armed = match self.model.quit_armed.take() {
            Some(until) if self.ctx.now <= until => Armed::Yes,
            _ => Armed::No,
        };
        if self.model.pending.leader.take().is_some() {
            return self.leader_key(chord);
        }
        match self.model.overlays.last() {
            Some(Overlay::Picker(_)) => self.picker_key(chord, armed),
            Some(Overlay::Help { .. }) => self.help_key(chord, armed),
            Some(Overlay::Board(_)) => self.board_key(chord, armed),
            Some(Overlay::Backends { .. }) => self.machines_key(chord, armed),
            Some(Overlay::Sheet(_)) => self.sheet_key(chord, armed),
            None => self.composer_key(chord, armed),
        }
    }

    fn composer_key(&mut self, chord: Chord, armed: Armed) {
        let composer = &self.model.composer;
        let popup = composer.completion.is_some().then_some(Context::Popup);
        let is_empty = composer.buffer.is_empty();
        let mut contexts: Vec<Context> = popup.into_iter().collect();
        if is_empty {
            // What there is to choose after the last turn.
            let choices = [
                (self.is_offered(), Context::Offer),
                (self.is_cut(), Context::Cut),
                (self.is_undecided(), Context::Siblings),
            ];
            contexts.extend(choices.into_iter().filter(|(is_so, _)| *is_so).map(|(_, context)| context));
            contexts.push(Context::EmptyDraft);
        }
        contexts.extend([Context::Composer, Context::Global]);
        let binding = lookup(&contexts, chord);
        // `r` is a letter unless there is something to ask again.
        let is_letter = chord.typed().is_some()
            && binding.is_some_and(|b| b.command == Command::Retry)
            && !self.is_retryable();
        match (binding.filter(|_| !is_letter), chord.typed()) {
            (Some(binding), _) => self.run(binding.command, armed),
            (None, Some(c)) => {
                if is_empty {
                    self.look_around();
                }
                self.type_char(c);
            }
            (None, None) => {}
        }
    }

    /// Does what a key means where no list is in front.
    pub(super) fn run(&mut self, command: Command, armed: Armed) {
        match command {
            Command::Send => self.enter(),
            Command::Newline => self.edit(EditBuffer::newline),
            Command::Interrupt => self.interrupt(armed),
            Command::Escape => self.escape(),
            Command::DeleteOrQuit => self.delete_or_quit(),
            Command::Redraw => self.effect(Effect::Redraw),
            Command::Suspend => self.effect(Effect::Suspend),
            Command::Leader => self.model.pending.leader = Some(crate::keymap::table::LEADER),
            Command::PageUp => self.scroll(By::PageUp),
            Command::PageDown => self.scroll(By::PageDown),
            Command::RowUp => self.scroll(By::RowUp),
            Command::RowDown => self.scroll(By::RowDown),
            Command::ToTop => self.scroll(By::Top),
            Command::ToEnd => self.follow(),
            Command::Up => self.up(),
            Command::Down => self.down(),
            Command::HistoryPrevious => self.recall_previous(),
            Command::HistoryNext => self.recall_next(),
            Command::HistorySearch => self.open_history(),
            Command::Retry => self.retry_key(),
            Command::NextTarget => self.next_target(),
            Command::FallBack => self.fall_back(),
            Command::WaitForIt => self.wait_for_it(),
            Command::KeepFirst => drop(self.keep(1)),
            Command::KeepSecond => drop(self.keep(2)),
            Command::Previous => self.mark_completion(|at| at.saturating_sub(1)),
            Command::Next => self.mark_completion(|at| at + 1),
            Command::Complete => self.complete(),
            Command::Left => self.movement(EditBuffer::left),
            Command::Right => self.movement(EditBuffer::right),
            Command::WordLeft => self.movement(EditBuffer::word_left),
            Command::WordRight => self.movement(EditBuffer::word_right),
            Command::LineStart => self.movement(EditBuffer::home),
            Command::LineEnd => self.movement(EditBuffer::end),
            other => match edit_of(other) {
                Some(edit) => self.edit(edit),
                None => {
                    let _ = self.run_command(other, "");
                }
            },
        }
    }

    fn leader_key(&mut self, chord: Chord) {
        match lookup(&[Context::Leader], chord) {
            Some(binding) => {
                let _ = self.run_command(binding.command, "");
            }
            None if chord == Chord::ctrl('c') || chord.key == Key::Esc => {}
            None => {
                let help = keys(Command::Help).pop().unwrap_or_default();
                self.warn(&format!("ctrl+x {chord} means nothing; {help} lists the keys"));
            }
        }
    }

    /// The ladder of Ctrl+C: close what is in front, stop the turn, clear the draft, ask, quit.
    pub(super) fn interrupt(&mut self, armed: Armed) {
        if self.close_front() {
        } else if self.running().is_some() {
            self.cancel();
        } else if !self.model.composer.buffer.is_empty() {
            self.clear_draft();
        } else if armed == Armed::Yes {
            self.leave();
        } else {
            let until = self.ctx.now + QUIT_ARMED;
            self.model.quit_armed = Some(until);
            self.say("ctrl+c again to quit", Level::Warn, Some(until));
            self.effect(Effect::Timer { id: TimerId::QuitArmed, after: QUIT_ARMED });
        }
    }

    /// The ladder of Esc: close what is in front, stop the turn, take a question back that another machine was offered
    /// for, dismiss the notice.
    pub(super) fn escape(&mut self) {
        if self.close_front() {
        } else if self.running().is_some() {
            self.cancel();
        } else if !self.keep_draft() {
            self.model.notice = None;
        }
    }

    /// The time for the second Ctrl+C is over.
    pub(super) fn quit_due(&mut self) {
        if self.model.quit_armed.is_some_and(|until| until <= self.ctx.now) {
            self.model.quit_armed = None;
            self.notice_due();
        }
    }

    /// Closes the front overlay or the popup of commands. Returns whether there was one.
    fn close_front(&mut self) -> bool {
        self.model.overlays.pop().is_some() || self.model.composer.completion.take().is_some()
    }

    fn delete_or_quit(&mut self) {
        if self.model.composer.buffer.is_empty() {
            self.quit("ctrl+d");
        } else {
            self.edit(EditBuffer::delete_forward);
        }
    }

    /// A paste. It never sends and never means a command.
    pub(super) fn paste(&mut self, raw: &str) {
        self.dismiss_notice();
        self.model.quit_armed = None;
        self.model.pending.leader = None;
        self.model.pending.paste_until = Some(self.ctx.now + PASTE_TAIL);
        self.effect(Effect::Timer { id: TimerId::PasteTail, after: PASTE_TAIL });
        if self.has_filter() {
            return self.filter(|filter| filter.insert(raw.lines().next().unwrap_or_default()));
        }
        if raw.len() > PASTE_BYTES {
            let (size, limit) = (raw.len() >> 20, PASTE_BYTES >> 20);
            return self.bad(&format!(
                "that paste has {size} MiB, more than the {limit} MiB a message can take; the draft is unchanged"
            ));
        }
        self.model.overlays.clear();
        let pasted = self.model.composer.buffer.paste(raw);
        self.model.composer.completion = None;
        if pasted.dropped > 0 {
            let s = if pasted.dropped == 1 { "" } else { "s" };
            self.warn(&format!("{} control character{s} removed from the paste", pasted.dropped));
        }
        self.typed();
    }

    /// The tail of a paste is over.
    pub(super) fn paste_over(&mut self) {
        if self.model.pending.paste_until.is_some_and(|until| until <= self.ctx.now) {
            self.model.pending.paste_until = None;
        }
    }

    /// A key that is part of a paste: text, or nothing.
    fn tail_key(&mut self, chord: Chord) {
        self.model.pending.paste_until = Some(self.ctx.now + PASTE_TAIL);
        let text = match chord.key {
            Key::Char('j') if chord.ctrl => '\n',
            Key::Enter => '\n',
            Key::Tab => '\t',
            Key::Char(c) if !chord.ctrl => c,
            _ => return,
        };
        if !self.has_filter() {
            self.model.composer.buffer.insert(text.encode_utf8(&mut [0; 4]));
            self.model.composer.completion = None;
        } else if !text.is_control() {
            self.filter(|filter| filter.insert(text.encode_utf8(&mut [0; 4])));
        }
    }
}

/// The edit a command means, in the composer and in filters alike.
pub(super) fn edit_of(command: Command) -> Option<fn(&mut EditBuffer)> {
    Some(match command {
        Command::DeleteBack => EditBuffer::delete_back,
        Command::DeleteForward => EditBuffer::delete_forward,
        Command::DeleteWordBack => EditBuffer::delete_word_back,
        Command::DeleteWordForward => EditBuffer::delete_word_forward,
        Command::KillWordBack => EditBuffer::kill_word_back,
        Command::KillToStart => EditBuffer::kill_to_line_start,
        Command::KillToEnd => EditBuffer::kill_to_line_end,
        Command::Yank => EditBuffer::yank,
        Command::Undo => |buffer| {
            buffer.undo();
        },
        Command::Redo => |buffer| {
            buffer.redo();
        },
        Command::Left => EditBuffer::left,
        Command::Right => EditBuffer::right,
        Command::LineStart => EditBuffer::home,
        Command::LineEnd => EditBuffer::end,
        _ => return None,
    })
}
