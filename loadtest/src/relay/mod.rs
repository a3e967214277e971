//! A relay that impairs what passes it: loss, bursts of loss, delay, jitter, reordering, duplicates, a bottleneck with a
//! queue, and NATs that forget. All of it in user space, for machines without `tc netem`.
//!
//! Clients use the relay's URL instead of the server's. Over HTTP everything is handed on (`proxy`), but in descriptions the
//! server's candidates are replaced by UDP ports of the relay (`rewrite`). Behind these every client has a pair of links of
//! its own (`link`), and a port towards the server that can change (`udp`).

mod command;
mod link;
mod link_options;
mod options;
mod proxy;
mod rewrite;
mod service;
mod udp;

pub use command::{RelayArgs, command};
pub use link_options::{LinkCounts, LinkError, LinkOptions};
pub use options::{Direction, RelayCounts, RelayError, RelayOptions};
pub use service::Relay;
