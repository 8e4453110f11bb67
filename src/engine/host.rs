//! Which models are resident: loads on demand, keeps what is loaded, refuses what memory can't hold.
//!
//! The registry is behind one mutex that is never held across a wait. Whoever waits for a change
//! subscribes to [`Host::changed`] and looks again.

use super::activity::Activity;
use super::catalogue::Catalogue;
use super::embed_thread;
use super::gguf::{ModelInfo, ModelKind};
use super::job::{Command, EmbedJob, Job};
use super::llama::{Llama, LoadOptions, Storage};
use super::memory;
use super::model_thread;
use super::probe;
use super::stats::Stats;
use super::supervisor;
use super::template::Template;
use crate::chat::{GenError, GenErrorKind};
use crate::config::EngineConfig;
use crate::config::pool::PoolConfig;
use crate::paths::Paths;
use llama_cpp_2::model::LlamaModel;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Instant;
use tokio::sync::watch;

/// Jobs one model keeps waiting before it refuses more.
const QUEUE_LIMIT: usize = 16;
/// Models with fewer weights than this compute on one thread unless told otherwise.
const ONE_THREAD_BELOW: u64 = 20_000_000;
/// Deaths within ten minutes after which a model is no longer loaded by itself.
const QUARANTINE_AFTER: usize = 3;

/// The registry of models. Clones share it.
#[derive(Clone, Debug)]
pub struct Host {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    llama: Llama,
    config: EngineConfig,
    paths: Paths,
    config_file: Option<PathBuf>,
    catalogue: Mutex<Catalogue>,
    models: Mutex<HashMap<String, Entry>>,
    changed: watch::Sender<u64>,
    activity: Activity,
    uses: AtomicU64,
    /// Answers on their way, those whose model is being loaded included.
    answers: AtomicUsize,
    /// Threads that load or serve a model.
    threads: AtomicUsize,
    /// Held from the look at the memory to the end of the load: two loads must not count on the same memory.
    loading_gate: Mutex<()>,
    is_closing: AtomicBool,
    started: Instant,
}

#[derive(Debug)]
enum Entry {
    Loading(Arc<Loading>),
    Loaded(Arc<Resident>),
    Failed(GenError),
}

#[derive(Debug, Default)]
struct Loading {
    permille: AtomicU32,
    cancel: AtomicBool,
}

/// How a model is, to whoever asks.
#[derive(Clone, Debug)]
pub enum State {
    /// On disk only.
    Unloaded,
    /// On its way, 0 to 1.
    Loading(f32),
    /// Resident.
    Loaded(Arc<Resident>),
    /// The last load failed.
    Failed(GenError),
}

/// A loaded model.
#[derive(Debug)]
pub struct Resident {
    /// Its id.
    pub id: String,
    /// Its file.
    pub path: PathBuf,
    /// llama.cpp's model, for its vocabulary; the context belongs to the model's thread.
    pub model: Arc<LlamaModel>,
    /// Its chat template, compiled.
    pub template: Template,
    /// What its file says.
    pub info: ModelInfo,
    /// Context and slots in force.
    pub options: LoadOptions,
    /// What it takes, by our estimate.
    pub need: memory::Need,
    /// How long loading took.
    pub load_ms: f64,
    /// Counters.
    pub stats: Arc<Stats>,
    /// Larger is later.
    pub last_used: AtomicU64,
    commands: mpsc::Sender<Command>,
    #[cfg(feature = "mtmd")]
    eyes: std::sync::OnceLock<Result<Arc<super::vision::Eyes>, String>>,
}

impl Resident {
    /// What lets it see; loaded when it is asked for the first time.
    ///
    /// # Errors
    /// Two lines: there is no projector beside it, or it can't be used.
    #[cfg(feature = "mtmd")]
    pub fn eyes(&self) -> Result<Arc<super::vision::Eyes>, String> {
        let open = || {
            let projector = super::vision::projector(&self.path).ok_or_else(|| {
                format!("`{}` can't see: there is no projector (mmproj) beside it", self.id)
            })?;
            super::vision::Eyes::open(&self.model, &self.path, &projector, self.options.threads)
        };
        self.eyes.get_or_init(open).clone()
    }

    /// Gives the model's thread a job.
    ///
    /// # Errors
    /// When the thread has ended.
    pub fn submit(&self, job: Job) -> Result<(), GenError> {
        self.tell(Command::Generate(Box::new(job)))
    }

    /// Gives the thread of an embedding model texts.
    ///
    /// # Errors
    /// When the thread has ended.
    pub fn embed(&self, job: EmbedJob) -> Result<(), GenError> {
        self.tell(Command::Embed(Box::new(job)))
    }

    fn tell(&self, command: Command) -> Result<(), GenError> {
        self.commands.send(command).map_err(|_| {
            GenError::new(
                GenErrorKind::EngineDied,
                format!("the thread of `{}` has ended. Send again to load it anew", self.id),
            )
        })
    }
}

impl Drop for Resident {
    fn drop(&mut self) {
        self.end();
    }
}

impl Resident {
    /// Tells the model's thread to end: its jobs fail, the memory of its context is freed.
    fn end(&self) {
        let _ = self.commands.send(Command::Unload);
    }
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

impl Host {
    /// Starts llama.cpp and reads the catalogue.
    ///
    /// # Errors
    /// When llama.cpp does not start.
    pub fn new(
        config: &EngineConfig,
        pool: &PoolConfig,
        paths: &Paths,
        config_file: Option<&Path>,
        activity: Activity,
    ) -> Result<Self, String> {
        Ok(Self {
            inner: Arc::new(Inner {
                llama: Llama::start()?.with_pool(pool),
                catalogue: Mutex::new(Catalogue::new(
                    super::builtin::unpack(paths)
                        .map_err(|e| tracing::warn!(error = %e, "no built-in model"))
                        .ok(),
                    Catalogue::folders(&config.model_dirs, crate::paths::home().as_deref(), &paths.data),
                )),
                config: config.clone(),
                paths: paths.clone(),
                config_file: config_file.map(Path::to_path_buf),
                models: Mutex::default(),
                changed: watch::Sender::new(0),
                activity,
                uses: AtomicU64::new(1),
                answers: AtomicUsize::new(0),
                threads: AtomicUsize::new(0),
                loading_gate: Mutex::default(),
                is_closing: AtomicBool::new(false),
                started: Instant::now(),
            }),
        })
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

    /// The model a request names: an id, the beginning of one, or a path. Without a name the one used last, else the
    /// built-in one. Folders are searched when the name is not known yet, which reads the headers of new files.
    ///
    /// # Errors
    /// Two lines: what is missing, and names like it.
    pub fn find(&self, name: Option<&str>) -> Result<(String, PathBuf), String> {
        let last_used = || self.residents().into_iter().max_by_key(|r| r.last_used.load(Ordering::Relaxed));
        let name = name.map_or_else(
            || last_used().map_or_else(|| super::builtin::ID.to_owned(), |resident| resident.id.clone()),
            str::to_owned,
        );
        if let State::Loaded(resident) = self.state(&name) {
            return Ok((name, resident.path.clone()));
        }
        let mut catalogue = self.catalogue();
        let found = catalogue.find(&name).or_else(|_| {
            catalogue.scan();
            catalogue.find(&name)
        });
        found.map(|entry| (entry.id, entry.path)).map_err(|e| e.message)
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
        match lock(&self.inner.models).get(id) {
            None => State::Unloaded,
            Some(Entry::Loading(loading)) => {
                State::Loading(loading.permille.load(Ordering::Relaxed) as f32 / 1000.0)
            }
            Some(Entry::Loaded(resident)) => State::Loaded(Arc::clone(resident)),
            Some(Entry::Failed(error)) => State::Failed(error.clone()),
        }
    }

    /// The resident models.
    #[must_use]
    pub fn residents(&self) -> Vec<Arc<Resident>> {
        let mut all: Vec<_> = lock(&self.inner.models)
            .values()
            .filter_map(|entry| match entry {
                Entry::Loaded(resident) => Some(Arc::clone(resident)),
                Entry::Loading(_) | Entry::Failed(_) => None,
            })
            .collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }

    /// Starts loading a model unless it is resident or on its way. Returns at once.
    pub fn begin_load(&self, id: &str, path: &Path) {
        let loading = Arc::new(Loading::default());
        {
            let mut models = lock(&self.inner.models);
            if matches!(models.get(id), Some(Entry::Loading(_) | Entry::Loaded(_))) {
                return;
            }
            models.insert(id.to_owned(), Entry::Loading(Arc::clone(&loading)));
        }
        self.inner.bump();
        let inner = Arc::clone(&self.inner);
        let (id, path) = (id.to_owned(), path.to_path_buf());
        let thread_id = id.clone();
        let spawned = std::thread::Builder::new().name(format!("model-{id}")).spawn(move || {
            let _counted = Counted::new(&inner, |inner| &inner.threads);
            let served = AssertUnwindSafe(|| inner.load_and_serve(&thread_id, &path, &loading));
            let served = std::panic::catch_unwind(served).unwrap_or_else(|_| {
                let message =
                    format!("the engine failed while it loaded `{thread_id}`; its log has more. Retry");
                Err(GenError::new(GenErrorKind::Model, message))
            });
            if let Err(error) = served {
                tracing::warn!(model = %thread_id, error = %error.message, "load failed");
                inner.put(&thread_id, Entry::Failed(error));
                Self { inner: Arc::clone(&inner) }.record_activity();
            }
        });
        if let Err(error) = spawned {
            let message = format!("no thread for `{id}`: {error}");
            self.inner.put(&id, Entry::Failed(GenError::new(GenErrorKind::Model, message)));
        }
    }

    /// Unloads a model, or stops its load. `false` when it was neither resident nor on its way.
    #[must_use]
    pub fn unload(&self, id: &str) -> bool {
        let mut models = lock(&self.inner.models);
        let was_there = match models.get(id) {
            Some(Entry::Loaded(resident)) => {
                // Answers still hold the resident: its thread is told, not only forgotten.
                resident.end();
                models.remove(id);
                true
            }
            Some(Entry::Loading(loading)) => {
                loading.cancel.store(true, Ordering::Relaxed);
                true
            }
            Some(Entry::Failed(_)) | None => false,
        };
        drop(models);
        self.inner.bump();
        self.record_activity();
        was_there
    }

    /// Forgets a resident whose thread has ended; another one that has its id by now stays.
    pub fn forget(&self, resident: &Arc<Resident>) {
        let mut models = lock(&self.inner.models);
        if matches!(models.get(&resident.id), Some(Entry::Loaded(known)) if Arc::ptr_eq(known, resident)) {
            models.remove(&resident.id);
        }
        drop(models);
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
        let message = format!(
            "`{id}` ended the engine {deaths} times in ten minutes and is left alone. Choose it again with /model to try once more"
        );
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

    /// Tells every model to end.
    pub fn unload_all(&self) {
        for resident in self.residents() {
            let _ = self.unload(&resident.id);
        }
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

    fn put(&self, id: &str, entry: Entry) {
        lock(&self.models).insert(id.to_owned(), entry);
        self.bump();
    }

    /// Everything a load goes through, on the model's own thread; serves until unloaded.
    fn load_and_serve(
        self: &Arc<Self>,
        id: &str,
        path: &Path,
        loading: &Arc<Loading>,
    ) -> Result<(), GenError> {
        let began = Instant::now();
        let model_error = |message: String| GenError::new(GenErrorKind::Model, message);
        let is_builtin = id == super::builtin::ID;
        let info = super::gguf::inspect(path).map_err(|e| model_error(e.to_string()))?;
        if let Some(why) = info.kind.why_not_chat().filter(|_| info.kind != ModelKind::Embedding) {
            return Err(model_error(format!("`{id}` is {why}. Choose another")));
        }
        let template = Template::of(id, &info).map_err(|e| model_error(e.to_string()))?;
        let options = LoadOptions {
            context: self.config.context.min(info.context_train).max(256),
            slots: self.config.slots.max(1),
            threads: match self.config.threads {
                // Threads that wait for each other at every layer cost a model this small more than they give.
                0 if info.parameters < ONE_THREAD_BELOW => 1,
                0 => super::llama::physical_cores(),
                asked => asked,
            },
        };
        let shape =
            memory::Shape { context: options.context, slots: options.slots, batch: super::llama::BATCH };
        let gate = lock(&self.loading_gate);
        let host = Host { inner: Arc::clone(self) };
        // Mapped weights of other models count as available, but are in use.
        let taken: u64 = host.residents().iter().map(|r| r.need.weights).sum();
        let need = match memory::available()
            .filter(|_| !self.llama.is_pooled(path))
            .map(|bytes| bytes.saturating_sub(taken))
        {
            Some(available) => memory::check(id, &info, shape, available)
                .map_err(|message| GenError::new(GenErrorKind::OutOfMemory, message))?,
            None => memory::need(&info, shape),
        };
        if !is_builtin {
            self.activity.set(&format!("checking {id}"), Some(id), &host.ids());
            let is_wanted = || !loading.cancel.load(Ordering::Relaxed);
            probe::ensure(path, &self.paths, self.config_file.as_deref(), is_wanted).map_err(model_error)?;
        }
        self.activity.set(&format!("loading {id}"), Some(id), &host.ids());
        let (commands, receiver) = mpsc::channel();
        let stats = Arc::new(Stats::default());
        let start = model_thread::Start {
            llama: self.llama.clone(),
            path: path.to_path_buf(),
            storage: if info.is_remote { Storage::Read } else { Storage::Mapped },
            options,
            queue_limit: QUEUE_LIMIT,
            commands: receiver,
            stats: Arc::clone(&stats),
        };
        let (progress_of, wake) = (Arc::clone(loading), Arc::clone(self));
        let progress = move |fraction: f32| {
            let permille = (fraction * 1000.0) as u32;
            let before = progress_of.permille.swap(permille, Ordering::Relaxed);
            if permille / 10 != before / 10 {
                wake.bump();
            }
            !progress_of.cancel.load(Ordering::Relaxed)
        };
        let is_embedder = info.kind == ModelKind::Embedding;
        let mut failure = None;
        let is_ready = |result: Result<Arc<LlamaModel>, String>| match result {
            Ok(_) if loading.cancel.load(Ordering::Relaxed) => {
                failure = Some("the load was stopped".to_owned());
            }
            Ok(model) => {
                tracing::info!(model = id, ms = began.elapsed().as_millis() as u64, "resident");
                let resident = Resident {
                    id: id.to_owned(),
                    path: path.to_path_buf(),
                    model,
                    template,
                    info,
                    options,
                    need,
                    load_ms: began.elapsed().as_secs_f64() * 1000.0,
                    stats,
                    last_used: AtomicU64::new(self.uses.fetch_add(1, Ordering::Relaxed)),
                    commands,
                    #[cfg(feature = "mtmd")]
                    eyes: std::sync::OnceLock::new(),
                };
                // Before anybody can use it: what it does then must not be overwritten.
                let mut ids = host.ids();
                ids.push(id.to_owned());
                if host.answers() == 0 {
                    self.activity.set("idle", None, &ids);
                }
                self.put(id, Entry::Loaded(Arc::new(resident)));
                drop(gate);
            }
            Err(reason) => failure = Some(reason),
        };
        if is_embedder {
            embed_thread::run(start, progress, is_ready);
        } else {
            model_thread::run(start, progress, is_ready);
        }
        if loading.cancel.load(Ordering::Relaxed) {
            let mut models = lock(&self.models);
            if matches!(models.get(id), Some(Entry::Loading(known)) if Arc::ptr_eq(known, loading)) {
                models.remove(id);
            }
            drop(models);
            self.bump();
            return Ok(());
        }
        match failure {
            Some(reason) => Err(model_error(format!(
                "`{id}` could not be loaded ({reason}). The engine's log has llama.cpp's own words"
            ))),
            None => Ok(()),
        }
    }
}
