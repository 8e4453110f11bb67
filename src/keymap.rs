//! Keys: what was pressed ([`Chord`]) and which command it means in which context.
//!
//! The bindings are one table in [`mod@table`]; help is made from it and the table of commands.

pub mod help;
pub mod table;

pub use help::{HelpRow, help};
pub use table::{BINDINGS, Binding, Context, keys, lookup};

use std::fmt;
use std::str::FromStr;

/// One key press with its modifiers, free of any terminal library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Chord {
    /// The key.
    pub key: Key,
    /// Ctrl held.
    pub ctrl: bool,
    /// Alt held.
    pub alt: bool,
    /// Shift held (never set for characters: they arrive shifted).
    pub shift: bool,
}

/// A key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// A character.
    Char(char),
    /// Enter.
    Enter,
    /// Escape.
    Esc,
    /// Tab.
    Tab,
    /// Shift+Tab.
    BackTab,
    /// Backspace.
    Backspace,
    /// Delete.
    Delete,
    /// Insert.
    Insert,
    /// Arrow up.
    Up,
    /// Arrow down.
    Down,
    /// Arrow left.
    Left,
    /// Arrow right.
    Right,
    /// Home.
    Home,
    /// End.
    End,
    /// Page up.
    PageUp,
    /// Page down.
    PageDown,
    /// F1 to F24.
    F(u8),
}

impl Chord {
    /// The key without modifiers.
    #[must_use]
    pub const fn plain(key: Key) -> Self {
        Self { key, ctrl: false, alt: false, shift: false }
    }

    /// Ctrl and a character.
    #[must_use]
    pub const fn ctrl(c: char) -> Self {
        Self { key: Key::Char(c), ctrl: true, alt: false, shift: false }
    }

    /// Alt and a character.
    #[must_use]
    pub const fn alt(c: char) -> Self {
        Self { key: Key::Char(c), ctrl: false, alt: true, shift: false }
    }

    /// A key with Ctrl.
    #[must_use]
    pub const fn with_ctrl(key: Key) -> Self {
        Self { key, ctrl: true, alt: false, shift: false }
    }

    /// A key with Alt.
    #[must_use]
    pub const fn with_alt(key: Key) -> Self {
        Self { key, ctrl: false, alt: true, shift: false }
    }

    /// A key with Shift.
    #[must_use]
    pub const fn with_shift(key: Key) -> Self {
        Self { key, ctrl: false, alt: false, shift: true }
    }

    /// The same key under its one name: terminals without the kitty protocol send some keys as others.
    #[must_use]
    pub const fn normal(self) -> Self {
        let key = match (self.ctrl, self.key) {
            (true, Key::Char('h')) => return Self { key: Key::Backspace, ctrl: false, ..self },
            (true, Key::Char('i')) => return Self { key: Key::Tab, ctrl: false, ..self },
            (true, Key::Char('m')) => return Self { key: Key::Enter, ctrl: false, ..self },
            (true, Key::Char('[')) => return Self { key: Key::Esc, ctrl: false, ..self },
            // 0x1F is read as Ctrl+7.
            (true, Key::Char('7')) => Key::Char('_'),
            (true, Key::Char(c)) => Key::Char(c.to_ascii_lowercase()),
            (false, key) | (true, key) => key,
        };
        let shift = self.shift && !matches!(key, Key::Char(_));
        Self { key, shift, ..self }
    }

    /// The character this key types, if it types one.
    #[must_use]
    pub const fn typed(self) -> Option<char> {
        match self.key {
            Key::Char(c) if !self.ctrl && !self.alt => Some(c),
            _ => None,
        }
    }
}

/// Named keys, as written in a chord.
const NAMES: &[(Key, &str)] = &[
    (Key::Enter, "enter"),
    (Key::Esc, "esc"),
    (Key::Tab, "tab"),
    (Key::BackTab, "backtab"),
    (Key::Backspace, "backspace"),
    (Key::Delete, "delete"),
    (Key::Insert, "insert"),
    (Key::Up, "up"),
    (Key::Down, "down"),
    (Key::Left, "left"),
    (Key::Right, "right"),
    (Key::Home, "home"),
    (Key::End, "end"),
    (Key::PageUp, "pageup"),
    (Key::PageDown, "pagedown"),
    (Key::Char(' '), "space"),
];

impl fmt::Display for Chord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (is_held, name) in [(self.ctrl, "ctrl+"), (self.alt, "alt+"), (self.shift, "shift+")] {
            if is_held {
                f.write_str(name)?;
            }
        }
        if let Some((_, name)) = NAMES.iter().find(|(key, _)| *key == self.key) {
            return f.write_str(name);
        }
        match self.key {
            Key::Char(c) => write!(f, "{c}"),
            Key::F(n) => write!(f, "f{n}"),
            // All others have a name.
            other => write!(f, "{other:?}"),
        }
    }
}

impl FromStr for Chord {
    type Err = String;

    /// Reads what `Display` writes.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut chord = Self::plain(Key::Esc);
        let mut rest = text;
        loop {
            let (held, tail) = match rest.split_once('+') {
                Some(("ctrl", tail)) => (&mut chord.ctrl, tail),
                Some(("alt", tail)) => (&mut chord.alt, tail),
                Some(("shift", tail)) => (&mut chord.shift, tail),
                _ => break,
            };
            *held = true;
            rest = tail;
        }
        let mut chars = rest.chars();
        chord.key = if let Some((key, _)) = NAMES.iter().find(|(_, name)| *name == rest) {
            *key
        } else if let (Some(c), None) = (chars.next(), chars.next()) {
            Key::Char(c)
        } else if let Some(n @ 1..=24) = rest.strip_prefix('f').and_then(|n| n.parse().ok()) {
            Key::F(n)
        } else {
            return Err(format!("`{text}` is no key; write it like ctrl+x, alt+enter or f2"));
        };
        Ok(chord)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;
    use proptest::prelude::*;

    fn key() -> impl Strategy<Value = Key> {
        prop_oneof![
            any::<char>().prop_map(Key::Char),
            (1_u8..=24).prop_map(Key::F),
            prop::sample::select(NAMES).prop_map(|(key, _)| key),
        ]
    }

    proptest! {
        #[test]
        fn chords_are_read_as_written(key in key(), ctrl: bool, alt: bool, shift: bool) {
            let chord = Chord { key, ctrl, alt, shift };
            prop_assert_eq!(chord.to_string().parse(), Ok(chord));
        }
    }

    #[test]
    fn every_key_has_a_name() {
        let all = [Key::Enter, Key::Esc, Key::Tab, Key::BackTab, Key::Backspace, Key::Delete, Key::Insert];
        let more =
            [Key::Up, Key::Down, Key::Left, Key::Right, Key::Home, Key::End, Key::PageUp, Key::PageDown];
        for key in all.into_iter().chain(more) {
            assert!(NAMES.iter().any(|(named, _)| *named == key), "{key:?}");
        }
        for (chord, text) in [
            (Chord::ctrl('x'), "ctrl+x"),
            (Chord::with_shift(Key::Enter), "shift+enter"),
            (Chord::plain(Key::F(2)), "f2"),
            (Chord::ctrl('+'), "ctrl++"),
            (Chord::plain(Key::Char('f')), "f"),
        ] {
            assert_eq!(chord.to_string(), text);
            assert_eq!(text.parse(), Ok(chord));
        }
        assert_eq!(
            "hyper+x".parse::<Chord>(),
            Err("`hyper+x` is no key; write it like ctrl+x, alt+enter or f2".to_owned())
        );
    }

    #[test]
    fn old_terminals_names_are_brought_together() {
        for (pressed, meant) in [
            (Chord::ctrl('h'), Chord::plain(Key::Backspace)),
            (Chord::ctrl('m'), Chord::plain(Key::Enter)),
            (Chord::ctrl('i'), Chord::plain(Key::Tab)),
            (Chord::ctrl('7'), Chord::ctrl('_')),
            (Chord::ctrl('J'), Chord::ctrl('j')),
            (Chord { shift: true, ..Chord::plain(Key::Char('A')) }, Chord::plain(Key::Char('A'))),
            (Chord::with_shift(Key::Enter), Chord::with_shift(Key::Enter)),
        ] {
            assert_eq!(pressed.normal(), meant);
        }
    }
}
