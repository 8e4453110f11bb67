//! Which backend and model a question goes to: what was typed, configured and known, as facts for the router.

use super::args::AskArgs;
use crate::app::facts::{self, Known, Refusal};
use crate::app::model::{BackendSetup, BackendView};
use crate::app::routing::{Around, Routing};
use crate::app::turn::Turn;
use crate::app::warm::Warm;
use crate::app::{learn, restored_turns};
use crate::backend::{BUILTIN, Backend, Backends};
use crate::chat::record::TurnRecord;
use crate::chat::{GenErrorKind, SessionId};
use crate::config::Config;
use crate::error::{AppError, Exit};
use crate::paths::{Paths, expand_home};
use crate::router::health::Circuit;
use crate::router::{self, Decision, Facts, Target, route};
use crate::text::shown_line;
use futures_util::future::join_all;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long a backend may take to say which models it has, when that decides where the question goes.
const ASK_LIMIT: Duration = Duration::from_secs(3);

/// The error of a question that goes nowhere: the machine it would go to is away, or there is none.
pub(super) fn refused(facts: &Facts, refusal: Refusal) -> AppError {
    let why = match refusal {
        Refusal::Fenced(error) => return error.into(),
        Refusal::Other(why) => why,
    };
    match router::backend(facts) {
        Ok(backend) if backend.health.is_away() => AppError::new(Exit::Backend, why)
            .hint(format!("`tui backends test {}` says what is wrong", backend.name)),
        _ => AppError::new(Exit::Usage, why).hint("`tui config show` prints the backends there are"),
    }
}

/// The error of a backend whose address is no good.
pub(super) fn bad_address(why: String) -> AppError {
    AppError::new(Exit::Usage, why).hint("see [[backend]] in the configuration file")
}

/// What the person chose for this run.
///
/// # Errors
/// Exit code 2: `-m` and `--on` name different backends, or one that is not there.
pub(super) fn pinned(args: &AskArgs, backends: &Backends) -> Result<Target, AppError> {
    named(args.model.as_deref(), args.backend.as_deref(), backends)
}

/// The same from what `-m` and `--on` name.
///
/// # Errors
/// As [`pinned`].
pub(super) fn named(model: Option<&str>, on: Option<&str>, backends: &Backends) -> Result<Target, AppError> {
    let names = names(backends);
    if let Some(name) = on.filter(|name| !names.iter().any(|known| known == name)) {
        return Err(no_backend(name, &names));
    }
    // Where this machine's engine is all there is, only a path has a slash in it; and there is one
    // built-in model.
    if let Some((name, model)) = model.and_then(|text| text.split_once('/'))
        && on.is_none()
        && !names.is_empty()
        && is_name(name)
        && !names.iter().any(|known| known == name)
        && (model == BUILTIN || (!model.ends_with(".gguf") && backends.all().iter().all(Backend::is_engine)))
        && !Path::new(name).exists()
    {
        return Err(no_backend(name, &names));
    }
    let mut target = model.map(|text| read(text, &names)).unwrap_or_default();
    if let Some(on) = on {
        match &target.backend {
            Some(other) if other != on => {
                return Err(AppError::new(
                    Exit::Usage,
                    format!("-m names the backend `{other}`, --on `{on}`"),
                )
                .hint("name one of them"));
            }
            _ => target.backend = Some(on.to_owned()),
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

/// What routing knows before anything was asked: rules, aliases, measured speeds, and how things stand around.
pub(super) fn routing(config: &Config, paths: &Paths) -> Routing {
    let speeds = crate::store::speeds(&paths.database()).unwrap_or_else(|why| {
        tracing::info!("no measured speeds: {why}");
        Vec::new()
    });
    let (on_battery, utc_offset_s) = crate::runtime::around::look();
    Routing {
        aliases: config.aliases.clone(),
        rules: config.route.clone(),
        around: Around { on_battery, utc_offset_s, looked_at: None },
        speeds,
        warm: Warm { rules: Some(config.warm.clone()), last: None },
        ..Routing::default()
    }
}

/// A backend nobody has heard of yet.
pub(super) fn view_of(backend: &Backend, config: &Config) -> BackendView {
    let configured = config.backends.iter().find(|configured| configured.name == backend.name());
    BackendView {
        name: backend.name().to_owned(),
        is_engine: backend.is_engine(),
        default_model: backend.default_model().map(str::to_owned),
        setup: configured.map(BackendSetup::from).unwrap_or_default(),
        circuit: Circuit::new(backend.can_wake()),
        wake_ms: backend.wake_ms(),
        ..BackendView::default()
    }
}

/// Milliseconds since the epoch.
pub(super) fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The conversation a question belongs to.
pub(super) struct Before<'a> {
    pub(super) session: &'a SessionId,
    pub(super) system: Option<&'a str>,
    pub(super) turns: &'a [TurnRecord],
    pub(super) question: &'a str,
    /// Files of the question behind the privacy fence, as they were named.
    pub(super) fenced: &'a [String],
}

/// Everything known for one question.
pub(super) struct Scout<'a> {
    backends: &'a Backends,
    before: &'a Before<'a>,
    views: Vec<BackendView>,
    pub(super) routing: Routing,
    pin: Target,
    went: Target,
    configured: Target,
    turns: Vec<Turn>,
    started: Instant,
}

impl<'a> Scout<'a> {
    /// Before anything was asked. `pin` is what the person named.
    pub(super) fn new(
        (pin, is_fence_lifted): (Target, bool),
        config: &Config,
        paths: &Paths,
        backends: &'a Backends,
        before: &'a Before<'a>,
    ) -> Self {
        let turns = restored_turns(before.turns.to_vec());
        let mut routing = routing(config, paths);
        routing.sent = learn::sent_before(before.session, before.system, &turns);
        routing.is_fence_lifted = is_fence_lifted;
        Self {
            backends,
            before,
            views: backends.all().iter().map(|backend| view_of(backend, config)).collect(),
            routing,
            pin,
            went: crate::app::last_target(before.turns),
            configured: configured(config, backends),
            turns,
            started: Instant::now(),
        }
    }

    /// What the router gets.
    pub(super) fn facts(&self) -> Facts {
        facts::facts(&Known {
            pin: &self.pin,
            before: &self.went,
            configured: &self.configured,
            backends: &self.views,
            routing: &self.routing,
            session: self.before.session,
            system: self.before.system,
            turns: &self.turns,
            question: self.before.question.chars().count(),
            fenced: self.before.fenced,
            now: self.started.elapsed(),
            wall_ms: unix_ms(),
        })
    }

    /// Whether a machine was named for this question.
    pub(super) const fn is_pinned(&self) -> bool {
        self.pin.backend.is_some()
    }

    /// What the chosen model is expected to have of the conversation in its cache.
    pub(super) fn hope(&self, decision: &Decision) -> crate::app::story::Hope {
        learn::hope_for(&self.routing.sent, decision, self.before.session, self.before.system, &self.turns)
    }

    /// Quantisation of a model, where its server told it.
    pub(super) fn quantisation(&self, decision: &Decision) -> Option<String> {
        let view = self.views.iter().find(|view| view.name == decision.backend)?;
        view.models.iter().find(|card| card.id == decision.model)?.quantisation.clone()
    }

    /// Asks all machines that were not heard yet for their models, at once. One that does not answer is away.
    pub(super) async fn look(&mut self) {
        let started = self.started;
        let silent = self.views.iter_mut().filter(|view| view.models.is_empty() && view.trouble.is_none());
        let looks = silent.filter_map(|view| {
            let backend = self.backends.get(&view.name)?;
            Some(async move {
                let asked = Instant::now();
                match tokio::time::timeout(ASK_LIMIT, backend.listing()).await {
                    Ok(Ok(listing)) => {
                        view.circuit.connected();
                        let took = asked.elapsed().as_secs_f64() * 1000.0;
                        view.rtt_ms = Some(backend.rtt_ms().unwrap_or(took));
                        view.setup.kind = backend.kind().or(view.setup.kind);
                        view.heard_at = started.elapsed();
                        (view.models, view.residency) = (listing.cards, listing.residency);
                        view.embedders = listing.embedders;
                    }
                    Ok(Err(error)) => {
                        tracing::info!("models of {}: {error}", view.name);
                        view.circuit.failed(error.kind, started.elapsed());
                        view.trouble = Some(shown_line(&error.message, 400));
                    }
                    Err(_) => {
                        view.circuit.failed(GenErrorKind::Unreachable, started.elapsed());
                        let why = format!("no answer for {} s", ASK_LIMIT.as_secs());
                        view.trouble = Some(shown_line(&why, 400));
                    }
                }
            })
        });
        join_all(looks).await;
    }

    /// The backend of a decision.
    ///
    /// # Errors
    /// Exit code 2: there is none of that name.
    pub(super) fn backend(&self, decision: &Decision) -> Result<&'a Backend, AppError> {
        let none = || AppError::new(Exit::Usage, format!("no backend `{}`", decision.backend));
        self.backends.get(&decision.backend).ok_or_else(none)
    }

    /// A generation failed there.
    pub(super) fn failed(&mut self, backend: &str, kind: GenErrorKind) {
        let now = self.started.elapsed();
        if let Some(view) = self.views.iter_mut().find(|view| view.name == backend) {
            view.circuit.failed(kind, now);
        }
    }

    /// Decides where the question goes. Backends are asked for their models where the choice is open and there are
    /// several.
    ///
    /// # Errors
    /// There is no such backend, or none at all (exit code 2); the privacy fence keeps it here (3).
    pub(super) async fn decide(&mut self) -> Result<Decision, AppError> {
        let wanted = router::wanted(&self.facts()).clone();
        let is_open = wanted.backend.is_none() && wanted.model.as_ref().is_none_or(|model| !is_path(model));
        if is_open && self.backends.all().len() > 1 {
            self.look().await;
        }
        // A server named without a model answers with the first it has.
        let facts = self.facts();
        let server = router::backend(&facts).ok().map(|backend| backend.name.clone());
        let server = server.filter(|_| route(&facts).is_err());
        if let Some(backend) = server.and_then(|name| self.backends.get(&name))
            && backend.default_model().is_none()
        {
            let listing = backend.listing().await.map_err(AppError::from)?;
            for view in self.views.iter_mut().filter(|view| view.name == backend.name()) {
                view.models.clone_from(&listing.cards);
                view.embedders.clone_from(&listing.embedders);
            }
        }
        let facts = self.facts();
        facts::decide(&facts).map_err(|refusal| refused(&facts, refusal))
    }

    /// Where the question goes when those failed before their first text.
    pub(super) async fn elsewhere(&mut self, tried: &[String]) -> Option<Decision> {
        self.look().await;
        let tried: Vec<&str> = tried.iter().map(String::as_str).collect();
        facts::elsewhere(self.facts(), &tried).ok()
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
