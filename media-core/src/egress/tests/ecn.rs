//! Viewers that tell of packets by RFC 8888, and packets that are sent as ECT(1) (RTCP-15).

use super::*;
use crate::ecn::Ecn;
use crate::egress::congestion::{ArrivalFeedback, Numbered};
use crate::rtcp::ccfb::{CcfbFields, ReceivedPacket, StreamReport};
use crate::rtcp::{MAX_RTCP_LEN, RtcpPacket, RtcpPackets, RtcpWriter};

const SSRC: u32 = 0xaaaa;

/// Feedback about packets, in order, that were received at these times in µs with these marks.
fn tell(congestion: &mut Congestion, now: Instant, micros: u64, begin_sequence: u16, packets: &[(u64, Ecn)]) {
    let packets: Vec<_> = packets.iter().map(|&(at, ecn)| Some(ReceivedPacket { at, ecn })).collect();
    let mut streams = [StreamReport { ssrc: SSRC, begin_sequence, packets: &packets }];
    let report_timestamp = (micros * 65_536 / 1_000_000) as u32;
    let fields = CcfbFields { sender_ssrc: 1, report_timestamp, now: micros };
    let mut buffer = [0; MAX_RTCP_LEN];
    let mut writer = RtcpWriter::new(&mut buffer);
    writer.congestion_control_feedback(&fields, &mut streams).unwrap();
    for packet in RtcpPackets::new(writer.as_bytes()) {
        let Ok(RtcpPacket::CongestionControlFeedback(feedback)) = packet else { panic!("it was feedback") };
        congestion.on_congestion_control_feedback(now, &feedback, 0);
    }
}

/// The estimate of a viewer whose packets all arrive with this mark.
fn estimate(ecn: Ecn) -> u64 {
    let mut told = format(100, Codec::Vp8, Some(101));
    told.feedback.ccfb = true;
    let (mut viewer, mut receiver) = viewer_of(TrackId::VIDEO, vec![told], &[format(96, Codec::Vp8, None)]);
    let mut published = Published::new();
    assert_eq!(video(&mut viewer).arrival_feedback(), ArrivalFeedback::Ccfb);
    let mut received = Vec::new();
    for n in 0..300 {
        published.packet(n, 96, n == 0);
        let packet = forward(&mut viewer, &mut published, n).unwrap();
        let (header, packet) = open(&mut receiver, packet);
        assert_eq!((header.ssrc, header.extensions(&packet).count()), (SSRC, 2), "it carries no number of its own");
        received.push((header.sequence_number, 33_000 * n + 20_000));
        if received.len() == 5 {
            let (now, micros) = (published.at(n) + Duration::from_millis(30), 33_000 * n + 30_000);
            let marks: Vec<_> = received.iter().map(|&(_, at)| (at, ecn)).collect();
            tell(viewer.congestion_mut(), now, micros, received[0].0, &marks);
            received.clear();
        }
    }
    assert!(viewer.congestion().has_feedback() && viewer.can_pad());
    viewer.congestion().snapshot().available_outgoing_bitrate
}

// RTCP-15
#[test]
fn what_a_viewer_tells_by_rfc_8888_goes_into_the_estimate_of_its_path() {
    let (unmarked, marked) = (estimate(Ecn::Ect1), estimate(Ecn::Ce));
    assert!(unmarked >= 3_000_000, "{unmarked}");
    assert!(marked < unmarked / 2, "{marked} of {unmarked}");
}

// RTCP-15
#[test]
fn packets_are_ecn_capable_only_where_feedback_says_what_becomes_of_them() {
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    for feedback in [ArrivalFeedback::None, ArrivalFeedback::TransportWide] {
        let mut congestion = Congestion::new(start, feedback, 0);
        congestion.set_ect1(start, 0);
        assert_eq!(congestion.ecn(), Ecn::NotEct, "{feedback:?}");
    }
    // (what the packets arrive as, how many, what is sent afterwards)
    for (ecn, count, expected) in [
        (Ecn::Ect1, 100, Ecn::Ect1),
        (Ecn::Ce, 100, Ecn::Ect1),
        (Ecn::NotEct, 40, Ecn::Ect1),
        (Ecn::NotEct, 60, Ecn::NotEct),
        (Ecn::Ect0, 60, Ecn::NotEct),
        (Ecn::Ect1, 0, Ecn::NotEct),
    ] {
        let mut congestion = Congestion::new(start, ArrivalFeedback::Ccfb, 0);
        assert_eq!(congestion.ecn(), Ecn::NotEct, "the switch is off");
        congestion.set_ect1(start, 0);
        assert_eq!(congestion.ecn(), Ecn::Ect1);
        for n in 0..count {
            congestion.on_sent(at(u64::from(n)), 1_000, Numbered::Rtp(SSRC, n));
        }
        congestion.poll(at(1_000), 0, false);
        assert_eq!(congestion.ecn(), Ecn::Ect1, "the answer may still come");
        if count > 0 {
            let packets: Vec<_> = (0..u64::from(count)).map(|n| (1_000 * n + 20_000, ecn)).collect();
            tell(&mut congestion, at(1_100), 1_000_000, 0, &packets);
        }
        congestion.poll(at(2_100), 0, false);
        assert_eq!(congestion.ecn(), expected, "{count} packets as {ecn:?}");
    }
}
