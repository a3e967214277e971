//! Peers that reach the server by TCP alone: RFC 6544 connections to the media ports, and those of another listener.

use std::io::Write;
use std::net::TcpStream;
use std::time::Instant;

use media_core::internals::net::QUEUE;
use media_core::internals::net::framing::prefix;
use media_core::internals::rtp::HeaderFields;
use media_core::media::{Role, SendSsrcs};
use media_core::stats::{ConnectionEnd, DropReason, SessionStats};
use media_core::{CoreConfig, DtlsRole, IceMode, Protocol};

use crate::support::*;

/// A viewer's session, over TCP from its first check on.
fn watch_over_tcp(server: &Server, mode: IceMode, dtls_role: DtlsRole) -> Peer {
    let ssrcs = Some(SendSsrcs { media: VIEWER_VIDEO, rtx: VIEWER_RTX });
    let viewer = server.open_with(mode, dtls_role, 0, 0, Role::Viewer, vec![video(ssrcs, true)]);
    server.connected(viewer.over_tcp())
}

async fn stats(server: &Server, peer: &Peer) -> SessionStats {
    let shards = server.core.snapshot().await;
    let mut sessions = shards[peer.shard].sessions.iter();
    sessions.find(|session| session.id == peer.id).expect("the session lives").stats.clone()
}

/// Packets of each frame, and frames from one keyframe to the next.
const PACKETS: u16 = 5;
const KEYFRAMES: u16 = 30;

/// Sends frames of a publisher's video.
#[derive(Default)]
struct Camera {
    frame: u16,
}

impl Camera {
    fn frame(&mut self, publisher: &mut Peer) {
        for packet in 0..PACKETS {
            let start = if self.frame.is_multiple_of(KEYFRAMES) { KEYFRAME } else { DELTA };
            // What follows the first packet is no start of a partition (RFC 7741 §4.2).
            let payload = [if packet == 0 { start } else { &[0x00, 9] }, &[7; 1000]].concat();
            let sequence_number = self.frame.wrapping_mul(PACKETS).wrapping_add(packet);
            let fields = HeaderFields {
                marker: packet + 1 == PACKETS,
                padding: false,
                payload_type: 96,
                sequence_number,
                timestamp: u32::from(self.frame) * 3_000,
                ssrc: PUBLISHER_VIDEO,
            };
            let datagram = publisher.protect(fields, &[(WIDE, &sequence_number.to_be_bytes())], &payload);
            publisher.send(&datagram);
        }
        self.frame += 1;
    }

    /// Sends frames until something holds of a viewer.
    fn until(&mut self, publisher: &mut Peer, viewer: &mut Peer, what: &str, done: impl Fn(&Peer) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(viewer) {
            assert!(Instant::now() < deadline, "in vain: {what}");
            self.frame(publisher);
            publisher.turn();
            viewer.turn();
        }
    }
}

// ICE-20
#[tokio::test]
async fn media_flows_between_peers_over_tcp_and_over_udp_with_both_kinds_of_ice_and_dtls() {
    for (mode, role) in
        [(IceMode::Lite, DtlsRole::Server), (IceMode::Full, DtlsRole::Server), (IceMode::Lite, DtlsRole::Client)]
    {
        let server = Server::start(1);
        let publisher = server.open(0, 0, Role::Publisher, vec![audio(None), video(None, true)]);
        let mut publisher = server.connected(publisher.over_tcp());
        let mut by_udp = server.viewer(0, 0, true);
        let mut by_tcp = watch_over_tcp(&server, mode, role);
        let mut camera = Camera::default();
        for viewer in [&mut by_udp, &mut by_tcp] {
            camera.until(&mut publisher, viewer, "video comes", |viewer| viewer.rtp.len() > 30);
        }
        for (peer, transport) in [(&publisher, "tcp"), (&by_udp, "udp"), (&by_tcp, "tcp")] {
            let stats = stats(&server, peer).await;
            assert_eq!(stats.transport, Some(transport), "{mode:?}");
            let expected = match &peer.connection {
                Some(connection) => connection.stream.local_addr().unwrap(),
                None => peer.socket.local_addr().unwrap(),
            };
            assert_eq!(stats.remote_address, Some(expected));
        }
        // Back to the publisher goes RTCP, by its connection.
        by_tcp.rtcp(|writer| writer.pli(1, VIEWER_VIDEO).unwrap());
        publisher.until("a keyframe is requested", |publisher| publisher.plis() > 0);
        let counters = server.counters(0).await;
        assert_eq!((counters.tcp.open, counters.tcp.dropped), (2, 0));
        server.core.shutdown().await;
        let mut connection = by_tcp.connection.take().unwrap();
        connection.closes();
    }
}

// ICE-20
#[tokio::test]
async fn a_viewer_that_reads_slowly_over_tcp_loses_whole_frames_and_costs_a_bounded_queue() {
    let server = Server::start(1);
    let mut publisher = server.publisher(0);
    let mut slow = watch_over_tcp(&server, IceMode::Lite, DtlsRole::Server);
    let mut other = server.viewer(0, 0, true);
    let mut camera = Camera::default();
    let frames = |viewer: &Peer| viewer.headers(VIEWER_VIDEO).len();
    camera.until(&mut publisher, &mut slow, "video comes", |slow| frames(slow) > 20);
    // It reads nothing while far more comes than its connection holds; the kernel's buffers of loopback take some MB.
    let before = server.counters(0).await;
    let begun = Instant::now();
    let mut most = 0;
    while server.counters(0).await.rtp_congested < before.rtp_congested + 1_000 {
        assert!(begun.elapsed() < PATIENCE, "what is late is dropped");
        let seen = frames(&other);
        camera.until(&mut publisher, &mut other, "it is forwarded", |other| frames(other) > seen + 100);
        most = most.max(server.counters(0).await.tcp.queued);
    }
    assert!(most > 0 && most <= QUEUE, "{most} bytes waited");
    assert_eq!(server.counters(0).await.tcp.dropped, 0, "nothing was begun that could not be finished");
    // What it reads then is whole: each frame has its five packets, and the numbers leave no gap.
    let seen = slow.rtp.len();
    camera.until(&mut publisher, &mut slow, "it goes on", |slow| slow.rtp.len() > seen + 3_000);
    let headers = slow.headers(VIEWER_VIDEO);
    assert!(headers.windows(2).all(|pair| pair[1].sequence_number == pair[0].sequence_number.wrapping_add(1)));
    let timestamps: Vec<u32> = headers.iter().map(|header| header.timestamp).collect();
    let whole = timestamps.chunk_by(|one, other| one == other);
    let lengths: Vec<usize> = whole.map(<[u32]>::len).collect();
    assert!(lengths[1..lengths.len() - 1].iter().all(|&packets| packets == usize::from(PACKETS)), "{lengths:?}");
    server.core.shutdown().await;
}

// ICE-20, H1
#[tokio::test]
async fn before_an_authentic_check_a_connection_gets_nothing_and_is_soon_closed() {
    let server = Server::start(1);
    let viewer = server.open(0, 0, Role::Viewer, vec![audio(Some(SendSsrcs { media: 1, rtx: 2 }))]);
    let stranger = server.open(0, 0, Role::Viewer, vec![audio(Some(SendSsrcs { media: 1, rtx: 2 }))]);
    let mut forged = viewer.check_bytes(true);
    let end = forged.len() - 9;
    forged[end] ^= 1;
    let hello: Vec<u8> = [&[22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 100][..], &[1; 100]].concat();
    let rtp: Vec<u8> = [&[128, 96, 0, 1][..], &[0; 60]].concat();
    for packet in [&forged, &hello, &rtp, &vec![0; 20], &vec![0x55; 1500]] {
        let mut connection = Connection::open(viewer.server);
        (0..8).for_each(|_| connection.send(packet));
        assert_eq!(connection.closes(), Vec::<Vec<u8>>::new());
    }
    let counters = server.counters(0).await;
    assert_eq!(counters.tcp.closed[ConnectionEnd::Refused as usize], 5);
    // Another protocol's bytes, and a frame that no packet needs.
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 10], &[0x05, 0xdd, 0]] {
        let mut connection = Connection::open(viewer.server);
        let _ = connection.stream.write_all(bytes);
        assert_eq!(connection.closes(), Vec::<Vec<u8>>::new());
    }
    assert_eq!(server.counters(0).await.tcp.closed[ConnectionEnd::Framing as usize], 3);
    // Empty frames are no packets, and keep no connection busy.
    let mut connection = Connection::open(viewer.server);
    let _ = connection.stream.write_all(&[0; 40_000]);
    assert_eq!(connection.closes(), Vec::<Vec<u8>>::new());
    assert_eq!(server.counters(0).await.tcp.closed[ConnectionEnd::Refused as usize], 6);
    // A connection is one session's: the check of another one gets nothing by it.
    let mut connection = Connection::open(viewer.server);
    connection.send(&viewer.check_bytes(true));
    let deadline = Instant::now() + PATIENCE;
    while connection.receive().is_empty() {
        assert!(Instant::now() < deadline, "the session's own check is answered");
    }
    connection.send(&stranger.check_bytes(true));
    connection.send(&viewer.check_bytes(true));
    while server.dropped(0, DropReason::StunOtherTransport).await == 0 {
        assert!(Instant::now() < deadline, "the stranger's check is refused");
    }
    server.core.shutdown().await;
}

// ICE-20, H1
#[tokio::test]
async fn a_check_that_somebody_took_down_gets_nothing_by_a_connection_of_their_own() {
    let server = Server::start(1);
    let mut viewer = watch_over_tcp(&server, IceMode::Lite, DtlsRole::Server);
    let check = viewer.check_bytes(true);
    viewer.send(&check);
    let answers = viewer.answers;
    viewer.until("it is answered", |viewer| viewer.answers > answers);
    let mut thief = Connection::open(viewer.server);
    (0..8).for_each(|_| thief.send(&check));
    assert_eq!(thief.closes(), Vec::<Vec<u8>>::new());
    assert_eq!(server.dropped(0, DropReason::StunReplay).await, 8);
    // One that was held back comes by the thief's connection first: it may be answered, and asked back, but it proves nothing.
    let held_back = viewer.check_bytes(true);
    let mut thief = Connection::open(viewer.server);
    thief.send(&held_back);
    let mut publisher = server.publisher(0);
    let mut camera = Camera::default();
    camera.until(&mut publisher, &mut viewer, "video comes", |viewer| viewer.rtp.len() > 50);
    let stolen: usize = thief.receive().iter().map(Vec::len).sum();
    assert!(stolen <= held_back.len(), "{stolen} bytes for a check of {}", held_back.len());
    server.core.shutdown().await;
}

// ICE-20, ICE-11
#[tokio::test]
async fn when_a_connection_ends_media_goes_by_another_address_that_was_proven() {
    let server = Server::start(1);
    let mut publisher = server.publisher(0);
    let ssrcs = Some(SendSsrcs { media: VIEWER_VIDEO, rtx: VIEWER_RTX });
    let mut viewer = server.connected(server.open(0, 0, Role::Viewer, vec![video(ssrcs, true)]));
    let mut camera = Camera::default();
    // It nominates a connection.
    viewer = viewer.over_tcp();
    viewer.validate();
    camera.until(&mut publisher, &mut viewer, "video over TCP", |viewer| viewer.rtp.len() > 20);
    assert_eq!(stats(&server, &viewer).await.transport, Some("tcp"));
    // The connection breaks; its UDP address is still known.
    viewer.connection = None;
    let seen = viewer.rtp.len();
    camera.until(&mut publisher, &mut viewer, "video over UDP", |v| v.rtp.len() > seen + 20);
    assert_eq!(stats(&server, &viewer).await.transport, Some("udp"));
    // And back by a new connection, which only has to be nominated.
    viewer = viewer.over_tcp();
    viewer.validate();
    let seen = viewer.rtp.len();
    camera.until(&mut publisher, &mut viewer, "and TCP again", |v| v.rtp.len() > seen + 20);
    server.core.shutdown().await;
}

// ICE-20
#[tokio::test]
async fn a_connection_of_another_listener_reaches_the_shard_whose_session_it_is_for() {
    let server = Server::start(3);
    for shard in 0..3 {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = shard as u64;
        let mut viewer =
            server.open(shard, stream, Role::Viewer, vec![video(Some(SendSsrcs { media: 1, rtx: 2 }), true)]);
        viewer.server = listener.local_addr().unwrap();
        let mut viewer = viewer.over_tcp();
        let check = viewer.check_bytes(true);
        let accepted = listener.accept().unwrap().0;
        server.core.adopt_tcp(accepted, [&prefix(&check).unwrap()[..], &check].concat());
        viewer.until("the first check is answered", |viewer| viewer.answers > 0);
        let viewer = server.connected(viewer);
        assert_eq!(stats(&server, &viewer).await.transport, Some("tcp"));
    }
    // For nobody's session it is closed, and so is one whose first packet is none.
    for received in [vec![], vec![0, 1], vec![9; 200]] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut connection = Connection::open(listener.local_addr().unwrap());
        server.core.adopt_tcp(listener.accept().unwrap().0, received);
        connection.closes();
    }
    server.core.shutdown().await;
}

// ICE-20, F-09
#[tokio::test]
async fn connections_that_say_nothing_shut_nobody_out() {
    let server = Server::with(CoreConfig { media_port: 0, tcp_connections: 64, ..CoreConfig::default() });
    let address = server.core.local_candidates(0)[0].address;
    let silent: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(address).unwrap()).collect();
    let deadline = Instant::now() + PATIENCE;
    while server.counters(0).await.tcp.refused == 0 {
        assert!(Instant::now() < deadline, "most are refused");
    }
    let counters = server.counters(0).await.tcp;
    assert!(counters.open <= 16, "a quarter of the places, and of one address half of it: {counters:?}");
    // Once the first of them have had a second, a newcomer gets the place of one.
    let mut viewer = server.open(0, 0, Role::Viewer, vec![video(Some(SendSsrcs { media: 1, rtx: 2 }), true)]);
    let begun = Instant::now();
    while viewer.answers == 0 {
        assert!(begun.elapsed() < PATIENCE, "a newcomer gets in");
        if viewer.connection.as_ref().is_none_or(|connection| connection.is_closed) {
            viewer = viewer.over_tcp();
        }
        viewer.check(true);
        viewer.turn();
    }
    server.connected(viewer);
    drop(silent);
    server.core.shutdown().await;
}

// ICE-20
#[tokio::test]
async fn a_shard_that_starts_again_takes_connections_as_before() {
    let mut server = Server::start(1);
    let mut viewer = watch_over_tcp(&server, IceMode::Lite, DtlsRole::Server);
    server.core.inject(media_core::CoreThread::Shard(0), media_core::Fault::Panic);
    assert_eq!(server.ended(viewer.id).await, media_core::ledger::Reason::ShardFailed);
    viewer.connection.as_mut().unwrap().closes();
    let mut viewer = watch_over_tcp(&server, IceMode::Lite, DtlsRole::Server);
    let mut publisher = server.publisher(0);
    let mut camera = Camera::default();
    camera.until(&mut publisher, &mut viewer, "video comes", |viewer| viewer.rtp.len() > 10);
    server.core.shutdown().await;
}

// ICE-20
#[tokio::test]
async fn without_tcp_there_is_neither_a_candidate_nor_a_listener() {
    let server = Server::with(CoreConfig { media_port: 0, ice_tcp: false, ..CoreConfig::default() });
    let candidates = server.core.local_candidates(0);
    assert!(candidates.iter().all(|candidate| candidate.protocol == Protocol::Udp));
    assert!(TcpStream::connect(candidates[0].address).is_err());
    server.core.shutdown().await;
}
