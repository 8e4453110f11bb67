//! What the app is told.

use super::effect::TimerId;
use crate::chat::record::{OutcomeRecord, SessionRecord, TurnRecord};
use crate::chat::{Change, GenErrorKind, GenEvent, GenKey, Listing, Machine, SessionId};
use crate::config::BackendKind;
use crate::keymap::Chord;
use std::time::Duration;

/// One input. Prose in a message is foreign text; nothing compares it later.
#[derive(Clone, Debug, PartialEq)]
pub enum Msg {
    /// A key.
    Key(Chord),
    /// A bracketed paste, raw.
    Paste(String),
    /// The terminal's size changed.
    Resize {
        /// Columns.
        cols: u16,
        /// Rows.
        rows: u16,
    },
    /// A generation said something.
    Gen {
        /// Which attempt.
        key: GenKey,
        /// What.
        event: GenEvent,
        /// When it arrived (monotonic, since the program started): earlier than `ctx.now` under load.
        at: Duration,
    },
    /// What is got ready said something.
    Warmed {
        /// The backend's name.
        backend: String,
        /// What.
        event: GenEvent,
    },
    /// The request of an attempt left for the server.
    Sent {
        /// Which attempt.
        key: GenKey,
        /// When.
        at: Duration,
    },
    /// The first frame with text of this attempt was handed to the terminal.
    Painted {
        /// Which attempt.
        key: GenKey,
        /// When.
        at: Duration,
    },
    /// News of this machine's engine process.
    Engine(EngineNews),
    /// The models of a backend.
    Models {
        /// The backend's name.
        backend: String,
        /// Them, or why they could not be had (one line).
        result: Result<Listing, String>,
    },
    /// What a backend has shown to be.
    Met {
        /// The backend's name.
        backend: String,
        /// What kind of server it is, where that is known.
        kind: Option<BackendKind>,
        /// Time for a round trip in milliseconds, smoothed.
        rtt_ms: Option<f64>,
        /// Time it takes to wake up, in milliseconds, where that was seen.
        wake_ms: Option<f64>,
    },
    /// A backend was asked for something small.
    Probed {
        /// The backend's name.
        backend: String,
        /// How long it took to answer, or what kind of failure it was.
        result: Result<Duration, GenErrorKind>,
    },
    /// How things stand around this machine.
    Around {
        /// Whether it runs without mains power.
        on_battery: bool,
        /// Local time less UTC, in seconds.
        utc_offset_s: i32,
    },
    /// How answers went.
    Stats {
        /// The log, oldest first, or why it could not be read (one line).
        result: Result<Vec<OutcomeRecord>, String>,
    },
    /// The memory of a backend's machine.
    Machine {
        /// The backend's name.
        backend: String,
        /// It; none when it does not say, or could not be asked.
        machine: Option<Machine>,
    },
    /// How a model is kept was changed, or could not be.
    Changed {
        /// The backend's name.
        backend: String,
        /// The model's id.
        model: String,
        /// What was to be done.
        change: Change,
        /// Whether it is done; else why not, and the next step, in one or two lines.
        result: Result<(), String>,
    },
    /// The store could not write (one line); it keeps what it was given and tries again.
    StoreFailed {
        /// What the system said.
        message: String,
    },
    /// The store can't be opened (one or two lines): nothing is saved.
    StoreUnavailable {
        /// Why, and what to do.
        message: String,
    },
    /// The store works again.
    StoreRecovered,
    /// Something was copied, or could not be.
    Copied {
        /// What it was, as `code block 2`.
        what: String,
        /// How it went.
        outcome: CopyOutcome,
    },
    /// A theme was loaded, or why it could not be.
    ThemeLoaded {
        /// Its name.
        name: String,
        /// Warnings (one line each), or the error.
        result: Result<Vec<String>, String>,
    },
    /// Saved sessions, the one used last first.
    Sessions {
        /// Them, or why they could not be read (one line).
        result: Result<Vec<SessionRecord>, String>,
    },
    /// Another window writes to a session: this one goes on in a copy.
    SessionForked {
        /// The session that was shared.
        from: SessionId,
        /// The copy.
        session: SessionId,
    },
    /// A saved session.
    SessionLoaded {
        /// It and its turns, oldest first, or why it could not be read (one line).
        result: Result<(SessionRecord, Vec<TurnRecord>), String>,
    },
    /// One line for the person, from the runtime.
    Notice {
        /// The line, foreign.
        text: String,
        /// Whether it is trouble.
        is_error: bool,
    },
    /// A timer asked for with [`super::Effect::Timer`] is due.
    Timer(TimerId),
    /// The process was told to end (a signal, or the terminal is gone).
    Terminate,
}

/// News of the engine process.
#[derive(Clone, Debug, PartialEq)]
pub enum EngineNews {
    /// It is being started.
    Starting,
    /// It answers.
    Ready,
    /// It ended.
    Died {
        /// One or two lines: its last words and what they mean.
        message: String,
        /// Models that were resident.
        residents: Vec<String>,
    },
    /// It left because somebody asked it to; the next question starts it again.
    Stopped,
    /// It could not be started.
    Failed {
        /// One or two lines.
        message: String,
    },
}

/// How copying went, in words that are true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyOutcome {
    /// The system's clipboard has it.
    Copied,
    /// tmux has it in its buffer.
    Tmux,
    /// Sent to the terminal by OSC 52; nobody confirms that.
    SentToTerminal,
    /// In a file (its path), because nothing else worked (why, one line).
    File {
        /// The file.
        path: String,
        /// Why it came to that.
        why: String,
    },
    /// Nowhere.
    Failed {
        /// One line.
        why: String,
    },
}
