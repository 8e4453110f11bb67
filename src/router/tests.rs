//! Rules in order, exclusions, the split, cost, and what is said of them.

use super::*;
use crate::config::Policy;
use pretty_assertions::assert_eq;

fn backend(name: &str, models: &[&str]) -> BackendFacts {
    BackendFacts {
        name: name.to_owned(),
        default_model: models.first().map(|m| (*m).to_owned()),
        models: models.iter().map(|m| ModelFacts { id: (*m).to_owned(), ..ModelFacts::default() }).collect(),
        ..BackendFacts::default()
    }
}

fn facts(pin: Target, configured: Target) -> Facts {
    Facts {
        pin,
        configured,
        session: Target::default(),
        backends: vec![backend("local", &["builtin", "small"]), backend("mac", &["large"])],
        ..Facts::default()
    }
}

fn target(backend: Option<&str>, model: Option<&str>) -> Target {
    Target { backend: backend.map(str::to_owned), model: model.map(str::to_owned) }
}

#[test]
fn rules_in_order() {
    let cases = [
        (target(None, None), target(None, None), ("local", "builtin", "default")),
        (target(None, None), target(None, Some("small")), ("local", "small", "has-model")),
        (target(None, None), target(Some("mac"), None), ("mac", "large", "configured")),
        (target(None, Some("large")), target(None, Some("small")), ("mac", "large", "has-model")),
        (target(Some("mac"), None), target(None, Some("small")), ("mac", "large", "pinned")),
        (target(Some("local"), Some("/m/x.gguf")), target(None, None), ("local", "/m/x.gguf", "pinned")),
        (target(None, Some("/m/x.gguf")), target(Some("mac"), None), ("local", "/m/x.gguf", "pinned")),
    ];
    for (pin, configured, expected) in cases {
        let decision = route(&facts(pin.clone(), configured)).expect("routes");
        assert_eq!(
            (decision.backend.as_str(), decision.model.as_str(), decision.rule.as_str()),
            expected,
            "{pin:?}"
        );
        assert_eq!(decision.rejected.len(), 1);
    }
}

#[test]
fn a_conversation_goes_on_where_it_was() {
    let none = || target(None, None);
    let cases = [
        (none(), target(Some("mac"), Some("large")), none(), ("mac", "large", "session", "as before")),
        (none(), target(Some("mac"), Some("old")), none(), ("mac", "old", "session", "as before")),
        (
            none(),
            target(Some("mac"), Some("large")),
            target(Some("local"), None),
            ("mac", "large", "session", "as before"),
        ),
        (
            target(Some("local"), None),
            target(Some("mac"), Some("large")),
            none(),
            ("local", "builtin", "pinned", "chosen by you"),
        ),
        (
            target(None, Some("small")),
            target(Some("mac"), Some("large")),
            none(),
            ("local", "small", "has-model", "chosen by you; local has it"),
        ),
        (
            none(),
            target(Some("gone"), Some("large")),
            none(),
            ("local", "builtin", "default", "nothing else was chosen"),
        ),
        (
            none(),
            target(Some("gone"), Some("large")),
            target(Some("mac"), None),
            ("mac", "large", "configured", "configured default"),
        ),
    ];
    for (pin, session, configured, expected) in cases {
        let facts = Facts { session: session.clone(), ..facts(pin, configured) };
        let decision = route(&facts).expect("routes");
        let Decision { backend, model, rule, reason, rejected, .. } = &decision;
        assert_eq!((backend.as_str(), model.as_str(), rule.as_str(), reason.as_str()), expected);
        if rule == "session" {
            assert_eq!(rejected[0].why, "mac answered before", "{session:?}");
        }
    }
}

#[test]
fn unknown_backend_is_never_replaced() {
    let error = route(&facts(target(Some("cuda"), None), Target::default())).expect_err("refused");
    assert_eq!(error, "no backend `cuda`; there is local, mac");
    assert!(route(&Facts::default()).is_err());
}

#[test]
fn targets_are_read() {
    let names = ["local".to_owned(), "mac".to_owned()];
    assert_eq!(Target::parse("mac", &names), target(Some("mac"), None));
    assert_eq!(Target::parse("mac/llama", &names), target(Some("mac"), Some("llama")));
    assert_eq!(Target::parse("models/x.gguf", &names), target(None, Some("models/x.gguf")));
    assert_eq!(Target::parse("qwen", &names), target(None, Some("qwen")));
}

const B: u64 = 1_000_000_000;

/// A model as a good server describes it.
fn model(id: &str, billions: u64) -> ModelFacts {
    ModelFacts {
        id: id.to_owned(),
        parameters: Some(billions * B),
        bytes: Some(billions * B * 6 / 10),
        kv_bytes_per_token: Some(128 << 10),
        context: Some(32_768),
        is_resident: Some(true),
        ..ModelFacts::default()
    }
}

fn measured(model: ModelFacts, prefill: f64, decode: f64) -> ModelFacts {
    let speed = |tokens_per_s| Some(Speed { tokens_per_s, samples: 12 });
    ModelFacts { speeds: Speeds { prefill: speed(prefill), decode: speed(decode) }, ..model }
}

/// The card under the desk and the Mac in the next room, both with a small and a middling model, the Mac with a large one.
fn house() -> Facts {
    let local = BackendFacts {
        name: "local".to_owned(),
        is_here: true,
        health: Health::Ready,
        rtt_ms: Some(0.2),
        models: vec![
            measured(model("small", 8), 6000.0, 120.0),
            measured(model("middling", 30), 1500.0, 30.0),
        ],
        ..BackendFacts::default()
    };
    let mac = BackendFacts {
        name: "mac".to_owned(),
        health: Health::Ready,
        rtt_ms: Some(4.0),
        models: vec![
            measured(model("small", 8), 700.0, 60.0),
            measured(model("middling", 30), 250.0, 20.0),
            measured(model("large", 70), 80.0, 8.0),
        ],
        ..BackendFacts::default()
    };
    Facts {
        backends: vec![local, mac],
        turn: TurnFacts { prompt_tokens: Some(2000), expected_tokens: Some(300), ..TurnFacts::default() },
        ..Facts::default()
    }
}

fn asking(model: &str) -> Facts {
    Facts { pin: target(None, Some(model)), ..house() }
}

fn chosen(facts: &Facts) -> (String, String, String) {
    let Decision { backend, model, rule, .. } = route(facts).expect("routes");
    (backend, model, rule)
}

fn is(facts: &Facts, backend: &str, model: &str, rule: &str) {
    let (b, m, r) = chosen(facts);
    assert_eq!((b.as_str(), m.as_str(), r.as_str()), (backend, model, rule), "{:#?}", route(facts));
}

fn why(facts: &Facts, backend: &str) -> String {
    let decision = route(facts).expect("routes");
    let rejected = decision.rejected.iter().find(|rejected| rejected.backend == backend);
    rejected.expect("it was rejected").why.clone()
}

fn named(facts: &mut Facts, name: &str) -> usize {
    facts.backends.iter().position(|backend| backend.name == name).expect("it is there")
}

fn change(mut facts: Facts, name: &str, change: impl FnOnce(&mut BackendFacts)) -> Facts {
    let at = named(&mut facts, name);
    change(&mut facts.backends[at]);
    facts
}

#[test]
fn the_cheaper_machine_answers_and_says_what_the_other_would_take() {
    let decision = route(&asking("small")).expect("routes");
    assert_eq!((decision.backend.as_str(), decision.rule.as_str()), ("local", "cost"));
    let predicted = decision.predicted.expect("predicted");
    assert!((predicted.first_ms - (0.2 + 2000.0 / 6.0)).abs() < 1e-6);
    assert!((predicted.total_ms - predicted.first_ms - 2500.0).abs() < 1e-6);
    assert_eq!((predicted.samples, predicted.is_guess), (12, false));
    let mac = &decision.rejected[0];
    assert!(mac.could_answer && mac.predicted.is_some() && mac.why.ends_with("worse"), "{mac:?}");
    assert!(decision.reason.starts_with("balanced: ") && decision.reason.ends_with("better than mac"));
}

#[test]
fn only_the_holder_gets_what_the_other_does_not_have() {
    let facts = asking("large");
    is(&facts, "mac", "large", "has-model");
    assert_eq!(why(&facts, "local"), "mac has large");
    assert!(route(&facts).expect("routes").predicted.is_some());
}

#[test]
fn two_lines_swap_the_machines() {
    let split = |small: &str, large: &str, model: &str| {
        let mut facts = asking(model);
        facts.backends[0].models.push(measured(super::tests::model("large", 70), 100.0, 10.0));
        facts.rules.small = Some(small.to_owned());
        facts.rules.large = Some(large.to_owned());
        facts
    };
    is(&split("local", "mac", "small"), "local", "small", "small-to-local");
    is(&split("local", "mac", "large"), "mac", "large", "large-to-mac");
    is(&split("mac", "local", "small"), "mac", "small", "small-to-mac");
    is(&split("mac", "local", "large"), "local", "large", "large-to-local");
    let decision = route(&split("mac", "local", "large")).expect("routes");
    assert_eq!(decision.reason, "70B ≥ 30B");
    assert_eq!(decision.rejected[0].why, "large models go to local");
    // Exactly the limit is large; with another limit it is small.
    is(&split("local", "mac", "middling"), "mac", "middling", "large-to-mac");
    let mut facts = split("local", "mac", "middling");
    facts.rules.large_from = 31.0;
    is(&facts, "local", "middling", "small-to-local");
    // Who named the machine gets it.
    let mut pinned = split("local", "mac", "large");
    pinned.pin.backend = Some("local".to_owned());
    is(&pinned, "local", "large", "pinned");
    // The side that is away gives way, and is told.
    let away =
        change(split("local", "mac", "large"), "mac", |mac| mac.health = Health::Unreachable { again_s: 4 });
    is(&away, "local", "large", "has-model");
    assert_eq!(why(&away, "mac"), "unreachable, tried again in 4 s");
    // Nothing named: the first default that is on its side.
    let mut open = split("mac", "local", "small");
    open.pin = Target::default();
    is(&open, "mac", "small", "small-to-mac");
}

#[test]
fn sizes_are_read_from_names_where_the_server_is_silent() {
    let mut facts = asking("Llama-3.3-70B-Instruct");
    for backend in &mut facts.backends {
        backend.models =
            vec![ModelFacts { id: "Llama-3.3-70B-Instruct".to_owned(), ..ModelFacts::default() }];
    }
    facts.rules.large = Some("mac".to_owned());
    is(&facts, "mac", "Llama-3.3-70B-Instruct", "large-to-mac");
}

#[test]
fn a_machine_that_was_named_and_is_away_is_never_replaced() {
    let cases = [
        (
            Health::Unreachable { again_s: 4 },
            "mac can't answer: unreachable, tried again in 4 s; local could",
        ),
        (
            Health::Failing { again_s: 2 },
            "mac can't answer: its answers fail, tried again in 2 s; local could",
        ),
        (Health::KeyNeeded, "mac can't answer: wants another key; local could"),
        (Health::Untrusted, "mac can't answer: shows another certificate than the pinned one; local could"),
    ];
    for (health, message) in cases {
        for configured in [false, true] {
            let mut facts = change(house(), "mac", |mac| mac.health = health.clone());
            let there = target(Some("mac"), Some("small"));
            if configured {
                facts.configured = there;
                assert_eq!(route(&facts), Err(message.to_owned()));
            } else {
                // Whoever chose it just now finds out best by asking.
                facts.pin = there;
                is(&facts, "mac", "small", "pinned");
            }
        }
    }
    // Time to try again, asleep, busy, loading: it is asked.
    for health in [Health::Unreachable { again_s: 0 }, Health::Asleep, Health::Busy, Health::Loading] {
        let mut facts = change(house(), "mac", |mac| mac.health = health);
        facts.pin = target(Some("mac"), None);
        is(&facts, "mac", "small", "pinned");
    }
    let both = change(house(), "mac", |mac| mac.health = Health::KeyNeeded);
    let mut both = change(both, "local", |local| local.health = Health::Failing { again_s: 9 });
    both.configured = target(Some("mac"), None);
    assert_eq!(route(&both), Err("mac can't answer: wants another key; nobody else can".to_owned()));
}

#[test]
fn with_one_backend_health_changes_nothing() {
    for health in [Health::Unreachable { again_s: 30 }, Health::Failing { again_s: 3 }, Health::KeyNeeded] {
        let mut facts = house();
        facts.backends.truncate(1);
        facts.backends[0].health = health;
        is(&facts, "local", "small", "default");
    }
}

#[test]
fn what_the_fence_keeps_goes_nowhere_else() {
    let fenced = |facts: Facts| Facts {
        turn: TurnFacts { fenced: vec!["keys.pem".to_owned(), "b".to_owned()], ..facts.turn.clone() },
        ..facts
    };
    // The Mac would be the only one, or was named.
    let words = "mac can't answer: the privacy fence keeps keys.pem and 1 more on this machine; local could";
    assert_eq!(route(&fenced(asking("large"))), Err(words.to_owned()));
    let mut pinned = fenced(house());
    pinned.pin = target(Some("mac"), Some("small"));
    assert_eq!(route(&pinned), Err(words.to_owned()));
    // Left to us, it stays here, whatever it costs.
    let slow = change(fenced(asking("small")), "local", |local| {
        local.models[0] = measured(model("small", 8), 1.0, 0.1);
    });
    is(&slow, "local", "small", "has-model");
    assert!(why(&slow, "mac").contains("keys.pem"));
    // A machine of the person's own, and a fence lifted for this turn.
    let private = change(pinned.clone(), "mac", |mac| mac.is_private = true);
    is(&private, "mac", "small", "pinned");
    // … but not through it to somebody else.
    let through = change(private, "mac", |mac| mac.models[0].hosted_by = Some("example.org".to_owned()));
    assert!(route(&through).is_err());
    pinned.turn.is_fence_lifted = true;
    is(&pinned, "mac", "small", "pinned");
    // Even alone a backend elsewhere does not get it.
    let mut alone = fenced(house());
    alone.backends.remove(0);
    assert!(route(&alone).expect_err("kept").contains("keys.pem"));
}

#[test]
fn prompts_are_passed_on_only_where_that_was_asked_for() {
    let hosted = |model: &mut ModelFacts| model.hosted_by = Some("ollama.com".to_owned());
    let facts = change(asking("small"), "local", |local| hosted(&mut local.models[0]));
    is(&facts, "mac", "small", "has-model");
    assert_eq!(why(&facts, "local"), "passes prompts on to ollama.com; it is asked only by name");
    let only = change(asking("large"), "mac", |mac| hosted(&mut mac.models[2]));
    is(&only, "mac", "large", "has-model");
    // Nobody named it: not as a default either.
    let mut default = change(house(), "local", |local| {
        hosted(&mut local.models[0]);
        hosted(&mut local.models[1]);
    });
    is(&default, "mac", "small", "default");
    default.aliases = vec![alias("fast", &["local/small"], &[], Pick::First)];
    default.pin = target(None, Some("fast"));
    assert!(route(&default).expect_err("not through an alias").contains("passes prompts on"));
}

#[test]
fn what_cannot_answer_is_ruled_out_with_the_reason() {
    let local = |change: &dyn Fn(&mut ModelFacts)| {
        let facts = super::tests::change(asking("small"), "local", |local| change(&mut local.models[0]));
        is(&facts, "mac", "small", "has-model");
        why(&facts, "local")
    };
    assert_eq!(local(&|m| m.embeds = true), "makes embeddings, no text");
    assert_eq!(local(&|m| m.failed = Some("cut off\nagain".to_owned())), "can't be loaded: cut off");
    assert_eq!(
        local(&|m| m.context = Some(2000)),
        "context too small: the prompt has 2.0k tokens, it holds 2.0k"
    );
    let verdict = |fit, say: &str| crate::chat::Verdict {
        fit,
        context: None,
        unload: Vec::new(),
        gpu_layers: None,
        slowdown: None,
        say: say.to_owned(),
    };
    let kept = |verdict| {
        Some(crate::chat::Residency { verdict: Some(verdict), ..crate::chat::Residency::default() })
    };
    let told = local(&|m| {
        m.is_resident = Some(false);
        m.residency = kept(verdict(crate::chat::Fit::DoesNotFit, "needs 43.1 GiB, 21.4 GiB free"));
    });
    assert_eq!(told, "needs 43.1 GiB, 21.4 GiB free");
    // By the memory a person gave.
    let facts = change(asking("small"), "local", |local| {
        local.memory = Some(4 << 30);
        local.models[0].is_resident = Some(false);
    });
    is(&facts, "mac", "small", "has-model");
    let said = why(&facts, "local");
    assert!(said.starts_with("does not fit: needs ") && said.ends_with(", has 4.0 GiB"), "{said}");
    // By the hardware.
    let facts = change(asking("small"), "local", |local| {
        local.hardware = Some("m1-8".to_owned());
        local.models[0] = ModelFacts { is_resident: Some(false), ..model("small", 30) };
    });
    assert!(why(&facts, "local").contains("the Apple M1 has"), "{}", why(&facts, "local"));
    // Tried in this turn.
    let mut facts = asking("small");
    facts.turn.tried = vec!["local".to_owned()];
    is(&facts, "mac", "small", "has-model");
}

#[test]
fn what_is_only_estimated_is_tried_when_it_was_named() {
    let mut facts = change(house(), "local", |local| {
        local.memory = Some(5 << 30);
        local.models[0].is_resident = Some(false);
    });
    facts.pin = target(Some("local"), Some("small"));
    is(&facts, "local", "small", "pinned");
    // Its weights alone are too much: that is no estimate.
    facts.backends[0].memory = Some(4 << 30);
    assert!(route(&facts).expect_err("refused").contains("does not fit"));
    // Where nobody else has it, an estimate does not stand in the way.
    let large = change(asking("large"), "mac", |mac| {
        mac.memory = Some(40 << 30);
        mac.models[2].is_resident = Some(false);
    });
    is(&large, "mac", "large", "has-model");
}

#[test]
fn the_machine_of_the_turn_before_stays_unless_another_is_much_better() {
    let before = |cached: u32, prompt: u32| {
        let mut facts = change(house(), "mac", |mac| mac.models[0].cached_tokens = cached);
        facts.session = target(Some("mac"), Some("small"));
        facts.turn.prompt_tokens = Some(prompt);
        facts.turn.expected_tokens = Some(60);
        facts
    };
    // Everything is in its cache; local would prefill 5000 tokens for 0.8 s, and write faster.
    is(&before(4950, 5000), "mac", "small", "session");
    let reason = route(&before(4950, 5000)).expect("routes").reason;
    assert!(reason.starts_with("as before"), "{reason}");
    // A long file comes with it: the card is worth the move.
    is(&before(4950, 30_000), "local", "small", "cost");
    // Nothing was counted: as before.
    let mut unknown = before(0, 0);
    unknown.turn.prompt_tokens = None;
    is(&unknown, "mac", "small", "session");
    // A speed of one is not known: as before.
    let half = change(before(0, 30_000), "local", |local| local.models[0].speeds = Speeds::default());
    is(&half, "mac", "small", "session");
    // It is away: the other one has the same model, which is told.
    let away = change(before(0, 100), "mac", |mac| mac.health = Health::Unreachable { again_s: 3 });
    is(&away, "local", "small", "has-model");
    assert_eq!(route(&away).expect("routes").reason, "mac can't answer; local has small too");
    // Nobody else has it: an error, and never another model.
    let mut only = change(house(), "mac", |mac| mac.health = Health::Unreachable { again_s: 3 });
    only.session = target(Some("mac"), Some("large"));
    assert_eq!(
        route(&only),
        Err("mac can't answer: unreachable, tried again in 3 s; local could".to_owned())
    );
}

#[test]
fn each_policy_counts_something_else() {
    // As Exo measured a DGX Spark and an M3 Ultra with 8k of prompt: one is early, the other quick.
    let with = |policy, tokens| {
        let mut facts = house();
        facts.backends[0].models = vec![measured(model("x", 8), 5570.0, 11.1)];
        facts.backends[1].models = vec![measured(model("x", 8), 1470.0, 37.6)];
        facts.pin = target(None, Some("x"));
        facts.rules.policy = policy;
        facts.turn.prompt_tokens = Some(8192);
        facts.turn.expected_tokens = Some(tokens);
        route(&facts).expect("routes").backend
    };
    assert_eq!(with(Policy::Snappy, 2000), "local");
    assert_eq!(with(Policy::Finish, 32), "local");
    assert_eq!(with(Policy::Finish, 100), "mac");
    // Both write faster than one reads: the first text counts most.
    assert_eq!(with(Policy::Balanced, 300), "local");

    let mut facts = change(asking("small"), "local", |local| local.is_noisy = true);
    is(&facts, "local", "small", "cost");
    facts.rules.policy = Policy::Quiet;
    is(&facts, "mac", "small", "cost");
    facts.rules.policy = Policy::Balanced;
    facts.surroundings.is_quiet_hour = true;
    let penalties = route(&facts).expect("routes").rejected[0].predicted.expect("predicted").penalties;
    assert!((penalties.total_ms() - 5000.0).abs() < 1e-9, "{penalties:?}");

    let mut saver = change(asking("small"), "local", |local| local.watts = Some(450.0));
    saver = change(saver, "mac", |mac| mac.watts = Some(60.0));
    saver.rules.policy = Policy::Saver;
    is(&saver, "mac", "small", "cost");
}

#[test]
fn what_is_paid_once_is_spread_over_the_turns_that_follow() {
    // One reads fast and writes slowly, and a long file comes.
    let with = |follow_ups, policy| {
        let mut facts = house();
        facts.backends[0].models = vec![measured(model("x", 8), 1300.0, 9.5)];
        facts.backends[1].models = vec![measured(model("x", 8), 330.0, 29.0)];
        facts.pin = target(None, Some("x"));
        facts.rules.policy = policy;
        facts.turn.prompt_tokens = Some(13_000);
        facts.turn.follow_ups = follow_ups;
        route(&facts).expect("routes")
    };
    assert_eq!(with(None, Policy::Finish).backend, "local");
    assert_eq!(with(Some(0.0), Policy::Finish).backend, "local");
    assert_eq!(with(Some(3.0), Policy::Finish).backend, "mac");
    assert_eq!(with(Some(3.0), Policy::Snappy).backend, "local");
    // What is told is what this turn takes.
    let (alone, first) = (with(None, Policy::Finish), with(Some(3.0), Policy::Finish));
    assert_eq!(alone.rejected[0].predicted.map(|p| p.total_ms), first.predicted.map(|p| p.total_ms));
}

#[test]
fn what_is_seen_of_a_machine_counts_against_it() {
    let first = |facts: &Facts, backend: &str| {
        let decision = route(facts).expect("routes");
        let rejected = decision.rejected.iter().find(|r| r.backend == backend).and_then(|r| r.predicted);
        if decision.backend == backend { decision.predicted } else { rejected }.expect("predicted")
    };
    let usual = first(&asking("small"), "mac");
    let with =
        |edit: &dyn Fn(&mut BackendFacts)| first(&change(asking("small"), "mac", |mac| edit(mac)), "mac");
    let asleep = with(&|mac| (mac.health, mac.wake_ms) = (Health::Asleep, Some(70_000.0)));
    assert!((asleep.first_ms - usual.first_ms - 70_000.0).abs() < 1e-6);
    assert!((with(&|mac| mac.queue_ms = Some(500.0)).wait_ms - usual.wait_ms - 500.0).abs() < 1e-6);
    assert!(with(&|mac| mac.health = Health::Busy).wait_ms > usual.wait_ms + 2000.0);
    let cold = with(&|mac| mac.models[0].is_resident = Some(false));
    assert!((cold.load_ms - 3200.0).abs() < 1.0, "4.8 GB at 1.5 GB/s: {}", cold.load_ms);
    let again = with(&|mac| (mac.models[0].is_resident, mac.models[0].left_s) = (Some(false), Some(60.0)));
    assert!((again.load_ms - 800.0).abs() < 1.0);
    let known = with(&|mac| (mac.models[0].is_resident, mac.models[0].load_ms) = (Some(false), Some(5000.0)));
    assert!((known.load_ms - 5000.0).abs() < 1e-9);
    let failed = with(&|mac| mac.failed_s = Some(60.0));
    assert!((failed.penalties.failure_ms - 5000.0).abs() < 1e-6);
    let evicts = with(&|mac| {
        let idle = |idle_s| Some(crate::chat::Residency { idle_s: Some(idle_s), ..Default::default() });
        mac.models[1].residency = idle(30.0);
        mac.models[1].load_ms = Some(9000.0);
        mac.models[2].residency = idle(3000.0);
        mac.models[0].is_resident = Some(false);
        mac.models[0].residency = Some(crate::chat::Residency {
            verdict: Some(crate::chat::Verdict {
                fit: crate::chat::Fit::IfUnloaded,
                context: None,
                unload: vec!["middling".to_owned(), "large".to_owned()],
                gpu_layers: None,
                slowdown: None,
                say: String::new(),
            }),
            ..Default::default()
        });
    });
    assert!((evicts.penalties.eviction_ms - 9000.0).abs() < 1e-9);
    let mut battery = asking("small");
    battery.surroundings.on_battery = true;
    assert!((first(&battery, "local").penalties.battery_ms - 3000.0).abs() < 1e-9);
    assert!(first(&battery, "mac").penalties.is_none());
}

#[test]
fn speeds_are_guessed_from_the_hardware_until_they_are_measured() {
    let mut facts = asking("llama-3.1-8b");
    for (backend, hardware) in facts.backends.iter_mut().zip(["rtx4090", "m4-max-64"]) {
        backend.models = vec![ModelFacts { id: "llama-3.1-8b".to_owned(), ..ModelFacts::default() }];
        backend.hardware = Some(hardware.to_owned());
        backend.default_model = Some("llama-3.1-8b".to_owned());
    }
    let decision = route(&facts).expect("routes");
    assert_eq!((decision.backend.as_str(), decision.rule.as_str()), ("local", "cost"));
    let predicted = decision.predicted.expect("guessed");
    assert!(predicted.is_guess && predicted.samples == 0);
    assert!((100.0..160.0).contains(&predicted.decode_tokens_per_s), "{predicted:?}");
    assert!(explain(&decision).iter().any(|line| line.starts_with("guessed ")));
    // A name nobody knows guesses nothing.
    facts.backends[1].hardware = Some("toaster".to_owned());
    assert_eq!(route(&facts).expect("routes").rejected[0].predicted, None);
}

#[test]
fn a_machine_that_was_hardly_measured_gets_a_turn_a_day() {
    let near = |samples| {
        let mut facts = asking("small");
        facts.turn.prompt_tokens = Some(200);
        facts.turn.expected_tokens = Some(20);
        change(facts, "mac", |mac| {
            let speeds = &mut mac.models[0].speeds;
            for speed in [&mut speeds.prefill, &mut speeds.decode] {
                *speed = speed.map(|speed| Speed { samples, ..speed });
            }
        })
    };
    is(&near(1), "mac", "small", "explore");
    is(&near(3), "local", "small", "cost");
    let without = |edit: &dyn Fn(&mut BackendFacts)| change(near(1), "mac", |mac| edit(mac));
    is(&without(&|mac| mac.models[0].is_explored_today = true), "local", "small", "cost");
    is(&without(&|mac| mac.queue_ms = Some(10.0)), "local", "small", "cost");
    is(&without(&|mac| mac.failed_s = Some(100.0)), "local", "small", "cost");
    // A second is too much, and a conversation stays where its cache is.
    let mut long = near(1);
    long.turn.prompt_tokens = Some(2000);
    is(&long, "local", "small", "cost");
    let mut going_on = near(1);
    going_on.session = target(Some("local"), Some("small"));
    is(&going_on, "local", "small", "session");
}

fn alias(name: &str, targets: &[&str], variants: &[&str], pick: Pick) -> AliasConfig {
    let owned = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect();
    AliasConfig { name: name.to_owned(), targets: owned(targets), variants: owned(variants), pick }
}

#[test]
fn aliases_pick_the_first_or_the_cheapest() {
    let with = |pick, name: &str| {
        let mut facts = house();
        facts.aliases = vec![alias("fast", &["mac/small", "local/small"], &["local/middling"], pick)];
        facts.pin = target(None, Some(name));
        facts
    };
    is(&with(Pick::First, "fast"), "mac", "small", "alias");
    is(&with(Pick::Cheapest, "fast"), "local", "small", "cost");
    let decision = route(&with(Pick::Cheapest, "fast")).expect("routes");
    assert_eq!((decision.alias.as_deref(), decision.is_variant), (Some("fast"), false));
    // The first can't: the next one, and the variants last.
    let away = change(with(Pick::First, "fast"), "mac", |mac| mac.health = Health::KeyNeeded);
    is(&away, "local", "small", "alias");
    let none = change(away, "local", |local| local.models[0].failed = Some("gone".to_owned()));
    let decision = route(&none).expect("routes");
    assert_eq!((decision.model.as_str(), decision.is_variant), ("middling", true));
    assert!(explain(&decision)[0].contains("another quantisation or format"), "{:?}", explain(&decision));
    // With a machine named only its targets count.
    let mut on_mac = with(Pick::Cheapest, "fast");
    on_mac.pin.backend = Some("mac".to_owned());
    is(&on_mac, "mac", "small", "alias");
    on_mac.aliases = vec![alias("fast", &["local/small"], &[], Pick::First)];
    assert_eq!(route(&on_mac), Err("`fast` has no target on `mac`; it is local/small".to_owned()));
    // A backend that is not there is passed over and told.
    let mut gone = house();
    gone.aliases = vec![alias("deep", &["cuda/large", "mac/large"], &[], Pick::First)];
    gone.pin = target(None, Some("deep"));
    is(&gone, "mac", "large", "alias");
    assert_eq!(why(&gone, "cuda"), "there is no such backend");
    // The machine of the turn before counts for an alias too.
    let mut before = with(Pick::Cheapest, "fast");
    before.session = target(Some("mac"), Some("small"));
    before.turn.expected_tokens = Some(20);
    before.turn.prompt_tokens = Some(100);
    is(&before, "mac", "small", "session");
}

#[test]
fn a_turn_that_failed_goes_elsewhere_and_says_so() {
    let failed = |facts: &Facts| elsewhere(facts, &route(facts).expect("routes"));
    let same = failed(&asking("small")).expect("moves");
    assert_eq!((same.backend.as_str(), same.model.as_str()), ("mac", "small"));
    assert_eq!((same.moved_from.as_deref(), same.is_other_model), (Some("local"), false));
    // A pin holds for sending; moving is asked for.
    let mut pinned = house();
    pinned.pin = target(Some("local"), Some("small"));
    assert_eq!(failed(&pinned).expect("moves").backend, "mac");
    // Nobody else has it: another model, which is told.
    let other = failed(&asking("large")).expect("moves");
    assert_eq!(
        (other.backend.as_str(), other.model.as_str(), other.is_other_model),
        ("local", "small", true)
    );
    assert!(explain(&other)[0].ends_with("moved from mac, to another model"), "{:?}", explain(&other));
    // An alias says what is as good.
    let mut facts = house();
    facts.aliases = vec![alias("deep", &["mac/large", "local/middling"], &[], Pick::First)];
    facts.pin = target(None, Some("deep"));
    let next = failed(&facts).expect("moves");
    assert_eq!(
        (next.model.as_str(), next.is_other_model, next.alias.as_deref()),
        ("middling", false, Some("deep"))
    );
    // Nobody is left.
    let mut alone = house();
    alone.backends.truncate(1);
    assert!(failed(&alone).is_err());
    let mut twice = asking("small");
    twice.turn.tried = vec!["mac".to_owned()];
    assert!(failed(&twice).is_err());
}

#[test]
fn a_decision_is_told_in_lines() {
    let mut facts = change(asking("large"), "local", |local| {
        local.memory = Some(22 << 30);
        local.models.push(ModelFacts { is_resident: Some(false), ..model("large", 70) });
    });
    facts.rules.large = Some("mac".to_owned());
    facts.turn.prompt_tokens = Some(7200);
    facts.backends[1].models[2].cached_tokens = 6900;
    let lines = |facts: &Facts| explain(&route(facts).expect("routes")).join("\n");
    insta::assert_snapshot!(lines(&facts), @"
    rule large-to-mac: 70B ≥ 30B
    mac    first 3.8 s  done 41 s  chosen
    local  does not fit: needs 40.5 GiB, has 22.0 GiB
    measured 8.0 tok/s (12 turns), RTT 4 ms
    cache: 6.9k of 7.2k tokens on mac
    ");
    let mut battery = change(asking("small"), "local", |local| local.queue_ms = Some(2500.0));
    battery.surroundings.on_battery = true;
    insta::assert_snapshot!(lines(&battery), @"
    rule cost: balanced: 2.6 s better than local
    mac    first 2.9 s  done 7.9 s  chosen
    local  first 2.8 s  done 5.3 s  2.6 s worse (this machine is on battery +3.0 s)
    measured 60.0 tok/s (12 turns), RTT 4 ms
    ");
    let cold = change(asking("large"), "mac", |mac| {
        mac.models[2].is_resident = Some(false);
        mac.failed_s = Some(60.0);
    });
    insta::assert_snapshot!(lines(&cold), @"
    rule has-model: chosen by you; mac has it
    mac    first 53 s  done 91 s  chosen
    local  mac has large
    measured 8.0 tok/s (12 turns), RTT 4 ms
    before the first token: loading 28 s, prefill 25 s
    counted against it: it failed not long ago +5.0 s
    ");
    insta::assert_snapshot!(lines(&asking("nowhere")), @"
    rule pinned: chosen by you
    local  chosen
    mac    local comes first
    ");
}

mod properties {
    use super::*;
    use proptest::prelude::*;
    use proptest::sample::select;

    fn health() -> impl Strategy<Value = Health> {
        select(vec![
            Health::Unknown,
            Health::Ready,
            Health::Loading,
            Health::Busy,
            Health::Asleep,
            Health::KeyNeeded,
            Health::Untrusted,
            Health::ModelMissing,
            Health::Failing { again_s: 0 },
            Health::Failing { again_s: 5 },
            Health::Unreachable { again_s: 0 },
            Health::Unreachable { again_s: 9 },
        ])
    }

    fn speed() -> impl Strategy<Value = Option<Speed>> {
        proptest::option::of(
            (any::<f64>(), 0_u32..20).prop_map(|(tokens_per_s, samples)| Speed { tokens_per_s, samples }),
        )
    }

    prop_compose! {
        fn any_model()(
            id in select(vec!["small", "middling", "large", "llama-3.1-8b", "x.gguf"]),
            parameters in proptest::option::of(any::<u64>()),
            bytes in proptest::option::of(any::<u64>()),
            context in proptest::option::of(any::<u32>()),
            is_resident in any::<Option<bool>>(),
            flags in any::<[bool; 4]>(),
            cached_tokens in any::<u32>(),
            prefill in speed(),
            decode in speed(),
            load_ms in any::<Option<f64>>(),
        ) -> ModelFacts {
            ModelFacts {
                id: id.to_owned(),
                parameters,
                bytes,
                context,
                is_resident,
                load_ms,
                embeds: flags[0] && flags[1],
                hosted_by: (flags[1] && flags[2]).then(|| "elsewhere".to_owned()),
                failed: (flags[2] && flags[3]).then(String::new),
                is_explored_today: flags[0],
                cached_tokens,
                speeds: Speeds { prefill, decode },
                ..ModelFacts::default()
            }
        }
    }

    prop_compose! {
        fn any_backend()(
            health in health(),
            models in proptest::collection::vec(any_model(), 0..5),
            numbers in any::<[Option<f64>; 4]>(),
            memory in proptest::option::of(any::<u64>()),
            hardware in proptest::option::of(select(vec!["rtx4090", "m4-max-64", "cpu", "toaster"])),
            flags in any::<[bool; 3]>(),
        ) -> BackendFacts {
            BackendFacts {
                health,
                models,
                rtt_ms: numbers[0],
                wake_ms: numbers[1],
                queue_ms: numbers[2],
                failed_s: numbers[3],
                memory,
                hardware: hardware.map(str::to_owned),
                is_noisy: flags[0],
                is_private: flags[1],
                is_here: flags[2],
                ..BackendFacts::default()
            }
        }
    }

    fn any_target() -> impl Strategy<Value = Target> {
        let backend = proptest::option::of(select(vec!["b0", "b1", "b2", "gone"]));
        let model = proptest::option::of(select(vec!["small", "large", "fast", "deep", "nowhere", "x.gguf"]));
        (backend, model).prop_map(|(b, m)| target(b, m))
    }

    prop_compose! {
        fn any_facts()(
            backends in proptest::collection::vec(any_backend(), 0..4),
            targets in (any_target(), any_target(), any_target()),
            pins in any::<[bool; 3]>(),
            sides in any::<[Option<bool>; 2]>(),
            large_from in 0.1_f64..500.0,
            policy in select(vec![Policy::Snappy, Policy::Balanced, Policy::Finish, Policy::Quiet, Policy::Saver]),
            counts in any::<[Option<u32>; 4]>(),
            follow_ups in any::<Option<f64>>(),
            is_fenced in any::<bool>(),
            is_lifted in any::<bool>(),
            tried in any::<bool>(),
            surroundings in any::<[bool; 2]>(),
        ) -> Facts {
            let side = |side: Option<bool>| side.map(|first| if first { "b0" } else { "b1" }.to_owned());
            let or_open = |is_set: bool, target: Target| if is_set { target } else { Target::default() };
            Facts {
                pin: or_open(pins[0], targets.0),
                session: or_open(pins[1], targets.1),
                configured: or_open(pins[2], targets.2),
                backends: backends
                    .into_iter()
                    .enumerate()
                    .map(|(at, backend)| BackendFacts { name: format!("b{at}"), ..backend })
                    .collect(),
                aliases: vec![
                    alias("fast", &["b0/small", "b1/small", "gone/x"], &["b2/large"], Pick::Cheapest),
                    alias("deep", &["b1/large", "b0/middling"], &[], Pick::First),
                ],
                rules: crate::config::RouteConfig {
                    policy,
                    small: side(sides[0]),
                    large: side(sides[1]),
                    large_from,
                    ..Default::default()
                },
                turn: TurnFacts {
                    prompt_tokens: counts[0],
                    expected_tokens: counts[1],
                    expected_thinking: counts[2],
                    follow_ups,
                    follow_up_tokens: counts[3],
                    fenced: if is_fenced { vec!["secret".to_owned()] } else { Vec::new() },
                    is_fence_lifted: is_lifted,
                    tried: if tried { vec!["b1".to_owned()] } else { Vec::new() },
                },
                surroundings: Surroundings {
                    on_battery: surroundings[0],
                    is_quiet_hour: surroundings[1],
                },
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1500))]

        #[test]
        fn whatever_is_known_nobody_who_is_ruled_out_gets_the_turn(facts in any_facts()) {
            let result = route(&facts);
            prop_assert_eq!(&result, &route(&facts), "the same facts decide the same");
            let Ok(decision) = result else {
                prop_assert!(!result.expect_err("an error").is_empty());
                return Ok(());
            };
            // A machine somebody named is never replaced.
            let (rule, _, wanted) = source(&facts);
            if let Some(name) = &wanted.backend && rule != "session" {
                prop_assert_eq!(&decision.backend, name);
            }
            let backend = facts.backends.iter().find(|b| b.name == decision.backend).expect("it is there");
            let names = Rc::new(Names::default());
            let candidate = Candidate::new(backend, &decision.model, &names);
            if let Some(bar) = bar(&candidate, &facts, true) {
                prop_assert!(!bar.is_firm, "{}", bar.why);
            }
            if facts.backends.len() > 1 {
                prop_assert!(!backend.health.is_away() || facts.pin.backend.as_ref() == Some(&backend.name));
            }
            prop_assert!(!facts.turn.tried.contains(&decision.backend));
            let hosted_by = candidate.model.and_then(|model| model.hosted_by.as_ref());
            if !facts.turn.fenced.is_empty() && !facts.turn.is_fence_lifted {
                prop_assert!((backend.is_here || backend.is_private) && hosted_by.is_none());
            }
            if hosted_by.is_some() {
                prop_assert!(wanted.backend.is_some() || wanted.model.as_ref() == Some(&decision.model));
            }
            prop_assert!(decision.rejected.iter().all(|other| !other.why.is_empty()));
            prop_assert!(decision.predicted.is_none_or(|p| p.total_ms.is_finite() && p.score_ms.is_finite()));
            prop_assert!(!explain(&decision).is_empty());
            if let Ok(moved) = elsewhere(&facts, &decision) {
                prop_assert_ne!(&moved.backend, &decision.backend);
            }
            // What is stored is read again.
            let text = serde_json::to_string(&decision).expect("text");
            prop_assert!(serde_json::from_str::<Decision>(&text).is_ok());
        }
    }
}
