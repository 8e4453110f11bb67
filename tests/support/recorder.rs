//! What the fake servers made with axum share: they remember what they were asked, and notice who hangs up.

#![allow(dead_code, reason = "each test uses its own part")]

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use futures_util::Stream;
use serde_json::Value;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// How long a test waits for something that must happen.
const DEADLINE: Duration = Duration::from_secs(20);

/// What happens at a fake server.
#[derive(Debug)]
pub(crate) struct Recorder {
    /// `METHOD /path?query` and the body, in order.
    requests: Mutex<Vec<(String, Value)>>,
    /// Answers whose client hung up before their end.
    cancels: watch::Sender<usize>,
    /// Opened by the test for answers that wait.
    pub(crate) gate: Semaphore,
}

impl Recorder {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            requests: Mutex::new(Vec::new()),
            cancels: watch::Sender::new(0),
            gate: Semaphore::new(0),
        })
    }

    /// Everything that was asked.
    pub(crate) fn requests(&self) -> Vec<(String, Value)> {
        self.requests.lock().expect("not poisoned").clone()
    }

    /// The bodies that were sent to a route.
    pub(crate) fn sent(&self, route: &str) -> Vec<Value> {
        self.requests().into_iter().filter(|(asked, _)| asked == route).map(|(_, body)| body).collect()
    }

    /// Opens the gate for `n` steps.
    pub(crate) fn open(&self, n: usize) {
        self.gate.add_permits(n);
    }

    /// How many clients hung up in the middle of their answer so far.
    pub(crate) fn cancels(&self) -> usize {
        *self.cancels.borrow()
    }

    /// Waits until `n` clients hung up in the middle of their answer.
    pub(crate) async fn cancelled(&self, n: usize) {
        let mut cancels = self.cancels.subscribe();
        let wait = cancels.wait_for(|count| *count >= n);
        tokio::time::timeout(DEADLINE, wait).await.expect("it is cancelled").expect("the server lives");
    }
}

/// One piece of a streamed answer.
#[derive(Clone, Debug)]
pub(crate) enum Piece {
    /// These bytes.
    Say(String),
    /// Wait until the test opens the gate once more.
    Gate,
}

/// A body of these pieces, which counts as cancelled when it is dropped before its end.
pub(crate) fn body(recorder: &Arc<Recorder>, pieces: Vec<Piece>) -> Body {
    let guard = Guard { recorder: Arc::clone(recorder), is_over: false };
    let recorder = Arc::clone(recorder);
    let steps = futures_util::stream::unfold(pieces.into_iter(), move |mut pieces| {
        let recorder = Arc::clone(&recorder);
        async move {
            loop {
                match pieces.next()? {
                    Piece::Say(text) => return Some((Ok::<_, Infallible>(Bytes::from(text)), pieces)),
                    Piece::Gate => recorder.gate.acquire().await.expect("open").forget(),
                }
            }
        }
    });
    Body::from_stream(Watched { steps: Box::pin(steps), guard })
}

struct Guard {
    recorder: Arc<Recorder>,
    is_over: bool,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.is_over {
            self.recorder.cancels.send_modify(|count| *count += 1);
        }
    }
}

struct Watched {
    steps: Pin<Box<dyn Stream<Item = Result<Bytes, Infallible>> + Send>>,
    guard: Guard,
}

impl Stream for Watched {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let item = self.steps.as_mut().poll_next(context);
        self.guard.is_over |= matches!(item, Poll::Ready(None));
        item
    }
}

async fn record(State(recorder): State<Arc<Recorder>>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let bytes = axum::body::to_bytes(body, 64 << 20).await.expect("a body");
    let route = format!("{} {}", parts.method, parts.uri);
    let sent = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    recorder.requests.lock().expect("not poisoned").push((route, sent));
    next.run(Request::from_parts(parts, Body::from(bytes))).await
}

/// Serves these routes on a free port of this machine as long as the set lives; gives the address.
pub(crate) async fn serve(routes: Router, recorder: &Arc<Recorder>) -> (String, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let routes = routes.layer(axum::middleware::from_fn_with_state(Arc::clone(recorder), record));
    let mut serving = JoinSet::new();
    serving.spawn(async move { axum::serve(listener, routes).await.expect("it serves") });
    (url, serving)
}
