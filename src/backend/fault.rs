//! What went wrong at a backend, in words: the thing, the cause and the next step on at most two lines.
//! Pure. Foreign text in them is cut to 300 characters, and what looks like a key is masked; control
//! characters stay in and are made harmless where the message is shown.

use crate::chat::{GenError, GenErrorKind};
use serde_json::Value;

/// Characters of foreign text in a message.
const MAX_FOREIGN: usize = 300;
/// What a masked key looks like.
const MASK: &str = "***";
/// Beginnings of well-known kinds of keys.
const KEY_PREFIXES: [&str; 9] =
    ["sk-", "hf_", "ghp_", "gho_", "github_pat_", "xoxb-", "xoxp-", "eyJ", "AKIA"];

/// Whose words an error is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Our engine: it names the cause, and the next step on a second line.
    Engine,
    /// Another server: what it says is quoted on one line, and the next step is ours.
    Foreign,
    /// `mlx_lm.server`: a stranger that says 404 of a model it can't load.
    Mlx,
}

/// What an error body says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ErrorBody {
    /// For people; cleaned, line by line.
    pub(super) message: String,
    /// `type` or a textual `code`.
    pub(super) kind: String,
    /// A numeric `code`, as an HTTP status.
    pub(super) status: Option<u16>,
    /// Tokens of the prompt, where the context was too small.
    pub(super) prompt_tokens: Option<u64>,
    /// The context, likewise.
    pub(super) context: Option<u64>,
}

impl ErrorBody {
    /// Reads the `error` member of a JSON answer: an object, or just text. None when there is none.
    pub(super) fn from_json(value: &Value) -> Option<Self> {
        match value.get("error")? {
            Value::Null => None,
            Value::Object(error) => {
                let text = |name: &str| error.get(name).and_then(Value::as_str);
                let number = |name: &str| error.get(name).and_then(Value::as_u64);
                let message = text("message").or_else(|| text("error")).or_else(|| text("detail"));
                // The one of the two that means something here.
                let kinds = [text("code"), text("type")];
                let known = kinds.into_iter().flatten().find(|kind| known_kind(kind).is_some());
                let kind = known.or(text("type")).or_else(|| text("code"));
                Some(Self {
                    message: clean_lines(message.unwrap_or_default()),
                    kind: kind.unwrap_or_default().to_owned(),
                    status: number("code").and_then(|code| u16::try_from(code).ok()),
                    prompt_tokens: number("n_prompt_tokens"),
                    context: number("n_ctx"),
                })
            }
            Value::String(message) => Some(Self { message: clean_lines(message), ..Self::default() }),
            other => Some(Self { message: clean(&other.to_string()), ..Self::default() }),
        }
    }

    /// Reads a whole body of any kind: JSON with `error`, `message` or `detail`, a web page's title, or
    /// the first line of text.
    pub(super) fn from_bytes(body: &[u8]) -> Self {
        if let Ok(value) = serde_json::from_slice::<Value>(body) {
            let plain = ["message", "detail"].iter().find_map(|name| value.get(name)?.as_str());
            return Self::from_json(&value).unwrap_or_else(|| Self {
                message: clean_lines(plain.unwrap_or_default()),
                ..Self::default()
            });
        }
        let text = String::from_utf8_lossy(body);
        let message = if is_web_page(&text) {
            match page_title(&text) {
                Some(title) => format!("a web page titled \"{}\"", clean(&title)),
                None => "a web page".to_owned(),
            }
        } else {
            clean(text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default())
        };
        Self { message, ..Self::default() }
    }
}

impl ErrorBody {
    /// What it says on one line, or what stands for nothing.
    fn says(&self, nothing: &str) -> String {
        if self.message.is_empty() { nothing.to_owned() } else { one_line(&self.message) }
    }
}

/// Lines as one: the first one is taken for a heading, the others for a list, unless punctuation says how
/// they belong together.
fn one_line(lines: &str) -> String {
    let mut all = lines.lines();
    let mut line = all.next().unwrap_or_default().to_owned();
    for (at, next) in all.enumerate() {
        line.push_str(match (line.ends_with([':', ';', ',', '.', '!', '?']), at) {
            (true, _) => " ",
            (false, 0) => ": ",
            (false, _) => "; ",
        });
        line.push_str(next);
    }
    line
}

/// Words of our engine: the cause, and on a second line the next step where they have one.
pub(super) fn engine_words(text: &str) -> String {
    let clean = clean_lines(text);
    match clean.split_once('\n') {
        Some((cause, next)) => format!("{cause}\n{}", next.replace('\n', " ")),
        None => clean,
    }
}

/// Foreign text for a message, on one line, where it may have several.
pub(super) fn foreign_words(text: &str) -> String {
    one_line(&clean_lines(text))
}

/// [`clean`] of every line that is not empty; at most 300 characters together.
fn clean_lines(text: &str) -> String {
    let start: String = text.chars().take(4 * MAX_FOREIGN).collect();
    let lines: Vec<String> = start.lines().map(clean).filter(|line| !line.is_empty()).collect();
    cut(lines.join("\n"))
}

fn cut(text: String) -> String {
    if text.chars().count() <= MAX_FOREIGN {
        return text;
    }
    text.chars().take(MAX_FOREIGN - 1).chain(['…']).collect()
}

fn is_web_page(text: &str) -> bool {
    let start: String = text.trim_start().chars().take(15).collect::<String>().to_ascii_lowercase();
    start.starts_with("<!doctype html") || start.starts_with("<html") || start.starts_with("<head")
}

fn page_title(page: &str) -> Option<String> {
    let lower = page.to_ascii_lowercase();
    let from = lower.find("<title")?;
    let from = from + lower.get(from..)?.find('>')? + 1;
    let len = lower.get(from..)?.find("</title")?;
    let title = page.get(from..from + len)?.trim();
    (!title.is_empty()).then(|| title.to_owned())
}

/// Foreign text for a message: one line, keys masked, at most 300 characters.
pub(super) fn clean(text: &str) -> String {
    // Far more than is shown: a long body costs no more than a short one.
    let start: String = text.chars().take(4 * MAX_FOREIGN).collect();
    let mut words: Vec<String> = Vec::new();
    let mut after_bearer = false;
    for word in start.split_whitespace() {
        words.push(if after_bearer { MASK.to_owned() } else { masked(word) });
        after_bearer = word.trim_end_matches(':').eq_ignore_ascii_case("bearer");
    }
    cut(words.join(" "))
}

/// A word with everything in it that looks like a key masked.
fn masked(word: &str) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let mut out = String::with_capacity(word.len());
    let mut rest = word;
    while !rest.is_empty() {
        let len = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        let (part, tail) = rest.split_at_checked(len).unwrap_or((rest, ""));
        out.push_str(if is_key(part) { MASK } else { part });
        let mut chars = tail.chars();
        out.extend(chars.next());
        rest = chars.as_str();
    }
    out
}

fn is_key(part: &str) -> bool {
    let is_known = KEY_PREFIXES.iter().any(|p| part.strip_prefix(p).is_some_and(|rest| rest.len() >= 12));
    let is_random = part.split(['-', '_']).any(|run| {
        run.len() >= 32
            && run.contains(|c: char| c.is_ascii_digit())
            && run.contains(|c: char| c.is_ascii_alphabetic())
    });
    is_known || is_random
}

/// What the `type` or `code` of an error means.
fn known_kind(kind: &str) -> Option<GenErrorKind> {
    match kind {
        "exceed_context_size_error" | "context_length_exceeded" => Some(GenErrorKind::ContextFull),
        "out_of_memory_error" => Some(GenErrorKind::OutOfMemory),
        "model_error" | "model_not_found" | "model_not_found_error" => Some(GenErrorKind::Model),
        "authentication_error" | "permission_error" | "invalid_api_key" => Some(GenErrorKind::Auth),
        _ => None,
    }
}

/// How servers say that a conversation is too long.
const TOO_LONG: [&str; 5] = [
    "maximum context length",
    "exceeds the context length",
    "greater than the context length",
    "context the overflows",
    "should not exceed max_seq_len",
];

/// Which kind an error is, by its type, its status and, last, its words.
fn kind_of(status: u16, body: &ErrorBody, origin: Origin) -> GenErrorKind {
    if let Some(kind) = known_kind(&body.kind) {
        return kind;
    }
    let words = body.message.to_ascii_lowercase();
    let has = |part: &str| words.contains(part);
    match status {
        401 | 403 => GenErrorKind::Auth,
        404 if has("model") || (origin == Origin::Mlx && !matches!(words.as_str(), "" | "not found")) => {
            GenErrorKind::Model
        }
        400 if has("model") && has("not found") => GenErrorKind::Model,
        400 if body.context.is_some() && body.prompt_tokens.is_some() => GenErrorKind::ContextFull,
        0 | 400 if TOO_LONG.into_iter().any(has) => GenErrorKind::ContextFull,
        0 | 500 if has("out of memory") || has("requires more system memory") => GenErrorKind::OutOfMemory,
        _ => GenErrorKind::Refused,
    }
}

/// The error for a request that `backend` refused with this status and body.
pub(super) fn refusal(
    backend: &str,
    model: Option<&str>,
    status: u16,
    body: &ErrorBody,
    origin: Origin,
) -> GenError {
    let kind = kind_of(status, body, origin);
    if origin == Origin::Engine && !body.message.is_empty() {
        return GenError::new(kind, engine_words(&body.message));
    }
    let says = body.says("no reason given");
    let model = model.unwrap_or("the model");
    let message = match kind {
        GenErrorKind::Auth => {
            format!(
                "{backend} refuses the key ({status}): {says}\ncorrect it (`token_env` or `token_file` of backend {backend}), or pair again: `tui backends pair {backend}`"
            )
        }
        GenErrorKind::ContextFull => match (body.prompt_tokens, body.context) {
            (Some(prompt), Some(context)) => format!(
                "the conversation takes {prompt} tokens, {model} on {backend} has room for {context}\nshorten the question, start a new session, or raise the context of {backend}"
            ),
            _ => format!("{model} on {backend}: {says}\nshorten the question, or start a new session"),
        },
        GenErrorKind::OutOfMemory => {
            format!(
                "{backend} has not enough memory for {model}: {says}\nchoose a smaller model, or unload another one"
            )
        }
        GenErrorKind::Model => format!("{backend} can't use {model}: {says}\nchoose another model"),
        _ => match status {
            404 => format!(
                "{backend} has no chat at its address (404): {says}\ncheck `url` of backend {backend}"
            ),
            413 => format!("{backend} finds the request too large (413): {says}\nshorten the question"),
            421 => format!(
                "{backend} does not go by the name in its address (421)\nadd that to [serve] names there, or use an address it listens on"
            ),
            429 => format!("{backend} is busy (429): {says}\ntry again in a moment"),
            503 => format!("{backend} is not ready (503): {says}\ntry again in a moment"),
            500..=599 => format!("{backend} failed ({status}): {says}\nlook at the log of that server"),
            _ => format!(
                "{backend} refused ({status}): {says}\ncheck the request and `url` of backend {backend}"
            ),
        },
    };
    GenError::new(kind, message)
}

/// The error for an error event in the middle of an answer.
pub(super) fn broken_off(backend: &str, model: &str, body: &ErrorBody, origin: Origin) -> GenError {
    let status = body.status.unwrap_or_default();
    match kind_of(status, body, origin) {
        GenErrorKind::Refused if origin != Origin::Engine || body.message.is_empty() => {
            let says = body.says("no reason given");
            let message = format!("{backend} stopped {model}: {says}\nthe text so far is kept; try again");
            GenError::new(GenErrorKind::Refused, message)
        }
        _ => refusal(backend, Some(model), status, body, origin),
    }
}

/// The error for an answer that isn't what this program speaks.
pub(super) fn not_a_chat(backend: &str, place: &str, body: &ErrorBody) -> GenError {
    let says = body.says("nothing");
    GenError::new(
        GenErrorKind::Protocol,
        format!("{place} is not a chat server: it answered with {says}\ncheck `url` of backend {backend}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    fn refuse(status: u16, body: &str) -> (GenErrorKind, String) {
        let error =
            refusal("mac", Some("large"), status, &ErrorBody::from_bytes(body.as_bytes()), Origin::Foreign);
        (error.kind, error.message)
    }

    #[test]
    fn kinds_and_words() {
        use GenErrorKind as K;
        let cases = [
            (
                401,
                r#"{"error":{"code":401,"message":"Invalid API Key","type":"authentication_error"}}"#,
                K::Auth,
                "mac refuses the key (401): Invalid API Key",
            ),
            (403, "", K::Auth, "mac refuses the key (403): no reason given"),
            (
                400,
                r#"{"error":{"code":400,"message":"too long","type":"exceed_context_size_error","n_prompt_tokens":9001,"n_ctx":8192}}"#,
                K::ContextFull,
                "the conversation takes 9001 tokens, large on mac has room for 8192",
            ),
            (
                400,
                r#"{"error":{"message":"This model's maximum context length is 4096 tokens","code":400}}"#,
                K::ContextFull,
                "large on mac: This model's maximum context length is 4096 tokens",
            ),
            (
                404,
                r#"{"error":{"code":404,"message":"model 'x' not found","type":"not_found_error"}}"#,
                K::Model,
                "mac can't use large: model 'x' not found",
            ),
            (
                400,
                r#"{"error":{"code":400,"message":"model 'large' not found","type":"invalid_request_error"}}"#,
                K::Model,
                "mac can't use large: model 'large' not found",
            ),
            (
                404,
                r#"{"error":"File Not Found"}"#,
                K::Refused,
                "mac has no chat at its address (404): File Not Found",
            ),
            (
                500,
                r#"{"error":{"type":"out_of_memory_error","message":"needs 9 GB, 4 GB are free"}}"#,
                K::OutOfMemory,
                "mac has not enough memory for large: needs 9 GB, 4 GB are free",
            ),
            (
                422,
                r#"{"error":{"type":"model_error","message":"no chat template"}}"#,
                K::Model,
                "mac can't use large: no chat template",
            ),
            (
                503,
                r#"{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}"#,
                K::Refused,
                "mac is not ready (503): Loading model",
            ),
            (422, r#"{"detail":"field required"}"#, K::Refused, "mac refused (422): field required"),
            (
                502,
                "<!DOCTYPE html><html><HEAD><Title>Bad\n Gateway</Title></head>",
                K::Refused,
                "mac failed (502): a web page titled \"Bad Gateway\"",
            ),
            (500, "\n\nTraceback: boom\nline 2", K::Refused, "mac failed (500): Traceback: boom"),
            (418, "\u{fffd}", K::Refused, "mac refused (418): \u{fffd}"),
            (
                404,
                r#"{"error":{"message":"Invalid model identifier","type":"invalid_request_error","param":"model","code":"model_not_found"}}"#,
                K::Model,
                "mac can't use large: Invalid model identifier",
            ),
            (
                400,
                r#"{"error":"the input length exceeds the context length"}"#,
                K::ContextFull,
                "large on mac: the input length exceeds the context length",
            ),
            (
                500,
                r#"{"error":"model requires more system memory (5.6 GiB) than is available (3.4 GiB)"}"#,
                K::OutOfMemory,
                "mac has not enough memory for large: model requires more system memory (5.6 GiB) than is available (3.4 GiB)",
            ),
            (
                503,
                r#"{"error":"server busy, please try again.  maximum pending requests exceeded"}"#,
                K::Refused,
                "mac is not ready (503): server busy, please try again. maximum pending requests exceeded",
            ),
        ];
        for (status, body, kind, first_line) in cases {
            let (got_kind, message) = refuse(status, body);
            assert_eq!((got_kind, message.lines().next()), (kind, Some(first_line)), "{body}");
            assert_eq!(message.lines().count(), 2, "{message}");
        }
    }

    #[test]
    fn mlx_says_404_of_a_model_it_cant_load() {
        let body =
            ErrorBody::from_bytes(br#"{"error": "Repository Not Found for url: https://huggingface.co/x"}"#);
        let kind = |origin| refusal("mac", Some("x"), 404, &body, origin).kind;
        assert_eq!((kind(Origin::Mlx), kind(Origin::Foreign)), (GenErrorKind::Model, GenErrorKind::Refused));
        let no_route = ErrorBody::from_bytes(b"Not Found");
        assert_eq!(refusal("mac", None, 404, &no_route, Origin::Mlx).kind, GenErrorKind::Refused);
    }

    #[test]
    fn foreign_text_is_short_and_keeps_no_keys() {
        let long = "word ".repeat(100_000);
        assert_eq!(clean(&long).chars().count(), 300);
        let cases = [
            ("Authorization: Bearer abc123 rejected", "Authorization: Bearer *** rejected"),
            ("key=sk-proj1234567890abcdef, sorry", "key=***, sorry"),
            ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0xyz.sig", "***.***.sig"),
            ("0123456789abcdef0123456789abcdef", "***"),
            (
                "Meta-Llama-3.1-8B-Instruct-Q4_K_M.gguf in /models/of/mine",
                "Meta-Llama-3.1-8B-Instruct-Q4_K_M.gguf in /models/of/mine",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(clean(text), expected);
        }
    }

    #[test]
    fn the_engine_says_it_in_its_own_two_lines() {
        let says = "there is no model \"x\"\ndid you mean  y?";
        let body =
            serde_json::json!({"error": {"code": 404, "type": "model_not_found_error", "message": says}});
        let body = ErrorBody::from_json(&body).expect("an error");
        let own = refusal("local", Some("x"), 404, &body, Origin::Engine);
        let expected = "there is no model \"x\"\ndid you mean y?";
        assert_eq!((own.kind, own.message.as_str()), (GenErrorKind::Model, expected));
        let middle = broken_off("local", "x", &body, Origin::Engine);
        assert_eq!(middle.message, expected);

        let one_line = ErrorBody { message: "no room. Retry".to_owned(), ..ErrorBody::default() };
        assert_eq!(broken_off("local", "x", &one_line, Origin::Engine).message, "no room. Retry");
        assert_eq!(refusal("local", None, 503, &one_line, Origin::Engine).message, "no room. Retry");
        let nothing = refusal("local", None, 503, &ErrorBody::default(), Origin::Engine);
        assert_eq!(nothing.message.lines().next(), Some("local is not ready (503): no reason given"));

        let foreign = refusal("mac", Some("x"), 404, &body, Origin::Foreign);
        assert_eq!(
            foreign.message,
            "mac can't use x: there is no model \"x\": did you mean y?\nchoose another model"
        );
    }

    #[test]
    fn lines_of_others_become_one() {
        for (text, line) in [
            ("one\n\n  two\nthree", "one: two; three"),
            ("Error:\ntwo.\nthree", "Error: two. three"),
            ("alone\n", "alone"),
            ("", ""),
        ] {
            assert_eq!(foreign_words(text), line);
        }
        assert_eq!(engine_words("a\nb\nc"), "a\nb c");
        assert_eq!(foreign_words(&"word\n".repeat(100_000)).lines().count(), 1);
    }

    #[test]
    fn errors_in_the_middle() {
        let body = ErrorBody::from_json(&serde_json::json!({"error": "CUDA error"})).expect("an error");
        assert_eq!(
            broken_off("mac", "large", &body, Origin::Foreign).message.lines().next(),
            Some("mac stopped large: CUDA error")
        );
        assert_eq!(ErrorBody::from_json(&serde_json::json!({"error": null})), None);
        assert_eq!(ErrorBody::from_json(&serde_json::json!({})), None);
    }
}
