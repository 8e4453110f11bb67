//! Rendered chat to tokens.

use super::template::{Parse, Segment};
use llama_cpp_2::model::LlamaModel;

/// The same in pieces, cut wherever `mark` stands; the mark itself is left out.
#[cfg(feature = "mtmd")]
#[must_use]
pub fn tokenize_around(model: &LlamaModel, segments: &[Segment], mark: &str) -> Vec<Vec<i32>> {
    let mut pieces: Vec<Vec<Segment>> = vec![Vec::new()];
    for segment in segments {
        for (index, text) in segment.text.split(mark).enumerate() {
            if index > 0 {
                pieces.push(Vec::new());
            }
            if let Some(piece) = pieces.last_mut().filter(|_| !text.is_empty()) {
                piece.push(Segment { text: text.to_owned(), parse: segment.parse });
            }
        }
    }
    let mut out = Vec::with_capacity(pieces.len());
    for (index, piece) in pieces.iter().enumerate() {
        let mut ids = tokenize(model, piece);
        // Only the whole begins with the token that begins a text.
        let bos = model.vocab().bos().0;
        if index > 0 && model.vocab().should_add_bos() && ids.first() == Some(&bos) {
            ids.remove(0);
        }
        out.push(ids);
    }
    out
}

/// Tokens of a rendered chat, segment by segment: the template's own markers become special tokens, text
/// of the user or of a file never does. A beginning-of-text token is added where the model wants one and
/// the template has not written it already.
#[must_use]
pub fn tokenize(model: &LlamaModel, segments: &[Segment]) -> Vec<i32> {
    let vocab = model.vocab();
    let mut ids = Vec::new();
    for (i, segment) in segments.iter().enumerate() {
        let tokens = vocab.tokenize(segment.text.as_bytes(), i == 0, segment.parse == Parse::Special);
        ids.extend(tokens.iter().map(|t| t.0));
    }
    let bos = vocab.bos().0;
    if vocab.should_add_bos() && ids.first() == Some(&bos) && ids.get(1) == Some(&bos) {
        ids.remove(0);
    }
    ids
}
