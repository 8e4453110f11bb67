//! Which backend and model the next turn goes to, and why. A pure function of facts and policy: it never
//! loads, connects or sleeps. The same [`Decision`] is drawn, stored with the turn and printed.

use serde::{Deserialize, Serialize};

/// What is known when a turn is about to be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The person's choice for this program run or session: backend and/or model.
    pub pin: Target,
    /// The configured default.
    pub configured: Target,
    /// Backends that exist, in order of preference; the first is this machine's engine, if built in.
    pub backends: Vec<BackendFacts>,
}

/// A backend and a model, each of which may be left open.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The backend's name.
    pub backend: Option<String>,
    /// The model's id.
    pub model: Option<String>,
}

impl Target {
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

/// What is known of one backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendFacts {
    /// Its name.
    pub name: String,
    /// The model it answers with when none is asked for.
    pub default_model: Option<String>,
    /// Ids of the models it is known to have; empty when not asked yet.
    pub models: Vec<String>,
}

/// Where the turn goes and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// The backend.
    pub backend: String,
    /// The model.
    pub model: String,
    /// The rule that decided: `pinned`, `configured`, `has-model` or `default`.
    pub rule: String,
    /// One line for people.
    pub reason: String,
    /// Backends ruled out, and why.
    pub rejected: Vec<Rejected>,
}

/// A backend that was ruled out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// Its name.
    pub backend: String,
    /// Why, one line.
    pub why: String,
}

/// Decides. Pins beat configuration, configuration beats the default; a named backend is never replaced
/// by another one.
///
/// # Errors
/// One line naming what was asked for and what there is.
pub fn route(facts: &Facts) -> Result<Decision, String> {
    let (rule, source) = if facts.pin.backend.is_some() || facts.pin.model.is_some() {
        ("pinned", "chosen by you")
    } else if facts.configured.backend.is_some() || facts.configured.model.is_some() {
        ("configured", "configured default")
    } else {
        ("default", "default")
    };
    let wanted_backend = facts.pin.backend.as_ref().or(facts
        .configured
        .backend
        .as_ref()
        .filter(|_| facts.pin.model.is_none()));
    let wanted_model =
        facts.pin.model.as_ref().or(facts.configured.model.as_ref().filter(|_| facts.pin.backend.is_none()));

    let known = || facts.backends.iter().map(|b| b.name.as_str()).collect::<Vec<_>>().join(", ");
    let mut rejected = Vec::new();
    let chosen = match wanted_backend {
        Some(name) => facts
            .backends
            .iter()
            .find(|b| &b.name == name)
            .ok_or_else(|| format!("no backend `{name}`; there is {}", known()))?,
        None => {
            let holder =
                wanted_model.and_then(|model| facts.backends.iter().find(|b| b.models.contains(model)));
            match holder.or(facts.backends.first()) {
                Some(backend) => backend,
                None => return Err("no backend: this build has no engine and none is configured".to_owned()),
            }
        }
    };
    for other in facts.backends.iter().filter(|b| b.name != chosen.name) {
        let why = match (wanted_backend, wanted_model) {
            (Some(name), _) => format!("{name} was asked for"),
            (None, Some(model)) if chosen.models.contains(model) => format!("{} has {model}", chosen.name),
            _ => format!("{} comes first", chosen.name),
        };
        rejected.push(Rejected { backend: other.name.clone(), why });
    }
    let model = wanted_model
        .or(chosen.default_model.as_ref())
        .or(chosen.models.first())
        .ok_or_else(|| format!("no model known on `{}`; name one with -m", chosen.name))?;
    let (rule, reason) = match (wanted_backend, wanted_model) {
        (None, Some(wanted)) if facts.backends.len() > 1 && chosen.models.contains(wanted) => {
            ("has-model", format!("{source}; {} has it", chosen.name))
        }
        _ => (rule, source.to_owned()),
    };
    Ok(Decision {
        backend: chosen.name.clone(),
        model: model.clone(),
        rule: rule.to_owned(),
        reason,
        rejected,
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
            models: models.iter().map(|m| (*m).to_owned()).collect(),
        }
    }

    fn facts(pin: Target, configured: Target) -> Facts {
        Facts {
            pin,
            configured,
            backends: vec![backend("local", &["builtin", "small"]), backend("mac", &["large"])],
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
