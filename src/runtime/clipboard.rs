//! The ways to the clipboard, in an order that depends on where the program runs, and honest words about each.
//!
//! Nothing here reads a clipboard. What is copied is the original text; the person asked for it.

mod system;
mod ways;

pub(super) use system::THREAD;
pub(super) use ways::RealWays;

use crate::app::CopyOutcome;
use crate::config::ClipboardMode;
use std::path::PathBuf;

/// More text than this is not sent to the terminal: many drop it (74,994 bytes are 100,000 in base64).
const TERMINAL_CAP: usize = 74_994;

/// A way to the clipboard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Tmux,
    System,
    Terminal,
}

/// Where the program runs, as far as copying cares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// Inside tmux.
    pub(super) tmux: bool,
    /// At the other end of an SSH connection.
    pub(super) ssh: bool,
    /// A terminal that is known to have no clipboard.
    pub(super) bare_terminal: bool,
}

impl Place {
    /// Reads `TMUX`, `SSH_CONNECTION`, `SSH_TTY` and `TERM`.
    pub(super) fn from_env() -> Self {
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        Self {
            tmux: is_set("TMUX"),
            ssh: is_set("SSH_CONNECTION") || is_set("SSH_TTY"),
            bare_terminal: std::env::var_os("TERM").is_some_and(|term| term == "linux"),
        }
    }
}

/// What the ways need from the world.
pub(super) trait Ways {
    /// Puts the text into tmux's buffer (and the clipboard beyond it, where tmux may).
    async fn tmux(&mut self, text: &str) -> Result<(), String>;
    /// Puts the text on the system's clipboard.
    async fn system(&mut self, text: &str) -> Result<(), String>;
    /// Sends a sequence to the terminal.
    fn terminal(&mut self, sequence: Vec<u8>);
    /// Writes the text to a private file and returns its path.
    async fn file(&mut self, text: &str) -> Result<PathBuf, String>;
}

/// Copies by the first way that works.
pub(super) async fn copy(text: &str, mode: ClipboardMode, place: Place, ways: &mut impl Ways) -> CopyOutcome {
    let mut troubles = Vec::new();
    for way in plan(mode, place) {
        let tried = match way {
            Way::Tmux => ways.tmux(text).await.map(|()| CopyOutcome::Tmux),
            Way::System => ways.system(text).await.map(|()| CopyOutcome::Copied),
            Way::Terminal if text.len() > TERMINAL_CAP => {
                Err(format!("{} bytes are too many for the terminal", text.len()))
            }
            Way::Terminal => {
                ways.terminal(osc52(text));
                Ok(CopyOutcome::SentToTerminal)
            }
        };
        match tried {
            Ok(outcome) => return outcome,
            Err(trouble) => troubles.push(trouble),
        }
    }
    let why = if troubles.is_empty() { "the configuration says so".to_owned() } else { troubles.join("; ") };
    match ways.file(text).await {
        Ok(path) => CopyOutcome::File { path: path.display().to_string(), why },
        Err(trouble) => CopyOutcome::Failed { why: format!("{why}; {trouble}") },
    }
}

/// The ways to try, in order; a file is what remains after them.
fn plan(mode: ClipboardMode, place: Place) -> Vec<Way> {
    match mode {
        ClipboardMode::Tmux => vec![Way::Tmux],
        ClipboardMode::System => vec![Way::System],
        ClipboardMode::Osc52 => vec![Way::Terminal],
        ClipboardMode::File => Vec::new(),
        ClipboardMode::Auto => {
            let mut ways = Vec::new();
            if place.tmux {
                ways.push(Way::Tmux);
            }
            if !place.ssh {
                ways.push(Way::System);
            }
            // tmux ignores the sequence unless it is told otherwise: there a file is the honest answer.
            if !place.bare_terminal && !place.tmux {
                ways.push(Way::Terminal);
            }
            ways
        }
    }
}

/// The ways that would be tried, in words.
pub(super) fn words(mode: ClipboardMode, place: Place) -> Vec<&'static str> {
    plan(mode, place)
        .into_iter()
        .map(|way| match way {
            Way::Tmux => "tmux's buffer",
            Way::System => "the system's clipboard",
            Way::Terminal => "the terminal (OSC 52)",
        })
        .chain(["a file"])
        .collect()
}

/// The sequence that asks the terminal to take this text.
fn osc52(text: &str) -> Vec<u8> {
    use base64::Engine;
    let encoded = base64::engine::general_purpose::STANDARD.encode(text);
    format!("\x1b]52;c;{encoded}\x1b\\").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    /// Ways that fail as told, and remember who was asked.
    #[derive(Default)]
    struct Fake {
        failing: Vec<&'static str>,
        asked: Vec<&'static str>,
        sequence: Vec<u8>,
    }

    impl Fake {
        fn ask(&mut self, way: &'static str) -> Result<(), String> {
            self.asked.push(way);
            if self.failing.contains(&way) { Err(format!("no {way}")) } else { Ok(()) }
        }
    }

    impl Ways for Fake {
        async fn tmux(&mut self, _text: &str) -> Result<(), String> {
            self.ask("tmux")
        }
        async fn system(&mut self, _text: &str) -> Result<(), String> {
            self.ask("system")
        }
        fn terminal(&mut self, sequence: Vec<u8>) {
            self.asked.push("terminal");
            self.sequence = sequence;
        }
        async fn file(&mut self, _text: &str) -> Result<PathBuf, String> {
            self.ask("file").map(|()| PathBuf::from("/cache/last-copy.txt"))
        }
    }

    fn run(text: &str, mode: ClipboardMode, place: Place, failing: &[&'static str]) -> (CopyOutcome, Fake) {
        let mut fake = Fake { failing: failing.to_vec(), ..Fake::default() };
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
        (runtime.block_on(copy(text, mode, place, &mut fake)), fake)
    }

    fn file(why: &str) -> CopyOutcome {
        CopyOutcome::File { path: "/cache/last-copy.txt".to_owned(), why: why.to_owned() }
    }

    #[test]
    fn the_order_follows_the_place() {
        let local = Place::default();
        let ssh = Place { ssh: true, ..local };
        let tmux = Place { tmux: true, ..local };
        let console = Place { bare_terminal: true, ..local };
        let tmux_ssh = Place { tmux: true, ..ssh };
        let auto = ClipboardMode::Auto;
        type Case<'a> = (ClipboardMode, Place, &'a [&'static str], &'a [&'static str], CopyOutcome);
        let cases: [Case<'_>; 12] = [
            (auto, local, &[], &["system"], CopyOutcome::Copied),
            (auto, local, &["system"], &["system", "terminal"], CopyOutcome::SentToTerminal),
            (auto, ssh, &[], &["terminal"], CopyOutcome::SentToTerminal),
            (auto, tmux, &[], &["tmux"], CopyOutcome::Tmux),
            (auto, tmux, &["tmux"], &["tmux", "system"], CopyOutcome::Copied),
            (auto, tmux_ssh, &["tmux"], &["tmux", "file"], file("no tmux")),
            (auto, console, &["system"], &["system", "file"], file("no system")),
            (ClipboardMode::File, local, &[], &["file"], file("the configuration says so")),
            (ClipboardMode::System, ssh, &["system"], &["system", "file"], file("no system")),
            (ClipboardMode::Tmux, local, &[], &["tmux"], CopyOutcome::Tmux),
            (ClipboardMode::Osc52, tmux, &[], &["terminal"], CopyOutcome::SentToTerminal),
            (
                ClipboardMode::System,
                local,
                &["system", "file"],
                &["system", "file"],
                CopyOutcome::Failed { why: "no system; no file".to_owned() },
            ),
        ];
        for (mode, place, failing, asked, outcome) in cases {
            let (got, fake) = run("text", mode, place, failing);
            assert_eq!((got, fake.asked.as_slice()), (outcome, asked), "{mode:?} {place:?} {failing:?}");
        }
    }

    #[test]
    fn the_terminal_gets_the_text_and_nothing_too_long() {
        let ssh = Place { ssh: true, ..Place::default() };
        let (_, fake) = run("né\u{1b}", ClipboardMode::Auto, ssh, &[]);
        assert_eq!(fake.sequence, b"\x1b]52;c;bsOpGw==\x1b\\");
        let cap = "x".repeat(TERMINAL_CAP);
        let (outcome, fake) = run(&cap, ClipboardMode::Auto, ssh, &[]);
        assert_eq!((outcome, fake.sequence.len()), (CopyOutcome::SentToTerminal, 99_992 + 9));
        let (outcome, fake) = run(&format!("{cap}x"), ClipboardMode::Auto, ssh, &[]);
        assert_eq!(outcome, file("74995 bytes are too many for the terminal"));
        assert_eq!(fake.asked, ["file"]);
    }
}
