//! What offers and answers say of a section's packets.

/// Payload types of the offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadTypes {
    /// Media.
    pub media: u8,
    /// Its RTX; audio has none.
    pub rtx: Option<u8>,
}

/// The SSRCs of a section that sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ssrcs {
    /// Media.
    pub media: u32,
    /// RTX.
    pub rtx: u32,
}
