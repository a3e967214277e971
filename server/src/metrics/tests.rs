use super::*;
use media_core::SessionId;
use media_core::layers::{Layer, OperatingPoint};
use media_core::stats::{SentLayer, SessionSnapshot};
use signaling::SessionState;

fn value(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

fn snapshot(rtp_received: u64) -> ShardSnapshot {
    let mut counters = ShardCounters { rtp_received, ..ShardCounters::default() };
    counters.drop(DropReason::NoKeys);
    ShardSnapshot { shard: 1, busy: 0.25, cache_bytes: 4096, counters, sessions: Vec::new() }
}

#[test]
fn shard_counters_follow_their_snapshots() {
    let metrics = Metrics::new().unwrap();
    metrics.render(&Population::default(), Some(&[snapshot(5)])).unwrap();
    let text = metrics.render(&Population::default(), Some(&[snapshot(7)])).unwrap();
    assert_eq!(value(&text, "sluice_shard_rtp_received_packets_total{shard=\"1\"}"), Some(7.0));
    assert_eq!(value(&text, "sluice_shard_dropped_datagrams_total{reason=\"no-keys\",shard=\"1\"}"), Some(1.0));
    let text = metrics.render(&Population::default(), None).unwrap();
    assert_eq!(value(&text, "sluice_shard_rtp_received_packets_total{shard=\"1\"}"), Some(7.0));
    assert_eq!(value(&text, "sluice_snapshot_timeouts_total"), Some(1.0));
}

// OPS-05
#[test]
fn sessions_are_counted_by_role_and_state() {
    let metrics = Metrics::new().unwrap();
    let mut population = Population { live_streams: 1, ..Population::default() };
    population.sessions.insert((Role::Publisher, SessionState::Media), 1);
    population.sessions.insert((Role::Viewer, SessionState::Media), 2);
    population.sessions.insert((Role::Viewer, SessionState::IceChecking), 3);
    let text = metrics.render(&population, Some(&[])).unwrap();
    assert_eq!(value(&text, "sluice_sessions{role=\"viewer\",state=\"ice-checking\"}"), Some(3.0));
    assert_eq!(value(&text, "sluice_sessions{role=\"viewer\",state=\"new\"}"), Some(0.0));
    assert_eq!(value(&text, "sluice_viewers"), Some(5.0));
    assert_eq!(value(&text, "sluice_publishers"), Some(1.0));
    assert_eq!(value(&text, "sluice_streams"), Some(1.0));
}

// OPS-03, OPS-05
#[test]
fn stages_are_timed_when_they_end_well_and_counted_by_reason_when_they_fail() {
    let metrics = Metrics::new().unwrap();
    let time = Duration::from_millis(20);
    metrics.stage_ended(Role::Viewer, Stage::Dtls, StageState::Done, None, time);
    metrics.stage_ended(Role::Viewer, Stage::Ice, StageState::Failed, Some(Reason::NoValidCheck), time);
    metrics.session_ended(Role::Viewer, Reason::NoValidCheck, time);
    let text = metrics.render(&Population::default(), Some(&[])).unwrap();
    assert_eq!(value(&text, "sluice_session_stage_seconds_count{role=\"viewer\",stage=\"dtls\"}"), Some(1.0));
    let failures = "sluice_session_stage_failures_total{reason=\"no-valid-check\",role=\"viewer\",stage=\"ice\"}";
    assert_eq!(value(&text, failures), Some(1.0));
    let ended = |reason| format!("sluice_sessions_ended_total{{reason=\"{reason}\",role=\"viewer\"}}");
    assert_eq!(value(&text, &ended("no-valid-check")), Some(1.0));
    assert_eq!(value(&text, &ended("deleted")), Some(0.0));
}

#[test]
fn round_trips_and_losses_are_shown_by_quantile() {
    let metrics = Metrics::new().unwrap();
    let sessions = (1..=100)
        .map(|n| SessionSnapshot {
            id: SessionId(n),
            stats: SessionStats {
                round_trip_time: Some(n as f64 / 1000.0),
                srtp_profile: Some("SRTP_AEAD_AES_128_GCM"),
                ..SessionStats::default()
            },
        })
        .collect();
    let shard = ShardSnapshot { sessions, ..ShardSnapshot::default() };
    let text = metrics.render(&Population::default(), Some(&[shard])).unwrap();
    assert_eq!(value(&text, "sluice_round_trip_seconds{quantile=\"0.5\"}"), Some(0.05));
    assert_eq!(value(&text, "sluice_round_trip_seconds{quantile=\"1\"}"), Some(0.1));
    assert_eq!(value(&text, "sluice_reported_loss_ratio{quantile=\"1\"}"), None);
    let profile = "sluice_sessions_by_srtp_profile{profile=\"SRTP_AEAD_AES_128_GCM\"}";
    assert_eq!(value(&text, profile), Some(100.0));
}

// OPS-05
#[test]
fn viewers_are_counted_by_the_height_of_what_they_are_sent() {
    let metrics = Metrics::new().unwrap();
    let layer = |height| SentLayer {
        layer: Layer {
            point: OperatingPoint { encoding: 0, spatial: 0, temporal: 0 },
            bitrate: 1,
            width: 0,
            height,
            frame_rate: 30.0,
            keyframe_bytes: 0,
        },
        switches: 0,
    };
    let stats =
        |height, video_paused| SessionStats { layer: Some(layer(height)), video_paused, ..SessionStats::default() };
    let all =
        [stats(90, false), stats(180, false), stats(720, false), stats(4320, false), stats(0, false), stats(90, true)];
    let sessions = all.into_iter().map(|stats| SessionSnapshot { id: SessionId(1), stats });
    let shard = ShardSnapshot { sessions: sessions.collect(), ..ShardSnapshot::default() };
    let text = metrics.render(&Population::default(), Some(&[shard])).unwrap();
    let of = |height| value(&text, &format!("sluice_viewers_by_frame_height{{height=\"{height}\"}}"));
    assert_eq!([of("180"), of("270"), of("720"), of("above")], [2.0, 0.0, 1.0, 1.0].map(Some));
    assert_eq!(value(&text, "sluice_viewers_video_paused"), Some(1.0));
}

#[test]
fn names_say_whose_they_are_and_counters_say_that_they_count() {
    let metrics = Metrics::new().unwrap();
    let text = metrics.render(&Population::default(), Some(&[snapshot(1)])).unwrap();
    for line in text.lines().filter(|line| line.starts_with("# TYPE ")) {
        let mut words = line.split(' ').skip(2);
        let (name, kind) = (words.next().unwrap(), words.next().unwrap());
        assert!(name.starts_with("sluice_") || name.starts_with("process_"), "{name}");
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
        assert!(metrics.names().iter().any(|known| known == name), "{name}");
    }
    assert!(value(&text, &format!("sluice_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"))).is_some());
}
