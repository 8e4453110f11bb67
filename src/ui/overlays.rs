//! What lies over the page: a cleared panel with a title above and its keys below, over the dimmed rest.

mod board;
mod help;
mod machines;
mod picker;
mod sheet;

use super::turn::Scene;
use super::{Cursor, composer};
use crate::app::model::Overlay;
use crate::theme::Role;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;

/// What lies over the page taught.
#[derive(Default)]
pub(super) struct Outcome {
    /// Where the overlay in front wants the cursor; `None` without an overlay.
    pub(super) cursor: Option<Cursor>,
    /// The last row the help, or something else to read, can be scrolled to while it is open.
    pub(super) help_last: Option<usize>,
}

/// Draws all overlays, the last in front. Panels keep off the composer, which begins at row `below`, where
/// there is room enough without it.
pub(super) fn draw(scene: Scene<'_>, area: Rect, below: u16, buf: &mut Buffer) -> Outcome {
    let page = area;
    let area = if scene.page.is_roomy() && below >= 12 { Rect { height: below, ..area } } else { area };
    let mut outcome = Outcome::default();
    for overlay in &scene.model.overlays {
        // Only faintness is added: the page stays readable, and colours would compete with the panel.
        buf.set_style(page, Style::reset().add_modifier(Modifier::DIM));
        outcome.cursor = Some(match overlay {
            Overlay::Help { top } => {
                outcome.help_last = Some(help::draw(*top, scene, area, buf));
                None
            }
            Overlay::Picker(picker) => picker::draw(picker, scene, area, buf),
            Overlay::Board(board) => board::draw(board, scene, area, buf),
            Overlay::Backends { selected } => {
                machines::draw(*selected, scene, area, buf);
                None
            }
            Overlay::Sheet(sheet) => {
                outcome.help_last = Some(sheet::draw(sheet, scene, area, buf));
                None
            }
        });
    }
    outcome
}

/// What a panel says on its edges.
struct Edges {
    title: Line<'static>,
    /// At the right of the upper edge.
    count: Line<'static>,
    /// At the right of the lower edge.
    keys: Line<'static>,
}

/// Clears a panel for content of this size in the middle of `area`, draws its edges, and returns the room
/// inside. On a narrow screen it takes everything.
fn panel(width: usize, height: usize, edges: &Edges, scene: Scene<'_>, area: Rect, buf: &mut Buffer) -> Rect {
    let fit = |want: usize, most: u16| u16::try_from(want).unwrap_or(most).min(most);
    let place = if scene.page.is_roomy() {
        let width = fit(width + 4, area.width.saturating_sub(4));
        let height = fit(height + 2, area.height);
        let x = area.x + (area.width - width) / 2;
        Rect { x, y: area.y + (area.height - height) / 3, width, height }
    } else {
        area
    };
    for y in place.top()..place.bottom() {
        for x in place.left()..place.right() {
            if let Some(cell) = buf.cell_mut((x, y)) {
                cell.reset();
            }
        }
    }
    buf.set_style(place, scene.theme.style(Role::Text));
    composer::frame(place, &edges.title, &edges.count, &Line::default(), &edges.keys, scene.theme, buf);
    let side = 2;
    Rect {
        x: place.x + side,
        y: place.y + 1,
        width: place.width.saturating_sub(2 * side),
        height: place.height.saturating_sub(2),
    }
}
