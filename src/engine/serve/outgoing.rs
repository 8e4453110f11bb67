//! An answer on its way out: its end is bounded in time, and its access line is written when it is over.

use super::super::http::{Cut, Failure};
use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::future::Future;
use std::io::Write;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::task::{Context, Poll};
use std::time::{Duration, Instant as StdInstant};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep};

/// What is known of a request for its access line. Nothing of what was asked or answered.
pub(super) struct Entry {
    pub(super) from: IpAddr,
    pub(super) client: Option<String>,
    pub(super) method: String,
    /// Without the query, safe to show.
    pub(super) path: String,
    pub(super) status: u16,
    pub(super) began: StdInstant,
    /// Where the line also goes, when the person wants to see it.
    pub(super) teller: Option<Teller>,
    pub(super) bytes: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let client = self.client.as_deref().unwrap_or("-");
        // Nothing was answered: the client went away before.
        let status = if self.status == 0 { "-".to_owned() } else { self.status.to_string() };
        let line = format!(
            "{} {client} {} {} {status} {} B {} ms",
            self.from,
            self.method,
            self.path,
            self.bytes,
            self.began.elapsed().as_millis()
        );
        tracing::info!(target: "duet::access", "{line}");
        if let Some(teller) = &self.teller {
            teller.tell(line);
        }
    }
}

/// Writes lines to stdout, which the keeper has led to the person. On a thread of its own: a terminal that
/// stalls must not stall the server. What can't be written in time is dropped; the log has it.
#[derive(Clone, Debug)]
pub(super) struct Teller {
    lines: SyncSender<String>,
}

/// Lines that may wait to be written.
const LINES: usize = 256;

impl Teller {
    pub(super) fn start() -> Self {
        let (lines, receiver) = std::sync::mpsc::sync_channel::<String>(LINES);
        std::thread::spawn(move || {
            for line in receiver {
                let _ = writeln!(std::io::stdout(), "{line}");
            }
        });
        Self { lines }
    }

    fn tell(&self, line: String) {
        let _ = self.lines.try_send(line);
    }
}

/// A stream is never silent for longer: a client then knows that the server is there.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// The body of a response.
pub(super) struct Outgoing {
    inner: Option<Body>,
    /// Of a stream.
    cut: Option<Cut>,
    silence: Pin<Box<Sleep>>,
    entry: Entry,
    _permit: Option<Arc<OwnedSemaphorePermit>>,
}

impl Outgoing {
    /// A stream that is cut ends with an event that says so; any other body just ends.
    pub(super) fn new(
        inner: Body,
        cut: Option<Cut>,
        entry: Entry,
        permit: Option<Arc<OwnedSemaphorePermit>>,
    ) -> Self {
        Self { inner: Some(inner), cut, silence: Box::pin(sleep(HEARTBEAT)), entry, _permit: permit }
    }
}

impl HttpBody for Outgoing {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let Some(inner) = &mut this.inner else { return Poll::Ready(None) };
        if let Some(cut) = &mut this.cut
            && let Poll::Ready(failure) = cut.as_mut().poll(cx)
        {
            // Dropping the answer cancels it.
            this.inner = None;
            this.cut = None;
            let event = Bytes::from(format!("data: {}\n\n", failure.body()));
            this.entry.bytes += event.len() as u64;
            return Poll::Ready(Some(Ok(Frame::data(event))));
        }
        let mut frame = Pin::new(inner).poll_frame(cx);
        if this.cut.is_some() {
            // Every frame of a stream holds whole events: a comment fits between any two.
            if frame.is_pending() && this.silence.as_mut().poll(cx).is_ready() {
                frame = Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b":\n\n")))));
            }
            if frame.is_ready() {
                this.silence.as_mut().reset(Instant::now() + HEARTBEAT);
            }
        }
        match &frame {
            Poll::Ready(Some(Ok(frame))) => {
                this.entry.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
            Poll::Ready(_) => this.inner = None,
            Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.inner, &self.cut) {
            (Some(inner), None) => inner.size_hint(),
            (Some(_), Some(_)) => SizeHint::default(),
            (None, _) => SizeHint::with_exact(0),
        }
    }
}

/// Why running answers are ended by the server.
pub(super) fn too_long(seconds: u32) -> Failure {
    Failure::new(
        StatusCode::GATEWAY_TIMEOUT,
        "timeout_error",
        format!("the answer took more than {seconds} s, which is the limit here. Ask for less"),
    )
}

pub(super) fn ending() -> Failure {
    Failure::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "unavailable_error",
        "the server is ending. Send again later",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use std::future::poll_fn;

    fn silent() -> Body {
        Body::from_stream(futures_util::stream::pending::<Result<Bytes, Infallible>>())
    }

    fn outgoing(inner: Body, cut: Option<Cut>) -> Outgoing {
        let entry = Entry {
            from: IpAddr::from([127, 0, 0, 1]),
            client: None,
            method: "GET".to_owned(),
            path: "/".to_owned(),
            status: 200,
            began: StdInstant::now(),
            teller: None,
            bytes: 0,
        };
        Outgoing::new(inner, cut, entry, None)
    }

    async fn next(body: &mut Outgoing) -> Option<String> {
        let frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await?;
        Some(String::from_utf8(frame.unwrap().into_data().unwrap().to_vec()).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_stream_shows_life_until_it_is_cut() {
        let cut = Box::pin(async {
            sleep(Duration::from_secs(5)).await;
            too_long(5)
        });
        let mut body = outgoing(silent(), Some(cut));
        let began = Instant::now();
        for beat in 1..=2 {
            assert_eq!(next(&mut body).await.as_deref(), Some(":\n\n"));
            assert_eq!(began.elapsed().as_secs(), 2 * beat, "by the paused clock");
        }
        let last = next(&mut body).await.unwrap();
        assert!(last.starts_with("data: {\"error\"") && last.ends_with("\n\n"), "{last}");
        assert_eq!(next(&mut body).await, None);
        assert!(body.is_end_stream());
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_is_no_stream_stays_as_it_is() {
        let mut body = outgoing(Body::from("{}"), None);
        assert_eq!(body.size_hint().exact(), Some(2), "its length is known");
        assert_eq!(next(&mut body).await.as_deref(), Some("{}"));
        assert_eq!(next(&mut body).await, None);
        assert_eq!(body.entry.bytes, 2);
    }
}
