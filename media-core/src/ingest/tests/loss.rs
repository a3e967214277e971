//! Packet loss between publisher and server, in virtual time: what stays missing, and how many NACKed numbers it took.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashSet};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

const MEDIA: u32 = 1;
const RTX: u32 = 2;
/// Packets a second.
const RATE: u64 = 250;
const TICK_US: u64 = 10_000;

/// The path and the publisher's behaviour.
#[derive(Clone, Copy)]
struct Trace {
    seconds: u64,
    /// One way, in milliseconds; up to `jitter` is added, which reorders.
    delay: u64,
    jitter: u64,
    /// Loss in either direction, of 1000.
    loss: u64,
    /// Mean length of a loss, in packets.
    burst: u64,
    rtx: bool,
    /// It answers every request twice.
    twice: bool,
    answers: bool,
    /// It answers requests for a packet at most once in this many milliseconds.
    quiet: u64,
}

const STEADY: Trace =
    Trace { seconds: 60, delay: 25, jitter: 3, loss: 0, burst: 1, rtx: true, twice: false, answers: true, quiet: 0 };

#[derive(Debug, Default)]
struct Outcome {
    sent: u64,
    /// Packets whose first transmission was lost.
    lost: u64,
    /// … and that were never received.
    missing: u64,
    requested: u64,
    keyframes_needed: u64,
    duplicates: u64,
    round_trip: Duration,
    packets_lost: i64,
}

impl Outcome {
    fn residual(&self) -> f64 {
        self.missing as f64 / self.sent as f64
    }

    fn requests_per_loss(&self) -> f64 {
        self.requested as f64 / self.lost.max(1) as f64
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// The publisher sends this packet.
    Send(u64),
    /// A media packet reaches the server.
    Media(u64),
    /// A retransmission with its own number reaches the server.
    Rtx(u64, u16),
    /// A request reaches the publisher.
    Nack(u64),
    Tick,
}

/// One direction of the path: Gilbert's model, whose losses are bursts.
struct Link {
    trace: Trace,
    losing: bool,
}

impl Link {
    /// When the packet arrives, in microseconds; `None` if it is lost.
    fn carry(&mut self, at: u64, random: &mut StdRng) -> Option<u64> {
        let Trace { loss, burst, delay, jitter, .. } = self.trace;
        let stay = if self.losing { 1_000_000 - 1_000_000 / burst } else { 1_000 * loss / burst };
        let stay = if burst == 1 { 1_000 * loss } else { stay };
        self.losing = random.random_range(0..1_000_000) < stay;
        (!self.losing).then(|| at + 1_000 * delay + random.random_range(0..=1_000 * jitter))
    }
}

fn bytes(ssrc: u32, payload_type: u8, number: u64, sequence: u16, payload: &[u8]) -> Vec<u8> {
    let fields = HeaderFields {
        marker: true,
        padding: false,
        payload_type,
        sequence_number: sequence,
        timestamp: (number * 90_000 / RATE) as u32,
        ssrc,
    };
    let mut bytes = vec![0; 12];
    write_header(&mut bytes, &fields, []).unwrap();
    bytes.extend_from_slice(payload);
    bytes
}

/// A publisher, its path and the server, in virtual time.
struct Simulation {
    trace: Trace,
    random: StdRng,
    up: Link,
    down: Link,
    ingest: Ingest,
    tracks: Tracks,
    /// What happens next, by time in microseconds.
    events: BinaryHeap<Reverse<(u64, Event)>>,
    /// The stream's sequence numbers that were forwarded.
    received: HashSet<u64>,
    /// When the publisher answered a request for a packet last.
    answered: BTreeMap<u64, u64>,
    rtx_number: u16,
    outcome: Outcome,
}

impl Simulation {
    fn new(start: Instant, trace: Trace) -> Simulation {
        let formats = vec![format(96, Codec::Vp8, trace.rtx.then_some(97))];
        let mut tracks = Tracks::new(Duration::from_millis(500));
        Simulation {
            trace,
            random: StdRng::seed_from_u64(1),
            up: Link { trace, losing: false },
            down: Link { trace, losing: false },
            ingest: Ingest::new(start, &[section(MediaKind::Video, formats)], &mut tracks),
            tracks,
            events: [Reverse((0, Event::Send(0))), Reverse((0, Event::Tick))].into(),
            received: HashSet::new(),
            answered: BTreeMap::new(),
            rtx_number: 0,
            outcome: Outcome { sent: trace.seconds * RATE, ..Outcome::default() },
        }
    }

    fn on_send(&mut self, at: u64, number: u64) {
        // The first packet and the last ones are never lost, so that there is a stream and every gap shows.
        let safe = (number == 0 || number + 3 > self.outcome.sent).then_some(at + 1_000 * self.trace.delay);
        match safe.or_else(|| self.up.carry(at, &mut self.random)) {
            Some(arrival) => self.events.push(Reverse((arrival, Event::Media(number)))),
            None => self.outcome.lost += 1,
        }
        if number + 1 < self.outcome.sent {
            self.events.push(Reverse(((number + 1) * 1_000_000 / RATE, Event::Send(number + 1))));
        }
    }

    fn on_nack(&mut self, at: u64, number: u64) {
        let Trace { answers, quiet, twice, rtx, .. } = self.trace;
        let is_quiet = self.answered.get(&number).is_some_and(|&before| at < before + 1_000 * quiet);
        if !answers || is_quiet {
            return;
        }
        self.answered.insert(number, at);
        for _ in 0..1 + usize::from(twice) {
            self.rtx_number = self.rtx_number.wrapping_add(1);
            let again = if rtx { Event::Rtx(number, self.rtx_number) } else { Event::Media(number) };
            let arrival = self.up.carry(at, &mut self.random);
            self.events.extend(arrival.map(|arrival| Reverse((arrival, again))));
        }
    }

    fn on_tick(&mut self, at: u64, now: Instant) {
        let mut requested = Vec::new();
        self.ingest.poll_nack(now, |_, numbers| requested.extend_from_slice(numbers));
        self.outcome.keyframes_needed += self.ingest.take_keyframes_needed().count() as u64;
        self.outcome.requested += requested.len() as u64;
        // One datagram carries them all. One is sent in every tick, so that bursts end there, too.
        if let Some(arrival) = self.down.carry(at, &mut self.random).filter(|_| !requested.is_empty()) {
            let newest = at * RATE / 1_000_000;
            for sequence in requested {
                let age = (newest as u16).wrapping_sub(sequence);
                self.events.push(Reverse((arrival, Event::Nack(newest - u64::from(age)))));
            }
        }
        if at < (self.trace.seconds + 2) * 1_000_000 {
            self.events.push(Reverse((at + TICK_US, Event::Tick)));
        }
    }

    fn on_packet(&mut self, at: u64, now: Instant, packet: &[u8]) {
        let unix = START_UNIX + Duration::from_micros(at);
        match self.ingest.on_rtp(&Arrival { now, unix, ecn: Ecn::NotEct }, packet, &mut self.tracks) {
            Ok(Accepted::Forward { sequence, .. }) => assert!(self.received.insert(sequence), "{sequence} twice"),
            Ok(Accepted::Consumed) => self.outcome.duplicates += 1,
            other => panic!("{other:?}"),
        }
    }
}

fn run(trace: Trace) -> Outcome {
    let start = Instant::now();
    let mut simulation = Simulation::new(start, trace);
    while let Some(Reverse((at, event))) = simulation.events.pop() {
        let now = start + Duration::from_micros(at);
        let body = |number: u64| if number == 0 { KEYFRAME } else { DELTA };
        match event {
            Event::Send(number) => simulation.on_send(at, number),
            Event::Nack(number) => simulation.on_nack(at, number),
            Event::Tick => simulation.on_tick(at, now),
            Event::Media(number) => {
                simulation.on_packet(at, now, &bytes(MEDIA, 96, number, number as u16, body(number)));
            }
            Event::Rtx(number, own) => {
                let payload = [&(number as u16).to_be_bytes()[..], body(number)].concat();
                simulation.on_packet(at, now, &bytes(RTX, 97, number, own, &payload));
            }
        }
    }
    let Simulation { ingest, received, outcome, .. } = simulation;
    Outcome {
        missing: outcome.sent - received.len() as u64,
        round_trip: ingest.round_trip_time().unwrap_or_default(),
        packets_lost: ingest.packets_lost(),
        ..outcome
    }
}

fn is_near(measured: Duration, millis: u64) -> bool {
    measured.abs_diff(Duration::from_millis(millis)) <= Duration::from_millis(5)
}

// RTCP-09
#[test]
fn random_loss_is_repaired_with_little_more_than_a_request_for_each() {
    for rtx in [true, false] {
        // A request succeeds if neither it nor its answer is lost: 1 / 0.95² and 1 / 0.9² requests are the least.
        for (loss, most_requests) in [(50, 1.17), (100, 1.35)] {
            let outcome = run(Trace { loss, rtx, ..STEADY });
            assert!(outcome.lost > 600, "{outcome:?}");
            assert_eq!(outcome.missing, 0, "{outcome:?}");
            assert!(outcome.requests_per_loss() < most_requests, "{outcome:?}");
            assert!(is_near(outcome.round_trip, 53), "{outcome:?}");
            assert_eq!(outcome.keyframes_needed, 0, "{outcome:?}");
        }
    }
}

// RTCP-09
#[test]
fn random_loss_over_a_long_path_is_repaired_within_the_second() {
    for (loss, residual, most_requests) in [(50, 0.0001, 1.25), (100, 0.0005, 1.45)] {
        let outcome = run(Trace { loss, delay: 100, ..STEADY });
        assert!(outcome.residual() <= residual, "{outcome:?}");
        assert!(outcome.requests_per_loss() < most_requests, "{outcome:?}");
        assert!(is_near(outcome.round_trip, 203), "{outcome:?}");
    }
}

// RTCP-09
#[test]
fn bursts_are_repaired() {
    for delay in [25, 100] {
        let outcome = run(Trace { loss: 50, burst: 12, delay, ..STEADY });
        assert!(outcome.lost > 400, "{outcome:?}");
        assert!(outcome.residual() <= 0.001, "{outcome:?}");
        // Requests and answers are lost in bursts, too.
        assert!(outcome.requests_per_loss() < 2.0, "{outcome:?}");
    }
}

// RTCP-09
#[test]
fn reordering_within_the_guard_is_not_nacked_and_beyond_it_little() {
    let outcome = run(Trace { jitter: 9, ..STEADY });
    assert_eq!((outcome.requested, outcome.missing, outcome.duplicates), (0, 0, 0), "{outcome:?}");
    assert_eq!(outcome.packets_lost, 0);
    for rtx in [true, false] {
        let outcome = run(Trace { jitter: 30, rtx, ..STEADY });
        assert_eq!((outcome.missing, outcome.keyframes_needed), (0, 0), "{outcome:?}");
        assert!(outcome.requested < outcome.sent / 3, "{outcome:?}");
        assert!(
            outcome.duplicates >= outcome.requested,
            "packets received out of order were received twice: {outcome:?}"
        );
    }
}

// RTCP-09, RTCP-10
#[test]
fn duplicate_answers_are_forwarded_once_and_do_not_distort_the_round_trip_time() {
    let outcome = run(Trace { loss: 50, twice: true, ..STEADY });
    assert_eq!(outcome.missing, 0, "{outcome:?}");
    assert!(outcome.duplicates > outcome.lost / 2, "{outcome:?}");
    assert!(outcome.requests_per_loss() < 1.12, "{outcome:?}");
    assert!(is_near(outcome.round_trip, 53), "{outcome:?}");
}

// RTCP-09: senders keep answers for one packet a round trip apart.
#[test]
fn a_sender_that_answers_once_in_a_round_trip_is_nacked_at_its_pace() {
    let outcome = run(Trace { loss: 50, delay: 100, quiet: 200, ..STEADY });
    assert!(outcome.residual() <= 0.0001, "{outcome:?}");
    assert!(outcome.requests_per_loss() < 1.25, "{outcome:?}");
}

// RTCP-03, RFC 4588 §6.3: a packet that RTX repairs was lost nevertheless, once; one sent again under its own number was not.
#[test]
fn repaired_packets_count_as_lost_once_or_not_at_all() {
    let outcome = run(Trace { loss: 50, ..STEADY });
    assert_eq!(outcome.packets_lost, outcome.lost as i64, "{outcome:?}");
    let outcome = run(Trace { loss: 50, rtx: false, ..STEADY });
    assert_eq!(outcome.packets_lost, outcome.missing as i64 - outcome.duplicates as i64, "{outcome:?}");
}

// Q-07, RTCP-09
#[test]
fn a_publisher_that_never_answers_gets_one_request_for_a_packet() {
    let outcome = run(Trace { loss: 20, answers: false, ..STEADY });
    assert_eq!(outcome.missing, outcome.lost, "{outcome:?}");
    assert!(outcome.requests_per_loss() < 1.2, "{outcome:?}");
    assert!(outcome.keyframes_needed > outcome.lost / 2, "each loss needs a keyframe: {outcome:?}");
}
