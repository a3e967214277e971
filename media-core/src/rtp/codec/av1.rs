//! AV1 (RTP payload specification, version 1.0): the aggregation header and the types of the OBUs after it.

/// `OBU_SEQUENCE_HEADER` (AV1 specification §6.2.2).
const SEQUENCE_HEADER: u8 = 1;

/// The aggregation header, the first byte of every payload (AV1-RTP §4.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AggregationHeader {
    /// Z: the first element continues an OBU of the packet before.
    pub continues: bool,
    /// Y: the last element goes on in the next packet.
    pub continued: bool,
    /// W: number of elements, the last one without a length; 0 if every element has one.
    pub elements: u8,
    /// N: first packet of a coded video sequence.
    pub new_sequence: bool,
}

impl AggregationHeader {
    /// Reads the header; returns it with the elements.
    pub fn parse(payload: &[u8]) -> Option<(AggregationHeader, &[u8])> {
        let (&first, rest) = payload.split_first()?;
        let header = AggregationHeader {
            continues: first & 0x80 != 0,
            continued: first & 0x40 != 0,
            elements: (first >> 4) & 0x03,
            new_sequence: first & 0x08 != 0,
        };
        Some((header, rest))
    }
}

/// True on the first packet of a coded video sequence: N=1, or a sequence header for encoders that never set N. N
/// together with Z contradicts itself and starts nothing.
#[inline]
pub fn starts_keyframe(payload: &[u8]) -> bool {
    let Some((header, elements)) = AggregationHeader::parse(payload) else { return false };
    if header.new_sequence {
        return !header.continues;
    }
    obu_elements(header, elements)
        .skip(usize::from(header.continues))
        .any(|element| element.first().is_some_and(|first| (first >> 3) & 0x0f == SEQUENCE_HEADER))
}

/// The elements of a payload; a length beyond the packet ends them.
fn obu_elements(header: AggregationHeader, mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut index = 0;
    std::iter::from_fn(move || {
        if rest.is_empty() || (header.elements != 0 && index == header.elements) {
            return None;
        }
        // An element without W may come in any number; only those that W counts need the index.
        index = index.saturating_add(1);
        if header.elements != 0 && index == header.elements {
            return Some(std::mem::take(&mut rest));
        }
        let (len, after) = leb128(rest)?;
        let (element, after) = after.split_at_checked(len)?;
        rest = after;
        Some(element)
    })
}

/// An unsigned LEB128 number of at most 32 bits (AV1 specification §4.10.5); returns it with what follows.
fn leb128(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0u64;
    for (index, &byte) in bytes.iter().enumerate().take(8) {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            let value = u32::try_from(value).ok()?;
            return Some((usize::try_from(value).ok()?, bytes.get(index + 1..)?));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPORAL_DELIMITER: u8 = 2 << 3;
    const SEQUENCE: u8 = 1 << 3;
    const FRAME: u8 = 6 << 3;

    #[test]
    fn the_n_bit_starts_a_sequence_unless_z_contradicts() {
        // COD-15
        assert!(starts_keyframe(&[0x18, SEQUENCE, 0]));
        assert!(!starts_keyframe(&[0x98, SEQUENCE, 0]));
        assert!(!starts_keyframe(&[0x10, FRAME, 0]));
    }

    #[test]
    fn a_sequence_header_starts_a_sequence_without_the_n_bit() {
        // COD-15
        assert!(starts_keyframe(&[0x20, 2, SEQUENCE, 0, FRAME, 1, 2]), "W=2");
        assert!(starts_keyframe(&[0x20, 1, TEMPORAL_DELIMITER, SEQUENCE, 7]), "last of W=2 has no length");
        assert!(starts_keyframe(&[0x00, 1, TEMPORAL_DELIMITER, 2, SEQUENCE, 7, 1, FRAME]), "W=0");
        assert!(!starts_keyframe(&[0x00, 1, TEMPORAL_DELIMITER, 1, FRAME]));
    }

    #[test]
    fn the_rest_of_an_obu_is_not_taken_for_a_header() {
        // COD-15
        assert!(!starts_keyframe(&[0x90, SEQUENCE, 7]));
        assert!(starts_keyframe(&[0xa0, 1, FRAME, SEQUENCE, 7]));
    }

    #[test]
    fn lengths_beyond_the_packet_start_nothing() {
        assert!(!starts_keyframe(&[0x00, 9, SEQUENCE]));
        assert!(!starts_keyframe(&[0x00, 0x80, 0x80]));
        assert!(!starts_keyframe(&[0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, SEQUENCE]));
        assert!(!starts_keyframe(&[0x00, 0, 0, 0]));
    }

    #[test]
    fn lengths_of_several_bytes_are_read() {
        let mut payload = vec![0x00, 0x81, 0x01];
        payload.extend([FRAME; 129]);
        payload.extend([2, SEQUENCE, 0]);
        assert!(starts_keyframe(&payload));
    }
}
