//! Saving one turn of the command line. Where nothing can be saved it says so once and goes on.

use super::Question;
use crate::app::learn;
use crate::app::story::{self, Story};
use crate::chat::record::{AttemptRecord, Outcome, SessionRecord, SpeedRecord, StoreJob};
use crate::chat::{Channel, Finish, GenError, GenKey, LaneId, Metrics, SessionId};
use crate::cli::out::note;
use crate::cli::report::{Answer, Ending};
use crate::cli::target::unix_ms;
use crate::router::Decision;
use crate::store::{Store, StoreNews};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long the end of the program waits for the disk.
const LAST_WRITE: Duration = Duration::from_secs(2);

/// The turn being saved, if it is.
pub(super) struct Saving {
    store: Option<Store>,
    /// Where the turn goes instead, when another window has the session.
    fork: Arc<Mutex<Option<SessionId>>>,
    session: Option<SessionId>,
    key: GenKey,
    quantisation: Option<String>,
}

impl Saving {
    /// Opens the store, unless nothing is to be saved.
    pub(super) fn open(database: Option<&Path>) -> Self {
        let fork = Arc::new(Mutex::new(None));
        let key = GenKey { turn: crate::chat::TurnId(0), lane: LaneId(0), attempt: 0 };
        let mut saving =
            Self { store: None, fork: Arc::clone(&fork), session: None, key, quantisation: None };
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

    /// The turn begins, or is tried once more. Returns when the question is on disk, or can't be for now.
    pub(super) async fn begin(
        &mut self,
        question: &Question,
        decision: &Decision,
        story: &Story,
        quantisation: Option<String>,
    ) {
        let Some(store) = &self.store else { return };
        let session = question.session.clone();
        self.key.turn = question.turn;
        self.key.attempt += 1;
        self.quantisation.clone_from(&quantisation);
        if self.session.is_none() {
            self.session = Some(session.clone());
            open(store, question);
        }
        store.send(StoreJob::OpenAttempt {
            session,
            attempt: Box::new(AttemptRecord {
                key: self.key,
                backend: decision.backend.clone(),
                model: decision.model.clone(),
                quantisation,
                rule: decision.rule.clone(),
                reason: decision.reason.clone(),
                decision: story::to_json(decision, story),
                answer: String::new(),
                thinking: String::new(),
                outcome: Outcome::Open,
                metrics: Metrics::default(),
            }),
        });
        store.flushed().await;
    }

    /// The attempt failed before its first text; another one follows.
    pub(super) async fn fail(&self, error: &GenError, answer: &Answer) {
        let (Some(store), Some(session)) = (&self.store, &self.session) else { return };
        store.send(StoreJob::CloseAttempt {
            session: session.clone(),
            key: self.key,
            outcome: interrupted(error),
            metrics: Box::new(answer.metrics),
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
    pub(super) async fn end(&self, answer: &Answer, speeds: &mut Vec<SpeedRecord>) {
        let (Some(store), Some(session)) = (&self.store, &self.session) else { return };
        let session = session.clone();
        let is_empty = answer.is_empty();
        let is_complete = matches!(answer.finish, Some(Ending::Complete(_)));
        if let Some(decision) = answer.decision.as_ref().filter(|_| is_complete) {
            self.keep(store, decision, answer, speeds);
        }
        store.send(match &answer.finish {
            Some(Ending::Stopped) | None if is_empty => StoreJob::DropTurn { session, turn: self.key.turn },
            finish => StoreJob::CloseAttempt {
                session,
                key: self.key,
                outcome: match finish {
                    Some(Ending::Complete(Finish::Stop)) => Outcome::Stop,
                    Some(Ending::Complete(Finish::Length)) => Outcome::Length,
                    Some(Ending::Stopped) | None => Outcome::Stopped,
                    Some(Ending::Failed(error)) => interrupted(error),
                },
                metrics: Box::new(answer.metrics),
            },
        });
        if !store.flush_blocking(LAST_WRITE) {
            note("the answer could not be saved");
        }
    }
}

impl Saving {
    /// Keeps what a complete answer has shown.
    fn keep(&self, store: &Store, decision: &Decision, answer: &Answer, speeds: &mut Vec<SpeedRecord>) {
        if let Some(session) = self.session.clone().filter(|_| answer.story != Story::default()) {
            let decision = story::to_json(decision, &answer.story);
            store.send(StoreJob::Decide { session, key: self.key, decision });
        }
        let now = unix_ms();
        for speed in learn::measured(speeds, decision, &answer.metrics, answer.before, now) {
            store.send(StoreJob::KeepSpeed(Box::new(speed)));
        }
        let outcome = learn::outcome(decision, self.quantisation.as_deref(), &answer.metrics, now);
        store.send(StoreJob::LogOutcome(Box::new(outcome)));
    }
}

/// The session, if it is new, and the turn.
fn open(store: &Store, question: &Question) {
    let (session, now) = (question.session.clone(), unix_ms());
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
    if let Some(fence) = question.fence.clone() {
        store.send(StoreJob::Fence { session, turn: question.turn, fence });
    }
}

fn interrupted(error: &GenError) -> Outcome {
    Outcome::Interrupted { error: error.message.lines().next().unwrap_or_default().to_owned() }
}

/// The first line of the question, as the session's title.
fn title(user: &str) -> String {
    let line = user.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    line.trim().chars().take(120).collect()
}
