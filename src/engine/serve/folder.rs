//! The folder of `tui serve` among the data: tokens, its key, a pairing under way. Private to the user.

use crate::error::{AppError, Exit};
use crate::paths::{FileTrouble, create_private, read_file};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Largest file read from it, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// A SHA-256 sum.
pub(super) type Digest32 = [u8; 32];

/// The folder.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// The folder of this user, created when it isn't there.
    ///
    /// # Errors
    /// When it can't be made, or made private.
    pub fn open(data: &Path) -> Result<Self, AppError> {
        let folder = Self { path: data.join("serve") };
        create_private(&folder.path).map_err(|error| folder.trouble("", &error))?;
        Ok(folder)
    }

    /// A file in it.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Nobody else changes its files while the value lives.
    pub(super) fn lock(&self) -> Result<File, AppError> {
        let file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .mode(0o600)
            .open(self.file("lock"))
            .map_err(|error| self.trouble("lock", &error))?;
        flock(&file, FlockOperation::LockExclusive).map_err(|error| self.trouble("lock", &error.into()))?;
        Ok(file)
    }

    /// Reads one of its files; none when it isn't there. One that others may read or write is refused.
    pub(super) fn read(&self, name: &str) -> Result<Option<Vec<u8>>, AppError> {
        let path = self.file(name);
        match read_file(&path, MAX_BYTES) {
            Ok(bytes) => {
                refuse_shared(&path, 0o077)?;
                Ok(Some(bytes))
            }
            Err(FileTrouble::Missing) => Ok(None),
            Err(trouble) => Err(AppError::new(Exit::Error, format!("{}: {trouble}", path.display()))
                .hint("move it away; tokens then have to be made anew")),
        }
    }

    /// Replaces one of its files at once and for good, readable by this user alone.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), AppError> {
        let (path, part) = (self.file(name), self.file(&format!("{name}.part")));
        let written = || -> std::io::Result<()> {
            let _ = std::fs::remove_file(&part);
            let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&part)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            std::fs::rename(&part, &path)
        };
        written().map_err(|error| self.trouble(name, &error))
    }

    /// Removes one of its files.
    pub(super) fn remove(&self, name: &str) -> Result<(), AppError> {
        match std::fs::remove_file(self.file(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(self.trouble(name, &error)),
            _ => Ok(()),
        }
    }

    fn trouble(&self, name: &str, error: &std::io::Error) -> AppError {
        AppError::new(Exit::Error, format!("serve: cannot use {}: {error}", self.file(name).display()))
            .hint("set DUET_DATA_DIR to a folder of your own")
    }
}

/// Refuses a file of another user, or one with any of these permissions.
pub(super) fn refuse_shared(path: &Path, forbidden: u32) -> Result<(), AppError> {
    let meta = std::fs::metadata(path)
        .map_err(|error| AppError::new(Exit::Error, format!("{}: {error}", path.display())))?;
    let owner = rustix::process::getuid().as_raw();
    if meta.uid() != owner && meta.uid() != 0 {
        return Err(AppError::new(Exit::Usage, format!("{} belongs to another user", path.display()))
            .hint("use a file of your own"));
    }
    if meta.mode() & forbidden != 0 {
        return Err(AppError::new(Exit::Usage, format!("{} can be read by other users", path.display()))
            .hint(format!("chmod 600 {}", path.display())));
    }
    Ok(())
}

/// Bytes nobody can guess.
pub(super) fn random<const N: usize>() -> Result<[u8; N], AppError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| {
        AppError::new(Exit::Error, format!("serve: the system has no randomness: {error}"))
    })?;
    Ok(bytes)
}

pub(super) fn sha256(bytes: &[u8]) -> Digest32 {
    Sha256::digest(bytes).into()
}

/// Base64 as it is used in addresses, without padding.
pub(super) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A sum written by [`encode`].
pub(super) fn decode(text: &str) -> Option<Digest32> {
    URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
}

/// Seconds since the epoch.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}
