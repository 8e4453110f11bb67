//! One line of Markdown: finding it in growing text, and saying what it is from its first bytes.

/// Bytes of a line that decide what it is. A longer fence, marker or run of them is text.
const HEAD_BYTES: usize = 256;

/// How far the source has been read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    line_start: usize,
    /// Everything before it is known to hold no line break after `line_start`.
    seen: usize,
    /// End of the line's indentation as far as seen, and its columns.
    text_at: usize,
    indent: usize,
}

/// A line, or the part of it that is there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scanned<'a> {
    /// Its first byte.
    pub(super) start: usize,
    /// Past its last byte, without the line break.
    pub(super) end: usize,
    /// First byte of the next line.
    pub(super) next: usize,
    /// Columns of indentation.
    pub(super) indent: usize,
    /// Whether its end is known.
    pub(super) is_whole: bool,
    /// Its first bytes after the indentation.
    head: &'a str,
    /// Whether `head` is not all of it; then nothing that follows is looked at.
    is_long: bool,
}

/// An opening fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fence {
    mark: u8,
    len: usize,
}

/// What a line is, by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Fence(Fence),
    Heading,
    /// A thematic break; one of dashes underlines a heading when a paragraph is open.
    Rule {
        is_setext: bool,
    },
    /// An underline that is nothing else.
    Setext,
    Quote,
    Item {
        content: usize,
        can_interrupt: bool,
        inner: Option<Fence>,
    },
    Text,
}

impl Kind {
    /// Whether it ends an open paragraph.
    pub(super) const fn interrupts(self) -> bool {
        match self {
            Self::Item { can_interrupt, .. } => can_interrupt,
            Self::Text | Self::Setext => false,
            Self::Fence(_) | Self::Heading | Self::Rule { .. } | Self::Quote => true,
        }
    }

    /// Whether it continues a paragraph inside a quote or an item although it lacks their mark.
    pub(super) const fn is_paragraph_text(self) -> bool {
        matches!(self, Self::Text | Self::Setext)
    }
}

impl Cursor {
    /// The next line whose end is there.
    pub(super) fn next_line<'a>(&mut self, source: &'a str) -> Option<Scanned<'a>> {
        let Some(offset) = source.get(self.seen..)?.find('\n') else {
            self.seen = source.len();
            return None;
        };
        let end = self.seen + offset;
        let line = self.scan(source, end, true);
        *self = Self { line_start: end + 1, seen: end + 1, text_at: end + 1, indent: 0 };
        Some(line)
    }

    /// The line after the last line break, unless it is blank so far.
    pub(super) fn tail<'a>(&mut self, source: &'a str) -> Option<Scanned<'a>> {
        if self.line_start >= source.len() {
            return None;
        }
        let line = self.scan(source, source.len(), false);
        (!line.is_blank()).then_some(line)
    }

    fn scan<'a>(&mut self, source: &'a str, end: usize, is_whole: bool) -> Scanned<'a> {
        let bytes = source.as_bytes();
        while self.text_at < end {
            match bytes.get(self.text_at) {
                Some(b' ') => self.indent += 1,
                Some(b'\t') => self.indent = self.indent / 4 * 4 + 4,
                _ => break,
            }
            self.text_at += 1;
        }
        let trimmed = if end > self.line_start && bytes.get(end - 1) == Some(&b'\r') { end - 1 } else { end };
        let head_end = source.floor_char_boundary(trimmed.min(self.text_at.saturating_add(HEAD_BYTES)));
        Scanned {
            start: self.line_start,
            end: trimmed.max(self.line_start),
            next: (end + 1).min(source.len()),
            indent: self.indent,
            is_whole,
            head: source.get(self.text_at..head_end).unwrap_or_default(),
            is_long: trimmed.saturating_sub(self.text_at) >= HEAD_BYTES,
        }
    }
}

impl<'a> Scanned<'a> {
    /// The same line, now that nothing follows.
    pub(super) const fn ended(self) -> Self {
        Self { is_whole: true, ..self }
    }

    pub(super) const fn is_blank(&self) -> bool {
        self.head.is_empty()
    }

    /// Whether it closes this fence. How far it is indented does not matter: models are careless there.
    pub(super) fn closes(&self, fence: Fence) -> bool {
        let run = self.head.bytes().take_while(|b| *b == fence.mark).count();
        run >= fence.len && !self.is_long && self.head.bytes().skip(run).all(is_space)
    }

    /// The first word after an opening fence.
    pub(super) fn info_word(&self) -> &'a str {
        self.head.trim_start_matches(['`', '~']).split_whitespace().next().unwrap_or_default()
    }

    pub(super) fn kind(&self) -> Kind {
        let head = self.head.trim_end_matches([' ', '\t']);
        let bytes = head.as_bytes();
        let Some(first) = bytes.first().copied() else { return Kind::Text };
        let run = bytes.iter().take_while(|b| **b == first).count();
        match first {
            b'`' | b'~' => fence(head).map_or(Kind::Text, Kind::Fence),
            b'#' if run <= 6 && bytes.get(run).copied().is_none_or(is_space) => Kind::Heading,
            b'>' => Kind::Quote,
            b'=' if run == bytes.len() => Kind::Setext,
            b'-' | b'*' | b'_' | b'+' => {
                let is_rule = first != b'+' && bytes.iter().all(|b| *b == first || is_space(*b));
                if is_rule && bytes.iter().filter(|b| **b == first).count() >= 3 {
                    return Kind::Rule { is_setext: first == b'-' && run == bytes.len() };
                }
                if first == b'-' && run == 2 && bytes.len() == 2 {
                    return Kind::Setext;
                }
                self.item(1, first != b'_', true)
            }
            b'0'..=b'9' => {
                let digits = bytes.iter().take_while(|b| b.is_ascii_digit()).count();
                let is_marker = digits <= 9 && matches!(bytes.get(digits), Some(b'.' | b')'));
                self.item(digits + 1, is_marker, digits == 1 && first == b'1')
            }
            _ => Kind::Text,
        }
    }

    /// A list item whose marker takes `marker` bytes, if it is one.
    fn item(&self, marker: usize, is_marker: bool, can_interrupt: bool) -> Kind {
        let rest = self.head.get(marker..).unwrap_or_default();
        let text = rest.trim_start_matches([' ', '\t']);
        if !is_marker || (text.len() == rest.len() && !rest.is_empty()) {
            return Kind::Text;
        }
        let mut spaces = 0;
        for byte in rest.bytes().take(rest.len() - text.len()) {
            let column = self.indent + marker + spaces;
            spaces += if byte == b'\t' { 4 - column % 4 } else { 1 };
        }
        let gap = if text.is_empty() || spaces > 4 { 1 } else { spaces };
        let inner = if spaces > 4 { None } else { fence(text) };
        Kind::Item {
            content: self.indent + marker + gap,
            can_interrupt: can_interrupt && !text.is_empty(),
            inner,
        }
    }

    /// Whether more text could change what the line is.
    pub(super) fn is_undecided(&self, in_code: Option<Fence>) -> bool {
        let bytes = self.head.as_bytes();
        if self.is_whole || self.is_long {
            return false;
        }
        let Some(first) = bytes.first().copied() else { return true };
        let run = bytes.iter().take_while(|b| **b == first).count();
        let rest = bytes.get(run..).unwrap_or_default();
        if let Some(fence) = in_code {
            return first == fence.mark && rest.iter().copied().all(is_space);
        }
        match first {
            b'#' => run <= 6 && rest.is_empty(),
            b'`' => rest.is_empty() || (run >= 3 && !rest.contains(&b'`')),
            b'~' => rest.is_empty() || run >= 3,
            b'-' | b'*' | b'_' | b'+' | b'=' => bytes.iter().all(|b| *b == first || is_space(*b)),
            b'0'..=b'9' => {
                let digits = bytes.iter().take_while(|b| b.is_ascii_digit()).count();
                let after = bytes.get(digits..).unwrap_or_default();
                digits <= 9
                    && match after {
                        [] => true,
                        [b'.' | b')', spaces @ ..] => spaces.iter().copied().all(is_space),
                        _ => false,
                    }
            }
            _ => false,
        }
    }
}

fn fence(text: &str) -> Option<Fence> {
    let mark = text.bytes().next().filter(|b| matches!(b, b'`' | b'~'))?;
    let len = text.bytes().take_while(|b| *b == mark).count();
    let has_mark = || text.bytes().skip(len).any(|b| b == b'`');
    (len >= 3 && !(mark == b'`' && has_mark())).then_some(Fence { mark, len })
}

const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}
