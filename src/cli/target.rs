//! Which backend and model a question goes to: what was typed and configured, as facts for the router.

use super::args::AskArgs;
use crate::backend::{Backend, Backends};
use crate::config::Config;
use crate::error::{AppError, Exit};
use crate::paths::expand_home;
use crate::router::{self, BackendFacts, Decision, Facts, Target, route};
use std::path::Path;
use std::time::Duration;

/// How long a backend may take to say which models it has, when that decides where the question goes.
const ASK_LIMIT: Duration = Duration::from_secs(3);

/// The error of a backend whose address is no good.
pub(super) fn bad_address(why: String) -> AppError {
    AppError::new(Exit::Usage, why).hint("see [[backend]] in the configuration file")
}

/// What the person chose for this run.
///
/// # Errors
/// Exit code 2: `-m` and `--on` name different backends.
pub(super) fn pinned(args: &AskArgs, backends: &Backends) -> Result<Target, AppError> {
    let names = names(backends);
    let mut target = args.model.as_deref().map(|text| read(text, &names)).unwrap_or_default();
    if let Some(on) = &args.backend {
        match &target.backend {
            Some(other) if other != on => {
                return Err(AppError::new(
                    Exit::Usage,
                    format!("-m names the backend `{other}`, --on `{on}`"),
                )
                .hint("name one of them"));
            }
            _ => target.backend = Some(on.clone()),
        }
    }
    Ok(target)
}

/// The configured default.
pub(super) fn configured(config: &Config, backends: &Backends) -> Target {
    config.model.as_deref().map(|text| read(text, &names(backends))).unwrap_or_default()
}

fn names(backends: &Backends) -> Vec<String> {
    backends.all().iter().map(|backend| backend.name().to_owned()).collect()
}

/// Reads a target. The engine runs in another folder, so a path to a file is made absolute.
fn read(text: &str, names: &[String]) -> Target {
    let mut target = Target::parse(text, names);
    if let Some(model) = &mut target.model {
        let path = expand_home(Path::new(model.as_str()));
        if is_path(model)
            && path.is_file()
            && let Ok(absolute) = std::path::absolute(&path)
            && let Some(absolute) = absolute.to_str()
        {
            *model = absolute.to_owned();
        }
    }
    target
}

fn is_path(model: &str) -> bool {
    model.contains('/') || model.ends_with(".gguf")
}

/// Decides where a question goes. Backends are asked for their models only where a model was named without
/// its backend and there are several.
///
/// # Errors
/// Exit code 2: there is no such backend, or none at all.
pub(super) async fn decide(
    args: &AskArgs,
    config: &Config,
    backends: &Backends,
    session: Target,
) -> Result<Decision, AppError> {
    let pin = pinned(args, backends)?;
    let configured = configured(config, backends);
    let facts_of = |backend: &Backend| BackendFacts {
        name: backend.name().to_owned(),
        default_model: backend.default_model().map(str::to_owned),
        models: Vec::new(),
    };
    let mut facts =
        Facts { pin, session, configured, backends: backends.all().iter().map(facts_of).collect() };
    let chosen = router::wanted(&facts).clone();
    let open_model = chosen.model.filter(|_| chosen.backend.is_none());
    if let Some(wanted) = open_model.filter(|model| backends.all().len() > 1 && !is_path(model)) {
        for (backend, facts) in backends.all().iter().zip(&mut facts.backends) {
            facts.models = models_of(backend).await;
            if facts.models.contains(&wanted) {
                break;
            }
        }
    }
    // A server named without a model answers with the first it has.
    let server = router::backend(&facts).ok().map(|backend| backend.name.clone());
    let server = server.filter(|_| route(&facts).is_err());
    if let Some(backend) = server.and_then(|name| backends.get(&name))
        && backend.default_model().is_none()
    {
        let models = backend.models().await.map_err(AppError::from)?;
        for facts in facts.backends.iter_mut().filter(|b| b.name == backend.name()) {
            facts.models = models.iter().map(|card| card.id.clone()).collect();
        }
    }
    route(&facts).map_err(|message| {
        AppError::new(Exit::Usage, message).hint("`tui config show` prints the backends there are")
    })
}

async fn models_of(backend: &Backend) -> Vec<String> {
    match tokio::time::timeout(ASK_LIMIT, backend.models()).await {
        Ok(Ok(cards)) => cards.into_iter().map(|card| card.id).collect(),
        Ok(Err(error)) => {
            tracing::info!("models of {}: {error}", backend.name());
            Vec::new()
        }
        Err(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_made_absolute_and_a_name_is_not() {
        let names = ["mac".to_owned()];
        assert_eq!(read("qwen", &names).model.as_deref(), Some("qwen"));
        assert_eq!(read("mac/org/qwen", &names).model.as_deref(), Some("org/qwen"));
        assert_eq!(read("no/such/file.gguf", &names).model.as_deref(), Some("no/such/file.gguf"));
        let here = read("models/builtin.gguf", &names).model.expect("a model");
        assert!(Path::new(&here).is_absolute(), "{here}");
    }
}
