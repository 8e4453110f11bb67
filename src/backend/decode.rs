//! Turning what a server sends into [`GenEvent`]s: what all dialects have in common. Pure, no IO.
//!
//! An answer is complete only when a finish reason was seen; `[DONE]` and the end of the stream prove nothing. What is
//! malformed is skipped and counted, three times in a row end the answer.

use super::fault::{self, ErrorBody, Origin};
use super::think::{Ending, ThinkFilter};
use crate::chat::{
    Channel, Finish, GenError, GenErrorKind, GenEvent, GenRequest, Note, ServerTimings, Usage,
};
use serde_json::{Map, Value};

/// Bytes of text one answer may have.
const MAX_TEXT: usize = 2 * 1024 * 1024;
/// Pieces one answer may have, unless more tokens were asked for.
pub(super) const MAX_PIECES: u32 = 32_768;
/// Malformed events in a row that end an answer.
const MAX_BAD: u32 = 3;
/// Words from which a prompt is long enough to judge by them whether all of it was read.
const MIN_WORDS: u32 = 200;

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

/// How many tokens were sent, for noticing a server that read fewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    /// Tokens of the prompt.
    pub(super) tokens: u32,
    /// Whether the server counted them. Else there are at least so many.
    pub(super) is_exact: bool,
}

impl Sent {
    /// At least so many as there are words: no tokenizer in use joins two. None when that says too little.
    pub(super) fn at_least(request: &GenRequest) -> Option<Self> {
        let words =
            request.messages.iter().map(|message| message.content.split_whitespace().count()).sum::<usize>();
        let tokens = u32::try_from(words).ok().filter(|words| *words >= MIN_WORDS)?;
        Some(Self { tokens, is_exact: false })
    }

    /// Whether a server that read this many tokens left some out. A template may drop a few of its own.
    fn is_cut_to(self, read: u32) -> bool {
        let slack = if self.is_exact { (self.tokens / 100).max(16) } else { self.tokens / 10 };
        read < self.tokens - slack.min(self.tokens)
    }
}

/// Turns the events of one answer into [`GenEvent`]s. Gives exactly one `Done` or `Failed`, and nothing after.
#[derive(Debug)]
pub(super) struct Decoder {
    pub(super) backend: String,
    pub(super) origin: Origin,
    pub(super) model: String,
    /// What was sent, until it was compared with what was read.
    sent: Option<Sent>,
    /// Whether the server's word on which model answers is worth something, until it was heard.
    pub(super) heeds_model: bool,
    think: ThinkFilter,
    pub(super) finish: Option<Finish>,
    pub(super) timings: Option<ServerTimings>,
    usage: Option<Usage>,
    /// Tokens so far, where the server counts along.
    pub(super) produced: Option<u32>,
    /// Deltas with text.
    pieces: u32,
    max_pieces: u32,
    /// No token was asked for: some give one all the same.
    is_mute: bool,
    /// Bytes of text.
    bytes: usize,
    /// Malformed events since the last good one.
    bad: u32,
    is_over: bool,
}

/// An event that can't be understood.
#[derive(Debug)]
pub(super) struct Malformed;

impl Decoder {
    /// A decoder for one answer to this request.
    pub(super) fn new(backend: &str, origin: Origin, request: &GenRequest) -> Self {
        Self {
            backend: backend.to_owned(),
            origin,
            model: request.model.clone(),
            sent: None,
            heeds_model: false,
            think: ThinkFilter::default(),
            finish: None,
            timings: None,
            usage: None,
            produced: None,
            pieces: 0,
            max_pieces: MAX_PIECES.max(request.max_tokens.unwrap_or_default()),
            is_mute: request.max_tokens == Some(0),
            bytes: 0,
            bad: 0,
            is_over: false,
        }
    }

    /// The same, which says so when the server reads less than this.
    pub(super) fn expecting(mut self, sent: Option<Sent>) -> Self {
        self.sent = sent;
        self
    }

    /// The same, which says so when the server names another model than the one that was asked for.
    pub(super) fn heeding_the_model(mut self, heeds: bool) -> Self {
        self.heeds_model = heeds && !self.model.is_empty();
        self
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

    /// Keeps count of what made sense and what didn't.
    pub(super) fn counted(&mut self, result: &Result<(), Malformed>, out: &mut Vec<GenEvent>) {
        match result {
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
        let counted = self.usage.and_then(|usage| usage.output_tokens).or(self.produced);
        let tokens = match counted.unwrap_or(self.pieces) {
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

    /// Ends the answer with what the server says went wrong.
    pub(super) fn fail_with(&mut self, body: &ErrorBody, out: &mut Vec<GenEvent>) {
        self.fail(fault::broken_off(&self.backend, &self.model, body, self.origin), out);
    }

    /// The finish reason: whatever was held back comes out, and no text counts after it.
    pub(super) fn finish(&mut self, finish: Finish, out: &mut Vec<GenEvent>) {
        if self.is_over || self.finish.is_some() {
            return;
        }
        let ending = match finish {
            Finish::Length => Ending::Cut,
            Finish::Stop => Ending::Complete,
        };
        self.flush(ending, out);
        self.finish = Some(finish);
    }

    /// Thinking the server parted from the answer.
    pub(super) fn think(&mut self, text: &str, out: &mut Vec<GenEvent>) {
        if !text.is_empty() {
            self.think.stand_aside();
            self.say(Channel::Thinking, text.to_owned(), out);
        }
    }

    /// A piece of the answer, which may have thinking in it between tags.
    pub(super) fn answer(&mut self, text: &str, out: &mut Vec<GenEvent>) {
        if text.is_empty() {
            return;
        }
        let mut parts = Vec::new();
        self.think.push(text, |channel, text| parts.push((channel, text)));
        self.pieces += u32::from(parts.is_empty());
        for (channel, text) in parts {
            self.say(channel, text, out);
        }
    }

    /// Token counts: told when they are news, and compared with what was sent.
    pub(super) fn usage(&mut self, usage: Usage, out: &mut Vec<GenEvent>) {
        if self.usage.replace(usage) == Some(usage) || self.is_over {
            return;
        }
        out.push(GenEvent::Usage(usage));
        if let (Some(sent), Some(read)) = (self.sent, usage.prompt_tokens.filter(|read| *read > 0)) {
            self.sent = None;
            if sent.is_cut_to(read) {
                out.push(GenEvent::Note(Note::Cut { sent: sent.tokens, read, is_exact: sent.is_exact }));
            }
        }
    }

    /// The server's word on which model answers.
    pub(super) fn answered_by(&mut self, model: &str, out: &mut Vec<GenEvent>) {
        if !self.heeds_model || model.is_empty() || self.is_over {
            return;
        }
        self.heeds_model = false;
        if !is_same_model(&self.model, model) {
            let answers = fault::clean(model);
            out.push(GenEvent::Note(Note::OtherModel { asked: self.model.clone(), answers }));
        }
    }

    fn say(&mut self, channel: Channel, text: String, out: &mut Vec<GenEvent>) {
        if self.is_over || self.is_mute {
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
        let is_mute = self.is_mute;
        self.think.finish(ending, |channel, text| {
            if !is_mute {
                out.push(GenEvent::Delta { channel, text });
            }
        });
    }
}

/// Whether two names mean one model: servers add tags, dates and folders to what they were asked for, or leave them
/// out.
pub(super) fn is_same_model(asked: &str, answered: &str) -> bool {
    let bare = |name: &str| {
        let name = name.to_lowercase();
        let name = name.rsplit(['/', '\\']).next().unwrap_or_default();
        name.trim_end_matches(".gguf").trim_end_matches(":latest").to_owned()
    };
    let (asked, answered) = (bare(asked), bare(answered));
    asked.contains(&answered) || answered.contains(&asked)
}

/// JSON of one event, with lone halves of surrogate pairs mended.
pub(super) fn parse(data: &str) -> Result<Value, Malformed> {
    serde_json::from_str(data)
        .or_else(|error| match whole_surrogates(data) {
            Some(mended) => serde_json::from_str(&mended),
            None => Err(error),
        })
        .map_err(|_| Malformed)
}

/// A text that may be missing or null.
pub(super) fn text_of(value: Option<&Value>) -> Result<&str, Malformed> {
    match value {
        None | Some(Value::Null) => Ok(""),
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(Malformed),
    }
}

/// A part that may be missing or null.
pub(super) fn object_of<'a>(
    value: Option<&'a Value>,
    empty: &'a Map<String, Value>,
) -> Result<&'a Map<String, Value>, Malformed> {
    match value {
        None | Some(Value::Null) => Ok(empty),
        Some(Value::Object(object)) => Ok(object),
        Some(_) => Err(Malformed),
    }
}

/// A count: absent when it is missing, negative, fractional or out of this world.
pub(super) fn count(value: Option<&Value>) -> Option<u32> {
    u32::try_from(value?.as_u64()?).ok()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{Message, Role, Sampling};

    #[test]
    fn half_surrogates_alone_are_mended() {
        assert_eq!(whole_surrogates(r#"{"a":"\n\\ud83d"#), None);
        assert_eq!(whole_surrogates("\\日"), None);
        assert_eq!(whole_surrogates(r#""\ud83d x""#).as_deref(), Some(r#""\ufffd x""#));
    }

    #[test]
    fn names_of_one_model() {
        for (asked, answered) in [
            ("llama3.2", "llama3.2:latest"),
            ("gpt-4o", "gpt-4o-2024-08-06"),
            ("qwen2.5-7b@q4_k_m", "qwen2.5-7b"),
            ("/m/Small.GGUF", "small"),
            ("org/small", "small.gguf"),
        ] {
            assert!(is_same_model(asked, answered), "{asked} {answered}");
        }
        assert!(!is_same_model("llama3.2", "qwen2.5"));
        assert!(!is_same_model("llama3.2:70b", "llama3.2:8b"));
    }

    fn of_words(words: usize) -> GenRequest {
        GenRequest {
            model: "small".to_owned(),
            messages: vec![Message::new(Role::User, "word ".repeat(words))],
            sampling: Sampling::default(),
            max_tokens: None,
            stop: Vec::new(),
            schema: None,
            session: None,
            is_ahead: false,
        }
    }

    #[test]
    fn a_prompt_that_was_cut_is_noticed_once() {
        let request = of_words(6000);
        let sent = Sent::at_least(&request);
        assert_eq!(sent, Some(Sent { tokens: 6000, is_exact: false }));
        assert_eq!(Sent::at_least(&of_words(50)), None, "too little to judge by");
        let notes = |sent: Option<Sent>, read: u32| {
            let mut decoder = Decoder::new("mac", Origin::Foreign, &request).expecting(sent);
            let mut out = Vec::new();
            for output in [1, 2] {
                let usage =
                    Usage { prompt_tokens: Some(read), output_tokens: Some(output), ..Usage::default() };
                decoder.usage(usage, &mut out);
            }
            out.into_iter().filter(|event| matches!(event, GenEvent::Note(_))).collect::<Vec<_>>()
        };
        let cut = |sent, read, is_exact| vec![GenEvent::Note(Note::Cut { sent, read, is_exact })];
        assert_eq!(notes(sent, 4096), cut(6000, 4096, false));
        assert_eq!(notes(sent, 6100), []);
        assert_eq!(notes(sent, 0), [], "a server that does not say");
        let exact = |tokens| Some(Sent { tokens, is_exact: true });
        assert_eq!(notes(exact(8000), 7000), cut(8000, 7000, true));
        assert_eq!(notes(exact(8000), 7950), [], "what a template may leave out");
        assert_eq!(notes(exact(10), 1), []);
        assert_eq!(notes(None, 1), []);
        assert!(
            Note::Cut { sent: 6000, read: 4096, is_exact: false }.words().contains("4096 of at least 6000")
        );
    }
}
