//! An engine process of the test's own, and a plain HTTP client for its socket.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails fails its test"
)]

#[path = "program.rs"]
mod program;

#[allow(unused_imports, reason = "not every test uses all of it")]
pub(crate) use program::{answers, command, wait_until};

use program::DEADLINE;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The larger fixture model.
pub(crate) fn large() -> String {
    format!("{}/tests/models/fixture-large.gguf", env!("CARGO_MANIFEST_DIR"))
}

/// An engine in folders of its own; ended when dropped.
pub(crate) struct Engine {
    dir: tempfile::TempDir,
    child: Child,
}

impl Engine {
    pub(crate) fn start() -> Self {
        Self::start_with("[engine]\n")
    }

    pub(crate) fn start_with(config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("config")).unwrap();
        // Several engines run at once here: threads that spin for each other would take all the time.
        let config = config.replace("[engine]\n", "[engine]\nthreads = 1\n");
        std::fs::write(dir.path().join("config/config.toml"), config).unwrap();
        let child = spawn(dir.path());
        let engine = Self { dir, child };
        wait_until("the engine answers", || engine.connect().is_some());
        engine
    }

    /// Another engine in the same folders, once the one before has ended.
    pub(crate) fn start_again(&mut self) {
        wait_until("it has ended", || self.has_ended());
        self.child = spawn(self.dir.path());
        wait_until("the engine answers", || self.connect().is_some());
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("run/engine.sock")
    }

    fn connect(&self) -> Option<UnixStream> {
        let stream = UnixStream::connect(self.socket()).ok()?;
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Some(stream)
    }

    fn send(&self, method: &str, route: &str, body: &[u8]) -> (u16, BufReader<UnixStream>, bool) {
        let mut stream = self.connect().expect("the engine listens");
        let head = format!(
            "{method} {route} HTTP/1.1\r\nhost: duet\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        // A refused body is not read to its end.
        let _ = stream.write_all(body);
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let status = line
            .split(' ')
            .nth(1)
            .and_then(|s| s.parse().ok())
            .unwrap_or_else(|| panic!("no status in {line:?}"));
        let mut is_chunked = false;
        loop {
            line.clear();
            reader.read_line(&mut line).unwrap();
            if line.trim().is_empty() {
                return (status, reader, is_chunked);
            }
            is_chunked |= line.to_lowercase().starts_with("transfer-encoding: chunked");
        }
    }

    pub(crate) fn post(&self, route: &str, body: &[u8]) -> (u16, Value) {
        let (status, mut reader, _) = self.send("POST", route, body);
        let mut text = String::new();
        let _ = reader.read_to_string(&mut text);
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    pub(crate) fn get_text(&self, route: &str) -> String {
        let (_, mut reader, _) = self.send("GET", route, b"");
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    }

    pub(crate) fn get(&self, route: &str) -> Value {
        serde_json::from_str(&self.get_text(route)).unwrap()
    }

    /// A whole answer.
    pub(crate) fn chat(&self, body: &Value) -> Value {
        let (status, answer) = self.post("/v1/chat/completions", body.to_string().as_bytes());
        assert_eq!(status, 200, "{body}: {answer}");
        answer
    }

    /// An answer as it comes.
    pub(crate) fn stream(&self, body: &Value) -> Stream {
        let (status, reader, is_chunked) =
            self.send("POST", "/v1/chat/completions", body.to_string().as_bytes());
        assert_eq!(status, 200);
        Stream { lines: Lines { reader, is_chunked, text: String::new() }, is_done: false }
    }

    /// What happens to models.
    pub(crate) fn events(&self) -> Stream {
        let (status, reader, is_chunked) = self.send("GET", "/models/sse", b"");
        assert_eq!(status, 200);
        Stream { lines: Lines { reader, is_chunked, text: String::new() }, is_done: false }
    }

    /// Sends the process that does the work a signal.
    pub(crate) fn kill_worker(&self, signal: &str) {
        let pid = self.get("/engine/status")["pid"].to_string();
        assert!(Command::new("kill").args([&format!("-{signal}"), &pid]).status().unwrap().success());
    }

    pub(crate) fn death(&self) -> Option<Value> {
        let text = std::fs::read_to_string(self.dir.path().join("run/engine.death.json")).ok()?;
        serde_json::from_str(&text).ok()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // In order, so that the worker ends with its supervisor.
        let _ =
            Command::new("kill").args(["-TERM", &self.child.id().to_string()]).stderr(Stdio::null()).status();
        let deadline = Instant::now() + Duration::from_secs(5);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::park_timeout(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(dir: &Path) -> Child {
    command(dir)
        .args(["engine", "run"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

/// Events of a stream, parsed.
pub(crate) struct Stream {
    lines: Lines,
    pub(crate) is_done: bool,
}

struct Lines {
    reader: BufReader<UnixStream>,
    is_chunked: bool,
    text: String,
}

impl Lines {
    fn next(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.text.find('\n') {
                let line: String = self.text.drain(..=end).collect();
                let line = line.trim_end().to_owned();
                return Some(line);
            }
            assert!(self.is_chunked, "a stream comes in chunks");
            let mut size = String::new();
            self.reader.read_line(&mut size).ok()?;
            let size = usize::from_str_radix(size.trim(), 16).ok().filter(|n| *n > 0)?;
            let mut chunk = vec![0; size + 2];
            self.reader.read_exact(&mut chunk).ok()?;
            self.text.push_str(std::str::from_utf8(&chunk[..size]).expect("chunks end on characters"));
        }
    }
}

impl Iterator for Stream {
    type Item = Value;

    fn next(&mut self) -> Option<Value> {
        loop {
            let line = self.lines.next()?;
            match line.strip_prefix("data: ") {
                Some("[DONE]") => {
                    self.is_done = true;
                    return None;
                }
                Some(data) => return Some(serde_json::from_str(data).unwrap()),
                None => {}
            }
        }
    }
}
