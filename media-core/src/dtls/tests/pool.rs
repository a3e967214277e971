//! The pool, with its real threads.

use std::collections::{HashMap, HashSet};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::*;
use crate::ledger::{Reason, Stage};
use crate::pulse::{BEAT, CoreThread, Fault};
use crate::spec::SessionId;

/// A server pool and a client pool with their output channels.
struct Pools {
    server: HandshakePool,
    client: HandshakePool,
    // Kept, so that the channels stay open when the pools have forgotten all sessions.
    _outputs: [UnboundedSender<DtlsOutput>; 2],
    from_server: UnboundedReceiver<DtlsOutput>,
    from_client: UnboundedReceiver<DtlsOutput>,
}

/// An address that needs no further proof.
fn proven() -> Source {
    Source { address: ([192, 0, 2, 1], 5000).into(), room: None }
}

/// Opens `sessions` on both sides; the server of session 0 expects another certificate.
fn pools(threads: usize, sessions: u64) -> Pools {
    let server_certificate = Certificate::generate().unwrap();
    let client_certificate = Certificate::generate().unwrap();
    let [server, client] = [(); 2].map(|()| HandshakePool::start(threads).unwrap());
    let [server_context, client_context] =
        [&server_certificate, &client_certificate].map(|certificate| DtlsContext::new(certificate).unwrap());
    let (to_server, from_server) = unbounded_channel();
    let (to_client, from_client) = unbounded_channel();
    for id in 0..sessions {
        let expected = if id == 0 { &server_certificate } else { &client_certificate };
        let parameters = DtlsParameters { role: DtlsRole::Server, fingerprints: vec![expected.fingerprint().clone()] };
        server.handle().open(SessionId(id), server_context.clone(), parameters, to_server.clone());
        let parameters =
            DtlsParameters { role: DtlsRole::Client, fingerprints: vec![server_certificate.fingerprint().clone()] };
        client.handle().open(SessionId(id), client_context.clone(), parameters, to_client.clone());
        client.handle().start(SessionId(id));
    }
    Pools { server, client, _outputs: [to_server, to_client], from_server, from_client }
}

/// Carries datagrams both ways, and shows all outputs to `done` until it says so.
fn carry(pools: &mut Pools, mut done: impl FnMut(bool, DtlsOutput) -> bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let (server, client) = (pools.server.handle(), pools.client.handle());
    let work = async {
        loop {
            let (is_server, output) = tokio::select! {
                output = pools.from_server.recv() => (true, output.unwrap()),
                output = pools.from_client.recv() => (false, output.unwrap()),
            };
            if let DtlsOutputKind::Transmit { datagram, .. } = &output.kind {
                let other = if is_server { &client } else { &server };
                other.datagram(output.session, proven(), datagram).unwrap();
            }
            if done(is_server, output) {
                return;
            }
        }
    };
    runtime.block_on(async { tokio::time::timeout(PATIENCE, work).await.unwrap() });
}

#[test]
fn many_sessions_connect_and_close_and_a_wrong_one_fails_alone() {
    // DTLS-08, DTLS-41, DTLS-44
    let sessions = 20;
    let mut pools = pools(2, sessions);
    let mut connected: HashMap<SessionId, Vec<(bool, Connection)>> = HashMap::new();
    let mut failed = Vec::new();
    carry(&mut pools, |is_server, output| {
        match output.kind {
            DtlsOutputKind::Failed(failure) => failed.push((is_server, output.session, failure.reason)),
            DtlsOutputKind::Connected(connection) => {
                connected.entry(output.session).or_default().push((is_server, *connection));
            }
            _ => {}
        }
        connected.values().map(Vec::len).sum::<usize>() == 2 * (sessions as usize - 1) && failed.len() == 2
    });
    failed.sort_by_key(|(is_server, ..)| *is_server);
    let wrong = SessionId(0);
    assert_eq!(failed, [(false, wrong, Reason::DtlsAlertReceived), (true, wrong, Reason::FingerprintMismatch)]);
    assert!(!connected.contains_key(&wrong));
    for ends in connected.values_mut() {
        ends.sort_by_key(|(is_server, _)| *is_server);
        assert!(share_keys(&ends[0].1, &ends[1].1));
    }
    for id in 0..sessions {
        pools.server.handle().close(SessionId(id));
    }
    let mut closed = 0;
    carry(&mut pools, |is_server, output| {
        closed += u64::from(!is_server && matches!(output.kind, DtlsOutputKind::PeerClosed));
        closed == sessions - 1
    });
}

#[test]
fn a_silent_peer_is_asked_again_by_the_pools_own_timers() {
    // DTLS-35
    let mut pools = pools(1, 2);
    let mut hellos = 0;
    while hellos < 4 {
        let output = pools.from_client.blocking_recv().unwrap();
        if output.session == SessionId(1) {
            assert!(matches!(output.kind, DtlsOutputKind::Transmit { .. }), "{:?}", output.kind);
            hellos += 1;
        }
    }
}

#[test]
fn unknown_and_closed_sessions_are_silent() {
    let mut pools = pools(1, 2);
    let handle = pools.client.handle();
    handle.close(SessionId(1));
    handle.start(SessionId(99));
    handle.close(SessionId(99));
    handle.datagram(SessionId(99), proven(), &[22; 100]).unwrap();
    drop(pools.client);
    pools.from_client.close();
    let mut outputs = 0;
    while let Some(output) = pools.from_client.blocking_recv() {
        assert_ne!(output.session, SessionId(99));
        outputs += usize::from(output.session == SessionId(1));
    }
    assert_eq!(outputs, 1, "the ClientHello, then nothing");
}

#[test]
fn dropping_the_pool_stops_its_threads_after_what_was_asked_before() {
    let certificate = Certificate::generate().unwrap();
    let (pool, context) = (HandshakePool::start(2).unwrap(), DtlsContext::new(&certificate).unwrap());
    let handle = pool.handle();
    let (outputs, mut received) = unbounded_channel();
    for id in 0..10 {
        let parameters =
            DtlsParameters { role: DtlsRole::Client, fingerprints: vec![certificate.fingerprint().clone()] };
        handle.open(SessionId(id), context.clone(), parameters, outputs.clone());
        handle.start(SessionId(id));
    }
    drop(pool);
    drop(outputs);
    let mut started = HashSet::new();
    // Ends only when the threads have dropped their senders.
    while let Some(output) = received.blocking_recv() {
        assert!(matches!(output.kind, DtlsOutputKind::Transmit { .. }), "{:?}", output.kind);
        started.insert(output.session);
    }
    assert_eq!(started.len(), 10);
    assert_eq!(handle.datagram(SessionId(1), proven(), &[22; 20]), Err(Full));
    handle.start(SessionId(1));
}

#[test]
fn an_owner_that_went_away_costs_nothing_more() {
    let certificate = Certificate::generate().unwrap();
    let (pool, context) = (HandshakePool::start(1).unwrap(), DtlsContext::new(&certificate).unwrap());
    let (outputs, received) = unbounded_channel();
    drop(received);
    let parameters = DtlsParameters { role: DtlsRole::Client, fingerprints: vec![] };
    pool.handle().open(SessionId(1), context, parameters, outputs.clone());
    pool.handle().start(SessionId(1));
    // The thread held the only other sender; it drops it with the association.
    let began = Instant::now();
    while outputs.strong_count() > 1 {
        assert!(began.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
}

/// Carries what both say until the server's pool says something else than a datagram of this session.
fn outcome(pools: &mut Pools, session: SessionId) -> DtlsOutputKind {
    let mut outcome = None;
    carry(pools, |is_server, output| {
        if is_server
            && output.session == session
            && !matches!(output.kind, DtlsOutputKind::Transmit { .. } | DtlsOutputKind::Proven(_))
        {
            outcome = Some(output.kind);
        }
        outcome.is_some()
    });
    outcome.unwrap()
}

// C2
#[test]
fn a_handshake_that_panics_ends_alone_and_says_so() {
    let mut pools = pools(1, 1);
    let server = pools.server.handle();
    server.inject(0, Fault::Panic);
    let DtlsOutputKind::Failed(failure) = outcome(&mut pools, SessionId(0)) else { panic!("no failure") };
    assert_eq!((failure.reason, failure.stage), (Reason::HandshakeThreadFailed, Stage::Dtls));
    let vital = server.vitals().next().unwrap();
    assert_eq!((vital.thread, vital.pulse.panics()), (CoreThread::Handshake(0), 1));
    let mut others = self::pools(1, 2);
    others.server.handle().inject(0, Fault::Panic);
    let DtlsOutputKind::Failed(_) = outcome(&mut others, SessionId(0)) else { panic!("no failure") };
    let connected = outcome(&mut others, SessionId(1));
    assert!(matches!(connected, DtlsOutputKind::Connected(_)), "{connected:?}");
}

// C2
#[test]
fn a_thread_that_does_not_come_back_gives_its_place_to_another_and_its_handshakes_end() {
    let mut pools = pools(1, 2);
    let server = pools.server.handle();
    server.inject(0, Fault::Freeze);
    let DtlsOutputKind::Transmit { datagram: hello, .. } = pools.from_client.blocking_recv().unwrap().kind else {
        panic!("no hello")
    };
    server.datagram(SessionId(0), proven(), &hello).unwrap();
    let pulse = server.vitals().next().unwrap().pulse;
    let (begun, mut beats) = (Instant::now(), (pulse.beats(), Instant::now()));
    while beats.1.elapsed() < 10 * BEAT {
        assert!(begun.elapsed() < PATIENCE);
        if pulse.beats() != beats.0 {
            beats = (pulse.beats(), Instant::now());
        }
        std::thread::sleep(BEAT / 10);
    }
    pools.server.replace(0).unwrap();
    let mut ended: Vec<_> = (0..2).map(|_| pools.from_server.blocking_recv().unwrap()).collect();
    ended.sort_by_key(|output| output.session);
    for (output, id) in ended.into_iter().zip(0..) {
        let DtlsOutputKind::Failed(failure) = output.kind else { panic!("{output:?}") };
        assert_eq!((output.session, failure.reason), (SessionId(id), Reason::HandshakeThreadFailed));
    }
    // The next handshakes run in the same place, and the pool can be dropped.
    let DtlsOutputKind::Transmit { .. } = connects_anew(&mut pools) else { panic!("no answer") };
    assert!(pulse.beats() > beats.0);
}

/// Opens another session on the server's pool, sends it a ClientHello, and waits for its first word.
fn connects_anew(pools: &mut Pools) -> DtlsOutputKind {
    let certificate = Certificate::generate().unwrap();
    let context = DtlsContext::new(&certificate).unwrap();
    let [server, client] = [DtlsRole::Server, DtlsRole::Client]
        .map(|role| DtlsParameters { role, fingerprints: vec![certificate.fingerprint().clone()] });
    let outputs = pools._outputs[0].clone();
    pools.server.handle().open(SessionId(9), context.clone(), server, outputs);
    let mut client = DtlsEndpoint::new(&context, client).unwrap();
    client.start(Instant::now());
    while let Some(datagram) = client.poll_transmit() {
        pools.server.handle().datagram(SessionId(9), proven(), &datagram).unwrap();
    }
    loop {
        let output = pools.from_server.blocking_recv().unwrap();
        match (output.session, &output.kind) {
            (SessionId(9), _) => return output.kind,
            // Flights that were on their way.
            (_, DtlsOutputKind::Transmit { .. } | DtlsOutputKind::Proven(_)) | (SessionId(0), _) => {}
            _ => panic!("{output:?}"),
        }
    }
}

// C2
#[test]
fn a_panic_over_a_connected_session_ends_nothing() {
    let mut pools = pools(1, 2);
    let connected = outcome(&mut pools, SessionId(1));
    assert!(matches!(connected, DtlsOutputKind::Connected(_)), "{connected:?}");
    let server = pools.server.handle();
    server.inject_over(SessionId(1), Fault::Panic);
    server.datagram(SessionId(1), proven(), &[22; 100]).unwrap();
    // What it says of another session comes after all that it could say of this one.
    let hello = connects_anew(&mut pools);
    assert!(matches!(hello, DtlsOutputKind::Transmit { .. }), "{hello:?}");
    assert_eq!(server.vitals().next().unwrap().pulse.panics(), 1);
}
