//! What a run found: a table for people, JSON for programs.

use std::collections::BTreeMap;
use std::time::Duration;

use comfy_table::{Cell, CellAlignment, Table, presets};
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::client::{ClientError, PublisherFigures, ViewerFigures};
use crate::process::Usage;
use crate::run::Plan;
use crate::tally::TrackFigures;

/// Percentiles of some times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Percentiles {
    /// How many there were.
    pub count: u64,
    /// The smallest.
    pub min: f64,
    /// Half are below.
    pub p50: f64,
    /// 95 of 100 are below.
    pub p95: f64,
    /// 99 of 100 are below.
    pub p99: f64,
    /// The largest.
    pub max: f64,
}

impl Percentiles {
    fn of(mut values: Vec<f64>) -> Option<Percentiles> {
        values.sort_by(f64::total_cmp);
        let at = |share: f64| values.get(((values.len() - 1) as f64 * share).round() as usize).copied();
        let (min, max) = (*values.first()?, *values.last()?);
        Some(Percentiles { count: values.len() as u64, min, p50: at(0.5)?, p95: at(0.95)?, p99: at(0.99)?, max })
    }
}

/// One-way latencies of all viewers.
#[derive(Default)]
pub struct Latency(Option<Histogram<u64>>);

impl Latency {
    /// Adds those of some viewers.
    pub fn add(&mut self, other: &Histogram<u64>) {
        match &mut self.0 {
            // All have the same bounds, so that no value falls outside.
            Some(all) => drop(all.add(other)),
            all => *all = Some(other.clone()),
        }
    }

    /// In milliseconds.
    fn percentiles(&self) -> Option<Percentiles> {
        let all = self.0.as_ref().filter(|all| !all.is_empty())?;
        let at = |share: f64| all.value_at_quantile(share) as f64 / 1000.0;
        let (min, max) = (all.min() as f64 / 1000.0, all.max() as f64 / 1000.0);
        Some(Percentiles { count: all.len(), min, p50: at(0.5), p95: at(0.95), p99: at(0.99), max })
    }
}

/// The time in which all clients were connected, and what viewers received in it.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// How long it was.
    pub elapsed: Duration,
    /// RTP packets.
    pub packets: u64,
    /// Payload bytes of those.
    pub bytes: u64,
}

/// What the server used while media flowed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ServerFigures {
    /// CPU time, user and system, in seconds.
    pub cpu_seconds: f64,
    /// Share of one core, 1.0 is all of it.
    pub cores: f64,
    /// CPU time for each packet that a viewer received, in µs.
    pub cpu_us_per_packet: Option<f64>,
    /// Resident memory at the end, in bytes.
    pub resident_bytes: u64,
}

impl ServerFigures {
    /// From readings at the begin and the end of the window.
    pub fn new(from: Usage, to: Usage, window: Window) -> ServerFigures {
        let Window { elapsed, packets, .. } = window;
        let cpu_seconds = to.cpu.saturating_sub(from.cpu).as_secs_f64();
        ServerFigures {
            cpu_seconds,
            cores: cpu_seconds / elapsed.as_secs_f64().max(0.001),
            cpu_us_per_packet: (packets > 0).then(|| cpu_seconds * 1e6 / packets as f64),
            resident_bytes: to.resident,
        }
    }
}

/// The outcome of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// All clients connected, and every viewer received everything whole, once and without a gap.
    pub integrity: bool,
    /// Publishers wanted.
    pub publishers: usize,
    /// Publishers that connected.
    pub publishers_connected: usize,
    /// Viewers wanted.
    pub viewers: usize,
    /// Viewers that connected.
    pub viewers_connected: usize,
    /// Viewers that received nothing wrong.
    pub viewers_intact: usize,
    /// Seconds of running media.
    pub seconds: f64,
    /// RTP packets that publishers sent.
    pub packets_sent: u64,
    /// Packets that publishers sent again.
    pub packets_resent: u64,
    /// Keyframe requests that publishers received.
    pub keyframe_requests: u64,
    /// Audio of all viewers.
    pub audio: TrackFigures,
    /// Video of all viewers.
    pub video: TrackFigures,
    /// Packets of unknown payload types or SSRCs.
    pub unexpected: u64,
    /// Packets that did not authenticate or were replayed.
    pub refused: u64,
    /// Received payload, all viewers, in Mbit/s of running media.
    pub received_mbit_per_second: f64,
    /// POST to the end of the handshake, in ms.
    pub connect_ms: Option<Percentiles>,
    /// POST to the first RTP packet, in ms.
    pub first_rtp_ms: Option<Percentiles>,
    /// POST to the first keyframe, in ms.
    pub first_keyframe_ms: Option<Percentiles>,
    /// Publisher's send to viewer's receive, in ms.
    pub latency_ms: Option<Percentiles>,
    /// The server process.
    pub server: Option<ServerFigures>,
    /// Errors of clients, and how often each came.
    pub errors: BTreeMap<String, usize>,
}

impl Report {
    /// Sums up what the clients saw.
    pub fn new(
        plan: &Plan,
        window: Window,
        publishers: &[PublisherFigures],
        viewers: &[ViewerFigures],
        latency: &Latency,
        server: Option<ServerFigures>,
        errors: &[ClientError],
    ) -> Report {
        let mut counted = BTreeMap::new();
        for error in errors {
            *counted.entry(error.to_string()).or_insert(0) += 1;
        }
        let (mut audio, mut video) = (TrackFigures::default(), TrackFigures::default());
        for viewer in viewers {
            audio.add(&viewer.audio);
            video.add(&viewer.video);
        }
        let times = |value: &dyn Fn(&ViewerFigures) -> Option<f64>| {
            Percentiles::of(viewers.iter().filter_map(value).map(|seconds| seconds * 1000.0).collect())
        };
        let intact = viewers.iter().filter(|viewer| viewer.is_intact()).count();
        Report {
            integrity: errors.is_empty() && intact == plan.viewers && publishers.len() == plan.publishers,
            publishers: plan.publishers,
            publishers_connected: publishers.len(),
            viewers: plan.viewers,
            viewers_connected: viewers.len(),
            viewers_intact: intact,
            seconds: window.elapsed.as_secs_f64(),
            packets_sent: publishers.iter().map(|publisher| publisher.packets).sum(),
            packets_resent: publishers.iter().map(|publisher| publisher.resent).sum(),
            keyframe_requests: publishers.iter().map(|publisher| publisher.keyframe_requests).sum(),
            audio,
            video,
            unexpected: viewers.iter().map(|viewer| viewer.unexpected).sum(),
            refused: viewers.iter().map(|viewer| viewer.refused).sum(),
            received_mbit_per_second: window.bytes as f64 * 8e-6 / window.elapsed.as_secs_f64().max(0.001),
            connect_ms: times(&|viewer| viewer.connected),
            first_rtp_ms: times(&|viewer| viewer.first_rtp),
            first_keyframe_ms: times(&|viewer| viewer.first_keyframe),
            latency_ms: latency.percentiles(),
            server,
            errors: counted,
        }
    }

    /// The report as text of several lines.
    pub fn to_table(&self) -> String {
        let mut packets = table(&["packets", "audio", "video", "all"]);
        let mut all = self.audio;
        all.add(&self.video);
        let columns = [&self.audio, &self.video, &all];
        let rows: [(&str, Figure); 8] = [
            ("delivered", |figures| figures.delivered),
            ("lost", |figures| figures.lost),
            ("missing from publisher", |figures| figures.missing),
            ("duplicated", |figures| figures.duplicated),
            ("reordered", |figures| figures.reordered),
            ("recovered by NACK", |figures| figures.recovered),
            ("corrupt", |figures| figures.corrupt),
            ("keyframes", |figures| figures.keyframes),
        ];
        for (name, value) in rows {
            let values = columns.iter().map(|figures| number(value(figures).to_string()));
            packets.add_row(std::iter::once(Cell::new(name)).chain(values));
        }

        let mut times = table(&["ms", "min", "p50", "p95", "p99", "max"]);
        let rows = [
            ("join: POST to connected", self.connect_ms),
            ("join: POST to first RTP", self.first_rtp_ms),
            ("join: POST to first keyframe", self.first_keyframe_ms),
            ("one-way latency", self.latency_ms),
        ];
        for (name, percentiles) in rows {
            let Some(p) = percentiles else { continue };
            let values = [p.min, p.p50, p.p95, p.p99, p.max].map(|value| number(format!("{value:.2}")));
            times.add_row(std::iter::once(Cell::new(name)).chain(values));
        }

        let mut text = format!(
            "publishers {}/{}   viewers {}/{}, intact {}   {:.1} s   {:.1} Mbit/s received\n\n{packets}\n\n{times}\n\n",
            self.publishers_connected,
            self.publishers,
            self.viewers_connected,
            self.viewers,
            self.viewers_intact,
            self.seconds,
            self.received_mbit_per_second,
        );
        if self.unexpected + self.refused > 0 {
            text += &format!("unexpected packets {}   refused by SRTP {}\n", self.unexpected, self.refused);
        }
        if let Some(server) = &self.server {
            text += &format!(
                "server: {:.1} s of CPU ({:.0} % of one core), {} per forwarded packet, {:.1} MB resident\n",
                server.cpu_seconds,
                server.cores * 100.0,
                server.cpu_us_per_packet.map_or("-".into(), |cost| format!("{cost:.1} us")),
                server.resident_bytes as f64 / 1e6,
            );
        }
        for (error, count) in &self.errors {
            text += &format!("error, {count} times: {error}\n");
        }
        text += if self.integrity { "integrity: held" } else { "integrity: BROKEN" };
        text
    }
}

/// One figure of a track.
type Figure = fn(&TrackFigures) -> u64;

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header);
    table
}

fn number(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_a_few_values() {
        let percentiles = Percentiles::of(vec![3.0, 1.0, 2.0]).unwrap();
        assert_eq!((percentiles.min, percentiles.p50, percentiles.max, percentiles.count), (1.0, 2.0, 3.0, 3));
        assert_eq!(Percentiles::of(Vec::new()), None);
    }

    #[test]
    fn the_cost_of_a_packet_is_cpu_time_by_packets() {
        let usage = |millis, resident| Usage { cpu: Duration::from_millis(millis), resident };
        let window = Window { elapsed: Duration::from_secs(1), packets: 100_000, bytes: 1 };
        let figures = ServerFigures::new(usage(100, 1), usage(600, 2), window);
        assert_eq!((figures.cpu_us_per_packet, figures.resident_bytes), (Some(5.0), 2));
        assert!((figures.cores - 0.5).abs() < 1e-9);
    }
}
