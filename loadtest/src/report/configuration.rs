//! What a test was asked for.

use media_core::media::Codec;
use serde::Serialize;

use crate::client::{PublisherOptions, Verify};
use crate::plan::{Campaign, Scenario};

/// What was asked for. Tokens are not part of it.
#[derive(Clone, Debug, Serialize)]
pub struct Configuration {
    /// Version of the load test.
    pub version: &'static str,
    /// WHIP endpoint.
    pub whip: Option<String>,
    /// WHEP endpoint.
    pub whep: Option<String>,
    /// Publishers.
    pub publishers: usize,
    /// Viewers, of a knee those of its first step.
    pub viewers: usize,
    /// Seconds of running media, of a knee those of each step.
    pub seconds: f64,
    /// Joins a second.
    pub rate: Option<f64>,
    /// What the publishers send, dealt out in turn.
    pub streams: Vec<String>,
    /// SRTP profiles that clients offer.
    pub srtp: Vec<&'static str>,
    /// Which packets are verified.
    pub verify: String,
    /// Viewers receive with UDP_GRO.
    pub receive_runs: bool,
    /// Clients send and receive by TCP.
    pub ice_tcp: bool,
    /// Threads of the viewers.
    pub threads: usize,
    /// The scenario's own settings.
    pub scenario: Scenario,
}

impl Configuration {
    pub(super) fn of(campaign: &Campaign) -> Configuration {
        let plan = &campaign.plan;
        let mix = if campaign.mix.is_empty() { std::slice::from_ref(&plan.media) } else { &campaign.mix[..] };
        Configuration {
            version: env!("CARGO_PKG_VERSION"),
            whip: plan.whip.clone(),
            whep: plan.whep.clone(),
            publishers: plan.publishers,
            viewers: plan.viewers,
            seconds: plan.duration.as_secs_f64(),
            rate: plan.rate,
            streams: mix.iter().map(describe).collect(),
            srtp: plan.client.srtp_profiles.iter().map(|profile| profile.as_str()).collect(),
            verify: match plan.client.verify {
                Verify::All => "every packet".into(),
                Verify::Sample(one_in) => format!("one packet in {one_in}"),
            },
            receive_runs: plan.client.receive_runs,
            ice_tcp: plan.client.ice_tcp,
            threads: plan.threads,
            scenario: campaign.scenario.clone(),
        }
    }
}

fn describe(media: &PublisherOptions) -> String {
    let video = media.video.map(|codec| {
        let PublisherOptions { bitrate, fps, packet_size, keyframe_factor, .. } = media;
        let gop = media.gop.as_secs_f64();
        let keyframes = match media.intra_refresh {
            true => format!("one keyframe and then parameter sets without one every {gop} s"),
            false => format!("a keyframe of {keyframe_factor} frames every {gop} s"),
        };
        let layers = match (media.simulcast, media.svc) {
            (0, None) => String::new(),
            (0, Some(mode)) => format!(" {mode}"),
            (encodings, None) => format!(" in {encodings} encodings"),
            (encodings, Some(mode)) => format!(" in {encodings} encodings of {mode}"),
        };
        format!("{codec}{layers} {bitrate} kbit/s, {fps} frames/s, payloads up to {packet_size} bytes, {keyframes}")
    });
    let audio = media.audio.then(|| format!("{} 50 packets/s", Codec::Opus));
    let faults = Some(media.faults.to_string()).filter(|faults| !faults.is_empty());
    video.into_iter().chain(audio).chain(faults).collect::<Vec<_>>().join("; ")
}
