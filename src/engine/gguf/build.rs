//! Makes small GGUF files for tests, valid ones and broken ones.

/// A metadata value as it is written.
#[derive(Clone, Debug)]
pub(crate) enum V {
    U8(u8),
    U16(u16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(u8),
    Text(Vec<u8>),
    U64(u64),
    F64(f64),
    /// Element tag and elements.
    Array(u32, Vec<Self>),
    /// A tag and the bytes after it.
    Raw(u32, Vec<u8>),
}

impl V {
    pub(crate) fn text(text: &str) -> Self {
        Self::Text(text.as_bytes().to_vec())
    }

    pub(crate) fn texts<S: AsRef<[u8]>>(all: &[S]) -> Self {
        Self::Array(8, all.iter().map(|t| Self::Text(t.as_ref().to_vec())).collect())
    }

    pub(crate) fn tag(&self) -> u32 {
        match self {
            Self::U8(_) => 0,
            Self::U16(_) => 2,
            Self::U32(_) => 4,
            Self::I32(_) => 5,
            Self::F32(_) => 6,
            Self::Bool(_) => 7,
            Self::Text(_) => 8,
            Self::Array(..) => 9,
            Self::U64(_) => 10,
            Self::F64(_) => 12,
            Self::Raw(tag, _) => *tag,
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::U8(n) | Self::Bool(n) => out.push(*n),
            Self::U16(n) => out.extend(n.to_le_bytes()),
            Self::U32(n) => out.extend(n.to_le_bytes()),
            Self::I32(n) => out.extend(n.to_le_bytes()),
            Self::F32(n) => out.extend(n.to_le_bytes()),
            Self::U64(n) => out.extend(n.to_le_bytes()),
            Self::F64(n) => out.extend(n.to_le_bytes()),
            Self::Text(t) => {
                out.extend((t.len() as u64).to_le_bytes());
                out.extend(t);
            }
            Self::Array(tag, all) => {
                out.extend(tag.to_le_bytes());
                out.extend((all.len() as u64).to_le_bytes());
                for v in all {
                    v.write(out);
                }
            }
            Self::Raw(_, bytes) => out.extend(bytes),
        }
    }
}

/// A tensor's entry; the data is zeros.
#[derive(Clone, Debug)]
pub(crate) struct T {
    pub(crate) name: Vec<u8>,
    pub(crate) shape: Vec<u64>,
    pub(crate) kind: u32,
    /// None: right behind the one before.
    pub(crate) offset: Option<u64>,
}

/// A file to be written.
#[derive(Clone, Debug)]
pub(crate) struct Gguf {
    pub(crate) version: u32,
    pub(crate) keys: Vec<(Vec<u8>, V)>,
    pub(crate) tensors: Vec<T>,
    pub(crate) claimed_keys: Option<u64>,
    pub(crate) claimed_tensors: Option<u64>,
    pub(crate) alignment: u64,
}

impl Gguf {
    /// A valid llama model with two layers and six tokens.
    pub(crate) fn small() -> Self {
        let tokens = ["<s>", "</s>", "<|im_end|>", "a", "b", "ab"];
        let keys = vec![
            ("general.architecture", V::text("llama")),
            ("general.name", V::text("Tiny")),
            ("general.file_type", V::U32(0)),
            ("llama.context_length", V::U32(2048)),
            ("llama.embedding_length", V::U32(8)),
            ("llama.block_count", V::U32(2)),
            ("llama.feed_forward_length", V::U32(16)),
            ("llama.attention.head_count", V::U32(4)),
            ("llama.attention.head_count_kv", V::U32(2)),
            ("llama.rope.dimension_count", V::U32(2)),
            ("llama.attention.layer_norm_rms_epsilon", V::F32(1e-5)),
            ("tokenizer.ggml.model", V::text("gpt2")),
            ("tokenizer.ggml.pre", V::text("qwen2")),
            ("tokenizer.ggml.tokens", V::texts(&tokens)),
            ("tokenizer.ggml.token_type", V::Array(5, [3, 3, 3, 1, 1, 1].into_iter().map(V::I32).collect())),
            ("tokenizer.ggml.merges", V::texts(&["a b"])),
            ("tokenizer.ggml.bos_token_id", V::U32(0)),
            ("tokenizer.ggml.eos_token_id", V::U32(2)),
            ("tokenizer.chat_template", V::text("{{ messages[0].content }}")),
        ];
        let t = |name: &str, shape: &[u64]| T {
            name: name.as_bytes().to_vec(),
            shape: shape.to_vec(),
            kind: 0,
            offset: None,
        };
        Self {
            version: 3,
            keys: keys.into_iter().map(|(k, v)| (k.as_bytes().to_vec(), v)).collect(),
            tensors: vec![
                t("token_embd.weight", &[8, 6]),
                t("output_norm.weight", &[8]),
                t("output.weight", &[8, 6]),
            ],
            claimed_keys: None,
            claimed_tensors: None,
            alignment: 32,
        }
    }

    /// Sets a key, in place when it is there.
    pub(crate) fn with(mut self, key: &str, value: V) -> Self {
        match self.keys.iter_mut().find(|(k, _)| k == key.as_bytes()) {
            Some((_, v)) => *v = value,
            None => self.keys.push((key.as_bytes().to_vec(), value)),
        }
        self
    }

    pub(crate) fn without(mut self, key: &str) -> Self {
        self.keys.retain(|(k, _)| k != key.as_bytes());
        self
    }

    /// The header up to the data, without padding.
    pub(crate) fn header(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(self.claimed_tensors.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        out.extend(self.claimed_keys.unwrap_or(self.keys.len() as u64).to_le_bytes());
        for (key, value) in &self.keys {
            V::Text(key.clone()).write(&mut out);
            out.extend(value.tag().to_le_bytes());
            value.write(&mut out);
        }
        let mut offset = 0_u64;
        for tensor in &self.tensors {
            V::Text(tensor.name.clone()).write(&mut out);
            out.extend((tensor.shape.len() as u32).to_le_bytes());
            for n in &tensor.shape {
                out.extend(n.to_le_bytes());
            }
            out.extend(tensor.kind.to_le_bytes());
            out.extend(tensor.offset.unwrap_or(offset).to_le_bytes());
            offset += self.size(tensor).next_multiple_of(self.alignment);
        }
        out
    }

    fn size(&self, tensor: &T) -> u64 {
        tensor.shape.iter().fold(4_u64, |a, n| a.saturating_mul(*n)).min(1 << 20)
    }

    /// The whole file.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = self.header();
        for tensor in &self.tensors {
            out.resize(out.len().next_multiple_of(self.alignment as usize), 0);
            out.resize(out.len() + self.size(tensor) as usize, 0);
        }
        out
    }
}
