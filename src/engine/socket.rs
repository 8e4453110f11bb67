//! The private Unix socket: accepts this user's clients only, and knows how many are connected.

use rustix::process::getuid;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
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
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    count: Arc<watch::Sender<usize>>,
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
                    self.count.send_modify(|n| *n += 1);
                    return (Connection { stream, count: Arc::clone(&self.count) }, ());
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
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }
}
