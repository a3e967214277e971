//! H.265 (RFC 7798): single NAL units, aggregation packets and fragmentation units, without DONL fields.

use super::h264::aggregated_units;

/// Video parameter set.
pub(super) const VPS: u8 = 32;
/// Sequence parameter set.
pub(super) const SPS: u8 = 33;
/// Picture parameter set.
pub(super) const PPS: u8 = 34;
/// Aggregation packet (RFC 7798 §4.4.2).
const AP: u8 = 48;
/// Fragmentation unit (RFC 7798 §4.4.3).
const FU: u8 = 49;

/// True if the packet begins a video or sequence parameter set, or the first slice segment of a picture at which decoding
/// may start (unit types 16 to 21).
#[inline]
pub fn starts_keyframe(payload: &[u8]) -> bool {
    let Some((&[first, _], rest)) = payload.split_first_chunk::<2>() else { return false };
    match unit_type(first) {
        AP => aggregated_units(rest).any(|unit| {
            unit.split_first_chunk::<2>().is_some_and(|(&[h, _], r)| unit_starts_keyframe(unit_type(h), r))
        }),
        FU => rest.split_first().is_some_and(|(&fu, r)| fu & 0x80 != 0 && unit_starts_keyframe(fu & 0x3f, r)),
        kind => unit_starts_keyframe(kind, rest),
    }
}

/// Type of the unit or packet whose header begins with this byte.
pub(super) fn unit_type(first: u8) -> u8 {
    (first >> 1) & 0x3f
}

/// The units that lie in this packet as a whole, with their headers.
pub(super) fn whole_units(payload: &[u8]) -> impl Iterator<Item = &[u8]> {
    let kind = payload.first().map_or(AP, |&first| unit_type(first));
    let single = (kind < AP).then_some(payload);
    let aggregated = if kind == AP { payload.get(2..).unwrap_or_default() } else { &[] };
    single.into_iter().chain(aggregated_units(aggregated))
}

/// True if the packet is the first fragment of a unit of this type.
pub(super) fn begins_fragmented(payload: &[u8], kind: u8) -> bool {
    matches!(payload, [first, _, fu, ..] if unit_type(*first) == FU && fu & 0x80 != 0 && fu & 0x3f == kind)
}

/// The first bit of a slice segment is `first_slice_segment_in_pic_flag`.
fn unit_starts_keyframe(kind: u8, body: &[u8]) -> bool {
    match kind {
        VPS | SPS => true,
        16..=21 => body.first().is_some_and(|first| first & 0x80 != 0),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(kind: u8) -> [u8; 2] {
        [kind << 1, 1]
    }

    #[test]
    fn single_units_are_told_by_their_type() {
        // COD-14
        for kind in 0..48u8 {
            let [first, second] = header(kind);
            let expected = matches!(kind, 16..=21 | 32 | 33);
            assert_eq!(starts_keyframe(&[first, second, 0x80]), expected, "type {kind}");
        }
        let [first, second] = header(19);
        assert!(!starts_keyframe(&[first, second, 0x40]), "second slice segment");
        assert!(!starts_keyframe(&[first]));
    }

    #[test]
    fn every_unit_of_an_aggregation_packet_is_looked_at() {
        // COD-14
        let packet = [96, 1, 0, 3, 39 << 1, 1, 0, 0, 3, 32 << 1, 1, 0x0c];
        assert!(starts_keyframe(&packet));
        assert!(!starts_keyframe(&packet[..packet.len() - 1]), "size beyond the packet");
        assert!(!starts_keyframe(&[96, 1, 0, 1, 64]), "unit without a whole header");
    }

    #[test]
    fn only_the_first_fragment_starts_a_keyframe() {
        // COD-14
        assert!(starts_keyframe(&[98, 1, 0x80 | 19, 0x80]));
        assert!(!starts_keyframe(&[98, 1, 19, 0x80]));
        assert!(!starts_keyframe(&[98, 1, 0x80 | 1, 0x80]));
        assert!(!starts_keyframe(&[98, 1]));
    }
}
