//! What llama.cpp sees of this machine, found out in a process of its own: a driver that ends its process
//! ends that one. Beside the list of devices it loads the built-in model and tells where the weights went, because
//! a device that is listed is not yet one that computes.

use super::llama::{self, Llama, LoadOptions, Purpose, Storage};
use super::residency::offload::Offload;
use llama_cpp_2::LlamaBackendDeviceType;
use llama_cpp_2::llama_batch::LlamaBatch;
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tracing_subscriber::fmt::MakeWriter;

/// How long it may take: drivers of accelerators take seconds to start.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of what the process says that are read.
const MAX_WORDS: u64 = 1 << 20;

/// What was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Findings {
    /// What llama.cpp can compute on.
    pub devices: Vec<Seen>,
    /// Instruction sets and options of this build's backends, by name (`AVX2`), as llama.cpp prints them.
    pub features: Vec<String>,
    /// A load of the built-in model, or why it failed.
    pub trial: Result<Trial, String>,
}

/// A device as llama.cpp sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Its short name, as `CPU` or `CUDA0`.
    pub name: String,
    /// `cpu`, `gpu`, `igpu`, `accel` or `unknown`.
    pub kind: String,
    /// Its maker's name.
    pub description: String,
    /// The ggml backend.
    pub backend: String,
    /// Memory in bytes.
    pub total: u64,
    /// Free memory in bytes.
    pub free: u64,
}

impl Seen {
    /// Whether layers can be put on it instead of on the CPU.
    #[must_use]
    pub fn is_accelerator(&self) -> bool {
        self.kind == "gpu" || self.kind == "igpu"
    }
}

/// What became of loading a model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// Where its weights lie: llama.cpp's name of the place, and MiB.
    pub places: Vec<(String, f64)>,
    /// How many layers went to accelerators, of how many; none when this build has none.
    pub offloaded: Option<(u32, u32)>,
    /// Milliseconds for the load and one token.
    pub ms: f64,
}

/// Looks at this machine in a process of its own, with this model for the trial.
///
/// # Errors
/// One line: how the process ended and its last words.
pub fn inspect(model: &Path) -> Result<Findings, String> {
    let said = in_child(&["inspect".as_ref(), model.as_os_str()])?;
    serde_json::from_slice(&said).map_err(|e| format!("its report can't be read: {e}"))
}

/// Runs `tui engine` with these arguments and returns what it prints.
///
/// # Errors
/// One line: how the process ended and its last words.
pub(super) fn in_child(arguments: &[&OsStr]) -> Result<Vec<u8>, String> {
    let executable = std::env::current_exe().map_err(|e| format!("cannot find this program: {e}"))?;
    let mut child = Command::new(executable)
        .arg("engine")
        .args(arguments)
        .env("GGML_NO_BACKTRACE", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("it can't be started: {e}"))?;
    let (said, words) = (child.stdout.take(), child.stderr.take());
    let said = std::thread::spawn(move || gather(said));
    let words = std::thread::spawn(move || gather(words));
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait().map_err(|e| e.to_string())? {
            Some(status) => break status,
            None if Instant::now() >= deadline => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("it did not end within {} s", PATIENCE.as_secs()));
            }
            None => std::thread::park_timeout(Duration::from_millis(10)),
        }
    };
    let (said, words) = (said.join().unwrap_or_default(), words.join().unwrap_or_default());
    if status.success() {
        return Ok(said);
    }
    let words = String::from_utf8_lossy(&words);
    let last = words.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it left no word");
    let last = crate::text::shown_line(last.trim_start_matches("tui: "), 200);
    Err(match status.signal() {
        Some(signal) => format!("it ended by signal {signal}: {last}"),
        None => format!("it failed: {last}"),
    })
}

fn gather(from: Option<impl Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut from) = from {
        let _ = from.by_ref().take(MAX_WORDS).read_to_end(&mut bytes);
        // What is too much is read all the same: a full pipe would hold the process.
        let _ = std::io::copy(&mut from, &mut std::io::sink());
    }
    bytes
}

/// What the inspecting process does; prints [`Findings`] as JSON.
///
/// # Errors
/// When llama.cpp does not start.
pub fn run(model: &Path) -> Result<String, String> {
    let log = Kept::default();
    let _ = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::INFO)
        .with_ansi(false)
        .without_time()
        .with_target(false)
        .with_writer(log.clone())
        .try_init();
    let llama = Llama::start()?;
    let devices = llama_cpp_2::list_llama_ggml_backend_devices()
        .into_iter()
        .map(|device| Seen {
            kind: match device.device_type {
                LlamaBackendDeviceType::Cpu => "cpu",
                LlamaBackendDeviceType::Gpu => "gpu",
                LlamaBackendDeviceType::IntegratedGpu => "igpu",
                LlamaBackendDeviceType::Accelerator => "accel",
                LlamaBackendDeviceType::Unknown => "unknown",
            }
            .to_owned(),
            name: device.name,
            description: device.description.trim().to_owned(),
            backend: device.backend,
            total: device.memory_total as u64,
            free: device.memory_free as u64,
        })
        .collect();
    let features = features(&llama::system_info());
    let began = Instant::now();
    let trial = try_load(&llama, model).map(|()| {
        let log = log.take();
        Trial { places: places(&log), offloaded: offloaded(&log), ms: began.elapsed().as_secs_f64() * 1000.0 }
    });
    serde_json::to_string(&Findings { devices, features, trial }).map_err(|e| e.to_string())
}

/// Loads the model and evaluates one token, as the engine would.
fn try_load(llama: &Llama, path: &Path) -> Result<(), String> {
    let options = LoadOptions { context: 256, slots: 1, threads: 1, purpose: Purpose::Text };
    let model = llama.load(path, Storage::Mapped, &Offload::All, options, |_| true)?;
    let mut context = llama.context(&model, options)?;
    let mut batch = LlamaBatch::new(1, 1);
    batch.add(llama::any_token(&model), 0, &[0], true).map_err(|e| e.to_string())?;
    context.decode(&mut batch).map_err(|e| e.to_string())?;
    if context.get_logits_ith(0).iter().any(|logit| logit.is_finite()) {
        Ok(())
    } else {
        Err("it computes nothing but NaN".to_owned())
    }
}

/// The names that are on in `CPU : SSE3 = 1 | AVX2 = 1 | REPACK = 1 | `.
fn features(info: &str) -> Vec<String> {
    let mut on: Vec<String> = Vec::new();
    for part in info.split('|') {
        let Some((name, value)) = part.split_once('=') else { continue };
        let name = name.rsplit(':').next().unwrap_or_default().trim();
        if value.trim() != "0" && !name.is_empty() && !on.iter().any(|known| known == name) {
            on.push(name.to_owned());
        }
    }
    on
}

/// Where weights lie, from `  CPU_Mapped model buffer size =     1.95 MiB`.
fn places(log: &str) -> Vec<(String, f64)> {
    let place = |line: &str| {
        let (name, size) = line.split_once(" model buffer size =")?;
        let size = size.split_once("MiB")?.0.trim().parse().ok()?;
        Some((name.split_whitespace().last()?.to_owned(), size))
    };
    log.lines().filter_map(place).collect()
}

/// From `offloaded 5/5 layers to GPU`.
fn offloaded(log: &str) -> Option<(u32, u32)> {
    log.lines().find_map(|line| {
        let (_, rest) = line.split_once("offloaded ")?;
        let (done, all) = rest.split_once(" layers")?.0.split_once('/')?;
        Some((done.parse().ok()?, all.parse().ok()?))
    })
}

/// A log kept in memory.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Kept {
    fn take(&self) -> String {
        let bytes = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Kept {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn llama_cpps_words_are_understood() {
        let info = "CPU : SSE3 = 1 | AVX2 = 1 | AVX512 = 0 | OPENMP = 1 | CUDA : ARCHS = 890 | AVX2 = 1 | ";
        assert_eq!(features(info), ["SSE3", "AVX2", "OPENMP", "ARCHS"]);
        let log = " INFO loading\n INFO offloaded 5/5 layers to GPU target=\"llama.cpp::load_tensors\"\n \
                   INFO   CPU_Mapped model buffer size =     0.50 MiB target=\"x\"\n INFO        CUDA0 model buffer size =  1.95 MiB\n";
        assert_eq!(places(log), [("CPU_Mapped".to_owned(), 0.5), ("CUDA0".to_owned(), 1.95)]);
        assert_eq!(offloaded(log), Some((5, 5)));
        assert_eq!((places("nothing"), offloaded("offloaded x/y layers")), (Vec::new(), None));
    }
}
