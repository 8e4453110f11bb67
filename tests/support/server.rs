//! A server that lists one model and streams one answer in pieces, each when the test says so.

#![allow(dead_code, missing_docs, unreachable_pub, reason = "each test program uses a part of it")]
#![allow(clippy::expect_used, clippy::panic, reason = "a helper that fails fails its test")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

/// The model it lists.
pub const MODEL: &str = "scripted";

/// The server; it ends with the process.
pub struct Server {
    port: u16,
    pieces: Option<mpsc::Sender<String>>,
}

impl Server {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its number").port();
        let (pieces, answer) = mpsc::channel::<String>();
        let answer = Arc::new(Mutex::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let answer = Arc::clone(&answer);
                std::thread::spawn(move || serve(stream, &answer));
            }
        });
        Self { port, pieces: Some(pieces) }
    }

    /// A `[[backend]]` table with this name.
    pub fn config(&self, name: &str) -> String {
        let port = self.port;
        format!("[[backend]]\nname = \"{name}\"\nurl = \"http://127.0.0.1:{port}\"\nmodel = \"{MODEL}\"\n")
    }

    /// Sends the next piece of the answer.
    pub fn say(&self, text: &str) {
        self.pieces.as_ref().expect("not finished").send(text.to_owned()).expect("server is there");
    }

    /// Ends the answer.
    pub fn finish(&mut self) {
        self.pieces = None;
    }
}

fn serve(stream: TcpStream, answer: &Mutex<mpsc::Receiver<String>>) {
    let mut writer = stream.try_clone().expect("a second handle");
    let mut reader = BufReader::new(stream);
    let mut request = String::new();
    if reader.read_line(&mut request).is_err() {
        return;
    }
    let mut length = 0;
    loop {
        let mut line = String::new();
        match reader.read_line(&mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) if line.trim().is_empty() => break,
            Ok(_) => {}
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; length];
    if reader.read_exact(&mut body).is_err() {
        return;
    }
    let path = request.split_whitespace().nth(1).unwrap_or_default().to_owned();
    if path.ends_with("/chat/completions") {
        let _ = stream_answer(&mut writer, answer);
    } else if path.ends_with("/models") {
        let list = format!(r#"{{"object":"list","data":[{{"id":"{MODEL}","object":"model"}}]}}"#);
        let _ = respond(&mut writer, "200 OK", &list);
    } else {
        let _ = respond(&mut writer, "404 Not Found", r#"{"error":{"message":"not here","code":404}}"#);
    }
}

fn respond(writer: &mut TcpStream, status: &str, body: &str) -> std::io::Result<()> {
    let length = body.len();
    write!(
        writer,
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

fn stream_answer(writer: &mut TcpStream, answer: &Mutex<mpsc::Receiver<String>>) -> std::io::Result<()> {
    write!(writer, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")?;
    let answer = answer.lock().unwrap_or_else(PoisonError::into_inner);
    let mut event = |delta: serde_json::Value, finish: serde_json::Value| {
        let chunk = serde_json::json!({
            "id": "1", "object": "chat.completion.chunk", "created": 1, "model": MODEL,
            "choices": [{ "index": 0, "delta": delta, "finish_reason": finish }],
        });
        write!(writer, "data: {chunk}\n\n").and_then(|()| writer.flush())
    };
    for text in answer.iter() {
        event(serde_json::json!({ "content": text }), serde_json::Value::Null)?;
    }
    event(serde_json::json!({}), "stop".into())?;
    write!(writer, "data: [DONE]\n\n")
}
