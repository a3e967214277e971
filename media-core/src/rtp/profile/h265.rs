//! H.265 profiles and tiers, and which decoder takes which stream (H.265 annex A, RFC 7798 §7.1).

use std::fmt;

use crate::rtp::bits::Bits;
use crate::rtp::codec::without_emulation_prevention;

/// The general profile, tier and level of a stream, or of what a description says (H.265 §7.3.3, RFC 7798 §7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct H265ProfileTierLevel {
    /// `general_profile_space`; streams of this version of the standard have 0.
    pub space: u8,
    /// `general_profile_idc`: 1 Main, 2 Main 10, 3 Main Still Picture, 4 format range extensions.
    pub idc: u8,
    /// `general_profile_compatibility_flag[j]`, flag 0 in the highest bit.
    pub compatibility: u32,
    /// `general_tier_flag`: the High tier.
    pub high_tier: bool,
    /// `general_level_idc`: thirty times the level's number.
    pub level: u8,
}

impl H265ProfileTierLevel {
    /// Of a profile alone, with the flags that a stream of it has at least (H.265 A.3.2 to A.3.4).
    pub fn new(space: u8, idc: u8, high_tier: bool, level: u8) -> H265ProfileTierLevel {
        let flag = |profile: u8| 0x8000_0000u32.checked_shr(profile.into()).unwrap_or_default();
        let others = match idc {
            1 => flag(2),
            3 => flag(1) | flag(2),
            _ => 0,
        };
        H265ProfileTierLevel { space, idc, compatibility: flag(idc) | others, high_tier, level }
    }

    /// Reads the head of a sequence parameter set, a NAL unit with its header (H.265 §7.3.2.2).
    pub fn of_parameter_set(unit: &[u8]) -> Option<H265ProfileTierLevel> {
        // Two bytes of header, one of ids, twelve of profile, tier and level.
        let mut bytes = without_emulation_prevention(unit);
        let mut head = [0; 15];
        for byte in &mut head {
            *byte = bytes.next()?;
        }
        let mut bits = Bits::new(&head[3..]);
        let (space, tier, idc) = (bits.take(2)? as u8, bits.take(1)?, bits.take(5)? as u8);
        let compatibility = bits.take(32)?;
        // Source and constraint flags.
        bits.skip(48)?;
        let level = bits.take(8)? as u8;
        Some(H265ProfileTierLevel { space, idc, compatibility, high_tier: tier == 1, level })
    }

    /// True if a decoder of this profile and tier may decode a stream of that one. Levels only bound what it can bear.
    ///
    /// | decoder | streams | source (H.265) |
    /// |---|---|---|
    /// | Main (1) | Main, Main Still Picture | A.3.2 |
    /// | Main 10 (2) | Main, Main 10, Main Still Picture | A.3.3 |
    /// | Main Still Picture (3) | Main Still Picture | A.3.4 |
    /// | any | its own profile, and those with its compatibility flag | A.3 |
    /// | High tier | both tiers | A.4.1 |
    pub fn decodes(self, stream: H265ProfileTierLevel) -> bool {
        let compatible =
            0x8000_0000u32.checked_shr(self.idc.into()).is_some_and(|flag| stream.compatibility & flag != 0);
        let includes = match self.idc {
            1 => stream.idc == 3,
            2 => matches!(stream.idc, 1 | 3),
            _ => false,
        };
        let profile = self.space == stream.space && (self.idc == stream.idc || compatible || includes);
        profile && (self.high_tier || !stream.high_tier)
    }
}

impl fmt::Display for H265ProfileTierLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.idc {
            1 => f.write_str("Main"),
            2 => f.write_str("Main 10"),
            3 => f.write_str("Main Still Picture"),
            4 => f.write_str("Range Extensions"),
            idc => write!(f, "profile {idc}"),
        }?;
        f.write_str(if self.high_tier { " High tier" } else { "" })?;
        write!(f, " level {:.1}", f32::from(self.level) / 30.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(idc: u8, high_tier: bool) -> H265ProfileTierLevel {
        H265ProfileTierLevel::new(0, idc, high_tier, 93)
    }

    // F-01
    #[test]
    fn a_decoder_takes_the_streams_of_its_row() {
        for (decoder, streams) in [(1, &[1, 3][..]), (2, &[1, 2, 3]), (3, &[3]), (4, &[4])] {
            for stream in 1..=4 {
                let expected = streams.contains(&stream);
                assert_eq!(described(decoder, false).decodes(described(stream, false)), expected, "{decoder} {stream}");
            }
        }
        for (decoder, stream, expected) in [(true, false, true), (true, true, true), (false, true, false)] {
            assert_eq!(described(1, decoder).decodes(described(1, stream)), expected, "tiers {decoder} {stream}");
        }
        let other_space = H265ProfileTierLevel { space: 1, ..described(1, false) };
        assert!(!described(1, false).decodes(other_space));
        // A stream of the range extensions that says that Main decoders may have it.
        let compatible = H265ProfileTierLevel { compatibility: 0x4000_0000, ..described(4, false) };
        assert!(described(1, false).decodes(compatible));
        assert!(!described(40, false).decodes(described(41, false)), "profiles beyond the flags");
    }

    // F-13
    #[test]
    fn the_head_of_a_parameter_set_is_read_through_emulation_prevention() {
        // x265: Main, level 3.1; flags 1 and 2; progressive, frames only.
        let unit = [0x42, 1, 1, 0x01, 0x60, 0, 0, 3, 0, 0x90, 0, 0, 3, 0, 0, 3, 0, 0x5d, 0xa0];
        let read = H265ProfileTierLevel::of_parameter_set(&unit).unwrap();
        assert_eq!((read.idc, read.compatibility, read.level), (1, 0x6000_0000, 93));
        assert_eq!(read.to_string(), "Main level 3.1");
        assert_eq!(H265ProfileTierLevel::of_parameter_set(&unit[..16]), None);
        let high_tier =
            H265ProfileTierLevel::of_parameter_set(&[0x42, 1, 1, 0x22, 0x20, 1, 1, 1, 1, 1, 1, 1, 1, 1, 120]);
        assert_eq!(high_tier.unwrap().to_string(), "Main 10 High tier level 4.0");
    }
}
