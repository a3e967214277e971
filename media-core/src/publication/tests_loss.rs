//! Losses on the way from the publisher, in virtual time: what is missing in the end, and how many requests it took.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashSet};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::tests::{DELTA, KEYFRAME, START_UNIX, format, section};
use super::*;
use crate::media::Codec;
use crate::rtp::{HeaderFields, write_header};

const MEDIA: u32 = 1;
const RTX: u32 = 2;
/// Packets a second.
const RATE: u64 = 250;
const TICK_US: u64 = 10_000;

/// The path and the publisher's manners.
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
    /// … and that never came.
    missing: u64,
    requested: u64,
    keyframes_wanted: u64,
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

/// One direction of the path: Gilbert's model, whose losses come in runs.
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

fn run(trace: Trace) -> Outcome {
    let mut random = StdRng::seed_from_u64(1);
    let mut up = Link { trace, losing: false };
    let mut down = Link { trace, losing: false };
    let start = Instant::now();
    let formats = vec![format(96, Codec::Vp8, trace.rtx.then_some(97))];
    let mut publication = Publication::new(start, &[section(MediaKind::Video, formats)]);
    let mut tracks = [Track::new(MediaKind::Audio), Track::new(MediaKind::Video)];
    let mut outcome = Outcome { sent: trace.seconds * RATE, ..Outcome::default() };
    let mut events: BinaryHeap<Reverse<(u64, Event)>> = BinaryHeap::new();
    events.push(Reverse((0, Event::Send(0))));
    events.push(Reverse((0, Event::Tick)));
    let (mut came, mut answered) = (HashSet::new(), BTreeMap::new());
    let mut rtx_number = 0_u16;
    let end = (trace.seconds + 2) * 1_000_000;
    while let Some(Reverse((at, event))) = events.pop() {
        let now = start + Duration::from_micros(at);
        let unix = START_UNIX + Duration::from_micros(at);
        let body = |number: u64| if number == 0 { KEYFRAME } else { DELTA };
        let packet = match event {
            Event::Send(number) => {
                // The first packet and the last ones always come, so that there is a stream and every gap shows.
                let safe = (number == 0 || number + 3 > outcome.sent).then_some(at + 1_000 * trace.delay);
                match safe.or_else(|| up.carry(at, &mut random)) {
                    Some(arrival) => events.push(Reverse((arrival, Event::Media(number)))),
                    None => outcome.lost += 1,
                }
                if number + 1 < outcome.sent {
                    events.push(Reverse(((number + 1) * 1_000_000 / RATE, Event::Send(number + 1))));
                }
                continue;
            }
            Event::Nack(number) => {
                let quiet = answered.get(&number).is_some_and(|&before| at < before + 1_000 * trace.quiet);
                if trace.answers && !quiet {
                    answered.insert(number, at);
                    for _ in 0..1 + usize::from(trace.twice) {
                        rtx_number = rtx_number.wrapping_add(1);
                        let again = if trace.rtx { Event::Rtx(number, rtx_number) } else { Event::Media(number) };
                        events.extend(up.carry(at, &mut random).map(|arrival| Reverse((arrival, again))));
                    }
                }
                continue;
            }
            Event::Tick => {
                let mut asked = Vec::new();
                let wanted = publication.poll_nack(now, |_, numbers| asked.extend_from_slice(numbers));
                outcome.keyframes_wanted += u64::from(wanted);
                outcome.requested += asked.len() as u64;
                // One datagram carries them all. Something goes that way in every tick, so that bursts end there, too.
                if let Some(arrival) = down.carry(at, &mut random).filter(|_| !asked.is_empty()) {
                    let newest = at * RATE / 1_000_000;
                    for sequence in asked {
                        let behind = (newest as u16).wrapping_sub(sequence);
                        events.push(Reverse((arrival, Event::Nack(newest - u64::from(behind)))));
                    }
                }
                if at < end {
                    events.push(Reverse((at + TICK_US, Event::Tick)));
                }
                continue;
            }
            Event::Media(number) => bytes(MEDIA, 96, number, number as u16, body(number)),
            Event::Rtx(number, own) => {
                let payload = [&(number as u16).to_be_bytes()[..], body(number)].concat();
                bytes(RTX, 97, number, own, &payload)
            }
        };
        match publication.on_rtp(now, unix, &packet, &mut tracks) {
            Ok(Accepted::Forward { sequence, .. }) => assert!(came.insert(sequence), "{sequence} twice"),
            Ok(Accepted::Consumed) => outcome.duplicates += 1,
            other => panic!("{other:?}"),
        }
    }
    outcome.missing = outcome.sent - came.len() as u64;
    outcome.round_trip = publication.round_trip_time().unwrap_or_default();
    outcome.packets_lost = publication.packets_lost();
    outcome
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
            assert_eq!(outcome.keyframes_wanted, 0, "{outcome:?}");
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
        // A burst takes requests and answers with it, too.
        assert!(outcome.requests_per_loss() < 2.0, "{outcome:?}");
    }
}

// RTCP-09
#[test]
fn reordering_within_the_guard_asks_for_nothing_and_beyond_it_for_little() {
    let outcome = run(Trace { jitter: 9, ..STEADY });
    assert_eq!((outcome.requested, outcome.missing, outcome.duplicates), (0, 0, 0), "{outcome:?}");
    assert_eq!(outcome.packets_lost, 0);
    for rtx in [true, false] {
        let outcome = run(Trace { jitter: 30, rtx, ..STEADY });
        assert_eq!((outcome.missing, outcome.keyframes_wanted), (0, 0), "{outcome:?}");
        assert!(outcome.requested < outcome.sent / 3, "{outcome:?}");
        assert!(outcome.duplicates >= outcome.requested, "what was only late came twice: {outcome:?}");
    }
}

// RTCP-09, RTCP-10
#[test]
fn answers_that_come_twice_are_forwarded_once_and_measured_rightly() {
    let outcome = run(Trace { loss: 50, twice: true, ..STEADY });
    assert_eq!(outcome.missing, 0, "{outcome:?}");
    assert!(outcome.duplicates > outcome.lost / 2, "{outcome:?}");
    assert!(outcome.requests_per_loss() < 1.12, "{outcome:?}");
    assert!(is_near(outcome.round_trip, 53), "{outcome:?}");
}

// RTCP-09: senders keep answers apart by a round trip of their own.
#[test]
fn a_sender_that_answers_once_in_a_round_trip_is_asked_at_its_pace() {
    let outcome = run(Trace { loss: 50, delay: 100, quiet: 200, ..STEADY });
    assert!(outcome.residual() <= 0.0001, "{outcome:?}");
    assert!(outcome.requests_per_loss() < 1.25, "{outcome:?}");
}

// RTCP-03, RFC 4588 §6.3: what RTX brings back was lost nevertheless, once; a packet sent again in its own place was not.
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
    assert!(outcome.keyframes_wanted > outcome.lost / 2, "each loss needs a keyframe: {outcome:?}");
}
