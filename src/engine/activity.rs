//! What the engine is doing, kept where its supervisor can read it after a crash.

use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Writes the current activity to one small file. Clones share it.
#[derive(Clone, Debug)]
pub struct Activity {
    file: Arc<Mutex<Option<File>>>,
}

/// What the file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// `idle`, `loading X`, `checking X`, `answering with X`.
    pub activity: String,
    /// The model concerned.
    pub model: Option<String>,
    /// Models that were resident.
    pub residents: Vec<String>,
}

impl Activity {
    /// Opens the file; without it the engine works all the same, a crash is only explained less well.
    #[must_use]
    pub fn open(runtime: &Path) -> Self {
        let file =
            OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path(runtime)).ok();
        Self { file: Arc::new(Mutex::new(file)) }
    }

    /// Replaces what is written. One `pwrite`, no sync: a crash of the process keeps it.
    pub fn set(&self, activity: &str, model: Option<&str>, residents: &[String]) {
        let record = Record {
            activity: activity.to_owned(),
            model: model.map(str::to_owned),
            residents: residents.to_vec(),
        };
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(file), Ok(mut text)) = (file.as_ref(), serde_json::to_vec(&record)) {
            text.push(b'\n');
            let _ = file.write_all_at(&text, 0);
        }
    }
}

/// Reads what a dead engine was doing.
#[must_use]
pub fn read(runtime: &Path) -> Record {
    let text = std::fs::read_to_string(path(runtime)).unwrap_or_default();
    // A shorter record leaves the rest of a longer one behind it.
    text.lines().next().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default()
}

fn path(runtime: &Path) -> PathBuf {
    runtime.join("engine.activity")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_record_is_read_whatever_its_length() {
        let dir = tempfile::tempdir().unwrap();
        let activity = Activity::open(dir.path());
        activity.set(
            "answering with a-model-of-a-long-name",
            Some("a-model-of-a-long-name"),
            &["x".to_owned()],
        );
        activity.set("idle", None, &[]);
        assert_eq!(
            read(dir.path()),
            Record { activity: "idle".to_owned(), model: None, residents: Vec::new() }
        );
        assert_eq!(read(&dir.path().join("nowhere")), Record::default());
    }
}
