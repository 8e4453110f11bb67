//! What is said and saved when the program ends in the middle: the panic hook, and the line that tells how to
//! go on.

use super::{clipboard, crash};
use crate::app::model::Model;
use crate::chat::SessionId;
use crate::store::Store;
use crate::text;
use std::io::Write;
use std::panic::PanicHookInfo;
use std::process;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The exit code of a panic, as Rust's own.
const PANIC_EXIT: i32 = 101;
/// How long a panic waits for the store.
const FLUSH: Duration = Duration::from_secs(1);

/// What outlives the loop: the session and its store.
#[derive(Debug, Default)]
pub(super) struct LastWords {
    session: Mutex<Option<SessionId>>,
    store: Mutex<Option<Store>>,
}

impl LastWords {
    /// Notes which session could be resumed, if it is one that is saved.
    pub(super) fn note(&self, model: &Model) {
        let session = &model.session;
        let wanted = (session.is_opened && !session.saving.is_off()).then_some(&session.id);
        let mut noted = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.as_ref() != wanted {
            *noted = wanted.cloned();
        }
    }

    /// Keeps the store for the last flush; `None` lets go of it.
    pub(super) fn keep(&self, store: Option<Store>) {
        *self.store.lock().unwrap_or_else(PoisonError::into_inner) = store;
    }

    /// Says on the normal screen how to go on, where there is something to go on with.
    pub(super) fn say(&self) {
        if let Ok(Some(id)) = self.session.try_lock().as_deref() {
            let _ = writeln!(std::io::stderr(), "resume with: tui --resume {id}");
        }
    }

    fn flush(&self) {
        let store = self.store.try_lock().ok().and_then(|mut store| store.take());
        if store.is_some_and(|store| !store.flush_blocking(FLUSH)) {
            say_unwritten();
        }
    }
}

/// Says on the normal screen that the end of the conversation is lost.
pub(super) fn say_unwritten() {
    let _ = writeln!(
        std::io::stderr(),
        "warning: the end of this conversation could not be written to disk; is the disk full?"
    );
}

/// From now on a panic of any thread, while the interface owns the screen, gives the terminal back, says what
/// happened, saves, and ends the process. At other times the earlier hook runs.
pub(super) fn install_panic_hook(last_words: Arc<LastWords>) {
    let earlier = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if std::thread::current().name() == Some(clipboard::THREAD) {
            tracing::error!(%panic, "panic in the clipboard");
            return;
        }
        if !crash::restore() {
            earlier(panic);
            return;
        }
        report(panic);
        last_words.flush();
        last_words.say();
        process::exit(PANIC_EXIT);
    }));
}

fn report(panic: &PanicHookInfo<'_>) {
    let what = panic.payload_as_str().unwrap_or("of an unknown kind");
    let place = panic.location().map_or_else(String::new, |at| format!(" ({}:{})", at.file(), at.line()));
    let line = text::sanitize::shown_line(what, 300);
    let _ = writeln!(std::io::stderr(), "error: `tui` made a mistake and had to stop: {line}{place}");
    let backtrace = std::backtrace::Backtrace::force_capture();
    tracing::error!(%line, %place, %backtrace, "panic");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::NewModel;
    use crate::app::model::{Prefs, Saving};
    use crate::chat::Sampling;
    use crate::router::Target;
    use crate::text::shown;

    #[test]
    fn only_a_saved_session_can_be_resumed() {
        let words = LastWords::default();
        let noted = |model: &Model| {
            words.note(model);
            words.session.lock().expect("whole").clone()
        };
        let mut model = Model::new(NewModel {
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
        });
        assert_eq!(noted(&model), None);
        model.session.is_opened = true;
        assert_eq!(noted(&model), Some(model.session.id.clone()));
        for saving in [Saving::Off, Saving::Impossible(shown("no folder"))] {
            model.session.saving = saving;
            assert_eq!(noted(&model), None);
        }
        model.session.saving = Saving::Failing(shown("disk full"));
        assert_eq!(noted(&model), Some(model.session.id.clone()), "it is tried again until the end");
    }
}
