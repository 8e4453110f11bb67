//! The thin layer over `llama_cpp_2`: starting llama.cpp, loading a model, making its context.

use super::pool::Pool;
use crate::config::pool::PoolConfig;
use llama_cpp_2::LogOptions;
use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::params::{LlamaContextParams, LlamaPoolingType};
use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::model::params::LlamaModelParams;
use llama_cpp_2::sampling::LlamaSampler;
use llama_cpp_2::token::LlamaToken;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Largest number of tokens evaluated in one call, and the physical batch inside llama.cpp.
pub const BATCH: u32 = 512;

/// Settings of a model and its context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// Context in tokens, shared by all slots.
    pub context: u32,
    /// Sequences.
    pub slots: u32,
    /// Threads for compute.
    pub threads: u32,
}

/// How the weights come into memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// Mapped: shared with the page cache.
    Mapped,
    /// Read: for files on a network, where a mapped page may fail to come.
    Read,
}

/// llama.cpp, started. One per process.
#[derive(Clone, Debug)]
pub struct Llama {
    backend: Arc<LlamaBackend>,
    /// Making contexts changes the model inside llama.cpp: one at a time.
    making_context: Arc<Mutex<()>>,
    pool: Pool,
}

impl Llama {
    /// Starts llama.cpp and sends its log to `tracing`.
    ///
    /// # Errors
    /// When it was started before in this process, or has no backend to compute with.
    pub fn start() -> Result<Self, String> {
        llama_cpp_2::send_logs_to_tracing(LogOptions::default());
        #[cfg(feature = "portable")]
        super::backends::load()?;
        let backend = LlamaBackend::init().map_err(|e| format!("llama.cpp did not start: {e}"))?;
        Ok(Self { backend: Arc::new(backend), making_context: Arc::default(), pool: Pool::default() })
    }

    /// The same with devices of other machines.
    #[must_use]
    pub fn with_pool(self, config: &PoolConfig) -> Self {
        Self { pool: Pool::open(config), ..self }
    }

    /// Whether this file is spread over other machines, whose memory then counts.
    #[must_use]
    pub fn is_pooled(&self, path: &Path) -> bool {
        self.pool.takes(path)
    }

    /// Loads a model. `progress` gets 0 to 1 and may return `false` to stop.
    ///
    /// # Errors
    /// What llama.cpp says, which is little: its log has more.
    pub fn load(
        &self,
        path: &Path,
        storage: Storage,
        progress: impl FnMut(f32) -> bool + 'static,
    ) -> Result<LlamaModel, String> {
        let mut params = LlamaModelParams::default()
            .with_use_mmap(storage == Storage::Mapped)
            .with_progress_callback(progress);
        if let Some(devices) = self.pool.devices(path)? {
            params = params.with_devices(&devices).map_err(|e| e.to_string())?;
        }
        LlamaModel::load_from_file(&self.backend, path, &params).map_err(|e| e.to_string())
    }

    /// Makes the context that holds the KV cache and the compute buffers.
    ///
    /// # Errors
    /// When the memory can't be had.
    pub fn context<'m>(
        &self,
        model: &'m LlamaModel,
        options: LoadOptions,
    ) -> Result<LlamaContext<'m>, String> {
        let _one_at_a_time = self.making_context.lock().unwrap_or_else(PoisonError::into_inner);
        let threads = i32::try_from(options.threads.max(1)).unwrap_or(1);
        let params = LlamaContextParams::default()
            .with_n_ctx(NonZeroU32::new(options.context))
            .with_n_batch(BATCH)
            .with_n_ubatch(BATCH)
            .with_n_seq_max(options.slots.max(1))
            .with_kv_unified(true)
            .with_n_threads(threads)
            .with_n_threads_batch(threads)
            .with_no_perf(true);
        model.new_context(&self.backend, params).map_err(|e| {
            format!(
                "a context of {} tokens could not be made ({e}); try a smaller [engine] context",
                options.context
            )
        })
    }
}

impl Llama {
    /// Makes a context that gives one vector for each sequence instead of text. Everything in a batch is evaluated
    /// at once, so the physical batch is as large as the context. A model that says nothing of pooling gets the mean.
    ///
    /// # Errors
    /// When the memory can't be had.
    pub fn embedding_context<'m>(
        &self,
        model: &'m LlamaModel,
        options: LoadOptions,
    ) -> Result<LlamaContext<'m>, String> {
        let _one_at_a_time = self.making_context.lock().unwrap_or_else(PoisonError::into_inner);
        let threads = i32::try_from(options.threads.max(1)).unwrap_or(1);
        let batch = options.context.min(model.n_ctx_train());
        let stated = model
            .meta_val_str("general.architecture")
            .and_then(|architecture| model.meta_val_str(&format!("{architecture}.pooling_type")));
        let pooling = match stated.as_deref() {
            Ok("0") | Err(_) => LlamaPoolingType::Mean,
            Ok(_) => LlamaPoolingType::Unspecified,
        };
        let params = LlamaContextParams::default()
            .with_n_ctx(NonZeroU32::new(batch))
            .with_n_batch(batch)
            .with_n_ubatch(batch)
            .with_n_seq_max(super::embed_thread::SEQUENCES)
            .with_kv_unified(true)
            .with_embeddings(true)
            .with_pooling_type(pooling)
            .with_n_threads(threads)
            .with_n_threads_batch(threads)
            .with_no_perf(true);
        model.new_context(&self.backend, params).map_err(|e| {
            format!("a context for texts of {batch} tokens could not be made ({e}); try a smaller [engine] context")
        })
    }
}

/// The name and kind of every device llama.cpp sees, with its memory in bytes.
#[must_use]
pub fn devices() -> Vec<Device> {
    llama_cpp_2::list_llama_ggml_backend_devices()
        .into_iter()
        .map(|d| Device {
            name: d.name,
            description: d.description,
            backend: d.backend,
            total: d.memory_total as u64,
            free: d.memory_free as u64,
        })
        .collect()
}

/// Instruction sets and options of this build's backends, as llama.cpp prints them: `CPU : SSE3 = 1 | AVX2 = 1 | `.
#[expect(unsafe_code, reason = "llama-cpp-2 has no wrapper for this call")]
#[must_use]
pub fn system_info() -> String {
    // SAFETY: it gives a NUL-terminated string that llama.cpp keeps until the next call, which no other thread of
    // the process that asks makes.
    unsafe { std::ffi::CStr::from_ptr(llama_cpp_sys_2::llama_print_system_info()) }
        .to_string_lossy()
        .into_owned()
}

/// A device llama.cpp can compute on.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Device {
    /// Its short name, as `CPU` or `CUDA0`.
    pub name: String,
    /// Its maker's name.
    pub description: String,
    /// The ggml backend.
    pub backend: String,
    /// Memory in bytes.
    pub total: u64,
    /// Free memory in bytes.
    pub free: u64,
}

/// Physical cores of this machine: what llama.cpp computes best with. Logical ones where the system
/// does not tell.
#[must_use]
pub fn physical_cores() -> u32 {
    let logical = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut cores = std::collections::HashSet::new();
    for cpu in 0..logical {
        let read = |what: &str| {
            std::fs::read_to_string(format!("/sys/devices/system/cpu/cpu{cpu}/topology/{what}")).ok()
        };
        if let (Some(package), Some(core)) = (read("physical_package_id"), read("core_id")) {
            cores.insert((package, core));
        }
    }
    let count = if cores.is_empty() { logical } else { cores.len() };
    u32::try_from(count).unwrap_or(1)
}

/// Gives back the threads that OpenMP keeps for this thread's next computation.
///
/// libgomp counts the pools of all threads together. With two resident models there are more pool threads
/// than cores, and then it lets every barrier sleep in the kernel instead of spinning: decoding was a
/// third slower here. So a model that has nothing to do keeps no pool; a new one costs microseconds.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "one call into the OpenMP runtime that ggml is linked with")]
pub fn release_compute_threads() {
    const SOFT: std::ffi::c_int = 1;
    unsafe extern "C" {
        fn omp_pause_resource_all(kind: std::ffi::c_int) -> std::ffi::c_int;
    }
    // SAFETY: OpenMP 5.0, section 3.2.44: callable outside of any parallel region, which is the case
    // between two calls of llama.cpp. It takes and gives plain numbers.
    let _ = unsafe { omp_pause_resource_all(SOFT) };
}

/// Nothing to give back: ggml has threads of its own here.
#[cfg(not(target_os = "linux"))]
pub fn release_compute_threads() {}

/// A JSON schema as a grammar.
///
/// # Errors
/// One line, when the schema says what no grammar can.
pub fn schema_grammar(schema: &serde_json::Value) -> Result<String, String> {
    llama_cpp_2::json_schema_to_grammar(&schema.to_string())
        .map_err(|e| format!("the JSON schema can't be made into a grammar ({e}). Simplify it"))
}

/// Whether a grammar compiles.
///
/// # Errors
/// One line with the next step.
pub fn check_grammar(model: &LlamaModel, grammar: &str) -> Result<(), String> {
    LlamaSampler::grammar(model, grammar, "root")
        .map(drop)
        .map_err(|e| format!("the grammar does not compile ({e}). Correct it; its first rule is `root`"))
}

/// All tokens that end a generation.
#[must_use]
pub fn end_tokens(model: &LlamaModel) -> Vec<i32> {
    let vocab = model.vocab();
    vocab.tokens().filter(|t| vocab.is_eog(*t)).map(|t| t.0).collect()
}

/// A token that every context can evaluate: the one that begins a text where there is one.
#[must_use]
pub fn any_token(model: &LlamaModel) -> LlamaToken {
    let vocab = model.vocab();
    [vocab.bos(), vocab.eos()].into_iter().find(|t| is_token(model, t.0)).unwrap_or(LlamaToken::new(0))
}

/// Whether `id` is a token of the model: llama.cpp ends the process for one that isn't.
#[must_use]
pub fn is_token(model: &LlamaModel, id: i32) -> bool {
    (0..model.n_vocab()).contains(&id)
}
