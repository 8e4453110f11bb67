//! Model files: a bounded reader and validator of GGUF versions 2 and 3, in Rust, run before llama.cpp
//! sees the file. It reads the header only, never the weights, and maps nothing.
//!
//! A file that passes may still be one that llama.cpp refuses; that is found by the probe process.

mod error;
mod file;
mod foreign;
mod info;
mod keys;
mod metadata;
mod reader;
mod rules;
mod shape;
mod tensors;
mod value;

#[cfg(test)]
pub(crate) mod build;
#[cfg(test)]
mod tests;

pub(crate) use error::plain;
pub use error::{GgufError, GgufErrorKind};
pub use file::FileId;
pub use info::{ModelInfo, ModelKind, Sampling, Vocabulary};

use metadata::{MAX_ENTRIES, Metadata};
use reader::Reader;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use tensors::Tensors;

/// The most parts a split model may have.
const MAX_PARTS: u64 = 1024;
/// The most bytes of control tokens' texts that are kept.
const MAX_SPECIAL_BYTES: usize = 1 << 20;

/// Reads and checks the header of a model file; of all parts when the model is split.
///
/// # Errors
/// When the file can't be read, is something else, is incomplete, or would harm the engine.
pub fn inspect(path: &Path) -> Result<ModelInfo, GgufError> {
    let opened = file::open(path)?;
    let name = path.to_string_lossy();
    let named = |error: GgufError| error.in_file(&name);
    let mut reader = Reader::new(&opened.file, opened.id.size);
    let header = read_header(&mut reader).map_err(named)?;
    let mut info = ModelInfo {
        path: opened.path.clone(),
        file: Some(opened.id),
        file_bytes: opened.id.size,
        is_remote: opened.is_remote,
        ..ModelInfo::default()
    };
    if opened.is_world_writable {
        info.warnings.push("every user of this machine may change the file".to_owned());
    }
    describe(&mut reader, header, &mut info).map_err(named)?;
    for part in 2..=info.parts {
        add_part(path, part, &mut info).map_err(named)?;
    }
    Ok(info)
}

/// Reads the tokenizer's tokens and merges.
///
/// # Errors
/// As [`inspect`], and when the file has no tokens.
pub fn vocabulary(path: &Path) -> Result<Vocabulary, GgufError> {
    let opened = file::open(path)?;
    let name = path.to_string_lossy();
    let mut reader = Reader::new(&opened.file, opened.id.size);
    read_vocabulary(&mut reader).map_err(|e| e.in_file(&name))
}

fn read_vocabulary<R: Read + Seek>(reader: &mut Reader<R>) -> Result<Vocabulary, GgufError> {
    let Header { meta, .. } = read_header(reader)?;
    let Some(tokens) = &meta.tokens else {
        return Err(GgufError::new(GgufErrorKind::BadValue, "is missing").field("tokenizer.ggml.tokens"));
    };
    let mut out = Vocabulary {
        model: meta.text("tokenizer.ggml.model").unwrap_or_default(),
        pre: meta.text("tokenizer.ggml.pre").unwrap_or_default(),
        specials: meta.specials.clone(),
        ..Vocabulary::default()
    };
    let texts = &mut out.tokens;
    metadata::read_texts(reader, tokens.at, tokens.len, |_, t| {
        texts.push(String::from_utf8_lossy(t).into_owned());
    })?;
    if let Some((at, len)) = meta.merges {
        let merges = &mut out.merges;
        metadata::read_texts(reader, at, len, |_, t| merges.push(String::from_utf8_lossy(t).into_owned()))?;
    }
    Ok(out)
}

struct Header {
    meta: Metadata,
    tensors: Tensors,
    /// The part of a split model, from 1, and the number of parts.
    split: Option<(u64, u64)>,
}

fn read_header<R: Read + Seek>(reader: &mut Reader<R>) -> Result<Header, GgufError> {
    check_mark(reader)?;
    let version = reader.u32()?;
    let wrong = |what: String| Err(GgufError::new(GgufErrorKind::Version, what));
    match version {
        2 | 3 => {}
        _ if version.trailing_zeros() >= 16 && version != 0 => {
            return wrong(
                "a GGUF file in big-endian byte order; only little-endian ones are read".to_owned(),
            );
        }
        _ => return wrong(format!("GGUF version {version}; versions 2 and 3 are read")),
    }
    let tensor_count = reader.u64()?;
    let key_count = reader.u64()?;
    for (what, count) in [("tensors", tensor_count), ("keys", key_count)] {
        if count > MAX_ENTRIES {
            return Err(GgufError::new(
                GgufErrorKind::Limit,
                format!("it claims {count} {what}; at most {MAX_ENTRIES} are read"),
            ));
        }
    }
    let meta = metadata::read(reader, key_count)?;
    let alignment = rules::alignment(&meta)?;
    let split = rules::split(&meta)?;
    let tensors = tensors::read(reader, tensor_count, alignment)?;
    let start = reader.at().next_multiple_of(alignment);
    let end = start.saturating_add(tensors.end);
    if tensors.count > 0 && end > reader.len() {
        return Err(GgufError::new(
            GgufErrorKind::Incomplete,
            format!("{} of {end} bytes: the download is incomplete", reader.len()),
        ));
    }
    Ok(Header { meta, tensors, split })
}

fn check_mark<R: Read + Seek>(reader: &mut Reader<R>) -> Result<(), GgufError> {
    let mut head = Vec::new();
    let len = reader.len().min(512);
    reader.fill(&mut head, len)?;
    if !head.starts_with(b"GGUF") {
        return Err(foreign::not_gguf(&head, reader.len()));
    }
    reader.rewind(4)
}

fn describe<R: Read + Seek>(
    reader: &mut Reader<R>,
    header: Header,
    info: &mut ModelInfo,
) -> Result<(), GgufError> {
    let Header { meta, tensors, split } = header;
    info.parts = match split {
        Some((1, count)) if count <= MAX_PARTS => count,
        Some((1, count)) => {
            return Err(GgufError::new(GgufErrorKind::Limit, format!("it claims {count} parts")));
        }
        Some((part, count)) => {
            let error =
                GgufError::new(GgufErrorKind::Split, format!("part {part} of {count} of a split model"));
            return Err(match part_name(&info.path, 1).and_then(|p| p.file_name().map(ToOwned::to_owned)) {
                Some(first) => {
                    error.next(format!("load the first part: {}", plain(&first.to_string_lossy(), 120)))
                }
                None => error,
            });
        }
        None => 1,
    };
    rules::apply(&meta, &tensors, info)?;
    info.parameters = tensors.parameters;
    info.tensor_bytes = tensors.bytes;
    info.quantisation = quantisation(&meta, &tensors);
    if info.kind == ModelKind::Chat && info.parts == 1 && !tensors.has_embedding {
        return Err(GgufError::new(GgufErrorKind::Tensor, "is missing").field("token_embd.weight"));
    }
    read_token_texts(reader, &meta, info)
}

/// Reads the texts of the bos, eos and control tokens.
fn read_token_texts<R: Read + Seek>(
    reader: &mut Reader<R>,
    meta: &Metadata,
    info: &mut ModelInfo,
) -> Result<(), GgufError> {
    let Some(tokens) = &meta.tokens else { return Ok(()) };
    let last = meta.specials.last().copied().into_iter().chain(info.bos_id).chain(info.eos_id).max();
    let Some(last) = last else { return Ok(()) };
    let mut specials = meta.specials.iter().copied().peekable();
    let mut kept = 0;
    metadata::read_texts(reader, tokens.at, tokens.len.min(u64::from(last) + 1), |id, bytes| {
        let id = u32::try_from(id).ok();
        let text = || String::from_utf8_lossy(bytes).into_owned();
        if id == info.bos_id {
            info.bos_token = text();
        }
        if id == info.eos_id {
            info.eos_token = text();
        }
        if specials.next_if(|special| Some(*special) == id).is_some() && kept < MAX_SPECIAL_BYTES {
            kept += bytes.len();
            if !bytes.is_empty() {
                info.special_tokens.push(text());
            }
        }
    })
}

/// Checks part `part` of a split model and adds what it holds.
fn add_part(first: &Path, part: u64, info: &mut ModelInfo) -> Result<(), GgufError> {
    let split = |what: String| GgufError::new(GgufErrorKind::Split, what);
    let Some(path) = part_name(first, part) else {
        return Err(split(format!(
            "the first of {} parts, but its name does not end in -00001-of-{:05}.gguf",
            info.parts, info.parts
        ))
        .next("give the parts back the names they were published with"));
    };
    let opened = file::open(&path).map_err(|e| {
        split(format!("part {part} of {} can't be opened: {}", info.parts, e.what))
            .next("keep all parts in one folder, under the names they were published with")
    })?;
    let mut reader = Reader::new(&opened.file, opened.id.size);
    let header = read_header(&mut reader).map_err(|e| e.in_file(&path.to_string_lossy()))?;
    if header.split != Some((part, info.parts)) {
        return Err(split(format!("{} is not part {part} of it", plain(&path.to_string_lossy(), 120))));
    }
    info.parameters = info.parameters.saturating_add(header.tensors.parameters);
    info.tensor_bytes = info.tensor_bytes.saturating_add(header.tensors.bytes);
    info.file_bytes = info.file_bytes.saturating_add(opened.id.size);
    Ok(())
}

/// The name of another part of a split model: `x-00001-of-00003.gguf`.
pub(crate) fn part_name(path: &Path, part: u64) -> Option<PathBuf> {
    let (stem, _, count) = split_stem(path)?;
    Some(path.with_file_name(format!("{stem}-{part:05}-of-{count:05}.gguf")))
}

/// The parts of a split model's file name: the stem, the number from 1, and the count.
pub(crate) fn split_stem(path: &Path) -> Option<(String, u64, u64)> {
    let name = path.file_name()?.to_str()?;
    let rest = name.strip_suffix(".gguf").or_else(|| name.strip_suffix(".GGUF"))?;
    let (rest, count) = rest.rsplit_once("-of-")?;
    let (stem, number) = rest.rsplit_once('-')?;
    let digits = |s: &str| (s.len() == 5).then(|| s.parse::<u64>().ok()).flatten();
    let (number, count) = (digits(number)?, digits(count)?);
    (number >= 1 && number <= count && !stem.is_empty()).then(|| (stem.to_owned(), number, count))
}

/// The quantisation's name, from the file type or else from the type that takes the most bytes.
fn quantisation(meta: &Metadata, tensors: &Tensors) -> Option<String> {
    let stated = match meta.uint("general.file_type").unwrap_or(u64::MAX) {
        0 => "f32",
        1 => "f16",
        2 => "q4_0",
        3 => "q4_1",
        7 => "q8_0",
        8 => "q5_0",
        9 => "q5_1",
        10 => "q2_k",
        11 => "q3_k_s",
        12 => "q3_k_m",
        13 => "q3_k_l",
        14 => "q4_k_s",
        15 => "q4_k_m",
        16 => "q5_k_s",
        17 => "q5_k_m",
        18 => "q6_k",
        19 => "iq2_xxs",
        20 => "iq2_xs",
        21 => "q2_k_s",
        22 => "iq3_xs",
        23 => "iq3_xxs",
        24 => "iq1_s",
        25 => "iq4_nl",
        26 => "iq3_s",
        27 => "iq3_m",
        28 => "iq2_s",
        29 => "iq2_m",
        30 => "iq4_xs",
        31 => "iq1_m",
        32 => "bf16",
        36 => "tq1_0",
        37 => "tq2_0",
        38 => "mxfp4",
        39 => "nvfp4",
        40 => "q1_0",
        41 => "q2_0",
        _ => tensors.by_type.iter().max_by_key(|(_, bytes)| **bytes).map(|(name, _)| *name)?,
    };
    Some(stated.to_owned())
}
