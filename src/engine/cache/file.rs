//! The file of a state: our own header, the tokens, llama.cpp's bytes, and checksums over all of it.
//!
//! `DUETKV` and a format number; the length of the header; the header as JSON; the tokens; SHA-256 of all
//! that; the state; SHA-256 of the state. The first sum lets the tokens be read alone, for the index.

use super::{ModelKey, State};
use crate::engine::job::TokenId;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::io::{Read, Write};
use std::sync::Arc;

const MAGIC: &[u8; 8] = b"DUETKV\x00\x01";
const SUM: usize = 32;
/// A header larger than this is none of ours.
const MAX_HEADER: u32 = 64 << 10;
/// More tokens than this no context holds.
const MAX_TOKENS: u32 = 1 << 22;

/// What stands before the tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    model: ModelKey,
    session: String,
    tokens: u32,
    bytes: u64,
}

/// What a file says of itself without its state.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outline {
    pub(super) model: ModelKey,
    pub(super) session: String,
    pub(super) tokens: Vec<TokenId>,
    /// Bytes of the state.
    bytes: u64,
    /// Bytes of the whole file.
    pub(super) file_bytes: u64,
}

/// Why a file is not used: in one word, for the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Doubt {
    #[error("it can't be read: {0}")]
    Unreadable(String),
    #[error("it is none of ours")]
    Foreign,
    #[error("it is cut or damaged")]
    Damaged,
}

impl From<std::io::Error> for Doubt {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::UnexpectedEof => Self::Damaged,
            _ => Self::Unreadable(error.to_string()),
        }
    }
}

/// Bytes the file of a state has.
pub(super) fn file_bytes(state: &State, session: &str) -> u64 {
    let header = header(state, session).map_or(0, |header| header.len());
    (MAGIC.len() + 4 + header + state.tokens.len() * 4 + SUM + state.bytes.len() + SUM) as u64
}

fn header(state: &State, session: &str) -> std::io::Result<Vec<u8>> {
    let tokens = u32::try_from(state.tokens.len()).map_err(std::io::Error::other)?;
    let header = Header {
        model: (*state.model).clone(),
        session: session.to_owned(),
        tokens,
        bytes: state.bytes.len() as u64,
    };
    Ok(serde_json::to_vec(&header)?)
}

/// Writes a state.
pub(super) fn write(out: &mut impl Write, state: &State, session: &str) -> std::io::Result<()> {
    let header = header(state, session)?;
    let mut head = MAGIC.to_vec();
    head.extend(u32::try_from(header.len()).map_err(std::io::Error::other)?.to_le_bytes());
    head.extend(header);
    head.extend(state.tokens.iter().flat_map(|token| token.to_le_bytes()));
    let sum = Sha256::digest(&head);
    head.extend(sum);
    out.write_all(&head)?;
    out.write_all(&state.bytes)?;
    out.write_all(&Sha256::digest(&state.bytes))?;
    out.flush()
}

/// Reads and checks everything before the state.
pub(super) fn outline(from: &mut impl Read) -> Result<Outline, Doubt> {
    let mut head = vec![0; MAGIC.len() + 4];
    from.read_exact(&mut head)?;
    let (magic, length) = head.split_at(MAGIC.len());
    if magic != MAGIC {
        return Err(Doubt::Foreign);
    }
    let length = length.first_chunk().map_or(u32::MAX, |bytes| u32::from_le_bytes(*bytes));
    if length > MAX_HEADER {
        return Err(Doubt::Damaged);
    }
    let start = head.len();
    read_more(from, &mut head, length as usize)?;
    let text = head.get(start..).unwrap_or_default();
    let header: Header = serde_json::from_slice(text).map_err(|_| Doubt::Damaged)?;
    if header.tokens > MAX_TOKENS {
        return Err(Doubt::Damaged);
    }
    let start = head.len();
    read_more(from, &mut head, header.tokens as usize * 4)?;
    let tokens: Vec<TokenId> = head
        .get(start..)
        .unwrap_or_default()
        .chunks_exact(4)
        .filter_map(|bytes| bytes.first_chunk().map(|bytes| TokenId::from_le_bytes(*bytes)))
        .collect();
    let mut sum = [0; SUM];
    from.read_exact(&mut sum)?;
    if Sha256::digest(&head).as_slice() != sum {
        return Err(Doubt::Damaged);
    }
    let file_bytes = ((head.len() + 2 * SUM) as u64).checked_add(header.bytes).ok_or(Doubt::Damaged)?;
    Ok(Outline { model: header.model, session: header.session, tokens, bytes: header.bytes, file_bytes })
}

fn read_more(from: &mut impl Read, into: &mut Vec<u8>, bytes: usize) -> Result<(), Doubt> {
    let at = into.len();
    into.resize(at + bytes, 0);
    Ok(from.read_exact(into.get_mut(at..).unwrap_or_default())?)
}

/// Reads and checks a whole file of `length` bytes.
pub(super) fn read(from: &mut impl Read, length: u64) -> Result<State, Doubt> {
    let outline = outline(from)?;
    // Before anything of that size is allocated.
    if outline.file_bytes != length {
        return Err(Doubt::Damaged);
    }
    let mut bytes = vec![0; usize::try_from(outline.bytes).map_err(|_| Doubt::Damaged)?];
    from.read_exact(&mut bytes)?;
    let mut sum = [0; SUM];
    from.read_exact(&mut sum)?;
    if Sha256::digest(&bytes).as_slice() != sum {
        return Err(Doubt::Damaged);
    }
    Ok(State {
        model: Arc::new(outline.model),
        tokens: outline.tokens,
        session: Some(Arc::from(outline.session)),
        bytes,
    })
}
