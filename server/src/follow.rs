//! Follows the public addresses while the server runs: the interfaces' own, and those of names.

use std::time::Duration;

use media_core::{MediaCore, PublicAddress};
use tokio::sync::watch;

use crate::config::addresses::{AddressSource, NoAddress, System};
use crate::metrics::Metrics;
use crate::reload::Addresses;

/// The interfaces are read this often; it takes some 50 µs.
const INTERFACES: Duration = Duration::from_secs(5);
/// Names are looked up this often; most records live for a minute or longer.
const NAMES: Duration = Duration::from_secs(30);

/// Hands the addresses to the core whenever they change, and follows another source once a reload names one; ends only with its
/// task. A failure leaves the last good ones.
pub(crate) async fn follow(mut reloaded: watch::Receiver<Addresses>, core: MediaCore, metrics: &Metrics) {
    let (mut source, mut current) = reloaded.borrow_and_update().clone();
    let mut failing = false;
    loop {
        let read = tokio::select! {
            // Before what the former source says.
            biased;
            changed = reloaded.changed() => {
                if changed.is_err() {
                    return;
                }
                let addresses;
                (source, addresses) = reloaded.borrow_and_update().clone();
                Ok(addresses)
            }
            read = look_later(&source) => read,
        };
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

/// The addresses when it is time to look again; where none can change that is never.
async fn look_later(source: &AddressSource) -> Result<Vec<PublicAddress>, NoAddress> {
    if source.is_followed() {
        tokio::time::sleep(if source.has_names() { NAMES } else { INTERFACES }).await;
        // A resolver may take its time.
        let source = source.clone();
        if let Ok(read) = tokio::task::spawn_blocking(move || source.read(&System)).await {
            return read;
        }
    }
    std::future::pending().await
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
