//! Which backend and model the next turn goes to, and why. A pure function of facts and policy: it never
//! loads, connects or sleeps. The same [`Decision`] is drawn, stored with the turn and printed.

mod decision;
mod facts;

pub use decision::{Decision, Penalties, Prediction, Rejected};
pub use facts::{BackendFacts, Facts, Health, ModelFacts, Speed, Speeds, Surroundings, Target, TurnFacts};

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

/// Decides anew for a turn that failed on `from` before its first text, or is to be asked there and elsewhere: as if
/// that backend were not there. A pin on it counts for its model only.
///
/// # Errors
/// One line: nobody else can answer.
pub fn elsewhere(facts: &Facts, from: &str) -> Result<Decision, String> {
    let mut facts = facts.clone();
    facts.backends.retain(|backend| backend.name != from);
    for target in [&mut facts.pin, &mut facts.session, &mut facts.configured] {
        if target.backend.as_deref() == Some(from) {
            target.backend = None;
        }
    }
    let decision = route(&facts)?;
    Ok(Decision { moved_from: Some(from.to_owned()), ..decision })
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
        ("default", "default", &facts.configured)
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
    holder
        .or(facts.backends.first())
        .ok_or_else(|| "no backend: this build has no engine and none is configured".to_owned())
}

/// Decides. Pins beat the conversation so far, that beats configuration, configuration beats the default; a
/// backend somebody named is never replaced by another one.
///
/// # Errors
/// One line naming what was asked for and what there is.
pub fn route(facts: &Facts) -> Result<Decision, String> {
    let (rule, reason, wanted) = source(facts);
    let chosen = backend(facts)?;
    let mut rejected = Vec::new();
    for other in facts.backends.iter().filter(|b| b.name != chosen.name) {
        let why = match (&wanted.backend, &wanted.model) {
            (Some(name), _) if rule == "session" => format!("{name} answered before"),
            (Some(name), _) => format!("{name} was asked for"),
            (None, Some(model)) if chosen.has(model) => format!("{} has {model}", chosen.name),
            _ => format!("{} comes first", chosen.name),
        };
        rejected.push(Rejected { backend: other.name.clone(), why, ..Rejected::default() });
    }
    let model = wanted
        .model
        .as_ref()
        .or(chosen.default_model.as_ref())
        .or(chosen.models.first().map(|model| &model.id))
        .ok_or_else(|| format!("no model known on `{}`; name one with -m", chosen.name))?;
    let (rule, reason) = match (&wanted.backend, &wanted.model) {
        (None, Some(wanted)) if facts.backends.len() > 1 && chosen.has(wanted) => {
            ("has-model", format!("{reason}; {} has it", chosen.name))
        }
        _ => (rule, reason.to_owned()),
    };
    Ok(Decision {
        backend: chosen.name.clone(),
        model: model.clone(),
        rule: rule.to_owned(),
        reason,
        rejected,
        ..Decision::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    fn backend(name: &str, models: &[&str]) -> BackendFacts {
        BackendFacts {
            name: name.to_owned(),
            default_model: models.first().map(|m| (*m).to_owned()),
            models: models
                .iter()
                .map(|m| ModelFacts { id: (*m).to_owned(), ..ModelFacts::default() })
                .collect(),
            ..BackendFacts::default()
        }
    }

    fn facts(pin: Target, configured: Target) -> Facts {
        Facts {
            pin,
            configured,
            session: Target::default(),
            backends: vec![backend("local", &["builtin", "small"]), backend("mac", &["large"])],
            ..Facts::default()
        }
    }

    fn target(backend: Option<&str>, model: Option<&str>) -> Target {
        Target { backend: backend.map(str::to_owned), model: model.map(str::to_owned) }
    }

    #[test]
    fn rules_in_order() {
        let cases = [
            (target(None, None), target(None, None), ("local", "builtin", "default")),
            (target(None, None), target(None, Some("small")), ("local", "small", "has-model")),
            (target(None, None), target(Some("mac"), None), ("mac", "large", "configured")),
            (target(None, Some("large")), target(None, Some("small")), ("mac", "large", "has-model")),
            (target(Some("mac"), None), target(None, Some("small")), ("mac", "large", "pinned")),
            (target(Some("local"), Some("/m/x.gguf")), target(None, None), ("local", "/m/x.gguf", "pinned")),
            (target(None, Some("/m/x.gguf")), target(Some("mac"), None), ("local", "/m/x.gguf", "pinned")),
        ];
        for (pin, configured, expected) in cases {
            let decision = route(&facts(pin.clone(), configured)).expect("routes");
            assert_eq!(
                (decision.backend.as_str(), decision.model.as_str(), decision.rule.as_str()),
                expected,
                "{pin:?}"
            );
            assert_eq!(decision.rejected.len(), 1);
        }
    }

    #[test]
    fn a_conversation_goes_on_where_it_was() {
        let none = || target(None, None);
        let cases = [
            (none(), target(Some("mac"), Some("large")), none(), ("mac", "large", "session", "as before")),
            (none(), target(Some("mac"), Some("old")), none(), ("mac", "old", "session", "as before")),
            (
                none(),
                target(Some("mac"), Some("large")),
                target(Some("local"), None),
                ("mac", "large", "session", "as before"),
            ),
            (
                target(Some("local"), None),
                target(Some("mac"), Some("large")),
                none(),
                ("local", "builtin", "pinned", "chosen by you"),
            ),
            (
                target(None, Some("small")),
                target(Some("mac"), Some("large")),
                none(),
                ("local", "small", "has-model", "chosen by you; local has it"),
            ),
            (none(), target(Some("gone"), Some("large")), none(), ("local", "builtin", "default", "default")),
            (
                none(),
                target(Some("gone"), Some("large")),
                target(Some("mac"), None),
                ("mac", "large", "configured", "configured default"),
            ),
        ];
        for (pin, session, configured, expected) in cases {
            let facts = Facts { session: session.clone(), ..facts(pin, configured) };
            let decision = route(&facts).expect("routes");
            let Decision { backend, model, rule, reason, rejected, .. } = &decision;
            assert_eq!((backend.as_str(), model.as_str(), rule.as_str(), reason.as_str()), expected);
            if rule == "session" {
                assert_eq!(rejected[0].why, "mac answered before", "{session:?}");
            }
        }
    }

    #[test]
    fn unknown_backend_is_never_replaced() {
        let error = route(&facts(target(Some("cuda"), None), Target::default())).expect_err("refused");
        assert_eq!(error, "no backend `cuda`; there is local, mac");
        assert!(route(&Facts::default()).is_err());
    }

    #[test]
    fn targets_are_read() {
        let names = ["local".to_owned(), "mac".to_owned()];
        assert_eq!(Target::parse("mac", &names), target(Some("mac"), None));
        assert_eq!(Target::parse("mac/llama", &names), target(Some("mac"), Some("llama")));
        assert_eq!(Target::parse("models/x.gguf", &names), target(None, Some("models/x.gguf")));
        assert_eq!(Target::parse("qwen", &names), target(None, Some("qwen")));
    }
}
