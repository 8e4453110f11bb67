//! Sessions on disk: SQLite in WAL mode, one writer thread, readers on their own connections.

use crate::chat::SessionId;
use crate::chat::record::{SessionRecord, StoreJob, TurnRecord};
use std::path::Path;

/// What the writer says of its own accord.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreNews {
    /// A write failed (one line); everything is kept and tried again every 5 s.
    Failed(String),
    /// Writing works again, nothing was lost.
    Recovered,
}

/// A handle on the writer thread. Clones share it; the thread ends when the last one is dropped and
/// everything is written.
#[derive(Clone, Debug)]
pub struct Store {
    jobs: std::sync::mpsc::SyncSender<StoreJob>,
}

impl Store {
    /// Opens (and migrates) the database and starts the writer. `news` is called on the writer thread.
    ///
    /// # Errors
    /// One or two lines: the file, the cause, the next step.
    pub fn open(_path: &Path, _news: impl Fn(StoreNews) + Send + 'static) -> Result<Self, String> {
        let (jobs, _rx) = std::sync::mpsc::sync_channel(1);
        Ok(Self { jobs })
    }

    /// Gives the writer something to do, in order. Never blocks on the disk.
    pub fn send(&self, job: StoreJob) {
        let _ = self.jobs.try_send(job);
    }

    /// Returns when everything sent so far is synced to disk (`true`), or could not be written yet (`false`).
    pub async fn flushed(&self) -> bool {
        true
    }

    /// As [`Self::flushed`], blocking, for the way out; gives up after `limit`.
    pub fn flush_blocking(&self, _limit: std::time::Duration) -> bool {
        true
    }
}

/// A session with its turns.
#[derive(Clone, Debug, PartialEq)]
pub struct SavedSession {
    /// The session.
    pub record: SessionRecord,
    /// Its turns, oldest first.
    pub turns: Vec<TurnRecord>,
}

/// Reads saved sessions. Opens its own read-only connection.
///
/// # Errors
/// One or two lines: the file, the cause, the next step.
pub fn load(_path: &Path, _id: &SessionId) -> Result<SavedSession, String> {
    Err("not written".to_owned())
}

/// The session used last, if there is one.
///
/// # Errors
/// As [`load`].
pub fn latest(_path: &Path) -> Result<Option<SessionId>, String> {
    Ok(None)
}

/// The session a person means: an id, a unique prefix of one, or a title.
///
/// # Errors
/// As [`load`]; also when nothing or several match (they are named).
pub fn find(_path: &Path, _wanted: &str) -> Result<SessionId, String> {
    Err("not written".to_owned())
}

/// Sessions, the one used last first.
///
/// # Errors
/// As [`load`].
pub fn list(_path: &Path, _limit: usize) -> Result<Vec<SessionRecord>, String> {
    Ok(Vec::new())
}

/// Inputs typed into the composer, oldest first, duplicates removed.
///
/// # Errors
/// As [`load`].
pub fn inputs(_path: &Path, _limit: usize) -> Result<Vec<String>, String> {
    Ok(Vec::new())
}
