//! What goes to an address that has not shown that it receives, byte by byte over real sockets, and how peers that do move on.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use media_core::media::{Role, SendSsrcs};
use media_core::stats::DropReason;
use media_core::{CandidateKind, DtlsRole, IceMode, RemoteCandidate};

use crate::support::*;

/// An address that somebody forges: it is sent from, and what comes back is counted.
struct Victim {
    socket: UdpSocket,
    sent: usize,
    received: usize,
}

impl Victim {
    fn new() -> Victim {
        Victim { socket: socket(), sent: 0, received: 0 }
    }

    fn send(&mut self, peer: &Peer, datagram: &[u8]) {
        self.sent += self.socket.send_to(datagram, peer.server).unwrap();
    }

    /// Counts what has come, and checks that it was paid for.
    fn judge(&mut self) {
        let mut buffer = [0; 2048];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            self.received += length;
        }
        assert!(self.received <= self.sent, "{} bytes came, {} were sent", self.received, self.sent);
    }
}

fn watch(server: &Server, mode: IceMode) -> Peer {
    let ssrcs = Some(SendSsrcs { media: VIEWER_VIDEO, rtx: VIEWER_RTX });
    let mut viewer = server.open_with(mode, DtlsRole::Server, 0, 0, Role::Viewer, vec![video(ssrcs, true)]);
    viewer.connect();
    viewer
}

/// Streams video for a while, which the viewer reads.
fn stream(publisher: &mut Peer, viewer: &mut Peer, sequence: &mut u16, time: Duration) {
    let payload = [KEYFRAME, &[7; 900]].concat();
    let begun = Instant::now();
    while begun.elapsed() < time {
        publisher.video(*sequence, u32::from(*sequence) * 3_000, &payload);
        *sequence += 1;
        publisher.turn();
        viewer.turn();
    }
}

// H1
#[tokio::test]
async fn a_check_from_a_forged_source_takes_no_media_and_neither_does_its_replay() {
    for mode in [IceMode::Lite, IceMode::Full] {
        let server = Server::start(1);
        let mut viewer = watch(&server, mode);
        let mut publisher = server.publisher(0);
        let mut sequence = 0;
        stream(&mut publisher, &mut viewer, &mut sequence, Duration::from_millis(200));
        viewer.until("video comes", |viewer| !viewer.rtp.is_empty());
        let (mut victim, mut third) = (Victim::new(), Victim::new());
        let check = viewer.check_bytes(true);
        victim.send(&viewer, &check);
        stream(&mut publisher, &mut viewer, &mut sequence, Duration::from_millis(500));
        victim.judge();
        third.send(&viewer, &check);
        // Fresh ones, too, as who knows the password can make.
        for _ in 0..20 {
            victim.send(&viewer, &viewer.check_bytes(true));
            stream(&mut publisher, &mut viewer, &mut sequence, Duration::from_millis(50));
            victim.judge();
        }
        third.judge();
        assert_eq!(third.received, 0, "{mode:?}: a replay gets nothing");
        assert_eq!(server.dropped(0, DropReason::StunReplay).await, 1);
        let seen = viewer.rtp.len();
        viewer.until("video goes on where it went", |viewer| viewer.rtp.len() >= seen);
        assert!(seen > 30, "{mode:?}: {seen} packets");
        server.core.shutdown().await;
    }
}

// H1: the first address has to show it as well, by a cookie if it answers no check.
#[tokio::test]
async fn a_handshake_from_a_forged_source_gets_no_more_than_it_sent() {
    for mode in [IceMode::Lite, IceMode::Full] {
        let server = Server::start(1);
        let mut peer = server.open_with(mode, DtlsRole::Server, 0, 0, Role::Viewer, vec![video(None, false)]);
        let mut victim = Victim::new();
        victim.send(&peer, &peer.check_bytes(true));
        peer.dtls.start(Instant::now());
        let hello = peer.dtls.poll_transmit().unwrap();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(1_500) {
            victim.send(&peer, &hello);
            for _ in 0..10 {
                peer.turn();
            }
            victim.judge();
        }
        assert!(victim.received > 0, "{mode:?}: it is asked for a cookie");
        assert_eq!(server.counters(0).await.handshakes_completed, 0);
        server.core.shutdown().await;
    }
}

// H1: nor does the server's own ClientHello go out before.
#[tokio::test]
async fn a_passive_peer_at_a_forged_source_gets_no_client_hello() {
    for mode in [IceMode::Lite, IceMode::Full] {
        let server = Server::start(1);
        let peer = server.open_with(mode, DtlsRole::Client, 0, 0, Role::Publisher, vec![video(None, false)]);
        let mut victim = Victim::new();
        for _ in 0..10 {
            victim.send(&peer, &peer.check_bytes(true));
            std::thread::sleep(Duration::from_millis(50));
            victim.judge();
        }
        assert_eq!(server.core.snapshot().await[0].sessions[0].stats.remote_address, None);
        server.core.shutdown().await;
    }
}

// H1, ICE-19: what FFmpeg and the like need.
#[tokio::test]
async fn a_client_that_answers_no_checks_connects_by_a_cookie_and_moves_by_its_media() {
    let server = Server::start(1);
    let ssrcs = Some(SendSsrcs { media: VIEWER_VIDEO, rtx: VIEWER_RTX });
    let mut viewer = server.open_with(IceMode::Lite, DtlsRole::Server, 0, 0, Role::Viewer, vec![video(ssrcs, true)]);
    viewer.answers_checks = false;
    viewer.connect();
    let mut publisher = server.publisher(0);
    let mut sequence = 0;
    stream(&mut publisher, &mut viewer, &mut sequence, Duration::from_millis(100));
    viewer.until("video comes", |viewer| !viewer.rtp.is_empty());
    viewer.socket = socket();
    viewer.validate();
    let seen = viewer.rtp.len();
    viewer.rtcp(|writer| writer.pli(1, VIEWER_VIDEO).unwrap());
    let begun = Instant::now();
    while viewer.rtp.len() == seen {
        assert!(begun.elapsed() < PATIENCE, "no video comes to the new port");
        stream(&mut publisher, &mut viewer, &mut sequence, Duration::from_millis(10));
    }
    server.core.shutdown().await;
}

// H1, ICE-19: a client with two addresses, whose better pair becomes valid while it waits for the cookie.
#[tokio::test]
async fn a_client_that_moves_between_the_demand_of_a_cookie_and_its_answer_connects() {
    for mode in [IceMode::Lite, IceMode::Full] {
        let server = Server::start(1);
        let mut viewer = server.open_with(mode, DtlsRole::Server, 0, 0, Role::Viewer, vec![video(None, false)]);
        viewer.answers_checks = false;
        viewer.validate();
        viewer.dtls.start(Instant::now());
        let hello = viewer.dtls.poll_transmit().unwrap();
        viewer.send(&hello);
        let first = std::mem::replace(&mut viewer.socket, socket());
        viewer.validate();
        // The demand comes to the first address; what answers it leaves from the second one.
        let deadline = Instant::now() + PATIENCE;
        while viewer.keys.is_none() {
            assert!(Instant::now() < deadline, "{mode:?}: the handshake does not end");
            viewer.receive_at(&first);
            viewer.turn();
        }
        // A HelloVerifyRequest, the first message of its record.
        let is_demand = |datagram: &Vec<u8>| datagram[0] == 22 && datagram.get(13) == Some(&3);
        assert!(viewer.raw.iter().any(is_demand), "{mode:?}: a cookie was demanded");
        server.core.shutdown().await;
    }
}

// H1, ICE-19: long before the client's own next check, which may be seconds away.
#[tokio::test]
async fn a_peer_whose_port_changed_is_found_by_the_first_packet_that_it_sends() {
    for mode in [IceMode::Lite, IceMode::Full] {
        let server = Server::start(1);
        let mut viewer = watch(&server, mode);
        let mut publisher = server.publisher(0);
        let mut sequence = 0;
        stream(&mut publisher, &mut viewer, &mut sequence, Duration::from_millis(100));
        viewer.rtcp(|writer| writer.receiver_report(1, &[]).unwrap());
        viewer.until("video comes", |viewer| !viewer.rtp.is_empty());
        for moves_viewer in [true, false] {
            let seen = viewer.rtp.len();
            if moves_viewer {
                viewer.socket = socket();
                viewer.rtcp(|writer| writer.receiver_report(1, &[]).unwrap());
            } else {
                publisher.socket = socket();
            }
            let begun = Instant::now();
            while viewer.rtp.len() < seen + 10 {
                assert!(begun.elapsed() < PATIENCE, "{mode:?}: video does not go on");
                stream(&mut publisher, &mut viewer, &mut sequence, Duration::from_millis(10));
            }
        }
        server.core.shutdown().await;
    }
}

// H1: whoever knows the password of one session takes no address from another by naming it.
#[tokio::test]
async fn a_forged_source_takes_no_address_from_another_session() {
    let server = Server::start(1);
    let mut viewer = server.viewer(0, 0, true);
    let intruder = server.open(0, 7, Role::Viewer, vec![video(None, false)]);
    // Longer than an address is kept for a session that is silent there.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(2_500) {
        viewer.send(&intruder.check_bytes(true));
        std::thread::sleep(Duration::from_millis(100));
    }
    let mut publisher = server.publisher(0);
    publisher.video(0, 0, KEYFRAME);
    viewer.until("video comes", |viewer| !viewer.rtp.is_empty());
    viewer.rtcp(|writer| writer.pli(1, VIEWER_VIDEO).unwrap());
    publisher.until("the viewer's request arrives", |publisher| publisher.plis() > 0);
    server.core.shutdown().await;
}

// H4: what a full agent sends to addresses of its peer's choice.
#[tokio::test]
async fn one_offer_makes_a_few_checks_to_addresses_that_never_answered() {
    let server = Server::start(1);
    let victims: Vec<UdpSocket> = (0..10).map(|_| socket()).collect();
    let mut spec = server.spec(IceMode::Full, DtlsRole::Server, 0, Role::Viewer, vec![video(None, false)]);
    spec.ice.remote_candidates = victims
        .iter()
        .enumerate()
        .map(|(index, victim)| RemoteCandidate {
            address: victim.local_addr().unwrap(),
            priority: 1_000 + index as u32,
            foundation: "1".into(),
            kind: CandidateKind::Host,
        })
        .collect();
    server.core.open(0, spec);
    let begun = Instant::now();
    let mut received = [0; 10];
    while begun.elapsed() < Duration::from_secs(2) {
        for (victim, received) in victims.iter().zip(&mut received) {
            *received += usize::from(victim.recv(&mut [0; 2048]).is_ok());
        }
    }
    assert!(received.iter().sum::<usize>() > 0, "the way through a NAT is opened");
    assert!(received.iter().all(|&count| count <= 2) && received.iter().sum::<usize>() <= 8, "{received:?}");
    assert!(server.counters(0).await.unproven_withheld > 10);
    server.core.shutdown().await;
}
