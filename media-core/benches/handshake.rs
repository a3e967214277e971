//! What a handshake costs its server: from the association's begin to the keys, without sockets and threads.
//!
//! `cargo bench -p media-core --bench handshake`. One after the other, so that caches are hot: beside media, some a second,
//! with a wake-up of the thread for each flight, one costs twice as much.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use media_core::internals::dtls::{Certificate, DtlsContext, DtlsEndpoint, DtlsEvent};
use media_core::{DtlsParameters, DtlsRole, Fingerprint};

struct End {
    certificate: Certificate,
    context: DtlsContext,
}

impl End {
    fn new() -> End {
        let certificate = Certificate::generate().expect("a certificate");
        let context = DtlsContext::new(&certificate).expect("a context");
        End { certificate, context }
    }

    fn endpoint(&self, role: DtlsRole, peer: &Fingerprint) -> DtlsEndpoint {
        let parameters = DtlsParameters { role, fingerprints: vec![peer.clone()] };
        DtlsEndpoint::new(&self.context, parameters).expect("an association")
    }
}

/// One handshake; the time that the server's side of it took.
fn handshake(client: &End, server: &End) -> Duration {
    let mut active = client.endpoint(DtlsRole::Client, server.certificate.fingerprint());
    let begun = Instant::now();
    let mut passive = server.endpoint(DtlsRole::Server, client.certificate.fingerprint());
    let mut spent = begun.elapsed();
    active.start(Instant::now());
    while !(active.is_connected() && passive.is_connected()) {
        while let Some(datagram) = active.poll_transmit() {
            let begun = Instant::now();
            passive.handle_datagram(begun, &datagram);
            spent += begun.elapsed();
        }
        let begun = Instant::now();
        let flight: Vec<Vec<u8>> = std::iter::from_fn(|| passive.poll_transmit()).collect();
        spent += begun.elapsed();
        assert!(!flight.is_empty() || active.is_connected(), "the handshake goes on");
        flight.iter().for_each(|datagram| active.handle_datagram(Instant::now(), datagram));
    }
    let begun = Instant::now();
    while let Some(event) = passive.poll_event() {
        assert!(!matches!(event, DtlsEvent::Failed(_)));
        black_box(event);
    }
    spent + begun.elapsed()
}

fn bench(criterion: &mut Criterion) {
    let (client, server) = (End::new(), End::new());
    criterion.bench_function("dtls handshake, server's side", |bencher| {
        bencher.iter_custom(|count| (0..count).map(|_| handshake(&client, &server)).sum());
    });
}

criterion_group!(benches, bench);
criterion_main!(benches);
