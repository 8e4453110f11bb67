//! The list of machines: how each is, and its keys.

use super::effect::Effect;
use super::keys::Armed;
use super::model::{BackendView, EngineView, Model, Overlay};
use super::update::Step;
use crate::command::Command;
use crate::keymap::{Chord, Context, lookup};
use crate::text::{Shown, format, shown_line};

/// Cells of a cell at most.
const CELLS: usize = 200;

/// One machine, in words.
#[derive(Clone, Debug, PartialEq)]
pub struct MachineRow {
    /// A mark: `●` answers, `✕` away, `▲` failing or in want of something, empty: not known.
    pub mark: &'static str,
    /// The backend's name.
    pub name: Shown,
    /// What it is.
    pub kind: &'static str,
    /// How it is.
    pub state: Shown,
    /// Time until it answers, or empty.
    pub rtt: String,
    /// Models it has told of, or empty.
    pub models: String,
    /// The next step, or empty.
    pub step: Shown,
}

/// The rows of the list.
#[must_use]
pub fn machines(model: &Model) -> Vec<MachineRow> {
    model.fleet.backends.iter().map(|backend| row(model, backend)).collect()
}

fn row(model: &Model, backend: &BackendView) -> MachineRow {
    let health = backend.circuit.health(model.now);
    let (mut state, mut step) = health.say(&backend.name);
    let mut mark = match health {
        crate::router::Health::Unknown => "",
        crate::router::Health::Ready | crate::router::Health::Busy => "●",
        crate::router::Health::Loading => "◐",
        crate::router::Health::Asleep | crate::router::Health::Unreachable { .. } => "✕",
        _ => "▲",
    };
    if backend.is_engine {
        match &model.fleet.engine {
            EngineView::Down { .. } => {
                (mark, state, step) = ("✕", "engine ended".to_owned(), Some("r starts it again".to_owned()));
            }
            EngineView::Starting => (mark, state) = ("◐", "starting".to_owned()),
            EngineView::Ready if mark.is_empty() => (mark, state) = ("●", "ready".to_owned()),
            EngineView::Ready | EngineView::Unknown => {}
        }
    }
    // What it said itself says more than the kind of trouble.
    if let Some(why) = &backend.trouble {
        state = format!("{state}: {}", &**why);
        mark = if mark == "●" || mark.is_empty() { "▲" } else { mark };
    }
    let kind = match backend.setup.kind {
        Some(kind) => kind.words(),
        None if backend.is_engine => "this machine",
        None => "",
    };
    let models = match backend.models.len() {
        0 => String::new(),
        1 => "1 model".to_owned(),
        count => format!("{count} models"),
    };
    MachineRow {
        mark,
        name: shown_line(&backend.name, CELLS),
        kind,
        state: shown_line(&state, CELLS),
        rtt: backend.rtt_ms.map(format::millis).unwrap_or_default(),
        models,
        step: shown_line(&step.unwrap_or_default(), CELLS),
    }
}

impl Step<'_> {
    /// Opens the list and asks every machine.
    pub(super) fn open_machines(&mut self) {
        self.model.composer.completion = None;
        self.model.overlays.push(Overlay::Backends { selected: 0 });
        let names: Vec<String> = self.model.fleet.backends.iter().map(|b| b.name.clone()).collect();
        for backend in names {
            self.effect(Effect::ListModels { backend });
        }
    }

    /// A key while the list is in front.
    pub(super) fn machines_key(&mut self, chord: Chord, armed: Armed) {
        let Some(binding) = lookup(&[Context::Backends, Context::Global], chord) else { return };
        let count = self.model.fleet.backends.len();
        let Some(Overlay::Backends { selected }) = self.model.overlays.last_mut() else { return };
        *selected = (*selected).min(count.saturating_sub(1));
        match binding.command {
            Command::Previous => *selected = selected.saturating_sub(1),
            Command::Next => *selected = (*selected + 1).min(count.saturating_sub(1)),
            Command::First => *selected = 0,
            Command::Last => *selected = count.saturating_sub(1),
            Command::Close => drop(self.model.overlays.pop()),
            Command::Refresh => {
                let backend = self.model.fleet.backends.get(*selected);
                let (backend, is_engine) = match backend {
                    Some(backend) => (backend.name.clone(), backend.is_engine),
                    None => return,
                };
                if is_engine && self.is_engine_down() {
                    return self.restart_engine();
                }
                self.info(&format!("{backend} is asked again"));
                self.effect(Effect::ListModels { backend });
            }
            Command::Target => {
                let Some(name) = self.model.fleet.backends.get(*selected).map(|b| b.name.clone()) else {
                    return;
                };
                if self.pin_model(&name) {
                    self.model.overlays.pop();
                }
            }
            command => self.run(command, armed),
        }
    }
}
