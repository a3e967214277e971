//! What a stream consists of inside one shard: tracks, their encodings with cache and time line, and the keyframe requests
//! of its viewers.
//!
//! [`ingest`](crate::ingest) writes it, [`egress`](crate::egress) reads it.

#![deny(clippy::disallowed_types)]

mod cache;
mod cache_budget;
mod encoding;
mod extensions;
mod keyframe_requests;
mod layer_rates;
mod rtp_clock;
mod stored_numbers;
mod timeline;
mod track;

pub use cache::{CachedPacket, PacketInfo};
pub use cache_budget::CacheBudget;
pub use encoding::{DescribedLayers, Encoding, Standing};
pub use extensions::{MAX_EXTENSIONS, StoredExtensions, stored_extensions};
pub use keyframe_requests::{DeferredRequests, KeyframeAnswer, KeyframeRequest, KeyframeRequests, RequestLimit};
pub use rtp_clock::ClockSteps;
pub use timeline::{Place, Timeline};
pub use track::{PublishedTrack, Source, Track, Tracks};
