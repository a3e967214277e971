//! Follows the public addresses while the server runs: the interfaces' own, and those of names.

use std::time::Duration;

use media_core::{MediaCore, PublicAddress};
use tokio::time::MissedTickBehavior;

use crate::config::addresses::{AddressSource, System};
use crate::metrics::Metrics;

/// The interfaces are read this often; it takes some 50 µs.
const INTERFACES: Duration = Duration::from_secs(5);
/// Names are looked up this often; most records live for a minute or longer.
const NAMES: Duration = Duration::from_secs(30);

/// Hands the addresses to the core whenever they change; ends only with its task. A failure leaves the last good ones.
pub(crate) async fn follow(source: AddressSource, mut current: Vec<PublicAddress>, core: MediaCore, metrics: &Metrics) {
    if !source.is_followed() {
        return;
    }
    let mut tick = tokio::time::interval(if source.has_names() { NAMES } else { INTERFACES });
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        tick.tick().await;
        // A resolver may take its time.
        let source = source.clone();
        let Ok(read) = tokio::task::spawn_blocking(move || source.read(&System)).await else { return };
        match read {
            Ok(addresses) => {
                failing = false;
                if addresses != current {
                    report(&current, &addresses);
                    metrics.public_addresses_changed();
                    core.set_public_addresses(&addresses);
                    current = addresses;
                }
            }
            Err(error) => {
                metrics.public_address_failed();
                if !failing {
                    tracing::warn!(%error, "the public addresses cannot be read: sessions are told the last ones");
                }
                failing = true;
            }
        }
    }
}

fn report(before: &[PublicAddress], after: &[PublicAddress]) {
    let only = |these: &[PublicAddress], those: &[PublicAddress]| {
        let only = these.iter().filter(|address| !those.contains(address));
        only.map(|address| address.ip.to_string()).collect::<Vec<_>>().join(" ")
    };
    tracing::info!(
        added = only(after, before),
        removed = only(before, after),
        "public addresses changed: new sessions are told them"
    );
}
