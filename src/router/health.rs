//! How a backend is, from what became of real generations and connections. Pure: the time is passed in, as the time since
//! the program started.
//!
//! No connection opens the circuit at once; it is tried again after 1, 2, 4 … 30 s. Failed generations open it when two
//! come in a row. Only a generation that went well closes it: a server whose lists are green may still answer nothing.
//! Loading is no failure.

use super::facts::Health;
use super::words::whole;
use crate::chat::GenErrorKind;
use std::time::Duration;

/// Failed generations in a row that open the circuit.
const FAILURES: u32 = 2;
/// The longest time between two tries.
const LONGEST: Duration = Duration::from_secs(30);
/// How long a failure counts against a backend when it is compared with others.
const RECENT: Duration = Duration::from_secs(120);

/// What was seen of a backend last that is no failure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Seen {
    /// Nothing.
    #[default]
    Nothing,
    /// It answers.
    Ready,
    /// It loads a model.
    Loading,
    /// All its slots are taken.
    Busy,
    /// It wants a key.
    KeyNeeded,
    /// It shows another certificate.
    Untrusted,
    /// It has no such model.
    ModelMissing,
}

/// The circuit of one backend.
#[derive(Clone, Debug, Default)]
pub struct Circuit {
    seen: Seen,
    /// Connections in a row that failed.
    connects: u32,
    /// Generations in a row that failed.
    generations: u32,
    /// Times it was opened since a generation went well.
    openings: u32,
    /// When it was opened last, and for how long; none: it is closed, or on trial.
    open: Option<(Duration, Duration)>,
    /// When something failed last.
    failed: Option<Duration>,
    /// Whether it can be woken up.
    can_wake: bool,
}

impl Circuit {
    /// The circuit of a backend nobody has asked yet. `can_wake`: its hardware address is known, so silence may be sleep.
    #[must_use]
    pub fn new(can_wake: bool) -> Self {
        Self { can_wake, ..Self::default() }
    }

    /// A generation went well. Closes it.
    pub fn succeeded(&mut self) {
        *self = Self { seen: Seen::Ready, ..Self::new(self.can_wake) };
    }

    /// A connection came about, or a list was answered. Lets the next generation try; closes nothing.
    pub fn connected(&mut self) {
        if self.connects > 0 {
            self.connects = 0;
            self.open = None;
        }
        if matches!(self.seen, Seen::Nothing | Seen::KeyNeeded | Seen::Untrusted) {
            self.seen = if self.openings > 0 { Seen::Nothing } else { Seen::Ready };
        }
    }

    /// It is there and loads a model.
    pub fn loads(&mut self) {
        self.connected();
        self.seen = Seen::Loading;
    }

    /// It is there and all its slots are taken (`true`), or one is free.
    pub fn is_busy(&mut self, busy: bool) {
        self.connected();
        if busy {
            self.seen = Seen::Busy;
        } else if matches!(self.seen, Seen::Busy | Seen::Loading) {
            self.seen = Seen::Ready;
        }
    }

    /// A generation failed, or a connection for another reason than an answer (`Unreachable`). What the person or the
    /// conversation is the reason of (the fence, a full context) says nothing about the backend, but that it is there.
    pub fn failed(&mut self, kind: GenErrorKind, now: Duration) {
        match kind {
            GenErrorKind::Unreachable => {
                self.connects = self.connects.saturating_add(1);
                self.seen = Seen::Nothing;
                self.opens(now);
            }
            GenErrorKind::Auth => self.seen = Seen::KeyNeeded,
            GenErrorKind::Untrusted => self.seen = Seen::Untrusted,
            GenErrorKind::Model => {
                self.connected();
                self.seen = Seen::ModelMissing;
            }
            GenErrorKind::Fenced => {}
            GenErrorKind::ContextFull | GenErrorKind::OutOfMemory => self.connected(),
            GenErrorKind::Refused
            | GenErrorKind::Protocol
            | GenErrorKind::Timeout
            | GenErrorKind::EngineDied => {
                self.connects = 0;
                self.generations = self.generations.saturating_add(1);
                self.failed = Some(now);
                // On trial one failure is enough.
                if self.generations >= FAILURES || self.openings > 0 {
                    self.opens(now);
                }
            }
        }
    }

    /// A person changed its key, its certificate or its address: it is asked anew.
    pub fn reset(&mut self) {
        *self = Self::new(self.can_wake);
    }

    fn opens(&mut self, now: Duration) {
        let wait = Duration::from_secs(1 << self.openings.min(5)).min(LONGEST);
        self.openings = self.openings.saturating_add(1);
        self.open = Some((now, wait));
        self.failed = Some(now);
    }

    /// Time until it is tried again; zero: it may be tried now. A clock that went back counts as time that has passed.
    fn wait(&self, now: Duration) -> Option<Duration> {
        let (since, wait) = self.open?;
        let passed = now.checked_sub(since).unwrap_or(wait);
        Some(wait.saturating_sub(passed))
    }

    /// How it is.
    #[must_use]
    pub fn health(&self, now: Duration) -> Health {
        match self.seen {
            Seen::KeyNeeded => return Health::KeyNeeded,
            Seen::Untrusted => return Health::Untrusted,
            _ => {}
        }
        if let Some(wait) = self.wait(now) {
            let again_s = u32::try_from(whole(wait.as_secs_f64().ceil())).unwrap_or(u32::MAX);
            return match (self.connects > 0, self.can_wake) {
                (true, true) => Health::Asleep,
                (true, false) => Health::Unreachable { again_s },
                (false, _) => Health::Failing { again_s },
            };
        }
        match self.seen {
            Seen::Ready => Health::Ready,
            Seen::Loading => Health::Loading,
            Seen::Busy => Health::Busy,
            Seen::ModelMissing => Health::ModelMissing,
            Seen::Nothing | Seen::KeyNeeded | Seen::Untrusted => Health::Unknown,
        }
    }

    /// When it is to be tried again, while it is open.
    #[must_use]
    pub fn next_try(&self, now: Duration) -> Option<Duration> {
        Some(now.saturating_add(self.wait(now)?))
    }

    /// Seconds since something failed there, while that is recent: [`super::BackendFacts::failed_s`].
    #[must_use]
    pub fn failed_s(&self, now: Duration) -> Option<f64> {
        let since = now.checked_sub(self.failed?)?;
        (since < RECENT).then_some(since.as_secs_f64())
    }
}

impl Health {
    /// Whether a turn can't be sent there now.
    #[must_use]
    pub const fn is_away(&self) -> bool {
        match self {
            Self::KeyNeeded | Self::Untrusted => true,
            Self::Failing { again_s } | Self::Unreachable { again_s } => *again_s > 0,
            Self::Unknown | Self::Ready | Self::Loading | Self::Busy | Self::Asleep | Self::ModelMissing => {
                false
            }
        }
    }

    /// The state in a few words, and the next step where there is one for the person.
    #[must_use]
    pub fn say(&self, backend: &str) -> (String, Option<String>) {
        let again = |again_s: &u32| match again_s {
            0 => "the next question tries it again".to_owned(),
            s => format!("tried again in {s} s"),
        };
        match self {
            Self::Unknown => ("not asked yet".to_owned(), None),
            Self::Ready => ("ready".to_owned(), None),
            Self::Loading => ("loads a model".to_owned(), None),
            Self::Busy => ("busy".to_owned(), None),
            Self::Asleep => ("asleep".to_owned(), Some("a question wakes it".to_owned())),
            Self::KeyNeeded => (
                "wants another key".to_owned(),
                Some(format!("tui backends pair {backend}, or set its token")),
            ),
            Self::Untrusted => (
                "shows another certificate than the pinned one".to_owned(),
                Some(format!("if that is right: tui backends pair {backend}")),
            ),
            Self::ModelMissing => (
                "has no model of the name asked for last".to_owned(),
                Some(format!("tui models --on {backend} lists what it has")),
            ),
            Self::Failing { again_s } => ("its answers fail".to_owned(), Some(again(again_s))),
            Self::Unreachable { again_s } => ("unreachable".to_owned(), Some(again(again_s))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;
    use proptest::prelude::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn no_connection_opens_at_once_and_waits_longer_each_time() {
        let mut circuit = Circuit::new(false);
        let mut now = at(100);
        for wait in [1, 2, 4, 8, 16, 30, 30] {
            circuit.failed(GenErrorKind::Unreachable, now);
            assert_eq!(circuit.health(now), Health::Unreachable { again_s: wait });
            assert_eq!(circuit.next_try(now), Some(now + at(u64::from(wait))));
            now += at(u64::from(wait));
            assert_eq!(circuit.health(now), Health::Unreachable { again_s: 0 });
            assert!(!circuit.health(now).is_away());
        }
        // It is there again, but has not answered yet.
        circuit.connected();
        assert_eq!(circuit.health(now), Health::Unknown);
        circuit.failed(GenErrorKind::Protocol, now);
        assert_eq!(circuit.health(now), Health::Failing { again_s: 30 }, "on trial one failure is enough");
        circuit.succeeded();
        assert_eq!(circuit.health(now), Health::Ready);
        circuit.failed(GenErrorKind::Unreachable, now);
        assert_eq!(circuit.health(now), Health::Unreachable { again_s: 1 }, "the wait begins anew");
    }

    #[test]
    fn two_failed_generations_open_and_only_a_good_one_closes() {
        let mut circuit = Circuit::default();
        circuit.connected();
        circuit.failed(GenErrorKind::EngineDied, at(10));
        assert_eq!(circuit.health(at(10)), Health::Ready);
        circuit.failed(GenErrorKind::Timeout, at(11));
        assert_eq!(circuit.health(at(11)), Health::Failing { again_s: 1 });
        // Lists are green: nothing closes.
        circuit.connected();
        assert_eq!(circuit.health(at(11)), Health::Failing { again_s: 1 });
        circuit.succeeded();
        assert_eq!(circuit.health(at(11)), Health::Ready);
        assert_eq!(circuit.failed_s(at(12)), None);
        circuit.failed(GenErrorKind::Timeout, at(20));
        assert_eq!(circuit.health(at(20)), Health::Ready, "a good one in between: not in a row");
        assert_eq!(circuit.failed_s(at(25)), Some(5.0));
        assert_eq!(circuit.failed_s(at(140)), None);
    }

    #[test]
    fn what_is_no_failure_opens_nothing() {
        let mut circuit = Circuit::default();
        circuit.loads();
        assert_eq!(circuit.health(at(0)), Health::Loading);
        circuit.is_busy(true);
        assert_eq!(circuit.health(at(0)), Health::Busy);
        circuit.is_busy(false);
        for kind in [GenErrorKind::Fenced, GenErrorKind::ContextFull, GenErrorKind::OutOfMemory] {
            for _ in 0..3 {
                circuit.failed(kind, at(1));
            }
            assert_eq!(circuit.health(at(1)), Health::Ready, "{kind:?}");
        }
        circuit.failed(GenErrorKind::Model, at(1));
        assert_eq!(circuit.health(at(1)), Health::ModelMissing);
        circuit.failed(GenErrorKind::Auth, at(1));
        assert_eq!(circuit.health(at(1)), Health::KeyNeeded);
        circuit.failed(GenErrorKind::Untrusted, at(1));
        assert_eq!(circuit.health(at(1)), Health::Untrusted);
        circuit.reset();
        assert_eq!(circuit.health(at(1)), Health::Unknown);
    }

    #[test]
    fn silence_of_one_that_can_be_woken_is_sleep() {
        let mut circuit = Circuit::new(true);
        circuit.failed(GenErrorKind::Unreachable, at(5));
        assert_eq!(circuit.health(at(5)), Health::Asleep);
        circuit.connected();
        assert_eq!(circuit.health(at(5)), Health::Unknown);
    }

    #[test]
    fn a_clock_that_jumps_locks_nothing() {
        let mut circuit = Circuit::default();
        circuit.failed(GenErrorKind::Unreachable, at(1_000_000));
        assert_eq!(circuit.health(at(5)), Health::Unreachable { again_s: 0 });
        assert_eq!(circuit.failed_s(at(5)), None);
        circuit.failed(GenErrorKind::Unreachable, Duration::MAX);
        assert!(circuit.next_try(Duration::MAX).is_some());
        assert_eq!(circuit.health(at(0)), Health::Unreachable { again_s: 0 });
    }

    proptest! {
        #[test]
        fn whatever_comes_the_wait_is_at_most_half_a_minute(
            steps in proptest::collection::vec((0_u8..9, 0_u64..10_000), 0..60),
        ) {
            let kinds = [
                GenErrorKind::Unreachable,
                GenErrorKind::Refused,
                GenErrorKind::Auth,
                GenErrorKind::Protocol,
                GenErrorKind::Model,
                GenErrorKind::EngineDied,
            ];
            let mut circuit = Circuit::default();
            for (step, time) in steps {
                match kinds.get(usize::from(step)) {
                    Some(kind) => circuit.failed(*kind, at(time)),
                    None if step == 6 => circuit.connected(),
                    None if step == 7 => circuit.loads(),
                    None => circuit.succeeded(),
                }
                if let Health::Failing { again_s } | Health::Unreachable { again_s } = circuit.health(at(time)) {
                    prop_assert!(again_s <= 30);
                }
                prop_assert!(!circuit.health(at(time)).say("mac").0.is_empty());
            }
            circuit.succeeded();
            prop_assert_eq!(circuit.health(at(0)), Health::Ready);
        }
    }
}
