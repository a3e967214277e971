//! Probing: short clusters of packets, faster than the estimate, that show whether the path carries more
//! (as libwebrtc does it: clusters of 15 ms and 5 packets, at first at 3 and 6 times the start value, then at twice what
//! the last one measured for as long as that works).
//!
//! Every packet sent during a cluster belongs to it; padding or retransmissions fill what media leaves of its rate.

use std::time::{Duration, Instant};

use super::Micros;
use super::delay::MIN_PAUSE;
use super::history::SentPacket;

/// During a cluster the owner asks for its next part this often.
pub(super) const PROBE_INTERVAL: Duration = Duration::from_millis(5);

/// Shortest cluster in µs.
const MIN_SPAN: i32 = 15_000;
/// A cluster that is not complete after so many µs ends as it is.
const MAX_SPAN: i32 = 200_000;
/// Most that is sent of a cluster at once, in µs of its rate.
const MAX_PART: f64 = 25_000.0;
const MIN_PACKETS: u16 = 5;
/// Part of a cluster's packets that have to arrive.
const MIN_RECEIVED: f64 = 0.8;
/// A path that takes less than this part of a cluster's rate is full …
const UNSATURATED: f64 = 0.9;
/// … and so much of it is used.
const UTILISATION: f64 = 0.95;
/// A result of at least this part of the cluster's rate calls for a faster one.
const CONTINUE: f64 = 0.7;
/// A result that takes longer is not waited for.
const MAX_WAIT: Duration = Duration::from_secs(1);
/// Time between attempts to climb.
const PERIOD: Duration = Duration::from_secs(5);
/// The same where a layer waits to be climbed.
const EAGER_PERIOD: Duration = Duration::from_secs(1);
/// After a cluster during which the path paused.
const RETRY: Duration = Duration::from_secs(1);
/// A drop that is over is probed after this time.
const RECOVERY: Duration = Duration::from_secs(2);
/// A fall below this part of the former estimate is a drop.
const DROP: f64 = 0.66;
/// Decreases within this time are one.
const DROP_SPAN: Duration = Duration::from_secs(5);
/// Clusters whose feedback is awaited.
const CLUSTERS: usize = 3;

/// What a cluster found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ProbeResult {
    /// Bits per second.
    pub(super) rate: f64,
    /// The path carries this and no more.
    pub(super) saturated: bool,
}

#[derive(Clone, Copy, Debug)]
struct Cluster {
    id: u8,
    /// Bits per second.
    rate: f64,
    begun: Micros,
    sent: Sent,
    received: Received,
}

/// The packets of a cluster as they were sent. Counts saturate, whatever the caller sends within a cluster's time.
#[derive(Clone, Copy, Debug)]
struct Sent {
    first: Option<Micros>,
    last: Micros,
    bytes: u32,
    packets: u16,
    /// Bytes that left at `first`, and at `last`.
    first_part: u32,
    last_part: u32,
}

/// Those of them that feedback reported as received.
#[derive(Clone, Copy, Debug)]
struct Received {
    first: Option<Micros>,
    last: Micros,
    /// Longest time between two arrivals, in µs.
    gap: i32,
    first_bytes: u32,
    bytes: u32,
    packets: u16,
    /// Feedback told more since the last look.
    fresh: bool,
}

impl Sent {
    fn on_packet(&mut self, at: Micros, bytes: u32) {
        if at == *self.first.get_or_insert(at) {
            self.first_part = self.first_part.saturating_add(bytes);
        }
        if at != self.last {
            (self.last, self.last_part) = (at, 0);
        }
        self.last_part = self.last_part.saturating_add(bytes);
        self.bytes = self.bytes.saturating_add(bytes);
        self.packets = self.packets.saturating_add(1);
    }
}

impl Received {
    fn on_packet(&mut self, arrived: Micros, bytes: u32) {
        match self.first {
            Some(first) if arrived.since(first) >= 0 => {
                if arrived.since(self.last) > 0 {
                    self.gap = self.gap.max(arrived.since(self.last));
                    self.last = arrived;
                }
            }
            first => {
                if first.is_none() {
                    self.last = arrived;
                }
                (self.first, self.first_bytes) = (Some(arrived), bytes);
            }
        }
        self.bytes = self.bytes.saturating_add(bytes);
        self.packets = self.packets.saturating_add(1);
        self.fresh = true;
    }

    /// True if the path paused for most of the time, so that its rate cannot be measured.
    fn has_paused(&self) -> bool {
        let span = self.first.map_or(0, |first| self.last.since(first));
        self.gap >= MIN_PAUSE && self.gap > span / 2
    }
}

impl Cluster {
    fn new(id: u8, rate: f64, at: Micros) -> Cluster {
        Cluster {
            id,
            rate,
            begun: at,
            sent: Sent { first: None, last: at, bytes: 0, packets: 0, first_part: 0, last_part: 0 },
            received: Received { first: None, last: at, gap: 0, first_bytes: 0, bytes: 0, packets: 0, fresh: false },
        }
    }

    fn age(&self, at: Micros) -> i32 {
        at.since(self.sent.first.unwrap_or(self.begun))
    }

    /// Bytes of the whole cluster that are due by now.
    fn due(&self, at: Micros) -> f64 {
        let part = f64::from(self.age(at).max(0)) + PROBE_INTERVAL.as_micros() as f64;
        self.rate * part / 8e6 - f64::from(self.sent.bytes)
    }

    fn is_complete(&self, at: Micros) -> bool {
        let enough = f64::from(self.sent.bytes) >= self.rate * f64::from(MIN_SPAN) / 8e6;
        enough && self.sent.packets >= MIN_PACKETS && self.age(at) >= MIN_SPAN
    }

    fn result(&self) -> Option<ProbeResult> {
        let Cluster { sent, received, .. } = self;
        let enough = f64::from(received.packets) >= MIN_RECEIVED * f64::from(sent.packets.max(MIN_PACKETS))
            && f64::from(received.bytes) >= MIN_RECEIVED * f64::from(sent.bytes);
        let sent_span = sent.last.since(sent.first?);
        let arrival_span = received.last.since(received.first?);
        if !enough || received.has_paused() || sent_span <= 0 || !(1..1_000_000).contains(&arrival_span) {
            return None;
        }
        let rate = |bytes: u32, span: i32| f64::from(bytes) * 8e6 / f64::from(span);
        // One end of the train is no part of the span between both.
        let sent_rate = rate(sent.bytes - sent.first_part.min(sent.last_part), sent_span);
        let received_rate = rate(received.bytes - received.first_bytes, arrival_span);
        let saturated = received_rate < UNSATURATED * sent_rate;
        let rate = if saturated { UTILISATION * received_rate } else { received_rate.min(sent_rate) };
        Some(ProbeResult { rate, saturated })
    }
}

/// A large decrease.
#[derive(Clone, Copy, Debug)]
struct Drop {
    at: Instant,
    former: f64,
    /// It was large enough to be probed for.
    probe: bool,
}

/// When to probe, and the results.
#[derive(Clone, Debug)]
pub(super) struct Prober {
    /// Rates of clusters to begin; 0 is none.
    pending: [f64; 2],
    begun: bool,
    /// The cluster that is being sent.
    active: Option<Cluster>,
    awaited: [Option<(Instant, Cluster)>; CLUSTERS],
    next_id: u8,
    next_attempt: Option<Instant>,
    is_eager: bool,
    drop: Option<Drop>,
}

impl Prober {
    pub(super) fn new() -> Prober {
        Prober {
            pending: [0.0; 2],
            begun: false,
            active: None,
            awaited: [None; CLUSTERS],
            next_id: 1,
            next_attempt: None,
            is_eager: false,
            drop: None,
        }
    }

    /// Tries to climb more often, or no longer so.
    pub(super) fn set_eager(&mut self, is_eager: bool) {
        self.is_eager = is_eager;
    }

    /// A cluster is being sent.
    pub(super) fn is_probing(&self) -> bool {
        self.active.is_some()
    }

    /// The cluster of a packet that is sent now; 0 for none.
    #[inline]
    pub(super) fn on_sent(&mut self, at: Micros, bytes: u32) -> u8 {
        let Some(cluster) = &mut self.active else { return 0 };
        if cluster.age(at) > MAX_SPAN {
            return 0;
        }
        cluster.sent.on_packet(at, bytes);
        cluster.id
    }

    pub(super) fn on_received(&mut self, packet: &SentPacket, arrived: Micros) {
        let active = self.active.as_mut();
        let mut clusters = active.into_iter().chain(self.awaited.iter_mut().flatten().map(|(_, cluster)| cluster));
        if let Some(cluster) = clusters.find(|cluster| cluster.id == packet.cluster) {
            cluster.received.on_packet(arrived, u32::from(packet.bytes));
        }
    }

    /// The best of what the clusters found since the last call. A good one is followed by a faster one up to `ceiling`,
    /// if the path is not `congested`.
    pub(super) fn results(&mut self, now: Instant, ceiling: f64, congested: bool) -> Option<ProbeResult> {
        let mut best: Option<ProbeResult> = None;
        for slot in &mut self.awaited {
            let Some((until, cluster)) = slot else { continue };
            if cluster.received.has_paused() {
                self.next_attempt = self.next_attempt.map(|next| next.min(now + RETRY));
            }
            if std::mem::take(&mut cluster.received.fresh)
                && let Some(result) = cluster.result()
            {
                if best.is_none_or(|best| result.rate > best.rate) {
                    best = Some(result);
                }
                let newest = cluster.id == last_id(self.next_id);
                if newest && !congested && result.rate >= CONTINUE * cluster.rate && self.active.is_none() {
                    let rate = (2.0 * result.rate).min(ceiling);
                    if rate > cluster.rate && self.pending[0] == 0.0 {
                        self.pending[0] = rate;
                    }
                }
            }
            if now >= *until || cluster.received.packets >= cluster.sent.packets {
                *slot = None;
            }
        }
        best
    }

    /// The estimate fell from `before` to `after` by over-use or loss.
    pub(super) fn on_decrease(&mut self, now: Instant, before: f64, after: f64) {
        let former = match self.drop {
            Some(drop) if now.saturating_duration_since(drop.at) < DROP_SPAN => drop.former.max(before),
            _ => before,
        };
        self.drop = Some(Drop { at: now, former, probe: after < DROP * former });
        self.pending = [0.0; 2];
    }

    /// Ends clusters that are complete or too old.
    pub(super) fn poll(&mut self, now: Instant, at: Micros) {
        if self.active.is_some_and(|cluster| cluster.age(at) > MAX_SPAN || cluster.is_complete(at)) {
            self.end_cluster(now);
        }
        for slot in &mut self.awaited {
            if slot.is_some_and(|(until, _)| now >= until) {
                *slot = None;
            }
        }
    }

    fn end_cluster(&mut self, now: Instant) {
        let Some(cluster) = self.active.take().filter(|cluster| cluster.sent.packets >= MIN_PACKETS) else { return };
        self.awaited[usize::from(cluster.id) % CLUSTERS] = Some((now + MAX_WAIT, cluster));
    }

    /// The bytes of a cluster that are due besides media; begins a cluster if it is time to. `estimate` and `ceiling` in
    /// bits per second: nothing is probed above the ceiling, and without one no cluster begins.
    pub(super) fn next(&mut self, now: Instant, at: Micros, estimate: f64, ceiling: Option<f64>) -> Option<usize> {
        self.poll(now, at);
        if self.active.is_none() {
            let rate = self.next_rate(now, estimate, ceiling?)?;
            self.active = Some(Cluster::new(self.next_id, rate, at));
            self.next_id = self.next_id.checked_add(1).unwrap_or(1);
            self.next_attempt = Some(now + if self.is_eager { EAGER_PERIOD } else { PERIOD });
        }
        let cluster = self.active?;
        let bytes = cluster.due(at).min(cluster.rate * MAX_PART / 8e6);
        (bytes >= 1.0).then_some(bytes as usize)
    }

    fn next_rate(&mut self, now: Instant, estimate: f64, ceiling: f64) -> Option<f64> {
        if estimate >= ceiling {
            return None;
        }
        if !self.begun {
            self.begun = true;
            self.pending = [3.0 * estimate, 6.0 * estimate];
        }
        let [first, second] = self.pending;
        if first > 0.0 {
            self.pending = [second, 0.0];
            if first >= ceiling {
                self.pending = [0.0; 2];
            }
            return Some(first.min(ceiling)).filter(|&rate| rate > estimate);
        }
        if let Some(drop) = self.drop.filter(|drop| drop.probe && now.saturating_duration_since(drop.at) >= RECOVERY) {
            self.drop = None;
            return Some((0.85 * drop.former).min(ceiling)).filter(|&rate| rate > 1.1 * estimate);
        }
        if self.next_attempt.is_some_and(|next| now < next) {
            return None;
        }
        Some((2.0 * estimate).min(ceiling))
    }
}

/// The number before `next`.
fn last_id(next: u8) -> u8 {
    if next == 1 { u8::MAX } else { next - 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A prober on a path of some rate, without media; packets of 250 bytes.
    struct Path {
        prober: Prober,
        now: Instant,
        at: Micros,
        capacity: f64,
        free_at: i64,
        estimate: f64,
        rates: Vec<u64>,
        results: Vec<ProbeResult>,
        arrivals: Vec<(SentPacket, Micros)>,
    }

    impl Path {
        fn new(capacity: f64, estimate: f64) -> Path {
            Path {
                prober: Prober::new(),
                now: Instant::now(),
                at: Micros(1_000_000),
                capacity,
                free_at: 0,
                estimate,
                rates: vec![],
                results: vec![],
                arrivals: vec![],
            }
        }

        fn run(&mut self, seconds: u64, step: u64) {
            self.run_for(seconds * 1_000_000, step);
        }

        fn run_for(&mut self, micros: u64, step: u64) {
            for _ in 0..micros / step {
                if let Some(due) = self.prober.next(self.now, self.at, self.estimate, Some(20e6)) {
                    let active = self.prober.active.unwrap();
                    if self.rates.last() != Some(&(active.rate as u64)) {
                        self.rates.push(active.rate as u64);
                    }
                    for _ in 0..due.div_ceil(250) {
                        let cluster = self.prober.on_sent(self.at, 250);
                        assert_eq!(cluster, active.id);
                        self.free_at = self.free_at.max(i64::from(self.at.0)) + (250.0 * 8e6 / self.capacity) as i64;
                        let packet = SentPacket { sent: self.at, bytes: 250, cluster };
                        self.arrivals.push((packet, Micros(self.free_at as u32)));
                    }
                }
                self.now += Duration::from_micros(step);
                self.at = Micros(self.at.0.wrapping_add(step as u32));
                if self.at.0.is_multiple_of(50_000) {
                    let (at, prober) = (self.at, &mut self.prober);
                    self.arrivals.retain(|(packet, arrived)| {
                        let there = at.since(*arrived) >= 0;
                        if there {
                            prober.on_received(packet, *arrived);
                        }
                        !there
                    });
                    if let Some(result) = self.prober.results(self.now, 20e6, false) {
                        self.results.push(result);
                        self.estimate = self.estimate.max(result.rate);
                    }
                }
            }
        }
    }

    #[test]
    fn clusters_climb_up_to_the_paths_rate() {
        // RTCP-16
        let mut path = Path::new(2.5e6, 0.3e6);
        path.run(2, 5_000);
        assert_eq!(path.rates[..2], [900_000, 1_800_000]);
        assert!((2.1e6..2.6e6).contains(&path.estimate), "{} {:?}", path.estimate, path.rates);
        assert!(path.results.last().unwrap().saturated);
    }

    #[test]
    fn an_owner_that_asks_rarely_still_learns_something() {
        // RTCP-16
        let mut path = Path::new(2.5e6, 0.3e6);
        path.run(2, 25_000);
        assert!((0.9e6..2.6e6).contains(&path.estimate), "{} {:?}", path.estimate, path.rates);
    }

    #[test]
    fn a_free_path_is_climbed_up_to_the_ceiling() {
        // RTCP-16
        let mut path = Path::new(1e9, 1e6);
        path.run(5, 5_000);
        assert!(path.estimate > 15e6, "{} {:?}", path.estimate, path.rates);
        path.run(60, 5_000);
        assert!(path.estimate <= 20.5e6, "{} {:?}", path.estimate, path.rates);
    }

    #[test]
    fn a_full_path_is_tried_again_every_five_seconds() {
        let mut path = Path::new(1e6, 0.95e6);
        path.run(2, 5_000);
        path.rates.clear();
        let ids = path.prober.next_id;
        path.run(60, 5_000);
        assert_eq!(path.prober.next_id - ids, 12);
        assert!(path.estimate < 1.1e6, "{}", path.estimate);
    }

    #[test]
    fn a_drop_is_probed_when_it_is_over() {
        // RTCP-16
        let mut path = Path::new(10e6, 3e6);
        path.run(3, 5_000);
        path.rates.clear();
        path.prober.on_decrease(path.now, 3e6, 2e6);
        path.prober.on_decrease(path.now, 2e6, 1e6);
        path.estimate = 1e6;
        path.run(2, 5_000);
        assert!(path.rates.is_empty(), "not at once: {:?}", path.rates);
        path.run(1, 5_000);
        assert_eq!(path.rates[0], 2_550_000);
        assert!(path.estimate > 2.2e6);
    }

    #[test]
    fn feedback_for_clusters_that_never_were_is_ignored() {
        // RTCP-16
        let mut prober = Prober::new();
        for cluster in 0..=u8::MAX {
            prober.on_received(&SentPacket { sent: Micros(0), bytes: 1_000, cluster }, Micros(5));
        }
        assert_eq!(prober.results(Instant::now(), 1e9, false), None);
    }

    #[test]
    fn a_cluster_in_which_the_path_paused_gives_no_result_and_is_repeated() {
        // RTCP-16
        let mut path = Path::new(10e6, 1e6);
        path.run(5, 5_000);
        path.results.clear();
        let ids = path.prober.next_id;
        while !path.prober.is_probing() {
            path.run_for(5_000, 5_000);
        }
        path.free_at = i64::from(path.at.0) + 60_000;
        path.run_for(500_000, 5_000);
        assert_eq!((path.results.len(), path.prober.next_id - ids), (0, 1));
        path.run(1, 5_000);
        assert!(path.results.len() == 1 && path.prober.next_id - ids == 2, "{:?}", path.results);
    }

    #[test]
    fn a_cluster_that_nobody_fills_ends() {
        let mut prober = Prober::new();
        let now = Instant::now();
        assert!(prober.next(now, Micros(0), 1e6, Some(20e6)).is_some());
        assert!(prober.is_probing());
        prober.poll(now + Duration::from_millis(300), Micros(300_000));
        assert!(prober.active.is_none());
        assert_eq!(prober.on_sent(Micros(300_000), 100), 0);
    }
}
