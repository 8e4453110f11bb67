//! Asking, answers, receipts, retrying, late events.

use super::*;
use crate::app::turn::Phase;
use crate::chat::{Note, ServerTimings, Usage};
use pretty_assertions::assert_eq;

#[test]
fn the_first_question_opens_everything_in_order() {
    let mut app = App::with(|args| args.system = Some("Be kind.".to_owned()));
    let effects = app.enter("What is\nthe capital?");
    let request = vec![Message::new(Role::System, "Be kind."), user("What is\nthe capital?")];
    let mut expected = vec![Effect::Store(StoreJob::OpenSession(SessionRecord {
        id: session(),
        created_ms: WALL_MS,
        title: "What is".to_owned(),
        system: Some("Be kind.".to_owned()),
    }))];
    expected.extend(asked(1, "What is\nthe capital?", request, 0));
    assert_eq!(effects, expected);
    assert!(app.model.session.is_opened);
    assert_eq!((app.phase(), app.draft()), (&Phase::Sending, ""));
    assert_eq!(app.model.composer.history, ["What is\nthe capital?"]);
}

#[test]
fn what_is_not_as_it_was_asked_for_is_said_and_the_answer_goes_on() {
    let mut app = App::new();
    app.enter("hello");
    app.event(1, GenEvent::Accepted);
    let note = Note::OtherModel { asked: "large".to_owned(), answers: "small\u{1b}[2J".to_owned() };
    app.event(1, GenEvent::Note(note));
    assert_eq!(app.model.notice, warn("small\u{1b}[2J answers, not large"));
    app.event(1, delta("Hi"));
    app.event(1, done());
    assert!(matches!(app.phase(), Phase::Done(_)));
}

#[test]
fn an_answer_from_first_token_to_receipt() {
    let mut app = App::new();
    app.wait(1000).enter("hello");
    let at = |app: &App| app.now;
    app.wait(2);
    let sent = at(&app);
    assert_eq!(app.msg(Msg::Sent { key: key(1, 1), at: sent }), []);
    app.wait(4).event(1, GenEvent::Accepted);
    assert_eq!(app.phase(), &Phase::Sending);
    app.event(1, GenEvent::Queued { ahead: 2 });
    assert_eq!(app.phase(), &Phase::Queued { ahead: 2 });
    app.event(1, GenEvent::Loading { fraction: 0.5 });
    assert_eq!(app.phase(), &Phase::Loading { fraction: 0.5 });
    app.event(1, GenEvent::Prefill { done: 5, total: 9, cached: 3 });
    assert_eq!(app.phase(), &Phase::Prefilling { done: 5, total: 9, cached: 3 });
    assert_eq!(app.wait(10).event(1, thinking("hm")), [append(key(1, 1), Channel::Thinking, "hm")]);
    assert_eq!(app.phase(), &Phase::Streaming(Channel::Thinking));
    assert_eq!(app.wait(10).event(1, delta("Hi")), [append(key(1, 1), Channel::Answer, "Hi")]);
    app.event(1, GenEvent::Prefill { done: 9, total: 9, cached: 3 });
    assert_eq!(app.phase(), &Phase::Streaming(Channel::Answer), "progress after text is old news");
    let painted = at(&app) + Duration::from_millis(1);
    app.msg(Msg::Painted { key: key(1, 1), at: painted });
    app.msg(Msg::Painted { key: key(1, 1), at: painted * 2 });
    app.wait(20).event(1, delta(" there"));
    let usage = Usage { prompt_tokens: Some(9), cached_tokens: Some(3), output_tokens: Some(4) };
    assert_eq!(app.event(1, GenEvent::Usage(usage)), []);
    let timings = ServerTimings { prompt_n: Some(6), ..ServerTimings::default() };
    let effects = app.wait(1).event(1, GenEvent::Done { finish: Finish::Length, timings: Some(timings) });
    let metrics = Metrics {
        sent_ms: Some(2.0),
        headers_ms: Some(6.0),
        first_token_ms: Some(16.0),
        first_answer_ms: Some(26.0),
        last_token_ms: Some(46.0),
        painted_ms: Some(27.0),
        total_ms: Some(47.0),
        usage,
        server: Some(timings),
    };
    let [closed, Effect::Store(StoreJob::LogOutcome(outcome))] = effects.as_slice() else {
        panic!("{effects:?}");
    };
    assert_eq!(*closed, close(key(1, 1), Outcome::Length, metrics));
    assert_eq!(
        (outcome.output_tokens, outcome.first_ms, outcome.total_ms),
        (Some(4), Some(16.0), Some(47.0))
    );
    let attempt = app.attempt();
    assert_eq!(attempt.phase, Phase::Done(Finish::Length));
    assert_eq!((attempt.answer.raw(), attempt.thinking.raw()), ("Hi there", "hm"));
    assert_eq!(attempt.metrics, metrics);
}

#[test]
fn an_event_counts_from_when_it_arrived() {
    let mut app = App::new();
    app.enter("hello");
    app.wait(500);
    app.msg(Msg::Gen { key: key(1, 1), event: delta("x"), at: Duration::from_millis(100) });
    assert_eq!(app.attempt().metrics.first_token_ms, Some(100.0));
}

#[test]
fn nothing_changes_after_the_end_but_the_painted_frame() {
    let ends: [fn(&mut App); 3] = [
        |app| drop(app.event(1, done())),
        |app| drop(app.event(1, failed("gone"))),
        |app| drop(app.press("esc")),
    ];
    for end in ends {
        let mut app = App::new();
        app.enter("hello");
        app.event(1, delta("text"));
        end(&mut app);
        let before = app.model.clone();
        let now = app.now;
        for event in [
            GenEvent::Accepted,
            GenEvent::Loading { fraction: 0.1 },
            delta("late"),
            GenEvent::Usage(Usage { output_tokens: Some(1), ..Usage::default() }),
            done(),
            failed("again"),
        ] {
            assert_eq!(app.event(1, event), []);
        }
        assert_eq!(app.msg(Msg::Sent { key: key(1, 1), at: now }), []);
        assert_eq!(app.model, before);
        app.msg(Msg::Painted { key: key(1, 1), at: Duration::from_millis(3) });
        assert_eq!(app.attempt().metrics.painted_ms, Some(3.0));
    }
}

#[test]
fn events_of_others_change_nothing() {
    let mut app = App::new();
    app.enter("hello");
    let before = app.model.clone();
    for other in [key(1, 2), key(2, 1), GenKey { lane: LaneId(1), ..key(1, 1) }] {
        assert_eq!(app.event_for(other, delta("x")), []);
        assert_eq!(app.msg(Msg::Painted { key: other, at: Duration::ZERO }), []);
    }
    assert_eq!(app.model, before);
}

#[test]
fn a_failure_keeps_the_text_and_one_key_retries() {
    let mut app = App::new();
    app.enter("hello");
    app.event(1, delta("par"));
    let effects = app.event(1, failed("engine ended.\nTry again."));
    assert_eq!(
        effects,
        [close(
            key(1, 1),
            Outcome::Interrupted { error: "engine ended. · Try again.".to_owned() },
            app.attempt().metrics
        )]
    );
    assert_eq!(app.phase(), &Phase::Interrupted(error("engine ended.\nTry again.")));
    assert_eq!(app.attempt().answer.raw(), "par");

    let effects = app.wait(5).press("r");
    assert_eq!(
        effects,
        [
            open_attempt_by(key(1, 2), "session", "as before"),
            generate(key(1, 2), vec![user("hello")]),
            timer(TimerId::Tick, 200)
        ]
    );
    assert_eq!(app.model.turns[0].lanes[0].attempts.len(), 2);
    app.event_for(key(1, 1), delta("late"));
    app.event_for(key(1, 2), delta("whole"));
    app.event_for(key(1, 2), done());
    assert_eq!(app.model.turns[0].lanes[0].attempts[0].answer.raw(), "par");
    assert_eq!(messages(&app.enter("more")), [user("hello"), assistant("whole"), user("more")]);
}

#[test]
fn a_retry_stopped_at_once_gives_the_earlier_answer_back() {
    let mut app = App::new();
    app.turn("hello", "good");
    app.enter("/retry");
    assert_eq!(app.phase(), &Phase::Sending);
    let effects = app.press("esc");
    let metrics = Metrics { total_ms: Some(0.0), ..Metrics::default() };
    assert_eq!(effects, [Effect::Cancel(key(1, 2)), close(key(1, 2), Outcome::Stopped, metrics)]);
    assert_eq!((app.attempt().key, app.attempt().answer.raw()), (key(1, 1), "good"));
    assert_eq!(app.event_for(key(1, 2), delta("late")), []);
    app.enter("/retry");
    assert_eq!(app.attempt().key, key(1, 3), "a number is not used twice");
}

#[test]
fn r_is_a_letter_unless_there_is_something_to_retry() {
    let mut app = App::new();
    app.press("r");
    assert_eq!(app.draft(), "r");
    app.press("backspace");
    app.turn("hello", "good");
    app.press("r");
    assert_eq!(app.draft(), "r");
    app.press("backspace");
    app.enter("again");
    app.press("r");
    assert_eq!(app.draft(), "r", "not while it runs");
    app.press("backspace");
    app.event(2, delta("x"));
    app.press("esc x r");
    assert_eq!(app.draft(), "xr", "not in a draft");
    app.press("backspace backspace");
    assert_eq!(app.press("r").len(), 3);
}

#[test]
fn a_failed_turn_is_left_out_of_the_context_with_its_question() {
    let mut app = App::new();
    app.turn("one", "1");
    app.enter("two");
    app.event(2, delta("half"));
    app.event(2, failed("gone"));
    assert_eq!(messages(&app.enter("three")), [user("one"), assistant("1"), user("three")]);
    app.event(3, delta("so far"));
    app.press("esc");
    assert_eq!(
        messages(&app.enter("four")),
        [user("one"), assistant("1"), user("three"), assistant("so far"), user("four")],
        "a stopped answer counts"
    );
}

#[test]
fn the_prefix_of_a_conversation_never_changes() {
    let mut app = App::with(|args| args.system = Some("Be kind.".to_owned()));
    let mut before: Vec<Message> = Vec::new();
    for n in 1..=10 {
        let now = messages(&app.enter(&format!("question {n}")));
        assert_eq!(now[..before.len()], before[..]);
        assert_eq!(now.len(), before.len() + if n == 1 { 2 } else { 1 });
        app.event(n, thinking("secret"));
        app.event(n, delta("answer"));
        app.event(n, done());
        before = now;
        before.push(assistant("answer"));
    }
}

#[test]
fn a_question_without_a_target_stays_in_the_composer() {
    let mut app = App::with(|args| args.backends.clear());
    app.typed("hello");
    let before = app.model.clone();
    assert_eq!(app.press("enter"), []);
    let mut expected = before;
    expected.notice = bad("no backend: this build has no engine and none is configured");
    assert_eq!(app.model, expected);
}

#[test]
fn nothing_is_stored_when_nothing_is_saved() {
    let mut app = App::with(|args| args.saving = Saving::Off);
    let effects = app.enter("hello");
    let mut asked = generate(key(1, 1), vec![user("hello")]);
    if let Effect::Generate { request, .. } = &mut asked {
        // Nor may the engine keep anything of it on disk.
        request.session = None;
    }
    assert_eq!(effects, [asked, timer(TimerId::Tick, 200)]);
    assert_eq!(app.event(1, delta("x")), []);
    assert_eq!(app.event(1, done()), []);
}

#[test]
fn the_clock_ticks_while_an_attempt_runs() {
    let mut app = App::new();
    app.enter("hello");
    assert_eq!(app.msg(Msg::Timer(TimerId::Tick)), [timer(TimerId::Tick, 200)]);
    app.event(1, GenEvent::Loading { fraction: 0.2 });
    assert_eq!(app.msg(Msg::Timer(TimerId::Tick)), [timer(TimerId::Tick, 200)]);
    app.event(1, delta("x"));
    assert_eq!(app.msg(Msg::Timer(TimerId::Tick)), [timer(TimerId::Tick, 1000)], "a stall is to be seen");
    app.wait(9000).msg(Msg::Timer(TimerId::Tick));
    let attempt = app.attempt();
    assert_eq!((app.model.now - attempt.entered_at, attempt.metrics.last_token_ms), (app.now, Some(0.0)));
    app.event(1, done());
    for id in [TimerId::Tick, TimerId::Notice, TimerId::QuitArmed, TimerId::PasteTail] {
        assert_eq!(app.msg(Msg::Timer(id)), [], "nothing ticks when idle");
    }
}

#[test]
fn sampling_has_the_defaults_of_the_model() {
    let mut app = App::with(|args| {
        args.prefs.sampling.seed = Some(7);
        args.prefs.max_tokens = Some(50);
        args.prefs.pin.model = Some("big".to_owned());
    });
    let effects = app.enter("hello");
    let Some(Effect::Generate { request, .. }) = effects.iter().rev().nth(1) else { panic!("{effects:?}") };
    let expected = Sampling { seed: Some(7), ..Sampling::default_for(false) };
    assert_eq!((request.model.as_str(), request.sampling, request.max_tokens), ("big", expected, Some(50)));
}

/// Where the last attempt went and why.
fn went(app: &App) -> (&str, &str, &str) {
    let decision = &app.attempt().decision;
    (&decision.backend, &decision.model, &decision.rule)
}

#[test]
fn a_retry_goes_where_the_attempt_was_unless_the_person_chose_otherwise() {
    let mut app = App::with(|args| {
        let mac = BackendView { name: "mac".to_owned(), is_engine: false, ..args.backends[0].clone() };
        args.backends.push(BackendView { default_model: None, models: Vec::new(), ..mac });
        args.prefs.pin.backend = Some("mac".to_owned());
    });
    let models = |ids: &[&str]| Msg::Models {
        backend: "mac".to_owned(),
        result: Ok(ids.iter().map(|id| card(id, false)).collect::<Vec<_>>().into()),
    };
    app.msg(models(&["a"]));
    app.enter("hello");
    app.event(1, failed("gone"));
    app.msg(models(&["z", "a"]));
    app.press("r");
    assert_eq!(went(&app), ("mac", "a", "pinned"), "though mac answers with z by now");
    app.event_for(key(1, 2), failed("gone"));
    app.enter("/model local/big");
    app.press("r");
    assert_eq!(went(&app), ("local", "big", "pinned"));
    app.model.prefs.pin = Target::default();
    app.event_for(key(1, 3), failed("gone"));
    app.press("r");
    assert_eq!(went(&app), ("local", "big", "session"));
}

fn does_not_fit() -> GenEvent {
    let message = "the conversation takes 9001 tokens, tiny has room for 8192\nshorten the question";
    GenEvent::Failed(GenError::new(GenErrorKind::ContextFull, message))
}

#[test]
fn a_question_that_does_not_fit_comes_back_as_it_was() {
    let mut app = App::new();
    app.typed("see ").msg(Msg::Paste("line\n".repeat(300)));
    let draft = app.model.composer.buffer.clone();
    app.wait(100).press("enter");
    assert_eq!(app.draft(), "");
    let effects = app.event(1, does_not_fit());
    assert_eq!(effects, [Effect::Store(StoreJob::DropTurn { session: session(), turn: TurnId(1) })]);
    assert_eq!((app.model.turns.len(), app.model.composer.buffer.text()), (0, draft.text()));
    assert_eq!(app.model.composer.buffer.expanded(), draft.expanded());
    assert_eq!(
        app.model.notice,
        bad("the conversation takes 9001 tokens, tiny has room for 8192 · shorten the question")
    );
}

#[test]
fn one_that_does_not_fit_is_folded_or_stays_a_key_away() {
    let mut app = App::new();
    app.enter("one");
    let long = "x".repeat(1001);
    app.msg(Msg::Paste(long.clone()));
    app.wait(100).press("enter");
    app.event(1, delta("1"));
    app.event(1, done());
    app.event(2, does_not_fit());
    let buffer = &app.model.composer.buffer;
    assert_eq!((buffer.text(), buffer.expanded()), ("\u{F0000}", long), "it waited in the queue");

    let mut app = App::new();
    app.enter("hello");
    app.typed("next");
    app.event(1, does_not_fit());
    assert_eq!((app.draft(), app.model.turns.len()), ("next", 0));
    assert!(app.notice().ends_with("taken back: ctrl+p brings the message back"), "{}", app.notice());
}

#[test]
fn what_grew_out_of_the_context_is_kept() {
    let mut app = App::new();
    app.enter("hello");
    app.event(1, delta("text"));
    app.event(1, does_not_fit());
    assert!(matches!(app.phase(), Phase::Interrupted(error) if error.kind == GenErrorKind::ContextFull));
    app.press("r");
    app.event_for(key(1, 2), does_not_fit());
    assert_eq!((app.model.turns.len(), app.draft()), (1, ""), "an earlier attempt has text");
}

#[test]
fn a_new_turn_clears_old_good_news() {
    let mut app = App::new();
    app.enter("/theme light");
    app.msg(Msg::ThemeLoaded { name: "light".to_owned(), result: Ok(Vec::new()) });
    assert_eq!(app.notice(), "theme light");
    app.enter("hello");
    assert_eq!(app.model.notice, None);
}
