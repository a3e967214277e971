//! The parameter sets of an H.264 or H.265 stream: those that it sends (RFC 6184 §5.7, RFC 7798 §4.4) and those that its
//! description names (`sprop-parameter-sets`, RFC 6184 §8.1; `sprop-vps` and its kin, RFC 7798 §7.1). The same of an AV1
//! stream: its sequence header.

use super::{av1, h264, h265};
use crate::media::{Codec, Format};
use crate::rtp::compat::Fmtp;

/// Parameter sets that are kept of a stream; encoders have one of each kind.
pub const MAX_UNITS: usize = 8;
/// Bytes of one; they take some tens.
pub const MAX_UNIT_LEN: usize = 1024;

/// In front of a sequence header as a payload of its own: W=1, N=1 (AV1-RTP §4.4).
const AV1_AGGREGATION: u8 = 0x18;

/// The latest parameter sets of a stream, each an RTP payload: a NAL unit with its header, or an OBU. A set replaces the one of its kind and id.
#[derive(Clone, Debug)]
pub struct ParameterSets {
    codec: Codec,
    /// In the order in which a decoder needs them, which is that of their types.
    units: Vec<Unit>,
}

#[derive(Clone, Debug)]
struct Unit {
    kind: u8,
    id: u32,
    bytes: Vec<u8>,
}

impl ParameterSets {
    /// What the format's description names; `None` for codecs without parameter sets.
    pub fn of(format: &Format) -> Option<ParameterSets> {
        let names: &[&str] = match format.codec {
            Codec::H264 => &["sprop-parameter-sets"],
            Codec::H265 => &["sprop-vps", "sprop-sps", "sprop-pps"],
            Codec::Av1 => &[],
            _ => return None,
        };
        let mut sets = ParameterSets { codec: format.codec, units: Vec::new() };
        for text in names.iter().filter_map(|name| Fmtp(&format.fmtp).get(name)).flat_map(|list| list.split(',')) {
            // The end of the last group may be left out.
            let text = text.trim().trim_end_matches('=');
            let padded = format!("{text}{}", &"==="[..(4 - text.len() % 4) % 4]);
            if let Ok(unit) = openssl::base64::decode_block(&padded) {
                sets.take(&unit);
            }
        }
        Some(sets)
    }

    /// Takes the parameter sets of a packet; true if a sequence parameter set, or sequence header, is or begins in it.
    pub fn learn(&mut self, payload: &[u8]) -> bool {
        let mut found = false;
        match self.codec {
            Codec::H264 => {
                found |= h264::begins_fragmented(payload, h264::SPS);
                h264::whole_units(payload).for_each(|unit| found |= self.take(unit));
            }
            Codec::Av1 => {
                found |= av1::begins_fragmented(payload, av1::SEQUENCE_HEADER);
                av1::whole_obus(payload).for_each(|obu| found |= self.take(obu));
            }
            _ => {
                found |= h265::begins_fragmented(payload, h265::SPS);
                h265::whole_units(payload).for_each(|unit| found |= self.take(unit));
            }
        }
        found
    }

    /// The sets, if there is one of each kind that a decoder needs; else nothing.
    pub fn complete(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        let needed: &[u8] = match self.codec {
            Codec::H264 => &[h264::SPS, h264::PPS],
            Codec::Av1 => &[av1::SEQUENCE_HEADER],
            _ => &[h265::VPS, h265::SPS, h265::PPS],
        };
        let complete = needed.iter().all(|kind| self.units.iter().any(|unit| unit.kind == *kind));
        let units = if complete { &self.units[..] } else { &[] };
        units.iter().map(|unit| &unit.bytes[..])
    }

    /// Keeps a unit that is a parameter set; true for a sequence parameter set.
    fn take(&mut self, unit: &[u8]) -> bool {
        let Some((kind, id, is_sequence)) = self.identify(unit) else { return false };
        let front: &[u8] = if self.codec == Codec::Av1 { &[AV1_AGGREGATION] } else { &[] };
        if front.len() + unit.len() > MAX_UNIT_LEN {
            return is_sequence;
        }
        match self.units.binary_search_by_key(&(kind, id), |unit| (unit.kind, unit.id)) {
            Ok(index) => {
                let bytes = &mut self.units[index].bytes;
                bytes.clear();
                bytes.extend_from_slice(front);
                bytes.extend_from_slice(unit);
            }
            Err(index) if self.units.len() < MAX_UNITS => {
                self.units.insert(index, Unit { kind, id, bytes: [front, unit].concat() });
            }
            Err(_) => {}
        }
        is_sequence
    }

    /// Type and id of a parameter set, and whether it is a sequence parameter set.
    fn identify(&self, unit: &[u8]) -> Option<(u8, u32, bool)> {
        match self.codec {
            Codec::H264 => {
                let kind = unit.first()? & 0x1f;
                let id = match kind {
                    // After profile, constraints and level (H.264 §7.3.2.1.1).
                    h264::SPS => exp_golomb(unit.get(4..)?)?,
                    h264::PPS => exp_golomb(unit.get(1..)?)?,
                    _ => return None,
                };
                Some((kind, id, kind == h264::SPS))
            }
            Codec::Av1 => {
                let kind = av1::obu_type(*unit.first()?);
                (kind == av1::SEQUENCE_HEADER).then_some((kind, 0, true))
            }
            _ => {
                let kind = h265::unit_type(*unit.first()?);
                let id = match kind {
                    h265::VPS => u32::from(unit.get(2)? >> 4),
                    // Its id follows a structure of variable length; a stream has one.
                    h265::SPS => 0,
                    h265::PPS => exp_golomb(unit.get(2..)?)?,
                    _ => return None,
                };
                Some((kind, id, kind == h265::SPS))
            }
        }
    }
}

/// The unsigned Exp-Golomb code at the front of `bytes` (H.264 §9.1); `None` beyond 15 bits, which no id has.
fn exp_golomb(bytes: &[u8]) -> Option<u32> {
    let mut word = [0; 4];
    let len = bytes.len().min(4);
    word[..len].copy_from_slice(bytes.get(..len)?);
    let word = u32::from_be_bytes(word);
    let zeros = word.leading_zeros();
    (zeros < 16).then(|| (word >> (31 - 2 * zeros)) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(codec: Codec, fmtp: &str) -> Format {
        Format { fmtp: fmtp.to_owned(), ..Format::new(96, codec) }
    }

    fn complete(sets: &ParameterSets) -> Vec<Vec<u8>> {
        sets.complete().map(<[u8]>::to_vec).collect()
    }

    #[test]
    fn exp_golomb_codes_are_read() {
        for (bytes, value) in [(&[0x80][..], 0), (&[0x40], 1), (&[0x60], 2), (&[0x20], 3), (&[0x00, 0x80, 0x00], 255)] {
            assert_eq!(exp_golomb(bytes), Some(value), "{bytes:x?}");
        }
        assert_eq!(exp_golomb(&[0, 0, 0xff, 0xff]), None);
        assert_eq!(exp_golomb(&[]), None);
    }

    // COD-11
    #[test]
    fn h264_sets_come_from_the_description_and_then_from_the_stream() {
        let fmtp = "packetization-mode=1;sprop-parameter-sets=Z0LAHukDgSgA,aM4BqDUg;profile-level-id=42C01E";
        let mut sets = ParameterSets::of(&format(Codec::H264, fmtp)).unwrap();
        let described = complete(&sets);
        assert_eq!(described.iter().map(|unit| unit[0]).collect::<Vec<_>>(), [0x67, 0x68]);
        // PPS 0 and 1 in one packet, SPS 0 in another, SEI in front.
        assert!(!sets.learn(&[0x78, 0, 2, 0x06, 0x05, 0, 3, 0x68, 0xce, 0x01, 0, 3, 0x68, 0x5e, 0x02]));
        assert!(sets.learn(&[0x67, 0x64, 0, 0x1f, 0xac]));
        let expected = [&[0x67, 0x64, 0, 0x1f, 0xac][..], &[0x68, 0xce, 0x01], &[0x68, 0x5e, 0x02]];
        assert_eq!(complete(&sets), expected);
        assert!(!sets.learn(&[0x65, 0x88]) && !sets.learn(&[]) && !sets.learn(&[0x67]));
        assert!(sets.learn(&[0x7c, 0x87, 0x42]), "an SPS in fragments is one, but is not kept");
        assert_eq!(complete(&sets), expected);
    }

    // COD-11
    #[test]
    fn half_of_what_a_decoder_needs_is_nothing() {
        let mut sets = ParameterSets::of(&format(Codec::H264, "sprop-parameter-sets=%%%,,Z0LAHukDgSgA")).unwrap();
        assert!(complete(&sets).is_empty());
        sets.learn(&[0x68, 0xce]);
        assert_eq!(complete(&sets).len(), 2);
        assert!(ParameterSets::of(&format(Codec::Vp8, "")).is_none());
    }

    // COD-14
    #[test]
    fn h265_needs_three_kinds() {
        let mut sets =
            ParameterSets::of(&format(Codec::H265, "sprop-vps=QAEMAf//AWAAAAMA;sprop-pps=RAHBcrRiQA==")).unwrap();
        assert!(complete(&sets).is_empty());
        // An aggregation packet with an SPS in it.
        assert!(sets.learn(&[96, 1, 0, 4, 33 << 1, 1, 0x01, 0x02, 0, 3, 39 << 1, 1, 0]));
        let kinds: Vec<u8> = sets.complete().map(|unit| unit[0] >> 1).collect();
        assert_eq!(kinds, [32, 33, 34]);
        assert!(sets.learn(&[98, 1, 0x80 | 33, 0]));
    }

    // COD-15, F-03
    #[test]
    fn the_sequence_header_of_av1_is_kept_as_a_payload_of_its_own() {
        let mut sets = ParameterSets::of(&format(Codec::Av1, "profile=0")).unwrap();
        assert!(complete(&sets).is_empty());
        assert!(sets.learn(&[0x28, 3, 0x08, 5, 6, 0x30, 0x10]));
        assert!(!sets.learn(&[0x10, 0x30, 0x30]));
        assert_eq!(complete(&sets), [[0x18, 0x08, 5, 6]]);
        assert!(sets.learn(&[0x50, 0x08, 7]), "one in fragments is one, but is not kept");
        assert_eq!(complete(&sets), [[0x18, 0x08, 5, 6]]);
    }

    // OPS-08
    #[test]
    fn number_and_size_are_bounded() {
        let mut sets = ParameterSets::of(&format(Codec::H264, "")).unwrap();
        for id in 0..=255u8 {
            // Ids 0 to 127 as codes of up to 15 bits.
            let code = (u16::from(id & 0x7f) + 1) << (15 - 2 * (u16::from(id & 0x7f) + 1).ilog2());
            let [high, low] = code.to_be_bytes();
            sets.learn(&[0x68, high, low]);
        }
        assert_eq!(sets.units.len(), MAX_UNITS);
        sets.learn(&[&[0x67, 0x42, 0, 0x1e, 0x80][..], &[1; MAX_UNIT_LEN]].concat());
        assert!(complete(&sets).is_empty());
    }
}
