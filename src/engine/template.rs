//! Chat templates: from a conversation to the text the model reads, by the Jinja template in the model.
//!
//! Templates are foreign programs. They run without file access, with bounded fuel and bounded output,
//! and a failing one is an error that names the model.

mod prompt;
mod python;
mod sandbox;
mod segments;

#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;

pub use prompt::{
    Ending, Parse, Prompt, PromptMessage, PromptRole, RenderOptions, Segment, TemplateError,
    TemplateErrorKind,
};

use super::gguf::{ModelInfo, plain};
use super::think::Tags;
use minijinja::Environment;
use minijinja::value::{Serde, Value};
use sandbox::Limits;
use segments::Specials;
use std::collections::BTreeMap;

const MAX_SOURCE: usize = 256 << 10;
/// The template used when a model has none.
const CHATML: &str = "{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}";

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
        if let Some(line) = sandbox::overlong_tag(source) {
            return Err(TemplateError {
                kind: TemplateErrorKind::Syntax,
                model,
                what: format!("has tags too long to compile, up to line {line}"),
                next: ANOTHER_MODEL,
            });
        }
        let source = python::without_generation_tags(source);
        let env = sandbox::compile(&model, &source)?;
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
        let bytes = sandbox::render(&self.model, self.env.clone(), Value::from(context), limits)?;
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
