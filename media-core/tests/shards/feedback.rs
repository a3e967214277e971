//! RTCP between the core and its peers.

use std::time::{Duration, Instant};

use media_core::internals::rtcp::{DelaySinceLastReceiverReport, NtpTime, RtcpPacket, RtcpPackets, SenderInfo};
use media_core::internals::rtp::{RtpHeader, rtx};
use media_core::media::{Extension, Feedback, Role, SendSsrcs};
use media_core::stats::DropReason;

use crate::support::*;

/// A stream on shard 0 with one viewer who has got these packets, the first of them a keyframe.
fn watched(server: &Server, rtx: bool, packets: u16) -> (Peer, Peer) {
    let mut viewer = server.viewer(0, 0, rtx);
    let mut publisher = server.publisher(0);
    for sequence in 0..packets {
        publisher.video(sequence, u32::from(sequence) * 3_000, if sequence == 0 { KEYFRAME } else { DELTA });
    }
    viewer.until("the packets come", |viewer| viewer.rtp.len() >= usize::from(packets));
    (publisher, viewer)
}

// RTCP-08
#[tokio::test]
async fn a_viewers_nack_is_answered_as_rtx() {
    let server = Server::start(1);
    let (_publisher, mut viewer) = watched(&server, true, 10);
    let lost = viewer.headers(VIEWER_VIDEO)[4].sequence_number;
    viewer.rtcp(|writer| assert_eq!(writer.nack(1, VIEWER_VIDEO, &[lost]), 1));
    viewer.until("the retransmission comes", |viewer| !viewer.headers(VIEWER_RTX).is_empty());
    let header = viewer.headers(VIEWER_RTX)[0];
    let packet = viewer.rtp.last().unwrap();
    assert_eq!(header.payload_type, 97);
    assert_eq!(rtx::split_payload(header.payload(packet)), Some((lost, DELTA)));
    assert_eq!(server.counters(0).await.rtp_retransmitted, 1);
    server.core.shutdown().await;
}

// RTCP-08, SRTP-09
#[tokio::test]
async fn without_rtx_the_same_bytes_are_sent_again() {
    let server = Server::start(1);
    let (_publisher, mut viewer) = watched(&server, false, 10);
    let number = viewer.headers(VIEWER_VIDEO)[4].sequence_number;
    let is_it = |datagram: &&Vec<u8>| datagram[0] & 0xc0 == 0x80 && datagram[2..4] == number.to_be_bytes();
    let original = viewer.raw.iter().find(is_it).unwrap().clone();
    viewer.rtcp(|writer| assert_eq!(writer.nack(1, VIEWER_VIDEO, &[number]), 1));
    viewer.until("it comes again", |viewer| viewer.raw.iter().filter(is_it).count() == 2);
    assert_eq!(viewer.raw.iter().rfind(is_it), Some(&original));
    server.core.shutdown().await;
}

// RTCP-09, RTCP-19
#[tokio::test]
async fn a_publisher_that_answers_the_reference_time_shows_its_round_trip() {
    let server = Server::start(1);
    let (mut publisher, _viewer) = watched(&server, true, 1);
    let deadline = Instant::now() + PATIENCE;
    let mut answered = 0;
    let measured = loop {
        assert!(Instant::now() < deadline, "no round trip");
        publisher.turn();
        let times: Vec<_> = publisher.rtcp.iter().flat_map(|datagram| RtcpPackets::new(datagram)).collect();
        let times: Vec<_> = times
            .iter()
            .filter_map(|packet| match packet {
                Ok(RtcpPacket::ExtendedReport(report)) => Some((report.sender_ssrc, report.reference_time()?)),
                _ => None,
            })
            .collect();
        for &(ssrc, time) in &times[answered..] {
            // As if it had been sent 300 ms earlier than it was.
            let last_rr = time.compact().wrapping_sub(0x4ccd);
            let delay = DelaySinceLastReceiverReport { ssrc, last_rr, delay_since_last_rr: 0 };
            publisher.rtcp(|writer| writer.delay_since_last_receiver_report(PUBLISHER_VIDEO, &delay).unwrap());
        }
        answered = times.len();
        let snapshot = server.core.snapshot().await;
        let mut sessions = snapshot[0].sessions.iter().filter(|session| session.id == publisher.id);
        if let Some(measured) = sessions.find_map(|session| session.stats.round_trip_time) {
            break measured;
        }
    };
    assert!((0.3..2.0).contains(&measured), "{measured}");
    server.core.shutdown().await;
}

// RTCP-19
#[tokio::test]
async fn a_viewer_that_may_ask_gets_its_reference_times_answered() {
    let server = Server::start(1);
    let sections = |agreed| {
        let mut section = video(Some(SendSsrcs { media: VIEWER_VIDEO, rtx: VIEWER_RTX }), true);
        section.formats[0].feedback.receiver_round_trip = agreed;
        vec![section]
    };
    let mut asking = server.open(0, 0, Role::Viewer, sections(true));
    asking.connect();
    let mut other = server.open(0, 0, Role::Viewer, sections(false));
    other.connect();
    let mut publisher = server.publisher(0);
    publisher.video(0, 0, KEYFRAME);
    // Before its first report the server has nothing to put an answer to.
    asking.until("reports come", |viewer| !viewer.sender_reports(VIEWER_VIDEO).is_empty());
    let time = NtpTime(0x1234_5678_9abc_def0);
    for viewer in [&mut asking, &mut other] {
        viewer.rtcp(|writer| (70..74).for_each(|ssrc| writer.receiver_reference_time(ssrc, time).unwrap()));
    }
    let delays = |viewer: &Peer| {
        let packets = viewer.rtcp.iter().flat_map(|datagram| RtcpPackets::new(datagram));
        let reports = packets.filter_map(|packet| match packet {
            Ok(RtcpPacket::ExtendedReport(report)) => Some(report),
            _ => None,
        });
        reports.flat_map(|report| report.delays()).collect::<Vec<_>>()
    };
    asking.until("answers come", |viewer| !delays(viewer).is_empty());
    let answers = delays(&asking);
    assert_eq!(answers.iter().map(|delay| delay.ssrc).collect::<Vec<_>>(), [72, 73], "the newest two");
    assert!(answers.iter().all(|delay| delay.last_rr == time.compact() && delay.delay_since_last_rr < 20 << 16));
    // Each is answered once, and nobody else's at all.
    let reports = other.sender_reports(VIEWER_VIDEO).len();
    other.until("more reports come", |viewer| viewer.sender_reports(VIEWER_VIDEO).len() > reports + 1);
    asking.turn();
    assert_eq!((delays(&asking).len(), delays(&other).len()), (2, 0));
    server.core.shutdown().await;
}

// OPS-08: a NACK of everything, many times in one datagram and again.
#[tokio::test]
async fn large_nacks_are_answered_in_bounds() {
    let server = Server::start(1);
    let (_publisher, mut viewer) = watched(&server, true, 200);
    let first = viewer.headers(VIEWER_VIDEO)[0].sequence_number;
    let numbers: Vec<u16> = (0..200).map(|step| first.wrapping_add(step)).collect();
    let begun = Instant::now();
    for _ in 0..50 {
        viewer.rtcp(|writer| {
            for _ in 0..10 {
                writer.nack(1, VIEWER_VIDEO, &numbers);
            }
        });
    }
    viewer.check(true);
    // The PLI is after all the NACKs, which used up what is done for a viewer at once.
    while server.counters(0).await.keyframe_requests_received == 0 {
        assert!(begun.elapsed() < PATIENCE);
        viewer.rtcp(|writer| writer.pli(1, VIEWER_VIDEO).unwrap());
        viewer.turn();
    }
    let counters = server.counters(0).await;
    let budget = 10_000 + 20_000 * (begun.elapsed().as_secs() + 1);
    assert!((5_000..=budget).contains(&counters.nacks_received), "{}", counters.nacks_received);
    assert!(counters.dropped[DropReason::RtcpRate as usize] > 30);
    assert!((90..=1_000).contains(&counters.rtp_retransmitted), "{}", counters.rtp_retransmitted);
    server.core.shutdown().await;
}

// RTCP-09
#[tokio::test]
async fn the_publisher_is_asked_for_what_is_lost_and_viewers_get_it_late() {
    let server = Server::start(1);
    let (mut publisher, mut viewer) = watched(&server, true, 3);
    publisher.video(5, 15_000, DELTA);
    publisher.until("both are asked for", |publisher| publisher.nacked().len() >= 2);
    assert_eq!(publisher.nacked()[..2], [3, 4]);
    publisher.video(4, 12_000, DELTA);
    publisher.video(3, 9_000, DELTA);
    viewer.until("all come", |viewer| viewer.rtp.len() == 6);
    let headers = viewer.headers(VIEWER_VIDEO);
    let order: Vec<u16> = headers.iter().map(|h| h.sequence_number.wrapping_sub(headers[0].sequence_number)).collect();
    assert_eq!(order, [0, 1, 2, 5, 4, 3]);
    server.core.shutdown().await;
}

// RTCP-02, RTCP-11
#[tokio::test]
async fn keyframe_requests_of_many_viewers_are_one_to_the_publisher() {
    for shard in [0, 1] {
        let server = Server::start(2);
        let mut viewers: Vec<Peer> = (0..5).map(|_| server.viewer(shard, 2, true)).collect();
        let mut publisher = server.publisher(2);
        let mut keyframe = 0;
        for _ in 0..2 {
            publisher.video(keyframe, u32::from(keyframe) * 3_000, KEYFRAME);
            keyframe += 1;
            for viewer in &mut viewers {
                viewer.until("the keyframe comes", |viewer| viewer.rtp.len() >= usize::from(keyframe));
            }
        }
        let before = server.counters(0).await.keyframe_requests_sent;
        for viewer in &mut viewers {
            // FIR and PLI alike, and each FIR twice (RTCP-12).
            viewer.rtcp(|writer| writer.pli(1, VIEWER_VIDEO).unwrap());
        }
        publisher.until("a keyframe is asked for", |publisher| publisher.plis() > before as usize);
        publisher.video(keyframe, u32::from(keyframe) * 3_000, KEYFRAME);
        for viewer in &mut viewers {
            viewer.until("the keyframe comes", |viewer| viewer.rtp.len() > usize::from(keyframe));
        }
        let requested = server.counters(0).await.keyframe_requests_sent - before;
        assert!((1..=2).contains(&requested), "{requested} requests");
        assert_eq!(server.counters(shard).await.keyframe_requests_received, 5);
        server.core.shutdown().await;
    }
}

// RTCP-12
#[tokio::test]
async fn the_same_fir_twice_is_one_keyframe_request() {
    let server = Server::start(1);
    let (_publisher, mut viewer) = watched(&server, true, 1);
    for sequence_number in [3, 3, 3, 4] {
        viewer.rtcp(|writer| {
            writer.fir(1, media_core::internals::rtcp::fir::FirEntry { ssrc: VIEWER_VIDEO, sequence_number }).unwrap();
        });
    }
    viewer.rtcp(|writer| writer.pli(1, VIEWER_VIDEO).unwrap());
    let begun = Instant::now();
    while server.counters(0).await.keyframe_requests_received < 3 {
        assert!(begun.elapsed() < PATIENCE);
        viewer.turn();
    }
    assert_eq!(server.counters(0).await.keyframe_requests_received, 3);
    server.core.shutdown().await;
}

// RTCP-14, RTCP-03
#[tokio::test]
async fn the_publisher_learns_what_arrived_when_and_what_was_lost() {
    let server = Server::start(1);
    let mut publisher = server.publisher(0);
    publisher.video(65_534, 0, KEYFRAME);
    publisher.video(1, 3_000, DELTA);
    publisher.audio(0, 0);
    let arrived = publisher.find("feedback comes", |publisher| {
        publisher.rtcp.iter().flat_map(|datagram| RtcpPackets::new(datagram)).find_map(|packet| match packet {
            Ok(RtcpPacket::TransportFeedback(feedback)) => {
                Some(feedback.packets().map(|arrival| arrival.1.is_some()).collect::<Vec<_>>())
            }
            _ => None,
        })
    });
    assert_eq!(arrived, [true, false, false, true]);
    let block = publisher.find("a report comes", |publisher| {
        publisher.report_blocks().into_iter().find(|block| block.ssrc == PUBLISHER_VIDEO)
    });
    assert_eq!((block.cumulative_lost, block.extended_highest_sequence), (2, 65_537));
    server.core.shutdown().await;
}

// RTCP-02, RTCP-04, RTCP-05
#[tokio::test]
async fn viewers_get_sender_reports_on_their_own_time_line() {
    for shard in [0, 1] {
        let server = Server::start(2);
        let mut viewer = server.viewer(shard, 2, true);
        let mut publisher = server.publisher(2);
        publisher.video(0, 5_000_000, KEYFRAME);
        publisher.audio(0, 77_000);
        viewer.until("media comes", |viewer| viewer.rtp.len() >= 2);
        // The publisher's clock is wrong by a day; audio was captured half a second before video.
        let ntp = NtpTime::from_unix(Duration::from_secs(1_700_000_000));
        for (ssrc, rtp_timestamp) in [(PUBLISHER_VIDEO, 5_000_000), (PUBLISHER_AUDIO, 77_000 + 24_000)] {
            let info = SenderInfo { ntp, rtp_timestamp, packet_count: 1, octet_count: 5 };
            publisher.rtcp(|writer| writer.sender_report(ssrc, &info, &[]).unwrap());
        }
        let mut sequence = 0_u16;
        let begun = Instant::now();
        // Reports leave each second; the first may be from before the publisher's own.
        while viewer.sender_reports(VIEWER_VIDEO).len() < 3 || viewer.sender_reports(VIEWER_AUDIO).len() < 3 {
            assert!(begun.elapsed() < PATIENCE);
            sequence += 1;
            publisher.video(sequence, 5_000_000 + u32::from(sequence), DELTA);
            publisher.turn();
            viewer.turn();
        }
        let first_video = viewer.headers(VIEWER_VIDEO)[0].timestamp;
        let first_audio = viewer.headers(VIEWER_AUDIO)[0].timestamp;
        let video = *viewer.sender_reports(VIEWER_VIDEO).last().unwrap();
        let audio = *viewer.sender_reports(VIEWER_AUDIO).last().unwrap();
        // Capture time of the first packet of each, by its report.
        let capture = |info: SenderInfo, first: u32, rate: f64| {
            info.ntp.nanos_since(NtpTime(0)) as f64 / 1e9
                - f64::from(info.rtp_timestamp.wrapping_sub(first) as i32) / rate
        };
        let apart = capture(video, first_video, 90_000.0) - capture(audio, first_audio, 48_000.0);
        assert!((apart - 0.5).abs() < 0.05, "audio was captured {apart} s before video");
        assert!(video.packet_count >= 2 && video.octet_count >= 9);
        assert_eq!(audio.packet_count, 1);
        server.core.shutdown().await;
    }
}

// RTCP-20, RFC 5506
#[tokio::test]
async fn a_publisher_without_reduced_size_gets_a_report_in_front_of_feedback() {
    let server = Server::start(1);
    let mut section = video(None, true);
    section.reduced_size_rtcp = false;
    let mut publisher = server.open(0, 0, Role::Publisher, vec![section]);
    publisher.connect();
    publisher.video(0, 0, DELTA);
    publisher.until("a keyframe is asked for", |publisher| publisher.plis() > 0);
    publisher.video(1, 0, KEYFRAME);
    publisher.video(3, 0, DELTA);
    publisher.until("a packet is asked for", |publisher| !publisher.nacked().is_empty());
    for datagram in &publisher.rtcp {
        let packets: Vec<_> = RtcpPackets::new(datagram).map(Result::unwrap).collect();
        assert!(matches!(packets[0], RtcpPacket::ReceiverReport(_)), "{packets:?}");
        assert!(matches!(packets[1], RtcpPacket::Sdes(_)), "{packets:?}");
    }
    server.core.shutdown().await;
}

// A viewer of video only, of a publisher of audio only, and the other way round.
#[tokio::test]
async fn publisher_and_viewer_need_not_have_the_same_sections() {
    let server = Server::start(1);
    let ssrcs = SendSsrcs { media: VIEWER_AUDIO, rtx: VIEWER_AUDIO + 100 };
    let mut deaf = server.open(0, 0, Role::Viewer, vec![video(Some(SendSsrcs { media: VIEWER_VIDEO, rtx: 9 }), false)]);
    let mut blind = server.open(0, 0, Role::Viewer, vec![audio(Some(ssrcs))]);
    deaf.connect();
    blind.connect();
    let mut publisher = server.open(0, 0, Role::Publisher, vec![audio(None)]);
    publisher.connect();
    for sequence in 0..10 {
        publisher.audio(sequence, u32::from(sequence) * 960);
    }
    blind.until("audio comes", |viewer| viewer.rtp.len() >= 10);
    deaf.rtcp(|writer| writer.pli(1, VIEWER_VIDEO).unwrap());
    deaf.validate();
    assert!(deaf.rtp.is_empty());
    assert_eq!(publisher.plis(), 0);
    server.core.shutdown().await;
}

// RTCP-22
#[tokio::test]
async fn where_the_publisher_does_not_listen_a_viewer_restarts_from_the_cached_keyframe() {
    for shard in [0, 1] {
        let server = Server::start(2);
        let mut viewer = server.viewer(shard, 2, true);
        let mut publisher = server.publisher(2);
        for sequence in 0..3 {
            publisher.video(sequence, u32::from(sequence) * 3_000, if sequence == 0 { KEYFRAME } else { DELTA });
        }
        viewer.until("the packets come", |viewer| viewer.rtp.len() >= 3);
        let keyframes = |viewer: &Peer| {
            let headers = viewer.rtp.iter().map(|packet| (RtpHeader::parse(packet).unwrap(), packet));
            headers.filter(|(header, packet)| header.payload(packet) == KEYFRAME).count()
        };
        let before = keyframes(&viewer);
        let begun = Instant::now();
        let mut sequence = 3;
        while keyframes(&viewer) == before {
            assert!(begun.elapsed() < PATIENCE);
            viewer.rtcp(|writer| writer.pli(1, VIEWER_VIDEO).unwrap());
            publisher.video(sequence, u32::from(sequence) * 3_000, DELTA);
            sequence += 1;
            // The first requests go to the publisher, some time apart.
            let pause = Instant::now() + Duration::from_millis(400);
            while Instant::now() < pause {
                viewer.turn();
            }
        }
        publisher.until("it was asked first", |publisher| publisher.plis() >= 3);
        let headers = viewer.headers(VIEWER_VIDEO);
        for (index, header) in headers.iter().enumerate() {
            assert_eq!(header.sequence_number, headers[0].sequence_number.wrapping_add(index as u16));
        }
        server.core.shutdown().await;
    }
}

// RTCP-11
#[tokio::test]
async fn where_the_publisher_takes_no_requests_a_viewer_restarts_from_the_cached_keyframe_if_it_can() {
    let server = Server::start(1);
    let [mut viewer, mut other] = [0, 0].map(|shard| server.viewer(shard, 0, true));
    let mut section = video(None, true);
    section.formats[0].feedback = Feedback::default();
    let mut publisher = server.open(0, 0, Role::Publisher, vec![section]);
    publisher.connect();
    for sequence in 0..3 {
        publisher.video(sequence, u32::from(sequence) * 3_000, if sequence == 0 { KEYFRAME } else { DELTA });
    }
    viewer.until("the packets come", |viewer| viewer.rtp.len() >= 3);
    viewer.rtcp(|writer| writer.pli(1, VIEWER_VIDEO).unwrap());
    viewer.until("and come again from the cached keyframe", |viewer| viewer.rtp.len() >= 6);
    assert_eq!(server.counters(0).await.keyframes_unavailable, 0);
    // Without 3 there is no frame that 4 could go on from.
    publisher.video(4, 12_000, DELTA);
    other.until("what is left comes", |other| other.rtp.len() >= 4);
    other.rtcp(|writer| writer.pli(1, VIEWER_VIDEO).unwrap());
    let deadline = Instant::now() + PATIENCE;
    while server.counters(0).await.keyframes_unavailable == 0 {
        assert!(Instant::now() < deadline, "nobody counts the keyframe request");
    }
    other.turn();
    publisher.turn();
    assert_eq!((other.rtp.len(), publisher.plis()), (4, 0));
    server.core.shutdown().await;
}

// RTCP-13
#[tokio::test]
async fn a_publisher_that_knows_only_remb_is_told_what_its_path_carries() {
    let server = Server::start(1);
    let mut section = video(None, true);
    section.formats[0].feedback = Feedback { remb: true, transport_cc: false, ..section.formats[0].feedback };
    section.extensions.set(Extension::TransportCc, 0);
    let mut publisher = server.open(0, 0, Role::Publisher, vec![section]);
    publisher.connect();
    let mut sequence = 0;
    let begun = Instant::now();
    let rembs = |publisher: &Peer| {
        let packets = publisher.rtcp.iter().flat_map(|datagram| RtcpPackets::new(datagram));
        let remb = |packet| match packet {
            Ok(RtcpPacket::Remb(remb)) => Some((remb.bitrate, remb.ssrcs().collect::<Vec<_>>())),
            _ => None,
        };
        packets.filter_map(remb).collect::<Vec<_>>()
    };
    while rembs(&publisher).len() < 2 {
        assert!(begun.elapsed() < PATIENCE);
        publisher.video(sequence, u32::from(sequence) * 3_000, if sequence == 0 { KEYFRAME } else { DELTA });
        sequence += 1;
        publisher.turn();
    }
    for (bitrate, sources) in rembs(&publisher) {
        assert!(bitrate >= 100_000, "{bitrate}");
        assert_eq!(sources, [PUBLISHER_VIDEO]);
    }
    server.core.shutdown().await;
}
