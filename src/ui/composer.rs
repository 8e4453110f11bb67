//! The composer: where the next turn is written. Its upper edge says where it goes and how full the context
//! is; its lower edge how warm the target is, and the keys that matter now. Also the edges other panels share.

use super::turn::Scene;
use super::{Cursor, format, target};
use crate::app::Model;
use crate::app::model::{Completion, Saving};
use crate::router::Decision;
use crate::text::EditBuffer;
use crate::text::edit::{Row, Rows};
use crate::text::width::cut;
use crate::theme::{Role, Theme};
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use std::ops::Range;
use unicode_width::UnicodeWidthStr;

/// Rows a terminal needs for a box around the composer.
const BOX_ROWS: u16 = 10;

/// Slash commands shown at once.
const COMPLETIONS: usize = 8;

const PLACEHOLDER: &str = "Ask anything. / for commands, ? for help";

/// The composer, measured.
pub(super) struct Composer {
    rows: Rows,
    /// Text rows on the screen.
    shown: u16,
    width: u16,
    is_boxed: bool,
}

impl Composer {
    pub(super) fn new(scene: Scene<'_>, area: Rect) -> Self {
        let is_boxed = scene.page.is_roomy() && area.height >= BOX_ROWS;
        // Boxed: a free column and an edge on both sides, a blank inside of each. Else: the prompt.
        let width = area.width.saturating_sub(if is_boxed { 6 } else { 4 }).max(2);
        let rows = scene.model.composer.buffer.rows(usize::from(width));
        let most = (area.height * 2 / 5).saturating_sub(if is_boxed { 2 } else { 1 }).max(1);
        let shown = super::rows(rows.rows.len()).clamp(1, most);
        Self { rows, shown, width, is_boxed }
    }

    /// Rows it takes.
    pub(super) const fn rows(&self) -> u16 {
        self.shown + if self.is_boxed { 2 } else { 1 }
    }

    /// Width of its text in cells.
    pub(super) fn width(&self) -> usize {
        usize::from(self.width)
    }

    pub(super) fn draw(&self, scene: Scene<'_>, area: Rect, buf: &mut Buffer) -> Cursor {
        let decision = target::next(scene.model);
        let top = target_line(scene, decision.as_ref());
        let context = more(scene, area.y).unwrap_or_else(|| context(scene, decision.as_ref(), self.is_boxed));
        let text = if self.is_boxed {
            let place = Rect { x: area.x + 1, width: area.width.saturating_sub(2), ..area };
            let keys = hints(&keys(scene.model), scene.theme);
            let room = usize::from(place.width).saturating_sub(keys.width() + 8);
            let state = state_line(scene, decision.as_ref(), room);
            frame(place, &top, &context, &state, &keys, scene.theme, buf);
            Rect { x: place.x + 2, y: place.y + 1, width: self.width, height: self.shown }
        } else {
            let keys = keys(scene.model);
            let is_busy = is_running(scene.model);
            let is_listing = scene.model.composer.completion.is_some();
            let right = if (is_busy && !is_listing) || context.width() == 0 {
                hints(keys.get(..1).unwrap_or_default(), scene.theme)
            } else {
                context
            };
            edge(Rect { height: 1, ..area }, ["─", "─"], &top, &right, scene.theme, buf);
            buf.set_string(area.x + 1, area.y + 1, ">", scene.theme.style(Role::Accent));
            Rect { x: area.x + 3, y: area.y + 1, width: self.width, height: self.shown }
        };
        Some(self.text(scene, text, buf))
    }

    fn text(&self, scene: Scene<'_>, area: Rect, buf: &mut Buffer) -> Position {
        let draft = &scene.model.composer.buffer;
        if draft.is_empty() {
            let text = cut(PLACEHOLDER, usize::from(area.width));
            buf.set_string(area.x, area.y, text, scene.theme.style(Role::Dim));
        }
        let height = usize::from(area.height);
        let top = (self.rows.cursor_row + 1).saturating_sub(height);
        for (y, row) in (area.top()..area.bottom()).zip(self.rows.rows.iter().skip(top)) {
            buf.set_line(area.x, y, &draft_line(row, scene.theme), area.width);
        }
        place(&self.rows, top, area)
    }
}

fn place(rows: &Rows, top: usize, area: Rect) -> Position {
    Position {
        x: area.x + super::rows(rows.cursor_col).min(area.width.saturating_sub(1)),
        y: area.y + super::rows(rows.cursor_row.saturating_sub(top)),
    }
}

/// A row of a draft; chips stand out.
fn draft_line(row: &Row, theme: &Theme) -> Line<'static> {
    let (text, chip) = (theme.style(Role::Text), theme.style(Role::Accent));
    let mut spans = Vec::new();
    let mut at = 0;
    let mut push = |range: std::ops::Range<usize>, style: Style| {
        if let Some(piece) = row.text.get(range).filter(|piece| !piece.is_empty()) {
            spans.push(Span::styled(piece.to_owned(), style));
        }
    };
    for range in &row.chips {
        push(at..range.start, text);
        push(range.clone(), chip);
        at = range.end;
    }
    push(at..row.text.len(), text);
    Line::from(spans)
}

/// A field of one line; where its cursor is.
pub(super) fn one_line(
    draft: &EditBuffer,
    hint: &str,
    area: Rect,
    theme: &Theme,
    buf: &mut Buffer,
) -> Position {
    let rows = draft.rows(usize::from(area.width).max(2));
    if draft.is_empty() {
        buf.set_string(area.x, area.y, cut(hint, usize::from(area.width)), theme.style(Role::Dim));
    }
    if let Some(row) = rows.rows.get(rows.cursor_row) {
        buf.set_line(area.x, area.y, &draft_line(row, theme), area.width);
    }
    place(&rows, rows.cursor_row, area)
}

/// `→ auto: mac · llama3.3-70b`, and `not saved` while it isn't though it should be. Whether the router chose is said
/// where there is a choice.
fn target_line(scene: Scene<'_>, decision: Option<&Decision>) -> Line<'static> {
    let style = |role| scene.theme.style(role);
    let room = usize::from(scene.page.cols / 2).saturating_sub(4);
    let mut spans = Vec::new();
    if let Some(decision) = decision {
        let chosen = target::chosen_by(scene.model);
        let room = room.saturating_sub(chosen.width());
        let host = cut(&crate::text::shown_line(&decision.backend, 24), room);
        let name = cut(&target::name(&decision.model), room.saturating_sub(host.width() + 3));
        spans.push(Span::styled("→ ", style(Role::Dim)));
        if !chosen.is_empty() {
            spans.push(Span::styled(chosen, style(Role::Accent)));
        }
        spans.push(Span::styled(host, style(target::role(scene.model, &decision.backend))));
        if !name.is_empty() {
            spans.push(Span::styled(" · ", style(Role::Dim)));
            spans.push(Span::styled(name, style(Role::Text)));
        }
    }
    let mut said = |text: String| {
        if !spans.is_empty() {
            spans.push(Span::styled(" · ", style(Role::Dim)));
        }
        spans.push(Span::styled(text, style(Role::Warn)));
    };
    match target::fence(scene.model) {
        Some(true) => said("fence lifted".to_owned()),
        Some(false) => said("⚿ fenced".to_owned()),
        None => {}
    }
    if matches!(scene.model.session.saving, Saving::Failing(_) | Saving::Impossible(_)) {
        said("not saved".to_owned());
    }
    Line::from(spans)
}

/// `ctx 6.1k/32k 19 %`; the numbers are left out where there is little room.
fn context(scene: Scene<'_>, decision: Option<&Decision>, is_long: bool) -> Line<'static> {
    let Some((used, limit)) = decision.and_then(|decision| target::context(scene.model, decision)) else {
        return Line::default();
    };
    let share = f64::from(used) / f64::from(limit);
    let role = if share >= 0.8 { Role::Warn } else { Role::Dim };
    let numbers =
        if is_long { format!(" {}/{}", format::tokens(used), format::context(limit)) } else { String::new() };
    Line::styled(format!("ctx{numbers} {}", format::percent(share)), scene.theme.style(role))
}

/// `● local 7B  ◐ mac 70B · first ≈0.9 s`: how each target is, and what a send would cost now. What has no room is left
/// out: the cost, then the targets that would not answer.
fn state_line(scene: Scene<'_>, decision: Option<&Decision>, room: usize) -> Line<'static> {
    let style = |role| scene.theme.style(role);
    let mut states: Vec<(&str, String, Role)> = if scene.model.fleet.backends.len() > 1 {
        target::marks(scene.model, decision)
    } else {
        target::state(scene.model, decision).into_iter().collect()
    };
    let mut cost = decision.and_then(target::cost);
    let width = |states: &[(&str, String, Role)], cost: Option<&String>| {
        let marks: usize = states.iter().map(|(mark, text, _)| mark.width() + text.width() + 3).sum();
        marks + cost.map_or(0, |cost| cost.width() + 1)
    };
    if width(&states, cost.as_ref()) > room {
        cost = None;
    }
    if width(&states, None) > room {
        states = target::state(scene.model, decision).into_iter().collect();
    }
    let mut spans = Vec::new();
    for (at, (mark, text, role)) in states.into_iter().enumerate() {
        if at > 0 {
            spans.push(Span::raw("  "));
        }
        spans.push(Span::styled(format!("{mark} "), style(role)));
        spans.push(Span::styled(text, style(Role::Dim)));
    }
    if let Some(cost) = cost {
        let gap = if spans.is_empty() { "" } else { " · " };
        spans.push(Span::styled(format!("{gap}{cost}"), style(Role::Dim)));
    }
    Line::from(spans)
}

fn is_running(model: &Model) -> bool {
    model.turns.last().is_some_and(|turn| {
        turn.lanes.iter().filter_map(|lane| lane.current()).any(|attempt| !attempt.phase.is_terminal())
    })
}

/// The keys that matter in this state, the most important first.
fn keys(model: &Model) -> Vec<(&'static str, &'static str)> {
    let has_draft = !model.composer.buffer.is_empty();
    if model.quit_armed.is_some() {
        return vec![("ctrl+c", "again to quit")];
    }
    if model.pending.leader.is_some() {
        return vec![("ctrl+x", "and the second key")];
    }
    if model.composer.completion.is_some() {
        return vec![("tab", "complete"), ("↑↓", "move"), ("esc", "close")];
    }
    match (is_running(model), has_draft) {
        (true, true) => vec![("esc", "stop"), ("enter", "queue")],
        (true, false) if !model.queue.is_empty() => vec![("esc", "stop"), ("↑", "take back")],
        (true, false) => vec![("esc", "stop")],
        (false, true) if model.fleet.backends.len() > 1 => vec![("enter", "send"), ("shift+tab", "target")],
        (false, true) => vec![("enter", "send"), ("ctrl+j", "new line")],
        (false, false) if model.routing.offer.as_ref().is_some_and(|offer| !offer.is_cut) => {
            vec![("enter", "run there"), ("esc", "keep draft")]
        }
        (false, false) if model.routing.wait.is_some() => vec![("esc", "stop waiting")],
        (false, false) if !model.queue.is_empty() => vec![("enter", "send queued"), ("↑", "take back")],
        (false, false) => vec![("/", "commands"), ("?", "help")],
    }
}

/// Keys and what they do, as the corner of a panel shows them.
pub(super) fn hints(keys: &[(&'static str, &'static str)], theme: &Theme) -> Line<'static> {
    let mut spans = Vec::new();
    for (at, (key, what)) in keys.iter().enumerate() {
        if at > 0 {
            spans.push(Span::styled(" · ", theme.style(Role::Dim)));
        }
        spans.push(Span::styled(*key, theme.style(Role::Accent)));
        spans.push(Span::styled(format!(" {what}"), theme.style(Role::Dim)));
    }
    Line::from(spans)
}

/// A rounded frame with a text in each corner.
pub(super) fn frame(
    area: Rect,
    top_left: &Line<'static>,
    top_right: &Line<'static>,
    bottom_left: &Line<'static>,
    bottom_right: &Line<'static>,
    theme: &Theme,
    buf: &mut Buffer,
) {
    if area.height < 2 || area.width < 4 {
        return;
    }
    let dim = theme.style(Role::Dim);
    edge(Rect { height: 1, ..area }, ["╭─", "─╮"], top_left, top_right, theme, buf);
    let bottom = Rect { y: area.bottom() - 1, height: 1, ..area };
    edge(bottom, ["╰─", "─╯"], bottom_left, bottom_right, theme, buf);
    for y in area.y + 1..area.bottom() - 1 {
        buf.set_string(area.x, y, "│", dim);
        buf.set_string(area.right() - 1, y, "│", dim);
    }
}

/// A rule with a text at its left and right end. The right one goes first when there is no room for both.
fn edge(
    area: Rect,
    corners: [&str; 2],
    left: &Line<'static>,
    right: &Line<'static>,
    theme: &Theme,
    buf: &mut Buffer,
) {
    let dim = theme.style(Role::Dim);
    let width = usize::from(area.width);
    let ends = corners[0].width() + corners[1].width();
    let pad = |line: &Line<'_>| if line.width() == 0 { 0 } else { line.width() + 2 };
    let room = width.saturating_sub(ends);
    let right_width = if pad(left) + pad(right) <= room { pad(right) } else { 0 };
    let left_width = pad(left).min(room.saturating_sub(right_width));
    let mut x = area.x;
    let mut rule = |text: &str, buf: &mut Buffer| x = buf.set_stringn(x, area.y, text, width, dim).0;
    rule(corners[0], buf);
    if left_width > 2 {
        rule(" ", buf);
        let from = area.x + super::rows(corners[0].width() + 1);
        let end = buf.set_line(from, area.y, left, super::rows(left_width - 2)).0;
        x = end;
    }
    let mut rule = |text: &str, buf: &mut Buffer| x = buf.set_stringn(x, area.y, text, width, dim).0;
    if left_width > 2 {
        rule(" ", buf);
    }
    rule(&"─".repeat(room - left_width - right_width), buf);
    if right_width > 0 {
        let from = area.right() - super::rows(right_width + corners[1].width());
        buf.set_string(from, area.y, " ", dim);
        buf.set_line(from + 1, area.y, right, super::rows(right_width - 2));
        buf.set_string(from + super::rows(right_width) - 1, area.y, " ", dim);
    }
    buf.set_string(area.right() - super::rows(corners[1].width()), area.y, corners[1], dim);
}

/// Which candidates of the popup are shown where there are `rows` for it.
fn listed(completion: &Completion, rows: u16) -> Range<usize> {
    let count = completion.items.len().min(COMPLETIONS).min(usize::from(rows));
    let top = (completion.selected + 1).saturating_sub(count).min(completion.items.len() - count);
    top..top + count
}

/// `↑ 2 · ↓ 6 more`: candidates that do not fit.
fn more(scene: Scene<'_>, rows: u16) -> Option<Line<'static>> {
    let completion = scene.model.composer.completion.as_ref()?;
    let listed = listed(completion, rows);
    let text = match (listed.start, completion.items.len() - listed.end) {
        (0, 0) => return None,
        (0, below) => format!("↓ {below} more"),
        (above, 0) => format!("↑ {above} more"),
        (above, below) => format!("↑ {above} · ↓ {below} more"),
    };
    Some(Line::styled(text, scene.theme.style(Role::Dim)))
}

/// The popup of slash commands, with its last row just above the composer.
pub(super) fn completion(scene: Scene<'_>, above: Rect, buf: &mut Buffer) {
    let Some(completion) = &scene.model.composer.completion else { return };
    let listed = listed(completion, above.height);
    let (top, count) = (listed.start, listed.len());
    if count == 0 {
        return;
    }
    let width = completion.items.iter().map(|item| item.0.trim_end().width()).max().unwrap_or(0);
    let margin = scene.page.margin;
    let first = above.bottom() - super::rows(count);
    for (y, (at, (insert, about))) in (first..).zip(completion.items.iter().enumerate().skip(top).take(count))
    {
        for x in above.left()..above.right() {
            if let Some(cell) = buf.cell_mut((x, y)) {
                cell.reset();
            }
        }
        let insert = insert.trim_end();
        let pad = " ".repeat(width.saturating_sub(insert.width()) + 2);
        let room = scene.page.wide.saturating_sub(width + 4);
        let (name, argument) = insert.split_at(insert.find(' ').unwrap_or(insert.len()));
        let line = Line::from(vec![
            Span::styled(format!(" {name}"), scene.theme.style(Role::Accent)),
            Span::styled(argument.to_owned(), scene.theme.style(Role::Text)),
            Span::raw(pad),
            Span::styled(cut(about, room), scene.theme.style(Role::Dim)),
        ]);
        let x = above.x + margin.saturating_sub(1);
        let row = Rect { x, y, width: above.width.saturating_sub(2 * x), height: 1 };
        buf.set_style(row, scene.theme.style(Role::Text));
        buf.set_line(x, y, &line, row.width);
        if at == completion.selected {
            super::mark_row(row, scene.theme, buf);
        }
    }
}
