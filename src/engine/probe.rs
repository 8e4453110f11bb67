//! A first load in a process of its own, thrown away after it: what would end the engine ends that one.
//!
//! Results are kept by the file's identity and the program's version, so that a model is probed once.

use super::gguf::ModelKind;
use super::llama::{self, Llama, LoadOptions, Storage};
use crate::paths::{Paths, create_private};
use llama_cpp_2::llama_batch::LlamaBatch;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long trying a model may take.
const PATIENCE: Duration = Duration::from_secs(180);
/// Files larger than this are checked without reading all their weights.
const WHOLE_LIMIT: u64 = 4 << 30;

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

/// Makes sure (as long as `is_wanted`) that this file was loaded once in a process of its own without ending it.
///
/// # Errors
/// One or two lines: the file, what happened, the next step.
pub fn ensure(
    path: &Path,
    paths: &Paths,
    config_file: Option<&Path>,
    is_wanted: impl Fn() -> bool,
) -> Result<(), String> {
    let name = path.display();
    let identity = Identity::of(path).map_err(|e| format!("`{name}`: {e}"))?;
    let kept = kept_file(path, paths);
    let known = std::fs::read(&kept).ok().and_then(|text| serde_json::from_slice::<Identity>(&text).ok());
    if known.as_ref() == Some(&identity) {
        return Ok(());
    }
    let executable = std::env::current_exe().map_err(|e| format!("cannot find this program: {e}"))?;
    let mut command = Command::new(executable);
    command.args(["engine", "probe"]).arg(path);
    if let Some(file) = config_file {
        command.arg("--config").arg(file);
    }
    let mut child = command
        .env("GGML_NO_BACKTRACE", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("cannot check `{name}` before loading it: {e}"))?;
    let stderr = child.stderr.take();
    let reader = std::thread::spawn(move || {
        let mut words = Vec::new();
        if let Some(mut stderr) = stderr {
            let _ = stderr.by_ref().take(64 * 1024).read_to_end(&mut words);
            // What is too much is read all the same: a full pipe would hold the process.
            let _ = std::io::copy(&mut stderr, &mut std::io::sink());
        }
        words
    });
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
        if let Some(folder) = kept.parent()
            && create_private(folder).is_ok()
            && let Ok(text) = serde_json::to_vec(&identity)
        {
            let _ = std::fs::write(&kept, text);
        }
        return Ok(());
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

fn kept_file(path: &Path, paths: &Paths) -> PathBuf {
    let hash = Sha256::digest(path.as_os_str().as_encoded_bytes());
    let name: String = hash.iter().take(12).map(|b| format!("{b:02x}")).collect();
    paths.cache.join("probes").join(name)
}

/// What the probing process does: load, make a small context, evaluate one token.
///
/// # Errors
/// What llama.cpp said.
pub fn run(path: &Path) -> Result<(), String> {
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
    let bytes = std::fs::metadata(path).map_err(|e| e.to_string())?.len();
    let model = llama.load(path, Storage::Mapped, |_| true)?;
    let options = LoadOptions { context: 256, slots: 1, threads: 1 };
    let is_embedder = super::gguf::inspect(path).is_ok_and(|info| info.kind == ModelKind::Embedding);
    let mut context = if is_embedder {
        llama.embedding_context(&model, options)?
    } else {
        llama.context(&model, options)?
    };
    if bytes > WHOLE_LIMIT {
        // One token would read every weight of the file from the disk.
        return Ok(());
    }
    let mut batch = LlamaBatch::new(1, 1);
    batch.add(llama::any_token(&model), 0, &[0], true).map_err(|e| e.to_string())?;
    context.decode(&mut batch).map_err(|e| e.to_string())?;
    let numbers = if is_embedder {
        context.embeddings_seq_ith(0).map_err(|e| e.to_string())?
    } else {
        context.get_logits_ith(0)
    };
    if numbers.iter().any(|number| number.is_finite()) {
        Ok(())
    } else {
        Err("its weights give no finite numbers".to_owned())
    }
}
