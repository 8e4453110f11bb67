//! From the bytes of tokens to the text that leaves the engine: whole characters, up to a stop string,
//! thinking and answer apart.

use super::stop::StopFilter;
use super::think::{Piece, ThinkSplitter};
use crate::text::Utf8Stream;

/// The text of one answer as its tokens come.
#[derive(Clone, Debug)]
pub struct TextStream {
    utf8: Utf8Stream,
    stop: StopFilter,
    think: ThinkSplitter,
}

impl TextStream {
    /// A stream at the beginning of an answer.
    #[must_use]
    pub fn new(stops: Vec<String>, think: ThinkSplitter) -> Self {
        Self { utf8: Utf8Stream::default(), stop: StopFilter::new(stops), think }
    }

    /// Takes the bytes of the next token and gives the text that is certain. A token may give nothing:
    /// its bytes may be the first part of a character, of a stop string, or of a tag.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Piece> {
        let mut text = String::new();
        self.utf8.push(bytes, &mut text);
        let text = self.stop.push(&text);
        if text.is_empty() { Vec::new() } else { self.think.push(&text) }
    }

    /// Whether a stop string has come: the answer is complete.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stop.is_stopped()
    }

    /// The answer has ended: gives what was held back. An incomplete character becomes U+FFFD, unless a
    /// stop string came before it.
    pub fn finish(&mut self) -> Vec<Piece> {
        let mut text = String::new();
        self.utf8.finish(&mut text);
        let mut text = self.stop.push(&text);
        text.push_str(&self.stop.finish());
        let mut out = self.think.push(&text);
        out.extend(self.think.finish());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::super::think::Tags;
    use super::*;
    use crate::chat::Channel;
    use pretty_assertions::assert_eq;
    use proptest::prelude::*;

    fn run<'a>(stops: &[&str], tokens: impl IntoIterator<Item = &'a [u8]>) -> (String, String, bool) {
        let stops = stops.iter().map(|s| (*s).to_owned()).collect();
        let mut stream = TextStream::new(stops, ThinkSplitter::new(Tags::default(), false));
        let mut all = Vec::new();
        for token in tokens {
            all.extend(stream.push(token));
        }
        all.extend(stream.finish());
        let of = |channel| all.iter().filter(|p| p.channel == channel).map(|p| p.text.as_str()).collect();
        (of(Channel::Thinking), of(Channel::Answer), stream.is_stopped())
    }

    #[test]
    fn characters_tags_and_stop_strings_may_span_tokens() {
        let bytes = "<think>日本</think>é👍 done STOP rest".as_bytes();
        let expected = ("日本".to_owned(), "é👍 done ".to_owned(), true);
        assert_eq!(run(&["STOP"], [bytes]), expected);
        assert_eq!(run(&["STOP"], bytes.chunks(1)), expected);
        assert_eq!(run(&["STOP"], bytes.chunks(3)), expected);
    }

    #[test]
    fn a_cut_character_never_leaves() {
        let mut stream = TextStream::new(Vec::new(), ThinkSplitter::in_answer(Tags::default()));
        let thumb = "👍".as_bytes();
        assert_eq!(stream.push(&thumb[..2]), []);
        assert_eq!(stream.push(&thumb[2..])[0].text, "👍");
        assert_eq!(stream.push(&thumb[..1]), []);
        assert_eq!(stream.finish()[0].text, "\u{fffd}");
    }

    #[test]
    fn what_is_held_comes_at_the_end() {
        assert_eq!(run(&["STOP"], [b"a ST".as_slice()]), (String::new(), "a ST".to_owned(), false));
        assert_eq!(run(&[], [b"<thi".as_slice()]), (String::new(), "<thi".to_owned(), false));
    }

    proptest! {
        #[test]
        fn any_cut_into_tokens_gives_the_same(
            parts in prop::collection::vec(prop::sample::select(vec!["<think>", "</think>", "é", "日", "a", " ", "ST", "OP"]), 0..10),
            size in 1_usize..7,
        ) {
            let text: String = parts.concat();
            prop_assert_eq!(run(&["STOP"], text.as_bytes().chunks(size)), run(&["STOP"], [text.as_bytes()]));
        }
    }
}
