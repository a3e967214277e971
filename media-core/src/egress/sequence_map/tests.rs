//! The record of numbers, by cases and at random.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use std::time::{Duration, Instant};

use super::*;
use crate::egress::fast_start::FastStart;

/// Sends a packet for the first time; its number.
fn send(map: &mut SequenceMap, sequence: u64) -> Option<u16> {
    let number = map.place(sequence)?;
    map.sent(sequence);
    Some(number)
}

fn found(map: &SequenceMap, number: u16) -> Option<(u64, bool)> {
    map.find(number).map(|found| (found.sequence, found.is_reproducible))
}

// RTP-05
#[test]
fn lost_packets_leave_a_gap_and_withheld_ones_none() {
    let mut map = SequenceMap::new(10);
    assert_eq!(found(&map, 10), None);
    assert_eq!([100, 102, 101].map(|sequence| send(&mut map, sequence)), [Some(10), Some(12), Some(11)]);
    map.withhold(103);
    map.withhold(104);
    assert_eq!(send(&mut map, 105), Some(13));
    // Received out of order, from before the discontinuity.
    assert_eq!([99, 103].map(|sequence| send(&mut map, sequence)), [None, None]);
    assert_eq!(send(&mut map, 106), Some(14));
}

// RTCP-08, SRTP-09
#[test]
fn numbers_of_earlier_runs_are_found_and_only_the_present_one_is_reproducible() {
    let mut map = SequenceMap::new(0x7fff);
    for sequence in 0..10 {
        send(&mut map, sequence);
    }
    map.withhold(10);
    send(&mut map, 20);
    send(&mut map, 22);
    // A restart from a cached keyframe sends packets a second time.
    map.restart_at(8, None);
    for sequence in 8..30 {
        send(&mut map, sequence);
    }
    let number = |offset: u16| 0x7fff_u16.wrapping_add(offset);
    let expected = [(0, Some((0, false))), (9, Some((9, false))), (10, Some((20, false))), (12, Some((22, false)))];
    for (offset, expected) in expected {
        assert_eq!(found(&map, number(offset)), expected, "{offset}");
    }
    for offset in 13..35 {
        assert_eq!(found(&map, number(offset)), Some((u64::from(offset) - 5, true)));
    }
    assert_eq!(found(&map, number(35)), None, "not given out");
    assert_eq!(found(&map, number(0).wrapping_sub(1)), None, "before the first");
}

#[test]
fn the_oldest_runs_are_forgotten() {
    let mut map = SequenceMap::new(0);
    for run in 0..40 {
        send(&mut map, 10 * run);
        map.withhold(10 * run + 1);
    }
    assert_eq!(found(&map, 39), Some((390, true)));
    assert_eq!(found(&map, 39 - 16), Some((230, false)));
    let mut map = SequenceMap::new(0);
    for run in 0..400 {
        send(&mut map, 10 * run);
        map.withhold(10 * run + 1);
    }
    assert_eq!(found(&map, 399 - 128), Some((2_710, false)));
    assert_eq!(found(&map, 399 - 129), None);
}

// M1, SRTP-08: to SRTP it would lie ahead.
#[test]
fn what_is_too_far_back_is_neither_sent_nor_found() {
    let mut map = SequenceMap::new(0);
    for sequence in [0, 1, 10_000, 17_000] {
        assert_eq!(send(&mut map, sequence), Some(sequence as u16));
    }
    assert_eq!((found(&map, 1), found(&map, 10_000)), (None, Some((10_000, true))));
    assert_eq!((send(&mut map, 2), send(&mut map, 10_001)), (None, Some(10_001)));
}

// M1, SRTP-09
#[test]
fn timestamps_of_a_run_stay_what_they_were_when_a_fast_start_is_long_over() {
    let start = FastStart::new(Instant::now(), 90_000, 0, 900_000, Duration::from_secs(10));
    let mut map = SequenceMap::new(0);
    map.restart_at(5, Some(start.compression));
    let mut timestamps = Vec::new();
    for (sequence, timestamp) in [(5, 0), (6, 90_000), (7, 180_000)] {
        map.expire_compression(sequence, timestamp);
        timestamps.push((send(&mut map, sequence).unwrap(), timestamp, map.timestamp(timestamp)));
    }
    let far = 900_000 + 90_000 * 200;
    // Received out of order, it is no reason; in order, it is, and it has no other number for that.
    map.expire_compression(6, far);
    assert_eq!(map.timestamp(0), 900_000);
    map.expire_compression(9, far);
    assert_eq!((send(&mut map, 9), map.timestamp(far), map.timestamp(0)), (Some(4), far, 0));
    for (number, original, sent) in timestamps {
        let found = map.find(number).unwrap();
        assert_eq!((found.timestamp(original), found.is_reproducible), (sent, false));
    }
}

/// Sends a packet that was received out of order; its number.
fn send_late(map: &mut SequenceMap, sequence: u64) -> Option<u16> {
    let assigned = map.place_late(sequence)?;
    map.sent_late(sequence, assigned.number);
    Some(assigned.number)
}

// RTP-05, SRTP-09
#[test]
fn a_dropped_packet_gives_up_its_own_number_and_no_other() {
    let mut map = SequenceMap::new(10);
    assert_eq!([100, 101].map(|sequence| send(&mut map, sequence)), [Some(10), Some(11)]);
    // 102, 105 and 108 are lost; 103, 104, 106, 107 and 109 are dropped.
    for dropped in [103, 104, 106, 107, 109] {
        map.thin(dropped);
    }
    assert_eq!(send(&mut map, 110), Some(15));
    assert_eq!([108, 102, 105].map(|sequence| send_late(&mut map, sequence)), [Some(14), Some(12), Some(13)]);
    assert_eq!([103, 106, 109].map(|sequence| map.place_late(sequence)), [None; 3], "they have no number");
    for (number, sequence) in [(10, 100), (12, 102), (13, 105), (14, 108), (15, 110)] {
        assert_eq!(found(&map, number), Some((sequence, true)), "the same to the last bit");
    }
    // One that is late behind all that was sent, as the viewer is paced.
    assert_eq!(send_late(&mut map, 111), Some(16));
    // From before another discontinuity nothing is sent any more.
    map.withhold(113);
    assert_eq!(send(&mut map, 114), Some(17));
    assert_eq!([112, 102].map(|sequence| map.place_late(sequence)), [None; 2]);
}

// SRTP-08: numbers of packets that were lost before dropped ones add up.
#[test]
fn numbers_kept_for_lost_packets_never_add_up_to_half_the_circle() {
    let mut map = SequenceMap::new(0);
    assert_eq!(send(&mut map, 0), Some(0));
    let mut last = 0;
    for step in 1..20_u64 {
        map.thin(step * 10_000);
        if step % 4 == 0 {
            let number = send(&mut map, step * 10_000 + 1).unwrap();
            assert!(number.wrapping_sub(last) <= MAX_GAP + 1, "{number} after {last}");
            last = number;
        }
    }
}

// SRTP-09
#[test]
fn a_switch_of_encodings_goes_on_by_one_and_keeps_what_was_sent_reproducible() {
    let mut map = SequenceMap::new(0);
    let other = OperatingPoint::all_of(1);
    assert_eq!([5, 6, 8].map(|sequence| send(&mut map, sequence)), [Some(0), Some(1), Some(3)]);
    map.switch_to(90, other, Changes::default());
    assert_eq!([90, 91].map(|sequence| send(&mut map, sequence)), [Some(4), Some(5)]);
    assert_eq!(map.place_late(7), None, "of the other encoding");
    let found = |number| map.find(number).map(|found| (found.assigned.shape.point.encoding, found.sequence));
    assert_eq!([0, 3, 4, 5, 6].map(found), [Some((0, 5)), Some((0, 8)), Some((1, 90)), Some((1, 91)), None]);
    assert!(map.find(3).unwrap().is_reproducible);
}

// EXT-H03, SRTP-09
#[test]
fn a_packet_that_comes_late_looks_as_those_around_it() {
    let mut map = SequenceMap::new(0);
    let low = OperatingPoint { encoding: 0, spatial: 0, temporal: 0 };
    assert_eq!([0, 2].map(|sequence| send(&mut map, sequence)), [Some(0), Some(2)]);
    map.omit_mid();
    assert_eq!([3, 5].map(|sequence| send(&mut map, sequence)), [Some(3), Some(5)]);
    map.move_to(low);
    assert_eq!(send(&mut map, 7), Some(7));
    let shape = |sequence| map.place_late(sequence).map(|assigned| assigned.shape);
    let all = OperatingPoint::all_of(0);
    assert_eq!(shape(1), Some(Shape { point: all, with_mid: true }));
    assert_eq!(shape(4), Some(Shape { point: all, with_mid: false }));
    assert_eq!(shape(6), Some(Shape { point: low, with_mid: false }));
}

/// What SRTP makes of numbers (RFC 3711 §3.3.1), and which packet each of them stands for.
#[derive(Default)]
struct Given {
    highest: Option<u64>,
    packets: std::collections::HashMap<u64, (u8, u64, usize)>,
}

impl Given {
    fn insert(&mut self, number: u16, packet: (u8, u64, usize)) {
        let highest = self.highest.unwrap_or(1 << 32 | u64::from(number));
        let extended = highest.wrapping_add_signed(i64::from(number.wrapping_sub(highest as u16) as i16));
        self.highest = Some(highest.max(extended));
        assert_eq!(self.packets.insert(extended, packet), None, "{extended} for {packet:?}");
    }
}

// SRTP-08, SRTP-09: no number for two packets over drops, gaps, late packets, switches and restarts.
#[test]
fn no_number_stands_for_two_packets_whatever_is_dropped_late_switched_or_restarted() {
    for seed in 0..30 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut map = SequenceMap::new(random.random());
        let (mut next, mut encoding, mut restarts) = ([0_u64; 3], 0_u8, 0);
        let (mut given, mut missing) = (Given::default(), Vec::new());
        for _ in 0..20_000 {
            let sequence = &mut next[usize::from(encoding)];
            match random.random_range(0..200) {
                0..2 => {
                    map.withhold(*sequence);
                    *sequence += random.random_range(1..100_000);
                }
                2..4 => *sequence += random.random_range(1..100_000),
                4..6 => *sequence += random.random_range(1..20_000),
                6 => {
                    *sequence = sequence.saturating_sub(random.random_range(0..500));
                    map.restart_at(*sequence, None);
                    (restarts, missing) = (restarts + 1, Vec::new());
                }
                7 => {
                    encoding = random.random_range(0..3);
                    let point = OperatingPoint::all_of(encoding);
                    map.switch_to(next[usize::from(encoding)], point, Changes::default());
                    (restarts, missing) = (restarts + 1, Vec::new());
                }
                8 => map.begin_new_run(),
                9 => map.move_to(OperatingPoint { encoding, spatial: random.random_range(0..4), temporal: 0 }),
                _ => {}
            }
            let sequence = next[usize::from(encoding)];
            next[usize::from(encoding)] += 1;
            match random.random_range(0..10) {
                0..3 => map.thin(sequence),
                3 => missing.push(sequence),
                4 if !missing.is_empty() => {
                    let late = missing.swap_remove(random.random_range(0..missing.len()));
                    if let Some(assigned) = map.place_late(late) {
                        assert_eq!(assigned.shape.point.encoding, encoding);
                        map.sent_late(late, assigned.number);
                        given.insert(assigned.number, (encoding, late, restarts));
                    }
                }
                _ => {
                    let number = map.place(sequence).expect("it is the next one");
                    map.sent(sequence);
                    given.insert(number, (encoding, sequence, restarts));
                    let found = map.find(number).expect("it was just sent");
                    assert_eq!((found.sequence, found.assigned.shape.point.encoding), (sequence, encoding));
                }
            }
        }
    }
}
