//! Explicit congestion notification: the two bits of the IP header by which a router says that its queue grows, before it has
//! to drop anything (RFC 3168 §5, RFC 9331 §4.1).

/// The ECN field of a datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Ecn {
    /// The sender does not take part.
    #[default]
    NotEct = 0,
    /// ECN-capable, and asks for the treatment of L4S (RFC 9331 §4.1).
    Ect1 = 1,
    /// ECN-capable, as RFC 3168 has it.
    Ect0 = 2,
    /// Congestion experienced: a router marked it.
    Ce = 3,
}

impl Ecn {
    /// From the lower two bits of a byte, as in the traffic class of the IP header.
    #[inline]
    pub const fn from_bits(byte: u8) -> Ecn {
        match byte & 3 {
            0 => Ecn::NotEct,
            1 => Ecn::Ect1,
            2 => Ecn::Ect0,
            _ => Ecn::Ce,
        }
    }

    /// The two bits.
    #[inline]
    pub const fn bits(self) -> u8 {
        self as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_is_the_lower_two_bits_of_the_traffic_class() {
        for byte in 0..=255 {
            assert_eq!(Ecn::from_bits(byte).bits(), byte & 3);
        }
    }
}
