//! What goes wrong, as problem+json (RFC 9457). One enum names every kind; status and title hang on the kind alone.

use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use strum::{EnumString, IntoStaticStr, VariantArray};

use crate::limits::RETRY_AFTER_SECONDS;

/// The kinds of problems.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EnumString, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub enum Slug {
    /// Malformed HTTP input.
    BadRequest,
    /// The offer does not parse.
    SdpSyntax,
    /// The trickle fragment does not parse.
    SdpfragSyntax,
    /// The body is no JSON, or JSON of another shape.
    JsonSyntax,
    /// A kind of event that is not to be had.
    UnknownEvent,
    /// The video has no such layer, or the section is none of video.
    UnknownLayer,
    /// No body where one is needed.
    EmptyBody,
    /// No token, or none that is known.
    Unauthorized,
    /// The token is of another stream.
    Forbidden,
    /// A page of another origin, which may not use this server.
    CrossOrigin,
    /// Addressed to a name that is not this server's.
    HostNotAllowed,
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
    /// A fragment came before the answer to the server's own offer.
    AnswerMissing,
    /// The server's own offer has another answer.
    AlreadyAnswered,
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
    /// A codec parameter whose value does not parse.
    SdpBadParameter,
    /// An unusable `a=setup`.
    SdpSetup,
    /// No usable fingerprint.
    SdpFingerprint,
    /// ICE credentials missing or outside their lengths.
    SdpIceCredentials,
    /// Candidates by PATCH are switched off.
    TrickleUnsupported,
    /// ICE restarts are switched off.
    RestartUnsupported,
    /// If-Match is needed and missing.
    PreconditionRequired,
    /// Requests come faster than they may.
    TooManyRequests,
    /// The client's address, or its token, has as many sessions as it may.
    TooManySessions,
    /// Too many unknown tokens came from the client's address.
    TooManyFailures,
    /// The configuration that was to be read again is wrong.
    InvalidConfiguration,
    /// A bug.
    Internal,
    /// The token cannot be judged now.
    AccessUnavailable,
    /// No room for another session, or the server is about to stop.
    Overloaded,
    /// A part of the server does not live, or just panicked.
    PartFailed,
}

impl Slug {
    /// The `code` member, and the last part of `type`.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// The status of the reply.
    pub fn status(self) -> StatusCode {
        self.row().0
    }

    /// The `title` member.
    pub fn title(self) -> &'static str {
        self.row().1
    }

    fn row(self) -> (StatusCode, &'static str) {
        use StatusCode as S;
        match self {
            Slug::BadRequest => (S::BAD_REQUEST, "Malformed request"),
            Slug::SdpSyntax => (S::BAD_REQUEST, "The SDP does not parse"),
            Slug::SdpfragSyntax => (S::BAD_REQUEST, "The trickle fragment does not parse"),
            Slug::JsonSyntax => (S::BAD_REQUEST, "The JSON is not what is needed"),
            Slug::UnknownEvent => (S::BAD_REQUEST, "There are no such events"),
            Slug::UnknownLayer => (S::UNPROCESSABLE_ENTITY, "There is no such layer"),
            Slug::EmptyBody => (S::BAD_REQUEST, "The request has no body"),
            Slug::Unauthorized => (S::UNAUTHORIZED, "A valid token is needed"),
            Slug::Forbidden => (S::FORBIDDEN, "The token is of another stream"),
            Slug::CrossOrigin => (S::FORBIDDEN, "Pages of other origins may not use this server"),
            Slug::HostNotAllowed => (S::FORBIDDEN, "The server does not go by this name"),
            Slug::NotFound => (S::NOT_FOUND, "No such resource"),
            Slug::MethodNotAllowed => (S::METHOD_NOT_ALLOWED, "The resource does not know this method"),
            Slug::RequestTimeout => (S::REQUEST_TIMEOUT, "The body did not come in time"),
            Slug::PublishConflict => (S::CONFLICT, "Another publisher holds the stream"),
            Slug::StreamNotLive => (S::CONFLICT, "The stream has no publisher now"),
            Slug::AnswerMissing => (S::CONFLICT, "The session waits for an answer"),
            Slug::AlreadyAnswered => (S::CONFLICT, "The session has an answer"),
            Slug::PreconditionFailed => (S::PRECONDITION_FAILED, "If-Match does not name the current ICE session"),
            Slug::BodyTooLarge => (S::PAYLOAD_TOO_LARGE, "The body is too large"),
            Slug::UnsupportedMediaType => (S::UNSUPPORTED_MEDIA_TYPE, "The Content-Type is not supported here"),
            Slug::SdpSemantics => (S::UNPROCESSABLE_ENTITY, "The offer cannot be served"),
            Slug::SdpDirection => (S::UNPROCESSABLE_ENTITY, "A direction does not fit the endpoint"),
            Slug::SdpBundle => (S::UNPROCESSABLE_ENTITY, "The offer must bundle its media"),
            Slug::SdpRtcpMux => (S::UNPROCESSABLE_ENTITY, "The offer must multiplex RTP and RTCP"),
            Slug::SdpMultipleStreams => (S::UNPROCESSABLE_ENTITY, "The offer holds more than one MediaStream"),
            Slug::SdpDuplicateKind => (S::UNPROCESSABLE_ENTITY, "The offer holds two sections of one kind"),
            Slug::SdpNoCommonCodec => (S::UNPROCESSABLE_ENTITY, "No codec in common"),
            Slug::SdpBadParameter => (S::UNPROCESSABLE_ENTITY, "A codec parameter does not parse"),
            Slug::SdpSetup => (S::UNPROCESSABLE_ENTITY, "The offered DTLS role cannot be served"),
            Slug::SdpFingerprint => (S::UNPROCESSABLE_ENTITY, "The offer has no usable fingerprint"),
            Slug::SdpIceCredentials => (S::UNPROCESSABLE_ENTITY, "No usable ICE credentials"),
            Slug::TrickleUnsupported => (S::UNPROCESSABLE_ENTITY, "Candidates are not taken by PATCH"),
            Slug::RestartUnsupported => (S::UNPROCESSABLE_ENTITY, "ICE restarts are not served"),
            Slug::PreconditionRequired => (S::PRECONDITION_REQUIRED, "If-Match is needed for this request"),
            Slug::TooManyRequests => (S::TOO_MANY_REQUESTS, "Requests come too fast"),
            Slug::TooManySessions => (S::TOO_MANY_REQUESTS, "The client has as many sessions as it may"),
            Slug::TooManyFailures => (S::TOO_MANY_REQUESTS, "Too many unknown tokens"),
            Slug::InvalidConfiguration => (S::UNPROCESSABLE_ENTITY, "The configuration is wrong"),
            Slug::Internal => (S::INTERNAL_SERVER_ERROR, "The server failed"),
            Slug::AccessUnavailable => (S::SERVICE_UNAVAILABLE, "The token cannot be judged now"),
            Slug::Overloaded => (S::SERVICE_UNAVAILABLE, "No room for another session"),
            Slug::PartFailed => (S::SERVICE_UNAVAILABLE, "A part of the server failed"),
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
            | Slug::SdpBadParameter
            | Slug::SdpSetup
            | Slug::SdpFingerprint
            | Slug::SdpIceCredentials
            | Slug::AnswerMissing
            | Slug::AlreadyAnswered => "sdp",
            Slug::SdpfragSyntax
            | Slug::TrickleUnsupported
            | Slug::RestartUnsupported
            | Slug::PreconditionFailed
            | Slug::PreconditionRequired => "ice",
            _ => "http",
        }
    }
}

/// One failed request. As a reply it is a problem document that lacks what only the router knows; see
/// [`Problem::complete`].
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
struct Document<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<&'a str>,
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

    /// A problem that passes, with `Retry-After` (ERR-06).
    pub fn retry_later(slug: Slug, detail: impl Into<String>) -> Problem {
        Problem::new(slug, detail).retry_after(RETRY_AFTER_SECONDS)
    }

    /// A problem that is over after `wait`, which `detail` is told in whole seconds, as `Retry-After` says it.
    pub(crate) fn retry_in(slug: Slug, wait: Duration, detail: impl FnOnce(u64) -> String) -> Problem {
        // Rounded up: who comes back then is not too early.
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        Problem::new(slug, detail(seconds)).retry_after(seconds)
    }

    /// Adds `Retry-After` (RFC 9110 §10.2.3).
    #[must_use]
    fn retry_after(self, seconds: u64) -> Problem {
        self.with(RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// 404 of a path that no route knows.
    pub(crate) fn no_such_resource() -> Problem {
        Problem::new(Slug::NotFound, "no such resource")
    }

    /// 404 of a session that was there.
    pub(crate) fn session_over() -> Problem {
        Problem::new(Slug::NotFound, "the session is over")
    }

    /// 404 of an event stream that was there, or never was.
    pub(crate) fn no_such_events() -> Problem {
        Problem::new(Slug::NotFound, "no such event stream")
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

    /// Gives a problem's reply what only the router knows, and returns the problem; `None` for other replies. `base` is the
    /// start of the `type` member, `instance` the path of the request.
    pub fn complete(response: &mut Response, base: Option<&str>, instance: &str) -> Option<Problem> {
        let problem = response.extensions_mut().remove::<Problem>()?;
        response.headers_mut().remove(CONTENT_LENGTH);
        *response.body_mut() = problem.document(base, Some(instance));
        Some(problem)
    }

    fn document(&self, base: Option<&str>, instance: Option<&str>) -> Body {
        let Problem { slug, detail, .. } = self;
        let document = Document {
            r#type: match base {
                Some(base) => format!("{}/problems/{}", base.trim_end_matches('/'), slug.as_str()),
                None => "about:blank".to_owned(),
            },
            title: slug.title(),
            status: slug.status().as_u16(),
            detail,
            instance,
            code: slug.as_str(),
            stage: slug.stage(),
            error: detail,
        };
        // A struct of strings and a number always serialises.
        Body::from(serde_json::to_vec(&document).unwrap_or_default())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(self.document(None, None));
        *response.status_mut() = self.slug.status();
        let own = [
            (CONTENT_TYPE, HeaderValue::from_static("application/problem+json")),
            (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        ];
        response.headers_mut().extend(self.headers.iter().cloned().chain(own));
        response.extensions_mut().insert(self);
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
        let codes: HashSet<_> = Slug::VARIANTS.iter().map(|slug| slug.as_str()).collect();
        assert_eq!(codes.len(), Slug::VARIANTS.len());
        for slug in Slug::VARIANTS {
            assert_eq!(slug.as_str().parse(), Ok(*slug));
            assert!(slug.status().is_client_error() || slug.status().is_server_error());
            assert!(!slug.title().is_empty());
        }
    }

    // ERR-06
    #[test]
    fn a_problem_that_passes_says_when_to_come_back() {
        let problem = Problem::retry_later(Slug::Overloaded, "");
        assert_eq!(problem.headers, [(RETRY_AFTER, HeaderValue::from_static("5"))]);
    }
}
