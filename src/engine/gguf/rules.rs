//! What the values must be for the model to load and run without bringing the process down: llama.cpp
//! asserts most of these, and an assertion ends the engine.

use super::error::{GgufError, GgufErrorKind};
use super::info::{ModelInfo, ModelKind, Sampling};
use super::keys;
use super::metadata::Metadata;
use super::tensors::Tensors;
use super::value::Value;

/// Architectures that encode texts instead of continuing them.
const EMBEDDERS: &[&str] = &[
    "bert",
    "modern-bert",
    "nomic-bert",
    "nomic-bert-moe",
    "neo-bert",
    "jina-bert-v2",
    "jina-bert-v3",
    "eurobert",
    "gemma-embedding",
    "llama-embed",
    "t5encoder",
];
const DRAFTS: &[&str] = &["eagle3", "dflash", "gemma4-assistant"];
const DIFFUSION: &[&str] = &["dream", "llada", "llada-moe", "rnd1"];
const SPEECH: &[&str] = &["wavtokenizer-dec", "qwen3tts", "pockettts"];

pub(super) fn bad(key: &str, what: impl Into<String>) -> GgufError {
    GgufError::new(GgufErrorKind::BadValue, what).field(key)
}

/// The alignment of the data part.
pub(super) fn alignment(meta: &Metadata) -> Result<u64, GgufError> {
    let key = "general.alignment";
    match meta.uint(key) {
        None => Ok(32),
        Some(n) if n.is_power_of_two() && n <= 65_536 => Ok(n),
        Some(n) => Err(bad(key, format!("is {n}; it must be a power of two up to 65536"))),
    }
}

/// The part of a split model this file is, from 1, and how many there are.
pub(super) fn split(meta: &Metadata) -> Result<Option<(u64, u64)>, GgufError> {
    let count = meta.uint("split.count").unwrap_or(0);
    if count <= 1 {
        return Ok(None);
    }
    let number = meta.uint("split.no").unwrap_or(0);
    if number >= count {
        return Err(bad("split.no", format!("is {number} of {count} parts")));
    }
    Ok(Some((number + 1, count)))
}

/// Reads the fields of a model out of its metadata and checks them.
pub(super) fn apply(meta: &Metadata, tensors: &Tensors, info: &mut ModelInfo) -> Result<(), GgufError> {
    let architecture = meta
        .text("general.architecture")
        .ok_or_else(|| bad("general.architecture", "is missing, so nothing can load the file"))?;
    info.kind = kind(meta, tensors, &architecture);
    if !matches!(info.kind, ModelKind::Adapter | ModelKind::Other) && !keys::knows_architecture(&architecture)
    {
        let shown = super::error::plain(&architecture, 40);
        return Err(GgufError::new(
            GgufErrorKind::Architecture,
            format!("the architecture \"{shown}\" is not known to this engine"),
        )
        .field("general.architecture"));
    }
    info.architecture = super::error::plain(&architecture, 40);
    info.pooling = meta.uint(&format!("{architecture}.pooling_type"));
    info.name = meta.text("general.name").map(|name| super::error::plain(&name, 120));
    info.sampling = sampling(meta);
    info.chat_template = template(meta)?;
    vocabulary(meta, info)?;
    if matches!(
        info.kind,
        ModelKind::Adapter | ModelKind::Projector | ModelKind::Vocabulary | ModelKind::Other
    ) {
        return Ok(());
    }
    meta.check_types_of(&architecture)?;
    super::shape::apply(meta, &architecture, info)?;
    if info.chat_template.is_none() && info.kind == ModelKind::Chat {
        info.warnings.push("it has no chat template: ChatML is used, which it may not understand".to_owned());
    }
    Ok(())
}

fn kind(meta: &Metadata, tensors: &Tensors, architecture: &str) -> ModelKind {
    match meta.text("general.type").as_deref() {
        Some("adapter") => return ModelKind::Adapter,
        Some("mmproj") => return ModelKind::Projector,
        Some("vocab") => return ModelKind::Vocabulary,
        Some("imatrix" | "dataset") => return ModelKind::Other,
        _ => {}
    }
    let pooling = meta.uint(&format!("{architecture}.pooling_type"));
    let is_causal = meta.bool(&format!("{architecture}.attention.causal")).unwrap_or(true);
    match architecture {
        "clip" => ModelKind::Projector,
        "imatrix" => ModelKind::Other,
        _ if tensors.count == 0 => ModelKind::Vocabulary,
        a if DRAFTS.contains(&a) => ModelKind::Draft,
        a if SPEECH.contains(&a) => ModelKind::Speech,
        a if DIFFUSION.contains(&a) => ModelKind::Diffusion,
        "t5" => ModelKind::EncoderDecoder,
        _ if pooling == Some(4) => ModelKind::Reranker,
        a if EMBEDDERS.contains(&a) || pooling.is_some_and(|p| p > 0) || !is_causal => ModelKind::Embedding,
        _ => ModelKind::Chat,
    }
}

fn sampling(meta: &Metadata) -> Sampling {
    let number = |name: &str| {
        meta.float(&format!("general.sampling.{name}"))
            .filter(|x| x.is_finite() && *x >= 0.0)
            .map(|x| x as f32)
    };
    Sampling {
        temperature: number("temp"),
        top_k: number("top_k").map(|k| k as i32),
        top_p: number("top_p").filter(|p| *p <= 1.0),
        min_p: number("min_p").filter(|p| *p <= 1.0),
        repeat_penalty: number("penalty_repeat").filter(|p| *p > 0.0),
    }
}

fn template(meta: &Metadata) -> Result<Option<String>, GgufError> {
    let key = "tokenizer.chat_template";
    match meta.get(key) {
        Some(Value::Text(Some(bytes))) if !bytes.is_empty() => match String::from_utf8(bytes.clone()) {
            Ok(text) if !text.contains('\0') => Ok(Some(text)),
            _ => Err(bad(key, "is not text")),
        },
        _ => Ok(None),
    }
}

fn vocabulary(meta: &Metadata, info: &mut ModelInfo) -> Result<(), GgufError> {
    info.tokenizer = meta.text("tokenizer.ggml.model").map(|t| super::error::plain(&t, 40));
    info.pre_tokenizer = meta.text("tokenizer.ggml.pre").map(|t| super::error::plain(&t, 40));
    let Some(tokens) = &meta.tokens else {
        if info.kind == ModelKind::Chat {
            return Err(bad("tokenizer.ggml.tokens", "is missing: without tokens there is no text"));
        }
        return Ok(());
    };
    info.vocabulary = tokens.len;
    if tokens.len == 0 {
        return Err(bad("tokenizer.ggml.tokens", "is empty"));
    }
    for (key, len) in [("tokenizer.ggml.token_type", meta.types), ("tokenizer.ggml.scores", meta.scores)] {
        if let Some(len) = len.filter(|len| *len != tokens.len) {
            return Err(bad(key, format!("has {len} entries for {} tokens", tokens.len)));
        }
    }
    if info.tokenizer.is_none() {
        return Err(bad("tokenizer.ggml.model", "is missing"));
    }
    if info.tokenizer.as_deref() == Some("llama") {
        // llama.cpp throws on the first character without a token; NUL and bytes that UTF-8 never uses can't occur.
        let missing = (1_u8..=0xf4)
            .filter(|b| !matches!(b, 0xc0 | 0xc1))
            .find(|b| !tokens.bytes.get(usize::from(*b)).copied().unwrap_or(false));
        if let Some(byte) = missing {
            return Err(bad(
                "tokenizer.ggml.tokens",
                format!("has no token for the byte 0x{byte:02X}, so some texts can't be encoded"),
            ));
        }
    }
    for key in keys::TOKEN_IDS {
        if let Some(id) = meta.uint(key).filter(|id| *id >= tokens.len) {
            info.warnings.push(format!("{key} is {id} but there are {} tokens: ignored", tokens.len));
        }
    }
    let (bos, eos) = match info.tokenizer.as_deref() {
        Some("llama" | "plamo2") => (Some(1), Some(2)),
        Some("bert") => (Some(101), None),
        Some("gpt2") => (Some(11), Some(11)),
        Some("t5") => (None, Some(1)),
        _ => (None, None),
    };
    let id = |key: &str, default: Option<u64>| {
        let valid = |id: &u64| *id < tokens.len;
        meta.uint(key).filter(valid).or(default.filter(valid))
    };
    info.add_bos = meta.bool("tokenizer.ggml.add_bos_token");
    for (key, id_key, default) in [
        ("tokenizer.ggml.add_bos_token", "tokenizer.ggml.bos_token_id", bos),
        ("tokenizer.ggml.add_eos_token", "tokenizer.ggml.eos_token_id", eos),
    ] {
        if meta.bool(key) == Some(true) && id(id_key, default).is_none() {
            return Err(bad(key, format!("is true but {id_key} names no token")));
        }
    }
    // The default of byte-pair vocabularies is an arbitrary token, so only a stated one counts.
    let stated = |default: Option<u64>| default.filter(|_| info.tokenizer.as_deref() == Some("llama"));
    let to_u32 = |id: Option<u64>| id.and_then(|id| u32::try_from(id).ok());
    info.bos_id = to_u32(id("tokenizer.ggml.bos_token_id", stated(bos)));
    info.eos_id = to_u32(id("tokenizer.ggml.eos_token_id", stated(eos)));
    Ok(())
}
