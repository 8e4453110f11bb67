//! Asking the last question again: when one key does that, and where it goes.

use super::facts;
use super::story::Story;
use super::turn::{Lane, Phase, Turn};
use super::update::Step;
use crate::chat::{GenKey, LaneId};
use crate::router::{Decision, Facts, Target};

impl Step<'_> {
    /// The retry key: asks a stopped or failed question again, else starts an engine that is down.
    pub(super) fn retry_key(&mut self) {
        if self.ended_badly() {
            self.retry(None);
        } else {
            self.restart_engine();
        }
    }

    /// Asks the last question again, of this target where one is given; the answers so far stay as earlier attempts.
    /// Returns whether it went out.
    pub(super) fn retry(&mut self, on: Option<Target>) -> bool {
        let Some((_, lane)) = self.last_lane() else {
            self.warn("nothing was asked yet");
            return false;
        };
        let lane = lane.id;
        let mut facts = self.retry_facts(lane);
        if let Some(on) = on {
            facts.pin = on;
        }
        let target = if facts.pin.is_open() { &facts.session } else { &facts.pin };
        if let Some(backend) = target.backend.clone() {
            facts::hope(&mut facts, &backend);
        }
        self.ask_again(lane, &facts, Story::default())
    }

    /// A new attempt at a lane of the last turn.
    pub(super) fn ask_again(&mut self, lane: LaneId, facts: &Facts, story: Story) -> bool {
        let Some(decision) = self.decide(facts) else { return false };
        self.attempt_at(lane, &decision, story);
        true
    }

    /// The same, where it is decided already.
    pub(super) fn attempt_at(&mut self, lane: LaneId, decision: &Decision, story: Story) {
        let Some(turn) = self.model.turns.last() else { return };
        let attempts = turn.lanes.iter().filter(|known| known.id == lane).flat_map(|lane| &lane.attempts);
        let attempt = attempts.map(|a| a.key.attempt).max().unwrap_or(0) + 1;
        let key = GenKey { turn: turn.id, lane, attempt };
        self.dismiss_info();
        (self.model.routing.offer, self.model.routing.wait) = (None, None);
        if self.model.fleet.is_engine(&decision.backend) {
            self.restart_engine();
        }
        let request = self.open_attempt(key, decision, story);
        self.start(key, decision.backend.clone(), request);
    }

    /// The last turn and the lane of it that was asked for last.
    pub(super) fn last_lane(&self) -> Option<(&Turn, &Lane)> {
        let turn = self.model.turns.last()?;
        Some((turn, turn.lanes.last()?))
    }

    /// The facts about the question of the last turn, asked once more.
    pub(super) fn last_facts(&self) -> Facts {
        let Some((turn, earlier)) = self.model.turns.split_last() else { return self.model.facts() };
        let mut facts = self.model.facts_of(earlier, turn.user.chars().count());
        for file in turn.fence.iter().flat_map(|fence| &fence.files) {
            if !facts.turn.fenced.contains(file) {
                facts.turn.fenced.push(file.clone());
            }
        }
        // What was lifted for a turn stays lifted for it.
        facts.turn.is_fence_lifted |= turn.fence.as_ref().is_some_and(|fence| fence.is_lifted);
        facts
    }

    /// What the router gets for a retry: it goes where the attempt was, unless the person chose otherwise since.
    fn retry_facts(&self, lane: LaneId) -> Facts {
        let mut facts = self.last_facts();
        let lanes = self.model.turns.last().into_iter().flat_map(|turn| &turn.lanes);
        let mut lanes = lanes.filter(|known| known.id == lane).filter_map(Lane::current);
        let Some(last) = lanes.find(|last| !last.decision.backend.is_empty()) else { return facts };
        let Decision { backend, model, .. } = &last.decision;
        let before = Target { backend: Some(backend.clone()), model: Some(model.clone()) };
        let fits = |wanted: &Option<String>, was: &String| wanted.as_ref().is_none_or(|name| name == was);
        // Whoever asks again wants it asked there, however it is by now.
        let is_away = facts.backends.iter().any(|known| known.name == *backend && known.health.is_away());
        if facts.pin.is_open() && is_away {
            facts.pin = before;
        } else if facts.pin.is_open() {
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
        let last = self.last_lane().and_then(|(_, lane)| lane.current());
        last.is_some_and(|attempt| matches!(attempt.phase, Phase::Stopped | Phase::Interrupted(_)))
    }
}
