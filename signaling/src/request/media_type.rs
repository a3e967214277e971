//! The media types of WHIP and WHEP.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::problem::{Problem, Slug};

/// A media type that a resource accepts, and the header that says so.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MediaType {
    pub(crate) name: &'static str,
    accept: &'static str,
}

/// Offers and answers.
pub(crate) const SDP: MediaType = MediaType { name: "application/sdp", accept: "accept-post" };

/// Trickle fragments (RFC 8840 §9).
pub(crate) const SDPFRAG: MediaType = MediaType { name: "application/trickle-ice-sdpfrag", accept: "accept-patch" };

/// What the core extensions of WHEP are asked by.
pub(crate) const JSON: MediaType = MediaType { name: "application/json", accept: "accept-post" };

/// How the draft of the extensions spells it in its examples, which clients copy.
pub(crate) const MISSPELT_JSON: MediaType = MediaType { name: "application/sjon", accept: "accept-post" };

impl MediaType {
    /// `Accept-Post` or `Accept-Patch`.
    pub(crate) fn accept(self) -> (HeaderName, HeaderValue) {
        (HeaderName::from_static(self.accept), HeaderValue::from_static(self.name))
    }

    /// Whether a request is of this media type.
    pub(crate) fn is_of(self, headers: &HeaderMap) -> bool {
        let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        value.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(self.name)
    }

    /// Refuses a request of another media type; case and parameters do not matter (HTTP-06).
    pub(crate) fn demand(self, headers: &HeaderMap) -> Result<(), Problem> {
        if self.is_of(headers) {
            return Ok(());
        }
        let (name, value) = self.accept();
        Err(Problem::new(Slug::UnsupportedMediaType, format!("send {}", self.name)).with(name, value))
    }
}
