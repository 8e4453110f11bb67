//! The loop under a paused clock, with a screen, an update and a runner that only take notes.

use super::*;
use crate::app::NewModel;
use crate::app::model::{Prefs, Saving};
use crate::app::turn::{Attempt, Lane, Phase, Prose, Turn};
use crate::chat::{GenRequest, LaneId, Metrics, Sampling, SessionId, TurnId};
use crate::keymap::{Chord, Key};
use crate::router::{Decision, Target};
use crate::runtime::frames::Link;
use crate::text::Shown;
use pretty_assertions::assert_eq;
use std::cell::RefCell;
use std::rc::Rc;
use tokio::sync::mpsc;

const KEY: GenKey = GenKey { turn: TurnId(1), lane: LaneId(0), attempt: 1 };

fn model() -> Model {
    Model::new(NewModel {
        session: SessionId::new(1, 2),
        system: None,
        prompt_name: None,
        saving: Saving::On,
        prefs: Prefs {
            pin: Target::default(),
            configured: Target::default(),
            sampling: Sampling::default(),
            max_tokens: None,
            theme: "default".to_owned(),
            themes: Vec::new(),
            prompts: Vec::new(),
        },
        backends: Vec::new(),
        routing: crate::app::routing::Routing::default(),
        history: Vec::new(),
        restored: None,
        size: (80, 24),
    })
}

fn turn_with_answer(text: &str) -> Turn {
    let decision = Decision::default();
    let attempt = Attempt {
        key: KEY,
        decision,
        story: crate::app::story::Story::default(),
        hope: crate::app::story::Hope::default(),
        quantisation: None,
        phase: Phase::Sending,
        answer: Prose::finished(text),
        thinking: Prose::default(),
        thinking_open: false,
        first_code: 1,
        entered_at: Duration::ZERO,
        metrics: Metrics::default(),
    };
    Turn {
        id: KEY.turn,
        user: String::new(),
        user_shown: Shown::default(),
        created_ms: 0,
        lanes: vec![Lane { id: KEY.lane, attempts: vec![attempt] }],
        kept: None,
        fence: None,
    }
}

/// What happened, in order.
#[derive(Clone, Debug, PartialEq)]
enum Event {
    Msg(Msg),
    Frame { at: Duration, extent: Extent, attempts: Vec<GenKey> },
    Ran(Effect),
    Suspended,
    Retaken,
}

type Log = Rc<RefCell<Vec<Event>>>;

struct FakeScreen {
    log: Log,
    clock: Clock,
    size: Rc<RefCell<(u16, u16)>>,
}

impl Screen for FakeScreen {
    fn size(&self) -> (u16, u16) {
        *self.size.borrow()
    }
    fn show(&mut self, picture: Picture, extent: Extent) {
        let at = self.clock.now();
        self.log.borrow_mut().push(Event::Frame { at, extent, attempts: picture.attempts });
    }
    fn suspend(&mut self) {
        self.log.borrow_mut().push(Event::Suspended);
    }
    fn retake(&mut self) {
        self.log.borrow_mut().push(Event::Retaken);
    }
}

struct FakeRunner(Log);

impl Run for FakeRunner {
    fn run(&mut self, effect: Effect) {
        self.0.borrow_mut().push(Event::Ran(effect));
    }
    fn after(&mut self, _model: &Model) {}
}

/// The other ends of the loop's sources.
struct World {
    signals: mpsc::Sender<Signal>,
    input: mpsc::Sender<Input>,
    painted: mpsc::UnboundedSender<Painted>,
    news: mpsc::Sender<News>,
    size: Rc<RefCell<(u16, u16)>>,
    log: Log,
    clock: Clock,
}

impl World {
    fn key(&self, c: char) {
        self.input.try_send(Input::Key(Chord::plain(Key::Char(c)))).expect("room");
    }

    fn news(&self, msg: Msg) {
        self.news.try_send(msg.into()).expect("room");
    }

    async fn until(&self, ms: u64) {
        tokio::time::sleep_until(self.clock.moment(Duration::from_millis(ms))).await;
    }

    fn frames(&self) -> Vec<u64> {
        let at = |event: &Event| match event {
            Event::Frame { at, .. } => u64::try_from(at.as_millis()).ok(),
            _ => None,
        };
        self.log.borrow().iter().filter_map(at).collect()
    }

    fn messages(&self) -> Vec<Msg> {
        let msg = |event: &Event| match event {
            Event::Msg(msg) => Some(msg.clone()),
            _ => None,
        };
        self.log.borrow().iter().filter_map(msg).collect()
    }
}

fn starting() -> Msg {
    Msg::Engine(crate::app::EngineNews::Starting)
}

/// Runs the loop with an update that does what `react` says, while `script` plays; returns how it ended.
async fn play(
    mut react: impl FnMut(&mut Model, &Msg) -> Vec<Effect>,
    facts: FrameFacts,
    script: impl AsyncFnOnce(&World),
) -> (Option<End>, World) {
    let clock = Clock::start();
    let log = Log::default();
    let size = Rc::new(RefCell::new((80, 24)));
    let (signals, signals_in) = mpsc::channel(16);
    let (input, input_in) = mpsc::channel(4096);
    let (painted, painted_in) = mpsc::unbounded_channel();
    let (news, news_in) = mpsc::channel(4096);
    let world = World { signals, input, painted, news, size: Rc::clone(&size), log: Rc::clone(&log), clock };
    let mut sources = Sources { signals: signals_in, input: input_in, painted: painted_in, news: news_in };
    let update = {
        let log = Rc::clone(&log);
        move |model: &mut Model, msg: Msg, _ctx: &Ctx<'_>| {
            let effects = react(model, &msg);
            log.borrow_mut().push(Event::Msg(msg));
            effects
        }
    };
    let view = move |_: &Model, _: &Theme, _: &mut Frame<'_>| facts.clone();
    let screen = FakeScreen { log: Rc::clone(&log), clock, size };
    let (theme, _) = Theme::load("default", None).expect("the default theme");
    let parts = (screen, FakeRunner(log));
    let mut event_loop =
        EventLoop::new(model(), theme, (update, view), parts, (clock, Pacing::new(Link::Local)));
    event_loop.draw_first();
    let end = tokio::select! {
        biased;
        end = event_loop.run(&mut sources) => Some(end),
        () = script(&world) => None,
    };
    (end, world)
}

fn nothing(_: &mut Model, _: &Msg) -> Vec<Effect> {
    Vec::new()
}

#[tokio::test(start_paused = true)]
async fn without_news_there_is_one_frame_and_no_other() {
    let (end, world) = play(nothing, FrameFacts::default(), async |world| world.until(60_000).await).await;
    assert_eq!((end, world.frames()), (None, vec![0]));
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_drawn_thirty_times_a_second_and_keys_at_once() {
    let (_, world) = play(nothing, FrameFacts::default(), async |world| {
        for ms in 100..200 {
            world.until(ms).await;
            world.news(starting());
            if ms == 150 {
                world.key('k');
            }
        }
    })
    .await;
    assert_eq!(world.frames(), [0, 100, 133, 150, 183]);
}

#[tokio::test(start_paused = true)]
async fn keys_go_before_news_and_none_is_lost() {
    let (_, world) = play(nothing, FrameFacts::default(), async |world| {
        for _ in 0..2000 {
            world.news(starting());
        }
        for n in 0..1000_u32 {
            world.key(char::from_u32(0x4e00 + n).expect("a character"));
        }
        world.until(1000).await;
    })
    .await;
    let messages = world.messages();
    let keys: Vec<usize> = messages
        .iter()
        .enumerate()
        .filter_map(|(index, msg)| matches!(msg, Msg::Key(_)).then_some(index))
        .collect();
    assert_eq!((messages.len(), keys.len()), (3000, 1000));
    assert!(keys[999] < 1000 + 4 * BATCH_BEFORE_KEYS + 4, "the last key came after {} messages", keys[999]);
    assert!(world.frames().len() < 20);
}

#[tokio::test(start_paused = true)]
async fn timers_fire_once_and_a_second_one_replaces_the_first() {
    let react = |_: &mut Model, msg: &Msg| match msg {
        Msg::Key(_) => vec![Effect::Timer { id: TimerId::Notice, after: Duration::from_millis(500) }],
        _ => Vec::new(),
    };
    let (_, world) = play(react, FrameFacts::default(), async |world| {
        world.until(100).await;
        world.key('a');
        world.until(300).await;
        world.key('b');
        world.until(799).await;
        assert_eq!(world.messages().len(), 2);
        world.until(5000).await;
    })
    .await;
    assert_eq!(world.messages()[2..], [Msg::Timer(TimerId::Notice)]);
    assert_eq!(world.frames(), [0, 100, 300, 800]);
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_resizes_is_one_message_with_the_last_size() {
    let (_, world) = play(nothing, FrameFacts::default(), async |world| {
        world.until(50).await;
        for n in 1..=10 {
            *world.size.borrow_mut() = (n, n);
            world.signals.try_send(Signal::Resized).expect("room");
        }
        world.until(1000).await;
    })
    .await;
    assert_eq!(world.messages(), [Msg::Resize { cols: 10, rows: 10 }]);
    let log = world.log.borrow();
    assert!(matches!(log.last(), Some(Event::Frame { extent: Extent::All, .. })), "{log:?}");
}

#[tokio::test(start_paused = true)]
async fn a_signal_ends_it_after_the_app_has_saved() {
    let job = crate::chat::record::StoreJob::RememberInput { text: "draft".to_owned(), created_ms: 0 };
    let saving = job.clone();
    let react = move |_: &mut Model, msg: &Msg| match msg {
        Msg::Terminate => vec![Effect::Store(saving.clone()), Effect::Quit { code: 0 }],
        _ => Vec::new(),
    };
    let (end, world) = play(react, FrameFacts::default(), async |world| {
        world.signals.try_send(Signal::End(15)).expect("room");
        world.until(1000).await;
    })
    .await;
    assert_eq!(end, Some(End::Signal(15)));
    assert_eq!(world.log.borrow()[1..], [Event::Msg(Msg::Terminate), Event::Ran(Effect::Store(job))]);
}

#[tokio::test(start_paused = true)]
async fn a_lost_terminal_and_the_quit_effect_end_it_too() {
    let (end, _) = play(nothing, FrameFacts::default(), async |world| {
        world.input.try_send(Input::Lost).expect("room");
        world.until(1000).await;
    })
    .await;
    assert_eq!(end, Some(End::Signal(1)));
    let react = |_: &mut Model, msg: &Msg| match msg {
        Msg::Key(_) => vec![Effect::Quit { code: 3 }],
        _ => Vec::new(),
    };
    let (end, world) = play(react, FrameFacts::default(), async |world| {
        world.key('q');
        world.key('x');
        world.until(1000).await;
    })
    .await;
    assert_eq!((end, world.messages().len()), (Some(End::Quit(3)), 1));
}

#[tokio::test(start_paused = true)]
async fn going_on_after_a_stop_draws_everything_at_the_new_size() {
    let react = |_: &mut Model, msg: &Msg| match msg {
        Msg::Key(_) => vec![Effect::Suspend],
        _ => Vec::new(),
    };
    let (_, world) = play(react, FrameFacts::default(), async |world| {
        world.until(100).await;
        *world.size.borrow_mut() = (40, 12);
        world.key('z');
        world.until(200).await;
        world.signals.try_send(Signal::Continue).expect("room");
        world.until(300).await;
    })
    .await;
    let at = |ms| Event::Frame { at: Duration::from_millis(ms), extent: Extent::All, attempts: Vec::new() };
    let key = Msg::Key(Chord::plain(Key::Char('z')));
    assert_eq!(
        world.log.borrow()[1..],
        [
            Event::Msg(key),
            Event::Suspended,
            Event::Msg(Msg::Resize { cols: 40, rows: 12 }),
            at(100),
            Event::Retaken,
            at(200)
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn the_first_painting_is_told_once_and_only_for_text_in_view() {
    let react = |model: &mut Model, msg: &Msg| match msg {
        Msg::Key(Chord { key: Key::Char('s'), .. }) => {
            let request = GenRequest {
                model: String::new(),
                messages: Vec::new(),
                sampling: Sampling::default(),
                max_tokens: None,
                stop: Vec::new(),
                schema: None,
                session: None,
                is_ahead: false,
            };
            vec![Effect::Generate { key: KEY, backend: "b".to_owned(), request: Box::new(request) }]
        }
        Msg::Key(_) => {
            model.turns = vec![turn_with_answer("text")];
            Vec::new()
        }
        _ => Vec::new(),
    };
    let facts = |top_row| FrameFacts {
        viewport_rows: 10,
        total_rows: 30,
        top_row,
        composer_width: 80,
        turn_rows: vec![20],
        ..FrameFacts::default()
    };
    for (top_row, expected) in
        [(20, vec![vec![], vec![], vec![KEY], vec![KEY], vec![]]), (5, vec![vec![]; 4])]
    {
        let (_, world) = play(react, facts(top_row), async |world| {
            for (ms, key) in [(100, 's'), (200, 't'), (300, 't')] {
                world.until(ms).await;
                world.key(key);
            }
            world.until(400).await;
            if top_row == 20 {
                world.painted.send((KEY, Duration::from_millis(201))).expect("the loop is there");
                world.painted.send((KEY, Duration::from_millis(301))).expect("the loop is there");
            }
            world.until(500).await;
        })
        .await;
        let frames: Vec<_> = world
            .log
            .borrow()
            .iter()
            .filter_map(|event| match event {
                Event::Frame { attempts, .. } => Some(attempts.clone()),
                _ => None,
            })
            .collect();
        assert_eq!(frames, expected, "top row {top_row}");
        let painted = Msg::Painted { key: KEY, at: Duration::from_millis(201) };
        assert_eq!(
            world.messages().iter().filter(|msg| **msg == painted).count(),
            usize::from(top_row == 20)
        );
    }
}
