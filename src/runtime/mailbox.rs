//! A mailbox for one thing: the newest. A sender never waits; the receiver sleeps until there is something.
//!
//! Depends on nothing but the standard library. What an unread thing leaves to its successor is decided by
//! the sender's merge function.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The newest thing, shared by senders and one receiver.
#[derive(Debug)]
pub(super) struct Mailbox<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<T> {
    newest: Option<T>,
    closed_at: Option<Instant>,
}

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        Self { state: Mutex::new(State { newest: None, closed_at: None }), changed: Condvar::new() }
    }
}

impl<T> Mailbox<T> {
    /// Puts something in. `merge` gets what nobody has taken yet and makes the thing to keep.
    /// Nothing happens once the mailbox is closed.
    pub(super) fn put(&self, merge: impl FnOnce(Option<T>) -> T) {
        let mut state = self.lock();
        if state.closed_at.is_none() {
            let unread = state.newest.take();
            state.newest = Some(merge(unread));
            self.changed.notify_one();
        }
    }

    /// Waits for the newest thing. `None`: the mailbox is closed and empty.
    pub(super) fn take(&self) -> Option<T> {
        let mut state = self.lock();
        loop {
            if let Some(newest) = state.newest.take() {
                return Some(newest);
            }
            if state.closed_at.is_some() {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Closes it: what is in it can still be taken, nothing more comes in.
    pub(super) fn close(&self) {
        self.lock().closed_at.get_or_insert_with(Instant::now);
        self.changed.notify_all();
    }

    /// How long it has been closed; `None` while it is open.
    pub(super) fn closed_for(&self) -> Option<Duration> {
        self.lock().closed_at.map(|at| at.elapsed())
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn only_the_newest_is_kept_and_what_it_inherits_is_the_senders_choice() {
        let mailbox = Mailbox::default();
        for n in 1..=5 {
            mailbox.put(|unread: Option<(u32, u32)>| (n, unread.map_or(0, |(_, dropped)| dropped + 1)));
        }
        assert_eq!(mailbox.take(), Some((5, 4)));
    }

    #[test]
    fn closing_wakes_the_receiver_and_keeps_what_is_in_it() {
        let mailbox = Arc::new(Mailbox::default());
        let receiver = std::thread::spawn({
            let mailbox = Arc::clone(&mailbox);
            move || {
                let mut seen = Vec::new();
                while let Some(n) = mailbox.take() {
                    seen.push(n);
                }
                seen
            }
        });
        mailbox.put(|_| 7);
        mailbox.close();
        mailbox.put(|_| 8);
        let seen = receiver.join().expect("receiver ends");
        assert_eq!(seen, [7]);
        assert!(mailbox.closed_for().is_some());
    }

    #[test]
    fn a_racing_receiver_always_sees_the_last_one() {
        let mailbox = Arc::new(Mailbox::default());
        let receiver = std::thread::spawn({
            let mailbox = Arc::clone(&mailbox);
            move || {
                let mut last = 0;
                while let Some(n) = mailbox.take() {
                    assert!(n > last, "{n} after {last}");
                    last = n;
                }
                last
            }
        });
        for n in 1..=10_000 {
            mailbox.put(|_| n);
        }
        mailbox.close();
        assert_eq!(receiver.join().expect("receiver ends"), 10_000);
    }
}
