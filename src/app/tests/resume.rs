//! Saved sessions back as turns.

use super::*;
use crate::app::turn::Phase;
use crate::chat::record::TurnRecord;
use pretty_assertions::assert_eq;

fn saved(turn: u32, attempt: u32, outcome: Outcome, answer: &str) -> AttemptRecord {
    AttemptRecord {
        key: key(turn, attempt),
        backend: "mac".to_owned(),
        model: "large".to_owned(),
        quantisation: Some("q8_0".to_owned()),
        rule: "pinned".to_owned(),
        reason: "chosen by you".to_owned(),
        decision: String::new(),
        answer: answer.to_owned(),
        thinking: "hm".to_owned(),
        outcome,
        metrics: Metrics { total_ms: Some(5.0), ..Metrics::default() },
    }
}

fn records() -> (SessionRecord, Vec<TurnRecord>) {
    let record = SessionRecord {
        id: SessionId("old".to_owned()),
        created_ms: 1,
        title: "A title".to_owned(),
        system: Some("Be old.".to_owned()),
    };
    let turn = |id, user: &str, attempts| TurnRecord {
        id: TurnId(id),
        user: user.to_owned(),
        created_ms: 2,
        attempts,
        kept: None,
        fence: None,
    };
    let turns = vec![
        turn(1, "one", vec![saved(1, 1, Outcome::Stop, "1")]),
        turn(
            3,
            "two",
            vec![
                saved(3, 1, Outcome::Length, "2"),
                AttemptRecord { thinking: String::new(), ..saved(3, 2, Outcome::Stopped, "") },
            ],
        ),
        turn(4, "three", vec![saved(4, 1, Outcome::Open, "half")]),
        turn(5, "four", vec![]),
    ];
    (record, turns)
}

#[test]
fn a_session_comes_back_as_it_was() {
    let app = App::with(|args| {
        args.system = Some("ignored".to_owned());
        args.restored = Some(records());
    });
    let session = &app.model.session;
    assert_eq!(
        (session.id.as_str(), &*session.title, session.system.as_deref()),
        ("old", "A title", Some("Be old."))
    );
    assert!(session.is_opened);
    let current = |turn: usize| app.model.turns[turn].lanes[0].current().expect("an attempt");
    assert_eq!(current(0).phase, Phase::Done(Finish::Stop));
    assert_eq!((current(0).answer.raw(), current(0).thinking.raw()), ("1", "hm"));
    assert_eq!((current(0).decision.backend.as_str(), current(0).metrics.total_ms), ("mac", Some(5.0)));
    assert_eq!((current(1).key, &current(1).phase), (key(3, 1), &Phase::Done(Finish::Length)));
    let Phase::Interrupted(error) = &current(2).phase else { panic!("{:?}", current(2).phase) };
    assert_eq!(error.message, "the program ended while it was answering");
    assert_eq!(current(2).answer.raw(), "half");
    let Phase::Interrupted(error) = &current(3).phase else { panic!("{:?}", current(3).phase) };
    assert_eq!(error.message, "the program ended before it was sent");
}

#[test]
fn it_goes_on_where_it_was() {
    let mut app = App::with(|args| args.restored = Some(records()));
    let effects = app.press("r");
    let context = vec![
        Message::new(Role::System, "Be old."),
        user("one"),
        assistant("1"),
        user("two"),
        assistant("2"),
        user("four"),
    ];
    assert_eq!(messages(&effects), context);
    assert_eq!(app.attempt().key, key(5, 1), "the one that was never sent");
    app.event_for(key(5, 1), delta("4"));
    app.event_for(key(5, 1), done());
    app.enter("five");
    assert_eq!(app.model.turns[4].id, TurnId(6));
}

fn with_mac(args: &mut NewModel) {
    let mac = BackendView { name: "mac".to_owned(), is_engine: false, ..args.backends[0].clone() };
    args.backends.push(BackendView { default_model: None, models: Vec::new(), ..mac });
}

/// Where the last attempt went and why.
fn went(app: &App) -> [&str; 4] {
    let decision = &app.attempt().decision;
    [&decision.backend, &decision.model, &decision.rule, &decision.reason]
}

#[test]
fn its_backend_and_model_come_back_with_it() {
    let mut app = App::with(|args| {
        with_mac(args);
        args.restored = Some(records());
    });
    app.enter("five");
    assert_eq!(went(&app), ["mac", "large", "session", "as before"]);
    app.press("esc ctrl+u");

    app.enter("/new");
    app.enter("other");
    assert_eq!(went(&app), ["local", "tiny", "default", "nothing else was chosen"], "a new one begins anew");

    app.event(1, done());
    app.msg(Msg::SessionLoaded { result: Ok(records()) });
    app.enter("six");
    assert_eq!(went(&app), ["mac", "large", "session", "as before"]);
    app.press("esc ctrl+u");
    app.enter("/model local/big");
    app.enter("seven");
    assert_eq!(went(&app), ["local", "big", "pinned", "chosen by you"]);

    let mut app = App::with(|args| args.restored = Some(records()));
    app.enter("five");
    assert_eq!(
        went(&app),
        ["local", "tiny", "default", "nothing else was chosen"],
        "there is no mac any more"
    );
}

#[test]
fn one_session_is_left_for_another() {
    let mut app = App::new();
    app.turn("hello", "good");
    assert_eq!(app.enter("/sessions"), [Effect::ListSessions]);
    let mut mine = records().0;
    mine.id = session();
    app.msg(Msg::Sessions { result: Ok(vec![mine, records().0]) });
    assert_eq!(app.press("enter"), [Effect::LoadSession { id: SessionId("old".to_owned()) }], "not itself");
    assert_eq!(app.msg(Msg::SessionLoaded { result: Ok(records()) }), [timer(TimerId::Notice, 6000)]);
    assert_eq!(app.model.session.id.as_str(), "old");
    assert_eq!(app.model.turns.len(), 4);
    assert_eq!(app.notice(), "session A title; the one before: tui --resume 00000001-00000002");
}

#[test]
fn sessions_that_cannot_be_read_change_nothing() {
    let mut app = App::new();
    app.press("ctrl+x s");
    app.msg(Msg::Sessions { result: Err("locked".to_owned()) });
    assert_eq!((app.notice(), app.model.overlays.len()), ("locked", 0));
    app.press("ctrl+x s");
    app.msg(Msg::Sessions { result: Ok(Vec::new()) });
    assert_eq!((app.notice(), app.model.overlays.len()), ("no other saved session", 0));
    app.enter("hello");
    let before = app.model.turns.clone();
    app.msg(Msg::SessionLoaded { result: Ok(records()) });
    assert_eq!(app.notice(), "the session was not opened: a turn is running");
    app.msg(Msg::SessionLoaded { result: Err("gone".to_owned()) });
    assert_eq!((app.notice(), &app.model.turns), ("gone", &before));
}

#[test]
fn what_was_answered_is_sent_with_the_next_question() {
    let failed = Outcome::Interrupted { error: "x".to_owned() };
    let turn = |id: u32, user: &str, attempts: Vec<AttemptRecord>| TurnRecord {
        id: TurnId(id),
        user: user.to_owned(),
        created_ms: 0,
        attempts,
        kept: None,
        fence: None,
    };
    let turns = [
        turn(1, "a", vec![saved(1, 1, failed.clone(), "half"), saved(1, 2, Outcome::Stop, "A")]),
        turn(2, "b", vec![saved(2, 1, Outcome::Stopped, "B")]),
        turn(3, "c", vec![saved(3, 1, failed, "C")]),
        turn(4, "d", vec![saved(4, 1, Outcome::Open, "D")]),
        turn(5, "e", vec![saved(5, 1, Outcome::Stop, "")]),
        turn(6, "f", vec![]),
        turn(7, "g", vec![saved(7, 1, Outcome::Length, "G")]),
    ];
    let sent = crate::app::asked_after(Some("S"), &turns, "now");
    let sent: Vec<&str> = sent.iter().map(|message| message.content.as_str()).collect();
    assert_eq!(sent, ["S", "a", "A", "b", "B", "g", "G", "now"]);
    assert_eq!(crate::app::asked_after(None, &[], "now").len(), 1);
}
