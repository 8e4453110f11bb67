//! What is known of the next turn's target: which it is, its state, how full its context is.

use super::format;
use crate::app::Model;
use crate::app::facts;
use crate::app::model::{BackendView, EngineView};
use crate::app::turn::Attempt;
use crate::chat::{ModelCard, ModelState};
use crate::router::{self, Decision, Health, route};
use crate::text::shown_line;
use crate::theme::Role;

/// Most cells a model's name takes.
const NAME_CELLS: usize = 40;

/// Where the next turn would go. While no model is known there, the model's name is empty. A machine that was chosen and is
/// away stays the target.
pub(super) fn next(model: &Model) -> Option<Decision> {
    let mut facts = model.facts();
    route(&facts).ok().or_else(|| {
        let backend = router::backend(&facts).ok()?.name.clone();
        facts::hope(&mut facts, &backend);
        let there = route(&facts).ok().filter(|decision| decision.backend == backend);
        if let Some(decision) = there {
            return Some(Decision { predicted: None, ..decision });
        }
        Some(Decision {
            backend,
            model: String::new(),
            rule: "default".to_owned(),
            reason: String::new(),
            ..Decision::default()
        })
    })
}

/// A backend by name.
pub(super) fn backend<'a>(model: &'a Model, name: &str) -> Option<&'a BackendView> {
    model.fleet.backends.iter().find(|backend| backend.name == name)
}

/// The card of a decision's model, where the backend has told it.
pub(super) fn card<'a>(model: &'a Model, decision: &Decision) -> Option<&'a ModelCard> {
    backend(model, &decision.backend)?.models.iter().find(|card| card.id == decision.model)
}

/// A model's name for the screen: of a path the file's stem.
pub(super) fn name(id: &str) -> String {
    let file = id.rsplit(['/', '\\']).next().filter(|file| file.ends_with(".gguf")).unwrap_or(id);
    shown_line(file.strip_suffix(".gguf").unwrap_or(file), NAME_CELLS).to_string()
}

/// An attempt's quantisation, else what the model is known by now.
pub(super) fn quantisation<'a>(model: &'a Model, attempt: &'a Attempt) -> Option<&'a str> {
    let told = || card(model, &attempt.decision)?.quantisation.as_deref();
    attempt.quantisation.as_deref().or_else(told)
}

/// The hue of a backend.
pub(super) fn role(model: &Model, name: &str) -> Role {
    let is_local = backend(model, name).map_or(name == "local", |backend| backend.is_engine);
    if is_local { Role::Local } else { Role::Remote }
}

/// How the target stands: a mark, words, and the role of the mark. `None`: nothing is known.
pub(super) fn state(model: &Model, decision: Option<&Decision>) -> Option<(&'static str, String, Role)> {
    let decision = decision?;
    let backend = backend(model, &decision.backend)?;
    let host = shown_line(&backend.name, 20).to_string();
    if backend.is_engine {
        match &model.fleet.engine {
            EngineView::Starting => return Some(("◐", format!("{host} starting"), Role::Dim)),
            EngineView::Down { .. } => return Some(("✕", format!("{host} engine ended"), Role::Bad)),
            EngineView::Unknown if backend.models.is_empty() => return None,
            EngineView::Unknown | EngineView::Ready => {}
        }
    }
    if backend.trouble.is_some() {
        return Some(("✕", format!("{host} away"), Role::Bad));
    }
    let card = card(model, decision)?;
    let label = match card.parameters {
        Some(count) => format!("{host} {}", format::parameters(count)),
        None => host,
    };
    let role = role(model, &backend.name);
    Some(match &card.state {
        ModelState::Loaded => ("●", label, role),
        ModelState::Loading { fraction } => {
            ("◐", format!("{label} loading {}", format::percent(f64::from(*fraction))), role)
        }
        ModelState::Unloaded => ("○", format!("{label} not loaded"), Role::Dim),
        ModelState::Failed { .. } => ("▲", format!("{label} cannot load"), Role::Bad),
        // Most servers do not say; the upper edge has the name already.
        ModelState::Unknown => return None,
    })
}

/// What stands before the target: `auto: ` where the router chooses among several machines, an alias by its name.
pub(super) fn chosen_by(model: &Model) -> String {
    let pin = &model.prefs.pin;
    if model.fleet.backends.len() < 2 || pin.backend.is_some() {
        return String::new();
    }
    match &pin.model {
        None => "auto: ".to_owned(),
        Some(name) if model.routing.aliases.iter().any(|alias| alias.name == *name) => {
            format!("{}: ", &*shown_line(name, 16))
        }
        Some(_) => String::new(),
    }
}

/// Whether the conversation holds something the privacy fence keeps here, and whether that is lifted for the next turn.
pub(super) fn fence(model: &Model) -> Option<bool> {
    let holds =
        model.turns.iter().filter_map(|turn| turn.fence.as_ref()).any(|fence| !fence.files.is_empty());
    holds.then_some(model.routing.is_fence_lifted)
}

/// How each backend stands, with the model a turn would get there: `●` its model is resident and has the conversation in
/// its cache, `◐` only partly, or on its way, `○` not resident, `✕` away, `▲` in trouble.
pub(super) fn marks(model: &Model, decision: Option<&Decision>) -> Vec<(&'static str, String, Role)> {
    let facts = model.facts();
    let marks = model.fleet.backends.iter().filter_map(|view| {
        let host = shown_line(&view.name, 16).to_string();
        let wanted = decision.and_then(|decision| {
            if decision.backend == view.name {
                return Some(decision.model.clone());
            }
            decision.rejected.iter().find(|other| other.backend == view.name)?.model.clone()
        });
        let wanted = wanted.filter(|id| !id.is_empty()).or_else(|| view.default_model.clone());
        let card = match &wanted {
            Some(id) => view.models.iter().find(|card| card.id == *id),
            None => view.models.iter().find(|card| !view.embedders.contains(&card.id)),
        };
        let label = match card.and_then(|card| card.parameters) {
            Some(count) => format!("{host} {}", format::parameters(count)),
            None => host,
        };
        let is_down = view.is_engine && matches!(model.fleet.engine, EngineView::Down { .. });
        let role = role(model, &view.name);
        match view.circuit.health(model.now) {
            Health::Unreachable { .. } | Health::Asleep => return Some(("✕", label, Role::Bad)),
            _ if is_down => return Some(("✕", label, Role::Bad)),
            Health::KeyNeeded | Health::Untrusted | Health::Failing { .. } => {
                return Some(("▲", label, Role::Bad));
            }
            _ if view.trouble.is_some() => return Some(("✕", label, Role::Bad)),
            _ => {}
        }
        if let Some((what, share)) = model.routing.warm.under_way(&view.name) {
            return Some(("◐", format!("{label} {what} {}", format::percent(f64::from(share))), role));
        }
        let card = card?;
        Some(match &card.state {
            ModelState::Failed { .. } => ("▲", label, Role::Bad),
            ModelState::Loading { .. } => ("◐", label, role),
            ModelState::Unloaded => ("○", label, Role::Dim),
            // Servers that do not say are as good as what they were sent.
            ModelState::Loaded | ModelState::Unknown => {
                let known = facts.backends.iter().filter(|backend| backend.name == view.name);
                let cached =
                    known.flat_map(|b| &b.models).find(|m| m.id == card.id).map_or(0, |m| m.cached_tokens);
                let history = history_tokens(model);
                let is_known = card.state == ModelState::Loaded || cached > 0;
                if !is_known {
                    return None;
                } else if u64::from(cached) * 5 >= u64::from(history) * 4 {
                    ("●", label, role)
                } else {
                    ("◐", label, role)
                }
            }
        })
    });
    marks.collect()
}

/// Tokens of the conversation so far, as counted last by whoever answered.
fn history_tokens(model: &Model) -> u32 {
    let own = model.routing.sent.iter().filter(|sent| sent.session == model.session.id);
    if model.turns.is_empty() { 0 } else { own.map(|sent| sent.tokens).max().unwrap_or(0) }
}

/// What a send would cost: `first ≈0.9 s`; `~` where a speed in it is guessed.
pub(super) fn cost(decision: &Decision) -> Option<String> {
    let predicted = decision.predicted?;
    let mark = if predicted.is_guess { "~" } else { "≈" };
    Some(format!("first {mark}{}", format::seconds(predicted.first_ms)))
}

/// Tokens in the conversation and what the target's context holds, where both are known.
pub(super) fn context(model: &Model, decision: &Decision) -> Option<(u32, u32)> {
    let limit = card(model, decision)?.context.filter(|limit| *limit > 0)?;
    let used = model.turns.iter().rev().flat_map(|turn| turn.lanes.iter().rev()).find_map(|lane| {
        let metrics = &lane.current()?.metrics;
        let server = metrics.server.unwrap_or_default();
        let prompt = metrics
            .usage
            .prompt_tokens
            .or_else(|| Some(server.prompt_n?.saturating_add(server.cache_n.unwrap_or(0))))?;
        let output = metrics.usage.output_tokens.or(server.predicted_n).unwrap_or(0);
        Some(prompt.saturating_add(output))
    })?;
    Some((used, limit))
}
