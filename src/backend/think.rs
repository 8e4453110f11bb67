//! Parts the thinking a server leaves in the text, between `<think>` and `</think>`, from the answer. Pure.
//!
//! Only tags at the very start of an answer count; anywhere else they are text. The tags and the white
//! space next to them go, everything else comes out on one channel or the other.

use crate::chat::Channel;

const OPEN: &str = "<think>";
const CLOSE: &str = "</think>";
/// Bytes of white space the opening tag may stand behind.
const MAX_INDENT: usize = 64;

/// The filter; one for each answer.
#[derive(Debug, Default)]
pub(super) struct ThinkFilter {
    state: State,
    /// Text that may turn out to be part of a tag.
    held: String,
    /// All thinking so far.
    thought: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Nothing but white space and perhaps part of the opening tag.
    #[default]
    Start,
    /// Inside.
    Thinking,
    /// After the closing tag, before the answer's first letter.
    Closed,
    /// The answer.
    Answer,
}

/// How the answer ended, for thinking that was never closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The model ended it: it must have forgotten the tag.
    Complete,
    /// It was cut: the thinking was not over.
    Cut,
}

impl ThinkFilter {
    /// The server parts thinking itself: tags are text from here on.
    pub(super) fn stand_aside(&mut self) {
        if self.state == State::Start && self.held.is_empty() {
            self.state = State::Answer;
        }
    }

    /// Takes the next piece of text and gives what it completes, in order.
    pub(super) fn push(&mut self, text: &str, mut emit: impl FnMut(Channel, String)) {
        if self.state == State::Answer {
            emit(Channel::Answer, text.to_owned());
            return;
        }
        self.held.push_str(text);
        if self.state == State::Start {
            let begun = self.held.trim_start();
            if self.held.len() - begun.len() > MAX_INDENT {
                self.state = State::Answer;
            } else if let Some(rest) = begun.strip_prefix(OPEN) {
                self.held = rest.to_owned();
                self.state = State::Thinking;
            } else if OPEN.starts_with(begun) {
                return;
            } else {
                self.state = State::Answer;
            }
        }
        if self.state == State::Thinking {
            if let Some((thinking, answer)) = self.held.split_once(CLOSE) {
                let (thinking, answer) = (thinking.to_owned(), answer.to_owned());
                self.think(thinking, &mut emit);
                self.held = answer;
                self.state = State::Closed;
            } else {
                let keep = partial_suffix(&self.held, CLOSE);
                let rest = self.held.split_off(self.held.len() - keep);
                let thinking = std::mem::replace(&mut self.held, rest);
                self.think(thinking, &mut emit);
            }
        }
        if self.state == State::Closed {
            self.held = self.held.trim_start().to_owned();
            if !self.held.is_empty() {
                self.state = State::Answer;
            }
        }
        if self.state == State::Answer && !self.held.is_empty() {
            emit(Channel::Answer, std::mem::take(&mut self.held));
        }
    }

    /// The text has ended: gives what was held back. Thinking that was never closed in a complete answer
    /// is given once more as the answer: it must be in there.
    pub(super) fn finish(&mut self, ending: Ending, mut emit: impl FnMut(Channel, String)) {
        let held = std::mem::take(&mut self.held);
        match self.state {
            State::Start | State::Answer if !held.is_empty() => emit(Channel::Answer, held),
            State::Thinking => {
                self.think(held, &mut emit);
                let thought = std::mem::take(&mut self.thought);
                if ending == Ending::Complete && !thought.is_empty() {
                    emit(Channel::Answer, thought);
                }
            }
            State::Start | State::Answer | State::Closed => {}
        }
        self.state = State::Answer;
    }

    fn think(&mut self, text: String, emit: &mut impl FnMut(Channel, String)) {
        let text = if self.thought.is_empty() { text.trim_start().to_owned() } else { text };
        if !text.is_empty() {
            self.thought.push_str(&text);
            emit(Channel::Thinking, text);
        }
    }
}

/// Length of the longest end of `text` that is a beginning of `tag`.
fn partial_suffix(text: &str, tag: &str) -> usize {
    (1..tag.len()).rev().find(|n| tag.get(..*n).is_some_and(|part| text.ends_with(part))).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;
    use proptest::prelude::*;

    fn run<'a>(pieces: impl IntoIterator<Item = &'a str>, ending: Ending) -> (String, String) {
        let (mut filter, mut thinking, mut answer) = (ThinkFilter::default(), String::new(), String::new());
        let mut emit = |channel, text: String| match channel {
            Channel::Thinking => thinking.push_str(&text),
            Channel::Answer => answer.push_str(&text),
        };
        for piece in pieces {
            filter.push(piece, &mut emit);
        }
        filter.finish(ending, &mut emit);
        (thinking, answer)
    }

    #[test]
    fn tags_are_parted() {
        let cases = [
            ("plain", "Hello", ("", "Hello")),
            ("tagged", "<think>\nhm\n</think>\n\nHello", ("hm\n", "Hello")),
            ("white space first", "\n <think>hm</think>Hello ", ("hm", "Hello ")),
            ("white space alone", " \n", ("", " \n")),
            (
                "behind too much",
                &(" ".repeat(65) + "<think>a</think>"),
                ("", &(" ".repeat(65) + "<think>a</think>")),
            ),
            ("empty", "<think></think>Hello", ("", "Hello")),
            ("not at the start", "The tag <think> opens", ("", "The tag <think> opens")),
            ("almost", "<thin air>", ("", "<thin air>")),
            ("cut tag at the end", "<thi", ("", "<thi")),
            ("nested", "<think>a<think>b</think>c</think>d", ("a<think>b", "c</think>d")),
            ("stray close", "a</think>b", ("", "a</think>b")),
            ("never closed", "<think>it is 42", ("it is 42", "it is 42")),
            ("never closed, part of a tag", "<think>it is 42</thi", ("it is 42</thi", "it is 42</thi")),
        ];
        for (name, text, (thinking, answer)) in cases {
            assert_eq!(run([text], Ending::Complete), (thinking.to_owned(), answer.to_owned()), "{name}");
        }
    }

    #[test]
    fn thinking_that_was_cut_is_not_an_answer() {
        assert_eq!(run(["<think>it", " is"], Ending::Cut), ("it is".to_owned(), String::new()));
    }

    #[test]
    fn a_server_that_parts_thinking_itself_is_left_alone() {
        let mut filter = ThinkFilter::default();
        filter.stand_aside();
        let mut got = Vec::new();
        filter.push("<think>text", |channel, text| got.push((channel, text)));
        assert_eq!(got, [(Channel::Answer, "<think>text".to_owned())]);
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_texts_and_none_is_lost(
            pieces in prop::collection::vec(prop::sample::select(vec!["<think>", "</think>", "<", "think", ">", " ", "\n", "word", "日", "</"]), 0..16),
        ) {
            let whole = pieces.concat();
            let split: Vec<String> = whole.chars().map(String::from).collect();
            let expected = run([whole.as_str()], Ending::Complete);
            prop_assert_eq!(&run(split.iter().map(String::as_str), Ending::Complete), &expected);
            let (thinking, answer) = expected;
            let given = thinking + &answer;
            for word in ["word", "日"] {
                prop_assert!(given.matches(word).count() >= whole.matches(word).count());
            }
        }
    }
}
