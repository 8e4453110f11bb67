//! State to buffer: `view` draws the model and returns what it learnt. No logic beyond layout and wording.
//!
//! From top to bottom: the transcript, a row for notices, queued messages, the composer. Overlays lie over
//! the dimmed page. Nothing here keeps state: [`ViewCache`] is a memo, and time comes from the model.

mod ascii;
mod blocks;
mod code;
mod composer;
mod notice;
mod overlays;
mod page;
mod receipt;
mod target;
mod transcript;
mod turn;
mod welcome;

#[cfg(test)]
mod tests;

use crate::app::model::Scroll;
use crate::app::{FrameFacts, Model};
use crate::chat::SessionId;
use crate::text::format;
use crate::theme::{Charset, Role, Theme};
use page::Page;
use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use turn::{Scene, TurnMemo};
use unicode_width::UnicodeWidthStr;

pub use crate::markdown::highlight::on_ready as on_grammars_ready;

/// Columns and rows under which there is only a notice.
const SMALLEST: (u16, u16) = (20, 5);

/// A memo of rendered blocks. Dropping it before any frame changes nothing but the time the frame takes.
#[derive(Debug, Default)]
pub struct ViewCache {
    /// What the memo was made for.
    scene: Option<(SessionId, Page, Theme)>,
    turns: Vec<TurnMemo>,
    /// The turns that hold lines, first and past the last.
    held: (usize, usize),
    /// The turn a scroll position was set in, at the width of that time.
    anchor: Option<((usize, u16), TurnMemo)>,
}

impl ViewCache {
    fn fit(&mut self, model: &Model, page: Page, theme: &Theme) {
        let fits = self.scene.as_ref().is_some_and(|(session, old, style)| {
            *session == model.session.id && *old == page && style == theme
        });
        if !fits {
            *self = Self { scene: Some((model.session.id.clone(), page, theme.clone())), ..Self::default() };
        }
    }
}

/// Draws one frame.
pub fn view(model: &Model, theme: &Theme, cache: &mut ViewCache, frame: &mut Frame<'_>) -> FrameFacts {
    let area = frame.area();
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        too_small(area, theme, frame.buffer_mut());
        if theme.charset == Charset::Ascii {
            ascii::replace(frame.buffer_mut());
        }
        return FrameFacts { composer_width: usize::from(area.width).max(1), ..FrameFacts::default() };
    }
    let page = Page::new(area.width);
    cache.fit(model, page, theme);
    let scene = Scene { model, page: &page, theme };

    let composer = composer::Composer::new(scene, area);
    let queue = queue_rows(model, area.height);
    let notice = notice::lines(scene, usize::from(area.height / 4).max(1));
    // The row between page and composer is where notices go; it is there before them, so nothing jumps.
    let between = notice.len().max(page.gap);
    let below = composer.rows() + rows(queue) + rows(between);
    let height = area.height.saturating_sub(below).max(1);
    let body = Rect { height, ..area };
    let mut y = body.bottom();

    let buf = frame.buffer_mut();
    buf.set_style(area, theme.style(Role::Text));
    let seen = transcript::draw(scene, cache, body, buf);
    if model.turns.is_empty() {
        welcome::draw(scene, body, buf);
    }
    for (at, line) in notice.iter().enumerate() {
        buf.set_line(page.margin, y + rows(at), line, area.width.saturating_sub(page.margin));
    }
    below_mark(scene, &seen, Rect { y, height: rows(between), ..area }, body, !notice.is_empty(), buf);
    y += rows(between);
    draw_queue(scene, Rect { y, height: rows(queue), ..area }, buf);
    y += rows(queue);
    let place = Rect { y, height: area.bottom().saturating_sub(y), ..area };
    let cursor = composer.draw(scene, place, buf);
    composer::completion(scene, Rect { height: place.y, ..area }, buf);

    let over = overlays::draw(scene, area, place.y, buf);
    if theme.charset == Charset::Ascii {
        ascii::replace(buf);
    }
    if let Some(cursor) = over.cursor.unwrap_or(cursor) {
        frame.set_cursor_position(cursor);
    }
    FrameFacts {
        cols: area.width,
        viewport_rows: usize::from(body.height),
        total_rows: seen.total,
        top_row: seen.top,
        composer_width: composer.width(),
        help_last: over.help_last,
        turn_rows: seen.turn_rows,
    }
}

fn rows(count: usize) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}

fn too_small(area: Rect, theme: &Theme, buf: &mut Buffer) {
    let text = format!("needs {}×{}", SMALLEST.0, SMALLEST.1);
    let text = crate::text::width::cut(&text, usize::from(area.width));
    buf.set_string(area.x, area.y + area.height / 2, text, theme.style(Role::Text));
}

/// `↓ 214 new` while the end is out of sight and not followed.
fn below_mark(
    scene: Scene<'_>,
    seen: &transcript::Seen,
    between: Rect,
    body: Rect,
    has_notice: bool,
    buf: &mut Buffer,
) {
    let Scroll::Anchored { cols, seen_rows, .. } = scene.model.scroll else { return };
    if seen.top + usize::from(body.height) >= seen.total {
        return;
    }
    let new = if cols == scene.page.cols { seen.total.saturating_sub(seen_rows) } else { 0 };
    let words = if new > 0 { format!("{new} new ") } else { "end ".to_owned() };
    let row = if between.height > 0 && !has_notice { between.y } else { body.bottom().saturating_sub(1) };
    let mark = Line::from(vec![
        Span::styled(" ↓ ", scene.theme.style(Role::Accent)),
        Span::styled(words, scene.theme.style(Role::Dim)),
    ]);
    let x = body.right().saturating_sub(rows(mark.width()) + scene.page.margin);
    buf.set_line(x, row, &mark, body.right().saturating_sub(x));
}

/// Rows for queued messages.
fn queue_rows(model: &Model, height: u16) -> usize {
    model.queue.len().min(if height < 16 { 1 } else { 3 })
}

fn draw_queue(scene: Scene<'_>, area: Rect, buf: &mut Buffer) {
    let count = scene.model.queue.len();
    let shown = usize::from(area.height);
    for (at, text) in scene.model.queue.iter().take(shown).enumerate() {
        let is_last = at + 1 == shown && count > shown;
        let more = if is_last { format!("  +{} more", count - shown) } else { String::new() };
        let room = scene.page.wide.saturating_sub(2 + more.width());
        let line = Line::from(vec![
            Span::styled("⏸ ", scene.theme.style(Role::Accent)),
            Span::styled(
                crate::text::shown_line(&first_line(text), room).to_string(),
                scene.theme.style(Role::Dim),
            ),
            Span::styled(more, scene.theme.style(Role::Dim)),
        ]);
        buf.set_line(scene.page.margin, area.y + rows(at), &line, rows(scene.page.wide));
    }
}

/// The first line that says something; what follows is hinted at.
fn first_line(text: &str) -> String {
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let first = lines.next().unwrap_or_default().trim();
    if lines.next().is_some() { format!("{first} …") } else { first.to_owned() }
}

/// Marks a row of a list: one bar, whatever colours its words have.
fn mark_row(row: Rect, theme: &Theme, buf: &mut Buffer) {
    let bar = Style::reset().patch(theme.style(Role::Text)).patch(theme.style(Role::Selection));
    buf.set_style(row, bar);
}

/// A place on the screen.
type Cursor = Option<Position>;
