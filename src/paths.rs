//! Where files live. The only place that reads `HOME`, the XDG variables and the `DUET_*_DIR` overrides.

use crate::error::{AppError, Exit};
use directories::ProjectDirs;
use std::path::{Path, PathBuf};

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
