//! What goes into a template and what comes out.

/// Who says a message, as templates know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PromptRole {
    /// The system prompt.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// The result of a tool.
    Tool,
}

impl PromptRole {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

/// One message as it goes into a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromptMessage {
    /// Who says it.
    pub role: PromptRole,
    /// What.
    pub content: String,
}

/// How a prompt ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ending {
    /// With the beginning of the model's turn.
    #[default]
    Answer,
    /// Inside the last message, which is the model's and is to go on.
    Continue,
    /// After the last message.
    Nothing,
}

/// What a rendering depends on beside the messages.
#[derive(Clone, Debug, Default)]
pub struct RenderOptions {
    /// How the prompt ends.
    pub ending: Ending,
    /// Further variables of the template, such as `enable_thinking`.
    pub variables: serde_json::Map<String, serde_json::Value>,
    /// The moment for templates that state the date; none: now.
    pub now: Option<jiff::Zoned>,
}

/// Whether special tokens are looked for in a piece of the prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Parse {
    /// Their names become the tokens.
    Special,
    /// Their names stay text.
    Text,
}

/// A piece of the prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The text.
    pub text: String,
    /// How to tokenise it.
    pub parse: Parse,
}

/// A rendered prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// The whole text.
    pub text: String,
    /// The same text in pieces, to be tokenised one by one and never joined. Mostly a single one.
    pub segments: Vec<Segment>,
    /// Whether the model goes on inside its thinking.
    pub is_thinking: bool,
}

/// What went wrong with a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TemplateErrorKind {
    /// It can't be compiled.
    Syntax,
    /// It ran too long or wrote too much.
    Runaway,
    /// It refused this conversation itself.
    Refused,
    /// It failed while it ran.
    Failed,
    /// It left out the text that is to be continued.
    Dropped,
}

/// A template that can't be used, or not for this conversation. Two lines: what, and the next step.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the chat template of {model} {what}\n{next}")]
pub struct TemplateError {
    /// What went wrong.
    pub kind: TemplateErrorKind,
    /// The model's name, safe to show.
    pub model: String,
    /// One line, safe to show.
    pub what: String,
    /// The next step.
    pub next: &'static str,
}
