//! Which backend and model a question goes to: what was typed and configured, as facts for the router.

use super::args::AskArgs;
use crate::backend::{BUILTIN, Backend, Backends};
use crate::config::Config;
use crate::error::{AppError, Exit};
use crate::paths::expand_home;
use crate::router::{self, BackendFacts, Decision, Facts, ModelFacts, Target, route};
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
/// Exit code 2: `-m` and `--on` name different backends, or one that is not there.
pub(super) fn pinned(args: &AskArgs, backends: &Backends) -> Result<Target, AppError> {
    let names = names(backends);
    if let Some(name) = args.backend.as_ref().filter(|name| !names.contains(name)) {
        return Err(no_backend(name, &names));
    }
    // Where this machine's engine is all there is, only a path has a slash in it; and there is one
    // built-in model.
    if let Some((name, model)) = args.model.as_deref().and_then(|text| text.split_once('/'))
        && args.backend.is_none()
        && !names.is_empty()
        && is_name(name)
        && !names.iter().any(|known| known == name)
        && (model == BUILTIN || (!model.ends_with(".gguf") && backends.all().iter().all(Backend::is_engine)))
        && !Path::new(name).exists()
    {
        return Err(no_backend(name, &names));
    }
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

fn no_backend(name: &str, names: &[String]) -> AppError {
    let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    AppError::new(Exit::Usage, format!("no backend `{name}`; there is {known}"))
        .hint("`tui config show` prints the backends there are")
}

/// Whether this could be a backend's name, and not the beginning of a path.
fn is_name(text: &str) -> bool {
    !text.is_empty() && !text.starts_with(['.', '~'])
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
        ..BackendFacts::default()
    };
    let backends_facts = backends.all().iter().map(facts_of).collect();
    let mut facts = Facts { pin, session, configured, backends: backends_facts, ..Facts::default() };
    let chosen = router::wanted(&facts).clone();
    let open_model = chosen.model.filter(|_| chosen.backend.is_none());
    if let Some(wanted) = open_model.filter(|model| backends.all().len() > 1 && !is_path(model)) {
        for (backend, facts) in backends.all().iter().zip(&mut facts.backends) {
            facts.models = models_of(backend).await;
            if facts.has(&wanted) {
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
            facts.models = models.iter().map(ModelFacts::from).collect();
        }
    }
    route(&facts).map_err(|message| {
        AppError::new(Exit::Usage, message).hint("`tui config show` prints the backends there are")
    })
}

async fn models_of(backend: &Backend) -> Vec<ModelFacts> {
    match tokio::time::timeout(ASK_LIMIT, backend.models()).await {
        Ok(Ok(cards)) => cards.iter().map(ModelFacts::from).collect(),
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

    /// What `tui` with these arguments would ask, with backends of these names beside the engine.
    fn pinned_by(args: &[&str], servers: &[&str]) -> Result<Target, String> {
        #[derive(clap::Parser)]
        struct Typed {
            #[command(flatten)]
            ask: AskArgs,
        }
        let typed: Typed =
            clap::Parser::try_parse_from(["tui"].iter().chain(args)).map_err(|error| error.to_string())?;
        let backend = |name: &&str| format!("[[backend]]\nname = \"{name}\"\nurl = \"http://127.0.0.1:1\"\n");
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("config.toml");
        std::fs::write(&file, servers.iter().map(backend).collect::<String>()).expect("written");
        let config = crate::config::file::load(&file, None).expect("a configuration");
        let at = dir.path();
        let paths = crate::paths::Paths {
            config: at.to_path_buf(),
            data: at.to_path_buf(),
            cache: at.to_path_buf(),
            runtime: at.to_path_buf(),
        };
        let backends = Backends::new(&config, &paths, None).expect("backends");
        pinned(&typed.ask, &backends).map_err(|error| error.message)
    }

    #[test]
    fn a_backend_that_is_not_there_is_refused() {
        let refused = |args: &[&str]| pinned_by(args, &["mac"]).expect_err("refused");
        for args in [&["--on", "nowhere"][..], &["--on", "nowhere", "-m", "x"], &["-m", "nowhere/builtin"]] {
            let message = refused(args);
            assert!(message.starts_with("no backend `nowhere`; there is "), "{message}");
            assert!(message.ends_with("mac"), "{message}");
        }
        for (args, model) in [
            (&["-m", "org/qwen"][..], "org/qwen"),
            (&["-m", "no/such.gguf"], "no/such.gguf"),
            (&["-m", "./nope/builtin"], "./nope/builtin"),
            (&["--on", "mac", "-m", "org/builtin"], "org/builtin"),
            (&["-m", "mac/org/builtin"], "org/builtin"),
        ] {
            assert_eq!(pinned_by(args, &["mac"]).expect("taken").model.as_deref(), Some(model), "{args:?}");
        }
    }

    #[cfg(feature = "local")]
    #[test]
    fn where_the_engine_is_alone_a_slash_is_a_backend_or_a_path() {
        assert!(pinned_by(&["-m", "nowhere/qwen"], &[]).is_err());
        assert!(pinned_by(&["-m", "no/such.gguf"], &[]).is_ok());
        assert!(pinned_by(&["-m", "src/cli"], &[]).is_ok(), "a path that is there");
    }

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
