//! Slash commands and leader pairs.

use super::*;
use crate::app::CopyWhat;
use crate::app::model::Overlay;
use crate::command::COMMANDS;
use crate::command::When;
use pretty_assertions::assert_eq;

const CODE: &str = "Look:\n\n```rust\nlet a = 1;\n```\n\nand\n\n```sh\nls\n```\n";

#[test]
fn unknown_commands_are_never_sent() {
    let mut app = App::new();
    app.typed("/modle x");
    let mut expected = app.model.clone();
    expected.notice =
        bad("no command /modle: did you mean /model? A blank before the slash sends it as text.");
    assert_eq!((app.press("enter"), &app.model), (vec![], &expected));
    app.press("ctrl+u");
    app.enter("/frobnicate");
    assert_eq!(
        app.notice(),
        "no command /frobnicate: /help lists them A blank before the slash sends it as text."
    );
    app.press("ctrl+u");
    assert_eq!(messages(&app.enter("//modle x")), [user("/modle x")]);
    let mut app = App::new();
    assert_eq!(messages(&app.enter("/usr/lib is full")), [user("/usr/lib is full")]);
}

#[test]
fn commands_say_when_they_have_to_wait() {
    for spec in COMMANDS.iter().filter(|spec| spec.when == When::Idle) {
        let mut app = App::new();
        app.enter("hello");
        let name = spec.slash[0];
        app.typed(&format!("/{name}"));
        app.model.composer.completion = None;
        let mut expected = app.model.clone();
        expected.notice = warn(&format!("/{name} waits for the running turn: esc stops it"));
        assert_eq!((app.press("enter"), &app.model), (vec![], &expected), "the line stays");
    }
}

#[test]
fn commands_without_an_argument_refuse_one() {
    let mut app = App::new();
    assert_eq!(app.enter("/new model"), []);
    assert_eq!((app.notice(), app.draft()), ("/new takes no argument", "/new model"));
}

#[test]
fn new_leaves_a_saved_session_behind() {
    for new in ["/ n e w enter", "/ c l e a r enter", "ctrl+x n"] {
        let mut app = App::with(|args| args.system = Some("Be kind.".to_owned()));
        app.turn("hello", "good");
        let old = app.model.session.id.clone();
        assert_eq!(app.wait(5).press(new), [timer(TimerId::Notice, 6000)]);
        let session = &app.model.session;
        assert_ne!(session.id, old);
        assert_eq!(
            (session.is_opened, &*session.title, session.system.as_deref()),
            (false, "", Some("Be kind."))
        );
        assert_eq!(app.model.turns, []);
        assert_eq!(app.notice(), "new session; the one before: tui --resume 00000001-00000002");
        app.enter("again");
        assert_eq!(app.model.turns[0].id, TurnId(1));
    }
}

#[test]
fn copying_the_answer_and_its_numbered_code() {
    let mut app = App::new();
    app.enter("/copy");
    assert_eq!((app.notice(), app.draft()), ("no answer to copy yet", "/copy"));
    app.press("ctrl+u");
    app.enter("hello");
    app.event(1, thinking("secret"));
    app.event(1, delta("good"));
    let answer = Effect::Copy { text: "good".to_owned(), what: CopyWhat::Answer };
    assert_eq!(app.enter("/copy"), std::slice::from_ref(&answer), "while it runs, without the thinking");
    assert_eq!(app.press("ctrl+x y"), [answer]);
    app.enter("/copy x");
    assert_eq!(app.notice(), "/copy x: give the number of a code block, or nothing for the answer");
    app.press("ctrl+u");
    app.enter("/copy 1");
    assert_eq!(app.notice(), "no code block 1: there is none yet");
}

/// Needs the real block splitter.
#[test]
fn code_blocks_are_numbered_through_the_session() {
    let mut app = App::new();
    app.turn("one", CODE);
    if app.attempt().answer.blocks().code_count() == 0 {
        return;
    }
    app.turn("two", "no code");
    app.turn("three", CODE);
    assert_eq!(app.attempt().first_code, 3);
    let effects = app.enter("/copy 4");
    assert_eq!(effects.len(), 1);
    assert!(
        matches!(&effects[0], Effect::Copy { text, what: CopyWhat::Code { number: 4 } } if text.trim() == "ls")
    );
    app.enter("/copy 5");
    assert_eq!(app.notice(), "no code block 5: there are 1 to 4");
}

#[test]
fn thinking_is_unfolded_and_folded() {
    for toggle in ["ctrl+o", "/ t h i n k enter"] {
        let mut app = App::new();
        app.press(toggle);
        assert_eq!(app.model.notice, warn("no answer has thinking in it"));
        app.enter("hello");
        app.event(1, thinking("hm"));
        app.event(1, done());
        app.turn("more", "good");
        let open = |app: &App| app.model.turns[0].lanes[0].attempts[0].thinking_open;
        app.press(toggle);
        assert!(open(&app));
        app.press(toggle);
        assert!(!open(&app));
    }
}

#[test]
fn themes_are_asked_for_and_taken_when_loaded() {
    let mut app = App::new();
    assert_eq!(app.enter("/theme light"), [Effect::LoadTheme { name: "light".to_owned() }]);
    assert_eq!(app.model.prefs.theme, "default", "not yet");
    let loaded = |result| Msg::ThemeLoaded { name: "light".to_owned(), result };
    app.msg(loaded(Err("cannot read it".to_owned())));
    assert_eq!((app.model.prefs.theme.as_str(), app.notice()), ("default", "cannot read it"));
    app.msg(loaded(Ok(vec!["one".to_owned(), "two".to_owned()])));
    assert_eq!((app.model.prefs.theme.as_str(), app.notice()), ("light", "one (and 1 more)"));
    app.msg(loaded(Ok(Vec::new())));
    assert_eq!(app.notice(), "theme light");
    app.enter("/theme dark");
    assert_eq!(app.notice(), "no theme `dark`; there is default, light");
}

#[test]
fn the_system_prompt_is_shown_set_and_removed() {
    let mut app = App::new();
    app.enter("/system");
    assert_eq!(app.notice(), "no system prompt");
    assert_eq!(app.enter("/system Be brief."), [timer(TimerId::Notice, 6000)], "no session to tell yet");
    app.turn("hello", "good");
    let set = |system: Option<&str>| {
        Effect::Store(StoreJob::SetSystem { session: session(), system: system.map(str::to_owned) })
    };
    assert_eq!(app.enter("/system off"), [set(None), timer(TimerId::Notice, 6000)]);
    assert_eq!(app.notice(), "no system prompt; the next turn reads the conversation anew");
    assert_eq!(app.enter("/prompt brief")[0], set(Some("Be brief.")));
    assert_eq!(app.model.session.prompt_name.as_deref(), Some("brief"));
    assert_eq!(messages(&app.enter("more"))[0], Message::new(Role::System, "Be brief."));
    app.press("esc ctrl+u");
    app.enter("/prompt long");
    assert_eq!(app.notice(), "no prompt `long`; there is brief");
}

#[test]
fn status_is_one_line() {
    let mut app = App::new();
    app.turn("hello", "good");
    app.enter("more");
    let usage = crate::chat::Usage { prompt_tokens: Some(30), cached_tokens: None, output_tokens: Some(12) };
    app.event(2, GenEvent::Usage(usage));
    app.enter("/status");
    assert_eq!(
        app.notice(),
        "session 00000001-00000002 · local · tiny · 2 turns · context 42 tokens · 12 tokens written · saved"
    );
}

#[test]
fn stop_stops() {
    let mut app = App::new();
    app.enter("/stop");
    assert_eq!(app.notice(), "no turn is running");
    app.enter("hello");
    assert_eq!(app.enter("/stop")[0], Effect::Cancel(key(1, 1)));
    assert_eq!((app.draft(), app.model.turns.len()), ("hello", 0));
}

#[test]
fn retry_without_a_question() {
    let mut app = App::new();
    assert_eq!(app.enter("/retry"), []);
    assert_eq!(app.model.notice, warn("nothing was asked yet"));
}

#[test]
fn the_leader_waits_for_one_key() {
    let mut app = App::new();
    assert_eq!(app.press("ctrl+x"), []);
    assert!(app.model.pending.leader.is_some());
    app.press("z");
    assert_eq!(app.notice(), "ctrl+x z means nothing; ctrl+x ? lists the keys");
    assert_eq!((app.model.pending.leader, app.draft()), (None, ""));
    app.press("ctrl+x esc x");
    assert_eq!(app.draft(), "x");
}

#[test]
fn help_opens_scrolls_and_closes() {
    for open in ["?", "/ h e l p enter", "/ ? enter", "ctrl+x ?"] {
        let mut app = App::new();
        app.press(open);
        assert_eq!(app.model.overlays, [Overlay::Help { top: 0 }], "{open}");
        app.press("down j pagedown");
        assert_eq!(app.model.overlays, [Overlay::Help { top: 14 }]);
        app.press("up pageup home");
        assert_eq!(app.model.overlays, [Overlay::Help { top: 0 }]);
        app.press("end pagedown");
        let last = crate::keymap::help().len() - 12;
        assert_eq!(app.model.overlays, [Overlay::Help { top: last }]);
        app.press("q");
        assert_eq!((app.model.overlays.len(), app.draft()), (0, ""));
    }
    let mut app = App::new();
    app.typed("why?");
    assert_eq!(app.draft(), "why?");
}

#[test]
fn every_slash_command_does_something() {
    for spec in COMMANDS {
        for name in spec.slash {
            let mut app = App::new();
            app.turn("hello", "good");
            let before = app.model.clone();
            let effects = app.enter(&format!("/{name}"));
            assert!(
                !effects.is_empty()
                    || app.model.notice != before.notice
                    || app.model.overlays != before.overlays,
                "/{name}"
            );
            assert_eq!(app.draft(), "", "/{name}");
        }
    }
}
