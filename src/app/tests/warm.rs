//! Getting ready while the person types.

use super::*;
use crate::app::warm::Stage;
use crate::chat::{ServerTimings, Usage};
use crate::config::{BackendKind, WarmConfig};
use pretty_assertions::assert_eq;

/// This machine, and one elsewhere, with getting ready switched on.
fn app(change: impl FnOnce(&mut NewModel)) -> App {
    App::with(|args| {
        args.routing.warm.rules = Some(WarmConfig::default());
        args.backends.push(BackendView {
            name: "mac".to_owned(),
            models: vec![ModelCard { state: ModelState::Loaded, ..card("large", false) }],
            ..BackendView::default()
        });
        change(args);
    })
}

/// What is got ready by these effects: the backend and the last message.
fn ahead(effects: &[Effect]) -> Vec<(String, String)> {
    let warm = |effect: &Effect| match effect {
        Effect::Warm { backend, request } => {
            assert_eq!((request.max_tokens, request.is_ahead), (Some(0), true));
            Some((backend.clone(), request.messages.last()?.content.clone()))
        }
        _ => None,
    };
    effects.iter().filter_map(warm).collect()
}

fn key_of(c: char) -> Msg {
    Msg::Key(crate::keymap::Chord::plain(crate::keymap::Key::Char(c)))
}

fn local(text: &str) -> Vec<(String, String)> {
    vec![("local".to_owned(), text.to_owned())]
}

#[test]
fn the_first_character_begins_and_a_pause_goes_on() {
    let mut app = app(|_| {});
    let effects = app.msg(key_of('w'));
    assert_eq!(ahead(&effects), local("w"));
    let pause = Duration::from_millis(WarmConfig::default().pause_ms);
    assert!(effects.contains(&Effect::Timer { id: TimerId::Warm, after: pause }), "{effects:?}");
    assert_eq!(ahead(&app.msg(key_of('h'))), [], "not with every key");
    app.typed("at is a monad?");
    assert_eq!(ahead(&app.msg(Msg::Timer(TimerId::Warm))), local("what is a monad?"));
    assert_eq!(ahead(&app.msg(Msg::Timer(TimerId::Warm))), [], "that is ready already");
    let effects = app.press("enter");
    let stops = effects.iter().position(|effect| *effect == Effect::StopWarming).expect("it ends");
    let sends = effects.iter().position(|e| matches!(e, Effect::Generate { .. })).expect("it is sent");
    assert!(stops < sends, "first it ends, then the question leaves");
    assert_eq!(app.model.routing.warm.last, None);
    assert_eq!(ahead(&app.msg(key_of('a'))), [], "not while an answer runs");
}

#[test]
fn news_are_told_and_counted() {
    let mut app = app(|_| {});
    app.typed("hello there");
    let mut tell = |event| app.msg(Msg::Warmed { backend: "local".to_owned(), event });
    tell(GenEvent::Loading { fraction: 0.5 });
    tell(GenEvent::Prefill { done: 30, total: 120, cached: 0 });
    assert_eq!(app.model.routing.warm.under_way("local"), Some(("warming", 0.25)));
    assert_eq!(app.model.routing.warm.under_way("mac"), None);
    let timings = ServerTimings { prompt_n: Some(100), cache_n: Some(20), ..ServerTimings::default() };
    let end = GenEvent::Done { finish: Finish::Length, timings: Some(timings) };
    app.msg(Msg::Warmed { backend: "local".to_owned(), event: end });
    let cached = |app: &App| {
        let facts = app.model.facts();
        let local = facts.backends.iter().find(|backend| backend.name == "local").expect("it is there");
        local.models.iter().find(|model| model.id == "tiny").expect("it is there").cached_tokens
    };
    assert_eq!((app.model.routing.warm.under_way("local"), cached(&app)), (None, 120));
    app.turn("", "");
    assert_eq!(cached(&app), 0, "another turn is another matter");

    let usage = Usage { prompt_tokens: Some(77), ..Usage::default() };
    app.typed("again");
    app.msg(Msg::Warmed { backend: "local".to_owned(), event: GenEvent::Usage(usage) });
    assert_eq!(app.model.routing.warm.last.as_ref().map(|last| last.stage), Some(Stage::Ready(Some(77))));
    let error = GenError::new(GenErrorKind::OutOfMemory, "no room");
    app.msg(Msg::Warmed { backend: "local".to_owned(), event: GenEvent::Failed(error) });
    assert_eq!(app.notice(), "", "nobody asked for it");
    assert_eq!(ahead(&app.msg(key_of('!'))), [], "and it is not tried with every key");
}

#[test]
fn not_for_commands_nor_on_battery_nor_when_switched_off() {
    let first = |change: fn(&mut NewModel), text: &str| {
        let mut app = app(change);
        text.chars().flat_map(|c| ahead(&app.msg(key_of(c)))).count()
    };
    assert_eq!(first(|_| {}, "hi"), 1);
    assert_eq!(first(|_| {}, "/model"), 0);
    assert_eq!(first(|_| {}, "  "), 0);
    assert_eq!(first(|args| args.routing.around.on_battery = true, "hi"), 0);
    assert_eq!(
        first(
            |args| {
                args.routing.around.on_battery = true;
                args.routing.warm.rules = Some(WarmConfig { on_battery: true, ..WarmConfig::default() });
            },
            "hi"
        ),
        1
    );
    let off = |args: &mut NewModel| {
        args.routing.warm.rules = Some(WarmConfig { on_typing: false, ..WarmConfig::default() });
    };
    assert_eq!(first(off, "hi"), 0);
    assert_eq!(first(|args| args.routing.warm.rules = None, "hi"), 0);
}

#[test]
fn another_machine_only_as_far_as_the_person_allows() {
    let on_mac = |change: fn(&mut NewModel), paste: bool| {
        let mut app = app(|args| {
            args.prefs.pin.backend = Some("mac".to_owned());
            change(args);
        });
        let mut effects = if paste { app.msg(Msg::Paste("line\n".repeat(50))) } else { Vec::new() };
        effects.extend(app.msg(key_of('h')));
        ahead(&effects).len()
    };
    assert_eq!(on_mac(|_| {}, false), 1);
    assert_eq!(on_mac(|_| {}, true), 0, "what was pasted leaves with Enter");
    assert_eq!(on_mac(|args| args.backends[1].setup.is_here = true, true), 1);
    assert_eq!(on_mac(|args| args.saving = Saving::Off, false), 0, "a private conversation");
    assert_eq!(on_mac(|args| args.backends[1].models[0].state = ModelState::Unloaded, false), 0);
    assert_eq!(
        on_mac(
            |args| {
                args.backends[1].models[0].state = ModelState::Unloaded;
                args.backends[1].setup.kind = Some(BackendKind::Duet);
            },
            false
        ),
        1,
        "an engine of ours sends nobody away for it"
    );
    assert_eq!(
        on_mac(
            |args| args.routing.warm.rules = Some(WarmConfig { remote: false, ..WarmConfig::default() }),
            false
        ),
        0
    );
}
