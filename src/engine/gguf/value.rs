//! The types of GGUF values, and one value as far as we keep it.

use std::fmt;

/// A type tag of the file format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Tag {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    Text,
    Array,
    U64,
    I64,
    F64,
}

impl Tag {
    pub(super) fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::U8,
            1 => Self::I8,
            2 => Self::U16,
            3 => Self::I16,
            4 => Self::U32,
            5 => Self::I32,
            6 => Self::F32,
            7 => Self::Bool,
            8 => Self::Text,
            9 => Self::Array,
            10 => Self::U64,
            11 => Self::I64,
            12 => Self::F64,
            _ => return None,
        })
    }

    /// Bytes of one value of a fixed size; 0 for strings and arrays.
    pub(super) fn size(self) -> u64 {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
            Self::Text | Self::Array => 0,
        }
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::U8 => "u8",
            Self::I8 => "i8",
            Self::U16 => "u16",
            Self::I16 => "i16",
            Self::U32 => "u32",
            Self::I32 => "i32",
            Self::F32 => "f32",
            Self::Bool => "bool",
            Self::Text => "string",
            Self::Array => "array",
            Self::U64 => "u64",
            Self::I64 => "i64",
            Self::F64 => "f64",
        })
    }
}

/// What a known key must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    U16,
    U32,
    I32,
    F32,
    Bool,
    Text,
    /// Any single number.
    Number,
    /// One u32 for all layers, or an array with one for each.
    U32s,
    /// One f32 for all layers, or an array with one for each.
    F32s,
    /// An array of strings.
    Texts,
    /// An array of i32.
    I32s,
    /// An array of f32 or i32.
    Scores,
    /// An array of bytes.
    Bytes,
}

impl Kind {
    /// Whether a value with this tag (and, for an array, these elements) is right.
    pub(super) fn accepts(self, tag: Tag, element: Option<Tag>) -> bool {
        match (self, element) {
            (Self::U16, None) => tag == Tag::U16,
            (Self::U32, None) => tag == Tag::U32,
            (Self::I32, None) => tag == Tag::I32,
            (Self::F32 | Self::F32s, None) => tag == Tag::F32,
            (Self::Bool, None) => tag == Tag::Bool,
            (Self::Text, None) => tag == Tag::Text,
            (Self::Number, None) => !matches!(tag, Tag::Text | Tag::Bool | Tag::Array),
            (Self::U32s, None) => matches!(tag, Tag::U32 | Tag::I32),
            (Self::U32s, Some(e)) => matches!(e, Tag::U32 | Tag::I32 | Tag::Bool),
            (Self::F32s, Some(e)) => e == Tag::F32,
            (Self::Texts, Some(e)) => e == Tag::Text,
            (Self::I32s, Some(e)) => e == Tag::I32,
            (Self::Scores, Some(e)) => matches!(e, Tag::F32 | Tag::I32),
            (Self::Bytes, Some(e)) => matches!(e, Tag::U8 | Tag::I8),
            _ => false,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::U16 => "u16",
            Self::U32 => "u32",
            Self::I32 => "i32",
            Self::F32 => "f32",
            Self::Bool => "bool",
            Self::Text => "string",
            Self::Number => "number",
            Self::U32s => "u32 or array of u32",
            Self::F32s => "f32 or array of f32",
            Self::Texts => "array of strings",
            Self::I32s => "array of i32",
            Self::Scores => "array of f32",
            Self::Bytes => "array of bytes",
        })
    }
}

/// A value as far as it is kept: long strings and arrays are measured and passed over.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// Any integer; the widest ones lose nothing.
    Integer(i128),
    Float(f64),
    Bool(bool),
    /// A string; none when it was too long to keep.
    Text(Option<Vec<u8>>),
    /// An array's length, and its numbers when there are few.
    Array {
        len: u64,
        numbers: Option<Vec<f64>>,
    },
}
