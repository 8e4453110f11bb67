//! Opening the database for writing: private mode, damage set aside, WAL read back, older schema migrated.

use super::hold::Presence;
use super::schema;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use std::fs::OpenOptions;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A database ready to be written.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) conn: Connection,
    /// Device and inode: tells whether the path still means this file.
    pub(super) identity: (u64, u64),
    /// What the person should know, one or two lines each.
    pub(super) notices: Vec<String>,
}

/// Why it can't be written.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum OpenError {
    /// Trying again won't help.
    Never(String),
    /// Trying again may help.
    NotNow(String),
}

/// Opens, and creates or migrates where needed.
pub(super) fn open(path: &Path, busy: Duration, presence: &Presence) -> Result<Opened, OpenError> {
    presence.alone(|alone| open_knowing(path, busy, alone))
}

fn open_knowing(path: &Path, busy: Duration, alone: bool) -> Result<Opened, OpenError> {
    let mut notices = Vec::new();
    create_file(path)?;
    let had_wal = std::fs::metadata(beside(path, "-wal")).is_ok_and(|meta| meta.len() > 0);
    let check = if alone && had_wal { Check::Pages } else { Check::Header };
    let (mut conn, version) = match ready(path, busy, check, &mut notices) {
        Ok(ready) => ready,
        Err(error) if is_damage(&error) => {
            if !alone {
                return Err(OpenError::Never(format!(
                    "{}: the session database is damaged ({error}) and another window uses it\n\
                     close the other window and start again: the damaged file is then set aside",
                    path.display()
                )));
            }
            let aside = set_aside(path).map_err(|e| failed(path, &e.to_string()))?;
            notices.push(format!(
                "the session database was damaged ({error}); it was moved to {}, and a new one begun",
                aside.display()
            ));
            create_file(path)?;
            ready(path, busy, Check::Header, &mut notices).map_err(|e| sorted(path, &e))?
        }
        Err(error) => return Err(sorted(path, &error)),
    };
    if version > schema::CURRENT {
        return Err(OpenError::Never(format!(
            "{}: written by a newer version of tui (schema {version}, this one knows {}); sessions can be read, not saved\n\
             update tui, or set DUET_DATA_DIR to another folder",
            path.display(),
            schema::CURRENT
        )));
    }
    if version < schema::CURRENT {
        if version > 0 {
            copy_before_migration(&conn, path, version).map_err(|e| sorted(path, &e))?;
        }
        schema::migrate(&mut conn, schema::STEPS).map_err(|e| sorted(path, &e))?;
    }
    let identity = identity(path).ok_or_else(|| failed(path, "it vanished while it was opened"))?;
    Ok(Opened { conn, identity, notices })
}

/// Device and inode of the file at `path`.
pub(super) fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

/// Writes everything the connection sees to a new file at `path`, whose own file is gone.
pub(super) fn write_again(conn: &Connection, path: &Path) -> Result<(), String> {
    create_file(path).map_err(|error| match error {
        OpenError::Never(message) | OpenError::NotNow(message) => message,
    })?;
    vacuum_into(conn, path).map_err(|error| describe(path, &error))
}

/// A copy of the file as it is before its schema changes, kept beside it.
pub(super) fn copy_before_migration(conn: &Connection, path: &Path, version: i64) -> rusqlite::Result<()> {
    let copy = beside(path, &format!(".v{version}"));
    // A copy from an earlier try that did not get through is replaced.
    let _ = std::fs::remove_file(&copy);
    let _ = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&copy);
    vacuum_into(conn, &copy)
}

fn vacuum_into(conn: &Connection, target: &Path) -> rusqlite::Result<()> {
    conn.execute("VACUUM INTO ?1", [target.to_string_lossy()]).map(drop)
}

/// What to tell the person about a failed write: the file, the cause, the next step.
pub(super) fn describe(path: &Path, error: &rusqlite::Error) -> String {
    let file = path.display();
    let what = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => "the disk is full; free some space".to_owned(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => "another program holds it".to_owned(),
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => "it may not be written".to_owned(),
        Some(ErrorCode::CannotOpen) => "its folder is gone or may not be written".to_owned(),
        Some(ErrorCode::SystemIoFailure) => format!("the disk refuses ({error})"),
        _ => error.to_string(),
    };
    format!("{file}: {what}")
}

fn connect(path: &Path, busy: Duration) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(busy)?;
    conn.execute_batch(
        "PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON;",
    )?;
    Ok(conn)
}

/// How closely a database is looked at.
#[derive(Clone, Copy)]
enum Check {
    /// Its header and schema.
    Header,
    /// Every page: the last program ended without closing it.
    Pages,
}

fn examine(conn: Connection, check: Check) -> rusqlite::Result<Connection> {
    conn.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    if matches!(check, Check::Pages) {
        let verdict: String = conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if verdict != "ok" {
            return Err(rusqlite::Error::SqliteFailure(
                rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT),
                Some(verdict),
            ));
        }
    }
    Ok(conn)
}

/// A connection in WAL mode, or in DELETE mode with a notice, and the version of the schema. A database
/// of a newer version is left as it is.
fn ready(
    path: &Path,
    busy: Duration,
    check: Check,
    notices: &mut Vec<String>,
) -> rusqlite::Result<(Connection, i64)> {
    let set = |conn: &Connection, mode: &str| -> rusqlite::Result<String> {
        conn.pragma_update_and_check(None, "journal_mode", mode, |row| row.get(0))
    };
    let shared = connect(path, busy).and_then(|conn| examine(conn, check)).and_then(|conn| {
        let version = schema::version(&conn)?;
        let mode = if version > schema::CURRENT { "wal".to_owned() } else { set(&conn, "wal")? };
        // Whether memory can be shared shows when a write is about to begin.
        match conn.execute_batch("BEGIN IMMEDIATE; ROLLBACK") {
            Err(error) if is_about_sharing(&error) => Err(error),
            _ => Ok((conn, version, mode)),
        }
    });
    let (why, conn, version) = match shared {
        Ok((conn, version, mode)) if mode == "wal" => return Ok((conn, version)),
        Ok((conn, version, mode)) => (format!("the mode stays `{mode}`"), conn, version),
        Err(error) if is_about_sharing(&error) => {
            // Without memory shared between programs a log can be read by one program alone, and ended.
            let conn = connect(path, busy)?;
            conn.pragma_update(None, "locking_mode", "exclusive")?;
            let conn = examine(conn, check)?;
            let version = schema::version(&conn)?;
            if version > schema::CURRENT {
                return Ok((conn, version));
            }
            if set(&conn, "delete").map_or(true, |mode| mode != "delete") {
                return Err(error);
            }
            conn.pragma_update(None, "locking_mode", "normal")?;
            examine(conn, Check::Header).map(|conn| (error.to_string(), conn, version))?
        }
        Err(error) => return Err(error),
    };
    notices.push(format!(
        "{}: write-ahead logging is refused here ({why}); sessions are saved without it, more slowly",
        path.display()
    ));
    Ok((conn, version))
}

/// Whether the error may come from a file system where programs can't share memory.
fn is_about_sharing(error: &rusqlite::Error) -> bool {
    use rusqlite::ffi;
    match error.sqlite_error() {
        Some(failure) => {
            matches!(failure.extended_code, ffi::SQLITE_IOERR_SHMMAP | ffi::SQLITE_IOERR_SHMOPEN)
                || matches!(
                    failure.code,
                    ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::FileLockingProtocolFailed
                )
        }
        None => false,
    }
}

fn create_file(path: &Path) -> Result<(), OpenError> {
    if let Some(dir) = path.parent()
        && let Err(error) = crate::paths::create_private(dir)
        && !dir.is_dir()
    {
        return Err(unwritable(dir, &error));
    }
    match std::fs::metadata(path) {
        Ok(meta) if !meta.is_file() => {
            return Err(OpenError::Never(format!(
                "{}: not a file, so sessions can't be saved in it\nmove it away, or set DUET_DATA_DIR to another folder",
                path.display()
            )));
        }
        Ok(meta) => {
            if meta.permissions().mode() & 0o077 != 0 {
                let _ = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600));
            }
        }
        Err(_) => {}
    }
    let opened =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    opened.map(drop).map_err(|error| unwritable(path, &error))
}

fn unwritable(path: &Path, error: &std::io::Error) -> OpenError {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            OpenError::NotNow(format!("{}: {error}", path.display()))
        }
        _ => OpenError::Never(format!(
            "{}: {error}; sessions can't be saved\nmake it writable, or set DUET_DATA_DIR to another folder",
            path.display()
        )),
    }
}

fn sorted(path: &Path, error: &rusqlite::Error) -> OpenError {
    let message = describe(path, error);
    match error.sqlite_error_code() {
        Some(
            ErrorCode::DiskFull
            | ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::SystemIoFailure
            | ErrorCode::OutOfMemory,
        ) => OpenError::NotNow(message),
        _ => OpenError::Never(format!("{message}\nset DUET_DATA_DIR to another folder")),
    }
}

fn failed(path: &Path, why: &str) -> OpenError {
    OpenError::NotNow(format!("{}: {why}", path.display()))
}

/// Whether the file itself is at fault.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

fn set_aside(path: &Path) -> std::io::Result<PathBuf> {
    let now = super::writer::unix_seconds();
    let aside = (0_u32..)
        .map(|n| if n == 0 { format!(".damaged-{now}") } else { format!(".damaged-{now}-{n}") })
        .map(|suffix| beside(path, &suffix))
        .find(|candidate| !candidate.exists())
        .unwrap_or_else(|| beside(path, ".damaged"));
    std::fs::rename(path, &aside)?;
    for part in ["-wal", "-shm"] {
        let from = beside(path, part);
        if from.exists() {
            std::fs::rename(&from, beside(&aside, part))?;
        }
    }
    Ok(aside)
}

/// The path with something appended to its name.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
