//! H.264 (RFC 6184): single NAL units, STAP-A and FU-A.

use super::{Start, sei};

/// Instantaneous decoding refresh slice.
const IDR: u8 = 5;
/// Supplemental enhancement information.
const SEI: u8 = 6;
/// Sequence parameter set.
pub(super) const SPS: u8 = 7;
/// Picture parameter set.
pub(super) const PPS: u8 = 8;
/// Single-time aggregation packet (RFC 6184 §5.7.1).
const STAP_A: u8 = 24;
/// Fragmentation unit (RFC 6184 §5.8).
const FU_A: u8 = 28;

/// What begins in the packet: the first slice of an IDR picture is a keyframe; a parameter set or a recovery point is not,
/// however often it is repeated.
///
/// The sets may come in packets of their own before the picture, or only out of band; an access unit delimiter or other SEI
/// in front starts nothing. Decoding cannot start at a later slice of the same picture.
#[inline]
pub fn start(payload: &[u8]) -> Start {
    let Some((&header, rest)) = payload.split_first() else { return Start::None };
    match header & 0x1f {
        kind @ 1..=23 => unit_start(kind, rest),
        STAP_A => {
            let units = aggregated_units(rest).filter_map(|unit| unit.split_first());
            units.map(|(&header, body)| unit_start(header & 0x1f, body)).max().unwrap_or(Start::None)
        }
        FU_A => match rest.split_first() {
            Some((&fu, body)) if fu & 0x80 != 0 => unit_start(fu & 0x1f, body),
            _ => Start::None,
        },
        _ => Start::None,
    }
}

/// The units that lie in this packet as a whole, with their headers.
pub(super) fn whole_units(payload: &[u8]) -> impl Iterator<Item = &[u8]> {
    let kind = payload.first().map_or(0, |header| header & 0x1f);
    let single = matches!(kind, 1..=23).then_some(payload);
    let aggregated = if kind == STAP_A { payload.get(1..).unwrap_or_default() } else { &[] };
    single.into_iter().chain(aggregated_units(aggregated))
}

/// The first sequence parameter set of the packet, with its header; of one in fragments, what the first has of it, with the
/// fragment's header instead.
pub(crate) fn parameter_set(payload: &[u8]) -> Option<&[u8]> {
    if begins_fragmented(payload, SPS) {
        return payload.get(1..);
    }
    whole_units(payload).find(|unit| unit.first().is_some_and(|header| header & 0x1f == SPS))
}

/// True if the packet is the first fragment of a unit of this type.
pub(super) fn begins_fragmented(payload: &[u8], kind: u8) -> bool {
    matches!(payload, [header, fu, ..] if header & 0x1f == FU_A && fu & 0x80 != 0 && fu & 0x1f == kind)
}

/// `first_mb_in_slice` is an Exp-Golomb code: a leading one bit is zero, the first macroblock.
fn unit_start(kind: u8, body: &[u8]) -> Start {
    match kind {
        SPS | PPS => Start::ParameterSets,
        SEI if sei::has_recovery_point(body) => Start::RecoveryPoint,
        IDR if body.first().is_some_and(|first| first & 0x80 != 0) => Start::Keyframe,
        _ => Start::None,
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

    // COD-10, F-03
    #[test]
    fn single_units_are_told_by_their_type() {
        assert_eq!(start(&[0x67, 0x42, 0xe0, 0x1f]), Start::ParameterSets);
        assert_eq!(start(&[0x65, 0x88, 0x84]), Start::Keyframe, "first slice of an IDR picture");
        assert_eq!(start(&[0x65, 0x04, 0x84]), Start::None, "second slice of an IDR picture");
        assert_eq!(start(&[0x06, 0x06, 0x01, 0xc4]), Start::RecoveryPoint);
        assert_eq!(start(&[0x68, 0xee]), Start::ParameterSets);
        for header in [0x41, 0x06, 0x09, 0x00] {
            assert_eq!(start(&[header, 0x88]), Start::None, "header {header:#x}");
        }
        assert_eq!(start(&[0x65]), Start::None, "no slice header");
    }

    // COD-10, F-03
    #[test]
    fn every_unit_of_a_stap_a_is_looked_at() {
        // AUD, SEI, SPS, PPS as encoders send them, in front of an intra-refresh frame or of a keyframe.
        let stap = [0x78, 0, 2, 0x09, 0x10, 0, 3, 0x06, 0x01, 0x80, 0, 4, 0x67, 0x64, 0, 0x1f, 0, 2, 0x68, 0xee];
        assert_eq!(start(&stap), Start::ParameterSets);
        assert_eq!(start(&[&stap[..], &[0, 4, 0x06, 0x06, 0x01, 0xc4]].concat()), Start::RecoveryPoint);
        assert_eq!(start(&[&stap[..], &[0, 2, 0x65, 0x88]].concat()), Start::Keyframe);
        assert_eq!(start(&[0x78, 0, 2, 0x68, 0xee, 0, 2, 0x65, 0x88]), Start::Keyframe);
        assert_eq!(start(&[0x78, 0, 2, 0x68, 0xee, 0, 2, 0x41, 0x88]), Start::ParameterSets);
    }

    // COD-10
    #[test]
    fn a_stap_a_with_sizes_beyond_the_packet_starts_nothing() {
        assert_eq!(start(&[0x78, 0, 9, 0x67, 0x42]), Start::None);
        assert_eq!(start(&[0x78, 0]), Start::None);
        assert_eq!(start(&[0x78, 0, 0, 0, 0]), Start::None);
    }

    // COD-10, F-03
    #[test]
    fn only_the_first_fragment_starts_anything() {
        assert_eq!(start(&[0x7c, 0x85, 0x88]), Start::Keyframe);
        assert_eq!(start(&[0x7c, 0x87, 0x42]), Start::ParameterSets);
        assert_eq!(start(&[0x7c, 0x05, 0x88]), Start::None, "middle");
        assert_eq!(start(&[0x7c, 0x45, 0x88]), Start::None, "end");
        assert_eq!(start(&[0x7c, 0x85, 0x08]), Start::None, "second slice");
        assert_eq!(start(&[0x7c, 0x81, 0x88]), Start::None, "no IDR");
        assert_eq!(start(&[0x7c]), Start::None);
    }
}
