//! Breaking styled text into lines of cells. Knows graphemes and wide characters, not Markdown.

use ratatui::style::Style;
use ratatui::text::{Line, Span};
use std::ops::Range;
use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthStr;

/// Columns between tab stops.
pub const TAB: usize = 4;

/// Text with a style for each part of it, without line breaks.
#[derive(Clone, Debug, Default)]
pub struct Styled {
    text: String,
    /// Where each style ends.
    runs: Vec<(usize, Style)>,
}

impl Styled {
    /// Appends a piece. Tabs become spaces up to the next stop.
    pub fn push(&mut self, text: &str, style: Style) {
        if text.contains(['\t', '\n', '\r']) {
            for c in text.chars() {
                match c {
                    '\t' => self.text.push_str("    "),
                    '\n' | '\r' => self.text.push(' '),
                    c => self.text.push(c),
                }
            }
        } else {
            self.text.push_str(text);
        }
        let end = self.text.len();
        match self.runs.last_mut() {
            Some((last, same)) if *same == style => *last = end,
            _ => self.runs.push((end, style)),
        }
    }

    /// Whether nothing was pushed.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// The text alone.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Cells it takes on one line.
    #[must_use]
    pub fn width(&self) -> usize {
        self.text.width()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.text.clear();
        self.runs.clear();
    }

    /// The spans of one part. Parts are asked for in order; `run` remembers where the last one ended.
    fn spans(&self, part: Range<usize>, run: &mut usize, out: &mut Vec<Span<'static>>) {
        let mut at = part.start;
        while at < part.end {
            let Some((end, style)) = self.runs.get(*run).copied() else { return };
            if end <= at {
                *run += 1;
                continue;
            }
            let stop = end.min(part.end);
            out.push(Span::styled(self.text.get(at..stop).unwrap_or_default().to_owned(), style));
            at = stop;
        }
    }

    /// The spans of a part.
    #[must_use]
    pub fn part(&self, part: Range<usize>) -> Vec<Span<'static>> {
        let mut out = Vec::new();
        self.spans(part, &mut 0, &mut out);
        out
    }

    /// The spans of the whole.
    #[must_use]
    pub fn to_spans(&self) -> Vec<Span<'static>> {
        self.part(0..self.text.len())
    }
}

/// Breaks text into lines of at most `width` cells (at least 2), at spaces where it can, and appends them.
/// The first line begins with `first`, the others with `rest`; both count towards the width.
pub fn wrap(
    text: &Styled,
    width: usize,
    first: &[Span<'static>],
    rest: &[Span<'static>],
    out: &mut Vec<Line<'static>>,
) {
    let used = cells(first).max(cells(rest));
    let mut run = 0;
    for (at, part) in breaks(text.text(), width.saturating_sub(used)).into_iter().enumerate() {
        let mut spans = if at == 0 { first.to_vec() } else { rest.to_vec() };
        text.spans(part, &mut run, &mut spans);
        out.push(Line::from(spans));
    }
}

fn cells(spans: &[Span<'_>]) -> usize {
    spans.iter().map(|span| span.content.width()).sum()
}

/// Where a text without line breaks is broken into lines: at spaces (which are left out), between wide
/// characters, inside a word only when it alone is too long. Never empty.
#[must_use]
pub fn breaks(text: &str, width: usize) -> Vec<Range<usize>> {
    let width = width.max(2);
    let mut lines = Vec::new();
    let mut start = 0;
    let mut used = 0;
    // Where the line may end, where the next one would begin, and the cells up to there.
    let mut chance: Option<(usize, usize, usize)> = None;
    let mut after_wide = false;
    let mut at = 0;
    while let Some((len, cells)) = next_grapheme(text, at) {
        let next = at + len;
        let grapheme = text.get(at..next).unwrap_or_default();
        if grapheme == " " {
            match &mut chance {
                Some((_, begin, upto)) if *begin == at => {
                    *begin = next;
                    *upto = used + 1;
                }
                // Indentation is no place to break.
                _ if used > 0 && text.get(start..at).is_some_and(|s| s.ends_with(|c| c != ' ')) => {
                    chance = Some((at, next, used + 1));
                }
                _ => {}
            }
            used += 1;
            after_wide = false;
            at = next;
            continue;
        }
        let is_wide = cells == 2;
        if (is_wide || after_wide) && used > 0 && !sticks(grapheme) && chance.is_none_or(|c| c.1 != at) {
            chance = Some((at, at, used));
        }
        while used + cells > width && at > start {
            let (end, begin, upto) = chance.take().unwrap_or((at, at, used));
            lines.push(start..fitting(text, start..end, width));
            start = begin;
            used = used.saturating_sub(upto);
        }
        used += cells;
        after_wide = is_wide;
        at = next;
    }
    lines.push(start..fitting(text, start..text.len(), width));
    lines
}

/// The end of a part whose spaces at the end may hang over the width.
fn fitting(text: &str, part: Range<usize>, width: usize) -> usize {
    let piece = text.get(part.clone()).unwrap_or_default();
    if !piece.ends_with(' ') || piece.width() <= width {
        return part.end;
    }
    let trimmed = piece.trim_end_matches(' ');
    let room = width.saturating_sub(trimmed.width());
    part.start + trimmed.len() + room.min(piece.len() - trimmed.len())
}

/// Whether a line should not begin with this character.
fn sticks(grapheme: &str) -> bool {
    grapheme.starts_with([
        '、', '。', '，', '．', '！', '？', '）', '」', '』', '】', '〕', '》', '〉', '：', '；', '…', ',',
        '.', '!', '?', ')', ':', ';',
    ])
}

/// The length in bytes and the width in cells of the grapheme at `at`.
#[must_use]
pub fn next_grapheme(text: &str, at: usize) -> Option<(usize, usize)> {
    let bytes = text.as_bytes();
    let first = *bytes.get(at)?;
    if (b' '..0x7f).contains(&first) && bytes.get(at + 1).is_none_or(u8::is_ascii) {
        return Some((1, 1));
    }
    let grapheme = text.get(at..)?.graphemes(true).next()?;
    let cells = grapheme.width();
    if cells > 2 {
        // A cluster wider than any character: taken apart, so that it can be broken.
        let c = grapheme.chars().next()?;
        return Some((c.len_utf8(), unicode_width::UnicodeWidthChar::width(c).unwrap_or(0)));
    }
    Some((grapheme.len(), cells))
}

/// Breaks text at exactly the width, as code is; spaces stay. The first line has `width` cells, the others
/// `rest`. Never empty.
#[must_use]
pub fn chunks(text: &str, width: usize, rest: usize) -> Vec<Range<usize>> {
    let (mut width, rest) = (width.max(2), rest.max(2));
    let mut lines = Vec::new();
    let (mut start, mut used, mut at) = (0, 0, 0);
    while let Some((len, cells)) = next_grapheme(text, at) {
        if used + cells > width && at > start {
            lines.push(start..at);
            start = at;
            used = 0;
            width = rest;
        }
        used += cells;
        at += len;
    }
    lines.push(start..text.len());
    lines
}

#[cfg(test)]
mod tests {
    #![expect(clippy::string_slice, reason = "a wrong index fails the test")]

    use super::*;
    use pretty_assertions::assert_eq;
    use proptest::prelude::*;

    fn lines(text: &str, width: usize) -> Vec<&str> {
        breaks(text, width).into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn breaks_at_spaces() {
        assert_eq!(lines("the quick brown fox", 10), ["the quick", "brown fox"]);
        assert_eq!(lines("", 10), [""]);
        assert_eq!(lines("a  b", 3), ["a", "b"]);
        assert_eq!(lines("abc ", 3), ["abc"]);
        assert_eq!(lines("exactly ten", 11), ["exactly ten"]);
    }

    #[test]
    fn breaks_long_words_and_keeps_indentation() {
        assert_eq!(lines("see https://example.org now", 10), ["see", "https://ex", "ample.org", "now"]);
        assert_eq!(lines("    abcdefgh", 8), ["    abcd", "efgh"]);
    }

    #[test]
    fn breaks_between_wide_characters() {
        assert_eq!(lines("日本語の文章。", 6), ["日本語", "の文", "章。"]);
        assert_eq!(lines("ab日本 cd", 5), ["ab日", "本 cd"]);
        assert_eq!(lines("👨‍👩‍👧👨‍👩‍👧", 3), ["👨‍👩‍👧", "👨‍👩‍👧"]);
    }

    #[test]
    fn ten_megabytes_on_one_line() {
        let text = "lorem ipsum 日本 ".repeat(500_000);
        assert!(breaks(&text, 80).len() > 100_000);
        let text = "x".repeat(10_000_000);
        assert_eq!(breaks(&text, 80).len(), 125_000);
        assert_eq!(chunks(&text, 80, 80).len(), 125_000);
    }

    #[test]
    fn styles_follow_the_text() {
        let bold = Style::new().bold();
        let mut text = Styled::default();
        text.push("one ", Style::new());
        text.push("two three", bold);
        let mut out = Vec::new();
        wrap(&text, 8, &[Span::raw("- ")], &[Span::raw("  ")], &mut out);
        assert_eq!(
            out,
            [
                Line::from(vec![Span::raw("- "), Span::raw("one")]),
                Line::from(vec![Span::raw("  "), Span::styled("two", bold)]),
                Line::from(vec![Span::raw("  "), Span::styled("three", bold)]),
            ]
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_line_is_too_wide_and_no_text_is_lost(text in "([a-z ]{0,12}|[日本語。 ]{0,5}|é|👨‍👩‍👧|🇩🇪|\\PC){0,20}", width in 2_usize..30) {
            let text = text.replace(char::is_control, "");
            for (ranges, keeps_spaces) in [(breaks(&text, width), false), (chunks(&text, width, width), true)] {
                let mut at = 0;
                for range in &ranges {
                    prop_assert!(text[at..range.start].chars().all(|c| c == ' ' && !keeps_spaces), "{ranges:?}");
                    // Clusters wider than two cells are the terminal's to cut.
                    let cells: usize = text[range.clone()].graphemes(true).map(|g| g.width().min(2)).sum();
                    prop_assert!(cells <= width, "{:?} is wider than {width}", &text[range.clone()]);
                    at = range.end;
                }
                prop_assert!(text[at..].chars().all(|c| c == ' ' && !keeps_spaces));
                prop_assert_eq!(ranges.first().map(|r| r.start), Some(0));
            }
        }
    }
}
