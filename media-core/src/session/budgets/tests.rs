use super::*;
use crate::ecn::Ecn;
use crate::rtcp::RtcpPackets;
use crate::rtcp::ccfb::{CcfbFields, ReceivedPacket, StreamReport};
use crate::rtcp::transport_feedback::FeedbackFields;
use crate::rtcp::{ReportBlock, RtcpWriter};

const NO_LIMITS: SessionLimits = SessionLimits { bits_per_second: None, packets_per_second: None };

/// Takes the messages of a datagram as a session does; true if all were within the budget.
fn take(budgets: &mut Budgets, now: Instant, datagram: &[u8]) -> (bool, u32) {
    let mut work = budgets.begin_rtcp(now);
    let whole = RtcpPackets::new(datagram).all(|packet| work.take(cost(&packet)));
    budgets.end_rtcp(now, &work, !whole);
    (whole, work.done)
}

fn datagram(fill: impl FnOnce(&mut RtcpWriter<'_>)) -> Vec<u8> {
    let mut buffer = [0; 1_200];
    let mut writer = RtcpWriter::new(&mut buffer);
    fill(&mut writer);
    writer.as_bytes().to_vec()
}

/// A message of feedback that says of as many packets as it can name that they were lost.
fn most_statuses(datagram: &mut Vec<u8>) {
    let chunks = [0x1f, 0xff].repeat(8);
    datagram.extend([0x8f, 205, 0, 8, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0xff, 0xf8, 0, 0, 1, 0]);
    datagram.extend(chunks);
}

/// A message of RFC 8888 about so many packets, of which a fifth is lost.
fn ccfb(begin_sequence: u16, packets: u64) -> Vec<u8> {
    let received = |n: u64| (!n.is_multiple_of(5)).then_some(ReceivedPacket { at: n * 500, ecn: Ecn::Ect1 });
    let packets: Vec<_> = (0..packets).map(received).collect();
    let fields = CcfbFields { sender_ssrc: 1, report_timestamp: 0, now: 1_000_000 };
    let mut streams = [StreamReport { ssrc: 7, begin_sequence, packets: &packets }];
    datagram(|writer| writer.congestion_control_feedback(&fields, &mut streams).unwrap())
}

/// The same about as many streams as it can name, with a packet each.
fn many_streams() -> Vec<u8> {
    let packet = [Some(ReceivedPacket { at: 0, ecn: Ecn::Ce })];
    let fields = CcfbFields { sender_ssrc: 1, report_timestamp: 0, now: 1_000_000 };
    let mut streams: Vec<_> = (0..200).map(|ssrc| StreamReport { ssrc, begin_sequence: 0, packets: &packet }).collect();
    datagram(|writer| writer.congestion_control_feedback(&fields, &mut streams).unwrap())
}

fn block() -> ReportBlock {
    ReportBlock {
        ssrc: 7,
        fraction_lost: 50,
        cumulative_lost: 5,
        extended_highest_sequence: 9,
        jitter: 0,
        last_sr: 0,
        delay_since_last_sr: 0,
    }
}

/// Datagrams that make as much work as fits into them.
fn floods() -> Vec<(&'static str, Vec<u8>)> {
    let mut feedback = Vec::new();
    while feedback.len() + 36 <= 1_200 {
        most_statuses(&mut feedback);
    }
    let numbers: Vec<u16> = (0..5_000).collect();
    // Whatever fits: the rest of the messages is left out.
    let fill = |count: usize, write: &dyn Fn(&mut RtcpWriter<'_>, usize)| {
        datagram(|writer| (0..count).for_each(|index| write(writer, index)))
    };
    let nacks = |writer: &mut RtcpWriter<'_>, at: usize| {
        writer.nack(1, 2, &numbers[at..][..17]);
    };
    vec![
        ("transport-wide feedback", feedback),
        ("feedback of RFC 8888", ccfb(0, 580)),
        ("of many streams", many_streams()),
        ("NACK", datagram(|writer| assert!(writer.nack(1, 2, &numbers) > 4_000))),
        ("many NACKs", fill(50, &nacks)),
        ("PLI", fill(100, &|writer, _| writer.pli(1, 2).unwrap_or_default())),
        ("receiver reports", fill(6, &|writer, _| writer.receiver_report(1, &[block(); 7]).unwrap_or_default())),
        ("REMB", fill(50, &|writer, _| writer.remb(1, 1_000_000, &[2]).unwrap_or_default())),
        ("BYE", fill(9, &|writer, _| writer.bye(&[3; 31]).unwrap_or_default())),
        ("empty messages", [0x80, 203, 0, 0].repeat(300)),
    ]
}

// H5
#[test]
fn no_flood_of_feedback_makes_more_work_than_its_budget() {
    for (name, flood) in floods() {
        let start = Instant::now();
        let mut budgets = Budgets::new(Role::Viewer, NO_LIMITS);
        let (mut done, mut refused) = (0_u64, 0_u64);
        // 10,000 datagrams a second.
        for tick in 0..100_000_u64 {
            let now = start + Duration::from_micros(100 * tick);
            if !budgets.take_datagram(now, true) {
                refused += 1;
                continue;
            }
            let (whole, work) = take(&mut budgets, now, &flood);
            assert!(work <= WORK_PER_DATAGRAM, "{name}: {work} for a datagram");
            done += u64::from(work);
            refused += u64::from(!whole);
        }
        assert!(done <= 10 * 20_000 + 10_000, "{name}: {done}");
        assert!(refused >= 75_000, "{name}: {refused}");
        let mut warnings = Vec::new();
        budgets.poll(start + Duration::from_secs(10), |code, detail| warnings.push((code, detail)));
        assert!(matches!(&warnings[..], [(WarningCode::RtcpExceeded, Some(_))]), "{name}: {warnings:?}");
    }
}

// H5
#[test]
fn what_an_honest_viewer_sends_on_a_bad_path_is_within_its_budget() {
    let start = Instant::now();
    let mut budgets = Budgets::new(Role::Viewer, NO_LIMITS);
    // 20 Mbit/s in packets of 1,200 bytes, a fifth lost, each asked for three times; four tracks.
    let packets_per_ms = 2;
    let mut buffer = [0; 1_200];
    for ms in 0..60_000_u64 {
        let now = start + Duration::from_millis(ms);
        let mut sent = Vec::new();
        if ms % 2 == 0 {
            // At each gap, and again each round trip.
            let lost = [ms as u16, (ms as u16).wrapping_sub(80), (ms as u16).wrapping_sub(160)];
            lost.iter().for_each(|&number| sent.push(datagram(|writer| assert_eq!(writer.nack(1, 2, &[number]), 1))));
        }
        if ms % 50 == 0 {
            let arrivals: Vec<(u16, Option<u64>)> = (0..50 * packets_per_ms)
                .map(|n| ((ms * packets_per_ms + n) as u16, (n % 5 != 0).then_some(1_000 * ms + 500 * n)))
                .collect();
            let mut writer = RtcpWriter::new(&mut buffer);
            let fields = FeedbackFields { sender_ssrc: 1, media_ssrc: 2, feedback_count: 0 };
            writer.transport_feedback(&fields, &arrivals).unwrap();
            sent.push(writer.as_bytes().to_vec());
        }
        if ms % 25 == 0 {
            // The other kind beside it, twice as often: nobody sends both.
            sent.push(ccfb((ms * packets_per_ms) as u16, 25 * packets_per_ms));
        }
        if ms % 200 == 0 {
            sent.push(datagram(|writer| {
                writer.receiver_report(1, &[block(); 4]).unwrap();
                writer.sdes_cname(1, "viewer").unwrap();
                writer.remb(1, 20_000_000, &[1, 2, 3, 4]).unwrap();
                writer.pli(1, 2).unwrap();
            }));
        }
        for datagram in sent {
            assert!(budgets.take_datagram(now, true) && take(&mut budgets, now, &datagram).0, "{ms}");
        }
    }
    budgets.poll(start + Duration::from_secs(60), |code, _| panic!("{code:?}"));
}

// H5: a publisher's media.
#[test]
fn a_publisher_is_held_to_its_rates_and_told_so_until_it_keeps_to_them() {
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    let limits = SessionLimits { bits_per_second: Some(8_000_000), packets_per_second: Some(2_000) };
    for (bytes, per_ms, expected) in [(1_000, 1, 1_000), (1_000, 3, 1_000), (100, 5, 2_000)] {
        let mut budgets = Budgets::new(Role::Publisher, limits);
        let mut taken = 0;
        for ms in 0..11_000 {
            let packets =
                (0..per_ms).filter(|_| budgets.take_datagram(at(ms), false) && budgets.take_media(at(ms), bytes));
            taken += packets.count();
        }
        let expected = expected * 11..=expected * 12;
        assert!(expected.contains(&taken), "{bytes} bytes, {per_ms} a ms: {taken}");
        let mut warnings = Vec::new();
        budgets.poll(at(11_000), |code, detail| warnings.push((code, detail.unwrap())));
        assert_eq!(warnings.is_empty(), per_ms == 1);
        let Some((code, detail)) = warnings.pop() else { continue };
        assert_eq!(code, WarningCode::BitrateExceeded);
        assert!(detail.ends_with("datagrams were dropped beyond 8 Mbit/s and 2000 packets a second"), "{detail}");
        budgets.poll(at(11_500), |_, _| panic!("nothing new"));
        let mut over = Vec::new();
        budgets.poll(at(22_000), |code, detail| over.push((code, detail)));
        assert_eq!(over, [(WarningCode::BitrateExceeded, None)]);
        budgets.poll(at(23_000), |_, _| panic!("it is over"));
    }
}
