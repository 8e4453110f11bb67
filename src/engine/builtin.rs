//! The model inside the program: unpacked into the cache folder when it is wanted, and checked each time.

use crate::error::{AppError, Exit};
use crate::paths::{Paths, create_private};
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The built-in model's id.
pub const ID: &str = "builtin";

static BYTES: &[u8] = include_bytes!("../../models/builtin.gguf");

/// Bytes of the built-in model.
#[must_use]
pub fn size() -> u64 {
    BYTES.len() as u64
}

/// Unpacks the built-in model if it is missing or damaged, and returns where it is: in the cache folder, or
/// in the runtime folder when there is no room or no right to write there.
///
/// # Errors
/// When neither folder can be written; the message is about the cache folder.
pub fn unpack(paths: &Paths) -> Result<PathBuf, AppError> {
    let unpacked =
        unpack_to(&paths.cache, BYTES).or_else(|first| unpack_to(&paths.runtime, BYTES).map_err(|_| first));
    unpacked.map_err(|(path, error)| {
        AppError::new(
            Exit::Model,
            format!("the built-in model can't be written to {}: {error}", path.display()),
        )
        .hint("free some space, or set DUET_CACHE_DIR to a folder you may write")
    })
}

fn file_name(bytes: &[u8]) -> String {
    let hash: String = Sha256::digest(bytes).iter().take(8).map(|b| format!("{b:02x}")).collect();
    format!("builtin-{hash}.gguf")
}

fn unpack_to(dir: &Path, bytes: &[u8]) -> Result<PathBuf, (PathBuf, std::io::Error)> {
    let path = dir.join(file_name(bytes));
    if is_intact(&path, bytes) {
        return Ok(path);
    }
    write_whole(dir, &path, bytes).map_err(|error| (path.clone(), error))?;
    Ok(path)
}

/// Whether the file holds exactly these bytes. A difference anywhere makes it damaged.
fn is_intact(path: &Path, bytes: &[u8]) -> bool {
    let Ok(meta) = std::fs::symlink_metadata(path) else { return false };
    if !meta.is_file() || meta.len() != bytes.len() as u64 {
        return false;
    }
    let Ok(mut file) = File::open(path) else { return false };
    let mut buffer = vec![0; 64 * 1024];
    let mut rest = bytes;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return rest.is_empty(),
            Ok(n) => {
                let Some((head, tail)) = rest.split_at_checked(n) else { return false };
                if buffer.get(..n) != Some(head) {
                    return false;
                }
                rest = tail;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
}

/// Writes under another name and renames, so that nobody sees half a file.
fn write_whole(dir: &Path, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    create_private(dir)?;
    let temporary = path.with_extension(format!("{}.part", std::process::id()));
    // Left behind by a process with our number that was killed.
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .and_then(|()| std::fs::rename(&temporary, path));
    if written.is_err() {
        // The first error is the one to tell.
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::gguf;
    use pretty_assertions::assert_eq;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    fn paths(dir: &Path) -> Paths {
        Paths {
            config: dir.join("config"),
            data: dir.join("data"),
            cache: dir.join("cache"),
            runtime: dir.join("run"),
        }
    }

    #[test]
    fn it_is_unpacked_once_privately_and_is_a_good_model() {
        let dir = tempfile::tempdir().unwrap();
        let paths = paths(dir.path());
        let first = unpack(&paths).unwrap();
        assert_eq!(first, paths.cache.join(file_name(BYTES)));
        let meta = std::fs::metadata(&first).unwrap();
        assert_eq!((meta.len(), meta.permissions().mode() & 0o777), (size(), 0o600));
        assert_eq!(std::fs::metadata(&paths.cache).unwrap().permissions().mode() & 0o777, 0o700);
        gguf::inspect(&first).unwrap();
        unpack(&paths).unwrap();
        assert_eq!(std::fs::metadata(&first).unwrap().ino(), meta.ino());
        assert_eq!(std::fs::read_dir(&paths.cache).unwrap().count(), 1);
    }

    #[test]
    fn damage_is_repaired() {
        let dir = tempfile::tempdir().unwrap();
        let good = b"the model's bytes".as_slice();
        let path = unpack_to(dir.path(), good).unwrap();
        let damages: [&dyn Fn(); 4] = [
            &|| std::fs::write(&path, b"the model's byteZ").unwrap(),
            &|| std::fs::write(&path, b"short").unwrap(),
            &|| std::fs::remove_file(&path).unwrap(),
            &|| {
                std::fs::remove_file(&path).unwrap();
                std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
            },
        ];
        for damage in damages {
            damage();
            assert_eq!(unpack_to(dir.path(), good).unwrap(), path);
            assert_eq!(std::fs::read(&path).unwrap(), good);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn another_model_gets_another_name() {
        assert_ne!(file_name(b"a"), file_name(b"b"));
        assert!(file_name(b"a").starts_with("builtin-ca978112ca1bbdca"));
    }

    #[test]
    fn without_a_cache_that_can_be_written_it_goes_to_the_runtime_folder() {
        let dir = tempfile::tempdir().unwrap();
        let in_the_way = dir.path().join("file");
        std::fs::write(&in_the_way, "").unwrap();
        let at = |name: &str| dir.path().join(name);
        let paths = Paths {
            config: at("config"),
            data: at("data"),
            cache: in_the_way.join("cache"),
            runtime: at("run"),
        };
        assert_eq!(unpack(&paths).unwrap().parent(), Some(at("run").as_path()));
        let nowhere = Paths { runtime: in_the_way.join("run"), ..paths };
        let error = unpack(&nowhere).unwrap_err();
        assert_eq!(error.exit, Exit::Model);
        assert!(error.message.contains("cache"), "the first place is named: {error}");
        assert!(error.hint.as_deref().unwrap().contains("DUET_CACHE_DIR"));
    }
}
