//! What the named commands do, from a slash line, a leader pair or a menu.

use super::effect::{CopyWhat, Effect};
use super::model::{PromptView, Saving};
use super::target::on_argument;
use super::turn::Lane;
use super::update::Step;
use crate::chat::SessionId;
use crate::chat::record::StoreJob;
use crate::command::{self, Command, When};
use crate::markdown::block::code_at;
use crate::router::{Target, route};
use crate::text::shown_line;

impl Step<'_> {
    /// Does a command. Returns whether it could be done; if not, the reason was said.
    pub(super) fn run_command(&mut self, command: Command, argument: &str) -> bool {
        self.run_line(command, argument, "")
    }

    /// The same, with the line it was typed as.
    pub(super) fn run_line(&mut self, command: Command, argument: &str, line: &str) -> bool {
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
            Command::Model | Command::Use if argument.is_empty() => self.open_models(""),
            Command::Model => return self.choose_model(argument),
            Command::Models => self.open_board(),
            Command::Load | Command::Unload | Command::Pin => return self.board_by_name(command, argument),
            Command::New => self.new_session(),
            Command::Sessions => self.open_sessions(),
            Command::Retry | Command::Continue | Command::Escalate => {
                let Ok(on) = self.target_argument(argument) else { return false };
                let is_done = match command {
                    Command::Retry => self.retry(on),
                    Command::Continue => self.continue_on(on),
                    _ => self.escalate(on),
                };
                // The command alone is not worth keeping.
                return is_done || argument.is_empty();
            }
            Command::Keep => return self.keep_numbered(argument) || argument.is_empty(),
            Command::Use => return self.use_target(argument),
            Command::On => return self.ask_on(argument, line) || argument.is_empty(),
            Command::Why => drop(self.open_why()),
            Command::Route => return self.open_route(argument) || argument.is_empty(),
            Command::Backends => self.open_machines(),
            Command::Stats => self.effect(Effect::ReadStats),
            Command::Fence => return self.fence_command(argument),
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

    /// The target an argument names: `--on X`, `X`, or nothing.
    fn target_argument(&mut self, argument: &str) -> Result<Option<Target>, ()> {
        match on_argument(argument) {
            "" if argument.is_empty() => Ok(None),
            name => self.named_target(name).map(Some).ok_or(()),
        }
    }

    fn keep_numbered(&mut self, argument: &str) -> bool {
        let Ok(number) = argument.parse::<usize>() else {
            self.bad("/keep takes the number of an answer, as /keep 2");
            return false;
        };
        self.keep(number)
    }

    /// `/fence`: what it keeps here; `/fence lift`: not for the next turn.
    fn fence_command(&mut self, argument: &str) -> bool {
        let held = self.model.facts().turn.fenced;
        match argument {
            "" if held.is_empty() => self.info("nothing in this conversation is behind the privacy fence"),
            "" => {
                self.info(&format!("this conversation stays on this machine: it holds {}", held.join(", ")));
            }
            "lift" if held.is_empty() => {
                self.info(
                    "nothing in this conversation is behind the privacy fence: there is nothing to lift",
                );
            }
            "lift" => {
                self.model.routing.is_fence_lifted = true;
                let held = held.join(", ");
                self.warn(&format!(
                    "the next turn may take {held} to another machine; it is noted in the session"
                ));
            }
            other => {
                self.bad(&format!("/fence {other}: it takes `lift`, or nothing"));
                return false;
            }
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
        let lanes = || self.model.turns.iter().flat_map(|turn| &turn.lanes);
        if argument.is_empty() {
            let has_text = |lane: &&Lane| lane.parts().iter().any(|part| !part.answer.is_empty());
            let answers = self.model.turns.iter().rev().filter_map(|turn| {
                // What was cut can be copied as well.
                turn.answer().or_else(|| turn.lanes.iter().rfind(has_text))
            });
            let Some(text) = answers.map(Lane::text).next() else {
                self.warn("no answer to copy yet");
                return false;
            };
            self.effect(Effect::Copy { text, what: CopyWhat::Answer });
            return true;
        }
        let Ok(number) = argument.parse::<usize>() else {
            self.bad(&format!(
                "/copy {argument}: give the number of a code block, or nothing for the answer"
            ));
            return false;
        };
        let holds = |lane: &&Lane| {
            let first = lane.first_code();
            (first..first + lane.code_count()).contains(&number)
        };
        let mut all = lanes();
        let found = all.find(holds).and_then(|lane| code_at(&lane.text(), number - lane.first_code()));
        let Some(text) = found else {
            let there = match lanes().map(Lane::code_count).sum() {
                0 => "there is none yet".to_owned(),
                count => format!("there are 1 to {count}"),
            };
            self.bad(&format!("no code block {number}: {there}"));
            return false;
        };
        self.effect(Effect::Copy { text, what: CopyWhat::Code { number } });
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
