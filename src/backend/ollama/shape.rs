//! What a model's metadata says of its size and its KV cache. Pure. The keys are GGUF's, as `/api/show` gives them.
//!
//! Only what can be known is told: a wrong formula is off by hundreds of percent for models with sliding windows,
//! recurrent layers or a compressed cache, so those it does not cover have no number.

use serde_json::Value;

/// Layers a model may have.
const MAX_LAYERS: u64 = 4096;
/// Bytes of one element of the cache: f16.
const ELEMENT: u64 = 2;

/// What the metadata says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::backend) struct Shape {
    /// Weights.
    pub(in crate::backend) parameters: Option<u64>,
    /// Weights that take part in one token, of a mixture of experts.
    pub(in crate::backend) active_parameters: Option<u64>,
    /// Bytes of KV cache for each token, at f16. Of a model with sliding windows those of its other layers: what grows
    /// with the conversation.
    pub(in crate::backend) kv_bytes_per_token: Option<u64>,
    /// Context it was trained with, in tokens.
    pub(in crate::backend) context: Option<u32>,
}

/// Reads `model_info`.
pub(in crate::backend) fn shape(info: &Value) -> Shape {
    let Some(architecture) = info.get("general.architecture").and_then(Value::as_str) else {
        return Shape { parameters: number(info.get("general.parameter_count")), ..Shape::default() };
    };
    let meta = Meta { info, architecture };
    let parameters = number(info.get("general.parameter_count"));
    Shape {
        parameters,
        active_parameters: parameters.and_then(|all| meta.active(all)),
        kv_bytes_per_token: meta.kv_bytes_per_token(),
        context: meta.number("context_length").and_then(|n| u32::try_from(n).ok()),
    }
}

struct Meta<'a> {
    info: &'a Value,
    architecture: &'a str,
}

fn number(value: Option<&Value>) -> Option<u64> {
    value?.as_u64().filter(|n| *n > 0)
}

impl Meta<'_> {
    fn get(&self, key: &str) -> Option<&Value> {
        self.info.get(format!("{}.{key}", self.architecture)).filter(|value| !value.is_null())
    }

    fn number(&self, key: &str) -> Option<u64> {
        number(self.get(key))
    }

    fn layers(&self) -> Option<u64> {
        self.number("block_count").filter(|n| *n <= MAX_LAYERS)
    }

    /// Weights that take part in one token: all but those of the experts that are not asked.
    fn active(&self, all: u64) -> Option<u64> {
        let (experts, used) = (self.number("expert_count")?, self.number("expert_used_count")?);
        let layers = self.layers()?.checked_sub(self.number("leading_dense_block_count").unwrap_or(0))?;
        let wide = self.number("expert_feed_forward_length")?;
        // Gate, up and down.
        let expert = wide.checked_mul(self.number("embedding_length")?)?.checked_mul(3)?;
        let idle = expert.checked_mul(experts.checked_sub(used)?)?.checked_mul(layers)?;
        all.checked_sub(idle).filter(|active| *active > 0)
    }

    fn kv_bytes_per_token(&self) -> Option<u64> {
        let layers = self.layers()?;
        if let Some(rank) = self.number("attention.kv_lora_rank") {
            let rope = self.number("rope.dimension_count")?;
            return layers.checked_mul(rank.checked_add(rope)?)?.checked_mul(ELEMENT);
        }
        let heads = self.number("attention.head_count");
        let width = || Some(self.number("embedding_length")? / heads?);
        let key = self.number("attention.key_length").or_else(width)?;
        let value = self.number("attention.value_length").or_else(width)?;
        let is_full = self.full_layers(layers)?;
        let mut kv_heads = 0_u64;
        for layer in 0..layers {
            if is_full(layer) {
                kv_heads = kv_heads.checked_add(self.kv_heads(layer, heads)?)?;
            }
        }
        kv_heads.checked_mul(key.checked_add(value)?)?.checked_mul(ELEMENT).filter(|bytes| *bytes > 0)
    }

    /// Heads whose keys and values layer `layer` keeps: one number for all, or a list.
    fn kv_heads(&self, layer: u64, heads: Option<u64>) -> Option<u64> {
        match self.get("attention.head_count_kv") {
            None => heads,
            Some(Value::Array(each)) => each.get(usize::try_from(layer).ok()?)?.as_u64(),
            Some(all) => all.as_u64(),
        }
    }

    /// Which layers keep the whole conversation. None when the metadata leaves that open.
    fn full_layers(&self, layers: u64) -> Option<impl Fn(u64) -> bool + '_> {
        let interval = self.number("full_attention_interval");
        let is_recurrent = self.get("ssm.state_size").is_some() || self.get("wkv.head_size").is_some();
        let lists_heads = self.get("attention.head_count_kv").is_some_and(Value::is_array);
        let pattern = self.get("attention.sliding_window_pattern").and_then(Value::as_array);
        let has_window = self.number("attention.sliding_window").is_some();
        let pattern_fits = pattern.is_some_and(|pattern| pattern.len() as u64 >= layers);
        let shares = self.number("attention.shared_kv_layers").is_some();
        if (has_window && !pattern_fits) || (is_recurrent && interval.is_none() && !lists_heads) || shares {
            return None;
        }
        Some(move |layer: u64| {
            let slides = has_window
                && pattern
                    .zip(usize::try_from(layer).ok())
                    .and_then(|(pattern, layer)| pattern.get(layer)?.as_bool())
                    .unwrap_or_default();
            !slides && interval.is_none_or(|interval| (layer + 1).is_multiple_of(interval))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;
    use proptest::prelude::*;
    use serde_json::json;

    fn llama(layers: u64, heads: u64, embedding: u64) -> Value {
        json!({
            "general.architecture": "llama", "general.parameter_count": 8_030_261_312_u64, "llama.block_count": layers,
            "llama.attention.head_count": heads, "llama.attention.head_count_kv": 8,
            "llama.embedding_length": embedding, "llama.context_length": 131_072,
        })
    }

    fn with(mut info: Value, fields: Value) -> Value {
        if let (Some(info), Value::Object(fields)) = (info.as_object_mut(), fields) {
            info.extend(fields);
        }
        info
    }

    fn kv(info: &Value) -> Option<u64> {
        shape(info).kv_bytes_per_token
    }

    #[test]
    fn known_models() {
        let small = shape(&llama(32, 32, 4096));
        assert_eq!(small.kv_bytes_per_token, Some(128 * 1024), "Llama 3 8B");
        assert_eq!((small.parameters, small.active_parameters), (Some(8_030_261_312), None));
        assert_eq!(small.context, Some(131_072));
        assert_eq!(kv(&llama(80, 64, 8192)), Some(320 * 1024), "Llama 3 70B");
        let heads = with(
            llama(28, 16, 1024),
            json!({"llama.attention.key_length": 128, "llama.attention.value_length": 128}),
        );
        assert_eq!(kv(&heads), Some(112 * 1024), "Qwen3 0.6B: its heads are wider than the embedding says");
    }

    #[test]
    fn caches_of_other_kinds() {
        let mla = json!({"general.architecture": "deepseek2", "deepseek2.block_count": 61,
            "deepseek2.attention.kv_lora_rank": 512, "deepseek2.rope.dimension_count": 64});
        assert_eq!(kv(&mla), Some(61 * 576 * 2));
        let window = with(llama(6, 32, 4096), json!({"llama.attention.sliding_window": 1024}));
        assert_eq!(kv(&window), None, "which layers slide is not told");
        let pattern =
            json!({"llama.attention.sliding_window_pattern": [true, true, true, true, true, false]});
        assert_eq!(kv(&with(window, pattern)), Some(4096));
        let hybrid = with(llama(8, 32, 4096), json!({"llama.ssm.state_size": 128}));
        assert_eq!(kv(&hybrid), None);
        assert_eq!(kv(&with(hybrid.clone(), json!({"llama.full_attention_interval": 4}))), Some(2 * 4096));
        let listed = json!({"llama.attention.head_count_kv": [0, 0, 0, 8, 0, 0, 0, 8]});
        assert_eq!(kv(&with(hybrid, listed)), Some(2 * 4096));
    }

    #[test]
    fn experts_that_are_not_asked_do_not_count() {
        let info = with(
            llama(48, 32, 2048),
            json!({"general.parameter_count": 30_532_122_624_u64, "llama.expert_count": 128, "llama.expert_used_count": 8,
                "llama.expert_feed_forward_length": 768}),
        );
        let active = shape(&info).active_parameters.expect("known");
        assert!((3_300_000_000..3_400_000_000).contains(&active), "{active}: Qwen3 30B has 3.3B active");
    }

    #[test]
    fn nonsense_has_no_shape() {
        for info in
            [json!(null), json!([]), json!({"general.architecture": 5}), json!({"general.architecture": "x"})]
        {
            assert_eq!(shape(&info), Shape::default());
        }
        let huge = with(llama(u64::MAX, 1, u64::MAX), json!({"llama.attention.key_length": u64::MAX}));
        assert_eq!(kv(&huge), None);
        assert_eq!(kv(&with(llama(4, 8, 64), json!({"llama.attention.head_count_kv": [8]}))), None);
        let more_used = with(llama(4, 8, 64), json!({"llama.expert_count": 2, "llama.expert_used_count": 8}));
        assert_eq!(shape(&more_used).active_parameters, None);
    }

    proptest! {
        #[test]
        fn any_numbers_are_read_without_harm(numbers in prop::collection::vec(any::<u64>(), 12)) {
            let keys = ["block_count", "attention.head_count", "attention.head_count_kv", "embedding_length",
                "context_length", "attention.key_length", "attention.value_length", "expert_count", "expert_used_count",
                "expert_feed_forward_length", "leading_dense_block_count", "full_attention_interval"];
            let mut info = json!({"general.architecture": "x", "general.parameter_count": numbers[0]});
            for (key, n) in keys.iter().zip(&numbers) {
                info[format!("x.{key}")] = json!(n % 300);
            }
            let shape = shape(&info);
            prop_assert!(shape.kv_bytes_per_token != Some(0) && shape.active_parameters != Some(0));
        }
    }
}
