//! The ways to the clipboard as they really are.

use super::Ways;
use super::system::SystemClipboard;
use crate::paths;
use crate::runtime::writer::Sequences;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// How long tmux may take.
const LIMIT: Duration = Duration::from_secs(1);

/// tmux, the system, the terminal, a file.
#[derive(Debug)]
pub(in crate::runtime) struct RealWays {
    system: SystemClipboard,
    sequences: Sequences,
    file: PathBuf,
}

impl RealWays {
    /// Sequences go through the writer thread; the file lies in the cache folder.
    pub(in crate::runtime) fn new(sequences: Sequences, cache: &Path) -> Self {
        Self { system: SystemClipboard::default(), sequences, file: cache.join("last-copy.txt") }
    }
}

impl Ways for RealWays {
    async fn tmux(&mut self, text: &str) -> Result<(), String> {
        // `-w` also sets the clipboard of the terminal around tmux; before 3.2 it was unknown.
        match load_buffer(&["load-buffer", "-w", "-"], text).await {
            Ok(()) => Ok(()),
            Err(_) => load_buffer(&["load-buffer", "-"], text).await,
        }
    }

    async fn system(&mut self, text: &str) -> Result<(), String> {
        self.system.set(text).await
    }

    fn terminal(&mut self, sequence: Vec<u8>) {
        self.sequences.send(sequence);
    }

    async fn file(&mut self, text: &str) -> Result<PathBuf, String> {
        let (path, text) = (self.file.clone(), text.to_owned());
        tokio::task::spawn_blocking(move || match write_private(&path, &text) {
            Ok(()) => Ok(path),
            Err(error) => Err(format!("can't write `{}`: {error}", path.display())),
        })
        .await
        .map_err(|error| error.to_string())?
    }
}

async fn load_buffer(args: &[&str], text: &str) -> Result<(), String> {
    let run = async {
        let mut child = Command::new("tmux")
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(text.as_bytes()).await?;
        }
        child.wait().await
    };
    match tokio::time::timeout(LIMIT, run).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("tmux refused ({status})")),
        Ok(Err(error)) => Err(format!("tmux: {error}")),
        Err(_) => Err("tmux does not answer".to_owned()),
    }
}

/// Replaces the file by one that only its owner reads.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    if let Some(folder) = path.parent() {
        paths::create_private(folder)?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_file_is_private_and_a_link_in_its_place_is_not_followed() {
        let dir = tempfile::tempdir().expect("dir");
        let (path, other) = (dir.path().join("cache/last-copy.txt"), dir.path().join("other"));
        write_private(&path, "one").expect("written");
        std::fs::remove_file(&path).expect("removed");
        std::fs::write(&other, "mine").expect("written");
        std::os::unix::fs::symlink(&other, &path).expect("linked");
        write_private(&path, "two").expect("written again");
        assert_eq!(std::fs::read_to_string(&path).expect("read"), "two");
        assert_eq!(std::fs::read_to_string(&other).expect("read"), "mine");
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    }
}
