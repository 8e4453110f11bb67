//! A line for every device: whose it is, how full, and what is left.

use super::{GAP, state_of};
use crate::app::model::BackendView;
use crate::chat::{Device, Machine};
use crate::text::shown_line;
use crate::text::width::cut;
use crate::theme::Role;
use crate::ui::turn::Scene;
use crate::ui::{format, target};
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

/// Columns from which everything is said, and from which there is a word about what is free.
const WIDE: usize = 84;
const ROOMY: usize = 52;
/// Cells of a bar.
const LONGEST: usize = 24;
const SHORTEST: usize = 4;

/// What is known of a device's memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Level {
    /// Held by resident models, where that is told.
    used: Option<u64>,
    /// What models may take; else what there is.
    limit: u64,
    /// Left alone beyond that, for everybody else.
    reserved: u64,
    /// What models may still take.
    left: Option<u64>,
}

impl Level {
    fn of(device: &Device, machine: &Machine) -> Option<Self> {
        let limit = device.budget.or(device.total)?;
        let used = machine.used(&device.name);
        let reserved = device.budget.and(device.reserved).unwrap_or(0);
        let left = match (device.budget, used) {
            (Some(budget), Some(used)) => Some(budget.saturating_sub(used)),
            _ => device.free,
        };
        Some(Self { used, limit, reserved, left })
    }
}

/// A line before it is laid out.
struct Entry<'a> {
    backend: &'a BackendView,
    /// Whose it is; empty where the line above says so.
    name: String,
    /// The device; none when there is only something to say.
    device: Option<(String, Level)>,
}

/// The lines, at most `most` of them: of every backend those devices that matter most.
pub(super) fn lines(scene: Scene<'_>, width: usize, most: usize) -> Vec<Line<'static>> {
    let backends = &scene.model.fleet.backends;
    let each = (most / backends.len().max(1)).max(1);
    let mut entries: Vec<Entry<'_>> =
        backends.iter().flat_map(|backend| entries(backend, each, width, scene)).collect();
    entries.truncate(most);
    if width < ROOMY && backends.len() == 1 && entries.iter().all(|entry| entry.device.is_some()) {
        entries.iter_mut().for_each(|entry| entry.name.clear());
    }
    let widest = |cell: &dyn Fn(&Entry<'_>) -> usize| entries.iter().map(cell).max().unwrap_or(0);
    let level = |entry: &Entry<'_>| entry.device.as_ref().map(|(_, level)| *level);
    let places = Places {
        name: widest(&|entry| entry.name.width()),
        device: widest(&|entry| entry.device.as_ref().map_or(0, |(label, _)| label.width())),
        held: widest(&|entry| level(entry).map_or(0, |level| held(level).width())),
        numbers: widest(&|entry| level(entry).map_or(0, |level| numbers(level, 0, width).width())),
        width,
    };
    entries.iter().map(|entry| places.line(entry, scene)).collect()
}

fn entries<'a>(backend: &'a BackendView, most: usize, width: usize, scene: Scene<'_>) -> Vec<Entry<'a>> {
    let name = || shown_line(&backend.name, 16).to_string();
    let machine = backend.machine.iter();
    let mut devices: Vec<(&Device, Level)> = machine
        .flat_map(|machine| machine.devices.iter().filter_map(|d| Some((d, Level::of(d, machine)?))))
        .collect();
    if devices.is_empty() || state_of(backend, &scene.model.fleet.engine).is_some() {
        return vec![Entry { backend, name: name(), device: None }];
    }
    // Where not all fit: first those that hold models, then the big ones.
    if devices.len() > most {
        let holds = |level: &Level| level.used.is_some_and(|used| used > 0);
        devices.sort_by_key(|(_, level)| std::cmp::Reverse((holds(level), level.limit)));
        devices.truncate(most);
    }
    let entry = |(at, (device, level)): (usize, (&Device, Level))| Entry {
        backend,
        name: if at == 0 { name() } else { String::new() },
        device: Some((label(device, width), level)),
    };
    devices.into_iter().enumerate().map(entry).collect()
}

/// `CUDA0 NVIDIA GeForce RTX 4090`, without the maker's name where there is little room.
fn label(device: &Device, width: usize) -> String {
    let name = shown_line(&device.name, 16).to_string();
    match &device.description {
        Some(description) if width >= WIDE && *description != device.name => {
            cut(&format!("{name} {}", &*shown_line(description, 80)), 32)
        }
        _ => name,
    }
}

/// Widths of what stands under each other.
struct Places {
    name: usize,
    device: usize,
    held: usize,
    numbers: usize,
    width: usize,
}

impl Places {
    fn line(&self, entry: &Entry<'_>, scene: Scene<'_>) -> Line<'static> {
        let style = |role| scene.theme.style(role);
        let mut spans = Vec::new();
        let mut room = self.width;
        if self.name > 0 {
            let role = target::role(scene.model, &entry.backend.name);
            let pad = " ".repeat(self.name.saturating_sub(entry.name.width()) + GAP);
            spans.push(Span::styled(format!("{}{pad}", entry.name), style(role)));
            room = room.saturating_sub(self.name + GAP);
        }
        let Some((label, level)) = &entry.device else {
            if let Some((mark, text, role)) = state_of(entry.backend, &scene.model.fleet.engine) {
                spans.push(Span::styled(format!("{mark} "), style(role)));
                spans.push(Span::styled(cut(&text, room.saturating_sub(2)), style(Role::Dim)));
            }
            return Line::from(spans);
        };
        let pad = " ".repeat(self.device.saturating_sub(label.width()) + GAP);
        spans.push(Span::styled(format!("{label}{pad}"), style(Role::Dim)));
        room = room.saturating_sub(self.device + GAP);
        let cells = room.saturating_sub(self.numbers + GAP).min(LONGEST);
        if cells >= SHORTEST {
            spans.extend(bar(*level, cells, scene));
            spans.push(Span::raw(" ".repeat(GAP)));
        }
        spans.push(Span::styled(cut(&numbers(*level, self.held, self.width), room), style(Role::Dim)));
        Line::from(spans)
    }
}

/// `16.1 of 22.8 GiB`, or what there is where nobody says what is held.
fn held(level: Level) -> String {
    match level.used {
        Some(used) => format::bytes_of(used, level.limit),
        None => format::bytes(level.limit),
    }
}

/// `16.1 of 22.8 GiB · 6.7 GiB free · 1.2 GiB left alone`, as much of it as there is room for.
/// The first of them takes `pad` cells.
fn numbers(level: Level, pad: usize, width: usize) -> String {
    let mut parts = vec![format!("{:>pad$}", held(level))];
    if width >= ROOMY {
        parts.extend(level.left.map(|left| format!("{} free", format::bytes(left))));
    }
    if width >= WIDE && level.reserved > 0 {
        parts.push(format!("{} left alone", format::bytes(level.reserved)));
    }
    parts.join(" · ")
}

/// `▓▓▓▓░░░░▒▒`: held by models, free for them, left alone.
fn bar(level: Level, cells: usize, scene: Scene<'_>) -> Vec<Span<'static>> {
    let style = |role| scene.theme.style(role);
    // Without what models hold, what the device has free says how full it is.
    let used = level.used.unwrap_or_else(|| level.limit.saturating_sub(level.left.unwrap_or(level.limit)));
    let whole = level.limit.saturating_add(level.reserved);
    let filled = |bytes: u64| format::part(format::share(bytes, whole), cells);
    let reserved = filled(level.reserved);
    // The least bit is seen.
    let held = filled(used).max(usize::from(used > 0)).min(cells - reserved);
    let is_tight = format::share(used, level.limit) >= 0.9;
    let role = if is_tight { Role::Warn } else { Role::Accent };
    vec![
        Span::styled("▓".repeat(held), style(role)),
        Span::styled("░".repeat(cells - reserved - held), style(Role::Dim)),
        Span::styled("▒".repeat(reserved), style(Role::Dim)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{DevicePart, ModelBytes, Placement};
    use pretty_assertions::assert_eq;

    #[test]
    fn what_is_left_is_never_made_up() {
        let device = |budget, reserved| Device {
            name: "CPU".to_owned(),
            total: Some(100),
            free: Some(60),
            budget,
            reserved,
            ..Device::default()
        };
        let bytes = ModelBytes { weights: 20, kv: 5, compute: 5 };
        let told = vec![DevicePart { device: "CPU".to_owned(), bytes }];
        let machine = |devices| Machine {
            placements: vec![Placement { id: "a".to_owned(), devices }],
            ..Machine::default()
        };
        let level = |used, limit, reserved, left| Some(Level { used, limit, reserved, left });
        let cases = [
            (device(Some(80), Some(15)), told.clone(), level(Some(30), 80, 15, Some(50))),
            (device(Some(20), None), told.clone(), level(Some(30), 20, 0, Some(0))),
            (device(None, Some(15)), told, level(Some(30), 100, 0, Some(60))),
            (device(None, None), Vec::new(), level(None, 100, 0, Some(60))),
            (device(Some(80), Some(15)), Vec::new(), level(None, 80, 15, Some(60))),
            (Device::default(), Vec::new(), None),
        ];
        for (device, devices, expected) in cases {
            assert_eq!(Level::of(&device, &machine(devices)), expected, "{device:?}");
        }
    }
}
