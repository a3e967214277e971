//! What decides nothing is accepted, as odd as it may be; what decides media or security is not guessed.

// A test's helpers may panic as the test may.
#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

use media_core::CoreEvent;
use media_core::media::{Codec, MediaKind, TrackId};
use signaling::SignalingConfig;
use support::{App, Sdp, golden, lint, values};

// F-21
#[tokio::test]
async fn opus_with_one_channel_or_none_named_is_opus_on_either_side() {
    let app = App::new(SignalingConfig::default());
    for (stream, rtpmap) in [("two", "opus/48000/2"), ("one", "opus/48000/1"), ("none", "OPUS/48000")] {
        let offer = golden("obs").replace("opus/48000/2", rtpmap);
        let reply = app.post(&format!("/whip/{stream}"), &offer).await;
        assert_eq!(reply.status, 201, "{}", reply.body);
        lint(&offer, &reply.body, "recvonly", true);
        let publisher = app.core.last();
        let event = CoreEvent::FormatInUse { session: publisher.id, track: TrackId::AUDIO, payload_type: 111 };
        app.signaling.registry().apply(support::now(), event);
        for watched in ["OPUS/48000/2", "opus/48000/1", "OPUS/48000"] {
            let offer = golden("gstreamer-whepsrc").replace("OPUS/48000/2", watched);
            let reply = app.post(&format!("/whep/{stream}"), &offer).await;
            assert_eq!(reply.status, 201, "{}", reply.body);
            lint(&offer, &reply.body, "sendonly", true);
            let spec = app.core.last();
            let audio = spec.sections.iter().find(|section| section.kind == MediaKind::Audio).unwrap();
            assert_eq!(audio.formats[0].codec, Codec::Opus, "{rtpmap} to {watched}");
            let answer = Sdp::read(&reply.body);
            let expected = format!("98 {}", watched.replace("OPUS", "opus"));
            assert_eq!(values(&answer.sections[1], "rtpmap"), [expected], "as it was offered");
        }
    }
}
