//! How long a packet of audio lasts.

use crate::media::Codec;

/// RTP clock of Opus, in ticks a millisecond.
const OPUS: u32 = 48;
/// No Opus packet is longer, in milliseconds (RFC 6716 §3.2.5).
const LONGEST_OPUS: u32 = 120;

/// The duration of a payload in ticks of its RTP clock; `None` where the payload does not tell.
pub fn duration(codec: Codec, payload: &[u8]) -> Option<u32> {
    match codec {
        Codec::Opus => opus(payload),
        // One byte a tick (RFC 3551 §4.5.14, §4.5.2).
        Codec::Pcmu | Codec::Pcma | Codec::G722 => u32::try_from(payload.len()).ok().filter(|&ticks| ticks > 0),
        _ => None,
    }
}

/// By the first byte, of several frames by the second (RFC 6716 §3.1, §3.2).
fn opus(payload: &[u8]) -> Option<u32> {
    let &toc = payload.first()?;
    let config = toc >> 3;
    let frame = match config {
        0..=11 => [10, 20, 40, 60][usize::from(config & 3)] * OPUS,
        12..=15 => [10, 20][usize::from(config & 1)] * OPUS,
        _ => (OPUS * 5 / 2) << (config & 3),
    };
    let frames = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u32::from(payload.get(1)? & 0x3f),
    };
    Some(frame * frames).filter(|ticks| (1..=LONGEST_OPUS * OPUS).contains(ticks))
}

#[cfg(test)]
mod tests {
    use super::*;

    // F-06
    #[test]
    fn the_duration_of_audio_is_read_from_its_payload() {
        for (payload, ms) in [
            (&[0xfc, 1][..], Some(20.0)),
            (&[0x80], Some(2.5)),
            (&[0x18], Some(60.0)),
            (&[0x60], Some(10.0)),
            (&[0x79], Some(40.0)),
            (&[0xfb, 3], Some(60.0)),
            (&[0xfb, 7], None),
            (&[0xfb, 0], None),
            (&[0xfb], None),
            (&[], None),
        ] {
            let ticks = ms.map(|ms: f64| (ms * 48.0) as u32);
            assert_eq!(duration(Codec::Opus, payload), ticks, "{payload:?}");
        }
        assert_eq!((duration(Codec::Pcma, &[0; 160]), duration(Codec::Pcmu, &[])), (Some(160), None));
        assert_eq!(duration(Codec::Red, &[0xfc; 9]), None);
    }
}
