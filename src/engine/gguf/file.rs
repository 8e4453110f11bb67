//! Opening a model file without being caught by a pipe or a device, and telling which file it is.

use super::error::{GgufError, GgufErrorKind};
use std::fs::{File, Metadata, OpenOptions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Which file it is, and which state of it: equal ids mean the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId {
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Bytes.
    pub size: u64,
    /// Last change of the content, nanoseconds since the epoch.
    pub modified_ns: i128,
}

impl FileId {
    /// The id of an open or named file.
    #[must_use]
    pub fn of(meta: &Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified_ns: i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec()),
        }
    }

    /// The id of the file at this path, links followed.
    ///
    /// # Errors
    /// What the system says.
    pub fn at(path: &Path) -> std::io::Result<Self> {
        Ok(Self::of(&std::fs::metadata(path)?))
    }

    /// Whether both name the same file, changed or not.
    #[must_use]
    pub fn same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

/// An open regular file.
pub(super) struct Opened {
    pub(super) file: File,
    pub(super) path: PathBuf,
    pub(super) id: FileId,
    pub(super) is_world_writable: bool,
    pub(super) is_remote: bool,
}

/// Opens a regular file, links followed. Never blocks: a pipe without a writer is refused.
pub(super) fn open(path: &Path) -> Result<Opened, GgufError> {
    let name = path.to_string_lossy();
    let io = |error: &std::io::Error| {
        let (what, next) = match error.kind() {
            std::io::ErrorKind::NotFound => ("no such file".to_owned(), "check the path"),
            std::io::ErrorKind::PermissionDenied => (
                "you may not read it".to_owned(),
                "change its permissions, or copy it to a place of your own",
            ),
            _ if error.raw_os_error() == Some(libc::ELOOP) => {
                ("a link that leads back to itself".to_owned(), "give the path of the file itself")
            }
            _ => (format!("can't be opened: {error}"), "check the path and its permissions"),
        };
        GgufError::new(GgufErrorKind::Io, what).next(next).in_file(&name)
    };
    // Asked first, so that a device is not even opened; asked again below, because it may have changed.
    regular(&std::fs::metadata(path).map_err(|e| io(&e))?).map_err(|e| e.in_file(&name))?;
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(|e| io(&e))?;
    let meta = file.metadata().map_err(|e| io(&e))?;
    regular(&meta).map_err(|e| e.in_file(&name))?;
    Ok(Opened {
        path: std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf()),
        id: FileId::of(&meta),
        is_world_writable: meta.mode() & 0o002 != 0,
        is_remote: is_remote(&file),
        file,
    })
}

fn regular(meta: &Metadata) -> Result<(), GgufError> {
    let kind = meta.file_type();
    if kind.is_file() {
        return Ok(());
    }
    let what = if kind.is_dir() {
        "a folder"
    } else if kind.is_fifo() {
        "a pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    };
    Err(GgufError::new(GgufErrorKind::NotAFile, format!("{what}, not a file")))
}

/// Whether the file lies on a network file system, where mapping it into memory is unwise.
#[cfg(target_os = "linux")]
fn is_remote(file: &File) -> bool {
    const NFS: u64 = 0x6969;
    const CIFS: u64 = 0xff53_4d42;
    const SMB2: u64 = 0xfe53_4d42;
    const CEPH: u64 = 0x00c3_6400;
    rustix::fs::fstatfs(file).is_ok_and(|fs| {
        let kind = u64::try_from(fs.f_type).unwrap_or_default() & 0xffff_ffff;
        [NFS, CIFS, SMB2, CEPH].contains(&kind)
    })
}

/// Whether the file lies on a network file system: not asked on this system.
#[cfg(not(target_os = "linux"))]
fn is_remote(_file: &File) -> bool {
    false
}
