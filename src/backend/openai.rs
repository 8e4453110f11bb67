//! The OpenAI dialect as llama-server speaks it: a request builder and a decoder. Pure, no IO.
//!
//! An answer is complete only when a finish reason was seen; `[DONE]` and the end of the stream prove
//! nothing. What is malformed is skipped and counted, three times in a row end the answer.

use super::fault::{self, ErrorBody, Origin};
use super::think::{Ending, ThinkFilter};
use crate::chat::{
    CacheLost, Channel, Finish, GenError, GenErrorKind, GenEvent, GenRequest, ServerTimings, Usage,
};
use serde_json::{Map, Value, json};

#[cfg(test)]
mod tests;

/// Bytes of text one answer may have.
const MAX_TEXT: usize = 2 * 1024 * 1024;
/// Pieces one answer may have, unless more tokens were asked for.
const MAX_PIECES: u32 = 32_768;
/// Malformed events in a row that end an answer.
const MAX_BAD: u32 = 3;

/// Whether a server knows llama-server's additions to the dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Additions {
    /// It does, or may: they are ignored where they are unknown.
    LlamaServer,
    /// It is an engine of ours.
    Duet,
    /// It has shown to be another server.
    None,
}

/// The body of a chat request.
pub(super) fn chat_request(request: &GenRequest, additions: Additions) -> Value {
    let mut body = Map::new();
    body.insert("model".to_owned(), json!(request.model));
    body.insert("messages".to_owned(), json!(request.messages));
    body.insert("stream".to_owned(), json!(true));
    body.insert("stream_options".to_owned(), json!({"include_usage": true}));
    if let Ok(Value::Object(sampling)) = serde_json::to_value(request.sampling) {
        body.extend(sampling);
    }
    if let Some(max_tokens) = request.max_tokens {
        body.insert("max_tokens".to_owned(), json!(max_tokens));
    }
    if !request.stop.is_empty() {
        body.insert("stop".to_owned(), json!(request.stop));
    }
    if let Some(schema) = &request.schema {
        let format = json!({"type": "json_schema", "json_schema": {"name": "answer", "strict": true, "schema": schema}});
        body.insert("response_format".to_owned(), format);
    }
    if additions != Additions::None {
        body.insert("return_progress".to_owned(), json!(true));
        body.insert("cache_prompt".to_owned(), json!(true));
    }
    if let (Additions::Duet, Some(session)) = (additions, &request.session) {
        body.insert("duet_session".to_owned(), json!(session));
    }
    Value::Object(body)
}

/// How a stream of events ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StreamEnd {
    /// The server closed it in good order.
    Closed,
    /// The connection broke: why.
    Broken(String),
    /// Nothing came for this many seconds.
    Silent(u64),
}

/// Turns the events of one answer into [`GenEvent`]s. Gives exactly one `Done` or `Failed`, and nothing after.
#[derive(Debug)]
pub(super) struct Decoder {
    backend: String,
    origin: Origin,
    model: String,
    think: ThinkFilter,
    finish: Option<Finish>,
    timings: Option<ServerTimings>,
    usage: Option<Usage>,
    /// Deltas with text.
    pieces: u32,
    max_pieces: u32,
    /// Bytes of text.
    bytes: usize,
    /// Malformed events since the last good one.
    bad: u32,
    is_over: bool,
}

/// An event that can't be understood.
#[derive(Debug)]
struct Malformed;

impl Decoder {
    /// A decoder for one answer to this request.
    pub(super) fn new(backend: &str, origin: Origin, request: &GenRequest) -> Self {
        Self {
            backend: backend.to_owned(),
            origin,
            model: request.model.clone(),
            think: ThinkFilter::default(),
            finish: None,
            timings: None,
            usage: None,
            pieces: 0,
            max_pieces: MAX_PIECES.max(request.max_tokens.unwrap_or_default()),
            bytes: 0,
            bad: 0,
            is_over: false,
        }
    }

    /// Whether `Done` or `Failed` was given.
    pub(super) const fn is_over(&self) -> bool {
        self.is_over
    }

    /// Whether the finish reason was seen, so that nothing of the answer can be missing.
    pub(super) const fn is_finished(&self) -> bool {
        self.finish.is_some()
    }

    /// Whether any text came.
    pub(super) const fn has_text(&self) -> bool {
        self.pieces > 0
    }

    /// One event of the stream.
    pub(super) fn event(&mut self, name: &str, data: &str, out: &mut Vec<GenEvent>) {
        if self.is_over {
            return;
        }
        if data.trim() == "[DONE]" {
            self.end(&StreamEnd::Closed, out);
            return;
        }
        let parsed = serde_json::from_str::<Value>(data).or_else(|error| match whole_surrogates(data) {
            Some(mended) => serde_json::from_str(&mended),
            None => Err(error),
        });
        if name == "error" {
            let body = parsed.as_ref().ok().and_then(ErrorBody::from_json);
            self.fail_with(&body.unwrap_or_else(|| ErrorBody::from_bytes(data.as_bytes())), out);
            return;
        }
        match parsed.map_err(|_| Malformed).and_then(|value| self.chunk(&value, out)) {
            Ok(()) => self.bad = 0,
            Err(Malformed) => {
                self.bad += 1;
                if self.bad >= MAX_BAD {
                    let message = format!(
                        "{} sent {MAX_BAD} events in a row that make no sense\nthe text so far is kept; try again, or look at the log of that server",
                        self.backend
                    );
                    self.fail(GenError::new(GenErrorKind::Protocol, message), out);
                }
            }
        }
    }

    /// The stream ended.
    pub(super) fn end(&mut self, how: &StreamEnd, out: &mut Vec<GenEvent>) {
        if self.is_over {
            return;
        }
        if let Some(finish) = self.finish {
            self.is_over = true;
            out.push(GenEvent::Done { finish, timings: self.timings });
            return;
        }
        let tokens = match self.usage.and_then(|usage| usage.output_tokens).unwrap_or(self.pieces) {
            1 => "1 token".to_owned(),
            n => format!("{n} tokens"),
        };
        let (backend, next) = (&self.backend, "the text so far is kept; try again");
        let error = match how {
            StreamEnd::Closed => GenError::new(
                GenErrorKind::Protocol,
                format!(
                    "the answer was stopped by the server after {tokens}, without an end ({backend})\n{next}"
                ),
            ),
            StreamEnd::Broken(why) => GenError::new(
                GenErrorKind::Protocol,
                format!("the connection to {backend} broke after {tokens}: {why}\n{next}"),
            ),
            StreamEnd::Silent(seconds) => GenError::new(
                GenErrorKind::Timeout,
                format!(
                    "{backend} was silent for {seconds} s after {tokens}\n{next}, or choose another backend"
                ),
            ),
        };
        self.fail(error, out);
    }

    /// Ends the answer with this error; the text so far stands.
    pub(super) fn fail(&mut self, error: GenError, out: &mut Vec<GenEvent>) {
        if self.is_over {
            return;
        }
        self.flush(Ending::Cut, out);
        self.is_over = true;
        out.push(GenEvent::Failed(error));
    }

    fn fail_with(&mut self, body: &ErrorBody, out: &mut Vec<GenEvent>) {
        self.fail(fault::broken_off(&self.backend, &self.model, body, self.origin), out);
    }

    fn chunk(&mut self, value: &Value, out: &mut Vec<GenEvent>) -> Result<(), Malformed> {
        let object = value.as_object().ok_or(Malformed)?;
        if let Some(body) = ErrorBody::from_json(value) {
            self.fail_with(&body, out);
            return Ok(());
        }
        if self.finish.is_none() {
            self.progress(object, out);
            match object.get("choices") {
                None | Some(Value::Null) => {}
                Some(Value::Array(choices)) => {
                    if let Some(choice) = choices.first() {
                        self.choice(choice, out)?;
                    }
                }
                Some(_) => return Err(Malformed),
            }
        }
        if let Some(tokens) = object.get("duet").and_then(|ours| count(ours.get("tokens")))
            && !self.is_over
        {
            out.push(GenEvent::Produced { tokens });
        }
        if let Some(timings) = object.get("timings").and_then(Value::as_object) {
            self.timings = Some(server_timings(timings));
        }
        if let Some(usage) = object.get("usage").and_then(Value::as_object) {
            let usage = token_usage(usage);
            if self.usage.replace(usage) != Some(usage) && !self.is_over {
                out.push(GenEvent::Usage(usage));
            }
        }
        Ok(())
    }

    /// Waiting, loading and prefill.
    fn progress(&self, object: &Map<String, Value>, out: &mut Vec<GenEvent>) {
        if let Some(ours) = object.get("duet") {
            if let Some(ahead) = count(ours.get("queued")) {
                out.push(GenEvent::Queued { ahead });
            }
            if let Some(fraction) = ours.get("loading").and_then(Value::as_f64) {
                #[expect(clippy::cast_possible_truncation, reason = "a fraction for a progress bar")]
                out.push(GenEvent::Loading { fraction: fraction.clamp(0.0, 1.0) as f32 });
            }
        }
        if let Some(progress) = object.get("prompt_progress")
            && let Some(total) = count(progress.get("total"))
        {
            let part = |name: &str| count(progress.get(name)).unwrap_or_default().min(total);
            out.push(GenEvent::Prefill { done: part("processed"), total, cached: part("cache") });
        }
    }

    fn choice(&mut self, choice: &Value, out: &mut Vec<GenEvent>) -> Result<(), Malformed> {
        let choice = choice.as_object().ok_or(Malformed)?;
        // A server that doesn't stream answers with one whole message.
        let delta = match choice.get("delta").or_else(|| choice.get("message")) {
            None | Some(Value::Null) => &Map::new(),
            Some(Value::Object(delta)) => delta,
            Some(_) => return Err(Malformed),
        };
        let thinking = match text_of(delta.get("reasoning_content"))? {
            "" => text_of(delta.get("reasoning"))?,
            thinking => thinking,
        };
        let answer = text_of(delta.get("content"))?;
        let reason = text_of(choice.get("finish_reason"))?;
        if !thinking.is_empty() {
            self.think.stand_aside();
            self.say(Channel::Thinking, thinking.to_owned(), out);
        }
        if !answer.is_empty() {
            let mut parts = Vec::new();
            self.think.push(answer, |channel, text| parts.push((channel, text)));
            self.pieces += u32::from(parts.is_empty());
            for (channel, text) in parts {
                self.say(channel, text, out);
            }
        }
        match reason {
            "" => {}
            "abort" | "error" => {
                // Nobody's words: what it means is ours to say.
                let body = ErrorBody { message: format!("finish reason `{reason}`"), ..ErrorBody::default() };
                self.fail(fault::broken_off(&self.backend, &self.model, &body, Origin::Foreign), out);
            }
            _ if self.is_over => {}
            _ => {
                let (finish, ending) = match reason {
                    "length" => (Finish::Length, Ending::Cut),
                    _ => (Finish::Stop, Ending::Complete),
                };
                self.flush(ending, out);
                self.finish = Some(finish);
            }
        }
        Ok(())
    }

    fn say(&mut self, channel: Channel, text: String, out: &mut Vec<GenEvent>) {
        if self.is_over {
            return;
        }
        self.pieces += 1;
        self.bytes += text.len();
        out.push(GenEvent::Delta { channel, text });
        if self.bytes > MAX_TEXT || self.pieces > self.max_pieces {
            let limit = if self.bytes > MAX_TEXT {
                "2 MiB of text".to_owned()
            } else {
                format!("{} pieces of text", self.max_pieces)
            };
            let message = format!(
                "{} was stopped: its answer passed {limit}\nthe text so far is kept; set a higher `max_tokens` if it was meant to go on",
                self.model
            );
            self.fail(GenError::new(GenErrorKind::Protocol, message), out);
        }
    }

    /// Gives what the filter holds back. It came already and is not counted again.
    fn flush(&mut self, ending: Ending, out: &mut Vec<GenEvent>) {
        self.think.finish(ending, |channel, text| out.push(GenEvent::Delta { channel, text }));
    }
}

/// A text that may be missing or null.
fn text_of(value: Option<&Value>) -> Result<&str, Malformed> {
    match value {
        None | Some(Value::Null) => Ok(""),
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(Malformed),
    }
}

/// The JSON text with every half of a surrogate pair that stands alone replaced by U+FFFD; None when there
/// is none. Servers that cut text between tokens send such halves.
fn whole_surrogates(json: &str) -> Option<String> {
    let unit = |at: usize| {
        let hex = json.get(at..at + 6)?.strip_prefix("\\u")?;
        u32::from_str_radix(hex, 16).ok()
    };
    let (mut out, mut from, mut at) = (String::new(), 0, 0);
    while let Some(offset) = json.get(at..).and_then(|rest| rest.find('\\')) {
        at += offset;
        match (unit(at), unit(at + 6)) {
            (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => at += 12,
            (Some(0xD800..=0xDFFF), _) => {
                out.push_str(json.get(from..at)?);
                out.push_str("\\ufffd");
                at += 6;
                from = at;
            }
            // The escaped character is one byte, or the first of several.
            _ => at += 2,
        }
    }
    out.push_str(json.get(from..)?);
    (out != json).then_some(out)
}

/// A count: absent when it is missing, negative, fractional or out of this world.
fn count(value: Option<&Value>) -> Option<u32> {
    u32::try_from(value?.as_u64()?).ok()
}

fn milliseconds(value: Option<&Value>) -> Option<f64> {
    value?.as_f64().filter(|ms| ms.is_finite() && *ms >= 0.0)
}

fn token_usage(usage: &Map<String, Value>) -> Usage {
    Usage {
        prompt_tokens: count(usage.get("prompt_tokens")),
        cached_tokens: count(usage.get("prompt_tokens_details").and_then(|d| d.get("cached_tokens"))),
        output_tokens: count(usage.get("completion_tokens")),
    }
}

fn server_timings(timings: &Map<String, Value>) -> ServerTimings {
    ServerTimings {
        queue_ms: milliseconds(timings.get("queue_ms")),
        load_ms: milliseconds(timings.get("load_ms")),
        cache_n: count(timings.get("cache_n")),
        cache_from: timings.get("cache_from").and_then(|place| serde_json::from_value(place.clone()).ok()),
        cache_lost: timings.get("cache_lost").and_then(Value::as_str).map(CacheLost::of_words),
        prompt_n: count(timings.get("prompt_n")),
        prompt_ms: milliseconds(timings.get("prompt_ms")),
        predicted_n: count(timings.get("predicted_n")),
        predicted_ms: milliseconds(timings.get("predicted_ms")),
        draft_n: count(timings.get("draft_n")),
        draft_n_accepted: count(timings.get("draft_n_accepted")),
        energy_j: timings.get("energy_j").and_then(Value::as_f64).filter(|joules| *joules >= 0.0),
    }
}
