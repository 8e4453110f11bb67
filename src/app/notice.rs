//! The line that tells the person something. Good news goes by itself, trouble stays until the next key.

use super::effect::{Effect, TimerId};
use super::model::{Level, Notice, Saving};
use super::msg::CopyOutcome;
use super::update::Step;
use crate::text::shown_line;
use std::time::Duration;

/// How long good news stays.
const INFO: Duration = Duration::from_secs(6);
/// Cells of a notice at most; longer ones are cut.
const CELLS: usize = 400;

impl Step<'_> {
    /// Something good to know; goes after a while.
    pub(super) fn info(&mut self, text: &str) {
        let until = self.ctx.now + INFO;
        self.say(text, Level::Info, Some(until));
        self.effect(Effect::Timer { id: TimerId::Notice, after: INFO });
    }

    /// Something worth a look; goes with the next key.
    pub(super) fn warn(&mut self, text: &str) {
        self.say(text, Level::Warn, None);
    }

    /// Trouble; goes with the next key.
    pub(super) fn bad(&mut self, text: &str) {
        self.say(text, Level::Bad, None);
    }

    pub(super) fn say(&mut self, text: &str, level: Level, until: Option<Duration>) {
        self.model.notice = Some(Notice { text: shown_line(&one_line(text), CELLS), level, until });
    }

    /// A key was pressed: what had to be seen was seen.
    pub(super) fn dismiss_notice(&mut self) {
        if self.model.notice.as_ref().is_some_and(|notice| notice.level != Level::Info) {
            self.model.notice = None;
        }
    }

    /// A turn begins: good news of before is old.
    pub(super) fn dismiss_info(&mut self) {
        if self.model.notice.as_ref().is_some_and(|notice| notice.level == Level::Info) {
            self.model.notice = None;
        }
    }

    /// The timer of a notice: a later notice may have replaced it.
    pub(super) fn notice_due(&mut self) {
        let now = self.ctx.now;
        if self.model.notice.as_ref().and_then(|notice| notice.until).is_some_and(|until| until <= now) {
            self.model.notice = None;
        }
    }

    /// Says how copying went.
    pub(super) fn copied(&mut self, what: &str, outcome: &CopyOutcome) {
        match outcome {
            CopyOutcome::Copied => self.info(&format!("{what}: copied")),
            CopyOutcome::Tmux => self.info(&format!("{what}: in tmux's buffer")),
            CopyOutcome::SentToTerminal => {
                self.info(&format!("{what}: sent to the terminal (it does not confirm)"));
            }
            CopyOutcome::File { path, why } => self.warn(&format!("{what}: saved to {path}: {why}")),
            CopyOutcome::Failed { why } => self.bad(&format!("{what}: not copied: {why}")),
        }
    }

    /// The disk refuses. Said once; the store tries again by itself.
    pub(super) fn store_failed(&mut self, message: &str) {
        if self.model.session.saving.is_off() {
            return;
        }
        let is_news = self.model.session.saving == Saving::On;
        self.model.session.saving = Saving::Failing(shown_line(message, CELLS));
        if is_news {
            self.bad(&format!("not saved: {message}; kept in memory and tried again"));
        }
    }

    /// There is no store: nothing is saved from now on.
    pub(super) fn store_unavailable(&mut self, message: &str) {
        let reason = one_line(message);
        self.model.session.saving = Saving::Impossible(shown_line(&reason, CELLS));
        self.bad(&format!("not saved: {reason}"));
    }

    /// The disk takes things again.
    pub(super) fn store_recovered(&mut self) {
        if matches!(self.model.session.saving, Saving::Failing(_)) {
            self.model.session.saving = Saving::On;
            self.info("saved again, nothing was lost");
        }
    }

    /// A theme was loaded, or not.
    pub(super) fn theme_loaded(&mut self, name: String, result: Result<Vec<String>, String>) {
        match result {
            Ok(warnings) => {
                match warnings.as_slice() {
                    [] => self.info(&format!("theme {name}")),
                    [only] => self.warn(only),
                    [first, rest @ ..] => self.warn(&format!("{first} (and {} more)", rest.len())),
                }
                self.model.prefs.theme = name;
            }
            Err(error) => self.bad(&error),
        }
    }
}

/// Several lines as one.
pub(super) fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" · ")
}
