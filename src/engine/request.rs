//! What the engine is asked: bodies of its routes as typed, bounded requests.
//!
//! Names, defaults and meanings are llama-server's. A field nobody knows is ignored; what can't be honoured
//! is refused, not ignored.

mod embeddings;
mod fields;
mod generation;
mod images;
mod models;
#[cfg(test)]
mod tests;

pub use embeddings::{EmbeddingInput, EmbeddingsRequest};
pub use fields::RequestError;
pub use generation::{BiasToken, Form, Generation, LogitBias, SamplingParams};
pub use images::{Image, mark};
pub use models::{LoadRequest, parse_keep_alive, parse_pin};

use super::template::{Ending, PromptMessage, PromptRole, RenderOptions};
use fields::{Fields, wrong};
use serde_json::{Map, Value};

const MAX_MESSAGES: usize = 100_000;

/// The body of `/v1/chat/completions`.
#[derive(Clone, Debug)]
pub struct ChatRequest {
    /// The model's id, a unique beginning of it, or a path; none: the default.
    pub model: Option<String>,
    /// Oldest first; never empty.
    pub messages: Vec<PromptMessage>,
    /// Images of the messages, in their order.
    pub images: Vec<Image>,
    /// How the prompt ends, and variables for the template.
    pub render: RenderOptions,
    /// What to generate.
    pub generation: Generation,
    /// Whether the answer comes as server-sent events.
    pub stream: bool,
    /// Whether a chunk with token counts ends the stream.
    pub include_usage: bool,
    /// Whether progress of the prefill is told.
    pub return_progress: bool,
    /// Whether each chunk carries timings.
    pub timings_per_token: bool,
}

/// The body of `/apply-template`.
#[derive(Clone, Debug)]
pub struct TemplateRequest {
    /// The model.
    pub model: Option<String>,
    /// Oldest first; never empty.
    pub messages: Vec<PromptMessage>,
    /// Images of the messages, in their order.
    pub images: Vec<Image>,
    /// How the prompt ends, and variables for the template.
    pub render: RenderOptions,
}

/// The body of `/tokenize`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenizeRequest {
    /// The model.
    pub model: Option<String>,
    /// The text.
    pub content: String,
    /// Whether to add the tokens that begin and end a text.
    pub add_special: bool,
    /// Whether names of special tokens become those tokens.
    pub parse_special: bool,
    /// Whether to return the text of each token too.
    pub with_pieces: bool,
}

/// Parses a body as JSON. Nesting is bounded to 128 levels.
///
/// # Errors
/// Where it is no JSON, with line and column.
pub fn parse_json(body: &[u8]) -> Result<Value, RequestError> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    if body.trim_ascii().is_empty() {
        return Err(RequestError::new("", "has no body; it must be a JSON object"));
    }
    serde_json::from_slice(body).map_err(|error| RequestError::new("", format!("is not JSON: {error}")))
}

impl ChatRequest {
    /// Reads the body of `/v1/chat/completions`.
    ///
    /// # Errors
    /// Naming the first field that is missing, of a wrong type, out of range, or not supported.
    pub fn parse(body: &Value) -> Result<Self, RequestError> {
        let fields = Fields::of_body(body)?;
        refuse_unsupported(&fields)?;
        let TemplateRequest { model, messages, images, render } = TemplateRequest::from_fields(&fields)?;
        let stream = fields.flag("stream")?.unwrap_or(false);
        let stream_options = fields.object("stream_options")?;
        let include_usage =
            stream_options.map(|o| o.flag("include_usage")).transpose()?.flatten().unwrap_or(false);
        Ok(Self {
            model,
            messages,
            images,
            render,
            generation: generation::parse(&fields)?,
            stream,
            include_usage,
            return_progress: fields.flag("return_progress")?.unwrap_or(false),
            timings_per_token: fields.flag("timings_per_token")?.unwrap_or(false),
        })
    }
}

impl TemplateRequest {
    /// Reads the body of `/apply-template`.
    ///
    /// # Errors
    /// As [`ChatRequest::parse`].
    pub fn parse(body: &Value) -> Result<Self, RequestError> {
        let fields = Fields::of_body(body)?;
        refuse_unsupported(&fields)?;
        Self::from_fields(&fields)
    }

    fn from_fields(fields: &Fields) -> Result<Self, RequestError> {
        let mut images = Vec::new();
        let messages = messages(fields, &mut images)?;
        let ending = ending(fields, &messages)?;
        let variables = variables(fields)?;
        Ok(Self {
            model: model(fields)?,
            messages,
            images,
            render: RenderOptions { ending, variables, now: None },
        })
    }
}

impl TokenizeRequest {
    /// Reads the body of `/tokenize`.
    ///
    /// # Errors
    /// As [`ChatRequest::parse`].
    pub fn parse(body: &Value) -> Result<Self, RequestError> {
        let fields = Fields::of_body(body)?;
        let content = fields.text("content")?.ok_or_else(|| fields.missing("content", "a string"))?;
        Ok(Self {
            model: model(&fields)?,
            content: content.to_owned(),
            add_special: fields.flag("add_special")?.unwrap_or(false),
            parse_special: fields.flag("parse_special")?.unwrap_or(true),
            with_pieces: fields.flag("with_pieces")?.unwrap_or(false),
        })
    }
}

/// Reads the body of `/models/load` and `/models/unload`: the model's id.
///
/// # Errors
/// When it is missing, empty, or no string.
pub fn parse_model(body: &Value) -> Result<String, RequestError> {
    let fields = Fields::of_body(body)?;
    model(&fields)?.ok_or_else(|| fields.missing("model", "the id of a model"))
}

/// Reads the body of `/engine/forget`: the session.
///
/// # Errors
/// When it is missing, empty, too long, or no string.
pub fn parse_session(body: &Value) -> Result<String, RequestError> {
    let fields = Fields::of_body(body)?;
    generation::session(&fields, "session")?.ok_or_else(|| fields.missing("session", "the name of a session"))
}

fn model(fields: &Fields) -> Result<Option<String>, RequestError> {
    Ok(fields.text("model")?.map(str::trim).filter(|m| !m.is_empty()).map(ToOwned::to_owned))
}

/// What other servers offer and this one does not: ignoring it would give another answer than was asked for.
fn refuse_unsupported(fields: &Fields) -> Result<(), RequestError> {
    let refuse = |name: &str, why: &str| Err(RequestError::new(name, why));
    if fields.get("chat_template").is_some() {
        return refuse("chat_template", "is not taken from requests; the model's own is used");
    }
    for name in ["tools", "functions"] {
        if fields.list(name)?.is_some_and(|all| !all.is_empty()) {
            return refuse(name, "is not supported by this engine");
        }
    }
    if fields.whole("n", 1, i64::from(u32::MAX))?.is_some_and(|n| n > 1) {
        return refuse("n", "must be 1: this engine gives one answer per request");
    }
    if fields.flag("logprobs")? == Some(true) {
        return refuse("logprobs", "is not supported by this engine");
    }
    Ok(())
}

fn messages(fields: &Fields, images: &mut Vec<Image>) -> Result<Vec<PromptMessage>, RequestError> {
    let all = fields.list("messages")?.ok_or_else(|| fields.missing("messages", "a list of messages"))?;
    if all.is_empty() {
        return Err(RequestError::new("messages", "is empty; it must hold at least one message"));
    }
    if all.len() > MAX_MESSAGES {
        return Err(RequestError::new("messages", format!("holds more than {MAX_MESSAGES} messages")));
    }
    all.iter()
        .enumerate()
        .map(|(index, value)| message(&format!("messages[{index}]"), value, images))
        .collect()
}

fn message(path: &str, value: &Value, images: &mut Vec<Image>) -> Result<PromptMessage, RequestError> {
    let fields = Fields::nested(path.to_owned(), value)?;
    let roles = "system, developer, user, assistant or tool";
    let role = match fields.text("role")?.ok_or_else(|| fields.missing("role", roles))? {
        "system" | "developer" => PromptRole::System,
        "user" => PromptRole::User,
        "assistant" => PromptRole::Assistant,
        "tool" => PromptRole::Tool,
        _ => return Err(wrong(&fields.path("role"), roles, fields.get("role").unwrap_or(&Value::Null))),
    };
    let content = match fields.get("content") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => {
            let path = fields.path("content");
            let mut texts = Vec::with_capacity(parts.len());
            for (index, part) in parts.iter().enumerate() {
                texts.push(self::part(&format!("{path}[{index}]"), part, role, images)?);
            }
            texts.join("\n")
        }
        // An assistant's message may be without content (it called a tool).
        None if role == PromptRole::Assistant => String::new(),
        None => return Err(fields.missing("content", "a string or a list of text parts")),
        Some(other) => return Err(wrong(&fields.path("content"), "a string or a list of text parts", other)),
    };
    Ok(PromptMessage { role, content })
}

/// The text of one part of a message; an image is put aside and leaves its mark.
fn part<'a>(
    path: &str,
    part: &'a Value,
    role: PromptRole,
    images: &mut Vec<Image>,
) -> Result<&'a str, RequestError> {
    if let Value::String(text) = part {
        return Ok(text);
    }
    let fields = Fields::nested(path.to_owned(), part)?;
    match fields.text("type")? {
        Some("text" | "input_text" | "output_text") | None => {
            fields.text("text")?.ok_or_else(|| fields.missing("text", "a string"))
        }
        Some("image_url") if role != PromptRole::User => {
            Err(RequestError::new(path, "is an image; only messages of the user may hold one"))
        }
        Some("image_url") if images.len() >= images::MAX_IMAGES => Err(RequestError::new(
            path,
            format!("is one image too many; {} are possible", images::MAX_IMAGES),
        )),
        Some("image_url") => {
            images.push(images::part(&fields)?);
            Ok(images::mark())
        }
        Some(_) => Err(wrong(
            &fields.path("type"),
            "\"text\" or \"image_url\"",
            fields.get("type").unwrap_or(&Value::Null),
        )),
    }
}

fn ending(fields: &Fields, messages: &[PromptMessage]) -> Result<Ending, RequestError> {
    let is_assistant = |m: Option<&PromptMessage>| m.is_some_and(|m| m.role == PromptRole::Assistant);
    let ends_with_answer = is_assistant(messages.last());
    let asked = fields.flag("continue_final_message")?;
    let add = fields.flag("add_generation_prompt")?;
    if asked == Some(true) && !ends_with_answer {
        return Err(RequestError::new(
            "continue_final_message",
            "is true but the last message is not the assistant's",
        ));
    }
    if ends_with_answer && asked != Some(false) {
        if is_assistant(messages.iter().rev().nth(1)) {
            return Err(RequestError::new("messages", "must not end with two messages of the assistant"));
        }
        return Ok(Ending::Continue);
    }
    Ok(if add == Some(false) { Ending::Nothing } else { Ending::Answer })
}

fn variables(fields: &Fields) -> Result<Map<String, Value>, RequestError> {
    let mut out = fields.map("chat_template_kwargs")?.cloned().unwrap_or_default();
    match out.get("enable_thinking") {
        None | Some(Value::Bool(_)) => {}
        Some(other) => return Err(wrong("chat_template_kwargs.enable_thinking", "true or false", other)),
    }
    match fields.text("reasoning_effort")? {
        None => {}
        Some("none") => {
            out.insert("enable_thinking".to_owned(), Value::Bool(false));
        }
        Some(effort) => {
            out.insert("reasoning_effort".to_owned(), Value::from(effort));
        }
    }
    Ok(out)
}
