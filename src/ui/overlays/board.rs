//! The residency board: a bar for every device, a row for every model, and below them the marked one in words.

use super::{Edges, panel};
use crate::app::board::{Row, marked, names, rows, to_come};
use crate::app::model::{BackendView, Board, EngineView};
use crate::chat::{Fit, KeepAlive, ModelState};
use crate::command::Command;
use crate::text::shown_line;
use crate::text::width::cut;
use crate::theme::Role;
use crate::ui::composer::{hints, one_line};
use crate::ui::turn::Scene;
use crate::ui::{Cursor, format, mark_row, target};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

mod memory;
mod words;

/// Cells between columns.
const GAP: usize = 2;
/// Columns of the panel at most: longer rows are hard to follow.
const MOST: u16 = 116;
/// Cells of a name at most.
const NAME: usize = 36;
/// Cells of a text that came from elsewhere at most.
const CELLS: usize = 400;
/// Rows from which there is room for blank lines and for a third line below.
const TALL: u16 = 16;

pub(super) fn draw(board: &Board, scene: Scene<'_>, area: Rect, buf: &mut Buffer) -> Cursor {
    let theme = scene.theme;
    let fleet = &scene.model.fleet;
    let all = rows(fleet, "");
    let seen = rows(fleet, board.filter.text());
    let at = marked(board, &seen);
    let is_tall = area.height >= TALL;
    let width = usize::from(if scene.page.is_roomy() { area.width.min(MOST) - 8 } else { area.width - 4 });

    let memory = memory::lines(scene, width, usize::from(area.height / 3).max(1));
    let has_filter = board.is_filtering || !board.filter.is_empty();
    let gap = usize::from(is_tall);
    // The footer takes what the rows leave, and of theirs no more than one line for what was said.
    let least = if is_tall || board.said.is_some() { 3 } else { 2 };
    let others = memory.len() + 2 * gap + usize::from(has_filter) + all.len().max(1);
    let free = usize::from(area.height).saturating_sub(2 + others);
    let wanted = words::rows(board, seen.get(at), scene, width);
    let below = wanted.min(free).max(least);
    let fixed = memory.len() + gap + usize::from(has_filter) + gap + below;
    let height = fixed + all.len().max(1);
    let list_height = usize::from(area.height).saturating_sub(2 + fixed);
    let edges = Edges {
        title: Line::styled("Models", theme.style(Role::Heading)),
        count: Line::styled(count(&all, &seen, at, list_height), theme.style(Role::Dim)),
        keys: hints(&keys(board, seen.get(at), width), theme),
    };
    let inner = panel(width, height, &edges, scene, area, buf);

    let mut y = inner.y;
    let mut line = |line: &Line<'_>, y: &mut u16| {
        if *y < inner.bottom() {
            buf.set_line(inner.x, *y, line, inner.width);
            *y += 1;
        }
    };
    for row in &memory {
        line(row, &mut y);
    }
    y += crate::ui::rows(gap);
    let mut cursor = None;
    if has_filter && y < inner.bottom() {
        buf.set_string(inner.x, y, "/ ", theme.style(Role::Accent));
        let field = Rect { x: inner.x + 2, y, width: inner.width.saturating_sub(2), height: 1 };
        let place = one_line(&board.filter, "type to find", field, theme, buf);
        cursor = board.is_filtering.then_some(place);
        y += 1;
    }
    let list_end = inner.bottom().saturating_sub(crate::ui::rows(below + gap)).max(y);
    let list = Rect { y, height: list_end - y, ..inner };
    draw_list(&seen, at, scene, list, buf);
    let place = Rect { y: list_end + crate::ui::rows(gap), height: crate::ui::rows(below), ..inner };
    let place = place.intersection(inner);
    for (y, line) in (place.top()..place.bottom()).zip(words::footer(board, seen.get(at), scene, place)) {
        buf.set_line(place.x, y, &line, place.width);
    }
    cursor
}

/// The first row shown: the marked one stays in sight, and the list moves no more than it must.
fn top(at: usize, count: usize, height: usize) -> usize {
    (at + 1).saturating_sub(height.max(1)).min(count.saturating_sub(height))
}

/// `2 of 6 in memory`; which rows are shown where not all are, or how many match the filter.
fn count(all: &[Row<'_>], seen: &[Row<'_>], at: usize, height: usize) -> String {
    if seen.len() > height {
        let top = top(at, seen.len(), height);
        return format!("{}–{} of {}", top + 1, top + height, seen.len());
    }
    if seen.len() < all.len() {
        return format!("{} of {}", seen.len(), all.len());
    }
    let resident = all.iter().filter(|row| row.card.state == ModelState::Loaded).count();
    format!("{resident} of {} in memory", all.len())
}

/// The keys that matter for the marked row, the most important first, as many as there is room for.
fn keys(board: &Board, row: Option<&Row<'_>>, width: usize) -> Vec<(&'static str, &'static str)> {
    if board.is_filtering {
        return vec![("↑↓", "move"), ("enter", "done"), ("esc", "all")];
    }
    if let Some(command) = board.asked {
        let key = match command {
            Command::Load => "enter",
            Command::Target => "t",
            _ => "u",
        };
        return vec![(key, "do it"), ("esc", "no")];
    }
    let embeds = row.is_some_and(Row::embeds);
    let mut keys = match row.map(|row| &row.card.state) {
        Some(ModelState::Loaded) => vec![("enter", "use"), ("u", "unload"), ("p", "pin"), ("a", "keep")],
        Some(ModelState::Loading { .. }) => vec![("u", "give up"), ("p", "pin")],
        Some(_) => vec![("enter", "load"), ("p", "pin"), ("t", "use")],
        None => vec![("r", "ask again")],
    };
    if row.and_then(|row| row.residency).and_then(|residency| residency.pinned) == Some(true) {
        keys.iter_mut().filter(|(key, _)| *key == "p").for_each(|(_, what)| *what = "unpin");
    }
    // Nothing is said to what makes embeddings.
    keys.retain(|(_, what)| !embeds || *what != "use");
    keys.extend([("/", "find"), ("?", "help")]);
    let length = |keys: &[(&str, &str)]| -> usize {
        keys.iter().map(|(key, what)| key.width() + what.width() + 4).sum()
    };
    let close = ("esc", "close");
    while !keys.is_empty() && length(&keys) + length(&[close]) > width {
        keys.pop();
    }
    keys.push(close);
    keys
}

fn draw_list(seen: &[Row<'_>], at: usize, scene: Scene<'_>, list: Rect, buf: &mut Buffer) {
    let theme = scene.theme;
    if seen.is_empty() {
        let is_empty = scene.model.fleet.backends.iter().all(|backend| backend.models.is_empty());
        let text = if is_empty { "no models heard of yet" } else { "nothing matches" };
        if list.height > 0 {
            buf.set_line(list.x + 2, list.y, &Line::styled(text, theme.style(Role::Dim)), list.width);
        }
        return;
    }
    let height = usize::from(list.height);
    let next = target::next(scene.model);
    // Widths are those of all rows, so that nothing moves while filtering.
    let all: Vec<Cells> = rows(&scene.model.fleet, "").iter().map(|row| Cells::of(row, scene)).collect();
    let columns = Columns::of(&all, usize::from(list.width));
    let top = top(at, seen.len(), height);
    for (y, (place, row)) in (list.top()..list.bottom()).zip(seen.iter().enumerate().skip(top)) {
        let cells = Cells::of(row, scene);
        buf.set_line(list.x, y, &columns.line(&cells, scene), list.width);
        if next.as_ref().is_some_and(|next| next.backend == row.backend.name && next.model == row.card.id) {
            // As on the composer's edge.
            buf.set_string(list.x.saturating_sub(1), y, "→", theme.style(Role::Accent));
        }
        if place == at {
            let full = Rect { x: list.x.saturating_sub(1), y, width: list.width + 2, height: 1 };
            mark_row(full, theme, buf);
        }
    }
}

/// What a row says, column by column.
struct Cells {
    mark: (&'static str, Role),
    name: String,
    /// In the order they stand in.
    columns: [String; COLUMNS],
    remark: (String, Role),
}

/// Machine, parameters, quantisation, context, memory, speed.
const COLUMNS: usize = 6;
/// Columns in the order they are left out where there is little room.
const LEFT_OUT: [usize; COLUMNS] = [1, 5, 2, 3, 0, 4];

impl Cells {
    fn of(row: &Row<'_>, scene: Scene<'_>) -> Self {
        let (card, residency) = (row.card, row.residency);
        let is_alone = scene.model.fleet.backends.len() == 1;
        let context = residency.and_then(|residency| residency.context).or(card.context);
        let speed = residency.and_then(|residency| residency.decode_tokens_per_s);
        let text = |value: Option<String>| value.unwrap_or_default();
        Self {
            mark: mark(row, scene),
            name: shown_line(&card.id, CELLS).to_string(),
            columns: [
                if is_alone { String::new() } else { shown_line(&row.backend.name, 16).to_string() },
                text(card.parameters.map(format::parameters)),
                text(card.quantisation.as_ref().map(|text| shown_line(text, 12).to_string())),
                text(context.map(format::context)),
                text(residency.and_then(crate::chat::Residency::memory).map(format::bytes)),
                text(speed.map(|speed| format::speed(speed).replace(" tok/s", "/s"))),
            ],
            remark: remark(row, scene),
        }
    }
}

fn mark(row: &Row<'_>, scene: Scene<'_>) -> (&'static str, Role) {
    if row.backend.trouble.is_some() {
        return ("✕", Role::Bad);
    }
    match row.card.state {
        ModelState::Loaded => ("●", target::role(scene.model, &row.backend.name)),
        ModelState::Loading { .. } => ("◐", Role::Accent),
        ModelState::Unloaded => match row.verdict().map(|verdict| verdict.fit) {
            Some(Fit::DoesNotFit) => ("✕", Role::Bad),
            _ => ("○", Role::Dim),
        },
        ModelState::Failed { .. } => ("✕", Role::Bad),
        ModelState::Unknown => (" ", Role::Dim),
    }
}

/// The last words of a row.
fn remark(row: &Row<'_>, scene: Scene<'_>) -> (String, Role) {
    if row.backend.trouble.is_some() {
        return ("away".to_owned(), Role::Bad);
    }
    let mut parts = Vec::new();
    if row.embeds() {
        parts.push("embeddings".to_owned());
    }
    let mut role = Role::Dim;
    match &row.card.state {
        ModelState::Loaded => parts.extend(resident(row, scene)),
        ModelState::Loading { .. } => {
            parts.push(progress(row));
            role = Role::Accent;
        }
        ModelState::Failed { reason } => {
            parts.push(shown_line(reason.lines().next().unwrap_or_default(), CELLS).to_string());
            role = Role::Bad;
        }
        ModelState::Unloaded => {
            if let Some((words, how)) = verdict(row) {
                parts.push(words);
                role = how;
            }
            if row.residency.and_then(|residency| residency.pinned) == Some(true) {
                parts.push("pinned".to_owned());
            }
        }
        ModelState::Unknown => {}
    }
    parts.retain(|part| !part.is_empty());
    (parts.join(" · "), role)
}

/// What a resident model does and how long it stays.
fn resident(row: &Row<'_>, scene: Scene<'_>) -> Vec<String> {
    let Some(residency) = row.residency else { return Vec::new() };
    let counted = |count: Option<u32>, word: &str| count.filter(|n| *n > 0).map(|n| format!("{n} {word}"));
    let is_pinned = residency.pinned == Some(true);
    let stays = match (is_pinned, row.leaves_in(scene.model.now), residency.keep_alive) {
        (true, ..) => Some("pinned".to_owned()),
        (false, Some(left), _) => Some(format!("{} left", format::short_time(to_come(left)))),
        (false, None, Some(KeepAlive::ForEver)) => Some("for ever".to_owned()),
        (false, None, _) => None,
    };
    [counted(residency.running, "running"), counted(residency.queued, "waiting"), stays]
        .into_iter()
        .flatten()
        .collect()
}

/// `loading 42 % · 18.1 of 43.1 GiB`.
fn progress(row: &Row<'_>) -> String {
    let fraction = match row.card.state {
        ModelState::Loading { fraction } => f64::from(fraction),
        _ => 0.0,
    };
    match row.residency.and_then(|residency| residency.loading) {
        Some((done, total)) => {
            let share = format::share(done, total);
            format!("loading {} · {}", format::percent(share), format::bytes_of(done, total))
        }
        None => format!("loading {}", format::percent(fraction)),
    }
}

/// A verdict in a few words.
fn verdict(row: &Row<'_>) -> Option<(String, Role)> {
    let verdict = row.verdict()?;
    Some(match verdict.fit {
        Fit::Fits => ("fits".to_owned(), Role::Good),
        Fit::SmallerContext => match verdict.context {
            Some(context) => (format!("fits with {}", format::context(context)), Role::Good),
            None => ("fits with less context".to_owned(), Role::Good),
        },
        Fit::IfUnloaded => match verdict.unload.as_slice() {
            [] => ("fits if others go".to_owned(), Role::Warn),
            [only] => (format!("fits if {} goes", &*shown_line(only, NAME)), Role::Warn),
            several => (format!("fits if {} go", &*shown_line(&names(several), NAME)), Role::Warn),
        },
        Fit::Partial => match verdict.slowdown {
            Some(times) => (format!("partial, ≈{times:.1}x slower"), Role::Warn),
            None => ("partial".to_owned(), Role::Warn),
        },
        Fit::NoRoom => ("no room now".to_owned(), Role::Warn),
        Fit::DoesNotFit => ("does not fit".to_owned(), Role::Bad),
        Fit::Unknown => return None,
    })
}

/// Widths of the columns; 0 for one that is left out.
struct Columns {
    name: usize,
    widths: [usize; COLUMNS],
    remark: usize,
}

impl Columns {
    fn of(rows: &[Cells], room: usize) -> Self {
        let widest = |cell: &dyn Fn(&Cells) -> usize| rows.iter().map(cell).max().unwrap_or(0);
        let mut widths = [0; COLUMNS];
        for (at, width) in widths.iter_mut().enumerate() {
            *width = widest(&|cells| cells.columns.get(at).map_or(0, |text| text.width()));
        }
        let wanted = widest(&|cells| cells.remark.0.width()).min(if room >= 60 { 24 } else { 14 });
        let taken = |widths: &[usize; COLUMNS]| {
            widths.iter().filter(|width| **width > 0).map(|width| width + GAP).sum::<usize>()
        };
        let mut name = widest(&|cells| cells.name.width()).min(NAME);
        let least = name.min((room / 3).max(10));
        for column in LEFT_OUT {
            if 2 + least + taken(&widths) + GAP + wanted <= room {
                break;
            }
            if let Some(width) = widths.get_mut(column) {
                *width = 0;
            }
        }
        let left = room.saturating_sub(2 + taken(&widths));
        name = name.min(left.saturating_sub(GAP + wanted)).max(least.min(left));
        Self { name, widths, remark: left.saturating_sub(name + GAP) }
    }

    /// A row: mark, name, columns (numbers at the right of theirs), remark.
    fn line(&self, cells: &Cells, scene: Scene<'_>) -> Line<'static> {
        let style = |role| scene.theme.style(role);
        let name = cut(&cells.name, self.name);
        let pad = " ".repeat(self.name.saturating_sub(name.width()));
        let mut spans = vec![
            Span::styled(format!("{} ", cells.mark.0), style(cells.mark.1)),
            Span::styled(name, style(Role::Text)),
            Span::raw(pad),
        ];
        for (at, (text, width)) in cells.columns.iter().zip(self.widths).enumerate() {
            if width == 0 {
                continue;
            }
            let text = cut(text, width);
            let pad = " ".repeat(width.saturating_sub(text.width()));
            // Machine and quantisation are words.
            let text = if at == 0 || at == 2 { format!("{text}{pad}") } else { format!("{pad}{text}") };
            let role = if at == 0 { cells.mark.1 } else { Role::Dim };
            spans.push(Span::styled(format!("{}{text}", " ".repeat(GAP)), style(role)));
        }
        let remark = cut(&cells.remark.0, self.remark);
        spans.push(Span::styled(format!("{}{remark}", " ".repeat(GAP)), style(cells.remark.1)));
        Line::from(spans)
    }
}

/// Why a backend has nothing to show, in words with their mark; none when all is well.
fn state_of(backend: &BackendView, engine: &EngineView) -> Option<(&'static str, String, Role)> {
    if let Some(trouble) = &backend.trouble {
        return Some(("✕", trouble.to_string(), Role::Bad));
    }
    match engine {
        EngineView::Starting if backend.is_engine => Some(("◐", "starting".to_owned(), Role::Dim)),
        EngineView::Down { message, .. } if backend.is_engine => {
            let first = message.lines().next().unwrap_or_default().to_owned();
            Some(("✕", first, Role::Bad))
        }
        _ => None,
    }
}
