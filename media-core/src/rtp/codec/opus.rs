//! Opus (RFC 7587): how long a packet plays, from its table-of-contents byte (RFC 6716 §3.1).

/// Duration of a packet in ticks of the 48 kHz RTP clock; `None` if it is empty or claims more than 120 ms.
pub fn duration_ticks(payload: &[u8]) -> Option<u32> {
    let (&toc, rest) = payload.split_first()?;
    let config = toc >> 3;
    let frame = match config {
        // SILK: 10, 20, 40, 60 ms.
        0..=11 => [480, 960, 1920, 2880][usize::from(config & 3)],
        // Hybrid: 10, 20 ms.
        12..=15 => [480, 960][usize::from(config & 1)],
        // CELT: 2.5, 5, 10, 20 ms.
        _ => [120, 240, 480, 960][usize::from(config & 3)],
    };
    let frames = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u32::from(rest.first()? & 0x3f),
    };
    Some(frame * frames).filter(|ticks| (1..=5760).contains(ticks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_follows_the_table_of_contents() {
        // COD-02
        assert_eq!(duration_ticks(&[0x78, 0]), Some(960), "hybrid, 20 ms, as browsers send it");
        assert_eq!(duration_ticks(&[0xfc]), Some(960), "CELT, 20 ms, stereo");
        assert_eq!(duration_ticks(&[0x18]), Some(2880), "SILK, 60 ms");
        assert_eq!(duration_ticks(&[0x80]), Some(120), "CELT, 2.5 ms");
        assert_eq!(duration_ticks(&[0xf9]), Some(1920), "two frames of 20 ms");
        assert_eq!(duration_ticks(&[0xfb, 0x03]), Some(2880), "three frames of 20 ms");
    }

    #[test]
    fn impossible_durations_are_refused() {
        // COD-02
        assert_eq!(duration_ticks(&[]), None);
        assert_eq!(duration_ticks(&[0xfb]), None);
        assert_eq!(duration_ticks(&[0xfb, 0x00]), None);
        assert_eq!(duration_ticks(&[0xfb, 0x07]), None, "140 ms");
    }
}
