//! What was learnt of a model on a machine: speeds by length of context, load times, lengths of answers, and how well
//! the router guessed. Pure: values in, values out; who keeps them is somebody else's business.
//!
//! A measurement moves the value by a share that halves what was before in 8 turns (by more while there are few), after it was
//! brought to within a factor of two of the value. Prefill of fewer than 64 new tokens is noise and not counted.

use super::facts::{Speed, Speeds};
use super::{Decision, Prediction};
use crate::chat::Metrics;
use serde::{Deserialize, Serialize};

/// Turns after which half of a value comes from later ones.
const HALF_LIFE: f64 = 8.0;
/// How far from the value a measurement counts, as a factor.
const FARTHEST: f64 = 2.0;
/// Measurements before any is brought closer.
const TRUSTED_AFTER: u32 = 3;
/// New prompt tokens from which prefill is measured.
const LEAST_PREFILL: u32 = 64;
/// Tokens of an answer from which decode is measured.
const LEAST_DECODE: u32 = 8;
/// Answers of a conversation the expected length is taken from.
const RECENT_ANSWERS: usize = 8;
/// Conversations the number of further turns is taken from.
const RECENT_CONVERSATIONS: usize = 100;
/// Answers of a model, and questions, their length is taken from.
const RECENT_OF_ALL: usize = 50;
/// Tokens an answer has when nothing is known.
pub const USUAL_ANSWER: u32 = 300;
/// Tokens a model thinks, when it does and nothing is known.
pub const USUAL_THINKING: u32 = 800;

/// Contexts that are measured apart: the longer it is, the slower.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bucket {
    /// At most 2k tokens.
    To2k,
    /// At most 8k.
    To8k,
    /// At most 32k.
    To32k,
    /// More.
    Over32k,
}

impl Bucket {
    /// All of them, the shortest first.
    pub const ALL: [Self; 4] = [Self::To2k, Self::To8k, Self::To32k, Self::Over32k];

    /// The one of a context that holds this many tokens.
    #[must_use]
    pub const fn of(tokens: u32) -> Self {
        match tokens {
            0..=2_048 => Self::To2k,
            2_049..=8_192 => Self::To8k,
            8_193..=32_768 => Self::To32k,
            _ => Self::Over32k,
        }
    }

    /// In words: `≤2k`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::To2k => "≤2k",
            Self::To8k => "≤8k",
            Self::To32k => "≤32k",
            Self::Over32k => ">32k",
        }
    }

    /// Its place among [`Self::ALL`].
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    fn index(self) -> usize {
        usize::from(self.number())
    }
}

/// One smoothed value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Smooth {
    /// The value.
    pub value: f64,
    /// Measurements in it.
    pub samples: u32,
}

impl Smooth {
    /// The value after one more measurement. What is no positive number changes nothing.
    #[must_use]
    pub fn with(self, measured: f64) -> Self {
        if !(measured.is_finite() && measured > 0.0) {
            return self;
        }
        if self.samples == 0 || !(self.value.is_finite() && self.value > 0.0) {
            return Self { value: measured, samples: 1 };
        }
        let near = if self.samples >= TRUSTED_AFTER {
            measured.clamp(self.value / FARTHEST, self.value * FARTHEST)
        } else {
            measured
        };
        let samples = self.samples.saturating_add(1);
        let share = (1.0 - 0.5_f64.powf(1.0 / HALF_LIFE)).max(1.0 / f64::from(samples));
        Self { value: self.value + share * (near - self.value), samples }
    }
}

/// Whether the time before the first token was prefill alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Before {
    /// The model was resident and nothing waited: the client's clock can stand in for the server's.
    Prefill,
    /// It was loaded, or others came first, or nobody knows.
    #[default]
    Other,
}

/// What was learnt of one model on one machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Learnt {
    /// Prefill in tokens per second, by context.
    pub prefill: [Smooth; 4],
    /// Decode in tokens per second, by context.
    pub decode: [Smooth; 4],
    /// Time of a load, in milliseconds.
    pub load_ms: Smooth,
}

/// What one turn taught.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct News {
    /// Prefill, as it is now.
    pub prefill: Option<(Bucket, Smooth)>,
    /// Decode, as it is now.
    pub decode: Option<(Bucket, Smooth)>,
    /// Time of a load in milliseconds, as it is now.
    pub load_ms: Option<Smooth>,
}

impl Learnt {
    /// Takes a turn in, and says what changed. Nothing is learnt from what nobody measured.
    pub fn observe(&mut self, metrics: &Metrics, before: Before) -> News {
        let mut news = News::default();
        let server = metrics.server.unwrap_or_default();
        let usage = metrics.usage;
        let cached = server.cache_n.or(usage.cached_tokens);
        let new = server.prompt_n.or_else(|| Some(usage.prompt_tokens?.saturating_sub(cached?)));
        let prompt =
            usage.prompt_tokens.or_else(|| Some(cached.unwrap_or(0).saturating_add(server.prompt_n?)));
        let output = usage.output_tokens.or(server.predicted_n).unwrap_or(0);

        let by_client = || match before {
            Before::Prefill => Some(metrics.first_token_ms? - metrics.sent_ms?),
            Before::Other => None,
        };
        let prefill_ms = server.prompt_ms.or_else(by_client);
        if let (Some(new), Some(ms)) = (new, prefill_ms)
            && new >= LEAST_PREFILL
            && ms > 0.0
        {
            let bucket = Bucket::of(prompt.unwrap_or(new));
            news.prefill = learn(&mut self.prefill, bucket, f64::from(new) / ms * 1000.0);
        }
        if let Some(speed) = metrics.decode_tokens_per_s()
            && output >= LEAST_DECODE
        {
            let bucket = Bucket::of(prompt.unwrap_or(0).saturating_add(output / 2));
            news.decode = learn(&mut self.decode, bucket, speed);
        }
        if let Some(ms) = server.load_ms.filter(|ms| *ms > 1.0) {
            self.load_ms = self.load_ms.with(ms);
            news.load_ms = Some(self.load_ms);
        }
        news
    }

    /// Speeds for a prompt of this length. Where this length was not measured yet, those of the nearest one that was; of
    /// two as near the longer context's, which is the slower.
    #[must_use]
    pub fn speeds(&self, prompt_tokens: u32) -> Speeds {
        let bucket = Bucket::of(prompt_tokens);
        Speeds { prefill: nearest(&self.prefill, bucket), decode: nearest(&self.decode, bucket) }
    }

    /// Whether it was measured often enough to be told without a mark: three times.
    #[must_use]
    pub fn is_sure(&self, prompt_tokens: u32) -> bool {
        let Speeds { prefill, decode } = self.speeds(prompt_tokens);
        [prefill, decode].iter().all(|speed| speed.is_some_and(|speed| speed.samples >= TRUSTED_AFTER))
    }
}

fn learn(values: &mut [Smooth; 4], bucket: Bucket, measured: f64) -> Option<(Bucket, Smooth)> {
    let value = values.get_mut(bucket.index())?;
    *value = value.with(measured);
    (value.samples > 0).then_some((bucket, *value))
}

fn nearest(values: &[Smooth; 4], bucket: Bucket) -> Option<Speed> {
    let wanted = bucket.index();
    let measured = values.iter().enumerate().filter(|(_, value)| value.samples > 0);
    let (_, value) = measured.min_by_key(|(at, _)| (at.abs_diff(wanted), usize::from(*at < wanted)))?;
    Some(Speed { tokens_per_s: value.value, samples: value.samples })
}

/// Tokens the next answer will probably have: the median of the last answers of this conversation, else the mean of the last ones of
/// the model (the time an answer takes grows with its length, so that the few long ones count), else [`USUAL_ANSWER`].
/// Both with the newest last.
#[must_use]
pub fn expected_tokens(conversation: &[u32], model: &[u32]) -> u32 {
    median(conversation).or_else(|| mean(model)).unwrap_or(USUAL_ANSWER)
}

/// The same of thinking, 0 where there was none.
#[must_use]
pub fn expected_thinking(conversation: &[u32], model: &[u32]) -> Option<u32> {
    median(conversation).or_else(|| mean(model))
}

/// Turns that will probably follow in a conversation that had `so_far` (this one included): what conversations of `past` lengths that
/// came as far had still before them, on average. One where none did.
#[must_use]
pub fn expected_follow_ups(past: &[u32], so_far: u32) -> f64 {
    let reached = past.iter().rev().take(RECENT_CONVERSATIONS).filter(|length| **length >= so_far);
    let (count, rest) = reached.fold((0_u32, 0.0), |(count, rest), length| {
        (count.saturating_add(1), rest + f64::from(length - so_far))
    });
    if count == 0 { 1.0 } else { rest / f64::from(count) }
}

/// New tokens of the questions that follow: the mean of the last ones, the newest last. A mean, because a long file now
/// and then is what takes the time.
#[must_use]
pub fn expected_question(past: &[u32]) -> Option<u32> {
    mean(past)
}

/// Of the last ones.
fn mean(all: &[u32]) -> Option<u32> {
    let recent = all.iter().rev().take(RECENT_OF_ALL);
    let sum: u64 = recent.clone().map(|tokens| u64::from(*tokens)).sum();
    let count = u64::try_from(recent.count()).ok().filter(|count| *count > 0)?;
    u32::try_from(sum / count).ok()
}

fn median(all: &[u32]) -> Option<u32> {
    let mut recent: Vec<u32> = all.iter().rev().take(RECENT_ANSWERS).copied().collect();
    recent.sort_unstable();
    recent.get(recent.len().checked_sub(1)? / 2).copied()
}

/// A prediction and what came of it: one line of the router's log.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
    /// The backend that answered.
    pub backend: String,
    /// The model that did.
    pub model: String,
    /// The rule that chose it.
    pub rule: String,
    /// What was predicted for it.
    pub predicted: Option<Prediction>,
    /// What was predicted for those that could have answered: backend, model, prediction.
    pub others: Vec<(String, String, Prediction)>,
    /// The first token came after so many milliseconds.
    pub first_ms: Option<f64>,
    /// The whole answer took so many.
    pub total_ms: Option<f64>,
    /// Tokens it had, thinking included.
    pub output_tokens: Option<u32>,
}

impl Record {
    /// Of a decision and what was measured.
    #[must_use]
    pub fn new(at_ms: i64, decision: &Decision, metrics: &Metrics) -> Self {
        let server = metrics.server.unwrap_or_default();
        let others = decision.rejected.iter().filter(|other| other.could_answer).filter_map(|other| {
            Some((other.backend.clone(), other.model.clone().unwrap_or_default(), other.predicted?))
        });
        Self {
            at_ms,
            backend: decision.backend.clone(),
            model: decision.model.clone(),
            rule: decision.rule.clone(),
            predicted: decision.predicted,
            others: others.collect(),
            first_ms: metrics.first_token_ms,
            total_ms: metrics.total_ms,
            output_tokens: metrics.usage.output_tokens.or(server.predicted_n),
        }
    }

    /// How far the first token was off, in parts of what it took: 0.2 is 20 %.
    #[must_use]
    pub fn first_error(&self) -> Option<f64> {
        off(self.predicted?.first_ms, self.first_ms?)
    }

    /// How far the whole answer was off, had its length been known.
    #[must_use]
    pub fn total_error(&self) -> Option<f64> {
        off(told_length(&self.predicted?, self.output_tokens?), self.total_ms?)
    }

    /// Milliseconds that the best of the others would have saved, as far as predictions tell: their decode goes by the
    /// length the answer had. 0 when none was better; none when there was no other.
    #[must_use]
    pub fn regret_ms(&self) -> Option<f64> {
        let (took, tokens) = (self.total_ms?, self.output_tokens?);
        let others = self.others.iter().map(|(_, _, predicted)| told_length(predicted, tokens));
        let best = others.min_by(f64::total_cmp)?;
        Some((took - best).max(0.0))
    }
}

/// What a prediction says of an answer of this length.
fn told_length(predicted: &Prediction, tokens: u32) -> f64 {
    predicted.first_ms + f64::from(tokens) / predicted.decode_tokens_per_s.max(1e-3) * 1000.0
}

fn off(predicted: f64, took: f64) -> Option<f64> {
    (took > 0.0 && predicted.is_finite()).then(|| (predicted - took).abs() / took)
}

/// What many records say together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Records.
    pub turns: usize,
    /// Half of the predictions of the first token were less off than this, in parts of what it took.
    pub first_error: Option<f64>,
    /// The same of whole answers.
    pub total_error: Option<f64>,
    /// Milliseconds the best others would have saved.
    pub regret_ms: f64,
    /// Milliseconds all those turns took together that had an other.
    pub took_ms: f64,
}

impl Summary {
    /// Of these records.
    #[must_use]
    pub fn of(records: &[Record]) -> Self {
        let middle = |mut all: Vec<f64>| {
            all.sort_by(f64::total_cmp);
            all.get(all.len().checked_sub(1)? / 2).copied()
        };
        let mut summary = Self {
            turns: records.len(),
            first_error: middle(records.iter().filter_map(Record::first_error).collect()),
            total_error: middle(records.iter().filter_map(Record::total_error).collect()),
            ..Self::default()
        };
        for record in records {
            if let (Some(regret), Some(took)) = (record.regret_ms(), record.total_ms) {
                summary.regret_ms += regret;
                summary.took_ms += took;
            }
        }
        summary
    }

    /// The regret in parts of the time the best choices would have taken; none when there was nothing to choose.
    #[must_use]
    pub fn regret(&self) -> Option<f64> {
        let best = self.took_ms - self.regret_ms;
        (best > 0.0).then(|| self.regret_ms / best)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{ServerTimings, Usage};
    use crate::router::Rejected;
    use pretty_assertions::assert_eq;
    use proptest::prelude::*;

    fn turn(prompt_n: u32, prompt_ms: f64, predicted_n: u32, predicted_ms: f64) -> Metrics {
        let server = ServerTimings {
            prompt_n: Some(prompt_n),
            prompt_ms: Some(prompt_ms),
            predicted_n: Some(predicted_n),
            predicted_ms: Some(predicted_ms),
            ..ServerTimings::default()
        };
        Metrics { server: Some(server), ..Metrics::default() }
    }

    #[test]
    fn half_of_a_value_is_replaced_in_eight_turns() {
        let mut value = Smooth { value: 100.0, samples: 1000 };
        for _ in 0..8 {
            value = value.with(150.0);
        }
        assert!((value.value - 125.0).abs() < 0.01, "{value:?}");
        // The first few count alike.
        let mean = [10.0, 20.0, 60.0].into_iter().fold(Smooth::default(), Smooth::with);
        assert!((mean.value - 30.0).abs() < 1e-9);
        assert_eq!(mean.samples, 3);
    }

    #[test]
    fn one_outlier_does_little() {
        let steady = (0..20).fold(Smooth::default(), |value, _| value.with(100.0));
        for outlier in [1e9, 1e-9] {
            let after = steady.with(outlier);
            assert!((after.value / 100.0 - 1.0).abs() < 0.1, "{after:?}");
        }
        for odd in [f64::NAN, f64::INFINITY, 0.0, -5.0] {
            assert_eq!(steady.with(odd), steady);
        }
        // What is really another speed is learnt all the same.
        let changed = (0..60).fold(steady, |value, _| value.with(20.0));
        assert!((changed.value - 20.0).abs() < 3.0, "{changed:?}");
    }

    #[test]
    fn speeds_are_kept_by_length_of_context() {
        let mut learnt = Learnt::default();
        assert_eq!(learnt.speeds(100), Speeds::default());
        let news = learnt.observe(&turn(1000, 500.0, 100, 1000.0), Before::Other);
        assert_eq!(news.prefill, Some((Bucket::To2k, Smooth { value: 2000.0, samples: 1 })));
        assert_eq!(news.decode, Some((Bucket::To2k, Smooth { value: 100.0, samples: 1 })));
        learnt.observe(&turn(20_000, 20_000.0, 100, 2000.0), Before::Other);
        let at = |tokens| {
            let speeds = learnt.speeds(tokens);
            let value = |speed: Option<Speed>| speed.map(|speed| speed.tokens_per_s);
            (value(speeds.prefill), value(speeds.decode))
        };
        assert_eq!(at(500), (Some(2000.0), Some(100.0)));
        // In the middle: the slower, longer one.
        assert_eq!(at(4000), (Some(1000.0), Some(50.0)));
        assert_eq!(at(20_000), (Some(1000.0), Some(50.0)));
        assert_eq!(at(100_000), (Some(1000.0), Some(50.0)));
        assert!(!learnt.is_sure(500));
        learnt.observe(&turn(1000, 500.0, 100, 1000.0), Before::Other);
        learnt.observe(&turn(1000, 500.0, 100, 1000.0), Before::Other);
        assert!(learnt.is_sure(500));
    }

    #[test]
    fn noise_is_not_learnt() {
        let mut learnt = Learnt::default();
        let news = learnt.observe(&turn(63, 5.0, 3, 1.0), Before::Other);
        assert_eq!((news, learnt), (News::default(), Learnt::default()));
        assert_eq!(learnt.observe(&Metrics::default(), Before::Prefill), News::default());
    }

    #[test]
    fn the_clients_clock_stands_in_where_nothing_else_came_first() {
        let metrics = Metrics {
            sent_ms: Some(10.0),
            first_token_ms: Some(510.0),
            last_token_ms: Some(1510.0),
            usage: Usage { prompt_tokens: Some(1500), cached_tokens: Some(500), output_tokens: Some(101) },
            ..Metrics::default()
        };
        let news = Learnt::default().observe(&metrics, Before::Prefill);
        assert_eq!(news.prefill.map(|(_, value)| value.value), Some(2000.0));
        assert_eq!(news.decode.map(|(_, value)| value.value), Some(100.0));
        assert_eq!(Learnt::default().observe(&metrics, Before::Other).prefill, None);
        // Nobody said how much was cached: nothing can be told.
        let unsaid = Metrics { usage: Usage { cached_tokens: None, ..metrics.usage }, ..metrics };
        assert_eq!(Learnt::default().observe(&unsaid, Before::Prefill).prefill, None);
    }

    #[test]
    fn lengths_come_from_the_conversation_first() {
        assert_eq!(expected_tokens(&[], &[]), USUAL_ANSWER);
        assert_eq!(expected_tokens(&[], &[5, 500, 50]), 185);
        assert_eq!(expected_tokens(&[100], &[5, 500, 50]), 100);
        // Only the last eight count.
        assert_eq!(expected_tokens(&[9000, 9000, 9000, 1, 2, 3, 4, 5, 6, 7, 8], &[]), 4);
        assert_eq!(expected_thinking(&[], &[]), None);
        assert_eq!(expected_thinking(&[0, 0], &[700]), Some(0));
    }

    #[test]
    fn follow_ups_are_what_conversations_that_came_as_far_still_had() {
        assert!((expected_follow_ups(&[], 3) - 1.0).abs() < 1e-9);
        assert!((expected_follow_ups(&[1, 1, 5, 9], 1) - 3.0).abs() < 1e-9);
        assert!((expected_follow_ups(&[1, 1, 5, 9], 5) - 2.0).abs() < 1e-9);
        assert!((expected_follow_ups(&[1, 1, 5, 9], 50) - 1.0).abs() < 1e-9);
        assert_eq!((expected_question(&[]), expected_question(&[10, 20, 300])), (None, Some(110)));
    }

    fn predicted(first_ms: f64, speed: f64) -> Prediction {
        Prediction { first_ms, decode_tokens_per_s: speed, ..Prediction::default() }
    }

    #[test]
    fn regret_is_what_the_best_other_would_have_saved() {
        let other = |backend: &str, prediction, could_answer| Rejected {
            backend: backend.to_owned(),
            predicted: Some(prediction),
            could_answer,
            ..Rejected::default()
        };
        let decision = Decision {
            backend: "mac".to_owned(),
            predicted: Some(predicted(1000.0, 10.0)),
            rejected: vec![
                other("cuda", predicted(500.0, 100.0), true),
                other("x", predicted(0.0, 1e6), false),
            ],
            ..Decision::default()
        };
        let metrics = Metrics {
            first_token_ms: Some(2000.0),
            total_ms: Some(12_000.0),
            usage: Usage { output_tokens: Some(100), ..Usage::default() },
            ..Metrics::default()
        };
        let record = Record::new(5, &decision, &metrics);
        assert_eq!(record.regret_ms(), Some(10_500.0));
        assert_eq!(record.first_error(), Some(0.5));
        assert_eq!(record.total_error(), Some(1000.0 / 12_000.0));
        let good = Record { total_ms: Some(1000.0), ..record.clone() };
        assert_eq!(good.regret_ms(), Some(0.0));
        let alone = Record { others: Vec::new(), ..record.clone() };
        assert_eq!(alone.regret_ms(), None);
        let summary = Summary::of(&[record.clone(), good, alone]);
        assert_eq!((summary.turns, summary.regret_ms, summary.took_ms), (3, 10_500.0, 13_000.0));
        assert_eq!(summary.regret(), Some(4.2));
        assert_eq!(Summary::of(&[]).regret(), None);
        // A line of the log and back.
        let line = serde_json::to_string(&record).expect("a line");
        assert_eq!(serde_json::from_str::<Record>(&line).expect("read"), record);
    }

    proptest! {
        #[test]
        fn whatever_is_measured_a_speed_stays_a_number(all in proptest::collection::vec(any::<f64>(), 0..40)) {
            let value = all.iter().fold(Smooth::default(), |value, measured| value.with(*measured));
            prop_assert!(value.value.is_finite() && value.value >= 0.0);
            prop_assert!(value.samples > 0 || value.value == 0.0);
        }
    }
}
