//! What is remembered of a server between requests: what it is, until it surprises, and what was last heard of its
//! models.

use super::{Identity, Readiness, ladder};
use crate::backend::catalogue::Entry;
use crate::backend::http::{Http, HttpError};
use crate::chat::{GenRequest, Message};
use crate::chat::{ModelState, Role};
use crate::config::BackendKind;
use serde_json::Value;
use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// For which a server is not looked at again that is none of the known kinds.
const GUESS: Duration = Duration::from_secs(60);
/// Counted prompts that are remembered.
const MAX_COUNTED: usize = 8;
/// Descriptions of models that are remembered.
const MAX_DESCRIPTIONS: usize = 512;

/// What was last heard of a model, for guessing how long its first byte may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::backend) struct ModelFacts {
    /// Size of its file in bytes.
    pub(in crate::backend) bytes: Option<u64>,
    /// Whether it was resident.
    pub(in crate::backend) is_resident: bool,
}

/// What is remembered of one server.
#[derive(Debug)]
pub(in crate::backend) struct Known {
    /// What it is by the configuration; then nothing is found out.
    fixed: Option<BackendKind>,
    state: Mutex<State>,
    /// Held by whoever is finding out.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    identity: Option<Identity>,
    /// It is none of the known kinds: taken for one with OpenAI's routes until it is looked at again. Since when.
    guessed: Option<Instant>,
    /// Its lists look unlike its kind's, and that was looked into.
    is_odd: bool,
    models: HashMap<String, ModelFacts>,
    counted: VecDeque<(u64, u32)>,
    descriptions: HashMap<String, Value>,
}

impl Known {
    /// Of a server nothing is known yet but what the configuration says.
    pub(in crate::backend) fn new(fixed: Option<BackendKind>) -> Self {
        let identity = fixed.map(Identity::of);
        let state = Mutex::new(State { identity, ..State::default() });
        Self { fixed, state, asking: tokio::sync::Mutex::new(()) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known, without asking.
    pub(in crate::backend) fn identity(&self) -> Option<Identity> {
        self.state().identity.clone()
    }

    /// What it is; asks unless that is known.
    ///
    /// # Errors
    /// When nobody is there, or a key is wanted.
    pub(in crate::backend) async fn find(&self, http: &Http) -> Result<Identity, HttpError> {
        if let Some(identity) = self.identity() {
            return Ok(identity);
        }
        let _asking = self.asking.lock().await;
        // Somebody else may have found out meanwhile.
        match self.identity() {
            Some(identity) => Ok(identity),
            None => self.ask(http).await,
        }
    }

    /// What it is and whether it can answer now: asks again where that may have changed.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub(in crate::backend) async fn find_now(&self, http: &Http) -> Result<Identity, HttpError> {
        let is_settled = |state: &State| {
            let is_ready = state.identity.as_ref().is_some_and(|known| known.readiness == Readiness::Ready);
            is_ready && state.guessed.is_none_or(|since| since.elapsed() < GUESS)
        };
        if !is_settled(&self.state()) {
            self.forget();
        }
        self.find(http).await
    }

    /// Looks whether it is something else now than it was taken for; returns what it is when it is.
    pub(in crate::backend) async fn replaced(&self, http: &Http) -> Option<Identity> {
        if self.fixed.is_some() {
            return None;
        }
        let before = self.identity();
        self.forget();
        let now = self.find(http).await.ok()?;
        let is_other = before.is_none_or(|before| before.kind != now.kind);
        self.state().is_odd = !is_other;
        is_other.then_some(now)
    }

    async fn ask(&self, http: &Http) -> Result<Identity, HttpError> {
        let found = ladder::climb(http).await?;
        let is_guess = found.is_none();
        let guessed = is_guess.then(Instant::now);
        let identity = found.unwrap_or(Identity::of(BackendKind::Openai));
        tracing::info!(backend = http.backend(), ?identity, is_guess, "a server was looked at");
        let mut state = self.state();
        state.guessed = guessed;
        state.identity = Some(identity.clone());
        Ok(identity)
    }

    /// What is known may be wrong: the next request asks again.
    pub(in crate::backend) fn forget(&self) {
        if self.fixed.is_none() {
            let mut state = self.state();
            state.identity = None;
            state.is_odd = false;
        }
    }

    /// Whether its lists are known to look unlike its kind's.
    pub(in crate::backend) fn is_odd(&self) -> bool {
        self.fixed.is_some() || self.state().is_odd
    }

    /// Remembers what a list told.
    pub(in crate::backend) fn remember(&self, entries: &[Entry]) {
        let facts = |entry: &Entry| ModelFacts {
            bytes: entry.card.bytes,
            is_resident: entry.card.state == ModelState::Loaded,
        };
        self.state().models = entries.iter().map(|e| (e.card.id.clone(), facts(e))).collect();
    }

    /// What was last heard of a model.
    pub(in crate::backend) fn model(&self, id: &str) -> ModelFacts {
        self.state().models.get(id).copied().unwrap_or_default()
    }

    /// Remembers how many tokens a prompt has.
    pub(in crate::backend) fn remember_count(&self, request: &GenRequest, tokens: u32) {
        let key = prompt_key(request);
        let counted = &mut self.state().counted;
        counted.retain(|(known, _)| *known != key);
        counted.truncate(MAX_COUNTED - 1);
        counted.push_front((key, tokens));
    }

    /// How many tokens a prompt has, when it was counted.
    pub(in crate::backend) fn count(&self, request: &GenRequest) -> Option<u32> {
        let state = self.state();
        if state.counted.is_empty() {
            return None;
        }
        let key = prompt_key(request);
        state.counted.iter().find(|(known, _)| *known == key).map(|(_, tokens)| *tokens)
    }

    /// A model's description by its digest.
    pub(in crate::backend) fn description(&self, digest: &str) -> Option<Value> {
        self.state().descriptions.get(digest).cloned()
    }

    /// Remembers a model's description.
    pub(in crate::backend) fn remember_description(&self, digest: &str, description: Value) {
        let descriptions = &mut self.state().descriptions;
        if descriptions.len() >= MAX_DESCRIPTIONS {
            descriptions.clear();
        }
        descriptions.insert(digest.to_owned(), description);
    }
}

/// The same for the same model and messages.
fn prompt_key(request: &GenRequest) -> u64 {
    let mut hasher = DefaultHasher::new();
    request.model.hash(&mut hasher);
    for Message { role, content } in &request.messages {
        let role: u8 = match role {
            Role::System => 0,
            Role::User => 1,
            Role::Assistant => 2,
        };
        role.hash(&mut hasher);
        content.hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::Sampling;

    #[test]
    fn the_last_counts_are_remembered() {
        let known = Known::new(None);
        let request = |text: &str| GenRequest {
            model: "a".to_owned(),
            messages: vec![Message::new(Role::User, text)],
            sampling: Sampling::default(),
            max_tokens: None,
            stop: Vec::new(),
            schema: None,
            session: None,
            is_ahead: false,
        };
        assert_eq!(known.count(&request("0")), None);
        for n in 0..10 {
            known.remember_count(&request(&n.to_string()), n);
        }
        known.remember_count(&request("9"), 90);
        let counts: Vec<Option<u32>> = (0..10).map(|n| known.count(&request(&n.to_string()))).collect();
        assert_eq!(counts[..2], [None, None]);
        assert_eq!((counts[2], counts[9]), (Some(2), Some(90)));
        let other = GenRequest { model: "b".to_owned(), ..request("9") };
        assert_eq!(known.count(&other), None);
    }

    #[test]
    fn what_is_configured_is_not_forgotten() {
        let known = Known::new(Some(BackendKind::Ollama));
        known.forget();
        assert_eq!(known.identity().map(|identity| identity.kind), Some(BackendKind::Ollama));
        assert_eq!(Known::new(None).identity(), None);
    }
}
