//! Compatibility of a viewer's format with a publisher's: compares `a=rtpmap` and `a=fmtp` (RFC 8866 §6.6, §6.15).

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

    /// A decimal parameter; `None` if it is there and no number.
    fn number(self, name: &str, default: u32) -> Option<u32> {
        self.get(name).map_or(Some(default), |value| value.parse().ok())
    }
}

/// An H.264 profile with its constraint bits folded into a name (RFC 6184 §8.1, table 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum H264Profile {
    /// Baseline without the tools that no other profile has; what WebRTC must support (RFC 7742 §6.2).
    ConstrainedBaseline,
    /// Baseline.
    Baseline,
    /// Main.
    Main,
    /// Extended.
    Extended,
    /// High without interlace and B slices.
    ConstrainedHigh,
    /// High.
    High,
    /// Any other, by its profile_idc and constraint bits.
    Other(u8, u8),
}

impl H264Profile {
    /// The profile of a `profile-level-id`: six hexadecimal digits; `None` if it is anything else.
    pub fn from_profile_level_id(text: &str) -> Option<H264Profile> {
        if text.len() != 6 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let [_, idc, iop, _] = u32::from_str_radix(text, 16).ok()?.to_be_bytes();
        Some(H264Profile::from_bytes(idc, iop))
    }

    /// The profile of the first two bytes of `profile-level-id`, which are also the first two bytes of an SPS.
    pub fn from_bytes(idc: u8, iop: u8) -> H264Profile {
        let (set0, set1, set2) = (iop & 0x80 != 0, iop & 0x40 != 0, iop & 0x20 != 0);
        match idc {
            0x42 if set1 => H264Profile::ConstrainedBaseline,
            0x42 => H264Profile::Baseline,
            0x4d if set0 => H264Profile::ConstrainedBaseline,
            0x4d if !set2 => H264Profile::Main,
            0x58 if set0 && set1 => H264Profile::ConstrainedBaseline,
            0x58 if set0 => H264Profile::Baseline,
            0x58 if !set1 => H264Profile::Extended,
            0x64 if iop & 0x0c == 0x0c => H264Profile::ConstrainedHigh,
            0x64 if iop == 0 => H264Profile::High,
            _ => H264Profile::Other(idc, iop),
        }
    }
}

/// True if packets of the publisher's format may be forwarded as the viewer's format, with no other change than the payload
/// type: same codec, clock and channels, and the parameters that name the bit stream are equal. Levels are not compared:
/// they bound what an end can decode, not what it sends. A parameter that does not parse is compatible with nothing.
///
/// RED may also go out as Opus: a viewer that does not know it gets the primary block (RFC 2198 §3). The other way round
/// nothing is wrapped.
pub fn compatible(publisher: &Format, viewer: &Format) -> bool {
    let same_codec = publisher.codec == viewer.codec || (publisher.codec, viewer.codec) == (Codec::Red, Codec::Opus);
    same_codec
        && publisher.clock_rate == viewer.clock_rate
        && channels_match(publisher, viewer)
        && parameters_match(publisher.codec, Fmtp(&publisher.fmtp), Fmtp(&viewer.fmtp))
}

/// `a=rtpmap` may leave out a single channel (RFC 8866 §6.6). Opus decoders take either number of channels, whatever it
/// says (RFC 7587 §3.4).
fn channels_match(publisher: &Format, viewer: &Format) -> bool {
    matches!(viewer.codec, Codec::Opus | Codec::Red) || publisher.channels.max(1) == viewer.channels.max(1)
}

/// The viewer's format for the publisher's: one of the same codec, else one compatible with a part of it.
pub fn carrier<'a>(publisher: &Format, viewer: &'a [Format]) -> Option<&'a Format> {
    let compatible = || viewer.iter().filter(|format| compatible(publisher, format));
    compatible().find(|format| format.codec == publisher.codec).or_else(|| compatible().next())
}

fn parameters_match(codec: Codec, publisher: Fmtp<'_>, viewer: Fmtp<'_>) -> bool {
    match codec {
        Codec::Opus | Codec::Red | Codec::Pcmu | Codec::Pcma | Codec::G722 | Codec::Vp8 => true,
        Codec::Vp9 => equal(publisher, viewer, |fmtp| fmtp.number("profile-id", 0)),
        Codec::Av1 => equal(publisher, viewer, |fmtp| Some((fmtp.number("profile", 0)?, fmtp.number("tier", 0)?))),
        Codec::H264 => equal(publisher, viewer, |fmtp| {
            let profile = H264Profile::from_profile_level_id(fmtp.get("profile-level-id").unwrap_or("420010"))?;
            Some((fmtp.number("packetization-mode", 0)?, profile))
        }),
        Codec::H265 => equal(publisher, viewer, |fmtp| {
            // Several streams or decoding order numbers would need a change to every packet (RFC 7798 §7.1).
            let single = fmtp.get("tx-mode").is_none_or(|mode| mode.eq_ignore_ascii_case("SRST"));
            let in_order = fmtp.number("sprop-max-don-diff", 0)? == 0;
            let profile = (fmtp.number("profile-space", 0)?, fmtp.number("profile-id", 1)?);
            (single && in_order).then_some((profile, fmtp.number("tier-flag", 0)?))
        }),
    }
}

fn equal<T: PartialEq>(publisher: Fmtp<'_>, viewer: Fmtp<'_>, key: impl Fn(Fmtp<'_>) -> Option<T>) -> bool {
    key(publisher).is_some_and(|ours| key(viewer) == Some(ours))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(codec: Codec, fmtp: &str) -> Format {
        Format { fmtp: fmtp.to_owned(), ..Format::new(96, codec) }
    }

    fn fits(codec: Codec, publisher: &str, viewer: &str) -> bool {
        compatible(&format(codec, publisher), &format(codec, viewer))
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
        assert!(compatible(&opus, &format(Codec::Opus, "stereo=1")));
        // F-21
        assert!([0, 1].into_iter().all(|channels| compatible(&opus, &Format { channels, ..opus.clone() })));
        assert!([0, 1].into_iter().all(|channels| compatible(&Format { channels, ..opus.clone() }, &opus)));
        assert!(!compatible(&opus, &Format { clock_rate: 16_000, ..opus.clone() }));
        assert!(!compatible(&opus, &format(Codec::Vp8, "")));
        let pcmu = Format { codec: Codec::Pcmu, clock_rate: 8_000, channels: 0, ..opus };
        assert!(compatible(&pcmu, &Format { channels: 1, ..pcmu.clone() }));
        assert!(!compatible(&pcmu, &Format { channels: 2, ..pcmu.clone() }));
    }

    #[test]
    fn red_goes_out_as_red_or_as_opus_and_opus_never_as_red() {
        // COD-04
        let opus = format(Codec::Opus, "useinbandfec=1");
        let red = Format { codec: Codec::Red, fmtp: "111/111".into(), ..opus.clone() };
        assert!(compatible(&red, &red) && compatible(&red, &opus) && !compatible(&opus, &red));
        let viewer = [opus.clone(), red.clone()];
        assert_eq!(carrier(&red, &viewer), Some(&red));
        assert_eq!(carrier(&opus, &viewer), Some(&opus));
        assert_eq!(carrier(&red, &viewer[..1]), Some(&opus));
        assert_eq!(carrier(&red, &[]), None);
        assert_eq!(red.redundant_payload_type(), Some(111));
        assert_eq!(opus.redundant_payload_type(), None);
        for (fmtp, inner) in [("96/96/96", Some(96)), ("111", Some(111)), ("111/110", None), ("", None), ("200", None)]
        {
            assert_eq!(Format { fmtp: fmtp.into(), ..red.clone() }.redundant_payload_type(), inner, "{fmtp}");
        }
    }

    #[test]
    fn h264_constraint_bits_are_normalised() {
        // COD-12
        for id in ["42e01f", "42C01F", "424015", "4d801f", "58c01f"] {
            assert_eq!(H264Profile::from_profile_level_id(id), Some(H264Profile::ConstrainedBaseline), "{id}");
        }
        for (id, profile) in [
            ("42001f", H264Profile::Baseline),
            ("420010", H264Profile::Baseline),
            ("588014", H264Profile::Baseline),
            ("4d001f", H264Profile::Main),
            ("4d401f", H264Profile::Main),
            ("580014", H264Profile::Extended),
            ("64001f", H264Profile::High),
            ("640c1f", H264Profile::ConstrainedHigh),
            ("f4001f", H264Profile::Other(0xf4, 0)),
        ] {
            assert_eq!(H264Profile::from_profile_level_id(id), Some(profile), "{id}");
        }
        for bad in ["", "42e01", "42e01ff", "42e01g", "+2e01f", "42e0é"] {
            assert_eq!(H264Profile::from_profile_level_id(bad), None, "{bad}");
        }
    }

    #[test]
    fn h264_needs_equal_mode_and_profile_but_not_level() {
        // COD-12
        let chrome = "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f";
        assert!(fits(Codec::H264, chrome, "packetization-mode=1; profile-level-id=42c034"));
        assert!(!fits(Codec::H264, chrome, "packetization-mode=0;profile-level-id=42e01f"));
        assert!(!fits(Codec::H264, chrome, "profile-level-id=42e01f"), "no mode means 0");
        assert!(!fits(Codec::H264, chrome, "packetization-mode=1;profile-level-id=64001f"));
        assert!(!fits(Codec::H264, "packetization-mode=1;profile-level-id=nonsense", chrome));
    }

    #[test]
    fn missing_parameters_take_their_defaults() {
        // SDP-26
        assert!(fits(Codec::H264, "", "profile-level-id=420010;packetization-mode=0"));
        assert!(fits(Codec::Vp9, "", "profile-id=0"));
        assert!(!fits(Codec::Vp9, "", "profile-id=2"));
        assert!(fits(Codec::Av1, "", "level-idx=5;profile=0;tier=0")); // COD-15
        assert!(!fits(Codec::Av1, "", "profile=1"));
        assert!(fits(Codec::H265, "", "level-id=180;profile-id=1;tier-flag=0;tx-mode=SRST")); // COD-14
        assert!(!fits(Codec::H265, "", "profile-id=2"));
        assert!(!fits(Codec::H265, "", "tier-flag=1"));
        assert!(!fits(Codec::H265, "tx-mode=MRST", "tx-mode=MRST"));
        assert!(!fits(Codec::H265, "sprop-max-don-diff=2", "sprop-max-don-diff=2"));
        assert!(!fits(Codec::Vp9, "profile-id=x", "profile-id=x"));
    }
}
