//! How live a viewer is after its fast start, in virtual time: whenever it joins, and however late frames come.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

/// ms: a viewer is as live as everybody after so long.
const FAST_START: u64 = 1_500;
const RUN: u64 = 6_000;

/// 30 frames a second, a keyframe every two seconds, each frame up to a millisecond late; those sent while the uplink stalls
/// arrive together at its end. Arrival of each frame in µs.
fn arrivals(stall: std::ops::Range<u64>, random: &mut StdRng) -> Vec<u64> {
    let arrival = |frame: u64| {
        let sent = 1_000_000 * frame / 30 + random.random_range(0..1_000);
        if stall.contains(&(sent / 1_000)) { stall.end * 1_000 } else { sent }
    };
    (0..RUN * 30 / 1_000).map(arrival).collect()
}

/// How long after its arrival the latest frame was sent to a viewer that joins at `joined`, in ms, of those that arrived when
/// the viewer was there for longer than a fast start takes. The shard serves the viewer when a frame arrives, and every 5 ms
/// from `tick` on while the viewer lags.
fn latest(joined: u64, tick: u64, stall: std::ops::Range<u64>, random: &mut StdRng) -> f64 {
    let arrivals = arrivals(stall, random);
    let (mut viewer, _) = viewer(Some(101));
    let mut published = Published::new();
    let start = published.start;
    let at = |micros: u64| start + Duration::from_micros(micros);
    let (mut received, mut sent, mut latest, mut is_lagging, mut has_joined) = (0, 0, 0, false, false);
    for now in (0..RUN * 1_000).step_by(100) {
        let before = received;
        while arrivals.get(received as usize).is_some_and(|&arrival| arrival <= now) {
            let arrived = at(arrivals[received as usize]);
            let (timestamp, keyframe) = (received as u32 * 3_000, received % 60 == 0);
            let info = PacketInfo {
                sequence: received,
                timestamp,
                arrived,
                payload_type: 96,
                marker: true,
                keyframe,
                layer: PacketLayer::ONLY,
            };
            assert!(published.encoding(TrackId::VIDEO).admit(info, &[], b"frame"));
            received += 1;
        }
        let joins = !has_joined && now >= joined * 1_000;
        if joins {
            has_joined = true;
            assert!(video(&mut viewer).join(at(now), published.video()));
            sent = published.video().latest_keyframe().unwrap();
        }
        let resumes = is_lagging && now % 5_000 == tick * 1_000;
        if has_joined && (received > before || joins || resumes) {
            let (served, packets) = published.serve(at(now), &mut viewer, false);
            is_lagging = served.is_lagging;
            for frame in sent..sent + packets.len() as u64 {
                let arrival = arrivals[frame as usize];
                if arrival >= (joined + FAST_START) * 1_000 {
                    latest = latest.max(now - arrival);
                }
            }
            sent += packets.len() as u64;
        }
    }
    assert!(received - sent <= 1, "{sent} of {received}");
    latest as f64 / 1_000.0
}

// F-05
#[test]
fn a_viewer_that_joins_at_any_moment_is_sent_each_frame_as_it_comes() {
    for seed in 0..4 {
        let mut random = StdRng::seed_from_u64(seed);
        for joined in 2_300..2_370 {
            let latest = latest(joined, random.random_range(0..5), 0..0, &mut random);
            assert!(latest < 1.0, "joined at {joined} ms with seed {seed}: {latest} ms behind");
        }
    }
}

// F-05
#[test]
fn a_viewer_that_joins_before_a_late_burst_is_soon_as_live_as_everybody() {
    let mut random = StdRng::seed_from_u64(5);
    for stall in [50, 200, 500, 1_000] {
        for before in [1, 10, 40, 150] {
            let end = 2_500 + stall;
            let latest = latest(end - before, random.random_range(0..5), 2_500..end, &mut random);
            assert!(latest < 1.0, "{before} ms before a burst of {stall} ms: {latest} ms behind");
        }
    }
}
