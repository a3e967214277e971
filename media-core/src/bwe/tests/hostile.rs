//! Forged and malformed feedback (RTCP-14, RTCP-15): the estimate stays within its limits, memory within its bound, and
//! nothing panics.

use super::*;

/// The history, and with feedback of RFC 8888 four streams' numbers and the reports of one message.
const MAX_MEMORY: usize = size_of::<SendSideEstimator>() + (16 << 10) + ((4 * 12) << 10) + (8 << 10);

struct Liar {
    estimator: SendSideEstimator,
    now: Instant,
    next: u16,
    random: Random,
}

impl Liar {
    fn new() -> Liar {
        let now = Instant::now();
        Liar { estimator: SendSideEstimator::new(now, LIMITS, true), now, next: 0, random: Random(9) }
    }

    /// Sends 2 Mbit/s for 100 ms; the first number.
    fn send(&mut self) -> u16 {
        let first = self.next;
        for _ in 0..25 {
            self.next = self.estimator.on_sent(self.now, 1_000).wrapping_add(1);
            self.now += Duration::from_millis(4);
        }
        self.estimator.poll(self.now);
        first
    }

    fn receive(&mut self, message: &[u8]) {
        for packet in RtcpPackets::new(message) {
            match packet {
                Ok(RtcpPacket::TransportFeedback(feedback)) => self.estimator.on_feedback(self.now, &feedback),
                Ok(RtcpPacket::CongestionControlFeedback(feedback)) => {
                    self.estimator.on_congestion_control_feedback(self.now, &feedback);
                }
                _ => {}
            }
        }
        assert!((LIMITS.min..=LIMITS.max).contains(&self.estimator.estimate()), "{}", self.estimator.estimate());
        assert!((0.0..=1.0).contains(&self.estimator.loss.excess()), "{}", self.estimator.loss.excess());
        assert!(memory(&self.estimator) <= MAX_MEMORY);
    }
}

/// A feedback message from its parts.
fn message(base: u16, count: u16, reference: u32, chunks: &[u16], deltas: &[u8]) -> Vec<u8> {
    let mut body = vec![0, 0, 0, 1, 0, 0, 0, 2];
    body.extend(base.to_be_bytes());
    body.extend(count.to_be_bytes());
    body.extend(&reference.to_be_bytes()[1..]);
    body.push(0);
    body.extend(chunks.iter().flat_map(|chunk| chunk.to_be_bytes()));
    body.extend(deltas);
    body.resize(body.len().next_multiple_of(4), 0);
    let words = (body.len() / 4) as u16;
    [&[0x8f, 205][..], &words.to_be_bytes(), &body].concat()
}

/// `count` arrivals with large deltas.
fn large_deltas(base: u16, count: u16, reference: u32, delta: impl Fn(u16) -> i16) -> Vec<u8> {
    let deltas: Vec<u8> = (0..count).flat_map(|n| delta(n).to_be_bytes()).collect();
    message(base, count, reference, &[0x4000 | count], &deltas)
}

#[test]
fn packets_that_all_arrive_at_once_prove_no_more_than_was_sent() {
    // RTCP-14
    let mut liar = Liar::new();
    for round in 0..600 {
        let first = liar.send();
        liar.receive(&message(first, 25, round, &[0x2000 | 25], &[0; 25]));
    }
    assert!(liar.estimator.estimate() < 3_200_000, "{}", liar.estimator.estimate());
}

#[test]
fn arrivals_in_the_past_and_far_in_the_future() {
    // RTCP-14
    for delta in [-1, i16::MIN, i16::MAX, 0] {
        for step in [0, 1, 1_000, 0x80_0000, 0xff_ffff] {
            let mut liar = Liar::new();
            for round in 0..200u32 {
                let first = liar.send();
                liar.receive(&large_deltas(first, 25, round.wrapping_mul(step) & 0xff_ffff, |_| delta));
            }
            assert!(liar.estimator.estimate() < 3_200_000, "{delta}, {step}: {}", liar.estimator.estimate());
        }
    }
}

#[test]
fn arrivals_that_jump_about() {
    // RTCP-14
    let mut liar = Liar::new();
    for _ in 0..2_000 {
        let first = liar.send();
        let reference = (liar.random.next() * 16_777_216.0) as u32;
        let deltas: Vec<i16> = (0..25).map(|_| ((liar.random.next() - 0.5) * 65_000.0) as i16).collect();
        liar.receive(&large_deltas(first, 25, reference, |n| deltas[usize::from(n)]));
    }
}

#[test]
fn numbers_that_were_never_sent() {
    // RTCP-14
    let mut liar = Liar::new();
    for round in 0..1_000 {
        let first = liar.send();
        liar.receive(&message(first.wrapping_add(25), 8_000, round, &[0x2000 | 8_000], &vec![1; 8_000]));
        liar.receive(&message(first.wrapping_sub(9_000), 8_000, round, &[0x2000 | 8_000], &vec![1; 8_000]));
    }
    assert_eq!(liar.estimator.acknowledged.rate(), None);
    assert!(liar.estimator.estimate() <= LIMITS.start);
}

#[test]
fn a_message_about_all_numbers_there_are() {
    // RTCP-14: 65535 statuses in 36 bytes.
    let mut liar = Liar::new();
    for round in 0..200 {
        let first = liar.send();
        liar.receive(&message(first, u16::MAX, round, &[0x1fff; 9], &[]));
    }
    assert!(liar.estimator.loss.excess() > 0.99);
    assert!(liar.estimator.estimate() < LIMITS.start);
}

#[test]
fn the_same_message_again_and_again() {
    // RTCP-14
    let mut liar = Liar::new();
    let first = liar.send();
    let praise = large_deltas(first, 25, 1, |_| 16);
    for _ in 0..10_000 {
        liar.receive(&praise);
        liar.now += Duration::from_millis(1);
    }
    assert_eq!(liar.estimator.estimate(), LIMITS.start);
}

#[test]
fn loss_that_is_taken_back_and_forth() {
    // RTCP-14
    let mut liar = Liar::new();
    for round in 0..500 {
        let first = liar.send();
        for _ in 0..4 {
            liar.receive(&message(first, 25, round, &[25], &[]));
            liar.receive(&large_deltas(first, 25, round, |_| 16));
        }
    }
    assert!(liar.estimator.loss.excess() < 0.2);
}

#[test]
fn random_bytes() {
    // RTCP-14
    let mut liar = Liar::new();
    for _ in 0..5_000 {
        let first = liar.send();
        let base = if liar.random.next() < 0.8 { first } else { (liar.random.next() * 65_536.0) as u16 };
        let chunks: Vec<u16> = (0..9).map(|_| (liar.random.next() * 65_536.0) as u16).collect();
        let deltas: Vec<u8> = (0..1_000).map(|_| (liar.random.next() * 256.0) as u8).collect();
        let count = 1 + (liar.random.next() * 60.0) as u16;
        let reference = (liar.random.next() * 16_777_216.0) as u32;
        liar.receive(&message(base, count, reference, &chunks, &deltas));
    }
}

#[test]
fn packets_without_end_at_one_moment() {
    let mut liar = Liar::new();
    liar.send();
    assert!(liar.estimator.next_probe(liar.now).is_some());
    for _ in 0..70_000 {
        liar.estimator.on_sent(liar.now, usize::MAX);
    }
    assert!(liar.estimator.is_probing());
    liar.receive(&message(0, 100, 1, &[0x2064], &[4; 100]));
}

#[test]
fn made_up_feedback_of_rfc_8888_stays_within_the_limits_and_takes_no_memory() {
    // RTCP-15
    let mut liar = Liar::new();
    let mut random = Random(11);
    let mut pick = move |below: usize| (random.next() * below as f64) as usize;
    let mut number = 0u16;
    for round in 0..3_000 {
        for _ in 0..25 {
            number = number.wrapping_add(1 + 3 * u16::from(pick(20) == 0));
            liar.estimator.on_sent_rtp(liar.now, 1_000, u32::from(number) % 2, number);
            liar.now += Duration::from_millis(4);
        }
        liar.estimator.poll(liar.now);
        let now = 10_000_000;
        let packet = |ecn: usize, at: usize| ReceivedPacket { at: at as u64, ecn: Ecn::from_bits(ecn as u8) };
        let packets: Vec<_> = (0..1 + pick(400))
            .map(|n| match round % 4 {
                0 => Some(packet(3, 9_000_000 + n)),
                1 => Some(packet(pick(4), pick(12_000_000))),
                2 => (pick(2) == 0).then(|| packet(pick(4), 9_900_000 + 100 * n)),
                _ => None,
            })
            .collect();
        let begin = |back: usize| number.wrapping_sub(back as u16);
        let mut streams: Vec<_> = (0..1 + pick(4))
            .map(|ssrc| StreamReport { ssrc: ssrc as u32, begin_sequence: begin(pick(60)), packets: &packets })
            .collect();
        // The clock stands still, runs, jumps about.
        let report_timestamp = [7, round * 6_554, pick(1 << 32) as u32][pick(3)];
        let fields = CcfbFields { sender_ssrc: 1, report_timestamp, now };
        while streams.iter().any(|stream| !stream.packets.is_empty()) {
            let mut buffer = [0; MAX_RTCP_LEN];
            let mut writer = RtcpWriter::new(&mut buffer);
            writer.congestion_control_feedback(&fields, &mut streams).unwrap();
            let message = writer.as_bytes().to_vec();
            for _ in 0..2 {
                liar.receive(&message);
            }
        }
    }
}

#[test]
fn marks_on_everything_bring_the_estimate_no_further_down_than_over_use_would() {
    // RTCP-15
    let mut liar = Liar::new();
    let mut number = 0u16;
    for round in 0..600u32 {
        let begin = number;
        for _ in 0..25 {
            liar.estimator.on_sent_rtp(liar.now, 1_000, 7, number);
            number = number.wrapping_add(1);
            liar.now += Duration::from_millis(4);
        }
        let packets: Vec<_> = (0..25).map(|n| Some(ReceivedPacket { at: n * 4_000, ecn: Ecn::Ce })).collect();
        let mut buffer = [0; MAX_RTCP_LEN];
        let mut writer = RtcpWriter::new(&mut buffer);
        let fields = CcfbFields { sender_ssrc: 1, report_timestamp: round * 6_554, now: 100_000 };
        let mut streams = [StreamReport { ssrc: 7, begin_sequence: begin, packets: &packets }];
        writer.congestion_control_feedback(&fields, &mut streams).unwrap();
        let message = writer.as_bytes().to_vec();
        liar.receive(&message);
    }
    // It goes on sending 2 Mbit/s, all of which arrives: no less than that, but for the step of over-use, is believed.
    let estimate = liar.estimator.estimate();
    assert!((1_500_000..2_000_000).contains(&estimate), "{estimate}");
}
