//! The writer thread: groups jobs into transactions, syncs boundaries, keeps what could not be written.

use super::StoreNews;
use super::apply::Desk;
use super::hold::Presence;
use super::open::{self, OpenError, Opened};
use super::ticket::Pending;
use crate::chat::record::StoreJob;
use rusqlite::{Connection, ErrorCode, TransactionBehavior};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What the thread is given.
#[derive(Debug)]
pub(super) enum Command {
    /// Something to write.
    Job(StoreJob),
    /// Somebody waits until everything before it is synced.
    Flush {
        /// Who.
        pending: Pending,
        /// What to do when writing fails at the moment.
        urgency: Urgency,
    },
}

/// How badly a flush is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    /// Not at all while writing fails: the answer is then `false` at once.
    IfWorking,
    /// One more try even then.
    Try,
}

/// How long the writer waits for what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    /// From the first unwritten text to the transaction that holds it.
    pub(super) batch: Duration,
    /// Between tries while writing fails.
    pub(super) retry: Duration,
    /// For another program's lock.
    pub(super) busy: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            batch: Duration::from_millis(150),
            retry: Duration::from_secs(5),
            busy: Duration::from_secs(5),
        }
    }
}

/// Everything the thread owns.
pub(super) struct Writer {
    path: PathBuf,
    timing: Timing,
    news: Box<dyn Fn(StoreNews) + Send>,
    presence: Presence,
    database: Option<Opened>,
    desk: Desk,
    /// Jobs not committed yet, in order.
    pending: Vec<StoreJob>,
    waiting: Vec<Pending>,
    /// When the next commit is due.
    due: Option<Instant>,
    /// Whether that commit must be synced.
    must_sync: bool,
    /// Whether something is committed but not synced.
    is_unsynced: bool,
    /// While writing fails: when to try again.
    retry_at: Option<Instant>,
}

impl Writer {
    /// Opens the database, or prepares to try again where that may help.
    pub(super) fn open(
        path: &Path,
        timing: Timing,
        news: Box<dyn Fn(StoreNews) + Send>,
    ) -> Result<Self, String> {
        let presence = Presence::mark(path);
        let mut writer = Self {
            path: path.to_owned(),
            timing,
            news,
            presence,
            database: None,
            desk: Desk::new(path),
            pending: Vec::new(),
            waiting: Vec::new(),
            due: None,
            must_sync: false,
            is_unsynced: false,
            retry_at: None,
        };
        match writer.reopen() {
            Ok(()) => {}
            Err(OpenError::Never(message)) => return Err(message),
            Err(OpenError::NotNow(message)) => writer.fail(message),
        }
        Ok(writer)
    }

    /// Works until every handle is gone, then writes what is left.
    pub(super) fn run(mut self, inbox: &Receiver<Command>) {
        loop {
            let command = match self.wait() {
                None => match inbox.recv() {
                    Ok(command) => Some(command),
                    Err(_) => break,
                },
                Some(wait) => match inbox.recv_timeout(wait) {
                    Ok(command) => Some(command),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => break,
                },
            };
            if let Some(command) = command {
                self.take(command);
                for more in inbox.try_iter().take(4096) {
                    self.take(more);
                }
            }
            let now = Instant::now();
            if self.retry_at.or(self.due).is_some_and(|at| at <= now) {
                self.work();
            }
        }
        if !self.pending.is_empty() || self.is_unsynced {
            self.must_sync = true;
            self.work();
        }
    }

    /// How long nothing has to be done; `None` is for ever.
    fn wait(&self) -> Option<Duration> {
        self.retry_at.or(self.due).map(|at| at.saturating_duration_since(Instant::now()))
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Job(job) => {
                let now = Instant::now();
                if is_boundary(&job) {
                    self.must_sync = true;
                    self.due = Some(now);
                } else {
                    self.due = self.due.or(Some(now + self.timing.batch));
                }
                push(&mut self.pending, job);
            }
            Command::Flush { pending, urgency: Urgency::IfWorking } if self.retry_at.is_some() => {
                pending.resolve(false);
            }
            Command::Flush { pending, .. } => {
                self.waiting.push(pending);
                self.must_sync = true;
                self.due = Some(Instant::now());
                if self.retry_at.is_some() {
                    self.retry_at = self.due;
                }
            }
        }
    }

    /// Tries to write everything there is.
    fn work(&mut self) {
        let result = self.commit();
        let is_written = result.is_ok();
        match result {
            Ok(()) => {
                self.due = None;
                self.must_sync = false;
                if self.retry_at.take().is_some() {
                    (self.news)(StoreNews::Recovered);
                }
            }
            Err(message) => self.fail(message),
        }
        for pending in self.waiting.drain(..) {
            pending.resolve(is_written);
        }
    }

    fn fail(&mut self, message: String) {
        tracing::warn!("saving fails: {message}");
        if self.retry_at.is_none() {
            (self.news)(StoreNews::Failed(message));
        }
        self.retry_at = Some(Instant::now() + self.timing.retry);
    }

    fn reopen(&mut self) -> Result<(), OpenError> {
        let opened = open::open(&self.path, self.timing.busy, &self.presence)?;
        for notice in &opened.notices {
            (self.news)(StoreNews::Notice(notice.clone()));
        }
        self.database = Some(opened);
        Ok(())
    }

    fn commit(&mut self) -> Result<(), String> {
        self.find_again()?;
        if self.database.is_none() {
            self.reopen().map_err(|error| match error {
                OpenError::Never(message) | OpenError::NotNow(message) => message,
            })?;
        }
        let Some(opened) = &mut self.database else { return Ok(()) };
        loop {
            let synced = self.must_sync;
            match transact(&mut opened.conn, &mut self.desk, &self.pending, synced, self.is_unsynced) {
                Ok(forks) => {
                    if synced {
                        self.is_unsynced = false;
                    } else if !self.pending.is_empty() {
                        self.is_unsynced = true;
                    }
                    self.pending.clear();
                    for (from, session) in forks {
                        (self.news)(StoreNews::Forked { from, session });
                    }
                    return Ok(());
                }
                Err(Refused { job: Some(index), error }) if is_about_the_job(&error) => {
                    // Never seen, and never allowed to keep everything behind it from being saved.
                    let job = self.pending.remove(index);
                    tracing::error!("a job for the store was refused: {error}: {}", name(&job));
                    (self.news)(StoreNews::Notice(format!(
                        "{}: one entry could not be saved ({error}); everything else is",
                        self.path.display()
                    )));
                }
                Err(Refused { error, .. }) => {
                    let message = open::describe(&self.path, &error);
                    let is_busy = matches!(
                        error.sqlite_error_code(),
                        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
                    );
                    if !is_busy {
                        // What a failed sync left behind is unknown: begin again from the file.
                        self.database = None;
                    }
                    return Err(message);
                }
            }
        }
    }

    /// The file may have been deleted or replaced underneath: what the open one holds is written again.
    fn find_again(&mut self) -> Result<(), String> {
        let Some(opened) = &self.database else { return Ok(()) };
        match open::identity(&self.path) {
            Some(identity) if identity == opened.identity => {}
            Some(_) => {
                // Another database is there now. Closing ours would delete that one's log, which has the
                // same name, so the handle stays open until the program ends.
                if let Some(opened) = self.database.take() {
                    std::mem::forget(opened.conn);
                }
            }
            None => {
                open::write_again(&opened.conn, &self.path)?;
                self.database = None;
                tracing::warn!("the session database was gone and has been written again");
            }
        }
        Ok(())
    }
}

/// Which job was refused, if it was one, and why.
struct Refused {
    job: Option<usize>,
    error: rusqlite::Error,
}

impl From<rusqlite::Error> for Refused {
    fn from(error: rusqlite::Error) -> Self {
        Self { job: None, error }
    }
}

fn transact(
    conn: &mut Connection,
    desk: &mut Desk,
    jobs: &[StoreJob],
    synced: bool,
    is_unsynced: bool,
) -> Result<Vec<super::apply::Fork>, Refused> {
    if jobs.is_empty() && !(synced && is_unsynced) {
        return Ok(Vec::new());
    }
    conn.pragma_update(None, "synchronous", if synced { "FULL" } else { "NORMAL" })?;
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if jobs.is_empty() {
        // Something has to change for the commit to sync what was written before.
        tx.pragma_update(None, "user_version", super::schema::CURRENT)?;
    }
    let mut forks = Vec::new();
    for (index, job) in jobs.iter().enumerate() {
        desk.apply(&tx, &mut forks, job).map_err(|error| Refused { job: Some(index), error })?;
    }
    tx.commit()?;
    desk.keep(&forks);
    Ok(forks)
}

fn is_boundary(job: &StoreJob) -> bool {
    matches!(job, StoreJob::OpenTurn { .. } | StoreJob::CloseAttempt { .. })
}

fn is_about_the_job(error: &rusqlite::Error) -> bool {
    match error.sqlite_error_code() {
        Some(code) => {
            matches!(code, ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig)
        }
        None => true,
    }
}

/// Appends the job; text that continues the last job's joins it.
fn push(pending: &mut Vec<StoreJob>, job: StoreJob) {
    if let StoreJob::Append { session, key, channel, text } = &job
        && let Some(StoreJob::Append { session: s, key: k, channel: c, text: before }) = pending.last_mut()
        && (&*s, &*k, &*c) == (session, key, channel)
    {
        before.push_str(text);
        return;
    }
    pending.push(job);
}

/// The job's kind for the log, which never holds text of a conversation.
fn name(job: &StoreJob) -> &'static str {
    match job {
        StoreJob::OpenSession(_) => "open session",
        StoreJob::SetSystem { .. } => "set system",
        StoreJob::OpenTurn { .. } => "open turn",
        StoreJob::DropTurn { .. } => "drop turn",
        StoreJob::OpenAttempt { .. } => "open attempt",
        StoreJob::Append { .. } => "append",
        StoreJob::CloseAttempt { .. } => "close attempt",
        StoreJob::Fence { .. } => "fence",
        StoreJob::Decide { .. } => "decide",
        StoreJob::KeepLane { .. } => "keep lane",
        StoreJob::KeepSpeed(_) => "keep speed",
        StoreJob::LogOutcome(_) => "log outcome",
        StoreJob::RememberInput { .. } => "remember input",
    }
}

/// Seconds since the epoch by the wall clock.
pub(super) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
