//! `tui engine`.

use super::EngineCommand;
use crate::config::Config;
use crate::error::{AppError, Exit};
use crate::paths::Paths;
use std::path::Path;

/// Does what was asked of the engine.
///
/// # Errors
/// When it could not be done.
pub(super) fn run(
    command: EngineCommand,
    _config: &Config,
    _paths: &Paths,
    _config_file: Option<&Path>,
) -> Result<Exit, AppError> {
    Err(AppError::new(Exit::Error, format!("{command:?}: written by the lead")))
}
