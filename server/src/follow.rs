//! Follows the public addresses while the server runs: the interfaces' own, and those of names.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use media_core::{LocalCandidate, MediaCore};
use serde::Serialize;
use tokio::sync::watch;

use crate::config::addresses::{AddressSource, Found, Network, NoAddress, Reading};
use crate::metrics::Metrics;
use crate::reload::Addresses;

/// The interfaces are read this often; it takes some 50 µs.
const INTERFACES: Duration = Duration::from_secs(5);
/// Names are looked up and STUN servers asked this often; most records live for a minute or longer.
const OTHERS: Duration = Duration::from_secs(30);

/// The public addresses as they are, for whoever asks. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Advertised(Arc<RwLock<State>>);

#[derive(Clone, Debug)]
struct State {
    reading: Reading,
    read: SystemTime,
    changed: Option<SystemTime>,
    /// Why they could not be read the last time.
    failure: Option<String>,
}

impl Advertised {
    /// As they were read at the start.
    pub fn new(reading: Reading) -> Advertised {
        Advertised(Arc::new(RwLock::new(State { reading, read: SystemTime::now(), changed: None, failure: None })))
    }

    /// What they are now, and who says so.
    pub fn reading(&self) -> Reading {
        self.state().reading
    }

    fn state(&self) -> State {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// They were read again. True if they are others than before.
    fn set(&self, reading: Reading) -> bool {
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let changes = state.reading.addresses() != reading.addresses();
        let now = SystemTime::now();
        let changed = if changes { Some(now) } else { state.changed };
        *state = State { reading, read: now, changed, failure: None };
        changes
    }

    fn set_failure(&self, failure: String) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).failure = Some(failure);
    }

    /// For the admin API; `core` knows what answers make of them.
    pub fn view(&self, core: &MediaCore) -> AdvertisedView {
        let State { reading, read, changed, failure } = self.state();
        let address = |Found { address, from }: &Found| AddressView {
            address: address.ip.to_string(),
            port: address.port,
            from: from.to_string(),
        };
        AdvertisedView {
            addresses: reading.found.iter().map(address).collect(),
            candidates: candidates(core).into_iter().map(CandidateView::from).collect(),
            read: unix(read),
            changed: changed.map(unix),
            faults: failure.into_iter().chain(reading.kept).chain(reading.absent).collect(),
        }
    }
}

/// What all answers together tell clients, shard by shard; once what several shards share.
pub fn candidates(core: &MediaCore) -> Vec<LocalCandidate> {
    let mut seen = HashSet::new();
    let candidates = (0..core.shards()).flat_map(|shard| core.local_candidates(shard).to_vec());
    candidates.filter(|candidate| seen.insert((candidate.protocol, candidate.address))).collect()
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// `/api/v1/addresses`
#[derive(Debug, Serialize)]
pub struct AdvertisedView {
    /// The addresses, the preferred one first.
    addresses: Vec<AddressView>,
    /// What answers name, shard by shard.
    candidates: Vec<CandidateView>,
    /// When they were read, in seconds since 1970.
    read: u64,
    /// When they were last found to be others than before.
    changed: Option<u64>,
    /// What could not be read, and why.
    faults: Vec<String>,
}

#[derive(Debug, Serialize)]
struct CandidateView {
    protocol: &'static str,
    address: String,
}

impl From<LocalCandidate> for CandidateView {
    fn from(candidate: LocalCandidate) -> CandidateView {
        CandidateView { protocol: candidate.protocol.as_str(), address: candidate.address.to_string() }
    }
}

#[derive(Debug, Serialize)]
struct AddressView {
    address: String,
    /// The mapped port of shard 0.
    port: Option<u16>,
    from: String,
}

/// Hands the addresses to the core whenever they change, and follows another source once a reload names one; ends only with its
/// task. A failure leaves the last good ones.
pub(crate) async fn follow(
    mut reloaded: watch::Receiver<Addresses>,
    advertised: Advertised,
    core: MediaCore,
    metrics: &Metrics,
    network: impl Network + Clone + Send + 'static,
) {
    let (mut source, _) = reloaded.borrow_and_update().clone();
    let mut failing = false;
    loop {
        let before = advertised.reading();
        let read = tokio::select! {
            // Before what the former source says.
            biased;
            changed = reloaded.changed() => {
                if changed.is_err() {
                    return;
                }
                let reading;
                (source, reading) = reloaded.borrow_and_update().clone();
                Ok(reading)
            }
            read = look_later(&source, &before.found, &network) => read,
        };
        let failure = match read {
            Ok(reading) => {
                let failure = (!reading.kept.is_empty()).then(|| reading.kept.join("; "));
                let told = reading.to_string();
                if advertised.set(reading.clone()) {
                    report(&before.found, &reading.found, &told);
                    metrics.public_addresses_changed();
                    core.set_public_addresses(&reading.addresses());
                }
                failure
            }
            Err(NoAddress(error)) => {
                advertised.set_failure(error.clone());
                Some(error)
            }
        };
        match failure {
            Some(error) => {
                metrics.public_address_failed();
                if !failing {
                    let told = advertised.reading().to_string();
                    tracing::warn!(%error, told, "the public addresses cannot be read: sessions are told the last ones");
                }
                failing = true;
            }
            None => failing = false,
        }
    }
}

/// The addresses when it is time to look again; where none can change that is never.
async fn look_later(
    source: &AddressSource,
    known: &[Found],
    network: &(impl Network + Clone + Send + 'static),
) -> Result<Reading, NoAddress> {
    if source.is_followed() {
        tokio::time::sleep(if source.asks_others() { OTHERS } else { INTERFACES }).await;
        // Resolvers and STUN servers may take their time.
        let (source, known, network) = (source.clone(), known.to_vec(), network.clone());
        if let Ok(read) = tokio::task::spawn_blocking(move || source.read(&network, &known)).await {
            return read;
        }
    }
    std::future::pending().await
}

fn report(before: &[Found], after: &[Found], told: &str) {
    let only = |these: &[Found], those: &[Found]| {
        let only = these.iter().filter(|found| !those.iter().any(|other| other.address == found.address));
        only.map(|found| found.address.ip.to_string()).collect::<Vec<_>>().join(" ")
    };
    tracing::info!(
        added = only(after, before),
        removed = only(before, after),
        told,
        "public addresses changed: new sessions are told them"
    );
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr};
    use std::sync::Mutex;

    use media_core::CoreConfig;

    use super::*;
    use crate::config::addresses::InterfaceAddress;
    use crate::config::discovery::AskError;
    use crate::metrics::Population;

    /// A STUN server that sees this, or is silent.
    #[derive(Clone, Default)]
    struct Sees(Arc<Mutex<Option<IpAddr>>>);

    impl Network for Sees {
        fn interfaces(&self) -> std::io::Result<Vec<InterfaceAddress>> {
            panic!("addresses are configured")
        }
        fn lookup(&self, _: &str) -> std::io::Result<Vec<IpAddr>> {
            panic!("no name is configured")
        }
        fn ask(&self, _: SocketAddr, _: IpAddr) -> Result<IpAddr, AskError> {
            self.0.lock().unwrap().ok_or_else(|| AskError::Failed("silence".to_owned()))
        }
    }

    // F-23
    #[tokio::test(start_paused = true)]
    async fn what_a_stun_server_sees_is_followed_and_its_silence_changes_nothing() {
        let network = Sees::default();
        let see = |ip: Option<&str>| *network.0.lock().unwrap() = ip.map(|ip| ip.parse().unwrap());
        let configured = vec!["auto:stun:192.0.2.1".parse().unwrap()];
        let source = AddressSource { configured, media_ip: [127, 0, 0, 1].into(), with_loopback: false };
        see(Some("203.0.113.7"));
        let reading = source.read(&network, &[]).unwrap();
        let public_addresses = reading.addresses();
        let config = CoreConfig { media_port: 0, public_addresses, ..CoreConfig::default() };
        let (core, _events) = MediaCore::start(config).unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let advertised = Advertised::new(reading.clone());
        let (reload, reloaded) = watch::channel((source.clone(), reading));
        let (told, followed, counted) = (advertised.clone(), core.clone(), Arc::clone(&metrics));
        let task = tokio::spawn({
            let network = network.clone();
            async move { follow(reloaded, told, followed, &counted, network).await }
        });
        let now = || core.local_candidates(0)[0].address.ip().to_string();
        let count = |name: &str| {
            let text = metrics.render(&Population::default(), None).unwrap();
            text.lines().find(|line| line.starts_with(name)).map(|line| line[name.len()..].trim().to_owned())
        };
        let look = || tokio::time::sleep(OTHERS + Duration::from_secs(1));

        see(Some("203.0.113.8"));
        look().await;
        assert_eq!(now(), "203.0.113.8");
        see(None);
        look().await;
        assert_eq!(now(), "203.0.113.8");
        let view = serde_json::to_value(advertised.view(&core)).unwrap();
        assert_eq!(view["addresses"][0]["address"], "203.0.113.8");
        assert_eq!(view["addresses"][0]["from"], "auto:stun:192.0.2.1:3478");
        let fault = "no IPv4 address from auto:stun:192.0.2.1:3478 (192.0.2.1:3478): silence";
        assert_eq!(view["faults"], serde_json::json!([fault]));
        let candidate = view["candidates"][0]["address"].as_str().unwrap();
        assert!(candidate.starts_with("203.0.113.8:") && view["changed"].is_u64(), "{view}");
        see(Some("203.0.113.9"));
        look().await;
        assert_eq!((now().as_str(), advertised.view(&core).faults), ("203.0.113.9", vec![]));
        assert_eq!(count("sluice_public_address_changes_total ").as_deref(), Some("2"));
        assert_eq!(count("sluice_public_address_failures_total ").as_deref(), Some("1"));

        // A reload counts at once.
        let configured = vec!["198.51.100.1:31000".parse().unwrap()];
        let source = AddressSource { configured, ..source };
        let reading = source.read(&network, &[]).unwrap();
        reload.send_replace((source, reading));
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(core.local_candidates(0)[0].address, "198.51.100.1:31000".parse().unwrap());
        task.abort();
        core.shutdown().await;
    }
}
