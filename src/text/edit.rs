//! The edit buffer: text with a cursor, as the composer and search fields use it. Pure.
//!
//! A long paste is kept aside and stands in the text as one private-use character, a *chip*: the text stays
//! short however much is pasted. [`EditBuffer::expanded`] puts the pastes back. The buffer knows nothing of
//! keys, history or drawing; [`EditBuffer::rows`] says how it wraps.

mod paste;
mod undo;
mod wrap;

pub use paste::Pasted;
pub use wrap::{Row, Rows};

use std::ops::Range;
use std::sync::Arc;
use undo::{Change, Group, UndoLog};
use unicode_segmentation::GraphemeCursor;

/// Text set as a whole ([`EditBuffer::from_text`]) above this many bytes becomes a chip.
const PLAIN_BYTES: usize = 16 * 1024;

/// Text being edited.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EditBuffer {
    text: String,
    cursor: usize,
    /// Pastes kept aside; the nth is drawn where U+F0000 + n stands. Never shrinks while the text lives,
    /// because undo may bring a chip back.
    chips: Vec<Arc<str>>,
    killed: String,
    log: UndoLog,
    /// The column that moving up and down aims for.
    goal: Option<usize>,
}

/// What a grapheme is, for word moves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Space,
    Word,
    Other,
    Chip,
}

impl EditBuffer {
    /// A buffer with this text, the cursor at its end, nothing to undo. A very long text becomes a chip.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        let mut buffer = Self::default();
        let (clean, _) = paste::clean(text);
        if clean.len() > PLAIN_BYTES {
            buffer.insert_chip(clean);
        } else {
            buffer.cursor = clean.len();
            buffer.text = clean;
        }
        buffer.log = UndoLog::default();
        buffer
    }

    /// As [`Self::from_text`], but a text that is a chip when pasted is one here.
    #[must_use]
    pub fn folded(text: &str) -> Self {
        let mut buffer = Self::default();
        buffer.paste(text);
        buffer.log = UndoLog::default();
        buffer
    }

    /// The text, with one private-use character for each chip.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The cursor as a byte offset, always on a grapheme border.
    #[must_use]
    pub fn cursor(&self) -> usize {
        self.cursor
    }

    /// Whether there is no text.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Whether there is nothing but white space.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        self.text.trim().is_empty()
    }

    /// The text with every chip replaced by what was pasted.
    #[must_use]
    pub fn expanded(&self) -> String {
        self.expand(&self.text)
    }

    /// Whether something long was pasted into it, which stands there as a chip.
    #[must_use]
    pub fn has_pastes(&self) -> bool {
        self.text.chars().any(|c| paste::chip_index(c).is_some())
    }

    /// Characters of the whole text, those of chips included.
    #[must_use]
    pub fn expanded_chars(&self) -> usize {
        if self.chips.is_empty() {
            return self.text.chars().count();
        }
        let chip = |c| paste::chip_index(c).and_then(|index| self.chips.get(index));
        self.text.chars().map(|c| chip(c).map_or(1, |pasted| pasted.chars().count())).sum()
    }

    /// Takes the whole text out, chips replaced, and leaves the buffer empty. What was killed can still be
    /// yanked.
    pub fn take(&mut self) -> String {
        let text = self.expanded();
        let killed = self.expand(&self.killed);
        *self = Self { killed, ..Self::default() };
        text
    }

    /// What is drawn for a chip character: `[paste 2: 84 lines]`. `None` for any other character.
    #[must_use]
    pub fn chip_label(&self, c: char) -> Option<String> {
        let index = paste::chip_index(c)?;
        self.chips.get(index).map(|pasted| paste::label(index + 1, pasted))
    }

    /// Inserts typed text at the cursor. Control characters other than newline and tab are dropped, and so
    /// is private use plane 15, which stands for chips.
    pub fn insert(&mut self, typed: &str) {
        let clean: String = typed.chars().filter(|c| paste::is_plain(*c)).collect();
        if !clean.is_empty() {
            self.change(self.cursor..self.cursor, &clean, Group::Type);
        }
    }

    /// Inserts a line break.
    pub fn newline(&mut self) {
        self.insert("\n");
    }

    /// Inserts pasted text: line ends become newlines, escape sequences, control characters and hidden tag
    /// characters are left out. More than 10 lines or 1000 characters become a chip. One undo takes all back.
    pub fn paste(&mut self, raw: &str) -> Pasted {
        let (clean, dropped) = paste::clean(raw);
        if paste::is_long(&clean) && self.chips.len() < paste::MAX_CHIPS {
            self.insert_chip(clean);
            return Pasted { chip: Some(self.chips.len()), dropped };
        }
        if !clean.is_empty() {
            self.change(self.cursor..self.cursor, &clean, Group::None);
        }
        Pasted { chip: None, dropped }
    }

    /// Replaces a piece of text; the cursor goes after what is inserted. Does nothing unless both ends are
    /// character borders.
    pub fn replace(&mut self, range: Range<usize>, inserted: &str) {
        if self.text.get(range.clone()).is_some() {
            self.change(range, inserted, Group::None);
        }
    }

    /// Deletes the grapheme before the cursor.
    pub fn delete_back(&mut self) {
        self.change(self.previous(self.cursor)..self.cursor, "", Group::Back);
    }

    /// Deletes the grapheme after the cursor.
    pub fn delete_forward(&mut self) {
        self.change(self.cursor..self.next(self.cursor), "", Group::Forward);
    }

    /// Deletes back to the start of a word (letters and digits); it can be yanked.
    pub fn delete_word_back(&mut self) {
        self.kill(self.word_start()..self.cursor, Group::KillBack);
    }

    /// Deletes to the end of a word; it can be yanked.
    pub fn delete_word_forward(&mut self) {
        self.kill(self.cursor..self.word_end(), Group::KillForward);
    }

    /// Deletes back to white space, as Ctrl+W does; it can be yanked.
    pub fn kill_word_back(&mut self) {
        let from = self.back_while(self.cursor, |class| class == Class::Space);
        let from = self.back_while(from, |class| class != Class::Space);
        self.kill(from..self.cursor, Group::KillBack);
    }

    /// Deletes to the start of the line, at the start the line break; it can be yanked.
    pub fn kill_to_line_start(&mut self) {
        let start = self.line_start();
        let start = if start == self.cursor { self.previous(start) } else { start };
        self.kill(start..self.cursor, Group::KillBack);
    }

    /// Deletes to the end of the line, at the end the line break; it can be yanked.
    pub fn kill_to_line_end(&mut self) {
        let end = self.line_end();
        let end = if end == self.cursor { self.next(end) } else { end };
        self.kill(self.cursor..end, Group::KillForward);
    }

    /// Inserts what was killed last.
    pub fn yank(&mut self) {
        if !self.killed.is_empty() {
            let killed = self.killed.clone();
            self.change(self.cursor..self.cursor, &killed, Group::None);
        }
    }

    /// Takes the last group of changes back. Returns whether there was one.
    pub fn undo(&mut self) -> bool {
        let Some(change) = self.log.undo() else { return false };
        self.text.replace_range(change.at..change.at + change.inserted.len(), &change.removed);
        self.cursor = change.before;
        self.goal = None;
        true
    }

    /// Makes the last undone group of changes again. Returns whether there was one.
    pub fn redo(&mut self) -> bool {
        let Some(change) = self.log.redo() else { return false };
        self.text.replace_range(change.at..change.at + change.removed.len(), &change.inserted);
        self.cursor = change.after;
        self.goal = None;
        true
    }

    /// Moves one grapheme to the left.
    pub fn left(&mut self) {
        self.go(self.previous(self.cursor));
    }

    /// Moves one grapheme to the right.
    pub fn right(&mut self) {
        self.go(self.next(self.cursor));
    }

    /// Moves to the start of this or the previous word.
    pub fn word_left(&mut self) {
        self.go(self.word_start());
    }

    /// Moves to the end of this or the next word.
    pub fn word_right(&mut self) {
        self.go(self.word_end());
    }

    /// Moves to the start of the line.
    pub fn home(&mut self) {
        self.go(self.line_start());
    }

    /// Moves to the end of the line.
    pub fn end(&mut self) {
        self.go(self.line_end());
    }

    /// Moves to the start of the text.
    pub fn to_start(&mut self) {
        self.go(0);
    }

    /// Moves to the end of the text.
    pub fn to_end(&mut self) {
        self.go(self.text.len());
    }

    /// Moves to the visual row above at this width. Returns whether there was one.
    pub fn up(&mut self, width: usize) -> bool {
        self.vertical(width, |row| row.checked_sub(1))
    }

    /// Moves to the visual row below at this width. Returns whether there was one.
    pub fn down(&mut self, width: usize) -> bool {
        self.vertical(width, |row| Some(row + 1))
    }

    /// The text as drawn at a width in cells (at least 2): visual rows, and where the cursor is in them.
    #[must_use]
    pub fn rows(&self, width: usize) -> Rows {
        wrap::rows(self, width)
    }

    fn vertical(&mut self, width: usize, to: impl FnOnce(usize) -> Option<usize>) -> bool {
        let rows = self.rows(width);
        let goal = self.goal.unwrap_or(rows.cursor_col);
        let Some(at) = to(rows.cursor_row).and_then(|row| wrap::offset_at(self, &rows, row, goal, width))
        else {
            return false;
        };
        self.go(at);
        self.goal = Some(goal);
        true
    }

    fn go(&mut self, to: usize) {
        self.cursor = to;
        self.goal = None;
        self.log.break_group();
    }

    fn insert_chip(&mut self, pasted: String) {
        let Some(c) = paste::chip_char(self.chips.len()) else { return };
        self.chips.push(pasted.into());
        self.change(self.cursor..self.cursor, c.encode_utf8(&mut [0; 4]), Group::None);
    }

    fn kill(&mut self, range: Range<usize>, group: Group) {
        let Some(killed) = self.text.get(range.clone()).filter(|k| !k.is_empty()) else { return };
        self.killed = match (self.log.group() == group, group) {
            (true, Group::KillBack) => format!("{killed}{}", self.killed),
            (true, Group::KillForward) => format!("{}{killed}", self.killed),
            _ => killed.to_owned(),
        };
        self.change(range, "", group);
    }

    fn change(&mut self, range: Range<usize>, inserted: &str, group: Group) {
        if range.is_empty() && inserted.is_empty() {
            return;
        }
        let before = self.cursor;
        let removed = self.text.get(range.clone()).unwrap_or_default().to_owned();
        let at = range.start;
        self.text.replace_range(range, inserted);
        self.cursor = self.border_from(at + inserted.len());
        self.goal = None;
        let change = Change { at, removed, inserted: inserted.to_owned(), before, after: self.cursor };
        self.log.push(change, group);
    }

    fn expand(&self, text: &str) -> String {
        if self.chips.is_empty() {
            return text.to_owned();
        }
        let mut out = String::with_capacity(text.len());
        for c in text.chars() {
            match paste::chip_index(c).and_then(|index| self.chips.get(index)) {
                Some(pasted) => out.push_str(pasted),
                None => out.push(c),
            }
        }
        out
    }

    fn border_from(&self, at: usize) -> usize {
        let is_border = GraphemeCursor::new(at, self.text.len(), true).is_boundary(&self.text, 0);
        if is_border.unwrap_or(true) { at } else { self.next(at) }
    }

    fn next(&self, at: usize) -> usize {
        let len = self.text.len();
        GraphemeCursor::new(at, len, true).next_boundary(&self.text, 0).ok().flatten().unwrap_or(len)
    }

    fn previous(&self, at: usize) -> usize {
        let len = self.text.len();
        GraphemeCursor::new(at, len, true).prev_boundary(&self.text, 0).ok().flatten().unwrap_or(0)
    }

    fn line_start(&self) -> usize {
        self.text.get(..self.cursor).and_then(|before| before.rfind('\n')).map_or(0, |at| at + 1)
    }

    fn line_end(&self) -> usize {
        let rest = self.text.get(self.cursor..).unwrap_or_default();
        rest.find('\n').map_or(self.text.len(), |at| self.cursor + at)
    }

    fn class(&self, range: Range<usize>) -> Class {
        match self.text.get(range).and_then(|g| g.chars().next()) {
            Some(c) if paste::chip_index(c).is_some() => Class::Chip,
            Some(c) if c.is_alphanumeric() || c == '_' => Class::Word,
            Some(c) if c.is_whitespace() => Class::Space,
            _ => Class::Other,
        }
    }

    fn back_while(&self, mut at: usize, wanted: impl Fn(Class) -> bool) -> usize {
        while at > 0 {
            let previous = self.previous(at);
            if !wanted(self.class(previous..at)) {
                break;
            }
            at = previous;
        }
        at
    }

    fn forward_while(&self, mut at: usize, wanted: impl Fn(Class) -> bool) -> usize {
        while at < self.text.len() {
            let next = self.next(at);
            if !wanted(self.class(at..next)) {
                break;
            }
            at = next;
        }
        at
    }

    fn word_start(&self) -> usize {
        let at = self.back_while(self.cursor, |class| matches!(class, Class::Space | Class::Other));
        if at > 0 && self.class(self.previous(at)..at) == Class::Chip {
            return self.previous(at);
        }
        self.back_while(at, |class| class == Class::Word)
    }

    fn word_end(&self) -> usize {
        let at = self.forward_while(self.cursor, |class| matches!(class, Class::Space | Class::Other));
        if at < self.text.len() && self.class(at..self.next(at)) == Class::Chip {
            return self.next(at);
        }
        self.forward_while(at, |class| class == Class::Word)
    }
}

#[cfg(test)]
mod tests;
