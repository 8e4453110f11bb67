//! The log: a file of bounded size in the cache folder, never the terminal, never text of a conversation.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use tracing_subscriber::EnvFilter;

/// Bytes a log file may reach before it is put aside.
const MAX_BYTES: u64 = 5 << 20;
/// Files kept, the current one included.
const FILES: u32 = 5;

/// Sends the program's events to `<name>.log` in `dir`, filtered by `DUET_LOG` (default `warn,duet=info`).
/// Without a folder that can be written there is no log, and no error. The first call counts.
pub fn start(dir: &Path, name: &str) {
    let Some(file) = Rotating::open(dir, name, MAX_BYTES) else { return };
    let filter = std::env::var("DUET_LOG").ok().filter(|text| !text.is_empty());
    let filter = filter.and_then(|text| EnvFilter::try_new(text).ok());
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter.unwrap_or_else(|| EnvFilter::new("warn,duet=info")))
        .with_ansi(false)
        .with_writer(Mutex::new(file))
        .finish();
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// A file that is put aside when it is full: `x.log`, `x.log.1`, ... Several programs may write to it.
struct Rotating {
    path: PathBuf,
    max_bytes: u64,
    file: File,
}

impl Rotating {
    fn open(dir: &Path, name: &str, max_bytes: u64) -> Option<Self> {
        crate::paths::create_private(dir).ok()?;
        let path = dir.join(format!("{name}.log"));
        let file = append_to(&path).ok()?;
        Some(Self { path, max_bytes, file })
    }

    fn make_room(&mut self) -> io::Result<()> {
        let ours = self.file.metadata()?;
        if ours.len() < self.max_bytes {
            return Ok(());
        }
        let is_current = std::fs::metadata(&self.path)
            .is_ok_and(|there| there.ino() == ours.ino() && there.dev() == ours.dev());
        // Another program may have put the file aside already.
        if is_current {
            for number in (1..FILES).rev() {
                let from = if number == 1 { self.path.clone() } else { self.aside(number - 1) };
                let _ = std::fs::rename(from, self.aside(number));
            }
        }
        self.file = append_to(&self.path)?;
        Ok(())
    }

    fn aside(&self, number: u32) -> PathBuf {
        self.path.with_extension(format!("log.{number}"))
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

impl Write for Rotating {
    /// Writes all of it, without control characters: a log is read in a terminal.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let clean: String = String::from_utf8_lossy(bytes)
            .chars()
            .map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c })
            .collect();
        // A full disk costs log lines, nothing else.
        let _ = self.make_room().and_then(|()| self.file.write_all(clean.as_bytes()));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_put_aside_and_their_number_is_bounded() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut log = Rotating::open(dir.path(), "x", 100).expect("opens");
        for number in 0..200 {
            writeln!(log, "{number:030}\u{1b}[2J").expect("written");
        }
        let mut names: Vec<_> = std::fs::read_dir(dir.path())
            .expect("lists")
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        assert_eq!(names, ["x.log", "x.log.1", "x.log.2", "x.log.3", "x.log.4"]);
        let newest = std::fs::read_to_string(dir.path().join("x.log")).expect("read");
        assert!(newest.contains("199\u{fffd}[2J\n") && newest.len() < 200, "{newest}");
    }

    #[test]
    fn without_a_folder_there_is_no_log() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("file"), "").expect("written");
        assert!(Rotating::open(&dir.path().join("file/logs"), "x", 100).is_none());
    }
}
