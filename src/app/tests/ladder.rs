//! Ctrl+C, Esc and Ctrl+D.

use super::*;
use crate::app::model::{Composer, Overlay};
use crate::app::turn::Phase;
use crate::text::EditBuffer;
use pretty_assertions::assert_eq;

#[test]
fn ctrl_c_closes_then_stops_then_clears_then_asks_then_quits() {
    let mut app = App::new();
    app.enter("one");
    app.event(1, delta("text"));
    app.typed("draft");
    app.model.overlays.push(Overlay::Help { top: 0 });

    let mut expected = app.model.clone();
    expected.overlays.clear();
    assert_eq!((app.press("ctrl+c"), &app.model), (vec![], &expected), "the overlay first");

    let effects = app.press("ctrl+c");
    assert_eq!(
        effects,
        [
            Effect::Cancel(key(1, 1)),
            close(
                key(1, 1),
                Outcome::Stopped,
                Metrics {
                    first_token_ms: Some(0.0),
                    first_answer_ms: Some(0.0),
                    last_token_ms: Some(0.0),
                    total_ms: Some(0.0),
                    ..Metrics::default()
                }
            ),
        ]
    );
    assert_eq!((app.phase(), app.draft()), (&Phase::Stopped, "draft"), "then the turn, not the draft");

    let mut expected = app.model.clone();
    expected.composer =
        Composer { history: vec!["one".to_owned(), "draft".to_owned()], ..Composer::default() };
    expected.notice = info("draft cleared: ctrl+p brings it back", 6000);
    let effects = vec![remember("draft", 0), timer(TimerId::Notice, 6000)];
    assert_eq!((app.press("ctrl+c"), &app.model), (effects, &expected), "then the draft, into the history");

    let mut expected = app.model.clone();
    expected.quit_armed = Some(Duration::from_secs(2));
    expected.notice = Some(Notice {
        text: shown_line("ctrl+c again to quit", 400),
        level: Level::Warn,
        until: Some(Duration::from_secs(2)),
    });
    let effects = vec![timer(TimerId::QuitArmed, 2000)];
    assert_eq!((app.press("ctrl+c"), &app.model), (effects, &expected), "then it asks");

    assert_eq!(app.wait(2000).press("ctrl+c"), [Effect::Quit { code: 0 }], "then it quits");
}

#[test]
fn quitting_must_be_confirmed_in_time_and_at_once() {
    let mut app = App::new();
    app.press("ctrl+c");
    app.wait(2001);
    assert_eq!(app.press("ctrl+c"), [timer(TimerId::QuitArmed, 2000)], "too late: asks again");

    app.press("x backspace");
    assert_eq!(app.model.quit_armed, None);
    assert_eq!(app.press("ctrl+c"), [timer(TimerId::QuitArmed, 2000)], "another key came between");

    app.wait(2000);
    assert_eq!(app.msg(Msg::Timer(TimerId::QuitArmed)), []);
    assert_eq!((app.model.quit_armed, &app.model.notice), (None, &None));
}

#[test]
fn esc_closes_then_stops_and_never_touches_the_draft() {
    let mut app = App::new();
    app.enter("one");
    app.event(1, delta("text"));
    app.typed("/");
    assert!(app.model.composer.completion.is_some());
    assert_eq!(app.press("esc"), []);
    assert_eq!(app.model.composer.completion, None);
    assert_eq!(app.press("esc").first(), Some(&Effect::Cancel(key(1, 1))));
    let before = app.model.clone();
    assert_eq!((app.press("esc"), &app.model), (vec![], &before));
    assert_eq!(app.draft(), "/");
}

#[test]
fn stopped_before_the_first_token_a_turn_leaves_no_trace() {
    for stop in ["ctrl+c", "esc"] {
        let mut app = App::new();
        app.turn("zero", "nothing");
        let before = app.model.clone();
        app.enter("one\ntwo");
        app.event(2, GenEvent::Accepted);
        app.event(2, GenEvent::Prefill { done: 1, total: 2, cached: 0 });
        let effects = vec![
            Effect::Cancel(key(2, 1)),
            Effect::Store(StoreJob::DropTurn { session: session(), turn: TurnId(2) }),
        ];
        assert_eq!(app.press(stop), effects);
        let mut expected = before;
        expected.composer.buffer = EditBuffer::from_text("one\ntwo");
        expected.composer.history.push("one\ntwo".to_owned());
        expected.pending.last_turn = 2;
        assert_eq!(app.model, expected);

        let stopped = app.model.clone();
        assert_eq!((app.event(2, delta("late")), app.event(2, done())), (vec![], vec![]));
        assert_eq!(app.model, stopped, "late events find nothing");
        assert_eq!(
            messages(&app.press("enter")),
            [user("zero"), assistant("nothing"), user("one\ntwo")],
            "it is not in the context"
        );
        assert_eq!(app.model.turns[1].id, TurnId(3), "and its number is not used again");
    }
}

#[test]
fn the_first_turn_taken_back_names_nothing() {
    let mut app = App::new();
    app.enter("secret");
    app.press("esc");
    assert!(!app.model.session.is_opened);
    assert_eq!(&*app.model.session.title, "");
    app.press("ctrl+u");
    assert_eq!(app.enter("hello")[0], open_session("hello"));
}

#[test]
fn taken_back_over_a_draft_the_message_is_in_the_history() {
    let mut app = App::new();
    app.enter("one");
    app.typed("draft");
    app.press("esc");
    assert_eq!((app.draft(), app.model.turns.len()), ("draft", 0));
    assert_eq!(app.notice(), "taken back: ctrl+p brings the message back");
    app.press("ctrl+p");
    assert_eq!(app.draft(), "one");
    app.press("ctrl+n");
    assert_eq!(app.draft(), "draft");
}

#[test]
fn a_message_that_looks_like_a_command_comes_back_protected() {
    let mut app = App::new();
    app.enter("//model is a word");
    assert_eq!(app.model.turns[0].user, "/model is a word");
    app.press("esc");
    assert_eq!(app.draft(), "//model is a word");
}

#[test]
fn stopped_while_it_thinks_a_turn_stays() {
    let mut app = App::new();
    app.enter("one");
    app.event(1, thinking("hm"));
    app.press("esc");
    assert_eq!((app.phase(), app.draft()), (&Phase::Stopped, ""));
    assert_eq!(messages(&app.enter("two")), [user("two")], "but there is no answer to count as context");
}

#[test]
fn ctrl_d_deletes_or_leaves() {
    let mut app = App::new();
    app.typed("ab");
    app.press("ctrl+a ctrl+d");
    assert_eq!(app.draft(), "b");
    assert_eq!(app.press("ctrl+d ctrl+d"), [Effect::Quit { code: 0 }]);
}

#[test]
fn leaving_a_running_turn_asks_once() {
    for leave in ["ctrl+d", "/ q u i t enter"] {
        let mut app = App::new();
        app.enter("one");
        app.event(1, delta("text"));
        assert_eq!(app.press(leave), []);
        assert!(app.notice().starts_with("a turn is running:"), "{}", app.notice());
        assert_eq!(app.model.turns.len(), 1);
        let effects = app.press(leave);
        let closed = close(
            key(1, 1),
            Outcome::Interrupted { error: "program ended".to_owned() },
            app.attempt().metrics,
        );
        assert_eq!(effects, [Effect::Cancel(key(1, 1)), closed, Effect::Quit { code: 0 }]);
        assert_eq!(app.attempt().answer.raw(), "text");
    }
}

#[test]
fn told_to_end_it_keeps_what_was_typed() {
    let mut app = App::new();
    app.enter("one");
    app.typed("draft");
    let effects = app.msg(Msg::Terminate);
    assert_eq!(effects[0], Effect::Cancel(key(1, 1)));
    assert_eq!(effects[2..], [remember("draft", 0), Effect::Quit { code: 0 }]);
}

#[test]
fn redraw_and_suspend() {
    let mut app = App::new();
    let before = app.model.clone();
    assert_eq!(app.press("ctrl+l ctrl+z"), [Effect::Redraw, Effect::Suspend]);
    app.press("f2");
    assert_eq!(app.press("ctrl+l"), [Effect::Redraw], "also over a list");
    app.press("esc");
    app.model.wall_ms = before.wall_ms;
    assert_eq!(app.model, before);
}
