//! Chat templates: from a conversation to the text the model reads, by the Jinja template in the model.
//!
//! Templates are foreign programs. They run without file access, with bounded fuel and bounded output,
//! and a failing one is an error that names the model.

mod python;
mod segments;

#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;

use super::gguf::{ModelInfo, plain};
use super::think::Tags;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment, ErrorKind};
use segments::Specials;
use std::collections::BTreeMap;
use std::io::Write;

const NAME: &str = "chat";
const MAX_SOURCE: usize = 256 << 10;
/// Compiling a tag takes time that grows with the square of its length, and nothing bounds that but this:
/// the sum of the squares of the lengths, outside of strings, of all tags that are long.
const MAX_SQUARES: usize = (8 << 10) * (8 << 10);
const LONG_TAG: usize = 512;
/// Steps one rendering may take, and what each byte of the conversation adds (one step pays for 64 bytes).
const FUEL: u64 = 1_000_000;
/// Bytes of stack for compiling and rendering.
const STACK: usize = 512 << 20;
const MAX_OUTPUT: usize = 64 << 10;

/// The template used when a model has none.
const CHATML: &str = "{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}";

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
    fn name(self) -> &'static str {
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

/// Where a system prompt goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SystemPlace {
    /// The template has a place for it.
    Own,
    /// Before the first message of the person.
    FirstUser,
}

/// A compiled template with the model's tokens.
#[derive(Debug)]
pub struct Template {
    model: String,
    env: Environment<'static>,
    source: String,
    bos: String,
    eos: String,
    specials: Specials,
    system: SystemPlace,
    tags: Tags,
    warnings: Vec<String>,
}

impl Template {
    /// The template of a model; ChatML, with a warning, when the model has none.
    ///
    /// # Errors
    /// When it doesn't compile, or can't render a single question.
    pub fn of(name: &str, info: &ModelInfo) -> Result<Self, TemplateError> {
        let source = info.chat_template.as_deref().filter(|source| !source.trim().is_empty());
        let mut template = Self::compile(
            name,
            source.unwrap_or(CHATML),
            &info.bos_token,
            &info.eos_token,
            &info.special_tokens,
        )?;
        if source.is_none() {
            template.warnings.insert(
                0,
                "the model has no chat template: ChatML is used, which it may not understand".to_owned(),
            );
        }
        Ok(template)
    }

    /// Compiles a template and tries it out with marked messages.
    ///
    /// # Errors
    /// When it doesn't compile, or can't render a single question.
    pub fn compile(
        model: &str,
        source: &str,
        bos: &str,
        eos: &str,
        specials: &[String],
    ) -> Result<Self, TemplateError> {
        let model = plain(model, 80);
        if source.len() > MAX_SOURCE {
            return Err(TemplateError {
                kind: TemplateErrorKind::Syntax,
                model,
                what: format!("is {} bytes long; at most {MAX_SOURCE} are compiled", source.len()),
                next: ANOTHER_MODEL,
            });
        }
        if let Some(line) = overlong_tag(source) {
            return Err(TemplateError {
                kind: TemplateErrorKind::Syntax,
                model,
                what: format!("has tags too long to compile, up to line {line}"),
                next: ANOTHER_MODEL,
            });
        }
        let source = python::without_generation_tags(source);
        let env = on_large_stack(&model, || environment(&source).map_err(|error| explain(&model, &error)))?;
        let mut template = Self {
            tags: Tags::of_template(&source),
            model,
            env,
            source,
            bos: bos.to_owned(),
            eos: eos.to_owned(),
            specials: Specials::new(specials),
            system: SystemPlace::Own,
            warnings: Vec::new(),
        };
        template.try_out()?;
        Ok(template)
    }

    /// What the try-out found odd, one line each.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The tags the model puts around its thinking.
    #[must_use]
    pub fn tags(&self) -> Tags {
        self.tags
    }

    /// The template's text.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Renders a conversation.
    ///
    /// # Errors
    /// When the template fails, refuses, runs away, or drops the text to be continued.
    pub fn render(
        &self,
        messages: &[PromptMessage],
        options: &RenderOptions,
    ) -> Result<Prompt, TemplateError> {
        let merged;
        let messages = if self.system == SystemPlace::FirstUser {
            merged = into_first_user(messages);
            merged.as_slice()
        } else {
            messages
        };
        let limits = Limits::of(messages, options);
        let texts = messages.iter().map(|m| m.content.as_str()).chain([self.source.as_str()]);
        let Some([mark, tail]) = segments::free_marks(texts) else {
            return Err(
                self.error(TemplateErrorKind::Failed, "gets a text that uses every private character")
            );
        };
        let tail = (options.ending == Ending::Continue).then_some(tail);
        let text = self.run(messages, options, tail, limits)?;
        let segments = self.segments(messages, options, &text, (mark, tail), limits)?;
        let is_thinking = match options.ending {
            Ending::Answer => self.tags.is_opened_by(&text),
            Ending::Continue => messages.last().is_some_and(|last| self.tags.is_open_in(&last.content)),
            Ending::Nothing => false,
        };
        Ok(Prompt { text, segments, is_thinking })
    }

    fn segments(
        &self,
        messages: &[PromptMessage],
        options: &RenderOptions,
        text: &str,
        (mark, tail): (char, Option<char>),
        limits: Limits,
    ) -> Result<Vec<Segment>, TemplateError> {
        let suspicious: Vec<bool> = messages.iter().map(|m| self.specials.any_in(m)).collect();
        if !suspicious.contains(&true) {
            return Ok(vec![Segment { text: text.to_owned(), parse: Parse::Special }]);
        }
        let marked: Vec<PromptMessage> = messages
            .iter()
            .zip(&suspicious)
            .enumerate()
            .map(|(index, (message, is_suspicious))| match is_suspicious {
                true => PromptMessage { role: message.role, content: segments::mark_of(index, mark) },
                false => message.clone(),
            })
            .collect();
        // A template may refuse the marks although it takes the messages.
        if let Ok(marked) = self.run(&marked, options, tail, limits)
            && let Some(segments) = segments::align(text, &marked, mark, messages)
        {
            return Ok(segments);
        }
        let broken: Vec<PromptMessage> = messages.iter().map(|m| self.specials.broken(m, mark)).collect();
        Ok(segments::cut_at_marks(&self.run(&broken, options, tail, limits)?, mark))
    }

    /// Renders once. With a tail, that character is put behind the last message, and the result ends there.
    fn run(
        &self,
        messages: &[PromptMessage],
        options: &RenderOptions,
        tail: Option<char>,
        limits: Limits,
    ) -> Result<String, TemplateError> {
        let last = messages.len().saturating_sub(1);
        let messages: Vec<Value> = messages
            .iter()
            .enumerate()
            .map(|(index, message)| {
                let mut content = message.content.clone();
                content.extend(tail.filter(|_| index == last));
                let fields = [("role", Value::from(message.role.name())), ("content", Value::from(content))];
                Value::from_pairs(fields)
            })
            .collect();
        let mut context: BTreeMap<String, Value> =
            options.variables.iter().map(|(k, v)| (k.clone(), Value::from(Serde(v)))).collect();
        let own = [
            ("messages", Value::from(messages)),
            ("add_generation_prompt", Value::from(options.ending == Ending::Answer)),
            ("bos_token", Value::from(self.bos.as_str())),
            ("eos_token", Value::from(self.eos.as_str())),
            ("strftime_now", python::strftime_at(options.now.clone().unwrap_or_else(jiff::Zoned::now))),
        ];
        context.extend(own.map(|(name, value)| (name.to_owned(), value)));
        for name in ["tools", "documents"] {
            context.entry(name.to_owned()).or_insert(Value::from(()));
        }
        let mut env = self.env.clone();
        env.set_fuel(Some(limits.fuel));
        let bytes = on_large_stack(&self.model, move || {
            let mut out = Capped { bytes: Vec::new(), left: limits.output, is_over: false };
            let result = env
                .get_template(NAME)
                .and_then(|template| template.render_captured_to(Value::from(context), &mut out).map(drop));
            if out.is_over {
                return Err(self.error(
                    TemplateErrorKind::Runaway,
                    format!("wrote more than {} bytes for this conversation", limits.output),
                ));
            }
            result.map_err(|error| explain(&self.model, &error))?;
            Ok(out.bytes)
        })?;
        let mut text = String::from_utf8(bytes)
            .map_err(|_| self.error(TemplateErrorKind::Failed, "wrote something that is not text"))?;
        if let Some(tail) = tail {
            let Some(end) = text.rfind(tail) else {
                return Err(
                    self.error(TemplateErrorKind::Dropped, "leaves out the answer that is to be continued")
                );
            };
            text.truncate(end);
            // The text may be there more than once.
            text.retain(|c| c != tail);
        }
        Ok(text)
    }

    fn error(&self, kind: TemplateErrorKind, what: impl Into<String>) -> TemplateError {
        TemplateError { kind, model: self.model.clone(), what: what.into(), next: next_step(kind) }
    }

    /// Renders a conversation of marked texts and looks for what is lost or out of order.
    fn try_out(&mut self) -> Result<(), TemplateError> {
        const TEXTS: [&str; 4] = ["qsystemq", "qfirstq", "qanswerq", "qsecondq"];
        let message = |role, content: &str| PromptMessage { role, content: content.to_owned() };
        let [system, first, answer, second] = TEXTS;
        let whole = [
            message(PromptRole::System, system),
            message(PromptRole::User, first),
            message(PromptRole::Assistant, answer),
            message(PromptRole::User, second),
        ];
        let options = RenderOptions::default();
        let alone = self.render(&whole[1..2], &options)?;
        if !alone.text.contains(first) {
            return Err(self.error(TemplateErrorKind::Dropped, "leaves out what the person says"));
        }
        let with_system = self.render(&whole[..2], &options);
        if !with_system.as_ref().is_ok_and(|p| p.text.contains(system) && p.text.contains(first)) {
            self.system = SystemPlace::FirstUser;
            self.warnings.push(
                "the chat template has no place for a system prompt: it is put before the first question"
                    .to_owned(),
            );
        }
        match self.render(&whole, &options) {
            Err(error) => {
                self.warnings.push(format!("the chat template fails in a second turn: it {}", error.what));
            }
            Ok(prompt) => {
                let places: Vec<Option<usize>> = TEXTS.iter().map(|t| prompt.text.find(t)).collect();
                let lost: Vec<&str> =
                    ["the system prompt", "the first question", "the first answer", "the second question"]
                        .into_iter()
                        .zip(&places)
                        .filter(|(_, place)| place.is_none())
                        .map(|(name, _)| name)
                        .collect();
                if !lost.is_empty() {
                    self.warnings
                        .push(format!("the chat template loses {} in a second turn", lost.join(", ")));
                } else if !places.get(1..).is_some_and(<[_]>::is_sorted) {
                    self.warnings.push("the chat template changes the order of the messages".to_owned());
                }
            }
        }
        Ok(())
    }
}

const ANOTHER_MODEL: &str = "use another GGUF file of this model, with a working chat template";

fn next_step(kind: TemplateErrorKind) -> &'static str {
    match kind {
        TemplateErrorKind::Syntax | TemplateErrorKind::Runaway | TemplateErrorKind::Failed => ANOTHER_MODEL,
        TemplateErrorKind::Refused => "change the conversation as it says, or use another model",
        TemplateErrorKind::Dropped => "ask anew instead of continuing, or use another model",
    }
}

/// The line where the tags so far are too long together.
fn overlong_tag(source: &str) -> Option<usize> {
    let bytes = source.as_bytes();
    let (mut at, mut line, mut squares) = (0, 1, 0_usize);
    while let Some(pair) = bytes.get(at..at + 2) {
        line += usize::from(pair.first() == Some(&b'\n'));
        match pair {
            b"{#" => {
                let rest = source.get(at..).unwrap_or_default();
                let len = rest.find("#}").unwrap_or(rest.len());
                line += rest.get(..len).unwrap_or_default().matches('\n').count();
                at += len.max(1);
            }
            b"{{" | b"{%" => {
                let (mut code, mut quote) = (0, None);
                at += 2;
                while let Some(byte) = bytes.get(at) {
                    line += usize::from(*byte == b'\n');
                    match (quote, byte) {
                        (Some(_), b'\\') => at += 1,
                        (Some(open), byte) if open == *byte => quote = None,
                        (Some(_), _) => {}
                        (None, b'"' | b'\'') => {
                            quote = Some(*byte);
                            code += 2;
                        }
                        (None, b'}') if matches!(bytes.get(at - 1), Some(b'}' | b'%')) => break,
                        (None, _) => code += 1,
                    }
                    at += 1;
                }
                if code > LONG_TAG {
                    squares = squares.saturating_add(code * code);
                }
                if squares > MAX_SQUARES {
                    return Some(line);
                }
            }
            _ => at += 1,
        }
    }
    None
}

/// What one rendering may use, from the size of the conversation.
#[derive(Clone, Copy)]
struct Limits {
    fuel: u64,
    output: usize,
}

impl Limits {
    fn of(messages: &[PromptMessage], options: &RenderOptions) -> Self {
        let variables: usize = options.variables.values().map(json_size).sum();
        // The role and what stands around a message count as some words of it.
        let input = messages.iter().map(|m| m.content.len() + 64).sum::<usize>().saturating_add(variables);
        Self {
            // A long conversation takes more steps than a short one, whatever the template.
            fuel: FUEL + 200 * messages.len() as u64 + input as u64 / 4,
            output: input.saturating_mul(4).saturating_add(MAX_OUTPUT),
        }
    }
}

fn json_size(value: &serde_json::Value) -> usize {
    match value {
        serde_json::Value::String(s) => s.len(),
        serde_json::Value::Array(all) => all.iter().map(json_size).sum::<usize>() + 2 * all.len(),
        serde_json::Value::Object(all) => all.iter().map(|(k, v)| k.len() + json_size(v) + 4).sum(),
        _ => 8,
    }
}

/// Takes bytes until there are too many.
struct Capped {
    bytes: Vec<u8>,
    left: usize,
    is_over: bool,
}

impl Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let Some(left) = self.left.checked_sub(bytes.len()) else {
            self.is_over = true;
            return Err(std::io::ErrorKind::WriteZero.into());
        };
        self.left = left;
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Runs foreign code on a thread of its own with a stack that the deepest nesting of a template of the
/// largest size fits into; an overflow would end the process. The pages are taken only when used.
fn on_large_stack<T: Send>(
    model: &str,
    work: impl FnOnce() -> Result<T, TemplateError> + Send,
) -> Result<T, TemplateError> {
    let failed = |what: &str| TemplateError {
        kind: TemplateErrorKind::Failed,
        model: model.to_owned(),
        what: what.to_owned(),
        next: ANOTHER_MODEL,
    };
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("template".to_owned())
            .stack_size(STACK)
            .spawn_scoped(scope, work)
            .map_err(|error| failed(&format!("can't be run: no thread: {error}")))?
            .join()
            .unwrap_or_else(|_| Err(failed("can't be run: the template engine panicked")))
    })
}

fn environment(source: &str) -> Result<Environment<'static>, minijinja::Error> {
    let mut env = Environment::new();
    env.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_recursion_limit(100);
    env.set_fuel(Some(FUEL));
    env.set_debug(false);
    python::add_to(&mut env);
    env.add_template_owned(NAME, source.to_owned())?;
    Ok(env)
}

/// The system prompt joined to the first message of the person; a message of its own when there is none.
fn into_first_user(messages: &[PromptMessage]) -> Vec<PromptMessage> {
    let is_system = |m: &&PromptMessage| m.role == PromptRole::System;
    let system: Vec<&str> = messages.iter().filter(is_system).map(|m| m.content.as_str()).collect();
    let mut rest: Vec<PromptMessage> = messages.iter().filter(|m| !is_system(m)).cloned().collect();
    if system.is_empty() {
        return rest;
    }
    let system = system.join("\n\n");
    match rest.iter_mut().find(|m| m.role == PromptRole::User) {
        Some(first) => first.content = format!("{system}\n\n{}", first.content),
        None => rest.insert(0, PromptMessage { role: PromptRole::User, content: system }),
    }
    rest
}

fn explain(model: &str, error: &minijinja::Error) -> TemplateError {
    let mut source = std::error::Error::source(error);
    let raised = std::iter::from_fn(|| {
        let current = source?;
        source = current.source();
        Some(current)
    })
    .find_map(|cause| cause.downcast_ref::<python::Raised>());
    let (kind, what) = match (raised, error.kind()) {
        (Some(raised), _) => {
            (TemplateErrorKind::Refused, format!("refuses this conversation: {}", plain(&raised.0, 200)))
        }
        (None, ErrorKind::OutOfFuel) => (TemplateErrorKind::Runaway, "runs for too long".to_owned()),
        (None, kind) => {
            let line = error.line().map(|line| format!(" at line {line}")).unwrap_or_default();
            let detail = error.detail().map(|d| format!(": {}", plain(d, 200))).unwrap_or_default();
            let (ours, verb) = match kind {
                ErrorKind::SyntaxError => (TemplateErrorKind::Syntax, "can't be compiled"),
                _ => (TemplateErrorKind::Failed, "fails"),
            };
            (ours, format!("{verb}{line}: {kind}{detail}"))
        }
    };
    TemplateError { kind, model: model.to_owned(), what, next: next_step(kind) }
}
