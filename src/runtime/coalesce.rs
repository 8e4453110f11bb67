//! Joins pieces of streamed text that arrive close together into one message. Pure: time comes in.
//!
//! The first piece of a channel is never held back, and the order of events never changes.

use crate::chat::{Channel, GenEvent};
use std::time::Duration;

/// How long a piece may wait for the next one.
const WINDOW: Duration = Duration::from_millis(15);

/// An event and when it (or the last piece of it) arrived.
pub(super) type Timed = (GenEvent, Duration);

/// Pieces waiting to be joined.
#[derive(Debug, Default)]
pub(super) struct Coalescer {
    held: Option<(Channel, String, Duration)>,
    last: Option<(Channel, Duration)>,
}

impl Coalescer {
    /// Takes the next event; returns what goes out now, in order.
    pub(super) fn push(&mut self, event: GenEvent, now: Duration) -> impl Iterator<Item = Timed> + use<> {
        let (first, second) = match event {
            GenEvent::Delta { channel, text } => {
                let (earlier, joined) = match self.held.take() {
                    Some((held, mut before, _)) if held == channel => {
                        before.push_str(&text);
                        (None, before)
                    }
                    other => (other.map(Self::event), text),
                };
                let is_quiet = self.last.is_none_or(|(last, at)| last != channel || now >= at + WINDOW);
                if is_quiet {
                    self.last = Some((channel, now));
                    (earlier, Some((GenEvent::Delta { channel, text: joined }, now)))
                } else {
                    self.held = Some((channel, joined, now));
                    (earlier, None)
                }
            }
            other => (self.held.take().map(Self::event), Some((other, now))),
        };
        first.into_iter().chain(second)
    }

    /// When what is held has to go out; `None` when nothing is held.
    pub(super) fn due(&self) -> Option<Duration> {
        self.held.as_ref().and(self.last).map(|(_, at)| at + WINDOW)
    }

    /// Takes what is held, because it is due.
    pub(super) fn flush(&mut self, now: Duration) -> Option<Timed> {
        let held = self.held.take()?;
        self.last = Some((held.0, now));
        Some(Self::event(held))
    }

    fn event((channel, text, at): (Channel, String, Duration)) -> Timed {
        (GenEvent::Delta { channel, text }, at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::Finish;
    use pretty_assertions::assert_eq;
    use proptest::prelude::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn delta(channel: Channel, text: &str) -> GenEvent {
        GenEvent::Delta { channel, text: text.to_owned() }
    }

    fn push(coalescer: &mut Coalescer, event: GenEvent, at: u64) -> Vec<Timed> {
        coalescer.push(event, ms(at)).collect()
    }

    #[test]
    fn the_first_piece_goes_at_once_and_the_next_ones_together() {
        let mut c = Coalescer::default();
        assert_eq!(push(&mut c, delta(Channel::Answer, "a"), 0), [(delta(Channel::Answer, "a"), ms(0))]);
        assert_eq!(c.due(), None);
        assert_eq!(push(&mut c, delta(Channel::Answer, "b"), 5), []);
        assert_eq!(push(&mut c, delta(Channel::Answer, "c"), 9), []);
        assert_eq!(c.due(), Some(ms(15)));
        assert_eq!(c.flush(ms(15)), Some((delta(Channel::Answer, "bc"), ms(9))));
        assert_eq!(c.due(), None);
        assert_eq!(push(&mut c, delta(Channel::Answer, "d"), 16), []);
        let done = GenEvent::Done { finish: Finish::Stop, timings: None };
        assert_eq!(push(&mut c, done.clone(), 17), [(delta(Channel::Answer, "d"), ms(16)), (done, ms(17))]);
    }

    #[test]
    fn the_first_piece_of_the_answer_never_waits_for_the_thinking() {
        let mut c = Coalescer::default();
        push(&mut c, delta(Channel::Thinking, "hm"), 0);
        push(&mut c, delta(Channel::Thinking, "m"), 2);
        assert_eq!(
            push(&mut c, delta(Channel::Answer, "yes"), 3),
            [(delta(Channel::Thinking, "m"), ms(2)), (delta(Channel::Answer, "yes"), ms(3))]
        );
    }

    proptest! {
        #[test]
        fn no_text_is_lost_or_reordered(pieces in prop::collection::vec((any::<bool>(), "[a-z]{1,3}", 0..20u64), 0..60)) {
            let mut c = Coalescer::default();
            let (mut now, mut out, mut expected) = (0, Vec::new(), Vec::new());
            for (thinking, text, gap) in pieces {
                now += gap;
                if let Some(due) = c.due().filter(|due| *due <= ms(now)) {
                    out.extend(c.flush(due));
                }
                let channel = if thinking { Channel::Thinking } else { Channel::Answer };
                expected.extend(text.chars().map(|ch| (channel, ch)));
                out.extend(c.push(delta(channel, &text), ms(now)));
            }
            out.extend(c.flush(ms(now)));
            let got: Vec<_> = out.iter().flat_map(|(event, _)| match event {
                GenEvent::Delta { channel, text } => text.chars().map(|ch| (*channel, ch)).collect::<Vec<_>>(),
                _ => Vec::new(),
            }).collect();
            prop_assert_eq!(got, expected);
            prop_assert!(out.windows(2).all(|w| w[0].1 <= w[1].1));
        }
    }
}
