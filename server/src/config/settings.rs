//! The list of settings. Each stands here once, and is a flag, an environment variable and a TOML key.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use media_core::{CoreConfig, IceMode};
use serde::{Deserialize, Serialize};
use signaling::{Limits, SignalingConfig};

use super::http_values::{AdminListen, AdminToken, HostName, OptionalListen, ProxyPrefix};
use super::ice_servers::{HiddenText, IceServer};
use super::public_host::PublicHost;
use super::values::{
    self, AccessToken, Away, BaseUrl, Grace, Ice, LogFilter, LogFormat, Origin, Seconds, ServiceUrl, Takeover,
};
use super::whep_values::{CodePoint, Redirect, RedirectCode, UnknownStatus};

/// What is fixed about one setting, for help texts, errors and the reference file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SettingInfo {
    /// The TOML key; the flag is the same with dashes.
    pub key: &'static str,
    /// The environment variable.
    pub env: &'static str,
    /// Group of the setting in help texts and in the reference file.
    pub heading: &'static str,
    /// What a value may look like.
    pub allowed: &'static str,
    /// What the setting does.
    pub help: &'static str,
}

impl SettingInfo {
    /// The command-line flag with its dashes.
    pub fn flag(&self) -> String {
        format!("--{}", self.key.replace('_', "-"))
    }
}

/// A reload applies a setting unless [`NEED_RESTART`](crate::reload::NEED_RESTART) has it.
///
/// Writes the three faces of the settings from one list: [`Layer`] (what one source said), [`Settings`] (what counts) and
/// [`SETTINGS`] (what people read).
macro_rules! settings {
    ($( $heading:literal {
        $( $(#[doc = $doc:literal])+
           $key:ident: $type:ty = $default:expr, $env:literal, $name:literal, $allowed:literal $(, $arg:ident = $value:expr)*; )+
    } )+) => {
        /// What one source of configuration said: flags, environment or file. Unset settings are `None`.
        #[derive(Clone, Debug, Default, clap::Args, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct Layer {
            $($(
                $(#[doc = $doc])+
                #[arg(long, env = $env, hide_env_values = true, help_heading = $heading, value_name = $name $(, $arg = $value)*)]
                #[serde(deserialize_with = "values::lenient")]
                pub $key: Option<$type>,
            )+)+
        }

        /// All settings, each with the value that counts.
        #[derive(Clone, Debug, PartialEq, Serialize)]
        pub struct Settings {
            $($( $(#[doc = $doc])+ pub $key: $type, )+)+
        }

        impl Default for Settings {
            fn default() -> Settings {
                Settings { $($( $key: $default, )+)+ }
            }
        }

        impl Settings {
            /// Lets a layer override what it sets, and calls `overridden` with each key that it set.
            pub fn apply(&mut self, layer: Layer, mut overridden: impl FnMut(&'static str)) {
                $($( if let Some(value) = layer.$key { self.$key = value; overridden(stringify!($key)); } )+)+
            }

            /// The keys whose values differ.
            pub fn changed(&self, other: &Settings) -> Vec<&'static str> {
                let mut keys = Vec::new();
                $($( if self.$key != other.$key { keys.push(stringify!($key)); } )+)+
                keys
            }

            /// Takes the values of these keys over.
            pub fn keep(&mut self, other: &Settings, keys: &[&str]) {
                $($( if keys.contains(&stringify!($key)) { self.$key = other.$key.clone(); } )+)+
            }
        }

        /// All settings in the order of the reference file.
        pub const SETTINGS: &[SettingInfo] = &[
            $($( SettingInfo {
                key: stringify!($key), env: $env, heading: $heading, allowed: $allowed, help: concat!($($doc),+),
            }, )+)+
        ];
    };
}

settings! {
    "HTTP" {
        /// Address of the public listener: WHIP, WHEP and the pages, over HTTP or, with a certificate, over HTTPS.
        http_listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 8080)), "SLUICE_HTTP_LISTEN", "ADDR:PORT",
            "an address and a port, such as 127.0.0.1:8080, 0.0.0.0:8080 or [::]:8080";
        /// Address of the operator's HTTP listener: metrics, health and the admin API. Keep it private. As a Unix socket, its
        /// owner and group may connect.
        admin_listen: AdminListen = AdminListen::Tcp(SocketAddr::from(([127, 0, 0, 1], 8081))),
            "SLUICE_ADMIN_LISTEN", "ADDR:PORT|unix:PATH",
            "an address and a port, such as 127.0.0.1:8081, or unix:/run/sluice/admin.sock";
        /// Bearer token of the admin listener; `/healthz` and `/readyz` take none. Unset: whoever reaches it may use it.
        admin_token: AdminToken = AdminToken::default(), "SLUICE_ADMIN_TOKEN", "TOKEN",
            "16 or more letters, digits and -._~+/=, or nothing";
        /// File that has nothing but the admin listener's token.
        admin_token_file: PathBuf = PathBuf::new(), "SLUICE_ADMIN_TOKEN_FILE", "FILE",
            "the path of a readable file, or nothing";
        /// Names under which the admin listener is reached, beside IP addresses and localhost. Requests for others are refused:
        /// they may be a web page's that let a name of its own lead here. Repeatable.
        admin_hosts: Vec<HostName> = Vec::new(), "SLUICE_ADMIN_HOSTS", "NAME",
            "host names without port, such as sluice.internal", value_delimiter = ',';
        /// Base of the absolute session URLs in `Location`, where a proxy stands in front. Unset: an absolute path.
        public_url: BaseUrl = BaseUrl::default(), "SLUICE_PUBLIC_URL", "URL",
            "an http or https URL without query, such as https://live.example.org, or nothing";
        /// Names under which the public listener is reached, beside IP addresses, localhost and those of `public_url` and `acme_domain`; requests
        /// for others are refused. Unset: any name, but only those where it listens on loopback and nobody needs a token.
        http_hosts: Vec<HostName> = Vec::new(), "SLUICE_HTTP_HOSTS", "NAME",
            "host names without port, such as live.example.org", value_delimiter = ',';
        /// Web origins whose pages may use WHIP and WHEP here. Repeatable. Unset: all where tokens say who may, else the server's
        /// own pages and those of `public_url`.
        cors_origins: Vec<Origin> = Vec::new(), "SLUICE_CORS_ORIGINS", "ORIGIN",
            "* or origins, such as https://app.example.org", value_delimiter = ',';
        /// Proxies in front, by address or prefix, whose `X-Forwarded-For` (or else `Forwarded`) says whose a request is, and
        /// whose connections have no bound of their own. Repeatable. Unset: each peer is the client.
        trusted_proxies: Vec<ProxyPrefix> = Vec::new(), "SLUICE_TRUSTED_PROXIES", "IP[/LENGTH]",
            "addresses or prefixes, such as 10.0.0.7 or 10.0.0.0/8", value_delimiter = ',';
        /// TCP connections of each listener at a time. Beyond it the one that has been quiet for the longest time is closed.
        max_connections: usize = 8192, "SLUICE_MAX_CONNECTIONS", "N",
            "1 or more";
        /// Of them from one IPv4 address or one /64 of IPv6. 500 viewers behind one NAT may hold four each, as browsers do.
        max_connections_per_address: usize = 2048, "SLUICE_MAX_CONNECTIONS_PER_ADDRESS", "N",
            "1 or more; those of trusted_proxies do not count";
    }
    "HTTPS" {
        /// Certificate of the public listener, which then speaks HTTPS: a PEM file with the server's own certificate and those
        /// that lead to its root. Read again on a reload.
        tls_cert: PathBuf = PathBuf::new(), "SLUICE_TLS_CERT", "FILE",
            "the path of a readable PEM file, or nothing";
        /// The private key of that certificate, a PEM file without password.
        tls_key: PathBuf = PathBuf::new(), "SLUICE_TLS_KEY", "FILE",
            "the path of a readable PEM file, or nothing";
        /// HTTPS with a certificate that is made at the start, for all names and addresses of this machine. Browsers warn of it;
        /// the log has its fingerprint to compare.
        tls_self_signed: bool = false, "SLUICE_TLS_SELF_SIGNED", "true|false",
            "true or false", num_args = 0..=1, default_missing_value = "true", require_equals = true;
        /// For a try-out in one's own network: as `http_listen = "0.0.0.0:8443"` and `tls_self_signed = true`, and as
        /// `open = true` where nothing says who may. A setting that is given stays as given.
        lan: bool = false, "SLUICE_LAN", "true|false",
            "true or false", num_args = 0..=1, default_missing_value = "true", require_equals = true;
        /// Address of a further listener without TLS, which sends every request to HTTPS (308). The HTTPS port itself does so
        /// anyway.
        http_redirect: OptionalListen = OptionalListen::default(), "SLUICE_HTTP_REDIRECT", "ADDR:PORT",
            "an address and a port, such as 0.0.0.0:80 or [::]:80, or nothing";
        /// For so many seconds browsers are told to use nothing but HTTPS for this name (RFC 6797). 0: they are told nothing.
        hsts: u64 = 0, "SLUICE_HSTS", "SECONDS",
            "a number of seconds, such as 31536000 for a year, or 0";
        /// HTTPS with a certificate for these names that is obtained and renewed by ACME, from Let's Encrypt unless
        /// `acme_directory` names another authority, to whose terms of service this agrees. Port 443 of the names has to lead to
        /// the public listener. Repeatable.
        acme_domain: Vec<HostName> = Vec::new(), "SLUICE_ACME_DOMAIN", "NAME",
            "host names without port, such as live.example.org", value_delimiter = ',';
        /// Folder that keeps the account and the certificate of ACME over restarts.
        acme_state: PathBuf = PathBuf::new(), "SLUICE_ACME_STATE", "FOLDER",
            "the path of a folder that the server may write, or nothing";
        /// Directory of the certificate authority.
        acme_directory: ServiceUrl = ServiceUrl::default(), "SLUICE_ACME_DIRECTORY", "URL",
            "an https URL, such as https://ca.example.org/acme/directory, or nothing for Let's Encrypt";
        /// From Let's Encrypt's test server: its certificates are trusted by nobody, and its limits are wide.
        acme_staging: bool = false, "SLUICE_ACME_STAGING", "true|false",
            "true or false", num_args = 0..=1, default_missing_value = "true", require_equals = true;
    }
    "Access" {
        /// Access token: `stream=token` to publish and to watch a stream; `publish:stream=token` or `watch:stream=token` for one
        /// of the two; `*` for all streams, `live-*` for those that begin so. `name@` in front names the holder. The token may
        /// stand as `sha256:` and its digest (`sluice hash-token`). Repeatable.
        token: Vec<AccessToken> = Vec::new(), "SLUICE_TOKEN", "STREAM=TOKEN",
            "[NAME@][publish:|watch:]STREAM=TOKEN; a token has letters, digits and -._~+/=", value_delimiter = ',';
        /// File of access tokens, one a line as for `token`; empty lines and lines that begin with # are skipped.
        token_file: PathBuf = PathBuf::new(), "SLUICE_TOKEN_FILE", "FILE",
            "the path of a readable file, or nothing";
        /// File with the keys of JSON Web Tokens: public keys as PEM (RSA, EC on P-256, Ed25519), a JWK set, or a secret of 32
        /// bytes or more for HS256. A token needs the claims `stream` or `streams`, and `action`: docs/operating.md.
        jwt_key_file: PathBuf = PathBuf::new(), "SLUICE_JWT_KEY_FILE", "FILE",
            "the path of a readable file, or nothing";
        /// Where the public keys of JSON Web Tokens are fetched as a JWK set, every 5 minutes and when a token names a new one.
        jwt_jwks_url: ServiceUrl = ServiceUrl::default(), "SLUICE_JWT_JWKS_URL", "URL",
            "an http or https URL, such as https://id.example.org/.well-known/jwks.json, or nothing";
        /// While that URL does not answer, its last keys stay valid for this long.
        jwt_keys_keep: Seconds = Seconds(Duration::from_secs(12 * 3600)), "SLUICE_JWT_KEYS_KEEP", "TIME",
            "a time above 0 and up to 24 h, such as 12h";
        /// Accepted issuers (`iss`) of JSON Web Tokens. Repeatable. Unset: any.
        jwt_issuer: Vec<String> = Vec::new(), "SLUICE_JWT_ISSUER", "ISSUER",
            "issuers as they stand in the tokens, or none", value_delimiter = ',';
        /// Accepted audiences (`aud`) of JSON Web Tokens. Repeatable. Unset: tokens with an audience are refused.
        jwt_audience: Vec<String> = Vec::new(), "SLUICE_JWT_AUDIENCE", "AUDIENCE",
            "audiences as they stand in the tokens, or none", value_delimiter = ',';
        /// JSON Web Tokens without an expiry (`exp`) are refused.
        jwt_require_exp: bool = true, "SLUICE_JWT_REQUIRE_EXP", "true|false",
            "true or false", num_args = 0..=1, default_missing_value = "true", require_equals = true;
        /// Service that is asked by POST who may do what, where neither tokens nor JSON Web Tokens say: docs/operating.md.
        webhook_url: ServiceUrl = ServiceUrl::default(), "SLUICE_WEBHOOK_URL", "URL",
            "an http or https URL, such as http://127.0.0.1:9000/access, or nothing";
        /// File with the secret that signs what the webhook is sent, as Standard Webhooks has it.
        webhook_secret_file: PathBuf = PathBuf::new(), "SLUICE_WEBHOOK_SECRET_FILE", "FILE",
            "the path of a readable file with whsec_ and Base64, or with 24 bytes or more, or nothing";
        /// For the webhook's answer; a client waits for it.
        webhook_timeout: Seconds = Seconds(Duration::from_secs(3)), "SLUICE_WEBHOOK_TIMEOUT", "TIME",
            "a time above 0 and up to 24 h, such as 3s";
        /// A right that the webhook gave is given again for this long without asking.
        webhook_cache: Seconds = Seconds(Duration::from_secs(30)), "SLUICE_WEBHOOK_CACHE", "TIME",
            "a time above 0 and up to 24 h, such as 30s";
        /// While the webhook does not answer: `deny` gives POST 503, `cached` gives rights again that it gave within the last hour.
        webhook_away: Away = Away::default(), "SLUICE_WEBHOOK_AWAY", "deny|cached",
            "deny or cached";
        /// Viewers need a token too, not only publishers.
        protect_viewers: bool = false, "SLUICE_PROTECT_VIEWERS", "true|false",
            "true or false", num_args = 0..=1, default_missing_value = "true", require_equals = true;
        /// Unknown tokens of one IPv4 address or /64 of IPv6 that are forgiven in a minute; beyond three minutes' worth it gets
        /// 429. Tokens that were good from there still pass. 0: they are not counted.
        auth_failures: usize = SignalingConfig::default().auth_failures, "SLUICE_AUTH_FAILURES", "N",
            "0 or more";
        /// A session ends when the right expires that it was opened by, as by the `exp` of a JWT.
        enforce_expiry: bool = SignalingConfig::default().enforce_expiry, "SLUICE_ENFORCE_EXPIRY", "true|false",
            "true or false", num_args = 0..=1, default_missing_value = "true", require_equals = true;
        /// On a reload sessions end whose rights the new settings do not give.
        end_revoked: bool = SignalingConfig::default().end_revoked, "SLUICE_END_REVOKED", "true|false",
            "true or false", num_args = 0..=1, default_missing_value = "true", require_equals = true;
        /// A token may stand in the URL, as `?access_token=TOKEN` or `?token=TOKEN`, for clients that send no headers. Proxies and
        /// other software on the way may log it.
        url_tokens: bool = SignalingConfig::default().url_tokens, "SLUICE_URL_TOKENS", "true|false",
            "true or false", num_args = 0..=1, default_missing_value = "true", require_equals = true;
        /// The unguessable URL of a session suffices to change and to end it. Off: PATCH, DELETE and POST to it need the token as
        /// well, which client libraries of before 2024 do not send.
        session_url_suffices: bool = SignalingConfig::default().session_url_suffices, "SLUICE_SESSION_URL_SUFFICES", "true|false",
            "true or false", num_args = 0..=1, default_missing_value = "true", require_equals = true;
        /// Serve everybody without any token, even on an address that others can reach.
        open: bool = false, "SLUICE_OPEN", "true|false",
            "true or false", num_args = 0..=1, default_missing_value = "true", require_equals = true;
    }
    "Signalling" {
        /// PATCH takes candidates that the client finds after its offer. Off: 422, and answers do not offer it; clients whose offer
        /// has no candidates still connect.
        trickle: bool = SignalingConfig::default().trickle, "SLUICE_TRICKLE", "true|false",
            "true or false", num_args = 0..=1, default_missing_value = "true", require_equals = true;
        /// PATCH restarts ICE, so that a client that changes its network keeps its session. Off: 422; with `trickle` off as well 405.
        ice_restart: bool = SignalingConfig::default().ice_restart, "SLUICE_ICE_RESTART", "true|false",
            "true or false", num_args = 0..=1, default_missing_value = "true", require_equals = true;
        /// Accept a trickle PATCH without If-Match, as client libraries before 2024 send it.
        lenient_if_match: bool = SignalingConfig::default().lenient_if_match, "SLUICE_LENIENT_IF_MATCH", "true|false",
            "true or false", num_args = 0..=1, default_missing_value = "true", require_equals = true;
        /// Streams that another node serves: POST is sent to the same path under URL, by 307. `watch:` or `publish:` in front is for
        /// one of the two; STREAM may be `*` or end in `*`; the first rule that fits counts. Repeatable.
        redirect: Vec<Redirect> = Vec::new(), "SLUICE_REDIRECT", "STREAM=URL",
            "[publish:|watch:]STREAM=URL, such as watch:live-*=https://edge.example.org", value_delimiter = ',';
        /// The status of a redirect; clients may keep the target of a 308 and come here no more.
        redirect_status: RedirectCode = RedirectCode::default(), "SLUICE_REDIRECT_STATUS", "307|308",
            "307 or 308";
        /// The target of a redirect has the client's token as `?access_token=`: browsers send no Authorization header to
        /// another origin that they are led to. The node needs `url_tokens`, and its URL should be https.
        redirect_with_token: bool = false, "SLUICE_REDIRECT_WITH_TOKEN", "true|false",
            "true or false", num_args = 0..=1, default_missing_value = "true", require_equals = true;
        /// Answers say `a=rtcp-mux-only`, as RFC 9725 demands it and RFC 8858 forbids it; clients ignore it.
        answer_rtcp_mux_only: bool = SignalingConfig::default().answer_rtcp_mux_only, "SLUICE_ANSWER_RTCP_MUX_ONLY", "true|false",
            "true or false", num_args = 0..=1, default_missing_value = "true", require_equals = true;
        /// A viewer of a stream without publisher gets 409. Off: it is answered with every codec that both sides know, and waits
        /// for `publisher_wait`.
        require_live: bool = SignalingConfig::default().require_live, "SLUICE_REQUIRE_LIVE", "true|false",
            "true or false", num_args = 0..=1, default_missing_value = "true", require_equals = true;
        /// The Retry-After of that 409.
        not_live_retry: Seconds = Seconds(SignalingConfig::default().not_live_retry), "SLUICE_NOT_LIVE_RETRY", "TIME",
            "a time above 0 and up to 24 h, such as 5s";
        /// What a viewer gets of a stream that nobody has published: `404`, or `409` as of one whose publisher is away.
        unknown_stream_status: UnknownStatus = UnknownStatus::default(), "SLUICE_UNKNOWN_STREAM_STATUS", "404|409",
            "404 or 409";
        /// A viewer's offer with two sections of one kind gets 422. Off: the second one is rejected, and the first one plays.
        strict_sections: bool = SignalingConfig::default().strict_sections, "SLUICE_STRICT_SECTIONS", "true|false",
            "true or false", num_args = 0..=1, default_missing_value = "true", require_equals = true;
        /// A viewer's offer that cannot be served gets 406 with an offer of the server's own, which the client answers by PATCH
        /// (WHEP §4.3.2). Off: 422; most players take 406 for an error.
        counter_offer: bool = SignalingConfig::default().counter_offer, "SLUICE_COUNTER_OFFER", "true|false",
            "true or false", num_args = 0..=1, default_missing_value = "true", require_equals = true;
        /// Such an offer waits for its answer for this long.
        counter_offer_timeout: Seconds = Seconds(SignalingConfig::default().counter_offer_timeout),
            "SLUICE_COUNTER_OFFER_TIMEOUT", "TIME",
            "a time above 0 and up to 24 h, such as 30s";
        /// Viewers are told by `Link` where they get events of their stream and choose its layers (WHEP's core extensions).
        whep_extensions: bool = SignalingConfig::default().whep_extensions, "SLUICE_WHEP_EXTENSIONS", "true|false",
            "true or false", num_args = 0..=1, default_missing_value = "true", require_equals = true;
        /// Public URL of the node that takes the viewers over when this one stops: with a `drain_timeout` of 10 s or more they are
        /// asked to go there. Unset: to open another session where they opened this one, as behind a load balancer.
        reconnect_url: BaseUrl = BaseUrl::default(), "SLUICE_RECONNECT_URL", "URL",
            "an http or https URL without query, such as https://b.example.org, or nothing";
        /// DELETE of a session that ended by itself gets 200 for this long.
        tombstone: Seconds = Seconds(SignalingConfig::default().tombstone), "SLUICE_TOMBSTONE", "TIME",
            "a time above 0 and up to 10 min, such as 60s";
        /// When a publisher's session gives way to a new POST with the same token, or by anybody where no token is needed:
        /// `silent` once nothing came from it for 2.5 s, `never` before it has ended, `always` at once.
        publish_takeover: Takeover = Takeover::default(), "SLUICE_PUBLISH_TAKEOVER", "silent|never|always",
            "silent, never or always";
        /// Stream names may have `/` between their parts, as in /whip/live/cam1.
        slash_names: bool = SignalingConfig::default().slash_names, "SLUICE_SLASH_NAMES", "true|false",
            "true or false", num_args = 0..=1, default_missing_value = "true", require_equals = true;
    }
    "ICE servers" {
        /// STUN or TURN server that clients are told of by a Link header (RFC 9725 §4.6), for those that a firewall lets nowhere
        /// else. Repeatable.
        ice_server: Vec<IceServer> = Vec::new(), "SLUICE_ICE_SERVER", "URL",
            "stun:HOST[:PORT], turn:HOST[:PORT][?transport=udp|tcp], and stuns: and turns: likewise", value_delimiter = ',';
        /// Secret that the TURN servers share (coturn: static-auth-secret): each session gets credentials of its own, which
        /// expire. Whoever may open a session gets them.
        turn_secret: HiddenText = HiddenText::default(), "SLUICE_TURN_SECRET", "SECRET",
            "16 or more characters, or nothing";
        /// File that has nothing but that secret.
        turn_secret_file: PathBuf = PathBuf::new(), "SLUICE_TURN_SECRET_FILE", "FILE",
            "the path of a readable file, or nothing";
        /// Credentials made of the secret are good for this long; TURN servers may ask for good ones as long as a session lasts.
        turn_lifetime: Seconds = Seconds(Duration::from_secs(12 * 3600)), "SLUICE_TURN_LIFETIME", "TIME",
            "a time above 0 and up to 24 h, such as 12h";
        /// Name of the one user that the TURN servers know, where they share no secret.
        turn_username: String = String::new(), "SLUICE_TURN_USERNAME", "NAME",
            "printable ASCII without commas, or nothing";
        /// Password of that user. Whoever may open a session is told it.
        turn_credential: HiddenText = HiddenText::default(), "SLUICE_TURN_CREDENTIAL", "PASSWORD",
            "printable ASCII without commas, or nothing";
        /// File that has nothing but that password.
        turn_credential_file: PathBuf = PathBuf::new(), "SLUICE_TURN_CREDENTIAL_FILE", "FILE",
            "the path of a readable file, or nothing";
    }
    "Limits" {
        /// Live sessions at most, publishers and viewers together; beyond it POST gets 503.
        max_sessions: usize = Limits::default().max_sessions, "SLUICE_MAX_SESSIONS", "N",
            "1 or more";
        /// Percent of max_sessions kept for publishers and for holders of tokens; of it one half for publishers alone.
        reserved_percent: usize = Limits::default().reserved_percent, "SLUICE_RESERVED_PERCENT", "N",
            "0 to 100";
        /// Live sessions of one IPv4 address or one /64 of IPv6 at most; beyond it POST gets 429.
        max_sessions_per_address: usize = Limits::default().max_sessions_per_address, "SLUICE_MAX_SESSIONS_PER_ADDRESS", "N",
            "0 for no limit, or 1 and more";
        /// Live sessions by one token at most.
        max_sessions_per_token: usize = Limits::default().max_sessions_per_token, "SLUICE_MAX_SESSIONS_PER_TOKEN", "N",
            "0 for no limit, or 1 and more";
        /// Viewers of one stream at most; beyond it POST gets 503.
        max_viewers_per_stream: usize = Limits::default().max_viewers_per_stream, "SLUICE_MAX_VIEWERS_PER_STREAM", "N",
            "0 for no limit, or 1 and more";
        /// Streams with a publisher at most; beyond it POST gets 503.
        max_streams: usize = Limits::default().max_streams, "SLUICE_MAX_STREAMS", "N",
            "0 for no limit, or 1 and more";
        /// Of them from one IPv4 address or one /64 of IPv6; beyond it POST gets 429.
        max_streams_per_address: usize = Limits::default().max_streams_per_address, "SLUICE_MAX_STREAMS_PER_ADDRESS", "N",
            "0 for no limit, or 1 and more";
        /// Of them by one token.
        max_streams_per_token: usize = Limits::default().max_streams_per_token, "SLUICE_MAX_STREAMS_PER_TOKEN", "N",
            "0 for no limit, or 1 and more";
        /// Half-open sessions at most: answered, and not yet secured. Beyond it the oldest one gives place.
        max_half_open: usize = Limits::default().max_half_open, "SLUICE_MAX_HALF_OPEN", "N",
            "0 for no limit, or 1 and more";
        /// Of them from one IPv4 address or one /64 of IPv6.
        max_half_open_per_address: usize = Limits::default().max_half_open_per_address, "SLUICE_MAX_HALF_OPEN_PER_ADDRESS", "N",
            "0 for no limit, or 1 and more";
        /// Of them by one token.
        max_half_open_per_token: usize = Limits::default().max_half_open_per_token, "SLUICE_MAX_HALF_OPEN_PER_TOKEN", "N",
            "0 for no limit, or 1 and more";
        /// Joins a second, of viewers without token, and as many again of publishers and of holders of tokens; beyond it POST
        /// gets 429. Four seconds' worth may come at once.
        join_rate: usize = Limits::default().join_rate, "SLUICE_JOIN_RATE", "N",
            "0 for no limit, or 1 and more";
        /// POSTs a second from one IPv4 address or one /64 of IPv6. Of this and the rates below 20 seconds' worth may come at once.
        post_rate_per_address: usize = Limits::default().post_rate_per_address, "SLUICE_POST_RATE_PER_ADDRESS", "N",
            "0 for no limit, or 1 and more";
        /// POSTs a second by one token.
        post_rate_per_token: usize = Limits::default().post_rate_per_token, "SLUICE_POST_RATE_PER_TOKEN", "N",
            "0 for no limit, or 1 and more";
        /// PATCH, DELETE and POST requests to sessions a second from one IPv4 address or one /64 of IPv6.
        request_rate_per_address: usize = Limits::default().request_rate_per_address, "SLUICE_REQUEST_RATE_PER_ADDRESS", "N",
            "0 for no limit, or 1 and more";
        /// PATCH, DELETE and POST requests a second to one session.
        request_rate_per_session: usize = Limits::default().request_rate_per_session, "SLUICE_REQUEST_RATE_PER_SESSION", "N",
            "0 for no limit, or 1 and more";
        /// Layers of a publisher's simulcast that are received; OBS ends if one of its layers is refused.
        max_layers: usize = SignalingConfig::default().max_layers, "SLUICE_MAX_LAYERS", "N",
            "1 to 4";
    }
    "Media" {
        /// UDP port of the first shard, and its TCP port with `ice_tcp`; shard n listens on this plus n. 0 lets the system choose.
        media_port: u16 = CoreConfig::default().media_port, "SLUICE_MEDIA_PORT", "PORT",
            "0 to 65535; the port of the last shard must not pass 65535";
        /// Local address of the media sockets. `::` serves IPv6 and IPv4, or IPv4 alone where IPv6 is off.
        media_ip: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED), "SLUICE_MEDIA_IP", "IP",
            "an IP address, such as ::, 0.0.0.0 or 192.0.2.10";
        /// Address or host name that clients are told to send media to, the preferred one first. Repeatable. Where ports are
        /// mapped, with the port at which clients reach shard 0; shard n is at this plus n. `auto:stun:HOST`: where that STUN server
        /// sees this machine. Names are looked up, and STUN servers asked, at the start and every 30 s. Unset: the addresses of
        /// this machine's interfaces, without containers and tunnels, as they change.
        public_ip: Vec<PublicHost> = Vec::new(), "SLUICE_PUBLIC_IP", "HOST[:PORT]|auto:stun:HOST[:PORT]",
            "addresses or host names that clients reach, such as 203.0.113.7, 203.0.113.7:31000, [2001:db8::1]:31000 or media.example.org (at most 8), STUN servers, such as auto:stun:stun.example.org or auto:stun:192.0.2.1:3478 (at most 4), or none",
            value_delimiter = ',';
        /// Clients whose network lets no UDP through may send and receive by TCP (RFC 6544), at the numbers of the UDP ports.
        ice_tcp: bool = CoreConfig::default().ice_tcp, "SLUICE_ICE_TCP", "true|false",
            "true or false", num_args = 0..=1, default_missing_value = "true", require_equals = true;
        /// The same on the port of the public HTTP listener, at the addresses of `public_ip`: for networks that let nothing but HTTPS
        /// through. Clients are told the port of `public_url`, else that of `http_listen`. No proxy may stand in front.
        ice_tcp_on_http: bool = false, "SLUICE_ICE_TCP_ON_HTTP", "true|false",
            "true or false", num_args = 0..=1, default_missing_value = "true", require_equals = true;
        /// TCP connections of media at a time, as far as the limit of open files has room: a quarter of it at most.
        max_ice_tcp_connections: usize = CoreConfig::default().tcp_connections, "SLUICE_MAX_ICE_TCP_CONNECTIONS", "N",
            "1 or more";
        /// Shards: threads that forward packets, one UDP port each. 0: one per CPU, at most 4.
        shards: usize = 0, "SLUICE_SHARDS", "N",
            "0 to 256";
        /// Threads that run DTLS handshakes, at nice 10 so that running media comes first. 0: one per two CPUs.
        handshake_threads: usize = 0, "SLUICE_HANDSHAKE_THREADS", "N",
            "0 to 64";
        /// Memory for the packets of all streams since their last keyframes, in MiB; every shard has the same share. A stream of
        /// 2.5 Mbit/s with a keyframe every 2 s takes 1, one of 6 Mbit/s with one every 10 s takes 8, on each shard with viewers.
        cache_memory: u64 = (CoreConfig::default().cache_bytes >> 20) as u64, "SLUICE_CACHE_MEMORY", "MIB",
            "1 to 1048576";
        /// RTP that a publisher may send, in bit/s, retransmissions included. What is beyond is dropped, and the publisher is told.
        /// 0: no limit.
        publisher_bitrate: u64 = SignalingConfig::default().publisher_limits.bits_per_second.unwrap_or(0),
            "SLUICE_PUBLISHER_BITRATE", "BPS",
            "a number of bit/s, such as 50000000, or 0";
        /// RTP packets a second that a publisher may send, likewise. 0: no limit.
        publisher_packet_rate: u64 = SignalingConfig::default().publisher_limits.packets_per_second.unwrap_or(0),
            "SLUICE_PUBLISHER_PACKET_RATE", "N",
            "a number of packets a second, such as 20000, or 0";
        /// RTP that a viewer is sent at most, in bit/s. Of a stream that takes more it gets fewer frames. 0: no limit.
        viewer_bitrate: u64 = 0, "SLUICE_VIEWER_BITRATE", "BPS",
            "a number of bit/s, such as 8000000, or 0";
        /// RTP packets a second that a viewer is sent at most, likewise. 0: no limit.
        viewer_packet_rate: u64 = 0, "SLUICE_VIEWER_PACKET_RATE", "N",
            "a number of packets a second, or 0";
        /// Viewers that give feedback of RFC 8888 (`ack ccfb`) are sent packets as ECT(1), at the rate that their path is believed to
        /// carry, so that routers with L4S (RFC 9330) mark packets instead of letting a queue grow. Where the path wipes the marks
        /// out, or no feedback comes, it is not done.
        l4s: bool = CoreConfig::default().l4s, "SLUICE_L4S", "true|false",
            "true or false", num_args = 0..=1, default_missing_value = "true", require_equals = true;
        /// Differentiated services code point of audio that viewers are sent over UDP, such as EF (RFC 8837). Networks that know
        /// it carry it first; others ignore it, and a few drop it.
        dscp_audio: CodePoint = CodePoint::default(), "SLUICE_DSCP_AUDIO", "DSCP",
            "EF, AF11 to AF43, CS0 to CS7, VA, LE, or 0 to 63";
        /// That of video, such as AF42.
        dscp_video: CodePoint = CodePoint::default(), "SLUICE_DSCP_VIDEO", "DSCP",
            "EF, AF11 to AF43, CS0 to CS7, VA, LE, or 0 to 63";
        /// ICE on the server's side: `lite` answers checks and needs an address that every client reaches; `full` also sends them.
        ice: Ice = Ice(IceMode::Lite), "SLUICE_ICE", "lite|full",
            "lite or full";
        /// With `ice = "full"`: candidates of clients with private or link-local addresses get checks, too, as a LAN needs it. On a
        /// network whose private addresses are other people's machines, switch it off.
        ice_private_candidates: bool = CoreConfig::default().ice_private_candidates, "SLUICE_ICE_PRIVATE_CANDIDATES", "true|false",
            "true or false", num_args = 0..=1, default_missing_value = "true", require_equals = true;
    }
    "Timeouts" {
        /// From the answer to the first valid connectivity check (RFC 8863 wants at least 39.5 s).
        ice_timeout: Seconds = Seconds(CoreConfig::default().ice_timeout), "SLUICE_ICE_TIMEOUT", "TIME",
            "a time above 0 and up to 24 h: seconds, or a number with ms, s, m or h, such as 40s";
        /// From the first valid connectivity check to the end of the DTLS handshake.
        dtls_timeout: Seconds = Seconds(CoreConfig::default().dtls_timeout), "SLUICE_DTLS_TIMEOUT", "TIME",
            "a time above 0 and up to 24 h, such as 30s";
        /// A session from which nothing authenticated came for this long ends (RFC 7675).
        liveness_timeout: Seconds = Seconds(CoreConfig::default().liveness_timeout), "SLUICE_LIVENESS_TIMEOUT", "TIME",
            "a time above 0 and up to 24 h, such as 30s";
        /// Secure, but no RTP for this long: stage `media` fails with `no-media`, or `medium-missing` if only one medium is
        /// missing. The session lives on.
        media_timeout: Seconds = Seconds(CoreConfig::default().media_timeout), "SLUICE_MEDIA_TIMEOUT", "TIME",
            "a time above 0 and up to 24 h, such as 10s";
        /// No more video for this long, or no more audio for twice this long: `media-stopped`.
        media_gap: Seconds = Seconds(CoreConfig::default().media_gap), "SLUICE_MEDIA_GAP", "TIME",
            "a time above 0 and up to 24 h, such as 3s";
        /// RTP, but no keyframe for this long: `no-keyframe`. Longer than the usual 10 s between keyframes.
        keyframe_timeout: Seconds = Seconds(CoreConfig::default().keyframe_timeout), "SLUICE_KEYFRAME_TIMEOUT", "TIME",
            "a time above 0 and up to 24 h, such as 12s";
        /// A viewer of a stream without publisher is kept this long.
        publisher_wait: Seconds = Seconds(CoreConfig::default().publisher_wait), "SLUICE_PUBLISHER_WAIT", "TIME",
            "a time above 0 and up to 24 h, such as 60s";
        /// After SIGTERM sessions get this long to end by themselves before they are closed; new ones get 503. Once none is left
        /// the server stops, and it takes at most 5 s more than this.
        drain_timeout: Grace = Grace::default(), "SLUICE_DRAIN_TIMEOUT", "TIME",
            "a time up to 24 h, such as 0s or 5m";
        /// At most one keyframe request per stream goes to its publisher in this time.
        keyframe_request_interval: Seconds = Seconds(CoreConfig::default().keyframe_request_interval),
            "SLUICE_KEYFRAME_REQUEST_INTERVAL", "TIME",
            "a time above 0 and up to 24 h, such as 500ms";
    }
    "Log" {
        /// What is logged: a level, or levels by part.
        log: LogFilter = LogFilter::default(), "SLUICE_LOG", "FILTER",
            "error, warn, info, debug, trace or off, or parts with levels, such as info,signaling=debug";
        /// How a log line looks: `human` for people, `json` for machines.
        log_format: LogFormat = LogFormat::Human, "SLUICE_LOG_FORMAT", "human|json",
            "human or json";
    }
}

/// Looks a setting up by its TOML key.
pub fn setting(key: &str) -> Option<&'static SettingInfo> {
    SETTINGS.iter().find(|info| info.key == key)
}

impl Settings {
    /// The settings as TOML values by key; tokens are redacted.
    pub(super) fn to_toml(&self) -> toml::Table {
        // Every field has a TOML form: texts, numbers, switches and lists of them.
        toml::Table::try_from(self).unwrap_or_default()
    }
}

/// A value as people write it: without quotes and brackets.
pub(super) fn plain(value: &toml::Value) -> String {
    match value.to_string().replace(['"', '[', ']'], "") {
        text if text.is_empty() => "none".to_owned(),
        text => text,
    }
}
