//! Saving one turn of the command line. Where nothing can be saved it says so once and goes on.

use super::Question;
use crate::chat::record::{AttemptRecord, Outcome, SessionRecord, StoreJob};
use crate::chat::{Channel, Finish, GenKey, LaneId, Metrics, SessionId};
use crate::cli::out::note;
use crate::cli::report::{Answer, Ending};
use crate::router::Decision;
use crate::store::{Store, StoreNews};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long the end of the program waits for the disk.
const LAST_WRITE: Duration = Duration::from_secs(2);

/// The turn being saved, if it is.
pub(super) struct Saving {
    store: Option<Store>,
    /// Where the turn goes instead, when another window has the session.
    fork: Arc<Mutex<Option<SessionId>>>,
    session: Option<SessionId>,
    key: GenKey,
}

impl Saving {
    /// Opens the store, unless nothing is to be saved.
    pub(super) fn open(database: Option<&Path>) -> Self {
        let fork = Arc::new(Mutex::new(None));
        let key = GenKey { turn: crate::chat::TurnId(0), lane: LaneId(0), attempt: 1 };
        let mut saving = Self { store: None, fork: Arc::clone(&fork), session: None, key };
        let Some(database) = database else { return saving };
        let news = move |news| match news {
            StoreNews::Failed(why) => note(&format!("not saved yet: {why}")),
            StoreNews::Recovered => note("saved after all"),
            StoreNews::Notice(text) => note(&text),
            StoreNews::Forked { session, .. } => {
                note(&format!(
                    "that conversation is in use or has gone on elsewhere; this is a copy, {session}"
                ));
                *fork.lock().unwrap_or_else(PoisonError::into_inner) = Some(session);
            }
        };
        match Store::open(database, news) {
            Ok(store) => saving.store = Some(store),
            Err(why) => note(&format!("this conversation is not saved: {why}")),
        }
        saving
    }

    /// The session's id; `None` where nothing is saved.
    pub(super) fn session(&self) -> Option<SessionId> {
        let fork = self.fork.lock().unwrap_or_else(PoisonError::into_inner).clone();
        fork.or_else(|| self.session.clone())
    }

    /// The turn begins. Returns when the question is on disk, or can't be for now.
    pub(super) async fn begin(&mut self, question: &Question, decision: &Decision) {
        let Some(store) = &self.store else { return };
        let session = question.session.clone();
        let now = unix_ms();
        self.key.turn = question.turn;
        self.session = Some(session.clone());
        if question.is_new {
            store.send(StoreJob::OpenSession(SessionRecord {
                id: session.clone(),
                created_ms: now,
                title: title(&question.user),
                system: question.system.clone(),
            }));
        } else if question.has_new_system {
            store.send(StoreJob::SetSystem { session: session.clone(), system: question.system.clone() });
        }
        store.send(StoreJob::OpenTurn {
            session: session.clone(),
            turn: question.turn,
            user: question.user.clone(),
            created_ms: now,
        });
        store.send(StoreJob::OpenAttempt {
            session,
            attempt: Box::new(AttemptRecord {
                key: self.key,
                backend: decision.backend.clone(),
                model: decision.model.clone(),
                quantisation: None,
                rule: decision.rule.clone(),
                reason: decision.reason.clone(),
                answer: String::new(),
                thinking: String::new(),
                outcome: Outcome::Open,
                metrics: Metrics::default(),
            }),
        });
        store.flushed().await;
    }

    /// More of the answer has come.
    pub(super) fn append(&self, channel: Channel, text: &str) {
        if let (Some(store), Some(session)) = (&self.store, &self.session) {
            store.send(StoreJob::Append {
                session: session.clone(),
                key: self.key,
                channel,
                text: text.to_owned(),
            });
        }
    }

    /// The answer has ended. A turn stopped before its first token leaves no trace.
    pub(super) async fn end(&self, answer: &Answer) {
        let (Some(store), Some(session)) = (&self.store, &self.session) else { return };
        let session = session.clone();
        let is_empty = answer.text.is_empty() && answer.thinking.is_empty();
        store.send(match &answer.finish {
            Some(Ending::Stopped) | None if is_empty => StoreJob::DropTurn { session, turn: self.key.turn },
            finish => StoreJob::CloseAttempt {
                session,
                key: self.key,
                outcome: match finish {
                    Some(Ending::Complete(Finish::Stop)) => Outcome::Stop,
                    Some(Ending::Complete(Finish::Length)) => Outcome::Length,
                    Some(Ending::Stopped) | None => Outcome::Stopped,
                    Some(Ending::Failed(error)) => Outcome::Interrupted {
                        error: error.message.lines().next().unwrap_or_default().to_owned(),
                    },
                },
                metrics: Box::new(answer.metrics),
            },
        });
        if !store.flush_blocking(LAST_WRITE) {
            note("the answer could not be saved");
        }
    }
}

/// The first line of the question, as the session's title.
fn title(user: &str) -> String {
    let line = user.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    line.trim().chars().take(120).collect()
}

fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
