//! Prints one answer in the wanted form: as text while it comes, as events, or as one object.

use crate::chat::{Channel, GenEvent};
use crate::cli::args::{AskArgs, Think};
use crate::cli::out::{self, AnswerWriter, Progress, count};
use crate::cli::report::{self, Answer, Ending, Format, Place};
use crate::markdown::block::{Blocks, code_at};
use crate::text::{ShowStream, Shown};
use serde_json::json;
use std::io::{self, Write};
use std::time::Instant;

/// Milliseconds since then.
pub(super) fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

/// Everything that is printed about one answer, in the wanted form, and the answer as it grows.
pub(super) struct Printer {
    format: Format,
    pub(super) answer: Answer,
    pub(super) progress: Progress,
    entered: Instant,
    is_streamed: bool,
    wants_code: bool,
    text: AnswerWriter<io::Stdout>,
    /// For showing thinking on stderr.
    thinking: Option<ShowStream>,
    is_thinking: bool,
}

impl Printer {
    pub(super) fn new(args: &AskArgs, format: Format, entered: Instant) -> Self {
        Self {
            format,
            answer: Answer::default(),
            progress: Progress::new(args.quiet),
            entered,
            is_streamed: !args.no_stream && !args.code,
            wants_code: args.code,
            text: AnswerWriter::stdout(),
            thinking: (args.think == Some(Think::Show)).then(ShowStream::default),
            is_thinking: false,
        }
    }

    pub(super) fn event(&self, event: &serde_json::Value) -> io::Result<()> {
        if self.format == Format::Jsonl { report::line(event) } else { Ok(()) }
    }

    pub(super) fn delta(&mut self, channel: Channel, text: &str) -> io::Result<()> {
        self.progress.clear();
        let now = ms(self.entered);
        let metrics = &mut self.answer.metrics;
        metrics.first_token_ms.get_or_insert(now);
        metrics.last_token_ms = Some(now);
        match channel {
            Channel::Answer => {
                metrics.first_answer_ms.get_or_insert(now);
                self.answer.text.push_str(text);
                self.event(&report::event("delta", json!({ "text": text })))?;
                self.end_thinking();
                if self.format == Format::Text && self.is_streamed {
                    self.text.push(text)?;
                }
            }
            Channel::Thinking => {
                self.answer.thinking.push_str(text);
                self.event(&report::event("thinking", json!({ "text": text })))?;
                if let Some(show) = &mut self.thinking {
                    let mut safe = Shown::default();
                    show.push(text, &mut safe);
                    let _ = io::stderr().write_all(safe.as_bytes());
                    self.is_thinking = true;
                }
            }
        }
        Ok(())
    }

    pub(super) fn end_thinking(&mut self) {
        if std::mem::take(&mut self.is_thinking) {
            let _ = io::stderr().write_all(b"\n\n");
        }
    }

    pub(super) fn state(&mut self, event: &GenEvent) -> io::Result<()> {
        match event {
            GenEvent::Accepted => {
                let now = ms(self.entered);
                self.answer.metrics.headers_ms.get_or_insert(now);
                Ok(())
            }
            GenEvent::Queued { ahead } => {
                self.progress.set(&format!("waiting behind {ahead}"));
                Ok(())
            }
            GenEvent::Loading { fraction } => {
                self.progress.set(&format!("loading {:.0} %", fraction * 100.0));
                self.event(&report::event("load", json!({ "fraction": fraction })))
            }
            GenEvent::Prefill { done, total, cached } => {
                self.progress.set(&format!("prefill {}/{}", count(*done), count(*total)));
                let fields = json!({ "done": done, "total": total, "cached": cached });
                self.event(&report::event("prefill", fields))
            }
            GenEvent::Produced { tokens } => {
                self.answer.metrics.usage.output_tokens = Some(*tokens);
                Ok(())
            }
            GenEvent::Usage(usage) => {
                self.answer.metrics.usage = *usage;
                let fields = json!({
                    "prompt_tokens": usage.prompt_tokens,
                    "cached_tokens": usage.cached_tokens,
                    "output_tokens": usage.output_tokens,
                });
                self.event(&report::event("usage", fields))
            }
            GenEvent::Note(note) => {
                self.progress.clear();
                let words = note.words();
                if self.format == Format::Text {
                    self.end_thinking();
                    out::note(&words);
                }
                let mut fields = serde_json::to_value(note).unwrap_or_default();
                if let Some(fields) = fields.as_object_mut() {
                    fields.insert("text".to_owned(), words.into());
                }
                self.event(&report::event("note", fields))
            }
            GenEvent::Delta { .. } | GenEvent::Done { .. } | GenEvent::Failed(_) => Ok(()),
        }
    }

    pub(super) fn has_code(&self) -> bool {
        last_code(&self.answer.text).is_some()
    }

    /// Prints what is printed at the end.
    pub(super) fn finish(&mut self, place: &Place<'_>) -> io::Result<()> {
        self.end_thinking();
        match self.format {
            Format::Json => report::line(&report::object(place, &self.answer)),
            Format::Jsonl => {
                if let Some(Ending::Failed(error)) = &self.answer.finish {
                    report::line(&report::error_event(error))?;
                }
                report::line(&report::event("end", report::answer_object(&self.answer)))
            }
            Format::Text => {
                if self.wants_code {
                    if let Some(code) = last_code(&self.answer.text) {
                        self.text.push(&code)?;
                    }
                } else if !self.is_streamed {
                    self.text.push(&self.answer.text)?;
                }
                self.text.finish()
            }
        }
    }
}

fn last_code(answer: &str) -> Option<String> {
    let mut blocks = Blocks::default();
    blocks.update(answer);
    blocks.finish(answer);
    code_at(answer, blocks.code_count().checked_sub(1)?)
}
