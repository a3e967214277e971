//! Redundant audio (RFC 2198): a packet with earlier frames in front of its own. Passed on to viewers that know it; the
//! others get the packet's own frame, the primary block, as plain audio.

/// Why a payload is no RED.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedError {
    /// A header or a block reaches beyond the payload.
    #[error("a RED block reaches beyond the payload")]
    Truncated,
    /// A block is of another payload type than the one that was negotiated.
    #[error("a RED block of payload type {0}")]
    PayloadType(u8),
    /// The primary block has no bytes.
    #[error("an empty primary block")]
    Empty,
}

/// One block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block<'a> {
    /// 0..=127.
    pub payload_type: u8,
    /// How far its timestamp lies before the packet's, in ticks; 0 for the primary block.
    pub timestamp_offset: u16,
    /// The frame.
    pub data: &'a [u8],
}

/// How one viewer gets RED.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redundancy {
    /// As RED, with this payload type for its blocks.
    Kept(u8),
    /// The primary block alone.
    Dropped,
}

/// Header of a redundant block: flag and payload type, 14 bits of timestamp offset, 10 bits of length.
const REDUNDANT_HEADER: usize = 4;

/// Bytes of all headers, the primary block's single one included, and of the redundant blocks.
fn lengths(payload: &[u8]) -> Result<(usize, usize), RedError> {
    let (mut headers, mut redundant) = (0, 0);
    loop {
        let rest = payload.get(headers..).ok_or(RedError::Truncated)?;
        match rest {
            [first, ..] if first & 0x80 == 0 => return Ok((headers + 1, redundant)),
            [_, _, high, low, ..] => redundant += usize::from(u16::from_be_bytes([high & 0x03, *low])),
            _ => return Err(RedError::Truncated),
        }
        headers += REDUNDANT_HEADER;
    }
}

/// The blocks, the primary one last.
///
/// # Errors
/// [`RedError::Truncated`].
pub fn blocks(payload: &[u8]) -> Result<impl Iterator<Item = Block<'_>> + Clone, RedError> {
    let (headers, redundant) = lengths(payload)?;
    let (headers, mut data) = payload.split_at_checked(headers).ok_or(RedError::Truncated)?;
    if redundant > data.len() {
        return Err(RedError::Truncated);
    }
    let (redundant, primary) = headers.as_chunks::<REDUNDANT_HEADER>();
    let redundant = redundant.iter().map(move |&[first, high, middle, low]| {
        let (block, rest) = data.split_at_checked(usize::from(u16::from_be_bytes([middle & 0x03, low])))?;
        data = rest;
        let timestamp_offset = u16::from_be_bytes([high, middle]) >> 2;
        Some(Block { payload_type: first & 0x7f, timestamp_offset, data: block })
    });
    let primary = primary.iter().map(|&first| {
        let (_, data) = self::primary(payload).ok()?;
        Some(Block { payload_type: first, timestamp_offset: 0, data })
    });
    Ok(redundant.chain(primary).flatten())
}

/// The primary block: its payload type and its frame.
///
/// # Errors
/// [`RedError::Truncated`].
pub fn primary(payload: &[u8]) -> Result<(u8, &[u8]), RedError> {
    let (headers, redundant) = lengths(payload)?;
    let payload_type = *payload.get(headers - 1).ok_or(RedError::Truncated)?;
    Ok((payload_type, payload.get(headers + redundant..).ok_or(RedError::Truncated)?))
}

/// Checks a payload whose blocks must all be of one payload type.
///
/// # Errors
/// See [`RedError`].
pub fn check(payload: &[u8], payload_type: u8) -> Result<(), RedError> {
    if let Some(other) = blocks(payload)?.find(|block| block.payload_type != payload_type) {
        return Err(RedError::PayloadType(other.payload_type));
    }
    let (_, frame) = primary(payload)?;
    if frame.is_empty() { Err(RedError::Empty) } else { Ok(()) }
}

/// Writes what a viewer gets of a payload, and returns the bytes; `None` if it does not fit or the payload is no RED.
#[inline]
pub fn write_payload(out: &mut [u8], payload: &[u8], redundancy: Redundancy) -> Option<usize> {
    match redundancy {
        Redundancy::Dropped => {
            let (_, frame) = primary(payload).ok()?;
            out.get_mut(..frame.len())?.copy_from_slice(frame);
            Some(frame.len())
        }
        Redundancy::Kept(payload_type) => {
            let (headers, _) = lengths(payload).ok()?;
            let out = out.get_mut(..payload.len())?;
            out.copy_from_slice(payload);
            for first in out.get_mut(..headers)?.iter_mut().step_by(REDUNDANT_HEADER) {
                *first = (*first & 0x80) | (payload_type & 0x7f);
            }
            Some(payload.len())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two redundant blocks of 3 and 2 bytes, 40 and 20 ms old, and a primary block of 4.
    const PAYLOAD: [u8; 18] = [
        0x80 | 111,
        0x1e,
        0x00,
        3, //
        0x80 | 111,
        0x0f,
        0x00,
        2, //
        111,
        1,
        1,
        1,
        2,
        2,
        3,
        3,
        3,
        3,
    ];

    fn read(payload: &[u8]) -> Vec<Block<'_>> {
        blocks(payload).unwrap().collect()
    }

    // COD-04
    #[test]
    fn blocks_are_cut_where_their_headers_say() {
        let block = |timestamp_offset, data| Block { payload_type: 111, timestamp_offset, data };
        let expected = [block(1920, &[1, 1, 1][..]), block(960, &[2, 2]), block(0, &[3, 3, 3, 3])];
        assert_eq!(read(&PAYLOAD), expected);
        assert_eq!(primary(&PAYLOAD), Ok((111, &[3, 3, 3, 3][..])));
        assert_eq!(read(&[111, 9]), [block(0, &[9])], "no redundancy at all");
        assert_eq!(check(&PAYLOAD, 111), Ok(()));
        // The length has ten bits.
        let mut long = vec![0x80 | 5, 0, 0x03, 0xff, 5];
        long.extend([7; 1023]);
        assert_eq!(primary(&long), Ok((5, &[][..])));
    }

    // COD-04
    #[test]
    fn lengths_beyond_the_payload_and_other_payload_types_are_refused() {
        for end in [0, 1, 3, 4, 7, 8, 9, 13] {
            assert_eq!(check(&PAYLOAD[..end], 111), Err(RedError::Truncated), "cut at {end}");
        }
        assert_eq!(check(&PAYLOAD[..14], 111), Err(RedError::Empty));
        assert_eq!(check(&PAYLOAD, 96), Err(RedError::PayloadType(111)));
        let mut mixed = PAYLOAD;
        mixed[4] = 0x80 | 13;
        assert_eq!(check(&mixed, 111), Err(RedError::PayloadType(13)));
        let mut beyond = PAYLOAD;
        beyond[2] = 0x03;
        assert_eq!(check(&beyond, 111), Err(RedError::Truncated));
    }

    // COD-04, RTP-10
    #[test]
    fn a_viewer_gets_its_own_payload_types_or_the_primary_block() {
        let mut out = [0; 32];
        assert_eq!(write_payload(&mut out, &PAYLOAD, Redundancy::Kept(96)), Some(18));
        let written = read(&out[..18]);
        assert!(written.iter().zip(read(&PAYLOAD)).all(|(ours, theirs)| {
            (ours.payload_type, ours.timestamp_offset, ours.data) == (96, theirs.timestamp_offset, theirs.data)
        }));
        assert_eq!(write_payload(&mut out, &PAYLOAD, Redundancy::Dropped), Some(4));
        assert_eq!(out[..4], [3; 4]);
        for redundancy in [Redundancy::Kept(96), Redundancy::Dropped] {
            assert_eq!(write_payload(&mut out[..3], &PAYLOAD, redundancy), None);
            assert_eq!(write_payload(&mut out, &PAYLOAD[..3], redundancy), None);
        }
    }
}
