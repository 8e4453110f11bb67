//! Pins and times that were asked for: one request at a time for each, and what was asked last is what is shown
//! until the server tells the same.

use crate::app::effect::Effect;
use crate::app::model::Asked;
use crate::app::update::Step;
use crate::chat::{Change, Residency};

/// Shows a change before the server tells of it.
fn show(change: Change, residency: &mut Residency) {
    match change {
        Change::Pin(pinned) => residency.pinned = Some(pinned),
        Change::KeepAlive(keep) if residency.keep_alive != Some(keep) => {
            residency.keep_alive = Some(keep);
            // When it leaves now is for the server to say.
            residency.expires_s = None;
        }
        Change::KeepAlive(_) | Change::Load { .. } | Change::Unload => {}
    }
}

/// Whether a server tells what was asked for.
fn tells(change: Change, residency: &Residency) -> bool {
    match change {
        Change::Pin(pinned) => residency.pinned == Some(pinned),
        Change::KeepAlive(keep) => residency.keep_alive == Some(keep),
        Change::Load { .. } | Change::Unload => true,
    }
}

impl Asked {
    fn is_for(&self, backend: &str, model: &str, change: Change) -> bool {
        let is_same = std::mem::discriminant(&self.wanted) == std::mem::discriminant(&change);
        is_same && self.backend == backend && self.model == model
    }
}

impl Step<'_> {
    /// Asks for a pin or a time: at once, or when the one under way is answered; then the last one only.
    pub(in crate::app) fn ask_for(&mut self, backend: String, model: String, change: Change) {
        if let Some(view) = self.model.fleet.backends.iter_mut().find(|b| b.name == backend)
            && let Some(residency) = view.residency.iter_mut().find(|r| r.id == model)
        {
            show(change, residency);
        }
        let asked = &mut self.model.pending.asked;
        if let Some(there) =
            asked.iter_mut().find(|there| there.sent.is_some() && there.is_for(&backend, &model, change))
        {
            there.wanted = change;
            there.is_told = false;
            return;
        }
        asked.retain(|there| !there.is_for(&backend, &model, change));
        asked.push(Asked {
            backend: backend.clone(),
            model: model.clone(),
            sent: Some(change),
            wanted: change,
            is_told: false,
        });
        self.effect(Effect::ChangeModel { backend, model, change });
    }

    /// A request is answered. Returns whether another one follows it.
    pub(in crate::app) fn answered(
        &mut self,
        backend: &str,
        model: &str,
        change: Change,
        is_done: bool,
    ) -> bool {
        let asked = &mut self.model.pending.asked;
        let Some(at) = asked.iter().position(|there| there.is_for(backend, model, change)) else {
            return false;
        };
        let Some(there) = asked.get_mut(at).filter(|there| is_done && there.sent == Some(change)) else {
            // What comes after a refusal would be refused as well.
            asked.remove(at);
            return false;
        };
        if there.wanted != change {
            let change = there.wanted;
            there.sent = Some(change);
            let (backend, model) = (backend.to_owned(), model.to_owned());
            self.effect(Effect::ChangeModel { backend, model, change });
            return true;
        }
        there.sent = None;
        if there.is_told {
            asked.remove(at);
        }
        false
    }

    /// A server told its models: what was asked for and is not in it yet stays shown. News may be older than
    /// the answer, so it is asked once more.
    pub(in crate::app) fn keep_asked(&mut self, backend: &str) {
        let Some(view) = self.model.fleet.backends.iter_mut().find(|b| b.name == backend) else { return };
        let mut is_late = false;
        self.model.pending.asked.retain_mut(|asked| {
            if asked.backend != backend {
                return true;
            }
            let Some(residency) = view.residency.iter_mut().find(|r| r.id == asked.model) else {
                return asked.sent.is_some();
            };
            asked.is_told = tells(asked.wanted, residency);
            if !asked.is_told {
                show(asked.wanted, residency);
                is_late |= asked.sent.is_none();
            }
            asked.sent.is_some()
        });
        if is_late {
            self.effect(Effect::ListModels { backend: backend.to_owned() });
        }
    }
}
