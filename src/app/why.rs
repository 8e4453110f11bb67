//! What a decision says to people: line by line, for an overlay and for the command line.

use super::facts::{Refusal, decide};
use super::model::{Model, Overlay, Sheet, SheetKind, SheetRow, Tone};
use super::turn::Lane;
use super::update::Step;
use crate::chat::Metrics;
use crate::router::{Decision, Facts, Prediction};
use crate::text::{Shown, format, shown_line};

/// Cells of a line at most.
const CELLS: usize = 400;

/// A line before it is made fit to be shown.
pub type Said = (Tone, String);

/// Where a question goes and why: the rule, the candidates with what they would cost or why they can't, what that
/// rests on.
#[must_use]
pub fn explain(decision: &Decision, facts: Option<&Facts>) -> Vec<Said> {
    let mut lines = vec![(Tone::Plain, format!("rule {}: {}", decision.rule, decision.reason))];
    if let Some(alias) = &decision.alias {
        let variant =
            if decision.is_variant { "; a variant of it: another quantisation or format" } else { "" };
        lines.push((Tone::Plain, format!("alias {alias}{variant}")));
    }
    let name = |backend: &str, model: Option<&str>| match model {
        Some(model) => format!("{backend} · {model}"),
        None => backend.to_owned(),
    };
    let chosen = name(&decision.backend, Some(&decision.model));
    let others: Vec<String> =
        decision.rejected.iter().map(|other| name(&other.backend, other.model.as_deref())).collect();
    let width = others.iter().chain([&chosen]).map(|name| name.chars().count()).max().unwrap_or(0).min(40);
    lines.push((
        Tone::Good,
        format!("{chosen:width$}  {}chosen", decision.predicted.map_or(String::new(), cost)),
    ));
    for (other, name) in decision.rejected.iter().zip(others) {
        let cost = other.predicted.map_or(String::new(), cost);
        let tone = if other.predicted.is_some() { Tone::Plain } else { Tone::Dim };
        lines.push((tone, format!("{name:width$}  {cost}{}", other.why)));
    }
    if let Some(predicted) = decision.predicted {
        let basis = if predicted.is_guess { "guessed from the hardware" } else { "measured" };
        let speed = format::speed(predicted.decode_tokens_per_s);
        lines.push((Tone::Dim, format!("{speed} {basis}; first token: {}", spent(&predicted))));
    }
    if let Some(facts) = facts {
        lines.extend(known(decision, facts));
    }
    lines
}

fn cost(predicted: Prediction) -> String {
    let mark = if predicted.is_guess { "~" } else { "" };
    let (first, total) = (format::seconds(predicted.first_ms), format::seconds(predicted.total_ms));
    format!("first {mark}{first}  done {mark}{total}  ")
}

/// What the time to the first token is spent on.
fn spent(predicted: &Prediction) -> String {
    format!(
        "wait {} · load {} · prefill {} for {} new tokens",
        format::millis(predicted.wait_ms),
        format::millis(predicted.load_ms),
        format::millis(predicted.prefill_ms),
        format::tokens(predicted.new_tokens)
    )
}

/// What is known of the chosen target.
fn known(decision: &Decision, facts: &Facts) -> Vec<Said> {
    let mut lines = Vec::new();
    let Some(backend) = facts.backends.iter().find(|backend| backend.name == decision.backend) else {
        return lines;
    };
    let model = backend.models.iter().find(|model| model.id == decision.model);
    if let Some(decode) = model.and_then(|model| model.speeds.decode) {
        let s = if decode.samples == 1 { "" } else { "s" };
        let speed = format::speed(decode.tokens_per_s);
        lines.push((Tone::Dim, format!("measured: {speed} ({} turn{s})", decode.samples)));
    }
    if let Some(rtt) = backend.rtt_ms {
        lines.push((Tone::Dim, format!("{} answers in {}", backend.name, format::millis(rtt))));
    }
    if let Some(prompt) = facts.turn.prompt_tokens {
        let cached = model.map_or(0, |model| model.cached_tokens).min(prompt);
        let (cached, prompt) = (format::tokens(cached), format::tokens(prompt));
        lines.push((Tone::Dim, format!("cache: {cached} of ~{prompt} tokens on {}", backend.name)));
    }
    if !facts.turn.fenced.is_empty() {
        let lifted = if facts.turn.is_fence_lifted { ", lifted for this turn" } else { "" };
        lines.push((Tone::Bad, format!("privacy fence{lifted}: {}", facts.turn.fenced.join(", "))));
    }
    lines
}

/// How it went, beside how it was predicted to go.
fn went(decision: &Decision, metrics: &Metrics) -> Option<Said> {
    let beside = |ms: f64, predicted: Option<f64>| match predicted {
        Some(predicted) => format!("{} (predicted {})", format::seconds(ms), format::seconds(predicted)),
        None => format::seconds(ms),
    };
    let first = metrics.first_token_ms.map(|ms| beside(ms, decision.predicted.map(|p| p.first_ms)));
    let total = metrics.total_ms.map(|ms| beside(ms, decision.predicted.map(|p| p.total_ms)));
    let parts: Vec<String> = first
        .map(|text| format!("first {text}"))
        .into_iter()
        .chain(total.map(|text| format!("done {text}")))
        .collect();
    (!parts.is_empty()).then(|| (Tone::Plain, format!("it took: {}", parts.join(" · "))))
}

/// Lines as rows of a sheet.
pub(super) fn rows(lines: Vec<Said>) -> Vec<SheetRow> {
    lines.into_iter().map(|(tone, text)| SheetRow { tone, text: shown_line(&text, CELLS) }).collect()
}

impl Step<'_> {
    /// `/why`: the last turn's decision.
    pub(super) fn open_why(&mut self) -> bool {
        let lane = self.model.turns.last().and_then(|turn| turn.lanes.last());
        let Some(attempt) = lane.and_then(Lane::current).filter(|a| !a.decision.backend.is_empty()) else {
            self.warn("nothing was asked yet: /route and a question show where that would go");
            return false;
        };
        let mut lines = explain(&attempt.decision, None);
        lines.extend(went(&attempt.decision, &attempt.metrics));
        let story = &attempt.story;
        lines.extend(story.fallback_from.as_ref().map(|from| (Tone::Bad, format!("fallback from {from}"))));
        lines.extend(story.cache_lost.as_ref().map(|why| (Tone::Bad, format!("cache lost: {why}"))));
        let title = shown_line(&format!("Why {}?", attempt.decision.backend), CELLS);
        self.open_sheet(SheetKind::Why, title, lines);
        true
    }

    /// `/route text`: where it would go; nothing is sent.
    pub(super) fn open_route(&mut self, text: &str) -> bool {
        if text.is_empty() {
            self.bad("/route takes a question, and shows where it would go");
            return false;
        }
        let lines = routed(self.model, text);
        let title = Shown::literal("Where it would go; nothing was sent");
        self.open_sheet(SheetKind::Route(text.to_owned()), title, lines);
        true
    }

    /// Puts a sheet in front, in place of one of its kind.
    pub(super) fn open_sheet(&mut self, kind: SheetKind, title: Shown, lines: Vec<Said>) {
        self.model.composer.completion = None;
        let sheet = Sheet { kind, title, rows: rows(lines), top: 0 };
        self.model.overlays.retain(|overlay| !matches!(overlay, Overlay::Sheet(_)));
        self.model.overlays.push(Overlay::Sheet(sheet));
    }

    /// The key that asks the router again, while a sheet is in front.
    pub(super) fn route_again(&mut self) {
        let Some(Overlay::Sheet(sheet)) = self.model.overlays.last() else { return };
        if let SheetKind::Route(text) = sheet.kind.clone() {
            let lines = routed(self.model, &text);
            if let Some(Overlay::Sheet(sheet)) = self.model.overlays.last_mut() {
                sheet.rows = rows(lines);
            }
        }
    }
}

fn routed(model: &Model, text: &str) -> Vec<Said> {
    let facts = model.facts_for(text);
    match decide(&facts) {
        Ok(decision) => explain(&decision, Some(&facts)),
        Err(Refusal::Fenced(error)) => {
            error.message.lines().map(|line| (Tone::Bad, line.to_owned())).collect()
        }
        Err(Refusal::Other(why)) => vec![(Tone::Bad, why)],
    }
}
