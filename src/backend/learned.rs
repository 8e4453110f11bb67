//! What this machine has learnt of its backends, kept for the next start: how long they take to wake, and where
//! the engine's socket is on the far side of an SSH tunnel. All of it can be lost without harm.

use crate::paths::{create_private, read_file, replace_file};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

const MAX_FILE: u64 = 256 * 1024;
/// Wakes that are remembered.
const WAKES: usize = 5;

/// The file, and whose part of it is meant.
#[derive(Clone, Debug)]
pub(super) struct Learned {
    file: PathBuf,
    backend: String,
    /// As read or written last: it is asked for more often than it changes.
    kept: Arc<Mutex<Option<Entry>>>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct All {
    version: u32,
    #[serde(default)]
    backends: BTreeMap<String, Entry>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Entry {
    /// Milliseconds the last wakes took, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    wake_ms: Vec<u64>,
    /// The engine's socket there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    socket: Option<String>,
}

impl Learned {
    /// What is known of this backend, in the data folder. No IO; the file is read when it is first asked for.
    pub(super) fn of(data: &Path, backend: &str) -> Self {
        Self { file: data.join("learned.json"), backend: backend.to_owned(), kept: Arc::default() }
    }

    /// The median time its last wakes took, in milliseconds.
    pub(super) fn wake_ms(&self) -> Option<f64> {
        let mut times = self.entry().wake_ms;
        times.sort_unstable();
        times.get(times.len() / 2).map(|ms| *ms as f64)
    }

    /// One more wake.
    pub(super) fn add_wake(&self, ms: u64) {
        self.change(|entry| {
            entry.wake_ms.push(ms);
            let extra = entry.wake_ms.len().saturating_sub(WAKES);
            entry.wake_ms.drain(..extra);
        });
    }

    /// The engine's socket there, as it was last time.
    pub(super) fn socket(&self) -> Option<String> {
        self.entry().socket
    }

    /// Where the socket is now.
    pub(super) fn set_socket(&self, socket: &str) {
        if self.socket().as_deref() != Some(socket) {
            self.change(|entry| entry.socket = Some(socket.to_owned()));
        }
    }

    /// Forgets all about it.
    pub(super) fn forget(&self) {
        if self.entry() != Entry::default() {
            self.change(|entry| *entry = Entry::default());
        }
    }

    fn entry(&self) -> Entry {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get_or_insert_with(|| self.all().backends.remove(&self.backend).unwrap_or_default()).clone()
    }

    fn all(&self) -> All {
        let bytes = read_file(&self.file, MAX_FILE).unwrap_or_default();
        serde_json::from_slice::<All>(&bytes).ok().filter(|all| all.version == 1).unwrap_or_default()
    }

    fn change(&self, change: impl FnOnce(&mut Entry)) {
        if let Err(error) = self.try_change(change) {
            tracing::warn!(%error, file = %self.file.display(), "not remembered");
        }
    }

    fn try_change(&self, change: impl FnOnce(&mut Entry)) -> std::io::Result<()> {
        create_private(self.file.parent().unwrap_or(Path::new(".")))?;
        let lock = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .mode(0o600)
            .open(self.file.with_extension("lock"))?;
        flock(&lock, FlockOperation::LockExclusive)?;
        let mut all = self.all();
        all.version = 1;
        let entry = all.backends.entry(self.backend.clone()).or_default();
        change(entry);
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(entry.clone());
        all.backends.retain(|_, entry| *entry != Entry::default());
        replace_file(&self.file, &serde_json::to_vec_pretty(&all)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn what_was_learnt_is_there_again() {
        let dir = tempfile::tempdir().expect("a folder");
        let data = dir.path().join("data");
        let (mac, nas) = (Learned::of(&data, "mac"), Learned::of(&data, "nas"));
        assert_eq!((mac.wake_ms(), mac.socket()), (None, None));
        assert!(!data.exists(), "looking makes nothing");
        for ms in [90_000, 1, 70_000, 60_000, 80_000, 75_000] {
            mac.add_wake(ms);
        }
        nas.set_socket("/run/user/1000/duet/engine.sock");
        assert_eq!(Learned::of(&data, "mac").wake_ms(), Some(70_000.0), "of the last five");
        assert_eq!((mac.socket(), nas.wake_ms()), (None, None));
        assert_eq!(nas.socket().as_deref(), Some("/run/user/1000/duet/engine.sock"));
        mac.forget();
        assert_eq!((mac.wake_ms(), nas.socket().is_some()), (None, true));
        std::fs::write(data.join("learned.json"), "{").expect("written");
        let again = Learned::of(&data, "nas");
        assert_eq!(again.socket(), None, "a damaged file is as none");
        again.add_wake(5);
        assert_eq!((again.wake_ms(), Learned::of(&data, "nas").wake_ms()), (Some(5.0), Some(5.0)));
    }
}
