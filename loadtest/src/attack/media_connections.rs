//! TCP connections to the media ports (RFC 6544): silent ones, half frames by the byte, frames longer than any packet, garbage, and
//! checks that nobody can have written.

use std::time::Duration;

use media_core::internals::net::framing::{MAX_FRAME, prefix};
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};

use super::connections::{Script, held};
use super::requests::Requests;
use super::{AttackError, Target};
use crate::client::binding_request;

/// From one piece to the next.
const SLOW: Duration = Duration::from_millis(500);
const FAST: Duration = Duration::from_millis(5);

pub(super) fn start(target: &Target) -> Result<Requests, AttackError> {
    let to = target.media.first().copied().ok_or(AttackError::Needs("a candidate in the answers"))?;
    let username = target.victims().first().map(|victim| format!("{}:{}", victim.remote.ufrag, victim.local.ufrag));
    // Wrong, as nobody but the two ends knows the password.
    let check = binding_request(username.as_deref().unwrap_or("a:b"), "guessed password", &[(0x25, &[])], [7; 12])?;
    held(target, "media-connections", to, scripts(&check))
}

fn scripts(check: &[u8]) -> Vec<Script> {
    let mut garbage = vec![0; MAX_FRAME];
    SmallRng::seed_from_u64(0x7463_7021).fill_bytes(&mut garbage);
    let (first, every) = (Vec::new(), SLOW);
    vec![
        Script { first: first.clone(), then: Vec::new(), every },
        // A frame that ends in some minutes.
        Script { first: framed(check)[..20].to_vec(), then: vec![0], every },
        Script { first: [0xff, 0xff].repeat(8_000), then: garbage.clone(), every: FAST },
        Script { first: framed(&garbage), then: framed(&garbage), every: FAST },
        Script { first: first.clone(), then: framed(check), every: FAST },
        // Handshakes and media before any check.
        Script {
            first: framed(&[&[22, 254, 253][..], &garbage[..200]].concat()),
            then: framed(&[128; 100]),
            every: FAST,
        },
        // Empty frames.
        Script { first, then: vec![0; 4_096], every: FAST },
    ]
}

fn framed(packet: &[u8]) -> Vec<u8> {
    // None of them is empty or longer than a frame.
    [&prefix(packet).unwrap_or_default()[..], packet].concat()
}

#[cfg(test)]
mod tests {
    use media_core::internals::net::framing::Deframer;

    use super::*;

    #[test]
    fn some_scripts_are_frames_and_some_end_in_the_middle_or_are_too_long() {
        let check = binding_request("a:b", "guessed", &[], [0; 12]).unwrap();
        let mut packet = [0; MAX_FRAME];
        let ends: Vec<_> = scripts(&check)
            .iter()
            .map(|script| {
                let bytes = [&script.first[..], &script.then].concat();
                let (mut deframer, mut input, mut packets) = (Deframer::default(), &bytes[..], 0);
                loop {
                    match deframer.next(&mut input, &mut packet) {
                        Ok(Some(_)) => packets += 1,
                        Ok(None) => return (packets, deframer.is_in_frame()),
                        Err(_) => return (packets, true),
                    }
                }
            })
            .collect();
        assert_eq!(ends, [(0, false), (0, true), (0, true), (2, false), (1, false), (2, false), (0, false)]);
    }
}
