//! What the terminal can do and how copying would go, for `tui doctor`. Draws nothing.

use super::clipboard;
use super::terminal::Tty;
use crate::config::ClipboardMode;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use std::io;
use std::time::{Duration, Instant};

/// Asks for the keyboard flags, then for what every terminal answers.
const QUESTION: &[u8] = b"\x1b[?u\x1b[c";
/// How long the terminal may take to answer, also over SSH.
const PATIENCE: Duration = Duration::from_millis(1000);

/// A terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalFacts {
    /// Columns and rows.
    pub size: (u16, u16),
    /// Whether it tells Shift+Enter from Enter (the Kitty keyboard protocol); none: it answered nothing.
    pub keyboard: Option<bool>,
}

/// Asks the terminal of this process; none when it has none.
#[must_use]
pub fn terminal() -> Option<TerminalFacts> {
    let tty = Tty::open().ok()?;
    // The Linux console prints what it does not know.
    let is_console = std::env::var_os("TERM").is_some_and(|term| term == "linux");
    let keyboard = if is_console { Some(false) } else { ask(&tty).ok().and_then(|answer| keyboard(&answer)) };
    Some(TerminalFacts { size: tty.size(), keyboard })
}

/// The ways text goes to the clipboard here, in the order they are tried; a file is the last one.
#[must_use]
pub fn copying(mode: ClipboardMode) -> Vec<&'static str> {
    clipboard::words(mode, clipboard::Place::from_env())
}

/// Everything the terminal answers, at most until the answer that comes last.
fn ask(tty: &Tty) -> io::Result<Vec<u8>> {
    if !tty.is_ours() {
        // Changing the settings from the background would stop the process.
        return Err(io::ErrorKind::WouldBlock.into());
    }
    let before = tcgetattr(tty)?;
    let mut raw = before.clone();
    raw.make_raw();
    tcsetattr(tty, OptionalActions::Now, &raw)?;
    let answer = converse(tty);
    // What came in meanwhile and is no answer was typed too early; it is thrown away with the settings.
    tcsetattr(tty, OptionalActions::Flush, &before)?;
    answer
}

fn converse(tty: &Tty) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + PATIENCE;
    tty.write_all(QUESTION, || Instant::now() < deadline)?;
    let mut answer = Vec::new();
    let mut buffer = [0; 256];
    while keyboard(&answer).is_none() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        let mut fds = [PollFd::new(tty, PollFlags::IN)];
        let _ = rustix::event::poll(&mut fds, Timespec::try_from(left).ok().as_ref());
        match rustix::io::read(tty, &mut buffer) {
            Ok(0) => break,
            Ok(n) => answer.extend_from_slice(buffer.get(..n).unwrap_or_default()),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(answer)
}

/// Whether `ESC [ ? flags u` is in front of `ESC [ ? … c`; none as long as the latter has not come.
fn keyboard(answer: &[u8]) -> Option<bool> {
    let text = String::from_utf8_lossy(answer);
    let mut is_known = false;
    for sequence in text.split("\u{1b}[?").skip(1) {
        let rest = sequence.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';');
        match rest.chars().next() {
            Some('u') => is_known = true,
            Some('c') => return Some(is_known),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn answers_are_told_apart() {
        assert_eq!(keyboard(b"\x1b[?0u\x1b[?62;22c"), Some(true));
        assert_eq!(keyboard(b"typed\x1b[?1;2c"), Some(false));
        assert_eq!(keyboard(b"\x1b[?0u"), None, "the second answer is still to come");
        assert_eq!(keyboard(b"\x1b[?0u\x1b[?62;2"), None);
        assert_eq!(keyboard(b""), None);
    }
}
