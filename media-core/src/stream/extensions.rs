//! The header extension elements of a publisher's packet that are forwarded to viewers, as the cache stores them: under
//! their numbers in [`Extension`] instead of negotiated ids.

use crate::media::{Extension, ExtensionMap};
use crate::rtp::RtpHeader;

/// Extensions that are forwarded to viewers; the others are for this hop alone.
const FORWARDED: [Extension; 5] = [
    Extension::AbsCaptureTime,
    Extension::AudioLevel,
    Extension::VideoOrientation,
    Extension::PlayoutDelay,
    Extension::DependencyDescriptor,
];
/// Bytes of forwarded extension elements; a dependency descriptor with its template structure is the longest.
pub const MAX_EXTENSIONS: usize = 600;

/// Elements as `[Extension as u8, length, bytes…]*`.
pub struct StoredExtensions {
    bytes: [u8; MAX_EXTENSIONS],
    length: usize,
}

impl StoredExtensions {
    /// Those elements of a packet that viewers may get, as far as there is room.
    pub fn of(map: &ExtensionMap, header: &RtpHeader, packet: &[u8]) -> StoredExtensions {
        let mut elements = StoredExtensions { bytes: [0; MAX_EXTENSIONS], length: 0 };
        for (id, data) in header.extensions(packet) {
            if let Some(extension) = map.extension(id)
                && FORWARDED.contains(&extension)
                && is_well_formed(extension, data)
                && !elements.push(extension, data)
            {
                break;
            }
        }
        elements
    }

    /// Adds one; false if it does not fit.
    pub fn push(&mut self, extension: Extension, data: &[u8]) -> bool {
        let end = self.length + 2 + data.len();
        let (Ok(length), Some([number, size, bytes @ ..])) =
            (u8::try_from(data.len()), self.bytes.get_mut(self.length..end))
        else {
            return false;
        };
        (*number, *size) = (extension as u8, length);
        bytes.copy_from_slice(data);
        self.length = end;
        true
    }

    /// The data of the first element of this extension.
    pub fn get(&self, extension: Extension) -> Option<&[u8]> {
        stored_extensions(self.as_bytes()).find(|(found, _)| *found == extension).map(|(_, data)| data)
    }

    /// As the cache stores them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// False for data that no receiver can parse.
fn is_well_formed(extension: Extension, data: &[u8]) -> bool {
    match extension {
        // Without or with the offset of the capture clock.
        Extension::AbsCaptureTime => matches!(data.len(), 8 | 16),
        // A padding byte may follow in the two-byte form (RFC 6464 §3).
        Extension::AudioLevel => matches!(data.len(), 1 | 2),
        Extension::VideoOrientation => data.len() == 1,
        Extension::PlayoutDelay => match *data {
            // Twelve bits each: the least, then the most.
            [a, b, c] => u16::from_be_bytes([a, b]) >> 4 <= u16::from_be_bytes([b, c]) & 0x0fff,
            _ => false,
        },
        _ => true,
    }
}

/// The elements that were stored with a packet, as (extension, data).
pub fn stored_extensions(mut stored: &[u8]) -> impl Iterator<Item = (Extension, &[u8])> + Clone {
    std::iter::from_fn(move || {
        let (&[number, length], rest) = stored.split_first_chunk::<2>()?;
        let (data, rest) = rest.split_at_checked(usize::from(length))?;
        stored = rest;
        Some((*Extension::ALL.get(usize::from(number))?, data))
    })
}
