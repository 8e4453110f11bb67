//! Screens at three sizes, looked at by eye, and what must hold for any model.

mod fixture;

use super::ViewCache;
use crate::app::Model;
use crate::app::model::{Completion, EngineView, Level, Notice, Overlay, Scroll};
use crate::app::turn::Phase;
use crate::chat::{Channel, GenError, GenErrorKind};
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
        insta::assert_snapshot!(format!("{name}_{cols}x{rows}"), dump(&make(cols, rows)));
    }
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
fn models() {
    screens("picker", |cols, rows| {
        let mut model = empty(cols, rows);
        model.turns.push(done(1, "rename the field without touching the JSON", CODE));
        model.overlays.push(Overlay::Picker(picker()));
        model
    });
}

#[test]
fn look() {
    let Ok(which) = std::env::var("LOOK") else { return };
    for (cols, rows) in SIZES {
        let mut model = empty(cols, rows);
        match which.as_str() {
            "complete" => {
                model.turns.push(done(1, "rename the field without touching the JSON", CODE));
                model.composer.buffer = draft("/m");
                model.composer.completion = Some(Completion {
                    items: vec![
                        ("/model ".to_owned(), "choose the model of the next turn".to_owned()),
                        ("/theme ".to_owned(), "choose a theme".to_owned()),
                    ],
                    selected: 0,
                });
            }
            "long" => {
                for n in 1..4 {
                    model.turns.push(done(n, "what changes?\nreally?", TABLE));
                }
                model.scroll = Scroll::Anchored { turn: 1, row: 2, cols, seen_rows: 60 };
                model.composer.buffer = draft(&"many words in a draft that is long ".repeat(12));
            }
            "phases" => {
                let phases = [
                    Phase::Sending,
                    Phase::Queued { ahead: 2 },
                    Phase::Loading { fraction: 0.42 },
                    Phase::Prefilling { done: 1200, total: 3400, cached: 200 },
                    Phase::Streaming(Channel::Thinking),
                    Phase::Stopped,
                ];
                for (n, phase) in (1_u32..).zip(phases) {
                    let mut attempt = attempt(n, "", phase);
                    if n == 5 {
                        attempt.thinking.push("Let me think.\n\n- one\n- two");
                        attempt.thinking_open = true;
                        attempt.metrics.first_token_ms = Some(100.0);
                    }
                    model.turns.push(turn(n, "hello", attempt));
                }
            }
            _ => {}
        }
        println!("{}", dump(&model));
    }
}
