//! Whatever happens in whatever order: some things hold.

use super::*;
use crate::app::EngineNews;
use crate::app::turn::{Attempt, Lane};
use proptest::prelude::*;
use std::collections::{HashMap, HashSet};

#[derive(Clone, Debug)]
enum Act {
    Press(&'static str),
    Type(&'static str),
    Paste(&'static str),
    Event(u32, u32, GenEvent),
    /// An event for the attempt that was started last.
    Last(GenEvent),
    Msg(Msg),
    Wait(u64),
}

fn event() -> impl Strategy<Value = GenEvent> {
    prop_oneof![
        Just(GenEvent::Accepted),
        Just(GenEvent::Loading { fraction: 0.5 }),
        Just(GenEvent::Prefill { done: 1, total: 2, cached: 0 }),
        Just(GenEvent::Usage(crate::chat::Usage { output_tokens: Some(3), ..Default::default() })),
        Just(thinking("hm")),
        Just(delta("text ")),
        Just(delta("")),
        Just(done()),
        Just(failed("gone")),
        Just(GenEvent::Failed(GenError::new(GenErrorKind::Unreachable, "no route"))),
    ]
}

/// Two machines; whether turns move by themselves.
fn two(moves: bool) -> impl FnOnce(&mut NewModel) {
    move |args: &mut NewModel| {
        args.backends.push(BackendView {
            name: "mac".to_owned(),
            default_model: Some("large".to_owned()),
            models: vec![card("large", false)],
            ..BackendView::default()
        });
        if moves {
            args.routing.rules.fallback = crate::config::Fallback::Auto;
        }
        args.routing.aliases = vec![crate::config::AliasConfig {
            name: "deep".to_owned(),
            targets: vec!["mac/large".to_owned()],
            variants: Vec::new(),
            pick: crate::config::Pick::First,
        }];
    }
}

fn act() -> impl Strategy<Value = Act> {
    let keys = prop::sample::select(vec![
        "enter",
        "esc",
        "ctrl+c",
        "ctrl+d",
        "up",
        "down",
        "ctrl+p",
        "ctrl+n",
        "r",
        "?",
        "ctrl+x",
        "m",
        "n",
        "s",
        "y",
        "f2",
        "tab",
        "ctrl+o",
        "ctrl+r",
        "pageup",
        "end",
        "backspace",
        "ctrl+u",
        "ctrl+y",
        "ctrl+_",
        "ctrl+j",
        "c",
        "w",
        "backtab",
    ]);
    let lines = prop::sample::select(vec![
        "hello",
        "two\nlines",
        "/retry",
        "/stop",
        "/new",
        "/system x",
        "/model big",
        "/theme light",
        "//x",
        "/nope",
        "/prompt brief",
        "\\",
        " ",
        "/copy",
        "/quit",
        "/models",
        "/load big",
        "/escalate",
        "/escalate tiny",
        "/continue",
        "/retry --on mac",
        "/keep 2",
        "/on mac x",
        "/use auto",
        "/deep x",
        "/why",
        "/route x",
        "/stats",
        "/backends",
        "/fence lift",
    ]);
    let news = prop::sample::select(vec![
        Msg::Engine(EngineNews::Died { message: "x".to_owned(), residents: vec!["tiny".to_owned()] }),
        Msg::Engine(EngineNews::Failed { message: "x".to_owned() }),
        Msg::Engine(EngineNews::Ready),
        Msg::StoreFailed { message: "full".to_owned() },
        Msg::StoreRecovered,
        Msg::Timer(TimerId::Tick),
        Msg::Timer(TimerId::Notice),
        Msg::Timer(TimerId::QuitArmed),
        Msg::Timer(TimerId::PasteTail),
        Msg::Resize { cols: 3, rows: 1 },
        Msg::Models { backend: "local".to_owned(), result: Ok(Listing::default()) },
        Msg::Sessions { result: Ok(vec![]) },
        Msg::Machine { backend: "local".to_owned(), machine: Some(crate::chat::Machine::default()) },
        Msg::Timer(TimerId::Board),
        Msg::Timer(TimerId::Warm),
        Msg::Timer(TimerId::Wait),
        Msg::Probed { backend: "mac".to_owned(), result: Ok(Duration::from_millis(3)) },
        Msg::Probed { backend: "mac".to_owned(), result: Err(GenErrorKind::Unreachable) },
        Msg::Around { on_battery: true, utc_offset_s: 3600 },
        Msg::Stats { result: Ok(Vec::new()) },
    ]);
    prop_oneof![
        6 => keys.prop_map(Act::Press),
        4 => lines.prop_map(Act::Type),
        4 => Just(Act::Press("enter")),
        1 => prop::sample::select(vec!["pasted", "/quit\n"]).prop_map(Act::Paste),
        8 => event().prop_map(Act::Last),
        2 => (1_u32..4, 1_u32..4, event()).prop_map(|(turn, attempt, event)| Act::Event(turn, attempt, event)),
        2 => news.prop_map(Act::Msg),
        2 => (0_u64..3000).prop_map(Act::Wait),
    ]
}

/// What the outside world saw of each attempt, by session.
#[derive(Default)]
struct World {
    running: HashSet<(SessionId, GenKey)>,
    ended: HashSet<(SessionId, GenKey)>,
    stored: HashMap<(SessionId, GenKey), String>,
    opened: HashSet<(SessionId, TurnId)>,
    dropped: HashSet<(SessionId, TurnId)>,
    last: Option<GenKey>,
}

impl World {
    fn see(&mut self, app: &App, effect: &Effect) -> Result<(), TestCaseError> {
        let session = app.model.session.id.clone();
        match effect {
            Effect::Generate { key, .. } => {
                prop_assert!(self.running.is_empty(), "{:?} runs, {key:?} starts", self.running);
                prop_assert!(self.opened.contains(&(session.clone(), key.turn)), "the store knows it first");
                prop_assert!(!self.ended.contains(&(session.clone(), *key)), "{key:?} again");
                self.running.insert((session, *key));
                self.last = Some(*key);
            }
            Effect::Cancel(key) => {
                prop_assert!(self.running.remove(&(session, *key)), "{key:?} was not running");
            }
            Effect::Store(StoreJob::OpenTurn { turn, .. }) => {
                prop_assert!(self.opened.insert((session, *turn)), "{turn:?} twice");
            }
            Effect::Store(StoreJob::DropTurn { turn, .. }) => {
                prop_assert!(self.dropped.insert((session, *turn)));
            }
            Effect::Store(StoreJob::Append { key, channel, text, .. }) => {
                prop_assert!(!self.ended.contains(&(session.clone(), *key)), "text after the end");
                if *channel == Channel::Answer {
                    self.stored.entry((session, *key)).or_default().push_str(text);
                }
            }
            Effect::Store(StoreJob::CloseAttempt { key, .. }) => {
                prop_assert!(self.ended.insert((session.clone(), *key)), "{key:?} ended twice");
                self.running.remove(&(session, *key));
            }
            _ => {}
        }
        Ok(())
    }

    fn agrees(&self, app: &App) -> Result<(), TestCaseError> {
        let session = &app.model.session.id;
        let attempts: Vec<&Attempt> =
            app.model.turns.iter().flat_map(|turn| &turn.lanes).flat_map(|lane| &lane.attempts).collect();
        for attempt in &attempts {
            let at = (session.clone(), attempt.key);
            prop_assert_eq!(attempt.phase.is_terminal(), self.ended.contains(&at), "{:?}", attempt.key);
            let stored = self.stored.get(&at).map_or("", String::as_str);
            prop_assert_eq!(attempt.answer.raw(), stored, "what came is kept, and stored");
        }
        let running = attempts.iter().filter(|attempt| !attempt.phase.is_terminal());
        prop_assert_eq!(running.count(), self.running.len());
        for lane in app.model.turns.iter().flat_map(|turn| &turn.lanes) {
            prop_assert!(lane.attempts.iter().rev().skip(1).all(|attempt| attempt.phase.is_terminal()));
            prop_assert!(Lane::current(lane).is_some());
        }
        for (opened_in, turn) in self.opened.iter().filter(|(opened_in, _)| opened_in == session) {
            let is_there = app.model.turns.iter().any(|there| there.id == *turn);
            prop_assert_ne!(is_there, self.dropped.contains(&(opened_in.clone(), *turn)), "{:?}", turn);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn turns_end_once_and_nothing_is_lost(moves: bool, acts in prop::collection::vec(act(), 0..60)) {
        let mut app = App::with(two(moves));
        let mut world = World::default();
        for act in acts {
            // Each message is an update of its own.
            let msgs: Vec<Msg> = match act {
                Act::Press(chord) => vec![Msg::Key(chord.parse().expect("a chord"))],
                Act::Type(text) => text.chars().map(|c| {
                    Msg::Key(if c == '\n' { crate::keymap::Chord::ctrl('j') } else {
                        crate::keymap::Chord::plain(crate::keymap::Key::Char(c))
                    })
                }).collect(),
                Act::Paste(text) => vec![Msg::Paste(text.to_owned())],
                Act::Event(turn, attempt, event) => {
                    vec![Msg::Gen { key: key(turn, attempt), event, at: app.now }]
                }
                Act::Last(event) => world.last.into_iter().map(|key| Msg::Gen { key, event: event.clone(), at: app.now }).collect(),
                Act::Msg(msg) => vec![msg],
                Act::Wait(ms) => { app.wait(ms); vec![] }
            };
            for msg in msgs {
                // The runtime forgets a generation whose end it reported, and one that was cancelled.
                if let Msg::Gen { key, event: GenEvent::Done { .. } | GenEvent::Failed(_), .. } = &msg {
                    world.running.remove(&(app.model.session.id.clone(), *key));
                }
                for effect in app.msg(msg) {
                    world.see(&app, &effect)?;
                }
                world.agrees(&app)?;
            }
        }
        let mut ended = app.clone();
        for effect in ended.msg(Msg::Terminate) {
            world.see(&ended, &effect)?;
        }
        world.agrees(&ended)?;
        prop_assert!(world.running.is_empty());
    }

    #[test]
    fn no_typed_text_is_lost(moves: bool, acts in prop::collection::vec(act(), 0..40)) {
        let mut app = App::with(|args| {
            two(moves)(args);
            args.history = vec!["old".to_owned(), "older".to_owned()];
        });
        app.typed("123");
        for act in acts {
            match act {
                // These delete what they are told to delete.
                Act::Press("backspace" | "ctrl+d" | "ctrl+u" | "ctrl+y" | "ctrl+_") | Act::Type(_) | Act::Paste(_) => continue,
                Act::Press(chord) => drop(app.press(chord)),
                Act::Event(turn, attempt, event) => drop(app.event_for(key(turn, attempt), event)),
                Act::Last(event) => drop(app.event(1, event)),
                Act::Msg(msg) => drop(app.msg(msg)),
                Act::Wait(ms) => drop(app.wait(ms)),
            }
        }
        let composer = &app.model.composer;
        let displaced = composer.recalled.iter().map(|(_, draft)| draft.expanded());
        let mut places = displaced.chain([composer.buffer.expanded()]).chain(composer.history.iter().cloned());
        // Keys may have typed letters in between.
        let digits = |text: String| text.chars().filter(char::is_ascii_digit).collect::<String>();
        prop_assert!(places.any(|text| digits(text).contains("123")));
    }
}
