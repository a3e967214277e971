//! The full agent against the other implementations, in memory and in real time.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use stun::attributes::*;
use stun::error_code::ErrorCodeAttribute;
use stun::message::Getter;
use tokio::sync::mpsc;

use super::super::*;
use super::{address, client_check, credentials, sent};
use crate::spec::{CandidateKind, IceMode, IceParameters, RemoteCandidate, SessionId};

fn candidate(text: &str) -> RemoteCandidate {
    RemoteCandidate {
        address: address(text),
        priority: host_priority(0, false),
        foundation: "1".into(),
        kind: CandidateKind::Host,
    }
}

fn options() -> AgentOptions {
    AgentOptions { check_interval: Duration::from_millis(20), ..AgentOptions::default() }
}

/// Several sides, each at its address, and a network that carries datagrams between them.
struct Network {
    sides: HashMap<SocketAddr, Ice>,
    names: HashMap<SessionId, SocketAddr>,
    sender: mpsc::Sender<AgentTransmit>,
    wire: mpsc::Receiver<AgentTransmit>,
    log: Vec<(SocketAddr, IceOutput)>,
}

impl Network {
    fn new() -> Network {
        let (sender, wire) = mpsc::channel(256);
        Network { sides: HashMap::new(), names: HashMap::new(), sender, wire, log: Vec::new() }
    }

    fn start(&self, at: &str, role: AgentRole, local: &str, remote: &str, peers: &[&str]) -> AgentStart {
        AgentStart {
            owner: SessionId(u64::from(address(at).port())),
            role,
            local: credentials(local),
            remote: credentials(remote),
            remote_candidates: peers.iter().map(|peer| candidate(peer)).collect(),
            local_address: address(at),
            transmit: self.sender.clone(),
            options: options(),
        }
    }

    fn full(&mut self, at: &str, role: AgentRole, local: &str, remote: &str, peers: &[&str]) {
        let start = self.start(at, role, local, remote, peers);
        self.names.insert(start.owner, start.local_address);
        self.sides.insert(address(at), Ice::Full(Box::new(FullAgent::start(start))));
    }

    fn lite(&mut self, at: &str, local: &str, remote: &str) {
        self.sides.insert(
            address(at),
            Ice::Lite(Box::new(IceLite::new(credentials(local), credentials(remote), OwnChecks::Beside))),
        );
    }

    fn deliver(&mut self, from: SocketAddr, to: SocketAddr, datagram: &[u8]) {
        let mut queue = vec![(from, to, datagram.to_vec())];
        while let Some((from, to, datagram)) = queue.pop() {
            let Some(side) = self.sides.get_mut(&to) else { continue };
            let mut out = Vec::new();
            side.handle(Instant::now(), from, &datagram, &mut out);
            for output in out {
                if let IceOutput::Transmit { to: target, datagram } = &output {
                    queue.push((to, *target, datagram.clone()));
                }
                self.log.push((to, output));
            }
        }
    }

    /// Runs until `done` or 5 s passed.
    async fn until(&mut self, done: impl Fn(&Network) -> bool) -> bool {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
        while !done(self) {
            let Ok(Some(transmit)) = tokio::time::timeout_at(deadline, self.wire.recv()).await else { return false };
            let from = self.names[&transmit.owner];
            self.deliver(from, transmit.to, &transmit.datagram);
        }
        true
    }

    fn selected(&self, at: &str) -> Option<SocketAddr> {
        self.sides[&address(at)].selected()
    }
}

const ONE: &str = "127.0.0.1:5001";
const TWO: &str = "127.0.0.1:5002";

#[tokio::test]
async fn two_full_agents_connect() {
    let mut network = Network::new();
    network.full(ONE, AgentRole::Controlling, "client", "server", &[TWO]);
    network.full(TWO, AgentRole::Controlled, "server", "client", &[ONE]);
    let nominated = network
        .until(|network| network.selected(ONE) == Some(address(TWO)) && network.selected(TWO) == Some(address(ONE)))
        .await;
    assert!(nominated, "{:?}", network.log);
    assert!(network.log.iter().all(|(_, output)| !matches!(output, IceOutput::CheckRefused(_))), "{:?}", network.log);
}

// ICE-03, ICE-13
#[tokio::test]
async fn a_controlling_agent_connects_to_a_lite_side() {
    let mut network = Network::new();
    network.lite(TWO, "server", "client");
    network.full(ONE, AgentRole::Controlling, "client", "server", &[TWO]);
    assert!(network.until(|network| network.selected(ONE).is_some() && network.selected(TWO).is_some()).await);
    assert_eq!(network.selected(ONE), Some(address(TWO)));
    assert_eq!(network.sides[&address(TWO)].selected(), Some(address(ONE)));
}

// ICE-03
#[tokio::test]
async fn the_servers_role_follows_from_what_the_client_is() {
    for (mode, remote_is_lite, asks_first) in
        [(IceMode::Full, true, true), (IceMode::Full, false, true), (IceMode::Lite, false, false)]
    {
        let mut network = Network::new();
        let parameters = IceParameters {
            mode,
            local: credentials("server"),
            remote: credentials("client"),
            remote_is_lite,
            remote_candidates: Vec::new(),
        };
        let options = AgentOptions::default();
        let mut ice = Ice::start(&parameters, SessionId(1), address(TWO), &network.sender, options);
        ice.add_remote_candidate(candidate(ONE));
        let wait = Duration::from_secs(if asks_first { 5 } else { 0 });
        let request = tokio::time::timeout(wait, network.wire.recv()).await.ok().flatten();
        let Some(request) = request else {
            assert!(!asks_first);
            continue;
        };
        let mut message = stun::message::Message::new();
        message.unmarshal_binary(&request.datagram).unwrap();
        assert_eq!(message.contains(ATTR_ICE_CONTROLLING), remote_is_lite);
        assert_eq!(message.contains(ATTR_ICE_CONTROLLED), !remote_is_lite);
    }
}

// ICE-06, ICE-14: no candidates are known, as with a client that only gives mDNS names.
#[tokio::test]
async fn an_agent_without_candidates_finds_its_peer_by_the_peers_checks() {
    let mut network = Network::new();
    network.full(TWO, AgentRole::Controlled, "server", "client", &[]);
    network.full(ONE, AgentRole::Controlling, "client", "server", &[TWO]);
    assert!(network.until(|network| network.selected(ONE).is_some() && network.selected(TWO).is_some()).await);
}

// ICE-21
#[tokio::test]
async fn agents_connect_over_ipv6_and_over_a_dual_stack_socket() {
    let mut network = Network::new();
    let (one, two) = ("[::1]:5001", "[::1]:5002");
    network.full(one, AgentRole::Controlling, "client", "server", &[two]);
    network.full(two, AgentRole::Controlled, "server", "client", &[]);
    assert!(network.until(|network| network.selected(one).is_some() && network.selected(two).is_some()).await);

    // The server's socket is an IPv6 one that serves both families: it shows and takes mapped addresses.
    let mut network = Network::new();
    let start = network.start("[::]:5002", AgentRole::Controlled, "server", "client", &[]);
    let mut agent = FullAgent::start(start);
    let mapped = address("[::ffff:192.0.2.7]:7000");
    let mut out = Vec::new();
    agent.handle(Instant::now(), mapped, &client_check().nominating().bytes(), &mut out);
    assert_eq!(out, [IceOutput::Validated(mapped)]);
    let transmit = tokio::time::timeout(Duration::from_secs(5), network.wire.recv()).await.unwrap().unwrap();
    assert_eq!(transmit.to, mapped);
}

// ICE-19, ICE-12: the agent itself would stay with the first pair for ever.
#[tokio::test]
async fn a_nomination_from_a_new_address_moves_media_and_is_answered() {
    let mut network = Network::new();
    let start = network.start(TWO, AgentRole::Controlled, "server", "client", &[]);
    let mut agent = FullAgent::start(start);
    for (n, source) in [ONE, "127.0.0.1:6001", "127.0.0.1:6002"].iter().enumerate() {
        let source = address(source);
        let mut check = client_check().nominating();
        check.id = [n as u8; 12];
        let mut out = Vec::new();
        agent.handle(Instant::now(), source, &check.bytes(), &mut out);
        assert_eq!(out, [IceOutput::Validated(source)]);
        out.clear();
        agent.checks.valid.prove(Instant::now(), source, &mut out);
        assert_eq!(out, [IceOutput::Proven(source), IceOutput::Selected(source)]);
        loop {
            let transmit = tokio::time::timeout(Duration::from_secs(5), network.wire.recv()).await.unwrap().unwrap();
            if is_response(&transmit.datagram) && transmission_answers(&transmit, check.id) {
                assert_eq!(transmit.to, source);
                break;
            }
        }
    }
}

fn transmission_answers(transmit: &AgentTransmit, id: [u8; 12]) -> bool {
    transmit.transaction.is_none() && transaction_id(&transmit.datagram) == Some(id)
}

// ICE-09: forged requests reach neither the agent nor the table.
#[tokio::test]
async fn the_agent_sees_nothing_that_is_not_authenticated() {
    let network = Network::new();
    let mut agent = FullAgent::start(network.start(TWO, AgentRole::Controlled, "other", "client", &[]));
    let mut out = Vec::new();
    agent.handle(Instant::now(), address(ONE), &client_check().nominating().bytes(), &mut out);
    assert_eq!(out, [IceOutput::CheckRefused(DropReason::StunIntegrity)]);
    assert_eq!((agent.selected(), agent.last_valid_check()), (None, None));
}

// STUN-09, STUN-06
#[tokio::test]
async fn role_conflicts_and_unknown_attributes_are_answered() {
    let network = Network::new();
    let code = |out: &[IceOutput]| {
        let mut code = ErrorCodeAttribute::default();
        code.get_from(&sent(out).1).unwrap();
        code.code.0
    };
    let controlled = client_check().nominating().with(ATTR_ICE_CONTROLLED.0, &[1; 8]);
    for (role, check, expected) in [
        (AgentRole::Controlled, controlled, 487),
        (AgentRole::Controlling, client_check().nominating(), 487),
        (AgentRole::Controlled, client_check().nominating().with(0x7777, &[]), 420),
    ] {
        let mut agent = FullAgent::start(network.start(TWO, role, "server", "client", &[]));
        let mut out = Vec::new();
        agent.handle(Instant::now(), address(ONE), &check.bytes(), &mut out);
        assert_eq!(code(&out), expected);
        assert_eq!(agent.selected(), None);
    }
}

// STUN-10
#[tokio::test]
async fn a_response_counts_only_from_where_the_request_went() {
    let mut network = Network::new();
    let start = network.start(ONE, AgentRole::Controlling, "client", "server", &[TWO]);
    let mut agent = FullAgent::start(start);
    let mut lite = IceLite::new(credentials("server"), credentials("client"), OwnChecks::None);
    let request = network.wire.recv().await.unwrap();
    let id = request.transaction.unwrap();
    assert!(agent.owns_transaction(id, Instant::now()));
    let mut out = Vec::new();
    lite.handle(Instant::now(), address(ONE), &request.datagram, &mut out);
    let IceOutput::Transmit { datagram, .. } = &out[1] else { panic!("{out:?}") };
    let mut seen = Vec::new();
    agent.handle(Instant::now(), address("127.0.0.1:6666"), datagram, &mut seen);
    assert_eq!(seen, [IceOutput::CheckRefused(DropReason::MalformedStun)]);
    seen.clear();
    agent.handle(Instant::now(), address(TWO), datagram, &mut seen);
    let proven = |at| [IceOutput::Validated(at), IceOutput::Proven(at), IceOutput::Selected(at)];
    assert_eq!(seen, proven(address(TWO)));
    assert!(!agent.owns_transaction(id, Instant::now()));
    seen.clear();
    agent.handle(Instant::now(), address(TWO), datagram, &mut seen);
    assert_eq!(seen, [IceOutput::CheckRefused(DropReason::MalformedStun)], "a response counts once");
}

// ICE-07
#[tokio::test]
async fn forbidden_and_surplus_candidates_get_no_checks() {
    let mut network = Network::new();
    let mut start = network.start("192.0.2.1:5001", AgentRole::Controlling, "client", "server", &[]);
    start.remote_candidates = ["127.0.0.1:2222", "198.51.100.1:22", "239.0.0.1:9000"].map(candidate).into();
    start.remote_candidates.extend((0..40).map(|n| candidate(&format!("198.51.100.2:{}", 9000 + n))));
    let _agent = FullAgent::start(start);
    let mut targets = std::collections::HashSet::new();
    let end = tokio::time::Instant::now() + Duration::from_millis(300);
    while let Ok(Some(transmit)) = tokio::time::timeout_at(end, network.wire.recv()).await {
        targets.insert(transmit.to);
    }
    assert_eq!(targets.len(), 10);
    assert!(targets.iter().all(|target| target.ip() == address("198.51.100.2:1").ip()));
}

// ICE-17
#[tokio::test]
async fn a_closed_agent_falls_silent_and_leaves_no_task() {
    let before = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let mut network = Network::new();
    network.full(ONE, AgentRole::Controlling, "client", "server", &[TWO]);
    network.full(TWO, AgentRole::Controlled, "server", "client", &[ONE]);
    assert!(network.until(|network| network.selected(ONE).is_some() && network.selected(TWO).is_some()).await);
    for (_, side) in network.sides.drain() {
        if let Ice::Full(agent) = side {
            drop(agent);
        }
    }
    let Network { sender, mut wire, .. } = network;
    drop(sender);
    // The queue ends when the last agent drops its connection.
    let ended = tokio::time::timeout(Duration::from_secs(5), async { while wire.recv().await.is_some() {} }).await;
    assert!(ended.is_ok());
    let idle = tokio::time::timeout(Duration::from_secs(5), async {
        while tokio::runtime::Handle::current().metrics().num_alive_tasks() > before {
            tokio::task::yield_now().await;
        }
    });
    assert!(idle.await.is_ok());
}
