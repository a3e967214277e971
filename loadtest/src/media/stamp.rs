//! What every payload carries at its end: who sent it, its number, when, and a checksum over all of it.
//!
//! The stamp is last so that it is found whatever the codec puts first.

use super::scalability::LayerId;

/// Bytes of a stamp.
pub(crate) const STAMP_LEN: usize = 44;

const MAGIC: [u8; 4] = *b"SLte";
const CHECKSUM_LEN: usize = 4;

/// What a packet is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// An audio packet.
    Audio,
    /// A packet of an interframe, or a later one of a keyframe.
    Video,
    /// The first packet of a keyframe.
    KeyframeStart,
}

/// Which frame a packet of video is a part of, and what that frame refers to: enough to know what a decoder could show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FramePart {
    /// The frame's layer.
    pub(crate) layer: LayerId,
    /// Its picture, counted from 0 in each encoding.
    pub(crate) picture: u32,
    /// The picture whose frame of the same spatial layer it refers to; none of a keyframe.
    pub(crate) reference: Option<u32>,
    /// It refers to the frame of the next lower spatial layer of its picture.
    pub(crate) inter_layer: bool,
    /// Packets of the frame.
    pub(crate) packets: u16,
}

/// The stamp of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// [`stream_number`] of the stream's name.
    pub(crate) stream: u32,
    /// Differs between runs of a publisher: its counters start from 0.
    pub(crate) epoch: u32,
    /// What the packet is part of.
    pub(crate) content: Content,
    /// What of a picture the packet is.
    pub(crate) part: FramePart,
    /// Counts the packets of one RTP stream, from 0.
    pub(crate) counter: u64,
    /// [`crate::clock::nanos`] when it was sent.
    pub(crate) sent: u64,
}

/// Why a payload is not what was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Broken {
    /// There is no stamp: the payload is another sender's, or cut.
    #[error("no stamp")]
    Foreign,
    /// The checksum is wrong.
    #[error("wrong checksum")]
    Checksum,
}

impl Stamp {
    /// Writes the stamp over the last [`STAMP_LEN`] bytes of `body`, which must be that long, and sums up all of it.
    pub(crate) fn seal(&self, body: &mut [u8]) {
        let Some(at) = body.len().checked_sub(STAMP_LEN) else { return };
        let content = match self.content {
            Content::Audio => 0_u8,
            Content::Video => 1,
            Content::KeyframeStart => 2,
        };
        let (before, stamp) = body.split_at_mut(at);
        stamp[..4].copy_from_slice(&MAGIC);
        stamp[4..8].copy_from_slice(&self.stream.to_be_bytes());
        stamp[8..12].copy_from_slice(&self.epoch.to_be_bytes());
        stamp[12] = content;
        stamp[13..21].copy_from_slice(&self.counter.to_be_bytes());
        stamp[21..29].copy_from_slice(&self.sent.to_be_bytes());
        let FramePart { layer, picture, reference, inter_layer, packets } = self.part;
        let refers = u8::from(reference.is_some()) << 6 | u8::from(inter_layer) << 7;
        stamp[29] = layer.encoding & 3 | (layer.spatial & 3) << 2 | (layer.temporal & 3) << 4 | refers;
        stamp[30..34].copy_from_slice(&picture.to_be_bytes());
        stamp[34..38].copy_from_slice(&reference.unwrap_or_default().to_be_bytes());
        stamp[38..40].copy_from_slice(&packets.to_be_bytes());
        let checksum = checksum(before, &stamp[..STAMP_LEN - CHECKSUM_LEN]);
        stamp[40..].copy_from_slice(&checksum.to_be_bytes());
    }

    /// Reads the stamp at the end of `body` and verifies the checksum.
    ///
    /// # Errors
    /// See [`Broken`].
    pub(crate) fn open(body: &[u8]) -> Result<Stamp, Broken> {
        let (before, stamp) = body.split_last_chunk::<STAMP_LEN>().ok_or(Broken::Foreign)?;
        if stamp[..4] != MAGIC {
            return Err(Broken::Foreign);
        }
        let (summed, sum) = stamp.split_at(STAMP_LEN - CHECKSUM_LEN);
        if checksum(before, summed).to_be_bytes() != sum {
            return Err(Broken::Checksum);
        }
        Ok(Stamp {
            stream: u32::from_be_bytes(part(stamp, 4)),
            epoch: u32::from_be_bytes(part(stamp, 8)),
            content: match stamp[12] {
                0 => Content::Audio,
                1 => Content::Video,
                _ => Content::KeyframeStart,
            },
            part: FramePart {
                layer: LayerId { encoding: stamp[29] & 3, spatial: stamp[29] >> 2 & 3, temporal: stamp[29] >> 4 & 3 },
                picture: u32::from_be_bytes(part(stamp, 30)),
                reference: (stamp[29] & 0x40 != 0).then(|| u32::from_be_bytes(part(stamp, 34))),
                inter_layer: stamp[29] & 0x80 != 0,
                packets: u16::from_be_bytes(part(stamp, 38)),
            },
            counter: u64::from_be_bytes(part(stamp, 13)),
            sent: u64::from_be_bytes(part(stamp, 21)),
        })
    }
}

/// The number of a stream in its stamps.
pub(crate) fn stream_number(name: &str) -> u32 {
    crc32fast::hash(name.as_bytes())
}

fn part<const N: usize>(stamp: &[u8; STAMP_LEN], at: usize) -> [u8; N] {
    std::array::from_fn(|index| stamp[at + index])
}

fn checksum(before: &[u8], stamp: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(before);
    hasher.update(stamp);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp {
        stream: 7,
        epoch: 9,
        content: Content::KeyframeStart,
        part: FramePart {
            layer: LayerId { encoding: 2, spatial: 1, temporal: 3 },
            picture: 1 << 30,
            reference: Some(7),
            inter_layer: true,
            packets: 300,
        },
        counter: 1 << 40,
        sent: 123_456,
    };

    #[test]
    fn a_stamp_is_read_back() {
        for len in [STAMP_LEN, STAMP_LEN + 1, 1200] {
            let mut body = vec![0xa5; len];
            STAMP.seal(&mut body);
            assert_eq!(Stamp::open(&body), Ok(STAMP));
        }
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let mut body = vec![0x5a; 100];
        STAMP.seal(&mut body);
        for bit in 0..body.len() * 8 {
            let mut altered = body.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert!(Stamp::open(&altered).is_err(), "bit {bit}");
        }
        assert_eq!(Stamp::open(&body[..99]), Err(Broken::Foreign));
        assert_eq!(Stamp::open(&body[..10]), Err(Broken::Foreign));
        assert_eq!(Stamp::open(&[]), Err(Broken::Foreign));
    }
}
