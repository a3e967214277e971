//! Hostile inputs as a program: what strangers, authenticated peers and HTTP clients can throw at a server, one file an idea.
//!
//! Each [`Attack`] is carried out by an assault: a thread that floods datagrams, or one that makes connections and requests.
//! Honest clients run beside it; `run/attack.rs` tells what it cost them.

mod admin;
mod assault;
mod bodies;
mod candidates;
mod connections;
mod counts;
mod dtls;
mod feedback;
mod flood;
mod half_open;
mod http2;
mod keyframe_requests;
mod media_connections;
mod nack;
mod names;
mod noise;
mod options;
mod peer;
mod peers;
mod publisher_rtp;
mod replay;
mod reports;
mod requests;
mod resources;
mod srtp;
mod ssrcs;
mod stun;
mod target;
mod tokens;
mod viewer_rtp;

use serde::Serialize;

pub(crate) use assault::{Assault, AttackError};
pub use counts::AttackCounts;
pub(crate) use flood::{Datagrams, Flood, Source};
pub use options::AttackOptions;
pub(crate) use target::{Target, Victim, is_loopback, own_stream};

/// One hostile input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum, strum::IntoStaticStr)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Attack {
    /// Strangers: random datagrams of every length, by turns with each first byte
    Noise,
    /// Strangers: Binding requests, with and without a known username, whole, cut off, and with wrong lengths
    Stun,
    /// Strangers: authentic checks with USE-CANDIDATE of live viewers, replayed from other addresses
    Replay,
    /// Strangers: halves of ClientHellos, fragments that never end, records of later epochs
    Dtls,
    /// Strangers: forged SRTP and SRTCP
    Srtp,
    /// HTTP and strangers: offers whose candidates are somebody else's addresses
    Candidates,
    /// Viewers: transport-wide feedback of as many packets as fit
    Feedback,
    /// Viewers: NACKs of everything
    Nack,
    /// Viewers: PLI and FIR, as many as fit
    KeyframeRequests,
    /// Viewers: giant compounds of receiver reports, extended reports and descriptions
    Reports,
    /// Viewers: RTP, which they have no business to send
    ViewerRtp,
    /// Publishers: garbage as payload, numbers and timestamps that jump far
    PublisherRtp,
    /// Publishers: retransmissions of numbers that they choose
    Rtx,
    /// Publishers: a new SSRC with every packet
    Ssrcs,
    /// Strangers: TCP connections to the media ports: silent, by the byte, too long, garbage
    MediaConnections,
    /// HTTP: connections that say nothing
    SilentConnections,
    /// HTTP: heads that come byte by byte
    SlowHeads,
    /// HTTP: bodies that come byte by byte
    SlowBodies,
    /// HTTP: connections that stop in the middle of HTTP/2's preface
    HalfPrefaces,
    /// HTTP: HTTP/2 connections that do nothing but PING
    Pings,
    /// HTTP: offers of viewers who then make no check
    HalfOpen,
    /// HTTP: offers of publishers for ever new streams
    Names,
    /// HTTP: bodies without end
    BigBodies,
    /// HTTP: PATCH and DELETE of sessions that are not there, and of one's own
    Resources,
    /// HTTP: guessed tokens
    Tokens,
    /// HTTP: requests to the admin API as a foreign page makes them, with its Host and Origin
    Admin,
}

impl Attack {
    /// Its name on the command line and in reports.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

impl std::fmt::Display for Attack {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name())
    }
}
