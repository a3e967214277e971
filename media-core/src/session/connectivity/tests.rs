//! ICE restarts in virtual time: the client's checks in both generations, and what media follow.

use stun::agent::TransactionId;

use super::*;
use crate::ice::{CheckBuilder, answer_check, is_request, random_credentials};
use crate::media::Role;
use crate::spec::{DtlsParameters, IceCredentials, SessionLimits, StreamId};

const HOME: &str = "192.0.2.1:5000";
/// So many checks pay for their answers and for an own check.
const CHECKS: usize = 4;
const NEXT: &str = "198.51.100.7:6000";

/// The credentials of both ends in one generation.
#[derive(Clone)]
struct Ends {
    client: IceCredentials,
    server: IceCredentials,
}

impl Ends {
    fn new() -> Ends {
        Ends { client: random_credentials(), server: random_credentials() }
    }

    fn check(&self) -> CheckBuilder {
        CheckBuilder::new(&self.client, &self.server).transaction(TransactionId::new().0)
    }
}

struct Case {
    connectivity: Connectivity,
    now: Instant,
    first: Ends,
    selected: Option<SocketAddr>,
    /// Own checks of the server that wait for their answer.
    asked: Vec<(SocketAddr, Vec<u8>)>,
    responses: usize,
    refused: usize,
    forgotten: Vec<SocketAddr>,
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

impl Case {
    fn new(mode: IceMode) -> Case {
        let first = Ends::new();
        let spec = SessionSpec {
            id: SessionId(1),
            stream: StreamId(1),
            role: Role::Viewer,
            ice: IceParameters {
                mode,
                local: first.server.clone(),
                remote: first.client.clone(),
                remote_is_lite: false,
                remote_candidates: Vec::new(),
            },
            dtls: DtlsParameters { role: DtlsRole::Server, fingerprints: Vec::new() },
            sections: Vec::new(),
            refused: Vec::new(),
            certificate: crate::spec::Fingerprint { hash: crate::spec::FingerprintHash::Sha256, digest: vec![0; 32] },
            cname: String::new(),
            limits: SessionLimits::default(),
        };
        let (agents, _) = mpsc::channel(1);
        let connectivity = Connectivity::new(&spec, at("127.0.0.1:50000"), &agents, &CoreConfig::default());
        Case {
            connectivity,
            now: Instant::now(),
            first,
            selected: None,
            asked: Vec::new(),
            responses: 0,
            refused: 0,
            forgotten: Vec::new(),
        }
    }

    /// A client whose pair at [`HOME`] is nominated.
    fn connected() -> Case {
        let mut case = Case::new(IceMode::Lite);
        let first = case.first.clone();
        case.nominate(&first, HOME);
        assert_eq!(case.selected, Some(at(HOME)));
        case
    }

    fn restart(&mut self) -> Ends {
        let ends = Ends::new();
        assert_eq!(self.restart_with(&ends), None);
        ends
    }

    fn restart_with(&mut self, ends: &Ends) -> Option<GenerationOver> {
        let (local, remote) = (ends.server.clone(), ends.client.clone());
        self.connectivity.restart(self.now, IceRestart { local, remote, remote_candidates: Vec::new() })
    }

    fn deliver(&mut self, source: &str, datagram: &[u8]) {
        let mut out = Vec::new();
        self.connectivity.handle(self.now, at(source), datagram, &mut out);
        self.apply(out);
    }

    fn apply(&mut self, out: Vec<IceOutput>) {
        for output in out {
            match output {
                IceOutput::Transmit { to, datagram } if is_request(&datagram) => self.asked.push((to, datagram)),
                IceOutput::Transmit { .. } => self.responses += 1,
                IceOutput::Validated(remote) => self.connectivity.note_validated(TransportTuple::udp(remote, None)),
                IceOutput::Selected(remote) => self.selected = Some(remote),
                IceOutput::Forgotten(remote) => self.forgotten.push(remote),
                IceOutput::CheckRefused(_) => self.refused += 1,
                IceOutput::Proven(_) => {}
            }
        }
    }

    /// A check, its answer, and the client's answers to what the server asks.
    fn check(&mut self, ends: &Ends, source: &str, nominates: bool) {
        let check = if nominates { ends.check().nominating() } else { ends.check() };
        self.deliver(source, &check.bytes());
    }

    fn answer(&mut self, ends: &Ends) {
        for (to, request) in std::mem::take(&mut self.asked) {
            if let Some(answer) = answer_check(&ends.client, at("127.0.0.1:50000"), &request) {
                self.deliver(&to.to_string(), &answer);
            }
        }
    }

    /// Checks, as a client repeats them, until they have paid for one of the server's, which is answered.
    fn nominate(&mut self, ends: &Ends, source: &str) {
        self.check_often(ends, source, true);
    }

    fn check_often(&mut self, ends: &Ends, source: &str, nominates: bool) {
        for _ in 0..CHECKS {
            self.check(ends, source, nominates);
            self.pass(60);
            self.answer(ends);
        }
    }

    fn pass(&mut self, milliseconds: u64) -> Vec<GenerationOver> {
        let mut over = Vec::new();
        for _ in 0..milliseconds.div_ceil(20) {
            self.now += Duration::from_millis(20);
            let mut out = Vec::new();
            over.extend(self.connectivity.tick(self.now, &mut out));
            self.apply(out);
        }
        over
    }

    fn ufrags(&self) -> Vec<String> {
        self.connectivity.local_ufrags().map(str::to_owned).collect()
    }
}

// TRK-12, ICE-11
#[test]
fn media_stay_on_the_pair_before_until_one_is_nominated_with_the_new_credentials() {
    let mut case = Case::connected();
    let (first, second) = (case.first.clone(), case.restart());
    assert_eq!(case.ufrags(), [first.server.ufrag.clone(), second.server.ufrag.clone()]);

    // Both generations are answered, and only a nomination moves media.
    let before = case.responses;
    case.check(&first, HOME, true);
    case.check_often(&second, NEXT, false);
    assert_eq!(case.responses, before + 1 + CHECKS);
    assert!(case.connectivity.is_proven(at(NEXT)), "it has answered");
    assert_eq!((case.selected, case.connectivity.take_completed()), (Some(at(HOME)), None));

    case.pass(120);
    case.check(&second, NEXT, true);
    assert_eq!(case.selected, Some(at(NEXT)));
    let completed = case.connectivity.take_completed().expect("the restart is complete");
    assert_eq!((completed.address, completed.number), (at(NEXT), 1));
    assert_eq!(completed.local_ufrag, second.server.ufrag);
    assert!(completed.took >= Duration::from_millis(180), "{completed:?}");
    assert_eq!(case.refused, 0);
}

// TRK-12
#[test]
fn the_former_credentials_are_served_for_a_moment_after_a_restart_and_then_forgotten() {
    let mut case = Case::connected();
    let (first, second) = (case.first.clone(), case.restart());
    case.nominate(&second, NEXT);
    assert_eq!(case.selected, Some(at(NEXT)));
    assert!(case.pass(4_000).is_empty());

    // What the former ones still say is answered and selects nothing.
    let before = case.responses;
    case.check(&first, HOME, true);
    assert_eq!((case.responses, case.selected), (before + 1, Some(at(NEXT))));
    assert!(case.connectivity.is_proven(at(HOME)), "what is under way from there is taken");

    let over = case.pass(1_500);
    let expected = GenerationOver { local_ufrag: first.server.ufrag.clone(), addresses: vec![at(HOME)], failure: None };
    assert_eq!(over, [expected]);
    assert_eq!(case.ufrags(), std::slice::from_ref(&second.server.ufrag));
    assert!(!case.connectivity.is_known(at(HOME)));
}

// TRK-12, ICE-11
#[test]
fn a_restart_at_an_address_that_is_proven_asks_for_no_other_proof() {
    let mut case = Case::connected();
    let second = case.restart();
    case.check(&second, HOME, true);
    assert_eq!(case.selected, Some(at(HOME)));
    assert_eq!(case.connectivity.take_completed().map(|completed| completed.address), Some(at(HOME)));
    // The address belongs to the generation that is left, and is kept with it.
    let over = case.pass(5_100);
    assert_eq!(over.len(), 1);
    assert!(over[0].addresses.is_empty() && case.connectivity.is_proven(at(HOME)));
}

// ICE-11: a check proves a password, in a restart as well.
#[test]
fn a_restart_does_not_move_media_to_an_address_that_never_showed_that_it_receives() {
    let mut case = Case::connected();
    let second = case.restart();
    for _ in 0..20 {
        case.check(&second, NEXT, true);
        case.pass(100);
    }
    assert_eq!((case.selected, case.connectivity.take_completed()), (Some(at(HOME)), None));
    // Media alone is no proof where the peer is known to answer checks.
    let mut out = Vec::new();
    let now = case.now;
    case.connectivity.on_media(now, at(NEXT), 1_000, &mut out);
    case.apply(out);
    assert_eq!(case.selected, Some(at(HOME)));
    case.answer(&second);
    assert_eq!(case.selected, Some(at(NEXT)));
}

// TRK-13
#[test]
fn a_restart_without_a_nomination_is_given_up_and_leaves_everything_as_it_was() {
    let mut case = Case::connected();
    let (first, second) = (case.first.clone(), case.restart());
    case.check(&second, NEXT, false);
    // With another password.
    let forged =
        Ends { server: IceCredentials { pwd: first.server.pwd.clone(), ..second.server.clone() }, ..second.clone() };
    case.check(&forged, NEXT, true);
    assert_eq!(case.refused, 1);
    let over = case.pass(39_900);
    assert!(over.is_empty(), "{over:?}");
    let over = case.pass(200);
    assert_eq!(over.len(), 1);
    assert_eq!((&over[0].local_ufrag, &over[0].addresses), (&second.server.ufrag, &vec![at(NEXT)]));
    let failure = over[0].failure.as_deref().unwrap_or_default();
    assert!(failure.starts_with("no nominated pair within 40 s; 1 checks were refused"), "{failure}");

    assert_eq!((case.ufrags(), case.selected), (vec![first.server.ufrag.clone()], Some(at(HOME))));
    let before = case.responses;
    case.check(&first, HOME, true);
    assert_eq!(case.responses, before + 1);
}

// TRK-14
#[test]
fn a_restart_takes_the_place_of_one_that_is_pending_and_of_what_an_earlier_one_replaced() {
    let mut case = Case::connected();
    let (first, second, third) = (case.first.clone(), case.restart(), Ends::new());
    let over = case.restart_with(&third).expect("the second is over");
    assert_eq!((over.local_ufrag.as_str(), over.failure.is_some()), (second.server.ufrag.as_str(), true));
    case.check(&second, NEXT, true);
    assert_eq!((case.selected, case.refused), (Some(at(HOME)), 1));
    case.nominate(&third, NEXT);
    assert_eq!(case.connectivity.take_completed().map(|completed| completed.number), Some(2));

    let fourth = Ends::new();
    let over = case.restart_with(&fourth).expect("the first is over");
    assert_eq!((over.local_ufrag, over.failure), (first.server.ufrag, None));
    assert_eq!(case.ufrags(), [third.server.ufrag.clone(), fourth.server.ufrag.clone()]);
    assert_eq!(case.selected, Some(at(NEXT)));
}

#[test]
fn before_any_pair_is_selected_a_restart_needs_no_nomination() {
    let mut case = Case::new(IceMode::Lite);
    let second = case.restart();
    case.check_often(&second, NEXT, false);
    assert_eq!(case.selected, Some(at(NEXT)));
}

// H1: what came from an address pays for what is sent there once, though two generations know it.
#[test]
fn an_unproven_address_gets_no_more_than_it_sent_in_both_generations_together() {
    let mut case = Case::connected();
    let (first, second) = (case.first.clone(), case.restart());
    let mut received = 0;
    let mut out = Vec::new();
    let now = case.now;
    for ends in [&first, &second] {
        for _ in 0..3 {
            let check = ends.check().bytes();
            received += check.len();
            case.connectivity.handle(now, at(NEXT), &check, &mut out);
        }
    }
    let mut sent: usize = out
        .iter()
        .map(|output| match output {
            IceOutput::Transmit { to, datagram } if *to == at(NEXT) => datagram.len(),
            _ => 0,
        })
        .sum();
    let source = case.connectivity.dtls_source(at(NEXT), 100);
    received += 100;
    let room = source.room.expect("it is not proven");
    assert!(!case.connectivity.may_send(at(NEXT), room + 1));
    while case.connectivity.may_send(at(NEXT), 10) {
        sent += 10;
    }
    assert!(sent <= received, "{sent} for {received}");
}
