//! H.264 (RFC 6184): single NAL units, STAP-A and FU-A.

/// Instantaneous decoding refresh slice.
const IDR: u8 = 5;
/// Sequence parameter set.
pub(super) const SPS: u8 = 7;
/// Picture parameter set.
pub(super) const PPS: u8 = 8;
/// Single-time aggregation packet (RFC 6184 §5.7.1).
const STAP_A: u8 = 24;
/// Fragmentation unit (RFC 6184 §5.8).
const FU_A: u8 = 28;

/// True if the packet begins a sequence parameter set or the first slice of an IDR picture.
///
/// The sets may come in packets of their own before the picture, or only out of band; an access unit delimiter or SEI in
/// front starts nothing. Decoding cannot start at a later slice of the same picture.
#[inline]
pub fn starts_keyframe(payload: &[u8]) -> bool {
    let Some((&header, rest)) = payload.split_first() else { return false };
    match header & 0x1f {
        kind @ 1..=23 => unit_starts_keyframe(kind, rest),
        STAP_A => aggregated_units(rest)
            .any(|unit| unit.split_first().is_some_and(|(&h, r)| unit_starts_keyframe(h & 0x1f, r))),
        FU_A => rest.split_first().is_some_and(|(&fu, r)| fu & 0x80 != 0 && unit_starts_keyframe(fu & 0x1f, r)),
        _ => false,
    }
}

/// The units that lie in this packet as a whole, with their headers.
pub(super) fn whole_units(payload: &[u8]) -> impl Iterator<Item = &[u8]> {
    let kind = payload.first().map_or(0, |header| header & 0x1f);
    let single = matches!(kind, 1..=23).then_some(payload);
    let aggregated = if kind == STAP_A { payload.get(1..).unwrap_or_default() } else { &[] };
    single.into_iter().chain(aggregated_units(aggregated))
}

/// True if the packet is the first fragment of a unit of this type.
pub(super) fn begins_fragmented(payload: &[u8], kind: u8) -> bool {
    matches!(payload, [header, fu, ..] if header & 0x1f == FU_A && fu & 0x80 != 0 && fu & 0x1f == kind)
}

/// `first_mb_in_slice` is an Exp-Golomb code: a leading one bit is zero, the first macroblock.
fn unit_starts_keyframe(kind: u8, body: &[u8]) -> bool {
    match kind {
        SPS => true,
        IDR => body.first().is_some_and(|first| first & 0x80 != 0),
        _ => false,
    }
}

/// The units of an aggregation packet after its header, each with a 16-bit size in front; a size beyond the packet ends
/// them. H.265 has the same layout (RFC 7798 §4.4.2).
pub(super) fn aggregated_units(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (&size, after) = rest.split_first_chunk::<2>()?;
        let (unit, after) = after.split_at_checked(usize::from(u16::from_be_bytes(size)))?;
        rest = after;
        Some(unit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_units_are_told_by_their_type() {
        // COD-10
        assert!(starts_keyframe(&[0x67, 0x42, 0xe0, 0x1f]), "SPS");
        assert!(starts_keyframe(&[0x65, 0x88, 0x84]), "first slice of an IDR picture");
        assert!(!starts_keyframe(&[0x65, 0x04, 0x84]), "second slice of an IDR picture");
        for header in [0x41, 0x68, 0x06, 0x09, 0x00] {
            assert!(!starts_keyframe(&[header, 0x88]), "header {header:#x}");
        }
        assert!(!starts_keyframe(&[0x65]), "no slice header");
    }

    #[test]
    fn every_unit_of_a_stap_a_is_looked_at() {
        // COD-10: AUD, SEI, SPS, PPS as encoders send them.
        let stap = [0x78, 0, 2, 0x09, 0x10, 0, 3, 0x06, 0x01, 0x80, 0, 4, 0x67, 0x64, 0, 0x1f, 0, 2, 0x68, 0xee];
        assert!(starts_keyframe(&stap));
        assert!(starts_keyframe(&[0x78, 0, 2, 0x68, 0xee, 0, 2, 0x65, 0x88]));
        assert!(!starts_keyframe(&[0x78, 0, 2, 0x68, 0xee, 0, 2, 0x41, 0x88]));
    }

    #[test]
    fn a_stap_a_with_sizes_beyond_the_packet_starts_nothing() {
        // COD-10
        assert!(!starts_keyframe(&[0x78, 0, 9, 0x67, 0x42]));
        assert!(!starts_keyframe(&[0x78, 0]));
        assert!(!starts_keyframe(&[0x78, 0, 0, 0, 0]));
    }

    #[test]
    fn only_the_first_fragment_starts_a_keyframe() {
        // COD-10
        assert!(starts_keyframe(&[0x7c, 0x85, 0x88]));
        assert!(starts_keyframe(&[0x7c, 0x87, 0x42]));
        assert!(!starts_keyframe(&[0x7c, 0x05, 0x88]), "middle");
        assert!(!starts_keyframe(&[0x7c, 0x45, 0x88]), "end");
        assert!(!starts_keyframe(&[0x7c, 0x85, 0x08]), "second slice");
        assert!(!starts_keyframe(&[0x7c, 0x81, 0x88]), "no IDR");
        assert!(!starts_keyframe(&[0x7c]));
    }
}
