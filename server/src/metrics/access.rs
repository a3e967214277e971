//! Who was let in, and whether those who decide could be asked.

use prometheus::{IntCounterVec, Opts};
use signaling::{AccessOutcome, AccessSource, Action};
use strum::VariantArray;

use super::Declare;

pub(super) struct AccessMetrics {
    judged: IntCounterVec,
    source_failures: IntCounterVec,
}

impl AccessMetrics {
    pub(super) fn declare(d: &mut Declare) -> prometheus::Result<AccessMetrics> {
        let metrics = AccessMetrics {
            judged: d.add(IntCounterVec::new(
                Opts::new(
                    "sluice_access_judged_total",
                    "Requests for rights, where any is needed, by what became of them.",
                ),
                &["action", "outcome"],
            ))?,
            source_failures: d.add(IntCounterVec::new(
                Opts::new(
                    "sluice_access_source_failures_total",
                    "Times that the JWKS URL or the access webhook did not answer, or not as it should.",
                ),
                &["source"],
            ))?,
        };
        for action in [Action::Publish, Action::Watch] {
            for outcome in AccessOutcome::VARIANTS {
                metrics.judged.with_label_values(&[action.as_str(), outcome.as_str()]);
            }
        }
        for source in AccessSource::VARIANTS {
            metrics.source_failures.with_label_values(&[source.as_str()]);
        }
        Ok(metrics)
    }

    pub(super) fn judged(&self, action: Action, outcome: AccessOutcome) {
        self.judged.with_label_values(&[action.as_str(), outcome.as_str()]).inc();
    }

    pub(super) fn source_failed(&self, source: AccessSource) {
        self.source_failures.with_label_values(&[source.as_str()]).inc();
    }
}
