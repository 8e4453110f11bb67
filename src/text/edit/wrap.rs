//! How a buffer is drawn: visual rows at a width, and the cursor among them.
//!
//! Rows break after white space where they can, else between graphemes. The last cell of a row is kept for
//! the cursor, or for one blank before a break; so a row never takes more cells than the width.

use super::{EditBuffer, paste};
use crate::text::width::{cut, width as cells};
use std::ops::Range;
use unicode_segmentation::UnicodeSegmentation;

/// Distance of tab stops in cells.
const TAB: usize = 4;

/// A draft as drawn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// Its rows, at least one.
    pub rows: Vec<Row>,
    /// The row the cursor is in.
    pub cursor_row: usize,
    /// The cell of that row the cursor is in, less than the width.
    pub cursor_col: usize,
}

/// One visual row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// Its bytes in the buffer's text, without a line break.
    pub range: Range<usize>,
    /// What to draw: chips as their labels, tabs as spaces.
    pub text: String,
    /// The parts of `text` that are labels of chips.
    pub chips: Vec<Range<usize>>,
}

/// A grapheme as drawn.
struct Drawn<'a> {
    text: std::borrow::Cow<'a, str>,
    cells: usize,
    is_chip: bool,
    is_space: bool,
}

/// The row being filled.
#[derive(Default)]
struct Filling {
    row: Row,
    cells: usize,
    /// Where it may break: bytes of the buffer, bytes of the drawn text, cells.
    fold: Option<(usize, usize, usize)>,
}

pub(super) fn rows(buffer: &EditBuffer, width: usize) -> Rows {
    let width = width.max(2);
    let mut rows = Vec::new();
    let mut start = 0;
    for line in buffer.text.split('\n') {
        wrap_line(buffer, line, start, width, &mut rows);
        start += line.len() + 1;
    }
    let cursor_row = rows.partition_point(|row| row.range.start <= buffer.cursor).saturating_sub(1);
    let from = rows.get(cursor_row).map_or(0, |row| row.range.start);
    let cursor_col = columns(buffer, from..buffer.cursor, width).last().map_or(0, |(_, col)| col);
    Rows { rows, cursor_row, cursor_col: cursor_col.min(width - 1) }
}

/// The place in row `row` closest to cell `goal` from the left; `None` when there is no such row.
pub(super) fn offset_at(
    buffer: &EditBuffer,
    rows: &Rows,
    row: usize,
    goal: usize,
    width: usize,
) -> Option<usize> {
    let range = rows.rows.get(row)?.range.clone();
    // The end of a row that goes on below is drawn as the start of that one.
    let goes_on = rows.rows.get(row + 1).is_some_and(|next| next.range.start == range.end);
    let found = columns(buffer, range.clone(), width.max(2))
        .take_while(|(at, col)| *col <= goal && !(goes_on && *at == range.end))
        .last();
    Some(found.map_or(range.start, |(at, _)| at))
}

/// Every cursor place after the start of a part of one row: byte and cell.
fn columns(buffer: &EditBuffer, range: Range<usize>, width: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut col = 0;
    let text = buffer.text.get(range.clone()).unwrap_or_default();
    text.grapheme_indices(true).map(move |(at, grapheme)| {
        col += draw(buffer, grapheme, col, width).cells;
        (range.start + at + grapheme.len(), col)
    })
}

fn wrap_line(buffer: &EditBuffer, line: &str, start: usize, width: usize, rows: &mut Vec<Row>) {
    let limit = width - 1;
    let mut fill = Filling { row: Row { range: start..start, ..Row::default() }, ..Filling::default() };
    for (at, grapheme) in line.grapheme_indices(true) {
        let at = start + at;
        let mut drawn = draw(buffer, grapheme, fill.cells, width);
        while fill.cells + drawn.cells > limit && fill.row.range.end > fill.row.range.start {
            if drawn.is_space && fill.cells <= limit {
                drawn.text = " ".into();
                drawn.cells = 0;
                break;
            }
            fill.wrap(rows);
            drawn = draw(buffer, grapheme, fill.cells, width);
        }
        if drawn.is_chip {
            fill.mark_fold();
        }
        let hangs = drawn.is_space && drawn.cells == 0;
        fill.push(&drawn, at + grapheme.len());
        if drawn.is_space || drawn.is_chip || drawn.cells == 2 {
            fill.mark_fold();
        }
        if hangs {
            fill.wrap(rows);
        }
    }
    rows.push(fill.row);
}

impl Filling {
    fn push(&mut self, drawn: &Drawn<'_>, end: usize) {
        let from = self.row.text.len();
        self.row.text.push_str(&drawn.text);
        if drawn.is_chip {
            self.row.chips.push(from..self.row.text.len());
        }
        self.row.range.end = end;
        self.cells += drawn.cells;
    }

    fn mark_fold(&mut self) {
        if self.row.range.end > self.row.range.start {
            self.fold = Some((self.row.range.end, self.row.text.len(), self.cells));
        }
    }

    /// Ends the row at its last good place; what stood after that begins the next one.
    fn wrap(&mut self, rows: &mut Vec<Row>) {
        let (at, drawn, cells) =
            self.fold.take().unwrap_or((self.row.range.end, self.row.text.len(), self.cells));
        let carried = self.row.text.split_off(drawn);
        let moved = self.row.chips.partition_point(|chip| chip.start < drawn);
        let chips = self.row.chips.split_off(moved);
        let chips = chips.into_iter().map(|chip| chip.start - drawn..chip.end - drawn).collect();
        let next = Row { range: at..self.row.range.end, text: carried, chips };
        let mut full = std::mem::replace(&mut self.row, next);
        full.range.end = at;
        self.cells -= cells;
        rows.push(full);
    }
}

fn draw<'a>(buffer: &EditBuffer, grapheme: &'a str, col: usize, width: usize) -> Drawn<'a> {
    if let Some(label) = grapheme.chars().find_map(|c| buffer.chip_label(c)) {
        let text = cut(&label, width - 1);
        return Drawn { cells: cells(&text), text: text.into(), is_chip: true, is_space: false };
    }
    if grapheme == "\t" {
        let wide = (TAB - col % TAB).min(width - 1);
        return Drawn { text: " ".repeat(wide).into(), cells: wide, is_chip: false, is_space: true };
    }
    let is_space = grapheme.starts_with(char::is_whitespace);
    let is_flag = grapheme.starts_with('\u{1F3F4}');
    let is_seen = |c: char| paste::is_plain(c) && !is_hidden(c, is_flag);
    let text: std::borrow::Cow<'_, str> = if grapheme.chars().all(is_seen) {
        grapheme.into()
    } else {
        grapheme.chars().filter(|c| is_seen(*c)).collect::<String>().into()
    };
    match cells(&text) {
        wide if wide > width => Drawn { text: "…".into(), cells: 1, is_chip: false, is_space },
        // A blank of no width would hang for ever.
        0 if is_space => Drawn { text: " ".into(), cells: 1, is_chip: false, is_space },
        wide => Drawn { text, cells: wide, is_chip: false, is_space },
    }
}

/// Marks that change how other text is drawn, or hide text: sent as they are, but not drawn.
const fn is_hidden(c: char, is_flag: bool) -> bool {
    matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
        || (matches!(c, '\u{E0000}'..='\u{E007F}') && !is_flag)
}
