//! The media that SDP negotiated for one session, as the core reads it: sections, formats, header extensions.

use serde::Serialize;
use strum::{Display, EnumCount, EnumString, IntoStaticStr, VariantArray};

/// What a session does with its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, IntoStaticStr)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Role {
    /// Sends media to the server (WHIP, RFC 9725).
    Publisher,
    /// Receives media from the server (WHEP).
    Viewer,
}

impl Role {
    /// `publisher` or `viewer`.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// The media type of an m-section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, IntoStaticStr)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum MediaKind {
    /// `m=audio`
    Audio,
    /// `m=video`
    Video,
}

impl MediaKind {
    /// `audio` or `video`.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Names a track of a stream: the n-th of its kind, counted over the m-sections of a description. A viewer's n-th section
/// of a kind is sent the publisher's n-th track of that kind; the name outlives publishers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrackId {
    /// Audio or video.
    pub kind: MediaKind,
    /// Position among the tracks of its kind, counted from 0.
    pub ordinal: u8,
}

impl TrackId {
    /// The first audio track.
    pub const AUDIO: TrackId = TrackId { kind: MediaKind::Audio, ordinal: 0 };
    /// The first video track.
    pub const VIDEO: TrackId = TrackId { kind: MediaKind::Video, ordinal: 0 };

    /// The sections of a description with the tracks that they carry.
    pub fn of_sections(sections: &[MediaSection]) -> impl Iterator<Item = (TrackId, &MediaSection)> {
        let (mut audio, mut video) = (0_u8, 0_u8);
        sections.iter().map(move |section| {
            let next = match section.kind {
                MediaKind::Audio => &mut audio,
                MediaKind::Video => &mut video,
            };
            let ordinal = *next;
            *next = ordinal.saturating_add(1);
            (TrackId { kind: section.kind, ordinal }, section)
        })
    }
}

/// A payload format that Sluice forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Display, EnumString, IntoStaticStr)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "UPPERCASE", ascii_case_insensitive)]
pub enum Codec {
    /// Opus, RFC 7587
    #[strum(serialize = "opus")]
    Opus,
    /// Redundant audio data, RFC 2198, with Opus in its blocks
    #[strum(serialize = "red")]
    Red,
    /// G.711 µ-law, RFC 3551
    Pcmu,
    /// G.711 A-law, RFC 3551
    Pcma,
    /// G.722, RFC 3551 (its RTP clock is 8000 Hz)
    G722,
    /// VP8, RFC 7741
    Vp8,
    /// VP9, RFC 9628
    Vp9,
    /// H.264, RFC 6184
    H264,
    /// H.265, RFC 7798
    H265,
    /// AV1, its RTP payload specification, version 1.0
    Av1,
}

impl Codec {
    /// The encoding name as SDP writes it (`a=rtpmap`); it is read in any case (RFC 4855 §3).
    pub fn encoding_name(self) -> &'static str {
        self.into()
    }

    /// Audio or video.
    pub fn kind(self) -> MediaKind {
        match self {
            Codec::Opus | Codec::Red | Codec::Pcmu | Codec::Pcma | Codec::G722 => MediaKind::Audio,
            _ => MediaKind::Video,
        }
    }
}

/// The RTCP feedback agreed for one format (RFC 4585, RFC 5104).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Feedback {
    /// `a=rtcp-fb:<pt> nack` (RFC 4585 §4.2): lost packets are named by generic NACK.
    pub nack: bool,
    /// `a=rtcp-fb:<pt> nack pli` (RFC 4585 §4.2): a keyframe request by picture loss indication.
    pub pli: bool,
    /// `a=rtcp-fb:<pt> ccm fir` (RFC 5104 §7.1): a keyframe request by full intra request.
    pub fir: bool,
    /// `a=rtcp-fb:<pt> goog-remb` (draft-alvestrand-rmcat-remb-03): the receiver's estimate of its path's bitrate.
    pub remb: bool,
    /// `a=rtcp-fb:<pt> transport-cc` (draft-holmer-rmcat-transport-wide-cc-extensions-01): arrival times of packets.
    pub transport_cc: bool,
    /// `a=rtcp-fb:* ack ccfb` (RFC 8888 §6): arrival times and ECN marks of packets. It excludes the two above.
    pub ccfb: bool,
    /// `a=rtcp-xr:rcvr-rtt` of the section (RFC 3611 §5.1): a receiver may measure its round-trip time.
    pub receiver_round_trip: bool,
}

/// One negotiated payload format of a section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    /// RTP payload type, 0..=127.
    pub payload_type: u8,
    /// The codec.
    pub codec: Codec,
    /// RTP clock rate in Hz.
    pub clock_rate: u32,
    /// Audio channels of `a=rtpmap`; 0 where it names none (RFC 8866 §6.6: one), and for video.
    pub channels: u8,
    /// `a=fmtp` of this payload type without the number; empty if there was none.
    pub fmtp: String,
    /// Payload type of the RTX format whose `apt` names this one (RFC 4588).
    pub rtx_payload_type: Option<u8>,
    /// RTCP feedback agreed for it.
    pub feedback: Feedback,
}

impl Format {
    /// A format with the codec's usual clock and channels, and with nothing agreed: no parameters, RTX or feedback.
    pub fn new(payload_type: u8, codec: Codec) -> Format {
        let (clock_rate, channels) = match codec {
            Codec::Opus | Codec::Red => (48_000, 2),
            Codec::Pcmu | Codec::Pcma | Codec::G722 => (8_000, 1),
            Codec::Vp8 | Codec::Vp9 | Codec::H264 | Codec::H265 | Codec::Av1 => (90_000, 0),
        };
        let (fmtp, rtx_payload_type, feedback) = (String::new(), None, Feedback::default());
        Format { payload_type, codec, clock_rate, channels, fmtp, rtx_payload_type, feedback }
    }

    /// For RED: the payload type of its blocks, which `a=fmtp` names once for each (`111/111`, RFC 2198 §5); `None` if there
    /// are several, or for another codec.
    pub fn redundant_payload_type(&self) -> Option<u8> {
        let mut blocks = self.fmtp.split('/').map(|number| number.trim().parse().ok());
        let first = blocks.next().flatten().filter(|number| self.codec == Codec::Red && *number < 128)?;
        blocks.all(|other| other == Some(first)).then_some(first)
    }
}

/// The RTP header extensions that Sluice understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EnumCount, EnumString, IntoStaticStr, VariantArray)]
#[repr(u8)]
pub enum Extension {
    /// `a=mid` of the section, RFC 9143 §15
    #[strum(serialize = "urn:ietf:params:rtp-hdrext:sdes:mid")]
    Mid,
    /// RtpStreamId, RFC 8852 §3.1
    #[strum(serialize = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id")]
    RtpStreamId,
    /// RepairedRtpStreamId, RFC 8852 §3.2
    #[strum(serialize = "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id")]
    RepairedRtpStreamId,
    /// Transport-wide sequence number, draft-holmer-rmcat-transport-wide-cc-extensions-01
    #[strum(serialize = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01")]
    TransportCc,
    /// Send time, webrtc.org abs-send-time: 24 bits, seconds in 6.18 fixed point
    #[strum(serialize = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time")]
    AbsSendTime,
    /// Capture time, webrtc.org abs-capture-time: NTP time in 32.32 fixed point
    #[strum(serialize = "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time")]
    AbsCaptureTime,
    /// Client-to-mixer audio level in -dBov, RFC 6464
    #[strum(serialize = "urn:ietf:params:rtp-hdrext:ssrc-audio-level")]
    AudioLevel,
    /// Rotation of the video frame, 3GPP TS 26.114 §7.4.5
    #[strum(serialize = "urn:3gpp:video-orientation")]
    VideoOrientation,
    /// Bounds of the playout delay, webrtc.org playout-delay: in units of 10 ms
    #[strum(serialize = "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay")]
    PlayoutDelay,
    /// Dependency descriptor, AV1 RTP payload specification, appendix A
    #[strum(serialize = "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension")]
    DependencyDescriptor,
    /// Rates and sizes of all layers, webrtc.org video-layers-allocation: for this hop alone
    #[strum(serialize = "http://www.webrtc.org/experiments/rtp-hdrext/video-layers-allocation00")]
    VideoLayersAllocation,
}

impl Extension {
    /// All of them, in the order of their discriminants.
    pub const ALL: &[Extension] = Extension::VARIANTS;

    /// The URI of `a=extmap`.
    pub fn uri(self) -> &'static str {
        self.into()
    }

    /// The extension that this URI names.
    pub fn from_uri(uri: &str) -> Option<Extension> {
        uri.parse().ok()
    }
}

/// Extension ids of one section (RFC 8285 §4.2, §4.3: 1..=255; 0 means "not negotiated").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExtensionMap {
    ids: [u8; Extension::COUNT],
}

impl ExtensionMap {
    /// The id of an extension, if it was negotiated.
    pub fn id(&self, extension: Extension) -> Option<u8> {
        match self.ids[extension as usize] {
            0 => None,
            id => Some(id),
        }
    }

    /// The extension that was negotiated with this id.
    pub fn extension(&self, id: u8) -> Option<Extension> {
        if id == 0 {
            return None;
        }
        let index = self.ids.iter().position(|&known| known == id)?;
        Some(Extension::ALL[index])
    }

    /// Sets the id of `extension`; id 0 removes it.
    pub fn set(&mut self, extension: Extension, id: u8) {
        self.ids[extension as usize] = id;
    }

    /// All negotiated extensions with their ids.
    pub fn iter(&self) -> impl Iterator<Item = (Extension, u8)> + '_ {
        Extension::ALL.iter().filter_map(|&extension| Some((extension, self.id(extension)?)))
    }
}

/// One live m-section of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaSection {
    /// `a=mid` (RFC 5888 §4), at most 16 bytes.
    pub mid: String,
    /// Audio or video.
    pub kind: MediaKind,
    /// Formats of the answer, in its order.
    pub formats: Vec<Format>,
    /// Header extensions of the answer.
    pub extensions: ExtensionMap,
    /// `a=rtcp-rsize` was agreed (RFC 5506).
    pub reduced_size_rtcp: bool,
    /// Publisher: SSRCs that the offer declared by `a=ssrc` (RFC 5576 §4.1), as (media, RTX by `a=ssrc-group:FID`).
    pub declared_ssrcs: Vec<(u32, Option<u32>)>,
    /// Publisher: the encodings that it sends as RTP streams of their own, [`MAX_ENCODINGS`](crate::layers::MAX_ENCODINGS) at
    /// most; empty without simulcast.
    pub simulcast: Vec<SimulcastEncoding>,
    /// Viewer: the SSRCs that the server sends with; `None` for publishers.
    pub send_ssrcs: Option<SendSsrcs>,
}

impl MediaSection {
    /// A section of which nothing but its formats was agreed: no header extensions, no reduced-size RTCP, no SSRCs.
    pub fn new(mid: impl Into<String>, kind: MediaKind, formats: Vec<Format>) -> MediaSection {
        let (extensions, reduced_size_rtcp) = (ExtensionMap::default(), false);
        let (declared_ssrcs, simulcast, send_ssrcs) = (Vec::new(), Vec::new(), None);
        let mid = mid.into();
        MediaSection { mid, kind, formats, extensions, reduced_size_rtcp, declared_ssrcs, simulcast, send_ssrcs }
    }
}

/// One encoding of a publisher's section that is an RTP stream of its own (RFC 8853). Its place in the offer says nothing of
/// its quality.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SimulcastEncoding {
    /// `a=rid` (RFC 8851 §10); `None` where the offer tells encodings apart by `a=ssrc-group:SIM` alone.
    pub rid: Option<String>,
    /// SSRC of its media, where the offer declares it.
    pub ssrc: Option<u32>,
    /// Payload types that it is restricted to (`pt=`); empty: any of the section.
    pub payload_types: Vec<u8>,
    /// `max-width` in pixels.
    pub max_width: Option<u32>,
    /// `max-height` in pixels.
    pub max_height: Option<u32>,
    /// `max-fps`, pictures a second.
    pub max_frame_rate: Option<u32>,
    /// `max-br` in bit/s.
    pub max_bitrate: Option<u64>,
}

/// The server's own SSRCs in a viewer's section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendSsrcs {
    /// SSRC of the media packets.
    pub media: u32,
    /// SSRC of the retransmissions (RFC 4588 §3); used only with formats that have an RTX payload type.
    pub rtx: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    // SDP-26
    #[test]
    fn codecs_have_the_encoding_names_of_their_payload_formats() {
        for (codec, name) in [
            (Codec::Opus, "opus"),
            (Codec::Red, "red"),
            (Codec::Pcmu, "PCMU"),
            (Codec::G722, "G722"),
            (Codec::Vp8, "VP8"),
            (Codec::H265, "H265"),
            (Codec::Av1, "AV1"),
        ] {
            assert_eq!((codec.encoding_name(), codec.to_string().as_str()), (name, name));
            assert_eq!([name.to_lowercase().parse(), name.to_uppercase().parse()], [Ok(codec), Ok(codec)]);
        }
        assert!("rtx".parse::<Codec>().is_err());
    }

    #[test]
    fn extensions_are_found_by_their_uris_alone() {
        for &extension in Extension::ALL {
            assert_eq!(Extension::from_uri(extension.uri()), Some(extension));
        }
        assert_eq!(Extension::ALL[Extension::AudioLevel as usize], Extension::AudioLevel);
        assert_eq!(Extension::from_uri("Mid"), None);
        assert_eq!(Extension::from_uri("urn:ietf:params:rtp-hdrext:sdes:MID"), None);
    }
}
