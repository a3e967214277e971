//! Renews the certificate of the DTLS handshakes before it expires. Each session keeps the one that its answer announced.

use std::time::{Duration, SystemTime};

use media_core::MediaCore;

use crate::metrics::Metrics;

/// Renewed when no more than this is left of its 30 days: a client may take a while from the answer to the handshake, and its
/// clock may be wrong.
const MARGIN: Duration = Duration::from_secs(10 * 86_400);

/// More than this is left of none: the clock was set back since it was made.
const LONGEST: Duration = Duration::from_secs(31 * 86_400);

/// How often it is looked at. The wall clock decides, which may step.
const LOOK: Duration = Duration::from_secs(3600);

/// Renews the certificate whenever it is due by this clock; ends only with its task.
pub(crate) async fn renew(core: MediaCore, metrics: &Metrics, clock: impl Fn() -> SystemTime) {
    loop {
        if is_due(clock(), core.certificate_expires()) {
            match core.renew_certificate() {
                Ok(()) => tracing::info!("new sessions get a new certificate"),
                Err(error) => tracing::error!(%error, "the certificate cannot be renewed"),
            }
        }
        metrics.certificate_expires(core.certificate_expires());
        tokio::time::sleep(LOOK).await;
    }
}

fn is_due(now: SystemTime, expires: SystemTime) -> bool {
    expires.duration_since(now).map_or(true, |left| left <= MARGIN || left > LONGEST)
}

#[cfg(test)]
mod tests {
    use media_core::CoreConfig;

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn it_is_due_10_days_before_the_end_after_it_and_when_the_clock_was_set_back() {
        let made = SystemTime::now();
        let expires = made + 30 * DAY;
        for (days, due) in [(0, false), (19, false), (20, true), (31, true)] {
            assert_eq!(is_due(made + days * DAY, expires), due, "{days}");
        }
        assert!(is_due(made - 2 * DAY, expires));
    }

    #[tokio::test(start_paused = true)]
    async fn new_sessions_get_a_new_certificate_before_the_old_one_expires() {
        let (core, _events) = MediaCore::start(CoreConfig { media_port: 0, ..CoreConfig::default() }).unwrap();
        let (begun, made, renewed) = (tokio::time::Instant::now(), SystemTime::now(), core.clone());
        tokio::spawn(async move {
            let metrics = Metrics::new().unwrap();
            renew(renewed, &metrics, move || made + begun.elapsed()).await;
        });
        let first = core.fingerprint();
        tokio::time::sleep(19 * DAY).await;
        assert_eq!(core.fingerprint(), first);
        tokio::time::sleep(DAY + 2 * LOOK).await;
        assert_ne!(core.fingerprint(), first);
        core.shutdown().await;
    }
}
