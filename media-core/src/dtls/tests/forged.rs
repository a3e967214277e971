//! What a third party forges into a handshake, with the peer's own address as its source.

use super::*;
use crate::dtls::Source;
use crate::dtls::hello::{Shown, shown_cookie};
use crate::ledger::{Reason, Stage};

/// A plaintext alert.
fn alert(level: u8, description: u8) -> Vec<u8> {
    vec![21, 254, 253, 0, 0, 0, 0, 0, 0, 0, 99, 0, 2, level, description]
}

/// Lets a client and a server talk while each of the server's datagrams is preceded by forged ones.
fn with_forged(forged: &[Vec<u8>]) -> (Ours, Ours) {
    let (mut client, mut server) = couple();
    client.start();
    let began = Instant::now();
    while !(client.has_keys() && server.has_keys()) {
        assert!(began.elapsed() < PATIENCE, "{:?} {:?}", client.events, server.events);
        let (to_server, to_client): (Vec<_>, Vec<_>) =
            (std::iter::from_fn(|| client.transmit()).collect(), std::iter::from_fn(|| server.transmit()).collect());
        if to_server.is_empty() && to_client.is_empty() {
            wait_for_timer(&mut client, &mut server);
        }
        for datagram in to_server {
            forged.iter().for_each(|forged| server.receive(forged));
            server.receive(&datagram);
        }
        to_client.iter().for_each(|datagram| client.receive(datagram));
    }
    (client, server)
}

// M6
#[test]
fn forged_alerts_do_not_end_a_handshake_that_goes_on() {
    let (client, server) = with_forged(&[alert(2, 40), alert(1, 0), alert(2, 0)]);
    assert!(share_keys(client.connection(), server.connection()));
}

// M6: records with the highest number, of no message, of messages out of place.
#[test]
fn forged_records_do_not_end_a_handshake_that_goes_on() {
    let record =
        |body: &[u8]| [&[22, 254, 253, 0, 0, 255, 255, 255, 255, 255, 255, 0, body.len() as u8], body].concat();
    let finished = record(&[20, 0, 0, 12, 0, 5, 0, 0, 0, 0, 0, 12, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    let exchange = record(&[16, 0, 0, 2, 0, 9, 0, 0, 0, 0, 0, 2, 1, 7]);
    let (client, server) = with_forged(&[record(&[7; 40]), record(&[]), finished, exchange]);
    assert!(share_keys(client.connection(), server.connection()));
}

// M6
#[test]
fn a_forged_certificate_does_not_end_a_handshake_that_goes_on() {
    let message = [&[0, 0, 53, 0, 0, 50][..], &[0x30; 50]].concat();
    let mut body = vec![11, 0, 0, 56, 0, 1, 0, 0, 0, 0, 0, 56];
    body.extend(&message);
    let record = [&[22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 7, 0, body.len() as u8], &body[..]].concat();
    let (client, server) = with_forged(&[record]);
    assert!(share_keys(client.connection(), server.connection()));
}

// M6
#[test]
fn a_true_alert_ends_a_handshake_once_nothing_better_has_come() {
    let (mut client, mut server) = couple();
    client.start();
    server.receive(&client.transmit().unwrap());
    while server.transmit().is_some() {}
    let began = Instant::now();
    server.receive(&alert(2, 42));
    assert!(!server.endpoint.is_ended());
    server.endpoint.handle_timeout(began + Duration::from_millis(1_900));
    assert!(!server.endpoint.is_ended());
    server.endpoint.handle_timeout(Instant::now() + Duration::from_millis(2_000));
    server.collect();
    let failure = server.failure();
    assert_eq!((failure.reason, failure.stage), (Reason::DtlsAlertReceived, Stage::Dtls));
    assert_eq!(failure.detail, "alert bad_certificate (42)");
}

// H1
#[test]
fn a_source_without_room_has_to_return_its_cookie_before_the_flight() {
    let (mut client, mut server) = couple();
    let source = Source { address: "192.0.2.1:5000".parse().unwrap(), room: Some(100) };
    let elsewhere = Source { address: "192.0.2.9:5000".parse().unwrap(), ..source };
    client.start();
    let hello = client.transmit().unwrap();
    let now = Instant::now();
    for _ in 0..3 {
        server.endpoint.handle_datagram_from(now, source, &hello);
        let demand = server.transmit().unwrap();
        assert!(demand.len() < 64 && server.transmit().is_none(), "{} bytes", demand.len());
        assert_eq!(server.endpoint.destination(), Some(source.address));
        client.receive(&demand);
    }
    let with_cookie = client.transmit().unwrap();
    let Shown::Cookie(cookie) = shown_cookie(&with_cookie) else { panic!("a cookie") };
    let at = with_cookie.windows(cookie.len()).position(|bytes| bytes == cookie).unwrap();
    let mut wrong = with_cookie.clone();
    wrong[at] ^= 1;
    server.endpoint.handle_datagram_from(now, source, &wrong);
    assert!(server.transmit().is_none(), "a wrong cookie");
    // Who returns it from elsewhere, as a client does that has moved to another pair meanwhile, receives where it was sent.
    server.endpoint.handle_datagram_from(now, elsewhere, &with_cookie);
    server.collect();
    assert_eq!(server.endpoint.destination(), Some(source.address));
    let proven =
        |at: std::net::SocketAddr| move |event: &DtlsEvent| matches!(event, DtlsEvent::AddressProven(of) if *of == at);
    assert!(server.events.iter().any(proven(source.address)));
    assert!(!server.events.iter().any(proven(elsewhere.address)), "a cookie proves nothing elsewhere");
    assert!(server.transmit().unwrap().len() > 300);
}

// H1: a ClientHello that was sent again arrives once a check has proven its source. It would begin the handshake anew, under
// numbers that the client has left behind.
#[test]
fn who_was_asked_for_a_cookie_has_to_return_it_even_where_its_address_is_proven_meanwhile() {
    let (mut client, mut server) = couple();
    let unproven = Source { address: "192.0.2.1:5000".parse().unwrap(), room: Some(100) };
    let proven = Source { room: None, ..unproven };
    client.start();
    let hello = client.transmit().unwrap();
    server.endpoint.handle_datagram_from(Instant::now(), unproven, &hello);
    client.receive(&server.transmit().unwrap());
    server.endpoint.handle_datagram_from(Instant::now(), proven, &hello);
    let began = Instant::now();
    while !(client.has_keys() && server.has_keys()) {
        assert!(began.elapsed() < PATIENCE, "{:?} {:?}", client.events, server.events);
        while let Some(datagram) = server.transmit() {
            client.receive(&datagram);
        }
        let mut is_quiet = true;
        while let Some(datagram) = client.transmit() {
            is_quiet = false;
            server.endpoint.handle_datagram_from(Instant::now(), proven, &datagram);
            server.collect();
        }
        assert!(!client.endpoint.is_ended() && !server.endpoint.is_ended(), "{:?} {:?}", client.events, server.events);
        if is_quiet {
            wait_for_timer(&mut client, &mut server);
        }
    }
    assert!(share_keys(client.connection(), server.connection()));
}
