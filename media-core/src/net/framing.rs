//! Packets on a TCP connection (RFC 4571 §2, as RFC 6544 §3 has it): 16 bits of length, then that many bytes. No socket.

/// The longest packet that is taken, in bytes: that of a datagram, since it is the same packets that come.
pub const MAX_FRAME: usize = crate::demux::MAX_DATAGRAM;
/// Bytes of the length in front of each packet.
pub const PREFIX: usize = 2;

/// Why nothing more of a connection can be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A length above [`MAX_FRAME`]: the peer speaks another protocol, or wants memory.
    #[error("a frame of {0} bytes, where {MAX_FRAME} are allowed")]
    TooLong(usize),
}

/// The length that goes in front of a packet; `None` for one that is empty or too long for a frame.
pub fn prefix(packet: &[u8]) -> Option<[u8; PREFIX]> {
    let length = u16::try_from(packet.len()).ok().filter(|&length| length > 0)?;
    Some(length.to_be_bytes())
}

/// Cuts a stream of bytes into packets. It holds no more than one of them.
#[derive(Debug, Default)]
pub struct Deframer {
    /// What has come of a frame, its length in front.
    held: Vec<u8>,
}

impl Deframer {
    /// Takes the next packet out of `input` and copies it to the front of `packet`; its length, or `None` once `input` is used up.
    /// Empty frames, which keep a connection alive and say nothing, are passed over.
    ///
    /// # Errors
    /// [`FrameError`]: where the next frame begins is not known any more.
    pub fn next(&mut self, input: &mut &[u8], packet: &mut [u8; MAX_FRAME]) -> Result<Option<usize>, FrameError> {
        loop {
            if self.held.is_empty()
                && let Some((length, rest)) = split_length(input)
                && let Some(whole) = rest.get(..checked(length)?)
            {
                // Copied to where SRTP wants it: a frame may begin anywhere.
                packet[..length].copy_from_slice(whole);
                *input = &rest[length..];
                if length > 0 {
                    return Ok(Some(length));
                }
                continue;
            }
            self.hold(input, PREFIX);
            let Some((length, _)) = split_length(&self.held) else { return Ok(None) };
            self.hold(input, PREFIX + checked(length)?);
            let Some(whole) = self.held.get(PREFIX..PREFIX + length) else { return Ok(None) };
            packet[..length].copy_from_slice(whole);
            self.held.clear();
            if length > 0 {
                return Ok(Some(length));
            }
        }
    }

    /// True in the middle of a frame.
    pub fn is_in_frame(&self) -> bool {
        !self.held.is_empty()
    }

    /// Takes bytes of `input` until `wanted` are held.
    fn hold(&mut self, input: &mut &[u8], wanted: usize) {
        let missing = wanted.saturating_sub(self.held.len()).min(input.len());
        let (taken, rest) = input.split_at(missing);
        self.held.extend_from_slice(taken);
        *input = rest;
    }
}

/// The length of the first frame, and what follows it.
fn split_length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<PREFIX>()?;
    Some((usize::from(u16::from_be_bytes(*length)), rest))
}

fn checked(length: usize) -> Result<usize, FrameError> {
    if length > MAX_FRAME { Err(FrameError::TooLong(length)) } else { Ok(length) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(packets: &[Vec<u8>]) -> Vec<u8> {
        packets.iter().flat_map(|packet| [&(packet.len() as u16).to_be_bytes()[..], packet].concat()).collect()
    }

    fn read(deframer: &mut Deframer, mut bytes: &[u8]) -> Result<Vec<Vec<u8>>, FrameError> {
        let (mut packets, mut packet) = (Vec::new(), [0; MAX_FRAME]);
        while let Some(length) = deframer.next(&mut bytes, &mut packet)? {
            packets.push(packet[..length].to_vec());
        }
        assert!(bytes.is_empty(), "everything is taken");
        Ok(packets)
    }

    // ICE-20
    #[test]
    fn packets_are_the_same_wherever_the_stream_is_cut() {
        let packets: Vec<Vec<u8>> =
            [1, 2, 20, 255, 256, 1200, MAX_FRAME].iter().map(|&length| vec![length as u8; length]).collect();
        let bytes = framed(&packets);
        for size in [1, 2, 3, 7, 255, 1201, bytes.len()] {
            let mut deframer = Deframer::default();
            let read: Vec<_> = bytes.chunks(size).flat_map(|chunk| read(&mut deframer, chunk).unwrap()).collect();
            assert_eq!(read, packets, "cut every {size} bytes");
            assert!(!deframer.is_in_frame());
        }
    }

    #[test]
    fn a_frame_that_is_too_long_is_known_by_its_length_alone() {
        let long = (MAX_FRAME as u16 + 1).to_be_bytes();
        assert_eq!(read(&mut Deframer::default(), &long), Err(FrameError::TooLong(MAX_FRAME + 1)));
        let mut by_the_byte = Deframer::default();
        assert_eq!(read(&mut by_the_byte, &long[..1]), Ok(vec![]));
        assert_eq!(read(&mut by_the_byte, &long[1..]), Err(FrameError::TooLong(MAX_FRAME + 1)));
        // What other protocols begin with.
        for first in [&b"GET / HTTP/1.1\r\n"[..], &[0x16, 3, 1, 2, 0, 1], b"SSH-2.0-"] {
            assert!(read(&mut Deframer::default(), first).is_err());
        }
    }

    #[test]
    fn no_more_is_held_than_one_frame() {
        let mut deframer = Deframer::default();
        let frame = framed(&[vec![7; MAX_FRAME]]);
        for _ in 0..100 {
            for byte in &frame[..frame.len() - 1] {
                assert_eq!(read(&mut deframer, &[*byte]), Ok(vec![]));
                assert!(deframer.is_in_frame() && deframer.held.len() < frame.len());
            }
            assert_eq!(read(&mut deframer, &frame[frame.len() - 1..]).unwrap().len(), 1);
        }
        assert!(deframer.held.capacity() <= 2 * frame.len());
    }

    #[test]
    fn empty_frames_say_nothing() {
        let packets = [vec![], vec![1], vec![], vec![], vec![2, 2], vec![]];
        let expected = [vec![1], vec![2, 2]];
        assert_eq!(read(&mut Deframer::default(), &framed(&packets)).unwrap(), expected);
        let mut by_the_byte = Deframer::default();
        let read: Vec<_> = framed(&packets).iter().flat_map(|&byte| read(&mut by_the_byte, &[byte]).unwrap()).collect();
        assert_eq!(read, expected);
    }

    #[test]
    fn a_packet_gets_its_length_in_front_and_one_without_a_length_gets_none() {
        assert_eq!(prefix(&[0; 1200]), Some([4, 176]));
        assert_eq!((prefix(&[]), prefix(&vec![0; 65_536])), (None, None));
    }
}
