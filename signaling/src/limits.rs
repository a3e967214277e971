//! What bounds signalling: the limits that operators set, and those that none has had reason to change. docs/limits.md has
//! all of them.

use std::time::Duration;

use strum::{IntoStaticStr, VariantArray};

/// The limits that operators set. All but `max_sessions` are none where they are 0.
///
/// The defaults are generous: many viewers share one address (an office, a mobile network's NAT, a proxy that does not say
/// whom it serves), and all viewers may share one token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Live sessions, publishers and viewers together.
    pub max_sessions: usize,
    /// Percent of `max_sessions` that viewers without token cannot take, and half of which viewers with a token cannot take
    /// either: so that a publisher finds room.
    pub reserved_percent: usize,
    /// Live sessions of one client address ([`ClientAddress::customer`](crate::ClientAddress::customer)).
    pub max_sessions_per_address: usize,
    /// Live sessions of one token.
    pub max_sessions_per_token: usize,
    /// Viewers of one stream.
    pub max_viewers_per_stream: usize,
    /// Streams with a publisher.
    pub max_streams: usize,
    /// Of them from one client address.
    pub max_streams_per_address: usize,
    /// Of them by one token.
    pub max_streams_per_token: usize,
    /// Half-open sessions: answered, and not yet secured. Beyond it the oldest one gives place.
    pub max_half_open: usize,
    /// Of them from one client address.
    pub max_half_open_per_address: usize,
    /// Of them by one token.
    pub max_half_open_per_token: usize,
    /// POSTs a second: of viewers without token, and as many again of publishers and of holders of tokens. A join costs a
    /// handshake.
    pub join_rate: usize,
    /// POSTs a second from one client address.
    pub post_rate_per_address: usize,
    /// POSTs a second by one token.
    pub post_rate_per_token: usize,
    /// PATCH and DELETE requests a second from one client address.
    pub request_rate_per_address: usize,
    /// PATCH and DELETE requests a second for one session.
    pub request_rate_per_session: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_sessions: 20_000,
            reserved_percent: 10,
            max_sessions_per_address: 2_000,
            max_sessions_per_token: 10_000,
            max_viewers_per_stream: 10_000,
            max_streams: 5_000,
            max_streams_per_address: 1_000,
            max_streams_per_token: 1_000,
            max_half_open: 4_000,
            max_half_open_per_address: 1_000,
            max_half_open_per_token: 2_000,
            join_rate: 500,
            post_rate_per_address: 100,
            post_rate_per_token: 200,
            request_rate_per_address: 500,
            request_rate_per_session: 10,
        }
    }
}

impl Limits {
    /// As many sessions as memory has room for, and no other limit.
    pub const NONE: Limits = Limits {
        max_sessions: usize::MAX,
        reserved_percent: 0,
        max_sessions_per_address: 0,
        max_sessions_per_token: 0,
        max_viewers_per_stream: 0,
        max_streams: 0,
        max_streams_per_address: 0,
        max_streams_per_token: 0,
        max_half_open: 0,
        max_half_open_per_address: 0,
        max_half_open_per_token: 0,
        join_rate: 0,
        post_rate_per_address: 0,
        post_rate_per_token: 0,
        request_rate_per_address: 0,
        request_rate_per_session: 0,
    };
}

/// Which limit refused a request; a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub enum Limit {
    /// [`Limits::max_sessions`], less what is reserved for others.
    Sessions,
    /// [`Limits::max_sessions_per_address`]
    SessionsPerAddress,
    /// [`Limits::max_sessions_per_token`]
    SessionsPerToken,
    /// [`Limits::max_viewers_per_stream`]
    ViewersPerStream,
    /// [`Limits::max_streams`]
    Streams,
    /// [`Limits::max_streams_per_address`]
    StreamsPerAddress,
    /// [`Limits::max_streams_per_token`]
    StreamsPerToken,
    /// [`Limits::max_half_open`], all of them with more right to be there.
    HalfOpen,
    /// [`Limits::max_half_open_per_address`], likewise.
    HalfOpenPerAddress,
    /// [`Limits::max_half_open_per_token`], likewise.
    HalfOpenPerToken,
    /// [`Limits::join_rate`]
    JoinRate,
    /// [`Limits::post_rate_per_address`]
    PostRatePerAddress,
    /// [`Limits::post_rate_per_token`]
    PostRatePerToken,
    /// [`Limits::request_rate_per_address`]
    RequestRatePerAddress,
    /// [`Limits::request_rate_per_session`]
    RequestRatePerSession,
}

impl Limit {
    /// All of them.
    pub const ALL: &[Limit] = Limit::VARIANTS;

    /// The metric label.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// A client, a token or a session may save up this much of its rate: a thousand viewers behind one NAT join at once when a
/// show begins, and a browser trickles all of its candidates at once.
pub(crate) const BURST: Duration = Duration::from_secs(20);

/// All clients together may save up this much of theirs: a join storm costs running media the processor.
pub(crate) const JOIN_BURST: Duration = Duration::from_secs(4);

/// Where there is no room, a half-open session gives place if it is older: nearly all joins are over by then, and one that is
/// about to succeed must not be the victim of the next.
pub(crate) const HALF_OPEN_GRACE: Duration = Duration::from_secs(3);

/// Addresses, and tokens, whose rate is remembered at most, in each of two generations.
pub(crate) const MAX_RATES: usize = 16_384;

/// Largest offer in bytes; the largest one of a browser, with simulcast and a data channel, has 7 KiB.
pub(crate) const MAX_OFFER: usize = 64 * 1024;

/// Largest trickle fragment in bytes: some hundred candidates.
pub(crate) const MAX_FRAGMENT: usize = 16 * 1024;

/// A request body must be complete in this time (HTTP-07).
pub(crate) const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// `Retry-After` of 409 `stream-not-live` and of 503, in whole seconds: long enough to matter, short enough to be back soon
/// (ERR-06).
pub(crate) const RETRY_AFTER_SECONDS: u64 = 5;

/// DELETE on a session that ended by itself gets 200 for this long (WHIP-15): a client that notices the end late still
/// cleans up without an error.
pub(crate) const TOMBSTONE: Duration = Duration::from_secs(60);

/// Ended sessions stay visible in the admin API for this long, so that an operator who was told of a failure finds it.
pub(crate) const ENDED_RETENTION: Duration = Duration::from_secs(600);

/// At most this many ended sessions stay visible; at some 6 KiB each they cost 6 MiB.
pub(crate) const MAX_ENDED: usize = 1000;

/// A stream without any session is remembered for this long: its number, and that it is known.
pub(crate) const STREAM_RETENTION: Duration = Duration::from_secs(24 * 3600);

/// If its publisher never connected, only for this long: memory comes with media.
pub(crate) const UNCONNECTED_RETENTION: Duration = Duration::from_secs(30);

/// At most this many streams without session are remembered: names that clients make up must not fill the memory.
pub(crate) const MAX_IDLE_STREAMS: usize = 10_000;

/// How often expired records are looked for.
pub(crate) const PRUNE_INTERVAL: Duration = Duration::from_secs(5);
