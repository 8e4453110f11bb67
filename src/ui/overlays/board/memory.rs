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

/// Columns from which bars are long and numbers complete, and from which there are words about them.
const WIDE: usize = 84;
const ROOMY: usize = 52;

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

/// The lines, at most `most` of them: of every backend those devices that matter most.
pub(super) fn lines(scene: Scene<'_>, width: usize, most: usize) -> Vec<Line<'static>> {
    let backends = &scene.model.fleet.backends;
    let name = backends.iter().map(|b| shown_line(&b.name, 16).width()).max().unwrap_or(0);
    let mut rows: Vec<(&BackendView, Option<(&Device, Level)>)> = Vec::new();
    let each = (most / backends.len().max(1)).max(1);
    for backend in backends {
        let machine = backend.machine.as_ref();
        let mut devices: Vec<(&Device, Level)> = machine
            .into_iter()
            .flat_map(|machine| machine.devices.iter().filter_map(|d| Some((d, Level::of(d, machine)?))))
            .collect();
        // Where not all fit: first those that hold models, then the big ones.
        if devices.len() > each {
            devices.sort_by_key(|(_, level)| {
                std::cmp::Reverse((level.used.is_some_and(|used| used > 0), level.limit))
            });
            devices.truncate(each);
        }
        if devices.is_empty() || state_of(backend, &scene.model.fleet.engine).is_some() {
            rows.push((backend, None));
        } else {
            rows.extend(devices.into_iter().map(|device| (backend, Some(device))));
        }
    }
    rows.truncate(most);
    let device =
        |row: &(_, Option<(&Device, Level)>)| row.1.map_or(0, |(device, _)| label(device, width).width());
    let device = rows.iter().map(device).max().unwrap_or(0);
    let mut last = "";
    let mut out = Vec::new();
    for (backend, level) in rows {
        let shown =
            if last == backend.name { String::new() } else { shown_line(&backend.name, 16).to_string() };
        last = &backend.name;
        out.push(line(backend, (&shown, name), (level, device), width, scene));
    }
    out
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

fn line(
    backend: &BackendView,
    (name, name_width): (&str, usize),
    (device, device_width): (Option<(&Device, Level)>, usize),
    width: usize,
    scene: Scene<'_>,
) -> Line<'static> {
    let style = |role| scene.theme.style(role);
    let pad = |text: &str, to: usize| " ".repeat(to.saturating_sub(text.width()) + GAP);
    let mut spans = vec![
        Span::styled(name.to_owned(), style(target::role(scene.model, &backend.name))),
        Span::raw(pad(name, name_width)),
    ];
    let room = width.saturating_sub(name_width + GAP);
    let Some((device, level)) = device else {
        if let Some((mark, text, role)) = state_of(backend, &scene.model.fleet.engine) {
            spans.push(Span::styled(format!("{mark} "), style(role)));
            spans.push(Span::styled(cut(&text, room.saturating_sub(2)), style(Role::Dim)));
        }
        return Line::from(spans);
    };
    let label = label(device, width);
    let space = pad(&label, device_width);
    spans.push(Span::styled(label, style(Role::Dim)));
    spans.push(Span::raw(space));
    let room = room.saturating_sub(device_width + GAP);
    let numbers = numbers(level, width);
    let cells = if width >= WIDE {
        24
    } else if width >= ROOMY {
        16
    } else {
        10
    };
    let cells = cells.min(room.saturating_sub(numbers.width() + GAP));
    if cells >= 4 {
        spans.extend(bar(level, cells, scene));
        spans.push(Span::raw(" ".repeat(GAP)));
    }
    spans.push(Span::styled(cut(&numbers, room), style(Role::Dim)));
    Line::from(spans)
}

/// `16.1 of 22.8 GB · 6.7 GB free · 1.2 GB left alone`, as much of it as there is room for.
fn numbers(level: Level, width: usize) -> String {
    let mut parts = vec![match level.used {
        Some(used) => format::bytes_of(used, level.limit),
        None => format::bytes(level.limit),
    }];
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
