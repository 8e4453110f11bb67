//! The receipt of an attempt: one dim line of what was measured, live while it runs. What nobody
//! reported is absent. Where the line is too narrow, the least important parts go first.

use super::{format, target};
use crate::app::Model;
use crate::app::turn::{Attempt, Phase};
use crate::chat::{CachePlace, Finish};
use crate::text::shown_line;
use crate::theme::{Role, Theme};
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

/// One part of the line. Parts of the highest rank are dropped first; rank 0 stays.
struct Part {
    text: String,
    rank: u8,
    role: Role,
    /// Parts in parentheses after the one before.
    inner: Vec<(String, u8)>,
}

impl Part {
    fn new(rank: u8, role: Role, text: impl Into<String>) -> Self {
        Self { text: text.into(), rank, role, inner: Vec::new() }
    }

    fn text(&self, upto: u8) -> String {
        let inner: Vec<&str> =
            self.inner.iter().filter(|(_, rank)| *rank <= upto).map(|(text, _)| text.as_str()).collect();
        if inner.is_empty() { self.text.clone() } else { format!("{} ({})", self.text, inner.join(" · ")) }
    }
}

const MAX_RANK: u8 = 12;

/// Milliseconds without a token from which a running answer says so.
const SILENCE_MS: f64 = 2_000.0;

/// The line of an attempt in whatever phase, at most `width` cells.
pub(super) fn line(model: &Model, attempt: &Attempt, width: usize, theme: &Theme) -> Line<'static> {
    let mut parts = vec![Part::new(
        0,
        target::role(model, &attempt.decision.backend),
        shown_line(&attempt.decision.backend, 24).to_string(),
    )];
    let mut name = Part::new(3, Role::Dim, target::name(&attempt.decision.model));
    if let Some(quantisation) = target::quantisation(model, attempt) {
        name.text = format!("{} {}", name.text, &*shown_line(&quantisation.to_lowercase(), 12));
    }
    parts.push(name);
    if attempt.phase.is_terminal() {
        closed(attempt, &mut parts);
    } else {
        live(model, attempt, &mut parts);
    }

    let fits = |upto: u8| {
        let texts: Vec<String> = parts.iter().filter(|p| p.rank <= upto).map(|p| p.text(upto)).collect();
        texts.join(" · ").width() <= width
    };
    let upto = (0..=MAX_RANK).rev().find(|rank| fits(*rank)).unwrap_or(0);
    let mut spans = Vec::new();
    for part in parts.iter().filter(|part| part.rank <= upto) {
        if !spans.is_empty() {
            spans.push(Span::styled(" · ", theme.style(Role::Dim)));
        }
        spans.push(Span::styled(part.text(upto), theme.style(part.role)));
    }
    Line::from(spans)
}

/// While it runs: what it is doing, and for how long.
fn live(model: &Model, attempt: &Attempt, parts: &mut Vec<Part>) {
    let metrics = &attempt.metrics;
    route(attempt, parts);
    let elapsed = model.now.saturating_sub(attempt.entered_at).as_secs_f64() * 1000.0;
    let accent = |text: String| Part::new(0, Role::Accent, text);
    match &attempt.phase {
        Phase::Sending => parts.push(accent("sending".to_owned())),
        Phase::Queued { ahead } => parts.push(accent(format!("⏸ queued, {ahead} ahead"))),
        Phase::Loading { fraction } => {
            let share = f64::from(*fraction);
            parts.push(accent(format!("loading {} {}", format::percent(share), format::bar(share))));
        }
        Phase::Prefilling { done, total, .. } => {
            let share = f64::from(*done) / f64::from((*total).max(1));
            let count = format!("{}/{}", format::tokens(*done), format::tokens(*total));
            parts.push(accent(format!("prefill {count} {}", format::bar(share))));
        }
        Phase::Streaming(_) => {
            first(attempt, parts);
            speed(attempt, parts);
            if let Some(last) = metrics.last_token_ms
                && elapsed - last > SILENCE_MS
            {
                let text = format!("nothing for {:.0} s", ((elapsed - last) / 1000.0).floor());
                parts.push(Part::new(0, Role::Warn, text));
            }
        }
        Phase::Done(_) | Phase::Stopped | Phase::Interrupted(_) => {}
    }
    if metrics.total_ms.is_none() {
        parts.push(Part::new(1, Role::Dim, format::seconds(elapsed)));
    }
}

/// After it ended.
fn closed(attempt: &Attempt, parts: &mut Vec<Part>) {
    match attempt.phase {
        Phase::Stopped => parts.insert(0, Part::new(0, Role::Warn, "■ stopped")),
        Phase::Done(Finish::Length) => parts.insert(0, Part::new(0, Role::Warn, "▲ cut at the length limit")),
        _ => {}
    }
    route(attempt, parts);
    first(attempt, parts);
    speed(attempt, parts);
    if let Some(total) = attempt.metrics.total_ms {
        parts.push(Part::new(2, Role::Dim, format::seconds(total)));
    }
    // Nobody has to be told that nothing was chosen, or that nothing changed.
    let is_news = !matches!(attempt.decision.rule.as_str(), "default" | "session");
    if is_news && !attempt.decision.reason.is_empty() {
        parts.push(Part::new(7, Role::Dim, shown_line(&attempt.decision.reason, 60).to_string()));
    }
}

/// What has to be known of where it went: another machine failed, another variant answered, it goes on from another.
fn route(attempt: &Attempt, parts: &mut Vec<Part>) {
    let story = &attempt.story;
    if let Some(from) = &story.fallback_from {
        parts.push(Part::new(1, Role::Warn, format!("fallback from {}", &*shown_line(from, 24))));
    }
    if story.continues.is_some() {
        parts.push(Part::new(1, Role::Warn, "continued"));
    }
    if attempt.decision.is_variant {
        let of = attempt.decision.alias.as_deref().unwrap_or("what was meant");
        parts.push(Part::new(3, Role::Warn, format!("variant of {}", &*shown_line(of, 24))));
    }
}

/// Time to the first token and what it was spent on.
fn first(attempt: &Attempt, parts: &mut Vec<Part>) {
    let metrics = &attempt.metrics;
    let server = metrics.server.unwrap_or_default();
    let Some(first) = metrics.first_token_ms else { return };
    let mut part = Part::new(4, Role::Dim, format!("first {}", format::seconds(first)));
    if let Some(queue) = server.queue_ms {
        part.inner.push((format!("queue {}", format::millis(queue)), 11));
    }
    if let Some(load) = server.load_ms {
        part.inner.push((format!("load {}", format::millis(load)), 10));
    }
    if let Some(network) = metrics.network_ms() {
        part.inner.push((format!("net {}", format::millis(network)), 9));
    }
    let cached = server.cache_n.or(metrics.usage.cached_tokens);
    let new = server.prompt_n.or_else(|| Some(metrics.usage.prompt_tokens?.saturating_sub(cached?)));
    if let Some(new) = new {
        let mut text = format!("prefill {} new", format::tokens(new));
        if let Some(cached) = cached {
            let place = match server.cache_from {
                Some(CachePlace::Memory) => "from memory",
                Some(CachePlace::Disk) => "from disk",
                Some(CachePlace::Slot) | None => "cached",
            };
            text.push_str(&format!(" + {} {place}", format::tokens(cached)));
        }
        part.inner.push((text, 8));
    }
    if let Some(per_s) = metrics.prefill_tokens_per_s() {
        part.inner.push((format::speed(per_s), MAX_RANK));
    }
    parts.push(part);
    let lost = attempt.story.cache_lost.as_deref().or(server.cache_lost.map(crate::chat::CacheLost::words));
    if let Some(why) = lost {
        parts.push(Part::new(6, Role::Warn, format!("cache lost: {}", &*shown_line(why, 60))));
    }
    // After reasoning, the wait for the answer itself is another number.
    if let Some(answer) = metrics.first_answer_ms
        && answer > first
        && !attempt.thinking.is_empty()
    {
        parts.push(Part::new(6, Role::Dim, format!("answer after {}", format::seconds(answer))));
    }
}

/// Decode speed and tokens.
fn speed(attempt: &Attempt, parts: &mut Vec<Part>) {
    let metrics = &attempt.metrics;
    if let Some(per_s) = metrics.decode_tokens_per_s() {
        parts.push(Part::new(1, Role::Dim, format::speed(per_s)));
    }
    let tokens = metrics.usage.output_tokens.or_else(|| metrics.server?.predicted_n);
    if let Some(tokens) = tokens {
        parts.push(Part::new(5, Role::Dim, format!("{} tok", format::tokens(tokens))));
    }
    if let Some((drafted, accepted)) = metrics.server.and_then(|s| s.draft_n.zip(s.draft_n_accepted)) {
        parts.push(Part::new(9, Role::Dim, format!("draft {accepted}/{drafted}")));
    }
    if let Some(joules) = metrics.server.and_then(|s| s.energy_j) {
        parts.push(Part::new(9, Role::Dim, format::energy(joules)));
    }
}
