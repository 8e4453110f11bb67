//! Asking the last question again: when one key does that, and where it goes.

use super::turn::{Lane, Phase};
use super::update::Step;
use crate::chat::GenKey;
use crate::router::{Decision, Facts, Target, route};

impl Step<'_> {
    /// The retry key: asks a stopped or failed question again, else starts an engine that is down.
    pub(super) fn retry_key(&mut self) {
        if self.ended_badly() { self.retry() } else { self.restart_engine() }
    }

    /// Asks the last question again; the answers so far stay as earlier attempts.
    pub(super) fn retry(&mut self) {
        let last = self.model.turns.last().and_then(|turn| Some((turn.id, turn.lanes.first()?)));
        let Some((turn, lane)) = last else { return self.warn("nothing was asked yet") };
        let attempt = lane.attempts.iter().map(|a| a.key.attempt).max().unwrap_or(0) + 1;
        let key = GenKey { turn, lane: lane.id, attempt };
        let facts = self.retry_facts();
        let decision = match route(&facts) {
            Ok(decision) => decision,
            Err(why) => return self.cannot_go(&facts, &why),
        };
        self.dismiss_info();
        if self.model.fleet.is_engine(&decision.backend) {
            self.restart_engine();
        }
        let request = self.open_attempt(key, &decision);
        self.start(key, decision.backend, request);
    }

    /// What the router gets for a retry: it goes where the attempt was, unless the person chose otherwise since.
    fn retry_facts(&self) -> Facts {
        let mut facts = self.model.facts();
        let lanes = self.model.turns.last().into_iter().flat_map(|turn| &turn.lanes);
        let Some(last) = lanes.filter_map(Lane::current).find(|last| !last.decision.backend.is_empty())
        else {
            return facts;
        };
        let Decision { backend, model, .. } = &last.decision;
        let before = Target { backend: Some(backend.clone()), model: Some(model.clone()) };
        let fits = |wanted: &Option<String>, was: &String| wanted.as_ref().is_none_or(|name| name == was);
        if facts.pin.is_open() {
            facts.session = before;
        } else if fits(&facts.pin.backend, backend) && fits(&facts.pin.model, model) {
            facts.pin = before;
        }
        facts
    }

    /// Whether one key asks again: the last answer was stopped or failed, or the engine is down.
    pub(super) fn is_retryable(&self) -> bool {
        if self.running().is_some() {
            return false;
        }
        self.ended_badly() || self.is_engine_down()
    }

    /// Whether the last answer was stopped or failed.
    fn ended_badly(&self) -> bool {
        let lanes = self.model.turns.last().into_iter().flat_map(|turn| &turn.lanes);
        let mut current = lanes.filter_map(Lane::current);
        current.any(|attempt| matches!(attempt.phase, Phase::Stopped | Phase::Interrupted(_)))
    }
}
