//! The private Unix socket: accepts this user's clients only, and knows how many are connected.

use rustix::process::getuid;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixListener;
use tokio::sync::watch;

/// Connections that may be open at once.
const CONNECTIONS: usize = 64;

/// Which file a socket is, so that one put in its place by another engine is told apart.
#[derive(Clone, Debug)]
pub struct Place {
    path: PathBuf,
    file: (u64, u64),
}

impl Place {
    /// Whether clients still find this socket.
    #[must_use]
    pub fn is_there(&self) -> bool {
        std::fs::symlink_metadata(&self.path).is_ok_and(|meta| (meta.dev(), meta.ino()) == self.file)
    }

    /// Removes the socket, unless another one is in its place.
    pub fn clear(&self) {
        if self.is_there() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A listener for axum that counts its connections.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    count: Arc<watch::Sender<usize>>,
    place: Place,
}

/// One client's connection; counted until dropped.
///
/// Linux tells who watches a Unix socket for room to write each time the other side has read. With a stream of tokens
/// that would be a second wake-up for each of them, so the room is watched only while there is none.
#[derive(Debug)]
pub struct Connection {
    stream: AsyncFd<UnixStream>,
    /// The same socket, while its other side has left no room.
    full: Option<AsyncFd<OwnedFd>>,
    count: Arc<watch::Sender<usize>>,
}

impl Connection {
    fn new(stream: UnixStream, count: Arc<watch::Sender<usize>>) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let stream = watched(stream, Interest::READABLE)?;
        count.send_modify(|n| *n += 1);
        Ok(Self { stream, full: None, count })
    }

    /// Writes with `write`, when there is room.
    fn poll_room(
        &mut self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(&UnixStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            if let Some(full) = &self.full {
                let _ = ready!(full.poll_write_ready(cx))?;
                self.full = None;
            }
            match write(self.stream.get_ref()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let same = rustix::io::dup(self.stream.get_ref())?;
                    self.full = Some(watched(same, Interest::WRITABLE)?);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return Poll::Ready(done),
            }
        }
    }
}

/// Has the runtime watch a socket.
#[expect(unsafe_code, reason = "tokio has no safe way to watch for one thing only")]
fn watched<T: AsRawFd + Into<OwnedFd>>(socket: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    // SAFETY: what can become an `OwnedFd` owns its descriptor; it moves into the result, which gives it out by shared
    // reference only, so that it stays open and the same as long as it is watched.
    unsafe { AsyncFd::register_with_interest(socket, interest) }.map_err(io::Error::from)
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.count.send_modify(|n| *n = n.saturating_sub(1));
    }
}

impl Socket {
    /// Binds the socket with mode 0600. The folder is private already.
    ///
    /// # Errors
    /// What the system says.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        let meta = std::fs::symlink_metadata(path)?;
        let place = Place { path: path.to_path_buf(), file: (meta.dev(), meta.ino()) };
        Ok(Self { listener, count: Arc::new(watch::Sender::new(0)), place })
    }

    /// Where it is.
    #[must_use]
    pub fn place(&self) -> Place {
        self.place.clone()
    }

    /// Tells how many clients are connected.
    #[must_use]
    pub fn connections(&self) -> watch::Receiver<usize> {
        self.count.subscribe()
    }
}

impl axum::serve::Listener for Socket {
    type Io = Connection;
    type Addr = ();

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let is_ours = stream.peer_cred().is_ok_and(|peer| peer.uid() == getuid().as_raw());
                    if !is_ours {
                        tracing::warn!("refused a connection of another user");
                        continue;
                    }
                    if *self.count.borrow() >= CONNECTIONS {
                        tracing::warn!("refused a connection: {CONNECTIONS} are open");
                        continue;
                    }
                    let connection =
                        stream.into_std().and_then(|stream| Connection::new(stream, Arc::clone(&self.count)));
                    match connection {
                        Ok(connection) => return (connection, ()),
                        Err(error) => tracing::warn!(%error, "a connection can't be used"),
                    }
                }
                Err(error) => {
                    // Out of descriptors, most likely: give others time to end.
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(())
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.stream.poll_read_ready(cx))?;
            let room = buf.initialize_unfilled();
            match guard.try_io(|stream| stream.get_ref().read(room)) {
                Ok(Ok(read)) => {
                    buf.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                // It was not ready after all.
                Err(_) => {}
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_room(cx, |mut stream| stream.write(buf))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.stream.get_ref().shutdown(Shutdown::Write))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_room(cx, |mut stream| stream.write_vectored(bufs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn pair() -> (Connection, UnixStream, watch::Receiver<usize>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let count = Arc::new(watch::Sender::new(0));
        let counted = count.subscribe();
        (Connection::new(ours, count).unwrap(), theirs, counted)
    }

    #[tokio::test]
    async fn what_does_not_fit_waits_for_room_and_arrives_whole() {
        let (mut ours, mut theirs, _) = pair();
        // Several times what the system keeps for a socket.
        let sent: Vec<u8> = (0..4_000_000_u32).map(|i| (i % 251) as u8).collect();
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            theirs.read_to_end(&mut all).unwrap();
            all
        });
        ours.write_all(&sent).await.unwrap();
        ours.shutdown().await.unwrap();
        assert!(reader.join().unwrap() == sent);
        assert!(ours.full.is_none(), "nobody watches for room any more");
    }

    #[tokio::test]
    async fn a_writer_waits_while_nobody_reads() {
        let (mut ours, theirs, _) = pair();
        let sent = vec![7; 4_000_000];
        let written = as_much_as_fits(&mut ours, &sent).await;
        assert!(written < sent.len(), "{written} bytes fit");
        assert!(ours.full.is_some(), "room is waited for");
        drop(theirs);
        let error = ours.write(&sent).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    async fn as_much_as_fits(to: &mut Connection, bytes: &[u8]) -> usize {
        let mut written = 0;
        std::future::poll_fn(|cx| {
            while let Poll::Ready(wrote) = Pin::new(&mut *to).poll_write(cx, &bytes[written..]) {
                written += wrote.unwrap();
            }
            Poll::Ready(())
        })
        .await;
        written
    }

    #[tokio::test]
    async fn reads_what_comes_and_its_end_and_is_counted() {
        let (mut ours, mut theirs, counted) = pair();
        assert_eq!(*counted.borrow(), 1);
        let writer = std::thread::spawn(move || {
            for piece in [&b"GET "[..], b"/health"] {
                theirs.write_all(piece).unwrap();
            }
        });
        let mut all = String::new();
        ours.read_to_string(&mut all).await.unwrap();
        writer.join().unwrap();
        assert_eq!(all, "GET /health");
        drop(ours);
        assert_eq!(*counted.borrow(), 0);
    }
}
