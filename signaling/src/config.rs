//! The settings of signalling, with their defaults and the reasons for them.

use media_core::IceMode;

use crate::auth::Tokens;

/// How WHIP and WHEP behave.
#[derive(Clone, Debug)]
pub struct SignalingConfig {
    /// Who may publish, and with `protect_viewers` also who may watch. Without any token everybody may.
    pub tokens: Tokens,
    /// Watching needs the stream's token as well. Default off: a public stream has one publisher and many viewers.
    pub protect_viewers: bool,
    /// ICE implementation of the server's side.
    pub ice_mode: IceMode,
    /// `https://host[:port][/prefix]` in front of `Location` and of the `type` member of problems. Without it `Location` is
    /// an absolute path (WHIP-03), and `type` is `about:blank`.
    pub public_base_url: Option<String>,
    /// Origins whose pages may use the endpoints (CORS). Default any: access is a matter of tokens, not of cookies.
    pub allowed_origins: AllowedOrigins,
    /// Accept a trickle PATCH without If-Match whose credentials are the current ones (TRK-07).
    pub lenient_if_match: bool,
    /// Live sessions at most; beyond it POST gets 503.
    pub max_sessions: usize,
    /// Stream names may have `/` between their parts. Default off: most proxies and players expect one path segment.
    pub slash_names: bool,
}

impl Default for SignalingConfig {
    fn default() -> SignalingConfig {
        SignalingConfig {
            tokens: Tokens::default(),
            protect_viewers: false,
            ice_mode: IceMode::Lite,
            public_base_url: None,
            allowed_origins: AllowedOrigins::Any,
            lenient_if_match: false,
            max_sessions: 20_000,
            slash_names: false,
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
