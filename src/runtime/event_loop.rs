//! The loop: input, news and signals in, updates in order, effects out, a frame when one is due.
//!
//! Keys go first. With nothing going on it sleeps: there is no tick. What it talks to (update, view, screen,
//! effect runner) is given, so that tests run it under a paused clock without a terminal.

use super::canvas::Canvas;
use super::clock::Clock;
use super::frames::{Pacing, Urgency};
use super::input::Input;
use super::paint::{Extent, Picture};
use super::signals::Signal;
use super::writer::Painted;
use crate::app::{Ctx, Effect, FrameFacts, Model, Msg, TimerId};
use crate::chat::{GenEvent, GenKey};
use crate::theme::Theme;
use ratatui::Frame;
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::mpsc::{Receiver, UnboundedReceiver};

/// At most this many messages of one kind between two looks at the others.
const BATCH: usize = 256;
/// After this many, news make way for a key.
const BATCH_BEFORE_KEYS: usize = 16;

/// More attempts than this are not waited for at once.
const MOST_UNPAINTED: usize = 8;

/// Something an effect brought about.
#[derive(Debug)]
pub(super) enum News {
    /// For the app.
    Msg(Msg),
    /// A theme to draw with from now on, and its message.
    Theme(Box<Theme>, Msg),
    /// What is on the screen can be drawn better now, though the model is the same.
    Repaint,
}

impl From<Msg> for News {
    fn from(msg: Msg) -> Self {
        Self::Msg(msg)
    }
}

/// Where the loop's inputs come from. A source that has ended is not looked at again.
#[derive(Debug)]
pub(super) struct Sources {
    /// Signals and the watchdog.
    pub(super) signals: Receiver<Signal>,
    /// The terminal.
    pub(super) input: Receiver<Input>,
    /// The writer's reports.
    pub(super) painted: UnboundedReceiver<Painted>,
    /// Everything else.
    pub(super) news: Receiver<News>,
}

/// The terminal, as the loop sees it.
pub(super) trait Screen {
    /// Columns and rows now.
    fn size(&self) -> (u16, u16);
    /// Shows a frame some time soon.
    fn show(&mut self, picture: Picture, extent: Extent);
    /// Gives the terminal back, stops the process, and takes the terminal again when it goes on.
    fn suspend(&mut self);
    /// Takes the terminal again after somebody else stopped and continued the process.
    fn retake(&mut self);
}

/// Runs the effects that are not the loop's own.
pub(super) trait Run {
    /// Starts one; returns at once.
    fn run(&mut self, effect: Effect);
    /// The model as it is after a round of messages.
    fn after(&mut self, model: &Model);
}

/// How the loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The app quit with this exit code.
    Quit(u8),
    /// By a signal.
    Signal(i32),
}

/// Everything the loop works with.
pub(super) struct EventLoop<U, V, S, R> {
    pub(super) model: Model,
    pub(super) theme: Theme,
    pub(super) update: U,
    pub(super) view: V,
    pub(super) screen: S,
    pub(super) runner: R,
    clock: Clock,
    pacing: Pacing,
    canvas: Canvas,
    facts: FrameFacts,
    timers: HashMap<TimerId, Duration>,
    /// Attempts whose first painting has not been reported.
    unpainted: Vec<GenKey>,
    extent: Extent,
    size: (u16, u16),
    is_resized: bool,
    end: Option<End>,
}

impl<U, V, S, R> EventLoop<U, V, S, R>
where
    U: FnMut(&mut Model, Msg, &Ctx<'_>) -> Vec<Effect>,
    V: FnMut(&Model, &Theme, &mut Frame<'_>) -> FrameFacts,
    S: Screen,
    R: Run,
{
    /// A loop that has not begun. The model learns the size of the screen.
    pub(super) fn new(
        mut model: Model,
        theme: Theme,
        (update, view): (U, V),
        (screen, runner): (S, R),
        (clock, pacing): (Clock, Pacing),
    ) -> Self {
        let size = screen.size();
        model.size = size;
        Self {
            model,
            theme,
            update,
            view,
            screen,
            runner,
            clock,
            pacing,
            canvas: Canvas::new(),
            facts: FrameFacts::default(),
            timers: HashMap::new(),
            unpainted: Vec::new(),
            extent: Extent::All,
            size,
            is_resized: false,
            end: None,
        }
    }

    /// Draws the first frame, before anything has happened.
    pub(super) fn draw_first(&mut self) {
        self.draw();
    }

    /// Runs until the end.
    pub(super) async fn run(&mut self, sources: &mut Sources) -> End {
        loop {
            if let Some(end) = self.end.take() {
                return end;
            }
            let wake = self.next_wake().map(|at| self.clock.moment(at));
            tokio::select! {
                biased;
                Some(signal) = sources.signals.recv() => self.on_signal(signal),
                Some(input) = sources.input.recv() => self.on_input(input),
                Some(painted) = sources.painted.recv() => self.on_painted(painted),
                Some(news) = sources.news.recv() => self.on_news(news),
                () = sleep_until(wake) => {}
            }
            self.drain(sources);
            self.fire_timers();
            if self.is_resized {
                self.apply_size();
            }
            self.runner.after(&self.model);
            if self.end.is_none() && self.pacing.due().is_some_and(|due| due <= self.clock.now()) {
                self.draw();
                // Tasks get their turn even when messages never end.
                tokio::task::yield_now().await;
            }
        }
    }

    /// Runs effects, in order.
    pub(super) fn run_effects(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Timer { id, after } => {
                    self.timers.insert(id, self.clock.now() + after);
                }
                Effect::Redraw => {
                    self.extent = Extent::All;
                    self.pacing.mark(Urgency::Key);
                }
                Effect::Suspend => self.suspend(),
                Effect::Quit { code } => self.end = self.end.or(Some(End::Quit(code))),
                other => {
                    match &other {
                        Effect::Generate { key, .. } => {
                            // Attempts that failed without a word are never painted.
                            let surplus = (self.unpainted.len() + 1).saturating_sub(MOST_UNPAINTED);
                            self.unpainted.drain(..surplus);
                            self.unpainted.push(*key);
                        }
                        Effect::Cancel(key) => self.unpainted.retain(|waiting| waiting != key),
                        _ => {}
                    }
                    self.runner.run(other);
                }
            }
        }
    }

    fn next_wake(&self) -> Option<Duration> {
        self.timers.values().copied().chain(self.pacing.due()).min()
    }

    fn drain(&mut self, sources: &mut Sources) {
        for _ in 0..BATCH {
            match sources.input.try_recv() {
                Ok(input) if self.end.is_none() => self.on_input(input),
                _ => break,
            }
        }
        for done in 0..BATCH {
            if self.end.is_some() || (done >= BATCH_BEFORE_KEYS && !sources.input.is_empty()) {
                break;
            }
            match sources.news.try_recv() {
                Ok(news) => self.on_news(news),
                Err(_) => break,
            }
        }
    }

    fn on_input(&mut self, input: Input) {
        match input {
            Input::Key(chord) => self.apply(Msg::Key(chord), Urgency::Key),
            Input::Paste(text) => self.apply(Msg::Paste(text), Urgency::Key),
            Input::Lost => self.terminate(signal_hook::consts::SIGHUP),
        }
    }

    fn on_news(&mut self, news: News) {
        let msg = match news {
            News::Msg(msg) => msg,
            News::Theme(theme, msg) => {
                self.theme = *theme;
                msg
            }
            News::Repaint => return self.pacing.mark(Urgency::Stream),
        };
        let urgency = if is_first_text(&self.model, &msg) { Urgency::Key } else { Urgency::Stream };
        self.apply(msg, urgency);
    }

    fn on_painted(&mut self, (key, at): Painted) {
        if let Some(index) = self.unpainted.iter().position(|waiting| *waiting == key) {
            self.unpainted.remove(index);
            self.apply(Msg::Painted { key, at }, Urgency::Stream);
        }
    }

    fn on_signal(&mut self, signal: Signal) {
        match signal {
            Signal::End(number) => self.terminate(number),
            Signal::Stop => self.suspend(),
            Signal::Resized => self.is_resized = true,
            Signal::Continue => {
                self.screen.retake();
                self.look_again();
            }
        }
    }

    /// The process has to end: the app may save what it has, and is not asked again.
    fn terminate(&mut self, signal: i32) {
        self.apply(Msg::Terminate, Urgency::Stream);
        self.end = Some(End::Signal(signal));
    }

    fn suspend(&mut self) {
        self.screen.suspend();
        self.look_again();
    }

    /// Nothing is known of the screen any more.
    fn look_again(&mut self) {
        self.extent = Extent::All;
        self.is_resized = true;
        self.pacing.mark(Urgency::Key);
    }

    fn apply_size(&mut self) {
        self.is_resized = false;
        let size = self.screen.size();
        if size != self.size {
            self.size = size;
            self.extent = Extent::All;
            self.apply(Msg::Resize { cols: size.0, rows: size.1 }, Urgency::Key);
        }
    }

    fn fire_timers(&mut self) {
        let now = self.clock.now();
        let mut due: Vec<_> =
            self.timers.iter().filter(|(_, at)| **at <= now).map(|(id, at)| (*at, *id)).collect();
        due.sort_by_key(|(at, _)| *at);
        for (_, id) in due {
            self.timers.remove(&id);
            self.apply(Msg::Timer(id), Urgency::Stream);
        }
    }

    fn apply(&mut self, msg: Msg, urgency: Urgency) {
        let ctx = Ctx { now: self.clock.now(), wall_ms: Clock::wall_ms(), frame: &self.facts };
        let effects = (self.update)(&mut self.model, msg, &ctx);
        self.pacing.mark(urgency);
        self.run_effects(effects);
    }

    fn draw(&mut self) {
        let (model, theme, view) = (&self.model, &self.theme, &mut self.view);
        let (facts, mut picture) = self.canvas.draw(self.size, |frame| view(model, theme, frame));
        self.facts = facts;
        picture.attempts = self.visible_attempts();
        self.screen.show(picture, std::mem::take(&mut self.extent));
        self.pacing.drawn(self.clock.now());
    }

    /// Attempts that wait for their first painting and have answer text inside the viewport of this frame.
    fn visible_attempts(&self) -> Vec<GenKey> {
        let facts = &self.facts;
        let bottom = facts.top_row + facts.viewport_rows;
        let is_shown = |index: usize| {
            let Some(start) = facts.turn_rows.get(index) else { return false };
            let end = facts.turn_rows.get(index + 1).unwrap_or(&facts.total_rows);
            *start < bottom && *end > facts.top_row
        };
        let has_text = |key: &GenKey| {
            self.model.turns.iter().enumerate().rev().any(|(index, turn)| {
                turn.id == key.turn
                    && is_shown(index)
                    && turn
                        .lanes
                        .iter()
                        .flat_map(|lane| &lane.attempts)
                        .any(|attempt| attempt.key == *key && !attempt.answer.is_empty())
            })
        };
        self.unpainted.iter().filter(|key| has_text(key)).copied().collect()
    }
}

async fn sleep_until(moment: Option<tokio::time::Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Whether a message brings the first text of an attempt: the person has been waiting for that.
fn is_first_text(model: &Model, msg: &Msg) -> bool {
    let Msg::Gen { key, event: GenEvent::Delta { .. }, .. } = msg else { return false };
    let lanes = model.turns.last().into_iter().flat_map(|turn| &turn.lanes);
    lanes
        .filter_map(|lane| lane.current())
        .any(|attempt| attempt.key == *key && attempt.answer.is_empty() && attempt.thinking.is_empty())
}

#[cfg(test)]
mod tests;
