//! The one way from foreign text to text that may be shown.
//!
//! Nothing is obeyed and little is hidden: an escape sequence becomes visible text that begins with `␛`.
//! What can't be seen is removed, what would reorder a line is removed and marked, and no character grows
//! past a bounded cluster. The original is kept elsewhere; this is only for the eye. Widths and wrapping
//! are not decided here.
//!
//! Escape sequences that carry a payload (`ESC` and one of `P X ] ^ _`: graphics, clipboard, titles) are
//! shown like any other up to 256 characters. The payload is the run of printable ASCII without spaces
//! after the introducer, so one that never ends stops at the next space or line break and swallows no
//! prose. A longer payload becomes `[terminal data removed, 12 KB]`, and payloads that follow each
//! other directly share one such note.

mod class;

use super::width::cut;
use class::{Class, ZWJ, class, is_base, is_mark, is_one_cluster, joins};
use std::fmt::{self, Write as _};
use std::ops::Deref;
use unicode_width::UnicodeWidthChar;

#[cfg(test)]
mod tests;

/// Payload characters that are still shown as text.
const PAYLOAD_SHOWN: usize = 256;
/// Characters that may hang on one base: combining marks, joiners, selectors.
const MAX_MARKS: u8 = 8;
/// Characters of one cluster, whatever they are.
const MAX_CLUSTER: u8 = 16;
/// The visible form of an escape character.
const ESCAPE_PICTURE: char = '\u{241B}';
/// Put where a line had characters that reorder text.
const BIDI_MARK: &str = "⟪bidi⟫";
/// Carries a combining mark that came without a letter.
const DOTTED_CIRCLE: char = '\u{25CC}';
const BLACK_FLAG: char = '\u{1F3F4}';

/// Text that is safe to draw: no control characters but newline and tab, no bidi or hidden characters.
/// Only this module makes one from foreign text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Shown(String);

impl Shown {
    /// Text of our own, known when the program was written.
    #[must_use]
    pub fn literal(text: &'static str) -> Self {
        Self(text.to_owned())
    }

    /// Appends other shown text.
    pub fn push(&mut self, other: &Self) {
        self.0.push_str(&other.0);
    }
}

impl Deref for Shown {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Sanitises a whole text; newlines and tabs stay.
#[must_use]
pub fn shown(text: &str) -> Shown {
    let mut stream = ShowStream::default();
    let mut out = Shown(String::with_capacity(text.len()));
    stream.push(text, &mut out);
    stream.finish(&mut out);
    out
}

/// Sanitises to one line of at most `max_cells` cells (cut with `…`); line breaks and tabs become spaces.
#[must_use]
pub fn shown_line(text: &str, max_cells: usize) -> Shown {
    let line = shown(text).0.replace(['\n', '\t'], " ");
    Shown(cut(&line, max_cells))
}

/// Foreign text for a log file: one line, with control, hidden and reordering characters written out
/// (`\x1b`, `\u{202e}`).
#[must_use]
pub fn log_safe(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        // Writing to a String can't fail.
        let _ = match c {
            '\n' => write!(out, "\\n"),
            '\r' => write!(out, "\\r"),
            '\t' => write!(out, "\\t"),
            '\0'..='\u{1F}' | '\u{7F}' => write!(out, "\\x{:02x}", u32::from(c)),
            _ if is_base(c) => out.write_char(c),
            _ if matches!(class(c), Class::Other) && c.width() != Some(0) => out.write_char(c),
            _ => write!(out, "\\u{{{:x}}}", u32::from(c)),
        };
    }
    out
}

/// Sanitises a text that comes in pieces; the result does not depend on where it was cut.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShowStream {
    /// Where in a sequence the text is.
    state: State,
    /// Payload characters that may still be shown, introducer included.
    held: String,
    /// Characters of the payload so far, or of all payloads the next note stands for.
    payload: usize,
    /// The cluster being built, as it was written; bounded.
    cluster: String,
    /// Characters in it after the first.
    followers: u8,
    /// Those of them that hang on a base.
    marks: u8,
    /// A joiner or selector that is written only if its right neighbour fits.
    joiner: Option<char>,
    /// Whether this line has its bidi mark.
    is_marked: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Plain text.
    #[default]
    Ground,
    /// After a carriage return.
    Return,
    /// After an escape character.
    Escape,
    /// In a payload, held back while it is short.
    Payload,
    /// In a payload, after an escape character: the terminator, perhaps.
    PayloadEscape,
    /// A long payload has ended; another may follow at once.
    Removed,
    /// The same, after an escape character.
    RemovedEscape,
}

const fn opens_payload(c: char) -> bool {
    matches!(c, 'P' | 'X' | ']' | '^' | '_')
}

impl ShowStream {
    /// Takes the next piece and appends what can be shown already.
    pub fn push(&mut self, text: &str, out: &mut Shown) {
        let out = &mut out.0;
        let mut rest = text;
        while !rest.is_empty() {
            if self.state == State::Ground && self.joiner.is_none() {
                rest = self.copy_run(rest, out);
            }
            let mut chars = rest.chars();
            if let Some(c) = chars.next() {
                self.take(c, out);
            }
            rest = chars.as_str();
        }
    }

    /// The text has ended: appends what was held back.
    pub fn finish(&mut self, out: &mut Shown) {
        let out = &mut out.0;
        match self.state {
            State::Ground => {}
            State::Return => self.write(char_picture('\r'), out),
            State::Escape => self.write(ESCAPE_PICTURE, out),
            State::Payload | State::Removed => self.end_payload(out),
            State::PayloadEscape | State::RemovedEscape => {
                self.end_payload(out);
                self.write(ESCAPE_PICTURE, out);
            }
        }
        self.resolve_joiner(None, out);
        *self = Self::default();
    }

    /// Copies the longest run of characters that need no look, and returns what follows it.
    fn copy_run<'a>(&mut self, text: &'a str, out: &mut String) -> &'a str {
        let end = text.char_indices().find(|(_, c)| !is_base(*c)).map_or(text.len(), |(i, _)| i);
        let Some((run, rest)) = text.split_at_checked(end) else { return text };
        if let Some(last) = run.chars().next_back() {
            out.push_str(run);
            self.begin_cluster(last);
        }
        rest
    }

    /// One character, wherever the text is.
    fn take(&mut self, c: char, out: &mut String) {
        let class = class(c);
        if let Class::EscapeAnd(letter) = class {
            self.step('\u{1B}', Class::Escape, out);
            self.step(letter, Class::Other, out);
        } else {
            self.step(c, class, out);
        }
    }

    fn step(&mut self, c: char, class: Class, out: &mut String) {
        match self.state {
            State::Ground => self.ground(c, class, out),
            State::Return => {
                self.state = State::Ground;
                if c != '\n' {
                    self.write(char_picture('\r'), out);
                }
                self.ground(c, class, out);
            }
            State::Escape => {
                if opens_payload(c) {
                    self.state = State::Payload;
                    self.held.push(ESCAPE_PICTURE);
                    self.held.push(c);
                } else {
                    self.state = State::Ground;
                    self.write(ESCAPE_PICTURE, out);
                    self.ground(c, class, out);
                }
            }
            State::Payload => match c {
                '!'..='~' => self.grow_payload(c),
                '\u{1B}' => self.state = State::PayloadEscape,
                '\u{7}' if self.payload > PAYLOAD_SHOWN => self.state = State::Removed,
                _ => {
                    self.end_payload(out);
                    self.step(c, class, out);
                }
            },
            State::PayloadEscape => {
                if c == '\\' && self.payload > PAYLOAD_SHOWN {
                    self.state = State::Removed;
                } else {
                    self.end_payload(out);
                    self.state = State::Escape;
                    self.step(c, class, out);
                }
            }
            State::Removed => {
                if c == '\u{1B}' {
                    self.state = State::RemovedEscape;
                } else {
                    self.end_payload(out);
                    self.step(c, class, out);
                }
            }
            State::RemovedEscape => {
                if opens_payload(c) {
                    self.state = State::Payload;
                } else {
                    self.end_payload(out);
                    self.state = State::Escape;
                    self.step(c, class, out);
                }
            }
        }
    }

    fn grow_payload(&mut self, c: char) {
        self.payload += 1;
        if self.payload <= PAYLOAD_SHOWN {
            self.held.push(c);
        } else {
            self.held.clear();
        }
    }

    /// A payload has ended, and none follows: shows it if it was short, else says what was removed.
    fn end_payload(&mut self, out: &mut String) {
        let held = std::mem::take(&mut self.held);
        let payload = std::mem::take(&mut self.payload);
        self.state = State::Ground;
        let shown = if payload > PAYLOAD_SHOWN { removed_note(payload) } else { held };
        for c in shown.chars() {
            self.write(c, out);
        }
    }

    fn ground(&mut self, c: char, class: Class, out: &mut String) {
        match class {
            Class::Break => {
                self.write('\n', out);
                self.is_marked = false;
            }
            Class::Tab => self.write('\t', out),
            Class::Return => self.state = State::Return,
            Class::Escape => self.state = State::Escape,
            Class::Backspace => self.write(char_picture(c), out),
            Class::Bidi if !self.is_marked => {
                self.is_marked = true;
                for c in BIDI_MARK.chars() {
                    self.write(c, out);
                }
            }
            Class::Bidi | Class::Hidden | Class::EscapeAnd(_) => {}
            Class::Joiner => {
                self.resolve_joiner(None, out);
                self.joiner = Some(c);
            }
            Class::Tag => {
                self.resolve_joiner(None, out);
                let last = self.cluster.chars().next_back();
                let open = matches!(last, Some('\u{E0030}'..='\u{E007A}'));
                if open || (last == Some(BLACK_FLAG) && c != '\u{E007F}') {
                    self.extend(c, out);
                }
            }
            Class::Foreign => self.write(char::REPLACEMENT_CHARACTER, out),
            Class::Other => self.write(c, out),
        }
    }

    /// Writes a visible character, or drops it when its cluster is full.
    fn write(&mut self, c: char, out: &mut String) {
        self.resolve_joiner(Some(c), out);
        if matches!(c, '\n' | '\t') {
            out.push(c);
            self.cluster.clear();
            return;
        }
        let last = self.cluster.chars().next_back();
        let is_syllable = matches!(c, '\u{AC00}'..='\u{D7A3}')
            && !last.is_some_and(|l| matches!(l, '\u{1100}'..='\u{11FF}' | '\u{A960}'..='\u{A97F}'));
        if is_syllable || (is_base(c) && last != Some(ZWJ)) {
            out.push(c);
            self.begin_cluster(c);
            return;
        }
        if !self.cluster.is_empty() {
            let bytes = self.cluster.len();
            self.cluster.push(c);
            let continues = is_one_cluster(&self.cluster);
            self.cluster.truncate(bytes);
            if continues {
                self.extend(c, out);
                return;
            }
        }
        if is_mark(c) {
            out.push(DOTTED_CIRCLE);
            self.begin_cluster(DOTTED_CIRCLE);
            self.extend(c, out);
        } else {
            let c = if c.width() == Some(0) { char::REPLACEMENT_CHARACTER } else { c };
            out.push(c);
            self.begin_cluster(c);
        }
    }

    fn begin_cluster(&mut self, c: char) {
        self.cluster.clear();
        self.cluster.push(c);
        self.followers = 0;
        self.marks = 0;
    }

    /// Adds a character to the cluster if it has room.
    fn extend(&mut self, c: char, out: &mut String) {
        let mark = u8::from(is_mark(c));
        if self.followers + 1 < MAX_CLUSTER && self.marks + mark <= MAX_MARKS {
            out.push(c);
            self.cluster.push(c);
            self.followers += 1;
            self.marks += mark;
        }
    }

    /// The right neighbour of a held joiner is known: writes the joiner or drops it.
    fn resolve_joiner(&mut self, right: Option<char>, out: &mut String) {
        let Some(joiner) = self.joiner.take() else { return };
        let Some(last) = self.cluster.chars().next_back() else { return };
        // Room for the right neighbour too: a joiner without one would be dropped when shown again.
        let has_room = self.marks + 2 <= MAX_MARKS && self.followers + 2 < MAX_CLUSTER;
        if has_room && joins(last, joiner, right) {
            self.extend(joiner, out);
        }
    }
}

/// The control picture of a C0 character.
fn char_picture(c: char) -> char {
    char::from_u32(0x2400 + u32::from(c)).unwrap_or(char::REPLACEMENT_CHARACTER)
}

fn removed_note(bytes: usize) -> String {
    if bytes < 1_000_000 {
        format!("[terminal data removed, {} KB]", bytes.div_ceil(1000))
    } else {
        format!("[terminal data removed, {}.{} MB]", bytes / 1_000_000, bytes % 1_000_000 / 100_000)
    }
}
