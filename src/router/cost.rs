//! What a turn would cost on one target.
//!
//! ```text
//! first  = round trip + waking up + queue + load + new prompt tokens / prefill speed
//! answer = first + thinking / decode speed
//! done   = answer + tokens / decode speed
//! ```
//!
//! The score is in milliseconds, less is better, and depends on the policy:
//!
//! - `snappy`: answer;
//! - `balanced`, `quiet`: answer + stall + 0.15 (done - answer), where the stall is what a reader waits because text comes slower
//!   than it is read;
//! - `finish`: done;
//! - `saver`: 1 s for every 100 J, and a tenth of `balanced`, so that of two that take as much the quicker one wins.
//!
//! Where turns are expected to follow, what is paid once, the load and the prefill, is spread over all of them (but for
//! `snappy`, which wants this text now), and each is counted its question more to prefill: else a machine that is
//! slower for the whole conversation would be taken because it starts sooner.
//!
//! Penalties are milliseconds too, so that they add and can be shown.

use super::candidates::Candidate;
use super::decision::{Penalties, Prediction};
use super::facts::{BackendFacts, Facts, Health, ModelFacts, Speed};
use super::machines::{self, Load, Machine, Placement};
use super::shapes::{self, Shape};
use super::speeds::{USUAL_ANSWER, USUAL_THINKING};
use super::words::{float, whole};
use crate::config::Policy;

/// Tokens a person reads in a second.
const READING: f64 = 8.0;
/// Bytes of a file read in a second, from a fast disk, and when the system still has it in memory.
const DISK: f64 = 1.5e9;
const CACHED_DISK: f64 = 6e9;
/// Seconds after leaving memory in which the system probably still has the file.
const STILL_CACHED: f64 = 600.0;
/// Time a machine takes to wake up when nobody has measured it: that of a cold start over the network.
const WAKE_MS: f64 = 90_000.0;
/// Round trips nobody measured: in this machine, and in a house.
const RTT_HERE_MS: f64 = 0.2;
const RTT_MS: f64 = 5.0;
/// Seconds in which a failure counts, and milliseconds it counts at first.
const FAILURE_S: f64 = 120.0;
const FAILURE_MS: f64 = 10_000.0;
const BATTERY_MS: f64 = 3_000.0;
const NIGHT_MS: f64 = 5_000.0;
/// Under `quiet` the silent machine is taken unless it is this much slower.
const QUIET_MS: f64 = 60_000.0;
const VARIANT_MS: f64 = 2_000.0;
/// Seconds since its last use in which a model is missed when it was sent away.
const MISSED_S: f64 = 600.0;
/// Watts of a machine nobody knows.
const WATTS: f64 = 150.0;
/// Turns that are counted on to follow, at most, and new tokens each of them has.
const MOST_FOLLOW_UPS: f64 = 10.0;
const USUAL_QUESTION: f64 = 150.0;
/// Context a model is loaded with when nothing says more, in tokens.
const USUAL_CONTEXT: u32 = 8192;

/// What is known of a model's insides, by its server or by its name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Insides {
    parameters: u64,
    active: u64,
    /// Bytes of weights.
    bytes: u64,
    kv_per_token: u64,
    compute: u64,
    expert_share: f64,
    thinks: bool,
}

impl Insides {
    /// What is known of a candidate's model; none when neither its server nor its name tells.
    pub(super) fn of(candidate: &Candidate<'_>) -> Option<Self> {
        let (model, shape) = (candidate.model, candidate.shape());
        let told = model.and_then(|model| model.parameters);
        let parameters = told.or(shape.map(|shape| shape.parameters))?;
        let is_near = |shape: &Shape| shape.parameters.abs_diff(parameters) < parameters / 4;
        let named = shape.filter(is_near);
        let active = model.and_then(|model| model.active_parameters).or(named.map(|shape| shape.active));
        let active = active.unwrap_or(parameters).clamp(1, parameters.max(1));
        let typical = named.unwrap_or_else(|| shapes::sized(parameters, active));
        let quant = model.and_then(|m| m.quantisation.as_deref()).and_then(shapes::quant);
        let bits = quant.unwrap_or(shapes::DEFAULT_QUANT).bits;
        let by_bits = || whole(float(parameters) * bits / 8.0);
        let kv = model.and_then(|m| m.kv_bytes_per_token);
        Some(Self {
            parameters,
            active,
            bytes: model.and_then(|m| m.bytes).unwrap_or_else(by_bits),
            kv_per_token: kv.unwrap_or_else(|| typical.kv_bytes_per_token()),
            compute: typical.compute_bytes(),
            expert_share: if active < parameters { typical.expert_share() } else { 0.0 },
            thinks: shape.is_some_and(|shape| shape.thinks),
        })
    }

    /// Bytes it takes in memory with a context long enough for the prompt.
    pub(super) fn load(&self, model: Option<&ModelFacts>, prompt_tokens: u32) -> Load {
        let most = model.and_then(|m| m.context).unwrap_or(u32::MAX);
        let context = prompt_tokens.saturating_add(1024).max(USUAL_CONTEXT).min(most.max(1));
        Load {
            weights: self.bytes,
            kv: self.kv_per_token.saturating_mul(u64::from(context)),
            context,
            compute: self.compute,
            parameters: self.parameters,
            active: self.active,
            expert_share: self.expert_share,
        }
    }
}

/// The machine a backend runs on, where it is known.
pub(super) fn machine(backend: &BackendFacts) -> Option<Machine> {
    machines::known(backend.hardware.as_deref()?)
}

/// A number somebody told that can be one.
fn sane(value: Option<f64>) -> Option<f64> {
    value.filter(|value| value.is_finite() && *value >= 0.0)
}

fn measured(speed: Option<Speed>) -> Option<(f64, u32)> {
    let speed = speed?;
    (speed.tokens_per_s.is_finite() && speed.tokens_per_s > 0.0)
        .then_some((speed.tokens_per_s, speed.samples.max(1)))
}

/// What the turn would cost there. None when the prompt was not counted, or no speed is measured and nothing to guess
/// one from is known.
pub(super) fn predict(candidate: &Candidate<'_>, facts: &Facts) -> Option<Prediction> {
    let prompt_tokens = facts.turn.prompt_tokens?;
    let (backend, model) = (candidate.backend, candidate.model);
    let speeds = model.map(|model| model.speeds).unwrap_or_default();
    let (prefill, decode) = (measured(speeds.prefill), measured(speeds.decode));
    let insides = Insides::of(candidate);
    let guess = || -> Option<Placement> {
        let load = insides?.load(model, prompt_tokens);
        let machine = machine(backend)?;
        let (device, host) = machine.usable();
        // What a person or the server said of its memory counts for more than the table.
        let room = match backend.memory {
            Some(memory) if device == 0 => (0, memory),
            Some(memory) => (memory, host),
            None => (device, host),
        };
        Some(machines::place_within(&load, &machine, room))
    };
    let guess = if prefill.is_some() && decode.is_some() { None } else { guess() };
    let (prefill_speed, _) = prefill.or_else(|| Some((guess?.prefill?, 0)))?;
    let (decode_speed, samples) = decode.or_else(|| Some((guess?.decode?, 0)))?;

    let is_resident = is_resident(candidate, facts);
    let cached = if is_resident { model.map_or(0, |model| model.cached_tokens) } else { 0 };
    let new_tokens = prompt_tokens - cached.min(prompt_tokens.saturating_sub(1));
    let tokens = f64::from(facts.turn.expected_tokens.unwrap_or(USUAL_ANSWER));
    let thinks = insides.is_some_and(|insides| insides.thinks);
    let usual_thinking = if thinks { USUAL_THINKING } else { 0 };
    let thinking = f64::from(facts.turn.expected_thinking.unwrap_or(usual_thinking));

    let rtt_ms = sane(backend.rtt_ms);
    let usual_rtt = if backend.is_here { RTT_HERE_MS } else { RTT_MS };
    let wake_ms = match backend.health {
        Health::Asleep => sane(backend.wake_ms).unwrap_or(WAKE_MS),
        _ => 0.0,
    };
    let queue_ms = sane(backend.queue_ms).unwrap_or(match backend.health {
        // Somebody's answer is half written.
        Health::Busy => tokens / 2.0 / decode_speed * 1000.0,
        _ => 0.0,
    });
    let wait_ms = rtt_ms.unwrap_or(usual_rtt) + wake_ms + queue_ms;
    let load_ms = if is_resident { 0.0 } else { load_ms(model, insides.map(|insides| insides.bytes)) };
    let prefill_ms = f64::from(new_tokens) / prefill_speed * 1000.0;
    let first_ms = wait_ms + load_ms + prefill_ms;
    let answer_ms = first_ms + thinking / decode_speed * 1000.0;
    let writing_ms = tokens / decode_speed * 1000.0;
    let total_ms = answer_ms + writing_ms;

    let penalties = penalties(candidate, facts);
    let stall_ms = (writing_ms - tokens / READING * 1000.0).max(0.0);
    let balanced = answer_ms + stall_ms + 0.15 * writing_ms;
    // Of what is paid once, the share this turn has to bear.
    let turns = 1.0 + sane(facts.turn.follow_ups).unwrap_or(0.0).min(MOST_FOLLOW_UPS);
    let question = facts.turn.follow_up_tokens.map_or(USUAL_QUESTION, f64::from);
    let later_ms = (turns - 1.0) * question / prefill_speed * 1000.0;
    let spread_ms = (load_ms + prefill_ms + later_ms) / turns - load_ms - prefill_ms;
    let score = match facts.rules.policy {
        Policy::Snappy => answer_ms,
        Policy::Finish => total_ms + spread_ms,
        Policy::Balanced | Policy::Quiet => balanced + spread_ms,
        Policy::Saver => {
            let watts = sane(backend.watts).or_else(|| Some(machine(backend)?.watts)).unwrap_or(WATTS);
            let busy_ms = load_ms + total_ms - first_ms + prefill_ms;
            // 100 J count as a second.
            (busy_ms + spread_ms) * watts / 100.0 + 0.1 * (balanced + spread_ms)
        }
    };
    let score_ms = score + penalties.total_ms();
    let prediction = Prediction {
        first_ms,
        answer_ms,
        total_ms,
        wait_ms,
        load_ms,
        prefill_ms,
        new_tokens,
        prompt_tokens,
        decode_tokens_per_s: decode_speed,
        samples,
        is_guess: guess.is_some(),
        rtt_ms,
        penalties,
        score_ms,
    };
    (score_ms.is_finite() && total_ms.is_finite()).then_some(prediction)
}

/// Whether the model is in memory there, as far as anybody knows.
fn is_resident(candidate: &Candidate<'_>, facts: &Facts) -> bool {
    let told = candidate.model.and_then(|model| model.is_resident);
    let seen = || {
        let has_cache = candidate.model.is_some_and(|model| model.cached_tokens > 0);
        let is_default = candidate.backend.default_model.as_deref() == Some(candidate.id);
        has_cache || is_default || candidate.is_previous(facts)
    };
    told.unwrap_or_else(seen)
}

fn load_ms(model: Option<&ModelFacts>, bytes: Option<u64>) -> f64 {
    let measured = sane(model.and_then(|m| m.load_ms.or(m.residency.as_ref().and_then(|kept| kept.load_ms))));
    let is_cached = model.and_then(|model| model.left_s).is_some_and(|left| left < STILL_CACHED);
    let from_disk = |bytes: u64| float(bytes) / if is_cached { CACHED_DISK } else { DISK } * 1000.0;
    let whole = measured.or(bytes.map(from_disk)).unwrap_or(0.0);
    // On its way already.
    let loading = model.and_then(|m| m.residency.as_ref()).and_then(|kept| kept.loading);
    match loading {
        Some((done, total)) if total > 0 => whole * (1.0 - (float(done) / float(total)).clamp(0.0, 1.0)),
        _ => whole,
    }
}

fn penalties(candidate: &Candidate<'_>, facts: &Facts) -> Penalties {
    let backend = candidate.backend;
    let surroundings = facts.surroundings;
    let failure = sane(backend.failed_s).map_or(0.0, |s| FAILURE_MS * (1.0 - s / FAILURE_S).max(0.0));
    let noise = match (backend.is_noisy, facts.rules.policy, surroundings.is_quiet_hour) {
        (true, Policy::Quiet, _) => QUIET_MS,
        (true, _, true) => NIGHT_MS,
        _ => 0.0,
    };
    Penalties {
        battery_ms: if backend.is_here && surroundings.on_battery { BATTERY_MS } else { 0.0 },
        noise_ms: noise,
        failure_ms: failure,
        eviction_ms: eviction_ms(candidate),
        variant_ms: if candidate.is_variant { VARIANT_MS } else { 0.0 },
    }
}

/// What it takes to load again the models that would have to leave and were used not long ago.
fn eviction_ms(candidate: &Candidate<'_>) -> f64 {
    let Some(model) = candidate.model.filter(|model| model.is_resident == Some(false)) else { return 0.0 };
    let verdict = model.residency.as_ref().and_then(|kept| kept.verdict.as_ref());
    let leaving = verdict.map(|verdict| verdict.unload.as_slice()).unwrap_or_default();
    let cost = |id: &String| {
        let other = candidate.backend.models.iter().find(|other| &other.id == id)?;
        let idle = other.residency.as_ref().and_then(|kept| kept.idle_s).unwrap_or(0.0);
        (idle < MISSED_S).then(|| load_ms(Some(other), other.bytes))
    };
    leaving.iter().filter_map(cost).sum()
}
