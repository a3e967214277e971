//! The settings of signalling, with their defaults and the reasons for them.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use media_core::layers::MAX_ENCODINGS;
use media_core::{CoreConfig, IceMode, SessionLimits};
use strum::{Display, EnumString};

use crate::auth::{JwtConfig, Tokens, WebhookConfig};
use crate::ice_servers::IceServers;
use crate::limits::{Limits, RETRY_AFTER_SECONDS};
use crate::redirect::Redirects;

/// How WHIP and WHEP behave.
#[derive(Clone, Debug)]
pub struct SignalingConfig {
    /// Static tokens: who may publish, and with `protect_viewers` also who may watch. Without any source of rights (tokens,
    /// JWTs, a webhook) everybody may.
    pub tokens: Tokens,
    /// JSON Web Tokens that give rights.
    pub jwt: Option<JwtConfig>,
    /// A service that is asked for rights.
    pub webhook: Option<WebhookConfig>,
    /// Watching needs the stream's token as well. Default off: a public stream has one publisher and many viewers.
    pub protect_viewers: bool,
    /// Unknown tokens of one IPv4 address or /64 of IPv6 that are forgiven in a minute; beyond three minutes' worth POST gets
    /// 429. 0: they are not counted. Default ten: people mistype less, and 14,400 a day find no token.
    pub auth_failures: usize,
    /// A session ends when the right expires that it was opened by. Default off: a token guards the door, and players that
    /// fetch short ones would be cut off in the middle of a show.
    pub enforce_expiry: bool,
    /// When the settings are replaced, sessions end whose rights the new ones do not give. Default off: a reload disturbs no
    /// session.
    pub end_revoked: bool,
    /// A token may stand in the URL (AUTH-02). Default off: URLs end up in logs and histories.
    pub url_tokens: bool,
    /// Whoever knows a session's URL may end it (AUTH-03). Default on: many clients send their token with the POST only.
    pub session_url_suffices: bool,
    /// ICE implementation of the server's side.
    pub ice_mode: IceMode,
    /// `https://host[:port][/prefix]` in front of `Location` and of the `type` member of problems. Without it `Location` is
    /// an absolute path (WHIP-03), and `type` is `about:blank`.
    pub public_base_url: Option<String>,
    /// Origins whose pages may use the endpoints (CORS). Default any: access is a matter of tokens, not of cookies. Where
    /// there are none, [`AllowedOrigins::Own`] keeps the pages out that a visitor of this network happens to open.
    pub allowed_origins: AllowedOrigins,
    /// Names, in lower case and without port, that a request may be addressed to, beside IP addresses and localhost; `None`
    /// where any will do. Names of others may lead here (DNS rebinding).
    pub host_names: Option<Vec<String>>,
    /// Proxies whose word on the client's address counts.
    pub trusted_proxies: Vec<IpNet>,
    /// STUN and TURN servers that clients are told of. Default none: the server has an address of its own.
    pub ice_servers: IceServers,
    /// PATCH takes candidates (WHIP-16). Default on, as RFC 9725 §4.3 recommends it.
    pub trickle: bool,
    /// PATCH restarts ICE (WHIP-17). Default on, as RFC 9725 §4.3 recommends it: a client that changes its network stays.
    pub ice_restart: bool,
    /// Accept a trickle PATCH without If-Match whose credentials are the current ones (TRK-07).
    pub lenient_if_match: bool,
    /// Streams that other nodes serve. Default none.
    pub redirects: Redirects,
    /// Answers say `a=rtcp-mux-only` beside `a=rtcp-mux`. Default on, as RFC 9725 §4.4.1 demands it; RFC 8858 §4 forbids it in
    /// answers, and clients ignore it (WHIP-28).
    pub answer_rtcp_mux_only: bool,
    /// A viewer is refused while its stream has no publisher (WHEP-05). Default on: its player says so, and asks again. Off: it
    /// is answered with every codec that both sides know, and waits connected.
    pub require_live: bool,
    /// When such a viewer is told to ask again. Default 5 s: long enough to matter, short enough to be back soon.
    pub not_live_retry: Duration,
    /// What a viewer is told of a stream that nobody has published (WHEP-06).
    pub unknown_stream: UnknownStream,
    /// A viewer's second section of one kind is an error (WHEP-03). Default off: it is rejected, and the first one plays.
    pub strict_sections: bool,
    /// A viewer's offer that cannot be served gets 406 with one of the server's own (WHEP-07). Default off: players that are
    /// deployed take it for an error.
    pub counter_offer: bool,
    /// For how long such an offer waits for its answer. Default 30 s: people may have to allow something meanwhile.
    pub counter_offer_timeout: Duration,
    /// Viewers are told where they get events of their stream and choose its layers (the core extensions of WHEP). Default on: clients
    /// that do not know them take no notice.
    pub whep_extensions: bool,
    /// The public URL of the node that takes the viewers over, without a slash at its end, where this one is about to stop. `None`: they
    /// are to ask again where they asked first.
    pub reconnect_url: Option<String>,
    /// For how long DELETE on a session that ended by itself gets 200 (WHIP-15). Default a minute: a client that notices the end
    /// late still cleans up without an error.
    pub tombstone: Duration,
    /// How many and how fast.
    pub limits: Limits,
    /// Stream names may have `/` between their parts. Default off: most proxies and players expect one path segment.
    pub slash_names: bool,
    /// When a publisher's own earlier session gives way to its next POST.
    pub publish_takeover: PublishTakeover,
    /// Encodings of a publisher's simulcast that are received, from 1 to [`MAX_ENCODINGS`]. Default all of those: a client may end
    /// if one is refused (OBS does).
    pub max_layers: usize,
    /// What a publisher may send. Default 50 Mbit/s and 20,000 packets a second: 4K at 60 frames a second takes some 35 Mbit/s,
    /// and a link of 1 Gbit/s carries the viewers of few such streams.
    pub publisher_limits: SessionLimits,
    /// What a viewer is sent at most. Default no limit: it gets what the publisher sends, and what its path carries.
    pub viewer_limits: SessionLimits,
    /// The media core's `ice_timeout`, for a `Retry-After` that is true.
    pub ice_timeout: Duration,
    /// The media core's `liveness_timeout`, likewise.
    pub liveness_timeout: Duration,
}

/// When a publisher's session gives way to another POST of the same identity: the same token, or anybody where publishing
/// needs none. One that never saw a valid connectivity check always does (WHIP-32); that of another token never does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Display, EnumString)]
#[strum(serialize_all = "lowercase")]
pub enum PublishTakeover {
    /// Once nothing came from it for [`media_core::PUBLISHER_SILENCE`]: its network is gone.
    #[default]
    Silent,
    /// Not before it has ended.
    Never,
    /// At once, even while it sends.
    Always,
}

/// What a viewer is told of a stream that nobody has published as far as is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Display, EnumString)]
pub enum UnknownStream {
    /// 404: deployed players look for it.
    #[default]
    #[strum(serialize = "404")]
    NotFound,
    /// What it is told of one whose publisher is away: 409, or it may wait.
    #[strum(serialize = "409")]
    NotLive,
}

impl SignalingConfig {
    /// Whether PATCH takes fragments for anything.
    pub(crate) fn takes_fragments(&self) -> bool {
        self.trickle || self.ice_restart
    }

    /// Whether an address is that of a trusted proxy.
    pub fn is_trusted_proxy(&self, ip: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|prefix| prefix.contains(&ip))
    }
}

impl Default for SignalingConfig {
    fn default() -> SignalingConfig {
        SignalingConfig {
            tokens: Tokens::default(),
            jwt: None,
            webhook: None,
            protect_viewers: false,
            auth_failures: 10,
            enforce_expiry: false,
            end_revoked: false,
            url_tokens: false,
            session_url_suffices: true,
            ice_mode: IceMode::Lite,
            public_base_url: None,
            allowed_origins: AllowedOrigins::Any,
            host_names: None,
            trusted_proxies: Vec::new(),
            ice_servers: IceServers::default(),
            trickle: true,
            ice_restart: true,
            lenient_if_match: false,
            redirects: Redirects::default(),
            answer_rtcp_mux_only: true,
            require_live: true,
            not_live_retry: Duration::from_secs(RETRY_AFTER_SECONDS),
            unknown_stream: UnknownStream::default(),
            strict_sections: false,
            counter_offer: false,
            counter_offer_timeout: Duration::from_secs(30),
            whep_extensions: true,
            reconnect_url: None,
            tombstone: Duration::from_secs(60),
            limits: Limits::default(),
            slash_names: false,
            publish_takeover: PublishTakeover::default(),
            max_layers: MAX_ENCODINGS,
            publisher_limits: SessionLimits { bits_per_second: Some(50_000_000), packets_per_second: Some(20_000) },
            viewer_limits: SessionLimits::default(),
            ice_timeout: CoreConfig::default().ice_timeout,
            liveness_timeout: CoreConfig::default().liveness_timeout,
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
    /// The server's own pages, and those of these origins. Others are refused, and can read why.
    Own(Vec<String>),
}
