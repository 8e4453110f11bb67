//! What the named commands do, from a slash line, a leader pair or a menu.

use super::board::no_chat;
use super::effect::{CopyWhat, Effect};
use super::model::{PromptView, Saving};
use super::picker;
use super::turn::{Attempt, Lane};
use super::update::Step;
use crate::chat::record::StoreJob;
use crate::chat::{Change, ModelState, SessionId};
use crate::command::{self, Command, When};
use crate::markdown::block::code_at;
use crate::router::{Target, route};
use crate::text::shown_line;

impl Step<'_> {
    /// Does a command. Returns whether it could be done; if not, the reason was said.
    pub(super) fn run_command(&mut self, command: Command, argument: &str) -> bool {
        let Some(spec) = command::spec(command) else { return false };
        if spec.when == When::Idle && self.running().is_some() {
            let name = spec.slash.first().copied().unwrap_or_default();
            self.warn(&format!("/{name} waits for the running turn: esc stops it"));
            return false;
        }
        if spec.argument.is_empty() && !argument.is_empty() {
            let name = spec.slash.first().copied().unwrap_or_default();
            self.bad(&format!("/{name} takes no argument"));
            return false;
        }
        match command {
            Command::Help => self.open_help(),
            Command::Model if argument.is_empty() => self.open_models(""),
            Command::Model => return self.choose_model(argument),
            Command::Models => self.open_board(),
            Command::Load | Command::Unload | Command::Pin => return self.board_by_name(command, argument),
            Command::New => self.new_session(),
            Command::Sessions => self.open_sessions(),
            Command::Retry => self.retry(),
            Command::Stop if self.running().is_none() => self.warn("no turn is running"),
            Command::Stop => self.cancel(),
            Command::Copy => return self.copy(argument),
            Command::Think => self.toggle_thinking(),
            Command::System => self.system(argument),
            Command::Prompt if argument.is_empty() => self.open_prompts(),
            Command::Prompt => return self.choose_prompt(argument),
            Command::Theme if argument.is_empty() => self.open_themes(),
            Command::Theme => return self.choose_theme(argument),
            Command::Status => self.status(),
            Command::Quit => self.quit("/quit"),
            // All others are keys, handled where they are pressed.
            _ => return false,
        }
        true
    }

    /// Leaves; while a turn runs, only when asked twice.
    pub(super) fn quit(&mut self, how: &str) {
        match self.running() {
            Some(key) if self.model.pending.asked_to_quit != Some(key) => {
                self.model.pending.asked_to_quit = Some(key);
                self.warn(&format!("a turn is running: {how} again stops it and leaves, esc only stops it"));
            }
            _ => self.leave(),
        }
    }

    /// Leaves: what runs is ended, what was typed is kept.
    pub(super) fn leave(&mut self) {
        self.end_all();
        if !self.model.composer.buffer.is_blank() {
            let draft = self.model.composer.buffer.expanded();
            self.remember(&draft);
        }
        self.effect(Effect::Quit { code: 0 });
    }

    /// Unfolds or folds the thinking of the newest answer that has any.
    fn toggle_thinking(&mut self) {
        let lanes = self.model.turns.iter_mut().rev().flat_map(|turn| &mut turn.lanes);
        let mut attempts = lanes.filter_map(|lane| lane.attempts.last_mut());
        match attempts.find(|attempt| !attempt.thinking.is_empty()) {
            Some(attempt) => {
                attempt.thinking_open = !attempt.thinking_open;
                let how = if attempt.thinking_open { "unfolded" } else { "folded" };
                self.info(&format!("thinking {how}"));
            }
            None => self.warn("no answer has thinking in it"),
        }
    }

    /// Copies the last answer, or a code block by its number on the screen.
    fn copy(&mut self, argument: &str) -> bool {
        let current = || self.model.turns.iter().flat_map(|turn| &turn.lanes).filter_map(Lane::current);
        if argument.is_empty() {
            let Some(answer) = current().rfind(|attempt| !attempt.answer.is_empty()) else {
                self.warn("no answer to copy yet");
                return false;
            };
            let text = answer.answer.raw().to_owned();
            self.effect(Effect::Copy { text, what: CopyWhat::Answer });
            return true;
        }
        let Ok(number) = argument.parse::<usize>() else {
            self.bad(&format!(
                "/copy {argument}: give the number of a code block, or nothing for the answer"
            ));
            return false;
        };
        let holds = |attempt: &&Attempt| {
            let count = attempt.answer.blocks().code_count();
            (attempt.first_code..attempt.first_code + count).contains(&number)
        };
        let found = current().find(holds).and_then(|a| code_at(a.answer.raw(), number - a.first_code));
        let Some(text) = found else {
            let there = match current().map(|attempt| attempt.answer.blocks().code_count()).sum() {
                0 => "there is none yet".to_owned(),
                count => format!("there are 1 to {count}"),
            };
            self.bad(&format!("no code block {number}: {there}"));
            return false;
        };
        self.effect(Effect::Copy { text, what: CopyWhat::Code { number } });
        true
    }

    fn choose_model(&mut self, name: &str) -> bool {
        let fleet = &self.model.fleet;
        let backends: Vec<String> = fleet.backends.iter().map(|b| b.name.clone()).collect();
        let known: Vec<String> =
            fleet.backends.iter().flat_map(|b| &b.models).map(|card| card.id.clone()).collect();
        let target = Target::parse(name, &backends);
        let is_known = target.model.as_ref().is_none_or(|model| known.contains(model));
        let is_path = name.ends_with(".gguf") || name.starts_with(['/', '.', '~']);
        if is_known || is_path || target.backend.is_some() || known.is_empty() {
            return self.pin(target);
        }
        let found = picker::matching(picker::models(fleet, &self.model.prefs), name);
        match found.as_slice() {
            [] => {
                let near = known.iter().min_by_key(|id| strsim::damerau_levenshtein(id, name));
                let hint = near.map_or_else(String::new, |id| format!("; the nearest is {id}"));
                self.bad(&format!("no model `{name}`{hint}: /model lists them"));
                false
            }
            [only] => self.pin_model(only),
            _ => {
                self.open_models(name);
                true
            }
        }
    }

    /// Pins `backend/model` or a backend, as a list gives it, and loads the model if the engine has it.
    pub(super) fn pin_model(&mut self, value: &str) -> bool {
        let backends: Vec<String> = self.model.fleet.backends.iter().map(|b| b.name.clone()).collect();
        self.pin(Target::parse(value, &backends))
    }

    fn pin(&mut self, target: Target) -> bool {
        if let Some(model) = &target.model
            && self.model.fleet.embeds(target.backend.as_deref(), model)
        {
            self.warn(&no_chat(model));
            return false;
        }
        let before = std::mem::replace(&mut self.model.prefs.pin, target);
        let decision = match route(&self.model.facts()) {
            Ok(decision) => decision,
            Err(why) => {
                self.model.prefs.pin = before;
                self.bad(&why);
                return false;
            }
        };
        let card = self.model.fleet.card(&decision.backend, &decision.model);
        let is_loaded = card.is_some_and(|card| card.state == ModelState::Loaded);
        if self.model.fleet.is_engine(&decision.backend) && !is_loaded {
            let (backend, model) = (decision.backend.clone(), decision.model.clone());
            self.effect(Effect::ChangeModel { backend, model, change: Change::Load { context: None } });
        }
        self.info(&format!("next turn: {} · {}", decision.backend, decision.model));
        true
    }

    fn choose_theme(&mut self, name: &str) -> bool {
        let themes = &self.model.prefs.themes;
        if themes.iter().any(|theme| theme == name) {
            self.effect(Effect::LoadTheme { name: name.to_owned() });
            return true;
        }
        let all = themes.join(", ");
        self.bad(&format!("no theme `{name}`; there is {all}"));
        false
    }

    fn choose_prompt(&mut self, name: &str) -> bool {
        if self.model.prefs.prompts.iter().any(|prompt| prompt.name == name) {
            self.use_prompt(name);
            return true;
        }
        let all =
            self.model.prefs.prompts.iter().map(|prompt| prompt.name.as_str()).collect::<Vec<_>>().join(", ");
        self.bad(&format!("no prompt `{name}`; there is {all}"));
        false
    }

    /// Takes a prompt by its name.
    pub(super) fn use_prompt(&mut self, name: &str) {
        let found = self.model.prefs.prompts.iter().find(|prompt| prompt.name == name);
        if let Some(PromptView { name, text, .. }) = found.cloned() {
            self.set_system(Some(text), Some(name.clone()));
            self.say_system(&format!("system prompt {name}"));
        }
    }

    fn system(&mut self, argument: &str) {
        match argument {
            "" => {
                let text = match &self.model.session.system {
                    Some(system) => format!("system prompt: {system}"),
                    None => "no system prompt".to_owned(),
                };
                self.info(&text);
            }
            "off" => {
                self.set_system(None, None);
                self.say_system("no system prompt");
            }
            text => {
                self.set_system(Some(text.to_owned()), None);
                self.say_system("system prompt set");
            }
        }
    }

    fn say_system(&mut self, what: &str) {
        // The prefix changes, so nothing cached is of use any more.
        let cost =
            if self.model.turns.is_empty() { "" } else { "; the next turn reads the conversation anew" };
        self.info(&format!("{what}{cost}"));
    }

    fn set_system(&mut self, system: Option<String>, name: Option<String>) {
        if self.model.session.is_opened && system != self.model.session.system {
            let session = self.model.session.id.clone();
            self.store(StoreJob::SetSystem { session, system: system.clone() });
        }
        self.model.session.system = system;
        self.model.session.prompt_name = name;
    }

    fn status(&mut self) {
        let model = &*self.model;
        let target = match route(&model.facts()) {
            Ok(decision) => format!("{} · {}", decision.backend, decision.model),
            Err(why) => why,
        };
        let lanes = || model.turns.iter().flat_map(|turn| &turn.lanes);
        let written: u64 = lanes()
            .flat_map(|lane| &lane.attempts)
            .filter_map(|attempt| attempt.metrics.usage.output_tokens)
            .map(u64::from)
            .sum();
        let mut last = lanes().filter_map(Lane::current).filter_map(|attempt| {
            let usage = attempt.metrics.usage;
            Some(u64::from(usage.prompt_tokens?) + u64::from(usage.output_tokens?))
        });
        let context = last.next_back().map_or_else(String::new, |n| format!(" · context {n} tokens"));
        let saving = match &model.session.saving {
            Saving::On => "saved".to_owned(),
            Saving::Off => "not saved".to_owned(),
            Saving::Impossible(why) => format!("not saved: {}", &**why),
            Saving::Failing(why) => format!("not saved: {}; tried again", &**why),
        };
        let turns = model.turns.len();
        let s = if turns == 1 { "" } else { "s" };
        let id = &model.session.id;
        let text = format!(
            "session {id} · {target} · {turns} turn{s}{context} · {written} tokens written · {saving}"
        );
        self.info(&shown_line(&text, 400));
    }

    /// The id of the next session: the clock, and bits that differ from every other one made here.
    pub(super) fn next_session_id(&self) -> SessionId {
        // FNV-1a over the old id, which is random, and the monotonic clock.
        let now = self.ctx.now.as_nanos().to_le_bytes();
        let old = self.model.session.id.as_str().bytes();
        let hash = old
            .chain(now)
            .fold(0x811C_9DC5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        SessionId::new(u64::try_from(self.ctx.wall_ms / 1000).unwrap_or(0), hash)
    }
}
