//! The store from the first key on: what is given to it before it is open waits here.

use crate::app::Msg;
use crate::chat::record::StoreJob;
use crate::runtime::event_loop::News;
use crate::runtime::last_words::LastWords;
use crate::store::{Store, StoreNews};
use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// A handle; clones share the store.
#[derive(Clone, Debug)]
pub(in crate::runtime) struct StoreGate {
    state: Rc<RefCell<State>>,
    settled: watch::Receiver<bool>,
}

#[derive(Debug)]
enum State {
    /// Nothing is saved.
    Off,
    /// Being opened; these wait.
    Opening(Vec<StoreJob>),
    /// Open.
    Open(Store),
}

/// Opens the store of a gate.
#[derive(Debug)]
pub(in crate::runtime) struct Opener {
    gate: StoreGate,
    settle: watch::Sender<bool>,
    path: PathBuf,
}

impl StoreGate {
    /// Nothing is saved.
    pub(in crate::runtime) fn off() -> Self {
        let (_, settled) = watch::channel(true);
        Self { state: Rc::new(RefCell::new(State::Off)), settled }
    }

    /// A gate that keeps what it is given until its opener has run.
    pub(in crate::runtime) fn closed(path: PathBuf) -> (Self, Opener) {
        let (settle, settled) = watch::channel(false);
        let gate = Self { state: Rc::new(RefCell::new(State::Opening(Vec::new()))), settled };
        (gate.clone(), Opener { gate, settle, path })
    }

    /// Gives the store something to do, in order.
    pub(in crate::runtime) fn send(&self, job: StoreJob) {
        match &mut *self.state.borrow_mut() {
            State::Off => {}
            State::Opening(waiting) => waiting.push(job),
            State::Open(store) => store.send(job),
        }
    }

    /// Returns when everything given so far is on disk, or can't be for now.
    pub(in crate::runtime) async fn flushed(&self) {
        let mut settled = self.settled.clone();
        // An opener that is gone settles nothing any more; then there is no store.
        if settled.wait_for(|settled| *settled).await.is_ok()
            && let Some(store) = self.store()
        {
            store.flushed().await;
        }
    }

    /// On the way out: waits for the store to open and to write, but not longer than `limit`. Says whether
    /// nothing is left unwritten.
    pub(in crate::runtime) async fn finish(&self, limit: Duration) -> bool {
        let mut settled = self.settled.clone();
        let start = tokio::time::Instant::now();
        let _ = tokio::time::timeout(limit, settled.wait_for(|settled| *settled)).await;
        let is_written = match &*self.state.borrow() {
            State::Off => true,
            State::Opening(waiting) => waiting.is_empty(),
            State::Open(store) => store.flush_blocking(limit.saturating_sub(start.elapsed())),
        };
        *self.state.borrow_mut() = State::Off;
        is_written
    }

    fn store(&self) -> Option<Store> {
        match &*self.state.borrow() {
            State::Open(store) => Some(store.clone()),
            State::Off | State::Opening(_) => None,
        }
    }
}

impl Opener {
    /// Opens the store away from the loop, hands over what waited, then forwards what the store says until it
    /// ends. A store that can't be opened is told to the app, and nothing is saved.
    pub(in crate::runtime) async fn run(
        self,
        news: mpsc::Sender<News>,
        last_words: std::sync::Arc<LastWords>,
    ) {
        let (report, mut reports) = mpsc::unbounded_channel();
        let path = self.path.clone();
        let opened = tokio::task::spawn_blocking(move || {
            Store::open(&path, move |news| {
                let _ = report.send(news);
            })
        })
        .await
        .map_err(|error| error.to_string())
        .and_then(|opened| opened);
        let trouble = match opened {
            Ok(store) => {
                let mut state = self.gate.state.borrow_mut();
                if let State::Opening(waiting) = &mut *state {
                    for job in waiting.drain(..) {
                        store.send(job);
                    }
                    last_words.keep(Some(store.clone()));
                    *state = State::Open(store);
                }
                None
            }
            Err(trouble) => {
                *self.gate.state.borrow_mut() = State::Off;
                Some(trouble)
            }
        };
        self.settle.send_replace(true);
        if let Some(message) = trouble {
            let _ = news.send(Msg::StoreUnavailable { message }.into()).await;
            return;
        }
        while let Some(report) = reports.recv().await {
            let msg = match report {
                StoreNews::Failed(message) => Msg::StoreFailed { message },
                StoreNews::Recovered => Msg::StoreRecovered,
                StoreNews::Forked { from, session } => Msg::SessionForked { from, session },
                StoreNews::Notice(text) => Msg::Notice { text, is_error: false },
            };
            if news.send(msg.into()).await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_store_that_cannot_be_opened_is_told_to_the_app() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("file");
        std::fs::write(&file, "in the way").expect("written");
        let (gate, opener) = StoreGate::closed(file.join("sessions.db"));
        let (news, mut heard) = mpsc::channel(4);
        tokio::task::LocalSet::new().run_until(opener.run(news, std::sync::Arc::default())).await;
        let told = heard.recv().await;
        assert!(
            matches!(&told, Some(News::Msg(Msg::StoreUnavailable { message })) if !message.is_empty()),
            "{told:?}"
        );
        assert!(gate.finish(Duration::ZERO).await, "nothing waits for it");
    }
}
