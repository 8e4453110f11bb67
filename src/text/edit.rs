//! The edit buffer: text with a cursor, as the composer and search fields use it. Pure.

/// Text being edited.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EditBuffer {
    text: String,
    cursor: usize,
}

impl EditBuffer {
    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The cursor as a byte offset, always on a grapheme border.
    #[must_use]
    pub fn cursor(&self) -> usize {
        self.cursor
    }
}
