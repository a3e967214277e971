//! Metrics of the process itself: its parts, its configuration, its certificate, its log.

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use media_core::{HeapUse, heap_use};
use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts};

use super::{Declare, Metrics, raise};
use crate::telemetry::{self, Telemetry};

/// Of the process: its parts, its configuration, its certificate.
pub(super) struct ProcessMetrics {
    part_up: IntGaugeVec,
    part_panics: IntCounterVec,
    threads_replaced: IntCounter,
    reload_successful: IntGauge,
    reload_success_time: Gauge,
    reloads: IntCounterVec,
    certificate_expires: Gauge,
    heap: IntGaugeVec,
}

/// Of the log, which counts by itself.
pub(super) struct LogMetrics {
    telemetry: OnceLock<Telemetry>,
    lost_lines: IntCounter,
    panics: IntCounter,
}

impl ProcessMetrics {
    pub(super) fn declare(d: &mut Declare) -> prometheus::Result<ProcessMetrics> {
        let metrics = ProcessMetrics {
            part_up: d.add(IntGaugeVec::new(
                Opts::new(
                    "sluice_part_up",
                    "1 while a part of the process lives, 0 while it does not or just panicked.",
                ),
                &["part"],
            ))?,
            part_panics: d.add(IntCounterVec::new(
                Opts::new("sluice_part_panics_total", "Panics of a part, after each of which it went on."),
                &["part"],
            ))?,
            threads_replaced: d.add(IntCounter::new(
                "sluice_handshake_threads_replaced_total",
                "Handshake threads that did not come back, and whose place another one took.",
            ))?,
            reload_successful: d.add(IntGauge::new(
                "sluice_config_last_reload_successful",
                "1 if the configuration was good when it was last read, 0 if it was refused.",
            ))?,
            reload_success_time: d.add(Gauge::new(
                "sluice_config_last_reload_success_timestamp_seconds",
                "When the configuration that counts was read.",
            ))?,
            reloads: d.add(IntCounterVec::new(
                Opts::new("sluice_config_reloads_total", "Times that the configuration was read while the server ran."),
                &["result"],
            ))?,
            certificate_expires: d.add(Gauge::new(
                "sluice_dtls_certificate_expiry_timestamp_seconds",
                "When the certificate that new sessions get expires.",
            ))?,
            heap: d.add(IntGaugeVec::new(
                Opts::new(
                    "sluice_heap_bytes",
                    "Memory of the C library's allocator: blocks in use, and those that are free.",
                ),
                &["state"],
            ))?,
        };
        for result in ["success", "failure"] {
            metrics.reloads.with_label_values(&[result]);
        }
        metrics.reload_successful.set(1);
        metrics.reload_success_time.set(unix_seconds(SystemTime::now()));
        Ok(metrics)
    }

    /// Reads what is not told.
    pub(super) fn set(&self) {
        if let Some(HeapUse { in_use, free }) = heap_use() {
            for (state, bytes) in [("in_use", in_use), ("free", free)] {
                self.heap.with_label_values(&[state]).set(bytes as i64);
            }
        }
    }
}

impl LogMetrics {
    pub(super) fn declare(d: &mut Declare) -> prometheus::Result<LogMetrics> {
        let lost = "Lines of the log that were lost: stderr did not take them, or not soon enough.";
        Ok(LogMetrics {
            telemetry: OnceLock::new(),
            lost_lines: d.add(IntCounter::new("sluice_log_lines_lost_total", lost))?,
            panics: d.add(IntCounter::new("sluice_panics_total", "Panics of any thread: bugs. The log has them."))?,
        })
    }

    pub(super) fn set(&self) {
        if let Some(telemetry) = self.telemetry.get() {
            raise(&self.lost_lines, telemetry.lost_lines());
            raise(&self.panics, telemetry::panics());
        }
    }
}

impl Metrics {
    /// From now on the figures of this log are shown.
    pub fn follow_log(&self, telemetry: Telemetry) {
        // A process has one log; a second one would be ignored.
        let _ = self.log.telemetry.set(telemetry);
    }

    /// How a part of the process is, and how often it has panicked.
    pub fn set_part(&self, part: &str, is_up: bool, panics: u64) {
        self.process.part_up.with_label_values(&[part]).set(i64::from(is_up));
        raise(&self.process.part_panics.with_label_values(&[part]), panics);
    }

    /// A thread that did not come back was replaced.
    pub fn thread_replaced(&self) {
        self.process.threads_replaced.inc();
    }

    /// The configuration was read again, and counts or was refused.
    pub fn reloaded(&self, is_success: bool) {
        let process = &self.process;
        process.reloads.with_label_values(&[if is_success { "success" } else { "failure" }]).inc();
        process.reload_successful.set(i64::from(is_success));
        if is_success {
            process.reload_success_time.set(unix_seconds(SystemTime::now()));
        }
    }

    /// The certificate that new sessions get.
    pub fn certificate_expires(&self, at: SystemTime) {
        self.process.certificate_expires.set(unix_seconds(at));
    }
}

pub(super) fn unix_seconds(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
