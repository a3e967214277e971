//! Viewers on paths that carry only a part of the stream: the relay is in front of the server for them alone, and the
//! others tell whether they notice.

use reqwest::Url;
use serde::Serialize;

use crate::client::{AUDIO_BYTES, AUDIO_INTERVAL, PublisherOptions};
use crate::measure::figures::Phase;
use crate::relay::{LinkCounts, LinkOptions, Relay, RelayError, RelayOptions};
use crate::tally::TrackFigures;

/// One-way delay of a narrow path, in ms.
const DELAY: f64 = 20.0;

/// The paths, and the relay that makes them.
pub(crate) struct NarrowPaths {
    relay: Relay,
    kbit_per_second: f64,
}

impl NarrowPaths {
    /// Paths to the server of `url` that carry `share` of a stream, and lose `loss` of 100 datagrams besides.
    pub(crate) fn open(url: &str, media: &PublisherOptions, share: f64, loss: f64) -> Result<NarrowPaths, RelayError> {
        let target = Url::parse(url).map_err(|_| RelayError::Target(url.to_owned()))?.origin().ascii_serialization();
        let video = media.video.map_or(0.0, |_| f64::from(media.bitrate));
        let audio = (AUDIO_BYTES * 8) as f64 / AUDIO_INTERVAL.as_secs_f64() / 1000.0;
        let stream = video + if media.audio { audio } else { 0.0 };
        let delayed = LinkOptions { delay: DELAY, ..LinkOptions::default() };
        let down = LinkOptions { loss, rate: share * stream, ..delayed };
        let relay = Relay::start(RelayOptions { target, up: delayed, down, ..RelayOptions::default() })?;
        Ok(NarrowPaths { relay, kbit_per_second: down.rate })
    }

    /// The same resource by way of these paths.
    pub(crate) fn detour(&self, url: &str) -> String {
        let Ok(url) = Url::parse(url) else { return url.to_owned() };
        let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
        format!("{}{}{query}", self.relay.url(), url.path())
    }

    /// Ends the paths and sums up. `phases` are those without, with and again without them.
    pub(crate) fn close(self, viewers: usize, narrow: TrackFigures, phases: &[Phase]) -> NarrowFigures {
        let (counts, kbit_per_second) = (self.relay.counts(), self.kbit_per_second);
        let ratio = |value: fn(&Phase) -> Option<f64>, to: usize| {
            Some(value(phases.get(1)?)? / value(phases.get(to)?).filter(|value| *value > 0.0)?)
        };
        let (p50, p99) = (|phase: &Phase| Some(phase.latency_ms?.p50), |phase: &Phase| Some(phase.latency_ms?.p99));
        NarrowFigures {
            viewers,
            kbit_per_second,
            p50_ratio: ratio(p50, 0),
            p50_ratio_after: ratio(p50, 2),
            p99_ratio: ratio(p99, 0),
            p99_ratio_after: ratio(p99, 2),
            standing_lost: phases.iter().map(|phase| phase.lost).sum(),
            narrow,
            path: counts.down,
            overflowed: counts.overflowed,
        }
    }
}

/// What viewers on narrow paths did to the others, and what became of them.
#[derive(Clone, Debug, Serialize)]
pub struct NarrowFigures {
    /// Viewers on narrow paths.
    pub viewers: usize,
    /// What each of their paths carries.
    pub kbit_per_second: f64,
    /// The median of the others' latency beside them, by that before.
    pub p50_ratio: Option<f64>,
    /// The same by that after.
    pub p50_ratio_after: Option<f64>,
    /// The 99th percentile of the others' latency beside them, by that before.
    pub p99_ratio: Option<f64>,
    /// The same by that after.
    pub p99_ratio_after: Option<f64>,
    /// Packets that the others lost.
    pub standing_lost: u64,
    /// What the viewers on narrow paths received.
    pub narrow: TrackFigures,
    /// What became of the datagrams on their paths, all paths together.
    pub path: LinkCounts,
    /// Datagrams that the relay's own sockets had no room for.
    pub overflowed: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detour_leads_to_the_same_resource() {
        let media = PublisherOptions { bitrate: 1000, audio: false, ..PublisherOptions::default() };
        let paths = NarrowPaths::open("http://127.0.0.1:9/whep/a?b=c", &media, 0.5, 2.0).unwrap();
        assert_eq!(paths.detour("http://127.0.0.1:9/whep/a?b=c"), format!("{}/whep/a?b=c", paths.relay.url()));
        assert_eq!(paths.kbit_per_second, 500.0);
        assert!(NarrowPaths::open("no url", &media, 0.5, 2.0).is_err());
        assert!(NarrowPaths::open("http://h/", &media, 0.5, 101.0).is_err());
    }
}
