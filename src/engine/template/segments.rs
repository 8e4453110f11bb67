//! Keeping what people wrote apart from what the template wrote, so that a special token's name in a
//! message stays text (`<|im_end|>` typed by a person must not end the turn).
//!
//! The rule: a message that contains no special token's text can't do harm, so it is left in the
//! template's text and tokenised with it, exactly as other servers do. A message that contains one is cut
//! out: the conversation is rendered twice, once as it is and once with a private mark instead of such
//! messages, and where the two agree the text behind the mark becomes a segment of its own, tokenised
//! with special tokens off. Where they do not agree, because the template changed the message, it is
//! rendered a third time with a private mark inside each special text, and the result is cut at the
//! marks: the pieces together are the same text, and none of them contains the special text whole.

use super::{Parse, PromptMessage, PromptRole, Segment};
use std::collections::HashSet;

/// Texts that llama.cpp takes for control tokens by their name, whatever the file says.
const KNOWN_SPECIALS: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|im_start|>",
    "<|end|>",
    "<end_of_turn>",
    "<start_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "<｜end▁of▁sentence｜>",
    "<end_of_utterance>",
    "<|eom_id|>",
    "<|fim_prefix|>",
    "<|fim_suffix|>",
    "<|fim_middle|>",
    "<|fim_pad|>",
    "<|fim_repo|>",
    "<|repo_name|>",
    "<|file_sep|>",
    "<s>",
    "</s>",
    "[INST]",
    "[/INST]",
];
/// Tags that templates look for in what the model wrote before; taken apart they would not be found.
const THINKING: &[&str] = &["<think>", "</think>", "[THINK]", "[/THINK]", "<seed:think>", "</seed:think>"];

/// The texts of special tokens, for finding them.
#[derive(Clone, Debug, Default)]
pub(super) struct Specials {
    texts: HashSet<String>,
    /// Lengths in bytes that occur, ascending.
    lengths: Vec<usize>,
    first: HashSet<u8>,
}

impl Specials {
    pub(super) fn new(of_model: &[String]) -> Self {
        let known = KNOWN_SPECIALS.iter().map(|s| (*s).to_owned());
        // A single character can't be taken apart, and as a special token it would be a mistake of the file.
        let texts: HashSet<String> =
            of_model.iter().cloned().chain(known).filter(|t| t.chars().nth(1).is_some()).collect();
        let mut lengths: Vec<usize> = texts.iter().map(String::len).collect();
        lengths.sort_unstable();
        lengths.dedup();
        let first = texts.iter().filter_map(|t| t.bytes().next()).collect();
        Self { texts, lengths, first }
    }

    /// Byte offsets where a special text begins.
    fn places<'a>(&'a self, text: &'a str, role: PromptRole) -> impl Iterator<Item = usize> + 'a {
        let is_special = move |at: usize| {
            self.lengths.iter().any(|len| {
                text.get(at..at + len).is_some_and(|part| {
                    self.texts.contains(part) && !(role == PromptRole::Assistant && THINKING.contains(&part))
                })
            })
        };
        text.bytes()
            .enumerate()
            .filter(|(_, byte)| self.first.contains(byte))
            .map(|(at, _)| at)
            .filter(move |at| is_special(*at))
    }

    pub(super) fn any_in(&self, message: &PromptMessage) -> bool {
        self.places(&message.content, message.role).next().is_some()
    }

    /// The message with `mark` after the first character of each special text.
    pub(super) fn broken(&self, message: &PromptMessage, mark: char) -> PromptMessage {
        let text = message.content.as_str();
        let mut out = String::with_capacity(text.len() + 16);
        let mut from = 0;
        for at in self.places(text, message.role) {
            let cut = at + text.get(at..).and_then(|t| t.chars().next()).map_or(0, char::len_utf8);
            out.push_str(text.get(from..cut).unwrap_or_default());
            out.push(mark);
            from = cut;
        }
        out.push_str(text.get(from..).unwrap_or_default());
        PromptMessage { role: message.role, content: out }
    }
}

/// Two private characters that occur in none of the texts.
pub(super) fn free_marks<'a>(texts: impl Iterator<Item = &'a str> + Clone) -> Option<[char; 2]> {
    let mut used = HashSet::new();
    for text in texts {
        used.extend(text.chars().filter(|c| matches!(c, '\u{e000}'..='\u{f8ff}' | '\u{f0000}'..)));
    }
    let mut free = ('\u{e000}'..='\u{f8ff}').chain('\u{f0000}'..='\u{ffffd}').filter(|c| !used.contains(c));
    Some([free.next()?, free.next()?])
}

/// What stands for message `index` in the second rendering.
pub(super) fn mark_of(index: usize, mark: char) -> String {
    format!("{mark}{index}{mark}")
}

/// Cuts `plain` into segments by its likeness `marked`, in which some messages are marks. None when
/// they do not agree.
pub(super) fn align(
    plain: &str,
    marked: &str,
    mark: char,
    messages: &[PromptMessage],
) -> Option<Vec<Segment>> {
    // Text and marks alternate: text, index, text, index, text.
    let parts: Vec<&str> = marked.split(mark).collect();
    if parts.len().is_multiple_of(2) {
        return None;
    }
    let mut out = Vec::new();
    let mut rest = plain.strip_prefix(*parts.first()?)?;
    push(&mut out, parts.first()?, Parse::Special);
    let pairs = parts.len() / 2;
    for (number, pair) in parts.get(1..)?.chunks(2).enumerate() {
        let [index, after] = pair else { return None };
        let content = &messages.get(index.parse::<usize>().ok()?)?.content;
        // The last text must reach to the end; otherwise a shorter variant could fit by chance.
        let is_last = number + 1 == pairs;
        let fits = |variant: &&str| {
            let tail = rest.strip_prefix(*variant);
            tail.is_some_and(|tail| if is_last { tail == *after } else { tail.starts_with(after) })
        };
        let variant = variants(content).into_iter().find(fits)?;
        push(&mut out, variant, Parse::Text);
        push(&mut out, after, Parse::Special);
        rest = rest.strip_prefix(variant)?.strip_prefix(*after)?;
    }
    rest.is_empty().then_some(out)
}

/// What templates make of a message: nothing, trimming, or leaving out the thinking before the answer.
fn variants(content: &str) -> Vec<&str> {
    let mut out = vec![content, content.trim(), content.trim_start(), content.trim_end()];
    for close in THINKING.iter().filter(|t| t.contains('/')) {
        if let Some((_, answer)) = content.rsplit_once(close) {
            out.extend([answer, answer.trim_start_matches('\n'), answer.trim()]);
        }
    }
    out
}

/// Cuts a text that contains marks inside special texts; the marks go.
pub(super) fn cut_at_marks(text: &str, mark: char) -> Vec<Segment> {
    let mut out = Vec::new();
    for piece in text.split(mark).filter(|piece| !piece.is_empty()) {
        // Kept apart on purpose: joined, two pieces may be a special text.
        out.push(Segment { text: piece.to_owned(), parse: Parse::Special });
    }
    out
}

fn push(out: &mut Vec<Segment>, text: &str, parse: Parse) {
    if !text.is_empty() {
        out.push(Segment { text: text.to_owned(), parse });
    }
}
