//! Retransmission packets (RFC 4588 §4): the original sequence number in front of the original payload.

use super::packet::RtpHeader;

/// Writes the payload of a retransmission: `original`, the sequence number under which the receiver missed the packet,
/// then its payload. Returns the bytes written; `None` if `out` is too small.
#[inline]
pub fn write_payload(out: &mut [u8], original: u16, payload: &[u8]) -> Option<usize> {
    let len = payload.len() + 2;
    let (number, rest) = out.get_mut(..len)?.split_first_chunk_mut::<2>()?;
    *number = original.to_be_bytes();
    rest.copy_from_slice(payload);
    Some(len)
}

/// The original sequence number and the original payload; `None` if the packet is a probe, which has no payload.
#[inline]
pub fn split_payload(payload: &[u8]) -> Option<(u16, &[u8])> {
    let (number, rest) = payload.split_first_chunk::<2>()?;
    Some((u16::from_be_bytes(*number), rest))
}

/// Turns a retransmission into the packet that was lost, in place: its own number and the SSRC and payload type of the
/// media stream; marker, timestamp, extensions and padding stay. `header` is that of `packet`. Returns the restored packet,
/// which is two bytes shorter; `None` if it is a probe.
pub fn restore<'a>(packet: &'a mut [u8], header: &RtpHeader, payload_type: u8, ssrc: u32) -> Option<&'a mut [u8]> {
    let (original, _) = split_payload(header.payload(packet))?;
    // The header moves over the number after it: it is shorter than the payload.
    packet.copy_within(..header.header_len, 2);
    let restored = packet.get_mut(2..)?;
    let fixed = restored.first_chunk_mut::<12>()?;
    fixed[1] = (fixed[1] & 0x80) | (payload_type & 0x7f);
    fixed[2..4].copy_from_slice(&original.to_be_bytes());
    fixed[8..12].copy_from_slice(&ssrc.to_be_bytes());
    Some(restored)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtp::packet::{HeaderFields, write_header};

    fn packet(fields: &HeaderFields, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; 64];
        let len = write_header(&mut packet, fields, [(3, &b"0"[..])]).unwrap();
        packet.truncate(len);
        packet.extend_from_slice(payload);
        packet
    }

    #[test]
    fn a_restored_packet_equals_the_lost_one() {
        // RTCP-10
        let lost = HeaderFields {
            marker: true,
            padding: false,
            payload_type: 96,
            sequence_number: 500,
            timestamp: 7,
            ssrc: 0x1111,
        };
        let mut payload = [0; 16];
        let len = write_payload(&mut payload, lost.sequence_number, b"payload").unwrap();
        let mut sent =
            packet(&HeaderFields { payload_type: 97, sequence_number: 9, ssrc: 0x2222, ..lost }, &payload[..len]);
        let header = RtpHeader::parse(&sent).unwrap();
        assert_eq!(restore(&mut sent, &header, 96, 0x1111).unwrap(), packet(&lost, b"payload"));
    }

    #[test]
    fn a_probe_restores_nothing() {
        // RTCP-10
        let mut probe = [0xa0, 97, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 4];
        let header = RtpHeader::parse(&probe).unwrap();
        assert!(restore(&mut probe, &header, 96, 1).is_none());
        assert_eq!(split_payload(&[1]), None);
        assert_eq!(split_payload(&[1, 2, 3]), Some((0x0102, &[3][..])));
    }

    #[test]
    fn a_payload_that_does_not_fit_is_not_written() {
        assert_eq!(write_payload(&mut [0; 3], 1, &[1, 2]), None);
        assert_eq!(write_payload(&mut [0; 4], 1, &[1, 2]), Some(4));
    }
}
