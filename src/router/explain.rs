//! A decision in lines for people: what `/why` and `tui route` say. Names of models are foreign text: whoever
//! shows the lines makes them safe.

use super::decision::{Decision, Penalties, Prediction};
use super::words::{millis, seconds, speed, tokens};
use std::iter::once;

/// The lines, without a heading: the rule, the candidates with what each would take, what that rests on.
///
/// ```text
/// rule large-to-mac: 70.6B ≥ 30B
/// mac    llama-70b  first 2.1 s  done 24 s  chosen
/// local  llama-70b  does not fit: needs 43.1 GiB, has 22.8 GiB
/// measured 14.2 tok/s (12 turns), RTT 4 ms
/// cache: 6.9k of 7.2k tokens on mac
/// ```
#[must_use]
pub fn explain(decision: &Decision) -> Vec<String> {
    let mut lines = vec![rule(decision)];
    let rows = once(Row {
        backend: &decision.backend,
        model: Some(&decision.model),
        times: decision.predicted.as_ref(),
        say: "chosen".to_owned(),
    });
    let others = decision.rejected.iter().map(|other| Row {
        backend: &other.backend,
        model: other.model.as_deref(),
        times: other.predicted.as_ref().filter(|_| other.could_answer),
        say: match other.predicted.as_ref().and_then(|predicted| counted(&predicted.penalties)) {
            Some(counted) if other.could_answer => format!("{} ({counted})", other.why),
            _ => other.why.clone(),
        },
    });
    lines.extend(table(&rows.chain(others).collect::<Vec<_>>()));
    if let Some(predicted) = &decision.predicted {
        lines.push(basis(predicted));
        lines.extend(parts(predicted));
        let cached = predicted.prompt_tokens.saturating_sub(predicted.new_tokens);
        if cached > 0 {
            let (cached, all) = (tokens(cached), tokens(predicted.prompt_tokens));
            lines.push(format!("cache: {cached} of {all} tokens on {}", decision.backend));
        }
        if let Some(counted) = counted(&predicted.penalties) {
            lines.push(format!("counted against it: {counted}"));
        }
    }
    lines
}

fn rule(decision: &Decision) -> String {
    let mut line = format!("rule {}: {}", decision.rule, decision.reason);
    if let Some(alias) = &decision.alias {
        line.push_str(&format!(" · {alias} is {}/{}", decision.backend, decision.model));
    }
    if decision.is_variant {
        line.push_str(" · another quantisation or format");
    }
    if let Some(from) = &decision.moved_from {
        let what = if decision.is_other_model { "moved from" } else { "the same model, moved from" };
        line.push_str(&format!(" · {what} {from}"));
        if decision.is_other_model {
            line.push_str(", to another model");
        }
    }
    line
}

struct Row<'a> {
    backend: &'a str,
    model: Option<&'a str>,
    times: Option<&'a Prediction>,
    say: String,
}

/// Backends in a column; models in one where they differ.
fn table(rows: &[Row<'_>]) -> Vec<String> {
    let length = |text: &str| text.chars().count();
    let wide = rows.iter().map(|row| length(row.backend)).max().unwrap_or(0);
    let mut models = rows.iter().filter_map(|row| row.model);
    let first = models.next();
    let differ = models.any(|model| Some(model) != first);
    let model_of = |row: &Row<'_>| row.model.unwrap_or_default().to_owned();
    let wide_model =
        if differ { rows.iter().map(|row| length(&model_of(row))).max().unwrap_or(0) } else { 0 };
    let line = |row: &Row<'_>| {
        let mut line = format!("{:wide$}", row.backend);
        if differ {
            line.push_str(&format!("  {:wide_model$}", model_of(row)));
        }
        if let Some(times) = row.times {
            let about = if times.is_guess { "≈" } else { "" };
            let (first, done) = (seconds(times.first_ms), seconds(times.total_ms));
            line.push_str(&format!("  first {about}{first}  done {about}{done}"));
        }
        format!("{line}  {}", row.say)
    };
    rows.iter().map(line).collect()
}

fn basis(predicted: &Prediction) -> String {
    let decode = speed(predicted.decode_tokens_per_s);
    let speeds = match (predicted.samples, predicted.is_guess) {
        (0, _) => format!("guessed {decode} from the hardware"),
        (1, true) => format!("measured {decode} (1 turn), prefill guessed from the hardware"),
        (n, true) => format!("measured {decode} ({n} turns), prefill guessed from the hardware"),
        (1, false) => format!("measured {decode} (1 turn)"),
        (n, false) => format!("measured {decode} ({n} turns)"),
    };
    match predicted.rtt_ms {
        Some(rtt) => format!("{speeds}, RTT {}", millis(rtt)),
        None => speeds,
    }
}

/// What the first token waits for, where it is more than prefill.
fn parts(predicted: &Prediction) -> Option<String> {
    let beyond = predicted.wait_ms - predicted.rtt_ms.unwrap_or(0.0);
    let named =
        [("waiting", beyond), ("loading", predicted.load_ms)].into_iter().filter(|(_, ms)| *ms >= 100.0);
    let mut all: Vec<String> = named.map(|(name, ms)| format!("{name} {}", seconds(ms))).collect();
    if all.is_empty() {
        return None;
    }
    all.push(format!("prefill {}", seconds(predicted.prefill_ms)));
    Some(format!("before the first token: {}", all.join(", ")))
}

/// What was added before comparing: `noise +5.0 s, it failed not long ago +2.1 s`.
fn counted(penalties: &Penalties) -> Option<String> {
    let Penalties { battery_ms, noise_ms, failure_ms, eviction_ms, variant_ms } = *penalties;
    let all = [
        ("this machine is on battery", battery_ms),
        ("noise", noise_ms),
        ("it failed not long ago", failure_ms),
        ("models that would have to leave", eviction_ms),
        ("another quantisation or format", variant_ms),
    ];
    let counted = all.iter().filter(|(_, ms)| *ms > 0.0);
    let counted: Vec<String> = counted.map(|(name, ms)| format!("{name} +{}", seconds(*ms))).collect();
    (!counted.is_empty()).then(|| counted.join(", "))
}
