//! Questions to the person, on the terminal. They are asked on stderr, as stdout is for what was asked for.

use crate::backend::Secret;
use crate::error::{AppError, Exit};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use std::io::{BufRead, IsTerminal, Write};

/// Bytes of an answer.
const MAX_ANSWER: u64 = 64 * 1024;

/// Whether somebody is there to answer.
pub(super) fn is_possible() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// A question that is answered by one line.
pub(super) fn line(question: &str) -> String {
    let mut err = std::io::stderr();
    let _ = write!(err, "{} ", crate::text::shown(question));
    let _ = err.flush();
    read()
}

/// A question that only a clear yes answers with yes.
pub(super) fn yes(question: &str) -> bool {
    matches!(line(&format!("{question} [y/N]")).to_lowercase().as_str(), "y" | "yes")
}

/// A secret: typed unseen on a terminal, else the first line of stdin.
///
/// # Errors
/// When the terminal can't be told to show nothing.
pub(super) fn secret(question: &str) -> Result<Secret, AppError> {
    if !is_possible() {
        return Ok(Secret::new(&read()));
    }
    let _hidden = Hidden::new()
        .map_err(|error| AppError::new(Exit::Error, format!("what is typed can't be hidden: {error}")))?;
    let secret = Secret::new(&line(question));
    let _ = writeln!(std::io::stderr());
    Ok(secret)
}

/// The first line of stdin.
pub(super) fn read() -> String {
    let mut text = String::new();
    let mut input = std::io::Read::take(std::io::stdin().lock(), MAX_ANSWER);
    let _ = input.read_line(&mut text);
    text.trim().to_owned()
}

/// A terminal that shows nothing of what is typed, until this is dropped.
struct Hidden(Termios);

impl Hidden {
    fn new() -> std::io::Result<Self> {
        let before = tcgetattr(std::io::stdin())?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(std::io::stdin(), OptionalActions::Flush, &quiet)?;
        Ok(Self(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Flush, &self.0);
    }
}
