//! From the terminal's bytes to keys and pastes. Pure, and independent of where the bytes are cut.
//!
//! Knows the keys of xterm and its kin, of the Linux console, and of kitty's keyboard protocol. Everything else
//! that looks like a sequence (answers to queries, mouse and focus reports) is dropped, never typed.

mod codes;

use super::Input;
use crate::keymap::{Chord, Key};
use codes::Modifiers;

const ESC: u8 = 0x1b;
const BEL: u8 = 0x07;
const PASTE_END: &[u8] = b"\x1b[201~";
/// A sequence longer than this is none.
const LONGEST_SEQUENCE: usize = 256;
/// A string (an answer, an image) longer than this is none.
const LONGEST_STRING: usize = 64 * 1024;
/// A longer paste is handed over in parts.
const LONGEST_PASTE: usize = 64 * 1024 * 1024;

/// What the parser has begun and not finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiting {
    /// Nothing.
    Nothing,
    /// A key or another sequence.
    Sequence,
    /// A paste.
    Paste,
}

/// Bytes in, inputs out.
#[derive(Debug, Default)]
pub(super) struct Parser {
    /// Unfinished bytes outside a paste, or the possible beginning of a paste's end.
    held: Vec<u8>,
    paste: Option<Vec<u8>>,
}

/// What the bytes at the front are.
enum Front {
    /// A whole sequence of this length, and what it means, if anything.
    Whole(usize, Option<Chord>),
    /// The beginning of a paste, of this length.
    Paste(usize),
    /// More bytes are needed to tell.
    Unfinished,
}

impl Parser {
    /// Takes the next bytes.
    pub(super) fn push(&mut self, bytes: &[u8], out: &mut Vec<Input>) {
        self.held.extend_from_slice(bytes);
        let held = std::mem::take(&mut self.held);
        let mut rest = held.as_slice();
        loop {
            if let Some(paste) = &mut self.paste {
                let (text, after) = split_paste(rest);
                paste.extend_from_slice(text);
                match after {
                    Some(after) => {
                        rest = after;
                        self.end_paste(out);
                    }
                    None => {
                        rest = rest.get(text.len()..).unwrap_or_default();
                        if paste.len() >= LONGEST_PASTE {
                            self.end_paste(out);
                            self.paste = Some(Vec::new());
                        }
                        break;
                    }
                }
                continue;
            }
            if rest.is_empty() {
                break;
            }
            match front(rest) {
                Front::Whole(length, chord) => {
                    out.extend(chord.map(Input::Key));
                    rest = rest.get(length..).unwrap_or_default();
                }
                Front::Paste(length) => {
                    self.paste = Some(Vec::new());
                    rest = rest.get(length..).unwrap_or_default();
                }
                Front::Unfinished => break,
            }
        }
        self.held = rest.to_vec();
    }

    /// What has begun and not finished.
    pub(super) fn waiting(&self) -> Waiting {
        match (&self.paste, self.held.is_empty()) {
            (Some(_), _) => Waiting::Paste,
            (None, false) => Waiting::Sequence,
            (None, true) => Waiting::Nothing,
        }
    }

    /// Nothing more comes for now: what has begun is a key of its own, or is dropped; a paste has ended.
    pub(super) fn give_up(&mut self, out: &mut Vec<Input>) {
        let held = std::mem::take(&mut self.held);
        if let Some(paste) = &mut self.paste {
            paste.extend_from_slice(&held);
            self.end_paste(out);
            return;
        }
        let key = match *held.as_slice() {
            [ESC] => Some(Chord::plain(Key::Esc)),
            [ESC, c @ (b'[' | b']' | b'O' | b'P' | b'_' | b'^' | b'X')] => Some(Chord::alt(char::from(c))),
            _ => None,
        };
        out.extend(key.map(Input::Key));
    }

    fn end_paste(&mut self, out: &mut Vec<Input>) {
        if let Some(paste) = self.paste.take() {
            let text = String::from_utf8(paste)
                .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
            out.push(Input::Paste(text));
        }
    }
}

/// The text of a paste at the front, and what follows its end if the end is there. Without it, the text stops
/// before anything that may be its beginning.
fn split_paste(bytes: &[u8]) -> (&[u8], Option<&[u8]>) {
    let mut from = 0;
    while let Some(found) = bytes.get(from..).and_then(|rest| rest.iter().position(|byte| *byte == ESC)) {
        let at = from + found;
        let (text, rest) = bytes.split_at(at);
        if let Some(after) = rest.strip_prefix(PASTE_END) {
            return (text, Some(after));
        }
        if PASTE_END.starts_with(rest) {
            return (text, None);
        }
        from = at + 1;
    }
    (bytes, None)
}

fn front(bytes: &[u8]) -> Front {
    match *bytes {
        [ESC] => Front::Unfinished,
        [ESC, b'[', ref rest @ ..] => control_sequence(rest),
        [ESC, b'O', ref rest @ ..] => match rest.first() {
            None => Front::Unfinished,
            Some(last) => Front::Whole(3, codes::single_shift(*last)),
        },
        [ESC, b']' | b'P' | b'_' | b'^' | b'X', ref rest @ ..] => string(rest),
        [ESC, ESC, ..] => Front::Whole(1, Some(Chord::plain(Key::Esc))),
        [ESC, ref rest @ ..] => match plain(rest) {
            Front::Whole(length, chord) => {
                Front::Whole(length + 1, chord.map(|chord| Chord { alt: true, ..chord }))
            }
            other => other,
        },
        _ => plain(bytes),
    }
}

/// A key that is no sequence: a control character or a character.
fn plain(bytes: &[u8]) -> Front {
    let Some(first) = bytes.first() else { return Front::Unfinished };
    if first.is_ascii() {
        return Front::Whole(1, codes::ascii(*first));
    }
    let length = match first {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => return Front::Whole(1, None),
    };
    let whole = bytes.get(..length).unwrap_or(bytes);
    match std::str::from_utf8(whole) {
        Ok(text) => {
            let typed = text.chars().next().filter(|c| !c.is_control());
            Front::Whole(length, typed.map(|c| Chord::plain(Key::Char(c))))
        }
        Err(error) if error.error_len().is_none() => Front::Unfinished,
        Err(error) => Front::Whole(error.error_len().unwrap_or(1), None),
    }
}

/// What follows `ESC [`.
fn control_sequence(rest: &[u8]) -> Front {
    // The Linux console's F1 to F5 are `ESC [ [ A` to `E`.
    if let [b'[', after @ ..] = rest {
        return match after.first() {
            None => Front::Unfinished,
            Some(letter @ b'A'..=b'E') => Front::Whole(4, Some(Chord::plain(Key::F(letter - b'A' + 1)))),
            Some(_) => Front::Whole(3, None),
        };
    }
    let Some(end) = rest.iter().position(|byte| !(0x20..=0x3f).contains(byte)) else {
        let is_none = rest.len() > LONGEST_SEQUENCE;
        return if is_none { Front::Whole(rest.len() + 2, None) } else { Front::Unfinished };
    };
    let (parameters, last) =
        (rest.get(..end).unwrap_or_default(), rest.get(end).copied().unwrap_or_default());
    let length = end + 3;
    match (parameters, last) {
        (b"200", b'~') => Front::Paste(length),
        // What ends it is no final byte: it was cut off, and the next sequence or key begins.
        (_, byte) if !(0x40..=0x7e).contains(&byte) => Front::Whole(length - 1, None),
        _ => {
            Front::Whole(length, std::str::from_utf8(parameters).ok().and_then(|p| codes::sequence(p, last)))
        }
    }
}

/// What follows the introducer of a string: an answer to somebody's query. Dropped with its end.
fn string(rest: &[u8]) -> Front {
    let end = rest.iter().enumerate().find_map(|(at, byte)| match *byte {
        BEL => Some(Some(at + 1)),
        ESC => match rest.get(at + 1) {
            None => Some(None),
            Some(b'\\') => Some(Some(at + 2)),
            // Cut off by another sequence.
            Some(_) => Some(Some(at)),
        },
        _ => None,
    });
    match end {
        Some(Some(length)) => Front::Whole(length + 2, None),
        None if rest.len() > LONGEST_STRING => Front::Whole(rest.len() + 2, None),
        _ => Front::Unfinished,
    }
}

impl Modifiers {
    /// A key pressed with these; `None` when the desktop's modifiers are among them.
    fn press(self, key: Key) -> Option<Chord> {
        let Self { shift, alt, ctrl, foreign } = self;
        if foreign {
            return None;
        }
        Some(match key {
            // With Ctrl a plain terminal can't say whether Shift was held; a newer one shall not differ.
            Key::Char(c) if ctrl => Chord { key: Key::Char(c.to_ascii_lowercase()), ctrl, alt, shift: false },
            Key::Char(_) | Key::BackTab => Chord { key, ctrl, alt, shift: false },
            Key::Tab if shift => Chord { key: Key::BackTab, ctrl, alt, shift: false },
            _ => Chord { key, ctrl, alt, shift },
        })
    }
}

#[cfg(test)]
mod tests;
