//! What a model needs by formula, and what main memory there is.
//!
//! The formula is for what has not been measured: the list of models, and the hopeless case that is refused before
//! the file is tried. What a load really takes is measured by a dry run ([`super::residency::dry_run`]).

use super::gguf::ModelInfo;

/// Bytes of one number in the KV cache (f16).
const KV_NUMBER: u64 = 2;
/// llama.cpp rounds the cache up to this many tokens.
const CACHE_PADDING: u64 = 256;

/// How much memory a loaded model takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Need {
    /// Bytes of weights. Mapped ones count too: they must be in memory to run at speed.
    pub weights: u64,
    /// Bytes of the KV cache and recurrent state, for all slots.
    pub kv: u64,
    /// Bytes of scratch memory, at least.
    pub compute: u64,
}

impl Need {
    /// All of it, in bytes.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.weights.saturating_add(self.kv).saturating_add(self.compute)
    }
}

/// How a context is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Tokens over all slots.
    pub context: u32,
    /// Sequences served at once.
    pub slots: u32,
    /// Tokens evaluated at once, at most.
    pub batch: u32,
}

/// Estimates what a model needs with this context.
#[must_use]
pub fn need(info: &ModelInfo, shape: Shape) -> Need {
    let batch = u64::from(shape.batch);
    let logits = batch.saturating_mul(info.vocabulary).saturating_mul(4);
    let widest = info.feed_forward.saturating_mul(2).max(info.embedding.saturating_mul(4));
    Need {
        weights: info.tensor_bytes,
        kv: kv_bytes(info, shape)
            .saturating_add(info.recurrent_bytes.saturating_mul(u64::from(shape.slots.max(1)))),
        compute: logits.saturating_add(batch.saturating_mul(widest).saturating_mul(4)),
    }
}

/// Bytes of the KV cache in f16. Layers with a sliding window count in full: llama.cpp keeps them so by
/// default, because what is outside of the window could not be taken up again.
#[must_use]
pub fn kv_bytes(info: &ModelInfo, shape: Shape) -> u64 {
    let padded = |tokens: u64| tokens.saturating_add(CACHE_PADDING - 1) / CACHE_PADDING * CACHE_PADDING;
    let whole = padded(u64::from(shape.context));
    if let Some(rank) = info.kv_lora_rank {
        // Compressed: one vector for keys and values together, with the rotated part (64 where not said).
        let rotated = info.key_length.saturating_sub(info.value_length).max(64);
        return whole
            .saturating_mul(info.layers)
            .saturating_mul(rank.saturating_add(rotated))
            .saturating_mul(KV_NUMBER);
    }
    let per_head = info.key_length.saturating_add(info.value_length).saturating_mul(KV_NUMBER);
    info.heads_kv
        .iter()
        .fold(0_u64, |sum, heads| sum.saturating_add(heads.saturating_mul(per_head).saturating_mul(whole)))
}

/// Memory that can be had now without pushing anything out, in bytes; none when the system doesn't say.
#[must_use]
pub fn available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let free = parse_meminfo(&text)?;
    // Inside a container the limit of the control group comes first.
    Some(cgroup_free().map_or(free, |limit| limit.min(free)))
}

fn parse_meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// What the control group leaves, when it sets a limit.
fn cgroup_free() -> Option<u64> {
    let read = |name: &str| std::fs::read_to_string(format!("/sys/fs/cgroup/{name}")).ok();
    let number = |text: String| text.trim().parse::<u64>().ok();
    let limit = number(read("memory.max")?)?;
    let used = number(read("memory.current")?)?;
    // Cached file pages are given back under pressure.
    let cached = read("memory.stat")?
        .lines()
        .find_map(|line| line.strip_prefix("inactive_file "))
        .and_then(|n| n.trim().parse::<u64>().ok())
        .unwrap_or(0);
    Some(limit.saturating_sub(used.saturating_sub(cached)))
}

/// A size for people: `1.4 GiB`.
#[must_use]
pub fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    for (unit, one) in UNITS {
        if bytes >= one {
            return format!("{:.1} {unit}", bytes as f64 / one as f64);
        }
    }
    format!("{bytes} B")
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    fn llama(layers: u64, kv_heads: u64, tensor_bytes: u64) -> ModelInfo {
        ModelInfo {
            layers,
            heads_kv: vec![kv_heads; usize::try_from(layers).unwrap()],
            key_length: 128,
            value_length: 128,
            embedding: 4096,
            feed_forward: 14336,
            vocabulary: 128_256,
            tensor_bytes,
            ..ModelInfo::default()
        }
    }

    const SHAPE: Shape = Shape { context: 8192, slots: 4, batch: 512 };

    #[test]
    fn known_models_take_what_is_known() {
        let small = llama(32, 8, 0);
        let at = |context: u32| Shape { context, ..SHAPE };
        assert_eq!(kv_bytes(&small, at(256)), 256 * (128 << 10));
        assert_eq!(kv_bytes(&small, SHAPE), 1 << 30);
        let large = llama(80, 8, 0);
        assert_eq!(kv_bytes(&large, at(256)), 256 * (320 << 10));
        assert_eq!(kv_bytes(&large, at(32_768)), 10 << 30);
        // Logits alone: 512 * 128256 * 4.
        assert!(need(&small, SHAPE).compute >= 250 << 20);
    }

    #[test]
    fn layers_without_a_cache_cost_nothing_and_recurrent_state_counts_per_slot() {
        let mut info = llama(4, 8, 0);
        info.heads_kv = vec![0, 8, 0, 8];
        info.recurrent_bytes = 1000;
        assert_eq!(need(&info, SHAPE).kv, 8192 * 8192 + 4000);
    }

    #[test]
    fn compressed_caches_are_smaller() {
        let mut info = llama(27, 16, 0);
        info.kv_lora_rank = Some(512);
        info.key_length = 192;
        assert_eq!(kv_bytes(&info, SHAPE), 8192 * 27 * (512 + 64) * 2);
    }

    #[test]
    fn windowed_layers_count_in_full() {
        let mut info = llama(4, 8, 0);
        info.sliding_window = Some(1024);
        info.windowed = vec![true, true, true, false];
        let shape = Shape { context: 32_768, slots: 1, batch: 512 };
        assert_eq!(kv_bytes(&info, shape), 8 * 256 * 2 * 4 * 32_768);
    }

    #[test]
    fn absurd_numbers_do_not_overflow() {
        let mut info = llama(4, 8, u64::MAX);
        info.heads_kv = vec![u64::MAX; 4];
        info.vocabulary = u64::MAX;
        let shape = Shape { context: u32::MAX, slots: u32::MAX, batch: u32::MAX };
        assert_eq!(need(&info, shape).total(), u64::MAX);
    }

    #[test]
    fn meminfo_is_read() {
        let text = "MemTotal:       16384 kB\nMemFree:  1 kB\nMemAvailable:    8192 kB\n";
        assert_eq!(parse_meminfo(text), Some(8 << 20));
        assert_eq!(parse_meminfo("MemTotal: 1 kB\n"), None);
        assert_eq!(parse_meminfo("MemAvailable: lots kB\n"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_machine_says_what_is_available() {
        assert!(available().unwrap() > 1 << 20);
    }

    #[test]
    fn sizes_read_well() {
        assert_eq!(size(512), "512 B");
        assert_eq!(size(3 << 29), "1.5 GiB");
        assert_eq!(size(2_158_400), "2.1 MiB");
    }
}
