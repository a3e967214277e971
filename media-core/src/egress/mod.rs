//! What goes out: a viewer's tracks, and the feed of a stream to other shards.
//!
//! A packet to a viewer passes three parts. The [`Reader`] has a position in an encoding's cache and says which packet is
//! next and when; it knows nothing of viewers, so that a feed or a recorder reads with it, too. The rewriter gives the packet
//! the viewer's sequence number, timestamp, payload type and header extensions. The RTP sender protects and counts it, or
//! sends it again.

#![deny(clippy::disallowed_types)]

mod congestion;
mod egress_track;
mod fast_start;
mod feed;
mod late_drop;
mod moves;
mod reader;
mod retransmissions;
mod rewriter;
mod rtp_sender;
mod selection;
mod sequence_map;
mod viewer;
mod viewer_layers;

pub use congestion::Congestion;
pub use egress_track::EgressTrack;
pub use feed::{Feed, FeedPool, Feeder};
pub use reader::Reader;
pub use viewer::{FanOutPass, Resent, SentCounters, Served, Viewer};
pub use viewer_layers::Chosen;

use crate::srtp::MAX_TRAILER;

/// Room that one outgoing packet may need, in bytes: the largest datagram, a rewritten header and the SRTP trailer.
pub const PACKET_ROOM: usize = 1500 + 64 + MAX_TRAILER;

#[cfg(test)]
mod tests;
