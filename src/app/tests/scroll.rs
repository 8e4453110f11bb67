//! The view moves when told to, and not otherwise.

use super::*;
use crate::app::model::Scroll;
use pretty_assertions::assert_eq;

fn long() -> App {
    let mut app = App::new();
    app.turn("one", "1");
    app.turn("two", "2");
    app.frame.total_rows = 100;
    app.frame.top_row = 80;
    app.frame.turn_rows = vec![0, 70];
    app
}

fn anchored(turn: usize, row: usize) -> Scroll {
    Scroll::Anchored { turn, row, seen_rows: 100 }
}

#[test]
fn pages_rows_and_ends() {
    let mut app = long();
    app.press("pageup");
    assert_eq!(app.model.scroll, anchored(0, 62));
    app.frame.top_row = 62;
    app.press("alt+up");
    assert_eq!(app.model.scroll, anchored(0, 61));
    app.press("alt+down");
    assert_eq!(app.model.scroll, anchored(0, 63));
    app.frame.top_row = 60;
    app.press("pagedown");
    assert_eq!(app.model.scroll, anchored(1, 8));
    app.frame.top_row = 78;
    app.press("pagedown");
    assert_eq!(app.model.scroll, Scroll::Follow, "at the end it follows again");
    app.press("home");
    assert_eq!(app.model.scroll, anchored(0, 0));
    app.press("end");
    assert_eq!(app.model.scroll, Scroll::Follow);
    app.press("x home end");
    assert_eq!(app.model.scroll, Scroll::Follow, "home and end belong to a draft");
    app.press("ctrl+home");
    assert_eq!(app.model.scroll, anchored(0, 0));
    app.press("ctrl+end");
    assert_eq!(app.model.scroll, Scroll::Follow);
}

#[test]
fn text_does_not_move_it_and_what_is_new_is_counted_from_where_it_left() {
    let mut app = long();
    app.enter("three");
    app.press("pageup");
    let held = app.model.scroll.clone();
    app.event(3, delta("much\nmore\ntext"));
    app.event(3, done());
    assert_eq!(app.model.scroll, held);
    app.frame.total_rows = 120;
    app.frame.top_row = 62;
    app.press("pageup");
    assert_eq!(app.model.scroll, anchored(0, 44), "seen_rows stays");
    app.enter("four");
    assert_eq!(app.model.scroll, Scroll::Follow, "asking goes to the end");
}

#[test]
fn a_short_transcript_does_not_scroll() {
    let mut app = long();
    app.frame = FrameFacts { total_rows: 5, viewport_rows: 20, ..FrameFacts::default() };
    app.press("pageup home alt+up");
    assert_eq!(app.model.scroll, Scroll::Follow);
    app.msg(Msg::Resize { cols: 40, rows: 12 });
    assert_eq!(app.model.size, (40, 12));
}
