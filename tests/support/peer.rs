//! Servers of others as they are, which `make peers` builds.

#![allow(clippy::expect_used, reason = "a helper that fails fails its test")]
#![allow(dead_code, reason = "not every test uses all of it")]
#![allow(clippy::print_stderr, reason = "a test that does nothing says why")]

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A file or folder of `make peers`; none, and a word, when it isn't there.
pub(crate) fn peer(path: &str) -> Option<PathBuf> {
    // target/debug/tui
    let target = Path::new(env!("CARGO_BIN_EXE_tui")).ancestors().nth(2)?;
    let path = target.join("peers").join(path);
    if !path.exists() {
        eprintln!("skipped: there is no {}; `make peers` makes it", path.display());
        return None;
    }
    Some(path)
}

/// The file of the built-in model.
pub(crate) fn builtin() -> String {
    format!("{}/models/builtin.gguf", env!("CARGO_MANIFEST_DIR"))
}

/// A server of others; ended with the test.
pub(crate) struct Peer {
    child: Child,
    log: PathBuf,
    pub(crate) url: String,
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Peer {
    /// Starts it on a free port, with this folder for what it keeps.
    pub(crate) fn start(program: &Path, arguments: &[&str], home: &Path) -> Self {
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
        let log = home.join(format!("{port}.log"));
        let file = File::create(&log).expect("a log");
        let child = Command::new(program)
            .args(arguments)
            .args(["--host", "127.0.0.1", "--port", &port.to_string()])
            .env("HF_HUB_OFFLINE", "1")
            .env("HF_HOME", home)
            .env("LLAMA_CACHE", home)
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a second handle"))
            .stderr(file)
            .spawn()
            .expect("it starts");
        Self { child, log, url: format!("http://127.0.0.1:{port}") }
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("asked").is_some()
    }

    /// What it has written so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }
}
