//! How far away a backend is: the time of round trips, smoothed, and how much it varies.

use std::sync::{Mutex, PoisonError};

/// Weight of a new round trip in the smoothed time, and in its variation (RFC 6298 has the same two).
const GAIN: f64 = 0.125;
const JITTER_GAIN: f64 = 0.25;
/// Milliseconds from which a round trip counts as a stall.
const STALL_MS: f64 = 1000.0;

/// What is known of the network to a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Network {
    /// Time for a round trip in milliseconds, smoothed.
    pub rtt_ms: f64,
    /// How far round trips lie from that, in milliseconds, smoothed.
    pub jitter_ms: f64,
    /// Round trips that were measured.
    pub samples: u32,
    /// Those among them that took more than a second, and those that got no answer.
    pub stalls: u32,
}

/// Round trips to one backend.
#[derive(Debug, Default)]
pub(super) struct Meter(Mutex<Network>);

impl Meter {
    /// One round trip took this long.
    pub(super) fn add(&self, ms: f64) {
        let mut net = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if net.samples == 0 {
            (net.rtt_ms, net.jitter_ms) = (ms, 0.0);
        } else {
            net.jitter_ms += JITTER_GAIN * ((ms - net.rtt_ms).abs() - net.jitter_ms);
            net.rtt_ms += GAIN * (ms - net.rtt_ms);
        }
        net.samples += 1;
        net.stalls += u32::from(ms > STALL_MS);
    }

    /// One got no answer.
    pub(super) fn lost(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).stalls += 1;
    }

    /// What is known so far; none before the first round trip.
    pub(super) fn read(&self) -> Option<Network> {
        let net = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (net.samples > 0).then_some(net)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_way_and_a_shaky_one() {
        let meter = Meter::default();
        meter.lost();
        assert_eq!(meter.read(), None, "nothing measured");
        for _ in 0..50 {
            meter.add(4.0);
        }
        let steady = meter.read().expect("measured");
        assert!((steady.rtt_ms - 4.0).abs() < 1e-9 && steady.jitter_ms < 1e-9, "{steady:?}");
        assert_eq!((steady.samples, steady.stalls), (50, 1));
        for n in 0..50 {
            meter.add(if n % 2 == 0 { 10.0 } else { 90.0 });
        }
        meter.add(1500.0);
        let shaky = meter.read().expect("measured");
        assert!((40.0..300.0).contains(&shaky.rtt_ms) && shaky.jitter_ms > 30.0, "{shaky:?}");
        assert_eq!(shaky.stalls, 2);
    }
}
