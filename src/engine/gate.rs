//! Turns at the device: resident models that compute at once take it in turns, in the order they asked.
//!
//! A turn is as many rounds as fit into a slice of time: with one round each, a small model would get one token
//! for each of a large one's. What a job waited here is part of its `queue_ms`.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A gate with a number of permits, first come first served. Clones share it.
#[derive(Clone, Debug)]
pub struct Gate {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    turns: Mutex<Turns>,
    changed: Condvar,
}

#[derive(Debug)]
struct Turns {
    /// Permits nobody holds.
    free: usize,
    /// The next number to draw.
    next: u64,
    /// The number that is let in next.
    serving: u64,
}

/// The right to compute, until it is dropped.
#[derive(Debug)]
pub struct Permit {
    inner: Arc<Inner>,
    waited: Duration,
}

impl Gate {
    /// A gate that lets in `permits` at once, at least one.
    #[must_use]
    pub fn new(permits: usize) -> Self {
        let turns = Turns { free: permits.max(1), next: 0, serving: 0 };
        Self { inner: Arc::new(Inner { turns: Mutex::new(turns), changed: Condvar::new() }) }
    }

    /// Waits for a turn. Who asks again after its turn is behind everybody who waited meanwhile. Without
    /// contention this is one lock, some tens of nanoseconds.
    #[must_use]
    pub fn enter(&self) -> Permit {
        let mut turns = self.inner.lock();
        let mine = turns.next;
        turns.next += 1;
        let mut waited = Duration::ZERO;
        if turns.serving != mine || turns.free == 0 {
            let began = Instant::now();
            while turns.serving != mine || turns.free == 0 {
                turns = self.inner.changed.wait(turns).unwrap_or_else(PoisonError::into_inner);
            }
            waited = began.elapsed();
        }
        turns.serving += 1;
        turns.free -= 1;
        let is_more = turns.free > 0 && turns.serving != turns.next;
        drop(turns);
        if is_more {
            self.inner.changed.notify_all();
        }
        Permit { inner: Arc::clone(&self.inner), waited }
    }

    /// How many wait for their turn now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        let turns = self.inner.lock();
        usize::try_from(turns.next - turns.serving).unwrap_or(usize::MAX)
    }
}

/// How long a model keeps the device while another one waits for it, give or take a round.
pub const SLICE: Duration = Duration::from_millis(40);

/// One model's way of taking turns.
#[derive(Debug)]
pub struct Turn {
    gate: Gate,
    slice: Duration,
    held: Option<(Permit, Instant)>,
}

impl Turn {
    /// Turns of about this length.
    #[must_use]
    pub fn new(gate: Gate, slice: Duration) -> Self {
        Self { gate, slice, held: None }
    }

    /// Before a round: keeps the turn, or hands it over to who waits and gets in line. Returns how long that
    /// took. `leave` is called before the device is left to somebody else.
    pub fn take(&mut self, leave: impl FnOnce()) -> Duration {
        if let Some((_, since)) = &self.held {
            if since.elapsed() < self.slice || self.gate.waiting() == 0 {
                return Duration::ZERO;
            }
            leave();
            self.end();
        }
        let permit = self.gate.enter();
        let waited = permit.waited();
        self.held = Some((permit, Instant::now()));
        waited
    }

    /// Whether somebody else waits for the device.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.gate.waiting() > 0
    }

    /// The gate its turns are at.
    #[must_use]
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Nothing is left to compute.
    pub fn end(&mut self) {
        self.held = None;
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// How long the turn was waited for.
    #[must_use]
    pub fn waited(&self) -> Duration {
        self.waited
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut turns = self.inner.lock();
        turns.free += 1;
        let somebody_waits = turns.serving != turns.next;
        drop(turns);
        if somebody_waits {
            self.inner.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    fn wait_for(gate: &Gate, waiting: usize) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while gate.waiting() != waiting {
            assert!(Instant::now() < deadline, "{waiting} should wait");
            std::thread::yield_now();
        }
    }

    #[test]
    fn alone_nobody_waits() {
        let gate = Gate::new(1);
        for _ in 0..3 {
            assert_eq!(gate.enter().waited(), Duration::ZERO);
        }
        assert_eq!(gate.waiting(), 0);
    }

    #[test]
    fn turns_are_taken_in_the_order_of_asking() {
        let gate = Gate::new(1);
        let order = Mutex::new(Vec::new());
        let first = gate.enter();
        std::thread::scope(|scope| {
            for name in 0..4 {
                let (gate, order) = (&gate, &order);
                scope.spawn(move || {
                    let permit = gate.enter();
                    order.lock().unwrap().push(name);
                    assert!(permit.waited() > Duration::ZERO);
                });
                wait_for(gate, name + 1);
            }
            drop(first);
        });
        assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3]);
    }

    #[test]
    fn two_that_always_want_alternate() {
        const ROUNDS: usize = 200;
        let gate = Gate::new(1);
        let turns = Mutex::new(Vec::new());
        let held = gate.enter();
        std::thread::scope(|scope| {
            for name in [0, 1] {
                let (gate, turns) = (&gate, &turns);
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        let _permit = gate.enter();
                        turns.lock().unwrap().push(name);
                        // The round is long enough for the other one to ask again, unless it is done.
                        if round + 1 < ROUNDS {
                            while gate.waiting() == 0
                                && turns.lock().unwrap().iter().filter(|n| **n != name).count() < ROUNDS
                            {
                                std::thread::yield_now();
                            }
                        }
                    }
                });
            }
            wait_for(&gate, 2);
            drop(held);
        });
        let turns = turns.into_inner().unwrap();
        assert_eq!(turns.len(), 2 * ROUNDS);
        assert!(turns.windows(2).take(2 * ROUNDS - 3).all(|pair| pair[0] != pair[1]), "{turns:?}");
    }

    #[test]
    fn a_turn_is_kept_for_its_slice_and_while_nobody_waits() {
        let gate = Gate::new(1);
        let mut long = Turn::new(gate.clone(), Duration::from_secs(3600));
        let mut short = Turn::new(gate.clone(), Duration::ZERO);
        let mut left = 0;
        for _ in 0..3 {
            assert_eq!(short.take(|| left += 1), Duration::ZERO, "nobody waits");
        }
        let was_in = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                let permit = gate.enter();
                assert!(permit.waited() > Duration::ZERO);
                was_in.store(true, Ordering::SeqCst);
            });
            wait_for(&gate, 1);
            // The slice is over: the other one is let in first.
            let _ = short.take(|| left += 1);
            assert!(was_in.load(Ordering::SeqCst));
            waiter.join().unwrap();
            short.end();
            let _ = long.take(|| left += 10);
            let waiter = scope.spawn(|| drop(gate.enter()));
            wait_for(&gate, 1);
            assert_eq!(long.take(|| left += 10), Duration::ZERO, "its slice is not over");
            assert!(!waiter.is_finished());
            long.end();
        });
        assert_eq!(left, 1);
    }

    #[test]
    fn never_more_inside_than_permits() {
        let gate = Gate::new(2);
        let (inside, was_too_many, entered) =
            (AtomicUsize::new(0), AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..5 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let _permit = gate.enter();
                        if inside.fetch_add(1, Ordering::SeqCst) >= 2 {
                            was_too_many.store(true, Ordering::SeqCst);
                        }
                        entered.fetch_add(1, Ordering::SeqCst);
                        std::thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert!(!was_too_many.into_inner());
        assert_eq!(entered.into_inner(), 500);
    }
}
