//! The app as a whole: messages in, model and effects out, compared as values.

mod board;
mod commands;
mod compose;
mod engine;
mod ladder;
mod pickers;
mod queue;
mod random;
mod resume;
mod routing;
mod scroll;
mod turns;
mod warm;

use super::model::{BackendView, Level, Notice, Prefs, PromptView, Saving};
use super::routing::Routing;
use super::{Ctx, Effect, FrameFacts, Model, Msg, NewModel, TimerId, update};
use crate::chat::record::{AttemptRecord, Outcome, SessionRecord, StoreJob};
use crate::chat::{
    Change, Channel, Finish, GenError, GenErrorKind, GenEvent, GenKey, GenRequest, LaneId, Listing, Message,
    Metrics, ModelCard, ModelState, Role, Sampling, SessionId, TurnId,
};
use crate::router::{Decision, Target};
use crate::text::shown_line;
use std::time::Duration;

/// The wall clock when monotonic time is zero.
const WALL_MS: i64 = 1_700_000_000_000;

/// An app with its clock and its last frame.
#[derive(Clone, Debug)]
struct App {
    model: Model,
    frame: FrameFacts,
    now: Duration,
}

impl App {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut NewModel)) -> Self {
        let mut args = NewModel {
            session: session(),
            system: None,
            prompt_name: None,
            saving: Saving::On,
            prefs: Prefs {
                pin: Target::default(),
                configured: Target::default(),
                sampling: Sampling::default(),
                max_tokens: None,
                theme: "default".to_owned(),
                themes: vec!["default".to_owned(), "light".to_owned()],
                prompts: vec![PromptView {
                    name: "brief".to_owned(),
                    about: "short answers".to_owned(),
                    text: "Be brief.".to_owned(),
                }],
            },
            backends: vec![BackendView {
                name: "local".to_owned(),
                is_engine: true,
                default_model: Some("tiny".to_owned()),
                models: vec![card("tiny", true), card("big", false)],
                ..BackendView::default()
            }],
            routing: Routing::default(),
            history: Vec::new(),
            restored: None,
            size: (80, 24),
        };
        change(&mut args);
        let frame = FrameFacts { composer_width: 40, viewport_rows: 20, cols: 80, ..FrameFacts::default() };
        Self { model: Model::new(args), frame, now: Duration::ZERO }
    }

    fn msg(&mut self, msg: Msg) -> Vec<Effect> {
        let wall_ms = WALL_MS + i64::try_from(self.now.as_millis()).expect("small");
        let ctx = Ctx { now: self.now, wall_ms, frame: &self.frame };
        update(&mut self.model, msg, &ctx)
    }

    /// Lets time pass.
    fn wait(&mut self, ms: u64) -> &mut Self {
        self.now += Duration::from_millis(ms);
        self
    }

    /// Presses keys written as chords, one after the other.
    fn press(&mut self, chords: &str) -> Vec<Effect> {
        chords.split_whitespace().flat_map(|c| self.msg(Msg::Key(c.parse().expect("a chord")))).collect()
    }

    /// Types a text.
    fn typed(&mut self, text: &str) -> &mut Self {
        for c in text.chars() {
            let chord = match c {
                '\n' => crate::keymap::Chord::ctrl('j'),
                c => crate::keymap::Chord::plain(crate::keymap::Key::Char(c)),
            };
            self.msg(Msg::Key(chord));
        }
        self
    }

    /// Types a line and presses Enter.
    fn enter(&mut self, text: &str) -> Vec<Effect> {
        self.typed(text);
        self.press("enter")
    }

    /// An event of attempt 1 of a turn, arriving now.
    fn event(&mut self, turn: u32, event: GenEvent) -> Vec<Effect> {
        self.event_for(key(turn, 1), event)
    }

    fn event_for(&mut self, key: GenKey, event: GenEvent) -> Vec<Effect> {
        let at = self.now;
        self.msg(Msg::Gen { key, event, at })
    }

    /// A whole turn: asked and answered.
    fn turn(&mut self, question: &str, answer: &str) {
        self.enter(question);
        let turn = self.model.turns.last().expect("a turn").id.0;
        self.event(turn, delta(answer));
        self.event(turn, done());
    }

    fn draft(&self) -> &str {
        self.model.composer.buffer.text()
    }

    fn notice(&self) -> &str {
        self.model.notice.as_ref().map_or("", |notice| &notice.text)
    }

    fn phase(&self) -> &super::turn::Phase {
        &self.attempt().phase
    }

    fn attempt(&self) -> &super::turn::Attempt {
        self.model.turns.last().expect("a turn").lanes[0].current().expect("an attempt")
    }
}

fn session() -> SessionId {
    SessionId("00000001-00000002".to_owned())
}

fn card(id: &str, is_builtin: bool) -> ModelCard {
    ModelCard {
        id: id.to_owned(),
        state: ModelState::Unloaded,
        parameters: Some(7_615_616_512),
        bytes: Some(4_683_073_184),
        quantisation: Some("q4_k_m".to_owned()),
        context: Some(32_768),
        is_builtin,
        ..ModelCard::default()
    }
}

const fn key(turn: u32, attempt: u32) -> GenKey {
    GenKey { turn: TurnId(turn), lane: LaneId(0), attempt }
}

fn delta(text: &str) -> GenEvent {
    GenEvent::Delta { channel: Channel::Answer, text: text.to_owned() }
}

fn thinking(text: &str) -> GenEvent {
    GenEvent::Delta { channel: Channel::Thinking, text: text.to_owned() }
}

const fn done() -> GenEvent {
    GenEvent::Done { finish: Finish::Stop, timings: None }
}

fn failed(message: &str) -> GenEvent {
    GenEvent::Failed(error(message))
}

fn error(message: &str) -> GenError {
    GenError::new(GenErrorKind::EngineDied, message)
}

fn user(text: &str) -> Message {
    Message::new(Role::User, text)
}

fn assistant(text: &str) -> Message {
    Message::new(Role::Assistant, text)
}

fn timer(id: TimerId, ms: u64) -> Effect {
    Effect::Timer { id, after: Duration::from_millis(ms) }
}

fn info(text: &str, until_ms: u64) -> Option<Notice> {
    let until = Some(Duration::from_millis(until_ms));
    Some(Notice { text: shown_line(text, 400), level: Level::Info, until })
}

fn warn(text: &str) -> Option<Notice> {
    Some(Notice { text: shown_line(text, 400), level: Level::Warn, until: None })
}

fn bad(text: &str) -> Option<Notice> {
    Some(Notice { text: shown_line(text, 400), level: Level::Bad, until: None })
}

fn remember(text: &str, ms: i64) -> Effect {
    Effect::Store(StoreJob::RememberInput { text: text.to_owned(), created_ms: WALL_MS + ms })
}

fn open_session(title: &str) -> Effect {
    Effect::Store(StoreJob::OpenSession(SessionRecord {
        id: session(),
        created_ms: WALL_MS,
        title: title.to_owned(),
        system: None,
    }))
}

fn open_turn(turn: u32, user: &str, ms: i64) -> Effect {
    Effect::Store(StoreJob::OpenTurn {
        session: session(),
        turn: TurnId(turn),
        user: user.to_owned(),
        created_ms: WALL_MS + ms,
    })
}

fn open_attempt(key: GenKey) -> Effect {
    open_attempt_by(key, "default", "nothing else was chosen")
}

/// As [`open_attempt`], decided by this rule for this reason.
fn open_attempt_by(key: GenKey, rule: &str, reason: &str) -> Effect {
    Effect::Store(StoreJob::OpenAttempt {
        session: session(),
        attempt: Box::new(AttemptRecord {
            key,
            backend: "local".to_owned(),
            model: "tiny".to_owned(),
            quantisation: Some("q4_k_m".to_owned()),
            rule: rule.to_owned(),
            reason: reason.to_owned(),
            decision: decided(rule, reason),
            answer: String::new(),
            thinking: String::new(),
            outcome: Outcome::Open,
            metrics: Metrics::default(),
        }),
    })
}

/// What is kept of a plain decision.
fn decided(rule: &str, reason: &str) -> String {
    let decision = Decision {
        backend: "local".to_owned(),
        model: "tiny".to_owned(),
        rule: rule.to_owned(),
        reason: reason.to_owned(),
        ..Decision::default()
    };
    super::story::to_json(&decision, &super::story::Story::default())
}

fn close(key: GenKey, outcome: Outcome, metrics: Metrics) -> Effect {
    Effect::Store(StoreJob::CloseAttempt { session: session(), key, outcome, metrics: Box::new(metrics) })
}

fn append(key: GenKey, channel: Channel, text: &str) -> Effect {
    Effect::Store(StoreJob::Append { session: session(), key, channel, text: text.to_owned() })
}

fn generate(key: GenKey, messages: Vec<Message>) -> Effect {
    Effect::Generate {
        key,
        backend: "local".to_owned(),
        request: Box::new(GenRequest {
            model: "tiny".to_owned(),
            messages,
            sampling: Sampling::default_for(true),
            max_tokens: None,
            stop: Vec::new(),
            schema: None,
            session: Some(session().to_string()),
            is_ahead: false,
        }),
    }
}

/// What asking emits after the session is known.
fn asked(turn: u32, text: &str, messages: Vec<Message>, ms: i64) -> Vec<Effect> {
    let again = || open_attempt_by(key(turn, 1), "session", "as before");
    vec![
        open_turn(turn, text, ms),
        if turn == 1 { open_attempt(key(turn, 1)) } else { again() },
        remember(text, ms),
        generate(key(turn, 1), messages),
        timer(TimerId::Tick, 200),
    ]
}

/// The messages of the generation started by these effects.
fn messages(effects: &[Effect]) -> Vec<Message> {
    let found = effects.iter().find_map(|effect| match effect {
        Effect::Generate { request, .. } => Some(request.messages.clone()),
        _ => None,
    });
    found.expect("a generation")
}
