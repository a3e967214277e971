//! H.265 (RFC 7798): single NAL units, aggregation packets and fragmentation units, without DONL fields.

use super::h264::aggregated_units;
use super::{Start, sei};

/// The unit types of pictures at which decoding may start: BLA, IDR and CRA (H.265 §7.4.2.2).
const BLA_W_LP: u8 = 16;
const CRA: u8 = 21;
/// Video parameter set.
pub(super) const VPS: u8 = 32;
/// Sequence parameter set.
pub(super) const SPS: u8 = 33;
/// Picture parameter set.
pub(super) const PPS: u8 = 34;
/// Supplemental enhancement information in front of a picture.
const PREFIX_SEI: u8 = 39;
/// Aggregation packet (RFC 7798 §4.4.2).
const AP: u8 = 48;
/// Fragmentation unit (RFC 7798 §4.4.3).
const FU: u8 = 49;

/// What begins in the packet: the first slice segment of an IDR, CRA or BLA picture is a keyframe; a parameter set or a
/// recovery point is not.
///
/// A decoder that starts at a CRA picture passes over the pictures that lead it and refer to what came before (RASL).
#[inline]
pub fn start(payload: &[u8]) -> Start {
    let Some((&[first, _], rest)) = payload.split_first_chunk::<2>() else { return Start::None };
    match unit_type(first) {
        AP => {
            let units = aggregated_units(rest).filter_map(|unit| unit.split_first_chunk::<2>());
            units.map(|(&[header, _], body)| unit_start(unit_type(header), body)).max().unwrap_or(Start::None)
        }
        FU => match rest.split_first() {
            Some((&fu, body)) if fu & 0x80 != 0 => unit_start(fu & 0x3f, body),
            _ => Start::None,
        },
        kind => unit_start(kind, rest),
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

/// The first sequence parameter set of the packet, with its header of two bytes; of one in fragments, what the first has of
/// it, with the end of the fragment's header instead.
pub(crate) fn parameter_set(payload: &[u8]) -> Option<&[u8]> {
    if begins_fragmented(payload, SPS) {
        return payload.get(1..);
    }
    whole_units(payload).find(|unit| unit.first().is_some_and(|&first| unit_type(first) == SPS))
}

/// True if the packet is the first fragment of a unit of this type.
pub(super) fn begins_fragmented(payload: &[u8], kind: u8) -> bool {
    matches!(payload, [first, _, fu, ..] if unit_type(*first) == FU && fu & 0x80 != 0 && fu & 0x3f == kind)
}

/// The first bit of a slice segment is `first_slice_segment_in_pic_flag`.
fn unit_start(kind: u8, body: &[u8]) -> Start {
    match kind {
        VPS | SPS | PPS => Start::ParameterSets,
        PREFIX_SEI if sei::has_recovery_point(body) => Start::RecoveryPoint,
        BLA_W_LP..=CRA if body.first().is_some_and(|first| first & 0x80 != 0) => Start::Keyframe,
        _ => Start::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(kind: u8) -> [u8; 2] {
        [kind << 1, 1]
    }

    // COD-14, F-03
    #[test]
    fn single_units_are_told_by_their_type() {
        for kind in 0..48u8 {
            let [first, second] = header(kind);
            let expected = match kind {
                16..=21 => Start::Keyframe,
                32..=34 => Start::ParameterSets,
                _ => Start::None,
            };
            assert_eq!(start(&[first, second, 0x80]), expected, "type {kind}");
        }
        let [first, second] = header(19);
        assert_eq!(start(&[first, second, 0x40]), Start::None, "second slice segment");
        assert_eq!(start(&[first]), Start::None);
        let [first, second] = header(39);
        assert_eq!(start(&[first, second, 6, 1, 0xd0, 0x80]), Start::RecoveryPoint);
    }

    // COD-14, F-03
    #[test]
    fn every_unit_of_an_aggregation_packet_is_looked_at() {
        let packet = [96, 1, 0, 3, 39 << 1, 1, 0, 0, 3, 32 << 1, 1, 0x0c];
        assert_eq!(start(&packet), Start::ParameterSets);
        assert_eq!(start(&packet[..packet.len() - 1]), Start::None, "size beyond the packet");
        assert_eq!(start(&[96, 1, 0, 1, 64]), Start::None, "unit without a whole header");
        assert_eq!(start(&[&packet[..], &[0, 3, 21 << 1, 1, 0x80]].concat()), Start::Keyframe);
    }

    // COD-14
    #[test]
    fn only_the_first_fragment_starts_a_keyframe() {
        assert_eq!(start(&[98, 1, 0x80 | 19, 0x80]), Start::Keyframe);
        assert_eq!(start(&[98, 1, 19, 0x80]), Start::None);
        assert_eq!(start(&[98, 1, 0x80 | 1, 0x80]), Start::None);
        assert_eq!(start(&[98, 1]), Start::None);
    }
}
