//! Sessions and streams at the moment of a scrape.

use std::collections::HashMap;

use media_core::ledger::Stage;
use media_core::media::Role;
use prometheus::{IntGauge, IntGaugeVec, Opts};
use signaling::SessionState;

use super::{Declare, ROLES, signed};

/// Sessions and streams at the moment of a scrape.
#[derive(Clone, Debug, Default)]
pub struct Population {
    /// Live sessions by role and state.
    pub sessions: HashMap<(Role, SessionState), u64>,
    /// Live sessions with a failed stage, by role, stage and reason code.
    pub failing: HashMap<(Role, Stage, &'static str), u64>,
    /// Streams with a live publisher.
    pub live_streams: u64,
    /// Event streams of viewers.
    pub event_streams: u64,
}

/// How many there are, at the moment of a scrape.
pub(super) struct PopulationGauges {
    sessions: IntGaugeVec,
    failing: IntGaugeVec,
    publishers: IntGauge,
    viewers: IntGauge,
    streams: IntGauge,
    event_streams: IntGauge,
}

impl PopulationGauges {
    pub(super) fn declare(d: &mut Declare) -> prometheus::Result<PopulationGauges> {
        Ok(PopulationGauges {
            streams: d.add(IntGauge::new("sluice_streams", "Streams with a live publisher."))?,
            event_streams: d.add(IntGauge::new("sluice_event_streams", "Event streams of viewers."))?,
            publishers: d.add(IntGauge::new("sluice_publishers", "Sessions that publish."))?,
            viewers: d.add(IntGauge::new("sluice_viewers", "Sessions that watch."))?,
            sessions: d.add(IntGaugeVec::new(
                Opts::new("sluice_sessions", "Live sessions by role and by where they stand."),
                &["role", "state"],
            ))?,
            failing: d.add(IntGaugeVec::new(
                Opts::new("sluice_sessions_failing", "Live sessions with a failed stage, by its reason code."),
                &["role", "stage", "reason"],
            ))?,
        })
    }

    pub(super) fn set(&self, population: &Population) {
        let mut total = HashMap::new();
        for role in ROLES {
            // A closed session is no session any more.
            for state in SessionState::ALL.iter().copied().filter(|state| *state != SessionState::Closed) {
                let count = population.sessions.get(&(role, state)).copied().unwrap_or(0);
                self.sessions.with_label_values(&[role.as_str(), state.as_str()]).set(signed(count));
                *total.entry(role).or_insert(0) += count;
            }
        }
        self.publishers.set(signed(total.get(&Role::Publisher).copied().unwrap_or(0)));
        self.viewers.set(signed(total.get(&Role::Viewer).copied().unwrap_or(0)));
        self.streams.set(signed(population.live_streams));
        self.event_streams.set(signed(population.event_streams));
        self.failing.reset();
        for ((role, stage, reason), count) in &population.failing {
            self.failing.with_label_values(&[role.as_str(), stage.as_str(), reason]).set(signed(*count));
        }
    }
}
