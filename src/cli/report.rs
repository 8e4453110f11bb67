//! What `--json` and `--jsonl` print, and errors for people. The shapes are a promise to scripts.

use super::out;
use crate::app::story::Story;
use crate::chat::{Finish, GenError, GenErrorKind, Metrics, SessionId, TurnId};
use crate::error::{AppError, Exit};
use crate::router::Decision;
use crate::router::speeds::Before;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::io::{self, Write};

/// How an answer is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// The answer itself.
    Text,
    /// One object at the end.
    Json,
    /// Events as they come.
    Jsonl,
}

impl Format {
    /// What was asked for, also where the arguments could not be understood.
    pub(super) fn typed(arguments: &[OsString]) -> Self {
        let mut flags = arguments.iter().skip(1).take_while(|argument| *argument != "--");
        flags
            .find_map(|flag| match flag.to_str() {
                Some("--json") => Some(Self::Json),
                Some("--jsonl") => Some(Self::Jsonl),
                _ => None,
            })
            .unwrap_or(Self::Text)
    }
}

/// One answer with everything known about it.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) text: String,
    pub(super) thinking: String,
    pub(super) decision: Option<Decision>,
    /// What became of that.
    pub(super) story: Story,
    /// Whether the first token waited for prefill alone.
    pub(super) before: Before,
    /// The devices its model lies on, where the engine told.
    pub(super) device: Option<String>,
    pub(super) metrics: Metrics,
    pub(super) finish: Option<Ending>,
}

impl Answer {
    /// Whether nothing came.
    pub(super) const fn is_empty(&self) -> bool {
        self.text.is_empty() && self.thinking.is_empty()
    }
}

/// How an answer ended.
#[derive(Debug)]
pub(super) enum Ending {
    Complete(Finish),
    /// By the person.
    Stopped,
    Failed(GenError),
}

/// Names the turn an answer belongs to; `None` where nothing is saved.
pub(super) struct Place<'a> {
    pub(super) session: Option<&'a SessionId>,
    pub(super) turn: TurnId,
}

/// The object of `--json`.
pub(super) fn object(place: &Place<'_>, answer: &Answer) -> Value {
    json!({
        "version": 1,
        "session": place.session,
        "turn": place.turn,
        "answers": [answer_object(answer)],
    })
}

/// One entry of `answers`, and what `end` carries.
pub(super) fn answer_object(answer: &Answer) -> Value {
    let decision = answer.decision.as_ref();
    let metrics = &answer.metrics;
    let server = metrics.server.unwrap_or_default();
    let (finish, error) = match &answer.finish {
        Some(Ending::Complete(finish)) => (json!(finish), Value::Null),
        Some(Ending::Stopped) => (json!("stopped"), Value::Null),
        Some(Ending::Failed(error)) => (Value::Null, error_object(error)),
        None => (Value::Null, Value::Null),
    };
    json!({
        "text": answer.text,
        "thinking": answer.thinking,
        "model": decision.map(|d| &d.model),
        "backend": decision.map(|d| &d.backend),
        "device": answer.device,
        "finish": finish,
        "route": decision.map(|decision| route_object(decision, &answer.story)),
        "metrics": {
            "queue_ms": server.queue_ms,
            "load_ms": server.load_ms,
            "network_ms": metrics.network_ms(),
            "first_token_ms": metrics.first_token_ms,
            "first_answer_ms": metrics.first_answer_ms,
            "total_ms": metrics.total_ms,
            "prompt_tokens": metrics.usage.prompt_tokens,
            "cached_tokens": metrics.usage.cached_tokens,
            "prefill_tokens_per_s": metrics.prefill_tokens_per_s(),
            "output_tokens": metrics.usage.output_tokens,
            "decode_tokens_per_s": metrics.decode_tokens_per_s(),
            "server": metrics.server,
        },
        "error": error,
    })
}

/// Why it went where it did: `predicted`, `alias`, `fallback_from` and `cache_lost` are null where there is nothing to say.
pub(super) fn route_object(decision: &Decision, story: &Story) -> Value {
    json!({
        "rule": decision.rule,
        "reason": decision.reason,
        "rejected": decision.rejected,
        "predicted": decision.predicted,
        "alias": decision.alias,
        "is_variant": decision.is_variant,
        "fallback_from": story.fallback_from,
        "cache_lost": story.cache_lost,
    })
}

fn error_object(error: &GenError) -> Value {
    let AppError { message, hint, .. } = error.clone().into();
    json!({ "kind": error.kind, "message": message, "hint": hint })
}

/// The event a turn begins with.
pub(super) fn start_event(place: &Place<'_>) -> Value {
    json!({ "event": "start", "lane": 0, "version": 1, "session": place.session, "turn": place.turn })
}

/// The event that says where it goes.
pub(super) fn route_event(decision: &Decision, story: &Story) -> Value {
    let mut event = json!({
        "event": "route", "lane": 0, "backend": decision.backend, "model": decision.model,
    });
    merge(&mut event, route_object(decision, story));
    event
}

/// Any other event, with its fields.
pub(super) fn event(name: &str, fields: Value) -> Value {
    let mut event = json!({ "event": name, "lane": 0 });
    merge(&mut event, fields);
    event
}

/// The event of a failed generation.
pub(super) fn error_event(error: &GenError) -> Value {
    event("error", json!({ "error": error_object(error) }))
}

fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from);
    }
}

/// Prints one JSON value as one line. Characters that a terminal might obey are escaped.
pub(super) fn line(value: &Value) -> io::Result<()> {
    let mut out = io::stdout();
    out.write_all(escaped(&value.to_string()).as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()
}

/// JSON that is the same value and free of characters a terminal might obey or hide. Outside of strings
/// JSON holds ASCII only, so all of them are inside.
fn escaped(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        let is_odd = matches!(c,
            '\u{7f}'..='\u{9f}' | '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}');
        if is_odd {
            for unit in c.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            out.push(c);
        }
    }
    out
}

/// Tells of an error: for people on stderr, and as JSON on stdout where that was asked for.
pub(super) fn failed(format: Format, error: &AppError) {
    let kind = match error.exit {
        Exit::Ok | Exit::Error => "error",
        Exit::Usage => "usage",
        Exit::Backend => "backend",
        Exit::Model => "model",
        Exit::Context => "context",
        Exit::Timeout => "timeout",
        Exit::Interrupted => "interrupted",
    };
    let fields = json!({ "error": { "kind": kind, "message": error.message, "hint": error.hint } });
    let printed = match format {
        Format::Text => Ok(()),
        Format::Json => {
            let mut object = json!({ "version": 1 });
            merge(&mut object, fields);
            line(&object)
        }
        Format::Jsonl => line(&event("error", fields)),
    };
    drop(printed);
    out::note(&error.to_string());
}

/// A generation error for people, with its kind's exit code.
pub(super) fn tell(error: &GenError) -> Exit {
    let error = AppError::from(error.clone());
    out::note(&error.to_string());
    error.exit
}

/// The error of a turn that took too long.
pub(super) fn timed_out(seconds: f64) -> GenError {
    GenError::new(GenErrorKind::Timeout, format!("no complete answer after {seconds} s; give --timeout more"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn json_for_a_terminal_is_the_same_value() {
        let value = json!({ "text": "a\u{1b}[2J\u{9b}31m \u{202e}x\u{e0041} é\u{200b}" });
        let safe = escaped(&value.to_string());
        assert_eq!(safe, r#"{"text":"a\u001b[2J\u009b31m \u202ex\udb40\udc41 é\u200b"}"#);
        assert_eq!(serde_json::from_str::<Value>(&safe).expect("JSON"), value);
    }

    #[test]
    fn the_next_step_is_a_hint() {
        let two_lines = GenError::new(GenErrorKind::Model, "no model x\nchoose another");
        let expected = json!({ "kind": "model", "message": "no model x", "hint": "choose another" });
        assert_eq!(error_object(&two_lines), expected);
        assert_eq!(AppError::from(two_lines).to_string(), "no model x\nhint: choose another");
        let one_line = error_object(&GenError::new(GenErrorKind::Model, "no model x"));
        assert_eq!((&one_line["message"], &one_line["hint"]), (&json!("no model x"), &Value::Null));
    }

    #[test]
    fn the_object_has_every_promised_name() {
        let value = object(&Place { session: None, turn: TurnId(1) }, &Answer::default());
        let keys =
            |v: &Value| v.as_object().expect("an object").keys().cloned().collect::<Vec<_>>().join(" ");
        assert_eq!(keys(&value), "version session turn answers");
        let answer = &value["answers"][0];
        assert_eq!(keys(answer), "text thinking model backend device finish route metrics error");
        assert_eq!(
            keys(&answer["metrics"]),
            "queue_ms load_ms network_ms first_token_ms first_answer_ms total_ms prompt_tokens cached_tokens \
             prefill_tokens_per_s output_tokens decode_tokens_per_s server"
        );
    }
}
