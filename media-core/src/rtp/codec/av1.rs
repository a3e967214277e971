//! AV1 (RTP payload specification, version 1.0): the aggregation header and the types of the OBUs after it.

use super::Start;

/// `OBU_SEQUENCE_HEADER` (AV1 specification §6.2.2).
pub(super) const SEQUENCE_HEADER: u8 = 1;
/// `OBU_FRAME_HEADER`
const FRAME_HEADER: u8 = 3;
/// `OBU_FRAME`
const FRAME: u8 = 6;

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

/// What begins in the packet: a key frame that is shown, by its own header, is a keyframe; a sequence header is what a decoder
/// needs before it, and none.
///
/// N is not asked: packetizers set it for every sequence header, and others never. Together with Z it contradicts itself and
/// starts nothing.
#[inline]
pub fn start(payload: &[u8]) -> Start {
    let Some((header, elements)) = AggregationHeader::parse(payload) else { return Start::None };
    if header.new_sequence && header.continues {
        return Start::None;
    }
    begun_obus(header, elements).map(obu_start).max().unwrap_or(Start::None)
}

/// The OBUs that lie in this packet as a whole, with their headers.
pub(super) fn whole_obus(payload: &[u8]) -> impl Iterator<Item = &[u8]> {
    let parsed = AggregationHeader::parse(payload);
    let elements = parsed.into_iter().flat_map(|(header, elements)| {
        let count = obu_elements(header, elements).count().saturating_sub(usize::from(header.continued));
        obu_elements(header, elements).take(count).skip(usize::from(header.continues))
    });
    elements.filter(|element| !element.is_empty())
}

/// True if an OBU of this type begins in the packet and goes on in the next.
pub(super) fn begins_fragmented(payload: &[u8], kind: u8) -> bool {
    let Some((header, elements)) = AggregationHeader::parse(payload) else { return false };
    let last = || begun_obus(header, elements).last().and_then(<[u8]>::first);
    header.continued && last().is_some_and(|&first| obu_type(first) == kind)
}

/// Type of the OBU whose header begins with this byte (AV1 specification §5.3.2).
pub(super) fn obu_type(first: u8) -> u8 {
    (first >> 3) & 0x0f
}

/// What an OBU of the lowest spatial layer starts. Its header may have an extension and a size behind it.
fn obu_start(obu: &[u8]) -> Start {
    let Some((&first, mut rest)) = obu.split_first() else { return Start::None };
    let kind = obu_type(first);
    if kind == SEQUENCE_HEADER {
        return Start::ParameterSets;
    }
    if !matches!(kind, FRAME | FRAME_HEADER) {
        return Start::None;
    }
    if first & 0x04 != 0 {
        match rest.split_first() {
            Some((&extension, after)) if (extension >> 3) & 0x03 == 0 => rest = after,
            _ => return Start::None,
        }
    }
    if first & 0x02 != 0 {
        match leb128(rest) {
            Some((_, after)) => rest = after,
            None => return Start::None,
        }
    }
    // show_existing_frame 0, frame_type 0, show_frame 1 (AV1 specification §5.9.2).
    match rest.first() {
        Some(first) if first & 0xf0 == 0x10 => Start::Keyframe,
        _ => Start::None,
    }
}

/// The first sequence header of the packet, with its OBU header; it fits in every packet, so that it is there as a whole.
pub(crate) fn sequence_header(payload: &[u8]) -> Option<&[u8]> {
    let (header, elements) = AggregationHeader::parse(payload)?;
    begun_obus(header, elements).find(|obu| obu.first().is_some_and(|&first| obu_type(first) == SEQUENCE_HEADER))
}

/// The elements that are not the rest of an OBU of the packet before.
fn begun_obus(header: AggregationHeader, elements: &[u8]) -> impl Iterator<Item = &[u8]> {
    obu_elements(header, elements).skip(usize::from(header.continues))
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
    /// The first byte of the header of a key frame that is shown, and of an inter frame.
    const KEY: u8 = 0x10;
    const INTER: u8 = 0x30;

    // COD-15, F-03
    #[test]
    fn a_shown_key_frame_starts_a_sequence_whatever_the_n_bit_says() {
        for n in [0x00, 0x08] {
            assert_eq!(start(&[0x20 | n, 2, SEQUENCE, 0, FRAME, KEY, 2]), Start::Keyframe, "W=2");
            assert_eq!(start(&[n, 1, TEMPORAL_DELIMITER, 2, SEQUENCE, 7, 2, FRAME, KEY]), Start::Keyframe, "W=0");
            assert_eq!(start(&[0x10 | n, SEQUENCE, 0]), Start::ParameterSets, "alone");
            assert_eq!(start(&[0x20 | n, 2, SEQUENCE, 0, FRAME, INTER]), Start::ParameterSets, "repeated");
            assert_eq!(start(&[0x10 | n, FRAME, INTER]), Start::None);
        }
        assert_eq!(start(&[0x98, FRAME, KEY]), Start::None, "N and Z");
    }

    // COD-15, F-03
    #[test]
    fn hidden_key_frames_intra_frames_and_frames_shown_again_start_nothing() {
        for (first, name) in [(0x00, "hidden"), (0x50, "intra-only"), (0x70, "switch"), (0x80, "shown again")] {
            assert_eq!(start(&[0x10, FRAME, first]), Start::None, "{name}");
        }
        assert_eq!(start(&[0x10, FRAME]), Start::None, "no header");
    }

    // COD-15
    #[test]
    fn extensions_and_sizes_of_obu_headers_are_read() {
        assert_eq!(start(&[0x10, FRAME | 0x02, 9, KEY]), Start::Keyframe, "size");
        assert_eq!(start(&[0x10, FRAME | 0x06, 0x20, 9, KEY]), Start::Keyframe, "temporal layer 1 and size");
        assert_eq!(start(&[0x10, FRAME | 0x04, 0x08, KEY]), Start::None, "spatial layer 1");
        assert_eq!(start(&[0x10, (3 << 3), KEY]), Start::Keyframe, "a frame header of its own");
    }

    // COD-15
    #[test]
    fn the_rest_of_an_obu_is_not_taken_for_a_header() {
        assert_eq!(start(&[0x90, SEQUENCE, 7]), Start::None);
        assert_eq!(start(&[0xa0, 1, FRAME, FRAME, KEY]), Start::Keyframe);
    }

    #[test]
    fn lengths_beyond_the_packet_start_nothing() {
        assert_eq!(start(&[0x00, 9, SEQUENCE]), Start::None);
        assert_eq!(start(&[0x00, 0x80, 0x80]), Start::None);
        assert_eq!(start(&[0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, SEQUENCE]), Start::None);
        assert_eq!(start(&[0x00, 0, 0, 0]), Start::None);
    }

    #[test]
    fn lengths_of_several_bytes_are_read() {
        let mut payload = vec![0x00, 0x81, 0x01];
        payload.extend([INTER; 129]);
        payload.extend([2, FRAME, KEY]);
        assert_eq!(start(&payload), Start::Keyframe);
    }

    // COD-11
    #[test]
    fn only_what_is_whole_is_handed_out() {
        let whole = |payload: &'static [u8]| whole_obus(payload).collect::<Vec<_>>();
        assert_eq!(whole(&[0x20, 2, SEQUENCE, 5, FRAME, KEY]), [&[SEQUENCE, 5][..], &[FRAME, KEY]]);
        assert_eq!(whole(&[0xf0, 2, SEQUENCE, 5, 2, SEQUENCE, 6, FRAME, KEY]), [[SEQUENCE, 6]], "the middle of three");
        assert!(whole(&[0x50, SEQUENCE, 5]).is_empty() && whole(&[0x50]).is_empty() && whole(&[]).is_empty());
        assert!(begins_fragmented(&[0x50, SEQUENCE, 5], SEQUENCE_HEADER));
        assert!(!begins_fragmented(&[0x10, SEQUENCE, 5], SEQUENCE_HEADER));
        assert!(!begins_fragmented(&[0xd0, SEQUENCE, 5], SEQUENCE_HEADER), "the middle of one");
    }
}
