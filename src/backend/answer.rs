//! One generation over HTTP: sends the request, reads the stream, gives the events. Dropping it closes the connection.
//!
//! A request is sent once. It is sent a second time only when the first was seen by nobody who could answer it: by a
//! server that still loaded its model, or by one of another kind than it was taken for.

mod able;
mod aside;
mod body;
mod patience;

use super::decode::{Decoder, Sent, StreamEnd};
use super::dialect::{Identity, is_loading};
use super::engine::{absolute_model, wall_ms};
use super::fault::{self, ErrorBody};
use super::http::{BodyKind, HttpError, Reach, why};
use super::ndjson::LineDecoder;
use super::sse::{MAX_EVENT, SseDecoder};
use super::{GenStream, Inner, ollama, openai};
use crate::chat::{GenError, GenErrorKind, GenEvent, GenRequest};
use crate::config::BackendKind;
use able::why_not;
use aside::Aside;
use body::{Body, Framing};
use reqwest::{Method, Response};
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

pub(super) use patience::Patience;

#[cfg(test)]
mod tests;

/// Between two looks at a server that loads its model.
const LOOK: Duration = Duration::from_millis(500);
/// For one of them.
const GLANCE: Duration = Duration::from_secs(2);
/// For what was asked beside the question, once the answer is complete.
const LATE: Duration = Duration::from_secs(1);

/// The events of one generation.
pub(super) fn stream(inner: Arc<Inner>, request: GenRequest) -> GenStream {
    let answer =
        Answer { inner, queue: VecDeque::new(), aside: None, stage: Stage::Start(Box::new(request)) };
    Box::pin(futures_util::stream::unfold(answer, |mut answer| async move {
        let event = answer.next().await?;
        Some((event, answer))
    }))
}

struct Answer {
    inner: Arc<Inner>,
    queue: VecDeque<GenEvent>,
    /// What is asked beside the question.
    aside: Option<Aside>,
    stage: Stage,
}

enum Stage {
    /// Nothing was sent.
    Start(Box<GenRequest>),
    /// The request is on its way.
    Sent(Box<Request>),
    /// The server loads its model, and said so instead of answering.
    Waiting(Box<Waiting>),
    /// The answer is coming.
    Body(Box<Body>),
    /// The last event was queued; the connection is closed.
    Over,
}

type Post = Pin<Box<dyn Future<Output = Result<Response, HttpError>> + Send>>;

/// A request, and what is known of it.
struct Request {
    request: GenRequest,
    kind: BackendKind,
    /// Whether its model was not resident: nothing can come from its cache.
    is_cold: bool,
    patience: Patience,
    /// When it began, milliseconds since the epoch: deaths of the engine before do not concern it.
    began_ms: u64,
    /// Whether it was sent before, to no effect.
    is_again: bool,
    post: Post,
}

struct Waiting {
    request: GenRequest,
    kind: BackendKind,
    began_ms: u64,
    until: Instant,
    /// What the server said instead of answering.
    refusal: GenError,
    /// Whether it was seen to load.
    has_loaded: bool,
}

impl Answer {
    async fn next(&mut self) -> Option<GenEvent> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Some(event);
            }
            let stage = match std::mem::replace(&mut self.stage, Stage::Over) {
                Stage::Over => return None,
                Stage::Start(request) => self.start(*request).await,
                Stage::Sent(request) => self.answered(request).await,
                Stage::Waiting(waiting) => self.wait(waiting).await,
                Stage::Body(body) => Ok(self.read(body).await),
            };
            self.stage = stage.unwrap_or_else(|error| {
                self.queue.push_back(GenEvent::Failed(error));
                Stage::Over
            });
        }
    }

    async fn start(&mut self, mut request: GenRequest) -> Result<Stage, GenError> {
        let began_ms = wall_ms();
        let inner = Arc::clone(&self.inner);
        if let Some(engine) = &inner.engine {
            request.model = absolute_model(&request.model);
            engine.ensure(&inner.http).await?;
        }
        let identity = match inner.known.find(&inner.http).await {
            Ok(identity) => identity,
            Err(error) => return Err(self.inner.blame(error, began_ms).await),
        };
        self.send(request, identity.kind, began_ms, false).await
    }

    /// Sends the request in the dialect of this kind.
    async fn send(
        &mut self,
        request: GenRequest,
        kind: BackendKind,
        began_ms: u64,
        is_again: bool,
    ) -> Result<Stage, GenError> {
        let http = Arc::clone(&self.inner.http);
        if let Some(error) = why_not(http.backend(), kind, &request) {
            return Err(error);
        }
        let mut facts = self.inner.known.model(&request.model);
        let mut is_cold = false;
        let (route, body) = if kind == BackendKind::Ollama {
            let resident = ollama::resident(&http, &request.model).await;
            if let Some(resident) = resident {
                facts.is_resident = resident.is_some();
                is_cold = resident.is_none();
            }
            if is_cold {
                // It says nothing while it loads.
                self.queue.push_back(GenEvent::Loading { fraction: 0.0 });
            }
            let context = resident.flatten().and_then(|resident| resident.context);
            (ollama::CHAT, ollama::chat_request(&request, context))
        } else {
            (openai::CHAT, openai::chat_request(&request, kind))
        };
        let patience = match &self.inner.engine {
            Some(_) => self.inner.patience,
            None => self.inner.patience.stretched(facts, &request),
        };
        let post = http.request(Method::POST, route)?.json(&body);
        let model = request.model.clone();
        self.aside = aside::ask(&http, kind, &model);
        let post: Post = Box::pin(async move { http.send(post, patience.first, Some(&model)).await });
        Ok(Stage::Sent(Box::new(Request { request, kind, is_cold, patience, began_ms, is_again, post })))
    }

    /// The headers of the answer, or what was asked beside it.
    async fn answered(&mut self, mut sent: Box<Request>) -> Result<Stage, GenError> {
        let result = match &mut self.aside {
            None => sent.post.as_mut().await,
            Some(aside) => tokio::select! {
                biased;
                result = sent.post.as_mut() => result,
                events = aside => {
                    self.aside = None;
                    self.queue.extend(events);
                    return Ok(Stage::Sent(sent));
                }
            },
        };
        match result {
            Ok(response) => self.accepted(response, sent).await,
            Err(error) => self.refused(error, sent).await,
        }
    }

    async fn refused(&mut self, error: HttpError, sent: Box<Request>) -> Result<Stage, GenError> {
        let Request { request, kind, patience, began_ms, is_again, .. } = *sent;
        match error.reach {
            Reach::Answered { status: 503 } if kind == BackendKind::LlamaServer && !is_again => {
                let until = Instant::now() + patience.first;
                let refusal = error.error;
                // It may be ready by the time of the next look.
                let has_loaded = refusal.message.contains("Loading model");
                let waiting = Waiting { request, kind, began_ms, until, refusal, has_loaded };
                Ok(Stage::Waiting(Box::new(waiting)))
            }
            Reach::Answered { status: 404 | 405 } if error.error.kind != GenErrorKind::Model && !is_again => {
                match self.inner.known.replaced(&self.inner.http).await {
                    Some(Identity { kind, .. }) => self.send(request, kind, began_ms, true).await,
                    None => Err(error.error),
                }
            }
            Reach::Answered { .. } => Err(error.error),
            Reach::Nobody | Reach::Unknown => {
                self.inner.known.forget();
                Err(self.inner.blame(error, began_ms).await)
            }
        }
    }

    /// Looks whether a server that refused still loads its model, and asks again when it has.
    async fn wait(&mut self, mut waiting: Box<Waiting>) -> Result<Stage, GenError> {
        let look = self.inner.http.look("/health", GLANCE).await;
        match look {
            Ok(look) if is_loading(&look) && Instant::now() < waiting.until => {
                waiting.has_loaded = true;
                self.queue.push_back(GenEvent::Loading { fraction: 0.0 });
                sleep(LOOK).await;
                Ok(Stage::Waiting(waiting))
            }
            // It was loading, and no longer is.
            Ok(look) if look.status == 200 && waiting.has_loaded => {
                let Waiting { request, kind, began_ms, .. } = *waiting;
                self.send(request, kind, began_ms, true).await
            }
            _ => Err(waiting.refusal),
        }
    }

    async fn accepted(&mut self, response: Response, sent: Box<Request>) -> Result<Stage, GenError> {
        let http = Arc::clone(&self.inner.http);
        let counted = self.inner.known.count(&sent.request).map(|tokens| Sent { tokens, is_exact: true });
        let decoder = Decoder::new(http.backend(), http.origin(), &sent.request)
            .expecting(counted.or_else(|| Sent::at_least(&sent.request)))
            .heeding_the_model(names_what_answers(sent.kind));
        let kind = BodyKind::of(&response);
        let framing = if sent.kind == BackendKind::Ollama {
            match kind {
                BodyKind::Lines | BodyKind::Events => {
                    Some(Framing::Lines { lines: LineDecoder::default(), was_cold: sent.is_cold })
                }
                BodyKind::Json | BodyKind::Other => None,
            }
        } else {
            (kind == BodyKind::Events).then(|| Framing::Events(SseDecoder::default()))
        };
        if let Some(framing) = framing {
            self.queue.push_back(GenEvent::Accepted);
            let Request { patience, began_ms, .. } = *sent;
            return Ok(Stage::Body(Box::new(Body { response, framing, decoder, patience, began_ms })));
        }
        let body = match http.body(response, sent.patience.first).await {
            Ok(body) => body,
            Err(error) => return Err(self.inner.blame(error, sent.began_ms).await),
        };
        // Ollama streams; one JSON is somebody else's word for not knowing the way, or a page is.
        if sent.kind == BackendKind::Ollama && !sent.is_again && !is_ollama(&body) {
            let Request { request, began_ms, .. } = *sent;
            return match self.inner.known.replaced(&http).await {
                Some(Identity { kind, .. }) => self.send(request, kind, began_ms, true).await,
                None => Ok(self.whole(decoder, BackendKind::Ollama, kind, &body)),
            };
        }
        Ok(self.whole(decoder, sent.kind, kind, &body))
    }

    /// An answer that came in one piece, or is none.
    fn whole(&mut self, mut decoder: Decoder, spoken: BackendKind, kind: BodyKind, body: &[u8]) -> Stage {
        let mut out = vec![GenEvent::Accepted];
        match std::str::from_utf8(body) {
            Ok(text) if kind == BodyKind::Json => {
                if spoken == BackendKind::Ollama {
                    text.lines().for_each(|line| decoder.line(line, false, &mut out));
                } else {
                    decoder.event("", text, &mut out);
                }
                decoder.end(&StreamEnd::Closed, &mut out);
            }
            _ => {
                let says = ErrorBody::from_bytes(body);
                let http = &self.inner.http;
                decoder.fail(fault::not_a_chat(http.backend(), http.place(), &says), &mut out);
            }
        }
        self.queue.extend(out);
        Stage::Over
    }

    /// The next bytes of a stream, or what was asked beside it.
    async fn read(&mut self, mut body: Box<Body>) -> Stage {
        let patience = if body.decoder.has_text() { body.patience.between } else { body.patience.first };
        let bytes = timeout(patience, body.response.chunk());
        let bytes = match &mut self.aside {
            None => bytes.await,
            Some(aside) => tokio::select! {
                biased;
                bytes = bytes => bytes,
                events = aside => {
                    self.aside = None;
                    // Progress that comes too late is none.
                    let is_late = body.decoder.has_text();
                    self.queue.extend(events.into_iter().filter(|event| !is_late || is_note(event)));
                    return Stage::Body(body);
                }
            },
        };
        let mut out = Vec::new();
        let end = match bytes {
            Ok(Ok(Some(bytes))) => {
                if body.push(&bytes, &mut out).is_err() {
                    let message = format!(
                        "{} sent an event larger than {} MiB\nthe text so far is kept; try again",
                        self.inner.http.backend(),
                        MAX_EVENT / 1024 / 1024
                    );
                    body.decoder.fail(GenError::new(GenErrorKind::Protocol, message), &mut out);
                }
                None
            }
            Ok(Ok(None)) => Some(StreamEnd::Closed),
            Ok(Err(error)) => Some(StreamEnd::Broken(why(&error))),
            Err(_) => Some(StreamEnd::Silent(patience.as_secs())),
        };
        if let Some(end) = end {
            body.finish(&mut out);
            let is_cut = !body.decoder.is_over() && !body.decoder.is_finished();
            if is_cut {
                self.inner.known.forget();
            }
            if is_cut && !matches!(end, StreamEnd::Silent(_)) {
                self.queue.extend(out.drain(..));
                if let Some(error) = self.inner.death(body.began_ms).await {
                    body.decoder.fail(error, &mut out);
                }
            }
            body.decoder.end(&end, &mut out);
        }
        if !body.decoder.is_over() {
            self.queue.extend(out);
            return Stage::Body(body);
        }
        let last = out.pop();
        self.queue.extend(out);
        if let Some(aside) = self.aside.take()
            && let Ok(events) = timeout(LATE, aside).await
        {
            self.queue.extend(events.into_iter().filter(is_note));
        }
        self.queue.extend(last);
        Stage::Over
    }
}

impl Inner {
    /// The error to show for a request that failed: the engine's death, if it died of it.
    async fn blame(&self, error: HttpError, began_ms: u64) -> GenError {
        if error.reach.is_answered() || error.error.kind == GenErrorKind::Timeout {
            return error.error;
        }
        self.death(began_ms).await.unwrap_or(error.error)
    }

    /// Why the engine broke off, also one over SSH; none for a server of another kind.
    async fn death(&self, since_ms: u64) -> Option<GenError> {
        let Some(engine) = &self.engine else { return self.http.far_death().await };
        let death = engine.death_since(since_ms).await;
        let message = death.map_or_else(
            || {
                "the engine ended without a word: it was killed, or stopped. Retry to start it again"
                    .to_owned()
            },
            |death| death.message,
        );
        Some(GenError::new(GenErrorKind::EngineDied, message))
    }
}

const fn is_note(event: &GenEvent) -> bool {
    matches!(event, GenEvent::Note(_))
}

/// Whether a whole body is an answer of Ollama's.
fn is_ollama(body: &[u8]) -> bool {
    let json: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    json.get("done").is_some() || json.get("message").is_some_and(serde_json::Value::is_object)
}

/// Whether servers of this kind name the model that answers, and not just the one they were asked for.
const fn names_what_answers(kind: BackendKind) -> bool {
    match kind {
        // Ours knows a file by another name; llama-server and mlx_lm repeat what they were asked for, and behind
        // llama-swap it has any name.
        BackendKind::Duet | BackendKind::LlamaServer | BackendKind::Mlx | BackendKind::LlamaSwap => false,
        BackendKind::Ollama
        | BackendKind::LmStudio
        | BackendKind::Vllm
        | BackendKind::TensorrtLlm
        | BackendKind::Openai => true,
    }
}
