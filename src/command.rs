//! Every command there is, in one table: what keys, slash commands and menus lead to, and what help and
//! completion are made from. What a command does is in `app`; which keys mean it is in `keymap`.

use nucleo_matcher::pattern::{Atom, AtomKind, CaseMatching, Normalization};
use nucleo_matcher::{Config, Matcher, Utf32Str};

/// Names a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the table below has a line about each")]
pub enum Command {
    Send,
    Newline,
    Interrupt,
    Escape,
    DeleteOrQuit,
    Help,
    Model,
    Models,
    New,
    Sessions,
    Retry,
    Stop,
    Copy,
    Think,
    System,
    Prompt,
    Theme,
    Status,
    Quit,
    Redraw,
    Suspend,
    Leader,
    PageUp,
    PageDown,
    RowUp,
    RowDown,
    ToTop,
    ToEnd,
    Up,
    Down,
    HistoryPrevious,
    HistoryNext,
    HistorySearch,
    Left,
    Right,
    WordLeft,
    WordRight,
    LineStart,
    LineEnd,
    DeleteBack,
    DeleteForward,
    DeleteWordBack,
    DeleteWordForward,
    KillWordBack,
    KillToStart,
    KillToEnd,
    Yank,
    Undo,
    Redo,
    Complete,
    Previous,
    Next,
    PreviousPage,
    NextPage,
    First,
    Last,
    Accept,
    Close,
    Load,
    Unload,
    Pin,
    KeepAlive,
    Target,
    Filter,
    Refresh,
    Use,
    On,
    NextTarget,
    Why,
    Route,
    RouteAgain,
    Stats,
    Backends,
    Continue,
    Escalate,
    Keep,
    KeepFirst,
    KeepSecond,
    FallBack,
    WaitForIt,
    Fence,
}

/// A heading of the help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// Asking and stopping.
    Talk,
    /// Sessions, models, settings.
    Manage,
    /// The transcript.
    Scroll,
    /// The input field.
    Edit,
    /// Lists and help.
    List,
    /// The residency board.
    Board,
}

impl Group {
    /// All of them, in the order of the help.
    pub const ALL: [Self; 6] = [Self::Talk, Self::Manage, Self::Board, Self::Scroll, Self::Edit, Self::List];

    /// The heading.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Talk => "Talking",
            Self::Manage => "Sessions, models, settings",
            Self::Scroll => "Reading",
            Self::Edit => "Writing",
            Self::List => "Lists",
            Self::Board => "The board of models",
        }
    }
}

/// When a command can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// At any time.
    Always,
    /// Not while a turn is running.
    Idle,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// The command.
    pub command: Command,
    /// Its slash names without the slash, the first one is its name; empty for keys alone.
    pub slash: &'static [&'static str],
    /// Its argument as the help shows it, or empty.
    pub argument: &'static str,
    /// One line about it.
    pub about: &'static str,
    /// When it can be used.
    pub when: When,
    /// Where the help shows it.
    pub group: Group,
}

const fn key(command: Command, group: Group, about: &'static str) -> Spec {
    Spec { command, slash: &[], argument: "", about, when: When::Always, group }
}

const fn slash(
    command: Command,
    group: Group,
    slash: &'static [&'static str],
    argument: &'static str,
    when: When,
    about: &'static str,
) -> Spec {
    Spec { command, slash, argument, about, when, group }
}

/// All commands. Help and completion keep this order.
pub const COMMANDS: &[Spec] = &[
    key(Command::Send, Group::Talk, "send the message; while a turn runs, queue it"),
    key(Command::Newline, Group::Talk, "new line (a backslash before enter does it too)"),
    key(Command::Interrupt, Group::Talk, "close a list, stop the turn, clear the draft, then quit"),
    key(Command::Escape, Group::Talk, "close a list, stop the turn"),
    slash(Command::Stop, Group::Talk, &["stop"], "", When::Always, "stop the running turn"),
    slash(
        Command::Retry,
        Group::Talk,
        &["retry", "regen"],
        "[target]",
        When::Idle,
        "ask the last question again (r alone, after a stopped or failed answer)",
    ),
    slash(
        Command::Continue,
        Group::Talk,
        &["continue"],
        "[target]",
        When::Idle,
        "finish an answer that was cut, here or on another machine (c alone, after one that failed)",
    ),
    slash(
        Command::Escalate,
        Group::Talk,
        &["escalate"],
        "[target]",
        When::Idle,
        "ask another machine the same; its answer stands below, with what differs in the code",
    ),
    slash(
        Command::Keep,
        Group::Talk,
        &["keep"],
        "[number]",
        When::Idle,
        "choose which of several answers counts",
    ),
    slash(Command::On, Group::Talk, &["on"], "target text", When::Idle, "ask one target, this time only"),
    key(Command::KeepFirst, Group::Talk, "keep the first of two answers"),
    key(Command::KeepSecond, Group::Talk, "keep the second"),
    key(
        Command::FallBack,
        Group::Talk,
        "when a machine failed before its first text: run on the one that is offered",
    ),
    key(Command::WaitForIt, Group::Talk, "when a machine failed before its first text: wait for it"),
    slash(
        Command::Copy,
        Group::Talk,
        &["copy"],
        "[number]",
        When::Always,
        "copy the last answer, or a code block by its number",
    ),
    slash(
        Command::Think,
        Group::Talk,
        &["think"],
        "",
        When::Always,
        "unfold or fold the thinking of the last answer",
    ),
    slash(Command::Help, Group::Manage, &["help", "?"], "", When::Always, "keys and commands"),
    slash(
        Command::Model,
        Group::Manage,
        &["model"],
        "[name]",
        When::Always,
        "choose the model of the next turn",
    ),
    slash(
        Command::Use,
        Group::Manage,
        &["use"],
        "target",
        When::Always,
        "send turns there from now on: auto, a backend, an alias, a model",
    ),
    key(Command::NextTarget, Group::Manage, "the next target: auto, then each backend"),
    slash(Command::Why, Group::Manage, &["why"], "", When::Always, "why the last turn went where it did"),
    slash(
        Command::Route,
        Group::Manage,
        &["route"],
        "text",
        When::Always,
        "where a question would go, and why; nothing is sent",
    ),
    slash(
        Command::Backends,
        Group::Manage,
        &["backends"],
        "",
        When::Always,
        "the machines, and how they are",
    ),
    slash(
        Command::Fence,
        Group::Manage,
        &["fence"],
        "[lift]",
        When::Always,
        "what the privacy fence keeps here; lift it for the next turn",
    ),
    slash(
        Command::Models,
        Group::Manage,
        &["models"],
        "",
        When::Always,
        "the board: what is in memory, what fits; load, unload, pin",
    ),
    slash(
        Command::New,
        Group::Manage,
        &["new", "clear"],
        "",
        When::Idle,
        "start a new session; this one stays saved",
    ),
    slash(
        Command::Sessions,
        Group::Manage,
        &["sessions", "resume"],
        "",
        When::Idle,
        "go on with a saved session",
    ),
    slash(Command::Prompt, Group::Manage, &["prompt"], "[name]", When::Idle, "choose a system prompt"),
    slash(
        Command::System,
        Group::Manage,
        &["system"],
        "[text|off]",
        When::Idle,
        "show, set or remove the system prompt",
    ),
    slash(Command::Theme, Group::Manage, &["theme"], "[name]", When::Always, "choose a theme"),
    slash(Command::Status, Group::Manage, &["status"], "", When::Always, "session, model, turns and tokens"),
    slash(
        Command::Stats,
        Group::Manage,
        &["stats"],
        "",
        When::Always,
        "measured speeds, and how well they were predicted",
    ),
    slash(Command::Quit, Group::Manage, &["quit", "exit", "bye", "q"], "", When::Always, "leave"),
    key(Command::Redraw, Group::Manage, "draw the screen anew"),
    key(Command::Suspend, Group::Manage, "back to the shell; fg returns"),
    key(Command::Leader, Group::Manage, "first key of the pairs in this list"),
    slash(
        Command::Load,
        Group::Board,
        &["load"],
        "[name]",
        When::Always,
        "load the model; one that is resident becomes the target",
    ),
    slash(
        Command::Unload,
        Group::Board,
        &["unload"],
        "[name]",
        When::Always,
        "unload the model, or give up its load",
    ),
    slash(
        Command::Pin,
        Group::Board,
        &["pin"],
        "[name]",
        When::Always,
        "pin the model in memory, or unpin it",
    ),
    key(Command::KeepAlive, Group::Board, "how long it stays: default, 5 min, 1 h, for ever, one answer"),
    key(Command::Target, Group::Board, "make it the target of the next turns"),
    key(Command::Filter, Group::Board, "show only models that match"),
    key(Command::Refresh, Group::Board, "ask every machine again"),
    key(Command::PageUp, Group::Scroll, "a page up"),
    key(Command::PageDown, Group::Scroll, "a page down"),
    key(Command::RowUp, Group::Scroll, "a row up"),
    key(Command::RowDown, Group::Scroll, "a row down"),
    key(Command::ToTop, Group::Scroll, "to the first turn (home alone on an empty draft)"),
    key(Command::ToEnd, Group::Scroll, "to the end, and follow it (end alone on an empty draft)"),
    key(
        Command::Up,
        Group::Edit,
        "a row up; from the first one, earlier messages; empty: unqueue the last one",
    ),
    key(Command::Down, Group::Edit, "a row down; from the last one, later messages and the draft"),
    key(Command::HistoryPrevious, Group::Edit, "the message before"),
    key(Command::HistoryNext, Group::Edit, "the message after"),
    key(Command::HistorySearch, Group::Edit, "search earlier messages"),
    key(Command::Left, Group::Edit, "a character left"),
    key(Command::Right, Group::Edit, "a character right"),
    key(Command::WordLeft, Group::Edit, "a word left"),
    key(Command::WordRight, Group::Edit, "a word right"),
    key(Command::LineStart, Group::Edit, "to the start of the line"),
    key(Command::LineEnd, Group::Edit, "to the end of the line"),
    key(Command::DeleteBack, Group::Edit, "delete the character before"),
    key(Command::DeleteForward, Group::Edit, "delete the character after"),
    key(Command::DeleteOrQuit, Group::Edit, "delete the character after; on an empty draft, leave"),
    key(Command::DeleteWordBack, Group::Edit, "delete the word before"),
    key(Command::DeleteWordForward, Group::Edit, "delete the word after"),
    key(Command::KillWordBack, Group::Edit, "delete back to a blank"),
    key(Command::KillToStart, Group::Edit, "delete to the start of the line"),
    key(Command::KillToEnd, Group::Edit, "delete to the end of the line"),
    key(Command::Yank, Group::Edit, "insert what was deleted by word or line"),
    key(Command::Undo, Group::Edit, "undo"),
    key(Command::Redo, Group::Edit, "redo"),
    key(Command::Complete, Group::List, "complete the command"),
    key(Command::Previous, Group::List, "the entry above"),
    key(Command::Next, Group::List, "the entry below"),
    key(Command::PreviousPage, Group::List, "a page up in the list"),
    key(Command::NextPage, Group::List, "a page down in the list"),
    key(Command::First, Group::List, "the start of the list"),
    key(Command::Last, Group::List, "the end of the list"),
    key(Command::Accept, Group::List, "choose the marked entry"),
    key(Command::Close, Group::List, "close the help or the board"),
    key(Command::RouteAgain, Group::List, "ask the router again"),
];

/// The row of a command.
#[must_use]
pub fn spec(command: Command) -> Option<&'static Spec> {
    COMMANDS.iter().find(|spec| spec.command == command)
}

/// What a line typed into the composer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// A message, with the slash or blank that protected it taken off.
    Text(String),
    /// A command.
    Run {
        /// Which.
        command: Command,
        /// What stood after its name, trimmed.
        argument: String,
    },
    /// Looks like a command, but there is none of that name. Never sent.
    Unknown {
        /// The name, without the slash.
        word: String,
        /// The name most like it, when one is.
        nearest: Option<&'static str>,
    },
}

/// Reads a line. `//` or a leading blank protects a slash; a path such as `/usr/lib` is text.
#[must_use]
pub fn parse(line: &str) -> Line {
    if line.starts_with("//") {
        return Line::Text(line.chars().skip(1).collect());
    }
    if line.starts_with([' ', '\t']) && line.trim_start().starts_with('/') {
        return Line::Text(line.trim_start().to_owned());
    }
    let Some(rest) = line.strip_prefix('/') else { return Line::Text(line.to_owned()) };
    let (word, argument) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    if !is_word(word) {
        return Line::Text(line.to_owned());
    }
    let word = word.to_lowercase();
    match named(&word) {
        Some(spec) => Line::Run { command: spec.command, argument: argument.trim().to_owned() },
        None => Line::Unknown { nearest: nearest(&word), word },
    }
}

/// A message as it has to be typed to be read as text again.
#[must_use]
pub fn protect(text: &str) -> String {
    match parse(text) {
        Line::Text(same) if same == text => same,
        _ => format!("/{text}"),
    }
}

/// Commands whose names fit what is typed: those that begin with it; where there is none, those that begin
/// with the same letter and contain the others in order. `None` when the draft is not the name of a command being typed. Gives the name to insert.
#[must_use]
pub fn complete(draft: &str) -> Option<Vec<(&'static str, &'static Spec)>> {
    let typed = draft.strip_prefix('/').filter(|word| is_word(word))?.to_lowercase();
    let found: Vec<(&'static str, &'static Spec)> = COMMANDS
        .iter()
        .filter_map(|spec| Some((*spec.slash.iter().find(|name| name.starts_with(&typed))?, spec)))
        .collect();
    if !found.is_empty() {
        return Some(found);
    }
    let atom = Atom::new(&typed, CaseMatching::Ignore, Normalization::Smart, AtomKind::Fuzzy, false);
    let mut matcher = Matcher::new(Config::DEFAULT);
    let mut space = Vec::new();
    let mut fuzzy: Vec<_> = COMMANDS
        .iter()
        .filter_map(|spec| {
            let scored =
                spec.slash.iter().filter(|name| name.chars().next() == typed.chars().next()).filter_map(
                    |name| Some((atom.score(Utf32Str::new(name, &mut space), &mut matcher)?, *name)),
                );
            scored.max_by_key(|(score, _)| *score).map(|(score, name)| (score, name, spec))
        })
        .collect();
    fuzzy.sort_by_key(|(score, ..)| std::cmp::Reverse(*score));
    Some(fuzzy.into_iter().map(|(_, name, spec)| (name, spec)).collect())
}

/// The command with exactly this slash name.
#[must_use]
pub fn named(word: &str) -> Option<&'static Spec> {
    COMMANDS.iter().find(|spec| spec.slash.contains(&word))
}

fn is_word(word: &str) -> bool {
    word == "?" || word.chars().all(|c| c.is_ascii_alphabetic() || c == '-')
}

fn nearest(word: &str) -> Option<&'static str> {
    let names = COMMANDS.iter().flat_map(|spec| spec.slash).copied().filter(|name| name.len() > 1);
    let (distance, name) =
        names.map(|name| (strsim::damerau_levenshtein(word, name), name)).min_by_key(|(d, _)| *d)?;
    (distance <= 1 + word.chars().count() / 4).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;
    use std::collections::HashSet;

    #[test]
    fn the_table_is_sound() {
        let mut commands = HashSet::new();
        let mut names = HashSet::new();
        for spec in COMMANDS {
            assert!(commands.insert(spec.command), "{:?} twice", spec.command);
            assert!(!spec.about.is_empty() && !spec.about.ends_with('.'), "{:?}", spec.command);
            for name in spec.slash {
                assert!(names.insert(*name), "/{name} twice");
                assert!(is_word(name), "/{name} can't be typed");
            }
            assert!(spec.argument.is_empty() || !spec.slash.is_empty());
        }
    }

    #[test]
    fn lines_are_read() {
        let run = |command, argument: &str| Line::Run { command, argument: argument.to_owned() };
        let text = |text: &str| Line::Text(text.to_owned());
        let unknown = |word: &str, nearest| Line::Unknown { word: word.to_owned(), nearest };
        let cases = [
            ("hello /model", text("hello /model")),
            ("/model", run(Command::Model, "")),
            ("/Model  qwen 7b ", run(Command::Model, "qwen 7b")),
            ("/system\nBe brief.\nPlease.", run(Command::System, "Be brief.\nPlease.")),
            ("/?", run(Command::Help, "")),
            ("/q", run(Command::Quit, "")),
            ("/modle", unknown("modle", Some("model"))),
            ("/xyzzy now", unknown("xyzzy", None)),
            ("/", unknown("", None)),
            ("//model", text("/model")),
            (" /model", text("/model")),
            ("/usr/lib is full", text("/usr/lib is full")),
            ("/etc.d", text("/etc.d")),
            ("/2", text("/2")),
        ];
        for (line, expected) in cases {
            assert_eq!(parse(line), expected, "{line:?}");
        }
    }

    #[test]
    fn protected_text_is_text() {
        for text in ["/model", "//x", "/usr/lib", "hello", "/"] {
            assert_eq!(parse(&protect(text)), Line::Text(text.to_owned()));
        }
    }

    #[test]
    fn completion_prefers_beginnings() {
        let names = |draft: &str| {
            complete(draft).map(|found| found.into_iter().map(|(name, _)| name).collect::<Vec<_>>())
        };
        assert_eq!(names("/s").expect("a word"), ["stop", "sessions", "system", "status", "stats"]);
        assert_eq!(names("/mo").expect("a word"), ["model", "models"]);
        assert_eq!(names("/cle").expect("a word"), ["clear"]);
        assert_eq!(names("/mdl").expect("a word"), ["model", "models"]);
        assert_eq!(names("/odel"), Some(vec![]));
        assert_eq!(names("/zz"), Some(vec![]));
        assert_eq!(names("/").expect("all").len(), COMMANDS.iter().filter(|s| !s.slash.is_empty()).count());
        for text in ["/usr/", "/model x", "", "x", "/a\n"] {
            assert_eq!(names(text), None, "{text:?}");
        }
    }
}
