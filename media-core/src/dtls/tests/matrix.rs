//! Every profile, role, cipher suite and kind of fingerprint, against plain OpenSSL and the scripted client.

use super::offers::{handshake, server_for};
use super::scripted::{Offer, Scripted, use_srtp};
use super::*;
use crate::ledger::Reason;
use crate::nonce_oracle::{NonceOracle, Seen};
use crate::spec::FingerprintHash;
use crate::srtp::MAX_TRAILER;
use crate::srtp_reference::SrtpReference;

const ROLES: [(DtlsRole, DtlsRole); 2] = [(DtlsRole::Client, DtlsRole::Server), (DtlsRole::Server, DtlsRole::Client)];

/// Lets an end with these keys and this role send and receive, judged by what the other end's library exported.
fn talks_srtp(keying: &KeyingMaterial, role: DtlsRole, exported: &[u8]) {
    let (mut receiver, mut sender) = keying.contexts_with(role, false).unwrap();
    let is_server = role == DtlsRole::Server;
    let mut oracle = NonceOracle::of_exported(exported, is_server);
    let theirs = SrtpReference::of_exported(exported, !is_server);
    for n in 0..300u32 {
        let number = 32_700 + 150 * n;
        let mut rtp = vec![0x80, 96, (number >> 8) as u8, number as u8, 0, 0, 0, 0, 0, 0, 0, 9];
        rtp.resize(12 + n as usize, n as u8);
        let mut rtcp = vec![0x80, 201, 0, 1, 0, 0, 0, 9];
        for (packet, is_rtcp) in [(&mut rtp, false), (&mut rtcp, true)] {
            let (plain, length) = (packet.clone(), packet.len());
            packet.resize(length + MAX_TRAILER, 0);
            let protect =
                if is_rtcp { sender.protect_rtcp(packet, length) } else { sender.protect_rtp(packet, length) };
            let expected = if is_rtcp { Seen::Rtcp } else { Seen::New };
            assert_eq!(oracle.see(&packet[..protect.unwrap()]), Ok(expected), "{role:?} {n}");
            let mut sealed =
                if is_rtcp { theirs.seal_rtcp(&plain, n) } else { theirs.seal_rtp(&plain, u64::from(number)) };
            let length = sealed.len();
            let unprotect = if is_rtcp {
                receiver.unprotect_rtcp(&mut sealed, length)
            } else {
                receiver.unprotect_rtp(&mut sealed, length)
            };
            assert_eq!(unprotect.map(|length| &sealed[..length]), Ok(&plain[..]), "{role:?} {n}");
        }
    }
}

// DTLS-18, SRTP-01, SRTP-09, SRTP-11
#[test]
fn the_keys_of_every_profile_in_either_role_are_those_that_the_peers_library_exports() {
    let certificate = Certificate::generate().unwrap();
    for profile in SrtpProfile::ALL {
        let context = DtlsContext::with_profiles(&certificate, &[profile]).unwrap();
        for (role, other) in ROLES {
            let mut ours = Ours::new(&context, role, &[certificate.fingerprint().clone()]);
            let mut peer = Raw::new(other, &certificate, |_| {}, |_| {});
            ours.start();
            peer.start();
            run(&mut ours, &mut peer, all);
            assert_eq!(ours.connection().keying.profile(), profile, "{role:?}");
            talks_srtp(&ours.connection().keying, role, &peer.exported().unwrap().1);
        }
        // A client that makes its keys itself, down to the exporter.
        let mut offer = Offer::plain();
        offer.extensions.retain(|(kind, _)| *kind != 14);
        offer.extensions.push(use_srtp(&[profile.dtls_id()], &[]));
        let mut client = Scripted::new(&certificate, offer);
        let mut server = server_for(&certificate);
        handshake(&mut client, &mut server);
        talks_srtp(&server.connection().keying, DtlsRole::Server, &client.exported(profile.export_len()));
    }
}

/// Whether a handshake with nothing but this suite ends well, with our end in either role.
fn agree_on(suite: &str, key: CertificateKey) -> [Result<&'static str, Reason>; 2] {
    let certificate = Certificate::generate_with(key).unwrap();
    let context = DtlsContext::new(&certificate).unwrap();
    ROLES.map(|(role, other)| {
        let mut ours = Ours::new(&context, role, &[certificate.fingerprint().clone()]);
        let only = |context: &mut SslContextBuilder| context.set_cipher_list(&format!("{suite}:@SECLEVEL=0")).unwrap();
        let mut peer = Raw::new(other, &certificate, only, |_| {});
        ours.start();
        peer.start();
        run(&mut ours, &mut peer, all);
        assert_eq!(ours.has_keys(), peer.connected, "{suite}: {:?} {:?}", ours.events, peer.error);
        if ours.has_keys() { Ok(ours.connection().cipher) } else { Err(ours.failure().reason) }
    })
}

// DTLS-04
#[test]
fn cipher_suites_have_an_ephemeral_key_and_a_certificate_and_are_all_taken_in_both_roles() {
    let suites = [
        ("AES128-GCM-SHA256", "AES_128_GCM_SHA256"),
        ("AES256-GCM-SHA384", "AES_256_GCM_SHA384"),
        ("CHACHA20-POLY1305", "CHACHA20_POLY1305_SHA256"),
        ("AES128-SHA", "AES_128_CBC_SHA"),
        ("AES256-SHA", "AES_256_CBC_SHA"),
    ];
    for (name, standard) in suites {
        for (key, kind) in [(CertificateKey::P256, "ECDSA"), (CertificateKey::Rsa2048, "RSA")] {
            let agreed = agree_on(&format!("ECDHE-{kind}-{name}"), key);
            let expected = format!("TLS_ECDHE_{kind}_WITH_{standard}");
            assert_eq!(agreed, [Ok(&expected[..]), Ok(&expected[..])]);
        }
    }
}

// DTLS-04
#[test]
fn cipher_suites_without_forward_secrecy_encryption_or_certificates_are_refused_in_both_roles() {
    let suites = [
        "AES128-GCM-SHA256",
        "AES256-SHA256",
        "DHE-RSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-SHA256",
        "ECDHE-RSA-NULL-SHA",
        "NULL-SHA256",
        "AECDH-AES128-SHA",
        "ADH-AES128-GCM-SHA256",
    ];
    // A client believes the server's plaintext alert only after a while.
    std::thread::scope(|scope| {
        for suite in suites {
            scope.spawn(move || {
                let [as_client, as_server] = agree_on(suite, CertificateKey::Rsa2048);
                let expected = (Err(Reason::DtlsAlertReceived), Err(Reason::DtlsProtocolError));
                assert_eq!((as_client, as_server), expected, "{suite}");
            });
        }
    });
}

// DTLS-08, DTLS-09
#[test]
fn a_fingerprint_of_every_hash_counts_in_either_role_alone_and_wherever_it_stands_among_wrong_ones() {
    let (certificate, context) = identity();
    let der = certificate.x509().to_der().unwrap();
    let hashes = [FingerprintHash::Sha256, FingerprintHash::Sha384, FingerprintHash::Sha512];
    let wrong = hashes.map(|hash| Fingerprint::of(hash, b"another certificate").unwrap());
    for hash in hashes {
        let right = Fingerprint::of(hash, &der).unwrap();
        let lists = (0..=wrong.len()).map(|place| {
            let mut lines = wrong.to_vec();
            lines.insert(place, right.clone());
            lines
        });
        for lines in lists.chain([vec![right.clone()]]) {
            for (role, other) in ROLES {
                let mut ours = Ours::new(&context, role, &lines);
                let mut peer = Raw::new(other, &certificate, |_| {}, |_| {});
                ours.start();
                peer.start();
                run(&mut ours, &mut peer, all);
                assert_eq!(ours.connection().fingerprint, right, "{role:?} {lines:?}");
            }
        }
    }
    for (role, other) in ROLES {
        let mut ours = Ours::new(&context, role, &wrong);
        let mut peer = Raw::new(other, &certificate, |_| {}, |_| {});
        ours.start();
        peer.start();
        run(&mut ours, &mut peer, all);
        assert_eq!(ours.failure().reason, Reason::FingerprintMismatch, "{role:?}");
    }
}
