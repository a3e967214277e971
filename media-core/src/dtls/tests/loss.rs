//! Lost and late datagrams.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::handshake::lengthen;
use super::*;

/// Many handshakes at once: each waits for real timers.
fn at_once(cases: impl Iterator<Item = Box<dyn FnOnce() + Send>>) {
    let threads: Vec<_> = cases.map(std::thread::spawn).collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn any_one_datagram_may_be_lost() {
    // DTLS-35, DTLS-37: the n-th of either end, in the first and in all repeated flights.
    at_once((0..2).flat_map(|end| (0..6).map(move |n| (end, n))).map(|(end, n)| -> Box<dyn FnOnce() + Send> {
        Box::new(move || {
            let (mut client, mut server) = couple();
            client.start();
            run(&mut client, &mut server, |from, index, _| (from, index) != (end, n));
            assert!(share_keys(client.connection(), server.connection()), "end {end}, datagram {n}");
        })
    }));
}

#[test]
fn the_first_n_datagrams_of_an_end_may_be_lost() {
    // DTLS-35
    at_once((0..2).flat_map(|end| (1..4).map(move |n| (end, n))).map(|(end, n)| -> Box<dyn FnOnce() + Send> {
        Box::new(move || {
            let (mut client, mut server) = couple();
            client.start();
            run(&mut client, &mut server, |from, index, _| from != end || index >= n);
            assert!(share_keys(client.connection(), server.connection()), "end {end}, first {n}");
        })
    }));
}

#[test]
fn every_third_datagram_may_be_lost() {
    at_once((0..3).map(|phase| -> Box<dyn FnOnce() + Send> {
        Box::new(move || {
            let (mut client, mut server) = couple();
            client.start();
            run(&mut client, &mut server, |_, index, _| index % 3 != phase);
            assert!(share_keys(client.connection(), server.connection()), "phase {phase}");
        })
    }));
}

#[test]
fn a_peer_without_timers_is_carried_by_ours() {
    // DTLS-38: each datagram of ours is lost once; the peer never repeats anything by itself.
    at_once([DtlsRole::Client, DtlsRole::Server].into_iter().flat_map(|role| (0..3).map(move |n| (role, n))).map(
        |(role, n)| -> Box<dyn FnOnce() + Send> {
            Box::new(move || {
                let (certificate, context) = identity();
                let mut ours = Ours::new(&context, role, &[certificate.fingerprint().clone()]);
                let other = if role == DtlsRole::Client { DtlsRole::Server } else { DtlsRole::Client };
                let mut raw = Raw::new(other, &certificate, |_| {}, |_| {});
                ours.start();
                if other == DtlsRole::Client {
                    raw.start();
                }
                run(&mut ours, &mut raw, |from, index, _| (from, index) != (0, n));
                assert!(ours.has_keys() && raw.connected, "{role:?} datagram {n}: {:?}", raw.error);
            })
        },
    ));
}

#[test]
fn flights_may_arrive_backwards() {
    // DTLS-36: small datagrams of the client, so that its second flight has many; each flight always backwards.
    let (certificate, context) = identity();
    let mut client = Raw::new(DtlsRole::Client, &certificate, |_| {}, |ssl| ssl.set_mtu(256).unwrap());
    client.has_timers = true;
    let mut server = Ours::new(&context, DtlsRole::Server, &[certificate.fingerprint().clone()]);
    client.start();
    let began = Instant::now();
    let mut longest = 0;
    while !(client.is_settled() && server.is_settled()) {
        assert!(began.elapsed() < PATIENCE, "{:?}", server.events);
        let flight: Vec<_> = std::iter::from_fn(|| client.transmit()).collect();
        let answer: Vec<_> = std::iter::from_fn(|| server.transmit()).collect();
        longest = longest.max(flight.len());
        flight.iter().rev().for_each(|datagram| server.receive(datagram));
        answer.iter().rev().for_each(|datagram| client.receive(datagram));
        if flight.is_empty() && answer.is_empty() {
            // Records that overtook the ChangeCipherSpec were dropped: a flight is retransmitted.
            wait_for_timer(&mut client, &mut server);
        }
    }
    assert!(longest >= 4, "{longest} datagrams a flight");
    assert!(server.has_keys() && client.connected, "{:?} {:?}", server.events, client.error);
}

#[test]
fn the_first_repetition_comes_after_100_ms_and_the_next_after_200() {
    // DTLS-35
    let (mut client, _) = couple();
    let began = Instant::now();
    client.start();
    assert!(client.transmit().is_some() && client.transmit().is_none());
    let first = client.timeout().unwrap();
    client.endpoint.handle_timeout(began);
    assert!(client.transmit().is_none(), "too early");
    let repeated = loop {
        std::thread::sleep(client.timeout().unwrap() - Instant::now());
        client.expire();
        if client.transmit().is_some() {
            break Instant::now();
        }
    };
    assert!(repeated - began >= Duration::from_millis(80), "{:?}", repeated - began);
    assert!(first - began <= Duration::from_millis(150), "{:?}", first - began);
    let second = client.timeout().unwrap() - repeated;
    assert!(second > Duration::from_millis(100) && second <= Duration::from_millis(200), "{second:?}");
}

/// Losses of one way: the n-th datagram of it, or every n-th one, beginning anywhere.
#[derive(Clone, Copy, Debug)]
enum Loss {
    One(usize),
    Every { nth: usize, from: usize },
}

impl Loss {
    /// All of them up to the twelfth datagram.
    fn all() -> impl Iterator<Item = Loss> {
        let every = (2..=12).flat_map(|nth| (0..nth).map(move |from| Loss::Every { nth, from }));
        (0..12).map(Loss::One).chain(every)
    }

    /// Whether a datagram is lost, counted from 0.
    fn hits(self, index: usize) -> bool {
        match self {
            Loss::One(lost) => index == lost,
            Loss::Every { nth, from } => index % nth == from,
        }
    }

    /// True if it takes the same datagram of every repetition of a flight of so many: no repetition helps.
    fn is_in_step_with(self, flight: usize) -> bool {
        flight > 1 && matches!(self, Loss::Every { nth, .. } if flight.is_multiple_of(nth))
    }
}

/// Lets a client and a server agree on keys under all losses: on the way there, on the way back, and on both. `flights` are the
/// numbers of datagrams in which each of them sends a flight again.
fn survive(flights: [&[usize]; 2], couple: impl Fn() -> (Box<dyn Peer>, Box<dyn Peer>) + Sync) {
    let ways = [[true, false], [false, true], [true, true]];
    let cases = Loss::all().flat_map(|loss| ways.map(|way| (loss, way)));
    let cases: Vec<_> = cases
        .filter(|(loss, way)| {
            let is_in_step = |end: usize| flights[end].iter().any(|&flight| way[end] && loss.is_in_step_with(flight));
            !is_in_step(0) && !is_in_step(1)
        })
        .collect();
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some((loss, way)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (mut client, mut server) = couple();
            let ends = ends(&mut *client, &mut *server, |from, index, _| !(way[from] && loss.hits(index)));
            let agree =
                client.keys().zip(server.keys()).is_some_and(|(client, server)| have_same_keys(&client, &server));
            if !ends || !agree {
                failures.lock().unwrap().push(format!("{loss:?} {way:?}"));
            }
        }
    };
    // They wait for timers, most of the time.
    std::thread::scope(|scope| (0..16).for_each(|_| drop(scope.spawn(work))));
    assert_eq!(failures.into_inner().unwrap(), [""; 0], "of {} cases", cases.len());
}

/// Our endpoint in this role, for a peer that shows the same certificate.
fn ours(role: DtlsRole, (certificate, context): &(Certificate, DtlsContext)) -> Box<dyn Peer> {
    let mut ours = Ours::new(context, role, &[certificate.fingerprint().clone()]);
    ours.endpoint.hurry();
    ours.start();
    Box::new(ours)
}

/// A peer of plain OpenSSL in this role.
fn raw(
    role: DtlsRole,
    (certificate, _): &(Certificate, DtlsContext),
    settings: fn(&mut SslContextBuilder),
) -> Box<dyn Peer> {
    let mut raw = Raw::new(role, certificate, settings, |ssl| ffi::hurry(ssl));
    raw.has_timers = true;
    if role == DtlsRole::Client {
        raw.start();
    }
    Box::new(raw)
}

// DTLS-35, DTLS-37, DTLS-38
#[test]
fn every_nth_datagram_may_be_lost_between_two_of_ours() {
    let identity = identity();
    survive([&[], &[]], || (ours(DtlsRole::Client, &identity), ours(DtlsRole::Server, &identity)));
}

// DTLS-35, DTLS-37: it repeats each of the five messages of its second flight in a datagram of its own.
#[test]
fn every_nth_datagram_may_be_lost_towards_a_client_of_plain_openssl() {
    let identity = identity();
    survive([&[5], &[]], || (raw(DtlsRole::Client, &identity, |_| {}), ours(DtlsRole::Server, &identity)));
}

// DTLS-35, DTLS-37
#[test]
fn every_nth_datagram_may_be_lost_towards_a_server_of_plain_openssl() {
    let identity = identity();
    // Its last flight has two.
    survive([&[], &[2, 5]], || (ours(DtlsRole::Client, &identity), raw(DtlsRole::Server, &identity, |_| {})));
}

// DTLS-30, DTLS-35: a ClientHello of two datagrams.
#[test]
fn every_nth_datagram_may_be_lost_of_a_long_client_hello() {
    let identity = identity();
    survive([&[2, 5], &[]], || (raw(DtlsRole::Client, &identity, lengthen), ours(DtlsRole::Server, &identity)));
}

// DTLS-34, DTLS-35: certificates that leave no room for anything else in their datagram.
#[test]
fn every_nth_datagram_may_be_lost_of_flights_of_several() {
    let certificate = Certificate::generate_with(CertificateKey::Rsa4096).unwrap();
    let context = DtlsContext::new(&certificate).unwrap();
    let identity = (certificate, context);
    survive([&[2, 3], &[2, 3]], || (ours(DtlsRole::Client, &identity), ours(DtlsRole::Server, &identity)));
}

// DTLS-37: minutes later, and again and again.
#[test]
fn a_client_that_repeats_its_last_flight_long_after_is_answered_each_time() {
    let (certificate, context) = identity();
    let mut client = Raw::new(DtlsRole::Client, &certificate, |_| {}, |ssl| ffi::hurry(ssl));
    client.has_timers = true;
    let mut server = Ours::new(&context, DtlsRole::Server, &[certificate.fingerprint().clone()]);
    client.start();
    let began = Instant::now();
    let mut later = began;
    while !server.has_keys() {
        assert!(began.elapsed() < PATIENCE, "{:?}", server.events);
        carry_all(0, &mut client, &mut server, &mut [0; 2], &mut all);
        if !server.has_keys() {
            carry_all(1, &mut server, &mut client, &mut [0; 2], &mut all);
        }
    }
    for round in 0..4 {
        while server.transmit().is_some() {}
        later += Duration::from_secs(60);
        while server.timeout().is_some() {
            later += Duration::from_secs(1);
            server.endpoint.handle_timeout(later);
        }
        while server.transmit().is_some() {}
        let repeated = loop {
            assert!(began.elapsed() < PATIENCE);
            wait_for_timer(&mut client, &mut server);
            if let Some(datagram) = client.transmit() {
                break datagram;
            }
        };
        let rest = std::iter::from_fn(|| client.transmit());
        for datagram in std::iter::once(repeated).chain(rest) {
            server.endpoint.handle_datagram(later, &datagram);
        }
        let answer: Vec<_> = std::iter::from_fn(|| server.transmit()).collect();
        assert!(!answer.is_empty(), "round {round}");
        if round == 3 {
            answer.iter().for_each(|datagram| client.receive(datagram));
        }
    }
    assert!(client.connected && server.endpoint.is_connected(), "{:?} {:?}", client.error, server.events);
}
