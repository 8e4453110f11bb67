//! What the log of outcomes says: how fast models are on their machines, by day and by length of context, and how
//! well that was predicted.

use super::model::{SheetKind, Tone};
use super::update::Step;
use super::why::Said;
use crate::chat::record::OutcomeRecord;
use crate::router::Prediction;
use crate::router::speeds::Bucket;
use crate::text::{Shown, format};
use serde::Serialize;

/// Days of the sparkline.
const DAYS: usize = 14;
/// Answers from which percentiles say something.
const ENOUGH: usize = 3;

/// How one model on one backend has been.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelStats {
    /// The backend's name.
    pub backend: String,
    /// The model's id.
    pub model: String,
    /// Quantisation, as last known.
    pub quantisation: Option<String>,
    /// Complete answers it rests on.
    pub answers: usize,
    /// By length of context, shortest first; only those that were measured.
    pub contexts: Vec<ContextStats>,
    /// Median decode speed of each of the last 14 days, oldest first; none where nothing was measured.
    pub decode_by_day: Vec<Option<f64>>,
    /// How well it was predicted; none where nothing was.
    pub prediction: Option<PredictionStats>,
}

/// Speeds for contexts of one length.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ContextStats {
    /// The longest such context, in tokens; none: no limit.
    pub up_to: Option<u32>,
    /// Prefill, tokens per second; none where it was not measured.
    pub prefill: Option<Percentiles>,
    /// Decode, tokens per second.
    pub decode: Option<Percentiles>,
}

/// How measurements are spread.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Percentiles {
    /// Measurements.
    pub count: usize,
    /// A tenth is below.
    pub p10: f64,
    /// Half is below.
    pub p50: f64,
    /// A tenth is above.
    pub p90: f64,
}

/// How well answers were predicted, as parts of what they took.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PredictionStats {
    /// Answers that were predicted.
    pub answers: usize,
    /// Median error of the time to the first token; 0.2 is 20 %.
    pub first_error: Option<f64>,
    /// Median error of the time to the end.
    pub total_error: Option<f64>,
    /// Time the answers took beyond what was predicted for the best other candidate, as a part of the time the best
    /// choices would have taken; none where there was nothing to choose.
    pub regret: Option<f64>,
}

/// Sums up the log, models by name. Days are of UTC.
#[must_use]
pub fn stats(log: &[OutcomeRecord], now_ms: i64) -> Vec<ModelStats> {
    let mut keys: Vec<(&str, &str)> = log.iter().map(|o| (o.backend.as_str(), o.model.as_str())).collect();
    keys.sort_unstable();
    keys.dedup();
    keys.into_iter()
        .map(|(backend, model)| {
            let own: Vec<&OutcomeRecord> =
                log.iter().filter(|o| o.backend == backend && o.model == model).collect();
            of_model(backend, model, &own, now_ms)
        })
        .collect()
}

fn of_model(backend: &str, model: &str, own: &[&OutcomeRecord], now_ms: i64) -> ModelStats {
    let context = |number: u8| {
        let of = |o: &&&OutcomeRecord| Bucket::of(o.prompt_tokens.unwrap_or(0)).number() == number;
        let values = |speed: fn(&OutcomeRecord) -> Option<f64>| {
            percentiles(own.iter().filter(of).filter_map(|o| speed(o)).collect())
        };
        let (prefill, decode) = (values(|o| o.prefill), values(|o| o.decode));
        let up_to = [2048, 8192, 32_768].get(usize::from(number)).copied();
        (prefill.is_some() || decode.is_some()).then_some(ContextStats { up_to, prefill, decode })
    };
    let today = day(now_ms);
    let by_day = (0..DAYS).rev().map(|ago| {
        let wanted = today - i64::try_from(ago).unwrap_or(0);
        let values = own.iter().filter(|o| day(o.ended_ms) == wanted).filter_map(|o| o.decode).collect();
        percentiles(values).map(|p| p.p50)
    });
    ModelStats {
        backend: backend.to_owned(),
        model: model.to_owned(),
        quantisation: own.iter().rev().find_map(|o| o.quantisation.clone()),
        answers: own.len(),
        contexts: (0..4).filter_map(context).collect(),
        decode_by_day: by_day.collect(),
        prediction: prediction(own),
    }
}

fn prediction(own: &[&OutcomeRecord]) -> Option<PredictionStats> {
    let error = |actual: Option<f64>, predicted: Option<f64>| {
        let actual = actual.filter(|ms| *ms > 0.0)?;
        Some((actual - predicted?).abs() / actual)
    };
    let read = |o: &&OutcomeRecord| serde_json::from_str::<Prediction>(o.predicted.as_deref()?).ok();
    let first: Vec<f64> = own.iter().filter_map(|o| error(o.first_ms, Some(read(o)?.first_ms))).collect();
    let total: Vec<f64> =
        own.iter().filter_map(|o| error(o.total_ms, Some(told(&read(o)?, o.output_tokens?)))).collect();
    let (mut late, mut best) = (0.0, 0.0);
    for outcome in own {
        if let Some((total, other)) = outcome.total_ms.zip(best_other(outcome)) {
            late += (total - other).max(0.0);
            best += total.min(other);
        }
    }
    let answers = first.len().max(total.len());
    (answers > 0).then(|| PredictionStats {
        answers,
        first_error: percentiles(first).map(|p| p.p50),
        total_error: percentiles(total).map(|p| p.p50),
        regret: (best > 0.0).then_some(late / best),
    })
}

/// What a prediction says of an answer that has this many tokens.
fn told(prediction: &Prediction, tokens: u32) -> f64 {
    prediction.first_ms + f64::from(tokens) / prediction.decode_tokens_per_s.max(0.001) * 1000.0
}

/// The earliest end that was predicted for another candidate, had it written as many tokens.
fn best_other(outcome: &OutcomeRecord) -> Option<f64> {
    let others: Vec<(String, String, Prediction)> = serde_json::from_str(&outcome.others).ok()?;
    let tokens = outcome.output_tokens?;
    others.iter().map(|(.., prediction)| told(prediction, tokens)).min_by(f64::total_cmp)
}

fn percentiles(mut values: Vec<f64>) -> Option<Percentiles> {
    values.retain(|value| value.is_finite());
    values.sort_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    let at = |tenths: usize| values.get((last * tenths + 5) / 10).copied();
    Some(Percentiles { count: values.len(), p10: at(1)?, p50: at(5)?, p90: at(9)? })
}

fn day(ms: i64) -> i64 {
    ms.div_euclid(86_400_000)
}

/// The same for people.
#[must_use]
pub fn lines(stats: &[ModelStats]) -> Vec<Said> {
    if stats.is_empty() {
        return vec![(Tone::Dim, "nothing was measured yet: speeds come from complete answers".to_owned())];
    }
    let mut lines = Vec::new();
    for model in stats {
        let quantisation =
            model.quantisation.as_deref().map_or(String::new(), |q| format!(" {}", q.to_lowercase()));
        let s = if model.answers == 1 { "" } else { "s" };
        lines.push((
            Tone::Head,
            format!("{} · {}{quantisation} · {} answer{s}", model.backend, model.model, model.answers),
        ));
        if model.contexts.is_empty() {
            lines.push((Tone::Dim, "  speed     unknown".to_owned()));
        }
        for context in &model.contexts {
            let name = context
                .up_to
                .map_or_else(|| "longer".to_owned(), |end| format!("≤ {}", format::context(end)));
            lines.push((
                Tone::Plain,
                format!(
                    "  {name:8}  decode {:24}  prefill {}",
                    spread(context.decode),
                    spread(context.prefill)
                ),
            ));
        }
        lines.push((Tone::Plain, format!("  {DAYS} days   {}", sparkline(&model.decode_by_day))));
        lines.push((Tone::Dim, predicted(model.prediction.as_ref())));
    }
    lines
}

/// `131 tok/s (118–140)`; the range only where there is enough to say one.
fn spread(percentiles: Option<Percentiles>) -> String {
    let Some(p) = percentiles else { return "unknown".to_owned() };
    let middle = format::speed(p.p50);
    if p.count < ENOUGH { middle } else { format!("{middle} ({:.0}–{:.0})", p.p10, p.p90) }
}

fn predicted(prediction: Option<&PredictionStats>) -> String {
    let Some(p) = prediction else { return "  predicted unknown".to_owned() };
    let part = |share: Option<f64>| share.map_or_else(|| "unknown".to_owned(), format::percent);
    format!(
        "  predicted first ±{} · end ±{} · regret {} ({} answers)",
        part(p.first_error),
        part(p.total_error),
        part(p.regret),
        p.answers
    )
}

/// A mark for each day, as high as its speed is; a dot where nothing was measured.
fn sparkline(days: &[Option<f64>]) -> String {
    const MARKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let known = || days.iter().flatten().copied();
    let (low, high) = (known().fold(f64::INFINITY, f64::min), known().fold(0.0, f64::max));
    let mark = |speed: &Option<f64>| match speed {
        None => '·',
        Some(_) if high <= low => '▄',
        Some(speed) => {
            let at = format::part((speed - low) / (high - low), MARKS.len() - 1);
            MARKS.get(at).copied().unwrap_or('█')
        }
    };
    let line: String = days.iter().map(mark).collect();
    if high > 0.0 { format!("{line}  up to {}", format::speed(high)) } else { line }
}

impl Step<'_> {
    /// The log was read, or could not be.
    pub(super) fn stats(&mut self, result: Result<Vec<OutcomeRecord>, String>) {
        match result {
            Ok(log) => {
                let lines = lines(&stats(&log, self.ctx.wall_ms));
                self.open_sheet(SheetKind::Stats, Shown::literal("Speeds"), lines);
            }
            Err(why) => self.bad(&why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    const DAY: i64 = 86_400_000;

    fn outcome(backend: &str, day: i64, decode: f64) -> OutcomeRecord {
        OutcomeRecord {
            ended_ms: day * DAY + 5,
            backend: backend.to_owned(),
            model: "m".to_owned(),
            quantisation: Some("Q4_K_M".to_owned()),
            prompt_tokens: Some(100),
            decode: Some(decode),
            first_ms: Some(100.0),
            total_ms: Some(1000.0),
            ..OutcomeRecord::default()
        }
    }

    #[test]
    fn speeds_are_summed_up_by_context_and_day() {
        let mut log: Vec<OutcomeRecord> = (0..11).map(|n| outcome("mac", 100, 10.0 + f64::from(n))).collect();
        log.push(OutcomeRecord {
            prompt_tokens: Some(9000),
            prefill: Some(400.0),
            ..outcome("mac", 99, 5.0)
        });
        log.push(outcome("local", 1, 131.0));
        let stats = stats(&log, 100 * DAY + 9);
        let [local, mac] = stats.as_slice() else { panic!("{stats:?}") };
        assert_eq!((local.backend.as_str(), local.answers), ("local", 1));
        assert_eq!(local.decode_by_day, vec![None; 14], "too long ago");
        assert_eq!(local.prediction, None);
        let short = Percentiles { count: 11, p10: 11.0, p50: 15.0, p90: 19.0 };
        assert_eq!(mac.contexts[0].decode, Some(short));
        assert_eq!((mac.contexts[0].up_to, mac.contexts[0].prefill), (Some(2048), None));
        assert_eq!(mac.contexts[1].prefill.map(|p| p.p50), Some(400.0));
        assert_eq!((mac.contexts[1].up_to, mac.contexts.len()), (Some(32_768), 2));
        assert_eq!(mac.decode_by_day[12..], [Some(5.0), Some(15.0)]);
        let said: Vec<String> = lines(&stats).into_iter().map(|(_, text)| text).collect();
        assert_eq!(
            said,
            [
                "local · m q4_k_m · 1 answer",
                "  ≤ 2k      decode 131 tok/s                 prefill unknown",
                "  14 days   ··············",
                "  predicted unknown",
                "mac · m q4_k_m · 12 answers",
                "  ≤ 2k      decode 15.0 tok/s (11–19)        prefill unknown",
                "  ≤ 32k     decode 5.0 tok/s                 prefill 400 tok/s",
                "  14 days   ············▁█  up to 15.0 tok/s",
                "  predicted unknown",
            ]
        );
    }

    #[test]
    fn predictions_are_held_against_outcomes() {
        let json = |first_ms: f64| {
            let prediction = Prediction { first_ms, decode_tokens_per_s: 100.0, ..Prediction::default() };
            serde_json::to_value(prediction).expect("JSON")
        };
        // 40 tokens at 100 a second take 400 ms after the first.
        let predicted = |first: f64, other: f64| OutcomeRecord {
            output_tokens: Some(40),
            predicted: Some(json(first).to_string()),
            others: serde_json::json!([["local", "m", json(other)]]).to_string(),
            ..outcome("mac", 1, 10.0)
        };
        let log = [predicted(80.0, 100.0), predicted(110.0, 1100.0), outcome("mac", 1, 1.0)];
        let stats = stats(&log, 0);
        let prediction = stats[0].prediction.expect("predicted");
        assert_eq!(prediction.answers, 2);
        assert!((prediction.first_error.expect("known") - 0.2).abs() < 1e-9, "{prediction:?}");
        assert!((prediction.total_error.expect("known") - 0.52).abs() < 1e-9, "{prediction:?}");
        // 500 ms beyond an other of 500, none beyond one of 1500: 500 of 1500.
        assert!((prediction.regret.expect("known") - 1.0 / 3.0).abs() < 1e-9, "{prediction:?}");
        assert_eq!(lines(&[]).len(), 1);
    }
}
