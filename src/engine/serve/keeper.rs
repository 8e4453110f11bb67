//! The process in front: holds the port, keeps a worker running, and says what happens. A worker that dies
//! is started again; clients that connect meanwhile wait in the port's queue.

use super::super::supervisor::{self, Signals};
use super::running::Running;
use super::settings::Settings;
use crate::error::{AppError, Exit};
use crate::paths::Paths;
use std::fs::File;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// A worker that ran this long began well: the next one starts at once.
const RAN_WELL: Duration = Duration::from_secs(60);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Workers in a row that end before they could serve, after which it gives up.
const FALSE_STARTS: u32 = 5;
/// Ending this soon, without a signal, is a false start.
const SOON: Duration = Duration::from_secs(3);
/// The last thing it says.
const ENDED: &str = "serve: ended";

/// Proof that no other server of this user runs.
#[derive(Debug)]
pub struct Only {
    lock: File,
}

impl Only {
    /// None when one runs.
    ///
    /// # Errors
    /// When the runtime folder can't be used.
    pub fn here(paths: &Paths) -> Result<Option<Self>, AppError> {
        let only = supervisor::take_lock(&paths.runtime, Duration::ZERO)?.map(|lock| Self { lock });
        if only.is_some() {
            Running::forget(paths);
        }
        Ok(only)
    }
}

/// Keeps a worker running on this port until told to end. `say` tells the person.
///
/// # Errors
/// When a worker can't be started, or ends again and again before it could serve.
pub fn run(
    only: &Only,
    paths: &Paths,
    config_file: Option<&Path>,
    listener: &TcpListener,
    mut settings: Settings,
    say: impl Fn(&str),
) -> Result<Exit, AppError> {
    let failed = |error: &dyn std::fmt::Display| AppError::new(Exit::Error, format!("serve: {error}"));
    let signals = Signals::forward()?;
    let (mut pause, mut false_starts) = (FIRST_PAUSE, 0);
    loop {
        let text = serde_json::to_string(&settings).map_err(|error| failed(&error))?;
        let mut command =
            supervisor::worker_command(&paths.runtime, &["serve", "worker", &text], config_file)?;
        let port = listener.try_clone().map_err(|error| failed(&error))?;
        let lines = rustix::io::dup(rustix::stdio::stderr()).map_err(|error| failed(&error))?;
        // Its stderr is kept for its last words; what it tells the person goes through its stdout.
        command.stdin(Stdio::from(OwnedFd::from(port))).stdout(Stdio::from(lines));
        let began = Instant::now();
        let Some(death) = supervisor::watch(&mut command, &paths.runtime, &only.lock, &signals)? else {
            say(ENDED);
            return Ok(Exit::Ok);
        };
        supervisor::record(&paths.runtime, &death)?;
        if signals.was_told() {
            say(&death.message);
            return Ok(Exit::Error);
        }
        let is_false_start = began.elapsed() < SOON && death.signal.is_none();
        false_starts = if is_false_start { false_starts + 1 } else { 0 };
        if false_starts >= FALSE_STARTS {
            return Err(AppError::new(Exit::Error, death.message)
                .hint("`serve.log` in the cache folder's logs has more"));
        }
        if began.elapsed() >= RAN_WELL {
            pause = FIRST_PAUSE;
        }
        say(&format!("{}\nstarting again in {} s", death.message, pause.as_secs()));
        if signals.told_within(pause) {
            say(ENDED);
            return Ok(Exit::Ok);
        }
        pause = LONGEST_PAUSE.min(pause * 2);
        settings.restore = death.residents;
    }
}
