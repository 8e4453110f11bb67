//! Requests that got no good answer: how far they came, and the words for it.

use super::super::fault;
use super::super::tls::{self, Refusal, Stranger, Trust};
use super::peer::NoAddress;
use super::{CONNECT, Http};
use crate::chat::{GenError, GenErrorKind};
use std::error::Error;
use std::io;
use std::sync::PoisonError;
use std::time::Duration;

/// A request that got no good answer.
#[derive(Debug)]
pub(in crate::backend) struct HttpError {
    /// For the person.
    pub(in crate::backend) error: GenError,
    /// How far it came.
    pub(in crate::backend) reach: Reach,
}

/// How far a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::backend) enum Reach {
    /// No connection, because nothing listens: the request was seen by nobody.
    Nobody,
    /// Perhaps to the server: no answer, or half of one.
    Unknown,
    /// The server answered: an error, or nonsense.
    Answered {
        /// The HTTP status.
        status: u16,
    },
}

impl Reach {
    /// Whether the server answered.
    pub(in crate::backend) const fn is_answered(self) -> bool {
        matches!(self, Self::Answered { .. })
    }
}

impl From<HttpError> for GenError {
    fn from(error: HttpError) -> Self {
        error.error
    }
}

impl Http {
    /// The error for a server that said nothing for this long.
    pub(super) fn silent(&self, patience: Duration) -> HttpError {
        let message = format!(
            "{} did not answer within {} s ({})\ntry again, or choose another backend",
            self.backend,
            patience.as_secs(),
            self.place
        );
        HttpError { error: GenError::new(GenErrorKind::Timeout, message), reach: Reach::Unknown }
    }

    /// The error for a connection that broke.
    pub(super) fn broken(&self, why: &str) -> HttpError {
        let message = format!("the connection to {} broke: {why} ({})\ntry again", self.backend, self.place);
        HttpError { error: GenError::new(GenErrorKind::Protocol, message), reach: Reach::Unknown }
    }

    /// The error for a request that got no headers.
    pub(super) async fn unsent(&self, error: &reqwest::Error) -> HttpError {
        if let Some(refusal) = tls::refusal(error) {
            return self.no_trust(refusal);
        }
        let io = io_cause(error);
        // The tunnel may know why its far end does not answer.
        if let Some(tunnel) = self.tunnel_of()
            && let Some(why) = tunnel.last_words().await
        {
            let message =
                format!("{} can't be reached at {}: {why}\n{}", self.backend, self.place, self.next_step);
            return HttpError {
                error: GenError::new(GenErrorKind::Unreachable, message),
                reach: Reach::Unknown,
            };
        }
        if error.is_connect() || error.is_timeout() {
            let cause = match io {
                _ if error.is_timeout() => format!("no connection within {} s", CONNECT.as_secs()),
                Some(io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => {
                    "nothing listens there".to_owned()
                }
                _ => innermost(error),
            };
            let reach = match io {
                Some(io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => Reach::Nobody,
                _ => Reach::Unknown,
            };
            let message =
                format!("{} can't be reached at {}: {cause}\n{}", self.backend, self.place, self.next_step);
            return HttpError { error: GenError::new(GenErrorKind::Unreachable, message), reach };
        }
        if io.is_some() {
            return self.broken(&why(error));
        }
        let cause = innermost(error);
        let is_foreign = cause.contains("HTTP") || cause.contains("header") || cause.contains("parse");
        if is_foreign {
            let message = format!(
                "{} is not an HTTP server ({cause})\ncheck `url` of backend {}",
                self.place, self.backend
            );
            return HttpError {
                error: GenError::new(GenErrorKind::Protocol, message),
                reach: Reach::Unknown,
            };
        }
        self.broken(&why(error))
    }

    /// The error for a server that is not taken for the one that was meant. Nothing of the request was sent.
    fn no_trust(&self, refusal: Refusal) -> HttpError {
        let name = &self.backend;
        if let Refusal::Stranger(Stranger { now, .. }) = &refusal {
            *self.stranger.lock().unwrap_or_else(PoisonError::into_inner) = Some(*now);
        }
        let untrusted = |message: String| GenError::new(GenErrorKind::Untrusted, message);
        let error = match refusal {
            Refusal::Stranger(Stranger { now, was: Some(was) }) => untrusted(format!(
                "{name}: certificate changed. was {was} now {now}, nothing was sent\n`tui backends pair {name}` if that is meant"
            )),
            Refusal::Stranger(Stranger { now, was: None }) => untrusted(format!(
                "{name}: its key is {now}, nothing was sent\n`tui backends pair {name}` if that is the one"
            )),
            Refusal::Certificate(why) => untrusted(format!(
                "{name}: its certificate {why}, nothing was sent ({})\n`tui backends pair {name}` to accept its key, once you have compared it",
                self.place
            )),
            Refusal::NoTls if matches!(self.trust, Trust::Pinned(_)) => untrusted(format!(
                "{name} does not speak TLS any more, nothing was sent ({})\nstart it there with --tls",
                self.place
            )),
            Refusal::NoTls => GenError::new(
                GenErrorKind::Protocol,
                format!("{} does not speak TLS\nwrite http:// in `url` of backend {name}", self.place),
            ),
            Refusal::Other(why) => GenError::new(
                GenErrorKind::Protocol,
                format!(
                    "{name}: no TLS with {}: {}\nlook at the log of that server",
                    self.place,
                    fault::clean(&why)
                ),
            ),
        };
        HttpError { error, reach: Reach::Nobody }
    }

    /// The error for a host that has no address to connect to.
    pub(super) fn no_address(&self, why: &NoAddress) -> HttpError {
        let (kind, message) = match why {
            NoAddress::Unknown(why) => (
                GenErrorKind::Unreachable,
                format!(
                    "{} can't be reached at {}: no such host ({})\ncheck `url` of backend {}",
                    self.backend,
                    self.place,
                    fault::clean(why),
                    self.backend
                ),
            ),
            NoAddress::Slow(seconds) => (
                GenErrorKind::Unreachable,
                format!(
                    "{} can't be reached at {}: its name was not found within {seconds} s\ntry again, or write its address in `url` of backend {}",
                    self.backend, self.place, self.backend
                ),
            ),
            NoAddress::Public(ip) => (
                GenErrorKind::Refused,
                format!(
                    "{}: questions are not sent over plain http to a public address ({ip})\nuse https://, or `ssh = \"host\"` for a tunnel",
                    self.backend
                ),
            ),
        };
        HttpError { error: GenError::new(kind, message), reach: Reach::Nobody }
    }
}

/// Why a connection broke, in a few words.
pub(in crate::backend) fn why(error: &reqwest::Error) -> String {
    match io_cause(error) {
        Some(io::ErrorKind::ConnectionReset) => "it was reset".to_owned(),
        Some(io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe) => "it was closed".to_owned(),
        Some(io::ErrorKind::TimedOut) => "the other side vanished".to_owned(),
        _ => fault::clean(&innermost(error)),
    }
}

fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(error.source(), |e: &&(dyn Error + 'static)| (*e).source())
}

fn io_cause(error: &reqwest::Error) -> Option<io::ErrorKind> {
    causes(error).filter_map(|e| e.downcast_ref::<io::Error>()).last().map(io::Error::kind)
}

fn innermost(error: &reqwest::Error) -> String {
    let cause = causes(error).last().map_or_else(|| error.to_string(), ToString::to_string);
    fault::clean(&cause)
}
