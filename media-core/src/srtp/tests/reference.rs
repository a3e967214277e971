//! Both halves against another SRTP, which takes any index: rollover, what comes late, and the ends of the indices.

use super::*;
use crate::nonce_oracle::{NonceOracle, Seen};
use crate::srtp_reference::SrtpReference;

const ROLES: [DtlsRole; 2] = [DtlsRole::Client, DtlsRole::Server];

/// What the other end seals with, and the end that receives it.
fn inbound(profile: SrtpProfile, role: DtlsRole) -> (SrtpReference, SrtpReceiver) {
    let (receiver, _) = keying(profile).contexts(role).unwrap();
    (SrtpReference::of_exported(&exported(profile), role == DtlsRole::Client), receiver)
}

/// A packet with two contributing sources and an extension of two words.
fn rich_rtp(sequence: u16, ssrc: u32, payload: &[u8]) -> Vec<u8> {
    let mut packet = rtp(sequence, ssrc, &[]);
    packet[0] |= 0x12;
    packet.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 2, 0xbe, 0xde, 0, 2, 0x10, 7, 0x20, 8, 0x30, 9, 0, 0]);
    packet.extend_from_slice(payload);
    packet
}

// SRTP-01, SRTP-03, SRTP-11
#[test]
fn another_implementation_understands_and_is_understood_in_every_profile_and_role() {
    for profile in SrtpProfile::ALL {
        for role in ROLES {
            let (mut receiver, mut sender) = keying(profile).contexts(role).unwrap();
            let keys = exported(profile);
            let [ours, theirs] =
                [DtlsRole::Server, DtlsRole::Client].map(|sender| SrtpReference::of_exported(&keys, role == sender));
            for n in 0..200u32 {
                // From before a rollover to after it.
                let number = 65_436 + n;
                let plain = if n % 2 == 0 {
                    rtp(number as u16, 9, &vec![n as u8; n as usize * 5])
                } else {
                    rich_rtp(number as u16, 9, b"x")
                };
                let sent = protect_rtp(&mut sender, &plain);
                assert_eq!(sent.len(), plain.len() + profile.tag_len(), "{profile}");
                assert_eq!(ours.open_rtp(&sent, number.into()).as_ref(), Some(&plain), "{profile} {role:?} {n}");
                assert_eq!(ours.open_rtp(&sent, u64::from(number) ^ 1 << 16), None, "{profile}: another rollover");
                assert_eq!(unprotect_rtp(&mut receiver, &theirs.seal_rtp(&plain, number.into())), Ok(plain));
                let sent = protect_rtcp(&mut sender, &rtcp(9));
                assert_eq!(sent.len(), rtcp(9).len() + profile.tag_len() + 4, "{profile}");
                assert_eq!(ours.open_rtcp(&sent), Some((n + 1, rtcp(9))), "{profile} {role:?} {n}");
                assert_eq!(unprotect_rtcp(&mut receiver, &theirs.seal_rtcp(&rtcp(9), n)), Ok(rtcp(9)));
            }
        }
    }
}

// SRTP-06, SRTP-08, SRTP-09
#[test]
fn numbers_roll_over_again_and_again_under_the_eyes_of_the_oracle() {
    for (profile, packets) in SrtpProfile::ALL.into_iter().zip([200_000, 70_000, 70_000]) {
        let (_, mut sender) = keying(profile).contexts_with(DtlsRole::Server, false).unwrap();
        let mut oracle = NonceOracle::of_exported(&exported(profile), true);
        for n in 0..packets {
            let sent = protect_rtp(&mut sender, &rtp((30_000 + n) as u16, 5, &u32::to_be_bytes(n)));
            assert_eq!(oracle.see(&sent), Ok(Seen::New), "{profile} packet {n}");
            if n % 1_000 == 0 {
                assert_eq!(oracle.see(&protect_rtcp(&mut sender, &rtcp(5))), Ok(Seen::Rtcp), "{profile} packet {n}");
            }
        }
    }
}

// SRTP-05, SRTP-06
#[test]
fn packets_from_before_a_rollover_may_come_after_it() {
    for profile in SrtpProfile::ALL {
        for rollover in [1, 2, 7] {
            let (theirs, mut receiver) = inbound(profile, DtlsRole::Server);
            let wrap = rollover * 0x1_0000;
            let packet = |index: u64| rtp(index as u16, 3, &index.to_be_bytes());
            let mut receive = |index: u64| unprotect_rtp(&mut receiver, &theirs.seal_rtp(&packet(index), index));
            // Every half circle at most a packet, so that the count goes along.
            for index in (0..wrap - 40).step_by(20_000).chain([wrap - 40]) {
                assert_eq!(receive(index), Ok(packet(index)), "{profile} {index}");
            }
            for index in (wrap - 30..wrap + 30).rev() {
                assert_eq!(receive(index), Ok(packet(index)), "{profile} {index}");
            }
            for index in wrap - 30..wrap + 30 {
                assert_eq!(receive(index), Err(SrtpError::Replay), "{profile} {index}");
            }
            let ahead = wrap + 1_000;
            assert_eq!(receive(ahead), Ok(packet(ahead)));
            assert_eq!(receive(wrap - 31), Err(SrtpError::Replay), "{profile}: older than the window");
            assert_eq!(receive(wrap + 31), Ok(packet(wrap + 31)), "{profile}: late, and inside the window");
            assert_eq!(receive(ahead + 0x1_0001), Err(SrtpError::Authentication), "{profile}: a circle ahead");
        }
    }
}

// SRTP-10
#[test]
fn late_rtcp_counts_once_within_a_window_of_128() {
    for profile in SrtpProfile::ALL {
        for role in ROLES {
            let (theirs, mut receiver) = inbound(profile, role);
            let mut receive = |index: u32| unprotect_rtcp(&mut receiver, &theirs.seal_rtcp(&rtcp(3), index)).map(drop);
            // Whoever joins late begins anywhere.
            assert_eq!(receive(5_000), Ok(()), "{profile}");
            for index in (4_873..5_000).rev() {
                assert_eq!(receive(index), Ok(()), "{profile} {index}");
                assert_eq!(receive(index), Err(SrtpError::Replay), "{profile} {index} again");
            }
            assert_eq!(receive(4_872), Err(SrtpError::Replay), "{profile}: older than the window");
            assert_eq!(receive(5_100), Ok(()), "{profile}: a hundred were lost");
            assert_eq!(receive(5_001), Ok(()), "{profile}: one of them comes late");
            assert_eq!(receive(5_000), Err(SrtpError::Replay), "{profile}");
        }
    }
}

// SRTP-10, SRTP-12: 2^31 packets are all that a key may protect (RFC 3711 §9.2).
#[test]
fn the_index_of_rtcp_ends_at_its_31_bits_and_does_not_begin_anew() {
    const LAST: u32 = 0x7fff_ffff;
    for profile in SrtpProfile::ALL {
        let (theirs, mut receiver) = inbound(profile, DtlsRole::Server);
        let mut receive = |index: u32| unprotect_rtcp(&mut receiver, &theirs.seal_rtcp(&rtcp(3), index)).map(drop);
        for index in [LAST - 1, LAST, LAST - 100] {
            assert_eq!(receive(index), Ok(()), "{profile} {index:x}");
        }
        for index in [0, 1, 2, 1_000, LAST] {
            assert_eq!(receive(index), Err(SrtpError::Replay), "{profile} {index:x}");
        }
    }
}

// SRTP-10
#[test]
fn rtcp_has_indices_of_its_own_whatever_rtp_does() {
    for profile in SrtpProfile::ALL {
        let (mut receiver, mut sender) = keying(profile).contexts(DtlsRole::Client).unwrap();
        let keys = exported(profile);
        let (ours, theirs) = (SrtpReference::of_exported(&keys, false), SrtpReference::of_exported(&keys, true));
        for n in 0..50u32 {
            for source in [1, 2] {
                let number = n * 3_000 + source;
                let sent = protect_rtp(&mut sender, &rtp(number as u16, source, b"x"));
                assert!(ours.open_rtp(&sent, number.into()).is_some(), "{profile} {source} {n}");
                let sent = protect_rtcp(&mut sender, &rtcp(source));
                assert_eq!(ours.open_rtcp(&sent).map(|(index, _)| index), Some(n + 1), "{profile} {source}");
                let packet = theirs.seal_rtp(&rtp(number as u16, source, b"y"), number.into());
                assert!(unprotect_rtp(&mut receiver, &packet).is_ok(), "{profile} {source} {n}");
                let packet = theirs.seal_rtcp(&rtcp(source), 7 * n);
                assert!(unprotect_rtcp(&mut receiver, &packet).is_ok(), "{profile} {source} {n}");
            }
        }
    }
}
