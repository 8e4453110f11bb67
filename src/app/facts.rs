//! What the router wants to know, put together from what is known: the one place for it, for the interface and for
//! the command line alike.

use super::history::{self, Part};
use super::learn;
use super::model::{BackendView, Model};
use super::routing::{Piece, Routing, Sent};
use super::turn::{Attempt, Lane, Phase, Turn};
use crate::chat::{GenError, GenErrorKind, ModelState, SessionId};
use crate::config::QuietHours;
use crate::router::{
    BackendFacts, Decision, Facts, Health, ModelFacts, Surroundings, Target, TurnFacts, route,
};
use std::time::Duration;

/// Tokens a chat template adds to each message, about.
const TOKENS_PER_MESSAGE: f64 = 4.0;
/// Answers whose length says how long the next one will be.
const RECENT: usize = 7;

/// Everything facts are made from.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// The person's choice.
    pub pin: &'a Target,
    /// What answered last in a conversation that was gone on with.
    pub before: &'a Target,
    /// The configured default.
    pub configured: &'a Target,
    /// The backends.
    pub backends: &'a [BackendView],
    /// Rules, speeds, what was sent.
    pub routing: &'a Routing,
    /// The conversation.
    pub session: &'a SessionId,
    /// Its system prompt.
    pub system: Option<&'a str>,
    /// Its turns before the question.
    pub turns: &'a [Turn],
    /// Characters of the question.
    pub question: usize,
    /// Files of the question behind the privacy fence, as they were named.
    pub fenced: &'a [String],
    /// Monotonic time.
    pub now: Duration,
    /// Wall clock, milliseconds since the epoch.
    pub wall_ms: i64,
}

impl Model {
    /// What the router wants to know about the draft.
    #[must_use]
    pub fn facts(&self) -> Facts {
        self.facts_of(&self.turns, self.composer.buffer.expanded_chars())
    }

    /// What the router wants to know about a question.
    #[must_use]
    pub fn facts_for(&self, question: &str) -> Facts {
        self.facts_of(&self.turns, question.chars().count())
    }

    /// The same for a question that follows these turns.
    pub(super) fn facts_of(&self, turns: &[Turn], question: usize) -> Facts {
        facts(&Known {
            pin: &self.prefs.pin,
            before: &self.session.target,
            configured: &self.prefs.configured,
            backends: &self.fleet.backends,
            routing: &self.routing,
            session: &self.session.id,
            system: self.session.system.as_deref(),
            turns,
            question,
            fenced: &[],
            now: self.now,
            wall_ms: self.wall_ms,
        })
    }
}

/// The facts.
#[must_use]
pub fn facts(known: &Known<'_>) -> Facts {
    let parts = history::parts(known.system, known.turns);
    let prompt = prompt_tokens(known, &parts);
    let (expected_thinking, expected_tokens) = expected(known.turns);
    let mut fenced = known.fenced.to_vec();
    for file in known.turns.iter().filter_map(|turn| turn.fence.as_ref()).flat_map(|fence| &fence.files) {
        if !fenced.contains(file) {
            fenced.push(file.clone());
        }
    }
    let backend = |view: &BackendView| {
        let models = view.models.iter().filter(|card| !view.embedders.contains(&card.id)).map(|card| {
            let residency = view.residency.iter().find(|residency| residency.id == card.id);
            ModelFacts {
                load_ms: learn::load_ms(&known.routing.speeds, &view.name, &card.id)
                    .or_else(|| residency?.load_ms),
                residency: residency.cloned(),
                speeds: learn::speeds(&known.routing.speeds, &view.name, &card.id, prompt.unwrap_or(0)),
                // Without the model, only an engine of ours still has something, on disk.
                cached_tokens: if view.is_engine || card.state != ModelState::Unloaded {
                    let warmed =
                        known.routing.warm.tokens(&view.name, &card.id, known.session, known.turns.len());
                    cached(known, &view.name, &card.id, &parts).max(warmed.unwrap_or(0))
                } else {
                    0
                },
                ..ModelFacts::from(card)
            }
        });
        BackendFacts {
            name: view.name.clone(),
            is_here: view.is_engine,
            kind: view.setup.kind,
            default_model: view.default_model.clone(),
            models: models.collect(),
            health: view.circuit.health(known.now),
            rtt_ms: view.rtt_ms,
            wake_ms: view.wake_ms,
            queue_ms: queue_ms(known, &view.name),
            failed_s: view.circuit.failed_s(known.now),
            hardware: view.setup.hardware.clone(),
            memory: view.setup.memory,
            is_noisy: view.setup.is_noisy,
            is_private: view.setup.is_private,
            ..BackendFacts::default()
        }
    };
    Facts {
        pin: known.pin.clone(),
        session: known.before.clone(),
        configured: known.configured.clone(),
        backends: known.backends.iter().map(backend).collect(),
        aliases: known.routing.aliases.clone(),
        rules: known.routing.rules.clone(),
        turn: TurnFacts {
            prompt_tokens: prompt,
            expected_tokens,
            expected_thinking,
            fenced,
            is_fence_lifted: known.routing.is_fence_lifted,
            ..TurnFacts::default()
        },
        surroundings: Surroundings {
            on_battery: known.routing.around.on_battery,
            is_quiet_hour: is_quiet(known),
        },
    }
}

/// Refuses a target the privacy fence keeps what is sent from.
///
/// # Errors
/// What is kept from where, and the next step. Nothing was sent.
pub fn fence(facts: &Facts, decision: &Decision) -> Result<(), GenError> {
    fence_from(facts, &decision.backend)
}

/// The same by the backend's name.
///
/// # Errors
/// As [`fence`].
pub fn fence_from(facts: &Facts, name: &str) -> Result<(), GenError> {
    let Some(first) = facts.turn.fenced.first().filter(|_| !facts.turn.is_fence_lifted) else {
        return Ok(());
    };
    let target = facts.backends.iter().find(|backend| backend.name == name);
    if target.is_some_and(|backend| backend.is_here || backend.is_private) {
        return Ok(());
    }
    let more = match facts.turn.fenced.len() - 1 {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Err(GenError::new(
        GenErrorKind::Fenced,
        format!(
            "{first}{more} stays on this machine: the privacy fence keeps it from {name}; nothing was sent\n\
             choose a model of this machine, or lift the fence for one turn: /fence lift, --lift-fence",
        ),
    ))
}

/// Why a turn goes nowhere.
#[derive(Clone, Debug, PartialEq)]
pub enum Refusal {
    /// The privacy fence keeps what is sent from where it would go.
    Fenced(GenError),
    /// Anything else, in one line.
    Other(String),
}

/// Decides where a turn goes, and keeps it from going where the privacy fence does not let it.
///
/// # Errors
/// Why it goes nowhere.
pub fn decide(facts: &Facts) -> Result<Decision, Refusal> {
    match route(facts) {
        Ok(decision) => fence(facts, &decision).map(|()| decision).map_err(Refusal::Fenced),
        Err(why) => {
            // Whether it would go somewhere, were it not for the fence.
            let mut lifted = facts.clone();
            lifted.turn.is_fence_lifted = true;
            let kept = route(&lifted).ok().and_then(|decision| fence(facts, &decision).err());
            Err(kept.map_or(Refusal::Other(why), Refusal::Fenced))
        }
    }
}

/// Forgets what speaks against a machine being there: a person who asks for it again may know better.
pub fn hope(facts: &mut Facts, backend: &str) {
    for known in facts.backends.iter_mut().filter(|known| known.name == backend && known.health.is_away()) {
        known.health = Health::Unknown;
    }
}

/// Where a turn could go when not to these machines, nor to one that would not answer. A model that only those had is
/// not asked for of another: that one has models of its own.
///
/// # Errors
/// One line: there is no other machine, or none that may have what is sent.
pub fn elsewhere(mut facts: Facts, tried: &[&str]) -> Result<Decision, String> {
    facts.backends.retain(|backend| {
        let is_away = matches!(
            backend.health,
            Health::Unreachable { .. } | Health::Failing { .. } | Health::KeyNeeded | Health::Untrusted
        );
        !is_away && !tried.contains(&backend.name.as_str())
    });
    if facts.backends.is_empty() {
        return Err("there is no other machine that answers".to_owned());
    }
    let is_tried = |name: &String| tried.contains(&name.as_str());
    for target in [&mut facts.pin, &mut facts.session, &mut facts.configured] {
        if target.backend.as_ref().is_some_and(is_tried) {
            target.backend = None;
        }
        let is_there = |model: &String| {
            facts.backends.iter().any(|backend| backend.has(model))
                || facts.aliases.iter().any(|alias| alias.name == *model)
        };
        if target.model.as_ref().is_some_and(|model| !is_there(model)) {
            target.model = None;
        }
    }
    let decision = route(&facts)?;
    fence(&facts, &decision).map_err(|error| error.message)?;
    Ok(decision)
}

/// Whether another machine may do better where this kind of failure came before the first text.
#[must_use]
pub const fn may_move(kind: GenErrorKind) -> bool {
    match kind {
        GenErrorKind::Unreachable
        | GenErrorKind::Refused
        | GenErrorKind::Auth
        | GenErrorKind::Untrusted
        | GenErrorKind::Protocol
        | GenErrorKind::Timeout
        | GenErrorKind::Model
        | GenErrorKind::OutOfMemory
        | GenErrorKind::EngineDied => true,
        GenErrorKind::Fenced | GenErrorKind::ContextFull => false,
    }
}

/// Tokens of the prompt: those a server counted for the longest beginning it has seen, and an estimate for the rest.
fn prompt_tokens(known: &Known<'_>, parts: &[Part<'_>]) -> Option<u32> {
    if known.question == 0 && parts.is_empty() {
        return None;
    }
    let seen = known.routing.sent.iter().filter(|sent| sent.session == *known.session);
    let whole = |sent: &&Sent| common(&sent.pieces, parts) == sent.pieces.len();
    let longest = seen.filter(whole).max_by_key(|sent| sent.pieces.len());
    let (counted, from) = longest.map_or((0, 0), |sent| (sent.tokens, sent.pieces.len()));
    let model = longest.map(|sent| sent.model.as_str()).or(known.pin.model.as_deref()).unwrap_or_default();
    let rest = parts.get(from..).unwrap_or_default();
    let chars = rest.iter().map(Part::chars).sum::<usize>() + known.question;
    let messages = rest.len() + 1;
    Some(counted.saturating_add(estimate(chars, messages, known.routing.chars_per_token(model))))
}

/// Tokens of so many characters in so many messages.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped"
)]
fn estimate(chars: usize, messages: usize, chars_per_token: f64) -> u32 {
    let tokens = chars as f64 / chars_per_token + messages as f64 * TOKENS_PER_MESSAGE;
    tokens.round().clamp(0.0, f64::from(u32::MAX)) as u32
}

/// Tokens of the conversation a model probably has in its cache.
fn cached(known: &Known<'_>, backend: &str, model: &str, parts: &[Part<'_>]) -> u32 {
    known.routing.sent_to(backend, model, known.session).map_or(0, |sent| reused(sent, parts))
}

/// Tokens of what a model was sent that are the beginning of this conversation as well.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped"
)]
pub(super) fn reused(sent: &Sent, parts: &[Part<'_>]) -> u32 {
    let same = common(&sent.pieces, parts);
    let chars = |pieces: &[(Piece, usize)]| pieces.iter().map(|(_, chars)| *chars).sum::<usize>() as f64;
    let all = chars(&sent.pieces);
    if all <= 0.0 {
        return 0;
    }
    let share = chars(sent.pieces.get(..same).unwrap_or_default()) / all;
    (f64::from(sent.tokens) * share * sent.reuse).round().clamp(0.0, f64::from(sent.tokens)) as u32
}

/// How many messages two conversations have in common from the beginning.
pub(super) fn common(sent: &[(Piece, usize)], parts: &[Part<'_>]) -> usize {
    sent.iter().zip(parts).take_while(|((piece, _), part)| *piece == part.piece).count()
}

/// Thinking and answer the next turn will probably have, from the last ones.
fn expected(turns: &[Turn]) -> (Option<u32>, Option<u32>) {
    let lanes = turns.iter().rev().flat_map(|turn| &turn.lanes);
    let done = lanes.filter_map(Lane::current).filter(|attempt| matches!(attempt.phase, Phase::Done(_)));
    let split = |attempt: &Attempt| {
        let tokens = attempt.metrics.usage.output_tokens?;
        let (thinking, answer) = (attempt.thinking.raw().len(), attempt.answer.raw().len());
        let all = u64::try_from(thinking + answer).ok().filter(|all| *all > 0)?;
        let thought = u64::from(tokens) * u64::try_from(thinking).ok()? / all;
        let thought = u32::try_from(thought).unwrap_or(tokens).min(tokens);
        Some((thought, tokens - thought))
    };
    let recent: Vec<(u32, u32)> = done.filter_map(split).take(RECENT).collect();
    if recent.is_empty() {
        return (None, None);
    }
    let median = |mut values: Vec<u32>| {
        values.sort_unstable();
        values.get(values.len() / 2).copied()
    };
    (median(recent.iter().map(|(t, _)| *t).collect()), median(recent.iter().map(|(_, a)| *a).collect()))
}

/// Time until the answer of ours that runs there will probably have ended.
fn queue_ms(known: &Known<'_>, backend: &str) -> Option<f64> {
    let lanes = known.turns.iter().rev().flat_map(|turn| &turn.lanes);
    let running = lanes
        .filter_map(Lane::current)
        .find(|attempt| !attempt.phase.is_terminal() && attempt.decision.backend == backend)?;
    let Decision { model, .. } = &running.decision;
    let speed = learn::speeds(&known.routing.speeds, backend, model, 0).decode?;
    let (thinking, answer) = expected(known.turns);
    let expected = f64::from(thinking?.saturating_add(answer?));
    let produced = f64::from(running.metrics.usage.output_tokens.unwrap_or(0));
    Some((expected - produced).max(0.0) / speed.tokens_per_s.max(0.01) * 1000.0)
}

/// Whether the wall clock shows a quiet hour.
fn is_quiet(known: &Known<'_>) -> bool {
    let hours = known.routing.rules.quiet_hours.as_deref().and_then(QuietHours::parse);
    let minute = (known.wall_ms / 1000 + i64::from(known.routing.around.utc_offset_s)).div_euclid(60);
    hours.is_some_and(|hours| hours.holds(u16::try_from(minute.rem_euclid(24 * 60)).unwrap_or(0)))
}
