//! The stream of an answer: bytes to events, however the server cuts it.

use super::Patience;
use crate::backend::decode::Decoder;
use crate::backend::ndjson::LineDecoder;
use crate::backend::sse::{SseDecoder, SseItem, TooLarge};
use crate::chat::GenEvent;
use reqwest::Response;

/// An answer that is coming.
pub(super) struct Body {
    pub(super) response: Response,
    pub(super) framing: Framing,
    pub(super) decoder: Decoder,
    pub(super) patience: Patience,
    pub(super) began_ms: u64,
}

/// How a stream is cut into events.
pub(super) enum Framing {
    /// Server-sent events.
    Events(SseDecoder),
    /// JSON lines; whether the model had to be loaded for them.
    Lines { lines: LineDecoder, was_cold: bool },
}

impl Body {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// When one event is too large.
    pub(super) fn push(&mut self, bytes: &[u8], out: &mut Vec<GenEvent>) -> Result<(), TooLarge> {
        match &mut self.framing {
            Framing::Events(sse) => {
                let mut items = Vec::new();
                let pushed = sse.push(bytes, &mut items);
                self.events(items, out);
                pushed
            }
            Framing::Lines { lines, was_cold } => {
                let (mut found, was_cold) = (Vec::new(), *was_cold);
                let pushed = lines.push(bytes, &mut found);
                found.iter().for_each(|line| self.decoder.line(line, was_cold, out));
                pushed
            }
        }
    }

    /// The stream has ended.
    pub(super) fn finish(&mut self, out: &mut Vec<GenEvent>) {
        match &mut self.framing {
            Framing::Events(sse) => {
                let mut items = Vec::new();
                sse.finish(&mut items);
                self.events(items, out);
            }
            Framing::Lines { lines, was_cold } => {
                let (mut found, was_cold) = (Vec::new(), *was_cold);
                lines.finish(&mut found);
                found.iter().for_each(|line| self.decoder.line(line, was_cold, out));
            }
        }
    }

    fn events(&mut self, items: Vec<SseItem>, out: &mut Vec<GenEvent>) {
        for item in items {
            match item {
                SseItem::Event { name, data } => self.decoder.event(&name, &data, out),
                SseItem::Comment(text) => self.decoder.comment(&text, out),
            }
        }
    }
}
