//! How a server is attacked.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use super::{Attack, is_loopback};
use crate::plan::{Plan, RunError};

/// How a server is attacked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AttackOptions {
    /// One after the other, or all at once.
    pub attacks: Vec<Attack>,
    /// All at once instead of one after the other; they share the rates.
    pub together: bool,
    /// Datagrams a second.
    pub datagrams: u32,
    /// Connections or requests a second.
    pub requests: u32,
    /// TCP connections that are open at a time at most.
    pub connections: usize,
    /// How long each attack lasts.
    #[serde(serialize_with = "crate::plan::seconds")]
    pub each: Duration,
    /// Where the server's admin listener is, such as `http://127.0.0.1:8081`.
    pub admin: Option<String>,
    /// The target belongs to whoever runs this, so that it need not be on loopback.
    pub owned: bool,
    /// The honest viewers' 99th percentile of the latency may be so many times that of the quiet phase; any if `None`.
    pub max_p99_ratio: Option<f64>,
}

impl Default for AttackOptions {
    fn default() -> AttackOptions {
        AttackOptions {
            attacks: <Attack as clap::ValueEnum>::value_variants().to_vec(),
            together: false,
            datagrams: 10_000,
            requests: 200,
            connections: 2000,
            each: Duration::from_secs(5),
            admin: None,
            owned: false,
            max_p99_ratio: None,
        }
    }
}

/// Said of a target that is neither on loopback nor said to be one's own.
const NOT_OURS: &str = "the target is not on this machine's loopback: attacks are for servers of your own; if this one is, say \
                        --i-own-this-target";

impl AttackOptions {
    /// Refuses targets that are neither on loopback nor said to be one's own.
    pub(crate) fn permitted(&self, plan: &Plan) -> Result<(), RunError> {
        let urls = [plan.whip.as_deref(), plan.whep.as_deref(), self.admin.as_deref()];
        let foreign = urls.into_iter().flatten().any(|url| !is_loopback(url));
        if foreign && !self.owned { Err(RunError::Plan(NOT_OURS)) } else { Ok(()) }
    }

    /// The same for the addresses that the server has named for media.
    pub(crate) fn permitted_media(&self, addresses: &[SocketAddr]) -> Result<(), RunError> {
        let foreign = addresses.iter().any(|address| !address.ip().is_loopback());
        if foreign && !self.owned { Err(RunError::Plan(NOT_OURS)) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{ClientOptions, PublisherOptions};

    fn plan(url: &str) -> Plan {
        Plan {
            whip: None,
            whep: Some(url.to_owned()),
            token: None,
            publishers: 0,
            viewers: 1,
            duration: Duration::from_secs(1),
            rate: None,
            media: PublisherOptions::default(),
            client: ClientOptions::default(),
            transport_cc: false,
            server_pid: None,
            threads: 1,
        }
    }

    #[test]
    fn what_is_not_on_loopback_is_refused_unless_it_is_ones_own() {
        let options = AttackOptions::default();
        let owned = AttackOptions { owned: true, ..options.clone() };
        assert!(options.permitted(&plan("http://127.0.0.1:8080/whep/s{i}")).is_ok());
        for url in ["http://192.0.2.7/whep/s", "https://[2001:db8::1]/whep/s", "http://0.0.0.0:1/whep/s"] {
            assert!(matches!(options.permitted(&plan(url)), Err(RunError::Plan(_))), "{url}");
            assert!(owned.permitted(&plan(url)).is_ok(), "{url}");
        }
        let admin = AttackOptions { admin: Some("http://192.0.2.7:8081".into()), ..options.clone() };
        assert!(admin.permitted(&plan("http://127.0.0.1:8080/whep/s{i}")).is_err());
        let media = ["127.0.0.1:50000".parse().unwrap(), "192.0.2.7:50000".parse().unwrap()];
        assert!(options.permitted_media(&media).is_err() && options.permitted_media(&media[..1]).is_ok());
        assert!(owned.permitted_media(&media).is_ok());
    }
}
