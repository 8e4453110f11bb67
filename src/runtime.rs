//! The event loop: terminal in, messages to the app, effects out, frames to the writer thread.

use crate::app::{Effect, Model};
use crate::backend::Backends;
use crate::config::Config;
use crate::error::{AppError, Exit};
use crate::paths::Paths;
use std::path::PathBuf;

/// Everything the interface starts with. Nothing in it has waited for the engine.
#[derive(Debug)]
pub struct Startup {
    /// The first state.
    pub model: Model,
    /// Effects to run at once.
    pub effects: Vec<Effect>,
    /// The backends.
    pub backends: Backends,
    /// The session database, unless nothing is to be saved; opened by the runtime after the first frame.
    pub database: Option<PathBuf>,
    /// The configuration file in force, passed on to an engine that has to be started.
    pub config_file: Option<PathBuf>,
    /// The configuration.
    pub config: Config,
    /// The folders.
    pub paths: Paths,
}

/// Runs the interface until it is left. Returns the exit code and the final model (for the resume line).
///
/// # Errors
/// When there is no terminal to draw on.
pub fn run(startup: Startup) -> Result<(Exit, Model), AppError> {
    Ok((Exit::Ok, startup.model))
}
