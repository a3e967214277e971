//! The clients' offers, written by hand, and the servers' answers, read with the `sdp` crate.

use std::fmt::Write as _;
use std::io::Cursor;

use media_core::ice::parse_candidate;
use media_core::media::{Codec, Extension, MediaKind};
use media_core::session::{Fingerprint, FingerprintHash, IceCredentials, RemoteCandidate};

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

/// Payload types of the offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadTypes {
    /// Media.
    pub media: u8,
    /// Its RTX; audio has none.
    pub rtx: Option<u8>,
}

/// The payload types under which a codec is offered; `None` for codecs that the load test does not speak.
pub fn payload_types(codec: Codec) -> Option<PayloadTypes> {
    match codec {
        Codec::Opus => Some(PayloadTypes { media: 111, rtx: None }),
        Codec::Vp8 => Some(PayloadTypes { media: 96, rtx: Some(97) }),
        Codec::H264 => Some(PayloadTypes { media: 102, rtx: Some(103) }),
        _ => None,
    }
}

/// Id of `sdes:mid` in the offers.
pub const MID_EXTENSION: u8 = 4;

/// Id of the transport-wide sequence number in the offers.
pub const TRANSPORT_CC_EXTENSION: u8 = 3;

/// Whose offers and manners a publisher has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Imitation {
    /// RTX, PLI and `sdes:mid`; keyframes when asked.
    #[default]
    Browser,
    /// OBS: no RTX, keyframe requests are ignored, and the first sender report has a useless RTP time.
    Obs,
    /// FFmpeg: no feedback, no extensions, no RTX; it hears nothing of what the server reports.
    Ffmpeg,
}

/// The SSRCs of a section that sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ssrcs {
    /// Media.
    pub media: u32,
    /// RTX.
    pub rtx: u32,
}

/// One m-section of an offer.
#[derive(Clone, Debug)]
pub struct OfferedSection {
    /// Codecs of one kind, the preferred one first.
    pub codecs: Vec<Codec>,
    /// Set if the client sends, `None` if it receives.
    pub sends: Option<Ssrcs>,
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
    /// Sections; their mids are their indices.
    pub sections: &'a [OfferedSection],
}

impl Offer<'_> {
    fn payload_types(&self, codec: Codec) -> Option<PayloadTypes> {
        let types = payload_types(codec)?;
        Some(if self.imitates == Imitation::Browser { types } else { PayloadTypes { rtx: None, ..types } })
    }

    /// The SDP text. It holds no candidates: the server learns the client's address from its checks (RFC 8445 §7.3.1.3).
    pub fn to_sdp(&self) -> String {
        let mids: Vec<String> = (0..self.sections.len()).map(|mid| mid.to_string()).collect();
        let mut text = String::with_capacity(2048);
        text.push_str("v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n");
        let mut line = |args: std::fmt::Arguments<'_>| {
            // Writing to a string cannot fail.
            let _ = text.write_fmt(args);
            text.push_str("\r\n");
        };
        line(format_args!("a=group:BUNDLE {}", mids.join(" ")));
        line(format_args!("a=extmap-allow-mixed"));
        line(format_args!("a=msid-semantic: WMS *"));
        for (mid, section) in self.sections.iter().enumerate() {
            let Some(kind) = section.codecs.first().map(|codec| codec.kind()) else { continue };
            let types: Vec<(Codec, PayloadTypes)> =
                section.codecs.iter().filter_map(|&codec| Some((codec, self.payload_types(codec)?))).collect();
            let numbers: Vec<String> = types
                .iter()
                .flat_map(|(_, types)| [Some(types.media), types.rtx])
                .flatten()
                .map(|number| number.to_string())
                .collect();
            line(format_args!("m={} 9 UDP/TLS/RTP/SAVPF {}", kind.as_str(), numbers.join(" ")));
            line(format_args!("c=IN IP4 0.0.0.0"));
            line(format_args!("a=rtcp:9 IN IP4 0.0.0.0"));
            line(format_args!("a=ice-ufrag:{}", self.ice.ufrag));
            line(format_args!("a=ice-pwd:{}", self.ice.pwd));
            line(format_args!("a=ice-options:trickle ice2"));
            line(format_args!("a=fingerprint:{}", self.fingerprint.to_sdp()));
            line(format_args!("a=setup:{}", self.setup));
            line(format_args!("a=mid:{mid}"));
            if self.imitates != Imitation::Ffmpeg {
                line(format_args!("a=extmap:{MID_EXTENSION} {}", Extension::Mid.uri()));
            }
            if self.transport_cc {
                line(format_args!("a=extmap:{TRANSPORT_CC_EXTENSION} {}", Extension::TransportCc.uri()));
            }
            line(format_args!("a={}", if section.sends.is_some() { "sendonly" } else { "recvonly" }));
            if section.sends.is_some() {
                line(format_args!("a=msid:loadtest {}", kind.as_str()));
            }
            line(format_args!("a=rtcp-mux"));
            if self.imitates == Imitation::Browser {
                line(format_args!("a=rtcp-rsize"));
            }
            for (codec, types) in &types {
                let media = types.media;
                match codec {
                    Codec::Opus => line(format_args!("a=rtpmap:{media} opus/48000/2")),
                    codec => line(format_args!("a=rtpmap:{media} {codec}/90000")),
                }
                match codec {
                    Codec::Opus => line(format_args!("a=fmtp:{media} minptime=10;useinbandfec=1")),
                    Codec::H264 => line(format_args!(
                        "a=fmtp:{media} level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"
                    )),
                    _ => {}
                }
                if self.transport_cc {
                    line(format_args!("a=rtcp-fb:{media} transport-cc"));
                }
                if codec.kind() == MediaKind::Video {
                    let feedbacks: &[&str] = match self.imitates {
                        Imitation::Browser => &["ccm fir", "nack", "nack pli"],
                        Imitation::Obs => &["nack", "nack pli", "goog-remb"],
                        Imitation::Ffmpeg => &[],
                    };
                    for feedback in feedbacks {
                        line(format_args!("a=rtcp-fb:{media} {feedback}"));
                    }
                }
                if let Some(rtx) = types.rtx {
                    line(format_args!("a=rtpmap:{rtx} rtx/90000"));
                    line(format_args!("a=fmtp:{rtx} apt={media}"));
                }
            }
            if let Some(ssrcs) = section.sends {
                let with_rtx = types.iter().any(|(_, types)| types.rtx.is_some());
                if with_rtx {
                    line(format_args!("a=ssrc-group:FID {} {}", ssrcs.media, ssrcs.rtx));
                }
                line(format_args!("a=ssrc:{} cname:loadtest", ssrcs.media));
                if with_rtx {
                    line(format_args!("a=ssrc:{} cname:loadtest", ssrcs.rtx));
                }
            }
        }
        text
    }
}

/// What is wrong with an answer.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// It is no SDP.
    #[error("the answer does not parse: {0}")]
    Syntax(String),
    /// Something that every answer must have is missing or unreadable.
    #[error("the answer has no usable {0}")]
    Missing(&'static str),
}

/// One m-section of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnsweredSection {
    /// Audio or video.
    pub kind: MediaKind,
    /// Its `a=mid`.
    pub mid: String,
    /// Port 0 or `a=inactive`: there will be no media.
    pub rejected: bool,
    /// Accepted codecs in the server's order, with its payload types.
    pub codecs: Vec<(Codec, PayloadTypes)>,
    /// Id of `sdes:mid`, if accepted.
    pub mid_extension: Option<u8>,
    /// Id of the transport-wide sequence number, if accepted.
    pub transport_cc_extension: Option<u8>,
    /// `a=ssrc-group:FID`: media and RTX.
    pub ssrcs: Option<Ssrcs>,
}

/// A server's answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The server's credentials.
    pub ice: IceCredentials,
    /// It said `a=ice-lite`.
    pub ice_lite: bool,
    /// Its UDP candidates, in its order.
    pub candidates: Vec<RemoteCandidate>,
    /// What its certificate must match.
    pub fingerprints: Vec<Fingerprint>,
    /// It said `a=setup:active`: the server starts the handshake.
    pub active: bool,
    /// Sections in the offer's order.
    pub sections: Vec<AnsweredSection>,
}

impl Answer {
    /// Reads an answer.
    ///
    /// # Errors
    /// See [`AnswerError`].
    pub fn parse(text: &str) -> Result<Answer, AnswerError> {
        let description = sdp::SessionDescription::unmarshal(&mut Cursor::new(text.as_bytes()))
            .map_err(|error| AnswerError::Syntax(error.to_string()))?;
        // Transport attributes stand at session level or in any live section; the first counts.
        let everywhere = || {
            let media = description.media_descriptions.iter().flat_map(|media| &media.attributes);
            description.attributes.iter().chain(media)
        };
        let first = |key: &'static str| {
            everywhere()
                .find(|attribute| attribute.key == key)
                .and_then(|attribute| attribute.value.clone())
                .ok_or(AnswerError::Missing(key))
        };
        let values = |key: &'static str| everywhere().filter(move |a| a.key == key).filter_map(|a| a.value.as_deref());
        let candidates: Vec<RemoteCandidate> = values("candidate").filter_map(parse_candidate).collect();
        let mut fingerprints: Vec<Fingerprint> = values("fingerprint").filter_map(parse_fingerprint).collect();
        fingerprints.dedup();
        if fingerprints.is_empty() {
            return Err(AnswerError::Missing("fingerprint"));
        }
        Ok(Answer {
            ice: IceCredentials { ufrag: first("ice-ufrag")?, pwd: first("ice-pwd")? },
            ice_lite: everywhere().any(|attribute| attribute.key == "ice-lite"),
            candidates,
            fingerprints,
            active: match first("setup")?.as_str() {
                "active" => true,
                "passive" => false,
                _ => return Err(AnswerError::Missing("setup")),
            },
            sections: description.media_descriptions.iter().filter_map(parse_section).collect(),
        })
    }

    /// The live section of a kind.
    pub fn live(&self, kind: MediaKind) -> Option<&AnsweredSection> {
        self.sections.iter().find(|section| section.kind == kind && !section.rejected)
    }
}

fn parse_section(media: &sdp::MediaDescription) -> Option<AnsweredSection> {
    let kind = match media.media_name.media.as_str() {
        "audio" => MediaKind::Audio,
        "video" => MediaKind::Video,
        _ => return None,
    };
    let values =
        |key: &'static str| media.attributes.iter().filter(move |a| a.key == key).filter_map(|a| a.value.as_deref());
    let mut codecs = Vec::new();
    for number in &media.media_name.formats {
        let rtpmap = values("rtpmap").find_map(|value| value.strip_prefix(number.as_str())?.strip_prefix(' '));
        let name = rtpmap.and_then(|map| map.split('/').next()).unwrap_or_default();
        let codec = [Codec::Opus, Codec::Vp8, Codec::H264]
            .into_iter()
            .find(|codec| codec.encoding_name().eq_ignore_ascii_case(name));
        let (Some(codec), Ok(media)) = (codec, number.parse()) else { continue };
        let apt = format!("apt={media}");
        let rtx = values("fmtp").find_map(|value| {
            let (number, parameters) = value.split_once(' ')?;
            parameters.split(';').any(|parameter| parameter.trim() == apt).then(|| number.parse().ok())?
        });
        codecs.push((codec, PayloadTypes { media, rtx }));
    }
    let id_of = |extension: Extension| {
        values("extmap").find_map(|value| {
            let (id, uri) = value.split_once(' ')?;
            let id = id.split('/').next()?;
            (uri.split(' ').next()? == extension.uri()).then(|| id.parse().ok())?
        })
    };
    let ssrcs = values("ssrc-group").find_map(|value| {
        let mut words = value.strip_prefix("FID ")?.split(' ');
        Some(Ssrcs { media: words.next()?.parse().ok()?, rtx: words.next()?.parse().ok()? })
    });
    let inactive = media.attributes.iter().any(|attribute| attribute.key == "inactive");
    Some(AnsweredSection {
        kind,
        mid: values("mid").next().unwrap_or_default().to_owned(),
        rejected: media.media_name.port.value == 0 || inactive,
        codecs,
        mid_extension: id_of(Extension::Mid),
        transport_cc_extension: id_of(Extension::TransportCc),
        ssrcs,
    })
}

fn parse_fingerprint(value: &str) -> Option<Fingerprint> {
    let (hash, digest) = value.split_once(' ')?;
    let hash = match hash.to_ascii_lowercase().as_str() {
        "sha-256" => FingerprintHash::Sha256,
        "sha-384" => FingerprintHash::Sha384,
        "sha-512" => FingerprintHash::Sha512,
        _ => return None,
    };
    let digest = digest.trim().split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect::<Option<Vec<u8>>>()?;
    Some(Fingerprint { hash, digest })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\na=ice-lite\r\n\
        m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=sendonly\r\na=ice-ufrag:abcd\r\n\
        a=ice-pwd:0123456789012345678901\r\na=fingerprint:sha-256 AB:00\r\na=setup:passive\r\na=rtcp-mux\r\n\
        a=rtpmap:111 opus/48000/2\r\na=candidate:1 1 udp 2130706431 127.0.0.1 50000 typ host\r\na=end-of-candidates\r\n\
        m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\nc=IN IP4 0.0.0.0\r\na=mid:1\r\na=sendonly\r\na=ice-ufrag:abcd\r\n\
        a=ice-pwd:0123456789012345678901\r\na=fingerprint:sha-256 AB:00\r\na=setup:passive\r\n\
        a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\na=rtpmap:96 VP8/90000\r\na=rtpmap:97 rtx/90000\r\n\
        a=fmtp:97 apt=96\r\na=ssrc-group:FID 11 12\r\na=ssrc:11 cname:x\r\n";

    #[test]
    fn an_answer_is_read() {
        let answer = Answer::parse(ANSWER).unwrap();
        assert!(answer.ice_lite && !answer.active);
        assert_eq!(answer.ice.ufrag, "abcd");
        assert_eq!(answer.candidates[0].address, "127.0.0.1:50000".parse().unwrap());
        assert_eq!(answer.fingerprints, [Fingerprint { hash: FingerprintHash::Sha256, digest: vec![0xab, 0] }]);
        let video = answer.live(MediaKind::Video).unwrap();
        assert_eq!(video.codecs, [(Codec::Vp8, PayloadTypes { media: 96, rtx: Some(97) })]);
        assert_eq!((video.mid.as_str(), video.mid_extension), ("1", Some(4)));
        assert_eq!(video.transport_cc_extension, None);
        assert_eq!(video.ssrcs, Some(Ssrcs { media: 11, rtx: 12 }));
        let rejected = ANSWER.replace("m=video 9", "m=video 0");
        assert!(Answer::parse(&rejected).unwrap().live(MediaKind::Video).is_none());
        for missing in
            ["a=setup:passive\r\n", "a=fingerprint:sha-256 AB:00\r\n", "a=ice-pwd:0123456789012345678901\r\n"]
        {
            assert!(Answer::parse(&ANSWER.replace(missing, "")).is_err());
        }
        assert!(Answer::parse("<html>").is_err());
    }

    #[test]
    fn an_offer_is_whole() {
        let ice = IceCredentials { ufrag: "ufrag".into(), pwd: "password".into() };
        let fingerprint = Fingerprint { hash: FingerprintHash::Sha256, digest: vec![1; 32] };
        let sections = [
            OfferedSection { codecs: vec![Codec::Opus], sends: Some(Ssrcs { media: 1, rtx: 2 }) },
            OfferedSection { codecs: vec![Codec::Vp8, Codec::H264], sends: None },
        ];
        let mut offer = Offer {
            ice: &ice,
            fingerprint: &fingerprint,
            setup: Setup::ActPass,
            imitates: Imitation::Browser,
            transport_cc: true,
            sections: &sections,
        };
        let text = offer.to_sdp();
        let read = sdp::SessionDescription::unmarshal(&mut Cursor::new(text.as_bytes())).unwrap();
        assert_eq!(read.marshal(), text);
        for line in [
            "a=group:BUNDLE 0 1",
            "m=video 9 UDP/TLS/RTP/SAVPF 96 97 102 103",
            "a=fmtp:103 apt=102",
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
        offer = Offer { imitates: Imitation::Ffmpeg, transport_cc: false, ..offer };
        let text = offer.to_sdp();
        for absent in ["rtcp-fb", "extmap:", "rtx", "rsize"] {
            assert!(!text.contains(absent), "{absent}");
        }
    }
}
