//! Help: every command with its keys and its slash name, from the command table.

use super::{Edges, panel};
use crate::keymap::help::{HelpRow, help};
use crate::text::width::cut;
use crate::theme::Role;
use crate::ui::composer::hints;
use crate::ui::turn::Scene;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

/// Keys of one command that are shown.
const KEYS: usize = 2;

pub(super) fn draw(top: usize, scene: Scene<'_>, area: Rect, buf: &mut Buffer) {
    let roomy = scene.page.is_roomy();
    let table = rows(if roomy { KEYS } else { 1 });
    let widest = |column: fn(&Entry) -> &str| {
        table.iter().filter_map(|row| row.as_ref().ok()).map(|row| column(row).width()).max().unwrap_or(0)
    };
    let columns = [
        widest(|row| &row.keys).min(if roomy { 24 } else { 10 }),
        widest(|row| &row.slash).min(if roomy { 24 } else { 9 }),
    ];
    let gap = if roomy { 3 } else { 1 };
    let room = usize::from(area.height).saturating_sub(if roomy { 4 } else { 2 }).max(1);
    let shown = table.len().min(room);
    let top = top.min(table.len() - shown);
    let dim = scene.theme.style(Role::Dim);
    let keys: &[_] =
        if shown < table.len() { &[("↑↓", "scroll"), ("esc", "close")] } else { &[("esc", "close")] };
    let edges = Edges {
        title: Line::styled("Help", scene.theme.style(Role::Heading)),
        count: Line::styled(format!("{}–{} of {}", top + 1, top + shown, table.len()), dim),
        keys: hints(keys, scene.theme),
    };
    let width = columns[0] + columns[1] + widest(|row| row.about) + 2 * gap;
    let inner = panel(width, shown, &edges, scene, area, buf);
    let rest = usize::from(inner.width).saturating_sub(columns[0] + columns[1] + 2 * gap);
    for (y, row) in (inner.top()..inner.bottom()).zip(table.iter().skip(top)) {
        let line = match row {
            Err(heading) => Line::styled((*heading).to_owned(), scene.theme.style(Role::Heading)),
            Ok(row) => Line::from(vec![
                Span::styled(column(&row.keys, columns[0], gap), scene.theme.style(Role::Accent)),
                Span::styled(column(&row.slash, columns[1], gap), scene.theme.style(Role::Text)),
                Span::styled(cut(row.about, rest), dim),
            ]),
        };
        buf.set_line(inner.x, y, &line, inner.width);
    }
}

struct Entry {
    keys: String,
    slash: String,
    about: &'static str,
}

/// Entries, headings in between, a blank line before each but the first.
fn rows(keys: usize) -> Vec<Result<Entry, &'static str>> {
    let mut out = Vec::new();
    for row in help() {
        match row {
            HelpRow::Heading(text) => {
                if !out.is_empty() {
                    out.push(Err(""));
                }
                out.push(Err(text));
            }
            HelpRow::Entry { slash, keys: all, about } => {
                let keys = all.iter().take(keys).map(String::as_str).collect::<Vec<_>>().join(", ");
                out.push(Ok(Entry { keys, slash, about }));
            }
        }
    }
    out
}

fn column(text: &str, width: usize, gap: usize) -> String {
    let text = cut(text, width);
    format!("{text}{}", " ".repeat(width.saturating_sub(text.width()) + gap))
}
