//! `tui stats`: measured speeds, and how well they were predicted.

use super::target::unix_ms;
use super::{out, report, sessions};
use crate::app::stats::{lines, stats};
use crate::error::{AppError, Exit};
use crate::paths::Paths;
use crate::store;
use crate::text::shown_line;
use serde_json::json;

/// Prints them.
///
/// # Errors
/// When the database can't be read.
pub(super) fn run(json: bool, paths: &Paths) -> Result<Exit, AppError> {
    let log = store::outcomes(&paths.database()).map_err(sessions::unreadable)?;
    let stats = stats(&log, unix_ms());
    if json {
        report::line(&json!({ "version": 1, "models": stats }))
            .map_err(|error| AppError::new(Exit::Error, format!("nothing could be printed: {error}")))?;
    } else {
        let text: Vec<String> =
            lines(&stats).iter().map(|(_, line)| shown_line(line, 400).to_string()).collect();
        out::answer(&format!("{}\n", text.join("\n")));
    }
    Ok(Exit::Ok)
}
