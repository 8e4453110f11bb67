//! The JSON of answers: chunks of a stream, whole completions, timings, usage.

use super::super::job::JobTimings;
use crate::chat::{Channel, Finish};
use serde::Serialize;
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

/// What every chunk of one answer has in common.
#[derive(Clone, Debug)]
pub(super) struct Envelope {
    id: String,
    created: u64,
    model: String,
    /// A chunk with text up to that text: it is the same in all of them.
    before_text: Vec<u8>,
}

const CHUNK: &str = "chat.completion.chunk";
const FINGERPRINT: &str = concat!("duet-", env!("CARGO_PKG_VERSION"));

#[derive(Serialize)]
struct Common<'a> {
    id: &'a str,
    object: &'a str,
    created: u64,
    model: &'a str,
    system_fingerprint: &'a str,
}

#[derive(Serialize)]
struct TextDelta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<&'a str>,
}

#[derive(Serialize)]
struct Tokens {
    tokens: u32,
}

impl Envelope {
    pub(super) fn new(model: &str, number: u64) -> Self {
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let id = format!("chatcmpl-{created:x}-{number:x}");
        let common = Common { id: &id, object: CHUNK, created, model, system_fingerprint: FINGERPRINT };
        // Strings and numbers always have a form in JSON; one without its last brace.
        let mut before_text = serde_json::to_vec(&common).unwrap_or_default();
        before_text.pop();
        before_text.extend_from_slice(br#","choices":[{"index":0,"delta":"#);
        Self { id, created, model: model.to_owned(), before_text }
    }

    fn wrap(&self, object: &str, fields: Value) -> Value {
        let mut all = json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": FINGERPRINT,
        });
        if let (Some(all), Value::Object(fields)) = (all.as_object_mut(), fields) {
            all.extend(fields);
        }
        all
    }

    /// A chunk of the stream.
    pub(super) fn chunk(&self, fields: Value) -> Value {
        self.wrap(CHUNK, fields)
    }

    /// The first chunk: who speaks.
    pub(super) fn role(&self) -> Value {
        self.delta(json!({"role": "assistant", "content": null}))
    }

    /// Writes an event with a piece of text; `tokens` and `timings` so far where the request asks for them. There may be
    /// one for each token, so what is the same in all of them is written once.
    pub(super) fn write_text(
        &self,
        out: &mut Vec<u8>,
        (channel, text): (Channel, &str),
        tokens: Option<u32>,
        timings: Option<Value>,
    ) {
        let (content, reasoning_content) = match channel {
            Channel::Answer => (Some(text), None),
            Channel::Thinking => (None, Some(text)),
        };
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(&self.before_text);
        put(out, &TextDelta { content, reasoning_content });
        out.extend_from_slice(br#","finish_reason":null}]"#);
        if let Some(tokens) = tokens {
            out.extend_from_slice(br#","duet":"#);
            put(out, &Tokens { tokens });
        }
        if let Some(timings) = timings {
            out.extend_from_slice(br#","timings":"#);
            put(out, &timings);
        }
        out.extend_from_slice(b"}\n\n");
    }

    fn delta(&self, delta: impl Into<Value>) -> Value {
        self.chunk(json!({"choices": [{"index": 0, "delta": delta.into(), "finish_reason": null}]}))
    }

    /// The chunk that says why the answer ended.
    pub(super) fn finish(&self, finish: Finish) -> Value {
        self.chunk(json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason(finish)}]}))
    }

    /// A whole answer.
    pub(super) fn completion(&self, answer: &str, thinking: &str, finish: Finish, fields: Value) -> Value {
        let mut message = json!({"role": "assistant", "content": answer});
        if !thinking.is_empty()
            && let Some(message) = message.as_object_mut()
        {
            message.insert("reasoning_content".to_owned(), thinking.into());
        }
        let mut all = self.wrap(
            "chat.completion",
            json!({"choices": [{"index": 0, "message": message, "finish_reason": reason(finish)}]}),
        );
        if let (Some(all), Value::Object(fields)) = (all.as_object_mut(), fields) {
            all.extend(fields);
        }
        all
    }
}

fn reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "stop",
        Finish::Length => "length",
    }
}

/// llama-server's `timings`, with `queue_ms`, `load_ms`, `cache_from`, `cache_lost` and `energy_j` of our own.
pub(super) fn timings(t: &JobTimings, load_ms: f64) -> Value {
    let per = |ms: f64, n: u32| if n > 0 { Some(ms / f64::from(n)) } else { None };
    let rate = |ms: f64, n: u32| if ms > 0.0 { Some(f64::from(n) / ms * 1000.0) } else { None };
    let mut all = json!({
        "cache_n": t.cache_n,
        "prompt_n": t.prompt_n,
        "prompt_ms": t.prompt_ms,
        "prompt_per_token_ms": per(t.prompt_ms, t.prompt_n),
        "prompt_per_second": rate(t.prompt_ms, t.prompt_n),
        "predicted_n": t.predicted_n,
        "predicted_ms": t.predicted_ms,
        "predicted_per_token_ms": per(t.predicted_ms, t.predicted_n),
        "predicted_per_second": rate(t.predicted_ms, t.predicted_n),
        "queue_ms": t.queue_ms,
        "load_ms": load_ms,
    });
    if let Some(object) = all.as_object_mut() {
        if let Some(place) = t.cache_from.filter(|_| t.cache_n > 0) {
            object.insert("cache_from".to_owned(), place.name().into());
        }
        if let Some(why) = t.cache_lost {
            object.insert("cache_lost".to_owned(), why.words().into());
        }
        if let Some(joules) = t.energy_j {
            object.insert("energy_j".to_owned(), joules.into());
        }
        if t.draft_n > 0 {
            object.insert("draft_n".to_owned(), t.draft_n.into());
            object.insert("draft_n_accepted".to_owned(), t.draft_n_accepted.into());
        }
    }
    all
}

/// OpenAI's `usage`.
pub(super) fn usage(t: &JobTimings) -> Value {
    let prompt = t.cache_n + t.prompt_n;
    json!({
        "completion_tokens": t.predicted_n,
        "prompt_tokens": prompt,
        "total_tokens": prompt + t.predicted_n,
        "prompt_tokens_details": {"cached_tokens": t.cache_n},
    })
}

/// What always has a form in JSON, in it.
fn put(out: &mut Vec<u8>, value: &impl Serialize) {
    let _ = serde_json::to_writer(out, value);
}

/// One event of a stream.
pub(super) fn event(out: &mut Vec<u8>, data: &Value) {
    use std::io::Write;
    let _ = write!(out, "data: {data}\n\n");
}

#[cfg(test)]
mod tests {
    use super::super::super::cache::Place;
    use super::*;
    use crate::chat::CacheLost;

    #[test]
    fn text_is_written_as_the_other_chunks_are() {
        let envelope = Envelope::new("a \"model\"", 7);
        let written = |channel, text: &str, tokens, timings| {
            let mut out = Vec::new();
            envelope.write_text(&mut out, (channel, text), tokens, timings);
            let data = String::from_utf8(out).unwrap();
            let data = data.strip_prefix("data: ").and_then(|o| o.strip_suffix("\n\n")).unwrap();
            assert!(!data.contains('\n'));
            data.to_owned()
        };
        let mut role = envelope.role();
        role["choices"][0]["delta"] = json!({"content": "é\n\"x\""});
        assert_eq!(written(Channel::Answer, "é\n\"x\"", None, None), role.to_string());
        role["choices"][0]["delta"] = json!({"reasoning_content": ""});
        role["duet"] = json!({"tokens": 3});
        role["timings"] = json!({"predicted_n": 3});
        let timings = Some(json!({"predicted_n": 3}));
        assert_eq!(written(Channel::Thinking, "", Some(3), timings), role.to_string());
    }

    #[test]
    fn speeds_of_nothing_are_absent() {
        let empty = timings(&JobTimings::default(), 0.0);
        assert_eq!(empty["prompt_per_second"], Value::Null);
        assert_eq!(empty["predicted_per_token_ms"], Value::Null);
        let t = JobTimings {
            cache_n: 10,
            prompt_n: 20,
            prompt_ms: 100.0,
            predicted_n: 5,
            predicted_ms: 50.0,
            queue_ms: 1.0,
            ..JobTimings::default()
        };
        assert_eq!(timings(&t, 7.0)["prompt_per_second"], 200.0);
        assert_eq!(usage(&t)["prompt_tokens"], 30);
        assert_eq!(usage(&t)["total_tokens"], 35);
    }

    #[test]
    fn what_did_not_happen_is_not_said() {
        let names = ["cache_from", "cache_lost", "draft_n", "draft_n_accepted"];
        let without = timings(&JobTimings { cache_from: Some(Place::Disk), ..JobTimings::default() }, 0.0);
        assert!(names.iter().all(|name| without.get(name).is_none()), "{without}");
        let with = timings(
            &JobTimings {
                cache_n: 3,
                cache_from: Some(Place::Disk),
                cache_lost: Some(CacheLost::Window),
                draft_n: 40,
                draft_n_accepted: 34,
                ..JobTimings::default()
            },
            0.0,
        );
        assert_eq!(
            names.map(|name| with[name].clone()),
            [json!("disk"), json!("the sliding window has moved on"), json!(40), json!(34)]
        );
    }
}
