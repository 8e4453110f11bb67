//! What the numbers of a model's architecture must be: layers, heads, lengths, experts.

use super::error::GgufError;
use super::info::ModelInfo;
use super::metadata::Metadata;
use super::rules::bad;
use super::value::Value;

const MAX_LAYERS: u64 = 512;
const MAX_EXPERTS: u64 = 1024;
const MAX_EMBEDDING: u64 = 1 << 20;
const MAX_HEADS: u64 = 65_536;
const MAX_HEAD_LENGTH: u64 = 65_536;
const CONTEXT_RANGE: (u64, u64) = (256, 1_048_576);
/// Architectures without attention: their head counts are 0.
const RECURRENT: &[&str] = &["mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"];
/// Architectures whose every n-th layer sees everything while the others have a sliding window.
const WINDOW_PERIODS: &[(&str, u64)] = &[
    ("gemma2", 2),
    ("gemma3", 6),
    ("gemma3n", 5),
    ("cohere2", 4),
    ("gpt-oss", 2),
    ("exaone4", 4),
    ("olmo2", 4),
    ("llama4", 4),
];

/// Reads the numbers of a model out of its metadata and checks them.
pub(super) fn apply(meta: &Metadata, architecture: &str, info: &mut ModelInfo) -> Result<(), GgufError> {
    let model = Model { meta, architecture };
    model.layers(info)?;
    model.context(info)?;
    model.heads(info)?;
    model.experts()?;
    model.numbers()?;
    info.recurrent_bytes = model.recurrent_bytes();
    info.kv_lora_rank = model.number("attention.kv_lora_rank").filter(|n| *n > 0);
    info.sliding_window = model.number("attention.sliding_window").filter(|n| *n > 0);
    if info.sliding_window.is_some() {
        info.windowed = model.windowed(info.layers);
    }
    Ok(())
}

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
            if !count.is_multiple_of(groups) || used == 0 || used >= groups {
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
