//! Addresses that have not shown that they receive: what they get, and what they change.

use std::collections::HashMap;

use super::*;

const HOME: &str = "192.0.2.1:5000";
const VICTIM: &str = "203.0.113.9:7777";
const THIRD: &str = "198.51.100.7:8888";

/// A lite side, its client, and what went to each address and came from it.
struct Case {
    lite: IceLite,
    now: Instant,
    /// Bytes received from an address, and sent to it.
    bytes: HashMap<SocketAddr, (usize, usize)>,
    selected: Vec<SocketAddr>,
    proven: Vec<SocketAddr>,
    /// Own checks that were sent, by address.
    asked: Vec<(SocketAddr, Vec<u8>)>,
    responses: usize,
}

impl Case {
    fn new(own_checks: OwnChecks) -> Case {
        Case {
            lite: IceLite::new(credentials("server"), credentials("client"), own_checks),
            now: Instant::now(),
            bytes: HashMap::new(),
            selected: Vec::new(),
            proven: Vec::new(),
            asked: Vec::new(),
            responses: 0,
        }
    }

    /// A client that is connected at [`HOME`] and has answered a check there.
    fn connected() -> Case {
        let mut case = Case::new(OwnChecks::Beside);
        case.check(HOME, &client_check().nominating());
        case.check(HOME, &client_check().nominating());
        case.pass(500);
        case.check(HOME, &client_check().nominating());
        case.answer(HOME);
        assert_eq!(case.selected, [address(HOME)]);
        case
    }

    fn deliver(&mut self, source: &str, datagram: &[u8]) {
        let source = address(source);
        self.bytes.entry(source).or_default().0 += datagram.len();
        let mut out = Vec::new();
        self.lite.handle(self.now, source, datagram, &mut out);
        self.apply(out);
    }

    fn apply(&mut self, out: Vec<IceOutput>) {
        for output in out {
            match output {
                IceOutput::Transmit { to, datagram } => {
                    self.bytes.entry(to).or_default().1 += datagram.len();
                    if is_request(&datagram) {
                        self.asked.push((to, datagram));
                    } else {
                        self.responses += 1;
                    }
                }
                IceOutput::Selected(at) => self.selected.push(at),
                IceOutput::Proven(at) => self.proven.push(at),
                _ => {}
            }
        }
    }

    /// A fresh check of the client from `source`.
    fn check(&mut self, source: &str, check: &CheckBuilder) -> Vec<u8> {
        let bytes = check.clone().transaction(fresh()).bytes();
        self.deliver(source, &bytes);
        bytes
    }

    /// The client answers the last own check that was sent to `at`.
    fn answer(&mut self, at: &str) {
        let asked = self.asked.iter().rev().find(|(to, _)| *to == address(at)).expect("it was asked").1.clone();
        let answer =
            answer_check(&credentials("client"), address(TARGET), &asked).expect("the check is for the client");
        self.deliver(at, &answer);
    }

    /// Authentic media of `length` bytes from `source`.
    fn media(&mut self, source: &str, length: usize) {
        let source = address(source);
        self.bytes.entry(source).or_default().0 += length;
        let mut out = Vec::new();
        self.lite.checks.on_media(self.now, source, length, &mut out);
        self.apply(out);
    }

    fn pass(&mut self, ms: u64) {
        for _ in 0..ms / 100 {
            self.now += Duration::from_millis(100);
            let mut out = Vec::new();
            self.lite.tick(self.now, &mut out);
            self.apply(out);
        }
    }

    fn bytes(&self, at: &str) -> (usize, usize) {
        self.bytes.get(&address(at)).copied().unwrap_or_default()
    }
}

/// The server, as the client sees it.
const TARGET: &str = "192.0.2.200:50000";

// H1
#[test]
fn a_forged_source_gets_no_more_than_it_sent_and_moves_nothing() {
    let mut case = Case::connected();
    for round in 0..200 {
        let check = client_check();
        case.check(VICTIM, &if round % 3 == 0 { check } else { check.nominating() });
        let (received, sent) = case.bytes(VICTIM);
        assert!(sent <= received, "{sent} of {received} bytes");
        case.pass(300);
    }
    let (_, sent) = case.bytes(VICTIM);
    assert!(sent > 0, "it is answered");
    assert_eq!(case.selected, [address(HOME)]);
    assert!(case.asked.iter().filter(|(to, _)| *to == address(VICTIM)).count() <= 8);
}

// H1
#[test]
fn a_replayed_check_gets_nothing_and_changes_nothing() {
    let mut case = Case::connected();
    let captured = case.check(HOME, &client_check().nominating());
    let validated = case.lite.validated().count();
    let (alive, answered) = (case.lite.last_valid_check(), case.responses);
    case.pass(1_000);
    for source in [VICTIM, THIRD] {
        case.deliver(source, &captured);
        assert_eq!(case.bytes(source).1, 0);
    }
    assert_eq!((case.lite.validated().count(), case.lite.last_valid_check()), (validated, alive));
    case.deliver(HOME, &captured);
    assert_eq!(case.responses, answered + 1, "a retransmission is answered");
    assert_eq!(case.lite.last_valid_check(), alive, "and tells of no life");
    assert_eq!(case.selected, [address(HOME)]);
}

// H1: a captured nomination of one's own other address, too.
#[test]
fn a_repeated_nomination_nominates_nothing() {
    let mut case = Case::connected();
    let captured = case.check(HOME, &client_check().nominating());
    case.check(THIRD, &client_check().nominating());
    let mut out = Vec::new();
    case.lite.on_proof(case.now, address(THIRD), &mut out);
    case.apply(out);
    assert_eq!(case.lite.selected(), Some(address(THIRD)));
    case.pass(1_000);
    case.deliver(HOME, &captured);
    case.pass(1_000);
    assert_eq!(case.lite.selected(), Some(address(THIRD)));
}

// H1, ICE-19
#[test]
fn media_follows_a_nomination_as_soon_as_its_address_has_answered() {
    let mut case = Case::connected();
    case.check(THIRD, &client_check().nominating());
    assert_eq!(case.lite.selected(), Some(address(HOME)));
    // It pays for an own check in place of its answer, which follows.
    let answered = case.responses;
    case.answer(THIRD);
    assert_eq!(case.lite.selected(), Some(address(THIRD)));
    assert_eq!(case.responses, answered + 1);
}

// H1
#[test]
fn a_late_proof_does_not_undo_a_later_nomination() {
    let mut case = Case::connected();
    for source in [VICTIM, THIRD] {
        case.check(source, &client_check().nominating());
        case.pass(200);
    }
    for source in [THIRD, VICTIM] {
        let mut out = Vec::new();
        case.lite.on_proof(case.now, address(source), &mut out);
        case.apply(out);
        case.pass(200);
    }
    assert_eq!(case.lite.selected(), Some(address(THIRD)));
}

// H1
#[test]
fn an_answer_counts_only_from_where_the_peer_was_asked_and_only_with_its_password() {
    let mut case = Case::connected();
    (0..6).for_each(|_| drop(case.check(VICTIM, &client_check().nominating())));
    let asked = case.asked.last().unwrap().1.clone();
    let genuine = answer_check(&credentials("client"), address(TARGET), &asked).unwrap();
    case.deliver(THIRD, &genuine);
    let mut forged = genuine.clone();
    let middle = forged.len() - 20;
    forged[middle] ^= 1;
    case.deliver(VICTIM, &forged);
    assert_eq!(case.proven, [address(HOME)]);
    case.deliver(VICTIM, &genuine);
    assert_eq!(case.proven, [address(HOME), address(VICTIM)]);
}

// H1
#[test]
fn only_proven_addresses_tell_of_life() {
    let mut case = Case::connected();
    let alive = case.lite.last_valid_check();
    case.pass(5_000);
    (0..10).for_each(|_| drop(case.check(VICTIM, &client_check().nominating())));
    assert_eq!(case.lite.last_valid_check(), alive);
    case.check(HOME, &client_check());
    assert_eq!(case.lite.last_valid_check(), Some(case.now));
}

// H1: a viewer behind a NAT that gave it another port, before its next check.
#[test]
fn media_from_a_new_port_is_asked_at_once_and_the_answer_moves_the_rest() {
    let mut case = Case::connected();
    case.media(THIRD, 44);
    assert_eq!(case.lite.selected(), Some(address(HOME)));
    assert_eq!(case.asked.last().unwrap().0, address(THIRD), "authentic media pays for an own check");
    assert!(!case.lite.validated().any(|valid| valid == address(THIRD)), "and for nothing else");
    case.answer(THIRD);
    assert_eq!(case.lite.selected(), Some(address(THIRD)));
}

// H1: a peer may know how to forge the source of its own media.
#[test]
fn media_alone_proves_nothing_for_a_peer_that_answers_checks() {
    let mut case = Case::connected();
    for _ in 0..50 {
        case.check(VICTIM, &client_check().nominating());
        case.media(VICTIM, 60);
        case.pass(500);
    }
    assert_eq!(case.selected, [address(HOME)]);
    let (received, sent) = case.bytes(VICTIM);
    assert!(sent <= received + 8 * 112, "at most eight own checks beyond: {sent} of {received} bytes");
}

// H1: the simplest clients.
#[test]
fn a_peer_that_answers_no_checks_moves_by_a_check_and_its_media() {
    let mut case = Case::new(OwnChecks::Beside);
    case.check(HOME, &client_check().nominating());
    let mut out = Vec::new();
    case.lite.on_proof(case.now, address(HOME), &mut out);
    case.apply(out);
    case.check(THIRD, &client_check());
    case.media(THIRD, 60);
    assert_eq!(case.lite.selected(), Some(address(HOME)), "it nominated nothing");
    case.pass(500);
    case.check(VICTIM, &client_check().nominating());
    assert_eq!(case.lite.selected(), Some(address(HOME)));
    case.media(VICTIM, 60);
    assert_eq!(case.lite.selected(), Some(address(VICTIM)));
}

// H1: it says nothing more once it has its answer, as it awaits the server's ClientHello.
#[test]
fn a_passive_peer_is_asked_before_it_is_answered() {
    let mut case = Case::new(OwnChecks::First);
    let simple = client_check().nominating().without(ATTR_PRIORITY).without(ATTR_ICE_CONTROLLING);
    let mut checks = 0;
    while case.responses == 0 {
        case.deliver(HOME, &simple.bytes());
        case.pass(100);
        checks += 1;
        assert!(checks < 5 && (case.responses == 0 || !case.asked.is_empty()));
        let (received, sent) = case.bytes(HOME);
        assert!(sent <= received);
    }
    case.answer(HOME);
    assert_eq!(case.selected, [address(HOME)]);
}

// H1
#[test]
fn forged_addresses_crowd_out_each_other_and_not_those_that_are_in_use() {
    let mut case = Case::connected();
    case.check(THIRD, &client_check());
    let mut out = Vec::new();
    case.lite.on_proof(case.now, address(THIRD), &mut out);
    for n in 0..100_u16 {
        case.pass(100);
        case.check(&format!("203.0.113.9:{}", 10_000 + n), &client_check().nominating());
    }
    let valid: Vec<_> = case.lite.validated().collect();
    assert_eq!(valid.len(), 16);
    assert!(valid.contains(&address(HOME)) && valid.contains(&address(THIRD)), "{valid:?}");
}
