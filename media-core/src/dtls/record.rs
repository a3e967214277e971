//! The records of a DTLS 1.2 datagram (RFC 6347 §4.1), as far as they can be read without keys.

/// A record's header.
pub(super) const HEADER: usize = 13;
/// The header of a handshake message's fragment (RFC 6347 §4.2.2).
pub(super) const FRAGMENT_HEADER: usize = 12;

/// Types of records.
pub(super) const CHANGE_CIPHER_SPEC: u8 = 20;
pub(super) const ALERT: u8 = 21;
pub(super) const HANDSHAKE: u8 = 22;

/// One record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'a> {
    pub(super) header: &'a [u8; HEADER],
    /// As much of it as the datagram holds.
    pub(super) body: &'a [u8],
}

impl Record<'_> {
    /// What is in it.
    pub(super) fn kind(&self) -> u8 {
        self.header[0]
    }

    /// Of epoch 0: neither encrypted nor authenticated.
    pub(super) fn is_plain(&self) -> bool {
        self.header[3..5] == [0, 0]
    }

    /// The length of its body, as it says itself, in bytes.
    pub(super) fn length(&self) -> usize {
        usize::from(u16::from_be_bytes([self.header[11], self.header[12]]))
    }

    /// The datagram does not break off inside it.
    pub(super) fn is_whole(&self) -> bool {
        self.body.len() == self.length()
    }
}

/// The records of a datagram, of which the last may not be whole.
pub(super) fn records(datagram: &[u8]) -> impl Iterator<Item = Record<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let (header, after) = rest.split_first_chunk()?;
        let length = Record { header, body: after }.length();
        let (body, next) = after.split_at_checked(length).unwrap_or((after, &[]));
        rest = next;
        Some(Record { header, body })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_is_read_record_by_record_up_to_where_it_breaks_off() {
        let datagram = [
            &[HANDSHAKE, 254, 253, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2, 7, 8][..],
            &[ALERT, 254, 253, 0, 1, 0, 0, 0, 0, 0, 2, 0, 0],
            &[HANDSHAKE, 254, 253, 0, 0, 0, 0, 0, 0, 0, 3, 0, 9, 5],
        ]
        .concat();
        let read: Vec<_> = records(&datagram)
            .map(|record| (record.kind(), record.is_plain(), record.length(), record.body, record.is_whole()))
            .collect();
        let expected: [(u8, bool, usize, &[u8], bool); 3] =
            [(HANDSHAKE, true, 2, &[7, 8], true), (ALERT, false, 0, &[], true), (HANDSHAKE, true, 9, &[5], false)];
        assert_eq!(read, expected);
        assert_eq!(records(&datagram[..12]).count(), 0);
    }
}
