//! Messages sent while a turn runs.

use super::*;
use crate::app::model::QueueFlow;
use pretty_assertions::assert_eq;

fn busy() -> App {
    let mut app = App::new();
    app.enter("one");
    app.event(1, delta("1"));
    app.enter("two");
    app.enter("three");
    app
}

#[test]
fn enter_queues_and_the_end_sends() {
    let mut app = App::new();
    app.enter("one");
    app.event(1, delta("1"));
    app.typed("two");
    let mut expected = app.model.clone();
    expected.queue = vec!["two".to_owned()];
    expected.composer = crate::app::model::Composer {
        history: vec!["one".to_owned(), "two".to_owned()],
        ..Default::default()
    };
    assert_eq!((app.press("enter"), &app.model), (vec![remember("two", 0)], &expected));

    let effects = app.wait(10).event(1, done());
    let mut sent = asked(2, "two", vec![user("one"), assistant("1"), user("two")], 10);
    sent.retain(|effect| !matches!(effect, Effect::Store(StoreJob::RememberInput { .. })));
    assert_eq!(effects[1..], sent);
    assert_eq!(app.model.queue, Vec::<String>::new());
}

#[test]
fn up_on_an_empty_draft_takes_the_last_one_back() {
    let mut app = busy();
    app.press("up");
    assert_eq!((app.draft(), app.model.queue.as_slice()), ("three", &["two".to_owned()][..]));
    app.press("ctrl+u up");
    assert_eq!((app.draft(), app.model.queue.as_slice()), ("two", &[][..]));
    app.press("ctrl+u up");
    assert_eq!(app.draft(), "three", "then the history");
}

#[test]
fn a_stop_pauses_the_queue_and_enter_resumes_it() {
    for end in ["esc", "fail"] {
        let mut app = busy();
        match end {
            "esc" => drop(app.press("esc")),
            _ => drop(app.event(1, failed("gone"))),
        }
        assert_eq!((app.model.pending.queue, app.model.queue.len()), (QueueFlow::Paused, 2));
        assert!(app.notice().ends_with("2 queued: enter on an empty draft sends the next one"));
        assert_eq!(app.model.turns.len(), 1, "nothing is sent by itself");

        let effects = app.press("enter");
        assert!(effects.iter().any(|effect| matches!(effect, Effect::Generate { .. })));
        assert_eq!((app.model.turns[1].user.as_str(), app.model.queue.len()), ("two", 1));
        app.event(2, delta("2"));
        app.event(2, done());
        assert_eq!(app.model.turns[2].user, "three", "and it flows again");
        app.event(3, delta("3"));
        app.event(3, done());
        assert_eq!(app.press("enter"), [], "nothing left");
    }
}

#[test]
fn a_queued_message_that_cannot_go_stays_queued() {
    let mut app = busy();
    app.model.prefs.pin.backend = Some("nowhere".to_owned());
    app.event(1, done());
    assert_eq!((app.model.queue.len(), app.model.pending.queue), (2, QueueFlow::Paused));
    assert_eq!(app.notice(), "no backend `nowhere`; there is local");
}

#[test]
fn a_queue_taken_back_whole_flows_again() {
    let mut app = busy();
    app.press("esc up ctrl+u up ctrl+u");
    assert_eq!((app.model.pending.queue, app.model.queue.len()), (QueueFlow::Flowing, 0));
}
