//! The input field: editing, Enter, slash command completion, earlier inputs, the queue.

use super::generate::Input;
use super::model::{Completion, QueueFlow};
use super::update::Step;
use crate::chat::record::StoreJob;
use crate::command::{self, Command, Line, Spec};
use crate::text::EditBuffer;

/// Classes of tasks people expect to be aliases.
const CLASSES: [&str; 5] = ["fast", "deep", "code", "small", "large"];
/// Earlier inputs kept in memory.
const HISTORY: usize = 1000;

impl Step<'_> {
    /// Types a character.
    pub(super) fn type_char(&mut self, c: char) {
        self.edit(|buffer| buffer.insert(c.encode_utf8(&mut [0; 4])));
    }

    /// Changes the draft; the popup of commands follows it.
    pub(super) fn edit(&mut self, edit: impl FnOnce(&mut EditBuffer)) {
        edit(&mut self.model.composer.buffer);
        let draft = self.model.composer.buffer.text();
        let items = command::complete(draft).unwrap_or_default();
        let mut items: Vec<_> = items.into_iter().map(|(name, spec)| item(name, spec)).collect();
        items.extend(self.aliases_like(self.model.composer.buffer.text()));
        self.model.composer.completion = (!items.is_empty()).then_some(Completion { items, selected: 0 });
        self.typed();
    }

    /// Moves the cursor; the popup stays.
    pub(super) fn movement(&mut self, movement: impl FnOnce(&mut EditBuffer)) {
        movement(&mut self.model.composer.buffer);
    }

    /// Marks another candidate.
    pub(super) fn mark_completion(&mut self, to: impl FnOnce(usize) -> usize) {
        if let Some(completion) = &mut self.model.composer.completion {
            completion.selected = to(completion.selected).min(completion.items.len().saturating_sub(1));
        }
    }

    /// Puts the marked candidate into the draft.
    pub(super) fn complete(&mut self) {
        let Some(completion) = self.model.composer.completion.take() else { return };
        let Some((label, _)) = completion.items.into_iter().nth(completion.selected) else { return };
        // What follows the name is its argument as the list shows it.
        let name = label.split(' ').next().unwrap_or_default().to_owned();
        let word = name.trim_start_matches('/');
        let takes_argument = match command::named(word) {
            Some(spec) => !spec.argument.is_empty(),
            None => self.is_alias(word),
        };
        let text = if takes_argument { name + " " } else { name };
        let buffer = &mut self.model.composer.buffer;
        buffer.replace(0..buffer.text().len(), &text);
    }

    /// Enter: a line break after a backslash, a command, a message, or the next one of a paused queue.
    pub(super) fn enter(&mut self) {
        let buffer = &mut self.model.composer.buffer;
        let at = buffer.cursor();
        if buffer.text().get(..at).is_some_and(|before| before.ends_with('\\')) {
            return self.edit(|buffer| buffer.replace(at - 1..at, "\n"));
        }
        if let Some(completion) = &self.model.composer.completion {
            let draft = self.model.composer.buffer.text().trim_start_matches('/').to_lowercase();
            if command::named(&draft).is_none() && !self.is_alias(&draft) {
                let is_unique = completion.items.len() == 1;
                self.complete();
                if !is_unique {
                    return;
                }
            }
        }
        self.model.composer.completion = None;
        if self.model.composer.buffer.is_blank() {
            return self.resume_queue();
        }
        let line = self.model.composer.buffer.expanded();
        // A paste that is kept aside is text, whatever it begins with.
        let begins_typed = self.model.composer.buffer.text().starts_with(['/', ' ', '\t']);
        let alias = self.alias_line(&line).filter(|_| begins_typed);
        let read = match alias {
            Some(argument) => Line::Run { command: Command::On, argument },
            None if begins_typed => command::parse(&line),
            None => Line::Text(line.clone()),
        };
        match read {
            Line::Text(text) => self.submit(text.trim_end(), &line),
            Line::Run { command, argument } => {
                let draft = self.draft();
                self.take_draft();
                // A question for one target is remembered where it is sent.
                if self.run_line(command, &argument, &line) {
                    if command != Command::On {
                        self.note_input(&line);
                    }
                } else {
                    self.put_back(draft);
                }
            }
            Line::Unknown { word, nearest } => {
                let hint = match nearest {
                    _ if CLASSES.contains(&word.as_str()) => {
                        "an [[alias]] of that name in the configuration makes it one.".to_owned()
                    }
                    Some(name) => format!("did you mean /{name}?"),
                    None => "/help lists them.".to_owned(),
                };
                self.bad(&format!("no command /{word}: {hint} A blank before the slash sends it as text."));
            }
        }
    }

    fn submit(&mut self, text: &str, line: &str) {
        if text.is_empty() {
            return;
        }
        if self.running().is_some() {
            self.model.queue.push(text.to_owned());
            self.take_draft();
            self.remember(line);
            return;
        }
        let draft = self.draft();
        self.take_draft();
        if self.send(text, Input::New(line)) {
            // Only what was pasted would come back as something else.
            let (draft, _) = draft;
            let turn = self.model.turns.last().filter(|_| draft.text() != draft.expanded());
            self.model.pending.sent = turn.map(|turn| (turn.id, draft));
        } else {
            self.put_back(draft);
        }
    }

    fn draft(&self) -> (EditBuffer, Option<(usize, EditBuffer)>) {
        (self.model.composer.buffer.clone(), self.model.composer.recalled.clone())
    }

    fn put_back(&mut self, (buffer, recalled): (EditBuffer, Option<(usize, EditBuffer)>)) {
        self.model.composer.buffer = buffer;
        self.model.composer.recalled = recalled;
    }

    /// Enter on an empty draft: a paused queue goes on.
    fn resume_queue(&mut self) {
        if self.model.pending.queue == QueueFlow::Paused && self.running().is_none() {
            self.model.pending.queue = QueueFlow::Flowing;
            self.send_queued();
        }
    }

    /// Ctrl+C on a draft: it goes into the history.
    pub(super) fn clear_draft(&mut self) {
        let draft = self.take_draft();
        if !draft.trim().is_empty() {
            self.remember(&draft);
            self.info("draft cleared: ctrl+p brings it back");
        }
    }

    /// Takes the draft out. Where an earlier input was shown, the draft it displaced comes back.
    fn take_draft(&mut self) -> String {
        let composer = &mut self.model.composer;
        composer.completion = None;
        let text = composer.buffer.take();
        if let Some((_, displaced)) = composer.recalled.take().filter(|(_, draft)| !draft.is_empty()) {
            composer.buffer = displaced;
        }
        text
    }

    /// Puts a line into the history, and gives it to the store unless it begins with a blank.
    pub(super) fn remember(&mut self, line: &str) {
        self.note_input(line);
        if !line.starts_with([' ', '\t']) {
            let (text, created_ms) = (line.to_owned(), self.ctx.wall_ms);
            self.store(StoreJob::RememberInput { text, created_ms });
        }
    }

    fn note_input(&mut self, line: &str) {
        let history = &mut self.model.composer.history;
        if self.model.composer.recalled.is_none() {
            history.retain(|earlier| earlier != line);
            if history.len() >= HISTORY {
                history.remove(0);
            }
        }
        history.push(line.to_owned());
    }

    /// Up: a row up, at the first row an earlier input; on an empty draft the last queued message.
    pub(super) fn up(&mut self) {
        let width = self.composer_width();
        let composer = &mut self.model.composer;
        if composer.buffer.is_empty()
            && composer.recalled.is_none()
            && let Some(text) = self.model.queue.pop()
        {
            composer.buffer = EditBuffer::from_text(&command::protect(&text));
            if self.model.queue.is_empty() {
                self.model.pending.queue = QueueFlow::Flowing;
            }
        } else if !composer.buffer.up(width) {
            self.recall_previous();
        }
    }

    /// Down: a row down, at the last row a later input, and at last the draft.
    pub(super) fn down(&mut self) {
        let width = self.composer_width();
        if !self.model.composer.buffer.down(width) {
            self.recall_next();
        }
    }

    /// Shows the input before the one shown.
    pub(super) fn recall_previous(&mut self) {
        let shown = self.model.composer.recalled.as_ref().map(|(at, _)| *at);
        let before = shown.unwrap_or(self.model.composer.history.len());
        if let Some(at) = before.checked_sub(1) {
            self.recall(at);
        }
    }

    /// Shows the input after the one shown, after the last one the draft.
    pub(super) fn recall_next(&mut self) {
        let Some((at, _)) = self.model.composer.recalled else { return };
        self.keep_changes();
        if at + 1 < self.model.composer.history.len() {
            self.show_input(at + 1);
        } else if let Some((_, draft)) = self.model.composer.recalled.take() {
            self.model.composer.completion = None;
            self.model.composer.buffer = draft;
        }
    }

    /// Shows an input; the draft is kept.
    pub(super) fn recall(&mut self, at: usize) {
        self.keep_changes();
        self.show_input(at);
    }

    fn show_input(&mut self, at: usize) {
        let composer = &mut self.model.composer;
        let Some(text) = composer.history.get(at) else { return };
        let shown = EditBuffer::from_text(text);
        composer.completion = None;
        let displaced = std::mem::replace(&mut composer.buffer, shown);
        match &mut composer.recalled {
            Some((shown, _)) => *shown = at,
            None => composer.recalled = Some((at, displaced)),
        }
    }

    /// An earlier input that was changed while shown becomes an input of its own.
    fn keep_changes(&mut self) {
        let composer = &mut self.model.composer;
        let Some((at, _)) = &composer.recalled else { return };
        let text = composer.buffer.expanded();
        let was = composer.history.get(*at).map(|text| EditBuffer::from_text(text).expanded());
        if !text.trim().is_empty() && was.as_ref() != Some(&text) {
            composer.history.push(text);
        }
    }

    fn composer_width(&self) -> usize {
        match self.ctx.frame.composer_width {
            0 => usize::from(self.model.size.0),
            width => width,
        }
    }
}

/// Targets an alias lists in the popup.
const ALIAS_TARGETS: usize = 3;

impl Step<'_> {
    fn is_alias(&self, word: &str) -> bool {
        self.model.routing.aliases.iter().any(|alias| alias.name == word)
    }

    /// Aliases that begin with what is typed after the slash.
    fn aliases_like(&self, draft: &str) -> Vec<(String, String)> {
        let Some(typed) = draft.strip_prefix('/') else { return Vec::new() };
        let aliases = self.model.routing.aliases.iter();
        let fitting =
            aliases.filter(|alias| alias.name.starts_with(typed) && command::named(&alias.name).is_none());
        fitting
            .map(|alias| {
                let more = if alias.targets.len() > ALIAS_TARGETS { ", …" } else { "" };
                let targets: Vec<&str> =
                    alias.targets.iter().take(ALIAS_TARGETS).map(String::as_str).collect();
                (format!("/{} text", alias.name), format!("ask {}{more} this time", targets.join(", ")))
            })
            .collect()
    }
}

fn item(name: &str, spec: &Spec) -> (String, String) {
    let label = match spec.argument {
        "" => format!("/{name}"),
        argument => format!("/{name} {argument}"),
    };
    (label, spec.about.to_owned())
}
