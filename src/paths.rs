//! Where files live. The only place that reads `HOME`, the XDG variables and the `DUET_*_DIR` overrides.

use crate::error::{AppError, Exit};
use directories::ProjectDirs;
use std::fs::{File, Metadata};
use std::path::{Path, PathBuf};

/// The variables that move a folder of [`Paths`].
pub const OVERRIDES: [&str; 4] = ["DUET_CONFIG_DIR", "DUET_DATA_DIR", "DUET_CACHE_DIR", "DUET_RUNTIME_DIR"];

/// The folders of the program. Nothing is created until it is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// `config.toml`, user themes and prompts.
    pub config: PathBuf,
    /// The session database and input history.
    pub data: PathBuf,
    /// The unpacked built-in model, logs, last copy.
    pub cache: PathBuf,
    /// The engine's socket and lock; private to the user.
    pub runtime: PathBuf,
}

impl Paths {
    /// Takes the folders from the environment: `DUET_CONFIG_DIR`, `DUET_DATA_DIR`, `DUET_CACHE_DIR`,
    /// `DUET_RUNTIME_DIR`, else the platform's.
    ///
    /// # Errors
    /// When there is neither an override nor a home directory.
    pub fn from_env() -> Result<Self, AppError> {
        let overridden = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let dirs = ProjectDirs::from("", "", "duet");
        let place = |name: &str, default: Option<PathBuf>| {
            overridden(name).or(default).ok_or_else(|| {
                AppError::new(Exit::Error, "no home directory is known: `HOME` is not set")
                    .hint(format!("set HOME, or {name} to a folder of your own"))
            })
        };
        let runtime_default =
            dirs.as_ref().and_then(|d| d.runtime_dir().map(Path::to_path_buf)).unwrap_or_else(|| {
                std::env::temp_dir().join(format!("duet-{}", rustix::process::getuid().as_raw()))
            });
        Ok(Self {
            config: place("DUET_CONFIG_DIR", dirs.as_ref().map(|d| d.config_dir().to_path_buf()))?,
            data: place("DUET_DATA_DIR", dirs.as_ref().map(|d| d.data_dir().to_path_buf()))?,
            cache: place("DUET_CACHE_DIR", dirs.as_ref().map(|d| d.cache_dir().to_path_buf()))?,
            runtime: place("DUET_RUNTIME_DIR", Some(runtime_default))?,
        })
    }

    /// The configuration file.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.config.join("config.toml")
    }

    /// The session database.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.data.join("duet.db")
    }

    /// Log files.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.cache.join("logs")
    }

    /// The engine's socket.
    #[must_use]
    pub fn engine_socket(&self) -> PathBuf {
        self.runtime.join("engine.sock")
    }
}

/// Creates a folder (and its parents) private to the user: mode 0700, whatever the umask.
///
/// # Errors
/// What the system says.
pub fn create_private(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let meta = std::fs::metadata(dir)?;
    if meta.permissions().mode() & 0o077 != 0 {
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Why a file a person named could not be used: the cause, without the file's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileTrouble {
    /// There is none.
    Missing,
    /// Others than this user can read or change it.
    Shared,
    /// One line.
    Refused(String),
}

impl std::fmt::Display for FileTrouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Missing => "no such file",
            Self::Shared => "others can read or change it",
            Self::Refused(why) => why,
        })
    }
}

/// Reads a regular file of at most `cap` bytes. Never blocks on a FIFO or a device.
///
/// # Errors
/// When there is no such file, when it is something else than a file, too large, or can't be read.
pub fn read_file(path: &Path, cap: u64) -> Result<Vec<u8>, FileTrouble> {
    let (file, meta) = open_file(path)?;
    read_open(file, &meta, cap)
}

/// The same for a file that holds a secret.
///
/// # Errors
/// As [`read_file`], and when another user owns it, or may read or change it.
pub fn read_private(path: &Path, cap: u64) -> Result<Vec<u8>, FileTrouble> {
    use std::os::unix::fs::MetadataExt;
    let (file, meta) = open_file(path)?;
    let is_ours = meta.uid() == rustix::process::getuid().as_raw() || meta.uid() == 0;
    if !is_ours || meta.mode() & 0o077 != 0 {
        return Err(FileTrouble::Shared);
    }
    read_open(file, &meta, cap)
}

fn refused(error: &std::io::Error) -> FileTrouble {
    match error.kind() {
        std::io::ErrorKind::NotFound => FileTrouble::Missing,
        _ => FileTrouble::Refused(error.to_string()),
    }
}

fn open_file(path: &Path) -> Result<(File, Metadata), FileTrouble> {
    use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
    // Without waiting: opening a FIFO nobody writes to would block for ever.
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let file =
        std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(|e| refused(&e))?;
    let meta = file.metadata().map_err(|e| refused(&e))?;
    let kind = meta.file_type();
    if !kind.is_file() {
        let what = if kind.is_dir() {
            "a folder"
        } else if kind.is_fifo() {
            "a pipe"
        } else if kind.is_socket() {
            "a socket"
        } else {
            "a device"
        };
        return Err(FileTrouble::Refused(format!("it is {what}, not a file")));
    }
    Ok((file, meta))
}

fn read_open(file: File, meta: &Metadata, cap: u64) -> Result<Vec<u8>, FileTrouble> {
    use std::io::Read;
    let too_large = || FileTrouble::Refused(format!("it is larger than {} KiB", cap / 1024));
    if meta.len() > cap {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    file.take(cap + 1).read_to_end(&mut bytes).map_err(|e| refused(&e))?;
    if bytes.len() as u64 > cap {
        return Err(too_large());
    }
    Ok(bytes)
}

/// Replaces a file at once and for good. It keeps its mode; a new one is private to the user. A link stays one.
///
/// # Errors
/// What the system says.
pub fn replace_file(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut part = real.clone().into_os_string();
    part.push(format!(".{}.part", std::process::id()));
    let part = PathBuf::from(part);
    let write = || {
        let mut file = std::fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&part)?;
        if let Ok(meta) = std::fs::metadata(&real) {
            file.set_permissions(std::fs::Permissions::from_mode(meta.permissions().mode() & 0o7777))?;
        }
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&part, &real)
    };
    let _ = std::fs::remove_file(&part);
    let written = write();
    if written.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    written
}

/// The home directory, where one is known.
#[must_use]
pub fn home() -> Option<PathBuf> {
    directories::BaseDirs::new().map(|dirs| dirs.home_dir().to_path_buf())
}

/// The folder an environment variable names; none when it is not set or empty.
#[must_use]
pub fn folder_in(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The path with a leading `~` replaced by the home directory, where one is known.
#[must_use]
pub fn expand_home(path: &Path) -> PathBuf {
    match (path.strip_prefix("~"), home()) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_are_read() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("file");
        std::fs::write(&file, "12345").expect("written");
        assert_eq!(read_file(&file, 5), Ok(b"12345".to_vec()));
        assert_eq!(read_file(&file, 4), Err(FileTrouble::Refused("it is larger than 0 KiB".to_owned())));
        assert_eq!(read_file(&dir.path().join("none"), 5), Err(FileTrouble::Missing));
        let refused = |path: &Path| read_file(path, 5).expect_err("refused").to_string();
        assert_eq!(refused(dir.path()), "it is a folder, not a file");
        assert_eq!(refused(Path::new("/dev/zero")), "it is a device, not a file");
        let link = dir.path().join("loop");
        std::os::unix::fs::symlink(&link, &link).expect("linked");
        assert!(!refused(&link).is_empty());
        let fifo = dir.path().join("fifo");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .expect("made");
        assert_eq!(refused(&fifo), "it is a pipe, not a file");
    }

    #[test]
    fn secrets_are_for_one_user_only() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("key");
        std::fs::write(&file, "k").expect("written");
        let with_mode = |mode: u32| {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).expect("set");
            read_private(&file, 5)
        };
        assert_eq!([with_mode(0o600), with_mode(0o400)], [Ok(b"k".to_vec()), Ok(b"k".to_vec())]);
        for mode in [0o640, 0o604, 0o620, 0o602, 0o777] {
            assert_eq!(with_mode(mode), Err(FileTrouble::Shared), "{mode:o}");
        }
    }

    #[test]
    fn a_replaced_file_keeps_its_mode_and_its_links() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a folder");
        let (file, link) = (dir.path().join("real"), dir.path().join("link"));
        replace_file(&file, b"a").expect("written");
        let mode = || std::fs::metadata(&file).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(), 0o600, "a new one is private");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("set");
        std::os::unix::fs::symlink(&file, &link).expect("linked");
        replace_file(&link, b"b").expect("written");
        assert_eq!((std::fs::read(&file).expect("read"), mode()), (b"b".to_vec(), 0o644));
        assert!(std::fs::symlink_metadata(&link).expect("there").is_symlink());
        assert!(replace_file(&dir.path().join("no/such"), b"c").is_err());
        assert_eq!(std::fs::read_dir(dir.path()).expect("a folder").count(), 2, "nothing is left behind");
    }
}
