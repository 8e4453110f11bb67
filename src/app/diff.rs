//! How the code of two answers differs: their blocks side by side by position, line by line.

use super::turn::Lane;
use crate::markdown::block::code_at;
use similar::{ChangeTag, TextDiff};

/// Unchanged lines shown around a change.
const CONTEXT: usize = 2;

/// One line of a difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiffLine {
    /// A heading: which blocks are compared.
    Head(String),
    /// In both.
    Same(String),
    /// In the first one only.
    Gone(String),
    /// In the second one only.
    New(String),
}

/// How the code blocks of one lane differ from another's. Empty where neither has code.
#[must_use]
pub fn code_diffs(first: &Lane, second: &Lane) -> Vec<DiffLine> {
    let (a, b) = (first.text(), second.text());
    let count = first.code_count().max(second.code_count());
    let mut lines = Vec::new();
    for index in 0..count {
        let (left, right) = (code_at(&a, index), code_at(&b, index));
        let numbers = (first.first_code() + index, second.first_code() + index);
        match (left, right) {
            (Some(left), Some(right)) if left.trim_end() == right.trim_end() => {
                lines.push(DiffLine::Head(format!("[{}] and [{}] are the same", numbers.0, numbers.1)));
            }
            (Some(left), Some(right)) => {
                lines.push(DiffLine::Head(format!("[{}] → [{}]", numbers.0, numbers.1)));
                lines.extend(changes(&left, &right));
            }
            (Some(_), None) => {
                lines.push(DiffLine::Head(format!("[{}] is in the first answer only", numbers.0)));
            }
            (None, Some(_)) => {
                lines.push(DiffLine::Head(format!("[{}] is in the second answer only", numbers.1)));
            }
            (None, None) => {}
        }
    }
    lines
}

fn changes(left: &str, right: &str) -> Vec<DiffLine> {
    let diff = TextDiff::from_lines(left, right);
    let mut lines = Vec::new();
    for group in diff.grouped_ops(CONTEXT) {
        for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
            let text = change.value().trim_end_matches(['\n', '\r']).to_owned();
            lines.push(match change.tag() {
                ChangeTag::Equal => DiffLine::Same(text),
                ChangeTag::Delete => DiffLine::Gone(text),
                ChangeTag::Insert => DiffLine::New(text),
            });
        }
    }
    lines
}
