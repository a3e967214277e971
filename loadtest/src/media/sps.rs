//! Sequence parameter sets of H.264 (§7.3.2.1.1) for pictures of any size.

/// Frames in one NAL unit type: 7, and the highest `nal_ref_idc`.
const NAL_HEADER: u8 = 0x67;
const MACROBLOCK: u16 = 16;

/// A sequence parameter set of a baseline or main profile without anything optional; `profile` has `profile_idc`, constraint flags
/// and `level_idc`, one byte each.
pub(super) fn sequence_parameter_set(profile: u32, (width, height): (u16, u16)) -> Vec<u8> {
    let mut bits = Bits::default();
    // Id, bits of the frame number less 4, order by decoding, one reference frame without gaps.
    for value in [0, 0, 2, 1] {
        bits.unsigned(value);
    }
    bits.push(0, 1);
    let (columns, rows) = (width.div_ceil(MACROBLOCK), height.div_ceil(MACROBLOCK));
    bits.unsigned(u32::from(columns) - 1);
    bits.unsigned(u32::from(rows) - 1);
    // Whole frames, direct inference on 8x8.
    bits.push(0b11, 2);
    let (right, bottom) = (columns * MACROBLOCK - width, rows * MACROBLOCK - height);
    bits.push(u32::from(right + bottom > 0), 1);
    if right + bottom > 0 {
        // In units of two pixels: left, right, top, bottom.
        for value in [0, right / 2, 0, bottom / 2] {
            bits.unsigned(value.into());
        }
    }
    // No usability information; then the stop bit.
    bits.push(0b01, 2);
    let mut set = vec![NAL_HEADER];
    set.extend(&profile.to_be_bytes()[1..]);
    set.extend(bits.bytes);
    set
}

/// Bits, the highest of each byte first.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    used: u32,
}

impl Bits {
    /// The lowest `count` bits of a value.
    fn push(&mut self, value: u32, count: u32) {
        for index in (0..count).rev() {
            if self.used.is_multiple_of(8) {
                self.bytes.push(0);
            }
            let bit = (value >> index & 1) as u8;
            if let Some(last) = self.bytes.last_mut() {
                *last |= bit << (7 - self.used % 8);
            }
            self.used += 1;
        }
    }

    /// Exp-Golomb code `ue(v)` (§9.1).
    fn unsigned(&mut self, value: u32) {
        let length = 32 - (value + 1).leading_zeros();
        self.push(0, length - 1);
        self.push(value + 1, length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_in_macroblocks_less_what_is_cropped() {
        // 640x360: 40 columns, 23 rows less 8 lines; written down by hand bit by bit.
        let set = sequence_parameter_set(0x42_e01f, (640, 360));
        assert_eq!(set[..4], [0x67, 0x42, 0xe0, 0x1f]);
        let bits: String = set[4..].iter().map(|byte| format!("{byte:08b}")).collect();
        let expected = "1 1 011 010 0 00000101000 000010111 11 1 1 1 1 00101 0 1".replace(' ', "");
        assert_eq!(bits.trim_end_matches('0'), expected.trim_end_matches('0'));
        let whole: String =
            sequence_parameter_set(0x42_e01f, (1280, 720))[4..].iter().map(|byte| format!("{byte:08b}")).collect();
        assert!(whole.starts_with(&"1 1 011 010 0 0000001010000 00000101101 11 0 0 1".replace(' ', "")), "{whole}");
    }
}
