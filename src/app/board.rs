//! The residency board: its keys, and the changes they ask for. Its rows are in `rows`. How it looks is in `ui`.
//!
//! Nothing is taken for granted: a row shows what the server told last, and a change shows when the server tells
//! of it. Only pins and keep-alives are shown at once, for their key may be pressed again before the answer.

use super::effect::{Effect, TimerId};
use super::keys::{Armed, edit_of};
use super::model::{Board, Level, Overlay};
use super::notice::one_line;
use super::overlay::PAGE;
use super::picker;
use super::turn::Lane;
use super::update::Step;
use crate::chat::{Change, Fit, KeepAlive, Machine, ModelCard, ModelState, Residency, Verdict};
use crate::command::Command;
use crate::keymap::{Chord, Context, lookup};
use crate::text::{EditBuffer, shown_line};
use rows::{key_of, until_change};
use std::time::Duration;

mod asked;
mod rows;

pub(super) use rows::no_chat;
pub use rows::{Row, marked, names, passed, rows, to_come};

/// Cells of what is said below the rows at most.
const CELLS: usize = 400;
/// What the key for it goes through.
const KEEP: [KeepAlive; 5] = [
    KeepAlive::Default,
    KeepAlive::Seconds(300),
    KeepAlive::Seconds(3600),
    KeepAlive::ForEver,
    KeepAlive::Seconds(0),
];

impl Step<'_> {
    /// Opens the board and asks every backend.
    pub(super) fn open_board(&mut self) {
        self.model.composer.completion = None;
        let mut board = Board::default();
        // The target is what the person most likely looks for.
        if let Ok(decision) = crate::router::route(&self.model.facts()) {
            board.selected = Some((decision.backend, decision.model));
        }
        self.model.overlays.push(Overlay::Board(board));
        self.look_again();
        self.count_down();
    }

    /// `/load name` and the like: the board, with the model marked, and its key pressed. Without a name the
    /// board alone.
    pub(super) fn board_by_name(&mut self, command: Command, name: &str) -> bool {
        if name.is_empty() {
            self.open_board();
            return true;
        }
        let found = {
            let rows = rows(&self.model.fleet, "");
            let full = |row: &Row<'_>| format!("{}/{}", row.backend.name, row.card.id);
            let exact = rows.iter().filter(|row| row.card.id == name || full(row) == name);
            let mut found: Vec<(String, String)> = exact.map(key_of).collect();
            if found.is_empty() {
                let matching = picker::matching(picker::models(self.model), name);
                found = rows.iter().filter(|row| matching.contains(&full(row))).map(key_of).collect();
            }
            found
        };
        match found.as_slice() {
            [] => {
                self.bad(&format!("no model `{name}`: /models lists them"));
                return false;
            }
            [only] => {
                let state = self.model.fleet.card(&only.0, &only.1).map(|card| card.state.clone());
                let is_cold = matches!(state, Some(ModelState::Unloaded | ModelState::Failed { .. }));
                if command == Command::Unload && is_cold {
                    self.info(&format!("{} is not in memory", only.1));
                    return true;
                }
                self.open_board();
                if let Some(board) = self.board() {
                    board.selected = Some(only.clone());
                }
                self.board_command(command, false);
                // It is read when the board is closed as well.
                if command == Command::Pin
                    && let Some((_, said)) = self.board().and_then(|board| board.said.clone())
                {
                    self.info(&said);
                }
            }
            _ => {
                self.open_board();
                if let Some(board) = self.board() {
                    board.filter = EditBuffer::from_text(name);
                    board.selected = None;
                }
            }
        }
        true
    }

    /// A key while the board is in front.
    pub(super) fn board_key(&mut self, chord: Chord, armed: Armed) {
        let Some(board) = self.board() else { return };
        let asked = board.asked.take();
        board.said = None;
        if board.is_filtering {
            return self.filter_key(chord, armed);
        }
        let Some(binding) = lookup(&[Context::Board, Context::Global], chord) else { return };
        match binding.command {
            // What is in front goes first: a question, then the filter, then the board.
            Command::Escape if asked.is_some() => {}
            Command::Escape if !board.filter.is_empty() => board.filter = EditBuffer::default(),
            Command::Close => drop(self.model.overlays.pop()),
            command => {
                if !self.board_command(command, asked == Some(command)) {
                    self.run(command, armed);
                }
            }
        }
    }

    fn filter_key(&mut self, chord: Chord, armed: Armed) {
        let Some(binding) = lookup(&[Context::Picker, Context::Global], chord) else {
            if let Some(c) = chord.typed() {
                self.filter(|filter| filter.insert(c.encode_utf8(&mut [0; 4])));
            }
            return;
        };
        let Some(board) = self.board() else { return };
        match binding.command {
            Command::Accept => board.is_filtering = false,
            Command::Escape => {
                board.is_filtering = false;
                board.filter = EditBuffer::default();
            }
            command => match edit_of(command) {
                Some(edit) => self.filter(edit),
                None if self.board_command(command, false) => {}
                None => self.run(command, armed),
            },
        }
    }

    /// What a command does on the board; `again` when it was asked for and is confirmed now. Returns whether
    /// it is one of the board's.
    fn board_command(&mut self, command: Command, again: bool) -> bool {
        match command {
            Command::Previous => self.mark_row(|at| at.saturating_sub(1)),
            Command::Next => self.mark_row(|at| at + 1),
            Command::PreviousPage => self.mark_row(|at| at.saturating_sub(PAGE)),
            Command::NextPage => self.mark_row(|at| at + PAGE),
            Command::First => self.mark_row(|_| 0),
            Command::Last => self.mark_row(|_| usize::MAX),
            Command::Load => self.load_marked(again),
            Command::Unload => self.unload_marked(again),
            Command::Pin => self.pin_marked(),
            Command::KeepAlive => self.keep_marked(),
            Command::Target => self.target_marked(again),
            Command::Filter => {
                if let Some(board) = self.board() {
                    board.is_filtering = true;
                }
            }
            Command::Refresh => {
                self.look_again();
                self.say_on_board(Level::Info, "every machine is asked again");
            }
            _ => return false,
        }
        true
    }

    fn load_marked(&mut self, again: bool) {
        let Some((card, residency)) = self.marked_model() else { return };
        match (&card.state, residency.and_then(|residency| residency.verdict)) {
            (ModelState::Loaded, _) => self.choose_marked(),
            (ModelState::Loading { .. }, _) => {
                self.say_on_board(Level::Info, &format!("{} is being loaded: u gives that up", card.id));
            }
            (_, Some(verdict)) if verdict.evicts() && !again => {
                self.ask_to_evict(Command::Load, "enter", &card.id, &verdict);
            }
            (_, verdict) => {
                let smaller = verdict.filter(|verdict| verdict.fit == Fit::SmallerContext);
                self.change_marked(Change::Load { context: smaller.and_then(|verdict| verdict.context) });
            }
        }
    }

    fn target_marked(&mut self, again: bool) {
        let Some((card, residency)) = self.marked_model() else { return };
        let verdict = residency.and_then(|residency| residency.verdict);
        // No others go for what can't be had.
        match verdict.filter(|_| !self.marked_embeds()) {
            Some(verdict) if card.state != ModelState::Loaded && verdict.evicts() && !again => {
                self.ask_to_evict(Command::Target, "t", &card.id, &verdict);
            }
            _ => self.choose_marked(),
        }
    }

    fn marked_embeds(&self) -> bool {
        self.marked_key().is_some_and(|(backend, model)| self.model.fleet.embeds(Some(&backend), &model))
    }

    fn ask_to_evict(&mut self, command: Command, key: &str, id: &str, verdict: &Verdict) {
        let others = match names(&verdict.unload) {
            others if others.is_empty() => "others".to_owned(),
            others => others,
        };
        self.ask_on_board(command, &format!("to load {id}, {others} would have to go; {key} again does it"));
    }

    /// Takes the marked model for the next turn; the board has done its work then.
    fn choose_marked(&mut self) {
        let Some((backend, model)) = self.marked_key() else { return };
        if self.model.fleet.embeds(Some(&backend), &model) {
            return self.say_on_board(Level::Warn, &no_chat(&model));
        }
        if self.pin_model(&format!("{backend}/{model}")) {
            self.model.overlays.pop();
        }
    }

    fn unload_marked(&mut self, again: bool) {
        let Some((card, residency)) = self.marked_model() else { return };
        match card.state {
            ModelState::Loading { .. } => self.change_marked(Change::Unload),
            // A server that doesn't say what it holds may be told all the same.
            ModelState::Loaded | ModelState::Unknown => {
                let told = residency.and_then(|residency| residency.running).unwrap_or(0);
                let running = told.max(u32::from(self.is_writing()));
                if running == 0 || again {
                    return self.change_marked(Change::Unload);
                }
                let s = if running == 1 { "an answer".to_owned() } else { format!("{running} answers") };
                let question = format!("{} is writing {s}; u again unloads it all the same", card.id);
                self.ask_on_board(Command::Unload, &question);
            }
            ModelState::Unloaded | ModelState::Failed { .. } => {
                self.say_on_board(Level::Info, &format!("{} is not in memory", card.id));
            }
        }
    }

    /// Whether the turn of this window is being answered by the marked model.
    fn is_writing(&self) -> bool {
        let Some((backend, model)) = self.marked_key() else { return false };
        let lanes = self.model.turns.last().into_iter().flat_map(|turn| &turn.lanes);
        lanes.filter_map(Lane::current).any(|attempt| {
            !attempt.phase.is_terminal()
                && attempt.decision.backend == backend
                && attempt.decision.model == model
        })
    }

    fn pin_marked(&mut self) {
        let Some((card, residency)) = self.marked_model() else { return };
        let pinned = residency.and_then(|residency| residency.pinned) != Some(true);
        self.change_marked(Change::Pin(pinned));
        let said = match (pinned, &card.state) {
            (true, ModelState::Loaded | ModelState::Loading { .. }) => {
                "is pinned: it stays until you unload it"
            }
            (true, _) => "is pinned: once loaded, it stays until you unload it",
            (false, _) => "is not pinned any more",
        };
        self.say_on_board(Level::Info, &format!("{} {said}", card.id));
    }

    fn keep_marked(&mut self) {
        let Some((card, residency)) = self.marked_model() else { return };
        let now = residency.and_then(|residency| residency.keep_alive).unwrap_or(KeepAlive::Default);
        let at = KEEP.iter().position(|keep| *keep == now);
        let next = at.and_then(|at| KEEP.get(at + 1)).copied().unwrap_or(KeepAlive::Default);
        self.change_marked(Change::KeepAlive(next));
        let how = match next {
            KeepAlive::Default => "stays as long as is configured".to_owned(),
            KeepAlive::ForEver => "stays for ever, while there is room".to_owned(),
            KeepAlive::Seconds(0) => "leaves after each answer".to_owned(),
            KeepAlive::Seconds(seconds) if seconds % 3600 == 0 => {
                format!("stays for {} h after its last use", seconds / 3600)
            }
            KeepAlive::Seconds(seconds) => format!("stays for {} min after its last use", seconds / 60),
        };
        self.say_on_board(Level::Info, &format!("{} {how}", card.id));
    }

    /// A machine told its memory, or did not.
    pub(super) fn machine(&mut self, name: &str, machine: Option<Machine>) {
        if let Some(backend) = self.model.fleet.backends.iter_mut().find(|b| b.name == name) {
            backend.machine = machine;
        }
        let Some(board) = self.board() else { return };
        let again = board.looks.iter().any(|(looked, again)| looked == name && *again);
        board.looks.retain(|(looked, _)| looked != name);
        if again {
            self.look_at(name);
        }
    }

    /// A change is done, or can't be.
    pub(super) fn changed(&mut self, backend: &str, model: &str, change: Change, result: Result<(), String>) {
        if self.answered(backend, model, change, result.is_ok()) {
            return;
        }
        let is_told = self.model.fleet.is_engine(backend) && result.is_ok();
        if let Err(why) = result {
            let why = if why.contains(model) { why } else { format!("{model}: {why}") };
            self.bad(&why);
            self.say_on_board(Level::Bad, &why);
        }
        // The engine tells by itself what is done; what was shown before its time is put right.
        if self.board().is_some() && (!is_told || matches!(change, Change::KeepAlive(_))) {
            self.effect(Effect::ListModels { backend: backend.to_owned() });
        }
    }

    /// Models changed: the board asks for the memory as well, and times begin anew.
    pub(super) fn refresh_board(&mut self, backend: &str) {
        if self.board().is_some() {
            self.look_at(backend);
            self.count_down();
        }
    }

    /// A time on the board is another one; drawing it is all there is to do.
    pub(super) fn board_due(&mut self) {
        if self.board().is_some() {
            self.count_down();
        }
    }

    fn look_again(&mut self) {
        let names: Vec<String> = self.model.fleet.backends.iter().map(|b| b.name.clone()).collect();
        for backend in names {
            self.look_at(&backend);
            self.effect(Effect::ListModels { backend });
        }
    }

    /// Asks a machine for its memory: once, and once more when there was news meanwhile.
    fn look_at(&mut self, name: &str) {
        let Some(board) = self.board() else { return };
        if let Some((_, again)) = board.looks.iter_mut().find(|(looked, _)| looked == name) {
            *again = true;
            return;
        }
        board.looks.push((name.to_owned(), false));
        self.effect(Effect::LookAtMachine { backend: name.to_owned() });
    }

    fn count_down(&mut self) {
        if let Some(seconds) = until_change(&self.model.fleet, self.ctx.now) {
            // A little later, so that it has changed for sure.
            let after = Duration::from_secs_f64(seconds.clamp(0.0, 3600.0)) + Duration::from_millis(50);
            self.effect(Effect::Timer { id: TimerId::Board, after });
        }
    }

    fn mark_row(&mut self, to: impl FnOnce(usize) -> usize) {
        let Some(at) = self.seen().map(|(at, _)| at) else { return };
        let filter = self.board_filter();
        let rows = rows(&self.model.fleet, &filter);
        let key = rows.get(to(at).min(rows.len().saturating_sub(1))).map(key_of);
        if let Some(board) = self.board() {
            board.selected = key;
        }
    }

    /// The place of the marked row and its key; none without rows.
    fn seen(&self) -> Option<(usize, (String, String))> {
        let Some(Overlay::Board(board)) = self.model.overlays.last() else { return None };
        let rows = rows(&self.model.fleet, board.filter.text());
        let at = marked(board, &rows);
        rows.get(at).map(|row| (at, key_of(row)))
    }

    fn marked_key(&self) -> Option<(String, String)> {
        self.seen().map(|(_, key)| key)
    }

    fn marked_model(&self) -> Option<(ModelCard, Option<Residency>)> {
        let Some(Overlay::Board(board)) = self.model.overlays.last() else { return None };
        let rows = rows(&self.model.fleet, board.filter.text());
        let row = rows.get(marked(board, &rows))?;
        Some((row.card.clone(), row.residency.cloned()))
    }

    fn change_marked(&mut self, change: Change) {
        if let Some((backend, model)) = self.marked_key() {
            // It stays marked wherever its row goes.
            if let Some(board) = self.board() {
                board.selected = Some((backend.clone(), model.clone()));
            }
            match change {
                Change::Pin(_) | Change::KeepAlive(_) => self.ask_for(backend, model, change),
                Change::Load { .. } | Change::Unload => {
                    self.effect(Effect::ChangeModel { backend, model, change });
                }
            }
        }
    }

    fn ask_on_board(&mut self, command: Command, question: &str) {
        self.say_on_board(Level::Warn, question);
        if let Some(board) = self.board() {
            board.asked = Some(command);
        }
    }

    fn say_on_board(&mut self, level: Level, text: &str) {
        if let Some(board) = self.board() {
            board.said = Some((level, shown_line(&one_line(text), CELLS)));
        }
    }

    fn board_filter(&self) -> String {
        match self.model.overlays.last() {
            Some(Overlay::Board(board)) => board.filter.text().to_owned(),
            _ => String::new(),
        }
    }

    /// The board, wherever it lies.
    fn board(&mut self) -> Option<&mut Board> {
        self.model.overlays.iter_mut().find_map(|overlay| match overlay {
            Overlay::Board(board) => Some(board),
            Overlay::Help { .. } | Overlay::Picker(_) | Overlay::Backends { .. } | Overlay::Sheet(_) => None,
        })
    }
}
