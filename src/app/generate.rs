//! Turns, lanes and attempts: asking, what comes back, stopping, asking again.
//!
//! An attempt reaches exactly one terminal phase, and then takes nothing more in but the time of its first
//! painted frame. At most one turn runs; further messages wait in the queue.

use super::effect::{Effect, TimerId};
use super::facts::Refusal;
use super::model::{QueueFlow, Restart};
use super::notice::one_line;
use super::story::{self, Story};
use super::turn::{Attempt, Lane, Phase, Prose, Turn};
use super::update::Step;
use super::{facts, history, learn, restore};
use crate::chat::record::{AttemptRecord, FenceRecord, Outcome, SessionRecord, StoreJob};
use crate::chat::{
    Channel, Finish, GenError, GenErrorKind, GenEvent, GenKey, GenRequest, LaneId, Metrics, TurnId,
};
use crate::command;
use crate::router::{self, BackendFacts, Decision, Facts, Target};
use crate::text::{EditBuffer, Shown, shown, shown_line};
use std::time::Duration;

/// Between two redraws of a receipt that counts while nothing streams.
const TICK: Duration = Duration::from_millis(200);
/// The same while it streams: text draws by itself, a stall has to be seen all the same.
const STREAM_TICK: Duration = Duration::from_secs(1);

/// Where a message is that could not go back into the composer.
pub(super) const TAKEN_BACK: &str = "taken back: ctrl+p brings the message back";

/// Whether a message went back into the composer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Returned {
    Yes,
    No,
}

/// Whether a message is in the input history already.
#[derive(Clone, Copy)]
pub(super) enum Input<'a> {
    /// Not yet; this is the line as it was typed.
    New(&'a str),
    Remembered,
}

impl Step<'_> {
    /// Asks. Returns whether it went out; if not, the reason was said and the text is still the caller's.
    pub(super) fn send(&mut self, text: &str, input: Input<'_>) -> bool {
        let facts = self.model.facts_for(text);
        let Some(decision) = self.send_by(&facts, text, input) else { return false };
        // The next turn goes on there, as far as nothing speaks against it.
        self.model.session.target = Target { backend: Some(decision.backend), model: Some(decision.model) };
        true
    }

    /// The same to this target, for this turn alone.
    pub(super) fn send_on(&mut self, on: Target, text: &str, input: Input<'_>) -> bool {
        let facts = Facts { pin: on, ..self.model.facts_for(text) };
        self.send_by(&facts, text, input).is_some()
    }

    fn send_by(&mut self, facts: &Facts, text: &str, input: Input<'_>) -> Option<Decision> {
        let decision = self.decide(facts)?;
        self.dismiss_info();
        let routing = &mut self.model.routing;
        (routing.offer, routing.wait) = (None, None);
        let is_lifted = std::mem::take(&mut routing.is_fence_lifted);
        let last = self.model.turns.iter().map(|turn| turn.id.0).max().unwrap_or(0);
        let id = TurnId(self.model.pending.last_turn.max(last) + 1);
        self.model.pending.last_turn = id.0;
        let session = self.model.session.id.clone();
        if !self.model.session.is_opened {
            self.open_session(text);
        }
        let (user, created_ms) = (text.to_owned(), self.ctx.wall_ms);
        self.store(StoreJob::OpenTurn { session: session.clone(), turn: id, user, created_ms });
        // That the fence was lifted is worth keeping only where it had something to say.
        let is_lifted = is_lifted && !facts.turn.fenced.is_empty();
        let fence = is_lifted.then(|| FenceRecord { files: Vec::new(), is_lifted });
        if let Some(fence) = fence.clone() {
            self.store(StoreJob::Fence { session, turn: id, fence });
        }
        self.model.turns.push(Turn {
            id,
            user: text.to_owned(),
            user_shown: shown(text),
            created_ms: self.ctx.wall_ms,
            lanes: vec![Lane { id: LaneId(0), attempts: Vec::new() }],
            kept: None,
            fence,
        });
        let key = GenKey { turn: id, lane: LaneId(0), attempt: 1 };
        let request = self.open_attempt(key, &decision, Story::default());
        if let Input::New(line) = input {
            self.remember(line);
        }
        self.start(key, decision.backend.clone(), request);
        Some(decision)
    }

    /// Where a question with these facts goes. None: the reason was said.
    pub(super) fn decide(&mut self, facts: &Facts) -> Option<Decision> {
        match facts::decide(facts) {
            Ok(decision) => return Some(decision),
            Err(Refusal::Fenced(error)) => self.bad(&error.message),
            Err(Refusal::Other(why)) => self.cannot_go(facts, &why),
        }
        None
    }

    /// Says why nothing can be sent. A backend whose models are not known is asked for them once more: one
    /// that came up meanwhile takes the next attempt.
    pub(super) fn cannot_go(&mut self, facts: &Facts, why: &str) {
        let Ok(BackendFacts { name, models, .. }) = router::backend(facts) else { return self.bad(why) };
        if !models.is_empty() {
            return self.bad(why);
        }
        let known = self.model.fleet.backends.iter().find(|backend| backend.name == *name);
        match known.and_then(|backend| backend.trouble.clone()) {
            Some(trouble) => self.bad(&trouble),
            None => self.bad(&format!("{name} has not named its models yet\nenter tries again")),
        }
        self.effect(Effect::ListModels { backend: name.clone() });
    }

    /// The attempt that is running.
    pub(super) fn running(&self) -> Option<GenKey> {
        let lanes = self.model.turns.iter().rev().flat_map(|turn| &turn.lanes);
        let mut current = lanes.filter_map(Lane::current);
        current.find(|attempt| !attempt.phase.is_terminal()).map(|attempt| attempt.key)
    }

    /// Stops the running turn. Before the first token it leaves no trace and its text returns to the
    /// composer; after it the text so far stays and counts as context.
    pub(super) fn cancel(&mut self) {
        let Some(key) = self.running() else { return };
        self.effect(Effect::Cancel(key));
        if self.is_untouched(key) {
            if self.drop_turn(key.turn) == Returned::No {
                self.info(TAKEN_BACK);
            }
            self.pause_queue("taken back");
        } else {
            let now = self.ctx.now;
            self.end_attempt(key, Phase::Stopped, now);
            if let Some(lane) = self.lane(key) {
                lane.settle();
            }
            self.pause_queue("stopped");
        }
    }

    /// Whether this is a turn's only attempt and nothing has come of it.
    fn is_untouched(&self, key: GenKey) -> bool {
        let turn = self.model.turns.iter().rev().find(|turn| turn.id == key.turn);
        let mut attempts = turn.into_iter().flat_map(|turn| &turn.lanes).flat_map(|lane| &lane.attempts);
        matches!((attempts.next(), attempts.next()), (Some(only), None) if !only.has_text())
    }

    /// One step of a generation. Late ones (another key, or after the end) change nothing.
    pub(super) fn generation(&mut self, key: GenKey, event: GenEvent, at: Duration) {
        let Some(attempt) = self.attempt(key).filter(|attempt| !attempt.phase.is_terminal()) else { return };
        let since = millis(attempt.entered_at, at);
        let is_streaming = matches!(attempt.phase, Phase::Streaming(_));
        match event {
            GenEvent::Accepted => {
                attempt.metrics.headers_ms.get_or_insert(since);
            }
            GenEvent::Queued { ahead } if !is_streaming => attempt.phase = Phase::Queued { ahead },
            GenEvent::Loading { fraction } if !is_streaming => attempt.phase = Phase::Loading { fraction },
            GenEvent::Prefill { done, total, cached } if !is_streaming => {
                attempt.phase = Phase::Prefilling { done, total, cached };
            }
            GenEvent::Queued { .. } | GenEvent::Loading { .. } | GenEvent::Prefill { .. } => {}
            GenEvent::Delta { text, .. } if text.is_empty() => {}
            GenEvent::Delta { channel, text } => {
                attempt.take(channel, &text, since);
                if !is_streaming {
                    let Decision { backend, model, .. } = attempt.decision.clone();
                    self.answers(&backend, &model);
                }
                let session = self.model.session.id.clone();
                self.store(StoreJob::Append { session, key, channel, text });
            }
            GenEvent::Produced { tokens } => attempt.metrics.usage.output_tokens = Some(tokens),
            GenEvent::Usage(usage) => {
                let known = &mut attempt.metrics.usage;
                known.prompt_tokens = usage.prompt_tokens.or(known.prompt_tokens);
                known.cached_tokens = usage.cached_tokens.or(known.cached_tokens);
                known.output_tokens = usage.output_tokens.or(known.output_tokens);
            }
            GenEvent::Note(note) => self.warn(&note.words()),
            GenEvent::Done { finish, timings } => {
                attempt.metrics.server = timings;
                let backend = attempt.decision.backend.clone();
                self.learn(key);
                self.end_attempt(key, Phase::Done(finish), at);
                self.log(key);
                self.completed(&backend);
                if self.model.fleet.is_engine(&backend) {
                    self.model.pending.restart = Restart::Untried;
                }
                self.send_queued();
            }
            GenEvent::Failed(error) if error.kind == GenErrorKind::ContextFull && self.is_untouched(key) => {
                let returned = self.drop_turn(key.turn);
                self.pause_queue("taken back");
                let hint = if returned == Returned::No { TAKEN_BACK } else { "" };
                self.bad(&format!("{}\n{hint}", error.message));
            }
            GenEvent::Failed(error) => {
                self.end_attempt(key, Phase::Interrupted(error.clone()), at);
                if !self.failed_over(key, &error) {
                    self.pause_queue("interrupted");
                }
            }
        }
    }

    /// The request left.
    pub(super) fn sent(&mut self, key: GenKey, at: Duration) {
        if let Some(attempt) = self.attempt(key).filter(|attempt| !attempt.phase.is_terminal()) {
            attempt.metrics.sent_ms.get_or_insert(millis(attempt.entered_at, at));
        }
    }

    /// The first frame with text is on its way to the eye. A short answer may be complete before that.
    pub(super) fn painted(&mut self, key: GenKey, at: Duration) {
        if let Some(attempt) = self.attempt(key).filter(|attempt| attempt.has_text()) {
            attempt.metrics.painted_ms.get_or_insert(millis(attempt.entered_at, at));
        }
    }

    /// Counts on while an attempt runs.
    pub(super) fn tick(&mut self) {
        let Some(key) = self.running() else { return };
        let is_streaming = self.attempt(key).is_some_and(|a| matches!(a.phase, Phase::Streaming(_)));
        let after = if is_streaming { STREAM_TICK } else { TICK };
        self.effect(Effect::Timer { id: TimerId::Tick, after });
    }

    /// Sends the message that waits longest, if the queue flows and nothing runs.
    pub(super) fn send_queued(&mut self) {
        let is_paused = self.model.pending.queue == QueueFlow::Paused;
        if is_paused || self.model.queue.is_empty() || self.running().is_some() {
            return;
        }
        let text = self.model.queue.remove(0);
        if !self.send(&text, Input::Remembered) {
            self.model.queue.insert(0, text);
            self.model.pending.queue = QueueFlow::Paused;
        }
    }

    /// Ends what runs because the program ends.
    pub(super) fn end_all(&mut self) {
        if let Some(key) = self.running() {
            self.effect(Effect::Cancel(key));
            let error = GenError::new(GenErrorKind::Protocol, "program ended");
            let now = self.ctx.now;
            self.end_attempt(key, Phase::Interrupted(error), now);
        }
    }

    fn open_session(&mut self, question: &str) {
        let first = question.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
        let session = &mut self.model.session;
        session.title = shown_line(first, restore::TITLE_CELLS);
        session.is_opened = true;
        let record = SessionRecord {
            id: session.id.clone(),
            created_ms: self.ctx.wall_ms,
            title: session.title.to_string(),
            system: session.system.clone(),
        };
        self.store(StoreJob::OpenSession(record));
    }

    /// Adds an attempt to a lane of the last turn, which begins with it if it isn't there yet, and gives what is
    /// to be generated.
    pub(super) fn open_attempt(&mut self, key: GenKey, decision: &Decision, story: Story) -> GenRequest {
        let model = &mut *self.model;
        let card = model.fleet.card(&decision.backend, &decision.model);
        let quantisation = card.and_then(|card| card.quantisation.clone());
        let (turn, earlier) =
            model.turns.split_last().map_or((None, &[][..]), |(turn, rest)| (Some(turn), rest));
        let lane = turn.and_then(|turn| turn.lanes.iter().find(|lane| lane.id == key.lane));
        let goes_on = lane.filter(|_| story.continues.is_some());
        let mut parts = history::parts(model.session.system.as_deref(), earlier);
        parts.extend(turn.map(history::question));
        parts.extend(goes_on.and_then(history::answer));
        let sent = model.routing.sent_to(&decision.backend, &decision.model, &model.session.id);
        let hope = learn::hope(sent, &parts);
        let request = GenRequest {
            model: decision.model.clone(),
            messages: history::messages(&parts),
            sampling: model.fleet.sampling(&model.prefs, decision),
            max_tokens: model.prefs.max_tokens,
            stop: Vec::new(),
            schema: None,
            session: (!model.session.saving.is_off()).then(|| model.session.id.to_string()),
            is_ahead: false,
        };
        let codes: usize = earlier.iter().map(Turn::code_count).sum();
        let beside = turn.into_iter().flat_map(|turn| &turn.lanes).take_while(|lane| lane.id != key.lane);
        let beside: usize = beside.map(Lane::code_count).sum();
        let own = goes_on.map_or(0, Lane::code_count);
        let answer = goes_on.map_or_else(Prose::default, |lane| Prose::after(&lane.text()));
        let first_code = 1 + codes + beside + own - usize::from(answer.is_led());
        let kept = story::to_json(decision, &story);
        let attempt = Attempt {
            key,
            decision: decision.clone(),
            story,
            hope,
            quantisation: quantisation.clone(),
            phase: Phase::Sending,
            answer,
            thinking: Prose::default(),
            thinking_open: false,
            first_code,
            entered_at: self.ctx.now,
            metrics: Metrics::default(),
        };
        if let Some(turn) = model.turns.last_mut() {
            match turn.lanes.iter_mut().find(|lane| lane.id == key.lane) {
                Some(lane) => lane.attempts.push(attempt),
                None => turn.lanes.push(Lane { id: key.lane, attempts: vec![attempt] }),
            }
        }
        let session = model.session.id.clone();
        self.store(StoreJob::OpenAttempt {
            session,
            attempt: Box::new(AttemptRecord {
                key,
                backend: decision.backend.clone(),
                model: decision.model.clone(),
                quantisation,
                rule: decision.rule.clone(),
                reason: decision.reason.clone(),
                decision: kept,
                answer: String::new(),
                thinking: String::new(),
                outcome: Outcome::Open,
                metrics: Metrics::default(),
            }),
        });
        request
    }

    pub(super) fn start(&mut self, key: GenKey, backend: String, request: GenRequest) {
        self.stop_warming();
        self.effect(Effect::Generate { key, backend, request: Box::new(request) });
        self.effect(Effect::Timer { id: TimerId::Tick, after: TICK });
        self.follow();
    }

    pub(super) fn lane(&mut self, key: GenKey) -> Option<&mut Lane> {
        let turn = self.model.turns.iter_mut().rev().find(|turn| turn.id == key.turn)?;
        turn.lanes.iter_mut().find(|lane| lane.id == key.lane)
    }

    pub(super) fn attempt(&mut self, key: GenKey) -> Option<&mut Attempt> {
        let lane = self.lane(key)?;
        lane.attempts.iter_mut().find(|attempt| attempt.key == key)
    }

    fn end_attempt(&mut self, key: GenKey, phase: Phase, at: Duration) {
        self.model.pending.sent = None;
        let Some(attempt) = self.attempt(key) else { return };
        attempt.answer.finish();
        attempt.thinking.finish();
        attempt.metrics.total_ms = Some(millis(attempt.entered_at, at));
        let outcome = match &phase {
            Phase::Done(Finish::Stop) => Outcome::Stop,
            Phase::Done(Finish::Length) => Outcome::Length,
            Phase::Interrupted(error) => Outcome::Interrupted { error: one_line(&error.message) },
            _ => Outcome::Stopped,
        };
        attempt.phase = phase;
        let metrics = Box::new(attempt.metrics);
        let session = self.model.session.id.clone();
        self.store(StoreJob::CloseAttempt { session, key, outcome, metrics });
    }

    /// Takes a turn back as if it had never been asked. Its text goes into the composer where that is free,
    /// as it was sent or, when that is not known, with a long text folded.
    pub(super) fn drop_turn(&mut self, id: TurnId) -> Returned {
        let Some(at) = self.model.turns.iter().position(|turn| turn.id == id) else { return Returned::No };
        let turn = self.model.turns.remove(at);
        let sent = self.model.pending.sent.take().filter(|(sent, _)| *sent == id);
        let session = self.model.session.id.clone();
        self.store(StoreJob::DropTurn { session, turn: id });
        if self.model.turns.is_empty() {
            // The next question names the session.
            self.model.session.is_opened = false;
            self.model.session.title = Shown::default();
        }
        self.follow();
        let composer = &mut self.model.composer;
        let is_free = composer.recalled.as_ref().is_none_or(|(_, draft)| draft.is_empty());
        if !composer.buffer.is_empty() || !is_free {
            return Returned::No;
        }
        composer.recalled = None;
        composer.completion = None;
        composer.buffer = match (sent, EditBuffer::folded(&turn.user)) {
            (Some((_, draft)), _) => draft,
            // Typed, so that a slash at its beginning would mean a command.
            (None, folded) if folded.text() == turn.user => {
                EditBuffer::from_text(&command::protect(&turn.user))
            }
            (None, folded) => folded,
        };
        Returned::Yes
    }

    /// A turn did not end well: the queue waits for the person.
    pub(super) fn pause_queue(&mut self, what: &str) {
        let waiting = self.model.queue.len();
        if waiting > 0 {
            self.model.pending.queue = QueueFlow::Paused;
            self.warn(&format!("{what}; {waiting} queued: enter on an empty draft sends the next one"));
        }
    }
}

impl Attempt {
    fn take(&mut self, channel: Channel, text: &str, since: f64) {
        self.metrics.first_token_ms.get_or_insert(since);
        self.metrics.last_token_ms = Some(since);
        self.phase = Phase::Streaming(channel);
        match channel {
            Channel::Answer => {
                self.metrics.first_answer_ms.get_or_insert(since);
                self.answer.push(text);
            }
            Channel::Thinking => self.thinking.push(text),
        }
    }
}

/// Milliseconds from one moment to a later one.
fn millis(from: Duration, to: Duration) -> f64 {
    to.saturating_sub(from).as_secs_f64() * 1000.0
}
