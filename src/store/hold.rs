//! Who writes to what: advisory file locks that end with their process, however it ends.
//!
//! Each session being written has a file in `held/` beside the database, and every open database a shared
//! lock on `held/open`, so that a program can tell whether it is alone.

use crate::chat::SessionId;
use rustix::fs::{FlockOperation, flock};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Whether a lock could be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    /// This program has it.
    Ours,
    /// Another living program has it.
    Elsewhere,
}

/// The sessions this program writes to.
#[derive(Debug)]
pub(super) struct Holds {
    dir: PathBuf,
    files: HashMap<SessionId, Option<File>>,
}

impl Holds {
    /// For the database at `path`.
    pub(super) fn new(path: &Path) -> Self {
        Self { dir: folder(path), files: HashMap::new() }
    }

    /// Takes the session, or says that another program has it. Where locks don't work nobody is kept out.
    pub(super) fn take(&mut self, id: &SessionId) -> Hold {
        if self.files.contains_key(id) {
            return Hold::Ours;
        }
        let path = self.file(id);
        loop {
            let Ok(file) = open_lock(&path) else {
                self.files.insert(id.clone(), None);
                return Hold::Ours;
            };
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Hold::Elsewhere,
                Err(_) => {
                    self.files.insert(id.clone(), None);
                    return Hold::Ours;
                }
            }
            // The holder before us removes its file while it holds the lock: ours may be that one.
            if same_file(&file, &path) {
                self.files.insert(id.clone(), Some(file));
                return Hold::Ours;
            }
        }
    }

    /// Whether [`Self::take`] succeeded before.
    pub(super) fn has(&self, id: &SessionId) -> bool {
        self.files.contains_key(id)
    }

    fn file(&self, id: &SessionId) -> PathBuf {
        let name: String = id
            .as_str()
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' })
            .collect();
        self.dir.join(format!("session-{name}"))
    }
}

impl Drop for Holds {
    fn drop(&mut self) {
        for (id, file) in &self.files {
            if file.is_some() {
                let _ = std::fs::remove_file(self.file(id));
            }
        }
    }
}

/// The mark that a database is open.
#[derive(Debug)]
pub(super) struct Presence {
    file: Option<File>,
}

impl Presence {
    /// Marks the database at `path` as open, and removes the marks of programs that ended abruptly.
    pub(super) fn mark(path: &Path) -> Self {
        let dir = folder(path);
        let _ = crate::paths::create_private(&dir);
        let file = open_lock(&dir.join("open")).ok();
        let presence = Self { file };
        presence.share();
        sweep(&dir);
        presence
    }

    /// Runs `work` with the knowledge whether no other program has the database open.
    pub(super) fn alone<T>(&self, work: impl FnOnce(bool) -> T) -> T {
        let alone = self
            .file
            .as_ref()
            .is_some_and(|file| flock(file, FlockOperation::NonBlockingLockExclusive).is_ok());
        let result = work(alone);
        self.share();
        result
    }

    fn share(&self) {
        if let Some(file) = &self.file {
            // Waits only while another program looks whether it is alone, at most for its check of the file.
            let _ = flock(file, FlockOperation::LockShared);
        }
    }
}

fn sweep(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with("session-") {
            continue;
        }
        let path = entry.path();
        if let Ok(file) = open_lock(&path)
            && flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
            && same_file(&file, &path)
        {
            let _ = std::fs::remove_file(&path);
        }
    }
}

fn folder(path: &Path) -> PathBuf {
    path.with_file_name("held")
}

fn open_lock(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn same_file(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(ours), Ok(there)) => ours.dev() == there.dev() && ours.ino() == there.ino(),
        _ => false,
    }
}
