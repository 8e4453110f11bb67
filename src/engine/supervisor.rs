//! `tui engine run`: keeps the worker's last words.
//!
//! ggml ends its process on some failures, with nobody left to explain. So the engine is two processes:
//! this one, which does nothing but wait, and the worker, which does everything else. When the worker
//! dies, a record of how, in the middle of what and with which last words is left in the runtime folder
//! for the clients. It does not restart the worker: a client that still wants it does. The keeper of
//! `tui serve` watches its worker with the same means.

use super::activity;
use crate::error::{AppError, Exit};
use crate::paths::{Paths, create_private};
use crate::text::sanitize::log_safe;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long a new engine waits for the one before it to be gone.
const LOCK_PATIENCE: Duration = Duration::from_secs(40);
/// Lines of the worker's stderr that are kept.
const LAST_LINES: usize = 40;
/// Bytes of one line that are kept.
const LINE_LIMIT: u64 = 4096;

/// What is left behind when the worker dies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Death {
    /// The worker.
    pub pid: u32,
    /// The engine's version.
    pub version: String,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Its exit code, when it was not a signal.
    pub code: Option<i32>,
    /// What it was doing.
    pub activity: String,
    /// The model concerned.
    pub model: Option<String>,
    /// Models that were resident.
    pub residents: Vec<String>,
    /// The end of its stderr.
    pub last_words: Vec<String>,
    /// One or two lines for people: what happened and what to do.
    pub message: String,
    /// When, milliseconds since the epoch.
    pub at_ms: u64,
}

/// Runs the worker until it ends.
///
/// # Errors
/// When the runtime folder can't be used, another engine runs already, or the worker can't be started.
pub fn run(paths: &Paths, config_file: Option<&Path>) -> Result<Exit, AppError> {
    // An engine that was just asked to end may hold it a moment longer.
    let Some(lock) = take_lock(&paths.runtime, LOCK_PATIENCE)? else {
        return Err(AppError::new(Exit::Error, "engine: another engine runs already")
            .hint("`tui engine status` shows it, `tui engine stop` ends it"));
    };
    let socket = paths.engine_socket();
    // Nobody else can be listening: we hold the lock.
    let _ = std::fs::remove_file(&socket);
    let _ = std::fs::remove_file(paths.runtime.join(DEATH_FILE));
    let mut command = worker_command(&paths.runtime, &["engine", "worker"], config_file)?;
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let signals = Signals::forward()?;
    let Some(death) = watch(&mut command, &paths.runtime, &lock, &signals)? else { return Ok(Exit::Ok) };
    let _ = std::fs::remove_file(&socket);
    record(&paths.runtime, &death)?;
    Ok(Exit::Error)
}

fn here(runtime: &Path, what: &str, error: &dyn std::fmt::Display) -> AppError {
    AppError::new(Exit::Error, format!("engine: {what} `{}`: {error}", runtime.display()))
        .hint("set DUET_RUNTIME_DIR to a folder of your own")
}

/// Holds the runtime folder's lock; none when another process does and goes on doing so.
///
/// # Errors
/// When the folder can't be used.
pub(super) fn take_lock(runtime: &Path, patience: Duration) -> Result<Option<File>, AppError> {
    create_private(runtime).map_err(|e| here(runtime, "cannot use the runtime folder", &e))?;
    let lock = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(false)
        .mode(0o600)
        .open(runtime.join("engine.lock"))
        .map_err(|e| here(runtime, "cannot open the lock in", &e))?;
    let is_ours = wait_until(patience, || flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok());
    Ok(is_ours.then_some(lock))
}

/// This program as a worker, in a process group of its own: what is typed in a terminal reaches its
/// supervisor alone.
pub(super) fn worker_command(
    runtime: &Path,
    arguments: &[&str],
    config_file: Option<&Path>,
) -> Result<Command, AppError> {
    let executable =
        std::env::current_exe().map_err(|e| here(runtime, "cannot find this program, needed by", &e))?;
    let mut command = Command::new(executable);
    command.args(arguments);
    if let Some(file) = config_file {
        command.arg("--config").arg(file);
    }
    // Read by a static initialiser of ggml: an abort then takes 40 ms, not a debugger's seconds.
    command.env("GGML_NO_BACKTRACE", "1").stderr(Stdio::piped()).process_group(0);
    if cfg!(all(target_os = "linux", target_env = "gnu")) {
        let before = std::env::var(TUNABLES).unwrap_or_default();
        command.env(TUNABLES, with_huge_pages(&before));
    }
    Ok(command)
}

/// Where the C library looks for its settings at the start of a process.
const TUNABLES: &str = "GLIBC_TUNABLES";

/// The C library's settings, and that it asks Linux for huge pages where it takes memory in large pieces. Weights and
/// caches are read from end to end for each token: with pages of 4 KiB much of that time goes into finding them. Where
/// Linux gives huge pages to everybody, or to nobody, this changes nothing. What a person has set stays.
fn with_huge_pages(before: &str) -> String {
    const NAME: &str = "glibc.malloc.hugetlb";
    let is_set = before.split(':').any(|setting| setting.split('=').next() == Some(NAME));
    match before {
        "" => format!("{NAME}=1"),
        before if is_set => before.to_owned(),
        before => format!("{before}:{NAME}=1"),
    }
}

/// Starts a worker and waits for its end; none when it ended in good order.
pub(super) fn watch(
    command: &mut Command,
    runtime: &Path,
    mut lock: &File,
    signals: &Signals,
) -> Result<Option<Death>, AppError> {
    let mut worker = command.spawn().map_err(|e| here(runtime, "cannot start the worker in", &e))?;
    // For a client that has to end an engine that does not answer.
    let _ = lock
        .set_len(0)
        .and_then(|()| lock.rewind())
        .and_then(|()| lock.write_all(format!("{} {}\n", std::process::id(), worker.id()).as_bytes()));
    signals.lead_to(&worker);
    let last_words = read_stderr(&mut worker);
    let status = worker.wait();
    signals.lead_nowhere();
    let status = status.map_err(|e| here(runtime, "lost the worker in", &e))?;
    if status.success() {
        return Ok(None);
    }
    let record = activity::read(runtime);
    let at_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
    let death = Death {
        pid: worker.id(),
        version: crate::VERSION.to_owned(),
        signal: status.signal(),
        code: status.code(),
        message: explain(status, &record.activity, &last_words),
        activity: record.activity,
        model: record.model,
        residents: record.residents,
        last_words,
        at_ms,
    };
    tracing::error!(message = %death.message, last_words = ?death.last_words, "worker ended");
    Ok(Some(death))
}

/// Leaves the record of a death in the runtime folder.
pub(super) fn record(runtime: &Path, death: &Death) -> Result<(), AppError> {
    leave(runtime, death).map_err(|e| here(runtime, "cannot write the record of the worker's end to", &e))
}

/// Whether something becomes true in time.
fn wait_until(patience: Duration, mut is_true: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        if is_true() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// The record of the last death, newest only.
pub const DEATH_FILE: &str = "engine.death.json";
/// One line for each death, so that a model that kills the engine again and again is known.
const DEATHS_LOG: &str = "engine.deaths";
const DEATHS_KEPT: usize = 100;

fn leave(runtime: &Path, death: &Death) -> std::io::Result<()> {
    let text = serde_json::to_vec_pretty(death)?;
    let temporary = runtime.join("engine.death.tmp");
    OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?
        .write_all(&text)?;
    std::fs::rename(temporary, runtime.join(DEATH_FILE))?;
    if let Some(model) = &death.model {
        let path = runtime.join(DEATHS_LOG);
        let known = std::fs::read_to_string(&path).unwrap_or_default();
        let last: Vec<&str> = known.lines().rev().take(DEATHS_KEPT).collect();
        let mut log = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path)?;
        for line in last.into_iter().rev() {
            writeln!(log, "{line}")?;
        }
        writeln!(log, "{} {}", death.at_ms, log_safe(model))?;
    }
    Ok(())
}

/// How often this model was what the engine died over in the last ten minutes.
#[must_use]
pub fn recent_deaths(runtime: &Path, model: &str) -> usize {
    const WINDOW_MS: u64 = 600_000;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
    let model = log_safe(model);
    std::fs::read_to_string(runtime.join(DEATHS_LOG))
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(at, of)| *of == model && at.parse::<u64>().is_ok_and(|at| at + WINDOW_MS > now))
        .count()
}

/// Forgets a model's deaths: the person asked for it explicitly.
pub fn pardon(runtime: &Path, model: &str) {
    let model = log_safe(model);
    let path = runtime.join(DEATHS_LOG);
    let Ok(text) = std::fs::read_to_string(&path) else { return };
    let kept: String = text
        .lines()
        .filter(|line| line.split_once(' ').is_none_or(|(_, of)| of != model))
        .map(|line| format!("{line}\n"))
        .collect();
    let _ = std::fs::write(path, kept);
}

/// One or two lines: what ended, over what, the last words that say why, and the next step.
fn explain(status: ExitStatus, activity: &str, last_words: &[String]) -> String {
    let doing = match activity {
        "" | "idle" => "while idle".to_owned(),
        other => format!("while {other}"),
    };
    // Nothing was lost while it was idle, so there is nothing to retry.
    let next = |step: &'static str| if doing == "while idle" { "" } else { step };
    let telling = last_words
        .iter()
        .rev()
        .find(|line| {
            ["GGML_ASSERT", "GGML_ABORT", "error", "failed", "out of memory", "what()"]
                .iter()
                .any(|w| line.contains(w))
        })
        .or(last_words.last());
    let quoted =
        telling.map_or_else(String::new, |line| format!(": \"{}\"", crate::text::shown_line(line, 160)));
    match status.signal() {
        Some(4) => format!(
            "engine ended {doing} (SIGILL): it was built for instructions this CPU does not have.\n\
             Build it again here with `make clean run`, or without extra flags: `cargo build --release`"
        ),
        Some(7) => format!(
            "engine ended {doing} (SIGBUS): the model file changed on disk while it was loaded.\n\
             Restore the file, then retry"
        ),
        Some(9) => format!(
            "engine ended {doing}: it was killed (SIGKILL), by somebody or for want of memory{}",
            next(". Retry, or choose a smaller model")
        ),
        Some(signal) => format!(
            "engine ended {doing} (signal {signal}){quoted}{}",
            next(". Retry; if it happens again, choose another model")
        ),
        None => {
            let code = status.code().unwrap_or(-1);
            format!("engine ended {doing} (exit code {code}){quoted}{}", next(". Retry"))
        }
    }
}

/// TERM, INT and HUP go to the worker, which ends in good order.
pub(super) struct Signals {
    /// The worker; 0 while there is none.
    worker: Arc<AtomicI32>,
    told: Arc<AtomicBool>,
}

impl Signals {
    /// From now on.
    pub(super) fn forward() -> Result<Self, AppError> {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
        let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP])
            .map_err(|e| AppError::new(Exit::Error, format!("engine: cannot handle signals: {e}")))?;
        let (worker, told) = (Arc::new(AtomicI32::new(0)), Arc::new(AtomicBool::new(false)));
        let (to, has_told, waiter) = (Arc::clone(&worker), Arc::clone(&told), std::thread::current());
        std::thread::spawn(move || {
            for _ in signals.forever() {
                has_told.store(true, Ordering::SeqCst);
                end(to.load(Ordering::SeqCst));
                waiter.unpark();
            }
        });
        Ok(Self { worker, told })
    }

    fn lead_to(&self, worker: &Child) {
        let pid = i32::try_from(worker.id()).unwrap_or(0);
        self.worker.store(pid, Ordering::SeqCst);
        // The signal may have come while it was being started.
        if self.was_told() {
            end(pid);
        }
    }

    fn lead_nowhere(&self) {
        self.worker.store(0, Ordering::SeqCst);
    }

    /// Whether one has come.
    pub(super) fn was_told(&self) -> bool {
        self.told.load(Ordering::SeqCst)
    }

    /// Waits; `true` when it was told to end meanwhile. For the thread that made it.
    pub(super) fn told_within(&self, patience: Duration) -> bool {
        wait_until(patience, || self.was_told())
    }
}

fn end(worker: i32) {
    if let Some(pid) = rustix::process::Pid::from_raw(worker) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
}

/// Reads the worker's stderr to its end and keeps the last lines, made safe to show. Never falls behind:
/// what is not kept is dropped.
fn read_stderr(worker: &mut Child) -> Vec<String> {
    let mut lines: VecDeque<String> = VecDeque::new();
    let Some(stderr) = worker.stderr.take() else { return Vec::new() };
    let mut reader = BufReader::with_capacity(64 * 1024, stderr);
    loop {
        let mut line = Vec::new();
        match reader.by_ref().take(LINE_LIMIT).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => break,
            Ok(_) => {
                let text = log_safe(String::from_utf8_lossy(&line).trim_end());
                if text.is_empty() {
                    continue;
                }
                if lines.len() == LAST_LINES {
                    lines.pop_front();
                }
                lines.push_back(text);
            }
        }
    }
    lines.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn huge_pages_are_asked_for_beside_what_a_person_has_set() {
        assert_eq!(with_huge_pages(""), "glibc.malloc.hugetlb=1");
        assert_eq!(with_huge_pages("glibc.malloc.check=1"), "glibc.malloc.check=1:glibc.malloc.hugetlb=1");
        for set in ["glibc.malloc.hugetlb=0", "glibc.malloc.check=1:glibc.malloc.hugetlb=2"] {
            assert_eq!(with_huge_pages(set), set);
        }
    }

    #[test]
    fn explains_in_two_lines_with_a_next_step() {
        let words = ["loading".to_owned(), "GGML_ASSERT(n > 0) failed".to_owned(), "bye".to_owned()];
        let abort = explain(ExitStatus::from_raw(6), "loading x", &words);
        assert_eq!(
            abort,
            "engine ended while loading x (signal 6): \"GGML_ASSERT(n > 0) failed\". Retry; if it happens again, choose another model"
        );
        assert!(explain(ExitStatus::from_raw(4), "idle", &[]).contains("make clean run"));
        assert!(explain(ExitStatus::from_raw(7), "answering with x", &[]).contains("model file changed"));
        assert!(explain(ExitStatus::from_raw(256), "", &[]).contains("exit code 1"));
        for status in [6, 9, 256] {
            let idle = explain(ExitStatus::from_raw(status), "idle", &[]);
            assert!(idle.starts_with("engine ended while idle") && !idle.contains("Retry"), "{idle}");
        }
        for status in [4, 6, 7, 9, 256] {
            let text = explain(ExitStatus::from_raw(status), "loading x", &words);
            assert!(text.lines().count() <= 2, "{text}");
        }
    }

    #[test]
    fn a_model_that_kills_again_and_again_is_known_until_pardoned() {
        let dir = tempfile::tempdir().unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
        let mut death = Death {
            pid: 1,
            version: String::new(),
            signal: Some(6),
            code: None,
            activity: "loading bad".to_owned(),
            model: Some("bad".to_owned()),
            residents: Vec::new(),
            last_words: Vec::new(),
            message: String::new(),
            at_ms: now,
        };
        leave(dir.path(), &death).unwrap();
        death.at_ms = now - 700_000;
        leave(dir.path(), &death).unwrap();
        death.model = Some("other".to_owned());
        death.at_ms = now;
        leave(dir.path(), &death).unwrap();
        assert_eq!(recent_deaths(dir.path(), "bad"), 1, "the old one no longer counts");
        pardon(dir.path(), "bad");
        assert_eq!((recent_deaths(dir.path(), "bad"), recent_deaths(dir.path(), "other")), (0, 1));
    }
}
