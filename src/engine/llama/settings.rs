//! How contexts are set up. There is one description for the context that serves and for the dry run that measures
//! it, so that what is measured is what is allocated.

use super::{BATCH, LoadOptions};
use crate::engine::embed_thread::SEQUENCES;
use crate::engine::gguf::{ModelInfo, ModelKind};
use llama_cpp_2::context::params::{LlamaContextParams, LlamaPoolingType};
use llama_cpp_sys_2 as sys;
use std::num::NonZeroU32;

/// What a context is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Text that grows token by token.
    Text,
    /// One vector for each text.
    Vectors {
        /// Whether the mean of all tokens is taken, because the file does not say how they become one vector.
        by_mean: bool,
    },
}

impl Purpose {
    /// What a model with this file is for.
    #[must_use]
    pub fn of(info: &ModelInfo) -> Self {
        match info.kind {
            ModelKind::Embedding => {
                Self::Vectors { by_mean: info.pooling.is_none_or(|pooling| pooling == 0) }
            }
            _ => Self::Text,
        }
    }
}

/// The numbers of a context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) struct Settings {
    context: u32,
    /// Tokens in one call, and in one piece of it.
    batch: u32,
    sequences: u32,
    threads: i32,
    purpose: Purpose,
}

impl Settings {
    /// For a model that was trained with a context of `trained` tokens. Texts that become vectors are evaluated
    /// whole, so there the batch is as large as the context.
    pub(in crate::engine) fn new(options: LoadOptions, trained: u32) -> Self {
        let threads = i32::try_from(options.threads.max(1)).unwrap_or(1);
        let (context, batch, sequences) = match options.purpose {
            Purpose::Text => (options.context, BATCH, options.slots.max(1)),
            Purpose::Vectors { .. } => {
                let longest = options.context.min(trained);
                (longest, longest, SEQUENCES)
            }
        };
        Self { context, batch, sequences, threads, purpose: options.purpose }
    }

    /// Tokens of context.
    pub(in crate::engine) fn context(&self) -> u32 {
        self.context
    }

    /// As the bindings take them.
    pub(in crate::engine) fn params(&self) -> LlamaContextParams {
        let params = LlamaContextParams::default()
            .with_n_ctx(NonZeroU32::new(self.context))
            .with_n_batch(self.batch)
            .with_n_ubatch(self.batch)
            .with_n_seq_max(self.sequences)
            .with_kv_unified(true)
            .with_n_threads(self.threads)
            .with_n_threads_batch(self.threads)
            .with_no_perf(true);
        match self.purpose {
            Purpose::Text => params,
            Purpose::Vectors { by_mean } => {
                let pooling = if by_mean { LlamaPoolingType::Mean } else { LlamaPoolingType::Unspecified };
                params.with_embeddings(true).with_pooling_type(pooling)
            }
        }
    }

    /// Puts them into llama.cpp's own `params`, which hold its defaults.
    pub(in crate::engine) fn write(&self, params: &mut sys::llama_context_params) {
        params.n_ctx = self.context;
        params.n_batch = self.batch;
        params.n_ubatch = self.batch;
        params.n_seq_max = self.sequences;
        params.kv_unified = true;
        params.n_threads = self.threads;
        params.n_threads_batch = self.threads;
        params.no_perf = true;
        if let Purpose::Vectors { by_mean } = self.purpose {
            params.embeddings = true;
            params.pooling_type =
                if by_mean { sys::LLAMA_POOLING_TYPE_MEAN } else { sys::LLAMA_POOLING_TYPE_UNSPECIFIED };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn vectors_need_a_batch_as_long_as_a_text_can_be() {
        let options = |purpose| LoadOptions { context: 8192, slots: 4, threads: 0, purpose };
        let text = Settings::new(options(Purpose::Text), 512);
        assert_eq!((text.context, text.batch, text.sequences, text.threads), (8192, BATCH, 4, 1));
        let vectors = Settings::new(options(Purpose::Vectors { by_mean: true }), 512);
        assert_eq!((vectors.context, vectors.batch, vectors.sequences), (512, 512, SEQUENCES));
        assert_eq!(Settings::new(options(vectors.purpose), 1 << 20).context(), 8192);
        let params = vectors.params();
        assert_eq!(
            (params.n_ctx().map(NonZeroU32::get), params.n_batch(), params.n_ubatch()),
            (Some(512), 512, 512)
        );
        assert!(params.embeddings() && params.kv_unified());
        assert_eq!(params.pooling_type(), LlamaPoolingType::Mean);
    }

    #[test]
    fn a_file_says_what_it_is_for() {
        let info = |kind, pooling| ModelInfo { kind, pooling, ..ModelInfo::default() };
        for (info, purpose) in [
            (info(ModelKind::Chat, None), Purpose::Text),
            (info(ModelKind::Embedding, None), Purpose::Vectors { by_mean: true }),
            (info(ModelKind::Embedding, Some(0)), Purpose::Vectors { by_mean: true }),
            (info(ModelKind::Embedding, Some(3)), Purpose::Vectors { by_mean: false }),
        ] {
            assert_eq!(Purpose::of(&info), purpose);
        }
    }
}
