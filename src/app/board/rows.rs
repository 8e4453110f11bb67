//! The rows of the residency board: which there are, in which order, and the times they show.

use crate::app::model::{BackendView, Board, Fleet};
use crate::chat::{Fit, ModelCard, ModelState, Residency, Verdict};
use nucleo_matcher::pattern::{AtomKind, CaseMatching, Normalization, Pattern};
use nucleo_matcher::{Config, Matcher, Utf32Str};
use std::collections::HashMap;
use std::time::Duration;

/// One row of the board.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row<'a> {
    /// Whose model it is.
    pub backend: &'a BackendView,
    /// The model.
    pub card: &'a ModelCard,
    /// How it is kept, where that is told.
    pub residency: Option<&'a Residency>,
}

impl Row<'_> {
    /// Whether this is the row of a backend's model.
    fn is(&self, (backend, model): &(String, String)) -> bool {
        self.backend.name == *backend && self.card.id == *model
    }

    /// Whether it makes embeddings: it can't be chatted with.
    #[must_use]
    pub fn embeds(&self) -> bool {
        self.backend.embedders.contains(&self.card.id)
    }

    /// Whether it can be loaded, while it is not in memory and that is known.
    #[must_use]
    pub fn verdict(&self) -> Option<&Verdict> {
        let is_cold = matches!(self.card.state, ModelState::Unloaded | ModelState::Failed { .. });
        self.residency?.verdict.as_ref().filter(|verdict| is_cold && verdict.fit != Fit::Unknown)
    }

    /// Seconds until it leaves.
    #[must_use]
    pub fn leaves_in(&self, now: Duration) -> Option<f64> {
        let is_resident = self.card.state == ModelState::Loaded;
        let told = self.residency?.expires_s.filter(|_| is_resident)?;
        Some((told - since(self.backend, now)).max(0.0))
    }

    /// Seconds since its last use.
    #[must_use]
    pub fn idle(&self, now: Duration) -> Option<f64> {
        let is_resident = self.card.state == ModelState::Loaded;
        Some(self.residency?.idle_s.filter(|_| is_resident)? + since(self.backend, now))
    }

    fn rank(&self) -> u8 {
        match self.card.state {
            _ if self.backend.trouble.is_some() => 3,
            ModelState::Loaded | ModelState::Loading { .. } => 0,
            ModelState::Unloaded | ModelState::Unknown => 1,
            ModelState::Failed { .. } => 2,
        }
    }

    /// What a filter looks at.
    fn words(&self) -> String {
        let quantisation = self.card.quantisation.as_deref().unwrap_or_default();
        let state = match self.card.state {
            ModelState::Loaded => "resident",
            ModelState::Loading { .. } => "loading",
            ModelState::Unloaded => "on disk",
            ModelState::Failed { .. } => "failed",
            ModelState::Unknown => "",
        };
        let pinned = if self.residency.and_then(|r| r.pinned) == Some(true) { "pinned" } else { "" };
        let embeds = if self.embeds() { "embeddings" } else { "" };
        format!("{} {} {quantisation} {state} {pinned} {embeds}", self.backend.name, self.card.id)
    }
}

/// Seconds since a backend told of its models.
fn since(backend: &BackendView, now: Duration) -> f64 {
    now.saturating_sub(backend.heard_at).as_secs_f64()
}

/// The rows that match a filter: resident models and those on their way first, what failed or is away last.
#[must_use]
pub fn rows<'a>(fleet: &'a Fleet, filter: &str) -> Vec<Row<'a>> {
    let pattern = Pattern::new(filter, CaseMatching::Smart, Normalization::Smart, AtomKind::Fuzzy);
    let mut matcher = Matcher::new(Config::DEFAULT);
    let mut space = Vec::new();
    let mut rows = Vec::new();
    for backend in &fleet.backends {
        let residency: HashMap<&str, &Residency> =
            backend.residency.iter().map(|residency| (residency.id.as_str(), residency)).collect();
        rows.extend(backend.models.iter().map(|card| Row {
            backend,
            card,
            residency: residency.get(card.id.as_str()).copied(),
        }));
    }
    rows.retain(|row| {
        pattern.atoms.is_empty()
            || pattern.score(Utf32Str::new(&row.words(), &mut space), &mut matcher).is_some()
    });
    rows.sort_by_key(Row::rank);
    rows
}

/// The place of the marked row among these.
#[must_use]
pub fn marked(board: &Board, rows: &[Row<'_>]) -> usize {
    let found = board.selected.as_ref().and_then(|key| rows.iter().position(|row| row.is(key)));
    found.unwrap_or(0)
}

/// A time to come as it is shown: whole minutes from one minute on, before that steps of ten seconds; always
/// rounded up.
#[must_use]
pub fn to_come(seconds: f64) -> u64 {
    let step = if seconds > 50.0 { 60.0 } else { 10.0 };
    whole((seconds / step).ceil() * step)
}

/// A time that has passed as it is shown: whole minutes, whole hours from one hour on; always rounded down.
#[must_use]
pub fn passed(seconds: f64) -> u64 {
    let step = if seconds < 3600.0 { 60.0 } else { 3600.0 };
    whole((seconds / step).floor() * step)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
fn whole(seconds: f64) -> u64 {
    if seconds.is_finite() { seconds.clamp(0.0, 1e12) as u64 } else { 0 }
}

/// Seconds until one of the times on the board is shown as another one; none while there are none.
pub(super) fn until_change(fleet: &Fleet, now: Duration) -> Option<f64> {
    let rows = rows(fleet, "");
    let coming = rows.iter().filter_map(|row| row.leaves_in(now)).filter(|left| *left > 0.0).map(|left| {
        let step = if left > 50.0 { 60.0 } else { 10.0 };
        // From one minute it goes to fifty seconds.
        let next = (left / step).ceil().mul_add(step, -step);
        left - if next < 50.0 && step > 10.0 { 50.0 } else { next }
    });
    let passing = rows.iter().filter_map(|row| row.idle(now)).map(|idle| {
        let step = if idle < 3600.0 { 60.0 } else { 3600.0 };
        (idle / step).floor().mul_add(step, step) - idle
    });
    coming.chain(passing).reduce(f64::min)
}

/// Names as a sentence has them: `a`, `a and b`, `a and 2 more`.
#[must_use]
pub fn names(ids: &[String]) -> String {
    match ids {
        [] => String::new(),
        [only] => only.clone(),
        [first, second] => format!("{first} and {second}"),
        [first, rest @ ..] => format!("{first} and {} more", rest.len()),
    }
}

/// What a row is marked by: backend and model.
pub(super) fn key_of(row: &Row<'_>) -> (String, String) {
    (row.backend.name.clone(), row.card.id.clone())
}

/// Why a model that makes embeddings gets no turn.
pub(in crate::app) fn no_chat(model: &str) -> String {
    format!("{model} makes embeddings and can't be chatted with; /v1/embeddings takes texts for it")
}
