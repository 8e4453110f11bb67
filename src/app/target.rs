//! Choosing where turns go: for the next one, for all, or for one of them alone.

use super::board::no_chat;
use super::effect::Effect;
use super::facts;
use super::generate::Input;
use super::picker;
use super::update::Step;
use crate::chat::{Change, ModelState};
use crate::command;
use crate::router::{Target, route};

/// The word for leaving the choice to the router.
const AUTO: &str = "auto";

/// What a name means.
enum Found {
    One(Target),
    /// Several models match it.
    Several,
    /// Nothing does; why, one line.
    Nothing(String),
}

impl Step<'_> {
    /// What a name means: `auto`, a backend, an alias, a model, a path, or the beginning of one.
    fn find(&self, name: &str) -> Found {
        let fleet = &self.model.fleet;
        let backends: Vec<String> = fleet.backends.iter().map(|b| b.name.clone()).collect();
        if name == AUTO && !backends.iter().any(|known| known == AUTO) {
            return Found::One(Target::default());
        }
        let aliases = &self.model.routing.aliases;
        let known: Vec<String> =
            fleet.backends.iter().flat_map(|b| &b.models).map(|card| card.id.clone()).collect();
        let target = Target::parse(name, &backends);
        let is_known = target.model.as_ref().is_none_or(|model| known.contains(model));
        let is_alias = aliases.iter().any(|alias| alias.name == name);
        let is_path = name.ends_with(".gguf") || name.starts_with(['/', '.', '~']);
        if is_known || is_alias || is_path || target.backend.is_some() || known.is_empty() {
            return Found::One(target);
        }
        let found = picker::matching(picker::models(self.model), name);
        match found.as_slice() {
            [] => {
                let names = known.iter().chain(aliases.iter().map(|alias| &alias.name));
                let near = names.min_by_key(|id| strsim::damerau_levenshtein(id, name));
                let hint = near.map_or_else(String::new, |id| format!("; the nearest is {id}"));
                Found::Nothing(hint)
            }
            [only] => Found::One(Target::parse(only, &backends)),
            _ => Found::Several,
        }
    }

    /// `/model name`.
    pub(super) fn choose_model(&mut self, name: &str) -> bool {
        match self.find(name) {
            Found::One(target) => self.pin(target),
            Found::Several => {
                self.open_models(name);
                true
            }
            Found::Nothing(hint) => {
                self.bad(&format!("no model `{name}`{hint}: /model lists them"));
                false
            }
        }
    }

    /// The target a command names, as `/on X text` and `/retry --on X` do. None: the reason was said.
    pub(super) fn named_target(&mut self, name: &str) -> Option<Target> {
        let why = match self.find(name) {
            Found::One(target) if self.embeds(&target) => {
                no_chat(target.model.as_deref().unwrap_or_default())
            }
            Found::One(target) => return Some(target),
            Found::Several => format!("`{name}` means several models: give more of the name"),
            Found::Nothing(hint) => format!("no target `{name}`{hint}"),
        };
        let choices = self.choices();
        self.bad(&format!("{why}; nothing was sent\nthere is {choices}; /model lists the models"));
        None
    }

    /// What can be named beside models.
    fn choices(&self) -> String {
        let backends = self.model.fleet.backends.iter().map(|backend| backend.name.as_str());
        let aliases = self.model.routing.aliases.iter().map(|alias| alias.name.as_str());
        std::iter::once(AUTO).chain(backends).chain(aliases).collect::<Vec<_>>().join(", ")
    }

    fn embeds(&self, target: &Target) -> bool {
        let model = target.model.as_ref();
        model.is_some_and(|model| self.model.fleet.embeds(target.backend.as_deref(), model))
    }

    /// `/use X`: until something else is chosen.
    pub(super) fn use_target(&mut self, argument: &str) -> bool {
        match self.named_target(argument) {
            Some(target) => self.pin(target),
            None => false,
        }
    }

    /// `/on X text`: for this turn alone.
    pub(super) fn ask_on(&mut self, argument: &str, line: &str) -> bool {
        let (name, text) = argument.split_once(char::is_whitespace).unwrap_or((argument, ""));
        let text = text.trim();
        if name.is_empty() || text.is_empty() {
            self.bad("/on takes a target and a question, as /on local What is a monad?");
            return false;
        }
        let Some(target) = self.named_target(name) else { return false };
        self.send_on(target, text, Input::New(line))
    }

    /// `/fast text`, where `fast` is an alias: the line as an argument of `/on`. Commands go first.
    pub(super) fn alias_line(&self, line: &str) -> Option<String> {
        let rest = line.strip_prefix('/')?;
        let name = rest.split(char::is_whitespace).next()?;
        let is_alias = self.model.routing.aliases.iter().any(|alias| alias.name == name);
        (is_alias && command::named(&name.to_lowercase()).is_none()).then(|| rest.to_owned())
    }

    /// Shift+Tab: the router's choice, then each backend.
    pub(super) fn next_target(&mut self) {
        let names: Vec<String> = self.model.fleet.backends.iter().map(|b| b.name.clone()).collect();
        if names.len() < 2 {
            return self.info("there is one machine: [[backend]] in the configuration adds another");
        }
        let at = self.model.prefs.pin.backend.as_ref();
        let next = match at.and_then(|name| names.iter().position(|known| known == name)) {
            // A pinned model leaves the machine to the router as well.
            None => names.first(),
            Some(at) => names.get(at + 1),
        };
        self.model.prefs.pin = Target { backend: next.cloned(), model: None };
    }

    /// Pins `backend/model` or a backend, as a list gives it, and loads the model if the engine has it.
    pub(super) fn pin_model(&mut self, value: &str) -> bool {
        let backends: Vec<String> = self.model.fleet.backends.iter().map(|b| b.name.clone()).collect();
        self.pin(Target::parse(value, &backends))
    }

    fn pin(&mut self, target: Target) -> bool {
        if self.embeds(&target)
            && let Some(model) = &target.model
        {
            self.warn(&no_chat(model));
            return false;
        }
        let is_auto = target.is_open();
        let before = std::mem::replace(&mut self.model.prefs.pin, target);
        if is_auto {
            // Chosen anew, wherever it went so far.
            self.model.session.target = Target::default();
        }
        // One that is away can be chosen all the same: it may be back by then.
        let mut facts = self.model.facts();
        if let Some(backend) = &self.model.prefs.pin.backend {
            facts::hope(&mut facts, backend);
        }
        let decision = match route(&facts) {
            Ok(decision) => decision,
            Err(why) => {
                self.model.prefs.pin = before;
                self.bad(&why);
                return false;
            }
        };
        let card = self.model.fleet.card(&decision.backend, &decision.model);
        let is_loaded = card.is_some_and(|card| card.state == ModelState::Loaded);
        if self.model.fleet.is_engine(&decision.backend) && !is_loaded && !is_auto {
            let (backend, model) = (decision.backend.clone(), decision.model.clone());
            self.effect(Effect::ChangeModel { backend, model, change: Change::Load { context: None } });
        }
        let auto = if is_auto { "auto: " } else { "" };
        self.info(&format!("next turn: {auto}{} · {}", decision.backend, decision.model));
        true
    }
}

/// The argument of a command that takes a target, with or without `--on` before it.
pub(super) fn on_argument(argument: &str) -> &str {
    let rest =
        argument.strip_prefix("--on").filter(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '=']));
    rest.map_or(argument, |rest| rest.trim_start_matches('=').trim())
}
