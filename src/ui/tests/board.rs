//! The residency board.

use super::fixture::{dump_in, residency};
use super::*;
use crate::app::model::Board;
use crate::chat::{ModelCard, ModelState, Residency};
use crate::theme::Charset;
use pretty_assertions::assert_eq;

/// A model with the board over it, and the board changed.
fn with(cols: u16, rows: u16, change: impl FnOnce(&mut Board)) -> Model {
    let mut model = empty(cols, rows);
    model.turns.push(done(1, "rename the field without touching the JSON", CODE));
    let mut board = residency(&mut model);
    change(&mut board);
    model.overlays.push(Overlay::Board(board));
    model
}

fn select(id: &'static str) -> impl Fn(&mut Board) {
    move |board| board.selected = Some(("local".to_owned(), id.to_owned()))
}

fn page(model: &Model) -> Vec<String> {
    (0..model.size.1).map(|y| text(model, y)).collect()
}

fn has(model: &Model, part: &str) {
    let page = page(model);
    assert!(page.iter().any(|row| row.contains(part)), "{part:?} in\n{}", page.join("\n"));
}

#[test]
fn everything_in_it() {
    screens("board", |cols, rows| with(cols, rows, |_| {}));
}

#[test]
fn a_question_in_it() {
    screens("board_asks", |cols, rows| {
        with(cols, rows, |board| {
            select("qwen2.5-32b")(board);
            let question =
                "to load qwen2.5-32b, qwen2.5-coder-7b-instruct would have to go; enter again does it";
            board.said = Some((Level::Warn, shown(question)));
            board.asked = Some(crate::command::Command::Load);
        })
    });
}

#[test]
fn on_a_light_background() {
    let light = crate::theme::Theme::load("light", None).expect("built in").0;
    screen("board_light_80x24", &dump_in(&with(80, 24, |_| {}), &light));
}

#[test]
fn without_unicode() {
    let mut ascii = theme();
    ascii.charset = Charset::Ascii;
    for (cols, rows) in SIZES {
        let (buffer, _) = frame(&with(cols, rows, |_| {}), &ascii, &mut ViewCache::default());
        let foreign: Vec<&str> =
            buffer.content.iter().map(ratatui::buffer::Cell::symbol).filter(|s| !s.is_ascii()).collect();
        assert_eq!(foreign, Vec::<&str>::new(), "{cols}x{rows}");
    }
}

#[test]
fn a_server_that_tells_little_gets_no_made_up_numbers() {
    let mut model = empty(100, 30);
    let backend = &mut model.fleet.backends[0];
    let bare = |id: &str, state| ModelCard {
        id: id.to_owned(),
        state,
        parameters: None,
        bytes: None,
        quantisation: None,
        context: None,
        is_builtin: false,
        ..ModelCard::default()
    };
    backend.models = vec![bare("one", ModelState::Loaded), bare("two", ModelState::Unloaded)];
    model.prefs.pin.model = Some("two".to_owned());
    model.overlays.push(Overlay::Board(Board::default()));
    let page = page(&model);
    let rows: Vec<&str> = page
        .iter()
        .filter(|row| row.contains(" ● one") || row.contains("→○ two"))
        .map(|row| row.trim_matches(['│', ' ']))
        .collect();
    assert_eq!(rows, ["● one", "→○ two"]);
    assert!(!page.iter().any(|row| row.contains("0 ") && row.contains('B')), "{}", page.join("\n"));
    has(&model, "in memory");
}

#[test]
fn the_marked_row_in_words() {
    let on = |id| with(120, 40, select(id));
    has(&on("qwen2.5-coder-7b-instruct"), "in memory on CUDA0 and CPU: weights 4.4 GiB, KV cache 1.8 GiB");
    has(&on("qwen2.5-coder-7b-instruct"), "4 answers at once · decode 131 tok/s · prefill 4800 tok/s");
    has(&on("mistral-small-24b"), "│ being loaded, 6.0 of 14.3 GiB read; u gives it up");
    has(&on("phi-4"), "│ could not be loaded: cut off at byte 312 · get it again");
    has(&on("llama3.3-70b"), "does not fit: needs 44.4 GiB, the whole budget is 22.8 GiB");
    has(&on("gone"), "│ in memory on CUDA0 and CPU");
}

#[test]
fn the_keys_are_those_of_the_marked_row() {
    let on = |id| with(120, 40, select(id));
    has(&on("nomic-embed"), "enter use · u unload · p unpin · a keep · / find · ? help · esc close");
    has(&on("mistral-small-24b"), "u give up · p pin · / find · ? help · esc close");
    has(&on("phi-4"), "enter load · p pin · t use · / find · ? help · esc close");
    has(&with(40, 12, select("phi-4")), "enter load · p pin · esc close");
    has(&with(80, 24, |board| board.is_filtering = true), "enter done · esc all");
}

#[test]
fn what_makes_embeddings_says_so_and_is_not_for_use() {
    let on = |id: &'static str| {
        let mut model = with(120, 40, select(id));
        model.fleet.backends[0].embedders = vec!["nomic-embed".to_owned(), "llama3.1-8b".to_owned()];
        model
    };
    has(&on("nomic-embed"), "embeddings · pinned");
    has(&on("nomic-embed"), "── u unload · p unpin");
    has(&on("llama3.1-8b"), "○ llama3.1-8b");
    has(&on("llama3.1-8b"), "embeddings · fits");
    has(&on("llama3.1-8b"), "── enter load · p pin · / find");
}

#[test]
fn two_machines_are_told_apart() {
    let mut model = with(120, 40, |_| {});
    let mac = BackendView {
        name: "mac".to_owned(),
        trouble: Some(shown("mac can't be reached")),
        ..BackendView::default()
    };
    model.fleet.backends.push(mac);
    has(&model, "mac    ✕ mac can't be reached");
    has(&model, "● qwen2.5-coder-7b-instruct  local");
    model.fleet.backends[1].trouble = None;
    model.fleet.backends[1].models = model.fleet.backends[0].models.clone();
    model.fleet.backends[1].residency = vec![Residency {
        id: "llama3.1-8b".to_owned(),
        decode_tokens_per_s: Some(14.2),
        ..Residency::default()
    }];
    has(&model, "14.2/s");
    has(&model, "llama3.1-8b                mac");
}

#[test]
fn the_marked_row_is_in_sight_at_any_size() {
    for cols in (20..130).step_by(13) {
        for rows in (5..40).step_by(2) {
            for id in ["qwen2.5-coder-7b-instruct", "llama3.1-8b", "phi-4"] {
                let model = with(cols, rows, select(id));
                let page = page(&model);
                let start: String = id.chars().take(5).collect();
                assert!(
                    rows < 9 || page.iter().any(|row| row.contains(&format!(" {start}"))),
                    "{cols}x{rows} {id}\n{}",
                    page.join("\n")
                );
            }
        }
    }
}
