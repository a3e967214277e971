//! Every metric of Sluice, declared here and in the files beside it. No label has unbounded values: streams, sessions and addresses
//! are none.
//!
//! Figures of the shards are copied from their snapshots at a scrape; everything else is counted as it happens.

mod access;
mod layers;
mod population;
mod process;
mod tcp;
mod tls;

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use media_core::Protocol;
use media_core::ledger::{Reason, Stage, StageState, WarningCode};
use media_core::media::Role;
use media_core::stats::SessionStats;
use media_core::stats::{DropReason, ShardCounters, ShardSnapshot};
use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};
use signaling::{AccessOutcome, AccessSource, Action, Limit, Observer, Resource};
use strum::VariantArray;

use self::access::AccessMetrics;
use self::layers::LayerMetrics;
pub use self::population::Population;
use self::population::PopulationGauges;
use self::process::{LogMetrics, ProcessMetrics};
use self::tcp::TcpMetrics;
use self::tls::TlsMetrics;
use crate::connections::Listener;

/// Both roles, as labels.
const ROLES: [Role; 2] = [Role::Publisher, Role::Viewer];

/// Shares of the viewers that the round-trip and loss gauges describe.
const QUANTILES: [(&str, f64); 3] = [("0.5", 0.5), ("0.95", 0.95), ("1", 1.0)];

/// One counter of [`ShardCounters`]: name, help, field.
type ShardCounter = (&'static str, &'static str, fn(&ShardCounters) -> u64);

const SHARD_COUNTERS: &[ShardCounter] = &[
    ("datagrams_received_total", "UDP datagrams that came in.", |c| c.datagrams_received),
    ("received_bytes_total", "UDP payload bytes that came in.", |c| c.bytes_received),
    ("receive_calls_total", "Calls of recvmmsg that returned something.", |c| c.receive_calls),
    ("receive_errors_total", "Calls of recvmmsg that failed.", |c| c.receive_errors),
    ("datagrams_sent_total", "UDP datagrams that the socket took.", |c| c.datagrams_sent),
    ("sent_bytes_total", "UDP payload bytes that the socket took.", |c| c.bytes_sent),
    ("send_calls_total", "Calls of sendmmsg.", |c| c.send_calls),
    ("segmented_runs_total", "Messages that carried several datagrams by UDP_SEGMENT.", |c| c.segmented_runs),
    ("send_dropped_datagrams_total", "UDP datagrams that the socket refused; they are dropped.", |c| c.send_dropped),
    ("rtp_received_packets_total", "Authenticated RTP packets from publishers.", |c| c.rtp_received),
    ("rtp_forwarded_packets_total", "RTP packets sent to viewers, without retransmissions.", |c| c.rtp_forwarded),
    ("rtp_shed_packets_total", "RTP packets for viewers that an overloaded shard dropped.", |c| c.rtp_shed),
    ("rtp_congested_packets_total", "RTP packets for viewers dropped by congestion of their paths.", |c| {
        c.rtp_congested
    }),
    ("probe_packets_total", "Padding packets that probe the bandwidth of viewers' paths.", |c| c.probe_packets),
    ("rtp_retransmitted_packets_total", "RTP packets sent to viewers again after a NACK.", |c| c.rtp_retransmitted),
    ("rtp_lost_packets_total", "RTP packets of publishers that stayed lost.", |c| c.rtp_lost),
    ("nacks_sent_total", "Sequence numbers requested from publishers by NACK.", |c| c.nacks_sent),
    ("nacks_received_total", "Sequence numbers that viewers requested by NACK.", |c| c.nacks_received),
    ("keyframe_requests_sent_total", "PLI and FIR sent to publishers.", |c| c.keyframe_requests_sent),
    ("keyframe_requests_received_total", "PLI and FIR received from viewers.", |c| c.keyframe_requests_received),
    (
        "keyframes_unavailable_total",
        "Keyframes that viewers need, that their publisher does not send on request, and that the cache does not have.",
        |c| c.keyframes_unavailable,
    ),
    ("stun_checks_answered_total", "Valid connectivity checks answered.", |c| c.stun_checks_answered),
    ("unproven_withheld_total", "Datagrams withheld from addresses that had not shown that they receive.", |c| {
        c.unproven_withheld
    }),
    ("ice_restarts_total", "ICE restarts that peers asked for.", |c| c.ice_restarts),
    ("ice_restarts_completed_total", "ICE restarts after which a pair was nominated.", |c| c.ice_restarts_completed),
    ("dtls_handshakes_completed_total", "DTLS handshakes completed.", |c| c.handshakes_completed),
    ("batches_handed_over_total", "Batches of packets handed to other shards.", |c| c.batches_handed_over),
    ("batches_refused_total", "Batches of packets that another shard's full queue refused.", |c| c.batches_refused),
];

/// Why the server closed a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub enum Closed {
    /// No request was complete in time.
    NoRequest,
    /// It was quiet, and gave place to another.
    Evicted,
    /// The bounds were reached, and no other gave place.
    Refused,
    /// It had no request for a long time.
    Idle,
    /// Far more bytes came than a request takes.
    Flood,
    /// Requests were abandoned as soon as they were made.
    Reset,
    /// Its first bytes were those of a protocol that is not served there.
    Protocol,
    /// The TLS handshake failed.
    Handshake,
}

/// All metrics.
pub struct Metrics {
    registry: Registry,
    names: Vec<String>,
    /// One scrape at a time turns snapshots into increments.
    scrape: Mutex<()>,
    population: PopulationGauges,
    events: EventCounters,
    shards: ShardMetrics,
    connections: ConnectionMetrics,
    access: AccessMetrics,
    address_changes: IntCounter,
    address_failures: IntCounter,
    draining: IntGauge,
    snapshot_timeouts: IntCounter,
    log: LogMetrics,
    process: ProcessMetrics,
    tls: TlsMetrics,
}

/// What signalling reports as it happens.
struct EventCounters {
    sessions_opened: IntCounterVec,
    sessions_ended: IntCounterVec,
    session_seconds: HistogramVec,
    stage_seconds: HistogramVec,
    stage_failures: IntCounterVec,
    stages_healed: IntCounterVec,
    candidates_ignored: IntCounterVec,
    warnings: IntCounterVec,
    http_responses: IntCounterVec,
    refused: IntCounterVec,
}

/// The listeners' TCP connections.
struct ConnectionMetrics {
    open: IntGaugeVec,
    closed: IntCounterVec,
    accept_failures: IntCounterVec,
}

/// What the shards' snapshots hold.
struct ShardMetrics {
    sessions: IntGaugeVec,
    busy: GaugeVec,
    cache_bytes: GaugeVec,
    drops: IntCounterVec,
    counters: Vec<IntCounterVec>,
    srtp_profiles: IntGaugeVec,
    transports: IntGaugeVec,
    tcp: TcpMetrics,
    layers: LayerMetrics,
    round_trip: GaugeVec,
    reported_loss: GaugeVec,
}

/// Registers metrics and remembers their names.
struct Declare {
    registry: Registry,
    names: Vec<String>,
}

impl Declare {
    fn add<C: Collector + Clone + 'static>(&mut self, collector: prometheus::Result<C>) -> prometheus::Result<C> {
        let collector = collector?;
        self.names.extend(collector.desc().iter().map(|desc| desc.fq_name.clone()));
        self.registry.register(Box::new(collector.clone()))?;
        Ok(collector)
    }
}

impl EventCounters {
    fn declare(d: &mut Declare) -> prometheus::Result<EventCounters> {
        let counters = EventCounters {
            sessions_opened: d.add(IntCounterVec::new(
                Opts::new("sluice_sessions_opened_total", "Sessions that were answered with 201."),
                &["role"],
            ))?,
            sessions_ended: d.add(IntCounterVec::new(
                Opts::new("sluice_sessions_ended_total", "Sessions that ended, by reason code."),
                &["role", "reason"],
            ))?,
            session_seconds: d.add(HistogramVec::new(
                HistogramOpts::new("sluice_session_seconds", "Length of sessions, from the POST to the end.")
                    .buckets(vec![1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0]),
                &["role"],
            ))?,
            stage_seconds: d.add(HistogramVec::new(
                HistogramOpts::new(
                    "sluice_session_stage_seconds",
                    "Time that a stage of a session took when it ended well.",
                )
                .buckets(vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0]),
                &["role", "stage"],
            ))?,
            stage_failures: d.add(IntCounterVec::new(
                Opts::new(
                    "sluice_session_stage_failures_total",
                    "Stages of sessions that failed, for the first time or after they had been done, by reason code.",
                ),
                &["role", "stage", "reason"],
            ))?,
            stages_healed: d.add(IntCounterVec::new(
                Opts::new(
                    "sluice_session_stage_healed_total",
                    "Stages of sessions that had failed or did not hold any more, and are done again.",
                ),
                &["role", "stage"],
            ))?,
            candidates_ignored: d.add(IntCounterVec::new(
                Opts::new(
                    "sluice_client_candidates_ignored_total",
                    "Candidates of clients that are not used: of no use (TCP, names), or too many of one client.",
                ),
                &["role", "reason"],
            ))?,
            warnings: d.add(IntCounterVec::new(
                Opts::new(
                    "sluice_session_warnings_total",
                    "Sessions that have less than they could have, such as no video for want of a common codec, by warning code.",
                ),
                &["role", "code"],
            ))?,
            http_responses: d.add(IntCounterVec::new(
                Opts::new("sluice_http_responses_total", "Answers of the public HTTP listener."),
                &["resource", "method", "status"],
            ))?,
            refused: d.add(IntCounterVec::new(
                Opts::new("sluice_requests_refused_total", "Requests that a limit refused, by the limit."),
                &["limit"],
            ))?,
        };
        // Alerts watch these from the start: a rate needs a value before the first event.
        for limit in Limit::ALL {
            counters.refused.with_label_values(&[limit.as_str()]);
        }
        for role in ROLES {
            counters.sessions_opened.with_label_values(&[role.as_str()]);
            for reason in Reason::ALL {
                counters.sessions_ended.with_label_values(&[role.as_str(), reason.code()]);
            }
            for code in WarningCode::ALL {
                counters.warnings.with_label_values(&[role.as_str(), code.code()]);
            }
        }
        Ok(counters)
    }

    fn count_response(&self, resource: &str, method: &str, status: u16) {
        self.http_responses.with_label_values(&[resource, method, &status.to_string()]).inc();
    }
}

impl ConnectionMetrics {
    fn declare(d: &mut Declare) -> prometheus::Result<ConnectionMetrics> {
        let metrics = ConnectionMetrics {
            open: d.add(IntGaugeVec::new(
                Opts::new("sluice_http_connections", "Open TCP connections of the HTTP listeners."),
                &["listener"],
            ))?,
            closed: d.add(IntCounterVec::new(
                Opts::new("sluice_http_connections_closed_total", "Connections that the server closed, by reason."),
                &["listener", "reason"],
            ))?,
            accept_failures: d.add(IntCounterVec::new(
                Opts::new(
                    "sluice_http_accept_failures_total",
                    "Connections that could not be accepted, such as for want of file descriptors.",
                ),
                &["listener"],
            ))?,
        };
        for listener in Listener::VARIANTS {
            metrics.open.with_label_values(&[listener.as_str()]);
            metrics.accept_failures.with_label_values(&[listener.as_str()]);
            for &reason in Closed::VARIANTS {
                metrics.closed.with_label_values(&[listener.as_str(), reason.into()]);
            }
        }
        Ok(metrics)
    }
}

impl ShardMetrics {
    fn declare(d: &mut Declare) -> prometheus::Result<ShardMetrics> {
        let cache_bytes = "Bytes that the packet caches of a shard take.";
        let busy = "Share of a core that a shard's thread took in the last half second.";
        let counters = SHARD_COUNTERS.iter().map(|(name, help, _)| {
            d.add(IntCounterVec::new(Opts::new(format!("sluice_shard_{name}"), *help), &["shard"]))
        });
        Ok(ShardMetrics {
            counters: counters.collect::<Result<_, _>>()?,
            busy: d.add(GaugeVec::new(Opts::new("sluice_shard_busy_ratio", busy), &["shard"]))?,
            cache_bytes: d.add(GaugeVec::new(Opts::new("sluice_shard_cache_bytes", cache_bytes), &["shard"]))?,
            sessions: d.add(IntGaugeVec::new(
                Opts::new("sluice_shard_sessions", "Sessions that a shard carries."),
                &["shard"],
            ))?,
            drops: d.add(IntCounterVec::new(
                Opts::new(
                    "sluice_shard_dropped_datagrams_total",
                    "Received datagrams that a shard dropped, by reason.",
                ),
                &["shard", "reason"],
            ))?,
            tcp: TcpMetrics::declare(d)?,
            layers: LayerMetrics::declare(d)?,
            transports: d.add(IntGaugeVec::new(
                Opts::new("sluice_sessions_by_transport", "Live sessions by the transport protocol of their media."),
                &["transport"],
            ))?,
            srtp_profiles: d.add(IntGaugeVec::new(
                Opts::new("sluice_sessions_by_srtp_profile", "Live sessions by negotiated SRTP protection profile."),
                &["profile"],
            ))?,
            round_trip: d.add(GaugeVec::new(
                Opts::new("sluice_round_trip_seconds", "Round-trip time of the live sessions, by quantile."),
                &["quantile"],
            ))?,
            reported_loss: d.add(GaugeVec::new(
                Opts::new("sluice_reported_loss_ratio", "Loss that viewers last reported, 0 to 1, by quantile."),
                &["quantile"],
            ))?,
        })
    }

    fn set(&self, shards: &[ShardSnapshot]) {
        for snapshot in shards {
            let shard = snapshot.shard.to_string();
            let shard = shard.as_str();
            self.busy.with_label_values(&[shard]).set(snapshot.busy);
            self.cache_bytes.with_label_values(&[shard]).set(snapshot.cache_bytes as f64);
            self.sessions.with_label_values(&[shard]).set(signed(snapshot.sessions.len() as u64));
            for ((_, _, read), counter) in SHARD_COUNTERS.iter().zip(&self.counters) {
                raise(&counter.with_label_values(&[shard]), read(&snapshot.counters));
            }
            self.tcp.set(snapshot);
            for &reason in DropReason::ALL {
                let dropped = snapshot.counters.dropped[reason as usize];
                raise(&self.drops.with_label_values(&[shard, reason.as_str()]), dropped);
            }
        }
        let sessions = || shards.iter().flat_map(|shard| &shard.sessions).map(|session| &session.stats);
        self.layers.set(sessions());
        self.set_sessions(sessions());
    }

    fn set_sessions<'a>(&self, sessions: impl Iterator<Item = &'a SessionStats>) {
        let mut transports = [Protocol::Udp, Protocol::Tcp].map(|protocol| (protocol.as_str(), 0_u64));
        let (mut profiles, mut round_trips, mut losses) = (HashMap::new(), Vec::new(), Vec::new());
        for stats in sessions {
            transports.iter_mut().filter(|(name, _)| stats.transport == Some(*name)).for_each(|(_, count)| *count += 1);
            if let Some(profile) = stats.srtp_profile {
                *profiles.entry(profile).or_insert(0u64) += 1;
            }
            round_trips.extend(stats.round_trip_time);
            losses.extend(stats.reported_loss);
        }
        for (transport, count) in transports {
            self.transports.with_label_values(&[transport]).set(signed(count));
        }
        self.srtp_profiles.reset();
        for (profile, count) in profiles {
            self.srtp_profiles.with_label_values(&[profile]).set(signed(count));
        }
        set_quantiles(&self.round_trip, round_trips);
        set_quantiles(&self.reported_loss, losses);
    }
}

impl Metrics {
    /// Declares all metrics.
    ///
    /// # Errors
    ///
    /// Two metrics of one name: a bug that a test finds.
    pub fn new() -> prometheus::Result<Metrics> {
        let mut declare = Declare { registry: Registry::new(), names: Vec::new() };
        let d = &mut declare;
        let build = d.add(Gauge::with_opts(
            Opts::new("sluice_build_info", "Always 1; the label tells the version.")
                .const_label("version", env!("CARGO_PKG_VERSION")),
        ))?;
        build.set(1.0);
        let population = PopulationGauges::declare(d)?;
        let draining =
            d.add(IntGauge::new("sluice_draining", "1 while the server shuts down and takes no new session."))?;
        let events = EventCounters::declare(d)?;
        let shards = ShardMetrics::declare(d)?;
        let connections = ConnectionMetrics::declare(d)?;
        let access = AccessMetrics::declare(d)?;
        let address_changes = d.add(IntCounter::new(
            "sluice_public_address_changes_total",
            "Changes of the addresses that new sessions are told.",
        ))?;
        let address_failures = d.add(IntCounter::new(
            "sluice_public_address_failures_total",
            "Times that names could not be looked up, or interfaces not read; the last addresses stay.",
        ))?;
        let snapshot_timeouts = d.add(IntCounter::new(
            "sluice_snapshot_timeouts_total",
            "Scrapes to which the shards did not answer in time; their figures are those of the scrape before.",
        ))?;
        let log = LogMetrics::declare(d)?;
        let of_process = ProcessMetrics::declare(d)?;
        let tls = TlsMetrics::declare(d)?;

        let process = ProcessCollector::for_self();
        declare.names.extend(process.desc().iter().map(|desc| desc.fq_name.clone()));
        declare.registry.register(Box::new(process))?;
        let Declare { registry, names } = declare;
        Ok(Metrics {
            registry,
            names,
            scrape: Mutex::new(()),
            population,
            events,
            shards,
            connections,
            access,
            address_changes,
            address_failures,
            draining,
            snapshot_timeouts,
            log,
            process: of_process,
            tls,
        })
    }

    /// Names of all metrics as Prometheus sees them, without the suffixes of histograms: a test compares the dashboards and
    /// alerts of `deploy/` with them.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Says that the server takes no new session.
    pub fn set_draining(&self) {
        self.draining.set(1);
    }

    /// Counts an answer of a page or asset.
    pub fn page_response(&self, method: &'static str, status: u16) {
        self.events.count_response("page", method, status);
    }

    /// New sessions are told other addresses from now on.
    pub fn public_addresses_changed(&self) {
        self.address_changes.inc();
    }

    /// The addresses could not be found out.
    pub fn public_address_failed(&self) {
        self.address_failures.inc();
    }

    /// A connection was accepted.
    pub fn connection_opened(&self, listener: Listener) {
        self.connections.open.with_label_values(&[listener.as_str()]).inc();
    }

    /// A connection that was opened has ended, whoever ended it.
    pub fn connection_ended(&self, listener: Listener) {
        self.connections.open.with_label_values(&[listener.as_str()]).dec();
    }

    /// The server closes a connection.
    pub fn connection_closed(&self, listener: Listener, reason: Closed) {
        self.connections.closed.with_label_values(&[listener.as_str(), reason.into()]).inc();
    }

    /// A connection could not be accepted.
    pub fn accept_failed(&self, listener: Listener) {
        self.connections.accept_failures.with_label_values(&[listener.as_str()]).inc();
    }

    /// Writes everything in the text format of Prometheus. `shards` is `None` if they did not answer in time.
    ///
    /// # Errors
    ///
    /// The encoder's: a bug.
    pub fn render(&self, population: &Population, shards: Option<&[ShardSnapshot]>) -> prometheus::Result<String> {
        let _one_at_a_time = self.scrape.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.population.set(population);
        self.log.set();
        self.process.set();
        match shards {
            Some(shards) => self.shards.set(shards),
            None => self.snapshot_timeouts.inc(),
        }
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

impl Observer for Metrics {
    fn session_opened(&self, role: Role) {
        self.events.sessions_opened.with_label_values(&[role.as_str()]).inc();
    }

    fn stage_ended(&self, role: Role, stage: Stage, state: StageState, reason: Option<Reason>, duration: Duration) {
        match (state, reason) {
            (StageState::Failed, Some(reason)) => {
                self.events.stage_failures.with_label_values(&[role.as_str(), stage.as_str(), reason.code()]).inc();
            }
            (StageState::Done, _) => {
                self.events
                    .stage_seconds
                    .with_label_values(&[role.as_str(), stage.as_str()])
                    .observe(duration.as_secs_f64());
            }
            _ => {}
        }
    }

    fn stage_healed(&self, role: Role, stage: Stage) {
        self.events.stages_healed.with_label_values(&[role.as_str(), stage.as_str()]).inc();
    }

    fn warned(&self, role: Role, code: WarningCode) {
        self.events.warnings.with_label_values(&[role.as_str(), code.code()]).inc();
    }

    fn session_ended(&self, role: Role, reason: Reason, duration: Duration) {
        self.events.sessions_ended.with_label_values(&[role.as_str(), reason.code()]).inc();
        self.events.session_seconds.with_label_values(&[role.as_str()]).observe(duration.as_secs_f64());
    }

    fn candidates_ignored(&self, role: Role, unusable: usize, surplus: usize) {
        for (reason, count) in [("unusable", unusable), ("surplus", surplus)] {
            self.events.candidates_ignored.with_label_values(&[role.as_str(), reason]).inc_by(count as u64);
        }
    }

    fn refused(&self, limit: Limit) {
        self.events.refused.with_label_values(&[limit.as_str()]).inc();
    }

    fn access_judged(&self, action: Action, outcome: AccessOutcome) {
        self.access.judged(action, outcome);
    }

    fn access_source_failed(&self, source: AccessSource) {
        self.access.source_failed(source);
    }

    fn http_response(&self, resource: Resource, method: &'static str, status: u16) {
        self.events.count_response(resource.as_str(), method, status);
    }
}

/// Raises a counter to the value that a shard counted.
fn raise(counter: &IntCounter, value: u64) {
    counter.inc_by(value.saturating_sub(counter.get()));
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Sets a gauge per quantile (nearest rank); without values the gauge vanishes, so that nobody reads a stale one.
fn set_quantiles(gauge: &GaugeVec, mut values: Vec<f64>) {
    gauge.reset();
    values.retain(|value| value.is_finite());
    values.sort_by(f64::total_cmp);
    for (label, share) in QUANTILES {
        let rank = (share * values.len() as f64).ceil() as usize;
        if let Some(value) = values.get(rank.saturating_sub(1)) {
            gauge.with_label_values(&[label]).set(*value);
        }
    }
}

#[cfg(test)]
mod tests;
