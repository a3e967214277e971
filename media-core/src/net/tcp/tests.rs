use super::*;

use std::net::Ipv4Addr;

/// Connections of a shard with one peer, whose end is the second.
async fn connected(total: usize) -> (TcpConnections, TcpStream, TransportTuple) {
    let listener = super::super::bind_tcp((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let address = listener.local_addr().unwrap();
    let mut tcp = TcpConnections::new(Rc::new(Poller::new().unwrap()), Some(listener), total).unwrap();
    let (peer, tuple) = connect(&mut tcp, address).await;
    (tcp, peer, tuple)
}

async fn connect(tcp: &mut TcpConnections, address: SocketAddr) -> (TcpStream, TransportTuple) {
    let peer = TcpStream::connect(address).unwrap();
    let mut events = Vec::new();
    while !events.contains(&Event::Incoming) {
        tcp.poller.clone().ready().await.unwrap();
        tcp.look(&mut events);
    }
    tcp.accept(Instant::now());
    let remote = peer.local_addr().unwrap();
    let slot = tcp.slots.iter().find(|(_, connection)| connection.remote == remote).map(|(slot, _)| slot).unwrap();
    (peer, TransportTuple::tcp(remote, slot as u16))
}

fn read_packets(peer: &mut TcpStream, count: usize) -> Vec<Vec<u8>> {
    peer.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut packets = Vec::new();
    while packets.len() < count {
        let mut length = [0; 2];
        peer.read_exact(&mut length).unwrap();
        let mut packet = vec![0; usize::from(u16::from_be_bytes(length))];
        peer.read_exact(&mut packet).unwrap();
        packets.push(packet);
    }
    packets
}

// ICE-20
#[tokio::test]
async fn what_a_peer_does_not_read_is_dropped_in_whole_packets_and_never_queued_without_bound() {
    let (mut tcp, mut peer, tuple) = connected(16).await;
    let mut taken = Vec::new();
    for number in 0..20_000_u32 {
        let packet = [&number.to_be_bytes()[..], &[7; 1196]].concat();
        if tcp.push(tuple, &packet) {
            taken.push(packet);
        }
        tcp.flush();
        assert!(tcp.slots[0].queue.len() <= QUEUE && tcp.slots[0].queue.capacity() <= 2 * QUEUE);
    }
    let counters = tcp.counters();
    assert_eq!(counters.dropped as usize, 20_000 - taken.len());
    assert!(counters.dropped > 1_000, "{counters:?}");
    assert!(counters.queued > QUEUE - 2_000 && !tcp.has_room(tuple, true));
    // What was taken comes whole and in order, once there is room.
    let reader = std::thread::spawn(move || {
        let read = read_packets(&mut peer, taken.len());
        assert!(read == taken, "every packet that was taken, as it was");
        peer
    });
    let mut events = Vec::new();
    while tcp.counters().queued > 0 {
        tcp.poller.clone().ready().await.unwrap();
        tcp.look(&mut events);
    }
    assert!(tcp.has_room(tuple, false));
    let mut peer = tokio::task::spawn_blocking(move || reader.join().unwrap()).await.unwrap();
    assert!(tcp.push(tuple, b"again"));
    tcp.flush();
    assert_eq!(read_packets(&mut peer, 1), [b"again"]);
}

#[tokio::test]
async fn a_connection_that_is_gone_takes_nothing_and_its_number_leads_to_no_other_peer() {
    let (mut tcp, peer, tuple) = connected(16).await;
    let address = tcp.listener.as_ref().unwrap().local_addr().unwrap();
    drop(peer);
    let mut buffer = [0; 100];
    while tcp.closing.is_empty() {
        tcp.poller.clone().ready().await.unwrap();
        tcp.look(&mut Vec::new());
        assert_eq!(tcp.read(Instant::now(), tuple.connection, &mut buffer), 0);
    }
    assert!(!tcp.push(tuple, b"late") && !tcp.has_room(tuple, false));
    assert_eq!(tcp.take_closed(), Some((tuple, None)));
    assert_eq!(tcp.take_closed(), None);
    let (_other, next) = connect(&mut tcp, address).await;
    assert_eq!(next.connection, tuple.connection, "the number is free again");
    assert!(!tcp.push(tuple, b"late") && tcp.push(next, b"hello"));
    assert_eq!(tcp.counters().closed[ConnectionEnd::ByPeer as usize], 1);
}

#[tokio::test]
async fn silent_connections_end_and_those_of_ended_sessions_too() {
    let (mut tcp, _peer, tuple) = connected(64).await;
    let address = tcp.listener.as_ref().unwrap().local_addr().unwrap();
    let (_second, checked) = connect(&mut tcp, address).await;
    let (_third, ended) = connect(&mut tcp, address).await;
    let now = Instant::now();
    for tuple in [checked, ended] {
        tcp.on_check(tuple, SessionId(1));
    }
    tcp.close_at(ended, now + Duration::from_secs(1));
    tcp.tick(now + Duration::from_secs(2));
    assert_eq!(tcp.take_closed(), Some((ended, Some(SessionId(1)))));
    tcp.tick(now + admission::FIRST_CHECK);
    assert_eq!(tcp.take_closed(), Some((tuple, None)));
    tcp.tick(now + IDLE - Duration::from_secs(1));
    assert_eq!(tcp.take_closed(), None);
    tcp.tick(now + IDLE);
    assert_eq!(tcp.take_closed(), Some((checked, Some(SessionId(1)))));
    assert!(tcp.is_idle());
    let closed = tcp.counters().closed;
    for end in [ConnectionEnd::Session, ConnectionEnd::NoCheck, ConnectionEnd::Idle] {
        assert_eq!(closed[end as usize], 1, "{end:?}");
    }
}

#[tokio::test]
async fn without_a_session_a_connection_gets_few_packets_and_none_that_is_too_long() {
    let (mut tcp, _peer, tuple) = connected(16).await;
    (0..REFUSED).for_each(|_| tcp.on_refused(tuple));
    assert_eq!(tcp.take_closed(), Some((tuple, None)));
    let address = tcp.listener.as_ref().unwrap().local_addr().unwrap();
    let (_second, tuple) = connect(&mut tcp, address).await;
    tcp.on_check(tuple, SessionId(1));
    (0..=REFUSED).for_each(|_| tcp.on_refused(tuple));
    assert_eq!(tcp.take_closed(), None, "a session's packets are counted elsewhere");
    let mut packet = [0; MAX_FRAME];
    assert_eq!(tcp.next_packet(tuple.connection, &mut &[0xff, 0xff, 1][..], &mut packet), None);
    assert_eq!(tcp.take_closed(), Some((tuple, Some(SessionId(1)))));
    assert_eq!(tcp.counters().closed[ConnectionEnd::Framing as usize], 1);
}

// F-09: as with the HTTP listener.
#[tokio::test]
async fn where_no_file_is_left_the_listener_pauses_and_the_oldest_without_a_check_gives_place() {
    let (mut tcp, _peer, tuple) = connected(16).await;
    let now = Instant::now();
    let full = io::Error::from_raw_os_error(libc::EMFILE);
    tcp.on_accept_failed(now, &full);
    assert_eq!(tcp.take_closed(), Some((tuple, None)));
    let address = tcp.listener.as_ref().unwrap().local_addr().unwrap();
    let _waits = TcpStream::connect(address).unwrap();
    tcp.accept(now);
    assert!(tcp.slots.is_empty() && !tcp.is_idle(), "it pauses, and time is to end that");
    tcp.tick(now + FIRST_PAUSE);
    tcp.accept(now + FIRST_PAUSE);
    assert_eq!(tcp.slots.len(), 1);
    for _ in 0..20 {
        tcp.on_accept_failed(now, &full);
    }
    assert_eq!(tcp.pause.length, LONGEST_PAUSE);
    assert_eq!(tcp.counters().accept_errors, 21);
}
