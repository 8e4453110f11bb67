//! What a model file says of itself, checked.

use super::file::FileId;
use std::path::PathBuf;

/// What a model is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ModelKind {
    /// It continues text: the only kind that can be chatted with.
    #[default]
    Chat,
    /// It turns texts into vectors.
    Embedding,
    /// It orders texts by how well they answer a question.
    Reranker,
    /// A tokenizer without weights.
    Vocabulary,
    /// The eyes or ears of another model.
    Projector,
    /// A low-rank change to another model.
    Adapter,
    /// It guesses ahead for another model.
    Draft,
    /// It fills in text in any order.
    Diffusion,
    /// It translates one text into another, as T5 does.
    EncoderDecoder,
    /// It speaks.
    Speech,
    /// Something else in a GGUF file.
    Other,
}

impl ModelKind {
    /// Why it can't be chatted with; none for a chat model.
    #[must_use]
    pub fn why_not_chat(self) -> Option<&'static str> {
        Some(match self {
            Self::Chat => return None,
            Self::Embedding => "not a chat model: it makes embeddings",
            Self::Reranker => "not a chat model: it ranks texts",
            Self::Vocabulary => "not a chat model: a vocabulary without weights",
            Self::Projector => "not a chat model: a projector (mmproj) for a model that sees or hears",
            Self::Adapter => "not a chat model: a LoRA adapter for another model",
            Self::Draft => "not a chat model: a draft model for speculative decoding",
            Self::Diffusion => "not a chat model for this engine: it writes by diffusion",
            Self::EncoderDecoder => "not a chat model: an encoder-decoder",
            Self::Speech => "not a chat model: it produces sound",
            Self::Other => "not a model",
        })
    }
}

/// Sampling the maker of the model recommends in the file.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sampling {
    /// 0 is greedy.
    pub temperature: Option<f32>,
    /// 0 keeps all tokens.
    pub top_k: Option<i32>,
    /// 0 to 1.
    pub top_p: Option<f32>,
    /// 0 to 1.
    pub min_p: Option<f32>,
    /// Above 0; 1 is off.
    pub repeat_penalty: Option<f32>,
}

/// A model file that was read and found good. Texts are safe to show unless said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelInfo {
    /// Where it is, links resolved.
    pub path: PathBuf,
    /// Which file, and which state of it.
    pub file: Option<FileId>,
    /// Bytes of the file; of all parts for a split model.
    pub file_bytes: u64,
    /// How many parts the model has; 1 when it is not split.
    pub parts: u64,
    /// What it is for.
    pub kind: ModelKind,
    /// `llama`, `qwen3`, …
    pub architecture: String,
    /// The name inside the file.
    pub name: Option<String>,
    /// Number of weights, all parts.
    pub parameters: u64,
    /// Bytes of all tensors, all parts.
    pub tensor_bytes: u64,
    /// As `q4_k_m`.
    pub quantisation: Option<String>,
    /// Tokens of context it was trained with, 256 to 1,048,576.
    pub context_train: u32,
    /// Number of layers, 1 to 512.
    pub layers: u64,
    /// Length of an embedding.
    pub embedding: u64,
    /// Width of the feed-forward part (the widest layer's); 0 when not said.
    pub feed_forward: u64,
    /// Attention heads (the most of any layer).
    pub heads: u64,
    /// Heads of the KV cache for each layer; 0 for layers without one.
    pub heads_kv: Vec<u64>,
    /// Length of one key.
    pub key_length: u64,
    /// Length of one value.
    pub value_length: u64,
    /// Rank of the compressed KV cache of DeepSeek-like models.
    pub kv_lora_rank: Option<u64>,
    /// Tokens that a sliding-window layer looks back.
    pub sliding_window: Option<u64>,
    /// Which layers look back only that far; empty when none does.
    pub windowed: Vec<bool>,
    /// Bytes of recurrent state of one sequence.
    pub recurrent_bytes: u64,
    /// How vectors of tokens become one, by llama.cpp's number; none where the file does not say.
    pub pooling: Option<u64>,
    /// Number of tokens in the vocabulary.
    pub vocabulary: u64,
    /// `gpt2` (byte-level BPE), `llama` (SentencePiece), …
    pub tokenizer: Option<String>,
    /// `qwen2`, `llama-bpe`, …
    pub pre_tokenizer: Option<String>,
    /// The chat template, in the original.
    pub chat_template: Option<String>,
    /// Whether the file says that a text begins with the bos token.
    pub add_bos: Option<bool>,
    /// Id of the token that begins a text.
    pub bos_id: Option<u32>,
    /// Id of the token that ends one.
    pub eos_id: Option<u32>,
    /// Text of the token that begins a text, in the original; empty when there is none.
    pub bos_token: String,
    /// Text of the token that ends one, in the original; empty when there is none.
    pub eos_token: String,
    /// Texts of the tokens that mark control, in the original.
    pub special_tokens: Vec<String>,
    /// Recommended sampling.
    pub sampling: Sampling,
    /// Whether it lies on a network file system (then it is better read than mapped).
    pub is_remote: bool,
    /// Things that are odd but do not hinder, one line each.
    pub warnings: Vec<String>,
}

/// The tokens and merges of a model's tokenizer, in the original.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Vocabulary {
    /// `gpt2`, `llama`, …
    pub model: String,
    /// `qwen2`, `llama-bpe`, …
    pub pre: String,
    /// Token texts by id; bad UTF-8 is replaced.
    pub tokens: Vec<String>,
    /// Merges of byte-pair encoding, best first, each two tokens with a space between.
    pub merges: Vec<String>,
    /// Ids of control tokens.
    pub specials: Vec<u32>,
}
