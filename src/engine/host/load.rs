//! One load, on the model's own thread: from the file to a model that serves.

use super::companions::{Draft, Known};
use super::registry::{Loading, Moments, Wish};
use super::{Host, Inner, Resident, lock, projector};
use crate::chat::{GenError, GenErrorKind};
use crate::config::GpuLayers;
use crate::engine::gguf::{ModelInfo, ModelKind};
use crate::engine::llama::{LoadOptions, Purpose, Storage};
use crate::engine::memory::Shape;
use crate::engine::residency::allocated::{self, Heard};
use crate::engine::residency::budget::{Held, is_back, is_card};
use crate::engine::residency::dry_run;
use crate::engine::residency::footprint::{Estimate, Footprint, MAIN, Measured};
use crate::engine::residency::offload::Offload;
use crate::engine::residency::plan::{SMALLEST_CONTEXT, Verdict};
use crate::engine::stats::Stats;
use crate::engine::template::Template;
use crate::engine::{builtin, cache, embed_thread, gguf, job, llama, model_thread, probe};
use llama_cpp_2::model::LlamaModel;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Jobs one model keeps waiting before it refuses more.
const QUEUE_LIMIT: usize = 16;
/// Models with fewer weights than this compute on one thread unless told otherwise.
const ONE_THREAD_BELOW: u64 = 20_000_000;
/// How long a model that was told to leave may take to give its memory back.
const LEAVE: Duration = Duration::from_secs(10);
/// How long a driver may take to count that memory as free.
const SETTLE: Duration = Duration::from_secs(5);
/// Between two looks at something that is about to happen.
const LOOK: Duration = Duration::from_millis(5);

/// One load at a time goes through here: two must not count on the same memory.
#[derive(Debug, Default)]
pub(super) struct LoadGate {
    is_taken: Mutex<bool>,
    changed: Condvar,
}

/// Lets the next one through when it is dropped.
pub(super) struct Through<'a>(&'a LoadGate);

impl LoadGate {
    /// Waits its turn as long as `is_wanted`; none when it isn't any more.
    fn enter(&self, is_wanted: impl Fn() -> bool) -> Option<Through<'_>> {
        let mut is_taken = self.is_taken.lock().unwrap_or_else(PoisonError::into_inner);
        while *is_taken {
            if !is_wanted() {
                return None;
            }
            let wait = self.changed.wait_timeout(is_taken, Duration::from_millis(100));
            is_taken = wait.unwrap_or_else(PoisonError::into_inner).0;
        }
        *is_taken = true;
        Some(Through(self))
    }
}

impl Drop for Through<'_> {
    fn drop(&mut self) {
        *self.0.is_taken.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.0.changed.notify_all();
    }
}

/// Says that the thread of a model has ended, whatever way it ended.
pub(super) struct EndMark(pub(super) Arc<AtomicBool>);

impl Drop for EndMark {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn model_error(message: String) -> GenError {
    GenError::new(GenErrorKind::Model, message)
}

fn stopped(id: &str) -> GenError {
    model_error(format!("the load of `{id}` was stopped. Send again to load it"))
}

impl Inner {
    /// Context, slots and threads a model is loaded with.
    pub(super) fn options(&self, wish: &Wish, info: &ModelInfo) -> LoadOptions {
        LoadOptions {
            context: self.context(wish, info),
            slots: wish.slots.unwrap_or(self.config.slots).max(1),
            threads: self.threads(info),
            purpose: Purpose::of(info),
        }
    }

    /// Threads a model computes on.
    pub(super) fn threads(&self, info: &ModelInfo) -> u32 {
        match self.config.threads {
            // Threads that wait for each other at every layer cost a model this small more than they give.
            0 if info.parameters < ONE_THREAD_BELOW => 1,
            0 => llama::physical_cores(),
            asked => asked,
        }
    }

    /// How a model is going to be loaded, as far as what it takes depends on it.
    pub(super) fn way(&self, options: LoadOptions) -> probe::Way {
        probe::Way {
            context: options.context,
            slots: options.slots,
            gpu_layers: match self.config.gpu_layers {
                GpuLayers::Auto => None,
                GpuLayers::Count(layers) => Some(layers),
            },
            devices: self.device_names.clone(),
        }
    }

    /// Everything a load goes through; serves until unloaded.
    pub(super) fn load_and_serve(
        self: &Arc<Self>,
        id: &str,
        path: &Path,
        loading: &Arc<Loading>,
        has_ended: &Arc<AtomicBool>,
    ) -> Result<(), GenError> {
        let info = gguf::inspect(path).map_err(|e| model_error(e.to_string()))?;
        if let Some(why) = info.kind.why_not_chat().filter(|_| info.kind != ModelKind::Embedding) {
            return Err(model_error(format!("`{id}` is {why}. Choose another")));
        }
        let template = Template::of(id, &info).map_err(|e| model_error(e.to_string()))?;
        let options = self.options(&loading.wish, &info);
        let host = Host { inner: Arc::clone(self) };
        let draft = self.draft_of(id, path, &info, options).map_err(|message| {
            let named = host.draft_name(id).map(Path::new);
            let files: Vec<&Path> = named.into_iter().chain([path]).collect();
            model_error(host.told(id, &files, message))
        })?;
        let tensor_bytes =
            info.tensor_bytes.saturating_add(draft.as_ref().map_or(0, |draft| draft.info.tensor_bytes));
        loading.bytes.store(tensor_bytes, Ordering::Relaxed);
        // Held until the model is resident; when it does not become so, until its memory is given back.
        let mut gate = Some(self.load_gate.enter(|| !loading.is_cancelled()).ok_or_else(|| stopped(id))?);
        let began = Instant::now();
        if !self.llama.is_pooled(path) {
            self.refuse_hopeless(id, path, &info, options, draft.as_ref())?;
        }
        let known = self.measure_all(id, path, &info, options, draft.as_ref(), loading)?;
        let offload = self.make_room(id, path, &info, options, &known, loading)?;
        loading.has_room.store(true, Ordering::Relaxed);
        self.bump();
        self.activity.set(&format!("loading {id}"), Some(id), &host.ids());
        let (commands, inbox) = job::commands();
        let stats = Arc::new(Stats::default());
        let key = cache::model_key(path, info.parts, options.context, llama::KV_TYPES)
            .inspect_err(|error| tracing::warn!(model = id, %error, "its conversations are not kept"))
            .ok();
        let start = model_thread::Start {
            window: info.sliding_window,
            cache: self.cache.clone(),
            key: key.map(Arc::new),
            gate: self.gate.clone(),
            llama: self.llama.clone(),
            path: path.to_path_buf(),
            storage: if info.is_remote { Storage::Read } else { Storage::Mapped },
            offload,
            options,
            queue_limit: QUEUE_LIMIT,
            draft: draft.as_ref().map(|draft| draft.start(self.offload(), info.tensor_bytes)),
            inbox,
            stats: Arc::clone(&stats),
        };
        let (progress_of, wake) = (Arc::clone(loading), Arc::clone(self));
        let progress = move |fraction: f32| {
            let permille = (fraction * 1000.0) as u32;
            let before = progress_of.permille.swap(permille, Ordering::Relaxed);
            if permille / 10 != before / 10 {
                wake.bump();
            }
            !progress_of.is_cancelled()
        };
        let is_embedder = info.kind == ModelKind::Embedding;
        let mut failure = None;
        let (heard, listening) = allocated::listen();
        let is_ready = |result: Result<Arc<LlamaModel>, String>| {
            drop(listening);
            match result {
                Ok(model) => {
                    tracing::info!(model = id, ms = began.elapsed().as_millis() as u64, "resident");
                    let projector = projector::footprint(known.projector.as_ref());
                    let alone = Known { projector: None, ..known };
                    let estimate = alone.estimate(&info, options, MAIN).at(options.context);
                    let all_remote =
                        info.is_remote && draft.as_ref().is_none_or(|draft| draft.info.is_remote);
                    let now = Instant::now();
                    let resident = Resident {
                        id: id.to_owned(),
                        path: path.to_path_buf(),
                        model,
                        template,
                        held: held(&heard, &self.device_names, tensor_bytes, all_remote, estimate),
                        projector,
                        info,
                        draft,
                        options,
                        load_ms: began.elapsed().as_secs_f64() * 1000.0,
                        stats,
                        last_used: AtomicU64::new(self.uses.fetch_add(1, Ordering::Relaxed)),
                        commands,
                        moments: Mutex::new(Moments { warmed: Some(now), idle_since: now }),
                        has_ended: Arc::clone(has_ended),
                        #[cfg(feature = "mtmd")]
                        eyes: std::sync::OnceLock::new(),
                    };
                    // Before anybody can use it: what it does then must not be overwritten.
                    let mut ids = host.ids();
                    ids.push(id.to_owned());
                    if host.answers() == 0 {
                        self.activity.set("idle", None, &ids);
                    }
                    failure = self.put_resident(loading, resident).err();
                    if failure.is_none() {
                        drop(gate.take());
                    }
                }
                Err(reason) => failure = Some(reason),
            }
        };
        if is_embedder {
            embed_thread::run(start, progress, is_ready);
        } else {
            model_thread::run(start, progress, is_ready);
        }
        match failure {
            Some(reason) => Err(model_error(format!(
                "`{id}` could not be loaded ({reason}). The engine's log has llama.cpp's own words"
            ))),
            None => Ok(()),
        }
    }

    /// Refuses what can't fit even with everything idle gone, before the file is tried: by the formula for weights
    /// and cache, which are exact enough, without scratch buffers, which are not.
    fn refuse_hopeless(
        &self,
        id: &str,
        path: &Path,
        info: &ModelInfo,
        options: LoadOptions,
        draft: Option<&Draft>,
    ) -> Result<(), GenError> {
        let draft = draft.map(|draft| (draft.clone(), None));
        let by_formula = Known { own: None, draft, projector: self.projector(path, info) };
        let least = |context: u32| {
            let mut footprint = by_formula.estimate(info, options, MAIN).at(context);
            for share in &mut footprint.shares {
                share.compute = 0;
            }
            footprint
        };
        let small_context = SMALLEST_CONTEXT.min(options.context);
        let least = Measured {
            context: options.context,
            footprint: least(options.context),
            small_context,
            small: least(small_context),
        };
        let devices = llama::devices();
        if devices.iter().any(is_card) {
            // The formula does not know what goes where.
            return Ok(());
        }
        let outlook = self.outlook(&lock(&self.registry), &devices);
        let least = Known { own: Some(least), ..Known::default() };
        match outlook.forecast(id, info, options, &least).verdict {
            Verdict::DoesNotFit => {
                let refusal = outlook.forecast(id, info, options, &by_formula).refusal;
                Err(GenError::new(GenErrorKind::OutOfMemory, refusal))
            }
            _ => Ok(()),
        }
    }

    /// Has a model and what is loaded with it tried and measured.
    pub(super) fn measure_all(
        self: &Arc<Self>,
        id: &str,
        path: &Path,
        info: &ModelInfo,
        options: LoadOptions,
        draft: Option<&Draft>,
        loading: &Loading,
    ) -> Result<Known, GenError> {
        let own = self.measure(id, path, options, loading)?;
        let mut known = self.known(id, path, info, options, draft);
        if let Some((draft, measured)) = &mut known.draft {
            *measured = self.measure(&draft.id, &draft.path, draft.options, loading)?;
        }
        Ok(Known { own, projector: self.measured_projector(path, info), ..known })
    }

    /// Where layers go when there is room for all of them.
    fn offload(&self) -> Offload {
        match self.config.gpu_layers {
            GpuLayers::Auto => Offload::All,
            GpuLayers::Count(layers) => Offload::Layers(layers),
        }
    }

    /// Has the file tried and measured; the built-in model is only measured.
    fn measure(
        self: &Arc<Self>,
        id: &str,
        path: &Path,
        options: LoadOptions,
        loading: &Loading,
    ) -> Result<Option<Measured>, GenError> {
        let way = self.way(options);
        let measured = if id == builtin::ID {
            let known = lock(&self.measured).get(&(id.to_owned(), way.clone())).cloned();
            known.or_else(|| {
                dry_run::measure(&self.llama, path, options, way.gpu_layers)
                    .map_err(|error| tracing::warn!(%error, "the built-in model was not measured"))
                    .ok()
            })
        } else {
            let ids = Host { inner: Arc::clone(self) }.ids();
            self.activity.set(&format!("checking {id}"), Some(id), &ids);
            probe::ensure(path, &way, &self.paths, self.config_file.as_deref(), || !loading.is_cancelled())
                .map_err(model_error)?
        };
        if let Some(measured) = &measured {
            lock(&self.measured).insert((id.to_owned(), way), measured.clone());
        }
        Ok(measured)
    }

    /// Waits until there is room for a model, sending idle ones away as far as they are in the way.
    fn make_room(
        &self,
        id: &str,
        path: &Path,
        info: &ModelInfo,
        options: LoadOptions,
        known: &Known,
        loading: &Loading,
    ) -> Result<Offload, GenError> {
        loop {
            self.wait_for_leavers(loading);
            if loading.is_cancelled() {
                return Err(stopped(id));
            }
            // What it takes lies on other machines, each of which has a budget of its own.
            if self.llama.is_pooled(path) {
                return Ok(Offload::All);
            }
            let devices = llama::devices();
            let mut registry = lock(&self.registry);
            // Planned and done under one lock: nobody can begin to use what is sent away.
            let forecast = self.outlook(&registry, &devices).forecast(id, info, options, known);
            let leavers = match &forecast.verdict {
                Verdict::Fits => return Ok(self.offload()),
                Verdict::Partial { unload, .. } if unload.is_empty() => {
                    return Ok(Offload::Fit(forecast.margins));
                }
                Verdict::IfUnloaded(ids) | Verdict::Partial { unload: ids, .. } => ids.clone(),
                Verdict::SmallerContext { .. } | Verdict::DoesNotFit => {
                    return Err(GenError::new(GenErrorKind::OutOfMemory, forecast.refusal));
                }
            };
            // Decided under the lock: a question that comes now either finds it still wanted, or gone.
            if loading.is_ahead.load(Ordering::Relaxed) {
                loading.cancel.store(true, Ordering::Relaxed);
                registry.entries.remove(id);
                return Err(stopped(id));
            }
            let before: Vec<(String, u64, u64)> = devices
                .iter()
                .map(|d| {
                    let freed = leavers.iter().filter_map(|id| registry.resident(id));
                    (d.name.clone(), d.free, freed.map(|r| r.allocated().footprint.on(&d.name)).sum())
                })
                .collect();
            for leaver in &leavers {
                tracing::info!(model = %leaver, "sent away for {id}");
                registry.send_away(leaver);
                self.evictions.fetch_add(1, Ordering::Relaxed);
            }
            drop(registry);
            self.bump();
            self.wait_for_leavers(loading);
            wait_for_drivers(&before);
        }
    }

    /// Waits, for a bounded time, until those that were told to leave have given their memory back.
    fn wait_for_leavers(&self, loading: &Loading) {
        let deadline = Instant::now() + LEAVE;
        while lock(&self.registry).is_somebody_leaving()
            && Instant::now() < deadline
            && !loading.is_cancelled()
        {
            std::thread::park_timeout(LOOK);
        }
        llama::return_memory();
    }

    /// Waits, for a bounded time, until the threads of models that were told to leave have ended.
    pub(super) fn wait_for_threads_of_leavers(&self) {
        let deadline = Instant::now() + LEAVE;
        while lock(&self.registry).is_a_leaver_at_work() && Instant::now() < deadline {
            std::thread::park_timeout(LOOK);
        }
    }
}

/// Waits, for a bounded time, until accelerators count what was freed as free. `before` has their names, what was
/// free, and what was given back.
fn wait_for_drivers(before: &[(String, u64, u64)]) {
    let deadline = Instant::now() + SETTLE;
    let is_settled = || {
        let now = llama::devices();
        now.iter().filter(|d| matches!(d.kind, llama::Kind::Gpu | llama::Kind::Igpu)).all(|d| {
            let known = before.iter().find(|(name, ..)| *name == d.name);
            known.is_none_or(|(_, free, freed)| is_back(*free, *freed, d.free))
        })
    };
    while !is_settled() && Instant::now() < deadline {
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

/// The need by the formula, everything on one device.
pub(super) fn formula<'a>(info: &'a ModelInfo, options: LoadOptions, device: &'a str) -> Estimate<'a> {
    let shape = Shape { context: options.context, slots: options.slots, batch: llama::BATCH };
    Estimate::Formula { info, shape, device }
}

/// What a model that was just loaded holds: as llama.cpp logged it, else as estimated.
fn held(heard: &Heard, devices: &[String], tensor_bytes: u64, is_read: bool, estimate: Footprint) -> Held {
    heard.held(devices, tensor_bytes).unwrap_or_else(|| {
        let mapped = if is_read { 0 } else { estimate.totals().weights };
        Held { mapped, footprint: estimate }
    })
}
