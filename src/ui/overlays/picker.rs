//! A list to choose from: a filter line, then rows with mark, label and aligned columns.

use super::{Edges, panel};
use crate::app::model::{Picker, PickerItem, PickerKind};
use crate::text::width::cut;
use crate::theme::Role;
use crate::ui::Cursor;
use crate::ui::composer::{hints, one_line};
use crate::ui::turn::Scene;
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

/// Cells between columns.
const GAP: usize = 2;

pub(super) fn draw(picker: &Picker, scene: Scene<'_>, area: Rect, buf: &mut Buffer) -> Cursor {
    let theme = scene.theme;
    let title = match picker.kind {
        PickerKind::Model => "Models",
        PickerKind::Theme => "Themes",
        PickerKind::Prompt => "Prompts",
        PickerKind::Session => "Sessions",
        PickerKind::History => "History",
    };
    let count = if picker.matches.len() == picker.items.len() {
        picker.items.len().to_string()
    } else {
        format!("{} of {}", picker.matches.len(), picker.items.len())
    };
    let edges = Edges {
        title: Line::styled(title, theme.style(Role::Heading)),
        count: Line::styled(count, theme.style(Role::Dim)),
        keys: hints(&[("↑↓", "move"), ("enter", "choose"), ("esc", "close")], theme),
    };
    let columns = Columns::of(&picker.items);
    let most = usize::from(area.height).saturating_sub(3).max(1);
    let inner =
        panel(columns.total().max(52), picker.items.len().clamp(1, most) + 1, &edges, scene, area, buf);

    let prompt = Span::styled("› ", theme.style(Role::Accent));
    buf.set_span(inner.x, inner.y, &prompt, inner.width);
    let field = Rect { x: inner.x + 2, width: inner.width.saturating_sub(2), height: 1, ..inner };
    let cursor = one_line(&picker.filter, "type to filter", field, theme, buf);

    let list = Rect { y: inner.y + 1, height: inner.height.saturating_sub(1), ..inner };
    let height = usize::from(list.height);
    if picker.matches.is_empty() {
        let text = if picker.items.is_empty() { "nothing here yet" } else { "nothing matches" };
        buf.set_line(list.x + 2, list.y, &Line::styled(text, theme.style(Role::Dim)), list.width);
        return Some(cursor);
    }
    // The marked row stays in sight, and the list moves no more than it must.
    let top = picker
        .selected
        .saturating_sub(height.saturating_sub(1).max(1))
        .min(picker.matches.len().saturating_sub(height));
    for (y, (at, index)) in (list.top()..list.bottom()).zip(picker.matches.iter().enumerate().skip(top)) {
        let Some(item) = picker.items.get(*index) else { continue };
        let row = Rect { y, height: 1, ..list };
        buf.set_line(row.x, y, &columns.line(item, usize::from(row.width), scene), row.width);
        if at == picker.selected {
            let full = Rect { x: row.x.saturating_sub(1), width: row.width + 2, ..row };
            crate::ui::mark_row(full, theme, buf);
        }
    }
    Some(Position { x: cursor.x, y: cursor.y })
}

/// Widths of the columns over all items, so that they do not move while filtering. Remarks do not count.
struct Columns {
    label: usize,
    others: Vec<usize>,
}

impl Columns {
    fn of(items: &[PickerItem]) -> Self {
        let label = items.iter().map(|item| item.label.width()).max().unwrap_or(0).min(48);
        let count = items.iter().map(|item| item.columns.len()).max().unwrap_or(0);
        let width = |column: usize| {
            items
                .iter()
                .filter(|item| item.columns.len() > 1 || count == 1)
                .filter_map(|item| item.columns.get(column))
                .map(|text| text.width())
                .max()
                .unwrap_or(0)
        };
        Self { label, others: (0..count).map(width).collect() }
    }

    fn total(&self) -> usize {
        2 + self.label
            + self.others.iter().filter(|width| **width > 0).map(|width| width + GAP).sum::<usize>()
    }

    /// A row; numbers stand at the right of their column. What does not fit is left out from the right. A
    /// single column is a remark and takes the rest of the row.
    fn line(&self, item: &PickerItem, width: usize, scene: Scene<'_>) -> Line<'static> {
        let theme = scene.theme;
        let role = match item.mark {
            "●" => Role::Good,
            "✕" | "▲" => Role::Bad,
            _ => Role::Dim,
        };
        let label_width = self.label.min(width.saturating_sub(2));
        let label = cut(&item.label, label_width);
        let mut used = 2 + label_width;
        let mut spans = vec![
            Span::styled(
                format!("{}{}", item.mark, " ".repeat(2 - item.mark.width().min(2))),
                theme.style(role),
            ),
            Span::styled(label.clone(), theme.style(if item.mark == "✕" { Role::Dim } else { Role::Text })),
            Span::raw(" ".repeat(label_width.saturating_sub(label.width()))),
        ];
        if let [remark] = item.columns.as_slice() {
            let text = cut(remark, width.saturating_sub(used + GAP));
            spans.push(Span::styled(format!("{}{text}", " ".repeat(GAP)), theme.style(Role::Dim)));
            return Line::from(spans);
        }
        for (text, column) in item.columns.iter().zip(&self.others).filter(|(_, column)| **column > 0) {
            let room = width.saturating_sub(used + GAP).min(*column);
            if room == 0 || (room < *column && room < 8) {
                break;
            }
            let text = cut(text, room);
            let pad = " ".repeat(room.saturating_sub(text.width()));
            let is_number = text.starts_with(|c: char| c.is_ascii_digit() || c == '≈');
            let text = if is_number { format!("{pad}{text}") } else { format!("{text}{pad}") };
            spans.push(Span::styled(format!("{}{text}", " ".repeat(GAP)), theme.style(Role::Dim)));
            used += GAP + room;
        }
        Line::from(spans)
    }
}
