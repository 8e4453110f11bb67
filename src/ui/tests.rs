//! Screens at three sizes, looked at by eye, and what must hold for any model.

mod board;
mod fixture;
mod routing;

use super::ViewCache;
use crate::app::Model;
use crate::app::model::{BackendView, Completion, EngineView, Level, Notice, Overlay, Saving, Scroll};
use crate::app::turn::Phase;
use crate::chat::{CacheLost, CachePlace, Channel, GenError, GenErrorKind, ServerTimings};
use crate::text::shown;
use fixture::{attempt, done, draft, dump, empty, frame, picker, theme, turn};
use pretty_assertions::assert_eq;
use proptest::prelude::*;
use std::time::Duration;

const SIZES: [(u16, u16); 3] = [(120, 40), (80, 24), (40, 12)];

const CODE: &str = "Use serde's rename on the new name:\n\n```rust src/config.rs\n#[derive(Deserialize)]\nstruct Config {\n    #[serde(rename = \"maxTokens\")]\n    token_limit: u32, // was max_tokens\n}\n```\n\nThe file format stays as it is.";

const TABLE: &str = "## What changes\n\nThe `limit` moves into **one place**, see [the book](https://serde.rs/attributes.html):\n\n| field | before | after |\n|:--|:-:|--:|\n| limit | `max_tokens` | 4096 |\n| stop | – | 12 |\n\n1. Rename the field.\n2. Run the tests:\n   ```sh\n   cargo test --workspace\n   ```\n   They take a while.\n3. Commit.\n   - one change\n   - one message\n\n> Old files are still read.\n";

fn screens(name: &str, make: impl Fn(u16, u16) -> Model) {
    for (cols, rows) in SIZES {
        screen(&format!("{name}_{cols}x{rows}"), &dump(&make(cols, rows)));
    }
}

fn screen(name: &str, dump: &str) {
    insta::assert_snapshot!(name, dump);
}

#[test]
fn first_screen() {
    screens("empty", empty);
}

#[test]
fn streaming() {
    screens("streaming", |cols, rows| {
        let mut model = empty(cols, rows);
        model.turns.push(done(1, "rename the field without touching the JSON", CODE));
        let mut running = attempt(
            2,
            "The closure captures `cfg` by reference, but it outlives the",
            Phase::Streaming(Channel::Answer),
        );
        running.metrics.first_token_ms = Some(180.0);
        running.thinking = crate::app::turn::Prose::finished("The log says E0373.");
        running.metrics.first_answer_ms = Some(320.0);
        model.turns.push(turn(2, "now explain the borrow error in the log", running));
        model.queue.push("and can we keep the closure?\nplease".to_owned());
        model.composer.buffer = draft("also check the tests");
        model
    });
}

#[test]
fn a_receipt_says_what_was_reused_guessed_and_lost() {
    let line = |server: ServerTimings| {
        let mut model = empty(200, 40);
        let mut turn = done(1, "go on", "Yes.");
        if let Some(attempt) = turn.lanes[0].attempts.first_mut() {
            attempt.metrics.server = attempt.metrics.server.map(|known| ServerTimings {
                cache_from: server.cache_from,
                cache_lost: server.cache_lost,
                draft_n: server.draft_n,
                draft_n_accepted: server.draft_n_accepted,
                energy_j: server.energy_j,
                ..known
            });
        }
        model.turns.push(turn);
        let screen = dump(&model);
        screen.lines().find(|line| line.contains("local · builtin q8_0")).map(str::trim).unwrap().to_owned()
    };
    let all = [
        ServerTimings { cache_from: Some(CachePlace::Slot), ..ServerTimings::default() },
        ServerTimings { cache_from: Some(CachePlace::Memory), ..ServerTimings::default() },
        ServerTimings {
            cache_from: Some(CachePlace::Disk),
            draft_n: Some(40),
            draft_n_accepted: Some(34),
            energy_j: Some(312.4),
            ..ServerTimings::default()
        },
        ServerTimings { cache_lost: Some(CacheLost::Recurrent), ..ServerTimings::default() },
    ];
    insta::assert_snapshot!(all.map(line).join("\n"));
}

#[test]
fn table_and_code() {
    screens("table_and_code", |cols, rows| {
        let mut model = empty(cols, rows);
        model.turns.push(done(1, "what changes?", TABLE));
        model
    });
}

#[test]
fn wide_characters() {
    screens("wide_characters", |cols, rows| {
        let mut model = empty(cols, rows);
        model.turns.push(done(
            1,
            "日本語で挨拶してください 👋",
            "こんにちは!私は小さなモデルです。**太字**と`コード`も表示できます。\n\n- 絵文字: 👨‍👩‍👧 🇩🇪 ✅\n- naïve café ﷽\n\n| 言語 | 挨拶 |\n|--|--|\n| 日本語 | こんにちは |\n| Deutsch | Hallo 🙂 |",
        ));
        model.composer.buffer = draft("ありがとう 🙏");
        model
    });
}

#[test]
fn trouble() {
    screens("trouble", |cols, rows| {
        let mut model = empty(cols, rows);
        let mut broken = attempt(
            1,
            "One, two, three, four",
            Phase::Interrupted(GenError::new(
                GenErrorKind::EngineDied,
                "the engine ended while it answered: \"out of memory (CUDA0)\"\nIt is being started again with its models.",
            )),
        );
        broken.metrics.server = None;
        broken.metrics.usage.output_tokens = None;
        model.turns.push(turn(1, "Count from 1 to 50", broken));
        model.fleet.engine = EngineView::Starting;
        model.notice = Some(Notice {
            text: shown("cannot save: the disk is full; what was said is kept and tried again"),
            level: Level::Bad,
            until: None,
        });
        model
    });
}

#[test]
fn help() {
    screens("help", |cols, rows| {
        let mut model = empty(cols, rows);
        model.turns.push(done(1, "rename the field without touching the JSON", CODE));
        model.overlays.push(Overlay::Help { top: 0 });
        model
    });
}

#[test]
fn a_remark_in_a_list_does_not_move_the_columns() {
    let mut model = empty(80, 24);
    let mut list = picker();
    let row = |list: &crate::app::model::Picker| {
        let mut model = model.clone();
        model.overlays = vec![Overlay::Picker(list.clone())];
        (0..24).map(|y| text(&model, y)).find(|row| row.contains("qwen2.5")).expect("there")
    };
    list.items[3].columns.clear();
    let before = row(&list);
    list.items[3].columns = vec![shown("it can't be reached at http://127.0.0.1:9: nothing listens there")];
    assert_eq!(row(&list), before);
    model.overlays.push(Overlay::Picker(list));
    let rows: Vec<String> = (0..24).map(|y| text(&model, y)).collect();
    assert!(rows.iter().any(|row| row.contains("it can't be reached at http")), "{rows:?}");
}

#[test]
fn the_help_says_where_it_ends() {
    let mut model = empty(40, 12);
    model.overlays.push(Overlay::Help { top: 0 });
    let last = frame(&model, &theme(), &mut ViewCache::default()).1.help_last.expect("the last row");
    let at = |top: usize| {
        let mut model = model.clone();
        model.overlays = vec![Overlay::Help { top }];
        (0..12).map(|y| text(&model, y)).collect::<Vec<_>>()
    };
    assert_eq!(at(last), at(last + 100));
    assert_ne!(at(last), at(last - 1));
    model.overlays.clear();
    assert_eq!(frame(&model, &theme(), &mut ViewCache::default()).1.help_last, None);
}

#[test]
fn models() {
    screens("picker", |cols, rows| {
        let mut model = empty(cols, rows);
        model.turns.push(done(1, "rename the field without touching the JSON", CODE));
        model.overlays.push(Overlay::Picker(picker()));
        model
    });
}

#[test]
fn phases_say_what_is_happening() {
    let phases = [
        (Phase::Sending, "local · builtin q8_0 · sending · 0.60 s"),
        (Phase::Queued { ahead: 2 }, "local · builtin q8_0 · ⏸ queued, 2 ahead · 0.60 s"),
        (Phase::Loading { fraction: 0.42 }, "local · builtin q8_0 · loading 42 % ▓▓▓▓░░░░░░ · 0.60 s"),
        (
            Phase::Prefilling { done: 1200, total: 3400, cached: 200 },
            "local · builtin q8_0 · prefill 1.2k/3.4k ▓▓▓▓░░░░░░ · 0.60 s",
        ),
        (Phase::Stopped, "■ stopped · local · builtin q8_0 · first 0.18 s · 131 tok/s · 0.75 s"),
    ];
    for (phase, expected) in phases {
        let mut model = empty(80, 24);
        model.turns.push(turn(1, "hello", attempt(1, "", phase)));
        assert_eq!(text(&model, 2).trim_end(), format!("  {expected}"));
    }
}

#[test]
fn a_target_without_models_is_still_shown() {
    let mut model = empty(80, 24);
    model.fleet.backends.push(BackendView {
        name: "dead".to_owned(),
        is_engine: false,
        default_model: None,
        models: Vec::new(),
        ..BackendView::default()
    });
    model.prefs.pin.backend = Some("dead".to_owned());
    let page = |model: &Model| (0..24).map(|y| text(model, y)).collect::<Vec<_>>();
    let rows = page(&model);
    assert!(rows[21].starts_with(" ╭─ → dead ──"), "{rows:?}");
    assert!(rows[23].starts_with(" ╰─ ● local 2M ──"), "{rows:?}");
    assert!(rows.iter().any(|row| row.contains("Looking for models.")), "{rows:?}");
    model.fleet.backends[1].trouble = Some(shown("127.0.0.1:9 refuses the connection"));
    let rows = page(&model);
    assert!(rows[23].starts_with(" ╰─ ● local 2M  ✕ dead ──"), "{rows:?}");
    let at = rows.iter().position(|row| row == "  ▲ dead: 127.0.0.1:9 refuses the connection.").expect("why");
    assert_eq!(rows[at + 1], "    /model asks again, or chooses another one.");
    // A model whose state nobody tells has no mark.
    model.fleet.backends[1].trouble = None;
    let mut card = model.fleet.backends[0].models[0].clone();
    card.state = crate::chat::ModelState::Unknown;
    model.fleet.backends[1].models.push(card);
    let rows = page(&model);
    assert!(rows[21].starts_with(" ╭─ → dead · builtin ──"), "{rows:?}");
    assert!(rows[23].starts_with(" ╰─ ● local 2M ──"), "{rows:?}");
}

#[test]
fn a_running_answer_counts_and_says_when_nothing_comes() {
    let mut model = empty(120, 24);
    let mut running = attempt(1, "One, two", Phase::Streaming(Channel::Answer));
    running.entered_at = Duration::ZERO;
    running.quantisation = None;
    running.metrics.first_token_ms = Some(1_000.0);
    running.metrics.last_token_ms = Some(3_000.0);
    running.metrics.usage.output_tokens = Some(41);
    model.turns.push(turn(1, "hello", running));
    model.now = Duration::from_millis(4_900);
    assert_eq!(text(&model, 3), "  local · builtin q8_0 · first 1.0 s · 20.0 tok/s · 41 tok · 4.9 s");
    model.now = Duration::from_millis(9_100);
    assert_eq!(
        text(&model, 3),
        "  local · builtin q8_0 · first 1.0 s · 20.0 tok/s · 41 tok · nothing for 6 s · 9.1 s"
    );
    let stopped = &mut model.turns[0].lanes[0].attempts[0];
    stopped.phase = Phase::Stopped;
    stopped.metrics.total_ms = Some(9_100.0);
    assert_eq!(
        text(&model, 3),
        "  ■ stopped · local · builtin q8_0 · first 1.0 s · 20.0 tok/s · 41 tok · 9.1 s · chosen by you"
    );
    let plain = &mut model.turns[0].lanes[0].attempts[0];
    plain.phase = Phase::Interrupted(GenError::new(GenErrorKind::EngineDied, "it ended"));
    plain.decision.rule = "default".to_owned();
    plain.metrics.last_token_ms = None;
    assert_eq!(text(&model, 5), "  local · builtin q8_0 · first 1.0 s · 41 tok · 9.1 s");
}

#[test]
fn unknown_numbers_are_absent() {
    let mut model = empty(120, 40);
    let mut bare = attempt(1, "hi", Phase::Done(crate::chat::Finish::Length));
    bare.metrics = crate::chat::Metrics { total_ms: Some(900.0), ..crate::chat::Metrics::default() };
    bare.quantisation = None;
    model.fleet.backends[0].models.clear();
    model.turns.push(turn(1, "hello", bare));
    assert_eq!(text(&model, 3), "  ▲ cut at the length limit · local · builtin · 0.90 s · chosen by you");
}

#[test]
fn thinking_is_folded_to_a_line() {
    let mut model = empty(80, 24);
    let mut thoughtful = attempt(1, "Paris.", Phase::Done(crate::chat::Finish::Stop));
    thoughtful.thinking = crate::app::turn::Prose::finished("It asks for\n\n- a city");
    thoughtful.metrics.first_answer_ms = Some(8_580.0);
    model.turns.push(turn(1, "hello", thoughtful));
    assert_eq!(text(&model, 2), "  ▸ thought 8.4 s");
    assert_eq!(text(&model, 4), "  Paris.");
    model.turns[0].lanes[0].attempts[0].thinking_open = true;
    let shown: Vec<String> = (2..8).map(|y| text(&model, y)).collect();
    assert_eq!(shown, ["  ▾ thought 8.4 s", "  It asks for", "", "  • a city", "", "  Paris."]);
}

#[test]
fn a_long_message_is_folded() {
    let lines = |n: usize| (1..=n).map(|n| format!("line {n}")).collect::<Vec<_>>().join("\n");
    let mut model = empty(80, 60);
    model.turns.push(done(1, &lines(40), "Long."));
    assert_eq!(text(&model, 39), "▌ line 40");
    model.turns = vec![done(1, &lines(3000), "Long.")];
    assert_eq!(
        (11..15).map(|y| text(&model, y)).collect::<Vec<_>>(),
        ["▌ line 12", "▌ … 2988 more lines", "", "  Long."]
    );
    model.turns = vec![done(1, &"word ".repeat(10_000), "Long.")];
    assert!(text(&model, 12).starts_with("▌ … ") && text(&model, 14) == "  Long.", "{}", text(&model, 12));
}

#[test]
fn earlier_attempts_are_one_line_each() {
    let mut model = empty(80, 24);
    let failed = GenError::new(GenErrorKind::EngineDied, "the engine ended\nlast words");
    let mut retried = turn(1, "hello", attempt(1, "some", Phase::Interrupted(failed)));
    let mut second = attempt(1, "Hello!", Phase::Done(crate::chat::Finish::Stop));
    second.key.attempt = 2;
    retried.lanes[0].attempts.push(second);
    model.turns.push(retried);
    assert!(
        text(&model, 2).starts_with("  try 1 · local · builtin · ▲ the engine ended"),
        "{}",
        text(&model, 2)
    );
    assert_eq!(text(&model, 3), "  Hello!");
}

#[test]
fn the_composer_grows_to_two_fifths_and_follows_the_cursor() {
    let mut model = empty(80, 20);
    model.composer.buffer = draft(&(1..=9).map(|n| format!("line {n}")).collect::<Vec<_>>().join("\n"));
    let rows: Vec<String> = (0..20).map(|y| text(&model, y)).collect();
    assert!(rows[18].starts_with(" │ line 9"), "{rows:?}");
    assert_eq!(rows.iter().filter(|row| row.starts_with(" │ line")).count(), 6);
}

#[test]
fn completions_lie_above_the_composer() {
    let mut model = empty(80, 24);
    model.composer.buffer = draft("/");
    let items = (0..12).map(|n| (format!("/command{n} "), "does something".to_owned())).collect();
    model.composer.completion = Some(Completion { items, selected: 9 });
    assert_eq!(text(&model, 20), "  /command9   does something");
    assert_eq!(text(&model, 13), "  /command2   does something");
    assert!(text(&model, 21).ends_with("─ ↑ 2 · ↓ 2 more ─╮"), "{}", text(&model, 21));
}

#[test]
fn the_marked_row_is_one_bar() {
    for name in ["default", "light", "high-contrast"] {
        let theme = crate::theme::Theme::load(name, None).expect("built in").0;
        let mut model = empty(80, 24);
        model.composer.buffer = draft("/");
        let items = (0..3).map(|n| (format!("/command{n}"), "does something".to_owned())).collect();
        model.composer.completion = Some(Completion { items, selected: 1 });
        let bar = |model: &Model, word: &str| {
            let (buffer, _) = frame(model, &theme, &mut ViewCache::default());
            let row = (0..24)
                .find(|y| (0..80).map(|x| buffer[(x, *y)].symbol()).collect::<String>().contains(word));
            let row = row.expect("it is there");
            let of = |x: u16| {
                let cell = &buffer[(x, row)];
                (cell.fg, cell.bg, cell.modifier)
            };
            let marked: Vec<u16> = (0..80).filter(|x| of(*x) == of(40)).collect();
            (marked.len(), of(40) != of(0))
        };
        assert_eq!(bar(&model, "/command1"), (78, true), "{name}");
        model.composer.completion = None;
        model.overlays.push(Overlay::Picker(picker()));
        let (cells, differs) = bar(&model, "qwen2.5");
        assert!(cells > 60 && differs, "{name}: {cells}");
    }
}

#[test]
fn a_tiny_terminal_gets_a_notice() {
    assert_eq!(text(&empty(19, 24), 12), "needs 20×5");
    for (cols, rows) in [(1, 1), (2, 4), (20, 5), (21, 6), (59, 5), (60, 5), (300, 5)] {
        let mut model = empty(cols, rows);
        model.turns.push(done(1, "what changes?", TABLE));
        model.notice = Some(Notice { text: shown("one\ntwo\nthree"), level: Level::Info, until: None });
        model.queue = vec!["a".to_owned(); 5];
        frame(&model, &theme(), &mut ViewCache::default());
        model.overlays.push(Overlay::Help { top: 999 });
        model.overlays.push(Overlay::Picker(picker()));
        frame(&model, &theme(), &mut ViewCache::default());
    }
}

#[test]
fn new_rows_are_counted_while_the_end_is_out_of_sight() {
    let mut model = empty(80, 24);
    model.turns.extend((1..4).map(|n| done(n, "what changes?", TABLE)));
    let (_, facts) = frame(&model, &theme(), &mut ViewCache::default());
    model.scroll = Scroll::Anchored { turn: 0, row: 0, cols: 80, seen_rows: facts.total_rows };
    assert!(text(&model, 20).ends_with("↓ end"), "{}", text(&model, 20));
    model.turns.push(done(4, "and?", "Nothing else."));
    assert!(text(&model, 20).ends_with("↓ 5 new"), "{}", text(&model, 20));
}

#[test]
fn a_server_that_is_away_is_named_with_its_trouble() {
    let mut model = empty(80, 24);
    let backend = &mut model.fleet.backends[0];
    *backend =
        BackendView { name: "dead".to_owned(), is_engine: false, default_model: None, ..backend.clone() };
    backend.models.clear();
    backend.trouble = Some(shown("dead can't be reached: nothing listens there"));
    let screen: Vec<String> = (0..24).map(|y| text(&model, y)).collect();
    let has = |words: &str| screen.iter().any(|row| row.contains(words));
    assert!(has("▲ dead can't be reached: nothing listens there"), "{screen:#?}");
    assert!(has("→ dead ─"), "{screen:#?}");
    assert!(has("✕ dead away"), "{screen:#?}");
}

#[test]
fn what_is_not_saved_is_marked_until_it_is() {
    for (cols, rows) in [(80, 24), (40, 9)] {
        let mut model = empty(cols, rows);
        let is_marked = |model: &Model| (0..rows).any(|y| text(model, y).contains("builtin · not saved"));
        assert!(!is_marked(&model));
        for saving in [Saving::Failing(shown("no space")), Saving::Impossible(shown("no folder"))] {
            model.session.saving = saving;
            assert!(is_marked(&model), "{cols}x{rows}");
        }
        model.session.saving = Saving::Off;
        assert!(!is_marked(&model), "the person wished it so");
    }
}

#[test]
fn no_colour_leaves_none() {
    let theme = theme().without_colour();
    let mut model = empty(80, 24);
    model.turns.push(done(1, "what changes?", TABLE));
    model.overlays.push(Overlay::Picker(picker()));
    let (buffer, _) = frame(&model, &theme, &mut ViewCache::default());
    let reset = ratatui::style::Color::Reset;
    assert!(buffer.content.iter().all(|cell| cell.fg == reset && cell.bg == reset));
}

#[test]
fn without_utf_8_borders_and_marks_are_ascii() {
    let mut theme = theme();
    theme.charset = crate::theme::Charset::Ascii;
    for (cols, rows) in SIZES {
        let mut model = empty(cols, rows);
        model.turns.push(done(1, "what changes?", &TABLE.replace('–', "-")));
        model.turns.push(turn(2, "count", attempt(2, "One", Phase::Loading { fraction: 0.4 })));
        model.queue = vec!["a\nb".to_owned()];
        let notice = "not saved: the disk is full";
        model.notice = Some(Notice { text: shown(notice), level: Level::Bad, until: None });
        for overlay in [None, Some(Overlay::Help { top: 0 }), Some(Overlay::Picker(picker()))] {
            model.overlays = overlay.into_iter().collect();
            let (buffer, _) = frame(&model, &theme, &mut ViewCache::default());
            let odd: Vec<&str> = buffer
                .content
                .iter()
                .map(ratatui::buffer::Cell::symbol)
                .filter(|symbol| !symbol.is_ascii())
                .collect();
            assert_eq!(odd, Vec::<&str>::new(), "{cols}x{rows}");
        }
    }
}

/// The block at the top of the page, as the first words of its line.
#[test]
fn an_anchored_line_stays_at_the_top_when_the_width_changes() {
    let words = |n: u32| format!("paragraph{n} {}", "and some more words ".repeat(20));
    let answer = (0..30).map(words).collect::<Vec<_>>().join("\n\n");
    let mut model = empty(100, 24);
    model.turns.push(done(1, "a", "short"));
    model.turns.push(done(2, "b", &answer));
    let mut cache = ViewCache::default();
    let (_, facts) = frame(&model, &theme(), &mut cache);
    // The first row of paragraph 12 is at the top.
    let row = (0..facts.total_rows)
        .find(|row| {
            model.scroll = Scroll::Anchored { turn: 1, row: *row, cols: 100, seen_rows: 0 };
            text(&model, 0).contains("paragraph12")
        })
        .expect("it is there");
    for cols in [60, 40, 140, 75, 100] {
        model.size.0 = cols;
        model.scroll = Scroll::Anchored { turn: 1, row, cols: 100, seen_rows: 0 };
        assert!(text(&model, 0).contains("paragraph12"), "{cols}: {}", text(&model, 0));
    }
}

/// One row of the screen.
fn text(model: &Model, y: u16) -> String {
    let (buffer, _) = frame(model, &theme(), &mut ViewCache::default());
    let row: String = (0..buffer.area.width).map(|x| buffer[(x, y)].symbol()).collect();
    row.trim_end().to_owned()
}

#[derive(Clone, Debug)]
enum Step {
    Ask(String),
    Say(String),
    Think(String),
    Finish,
    Fail,
    Retry,
    Fold,
    Drop,
    Resize(u16, u16),
    Scroll(usize),
    Follow,
    Later,
    NewSession,
}

fn step() -> impl Strategy<Value = Step> {
    let piece = prop::sample::select(vec![
        "word ",
        "a longer piece of text that has to be wrapped somewhere ",
        "\n",
        "\n\n",
        "# Title\n",
        "- item\n",
        "1. one\n",
        "```rust\nfn main() {}\n",
        "```\n",
        "| a | b |\n|--|--|\n| 1 | 2 |\n",
        "> quote\n",
        "日本語",
        "`code` **bold**",
        "   ",
    ]);
    let text = prop::collection::vec(piece, 1..6).prop_map(|pieces| pieces.concat());
    prop_oneof![
        2 => text.clone().prop_map(Step::Ask),
        8 => text.clone().prop_map(Step::Say),
        2 => text.prop_map(Step::Think),
        2 => Just(Step::Finish),
        1 => Just(Step::Fail),
        1 => Just(Step::Retry),
        1 => Just(Step::Fold),
        1 => Just(Step::Drop),
        2 => (20_u16..130, 5_u16..40).prop_map(|(cols, rows)| Step::Resize(cols, rows)),
        2 => (0_usize..200).prop_map(Step::Scroll),
        1 => Just(Step::Follow),
        1 => Just(Step::Later),
        1 => Just(Step::NewSession),
    ]
}

fn take(model: &mut Model, step: Step, facts: &crate::app::FrameFacts, clock: &mut u32) {
    *clock += 1;
    let running = model.turns.last_mut().and_then(|turn| turn.lanes[0].attempts.last_mut());
    match (step, running) {
        (Step::Ask(text), None) => model.turns.push(turn(*clock, &text, attempt(*clock, "", Phase::Sending))),
        (Step::Ask(text), Some(last)) if last.phase.is_terminal() => {
            model.turns.push(turn(*clock, &text, attempt(*clock, "", Phase::Sending)));
        }
        (Step::Say(text), Some(last)) if !last.phase.is_terminal() => {
            last.phase = Phase::Streaming(Channel::Answer);
            last.answer.push(&text);
        }
        (Step::Think(text), Some(last)) if !last.phase.is_terminal() && last.answer.is_empty() => {
            last.phase = Phase::Streaming(Channel::Thinking);
            last.thinking.push(&text);
        }
        (Step::Finish, Some(last)) if !last.phase.is_terminal() => {
            last.answer.finish();
            last.thinking.finish();
            last.metrics = fixture::metrics();
            last.phase = Phase::Done(crate::chat::Finish::Stop);
        }
        (Step::Fail, Some(last)) if !last.phase.is_terminal() => {
            last.answer.finish();
            last.phase = Phase::Interrupted(GenError::new(GenErrorKind::EngineDied, "it ended"));
        }
        (Step::Retry, Some(last)) if last.phase.is_terminal() => {
            let mut next = attempt(last.key.turn.0, "", Phase::Sending);
            next.key.attempt = last.key.attempt + 1;
            model.turns.last_mut().expect("there").lanes[0].attempts.push(next);
        }
        (Step::Fold, Some(last)) => last.thinking_open = !last.thinking_open,
        (Step::Drop, Some(_)) => {
            model.turns.pop();
        }
        (Step::Resize(cols, rows), _) => model.size = (cols, rows),
        (Step::Scroll(to), Some(_)) => {
            let top = to.min(facts.total_rows);
            let turn = facts.turn_rows.partition_point(|start| *start <= top).saturating_sub(1);
            let row = top - facts.turn_rows.get(turn).copied().unwrap_or(0);
            model.scroll = Scroll::Anchored { turn, row, cols: facts.cols, seen_rows: facts.total_rows };
        }
        (Step::Follow, _) => model.scroll = Scroll::Follow,
        (Step::Later, _) => model.now += Duration::from_millis(100),
        (Step::NewSession, _) => {
            model.turns.clear();
            model.session.id.0.push('x');
            model.scroll = Scroll::Follow;
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_cache_cannot_be_seen(steps in prop::collection::vec(step(), 1..60)) {
        crate::markdown::highlight::load();
        let theme = theme();
        let mut model = empty(80, 24);
        let mut cache = ViewCache::default();
        let mut clock = 0;
        let (_, mut facts) = frame(&model, &theme, &mut cache);
        for step in steps {
            take(&mut model, step.clone(), &facts, &mut clock);
            let (with, with_facts) = frame(&model, &theme, &mut cache);
            let (without, without_facts) = frame(&model, &theme, &mut ViewCache::default());
            prop_assert_eq!(&with_facts, &without_facts, "after {:?}", step);
            prop_assert_eq!(with, without, "after {:?}", step);
            let most = with_facts.total_rows.saturating_sub(with_facts.viewport_rows);
            prop_assert!(with_facts.top_row <= most);
            facts = with_facts;
        }
    }
}
