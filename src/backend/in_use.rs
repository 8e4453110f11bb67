//! Round trips while a backend is used, so that a slow network can be told from a slow machine.

use super::GenStream;
use super::http::Http;
use crate::chat::GenEvent;
use futures_util::StreamExt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Until the first one is measured: the request goes first.
const FIRST: Duration = Duration::from_millis(500);
/// Between two.
const PAUSE: Duration = Duration::from_secs(3);

/// The same events; while they are waited for, the network is measured.
pub(super) fn measured(stream: GenStream, http: Arc<Http>) -> GenStream {
    let measured = Measured { stream, http, next: Instant::now() + FIRST, running: None };
    Box::pin(futures_util::stream::unfold(measured, |mut measured| async move {
        let event = measured.next().await?;
        Some((event, measured))
    }))
}

struct Measured {
    stream: GenStream,
    http: Arc<Http>,
    next: Instant,
    /// Goes on while events pass.
    running: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Measured {
    async fn next(&mut self) -> Option<GenEvent> {
        loop {
            let (http, next) = (&self.http, self.next);
            let running = self.running.get_or_insert_with(|| {
                let http = Arc::clone(http);
                Box::pin(async move {
                    sleep_until(next).await;
                    http.knock().await;
                })
            });
            tokio::select! {
                // What the answer has to say comes first.
                biased;
                event = self.stream.next() => return event,
                () = running.as_mut() => {
                    self.running = None;
                    self.next = Instant::now() + PAUSE;
                }
            }
        }
    }
}
