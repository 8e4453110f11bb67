//! A scripted HTTP/1.1 server over TCP or a Unix socket: every answer is a list of steps, a step may wait
//! at a gate until the test opens it, and the server counts what it is asked and notices who hangs up.

#![allow(dead_code, reason = "each test uses its own part")]

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// How long a test waits for something that must happen.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// One request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: String,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }

    /// `GET /path`.
    pub(crate) fn route(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

/// One step of an answer.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// These bytes, as one HTTP chunk.
    Send(Vec<u8>),
    /// Wait until the test opens the gate once more.
    Gate,
    /// Hang up in the middle of the body.
    Cut,
    /// Say nothing until the other side hangs up.
    Hang,
}

/// One answer.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    steps: Vec<Step>,
    /// Bytes sent in place of all else.
    raw: Option<Vec<u8>>,
}

impl Reply {
    pub(crate) fn new(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        let steps = vec![Step::Send(body.into())];
        Self { status, headers: vec![("content-type", content_type.to_owned())], steps, raw: None }
    }

    pub(crate) fn json(status: u16, body: &serde_json::Value) -> Self {
        Self::new(status, "application/json", body.to_string())
    }

    pub(crate) fn stream(steps: Vec<Step>) -> Self {
        Self { steps, ..Self::new(200, "text/event-stream", "") }
    }

    /// The same with these steps for a body.
    pub(crate) fn steps(self, steps: Vec<Step>) -> Self {
        Self { steps, ..self }
    }

    pub(crate) fn raw(bytes: &[u8]) -> Self {
        Self { raw: Some(bytes.to_vec()), ..Self::new(200, "", "") }
    }

    /// With this header, in place of another value of it.
    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.retain(|(known, _)| *known != name);
        self.headers.push((name, value.to_owned()));
        self
    }
}

/// Server-sent events, one chunk each.
pub(crate) fn events(data: &[serde_json::Value]) -> Vec<Step> {
    data.iter().map(|value| Step::Send(format!("data: {value}\n\n").into_bytes())).collect()
}

type Handler = dyn Fn(&Request) -> Reply + Send + Sync;

struct State {
    handler: Box<Handler>,
    requests: Mutex<Vec<Request>>,
    gate: Semaphore,
    /// Clients that hung up before their answer was over.
    hangups: watch::Sender<usize>,
    /// Answers that are over, one way or another.
    over: watch::Sender<usize>,
}

/// The server; it ends some time after it is dropped.
pub(crate) struct FakeServer {
    url: String,
    state: Arc<State>,
    listening: JoinSet<()>,
}

impl FakeServer {
    /// A server on a free port of this machine.
    pub(crate) async fn tcp(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let state = State::new(handler);
        let mut listening = JoinSet::new();
        let shared = Arc::clone(&state);
        listening.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Self { url, state, listening }
    }

    /// A server on a Unix socket.
    pub(crate) fn unix(socket: &Path, handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = UnixListener::bind(socket).expect("a socket");
        let state = State::new(handler);
        let mut listening = JoinSet::new();
        let shared = Arc::clone(&state);
        listening.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Self { url: "http://duet".to_owned(), state, listening }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Opens the gate for `n` steps.
    pub(crate) fn open(&self, n: usize) {
        self.state.gate.add_permits(n);
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.state.requests.lock().expect("not poisoned").clone()
    }

    /// How often a route was asked for, as `POST /v1/chat/completions`.
    pub(crate) fn count(&self, route: &str) -> usize {
        self.requests().iter().filter(|request| request.route() == route).count()
    }

    /// Waits until `n` clients hung up early.
    pub(crate) async fn hangups(&self, n: usize) {
        reaches(&self.state.hangups, n).await;
    }

    /// Waits until `n` answers are over: given, cut, or left by the client.
    pub(crate) async fn over(&self, n: usize) {
        reaches(&self.state.over, n).await;
    }

    /// Waits until `n` requests for a route have come.
    pub(crate) async fn asked(&self, route: &str, n: usize) {
        let wait = async {
            while self.count(route) < n {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(DEADLINE, wait).await.expect("the client asks");
    }

    /// Ends it and hangs up on everybody; a Unix socket's file stays behind.
    pub(crate) async fn stop(mut self) {
        self.listening.shutdown().await;
    }
}

async fn reaches(counter: &watch::Sender<usize>, n: usize) {
    let mut counter = counter.subscribe();
    let wait = counter.wait_for(|count| *count >= n);
    tokio::time::timeout(DEADLINE, wait).await.expect("it happens in time").expect("the server lives");
}

impl State {
    fn new(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            handler: Box::new(handler),
            requests: Mutex::new(Vec::new()),
            gate: Semaphore::new(0),
            hangups: watch::Sender::new(0),
            over: watch::Sender::new(0),
        })
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, state: Arc<State>) {
    let Some(request) = read_request(&mut stream).await else { return };
    let reply = (state.handler)(&request);
    state.requests.lock().expect("not poisoned").push(request);
    if answer(&mut stream, reply, &state).await.is_none() {
        state.hangups.send_modify(|count| *count += 1);
    }
    drop(stream);
    state.over.send_modify(|count| *count += 1);
}

async fn read_request<S: AsyncRead + Unpin>(stream: &mut S) -> Option<Request> {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let headers = String::from_utf8_lossy(&bytes[..head_end]).into_owned();
    let length = headers.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    while bytes.len() < head_end + length.unwrap_or(0) {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    let mut first = headers.split_whitespace();
    let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
    Some(Request { method, path, headers, body: bytes[head_end..].to_vec() })
}

/// Gives the answer; None when the client hung up before its end.
async fn answer<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    reply: Reply,
    state: &State,
) -> Option<()> {
    if let Some(raw) = reply.raw {
        return stream.write_all(&raw).await.ok();
    }
    let mut head =
        format!("HTTP/1.1 {} X\r\nconnection: close\r\ntransfer-encoding: chunked\r\n", reply.status);
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).await.ok()?;
    for step in reply.steps {
        match step {
            Step::Send(bytes) if bytes.is_empty() => {}
            Step::Send(bytes) => {
                let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
                chunk.extend_from_slice(&bytes);
                chunk.extend_from_slice(b"\r\n");
                stream.write_all(&chunk).await.ok()?;
                stream.flush().await.ok()?;
            }
            Step::Gate => {
                let mut unexpected = [0];
                tokio::select! {
                    permit = state.gate.acquire() => permit.ok()?.forget(),
                    _ = stream.read(&mut unexpected) => return None,
                }
            }
            Step::Cut => return Some(()),
            Step::Hang => {
                let mut unexpected = [0];
                let _ = stream.read(&mut unexpected).await;
                return None;
            }
        }
    }
    stream.write_all(b"0\r\n\r\n").await.ok()?;
    stream.shutdown().await.ok()
}
