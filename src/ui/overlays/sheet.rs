//! Something to read: lines made by the app, scrolled.

use super::{Edges, panel};
use crate::app::model::{Sheet, SheetKind, SheetRow, Tone};
use crate::markdown::wrap::{Styled, wrap};
use crate::theme::Role;
use crate::ui::composer::hints;
use crate::ui::turn::Scene;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

/// Cells of a line at most; longer ones go on below.
const MOST: usize = 112;

/// Draws it; the last row it can be scrolled to.
pub(super) fn draw(sheet: &Sheet, scene: Scene<'_>, area: Rect, buf: &mut Buffer) -> usize {
    let room =
        usize::from(area.width).saturating_sub(if scene.page.is_roomy() { 8 } else { 4 }).clamp(1, MOST);
    let mut lines = Vec::new();
    for row in &sheet.rows {
        let mut text = Styled::default();
        text.push(&row.text, scene.theme.style(role(row)));
        wrap(&text, room, &[], &[Span::raw("  ")], &mut lines);
    }
    let rows = usize::from(area.height).saturating_sub(2).max(1);
    let shown = lines.len().min(rows);
    let last = lines.len() - shown;
    let top = sheet.top.min(last);
    let mut keys = Vec::new();
    if last > 0 {
        keys.push(("↑↓", "scroll"));
    }
    if matches!(sheet.kind, SheetKind::Route(_)) {
        keys.push(("r", "route again"));
    }
    keys.push(("esc", "close"));
    let place =
        if last > 0 { format!("{}–{} of {}", top + 1, top + shown, lines.len()) } else { String::new() };
    let edges = Edges {
        title: Line::styled(sheet.title.to_string(), scene.theme.style(Role::Heading)),
        count: Line::styled(place, scene.theme.style(Role::Dim)),
        keys: hints(&keys, scene.theme),
    };
    let width = lines.iter().map(Line::width).max().unwrap_or(0).max(40);
    let inner = panel(width, shown, &edges, scene, area, buf);
    for (y, line) in (inner.top()..inner.bottom()).zip(lines.iter().skip(top)) {
        buf.set_line(inner.x, y, line, inner.width);
    }
    last
}

const fn role(row: &SheetRow) -> Role {
    match row.tone {
        Tone::Head => Role::Heading,
        Tone::Plain => Role::Text,
        Tone::Dim => Role::Dim,
        Tone::Good => Role::Good,
        Tone::Bad => Role::Warn,
    }
}
