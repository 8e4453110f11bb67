//! Takes each message to the part of the app that handles it. No logic of its own.

use super::{Ctx, Effect, Model, Msg, TimerId};
use crate::chat::record::StoreJob;

/// Takes one message in and says what is to be done. Deterministic; never fails.
pub fn update(model: &mut Model, msg: Msg, ctx: &Ctx<'_>) -> Vec<Effect> {
    let has_slept = has_slept(model, ctx);
    (model.now, model.wall_ms) = (ctx.now, ctx.wall_ms);
    let mut step = Step { model, ctx, effects: Vec::new() };
    if has_slept {
        step.woken();
    }
    match msg {
        Msg::Key(chord) => step.key(chord),
        Msg::Paste(text) => step.paste(&text),
        Msg::Resize { cols, rows } => step.model.size = (cols, rows),
        Msg::Gen { key, event, at } => step.generation(key, event, at),
        Msg::Warmed { backend, event } => step.warmed(&backend, &event),
        Msg::Sent { key, at } => step.sent(key, at),
        Msg::Painted { key, at } => step.painted(key, at),
        Msg::Engine(news) => step.engine(news),
        Msg::Models { backend, result } => step.models(&backend, result),
        Msg::Met { backend, kind, rtt_ms, wake_ms } => step.met(&backend, kind, rtt_ms, wake_ms),
        Msg::Probed { backend, result } => step.probed(&backend, result),
        Msg::Around { on_battery, utc_offset_s } => step.around(on_battery, utc_offset_s),
        Msg::Stats { result } => step.stats(result),
        Msg::Machine { backend, machine } => step.machine(&backend, machine),
        Msg::Changed { backend, model, change, result } => step.changed(&backend, &model, change, result),
        Msg::StoreFailed { message } => step.store_failed(&message),
        Msg::StoreUnavailable { message } => step.store_unavailable(&message),
        Msg::StoreRecovered => step.store_recovered(),
        Msg::Copied { what, outcome } => step.copied(&what, &outcome),
        Msg::ThemeLoaded { name, result } => step.theme_loaded(name, result),
        Msg::Sessions { result } => step.sessions(result),
        Msg::SessionForked { from, session } => step.session_forked(&from, session),
        Msg::SessionLoaded { result } => step.session_loaded(result),
        Msg::Notice { text, is_error: true } => step.bad(&text),
        Msg::Notice { text, is_error: false } => step.info(&text),
        Msg::Timer(TimerId::Notice) => step.notice_due(),
        Msg::Timer(TimerId::QuitArmed) => step.quit_due(),
        Msg::Timer(TimerId::Tick) => step.tick(),
        Msg::Timer(TimerId::PasteTail) => step.paste_over(),
        Msg::Timer(TimerId::Board) => step.board_due(),
        Msg::Timer(TimerId::Warm) => step.paused(),
        Msg::Timer(TimerId::Wait) => step.look_for_it(),
        Msg::Terminate => step.leave(),
    }
    step.effects
}

/// How much further the wall clock has to move than the monotonic one until this machine must have slept.
const SLEPT_MS: i64 = 20_000;

/// Whether this machine was asleep since the last update: the monotonic clock stands still meanwhile.
fn has_slept(model: &Model, ctx: &Ctx<'_>) -> bool {
    let awake = i64::try_from(ctx.now.saturating_sub(model.now).as_millis()).unwrap_or(i64::MAX);
    model.wall_ms != 0 && ctx.wall_ms.saturating_sub(model.wall_ms).saturating_sub(awake) > SLEPT_MS
}

/// One update under way. Each part of the app adds its verbs to it.
pub(super) struct Step<'a> {
    pub(super) model: &'a mut Model,
    pub(super) ctx: &'a Ctx<'a>,
    pub(super) effects: Vec<Effect>,
}

impl Step<'_> {
    pub(super) fn effect(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    /// Gives the store something, unless nothing is saved.
    pub(super) fn store(&mut self, job: StoreJob) {
        if !self.model.session.saving.is_off() {
            self.effects.push(Effect::Store(job));
        }
    }
}
