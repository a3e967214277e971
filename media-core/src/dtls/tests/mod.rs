//! Both roles against each other and against peers that OpenSSL plays by hand.

mod certificates;
mod forged;
mod fragments;
mod handshake;
mod loss;
mod matrix;
mod offers;
mod pool;
mod refusal;
mod scripted;

use std::time::{Duration, Instant};

use openssl::ssl::{Ssl, SslContext, SslContextBuilder, SslMethod, SslStream, SslVerifyMode};

use super::queue::DatagramQueue;
use super::*;
use crate::spec::{DtlsParameters, DtlsRole, Fingerprint};
use crate::srtp::{KeyingMaterial, SrtpProfile};

/// Long enough for any handshake of these tests, even beside a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// One end of a wire.
trait Peer {
    fn receive(&mut self, datagram: &[u8]);
    fn transmit(&mut self) -> Option<Vec<u8>>;
    /// When it wants `expire` to be called.
    fn timeout(&self) -> Option<Instant>;
    fn expire(&mut self);
    /// True once its handshake has ended, well or not.
    fn is_settled(&self) -> bool;
    /// The keys of a handshake that ended well.
    fn keys(&self) -> Option<KeyingMaterial>;
}

/// Our endpoint, and all its events.
struct Ours {
    endpoint: DtlsEndpoint,
    events: Vec<DtlsEvent>,
}

impl Ours {
    fn new(context: &DtlsContext, role: DtlsRole, fingerprints: &[Fingerprint]) -> Ours {
        let parameters = DtlsParameters { role, fingerprints: fingerprints.to_vec() };
        Ours { endpoint: DtlsEndpoint::new(context, parameters).unwrap(), events: Vec::new() }
    }

    fn start(&mut self) {
        self.endpoint.start(Instant::now());
        self.collect();
    }

    fn collect(&mut self) {
        while let Some(event) = self.endpoint.poll_event() {
            self.events.push(event);
        }
    }

    fn connection(&self) -> &Connection {
        self.events
            .iter()
            .find_map(|event| match event {
                DtlsEvent::Connected(connection) => Some(connection),
                _ => None,
            })
            .unwrap_or_else(|| panic!("not connected: {:?}", self.events))
    }

    fn failure(&self) -> &DtlsFailure {
        self.events
            .iter()
            .find_map(|event| match event {
                DtlsEvent::Failed(failure) => Some(failure),
                _ => None,
            })
            .unwrap_or_else(|| panic!("not failed: {:?}", self.events))
    }

    fn has_keys(&self) -> bool {
        self.events.iter().any(|event| matches!(event, DtlsEvent::Connected(_)))
    }

    fn saw_close(&self) -> bool {
        self.events.iter().any(|event| matches!(event, DtlsEvent::PeerClosed))
    }
}

impl Peer for Ours {
    fn receive(&mut self, datagram: &[u8]) {
        self.endpoint.handle_datagram(Instant::now(), datagram);
        self.collect();
    }

    fn transmit(&mut self) -> Option<Vec<u8>> {
        self.endpoint.poll_transmit()
    }

    fn timeout(&self) -> Option<Instant> {
        self.endpoint.poll_timeout()
    }

    fn expire(&mut self) {
        self.endpoint.handle_timeout(Instant::now());
        self.collect();
    }

    fn is_settled(&self) -> bool {
        self.endpoint.is_connected() || self.endpoint.is_ended()
    }

    fn keys(&self) -> Option<KeyingMaterial> {
        self.has_keys().then(|| self.connection().keying.clone())
    }
}

/// A peer made of plain OpenSSL, for what our endpoint would never do.
struct Raw {
    stream: SslStream<DatagramQueue>,
    connected: bool,
    error: Option<String>,
    /// Without, it never repeats a flight by itself.
    has_timers: bool,
}

impl Raw {
    /// `settings` changes a context that has a certificate and offers all our SRTP profiles.
    fn new(
        role: DtlsRole,
        certificate: &Certificate,
        settings: impl FnOnce(&mut SslContextBuilder),
        per_handshake: impl FnOnce(&mut Ssl),
    ) -> Raw {
        let mut builder = SslContext::builder(SslMethod::dtls()).unwrap();
        builder.set_certificate(certificate.x509()).unwrap();
        builder.set_private_key(certificate.key()).unwrap();
        builder.set_options(openssl::ssl::SslOptions::from_bits_retain(openssl_sys::SSL_OP_NO_QUERY_MTU));
        builder.set_tlsext_use_srtp("SRTP_AEAD_AES_128_GCM:SRTP_AEAD_AES_256_GCM:SRTP_AES128_CM_SHA1_80").unwrap();
        builder.set_verify_callback(SslVerifyMode::PEER, |_, _| true);
        settings(&mut builder);
        let mut ssl = Ssl::new(&builder.build()).unwrap();
        ssl.set_mtu(1200).unwrap();
        per_handshake(&mut ssl);
        match role {
            DtlsRole::Client => ssl.set_connect_state(),
            DtlsRole::Server => ssl.set_accept_state(),
        }
        let stream = SslStream::new(ssl, DatagramQueue::default()).unwrap();
        Raw { stream, connected: false, error: None, has_timers: false }
    }

    fn start(&mut self) {
        self.drive();
    }

    /// What OpenSSL exports for the profile that it agreed on.
    fn exported(&self) -> Option<(SrtpProfile, Vec<u8>)> {
        let ssl = self.stream.ssl();
        let id = u16::try_from(ssl.selected_srtp_profile()?.id().as_raw()).unwrap();
        let profile = SrtpProfile::from_dtls_id(id).unwrap();
        let mut exported = vec![0; profile.export_len()];
        let is_exported = ssl.export_keying_material(&mut exported, "EXTRACTOR-dtls_srtp", None).is_ok();
        (self.connected && is_exported).then_some((profile, exported))
    }

    fn drive(&mut self) {
        let result = if self.connected {
            self.stream.ssl_read(&mut [0; 256]).map(drop)
        } else {
            self.stream.do_handshake().map(|()| self.connected = true)
        };
        if let Err(error) = result {
            use openssl::ssl::ErrorCode;
            if !matches!(error.code(), ErrorCode::WANT_READ | ErrorCode::WANT_WRITE) {
                self.error =
                    Some(if error.code() == ErrorCode::ZERO_RETURN { "closed".into() } else { error.to_string() });
            }
        }
    }
}

impl Peer for Raw {
    fn receive(&mut self, datagram: &[u8]) {
        self.stream.get_mut().put(datagram);
        self.drive();
    }

    fn transmit(&mut self) -> Option<Vec<u8>> {
        self.stream.get_mut().pop()
    }

    fn timeout(&self) -> Option<Instant> {
        if !self.has_timers {
            return None;
        }
        ffi::timeout(self.stream.ssl()).map(|left| Instant::now() + left)
    }

    fn expire(&mut self) {
        if self.has_timers {
            ffi::handle_timeout(&mut self.stream);
        }
    }

    fn is_settled(&self) -> bool {
        self.connected || self.error.is_some()
    }

    fn keys(&self) -> Option<KeyingMaterial> {
        self.exported().map(|(profile, exported)| KeyingMaterial::new(profile, &exported).unwrap())
    }
}

/// Carries datagrams between two ends until neither sends any more, and both are settled or no timer runs. `carry` gets
/// every datagram (from which end, counted from 0 per end) and returns whether it arrives.
fn run(left: &mut dyn Peer, right: &mut dyn Peer, carry: impl FnMut(usize, usize, &[u8]) -> bool) {
    assert!(ends(left, right, carry), "no end in sight");
}

/// The same; false if there is no end in sight.
fn ends(left: &mut dyn Peer, right: &mut dyn Peer, mut carry: impl FnMut(usize, usize, &[u8]) -> bool) -> bool {
    let began = Instant::now();
    let mut counts = [0, 0];
    while began.elapsed() < PATIENCE {
        let moved = carry_all(0, left, right, &mut counts, &mut carry);
        if carry_all(1, right, left, &mut counts, &mut carry) || moved {
            continue;
        }
        if (left.is_settled() && right.is_settled()) || !wait_for_timer(left, right) {
            return true;
        }
    }
    false
}

/// Sleeps until the next timer, by OpenSSL's own clock, and fires it. False if none runs.
fn wait_for_timer(left: &mut dyn Peer, right: &mut dyn Peer) -> bool {
    let Some(deadline) = [left.timeout(), right.timeout()].into_iter().flatten().min() else {
        return false;
    };
    std::thread::sleep(deadline.saturating_duration_since(Instant::now()));
    left.expire();
    right.expire();
    true
}

fn carry_all(
    end: usize,
    from: &mut dyn Peer,
    to: &mut dyn Peer,
    counts: &mut [usize; 2],
    carry: &mut impl FnMut(usize, usize, &[u8]) -> bool,
) -> bool {
    let mut moved = false;
    while let Some(datagram) = from.transmit() {
        moved = true;
        // DTLS-34
        assert!(datagram.len() <= DATAGRAM_SIZE, "a datagram of {} bytes", datagram.len());
        assert!(record::records(&datagram).all(|record| record.is_whole()), "a datagram breaks off inside a record");
        if carry(end, counts[end], &datagram) {
            to.receive(&datagram);
        }
        counts[end] += 1;
    }
    moved
}

fn all(_: usize, _: usize, _: &[u8]) -> bool {
    true
}

/// A certificate with its context.
fn identity() -> (Certificate, DtlsContext) {
    let certificate = Certificate::generate().unwrap();
    let context = DtlsContext::new(&certificate).unwrap();
    (certificate, context)
}

/// A client and a server that expect each other's certificates.
fn couple() -> (Ours, Ours) {
    let (client_certificate, client) = identity();
    let (server_certificate, server) = identity();
    (
        Ours::new(&client, DtlsRole::Client, &[server_certificate.fingerprint().clone()]),
        Ours::new(&server, DtlsRole::Server, &[client_certificate.fingerprint().clone()]),
    )
}

/// True if media of each end is understood by the other.
fn share_keys(client: &Connection, server: &Connection) -> bool {
    have_same_keys(&client.keying, &server.keying)
}

fn have_same_keys(client: &KeyingMaterial, server: &KeyingMaterial) -> bool {
    let (mut client_in, mut client_out) = client.contexts(DtlsRole::Client).unwrap();
    let (mut server_in, mut server_out) = server.contexts(DtlsRole::Server).unwrap();
    let carries = |sender: &mut crate::srtp::SrtpSender, receiver: &mut crate::srtp::SrtpReceiver| {
        let mut packet = [0x80, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9, 1, 2, 3, 4].to_vec();
        packet.resize(16 + crate::srtp::MAX_TRAILER, 0);
        let len = sender.protect_rtp(&mut packet, 16).unwrap();
        receiver.unprotect_rtp(&mut packet, len) == Ok(16) && packet[12..16] == [1, 2, 3, 4]
    };
    carries(&mut client_out, &mut server_in) && carries(&mut server_out, &mut client_in)
}

/// Forwards, backwards, and 24 ways of mixing the first four.
fn orders(count: usize) -> Vec<Vec<usize>> {
    let forwards: Vec<_> = (0..count).collect();
    let mut orders = vec![forwards.clone(), forwards.iter().rev().copied().collect()];
    let mixed = count.min(4);
    orders.extend((0..(1..=mixed).product()).map(|n| [&nth_order(mixed, n), &forwards[mixed..]].concat()));
    orders
}

/// One of the orders of so many things.
fn nth_order(count: usize, mut n: usize) -> Vec<usize> {
    let (mut rest, mut order): (Vec<_>, _) = ((0..count).collect(), Vec::new());
    while !rest.is_empty() {
        order.push(rest.remove(n % rest.len()));
        n /= rest.len() + 1;
    }
    order
}
