//! An offer of the server's own to a viewer whose offer it cannot serve, and the answer to it (WHEP §4.3.2).

use media_core::media::{
    Codec, Extension, ExtensionMap, Feedback, Format, MediaKind, MediaSection, SendSsrcs, TrackId,
};
use media_core::negotiation::{Fmtp, Profile};

use super::SdpError;
use super::negotiate::{self, Agreed, Agreement, LiveSection};
use super::offer::{Direction, Offer, Section, Setup};
use crate::problem::Slug;
use crate::registry::{Published, TrackRecord};

/// Extensions of each section, with the ids that they are offered under.
const EXTENSIONS: [(Extension, u8, Option<MediaKind>); 7] = [
    (Extension::Mid, 1, None),
    (Extension::TransportCc, 2, None),
    (Extension::AbsCaptureTime, 3, None),
    (Extension::AudioLevel, 4, Some(MediaKind::Audio)),
    (Extension::VideoOrientation, 5, Some(MediaKind::Video)),
    (Extension::PlayoutDelay, 6, Some(MediaKind::Video)),
    (Extension::DependencyDescriptor, 7, Some(MediaKind::Video)),
];

/// The sections of an offer with all that a stream has, and may have as its publisher was answered. None without any track.
/// `ssrcs` holds a media and an RTX SSRC for each kind.
pub(crate) fn sections(published: &Published, ssrcs: [u32; 4]) -> Vec<Agreed> {
    let [audio, audio_rtx, video, video_rtx] = ssrcs;
    // Numbers of dynamic formats (SDP-25). One transport: none stands for two of them.
    let mut payload_types = (96..=127).chain(35..=63);
    let mut sections = Vec::new();
    for track in published.tracks.iter().filter(|track| track.id == TrackId::AUDIO || track.id == TrackId::VIDEO) {
        let kind = track.id.kind;
        let formats = formats(track, &mut payload_types);
        if formats.is_empty() {
            continue;
        }
        let mut extensions = ExtensionMap::default();
        for (extension, id, only) in EXTENSIONS {
            if only.is_none_or(|only| only == kind) {
                extensions.set(extension, id);
            }
        }
        let media = MediaSection {
            extensions,
            reduced_size_rtcp: true,
            send_ssrcs: Some(match kind {
                MediaKind::Audio => SendSsrcs { media: audio, rtx: audio_rtx },
                MediaKind::Video => SendSsrcs { media: video, rtx: video_rtx },
            }),
            ..MediaSection::new(sections.len().to_string(), kind, formats)
        };
        sections.push(Agreed::Live(Box::new(LiveSection {
            media,
            protocol: "UDP/TLS/RTP/SAVPF".to_owned(),
            has_mid: true,
            extmap_allow_mixed: false,
            inactive: false,
            one_way: Vec::new(),
            paused: Vec::new(),
        })));
    }
    sections
}

/// The formats of a track, the one in use first. RED is left out: whoever lacks it gets the same Opus without.
fn formats(track: &TrackRecord, payload_types: &mut impl Iterator<Item = u8>) -> Vec<Format> {
    let sent = track.sent();
    let in_use = sent.map(|sent| (sent.format, sent.profile));
    let others = track.formats.iter().filter(|format| in_use.is_none_or(|(in_use, _)| *format != in_use));
    let mut formats: Vec<Format> = Vec::new();
    for (format, profile) in in_use.into_iter().chain(others.map(|format| (format, None))) {
        let fmtp = parameters(format.codec, Fmtp(&format.fmtp), profile);
        let is_there = formats.iter().any(|known| known.codec == format.codec && known.fmtp == fmtp);
        if format.codec == Codec::Red || is_there {
            continue;
        }
        let is_video = format.codec.kind() == MediaKind::Video;
        let number = match format.codec {
            Codec::Pcmu => Some(0),
            Codec::Pcma => Some(8),
            Codec::G722 => Some(9),
            _ => payload_types.next(),
        };
        let Some(number) = number else { break };
        let rtx_payload_type = if is_video { payload_types.next() } else { None };
        let feedback = Feedback {
            nack: is_video && rtx_payload_type.is_some(),
            pli: is_video,
            fir: is_video,
            remb: is_video,
            transport_cc: true,
            ccfb: false,
            receiver_round_trip: false,
        };
        formats.push(Format { fmtp, rtx_payload_type, feedback, ..Format::new(number, format.codec) });
    }
    formats
}

/// What a format is offered with: known parameters alone, as the publisher's text is not the viewer's; the stream's own profile
/// where it is known.
fn parameters(codec: Codec, described: Fmtp<'_>, profile: Option<Profile>) -> String {
    let names: &[&str] = match codec {
        Codec::Opus => return "minptime=10;useinbandfec=1".to_owned(),
        Codec::H264 => &["level-asymmetry-allowed", "packetization-mode", "profile-level-id"],
        Codec::H265 => &["level-id", "profile-id", "tier-flag", "tx-mode"],
        Codec::Vp9 => &["profile-id"],
        Codec::Av1 => &["level-idx", "profile", "tier"],
        Codec::Red | Codec::Pcmu | Codec::Pcma | Codec::G722 | Codec::Vp8 => &[],
    };
    let of_stream = match profile {
        Some(Profile::H264(level)) => {
            Some(("profile-level-id", format!("{:02x}{:02x}{:02x}", level.idc, level.constraints, level.level)))
        }
        Some(Profile::Vp9(number)) => Some(("profile-id", number.to_string())),
        Some(Profile::H265(_) | Profile::Av1(_)) | None => None,
    };
    let is_plain =
        |value: &&str| !value.is_empty() && value.len() <= 16 && value.bytes().all(|b| b.is_ascii_alphanumeric());
    let value = |name: &str| match &of_stream {
        Some((known, value)) if *known == name => Some(value.clone()),
        _ => described.get(name).filter(is_plain).map(str::to_owned),
    };
    let pairs = names.iter().filter_map(|name| Some(format!("{name}={}", value(name)?)));
    pairs.collect::<Vec<_>>().join(";")
}

/// Agrees with the answer to an offer of these sections. What it says beyond the offer is passed over.
pub(crate) fn agree(
    offered: &[Agreed],
    answer: &Offer,
    published: &Published,
    ssrcs: [u32; 4],
) -> Result<Agreement, SdpError> {
    let offered: Vec<&LiveSection> = offered.iter().filter_map(Agreed::live).collect();
    if answer.sections.len() != offered.len() {
        let detail = format!("the answer has {} sections, the offer {}", answer.sections.len(), offered.len());
        return Err(SdpError::new(Slug::SdpSemantics, detail));
    }
    let mut answer = answer.clone();
    for (section, offered) in answer.sections.iter_mut().zip(offered) {
        check(section, offered)?;
        narrow(section, offered);
    }
    negotiate::viewer(&answer, published, ssrcs)
}

/// What an answer must say of each section that it takes (RFC 3264 §6, WHEP-09).
fn check(section: &Section, offered: &LiveSection) -> Result<(), SdpError> {
    if section.kind != Some(offered.media.kind) {
        let detail = format!("{} answers a section of {}", section.name(), offered.media.kind.as_str());
        return Err(SdpError::new(Slug::SdpSemantics, detail));
    }
    if !section.is_live() {
        return Ok(());
    }
    if section.mid.as_deref() != Some(offered.media.mid.as_str()) {
        let detail = format!("{}: the offer's mid is `{}`", section.name(), offered.media.mid);
        return Err(SdpError::new(Slug::SdpSemantics, detail));
    }
    if !matches!(section.direction, Direction::RecvOnly | Direction::Inactive) {
        let detail =
            format!("{} is {}; the answer to sendonly is recvonly", section.name(), section.direction.as_str());
        return Err(SdpError::new(Slug::SdpDirection, detail));
    }
    if !matches!(section.setup, Some(Setup::Active | Setup::Passive)) {
        let detail = format!("{}: a=setup of an answer must be active or passive", section.name());
        return Err(SdpError::new(Slug::SdpSetup, detail));
    }
    Ok(())
}

/// Takes away what was not offered; a section that wants nothing is rejected.
fn narrow(section: &mut Section, offered: &LiveSection) {
    if section.direction == Direction::Inactive {
        (section.media.port, section.bundle_only) = (0, false);
    }
    section.formats.retain_mut(|format| {
        let known = offered.media.formats.iter().find(|known| known.payload_type == format.payload_type);
        let Some(known) = known.filter(|known| known.codec == format.codec) else { return false };
        format.rtx_payload_type = format.rtx_payload_type.filter(|rtx| known.rtx_payload_type == Some(*rtx));
        let (said, may) = (&mut format.feedback, known.feedback);
        said.nack &= may.nack;
        said.pli &= may.pli;
        said.fir &= may.fir;
        said.remb &= may.remb;
        said.transport_cc &= may.transport_cc;
        said.receiver_round_trip &= may.receiver_round_trip;
        true
    });
    section.extensions.retain(|said| offered.media.extensions.id(said.extension) == Some(said.id));
}

#[cfg(test)]
mod tests {
    use super::*;

    // SDP-32: what a publisher wrote does not reach a viewer's SDP.
    #[test]
    fn parameters_are_known_ones_with_plain_values_and_the_streams_own_profile() {
        let described = Fmtp(
            "profile-level-id=42e01f;packetization-mode=1;sprop-parameter-sets=Z0LAH9kA,aM4;x=y;level-asymmetry-allowed=a b",
        );
        assert_eq!(parameters(Codec::H264, described, None), "packetization-mode=1;profile-level-id=42e01f");
        let level = media_core::negotiation::Profile::described(&Format {
            fmtp: "profile-level-id=640c1f".to_owned(),
            ..Format::new(96, Codec::H264)
        });
        let high = parameters(Codec::H264, described, level.unwrap());
        assert_eq!(high, "packetization-mode=1;profile-level-id=640c1f");
        assert_eq!(parameters(Codec::Vp9, Fmtp("profile-id=0"), Some(Profile::Vp9(2))), "profile-id=2");
        assert_eq!(parameters(Codec::Vp8, Fmtp("max-fr=30"), None), "");
    }
}
