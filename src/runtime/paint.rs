//! From frames to bytes. Pure: what the terminal shows is remembered, only what differs is sent.
//!
//! The bytes of a frame are one piece, wrapped in synchronized output, so that a terminal that knows it never
//! shows half a frame.

use crate::chat::GenKey;
use ratatui::backend::{Backend, CrosstermBackend};
use ratatui::buffer::Buffer;
use ratatui::layout::Position;
use unicode_width::UnicodeWidthStr;

const BEGIN: &[u8] = b"\x1b[?2026h";
const END: &[u8] = b"\x1b[?2026l";
const CLEAR: &[u8] = b"\x1b[0m\x1b[H\x1b[2J";
const HIDE: &[u8] = b"\x1b[?25l";
const SHOW: &[u8] = b"\x1b[?25h";

/// A whole frame, as the view drew it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Picture {
    /// Every cell.
    pub(super) buffer: Buffer,
    /// Where the cursor is, if it is shown.
    pub(super) cursor: Option<Position>,
    /// Attempts whose text is on it and whose first painting nobody has reported.
    pub(super) attempts: Vec<GenKey>,
}

/// How much of a frame is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Extent {
    /// What changed.
    #[default]
    Changes,
    /// Everything, on a cleared screen.
    All,
}

/// What the terminal shows, as far as we know.
#[derive(Debug, Default)]
pub(super) struct Painter {
    painted: Option<(Buffer, Option<Position>)>,
}

impl Painter {
    /// The bytes that make the terminal show this picture; none when it shows it already.
    pub(super) fn paint(&mut self, picture: Picture, extent: Extent) -> Vec<u8> {
        let Picture { mut buffer, cursor, .. } = picture;
        mend(&mut buffer);
        let known =
            self.painted.take().filter(|(before, _)| extent == Extent::Changes && before.area == buffer.area);
        let is_clean = known.is_none();
        let (before, cursor_before) = known.unwrap_or_else(|| (Buffer::empty(buffer.area), None));
        let mut cells = before.diff_iter(&buffer).peekable();

        let mut bytes = Vec::new();
        let has_cells = cells.peek().is_some();
        if is_clean || has_cells || cursor != cursor_before {
            bytes.extend_from_slice(BEGIN);
            if is_clean {
                bytes.extend_from_slice(HIDE);
                bytes.extend_from_slice(CLEAR);
            } else if cursor_before.is_some() && (has_cells || cursor.is_none()) {
                bytes.extend_from_slice(HIDE);
            }
            if has_cells {
                // Writing to memory can't fail.
                let _ = CrosstermBackend::new(&mut bytes).draw(cells);
            }
            if let Some(at) = cursor {
                let _ = CrosstermBackend::new(&mut bytes).set_cursor_position(at);
                bytes.extend_from_slice(SHOW);
            }
            bytes.extend_from_slice(END);
        }
        self.painted = Some((buffer, cursor));
        bytes
    }
}

/// Makes blank every wide character whose second half something else was drawn over (a popup's border): no
/// terminal can show half of one, and ratatui's diff takes it that there is none.
fn mend(buffer: &mut Buffer) {
    let width = usize::from(buffer.area.width).max(1);
    for row in buffer.content.chunks_mut(width) {
        for column in 0..row.len() {
            let Some((cell, after)) = row.get_mut(column..).and_then(<[_]>::split_first_mut) else {
                continue;
            };
            // Only longer symbols can be wide.
            if cell.symbol().len() > 1 {
                let covered = cell.symbol().width().saturating_sub(1);
                if after.len() < covered || after.iter().take(covered).any(|cell| cell.symbol() != " ") {
                    cell.set_symbol(" ");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use ratatui::layout::Rect;
    use ratatui::style::{Color, Modifier, Style};
    use std::num::NonZeroU16;

    fn picture(buffer: Buffer, cursor: Option<Position>) -> Picture {
        Picture { buffer, cursor, attempts: Vec::new() }
    }

    fn blank(cols: u16, rows: u16) -> Buffer {
        Buffer::empty(Rect::new(0, 0, cols, rows))
    }

    fn size(n: u16) -> NonZeroU16 {
        NonZeroU16::new(n).expect("not zero")
    }

    fn rows(buffer: &Buffer) -> Vec<String> {
        let width = usize::from(buffer.area.width);
        buffer
            .content
            .chunks(width)
            .map(|row| {
                let (mut text, mut skip) = (String::new(), 0);
                for cell in row {
                    if skip > 0 {
                        skip -= 1;
                        continue;
                    }
                    text.push_str(cell.symbol());
                    skip = cell.symbol().width().saturating_sub(1);
                }
                text.trim_end().to_owned()
            })
            .collect()
    }

    #[test]
    fn an_unchanged_frame_is_no_bytes() {
        let mut painter = Painter::default();
        let mut buffer = blank(20, 3);
        buffer.set_string(0, 0, "hello", Style::new());
        let at = Some(Position::new(5, 0));
        assert!(!painter.paint(picture(buffer.clone(), at), Extent::Changes).is_empty());
        assert_eq!(painter.paint(picture(buffer.clone(), at), Extent::Changes), b"");
        assert!(!painter.paint(picture(buffer, at), Extent::All).is_empty());
    }

    #[test]
    fn a_frame_is_one_synchronized_piece() {
        let mut painter = Painter::default();
        let bytes = painter.paint(picture(blank(9, 2), Some(Position::ORIGIN)), Extent::Changes);
        assert!(bytes.starts_with(BEGIN) && bytes.ends_with(END));
        let moved = painter.paint(picture(blank(9, 2), Some(Position::new(3, 1))), Extent::Changes);
        assert_eq!(String::from_utf8_lossy(&moved), "\u{1b}[?2026h\u{1b}[2;4H\u{1b}[?25h\u{1b}[?2026l");
    }

    #[test]
    fn half_a_wide_character_is_none() {
        let mut buffer = blank(6, 1);
        buffer.set_string(0, 0, "日本語", Style::new());
        buffer.set_string(3, 0, "|", Style::new());
        mend(&mut buffer);
        assert_eq!(rows(&buffer), ["日 |語"]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn the_terminal_shows_what_the_view_drew(
            edits in prop::collection::vec(
                (0..6u16, 0..30u16, "[ a-zé日本]{0,12}", 0..4u8, any::<bool>(), 0..20u8), 1..40)
        ) {
            let (mut cols, mut lines) = (30, 6);
            let mut terminal = vt100::Parser::new(size(lines), size(cols), 0);
            let mut painter = Painter::default();
            let mut buffer = blank(cols, lines);
            for (row, col, text, colour, shows_cursor, action) in edits {
                let mut extent = Extent::Changes;
                match action {
                    0 => extent = Extent::All,
                    1 => {
                        (cols, lines) = if cols == 30 { (17, 9) } else { (30, 6) };
                        terminal.set_size(size(lines), size(cols));
                        buffer = blank(cols, lines);
                    }
                    2 => buffer.reset(),
                    _ => {}
                }
                let style = Style::new().fg(Color::Indexed(colour)).add_modifier(Modifier::BOLD);
                let (row, col) = (row.min(lines - 1), col.min(cols - 1));
                buffer.set_string(col, row, &text, style);
                let cursor = shows_cursor.then_some(Position::new(col, row));
                let bytes = painter.paint(picture(buffer.clone(), cursor), extent);
                terminal.process(&bytes);
                mend(&mut buffer);
                let shown: Vec<String> =
                    terminal.screen().rows(0, cols).map(|row| row.trim_end().to_owned()).collect();
                prop_assert_eq!(&shown, &rows(&buffer));
                prop_assert_eq!(terminal.screen().hide_cursor(), cursor.is_none());
                if cursor.is_some() {
                    prop_assert_eq!(terminal.screen().cursor_position(), (row, col));
                }
            }
        }
    }
}
