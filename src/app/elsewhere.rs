//! Answers by another machine: a turn that moves before its first text, an answer that is finished or asked for once
//! more elsewhere, and which of several counts.
//!
//! Nothing is joined silently: each attempt has a receipt of its own, and says whose text it goes on from.

use super::effect::{Effect, TimerId};
use super::facts;
use super::generate::{Returned, TAKEN_BACK};
use super::routing::{Offer, Wait};
use super::story::Story;
use super::turn::{Attempt, Lane, Phase};
use super::update::Step;
use crate::chat::record::StoreJob;
use crate::chat::{Finish, GenError, GenKey, LaneId};
use crate::config::{BackendKind, Fallback};
use crate::router::{Decision, Facts, Target};
use std::time::Duration;

/// The longest time between two looks for a machine that is waited for, in seconds.
const LONGEST_WAIT: u64 = 30;
/// Answers to one question at most.
const MOST_LANES: usize = 8;

impl Step<'_> {
    /// A generation failed. Before its first text the turn may move: returns whether it did.
    pub(super) fn failed_over(&mut self, key: GenKey, error: &GenError) -> bool {
        let now = self.ctx.now;
        let Some(attempt) = self.attempt(key) else { return false };
        let (from, is_silent) = (attempt.decision.backend.clone(), !attempt.has_text());
        let goes_on = attempt.story.continues;
        if let Some(backend) = self.model.fleet.backends.iter_mut().find(|backend| backend.name == from) {
            backend.circuit.failed(error.kind, now);
        }
        let rule = self.model.routing.rules.fallback;
        let is_last = self.last_lane().is_some_and(|(turn, lane)| (turn.id, lane.id) == (key.turn, key.lane));
        if !is_last || !facts::may_move(error.kind) {
            return false;
        }
        // An answer that is finished elsewhere is the person's choice each time.
        let may_move = is_silent && goes_on.is_none();
        if is_silent && (!may_move || rule == Fallback::Never) {
            return false;
        }
        let Some(decision) = self.other(key.lane) else { return false };
        // Whoever named a machine is asked before it is another one.
        let is_named = self.model.prefs.pin.backend.is_some();
        if may_move && rule == Fallback::Auto && !is_named {
            let story = Story { fallback_from: Some(from), ..Story::default() };
            self.attempt_at(key.lane, &decision, story);
            return true;
        }
        self.model.routing.offer = Some(Offer { key, decision, is_cut: !is_silent });
        false
    }

    /// Whether another machine is offered for the whole turn.
    pub(super) fn is_offered(&self) -> bool {
        self.model.routing.offer.as_ref().is_some_and(|offer| !offer.is_cut)
    }

    /// The offer is taken.
    pub(super) fn fall_back(&mut self) {
        let Some(Offer { key, decision, .. }) = self.model.routing.offer.take() else { return };
        let Some(attempt) = self.attempt(key) else { return };
        let story = Story { fallback_from: Some(attempt.decision.backend.clone()), ..Story::default() };
        self.attempt_at(key.lane, &decision, story);
    }

    /// The turn waits until its machine is back.
    pub(super) fn wait_for_it(&mut self) {
        let Some(Offer { key, .. }) = self.model.routing.offer.take() else { return };
        let Some(attempt) = self.attempt(key) else { return };
        let backend = attempt.decision.backend.clone();
        self.info(&format!(
            "waiting for {backend}: the question goes there once it answers; esc gives that up"
        ));
        self.model.routing.wait = Some(Wait { turn: key.turn, lane: key.lane, backend, tries: 0 });
        self.look_for_it();
    }

    /// Looks whether the machine that is waited for is back.
    pub(super) fn look_for_it(&mut self) {
        let Some(wait) = &mut self.model.routing.wait else { return };
        let backend = wait.backend.clone();
        let seconds = 1_u64.checked_shl(wait.tries).unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT);
        wait.tries = wait.tries.saturating_add(1);
        self.effect(Effect::ListModels { backend });
        self.effect(Effect::Timer { id: TimerId::Wait, after: Duration::from_secs(seconds) });
    }

    /// A machine answers: a turn that waits for it goes out.
    pub(super) fn is_back(&mut self, backend: &str) {
        let Some(wait) = self.model.routing.wait.take_if(|wait| wait.backend == backend) else { return };
        let is_last = self.last_lane().is_some_and(|(turn, _)| turn.id == wait.turn);
        if is_last && self.running().is_none() {
            let mut facts = self.last_facts();
            facts.pin.backend = Some(wait.backend);
            self.ask_again(wait.lane, &facts, Story::default());
        }
    }

    /// Esc on an offer, or while waiting: the question goes back into the composer. Returns whether there was one.
    pub(super) fn keep_draft(&mut self) -> bool {
        let routing = &mut self.model.routing;
        let offer = routing.offer.take();
        if offer.as_ref().is_some_and(|offer| offer.is_cut) {
            return false;
        }
        let offered = offer.map(|offer| (offer.key.turn, offer.key.lane));
        let waited = routing.wait.take().map(|wait| (wait.turn, wait.lane));
        let Some((turn, lane)) = offered.or(waited) else { return false };
        let is_bare = self.last_lane().is_some_and(|(last, only)| {
            (last.id, only.id, last.lanes.len()) == (turn, lane, 1)
                && only.attempts.iter().all(|attempt| !attempt.has_text())
        });
        if is_bare && self.drop_turn(turn) == Returned::No {
            self.info(TAKEN_BACK);
        }
        true
    }

    /// Where the question of the last turn could go, when not to those its lane was tried on already.
    fn other(&self, lane: LaneId) -> Option<Decision> {
        let attempts = self.model.turns.last()?.lanes.iter().filter(|known| known.id == lane);
        let tried: Vec<&str> =
            attempts.flat_map(|lane| &lane.attempts).map(|a| a.decision.backend.as_str()).collect();
        self.without(&tried).ok()
    }

    /// Where the question of the last turn could go, when not to these backends.
    fn without(&self, not: &[&str]) -> Result<Decision, String> {
        facts::elsewhere(self.last_facts(), not)
    }

    /// `/continue`: the answer that was cut is finished, on this target or another machine.
    pub(super) fn continue_on(&mut self, on: Option<Target>) -> bool {
        let Some((_, lane)) = self.last_lane() else {
            self.warn("nothing was asked yet");
            return false;
        };
        let (id, cut) = (lane.id, lane.current().cloned());
        let Some(cut) = cut.filter(|_| self.is_cut()) else {
            self.warn("there is no answer that was cut: /retry asks again");
            return false;
        };
        if let Some(lane) = self.lane(cut.key)
            && lane.parts().iter().any(|part| !part.thinking.is_empty())
        {
            self.warn("the model was thinking before it answered, and that can't be gone on with elsewhere: r asks again");
            return false;
        }
        let mut facts = self.last_facts();
        match on {
            Some(on) => facts.pin = on,
            None => {
                let Decision { backend, model, .. } = self.elsewhere(&cut).unwrap_or(cut.decision.clone());
                facts.pin = Target { backend: Some(backend), model: Some(model) };
            }
        }
        let Some(decision) = self.decide(&facts) else { return false };
        if let Err(why) = self.can_continue(&decision.backend) {
            self.warn(&why);
            return false;
        }
        self.attempt_at(id, &decision, Story { continues: Some(cut.key.attempt), ..Story::default() });
        true
    }

    /// Where a cut answer is finished when nobody says where: on another machine if its own failed.
    fn elsewhere(&self, cut: &Attempt) -> Option<Decision> {
        let offered = self.model.routing.offer.as_ref().filter(|offer| offer.key == cut.key);
        if let Some(offer) = offered {
            return Some(offer.decision.clone());
        }
        let is_failed = matches!(cut.phase, Phase::Interrupted(_));
        is_failed.then(|| self.without(&[&cut.decision.backend]).ok()).flatten()
    }

    /// Whether a server goes on from half an answer.
    fn can_continue(&self, name: &str) -> Result<(), String> {
        let backend = self.model.fleet.backends.iter().find(|backend| backend.name == name);
        let kind = backend.filter(|backend| !backend.is_engine).and_then(|backend| backend.setup.kind);
        match kind {
            None
            | Some(
                BackendKind::Duet | BackendKind::LlamaServer | BackendKind::LlamaSwap | BackendKind::Ollama,
            ) => Ok(()),
            Some(kind) => Err(format!(
                "{name} is {}, which begins a new answer after half a one: /retry --on {name} asks it anew",
                kind.words()
            )),
        }
    }

    /// Whether the last answer has text and was cut: by a failure, by the person, or by its length.
    pub(super) fn is_cut(&self) -> bool {
        if self.running().is_some() {
            return false;
        }
        let Some((_, lane)) = self.last_lane() else { return false };
        let is_cut = lane.current().is_some_and(|attempt| {
            matches!(attempt.phase, Phase::Interrupted(_) | Phase::Stopped | Phase::Done(Finish::Length))
        });
        is_cut && lane.parts().iter().any(|part| !part.answer.is_empty())
    }

    /// `/escalate`: the same question to another machine; its answer stands below the first one.
    pub(super) fn escalate(&mut self, on: Option<Target>) -> bool {
        let Some(turn) = self.model.turns.last() else {
            self.warn("nothing was asked yet");
            return false;
        };
        let Some(answer) = turn.answer().and_then(Lane::current) else {
            self.warn("there is no answer to compare with: /retry asks again");
            return false;
        };
        if turn.lanes.len() >= MOST_LANES {
            self.warn("that question has enough answers: /keep chooses one of them");
            return false;
        }
        let next = turn.lanes.iter().map(|lane| lane.id.0).max().unwrap_or(0) + 1;
        let decision = match on {
            Some(on) => {
                let facts = Facts { pin: on, ..self.last_facts() };
                self.decide(&facts)
            }
            None => match self.without(&[&answer.decision.backend]) {
                Ok(decision) => Some(decision),
                Err(why) => {
                    self.bad(&why);
                    None
                }
            },
        };
        let Some(decision) = decision else { return false };
        if let Some(turn) = self.model.turns.last_mut() {
            turn.kept = None;
        }
        self.attempt_at(LaneId(next), &decision, Story::default());
        true
    }

    /// Whether the last turn has several answers, none of them chosen, and nothing runs.
    pub(super) fn is_undecided(&self) -> bool {
        self.running().is_none() && self.model.turns.last().is_some_and(super::turn::Turn::is_undecided)
    }

    /// Keeps one of the last turn's answers, by its number on the screen from 1; the others are no context.
    pub(super) fn keep(&mut self, number: usize) -> bool {
        let Some(turn) = self.model.turns.last_mut().filter(|turn| turn.lanes.len() > 1) else {
            self.warn("there is one answer: /escalate asks another machine as well");
            return false;
        };
        let count = turn.lanes.len();
        let lane = number.checked_sub(1).and_then(|at| turn.lanes.get(at)).filter(|lane| lane.counts());
        let Some(lane) = lane.map(|lane| lane.id) else {
            self.bad(&format!("no complete answer {number}: there are 1 to {count}"));
            return false;
        };
        turn.kept = Some(lane);
        let id = turn.id;
        let session = self.model.session.id.clone();
        self.store(StoreJob::KeepLane { session, turn: id, lane });
        self.info(&format!("answer {number} counts; the others stay to look at"));
        true
    }

    /// A backend completed an answer.
    pub(super) fn completed(&mut self, name: &str) {
        if let Some(backend) = self.model.fleet.backends.iter_mut().find(|backend| backend.name == name) {
            backend.circuit.succeeded();
        }
    }
}
