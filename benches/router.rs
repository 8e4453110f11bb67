//! Choosing a route: how long it takes with ten backends of two hundred models each, and how good the choices are over simulated
//! days. Ends with 1 when a bound is missed. Prints Markdown; `-- --timing` gives divan's own table of the times instead.
#![expect(clippy::print_stdout, reason = "a bench prints its results")]
#![expect(clippy::expect_used, reason = "a bench that cannot go on has failed")]

#[path = "../tests/support/traces.rs"]
mod traces;

use divan::black_box;
use duet::config::{AliasConfig, Pick, RouteConfig};
use duet::router::{
    BackendFacts, Facts, Health, ModelFacts, Speed, Speeds, Target, TurnFacts, explain, route,
};
use std::time::Instant;

const BACKENDS: usize = 10;
const MODELS: usize = 200;
/// Microseconds a choice may take.
const MOST_US: f64 = 50.0;
/// Percent the router may be behind the best.
const MOST_REGRET: f64 = 10.0;

fn main() {
    if std::env::args().any(|argument| argument == "--timing") {
        divan::main();
        return;
    }
    let mut is_met = true;
    println!(
        "| choosing among {BACKENDS} backends of {MODELS} models | median | target | |\n|---|---:|---:|---|"
    );
    for (name, facts) in CASES.map(|(name, make)| (name, make())) {
        let us = median_us(&facts);
        is_met &= us < MOST_US;
        let verdict = if us < MOST_US { "PASS" } else { "**FAIL**" };
        println!("| {name} | {us:.1} µs | < {MOST_US} µs | {verdict} |");
    }
    let lines = traces::table();
    println!("\n{}", traces::markdown(&lines));
    let all = lines.last().expect("all together");
    let ((_, ours), others) = all.days.split_first().expect("everybody");
    let regret = all.regret(ours);
    let is_best = others.iter().all(|(_, other)| ours.total < other.total);
    is_met &= regret < MOST_REGRET && is_best;
    let verdict = |is_met: bool| if is_met { "PASS" } else { "**FAIL**" };
    println!(
        "Behind the best over all: {regret:.1} % (< {MOST_REGRET} %) {}; better than each of the others over all: {}.",
        verdict(regret < MOST_REGRET),
        verdict(is_best)
    );
    if !is_met {
        std::process::exit(1);
    }
}

/// What is to be decided, and how its facts are made.
type Case = (&'static str, fn() -> Facts);

const CASES: [Case; 4] = [
    ("a model all of them have", named),
    ("an alias of ten targets", alias),
    ("nothing named", open),
    ("a model nobody has", unknown),
];

fn facts() -> Facts {
    let speed = |tokens_per_s| Some(Speed { tokens_per_s, samples: 9 });
    let model = |backend: usize, number: usize| ModelFacts {
        id: format!("some-maker/Some-Model-{number:03}-8B-Instruct-Q4_K_M"),
        parameters: Some(8_000_000_000),
        context: Some(32_768),
        is_resident: Some(number.is_multiple_of(7)),
        speeds: Speeds { prefill: speed(1000.0 + backend as f64), decode: speed(50.0 + backend as f64) },
        ..ModelFacts::default()
    };
    let backend = |at: usize| BackendFacts {
        name: format!("machine-{at}"),
        is_here: at == 0,
        health: Health::Ready,
        hardware: Some("m4-max-64".to_owned()),
        rtt_ms: Some(4.0),
        models: (0..MODELS).map(|number| model(at, number)).collect(),
        ..BackendFacts::default()
    };
    Facts {
        backends: (0..BACKENDS).map(backend).collect(),
        rules: RouteConfig { small: Some("machine-3".to_owned()), ..RouteConfig::default() },
        turn: TurnFacts { prompt_tokens: Some(4000), expected_tokens: Some(300), ..TurnFacts::default() },
        ..Facts::default()
    }
}

fn asking(model: &str) -> Facts {
    Facts {
        pin: Target { backend: None, model: Some(model.to_owned()) },
        rules: RouteConfig::default(),
        ..facts()
    }
}

fn named() -> Facts {
    asking("some-maker/Some-Model-199-8B-Instruct-Q4_K_M")
}

fn unknown() -> Facts {
    asking("nowhere")
}

fn open() -> Facts {
    facts()
}

fn alias() -> Facts {
    let target = |at| format!("machine-{at}/some-maker/Some-Model-{:03}-8B-Instruct-Q4_K_M", 190 + at);
    let targets = (0..BACKENDS).map(target).collect();
    let alias = AliasConfig { name: "fast".to_owned(), targets, variants: Vec::new(), pick: Pick::Cheapest };
    Facts { aliases: vec![alias], ..asking("fast") }
}

fn median_us(facts: &Facts) -> f64 {
    let mut all: Vec<f64> = (0..2000)
        .map(|_| {
            let began = Instant::now();
            black_box(route(black_box(facts)).expect("routes"));
            began.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

#[divan::bench(args = [0, 1, 2, 3])]
fn choosing(bencher: divan::Bencher<'_, '_>, case: usize) {
    let facts = CASES[case].1();
    bencher.bench_local(|| route(black_box(&facts)));
}

#[divan::bench]
fn explaining(bencher: divan::Bencher<'_, '_>) {
    let decision = route(&named()).expect("routes");
    bencher.bench_local(|| explain(black_box(&decision)));
}
