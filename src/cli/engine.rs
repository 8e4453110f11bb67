//! `tui engine start|status|stop`, and the hidden processes behind it.

use crate::config::Config;
use crate::engine::{probe, supervisor, worker};
use crate::error::{AppError, Exit};
use crate::paths::Paths;
use clap::Subcommand;
use std::path::{Path, PathBuf};

/// The engine of this machine.
#[derive(Clone, Debug, Subcommand)]
pub enum EngineCommand {
    /// Start it (the interface does so by itself).
    Start,
    /// Show its models, memory and speed.
    Status {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// End it; running answers are finished first.
    Stop,
    /// The process that keeps the worker's last words.
    #[command(hide = true)]
    Run,
    /// The process that serves.
    #[command(hide = true)]
    Worker,
    /// The process a model file is tried in.
    #[command(hide = true)]
    Probe {
        /// The file.
        path: PathBuf,
    },
}

/// Runs one of them.
///
/// # Errors
/// One or two lines each.
pub fn run(
    command: EngineCommand,
    config: &Config,
    paths: &Paths,
    config_file: Option<&Path>,
) -> Result<Exit, AppError> {
    match command {
        EngineCommand::Run => supervisor::run(config, paths, config_file),
        EngineCommand::Worker => worker::run(config, paths, config_file),
        EngineCommand::Probe { path } => {
            probe::run(&path).map(|()| Exit::Ok).map_err(|e| AppError::new(Exit::Model, e))
        }
        EngineCommand::Start => Err(AppError::new(Exit::Error, "x")),
        EngineCommand::Status { .. } => Err(AppError::new(Exit::Error, "x")),
        EngineCommand::Stop => Err(AppError::new(Exit::Error, "x")),
    }
}
