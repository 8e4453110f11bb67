//! Wrong tokens by address: after a few of them an address has to wait, longer each time.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Wrong ones that cost nothing: people mistype.
const FREE: u32 = 5;
const LONGEST: Duration = Duration::from_secs(60);
/// After this long without a wrong one an address is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(600);
/// Addresses known at once.
const MAX_ADDRESSES: usize = 65_536;

/// The addresses. Bounded.
#[derive(Debug, Default)]
pub(super) struct Failures {
    known: Mutex<HashMap<IpAddr, (u32, Instant)>>,
}

impl Failures {
    /// Notes a wrong token; how long its answer has to wait.
    pub(super) fn note(&self, from: IpAddr, now: Instant) -> Duration {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let from = network(from);
        if known.len() >= MAX_ADDRESSES && !known.contains_key(&from) {
            known.retain(|_, (_, last)| now.saturating_duration_since(*last) < FORGOTTEN);
            // Who has failed least is forgotten first, so that many new addresses do not help the old one.
            if known.len() >= MAX_ADDRESSES {
                let mut counts: Vec<u32> = known.values().map(|(count, _)| *count).collect();
                let (_, middle, _) = counts.select_nth_unstable(MAX_ADDRESSES / 2);
                let middle = *middle;
                let mut room = MAX_ADDRESSES / 4;
                known.retain(|_, (count, _)| {
                    let goes = room > 0 && *count <= middle;
                    room -= usize::from(goes);
                    !goes
                });
            }
        }
        let (count, last) = known.entry(from).or_insert((0, now));
        if now.saturating_duration_since(*last) >= FORGOTTEN {
            *count = 0;
        }
        *count = count.saturating_add(1);
        *last = now;
        match count.checked_sub(FREE + 1) {
            None => Duration::ZERO,
            Some(doublings) => LONGEST.min(Duration::from_secs(1 << doublings.min(6))),
        }
    }

    /// Forgets an address: it had the right token.
    pub(super) fn forgive(&self, from: IpAddr) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(&network(from));
    }
}

/// What one client can choose its address from: itself, or its IPv6 network of 64 bits.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_from_the_sixth_to_a_minute() {
        let failures = Failures::default();
        let (now, here) = (Instant::now(), IpAddr::from([10, 0, 0, 1]));
        let waits: Vec<u64> = (0..14).map(|_| failures.note(here, now).as_secs()).collect();
        assert_eq!(waits, [0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(failures.note(IpAddr::from([10, 0, 0, 2]), now), Duration::ZERO, "others don't wait");
        assert_eq!(failures.note(here, now + FORGOTTEN), Duration::ZERO, "it is forgotten in time");
        for _ in 0..9 {
            failures.note(here, now);
        }
        failures.forgive(here);
        assert_eq!(failures.note(here, now), Duration::ZERO);
        // All of an IPv6 network count as one.
        let six = |last: u16| IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, last]);
        let waits: Vec<u64> = (0..7).map(|n| failures.note(six(n), now).as_secs()).collect();
        assert_eq!(waits, [0, 0, 0, 0, 0, 1, 2]);
    }

    #[test]
    fn memory_is_bounded_and_the_worst_are_kept() {
        let failures = Failures::default();
        let now = Instant::now();
        let worst = IpAddr::from([10, 0, 0, 1]);
        for _ in 0..10 {
            failures.note(worst, now);
        }
        for n in 0..200_000_u32 {
            failures.note(IpAddr::from((0x0b00_0000 + n).to_be_bytes()), now);
        }
        assert!(failures.known.lock().unwrap().len() <= MAX_ADDRESSES);
        assert!(failures.note(worst, now) >= Duration::from_secs(32));
    }
}
