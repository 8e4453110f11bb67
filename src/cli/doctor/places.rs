//! The configuration file and the folders of the program.

use super::{Level, Report};
use crate::config::Config;
use crate::error::AppError;
use crate::paths::{Paths, read_file};
use crate::store;
use crate::theme::Theme;
use rustix::fs::{Access, access};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Less free space than this, in bytes, is worth a word: a full disk loses nothing, but saves nothing either.
const LITTLE_SPACE: u64 = 256 << 20;

/// Tells how the configuration is; gives what is in force, the defaults where it is wrong.
pub(super) fn configuration(
    report: &mut Report,
    config: Result<Config, AppError>,
    paths: &Paths,
    file: Option<&Path>,
) -> Config {
    let area = "config";
    let default = paths.config_file();
    let path = file.unwrap_or(&default);
    let config = match config {
        Ok(config) => config,
        Err(error) => {
            report.error(area, Level::Bad, &error.message, error.hint.as_deref());
            return Config::default();
        }
    };
    if read_file(path, 1 << 20).is_ok() {
        report.ok(area, format!("{} is right", path.display()));
    } else {
        report.ok(area, format!("the defaults: there is no {}", path.display()));
    }
    if let Err(why) = Theme::load(&config.theme, Some(&paths.config.join("themes"))) {
        report.bad(area, why, "`theme` is the name of a file in themes/");
    }
    if let Some(dir) = config.engine.model_dirs.iter().find(|dir| !dir.is_dir()) {
        report.warn(
            area,
            format!("`engine.model_dirs` names {}, which is no folder", dir.display()),
            "create it, or remove it from the list",
        );
    }
    config
}

/// Whether the folders can be used, and by nobody else.
pub(super) fn folders(report: &mut Report, paths: &Paths) {
    for (name, variable, path, is_secret) in [
        ("configuration", "DUET_CONFIG_DIR", &paths.config, false),
        ("data", "DUET_DATA_DIR", &paths.data, true),
        ("cache", "DUET_CACHE_DIR", &paths.cache, true),
        ("runtime", "DUET_RUNTIME_DIR", &paths.runtime, true),
    ] {
        folder(report, name, variable, path, is_secret);
    }
    let database = paths.database();
    if database.exists() {
        match store::list(&database, 1) {
            Ok(_) => report.ok("files", format!("{}: sessions can be read", database.display())),
            Err(why) => report.error("files", Level::Bad, &why, None),
        }
    }
}

fn folder(report: &mut Report, name: &str, variable: &str, path: &Path, is_secret: bool) {
    let area = "files";
    let shown = path.display();
    let elsewhere = format!("correct it, or set {variable} to a folder of your own");
    // The nearest folder that is there decides whether a missing one can be made.
    let Some(there) = path.ancestors().find(|dir| dir.exists()) else {
        report.bad(area, format!("{name}: {shown} can't be made"), elsewhere);
        return;
    };
    if access(there, Access::WRITE_OK | Access::EXEC_OK).is_err() {
        // Reading a configuration is enough.
        let level = if is_secret { Level::Bad } else { Level::Ok };
        let next = is_secret.then_some(elsewhere);
        report.add(area, level, format!("{name}: {shown} can't be written"), next);
        return;
    }
    if there == path
        && let Ok(meta) = std::fs::metadata(path)
    {
        if !meta.is_dir() {
            report.bad(area, format!("{name}: {shown} is not a folder"), elsewhere);
            return;
        }
        if is_secret && meta.uid() != rustix::process::getuid().as_raw() {
            report.bad(area, format!("{name}: {shown} belongs to another user"), elsewhere);
            return;
        }
        if is_secret && meta.mode() & 0o077 != 0 {
            let next = format!("chmod 700 {shown}");
            report.warn(area, format!("{name}: others may look into {shown}"), next);
            return;
        }
    }
    let free =
        rustix::fs::statvfs(there).map_or(u64::MAX, |stat| stat.f_bavail.saturating_mul(stat.f_frsize));
    if free < LITTLE_SPACE {
        report.warn(
            area,
            format!("{name}: {shown} has only {} MiB of space left", free >> 20),
            format!("free some, or move it with {variable}"),
        );
    } else {
        report.ok(area, format!("{name}: {shown}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;
    use std::os::unix::fs::PermissionsExt;

    fn look(path: &Path, is_secret: bool) -> (Level, String) {
        let mut report = Report::default();
        folder(&mut report, "data", "DUET_DATA_DIR", path, is_secret);
        let check = report.checks.pop().expect("one line");
        assert_eq!((report.checks.len(), check.level == Level::Ok), (0, check.next.is_none()));
        (check.level, check.text)
    }

    #[test]
    fn folders_are_ours_alone() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("data");
        assert_eq!(look(&path, true).0, Level::Ok, "it is made when it is needed");
        std::fs::create_dir(&path).expect("made");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("set");
        assert_eq!(look(&path, true).0, Level::Warn);
        assert_eq!(look(&path, false).0, Level::Ok);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).expect("set");
        assert_eq!(look(&path, true).0, Level::Ok);
        let file = dir.path().join("file");
        std::fs::write(&file, "").expect("written");
        let (level, text) = look(&file, true);
        assert_eq!(level, Level::Bad, "{text}");
        let (level, text) = look(&file.join("below"), true);
        assert_eq!(level, Level::Bad, "{text}");
    }
}
