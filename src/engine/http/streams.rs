//! Streams that outlive their connection: with the header `X-Conversation-Id` an answer goes on when its client is gone
//! for a moment, what was streamed is kept for a while, and the client takes it up at the byte where it was cut off.
//! Routes and header are llama-server's: `GET /v1/stream?conv_id=&from=`, `DELETE /v1/stream?conv_id=`,
//! `POST /v1/streams/lookup`.
//!
//! Without the header nothing changes: closing the connection cancels. An id belongs to the client that used it, so that
//! nobody reads or stops what others ask, and cannot even learn that it is there.

use super::Failure;
use super::chat::{body, json_body};
use axum::body::{Body, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::extract::{Extension, Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The header that asks for it; its value is the id.
const ID: HeaderName = HeaderName::from_static("x-conversation-id");
const MOST_ID_BYTES: usize = 256;
/// Ids one look-up may name.
const MOST_LOOKED_UP: usize = 256;
/// Bytes kept of one stream; what came first goes first.
const MOST_BYTES: usize = 1 << 20;
/// Finished streams that are kept, of all clients together.
const MOST_FINISHED: usize = 32;
/// How long a finished stream is kept.
const KEPT: Duration = Duration::from_secs(600);
/// How long an answer goes on that nobody reads, where the client brings no time of its own.
const UNREAD: Duration = Duration::from_secs(15);

/// Ends with the reason when an answer has to end.
pub(in crate::engine) type Cut = Pin<Box<dyn Future<Output = Failure> + Send>>;

/// Who asks and what bounds the answer, as a guard puts it into the extensions of a request. On the private socket there
/// is none.
#[derive(Clone)]
pub(in crate::engine) struct Client {
    /// Whose token it was.
    pub(in crate::engine) name: String,
    /// Kept as long as the answer runs.
    pub(in crate::engine) place: Option<Arc<dyn Any + Send + Sync>>,
    /// When the answer has to end.
    pub(in crate::engine) cut: Arc<dyn Fn() -> Cut + Send + Sync>,
    /// How long it goes on that nobody reads.
    pub(in crate::engine) unread: Duration,
}

/// Marks a response whose bytes are counted: nothing may be put between them.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct Counted;

/// Whose stream it is, and which.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    client: Option<String>,
    id: String,
}

impl Key {
    fn new(client: Option<&Client>, id: &str) -> Result<Self, Failure> {
        let is_plain = !id.is_empty() && id.len() <= MOST_ID_BYTES && !id.chars().any(char::is_control);
        if is_plain {
            Ok(Self { client: client.map(|client| client.name.clone()), id: id.to_owned() })
        } else {
            Err(Failure::bad_request(format!(
                "a conversation id has 1 to {MOST_ID_BYTES} printable characters. Send another"
            )))
        }
    }
}

/// What a request asks for in its header.
pub(super) struct Wanted {
    key: Key,
    client: Option<Client>,
    /// Of the request's body: the same request sent again joins the first one.
    sum: [u8; 32],
}

impl Wanted {
    /// None without the header.
    ///
    /// # Errors
    /// When it holds no good id.
    pub(super) fn of(
        headers: &HeaderMap,
        client: Option<Client>,
        body: &[u8],
    ) -> Result<Option<Self>, Failure> {
        let Some(value) = headers.get(&ID) else { return Ok(None) };
        let key = Key::new(client.as_ref(), value.to_str().unwrap_or_default())?;
        Ok(Some(Self { key, client, sum: Sha256::digest(body).into() }))
    }
}

/// All streams that can be taken up. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Streams {
    all: Arc<Mutex<HashMap<Key, Arc<Kept>>>>,
    /// What writes them, and deletes them in the end.
    tasks: Arc<Mutex<JoinSet<()>>>,
}

/// One stream.
#[derive(Debug)]
struct Kept {
    sum: [u8; 32],
    /// Seconds since 1970.
    started: u64,
    ring: Mutex<Ring>,
    /// Counts changes of the ring.
    changed: watch::Sender<u64>,
    readers: watch::Sender<usize>,
    is_stopped: watch::Sender<bool>,
}

/// The last bytes of a stream.
#[derive(Debug, Default)]
struct Ring {
    bytes: VecDeque<u8>,
    /// Bytes that came before those.
    gone: u64,
    /// When it was over, in seconds since 1970.
    completed: Option<u64>,
}

impl Ring {
    fn total(&self) -> u64 {
        self.gone + self.bytes.len() as u64
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        let too_many = self.bytes.len().saturating_sub(MOST_BYTES);
        self.bytes.drain(..too_many);
        self.gone += too_many as u64;
    }

    /// What came from this byte on.
    fn from(&self, at: u64) -> Vec<u8> {
        let skip = usize::try_from(at.saturating_sub(self.gone)).unwrap_or(usize::MAX);
        self.bytes.iter().skip(skip).copied().collect()
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Kept {
    fn new(sum: [u8; 32]) -> Self {
        Self {
            sum,
            started: now(),
            ring: Mutex::default(),
            changed: watch::Sender::new(0),
            readers: watch::Sender::new(0),
            is_stopped: watch::Sender::new(false),
        }
    }

    fn change(&self, change: impl FnOnce(&mut Ring)) {
        change(&mut lock(&self.ring));
        self.changed.send_modify(|n| *n = n.wrapping_add(1));
    }

    fn complete(&self) {
        self.change(|ring| {
            ring.completed.get_or_insert_with(now);
        });
    }

    fn is_complete(&self) -> bool {
        lock(&self.ring).completed.is_some()
    }

    /// Ends when nobody has read it for so long.
    async fn is_left(&self, unread: Duration) {
        let mut readers = self.readers.subscribe();
        loop {
            let _ = readers.wait_for(|n| *n == 0).await;
            if tokio::time::timeout(unread, readers.wait_for(|n| *n > 0)).await.is_err() {
                return;
            }
        }
    }

    async fn stopped(&self) {
        let _ = self.is_stopped.subscribe().wait_for(|is_stopped| *is_stopped).await;
    }
}

/// What becomes of a request with an id.
pub(super) enum Begin {
    /// The same request runs already: this is its stream.
    Joined(Response),
    /// A new answer.
    New(Writer),
}

impl Streams {
    /// Begins a stream. What ran under its id before is stopped, unless it is the same request sent again.
    ///
    /// # Errors
    /// When that one has gone on too far to be read from the beginning.
    pub(super) fn begin(&self, wanted: Wanted) -> Result<Begin, Failure> {
        let mut all = lock(&self.all);
        let before = all.get(&wanted.key).filter(|kept| !kept.is_complete());
        if let Some(kept) = before.filter(|kept| kept.sum == wanted.sum) {
            return Reader::new(kept, 0).map(|reader| Begin::Joined(reader.respond(&wanted.key.id)));
        }
        let kept = Arc::new(Kept::new(wanted.sum));
        let before = all.insert(wanted.key.clone(), Arc::clone(&kept));
        drop(all);
        if let Some(before) = before {
            before.is_stopped.send_replace(true);
        }
        let Wanted { key, client, .. } = wanted;
        Ok(Begin::New(Writer { streams: self.clone(), key, client, kept, is_finished: false }))
    }

    fn get(&self, key: &Key) -> Option<Arc<Kept>> {
        lock(&self.all).get(key).cloned()
    }

    /// Removes a stream, but not another one that has its id by now.
    fn remove(&self, key: &Key, kept: &Arc<Kept>) {
        let mut all = lock(&self.all);
        if all.get(key).is_some_and(|known| Arc::ptr_eq(known, kept)) {
            all.remove(key);
        }
    }

    /// Makes room for one more finished stream.
    fn drop_oldest(&self) {
        let mut all = lock(&self.all);
        let mut finished: Vec<(Option<u64>, Key)> = all
            .iter()
            .map(|(key, kept)| (lock(&kept.ring).completed, key.clone()))
            .filter(|(completed, _)| completed.is_some())
            .collect();
        finished.sort_by_key(|(completed, _)| *completed);
        let too_many = (finished.len() + 1).saturating_sub(MOST_FINISHED);
        for (_, key) in finished.into_iter().take(too_many) {
            all.remove(&key);
        }
    }
}

/// Writes a stream. Dropped without an answer it leaves nothing behind.
pub(super) struct Writer {
    streams: Streams,
    key: Key,
    client: Option<Client>,
    kept: Arc<Kept>,
    is_finished: bool,
}

impl Writer {
    /// Lets the answer run by itself, and gives the response that reads it.
    pub(super) fn run(self, events: impl Stream<Item = Bytes> + Send + 'static) -> Result<Response, Failure> {
        let response = Reader::new(&self.kept, 0)?.respond(&self.key.id);
        let tasks = Arc::clone(&self.streams.tasks);
        let mut tasks = lock(&tasks);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(self.live(events));
        Ok(response)
    }

    /// There is no answer: whoever joined is told why.
    pub(super) fn fail(self, failure: &Failure) {
        self.put(failure);
    }

    fn put(&self, failure: &Failure) {
        let event = format!("data: {}\n\n", failure.body());
        self.kept.change(|ring| ring.push(event.as_bytes()));
    }

    /// Writes the stream, and deletes it once it was kept for long enough.
    async fn live(self, events: impl Stream<Item = Bytes>) {
        let (streams, key, kept) = (self.streams.clone(), self.key.clone(), Arc::downgrade(&self.kept));
        self.write(events).await;
        tokio::time::sleep(KEPT).await;
        if let Some(kept) = kept.upgrade() {
            streams.remove(&key, &kept);
        }
    }

    async fn write(mut self, events: impl Stream<Item = Bytes>) {
        let (unread, mut cut, _place): (_, Cut, _) = match self.client.take() {
            Some(client) => (client.unread, (client.cut)(), client.place),
            None => (UNREAD, Box::pin(std::future::pending()), None),
        };
        let kept = Arc::clone(&self.kept);
        let is_left = kept.is_left(unread);
        let stopped = kept.stopped();
        let mut events = std::pin::pin!(events);
        let (mut is_left, mut stopped) = (std::pin::pin!(is_left), std::pin::pin!(stopped));
        // Dropping the events cancels the answer.
        loop {
            tokio::select! {
                biased;
                () = &mut stopped => return,
                failure = &mut cut => {
                    self.put(&failure);
                    break;
                }
                () = &mut is_left => {
                    tracing::info!("an answer nobody read was ended");
                    self.put(&Failure::new(
                        StatusCode::REQUEST_TIMEOUT,
                        "timeout_error",
                        format!("nobody read this answer for {} s. Ask again", unread.as_secs()),
                    ));
                    break;
                }
                event = events.next() => match event {
                    Some(bytes) => self.kept.change(|ring| ring.push(&bytes)),
                    None => break,
                },
            }
        }
        self.is_finished = true;
        self.streams.drop_oldest();
        self.kept.complete();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.is_finished {
            self.streams.remove(&self.key, &self.kept);
            self.kept.complete();
        }
    }
}

/// Reads a stream from some byte on, to its end.
struct Reader {
    kept: Arc<Kept>,
    changed: watch::Receiver<u64>,
    at: u64,
}

impl Reader {
    fn new(kept: &Arc<Kept>, from: u64) -> Result<Self, Failure> {
        let ring = lock(&kept.ring);
        if from < ring.gone || from > ring.total() {
            return Err(Failure::bad_request(format!(
                "bytes {} to {} of this stream are kept, and it can't be read from byte {from}. Ask again",
                ring.gone,
                ring.total()
            )));
        }
        drop(ring);
        kept.readers.send_modify(|n| *n += 1);
        Ok(Self { kept: Arc::clone(kept), changed: kept.changed.subscribe(), at: from })
    }

    /// The next bytes; none at the end, and when the reader was too slow.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            self.changed.mark_unchanged();
            {
                let ring = lock(&self.kept.ring);
                if self.at < ring.gone {
                    return None;
                }
                if self.at < ring.total() {
                    let bytes = ring.from(self.at);
                    self.at = ring.total();
                    return Some(Bytes::from(bytes));
                }
                if ring.completed.is_some() {
                    return None;
                }
            }
            self.changed.changed().await.ok()?;
        }
    }

    fn respond(self, id: &str) -> Response {
        let stream = futures_util::stream::unfold(self, async |mut reader| {
            let bytes = reader.next().await?;
            Some((Ok::<_, Infallible>(bytes), reader))
        });
        let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")];
        let mut response = (headers, Body::from_stream(stream)).into_response();
        // So that the client knows that it can come back.
        if let Ok(id) = HeaderValue::from_str(id) {
            response.headers_mut().insert(ID, id);
        }
        response.extensions_mut().insert(Counted);
        response
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.kept.readers.send_modify(|n| *n = n.saturating_sub(1));
    }
}

fn named(client: Option<Extension<Client>>, query: &HashMap<String, String>) -> Result<Key, Failure> {
    let client = client.map(|Extension(client)| client);
    Key::new(client.as_ref(), query.get("conv_id").map_or("", String::as_str))
}

/// What a stream has from byte `from` on, and what still comes.
pub(super) async fn resume(
    State(streams): State<Streams>,
    client: Option<Extension<Client>>,
    Query(query): Query<HashMap<String, String>>,
) -> Result<Response, Failure> {
    let key = named(client, &query)?;
    let from = match query.get("from") {
        None => 0,
        Some(text) => text.parse().map_err(|_| {
            Failure::bad_request("`from` must be a whole number of bytes, 0 or more. Correct it")
        })?,
    };
    let kept = streams.get(&key).ok_or_else(|| {
        let message = "there is no such stream, or not any more. Ask again";
        Failure::new(StatusCode::NOT_FOUND, "not_found_error", message)
    })?;
    Ok(Reader::new(&kept, from)?.respond(&key.id))
}

/// Stops an answer and deletes what is kept of it; nothing to stop is no error.
pub(super) async fn stop(
    State(streams): State<Streams>,
    client: Option<Extension<Client>>,
    Query(query): Query<HashMap<String, String>>,
) -> Result<StatusCode, Failure> {
    let key = named(client, &query)?;
    if let Some(kept) = streams.get(&key) {
        streams.remove(&key, &kept);
        kept.is_stopped.send_replace(true);
    }
    Ok(StatusCode::NO_CONTENT)
}

/// How the streams of these ids are; those that are not there are left out.
pub(super) async fn look_up(
    State(streams): State<Streams>,
    client: Option<Extension<Client>>,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Response, Failure> {
    let body = json_body(&body(bytes)?)?;
    let asked = body["conversation_ids"].as_array().filter(|ids| ids.len() <= MOST_LOOKED_UP);
    let asked = asked.ok_or_else(|| {
        Failure::bad_request(format!(
            "`conversation_ids` must be a list of {MOST_LOOKED_UP} ids at most. Correct it"
        ))
    })?;
    let client = client.map(|Extension(client)| client);
    let describe = |id: &Value| {
        let key = Key::new(client.as_ref(), id.as_str()?).ok()?;
        let kept = streams.get(&key)?;
        let ring = lock(&kept.ring);
        Some(json!({
            "conversation_id": key.id,
            "is_done": ring.completed.is_some(),
            "total_bytes": ring.total(),
            "started_at": kept.started,
            "completed_at": ring.completed.unwrap_or(0),
        }))
    };
    Ok(axum::Json(Value::Array(asked.iter().filter_map(describe).collect())).into_response())
}

#[cfg(test)]
mod tests;
