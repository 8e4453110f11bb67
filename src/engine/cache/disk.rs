//! States on disk: a private folder, an index of its files in memory, and one thread that writes.
//!
//! A model's thread never waits for the disk to write: it hands states to the writer, and when too many
//! wait already the newest is not written. A disk that is full or refuses is said once in the log.

use super::file::{self, Doubt};
use super::{ModelKey, State, is_superseded, reuse};
use crate::engine::job::TokenId;
use crate::paths::create_private;
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::BufWriter;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

/// States that may wait for the writer.
const MOST_WAITING: usize = 8;
/// Files kept, whatever their size: their tokens are held in memory.
const MOST_FILES: usize = 512;
const SUFFIX: &str = "kv";
const UNFINISHED: &str = "new";

/// The states on disk.
#[derive(Debug)]
pub(super) struct Disk {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    limit: u64,
    shared: Mutex<Shared>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Shared {
    /// None until the folder was read.
    files: Option<Vec<Record>>,
    waiting: Vec<Arc<State>>,
    /// The session of what is being written now.
    writing: Option<Arc<str>>,
    /// Whether what is being written was forgotten meanwhile.
    is_unwanted: bool,
    has_writer: bool,
    has_complained: bool,
}

/// A file as the index knows it.
#[derive(Clone, Debug)]
pub(super) struct Record {
    path: PathBuf,
    model: ModelKey,
    session: String,
    tokens: Vec<TokenId>,
    bytes: u64,
    used: SystemTime,
}

impl Disk {
    pub(super) fn new(folder: PathBuf, limit: u64) -> Self {
        let inner = Inner { folder, limit, shared: Mutex::default(), changed: Condvar::new() };
        Self { inner: Arc::new(inner) }
    }

    /// The file that shares the longest beginning with `prompt`: its path, how much of it is used (`most`
    /// at most), and its tokens.
    pub(super) fn best(
        &self,
        model: &ModelKey,
        prompt: &[TokenId],
        most: usize,
    ) -> Option<(PathBuf, usize, usize)> {
        if self.inner.limit == 0 {
            return None;
        }
        let mut shared = self.inner.lock();
        self.inner
            .files(&mut shared)
            .iter()
            .filter(|record| record.model == *model)
            .map(|record| (record, reuse(&record.tokens, prompt, most)))
            .max_by_key(|(record, reused)| (*reused, std::cmp::Reverse(record.tokens.len())))
            .map(|(record, reused)| (record.path.clone(), reused, record.tokens.len()))
    }

    /// Reads a file and checks all of it. On any doubt it is deleted.
    pub(super) fn read(&self, path: &Path, model: &ModelKey) -> Option<Arc<State>> {
        match read_checked(path, model) {
            Ok(state) => {
                let now = SystemTime::now();
                let mut shared = self.inner.lock();
                if let Some(record) = self.inner.files(&mut shared).iter_mut().find(|r| r.path == path) {
                    record.used = now;
                }
                drop(shared);
                // So that the next engine knows it too.
                let _ = File::options().write(true).open(path).and_then(|file| file.set_modified(now));
                Some(Arc::new(state))
            }
            Err(doubt) => {
                tracing::warn!(file = %path.display(), %doubt, "a saved conversation is not used");
                self.remove(path);
                None
            }
        }
    }

    pub(super) fn remove(&self, path: &Path) {
        let mut shared = self.inner.lock();
        self.inner.files(&mut shared).retain(|record| record.path != path);
        let _ = std::fs::remove_file(path);
    }

    /// Hands a state to the writer. One without a session, or larger than the bound, is not written.
    pub(super) fn write(&self, state: Arc<State>) {
        let Some(session) = &state.session else { return };
        if file::file_bytes(&state, session) > self.inner.limit {
            return;
        }
        let mut shared = self.inner.lock();
        shared.waiting.retain(|waiting| !waiting.is_superseded(&state));
        if shared.waiting.len() >= MOST_WAITING {
            tracing::debug!("too many conversations wait to be written; the newest stays in memory only");
            return;
        }
        shared.waiting.push(state);
        if !shared.has_writer {
            let inner = Arc::clone(&self.inner);
            // It ends when nothing is left to write: an idle engine has no thread for it.
            let spawned =
                std::thread::Builder::new().name("cache-write".to_owned()).spawn(move || inner.write_all());
            match spawned {
                Ok(_) => shared.has_writer = true,
                Err(error) => {
                    shared.waiting.clear();
                    self.inner.complain(&mut shared, &error);
                }
            }
        }
    }

    /// Deletes the files of a session, and what waits to become one.
    pub(super) fn forget(&self, session: &str) -> usize {
        let mut shared = self.inner.lock();
        let before = shared.waiting.len();
        shared.waiting.retain(|state| state.session.as_deref() != Some(session));
        let mut gone = before - shared.waiting.len();
        if shared.writing.as_deref() == Some(session) {
            shared.is_unwanted = true;
        }
        self.inner.files(&mut shared).retain(|record| {
            let is_meant = record.session == session;
            if is_meant {
                let _ = std::fs::remove_file(&record.path);
                gone += 1;
            }
            !is_meant
        });
        // What is being written now is gone when this returns.
        while shared.is_unwanted {
            shared = self.inner.changed.wait(shared).unwrap_or_else(PoisonError::into_inner);
        }
        gone
    }

    /// Waits until nothing is left to write.
    pub(super) fn flush(&self, deadline: Instant) {
        let mut shared = self.inner.lock();
        while shared.has_writer {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                tracing::warn!("not all conversations could be written in time");
                return;
            }
            let waited = self.inner.changed.wait_timeout(shared, left);
            shared = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Bytes of all files.
    pub(super) fn used(&self) -> u64 {
        let mut shared = self.inner.lock();
        self.inner.files(&mut shared).iter().map(|record| record.bytes).sum()
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The index, read from the files' headers the first time.
    fn files<'s>(&self, shared: &'s mut Shared) -> &'s mut Vec<Record> {
        shared.files.get_or_insert_with(|| if self.limit == 0 { Vec::new() } else { scan(&self.folder) })
    }

    /// The writer's thread.
    fn write_all(&self) {
        loop {
            let mut shared = self.lock();
            if shared.waiting.is_empty() {
                shared.has_writer = false;
                self.changed.notify_all();
                return;
            }
            let state = shared.waiting.remove(0);
            let Some(session) = state.session.clone() else { continue };
            shared.writing = Some(Arc::clone(&session));
            self.make_room(&mut shared, file::file_bytes(&state, &session));
            drop(shared);
            let written = write_file(&self.folder, &state, &session);
            let mut shared = self.lock();
            shared.writing = None;
            let is_unwanted = std::mem::take(&mut shared.is_unwanted);
            match written {
                Ok(record) if is_unwanted => drop(std::fs::remove_file(record.path)),
                Ok(record) => {
                    self.files(&mut shared).retain(|old| {
                        let is_old = old.path != record.path
                            && is_superseded((&old.model, &old.tokens, Some(&old.session)), &state);
                        if is_old {
                            let _ = std::fs::remove_file(&old.path);
                        }
                        !is_old && old.path != record.path
                    });
                    self.files(&mut shared).push(record);
                }
                Err(error) => self.complain(&mut shared, &error),
            }
            self.changed.notify_all();
        }
    }

    /// Deletes what was used longest ago until `bytes` more have room.
    fn make_room(&self, shared: &mut Shared, bytes: u64) {
        let files = self.files(shared);
        files.sort_by_key(|record| std::cmp::Reverse(record.used));
        while files.iter().map(|record| record.bytes).sum::<u64>() + bytes > self.limit
            || files.len() >= MOST_FILES
        {
            let Some(oldest) = files.pop() else { return };
            let _ = std::fs::remove_file(oldest.path);
        }
    }

    fn complain(&self, shared: &mut Shared, error: &std::io::Error) {
        if !std::mem::replace(&mut shared.has_complained, true) {
            tracing::warn!(folder = %self.folder.display(), %error, "conversations can't be written to disk");
        }
    }
}

/// Writes beside and renames, so that a file is whole or not there.
fn write_file(folder: &Path, state: &State, session: &str) -> std::io::Result<Record> {
    create_private(folder)?;
    let mut hash = Sha256::new();
    hash.update(serde_json::to_vec(&*state.model)?);
    hash.update([0]);
    hash.update(session);
    hash.update([0]);
    state.tokens.iter().for_each(|token| hash.update(token.to_le_bytes()));
    let name: String = hash.finalize().iter().take(16).map(|b| format!("{b:02x}")).collect();
    let path = folder.join(format!("{name}.{SUFFIX}"));
    let unfinished = path.with_extension(UNFINISHED);
    let _ = std::fs::remove_file(&unfinished);
    let write = || {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
        let mut out = BufWriter::new(file);
        file::write(&mut out, state, session)?;
        drop(out);
        std::fs::rename(&unfinished, &path)
    };
    if let Err(error) = write() {
        let _ = std::fs::remove_file(&unfinished);
        return Err(error);
    }
    Ok(Record {
        bytes: file::file_bytes(state, session),
        path,
        model: (*state.model).clone(),
        session: session.to_owned(),
        tokens: state.tokens.clone(),
        used: SystemTime::now(),
    })
}

fn open(path: &Path) -> std::io::Result<(File, u64)> {
    let nofollow = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(nofollow).open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(std::io::Error::other("it is no regular file"));
    }
    let length = meta.len();
    Ok((file, length))
}

fn read_checked(path: &Path, model: &ModelKey) -> Result<State, Doubt> {
    let (mut file, length) = open(path)?;
    let state = file::read(&mut file, length)?;
    if *state.model == *model { Ok(state) } else { Err(Doubt::Foreign) }
}

/// What the folder holds. Files of another version, unfinished or damaged ones are deleted.
fn scan(folder: &Path) -> Vec<Record> {
    let mut files = Vec::new();
    // What others could have written is not read.
    let is_ours = std::fs::symlink_metadata(folder).is_ok_and(|meta| {
        meta.is_dir() && meta.uid() == rustix::process::getuid().as_raw() && meta.mode() & 0o077 == 0
    });
    if !is_ours {
        return files;
    }
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match path.extension().and_then(|suffix| suffix.to_str()) {
            Some(SUFFIX) => {}
            Some(UNFINISHED) => {
                let _ = std::fs::remove_file(&path);
                continue;
            }
            _ => continue,
        }
        match outline(&path) {
            Ok(record) => files.push(record),
            Err(doubt) => {
                tracing::info!(file = %path.display(), %doubt, "a saved conversation is deleted");
                let _ = std::fs::remove_file(&path);
            }
        }
    }
    files
}

fn outline(path: &Path) -> Result<Record, Doubt> {
    let (mut file, length) = open(path)?;
    let outline = file::outline(&mut file)?;
    if outline.file_bytes != length {
        return Err(Doubt::Damaged);
    }
    if outline.model.engine != crate::VERSION {
        return Err(Doubt::Foreign);
    }
    Ok(Record {
        path: path.to_owned(),
        model: outline.model,
        session: outline.session,
        tokens: outline.tokens,
        bytes: length,
        used: file.metadata()?.modified()?,
    })
}
