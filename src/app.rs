//! The application as a pure state machine: `update(model, msg, ctx) -> effects`.
//!
//! No tokio, no ratatui, no clock, no IO: time comes in with [`Ctx`], everything to be done goes out as
//! an [`Effect`]. The model derives `Clone + PartialEq + Debug` so that a test can compare whole values.

pub mod board;
mod compose;
mod diff;
pub mod effect;
mod elsewhere;
pub mod facts;
mod fleet;
mod generate;
mod history;
mod keys;
pub mod learn;
mod machines;
pub mod model;
pub mod msg;
mod notice;
mod overlay;
mod picker;
mod restore;
mod retry;
pub mod routing;
mod run_command;
mod scroll;
mod session;
pub mod start;
pub mod stats;
pub mod story;
mod target;
pub mod turn;
mod update;
pub mod warm;
pub mod why;

pub use diff::{DiffLine, code_diffs};
pub use effect::{CopyWhat, Effect, TimerId};
pub use history::asked_after;
pub use machines::{MachineRow, machines};
pub use model::Model;
pub use msg::{CopyOutcome, EngineNews, Msg};
pub use restore::{target as last_target, turns as restored_turns};
pub use start::NewModel;
pub use update::update;

#[cfg(test)]
mod tests;

use std::time::Duration;

/// What an update may know of the world beside the message.
#[derive(Clone, Copy, Debug)]
pub struct Ctx<'a> {
    /// Monotonic time since the program started.
    pub now: Duration,
    /// Wall clock, milliseconds since the epoch.
    pub wall_ms: i64,
    /// What the last frame learnt.
    pub frame: &'a FrameFacts,
}

/// What drawing a frame taught: sizes an update needs for scrolling and cursor movement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FrameFacts {
    /// Columns of the terminal it was drawn for.
    pub cols: u16,
    /// Rows of the transcript viewport.
    pub viewport_rows: usize,
    /// Rows of the whole transcript at this width.
    pub total_rows: usize,
    /// First transcript row shown.
    pub top_row: usize,
    /// Width of the composer's text area in cells.
    pub composer_width: usize,
    /// The last row the help can be scrolled to, where the frame says so.
    pub help_last: Option<usize>,
    /// For each turn (by index in the model) the transcript row it starts at.
    pub turn_rows: Vec<usize>,
}
