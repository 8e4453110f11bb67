//! What is known of backends and models: taking news in, and what the router and a request need of it.

use super::effect::Effect;
use super::model::{BackendView, EngineView, Fleet, Prefs, Restart};
use super::msg::EngineNews;
use super::notice::one_line;
use super::turn::Phase;
use super::update::Step;
use crate::chat::{GenErrorKind, Listing, ModelCard, ModelState, Sampling};
use crate::config::BackendKind;
use crate::router::Decision;
use crate::text::{shown, shown_line};
use std::time::Duration;

/// How long a machine that is away has to answer before it is looked for once more.
const LOOK_FOR: Duration = Duration::from_secs(10);
/// How old news of what is around may be.
const LOOK: Duration = Duration::from_secs(60);

impl Fleet {
    /// What is known of a model.
    pub(super) fn card(&self, backend: &str, model: &str) -> Option<&ModelCard> {
        let backend = self.backends.iter().find(|b| b.name == backend)?;
        backend.models.iter().find(|card| card.id == model)
    }

    /// Whether a model makes embeddings, not text; on any backend where none is named.
    pub(super) fn embeds(&self, backend: Option<&str>, model: &str) -> bool {
        let mut named = self.backends.iter().filter(|b| backend.is_none_or(|name| b.name == name));
        let holds = |b: &BackendView| b.models.iter().any(|card| card.id == model);
        named.find(|b| holds(b)).is_some_and(|b| b.embedders.iter().any(|id| id == model))
    }

    /// Whether a backend is the engine of this machine.
    pub(super) fn is_engine(&self, backend: &str) -> bool {
        self.backends.iter().any(|b| b.name == backend && b.is_engine)
    }

    /// The sampling of a request: what was asked for, gaps filled with the model's default.
    pub(super) fn sampling(&self, prefs: &Prefs, decision: &Decision) -> Sampling {
        let is_builtin = match self.card(&decision.backend, &decision.model) {
            Some(card) => card.is_builtin,
            // Not heard of yet: the engine's default model is the built-in one.
            None => self.backends.iter().any(|b| {
                b.is_engine && b.name == decision.backend && b.default_model.as_ref() == Some(&decision.model)
            }),
        };
        prefs.sampling.or(Sampling::default_for(is_builtin))
    }
}

impl Step<'_> {
    /// The models of a backend, or why they could not be had: then those known before stay.
    pub(super) fn models(&mut self, name: &str, result: Result<Listing, String>) {
        let Some(backend) = self.model.fleet.backends.iter_mut().find(|b| b.name == name) else { return };
        match result {
            Ok(listing) => {
                backend.models = listing.cards;
                backend.residency = listing.residency;
                backend.embedders = listing.embedders;
                backend.heard_at = self.ctx.now;
                backend.trouble = None;
            }
            Err(why) => backend.trouble = Some(shown_line(&one_line(&why), 400)),
        }
        self.keep_asked(name);
        self.refresh_models();
        self.refresh_board(name);
    }

    /// What a backend has shown to be.
    pub(super) fn met(
        &mut self,
        name: &str,
        kind: Option<BackendKind>,
        rtt_ms: Option<f64>,
        wake_ms: Option<f64>,
    ) {
        let Some(backend) = self.model.fleet.backends.iter_mut().find(|b| b.name == name) else { return };
        backend.setup.kind = kind.or(backend.setup.kind);
        backend.rtt_ms = rtt_ms.or(backend.rtt_ms);
        backend.wake_ms = wake_ms.or(backend.wake_ms);
    }

    /// A backend was asked for something small: it answered, or it did not.
    pub(super) fn probed(&mut self, name: &str, result: Result<Duration, GenErrorKind>) {
        let now = self.ctx.now;
        let Some(backend) = self.model.fleet.backends.iter_mut().find(|b| b.name == name) else { return };
        match result {
            Ok(took) => {
                backend.circuit.connected();
                // A list takes longer than a round trip: it stands in only until that was measured.
                backend.rtt_ms.get_or_insert(took.as_secs_f64() * 1000.0);
                self.is_back(name);
            }
            // A list that is refused, or nonsense, says nothing about answers.
            Err(kind @ (GenErrorKind::Unreachable | GenErrorKind::Auth | GenErrorKind::Untrusted)) => {
                backend.circuit.failed(kind, now);
            }
            Err(_) => {}
        }
    }

    /// How things stand around this machine.
    pub(super) fn around(&mut self, on_battery: bool, utc_offset_s: i32) {
        let around = &mut self.model.routing.around;
        (around.on_battery, around.utc_offset_s) = (on_battery, utc_offset_s);
        around.looked_at = Some(self.ctx.now);
    }

    /// The person begins to type: what may be old news is asked for again, where there is a choice to make.
    pub(super) fn look_around(&mut self) {
        let now = self.ctx.now;
        if self.model.fleet.backends.len() < 2 {
            return;
        }
        let around = &mut self.model.routing.around;
        if around.looked_at.is_none_or(|at| at + LOOK <= now) {
            around.looked_at = Some(now);
            self.effect(Effect::LookAround);
        }
        let is_due = |backend: &&mut BackendView| {
            let is_time = backend.circuit.next_try(now).is_some_and(|at| at <= now);
            is_time && backend.looked_for.is_none_or(|at| at + LOOK_FOR <= now)
        };
        let due = self.model.fleet.backends.iter_mut().filter(is_due);
        let due: Vec<String> = due
            .map(|backend| {
                backend.looked_for = Some(now);
                backend.name.clone()
            })
            .collect();
        for backend in due {
            self.effect(Effect::ListModels { backend });
        }
    }

    /// This machine was asleep: the others may have gone or come meanwhile.
    pub(super) fn woken(&mut self) {
        for backend in &mut self.model.fleet.backends {
            if backend.circuit.next_try(self.ctx.now).is_some() {
                backend.circuit.reset();
            }
        }
        let others = self.model.fleet.backends.iter().filter(|backend| !backend.is_engine);
        let others: Vec<String> = others.map(|backend| backend.name.clone()).collect();
        for backend in others {
            self.effect(Effect::ListModels { backend });
        }
        if self.model.fleet.backends.len() > 1 {
            self.effect(Effect::LookAround);
        }
    }

    /// News of this machine's engine. After its death it is started again once by itself, with its models.
    pub(super) fn engine(&mut self, news: EngineNews) {
        match news {
            EngineNews::Starting => self.model.fleet.engine = EngineView::Starting,
            EngineNews::Ready => {
                self.model.fleet.engine = EngineView::Ready;
                self.model.pending.residents.clear();
                self.restart_over();
            }
            EngineNews::Died { message, residents } => self.engine_died(&message, residents),
            EngineNews::Stopped => {
                self.forget_residents();
                self.model.fleet.engine = EngineView::Unknown;
                self.info("the engine was stopped; the next question starts it again");
            }
            EngineNews::Failed { message } => {
                let residents = self.model.pending.residents.clone();
                self.restart_over();
                self.engine_down(&message, residents);
                self.bad(&format!("the engine does not start: {message}\nr tries again"));
            }
        }
    }

    /// A model that answers is resident, whatever was heard of it before.
    pub(super) fn answers(&mut self, backend: &str, model: &str) {
        let backends = self.model.fleet.backends.iter_mut().filter(|known| known.name == backend);
        for card in backends.flat_map(|known| &mut known.models).filter(|card| card.id == model) {
            if card.state != ModelState::Unknown {
                card.state = ModelState::Loaded;
            }
        }
    }

    /// Nothing is loaded any more on this machine.
    fn forget_residents(&mut self) {
        let fleet = &self.model.fleet;
        self.model.pending.asked.retain(|asked| !fleet.is_engine(&asked.backend));
        for backend in self.model.fleet.backends.iter_mut().filter(|b| b.is_engine) {
            for card in &mut backend.models {
                if matches!(card.state, ModelState::Loaded | ModelState::Loading { .. }) {
                    card.state = ModelState::Unloaded;
                }
            }
            backend.residency.clear();
            backend.machine = None;
            let name = &backend.name;
            self.model.routing.sent.retain(|sent| sent.backend != *name);
        }
        self.refresh_models();
    }

    fn engine_died(&mut self, message: &str, residents: Vec<String>) {
        self.forget_residents();
        self.model.pending.residents.clone_from(&residents);
        self.engine_down(message, residents);
        // What the turn says is not said twice; the message names the engine and how it ended.
        let is_in_turn = self.lost_a_turn();
        match self.model.pending.restart {
            Restart::Untried => {
                if is_in_turn {
                    self.warn("engine restarted · r retry");
                } else {
                    self.warn(message);
                }
                self.restart_engine();
            }
            Restart::UnderWay | Restart::Tried => {
                self.restart_over();
                let what = if is_in_turn { "engine ended again" } else { message };
                self.bad(&format!("{what}\nr starts it once more"));
            }
        }
    }

    /// Starts an engine that is down, with its models, unless that is under way.
    pub(super) fn restart_engine(&mut self) {
        if self.is_engine_down()
            && let EngineView::Down { residents, .. } = &self.model.fleet.engine
        {
            let models = residents.clone();
            self.model.pending.restart = Restart::UnderWay;
            self.effect(Effect::RestartEngine { models });
        }
    }

    /// Whether the engine is down and stays so.
    pub(super) fn is_engine_down(&self) -> bool {
        let is_down = matches!(self.model.fleet.engine, EngineView::Down { .. });
        is_down && self.model.pending.restart != Restart::UnderWay
    }

    fn restart_over(&mut self) {
        if self.model.pending.restart == Restart::UnderWay {
            self.model.pending.restart = Restart::Tried;
        }
    }

    fn engine_down(&mut self, message: &str, residents: Vec<String>) {
        self.model.fleet.engine = EngineView::Down { message: shown(message), residents };
    }

    /// Whether the last turn was taken by the engine's death: it runs there still, or failed of it.
    fn lost_a_turn(&self) -> bool {
        let lanes = self.model.turns.last().into_iter().flat_map(|turn| &turn.lanes);
        lanes.filter_map(|lane| lane.current()).any(|attempt| {
            let died = |kind| matches!(kind, GenErrorKind::EngineDied | GenErrorKind::Protocol);
            let is_lost = match &attempt.phase {
                Phase::Interrupted(error) => died(error.kind),
                Phase::Done(_) | Phase::Stopped => false,
                _ => true,
            };
            is_lost && self.model.fleet.is_engine(&attempt.decision.backend)
        })
    }
}
