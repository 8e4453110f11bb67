//! The measures of the page: everything that depends on how many columns there are, and on nothing else.

/// Columns from which there are margins, gaps and a box around the composer.
const ROOMY: u16 = 60;

/// Lines of prose longer than this are hard to read.
const MAX_PROSE: usize = 100;

/// The page's measures in cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Page {
    /// Columns of the terminal.
    pub(super) cols: u16,
    /// Columns left of the text.
    pub(super) margin: u16,
    /// Columns for prose.
    pub(super) prose: usize,
    /// Columns for code, tables and receipts.
    pub(super) wide: usize,
    /// Blank rows between things.
    pub(super) gap: usize,
}

impl Page {
    pub(super) fn new(cols: u16) -> Self {
        let (margin, gap) = if cols >= ROOMY { (2, 1) } else { (1, 0) };
        let wide = usize::from(cols.saturating_sub(2 * margin)).max(8);
        Self { cols, margin, prose: wide.min(MAX_PROSE), wide, gap }
    }

    /// Whether there is room for boxes and margins.
    pub(super) const fn is_roomy(&self) -> bool {
        self.cols >= ROOMY
    }
}
