//! The input thread: the only reader of the terminal. It asks the terminal nothing, so no answer can be
//! mistaken for typing.
//!
//! It reads for itself because crossterm's reader waits for the edge of new input: of a burst longer than its
//! buffer the rest stays unread until the next key. Here nothing stays behind, and a hang-up is seen at once.

mod parser;

use super::terminal::Tty;
use crate::keymap::Chord;
use parser::{Parser, Waiting};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::os::fd::AsFd;
use std::time::Duration;
use tokio::sync::mpsc;

/// Events held for the loop; beyond that the terminal driver holds them.
const QUEUE: usize = 4096;
/// After this much silence the beginning of a sequence was a key of its own.
const SEQUENCE_TIMEOUT: Duration = Duration::from_millis(40);
/// After this much silence a paste has ended, even if the terminal forgot to say so.
const PASTE_TIMEOUT: Duration = Duration::from_secs(5);

/// What came from the terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// A key went down.
    Key(Chord),
    /// A bracketed paste, raw.
    Paste(String),
    /// The terminal is gone.
    Lost,
}

/// Starts the thread. It lives as long as the process.
///
/// # Errors
/// What the system says when it has no thread for us.
pub(super) fn start(tty: Tty) -> std::io::Result<mpsc::Receiver<Input>> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    std::thread::Builder::new().name("input".to_owned()).spawn(move || {
        let error = read(&tty, &sender);
        tracing::warn!(%error, "reading the terminal");
        let _ = sender.blocking_send(Input::Lost);
    })?;
    Ok(receiver)
}

/// Reads until that is not possible any more; returns why.
fn read(tty: &Tty, sender: &mpsc::Sender<Input>) -> Errno {
    let mut parser = Parser::default();
    let mut buffer = vec![0; 64 * 1024];
    let mut inputs = Vec::new();
    loop {
        let limit = match parser.waiting() {
            Waiting::Nothing => None,
            Waiting::Sequence => Some(SEQUENCE_TIMEOUT),
            Waiting::Paste => Some(PASTE_TIMEOUT),
        };
        match ready(tty, limit) {
            Ok(true) => match rustix::io::read(tty.as_fd(), buffer.as_mut_slice()) {
                Ok(0) => return Errno::IO,
                Ok(read) => parser.push(buffer.get(..read).unwrap_or_default(), &mut inputs),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return error,
            },
            Ok(false) => parser.give_up(&mut inputs),
            Err(error) => return error,
        }
        for input in inputs.drain(..) {
            if sender.blocking_send(input).is_err() {
                return Errno::CANCELED;
            }
        }
    }
}

/// Waits for something to read: `false` when the limit came first.
fn ready(tty: &Tty, limit: Option<Duration>) -> Result<bool, Errno> {
    let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
    let mut fds = [PollFd::new(tty, PollFlags::IN)];
    loop {
        match poll(&mut fds, limit.as_ref()) {
            Ok(0) => return Ok(false),
            Ok(_) => {
                let events = fds.first().map_or(PollFlags::empty(), PollFd::revents);
                let is_gone = events.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL);
                return if is_gone { Err(Errno::IO) } else { Ok(true) };
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}
