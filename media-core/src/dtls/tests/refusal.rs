//! Handshakes that must not end well, each with its own reason.

use openssl::ssl::SslVersion;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::ledger::{Reason, Stage};
use crate::spec::FingerprintHash;

#[test]
fn a_wrong_fingerprint_ends_the_handshake_before_any_key() {
    // DTLS-08, DTLS-10: seen by the server, then by the client.
    for wrong_end_is_server in [true, false] {
        let (client_certificate, client_context) = identity();
        let (server_certificate, server_context) = identity();
        let wrong = Fingerprint::of(FingerprintHash::Sha256, b"another certificate").unwrap();
        let (mut for_client, mut for_server) =
            (server_certificate.fingerprint().clone(), client_certificate.fingerprint().clone());
        let actual = if wrong_end_is_server { &mut for_server } else { &mut for_client };
        let actual = std::mem::replace(actual, wrong.clone());
        let mut client = Ours::new(&client_context, DtlsRole::Client, &[for_client]);
        let mut server = Ours::new(&server_context, DtlsRole::Server, &[for_server]);
        client.start();
        run(&mut client, &mut server, all);
        assert!(!client.has_keys() && !server.has_keys(), "{:?} {:?}", client.events, server.events);
        let (judge, judged) = if wrong_end_is_server { (&server, &client) } else { (&client, &server) };
        let failure = judge.failure();
        assert_eq!((failure.reason, failure.stage), (Reason::FingerprintMismatch, Stage::Fingerprint));
        assert!(failure.detail.contains(&actual.to_sdp()) && failure.detail.contains(&wrong.to_sdp()), "{failure:?}");
        let told = judged.failure();
        assert_eq!((told.reason, told.stage), (Reason::DtlsAlertReceived, Stage::Dtls));
        assert_eq!(told.detail, "alert bad_certificate (42)");
    }
}

#[test]
fn no_announced_fingerprint_matches_nothing() {
    // DTLS-10
    let (certificate, context) = identity();
    let mut client = Ours::new(&context, DtlsRole::Client, &[certificate.fingerprint().clone()]);
    let mut server = Ours::new(&context, DtlsRole::Server, &[]);
    client.start();
    run(&mut client, &mut server, all);
    assert_eq!(server.failure().reason, Reason::FingerprintMismatch);
    assert!(!client.has_keys());
}

#[test]
fn a_chain_after_a_wrong_leaf_does_not_help() {
    // DTLS-08: the announced certificate comes along, but the leaf, whose key signs, is another one.
    let (announced, context) = identity();
    let impostor = Certificate::generate().unwrap();
    let mut client = Raw::new(
        DtlsRole::Client,
        &impostor,
        |context| context.add_extra_chain_cert(announced.x509().clone()).unwrap(),
        |_| {},
    );
    let mut server = Ours::new(&context, DtlsRole::Server, &[announced.fingerprint().clone()]);
    client.start();
    run(&mut client, &mut server, all);
    assert_eq!(server.failure().reason, Reason::FingerprintMismatch);
    assert!(!client.connected);
}

#[test]
fn a_client_without_certificate_is_refused() {
    // DTLS-07
    let (certificate, context) = identity();
    let mut client = Raw::new(
        DtlsRole::Client,
        &certificate,
        |context| {
            let mut bare = SslContext::builder(SslMethod::dtls()).unwrap();
            bare.set_tlsext_use_srtp("SRTP_AEAD_AES_128_GCM").unwrap();
            *context = bare;
        },
        |_| {},
    );
    let mut server = Ours::new(&context, DtlsRole::Server, &[certificate.fingerprint().clone()]);
    client.start();
    run(&mut client, &mut server, all);
    let failure = server.failure();
    assert_eq!((failure.reason, failure.stage), (Reason::NoClientCertificate, Stage::Dtls), "{failure:?}");
    assert!(!client.connected && client.error.is_some());
}

/// A client context with our certificate and these SRTP profiles.
fn client_with_profiles(certificate: &Certificate, profiles: Option<&str>) -> Raw {
    let bare = |context: &mut SslContextBuilder| {
        let mut bare = SslContext::builder(SslMethod::dtls()).unwrap();
        bare.set_certificate(certificate.x509()).unwrap();
        bare.set_private_key(certificate.key()).unwrap();
        bare.set_verify(SslVerifyMode::NONE);
        if let Some(profiles) = profiles {
            bare.set_tlsext_use_srtp(profiles).unwrap();
        }
        *context = bare;
    };
    Raw::new(DtlsRole::Client, certificate, bare, |_| {})
}

#[test]
fn a_client_without_a_common_srtp_profile_is_refused() {
    // DTLS-16: no use_srtp at all, and one with an unsupported profile.
    let cases = [
        (None, "the client sent no use_srtp extension"),
        (Some("SRTP_AES128_CM_SHA1_32"), "the client offers only the profiles 0x0002"),
    ];
    let (certificate, context) = identity();
    for (profiles, detail) in cases {
        let mut client = client_with_profiles(&certificate, profiles);
        let mut server = Ours::new(&context, DtlsRole::Server, &[certificate.fingerprint().clone()]);
        client.start();
        run(&mut client, &mut server, all);
        let failure = server.failure();
        assert_eq!((failure.reason, failure.stage), (Reason::NoSrtpProfile, Stage::Dtls));
        assert_eq!(failure.detail, detail);
        assert!(!client.connected);
        assert!(client.error.as_deref().is_some_and(|error| error.contains("handshake failure")), "{:?}", client.error);
    }
}

#[test]
fn a_server_that_chooses_no_srtp_profile_is_refused() {
    // DTLS-16, in the client role.
    let (certificate, context) = identity();
    let mut client = Ours::new(&context, DtlsRole::Client, &[certificate.fingerprint().clone()]);
    let bare = |context: &mut SslContextBuilder| {
        let mut bare = SslContext::builder(SslMethod::dtls()).unwrap();
        bare.set_certificate(certificate.x509()).unwrap();
        bare.set_private_key(certificate.key()).unwrap();
        *context = bare;
    };
    let mut server = Raw::new(DtlsRole::Server, &certificate, bare, |_| {});
    client.start();
    run(&mut client, &mut server, all);
    let failure = client.failure();
    assert_eq!((failure.reason, failure.stage), (Reason::NoSrtpProfile, Stage::Dtls));
    assert!(!server.connected);
    assert!(server.error.as_deref().is_some_and(|error| error.contains("handshake failure")), "{:?}", server.error);
}

#[test]
fn dtls_1_0_is_refused() {
    // DTLS-01
    let (certificate, context) = identity();
    let mut client = Raw::new(
        DtlsRole::Client,
        &certificate,
        |context| {
            context.set_security_level(0);
            context.set_min_proto_version(Some(SslVersion::DTLS1)).unwrap();
            context.set_max_proto_version(Some(SslVersion::DTLS1)).unwrap();
            context.set_cipher_list("ALL:@SECLEVEL=0").unwrap();
        },
        |_| {},
    );
    let mut server = Ours::new(&context, DtlsRole::Server, &[certificate.fingerprint().clone()]);
    client.start();
    run(&mut client, &mut server, all);
    let failure = server.failure();
    assert_eq!((failure.reason, failure.stage), (Reason::DtlsProtocolError, Stage::Dtls), "{failure:?}");
    assert_eq!(failure.detail, "unsupported protocol");
    assert!(client.error.as_deref().is_some_and(|error| error.contains("protocol version")), "{:?}", client.error);
}

#[test]
fn a_client_without_a_common_cipher_suite_is_refused() {
    // DTLS-04: RSA key transport is not among ours.
    let (certificate, context) = identity();
    let settings = |context: &mut SslContextBuilder| context.set_cipher_list("AES128-GCM-SHA256").unwrap();
    let mut client = Raw::new(DtlsRole::Client, &certificate, settings, |_| {});
    let mut server = Ours::new(&context, DtlsRole::Server, &[certificate.fingerprint().clone()]);
    client.start();
    run(&mut client, &mut server, all);
    assert_eq!(server.failure().reason, Reason::DtlsProtocolError);
    assert_eq!(server.failure().detail, "no shared cipher");
    assert!(!client.connected);
}

#[test]
fn an_altered_finished_is_refused() {
    // DTLS-11, DTLS-39: the altered record is dropped, so the handshake waits instead of ending well.
    let (mut client, mut server) = couple();
    client.start();
    server.receive(&client.transmit().unwrap());
    while let Some(datagram) = server.transmit() {
        client.receive(&datagram);
    }
    let mut last_flight: Vec<_> = std::iter::from_fn(|| client.transmit()).collect();
    *last_flight.last_mut().unwrap().last_mut().unwrap() ^= 1;
    for datagram in &last_flight {
        server.receive(datagram);
    }
    assert!(!server.has_keys());
    run(&mut client, &mut server, all);
    assert!(server.has_keys(), "the repeated flight is the true one");
}

#[test]
fn after_a_failure_nothing_more_happens() {
    let (certificate, context) = identity();
    let mut server = Ours::new(&context, DtlsRole::Server, &[]);
    let mut client = Ours::new(&context, DtlsRole::Client, &[certificate.fingerprint().clone()]);
    client.start();
    let hello = client.transmit().unwrap();
    server.receive(&hello);
    run(&mut client, &mut server, all);
    let events = server.events.len();
    server.receive(&hello);
    server.endpoint.close();
    server.expire();
    assert_eq!((server.events.len(), server.transmit(), server.timeout()), (events, None, None));
    assert!(server.endpoint.is_ended());
}

#[test]
fn hostile_datagrams_end_a_handshake_at_worst() {
    // DTLS-30, DTLS-39: a ClientHello with altered bytes and lengths, then noise. No panic, and never keys.
    let (certificate, context) = identity();
    let mut client = Ours::new(&context, DtlsRole::Client, &[certificate.fingerprint().clone()]);
    client.start();
    let hello = client.transmit().unwrap();
    let mut random = StdRng::seed_from_u64(0x5eed);
    let mut next = move |bound: usize| random.random_range(0..bound);
    for _ in 0..300 {
        let mut server = Ours::new(&context, DtlsRole::Server, &[certificate.fingerprint().clone()]);
        for _ in 0..20 {
            let mut datagram = hello.clone();
            for _ in 0..1 + next(4) {
                // The headers more often than the rest: that is where the lengths are.
                let at = if next(2) == 0 { next(25) } else { next(datagram.len()) };
                datagram[at] = next(256) as u8;
            }
            datagram.truncate(1 + next(datagram.len()));
            server.receive(&datagram);
            while server.transmit().is_some() {}
        }
        assert!(!server.has_keys());
    }
}

#[test]
fn a_client_without_the_extended_master_secret_is_refused() {
    // RFC 7627 §5.2: all clients of today have it.
    const NO_EXTENDED_MASTER_SECRET: u64 = 1;
    let (certificate, context) = identity();
    let settings = |context: &mut SslContextBuilder| {
        context.set_options(openssl::ssl::SslOptions::from_bits_retain(NO_EXTENDED_MASTER_SECRET));
    };
    let mut client = Raw::new(DtlsRole::Client, &certificate, settings, |_| {});
    let mut server = Ours::new(&context, DtlsRole::Server, &[certificate.fingerprint().clone()]);
    client.start();
    run(&mut client, &mut server, all);
    let failure = server.failure();
    assert_eq!((failure.reason.code(), failure.stage), ("no-extended-master-secret", Stage::Dtls), "{failure:?}");
    assert!(!server.has_keys());
}
