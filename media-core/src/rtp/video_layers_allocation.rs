//! Video layers allocation (webrtc.org video-layers-allocation00): what the sender means to send in every layer of every RTP
//! stream of a track, in the order of its `a=rid` attributes.

use smallvec::SmallVec;

use crate::layers::{MAX_ENCODINGS, MAX_SPATIAL_LAYERS, MAX_TEMPORAL_LAYERS};

/// Why an allocation is not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AllocationError {
    /// It ends too early.
    #[error("the layers allocation is cut")]
    Cut,
    /// A rate above what a stream can have.
    #[error("the layers allocation has a rate beyond all bounds")]
    Rate,
    /// It is sent on a stream that it does not have.
    #[error("the layers allocation is of another stream")]
    Stream,
}

/// A spatial layer that is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllocatedLayer {
    /// RTP stream: the position among the encodings.
    pub encoding: u8,
    /// Spatial layer inside it.
    pub spatial: u8,
    /// Target rate in bit/s by temporal layer, those below included.
    pub bitrates: SmallVec<[u64; MAX_TEMPORAL_LAYERS as usize]>,
    /// Width, height and frames a second at most, if it tells them.
    pub size: Option<(u16, u16, u8)>,
}

/// An allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VideoLayersAllocation {
    /// The RTP stream that it was sent on: the position among the encodings.
    pub encoding: u8,
    /// Number of RTP streams.
    pub encodings: u8,
    /// What is sent; nothing while all layers are off.
    pub layers: SmallVec<[AllocatedLayer; 4]>,
}

impl VideoLayersAllocation {
    /// Reads the data of the extension.
    pub fn parse(data: &[u8]) -> Result<VideoLayersAllocation, AllocationError> {
        // One zero byte: nothing is sent.
        if data == [0] {
            return Ok(VideoLayersAllocation { encoding: 0, encodings: 1, layers: SmallVec::new() });
        }
        read(data)
    }

    /// The layer of an encoding, if it is sent.
    pub fn layer(&self, encoding: u8, spatial: u8) -> Option<&AllocatedLayer> {
        self.layers.iter().find(|layer| layer.encoding == encoding && layer.spatial == spatial)
    }
}

fn read(data: &[u8]) -> Result<VideoLayersAllocation, AllocationError> {
    use AllocationError::{Cut, Stream};
    let (&first, mut rest) = data.split_first().ok_or(Cut)?;
    let (encoding, encodings) = (first >> 6, (first >> 4 & 3) + 1);
    if encoding >= encodings {
        return Err(Stream);
    }
    let masks = spatial_masks(first & 0x0f, encodings, &mut rest).ok_or(Cut)?;
    let mut layers = SmallVec::<[AllocatedLayer; 4]>::new();
    for (encoding, mask) in masks[..usize::from(encodings)].iter().enumerate() {
        for spatial in (0..MAX_SPATIAL_LAYERS).filter(|spatial| mask >> spatial & 1 == 1) {
            layers.push(AllocatedLayer { encoding: encoding as u8, spatial, bitrates: SmallVec::new(), size: None });
        }
    }
    // Two bits a layer, four layers a byte.
    let counts = rest.split_off(..layers.len().div_ceil(4)).ok_or(Cut)?;
    for (index, layer) in layers.iter_mut().enumerate() {
        let temporal_layers = (counts[index / 4] >> (6 - 2 * (index % 4)) & 3) + 1;
        for _ in 0..temporal_layers {
            layer.bitrates.push(rate(&mut rest)?);
        }
    }
    // Sizes are of all layers or of none.
    if !rest.is_empty() {
        for layer in &mut layers {
            let &[w0, w1, h0, h1, frame_rate] = rest.split_off(..5).ok_or(Cut)?.first_chunk().ok_or(Cut)?;
            let side = |bytes| u16::from_be_bytes(bytes).saturating_add(1);
            layer.size = Some((side([w0, w1]), side([h0, h1]), frame_rate));
        }
    }
    Ok(VideoLayersAllocation { encoding, encodings, layers })
}

/// The spatial layers of each RTP stream that are sent: the same of all, or four bits of each.
fn spatial_masks(same: u8, encodings: u8, rest: &mut &[u8]) -> Option<[u8; MAX_ENCODINGS]> {
    if same != 0 {
        return Some([same; MAX_ENCODINGS]);
    }
    let mut masks = [0; MAX_ENCODINGS];
    let bytes = rest.split_off(..usize::from(encodings).div_ceil(2))?;
    for (index, mask) in masks[..usize::from(encodings)].iter_mut().enumerate() {
        *mask = bytes[index / 2] >> (4 - 4 * (index % 2)) & 0x0f;
    }
    Some(masks)
}

/// A rate in kbit/s as LEB128 number, in bit/s.
fn rate(rest: &mut &[u8]) -> Result<u64, AllocationError> {
    let mut value = 0u64;
    for shift in [0, 7, 14, 21, 28] {
        let &byte = rest.split_off_first().ok_or(AllocationError::Cut)?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value * 1000);
        }
    }
    Err(AllocationError::Rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    // EXT-H11: as Chromium sends them.
    #[test]
    fn rates_and_sizes_of_spatial_layers_are_read() {
        let vp9 = bytes("07a83747658b01b5018102a502fd029e0400ef00860c01df010d0c03bf021b0c");
        let allocation = VideoLayersAllocation::parse(&vp9).unwrap();
        assert_eq!((allocation.encoding, allocation.encodings, allocation.layers.len()), (0, 1, 3));
        let top = allocation.layer(0, 2).unwrap();
        assert_eq!((&top.bitrates[..], top.size), (&[293_000, 381_000, 542_000][..], Some((960, 540, 12))));
        assert_eq!(allocation.layer(0, 0).unwrap().bitrates[..], [55_000, 71_000, 101_000]);
        let without = VideoLayersAllocation::parse(&vp9[..17]).unwrap();
        assert_eq!((without.layer(0, 2).unwrap().size, without.layer(0, 3)), (None, None));
    }

    // EXT-H11
    #[test]
    fn rates_and_sizes_of_simulcast_are_read() {
        let allocation = VideoLayersAllocation::parse(&bytes("5150243c4878009f00593c013f00b33c")).unwrap();
        assert_eq!((allocation.encoding, allocation.encodings), (1, 2));
        let (low, high) = (allocation.layer(0, 0).unwrap(), allocation.layer(1, 0).unwrap());
        assert_eq!((&low.bitrates[..], low.size), (&[36_000, 60_000][..], Some((160, 90, 60))));
        assert_eq!((&high.bitrates[..], high.size), (&[72_000, 120_000][..], Some((320, 180, 60))));
        // Masks of their own: three streams, the middle one off.
        let allocation = VideoLayersAllocation::parse(&[0x20, 0x10, 0x30, 0x00, 10, 20, 30]).unwrap();
        let sent: Vec<_> = allocation.layers.iter().map(|layer| (layer.encoding, layer.spatial)).collect();
        assert_eq!(sent, [(0, 0), (2, 0), (2, 1)]);
        assert!(VideoLayersAllocation::parse(&[0]).unwrap().layers.is_empty());
    }

    // EXT-H11
    #[test]
    fn what_is_cut_or_beyond_its_bounds_is_refused() {
        let whole = bytes("5150243c4878009f00593c013f00b33c");
        for end in (0..whole.len()).filter(|&end| end != 6) {
            assert_eq!(VideoLayersAllocation::parse(&whole[..end]), Err(AllocationError::Cut), "{end}");
        }
        assert_eq!(VideoLayersAllocation::parse(&[0x51 | 0x80, 0]), Err(AllocationError::Stream));
        let endless = [0x01, 0, 0x80, 0x80, 0x80, 0x80, 0x80, 0];
        assert_eq!(VideoLayersAllocation::parse(&endless), Err(AllocationError::Rate));
    }
}
