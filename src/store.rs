//! Sessions on disk: SQLite in WAL mode, one writer thread, readers on their own connections.
//!
//! [`Store`] takes jobs and never waits for the disk; the writer thread groups them into transactions.
//! The free functions read. Nothing here decides what is worth keeping: that is the app's.

mod apply;
mod hold;
mod open;
mod read;
mod schema;
mod speeds;
mod ticket;
mod writer;

#[cfg(test)]
mod tests;

pub use read::{find, inputs, latest, list, load};
pub use speeds::{outcomes, speeds};

use crate::chat::SessionId;
use crate::chat::record::{SessionRecord, StoreJob, TurnRecord};
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use ticket::Ticket;
use writer::{Command, Timing, Urgency, Writer};

/// What the writer says of its own accord.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreNews {
    /// A write failed (one or two lines); everything is kept and tried again every 5 s.
    Failed(String),
    /// Writing works again, nothing was lost.
    Recovered,
    /// Another window writes to `from`: this program's turns go into the copy `session` instead.
    /// Jobs that still name `from` end up there too.
    Forked {
        /// The session the jobs named.
        from: SessionId,
        /// Where they go now.
        session: SessionId,
    },
    /// Something the person should know once, one or two lines; saving works.
    Notice(String),
}

/// A handle on the writer thread. Clones share it; the thread ends when the last one is dropped and
/// everything is written.
#[derive(Clone, Debug)]
pub struct Store {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    commands: Option<Sender<Command>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    ended: Arc<Ticket>,
}

/// How long the way out waits for the last write.
const DRAIN_LIMIT: Duration = Duration::from_secs(8);

impl Drop for Shared {
    fn drop(&mut self) {
        // Without a sender the writer writes what it has and ends.
        self.commands = None;
        if self.ended.wait(DRAIN_LIMIT).is_some()
            && let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            let _ = thread.join();
        }
    }
}

impl Store {
    /// Opens (and migrates) the database and starts the writer. `news` is called on the writer thread,
    /// for what opening itself has to say on the caller's. A disk that is full or a database that is
    /// locked is no error: the writer starts, says so and tries again.
    ///
    /// # Errors
    /// One or two lines: the file, the cause, the next step. Nothing can be saved then: the folder can't
    /// be written, or a newer version of the program wrote the database.
    pub fn open(path: &Path, news: impl Fn(StoreNews) + Send + 'static) -> Result<Self, String> {
        Self::open_timed(path, Timing::default(), news)
    }

    fn open_timed(
        path: &Path,
        timing: Timing,
        news: impl Fn(StoreNews) + Send + 'static,
    ) -> Result<Self, String> {
        let (commands, inbox) = channel();
        let writer = Writer::open(path, timing, Box::new(news))?;
        let (ended, guard) = Ticket::pair();
        let thread = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || {
                writer.run(&inbox);
                guard.resolve(true);
            })
            .map_err(|error| format!("sessions can't be saved: no thread for the writer: {error}"))?;
        Ok(Self {
            shared: Arc::new(Shared { commands: Some(commands), thread: Mutex::new(Some(thread)), ended }),
        })
    }

    /// Gives the writer something to do, in order. Never blocks on the disk.
    pub fn send(&self, job: StoreJob) {
        self.command(Command::Job(job));
    }

    /// Returns when everything sent so far is synced to disk (`true`), or could not be written yet (`false`).
    pub async fn flushed(&self) -> bool {
        let (ticket, pending) = Ticket::pair();
        self.command(Command::Flush { pending, urgency: Urgency::IfWorking });
        ticket::Waiting::new(ticket).await
    }

    /// As [`Self::flushed`], blocking, for the way out: tries even where the last write failed, and gives
    /// up after `limit`.
    pub fn flush_blocking(&self, limit: Duration) -> bool {
        let (ticket, pending) = Ticket::pair();
        self.command(Command::Flush { pending, urgency: Urgency::Try });
        ticket.wait(limit).unwrap_or(false)
    }

    fn command(&self, command: Command) {
        if let Some(commands) = &self.shared.commands {
            // The writer outlives every handle; if it panicked, the unanswered tickets say so.
            let _ = commands.send(command);
        }
    }
}

/// The id of a session that begins now.
#[must_use]
pub fn new_id() -> SessionId {
    SessionId::new(writer::unix_seconds(), apply::random())
}

/// A session with its turns.
#[derive(Clone, Debug, PartialEq)]
pub struct SavedSession {
    /// The session.
    pub record: SessionRecord,
    /// Its turns, oldest first.
    pub turns: Vec<TurnRecord>,
}
