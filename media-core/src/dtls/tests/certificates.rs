//! Certificates of every kind that clients come with, and the groups and signatures of the handshakes around them.

use openssl::ssl::SslOptions;
use strum::VariantArray;

use super::*;
use crate::ledger::{Reason, Stage};

/// Groups of a peer that knows all curves of certificates, as OpenSSL demands of itself.
const ALL_GROUPS: &str = "X25519:P-256:P-384:P-521:P-224:secp256k1:brainpoolP256r1:brainpoolP384r1:brainpoolP512r1";

fn certificates() -> impl Iterator<Item = (CertificateKey, Certificate)> {
    CertificateKey::VARIANTS.iter().map(|&key| (key, Certificate::generate_with(key).unwrap()))
}

/// The group that OpenSSL has to know for a certificate on this curve: from 4.0 on it is built without those that RFC 8422 deprecates,
/// if nobody asks for them.
fn is_known(key: CertificateKey) -> bool {
    let group = match key {
        CertificateKey::P224 => "P-224",
        CertificateKey::Secp256k1 => "secp256k1",
        CertificateKey::BrainpoolP256 => "brainpoolP256r1",
        CertificateKey::BrainpoolP384 => "brainpoolP384r1",
        CertificateKey::BrainpoolP512 => "brainpoolP512r1",
        _ => return true,
    };
    SslContext::builder(SslMethod::dtls()).unwrap().set_groups_list(group).is_ok()
}

/// Gives a peer those of these groups that OpenSSL knows.
fn set_groups(context: &mut SslContextBuilder, groups: &str) {
    let known: Vec<_> = groups.split(':').filter(|group| context.set_groups_list(group).is_ok()).collect();
    context.set_groups_list(&known.join(":")).unwrap();
}

#[test]
fn certificates_of_every_kind_are_taken_in_both_roles() {
    // F-25: FFmpeg with GnuTLS has one on P-224.
    let (_, context) = identity();
    for (key, certificate) in certificates() {
        for (role, other) in [(DtlsRole::Server, DtlsRole::Client), (DtlsRole::Client, DtlsRole::Server)] {
            if other == DtlsRole::Server && matches!(key, CertificateKey::Ed25519 | CertificateKey::Ed448) {
                // OpenSSL 3.0 itself, which plays the peer, has these for a server of TLS 1.2, and not of DTLS 1.2.
                continue;
            }
            let groups = |context: &mut SslContextBuilder| set_groups(context, ALL_GROUPS);
            let mut peer = Raw::new(other, &certificate, groups, |_| {});
            let mut ours = Ours::new(&context, role, &[certificate.fingerprint().clone()]);
            peer.start();
            ours.start();
            run(&mut ours, &mut peer, all);
            let ends = (ours.has_keys(), peer.connected);
            assert_eq!(
                ends,
                (is_known(key), is_known(key)),
                "{key:?} as {other:?}: {:?} {:?}",
                ours.events,
                peer.error
            );
        }
    }
}

#[test]
fn a_certificate_on_a_curve_decides_nothing_about_the_key_exchange() {
    // F-25: a client that has nothing but such a group is refused, and so is a server that chooses it.
    let curves = [(CertificateKey::P224, "P-224"), (CertificateKey::BrainpoolP256, "brainpoolP256r1")];
    for (key, group) in curves.into_iter().filter(|(key, _)| is_known(*key)) {
        let certificate = Certificate::generate_with(key).unwrap();
        let groups = |context: &mut SslContextBuilder| context.set_groups_list(group).unwrap();
        let (_, context) = identity();
        let mut client = Raw::new(DtlsRole::Client, &certificate, groups, |_| {});
        let mut server = Ours::new(&context, DtlsRole::Server, &[certificate.fingerprint().clone()]);
        client.start();
        run(&mut client, &mut server, all);
        assert!(!server.has_keys() && !client.connected);
        assert_eq!(server.failure().reason, Reason::DtlsProtocolError);

        let prefers = |context: &mut SslContextBuilder| {
            context.set_options(SslOptions::CIPHER_SERVER_PREFERENCE);
            context.set_groups_list(&format!("{group}:P-256")).unwrap();
        };
        let mut server = Raw::new(DtlsRole::Server, &certificate, prefers, |_| {});
        let mut client = Ours::new(&context, DtlsRole::Client, &[certificate.fingerprint().clone()]);
        client.start();
        run(&mut client, &mut server, all);
        assert!(!client.has_keys(), "{:?}", client.events);
        let failure = client.failure();
        let because = (Reason::DtlsProtocolError, Stage::Dtls);
        assert_eq!((failure.reason, failure.stage), because, "{failure:?} {:?}", server.error);
        assert!(failure.detail.contains("too weak for the key exchange"), "{failure:?}");
    }
}

#[test]
fn the_key_exchange_is_on_x25519_whatever_the_curve_of_the_certificate() {
    // DTLS-05, F-25
    let (_, context) = identity();
    for (key, certificate) in certificates().filter(|(key, _)| is_known(*key)) {
        // The peer would rather have others.
        let groups = "P-224:P-521:P-384:P-256:X25519:secp256k1:brainpoolP256r1:brainpoolP384r1:brainpoolP512r1";
        let mut client = Raw::new(DtlsRole::Client, &certificate, |context| set_groups(context, groups), |_| {});
        let mut server = Ours::new(&context, DtlsRole::Server, &[certificate.fingerprint().clone()]);
        client.start();
        run(&mut client, &mut server, all);
        assert!(server.has_keys(), "{key:?}: {:?}", server.events);
        assert_eq!(client.stream.ssl().peer_tmp_key().unwrap().id(), openssl::pkey::Id::X25519, "{key:?}");
    }
}

#[test]
fn signatures_with_sha_1_are_refused_whatever_the_system_allows() {
    // DTLS-11, RFC 9155
    for key in [CertificateKey::P256, CertificateKey::Rsa2048] {
        let certificate = Certificate::generate_with(key).unwrap();
        let old = |context: &mut SslContextBuilder| {
            context.set_security_level(0);
            context.set_sigalgs_list("ECDSA+SHA1:RSA+SHA1").unwrap();
        };
        let (_, context) = identity();
        for (role, other) in [(DtlsRole::Server, DtlsRole::Client), (DtlsRole::Client, DtlsRole::Server)] {
            let mut peer = Raw::new(other, &certificate, old, |_| {});
            let mut ours = Ours::new(&context, role, &[certificate.fingerprint().clone()]);
            peer.start();
            ours.start();
            run(&mut ours, &mut peer, all);
            assert!(!ours.has_keys() && !peer.connected, "{key:?} as {other:?}");
        }
    }
}
