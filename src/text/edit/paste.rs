//! What a paste becomes: clean text, or a chip when it is long. Nothing in it can act on a terminal.

/// A paste above this many lines, or characters, becomes a chip.
const CHIP_LINES: usize = 10;
const CHIP_CHARS: usize = 1000;
/// Chips a buffer can hold: the characters of private use plane 15.
pub(super) const MAX_CHIPS: usize = 0xFFFE;
/// The first chip character.
const CHIP_BASE: u32 = 0xF_0000;
/// An escape sequence with a text in it (a title, say) is looked at this far for its end.
const STRING_BYTES: usize = 4096;

/// What came of a paste.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pasted {
    /// Its number, when it became a chip.
    pub chip: Option<usize>,
    /// Control characters left out (those that begin or end an escape sequence count), and others nobody can
    /// see: tag characters and private use plane 15.
    pub dropped: usize,
}

/// The character that stands for the chip at `index`.
pub(super) fn chip_char(index: usize) -> Option<char> {
    let offset = u32::try_from(index).ok().filter(|_| index < MAX_CHIPS)?;
    char::from_u32(CHIP_BASE + offset)
}

/// Which chip a character stands for.
pub(super) fn chip_index(c: char) -> Option<usize> {
    let offset = u32::from(c).checked_sub(CHIP_BASE)?;
    usize::try_from(offset).ok().filter(|index| *index < MAX_CHIPS)
}

/// Whether a character may be in the text as itself.
pub(super) fn is_plain(c: char) -> bool {
    (!c.is_control() || c == '\n' || c == '\t') && !is_plane_15(c)
}

const fn is_plane_15(c: char) -> bool {
    matches!(c, '\u{F0000}'..='\u{FFFFF}')
}

const fn is_tag(c: char) -> bool {
    matches!(c, '\u{E0000}'..='\u{E007F}')
}

/// Whether a clean paste becomes a chip.
pub(super) fn is_long(text: &str) -> bool {
    line_count(text) > CHIP_LINES || text.chars().nth(CHIP_CHARS).is_some()
}

/// What is drawn for a chip.
pub(super) fn label(number: usize, text: &str) -> String {
    match line_count(text) {
        0 | 1 => format!("[paste {number}: {} characters]", text.chars().count()),
        lines => format!("[paste {number}: {lines} lines]"),
    }
}

fn line_count(text: &str) -> usize {
    text.bytes().filter(|b| *b == b'\n').count() + usize::from(!text.is_empty() && !text.ends_with('\n'))
}

/// Line ends to newlines; escape sequences, control characters, plane 15 and hidden tags out. Returns the
/// text and how many unseen characters were left out. Flags written with tags (England's, say) stay.
pub(super) fn clean(raw: &str) -> (String, usize) {
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    let mut dropped = 0;
    let mut in_flag = false;
    while let Some(at) = rest.find(|c: char| !is_plain(c) || is_tag(c)) {
        let (plain, tail) = rest.split_at(at);
        out.push_str(plain);
        in_flag = plain.ends_with('\u{1F3F4}') || (in_flag && plain.is_empty());
        let Some(c) = tail.chars().next() else { break };
        let mut skip = c.len_utf8();
        match c {
            '\r' => {
                out.push('\n');
                skip += usize::from(tail.starts_with("\r\n"));
            }
            '\u{1B}' | '\u{90}' | '\u{98}' | '\u{9B}' | '\u{9D}'..='\u{9F}' => {
                skip = escape_len(tail);
                let removed = tail.get(..skip).unwrap_or_default();
                dropped += removed.chars().filter(|c| c.is_control()).count();
            }
            _ if is_tag(c) && in_flag => out.push(c),
            _ => dropped += 1,
        }
        in_flag = in_flag && is_tag(c);
        rest = tail.get(skip..).unwrap_or_default();
    }
    out.push_str(rest);
    (out, dropped)
}

/// Bytes of the escape sequence `text` begins with. One without an end is only its introducer: what
/// follows is text that somebody wants to keep.
fn escape_len(text: &str) -> usize {
    let (introducer, rest) = match text.strip_prefix('\u{1B}') {
        None => (2, text.get(2..).unwrap_or_default()),
        Some(rest) if rest.starts_with(['[', ']', 'P', 'X', '^', '_']) => {
            (2, rest.get(1..).unwrap_or_default())
        }
        Some(rest) => {
            // ESC, intermediates, one final character.
            let middle = rest.bytes().take_while(|b| matches!(b, 0x20..=0x2F)).count();
            let last = rest.as_bytes().get(middle).filter(|b| matches!(b, 0x30..=0x7E));
            return match last {
                Some(_) => 1 + middle + 1,
                None => 1,
            };
        }
    };
    if text.starts_with("\u{1B}[") || text.starts_with('\u{9B}') {
        let middle = rest.bytes().take(256).take_while(|b| matches!(b, 0x20..=0x3F)).count();
        let last = rest.as_bytes().get(middle).filter(|b| matches!(b, 0x40..=0x7E));
        return introducer + middle + usize::from(last.is_some());
    }
    for (at, c) in rest.char_indices().take_while(|(at, c)| *at < STRING_BYTES && *c != '\n') {
        match c {
            '\u{7}' | '\u{9C}' => return introducer + at + c.len_utf8(),
            '\u{1B}' if rest.get(at + 1..).is_some_and(|r| r.starts_with('\\')) => {
                return introducer + at + 2;
            }
            _ => {}
        }
    }
    introducer
}
