//! What people ask of models: to load, to leave, to stay.

use super::load::EndMark;
use super::registry::{Entry, Loading, Registry, Wish};
use super::{Counted, Host, Inner, lock, wishes};
use crate::chat::{GenError, GenErrorKind};
use crate::engine::llama;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

impl Host {
    /// Starts loading a model unless it is resident or on its way, or the engine is ending. Returns at once.
    pub fn begin_load(&self, id: &str, path: &Path) {
        let loading = self.inner.enter(&mut lock(&self.inner.registry), id);
        if let Some(loading) = loading {
            self.start(id, path, loading);
        }
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
            inner.end_load(&thread_id, &loading, served);
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
        let loading = Arc::new(Loading::default());
        registry.entries.insert(id.to_owned(), Entry::Loading(Arc::clone(&loading)));
        Some(loading)
    }
}
