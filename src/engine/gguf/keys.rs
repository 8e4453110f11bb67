//! The metadata keys that are read by us or by llama.cpp, with their types, and the architectures the
//! engine knows. Data only; what the values must be is in [`super::rules`].

use super::value::Kind;

/// Keys with a fixed name.
const FIXED: &[(&str, Kind)] = &[
    ("general.architecture", Kind::Text),
    ("general.type", Kind::Text),
    ("general.name", Kind::Text),
    ("general.alignment", Kind::U32),
    ("general.file_type", Kind::U32),
    ("general.quantization_version", Kind::U32),
    ("general.sampling.temp", Kind::Number),
    ("general.sampling.top_k", Kind::Number),
    ("general.sampling.top_p", Kind::Number),
    ("general.sampling.min_p", Kind::Number),
    ("general.sampling.penalty_repeat", Kind::Number),
    ("split.no", Kind::U16),
    ("split.count", Kind::U16),
    ("split.tensors.count", Kind::I32),
    ("tokenizer.chat_template", Kind::Text),
    ("tokenizer.ggml.model", Kind::Text),
    ("tokenizer.ggml.pre", Kind::Text),
    ("tokenizer.ggml.tokens", Kind::Texts),
    ("tokenizer.ggml.merges", Kind::Texts),
    ("tokenizer.ggml.scores", Kind::Scores),
    ("tokenizer.ggml.token_type", Kind::I32s),
    ("tokenizer.ggml.suppress_tokens", Kind::I32s),
    ("tokenizer.ggml.token_type_count", Kind::U32),
    ("tokenizer.ggml.precompiled_charsmap", Kind::Bytes),
    ("tokenizer.ggml.add_bos_token", Kind::Bool),
    ("tokenizer.ggml.add_eos_token", Kind::Bool),
    ("tokenizer.ggml.add_sep_token", Kind::Bool),
    ("tokenizer.ggml.add_space_prefix", Kind::Bool),
    ("tokenizer.ggml.remove_extra_whitespaces", Kind::Bool),
    ("tokenizer.ggml.normalizer.lowercase", Kind::Bool),
    ("tokenizer.ggml.normalizer.strip_accents", Kind::Bool),
];

/// Keys that name a token by its number.
pub(super) const TOKEN_IDS: &[&str] = &[
    "tokenizer.ggml.bos_token_id",
    "tokenizer.ggml.eos_token_id",
    "tokenizer.ggml.eot_token_id",
    "tokenizer.ggml.eom_token_id",
    "tokenizer.ggml.unknown_token_id",
    "tokenizer.ggml.seperator_token_id",
    "tokenizer.ggml.padding_token_id",
    "tokenizer.ggml.cls_token_id",
    "tokenizer.ggml.mask_token_id",
    "tokenizer.ggml.fim_pre_token_id",
    "tokenizer.ggml.fim_suf_token_id",
    "tokenizer.ggml.fim_mid_token_id",
    "tokenizer.ggml.fim_pad_token_id",
    "tokenizer.ggml.fim_rep_token_id",
    "tokenizer.ggml.fim_sep_token_id",
    "tokenizer.ggml.prefix_token_id",
    "tokenizer.ggml.suffix_token_id",
    "tokenizer.ggml.middle_token_id",
];

/// Keys that follow the architecture's name and a dot.
#[rustfmt::skip]
const OF_ARCHITECTURE: &[(Kind, &[&str])] = &[
    (
        Kind::F32,
        &[
            "activation.situ_beta", "activation.situ_linear_beta", "attention.clamp_kqv",
            "attention.compress_rope_freq_base", "attention.group_norm_epsilon",
            "attention.layer_norm_epsilon", "attention.layer_norm_rms_epsilon", "attention.max_alibi_bias",
            "attention.output_scale", "attention.scale", "attention.temperature_scale",
            "attention.value_scale", "attn_logit_softcapping", "embedding_scale", "expert_group_scale",
            "expert_weights_scale", "final_logit_softcapping", "hyper_connection.epsilon",
            "hyper_connection.magnitude", "kda.gate_lower_bound", "logit_scale", "residual_scale",
            "rope.freq_base", "rope.freq_base_swa", "rope.scale_linear", "rope.scaling.alpha",
            "rope.scaling.attn_factor", "rope.scaling.factor", "rope.scaling.yarn_attn_factor",
            "rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow", "rope.scaling.yarn_ext_factor",
            "rope.scaling.yarn_log_multiplier", "router_logit_softcapping",
        ],
    ),
    (
        Kind::Bool,
        &[
            "attention.causal", "attention.indexer.kpool_select_tail", "expert_weights_norm",
            "hrm.prefix_lm", "kda.safe_gate", "norm_before_fc", "norm_before_residual",
            "rope.scaling.finetuned", "ssm.dt_b_c_rms", "swin_norm", "use_parallel_residual",
        ],
    ),
    (
        Kind::U32s,
        &[
            "attention.compress_ratios", "attention.head_count", "attention.head_count_kv",
            "attention.indexer.types", "attention.recurrent_layers", "attention.sliding_window_pattern",
            "expert_feed_forward_length", "expert_used_count", "feed_forward_length",
            "rope.dimension_sections",
        ],
    ),
    (
        Kind::U32,
        &[
            "attention.decay_lora_rank", "attention.gate_lora_rank", "attention.group_norm_groups",
            "attention.iclr_lora_rank", "attention.indexer.block_size", "attention.indexer.head_count",
            "attention.indexer.key_length", "attention.indexer.kpool", "attention.indexer.local_blocks",
            "attention.indexer.top_k", "attention.key_length", "attention.key_length_mla",
            "attention.key_length_mla_swa", "attention.key_length_swa", "attention.kv_lora_rank",
            "attention.kv_lora_rank_swa", "attention.output_group_count", "attention.output_lora_rank",
            "attention.q_lora_rank", "attention.relative_buckets_count", "attention.shared_kv_layers",
            "attention.sliding_window", "attention.temperature_length", "attention.value_length",
            "attention.value_length_mla", "attention.value_length_mla_swa", "attention.value_length_swa",
            "attention.value_residual_mix_lora_rank", "attn_res.block_size", "block_count",
            "classifier.pooling_type", "context_length", "convnext.block_count",
            "convnext.embedding_length", "decoder_block_count", "decoder_start_token_id", "dense_2_feat_in",
            "dense_2_feat_out", "dense_3_feat_in", "dense_3_feat_out", "block_size", "conv_group_size",
            "conv_kernel_size", "selector_rank", "selector_top_k", "embedding_length",
            "embedding_length_out", "embedding_length_per_layer_input", "experts_per_group",
            "expert_chunk_feed_forward_length", "expert_count", "expert_gating_func", "expert_group_count",
            "expert_group_used_count", "expert_latent_length", "expert_shared_count",
            "expert_shared_feed_forward_length", "features_length", "full_attention_interval",
            "hash_layer_count", "hrm.h_cycles", "hrm.layers_per_stack", "hrm.l_cycles",
            "hyper_connection.count", "hyper_connection.low_rank", "hyper_connection.sinkhorn_iterations",
            "interleave_moe_layer_step", "kda.head_dim", "leading_dense_block_count", "moe_every_n_layers",
            "moe_latent_size", "nextn_predict_layers", "n_deepstack_layers", "num_loops", "ple.conv_kernel",
            "ple.eos_token_id", "ple.heads_per_ngram", "ple.image_token_id", "ple.ngram_size",
            "pooling_type", "posnet.block_count", "posnet.embedding_length", "rescale_every_n_layers",
            "rope.dimension_count", "rope.dimension_count_swa", "rope.scaling.original_context_length",
            "shortconv.l_cache", "ssm.conv_kernel", "ssm.group_count", "ssm.inner_size", "ssm.state_size",
            "ssm.time_step_rank", "target_hidden_size", "time_decay_extra_dim", "time_mix_extra_dim",
            "token_shift_count", "vocab_size", "wkv.head_size",
        ],
    ),
    (Kind::F32s, &["swiglu_clamp_exp", "swiglu_clamp_shexp"]),
    (Kind::Text, &["hidden_activation", "rope.scaling.type"]),
];

/// Architectures of llama-cpp-2 0.1.160.
#[rustfmt::skip]
const ARCHITECTURES: &[&str] = &[
    "clip", "llama", "llama4", "deci", "falcon", "grok", "gpt2", "gptj", "gptneox", "mpt", "baichuan",
    "starcoder", "refact", "bert", "modern-bert", "nomic-bert", "nomic-bert-moe", "neo-bert",
    "jina-bert-v2", "jina-bert-v3", "eurobert", "bloom", "stablelm", "qwen", "qwen2", "qwen2moe", "qwen2vl",
    "qwen3", "qwen3moe", "qwen3next", "qwen3vl", "qwen3vlmoe", "qwen35", "qwen35moe", "clef", "qwen4exp",
    "phi2", "phi3", "phimoe", "plamo", "plamo2", "plamo3", "codeshell", "orion", "internlm2", "minicpm",
    "minicpm3", "gemma", "gemma2", "gemma3", "gemma3n", "gemma4", "gemma4-assistant", "gemma-embedding",
    "starcoder2", "mamba", "mamba2", "maple", "jamba", "falcon-h1", "xverse", "command-r", "cohere2",
    "cohere2moe", "dbrx", "olmo", "olmo2", "olmoe", "muse-glimmer", "openelm", "arctic", "deepseek",
    "deepseek2", "deepseek2-ocr", "deepseek32", "deepseek4", "chatglm", "glm4", "glm4moe", "glm-dsa",
    "bitnet", "t5", "t5encoder", "jais", "jais2", "nemotron", "nemotron_h", "nemotron_h_moe", "exaone",
    "exaone4", "exaone-moe", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7", "granite", "granitemoe",
    "granitehybrid", "graniteswitch", "granite_swa", "chameleon", "wavtokenizer-dec", "plm", "bailingmoe",
    "bailingmoe2", "bailingmoe3", "dots1", "dots3note", "arcee", "afmoe", "laguna", "ernie4_5",
    "ernie4_5-moe", "hunyuan-moe", "hunyuan-dense", "hunyuan_vl", "hy_v3", "hy_v4", "smollm3", "gpt-oss",
    "lfm2", "lfm2moe", "dream", "smallthinker", "llada", "llada-moe", "seed_oss", "grovemoe", "apertus",
    "minimax-01", "hrm_text", "minimax-m2", "minimax-m3", "cogvlm", "rnd1", "pangu-embedded", "mistral3",
    "eagle3", "dflash", "mistral4", "paddleocr", "mimo2", "step35", "spark2_5", "llama-embed", "maincoder",
    "kimi-linear", "kimi-k3", "glm5-next", "talkie", "mellum", "nanbeige", "qwen3tts", "pockettts",
];

/// The type a key with a fixed name must have; none when nobody reads it.
pub(super) fn fixed(key: &str) -> Option<Kind> {
    if TOKEN_IDS.contains(&key) {
        return Some(Kind::U32);
    }
    FIXED.iter().find(|(name, _)| *name == key).map(|(_, kind)| *kind)
}

/// The type that `architecture.key` must have; none when nobody reads it.
pub(super) fn of_architecture(key: &str) -> Option<Kind> {
    OF_ARCHITECTURE.iter().find(|(_, names)| names.contains(&key)).map(|(kind, _)| *kind)
}

/// Whether this engine knows the architecture.
pub(super) fn knows_architecture(name: &str) -> bool {
    ARCHITECTURES.contains(&name)
}

/// Every known key (those of an architecture under this one) with its type, for tests.
#[cfg(test)]
pub(super) fn all(architecture: &str) -> Vec<(String, Kind)> {
    let fixed = FIXED.iter().map(|(name, kind)| ((*name).to_owned(), *kind));
    let ids = TOKEN_IDS.iter().map(|name| ((*name).to_owned(), Kind::U32));
    let own = OF_ARCHITECTURE
        .iter()
        .flat_map(|(kind, names)| names.iter().map(move |name| (format!("{architecture}.{name}"), *kind)));
    fixed.chain(ids).chain(own).collect()
}
