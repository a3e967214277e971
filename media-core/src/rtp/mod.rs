//! RTP (RFC 3550): the header, its extensions, sequence arithmetic, retransmission, and payload descriptors.

#![deny(clippy::disallowed_types)]

mod bits;
pub mod codec;
pub mod compat;
pub mod dependency_descriptor;
pub mod extension;
pub mod layers;
pub mod nack;
pub mod packet;
pub mod profile;
pub mod receive;
pub mod red;
pub mod rtt;
pub mod rtx;
pub mod sequence;
pub mod video_layers_allocation;

pub use extension::ExtensionIter;
pub use packet::{HeaderFields, RtpError, RtpHeader, write_header};
