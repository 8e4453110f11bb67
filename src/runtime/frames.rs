//! When to draw: a pure pacing of frames. No clock and no timer of its own; while nothing changed there is
//! no due time, so nobody wakes up.

use std::time::Duration;

/// Shortest time between frames while text streams in.
const STREAM_GAP: Duration = Duration::from_millis(33);
/// The same over SSH.
const SLOW_STREAM_GAP: Duration = Duration::from_millis(50);
/// A key is answered at once when the last frame is older than this.
const KEY_GAP: Duration = Duration::from_millis(8);

/// What a change of the screen comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Urgency {
    /// Something arrived.
    Stream,
    /// The person did something and waits for the echo.
    Key,
}

/// Where the terminal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// On this machine.
    Local,
    /// At the other end of an SSH connection.
    Remote,
}

/// Decides when the next frame is due. Times are monotonic.
#[derive(Clone, Debug)]
pub(super) struct Pacing {
    stream_gap: Duration,
    last_frame: Option<Duration>,
    pending: Option<Urgency>,
}

impl Pacing {
    /// Nothing drawn, nothing to draw.
    pub(super) const fn new(link: Link) -> Self {
        let stream_gap = match link {
            Link::Local => STREAM_GAP,
            Link::Remote => SLOW_STREAM_GAP,
        };
        Self { stream_gap, last_frame: None, pending: None }
    }

    /// Something on the screen is out of date.
    pub(super) fn mark(&mut self, urgency: Urgency) {
        self.pending = self.pending.max(Some(urgency));
    }

    /// When the next frame is due; `None`: the screen is up to date.
    pub(super) fn due(&self) -> Option<Duration> {
        let gap = match self.pending? {
            Urgency::Stream => self.stream_gap,
            Urgency::Key => KEY_GAP,
        };
        Some(self.last_frame.map_or(Duration::ZERO, |last| last + gap))
    }

    /// A frame was drawn.
    pub(super) fn drawn(&mut self, now: Duration) {
        self.last_frame = Some(now);
        self.pending = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn nothing_to_draw_means_no_wake_up() {
        let mut pacing = Pacing::new(Link::Local);
        assert_eq!(pacing.due(), None);
        pacing.mark(Urgency::Stream);
        assert_eq!(pacing.due(), Some(Duration::ZERO));
        pacing.drawn(ms(100));
        assert_eq!(pacing.due(), None);
    }

    #[test]
    fn streams_are_paced_and_keys_pass_them() {
        for (link, gap) in [(Link::Local, 33), (Link::Remote, 50)] {
            let mut pacing = Pacing::new(link);
            pacing.drawn(ms(100));
            pacing.mark(Urgency::Stream);
            assert_eq!(pacing.due(), Some(ms(100 + gap)));
            pacing.mark(Urgency::Key);
            pacing.mark(Urgency::Stream);
            assert_eq!(pacing.due(), Some(ms(108)), "a key is not slowed by the stream around it");
        }
    }

    #[test]
    fn a_second_of_tokens_is_thirty_frames() {
        let mut pacing = Pacing::new(Link::Local);
        let mut frames = 0;
        for now in 0..1000 {
            pacing.mark(Urgency::Stream);
            if pacing.due().is_some_and(|due| due <= ms(now)) {
                pacing.drawn(ms(now));
                frames += 1;
            }
        }
        assert_eq!(frames, 31);
    }
}
