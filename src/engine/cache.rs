//! Conversations that left their slot: states of the KV cache in memory and on disk.
//!
//! A state is what llama.cpp says of one sequence, with the tokens it stands for. It is kept in memory when its slot is
//! needed for something else, and written to disk when the conversation has a session of its own: so that a
//! session reopened tomorrow does not prefill yesterday again. Both places are bounded in bytes; what was
//! used longest ago goes first, from memory to disk, from disk for good. Knows nothing of llama.cpp.

mod disk;
mod file;
mod identity;
mod memory;

pub use crate::chat::CachePlace as Place;
pub use identity::{ModelKey, model_key};

use super::job::TokenId;
use super::prefix::common_prefix;
use disk::Disk;
use memory::Shelf;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

/// Conversations with fewer tokens than this are computed anew: that is as quick.
pub const LEAST_TOKENS: usize = 64;
/// How many tokens more than anything else a state must save before it is taken.
const LEAST_GAIN: usize = 32;
/// A state is taken when at least one part in this many of it is used.
const LEAST_SHARE: usize = 8;

/// How much is kept, in bytes; 0 keeps nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// In memory.
    pub memory: u64,
    /// On disk.
    pub disk: u64,
}

/// One conversation's part of a KV cache.
#[derive(Debug, PartialEq, Eq)]
pub struct State {
    /// Which model, and how it was set up.
    pub model: Arc<ModelKey>,
    /// The tokens it stands for.
    pub tokens: Vec<TokenId>,
    /// The session it belongs to; without one it never goes to disk.
    pub session: Option<Arc<str>>,
    /// llama.cpp's bytes.
    pub bytes: Vec<u8>,
}

impl State {
    /// Bytes of memory it takes.
    fn size(&self) -> u64 {
        (self.bytes.len() + size_of_val(self.tokens.as_slice())) as u64
    }

    /// Whether `newer` makes this one superfluous: the same conversation, a little further on.
    fn is_superseded(&self, newer: &Self) -> bool {
        is_superseded((&self.model, &self.tokens, self.session.as_deref()), newer)
    }
}

fn is_superseded(old: (&ModelKey, &[TokenId], Option<&str>), newer: &State) -> bool {
    let (model, tokens, session) = old;
    let same = common_prefix(tokens, &newer.tokens);
    // Without a session two conversations with one long beginning look alike.
    let is_same = if session.is_some() { same * 4 >= tokens.len() * 3 } else { same == tokens.len() };
    is_same && model == &*newer.model && session == newer.session.as_deref()
}

/// A state that begins like a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// Where it is.
    pub place: Place,
    /// How many tokens of the prompt it spares.
    pub reused: usize,
    /// How many tokens it has.
    pub tokens: usize,
    which: Which,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Which {
    Memory(u64),
    Disk(PathBuf),
}

/// The states of all models. Clones share them.
#[derive(Clone, Debug)]
pub struct Cache {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    limits: Limits,
    shelf: Mutex<Shelf>,
    disk: Disk,
}

/// A state on its way from disk.
#[derive(Debug)]
pub struct Fetch {
    what: Match,
    state: Receiver<Option<Arc<State>>>,
}

impl Fetch {
    /// What was asked for.
    #[must_use]
    pub fn what(&self) -> &Match {
        &self.what
    }

    /// The state once it is there, none where it turned out to be no good; an error while it is being read.
    ///
    /// # Errors
    /// It is still being read.
    pub fn poll(&self) -> Result<Option<Arc<State>>, StillReading> {
        match self.state.try_recv() {
            Ok(state) => Ok(state),
            Err(TryRecvError::Empty) => Err(StillReading),
            Err(TryRecvError::Disconnected) => Ok(None),
        }
    }

    /// Waits for it.
    #[must_use]
    pub fn wait(&self) -> Option<Arc<State>> {
        self.state.recv().ok().flatten()
    }
}

/// A state is still being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StillReading;

impl Cache {
    /// A cache that writes to `folder`, which is made when it is needed, private to the user.
    #[must_use]
    pub fn new(folder: PathBuf, limits: Limits) -> Self {
        let inner = Inner { limits, shelf: Mutex::default(), disk: Disk::new(folder, limits.disk) };
        Self { inner: Arc::new(inner) }
    }

    /// Whether states of a conversation without a session have a place.
    #[must_use]
    pub fn keeps_in_memory(&self) -> bool {
        self.inner.limits.memory > 0
    }

    /// How much is kept in memory, in bytes.
    #[must_use]
    pub fn memory_limit(&self) -> u64 {
        self.inner.limits.memory
    }

    /// Whether states of a session have a place on disk.
    #[must_use]
    pub fn keeps_on_disk(&self) -> bool {
        self.inner.limits.disk > 0
    }

    /// The state that spares most of `prompt`, if one spares clearly more than the `already` tokens that
    /// are had without it. At least one token of the prompt is left.
    #[must_use]
    pub fn find(&self, model: &ModelKey, prompt: &[TokenId], already: usize) -> Option<Match> {
        let most = prompt.len().saturating_sub(1);
        let is_worth =
            |reused: usize, tokens: usize| reused >= already + LEAST_GAIN && reused * LEAST_SHARE >= tokens;
        let in_memory = self.inner.shelf().best(model, prompt, most);
        let in_memory = in_memory.filter(|(_, reused, tokens)| is_worth(*reused, *tokens));
        let on_disk = self.inner.disk.best(model, prompt, most);
        let on_disk = on_disk.filter(|(_, reused, tokens)| is_worth(*reused, *tokens));
        match (in_memory, on_disk) {
            (Some((id, reused, tokens)), on_disk) if on_disk.as_ref().is_none_or(|d| d.1 <= reused) => {
                Some(Match { place: Place::Memory, reused, tokens, which: Which::Memory(id) })
            }
            (_, Some((path, reused, tokens))) => {
                Some(Match { place: Place::Disk, reused, tokens, which: Which::Disk(path) })
            }
            (_, None) => None,
        }
    }

    /// A state that was found. None when it is gone, or when its file is not what it should be; such a file is deleted.
    #[must_use]
    pub fn get(&self, found: &Match, model: &Arc<ModelKey>) -> Option<Arc<State>> {
        match &found.which {
            Which::Memory(id) => self.inner.shelf().get(*id),
            Which::Disk(path) => self.inner.disk.read(path, model),
        }
    }

    /// Reads a state on another thread, because somebody would have to wait for it on this one.
    #[must_use]
    pub fn fetch(&self, found: Match, model: &Arc<ModelKey>) -> Fetch {
        let (sender, state) = mpsc::channel();
        let (cache, model, what) = (self.clone(), Arc::clone(model), found.clone());
        let read = move || {
            let _ = sender.send(cache.get(&found, &model));
        };
        // Without a thread the channel is closed, and the prompt computed anew.
        if let Err(error) = std::thread::Builder::new().name("cache-read".to_owned()).spawn(read) {
            tracing::warn!(%error, "no thread to read a saved conversation");
        }
        Fetch { what, state }
    }

    /// A state that llama.cpp did not take: it is of no use to anybody.
    pub fn discard(&self, found: &Match) {
        match &found.which {
            Which::Memory(id) => drop(self.inner.shelf().remove(*id)),
            Which::Disk(path) => self.inner.disk.remove(path),
        }
    }

    /// Keeps a state whose slot is needed for something else. It goes to disk when memory has no more room.
    pub fn keep(&self, state: State) {
        let state = Arc::new(state);
        if state.size() > self.inner.limits.memory {
            return self.inner.disk.write(state);
        }
        self.inner.put(state);
    }

    /// Writes a state to disk, while its conversation may go on.
    pub fn write(&self, state: State) {
        self.inner.disk.write(Arc::new(state));
    }

    /// Keeps a state in memory and on disk: its model is being unloaded.
    pub fn keep_and_write(&self, state: State) {
        let state = Arc::new(state);
        if state.size() <= self.inner.limits.memory {
            self.inner.put(Arc::clone(&state));
        }
        self.inner.disk.write(state);
    }

    /// Forgets a session, in memory and on disk; returns how many states that were.
    #[must_use]
    pub fn forget(&self, session: &str) -> usize {
        let in_memory = self.inner.shelf().forget(session);
        in_memory + self.inner.disk.forget(session)
    }

    /// Waits until everything is written, for at most this long.
    pub fn flush(&self, patience: Duration) {
        self.inner.disk.flush(Instant::now() + patience);
    }

    /// Bytes in memory and on disk.
    #[must_use]
    pub fn used(&self) -> (u64, u64) {
        let in_memory = self.inner.shelf().used();
        (in_memory, self.inner.disk.used())
    }
}

impl Inner {
    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, state: Arc<State>) {
        // What leaves the one place is in the other before somebody else looks: a session is forgotten in this order.
        let mut shelf = self.shelf();
        for old in shelf.put(state, self.limits.memory) {
            self.disk.write(old);
        }
    }
}

/// How much of `prompt` a list of tokens spares, `most` at most.
fn reuse(tokens: &[TokenId], prompt: &[TokenId], most: usize) -> usize {
    common_prefix(tokens, prompt).min(most)
}

#[cfg(test)]
mod tests;
