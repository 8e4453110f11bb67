//! What each character is to a terminal and a reader: the tables behind sanitising. Pure, no state.

use unicode_segmentation::UnicodeSegmentation;

/// Zero-width non-joiner.
pub(super) const ZWNJ: char = '\u{200C}';
/// Zero-width joiner.
pub(super) const ZWJ: char = '\u{200D}';

/// What a character is to a terminal and a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Newline, or one of the characters that mean one.
    Break,
    Tab,
    Return,
    Escape,
    /// A C1 control: an escape character and a letter in one.
    EscapeAnd(char),
    Backspace,
    /// Reorders the text around it.
    Bidi,
    /// Nothing anyone can see.
    Hidden,
    /// Joins or parts its neighbours, or selects a shape of the one before: kept only where that makes sense.
    Joiner,
    /// A tag: kept in flags only.
    Tag,
    /// Private use or not a character.
    Foreign,
    /// Anything else.
    Other,
}

pub(super) const fn class(c: char) -> Class {
    match c {
        '\n' | '\u{0B}' | '\u{0C}' | '\u{85}' | '\u{2028}' | '\u{2029}' => Class::Break,
        '\t' => Class::Tab,
        '\r' => Class::Return,
        '\u{1B}' => Class::Escape,
        '\u{8}' => Class::Backspace,
        '\u{80}'..='\u{9F}' => match char::from_u32(c as u32 - 0x40) {
            Some(letter) => Class::EscapeAnd(letter),
            None => Class::Hidden,
        },
        '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{200E}' | '\u{200F}' | '\u{61C}' => {
            Class::Bidi
        }
        ZWNJ | ZWJ => Class::Joiner,
        '\u{FE00}'..='\u{FE0F}' | '\u{E0100}'..='\u{E01EF}' | '\u{180B}'..='\u{180D}' | '\u{180F}' => {
            Class::Joiner
        }
        '\u{E0030}'..='\u{E0039}' | '\u{E0061}'..='\u{E007A}' | '\u{E007F}' => Class::Tag,
        '\0'..='\u{1F}'
        | '\u{7F}'
        | '\u{AD}'
        | '\u{34F}'
        | '\u{115F}'
        | '\u{1160}'
        | '\u{17B4}'
        | '\u{17B5}'
        | '\u{180E}'
        | '\u{200B}'
        | '\u{2060}'..='\u{2065}'
        | '\u{206A}'..='\u{206F}'
        | '\u{3164}'
        | '\u{FEFF}'
        | '\u{FFA0}'
        | '\u{FFF0}'..='\u{FFFB}'
        | '\u{1D173}'..='\u{1D17A}'
        | '\u{E0000}'..='\u{E0FFF}' => Class::Hidden,
        '\u{E000}'..='\u{F8FF}' | '\u{FDD0}'..='\u{FDEF}' | '\u{F0000}'..='\u{10FFFF}' => Class::Foreign,
        _ if c as u32 & 0xFFFE == 0xFFFE => Class::Foreign,
        _ => Class::Other,
    }
}

/// Whether a character always begins a cluster (but after a joiner) and needs no other look: most text.
pub(super) const fn is_base(c: char) -> bool {
    matches!(c,
        ' '..='~'
        | '\u{A0}'..='\u{AC}'
        | '\u{AE}'..='\u{2FF}'
        | '\u{370}'..='\u{482}'
        | '\u{48A}'..='\u{52F}'
        | '\u{1E00}'..='\u{1FFF}'
        | '\u{2010}'..='\u{2027}'
        | '\u{2030}'..='\u{205E}'
        | '\u{20A0}'..='\u{20BF}'
        | '\u{2100}'..='\u{2BFF}'
        | '\u{3000}'..='\u{3029}'
        | '\u{3030}'..='\u{3098}'
        | '\u{309B}'..='\u{312F}'
        | '\u{3190}'..='\u{A48C}'
        | '\u{F900}'..='\u{FAD9}'
        | '\u{FF01}'..='\u{FF9D}'
        | '\u{1F300}'..='\u{1F3FA}'
        | '\u{1F400}'..='\u{1FAFF}'
        | '\u{20000}'..='\u{2FA1D}')
}

/// Whether the character hangs on any base before it.
pub(super) fn is_mark(c: char) -> bool {
    let mut pair = [b'a', 0, 0, 0, 0];
    let [_, rest @ ..] = &mut pair;
    let len = 1 + c.encode_utf8(rest).len();
    pair.get(..len).and_then(|bytes| std::str::from_utf8(bytes).ok()).is_some_and(is_one_cluster)
}

/// Whether the whole text is drawn as one character.
pub(super) fn is_one_cluster(text: &str) -> bool {
    text.graphemes(true).nth(1).is_none()
}

/// Letters and marks of scripts where a joiner changes the shape of its neighbours.
const fn is_joining_script(c: char) -> bool {
    matches!(c,
        '\u{600}'..='\u{8FF}'
        | '\u{900}'..='\u{DFF}'
        | '\u{E00}'..='\u{109F}'
        | '\u{1780}'..='\u{18AA}'
        | '\u{1A00}'..='\u{1AFF}'
        | '\u{1B00}'..='\u{1C4F}'
        | '\u{A800}'..='\u{ABFF}'
        | '\u{FB50}'..='\u{FDCF}'
        | '\u{FDF0}'..='\u{FDFF}'
        | '\u{FE70}'..='\u{FEFC}'
        | '\u{11000}'..='\u{11FFF}')
}

/// Symbols an emoji may be made of.
const fn is_pictograph(c: char) -> bool {
    matches!(c, '\u{A9}' | '\u{AE}' | '\u{203C}'..='\u{2BFF}' | '\u{3030}' | '\u{303D}' | '\u{3297}' | '\u{3299}'
        | '\u{1F000}'..='\u{1FAFF}')
}

/// Whether a joiner or selector makes sense between these two.
pub(super) const fn joins(left: char, joiner: char, right: Option<char>) -> bool {
    match joiner {
        ZWNJ => is_joining_script(left) && matches!(right, Some(r) if is_joining_script(r)),
        ZWJ => match right {
            Some(r) if is_joining_script(r) => is_joining_script(left),
            Some(r) => (is_pictograph(left) || left == '\u{FE0F}') && is_pictograph(r),
            None => false,
        },
        // A digit becomes an emoji only as a keycap.
        '\u{FE0E}' | '\u{FE0F}' => {
            is_pictograph(left)
                || (matches!(left, '0'..='9' | '#' | '*') && matches!(right, Some('\u{20E3}')))
        }
        '\u{FE00}'..='\u{FE0D}' | '\u{E0100}'..='\u{E01EF}' => matches!(left,
            '\u{1000}'..='\u{109F}'
            | '\u{2200}'..='\u{22FF}'
            | '\u{2A00}'..='\u{2AFF}'
            | '\u{3400}'..='\u{9FFF}'
            | '\u{A840}'..='\u{A877}'
            | '\u{F900}'..='\u{FAD9}'
            | '\u{20000}'..='\u{3FFFD}'),
        _ => matches!(left, '\u{1820}'..='\u{18AA}'),
    }
}
