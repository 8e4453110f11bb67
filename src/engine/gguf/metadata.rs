//! Reading the key-value part: structure, caps, types of known keys, and the token list as it streams by.
//! What the values must be is in [`super::rules`].

use super::error::{GgufError, GgufErrorKind, plain_bytes};
use super::keys;
use super::reader::Reader;
use super::value::{Kind, Tag, Value};
use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::io::{Read, Seek};

/// The most keys, and the most tensors.
pub(super) const MAX_ENTRIES: u64 = 65_536;
const MAX_KEY: u64 = 1024;
const MAX_ELEMENTS: u64 = 8 << 20;
const MAX_TEMPLATE: u64 = 256 << 10;
const MAX_TOKEN: u64 = 1024;
/// Strings up to this length are kept whatever their key.
const KEPT_TEXT: u64 = 256;
/// Number arrays up to this length are kept (layers are at most 512).
const KEPT_NUMBERS: u64 = 1024;
/// The most tokens whose text is parsed as a token of its own.
const MAX_SPECIAL: usize = 65_536;

/// All keys of a file, with what was learnt of the long ones while they passed.
#[derive(Debug, Default)]
pub(super) struct Metadata {
    values: BTreeMap<String, Value>,
    tags: BTreeMap<String, (Tag, Option<Tag>)>,
    pub(super) tokens: Option<Tokens>,
    /// Where the merges are: byte offset and count.
    pub(super) merges: Option<(u64, u64)>,
    /// Ids of tokens that mark control, by the token types.
    pub(super) specials: Vec<u32>,
    /// How many token types there are.
    pub(super) types: Option<u64>,
    /// How many token scores there are.
    pub(super) scores: Option<u64>,
}

/// The token list as it streamed by.
#[derive(Debug)]
pub(super) struct Tokens {
    /// Byte offset of the first one.
    pub(super) at: u64,
    pub(super) len: u64,
    /// Which bytes have a token of their own (`<0x41>` or `A`).
    pub(super) bytes: [bool; 256],
}

impl Metadata {
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    /// A string, with bad UTF-8 replaced.
    pub(super) fn text(&self, key: &str) -> Option<String> {
        match self.values.get(key) {
            Some(Value::Text(Some(bytes))) => Some(String::from_utf8_lossy(bytes).into_owned()),
            _ => None,
        }
    }

    /// An integer as u64; none when absent or negative.
    pub(super) fn uint(&self, key: &str) -> Option<u64> {
        match self.values.get(key) {
            Some(Value::Integer(n)) => u64::try_from(*n).ok(),
            _ => None,
        }
    }

    pub(super) fn float(&self, key: &str) -> Option<f64> {
        match self.values.get(key) {
            Some(Value::Float(x)) => Some(*x),
            Some(Value::Integer(n)) => Some(*n as f64),
            _ => None,
        }
    }

    pub(super) fn bool(&self, key: &str) -> Option<bool> {
        match self.values.get(key) {
            Some(Value::Bool(b)) => Some(*b),
            _ => None,
        }
    }

    /// Checks the keys that belong to this architecture.
    pub(super) fn check_types_of(&self, architecture: &str) -> Result<(), GgufError> {
        for (key, (tag, element)) in &self.tags {
            let own = key.strip_prefix(architecture).and_then(|rest| rest.strip_prefix('.'));
            if let Some(kind) = own.and_then(keys::of_architecture) {
                check_kind(key, kind, *tag, *element)?;
            }
        }
        Ok(())
    }
}

fn check_kind(key: &str, kind: Kind, tag: Tag, element: Option<Tag>) -> Result<(), GgufError> {
    if kind.accepts(tag, element) {
        return Ok(());
    }
    let found = match element {
        Some(element) => format!("array of {element}"),
        None => tag.to_string(),
    };
    Err(GgufError::new(GgufErrorKind::WrongType, format!("holds a {found}; it must be a {kind}")).field(key))
}

fn malformed(what: impl Into<String>) -> GgufError {
    GgufError::new(GgufErrorKind::Malformed, what)
}

fn limit(what: impl Into<String>) -> GgufError {
    GgufError::new(GgufErrorKind::Limit, what)
}

/// Reads `count` keys with their values.
pub(super) fn read<R: Read + Seek>(reader: &mut Reader<R>, count: u64) -> Result<Metadata, GgufError> {
    let mut meta = Metadata::default();
    let mut buffer = Vec::new();
    for index in 0..count {
        let key = read_key(reader, &mut buffer, index)?;
        if meta.tags.contains_key(&key) {
            return Err(malformed("the key appears twice").field(&key));
        }
        let number = reader.u32()?;
        let Some(tag) = Tag::from_number(number) else {
            return Err(malformed(format!("has the unknown value type {number}")).field(&key));
        };
        let element = if tag == Tag::Array { Some(read_element_tag(reader, &key)?) } else { None };
        if let Some(kind) = keys::fixed(&key) {
            check_kind(&key, kind, tag, element)?;
        }
        let value = match element {
            Some(element) => read_array(reader, &mut buffer, &mut meta, &key, element),
            None => read_scalar(reader, &mut buffer, &key, tag),
        }
        .map_err(|e| if e.field.is_some() { e } else { e.field(&key) })?;
        meta.tags.insert(key.clone(), (tag, element));
        meta.values.insert(key, value);
    }
    Ok(meta)
}

fn read_key<R: Read + Seek>(
    reader: &mut Reader<R>,
    buffer: &mut Vec<u8>,
    index: u64,
) -> Result<String, GgufError> {
    let len = reader.u64()?;
    if len == 0 || len > MAX_KEY {
        return Err(limit(format!("key {index} is {len} bytes long; 1 to {MAX_KEY} are allowed")));
    }
    reader.fill(buffer, len)?;
    match std::str::from_utf8(buffer) {
        Ok(key) if !key.chars().any(char::is_control) => Ok(key.to_owned()),
        _ => Err(malformed(format!("key {index} (\"{}\") is not plain text", plain_bytes(buffer, 60)))),
    }
}

fn read_element_tag<R: Read + Seek>(reader: &mut Reader<R>, key: &str) -> Result<Tag, GgufError> {
    let number = reader.u32()?;
    match Tag::from_number(number) {
        Some(Tag::Array) => Err(malformed("is an array of arrays, which nothing reads").field(key)),
        Some(tag) => Ok(tag),
        None => Err(malformed(format!("is an array of the unknown type {number}")).field(key)),
    }
}

fn read_scalar<R: Read + Seek>(
    reader: &mut Reader<R>,
    buffer: &mut Vec<u8>,
    key: &str,
    tag: Tag,
) -> Result<Value, GgufError> {
    Ok(match tag {
        Tag::U8 => Value::Integer(u8::from_le_bytes(reader.bytes()?).into()),
        Tag::I8 => Value::Integer(i8::from_le_bytes(reader.bytes()?).into()),
        Tag::U16 => Value::Integer(u16::from_le_bytes(reader.bytes()?).into()),
        Tag::I16 => Value::Integer(i16::from_le_bytes(reader.bytes()?).into()),
        Tag::U32 => Value::Integer(reader.u32()?.into()),
        Tag::I32 => Value::Integer(i32::from_le_bytes(reader.bytes()?).into()),
        Tag::U64 => Value::Integer(reader.u64()?.into()),
        Tag::I64 => Value::Integer(i64::from_le_bytes(reader.bytes()?).into()),
        Tag::F32 => Value::Float(f32::from_le_bytes(reader.bytes()?).into()),
        Tag::F64 => Value::Float(f64::from_le_bytes(reader.bytes()?)),
        Tag::Bool => match reader.bytes::<1>()? {
            [0] => Value::Bool(false),
            [1] => Value::Bool(true),
            [other] => return Err(malformed(format!("is a bool with the value {other}"))),
        },
        Tag::Text => {
            let len = reader.string_len()?;
            let template = key == "tokenizer.chat_template";
            if template && len > MAX_TEMPLATE {
                return Err(limit(format!("is {len} bytes long; at most {MAX_TEMPLATE} are read")));
            }
            if template || len <= KEPT_TEXT || keys::fixed(key).is_some_and(|_| len <= MAX_TEMPLATE) {
                reader.fill(buffer, len)?;
                Value::Text(Some(buffer.clone()))
            } else {
                reader.skip(len)?;
                Value::Text(None)
            }
        }
        // Arrays are read by `read_array`.
        Tag::Array => return Err(malformed("is an array where none can be")),
    })
}

fn read_array<R: Read + Seek>(
    reader: &mut Reader<R>,
    buffer: &mut Vec<u8>,
    meta: &mut Metadata,
    key: &str,
    element: Tag,
) -> Result<Value, GgufError> {
    let len = reader.u64()?;
    if len > MAX_ELEMENTS {
        return Err(limit(format!("has {len} elements; at most {MAX_ELEMENTS} are read")));
    }
    let mut numbers = None;
    match (key, element) {
        ("tokenizer.ggml.tokens", Tag::Text) => meta.tokens = Some(read_tokens(reader, buffer, len)?),
        (_, Tag::Text) => {
            // Every string has at least its length.
            reader.need(len.saturating_mul(8))?;
            if key == "tokenizer.ggml.merges" {
                meta.merges = Some((reader.at(), len));
            }
            for _ in 0..len {
                let bytes = reader.string_len()?;
                reader.skip(bytes)?;
            }
        }
        _ => {
            reader.need(len.saturating_mul(element.size()))?;
            match key {
                "tokenizer.ggml.token_type" => {
                    meta.types = Some(len);
                    meta.specials = read_specials(reader, len)?;
                }
                _ if element == Tag::Bool || len <= KEPT_NUMBERS => {
                    numbers = read_numbers(reader, element, len)?;
                }
                _ => reader.skip(len * element.size())?,
            }
            if key == "tokenizer.ggml.scores" {
                meta.scores = Some(len);
            }
        }
    }
    Ok(Value::Array { len, numbers })
}

fn read_numbers<R: Read + Seek>(
    reader: &mut Reader<R>,
    element: Tag,
    len: u64,
) -> Result<Option<Vec<f64>>, GgufError> {
    let mut out = Vec::new();
    for _ in 0..len {
        let number = match read_scalar(reader, &mut Vec::new(), "", element)? {
            Value::Integer(n) => n as f64,
            Value::Float(x) => x,
            Value::Bool(b) => f64::from(u8::from(b)),
            Value::Text(_) | Value::Array { .. } => return Ok(None),
        };
        if len <= KEPT_NUMBERS {
            out.push(number);
        }
    }
    Ok((len <= KEPT_NUMBERS).then_some(out))
}

/// Ids of the tokens typed "unknown" (2) or "control" (3): llama.cpp turns their text into the token
/// when it parses special tokens.
fn read_specials<R: Read + Seek>(reader: &mut Reader<R>, len: u64) -> Result<Vec<u32>, GgufError> {
    let mut out = Vec::new();
    for id in 0..len {
        let kind = i32::from_le_bytes(reader.bytes()?);
        if matches!(kind, 2 | 3) && out.len() < MAX_SPECIAL {
            out.push(u32::try_from(id).unwrap_or(u32::MAX));
        }
    }
    Ok(out)
}

fn read_tokens<R: Read + Seek>(
    reader: &mut Reader<R>,
    buffer: &mut Vec<u8>,
    len: u64,
) -> Result<Tokens, GgufError> {
    reader.need(len.saturating_mul(8))?;
    let at = reader.at();
    let hasher = RandomState::new();
    let mut seen: HashSet<u64> = HashSet::with_capacity(usize::try_from(len.min(1 << 18)).unwrap_or(0));
    let mut bytes = [false; 256];
    for id in 0..len {
        let size = reader.u64()?;
        if size > MAX_TOKEN {
            return Err(GgufError::new(
                GgufErrorKind::BadValue,
                format!("token {id} is {size} bytes long; at most {MAX_TOKEN} are allowed"),
            ));
        }
        reader.fill(buffer, size)?;
        if buffer.contains(&0) {
            return Err(GgufError::new(GgufErrorKind::BadValue, format!("token {id} contains a NUL byte")));
        }
        if buffer.is_empty() {
            // The name llama.cpp gives to an empty token.
            buffer.extend_from_slice(format!("[EMPTY_{id}]").as_bytes());
        }
        if !seen.insert(hasher.hash_one(&*buffer)) {
            return Err(GgufError::new(
                GgufErrorKind::BadValue,
                format!("token {id} (\"{}\") appears twice", plain_bytes(buffer, 40)),
            ));
        }
        if let Some(slot) = byte_of(buffer).and_then(|b| bytes.get_mut(usize::from(b))) {
            *slot = true;
        }
    }
    Ok(Tokens { at, len, bytes })
}

/// The byte a token stands for: `<0x41>`, or the byte itself.
fn byte_of(token: &[u8]) -> Option<u8> {
    if let [byte] = token {
        return Some(*byte);
    }
    let hex = token.strip_prefix(b"<0x")?.strip_suffix(b">")?;
    let is_upper = hex.len() == 2 && hex.iter().all(|c| matches!(c, b'0'..=b'9' | b'A'..=b'F'));
    is_upper.then(|| std::str::from_utf8(hex).ok().and_then(|h| u8::from_str_radix(h, 16).ok())).flatten()
}

/// Reads the strings of an array again, from where it begins.
pub(super) fn read_texts<R: Read + Seek>(
    reader: &mut Reader<R>,
    at: u64,
    len: u64,
    mut each: impl FnMut(u64, &[u8]),
) -> Result<(), GgufError> {
    reader.rewind(at)?;
    let mut buffer = Vec::new();
    for index in 0..len {
        let size = reader.string_len()?;
        reader.fill(&mut buffer, size)?;
        each(index, &buffer);
    }
    Ok(())
}
