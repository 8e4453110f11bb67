//! The thin layer over `llama_cpp_2`: starting llama.cpp, loading a model, making its context.

mod settings;

pub use settings::Purpose;
pub(in crate::engine) use settings::Settings;

use super::brake;
use super::pool::Pool;
use super::residency::offload::Offload;
use super::rewind::Memory;
use crate::config::pool::PoolConfig;
use llama_cpp_2::LogOptions;
use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::session::{LlamaStateSeqFlags, SeqState};
use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::model::params::LlamaModelParams;
use llama_cpp_2::sampling::LlamaSampler;
use llama_cpp_2::token::LlamaToken;
use llama_cpp_2::{LlamaBackendDevice, LlamaBackendDeviceType};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
    /// What its context is for.
    pub purpose: Purpose,
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

    /// The one of all tests of this process.
    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        static LLAMA: std::sync::OnceLock<Llama> = std::sync::OnceLock::new();
        LLAMA.get_or_init(|| Self::start().unwrap_or_else(|error| unreachable!("{error}"))).clone()
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

    /// Whether everything of this file is computed by this machine's processor.
    #[must_use]
    pub fn is_on_cpu(&self, path: &Path) -> bool {
        !self.is_pooled(path) && devices().iter().all(|device| device.kind == Kind::Cpu)
    }

    /// Loads a model for a context with these options. `progress` gets 0 to 1 and may return `false` to stop.
    ///
    /// # Errors
    /// What llama.cpp says, which is little: its log has more.
    pub fn load(
        &self,
        path: &Path,
        storage: Storage,
        offload: &Offload,
        options: LoadOptions,
        progress: impl FnMut(f32) -> bool + 'static,
    ) -> Result<LlamaModel, String> {
        let mut params = LlamaModelParams::default()
            .with_use_mmap(storage == Storage::Mapped)
            .with_progress_callback(progress);
        if let Some(devices) = self.pool.devices(path)? {
            params = params.with_devices(&devices).map_err(|e| e.to_string())?;
        }
        let params = match offload {
            Offload::All => Box::pin(params),
            Offload::Layers(layers) => Box::pin(params.with_n_gpu_layers(*layers)),
            Offload::Fit(margins) => fitted(path, params, options, margins)?,
        };
        LlamaModel::load_from_file(&self.backend, path, &params).map_err(|e| e.to_string())
    }

    /// Makes the context that holds the KV cache and the compute buffers, or gives vectors. Its batches can be ended by
    /// `brake`.
    ///
    /// # Errors
    /// When the memory can't be had.
    pub fn context<'m>(
        &self,
        model: &'m LlamaModel,
        options: LoadOptions,
    ) -> Result<LlamaContext<'m>, String> {
        let _one_at_a_time = self.making_context();
        let settings = Settings::new(options, model.n_ctx_train());
        model.new_context(&self.backend, brake::fitted(settings.params())).map_err(|e| {
            format!(
                "a context of {} tokens could not be made ({e}); try a smaller [engine] context",
                settings.context()
            )
        })
    }

    /// Held while a context is made.
    pub(super) fn making_context(&self) -> MutexGuard<'_, ()> {
        self.making_context.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets llama.cpp choose which layers and experts go where, so that `margins` (bytes, one per accelerator) stay free.
fn fitted(
    path: &Path,
    params: LlamaModelParams,
    options: LoadOptions,
    margins: &[u64],
) -> Result<Pin<Box<LlamaModelParams>>, String> {
    let file =
        CString::new(path.as_os_str().as_bytes()).map_err(|_| "its path holds a zero byte".to_owned())?;
    let mut all: Vec<usize> = margins.iter().map(|m| usize::try_from(*m).unwrap_or(usize::MAX)).collect();
    all.resize(llama_cpp_2::max_devices().max(all.len()), 0);
    let mut params = Box::pin(params);
    let mut context = Settings::new(options, u32::MAX).params();
    let quiet = llama_cpp_sys_2::GGML_LOG_LEVEL_WARN;
    params
        .as_mut()
        .fit_params(&file, &mut context, &mut all, options.context, quiet)
        .map_err(|e| format!("llama.cpp finds no way to place its layers: {e}"))?;
    Ok(params)
}

/// Evaluates one token, so that the cost of touching weights and buffers for the first time is part of
/// loading and not of the first answer.
pub fn warm_up(model: &LlamaModel, context: &mut LlamaContext<'_>) {
    let token = any_token(model);
    let mut batch = LlamaBatch::new(1, 1);
    if batch.add(token, 0, &[0], true).is_ok() && context.decode(&mut batch).is_ok() {
        context.synchronize();
    }
    context.clear_kv_cache();
}

/// Every device llama.cpp sees, with its memory in bytes.
#[must_use]
pub fn devices() -> Vec<Device> {
    llama_cpp_2::list_llama_ggml_backend_devices().into_iter().map(Device::from).collect()
}

/// What a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The processor.
    Cpu,
    /// A card with memory of its own.
    Gpu,
    /// A graphics unit that computes in main memory.
    Igpu,
    /// Something that helps the processor and has no memory of its own.
    Accel,
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
    /// What it is.
    pub kind: Kind,
    /// Its maker's name.
    pub description: String,
    /// The ggml backend.
    pub backend: String,
    /// Memory in bytes.
    pub total: u64,
    /// Free memory in bytes.
    pub free: u64,
}

impl From<LlamaBackendDevice> for Device {
    fn from(d: LlamaBackendDevice) -> Self {
        Self {
            kind: match d.device_type {
                LlamaBackendDeviceType::Cpu => Kind::Cpu,
                LlamaBackendDeviceType::Gpu => Kind::Gpu,
                LlamaBackendDeviceType::IntegratedGpu => Kind::Igpu,
                LlamaBackendDeviceType::Accelerator | LlamaBackendDeviceType::Unknown => Kind::Accel,
            },
            name: d.name,
            description: d.description,
            backend: d.backend,
            total: d.memory_total as u64,
            free: d.memory_free as u64,
        }
    }
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

/// Gives memory that was freed back to the system: the allocator keeps what it got in small pieces.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "one call into the C library")]
pub fn return_memory() {
    // SAFETY: malloc_trim(3) is callable from any thread at any time, and takes and gives plain numbers.
    let _ = unsafe { libc::malloc_trim(0) };
}

/// Nothing to do: the allocator gives back by itself, or can't be told.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn return_memory() {}
/// The types of keys and values in the KV cache of [`Llama::context`], as they stand in saved states.
pub const KV_TYPES: &str = "f16/f16";

/// What a sequence holds in the KV cache, as llama.cpp writes it down. None when it can't be had.
#[must_use]
#[expect(unsafe_code, reason = "the safe call gives bytes that can't be written to a file")]
pub fn sequence_state(context: &LlamaContext<'_>, seq: i32) -> Option<Vec<u8>> {
    let flags = LlamaStateSeqFlags::empty();
    let size = context.state_seq_get_size_ext(seq, flags);
    let mut bytes = vec![0; size];
    // SAFETY: llama.cpp writes as many bytes as it said just before; nothing was evaluated in between.
    let written = unsafe { context.state_seq_get_data_ext(bytes.as_mut_ptr(), seq, flags) };
    (size > 0 && written == size).then_some(bytes)
}

/// Puts a sequence back. `false` when llama.cpp does not take it: the sequence is empty then.
///
/// `bytes` must be what [`sequence_state`] gave for the same model and settings; the caller has checked that.
#[must_use]
#[expect(unsafe_code, reason = "the safe call takes no bytes that come from a file")]
pub fn restore_sequence(context: &mut LlamaContext<'_>, seq: i32, bytes: &[u8]) -> bool {
    // SAFETY: llama.cpp reads no further than the length it is given, compares layers, types and sizes with its
    // own, and frees the sequence when one differs. The bytes carry our checksum.
    let is_taken = unsafe { context.state_seq_set_data_ext(bytes, seq, LlamaStateSeqFlags::empty()) };
    if !is_taken {
        let _ = context.clear_kv_cache_seq(u32::try_from(seq).ok(), None, None);
    }
    is_taken
}

/// What of a sequence can't be rewound (the state of recurrent layers), and how many bytes that are. None when it
/// can't be had.
#[must_use]
pub fn partial_state(context: &LlamaContext<'_>, seq: i32) -> Option<(SeqState, u64)> {
    let state = context.state_seq_get(seq, LlamaStateSeqFlags::PARTIAL_ONLY).ok()?;
    let bytes = state.byte_len() as u64;
    (bytes > 0).then_some((state, bytes))
}

/// Puts back what can't be rewound. `false` when llama.cpp does not take it.
#[must_use]
pub fn restore_partial(context: &mut LlamaContext<'_>, seq: i32, state: &SeqState) -> bool {
    context.state_seq_set(state, seq).is_ok()
}

/// How a model remembers; `window` is what its file says of sliding windows.
#[must_use]
pub fn memory_of(model: &LlamaModel, window: Option<u64>) -> Memory {
    match window.and_then(|tokens| usize::try_from(tokens).ok()) {
        _ if model.is_recurrent() || model.is_hybrid() => Memory::Recurrent,
        Some(tokens) if tokens > 0 => Memory::Windowed(tokens),
        _ => Memory::Whole,
    }
}

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
