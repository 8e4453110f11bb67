//! Which backend and model the next turn goes to, and why. A pure function of facts and policy: it never
//! loads, connects or sleeps. The same [`Decision`] is drawn, stored with the turn and printed.

mod candidates;
mod choose;
mod cost;
mod decision;
mod explain;
mod facts;
pub mod fence;
pub mod health;
pub mod machines;
pub mod shapes;
pub mod speeds;
mod words;

#[cfg(test)]
mod tests;

pub use decision::{Decision, Penalties, Prediction, Rejected};
pub use explain::explain;
pub use facts::{BackendFacts, Facts, Health, ModelFacts, Speed, Speeds, Surroundings, Target, TurnFacts};

use crate::config::{AliasConfig, Pick};
use candidates::{Bar, Candidate, Names, alias, bar, default_of, of_alias};
use choose::{By, Choice, choose};
use std::rc::Rc;

/// What is said where there is no backend at all.
const NOBODY: &str = "no backend: this build has no engine and none is configured";

impl Target {
    /// Whether nothing is named.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.backend.is_none() && self.model.is_none()
    }

    /// Reads `backend/model`, `backend` or `model`; a path to a file is a model.
    #[must_use]
    pub fn parse(text: &str, backends: &[String]) -> Self {
        if backends.iter().any(|name| name == text) {
            return Self { backend: Some(text.to_owned()), model: None };
        }
        if let Some((backend, model)) = text.split_once('/')
            && backends.iter().any(|name| name == backend)
            && !model.is_empty()
        {
            return Self { backend: Some(backend.to_owned()), model: Some(model.to_owned()) };
        }
        Self { backend: None, model: Some(text.to_owned()) }
    }
}

impl BackendFacts {
    /// Whether it is known to have this model.
    #[must_use]
    pub fn has(&self, model: &str) -> bool {
        self.models.iter().any(|known| known.id == model)
    }
}

/// One source of a decision: its rule, its reason, and what it names.
type Source<'a> = (&'static str, &'static str, &'a Target);

/// The source that counts: the first one that names something. A conversation whose backend is gone goes
/// on where a new one would.
fn source(facts: &Facts) -> Source<'_> {
    let exists = |name: &String| facts.backends.iter().any(|b| &b.name == name);
    if !facts.pin.is_open() {
        ("pinned", "chosen by you", &facts.pin)
    } else if !facts.session.is_open() && facts.session.backend.as_ref().is_none_or(exists) {
        ("session", "as before", &facts.session)
    } else if !facts.configured.is_open() {
        ("configured", "configured default", &facts.configured)
    } else {
        ("default", "nothing else was chosen", &facts.configured)
    }
}

/// What the source that counts names.
#[must_use]
pub fn wanted(facts: &Facts) -> &Target {
    source(facts).2
}

/// The backend the next turn goes to; what is known of it may not be enough for a turn.
///
/// # Errors
/// As [`route`], when there is no such backend, or none at all.
pub fn backend(facts: &Facts) -> Result<&BackendFacts, String> {
    let (_, _, wanted) = source(facts);
    let known = || facts.backends.iter().map(|b| b.name.as_str()).collect::<Vec<_>>().join(", ");
    if let Some(name) = &wanted.backend {
        let found = facts.backends.iter().find(|b| &b.name == name);
        return found.ok_or_else(|| format!("no backend `{name}`; there is {}", known()));
    }
    let holder = wanted.model.as_ref().and_then(|model| facts.backends.iter().find(|b| b.has(model)));
    holder.or(facts.backends.first()).ok_or_else(|| NOBODY.to_owned())
}

/// Decides. What a person named beats everything: a backend that was named and can't answer is an error that says why and who
/// else could, never another backend. Then those that can't answer are ruled out, the configured split by size decides,
/// and then what each would cost, in favour of the machine that answered last.
///
/// # Errors
/// One line naming what was asked for and what there is.
pub fn route(facts: &Facts) -> Result<Decision, String> {
    let wish = Wish::of(facts);
    let names = Rc::new(Names::default());
    let mut field = Field::default();
    let by = field.fill(facts, &wish, &names)?;
    let barred = field.sort_out(facts, &wish);
    let Some(choice) = choose(std::mem::take(&mut field.open), facts, by) else {
        return Err(refusal(facts, &wish, &barred, &names));
    };
    Ok(decision(facts, &wish, by, choice, field.rejected))
}

/// Decides anew for a turn that failed before its first text: on another backend than it was, with the same model where another
/// one has it, else with what an alias says is as good, else with another machine's default model. The decision says which it is.
///
/// # Errors
/// One line: nobody else can answer.
pub fn elsewhere(facts: &Facts, failed: &Decision) -> Result<Decision, String> {
    let mut facts = facts.clone();
    if !facts.turn.tried.contains(&failed.backend) {
        facts.turn.tried.push(failed.backend.clone());
    }
    facts.session = Target::default();
    let is_shared = facts.backends.iter().any(|b| b.name != failed.backend && b.has(&failed.model));
    let target = format!("{}/{}", failed.backend, failed.model);
    let lists = |alias: &&AliasConfig| alias.targets.iter().chain(&alias.variants).any(|t| *t == target);
    let by_alias = facts.aliases.iter().find(lists).map(|alias| alias.name.clone());
    let models = [failed.alias.clone(), is_shared.then(|| failed.model.clone()), by_alias];
    let mut answer = Err(String::new());
    for model in models.into_iter().flatten() {
        facts.pin = Target { backend: None, model: Some(model) };
        answer = route(&facts);
        if answer.is_ok() {
            break;
        }
    }
    let mut is_other_model = false;
    if answer.is_err() {
        (facts.pin, facts.configured) = (Target::default(), Target::default());
        is_other_model = true;
        answer = route(&facts);
    }
    let decision = answer?;
    let is_other_model = is_other_model && decision.model != failed.model;
    Ok(Decision { moved_from: Some(failed.backend.clone()), is_other_model, ..decision })
}

/// What is wanted, and by whom.
struct Wish<'a> {
    rule: &'static str,
    reason: &'static str,
    target: &'a Target,
    /// The alias that is named.
    alias: Option<&'a AliasConfig>,
}

impl<'a> Wish<'a> {
    fn of(facts: &'a Facts) -> Self {
        let (rule, reason, target) = source(facts);
        let alias = target.model.as_deref().and_then(|name| alias(facts, name));
        Self { rule, reason, target, alias }
    }

    fn is_session(&self) -> bool {
        self.rule == "session"
    }

    /// The backend that was named, and is not to be replaced.
    fn backend(&self) -> Option<&'a str> {
        self.target.backend.as_deref().filter(|_| !self.is_session())
    }

    /// The model that was named, as an id.
    fn model(&self) -> Option<&'a str> {
        self.target.model.as_deref().filter(|_| self.alias.is_none())
    }
}

/// Those the turn may go to, and those it may not.
#[derive(Default)]
struct Field<'a> {
    open: Vec<Candidate<'a>>,
    rejected: Vec<Rejected>,
}

impl<'a> Field<'a> {
    /// Finds the candidates, in order of preference.
    fn fill(&mut self, facts: &'a Facts, wish: &Wish<'a>, names: &Rc<Names<'a>>) -> Result<By, String> {
        let all = facts.backends.as_slice();
        if let Some(alias) = wish.alias {
            (self.open, self.rejected) = of_alias(facts, alias, names);
            if let Some(name) = wish.backend() {
                named(facts, name)?;
                self.open.retain(|candidate| candidate.backend.name == name);
                self.rejected.clear();
                if self.open.is_empty() {
                    return Err(format!(
                        "`{}` has no target on `{name}`; it is {}",
                        alias.name,
                        alias.targets.join(", ")
                    ));
                }
            }
            return Ok(if alias.pick == Pick::First { By::Order } else { By::Cost });
        }
        if let Some(name) = wish.backend() {
            let backend = named(facts, name)?;
            let model = wish.model().or_else(|| default_of(backend)).ok_or_else(|| no_model(backend))?;
            self.open.push(Candidate::new(backend, model, names));
            return Ok(By::Order);
        }
        if let Some(model) = wish.model() {
            let held = all.iter().map(|backend| Candidate::new(backend, model, names));
            self.open =
                held.filter(|c| c.model.is_some() || (wish.is_session() && c.is_previous(facts))).collect();
            if self.open.is_empty() {
                // Nobody is known to have it: whoever comes first may find it; a file lies on this machine.
                let is_file = model.ends_with(".gguf");
                let mut rest: Vec<_> =
                    all.iter().map(|backend| Candidate::new(backend, model, names)).collect();
                rest.sort_by_key(|candidate| !(is_file && candidate.backend.is_here));
                match rest.iter().find(|candidate| bar(candidate, facts, true).is_none()) {
                    Some(candidate) => self.open.push(candidate.clone()),
                    None => self.open = rest,
                }
                return Ok(By::Order);
            }
            return Ok(By::Cost);
        }
        // No model is named: each with its own.
        if wish.is_session()
            && let Some(backend) = all.iter().find(|b| Some(&b.name) == wish.target.backend.as_ref())
        {
            let model = default_of(backend).ok_or_else(|| no_model(backend))?;
            self.open.push(Candidate::new(backend, model, names));
            return Ok(By::Order);
        }
        let mut unknown = None;
        for backend in all {
            match default_of(backend) {
                Some(model) => self.open.push(Candidate::new(backend, model, names)),
                // Whether it can answer is all the same for what is to be asked of it.
                None if unknown.is_none()
                    && backend.models.is_empty()
                    && self.open.iter().all(|c| bar(c, facts, false).is_some())
                    && bar(&Candidate::new(backend, "", names), facts, false).is_none() =>
                {
                    unknown = Some(backend);
                }
                None => {}
            }
        }
        match (unknown, all.first()) {
            (Some(backend), _) => Err(no_model(backend)),
            (None, None) => Err(NOBODY.to_owned()),
            (None, Some(first)) if self.open.is_empty() => Err(no_model(first)),
            (None, Some(_)) => Ok(By::Default),
        }
    }

    /// Takes out those that can't answer. Whom a person named is refused for firm reasons only; where nobody else is left, one that
    /// is only estimated not to fit may try. Returns who was taken out and why.
    fn sort_out(&mut self, facts: &Facts, wish: &Wish<'_>) -> Vec<(String, Bar)> {
        let is_hosted = |candidate: &Candidate<'_>| candidate.model.is_some_and(|m| m.hosted_by.is_some());
        let only_hosted = self.open.iter().all(is_hosted);
        let is_named = |candidate: &Candidate<'_>| {
            let by_person = wish.model().is_some() || wish.backend().is_some();
            wish.alias.is_none() && by_person && (only_hosted || candidate.is_previous(facts))
        };
        let candidates = std::mem::take(&mut self.open);
        let checked: Vec<_> = candidates.into_iter().map(|c| (bar(&c, facts, is_named(&c)), c)).collect();
        let has_free = checked.iter().any(|(bar, _)| bar.is_none());
        let may_try = wish.backend().is_some() || !has_free;
        let mut barred = Vec::new();
        for (bar, candidate) in checked {
            match bar {
                Some(bar) if bar.is_firm || !may_try => {
                    self.rejected.push(candidate.rejected(bar.why.clone()));
                    barred.push((candidate.backend.name.clone(), bar));
                }
                _ => self.open.push(candidate),
            }
        }
        barred
    }
}

fn named<'a>(facts: &'a Facts, name: &str) -> Result<&'a BackendFacts, String> {
    let known = || facts.backends.iter().map(|b| b.name.as_str()).collect::<Vec<_>>().join(", ");
    let found = facts.backends.iter().find(|b| b.name == name);
    found.ok_or_else(|| format!("no backend `{name}`; there is {}", known()))
}

fn no_model(backend: &BackendFacts) -> String {
    format!("no model known on `{}`; name one with -m", backend.name)
}

/// Why nobody gets the turn, and who could have it if asked.
fn refusal<'a>(facts: &'a Facts, wish: &Wish<'_>, barred: &[(String, Bar)], names: &Rc<Names<'a>>) -> String {
    let others = facts.backends.iter().filter(|backend| barred.iter().all(|(name, _)| *name != backend.name));
    let able = others.filter(|backend| {
        let model = default_of(backend).unwrap_or_default();
        bar(&Candidate::new(backend, model, names), facts, true).is_none_or(|bar| !bar.is_firm)
    });
    let able: Vec<&str> = able.map(|backend| backend.name.as_str()).collect();
    let able = if able.is_empty() { "nobody else can" } else { &format!("{} could", able.join(", ")) };
    match barred {
        [] => NOBODY.to_owned(),
        [(name, bar)] => format!("{name} can't answer: {}; {able}", bar.why),
        many => {
            let all: Vec<String> = many.iter().map(|(name, bar)| format!("{name}: {}", bar.why)).collect();
            let what = wish.target.model.as_deref().map(|model| format!(" with {model}")).unwrap_or_default();
            format!("nobody can answer{what}: {}", all.join("; "))
        }
    }
}

/// The decision of a choice, with everybody who was not chosen.
fn decision(facts: &Facts, wish: &Wish<'_>, by: By, choice: Choice<'_>, barred: Vec<Rejected>) -> Decision {
    let Choice { candidate, predicted, rule, rejected } = choice;
    let chosen = candidate.backend;
    let mut all = rejected;
    all.extend(barred);
    for other in facts.backends.iter().filter(|b| b.name != chosen.name) {
        if all.iter().any(|rejected| rejected.backend == other.name) {
            continue;
        }
        let why = match (wish.target.backend.as_deref(), wish.model(), wish.alias) {
            (_, _, Some(alias)) => format!("not among the targets of {}", alias.name),
            (Some(name), ..) if wish.is_session() => format!("{name} answered before"),
            (Some(name), ..) => format!("{name} was asked for"),
            (None, Some(model), _) if chosen.has(model) => format!("{} has {model}", chosen.name),
            _ => format!("{} comes first", chosen.name),
        };
        all.push(Rejected { backend: other.name.clone(), why, ..Rejected::default() });
    }
    let (rule, reason) = match (rule, wish.alias, wish.model()) {
        (Some(rule), ..) => rule,
        (None, Some(alias), _) if by == By::Order => {
            ("alias".to_owned(), format!("{}: the first that can", alias.name))
        }
        (None, Some(alias), _) => ("alias".to_owned(), format!("{}: {}", alias.name, wish.reason)),
        (None, None, Some(model)) if wish.is_session() && !candidate.is_previous(facts) => {
            let before = wish.target.backend.as_deref().unwrap_or_default();
            ("has-model".to_owned(), format!("{before} can't answer; {} has {model} too", chosen.name))
        }
        (None, None, Some(model))
            if wish.target.backend.is_none() && facts.backends.len() > 1 && chosen.has(model) =>
        {
            ("has-model".to_owned(), format!("{}; {} has it", wish.reason, chosen.name))
        }
        _ => (wish.rule.to_owned(), wish.reason.to_owned()),
    };
    Decision {
        backend: chosen.name.clone(),
        model: candidate.id.to_owned(),
        rule,
        reason,
        rejected: all,
        predicted,
        alias: wish.alias.map(|alias| alias.name.clone()),
        is_variant: candidate.is_variant,
        is_other_model: false,
        moved_from: None,
    }
}
