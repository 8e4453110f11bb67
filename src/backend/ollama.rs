//! Ollama's own dialect: a request builder and a decoder of lines. Pure, but for [`resident`], which asks.
//!
//! `/api/chat` alone takes a context, tells durations, and shows an error in the middle of an answer.

pub(super) mod listing;
pub(super) mod manage;
pub(super) mod shape;

use super::decode::{Decoder, Malformed, StreamEnd, count, object_of, parse, text_of};
use super::fault::{self, ErrorBody};
use super::http::Http;
use crate::chat::{Finish, GenEvent, GenRequest, Note, Sampling, ServerTimings, Usage};
use serde_json::{Map, Value, json};
use std::time::Duration;

#[cfg(test)]
mod tests;

/// Where it is spoken.
pub(super) const CHAT: &str = "/api/chat";
/// For a look at what is resident before a question.
const GLANCE: Duration = Duration::from_secs(2);

/// A resident model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Resident {
    /// The context it was loaded with, in tokens, where the server says.
    pub(super) context: Option<u32>,
}

/// Whether a model is resident: none when the server doesn't say.
pub(super) async fn resident(http: &Http, model: &str) -> Option<Option<Resident>> {
    let list = http.get("/api/ps", GLANCE).await.ok()?;
    let models = list.get("models")?.as_array()?;
    let is_meant =
        |item: &&Value| item.get("name").and_then(Value::as_str).is_some_and(|name| is_named(name, model));
    let resident = |item: &Value| Resident { context: count(item.get("context_length")).filter(|n| *n > 0) };
    Some(models.iter().find(is_meant).map(resident))
}

/// Whether a listed name is the model that was asked for: without a tag it is the latest.
pub(super) fn is_named(listed: &str, asked: &str) -> bool {
    listed.eq_ignore_ascii_case(asked)
        || listed
            .strip_suffix(":latest")
            .is_some_and(|bare| !asked.contains(':') && bare.eq_ignore_ascii_case(asked))
}

/// The body of a chat request. The context is that of the resident model: with any other it would be loaded anew, and
/// with none the server's own choice, which is the same only by chance.
pub(super) fn chat_request(request: &GenRequest, context: Option<u32>) -> Value {
    let mut options = options(request.sampling);
    if let Some(context) = context {
        options.insert("num_ctx".to_owned(), json!(context));
    }
    if let Some(max_tokens) = request.max_tokens {
        options.insert("num_predict".to_owned(), json!(max_tokens));
    }
    if !request.stop.is_empty() {
        options.insert("stop".to_owned(), json!(request.stop));
    }
    // An error rather than a conversation without its beginning.
    let mut body = json!({
        "model": request.model, "messages": request.messages, "stream": true, "truncate": false, "shift": false,
        "options": options,
    });
    if let (Some(schema), Some(body)) = (&request.schema, body.as_object_mut()) {
        body.insert("format".to_owned(), schema.clone());
    }
    body
}

fn options(sampling: Sampling) -> Map<String, Value> {
    match serde_json::to_value(sampling) {
        Ok(Value::Object(options)) => options,
        _ => Map::new(),
    }
}

impl Decoder {
    /// One line of the stream. `was_cold` says that the model had to be loaded, so that nothing can have come from
    /// its cache.
    pub(super) fn line(&mut self, line: &str, was_cold: bool, out: &mut Vec<GenEvent>) {
        if self.is_over() {
            return;
        }
        let result = parse(line).and_then(|value| self.object(&value, was_cold, out));
        self.counted(&result, out);
    }

    fn object(&mut self, value: &Value, was_cold: bool, out: &mut Vec<GenEvent>) -> Result<(), Malformed> {
        let object = value.as_object().ok_or(Malformed)?;
        if let Some(body) = ErrorBody::from_json(value) {
            self.fail_with(&body, out);
            return Ok(());
        }
        if let Some(model) = object.get("model").and_then(Value::as_str) {
            self.passed_on(object, out);
            self.answered_by(model, out);
        }
        let empty = Map::new();
        let message = object_of(object.get("message"), &empty)?;
        if !self.is_finished() {
            self.think(text_of(message.get("thinking"))?, out);
            self.answer(text_of(message.get("content"))?, out);
        }
        if object.get("done").and_then(Value::as_bool).unwrap_or_default() {
            self.usage(usage(object), out);
            self.timings = self.timings.or(Some(timings(object, was_cold)));
            match text_of(object.get("done_reason"))? {
                "length" => self.finish(Finish::Length, out),
                _ => self.finish(Finish::Stop, out),
            }
            // Nothing follows it.
            self.end(&StreamEnd::Closed, out);
        }
        Ok(())
    }

    /// Says once that the prompt left the house.
    fn passed_on(&mut self, object: &Map<String, Value>, out: &mut Vec<GenEvent>) {
        if let Some(host) = object.get("remote_host").and_then(Value::as_str).filter(|host| !host.is_empty())
            && self.heeds_model
        {
            out.push(GenEvent::Note(Note::PassedOn { to: fault::clean(host) }));
            // The name over there is another one, of course.
            self.heeds_model = false;
        }
    }
}

fn usage(object: &Map<String, Value>) -> Usage {
    Usage {
        prompt_tokens: count(object.get("prompt_eval_count")),
        cached_tokens: count(object.get("prompt_eval_cached_count")),
        output_tokens: count(object.get("eval_count")),
    }
}

/// Its durations are nanoseconds. The prompt's count has the cached tokens in it, and its duration hasn't: how many
/// were evaluated is known only where the cached ones are told, or where there was no cache.
fn timings(object: &Map<String, Value>, was_cold: bool) -> ServerTimings {
    #[expect(clippy::cast_precision_loss, reason = "a duration for people")]
    let milliseconds = |name: &str| object.get(name).and_then(Value::as_u64).map(|ns| ns as f64 / 1e6);
    let prompt = count(object.get("prompt_eval_count"));
    let cached = count(object.get("prompt_eval_cached_count")).or(was_cold.then_some(0));
    ServerTimings {
        load_ms: milliseconds("load_duration"),
        cache_n: count(object.get("prompt_eval_cached_count")),
        prompt_n: prompt.zip(cached).map(|(prompt, cached)| prompt.saturating_sub(cached)),
        prompt_ms: milliseconds("prompt_eval_duration"),
        predicted_n: count(object.get("eval_count")),
        predicted_ms: milliseconds("eval_duration"),
        ..ServerTimings::default()
    }
}
