//! What all tests of the program itself share: how it is started, waiting, the answers that are known.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails its test")]
#![allow(dead_code, reason = "not every test uses all of it")]

use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long anything may take on a loaded machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Waits for something to become true.
pub(crate) fn wait_until(what: &str, mut is_true: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is_true() {
        assert!(Instant::now() < deadline, "waited {DEADLINE:?} in vain until {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Prompts the fixture models know, with their answers.
pub(crate) fn answers() -> Value {
    serde_json::from_str(include_str!("../models/answers.json")).unwrap()
}

/// The program with an environment that holds nothing of this machine's.
pub(crate) fn command(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tui"));
    command.env_clear().env("HOME", dir);
    for (name, folder) in [
        ("DUET_CONFIG_DIR", "config"),
        ("DUET_DATA_DIR", "data"),
        ("DUET_CACHE_DIR", "cache"),
        ("DUET_RUNTIME_DIR", "run"),
    ] {
        command.env(name, dir.join(folder));
    }
    command
}
