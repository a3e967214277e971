//! Limits and times that no operator has had reason to change, each with its reason.

use std::time::Duration;

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

/// A stream without any session is remembered for this long: its number, its formats, and that it is known.
pub(crate) const STREAM_RETENTION: Duration = Duration::from_secs(24 * 3600);

/// At most this many streams without session are remembered: names that clients make up must not fill the memory.
pub(crate) const MAX_IDLE_STREAMS: usize = 10_000;

/// How often expired records are looked for.
pub(crate) const PRUNE_INTERVAL: Duration = Duration::from_secs(5);
