//! How a backend is, judged by what happened there: a circuit that opens when it can't be reached or fails, and
//! is tried again after a while.
//!
//! Generations decide. A list that answers shows that a machine is there, not that it can answer a question.

use crate::chat::GenErrorKind;
use crate::router::Health;
use std::time::Duration;

/// Generations that fail in a row until none is sent any more.
const FAILURES: u32 = 2;
/// The longest time between two tries, in seconds.
const LONGEST: u32 = 30;
/// How long a failure is remembered.
const RECENT: Duration = Duration::from_secs(120);

/// One backend's circuit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Circuit {
    state: State,
    /// Failures in a row of the kind that matters in this state.
    failures: u32,
    /// When it may be tried again.
    again_at: Option<Duration>,
    /// When a generation failed last.
    failed_at: Option<Duration>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Unknown,
    Ready,
    KeyNeeded,
    Untrusted,
    Failing,
    Unreachable,
}

impl Circuit {
    /// How it is now.
    #[must_use]
    pub fn health(&self, now: Duration) -> Health {
        let again_s = || {
            let left = self.again_at.unwrap_or(now).saturating_sub(now);
            u32::try_from(left.as_millis().div_ceil(1000)).unwrap_or(LONGEST)
        };
        match self.state {
            State::Unknown => Health::Unknown,
            State::Ready => Health::Ready,
            State::KeyNeeded => Health::KeyNeeded,
            State::Untrusted => Health::Untrusted,
            State::Failing => Health::Failing { again_s: again_s() },
            State::Unreachable => Health::Unreachable { again_s: again_s() },
        }
    }

    /// When it is to be tried again, while it is open.
    #[must_use]
    pub fn next_try(&self, now: Duration) -> Option<Duration> {
        let is_open = matches!(self.state, State::Unreachable | State::Failing);
        is_open.then(|| self.again_at.unwrap_or(now).max(now))
    }

    /// Seconds since a generation failed there, while that is recent.
    #[must_use]
    pub fn failed_s(&self, now: Duration) -> Option<f64> {
        let since = now.saturating_sub(self.failed_at?);
        (since < RECENT).then_some(since.as_secs_f64())
    }

    /// It answered, if only with a list.
    pub fn connected(&mut self) {
        if self.state != State::Failing {
            self.state = State::Ready;
            self.failures = 0;
            self.again_at = None;
        }
    }

    /// It completed an answer.
    pub fn succeeded(&mut self) {
        *self = Self { state: State::Ready, ..Self::default() };
    }

    /// A generation failed, or a connection could not be made.
    pub fn failed(&mut self, kind: GenErrorKind, now: Duration) {
        match kind {
            GenErrorKind::Unreachable => {
                self.failures = if self.state == State::Unreachable { self.failures + 1 } else { 1 };
                self.state = State::Unreachable;
                self.failed_at = Some(now);
                self.wait(now);
            }
            GenErrorKind::Auth => self.state = State::KeyNeeded,
            GenErrorKind::Untrusted => self.state = State::Untrusted,
            GenErrorKind::Protocol
            | GenErrorKind::Timeout
            | GenErrorKind::EngineDied
            | GenErrorKind::Refused => {
                self.failed_at = Some(now);
                self.failures =
                    if matches!(self.state, State::Ready | State::Failing) { self.failures + 1 } else { 1 };
                if self.failures >= FAILURES {
                    self.state = State::Failing;
                    self.wait(now);
                } else {
                    self.state = State::Ready;
                }
            }
            // The machine is well: it is the model, the size of the question or the fence.
            GenErrorKind::Model
            | GenErrorKind::ContextFull
            | GenErrorKind::OutOfMemory
            | GenErrorKind::Fenced => {}
        }
    }

    /// Nothing that was known still has to be so.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    fn wait(&mut self, now: Duration) {
        let seconds = 1_u32.checked_shl(self.failures.saturating_sub(1)).unwrap_or(LONGEST).min(LONGEST);
        self.again_at = Some(now + Duration::from_secs(u64::from(seconds)));
    }
}

/// A state in a few words, and the next step where the person has one.
#[must_use]
pub fn say(name: &str, health: &Health) -> (String, Option<String>) {
    let said = |state: &str, step: Option<String>| (state.to_owned(), step);
    match health {
        Health::Unknown => said("not asked yet", None),
        Health::Ready => said("ready", None),
        Health::Loading => said("loading", None),
        Health::Busy => said("busy", None),
        Health::Asleep => said("asleep", None),
        Health::KeyNeeded => {
            said("key needed", Some(format!("give [[backend]] {name} its key: token_env or token_file")))
        }
        Health::Untrusted => said("certificate changed", Some(format!("tui backends pair {name}"))),
        Health::Failing { again_s } => {
            (format!("failing{}", in_seconds(*again_s)), Some("look at the log of that server".to_owned()))
        }
        Health::Unreachable { again_s } => (
            format!("unreachable{}", in_seconds(*again_s)),
            Some("see that it runs; r tests again".to_owned()),
        ),
    }
}

fn in_seconds(seconds: u32) -> String {
    if seconds == 0 { String::new() } else { format!(", again in {seconds} s") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_machine_that_is_away_is_tried_less_and_less_often() {
        let mut circuit = Circuit::default();
        let mut waits = Vec::new();
        for _ in 0..7 {
            circuit.failed(GenErrorKind::Unreachable, at(100));
            let Health::Unreachable { again_s } = circuit.health(at(100)) else { panic!("{circuit:?}") };
            waits.push(again_s);
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!((circuit.next_try(at(110)), circuit.next_try(at(131))), (Some(at(130)), Some(at(131))));
        circuit.connected();
        assert_eq!((circuit.health(at(100)), circuit.next_try(at(100))), (Health::Ready, None));
    }

    #[test]
    fn only_an_answer_closes_what_failing_answers_opened() {
        let mut circuit = Circuit::default();
        circuit.failed(GenErrorKind::Protocol, at(1));
        assert_eq!(circuit.health(at(1)), Health::Ready, "once is no pattern");
        circuit.failed(GenErrorKind::Timeout, at(2));
        assert_eq!(circuit.health(at(2)), Health::Failing { again_s: 2 });
        circuit.connected();
        assert_eq!(circuit.health(at(3)), Health::Failing { again_s: 1 });
        assert_eq!(circuit.failed_s(at(12)), Some(10.0));
        assert_eq!(circuit.failed_s(at(200)), None);
        circuit.succeeded();
        assert_eq!((circuit.health(at(3)), circuit.failed_s(at(3))), (Health::Ready, None));
    }

    #[test]
    fn what_is_no_fault_of_the_machine_changes_nothing() {
        let kinds =
            [GenErrorKind::Model, GenErrorKind::ContextFull, GenErrorKind::OutOfMemory, GenErrorKind::Fenced];
        for kind in kinds {
            let mut circuit = Circuit::default();
            circuit.connected();
            for _ in 0..5 {
                circuit.failed(kind, at(1));
            }
            assert_eq!(circuit.health(at(1)), Health::Ready, "{kind:?}");
        }
        let mut circuit = Circuit::default();
        circuit.failed(GenErrorKind::Auth, at(1));
        assert_eq!(circuit.health(at(1)), Health::KeyNeeded);
        circuit.failed(GenErrorKind::Untrusted, at(1));
        assert_eq!(circuit.health(at(1)), Health::Untrusted);
    }

    #[test]
    fn each_face_has_a_line_and_what_can_be_done_a_next_step() {
        let faces = [
            Health::Unreachable { again_s: 4 },
            Health::Failing { again_s: 0 },
            Health::KeyNeeded,
            Health::Untrusted,
        ];
        for health in faces {
            let (state, step) = say("mac", &health);
            assert!(!state.is_empty() && step.is_some_and(|step| step.len() > 5), "{health:?}");
        }
        assert_eq!(say("mac", &Health::Ready), ("ready".to_owned(), None));
    }
}
