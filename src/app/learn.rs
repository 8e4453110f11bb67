//! What each answer teaches: speeds, how dense a model's tokens are, what its server has in its cache, and how well
//! it was predicted.

use super::facts::{common, reused};
use super::history::{self, Part};
use super::routing::{Density, Piece, Sent};
use super::story::{self, Hope};
use super::turn::{Attempt, Turn};
use super::update::Step;
use crate::chat::record::{OutcomeRecord, SpeedRecord, StoreJob};
use crate::chat::{GenKey, Metrics, SessionId};
use crate::router::speeds::{Before, Bucket, Learnt, Smooth};
use crate::router::{Decision, Speeds};

/// A load shorter than this was none.
const LOAD_MS: f64 = 1.0;
/// Models whose last conversation is remembered.
const REMEMBERED: usize = 64;
/// Tokens that have to be lost from a cache before it is said, and what part of them.
const LOST_TOKENS: u32 = 64;
const LOST_SHARE: f64 = 0.7;

/// Measured speeds for a context this long, or else for the nearest one.
#[must_use]
pub fn speeds(rows: &[SpeedRecord], backend: &str, model: &str, tokens: u32) -> Speeds {
    learnt(rows, backend, model).speeds(tokens)
}

/// What is known of one model on one machine.
fn learnt(rows: &[SpeedRecord], backend: &str, model: &str) -> Learnt {
    let mut all = Learnt::default();
    let smooth = |value: Option<f64>, samples: u32| {
        value.map_or_else(Smooth::default, |value| Smooth { value, samples: samples.max(1) })
    };
    for row in rows.iter().filter(|row| row.backend == backend && row.model == model) {
        let at = usize::from(row.bucket);
        if let (Some(prefill), Some(decode)) = (all.prefill.get_mut(at), all.decode.get_mut(at)) {
            *prefill = smooth(row.prefill, row.prefill_samples);
            *decode = smooth(row.decode, row.decode_samples);
        }
    }
    all
}

/// How long a load took when last measured.
#[must_use]
pub fn load_ms(rows: &[SpeedRecord], backend: &str, model: &str) -> Option<f64> {
    let known = rows.iter().filter(|row| row.backend == backend && row.model == model);
    known.filter(|row| row.load_ms.is_some()).max_by_key(|row| row.updated_ms)?.load_ms
}

/// Takes what was measured into the speeds. The rows that changed.
pub fn measured(
    rows: &mut Vec<SpeedRecord>,
    decision: &Decision,
    metrics: &Metrics,
    before: Before,
    now_ms: i64,
) -> Vec<SpeedRecord> {
    let news = learnt(rows, &decision.backend, &decision.model).observe(metrics, before);
    let load = news.load_ms.map(|_| Bucket::of(prompt_tokens(metrics).unwrap_or(0)));
    let mut buckets: Vec<Bucket> =
        [news.prefill.map(|(at, _)| at), news.decode.map(|(at, _)| at), load].into_iter().flatten().collect();
    buckets.sort_unstable();
    buckets.dedup();
    let mut changed = Vec::new();
    for bucket in buckets {
        let number = bucket.number();
        let is_row = |row: &SpeedRecord| {
            row.backend == decision.backend && row.model == decision.model && row.bucket == number
        };
        let at = rows.iter().position(is_row).unwrap_or_else(|| {
            rows.push(SpeedRecord {
                backend: decision.backend.clone(),
                model: decision.model.clone(),
                bucket: number,
                ..SpeedRecord::default()
            });
            rows.len() - 1
        });
        let Some(row) = rows.get_mut(at) else { continue };
        if let Some((_, speed)) = news.prefill.filter(|(of, _)| *of == bucket) {
            (row.prefill, row.prefill_samples) = (Some(speed.value), speed.samples);
        }
        if let Some((_, speed)) = news.decode.filter(|(of, _)| *of == bucket) {
            (row.decode, row.decode_samples) = (Some(speed.value), speed.samples);
        }
        if load == Some(bucket) {
            row.load_ms = metrics.server.and_then(|server| server.load_ms);
        }
        row.updated_ms = now_ms;
        changed.push(row.clone());
    }
    changed
}

/// Whether the first token of an answer waited for its prefill alone: then the client's clock tells its speed where the
/// server does not.
#[must_use]
pub const fn before(hope: &Hope) -> Before {
    // It has answered in this conversation, so it was resident.
    if hope.whole > 0 { Before::Prefill } else { Before::Other }
}

/// How a complete answer went, against how it was predicted to go.
#[must_use]
pub fn outcome(
    decision: &Decision,
    quantisation: Option<&str>,
    metrics: &Metrics,
    ended_ms: i64,
) -> OutcomeRecord {
    let others = decision.rejected.iter().filter(|other| other.could_answer).filter_map(|other| {
        Some((other.backend.as_str(), other.model.as_deref().unwrap_or_default(), other.predicted?))
    });
    let others = serde_json::to_string(&others.collect::<Vec<_>>()).unwrap_or_default();
    OutcomeRecord {
        ended_ms,
        backend: decision.backend.clone(),
        model: decision.model.clone(),
        quantisation: quantisation.map(str::to_owned),
        prompt_tokens: prompt_tokens(metrics),
        cached_tokens: cached_tokens(metrics),
        output_tokens: metrics.usage.output_tokens,
        prefill: metrics.prefill_tokens_per_s(),
        decode: metrics.decode_tokens_per_s(),
        first_ms: metrics.first_token_ms,
        total_ms: metrics.total_ms,
        rule: decision.rule.clone(),
        predicted: decision.predicted.and_then(|prediction| serde_json::to_string(&prediction).ok()),
        others,
    }
}

fn prompt_tokens(metrics: &Metrics) -> Option<u32> {
    let server = metrics.server.unwrap_or_default();
    let told = metrics.usage.prompt_tokens;
    told.or_else(|| Some(server.prompt_n?.saturating_add(server.cache_n.unwrap_or(0))))
}

fn cached_tokens(metrics: &Metrics) -> Option<u32> {
    metrics.server.and_then(|server| server.cache_n).or(metrics.usage.cached_tokens)
}

/// What a server can be expected to have of these messages.
pub(super) fn hope(sent: Option<&Sent>, parts: &[Part<'_>]) -> Hope {
    let Some(sent) = sent else { return Hope::default() };
    let same = common(&sent.pieces, parts);
    let lost = match (sent.pieces.get(same), parts.get(same)) {
        // The one continues the other.
        (None, _) | (_, None) => None,
        (Some((Piece::System(_), _)), _) | (_, Some(Part { piece: Piece::System(_), .. })) => {
            Some("the system prompt changed".to_owned())
        }
        (Some((Piece::User(turn) | Piece::Answer(GenKey { turn, .. }), _)), _) => {
            Some(format!("the conversation changed at turn {}", turn.0))
        }
    };
    let (tokens, whole) = (reused(sent, parts), reused(&Sent { reuse: 1.0, ..sent.clone() }, parts));
    Hope { tokens, whole, lost: lost.filter(|_| sent.tokens.saturating_sub(whole) >= LOST_TOKENS) }
}

fn is_reloaded(metrics: &Metrics) -> bool {
    metrics.server.and_then(|server| server.load_ms).is_some_and(|ms| ms > LOAD_MS)
}

/// Why much of what should have been in the cache was read again, if it was and the server doesn't say.
#[must_use]
pub fn lost(hope: Hope, metrics: &Metrics, backend: &str) -> Option<String> {
    let found = f64::from(cached_tokens(metrics)?);
    let is_less = hope.tokens >= LOST_TOKENS && found < f64::from(hope.tokens) * LOST_SHARE;
    let is_told = metrics.server.is_some_and(|server| server.cache_lost.is_some());
    hope.lost.or_else(|| {
        (is_less && !is_told).then(|| {
            if is_reloaded(metrics) {
                "the model was loaded again".to_owned()
            } else {
                format!("{backend} was used for something else")
            }
        })
    })
}

/// What a server can be expected to have of a question that follows these turns.
#[must_use]
pub fn hope_for(
    sent: &[Sent],
    decision: &Decision,
    session: &SessionId,
    system: Option<&str>,
    turns: &[Turn],
) -> Hope {
    let is_same = |sent: &&Sent| {
        sent.backend == decision.backend && sent.model == decision.model && sent.session == *session
    };
    hope(sent.iter().find(is_same), &history::parts(system, turns))
}

/// The messages of an attempt as they were sent, without its own answer.
fn sent_parts<'a>(system: Option<&'a str>, earlier: &'a [Turn], turn: &'a Turn) -> Vec<Part<'a>> {
    let mut parts = history::parts(system, earlier);
    parts.push(history::question(turn));
    parts
}

/// What a model has after it answered.
fn held(session: &SessionId, parts: &[Part<'_>], attempt: &Attempt, reuse: f64) -> Option<Sent> {
    let output =
        attempt.metrics.usage.output_tokens.or_else(|| attempt.metrics.server?.predicted_n).unwrap_or(0);
    Some(Sent {
        backend: attempt.decision.backend.clone(),
        model: attempt.decision.model.clone(),
        session: session.clone(),
        pieces: parts.iter().map(|part| (part.piece.clone(), part.chars())).collect(),
        tokens: prompt_tokens(&attempt.metrics)?.saturating_add(output),
        reuse,
    })
}

/// What the models of a saved conversation have been sent, by its records.
#[must_use]
pub fn sent_before(session: &SessionId, system: Option<&str>, turns: &[Turn]) -> Vec<Sent> {
    let mut all: Vec<Sent> = Vec::new();
    for (at, turn) in turns.iter().enumerate() {
        for lane in turn.lanes.iter().filter(|lane| lane.counts()) {
            let Some(attempt) = lane.current() else { continue };
            let mut parts = sent_parts(system, turns.get(..at).unwrap_or_default(), turn);
            parts.extend(history::answer(lane));
            if let Some(sent) = held(session, &parts, attempt, 1.0) {
                all.retain(|known| (&known.backend, &known.model) != (&sent.backend, &sent.model));
                all.push(sent);
            }
        }
    }
    all
}

impl Step<'_> {
    /// Takes in what a complete answer has shown. Called before it is closed.
    pub(super) fn learn(&mut self, key: GenKey) {
        let model = &mut *self.model;
        let Some(at) = model.turns.iter().rposition(|turn| turn.id == key.turn) else { return };
        let (earlier, rest) = model.turns.split_at(at);
        let Some(turn) = rest.first() else { return };
        let Some(lane) = turn.lanes.iter().find(|lane| lane.id == key.lane) else { return };
        let Some(attempt) = lane.attempts.iter().find(|attempt| attempt.key == key) else { return };
        let (decision, metrics) = (attempt.decision.clone(), attempt.metrics);
        let mut parts = sent_parts(model.session.system.as_deref(), earlier, turn);
        let asked: usize = parts.iter().map(Part::chars).sum();
        let (hope, messages) = (attempt.hope.clone(), parts.len());
        parts.extend(history::answer(lane));

        // The cache: what was hoped for, and what the server found.
        let found = cached_tokens(&metrics);
        let before = model.routing.sent_to(&decision.backend, &decision.model, &model.session.id);
        let mut reuse = before.map_or(1.0, |sent| sent.reuse);
        if let Some(found) = found.map(f64::from)
            && hope.whole >= LOST_TOKENS
            && !is_reloaded(&metrics)
        {
            reuse = f64::midpoint(reuse, (found / f64::from(hope.whole)).min(1.0));
        }
        let lost = lost(hope, &metrics, &decision.backend);
        let sent = held(&model.session.id, &parts, attempt, reuse);
        if let Some(prompt) = prompt_tokens(&metrics) {
            dense(&mut model.routing.densities, &decision.model, asked, messages, prompt);
        }
        let same = |known: &Sent| known.backend == decision.backend && known.model == decision.model;
        if let Some(sent) = sent {
            model.routing.sent.retain(|known| !same(known));
            model.routing.sent.push(sent);
            let surplus = model.routing.sent.len().saturating_sub(REMEMBERED);
            model.routing.sent.drain(..surplus);
        }
        if let Some(lost) = lost {
            self.tell(key, |story| story.cache_lost = Some(lost));
        }
    }

    /// Keeps how an answer went. Called when it is closed.
    pub(super) fn log(&mut self, key: GenKey) {
        let now_ms = self.ctx.wall_ms;
        let Some(attempt) = self.attempt(key) else { return };
        let (decision, metrics) = (attempt.decision.clone(), attempt.metrics);
        let (quantisation, before) = (attempt.quantisation.clone(), before(&attempt.hope));
        for row in measured(&mut self.model.routing.speeds, &decision, &metrics, before, now_ms) {
            self.store(StoreJob::KeepSpeed(Box::new(row)));
        }
        let outcome = outcome(&decision, quantisation.as_deref(), &metrics, now_ms);
        // Of what nobody counted there is nothing to learn.
        if outcome.output_tokens.is_some() || outcome.prefill.is_some() {
            self.store(StoreJob::LogOutcome(Box::new(outcome)));
        }
    }

    /// Adds to the story of an attempt.
    pub(super) fn tell(&mut self, key: GenKey, add: impl FnOnce(&mut story::Story)) {
        let Some(attempt) = self.attempt(key) else { return };
        add(&mut attempt.story);
        let decision = story::to_json(&attempt.decision, &attempt.story);
        let session = self.model.session.id.clone();
        self.store(StoreJob::Decide { session, key, decision });
    }
}

/// Learns how many characters a token of this model has.
#[expect(clippy::cast_precision_loss, reason = "a rate")]
fn dense(densities: &mut Vec<Density>, model: &str, chars: usize, messages: usize, tokens: u32) {
    let of_text = f64::from(tokens) - 4.0 * messages as f64;
    if tokens < 48 || of_text < 16.0 {
        return;
    }
    let new = (chars as f64 / of_text).clamp(0.5, 12.0);
    match densities.iter_mut().find(|density| density.model == model) {
        Some(density) => density.chars_per_token += (new - density.chars_per_token) * 0.5,
        None => densities.push(Density { model: model.to_owned(), chars_per_token: new }),
    }
}
