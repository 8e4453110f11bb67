//! Lists: models, themes, prompts.

use super::*;
use crate::app::model::{Overlay, Picker};
use pretty_assertions::assert_eq;

fn picker(app: &App) -> &Picker {
    match app.model.overlays.last() {
        Some(Overlay::Picker(picker)) => picker,
        other => panic!("{other:?}"),
    }
}

fn labels(app: &App) -> Vec<String> {
    let picker = picker(app);
    picker
        .matches
        .iter()
        .map(|at| format!("{} {}", picker.items[*at].mark, &*picker.items[*at].label))
        .collect()
}

fn two_machines() -> App {
    let mut app = App::with(|args| {
        let mut mac = args.backends[0].clone();
        mac.name = "mac".to_owned();
        mac.is_engine = false;
        mac.models = vec![ModelCard {
            state: ModelState::Failed { reason: "too big".to_owned() },
            ..card("large", false)
        }];
        args.backends.push(mac);
    });
    app.model.fleet.backends[0].models[1].state = ModelState::Loaded;
    app
}

#[test]
fn the_list_of_models() {
    let mut app = two_machines();
    let asked = ["local", "mac"].map(|name| Effect::ListModels { backend: name.to_owned() });
    assert_eq!(app.press("f2"), asked);
    assert_eq!(labels(&app), ["● local/big", "○ local/tiny", "▲ mac/large"]);
    let columns: Vec<&str> = picker(&app).items[1].columns.iter().map(|c| &**c).collect();
    assert_eq!(columns, ["7.6B", "q4_k_m", "4.4 GiB", "32k", "", "built in, on disk"]);
    let columns: Vec<&str> = picker(&app).items[2].columns.iter().map(|c| &**c).collect();
    assert_eq!(columns.last(), Some(&"too big"));

    app.msg(Msg::Models { backend: "mac".to_owned(), result: Err("no route".to_owned()) });
    assert_eq!(labels(&app)[2], "✕ mac/large", "what was known stays, greyed");
    app.model.fleet.backends[1].models.clear();
    app.msg(Msg::Models { backend: "mac".to_owned(), result: Err("no route".to_owned()) });
    assert_eq!(labels(&app)[2], "✕ mac");
}

#[test]
fn typing_filters_and_enter_pins() {
    let mut app = two_machines();
    app.press("f2 down");
    app.typed("tny");
    assert_eq!(labels(&app), ["○ local/tiny"]);
    app.press("backspace backspace backspace");
    assert_eq!(picker(&app).matches.len(), 3);
    app.typed("q4 mac");
    assert_eq!(labels(&app), ["▲ mac/large"], "words in any order, columns too");
    app.press("ctrl+u");
    app.typed("tiny");
    let effects = app.press("enter");
    let load = Effect::ChangeModel {
        backend: "local".to_owned(),
        model: "tiny".to_owned(),
        change: Change::Load { context: None },
    };
    assert_eq!(effects, [load, timer(TimerId::Notice, 6000)]);
    let pin = Target { backend: Some("local".to_owned()), model: Some("tiny".to_owned()) };
    assert_eq!((&app.model.prefs.pin, app.notice()), (&pin, "next turn: local · tiny"));
    assert_eq!((app.model.overlays.len(), app.draft()), (0, ""));
}

#[test]
fn resident_and_foreign_models_are_not_loaded() {
    let mut app = two_machines();
    app.press("f2");
    assert_eq!(app.press("enter"), [timer(TimerId::Notice, 6000)]);
    assert_eq!(app.model.prefs.pin.model.as_deref(), Some("big"));
    app.press("f2");
    assert_eq!(labels(&app)[0], "● local/big", "the target is first");
    app.press("end down down down");
    assert_eq!(app.press("enter"), [timer(TimerId::Notice, 6000)]);
    assert_eq!(app.notice(), "next turn: mac · large");
}

#[test]
fn what_is_marked_stays_marked_when_news_come() {
    let mut app = two_machines();
    app.press("f2 down");
    assert_eq!(picker(&app).chosen().map(|i| i.value.as_str()), Some("local/tiny"));
    let cards = vec![card("aaa", false), card("tiny", true)];
    app.msg(Msg::Models { backend: "local".to_owned(), result: Ok(cards.into()) });
    assert_eq!(picker(&app).chosen().map(|i| i.value.as_str()), Some("local/tiny"));
    app.msg(Msg::Models { backend: "local".to_owned(), result: Ok(vec![card("aaa", false)].into()) });
    assert_eq!(picker(&app).selected, 0);
}

#[test]
fn moving_stays_in_the_list() {
    let mut app = two_machines();
    app.press("f2 up");
    assert_eq!(picker(&app).selected, 0);
    app.press("ctrl+n ctrl+n down down");
    assert_eq!(picker(&app).selected, 2);
    app.press("ctrl+p");
    assert_eq!(picker(&app).selected, 1);
    app.press("pagedown");
    assert_eq!(picker(&app).selected, 2);
    app.press("ctrl+home ctrl+end");
    assert_eq!(picker(&app).selected, 2);
    app.typed("zzz");
    assert_eq!(app.press("enter down up"), [], "nothing matches");
    assert_eq!(app.model.overlays.len(), 1);
    app.press("ctrl+c");
    assert_eq!(app.model.overlays.len(), 0);
}

#[test]
fn a_model_by_name() {
    let pinned = |line: &str| {
        let mut app = two_machines();
        app.enter(line);
        (app.model.prefs.pin.clone(), app.model.overlays.len(), app.notice().to_owned())
    };
    let target = |backend: Option<&str>, model: Option<&str>| Target {
        backend: backend.map(str::to_owned),
        model: model.map(str::to_owned),
    };
    for (line, target, said) in [
        ("/model big", target(None, Some("big")), "next turn: local · big"),
        ("/model mac", target(Some("mac"), None), "next turn: mac · tiny"),
        ("/model mac/large", target(Some("mac"), Some("large")), "next turn: mac · large"),
        ("/model lrg", target(Some("mac"), Some("large")), "next turn: mac · large"),
        ("/model /m/x.gguf", target(None, Some("/m/x.gguf")), "next turn: local · /m/x.gguf"),
    ] {
        assert_eq!(pinned(line), (target, 0, said.to_owned()), "{line}");
    }
    let (target, open, _) = pinned("/model local");
    assert_eq!((target.backend.as_deref(), open), (Some("local"), 0));
    let (target, open, _) = pinned("/model q4");
    assert_eq!((target, open), (Target::default(), 1), "several: the list opens, filtered");
    let (_, open, said) = pinned("/model larch");
    assert_eq!((open, said.as_str()), (0, "no model `larch`; the nearest is large: /model lists them"));
}

#[test]
fn themes_and_prompts() {
    let mut app = App::new();
    app.enter("/theme");
    app.press("down");
    assert_eq!(app.press("enter"), [Effect::LoadTheme { name: "light".to_owned() }]);
    app.press("ctrl+x p");
    assert_eq!(&*picker(&app).items[0].columns[0], "short answers");
    app.press("enter");
    assert_eq!(app.model.session.system.as_deref(), Some("Be brief."));
    assert_eq!(app.notice(), "system prompt brief");
}
