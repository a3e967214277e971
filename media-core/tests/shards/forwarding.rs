//! What viewers get of what a publisher sends.

use media_core::internals::rtp::{RtpHeader, sequence::sequence_distance};
use media_core::ledger::Reason;

use crate::support::*;

/// The stream's home is shard 0; its viewers are here and there.
fn stream_of(shards: usize) -> u64 {
    shards as u64
}

// WHEP-16, RTP-04, RTP-10
#[tokio::test]
async fn each_packet_reaches_every_viewer_on_every_shard_once() {
    for shards in [1, 2] {
        let server = Server::start(shards);
        let stream = stream_of(shards);
        let mut viewers: Vec<Peer> = (0..4).map(|index| server.viewer(index % shards, stream, true)).collect();
        let mut publisher = server.publisher(stream);
        // The publisher's news goes to the other shard ahead of its packets.
        for sequence in 0..50 {
            let payload = if sequence == 0 { KEYFRAME } else { DELTA };
            publisher.video(sequence, u32::from(sequence) * 3_000, payload);
            publisher.audio(sequence, u32::from(sequence) * 960);
        }
        for viewer in &mut viewers {
            viewer.until("all packets come", |viewer| viewer.rtp.len() >= 100);
            let video = viewer.headers(VIEWER_VIDEO);
            assert_eq!(video.len(), 50);
            for (index, header) in video.iter().enumerate() {
                assert_eq!(sequence_distance(header.sequence_number, video[0].sequence_number), index as i16);
                assert_eq!(header.timestamp.wrapping_sub(video[0].timestamp), 3_000 * index as u32);
                assert_eq!(header.payload_type, 96);
            }
            assert!(video[0].sequence_number < 0x8000);
            assert_eq!(viewer.headers(VIEWER_AUDIO).len(), 50);
            let header = RtpHeader::parse(&viewer.rtp[0]).unwrap();
            assert!(header.extension(&viewer.rtp[0], MID).is_some());
            // EXT-H05: its own counter over all its sources.
            assert_eq!(viewer.wide_numbers(), (0..100).collect::<Vec<u16>>());
        }
        let mut forwarded = 0;
        let mut handed_over = 0;
        for shard in 0..shards {
            let counters = server.counters(shard).await;
            forwarded += counters.rtp_forwarded;
            handed_over += counters.batches_handed_over;
            assert_eq!((counters.send_dropped, counters.batches_refused), (0, 0));
        }
        assert_eq!(forwarded, 400);
        assert_eq!(handed_over > 0, shards == 2);
        server.core.shutdown().await;
    }
}

// RTP-15, RTP-06, SRTP-08
#[tokio::test]
async fn a_publisher_that_comes_back_continues_numbers_and_time_on_both_shards() {
    let mut server = Server::start(2);
    let mut viewers = [server.viewer(0, 2, true), server.viewer(1, 2, false)];
    for round in 0_u16..3 {
        let mut publisher = server.publisher(2);
        let first = 1_000 + 20_000 * round;
        for step in 0..10_u16 {
            let payload = if step == 0 { KEYFRAME } else { DELTA };
            publisher.video(first + step, u32::from(round) * 0x4000_0000 + u32::from(step) * 3_000, payload);
        }
        let expected = 10 * usize::from(round + 1);
        for viewer in &mut viewers {
            viewer.until("the round comes", |viewer| viewer.headers(VIEWER_VIDEO).len() >= expected);
        }
        server.core.close(publisher.shard, publisher.id, Reason::Deleted);
        assert_eq!(server.ended(publisher.id).await, Reason::Deleted);
    }
    for viewer in &viewers {
        let headers = viewer.headers(VIEWER_VIDEO);
        assert_eq!(headers.len(), 30);
        for pair in headers.windows(2) {
            assert_eq!(sequence_distance(pair[1].sequence_number, pair[0].sequence_number), 1);
            let advance = pair[1].timestamp.wrapping_sub(pair[0].timestamp);
            assert!((1..90_000 * 20).contains(&advance), "time advanced by {advance}");
        }
    }
    server.core.shutdown().await;
}

// SRTP-17
#[tokio::test]
async fn packets_are_forwarded_whole_and_become_but_a_few_bytes_longer() {
    let server = Server::start(1);
    let mut viewer = server.viewer(0, 0, true);
    let mut publisher = server.publisher(0);
    // As clients cut them, and so long that the datagram is as long as it may be.
    let lengths = [1_100, 1_200, 1_300, 1_400, 1_440];
    for (sequence, length) in (0_u16..).zip(lengths) {
        let mut payload = if sequence == 0 { KEYFRAME } else { DELTA }.to_vec();
        payload.resize(length, sequence as u8);
        publisher.video(sequence, u32::from(sequence) * 3_000, &payload);
    }
    viewer.until("all of them come", |viewer| viewer.headers(VIEWER_VIDEO).len() == lengths.len());
    let is_video = |datagram: &&Vec<u8>| datagram[0] >> 6 == 2 && datagram[8..12] == VIEWER_VIDEO.to_be_bytes();
    let datagrams = viewer.raw.iter().filter(is_video).map(Vec::len);
    for (datagram, length) in datagrams.zip(lengths) {
        // A header, an extension with MID and wide number, the tag.
        let more = datagram - length;
        assert!(more <= 12 + 16 + 16, "{more} bytes around {length}");
        assert!(datagram <= 1_400 || length > 1_350, "{datagram} bytes");
    }
    for (packet, length) in viewer.rtp.iter().zip(lengths) {
        let header = RtpHeader::parse(packet).unwrap();
        assert_eq!(packet.len() - header.header_len, length);
    }
    server.core.shutdown().await;
}

/// Waits until the shard has seen that many packets of publishers.
async fn received(server: &Server, shard: usize, packets: u64) {
    let begun = std::time::Instant::now();
    while server.counters(shard).await.rtp_received < packets {
        assert!(begun.elapsed() < PATIENCE);
        tokio::task::yield_now().await;
    }
}

// COD-17, RTCP-22: the publisher is not troubled at all.
#[tokio::test]
async fn a_late_viewer_begins_with_the_last_keyframe_and_everything_since() {
    for shard in [0, 1] {
        let server = Server::start(2);
        let mut publisher = server.publisher(2);
        publisher.video(0, 0, DELTA);
        for sequence in 1..100 {
            publisher.video(sequence, u32::from(sequence) * 3_000, if sequence == 10 { KEYFRAME } else { DELTA });
        }
        received(&server, 0, 100).await;
        let before = server.counters(0).await.keyframe_requests_sent;
        let mut viewers: Vec<Peer> = (0..3).map(|_| server.viewer(shard, 2, true)).collect();
        for sequence in 100..110 {
            publisher.video(sequence, u32::from(sequence) * 3_000, DELTA);
        }
        for viewer in &mut viewers {
            viewer.until("everything since the keyframe comes", |viewer| viewer.rtp.len() >= 100);
            let headers = viewer.headers(VIEWER_VIDEO);
            let first = RtpHeader::parse(&viewer.rtp[0]).unwrap();
            assert_eq!(first.payload(&viewer.rtp[0]), KEYFRAME);
            for (index, header) in headers.iter().enumerate() {
                assert_eq!(sequence_distance(header.sequence_number, headers[0].sequence_number), index as i16);
            }
        }
        assert_eq!(server.counters(0).await.keyframe_requests_sent, before);
        server.core.shutdown().await;
    }
}

// WHEP-16, RTCP-11: what no decoder could use is not sent.
#[tokio::test]
async fn a_late_viewer_of_a_stream_with_a_hole_waits_for_the_keyframe_that_is_asked_for_it() {
    for shard in [0, 1] {
        let server = Server::start(2);
        let mut publisher = server.publisher(2);
        publisher.video(0, 0, KEYFRAME);
        publisher.video(2, 6_000, DELTA);
        received(&server, 0, 2).await;
        let mut viewer = server.viewer(shard, 2, true);
        publisher.until("a keyframe is asked for", |publisher| publisher.plis() > 0);
        publisher.video(3, 9_000, DELTA);
        publisher.video(5, 15_000, KEYFRAME);
        publisher.video(6, 18_000, DELTA);
        viewer.until("video begins", |viewer| viewer.rtp.len() >= 2);
        let first = RtpHeader::parse(&viewer.rtp[0]).unwrap();
        assert_eq!(first.payload(&viewer.rtp[0]), KEYFRAME);
        server.core.shutdown().await;
    }
}
