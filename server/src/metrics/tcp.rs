//! TCP connections of media.

use media_core::stats::{ConnectionEnd, ShardSnapshot, TcpCounters};
use prometheus::{IntCounterVec, IntGaugeVec, Opts};

use super::{Declare, raise, signed};

/// One counter of [`TcpCounters`]: name, help, field.
type TcpCounter = (&'static str, &'static str, fn(&TcpCounters) -> u64);

const COUNTERS: &[TcpCounter] = &[
    ("accepted_total", "TCP connections that a media port accepted.", |c| c.accepted),
    ("refused_total", "TCP connections of media that were refused, as there were too many.", |c| c.refused),
    ("accept_failures_total", "TCP connections of media that could not be accepted.", |c| c.accept_errors),
    ("dropped_packets_total", "Packets dropped as the peer of a TCP connection was too slow.", |c| c.dropped),
    ("reads_total", "Calls of read on TCP connections that returned something.", |c| c.reads),
    ("writes_total", "Calls of write on TCP connections that took something.", |c| c.writes),
];

pub(super) struct TcpMetrics {
    open: IntGaugeVec,
    queued: IntGaugeVec,
    closed: IntCounterVec,
    counters: Vec<IntCounterVec>,
}

impl TcpMetrics {
    pub(super) fn declare(d: &mut Declare) -> prometheus::Result<TcpMetrics> {
        let counters = COUNTERS.iter().map(|(name, help, _)| {
            d.add(IntCounterVec::new(Opts::new(format!("sluice_shard_tcp_{name}"), *help), &["shard"]))
        });
        Ok(TcpMetrics {
            counters: counters.collect::<Result<_, _>>()?,
            open: d.add(IntGaugeVec::new(
                Opts::new("sluice_shard_tcp_connections", "Open TCP connections of media."),
                &["shard"],
            ))?,
            queued: d.add(IntGaugeVec::new(
                Opts::new("sluice_shard_tcp_queued_bytes", "Bytes that wait for slow peers of TCP connections."),
                &["shard"],
            ))?,
            closed: d.add(IntCounterVec::new(
                Opts::new("sluice_shard_tcp_closed_total", "TCP connections of media that ended, by reason."),
                &["shard", "reason"],
            ))?,
        })
    }

    pub(super) fn set(&self, snapshot: &ShardSnapshot) {
        let shard = snapshot.shard.to_string();
        let (shard, tcp) = (shard.as_str(), &snapshot.counters.tcp);
        self.open.with_label_values(&[shard]).set(signed(tcp.open as u64));
        self.queued.with_label_values(&[shard]).set(signed(tcp.queued as u64));
        for ((_, _, read), counter) in COUNTERS.iter().zip(&self.counters) {
            raise(&counter.with_label_values(&[shard]), read(tcp));
        }
        for &end in ConnectionEnd::ALL {
            raise(&self.closed.with_label_values(&[shard, end.as_str()]), tcp.closed[end as usize]);
        }
    }
}
