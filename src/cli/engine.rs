//! `tui engine start|status|stop`, and the hidden processes behind it.

mod hold;

use super::out;
use crate::backend::{Backend, Backends};
use crate::chat::{GenError, GenErrorKind};
use crate::config::Config;
use crate::engine::{inspect, llama, pool, probe, supervisor, worker};
use crate::error::{AppError, Exit};
use crate::paths::Paths;
use crate::text::shown_line;
use clap::Subcommand;
use serde_json::Value;
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
    /// Lend this machine's accelerators to an engine elsewhere, which comes through an SSH tunnel.
    Lend {
        /// Address to listen on; one of this machine itself.
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:50052")]
        listen: String,
    },
    /// The far side of a backend at ssh://: starts it, tells where it listens, ends with its input.
    #[command(hide = true)]
    Hold,
    /// The process that keeps the worker's last words.
    #[command(hide = true)]
    Run,
    /// The process that serves.
    #[command(hide = true)]
    Worker,
    /// The process a model file is tried and measured in; prints what it takes as JSON.
    #[command(hide = true)]
    Probe {
        /// The file.
        path: PathBuf,
        /// Context in tokens.
        #[arg(long, default_value_t = 8192)]
        context: u32,
        /// Sequences.
        #[arg(long, default_value_t = 4)]
        slots: u32,
        /// Layers on accelerators; all when left out.
        #[arg(long)]
        gpu_layers: Option<u32>,
        /// Only measure: the file was tried before.
        #[arg(long)]
        measure: bool,
    },
    /// The process a projector is measured in; prints what it takes as JSON.
    #[cfg(feature = "mtmd")]
    #[command(hide = true)]
    Weigh {
        /// The projector.
        projector: PathBuf,
    },
    /// The process a projector is tried in.
    #[cfg(feature = "mtmd")]
    #[command(hide = true)]
    Look {
        /// The model.
        model: PathBuf,
        /// The projector.
        projector: PathBuf,
    },
    /// The process that looks at the devices.
    #[command(hide = true)]
    Inspect {
        /// A model to try them with.
        path: PathBuf,
    },
}

/// Runs one of them.
///
/// # Errors
/// One or two lines each.
pub(super) fn run(
    command: EngineCommand,
    config: &Config,
    paths: &Paths,
    config_file: Option<&Path>,
) -> Result<Exit, AppError> {
    match command {
        EngineCommand::Run => {
            crate::logging::start(&paths.logs(), "supervisor");
            supervisor::run(paths, config_file)
        }
        EngineCommand::Worker => {
            crate::logging::start(&paths.logs(), "engine");
            worker::run(config, paths, config_file)
        }
        EngineCommand::Probe { path, context, slots, gpu_layers, measure } => {
            let measured = probe::run(&path, context.max(1), slots.max(1), gpu_layers, measure)
                .map_err(|e| AppError::new(Exit::Model, e))?;
            out::answer(&measured);
            Ok(Exit::Ok)
        }
        EngineCommand::Lend { listen } => {
            let threads = match config.engine.threads {
                0 => llama::physical_cores(),
                asked => asked,
            };
            match pool::lend(&listen, threads as usize) {
                Err(message) => Err(GenError::new(GenErrorKind::Protocol, message).into()),
            }
        }
        #[cfg(feature = "mtmd")]
        EngineCommand::Weigh { projector } => {
            let measured =
                crate::engine::vision::weigh(&projector).map_err(|e| AppError::new(Exit::Model, e))?;
            out::answer(&measured);
            Ok(Exit::Ok)
        }
        #[cfg(feature = "mtmd")]
        EngineCommand::Look { model, projector } => crate::engine::vision::run(&model, &projector)
            .map(|()| Exit::Ok)
            .map_err(|e| AppError::new(Exit::Model, e)),
        EngineCommand::Inspect { path } => {
            let report = inspect::run(&path).map_err(|e| AppError::new(Exit::Error, e))?;
            out::answer(&report);
            Ok(Exit::Ok)
        }
        EngineCommand::Hold => {
            with_engine(config, paths, config_file, async |engine| hold::hold(engine, paths).await)
        }
        EngineCommand::Start => with_engine(config, paths, config_file, async |engine| {
            engine.start().await?;
            out::note("the engine runs");
            Ok(Exit::Ok)
        }),
        EngineCommand::Status { json } => with_engine(config, paths, config_file, async |engine| {
            let status = engine.status().await?;
            match (status, json) {
                (None, true) => out::answer("null"),
                (None, false) => out::answer("no engine runs; the next question starts it"),
                (Some(status), true) => out::answer(&status.to_string()),
                (Some(status), false) => out::answer(&describe(&status)),
            }
            Ok(Exit::Ok)
        }),
        EngineCommand::Stop => with_engine(config, paths, config_file, async |engine| {
            out::note(if engine.stop().await? { "the engine has ended" } else { "no engine runs" });
            Ok(Exit::Ok)
        }),
    }
}

fn with_engine(
    config: &Config,
    paths: &Paths,
    config_file: Option<&Path>,
    work: impl AsyncFnOnce(&Backend) -> Result<Exit, AppError>,
) -> Result<Exit, AppError> {
    let backends =
        Backends::new(config, paths, config_file).map_err(|message| AppError::new(Exit::Usage, message))?;
    let Some(engine) = backends.all().iter().find(|backend| backend.is_engine()) else {
        return Err(AppError::new(Exit::Error, "this build has no engine"));
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| AppError::new(Exit::Error, format!("cannot start: {error}")))?;
    runtime.block_on(work(engine))
}

/// The status as lines for people. Ids and names in it are foreign.
fn describe(status: &Value) -> String {
    let text = |value: &Value| shown_line(value.as_str().unwrap_or("?"), 60).to_string();
    let bytes = |value: &Value| crate::engine::memory::size(value.as_u64().unwrap_or(0));
    let mut lines = vec![format!(
        "engine {} · process {} · up {} s",
        text(&status["version"]),
        status["pid"],
        status["uptime_s"].as_f64().unwrap_or(0.0) as u64
    )];
    for device in status["devices"].as_array().into_iter().flatten() {
        let budget = device["budget"].as_u64();
        let budget = budget.map(|n| format!(", {} for models", crate::engine::memory::size(n)));
        lines.push(format!(
            "  {}  {}  {} free of {}{}",
            text(&device["name"]),
            text(&device["description"]),
            bytes(&device["free"]),
            bytes(&device["total"]),
            budget.unwrap_or_default()
        ));
    }
    let models = status["models"].as_array().map(Vec::as_slice).unwrap_or_default();
    if models.is_empty() {
        lines.push("no model is resident".to_owned());
    }
    for model in models {
        let need = &model["bytes"];
        let total = ["weights", "kv", "compute"].iter().filter_map(|part| need[part].as_u64()).sum::<u64>();
        let mut line = format!(
            "  ● {}  {}  context {}  {} of {} slots in use",
            text(&model["id"]),
            crate::engine::memory::size(total),
            model["context"],
            model["slots_used"],
            model["slots"]
        );
        for (name, rate) in
            [("prefill", &model["prefill_tokens_per_s"]), ("decode", &model["decode_tokens_per_s"])]
        {
            if let Some(rate) = rate.as_f64() {
                line.push_str(&format!("  {name} {rate:.0} tok/s"));
            }
        }
        lines.push(line);
    }
    lines.join("\n")
}
