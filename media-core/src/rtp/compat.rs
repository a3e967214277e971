//! Which of a viewer's formats can carry what a publisher sends: `a=rtpmap` and `a=fmtp` of both (RFC 8866 §6.6, §6.15), and
//! the profile that the bit stream has.

use super::profile::Profile;
use crate::media::{Codec, Format};

/// The parameters of an `a=fmtp` line: `key=value` pairs with `;` between, in any order, spaces free, keys without case.
#[derive(Clone, Copy, Debug)]
pub struct Fmtp<'a>(pub &'a str);

impl<'a> Fmtp<'a> {
    /// All pairs; a key without `=` has the empty value.
    pub fn iter(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0.split(';').map(|pair| pair.split_once('=').unwrap_or((pair, ""))).filter_map(|(key, value)| {
            let key = key.trim();
            (!key.is_empty()).then_some((key, value.trim()))
        })
    }

    /// The value of the first parameter of this name.
    pub fn get(self, name: &str) -> Option<&'a str> {
        self.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// A publisher's format, and what its bit stream says of its profile, once that is known.
#[derive(Clone, Copy, Debug)]
pub struct Sent<'a> {
    /// As both descriptions agreed it.
    pub format: &'a Format,
    /// As the parameter sets or keyframes say it; they are the judge over the description.
    pub profile: Option<Profile>,
}

impl Sent<'_> {
    /// The profile of the stream, or what the description says of it. `None` for a description that does not parse.
    fn profile(&self) -> Option<Option<Profile>> {
        match self.profile {
            Some(profile) => Some(Some(profile)),
            None => Profile::described(self.format).ok(),
        }
    }
}

/// True if packets of the publisher may be forwarded as the viewer's format, with no other change than the payload type:
/// same codec, clock and channels, and a decoder of the viewer's profile may decode the stream ([`Profile::decodes`]). A
/// parameter that does not parse is compatible with nothing.
///
/// RED may also go out as Opus: a viewer that does not know it gets the primary block (RFC 2198 §3). The other way round
/// nothing is wrapped.
pub fn compatible(publisher: Sent<'_>, viewer: &Format) -> bool {
    let format = publisher.format;
    let same_codec = format.codec == viewer.codec || (format.codec, viewer.codec) == (Codec::Red, Codec::Opus);
    same_codec
        && format.clock_rate == viewer.clock_rate
        && channels_match(format, viewer)
        && packets_fit(format, viewer)
        && profile_fits(publisher, viewer)
}

/// `a=rtpmap` may leave out a single channel (RFC 8866 §6.6). Opus decoders take either number of channels, whatever it
/// says (RFC 7587 §3.4).
fn channels_match(publisher: &Format, viewer: &Format) -> bool {
    matches!(viewer.codec, Codec::Opus | Codec::Red) || publisher.channels.max(1) == viewer.channels.max(1)
}

/// The viewer's format for what the publisher sends: one of the same codec, and of those one that names the same profile and
/// packets; else whichever is compatible.
pub fn carrier<'a>(publisher: Sent<'_>, viewer: &'a [Format]) -> Option<&'a Format> {
    let sent = publisher.profile().flatten();
    let distance = |format: &Format| {
        let other_codec = format.codec != publisher.format.codec;
        let described = Profile::described(format).ok().flatten();
        let other_profile = described.zip(sent).is_some_and(|(described, sent)| described.rank() != sent.rank());
        (other_codec, other_profile, packetization(format) != packetization(publisher.format))
    };
    viewer.iter().filter(|format| compatible(publisher, format)).min_by_key(|format| distance(format))
}

fn profile_fits(publisher: Sent<'_>, viewer: &Format) -> bool {
    match (publisher.profile(), Profile::described(viewer)) {
        (Some(Some(stream)), Ok(Some(decoder))) => decoder.decodes(stream),
        (Some(stream), Ok(decoder)) => stream.is_none() || decoder.is_none(),
        _ => false,
    }
}

/// H.264's `packetization-mode` (RFC 6184 §8.1).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Packetization {
    /// Nothing at all is said of H264. Such a sender may fragment units, and such a receiver puts fragments together: so do
    /// libwebrtc, Pion, GStreamer, FFmpeg and libdatachannel, though the default of the parameter is 0.
    Unstated,
    /// Mode 0: each packet is a NAL unit.
    SingleUnits,
    /// Mode 1: units may come together, or in fragments.
    NonInterleaved,
}

fn packetization(format: &Format) -> Packetization {
    let fmtp = Fmtp(&format.fmtp);
    match fmtp.get("packetization-mode") {
        None if fmtp.get("profile-level-id").is_none() => Packetization::Unstated,
        None | Some("0") => Packetization::SingleUnits,
        Some(_) => Packetization::NonInterleaved,
    }
}

/// True if the viewer can read the packets that the publisher's payload format makes.
fn packets_fit(publisher: &Format, viewer: &Format) -> bool {
    match publisher.codec {
        Codec::H264 => {
            // A receiver of mode 1 must accept single units as well (RFC 6184 §6.3).
            packetization(viewer) != Packetization::SingleUnits
                || packetization(publisher) != Packetization::NonInterleaved
        }
        // Several streams or decoding order numbers would need a change to every packet (RFC 7798 §7.1).
        Codec::H265 => [publisher, viewer].iter().all(|format| {
            let fmtp = Fmtp(&format.fmtp);
            fmtp.get("tx-mode").is_none_or(|mode| mode.eq_ignore_ascii_case("SRST"))
                && matches!(fmtp.get("sprop-max-don-diff"), None | Some("0"))
        }),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtp::profile::H264ProfileLevel;

    fn format(codec: Codec, fmtp: &str) -> Format {
        Format { fmtp: fmtp.to_owned(), ..Format::new(96, codec) }
    }

    fn sent(format: &Format) -> Sent<'_> {
        Sent { format, profile: None }
    }

    fn fits(codec: Codec, publisher: &str, viewer: &str) -> bool {
        compatible(sent(&format(codec, publisher)), &format(codec, viewer))
    }

    #[test]
    fn parameters_are_found_in_any_order_spacing_and_case() {
        // SDP-26
        let fmtp = Fmtp(" Profile-Level-ID = 42e01f ;packetization-mode=1;; flag ");
        assert_eq!(fmtp.get("profile-level-id"), Some("42e01f"));
        assert_eq!(fmtp.get("packetization-mode"), Some("1"));
        assert_eq!(fmtp.get("flag"), Some(""));
        assert_eq!(fmtp.get("absent"), None);
        assert_eq!(fmtp.iter().count(), 3);
    }

    #[test]
    fn codec_clock_and_channels_must_match() {
        // SDP-26
        let opus = format(Codec::Opus, "minptime=10;useinbandfec=1");
        assert!(compatible(sent(&opus), &format(Codec::Opus, "stereo=1")));
        // F-21
        assert!([0, 1].into_iter().all(|channels| compatible(sent(&opus), &Format { channels, ..opus.clone() })));
        assert!([0, 1].into_iter().all(|channels| compatible(sent(&Format { channels, ..opus.clone() }), &opus)));
        assert!(!compatible(sent(&opus), &Format { clock_rate: 16_000, ..opus.clone() }));
        assert!(!compatible(sent(&opus), &format(Codec::Vp8, "")));
        let pcmu = Format { codec: Codec::Pcmu, clock_rate: 8_000, channels: 0, ..opus };
        assert!(compatible(sent(&pcmu), &Format { channels: 1, ..pcmu.clone() }));
        assert!(!compatible(sent(&pcmu), &Format { channels: 2, ..pcmu.clone() }));
    }

    #[test]
    fn red_goes_out_as_red_or_as_opus_and_opus_never_as_red() {
        // COD-04
        let opus = format(Codec::Opus, "useinbandfec=1");
        let red = Format { codec: Codec::Red, fmtp: "111/111".into(), ..opus.clone() };
        assert!(compatible(sent(&red), &red) && compatible(sent(&red), &opus) && !compatible(sent(&opus), &red));
        let viewer = [opus.clone(), red.clone()];
        assert_eq!(carrier(sent(&red), &viewer), Some(&red));
        assert_eq!(carrier(sent(&opus), &viewer), Some(&opus));
        assert_eq!(carrier(sent(&red), &viewer[..1]), Some(&opus));
        assert_eq!(carrier(sent(&red), &[]), None);
        assert_eq!(red.redundant_payload_type(), Some(111));
        assert_eq!(opus.redundant_payload_type(), None);
        for (fmtp, inner) in [("96/96/96", Some(96)), ("111", Some(111)), ("111/110", None), ("", None), ("200", None)]
        {
            assert_eq!(Format { fmtp: fmtp.into(), ..red.clone() }.redundant_payload_type(), inner, "{fmtp}");
        }
    }

    #[test]
    fn h264_needs_a_decoder_for_the_profile_and_the_packets_but_not_the_level() {
        // COD-12, F-01
        let chrome = "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f";
        assert!(fits(Codec::H264, chrome, "packetization-mode=1; profile-level-id=42c034"));
        assert!(!fits(Codec::H264, chrome, "packetization-mode=0;profile-level-id=42e01f"));
        assert!(!fits(Codec::H264, chrome, "profile-level-id=42e01f"), "no mode means 0");
        assert!(fits(Codec::H264, "profile-level-id=42e01f", chrome), "single units are read by everybody");
        assert!(fits(Codec::H264, chrome, "packetization-mode=1;profile-level-id=64001f"));
        assert!(!fits(Codec::H264, "packetization-mode=1;profile-level-id=64001f", chrome));
        assert!(!fits(Codec::H264, "packetization-mode=1;profile-level-id=nonsense", chrome));
    }

    // F-12
    #[test]
    fn h264_without_a_description_goes_to_everybody_and_takes_what_is_constrained_baseline() {
        for viewer in
            ["profile-level-id=42e01f;packetization-mode=1", "profile-level-id=42e01f;packetization-mode=0", ""]
        {
            assert!(fits(Codec::H264, "", viewer), "{viewer}");
        }
        assert!(fits(Codec::H264, "profile-level-id=42c01f;packetization-mode=1", ""));
        assert!(!fits(Codec::H264, "profile-level-id=64001f;packetization-mode=1", ""));
    }

    // F-13
    #[test]
    fn the_stream_is_the_judge_over_the_description() {
        let h264 = |id: &str| format(Codec::H264, &format!("packetization-mode=1;profile-level-id={id}"));
        let stream = |id: &str| H264ProfileLevel::parse(id).map(Profile::H264);
        for (described, real, viewer, expected) in [
            ("4d001f", "42c01f", "42e01f", true),
            ("42e01f", "640028", "42e01f", false),
            ("42e01f", "640028", "64001f", true),
            ("640c1f", "640c1f", "42e01f", false),
            ("nonsense", "42c01f", "42e01f", true),
        ] {
            let publisher = h264(described);
            let sent = Sent { format: &publisher, profile: stream(real) };
            assert_eq!(compatible(sent, &h264(viewer)), expected, "{described}, really {real}, to {viewer}");
        }
    }

    // F-01
    #[test]
    fn the_nearest_of_the_viewers_formats_carries_the_stream() {
        let offered = |list: &[(&str, &str)]| -> Vec<Format> {
            let h264 = |(number, (id, mode)): (u8, &(&str, &str))| Format {
                payload_type: number,
                ..format(Codec::H264, &format!("packetization-mode={mode};profile-level-id={id}"))
            };
            (96..).zip(list).map(h264).collect()
        };
        let chrome = offered(&[("42001f", "1"), ("42e01f", "0"), ("42e01f", "1"), ("4d001f", "1"), ("64001f", "1")]);
        let firefox = offered(&[("42e01f", "1"), ("42e01f", "0")]);
        for (publisher, to_chrome, to_firefox) in [
            ("640c1f", Some(100), None),
            ("64001f", Some(100), None),
            ("4d001f", Some(99), None),
            ("42e01f", Some(98), Some(96)),
            ("42001f", Some(96), Some(96)),
            ("f4001f", None, None),
        ] {
            let publisher = format(Codec::H264, &format!("packetization-mode=1;profile-level-id={publisher}"));
            let number = |viewer: &[Format]| carrier(sent(&publisher), viewer).map(|format| format.payload_type);
            assert_eq!((number(&chrome), number(&firefox)), (to_chrome, to_firefox), "{}", publisher.fmtp);
        }
    }

    #[test]
    fn missing_parameters_take_their_defaults() {
        // SDP-26
        assert!(fits(Codec::H264, "", "profile-level-id=420010;packetization-mode=0"));
        assert!(fits(Codec::Vp9, "", "profile-id=0"));
        assert!(!fits(Codec::Vp9, "", "profile-id=2"));
        assert!(fits(Codec::Av1, "", "level-idx=5;profile=0;tier=0")); // COD-15
        assert!(fits(Codec::Av1, "", "profile=1"), "High decodes Main");
        assert!(!fits(Codec::Av1, "profile=1", ""));
        assert!(fits(Codec::H265, "", "level-id=180;profile-id=1;tier-flag=0;tx-mode=SRST")); // COD-14
        assert!(fits(Codec::H265, "", "profile-id=2"), "Main 10 decodes Main");
        assert!(!fits(Codec::H265, "profile-id=2", ""));
        assert!(fits(Codec::H265, "", "tier-flag=1") && !fits(Codec::H265, "tier-flag=1", ""));
        assert!(!fits(Codec::H265, "tx-mode=MRST", "tx-mode=MRST"));
        assert!(!fits(Codec::H265, "sprop-max-don-diff=2", "sprop-max-don-diff=2"));
        assert!(!fits(Codec::Vp9, "profile-id=x", "profile-id=x"));
    }
}
