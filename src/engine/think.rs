//! Telling a model's thinking from its answer while both stream by.
//!
//! Thinking is what stands between tags at the very beginning of an answer, or up to the closing tag when
//! the template has opened it. Tags later in the answer are text: an answer may speak about tags.

use crate::chat::Channel;

/// The tags around thinking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tags {
    /// Where it begins.
    pub open: &'static str,
    /// Where it ends.
    pub close: &'static str,
}

const ALL: &[Tags] = &[
    Tags { open: "<think>", close: "</think>" },
    Tags { open: "[THINK]", close: "[/THINK]" },
    Tags { open: "<seed:think>", close: "</seed:think>" },
    Tags { open: "<thinking>", close: "</thinking>" },
];

impl Default for Tags {
    fn default() -> Self {
        Self { open: "<think>", close: "</think>" }
    }
}

impl Tags {
    /// The tags a template mentions; the usual ones when it mentions none.
    #[must_use]
    pub fn of_template(source: &str) -> Self {
        ALL.iter().find(|tags| source.contains(tags.close)).copied().unwrap_or_default()
    }

    /// Whether a prompt ends by opening the thinking.
    #[must_use]
    pub fn is_opened_by(&self, prompt: &str) -> bool {
        prompt.trim_end().ends_with(self.open)
    }

    /// Whether an answer so far is still inside its thinking.
    #[must_use]
    pub fn is_open_in(&self, answer: &str) -> bool {
        answer.trim_start().starts_with(self.open) && !answer.contains(self.close)
    }
}

/// Where the splitter is in the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing but white space has come.
    Start,
    /// Inside the thinking, its first text still to come.
    ThinkingStart,
    /// Inside the thinking.
    Thinking,
    /// After the closing tag: white space before the answer is left out.
    AnswerStart,
    /// In the answer, for good.
    Answer,
}

/// Splits an answer that comes in pieces. What comes out does not depend on where it was cut.
#[derive(Clone, Debug)]
pub struct ThinkSplitter {
    tags: Tags,
    state: State,
    held: String,
}

/// A piece of one channel; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Answer or thinking.
    pub channel: Channel,
    /// Its text.
    pub text: String,
}

impl ThinkSplitter {
    /// A splitter at the beginning of an answer, or inside its thinking when the prompt opened it.
    #[must_use]
    pub fn new(tags: Tags, is_thinking: bool) -> Self {
        let state = if is_thinking { State::ThinkingStart } else { State::Start };
        Self { tags, state, held: String::new() }
    }

    /// A splitter in the middle of an answer, for one that is continued: no tag is looked for.
    #[must_use]
    pub fn in_answer(tags: Tags) -> Self {
        Self { tags, state: State::Answer, held: String::new() }
    }

    /// Which channel the next text most likely belongs to.
    #[must_use]
    pub fn channel(&self) -> Channel {
        match self.state {
            State::ThinkingStart | State::Thinking => Channel::Thinking,
            State::Start | State::AnswerStart | State::Answer => Channel::Answer,
        }
    }

    /// Takes the next text and gives what is certain.
    pub fn push(&mut self, text: &str) -> Vec<Piece> {
        self.held.push_str(text);
        let mut out = Vec::new();
        while self.step(&mut out) {}
        out
    }

    /// The answer has ended: gives what was held back.
    pub fn finish(&mut self) -> Vec<Piece> {
        let held = std::mem::take(&mut self.held);
        let mut out = Vec::new();
        match self.state {
            // White space alone at the end of thinking or before an answer that never came.
            State::ThinkingStart | State::AnswerStart if held.trim().is_empty() => {}
            State::ThinkingStart | State::Thinking => emit(&mut out, Channel::Thinking, held.trim_end()),
            State::Start | State::AnswerStart | State::Answer => emit(&mut out, Channel::Answer, &held),
        }
        self.state = State::Answer;
        out
    }

    /// Does one thing with the held text; false when more is needed.
    fn step(&mut self, out: &mut Vec<Piece>) -> bool {
        match self.state {
            State::Start => {
                let begun = self.held.trim_start();
                if let Some(rest) = begun.strip_prefix(self.tags.open) {
                    self.held = rest.to_owned();
                    self.state = State::ThinkingStart;
                    return true;
                }
                if self.tags.open.starts_with(begun) {
                    return false;
                }
                self.state = State::Answer;
                true
            }
            State::ThinkingStart => {
                let begun = self.held.trim_start();
                let is_begun = !begun.is_empty();
                if is_begun {
                    self.held = begun.to_owned();
                    self.state = State::Thinking;
                }
                is_begun
            }
            State::Thinking => {
                if let Some((thought, rest)) = self.held.split_once(self.tags.close) {
                    emit(out, Channel::Thinking, thought.trim_end());
                    self.held = rest.to_owned();
                    self.state = State::AnswerStart;
                    return true;
                }
                // A closing tag may have begun, and white space before it is left out.
                let tag = partial(&self.held, self.tags.close);
                let before = self.held.get(..self.held.len() - tag).unwrap_or_default();
                let sure = before.trim_end().len();
                let held = self.held.split_off(sure);
                emit(out, Channel::Thinking, &std::mem::replace(&mut self.held, held));
                false
            }
            State::AnswerStart => {
                let begun = self.held.trim_start();
                let is_begun = !begun.is_empty();
                self.held = begun.to_owned();
                if is_begun {
                    self.state = State::Answer;
                }
                is_begun
            }
            State::Answer => {
                emit(out, Channel::Answer, &std::mem::take(&mut self.held));
                false
            }
        }
    }
}

/// How many bytes at the end of `text` may be the beginning of `tag`.
pub(super) fn partial(text: &str, tag: &str) -> usize {
    (1..tag.len())
        .rev()
        .filter(|len| tag.is_char_boundary(*len))
        .find(|len| tag.get(..*len).is_some_and(|begin| text.ends_with(begin)))
        .unwrap_or(0)
}

fn emit(out: &mut Vec<Piece>, channel: Channel, text: &str) {
    if !text.is_empty() {
        out.push(Piece { channel, text: text.to_owned() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;
    use proptest::prelude::*;

    fn split(is_thinking: bool, pieces: &[&str]) -> (String, String) {
        let mut splitter = ThinkSplitter::new(Tags::default(), is_thinking);
        let (mut thinking, mut answer) = (String::new(), String::new());
        let mut take = |all: Vec<Piece>| {
            for piece in all {
                assert!(!piece.text.is_empty());
                match piece.channel {
                    Channel::Thinking => thinking.push_str(&piece.text),
                    Channel::Answer => answer.push_str(&piece.text),
                }
            }
        };
        for piece in pieces {
            take(splitter.push(piece));
        }
        take(splitter.finish());
        (thinking, answer)
    }

    #[test]
    fn thinking_and_answer_are_told_apart() {
        let cases: [(bool, &str, &str, &str); 12] = [
            (false, "plain answer", "", "plain answer"),
            (false, "<think>\nhm\n</think>\n\nyes", "hm", "yes"),
            (false, "  \n<think>hm</think>yes", "hm", "yes"),
            (true, "\nhm\n</think>\n\nyes", "hm", "yes"),
            (true, "hm without end", "hm without end", ""),
            (true, "</think>yes", "", "yes"),
            (false, "say <think> in text </think>", "", "say <think> in text </think>"),
            (false, "<think>a</think>b <think>c</think>", "a", "b <think>c</think>"),
            (false, "<thin", "", "<thin"),
            (false, "<think", "", "<think"),
            (false, "  indented", "", "  indented"),
            (false, "<think>a </thin b </think> c", "a </thin b", "c"),
        ];
        for (is_thinking, text, thinking, answer) in cases {
            assert_eq!(split(is_thinking, &[text]), (thinking.to_owned(), answer.to_owned()), "{text:?}");
        }
    }

    #[test]
    fn an_answer_is_not_held_back_for_long() {
        let mut splitter = ThinkSplitter::new(Tags::default(), false);
        assert_eq!(splitter.push("<"), []);
        assert_eq!(splitter.push("b>").len(), 1);
        let mut splitter = ThinkSplitter::new(Tags::default(), true);
        assert_eq!(splitter.push("a thought <").len(), 1);
        assert_eq!(splitter.channel(), Channel::Thinking);
        assert_eq!(splitter.push("3")[0].text, " <3");
    }

    #[test]
    fn a_continued_answer_knows_no_tags() {
        let mut splitter = ThinkSplitter::in_answer(Tags::default());
        assert_eq!(splitter.push("<think>x</think>")[0].text, "<think>x</think>");
    }

    #[test]
    fn tags_are_taken_from_the_template() {
        assert_eq!(Tags::of_template("… '</think>' in content …"), Tags::default());
        assert_eq!(Tags::of_template("[THINK]x[/THINK]").open, "[THINK]");
        assert_eq!(Tags::of_template("nothing"), Tags::default());
        assert!(Tags::default().is_opened_by("<|im_start|>assistant\n<think>\n"));
        assert!(!Tags::default().is_opened_by("<think>\n\n</think>\n\n"));
        assert!(Tags::default().is_open_in("<think>so far"));
        assert!(!Tags::default().is_open_in("<think>a</think>b"));
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same(
            parts in prop::collection::vec(prop::sample::select(vec![
                "<think>", "</think>", "<", "</", "think", ">", " ", "\n", "a", "é", "日", "<thi",
            ]), 0..14),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
            is_thinking: bool,
        ) {
            let text: String = parts.concat();
            let mut at: Vec<usize> = text.char_indices().map(|(i, _)| i).collect();
            at.push(text.len());
            let mut cuts: Vec<usize> = cuts.iter().map(|c| at[c.index(at.len())]).collect();
            cuts.push(text.len());
            cuts.sort_unstable();
            let mut from = 0;
            let mut pieces = Vec::new();
            for cut in cuts {
                pieces.push(text.get(from..cut).unwrap());
                from = cut;
            }
            let whole = split(is_thinking, &[&text]);
            prop_assert_eq!(&split(is_thinking, &pieces), &whole);
            // Nothing but tags and white space is lost.
            let letters = |s: &str| s.chars().filter(|c| !c.is_whitespace()).collect::<String>();
            let mut expected = letters(&text);
            let got = letters(&whole.0) + &letters(&whole.1);
            if got.len() != expected.len() {
                if !is_thinking { expected = expected.replacen("<think>", "", 1); }
                if got.len() != expected.len() { expected = expected.replacen("</think>", "", 1); }
            }
            prop_assert_eq!(got, expected);
        }
    }
}
