//! The size of pictures as a sequence parameter set of H.264 says it (§7.3.2.1.1).

use smallvec::SmallVec;

use super::without_emulation_prevention;
use crate::rtp::bits::Bits;

/// Bytes of a parameter set that are looked at: the size stands in front of what may be long.
const MAX_LENGTH: usize = 256;
/// Frames of a picture order count cycle, at most (`num_ref_frames_in_pic_order_cnt_cycle`).
const MAX_CYCLE: u32 = 255;
/// Profiles whose parameter sets say how colours are sampled.
const WITH_CHROMA: [u8; 13] = [44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244];

/// Width and height of the pictures that are shown, in pixels. `unit` is a NAL unit with its header; `None` if it does not parse.
pub(crate) fn picture_size(unit: &[u8]) -> Option<(u16, u16)> {
    let &[_, profile, _, _] = unit.first_chunk()?;
    let bytes: SmallVec<[u8; 128]> = without_emulation_prevention(unit).take(MAX_LENGTH).collect();
    let mut bits = Bits::new(bytes.get(4..)?);
    // seq_parameter_set_id
    bits.exp_golomb()?;
    let mut chroma_format = 1;
    if WITH_CHROMA.contains(&profile) {
        chroma_format = bits.exp_golomb()?;
        if chroma_format == 3 && bits.take(1)? == 1 {
            // Planes of their own, each like one without colours.
            chroma_format = 0;
            skip_depths_and_scaling(&mut bits, 12)?;
        } else {
            skip_depths_and_scaling(&mut bits, if chroma_format == 3 { 12 } else { 8 })?;
        }
    }
    // log2_max_frame_num_minus4
    bits.exp_golomb()?;
    skip_order_count(&mut bits)?;
    // max_num_ref_frames, gaps_in_frame_num_value_allowed_flag
    bits.exp_golomb()?;
    bits.take(1)?;
    let width = 16 * (u64::from(bits.exp_golomb()?) + 1);
    let rows = u64::from(bits.exp_golomb()?) + 1;
    let is_progressive = bits.take(1)?;
    if is_progressive == 0 {
        // mb_adaptive_frame_field_flag
        bits.take(1)?;
    }
    // direct_8x8_inference_flag
    bits.take(1)?;
    let fields = 2 - u64::from(is_progressive);
    let mut cropped = [0; 4];
    if bits.take(1)? == 1 {
        for side in &mut cropped {
            *side = u64::from(bits.exp_golomb()?);
        }
    }
    let [left, right, top, bottom] = cropped;
    let across = if matches!(chroma_format, 1 | 2) { 2 } else { 1 };
    let down = if chroma_format == 1 { 2 } else { 1 } * fields;
    let width = width.checked_sub(across * (left + right))?;
    let height = (16 * rows * fields).checked_sub(down * (top + bottom))?;
    let side = |pixels: u64| u16::try_from(pixels).ok().filter(|pixels| *pixels > 0);
    Some((side(width)?, side(height)?))
}

/// Bit depths, and scaling matrices of so many lists.
fn skip_depths_and_scaling(bits: &mut Bits<'_>, lists: usize) -> Option<()> {
    bits.exp_golomb()?;
    bits.exp_golomb()?;
    // qpprime_y_zero_transform_bypass_flag
    bits.take(1)?;
    if bits.take(1)? == 0 {
        return Some(());
    }
    for list in 0..lists {
        if bits.take(1)? == 1 {
            skip_scaling_list(bits, if list < 6 { 16 } else { 64 })?;
        }
    }
    Some(())
}

/// §7.3.2.1.1.1
fn skip_scaling_list(bits: &mut Bits<'_>, length: usize) -> Option<()> {
    let (mut last, mut next) = (8_i64, 8_i64);
    for _ in 0..length {
        if next != 0 {
            next = (last + signed(bits.exp_golomb()?)).rem_euclid(256);
        }
        if next != 0 {
            last = next;
        }
    }
    Some(())
}

fn skip_order_count(bits: &mut Bits<'_>) -> Option<()> {
    match bits.exp_golomb()? {
        0 => bits.exp_golomb().map(drop),
        1 => {
            // delta_pic_order_always_zero_flag, two offsets
            bits.take(1)?;
            bits.exp_golomb()?;
            bits.exp_golomb()?;
            let cycle = bits.exp_golomb()?;
            (0..cycle.min(MAX_CYCLE)).try_for_each(|_| bits.exp_golomb().map(drop))
        }
        _ => Some(()),
    }
}

/// A signed number by its code (§9.1.1).
fn signed(code: u32) -> i64 {
    let half = i64::from(code).div_euclid(2);
    if code % 2 == 1 { half + 1 } else { -half }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    // EXT-09: as x264 writes them.
    #[test]
    fn the_size_is_that_of_the_pictures_shown_in_every_profile() {
        for (hex, size) in [
            ("6742c01fd9005005bb0110000003001000000303c0f1832480", (1_280, 720)),
            // Cropped.
            ("6764001eacd940a02fea4c0440000003004000000f03c58b6580", (638, 362)),
            ("674d400deca0a0cfcf8088000003000800000301e078a14cb0", (320, 180)),
            // Colours as dense as brightness.
            ("67f40015919b28363fcfe022000003000200000300781e2c5b2c", (426, 240)),
            // Interlaced, with scaling matrices.
            ("67f4001e919b2814041f8430110000030001000003003c1f142996", (640, 482)),
        ] {
            assert_eq!(picture_size(&unit(hex)), Some(size), "{hex}");
        }
    }

    #[test]
    fn a_parameter_set_that_is_cut_or_absurd_has_no_size() {
        let whole = unit("6764001eacd940a02fea4c0440000003004000000f03c58b6580");
        for end in 0..8 {
            assert_eq!(picture_size(&whole[..end]), None, "{end}");
        }
        assert_eq!(picture_size(&[0x67, 0x42, 0, 0x1e, 0, 0, 0, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(picture_size(&[0xff; 300]), Some((16, 16)));
    }
}
