//! SDP offer/answer (RFC 3264, RFC 8866, RFC 9429) for one bundled transport.
//!
//! [`lines`] checks shape and size and names the line at fault; the `sdp` crate parses; [`offer`] gives the attributes
//! their meaning; [`negotiate`] decides, [`payload_types`] whether packets can be told apart, [`reach`] which formats reach whom,
//! [`simulcast`] which encodings are received; [`answer`] writes. [`counter_offer`] is the offer that Sluice makes itself.

pub(crate) mod answer;
pub(crate) mod counter_offer;
mod formats;
pub(crate) mod lines;
pub(crate) mod negotiate;
pub(crate) mod offer;
mod payload_types;
mod reach;
pub(crate) mod simulcast;

use crate::problem::{Problem, Slug};

/// Why an offer cannot be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SdpError {
    pub(crate) slug: Slug,
    pub(crate) detail: String,
}

impl SdpError {
    pub(crate) fn new(slug: Slug, detail: impl Into<String>) -> SdpError {
        SdpError { slug, detail: detail.into() }
    }

    pub(crate) fn syntax(line: usize, what: &str) -> SdpError {
        SdpError::new(Slug::SdpSyntax, format!("line {line}: {what}"))
    }
}

impl From<SdpError> for Problem {
    fn from(error: SdpError) -> Problem {
        Problem::new(error.slug, error.detail)
    }
}
