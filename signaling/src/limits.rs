//! What bounds signalling: the limits that operators set, and those that none has had reason to change. docs/limits.md has
//! all of them.

use std::num::NonZeroUsize;
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
    /// ICE restarts a second for one session.
    RestartRatePerSession,
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

/// ICE restarts a second for one session: a network does not change more often, and each costs an ICE session beside the one that
/// serves (TRK-17).
pub(crate) const RESTARTS_PER_SECOND: usize = 1;

/// A session may save up this much of them: a network that comes and goes.
pub(crate) const RESTART_BURST: Duration = Duration::from_secs(5);

/// ICE generations of a session that control remembers: the one that serves, and restarts of which the media core has not said yet
/// how they went, which takes it milliseconds once another follows.
pub(crate) const MAX_ICE_GENERATIONS: usize = 4;

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

/// Offers of the server's own that wait for their answers (WHEP §4.3.2): as many as there may be half-open sessions, at some 2 KiB
/// each.
pub(crate) const MAX_COUNTER_OFFERS: usize = 4_000;

/// Of them to one client address: 500 viewers behind one NAT.
pub(crate) const MAX_COUNTER_OFFERS_PER_ADDRESS: usize = 500;

/// Largest JSON in bytes that a viewer asks by for events or a layer: the longest such text has some 200.
pub(crate) const MAX_JSON: usize = 4 * 1024;

/// Event streams of one session: one is read, and pages that begin anew may forget another.
pub(crate) const MAX_EVENT_STREAMS: usize = 4;

/// Events that wait for the reader of an event stream: far more than happen while it comes back.
pub(crate) const MAX_EVENTS: usize = 64;

/// How often an event stream says that it lives, for what is on the way to the client: proxies give up after 30 s to 60 s.
pub(crate) const EVENT_HEARTBEAT: Duration = Duration::from_secs(15);

/// Viewers are told at most this often how many they are.
pub(crate) const VIEWER_COUNT_INTERVAL: Duration = Duration::from_secs(2);

/// Viewers are told of the layers again when a rate is another one by this factor.
pub(crate) const LAYER_FLUCTUATION: f64 = 1.25;

/// A request body must be complete in this time (HTTP-07).
pub(crate) const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// `Retry-After` of 503, and of 409 `stream-not-live` where nothing else is set, in whole seconds: long enough to matter, short enough to be back soon
/// (ERR-06).
pub(crate) const RETRY_AFTER_SECONDS: u64 = 5;

/// Ended sessions stay visible in the admin API for this long, so that an operator who was told of a failure finds it. No
/// tombstone lasts longer.
pub const ENDED_RETENTION: Duration = Duration::from_secs(600);

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

/// Unknown tokens of one customer are refused once forgiving all of them takes longer than this many minutes: 30 at once by
/// the default of ten a minute, more than people mistype, and 14,400 a day are no way to find even a short token.
pub(crate) const FAILURE_BURST_MINUTES: u64 = 3;

/// A customer is refused for at most this long, however many guesses were under way together.
pub(crate) const MAX_REFUSAL: Duration = Duration::from_secs(15 * 60);

/// Customers whose failures are remembered, at some 300 bytes each. Whoever has more addresses than this has as many guesses.
pub(crate) const MAX_FAILING_CUSTOMERS: NonZeroUsize = NonZeroUsize::new(10_000).expect("above 0");

/// Good tokens that are remembered with the customer that showed them, at some 100 bytes each: as many as there are sessions.
pub(crate) const MAX_PROVEN_CREDENTIALS: NonZeroUsize = NonZeroUsize::new(20_000).expect("above 0");

/// Unknown tokens that are remembered of a customer: as many encoders behind one address may retry with an old one.
pub(crate) const REMEMBERED_GUESSES: usize = 16;

/// Largest JWT in bytes; those of identity providers, with groups and roles, have up to 4 KiB.
pub(crate) const MAX_JWT: usize = 8 * 1024;

/// `exp` and `nbf` of a JWT may be off by this much: clocks differ.
pub(crate) const JWT_LEEWAY: Duration = Duration::from_secs(30);

/// Streams that a JWT may name.
pub(crate) const MAX_CLAIM_STREAMS: usize = 64;

/// Keys of a file or of a JWK set; providers have two to four. A token without `kid` is tried with each of them.
pub(crate) const MAX_JWT_KEYS: usize = 32;

/// Largest JWK set in bytes.
pub(crate) const MAX_JWKS: usize = 256 * 1024;

/// A JWKS URL is asked again after this time: a new key is there before it signs, and a withdrawn one is gone soon.
pub(crate) const JWKS_REFRESH: Duration = Duration::from_secs(300);

/// Attempts to fetch a JWK set are this far apart, so that made-up `kid`s cause no more; a key that is used the moment it is
/// published works after this time.
pub(crate) const JWKS_FETCH_INTERVAL: Duration = Duration::from_secs(10);

/// A JWK set must be there in this time; a client waits for it.
pub(crate) const JWKS_TIMEOUT: Duration = Duration::from_secs(5);

/// Calls of the webhook under way: a burst of joins must not become one of connections there.
pub(crate) const MAX_WEBHOOK_CALLS: usize = 32;

/// Largest answer of the webhook in bytes.
pub(crate) const MAX_WEBHOOK_ANSWER: usize = 16 * 1024;

/// Decisions of the webhook that are remembered, of each kind: as many as there are sessions, at some 200 bytes each.
pub(crate) const MAX_WEBHOOK_DECISIONS: NonZeroUsize = NonZeroUsize::new(20_000).expect("above 0");

/// A denial of the webhook counts for at most this long: whoever gets a right meanwhile need not wait.
pub(crate) const WEBHOOK_DENIAL_CACHE: Duration = Duration::from_secs(5);

/// With `webhook_away` `cached` a right that the webhook gave is given again for this long while it is away.
pub(crate) const WEBHOOK_KEEP: Duration = Duration::from_secs(3600);
