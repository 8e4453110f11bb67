//! The first state of the interface.

use super::model::{BackendView, Composer, Fleet, Model, Pending, Prefs, Saving, Scroll, Session};
use super::routing::Routing;
use super::{learn, restore};
use crate::chat::SessionId;
use crate::chat::record::{SessionRecord, TurnRecord};
use crate::router::Target;
use crate::text::Shown;
use std::time::Duration;

/// What a model is made of.
#[derive(Clone, Debug)]
pub struct NewModel {
    /// The id of a new session; not used when one is restored.
    pub session: SessionId,
    /// The system prompt of a new session.
    pub system: Option<String>,
    /// The name of that prompt, where it has one.
    pub prompt_name: Option<String>,
    /// Whether turns are saved.
    pub saving: Saving,
    /// What the person chose.
    pub prefs: Prefs,
    /// The backends, in order of preference.
    pub backends: Vec<BackendView>,
    /// Rules, aliases and speeds.
    pub routing: Routing,
    /// Earlier inputs, oldest first.
    pub history: Vec<String>,
    /// A saved session to go on with: it and its turns, oldest first.
    pub restored: Option<(SessionRecord, Vec<TurnRecord>)>,
    /// Terminal size: columns, rows.
    pub size: (u16, u16),
}

impl Model {
    /// The first state. Nothing in it waits for anything.
    #[must_use]
    pub fn new(args: NewModel) -> Self {
        let (session, turns) = match args.restored {
            Some((record, turns)) => (restore::session(&record, &turns, args.saving), restore::turns(turns)),
            None => (
                Session {
                    id: args.session,
                    title: Shown::default(),
                    system: args.system,
                    prompt_name: args.prompt_name,
                    saving: args.saving,
                    is_opened: false,
                    target: Target::default(),
                },
                Vec::new(),
            ),
        };
        let mut routing = args.routing;
        routing.sent = learn::sent_before(&session.id, session.system.as_deref(), &turns);
        Self {
            session,
            turns,
            queue: Vec::new(),
            composer: Composer { history: args.history, ..Composer::default() },
            overlays: Vec::new(),
            scroll: Scroll::Follow,
            fleet: Fleet { backends: args.backends, ..Fleet::default() },
            notice: None,
            prefs: args.prefs,
            quit_armed: None,
            size: args.size,
            routing,
            now: Duration::ZERO,
            wall_ms: 0,
            pending: Pending::default(),
        }
    }
}
