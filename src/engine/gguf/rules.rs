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
<<<<<<< HEAD

struct Model<'a> {
    meta: &'a Metadata,
    architecture: &'a str,
}

impl Model<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.meta.uint(&self.key(name))
    }

    fn required(&self, name: &str, max: u64) -> Result<u64, GgufError> {
        let key = self.key(name);
        match self.meta.uint(&key) {
            Some(n) if (1..=max).contains(&n) => Ok(n),
            Some(n) => Err(bad(&key, format!("is {n}; it must be 1 to {max}"))),
            None => Err(bad(&key, "is missing")),
        }
    }

    /// One number for each layer: repeated when the file holds a single one.
    fn per_layer(&self, name: &str, layers: u64) -> Result<Option<(Vec<u64>, bool)>, GgufError> {
        let key = self.key(name);
        match self.meta.get(&key) {
            None => Ok(None),
            Some(Value::Array { len, numbers }) => {
                let Some(numbers) = numbers.as_ref().filter(|_| *len == layers) else {
                    return Err(bad(&key, format!("has {len} entries for {layers} layers")));
                };
                if let Some(n) = numbers.iter().find(|n| **n < 0.0) {
                    return Err(bad(&key, format!("holds {n}")));
                }
                Ok(Some((numbers.iter().map(|n| *n as u64).collect(), false)))
            }
            Some(_) => {
                let n = self.meta.uint(&key).ok_or_else(|| bad(&key, "is negative"))?;
                Ok(Some((vec![n; usize::try_from(layers).unwrap_or(0)], true)))
            }
        }
    }

    fn layers(&self, info: &mut ModelInfo) -> Result<(), GgufError> {
        info.layers = self.required("block_count", MAX_LAYERS)?;
        info.embedding = self.required("embedding_length", MAX_EMBEDDING)?;
        for name in ["nextn_predict_layers", "posnet.block_count", "convnext.block_count"] {
            if let Some(n) = self.number(name).filter(|n| *n > info.layers) {
                return Err(bad(&self.key(name), format!("is {n} of {} layers", info.layers)));
            }
        }
        if let Some((all, _)) = self.per_layer("feed_forward_length", info.layers)? {
            info.feed_forward = all.iter().copied().max().unwrap_or(0);
        }
        Ok(())
    }

    fn context(&self, info: &mut ModelInfo) -> Result<(), GgufError> {
        let key = self.key("context_length");
        let n = self.meta.uint(&key).ok_or_else(|| bad(&key, "is missing"))?;
        let clamped = n.clamp(CONTEXT_RANGE.0, CONTEXT_RANGE.1);
        if clamped != n {
            info.warnings.push(format!("{key} is {n}: taken as {clamped}"));
        }
        info.context_train = u32::try_from(clamped).unwrap_or(u32::MAX);
        Ok(())
    }

    fn heads(&self, info: &mut ModelInfo) -> Result<(), GgufError> {
        let is_recurrent = RECURRENT.contains(&self.architecture);
        let key = self.key("attention.head_count");
        let Some((heads, is_single)) = self.per_layer("attention.head_count", info.layers)? else {
            if is_recurrent {
                info.heads_kv = vec![0; usize::try_from(info.layers).unwrap_or(0)];
                return Ok(());
            }
            return Err(bad(&key, "is missing"));
        };
        let most = heads.iter().copied().max().unwrap_or(0);
        if most > MAX_HEADS || (most == 0 && !(is_recurrent && is_single)) {
            return Err(bad(&key, format!("is {most}; it must be 1 to {MAX_HEADS}")));
        }
        info.heads = most;
        let kv_key = self.key("attention.head_count_kv");
        let kv = match self.per_layer("attention.head_count_kv", info.layers)? {
            Some((kv, true)) if kv.first() == Some(&0) && !is_recurrent => {
                return Err(bad(&kv_key, "is 0"));
            }
            Some((kv, _)) => kv,
            None => heads.clone(),
        };
        for (head, kv) in heads.iter().zip(&kv) {
            if *kv > MAX_HEADS || (*kv > 0 && *head > 0 && head % kv != 0) {
                return Err(bad(&kv_key, format!("is {kv}, which does not divide {head} heads")));
            }
        }
        info.heads_kv = kv;
        // llama.cpp divides by the first layer's heads.
        let first = heads.first().copied().unwrap_or(0);
        if first > 0 {
            self.head_lengths(info, first)?;
        }
        Ok(())
    }

    fn head_lengths(&self, info: &mut ModelInfo, heads: u64) -> Result<(), GgufError> {
        let stated = |name: &str| -> Result<Option<u64>, GgufError> {
            match self.number(name) {
                Some(n) if n == 0 || n > MAX_HEAD_LENGTH => {
                    Err(bad(&self.key(name), format!("is {n}; it must be 1 to {MAX_HEAD_LENGTH}")))
                }
                other => Ok(other),
            }
        };
        let (key, value) = (stated("attention.key_length")?, stated("attention.value_length")?);
        if (key.is_none() || value.is_none()) && !info.embedding.is_multiple_of(heads) {
            return Err(bad(
                &self.key("attention.head_count"),
                format!("is {heads}, which does not divide the embedding length {}", info.embedding),
            ));
        }
        info.key_length = key.unwrap_or(info.embedding / heads);
        info.value_length = value.unwrap_or(info.embedding / heads);
        let rope_key = self.key("rope.dimension_count");
        if let Some(rope) = self.number("rope.dimension_count") {
            let must_equal = matches!(self.architecture, "llama" | "deci" | "falcon" | "llama-embed");
            if rope % 2 != 0 || rope > MAX_HEAD_LENGTH {
                return Err(bad(&rope_key, format!("is {rope}; it must be even, up to {MAX_HEAD_LENGTH}")));
            }
            if must_equal && rope != info.key_length {
                return Err(bad(
                    &rope_key,
                    format!("is {rope}; it must be the head length, {}", info.key_length),
                ));
            }
        }
        Ok(())
    }

    fn experts(&self) -> Result<(), GgufError> {
        let count = self.number("expert_count").unwrap_or(0);
        if count > MAX_EXPERTS {
            return Err(bad(
                &self.key("expert_count"),
                format!("is {count}; at most {MAX_EXPERTS} are possible"),
            ));
        }
        let used_key = self.key("expert_used_count");
        let used = match self.meta.get(&used_key) {
            Some(Value::Array { numbers: Some(numbers), .. }) => {
                numbers.iter().fold(0.0_f64, |a, b| a.max(*b)) as u64
            }
            Some(_) => self.meta.uint(&used_key).unwrap_or(u64::MAX),
            None => 0,
        };
        // Dense models of the Hunyuan family state one expert and use none.
        let is_dense = self.architecture.starts_with("hunyuan") && count <= 1;
        if !is_dense && (used > count || (count > 0 && used == 0)) {
            return Err(bad(&used_key, format!("is {used} of {count} experts")));
        }
        let groups = self.number("expert_group_count").unwrap_or(0);
        let groups_key = self.key("expert_group_count");
        if (count == 0 && groups > 0) || (count > 0 && groups >= count) {
            return Err(bad(&groups_key, format!("is {groups} for {count} experts")));
        }
        if groups > 1 {
            let used = self.number("expert_group_used_count").unwrap_or(0);
            if count % groups != 0 || used == 0 || used >= groups {
                return Err(bad(&groups_key, format!("is {groups} ({used} used) for {count} experts")));
            }
        }
        Ok(())
    }

    fn numbers(&self) -> Result<(), GgufError> {
        for name in [
            "attention.layer_norm_epsilon",
            "attention.layer_norm_rms_epsilon",
            "attention.group_norm_epsilon",
        ] {
            let key = self.key(name);
            if let Some(eps) = self.meta.float(&key)
                && !(eps.is_finite() && eps > 0.0 && eps < 1.0)
            {
                return Err(bad(&key, format!("is {eps}; it must be between 0 and 1")));
            }
        }
        for name in ["rope.freq_base", "rope.freq_base_swa", "rope.scaling.factor", "rope.scale_linear"] {
            let key = self.key(name);
            if let Some(x) = self.meta.float(&key)
                && !(x.is_finite() && x >= 0.0)
            {
                return Err(bad(&key, format!("is {x}")));
            }
        }
        let key = self.key("rope.scaling.type");
        if let Some(Value::Text(text)) = self.meta.get(&key) {
            let known: [&[u8]; 4] = [b"none", b"linear", b"yarn", b"longrope"];
            if !text.as_deref().is_some_and(|t| known.contains(&t)) {
                return Err(bad(&key, "is unknown; it must be none, linear, yarn or longrope"));
            }
        }
        Ok(())
    }

    /// Which layers have a sliding window, as far as the file or the architecture says.
    fn windowed(&self, layers: u64) -> Vec<bool> {
        let period = match self.meta.get(&self.key("attention.sliding_window_pattern")) {
            Some(Value::Array { numbers: Some(all), .. }) => return all.iter().map(|n| *n != 0.0).collect(),
            Some(_) => self.number("attention.sliding_window_pattern"),
            None => WINDOW_PERIODS.iter().find(|(name, _)| *name == self.architecture).map(|(_, n)| *n),
        };
        match period {
            // Every n-th layer sees everything.
            Some(n) if n > 1 => (0..layers).map(|layer| layer % n < n - 1).collect(),
            _ => Vec::new(),
        }
    }

    /// Bytes of state that one sequence takes in all recurrent layers; 0 without such layers.
    fn recurrent_bytes(&self) -> u64 {
        let n = |name: &str| self.number(name).unwrap_or(0);
        let (inner, state, conv) = (n("ssm.inner_size"), n("ssm.state_size"), n("ssm.conv_kernel"));
        let layers = match self.meta.get(&self.key("attention.head_count_kv")) {
            Some(Value::Array { numbers: Some(numbers), .. }) => {
                numbers.iter().filter(|n| **n == 0.0).count() as u64
            }
            _ => n("block_count"),
        };
        let convolution = conv.saturating_sub(1).saturating_mul(
            inner.saturating_add(n("ssm.group_count").saturating_mul(state).saturating_mul(2)),
        );
        convolution.saturating_add(state.saturating_mul(inner)).saturating_mul(4).saturating_mul(layers)
    }
}
=======
>>>>>>> model
