//! The command line: what was typed to what is done. One file per subcommand; the definitions are in `args`.

mod args;
mod ask;
mod backends;
mod config;
mod doctor;
#[cfg(feature = "local")]
mod engine;
mod estimate;
mod fence;
mod input;
mod interface;
mod models;
mod out;
mod report;
mod route;
#[cfg(feature = "local")]
mod serve;
mod sessions;
mod stats;
mod target;

#[cfg(feature = "local")]
pub use engine::EngineCommand;

use crate::error::{AppError, Exit};
use crate::paths::Paths;
use args::{AskArgs, Cli, Command};
use clap::{CommandFactory, FromArgMatches};
use std::ffi::OsString;
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Does what the arguments say (the first one is the program's name) and returns the exit code. Everything
/// the person must know has been printed then.
#[must_use]
pub fn main(arguments: Vec<OsString>) -> Exit {
    harden();
    let format = report::Format::typed(&arguments);
    run(arguments).unwrap_or_else(|error| {
        report::failed(format, &error);
        error.exit
    })
}

fn run(arguments: Vec<OsString>) -> Result<Exit, AppError> {
    let cli = match parse(arguments)? {
        Parsed::Cli(cli) => *cli,
        Parsed::Text(text) => {
            out::answer(&text);
            return Ok(Exit::Ok);
        }
    };
    let paths = Paths::from_env()?;
    let file = cli.config.as_ref().map(|file| std::path::absolute(file).unwrap_or_else(|_| file.clone()));
    if let Some(Command::Config { command }) = &cli.command {
        return config::run(command, &paths, file.as_deref());
    }
    let config = crate::config::file::load(&paths.config_file(), file.as_deref());
    if let Some(Command::Doctor { json }) = cli.command {
        return Ok(doctor::run(config, &paths, file.as_deref(), json));
    }
    let config = config?;
    match cli.command {
        #[cfg(feature = "local")]
        Some(Command::Engine { command }) => engine::run(command, &config, &paths, file.as_deref()),
        Some(Command::Models { command, list }) => {
            models::run(command.as_ref(), &list, &config, &paths, file.as_deref())
        }
        Some(Command::Estimate(arguments)) => estimate::run(&arguments, &config, &paths, file.as_deref()),
        Some(Command::Backends(arguments)) => backends::run(*arguments, &config, &paths, file.as_deref()),
        #[cfg(feature = "local")]
        Some(Command::Serve(arguments)) => serve::run(*arguments, &config, &paths, file.as_deref()),
        Some(Command::Route(arguments)) => route::run(&arguments, &config, &paths, file.as_deref()),
        Some(Command::Stats { json }) => stats::run(json, &paths),
        Some(Command::Sessions { command, list }) => sessions::run(command.as_ref(), list, &paths),
        Some(Command::Config { .. } | Command::Doctor { .. }) => Ok(Exit::Ok),
        None => {
            crate::logging::start(&paths.logs(), "tui");
            match way(&cli.ask)? {
                Way::Interface => interface::run(&cli.ask, config, paths, file),
                Way::OneShot => ask::run(&cli.ask, &config, &paths, file.as_deref()),
            }
        }
    }
}

enum Parsed {
    Cli(Box<Cli>),
    Text(String),
}

fn parse(arguments: Vec<OsString>) -> Result<Parsed, AppError> {
    // After -p every word is the question's, also one that is the name of a subcommand.
    let asks = arguments.iter().skip(1).take_while(|a| *a != "--").any(|a| a == "-p" || a == "--print");
    let command = Cli::command().args_conflicts_with_subcommands(asks);
    let parsed = command.try_get_matches_from(arguments).and_then(|m| Cli::from_arg_matches(&m));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) if !error.use_stderr() => return Ok(Parsed::Text(error.render().to_string())),
        Err(error) => return Err(usage(&error)),
    };
    match (&cli.command, cli.ask.words.as_slice()) {
        (None, [word]) if word == "help" => {
            return Ok(Parsed::Text(Cli::command().render_help().to_string()));
        }
        (Some(_), [_, ..]) => {
            return Err(AppError::new(Exit::Usage, "a question and a subcommand at once")
                .hint("put the question in quotes, or after -p"));
        }
        _ => {}
    }
    Ok(Parsed::Cli(Box::new(cli)))
}

/// Clap's error in our form: one line of what is wrong, one of what to do.
fn usage(error: &clap::Error) -> AppError {
    use clap::error::ErrorKind;
    if let Some(message) = wrong_value(error) {
        return AppError::new(Exit::Usage, message).hint("`tui --help` shows everything there is");
    }
    if let Some(error) = lacks(error) {
        return error;
    }
    let text = error.render().to_string();
    let mut lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("Usage:") && !line.starts_with("For more"));
    let message = lines.next().unwrap_or_default().trim_start_matches("error: ").to_owned();
    let rest: Vec<&str> = lines.map(|line| line.trim_start_matches("tip: ")).collect();
    let message = match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => "this needs a subcommand".to_owned(),
        _ => message,
    };
    let hint = match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let mut rest = rest;
            rest.push("to ask it as a question: tui -p ...");
            rest.join("; ")
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            "`tui --help` shows everything there is".to_owned()
        }
        _ if rest.is_empty() => "`tui --help` shows everything there is".to_owned(),
        _ => rest.join(" "),
    };
    AppError::new(Exit::Usage, message).hint(hint)
}

/// A subcommand without its argument, as `tui models load`, or a flag without the one it needs.
fn lacks(error: &clap::Error) -> Option<AppError> {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    if error.kind() != ErrorKind::MissingRequiredArgument {
        return None;
    }
    let Some(ContextValue::Strings(missing)) = error.get(ContextKind::InvalidArg) else { return None };
    let first = missing.first()?;
    let text = error.render().to_string();
    let usage = text.lines().find_map(|line| line.trim().strip_prefix("Usage: "))?;
    let words: Vec<&str> = usage.split(' ').take_while(|word| !word.starts_with(['<', '[', '-'])).collect();
    let (last, before) = words.split_last()?;
    let help = format!("`{} --help` shows how", words.join(" "));
    let Some(what) = first.strip_prefix('<').and_then(|what| what.strip_suffix('>')) else {
        // A flag that another one needs.
        return Some(AppError::new(Exit::Usage, format!("{first} is missing")).hint(help));
    };
    let what = what.to_lowercase();
    let thing = if what == "url" {
        "a URL".to_owned()
    } else {
        let article = if what.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
        format!("{article} {what}")
    };
    let hint = match before {
        [_, list @ ("models" | "sessions" | "backends")] if !matches!(*last, "add" | "pair") => {
            format!("`tui {list}` shows those there are")
        }
        _ => help,
    };
    Some(AppError::new(Exit::Usage, format!("{last} needs {thing}")).hint(hint))
}

/// What our own readers of values say, after the flag's name: they give whole sentences.
fn wrong_value(error: &clap::Error) -> Option<String> {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else { return None };
    let flag = flag.split(' ').next().unwrap_or_default();
    let why = std::error::Error::source(error).map(ToString::to_string);
    why.filter(|_| error.kind() == ErrorKind::ValueValidation).map(|why| format!("{flag} {why}"))
}

enum Way {
    Interface,
    OneShot,
}

/// Whether to open the interface.
fn way(ask: &AskArgs) -> Result<Way, AppError> {
    if ask.wants_answer() || !std::io::stdin().is_terminal() {
        return Ok(Way::OneShot);
    }
    let nothing = |why: &str| {
        Err(AppError::new(Exit::Usage, format!("nothing to ask, and {why}"))
            .hint("ask with `tui \"question\"`, or `tui --help`"))
    };
    if !std::io::stdout().is_terminal() {
        return nothing("the interface needs a terminal on stdout");
    }
    if std::env::var_os("TERM").is_some_and(|term| term == "dumb") {
        return nothing("a terminal with TERM=dumb can't show the interface");
    }
    Ok(Way::Interface)
}

/// What holds for the whole process: private files, no core dumps with conversations in them, and a file
/// size limit is an error instead of the end.
fn harden() {
    use rustix::process::{Resource, Rlimit, setrlimit, umask};
    umask(rustix::fs::Mode::from_raw_mode(0o077));
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::new(AtomicBool::new(false)));
}
