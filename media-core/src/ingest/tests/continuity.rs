//! Restarts, wraps and pauses of a publisher, in virtual time: sequence numbers and RTP time of the tracks stay continuous,
//! and audio and video in sync.

use super::*;
use crate::rtp::sequence::timestamp_distance;

/// One RTP stream of a publisher, whose sequence numbers and timestamps start anywhere.
struct RtpStream {
    ssrc: u32,
    sequence: u16,
    /// RTP time at `began`.
    timestamp: u32,
    began: u64,
    clock_rate: u64,
    interval: u64,
}

impl RtpStream {
    fn audio(ssrc: u32, sequence: u16, timestamp: u32, began: u64) -> RtpStream {
        RtpStream { ssrc, sequence, timestamp, began, clock_rate: 48_000, interval: 20 }
    }

    fn video(ssrc: u32, sequence: u16, timestamp: u32, began: u64) -> RtpStream {
        RtpStream { ssrc, sequence, timestamp, began, clock_rate: 90_000, interval: 40 }
    }

    fn rtp_at(&self, ms: u64) -> u32 {
        self.timestamp.wrapping_add(((ms - self.began) * self.clock_rate / 1_000) as u32)
    }
}

/// What was forwarded of one track.
#[derive(Clone, Copy, Default)]
struct Forwarded {
    next: u64,
    /// When the first packet was received, and its RTP time.
    first: Option<(u64, u32)>,
    /// The same of the last one.
    last: Option<(u64, u32)>,
}

/// A publisher of audio and video; every packet is checked as it is forwarded.
struct Publisher {
    harness: Harness,
    audio: Forwarded,
    video: Forwarded,
    /// Sender reports that were not believed.
    refused: usize,
}

impl Publisher {
    fn new() -> Publisher {
        let harness = Harness::new(&[audio(), video()]);
        Publisher { harness, audio: Forwarded::default(), video: Forwarded::default(), refused: 0 }
    }

    /// An audio and a video stream send for this long, with sender reports every second by the publisher's own clock.
    fn send(&mut self, ms: u64, streams: &mut [RtpStream; 2]) {
        let end = self.harness.ms + ms;
        while self.harness.ms < end {
            let now = self.harness.ms;
            for (track, stream) in [TrackId::AUDIO, TrackId::VIDEO].into_iter().zip(&mut *streams) {
                if now.is_multiple_of(stream.interval) {
                    // A video frame is three packets, and each second starts with a keyframe.
                    let packets = if track == TrackId::AUDIO { 1 } else { 3 };
                    for part in 0..packets {
                        let keyframe = part == 0 && now.is_multiple_of(1_000);
                        self.packet(stream, track, keyframe, part + 1 == packets);
                    }
                }
                if now % 1_000 == 500 {
                    self.report(stream);
                }
            }
            self.harness.ms += 20;
        }
    }

    fn packet(&mut self, stream: &mut RtpStream, track: TrackId, keyframe: bool, last: bool) {
        let now = self.harness.ms;
        let (payload_type, payload) = match (track.kind, keyframe) {
            (MediaKind::Audio, _) => (111, &b"opus"[..]),
            (_, true) => (96, KEYFRAME),
            (_, false) => (96, DELTA),
        };
        let timestamp = stream.rtp_at(now);
        let packet =
            Packet { payload_type, timestamp, payload, ..Packet::video(stream.ssrc, stream.sequence, payload) };
        stream.sequence = stream.sequence.wrapping_add(1);
        let accepted = self.harness.receive(&packet).unwrap();
        let Accepted::Forward { sequence, .. } = accepted else {
            // Video after a restart, until its keyframe.
            let awaiting = Accepted::AwaitingKeyframe { track: TrackId::VIDEO, encoding: 0 };
            assert!(accepted == awaiting || accepted == Accepted::Consumed, "{accepted:?}");
            return;
        };
        let timestamp = self.harness.cached(track, sequence).unwrap().info.timestamp;
        let forwarded = if track == TrackId::AUDIO { &mut self.audio } else { &mut self.video };
        assert_eq!(sequence, forwarded.next, "at {now} ms");
        forwarded.next += 1;
        let (began, start) = *forwarded.first.get_or_insert((now, timestamp));
        let before = forwarded.last.replace((now, timestamp)).map_or(timestamp, |(_, before)| before);
        assert!(timestamp_distance(timestamp, before) >= 0, "time goes back at {now} ms");
        // RTP time advances as real time does, to a frame.
        let passed = timestamp.wrapping_sub(start);
        let expected = ((now - began) * stream.clock_rate / 1_000) as u32;
        let off = i64::from(timestamp_distance(passed, expected)) * 1_000 / stream.clock_rate as i64;
        assert!(off.abs() <= 45, "{off} ms off at {now} ms");
        if last {
            self.check_lip_sync();
        }
    }

    fn report(&mut self, stream: &RtpStream) {
        let ms = self.harness.ms;
        // The publisher's clock is an hour and a bit ahead.
        let ntp = NtpTime::from_unix(self.harness.unix() + Duration::from_millis(3_601_234));
        let info = SenderInfo { ntp, rtp_timestamp: stream.rtp_at(ms), packet_count: 100, octet_count: 1_000 };
        let mut bytes = [0; 64];
        let mut writer = RtcpWriter::new(&mut bytes);
        writer.sender_report(stream.ssrc, &info, &[]).unwrap();
        let Some(Ok(RtcpPacket::SenderReport(report))) = RtcpPackets::new(writer.as_bytes()).next() else { panic!() };
        let (now, unix) = (self.harness.now(), self.harness.unix());
        let believed = self.harness.ingest.on_sender_report(now, unix, &report, &self.harness.tracks);
        self.refused += usize::from(believed.is_err());
    }

    /// The delay from capture, as sender reports to viewers would show it, to reception of the newest packet is the same for
    /// both tracks.
    fn check_lip_sync(&self) {
        let delay = |track: TrackId, forwarded: &Forwarded| {
            let (ms, newest) = forwarded.last?;
            let point = self.harness.ingest.clock_point(track)?;
            let received = self.harness.unix() - Duration::from_millis(self.harness.ms - ms);
            let ticks = i64::from(timestamp_distance(point.rtp_at(received), newest));
            Some(ticks * 1_000 / i64::from(point.clock_rate))
        };
        let delays = (delay(TrackId::AUDIO, &self.audio), delay(TrackId::VIDEO, &self.video));
        let (Some(audio), Some(video)) = delays else { return };
        assert!((audio - video).abs() <= 45, "{} ms apart at {} ms", audio - video, self.harness.ms);
    }

    fn numbers(&self) -> [u64; 2] {
        [self.audio.next, self.video.next]
    }
}

// RTP-05, RTP-06
#[test]
fn numbers_and_times_wrap_without_a_discontinuity() {
    let mut publisher = Publisher::new();
    let mut streams =
        [RtpStream::audio(2, 65_500, u32::MAX - 48_000 * 7, 0), RtpStream::video(1, 65_000, u32::MAX - 90_000 * 9, 0)];
    publisher.send(20_000, &mut streams);
    assert_eq!(publisher.numbers(), [1_000, 1_500]);
    // A hundred thousand packets of each are several wraps.
    publisher.send(1_600_000, &mut streams);
    assert_eq!(publisher.numbers(), [81_000, 121_500]);
    assert_eq!(publisher.refused, 0);
}

// RTP-03, RTP-06, RTP-15, RTCP-05
#[test]
fn a_restart_of_the_publisher_makes_no_discontinuity() {
    let mut publisher = Publisher::new();
    publisher.send(5_000, &mut [RtpStream::audio(2, 100, 9, 0), RtpStream::video(1, 60_000, 7, 0)]);
    for restart in 1..6 {
        let before = publisher.numbers();
        publisher.harness.ms += 1_000 * restart;
        publisher.harness.restart(&[audio(), video()]);
        let at = publisher.harness.ms;
        let number = (restart * 12_345) as u16;
        let timestamp = (restart as u32).wrapping_mul(0x3333_3333);
        publisher.send(
            4_000,
            &mut [RtpStream::audio(7, number, timestamp, at), RtpStream::video(8, !number, !timestamp, at)],
        );
        assert_eq!(publisher.numbers(), [before[0] + 200, before[1] + 300]);
    }
}

// RTP-03: the encoder restarts on the same session, with other SSRCs and without BYE.
#[test]
fn other_ssrcs_on_the_same_session_make_no_discontinuity() {
    let mut publisher = Publisher::new();
    publisher.send(5_000, &mut [RtpStream::audio(2, 100, 9, 0), RtpStream::video(1, 60_000, 7, 0)]);
    publisher.harness.ms += 1_000;
    let at = publisher.harness.ms;
    publisher.send(5_000, &mut [RtpStream::audio(12, 7_000, 1 << 31, at), RtpStream::video(11, 3, 5 << 28, at)]);
    assert_eq!(publisher.numbers(), [500, 750]);
    assert_eq!(publisher.refused, 0);
}

// RTP-03: … or with the same SSRCs, its numbers and times anywhere.
#[test]
fn the_same_ssrcs_may_restart_with_other_numbers() {
    for number in [100, 30_000, 20_000] {
        let mut publisher = Publisher::new();
        publisher.send(5_000, &mut [RtpStream::audio(2, 50_000, 9, 0), RtpStream::video(1, 50_000, 7, 0)]);
        publisher.harness.ms += 500;
        let at = publisher.harness.ms;
        let mut streams = [RtpStream::audio(2, number, 1 << 31, at), RtpStream::video(1, number, 5 << 28, at)];
        publisher.send(5_000, &mut streams);
        let [audio, video] = publisher.numbers();
        assert!((498..=500).contains(&audio), "{number}: {audio}");
        // A report received before the new numbers are accepted has another RTP time.
        assert!(publisher.refused <= 2);
        // Numbers that go back are accepted at the second packet, after the keyframe's first: the next keyframe is a second away.
        assert!((375 + 290..=750).contains(&video), "{number}: {video}");
    }
}

// RTP-05, RTP-06
#[test]
fn a_pause_of_half_a_minute_leaves_no_gap() {
    let mut publisher = Publisher::new();
    let mut streams = [RtpStream::audio(2, 100, 9, 0), RtpStream::video(1, 60_000, 7, 0)];
    publisher.send(5_000, &mut streams);
    publisher.harness.ms += 30_000;
    publisher.send(5_000, &mut streams);
    assert_eq!(publisher.numbers(), [500, 750]);
    assert_eq!(publisher.refused, 0);
}

// COD-02: with DTX an Opus encoder sends a packet every 400 ms in silence; its numbers are continuous, its time jumps.
#[test]
fn discontinuous_transmission_is_no_loss() {
    let mut harness = Harness::new(&[audio()]);
    for packet in 0..200_u16 {
        let step = if packet % 40 < 20 { 20 } else { 400 };
        let timestamp = harness.ms as u32 * 48;
        assert_eq!(
            harness.forwarded(&Packet { timestamp, ..Packet::audio(2, packet) }),
            (u64::from(packet), timestamp)
        );
        harness.ms += step;
    }
    assert_eq!(harness.ingest.packets_lost(), 0);
    let mut jitter = None;
    let now = harness.now();
    harness.ingest.report_blocks(now, |block| jitter = Some((block.jitter, block.cumulative_lost)));
    assert_eq!(jitter, Some((0, 0)));
}
