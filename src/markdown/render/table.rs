//! Tables: cells collected, columns measured in cells of the screen, lines drawn with rules between.

use crate::markdown::wrap::Styled;
use pulldown_cmark::Alignment;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use std::ops::Range;

/// A table in the making.
pub(super) struct Table {
    /// Its bytes in the source.
    pub(super) range: Range<usize>,
    alignments: Vec<Alignment>,
    rows: Vec<Vec<Styled>>,
    row: Vec<Styled>,
}

impl Table {
    pub(super) const fn new(alignments: Vec<Alignment>, range: Range<usize>) -> Self {
        Self { range, alignments, rows: Vec::new(), row: Vec::new() }
    }

    pub(super) fn push(&mut self, cell: Styled) {
        self.row.push(cell);
    }

    pub(super) fn end_row(&mut self) {
        self.rows.push(std::mem::take(&mut self.row));
    }

    /// The lines, the head first; `None` if it is wider than `width`.
    pub(super) fn lines(&self, width: usize, rule: Style) -> Option<Vec<Line<'static>>> {
        let columns = self.rows.iter().map(Vec::len).max()?;
        let cells = |column: usize| self.rows.iter().filter_map(move |row| row.get(column));
        let widths: Vec<usize> =
            (0..columns).map(|column| cells(column).map(Styled::width).max().unwrap_or(0)).collect();
        if widths.iter().sum::<usize>() + 3 * columns.saturating_sub(1) > width {
            return None;
        }
        let mut lines = Vec::with_capacity(self.rows.len() + 1);
        for (at, row) in self.rows.iter().enumerate() {
            lines.push(self.line(row, &widths, rule));
            if at == 0 {
                let bars: Vec<String> = widths.iter().map(|width| "─".repeat(*width)).collect();
                lines.push(Line::from(Span::styled(bars.join("─┼─"), rule)));
            }
        }
        Some(lines)
    }

    fn line(&self, row: &[Styled], widths: &[usize], rule: Style) -> Line<'static> {
        let mut spans = Vec::new();
        for (column, width) in widths.iter().enumerate() {
            if column > 0 {
                spans.push(Span::styled(" │ ", rule));
            }
            let cell = row.get(column);
            let room = width.saturating_sub(cell.map_or(0, Styled::width));
            let before = match self.alignments.get(column) {
                Some(Alignment::Right) => room,
                Some(Alignment::Center) => room / 2,
                _ => 0,
            };
            spans.push(Span::raw(" ".repeat(before)));
            spans.extend(cell.into_iter().flat_map(Styled::to_spans));
            if column + 1 < widths.len() {
                spans.push(Span::raw(" ".repeat(room - before)));
            }
        }
        spans.retain(|span| !span.content.is_empty());
        Line::from(spans)
    }
}
