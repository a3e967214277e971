//! What a client of the public listener speaks, by the first bytes that it sends: one port serves TLS, HTTP and ICE over TCP.
//!
//! TLS begins with a handshake record (RFC 8446 §5.1), a request of HTTP with a letter. ICE over TCP begins with a binding
//! request (RFC 6544 §7.1) in a frame of RFC 4571 §2, whose length is too short for its first byte to be that of a TLS record.

use std::io;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// Content type of a TLS record with a handshake message (RFC 8446 §5.1).
const TLS_HANDSHAKE: u8 = 22;

/// A frame's length (RFC 4571 §2), and of the STUN message its type, its length and the magic cookie (RFC 8489 §5).
pub(crate) const STUN_HEAD: usize = 10;

/// Bytes of a STUN message's header (RFC 8489 §5).
const STUN_HEADER: u16 = 20;

/// Type of a binding request (RFC 8489 §5).
const BINDING_REQUEST: [u8; 2] = [0, 1];

/// RFC 8489 §5.
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xA4, 0x42];

/// Bytes of the longest first frame: a connectivity check has some 120.
const LONGEST_FRAME: u16 = 1500;

/// A connection whose client has said what it speaks.
#[derive(Debug)]
pub(crate) enum First {
    /// A TLS record.
    Tls(TcpStream),
    /// Anything that is neither of the others: the HTTP server judges it.
    Http(TcpStream),
    /// The head of a binding request in a frame of RFC 4571, which was read, and what follows it.
    Stun(TcpStream, [u8; STUN_HEAD]),
}

/// Waits for the first bytes. They stay in the stream unless they are those of a frame. The caller bounds the time.
///
/// # Errors
/// The connection's; `UnexpectedEof` if it ends before it is known what it speaks, and `InvalidData` for what begins like a
/// frame and has no binding request.
pub(crate) async fn look(mut stream: TcpStream) -> io::Result<First> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    match first[0] {
        TLS_HANDSHAKE => Ok(First::Tls(stream)),
        byte if byte <= LONGEST_FRAME.to_be_bytes()[0] => {
            let mut head = [0; STUN_HEAD];
            stream.read_exact(&mut head).await?;
            match is_binding_request(&head) {
                true => Ok(First::Stun(stream, head)),
                false => Err(io::Error::new(io::ErrorKind::InvalidData, "a frame without a binding request")),
            }
        }
        _ => Ok(First::Http(stream)),
    }
}

/// Whether a frame that begins so holds a binding request.
fn is_binding_request(head: &[u8; STUN_HEAD]) -> bool {
    let [frame0, frame1, type0, type1, message0, message1, cookie @ ..] = *head;
    let (frame, message) = (u16::from_be_bytes([frame0, frame1]), u16::from_be_bytes([message0, message1]));
    [type0, type1] == BINDING_REQUEST
        && cookie == MAGIC_COOKIE
        && (STUN_HEADER..=LONGEST_FRAME).contains(&frame)
        && message == frame - STUN_HEADER
        && message % 4 == 0
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    const CHECK: [u8; 10] = [0, 20, 0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42];

    async fn first(bytes: &[u8]) -> io::Result<First> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        // By the byte: what a client speaks does not depend on how its bytes are cut.
        let looking = tokio::spawn(look(stream));
        client.set_nodelay(true).unwrap();
        for byte in bytes {
            client.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        client.shutdown().await.unwrap();
        looking.await.unwrap()
    }

    #[tokio::test]
    async fn the_first_bytes_tell_tls_from_http_and_from_a_framed_check() {
        let Ok(First::Tls(mut stream)) = first(&[22, 3, 1, 2, 0, 1]).await else { panic!("no TLS") };
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, [22, 3, 1, 2, 0, 1], "TLS has all of its bytes");
        let Ok(First::Http(mut stream)) = first(b"GET / HTTP/1.1\r\n").await else { panic!("no HTTP") };
        all.clear();
        stream.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"GET / HTTP/1.1\r\n", "HTTP has all of its bytes");
        let Ok(First::Stun(mut stream, head)) = first(&[&CHECK[..], b"transaction1"].concat()).await else {
            panic!("no check")
        };
        all.clear();
        stream.read_to_end(&mut all).await.unwrap();
        assert_eq!((head, &all[..]), (CHECK, &b"transaction1"[..]), "the head was read, and the rest was not");
    }

    #[tokio::test]
    async fn a_frame_of_anything_but_a_binding_request_is_an_error_and_so_is_an_early_end() {
        for (index, byte) in [(0, 5), (1, 19), (1, 24), (2, 1), (3, 0), (3, 3), (5, 4), (6, 0x20), (9, 0)] {
            let mut bytes = CHECK;
            bytes[index] = byte;
            assert_eq!(first(&bytes).await.unwrap_err().kind(), io::ErrorKind::InvalidData, "{bytes:?}");
        }
        for bytes in [&[][..], &CHECK[..1], &CHECK[..9]] {
            assert_eq!(first(bytes).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof, "{bytes:?}");
        }
    }
}
