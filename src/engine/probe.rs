//! A first load in a process of its own, thrown away after it: what would end the engine ends that one. The
//! same process measures what the model will take, without allocating it.
//!
//! Results are kept by the file's identity and the program's version, so that a model is probed once, and measured
//! once for each way it is loaded.

use super::gguf;
use super::llama::{self, Llama, LoadOptions, Purpose, Storage};
use super::residency::dry_run;
use super::residency::footprint::Measured;
use super::residency::offload::Offload;
use crate::paths::{Paths, create_private};
use llama_cpp_2::llama_batch::LlamaBatch;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long trying a model may take.
const PATIENCE: Duration = Duration::from_secs(180);
/// Files larger than this are checked without reading all their weights.
const WHOLE_LIMIT: u64 = 4 << 30;

/// Measurements kept of one file.
const MAX_MEASURED: usize = 16;

/// How a model will be loaded, as far as what it takes depends on it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Way {
    /// Context in tokens, shared by all slots.
    pub context: u32,
    /// Sequences.
    pub slots: u32,
    /// Layers on accelerators; none: all.
    pub gpu_layers: Option<u32>,
    /// Names of the devices there are.
    pub devices: Vec<String>,
}

/// What is kept of a probed file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    identity: Identity,
    /// What it takes, the newest last; none where llama.cpp did not say.
    measured: Vec<(Way, Option<Measured>)>,
}

/// What the file was when it was probed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    device: u64,
    inode: u64,
    bytes: u64,
    modified_s: i64,
    modified_ns: i64,
    version: String,
}

impl Identity {
    fn of(path: &Path) -> std::io::Result<Self> {
        let meta = std::fs::metadata(path)?;
        Ok(Self {
            device: meta.dev(),
            inode: meta.ino(),
            bytes: meta.size(),
            modified_s: meta.mtime(),
            modified_ns: meta.mtime_nsec(),
            version: crate::VERSION.to_owned(),
        })
    }
}

/// Makes sure (as long as `is_wanted`) that this file was loaded once in a process of its own without ending it, and
/// returns what it takes when it is loaded this way; none where llama.cpp does not say.
///
/// # Errors
/// One or two lines: the file, what happened, the next step.
pub fn ensure(
    path: &Path,
    way: &Way,
    paths: &Paths,
    config_file: Option<&Path>,
    is_wanted: impl Fn() -> bool,
) -> Result<Option<Measured>, String> {
    let name = path.display();
    let identity = Identity::of(path).map_err(|e| format!("`{name}`: {e}"))?;
    let file = kept_file(path, paths);
    let known = std::fs::read(&file).ok().and_then(|text| serde_json::from_slice::<Kept>(&text).ok());
    let known = known.filter(|kept| kept.identity == identity);
    if let Some((_, measured)) = known.iter().flat_map(|kept| &kept.measured).find(|(known, _)| known == way)
    {
        return Ok(measured.clone());
    }
    let said = try_out(path, way, known.is_some(), config_file, is_wanted)?;
    let measured = serde_json::from_slice::<Measured>(&said).ok();
    let mut kept = known.unwrap_or_else(|| Kept { identity, measured: Vec::new() });
    kept.measured.push((way.clone(), measured.clone()));
    kept.measured.drain(..kept.measured.len().saturating_sub(MAX_MEASURED));
    if let Some(folder) = file.parent()
        && create_private(folder).is_ok()
        && let Ok(text) = serde_json::to_vec(&kept)
    {
        let _ = std::fs::write(&file, text);
    }
    Ok(measured)
}

/// Runs the process and returns what it printed.
fn try_out(
    path: &Path,
    way: &Way,
    is_good: bool,
    config_file: Option<&Path>,
    is_wanted: impl Fn() -> bool,
) -> Result<Vec<u8>, String> {
    let name = path.display();
    let executable = std::env::current_exe().map_err(|e| format!("cannot find this program: {e}"))?;
    let mut command = Command::new(executable);
    command.args(["engine", "probe"]).arg(path);
    command.args(["--context", &way.context.to_string(), "--slots", &way.slots.to_string()]);
    if let Some(layers) = way.gpu_layers {
        command.args(["--gpu-layers", &layers.to_string()]);
    }
    if is_good {
        command.arg("--measure");
    }
    if let Some(file) = config_file {
        command.arg("--config").arg(file);
    }
    let mut child = command
        .env("GGML_NO_BACKTRACE", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("cannot check `{name}` before loading it: {e}"))?;
    let answer = read_in_thread(child.stdout.take());
    let reader = read_in_thread(child.stderr.take());
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait().map_err(|e| format!("cannot check `{name}` before loading it: {e}"))? {
            Some(status) => break status,
            None if !is_wanted() || Instant::now() >= deadline => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!(
                    "`{name}` was not loaded within {} s when it was tried, or not wanted any more. Try again, or choose another",
                    PATIENCE.as_secs()
                ));
            }
            None => std::thread::park_timeout(Duration::from_millis(20)),
        }
    };
    let words = reader.join().unwrap_or_default();
    if status.success() {
        return Ok(answer.join().unwrap_or_default());
    }
    let words = String::from_utf8_lossy(&words);
    // llama.cpp's own words say more than ours after them.
    let said = |line: &&str| !line.trim().is_empty() && !line.starts_with("tui:");
    let telling = words.lines().filter(said).rfind(|line| line.contains("rror") || line.contains("ASSERT"));
    let last = telling.or_else(|| words.lines().rfind(said)).unwrap_or("it left no word");
    let last = crate::text::shown_line(last, 200);
    Err(match status.signal() {
        Some(signal) => format!(
            "`{name}` ended the process that tried it (signal {signal}): \"{last}\".\nThe file is damaged, or needs a newer engine. Fetch it again or choose another"
        ),
        None => format!(
            "`{name}` can't be loaded: {last}.\nThe file is damaged, or needs a newer engine. Fetch it again or choose another"
        ),
    })
}

fn read_in_thread(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut words = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.by_ref().take(64 * 1024).read_to_end(&mut words);
            // What is too much is read all the same: a full pipe would hold the process.
            let _ = std::io::copy(&mut pipe, &mut std::io::sink());
        }
        words
    })
}

fn kept_file(path: &Path, paths: &Paths) -> PathBuf {
    let hash = Sha256::digest(path.as_os_str().as_encoded_bytes());
    let name: String = hash.iter().take(12).map(|b| format!("{b:02x}")).collect();
    paths.cache.join("probes").join(name)
}

/// What the probing process does: load, make a small context, evaluate one token, unless the file `is_good`; then
/// measure. Returns what is measured as JSON, `null` where llama.cpp does not say.
///
/// # Errors
/// What llama.cpp said.
pub fn run(
    path: &Path,
    context: u32,
    slots: u32,
    gpu_layers: Option<u32>,
    is_good: bool,
) -> Result<String, String> {
    // Whoever started this process reads what llama.cpp says.
    let _ = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_ansi(false)
        .without_time()
        .with_target(false)
        .with_writer(std::io::stderr)
        .try_init();
    // Best effort: `tui doctor` tells where it does not work.
    let _ = super::sandbox::enter();
    let llama = Llama::start()?;
    let purpose = gguf::inspect(path).map_or(Purpose::Text, |info| Purpose::of(&info));
    let options = LoadOptions { context, slots, threads: 1, purpose };
    if !is_good {
        evaluate(&llama, path, LoadOptions { context: 256, slots: 1, ..options })?;
    }
    let measured = dry_run::measure(&llama, path, options, gpu_layers)
        .map_err(|error| tracing::warn!(%error, "not measured"))
        .ok();
    serde_json::to_string(&measured).map_err(|e| e.to_string())
}

fn evaluate(llama: &Llama, path: &Path, options: LoadOptions) -> Result<(), String> {
    let bytes = std::fs::metadata(path).map_err(|e| e.to_string())?.len();
    // Without accelerators: what they hold is the engine's.
    let model = llama.load(path, Storage::Mapped, &Offload::Layers(0), options, |_| true)?;
    let mut context = llama.context(&model, options)?;
    if bytes > WHOLE_LIMIT {
        // One token would read every weight of the file from the disk.
        return Ok(());
    }
    let mut batch = LlamaBatch::new(1, 1);
    batch.add(llama::any_token(&model), 0, &[0], true).map_err(|e| e.to_string())?;
    context.decode(&mut batch).map_err(|e| e.to_string())?;
    let numbers = match options.purpose {
        Purpose::Vectors { .. } => context.embeddings_seq_ith(0).map_err(|e| e.to_string())?,
        Purpose::Text => context.get_logits_ith(0),
    };
    if numbers.iter().any(|number| number.is_finite()) {
        Ok(())
    } else {
        Err("its weights give no finite numbers".to_owned())
    }
}
