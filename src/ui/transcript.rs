//! The conversation: which rows there are, which of them are on the screen, and drawing those.

use super::ViewCache;
use super::page::Page;
use super::turn::{Drawn, Place, Scene, TurnMemo};
use crate::app::model::Scroll;
use crate::theme::Role;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

/// Rows above and below the screen whose lines are kept.
const NEAR: usize = 200;

/// What drawing the transcript taught.
pub(super) struct Seen {
    pub(super) total: usize,
    pub(super) top: usize,
    pub(super) turn_rows: Vec<usize>,
}

/// Draws the part of the transcript that belongs into `area`.
pub(super) fn draw(scene: Scene<'_>, cache: &mut ViewCache, area: Rect, buf: &mut Buffer) -> Seen {
    let turns = &scene.model.turns;
    cache.turns.resize_with(turns.len(), TurnMemo::default);
    let mut turn_rows = Vec::with_capacity(turns.len());
    let mut total = 0;
    for (at, (turn, memo)) in turns.iter().zip(&mut cache.turns).enumerate() {
        turn_rows.push(total);
        total += memo.update(at, turn, scene);
    }
    let height = usize::from(area.height);
    let top = top(scene, cache, &turn_rows).unwrap_or(usize::MAX).min(total.saturating_sub(height));

    let first = turn_rows.partition_point(|start| *start <= top).saturating_sub(1);
    for (at, (turn, memo)) in turns.iter().zip(&mut cache.turns).enumerate().skip(first) {
        let Some(start) = turn_rows.get(at).copied() else { break };
        if start >= top + height {
            break;
        }
        let part = top.saturating_sub(start)..(top + height).saturating_sub(start).min(memo.rows());
        memo.draw(turn, part, scene, |row, drawn| {
            let Some(y) = (start + row).checked_sub(top).and_then(|y| u16::try_from(y).ok()) else { return };
            if y < area.height {
                put(scene, drawn, Rect { y: area.y + y, height: 1, ..area }, buf);
            }
        });
    }

    // Only turns that were near the screen in this or the last frame hold lines.
    let near = top.saturating_sub(NEAR)..top + height + NEAR;
    let from = turn_rows.partition_point(|start| *start <= near.start).saturating_sub(1);
    let upto = turn_rows.partition_point(|start| *start < near.end);
    let (old_from, old_upto) = std::mem::replace(&mut cache.held, (from, upto));
    let first_frame = old_from == old_upto;
    let range = if first_frame { 0..turns.len() } else { old_from.min(from)..old_upto.max(upto) };
    for at in range {
        if let (Some(memo), Some(start)) = (cache.turns.get_mut(at), turn_rows.get(at)) {
            memo.forget_outside(&(near.start.saturating_sub(*start)..near.end.saturating_sub(*start)));
        }
    }
    Seen { total, top, turn_rows }
}

fn put(scene: Scene<'_>, drawn: Drawn<'_>, row: Rect, buf: &mut Buffer) {
    let x = row.x + scene.page.margin;
    let room = row.width.saturating_sub(scene.page.margin);
    match drawn {
        Drawn::User(line) => {
            buf.set_string(row.x, row.y, "▌", scene.theme.style(Role::User));
            buf.set_line(x, row.y, line, room);
        }
        Drawn::Other(line) => {
            buf.set_line(x, row.y, line, room);
        }
        Drawn::Growing(line) => {
            let (end, y) = buf.set_line(x, row.y, line, room.saturating_sub(1));
            buf.set_string(end, y, "▌", scene.theme.style(Role::Accent));
        }
    }
}

/// The first row to show; `None` follows the end.
fn top(scene: Scene<'_>, cache: &mut ViewCache, turn_rows: &[usize]) -> Option<usize> {
    let Scroll::Anchored { turn, row, cols, .. } = scene.model.scroll else { return None };
    let start = *turn_rows.get(turn)?;
    let memo = cache.turns.get(turn)?;
    if cols == scene.page.cols {
        return Some(start + row.min(memo.rows().saturating_sub(1)));
    }
    let place = old_place(scene, cache, turn, row, cols)?;
    Some(start + cache.turns.get(turn)?.row_of(place))
}

/// What the anchored row showed at the width it was set in.
fn old_place(scene: Scene<'_>, cache: &mut ViewCache, at: usize, row: usize, cols: u16) -> Option<Place> {
    let turn = scene.model.turns.get(at)?;
    let page = Page::new(cols);
    let (key, memo) = cache.anchor.get_or_insert_with(|| ((at, cols), TurnMemo::default()));
    if *key != (at, cols) {
        *key = (at, cols);
        *memo = TurnMemo::default();
    }
    memo.update(at, turn, Scene { page: &page, ..scene });
    let place = memo.place(row);
    memo.forget_outside(&(0..0));
    Some(place)
}
