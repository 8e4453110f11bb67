//! The marked row of the board in words: its state or what was just said, and below it its numbers.

use super::{CELLS, verdict};
use crate::app::board::{Row, names, passed};
use crate::app::model::{Board, Level};
use crate::chat::{KeepAlive, ModelBytes, ModelState};
use crate::text::shown_line;
use crate::text::width::cut;
use crate::theme::Role;
use crate::ui::turn::Scene;
use crate::ui::{format, notice};
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

/// Rows of a footer at most, however much there is to say.
const MOST: u16 = 8;

/// What is to be said of the marked row, and below it its numbers.
pub(super) fn footer(
    board: &Board,
    row: Option<&Row<'_>>,
    scene: Scene<'_>,
    area: Rect,
) -> Vec<Line<'static>> {
    let style = |role| scene.theme.style(role);
    let width = usize::from(area.width);
    let height = usize::from(area.height);
    let (mark, text, role) = match (&board.said, row) {
        (Some((level, said)), _) => {
            let (mark, role) = match level {
                Level::Info => ("· ", Role::Accent),
                Level::Warn => ("▲ ", Role::Warn),
                Level::Bad => ("✕ ", Role::Bad),
            };
            (mark, said.to_string(), role)
        }
        (None, Some(row)) => ("", sentence(row), Role::Text),
        (None, None) => return Vec::new(),
    };
    // What was said may take all the room, a fact leaves some for the numbers.
    let most = if board.said.is_some() { height } else { height.saturating_sub(1).max(1) };
    let text_style = style(Role::Text);
    let line = |(at, text): (usize, String)| {
        let before = if at == 0 {
            mark
        } else if mark.is_empty() {
            ""
        } else {
            "  "
        };
        Line::from(vec![Span::styled(before, style(role)), Span::styled(text, text_style)])
    };
    let wrapped = notice::fitted(&text, width.saturating_sub(mark.width()), most);
    let mut lines: Vec<Line<'static>> = wrapped.into_iter().enumerate().map(line).collect();
    if let Some(row) = row
        && lines.len() < height
    {
        lines.push(Line::styled(details(row, width, scene), style(Role::Dim)));
    }
    lines
}

/// Rows it takes to say all of it.
pub(super) fn rows(board: &Board, row: Option<&Row<'_>>, scene: Scene<'_>, width: usize) -> usize {
    let area = Rect { x: 0, y: 0, width: crate::ui::rows(width), height: MOST };
    footer(board, row, scene, area).len()
}

/// The state of the marked row in words.
fn sentence(row: &Row<'_>) -> String {
    if let Some(trouble) = &row.backend.trouble {
        return trouble.to_string();
    }
    let told = row.verdict().map(|verdict| shown_line(&verdict.say, CELLS).to_string());
    let told = told.filter(|say| !say.is_empty());
    match &row.card.state {
        ModelState::Loaded => {
            let places = places(row);
            let on = if places.is_empty() { String::new() } else { format!(" on {}", names(&places)) };
            match row.residency.and_then(|residency| residency.bytes) {
                Some(bytes) => format!("in memory{on}: {}", parts(bytes)),
                None => format!("in memory{on}"),
            }
        }
        ModelState::Loading { .. } => match row.residency.and_then(|residency| residency.loading) {
            Some((done, total)) => {
                format!("being loaded, {} read; u gives it up", format::bytes_of(done, total))
            }
            None => "being loaded; u gives it up".to_owned(),
        },
        ModelState::Failed { reason } => {
            let reason = reason.lines().map(str::trim).collect::<Vec<_>>().join(" · ");
            format!("could not be loaded: {}", &*shown_line(&reason, CELLS))
        }
        ModelState::Unloaded => told.unwrap_or_else(|| "on disk".to_owned()),
        ModelState::Unknown => {
            format!("{} does not say whether it is in memory", &*shown_line(&row.backend.name, 40))
        }
    }
}

/// Devices a resident model lies on.
fn places(row: &Row<'_>) -> Vec<String> {
    let machine = row.backend.machine.iter().flat_map(|machine| &machine.placements);
    let found = machine.filter(|placement| placement.id == row.card.id).flat_map(|p| &p.devices);
    found.filter(|part| part.bytes.total() > 0).map(|part| shown_line(&part.device, 20).to_string()).collect()
}

/// `weights 4.4 GiB, KV cache 1.1 GiB, compute 0.3 GiB`.
fn parts(bytes: ModelBytes) -> String {
    let part = |what: &str, n: u64| (n > 0).then(|| format!("{what} {}", format::bytes(n)));
    let parts = [part("weights", bytes.weights), part("KV cache", bytes.kv), part("compute", bytes.compute)];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// The numbers of the marked row, as many as there is room for; what is not known is absent.
fn details(row: &Row<'_>, width: usize, scene: Scene<'_>) -> String {
    let card = row.card;
    let residency = row.residency.cloned().unwrap_or_default();
    let is_resident = card.state == ModelState::Loaded;
    let mut parts = Vec::new();
    let context = residency.context.or(card.context);
    if is_resident {
        parts.extend(residency.slots.filter(|n| *n > 1).map(|n| format!("{n} answers at once")));
        parts.extend(residency.decode_tokens_per_s.map(|s| format!("decode {}", format::speed(s))));
        parts.extend(residency.prefill_tokens_per_s.map(|s| format!("prefill {}", format::speed(s))));
        parts.extend(residency.load_ms.map(|ms| format!("loaded in {}", format::seconds(ms))));
        parts.extend(row.idle(scene.model.now).map(|idle| match passed(idle) {
            0 => "used just now".to_owned(),
            seconds => format!("used {} ago", format::short_time(seconds)),
        }));
    } else {
        if matches!(card.state, ModelState::Failed { .. }) {
            parts.extend(verdict(row).map(|(words, _)| words));
        }
        parts.extend(residency.bytes.map(self::parts).filter(|text| !text.is_empty()));
        parts.extend(card.bytes.map(|bytes| format!("file {}", format::bytes(bytes))));
    }
    parts.extend(context.map(|context| format!("context {}", format::context(context))));
    let packed = card.quantisation.as_ref().map(|text| shown_line(text, 12).to_string());
    let size = card.parameters.map(format::parameters);
    parts.extend([size, packed].into_iter().flatten().reduce(|a, b| format!("{a} {b}")));
    parts.extend(row.embeds().then(|| "makes embeddings".to_owned()));
    parts.extend(card.is_builtin.then(|| "built in".to_owned()));
    parts.extend(match residency.keep_alive {
        Some(KeepAlive::ForEver) => Some("stays for ever".to_owned()),
        Some(KeepAlive::Seconds(0)) => Some("leaves after each answer".to_owned()),
        Some(KeepAlive::Seconds(seconds)) => Some(format!("stays {}", format::short_time(seconds))),
        Some(KeepAlive::Default) | None => None,
    });
    let mut line = parts.first().map(|first| cut(first, width)).unwrap_or_default();
    for part in parts.iter().skip(1) {
        if line.width() + 3 + part.width() <= width {
            line = format!("{line} · {part}");
        }
    }
    line
}
