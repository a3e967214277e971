//! The clients' offers, written by hand: a writer of an SDP library knows nothing of the manners that they imitate.

use std::fmt::Write as _;

use media_core::media::{Codec, Extension, MediaKind};
use media_core::{Fingerprint, IceCredentials};

use super::format::{PayloadTypes, Ssrcs};

/// Who starts the DTLS handshake, as `a=setup` says it (RFC 8842 §5.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, strum::Display)]
#[strum(serialize_all = "lowercase")]
pub enum Setup {
    /// The server chooses.
    #[default]
    ActPass,
    /// The client starts.
    Active,
    /// The server starts.
    Passive,
}

/// What H264 that is not described otherwise is: constrained baseline, level 3.1, as `profile-level-id` (RFC 6184 §8.1).
pub const CONSTRAINED_BASELINE: &str = "42e01f";

/// Profiles of H264 in one offer: each has two payload types, of which there are so many.
const MAX_PROFILES: usize = 4;

/// The payload types under which a codec is first offered; `None` for codecs that the load test does not speak.
fn payload_types(codec: Codec) -> Option<PayloadTypes> {
    match codec {
        Codec::Opus => Some(PayloadTypes { media: 111, rtx: None }),
        Codec::Vp8 => Some(PayloadTypes { media: 96, rtx: Some(97) }),
        Codec::Vp9 => Some(PayloadTypes { media: 118, rtx: Some(119) }),
        Codec::H264 => Some(PayloadTypes { media: 102, rtx: Some(103) }),
        _ => None,
    }
}

/// One format of an offer.
struct OfferedFormat<'a> {
    codec: Codec,
    types: PayloadTypes,
    /// `profile-level-id` of H264; empty for no `a=fmtp` at all.
    profile: &'a str,
}

/// Id of `sdes:mid` in the offers.
const MID_EXTENSION: u8 = 4;

/// Ids of `sdes:rtp-stream-id` and `sdes:repaired-rtp-stream-id` in the offers.
const RID_EXTENSION: u8 = 10;
const REPAIRED_RID_EXTENSION: u8 = 11;

/// Id of the transport-wide sequence number in the offers.
const TRANSPORT_CC_EXTENSION: u8 = 3;

/// Whose offers and manners a publisher has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Imitation {
    /// RTX, PLI and `sdes:mid`; keyframes when asked.
    #[default]
    Browser,
    /// OBS: no RTX, keyframe requests are ignored, and the first sender report has a useless RTP time.
    Obs,
    /// FFmpeg: no feedback, no extensions, no RTX; it ignores what the server reports.
    Ffmpeg,
}

/// One m-section of an offer.
#[derive(Clone, Debug)]
pub struct OfferedSection {
    /// Codecs of one kind, the preferred one first.
    pub codecs: Vec<Codec>,
    /// Set if the client sends, `None` if it receives.
    pub sends: Option<Ssrcs>,
    /// The encodings of a simulcast (RFC 8853), whose SSRCs stand in no offer; none without it.
    pub rids: Vec<String>,
}

/// What an offer says besides its sections.
#[derive(Clone, Debug)]
pub struct Offer<'a> {
    /// ICE credentials of the client.
    pub ice: &'a IceCredentials,
    /// Fingerprint of its certificate.
    pub fingerprint: &'a Fingerprint,
    /// DTLS role.
    pub setup: Setup,
    /// Which client's offer it is.
    pub imitates: Imitation,
    /// Offers transport-wide feedback, as browsers do.
    pub transport_cc: bool,
    /// `profile-level-id` of each H264 format, the preferred one first; an empty one stands for a format without `a=fmtp`.
    pub profiles: &'a [String],
    /// Added to the usual payload types.
    pub shift: u8,
    /// Sections; their mids are their indices.
    pub sections: &'a [OfferedSection],
}

impl Offer<'_> {
    /// The formats of a codec: of H264 one a profile, of others one.
    fn formats(&self, codec: Codec) -> Vec<OfferedFormat<'_>> {
        let Some(PayloadTypes { media, rtx }) = payload_types(codec) else { return Vec::new() };
        let format = |index: u8, profile| {
            let shift = self.shift + 2 * index;
            let rtx = rtx.filter(|_| self.imitates == Imitation::Browser).map(|rtx| rtx + shift);
            OfferedFormat { codec, types: PayloadTypes { media: media + shift, rtx }, profile }
        };
        match codec {
            Codec::H264 => {
                let profiles = self.profiles.iter().take(MAX_PROFILES);
                (0..).zip(profiles).map(|(index, profile)| format(index, profile.as_str())).collect()
            }
            _ => vec![format(0, "")],
        }
    }

    /// The SDP text. It holds no candidates: the server learns the client's address from its checks (RFC 8445 §7.3.1.3).
    pub fn to_sdp(&self) -> String {
        let mids: Vec<String> = (0..self.sections.len()).map(|mid| mid.to_string()).collect();
        let mut text = Lines(String::with_capacity(2048));
        text.push("v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0");
        text.push(format_args!("a=group:BUNDLE {}", mids.join(" ")));
        text.push("a=extmap-allow-mixed");
        text.push("a=msid-semantic: WMS *");
        for (mid, section) in self.sections.iter().enumerate() {
            self.write_section(mid, section, &mut text);
        }
        text.0
    }

    fn write_section(&self, mid: usize, section: &OfferedSection, text: &mut Lines) {
        let Some(kind) = section.codecs.first().map(|codec| codec.kind()) else { return };
        let formats: Vec<OfferedFormat<'_>> = section.codecs.iter().flat_map(|&codec| self.formats(codec)).collect();
        let numbers = formats.iter().flat_map(|format| [Some(format.types.media), format.types.rtx]).flatten();
        let numbers: Vec<String> = numbers.map(|number| number.to_string()).collect();
        text.push(format_args!("m={} 9 UDP/TLS/RTP/SAVPF {}", kind.as_str(), numbers.join(" ")));
        text.push("c=IN IP4 0.0.0.0");
        text.push("a=rtcp:9 IN IP4 0.0.0.0");
        text.push(format_args!("a=ice-ufrag:{}", self.ice.ufrag));
        text.push(format_args!("a=ice-pwd:{}", self.ice.pwd));
        text.push("a=ice-options:trickle ice2");
        text.push(format_args!("a=fingerprint:{}", self.fingerprint.to_sdp()));
        text.push(format_args!("a=setup:{}", self.setup));
        text.push(format_args!("a=mid:{mid}"));
        if self.imitates != Imitation::Ffmpeg {
            text.push(format_args!("a=extmap:{MID_EXTENSION} {}", Extension::Mid.uri()));
        }
        if self.transport_cc {
            text.push(format_args!("a=extmap:{TRANSPORT_CC_EXTENSION} {}", Extension::TransportCc.uri()));
        }
        if !section.rids.is_empty() {
            text.push(format_args!("a=extmap:{RID_EXTENSION} {}", Extension::RtpStreamId.uri()));
            text.push(format_args!("a=extmap:{REPAIRED_RID_EXTENSION} {}", Extension::RepairedRtpStreamId.uri()));
        }
        text.push(if section.sends.is_some() { "a=sendonly" } else { "a=recvonly" });
        if section.sends.is_some() {
            text.push(format_args!("a=msid:loadtest {}", kind.as_str()));
        }
        text.push("a=rtcp-mux");
        if self.imitates == Imitation::Browser {
            text.push("a=rtcp-rsize");
        }
        for format in &formats {
            self.write_format(format, text);
        }
        if !section.rids.is_empty() {
            section.rids.iter().for_each(|rid| text.push(format_args!("a=rid:{rid} send")));
            text.push(format_args!("a=simulcast:send {}", section.rids.join(";")));
        } else if let Some(ssrcs) = section.sends {
            let with_rtx = formats.iter().any(|format| format.types.rtx.is_some());
            if with_rtx {
                text.push(format_args!("a=ssrc-group:FID {} {}", ssrcs.media, ssrcs.rtx));
            }
            text.push(format_args!("a=ssrc:{} cname:loadtest", ssrcs.media));
            if with_rtx {
                text.push(format_args!("a=ssrc:{} cname:loadtest", ssrcs.rtx));
            }
        }
    }

    fn write_format(&self, format: &OfferedFormat<'_>, text: &mut Lines) {
        let &OfferedFormat { codec, types, profile } = format;
        let media = types.media;
        match codec {
            Codec::Opus => text.push(format_args!("a=rtpmap:{media} opus/48000/2")),
            codec => text.push(format_args!("a=rtpmap:{media} {codec}/90000")),
        }
        match codec {
            Codec::Opus => text.push(format_args!("a=fmtp:{media} minptime=10;useinbandfec=1")),
            Codec::H264 if !profile.is_empty() => text.push(format_args!(
                "a=fmtp:{media} level-asymmetry-allowed=1;packetization-mode=1;profile-level-id={profile}"
            )),
            _ => {}
        }
        if self.transport_cc {
            text.push(format_args!("a=rtcp-fb:{media} transport-cc"));
        }
        if codec.kind() == MediaKind::Video {
            let feedbacks: &[&str] = match self.imitates {
                Imitation::Browser => &["ccm fir", "nack", "nack pli"],
                Imitation::Obs => &["nack", "nack pli", "goog-remb"],
                Imitation::Ffmpeg => &[],
            };
            for feedback in feedbacks {
                text.push(format_args!("a=rtcp-fb:{media} {feedback}"));
            }
        }
        if let Some(rtx) = types.rtx {
            text.push(format_args!("a=rtpmap:{rtx} rtx/90000"));
            text.push(format_args!("a=fmtp:{rtx} apt={media}"));
        }
    }
}

/// SDP lines with their ends.
struct Lines(String);

impl Lines {
    fn push(&mut self, line: impl std::fmt::Display) {
        // Writing to a string cannot fail.
        let _ = write!(self.0, "{line}\r\n");
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use media_core::FingerprintHash;

    use super::*;

    #[test]
    fn an_offer_is_whole() {
        let ice = IceCredentials { ufrag: "ufrag".into(), pwd: "password".into() };
        let fingerprint = Fingerprint { hash: FingerprintHash::Sha256, digest: vec![1; 32] };
        let sections = [
            OfferedSection { codecs: vec![Codec::Opus], sends: Some(Ssrcs { media: 1, rtx: 2 }), rids: Vec::new() },
            OfferedSection { codecs: vec![Codec::Vp8, Codec::H264], sends: None, rids: Vec::new() },
        ];
        let mut offer = Offer {
            ice: &ice,
            fingerprint: &fingerprint,
            setup: Setup::ActPass,
            imitates: Imitation::Browser,
            transport_cc: true,
            profiles: &[CONSTRAINED_BASELINE.to_owned(), "64001f".to_owned()],
            shift: 0,
            sections: &sections,
        };
        let text = offer.to_sdp();
        let read = sdp::SessionDescription::unmarshal(&mut Cursor::new(text.as_bytes())).unwrap();
        assert_eq!(read.marshal(), text);
        for line in [
            "a=group:BUNDLE 0 1",
            "m=video 9 UDP/TLS/RTP/SAVPF 96 97 102 103 104 105",
            "a=fmtp:103 apt=102",
            "a=fmtp:104 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=64001f",
            "a=setup:actpass",
            "a=recvonly",
            "a=sendonly",
            "a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
            "a=rtcp-fb:111 transport-cc",
            "a=rtcp-fb:96 transport-cc",
        ] {
            assert!(text.contains(&format!("{line}\r\n")), "{line}");
        }
        assert!(!text.contains("FID"), "Opus has no RTX");
        let layered = [OfferedSection {
            codecs: vec![Codec::Vp8],
            sends: Some(Ssrcs { media: 1, rtx: 2 }),
            rids: vec!["q".into(), "f".into()],
        }];
        let text = Offer { sections: &layered, ..offer.clone() }.to_sdp();
        assert!(text.contains("a=rid:q send\r\na=rid:f send\r\na=simulcast:send q;f\r\n") && !text.contains("a=ssrc"));
        assert!(text.contains("a=extmap:11 urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id\r\n"));
        let undescribed = [String::new()];
        offer = Offer { shift: 8, profiles: &undescribed, ..offer };
        let text = offer.to_sdp();
        assert!(text.contains("m=video 9 UDP/TLS/RTP/SAVPF 104 105 110 111\r\n") && !text.contains("profile-level-id"));
        offer = Offer { imitates: Imitation::Ffmpeg, transport_cc: false, ..offer };
        let text = offer.to_sdp();
        for absent in ["rtcp-fb", "extmap:", "rtx", "rsize"] {
            assert!(!text.contains(absent), "{absent}");
        }
    }
}
