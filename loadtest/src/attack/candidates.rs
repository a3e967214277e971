//! Offers whose candidates are somebody else's addresses: whom does the server send to, and how much, before anybody there
//! has said a word? What is received there counts against the bytes of the offers.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use media_core::internals::ice::random_credentials;

use super::peer::{Role, offer};
use super::requests::{Clients, Requests};
use super::target::{attackers, socket};
use super::{AttackError, Target};

/// Addresses in one offer.
const CANDIDATES: usize = 10;
/// Checks of the server are waited for so long.
const LATE: Duration = Duration::from_secs(1);
/// A few offers are enough to see it.
const MOST: u32 = 20;

pub(super) fn start(target: &Target) -> Result<Requests, AttackError> {
    let (_, server) = target.http()?;
    let media = target.media.first().copied().unwrap_or(server);
    let from = attackers(media.ip());
    let bystanders: Vec<UdpSocket> =
        (0..CANDIDATES).map(|index| socket(from[index % from.len()])).collect::<Result<_, _>>()?;
    let addresses = bystanders.iter().map(UdpSocket::local_addr).collect::<std::io::Result<Vec<_>>>()?;
    let (mut clients, identity, token) = (Clients::new(server.ip())?, target.identity.clone(), target.token.clone());
    let url = target.watched()?;
    Requests::start("candidates", target.requests.min(MOST), move |mut turns, tally| async move {
        let (mut returned, mut returned_bytes) = (0, 0);
        let mut read = || {
            let mut buffer = [0; 2048];
            for socket in &bystanders {
                while let Ok(length) = socket.recv(&mut buffer) {
                    returned += 1;
                    returned_bytes += length as u64;
                }
            }
        };
        while let Some(due) = turns.next().await {
            read();
            for _ in 0..due {
                let Ok((sdp, _)) = offer(&identity, &random_credentials(), Role::Viewer) else { continue };
                let sdp = with_candidates(&sdp, &addresses);
                let length = sdp.len();
                let mut request = clients.next().post(&url).header("content-type", "application/sdp").body(sdp);
                if let Some(token) = &token {
                    request = request.bearer_auth(token);
                }
                clients.spawn(&tally, request, length);
            }
        }
        tokio::time::sleep(LATE).await;
        read();
        let mut counts = tally.counts();
        let sent = counts.request_bytes;
        counts.note_unproven(sent, returned, returned_bytes);
    })
}

/// The offer with these addresses as its candidates, in its first section.
fn with_candidates(sdp: &str, addresses: &[SocketAddr]) -> String {
    let lines: String = addresses
        .iter()
        .enumerate()
        .map(|(index, to)| {
            let priority = 2_130_706_431 - index;
            format!("a=candidate:{index} 1 udp {priority} {} {} typ host\r\n", to.ip(), to.port())
        })
        .collect();
    sdp.replacen("a=mid:0\r\n", &format!("a=mid:0\r\n{lines}"), 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_part_of_the_first_section() {
        let sdp = with_candidates("m=audio\r\na=mid:0\r\nm=video\r\na=mid:1\r\n", &["192.0.2.1:9".parse().unwrap()]);
        assert!(
            sdp.starts_with("m=audio\r\na=mid:0\r\na=candidate:0 1 udp 2130706431 192.0.2.1 9 typ host\r\nm=video")
        );
    }
}
