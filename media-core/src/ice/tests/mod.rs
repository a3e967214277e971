//! The lite side in virtual time, and both parsers under mutation.

mod agent;
mod proof;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use stun::attributes::*;
use stun::error_code::ErrorCodeAttribute;
use stun::fingerprint::FINGERPRINT;
use stun::integrity::MessageIntegrity;
use stun::message::*;
use stun::xoraddr::XorMappedAddress;

use super::*;

pub(super) fn credentials(name: &str) -> IceCredentials {
    IceCredentials { ufrag: format!("{name}Ufrag"), pwd: format!("{name}-password-of-22-chars") }
}

fn lite() -> IceLite {
    IceLite::new(credentials("server"), credentials("client"), OwnChecks::None)
}

pub(super) fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A check of the client at the server.
fn client_check() -> CheckBuilder {
    CheckBuilder::new(&credentials("client"), &credentials("server"))
}

/// The one datagram among the outputs.
pub(super) fn sent(out: &[IceOutput]) -> (SocketAddr, Message) {
    let mut all = out.iter().filter_map(|output| match output {
        IceOutput::Transmit { to, datagram } => {
            let mut message = Message::new();
            message.unmarshal_binary(datagram).unwrap();
            Some((*to, message))
        }
        _ => None,
    });
    let first = all.next().expect("a datagram is sent");
    assert!(all.next().is_none(), "only one is sent");
    first
}

fn error_code(message: &Message) -> u16 {
    let mut code = ErrorCodeAttribute::default();
    stun::message::Getter::get_from(&mut code, message).unwrap();
    code.code.0
}

/// A check as it is; its source has shown already that it receives.
fn repeat(lite: &mut IceLite, now: Instant, source: SocketAddr, check: &CheckBuilder) -> Vec<IceOutput> {
    let mut out = Vec::new();
    lite.handle(now, source, &check.bytes(), &mut out);
    lite.on_proof(now, source, &mut out);
    out
}

/// The same in a transaction of its own.
fn run(lite: &mut IceLite, now: Instant, source: SocketAddr, check: &CheckBuilder) -> Vec<IceOutput> {
    repeat(lite, now, source, &check.clone().transaction(fresh()))
}

/// A transaction id that no other check has.
pub(super) fn fresh() -> [u8; 12] {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    let mut id = [0; 12];
    id[4..].copy_from_slice(&NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed).to_be_bytes());
    id
}

fn refused(reason: DropReason) -> Vec<IceOutput> {
    vec![IceOutput::CheckRefused(reason)]
}

fn selections(out: &[IceOutput]) -> Vec<SocketAddr> {
    out.iter()
        .filter_map(|output| match output {
            IceOutput::Selected(address) => Some(*address),
            _ => None,
        })
        .collect()
}

#[test]
fn credentials_are_ice_chars_with_enough_randomness() {
    let (one, two) = (random_credentials(), random_credentials());
    assert_ne!(one, two);
    for text in [&one.ufrag, &one.pwd] {
        assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/'));
    }
    assert!(one.ufrag.len() >= 8);
    assert!(one.pwd.len() * 6 >= 128);
    assert!(!format!("{one:?}").contains(&one.pwd), "the password stays out of logs");
}

// STUN-04, STUN-13
#[test]
fn a_check_is_answered_with_the_mapped_address_under_our_password() {
    for (source, mapped) in [
        ("192.0.2.1:5000", "192.0.2.1:5000"),
        ("[2001:db8::1]:5000", "[2001:db8::1]:5000"),
        ("[::ffff:192.0.2.1]:5000", "192.0.2.1:5000"),
    ] {
        let source = address(source);
        let out = repeat(&mut lite(), Instant::now(), source, &client_check());
        let (to, mut response) = sent(&out);
        assert_eq!(to, source);
        assert_eq!(response.typ, BINDING_SUCCESS);
        assert_eq!(response.transaction_id.0, *b"transaction1");
        let mut xor = XorMappedAddress::default();
        stun::message::Getter::get_from(&mut xor, &response).unwrap();
        assert_eq!(SocketAddr::new(xor.ip, xor.port), address(mapped));
        FINGERPRINT.check(&response).unwrap();
        MessageIntegrity::new_short_term_integrity(credentials("server").pwd).check(&mut response).unwrap();
        assert_eq!(out[0], IceOutput::Validated(source));
        assert_eq!(out[2..], [IceOutput::Proven(source), IceOutput::Selected(source)]);
    }
}

// STUN-04: the sample request of RFC 5769 §2.1.
#[test]
fn the_sample_request_of_the_standard_is_answered() {
    let sample: &[u8] = &[
        0x00, 0x01, 0x00, 0x58, 0x21, 0x12, 0xa4, 0x42, 0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87,
        0xdf, 0xae, 0x80, 0x22, 0x00, 0x10, 0x53, 0x54, 0x55, 0x4e, 0x20, 0x74, 0x65, 0x73, 0x74, 0x20, 0x63, 0x6c,
        0x69, 0x65, 0x6e, 0x74, 0x00, 0x24, 0x00, 0x04, 0x6e, 0x00, 0x01, 0xff, 0x80, 0x29, 0x00, 0x08, 0x93, 0x2f,
        0xf9, 0xb1, 0x51, 0x26, 0x3b, 0x36, 0x00, 0x06, 0x00, 0x09, 0x65, 0x76, 0x74, 0x6a, 0x3a, 0x68, 0x36, 0x76,
        0x59, 0x20, 0x20, 0x20, 0x00, 0x08, 0x00, 0x14, 0x9a, 0xea, 0xa7, 0x0c, 0xbf, 0xd8, 0xcb, 0x56, 0x78, 0x1e,
        0xf2, 0xb5, 0xb2, 0xd3, 0xf2, 0x49, 0xc1, 0xb5, 0x71, 0xa2, 0x80, 0x28, 0x00, 0x04, 0xe5, 0x7a, 0x3b, 0xcf,
    ];
    assert!(is_request(sample));
    assert_eq!(peek_ufrag(sample), Some("evtj"));
    let local = IceCredentials { ufrag: "evtj".into(), pwd: "VOkJxbRl1RmTxUk/WvJxBt".into() };
    let remote = IceCredentials { ufrag: "h6vY".into(), pwd: String::new() };
    // The sample says ICE-CONTROLLED, which a lite side refuses, but only after it authenticated it.
    let mut out = Vec::new();
    IceLite::new(local, remote, OwnChecks::Beside).handle(Instant::now(), address("192.0.2.1:32853"), sample, &mut out);
    assert_eq!(error_code(&sent(&out).1), 487);
}

// STUN-03, STUN-05
#[test]
fn requests_without_proof_get_silence() {
    let source = address("192.0.2.1:5000");
    let wrong = |change: &dyn Fn(&mut CheckBuilder)| {
        let mut check = client_check();
        change(&mut check);
        check
    };
    let checks = [
        wrong(&|check| check.password = None),
        wrong(&|check| check.password = Some("another-password-of-22".into())),
        wrong(&|check| check.username = None),
        wrong(&|check| check.username = Some("serverUfrag".into())),
        wrong(&|check| check.username = Some("serverUfrag:".into())),
        wrong(&|check| check.username = Some("serverUfrag:another".into())),
        wrong(&|check| check.username = Some("otherUfrag:clientUfrag".into())),
        wrong(&|check| check.username = Some("serverUfrag:clientUfragX".into())),
    ];
    for check in checks {
        let mut lite = lite();
        assert_eq!(run(&mut lite, Instant::now(), source, &check), refused(DropReason::StunIntegrity));
        assert_eq!(lite.last_valid_check(), None);
        assert_eq!(lite.selected(), None);
    }
}

// STUN-01, STUN-02
#[test]
fn malformed_messages_are_dropped() {
    let source = address("192.0.2.1:5000");
    let good = client_check().bytes();
    let broken = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        bytes
    };
    let last = good.len() - 1;
    let cases = [
        broken(&|bytes| bytes[0] |= 0x80),
        broken(&|bytes| bytes[4] ^= 1),
        broken(&|bytes| bytes[3] += 4),
        broken(&|bytes| bytes[3] += 1),
        broken(&|bytes| bytes.extend([0; 4])),
        broken(&|bytes| bytes.truncate(19)),
        broken(&|bytes| bytes.clear()),
        broken(&|bytes| bytes[last] ^= 1),
        broken(&|bytes| bytes[1] = 0x03),
    ];
    for bytes in cases {
        let mut out = Vec::new();
        lite().handle(Instant::now(), source, &bytes, &mut out);
        assert_eq!(out, refused(DropReason::MalformedStun));
    }
    let mut early = client_check();
    early.late_attributes.push((ATTR_FINGERPRINT.0, vec![0; 4]));
    assert_eq!(run(&mut lite(), Instant::now(), source, &early), refused(DropReason::MalformedStun));
}

// STUN-02, STUN-07, STUN-12
#[test]
fn sparse_requests_of_simple_clients_are_answered() {
    let mut check = client_check().nominating().without(ATTR_PRIORITY).without(ATTR_ICE_CONTROLLING);
    check.fingerprint = false;
    let source = address("192.0.2.1:5000");
    let out = run(&mut lite(), Instant::now(), source, &check);
    assert_eq!(sent(&out).1.typ, BINDING_SUCCESS);
    assert_eq!(selections(&out), [source]);
}

// STUN-06
#[test]
fn unknown_attributes_that_must_be_understood_are_named_in_a_420() {
    let mut lite = lite();
    let source = address("192.0.2.1:5000");
    let check = client_check().nominating().with(0x7777, &[1, 2, 3]).with(0x0042, &[]);
    let out = run(&mut lite, Instant::now(), source, &check);
    let (_, mut response) = sent(&out);
    assert_eq!(out.len(), 1);
    assert_eq!(error_code(&response), 420);
    assert_eq!(response.get(ATTR_UNKNOWN_ATTRIBUTES).unwrap(), [0x77, 0x77, 0x00, 0x42]);
    MessageIntegrity::new_short_term_integrity(credentials("server").pwd).check(&mut response).unwrap();
    assert!(response.raw.len() <= check.bytes().len(), "an error is no amplifier");
    assert_eq!(lite.selected(), None);
}

// STUN-06, STUN-14
#[test]
fn optional_attributes_are_ignored() {
    let mut check = client_check();
    for typ in [0xC057, 0xC058, 0xC05B, 0xC060, 0xC070, 0xC071, 0x8022, 0xFFFF, 0x001C] {
        check = check.with(typ, &[1, 2, 3, 4]);
    }
    assert_eq!(sent(&run(&mut lite(), Instant::now(), address("192.0.2.1:5000"), &check)).1.typ, BINDING_SUCCESS);
}

// STUN-03: what the integrity does not cover does not count.
#[test]
fn attributes_after_the_integrity_are_ignored() {
    let source = address("192.0.2.1:5000");
    let mut lite = lite();
    let start = Instant::now();
    run(&mut lite, start, source, &client_check().nominating());
    let mut check = client_check();
    check.late_attributes = vec![(ATTR_USE_CANDIDATE.0, vec![]), (0x7777, vec![]), (ATTR_ICE_CONTROLLED.0, vec![0; 8])];
    let out = run(&mut lite, start + Duration::from_secs(1), address("192.0.2.9:5000"), &check);
    assert_eq!(sent(&out).1.typ, BINDING_SUCCESS);
    assert_eq!(selections(&out), []);
}

// STUN-09, ICE-03
#[test]
fn a_peer_that_does_not_control_is_told_to() {
    let check = client_check().nominating().without(ATTR_ICE_CONTROLLING).with(ATTR_ICE_CONTROLLED.0, &[0xff; 8]);
    let mut lite = lite();
    let out = run(&mut lite, Instant::now(), address("192.0.2.1:5000"), &check);
    assert_eq!(error_code(&sent(&out).1), 487);
    assert_eq!(lite.selected(), None);
}

// STUN-11
#[test]
fn an_indication_is_never_answered_and_counts_only_with_proof() {
    let mut lite = lite();
    let (start, source) = (Instant::now(), address("192.0.2.1:5000"));
    let mut check = client_check();
    check.typ = MessageType::new(METHOD_BINDING, CLASS_INDICATION);
    check.password = Some(credentials("server").pwd);
    assert_eq!(run(&mut lite, start, source, &check), []);
    assert_eq!(lite.last_valid_check(), None, "it proves no address, and from an unproven one nothing tells of life");
    assert_eq!(lite.selected(), None, "an indication validates no address");
    run(&mut lite, start, source, &client_check());
    let later = start + Duration::from_secs(1);
    check.password = None;
    assert_eq!(run(&mut lite, later, source, &check), []);
    assert_eq!(lite.last_valid_check(), Some(start));
    check.password = Some(credentials("server").pwd);
    assert_eq!(run(&mut lite, later, source, &check), []);
    assert_eq!(lite.last_valid_check(), Some(later));
}

// STUN-10 for a side that asks nothing
#[test]
fn responses_to_nothing_are_dropped() {
    for typ in [BINDING_SUCCESS, BINDING_ERROR] {
        let mut check = client_check();
        check.typ = typ;
        let out = run(&mut lite(), Instant::now(), address("192.0.2.1:5000"), &check);
        assert_eq!(out, refused(DropReason::MalformedStun));
        assert!(is_response(&check.bytes()) && !is_request(&check.bytes()));
    }
}

// STUN-15
#[test]
fn a_repeated_transaction_gets_the_same_answer() {
    let mut lite = lite();
    let (start, source) = (Instant::now(), address("192.0.2.1:5000"));
    let first = repeat(&mut lite, start, source, &client_check().nominating()).remove(1);
    assert!(matches!(first, IceOutput::Transmit { .. }));
    for n in 1..50 {
        let again = repeat(&mut lite, start + Duration::from_millis(n), source, &client_check().nominating());
        assert_eq!(again, std::slice::from_ref(&first));
    }
}

// ICE-09, ICE-10, ICE-14
#[test]
fn before_nomination_media_follows_the_latest_check() {
    let mut lite = lite();
    let start = Instant::now();
    let (one, two) = (address("192.0.2.1:5000"), address("198.51.100.1:6000"));
    assert_eq!(selections(&run(&mut lite, start, one, &client_check())), [one]);
    assert_eq!(selections(&run(&mut lite, start, two, &client_check())), [two]);
    assert_eq!(selections(&run(&mut lite, start, one, &client_check())), [one]);
    assert_eq!(lite.validated().collect::<Vec<_>>(), [one, two]);
    assert_eq!(
        selections(&run(&mut lite, start, two, &client_check().nominating())),
        [two],
        "the first nomination acts at once"
    );
    assert_eq!(selections(&run(&mut lite, start, one, &client_check())), [], "a plain check moves nothing any more");
}

// ICE-11, ICE-16
#[test]
fn the_latest_nomination_wins() {
    let mut lite = lite();
    let start = Instant::now();
    let (one, two) = (address("192.0.2.1:5000"), address("198.51.100.1:6000"));
    run(&mut lite, start, one, &client_check().nominating());
    run(&mut lite, start, two, &client_check());
    for n in 1..20 {
        let target = if n % 2 == 1 { two } else { one };
        let out = run(&mut lite, start + Duration::from_secs(n), target, &client_check().nominating());
        assert_eq!(selections(&out), [target]);
    }
}

// ICE-11
#[test]
fn an_aggressive_nominator_does_not_make_media_flip_and_the_last_one_wins() {
    let mut lite = lite();
    let start = Instant::now();
    let (one, two) = (address("192.0.2.1:5000"), address("198.51.100.1:6000"));
    let mut flips = 0;
    run(&mut lite, start, two, &client_check());
    for n in 0..40 {
        let target = if n % 2 == 0 { one } else { two };
        flips +=
            selections(&run(&mut lite, start + Duration::from_millis(n * 5), target, &client_check().nominating()))
                .len();
    }
    assert!(flips <= 3, "{flips}");
    let mut out = Vec::new();
    lite.tick(start + Duration::from_millis(400), &mut out);
    assert_eq!(lite.selected(), Some(two));
    let before = out.len();
    lite.tick(start + Duration::from_millis(900), &mut out);
    assert_eq!(out.len(), before, "and then it is quiet");
}

// ICE-19
#[test]
fn a_rebound_client_takes_its_media_along() {
    let mut lite = lite();
    let start = Instant::now();
    let (old, new) = (address("192.0.2.1:5000"), address("192.0.2.1:5999"));
    run(&mut lite, start, old, &client_check().nominating());
    let soon = start + Duration::from_millis(10);
    let out = run(&mut lite, soon, new, &client_check());
    assert!(out.contains(&IceOutput::Validated(new)));
    assert_eq!(selections(&out), [], "without a nomination the address is only validated");
    run(&mut lite, start + Duration::from_secs(6), old, &client_check());
    for (after, selected) in [(7, vec![]), (12, vec![]), (14, vec![new])] {
        let out = run(&mut lite, start + Duration::from_secs(after), new, &client_check());
        assert_eq!(selections(&out), selected, "once the nominated address is silent, {after} s");
    }
    let soon = start + Duration::from_secs(15);
    let newer = address("192.0.2.1:6001");
    assert_eq!(
        selections(&run(&mut lite, soon, newer, &client_check().nominating())),
        [newer],
        "a new address needs no delay"
    );
}

#[test]
fn a_peer_that_sprays_addresses_crowds_out_only_its_own() {
    let mut lite = lite();
    let start = Instant::now();
    let home = address("192.0.2.1:5000");
    run(&mut lite, start, home, &client_check().nominating());
    let mut forgotten = Vec::new();
    for n in 0..60_u16 {
        let source = SocketAddr::new(home.ip(), 10_000 + n);
        for output in run(&mut lite, start + Duration::from_millis(100 * u64::from(n)), source, &client_check()) {
            if let IceOutput::Forgotten(address) = output {
                forgotten.push(address.port());
            }
        }
    }
    assert_eq!(lite.validated().count(), 16);
    assert_eq!(lite.selected(), Some(home));
    assert_eq!(forgotten, (10_000..10_045).collect::<Vec<_>>(), "the oldest goes first, the selected one never");
}

#[test]
fn a_flood_is_cut_and_a_stranger_cannot_starve_the_peer() {
    let mut lite = lite();
    let start = Instant::now();
    let (peer, stranger) = (address("192.0.2.1:5000"), address("203.0.113.1:1"));
    run(&mut lite, start, peer, &client_check().nominating());
    let mut forged = client_check();
    forged.password = Some("another-password-of-22".into());
    let refusals = (0..300).map(|_| run(&mut lite, start, stranger, &forged)).collect::<Vec<_>>();
    assert_eq!(refusals.iter().filter(|out| **out == refused(DropReason::StunRate)).count(), 201);
    assert_eq!(sent(&run(&mut lite, start, peer, &client_check().nominating())).0, peer);
    let answered = (0..300).filter(|_| run(&mut lite, start, peer, &client_check().nominating()).len() == 1).count();
    assert_eq!(answered, 300);
    assert_eq!(run(&mut lite, start, peer, &client_check().nominating()), refused(DropReason::StunRate));
}

#[test]
fn the_username_fragment_is_found_without_parsing_the_rest() {
    assert_eq!(peek_ufrag(&client_check().bytes()), Some("serverUfrag"));
    let mut check = client_check();
    for (username, ufrag) in [("a:b:c", Some("a")), (":b", None), ("ab", None), ("", None)] {
        check.username = Some(username.into());
        assert_eq!(peek_ufrag(&check.bytes()), ufrag);
    }
    check.username = None;
    assert_eq!(peek_ufrag(&check.bytes()), None);
    check.typ = BINDING_SUCCESS;
    check.username = Some("a:b".into());
    assert_eq!(peek_ufrag(&check.bytes()), None);
    assert_eq!(transaction_id(&check.bytes()), Some(*b"transaction1"));
    assert_eq!(transaction_id(&[0; 19]), None);
}

fn mutate(random: &mut StdRng, bytes: &mut Vec<u8>) {
    for _ in 0..=random.random_range(0..4) {
        let at = random.random_range(0..=bytes.len());
        match random.random_range(0..5) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, random.random()),
            2 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
            3 if at < bytes.len() => bytes[at] = [0, 0xff, 0x7f, 0x80][random.random_range(0..4)],
            _ if at < bytes.len() => drop(bytes.remove(at)),
            _ => {}
        }
    }
}

// STUN-01
#[test]
fn mutated_checks_never_panic_nor_pass() {
    let mut random = StdRng::seed_from_u64(0x5eed_1ce0);
    let mut lite = lite();
    let mut now = Instant::now();
    let mut out = Vec::new();
    let seeds = [
        client_check().nominating().bytes(),
        client_check().with(0x7777, &[1; 7]).bytes(),
        CheckBuilder { password: None, fingerprint: false, ..client_check() }.bytes(),
        CheckBuilder { typ: BINDING_SUCCESS, ..client_check() }.bytes(),
    ];
    for round in 0..60_000_u32 {
        let mut bytes = seeds[random.random_range(0..seeds.len())].clone();
        mutate(&mut random, &mut bytes);
        if seeds.contains(&bytes) {
            continue;
        }
        now += Duration::from_millis(20);
        out.clear();
        let source = SocketAddr::from(([192, 0, 2, 1], 1 + (round % 50) as u16));
        lite.handle(now, source, &bytes, &mut out);
        let _ = (peek_ufrag(&bytes), is_request(&bytes), is_response(&bytes), transaction_id(&bytes));
        if out.iter().any(|output| matches!(output, IceOutput::Transmit { .. } | IceOutput::Validated(_))) {
            // Only what follows the integrity can be altered; the length is part of that (RFC 8489 §14.5).
            let whole = |seed: &Vec<u8>| bytes[4..].starts_with(&seed[4..seed.len() - 8]) && bytes[..2] == seed[..2];
            assert!(seeds[..2].iter().any(whole), "forged: {bytes:02x?}");
        }
    }
}

// STUN-01: content that is authenticated is not trusted either.
#[test]
fn authenticated_nonsense_never_panics() {
    let mut random = StdRng::seed_from_u64(0xbad_cafe);
    let mut lite = lite();
    let mut now = Instant::now();
    let mut out = Vec::new();
    for _ in 0..10_000 {
        let mut check = client_check();
        for _ in 0..random.random_range(0..30) {
            let typ = if random.random_range(0..2) == 0 {
                random.random_range(0..0x40)
            } else {
                random.random_range(0..0x10000)
            } as u16;
            if typ != ATTR_MESSAGE_INTEGRITY.0 && typ != ATTR_FINGERPRINT.0 {
                let value = vec![random.random(); random.random_range(0..30)];
                check = check.with(typ, &value);
            }
        }
        now += Duration::from_millis(20);
        out.clear();
        lite.handle(now, address("192.0.2.1:5000"), &check.transaction(fresh()).bytes(), &mut out);
        assert!(!out.is_empty());
    }
}

// ICE-05
#[test]
fn mutated_candidate_lines_never_panic() {
    let mut random = StdRng::seed_from_u64(0xca4d);
    let seed =
        b"a=candidate:1387637174 1 udp 2122260223 2001:db8::1 61764 typ host generation 0 ufrag EsAw network-id 1";
    for _ in 0..60_000 {
        let mut bytes = seed.to_vec();
        mutate(&mut random, &mut bytes);
        let line = String::from_utf8_lossy(&bytes);
        let _ = candidate_ufrag(&line);
        if let Some(candidate) = parse_candidate(&line) {
            assert!(candidate.address.port() != 0 && !candidate.address.ip().is_unspecified());
        }
    }
}
