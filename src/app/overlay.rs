//! What lies over the page: the help and the pickers, their keys, and what choosing does.

use super::effect::Effect;
use super::keys::{Armed, edit_of};
use super::model::{Overlay, Picker, PickerItem, PickerKind};
use super::picker;
use super::update::Step;
use crate::chat::SessionId;
use crate::chat::record::SessionRecord;
use crate::command::Command;
use crate::keymap::{Chord, Context, help, lookup};
use crate::text::EditBuffer;

/// Entries a page key skips in a list.
pub(super) const PAGE: usize = 10;

impl Step<'_> {
    /// A key while a list is in front.
    pub(super) fn picker_key(&mut self, chord: Chord, armed: Armed) {
        let Some(binding) = lookup(&[Context::Picker, Context::Global], chord) else {
            if let Some(c) = chord.typed() {
                self.filter(|filter| filter.insert(c.encode_utf8(&mut [0; 4])));
            }
            return;
        };
        match binding.command {
            Command::Previous => self.mark(|at, _| at.saturating_sub(1)),
            Command::Next => self.mark(|at, _| at + 1),
            Command::PreviousPage => self.mark(|at, _| at.saturating_sub(PAGE)),
            Command::NextPage => self.mark(|at, _| at + PAGE),
            Command::First => self.mark(|_, _| 0),
            Command::Last => self.mark(|_, len| len),
            Command::Accept => self.accept(),
            command => match edit_of(command) {
                Some(edit) => self.filter(edit),
                None => self.run(command, armed),
            },
        }
    }

    /// A key while the help is in front.
    pub(super) fn help_key(&mut self, chord: Chord, armed: Armed) {
        let Some(binding) = lookup(&[Context::Help, Context::Global], chord) else { return };
        let rows = usize::from(self.model.size.1);
        let page = (rows / 2).max(1);
        // On a narrow screen an entry takes up to three rows; the view stops at the last one.
        let last = self.ctx.frame.help_last.unwrap_or_else(|| help().len() * 3);
        let Some(Overlay::Help { top }) = self.model.overlays.last_mut() else { return };
        let to = match binding.command {
            Command::Previous => top.saturating_sub(1),
            Command::Next => *top + 1,
            Command::PreviousPage => top.saturating_sub(page),
            Command::NextPage => *top + page,
            Command::First => 0,
            Command::Last => last,
            Command::Close => {
                self.model.overlays.pop();
                return;
            }
            command => return self.run(command, armed),
        };
        *top = to.min(last);
    }

    /// A key while there is something to read in front.
    pub(super) fn sheet_key(&mut self, chord: Chord, armed: Armed) {
        let Some(binding) = lookup(&[Context::Sheet, Context::Help, Context::Global], chord) else { return };
        let page = (usize::from(self.model.size.1) / 2).max(1);
        let last = self.ctx.frame.help_last;
        let Some(Overlay::Sheet(sheet)) = self.model.overlays.last_mut() else { return };
        let last = last.unwrap_or_else(|| sheet.rows.len().saturating_sub(1));
        let to = match binding.command {
            Command::Previous => sheet.top.saturating_sub(1),
            Command::Next => sheet.top + 1,
            Command::PreviousPage => sheet.top.saturating_sub(page),
            Command::NextPage => sheet.top + page,
            Command::First => 0,
            Command::Last => last,
            Command::Close => return drop(self.model.overlays.pop()),
            Command::RouteAgain => return self.route_again(),
            command => return self.run(command, armed),
        };
        sheet.top = to.min(last);
    }

    /// Opens the help.
    pub(super) fn open_help(&mut self) {
        self.model.overlays.push(Overlay::Help { top: 0 });
    }

    /// Opens the list of models and asks every backend for its own.
    pub(super) fn open_models(&mut self, filter: &str) {
        let items = picker::models(self.model);
        self.open(PickerKind::Model, items, filter);
        for name in self.model.fleet.backends.iter().map(|backend| backend.name.clone()).collect::<Vec<_>>() {
            self.effect(Effect::ListModels { backend: name });
        }
    }

    /// Opens the list of themes.
    pub(super) fn open_themes(&mut self) {
        let items = picker::themes(&self.model.prefs);
        self.open(PickerKind::Theme, items, "");
    }

    /// Opens the list of system prompts.
    pub(super) fn open_prompts(&mut self) {
        let items = picker::prompts(&self.model.prefs);
        self.open(PickerKind::Prompt, items, "");
    }

    /// Opens the list of earlier inputs, the last one first; the draft stays.
    pub(super) fn open_history(&mut self) {
        if self.model.composer.history.is_empty() {
            return self.warn("no earlier messages yet");
        }
        let items = picker::inputs(&self.model.composer.history);
        self.open(PickerKind::History, items, "");
    }

    /// Opens the list of sessions and asks for them.
    pub(super) fn open_sessions(&mut self) {
        self.open(PickerKind::Session, Vec::new(), "");
        self.effect(Effect::ListSessions);
    }

    /// Saved sessions: into the list, if it is still open.
    pub(super) fn sessions(&mut self, result: Result<Vec<SessionRecord>, String>) {
        let items = match result {
            Ok(sessions) => picker::sessions(&sessions, &self.model.session.id, self.ctx.wall_ms),
            Err(why) => {
                self.model.overlays.retain(|overlay| kind(overlay) != Some(PickerKind::Session));
                return self.bad(&why);
            }
        };
        if items.is_empty() && self.model.overlays.iter().any(|o| kind(o) == Some(PickerKind::Session)) {
            self.model.overlays.retain(|overlay| kind(overlay) != Some(PickerKind::Session));
            return self.warn("no other saved session");
        }
        self.refill(PickerKind::Session, &items);
    }

    /// The models changed: so does an open list of them.
    pub(super) fn refresh_models(&mut self) {
        let items = picker::models(self.model);
        self.refill(PickerKind::Model, &items);
    }

    /// Whether what is typed goes into a filter.
    pub(super) fn has_filter(&self) -> bool {
        match self.model.overlays.last() {
            Some(Overlay::Picker(_)) => true,
            Some(Overlay::Board(board)) => board.is_filtering,
            Some(Overlay::Help { .. } | Overlay::Backends { .. } | Overlay::Sheet(_)) | None => false,
        }
    }

    /// Changes the filter of the front list.
    pub(super) fn filter(&mut self, edit: impl FnOnce(&mut EditBuffer)) {
        match self.model.overlays.last_mut() {
            Some(Overlay::Picker(picker)) => {
                let before = picker.filter.text().to_owned();
                edit(&mut picker.filter);
                if picker.filter.text() != before {
                    picker.rematch();
                }
            }
            Some(Overlay::Board(board)) => edit(&mut board.filter),
            Some(Overlay::Help { .. } | Overlay::Backends { .. } | Overlay::Sheet(_)) | None => {}
        }
    }

    fn open(&mut self, kind: PickerKind, items: Vec<PickerItem>, filter: &str) {
        let mut picker =
            Picker { kind, filter: EditBuffer::from_text(filter), items, matches: Vec::new(), selected: 0 };
        picker.rematch();
        self.model.composer.completion = None;
        self.model.overlays.push(Overlay::Picker(picker));
    }

    fn refill(&mut self, wanted: PickerKind, items: &[PickerItem]) {
        for overlay in &mut self.model.overlays {
            if let Overlay::Picker(picker) = overlay
                && picker.kind == wanted
            {
                picker.refill(items.to_vec());
            }
        }
    }

    fn mark(&mut self, to: impl FnOnce(usize, usize) -> usize) {
        if let Some(Overlay::Picker(picker)) = self.model.overlays.last_mut() {
            let len = picker.matches.len();
            picker.selected = to(picker.selected, len).min(len.saturating_sub(1));
        }
    }

    fn accept(&mut self) {
        let Some(Overlay::Picker(picker)) = self.model.overlays.last() else { return };
        let Some(value) = picker.chosen().map(|item| item.value.clone()) else { return };
        let kind = picker.kind;
        self.model.overlays.pop();
        match kind {
            PickerKind::Model => {
                self.pin_model(&value);
            }
            PickerKind::Theme => self.effect(Effect::LoadTheme { name: value }),
            PickerKind::Prompt => self.use_prompt(&value),
            PickerKind::Session => self.effect(Effect::LoadSession { id: SessionId(value) }),
            PickerKind::History => {
                if let Ok(at) = value.parse() {
                    self.recall(at);
                }
            }
        }
    }
}

fn kind(overlay: &Overlay) -> Option<PickerKind> {
    match overlay {
        Overlay::Picker(picker) => Some(picker.kind),
        Overlay::Help { .. } | Overlay::Board(_) | Overlay::Backends { .. } | Overlay::Sheet(_) => None,
    }
}
