//! Simulcast through whole shards: three RTP streams of one section, told apart by their rids.

use std::time::{Duration, Instant};

use media_core::CoreEvent;
use media_core::internals::rtcp::{RtcpPacket, RtcpPackets};
use media_core::internals::rtp::HeaderFields;
use media_core::layers::LayerReport;
use media_core::ledger::{Stage, StageChange};
use media_core::media::{Extension, MediaSection, Role, SimulcastEncoding, TrackId};

use crate::support::*;

const RID: u8 = 6;
const RIDS: [&str; 3] = ["f", "q", "h"];
/// Bytes of a frame.
const FRAMES: [usize; 3] = [1_200, 100, 400];

fn simulcast() -> MediaSection {
    let mut section = video(None, true);
    section.extensions.set(Extension::RtpStreamId, RID);
    let encoding = |rid: &str| SimulcastEncoding { rid: Some(rid.into()), ..SimulcastEncoding::default() };
    section.simulcast = RIDS.map(encoding).to_vec();
    section
}

/// Sends a frame of an encoding in one packet.
fn send(publisher: &mut Peer, encoding: usize, sequence: u16, is_keyframe: bool) {
    let fields = HeaderFields {
        marker: true,
        padding: false,
        payload_type: 96,
        sequence_number: sequence,
        timestamp: u32::from(sequence) * 1_800 + 1_000_000 * encoding as u32,
        ssrc: 1 + encoding as u32,
    };
    let mut payload = vec![encoding as u8; FRAMES[encoding]];
    payload[..2].copy_from_slice(if is_keyframe { &KEYFRAME[..2] } else { &DELTA[..2] });
    let datagram = publisher.protect(fields, &[(RID, RIDS[encoding].as_bytes())], &payload);
    publisher.send(&datagram);
}

/// The media SSRCs of the keyframe requests that the publisher received.
fn requested(publisher: &Peer) -> Vec<u32> {
    let packets = publisher.rtcp.iter().flat_map(|datagram| RtcpPackets::new(datagram));
    let pli = |packet| if let Ok(RtcpPacket::Pli(pli)) = packet { Some(pli.media_ssrc) } else { None };
    let mut ssrcs: Vec<u32> = packets.filter_map(pli).collect();
    ssrcs.sort_unstable();
    ssrcs.dedup();
    ssrcs
}

// WHIP-29, SDP-45, RTCP-03, RTCP-11
#[tokio::test]
async fn three_rids_are_three_encodings_on_every_shard_and_control_is_told_their_layers() {
    let server = Server::start(2);
    let mut viewers = [server.viewer(0, 2, true), server.viewer(1, 2, true)];
    let sections = vec![audio(None), simulcast()];
    let mut publisher = server.connected(server.open(0, 2, Role::Publisher, sections));
    publisher.audio(0, 0);
    // Each of them begins without a keyframe, and is asked for one of its own.
    (0..3).for_each(|encoding| send(&mut publisher, encoding, 0, false));
    publisher.until("keyframes are requested", |publisher| requested(publisher) == [1, 2, 3]);
    // The media are there once one of them has it.
    send(&mut publisher, 2, 1, true);
    let id = publisher.id;
    let has_media = |event: CoreEvent| match event {
        CoreEvent::Stage { session, event } => {
            session == id && event.stage == Stage::Media && event.change == StageChange::Done
        }
        _ => false,
    };
    let deadline = Instant::now() + PATIENCE;
    while !std::iter::from_fn(|| server.events.borrow_mut().try_recv().ok()).any(has_media) {
        assert!(Instant::now() < deadline, "the publisher's media are there");
        publisher.turn();
    }
    let mut layers: Vec<LayerReport> = Vec::new();
    let mut sequence = 2;
    while layers.len() < 3 || layers.iter().any(|report| report.layer.bitrate == 0) || sequence < 100 {
        assert!(Instant::now() < deadline, "control is told: {layers:?}");
        (0..3).for_each(|encoding| send(&mut publisher, encoding, sequence, sequence == 2));
        publisher.audio(sequence, u32::from(sequence) * 960);
        sequence += 1;
        publisher.turn();
        viewers.iter_mut().for_each(Peer::turn);
        tokio::time::sleep(Duration::from_millis(15)).await;
        while let Ok(event) = server.events.borrow_mut().try_recv() {
            if let CoreEvent::Layers { session, track, layers: told } = event {
                assert_eq!((session, track), (publisher.id, TrackId::VIDEO));
                layers = told;
            }
        }
    }
    let named: Vec<_> = layers.iter().map(|report| (report.layer.point.encoding, report.rid.as_deref())).collect();
    assert_eq!(named, [(1, Some("q")), (2, Some("h")), (0, Some("f"))], "by what they carry");
    let rate = |index: usize| layers[index].layer.bitrate;
    assert!(rate(2) > 2 * rate(1) && rate(1) > 2 * rate(0), "{layers:?}");
    // Reports go back about each of them, and all three are in the caches of either shard.
    let ssrcs = [1, 2, 3, PUBLISHER_AUDIO];
    publisher.until("all are reported on", |publisher| {
        ssrcs.iter().all(|ssrc| publisher.report_blocks().iter().any(|block| block.ssrc == *ssrc))
    });
    for snapshot in server.core.snapshot().await {
        // That of one encoding takes 1.2 MiB, and 0.3 where nobody watches it for a while.
        assert!(snapshot.cache_bytes > 1_800_000, "shard {}: {} bytes", snapshot.shard, snapshot.cache_bytes);
        assert_eq!(snapshot.counters.dropped, [0; media_core::stats::DropReason::ALL.len()], "{:?}", snapshot.counters);
    }
    for viewer in &mut viewers {
        // Frames of one encoding, each whole: what a decoder is sent.
        let video: Vec<&Vec<u8>> = viewer.rtp.iter().filter(|packet| packet[11] == VIEWER_VIDEO as u8).collect();
        assert!(video.len() > 50, "{}", video.len());
    }
    server.core.shutdown().await;
}
