//! `tui config`: where the file is, what is in force, whether it is right.

use super::args::ConfigCommand;
use super::out;
use crate::backend::Backends;
use crate::config::{Config, file};
use crate::error::{AppError, Exit};
use crate::paths::Paths;
use crate::theme::Theme;
use std::path::Path;

/// Does what was asked.
///
/// # Errors
/// Exit code 2: the file is wrong.
pub(super) fn run(command: &ConfigCommand, paths: &Paths, file: Option<&Path>) -> Result<Exit, AppError> {
    let default = paths.config_file();
    let path = file.unwrap_or(&default);
    match command {
        ConfigCommand::Path => out::answer(&path.display().to_string()),
        ConfigCommand::Show => out::answer(&show(&file::load(&default, file)?)?),
        ConfigCommand::Check => {
            let config = file::load(&default, file)?;
            check(&config, paths, path, file)?;
            let what = if path.exists() { "is right" } else { "is not there; the defaults are in force" };
            out::answer(&format!("{} {what}", path.display()));
        }
    }
    Ok(Exit::Ok)
}

fn show(config: &Config) -> Result<String, AppError> {
    let mut text = toml::to_string_pretty(config)
        .map_err(|error| AppError::new(Exit::Error, format!("the configuration can't be shown: {error}")))?;
    let unset: Vec<&str> = [
        ("model", config.model.is_none()),
        ("system", config.system.is_none()),
        ("max_tokens", config.max_tokens.is_none()),
        ("serve.tls_cert, serve.tls_key", config.serve.tls_cert.is_none()),
        ("sampling.temperature", config.sampling.temperature.is_none()),
        ("sampling.top_k", config.sampling.top_k.is_none()),
        ("sampling.top_p", config.sampling.top_p.is_none()),
        ("sampling.min_p", config.sampling.min_p.is_none()),
        ("sampling.repeat_penalty", config.sampling.repeat_penalty.is_none()),
        ("sampling.presence_penalty", config.sampling.presence_penalty.is_none()),
        ("sampling.frequency_penalty", config.sampling.frequency_penalty.is_none()),
        ("sampling.seed", config.sampling.seed.is_none()),
    ]
    .into_iter()
    .filter_map(|(name, is_unset)| is_unset.then_some(name))
    .collect();
    if !unset.is_empty() {
        text.push_str(&format!("\n# Not set: {}.\n", unset.join(", ")));
    }
    if config.backends.is_empty() {
        text.push_str(
            "# No [[backend]] (name, url, model, token_env, ...) is set; `tui backends add` does that.\n",
        );
    }
    Ok(text)
}

fn check(config: &Config, paths: &Paths, path: &Path, file: Option<&Path>) -> Result<(), AppError> {
    let wrong = |what: String, hint: &str| {
        Err(AppError::new(Exit::Usage, format!("{}: {what}", path.display())).hint(hint))
    };
    let backends = match Backends::new(config, paths, file) {
        Ok(backends) => backends,
        Err(why) => return wrong(why, "see [[backend]] in the configuration file"),
    };
    if let Err(why) = Theme::load(&config.theme, Some(&paths.config.join("themes"))) {
        return wrong(why, "`theme` is the name of a file in themes/");
    }
    for backend in backends.all() {
        if let Err(error) = backend.check_key() {
            let (what, next) = error.message.split_once('\n').unwrap_or((&error.message, "see [[backend]]"));
            return wrong(what.to_owned(), next);
        }
    }
    if let Some(dir) = config.engine.model_dirs.iter().find(|dir| !dir.is_dir()) {
        return wrong(
            format!("`engine.model_dirs` names {}, which is no folder", dir.display()),
            "create it, or remove it from the list",
        );
    }
    Ok(())
}
