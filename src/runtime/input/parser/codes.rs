//! The tables: which bytes, letters and numbers are which key.

use crate::keymap::{Chord, Key};

/// Modifiers of a sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Modifiers {
    pub(super) shift: bool,
    pub(super) alt: bool,
    pub(super) ctrl: bool,
    /// Super, hyper or meta: keys of the desktop.
    pub(super) foreign: bool,
}

impl Modifiers {
    /// From the parameter: one more than the sum of the bits. The locks don't count.
    fn from_parameter(parameter: u32) -> Self {
        let bits = parameter.saturating_sub(1);
        let has = |bit| bits & bit != 0;
        Self { shift: has(1), alt: has(2), ctrl: has(4), foreign: has(8 | 16 | 32) }
    }
}

/// A byte below 128.
pub(super) fn ascii(byte: u8) -> Option<Chord> {
    Some(match byte {
        b'\r' => Chord::plain(Key::Enter),
        b'\t' => Chord::plain(Key::Tab),
        0x7f => Chord::plain(Key::Backspace),
        0x1b => Chord::plain(Key::Esc),
        0 => Chord::ctrl(' '),
        // The control character of a letter, or of one of \ ] ^ _.
        1..=0x1f => Chord::ctrl(char::from(byte | 0x40).to_ascii_lowercase()),
        _ => Chord::plain(Key::Char(char::from(byte))),
    })
}

/// The byte after `ESC O`.
pub(super) fn single_shift(last: u8) -> Option<Chord> {
    let key = match last {
        b'M' => Key::Enter,
        _ => letter(last)?,
    };
    Some(Chord::plain(key))
}

/// A control sequence, from its parameters and its last byte.
pub(super) fn sequence(parameters: &str, last: u8) -> Option<Chord> {
    // Private ones (`?`, `>`, `<`, `=`) and those with intermediate bytes are answers and reports.
    if !parameters.bytes().all(|byte| byte.is_ascii_digit() || byte == b';' || byte == b':') {
        return None;
    }
    let field = |index: usize| parameters.split(';').nth(index).unwrap_or_default();
    let part =
        |index: usize, sub: usize| field(index).split(':').nth(sub).and_then(|n| n.parse::<u32>().ok());
    let modifiers = Modifiers::from_parameter(part(1, 0).unwrap_or(1));
    // Kitty's protocol tells what happened to the key: 3 is a release.
    if part(1, 1) == Some(3) {
        return None;
    }
    let key = match last {
        b'u' => {
            let shifted = part(0, 1).filter(|_| modifiers.shift);
            kitty(part(0, 0)?, shifted, modifiers)?
        }
        // xterm's modifyOtherKeys.
        b'~' if field(0) == "27" => kitty(part(2, 0)?, None, modifiers)?,
        b'~' => numbered(part(0, 0)?)?,
        b'Z' => Key::BackTab,
        // `ESC [ row ; col R` is also the answer to where the cursor is.
        b'R' if field(0) != "1" || !(2..=8).contains(&part(1, 0)?) => return None,
        b'E' => return None,
        // With parameters these are keys with modifiers, and the first parameter is 1.
        _ if parameters.is_empty() || field(0) == "1" => letter(last)?,
        _ => return None,
    };
    modifiers.press(key)
}

fn letter(last: u8) -> Option<Key> {
    Some(match last {
        b'A' => Key::Up,
        b'B' => Key::Down,
        b'C' => Key::Right,
        b'D' => Key::Left,
        b'F' => Key::End,
        b'H' => Key::Home,
        b'P' => Key::F(1),
        b'Q' => Key::F(2),
        b'R' => Key::F(3),
        b'S' => Key::F(4),
        _ => return None,
    })
}

fn numbered(number: u32) -> Option<Key> {
    Some(match number {
        1 | 7 => Key::Home,
        2 => Key::Insert,
        3 => Key::Delete,
        4 | 8 => Key::End,
        5 => Key::PageUp,
        6 => Key::PageDown,
        11..=15 => function(number - 10)?,
        17..=21 => function(number - 11)?,
        23..=26 => function(number - 12)?,
        28 | 29 => function(number - 13)?,
        31..=34 => function(number - 14)?,
        _ => return None,
    })
}

fn function(number: u32) -> Option<Key> {
    u8::try_from(number).ok().filter(|n| (1..=24).contains(n)).map(Key::F)
}

/// A key of kitty's protocol: a character's code, or a number of the private area.
fn kitty(code: u32, shifted: Option<u32>, modifiers: Modifiers) -> Option<Key> {
    Some(match code {
        9 => Key::Tab,
        13 | 57414 => Key::Enter,
        27 => Key::Esc,
        127 => Key::Backspace,
        57376..=57387 => function(code - 57376 + 13)?,
        57399..=57408 => Key::Char(char::from_digit(code - 57399, 10)?),
        57409 => Key::Char('.'),
        57410 => Key::Char('/'),
        57411 => Key::Char('*'),
        57412 => Key::Char('-'),
        57413 => Key::Char('+'),
        57415 => Key::Char('='),
        57416 => Key::Char(','),
        57417 => Key::Left,
        57418 => Key::Right,
        57419 => Key::Up,
        57420 => Key::Down,
        57421 => Key::PageUp,
        57422 => Key::PageDown,
        57423 => Key::Home,
        57424 => Key::End,
        57425 => Key::Insert,
        57426 => Key::Delete,
        57344..=63743 => return None,
        _ => {
            let typed = char::from_u32(shifted.unwrap_or(code)).filter(|c| !c.is_control())?;
            let upper = || typed.to_uppercase().next().unwrap_or(typed);
            Key::Char(if modifiers.shift && shifted.is_none() { upper() } else { typed })
        }
    })
}
