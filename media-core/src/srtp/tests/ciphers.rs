//! Known answers, and the ciphers that libsrtp gets against independent ones.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use ring::hmac as reference;

use super::super::hmac::Hmac;
use super::*;

fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

/// A session whose both directions have this master key and salt.
fn contexts(profile: SrtpProfile, key: &str, salt: &str) -> (SrtpReceiver, SrtpSender) {
    let exported = bytes(&[key, key, salt, salt].concat());
    KeyingMaterial::new(profile, &exported).unwrap().contexts(DtlsRole::Server).unwrap()
}

// M5
#[test]
fn counter_mode_with_hmac_gives_the_known_answer_of_libsrtps_test_suite() {
    // srtp_validate() of libsrtp's test/srtp_driver.c.
    let (key, salt) = ("e1f97a0d3e018be0d64fa32c06de4139", "0ec675ad498afeebb6960b3aabe6");
    let plain = bytes("800f1234decafbadcafebabeabababababababababababababababab");
    let protected = bytes("800f1234decafbadcafebabe4e55dc4ce79978d88ca4d215949d2402b78d6acc99ea179b8dbb");
    let (mut receiver, mut sender) = contexts(SrtpProfile::Aes128CmHmacSha1_80, key, salt);
    assert_eq!(protect_rtp(&mut sender, &plain), protected);
    assert_eq!(unprotect_rtp(&mut receiver, &protected), Ok(plain));
}

// M5
#[test]
fn hmac_sha1_is_that_of_an_independent_implementation() {
    let mut random = StdRng::seed_from_u64(3);
    for _ in 0..300 {
        let key: Vec<u8> = (0..random.random_range(0..=64)).map(|_| random.random()).collect();
        let mut hmac = Hmac::new(&key).unwrap();
        let key = reference::Key::new(reference::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &key);
        // One instance serves packet after packet.
        for _ in 0..3 {
            let parts: Vec<Vec<u8>> = (0..3).map(|_| vec![random.random(); random.random_range(0..300)]).collect();
            hmac.start();
            parts.iter().for_each(|part| hmac.update(part));
            assert_eq!(hmac.finish(), reference::sign(&key, &parts.concat()).as_ref());
        }
    }
    assert!(Hmac::new(&[0; 65]).is_none(), "SRTP has no such key");
}

// M5
#[test]
fn a_packet_may_begin_at_any_address() {
    for profile in SrtpProfile::ALL {
        let plain = (rtp(1, 1, &[7; 99]), rtcp(1));
        let (mut sender, _) = pair(profile);
        let expected = (protect_rtp(&mut sender, &plain.0), protect_rtcp(&mut sender, &plain.1));
        for offset in 0..8 {
            let (mut sender, mut receiver) = pair(profile);
            let mut buffer = vec![0u64; 64];
            // SAFETY: the bytes of 64 numbers, of which any bytes are some.
            let buffer = unsafe { std::slice::from_raw_parts_mut(buffer.as_mut_ptr().cast::<u8>(), 512) };
            let packet = &mut buffer[offset..];
            packet[..plain.0.len()].copy_from_slice(&plain.0);
            let length = sender.protect_rtp(packet, plain.0.len()).unwrap();
            assert_eq!(packet[..length], expected.0, "{profile} at {offset}");
            let length = receiver.unprotect_rtp(packet, length).unwrap();
            assert_eq!(packet[..length], plain.0, "{profile} at {offset}");
            packet[..plain.1.len()].copy_from_slice(&plain.1);
            let length = sender.protect_rtcp(packet, plain.1.len()).unwrap();
            assert_eq!(packet[..length], expected.1, "{profile} at {offset}");
            let length = receiver.unprotect_rtcp(packet, length).unwrap();
            assert_eq!(packet[..length], plain.1, "{profile} at {offset}");
        }
    }
}
