//! A server that answers as it was told to, one script a request, and remembers what it was asked.

#![allow(dead_code, reason = "each test program uses a part of it")]

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// What happens to one request.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    status: u16,
    body: String,
    after: After,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    Close,
    /// Nothing more comes until the client goes.
    Hold,
    /// More of the same until the client goes.
    Repeat,
}

fn chunk(delta: &Value, finish: Option<&str>) -> String {
    let chunk = json!({
        "id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m",
        "choices": [{ "index": 0, "delta": delta, "finish_reason": finish }],
    });
    format!("data: {chunk}\n\n")
}

fn pieces(texts: &[&str]) -> String {
    texts.iter().map(|text| chunk(&json!({ "content": text }), None)).collect()
}

impl Script {
    /// A whole answer in these pieces.
    pub(crate) fn answer(texts: &[&str]) -> Self {
        Self { status: 200, body: pieces(texts) + &end(), after: After::Close }
    }

    /// The same, with prefill and thinking before it.
    pub(crate) fn thinking_answer(thought: &str, texts: &[&str]) -> Self {
        let progress = json!({
            "choices": [], "model": "m",
            "prompt_progress": { "total": 20, "cache": 4, "processed": 20, "time_ms": 10 },
        });
        let body = format!("data: {progress}\n\n")
            + &chunk(&json!({ "reasoning_content": thought }), None)
            + &pieces(texts)
            + &end();
        Self { status: 200, body, after: After::Close }
    }

    /// These pieces, and then the connection ends without a reason.
    pub(crate) fn broken(texts: &[&str]) -> Self {
        Self { status: 200, body: pieces(texts), after: After::Close }
    }

    /// Word of a load, and then the connection ends.
    pub(crate) fn gone_while_loading() -> Self {
        let chunk = json!({ "choices": [], "model": "m", "duet": { "loading": 0.4 } });
        Self { status: 200, body: format!("data: {chunk}\n\n"), after: After::Close }
    }

    /// An answer that never ends.
    pub(crate) fn endless() -> Self {
        Self { status: 200, body: pieces(&["another line\n"]), after: After::Repeat }
    }

    /// A refusal.
    pub(crate) fn status(status: u16, body: &str) -> Self {
        Self { status, body: body.to_owned(), after: After::Close }
    }

    /// The pieces alone, and then silence.
    pub(crate) fn then_hold(mut self) -> Self {
        self.body = self.body.replace(&end(), "");
        self.after = After::Hold;
        self
    }
}

fn end() -> String {
    let usage = json!({
        "choices": [], "model": "m",
        "usage": { "prompt_tokens": 20, "completion_tokens": 8, "total_tokens": 28,
                   "prompt_tokens_details": { "cached_tokens": 4 } },
        "timings": { "cache_n": 4, "prompt_n": 16, "prompt_ms": 32.0, "predicted_n": 8, "predicted_ms": 80.0 },
    });
    format!("{}data: {usage}\n\ndata: [DONE]\n\n", chunk(&json!({}), Some("stop")))
}

/// The server; it ends with its handle.
pub(crate) struct Server {
    address: std::net::SocketAddr,
    requests: Arc<Mutex<Vec<Value>>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts it; each chat request takes the next script.
    pub(crate) fn start(scripts: impl IntoIterator<Item = Script>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let is_over = Arc::new(AtomicBool::new(false));
        let scripts = Arc::new(Mutex::new(scripts.into_iter().collect::<Vec<_>>().into_iter()));
        let (log, over) = (Arc::clone(&requests), Arc::clone(&is_over));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if over.load(Ordering::SeqCst) {
                    break;
                }
                let (log, scripts) = (Arc::clone(&log), Arc::clone(&scripts));
                std::thread::spawn(move || serve(&stream.expect("a connection"), &log, &scripts));
            }
        });
        Self { address, requests, is_over, thread: Some(thread) }
    }

    /// Its address, as in the configuration.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The bodies of the chat requests so far.
    pub(crate) fn requests(&self) -> Vec<Value> {
        self.requests.lock().expect("whole").clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(mut stream: &TcpStream, log: &Mutex<Vec<Value>>, scripts: &Mutex<std::vec::IntoIter<Script>>) {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    if reader.read_line(&mut first).unwrap_or(0) == 0 {
        return;
    }
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 || line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().expect("a length");
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("the whole body");
    if !first.contains("/chat/completions") {
        let (status, body) = if first.contains("/models") {
            (200, json!({ "object": "list", "data": [{ "id": "m", "object": "model" }] }))
        } else {
            (404, json!({ "error": { "message": "not here" } }))
        };
        let body = body.to_string();
        let _ = write!(
            stream,
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        return;
    }
    let asked: Value = serde_json::from_slice(&body).expect("JSON");
    let mut script =
        scripts.lock().expect("whole").next().unwrap_or_else(|| Script::status(500, "no script left"));
    // It has whatever model it is asked for.
    script.body = script.body.replace(r#""model":"m""#, &format!(r#""model":{}"#, asked["model"]));
    log.lock().expect("whole").push(asked);
    let kind = if script.status == 200 { "text/event-stream" } else { "application/json" };
    let head = format!("HTTP/1.1 {} X\r\ncontent-type: {kind}\r\nconnection: close\r\n\r\n", script.status);
    let mut alive = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(script.body.as_bytes()));
    match script.after {
        After::Close => {}
        After::Hold => {
            // Ends when the client closes.
            let _ = reader.read(&mut [0]);
        }
        After::Repeat => {
            while alive.is_ok() {
                alive = stream.write_all(script.body.as_bytes());
            }
        }
    }
}
