//! News of the engine, of the store and of the clipboard.

use super::*;
use crate::app::model::EngineView;
use crate::app::turn::Phase;
use crate::app::{CopyOutcome, EngineNews};
use crate::text::shown;
use pretty_assertions::assert_eq;

fn died(app: &mut App) -> Vec<Effect> {
    let message = "engine ended while idle: signal 9\nIt was killed.".to_owned();
    app.msg(Msg::Engine(EngineNews::Died { message, residents: vec!["tiny".to_owned()] }))
}

fn restart() -> Effect {
    Effect::RestartEngine { models: vec!["tiny".to_owned()] }
}

#[test]
fn a_dead_engine_is_restarted_with_its_models_and_one_key_retries() {
    let mut app = App::new();
    app.model.fleet.backends[0].models[0].state = ModelState::Loaded;
    app.enter("hello");
    app.event(1, delta("par"));
    let mut expected = app.model.clone();
    expected.fleet.engine = EngineView::Down {
        message: shown("engine ended while idle: signal 9\nIt was killed."),
        residents: vec!["tiny".to_owned()],
    };
    expected.fleet.backends[0].models[0].state = ModelState::Unloaded;
    expected.pending.restart = crate::app::model::Restart::UnderWay;
    expected.pending.residents = vec!["tiny".to_owned()];
    expected.notice = warn("engine restarted · r retry");
    assert_eq!((died(&mut app), &app.model), (vec![restart()], &expected));

    app.event(1, failed("engine ended"));
    app.msg(Msg::Engine(EngineNews::Starting));
    assert_eq!(app.model.fleet.engine, EngineView::Starting);
    app.msg(Msg::Engine(EngineNews::Ready));
    assert_eq!(app.model.fleet.engine, EngineView::Ready);
    assert_eq!(app.phase(), &Phase::Interrupted(error("engine ended")));
    assert_eq!(app.attempt().answer.raw(), "par");
    let effects = app.press("r");
    assert_eq!(effects[1], generate(key(1, 2), vec![user("hello")]));
    assert_eq!(effects.len(), 3, "no second restart: {effects:?}");
}

#[test]
fn it_is_restarted_once_by_itself_and_then_by_key() {
    let mut app = App::new();
    assert_eq!(died(&mut app), [restart()]);
    assert_eq!(app.model.notice, warn("engine ended while idle: signal 9 · It was killed."));
    app.msg(Msg::Engine(EngineNews::Starting));
    assert_eq!(app.msg(Msg::Engine(EngineNews::Failed { message: "no memory".to_owned() })), []);
    assert_eq!(app.notice(), "the engine does not start: no memory · r tries again");
    assert_eq!(app.press("r"), [restart()], "with the models it had");
    app.press("r");
    assert_eq!(app.draft(), "r", "it is being started: nothing to do twice");
    app.press("backspace");
    assert_eq!(died(&mut app), [], "not again by itself");
    let said = "engine ended while idle: signal 9 · It was killed. · r starts it once more";
    assert_eq!(app.model.notice, bad(said));
    assert_eq!(app.press("r"), [restart()]);

    app.msg(Msg::Engine(EngineNews::Ready));
    app.turn("hello", "good");
    assert_eq!(died(&mut app), [restart()], "a complete answer proves that it works");
    app.msg(Msg::Engine(EngineNews::Failed { message: "no memory".to_owned() }));
    assert_eq!(app.press("r"), [restart()], "a good answer is not asked for again");
    assert_eq!(app.draft(), "");
}

#[test]
fn asking_again_starts_an_engine_that_is_down() {
    let mut app = App::new();
    app.enter("hello");
    app.event(1, failed("gone"));
    died(&mut app);
    app.msg(Msg::Engine(EngineNews::Failed { message: "no memory".to_owned() }));
    let effects = app.press("r");
    assert_eq!(effects[0], restart());
    assert_eq!(effects[2], generate(key(1, 2), vec![user("hello")]));
}

#[test]
fn a_server_that_is_away_says_why_and_is_asked_again() {
    let mut app = App::with(|args| {
        args.backends[0] = BackendView {
            name: "dead".to_owned(),
            is_engine: false,
            default_model: None,
            models: Vec::new(),
            ..BackendView::default()
        };
    });
    let ask = Effect::ListModels { backend: "dead".to_owned() };
    assert_eq!(app.enter("hello"), vec![ask.clone()]);
    assert_eq!(app.notice(), "dead has not named its models yet · enter tries again");
    let why = "dead can't be reached at http://x: nothing listens there\nstart the server there";
    let models = |result| Msg::Models { backend: "dead".to_owned(), result };
    app.msg(models(Err(why.to_owned())));
    assert_eq!(app.press("enter"), [ask]);
    let said = "dead can't be reached at http://x: nothing listens there · start the server there";
    assert_eq!((app.model.notice.clone(), app.draft()), (bad(said), "hello"));

    let effects = app.msg(models(Ok(vec![card("large", false)].into())));
    assert_eq!((effects, app.model.turns.len()), (vec![], 0), "nothing is sent by itself");
    app.press("enter");
    assert_eq!((app.attempt().decision.model.as_str(), app.draft()), ("large", ""));
}

#[test]
fn models_are_kept_when_they_cannot_be_had() {
    let mut app = App::new();
    let cards = vec![card("new", false)];
    app.msg(Msg::Models { backend: "local".to_owned(), result: Ok(cards.clone().into()) });
    app.msg(Msg::Models { backend: "local".to_owned(), result: Err("refused".to_owned()) });
    app.msg(Msg::Models { backend: "other".to_owned(), result: Ok(Listing::default()) });
    let backend = &app.model.fleet.backends[0];
    assert_eq!((&backend.models, backend.trouble.as_deref()), (&cards, Some("refused")));
    app.msg(Msg::Models { backend: "local".to_owned(), result: Ok(cards.into()) });
    assert_eq!(app.model.fleet.backends[0].trouble, None);
}

#[test]
fn a_disk_that_refuses_is_said_once() {
    let mut app = App::new();
    let refused = || Msg::StoreFailed { message: "no space".to_owned() };
    app.msg(refused());
    assert_eq!(app.model.notice, bad("not saved: no space; kept in memory and tried again"));
    app.press("x");
    app.msg(refused());
    assert_eq!(app.model.notice, None);
    assert_eq!(app.model.session.saving, Saving::Failing(shown_line("no space", 400)));
    assert!(app.press("enter").len() > 3, "the store is still given everything");
    app.msg(Msg::StoreRecovered);
    assert_eq!((&app.model.session.saving, app.notice()), (&Saving::On, "saved again, nothing was lost"));
}

#[test]
fn without_a_store_nothing_is_saved_and_that_is_said() {
    let mut app = App::new();
    app.enter("hello");
    let effects = app.msg(Msg::StoreUnavailable { message: "no folder\nset DUET_DATA_DIR".to_owned() });
    assert_eq!(effects, []);
    let reason = "no folder · set DUET_DATA_DIR";
    assert_eq!(app.model.notice, bad(&format!("not saved: {reason}")));
    assert_eq!(app.model.session.saving, Saving::Impossible(shown_line(reason, 400)));
    let effects = app.event(1, delta("Hi"));
    assert_eq!(effects, [], "nothing is given to a store that is not there");
    app.event(1, done());
    app.msg(Msg::StoreRecovered);
    app.enter("/status");
    assert!(app.notice().ends_with(&format!("not saved: {reason}")), "{}", app.notice());
}

#[test]
fn status_says_that_the_disk_refuses() {
    let mut app = App::new();
    app.msg(Msg::StoreFailed { message: "no space".to_owned() });
    app.enter("/status");
    assert!(app.notice().ends_with("not saved: no space; tried again"), "{}", app.notice());
    app.msg(Msg::StoreRecovered);
    app.enter("/status");
    assert!(app.notice().ends_with("· saved"), "{}", app.notice());
}

#[test]
fn notices_go_by_themselves_or_with_a_key() {
    let mut app = App::new();
    let notice = |is_error| Msg::Notice { text: "look".to_owned(), is_error };
    assert_eq!(app.msg(notice(false)), [timer(TimerId::Notice, 6000)]);
    app.press("x");
    assert_eq!(app.model.notice, info("look", 6000), "good news stays while typing");
    app.wait(5999).msg(Msg::Timer(TimerId::Notice));
    assert_eq!(app.notice(), "look");
    app.wait(1).msg(Msg::Timer(TimerId::Notice));
    assert_eq!(app.model.notice, None);

    assert_eq!(app.msg(notice(true)), []);
    app.wait(60_000).msg(Msg::Timer(TimerId::Notice));
    assert_eq!(app.model.notice, bad("look"), "trouble waits for a key");
    app.press("x");
    assert_eq!(app.model.notice, None);
}

#[test]
fn copying_is_told_as_it_went() {
    let cases = [
        (CopyOutcome::Copied, "answer: copied"),
        (CopyOutcome::Tmux, "answer: in tmux's buffer"),
        (CopyOutcome::SentToTerminal, "answer: sent to the terminal (it does not confirm)"),
        (
            CopyOutcome::File { path: "/f".to_owned(), why: "no clipboard".to_owned() },
            "answer: saved to /f: no clipboard",
        ),
        (CopyOutcome::Failed { why: "disk full".to_owned() }, "answer: not copied: disk full"),
    ];
    for (outcome, text) in cases {
        let mut app = App::new();
        app.msg(Msg::Copied { what: "answer".to_owned(), outcome });
        assert_eq!(app.notice(), text);
    }
}
