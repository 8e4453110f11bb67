//! One generation over HTTP: sends the request once, reads the stream, gives the events. Dropping it
//! closes the connection.

use super::engine::Engine;
use super::http::{BodyKind, Http, HttpError, why};
use super::openai::{Decoder, StreamEnd, chat_request};
use super::sse::{MAX_EVENT, SseDecoder, SseItem};
use super::{GenStream, fault};
use crate::chat::{GenError, GenErrorKind, GenEvent, GenRequest};
use fault::ErrorBody;
use reqwest::{Method, Response};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

#[cfg(test)]
mod tests;

/// How long a backend may say nothing at all. Any byte, also a comment, counts as life.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Before the first text: it may be loading a model, or reading a long prompt.
    pub(super) first: Duration,
    /// Between two pieces of text.
    pub(super) between: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { first: Duration::from_secs(300), between: Duration::from_secs(60) }
    }
}

impl Patience {
    /// For our own engine, which gives a sign of life every two seconds whatever it does.
    pub(super) const fn with_engine() -> Self {
        Self { first: Duration::from_secs(20), between: Duration::from_secs(8) }
    }
}

/// The events of one generation.
pub(super) fn stream(
    http: Arc<Http>,
    engine: Option<Arc<Engine>>,
    request: GenRequest,
    patience: Patience,
) -> GenStream {
    let answer =
        Answer { http, engine, patience, queue: VecDeque::new(), stage: Stage::Start(Box::new(request)) };
    Box::pin(futures_util::stream::unfold(answer, |mut answer| async move {
        let event = answer.next().await?;
        Some((event, answer))
    }))
}

struct Answer {
    http: Arc<Http>,
    engine: Option<Arc<Engine>>,
    patience: Patience,
    queue: VecDeque<GenEvent>,
    stage: Stage,
}

enum Stage {
    /// Nothing was sent.
    Start(Box<GenRequest>),
    /// The answer is coming.
    Body(Box<Body>),
    /// The last event was queued; the connection is closed.
    Over,
}

struct Body {
    response: Response,
    sse: SseDecoder,
    decoder: Decoder,
    /// When the request began, milliseconds since the epoch: deaths of the engine before do not concern it.
    began_ms: u64,
}

impl Answer {
    async fn next(&mut self) -> Option<GenEvent> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Some(event);
            }
            self.stage = match std::mem::replace(&mut self.stage, Stage::Over) {
                Stage::Over => return None,
                Stage::Start(request) => match self.start(*request).await {
                    Ok(stage) => stage,
                    Err(error) => {
                        self.queue.push_back(GenEvent::Failed(error));
                        Stage::Over
                    }
                },
                Stage::Body(body) => self.read(body).await,
            };
        }
    }

    async fn start(&mut self, mut request: GenRequest) -> Result<Stage, GenError> {
        let began_ms = super::engine::wall_ms();
        if let Some(engine) = &self.engine {
            request.model = super::engine::absolute_model(&request.model);
            engine.ensure(&self.http).await?;
        }
        let body = chat_request(&request, self.http.additions());
        let post = self.http.request(Method::POST, "/v1/chat/completions")?.json(&body);
        let response = match self.http.send(post, self.patience.first, Some(&request.model)).await {
            Ok(response) => response,
            Err(error) => return Err(self.blame(error, began_ms).await),
        };
        self.queue.push_back(GenEvent::Accepted);
        let decoder = Decoder::new(self.http.backend(), self.http.origin(), &request);
        match BodyKind::of(&response) {
            BodyKind::Events => {
                Ok(Stage::Body(Box::new(Body { response, sse: SseDecoder::default(), decoder, began_ms })))
            }
            kind => {
                let body = match self.http.body(response, self.patience.first).await {
                    Ok(body) => body,
                    Err(error) => return Err(self.blame(error, began_ms).await),
                };
                self.whole(decoder, kind, &body);
                Ok(Stage::Over)
            }
        }
    }

    /// An answer that came in one piece, or is none.
    fn whole(&mut self, mut decoder: Decoder, kind: BodyKind, body: &[u8]) {
        let mut out = Vec::new();
        match std::str::from_utf8(body) {
            Ok(text) if kind == BodyKind::Json => {
                decoder.event("", text, &mut out);
                decoder.end(&StreamEnd::Closed, &mut out);
            }
            _ => {
                let says = ErrorBody::from_bytes(body);
                decoder.fail(fault::not_a_chat(self.http.backend(), self.http.place(), &says), &mut out);
            }
        }
        self.queue.extend(out);
    }

    /// The next bytes of a stream.
    async fn read(&mut self, mut body: Box<Body>) -> Stage {
        let patience = if body.decoder.has_text() { self.patience.between } else { self.patience.first };
        let mut out = Vec::new();
        let end = match tokio::time::timeout(patience, body.response.chunk()).await {
            Ok(Ok(Some(bytes))) => {
                let mut items = Vec::new();
                let pushed = body.sse.push(&bytes, &mut items);
                body.decode(items, &mut out);
                if pushed.is_err() {
                    let message = format!(
                        "{} sent an event larger than {} MiB\nthe text so far is kept; try again",
                        self.http.backend(),
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
            let mut items = Vec::new();
            body.sse.finish(&mut items);
            body.decode(items, &mut out);
            let is_cut = !body.decoder.is_over() && !body.decoder.is_finished();
            if is_cut && !matches!(end, StreamEnd::Silent(_)) {
                self.queue.extend(out.drain(..));
                if let Some(error) = self.death(body.began_ms).await {
                    body.decoder.fail(error, &mut out);
                }
            }
            body.decoder.end(&end, &mut out);
        }
        self.queue.extend(out);
        if body.decoder.is_over() { Stage::Over } else { Stage::Body(body) }
    }

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

impl Body {
    fn decode(&mut self, items: Vec<SseItem>, out: &mut Vec<GenEvent>) {
        for item in items {
            if let SseItem::Event { name, data } = item {
                self.decoder.event(&name, &data, out);
            }
        }
    }
}
