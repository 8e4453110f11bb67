//! Lists to choose from: their rows, and which of them match a filter.

use super::learn;
use super::model::{BackendView, Model, Picker, PickerItem, PickerKind, Prefs};
use crate::chat::record::SessionRecord;
use crate::chat::{ModelCard, ModelState, SessionId};
use crate::text::{EditBuffer, Shown, format, shown_line};
use nucleo_matcher::pattern::{AtomKind, CaseMatching, Normalization, Pattern};
use nucleo_matcher::{Config, Matcher, Utf32Str};
use std::time::Duration;

/// Cells of a label and of a column at most.
const CELLS: usize = 200;

impl Picker {
    /// Finds what matches the filter, best first, and marks the best.
    pub(super) fn rematch(&mut self) {
        self.selected = 0;
        let pattern =
            Pattern::new(self.filter.text(), CaseMatching::Smart, Normalization::Smart, AtomKind::Fuzzy);
        if pattern.atoms.is_empty() {
            self.matches = (0..self.items.len()).collect();
            return;
        }
        let mut matcher = Matcher::new(Config::DEFAULT);
        let mut space = Vec::new();
        let scored = self.items.iter().enumerate().filter_map(|(at, item)| {
            let mut text = item.label.to_string();
            for column in &item.columns {
                text.push(' ');
                text.push_str(column);
            }
            Some((pattern.score(Utf32Str::new(&text, &mut space), &mut matcher)?, at))
        });
        let mut scored: Vec<(u32, usize)> = scored.collect();
        scored.sort_by_key(|(score, at)| (std::cmp::Reverse(*score), *at));
        self.matches = scored.into_iter().map(|(_, at)| at).collect();
    }

    /// The marked item.
    pub(super) fn chosen(&self) -> Option<&PickerItem> {
        self.items.get(*self.matches.get(self.selected)?)
    }

    /// Replaces the items; what was marked stays marked.
    pub(super) fn refill(&mut self, items: Vec<PickerItem>) {
        let marked = self.chosen().map(|item| item.value.clone());
        self.items = items;
        self.rematch();
        let place = |value: &String| {
            self.matches.iter().position(|at| self.items.get(*at).is_some_and(|item| &item.value == value))
        };
        self.selected = marked.as_ref().and_then(place).unwrap_or(0);
    }
}

/// The values of those items that match a filter, best first.
pub(super) fn matching(items: Vec<PickerItem>, filter: &str) -> Vec<String> {
    let mut picker = Picker {
        kind: PickerKind::Model,
        filter: EditBuffer::from_text(filter),
        items,
        matches: Vec::new(),
        selected: 0,
    };
    picker.rematch();
    let found = picker.matches.iter().filter_map(|at| picker.items.get(*at));
    found.map(|item| item.value.clone()).collect()
}

/// Models of all backends, and aliases: the target in force first, then what was used last, then what is resident,
/// then the others.
pub(super) fn models(model: &Model) -> Vec<PickerItem> {
    let (fleet, pin) = (&model.fleet, &model.prefs.pin);
    let mut rows = Vec::new();
    let is_alone = fleet.backends.len() == 1;
    for backend in &fleet.backends {
        for card in &backend.models {
            let value = format!("{}/{}", backend.name, card.id);
            let is_target = pin.model.as_ref() == Some(&card.id)
                && pin.backend.as_ref().is_none_or(|name| *name == backend.name);
            let rank = match card.state {
                _ if is_target => 0,
                ModelState::Loaded => 1,
                _ => 2,
            };
            let used =
                model.routing.speeds.iter().filter(|row| row.backend == backend.name && row.model == card.id);
            let used = used.map(|row| row.updated_ms).max().unwrap_or(0);
            let (mark, state) = match &backend.trouble {
                Some(why) => ("✕", away(backend, why, model.now)),
                None => state(card, load_cost(model, backend, card)),
            };
            let is_embedder = backend.embedders.contains(&card.id);
            let label = shown_line(if is_alone { &card.id } else { &value }, CELLS);
            let speed = learn::speeds(&model.routing.speeds, &backend.name, &card.id, 0).decode;
            let speed = speed.map(|speed| format::speed(speed.tokens_per_s));
            let columns = columns(card, is_embedder, speed, state);
            rows.push(((rank != 0, -used, rank), PickerItem { value, mark, label, columns }));
        }
        if backend.models.is_empty() {
            let (mark, state) = match &backend.trouble {
                Some(why) => ("✕", why.clone()),
                None => ("", Shown::literal("not heard of yet")),
            };
            let label = shown_line(&backend.name, CELLS);
            let item = PickerItem { value: backend.name.clone(), mark, label, columns: vec![state] };
            rows.push(((true, 0, 3), item));
        }
    }
    for alias in &model.routing.aliases {
        let is_target = pin.model.as_ref() == Some(&alias.name) && pin.backend.is_none();
        let targets = alias.targets.iter().chain(&alias.variants).cloned().collect::<Vec<_>>().join(", ");
        let item = PickerItem {
            value: alias.name.clone(),
            mark: "",
            label: shown_line(&alias.name, CELLS),
            columns: vec![shown_line(&format!("alias of {targets}"), CELLS)],
        };
        rows.push(((!is_target, 0, 1), item));
    }
    rows.sort_by_key(|(rank, _)| *rank);
    rows.into_iter().map(|(_, row)| row).collect()
}

/// Why a backend is away, and for how long it has not been heard.
fn away(backend: &BackendView, why: &Shown, now: Duration) -> Shown {
    let minutes = now.saturating_sub(backend.heard_at).as_secs() / 60;
    if minutes == 0 {
        return why.clone();
    }
    shown_line(&format!("away, heard {minutes} min ago: {}", &**why), CELLS)
}

/// What a model that is not resident takes to load, in milliseconds, where that was measured.
fn load_cost(model: &Model, backend: &BackendView, card: &ModelCard) -> Option<f64> {
    let residency = backend.residency.iter().find(|residency| residency.id == card.id);
    let told = || residency?.load_ms;
    learn::load_ms(&model.routing.speeds, &backend.name, &card.id).or_else(told)
}

fn state(card: &ModelCard, load_ms: Option<f64>) -> (&'static str, Shown) {
    match &card.state {
        ModelState::Loaded => ("●", Shown::literal("resident")),
        ModelState::Unloaded => match load_ms {
            Some(ms) => ("○", shown_line(&format!("on disk, ≈{} to load", format::seconds(ms)), 40)),
            None => ("○", Shown::literal("on disk")),
        },
        ModelState::Loading { fraction } => {
            ("○", shown_line(&format!("loading {:.0} %", fraction * 100.0), 20))
        }
        ModelState::Failed { reason } => ("▲", shown_line(reason, CELLS)),
        ModelState::Unknown => ("", Shown::default()),
    }
}

fn columns(card: &ModelCard, is_embedder: bool, speed: Option<String>, state: Shown) -> Vec<Shown> {
    let column = |text: Option<String>| shown_line(&text.unwrap_or_default(), CELLS);
    let mut columns = vec![
        column(card.parameters.map(parameters)),
        column(card.quantisation.clone()),
        column(card.bytes.map(bytes)),
        column(card.context.map(context)),
    ];
    columns.push(column(speed));
    columns.push(match (card.is_builtin, is_embedder) {
        (true, _) => shown_line(&format!("built in, {}", &*state), CELLS),
        (false, true) => shown_line(&format!("embeddings, {}", &*state), CELLS),
        (false, false) => state,
    });
    columns
}

/// `7.6B`, `494M`.
#[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
fn parameters(n: u64) -> String {
    match n {
        0..950_000 => format!("{:.0}k", n as f64 / 1e3),
        950_000..9_950_000 => format!("{:.1}M", n as f64 / 1e6),
        9_950_000..950_000_000 => format!("{:.0}M", n as f64 / 1e6),
        950_000_000..99_500_000_000 => format!("{:.1}B", n as f64 / 1e9),
        _ => format!("{:.0}B", n as f64 / 1e9),
    }
}

/// `4.7 GiB`, `352 MiB`.
#[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
fn bytes(n: u64) -> String {
    let mib = n as f64 / f64::from(1 << 20);
    match mib {
        ..0.95 => format!("{:.0} KiB", mib * 1024.0),
        ..9.95 => format!("{mib:.1} MiB"),
        ..972.0 => format!("{mib:.0} MiB"),
        _ => format!("{:.1} GiB", mib / 1024.0),
    }
}

/// `32k` for 32768; other numbers as they are.
pub(super) fn context(tokens: u32) -> String {
    if tokens >= 1024 && tokens.is_multiple_of(1024) {
        format!("{}k", tokens / 1024)
    } else {
        tokens.to_string()
    }
}

/// All themes.
pub(super) fn themes(prefs: &Prefs) -> Vec<PickerItem> {
    let row = |name: &String| PickerItem {
        value: name.clone(),
        mark: "",
        label: shown_line(name, CELLS),
        columns: vec![if *name == prefs.theme { Shown::literal("in force") } else { Shown::default() }],
    };
    prefs.themes.iter().map(row).collect()
}

/// All system prompts.
pub(super) fn prompts(prefs: &Prefs) -> Vec<PickerItem> {
    let row = |prompt: &super::model::PromptView| PickerItem {
        value: prompt.name.clone(),
        mark: "",
        label: shown_line(&prompt.name, CELLS),
        columns: vec![shown_line(&prompt.about, CELLS)],
    };
    prefs.prompts.iter().map(row).collect()
}

/// Earlier inputs, the last one first; the value is the place in the history.
pub(super) fn inputs(history: &[String]) -> Vec<PickerItem> {
    let row = |(at, text): (usize, &String)| {
        let start: String = text.chars().take(CELLS * 4).collect();
        let line = start.split_whitespace().collect::<Vec<_>>().join(" ");
        PickerItem { value: at.to_string(), mark: "", label: shown_line(&line, CELLS), columns: Vec::new() }
    };
    history.iter().enumerate().rev().map(row).collect()
}

/// Saved sessions but this one.
pub(super) fn sessions(records: &[SessionRecord], current: &SessionId, now_ms: i64) -> Vec<PickerItem> {
    let others = records.iter().filter(|record| record.id != *current);
    let row = |record: &SessionRecord| PickerItem {
        value: record.id.to_string(),
        mark: "",
        label: shown_line(&record.title, CELLS),
        columns: vec![
            shown_line(&age(now_ms - record.created_ms), CELLS),
            shown_line(record.id.as_str(), CELLS),
        ],
    };
    others.map(row).collect()
}

fn age(ms: i64) -> String {
    let minutes = ms.max(0) / 60_000;
    match minutes {
        0 => "now".to_owned(),
        1..60 => format!("{minutes} min ago"),
        60..1440 => format!("{} h ago", minutes / 60),
        _ => format!("{} d ago", minutes / 1440),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn numbers_are_short() {
        let cases =
            [(7_615_616_512, "7.6B"), (494_032_768, "494M"), (2_100_000, "2.1M"), (70_553_706_496, "70.6B")];
        for (n, text) in cases {
            assert_eq!(parameters(n), text);
        }
        for (n, text) in
            [(4_683_073_184, "4.4 GiB"), (352 << 20, "352 MiB"), (2 << 20, "2.0 MiB"), (900, "1 KiB")]
        {
            assert_eq!(bytes(n), text);
        }
        assert_eq!((context(32_768), context(8192), context(500), context(40_000)), {
            ("32k".to_owned(), "8k".to_owned(), "500".to_owned(), "40000".to_owned())
        });
        assert_eq!(age(59_000), "now");
        assert_eq!(age(3 * 86_400_000), "3 d ago");
        assert_eq!(age(-5), "now");
    }
}
