//! What the app asks the runtime to do.

use crate::chat::record::StoreJob;
use crate::chat::{Change, GenKey, GenRequest, SessionId};
use std::time::Duration;

/// One thing to do. Effects of one update are run in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Start a generation. Everything given to the store before it is on disk first.
    Generate {
        /// Names it.
        key: GenKey,
        /// The backend's name.
        backend: String,
        /// What to generate.
        request: Box<GenRequest>,
    },
    /// Get a backend ready for a question that may come; ends what was begun before. Answered by [`super::Msg::Warmed`].
    Warm {
        /// The backend's name.
        backend: String,
        /// The conversation with the draft, for zero tokens.
        request: Box<GenRequest>,
    },
    /// End getting ready.
    StopWarming,
    /// Stop a generation: its connection is closed, no more events come.
    Cancel(GenKey),
    /// Give the store something.
    Store(StoreJob),
    /// Ask a backend for its models; answered by [`super::Msg::Models`] and [`super::Msg::Probed`].
    ListModels {
        /// The backend's name.
        backend: String,
    },
    /// See how things stand around this machine; answered by [`super::Msg::Around`].
    LookAround,
    /// Read how answers went; answered by [`super::Msg::Stats`].
    ReadStats,
    /// Ask a backend for its machine's memory; answered by [`super::Msg::Machine`].
    LookAtMachine {
        /// The backend's name.
        backend: String,
    },
    /// Change how a model is kept in memory; answered by [`super::Msg::Changed`]. To unload a model also ends
    /// waiting for its load.
    ChangeModel {
        /// The backend's name.
        backend: String,
        /// The model's id.
        model: String,
        /// What to do.
        change: Change,
    },
    /// Start the engine again and load these models.
    RestartEngine {
        /// Models that were resident.
        models: Vec<String>,
    },
    /// Put text on the clipboard; answered by [`super::Msg::Copied`].
    Copy {
        /// The original text.
        text: String,
        /// What it is, for the notice.
        what: CopyWhat,
    },
    /// List saved sessions; answered by [`super::Msg::Sessions`].
    ListSessions,
    /// Read a saved session; answered by [`super::Msg::SessionLoaded`].
    LoadSession {
        /// Which.
        id: SessionId,
    },
    /// Switch to a theme; answered by [`super::Msg::ThemeLoaded`].
    LoadTheme {
        /// Its name.
        name: String,
    },
    /// Send [`super::Msg::Timer`] after a while. A second one with the same id replaces the first.
    Timer {
        /// Which.
        id: TimerId,
        /// How long from now.
        after: Duration,
    },
    /// Clear the terminal and draw everything anew.
    Redraw,
    /// Stop the process as Ctrl+Z does.
    Suspend,
    /// Leave, with this exit code.
    Quit {
        /// The exit code.
        code: u8,
    },
}

/// What is being copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyWhat {
    /// The last answer.
    Answer,
    /// A numbered code block.
    Code {
        /// Its number on the screen.
        number: usize,
    },
}

/// Names a timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TimerId {
    /// A notice expires.
    Notice,
    /// `Ctrl+C again to quit` expires.
    QuitArmed,
    /// Redraw the live receipt while an attempt runs and nothing else moves.
    Tick,
    /// Keys after a paste are text until then.
    PasteTail,
    /// The person has paused in typing.
    Warm,
    /// A time on the residency board is another one now.
    Board,
    /// A machine that is waited for is looked for again.
    Wait,
}
