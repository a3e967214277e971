//! Profiles of video codecs: what a description says of them, what the bit stream says, and which decoder takes which stream.
//!
//! The stream is the judge: descriptions name what an encoder might send, the parameter sets what it does send.

mod av1;
mod h264;
mod h265;

use std::fmt;

pub use av1::Av1ProfileTierLevel;
pub use h264::{H264Profile, H264ProfileLevel};
pub use h265::H265ProfileTierLevel;

use super::codec;
use super::compat::Fmtp;
use crate::media::{Codec, Format};

/// Formats of a list that are described.
const MAX_DESCRIBED: usize = 8;
/// Longest value of a parameter that is shown in full.
const MAX_SHOWN: usize = 40;

/// The profile of a video stream or of a decoder. VP8 has but one and needs none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Profile {
    /// H.264
    H264(H264ProfileLevel),
    /// H.265
    H265(H265ProfileTierLevel),
    /// VP9, profile 0 to 3 (RFC 9628 §6).
    Vp9(u8),
    /// AV1
    Av1(Av1ProfileTierLevel),
}

/// What a publisher's section really sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FormatInUse {
    /// RTP payload type, of those in the answer to the publisher.
    pub payload_type: u8,
    /// What the bit stream says of its profile; `None` for codecs without profiles, and for streams that do not say it.
    pub profile: Option<Profile>,
}

/// A format in words for people: codec and profile, the stream's own if it is known.
pub fn describe(format: &Format, stream: Option<Profile>) -> String {
    let described = || Profile::described(format).ok().flatten();
    match stream.or_else(described) {
        Some(profile) => format!("{} {profile}", format.codec),
        None => format.codec.to_string(),
    }
}

/// Formats in words for people, each once, the first ones of many.
pub fn describe_all<'a>(formats: impl IntoIterator<Item = &'a Format>) -> String {
    let mut words: Vec<String> = Vec::new();
    for word in formats.into_iter().map(|format| describe(format, None)) {
        if words.len() == MAX_DESCRIBED {
            words.push("…".to_owned());
            break;
        }
        if !words.contains(&word) {
            words.push(word);
        }
    }
    words.join(", ")
}

/// A parameter of `a=fmtp` whose value does not parse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadParameter {
    /// Name of the parameter.
    pub name: &'static str,
    /// Its value, cut if it is long.
    pub value: String,
}

impl fmt::Display for BadParameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={} does not parse", self.name, self.value)
    }
}

impl Profile {
    /// What the format's description says, with the defaults of the payload formats; `None` for codecs without profiles.
    ///
    /// # Errors
    /// The first parameter that does not parse.
    pub fn described(format: &Format) -> Result<Option<Profile>, BadParameter> {
        let fmtp = Fmtp(&format.fmtp);
        Ok(Some(match format.codec {
            Codec::H264 => Profile::H264(h264_described(fmtp)?),
            Codec::H265 => Profile::H265(h265_described(fmtp)?),
            Codec::Vp9 => Profile::Vp9(number(fmtp, "profile-id", 0, 3)?),
            Codec::Av1 => Profile::Av1(Av1ProfileTierLevel {
                profile: number(fmtp, "profile", 0, 2)?,
                tier: number(fmtp, "tier", 0, 1)?,
                level: number(fmtp, "level-idx", 5, 31)?,
            }),
            Codec::Opus | Codec::Red | Codec::Pcmu | Codec::Pcma | Codec::G722 | Codec::Vp8 => return Ok(None),
        }))
    }

    /// What a packet says: the head of a sequence parameter set (H264, H265), of a keyframe (VP9) or of a sequence header
    /// (AV1); `None` if none is in it.
    pub fn of_payload(codec: Codec, payload: &[u8]) -> Option<Profile> {
        match codec {
            Codec::H264 => {
                let unit = codec::h264::parameter_set(payload)?;
                H264ProfileLevel::of_parameter_set(unit).map(Profile::H264)
            }
            Codec::H265 => {
                let unit = codec::h265::parameter_set(payload)?;
                H265ProfileTierLevel::of_parameter_set(unit).map(Profile::H265)
            }
            Codec::Vp9 => codec::vp9::profile(payload).map(Profile::Vp9),
            Codec::Av1 => {
                let header = codec::av1::sequence_header(payload)?;
                Av1ProfileTierLevel::of_sequence_header(header).map(Profile::Av1)
            }
            Codec::Opus | Codec::Red | Codec::Pcmu | Codec::Pcma | Codec::G722 | Codec::Vp8 => None,
        }
    }

    /// True if a decoder of this profile may decode a stream of that one; the tables stand with the codecs. A VP9 decoder
    /// takes the negotiated profile alone (RFC 9628 §6). Levels are not compared: they bound what an end can bear, and streams
    /// of a higher level than described are common (RFC 6184 §8.2.2, `level-asymmetry-allowed`).
    pub fn decodes(self, stream: Profile) -> bool {
        match (self, stream) {
            (Profile::H264(decoder), Profile::H264(stream)) => decoder.profile().decodes(stream.profile()),
            (Profile::H265(decoder), Profile::H265(stream)) => decoder.decodes(stream),
            (Profile::Vp9(decoder), Profile::Vp9(stream)) => decoder == stream,
            (Profile::Av1(decoder), Profile::Av1(stream)) => decoder.decodes(stream),
            _ => false,
        }
    }

    /// True if decoders of either take streams of the other: but for levels, both say the same.
    pub fn is_same(self, other: Profile) -> bool {
        self.decodes(other) && other.decodes(self)
    }

    /// The fewer decoders take it, the higher: Constrained Baseline before Main before High.
    pub fn rank(self) -> u8 {
        match self {
            Profile::H264(id) => match id.profile() {
                H264Profile::ConstrainedBaseline => 0,
                H264Profile::Baseline => 1,
                H264Profile::Main => 2,
                H264Profile::ConstrainedHigh => 3,
                H264Profile::High => 4,
                H264Profile::High10 => 5,
                H264Profile::High422 => 6,
                H264Profile::High444 => 7,
                H264Profile::Extended | H264Profile::Other(_) => 8,
            },
            Profile::H265(id) => id.idc,
            Profile::Vp9(profile) => profile,
            Profile::Av1(id) => id.profile,
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Profile::H264(id) => id.fmt(f),
            Profile::H265(id) => id.fmt(f),
            Profile::Vp9(profile) => write!(f, "profile {profile}"),
            Profile::Av1(id) => id.fmt(f),
        }
    }
}

fn bad(name: &'static str, value: &str) -> BadParameter {
    BadParameter { name, value: value.chars().filter(|c| !c.is_control()).take(MAX_SHOWN).collect() }
}

/// A decimal parameter of at most `max`.
fn number(fmtp: Fmtp<'_>, name: &'static str, default: u8, max: u8) -> Result<u8, BadParameter> {
    let Some(value) = fmtp.get(name) else { return Ok(default) };
    value.parse().ok().filter(|number| *number <= max).ok_or_else(|| bad(name, value))
}

fn h264_described(fmtp: Fmtp<'_>) -> Result<H264ProfileLevel, BadParameter> {
    number(fmtp, "packetization-mode", 0, 2)?;
    let Some(value) = fmtp.get("profile-level-id") else { return Ok(H264ProfileLevel::DEFAULT) };
    H264ProfileLevel::parse(value).ok_or_else(|| bad("profile-level-id", value))
}

fn h265_described(fmtp: Fmtp<'_>) -> Result<H265ProfileTierLevel, BadParameter> {
    let space = number(fmtp, "profile-space", 0, 3)?;
    let idc = number(fmtp, "profile-id", 1, 31)?;
    let high_tier = number(fmtp, "tier-flag", 0, 1)? == 1;
    let described = H265ProfileTierLevel::new(space, idc, high_tier, number(fmtp, "level-id", 93, 255)?);
    let name = "profile-compatibility-indicator";
    let Some(value) = fmtp.get(name) else { return Ok(described) };
    let digits = value.len() == 8 && value.bytes().all(|byte| byte.is_ascii_hexdigit());
    let flags = u32::from_str_radix(value, 16).ok().filter(|_| digits).ok_or_else(|| bad(name, value))?;
    Ok(H265ProfileTierLevel { compatibility: described.compatibility | flags, ..described })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(codec: Codec, fmtp: &str) -> Result<Option<Profile>, BadParameter> {
        Profile::described(&Format { fmtp: fmtp.to_owned(), ..Format::new(96, codec) })
    }

    // F-12
    #[test]
    fn without_a_description_h264_is_constrained_baseline() {
        for fmtp in ["", "packetization-mode=1"] {
            let profile = described(Codec::H264, fmtp).unwrap().unwrap();
            assert_eq!(profile.to_string(), "Constrained Baseline (42e01f)", "{fmtp}");
        }
    }

    // F-12
    #[test]
    fn a_value_that_does_not_parse_is_named() {
        for (codec, fmtp, expected) in [
            (Codec::H264, "profile-level-id=TeAo;packetization-mode=1", "profile-level-id=TeAo does not parse"),
            (Codec::H264, "packetization-mode=one", "packetization-mode=one does not parse"),
            (Codec::H264, "profile-level-id=", "profile-level-id= does not parse"),
            (Codec::H265, "profile-id=Main", "profile-id=Main does not parse"),
            (Codec::H265, "tier-flag=2", "tier-flag=2 does not parse"),
            (
                Codec::H265,
                "profile-compatibility-indicator=+6000000",
                "profile-compatibility-indicator=+6000000 does not parse",
            ),
            (Codec::Vp9, "profile-id=4", "profile-id=4 does not parse"),
            (Codec::Av1, "profile=x", "profile=x does not parse"),
            (Codec::Av1, "tier=-1", "tier=-1 does not parse"),
        ] {
            let error = described(codec, fmtp).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
        let long = described(Codec::H264, &format!("profile-level-id={}", "é".repeat(5_000))).unwrap_err();
        assert_eq!(long.value.chars().count(), MAX_SHOWN);
        assert_eq!(described(Codec::Vp8, "profile-id=x"), Ok(None), "VP8 has no profiles");
    }

    // F-13
    #[test]
    fn packets_name_the_profile_of_their_stream() {
        let h264 = |payload: &[u8]| Profile::of_payload(Codec::H264, payload).map(|profile| profile.to_string());
        assert_eq!(h264(&[0x67, 0x64, 0, 0x1f, 0xac]).as_deref(), Some("High (64001f)"));
        let stap = [0x78, 0, 2, 0x09, 0x10, 0, 4, 0x67, 0x4d, 0x40, 0x1f, 0, 2, 0x68, 0xee];
        assert_eq!(h264(&stap).as_deref(), Some("Main (4d401f)"));
        assert_eq!(h264(&[0x7c, 0x87, 0x42, 0xc0, 0x1f]).as_deref(), Some("Constrained Baseline (42c01f)"), "fragment");
        for other in [&[0x65, 0x88][..], &[0x7c, 0x07, 0x42, 0xc0, 0x1f], &[0x67, 0x42], &[]] {
            assert_eq!(h264(other), None, "{other:x?}");
        }
        let sps = [33 << 1, 1, 1, 0x02, 0x20, 1, 1, 1, 1, 1, 1, 1, 1, 1, 93];
        let h265 = |payload: &[u8]| Profile::of_payload(Codec::H265, payload).map(|profile| profile.to_string());
        assert_eq!(h265(&sps).as_deref(), Some("Main 10 level 3.1"));
        let aggregated = [&[96, 1, 0, 3, 32 << 1, 1, 0x0c, 0, sps.len() as u8][..], &sps].concat();
        assert_eq!(h265(&aggregated).as_deref(), Some("Main 10 level 3.1"));
        let fragment = [&[98, 1, 0x80 | 33][..], &sps[2..]].concat();
        assert_eq!(h265(&fragment).as_deref(), Some("Main 10 level 3.1"));
        // B, then frame marker 2 and the profile's bits, lowest first.
        for (byte, profile) in [(0x82, 0), (0xa2, 1), (0x92, 2), (0xb0, 3)] {
            assert_eq!(Profile::of_payload(Codec::Vp9, &[0x08, byte, 0x49]), Some(Profile::Vp9(profile)));
        }
        assert_eq!(Profile::of_payload(Codec::Vp9, &[0x08, 0x42]), None, "no frame marker");
        assert_eq!(Profile::of_payload(Codec::Vp9, &[0x00, 0x82]), None, "not the start of a frame");
        let av1 = Profile::of_payload(Codec::Av1, &[0x28, 5, 0x08, 0x20, 0, 0, 0x24, 0x30, 1]);
        assert_eq!(av1.map(|profile| profile.to_string()).as_deref(), Some("High level 3.0"));
        assert_eq!(Profile::of_payload(Codec::Vp8, &[0x10, 0]), None);
    }

    // F-13
    #[test]
    fn baseline_and_constrained_baseline_do_not_contradict_each_other() {
        let h264 = |id| Profile::H264(H264ProfileLevel::parse(id).unwrap());
        assert!(h264("42e01f").is_same(h264("42c02a")));
        assert!(h264("42001f").is_same(h264("42c01f")));
        assert!(!h264("42e01f").is_same(h264("4d001f")) && !h264("4d001f").is_same(h264("42e01f")));
        assert!(h264("640c1f").is_same(h264("640028")), "High with the flags left out");
        assert!(!Profile::Vp9(0).is_same(Profile::Vp9(2)));
    }
}
