//! Checks that were received for a session and refused: the evidence of why its ICE does not come about.

use std::fmt;
use std::net::SocketAddr;

use strum::{EnumCount, VariantArray};

use crate::stats::DropReason;

/// Why a check was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumCount, VariantArray)]
pub enum CheckRefusal {
    /// The peer claims the role that is the server's; answered with 487 (RFC 8445 §7.3.1.1).
    RoleConflict,
    /// USERNAME is not the server's and the peer's fragment in this order (RFC 8445 §7.2.2).
    Username,
    /// MESSAGE-INTEGRITY is missing or was made with another password.
    Password,
    /// Attributes that must be understood are unknown; answered with 420 (RFC 8489 §6.3.1.1).
    UnknownAttribute,
    /// It does not parse, or its FINGERPRINT is wrong.
    Malformed,
    /// More than a session may send.
    Rate,
}

impl CheckRefusal {
    /// Under which name the dropped datagram is counted.
    pub(super) fn drop_reason(self) -> DropReason {
        match self {
            CheckRefusal::Malformed | CheckRefusal::UnknownAttribute => DropReason::MalformedStun,
            CheckRefusal::Rate => DropReason::StunRate,
            _ => DropReason::StunIntegrity,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            CheckRefusal::RoleConflict => "claimed the server's role (answered 487)",
            CheckRefusal::Username => "had a wrong USERNAME",
            CheckRefusal::Password => "had no or a wrong MESSAGE-INTEGRITY",
            CheckRefusal::UnknownAttribute => "had unknown mandatory attributes (answered 420)",
            CheckRefusal::Malformed => "were malformed",
            CheckRefusal::Rate => "were more than a session may send",
        }
    }
}

/// The checks of a session that were refused since its last valid one, by cause.
#[derive(Clone, Debug, Default)]
pub struct Refusals {
    counts: [u32; CheckRefusal::COUNT],
    last: Option<SocketAddr>,
}

impl Refusals {
    /// Counts a check from `source`.
    pub fn note(&mut self, refusal: CheckRefusal, source: SocketAddr) {
        let count = &mut self.counts[refusal as usize];
        *count = count.saturating_add(1);
        self.last = Some(source);
    }

    /// A check was valid: what was refused before is no evidence any more.
    pub(super) fn clear(&mut self) {
        *self = Refusals::default();
    }

    /// The most frequent cause; `None` if no check was refused.
    pub fn most_frequent(&self) -> Option<CheckRefusal> {
        let refused = CheckRefusal::VARIANTS.iter().rev().filter(|&&refusal| self.counts[refusal as usize] > 0);
        refused.max_by_key(|&&refusal| self.counts[refusal as usize]).copied()
    }
}

impl fmt::Display for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.counts.iter().fold(0_u32, |sum, &count| sum.saturating_add(count));
        write!(f, "{total} checks were refused")?;
        let causes = CheckRefusal::VARIANTS.iter().zip(self.counts).filter(|&(_, count)| count > 0);
        for (index, (refusal, count)) in causes.enumerate() {
            write!(f, "{} {count} {}", if index == 0 { ":" } else { "," }, refusal.as_str())?;
        }
        match self.last {
            Some(last) => write!(f, "; the last came from {last}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_frequent_cause_counts_and_all_are_named_with_their_numbers() {
        let mut refusals = Refusals::default();
        assert_eq!(refusals.most_frequent(), None);
        let source: SocketAddr = "192.0.2.1:5000".parse().unwrap();
        refusals.note(CheckRefusal::Password, source);
        refusals.note(CheckRefusal::Username, source);
        assert_eq!(refusals.most_frequent(), Some(CheckRefusal::Username), "of equals the plainer one");
        refusals.note(CheckRefusal::Password, "192.0.2.2:6000".parse().unwrap());
        assert_eq!(refusals.most_frequent(), Some(CheckRefusal::Password));
        assert_eq!(
            refusals.to_string(),
            "3 checks were refused: 1 had a wrong USERNAME, 2 had no or a wrong MESSAGE-INTEGRITY; \
             the last came from 192.0.2.2:6000"
        );
        refusals.clear();
        assert_eq!(refusals.most_frequent(), None);
    }
}
