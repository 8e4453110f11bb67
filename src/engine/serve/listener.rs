//! Accepts connections, bounds them in number and time, and speaks TLS and HTTP/1.1 on them.

use super::failures::network;
use super::guard::Peer;
use super::stall::Patient;
use crate::config::ServeLimits;
use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::collections::HashMap;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tower_service::Service as _;

/// Bytes a request's header may have.
const HEADER_BYTES: usize = 16 << 10;
/// How long what a refused client still sends is read and dropped, so that it gets to read the answer.
const LINGER: Duration = Duration::from_secs(2);
/// Clients that are turned away at once, beside the connections.
const TURNED_AWAY: usize = 64;
/// A client whose machine is gone is noticed after about this long, in milliseconds.
#[cfg(target_os = "linux")]
const GONE_MS: u32 = 20_000;
/// The first byte of a TLS handshake.
const TLS_HANDSHAKE: u8 = 22;

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Not at all.
    No,
    /// No new work.
    Soon,
    /// Running answers are cut.
    Now,
}

/// What every connection shares.
struct Shared {
    tls: Option<TlsAcceptor>,
    router: Router,
    limits: ServeLimits,
    ending: watch::Receiver<Ending>,
    open: Arc<Open>,
}

/// Connections by client.
#[derive(Default)]
struct Open {
    by_client: Mutex<HashMap<IpAddr, u32>>,
}

/// One connection, counted while the value lives.
struct Counted {
    open: Arc<Open>,
    client: IpAddr,
}

impl Open {
    /// Counts a connection, unless there are too many. Programs of this machine are many clients behind
    /// one address, as are those at the end of a tunnel: they share the whole.
    fn take(self: &Arc<Self>, from: IpAddr, limits: &ServeLimits) -> Option<Counted> {
        let client = network(from);
        let mut all = self.by_client.lock().unwrap_or_else(PoisonError::into_inner);
        let total: u32 = all.values().sum();
        let own = all.get(&client).copied().unwrap_or(0);
        let is_local = from.to_canonical().is_loopback();
        if total >= limits.connections || (own >= limits.per_client && !is_local) {
            return None;
        }
        all.insert(client, own + 1);
        Some(Counted { open: Arc::clone(self), client })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut all = self.open.by_client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = all.get_mut(&self.client) {
            *own -= 1;
            if *own == 0 {
                all.remove(&self.client);
            }
        }
    }
}

/// Serves until told to end, then until the connections have ended or are cut.
pub(super) async fn run(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    limits: ServeLimits,
    ending: watch::Receiver<Ending>,
) {
    let open = Arc::new(Open::default());
    let shared = Arc::new(Shared { tls, router, limits, ending: ending.clone(), open });
    let (mut connections, mut turned_away) = (JoinSet::new(), JoinSet::new());
    let mut end = ending.clone();
    let over = async {
        // Those who come while it ends are told so.
        if end.wait_for(|ending| *ending != Ending::No).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::pin!(over);
    let mut is_over = false;
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => {
                    if let Some(counted) = shared.open.take(from.ip(), &limits) {
                        connections.spawn(Arc::clone(&shared).connection(stream, from, counted));
                    } else {
                        tracing::warn!(%from, "refused a connection: too many are open");
                        if shared.tls.is_none() && turned_away.len() < TURNED_AWAY {
                            turned_away.spawn(turn_away(stream));
                        }
                    }
                }
                Err(error) => {
                    // Out of descriptors, most likely: give others time to end.
                    tracing::warn!(%error, "accept failed");
                    sleep(Duration::from_millis(200)).await;
                }
            },
            Some(_) = connections.join_next() => {}
            Some(_) = turned_away.join_next() => {}
            () = &mut over, if !is_over => is_over = true,
            // The last connections may have ended before.
            () = std::future::ready(()), if is_over && connections.is_empty() => return,
        }
    }
}

/// Says that there is no room, without reading what was asked.
async fn turn_away(mut stream: TcpStream) {
    let answer =
        b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 2\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    if timeout(LINGER, stream.write_all(answer)).await.is_ok() {
        part(stream).await;
    }
}

/// Ends a connection so that the peer can read what was written to it: closing with bytes unread would
/// throw that away.
async fn part<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    let drain = async {
        stream.shutdown().await?;
        let mut buffer = vec![0; 16 << 10];
        while stream.read(&mut buffer).await? > 0 {}
        io::Result::Ok(())
    };
    let _ = timeout(LINGER, drain).await;
}

impl Shared {
    async fn connection(self: Arc<Self>, stream: TcpStream, from: SocketAddr, counted: Counted) {
        let _counted = counted;
        let Ok(to) = stream.local_addr() else { return };
        let peer = Peer { from: from.ip().to_canonical(), to: to.ip().to_canonical() };
        prepare(&stream);
        let seconds = |n: u32| Duration::from_secs(n.into());
        let Some(tls) = &self.tls else {
            return self.http(Patient::new(stream, seconds(self.limits.stall)), peer).await;
        };
        let handshake = async {
            let mut first = [0];
            if stream.peek(&mut first).await? == 1 && first != [TLS_HANDSHAKE] {
                let mut stream = stream;
                let answer = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 34\r\nconnection: close\r\n\r\nThis port speaks TLS. Use https://";
                stream.write_all(answer).await?;
                return Ok((None, Some(stream)));
            }
            let stream = Patient::new(stream, seconds(self.limits.stall));
            io::Result::Ok((Some(tls.accept(stream).await?), None))
        };
        match timeout(seconds(self.limits.handshake), handshake).await {
            Ok(Ok((Some(stream), _))) => self.http(stream, peer).await,
            Ok(Ok((None, plain))) => {
                tracing::warn!(from = %peer.from, "no TLS handshake: a client that speaks plain HTTP?");
                if let Some(plain) = plain {
                    part(plain).await;
                }
            }
            Ok(Err(error)) => tracing::info!(from = %peer.from, %error, "TLS handshake failed"),
            Err(_) => tracing::info!(from = %peer.from, "TLS handshake took too long"),
        }
    }

    async fn http<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(&self, stream: S, peer: Peer) {
        let router = self.router.clone();
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let (mut parts, body) = request.into_parts();
            parts.extensions.insert(peer);
            let mut router = router.clone();
            let answer = async move { router.call(Request::from_parts(parts, Body::new(body))).await };
            Box::pin(answer) as Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>
        });
        let mut ending = self.ending.clone();
        let is_ending = *ending.borrow() != Ending::No;
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(Duration::from_secs(self.limits.header.into()))
            .max_buf_size(HEADER_BYTES)
            .keep_alive(!is_ending)
            .serve_connection(TokioIo::new(stream), service);
        let told = async { drop(ending.wait_for(|ending| *ending != Ending::No).await) };
        let result = tokio::select! {
            result = poll_fn(|cx| connection.poll_without_shutdown(cx)) => result,
            () = told, if !is_ending => {
                Pin::new(&mut connection).graceful_shutdown();
                poll_fn(|cx| connection.poll_without_shutdown(cx)).await
            }
        };
        if let Err(error) = &result {
            tracing::debug!(from = %peer.from, %error, "connection");
            let reason = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
            if reason.contains("takes nothing") {
                tracing::warn!(from = %peer.from, "dropped a client that took nothing");
                return;
            }
        }
        part(connection.into_parts().io.into_inner()).await;
    }
}

/// Small packets at once; a peer that is gone is noticed. What the system refuses is no harm.
fn prepare(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let _ = rustix::net::sockopt::set_socket_keepalive(stream, true);
    #[cfg(target_os = "linux")]
    {
        use rustix::net::sockopt::{
            set_tcp_keepcnt, set_tcp_keepidle, set_tcp_keepintvl, set_tcp_user_timeout,
        };
        let _ = set_tcp_keepidle(stream, Duration::from_secs(10));
        let _ = set_tcp_keepintvl(stream, Duration::from_secs(5));
        let _ = set_tcp_keepcnt(stream, 2);
        let _ = set_tcp_user_timeout(stream, GONE_MS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_bounded_by_client_and_in_all() {
        let open = Arc::new(Open::default());
        let limits = ServeLimits { connections: 6, per_client: 2, ..ServeLimits::default() };
        let take = |address: &str| open.take(address.parse().unwrap(), &limits);
        let mut held = vec![take("10.0.0.1").unwrap(), take("::ffff:10.0.0.1").unwrap()];
        assert!(take("10.0.0.1").is_none(), "two of one client");
        held.push(take("2001:db8::1").unwrap());
        held.push(take("2001:db8::2").unwrap());
        assert!(take("2001:db8::3").is_none(), "an IPv6 network is one client");
        drop(held.remove(0));
        held.push(take("10.0.0.1").unwrap());
        // This machine's own programs share the whole.
        held.push(take("127.0.0.1").unwrap());
        held.push(take("127.0.0.1").unwrap());
        assert!(take("127.0.0.1").is_none() && take("10.0.0.9").is_none(), "six in all");
        held.clear();
        assert!(open.by_client.lock().unwrap().is_empty(), "nothing is left of those who went");
        assert!(take("10.0.0.9").is_some());
    }
}
