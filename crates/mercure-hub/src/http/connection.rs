use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// A bound listener.
#[derive(Debug)]
pub(crate) enum Bound {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// The file of a Unix socket; it is removed with the listener.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Device and inode: the path may be somebody else's by now.
    identity: (u64, u64),
    /// Whether it goes when this does.
    is_ours: bool,
}

impl SocketFile {
    fn new(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), identity: identity(path)?, is_ours: true })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether clients still find this listener at its path.
    pub(crate) fn is_in_place(&self) -> bool {
        identity(&self.path).is_ok_and(|found| found == self.identity)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.is_ours && self.is_in_place() {
            // Somebody else may have cleaned up in this moment.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = std::fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

/// An accepted connection.
#[derive(Debug)]
pub(crate) enum Connection {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Bound {
    /// Binds a Unix socket that only this user can connect to, in place of a stale one.
    pub(crate) fn unix(path: &Path, mode: u32) -> io::Result<Self> {
        // Only a socket that nobody listens on any more is in the way, and only a socket is removed.
        if let Ok(found) = std::fs::symlink_metadata(path) {
            if !found.file_type().is_socket() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            match std::os::unix::net::UnixStream::connect(path) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path)?;
                }
                _ => return Err(io::ErrorKind::AddrInUse.into()),
            }
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
        Ok(Self::Unix(listener, SocketFile::new(path)?))
    }

    /// Listens on a socket that the service manager has bound.
    pub(crate) fn passed_tcp(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener).map(Self::Tcp)
    }

    /// Listens on a Unix socket that the service manager has bound; its file stays.
    pub(crate) fn passed_unix(listener: std::os::unix::net::UnixListener) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let path = address.as_pathname().ok_or(io::ErrorKind::InvalidInput)?;
        Self::inherited(listener.into(), path)
    }

    /// Its address as a client would write it; of a Unix socket, its path.
    pub(crate) fn address(&self) -> String {
        match self {
            Self::Tcp(listener) => {
                listener.local_addr().map_or_else(|_| "?".to_owned(), |address| address.to_string())
            }
            Self::Unix(_, file) => format!("unix:{}", file.path().display()),
        }
    }

    pub(crate) fn is_tcp(&self) -> bool {
        matches!(self, Self::Tcp(_))
    }

    /// Whether it is a Unix socket whose file has this name.
    pub(crate) fn is_at(&self, name: &str) -> bool {
        matches!(self, Self::Unix(_, file) if file.path().ends_with(name))
    }

    /// Says whether the file of a Unix socket goes with it, or is another process's.
    pub(crate) fn own(&mut self, is_ours: bool) {
        if let Self::Unix(_, file) = self {
            file.is_ours = is_ours;
        }
    }

    /// Listens on a Unix socket that another process has bound at a path. Its file stays that
    /// process's until it is owned.
    pub(crate) fn inherited(listener: OwnedFd, path: &Path) -> io::Result<Self> {
        let listener = std::os::unix::net::UnixListener::from(listener);
        listener.set_nonblocking(true)?;
        let mut file = SocketFile::new(path)?;
        file.is_ours = false;
        Ok(Self::Unix(UnixListener::from_std(listener)?, file))
    }

    /// Listens on a socket that another process has bound; on a Unix socket, at a path.
    pub(crate) fn taken(listener: OwnedFd, path: Option<&Path>) -> io::Result<Self> {
        match path {
            Some(path) => Self::inherited(listener, path),
            None => Self::passed_tcp(listener.into()),
        }
    }

    /// Where the file of a Unix socket is, and whether it goes with it.
    pub(crate) fn file(&self) -> Option<(&Path, bool)> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix(_, file) => Some((file.path(), file.is_ours)),
        }
    }

    /// Whether clients still find it where it was bound.
    pub(crate) fn is_in_place(&self) -> bool {
        match self {
            Self::Tcp(_) => true,
            Self::Unix(_, file) => file.is_in_place(),
        }
    }

    /// Waits for the next connection.
    pub(crate) async fn accept(&self) -> io::Result<Connection> {
        match self {
            Self::Tcp(listener) => {
                let (socket, _) = listener.accept().await?;
                Ok(Connection::Tcp(socket))
            }
            Self::Unix(listener, _) => {
                let (socket, _) = listener.accept().await?;
                Ok(Connection::Unix(socket))
            }
        }
    }
}

/// Who is at the other end, as routes see it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) Option<IpAddr>);

impl Connection {
    /// The address at its other end; `None` on a Unix socket.
    pub(crate) fn peer(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(socket) => socket.peer_addr().ok().map(|address| address.ip()),
            Self::Unix(_) => None,
        }
    }

    /// Says that there is no room, and closes, without waiting for anything.
    pub(super) fn turn_away(&self) {
        let after = fastrand::u32(1..=5);
        let full = format!(
            "HTTP/1.1 429 Too Many Requests\r\nRetry-After: {after}\r\nContent-Length: 0\r\n\
             Connection: close\r\n\r\n"
        );
        if let Self::Tcp(socket) = self {
            // Nobody may be there to hear it.
            let _ = socket.try_write(full.as_bytes());
        }
    }

    pub(super) fn prepare(&self, write_timeout: Duration) {
        if let Self::Tcp(socket) = self {
            prepare_tcp(&socket2::SockRef::from(socket), write_timeout);
        }
    }
}

/// Options of a TCP connection that will carry events: send at once, notice a vanished peer.
pub(crate) fn prepare_tcp(socket: &socket2::SockRef<'_>, write_timeout: Duration) {
    let result = socket.set_tcp_nodelay(true);
    #[cfg(target_os = "linux")]
    let result = result.and_then(|()| socket.set_tcp_user_timeout(Some(write_timeout)));
    if let Err(error) = result {
        tracing::debug!(%error, "a socket option could not be set");
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Unix(socket) => socket.as_fd(),
        }
    }
}

impl AsFd for Bound {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener, _) => listener.as_fd(),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Unix(socket) => Pin::new(socket).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_write(cx, buf),
            Self::Unix(socket) => Pin::new(socket).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_flush(cx),
            Self::Unix(socket) => Pin::new(socket).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Unix(socket) => Pin::new(socket).poll_shutdown(cx),
        }
    }
}
