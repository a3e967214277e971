//! The servers' answers, read with the `sdp` crate.

use std::io::Cursor;
use std::net::SocketAddr;

use media_core::internals::ice::{parse_candidate, parse_passive_candidate};
use media_core::media::{Codec, Extension, MediaKind};
use media_core::{Fingerprint, IceCredentials, RemoteCandidate};

use super::format::{PayloadTypes, Ssrcs};

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
    /// Id of `sdes:rtp-stream-id`, if accepted.
    pub rid_extension: Option<u8>,
    /// Id of `sdes:repaired-rtp-stream-id`, if accepted.
    pub repaired_rid_extension: Option<u8>,
    /// The encodings of `a=simulcast:recv`, without the marks of those that are paused.
    pub rids: Vec<String>,
    /// `a=ssrc-group:FID`: media and RTX.
    pub ssrcs: Option<Ssrcs>,
    /// All SSRCs that it names by `a=ssrc`, once or more often.
    pub sources: Vec<u32>,
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
    /// Where its passive candidates have one connect by TCP, in its order.
    pub passive: Vec<SocketAddr>,
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
        let mut candidates: Vec<RemoteCandidate> = Vec::new();
        // Every section may repeat those of the transport.
        for candidate in values("candidate").filter_map(parse_candidate) {
            if !candidates.iter().any(|known| known.address == candidate.address) {
                candidates.push(candidate);
            }
        }
        let mut passive: Vec<SocketAddr> = values("candidate").filter_map(parse_passive_candidate).collect();
        passive.dedup();
        let mut fingerprints: Vec<Fingerprint> = values("fingerprint").filter_map(|value| value.parse().ok()).collect();
        fingerprints.dedup();
        if fingerprints.is_empty() {
            return Err(AnswerError::Missing("fingerprint"));
        }
        Ok(Answer {
            ice: IceCredentials { ufrag: first("ice-ufrag")?, pwd: first("ice-pwd")? },
            ice_lite: everywhere().any(|attribute| attribute.key == "ice-lite"),
            candidates,
            passive,
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
        let codec = [Codec::Opus, Codec::Vp8, Codec::Vp9, Codec::H264]
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
    let sources = values("ssrc").filter_map(|value| value.split(' ').next()?.parse().ok()).collect();
    let list = values("simulcast").find_map(|value| value.trim().strip_prefix("recv "));
    let rids = list.into_iter().flat_map(|list| list.split(';')).map(|rid| rid.trim_start_matches('~').to_owned());
    let rids = rids.collect();
    let inactive = media.attributes.iter().any(|attribute| attribute.key == "inactive");
    Some(AnsweredSection {
        kind,
        mid: values("mid").next().unwrap_or_default().to_owned(),
        rejected: media.media_name.port.value == 0 || inactive,
        codecs,
        mid_extension: id_of(Extension::Mid),
        transport_cc_extension: id_of(Extension::TransportCc),
        rid_extension: id_of(Extension::RtpStreamId),
        repaired_rid_extension: id_of(Extension::RepairedRtpStreamId),
        rids,
        ssrcs,
        sources,
    })
}

#[cfg(test)]
mod tests {
    use media_core::FingerprintHash;

    use super::*;

    const ANSWER: &str = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\na=ice-lite\r\n\
        m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=sendonly\r\na=ice-ufrag:abcd\r\n\
        a=ice-pwd:0123456789012345678901\r\na=fingerprint:sha-256 AB:00\r\na=setup:passive\r\na=rtcp-mux\r\n\
        a=rtpmap:111 opus/48000/2\r\na=candidate:1 1 udp 2130706431 127.0.0.1 50000 typ host\r\na=end-of-candidates\r\n\
        m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\nc=IN IP4 0.0.0.0\r\na=mid:1\r\na=sendonly\r\na=ice-ufrag:abcd\r\n\
        a=ice-pwd:0123456789012345678901\r\na=fingerprint:sha-256 AB:00\r\na=setup:passive\r\n\
        a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\na=rtpmap:96 VP8/90000\r\na=rtpmap:97 rtx/90000\r\n\
        a=fmtp:97 apt=96\r\na=ssrc-group:FID 11 12\r\na=ssrc:11 cname:x\r\na=ssrc:12 cname:x\r\n";

    #[test]
    fn an_answer_is_read() {
        let fingerprint = format!("a=fingerprint:sha-256 {}\r\n", ["AB:00"; 16].join(":"));
        let text = ANSWER.replace("a=fingerprint:sha-256 AB:00\r\n", &fingerprint);
        let answer = Answer::parse(&text).unwrap();
        assert!(answer.ice_lite && !answer.active);
        assert_eq!(answer.ice.ufrag, "abcd");
        assert_eq!(answer.candidates[0].address, "127.0.0.1:50000".parse().unwrap());
        assert_eq!(answer.fingerprints, [Fingerprint { hash: FingerprintHash::Sha256, digest: [0xab, 0].repeat(16) }]);
        let video = answer.live(MediaKind::Video).unwrap();
        assert_eq!(video.codecs, [(Codec::Vp8, PayloadTypes { media: 96, rtx: Some(97) })]);
        assert_eq!((video.mid.as_str(), video.mid_extension), ("1", Some(4)));
        assert_eq!(video.transport_cc_extension, None);
        assert_eq!((video.ssrcs, &video.sources[..]), (Some(Ssrcs { media: 11, rtx: 12 }), &[11, 12][..]));
        assert!(video.rids.is_empty() && video.rid_extension.is_none());
        let layers =
            "a=mid:1\r\na=extmap:10 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\na=simulcast:recv q;~h\r\n";
        let layered = Answer::parse(&text.replace("a=mid:1\r\n", layers)).unwrap();
        let video = layered.live(MediaKind::Video).unwrap();
        assert_eq!((video.rids.join(" "), video.rid_extension), ("q h".to_owned(), Some(10)));
        let rejected = text.replace("m=video 9", "m=video 0");
        assert!(Answer::parse(&rejected).unwrap().live(MediaKind::Video).is_none());
        for missing in ["a=setup:passive\r\n", fingerprint.as_str(), "a=ice-pwd:0123456789012345678901\r\n"] {
            assert!(Answer::parse(&text.replace(missing, "")).is_err());
        }
        assert!(Answer::parse("<html>").is_err());
    }
}
