//! The buffer that RTCP is written into; every message adds its own method.

/// The longest RTCP datagram that Sluice sends, in bytes, before SRTCP.
pub const MAX_RTCP_LEN: usize = 1200;

/// The message does not fit any more; nothing of it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the RTCP packet is full")]
pub struct RtcpFull;

/// Writes RTCP messages one after the other into a buffer, up to [`MAX_RTCP_LEN`] bytes.
#[derive(Debug)]
pub struct RtcpWriter<'a> {
    buffer: &'a mut [u8],
    len: usize,
}

impl<'a> RtcpWriter<'a> {
    /// Starts at the front of `buffer`.
    pub fn new(buffer: &'a mut [u8]) -> RtcpWriter<'a> {
        let end = buffer.len().min(MAX_RTCP_LEN);
        RtcpWriter { buffer: &mut buffer[..end], len: 0 }
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if nothing was written.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What was written.
    pub fn as_bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    /// Bytes that still fit.
    pub fn remaining(&self) -> usize {
        self.buffer.len() - self.len
    }

    /// Writes the header of a packet whose body has `body_len` bytes, a multiple of 4, and returns the body to fill.
    pub(super) fn packet(&mut self, count: u8, packet_type: u8, body_len: usize) -> Result<&mut [u8], RtcpFull> {
        debug_assert!(body_len.is_multiple_of(4) && count < 32);
        let packet = self.buffer[self.len..].get_mut(..4 + body_len).ok_or(RtcpFull)?;
        self.len += packet.len();
        let (header, body) = packet.split_at_mut(4);
        // The length in words without the header; it fits, as the buffer is short.
        let [l0, l1] = ((body_len / 4) as u16).to_be_bytes();
        header.copy_from_slice(&[0x80 | count, packet_type, l0, l1]);
        Ok(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_never_grows_beyond_its_bound() {
        // RTCP-20
        let mut buffer = [0; 2000];
        let mut writer = RtcpWriter::new(&mut buffer);
        assert!(writer.is_empty());
        while writer.pli(1, 2).is_ok() {}
        assert_eq!(writer.len(), MAX_RTCP_LEN);
        assert_eq!((writer.remaining(), writer.as_bytes().len()), (0, MAX_RTCP_LEN));
    }

    #[test]
    fn a_message_that_does_not_fit_leaves_no_trace() {
        let mut buffer = [0; 20];
        let mut writer = RtcpWriter::new(&mut buffer);
        writer.pli(1, 2).unwrap();
        assert_eq!(writer.pli(1, 2), Err(RtcpFull));
        assert_eq!(writer.len(), 12);
        writer.receiver_report(1, &[]).unwrap();
        assert_eq!(writer.len(), 20);
    }
}
