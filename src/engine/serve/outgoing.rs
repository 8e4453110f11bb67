//! An answer on its way out: its end is bounded in time, and its access line is written when it is over.

use super::super::http::Failure;
use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::future::Future;
use std::io::Write;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::mpsc::SyncSender;
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::sync::OwnedSemaphorePermit;

/// What is known of a request for its access line. Nothing of what was asked or answered.
pub(super) struct Entry {
    pub(super) from: IpAddr,
    pub(super) client: Option<String>,
    pub(super) method: String,
    /// Without the query, safe to show.
    pub(super) path: String,
    pub(super) status: u16,
    pub(super) began: Instant,
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

/// Ends with the reason when an answer has to end.
pub(super) type Cut = Pin<Box<dyn Future<Output = Failure> + Send>>;

/// The body of a response.
pub(super) struct Outgoing {
    inner: Option<Body>,
    cut: Option<Cut>,
    entry: Entry,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Outgoing {
    /// A stream that is cut ends with an event that says so; any other body just ends.
    pub(super) fn new(
        inner: Body,
        cut: Option<Cut>,
        entry: Entry,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Self {
        Self { inner: Some(inner), cut, entry, _permit: permit }
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
        let frame = Pin::new(inner).poll_frame(cx);
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
