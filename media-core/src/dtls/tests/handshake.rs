//! Handshakes that end well, and what comes after them.

use super::*;
use crate::spec::FingerprintHash;

#[test]
fn both_roles_agree_on_keys() {
    // DTLS-04, DTLS-07, DTLS-11, DTLS-34, SRTP-01
    let (mut client, mut server) = couple();
    assert!(client.endpoint.poll_transmit().is_none(), "nothing goes out before the path is there");
    client.start();
    client.start();
    let mut sizes = [Vec::new(), Vec::new()];
    run(&mut client, &mut server, |end, _, datagram| {
        sizes[end].push(datagram.len());
        true
    });
    for end in [&client, &server] {
        assert!(matches!(end.events[..], [DtlsEvent::HandshakeStarted, DtlsEvent::Connected(_)]), "{:?}", end.events);
        let connection = end.connection();
        assert_eq!(connection.version, "DTLSv1.2");
        assert_eq!(connection.cipher, "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256");
        assert_eq!(connection.keying.profile(), SrtpProfile::AeadAes128Gcm);
    }
    assert!(share_keys(client.connection(), server.connection()));
    // DTLS-05: the ClientHello is far from the limit. DTLS-33: no flight is cut into many datagrams.
    assert!(sizes[0][0] < 600, "ClientHello of {} bytes", sizes[0][0]);
    assert_eq!(sizes[0].len(), 2, "client: {sizes:?}");
    assert_eq!(sizes[1].len(), 2, "server: {sizes:?}");
}

#[test]
fn the_servers_preference_chooses_the_profile() {
    // DTLS-18: whatever order the client offers.
    use SrtpProfile::{AeadAes128Gcm as Gcm128, AeadAes256Gcm as Gcm256, Aes128CmHmacSha1_80 as Cm80};
    let cases: [(&[SrtpProfile], SrtpProfile); 6] = [
        (&[Cm80, Gcm256, Gcm128], Gcm128),
        (&[Cm80, Gcm256], Gcm256),
        (&[Cm80], Cm80),
        (&[Gcm256], Gcm256),
        (&[Gcm128], Gcm128),
        (&[Gcm256, Gcm128], Gcm128),
    ];
    let certificate = Certificate::generate().unwrap();
    let fingerprint = [certificate.fingerprint().clone()];
    let server_context = DtlsContext::new(&certificate).unwrap();
    for (offer, choice) in cases {
        let client_context = DtlsContext::with_profiles(&certificate, offer).unwrap();
        let mut client = Ours::new(&client_context, DtlsRole::Client, &fingerprint);
        let mut server = Ours::new(&server_context, DtlsRole::Server, &fingerprint);
        client.start();
        run(&mut client, &mut server, all);
        assert_eq!(client.connection().keying.profile(), choice);
        assert_eq!(server.connection().keying.profile(), choice);
        assert!(share_keys(client.connection(), server.connection()));
    }
}

#[test]
fn one_right_line_among_several_is_enough() {
    // DTLS-08, DTLS-09
    let (client_certificate, client_context) = identity();
    let (server_certificate, server_context) = identity();
    let der = client_certificate.x509().to_der().unwrap();
    for hash in [FingerprintHash::Sha256, FingerprintHash::Sha384, FingerprintHash::Sha512] {
        let right = Fingerprint::of(hash, &der).unwrap();
        let wrong = Fingerprint::of(hash, b"another certificate").unwrap();
        let mut client = Ours::new(&client_context, DtlsRole::Client, &[server_certificate.fingerprint().clone()]);
        let mut server = Ours::new(&server_context, DtlsRole::Server, &[wrong, right.clone()]);
        client.start();
        run(&mut client, &mut server, all);
        assert_eq!(server.connection().fingerprint, right);
    }
}

#[test]
fn a_fragmented_client_hello_arrives_in_any_order() {
    // DTLS-30: as browsers with post-quantum key shares send it, here by a long list of protocols.
    let (certificate, context) = identity();
    let fingerprint = [certificate.fingerprint().clone()];
    for mtu in [1200, 300] {
        let fragments = {
            let mut client = long_hello(&certificate, mtu);
            client.start();
            std::iter::from_fn(|| client.transmit()).count()
        };
        assert!(fragments >= if mtu == 300 { 5 } else { 2 }, "{fragments} fragments");
        for order in orders(fragments) {
            let mut client = long_hello(&certificate, mtu);
            let mut server = Ours::new(&context, DtlsRole::Server, &fingerprint);
            client.start();
            let hello: Vec<_> = std::iter::from_fn(|| client.transmit()).collect();
            for (n, &index) in order.iter().enumerate() {
                assert!(!server.has_keys());
                server.receive(&hello[index]);
                // Each one twice, now and then.
                if n % 2 == 0 {
                    server.receive(&hello[index]);
                }
            }
            run(&mut client, &mut server, all);
            assert!(client.connected, "order {order:?}: {:?}", client.error);
            assert!(server.has_keys(), "order {order:?}: {:?}", server.events);
        }
    }
}

/// A client whose ClientHello has some 1400 bytes, in datagrams of at most `mtu`.
fn long_hello(certificate: &Certificate, mtu: u32) -> Raw {
    Raw::new(DtlsRole::Client, certificate, lengthen, |ssl| ssl.set_mtu(mtu).unwrap())
}

/// Makes a ClientHello some 1,250 bytes longer.
pub(super) fn lengthen(context: &mut SslContextBuilder) {
    context.set_alpn_protos(&[&[249][..], &[b'x'; 249]].concat().repeat(5)).unwrap();
}

#[test]
fn close_notify_ends_both_sides() {
    // DTLS-41
    for closer_is_client in [true, false] {
        let (mut client, mut server) = couple();
        client.start();
        run(&mut client, &mut server, all);
        let (closer, other) = if closer_is_client { (&mut client, &mut server) } else { (&mut server, &mut client) };
        closer.endpoint.close();
        run(closer, other, all);
        assert!(other.saw_close(), "{:?}", other.events);
        assert!(closer.endpoint.is_ended() && other.endpoint.is_ended());
        assert!(!closer.saw_close(), "the one that closes knows it");
        assert_eq!((closer.timeout(), other.timeout()), (None, None));
    }
}

#[test]
fn closing_before_the_end_of_a_handshake_is_silent() {
    let (mut client, _) = couple();
    client.start();
    assert!(client.transmit().is_some());
    client.endpoint.close();
    assert!(client.transmit().is_none());
    assert!(client.endpoint.is_ended() && client.timeout().is_none());
}

#[test]
fn application_data_is_handed_out_record_by_record() {
    // DTLS-19
    for (role, other) in [(DtlsRole::Server, DtlsRole::Client), (DtlsRole::Client, DtlsRole::Server)] {
        let (certificate, context) = identity();
        let mut peer = Raw::new(other, &certificate, |_| {}, |_| {});
        let mut ours = Ours::new(&context, role, &[certificate.fingerprint().clone()]);
        peer.start();
        ours.start();
        run(&mut peer, &mut ours, all);
        for n in 0..10 {
            peer.stream.ssl_write(&vec![n; 900 - usize::from(n)]).unwrap();
        }
        run(&mut peer, &mut ours, all);
        assert!(ours.endpoint.is_connected());
        let data: Vec<_> = ours
            .events
            .iter()
            .filter_map(|event| match event {
                DtlsEvent::ApplicationData(data) => Some(data.clone()),
                _ => None,
            })
            .collect();
        assert_eq!(data, (0..10).map(|n| vec![n; 900 - usize::from(n)]).collect::<Vec<_>>());
        peer.stream.shutdown().unwrap();
        run(&mut peer, &mut ours, all);
        assert!(ours.saw_close());
        peer.drive();
        assert_eq!(peer.error.as_deref(), Some("closed"), "our close_notify answers");
    }
}

#[test]
fn nothing_unauthenticated_disturbs_a_finished_association() {
    // DTLS-15, DTLS-39, DTLS-42
    let (mut client, mut server) = couple();
    client.start();
    let mut seen = Vec::new();
    run(&mut client, &mut server, |_, _, datagram| {
        seen.push(datagram.to_vec());
        true
    });
    let mut forged: Vec<Vec<u8>> = vec![
        vec![],
        vec![22],
        vec![0; 12],
        // Plaintext alerts: fatal handshake_failure and close_notify.
        vec![21, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 99, 0, 2, 2, 40],
        vec![21, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 99, 0, 2, 1, 0],
        // An alert that claims to be encrypted.
        vec![21, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 99, 0, 2, 2, 40],
        vec![23; 200],
        vec![63; 1500],
    ];
    // The whole handshake once more, and with altered bytes.
    forged.extend(seen.clone());
    forged.extend(seen.into_iter().map(|mut datagram| {
        let middle = datagram.len() / 2;
        datagram[middle] ^= 0x55;
        datagram
    }));
    for datagram in &forged {
        for end in [&mut client, &mut server] {
            end.receive(datagram);
            while end.transmit().is_some() {}
            assert!(end.endpoint.is_connected(), "{datagram:02x?}: {:?}", end.events);
        }
    }
    client.endpoint.close();
    run(&mut client, &mut server, all);
    assert!(server.saw_close());
}

#[test]
fn garbage_does_not_disturb_a_handshake() {
    // DTLS-39
    let (mut client, mut server) = couple();
    client.start();
    let (mut to_client, mut to_server) = (Vec::new(), Vec::new());
    let mut n = 0u8;
    loop {
        let mut moved = false;
        while let Some(datagram) = client.transmit() {
            to_server.push(datagram);
        }
        while let Some(datagram) = server.transmit() {
            to_client.push(datagram);
        }
        for (end, queue) in [(&mut client, &mut to_client), (&mut server, &mut to_server)] {
            for datagram in queue.drain(..) {
                n = n.wrapping_add(1);
                let junk = [22, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, n, 0, 20];
                for len in 0..13 {
                    end.receive(&datagram[..len]);
                }
                end.receive(&[n; 100]);
                end.receive(&[&junk[..], &[n; 20]].concat());
                end.receive(&datagram);
                moved = true;
            }
        }
        if !moved {
            break;
        }
    }
    assert!(share_keys(client.connection(), server.connection()));
}

#[test]
fn two_of_the_same_role_do_not_hurt_each_other() {
    // DTLS-12: a ClientHello while active, a ServerHello while passive.
    let (mut client, mut server) = couple();
    let (mut other_client, mut other_server) = couple();
    client.start();
    other_client.start();
    let hello = client.transmit().unwrap();
    other_client.receive(&hello);
    assert!(!other_client.endpoint.is_ended(), "{:?}", other_client.events);
    server.receive(&hello);
    let server_hello = server.transmit().unwrap();
    other_server.receive(&server_hello);
    assert!(other_server.events.is_empty(), "{:?}", other_server.events);
    run(&mut other_client, &mut other_server, all);
    assert!(other_client.has_keys() && other_server.has_keys());
}

#[test]
fn a_client_that_has_not_started_takes_nothing() {
    let (mut client, mut server) = couple();
    let (mut other, _) = couple();
    other.start();
    server.receive(&other.transmit().unwrap());
    client.receive(&server.transmit().unwrap());
    assert!(client.events.is_empty() && client.transmit().is_none());
}

#[test]
fn a_cookie_demand_is_answered() {
    // DTLS-32
    let (certificate, context) = identity();
    let mut client = Ours::new(&context, DtlsRole::Client, &[certificate.fingerprint().clone()]);
    let mut server = Raw::new(
        DtlsRole::Server,
        &certificate,
        |context| {
            context.set_options(openssl::ssl::SslOptions::COOKIE_EXCHANGE);
            context.set_cookie_generate_cb(|_, cookie| {
                cookie[..4].copy_from_slice(b"cake");
                Ok(4)
            });
            context.set_cookie_verify_cb(|_, cookie| cookie == b"cake");
        },
        |_| {},
    );
    client.start();
    run(&mut client, &mut server, all);
    assert!(client.has_keys() && server.connected);
}

#[test]
fn renegotiation_is_declined_and_changes_nothing() {
    // DTLS-14: asked for by either role.
    for role in [DtlsRole::Client, DtlsRole::Server] {
        let (certificate, context) = identity();
        let other = if role == DtlsRole::Client { DtlsRole::Server } else { DtlsRole::Client };
        let mut ours = Ours::new(&context, role, &[certificate.fingerprint().clone()]);
        let mut raw = Raw::new(other, &certificate, |_| {}, |_| {});
        ours.start();
        if other == DtlsRole::Client {
            raw.start();
        }
        run(&mut ours, &mut raw, all);
        assert!(ours.has_keys() && raw.connected);
        assert!(ffi::renegotiate(&mut raw.stream));
        raw.connected = false;
        raw.drive();
        let asked = raw.transmit().unwrap();
        assert_eq!((asked[0], &asked[3..5]), (22, &[0, 1][..]), "an encrypted handshake message");
        ours.receive(&asked);
        assert!(ours.endpoint.is_connected(), "{:?}", ours.events);
        assert_eq!(ours.events.len(), 2, "{:?}", ours.events);
        assert!(ours.transmit().is_none_or(|answer| answer[0] == 21), "at most a warning");
        ours.endpoint.close();
        assert!(ours.transmit().is_some(), "close_notify");
    }
}
