//! Which formats of a section reach the other side: those that a viewer can take of what a publisher sends, and the order in
//! which a publisher's are answered, so that what it sends reaches most viewers.

use media_core::ledger::{Warning, WarningCode};
use media_core::media::{Codec, Format, MediaKind};
use media_core::negotiation::{Fmtp, Profile, Sent, carrier, compatible, describe, describe_all};

use super::SdpError;
use super::offer::Section;
use crate::problem::Slug;
use crate::registry::Published;

/// Formats of one section in an answer; Chromium offers 17. Each costs a viewer's session some hundred bytes.
const MAX_FORMATS: usize = 32;

/// Why a section cannot be served.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    kind: MediaKind,
    why: Why,
    /// The facts of the case; of codecs those of both sides.
    detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// The stream has no track of the kind.
    NoTrack,
    /// No codec or profile in common.
    Codec,
    /// A parameter of the only format that would do does not parse.
    Parameter,
}

impl Refusal {
    /// The error of an offer that cannot be answered without the section.
    pub(super) fn into_error(self) -> SdpError {
        let slug = match self.why {
            Why::Parameter => Slug::SdpBadParameter,
            Why::NoTrack | Why::Codec => Slug::SdpNoCommonCodec,
        };
        SdpError::new(slug, self.detail)
    }

    /// The error of an offer of which no section can be served.
    pub(super) fn all_into_error(refusals: Vec<Refusal>) -> SdpError {
        let first = refusals.iter().find(|refusal| refusal.why == Why::Parameter).or(refusals.first()).cloned();
        let details: Vec<String> = refusals.into_iter().map(|refusal| refusal.detail).collect();
        let error = first.map_or_else(|| SdpError::new(Slug::SdpNoCommonCodec, ""), Refusal::into_error);
        SdpError { detail: details.join("; "), ..error }
    }

    /// What the ledger says of a session that lives without the section. That a stream has one track only is no fault.
    pub(super) fn into_warning(self) -> Option<Warning> {
        let code = match self.why {
            Why::NoTrack => return None,
            Why::Codec => WarningCode::CodecRefused,
            Why::Parameter => WarningCode::FormatIgnored,
        };
        Some(Warning { key: (code, Some(self.kind)), detail: self.detail })
    }
}

/// The section's formats of which every parameter parses, with a warning of the others. At least one, or the reason.
pub(super) fn usable(section: &Section, kind: MediaKind) -> Result<(Vec<Format>, Option<Warning>), Refusal> {
    let (mut usable, mut bad) = (Vec::new(), None);
    for format in &section.formats {
        match Profile::described(format) {
            Ok(_) => usable.push(format.clone()),
            Err(parameter) => {
                bad.get_or_insert_with(|| format!("{}: {} {parameter}", section.name(), format.codec));
            }
        }
    }
    match bad {
        _ if !usable.is_empty() => {
            let key = (WarningCode::FormatIgnored, Some(kind));
            Ok((usable, bad.map(|detail| Warning { key, detail })))
        }
        Some(detail) => Err(Refusal { kind, why: Why::Parameter, detail }),
        None => {
            let detail = format!("{} offers no codec that Sluice forwards", section.name());
            Err(Refusal { kind, why: Why::Codec, detail })
        }
    }
}

/// As many formats as are kept of a section.
pub(super) fn bounded(formats: &[Format]) -> Vec<Format> {
    formats.iter().take(MAX_FORMATS).cloned().collect()
}

/// Puts the H264 profile first that most viewers decode, among the places that H264 has: publishers send the first one that
/// they can. Other codecs stay where the publisher has them.
pub(super) fn order(formats: &mut [Format]) {
    let is_h264 = |format: &Format| format.codec == Codec::H264;
    let places: Vec<usize> = (0..formats.len()).filter(|&index| is_h264(&formats[index])).collect();
    let mut ordered: Vec<Format> = formats.iter().filter(|format| is_h264(format)).cloned().collect();
    // A stable sort: the rest keeps the publisher's order.
    ordered.sort_by_key(|format| {
        let rank = Profile::described(format).ok().flatten().map_or(u8::MAX, Profile::rank);
        (rank, Fmtp(&format.fmtp).get("packetization-mode") != Some("1"))
    });
    for (place, format) in places.into_iter().zip(ordered) {
        formats[place] = format;
    }
}

/// All formats that the viewer can take and Sluice forwards, those in front that carry what the publisher sends; or why it can
/// be sent nothing now. Without a publisher all of them count. What else it can take serves the publishers to come.
pub(super) fn viewer_formats(
    section: &Section,
    kind: MediaKind,
    published: &Published,
) -> Result<(Vec<Format>, Option<Warning>), Refusal> {
    if !published.live {
        // Whatever comes, it can take: what was last sent binds nobody.
        let (formats, ignored) = usable(section, kind)?;
        return Ok((bounded(&formats), ignored));
    }
    let Some(track) = published.tracks.iter().find(|track| track.id.kind == kind) else {
        let detail = format!("the stream has no {}", kind.as_str());
        return Err(Refusal { kind, why: Why::NoTrack, detail });
    };
    let (mut formats, ignored) = usable(section, kind)?;
    let may_send = || track.formats.iter().map(|format| Sent { format, profile: None });
    let sent: Vec<Sent<'_>> = track.sent().map_or_else(|| may_send().collect(), |sent| vec![sent]);
    let carries = |format: &Format| sent.iter().any(|sent| compatible(*sent, format));
    if !formats.iter().any(carries) {
        let theirs = match track.sent() {
            Some(sent) => format!("is {}", describe(sent.format, sent.profile)),
            None => format!("may be {}", describe_all(&track.formats)),
        };
        let ours = describe_all(&formats);
        let detail = format!("{}: the stream {theirs}; {} offers {ours}", kind.as_str(), section.name());
        return Err(Refusal { kind, why: Why::Codec, detail });
    }
    // Of video the format in use; audio keeps the viewer's order, in which Opus may stand before RED.
    let in_use = track.sent().filter(|_| kind == MediaKind::Video).and_then(|sent| carrier(sent, &formats));
    let in_use = in_use.map(|format| format.payload_type);
    let may_carry = |format: &Format| may_send().any(|sent| compatible(sent, format));
    // RED is of use only to a viewer of a publisher that sends it: any other gets the same Opus without.
    formats.retain(|format| format.codec != Codec::Red || may_carry(format));
    formats.sort_by_key(|format| (Some(format.payload_type) != in_use, !carries(format), !may_carry(format)));
    formats.truncate(MAX_FORMATS);
    Ok((formats, ignored))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn h264(payload_type: u8, fmtp: &str) -> Format {
        Format { fmtp: fmtp.to_owned(), ..Format::new(payload_type, Codec::H264) }
    }

    // F-01
    #[test]
    fn the_profile_that_most_viewers_decode_comes_first_among_the_places_of_h264() {
        let profile = |number, id, mode| h264(number, &format!("packetization-mode={mode};profile-level-id={id}"));
        let mut formats = vec![
            Format::new(96, Codec::Vp8),
            profile(102, "42001f", 1),
            profile(104, "42001f", 0),
            profile(112, "64001f", 1),
            Format::new(98, Codec::Vp9),
            profile(114, "42e01f", 0),
            profile(108, "42e01f", 1),
            profile(116, "4d001f", 1),
        ];
        order(&mut formats);
        let numbers: Vec<u8> = formats.iter().map(|format| format.payload_type).collect();
        assert_eq!(numbers, [96, 108, 114, 102, 98, 104, 116, 112]);
    }
}
