//! Lists to choose from: their rows, and which of them match a filter.

use super::model::{Fleet, Picker, PickerItem, PickerKind, Prefs};
use crate::chat::record::SessionRecord;
use crate::chat::{ModelCard, ModelState, SessionId};
use crate::text::{EditBuffer, Shown, shown_line};
use nucleo_matcher::pattern::{AtomKind, CaseMatching, Normalization, Pattern};
use nucleo_matcher::{Config, Matcher, Utf32Str};

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

/// Models of all backends: the target in force first, then resident ones, then the others.
pub(super) fn models(fleet: &Fleet, prefs: &Prefs) -> Vec<PickerItem> {
    let mut rows = Vec::new();
    let is_alone = fleet.backends.len() == 1;
    for backend in &fleet.backends {
        for card in &backend.models {
            let value = format!("{}/{}", backend.name, card.id);
            let is_target = prefs.pin.model.as_ref() == Some(&card.id)
                && prefs.pin.backend.as_ref().is_none_or(|name| *name == backend.name);
            let rank = match card.state {
                _ if is_target => 0,
                ModelState::Loaded => 1,
                _ => 2,
            };
            let (mark, state) = match &backend.trouble {
                Some(why) => ("✕", why.clone()),
                None => state(card),
            };
            let is_embedder = backend.embedders.contains(&card.id);
            let label = shown_line(if is_alone { &card.id } else { &value }, CELLS);
            rows.push((rank, PickerItem { value, mark, label, columns: columns(card, is_embedder, state) }));
        }
        if backend.models.is_empty() {
            let (mark, state) = match &backend.trouble {
                Some(why) => ("✕", why.clone()),
                None => ("", Shown::literal("not heard of yet")),
            };
            let label = shown_line(&backend.name, CELLS);
            rows.push((3, PickerItem { value: backend.name.clone(), mark, label, columns: vec![state] }));
        }
    }
    rows.sort_by_key(|(rank, _)| *rank);
    rows.into_iter().map(|(_, row)| row).collect()
}

fn state(card: &ModelCard) -> (&'static str, Shown) {
    match &card.state {
        ModelState::Loaded => ("●", Shown::literal("resident")),
        ModelState::Unloaded => ("○", Shown::literal("on disk")),
        ModelState::Loading { fraction } => {
            ("○", shown_line(&format!("loading {:.0} %", fraction * 100.0), 20))
        }
        ModelState::Failed { reason } => ("▲", shown_line(reason, CELLS)),
        ModelState::Unknown => ("", Shown::default()),
    }
}

fn columns(card: &ModelCard, is_embedder: bool, state: Shown) -> Vec<Shown> {
    let column = |text: Option<String>| shown_line(&text.unwrap_or_default(), CELLS);
    vec![
        column(card.parameters.map(parameters)),
        column(card.quantisation.clone()),
        column(card.bytes.map(bytes)),
        column(card.context.map(context)),
        match (card.is_builtin, is_embedder) {
            (true, _) => shown_line(&format!("built in, {}", &*state), CELLS),
            (false, true) => shown_line(&format!("embeddings, {}", &*state), CELLS),
            (false, false) => state,
        },
    ]
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
