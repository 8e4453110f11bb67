//! Shapes of well-known models, and bits per weight of quantisations: what a model takes and how many bytes a token
//! reads before anybody has the file. Pure tables.
//!
//! The numbers of a shape are those of its maker's `config.json`. Bits per weight are what llama.cpp's
//! `tools/quantize/README.md` measured on Llama-3.1-8B, and for the older ones the sizes `llama-quantize` lists; a
//! model with a larger share of embeddings is a little off. Sizes of gpt-oss are those of the published files.

mod table;

use super::words::{float, whole};
use table::SHAPES;

/// Tokens evaluated at once, which scratch memory is sized for.
const BATCH: u64 = 512;
/// Bytes of one number in the KV cache (f16).
const KV_NUMBER: u64 = 2;
/// llama.cpp rounds the cache up to this many tokens.
const CACHE_PADDING: u64 = 256;

/// What a model looks like inside.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Its name, as `llama-3.1-8b`.
    pub name: &'static str,
    /// Weights.
    pub parameters: u64,
    /// Weights that take part in one token.
    pub active: u64,
    /// Layers.
    pub layers: u64,
    /// What a layer keeps of each token.
    pub cache: Cache,
    /// Tokens that layers with a sliding window look back, and how many layers there are to one without.
    pub window: Option<(u64, u64)>,
    /// Length of an embedding.
    pub embedding: u64,
    /// Width of the feed-forward part, of one expert where there are experts.
    pub feed_forward: u64,
    /// Tokens in the vocabulary.
    pub vocabulary: u64,
    /// Tokens of context it was trained with.
    pub context: u32,
    /// Experts, and how many of them work on one token; (0, 0): it has none.
    pub experts: (u64, u64),
    /// Whether it thinks before it answers.
    pub thinks: bool,
    /// Bits per weight of the published files, where there is one quantisation only.
    pub native_bits: Option<f64>,
}

/// What a layer keeps of each token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cache {
    /// Keys and values: heads, and the length of one key, which is that of a value too.
    Heads(u64, u64),
    /// One compressed vector of this length for both.
    Latent(u64),
}

impl Shape {
    /// Bytes of KV cache for one token, in f16, all layers in full.
    #[must_use]
    pub const fn kv_bytes_per_token(&self) -> u64 {
        let numbers = match self.cache {
            Cache::Heads(heads, length) => heads.saturating_mul(length).saturating_mul(2),
            Cache::Latent(length) => length,
        };
        numbers.saturating_mul(self.layers).saturating_mul(KV_NUMBER)
    }

    /// Bytes of the KV cache for a context, in f16. Layers with a sliding window count in full, as this
    /// program's engine keeps them.
    #[must_use]
    pub fn kv_bytes(&self, context: u32) -> u64 {
        self.kv_bytes_per_token().saturating_mul(padded(u64::from(context)))
    }

    /// The same where layers with a window keep only that, as llama-server does unless `--swa-full` is given;
    /// none where no layer has a window.
    #[must_use]
    pub fn kv_bytes_windowed(&self, context: u32) -> Option<u64> {
        let (window, every) = self.window?;
        let per_layer = self.kv_bytes_per_token() / self.layers.max(1);
        let full = self.layers / every.max(1);
        let whole = padded(u64::from(context));
        let kept = whole.min(padded(window.saturating_add(BATCH)));
        let windowed = self.layers.saturating_sub(full);
        Some(
            per_layer
                .saturating_mul(full.saturating_mul(whole).saturating_add(windowed.saturating_mul(kept))),
        )
    }

    /// Bytes of scratch memory, at least: logits of one batch and the widest layer. The engine measures what it
    /// really takes by a dry run.
    #[must_use]
    pub fn compute_bytes(&self) -> u64 {
        let used = self.experts.1.max(1);
        let widest = (self.feed_forward * used * 2).max(self.embedding * 4);
        BATCH * self.vocabulary * 4 + BATCH * widest * 4
    }

    /// Bytes of weights with so many bits each.
    #[must_use]
    pub fn weight_bytes(&self, bits: f64) -> u64 {
        whole(float(self.parameters) * bits / 8.0)
    }

    /// The part of the weights that belongs to experts, from 0 to 1. With `t` weights in all, `a` active, `e` experts and
    /// `u` of them used, one expert has `(t - a) / (e - u)` weights.
    #[must_use]
    pub fn expert_share(&self) -> f64 {
        let (experts, used) = self.experts;
        if experts <= used || self.parameters <= self.active {
            return 0.0;
        }
        let one = float(self.parameters - self.active) / float(experts - used);
        (one * float(experts) / float(self.parameters)).clamp(0.0, 1.0)
    }
}

/// llama.cpp keeps whole pages of tokens.
fn padded(tokens: u64) -> u64 {
    tokens.saturating_add(CACHE_PADDING - 1) / CACHE_PADDING * CACHE_PADDING
}

/// A quantisation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quant {
    /// Its name, as `q4_k_m`.
    pub name: &'static str,
    /// Bits for each weight, scales included.
    pub bits: f64,
}

/// The one that is meant when none is named.
pub const DEFAULT_QUANT: Quant = Quant { name: "q4_k_m", bits: 4.8944 };

/// Bits per weight. See the top of the file for where they come from; `4bit` and the like are MLX's with groups of 64.
const QUANTS: [Quant; 40] = [
    Quant { name: "iq1_s", bits: 2.0042 },
    Quant { name: "iq1_m", bits: 2.1460 },
    Quant { name: "iq2_xxs", bits: 2.3824 },
    Quant { name: "iq2_xs", bits: 2.5882 },
    Quant { name: "iq2_s", bits: 2.7403 },
    Quant { name: "iq2_m", bits: 2.9294 },
    Quant { name: "iq3_xxs", bits: 3.2548 },
    Quant { name: "iq3_xs", bits: 3.4977 },
    Quant { name: "iq3_s", bits: 3.6606 },
    Quant { name: "iq3_m", bits: 3.7628 },
    Quant { name: "iq4_xs", bits: 4.4597 },
    Quant { name: "iq4_nl", bits: 4.6818 },
    Quant { name: "q2_k_s", bits: 2.9697 },
    Quant { name: "q2_k", bits: 3.1593 },
    Quant { name: "q3_k_s", bits: 3.6429 },
    Quant { name: "q3_k_m", bits: 3.9960 },
    Quant { name: "q3_k", bits: 3.9960 },
    Quant { name: "q3_k_l", bits: 4.2979 },
    Quant { name: "q4_0", bits: 4.64 },
    Quant { name: "q4_1", bits: 5.11 },
    Quant { name: "q4_k_s", bits: 4.6672 },
    DEFAULT_QUANT,
    Quant { name: "q4_k", bits: 4.8944 },
    Quant { name: "q5_0", bits: 5.57 },
    Quant { name: "q5_1", bits: 6.04 },
    Quant { name: "q5_k_s", bits: 5.5704 },
    Quant { name: "q5_k_m", bits: 5.7036 },
    Quant { name: "q5_k", bits: 5.7036 },
    Quant { name: "q6_k", bits: 6.5633 },
    Quant { name: "q8_0", bits: 8.5008 },
    Quant { name: "mxfp4", bits: 4.34 },
    Quant { name: "fp8", bits: 8.0 },
    Quant { name: "f16", bits: 16.0005 },
    Quant { name: "bf16", bits: 16.0005 },
    Quant { name: "fp16", bits: 16.0005 },
    Quant { name: "f32", bits: 32.0 },
    Quant { name: "3bit", bits: 3.5 },
    Quant { name: "4bit", bits: 4.5 },
    Quant { name: "6bit", bits: 6.5 },
    Quant { name: "8bit", bits: 8.5 },
];

/// A quantisation by name, in any case, with `-` for `_`.
#[must_use]
pub fn quant(name: &str) -> Option<Quant> {
    let name = name.to_ascii_lowercase().replace('-', "_");
    QUANTS.iter().find(|quant| quant.name == name).copied()
}

/// All quantisations there are.
pub fn quants() -> impl Iterator<Item = Quant> {
    QUANTS.into_iter()
}

/// All known shapes.
pub fn all() -> impl Iterator<Item = &'static Shape> {
    SHAPES.iter()
}

/// A model as a person names it: `llama-3.1-8b:q4_k_m`, `qwen2.5-14b`, `13b:q4_k_m`, `30b-a3b:q8_0`.
///
/// # Errors
/// One line: what is not known, with the nearest name.
pub fn read(text: &str) -> Result<(Shape, Quant), String> {
    let (name, packed) = match text.rsplit_once(':') {
        // Ollama's way: the size after the colon.
        Some((_, after)) if quant(after).is_none() && size(after).is_some() => (text, None),
        Some((name, after)) => (name, Some(after)),
        None => (text, None),
    };
    let packed = match packed {
        Some(packed) => Some(quant(packed).ok_or_else(|| {
            let near = nearest(packed, QUANTS.iter().map(|quant| quant.name));
            format!("no quantisation `{packed}` is known; the nearest name is `{near}`")
        })?),
        None => None,
    };
    let shape = find(name).or_else(|| size(name).map(|(all, active)| sized(all, active)));
    let Some(shape) = shape else {
        let near = nearest(name, SHAPES.iter().map(|shape| shape.name));
        return Err(format!(
            "no model `{name}` is known; the nearest shape is `{near}`, and sizes as `13b:q4_k_m` are read too"
        ));
    };
    let native = shape.native_bits.map(|bits| Quant { name: "mxfp4", bits });
    let packed = match packed {
        Some(quant) if quant.name == "mxfp4" => native.unwrap_or(quant),
        Some(quant) => quant,
        None => native.unwrap_or(DEFAULT_QUANT),
    };
    Ok((shape, packed))
}

/// The known shape of this name, exactly, but for case and separators: `Llama3.1:8b` too.
#[must_use]
pub fn find(name: &str) -> Option<Shape> {
    let wanted = plain(name);
    SHAPES.iter().find(|shape| is_same(shape.name, &wanted)).copied()
}

/// What a server's id says of its model: the longest known name in it, as in `Meta-Llama-3.1-8B-Instruct-Q4_K_M`.
#[must_use]
pub fn identify(id: &str) -> Option<Shape> {
    let id = plain(id.rsplit(['/', '\\']).next().unwrap_or(id));
    let held = SHAPES.iter().filter(|shape| holds(&id, shape.name));
    held.max_by_key(|shape| shape.name.len()).copied()
}

/// Weights in all and active ones, by the size in an id: `yi-34b-chat` has 34 thousand million. None where there is none.
#[must_use]
pub fn size_in(id: &str) -> Option<(u64, u64)> {
    let id = id.rsplit(['/', '\\']).next().unwrap_or(id).to_ascii_lowercase();
    let words: Vec<&str> = id.split(['-', '_', ':', ' ']).collect();
    let at = words.iter().position(|word| size(word).is_some())?;
    let (all, _) = words.get(at).and_then(|word| size(word))?;
    let active = words.get(at + 1).and_then(|word| word.strip_prefix('a')).and_then(size);
    Some((all, active.map_or(all, |(active, _)| active.min(all))))
}

/// `13b`, `0.5b`, `135m`, `30b-a3b`.
fn size(text: &str) -> Option<(u64, u64)> {
    let one = |text: &str| {
        let lower = text.to_ascii_lowercase();
        let (number, unit) = match (lower.strip_suffix('b'), lower.strip_suffix('m')) {
            (Some(number), _) => (number, 1e9),
            (_, Some(number)) => (number, 1e6),
            _ => return None,
        };
        let is_number = number.starts_with(|c: char| c.is_ascii_digit())
            && number.chars().all(|c| c.is_ascii_digit() || c == '.');
        let value = number.parse::<f64>().ok().filter(|_| is_number)? * unit;
        (1e6..=1e13).contains(&value).then(|| whole(value))
    };
    match text.split_once("-a") {
        Some((all, active)) => {
            let (all, active) = (one(all)?, one(active)?);
            (active <= all).then_some((all, active))
        }
        None => one(text).map(|all| (all, all)),
    }
}

/// Dense shapes that are typical of their size.
const TYPICAL: [&str; 8] = [
    "smollm2-135m",
    "llama-3.2-1b",
    "llama-3.2-3b",
    "llama-3.1-8b",
    "qwen2.5-14b",
    "qwen2.5-32b",
    "llama-3.3-70b",
    "llama-3.1-405b",
];

/// A shape of this size: that of the typical model nearest to it.
#[must_use]
pub fn sized(parameters: u64, active: u64) -> Shape {
    let distance = |shape: &Shape| (float(shape.parameters).ln() - float(parameters.max(1)).ln()).abs();
    let typical = SHAPES.iter().filter(|shape| TYPICAL.contains(&shape.name));
    let nearest = typical.min_by(|a, b| distance(a).total_cmp(&distance(b)));
    let shape = *nearest.unwrap_or(&SHAPES[0]);
    // Of a mixture only the sizes are known: as most of them, 128 experts, eight of them used.
    let experts = if active < parameters { (128, 8) } else { (0, 0) };
    Shape { name: "", parameters, active, experts, ..shape }
}

/// Lower case without separators.
fn plain(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

fn letters(name: &str) -> impl Iterator<Item = u8> {
    name.bytes().filter(u8::is_ascii_alphanumeric)
}

fn is_same(name: &str, plain: &str) -> bool {
    letters(name).eq(plain.bytes())
}

/// Whether a plain id has this name in it, not cut out of a longer number: `qwen2.5-7b` is not in `qwen2.5-7bx`, but
/// in `my-qwen2.5-7b-chat`.
fn holds(id: &str, name: &str) -> bool {
    let first = letters(name).next();
    let starts = id.bytes().enumerate().filter(|(_, byte)| Some(*byte) == first);
    starts.into_iter().any(|(at, _)| {
        let mut rest = id.bytes().skip(at);
        let is_there = letters(name).all(|letter| rest.next() == Some(letter));
        let is_whole = at == 0 || !id.as_bytes().get(at - 1).is_some_and(u8::is_ascii_digit);
        is_there && is_whole
    })
}

/// The name that is most like this one.
pub(super) fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> &'a str {
    let name = name.to_ascii_lowercase();
    let likeness = |other: &str| strsim::jaro_winkler(&name, other);
    names.max_by(|a, b| likeness(a).total_cmp(&likeness(b))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    fn near(value: u64, expected: f64, percent: f64) {
        let off = (value as f64 / expected - 1.0).abs() * 100.0;
        assert!(off < percent, "{value} is {off:.1} % off {expected}");
    }

    #[test]
    fn known_models_take_what_their_files_take() {
        // Sizes of published files, in bytes.
        let cases = [
            ("llama-3.1-8b:q4_k_m", 4.92e9),
            ("llama-3.1-8b:q8_0", 8.54e9),
            ("llama-3.1-8b:f16", 16.07e9),
            ("llama-3.3-70b:q4_k_m", 42.52e9),
            ("qwen2.5-7b:q4_k_m", 4.68e9),
            ("qwen2.5-14b:q4_k_m", 8.99e9),
            ("qwen2.5-32b:q4_k_m", 19.85e9),
            ("mistral-7b:q4_k_m", 4.37e9),
            ("mixtral-8x7b:q4_k_m", 26.44e9),
            ("gpt-oss-20b", 12.11e9),
            ("gpt-oss-120b", 63.39e9),
            ("phi-4:q4_k_m", 9.05e9),
        ];
        for (name, bytes) in cases {
            let (shape, quant) = read(name).expect(name);
            near(shape.weight_bytes(quant.bits), bytes, 9.0);
        }
    }

    #[test]
    fn caches_are_known_to_the_byte() {
        let kv = |name: &str, context| find(name).expect(name).kv_bytes(context);
        assert_eq!(kv("llama-3.1-8b", 8192), 1 << 30);
        assert_eq!(kv("llama-3.3-70b", 32_768), 10 << 30);
        assert_eq!(kv("llama-3.1-8b", 1), 256 * (128 << 10));
        // Heads are longer than embedding / heads.
        assert_eq!(find("qwen3-0.6b").expect("known").kv_bytes_per_token(), 28 * 8 * 128 * 2 * 2);
        // One vector for keys and values.
        assert_eq!(find("deepseek-r1").expect("known").kv_bytes_per_token(), 61 * 576 * 2);
        // Of 62 layers ten look back all the way.
        let gemma = find("gemma-3-27b").expect("known");
        let windowed = gemma.kv_bytes_windowed(32_768).expect("it has windows");
        assert_eq!(windowed, 16 * 128 * 2 * 2 * (10 * 32_768 + 52 * 1536));
        assert!(gemma.kv_bytes(32_768) > 4 * windowed);
        assert_eq!(find("llama-3.1-8b").expect("known").kv_bytes_windowed(8192), None);
    }

    #[test]
    fn names_are_read_as_people_and_servers_write_them() {
        let same = |text: &str, name: &str| {
            let (shape, _) = read(text).expect(text);
            assert_eq!(shape.name, name, "{text}");
        };
        same("Llama-3.1-8B:Q4_K_M", "llama-3.1-8b");
        same("llama3.1:8b", "llama-3.1-8b");
        same("qwen2.5-coder-7b", "qwen2.5-coder-7b");
        let ids = [
            ("Meta-Llama-3.1-8B-Instruct-Q4_K_M", Some("llama-3.1-8b")),
            ("bartowski/Qwen2.5-Coder-32B-Instruct-GGUF", Some("qwen2.5-coder-32b")),
            ("qwen2.5:72b-instruct", Some("qwen2.5-72b")),
            ("DeepSeek-R1-Distill-Qwen-7B", Some("deepseek-r1-distill-qwen-7b")),
            ("mlx-community/Qwen3-30B-A3B-4bit", Some("qwen3-30b-a3b")),
            ("/models/llama-3.2-11b-vision.gguf", None),
            ("builtin", None),
            ("", None),
        ];
        for (id, name) in ids {
            assert_eq!(identify(id).map(|shape| shape.name), name, "{id}");
        }
        assert_eq!(size_in("yi-34b-chat"), Some((34_000_000_000, 34_000_000_000)));
        assert_eq!(size_in("some-30b-a3b-thing"), Some((30_000_000_000, 3_000_000_000)));
        assert_eq!(size_in("gpt-9000"), None);
    }

    #[test]
    fn bare_sizes_are_shapes_too() {
        let (shape, quant) = read("13b:q4_k_m").expect("a size");
        assert_eq!((shape.parameters, shape.active, quant.name), (13_000_000_000, 13_000_000_000, "q4_k_m"));
        near(shape.weight_bytes(quant.bits), 7.95e9, 1.0);
        assert_eq!(shape.kv_bytes_per_token(), 192 << 10);
        let (shape, quant) = read("70b:f16").expect("a size");
        near(shape.weight_bytes(quant.bits), 140e9, 0.1);
        let (mixture, _) = read("30b-a3b").expect("a mixture");
        assert_eq!((mixture.parameters, mixture.active), (30_000_000_000, 3_000_000_000));
        assert!(mixture.expert_share() > 0.9);
    }

    #[test]
    fn what_is_not_known_is_told_with_the_nearest_name() {
        let error = read("llama-3.1-8b:q4_k_mm").expect_err("no such quantisation");
        assert_eq!(error, "no quantisation `q4_k_mm` is known; the nearest name is `q4_k_m`");
        let error = read("lama-3.1-8b:q4_k_m").expect_err("no such model");
        assert!(
            error.starts_with("no model `lama-3.1-8b` is known; the nearest shape is `llama-3.1-8b`"),
            "{error}"
        );
        for odd in ["", ":", "b", "-1b", "1e9b", "0b", "nanb", "99999999999b", "a-ab", "q4_k_m", "7b:"] {
            assert!(read(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn tables_hold_together() {
        for shape in all() {
            assert!(shape.active > 0 && shape.active <= shape.parameters, "{}", shape.name);
            assert_eq!(shape.active < shape.parameters, shape.experts.0 > 0, "{}", shape.name);
            assert_eq!(find(shape.name), Some(*shape), "two shapes are named {}", shape.name);
            assert!(shape.kv_bytes_per_token() > 0 && shape.compute_bytes() > 0);
        }
        // Experts are most of a mixture, and the weights they leave are not negative.
        assert!(TYPICAL.iter().all(|name| find(name).is_some_and(|shape| shape.name == *name)));
        for (name, share) in [("mixtral-8x7b", 0.96), ("qwen3-30b-a3b", 0.95), ("gpt-oss-120b", 0.98)] {
            let got = find(name).expect(name).expert_share();
            assert!((got - share).abs() < 0.04, "{name}: {got}");
        }
        assert_eq!(quant("Q4-K-M"), Some(DEFAULT_QUANT));
    }
}
