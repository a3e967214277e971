//! Viewers on links that carry so much: each class has a relay of its own in front of the server, and each viewer a link of its own
//! in it.

use reqwest::Url;
use serde::Serialize;

use crate::client::{AUDIO_BYTES, AUDIO_INTERVAL, PublisherOptions};
use crate::media::scalability::LadderStep;
use crate::relay::{LinkOptions, Relay, RelayError, RelayOptions};

/// One-way delay of a link, in ms.
const DELAY: f64 = 20.0;
/// Headers of IPv4, UDP and RTP with its extension, and the tag of SRTP.
const OVERHEAD: f64 = 20.0 + 8.0 + 12.0 + 16.0 + 10.0;
/// A server that fills a link to the brim fills its queue: so much of it is taken.
const USABLE: f64 = 0.9;

/// Viewers whose links carry the same.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LinkClass {
    /// What each link carries, in kbit/s of IPv4 packets; 0 for all that there is.
    pub kbit_per_second: f64,
    /// Viewers.
    pub viewers: usize,
}

/// The links of one class.
pub(crate) struct Links {
    relay: Relay,
}

impl Links {
    /// Links to the server of `url`.
    pub(crate) fn open(url: &str, kbit_per_second: f64, loss: f64) -> Result<Links, RelayError> {
        let target = Url::parse(url).map_err(|_| RelayError::Target(url.to_owned()))?.origin().ascii_serialization();
        let up = LinkOptions { delay: DELAY, ..LinkOptions::default() };
        let down = LinkOptions { rate: kbit_per_second, loss, ..up };
        Ok(Links {
            relay: Relay::start(RelayOptions { target, up, down, max_flows: 4096, ..RelayOptions::default() })?,
        })
    }

    /// The same resource by way of these links.
    pub(crate) fn detour(&self, url: &str) -> String {
        let Ok(url) = Url::parse(url) else { return url.to_owned() };
        let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
        format!("{}{}{query}", self.relay.url(), url.path())
    }

    /// Datagrams that the relay's own sockets had no room for.
    pub(crate) fn overflowed(&self) -> u64 {
        self.relay.counts().overflowed
    }
}

/// What a link has to carry for a viewer at a point of the ladder, in kbit/s of IPv4 packets.
fn needed(step: &LadderStep, media: &PublisherOptions) -> f64 {
    // A frame that does not fill its packets has headers all the same.
    let full = step.kbit_per_second * 125.0 / media.packet_size as f64;
    let packets = full.max(step.frame_rate) + step.frame_rate / 2.0;
    let audio = if media.audio { (AUDIO_BYTES as f64 + OVERHEAD) * 8e-3 / AUDIO_INTERVAL.as_secs_f64() } else { 0.0 };
    step.kbit_per_second + packets * OVERHEAD * 8e-3 + audio
}

/// The highest point of the ladder at the full frame rate that fits into a link, or where none does the highest of the others; none if
/// not even the lowest fits. Whether fewer pictures of a greater size are better is a matter of taste.
pub(crate) fn right_step(ladder: &[LadderStep], kbit_per_second: f64, media: &PublisherOptions) -> Option<usize> {
    if kbit_per_second == 0.0 {
        return ladder.len().checked_sub(1);
    }
    let fits = |step: &LadderStep| needed(step, media) <= USABLE * kbit_per_second;
    let most = ladder.iter().map(|step| step.frame_rate).fold(0.0, f64::max);
    let full = ladder.iter().rposition(|step| fits(step) && step.frame_rate >= most);
    full.or_else(|| ladder.iter().rposition(fits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_layer_is_the_highest_that_a_link_carries_with_its_headers() {
        let media = PublisherOptions { simulcast: 3, bitrate: 2000, ..PublisherOptions::default() };
        let ladder = media.ladder();
        let right = |kbit| right_step(&ladder, kbit, &media);
        assert_eq!(ladder.len(), 3);
        // 2,000, 400 and 120 kbit/s of video, with some 90 of audio and the headers.
        assert_eq!((right(0.0), right(3000.0), right(2200.0)), (Some(2), Some(2), Some(1)));
        assert_eq!((right(620.0), right(400.0), right(150.0)), (Some(1), Some(0), None));
        let svc = Some("L1T3".parse().unwrap());
        let thinned = PublisherOptions { svc, bitrate: 1000, ..media.clone() };
        let ladder_of_nine = thinned.ladder();
        let right = |kbit| right_step(&ladder_of_nine, kbit, &thinned).map(|step| &ladder_of_nine[step]);
        let seen = |kbit| right(kbit).map(|step| (step.height, step.frame_rate));
        assert_eq!(seen(220.0), Some((180, 30.0)), "though a larger picture at a quarter of the pace would fit");
        assert_eq!((seen(165.0), seen(20.0)), (Some((180, 15.0)), None));
        let quiet = PublisherOptions { audio: false, ..media };
        assert_eq!(right_step(&ladder, 165.0, &quiet), Some(0));
    }
}
