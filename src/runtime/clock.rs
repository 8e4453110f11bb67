//! The clocks of the program: one monotonic from its start, and the wall's.

use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// Monotonic time since the program started. Copies tell the same time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    start: Instant,
}

impl Clock {
    /// Starts at zero.
    pub(super) fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Time since the start.
    pub(super) fn now(self) -> Duration {
        self.start.elapsed()
    }

    /// The moment this long after the start, for the timer.
    pub(super) fn moment(self, since_start: Duration) -> Instant {
        self.start + since_start
    }

    /// Wall clock, milliseconds since the epoch.
    pub(super) fn wall_ms() -> i64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}
