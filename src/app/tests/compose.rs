//! The input field: Enter, newlines, history, completion, pastes.

use super::*;
use crate::keymap::{Chord, Key};
use pretty_assertions::assert_eq;

fn items(app: &App) -> Vec<&str> {
    let completion = app.model.composer.completion.as_ref();
    completion.map_or_else(Vec::new, |c| c.items.iter().map(|(name, _)| name.as_str()).collect())
}

#[test]
fn five_ways_to_a_new_line() {
    for newline in ["ctrl+j", "shift+enter", "alt+enter", "ctrl+enter", "\\ enter"] {
        let mut app = App::new();
        app.typed("a");
        assert_eq!(app.press(newline), []);
        app.typed("b");
        assert_eq!(app.draft(), "a\nb", "{newline}");
    }
}

#[test]
fn blank_drafts_are_not_sent() {
    let mut app = App::new();
    assert_eq!(app.press("enter"), []);
    app.typed(" ");
    assert_eq!(app.press("ctrl+j enter"), []);
    assert_eq!(app.draft(), " \n");
    app.press("ctrl+c");
    assert_eq!((app.draft(), app.model.composer.history.len()), ("", 0));
}

#[test]
fn readline_keys_reach_the_draft() {
    let cases = [
        ("a b", "ctrl+a x", "xa b"),
        ("a b", "ctrl+b ctrl+b x", "ax b"),
        ("a b", "home ctrl+f x", "ax b"),
        ("a b", "alt+b x", "a xb"),
        ("a b", "home alt+f x", "ax b"),
        ("a b", "ctrl+left x", "a xb"),
        ("a b", "ctrl+w", "a "),
        ("a b.c", "alt+backspace", "a b."),
        ("a b", "ctrl+u", ""),
        ("a b", "ctrl+a ctrl+k", ""),
        ("a b", "ctrl+w ctrl+y ctrl+y", "a bb"),
        ("a b", "ctrl+_", "a "),
        ("a b", "ctrl+7 alt+/", "a b"),
        ("a b", "home alt+d", " b"),
        ("a b", "home delete", " b"),
        ("a b", "ctrl+h", "a "),
    ];
    for (text, keys, expected) in cases {
        let mut app = App::new();
        app.typed(text);
        app.press(keys);
        assert_eq!(app.draft(), expected, "{text:?} {keys}");
    }
}

#[test]
fn history_begins_at_the_edges_and_keeps_the_draft() {
    let mut app = App::with(|args| args.history = vec!["first".to_owned(), "second\nline".to_owned()]);
    app.typed("dr\naft");
    app.press("up");
    assert_eq!(app.draft(), "dr\naft", "a row up");
    app.press("up");
    assert_eq!(app.draft(), "second\nline");
    app.press("up");
    assert_eq!(app.draft(), "second\nline", "a row up in it");
    app.press("up");
    assert_eq!(app.draft(), "first");
    app.press("up");
    assert_eq!(app.draft(), "first", "the oldest");
    app.press("down down");
    assert_eq!(app.draft(), "dr\naft", "the draft is at the bottom: its cursor was at the end of the entry");
    app.press("down");
    assert_eq!(app.draft(), "dr\naft");
    app.press("ctrl+p ctrl+p ctrl+n ctrl+n");
    assert_eq!(app.draft(), "dr\naft");
    assert_eq!(app.model.composer.recalled, None);
}

#[test]
fn a_recalled_input_is_sent_and_the_draft_returns() {
    let mut app = App::with(|args| args.history = vec!["old".to_owned(), "newer".to_owned()]);
    app.typed("draft");
    app.press("ctrl+p ctrl+p enter");
    assert_eq!(app.model.turns[0].user, "old");
    assert_eq!(app.draft(), "draft");
    assert_eq!(app.model.composer.history, ["newer", "old"], "without its double");
}

#[test]
fn a_changed_input_becomes_one_of_its_own() {
    let mut app = App::with(|args| args.history = vec!["old".to_owned()]);
    app.press("ctrl+p");
    app.typed("er");
    app.press("ctrl+n");
    assert_eq!(
        (app.draft(), app.model.composer.history.as_slice()),
        ("older", &["old".to_owned(), "older".to_owned()][..])
    );
    app.press("ctrl+n");
    assert_eq!(app.draft(), "");
    app.press("ctrl+p ctrl+p");
    assert_eq!((app.draft(), app.model.composer.history.len()), ("old", 2));
}

#[test]
fn history_search_finds_and_keeps_the_draft() {
    let mut app = App::with(|args| args.history = vec!["list files".to_owned(), "count words".to_owned()]);
    app.typed("draft");
    app.press("ctrl+r");
    app.typed("fil");
    app.press("enter");
    assert_eq!(app.draft(), "list files");
    app.press("ctrl+n ctrl+n");
    assert_eq!(app.draft(), "draft");
    app.press("ctrl+r esc");
    assert_eq!(app.draft(), "draft");
    let mut app = App::new();
    app.press("ctrl+r");
    assert_eq!(app.model.notice, warn("no earlier messages yet"));
}

#[test]
fn a_leading_blank_keeps_a_message_out_of_the_stored_history() {
    let mut app = App::new();
    let effects = app.enter(" private");
    assert!(!effects.iter().any(|e| matches!(e, Effect::Store(StoreJob::RememberInput { .. }))));
    assert_eq!(app.model.composer.history, [" private"]);
}

#[test]
fn the_popup_follows_the_word() {
    let mut app = App::new();
    app.typed("/");
    assert!(items(&app).len() > 10);
    app.typed("th");
    assert_eq!(items(&app)[..2], ["/think", "/theme [name]"]);
    app.press("down tab");
    assert_eq!((app.draft(), items(&app).len()), ("/theme ", 0));
    app.press("ctrl+u");
    app.typed("/s");
    app.press("down down up enter");
    assert_eq!(app.draft(), "/sessions", "enter on one of several completes it");
    app.press("enter");
    assert_eq!(app.model.overlays.len(), 1, "and then runs it");
    app.press("esc");
    for text in ["x/", "/usr/", "/model ", "/nosuchthing"] {
        app.press("ctrl+u");
        app.typed(text);
        assert_eq!(items(&app), Vec::<&str>::new(), "{text}");
    }
}

#[test]
fn enter_runs_a_unique_match_or_an_exact_one() {
    let mut app = App::new();
    app.enter("/hel");
    assert_eq!(app.model.overlays.len(), 1);
    app.press("esc");
    assert_eq!(app.draft(), "");
    assert_eq!(app.enter("/q"), [Effect::Quit { code: 0 }]);
}

#[test]
fn pasted_text_is_text() {
    let mut app = App::new();
    assert_eq!(app.msg(Msg::Paste("/quit\r\n?\u{1B}[2Jr".to_owned())), [timer(TimerId::PasteTail, 50)]);
    assert_eq!((app.draft(), items(&app).len()), ("/quit\n?r", 0));

    let mut app = App::new();
    let code = "let x = 1;\n".repeat(84);
    app.typed("see ");
    app.msg(Msg::Paste(format!("/{code}")));
    assert_eq!(app.draft(), "see \u{F0000}");
    app.wait(51);
    let effects = app.press("enter");
    assert_eq!(messages(&effects), [user(format!("see /{code}").trim_end())]);

    let mut app = App::new();
    app.msg(Msg::Paste(format!("/quit {}", "x".repeat(2000))));
    app.wait(51).press("enter");
    assert_eq!(app.model.turns.len(), 1, "a chip is text, whatever it begins with");
}

#[test]
fn keys_right_after_a_paste_are_its_tail() {
    let mut app = App::new();
    app.msg(Msg::Paste("rm -rf ".to_owned()));
    for chord in [
        Chord::plain(Key::Char('x')),
        Chord::plain(Key::Enter),
        Chord::plain(Key::Char('/')),
        Chord::plain(Key::Tab),
        Chord::ctrl('c'),
        Chord::ctrl('d'),
        Chord::plain(Key::Esc),
        Chord::ctrl('j'),
    ] {
        app.wait(49);
        assert_eq!(app.msg(Msg::Key(chord)), []);
    }
    assert_eq!(app.draft(), "rm -rf x\n/\t\n");
    app.wait(49).msg(Msg::Timer(TimerId::PasteTail));
    assert!(app.model.pending.paste_until.is_some(), "an early timer changes nothing");
    app.wait(1);
    assert!(app.press("enter").len() > 3, "a later key is a key");
    assert_eq!(app.model.turns[0].user, "rm -rf x\n/");
}

#[test]
fn hidden_and_enormous_pastes() {
    let mut app = App::new();
    app.msg(Msg::Paste("hi\u{E0041}".to_owned()));
    assert_eq!((app.draft(), app.notice()), ("hi", "1 control character removed from the paste"));
    app.msg(Msg::Paste("x".repeat((16 << 20) + 1)));
    assert_eq!(app.draft(), "hi");
    assert!(app.notice().starts_with("that paste has 16 MiB, more than the 16 MiB"), "{}", app.notice());
}

#[test]
fn a_paste_into_a_list_is_its_filter() {
    let mut app = App::new();
    app.press("f2");
    app.msg(Msg::Paste("big\nx".to_owned()));
    let Some(crate::app::model::Overlay::Picker(picker)) = app.model.overlays.last() else {
        panic!("a list")
    };
    assert_eq!((picker.filter.text(), picker.matches.len()), ("big", 1));
    assert_eq!(app.draft(), "");
}

#[test]
fn what_a_paste_loses_is_said() {
    let mut app = App::new();
    app.msg(Msg::Paste("\u{1B}[31mred\u{1B}[0m\0".to_owned()));
    assert_eq!((app.draft(), app.notice()), ("red", "3 control characters removed from the paste"));
    app.wait(100).msg(Msg::Paste("a\r\nb".to_owned()));
    assert_eq!(app.notice(), "", "line ends are not lost");
}
