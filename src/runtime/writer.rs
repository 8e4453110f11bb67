//! The writer thread: the only one that writes to the terminal, and so the only one that waits for it.
//!
//! It takes the newest frame from a mailbox; frames that came in between are never painted. A terminal that
//! stops reading stalls this thread and nothing else.

use super::clock::Clock;
use super::crash;
use super::mailbox::Mailbox;
use super::paint::{Extent, Painter, Picture};
use super::terminal::Tty;
use crate::chat::GenKey;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;

/// How long a closed writer goes on trying to get its last bytes out.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// How long closing waits for the thread.
const CLOSING: Duration = Duration::from_millis(500);

/// An attempt's text was painted for the first time, and when.
pub(super) type Painted = (GenKey, Duration);

/// What waits to be written.
#[derive(Debug, Default)]
struct Post {
    picture: Option<Picture>,
    extent: Extent,
    /// A sequence of another kind (OSC 52); the newest one.
    sequence: Option<Vec<u8>>,
}

/// Puts a sequence of another kind than a frame into the terminal.
#[derive(Clone, Debug)]
pub(super) struct Sequences(Arc<std::sync::Mutex<Arc<Mailbox<Post>>>>);

impl Sequences {
    /// Hands over one sequence; it is written between two frames.
    pub(super) fn send(&self, sequence: Vec<u8>) {
        let mailbox = Arc::clone(&self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        mailbox.put(|unread| Post { sequence: Some(sequence), ..unread.unwrap_or_default() });
    }
}

/// The writer's end in the loop.
#[derive(Debug)]
pub(super) struct Writer {
    tty: Tty,
    clock: Clock,
    painted: UnboundedSender<Painted>,
    mailbox: Sequences,
    ended: Option<Receiver<()>>,
}

impl Writer {
    /// A writer that has not started.
    pub(super) fn new(tty: Tty, clock: Clock, painted: UnboundedSender<Painted>) -> Self {
        let mailbox = Sequences(Arc::new(std::sync::Mutex::new(Arc::default())));
        Self { tty, clock, painted, mailbox, ended: None }
    }

    /// Starts the thread. The first frame will be painted whole.
    ///
    /// # Errors
    /// What the system says when it has no thread for us.
    pub(super) fn start(&mut self) -> std::io::Result<()> {
        let mailbox = Arc::<Mailbox<Post>>::default();
        *self.mailbox.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::clone(&mailbox);
        let (tty, clock, painted) = (self.tty.clone(), self.clock, self.painted.clone());
        let (ending, ended) = sync_channel(1);
        std::thread::Builder::new().name("writer".to_owned()).spawn(move || {
            if let Err(error) = write(&tty, &mailbox, clock, &painted) {
                tracing::warn!(%error, "writing to the terminal");
            }
            let _ = ending.send(());
        })?;
        self.ended = Some(ended);
        Ok(())
    }

    /// Gives the thread what to show now. An older frame it has not begun with is forgotten.
    pub(super) fn show(&self, picture: Picture, extent: Extent) {
        self.current().put(|unread| {
            let unread = unread.unwrap_or_default();
            let extent = if unread.extent == Extent::All { Extent::All } else { extent };
            Post { picture: Some(picture), extent, ..unread }
        });
    }

    /// The way to send other sequences.
    pub(super) fn sequences(&self) -> Sequences {
        self.mailbox.clone()
    }

    /// Ends the thread. What it holds still goes out if the terminal takes it soon.
    pub(super) fn close(&mut self) {
        self.current().close();
        if let Some(ended) = self.ended.take() {
            let _ = ended.recv_timeout(CLOSING);
        }
    }

    fn current(&self) -> Arc<Mailbox<Post>> {
        Arc::clone(&self.mailbox.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

fn write(
    tty: &Tty,
    mailbox: &Mailbox<Post>,
    clock: Clock,
    painted: &UnboundedSender<Painted>,
) -> std::io::Result<()> {
    let mut painter = Painter::default();
    while let Some(Post { picture, extent, sequence }) = mailbox.take() {
        let mut bytes = sequence.unwrap_or_default();
        let attempts = picture.map_or_else(Vec::new, |mut picture| {
            let attempts = std::mem::take(&mut picture.attempts);
            bytes.extend(painter.paint(picture, extent));
            attempts
        });
        // After a panic or a signal gave the terminal back, nothing may follow.
        tty.write_all(&bytes, || {
            crash::is_armed() && mailbox.closed_for().is_none_or(|closed| closed < LAST_WORDS)
        })?;
        let now = clock.now();
        for key in attempts {
            let _ = painted.send((key, now));
        }
    }
    Ok(())
}
