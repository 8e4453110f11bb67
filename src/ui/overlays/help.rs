//! Help: every command with its keys and its slash name, from the command table.

use super::{Edges, panel};
use crate::keymap::help::{HelpRow, help};
use crate::markdown::wrap::{Styled, wrap};
use crate::theme::Role;
use crate::ui::composer::hints;
use crate::ui::turn::Scene;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

/// Columns from which keys, slash name and text stand side by side, and from which two keys are shown.
const SIDE_BY_SIDE: u16 = 60;
const TWO_KEYS: u16 = 100;

/// Draws it; the last row it can be scrolled to.
pub(super) fn draw(top: usize, scene: Scene<'_>, area: Rect, buf: &mut Buffer) -> usize {
    let lines = lines(scene);
    let room = usize::from(area.height).saturating_sub(2).max(1);
    let shown = lines.len().min(room);
    let last = lines.len() - shown;
    let top = top.min(last);
    let keys: &[_] =
        if shown < lines.len() { &[("↑↓", "scroll"), ("esc", "close")] } else { &[("esc", "close")] };
    let place = if shown < lines.len() {
        format!("{}–{} of {}", top + 1, top + shown, lines.len())
    } else {
        String::new()
    };
    let edges = Edges {
        title: Line::styled("Help", scene.theme.style(Role::Heading)),
        count: Line::styled(place, scene.theme.style(Role::Dim)),
        keys: hints(keys, scene.theme),
    };
    let width = lines.iter().map(Line::width).max().unwrap_or(0);
    let inner = panel(width, shown, &edges, scene, area, buf);
    for (y, line) in (inner.top()..inner.bottom()).zip(lines.iter().skip(top)) {
        buf.set_line(inner.x, y, line, inner.width);
    }
    last
}

/// The whole help; what a command does is never cut but goes on below.
fn lines(scene: Scene<'_>) -> Vec<Line<'static>> {
    let style = |role| scene.theme.style(role);
    let cols = scene.page.cols;
    let shown_keys = if cols >= TWO_KEYS { 2 } else { 1 };
    let room = usize::from(cols).saturating_sub(if scene.page.is_roomy() { 8 } else { 4 });
    let table = help();
    let joined =
        |keys: &[String]| keys.iter().take(shown_keys).map(String::as_str).collect::<Vec<_>>().join(", ");
    let widest = |cell: &dyn Fn(&HelpRow) -> usize| table.iter().map(cell).max().unwrap_or(0);
    let keys_width = widest(&|row| match row {
        HelpRow::Entry { keys, .. } => joined(keys).width(),
        HelpRow::Heading(_) => 0,
    });
    let slash_width = widest(&|row| match row {
        HelpRow::Entry { slash, .. } => slash.width(),
        HelpRow::Heading(_) => 0,
    });
    let mut out = Vec::new();
    for row in &table {
        let (slash, keys, about) = match row {
            HelpRow::Heading(text) => {
                if !out.is_empty() {
                    out.push(Line::default());
                }
                out.push(Line::styled(*text, style(Role::Heading)));
                continue;
            }
            HelpRow::Entry { slash, keys, about } => (slash, joined(keys), about),
        };
        let mut text = Styled::default();
        text.push(about, style(Role::Dim));
        let key = |pad: usize| {
            Span::styled(
                format!("{keys}{}", " ".repeat(pad.saturating_sub(keys.width()))),
                style(Role::Accent),
            )
        };
        let name = |pad: usize| {
            Span::styled(
                format!("{slash}{}", " ".repeat(pad.saturating_sub(slash.width()))),
                style(Role::Text),
            )
        };
        if cols >= SIDE_BY_SIDE {
            let blank = Span::raw(" ".repeat(keys_width + slash_width + 4));
            wrap(&text, room, &[key(keys_width + 2), name(slash_width + 2)], &[blank], &mut out);
        } else {
            let gap = if keys.is_empty() || slash.is_empty() { 0 } else { 2 };
            out.push(Line::from(vec![key(keys.width() + gap), name(0)]));
            wrap(&text, room, &[Span::raw("  ")], &[Span::raw("  ")], &mut out);
        }
    }
    out
}
