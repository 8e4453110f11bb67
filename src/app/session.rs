//! Changing the conversation: a new one, or a saved one. The one left stays saved.

use super::model::{Pending, Saving, Session};
use super::update::Step;
use super::{learn, restore};
use crate::chat::SessionId;
use crate::chat::record::{SessionRecord, TurnRecord};
use crate::router::Target;
use crate::text::Shown;

impl Step<'_> {
    /// Starts a new session with the same system prompt.
    pub(super) fn new_session(&mut self) {
        let said = self.left_behind();
        let id = self.next_session_id();
        let session = &mut self.model.session;
        *session = Session {
            id,
            title: Shown::default(),
            is_opened: false,
            target: Target::default(),
            ..session.clone()
        };
        self.model.turns.clear();
        self.reset();
        self.info(&format!("new session{said}"));
    }

    /// A saved session was read: goes on with it, unless a turn runs by now.
    pub(super) fn session_loaded(&mut self, result: Result<(SessionRecord, Vec<TurnRecord>), String>) {
        let (record, turns) = match result {
            Ok(loaded) => loaded,
            Err(why) => return self.bad(&why),
        };
        if self.running().is_some() {
            return self.warn("the session was not opened: a turn is running");
        }
        let said = self.left_behind();
        let saving = self.model.session.saving.clone();
        self.model.session = restore::session(&record, &turns, saving);
        self.model.turns = restore::turns(turns);
        let session = &self.model.session;
        let sent = learn::sent_before(&session.id, session.system.as_deref(), &self.model.turns);
        self.model.routing.sent.extend(sent);
        self.reset();
        let title = self.model.session.title.clone();
        self.info(&format!("session {}{said}", &*title));
    }

    /// Another window had this session first: what is said here goes into a copy from now on.
    pub(super) fn session_forked(&mut self, from: &SessionId, session: SessionId) {
        if self.model.session.id != *from {
            return;
        }
        self.model.session.id = session;
        let text =
            format!("another window has session {from}; this one goes on as {}", self.model.session.id);
        self.warn(&text);
    }

    fn left_behind(&self) -> String {
        let session = &self.model.session;
        if self.model.turns.is_empty() || session.saving != Saving::On {
            return String::new();
        }
        format!("; the one before: tui --resume {}", session.id)
    }

    fn reset(&mut self) {
        // Queued messages are in the input history already.
        self.model.queue.clear();
        let routing = &mut self.model.routing;
        (routing.offer, routing.wait, routing.is_fence_lifted) = (None, None, false);
        let Pending { restart, residents, asked, .. } = std::mem::take(&mut self.model.pending);
        self.model.pending = Pending { restart, residents, asked, ..Pending::default() };
        self.follow();
    }
}
