//! What the HTTP server listens on: TCP, or a Unix socket.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// A client that acknowledges nothing of an answer for this long, or reads nothing of it, is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Owner and group may connect.
const MODE: u32 = 0o660;

/// A socket that accepts connections.
#[derive(Debug)]
pub enum Socket {
    /// An address and a port.
    Tcp(TcpListener),
    /// A path.
    Unix(UnixSocket),
}

impl From<TcpListener> for Socket {
    fn from(listener: TcpListener) -> Socket {
        Socket::Tcp(listener)
    }
}

impl From<UnixSocket> for Socket {
    fn from(socket: UnixSocket) -> Socket {
        Socket::Unix(socket)
    }
}

/// Bytes of a client.
pub(crate) trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}

/// A connection that was accepted.
#[derive(Debug)]
pub(crate) enum Stream {
    /// Of an address and a port.
    Tcp(TcpStream),
    /// Of a path.
    Unix(UnixStream),
}

impl Socket {
    /// The next connection, and its address; all that come over a Unix socket are this machine's.
    pub(crate) async fn accept(&self) -> io::Result<(Stream, IpAddr)> {
        match self {
            Socket::Tcp(listener) => {
                let (stream, remote) = listener.accept().await?;
                set_options(&stream);
                Ok((Stream::Tcp(stream), remote.ip()))
            }
            Socket::Unix(socket) => {
                let (stream, _) = socket.listener.accept().await?;
                Ok((Stream::Unix(stream), IpAddr::V4(Ipv4Addr::LOCALHOST)))
            }
        }
    }
}

/// None of these decides anything: without them a connection is only slower, or its end is noticed later.
fn set_options(stream: &TcpStream) {
    // Small answers must not wait for the client's acknowledgement.
    let _ = stream.set_nodelay(true);
    let socket = SockRef::from(stream);
    let _ = socket.set_tcp_user_timeout(Some(WRITE_TIMEOUT));
    let _ = socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(WRITE_TIMEOUT));
}

/// A Unix socket with its file, which goes with it.
#[derive(Debug)]
pub struct UnixSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file: another server's that took its place stays.
    file: (u64, u64),
}

impl UnixSocket {
    /// Listens at a path. A socket there that nobody listens on, as a crash leaves it, is replaced.
    ///
    /// # Errors
    ///
    /// Whatever the system says; `AddrInUse` where somebody listens there, `AlreadyExists` where something else is there.
    pub fn bind(path: &Path) -> io::Result<UnixSocket> {
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(found) if !found.file_type().is_socket() => {
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket"));
            }
            Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) => return Err(error),
                Ok(_) => return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there")),
            },
        }
        // Beside it at first: there is no moment at which the path has no socket, or one with another mode.
        let mut beside = path.as_os_str().to_owned();
        beside.push(format!(".{}", std::process::id()));
        let beside = PathBuf::from(beside);
        let listener = UnixListener::bind(&beside)?;
        let placed = fs::set_permissions(&beside, fs::Permissions::from_mode(MODE))
            .and_then(|()| fs::symlink_metadata(&beside))
            .and_then(|file| fs::rename(&beside, path).map(|()| (file.dev(), file.ino())));
        match placed {
            Ok(file) => Ok(UnixSocket { listener, path: path.to_owned(), file }),
            Err(error) => {
                let _ = fs::remove_file(&beside);
                Err(error)
            }
        }
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        let is_ours = fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.file);
        if is_ours {
            // One that stays is replaced at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(name: &str) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("sluice-{}-{name}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        directory.join("admin.sock")
    }

    // M2
    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_used_one_or_another_file_is_not() {
        let path = place("unix");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let socket = UnixSocket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o660);
        assert_eq!(UnixSocket::bind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert!(std::os::unix::net::UnixStream::connect(&path).is_ok());
        drop(socket);
        assert!(!path.exists());
        fs::write(&path, "precious").unwrap();
        assert_eq!(UnixSocket::bind(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        let left: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }

    // M2
    #[tokio::test]
    async fn a_socket_of_another_server_is_not_taken_away_at_the_end() {
        let path = place("unix-other");
        let socket = UnixSocket::bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let other = UnixSocket::bind(&path).unwrap();
        drop(socket);
        assert!(path.exists());
        drop(other);
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }
}
