//! The residency board: its rows and keys, what it asks for and what it says.

use super::*;
use crate::app::board::{passed, rows, to_come};
use crate::app::model::{Board, Overlay};
use crate::app::turn::Phase;
use crate::chat::{Device, DevicePart, Fit, KeepAlive, Machine, ModelBytes, Placement, Residency, Verdict};
use pretty_assertions::assert_eq;

const MINUTE: f64 = 60.0;

fn verdict(fit: Fit) -> Option<Verdict> {
    let say = "needs 9.8 GB, 4.1 GB are free".to_owned();
    Some(Verdict { fit, context: None, unload: Vec::new(), gpu_layers: None, slowdown: None, say })
}

fn cold(id: &str, fit: Fit) -> Residency {
    Residency { id: id.to_owned(), pinned: Some(false), verdict: verdict(fit), ..Residency::default() }
}

fn listing() -> Listing {
    let with = |id: &str, state| ModelCard { state, ..card(id, false) };
    let mut needy = cold("needy", Fit::IfUnloaded);
    needy.verdict.as_mut().expect("there").unload = vec!["big".to_owned()];
    let mut long = cold("long", Fit::SmallerContext);
    long.verdict.as_mut().expect("there").context = Some(4096);
    Listing {
        cards: vec![
            with("broken", ModelState::Failed { reason: "cut off".to_owned() }),
            with("tiny", ModelState::Unloaded),
            with("needy", ModelState::Unloaded),
            with("long", ModelState::Unloaded),
            with("big", ModelState::Loaded),
            with("half", ModelState::Loading { fraction: 0.5 }),
        ],
        embedders: Vec::new(),
        residency: vec![
            cold("tiny", Fit::Fits),
            needy,
            long,
            Residency {
                id: "big".to_owned(),
                pinned: Some(false),
                keep_alive: Some(KeepAlive::Default),
                expires_s: Some(4.0 * MINUTE - 1.0),
                running: Some(0),
                ..Residency::default()
            },
        ],
    }
}

fn models(listing: Listing) -> Msg {
    Msg::Models { backend: "local".to_owned(), result: Ok(listing) }
}

/// An app with the board open, all asked for and answered.
fn open() -> App {
    let mut app = App::new();
    app.msg(models(listing()));
    app.press("ctrl+x b");
    app.msg(Msg::Machine { backend: "local".to_owned(), machine: None });
    app
}

fn board(app: &App) -> &Board {
    match app.model.overlays.last() {
        Some(Overlay::Board(board)) => board,
        other => panic!("{other:?}"),
    }
}

fn marked(app: &App) -> &str {
    board(app).selected.as_ref().map_or("", |(_, model)| model)
}

fn said(app: &App) -> &str {
    board(app).said.as_ref().map_or("", |(_, said)| said)
}

fn ids(app: &App) -> Vec<String> {
    let rows = rows(&app.model.fleet, board(app).filter.text());
    rows.iter().map(|row| row.card.id.clone()).collect()
}

/// Marks a row.
fn mark(app: &mut App, id: &str) {
    app.press("g");
    let at = ids(app).iter().position(|there| there == id).expect("it is there");
    for _ in 0..at {
        app.press("j");
    }
    assert_eq!(marked(app), id);
}

fn change(model: &str, change: Change) -> Effect {
    Effect::ChangeModel { backend: "local".to_owned(), model: model.to_owned(), change }
}

fn look() -> Effect {
    Effect::LookAtMachine { backend: "local".to_owned() }
}

fn list() -> Effect {
    Effect::ListModels { backend: "local".to_owned() }
}

fn later(ms: u64) -> Effect {
    timer(TimerId::Board, ms)
}

#[test]
fn it_opens_on_the_target_and_asks_every_machine() {
    let mut app = App::new();
    app.msg(models(listing()));
    assert_eq!(app.enter("/models")[..2], [look(), list()]);
    assert_eq!(ids(&app), ["big", "half", "tiny", "needy", "long", "broken"], "what is in memory first");
    assert_eq!(marked(&app), "tiny");
    app.press("esc");
    assert_eq!(app.model.overlays, []);
    assert_eq!(app.press("ctrl+x b")[..2], [look(), list()]);
    assert_eq!(app.press("q"), []);
    assert_eq!(app.model.overlays, []);
}

#[test]
fn keys_move_and_what_is_marked_stays_marked() {
    let mut app = open();
    app.press("home up k");
    assert_eq!(marked(&app), "big");
    app.press("j down");
    assert_eq!(marked(&app), "tiny");
    app.press("G j pagedown");
    assert_eq!(marked(&app), "broken");
    app.press("pageup");
    assert_eq!(marked(&app), "big");
    app.press("end");
    let mut news = listing();
    news.cards.reverse();
    app.msg(models(news));
    assert_eq!(marked(&app), "broken");
    app.msg(models(Listing::default()));
    assert_eq!(app.press("j enter u p a t"), [], "nothing to do without rows");
}

#[test]
fn the_filter_is_typed_and_kept_and_goes_by_esc() {
    let mut app = open();
    app.press("/");
    app.typed("ndy");
    assert_eq!((ids(&app), app.draft()), (vec!["needy".to_owned()], ""));
    app.press("enter");
    assert_eq!((board(&app).is_filtering, ids(&app).len()), (false, 1));
    app.press("esc");
    assert_eq!(ids(&app).len(), 6);
    app.press("/");
    app.msg(Msg::Paste("on disk\nmore".to_owned()));
    assert_eq!(ids(&app), ["tiny", "needy", "long"]);
    app.wait(100).press("esc");
    assert_eq!((ids(&app).len(), board(&app).is_filtering), (6, false));
    app.press("/ x ctrl+c");
    assert_eq!(app.model.overlays, []);
}

#[test]
fn enter_loads_and_takes_what_is_resident() {
    let mut app = open();
    mark(&mut app, "tiny");
    assert_eq!(app.press("enter"), [change("tiny", Change::Load { context: None })]);
    mark(&mut app, "long");
    assert_eq!(app.press("enter"), [change("long", Change::Load { context: Some(4096) })], "as it says");
    mark(&mut app, "broken");
    assert_eq!(app.press("enter"), [change("broken", Change::Load { context: None })], "once more");
    mark(&mut app, "half");
    assert_eq!((app.press("enter"), said(&app)), (vec![], "half is being loaded: u gives that up"));
    mark(&mut app, "big");
    assert_eq!(app.press("enter"), [timer(TimerId::Notice, 6000)]);
    assert_eq!((app.model.overlays.len(), app.notice()), (0, "next turn: local · big"));
}

#[test]
fn what_makes_others_leave_is_said_first() {
    let mut app = open();
    mark(&mut app, "needy");
    assert_eq!(app.press("enter"), []);
    let question = "to load needy, big would have to go; enter again does it";
    assert_eq!(board(&app).said, Some((Level::Warn, shown_line(question, 400))));
    assert_eq!(app.press("enter"), [change("needy", Change::Load { context: None })]);
    assert_eq!(said(&app), "");

    assert_eq!(app.press("enter esc"), [], "no");
    assert_eq!((said(&app), app.model.overlays.len()), ("", 1));
    assert_eq!(app.press("enter u enter"), [], "another key is no answer");
    assert_eq!(app.press("esc t"), []);
    assert_eq!(said(&app), "to load needy, big would have to go; t again does it");
    let effects = app.press("t");
    assert_eq!(effects[0], change("needy", Change::Load { context: None }));
    assert_eq!(app.notice(), "next turn: local · needy");
}

#[test]
fn what_makes_embeddings_is_loaded_but_gets_no_turn() {
    let mut news = listing();
    news.embedders = vec!["needy".to_owned(), "big".to_owned()];
    let why = |model: &str| {
        format!("{model} makes embeddings and can't be chatted with; /v1/embeddings takes texts for it")
    };
    let mut app = open();
    app.msg(models(news.clone()));
    mark(&mut app, "big");
    for key in ["enter", "t"] {
        assert_eq!((app.press(key), said(&app)), (vec![], &*why("big")), "{key}");
    }
    mark(&mut app, "needy");
    assert_eq!((app.press("t"), said(&app)), (vec![], &*why("needy")), "nobody has to go for that");
    app.press("enter");
    assert_eq!(app.press("enter"), [change("needy", Change::Load { context: None })]);
    app.press("/");
    app.typed("embeddings");
    assert_eq!(ids(&app), ["big", "needy"]);

    let mut app = App::new();
    news.embedders.push("tiny".to_owned());
    app.msg(models(news));
    for line in ["/model big", "/model local/big"] {
        app.enter(line);
        assert_eq!(app.notice(), why("big"), "{line}");
        assert_eq!(app.model.prefs.pin, crate::router::Target::default());
        app.press("ctrl+u");
    }
    assert!(!app.model.facts().backends[0].has("big"));
    app.press("f2");
    let Some(Overlay::Picker(picker)) = app.model.overlays.last() else { panic!("no list") };
    let last = |id: &str| {
        let item = picker.items.iter().find(|item| item.value == id).expect("listed");
        item.columns.last().expect("columns").to_string()
    };
    assert_eq!(
        (last("local/big"), last("local/needy")),
        ("embeddings, resident".into(), "embeddings, on disk".into())
    );
}

#[test]
fn unloading_asks_while_it_answers() {
    let mut app = open();
    mark(&mut app, "big");
    assert_eq!(app.press("u"), [change("big", Change::Unload)]);
    mark(&mut app, "half");
    assert_eq!(app.press("u"), [change("half", Change::Unload)], "the load is given up");
    mark(&mut app, "tiny");
    assert_eq!((app.press("u"), said(&app)), (vec![], "tiny is not in memory"));

    let mut busy = listing();
    busy.residency[3].running = Some(2);
    app.msg(models(busy));
    mark(&mut app, "big");
    assert_eq!(
        (app.press("u"), said(&app)),
        (vec![], "big is writing 2 answers; u again unloads it all the same")
    );
    assert_eq!(app.press("u"), [change("big", Change::Unload)]);

    // Our own turn counts, whatever the server tells.
    let mut app = open();
    app.press("esc");
    app.enter("/model big");
    app.enter("hello");
    assert_eq!(app.phase(), &Phase::Sending);
    app.press("ctrl+x b");
    assert_eq!(
        (app.press("u"), said(&app)),
        (vec![], "big is writing an answer; u again unloads it all the same")
    );
}

#[test]
fn pins_and_times_are_shown_before_the_server_tells() {
    let mut app = open();
    mark(&mut app, "big");
    assert_eq!(app.press("p"), [change("big", Change::Pin(true))]);
    assert_eq!(said(&app), "big is pinned: it stays until you unload it");
    assert_eq!(app.press("p"), [], "one at a time");
    let told = |change, result| Msg::Changed {
        backend: "local".to_owned(),
        model: "big".to_owned(),
        change,
        result,
    };
    assert_eq!(app.msg(told(Change::Pin(true), Ok(()))), [change("big", Change::Pin(false))]);
    assert_eq!(app.msg(told(Change::Pin(false), Ok(()))), [], "the engine tells by itself");
    mark(&mut app, "tiny");
    assert_eq!(app.press("p"), [change("tiny", Change::Pin(true))]);
    assert_eq!(said(&app), "tiny is pinned: once loaded, it stays until you unload it");
    mark(&mut app, "big");
    let steps = [
        (KeepAlive::Seconds(300), "big stays for 5 min after its last use"),
        (KeepAlive::Seconds(3600), "big stays for 1 h after its last use"),
        (KeepAlive::ForEver, "big stays for ever, while there is room"),
        (KeepAlive::Seconds(0), "big leaves after each answer"),
        (KeepAlive::Default, "big stays as long as is configured"),
    ];
    for (keep, words) in steps {
        let asked = Change::KeepAlive(keep);
        assert_eq!((app.press("a"), said(&app)), (vec![change("big", asked)], words));
        assert_eq!(app.msg(told(asked, Ok(()))), [list()]);
    }
    let why = "the engine can't be told to pin a model\nlook at its settings".to_owned();
    assert_eq!(app.msg(told(Change::Pin(true), Err(why))), [list()], "what was shown is put right");
}

#[test]
fn of_quick_keys_the_last_one_counts_whatever_is_told_meanwhile() {
    let keep =
        |app: &App| app.model.fleet.backends[0].residency.iter().find(|r| r.id == "big").unwrap().keep_alive;
    let done = |keep, result| Msg::Changed {
        backend: "local".to_owned(),
        model: "big".to_owned(),
        change: Change::KeepAlive(keep),
        result,
    };
    let first = KeepAlive::Seconds(300);
    let last = KeepAlive::Seconds(0);
    let telling = |keep| {
        let mut news = listing();
        news.residency[3].keep_alive = Some(keep);
        models(news)
    };
    let mut app = open();
    mark(&mut app, "big");
    assert_eq!(app.press("a a"), [change("big", Change::KeepAlive(first))]);
    app.msg(telling(first));
    assert_eq!(keep(&app), Some(KeepAlive::Seconds(3600)), "not what is told of the first");
    assert_eq!(app.press("a a"), []);
    assert_eq!((said(&app), keep(&app)), ("big leaves after each answer", Some(last)));
    assert_eq!(app.msg(done(first, Ok(()))), [change("big", Change::KeepAlive(last))]);
    assert_eq!(app.msg(done(last, Ok(()))), [list()]);
    // Late news is not believed once.
    assert!(app.msg(telling(first)).contains(&list()));
    assert_eq!(keep(&app), Some(last));
    app.msg(telling(first));
    assert_eq!((keep(&app), app.model.pending.asked.len()), (Some(first), 0), "it is so, then");

    // Told before the answer.
    assert_eq!(app.press("a"), [change("big", Change::KeepAlive(KeepAlive::Seconds(3600)))]);
    app.msg(telling(KeepAlive::Seconds(3600)));
    app.msg(done(KeepAlive::Seconds(3600), Ok(())));
    assert_eq!(app.model.pending.asked, []);

    // A refusal ends it all.
    assert_eq!(app.press("a a").len(), 1);
    let refused = app.msg(done(KeepAlive::ForEver, Err("no".to_owned())));
    assert!(refused.contains(&list()), "{refused:?}");
    app.msg(telling(first));
    assert_eq!(keep(&app), Some(first));
}

#[test]
fn a_refusal_is_below_the_rows_and_a_notice() {
    let mut app = open();
    let why = "big needs 43.1 GB, 21.4 GB of 24 GB are free\nunload qwen, or choose a smaller model";
    let refused = Msg::Changed {
        backend: "local".to_owned(),
        model: "tiny".to_owned(),
        change: Change::Load { context: None },
        result: Err(why.to_owned()),
    };
    app.msg(refused.clone());
    let line = "tiny: big needs 43.1 GB, 21.4 GB of 24 GB are free · unload qwen, or choose a smaller model";
    assert_eq!(board(&app).said, Some((Level::Bad, shown_line(line, 400))));
    assert_eq!(app.model.notice, bad(line));
    app.press("j");
    assert_eq!((said(&app), app.notice()), ("", ""));
    app.press("esc");
    assert_eq!(app.msg(refused), [], "nobody is looking: the notice is enough");
    assert_eq!(app.model.notice, bad(line));
}

#[test]
fn memory_is_asked_for_with_the_news_and_never_twice_at_once() {
    let mut app = App::new();
    assert_eq!(app.msg(models(listing())), [], "the board is closed: nothing is asked, nothing wakes");
    app.press("ctrl+x b");
    let news = app.msg(models(listing()));
    assert_eq!(news, [later(59_050)], "it is being asked already");
    let machine = Machine {
        devices: vec![Device { name: "CPU".to_owned(), ..Device::default() }],
        placements: vec![Placement {
            id: "big".to_owned(),
            devices: vec![DevicePart { device: "CPU".to_owned(), bytes: ModelBytes::default() }],
        }],
        queue: None,
    };
    let told = |machine| Msg::Machine { backend: "local".to_owned(), machine };
    assert_eq!(app.msg(told(Some(machine.clone()))), [look()], "once more: there was news");
    assert_eq!(app.msg(told(Some(machine.clone()))), []);
    assert_eq!(app.model.fleet.backends[0].machine.as_ref(), Some(&machine));
    assert_eq!(app.msg(models(listing()))[0], look());
    app.press("esc");
    assert_eq!(app.msg(told(None)), []);
    assert_eq!(app.msg(Msg::Timer(TimerId::Board)), [], "no wake-ups when it is closed");

    app.model.fleet.backends[0].machine = Some(machine);
    app.msg(Msg::Engine(crate::app::EngineNews::Stopped));
    let local = &app.model.fleet.backends[0];
    assert_eq!((&local.machine, local.residency.len()), (&None, 0), "nothing is held any more");
}

#[test]
fn times_are_counted_by_steps_that_are_shown() {
    let mut app = open();
    let left = |app: &App| {
        let rows = rows(&app.model.fleet, "");
        to_come(rows[0].leaves_in(app.now).expect("it leaves"))
    };
    assert_eq!((rows(&app.model.fleet, "")[0].card.id.as_str(), left(&app)), ("big", 240));
    let mut seen = vec![240];
    let mut effects = app.msg(Msg::Timer(TimerId::Board));
    while let Some(Effect::Timer { id: TimerId::Board, after }) = effects.first().cloned() {
        app.now += after;
        seen.push(left(&app));
        effects = app.msg(Msg::Timer(TimerId::Board));
    }
    assert_eq!(seen, [240, 180, 120, 60, 50, 40, 30, 20, 10, 0]);
    assert_eq!([0.0, 59.9, 60.0, 3599.0, 3600.0, 9000.0].map(passed), [0, 0, 60, 3540, 3600, 7200]);

    let mut news = listing();
    news.residency[3].expires_s = None;
    news.residency[3].idle_s = Some(90.0);
    assert_eq!(app.msg(models(news)), [look(), later(30_050)], "times since the last use as well");
}

#[test]
fn models_are_changed_by_name() {
    let by_name = |line: &str| {
        let mut app = App::new();
        app.msg(models(listing()));
        let effects = app.enter(line);
        let changes: Vec<Effect> =
            effects.into_iter().filter(|effect| matches!(effect, Effect::ChangeModel { .. })).collect();
        (changes, app)
    };
    let load = change("tiny", Change::Load { context: None });
    for line in ["/load tiny", "/load local/tiny", "/load tny"] {
        assert_eq!(by_name(line).0, std::slice::from_ref(&load), "{line}");
    }
    assert_eq!(by_name("/unload big").0, [change("big", Change::Unload)]);
    assert_eq!(by_name("/pin big").0, [change("big", Change::Pin(true))]);
    let (_, app) = by_name("/unload tiny");
    assert_eq!((app.model.overlays.len(), app.notice()), (0, "tiny is not in memory"));
    let (changes, app) = by_name("/pin tiny");
    let pinned = "tiny is pinned: once loaded, it stays until you unload it";
    assert_eq!(
        (changes, said(&app), app.notice()),
        (vec![change("tiny", Change::Pin(true))], pinned, pinned)
    );
    let (changes, app) = by_name("/load needy");
    assert_eq!((changes, said(&app)), (vec![], "to load needy, big would have to go; enter again does it"));
    let (changes, app) = by_name("/load n");
    assert_eq!((changes, board(&app).filter.text()), (vec![], "n"), "several: the board shows them");
    let (_, app) = by_name("/load");
    assert_eq!((ids(&app).len(), said(&app)), (6, ""));
    let (_, app) = by_name("/load zzz");
    assert_eq!((app.model.overlays.len(), app.notice()), (0, "no model `zzz`: /models lists them"));
    assert_eq!(app.draft(), "/load zzz");
}

#[test]
fn another_server_is_a_machine_as_well() {
    let mut app = App::with(|args| {
        let mut mac = args.backends[0].clone();
        mac.name = "mac".to_owned();
        mac.is_engine = false;
        args.backends.push(mac);
    });
    let effects = app.press("ctrl+x b");
    let asked = |name: &str| Effect::ListModels { backend: name.to_owned() };
    assert!(effects.contains(&asked("local")) && effects.contains(&asked("mac")), "{effects:?}");
    assert_eq!(ids(&app), ["tiny", "big", "tiny", "big"]);
    app.press("G");
    let load = Effect::ChangeModel {
        backend: "mac".to_owned(),
        model: "big".to_owned(),
        change: Change::Load { context: None },
    };
    assert_eq!(app.press("enter"), [load]);
    let done = Msg::Changed {
        backend: "mac".to_owned(),
        model: "big".to_owned(),
        change: Change::Load { context: None },
        result: Ok(()),
    };
    assert_eq!(app.msg(done), [asked("mac")], "it does not tell by itself");
    app.msg(Msg::Models { backend: "local".to_owned(), result: Err("gone".to_owned()) });
    assert_eq!(board(&app).selected, Some(("mac".to_owned(), "big".to_owned())));
    assert!(app.press("r").contains(&asked("mac")));
    assert_eq!(said(&app), "every machine is asked again");
}
