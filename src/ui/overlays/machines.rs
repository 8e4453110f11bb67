//! The machines: a row for each, and below them the next step of the marked one.

use super::{Edges, panel};
use crate::app::{MachineRow, machines};
use crate::text::width::cut;
use crate::theme::Role;
use crate::ui::composer::hints;
use crate::ui::turn::Scene;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

/// Columns of the panel at most.
const MOST: u16 = 112;
/// Cells between columns.
const GAP: usize = 2;

pub(super) fn draw(selected: usize, scene: Scene<'_>, area: Rect, buf: &mut Buffer) {
    let theme = scene.theme;
    let rows = machines(scene.model);
    let at = selected.min(rows.len().saturating_sub(1));
    let edges = Edges {
        title: Line::styled("Machines", theme.style(Role::Heading)),
        count: Line::styled(rows.len().to_string(), theme.style(Role::Dim)),
        keys: hints(&[("r", "test again"), ("enter", "use"), ("esc", "close")], theme),
    };
    let width = usize::from(area.width.min(MOST)).saturating_sub(8);
    let inner = panel(width, rows.len().max(1) + 2, &edges, scene, area, buf);
    if rows.is_empty() {
        let text = "no machine: this build has no engine, and no [[backend]] is configured";
        buf.set_line(inner.x, inner.y, &Line::styled(text, theme.style(Role::Dim)), inner.width);
        return;
    }
    let below = u16::from(inner.height > 2) * 2;
    let list = Rect { height: inner.height.saturating_sub(below), ..inner };
    let height = usize::from(list.height).max(1);
    let top = (at + 1).saturating_sub(height).min(rows.len().saturating_sub(height));
    let widest = |cell: fn(&MachineRow) -> &str| rows.iter().map(|row| cell(row).width()).max().unwrap_or(0);
    let columns = [
        widest(|row| &row.name).min(24),
        widest(|row| row.kind),
        widest(|row| &row.rtt),
        widest(|row| &row.models),
    ];
    for (y, (index, row)) in (list.top()..list.bottom()).zip(rows.iter().enumerate().skip(top)) {
        buf.set_line(list.x, y, &line(row, columns, usize::from(list.width), scene), list.width);
        if index == at {
            let full = Rect { x: list.x.saturating_sub(1), y, width: list.width + 2, height: 1 };
            crate::ui::mark_row(full, theme, buf);
        }
    }
    if below > 0
        && let Some(row) = rows.get(at)
    {
        let step = if row.step.is_empty() { "nothing to do" } else { &row.step };
        let text = Line::styled(cut(step, usize::from(inner.width)), theme.style(Role::Dim));
        buf.set_line(inner.x, inner.bottom().saturating_sub(1), &text, inner.width);
    }
}

/// Mark, name, state; then, as far as there is room, what it is, how fast it answers, how many models it has.
fn line(
    row: &MachineRow,
    [name, kind, rtt, models]: [usize; 4],
    width: usize,
    scene: Scene<'_>,
) -> Line<'static> {
    let style = |role| scene.theme.style(role);
    let role = match row.mark {
        "●" => Role::Good,
        "✕" | "▲" => Role::Bad,
        _ => Role::Dim,
    };
    let padded = |text: &str, to: usize| {
        let text = cut(text, to);
        format!("{text}{}", " ".repeat(to.saturating_sub(text.width())))
    };
    let mut spans = vec![
        Span::styled(padded(row.mark, 2), style(role)),
        Span::styled(padded(&row.name, name), style(Role::Text)),
    ];
    let mut used = 2 + name;
    for (text, column) in [(row.kind, kind), (row.models.as_str(), models), (row.rtt.as_str(), rtt)] {
        // The state says most and keeps some room.
        if column > 0 && used + GAP + column + GAP + 16 <= width {
            spans
                .push(Span::styled(format!("{}{}", " ".repeat(GAP), padded(text, column)), style(Role::Dim)));
            used += GAP + column;
        }
    }
    let state = cut(&row.state, width.saturating_sub(used + GAP));
    spans.push(Span::styled(format!("{}{state}", " ".repeat(GAP)), style(Role::Text)));
    Line::from(spans)
}
