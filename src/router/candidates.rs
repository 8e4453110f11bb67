//! Who could answer: the targets a wish leads to, and who of them is ruled out and why.

use super::cost::{Insides, machine};
use super::decision::Rejected;
use super::facts::{BackendFacts, Facts, Health, ModelFacts, Target};
use super::machines::{self, Verdict};
use super::shapes::{self, Shape};
use super::words;
use crate::chat::Fit;
use crate::config::AliasConfig;
use std::cell::RefCell;
use std::rc::Rc;

/// What names of models say of them; each is looked at once.
#[derive(Debug, Default)]
pub(super) struct Names<'a>(RefCell<Vec<(&'a str, Option<Shape>)>>);

impl<'a> Names<'a> {
    fn shape(&self, id: &'a str) -> Option<Shape> {
        let mut seen = self.0.borrow_mut();
        if let Some((_, shape)) = seen.iter().find(|(known, _)| *known == id) {
            return *shape;
        }
        let by_size = || shapes::size_in(id).map(|(all, active)| shapes::sized(all, active));
        let shape = shapes::identify(id).or_else(by_size);
        seen.push((id, shape));
        shape
    }
}

/// One target that might get the turn.
#[derive(Clone, Debug)]
pub(super) struct Candidate<'a> {
    pub(super) backend: &'a BackendFacts,
    /// The model, as it is asked for.
    pub(super) id: &'a str,
    /// What is known of it.
    pub(super) model: Option<&'a ModelFacts>,
    /// Whether an alias has it among its variants.
    pub(super) is_variant: bool,
    names: Rc<Names<'a>>,
}

impl<'a> Candidate<'a> {
    pub(super) fn new(backend: &'a BackendFacts, id: &'a str, names: &Rc<Names<'a>>) -> Self {
        let model = backend.models.iter().find(|model| model.id == id);
        Self { backend, id, model, is_variant: false, names: Rc::clone(names) }
    }

    /// What its model's name says of it.
    pub(super) fn shape(&self) -> Option<Shape> {
        self.names.shape(self.id)
    }

    /// Whether it answered last in this conversation.
    pub(super) fn is_previous(&self, facts: &Facts) -> bool {
        let Target { backend, model } = &facts.session;
        backend.as_ref() == Some(&self.backend.name) && model.as_ref().is_none_or(|model| model == self.id)
    }

    /// Weights of its model, by its server or by its name.
    pub(super) fn parameters(&self) -> Option<u64> {
        let told = self.model.and_then(|model| model.parameters);
        told.or_else(|| Some(self.shape()?.parameters))
    }

    pub(super) fn rejected(&self, why: String) -> Rejected {
        Rejected {
            backend: self.backend.name.clone(),
            model: Some(self.id.to_owned()),
            why,
            ..Rejected::default()
        }
    }
}

/// Why a candidate can't have the turn.
#[derive(Clone, Debug)]
pub(super) struct Bar {
    /// One line, without the backend's name.
    pub(super) why: String,
    /// Whether a person who names the target gets it refused as well. What was only estimated, or is the person's own affair,
    /// is tried when it was named.
    pub(super) is_firm: bool,
}

/// The alias of this name.
pub(super) fn alias<'a>(facts: &'a Facts, name: &str) -> Option<&'a AliasConfig> {
    facts.aliases.iter().find(|alias| alias.name == name)
}

/// Targets of an alias in order, the variants last; those of backends there are not are told apart.
pub(super) fn of_alias<'a>(
    facts: &'a Facts,
    alias: &'a AliasConfig,
    names: &Rc<Names<'a>>,
) -> (Vec<Candidate<'a>>, Vec<Rejected>) {
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    let targets = alias.targets.iter().map(|target| (target, false));
    for (target, is_variant) in targets.chain(alias.variants.iter().map(|target| (target, true))) {
        let (backend, model) = target.split_once('/').unwrap_or((target, ""));
        match facts.backends.iter().find(|known| known.name == backend) {
            Some(known) if !model.is_empty() => {
                found.push(Candidate { is_variant, ..Candidate::new(known, model, names) });
            }
            _ => missing.push(Rejected {
                backend: backend.to_owned(),
                model: Some(model.to_owned()),
                why: "there is no such backend".to_owned(),
                ..Rejected::default()
            }),
        }
    }
    (found, missing)
}

/// The model a backend answers with when none is named.
pub(super) fn default_of(backend: &BackendFacts) -> Option<&str> {
    let may = |model: &&ModelFacts| !model.embeds && model.hosted_by.is_none();
    let first = || backend.models.iter().find(may).map(|model| model.id.as_str());
    backend.default_model.as_deref().or_else(first)
}

/// Why this candidate is ruled out. `is_named`: a person named just this one, and does not leave the choice to us.
pub(super) fn bar(candidate: &Candidate<'_>, facts: &Facts, is_named: bool) -> Option<Bar> {
    let firm = |why: String| Some(Bar { why, is_firm: true });
    let soft = |why: String| Some(Bar { why, is_firm: false });
    let (backend, model) = (candidate.backend, candidate.model);
    if facts.turn.tried.contains(&backend.name) {
        return firm("failed in this turn".to_owned());
    }
    // What leaves is the first question, whoever asked for it.
    let hosted_by = model.and_then(|model| model.hosted_by.as_ref());
    if let Some(file) = facts.turn.fenced.first()
        && !facts.turn.is_fence_lifted
        && (hosted_by.is_some() || !(backend.is_here || backend.is_private))
    {
        let others = facts.turn.fenced.len() - 1;
        let more = if others > 0 { format!(" and {others} more") } else { String::new() };
        return firm(format!("the privacy fence keeps {file}{more} on this machine"));
    }
    if let Some(host) = hosted_by.filter(|_| !is_named) {
        return firm(format!("passes prompts on to {host}; it is asked only by name"));
    }
    // Where there is no choice, sending tells best how it is.
    if facts.backends.len() > 1 && backend.health.is_away() {
        let (what, next) = backend.health.say(&backend.name);
        return firm(match (&backend.health, next) {
            (Health::Unreachable { .. } | Health::Failing { .. }, Some(next)) => format!("{what}, {next}"),
            _ => what,
        });
    }
    let model = model?;
    if model.embeds {
        return firm("makes embeddings, no text".to_owned());
    }
    if let Some(why) = &model.failed {
        return soft(format!("can't be loaded: {}", why.lines().next().unwrap_or_default()));
    }
    let prompt = facts.turn.prompt_tokens.unwrap_or(0);
    if let Some(context) = model.context.filter(|context| prompt >= *context) {
        let why = format!(
            "context too small: the prompt has {} tokens, it holds {}",
            words::tokens(prompt),
            words::tokens(context)
        );
        return if model.is_resident == Some(true) { firm(why) } else { soft(why) };
    }
    if model.is_resident == Some(true) { None } else { no_room(candidate, model, prompt) }
}

/// Why there is no room for a model that is not resident, with the numbers.
fn no_room(candidate: &Candidate<'_>, model: &ModelFacts, prompt: u32) -> Option<Bar> {
    let backend = candidate.backend;
    let kept = model.residency.as_ref();
    if let Some(verdict) = kept.and_then(|kept| kept.verdict.as_ref()) {
        let why = || {
            if verdict.say.is_empty() { "does not fit".to_owned() } else { verdict.say.clone() }
        };
        return match verdict.fit {
            Fit::DoesNotFit => Some(Bar { why: why(), is_firm: true }),
            Fit::NoRoom => Some(Bar { why: why(), is_firm: false }),
            _ => None,
        };
    }
    let bytes = |count| words::bytes(count);
    let insides = Insides::of(candidate);
    if let Some(memory) = backend.memory {
        let need =
            kept.and_then(|kept| kept.need).or_else(|| Some(insides?.load(Some(model), prompt).need()))?;
        let is_firm = model.bytes.is_some_and(|weights| weights > memory);
        let why = format!("does not fit: needs {}, has {}", bytes(need), bytes(memory));
        return (need > memory).then_some(Bar { why, is_firm });
    }
    // Known by its hardware alone: only what can't lie anywhere on it is ruled out.
    let machine = machine(backend)?;
    let load = insides?.load(Some(model), prompt);
    let (device, host) = machine.usable();
    let why = format!(
        "does not fit: needs {}, the {} has {}",
        bytes(load.need()),
        machine.title,
        bytes(device.max(host))
    );
    let verdict = machines::place(&load, &machine).verdict;
    (verdict == Verdict::DoesNotFit).then_some(Bar { why, is_firm: false })
}
