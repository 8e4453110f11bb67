//! Moving through the transcript. The view follows the end, or holds a line of a turn at its top; it never
//! moves by itself. What the last frame measured is all that is known of rows.

use super::FrameFacts;
use super::model::Scroll;
use super::update::Step;

/// How far to go.
#[derive(Clone, Copy)]
pub(super) enum By {
    PageUp,
    PageDown,
    RowUp,
    RowDown,
    Top,
}

impl Step<'_> {
    /// Moves the view.
    pub(super) fn scroll(&mut self, by: By) {
        let frame = self.ctx.frame;
        // Two rows stay, so that the eye finds its place.
        let page = frame.viewport_rows.saturating_sub(2).max(1);
        let top = match by {
            By::PageUp => frame.top_row.saturating_sub(page),
            By::PageDown => frame.top_row + page,
            By::RowUp => frame.top_row.saturating_sub(1),
            By::RowDown => frame.top_row + 1,
            By::Top => 0,
        };
        let seen_rows = match self.model.scroll {
            Scroll::Anchored { seen_rows, .. } => seen_rows,
            Scroll::Follow => frame.total_rows,
        };
        self.model.scroll = anchor(frame, top, seen_rows);
    }

    /// Back to the end, and with it.
    pub(super) fn follow(&mut self) {
        self.model.scroll = Scroll::Follow;
    }
}

fn anchor(frame: &FrameFacts, top: usize, seen_rows: usize) -> Scroll {
    if top + frame.viewport_rows >= frame.total_rows {
        return Scroll::Follow;
    }
    let turn = frame.turn_rows.partition_point(|start| *start <= top).saturating_sub(1);
    let start = frame.turn_rows.get(turn).copied().unwrap_or(0);
    Scroll::Anchored { turn, row: top.saturating_sub(start), cols: frame.cols, seen_rows }
}
