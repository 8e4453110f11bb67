//! A `tui serve` of the test's own, and clients that say exactly what a test wants them to say.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails fails its test"
)]
#![allow(dead_code, reason = "not every test uses all of it")]

#[path = "program.rs"]
mod program;

#[allow(unused_imports, reason = "not every test uses all of it")]
pub(crate) use program::{DEADLINE, answers, command, wait_until};

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The token every server here knows.
pub(crate) const TOKEN: &str = "a-token-for-tests-0123456789abcdef0123456789";

/// A server in folders of its own; ended when dropped.
pub(crate) struct Server {
    dir: tempfile::TempDir,
    child: Child,
    told: Arc<Mutex<String>>,
    pub(crate) address: SocketAddr,
}

/// Runs `tui serve` to its end; exit code, stdout, stderr.
pub(crate) fn serve(dir: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = command(dir).arg("serve").args(arguments).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::with(&[], "")
    }

    /// On a free port of loopback, with these flags and this configuration.
    pub(crate) fn with(arguments: &[&str], config: &str) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), arguments, config, Some(TOKEN))
    }

    pub(crate) fn start_in(
        dir: tempfile::TempDir,
        arguments: &[&str],
        config: &str,
        token: Option<&str>,
    ) -> Self {
        std::fs::create_dir_all(dir.path().join("config")).unwrap();
        let threads = if config.contains("[engine]") { "" } else { "\n[engine]\nthreads = 1\n" };
        std::fs::write(dir.path().join("config/config.toml"), format!("{config}{threads}")).unwrap();
        let mut command = command(dir.path());
        if let Some(token) = token {
            command.env("DUET_SERVE_TOKEN", token);
        }
        if !arguments.contains(&"--listen") {
            command.args(["serve", "--listen", "127.0.0.1:0"]);
        } else {
            command.arg("serve");
        }
        let mut child = command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let told = Arc::new(Mutex::new(String::new()));
        let (stderr, into) = (child.stderr.take().unwrap(), Arc::clone(&told));
        std::thread::spawn(move || {
            let mut reader = BufReader::new(stderr);
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|n| n > 0) {
                into.lock().unwrap().push_str(&line);
                line.clear();
            }
        });
        let mut address = None;
        wait_until("the server says where it is", || {
            let text = told.lock().unwrap().clone();
            address = text.split("serving on http").nth(1).and_then(|rest| {
                rest.trim_start_matches('s').trim_start_matches("://").split(' ').next()?.parse().ok()
            });
            assert!(address.is_some() || child.try_wait().unwrap().is_none(), "it ended: {text}");
            address.is_some()
        });
        let mut address: SocketAddr = address.unwrap();
        if address.ip().is_unspecified() {
            address.set_ip([127, 0, 0, 1].into());
        }
        let server = Self { dir, child, told, address };
        if !server.told().contains("https://") {
            wait_until("it answers", || {
                server.raw(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").status
                    == 200
            });
        }
        server
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What it told the person so far.
    pub(crate) fn told(&self) -> String {
        self.told.lock().unwrap().clone()
    }

    /// The server's log so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir().join("cache/logs/serve.log")).unwrap_or_default()
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    /// Sends these bytes and reads what comes back.
    pub(crate) fn raw(&self, bytes: &[u8]) -> Reply {
        let mut stream = self.connect();
        // A refused request is not read to its end.
        let _ = stream.write_all(bytes);
        Reply::read(&mut stream)
    }

    /// A request with the token.
    pub(crate) fn ask(&self, method: &str, route: &str, body: &[u8]) -> Reply {
        self.raw(&request(method, route, &[("authorization", &format!("Bearer {TOKEN}"))], body))
    }

    pub(crate) fn get(&self, route: &str) -> Value {
        let reply = self.ask("GET", route, b"");
        assert_eq!(reply.status, 200, "{route}: {}", reply.body);
        reply.json()
    }

    /// An answer to this body.
    pub(crate) fn chat(&self, body: &Value) -> Reply {
        self.ask("POST", "/v1/chat/completions", body.to_string().as_bytes())
    }

    /// The whole answer to one question.
    pub(crate) fn answer(&self, question: &str) -> String {
        let reply = self.chat(&asking(question, &json!({})));
        assert_eq!(reply.status, 200, "{}", reply.body);
        reply.json()["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
    }

    /// An answer as it comes: the connection, its head read already.
    pub(crate) fn stream(&self, body: &Value) -> BufReader<TcpStream> {
        let mut stream = self.connect();
        let token = format!("Bearer {TOKEN}");
        let bytes = request(
            "POST",
            "/v1/chat/completions",
            &[("authorization", &token)],
            body.to_string().as_bytes(),
        );
        stream.write_all(&bytes).unwrap();
        let mut reader = BufReader::new(stream);
        let (status, _) = head(&mut reader);
        assert_eq!(status, 200);
        reader
    }

    /// The process that does the work.
    pub(crate) fn worker(&self) -> u32 {
        let keeper = self.child.id().to_string();
        let mut worker = None;
        wait_until("there is a worker", || {
            let output = Command::new("pgrep").args(["-P", &keeper]).output().unwrap();
            worker = String::from_utf8_lossy(&output.stdout).trim().parse().ok();
            worker.is_some()
        });
        worker.unwrap()
    }

    pub(crate) fn signal(&self, name: &str) {
        kill(self.child.id(), name);
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// The exit code, once it has ended.
    pub(crate) fn wait(&mut self) -> i32 {
        wait_until("it has ended", || self.child.try_wait().unwrap().is_some());
        self.child.wait().unwrap().code().unwrap_or(-1)
    }
}

pub(crate) fn kill(pid: u32, signal: &str) {
    assert!(Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status().unwrap().success());
}

impl Drop for Server {
    fn drop(&mut self) {
        for _ in 0..2 {
            let pid = self.child.id().to_string();
            let _ = Command::new("kill").args(["-TERM", &pid]).stderr(Stdio::null()).status();
        }
        let deadline = Instant::now() + Duration::from_secs(8);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::park_timeout(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A request for the built-in model's answer, with more fields.
pub(crate) fn asking(question: &str, more: &Value) -> Value {
    let mut body = json!({"model": "builtin", "temperature": 0,
        "messages": [{"role": "user", "content": question}]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// A request whose answer goes on until somebody ends it.
pub(crate) fn endless() -> Value {
    asking("Count from 1 to 50", &json!({"stream": true, "ignore_eos": true, "max_tokens": 100_000}))
}

/// A request as a decent client sends it, on a connection of its own.
pub(crate) fn request(method: &str, route: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut text = format!("{method} {route} HTTP/1.1\r\n");
    let has = |name: &str| headers.iter().any(|(known, _)| *known == name);
    for (name, value) in [("host", "localhost"), ("connection", "close")] {
        if !has(name) {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    if method == "POST" && !has("content-type") {
        text.push_str("content-type: application/json\r\n");
    }
    if !body.is_empty() && !has("content-length") && !has("transfer-encoding") {
        text.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

fn head(reader: &mut impl BufRead) -> (u16, String) {
    let mut text = String::new();
    loop {
        let mut line = Vec::new();
        if reader.read_until(b'\n', &mut line).unwrap_or(0) == 0 || line == b"\r\n" {
            break;
        }
        text.push_str(&String::from_utf8_lossy(&line));
    }
    let status = text.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    (status, text.to_lowercase())
}

/// What came back; status 0 when the connection was closed without a word.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn read(stream: &mut impl Read) -> Self {
        let mut reader = BufReader::new(stream);
        let (status, head) = head(&mut reader);
        let mut body = Vec::new();
        let _ = reader.read_to_end(&mut body);
        Self { status, head, body: String::from_utf8_lossy(&body).into_owned() }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// The error's message.
    pub(crate) fn message(&self) -> String {
        self.json()["error"]["message"].as_str().unwrap_or_default().to_owned()
    }

    /// All bytes, header and body.
    pub(crate) fn len(&self) -> usize {
        self.head.len() + 2 + self.body.len()
    }
}
