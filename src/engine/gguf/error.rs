//! What can be wrong with a model file, told so that a person can act on it.

use crate::text::{shown, shown_line};
use std::fmt;

/// Kinds of trouble that lead to different next steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GgufErrorKind {
    /// The file can't be opened or read.
    Io,
    /// A directory, a pipe, a device, a socket.
    NotAFile,
    /// Zero bytes.
    Empty,
    /// Another format, named in the message.
    OtherFormat,
    /// A GGUF version this program doesn't read.
    Version,
    /// The header ends early, or tensor data is missing: an incomplete download.
    Incomplete,
    /// A number or size over our limits.
    Limit,
    /// The structure is broken: duplicate or unreadable keys, impossible types.
    Malformed,
    /// A known key holds a value of another type.
    WrongType,
    /// A known key holds a value no working model has.
    BadValue,
    /// An entry of the tensor table is wrong.
    Tensor,
    /// Not the first part of a split model, or another part is missing.
    Split,
    /// Made for a newer engine.
    Architecture,
}

impl GgufErrorKind {
    fn next_step(self) -> &'static str {
        match self {
            Self::Io => "check that the path is right and that you may read it",
            Self::NotAFile => "give the path of a .gguf file",
            Self::Empty | Self::Incomplete => "download the file again, completely",
            Self::OtherFormat => "download the model in GGUF format",
            Self::Version => "convert the model again with a current llama.cpp",
            Self::Limit | Self::Malformed | Self::WrongType | Self::BadValue | Self::Tensor => {
                "the file is damaged or was made by a faulty converter: download it again or take another one"
            }
            Self::Split => "load the first part and keep all parts in one folder",
            Self::Architecture => "this model needs a newer engine: update the program",
        }
    }
}

/// Why a model file was refused. Printed on two lines: what and why, then the next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GgufError {
    /// What kind of trouble.
    pub kind: GgufErrorKind,
    /// The file's path, safe to show.
    pub file: String,
    /// The metadata key or tensor concerned, safe to show.
    pub field: Option<String>,
    /// The cause, one line, safe to show.
    pub what: String,
    /// The next step, one line.
    pub next: String,
}

impl GgufError {
    pub(crate) fn new(kind: GgufErrorKind, what: impl Into<String>) -> Self {
        Self { kind, file: String::new(), field: None, what: what.into(), next: kind.next_step().to_owned() }
    }

    pub(super) fn field(mut self, name: &str) -> Self {
        self.field = Some(plain(name, 80));
        self
    }

    pub(super) fn next(mut self, next: impl Into<String>) -> Self {
        self.next = next.into();
        self
    }

    /// The error of the file with this name; the name is made safe to show.
    #[must_use]
    pub fn in_file(mut self, file: &str) -> Self {
        if self.file.is_empty() {
            self.file = plain(file, 160);
        }
        self
    }

    /// The cause without the file and the next step, for lists.
    #[must_use]
    pub fn one_line(&self) -> String {
        match &self.field {
            Some(field) => format!("{field}: {}", self.what),
            None => self.what.clone(),
        }
    }
}

impl fmt::Display for GgufError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}\n{}", self.file, self.one_line(), self.next)
    }
}

impl std::error::Error for GgufError {}

/// Foreign text on one line without control characters, cut to about `max` characters.
pub(crate) fn plain(text: &str, max: usize) -> String {
    let flat: String = text
        .chars()
        .take(max + 1)
        .flat_map(|c| {
            let escape = c.is_control();
            escape.then(|| c.escape_default()).into_iter().flatten().chain((!escape).then_some(c))
        })
        .collect();
    shown_line(&shown(&flat), max).to_string()
}

/// As [`plain`], from bytes that may not be UTF-8.
pub(crate) fn plain_bytes(bytes: &[u8], max: usize) -> String {
    let head = bytes.get(..bytes.len().min(max.saturating_mul(4))).unwrap_or_default();
    plain(&String::from_utf8_lossy(head), max)
}
