//! Stop strings in a text that comes in pieces.

use super::think::partial;

/// Passes text on until a stop string is complete. Of several the one that is complete first counts, as if
/// the text came one character at a time; so the result does not depend on where it was cut.
#[derive(Clone, Debug, Default)]
pub struct StopFilter {
    stops: Vec<String>,
    held: String,
    is_stopped: bool,
}

impl StopFilter {
    /// A filter for these strings; empty ones are left out.
    #[must_use]
    pub fn new(stops: Vec<String>) -> Self {
        let stops = stops.into_iter().filter(|stop| !stop.is_empty()).collect();
        Self { stops, held: String::new(), is_stopped: false }
    }

    /// Whether a stop string has come; what follows is left out.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    /// Takes the next text and gives what can't belong to a stop string any more.
    pub fn push(&mut self, text: &str) -> String {
        if self.is_stopped {
            return String::new();
        }
        self.held.push_str(text);
        let first = self
            .stops
            .iter()
            .filter_map(|stop| self.held.find(stop.as_str()).map(|at| (at + stop.len(), at)))
            .min();
        if let Some((_, at)) = first {
            self.is_stopped = true;
            self.held.truncate(at);
            return std::mem::take(&mut self.held);
        }
        let keep = self.stops.iter().map(|stop| partial(&self.held, stop)).max().unwrap_or(0);
        let tail = self.held.split_off(self.held.len() - keep);
        std::mem::replace(&mut self.held, tail)
    }

    /// The text has ended: gives what was held back.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;
    use proptest::prelude::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let mut filter = StopFilter::new(stops.iter().map(|s| (*s).to_owned()).collect());
        let mut out: String = pieces.iter().map(|piece| filter.push(piece)).collect();
        out.push_str(&filter.finish());
        (out, filter.is_stopped())
    }

    #[test]
    fn text_before_a_stop_string_passes_and_nothing_after() {
        let cases: [(&[&str], &[&str], &str, bool); 9] = [
            (&[], &["all", " of it"], "all of it", false),
            (&["END"], &["ab END cd", "ef"], "ab ", true),
            (&["END"], &["ab E", "N", "D cd"], "ab ", true),
            (&["END"], &["ab E", "N"], "ab EN", false),
            (&["END"], &["EENEND"], "EEN", true),
            (&["abcd", "bc"], &["abcd"], "a", true),
            (&["aab"], &["aa", "aab"], "aa", true),
            (&["日本"], &["x日", "本y"], "x", true),
            (&[""], &["x"], "x", false),
        ];
        for (stops, pieces, text, is_stopped) in cases {
            assert_eq!(run(stops, pieces), (text.to_owned(), is_stopped), "{stops:?} {pieces:?}");
        }
    }

    #[test]
    fn no_more_is_held_than_needed() {
        let mut filter = StopFilter::new(vec!["\n\nUser:".to_owned()]);
        assert_eq!(filter.push("Hello.\n"), "Hello.");
        assert_eq!(filter.push("Next"), "\nNext");
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same(
            text in "[abc]{0,24}",
            stops in prop::collection::vec("[abc]{1,4}", 0..4),
            cuts in prop::collection::vec(0_usize..24, 0..6),
        ) {
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(text.len())).collect();
            cuts.extend([text.len()]);
            cuts.sort_unstable();
            let mut from = 0;
            let mut pieces = Vec::new();
            for cut in cuts {
                pieces.push(text.get(from..cut).unwrap());
                from = cut;
            }
            let whole = run(&stops, &[&text]);
            prop_assert_eq!(&run(&stops, &pieces), &whole);
            prop_assert!(text.starts_with(&whole.0));
            prop_assert!(!stops.iter().any(|stop| whole.0.contains(stop)));
            prop_assert_eq!(whole.1, stops.iter().any(|stop| text.contains(stop)));
            if !whole.1 { prop_assert_eq!(&whole.0, &text); }
        }
    }
}
