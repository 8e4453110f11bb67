//! Help: every command with its keys and its slash name, from the command table.

use super::{Edges, panel};
use crate::command::help_lines;
use crate::text::width::cut;
use crate::theme::Role;
use crate::ui::composer::hints;
use crate::ui::turn::Scene;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

pub(super) fn draw(top: usize, scene: Scene<'_>, area: Rect, buf: &mut Buffer) {
    let table = help_lines();
    draw_table(&table, top, scene, area, buf);
}

/// Columns: keys, slash command, what it does.
pub(super) fn draw_table(
    table: &[(String, String, &'static str)],
    top: usize,
    scene: Scene<'_>,
    area: Rect,
    buf: &mut Buffer,
) {
    let widest = |column: fn(&(String, String, &'static str)) -> &str| {
        table.iter().map(|row| column(row).width()).max().unwrap_or(0)
    };
    let roomy = scene.page.is_roomy();
    let keys = widest(|row| &row.0).min(if roomy { 24 } else { 12 });
    let slash = widest(|row| &row.1).min(if roomy { 24 } else { 10 });
    let what = widest(|row| row.2);
    let gap = if roomy { 3 } else { 1 };

    let room = usize::from(area.height).saturating_sub(if roomy { 4 } else { 2 });
    let shown = table.len().min(room);
    let top = top.min(table.len().saturating_sub(shown));
    let dim = scene.theme.style(Role::Dim);
    let count = if shown < table.len() {
        Line::styled(format!("{}–{} of {}", top + 1, top + shown, table.len()), dim)
    } else {
        Line::default()
    };
    let scroll = [("↑↓", "scroll"), ("esc", "close")];
    let keys_line = hints(if shown < table.len() { &scroll } else { &scroll[1..] }, scene.theme);
    let edges =
        Edges { title: Line::styled("Help", scene.theme.style(Role::Heading)), count, keys: keys_line };
    let inner = panel(keys + slash + what + 2 * gap, table.len().max(1), &edges, scene, area, buf);

    let rest = usize::from(inner.width).saturating_sub(keys + slash + 2 * gap);
    for (y, (key, name, what)) in (inner.top()..inner.bottom()).zip(table.iter().skip(top)) {
        let pad = |text: &str, width: usize| {
            let text = cut(text, width);
            format!("{text}{}", " ".repeat(width.saturating_sub(text.width()) + gap))
        };
        let line = Line::from(vec![
            Span::styled(pad(key, keys), scene.theme.style(Role::Accent)),
            Span::styled(pad(name, slash), scene.theme.style(Role::Text)),
            Span::styled(cut(what, rest), dim),
        ]);
        buf.set_line(inner.x, y, &line, inner.width);
    }
}
