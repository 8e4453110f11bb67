//! Server-sent events: bytes are pushed in, events come out. Pure; knows nothing of what events mean.
//!
//! Follows the standard's parsing, with two differences: the last event counts even when the blank line
//! after it is missing, and comments are reported, because they are signs of life. `id` and `retry` are
//! read over: nothing is ever resumed or retried.

/// Bytes one event may have.
pub(super) const MAX_EVENT: usize = 8 * 1024 * 1024;
/// Bytes of a comment that are kept.
const MAX_COMMENT: usize = 256;

/// Something a server sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SseItem {
    /// An event with data.
    Event {
        /// Its `event` field, empty when there is none.
        name: String,
        /// Its `data` lines, joined by newlines; invalid UTF-8 is U+FFFD.
        data: String,
    },
    /// A comment: the server is alive and has nothing to say. Some tell their progress in it.
    Comment(String),
}

/// One event is larger than [`MAX_EVENT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLarge;

/// The decoder. Linear in what it is given, and bounded by [`MAX_EVENT`].
#[derive(Debug, Default)]
pub(super) struct SseDecoder {
    /// The line so far.
    line: Vec<u8>,
    /// The `data` lines of the event so far.
    data: Vec<u8>,
    /// Whether it has any.
    has_data: bool,
    name: Vec<u8>,
    /// The last byte ended a line and was CR: a LF now belongs to it.
    after_return: bool,
    /// The first line, which may begin with a byte order mark, is over.
    is_begun: bool,
}

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

impl SseDecoder {
    /// Takes the next bytes and appends what they complete.
    ///
    /// # Errors
    /// When one event is too large. What was completed before it is in `out`; the decoder is of no use after.
    pub(super) fn push(&mut self, bytes: &[u8], out: &mut Vec<SseItem>) -> Result<(), TooLarge> {
        let mut rest = bytes;
        if self.after_return
            && let Some((first, tail)) = rest.split_first()
        {
            self.after_return = false;
            if *first == b'\n' {
                rest = tail;
            }
        }
        while !rest.is_empty() {
            let end = rest.iter().position(|b| matches!(b, b'\n' | b'\r'));
            let (piece, tail) = rest.split_at(end.unwrap_or(rest.len()));
            if self.line.len() + self.data.len() + piece.len() > MAX_EVENT {
                return Err(TooLarge);
            }
            self.line.extend_from_slice(piece);
            rest = match tail {
                [] => return Ok(()),
                [b'\r'] => {
                    self.after_return = true;
                    &[]
                }
                [b'\r', b'\n', after @ ..] | [_, after @ ..] => after,
            };
            self.end_line(out);
        }
        Ok(())
    }

    /// The bytes have ended: appends an event that lacks its blank line.
    pub(super) fn finish(&mut self, out: &mut Vec<SseItem>) {
        if !self.line.is_empty() {
            self.end_line(out);
        }
        self.end_event(out);
    }

    fn end_line(&mut self, out: &mut Vec<SseItem>) {
        let mut line = std::mem::take(&mut self.line);
        let mut text = line.as_slice();
        if !self.is_begun {
            self.is_begun = true;
            text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
        }
        if text.is_empty() {
            self.end_event(out);
        } else {
            self.field(text, out);
        }
        line.clear();
        self.line = line;
    }

    fn field(&mut self, line: &[u8], out: &mut Vec<SseItem>) {
        let colon = line.iter().position(|b| *b == b':');
        let (field, value) = line.split_at(colon.unwrap_or(line.len()));
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"" => {
                let start = value.get(..value.len().min(MAX_COMMENT)).unwrap_or_default();
                out.push(SseItem::Comment(text(start.to_vec())));
            }
            b"data" => {
                if self.has_data {
                    self.data.push(b'\n');
                }
                self.has_data = true;
                self.data.extend_from_slice(value);
            }
            b"event" => self.name = value.to_vec(),
            _ => {}
        }
    }

    fn end_event(&mut self, out: &mut Vec<SseItem>) {
        let name = std::mem::take(&mut self.name);
        if std::mem::take(&mut self.has_data) {
            out.push(SseItem::Event { name: text(name), data: text(std::mem::take(&mut self.data)) });
        }
    }
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;
    use proptest::prelude::*;

    fn decode(bytes: &[u8]) -> Vec<SseItem> {
        decode_split(bytes, &[])
    }

    fn decode_split(bytes: &[u8], cuts: &[usize]) -> Vec<SseItem> {
        let (mut decoder, mut out, mut from) = (SseDecoder::default(), Vec::new(), 0);
        for cut in cuts.iter().copied().chain([bytes.len()]) {
            decoder.push(&bytes[from..cut], &mut out).expect("small");
            from = cut;
        }
        decoder.finish(&mut out);
        out
    }

    fn event(data: &str) -> SseItem {
        named("", data)
    }

    fn named(name: &str, data: &str) -> SseItem {
        SseItem::Event { name: name.to_owned(), data: data.to_owned() }
    }

    #[test]
    fn the_standards_cases() {
        let comment = |text: &str| SseItem::Comment(text.to_owned());
        let cases: &[(&str, &[u8], Vec<SseItem>)] = &[
            ("plain", b"data: a\n\ndata: b\n\n", vec![event("a"), event("b")]),
            ("bom", b"\xEF\xBB\xBFdata:1\n\n", vec![event("1")]),
            ("a second bom is text", b"\xEF\xBB\xBF\xEF\xBB\xBFdata:1\n\ndata:2\n\n", vec![event("2")]),
            (
                "CRLF, LF, CR",
                b"data:1\r\n\r\ndata:2\n\ndata:3\r\rdata:4\r\n\n",
                vec![event("1"), event("2"), event("3"), event("4")],
            ),
            ("several lines", b"data: a\ndata:b\ndata\n\n", vec![event("a\nb\n")]),
            ("one space goes", b"data:  a \n\n", vec![event(" a ")]),
            ("a tab stays", b"data:\ta\n\n", vec![event("\ta")]),
            ("empty data counts", b"data:\n\ndata\n\n", vec![event(""), event("")]),
            ("no data, no event", b"event: x\n\nid: 1\n\n\n\ndata:1\n\n", vec![event("1")]),
            (
                "comments",
                b":\n: hello\n:data: no\ndata:1\n\n",
                vec![comment(""), comment("hello"), comment("data: no"), event("1")],
            ),
            ("names", b"event: error\ndata: 1\n\ndata: 2\n\n", vec![named("error", "1"), event("2")]),
            ("the last name counts", b"event:a\nevent:b\ndata:1\n\n", vec![named("b", "1")]),
            ("id with NUL, bogus retry", b"id:\0\nretry: -1\nretry:x\ndata:1\n\n", vec![event("1")]),
            ("unknown fields", b"data :no\n data:no\nDATA:no\nfoo:bar\nfoo\ndata:1\n\n", vec![event("1")]),
            ("NUL in data", b"data:\0\n\n", vec![event("\0")]),
            ("last event without blank line", b"data:1\n\ndata:2", vec![event("1"), event("2")]),
            ("colon first", b":x\n\ndata::x\n\n", vec![comment("x"), event(":x")]),
            ("invalid UTF-8", b"data:a\xFFb\xF0\x9F\n\n", vec![event("a\u{FFFD}b\u{FFFD}")]),
            ("nothing", b"", vec![]),
        ];
        for (name, bytes, expected) in cases {
            assert_eq!(&decode(bytes), expected, "{name}");
        }
    }

    #[test]
    fn one_event_is_capped() {
        let mut decoder = SseDecoder::default();
        let mut out = Vec::new();
        let chunk = vec![b'x'; 64 * 1024];
        decoder.push(b"data:first\n\ndata:", &mut out).expect("small");
        let pushed = (0..200).take_while(|_| decoder.push(&chunk, &mut out).is_ok()).count();
        assert_eq!(pushed, MAX_EVENT / chunk.len() - 1);
        assert_eq!(out, [event("first")]);

        let mut many_lines = SseDecoder::default();
        let line = [b"data:".as_slice(), &chunk, b"\n"].concat();
        let pushed = (0..200).take_while(|_| many_lines.push(&line, &mut out).is_ok()).count();
        assert!(pushed < 130, "an event of many lines is capped too: {pushed}");
    }

    #[test]
    fn large_lines_and_many_events_are_ordinary() {
        let line = [b"data:".as_slice(), &vec![b'x'; MAX_EVENT - 5], b"\n\n"].concat();
        let (mut decoder, mut out) = (SseDecoder::default(), Vec::new());
        for chunk in line.chunks(1000) {
            decoder.push(chunk, &mut out).expect("at the cap");
        }
        assert_eq!(out.len(), 1);
        assert_eq!(decode(&b"data:x\n\n".repeat(40_000)).len(), 40_000);
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_events(
            pieces in prop::collection::vec(prop::sample::select(vec![
                b"data:".as_slice(), b"data: {\"a\":1}", b"\r", b"\n", b"\r\n", b"\n\n", b":", b"event: e", b"\xEF\xBB\xBF",
                b"\xF0\x9F\x98\x80", b"\xFF", b"\xC3", b"x", b"", b"id:\0", b"[DONE]",
            ]), 0..30),
            cuts in prop::collection::vec(0_usize..120, 0..10),
        ) {
            let bytes = pieces.concat();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(bytes.len())).collect();
            cuts.sort_unstable();
            let every: Vec<usize> = (0..bytes.len()).collect();
            prop_assert_eq!(decode_split(&bytes, &cuts), decode(&bytes));
            prop_assert_eq!(decode_split(&bytes, &every), decode(&bytes));
        }
    }
}
