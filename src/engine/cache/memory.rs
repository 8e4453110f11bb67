//! States in memory: a list with a bound in bytes, least recently used out.

use super::{ModelKey, State, reuse};
use crate::engine::job::TokenId;
use std::sync::Arc;

/// The states in memory.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    states: Vec<Held>,
    clock: u64,
    next_id: u64,
}

#[derive(Debug)]
struct Held {
    id: u64,
    used: u64,
    state: Arc<State>,
}

impl Shelf {
    /// The state that shares the longest beginning with `prompt`: its id, how much of it is used (`most` at
    /// most), and its tokens. Of equals the shortest.
    pub(super) fn best(
        &self,
        model: &ModelKey,
        prompt: &[TokenId],
        most: usize,
    ) -> Option<(u64, usize, usize)> {
        self.states
            .iter()
            .filter(|held| &*held.state.model == model)
            .map(|held| (held.id, reuse(&held.state.tokens, prompt, most), held.state.tokens.len()))
            .max_by_key(|(_, reused, tokens)| (*reused, std::cmp::Reverse(*tokens)))
    }

    pub(super) fn get(&mut self, id: u64) -> Option<Arc<State>> {
        self.clock += 1;
        let held = self.states.iter_mut().find(|held| held.id == id)?;
        held.used = self.clock;
        Some(Arc::clone(&held.state))
    }

    pub(super) fn remove(&mut self, id: u64) -> Option<Arc<State>> {
        let at = self.states.iter().position(|held| held.id == id)?;
        Some(self.states.swap_remove(at).state)
    }

    /// Takes a state in, in the place of earlier ones of the same conversation; gives what had to go for it.
    pub(super) fn put(&mut self, state: Arc<State>, limit: u64) -> Vec<Arc<State>> {
        self.states.retain(|held| !held.state.is_superseded(&state));
        let mut gone = Vec::new();
        while self.used() + state.size() > limit {
            let oldest = self.states.iter().min_by_key(|held| held.used).map(|held| held.id);
            let Some(old) = oldest.and_then(|id| self.remove(id)) else { break };
            gone.push(old);
        }
        self.clock += 1;
        self.next_id += 1;
        self.states.push(Held { id: self.next_id, used: self.clock, state });
        gone
    }

    pub(super) fn forget(&mut self, session: &str) -> usize {
        let before = self.states.len();
        self.states.retain(|held| held.state.session.as_deref() != Some(session));
        before - self.states.len()
    }

    pub(super) fn used(&self) -> u64 {
        self.states.iter().map(|held| held.state.size()).sum()
    }
}
