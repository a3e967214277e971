//! H.264 profiles, and which decoder takes which stream (H.264 annex A.2, RFC 6184 §8.1).

use std::fmt;

/// `profile_idc`, the constraint flags and `level_idc`: the three bytes of `profile-level-id` (RFC 6184 §8.1), which are also
/// the first ones of every sequence parameter set (H.264 §7.3.2.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct H264ProfileLevel {
    /// `profile_idc`
    pub idc: u8,
    /// `constraint_set0_flag` in the highest bit, and so on.
    pub constraints: u8,
    /// `level_idc`: ten times the level's number.
    pub level: u8,
}

/// An H.264 profile with its constraint flags folded into a name (RFC 6184 §8.1, table 5; H.264 annex A.2).
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
    /// High, or High without interlace (Progressive High).
    High,
    /// High 10, or its intra profile.
    High10,
    /// High 4:2:2, or its intra profile.
    High422,
    /// High 4:4:4 Predictive, or its intra profiles.
    High444,
    /// Any other, by its `profile_idc`: scalable and multiview ones.
    Other(u8),
}

impl H264ProfileLevel {
    /// What libwebrtc takes where the description says nothing: Constrained Baseline, level 3.1. RFC 6184 §8.1 would have
    /// Baseline, level 1, which no encoder in use makes.
    pub const DEFAULT: H264ProfileLevel = H264ProfileLevel { idc: 0x42, constraints: 0xe0, level: 0x1f };

    /// Reads six hexadecimal digits; `None` if it is anything else.
    pub fn parse(text: &str) -> Option<H264ProfileLevel> {
        if text.len() != 6 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let [_, idc, constraints, level] = u32::from_str_radix(text, 16).ok()?.to_be_bytes();
        Some(H264ProfileLevel { idc, constraints, level })
    }

    /// Reads the head of a sequence parameter set, a NAL unit with its header.
    pub fn of_parameter_set(unit: &[u8]) -> Option<H264ProfileLevel> {
        let &[_, idc, constraints, level] = unit.first_chunk()?;
        Some(H264ProfileLevel { idc, constraints, level })
    }

    /// The profile. Flags may also say that a stream keeps to a smaller profile than its `profile_idc`.
    pub fn profile(self) -> H264Profile {
        let set = |flag: u8| self.constraints & (0x80 >> flag) != 0;
        match self.idc {
            0x42 if set(1) => H264Profile::ConstrainedBaseline,
            0x42 => H264Profile::Baseline,
            0x4d if set(0) => H264Profile::ConstrainedBaseline,
            0x4d => H264Profile::Main,
            0x58 if set(0) && set(1) => H264Profile::ConstrainedBaseline,
            0x58 if set(0) => H264Profile::Baseline,
            0x58 if set(1) => H264Profile::Main,
            0x58 => H264Profile::Extended,
            0x64 if set(4) && set(5) => H264Profile::ConstrainedHigh,
            0x64 => H264Profile::High,
            0x6e => H264Profile::High10,
            0x7a => H264Profile::High422,
            0xf4 | 0x2c => H264Profile::High444,
            other => H264Profile::Other(other),
        }
    }
}

impl fmt::Display for H264ProfileLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let H264ProfileLevel { idc, constraints, level } = self;
        write!(f, "{} ({idc:02x}{constraints:02x}{level:02x})", self.profile())
    }
}

impl H264Profile {
    /// True if a decoder of this profile may decode a stream of that one.
    ///
    /// | decoder | streams | source (H.264) |
    /// |---|---|---|
    /// | Constrained Baseline | Constrained Baseline; Baseline (a) | A.2.1.1 |
    /// | Baseline | Constrained Baseline, Baseline | A.2.1 |
    /// | Extended | Constrained Baseline, Baseline, Extended | A.2.3 |
    /// | Main | Constrained Baseline, Main; Baseline (a) | A.2.2 |
    /// | Constrained High | Constrained Baseline, Constrained High; Baseline (a); Main, High (b) | A.2.4.2 |
    /// | High | Constrained Baseline, Main, Constrained High, High; Baseline (a) | A.2.4, A.2.4.1 |
    /// | High 10 | as High, and High 10 | A.2.5 |
    /// | High 4:2:2 | as High 10, and High 4:2:2 | A.2.6 |
    /// | High 4:4:4 Predictive | as High 4:2:2, and High 4:4:4 Predictive | A.2.7 |
    ///
    /// (a) What Baseline has beyond the others (flexible macroblock order, arbitrary slice order, redundant slices) no encoder
    /// in use makes, though some leave `constraint_set1_flag` out.
    /// (b) What these have beyond Constrained High are fields, which no WebRTC encoder makes, and B slices, which WebRTC
    /// forbids anyway; x264 and hardware encoders leave `constraint_set4_flag` and `constraint_set5_flag` out all the same, and
    /// Safari names High by no other name than Constrained High.
    pub fn decodes(self, stream: H264Profile) -> bool {
        use H264Profile::{
            Baseline, ConstrainedBaseline, ConstrainedHigh, Extended, High, High10, High422, High444, Main, Other,
        };
        match stream {
            ConstrainedBaseline | Baseline => !matches!(self, Other(_)),
            Extended => self == Extended,
            Main | ConstrainedHigh if self == Main => stream == Main,
            Main | ConstrainedHigh | High => matches!(self, ConstrainedHigh | High | High10 | High422 | High444),
            High10 => matches!(self, High10 | High422 | High444),
            High422 => matches!(self, High422 | High444),
            High444 => self == High444,
            Other(_) => self == stream,
        }
    }
}

impl fmt::Display for H264Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            H264Profile::ConstrainedBaseline => "Constrained Baseline",
            H264Profile::Baseline => "Baseline",
            H264Profile::Main => "Main",
            H264Profile::Extended => "Extended",
            H264Profile::ConstrainedHigh => "Constrained High",
            H264Profile::High => "High",
            H264Profile::High10 => "High 10",
            H264Profile::High422 => "High 4:2:2",
            H264Profile::High444 => "High 4:4:4",
            H264Profile::Other(idc) => return write!(f, "profile {idc}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(id: &str) -> H264Profile {
        H264ProfileLevel::parse(id).unwrap_or_else(|| panic!("{id}")).profile()
    }

    // COD-12
    #[test]
    fn constraint_flags_are_normalised() {
        for id in ["42e01f", "42C01F", "424015", "4d801f", "58c01f"] {
            assert_eq!(profile(id), H264Profile::ConstrainedBaseline, "{id}");
        }
        for (id, expected) in [
            ("42001f", H264Profile::Baseline),
            ("420010", H264Profile::Baseline),
            ("588014", H264Profile::Baseline),
            ("4d001f", H264Profile::Main),
            ("4d401f", H264Profile::Main),
            ("580014", H264Profile::Extended),
            ("64001f", H264Profile::High),
            ("64081f", H264Profile::High),
            ("640c1f", H264Profile::ConstrainedHigh),
            ("6e001f", H264Profile::High10),
            ("f4001f", H264Profile::High444),
            ("53001f", H264Profile::Other(0x53)),
        ] {
            assert_eq!(profile(id), expected, "{id}");
        }
        for bad in ["", "42e01", "42e01ff", "42e01g", "+2e01f", "42e0é", "TeAo"] {
            assert_eq!(H264ProfileLevel::parse(bad), None, "{bad}");
        }
    }

    // F-01
    #[test]
    fn a_decoder_takes_the_streams_of_its_row() {
        let all = ["42e01f", "42001f", "58001f", "4d001f", "640c1f", "64001f", "6e001f", "7a001f", "f4001f", "53001f"];
        for (decoder, streams) in [
            ("42e01f", &["42e01f", "42001f"][..]),
            ("42001f", &["42e01f", "42001f"]),
            ("58001f", &["42e01f", "42001f", "58001f"]),
            ("4d001f", &["42e01f", "42001f", "4d001f"]),
            ("640c1f", &["42e01f", "42001f", "4d001f", "640c1f", "64001f"]),
            ("64001f", &["42e01f", "42001f", "4d001f", "640c1f", "64001f"]),
            ("6e001f", &["42e01f", "42001f", "4d001f", "640c1f", "64001f", "6e001f"]),
            ("7a001f", &["42e01f", "42001f", "4d001f", "640c1f", "64001f", "6e001f", "7a001f"]),
            ("f4001f", &["42e01f", "42001f", "4d001f", "640c1f", "64001f", "6e001f", "7a001f", "f4001f"]),
            ("53001f", &["53001f"]),
        ] {
            for stream in all {
                let expected = streams.contains(&stream);
                assert_eq!(profile(decoder).decodes(profile(stream)), expected, "{decoder} decodes {stream}");
            }
        }
    }

    // F-13
    #[test]
    fn the_head_of_a_parameter_set_names_its_profile_and_level() {
        let read = H264ProfileLevel::of_parameter_set(&[0x67, 0x64, 0x0c, 0x28, 0xac]).unwrap();
        assert_eq!(read.to_string(), "Constrained High (640c28)");
        assert_eq!(H264ProfileLevel::of_parameter_set(&[0x67, 0x64, 0x0c]), None);
    }
}
