//! Congestion control feedback of RFC 8888 in offers and answers (RTCP-15).

use media_core::media::{Extension, MediaSection};
use signaling::SignalingConfig;

use crate::support::{App, Sdp, golden, lint, values};

/// As Chromium 156 offers it (field trial WebRTC-RFC8888CongestionControlFeedback): for each format of a section, RTX and all.
fn for_each_format(offer: &str) -> String {
    let mut lines = Vec::new();
    for line in offer.lines() {
        lines.push(line.to_owned());
        if let Some((number, _)) = line.strip_prefix("a=rtpmap:").and_then(|map| map.split_once(' ')) {
            lines.push(format!("a=rtcp-fb:{number} ack ccfb"));
        }
    }
    lines.join("\r\n") + "\r\n"
}

/// As RFC 8888 §6 has it: for all formats at once, in the n-th sections alone where they are named.
fn for_sections(offer: &str, sections: &[usize]) -> String {
    let mut index = 0;
    let mut lines = Vec::new();
    for line in offer.lines() {
        lines.push(line.to_owned());
        if line.starts_with("c=") {
            if sections.contains(&index) {
                lines.push("a=rtcp-fb:* ack ccfb".to_owned());
            }
            index += 1;
        }
    }
    lines.join("\r\n") + "\r\n"
}

fn agreed(section: &MediaSection) -> Vec<(bool, bool, bool)> {
    let feedback = |format: &media_core::media::Format| format.feedback;
    section.formats.iter().map(feedback).map(|of| (of.ccfb, of.transport_cc, of.remb)).collect()
}

// RTCP-15: libwebrtc takes it for the whole transport, and then neither answers transport-wide feedback nor its extension.
#[tokio::test]
async fn what_is_offered_everywhere_is_taken_in_place_of_the_other_kinds() {
    let app = App::new(SignalingConfig::default());
    let publish = golden("chromium-publish");
    let watch = golden("chromium-watch");
    for form in [for_each_format, |offer: &str| for_sections(offer, &[0, 1])] {
        for (path, offer, direction) in [("/whip", form(&publish), "recvonly"), ("/whep", form(&watch), "sendonly")] {
            let name = format!("s{}", form(&publish).len());
            let reply = app.post(&format!("{path}/{name}"), &offer).await;
            assert_eq!(reply.status, 201, "{}", reply.body);
            lint(&offer, &reply.body, direction, true);
            let answer = Sdp::read(&reply.body);
            assert_eq!(answer.sections.len(), 2);
            for section in &answer.sections {
                let feedback = values(section, "rtcp-fb");
                assert_eq!(feedback.iter().filter(|line| **line == "* ack ccfb").count(), 1, "{feedback:?}");
                let other = |line: &&str| line.ends_with("transport-cc") || line.ends_with("goog-remb");
                assert!(!feedback.iter().any(other), "{feedback:?}");
                let numbered = [Extension::TransportCc, Extension::AbsSendTime];
                assert!(!values(section, "extmap").iter().any(|line| numbered.iter().any(|x| line.contains(x.uri()))));
            }
            for section in &app.core.last().sections {
                assert!(agreed(section).iter().all(|of| *of == (true, false, false)), "{:?}", agreed(section));
                assert_eq!(section.extensions.id(Extension::TransportCc), None);
            }
        }
    }
}

// RTCP-15
#[tokio::test]
async fn what_is_offered_for_a_part_is_not_taken() {
    let app = App::new(SignalingConfig::default());
    let publish = golden("chromium-publish");
    let one_format = publish.replacen("a=rtcp-fb:96 nack\r\n", "a=rtcp-fb:96 nack\r\na=rtcp-fb:96 ack ccfb\r\n", 1);
    assert_ne!(one_format, publish);
    for (name, offer) in [
        ("none", publish.clone()),
        ("one-format", one_format),
        ("audio", for_sections(&publish, &[0])),
        ("video", for_sections(&publish, &[1])),
    ] {
        let reply = app.post(&format!("/whip/{name}"), &offer).await;
        lint(&offer, &reply.body, "recvonly", true);
        assert!(!reply.body.contains("ccfb"), "{name}: {}", reply.body);
        let video = app.core.last().sections[1].clone();
        assert!(agreed(&video).iter().all(|of| *of == (false, true, false)), "{name}: {:?}", agreed(&video));
        assert!(video.extensions.id(Extension::TransportCc).is_some());
    }
}
