//! Where the server of this user listens, for those who start the program beside it.

use crate::error::{AppError, Exit};
use crate::paths::{Paths, read_file};
use rustix::process::{Pid, test_kill_process};
use serde::{Deserialize, Serialize};
use std::fs::OpenOptions;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

const FILE: &str = "listening.json";
const MAX_BYTES: u64 = 4096;

/// A server that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    pid: i32,
    /// Where it listens.
    pub listen: SocketAddr,
    /// SHA-256 of its public key, base64 without padding; none: it speaks plain HTTP.
    pub fingerprint: Option<String>,
}

/// The record on disk, removed when dropped.
#[derive(Debug)]
pub struct Recorded {
    path: PathBuf,
}

impl Drop for Recorded {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Running {
    /// This process, which holds the lock of these folders, as one that listens there.
    #[must_use]
    pub fn here(listen: SocketAddr, fingerprint: Option<&str>) -> Self {
        let pid = i32::try_from(std::process::id()).unwrap_or_default();
        Self { pid, listen, fingerprint: fingerprint.map(str::to_owned) }
    }

    /// Leaves it in the runtime folder, readable by this user alone.
    ///
    /// # Errors
    /// When the folder can't be written to.
    pub fn record(&self, paths: &Paths) -> Result<Recorded, AppError> {
        let path = paths.runtime.join(FILE);
        let part = paths.runtime.join("listening.tmp");
        let written = || -> std::io::Result<()> {
            let _ = std::fs::remove_file(&part);
            let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&part)?;
            file.write_all(&serde_json::to_vec(self)?)?;
            std::fs::rename(&part, &path)
        };
        written().map_err(|error| {
            AppError::new(Exit::Error, format!("serve: cannot write {}: {error}", path.display()))
                .hint("set DUET_RUNTIME_DIR to a folder of your own")
        })?;
        Ok(Recorded { path })
    }

    /// The one that holds the lock of these folders, once it has said so; what one that was killed left
    /// behind does not count.
    #[must_use]
    pub fn read(paths: &Paths) -> Option<Self> {
        let bytes = read_file(&paths.runtime.join(FILE), MAX_BYTES).ok()?;
        let running: Self = serde_json::from_slice(&bytes).ok()?;
        let pid = Pid::from_raw(running.pid)?;
        test_kill_process(pid).is_ok().then_some(running)
    }

    /// Removes what one before left behind. For the one that holds the lock.
    pub(super) fn forget(paths: &Paths) {
        let _ = std::fs::remove_file(paths.runtime.join(FILE));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn only_one_that_lives_counts() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().to_owned();
        let paths = Paths { config: at.clone(), data: at.clone(), cache: at.clone(), runtime: at };
        let file = paths.runtime.join(FILE);
        assert_eq!(Running::read(&paths), None);
        let running = Running::here("0.0.0.0:7498".parse().unwrap(), Some("key"));
        let recorded = running.record(&paths).unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Running::read(&paths), Some(running.clone()));
        drop(recorded);
        assert!(!file.exists());

        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        child.wait().unwrap();
        let _stale = Running { pid, ..running }.record(&paths).unwrap();
        assert_eq!(Running::read(&paths), None, "its process is gone");
        std::fs::write(&file, "{").unwrap();
        assert_eq!(Running::read(&paths), None);
    }
}
