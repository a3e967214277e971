//! Supplemental enhancement information of H.264 (§7.3.2.3) and H.265 (§7.3.5): whether a unit announces a recovery point.

use super::without_emulation_prevention;

/// Payload type of the recovery point message, the same in both (H.264 §D.1.8, H.265 §D.2.8).
const RECOVERY_POINT: u32 = 6;

/// True if one of the messages of an SEI unit, given without its header, is a recovery point.
pub(super) fn has_recovery_point(unit: &[u8]) -> bool {
    let mut bytes = without_emulation_prevention(unit).peekable();
    loop {
        let Some(kind) = number(&mut bytes) else { return false };
        let Some(size) = number(&mut bytes) else { return false };
        if kind == RECOVERY_POINT {
            return true;
        }
        if size > 0 && bytes.nth(size as usize - 1).is_none() {
            return false;
        }
        // The trailing bits, or the end of a fragment.
        if bytes.peek().is_none_or(|&byte| byte == 0x80) {
            return false;
        }
    }
}

/// A number of an SEI header: as many times 255 as there are bytes of 255, and the byte after them.
fn number(bytes: &mut impl Iterator<Item = u8>) -> Option<u32> {
    let mut value = 0u32;
    loop {
        match bytes.next()? {
            0xff => value = value.checked_add(0xff)?,
            last => return value.checked_add(u32::from(last)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // F-03
    #[test]
    fn a_recovery_point_is_found_among_other_messages() {
        assert!(has_recovery_point(&[6, 1, 0xc0, 0x80]));
        assert!(has_recovery_point(&[1, 2, 9, 9, 6, 1, 0xc0, 0x80]));
        assert!(has_recovery_point(&[1, 0, 6, 1, 0xc0]), "an empty message, and no trailing bits");
        assert!(!has_recovery_point(&[5, 3, 6, 1, 0xc0, 0x80]), "in the data of another message");
        assert!(!has_recovery_point(&[1, 1, 6, 0x80]), "the size of the one before");
    }

    // F-03: x264 puts its settings into a long message in front.
    #[test]
    fn sizes_of_several_bytes_and_emulation_prevention_are_read() {
        let mut unit = vec![5, 0xff, 45];
        unit.extend([0x41; 300]);
        unit.extend([6, 1, 0x88, 0x80]);
        assert!(has_recovery_point(&unit));
        // The 3 does not count for the size.
        assert!(has_recovery_point(&[5, 4, 0, 0, 3, 1, 7, 6, 1, 0xc0, 0x80]));
        assert!(!has_recovery_point(&[0xff, 6, 0]), "type 261");
    }

    #[test]
    fn what_is_cut_announces_nothing() {
        for unit in [&[][..], &[6], &[0xff], &[1, 9, 6, 1], &[0xff; 1200], &[1, 0xff, 0xff, 0xff]] {
            assert!(!has_recovery_point(unit), "{unit:x?}");
        }
    }
}
