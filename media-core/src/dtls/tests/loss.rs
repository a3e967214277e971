//! Lost and late datagrams.

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
