//! State to buffer: `view` draws the model and returns what it learnt. No logic beyond layout and wording.

use crate::app::{FrameFacts, Model};
use crate::theme::Theme;
use ratatui::Frame;

/// A memo of rendered blocks. Dropping it before any frame changes nothing but the time the frame takes.
#[derive(Debug, Default)]
pub struct ViewCache {}

/// Draws one frame.
pub fn view(_model: &Model, _theme: &Theme, _cache: &mut ViewCache, _frame: &mut Frame<'_>) -> FrameFacts {
    FrameFacts::default()
}
