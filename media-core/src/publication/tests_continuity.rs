//! Restarts, wraps and pauses of a publisher, in virtual time: what viewers see goes on without a break, and sound and
//! picture stay together.

use super::tests::{DELTA, KEYFRAME, Packet, Stage, audio, video};
use super::*;
use crate::rtcp::{NtpTime, RtcpPacket, RtcpPackets, RtcpWriter, SenderInfo};
use crate::rtp::sequence::timestamp_distance;

/// One source of a publisher, whose numbers and times begin anywhere.
struct Sending {
    ssrc: u32,
    sequence: u16,
    /// RTP time at `began`.
    timestamp: u32,
    began: u64,
    clock_rate: u64,
    interval: u64,
}

impl Sending {
    fn audio(ssrc: u32, sequence: u16, timestamp: u32, began: u64) -> Sending {
        Sending { ssrc, sequence, timestamp, began, clock_rate: 48_000, interval: 20 }
    }

    fn video(ssrc: u32, sequence: u16, timestamp: u32, began: u64) -> Sending {
        Sending { ssrc, sequence, timestamp, began, clock_rate: 90_000, interval: 40 }
    }

    fn rtp_at(&self, ms: u64) -> u32 {
        self.timestamp.wrapping_add(((ms - self.began) * self.clock_rate / 1_000) as u32)
    }
}

/// What the viewers of one track have seen.
#[derive(Clone, Copy, Default)]
struct Seen {
    next: u64,
    /// When the first packet came, and its RTP time.
    first: Option<(u64, u32)>,
    /// The same of the last one.
    last: Option<(u64, u32)>,
}

/// A stage on which a publisher of sound and picture sends; every packet is checked as a viewer would see it.
struct Stream {
    stage: Stage,
    seen: [Seen; 2],
    /// Sender reports that were not believed.
    refused: usize,
}

impl Stream {
    fn new() -> Stream {
        Stream { stage: Stage::new(&[audio(), video()]), seen: [Seen::default(); 2], refused: 0 }
    }

    /// Both sources send for this long, with sender reports every second by the publisher's own clock.
    fn send(&mut self, ms: u64, sources: &mut [Sending; 2]) {
        let end = self.stage.ms + ms;
        while self.stage.ms < end {
            let now = self.stage.ms;
            for (index, source) in sources.iter_mut().enumerate() {
                if now.is_multiple_of(source.interval) {
                    // A frame is three packets, a second of them begins with a keyframe.
                    let packets = if index == 0 { 1 } else { 3 };
                    for part in 0..packets {
                        let keyframe = part == 0 && now.is_multiple_of(1_000);
                        self.packet(source, index, keyframe, part + 1 == packets);
                    }
                }
                if now % 1_000 == 500 {
                    self.report(source);
                }
            }
            self.stage.ms += 20;
        }
    }

    fn packet(&mut self, source: &mut Sending, index: usize, keyframe: bool, last: bool) {
        let now = self.stage.ms;
        let (payload_type, payload) = match (index, keyframe) {
            (0, _) => (111, &b"opus"[..]),
            (_, true) => (96, KEYFRAME),
            (_, false) => (96, DELTA),
        };
        let timestamp = source.rtp_at(now);
        let packet =
            Packet { payload_type, timestamp, payload, ..Packet::video(source.ssrc, source.sequence, payload) };
        source.sequence = source.sequence.wrapping_add(1);
        let accepted = self.stage.receive(&packet).unwrap();
        let Accepted::Forward { sequence, .. } = accepted else {
            // Video after a restart, until its keyframe.
            assert!(accepted == Accepted::AwaitingKeyframe || accepted == Accepted::Consumed, "{accepted:?}");
            return;
        };
        let seen = &mut self.seen[index];
        assert_eq!(sequence, seen.next, "at {now} ms");
        seen.next += 1;
        let timestamp = self.stage.tracks[index].cache.get(sequence).unwrap().info.timestamp;
        let (began, start) = *seen.first.get_or_insert((now, timestamp));
        let before = seen.last.replace((now, timestamp)).map_or(timestamp, |(_, before)| before);
        assert!(timestamp_distance(timestamp, before) >= 0, "time goes back at {now} ms");
        // RTP time goes on as real time does, to a frame.
        let passed = timestamp.wrapping_sub(start);
        let expected = ((now - began) * source.clock_rate / 1_000) as u32;
        let off = i64::from(timestamp_distance(passed, expected)) * 1_000 / source.clock_rate as i64;
        assert!(off.abs() <= 45, "{off} ms off at {now} ms");
        if last {
            self.lips();
        }
    }

    fn report(&mut self, source: &Sending) {
        let ms = self.stage.ms;
        // The publisher's clock is an hour and a bit ahead.
        let ntp = NtpTime::from_unix(self.stage.unix() + Duration::from_millis(3_601_234));
        let info = SenderInfo { ntp, rtp_timestamp: source.rtp_at(ms), packet_count: 100, octet_count: 1_000 };
        let mut bytes = [0; 64];
        let mut writer = RtcpWriter::new(&mut bytes);
        writer.sender_report(source.ssrc, &info, &[]).unwrap();
        let Some(Ok(RtcpPacket::SenderReport(report))) = RtcpPackets::new(writer.as_bytes()).next() else { panic!() };
        let (now, unix) = (self.stage.now(), self.stage.unix());
        let believed = self.stage.publication.on_sender_report(now, unix, &report, &self.stage.tracks);
        self.refused += usize::from(believed.is_err());
    }

    /// How long after their capture, by what sender reports to viewers would say, the newest packets of both tracks came: as
    /// long for one as for the other.
    fn lips(&self) {
        let late = |kind: MediaKind| {
            let (ms, newest) = self.seen[kind.index()].last?;
            let point = self.stage.publication.clock_point(kind)?;
            let came = self.stage.unix() - Duration::from_millis(self.stage.ms - ms);
            let ticks = i64::from(timestamp_distance(point.rtp_at(came), newest));
            Some(ticks * 1_000 / i64::from(point.clock_rate))
        };
        let (Some(audio), Some(video)) = (late(MediaKind::Audio), late(MediaKind::Video)) else { return };
        assert!((audio - video).abs() <= 45, "{} ms apart at {} ms", audio - video, self.stage.ms);
    }

    fn numbers(&self) -> [u64; 2] {
        self.seen.map(|seen| seen.next)
    }
}

// RTP-05, RTP-06
#[test]
fn numbers_and_times_wrap_without_a_break() {
    let mut stream = Stream::new();
    let mut sources =
        [Sending::audio(2, 65_500, u32::MAX - 48_000 * 7, 0), Sending::video(1, 65_000, u32::MAX - 90_000 * 9, 0)];
    stream.send(20_000, &mut sources);
    assert_eq!(stream.numbers(), [1_000, 1_500]);
    // A hundred thousand packets of each are several wraps.
    stream.send(1_600_000, &mut sources);
    assert_eq!(stream.numbers(), [81_000, 121_500]);
    assert_eq!(stream.refused, 0);
}

// RTP-03, RTP-06, RTP-15, RTCP-05
#[test]
fn a_publisher_that_restarts_is_followed_without_a_break() {
    let mut stream = Stream::new();
    stream.send(5_000, &mut [Sending::audio(2, 100, 9, 0), Sending::video(1, 60_000, 7, 0)]);
    for restart in 1..6 {
        let before = stream.numbers();
        stream.stage.ms += 1_000 * restart;
        stream.stage.restart(&[audio(), video()]);
        let at = stream.stage.ms;
        let number = (restart * 12_345) as u16;
        let timestamp = (restart as u32).wrapping_mul(0x3333_3333);
        stream.send(4_000, &mut [Sending::audio(7, number, timestamp, at), Sending::video(8, !number, !timestamp, at)]);
        assert_eq!(stream.numbers(), [before[0] + 200, before[1] + 300]);
    }
}

// RTP-03: the encoder starts anew on the same session, with other SSRCs, and without saying BYE.
#[test]
fn another_source_on_the_same_session_is_followed_without_a_break() {
    let mut stream = Stream::new();
    stream.send(5_000, &mut [Sending::audio(2, 100, 9, 0), Sending::video(1, 60_000, 7, 0)]);
    stream.stage.ms += 1_000;
    let at = stream.stage.ms;
    stream.send(5_000, &mut [Sending::audio(12, 7_000, 1 << 31, at), Sending::video(11, 3, 5 << 28, at)]);
    assert_eq!(stream.numbers(), [500, 750]);
    assert_eq!(stream.refused, 0);
}

// RTP-03: … or with the same SSRCs, its numbers and times anywhere.
#[test]
fn the_same_source_may_begin_anew_with_other_numbers() {
    for number in [100, 30_000, 20_000] {
        let mut stream = Stream::new();
        stream.send(5_000, &mut [Sending::audio(2, 50_000, 9, 0), Sending::video(1, 50_000, 7, 0)]);
        stream.stage.ms += 500;
        let at = stream.stage.ms;
        let mut sources = [Sending::audio(2, number, 1 << 31, at), Sending::video(1, number, 5 << 28, at)];
        stream.send(5_000, &mut sources);
        let [audio, video] = stream.numbers();
        assert!((498..=500).contains(&audio), "{number}: {audio}");
        // A report that comes before the new numbers are believed is of another time.
        assert!(stream.refused <= 2);
        // Numbers that go back are believed at the second packet, behind the keyframe's first: the next one comes in a second.
        assert!((375 + 290..=750).contains(&video), "{number}: {video}");
    }
}

// RTP-05, RTP-06
#[test]
fn a_pause_of_half_a_minute_leaves_no_gap() {
    let mut stream = Stream::new();
    let mut sources = [Sending::audio(2, 100, 9, 0), Sending::video(1, 60_000, 7, 0)];
    stream.send(5_000, &mut sources);
    stream.stage.ms += 30_000;
    stream.send(5_000, &mut sources);
    assert_eq!(stream.numbers(), [500, 750]);
    assert_eq!(stream.refused, 0);
}

// COD-02: between words an Opus encoder sends a packet every 400 ms; its numbers go on, its time jumps.
#[test]
fn silence_is_no_loss() {
    let mut stage = Stage::new(&[audio()]);
    for packet in 0..200_u16 {
        let step = if packet % 40 < 20 { 20 } else { 400 };
        let timestamp = stage.ms as u32 * 48;
        assert_eq!(stage.forwarded(&Packet { timestamp, ..Packet::audio(2, packet) }), (u64::from(packet), timestamp));
        stage.ms += step;
    }
    assert_eq!(stage.publication.packets_lost(), 0);
    let mut jitter = None;
    let now = stage.now();
    stage.publication.report_blocks(now, |block| jitter = Some((block.jitter, block.cumulative_lost)));
    assert_eq!(jitter, Some((0, 0)));
}
