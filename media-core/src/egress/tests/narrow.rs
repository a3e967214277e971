//! A viewer whose path does not carry the stream, or stands still now and then, in virtual time: 25 ms each way, and
//! feedback every 50 ms.

use std::collections::VecDeque;

use super::numbered::{AUDIO_SSRC, NUMBER, VIDEO_SSRC, numbered_tracks};
use super::*;
use crate::bwe::tests::{Link, feedback_messages};
use crate::rtcp::{RtcpPacket, RtcpPackets};
use crate::spec::SessionLimits;

const MTU: usize = 1_150;
const AUDIO_BYTES: usize = 160;
/// IPv4 and UDP.
const HEADERS: usize = 28;

/// What the publisher sends.
#[derive(Clone, Copy, Debug)]
struct Stream {
    /// Bits per second of video.
    rate: f64,
    frames_per_second: u64,
    /// How many times larger than another frame a keyframe is.
    keyframe: f64,
    /// ms.
    group: u64,
    /// A keyframe request is answered after 60 ms, but not sooner than this after the last keyframe, ms.
    request_interval: Option<u64>,
}

#[derive(Clone, Copy)]
struct Frame {
    keyframe: bool,
    produced: u64,
    packets: u64,
}

/// A viewer, its path and the stream. One flat list of state and record: each test looks at what it needs.
struct Simulation {
    viewer: Viewer,
    published: Published,
    link: Link,
    stream: Stream,
    /// µs.
    time: u64,
    frames: Vec<Frame>,
    next_frame: u64,
    next_audio: u64,
    last_keyframe: u64,
    /// A keyframe is requested since then.
    requested: Option<u64>,
    is_lagging: bool,
    /// Arrival, transport-wide number, and of video its frame.
    in_transit: VecDeque<(u64, u16, Option<usize>)>,
    feedback: VecDeque<(u64, Vec<u8>)>,
    feedback_count: u8,
    /// Of the frame that arrives: its packets.
    arriving: (usize, u64),
    last_shown: Option<usize>,
    /// Frames that could be decoded, packets of video, and those of audio.
    shown: Vec<Arrival>,
    video: Vec<Arrival>,
    audio: Vec<Arrival>,
    samples: Vec<Sample>,
}

/// Something has arrived.
#[derive(Clone, Copy)]
struct Arrival {
    /// ms.
    time: u64,
    /// Since it was received from the publisher, ms.
    age: u64,
}

/// The state of things at one moment.
#[derive(Clone, Copy)]
struct Sample {
    /// ms.
    time: u64,
    /// Bits per second.
    estimate: u64,
    /// In the path, ms.
    queue: u64,
}

impl Simulation {
    fn new(capacity: f64, stream: Stream) -> Simulation {
        let published = Published::new();
        let [audio, video] = numbered_tracks();
        let exported: Vec<u8> = (0..56).collect();
        let material = KeyingMaterial::new(SrtpProfile::AeadAes128Gcm, &exported).unwrap();
        let (_, sender) = material.contexts(DtlsRole::Server).unwrap();
        let viewer = Viewer::new(published.start, sender, vec![audio, video], stream.rate as u64);
        Simulation {
            viewer,
            published,
            link: Link::new(capacity),
            stream,
            time: 0,
            frames: vec![],
            next_frame: 0,
            next_audio: 0,
            last_keyframe: 0,
            requested: None,
            is_lagging: false,
            in_transit: VecDeque::new(),
            feedback: VecDeque::new(),
            feedback_count: 0,
            arriving: (0, 0),
            last_shown: None,
            shown: vec![],
            video: vec![],
            audio: vec![],
            samples: vec![],
        }
    }

    fn now(&self) -> Instant {
        self.published.start + Duration::from_micros(self.time)
    }

    fn run(&mut self, seconds: f64) {
        let end = self.time + (seconds * 1e6) as u64;
        while self.time < end {
            self.step();
            self.time += 1_000;
        }
    }

    /// Everything stands still for so many seconds, as one machine does.
    fn stall(&mut self, seconds: f64) {
        let micros = (seconds * 1e6) as u64;
        self.link.free_at = self.link.free_at.max(self.time as f64) + micros as f64;
        self.in_transit.iter_mut().for_each(|(arrival, ..)| *arrival += micros);
        self.feedback.iter_mut().for_each(|(arrival, _)| *arrival += micros);
        self.time += micros;
    }

    fn step(&mut self) {
        let now = self.now();
        let media = self.stream.rate as u64;
        let has_packets = self.produce();
        while self.feedback.front().is_some_and(|&(at, _)| at <= self.time) {
            let (_, bytes) = self.feedback.pop_front().unwrap();
            for packet in RtcpPackets::new(&bytes) {
                let Ok(RtcpPacket::TransportFeedback(feedback)) = packet else { panic!("no feedback") };
                self.viewer.congestion_mut().on_feedback(now, &feedback, media);
            }
        }
        let mut due = has_packets || (self.is_lagging && self.time.is_multiple_of(5_000));
        if self.time.is_multiple_of(25_000) {
            let can_probe = self.viewer.can_pad();
            due |= self.viewer.congestion_mut().poll(now, media, can_probe);
            if video(&mut self.viewer).lacks_keyframe().is_some() {
                self.requested.get_or_insert(self.time);
            }
        }
        if due {
            let (served, packets) = self.published.serve(now, &mut self.viewer, false);
            self.is_lagging = served.is_lagging;
            if served.needs_keyframe.is_some() {
                self.requested.get_or_insert(self.time);
            }
            packets.iter().for_each(|packet| self.send(packet));
        }
        if self.time.is_multiple_of(50_000) {
            self.arrive();
        }
        if self.time.is_multiple_of(10_000) {
            let estimate = self.viewer.congestion_mut().snapshot().available_outgoing_bitrate;
            let queue = self.link.queue(self.time) / 1_000;
            self.samples.push(Sample { time: self.time / 1_000, estimate, queue });
        }
    }

    fn produce(&mut self) -> bool {
        let Stream { rate, frames_per_second, keyframe, group, request_interval } = self.stream;
        let arrived = self.now();
        let mut has_packets = false;
        if self.time >= self.next_audio {
            self.next_audio += 20_000;
            let sequence = self.published.encoding(TrackId::AUDIO).end();
            let timestamp = sequence as u32 * 960;
            let info = PacketInfo {
                sequence,
                timestamp,
                arrived,
                payload_type: 111,
                marker: false,
                keyframe: true,
                layer: PacketLayer::ONLY,
            };
            assert!(self.published.encoding(TrackId::AUDIO).admit(info, &[], &[0; AUDIO_BYTES]));
            has_packets = true;
        }
        if self.time >= self.next_frame {
            let interval = 1_000_000 / frames_per_second;
            self.next_frame += interval;
            let since = self.time - self.last_keyframe;
            let is_requested = self.requested.is_some_and(|at| self.time >= at + 60_000)
                && request_interval.is_some_and(|interval| since >= interval * 1_000);
            let is_keyframe = self.frames.is_empty() || since >= group * 1_000 || is_requested;
            if is_keyframe {
                self.last_keyframe = self.time;
                self.requested = None;
            }
            // The mean over a group of shown of the ordinary length is the rate.
            let per_group = (group * frames_per_second / 1_000) as f64;
            let ordinary = rate / 8.0 * group as f64 / 1e3 / (per_group - 1.0 + keyframe);
            let bytes = (if is_keyframe { keyframe * ordinary } else { ordinary }) as usize;
            let packets = bytes.div_ceil(MTU).max(1);
            let timestamp = self.frames.len() as u32 * 90_000 / frames_per_second as u32;
            for n in 0..packets {
                let info = PacketInfo {
                    sequence: self.published.video().end(),
                    timestamp,
                    arrived,
                    payload_type: 96,
                    marker: n + 1 == packets,
                    keyframe: is_keyframe && n == 0,
                    layer: PacketLayer::ONLY,
                };
                assert!(self.published.encoding(TrackId::VIDEO).admit(info, &[], &vec![0; bytes / packets]));
            }
            self.frames.push(Frame { keyframe: is_keyframe, produced: self.time, packets: packets as u64 });
            has_packets = true;
        }
        has_packets
    }

    fn send(&mut self, packet: &[u8]) {
        // How much padding there is lies in the part that is encrypted.
        let clear = [&[packet[0] & !0x20], &packet[1..]].concat();
        let header = RtpHeader::parse(&clear).unwrap();
        let number = header.extension(&clear, NUMBER).unwrap();
        let number = u16::from_be_bytes([number[0], number[1]]);
        let frame = header.timestamp as u64 * self.stream.frames_per_second / 90_000;
        let frame = (header.ssrc == VIDEO_SSRC).then_some(frame as usize);
        if let Some(arrival) = self.link.send(self.time, packet.len() + HEADERS) {
            self.in_transit.push_back((arrival, number, frame));
            if header.ssrc == AUDIO_SSRC {
                let produced = u64::from(header.timestamp) / 960 * 20_000;
                self.audio.push(Arrival { time: arrival / 1_000, age: arrival.saturating_sub(produced) / 1_000 });
            }
        }
    }

    fn arrive(&mut self) {
        let mut packets = vec![];
        while let Some(&(arrival, number, frame)) = self.in_transit.front()
            && arrival <= self.time
        {
            self.in_transit.pop_front();
            packets.push((number, Some(arrival)));
            let Some(number) = frame else { continue };
            let frame = self.frames[number];
            let arrived = Arrival { time: arrival / 1_000, age: (arrival - frame.produced) / 1_000 };
            self.video.push(arrived);
            if self.arriving.0 != number {
                self.arriving = (number, 0);
            }
            self.arriving.1 += 1;
            let follows = self.last_shown.is_some_and(|last| last + 1 == number);
            if self.arriving.1 == frame.packets && (frame.keyframe || follows) {
                self.last_shown = Some(number);
                self.shown.push(arrived);
            }
        }
        let arrival = self.time + self.link.one_way;
        let messages = feedback_messages(&packets, &mut self.feedback_count);
        self.feedback.extend(messages.into_iter().map(|message| (arrival, message)));
    }
}

/// The value below which so many percent are.
fn percentile(values: impl Iterator<Item = u64>, percent: usize) -> u64 {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    values[(values.len() - 1) * percent / 100]
}

// RTCP-17
#[test]
fn after_a_keyframe_that_takes_long_frames_follow() {
    // 2 Mbit/s over 1.1 Mbit/s; keyframes on request, a second after the last one, or every two seconds and no others. What
    // is held: frames a second, longest time between two in ms, 95th percentile of the age of video packets in ms.
    for (frames_per_second, keyframe, on_request, least, pause, age) in [
        (60, 2.5, true, 5.5, 950, 300),
        (60, 5.0, true, 5.0, 950, 325),
        (60, 8.0, true, 8.5, 900, 575),
        (30, 5.0, true, 5.5, 850, 650),
        (30, 8.0, true, 5.5, 850, 880),
        (60, 5.0, false, 2.5, 1_990, 350),
        (60, 8.0, false, 4.0, 1_950, 575),
        (30, 5.0, false, 2.5, 1_850, 650),
    ] {
        let (group, request_interval) = if on_request { (10_000, Some(1_000)) } else { (2_000, None) };
        let stream = Stream { rate: 2e6, frames_per_second, keyframe, group, request_interval };
        let mut simulation = Simulation::new(1.1e6, stream);
        simulation.run(70.0);
        let ages = |arrivals: &[Arrival]| {
            percentile(arrivals.iter().filter(|arrival| arrival.time >= 10_000).map(|arrival| arrival.age), 95)
        };
        let times: Vec<u64> = simulation.shown.iter().map(|frame| frame.time).filter(|&at| at >= 10_000).collect();
        let rate = times.len() as f64 / 60.0;
        let longest = times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
        let (video, audio) = (ages(&simulation.video), ages(&simulation.audio));
        let queue = simulation.samples.iter().filter(|sample| sample.time >= 10_000).map(|sample| sample.queue).max();
        let case = format!("{stream:?}: {rate:.1} frames/s, {longest}, {video}, {audio}, {queue:?} ms");
        assert!(rate >= least && longest <= pause, "{case}");
        assert!(video <= age && audio <= 60 && queue.unwrap() <= 50, "{case}");
    }
}

// RTCP-16
#[test]
fn a_path_that_stands_still_again_and_again_keeps_its_estimate() {
    // Stalls for 15 s, up to one of 0.4 s every 1.1 s, then none.
    for rate in [2e6, 0.8e6] {
        for keyframe in [2.5, 8.0] {
            for (seconds, every) in [0.05, 0.1, 0.2, 0.4].into_iter().flat_map(|s| [(s, 0.73), (s, 1.31), (s, 2.7)]) {
                let stream =
                    Stream { rate, frames_per_second: 60, keyframe, group: 2_000, request_interval: Some(1_000) };
                let mut simulation = Simulation::new(1.1e6, stream);
                simulation.run(12.0);
                let from = simulation.time / 1_000;
                while simulation.time / 1_000 < from + 15_000 {
                    simulation.run(every);
                    simulation.stall(seconds);
                }
                let to = simulation.time / 1_000;
                simulation.run(15.0);
                let estimates = |from, to| {
                    let samples = simulation.samples.iter().filter(move |sample| (from..to).contains(&sample.time));
                    samples.map(|sample| sample.estimate)
                };
                let (lowest, median) = (percentile(estimates(from, to), 0), percentile(estimates(from, to), 50));
                let back = simulation.samples.iter().find(|sample| sample.time > to && sample.estimate > 880_000);
                let back = back.map(|sample| sample.time - to);
                let after = percentile(estimates(to + 5_000, to + 15_000), 5);
                let case =
                    format!("{rate}, {keyframe}, {seconds} s every {every} s: {lowest}, {median}, {back:?}, {after}");
                // Before, as far as it is not taken up by stalls; and after them at once.
                assert!(lowest > 100_000 && median > 650_000, "{case}");
                assert!(back.is_some_and(|back| back < 3_000) && after > 660_000, "{case}");
            }
        }
    }
}

// RTCP-16
#[test]
fn a_pause_of_the_machine_is_no_over_use_on_a_wide_path() {
    // 2.5 Mbit/s over 100, keyframes of ten times the size; 240 ms at moments in and between keyframes, and the start.
    let stream = Stream { rate: 2.5e6, frames_per_second: 30, keyframe: 10.0, group: 2_000, request_interval: None };
    for moment in 0..24 {
        let mut simulation = Simulation::new(100e6, stream);
        for _ in 0..3 {
            simulation.run(0.05 + 0.083 * f64::from(moment));
            simulation.stall(0.24);
        }
        simulation.run(3.0);
        // Below 1.1 times the stream, it would be held up.
        let lowest = simulation.samples.iter().map(|sample| sample.estimate).min().unwrap();
        assert!(lowest > 2_750_000, "{moment}: {lowest}");
    }
}

// H5: whatever it tells of its path, or if it tells nothing.
#[test]
fn a_viewer_is_sent_no_more_than_its_session_may_carry() {
    let limits = |bits, packets| SessionLimits { bits_per_second: bits, packets_per_second: packets };
    for (limits, remb) in [
        (limits(Some(400_000), None), None),
        (limits(Some(400_000), None), Some(50_000_000)),
        (limits(None, Some(50)), None),
        (limits(Some(50_000_000), Some(50)), Some(50_000_000)),
    ] {
        let (mut viewer, _) = viewer(Some(101));
        let mut published = Published::new();
        // 30 frames a second of three packets: 1 Mbit/s, 90 packets a second.
        let media = 1_000_000;
        viewer.congestion_mut().limit(published.start, limits, media);
        let mut sequence = 0;
        for ms in (0..30_000).step_by(5) {
            let now = published.start + Duration::from_millis(ms);
            if let Some(remb) = remb.filter(|_| ms % 1_000 == 0) {
                viewer.congestion_mut().on_remb(now, remb, media);
            }
            while sequence / 3 * 1_000 / 30 <= ms {
                let frame = sequence / 3;
                let info = PacketInfo {
                    sequence,
                    timestamp: frame as u32 * 3_000,
                    arrived: now,
                    payload_type: 96,
                    marker: sequence % 3 == 2,
                    keyframe: frame % 30 == 0 && sequence % 3 == 0,
                    layer: PacketLayer::ONLY,
                };
                assert!(published.encoding(TrackId::VIDEO).admit(info, &[], &[0; 1_300]));
                sequence += 1;
            }
            if ms % 100 == 0 {
                viewer.congestion_mut().poll(now, media, false);
            }
            published.serve(now, &mut viewer, false);
        }
        let (sent, seconds) = (viewer.sent(), 30.0);
        let (bits, packets) = (sent.bytes as f64 * 8.0 / seconds, sent.packets as f64 / seconds);
        let most = (limits.bits_per_second.unwrap_or(u64::MAX), limits.packets_per_second.unwrap_or(u64::MAX));
        assert!(bits <= 1.05 * most.0 as f64 && packets <= 1.05 * most.1 as f64, "{bits} bit/s, {packets} packets/s");
        assert!(bits > 100_000.0 && sent.dropped > 0, "{bits} bit/s");
    }
}
