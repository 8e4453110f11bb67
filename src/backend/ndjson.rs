//! JSON lines: bytes are pushed in, lines come out. Pure; knows nothing of what lines mean.

use super::sse::{MAX_EVENT, TooLarge};

/// The decoder. Linear in what it is given; a line is bounded by [`MAX_EVENT`].
#[derive(Debug, Default)]
pub(super) struct LineDecoder {
    line: Vec<u8>,
    /// The first line, which may begin with a byte order mark, is over.
    is_begun: bool,
}

impl LineDecoder {
    /// Takes the next bytes and appends the lines they complete; empty ones are left out, invalid UTF-8 is U+FFFD.
    ///
    /// # Errors
    /// When one line is too large. What was completed before it is in `out`; the decoder is of no use after.
    pub(super) fn push(&mut self, bytes: &[u8], out: &mut Vec<String>) -> Result<(), TooLarge> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let end = rest.iter().position(|byte| *byte == b'\n');
            let (piece, tail) = rest.split_at(end.unwrap_or(rest.len()));
            if self.line.len() + piece.len() > MAX_EVENT {
                return Err(TooLarge);
            }
            self.line.extend_from_slice(piece);
            if end.is_some() {
                self.end_line(out);
            }
            rest = tail.get(1..).unwrap_or_default();
        }
        Ok(())
    }

    /// The bytes have ended: appends a line that lacks its end.
    pub(super) fn finish(&mut self, out: &mut Vec<String>) {
        self.end_line(out);
    }

    fn end_line(&mut self, out: &mut Vec<String>) {
        let line = std::mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&line);
        let line = if self.is_begun { &line } else { line.strip_prefix('\u{feff}').unwrap_or(&line) };
        self.is_begun = true;
        let line = line.trim_end_matches('\r');
        if !line.trim().is_empty() {
            out.push(line.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;
    use proptest::prelude::*;

    fn decode(bytes: &[u8], cuts: &[usize]) -> Vec<String> {
        let (mut decoder, mut out, mut from) = (LineDecoder::default(), Vec::new(), 0);
        for cut in cuts.iter().copied().chain([bytes.len()]) {
            decoder.push(&bytes[from..cut], &mut out).expect("small");
            from = cut;
        }
        decoder.finish(&mut out);
        out
    }

    #[test]
    fn lines() {
        let cases: [(&[u8], &[&str]); 7] = [
            (b"{}\n[]\n", &["{}", "[]"]),
            (b"{}\r\n\r\n\n  \n{}", &["{}", "{}"]),
            (b"\xEF\xBB\xBF1\n\xEF\xBB\xBF2", &["1", "\u{feff}2"]),
            (b"a\xFFb\xF0\x9F\nc", &["a\u{FFFD}b\u{FFFD}", "c"]),
            (b"a\0b\n", &["a\0b"]),
            ("\u{2028}x\n".as_bytes(), &["\u{2028}x"]),
            (b"", &[]),
        ];
        for (bytes, lines) in cases {
            assert_eq!(decode(bytes, &[]), lines);
        }
    }

    #[test]
    fn a_line_is_capped() {
        let (mut decoder, mut out) = (LineDecoder::default(), Vec::new());
        let chunk = vec![b'x'; 64 * 1024];
        decoder.push(b"first\n", &mut out).expect("small");
        let pushed = (0..200).take_while(|_| decoder.push(&chunk, &mut out).is_ok()).count();
        assert_eq!((pushed, out.as_slice()), (MAX_EVENT / chunk.len(), ["first".to_owned()].as_slice()));
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_lines(
            pieces in prop::collection::vec(prop::sample::select(vec![
                b"{}".as_slice(), b"\n", b"\r\n", b"\xEF\xBB\xBF", b"\xF0\x9F\x98\x80", b"\xFF", b"", b" ", b"\0",
            ]), 0..24),
        ) {
            let bytes = pieces.concat();
            let every: Vec<usize> = (0..bytes.len()).collect();
            prop_assert_eq!(decode(&bytes, &every), decode(&bytes, &[]));
        }
    }
}
