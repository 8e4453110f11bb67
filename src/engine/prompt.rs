//! Rendered chat to tokens.

use super::template::{Parse, Segment};
use llama_cpp_2::model::LlamaModel;

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
