//! Screens with two machines: targets, offers, answers finished and compared elsewhere, what is said of routes.

use super::fixture::{attempt, done, dump, empty, metrics, turn};
use super::{screen, screens, text};
use crate::app::model::{BackendView, Overlay, Sheet, SheetKind, SheetRow, Tone};
use crate::app::routing::{Offer, Piece, Sent};
use crate::app::story::Story;
use crate::app::turn::{Lane, Phase};
use crate::app::{Model, why};
use crate::chat::record::FenceRecord;
use crate::chat::{Finish, GenError, GenErrorKind, GenKey, LaneId, ModelCard, ModelState, TurnId};
use crate::router::{Decision, Prediction, Rejected};
use crate::text::{shown, shown_line};
use std::time::Duration;

/// `local` and `mac`, the second with a large model.
fn two(cols: u16, rows: u16) -> Model {
    let mut model = empty(cols, rows);
    model.fleet.backends.push(BackendView {
        name: "mac".to_owned(),
        default_model: Some("llama3.3-70b".to_owned()),
        models: vec![ModelCard {
            id: "llama3.3-70b".to_owned(),
            state: ModelState::Loaded,
            parameters: Some(70_600_000_000),
            quantisation: Some("Q4_K_M".to_owned()),
            context: Some(32_768),
            ..ModelCard::default()
        }],
        rtt_ms: Some(4.2),
        ..BackendView::default()
    });
    model
}

fn prediction(first_ms: f64, total_ms: f64, is_guess: bool) -> Prediction {
    Prediction {
        first_ms,
        total_ms,
        prefill_ms: first_ms - 4.0,
        wait_ms: 4.0,
        new_tokens: 612,
        decode_tokens_per_s: 14.2,
        is_guess,
        ..Prediction::default()
    }
}

/// A decision for the mac, with a beaten and a barred candidate.
fn decision() -> Decision {
    Decision {
        backend: "mac".to_owned(),
        model: "llama3.3-70b".to_owned(),
        rule: "large-to-mac".to_owned(),
        reason: "70.6B ≥ 30B".to_owned(),
        rejected: vec![
            Rejected {
                backend: "local".to_owned(),
                model: Some("llama3.3-70b".to_owned()),
                why: "does not fit: needs 43.1 GB, free 21.4".to_owned(),
                ..Rejected::default()
            },
            Rejected {
                backend: "cuda".to_owned(),
                model: Some("llama3.3-70b".to_owned()),
                why: "later by 12 s".to_owned(),
                predicted: Some(prediction(14_000.0, 61_000.0, true)),
                ..Rejected::default()
            },
        ],
        predicted: Some(prediction(2_100.0, 24_000.0, false)),
        alias: Some("deep".to_owned()),
        ..Decision::default()
    }
}

#[test]
fn the_edges_say_where_it_goes_and_how_warm_each_target_is() {
    screens("two_machines", |cols, rows| {
        let mut model = two(cols, rows);
        model.turns.push(done(1, "hello", "Hi there."));
        model.routing.sent.push(Sent {
            backend: "mac".to_owned(),
            model: "llama3.3-70b".to_owned(),
            session: model.session.id.clone(),
            pieces: vec![
                (Piece::User(TurnId(1)), 5),
                (Piece::Answer(GenKey { turn: TurnId(1), lane: LaneId(0), attempt: 1 }), 9),
            ],
            tokens: 1000,
            reuse: 1.0,
        });
        model
    });
    let mut model = two(100, 24);
    let edge = |model: &Model| text(model, 23);
    assert!(text(&model, 21).starts_with(" ╭─ → auto: local · builtin ──"), "{}", text(&model, 21));
    assert!(edge(&model).starts_with(" ╰─ ● local 2M  ● mac 71B ──"), "{}", edge(&model));
    let now = Duration::from_millis(10_000);
    model.fleet.backends[1].circuit.failed(GenErrorKind::Unreachable, now);
    assert!(edge(&model).starts_with(" ╰─ ● local 2M  ✕ mac 71B ──"), "{}", edge(&model));
    model.fleet.backends[1].circuit.failed(GenErrorKind::Auth, now);
    model.fleet.backends[0].models[0].state = ModelState::Unloaded;
    assert!(edge(&model).starts_with(" ╰─ ○ local 2M  ▲ mac 71B ──"), "{}", edge(&model));
    model.prefs.pin.backend = Some("mac".to_owned());
    assert!(text(&model, 21).starts_with(" ╭─ → mac · llama3.3-70b ──"), "{}", text(&model, 21));
    let mut fenced = done(1, "q", "a");
    fenced.fence = Some(FenceRecord { files: vec!["id.pem".to_owned()], is_lifted: false });
    model.turns.push(fenced);
    assert!(text(&model, 21).contains("· ⚿ fenced ──"), "{}", text(&model, 21));
    model.routing.is_fence_lifted = true;
    assert!(text(&model, 21).contains("· fence lifted ──"), "{}", text(&model, 21));
}

#[test]
fn what_a_send_would_cost_is_marked_as_measured_or_guessed() {
    let cost = |is_guess| {
        let decision = Decision { predicted: Some(prediction(900.0, 9.0, is_guess)), ..Decision::default() };
        crate::ui::target::cost(&decision)
    };
    assert_eq!(
        (cost(false).as_deref(), cost(true).as_deref()),
        (Some("first ≈0.90 s"), Some("first ~0.90 s"))
    );
    assert_eq!(crate::ui::target::cost(&Decision::default()), None);
}

fn on_mac(number: u32, answer: &str, phase: Phase) -> crate::app::turn::Attempt {
    let mut attempt = attempt(number, answer, phase);
    attempt.decision = Decision { reason: "as before".to_owned(), rejected: Vec::new(), ..decision() };
    attempt.quantisation = Some("Q4_K_M".to_owned());
    attempt
}

#[test]
fn a_machine_that_failed_offers_the_other_in_one_line() {
    screens("offer", |cols, rows| {
        let mut model = two(cols, rows);
        let error =
            GenError::new(GenErrorKind::Unreachable, "mac is unreachable: connect took more than 2 s");
        let mut failed = on_mac(1, "", Phase::Interrupted(error));
        failed.metrics = crate::chat::Metrics { total_ms: Some(2_004.0), ..Default::default() };
        model.routing.offer = Some(Offer {
            key: failed.key,
            decision: Decision {
                backend: "local".to_owned(),
                model: "builtin".to_owned(),
                ..Decision::default()
            },
            is_cut: false,
        });
        model.turns.push(turn(1, "explain the borrow error", failed));
        model
    });
}

#[test]
fn an_answer_finished_elsewhere_shows_both_parts_with_their_receipts() {
    screens("continued", |cols, rows| {
        let mut model = two(cols, rows);
        let error = GenError::new(GenErrorKind::Protocol, "the connection to mac broke after 20 tokens");
        let first =
            on_mac(1, "Use a scope:\n\n```rust\nfn main() {\n    let a = 1;\n", Phase::Interrupted(error));
        let mut second = attempt(1, "", Phase::Done(Finish::Stop));
        second.key.attempt = 2;
        second.story = Story { continues: Some(1), ..Story::default() };
        second.answer = crate::app::turn::Prose::after(first.answer.raw());
        second.answer.push("}\n```\n\nThat is all.");
        second.answer.finish();
        let mut both = turn(1, "how do I end the borrow?", first);
        both.lanes[0].attempts.push(second);
        model.turns.push(both);
        model
    });
}

fn siblings(cols: u16, rows: u16) -> Model {
    let mut model = two(cols, rows);
    let first = "Like this:\n\n```rust\nlet a = 1;\nlet b = 2;\nprintln!(\"{a}\");\n```\n";
    let second = "Better:\n\n```rust\nlet a = 1;\nlet b = 3;\nprintln!(\"{a}\");\n```\n";
    let mut both = done(1, "print it", first);
    let mut other = on_mac(1, second, Phase::Done(Finish::Stop));
    other.key = GenKey { lane: LaneId(1), ..other.key };
    other.first_code = 2;
    both.lanes.push(Lane { id: LaneId(1), attempts: vec![other] });
    model.turns.push(both);
    model
}

#[test]
fn two_answers_are_compared_until_one_is_kept() {
    screens("siblings", siblings);
    let mut model = siblings(80, 24);
    model.turns[0].kept = Some(LaneId(1));
    screen("siblings_kept_80x24", &dump(&model));
}

#[test]
fn receipts_say_what_has_to_be_known_of_the_way() {
    let model = two(160, 24);
    let theme = super::fixture::theme();
    let line = |change: fn(&mut crate::app::turn::Attempt)| {
        let mut attempt = on_mac(1, "x", Phase::Done(Finish::Stop));
        attempt.metrics = metrics();
        change(&mut attempt);
        crate::ui::receipt::line(&model, &attempt, 200, &theme).to_string()
    };
    let all = [
        line(|a| a.story.fallback_from = Some("cuda".to_owned())),
        line(|a| a.story.cache_lost = Some("the system prompt changed".to_owned())),
        line(|a| a.decision.is_variant = true),
        line(|a| a.story.continues = Some(1)),
    ];
    insta::assert_snapshot!("route_receipts", all.join("\n"));
}

#[test]
fn why_is_read_in_a_sheet() {
    screens("why", |cols, rows| {
        let mut model = two(cols, rows);
        model.turns.push(done(1, "hello", "Hi."));
        let row = |(tone, text): (Tone, String)| SheetRow { tone, text: shown_line(&text, 400) };
        model.overlays.push(Overlay::Sheet(Sheet {
            kind: SheetKind::Why,
            title: shown("Why mac?"),
            rows: why::explain(&decision(), None).into_iter().map(row).collect(),
            top: 0,
        }));
        model
    });
}

#[test]
fn machines_and_how_they_are() {
    screens("machines", |cols, rows| {
        let mut model = two(cols, rows);
        let now = Duration::from_millis(10_000);
        model.fleet.backends[0].circuit.succeeded();
        model.fleet.backends[1].circuit.connected();
        let away = |name: &str, kind| {
            let mut backend = BackendView { name: name.to_owned(), ..BackendView::default() };
            backend.circuit.failed(kind, now);
            backend
        };
        model.fleet.backends.push(away("attic", GenErrorKind::Unreachable));
        model.fleet.backends.push(away("cluster", GenErrorKind::Auth));
        model.fleet.backends[2].setup.kind = Some(crate::config::BackendKind::Ollama);
        model.overlays.push(Overlay::Backends { selected: 2 });
        model
    });
}
