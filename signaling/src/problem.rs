//! What goes wrong, as problem+json (RFC 9457). One enum names every kind; status and title hang on the kind alone.

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;

/// The kinds of problems.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Slug {
    /// Malformed HTTP input.
    BadRequest,
    /// The offer does not parse.
    SdpSyntax,
    /// The trickle fragment does not parse.
    SdpfragSyntax,
    /// No body where one is needed.
    EmptyBody,
    /// No token, or none that is known.
    Unauthorized,
    /// The token is of another stream.
    Forbidden,
    /// No such endpoint, session or stream.
    NotFound,
    /// The resource does not know this method.
    MethodNotAllowed,
    /// The body did not come in time.
    RequestTimeout,
    /// Another publisher holds the stream.
    PublishConflict,
    /// A known stream without publisher.
    StreamNotLive,
    /// If-Match names no current ICE session.
    PreconditionFailed,
    /// The body is over its limit.
    BodyTooLarge,
    /// Wrong Content-Type.
    UnsupportedMediaType,
    /// The offer parses but cannot be served.
    SdpSemantics,
    /// A section's direction does not fit the endpoint.
    SdpDirection,
    /// Several live sections without BUNDLE, or a group that contradicts itself.
    SdpBundle,
    /// A live section without rtcp-mux.
    SdpRtcpMux,
    /// Tracks of more than one MediaStream.
    SdpMultipleStreams,
    /// Two sections of one kind.
    SdpDuplicateKind,
    /// No codec in common.
    SdpNoCommonCodec,
    /// An unusable `a=setup`.
    SdpSetup,
    /// No usable fingerprint.
    SdpFingerprint,
    /// ICE credentials missing or outside their lengths.
    SdpIceCredentials,
    /// The fragment asks for an ICE restart, which this server does not do.
    RestartUnsupported,
    /// If-Match is needed and missing.
    PreconditionRequired,
    /// A bug.
    Internal,
    /// No room for another session, or the server is about to stop.
    Overloaded,
}

impl Slug {
    /// All of them.
    pub const ALL: [Slug; 28] = [
        Slug::BadRequest,
        Slug::SdpSyntax,
        Slug::SdpfragSyntax,
        Slug::EmptyBody,
        Slug::Unauthorized,
        Slug::Forbidden,
        Slug::NotFound,
        Slug::MethodNotAllowed,
        Slug::RequestTimeout,
        Slug::PublishConflict,
        Slug::StreamNotLive,
        Slug::PreconditionFailed,
        Slug::BodyTooLarge,
        Slug::UnsupportedMediaType,
        Slug::SdpSemantics,
        Slug::SdpDirection,
        Slug::SdpBundle,
        Slug::SdpRtcpMux,
        Slug::SdpMultipleStreams,
        Slug::SdpDuplicateKind,
        Slug::SdpNoCommonCodec,
        Slug::SdpSetup,
        Slug::SdpFingerprint,
        Slug::SdpIceCredentials,
        Slug::RestartUnsupported,
        Slug::PreconditionRequired,
        Slug::Internal,
        Slug::Overloaded,
    ];

    /// The `code` member, and the last part of `type`.
    pub fn as_str(self) -> &'static str {
        self.row().0
    }

    /// The status of the reply.
    pub fn status(self) -> StatusCode {
        self.row().1
    }

    /// The `title` member.
    pub fn title(self) -> &'static str {
        self.row().2
    }

    fn row(self) -> (&'static str, StatusCode, &'static str) {
        use StatusCode as S;
        match self {
            Slug::BadRequest => ("bad-request", S::BAD_REQUEST, "Malformed request"),
            Slug::SdpSyntax => ("sdp-syntax", S::BAD_REQUEST, "The SDP does not parse"),
            Slug::SdpfragSyntax => ("sdpfrag-syntax", S::BAD_REQUEST, "The trickle fragment does not parse"),
            Slug::EmptyBody => ("empty-body", S::BAD_REQUEST, "The request has no body"),
            Slug::Unauthorized => ("unauthorized", S::UNAUTHORIZED, "A valid token is needed"),
            Slug::Forbidden => ("forbidden", S::FORBIDDEN, "The token is of another stream"),
            Slug::NotFound => ("not-found", S::NOT_FOUND, "No such resource"),
            Slug::MethodNotAllowed => {
                ("method-not-allowed", S::METHOD_NOT_ALLOWED, "The resource does not know this method")
            }
            Slug::RequestTimeout => ("request-timeout", S::REQUEST_TIMEOUT, "The body did not come in time"),
            Slug::PublishConflict => ("publish-conflict", S::CONFLICT, "Another publisher holds the stream"),
            Slug::StreamNotLive => ("stream-not-live", S::CONFLICT, "The stream has no publisher now"),
            Slug::PreconditionFailed => {
                ("precondition-failed", S::PRECONDITION_FAILED, "If-Match does not name the current ICE session")
            }
            Slug::BodyTooLarge => ("body-too-large", S::PAYLOAD_TOO_LARGE, "The body is too large"),
            Slug::UnsupportedMediaType => {
                ("unsupported-media-type", S::UNSUPPORTED_MEDIA_TYPE, "The Content-Type is not supported here")
            }
            Slug::SdpSemantics => ("sdp-semantics", S::UNPROCESSABLE_ENTITY, "The offer cannot be served"),
            Slug::SdpDirection => ("sdp-direction", S::UNPROCESSABLE_ENTITY, "A direction does not fit the endpoint"),
            Slug::SdpBundle => ("sdp-bundle", S::UNPROCESSABLE_ENTITY, "The offer must bundle its media"),
            Slug::SdpRtcpMux => ("sdp-rtcp-mux", S::UNPROCESSABLE_ENTITY, "The offer must multiplex RTP and RTCP"),
            Slug::SdpMultipleStreams => {
                ("sdp-multiple-streams", S::UNPROCESSABLE_ENTITY, "The offer holds more than one MediaStream")
            }
            Slug::SdpDuplicateKind => {
                ("sdp-duplicate-kind", S::UNPROCESSABLE_ENTITY, "The offer holds two sections of one kind")
            }
            Slug::SdpNoCommonCodec => ("sdp-no-common-codec", S::UNPROCESSABLE_ENTITY, "No codec in common"),
            Slug::SdpSetup => ("sdp-setup", S::UNPROCESSABLE_ENTITY, "The offered DTLS role cannot be served"),
            Slug::SdpFingerprint => ("sdp-fingerprint", S::UNPROCESSABLE_ENTITY, "The offer has no usable fingerprint"),
            Slug::SdpIceCredentials => {
                ("sdp-ice-credentials", S::UNPROCESSABLE_ENTITY, "The offer has no usable ICE credentials")
            }
            Slug::RestartUnsupported => {
                ("restart-unsupported", S::UNPROCESSABLE_ENTITY, "ICE restart is not supported")
            }
            Slug::PreconditionRequired => {
                ("precondition-required", S::PRECONDITION_REQUIRED, "If-Match is needed for this request")
            }
            Slug::Internal => ("internal", S::INTERNAL_SERVER_ERROR, "The server failed"),
            Slug::Overloaded => ("overloaded", S::SERVICE_UNAVAILABLE, "No room for another session"),
        }
    }

    /// The stage to which the fault belongs.
    fn stage(self) -> &'static str {
        match self {
            Slug::SdpSyntax
            | Slug::SdpSemantics
            | Slug::SdpDirection
            | Slug::SdpBundle
            | Slug::SdpRtcpMux
            | Slug::SdpMultipleStreams
            | Slug::SdpDuplicateKind
            | Slug::SdpNoCommonCodec
            | Slug::SdpSetup
            | Slug::SdpFingerprint
            | Slug::SdpIceCredentials => "sdp",
            Slug::SdpfragSyntax | Slug::RestartUnsupported | Slug::PreconditionFailed | Slug::PreconditionRequired => {
                "ice"
            }
            _ => "http",
        }
    }
}

/// One failed request.
#[derive(Clone, Debug)]
pub struct Problem {
    /// The kind.
    pub slug: Slug,
    /// The facts of the case: line number, field, limit. Never a token, key or foreign address.
    pub detail: String,
    /// Headers that belong to this problem, such as `Allow` or `Retry-After`.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

#[derive(Serialize)]
struct Body<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    instance: &'a str,
    code: &'static str,
    stage: &'static str,
    /// The detail once more: a widely copied player reads this member.
    error: &'a str,
}

impl Problem {
    /// A problem without headers of its own.
    pub fn new(slug: Slug, detail: impl Into<String>) -> Problem {
        Problem { slug, detail: detail.into(), headers: Vec::new() }
    }

    /// 405 with the methods that are allowed (RFC 9110 §15.5.6).
    pub fn method_not_allowed(allow: &'static str) -> Problem {
        Problem::new(Slug::MethodNotAllowed, format!("allowed: {allow}")).with(ALLOW, HeaderValue::from_static(allow))
    }

    /// Adds `Retry-After` in whole seconds, at least 1 (ERR-06).
    #[must_use]
    pub fn retry_after(self, seconds: u64) -> Problem {
        self.with(RETRY_AFTER, HeaderValue::from(seconds.max(1)))
    }

    /// Adds `WWW-Authenticate: Bearer` with its error code, if any (RFC 6750 §3).
    #[must_use]
    pub fn challenge(self, error: Option<&'static str>) -> Problem {
        let value = match error {
            None => HeaderValue::from_static("Bearer realm=\"sluice\""),
            Some("insufficient_scope") => {
                HeaderValue::from_static("Bearer realm=\"sluice\", error=\"insufficient_scope\"")
            }
            Some(_) => HeaderValue::from_static("Bearer realm=\"sluice\", error=\"invalid_token\""),
        };
        self.with(WWW_AUTHENTICATE, value)
    }

    /// Adds a header.
    #[must_use]
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Problem {
        self.headers.push((name, value));
        self
    }

    /// The reply. `base` is the start of `type`; `instance` the path of the request or the id of the case.
    pub fn into_response(self, base: Option<&str>, instance: &str) -> axum::response::Response {
        let Problem { slug, detail, headers } = self;
        let body = Body {
            r#type: match base {
                Some(base) => format!("{}/problems/{}", base.trim_end_matches('/'), slug.as_str()),
                None => "about:blank".to_owned(),
            },
            title: slug.title(),
            status: slug.status().as_u16(),
            detail: &detail,
            instance,
            code: slug.as_str(),
            stage: slug.stage(),
            error: &detail,
        };
        // A struct of strings and a number always serialises.
        let body = serde_json::to_vec(&body).unwrap_or_default();
        let mut response = axum::response::Response::new(axum::body::Body::from(body));
        *response.status_mut() = slug.status();
        let own = [
            (CONTENT_TYPE, HeaderValue::from_static("application/problem+json")),
            (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        ];
        response.headers_mut().extend(headers.into_iter().chain(own));
        response
    }
}

impl From<openssl::error::ErrorStack> for Problem {
    fn from(error: openssl::error::ErrorStack) -> Problem {
        tracing::error!(%error, "the random generator failed");
        Problem::new(Slug::Internal, "the random generator failed")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    // ERR-02
    #[test]
    fn every_kind_has_its_own_code_and_an_error_status() {
        let codes: HashSet<_> = Slug::ALL.iter().map(|slug| slug.as_str()).collect();
        assert_eq!(codes.len(), Slug::ALL.len());
        for (index, slug) in Slug::ALL.iter().enumerate() {
            assert_eq!(*slug as usize, index);
            assert!(slug.status().is_client_error() || slug.status().is_server_error());
            assert!(!slug.title().is_empty());
        }
    }

    // ERR-06
    #[test]
    fn retry_after_is_never_below_a_second() {
        let problem = Problem::new(Slug::Overloaded, "").retry_after(0);
        assert_eq!(problem.headers, [(RETRY_AFTER, HeaderValue::from_static("1"))]);
    }
}
