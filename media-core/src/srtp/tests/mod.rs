//! Both halves against each other, and hostile packets.

mod ciphers;
mod reference;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::spec::DtlsRole;

fn keying(profile: SrtpProfile) -> KeyingMaterial {
    KeyingMaterial::new(profile, &exported(profile)).unwrap()
}

/// What the TLS exporter gave.
fn exported(profile: SrtpProfile) -> Vec<u8> {
    (0..profile.export_len()).map(|i| (i * 7 + 3) as u8).collect()
}

/// What the DTLS client sends with, and what the server receives it with.
fn pair(profile: SrtpProfile) -> (SrtpSender, SrtpReceiver) {
    let keying = keying(profile);
    let (_, sender) = keying.contexts(DtlsRole::Client).unwrap();
    let (receiver, _) = keying.contexts(DtlsRole::Server).unwrap();
    (sender, receiver)
}

fn rtp(sequence: u16, ssrc: u32, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x80, 96];
    packet.extend_from_slice(&sequence.to_be_bytes());
    packet.extend_from_slice(&1000u32.to_be_bytes());
    packet.extend_from_slice(&ssrc.to_be_bytes());
    packet.extend_from_slice(payload);
    packet
}

/// A receiver report without blocks, then a picture loss indication.
fn rtcp(ssrc: u32) -> Vec<u8> {
    let mut packet = vec![0x80, 201, 0, 1];
    packet.extend_from_slice(&ssrc.to_be_bytes());
    packet.extend_from_slice(&[0x81, 206, 0, 2]);
    packet.extend_from_slice(&ssrc.to_be_bytes());
    packet.extend_from_slice(&77u32.to_be_bytes());
    packet
}

fn protect_rtp(sender: &mut SrtpSender, plain: &[u8]) -> Vec<u8> {
    let mut buf = plain.to_vec();
    buf.resize(plain.len() + MAX_TRAILER, 0);
    let len = sender.protect_rtp(&mut buf, plain.len()).unwrap();
    buf.truncate(len);
    buf
}

fn protect_rtcp(sender: &mut SrtpSender, plain: &[u8]) -> Vec<u8> {
    let mut buf = plain.to_vec();
    buf.resize(plain.len() + MAX_TRAILER, 0);
    let len = sender.protect_rtcp(&mut buf, plain.len()).unwrap();
    buf.truncate(len);
    buf
}

fn unprotect_rtp(receiver: &mut SrtpReceiver, packet: &[u8]) -> Result<Vec<u8>, SrtpError> {
    let mut buf = packet.to_vec();
    let len = receiver.unprotect_rtp(&mut buf, packet.len())?;
    buf.truncate(len);
    Ok(buf)
}

fn unprotect_rtcp(receiver: &mut SrtpReceiver, packet: &[u8]) -> Result<Vec<u8>, SrtpError> {
    let mut buf = packet.to_vec();
    let len = receiver.unprotect_rtcp(&mut buf, packet.len())?;
    buf.truncate(len);
    Ok(buf)
}

#[test]
fn sizes_are_those_of_the_registry() {
    // Section 11 of the checklist; RFC 5764 §4.1.2, RFC 7714 §12.
    let sizes = SrtpProfile::ALL.map(|p| (p.dtls_id(), p.key_len(), p.salt_len(), p.export_len(), p.tag_len()));
    assert_eq!(sizes, [(7, 16, 12, 56, 16), (8, 32, 12, 88, 16), (1, 16, 14, 60, 10)]);
    for profile in SrtpProfile::ALL {
        assert_eq!(SrtpProfile::from_dtls_id(profile.dtls_id()), Some(profile));
        assert!(profile.export_len() <= SrtpProfile::MAX_EXPORT_LEN);
    }
    assert_eq!(SrtpProfile::from_dtls_id(2), None);
}

#[test]
fn what_one_end_sends_the_other_receives_in_both_roles() {
    // SRTP-01, SRTP-11
    for profile in SrtpProfile::ALL {
        let keying = keying(profile);
        let (mut server_in, mut server_out) = keying.contexts(DtlsRole::Server).unwrap();
        let (mut client_in, mut client_out) = keying.contexts(DtlsRole::Client).unwrap();
        for (sender, receiver) in [(&mut server_out, &mut client_in), (&mut client_out, &mut server_in)] {
            let plain = rtp(7, 0x1234_5678, b"a frame of video");
            let protected = protect_rtp(sender, &plain);
            assert_eq!(protected.len(), plain.len() + profile.tag_len(), "{profile}");
            assert_ne!(protected[12..plain.len()], plain[12..], "{profile}: the payload is in the clear");
            assert_eq!(unprotect_rtp(receiver, &protected), Ok(plain), "{profile}");
            let plain = rtcp(0x1234_5678);
            let protected = protect_rtcp(sender, &plain);
            assert_eq!(protected.len(), plain.len() + profile.tag_len() + 4, "{profile}");
            assert_eq!(unprotect_rtcp(receiver, &protected), Ok(plain), "{profile}");
        }
    }
}

// SRTP-12
#[test]
fn a_key_protects_no_more_packets_than_it_may_whatever_their_ssrcs() {
    for profile in SrtpProfile::ALL {
        let (_, mut sender) = keying(profile).contexts(DtlsRole::Server).unwrap();
        assert!(!sender.is_used_up());
        sender.leave(1 << 20, (1 << 16) + 1);
        assert!(!sender.is_used_up());
        protect_rtcp(&mut sender, &rtcp(1));
        assert!(sender.is_used_up(), "what is left is for the session's last packets");
        sender.leave(3, 2);
        for ssrc in 1..=3 {
            protect_rtp(&mut sender, &rtp(1, ssrc, b"x"));
        }
        for ssrc in 1..=2 {
            protect_rtcp(&mut sender, &rtcp(ssrc));
        }
        let mut buf = [rtp(2, 1, b"x"), vec![0; MAX_TRAILER]].concat();
        let len = buf.len() - MAX_TRAILER;
        assert_eq!(sender.protect_rtp(&mut buf, len), Err(SrtpError::KeyExpired), "{profile}");
        let mut buf = [rtcp(3), vec![0; MAX_TRAILER]].concat();
        let len = buf.len() - MAX_TRAILER;
        assert_eq!(sender.protect_rtcp(&mut buf, len), Err(SrtpError::KeyExpired), "{profile}");
    }
}

#[test]
fn keys_stand_in_the_order_of_the_exporter() {
    // SRTP-01: client key, server key, client salt, server salt. A receiver that holds the client's key and salt,
    // cut out by hand into both places, must understand the client.
    for profile in SrtpProfile::ALL {
        let exported: Vec<u8> = (0..profile.export_len()).map(|i| (i * 7 + 3) as u8).collect();
        let (k, s) = (profile.key_len(), profile.salt_len());
        let client_key = &exported[..k];
        let client_salt = &exported[2 * k..2 * k + s];
        let only_client: Vec<u8> = [client_key, client_key, client_salt, client_salt].concat();
        let (mut receiver, _) = KeyingMaterial::new(profile, &only_client).unwrap().contexts(DtlsRole::Client).unwrap();
        let (mut sender, _) = pair(profile);
        let protected = protect_rtp(&mut sender, &rtp(1, 5, b"x"));
        assert!(unprotect_rtp(&mut receiver, &protected).is_ok(), "{profile}");
    }
}

#[test]
fn swapped_halves_understand_nothing() {
    // SRTP-01: any key bytes, both kinds of packet.
    let mut random = StdRng::seed_from_u64(42);
    for profile in SrtpProfile::ALL {
        for round in 0..200 {
            let exported: Vec<u8> = (0..profile.export_len()).map(|_| random.random()).collect();
            let keying = KeyingMaterial::new(profile, &exported).unwrap();
            let (mut receiver, mut sender) = keying.contexts(DtlsRole::Server).unwrap();
            let protected = protect_rtp(&mut sender, &rtp(round, 9, b"payload"));
            assert_eq!(unprotect_rtp(&mut receiver, &protected), Err(SrtpError::Authentication));
            let protected = protect_rtcp(&mut sender, &rtcp(9));
            assert_eq!(unprotect_rtcp(&mut receiver, &protected), Err(SrtpError::Authentication));
            assert!(receiver.ssrcs().is_empty());
        }
    }
}

#[test]
fn sequence_numbers_roll_over() {
    // SRTP-06, SRTP-08: 70,000 packets from 65,000 on wrap twice.
    for profile in SrtpProfile::ALL {
        let (mut sender, mut receiver) = pair(profile);
        for n in 0..70_000u32 {
            let plain = rtp((65_000 + n) as u16, 1, &n.to_be_bytes());
            let protected = protect_rtp(&mut sender, &plain);
            assert_eq!(unprotect_rtp(&mut receiver, &protected), Ok(plain), "{profile} packet {n}");
        }
    }
}

#[test]
fn a_wrap_right_after_the_first_packet_and_a_long_gap_decode() {
    // SRTP-06
    for profile in SrtpProfile::ALL {
        let (mut sender, mut receiver) = pair(profile);
        for n in [65_534u32, 65_536, 65_536 + 30_000, 65_536 + 60_000, 2 * 65_536 + 10_000] {
            // The sender sees every packet, the receiver only these.
            let plain = rtp(n as u16, 1, &n.to_be_bytes());
            let protected = protect_rtp(&mut sender, &plain);
            assert_eq!(unprotect_rtp(&mut receiver, &protected), Ok(plain), "{profile} packet {n}");
        }
    }
}

#[test]
fn a_packet_counts_once() {
    // SRTP-05: just seen, 100 old, 1000 old; beyond the window it is refused as well.
    for profile in SrtpProfile::ALL {
        let (mut sender, mut receiver) = pair(profile);
        let packets: Vec<_> = (0..2100).map(|n| protect_rtp(&mut sender, &rtp(n, 1, b"media"))).collect();
        // Packet 1500 comes late, the others in order.
        for (n, packet) in packets.iter().enumerate().filter(|(n, _)| *n != 1500) {
            assert!(unprotect_rtp(&mut receiver, packet).is_ok(), "{profile} packet {n}");
        }
        assert!(unprotect_rtp(&mut receiver, &packets[1500]).is_ok(), "600 late is inside the window");
        for n in [2099, 1999, 1500, 1100, 99, 0] {
            assert_eq!(unprotect_rtp(&mut receiver, &packets[n]), Err(SrtpError::Replay), "{profile} packet {n}");
        }
    }
}

#[test]
fn replayed_rtcp_has_no_effect() {
    // SRTP-10
    for profile in SrtpProfile::ALL {
        let (mut sender, mut receiver) = pair(profile);
        let packets: Vec<_> = (0..100).map(|_| protect_rtcp(&mut sender, &rtcp(1))).collect();
        for packet in &packets {
            assert!(unprotect_rtcp(&mut receiver, packet).is_ok());
        }
        for packet in &packets {
            assert_eq!(unprotect_rtcp(&mut receiver, packet), Err(SrtpError::Replay), "{profile}");
        }
    }
}

#[test]
fn the_same_packet_may_be_protected_again_and_gives_the_same_bytes() {
    // SRTP-09: retransmission without RTX repeats the ciphertext.
    for profile in SrtpProfile::ALL {
        let (mut sender, _) = pair(profile);
        let plain: Vec<_> = (0..50).map(|n| rtp(n, 1, &[n as u8; 40])).collect();
        let first: Vec<_> = plain.iter().map(|packet| protect_rtp(&mut sender, packet)).collect();
        for (packet, protected) in plain.iter().zip(&first) {
            assert_eq!(&protect_rtp(&mut sender, packet), protected, "{profile}");
        }
    }
}

// M1, SRTP-09
#[test]
fn a_sender_that_does_not_repeat_packets_refuses_every_index_that_it_has_used() {
    for profile in SrtpProfile::ALL {
        let (_, mut sender) = keying(profile).contexts_with(DtlsRole::Client, false).unwrap();
        let mut send = |sequence: u16, byte: u8| {
            let plain = rtp(sequence, 1, &[byte; 40]);
            let mut buf = plain.clone();
            buf.resize(plain.len() + MAX_TRAILER, 0);
            sender.protect_rtp(&mut buf, plain.len()).map(|_| ())
        };
        for sequence in [10, 12, 11, 2_000] {
            assert_eq!(send(sequence, 1), Ok(()), "{profile}");
            assert_eq!((send(sequence, 1), send(sequence, 2)), (Err(SrtpError::Replay), Err(SrtpError::Replay)));
        }
        assert_eq!(send(10, 1), Err(SrtpError::Replay), "{profile}: older than its window");
    }
}

#[test]
fn every_flipped_bit_is_found() {
    // SRTP-04
    for profile in SrtpProfile::ALL {
        let (mut sender, mut receiver) = pair(profile);
        let packet = protect_rtp(&mut sender, &rtp(5, 1, b"payload of some bytes"));
        for bit in 0..packet.len() * 8 {
            let mut altered = packet.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert!(unprotect_rtp(&mut receiver, &altered).is_err(), "{profile} bit {bit}");
        }
        let control = protect_rtcp(&mut sender, &rtcp(1));
        for bit in 0..control.len() * 8 {
            let mut altered = control.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert!(unprotect_rtcp(&mut receiver, &altered).is_err(), "{profile} bit {bit}");
        }
        assert!(receiver.ssrcs().is_empty(), "nothing of this may leave a trace");
        assert!(unprotect_rtp(&mut receiver, &packet).is_ok());
        assert!(unprotect_rtcp(&mut receiver, &control).is_ok());
    }
}

#[test]
fn every_truncation_is_refused() {
    for profile in SrtpProfile::ALL {
        let (mut sender, mut receiver) = pair(profile);
        let packet = protect_rtp(&mut sender, &rtp(5, 1, b"payload"));
        let control = protect_rtcp(&mut sender, &rtcp(1));
        for len in 0..packet.len() {
            let refusal = unprotect_rtp(&mut receiver, &packet[..len]).unwrap_err();
            assert_eq!(refusal == SrtpError::TooShort, len < 12 + profile.tag_len(), "{profile} length {len}");
        }
        for len in 0..control.len() {
            assert!(unprotect_rtcp(&mut receiver, &control[..len]).is_err(), "{profile} length {len}");
        }
        // A length beyond the buffer never reaches libsrtp.
        let mut short = packet.clone();
        assert_eq!(receiver.unprotect_rtp(&mut short, packet.len() + 1), Err(SrtpError::NoRoom));
        assert_eq!(receiver.unprotect_rtcp(&mut short, usize::MAX), Err(SrtpError::NoRoom));
    }
}

#[test]
fn plain_packets_are_refused() {
    // SRTP-03: RTP and RTCP without protection, and SRTCP that says "not encrypted".
    for profile in SrtpProfile::ALL {
        let (mut sender, mut receiver) = pair(profile);
        assert!(unprotect_rtp(&mut receiver, &rtp(1, 1, &[7; 100])).is_err());
        assert!(unprotect_rtcp(&mut receiver, &rtcp(1).repeat(4)).is_err());
        let mut packet = protect_rtcp(&mut sender, &rtcp(1));
        let index = match profile {
            SrtpProfile::Aes128CmHmacSha1_80 => packet.len() - 14,
            _ => packet.len() - 4,
        };
        assert_eq!(packet[index], 0x80, "{profile}: the flag and the first index, 1");
        packet[index] &= 0x7f;
        assert_eq!(unprotect_rtcp(&mut receiver, &packet), Err(SrtpError::NotEncrypted), "{profile}");
    }
}

#[test]
fn a_buffer_without_room_for_the_trailer_is_refused() {
    // SRTP-15
    for profile in SrtpProfile::ALL {
        let (mut sender, _) = pair(profile);
        let mut buf = rtp(1, 1, &[0; 100]);
        let len = buf.len();
        buf.resize(len + MAX_TRAILER - 1, 0);
        assert_eq!(sender.protect_rtp(&mut buf, len), Err(SrtpError::NoRoom));
        assert_eq!(sender.protect_rtcp(&mut buf, len), Err(SrtpError::NoRoom));
        assert_eq!(sender.protect_rtp(&mut buf, usize::MAX), Err(SrtpError::NoRoom));
        assert_eq!(sender.protect_rtp(&mut buf, 11), Err(SrtpError::TooShort));
        assert_eq!(sender.protect_rtcp(&mut buf, 7), Err(SrtpError::TooShort));
        buf.push(0);
        assert_eq!(sender.protect_rtp(&mut buf, len), Ok(len + profile.tag_len()));
    }
}

// SRTP-02, F-18
#[test]
fn the_65th_source_takes_the_place_of_the_one_that_is_idle_for_longest() {
    for profile in SrtpProfile::ALL {
        let (mut sender, mut receiver) = pair(profile);
        let mut old = Vec::new();
        for ssrc in 0..MAX_INBOUND_SSRCS as u32 {
            let packet = protect_rtp(&mut sender, &rtp(1, ssrc, b"x"));
            assert!(unprotect_rtp(&mut receiver, &packet).is_ok());
            old.push(packet);
        }
        // Source 0 goes on, 1 is in use though silent: 2 is idle.
        assert!(unprotect_rtp(&mut receiver, &protect_rtp(&mut sender, &rtp(2, 0, b"x"))).is_ok());
        assert!(!receiver.has_surplus());
        let mut forged = protect_rtp(&mut sender, &rtp(1, 1000, b"x"));
        *forged.last_mut().unwrap() ^= 1;
        assert_eq!(unprotect_rtp(&mut receiver, &forged), Err(SrtpError::Authentication));
        assert!(!receiver.has_surplus(), "a forged packet is no source");
        assert!(unprotect_rtp(&mut receiver, &protect_rtp(&mut sender, &rtp(1, 1001, b"x"))).is_ok());
        assert!(receiver.has_surplus());
        let one_more = protect_rtp(&mut sender, &rtp(1, 1002, b"x"));
        assert_eq!(unprotect_rtp(&mut receiver, &one_more), Err(SrtpError::TooManySources), "until one retires");
        assert!(receiver.has_stream(2));
        receiver.retire_idle(|ssrc| ssrc == 1);
        assert!(!receiver.has_surplus());
        assert!(!receiver.has_stream(2) && receiver.has_stream(1) && receiver.has_stream(0));
        assert_eq!(receiver.ssrcs().len(), MAX_INBOUND_SSRCS);
        // Its replay window is gone: what was recorded of it must not come back.
        assert_eq!(unprotect_rtp(&mut receiver, &old[2]), Err(SrtpError::Replay));
        let packet = protect_rtcp(&mut sender, &rtcp(2));
        assert_eq!(unprotect_rtcp(&mut receiver, &packet), Err(SrtpError::Replay));
        for ssrc in [0, 1, 1001] {
            let packet = protect_rtp(&mut sender, &rtp(3, ssrc, b"x"));
            assert!(unprotect_rtp(&mut receiver, &packet).is_ok(), "{ssrc} goes on");
        }
    }
}

// F-18
#[test]
fn thousands_of_sources_stay_bounded() {
    let (mut sender, mut receiver) = pair(SrtpProfile::AeadAes128Gcm);
    let mut refused = 0;
    for ssrc in 0..5000 {
        match unprotect_rtp(&mut receiver, &protect_rtp(&mut sender, &rtp(1, ssrc, b"x"))) {
            Ok(_) if receiver.has_surplus() => receiver.retire_idle(|other| other == ssrc),
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error, SrtpError::TooManySources);
                refused += 1;
            }
        }
        assert!(receiver.ssrcs().len() <= MAX_INBOUND_SSRCS);
    }
    assert_eq!(refused, 5000 - 4096 - MAX_INBOUND_SSRCS);
}

#[test]
fn a_flood_of_forged_sources_creates_nothing() {
    // SRTP-02
    for profile in SrtpProfile::ALL {
        let (mut sender, mut receiver) = pair(profile);
        let mut packet = protect_rtp(&mut sender, &rtp(1, 1, b"x"));
        for ssrc in 2..2000u32 {
            packet[8..12].copy_from_slice(&ssrc.to_be_bytes());
            assert_eq!(unprotect_rtp(&mut receiver, &packet), Err(SrtpError::Authentication));
        }
        assert!(receiver.ssrcs().is_empty());
    }
}

#[test]
fn keying_material_of_a_wrong_length_is_refused_and_never_shown() {
    // SRTP-16
    for profile in SrtpProfile::ALL {
        for len in [0, profile.export_len() - 1, profile.export_len() + 1] {
            assert!(matches!(KeyingMaterial::new(profile, &vec![7; len]), Err(SrtpError::KeyingMaterial)));
        }
        let shown = format!("{:?}", keying(profile));
        assert_eq!(shown, format!("KeyingMaterial {{ profile: {profile:?}, .. }}"));
    }
}

#[test]
fn a_context_works_on_another_thread() {
    let (mut sender, mut receiver) = pair(SrtpProfile::AeadAes128Gcm);
    let packet = protect_rtp(&mut sender, &rtp(1, 1, b"x"));
    let result = std::thread::spawn(move || unprotect_rtp(&mut receiver, &packet).map(drop)).join().unwrap();
    assert_eq!(result, Ok(()));
}

/// Alters a packet: bits, bytes, length, the fields that carry counts, or everything.
fn mutate(random: &mut StdRng, original: &[u8]) -> Vec<u8> {
    let mut packet = original.to_vec();
    for _ in 0..=random.random_range(0..4) {
        match random.random_range(0..8) {
            0 => packet.truncate(random.random_range(0..=packet.len())),
            1 => packet.extend((0..random.random_range(0..40)).map(|i| i as u8)),
            2 if !packet.is_empty() => packet[0] = random.random(),
            3 if packet.len() > 16 => {
                // An extension whose length field lies.
                packet[0] |= 0x10;
                let words = random.random::<u16>();
                packet[14..16].copy_from_slice(&words.to_be_bytes());
            }
            4 => packet = (0..random.random_range(0..200)).map(|_| random.random()).collect(),
            _ if !packet.is_empty() => {
                let at = random.random_range(0..packet.len());
                packet[at] ^= 1 << random.random_range(0..8);
            }
            _ => {}
        }
    }
    packet
}

#[test]
fn mutated_packets_neither_crash_nor_pass() {
    // 100,000 packets of each kind against each profile; a packet passes only if it is one of the originals.
    for profile in SrtpProfile::ALL {
        let mut random = StdRng::seed_from_u64(profile.dtls_id().into());
        let (mut sender, _) = pair(profile);
        let media: Vec<_> = (0..16u16).map(|n| protect_rtp(&mut sender, &rtp(n, 1, &[n as u8; 60]))).collect();
        let control: Vec<_> = (0..16).map(|_| protect_rtcp(&mut sender, &rtcp(1))).collect();
        let mut receiver = pair(profile).1;
        for n in 0..100_000 {
            if n % 100 == 0 {
                // A fresh one: otherwise an original that slipped through unaltered turns its variants into replays.
                receiver = pair(profile).1;
            }
            let original = &media[random.random_range(0..media.len())];
            let packet = mutate(&mut random, original);
            if unprotect_rtp(&mut receiver, &packet).is_ok() {
                assert!(media.contains(&packet), "{profile}: a forged packet passed: {packet:02x?}");
            }
            let original = &control[random.random_range(0..control.len())];
            let packet = mutate(&mut random, original);
            if unprotect_rtcp(&mut receiver, &packet).is_ok() {
                assert!(control.contains(&packet), "{profile}: a forged packet passed: {packet:02x?}");
            }
        }
        assert!(receiver.ssrcs().len() <= 1);
    }
}
