//! Getting ready while the person types: the target's model is loaded and the conversation prefilled with the draft so
//! far, so that Enter costs the last few words alone. Sending ends it at once; nothing leaves memory for it.

use super::effect::{Effect, TimerId};
use super::history;
use super::model::Model;
use super::update::Step;
use crate::chat::{GenEvent, GenRequest, Message, ModelState, Role, SessionId};
use crate::config::{BackendKind, WarmConfig};
use crate::router::{Decision, route};
use std::time::Duration;

/// What is known of getting ready.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Warm {
    /// The person's rules; none: it is never done.
    pub rules: Option<WarmConfig>,
    /// What was got ready last, or is being.
    pub last: Option<Warmed>,
}

/// A target that was got ready, or is being.
#[derive(Clone, Debug, PartialEq)]
pub struct Warmed {
    /// The backend.
    pub backend: String,
    /// The model.
    pub model: String,
    /// The conversation.
    pub session: SessionId,
    /// How many turns it had.
    pub turns: usize,
    /// The draft, without what was pasted into it.
    pub draft: String,
    /// How far it is.
    pub stage: Stage,
}

/// How far getting ready is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Stage {
    /// It was asked for.
    Asked,
    /// The model is being loaded: 0 to 1.
    Loading(f32),
    /// The prompt is being evaluated: 0 to 1.
    Prefilling(f32),
    /// It is ready; these are the tokens of the prompt, where the server said so.
    Ready(Option<u32>),
    /// It came to nothing.
    Refused,
}

impl Warm {
    /// What is under way for a backend: what it does, and how far it is, 0 to 1.
    #[must_use]
    pub fn under_way(&self, backend: &str) -> Option<(&'static str, f32)> {
        let last = self.last.as_ref().filter(|last| last.backend == backend)?;
        match last.stage {
            Stage::Asked => Some(("warming", 0.0)),
            Stage::Loading(fraction) => Some(("loading", fraction)),
            Stage::Prefilling(fraction) => Some(("warming", fraction)),
            Stage::Ready(_) | Stage::Refused => None,
        }
    }

    /// Tokens a model has in its cache because it was got ready for the next question of this conversation.
    #[must_use]
    pub fn tokens(&self, backend: &str, model: &str, session: &SessionId, turns: usize) -> Option<u32> {
        let last = self.last.as_ref()?;
        let is_it =
            last.backend == backend && last.model == model && last.session == *session && last.turns == turns;
        match last.stage {
            Stage::Ready(tokens) if is_it => tokens,
            _ => None,
        }
    }
}

impl Step<'_> {
    /// The draft has changed. The first characters load the model and prefill the conversation; a pause in typing, the
    /// draft as well.
    pub(super) fn typed(&mut self) {
        let Some(rules) = &self.model.routing.warm.rules else { return };
        let pause = Duration::from_millis(rules.pause_ms);
        let Some(target) = self.to_warm() else { return };
        if !self.has_begun(&target) {
            self.warm_up(target);
        }
        self.effect(Effect::Timer { id: TimerId::Warm, after: pause });
    }

    /// The person has paused.
    pub(super) fn paused(&mut self) {
        let Some(target) = self.to_warm() else { return };
        let draft = self.model.composer.buffer.text();
        if !self.has_begun(&target)
            || self.model.routing.warm.last.as_ref().is_some_and(|last| last.draft != draft)
        {
            self.warm_up(target);
        }
    }

    /// A question is sent: whatever is being got ready ends.
    pub(super) fn stop_warming(&mut self) {
        let warm = &mut self.model.routing.warm;
        if warm.rules.is_some() && warm.last.take().is_some() {
            self.effect(Effect::StopWarming);
        }
    }

    /// News of what is being got ready.
    pub(super) fn warmed(&mut self, backend: &str, event: &GenEvent) {
        let Some(last) = self.model.routing.warm.last.as_mut().filter(|last| last.backend == backend) else {
            return;
        };
        match event {
            GenEvent::Loading { fraction } => last.stage = Stage::Loading(*fraction),
            GenEvent::Prefill { done, total, .. } => {
                last.stage = Stage::Prefilling(share(*done, *total));
            }
            GenEvent::Usage(usage) => last.stage = Stage::Ready(usage.prompt_tokens),
            GenEvent::Done { timings, .. } => {
                let told = timings.and_then(|timings| Some(timings.prompt_n? + timings.cache_n.unwrap_or(0)));
                if !matches!(last.stage, Stage::Ready(Some(_))) {
                    last.stage = Stage::Ready(told);
                }
            }
            // The question itself will say what is wrong, if it still is.
            GenEvent::Failed(_) => last.stage = Stage::Refused,
            GenEvent::Accepted
            | GenEvent::Queued { .. }
            | GenEvent::Delta { .. }
            | GenEvent::Produced { .. }
            | GenEvent::Note(_) => {}
        }
    }

    fn has_begun(&self, target: &Decision) -> bool {
        let model = &*self.model;
        model.routing.warm.last.as_ref().is_some_and(|last| {
            last.backend == target.backend
                && last.model == target.model
                && last.session == model.session.id
                && last.turns == model.turns.len()
        })
    }

    /// Where the draft would go, if that may be got ready.
    fn to_warm(&self) -> Option<Decision> {
        let model = &*self.model;
        let rules = model.routing.warm.rules.as_ref().filter(|rules| rules.on_typing)?;
        let draft = &model.composer.buffer;
        let is_command = model.composer.completion.is_some() || draft.text().starts_with('/');
        if draft.is_blank() || is_command || self.running().is_some() {
            return None;
        }
        if model.routing.around.on_battery && !rules.on_battery {
            return None;
        }
        let facts = model.facts();
        let target = route(&facts).ok()?;
        super::facts::fence(&facts, &target).ok()?;
        may_warm(model, rules, &target).then_some(target)
    }

    fn warm_up(&mut self, target: Decision) {
        let model = &mut *self.model;
        let draft = model.composer.buffer.text().to_owned();
        let view = model.fleet.backends.iter().find(|view| view.name == target.backend);
        let is_here = view.is_some_and(|view| view.is_engine || view.setup.is_here);
        // What was pasted leaves this machine only when it is sent.
        let whole = if is_here { model.composer.buffer.expanded() } else { draft.clone() };
        let parts = history::parts(model.session.system.as_deref(), &model.turns);
        let mut messages = history::messages(&parts);
        messages.push(Message::new(Role::User, whole.trim_end()));
        let request = GenRequest {
            model: target.model.clone(),
            messages,
            max_tokens: Some(0),
            session: (!model.session.saving.is_off()).then(|| model.session.id.to_string()),
            is_ahead: true,
            ..GenRequest::default()
        };
        model.routing.warm.last = Some(Warmed {
            backend: target.backend.clone(),
            model: target.model,
            session: model.session.id.clone(),
            turns: model.turns.len(),
            draft,
            stage: Stage::Asked,
        });
        self.effect(Effect::Warm { backend: target.backend, request: Box::new(request) });
    }
}

/// Whether a target may be got ready: what is on this machine always; another one when the person allows it, the conversation
/// is one that is saved, nothing was pasted, and it holds the model, or is an engine of ours, which sends nobody away for it.
/// The runtime also looks whether the server can, and whether the way to it is private.
fn may_warm(model: &Model, rules: &WarmConfig, target: &Decision) -> bool {
    let Some(view) = model.fleet.backends.iter().find(|view| view.name == target.backend) else {
        return false;
    };
    if view.is_engine {
        return true;
    }
    let card = view.models.iter().find(|card| card.id == target.model);
    let is_loaded = card.is_some_and(|card| card.state == ModelState::Loaded);
    if !is_loaded && view.setup.kind != Some(BackendKind::Duet) {
        return false;
    }
    let has_pastes = model.composer.buffer.has_pastes();
    view.setup.is_here || (rules.remote && !model.session.saving.is_off() && !has_pastes)
}

fn share(done: u32, total: u32) -> f32 {
    #[expect(clippy::cast_precision_loss, reason = "shown in whole percent")]
    let share = done as f32 / total.max(1) as f32;
    share.clamp(0.0, 1.0)
}
