//! ClientHellos as browsers send them, with DTLS 1.3 and its key shares, and what the hellos of both roles may hold.

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::scripted::{HANDSHAKE, Offer, Scripted, fragment, list, use_srtp};
use super::*;
use crate::ledger::{Reason, Stage};
use crate::srtp::SrtpProfile;

/// X25519MLKEM768, and the length of its share.
const HYBRID: u16 = 0x11ec;
const HYBRID_SHARE: usize = 1216;
const SESSION_TICKET: u16 = 35;
const SUPPORTED_VERSIONS: u16 = 43;
const KEY_SHARE: u16 = 51;

/// A value that stands for nothing (RFC 8701).
fn grease(random: &mut StdRng) -> u16 {
    0x0a0a + random.random_range(0..16) * 0x1010
}

/// What Chromium and Firefox offer: DTLS 1.3 first, a hybrid key share, values that nobody knows, extensions in any order. The
/// client itself speaks DTLS 1.2.
pub(super) fn browser(certificate: &Certificate, seed: u64) -> Scripted {
    let mut client = Scripted::new(certificate, Offer::plain());
    let random = &mut StdRng::seed_from_u64(seed);
    let mut shares = Vec::new();
    let hybrid: Vec<u8> = (0..HYBRID_SHARE).map(|_| random.random()).collect();
    for (group, share) in [(grease(random), vec![0]), (HYBRID, hybrid), (29, client.share())] {
        shares.extend(group.to_be_bytes());
        shares.extend((share.len() as u16).to_be_bytes());
        shares.extend(share);
    }
    let shares = [&(shares.len() as u16).to_be_bytes()[..], &shares].concat();
    let versions: Vec<u8> = [grease(random), 0xfefc, 0xfefd].iter().flat_map(|version| version.to_be_bytes()).collect();
    let signatures = [0x0904, 0x0905, grease(random), 0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601];
    let mut extensions = vec![
        (0x0a0a, Vec::new()),
        (0xfafa, vec![0]),
        (5, vec![1, 0, 0, 0, 0]),
        (10, list(&[grease(random), HYBRID, 29, 23, 24])),
        (11, vec![1, 0]),
        (13, list(&signatures)),
        use_srtp(&[1, 8, 7], &[]),
        (18, Vec::new()),
        (23, Vec::new()),
        (27, vec![2, 0, 2]),
        (SESSION_TICKET, Vec::new()),
        (SUPPORTED_VERSIONS, [&[versions.len() as u8], &versions[..]].concat()),
        (45, vec![1, 1]),
        (KEY_SHARE, shares),
        (0xff01, vec![0]),
    ];
    extensions.shuffle(random);
    let suites = [0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xcca9, 0xcca8, 0xc009, 0xc013, 0xc00a, 0xc014];
    let suites = [&[grease(random)], &suites[..]].concat();
    client.offer = Offer { session_id: Vec::new(), suites, extensions };
    client
}

/// A server for a client with this certificate, and the client's one.
pub(super) fn server_for(certificate: &Certificate) -> Ours {
    let (_, context) = identity();
    Ours::new(&context, DtlsRole::Server, &[certificate.fingerprint().clone()])
}

/// A whole handshake, whose ClientHello is one record.
pub(super) fn handshake(client: &mut Scripted, server: &mut Ours) {
    let hello = client.hello();
    let record = client.record(HANDSHAKE, &hello);
    server.receive(&record);
    complete(client, server);
}

/// Carries a handshake on from the ClientHello, without loss; both have to end it well, with the same keys.
pub(super) fn complete(client: &mut Scripted, server: &mut Ours) {
    for _ in 0..2 {
        while let Some(datagram) = server.transmit() {
            client.receive(&datagram);
        }
        assert!(client.has_flight() && client.alerts.is_empty(), "{:?} {:?}", client.alerts, server.events);
        if !server.has_keys() {
            server.receive(&client.second_datagram());
        }
    }
    assert!(client.is_finished, "{:?}", server.events);
    let keying = &server.connection().keying;
    let exported = KeyingMaterial::new(keying.profile(), &client.exported(keying.profile().export_len())).unwrap();
    assert!(have_same_keys(&exported, keying));
}

// DTLS-02, DTLS-03, DTLS-30, DTLS-31
#[test]
fn an_offer_of_dtls_1_3_falls_back_to_1_2_whatever_else_is_in_it_and_in_whatever_order() {
    let certificate = Certificate::generate().unwrap();
    for seed in 0..40 {
        let mut client = browser(&certificate, seed);
        let mut server = server_for(&certificate);
        let hello = client.hello();
        let length = hello.len() - 12;
        assert!(length > DATAGRAM_SIZE, "no datagram holds it: {length} bytes");
        for range in [0..1100, 1100..length] {
            assert!(server.transmit().is_none());
            let record = client.record(HANDSHAKE, &fragment(&hello, range));
            server.receive(&record);
        }
        complete(&mut client, &mut server);
        let connection = server.connection();
        assert_eq!((connection.version, connection.keying.profile()), ("DTLSv1.2", SrtpProfile::AeadAes128Gcm));
        let (_, suite, extensions) = client.server_hello();
        assert_eq!(suite, 0xc02b);
        let answered = |kind| extensions.iter().any(|(answered, _)| *answered == kind);
        assert!(!answered(SUPPORTED_VERSIONS) && !answered(KEY_SHARE), "{extensions:?}");
    }
}

// DTLS-13
#[test]
fn nothing_of_an_earlier_session_is_taken_up_and_no_ticket_is_given() {
    let certificate = Certificate::generate().unwrap();
    let mut offer = Offer { session_id: vec![7; 32], ..Offer::plain() };
    offer.extensions.push((SESSION_TICKET, vec![9; 160]));
    let mut client = Scripted::new(&certificate, offer);
    let mut server = server_for(&certificate);
    handshake(&mut client, &mut server);
    let (session_id, _, extensions) = client.server_hello();
    assert_eq!(session_id, [], "nothing to come back to");
    let kinds: Vec<_> = extensions.iter().map(|(kind, _)| *kind).collect();
    assert!(kinds.contains(&23), "the extended master secret: {kinds:?}");
    assert!(!kinds.contains(&SESSION_TICKET), "{kinds:?}");
    let messages: Vec<_> = client.messages.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(messages, [2, 11, 12, 13, 14], "all of a full handshake, and no ticket");
}

// DTLS-17
#[test]
fn use_srtp_is_answered_by_one_profile_and_no_mki_whatever_was_offered() {
    let certificate = Certificate::generate().unwrap();
    for mki in [vec![], vec![1], vec![5; 4], vec![6; 255]] {
        for (profiles, choice) in [(&[1][..], 1), (&[2, 1, 0x0d0d, 8], 8), (&[1, 8, 7], 7)] {
            let mut offer = Offer::plain();
            offer.extensions.retain(|(kind, _)| *kind != 14);
            offer.extensions.push(use_srtp(profiles, &mki));
            let mut client = Scripted::new(&certificate, offer);
            let mut server = server_for(&certificate);
            handshake(&mut client, &mut server);
            let (_, _, extensions) = client.server_hello();
            let answers: Vec<_> = extensions.iter().filter(|(kind, _)| *kind == 14).collect();
            assert_eq!(answers, [&use_srtp(&[choice], &[])], "{profiles:?} with {mki:?}");
        }
    }
}

// DTLS-01
#[test]
fn the_records_of_a_client_hello_may_call_themselves_dtls_1_0() {
    let certificate = Certificate::generate().unwrap();
    let mut client = Scripted::new(&certificate, Offer::plain());
    let mut server = server_for(&certificate);
    client.record_version = [254, 255];
    let hello = client.hello();
    let record = client.record(HANDSHAKE, &hello);
    client.record_version = [254, 253];
    server.receive(&record);
    complete(&mut client, &mut server);
    assert_eq!(server.connection().version, "DTLSv1.2");
}

/// A ServerHello without anything behind it.
fn server_hello(version: [u8; 2], use_srtp: &(u16, Vec<u8>)) -> Vec<u8> {
    let mut extensions = vec![0, 23, 0, 0, 255, 1, 0, 1, 0, 0, 11, 0, 2, 1, 0];
    extensions.extend(use_srtp.0.to_be_bytes());
    extensions.extend((use_srtp.1.len() as u16).to_be_bytes());
    extensions.extend(&use_srtp.1);
    let mut body = version.to_vec();
    body.extend([5; 32]);
    body.extend([0, 0xc0, 0x2b, 0]);
    body.extend((extensions.len() as u16).to_be_bytes());
    body.extend(extensions);
    let length = &(body.len() as u32).to_be_bytes()[1..];
    let message = [&[2], length, &[0; 5], length, &body].concat();
    let size = (message.len() as u16).to_be_bytes();
    [&[HANDSHAKE, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0], &size[..], &message].concat()
}

// DTLS-01, DTLS-17: in the client's role.
#[test]
fn a_server_hello_with_another_version_an_mki_or_a_wrong_choice_of_profiles_ends_the_handshake() {
    let cases = [
        ("an MKI", [254, 253], use_srtp(&[7], &[1, 2])),
        ("two profiles", [254, 253], use_srtp(&[7, 8], &[])),
        ("no profile", [254, 253], use_srtp(&[], &[])),
        ("a profile that was not offered", [254, 253], use_srtp(&[2], &[])),
        ("DTLS 1.0", [254, 255], use_srtp(&[7], &[])),
    ];
    for (what, version, answer) in cases {
        let (mut client, _) = couple();
        client.start();
        assert!(client.transmit().is_some());
        client.receive(&server_hello(version, &answer));
        let failure = client.failure();
        assert_eq!((failure.reason, failure.stage), (Reason::DtlsProtocolError, Stage::Dtls), "{what}: {failure:?}");
        let alert = client.transmit().unwrap();
        assert_eq!((alert[0], alert[13]), (21, 2), "{what}: a fatal alert");
        assert!(!client.has_keys() && client.endpoint.is_ended());
    }
    let (mut client, _) = couple();
    client.start();
    client.receive(&server_hello([254, 253], &use_srtp(&[7], &[])));
    assert!(!client.endpoint.is_ended(), "what is right goes on: {:?}", client.events);
}
