//! `tui estimate`: what a model takes in memory and how fast it would be on a machine, before anything is loaded.

mod place;
mod subject;

use super::args::EstimateArgs;
use super::{out, report};
use crate::config::Config;
use crate::error::{AppError, Exit};
use crate::paths::Paths;
use crate::router::machines::{self, Kind, Machine, Placement, Verdict};
use crate::text::shown_line;
use place::Place;
use serde_json::{Value, json};
use std::path::Path;
use subject::Subject;

/// The turn machines are compared by: tokens of the prompt that are new, and of the answer.
const TURN: (f64, f64) = (1000.0, 300.0);
/// Two machines that are nearer than this are as good as each other.
const ALIKE: f64 = 0.1;

/// Prints the estimate. Exit code 2: a name that is not known, or nothing to estimate on; 4: a file that is no model.
///
/// # Errors
/// One or two lines each.
pub(super) fn run(
    args: &EstimateArgs,
    config: &Config,
    paths: &Paths,
    config_file: Option<&Path>,
) -> Result<Exit, AppError> {
    if args.machines {
        if args.json {
            let all: Vec<Value> = machines::all().map(|machine| machine_object(&machine)).collect();
            out::answer(&json!({ "version": 1, "machines": all }).to_string());
        } else {
            out::answer(&machines_table());
        }
        return Ok(Exit::Ok);
    }
    let Some(model) = args.model.as_deref() else {
        return Err(AppError::new(Exit::Usage, "estimate needs a model")
            .hint("as `tui estimate llama-3.1-8b:q4_k_m --on rtx4090`; --machines lists the machines"));
    };
    let names: Vec<&str> = args.on.iter().chain(&args.compare).map(String::as_str).collect();
    let mut places = place::find(&names, config, paths)?;
    let subject = subject::find(model, &places, config, paths, config_file)?;
    let load = subject.load(args.context);
    for place in &mut places {
        place.ask_speeds(&subject);
    }
    let rows: Vec<Row> = places
        .into_iter()
        .map(|place| {
            let placement = place.put(&load);
            Row { place, placement }
        })
        .collect();
    let (better, why) = compare(&rows, load.need());
    if args.json {
        let value = json!({
            "version": 1,
            "model": subject.name,
            "context": load.context,
            "machines": rows.iter().map(|row| row_object(row, &load)).collect::<Vec<_>>(),
            "better": better,
            "why": why,
        });
        return report::line(&value).map(|()| Exit::Ok).or(Ok(Exit::Ok));
    }
    let mut lines = vec![heading(&subject, &load)];
    lines.extend(subject.notes(load.context).into_iter().map(|note| format!("  {note}")));
    for row in &rows {
        lines.push(String::new());
        lines.extend(row_lines(row, &load));
    }
    if rows.len() > 1 {
        lines.push(String::new());
        lines.push(match &better {
            Some(name) => format!("better: {name}; {why}"),
            None => why,
        });
    }
    let safe: Vec<String> = lines.iter().map(|line| shown_line(line, 400).to_string()).collect();
    out::answer(&safe.join("\n"));
    Ok(Exit::Ok)
}

/// One machine and how the model lies there.
struct Row {
    place: Place,
    placement: Placement,
}

impl Row {
    fn prefill(&self) -> Option<f64> {
        self.place.measured.map(|(prefill, _)| prefill).or(self.placement.prefill)
    }

    fn decode(&self) -> Option<f64> {
        self.place.measured.map(|(_, decode)| decode).or(self.placement.decode)
    }

    fn basis(&self) -> &'static str {
        if self.place.measured.is_some() { "measured" } else { "roofline" }
    }

    /// Seconds for the turn machines are compared by.
    fn turn(&self) -> Option<f64> {
        let fits = self.placement.verdict != Verdict::DoesNotFit || self.place.measured.is_some();
        let seconds = TURN.0 / self.prefill()? + TURN.1 / self.decode()?;
        (fits && seconds.is_finite()).then_some(seconds)
    }
}

fn row_object(row: &Row, load: &machines::Load) -> Value {
    let rounded = |speed: Option<f64>| speed.map(|speed| (speed * 10.0).round() / 10.0);
    json!({
        "machine": row.place.name,
        "verdict": row.placement.verdict.word(),
        "weights_bytes": load.weights,
        "kv_bytes": load.kv,
        "compute_bytes": load.compute,
        "device_bytes": row.placement.device,
        "host_bytes": row.placement.host,
        "prefill_tokens_per_s": rounded(row.prefill()),
        "decode_tokens_per_s": rounded(row.decode()),
        "basis": row.basis(),
    })
}

/// The better machine and why; no machine where there is none to compare, or where they are alike.
fn compare(rows: &[Row], need: u64) -> (Option<&str>, String) {
    let mut able: Vec<(&Row, f64)> = rows.iter().filter_map(|row| Some((row, row.turn()?))).collect();
    able.sort_by(|a, b| a.1.total_cmp(&b.1));
    let (prompt, answer) = TURN;
    match (able.as_slice(), rows) {
        ([], [only]) => (None, verdict(only, need)),
        ([], _) => (None, format!("none of them holds it: it needs {}", size(need))),
        (_, [only]) => (None, verdict(only, need)),
        ([(best, _)], _) => {
            let unfit =
                rows.iter().find(|row| row.turn().is_none()).map_or("", |row| row.place.name.as_str());
            (Some(&best.place.name), format!("{unfit} can't hold it: it needs {}", size(need)))
        }
        ([(best, first), (next, second), ..], _) => {
            let (a, b) = (&best.place.name, &next.place.name);
            if *second <= first * (1.0 + ALIKE) {
                return (
                    None,
                    format!(
                        "{a} and {b} are alike: a turn of {prompt} + {answer} tokens takes {first:.1} s and {second:.1} s"
                    ),
                );
            }
            let speed = |value: Option<f64>| value.map(tokens_per_s).unwrap_or_default();
            let spill = match next.placement.verdict {
                Verdict::Partial | Verdict::ExpertsOnHost if next.place.measured.is_none() => format!(
                    " ({b} has room for {} of {})",
                    size(next.placement.device),
                    size(next.placement.device.saturating_add(next.placement.host))
                ),
                _ => String::new(),
            };
            (
                Some(a),
                format!(
                    "a turn of {prompt} + {answer} tokens takes {first:.1} s against {second:.1} s: it reads {} against {} and \
                     writes {} against {} tok/s{spill}",
                    speed(best.prefill()),
                    speed(next.prefill()),
                    speed(best.decode()),
                    speed(next.decode()),
                ),
            )
        }
    }
}

fn heading(subject: &Subject, load: &machines::Load) -> String {
    format!(
        "{}: {} weights{}, {} of them; KV {} for {} tokens; compute {}; {} in all",
        subject.name,
        count(load.parameters),
        if load.active < load.parameters {
            format!(" ({} active)", count(load.active))
        } else {
            String::new()
        },
        size(load.weights),
        size(load.kv),
        load.context,
        size(load.compute),
        size(load.need()),
    )
}

fn row_lines(row: &Row, load: &machines::Load) -> Vec<String> {
    let Row { place, placement } = row;
    let mut lines = vec![format!("{}: {}", place.name, verdict(row, load.need()))];
    if let (Some(prefill), Some(decode)) = (row.prefill(), row.decode()) {
        let full = match placement.decode_full {
            Some(full) if place.measured.is_none() && full < decode * 0.98 => {
                format!(" ({} with the context full)", tokens_per_s(full))
            }
            _ => String::new(),
        };
        let about = if place.measured.is_some() { "" } else { "≈" };
        lines.push(format!(
            "  prefill {about}{} tok/s, decode {about}{} tok/s{full}; {}",
            tokens_per_s(prefill),
            tokens_per_s(decode),
            if place.measured.is_some() { "measured there" } else { "guessed from the hardware" },
        ));
    } else if placement.verdict != Verdict::DoesNotFit {
        lines.push("  its speed can't be guessed: the machine is not in the table".to_owned());
    }
    lines.push(format!("  {}", place.describe()));
    lines
}

/// The verdict in words, with the numbers.
fn verdict(row: &Row, need: u64) -> String {
    let Row { place, placement } = row;
    let (device, host) = place.usable;
    let (own, where_) = match place.kind() {
        Kind::Cards(1) => ("the card", "its memory"),
        Kind::Cards(_) => ("the cards", "their memory"),
        Kind::Mac | Kind::Shared => ("the GPU", "shared memory"),
        Kind::Cpu => ("main memory", "main memory"),
    };
    let room = if place.kind() == Kind::Cpu { host } else { device };
    let slower = placement.decode_whole.zip(placement.decode).map(|(whole, now)| whole / now);
    let slower = slower.map(|times| format!(", {times:.1}x slower than all on {own}")).unwrap_or_default();
    match placement.verdict {
        Verdict::Fits => {
            format!("fits: needs {} of the {} that can be used in {where_}", size(need), size(room))
        }
        Verdict::SmallerContext(context) => format!(
            "fits with {context} tokens of context: with all of it {} are needed, {} can be used in {where_}",
            size(need),
            size(room)
        ),
        Verdict::Partial => format!(
            "fits in part: {} on {own}, {} in main memory{slower}",
            size(placement.device),
            size(placement.host)
        ),
        Verdict::ExpertsOnHost => format!(
            "fits with experts in main memory: {} on {own}, {} in main memory{slower}",
            size(placement.device),
            size(placement.host)
        ),
        Verdict::DoesNotFit => {
            let and = if host > 0 && place.kind() != Kind::Cpu {
                format!(" and {} in main memory", size(host))
            } else {
                String::new()
            };
            format!("does not fit: needs {}, {} can be used in {where_}{and}", size(need), size(room))
        }
    }
}

fn machine_object(machine: &Machine) -> Value {
    let (device, host) = machine.usable();
    json!({
        "machine": machine.name(),
        "title": machine.title,
        "memory_bytes": machine.memory,
        "usable_bytes": if machine.kind == Kind::Cpu { host } else { device },
        "bandwidth_bytes_per_s": machine.bandwidth,
        "compute_flops": machine.compute,
        "watts": machine.watts,
        "source": machine.source,
    })
}

fn machines_table() -> String {
    let mut lines = vec![format!(
        "{:14}  {:>8}  {:>8}  {:>9}  {:>9}  {:>6}  {}",
        "MACHINE", "MEMORY", "USABLE", "GB/s", "TFLOPS", "W", "WHAT IT IS"
    )];
    let mut sources: Vec<(String, &str)> = Vec::new();
    for machine in machines::all() {
        let (device, host) = machine.usable();
        let usable = if machine.kind == Kind::Cpu { host } else { device };
        lines.push(format!(
            "{:14}  {:>8}  {:>8}  {:>9.0}  {:>9.1}  {:>6.0}  {}",
            machine.name(),
            whole_gib(machine.memory),
            whole_gib(usable),
            machine.bandwidth / 1e9,
            machine.compute / 1e12,
            machine.watts,
            machine.title,
        ));
        if sources.iter().all(|(_, source)| *source != machine.source) {
            sources.push((machine.model.to_owned(), machine.source));
        }
    }
    lines.push(String::new());
    lines
        .push("Nx-CARD is a computer with N of a card; cpu-ddr5-128 one with that many GB. From:".to_owned());
    lines.extend(sources.iter().map(|(model, source)| format!("  {model}: {source}")));
    lines.join("\n")
}

fn whole_gib(bytes: u64) -> String {
    format!("{:.0} GiB", bytes as f64 / f64::from(1 << 30))
}

fn size(bytes: u64) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib < 972.0 { format!("{mib:.0} MiB") } else { format!("{:.1} GiB", mib / 1024.0) }
}

fn count(weights: u64) -> String {
    let n = weights as f64;
    if n < 0.95e9 { format!("{:.0}M", n / 1e6) } else { format!("{:.1}B", n / 1e9) }
}

fn tokens_per_s(speed: f64) -> String {
    if speed < 99.95 { format!("{speed:.1}") } else { format!("{speed:.0}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::shapes;
    use pretty_assertions::assert_eq;

    fn rows(model: &str, names: &[&str]) -> (Vec<Row>, machines::Load) {
        let (shape, quant) = shapes::read(model).expect(model);
        let load = Subject::of_shape(model.to_owned(), shape, quant).load(None);
        let row = |name: &&str| {
            let place = Place::known(name).expect(name);
            let placement = place.put(&load);
            Row { place, placement }
        };
        (names.iter().map(row).collect(), load)
    }

    #[test]
    fn verdicts_are_told_with_their_numbers() {
        let say = |model: &str, machine: &str| {
            let (rows, load) = rows(model, &[machine]);
            row_lines(&rows[0], &load).join("\n")
        };
        insta::assert_snapshot!(say("llama-3.1-8b:q4_k_m", "rtx4090"), @"
        rtx4090: fits: needs 5.9 GiB of the 22.8 GiB that can be used in its memory
          prefill ≈8227 tok/s, decode ≈133 tok/s (109 with the context full); guessed from the hardware
          NVIDIA GeForce RTX 4090, 1008 GB/s
        ");
        insta::assert_snapshot!(say("llama-3.3-70b:q4_k_m", "rtx4090"), @"
        rtx4090: fits in part: 22.8 GiB on the card, 20.3 GiB in main memory, 6.2x slower than all on the card
          prefill ≈361 tok/s, decode ≈2.5 tok/s (2.3 with the context full); guessed from the hardware
          NVIDIA GeForce RTX 4090, 1008 GB/s
        ");
        insta::assert_snapshot!(say("llama-3.3-70b:q4_k_m", "m4-max-64"), @"
        m4-max-64: fits: needs 43.1 GiB of the 45.6 GiB that can be used in shared memory
          prefill ≈78.2 tok/s, decode ≈8.2 tok/s (7.7 with the context full); guessed from the hardware
          Apple M4 Max, 546 GB/s
        ");
        insta::assert_snapshot!(say("llama-3.3-70b:q4_k_m", "m4-pro-24"), @"
        m4-pro-24: does not fit: needs 43.1 GiB, 14.0 GiB can be used in shared memory
          Apple M4 Pro, 273 GB/s
        ");
        insta::assert_snapshot!(say("gpt-oss-120b", "rtx4090"), @"
        rtx4090: fits with experts in main memory: 22.8 GiB on the card, 37.2 GiB in main memory, 5.6x slower than all on the card
          prefill ≈313 tok/s, decode ≈42.0 tok/s (34.5 with the context full); guessed from the hardware
          NVIDIA GeForce RTX 4090, 1008 GB/s
        ");
    }

    #[test]
    fn the_better_machine_is_named_unless_they_are_alike() {
        let better = |model: &str, names: &[&str]| {
            let (rows, load) = rows(model, names);
            let (better, why) = compare(&rows, load.need());
            assert!(!why.is_empty() && !why.contains('\n'));
            (better.map(str::to_owned), why)
        };
        assert_eq!(better("llama-3.1-8b:q4_k_m", &["rtx4090", "m4-max-64"]).0.as_deref(), Some("rtx4090"));
        let (name, why) = better("llama-3.3-70b:q4_k_m", &["rtx4090", "m4-max-64"]);
        assert_eq!(name.as_deref(), Some("m4-max-64"));
        assert!(why.contains("rtx4090 has room for"), "{why}");
        assert_eq!(better("llama-3.1-8b:q4_k_m", &["m4-max-64", "m4-max-128"]).0, None);
        let (name, why) = better("llama-3.1-405b:q4_k_m", &["rtx4090", "m2-ultra-192"]);
        assert_eq!((name, why.starts_with("none of them holds it")), (None, true));
        assert_eq!(
            better("llama-3.3-70b:f16", &["m4-max-64", "m2-ultra-192"]).0.as_deref(),
            Some("m2-ultra-192")
        );
        let (name, why) = better("13b:q4_k_m", &["rtx5080-16"]);
        assert_eq!((name, why.starts_with("fits: needs ")), (None, true));
    }

    #[test]
    fn every_machine_of_the_table_has_its_source() {
        let table = machines_table();
        for machine in machines::all() {
            assert!(table.contains(&machine.name()) && table.contains(machine.source), "{}", machine.name());
        }
    }
}
