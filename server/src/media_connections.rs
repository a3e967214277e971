//! Connections of the public listener that carry media in place of HTTP (RFC 6544).

use std::io;

use media_core::MediaCore;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::first_bytes::STUN_HEAD;

/// Bytes of the length in front of a frame (RFC 4571 §2).
const PREFIX: usize = 2;

/// Reads the rest of the first frame, whose head is known for that of a binding request, and hands the connection over to the shards:
/// what comes after that frame is theirs. The caller bounds the time.
///
/// # Errors
/// The connection's.
pub(crate) async fn hand_over(core: &MediaCore, mut stream: TcpStream, head: [u8; STUN_HEAD]) -> io::Result<()> {
    let length = PREFIX + usize::from(u16::from_be_bytes([head[0], head[1]]));
    let mut first = head.to_vec();
    first.resize(length.max(STUN_HEAD), 0);
    stream.read_exact(&mut first[STUN_HEAD..]).await?;
    core.adopt_tcp(stream.into_std()?, first);
    Ok(())
}
