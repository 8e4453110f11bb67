//! Bytes that come in pieces to whole characters.

/// Decodes UTF-8 whose characters may span pieces. Invalid parts become U+FFFD, one per maximal bad
/// piece; a character that is merely cut waits for the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Utf8Stream {
    pending: Vec<u8>,
}

impl Utf8Stream {
    /// Takes the next bytes and appends the characters they complete.
    pub fn push(&mut self, bytes: &[u8], out: &mut String) {
        self.pending.extend_from_slice(bytes);
        let mut consumed = 0;
        while let Some(rest) = self.pending.get(consumed..) {
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    out.push_str(text);
                    consumed = self.pending.len();
                    break;
                }
                Err(error) => {
                    let valid = error.valid_up_to();
                    out.push_str(&String::from_utf8_lossy(rest.get(..valid).unwrap_or_default()));
                    consumed += valid;
                    let Some(bad) = error.error_len() else { break };
                    out.push(char::REPLACEMENT_CHARACTER);
                    consumed += bad;
                }
            }
        }
        self.pending.drain(..consumed);
    }

    /// The bytes have ended: a cut character becomes U+FFFD.
    pub fn finish(&mut self, out: &mut String) {
        if !self.pending.is_empty() {
            out.push(char::REPLACEMENT_CHARACTER);
            self.pending.clear();
        }
    }

    /// Whether a character is incomplete.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_split_gives_the_same_text(bytes in prop::collection::vec(any::<u8>(), 0..64), cuts in prop::collection::vec(0_usize..64, 0..6)) {
            let mut whole = String::new();
            let mut stream = Utf8Stream::default();
            stream.push(&bytes, &mut whole);
            stream.finish(&mut whole);
            prop_assert_eq!(&whole, &String::from_utf8_lossy(&bytes));

            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(bytes.len())).collect();
            cuts.sort_unstable();
            cuts.push(bytes.len());
            let (mut split, mut stream, mut from) = (String::new(), Utf8Stream::default(), 0);
            for cut in cuts {
                stream.push(&bytes[from..cut], &mut split);
                from = cut;
            }
            stream.finish(&mut split);
            prop_assert_eq!(split, whole);
        }
    }
}
