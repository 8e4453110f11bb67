//! One generation: everything said before is on disk, then the request leaves, then its events come back.

use super::StoreGate;
use crate::app::Msg;
use crate::chat::{GenError, GenErrorKind, GenEvent, GenKey};
use crate::runtime::clock::Clock;
use crate::runtime::coalesce::{Coalescer, Timed};
use crate::runtime::event_loop::News;
use futures_util::{Stream, StreamExt};
use tokio::sync::mpsc::Sender;

/// Forwards the events of a generation to the app, with the time each arrived. The stream is first asked when
/// the store is done, and dropped (which cancels) when this future is.
pub(super) async fn forward(
    key: GenKey,
    mut events: impl Stream<Item = GenEvent> + Unpin,
    store: StoreGate,
    news: Sender<News>,
    clock: Clock,
) {
    store.flushed().await;
    let to_app = |(event, at): Timed| news.send(Msg::Gen { key, event, at }.into());
    if news.send(Msg::Sent { key, at: clock.now() }.into()).await.is_err() {
        return;
    }
    let mut coalescer = Coalescer::default();
    loop {
        let due = coalescer.due().map(|at| clock.moment(at));
        let event = tokio::select! {
            biased;
            event = events.next() => event,
            () = async { tokio::time::sleep_until(due.unwrap_or_else(tokio::time::Instant::now)).await },
                if due.is_some() =>
            {
                if let Some(held) = coalescer.flush(clock.now()) && to_app(held).await.is_err() {
                    return;
                }
                continue;
            }
        };
        // Every generation ends with a word, even if a backend forgets it.
        let event = event.unwrap_or_else(|| {
            GenEvent::Failed(GenError::new(
                GenErrorKind::Protocol,
                "the answer ended without saying why; what came is kept, ask again to retry",
            ))
        });
        let is_last = matches!(event, GenEvent::Done { .. } | GenEvent::Failed(_));
        for timed in coalescer.push(event, clock.now()) {
            if to_app(timed).await.is_err() {
                return;
            }
        }
        if is_last {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{Channel, Finish, LaneId, TurnId};
    use pretty_assertions::assert_eq;
    use std::time::Duration;
    use tokio::sync::mpsc;
    use tokio_util::sync::CancellationToken;

    const KEY: GenKey = GenKey { turn: TurnId(1), lane: LaneId(0), attempt: 1 };

    fn delta(text: &str) -> GenEvent {
        GenEvent::Delta { channel: Channel::Answer, text: text.to_owned() }
    }

    fn done() -> GenEvent {
        GenEvent::Done { finish: Finish::Stop, timings: None }
    }

    /// Plays events at their times (in ms) and returns what the app hears, each with the time it was sent.
    async fn play(script: Vec<(u64, GenEvent)>) -> Vec<(Duration, Msg)> {
        let clock = Clock::start();
        let events = futures_util::stream::iter(script).then(move |(at, event)| async move {
            tokio::time::sleep_until(clock.moment(Duration::from_millis(at))).await;
            event
        });
        let (sender, mut receiver) = mpsc::channel(4);
        let work = forward(KEY, Box::pin(events), StoreGate::off(), sender, clock);
        let listen = async move {
            let mut heard = Vec::new();
            while let Some(News::Msg(msg)) = receiver.recv().await {
                heard.push((clock.now(), msg));
            }
            heard
        };
        tokio::join!(work, listen).1
    }

    fn heard(at: u64, event: GenEvent, arrived: u64) -> (Duration, Msg) {
        let at_ms = Duration::from_millis;
        (at_ms(at), Msg::Gen { key: KEY, event, at: at_ms(arrived) })
    }

    #[tokio::test(start_paused = true)]
    async fn deltas_close_together_become_one_message() {
        let script = vec![
            (10, delta("a")),
            (12, delta("b")),
            (14, delta("c")),
            (60, delta("d")),
            (61, delta("e")),
            (62, done()),
        ];
        let sent = (Duration::ZERO, Msg::Sent { key: KEY, at: Duration::ZERO });
        assert_eq!(
            play(script).await,
            [
                sent,
                heard(10, delta("a"), 10),
                heard(25, delta("bc"), 14),
                heard(60, delta("d"), 60),
                heard(62, delta("e"), 61),
                heard(62, done(), 62),
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_just_ends_has_failed() {
        let heard = play(vec![(1, delta("half"))]).await;
        let Some((_, Msg::Gen { event: GenEvent::Failed(error), .. })) = heard.last() else {
            panic!("no failure in {heard:?}");
        };
        assert_eq!(error.kind, GenErrorKind::Protocol);
    }

    #[tokio::test(start_paused = true)]
    async fn dropping_it_drops_the_stream() {
        let dropped = CancellationToken::new();
        let guard = dropped.clone().drop_guard();
        let events = futures_util::stream::pending().inspect(move |_| {
            let _ = &guard;
        });
        let (sender, mut receiver) = mpsc::channel(4);
        let work = forward(KEY, Box::pin(events), StoreGate::off(), sender, Clock::start());
        tokio::select! {
            () = work => panic!("nothing ends it"),
            msg = receiver.recv() => assert!(matches!(msg, Some(News::Msg(Msg::Sent { .. })))),
        }
        assert!(dropped.is_cancelled());
    }
}
