//! All state of the interface, in groups. No behaviour, no channels, handles, clocks or colours.

use super::routing::Routing;
use super::turn::Turn;
use crate::chat::{Change, GenKey, Machine, ModelCard, Residency, Sampling, SessionId, TurnId};
use crate::command::Command;
use crate::config::{BackendConfig, BackendKind};
use crate::keymap::Chord;
use crate::router::Target;
use crate::router::health::Circuit;
use crate::text::{EditBuffer, Shown};
use std::time::Duration;

/// Everything the interface knows.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// The conversation.
    pub session: Session,
    /// Its turns, oldest first.
    pub turns: Vec<Turn>,
    /// Messages sent while a turn was running, oldest first; they go out one by one.
    pub queue: Vec<String>,
    /// The input field.
    pub composer: Composer,
    /// What lies over the page; the last one is in front and gets the keys.
    pub overlays: Vec<Overlay>,
    /// Which part of the transcript is on the screen.
    pub scroll: Scroll,
    /// What is known of backends and models.
    pub fleet: Fleet,
    /// One line for the person, until it expires or something replaces it.
    pub notice: Option<Notice>,
    /// What the person chose.
    pub prefs: Prefs,
    /// Until when a second Ctrl+C quits.
    pub quit_armed: Option<Duration>,
    /// Terminal size: columns, rows.
    pub size: (u16, u16),
    /// Rules, speeds, and what was sent where.
    pub routing: Routing,
    /// Monotonic time of the last update: what live receipts count to.
    pub now: Duration,
    /// Wall clock of the last update, milliseconds since the epoch; 0 before the first.
    pub wall_ms: i64,
    /// What is half done.
    pub pending: Pending,
}

/// What is half done: it waits for a key, a moment or an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pending {
    /// The leader key was pressed: the next key completes the pair.
    pub leader: Option<Chord>,
    /// Keys until then are the tail of a paste, not commands.
    pub paste_until: Option<Duration>,
    /// Whether queued messages go out by themselves.
    pub queue: QueueFlow,
    /// Whether the engine was restarted since it last completed an answer.
    pub restart: Restart,
    /// Models that were resident when the engine ended, until it is ready again.
    pub residents: Vec<String>,
    /// The running attempt that quitting would end, after this was said once.
    pub asked_to_quit: Option<GenKey>,
    /// The draft of the running turn where it had chips: it returns when the turn is taken back.
    pub sent: Option<(TurnId, EditBuffer)>,
    /// Pins and times that were asked for and are not told by the server yet.
    pub asked: Vec<Asked>,
    /// The highest number of a turn in this session, dropped ones included: numbers are not used twice.
    pub last_turn: u32,
}

/// A pin or a time that was asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// The backend's name.
    pub backend: String,
    /// The model's id.
    pub model: String,
    /// What the request under way asks for; none when it was answered.
    pub sent: Option<Change>,
    /// What was asked for last.
    pub wanted: Change,
    /// Whether the server told it already.
    pub is_told: bool,
}

/// Whether queued messages go out by themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueueFlow {
    /// The next one goes out when the turn ends well.
    #[default]
    Flowing,
    /// A turn was stopped or failed: Enter on an empty draft sends the next one.
    Paused,
}

/// Whether the engine was restarted by itself already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Restart {
    /// Not since it last completed an answer.
    #[default]
    Untried,
    /// It is being started again.
    UnderWay,
    /// It was; the next time waits for the person.
    Tried,
}

/// The conversation itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// First line of the first question.
    pub title: Shown,
    /// The system prompt in force.
    pub system: Option<String>,
    /// Name of the prompt it came from, where it has one.
    pub prompt_name: Option<String>,
    /// Whether and how it is being saved.
    pub saving: Saving,
    /// Whether the store knows it yet (it is written with its first turn).
    pub is_opened: bool,
    /// Where it goes when nothing else is said: where its last turn went that was not sent elsewhere for once; empty in
    /// a new one.
    pub target: Target,
}

/// Whether the session is on disk.
#[derive(Clone, Debug, PartialEq)]
pub enum Saving {
    /// Every turn.
    On,
    /// Not at all, by the person's wish.
    Off,
    /// Not at all: the store can't be opened (why, one line); said once.
    Impossible(Shown),
    /// The disk refuses (one line); what was said is kept in memory and tried again.
    Failing(Shown),
}

impl Saving {
    /// Whether nothing is given to the store.
    #[must_use]
    pub const fn is_off(&self) -> bool {
        matches!(self, Self::Off | Self::Impossible(_))
    }
}

/// The input field and its memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Composer {
    /// The draft.
    pub buffer: EditBuffer,
    /// Earlier inputs, oldest first.
    pub history: Vec<String>,
    /// Which of them is shown, and the draft it displaced.
    pub recalled: Option<(usize, EditBuffer)>,
    /// The popup of slash commands, while the draft begins with `/`.
    pub completion: Option<Completion>,
}

/// Slash commands that match the draft.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// Candidates: what Tab inserts, with the argument it takes after a blank, and one line about it; best
    /// first.
    pub items: Vec<(String, String)>,
    /// The marked one.
    pub selected: usize,
}

/// What lies over the page.
#[derive(Clone, Debug, PartialEq)]
pub enum Overlay {
    /// Keys and commands, made from the command table; scrolled by this many rows.
    Help {
        /// First row shown.
        top: usize,
    },
    /// Choose from a list.
    Picker(Picker),
    /// The residency board.
    Board(Board),
    /// The machines, and how they are.
    Backends {
        /// The marked one.
        selected: usize,
    },
    /// Something to read.
    Sheet(Sheet),
}

/// Something to read, made when it was opened.
#[derive(Clone, Debug, PartialEq)]
pub struct Sheet {
    /// What it is about.
    pub kind: SheetKind,
    /// Above it.
    pub title: Shown,
    /// Its lines.
    pub rows: Vec<SheetRow>,
    /// The first one shown.
    pub top: usize,
}

/// What a sheet is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SheetKind {
    /// Why the last turn went where it did.
    Why,
    /// Where this question would go.
    Route(String),
    /// How fast models are, and how well that was predicted.
    Stats,
}

/// A line of a sheet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SheetRow {
    /// How loud it is.
    pub tone: Tone,
    /// The line.
    pub text: Shown,
}

/// How loud a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// A heading.
    Head,
    /// What is to be read.
    Plain,
    /// What explains it.
    Dim,
    /// What was chosen.
    Good,
    /// What can't be.
    Bad,
}

/// The residency board: every machine's memory, and every model with how it is kept. What it shows is in
/// [`Fleet`]; here is where the person is in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Board {
    /// The marked row: backend and model. The first one while there is none, or when it is gone.
    pub selected: Option<(String, String)>,
    /// Only models that match it are shown.
    pub filter: EditBuffer,
    /// Whether keys go to the filter.
    pub is_filtering: bool,
    /// What is said below the rows in place of facts, until the next key.
    pub said: Option<(Level, Shown)>,
    /// What the same key again does, after its consequences were said.
    pub asked: Option<Command>,
    /// Machines whose memory was asked for and has not been told yet, and whether to ask once more then.
    pub looks: Vec<(String, bool)>,
}

/// A list to choose from, filtered while typing.
#[derive(Clone, Debug, PartialEq)]
pub struct Picker {
    /// What is chosen.
    pub kind: PickerKind,
    /// The filter.
    pub filter: EditBuffer,
    /// Everything there is.
    pub items: Vec<PickerItem>,
    /// Indices into `items` that match the filter, best first.
    pub matches: Vec<usize>,
    /// Index into `matches`.
    pub selected: usize,
}

/// What a picker is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PickerKind {
    /// The model of the next turn.
    Model,
    /// A theme.
    Theme,
    /// A system prompt.
    Prompt,
    /// A saved session.
    Session,
    /// An earlier input.
    History,
}

/// One line of a picker.
#[derive(Clone, Debug, PartialEq)]
pub struct PickerItem {
    /// What choosing it yields (`backend/model`, a theme's name, ...).
    pub value: String,
    /// A mark: `●` resident, `○` on disk, `✕` away, `▲` failing, or empty.
    pub mark: &'static str,
    /// The name.
    pub label: Shown,
    /// Columns after it, already formatted.
    pub columns: Vec<Shown>,
}

/// Which part of the transcript is on the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scroll {
    /// The end, wherever it goes.
    Follow,
    /// This line stays at the top of the viewport: it survives resizing and folding.
    Anchored {
        /// Index of the turn.
        turn: usize,
        /// Row inside the turn, at the width of the frame it was set in.
        row: usize,
        /// Columns of that frame.
        cols: u16,
        /// Rows of the whole transcript when it was set, to say how much is new.
        seen_rows: usize,
    },
}

/// What is known of backends and models.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fleet {
    /// Backends in order of preference.
    pub backends: Vec<BackendView>,
    /// How the engine of this machine is.
    pub engine: EngineView,
}

/// One backend as last heard of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BackendView {
    /// Its name.
    pub name: String,
    /// Whether it is the engine of this machine.
    pub is_engine: bool,
    /// Model to use when none is named.
    pub default_model: Option<String>,
    /// Its models, empty until heard.
    pub models: Vec<ModelCard>,
    /// Why they could not be had, one line.
    pub trouble: Option<Shown>,
    /// How its models are kept in memory, of those of which it says so.
    pub residency: Vec<Residency>,
    /// Ids of those that make embeddings: no turn goes to them.
    pub embedders: Vec<String>,
    /// When that was heard: countdowns count from there.
    pub heard_at: Duration,
    /// Its machine's memory, where it says so and the board has asked.
    pub machine: Option<Machine>,
    /// What the configuration says of it.
    pub setup: BackendSetup,
    /// How it is, judged by what happened there.
    pub circuit: Circuit,
    /// When it was looked for while it was away, monotonic.
    pub looked_for: Option<Duration>,
    /// Time until it answers something small, in milliseconds, smoothed.
    pub rtt_ms: Option<f64>,
    /// Time it takes to wake up, in milliseconds, where that was seen.
    pub wake_ms: Option<f64>,
}

/// What the configuration says of a backend, as far as routing needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackendSetup {
    /// What it is.
    pub kind: Option<BackendKind>,
    /// What its machine is.
    pub hardware: Option<String>,
    /// Memory models may hold there together, in bytes.
    pub memory: Option<u64>,
    /// Whether it makes noise.
    pub is_noisy: bool,
    /// Whether fenced files may go there.
    pub is_private: bool,
    /// Whether it is on this machine.
    pub is_here: bool,
}

impl From<&BackendConfig> for BackendSetup {
    fn from(config: &BackendConfig) -> Self {
        Self {
            kind: config.kind,
            hardware: config.hardware.clone(),
            memory: config.memory.map(|size| size.0),
            is_noisy: config.noisy,
            is_private: config.private,
            is_here: config.ssh.is_none() && config.check().is_ok_and(|address| address.is_here()),
        }
    }
}

/// How the engine of this machine is.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum EngineView {
    /// Nothing heard yet, or this build has none.
    #[default]
    Unknown,
    /// Being started.
    Starting,
    /// It answers.
    Ready,
    /// It ended, or could not be started.
    Down {
        /// One or two lines.
        message: Shown,
        /// Models that were resident, to load again.
        residents: Vec<String>,
    },
}

/// One line for the person.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    /// The line.
    pub text: Shown,
    /// How bad it is.
    pub level: Level,
    /// When it goes by itself; never when `None`.
    pub until: Option<Duration>,
}

/// How bad a notice is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Good to know.
    Info,
    /// Worth a look.
    Warn,
    /// Trouble.
    Bad,
}

/// What the person chose for this run of the program.
#[derive(Clone, Debug, PartialEq)]
pub struct Prefs {
    /// The pinned target.
    pub pin: Target,
    /// The configured target.
    pub configured: Target,
    /// Sampling asked for; gaps are filled by the model's default.
    pub sampling: Sampling,
    /// Upper bound on output tokens.
    pub max_tokens: Option<u32>,
    /// The theme in force.
    pub theme: String,
    /// Names of all themes.
    pub themes: Vec<String>,
    /// All prompts: name, one line about it, text.
    pub prompts: Vec<PromptView>,
}

/// A system prompt that can be chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromptView {
    /// Its name.
    pub name: String,
    /// One line about it.
    pub about: String,
    /// The prompt.
    pub text: String,
}
