//! Handshake messages in pieces: of any size, in any order, twice, overlapping, cut anew when they come again.

use std::ops::Range;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::offers::{browser, complete, server_for};
use super::scripted::{CHANGE_CIPHER_SPEC, HANDSHAKE, Offer, Scripted, fragment};
use super::*;

/// So many pieces, of equal length but for the last.
fn pieces(message: &[u8], count: usize) -> Vec<Range<usize>> {
    let (length, size) = (message.len() - 12, (message.len() - 12).div_ceil(count));
    (0..count).map(|n| n * size..length.min((n + 1) * size)).collect()
}

/// Pieces of so many bytes.
fn pieces_of(message: &[u8], size: usize) -> Vec<Range<usize>> {
    pieces(message, (message.len() - 12).div_ceil(size))
}

/// Pieces cut anywhere, some of them twice, some longer than they have to be, in any order.
fn random_pieces(random: &mut StdRng, length: usize) -> Vec<Range<usize>> {
    let (mut at, mut pieces) = (0, Vec::new());
    while at < length {
        let next = (at + random.random_range(1..400)).min(length);
        let overlap = |random: &mut StdRng| if random.random_ratio(1, 2) { random.random_range(0..100) } else { 0 };
        let piece = at.saturating_sub(overlap(random))..(next + overlap(random)).min(length);
        pieces.extend((0..1 + usize::from(random.random_ratio(1, 4))).map(|_| piece.clone()));
        at = next;
    }
    pieces.shuffle(random);
    pieces
}

/// Each piece in a record and a datagram of its own.
fn send(client: &mut Scripted, server: &mut Ours, message: &[u8], pieces: impl IntoIterator<Item = Range<usize>>) {
    for piece in pieces {
        let record = client.record(HANDSHAKE, &fragment(message, piece));
        server.receive(&record);
    }
}

// DTLS-30, DTLS-31
#[test]
fn a_browsers_client_hello_is_put_together_from_pieces_of_any_size_in_any_order() {
    let certificate = Certificate::generate().unwrap();
    let example = browser(&certificate, 1).hello();
    let layouts = [pieces(&example, 2), pieces(&example, 3), pieces(&example, 8), pieces_of(&example, 200)];
    for layout in layouts {
        for order in orders(layout.len()) {
            let mut client = browser(&certificate, 1);
            let mut server = server_for(&certificate);
            let hello = client.hello();
            let (last, first) = order.split_last().unwrap();
            send(&mut client, &mut server, &hello, first.iter().map(|&index| layout[index].clone()));
            // Some of them twice.
            send(&mut client, &mut server, &hello, first.iter().step_by(2).map(|&index| layout[index].clone()));
            assert!(server.transmit().is_none(), "an answer to less than the whole");
            send(&mut client, &mut server, &hello, [layout[*last].clone()]);
            complete(&mut client, &mut server);
        }
    }
}

// DTLS-30
#[test]
fn what_is_lost_of_a_client_hello_comes_again_in_other_pieces() {
    let certificate = Certificate::generate().unwrap();
    for (first, second) in [(2, 3), (3, 2), (8, 5), (5, 8), (2, 2)] {
        for lost in 0..first {
            for lost_again in 0..second {
                let mut client = browser(&certificate, 2);
                let mut server = server_for(&certificate);
                let hello = client.hello();
                let without = |layout: Vec<Range<usize>>, lost: usize| {
                    layout.into_iter().enumerate().filter(move |(index, _)| *index != lost).map(|(_, piece)| piece)
                };
                send(&mut client, &mut server, &hello, without(pieces(&hello, first), lost));
                send(&mut client, &mut server, &hello, without(pieces(&hello, second), lost_again));
                send(&mut client, &mut server, &hello, pieces(&hello, 4).into_iter().rev());
                complete(&mut client, &mut server);
            }
        }
    }
}

/// Puts pieces into records, and records into datagrams, as it likes.
fn mix(random: &mut StdRng, client: &mut Scripted, pieces: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let mut datagrams = vec![Vec::new()];
    let mut pieces = pieces.into_iter().peekable();
    while let Some(mut record) = pieces.next() {
        while random.random_ratio(1, 3)
            && let Some(next) = pieces.next_if(|next| record.len() + next.len() < 1_000)
        {
            record.extend(next);
        }
        let record = client.record(HANDSHAKE, &record);
        let last = datagrams.last_mut().expect("there is always one");
        if last.is_empty() || (random.random_ratio(1, 2) && last.len() + record.len() <= 1_400) {
            last.extend(record);
        } else {
            datagrams.push(record);
        }
    }
    datagrams
}

// DTLS-30: overlaps, several fragments a record, several records a datagram, in both flights of a client.
#[test]
fn pieces_may_overlap_repeat_and_share_records_and_datagrams() {
    let certificate = Certificate::generate().unwrap();
    for seed in 0..80 {
        let random = &mut StdRng::seed_from_u64(seed);
        let mut client = browser(&certificate, seed);
        let mut server = server_for(&certificate);
        let hello = client.hello();
        let cut = |random: &mut StdRng, message: &[u8]| -> Vec<Vec<u8>> {
            random_pieces(random, message.len() - 12).into_iter().map(|piece| fragment(message, piece)).collect()
        };
        let hello = cut(random, &hello);
        mix(random, &mut client, hello).iter().for_each(|datagram| server.receive(datagram));
        while let Some(datagram) = server.transmit() {
            client.receive(&datagram);
        }
        assert!(client.has_flight(), "seed {seed}: {:?}", server.events);
        let (messages, finished) = client.second_flight();
        let mut parts: Vec<Vec<u8>> = messages.iter().flat_map(|message| cut(random, message)).collect();
        parts.shuffle(random);
        mix(random, &mut client, parts).iter().for_each(|datagram| server.receive(datagram));
        let end = [client.record(CHANGE_CIPHER_SPEC, &[1]), finished].concat();
        server.receive(&end);
        while let Some(datagram) = server.transmit() {
            client.receive(&datagram);
        }
        assert!(client.is_finished && server.has_keys(), "seed {seed}: {:?}", server.events);
    }
}

// DTLS-36
#[test]
fn the_messages_of_a_flight_in_any_order_are_no_error_and_the_flight_in_order_ends_it() {
    let certificate = Certificate::generate().unwrap();
    let mut at_once = 0;
    let orders: Vec<_> = (0..120).map(|n| nth_order(5, n)).collect();
    for order in &orders {
        let mut client = Scripted::new(&certificate, Offer::plain());
        let mut server = server_for(&certificate);
        let hello = client.hello();
        send(&mut client, &mut server, &hello, pieces(&hello, 1));
        while let Some(datagram) = server.transmit() {
            client.receive(&datagram);
        }
        let (messages, finished) = client.second_flight();
        for &index in order {
            let record = match index {
                0..3 => client.record(HANDSHAKE, &messages[index]),
                3 => client.record(CHANGE_CIPHER_SPEC, &[1]),
                _ => finished.clone(),
            };
            server.receive(&record);
            assert!(!server.endpoint.is_ended(), "{order:?}: {:?}", server.events);
        }
        at_once += usize::from(server.has_keys());
        if !server.has_keys() {
            for message in &messages {
                let record = client.record(HANDSHAKE, message);
                server.receive(&record);
            }
            let record = client.record(CHANGE_CIPHER_SPEC, &[1]);
            server.receive(&record);
            let again = client.finished_again();
            server.receive(&again);
        }
        assert!(server.has_keys(), "{order:?}: {:?}", server.events);
    }
    assert!(at_once >= 12, "{at_once} of {} without a repetition", orders.len());
}

// DTLS-30, DTLS-32: a cookie is due, and both hellos come in pieces.
#[test]
fn a_client_hello_in_pieces_from_an_unproven_address_gets_a_cookie_and_returns_it_in_pieces() {
    let certificate = Certificate::generate().unwrap();
    let source = Source { address: "192.0.2.1:5000".parse().unwrap(), room: Some(100) };
    for count in [2, 3] {
        for order in orders(count) {
            let mut client = browser(&certificate, 4);
            let mut server = server_for(&certificate);
            for hello in 0..2 {
                let message = client.hello();
                let layout = pieces(&message, count);
                for &index in &order {
                    assert!(server.transmit().is_none(), "{order:?}: an answer to less than the whole");
                    let record = client.record(HANDSHAKE, &fragment(&message, layout[index].clone()));
                    server.endpoint.handle_datagram_from(Instant::now(), source, &record);
                }
                server.collect();
                let is_proven = server.events.iter().any(|event| matches!(event, DtlsEvent::AddressProven(_)));
                assert_eq!(is_proven, hello == 1, "{order:?}");
                if hello == 0 {
                    client.receive(&server.transmit().expect("a HelloVerifyRequest"));
                }
            }
            complete(&mut client, &mut server);
        }
    }
}

// DTLS-43
#[test]
fn a_client_that_moves_between_two_addresses_inside_a_flight_is_answered_at_the_latest() {
    let certificate = Certificate::generate().unwrap();
    let here = Source { address: "192.0.2.1:5000".parse().unwrap(), room: None };
    let there = Source { address: "192.0.2.1:6000".parse().unwrap(), room: None };
    for (first, second) in [(here, there), (there, here)] {
        let mut client = browser(&certificate, 5);
        let mut server = server_for(&certificate);
        let hello = client.hello();
        for (index, piece) in pieces(&hello, 5).into_iter().enumerate() {
            let record = client.record(HANDSHAKE, &fragment(&hello, piece));
            let source = if index % 2 == 0 { first } else { second };
            server.endpoint.handle_datagram_from(Instant::now(), source, &record);
        }
        assert_eq!(server.endpoint.destination(), Some(first.address));
        while let Some(datagram) = server.transmit() {
            client.receive(&datagram);
        }
        let (messages, finished) = client.second_flight();
        for (index, message) in messages.iter().enumerate() {
            let record = client.record(HANDSHAKE, message);
            let source = if index % 2 == 0 { second } else { first };
            server.endpoint.handle_datagram_from(Instant::now(), source, &record);
            assert_eq!(server.endpoint.destination(), Some(source.address));
        }
        let end = [client.record(CHANGE_CIPHER_SPEC, &[1]), finished].concat();
        server.endpoint.handle_datagram_from(Instant::now(), first, &end);
        server.collect();
        client.receive(&server.transmit().unwrap());
        assert!(server.has_keys() && client.is_finished);
    }
}

// DTLS-30: pieces whose lengths do not agree, before and between those of the client.
#[test]
fn forged_pieces_of_another_length_do_not_keep_a_client_hello_from_its_end() {
    let certificate = Certificate::generate().unwrap();
    for place in 0..3 {
        for length in [20, 900, 5_000, 16_384, 65_000, 0xff_ffff] {
            let mut client = browser(&certificate, 6);
            let mut server = server_for(&certificate);
            let hello = client.hello();
            let mut forged = fragment(&hello, 10..20);
            forged[1..4].copy_from_slice(&(length as u32).to_be_bytes()[1..]);
            for (index, piece) in pieces(&hello, 3).into_iter().enumerate() {
                if index == place {
                    let record = client.record(HANDSHAKE, &forged);
                    server.receive(&record);
                }
                send(&mut client, &mut server, &hello, [piece]);
                assert!(!server.endpoint.is_ended(), "{length} before {place}: {:?}", server.events);
            }
            if !client_is_answered(&mut client, &mut server) {
                send(&mut client, &mut server, &hello, pieces(&hello, 2));
            }
            complete(&mut client, &mut server);
        }
    }
}

/// Carries the server's answer; false if there is none yet.
fn client_is_answered(client: &mut Scripted, server: &mut Ours) -> bool {
    while let Some(datagram) = server.transmit() {
        client.receive(&datagram);
    }
    client.has_flight()
}
