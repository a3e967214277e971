//! Every setting of signalling, with its default and the reason for it.

use std::time::Duration;

use media_core::session::IceMode;

use crate::auth::Tokens;

/// How WHIP and WHEP behave.
#[derive(Clone, Debug)]
pub struct SignalingConfig {
    /// Who may publish, and with `protect_viewers` also who may watch. Without any token everybody may.
    pub tokens: Tokens,
    /// Watching needs the stream's token as well. Default off: a public stream has one publisher and many viewers.
    pub protect_viewers: bool,
    /// A session URL is a secret of 128 random bits and suffices for PATCH and DELETE. Default on: many clients send their
    /// token with the POST only (AUTH-03). A token that is sent all the same must be the right one.
    pub session_url_suffices: bool,
    /// ICE implementation of the server's side.
    pub ice_mode: IceMode,
    /// `https://host[:port][/prefix]` in front of `Location`; without it `Location` is an absolute path (WHIP-03).
    pub public_base_url: Option<String>,
    /// Base of the `type` member of problems; without it `type` is `about:blank`.
    pub problem_base_url: Option<String>,
    /// Origins whose pages may use the endpoints (CORS). Default any: access is a matter of tokens, not of cookies.
    pub allowed_origins: AllowedOrigins,
    /// A viewer of a stream without publisher gets 409 (WHEP-05); off: it gets an answer with the formats last known, if any
    /// are known.
    pub require_live: bool,
    /// `Retry-After` of 409 `stream-not-live`, and of 503, in whole seconds.
    pub retry_after: Duration,
    /// What a viewer of an unknown stream gets (WHEP-06).
    pub unknown_stream: UnknownStream,
    /// Accept a trickle PATCH without If-Match whose credentials are the current ones (TRK-07).
    pub lenient_if_match: bool,
    /// Write `a=rtcp-mux-only` into answers: RFC 9725 §4.4.1 demands it, RFC 8858 §4 forbids it; clients ignore it.
    pub answer_rtcp_mux_only: bool,
    /// Live sessions at most; beyond it POST gets 503.
    pub max_sessions: usize,
    /// Largest offer in bytes.
    pub max_offer: usize,
    /// Largest trickle fragment in bytes.
    pub max_fragment: usize,
    /// A request body must be complete in this time.
    pub body_timeout: Duration,
    /// DELETE on a session that ended by itself gets 200 for this long (WHIP-15).
    pub tombstone: Duration,
    /// Ended sessions stay visible in the admin API for this long.
    pub ended_retention: Duration,
    /// At most this many of them.
    pub max_ended: usize,
    /// A stream without any session is remembered for this long: its number, its formats, and that it is known.
    pub stream_retention: Duration,
    /// At most this many streams without session are remembered.
    pub max_idle_streams: usize,
}

impl Default for SignalingConfig {
    fn default() -> SignalingConfig {
        SignalingConfig {
            tokens: Tokens::default(),
            protect_viewers: false,
            session_url_suffices: true,
            ice_mode: IceMode::Lite,
            public_base_url: None,
            problem_base_url: None,
            allowed_origins: AllowedOrigins::Any,
            require_live: true,
            retry_after: Duration::from_secs(5),
            unknown_stream: UnknownStream::NotFound,
            lenient_if_match: false,
            answer_rtcp_mux_only: true,
            max_sessions: 20_000,
            max_offer: 64 * 1024,
            max_fragment: 16 * 1024,
            body_timeout: Duration::from_secs(10),
            tombstone: Duration::from_secs(60),
            ended_retention: Duration::from_secs(600),
            max_ended: 1000,
            stream_retention: Duration::from_secs(24 * 3600),
            max_idle_streams: 10_000,
        }
    }
}

/// Which origins get CORS headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedOrigins {
    /// `Access-Control-Allow-Origin: *`
    Any,
    /// These, compared exactly; the reply echoes the origin with `Vary: Origin`.
    List(Vec<String>),
}

/// What a viewer gets whose stream nobody has published since the start and no token names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownStream {
    /// 404 `not-found`: deployed players look for it.
    NotFound,
    /// 409 `stream-not-live`, as for a known stream: names cannot be probed.
    NotLive,
}
