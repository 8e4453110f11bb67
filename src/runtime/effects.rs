//! Runs what the app asks for: generations, the store, backends, the clipboard, themes.
//!
//! Every task it starts is kept here and ends with it. Nothing here blocks; answers come back as news.

mod generate;
mod store_gate;

pub(super) use store_gate::StoreGate;

use super::clipboard::{self, Place, RealWays};
use super::clock::Clock;
use super::event_loop::{News, Run};
use super::last_words::LastWords;
use crate::app::{CopyWhat, Effect, EngineNews, Model, Msg};
use crate::backend::{Backend, Backends, EngineEvent, LoadReason};
use crate::chat::{Change, GenError, GenErrorKind, GenEvent, GenKey};
use crate::config::ClipboardMode;
use crate::theme::{Charset, Theme};
use futures_util::{FutureExt, StreamExt};
use std::collections::HashMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

/// A running task; dropping it ends it.
#[derive(Debug)]
struct Task(tokio::task::JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn start(work: impl Future<Output = ()> + 'static) -> Task {
    Task(tokio::task::spawn_local(work))
}

/// Whether themes may bring colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colours {
    /// They may.
    Allowed,
    /// `NO_COLOR` is set, or the terminal has none.
    Unwanted,
}

impl Colours {
    /// Reads `NO_COLOR` and `TERM`.
    #[must_use]
    pub fn from_env() -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self::of(no_color, std::env::var("TERM").ok().as_deref())
    }

    fn of(no_color: bool, term: Option<&str>) -> Self {
        let is_mono = term.is_none_or(|term| {
            term.is_empty() || term == "dumb" || term.ends_with("-mono") || term.starts_with("vt1")
        });
        if no_color || is_mono { Self::Unwanted } else { Self::Allowed }
    }

    /// The theme as it may be used.
    pub(super) fn apply(self, mut theme: Theme) -> Theme {
        theme.charset = Charset::from_env();
        match self {
            Self::Allowed => theme,
            Self::Unwanted => theme.without_colour(),
        }
    }
}

/// What the runner needs to know.
#[derive(Debug)]
pub(super) struct Means {
    /// The backends.
    pub(super) backends: Backends,
    /// Where answers go.
    pub(super) news: mpsc::Sender<News>,
    /// The time.
    pub(super) clock: Clock,
    /// The store, once it is open.
    pub(super) store: StoreGate,
    /// How to copy.
    pub(super) clipboard: (ClipboardMode, Place, RealWays),
    /// The session database.
    pub(super) database: PathBuf,
    /// The user's themes.
    pub(super) themes: PathBuf,
    /// Whether they may have colours.
    pub(super) colours: Colours,
    /// What to remember for an end in the middle.
    pub(super) last_words: Arc<LastWords>,
}

/// Sessions offered in the list.
const SESSIONS_LISTED: usize = 500;

/// The runner and its tasks.
#[derive(Debug)]
pub(super) struct Runner {
    backends: Backends,
    news: mpsc::Sender<News>,
    clock: Clock,
    store: StoreGate,
    clipboard: (ClipboardMode, Place, Rc<Mutex<RealWays>>),
    database: PathBuf,
    themes: PathBuf,
    colours: Colours,
    last_words: Arc<LastWords>,
    generations: HashMap<GenKey, Task>,
    /// What gets a backend ready.
    warming: Option<Task>,
    /// Loads that are waited for, by backend and model.
    loads: HashMap<(String, String), Task>,
    watches: HashMap<String, Task>,
    others: JoinSet<()>,
}

impl Runner {
    /// A runner with nothing to do.
    pub(super) fn new(means: Means) -> Self {
        let (mode, place, ways) = means.clipboard;
        Self {
            backends: means.backends,
            news: means.news,
            clock: means.clock,
            store: means.store,
            clipboard: (mode, place, Rc::new(Mutex::new(ways))),
            database: means.database,
            themes: means.themes,
            colours: means.colours,
            last_words: means.last_words,
            generations: HashMap::new(),
            warming: None,
            loads: HashMap::new(),
            watches: HashMap::new(),
            others: JoinSet::new(),
        }
    }

    /// Stays connected to the engine of this machine, asks every other backend for its models, and sees how things
    /// stand around.
    pub(super) fn watch_backends(&mut self) {
        for backend in self.backends.all().to_vec() {
            if backend.is_engine() {
                self.watch(backend, Vec::new());
            } else {
                self.list_models(backend);
            }
        }
        self.look_around();
    }

    /// Ends every task.
    pub(super) fn stop(&mut self) {
        self.generations.clear();
        self.warming = None;
        self.loads.clear();
        self.watches.clear();
        self.others.abort_all();
    }

    fn spawn(&mut self, work: impl Future<Output = ()> + 'static) {
        while self.others.try_join_next().is_some() {}
        self.others.spawn_local(work);
    }

    /// The backend of this name; where there is none, an error notice says so.
    fn backend(&mut self, name: &str) -> Option<Backend> {
        let found = self.backends.get(name).cloned();
        if found.is_none() {
            let news = self.news.clone();
            let text = format!("no backend `{name}`");
            self.spawn(async move { notice_error(&news, text).await });
        }
        found
    }

    fn watch(&mut self, backend: Backend, load: Vec<String>) {
        let name = backend.name().to_owned();
        self.watches.insert(name, start(watch(backend, load, self.news.clone())));
    }

    fn list_models(&mut self, backend: Backend) {
        let news = self.news.clone();
        let clock = self.clock;
        self.spawn(async move {
            let asked = clock.now();
            let result = backend.listing().await;
            let took = clock.now().saturating_sub(asked);
            let probed = result.as_ref().map(|_| took).map_err(|error| error.kind);
            let (kind, rtt_ms, wake_ms) = (backend.kind(), backend.rtt_ms(), backend.wake_ms());
            let (backend, result) = (backend.name().to_owned(), result.map_err(|error| error.message));
            let _ = news.send(Msg::Met { backend: backend.clone(), kind, rtt_ms, wake_ms }.into()).await;
            let _ = news.send(Msg::Models { backend: backend.clone(), result }.into()).await;
            let _ = news.send(Msg::Probed { backend, result: probed }.into()).await;
        });
    }

    /// Sees how things stand around this machine, away from the loop.
    pub(super) fn look_around(&mut self) {
        let news = self.news.clone();
        self.spawn(async move {
            if let Ok((on_battery, utc_offset_s)) = tokio::task::spawn_blocking(super::around::look).await {
                let _ = news.send(Msg::Around { on_battery, utc_offset_s }.into()).await;
            }
        });
    }

    /// Asks a machine for its memory. What goes wrong is said where its models are asked for.
    fn look_at_machine(&mut self, backend: Backend) {
        let news = self.news.clone();
        self.spawn(async move {
            let machine = backend.machine().await.unwrap_or_default();
            let backend = backend.name().to_owned();
            let _ = news.send(Msg::Machine { backend, machine }.into()).await;
        });
    }

    fn change_model(&mut self, backend: Backend, model: String, change: Change) {
        let key = (backend.name().to_owned(), model.clone());
        let news = self.news.clone();
        let work = async move {
            let result = backend.change(&model, change).await.map_err(|error| error.message);
            let backend = backend.name().to_owned();
            let _ = news.send(Msg::Changed { backend, model, change, result }.into()).await;
        };
        self.loads.retain(|_, load| !load.0.is_finished());
        match change {
            Change::Load { .. } => drop(self.loads.insert(key, start(work))),
            Change::Unload => {
                // Who gives a load up does not want to hear that it came to nothing.
                self.loads.remove(&key);
                self.spawn(work);
            }
            Change::Pin(_) | Change::KeepAlive(_) => self.spawn(work),
        }
    }

    fn generate(&mut self, key: GenKey, backend: &str, request: crate::chat::GenRequest) {
        self.generations.retain(|_, task| !task.0.is_finished());
        // An engine that was stopped is started by the question; then it is worth watching again.
        if self.watches.get(backend).is_some_and(|task| task.0.is_finished())
            && let Some(engine) = self.backends.get(backend).filter(|b| b.is_engine()).cloned()
        {
            self.watch(engine, Vec::new());
        }
        let events = self.backends.get(backend).map_or_else(
            || {
                let error = GenError::new(GenErrorKind::Unreachable, format!("no backend `{backend}`"));
                futures_util::stream::iter([GenEvent::Failed(error)]).boxed()
            },
            // Nothing leaves before everything given to the store is on disk.
            |backend| {
                let backend = backend.clone();
                async move { backend.generate(request) }.flatten_stream().boxed()
            },
        );
        let work = generate::forward(key, events, self.store.clone(), self.news.clone(), self.clock);
        self.generations.insert(key, start(work));
    }

    /// Gets a backend ready. What went before is dropped first, which ends it there.
    fn warm(&mut self, backend: &str, request: crate::chat::GenRequest) {
        self.warming = None;
        let Some(backend) = self.backends.get(backend).filter(|backend| backend.warms()).cloned() else {
            return;
        };
        let news = self.news.clone();
        self.warming = Some(start(async move {
            let name = backend.name().to_owned();
            let mut events = backend.generate(request);
            while let Some(event) = events.next().await {
                if news.send(Msg::Warmed { backend: name.clone(), event }.into()).await.is_err() {
                    return;
                }
            }
        }));
    }

    fn copy(&mut self, text: String, what: &CopyWhat) {
        let what = match what {
            CopyWhat::Answer => "answer".to_owned(),
            CopyWhat::Code { number } => format!("code block {number}"),
        };
        let (mode, place, ways) = self.clipboard.clone();
        let news = self.news.clone();
        self.spawn(async move {
            let outcome = clipboard::copy(&text, mode, place, &mut *ways.lock().await).await;
            let _ = news.send(Msg::Copied { what, outcome }.into()).await;
        });
    }

    /// Reads the session database away from the loop.
    fn read_store(&mut self, read: impl FnOnce(&Path) -> Msg + Send + 'static) {
        let (news, path) = (self.news.clone(), self.database.clone());
        self.spawn(async move {
            if let Ok(msg) = tokio::task::spawn_blocking(move || read(&path)).await {
                let _ = news.send(msg.into()).await;
            }
        });
    }

    fn load_theme(&mut self, name: String) {
        let (news, themes, colours) = (self.news.clone(), self.themes.clone(), self.colours);
        self.spawn(async move {
            let wanted = name.clone();
            let loaded = tokio::task::spawn_blocking(move || Theme::load(&wanted, Some(&themes))).await;
            let news_of_it = match loaded.map_err(|error| error.to_string()).and_then(|loaded| loaded) {
                Ok((theme, warnings)) => {
                    let msg = Msg::ThemeLoaded { name, result: Ok(warnings) };
                    News::Theme(Box::new(colours.apply(theme)), msg)
                }
                Err(error) => News::Msg(Msg::ThemeLoaded { name, result: Err(error) }),
            };
            let _ = news.send(news_of_it).await;
        });
    }
}

impl Run for Runner {
    fn run(&mut self, effect: Effect) {
        match effect {
            Effect::Generate { key, backend, request } => self.generate(key, &backend, *request),
            Effect::Warm { backend, request } => self.warm(&backend, *request),
            Effect::StopWarming => self.warming = None,
            Effect::Cancel(key) => drop(self.generations.remove(&key)),
            Effect::Store(job) => self.store.send(job),
            Effect::ListModels { backend } => {
                if let Some(backend) = self.backend(&backend) {
                    self.list_models(backend);
                }
            }
            Effect::LookAround => self.look_around(),
            Effect::ReadStats => self.read_store(|path| Msg::Stats { result: crate::store::outcomes(path) }),
            Effect::LookAtMachine { backend } => {
                if let Some(backend) = self.backend(&backend) {
                    self.look_at_machine(backend);
                }
            }
            Effect::ChangeModel { backend, model, change } => {
                if let Some(backend) = self.backend(&backend) {
                    self.change_model(backend, model, change);
                }
            }
            Effect::RestartEngine { models } => {
                let engine = self.backends.all().iter().find(|backend| backend.is_engine()).cloned();
                if let Some(engine) = engine {
                    self.watch(engine, models);
                }
            }
            Effect::Copy { text, what } => self.copy(text, &what),
            Effect::LoadTheme { name } => self.load_theme(name),
            Effect::ListSessions => {
                self.read_store(|path| Msg::Sessions { result: crate::store::list(path, SESSIONS_LISTED) });
            }
            Effect::LoadSession { id } => {
                self.read_store(move |path| Msg::SessionLoaded {
                    result: crate::store::load(path, &id).map(|saved| (saved.record, saved.turns)),
                });
            }
            Effect::Timer { .. } | Effect::Redraw | Effect::Suspend | Effect::Quit { .. } => {
                // The loop's own; they don't come here.
            }
        }
    }

    fn after(&mut self, model: &Model) {
        self.last_words.note(model);
    }
}

/// Forwards what happens to the engine; loads `models` once it answers.
async fn watch(backend: Backend, mut models: Vec<String>, news: mpsc::Sender<News>) {
    let name = backend.name().to_owned();
    let mut events = backend.watch();
    let mut loads = JoinSet::new();
    while let Some(event) = events.next().await {
        let listing = |listing| Msg::Models { backend: name.clone(), result: Ok(listing) };
        let messages = match event {
            EngineEvent::Starting => vec![Msg::Engine(EngineNews::Starting)],
            EngineEvent::Ready(ready) => {
                let (backend, news, models) = (backend.clone(), news.clone(), std::mem::take(&mut models));
                loads.spawn_local(async move {
                    for model in models {
                        if let Err(error) = backend.load(&model, LoadReason::Restored).await {
                            notice_error(&news, error.message).await;
                        }
                    }
                });
                vec![Msg::Engine(EngineNews::Ready), listing(ready)]
            }
            EngineEvent::Models(changed) => vec![listing(changed)],
            EngineEvent::Died { message, residents } => {
                vec![Msg::Engine(EngineNews::Died { message, residents })]
            }
            EngineEvent::Stopped => vec![Msg::Engine(EngineNews::Stopped)],
            EngineEvent::Failed(message) => vec![Msg::Engine(EngineNews::Failed { message })],
        };
        for msg in messages {
            if news.send(msg.into()).await.is_err() {
                return;
            }
        }
    }
}

async fn notice_error(news: &mpsc::Sender<News>, text: String) {
    let _ = news.send(Msg::Notice { text, is_error: true }.into()).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_need_a_terminal_that_has_them_and_a_person_who_wants_them() {
        for (no_color, term, expected) in [
            (false, Some("xterm-256color"), Colours::Allowed),
            (false, Some("linux"), Colours::Allowed),
            (true, Some("xterm-256color"), Colours::Unwanted),
            (false, Some("xterm-mono"), Colours::Unwanted),
            (false, Some("vt100"), Colours::Unwanted),
            (false, Some("dumb"), Colours::Unwanted),
            (false, None, Colours::Unwanted),
        ] {
            assert_eq!(Colours::of(no_color, term), expected, "{no_color} {term:?}");
        }
    }
}
