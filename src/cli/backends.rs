//! `tui backends`: the servers there are, how they are reached, and how they are.

mod add;
mod ask;
mod discover;
mod file;
mod list;
mod pair;
mod test;

use super::target;
use crate::backend::{Backend, Backends, Woken};
use crate::config::{BackendConfig, Config};
use crate::error::{AppError, Exit};
use crate::paths::Paths;
use clap::{Args, Subcommand};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What can be typed after `tui backends`.
#[derive(Debug, Args)]
pub(super) struct BackendsArgs {
    #[command(subcommand)]
    command: Option<BackendsCommand>,
    #[command(flatten)]
    list: ListFlags,
}

#[derive(Clone, Copy, Debug, Args)]
struct ListFlags {
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum BackendsCommand {
    /// List them: what each is, where, and how it is now
    List(ListFlags),
    /// Add one to the configuration file
    Add(Box<add::AddArgs>),
    /// Look at one step by step: connection, TLS, key, kind, models, round trips
    Test {
        /// Its name
        name: String,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Pair with a server of ours: keep its key and get a token of its
    Pair(pair::PairArgs),
    /// Remove one from the configuration file
    Rm {
        /// Its name
        name: String,
    },
    /// Wake the machine of one over the network, and wait for it
    Wake {
        /// Its name
        name: String,
    },
    /// Listen for servers that announce themselves in the local network
    Discover(discover::DiscoverArgs),
}

/// What the commands need.
struct Context<'a> {
    config: &'a Config,
    paths: &'a Paths,
    /// The file that is read, and written.
    file: PathBuf,
    config_file: Option<&'a Path>,
}

impl Context<'_> {
    /// The backend of this name in the configuration.
    fn configured(&self, name: &str) -> Option<&BackendConfig> {
        self.config.backends.iter().find(|backend| backend.name == name)
    }

    fn backends(&self) -> Result<Backends, AppError> {
        Backends::new(self.config, self.paths, self.config_file).map_err(target::bad_address)
    }
}

/// Does what was asked; without a command, lists.
///
/// # Errors
/// One or two lines each.
pub(super) fn run(
    arguments: BackendsArgs,
    config: &Config,
    paths: &Paths,
    config_file: Option<&Path>,
) -> Result<Exit, AppError> {
    let file = config_file.map_or_else(|| paths.config_file(), Path::to_path_buf);
    let context = Context { config, paths, file, config_file };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| AppError::new(Exit::Error, format!("cannot start: {error}")))?;
    match arguments.command {
        None => runtime.block_on(list::run(&context, arguments.list.json)),
        Some(BackendsCommand::List(flags)) => runtime.block_on(list::run(&context, flags.json)),
        Some(BackendsCommand::Add(arguments)) => runtime.block_on(add::run(*arguments, &context)),
        Some(BackendsCommand::Test { name, json }) => runtime.block_on(test::run(&name, json, &context)),
        Some(BackendsCommand::Pair(arguments)) => runtime.block_on(pair::run(arguments, &context)),
        Some(BackendsCommand::Rm { name }) => remove(&name, &context),
        Some(BackendsCommand::Wake { name }) => runtime.block_on(wake(&name, &context)),
        Some(BackendsCommand::Discover(arguments)) => discover::run(&arguments),
    }
}

fn named<'a>(backends: &'a Backends, name: &str) -> Result<&'a Backend, AppError> {
    backends.get(name).ok_or_else(|| {
        let known: Vec<&str> = backends.all().iter().map(Backend::name).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        AppError::new(Exit::Usage, format!("no backend `{name}`; there is {known}"))
            .hint("`tui backends` lists them, `tui backends add NAME URL` adds one")
    })
}

fn remove(name: &str, context: &Context<'_>) -> Result<Exit, AppError> {
    let Some(backend) = context.configured(name) else {
        named(&context.backends()?, name)?;
        return Err(AppError::new(Exit::Usage, format!("`{name}` is the engine of this machine"))
            .hint("it can't be removed; `tui engine stop` ends it"));
    };
    file::remove(context, name)?;
    if let Err(why) = Backend::forget(backend, &context.paths.data) {
        super::out::note(&format!("its key could not be removed: {why}"));
    }
    super::out::note(&format!("{name} is removed from {}", context.file.display()));
    Ok(Exit::Ok)
}

async fn wake(name: &str, context: &Context<'_>) -> Result<Exit, AppError> {
    let backends = context.backends()?;
    let backend = named(&backends, name)?;
    if backend.can_wake() {
        let expected = backend.wake_ms().map(|ms| format!(", about {:.0} s as it was before", ms / 1000.0));
        super::out::note(&format!("waking {name}{}", expected.unwrap_or_default()));
    }
    let seconds = |took: Duration| format!("{:.1} s", took.as_secs_f64());
    super::out::note(&match backend.wake().await? {
        Woken::WasAwake => format!("{name} is awake"),
        Woken::Woke(took) => format!("{name} woke within {}", seconds(took)),
    });
    Ok(Exit::Ok)
}
