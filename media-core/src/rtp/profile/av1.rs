//! AV1 profiles and tiers, and which decoder takes which stream (AV1 specification §5.5, §A.2, §A.3).

use std::fmt;

use crate::rtp::bits::Bits;

/// Profile, tier and level of a stream, or of what a description says (AV1-RTP §7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Av1ProfileTierLevel {
    /// `seq_profile`: 0 Main, 1 High, 2 Professional.
    pub profile: u8,
    /// `seq_tier` of the first operating point: 1 is the High tier.
    pub tier: u8,
    /// `seq_level_idx` of the first operating point: level 2.0 is 0, and each further level is one more (AV1 §A.3).
    pub level: u8,
}

impl Av1ProfileTierLevel {
    /// Reads a sequence header OBU, with its header (AV1 §5.3, §5.5).
    pub fn of_sequence_header(obu: &[u8]) -> Option<Av1ProfileTierLevel> {
        let mut bits = Bits::new(obu);
        // Forbidden bit and type.
        bits.skip(5)?;
        let (has_extension, has_size) = (bits.take(1)? == 1, bits.take(1)? == 1);
        bits.skip(if has_extension { 9 } else { 1 })?;
        if has_size {
            // LEB128: the highest bit says that another byte follows.
            while bits.take(8)? & 0x80 != 0 {}
        }
        let profile = bits.take(3)? as u8;
        // Still picture.
        bits.skip(1)?;
        if bits.take(1)? == 1 {
            return Some(Av1ProfileTierLevel { profile, tier: 0, level: bits.take(5)? as u8 });
        }
        if bits.take(1)? == 1 {
            skip_timing(&mut bits)?;
        }
        // Initial display delay, number of operating points, scalability of the first one.
        bits.skip(1 + 5 + 12)?;
        let level = bits.take(5)? as u8;
        let tier = if level > 7 { bits.take(1)? as u8 } else { 0 };
        Some(Av1ProfileTierLevel { profile, tier, level })
    }

    /// True if a decoder of this profile and tier may decode a stream of that one. Levels only bound what it can bear.
    ///
    /// | decoder | streams | source (AV1) |
    /// |---|---|---|
    /// | Main (0) | Main | A.2 |
    /// | High (1) | Main, High | A.2 |
    /// | Professional (2) | Main, High, Professional | A.2 |
    /// | High tier | both tiers | A.3 |
    pub fn decodes(self, stream: Av1ProfileTierLevel) -> bool {
        stream.profile <= self.profile && stream.tier <= self.tier
    }
}

/// Timing information and the decoder model's (AV1 §5.5.3, §5.5.4).
fn skip_timing(bits: &mut Bits<'_>) -> Option<()> {
    bits.skip(64)?;
    if bits.take(1)? == 1 {
        // An unsigned variable length code: as many bits again as it has leading zeros.
        let mut zeros = 0;
        while bits.take(1)? == 0 {
            zeros += 1;
        }
        bits.skip(zeros)?;
    }
    if bits.take(1)? == 1 {
        bits.skip(5 + 32 + 5 + 5)?;
        // With a decoder model each operating point may have parameters, but only after level and tier.
    }
    Some(())
}

impl fmt::Display for Av1ProfileTierLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.profile {
            0 => f.write_str("Main"),
            1 => f.write_str("High"),
            2 => f.write_str("Professional"),
            other => write!(f, "profile {other}"),
        }?;
        f.write_str(if self.tier > 0 { " High tier" } else { "" })?;
        write!(f, " level {}.{}", 2 + (self.level >> 2), self.level & 3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // F-01
    #[test]
    fn a_decoder_takes_the_streams_of_its_row() {
        for decoder in 0..3 {
            for stream in 0..3 {
                let of = |profile| Av1ProfileTierLevel { profile, tier: 0, level: 5 };
                assert_eq!(of(decoder).decodes(of(stream)), stream <= decoder, "{decoder} {stream}");
            }
        }
        let tier = |tier| Av1ProfileTierLevel { profile: 0, tier, level: 12 };
        assert!(tier(1).decodes(tier(0)) && !tier(0).decodes(tier(1)));
    }

    // F-13
    #[test]
    fn a_sequence_header_names_profile_tier_and_level() {
        // libaom and SVT-AV1 send it so: Main, no timing, one operating point, level 3.0 and 4.0.
        for (obu, expected) in [
            (&[0x0a, 0x0b, 0x00, 0x00, 0x00, 0x24][..], "Main level 3.0"),
            (&[0x08, 0x00, 0x00, 0x00, 0x42], "Main level 4.0"),
            (&[0x0c, 0x00, 0x00, 0x00, 0x00, 0x42], "Main level 4.0"),
            (&[0x08, 0x20, 0x00, 0x00, 0x44], "High High tier level 4.0"),
            (&[0x08, 0x19, 0x00], "Main level 3.0"),
        ] {
            let read = Av1ProfileTierLevel::of_sequence_header(obu).map(|read| read.to_string());
            assert_eq!(read.as_deref(), Some(expected), "{obu:x?}");
        }
        for cut in [&[][..], &[0x0a, 0xff], &[0x08, 0x00, 0x00]] {
            assert_eq!(Av1ProfileTierLevel::of_sequence_header(cut), None, "{cut:x?}");
        }
    }

    #[test]
    fn timing_information_is_passed_over() {
        let mut bits = String::from("00001000"); // type 1, neither extension nor size
        bits += "001" /* High */;
        bits += "0" /* no still picture */;
        bits += "0" /* no reduced header */;
        bits += "1" /* timing information */;
        bits += &"0".repeat(63);
        bits += "1" /* two numbers of 32 bits */;
        bits += "1" /* equal intervals */;
        bits += "00101" /* a code of two zeros */;
        bits += "1" /* decoder model */;
        bits += &"0".repeat(47);
        bits += "0" /* no initial display delay */;
        bits += "00000";
        bits += &"0".repeat(12);
        bits += "01001" /* level 4.1 */;
        bits += "1" /* High tier */;
        bits += &"0".repeat((8 - bits.len() % 8) % 8);
        let digits: Vec<char> = bits.chars().collect();
        let bytes: Vec<u8> =
            digits.chunks(8).map(|byte| byte.iter().fold(0, |value, &bit| value << 1 | u8::from(bit == '1'))).collect();
        let read = Av1ProfileTierLevel::of_sequence_header(&bytes).unwrap();
        assert_eq!(read, Av1ProfileTierLevel { profile: 1, tier: 1, level: 9 });
    }
}
