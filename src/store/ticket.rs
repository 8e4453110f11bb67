//! An answer that comes later, from one thread to a blocking or an asynchronous waiter.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// The side that waits.
#[derive(Debug, Default)]
pub(super) struct Ticket {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    answer: Option<bool>,
    waker: Option<Waker>,
}

/// The side that answers. Dropped unanswered, it answers `false`.
#[derive(Debug)]
pub(super) struct Pending(Arc<Ticket>);

impl Ticket {
    /// Both sides.
    pub(super) fn pair() -> (Arc<Self>, Pending) {
        let ticket = Arc::new(Self::default());
        (Arc::clone(&ticket), Pending(ticket))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the answer, at most this long.
    pub(super) fn wait(&self, limit: Duration) -> Option<bool> {
        let deadline = Instant::now() + limit;
        let mut state = self.state();
        while state.answer.is_none() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.answer
    }

    fn answer(&self, answer: bool) {
        let mut state = self.state();
        if state.answer.is_none() {
            state.answer = Some(answer);
            self.changed.notify_all();
            if let Some(waker) = state.waker.take() {
                drop(state);
                waker.wake();
            }
        }
    }
}

impl Pending {
    /// Answers.
    pub(super) fn resolve(self, answer: bool) {
        self.0.answer(answer);
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.answer(false);
    }
}

/// Waits without blocking.
pub(super) struct Waiting(Arc<Ticket>);

impl Waiting {
    pub(super) fn new(ticket: Arc<Ticket>) -> Self {
        Self(ticket)
    }
}

impl Future for Waiting {
    type Output = bool;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<bool> {
        let mut state = self.0.state();
        match state.answer {
            Some(answer) => Poll::Ready(answer),
            None => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}
