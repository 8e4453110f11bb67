//! What people ask of models: to load, to leave, to stay.

use super::load::EndMark;
use super::registry::{Entry, Loading, Registry, Wish, WishChange};
use super::{Counted, Host, Inner, Resident, lock, wishes};
use crate::chat::{GenError, GenErrorKind};
use crate::engine::llama::{self, Device, LoadOptions};
use crate::engine::residency::plan::Verdict;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

impl Host {
    /// Starts loading a model unless it is resident or on its way, or the engine is ending. Returns at once.
    pub fn begin_load(&self, id: &str, path: &Path) {
        let mut registry = lock(&self.inner.registry);
        if let Some(Entry::Loading(loading)) = registry.entries.get(id) {
            loading.is_ahead.store(false, Ordering::Relaxed);
        }
        let loading = self.inner.enter(&mut registry, id);
        drop(registry);
        if let Some(loading) = loading {
            self.start(id, path, loading);
        }
    }

    /// The same ahead of a question that may come: the load is given up where another model would have to leave.
    pub fn begin_load_ahead(&self, id: &str, path: &Path) {
        let loading = self.inner.enter(&mut lock(&self.inner.registry), id);
        if let Some(loading) = loading {
            loading.is_ahead.store(true, Ordering::Relaxed);
            self.start(id, path, loading);
        }
    }

    /// Changes what is wanted of a model and begins to load it, anew where it has another context. What is refused
    /// at once changes nothing, and what the load itself refuses takes the change back. May measure the model first.
    ///
    /// # Errors
    /// When it is answering or on its way with another context, or would not fit with the one wanted.
    pub fn ask(&self, id: &str, path: &Path, change: impl Fn(&mut Wish)) -> Result<(), GenError> {
        self.measure_changed(id, path, &change)?;
        let devices = llama::devices();
        let mut registry = lock(&self.inner.registry);
        let before = registry.wish(id);
        let mut wish = before;
        change(&mut wish);
        if self.inner.has_to_leave(&registry, id, &wish, &devices)? {
            registry.send_away(id);
        }
        *registry.wish_mut(id) = wish;
        let is_changed = wish != before;
        let loading = self.inner.enter(&mut registry, id);
        if let Some(Entry::Loading(loading)) = registry.entries.get(id).filter(|_| is_changed) {
            lock(&loading.changes).push(WishChange { before, after: wish });
        }
        let now = is_changed.then(|| registry.wishes().clone());
        drop(registry);
        if let Some(wishes) = now {
            wishes::keep(&self.inner.paths.runtime, &wishes);
        }
        match loading {
            Some(loading) => self.start(id, path, loading),
            None => self.inner.bump(),
        }
        Ok(())
    }

    /// Has a resident measured with the context it is wanted with, so that it leaves only when there is room for that.
    fn measure_changed(&self, id: &str, path: &Path, change: impl Fn(&mut Wish)) -> Result<(), GenError> {
        let registry = lock(&self.inner.registry);
        let mut wish = registry.wish(id);
        change(&mut wish);
        let Some(resident) = registry.resident(id).cloned().filter(|_| registry.leases(id) == 0) else {
            return Ok(());
        };
        drop(registry);
        let options = self.inner.with_context(&resident, &wish);
        if options == resident.options || self.inner.llama.is_pooled(path) {
            return Ok(());
        }
        let known = self.inner.measure_all(
            id,
            path,
            &resident.info,
            options,
            resident.draft.as_ref(),
            &Loading::default(),
        );
        if self.answers() == 0 {
            self.record_activity();
        }
        known.map(drop)
    }

    fn start(&self, id: &str, path: &Path, loading: Arc<Loading>) {
        self.inner.bump();
        let inner = Arc::clone(&self.inner);
        let counted = Counted::new(&inner, |inner| &inner.threads);
        let (id, path) = (id.to_owned(), path.to_path_buf());
        let thread_id = id.clone();
        let spawned = std::thread::Builder::new().name(format!("model-{id}")).spawn(move || {
            let _counted = counted;
            // Dropped last but for the count: all of the model's memory is given back then.
            let has_ended = Arc::new(AtomicBool::new(false));
            let _end = EndMark(Arc::clone(&has_ended));
            let served = AssertUnwindSafe(|| inner.load_and_serve(&thread_id, &path, &loading, &has_ended));
            let served = std::panic::catch_unwind(served).unwrap_or_else(|_| {
                let message =
                    format!("the engine failed while it loaded `{thread_id}`; its log has more. Retry");
                Err(GenError::new(GenErrorKind::Model, message))
            });
            inner.end_load(&thread_id, &path, &loading, served);
            llama::return_memory();
        });
        if let Err(error) = spawned {
            let message = format!("no thread for `{id}`: {error}");
            self.inner.put(&id, Entry::Failed(GenError::new(GenErrorKind::Model, message)));
        }
    }

    /// Unloads a model, or stops its load. `false` when it was neither resident nor on its way.
    #[must_use]
    pub fn unload(&self, id: &str) -> bool {
        let mut registry = lock(&self.inner.registry);
        let was_there = match registry.entries.get(id) {
            // Answers still hold the resident: its thread is told, not only forgotten.
            Some(Entry::Loaded(_)) => registry.send_away(id),
            Some(Entry::Loading(loading)) => {
                loading.cancel.store(true, Ordering::Relaxed);
                // Its thread finds itself forgotten; the next load of it waits until that one is through.
                registry.entries.remove(id);
                true
            }
            Some(Entry::Failed(_)) | None => false,
        };
        drop(registry);
        self.inner.bump();
        self.record_activity();
        was_there
    }

    /// Changes what is wanted of a model, resident or not, until the engine ends. One that dies does not forget it.
    pub fn set_wish(&self, id: &str, change: impl FnOnce(&mut Wish)) {
        let mut registry = lock(&self.inner.registry);
        let before = registry.wish(id);
        change(registry.wish_mut(id));
        let now = (registry.wish(id) != before).then(|| registry.wishes().clone());
        drop(registry);
        if let Some(wishes) = now {
            wishes::keep(&self.inner.paths.runtime, &wishes);
        }
        self.inner.bump();
    }

    /// Tells every model to end, those on their way included: the engine ends in good order.
    pub fn unload_all(&self) {
        wishes::forget(&self.inner.paths.runtime);
        self.close();
        // Nothing enters from here on.
        let ids: Vec<String> = lock(&self.inner.registry).entries.keys().cloned().collect();
        for id in ids {
            let _ = self.unload(&id);
        }
    }
}

impl Inner {
    /// Makes an entry for a load, unless the model is there or on its way, or the engine is ending.
    fn enter(&self, registry: &mut Registry, id: &str) -> Option<Arc<Loading>> {
        let is_there = matches!(registry.entries.get(id), Some(Entry::Loading(_) | Entry::Loaded(_)));
        if is_there || self.is_closing.load(Ordering::Relaxed) {
            return None;
        }
        let loading = Arc::new(Loading { wish: registry.wish(id), ..Loading::default() });
        registry.entries.insert(id.to_owned(), Entry::Loading(Arc::clone(&loading)));
        Some(loading)
    }
    /// How a resident is loaded with the context of a wish.
    fn with_context(&self, resident: &Resident, wish: &Wish) -> LoadOptions {
        LoadOptions { context: self.context(wish, &resident.info), ..resident.options }
    }

    /// Whether a model has to leave so that it can be loaded with the context of a wish.
    fn has_to_leave(
        &self,
        registry: &Registry,
        id: &str,
        wish: &Wish,
        devices: &[Device],
    ) -> Result<bool, GenError> {
        let refused = |doing: &str, context: u32, when: &str| {
            let message = format!("`{id}` is {doing} with a context of {context} tokens. {when}");
            GenError::new(GenErrorKind::Refused, message)
        };
        let resident = match registry.entries.get(id) {
            Some(Entry::Loaded(resident)) => resident,
            Some(Entry::Loading(loading)) => {
                let of = |wish: &Wish| wish.context.unwrap_or(self.config.context);
                let context = of(&loading.wish);
                let when = "Load it anew when it is resident, or unload it first";
                return if of(wish) == context {
                    Ok(false)
                } else {
                    Err(refused("being loaded", context, when))
                };
            }
            Some(Entry::Failed(_)) | None => return Ok(false),
        };
        let options = self.with_context(resident, wish);
        if options == resident.options {
            return Ok(false);
        }
        if registry.leases(id) > 0 {
            return Err(refused("answering", resident.options.context, "Load it anew when it is idle"));
        }
        if self.llama.is_pooled(&resident.path) {
            return Ok(true);
        }
        let known = self.known(id, &resident.path, &resident.info, options, resident.draft.as_ref());
        let outlook = self.outlook(registry, devices).without(id);
        let forecast = outlook.forecast(id, &resident.info, options, &known);
        match forecast.verdict {
            Verdict::SmallerContext { .. } | Verdict::DoesNotFit => {
                Err(GenError::new(GenErrorKind::OutOfMemory, forecast.refusal))
            }
            Verdict::Fits | Verdict::IfUnloaded(_) | Verdict::Partial { .. } => Ok(true),
        }
    }
}
