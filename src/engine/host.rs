//! Which models are resident: loads on demand, keeps what is loaded, sends away what is in the way and idle, refuses
//! what memory can't hold.
//!
//! The registry is behind one mutex that is never held across a wait. Whoever waits for a change
//! subscribes to [`Host::changed`] and looks again. A request holds a [`Lease`] on its model from before it looks
//! whether it is resident until its last word, so that nothing is sent away under it.

mod change;
mod companions;
mod forecast;
mod load;
mod projector;
mod registry;
mod resident;
mod told;
mod wishes;

pub use forecast::{Forecast, Outlook};
pub use registry::{Progress, Wish};
pub use resident::Resident;

use super::activity::Activity;
use super::cache::{self, Cache};
use super::catalogue::{Catalogue, usual};
use super::draft;
use super::energy::{Meters, Span};
use super::gate::Gate;
use super::gguf::{ModelInfo, ModelKind, plain};
use super::job::Command;
use super::llama::{self, Llama};
use super::probe::Way;
use super::residency::footprint::Measured;
use super::supervisor;
use crate::chat::{GenError, GenErrorKind};
use crate::config::pool::PoolConfig;
use crate::config::{DraftMode, EngineConfig};
use crate::paths::Paths;
use load::LoadGate;
use registry::{Entry, Loading, Moments, Registry};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Deaths within ten minutes after which a model is no longer loaded by itself.
const QUARANTINE_AFTER: usize = 3;

/// What requests may ask for. The default is what the private socket allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Whether models go by id alone: no path is taken from a request, none is told.
    pub ids_only: bool,
    /// Whether requests may pin and unload models, change how long they stay and with which context, forget
    /// sessions, and try again what ended the engine again and again.
    pub manages: bool,
    /// Whether a conversation may name a session, and so be kept on disk.
    pub sessions: bool,
    /// Whether a request may bring a grammar or a JSON schema.
    pub grammars: bool,
    /// Longest answer in tokens where a request names no length; none: as long as the context holds.
    pub max_tokens: Option<u32>,
}

impl Default for Terms {
    fn default() -> Self {
        Self { ids_only: false, manages: true, sessions: true, grammars: true, max_tokens: None }
    }
}

/// The registry of models. Clones share it.
#[derive(Clone, Debug)]
pub struct Host {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    llama: Llama,
    /// Names of its devices, which stay the same once it runs: to ask drivers for them takes a while.
    device_names: Vec<String>,
    config: EngineConfig,
    paths: Paths,
    config_file: Option<PathBuf>,
    catalogue: Mutex<Catalogue>,
    registry: Mutex<Registry>,
    /// What was measured of models, by id and how they are loaded.
    measured: Mutex<HashMap<(String, Way), Measured>>,
    /// What was measured of projectors.
    #[cfg(feature = "mtmd")]
    projectors: Mutex<HashMap<super::gguf::FileId, super::residency::footprint::Footprint>>,
    changed: watch::Sender<u64>,
    activity: Activity,
    /// Conversations that left their slot, of all models.
    cache: Cache,
    /// Where resident models take turns at the device.
    gate: Gate,
    meters: Arc<Meters>,
    uses: AtomicU64,
    /// Answers on their way, those whose model is being loaded included.
    answers: AtomicUsize,
    /// Threads that load or serve a model.
    threads: AtomicUsize,
    /// Passed from the look at the memory to the end of the load.
    load_gate: LoadGate,
    /// Models sent away to make room for others.
    evictions: AtomicU64,
    is_closing: AtomicBool,
    terms: OnceLock<Terms>,
    started: Instant,
}

/// How a model is, to whoever asks.
#[derive(Clone, Debug)]
pub enum State {
    /// On disk only.
    Unloaded,
    /// On its way.
    Loading(Progress),
    /// Resident.
    Loaded(Arc<Resident>),
    /// The last load failed.
    Failed(GenError),
}

/// A request's hold on a model: as long as it lives, the model counts as running.
#[derive(Debug)]
pub struct Lease {
    host: Host,
    id: String,
    /// Whether the request only warms the model up for another one.
    pub is_warming: bool,
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut registry = lock(&self.host.inner.registry);
        let is_last = registry.end_lease(&self.id);
        if let Some(resident) = registry.resident(&self.id) {
            let now = Instant::now();
            let warmed = self.is_warming.then_some(now);
            *lock(&resident.moments) = Moments { warmed, idle_since: now };
        }
        drop(registry);
        if is_last {
            self.host.inner.bump();
        }
    }
}

/// How a resident model is held and used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hold {
    /// What is wanted of it.
    pub wish: Wish,
    /// Seconds since its last answer ended, or since it was loaded.
    pub idle_s: f64,
    /// Seconds until it is unloaded for being idle; none when it isn't going to be.
    pub expires_s: Option<f64>,
}

/// Counts something from when it is made to when it is dropped.
#[derive(Debug)]
pub struct Counted {
    inner: Arc<Inner>,
    which: fn(&Inner) -> &AtomicUsize,
}

impl Counted {
    fn new(inner: &Arc<Inner>, which: fn(&Inner) -> &AtomicUsize) -> Self {
        which(inner).fetch_add(1, Ordering::SeqCst);
        Self { inner: Arc::clone(inner), which }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.which)(&self.inner).fetch_sub(1, Ordering::SeqCst);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn catalogue(config: &EngineConfig, paths: &Paths) -> Catalogue {
    let builtin =
        super::builtin::unpack(paths).map_err(|e| tracing::warn!(error = %e, "no built-in model")).ok();
    let home = crate::paths::home();
    Catalogue::new(builtin, Catalogue::folders(&config.model_dirs, home.as_deref(), &paths.data))
        .with_places(usual(home.as_deref(), crate::paths::folder_in))
}

impl Host {
    /// Starts llama.cpp and reads the catalogue. The folder of `conversations` that left their slot is this
    /// process's alone: another one's files would be taken for leftovers.
    ///
    /// # Errors
    /// When llama.cpp does not start.
    pub fn new(
        config: &EngineConfig,
        pool: &PoolConfig,
        paths: &Paths,
        config_file: Option<&Path>,
        activity: Activity,
        conversations: PathBuf,
    ) -> Result<Self, String> {
        let llama = Llama::start()?.with_pool(pool);
        let devices = llama::devices();
        Ok(Self {
            inner: Arc::new(Inner {
                meters: Arc::new(Meters::find(
                    devices.iter().any(|d| d.backend.eq_ignore_ascii_case("cuda")),
                )),
                device_names: devices.into_iter().map(|d| d.name).collect(),
                llama,
                catalogue: Mutex::new(catalogue(config, paths)),
                cache: Cache::new(
                    conversations,
                    cache::Limits { memory: config.cache_memory.0, disk: config.cache_disk.0 },
                ),
                gate: Gate::new(1),
                config: config.clone(),
                paths: paths.clone(),
                config_file: config_file.map(Path::to_path_buf),
                registry: Mutex::new(Registry::new(config, wishes::left_behind(&paths.runtime))),
                measured: Mutex::default(),
                #[cfg(feature = "mtmd")]
                projectors: Mutex::default(),
                changed: watch::Sender::new(0),
                activity,
                uses: AtomicU64::new(1),
                answers: AtomicUsize::new(0),
                threads: AtomicUsize::new(0),
                load_gate: LoadGate::default(),
                evictions: AtomicU64::new(0),
                is_closing: AtomicBool::new(false),
                terms: OnceLock::new(),
                started: Instant::now(),
            }),
        })
    }

    /// Begins to measure an answer's energy, where there are meters.
    #[must_use]
    pub fn measure(&self) -> Option<Span> {
        self.inner.meters.start()
    }

    /// Sets what requests may ask for, once, before the first.
    pub fn restrict(&self, terms: Terms) {
        let _ = self.inner.terms.set(terms);
    }

    /// What requests may ask for.
    #[must_use]
    pub fn terms(&self) -> Terms {
        self.inner.terms.get().copied().unwrap_or_default()
    }

    /// Wakes whoever waits whenever a model's state or progress changes.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.inner.changed.subscribe()
    }

    /// The catalogue.
    pub fn catalogue(&self) -> MutexGuard<'_, Catalogue> {
        lock(&self.inner.catalogue)
    }

    /// The model a request names: an id, the beginning of one, or a path. Without a name the chat model used last, else
    /// the built-in one. Folders are searched when the name is not known yet, which reads the headers of new files.
    ///
    /// # Errors
    /// Two lines: what is missing, and names like it.
    pub fn find(&self, name: Option<&str>) -> Result<(String, PathBuf), String> {
        let last_used = || {
            let chat = self.residents().into_iter().filter(|r| r.info.kind == ModelKind::Chat);
            chat.max_by_key(|r| r.last_used.load(Ordering::Relaxed))
        };
        let name = name.map_or_else(
            || last_used().map_or_else(|| super::builtin::ID.to_owned(), |resident| resident.id.clone()),
            str::to_owned,
        );
        if let State::Loaded(resident) = self.state(&name) {
            return Ok((name, resident.path.clone()));
        }
        let ids_only = self.terms().ids_only;
        // Nobody learns from afar which files and folders there are.
        let unlisted =
            || format!("there is no model \"{}\"\nGET /v1/models lists those there are", plain(&name, 80));
        if ids_only && Path::new(&name).is_absolute() {
            return Err(unlisted());
        }
        let mut catalogue = self.catalogue();
        let found = catalogue.find(&name).or_else(|_| {
            catalogue.scan();
            catalogue.find(&name)
        });
        found.map(|entry| (entry.id, entry.path)).map_err(|e| if ids_only { unlisted() } else { e.message })
    }

    /// What the model with this id is for, as the catalogue knows it; none for a file that can't be used.
    #[must_use]
    pub fn kind(&self, id: &str) -> Option<ModelKind> {
        if let State::Loaded(resident) = self.state(id) {
            return Some(resident.info.kind);
        }
        let catalogue = self.catalogue();
        let entry = catalogue.entries().iter().find(|entry| entry.id == id)?;
        entry.info.as_ref().ok().map(|info| info.kind)
    }

    /// Seconds since the engine started.
    #[must_use]
    pub fn uptime(&self) -> f64 {
        self.inner.started.elapsed().as_secs_f64()
    }

    /// How the model with this id is. Ids are those of the catalogue.
    #[must_use]
    pub fn state(&self, id: &str) -> State {
        match lock(&self.inner.registry).entries.get(id) {
            None => State::Unloaded,
            Some(Entry::Loading(loading)) => State::Loading(loading.progress()),
            Some(Entry::Loaded(resident)) => State::Loaded(Arc::clone(resident)),
            Some(Entry::Failed(error)) => State::Failed(error.clone()),
        }
    }

    /// The resident models.
    #[must_use]
    pub fn residents(&self) -> Vec<Arc<Resident>> {
        let mut all: Vec<_> = lock(&self.inner.registry).residents().cloned().collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }

    /// A hold on a model, resident or not.
    #[must_use]
    pub fn lease(&self, id: &str) -> Lease {
        lock(&self.inner.registry).add_lease(id);
        Lease { host: self.clone(), id: id.to_owned(), is_warming: false }
    }

    /// How a resident model is held and used.
    #[must_use]
    pub fn hold(&self, resident: &Resident) -> Hold {
        let registry = lock(&self.inner.registry);
        let now = Instant::now();
        let expires = registry.expires_in(resident, self.inner.config.keep_alive, now);
        Hold {
            wish: registry.wish(&resident.id),
            idle_s: now.saturating_duration_since(resident.moments().idle_since).as_secs_f64(),
            expires_s: expires.map(|d| d.as_secs_f64()),
        }
    }

    /// What is wanted of a model.
    #[must_use]
    pub fn wish(&self, id: &str) -> Wish {
        lock(&self.inner.registry).wish(id)
    }

    /// Requests that use a model or wait for it.
    #[must_use]
    pub fn leases(&self, id: &str) -> usize {
        lock(&self.inner.registry).leases(id)
    }

    /// Models sent away so far to make room for others.
    #[must_use]
    pub fn evictions(&self) -> u64 {
        self.inner.evictions.load(Ordering::Relaxed)
    }

    /// The memory and who holds it, now.
    #[must_use]
    pub fn outlook(&self) -> Outlook {
        // Drivers are asked before the lock is taken.
        let devices = llama::devices();
        self.inner.outlook(&lock(&self.inner.registry), &devices)
    }

    /// What would become of loading a model, as far as is known without reading more than its header.
    #[must_use]
    pub fn forecast(&self, outlook: &Outlook, id: &str, path: &Path, info: &ModelInfo) -> Forecast {
        let options = self.inner.options(&self.wish(id), info);
        let draft = self.inner.draft_listed(id, options);
        outlook.forecast(id, info, options, &self.inner.known(id, path, info, options, draft.as_ref()))
    }

    /// Unloads residents that have been idle for as long as they are kept. Returns how long until the next one is.
    pub fn unload_expired(&self) -> Option<Duration> {
        let mut registry = lock(&self.inner.registry);
        let now = Instant::now();
        let due: Vec<(String, Duration)> = registry
            .residents()
            .filter_map(|r| Some((r.id.clone(), registry.expires_in(r, self.inner.config.keep_alive, now)?)))
            .collect();
        let (over, later): (Vec<_>, Vec<_>) = due.into_iter().partition(|(_, left)| left.is_zero());
        for (id, _) in &over {
            tracing::info!(model = %id, "unloaded: idle for as long as it is kept");
            registry.send_away(id);
        }
        drop(registry);
        if !over.is_empty() {
            self.inner.bump();
            self.record_activity();
        }
        later.into_iter().map(|(_, left)| left).min()
    }

    /// Forgets a resident whose thread has ended; another one that has its id by now stays.
    pub fn forget(&self, resident: &Arc<Resident>) {
        let mut registry = lock(&self.inner.registry);
        if registry.resident(&resident.id).is_some_and(|known| Arc::ptr_eq(known, resident)) {
            registry.send_away(&resident.id);
        }
        drop(registry);
        self.inner.bump();
    }

    /// Notes that a model is used now, for the record a crash leaves.
    pub fn note_use(&self, resident: &Resident) {
        let now = self.inner.uses.fetch_add(1, Ordering::Relaxed);
        resident.last_used.store(now, Ordering::Relaxed);
        self.inner.activity.set(&format!("answering with {}", resident.id), Some(&resident.id), &self.ids());
    }

    /// Notes what the engine does when nothing in particular is going on.
    pub fn record_activity(&self) {
        self.inner.activity.set("idle", None, &self.ids());
    }

    fn ids(&self) -> Vec<String> {
        self.residents().iter().map(|r| r.id.clone()).collect()
    }

    /// Conversations that left their slot.
    #[must_use]
    pub fn cache(&self) -> &Cache {
        &self.inner.cache
    }

    /// Keeps nothing of a session; returns in how many places it was. Waits for each model's next round, and, for a
    /// bounded time, for models that are leaving.
    #[must_use]
    pub fn forget_session(&self, session: &str) -> usize {
        let session: Arc<str> = Arc::from(session);
        // First the slots: what they hold could be kept elsewhere after that was emptied.
        let (done, answers) = mpsc::channel();
        for resident in self.residents() {
            let forget = Command::Forget { session: Arc::clone(&session), done: done.clone() };
            let _ = resident.commands.send(forget);
        }
        drop(done);
        let in_slots: usize = answers.iter().sum();
        // Those that leave put their conversations into the cache as the last thing they do.
        self.inner.wait_for_threads_of_leavers();
        in_slots + self.inner.cache.forget(&session)
    }

    /// Most tokens guessed ahead at once; 0 when guessing is off.
    #[must_use]
    pub fn longest_draft(&self) -> usize {
        match self.inner.config.draft {
            DraftMode::Auto => draft::LONGEST,
            DraftMode::Off => 0,
        }
    }

    /// The runtime folder.
    #[must_use]
    pub fn runtime_dir(&self) -> &Path {
        &self.inner.paths.runtime
    }

    /// Refuses a model that ended the engine three times in ten minutes, until the person asks for it.
    ///
    /// # Errors
    /// One line that says so.
    pub fn refuse_if_quarantined(&self, id: &str) -> Result<(), GenError> {
        let deaths = supervisor::recent_deaths(&self.inner.paths.runtime, id);
        if deaths < QUARANTINE_AFTER {
            return Ok(());
        }
        let next = if self.terms().manages {
            "Choose it again with /model to try once more"
        } else {
            "Try again in ten minutes, or choose another"
        };
        let message =
            format!("`{id}` ended the engine {deaths} times in ten minutes and is left alone. {next}");
        Err(GenError::new(GenErrorKind::Model, message))
    }

    /// Whether new work is refused because the engine is ending.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.inner.is_closing.load(Ordering::Relaxed)
    }

    /// Refuses new work from now on and wakes whoever waits.
    pub fn close(&self) {
        self.inner.is_closing.store(true, Ordering::Relaxed);
        self.inner.bump();
    }

    /// Counts an answer as long as the value lives.
    #[must_use]
    pub fn count_answer(&self) -> Counted {
        Counted::new(&self.inner, |inner| &inner.answers)
    }

    /// Answers on their way, over all models.
    #[must_use]
    pub fn answers(&self) -> usize {
        self.inner.answers.load(Ordering::SeqCst)
    }

    /// Threads that load or serve a model.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.inner.threads.load(Ordering::SeqCst)
    }
}

impl Inner {
    fn bump(&self) {
        self.changed.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// Makes a load's model resident, unless the load was stopped meanwhile.
    fn put_resident(&self, loading: &Arc<Loading>, resident: Resident) -> Result<(), String> {
        let mut registry = lock(&self.registry);
        let id = resident.id.clone();
        if !matches!(registry.entries.get(&id), Some(Entry::Loading(known)) if Arc::ptr_eq(known, loading)) {
            return Err("the load was stopped".to_owned());
        }
        registry.entries.insert(id, Entry::Loaded(Arc::new(resident)));
        drop(registry);
        self.bump();
        Ok(())
    }

    fn put(&self, id: &str, entry: Entry) {
        lock(&self.registry).entries.insert(id.to_owned(), entry);
        self.bump();
    }

    /// The thread of a load has ended: it failed, was stopped, or the model was unloaded.
    fn end_load(
        self: &Arc<Self>,
        id: &str,
        path: &Path,
        loading: &Arc<Loading>,
        served: Result<(), GenError>,
    ) {
        let host = Host { inner: Arc::clone(self) };
        let mut registry = lock(&self.registry);
        let mut changed = None;
        if matches!(registry.entries.get(id), Some(Entry::Loading(known)) if Arc::ptr_eq(known, loading)) {
            match served {
                Err(mut error) if !loading.is_cancelled() => {
                    if error.kind == GenErrorKind::OutOfMemory {
                        changed = registry.take_back(id, loading);
                    }
                    tracing::warn!(model = %id, error = %error.message, "load failed");
                    // A refusal names models by their ids, and numbers.
                    if error.kind != GenErrorKind::OutOfMemory {
                        error.message = host.told(id, &[path], error.message);
                    }
                    registry.entries.insert(id.to_owned(), Entry::Failed(error));
                }
                _ => {
                    registry.entries.remove(id);
                }
            }
        }
        drop(registry);
        if let Some(wishes) = changed {
            wishes::keep(&self.paths.runtime, &wishes);
        }
        self.bump();
        if host.answers() == 0 {
            host.record_activity();
        }
    }

    /// The context a model is loaded with, in tokens.
    fn context(&self, wish: &Wish, info: &ModelInfo) -> u32 {
        wish.context.unwrap_or(self.config.context).min(info.context_train).max(256)
    }
}
