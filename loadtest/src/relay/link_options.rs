//! What an impaired link is asked for, and what it counts.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The longest delay, in ms.
const LONGEST: f64 = 60_000.0;
/// The highest rate, in kbit/s.
const FASTEST: f64 = 100e6;

/// What happens to datagrams that go one way. The default is a perfect link.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct LinkOptions {
    /// Datagrams lost at random, in %.
    pub loss: f64,
    /// Datagrams with which a burst of losses begins, in %: the way into the bad state of the Gilbert–Elliott model.
    pub burst_enter: f64,
    /// Datagrams of a burst with which it is over, in %: bursts are 100 divided by this long on average.
    pub burst_leave: f64,
    /// Datagrams lost while a burst lasts, in %.
    pub burst_loss: f64,
    /// How long every datagram travels, in ms.
    pub delay: f64,
    /// Up to so many ms are added to the delay, evenly distributed.
    pub jitter: f64,
    /// Jitter alone lets no datagram overtake another.
    pub keep_order: bool,
    /// Datagrams that travel longer than the others and are overtaken, in %.
    pub reorder: f64,
    /// How much longer they travel, in ms.
    pub reorder_delay: f64,
    /// Datagrams that arrive twice, in %.
    pub duplicate: f64,
    /// What the bottleneck carries, in kbit/s of IPv4 packets; 0 if there is none.
    pub rate: f64,
    /// Longest wait in front of the bottleneck, in ms; who would have to wait longer is dropped.
    pub queue: f64,
    /// Bytes that wait in front of the bottleneck at most, headers included; 0 for no such bound.
    pub queue_bytes: u32,
}

impl Default for LinkOptions {
    fn default() -> LinkOptions {
        LinkOptions {
            loss: 0.0,
            burst_enter: 0.0,
            burst_leave: 25.0,
            burst_loss: 100.0,
            delay: 0.0,
            jitter: 0.0,
            keep_order: true,
            reorder: 0.0,
            reorder_delay: 10.0,
            duplicate: 0.0,
            rate: 0.0,
            queue: 300.0,
            queue_bytes: 0,
        }
    }
}

/// Options that make no link.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum LinkError {
    /// A value is out of its range.
    #[error("{0} must be from 0 to {1}")]
    Range(&'static str, f64),
    /// A name is unknown, or a value is of another type.
    #[error("{0}")]
    Setting(String),
}

impl LinkOptions {
    /// These options with some of them changed, by the names of the command line.
    ///
    /// # Errors
    /// Unknown names, values of the wrong type or out of range.
    pub fn changed(&self, changes: &Map<String, Value>) -> Result<LinkOptions, LinkError> {
        let setting = |error: serde_json::Error| LinkError::Setting(error.to_string());
        let mut value = serde_json::to_value(self).map_err(setting)?;
        if let Value::Object(fields) = &mut value {
            fields.extend(changes.clone());
        }
        let options: LinkOptions = serde_json::from_value(value).map_err(setting)?;
        options.check().map(|()| options)
    }

    /// Looks whether every value is in its range.
    ///
    /// # Errors
    /// The first that is not.
    pub fn check(&self) -> Result<(), LinkError> {
        let ranges = [
            ("loss", self.loss, 100.0),
            ("burst-enter", self.burst_enter, 100.0),
            ("burst-leave", self.burst_leave, 100.0),
            ("burst-loss", self.burst_loss, 100.0),
            ("reorder", self.reorder, 100.0),
            ("duplicate", self.duplicate, 100.0),
            ("delay", self.delay, LONGEST),
            ("jitter", self.jitter, LONGEST),
            ("reorder-delay", self.reorder_delay, LONGEST),
            ("queue", self.queue, LONGEST),
            ("rate", self.rate, FASTEST),
        ];
        let wrong = ranges.into_iter().find(|(_, value, most)| !(0.0..=*most).contains(value));
        wrong.map_or(Ok(()), |(name, _, most)| Err(LinkError::Range(name, most)))
    }
}

/// What a link did, by cause. Datagrams if nothing else is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LinkCounts {
    /// Received.
    pub received: u64,
    /// Their bytes, without headers.
    pub received_bytes: u64,
    /// Went out, duplicates included.
    pub forwarded: u64,
    /// Their bytes, without headers.
    pub forwarded_bytes: u64,
    /// Lost at random.
    pub lost: u64,
    /// Lost in bursts.
    pub lost_in_bursts: u64,
    /// Dropped, since the queue in front of the bottleneck was full.
    pub dropped_by_queue: u64,
    /// Dropped, since the link held as much as it can hold. That is no impairment but a limit of this model.
    pub overflowed: u64,
    /// Went out twice.
    pub duplicated: u64,
    /// Went out after one that had come in later (RFC 4737 §3.3).
    pub reordered: u64,
    /// Sum of all waits in front of the bottleneck, in µs.
    pub queued_us: u64,
    /// The longest of them, in µs.
    pub longest_queue_us: u64,
}

impl LinkCounts {
    /// Adds what another link did, or this one later.
    pub fn add(&mut self, other: &LinkCounts) {
        self.received += other.received;
        self.received_bytes += other.received_bytes;
        self.forwarded += other.forwarded;
        self.forwarded_bytes += other.forwarded_bytes;
        self.lost += other.lost;
        self.lost_in_bursts += other.lost_in_bursts;
        self.dropped_by_queue += other.dropped_by_queue;
        self.overflowed += other.overflowed;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.queued_us += other.queued_us;
        self.longest_queue_us = self.longest_queue_us.max(other.longest_queue_us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_change_by_name_and_bad_ones_are_refused() {
        let map = |text: &str| serde_json::from_str::<Map<String, Value>>(text).unwrap();
        let base = LinkOptions { loss: 1.0, ..LinkOptions::default() };
        let changed = base.changed(&map(r#"{"burst-enter": 2, "rate": 1250.5, "keep-order": false}"#)).unwrap();
        assert_eq!(changed, LinkOptions { burst_enter: 2.0, rate: 1250.5, keep_order: false, ..base });
        for bad in [r#"{"loss": 101}"#, r#"{"loss": -1}"#, r#"{"delay": 60001}"#, r#"{"rate": 1e99}"#] {
            assert!(matches!(base.changed(&map(bad)), Err(LinkError::Range(..))), "{bad}");
        }
        for bad in [r#"{"lost": 1}"#, r#"{"loss": "5"}"#, r#"{"loss": null}"#, r#"{"queue-bytes": -1}"#] {
            assert!(matches!(base.changed(&map(bad)), Err(LinkError::Setting(_))), "{bad}");
        }
        assert_eq!(LinkOptions { jitter: f64::NAN, ..base }.check(), Err(LinkError::Range("jitter", LONGEST)));
    }
}
