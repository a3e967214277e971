//! What a publisher sends, and how big its frames are.

use std::time::Duration;

use media_core::media::Codec;

use super::media_clock::ClockFaults;
use crate::media::scalability::{LadderStep, MAX_LAYERS, Scalability, ladder};
use crate::media::stamp::STAMP_LEN;
use crate::sdp::{CONSTRAINED_BASELINE, Imitation};

pub(crate) const AUDIO_INTERVAL: Duration = Duration::from_millis(20);
pub(crate) const AUDIO_BYTES: usize = 160;

const _: () = assert!(STAMP_LEN < AUDIO_BYTES);

/// What a publisher sends.
#[derive(Clone, Debug)]
pub struct PublisherOptions {
    /// VP8, VP9 or H264; `None` for no video.
    pub video: Option<Codec>,
    /// Opus, 50 packets a second.
    pub audio: bool,
    /// Encodings of the video that are sent beside each other under rids, of which the last has [`PublisherOptions::bitrate`] and
    /// each other one half the width and height of the next; 0 for no simulcast.
    pub simulcast: u8,
    /// Layers inside each encoding of the video.
    pub svc: Option<Scalability>,
    /// Video, in kbit/s of payload.
    pub bitrate: u32,
    /// Video frames a second, at least 1.
    pub fps: u32,
    /// Longest RTP payload, in bytes.
    pub packet_size: usize,
    /// From one keyframe to the next.
    pub gop: Duration,
    /// A keyframe is this many times as big as an interframe, at least 1; the average bit rate stays.
    pub keyframe_factor: f64,
    /// Sends keyframes at all, on its own and when asked; [`super::Publisher::allow_keyframes`] changes it.
    pub keyframes: bool,
    /// H.264 with intra refresh: after the first keyframe those of the cadence are replaced by parameter sets and a recovery
    /// point in front of an interframe. Keyframes that are asked for come.
    pub intra_refresh: bool,
    /// Whose offer and manners it has.
    pub imitates: Imitation,
    /// What its description says of H264's profile, as `profile-level-id`; empty for no `a=fmtp`.
    pub described_profile: String,
    /// What its H264 parameter sets say: `profile_idc`, constraint flags and `level_idc`, one byte each, such as `0x42e01f`.
    pub profile: u32,
    /// Added to the usual payload types, at most 8.
    pub payload_type_shift: u8,
    /// RTP sequence number of the first packet of every track; random if `None`.
    pub first_sequence: Option<u16>,
    /// RTP timestamp of the first frame of every track; random if `None`.
    pub first_timestamp: Option<u32>,
    /// What is wrong with its clock, or its uplink.
    pub faults: ClockFaults,
}

impl Default for PublisherOptions {
    fn default() -> PublisherOptions {
        PublisherOptions {
            video: Some(Codec::Vp8),
            audio: true,
            simulcast: 0,
            svc: None,
            bitrate: 1000,
            fps: 30,
            packet_size: 1100,
            gop: Duration::from_secs(2),
            keyframe_factor: 5.0,
            keyframes: true,
            intra_refresh: false,
            imitates: Imitation::Browser,
            described_profile: CONSTRAINED_BASELINE.to_owned(),
            profile: 0x42_e01f,
            payload_type_shift: 0,
            first_sequence: None,
            first_timestamp: None,
            faults: ClockFaults::default(),
        }
    }
}

impl PublisherOptions {
    /// Encodings of the video, at least one.
    pub(crate) fn encodings(&self) -> u8 {
        self.simulcast.clamp(1, MAX_LAYERS)
    }

    /// There is something that a server can choose from.
    pub(crate) fn has_layers(&self) -> bool {
        self.simulcast > 0 || self.svc.is_some()
    }

    /// The points of the video at which a viewer can be, by bit rate; one without layers.
    pub(crate) fn ladder(&self) -> Vec<LadderStep> {
        let mode = self.svc.unwrap_or(Scalability::ONLY);
        ladder(self.bitrate.into(), self.fps.into(), self.encodings(), mode)
    }

    /// The rids of its encodings, as browsers' pages name them, and OBS.
    pub(crate) fn rids(&self) -> Vec<String> {
        let names: &[&str] = match self.simulcast {
            0 => &[],
            1 => &["f"],
            2 => &["h", "f"],
            3 => &["q", "h", "f"],
            _ => &["e", "q", "h", "f"],
        };
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// Bytes of an interframe and of a keyframe.
    pub(crate) fn frame_sizes(&self) -> (usize, usize) {
        let fps = f64::from(self.fps.max(1));
        let average = f64::from(self.bitrate) * 125.0 / fps;
        let frames = (self.gop.as_secs_f64() * fps).max(1.0);
        let factor = self.keyframe_factor.max(1.0);
        let interframe =
            if self.keyframes && !self.intra_refresh { average * frames / (frames - 1.0 + factor) } else { average };
        ((interframe as usize).max(1), (interframe * factor) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keyframes_are_bursts_and_the_average_bit_rate_stays() {
        for factor in [1.0, 5.0, 12.0] {
            let media = PublisherOptions { keyframe_factor: factor, ..PublisherOptions::default() };
            let (interframe, keyframe) = media.frame_sizes();
            assert!((keyframe as f64 / interframe as f64 - factor).abs() < 0.01);
            let frames = f64::from(media.fps) * media.gop.as_secs_f64();
            let bytes = keyframe as f64 + (frames - 1.0) * interframe as f64;
            let kbits = bytes / 125.0 / media.gop.as_secs_f64();
            assert!((kbits / f64::from(media.bitrate) - 1.0).abs() < 0.01, "{factor}: {kbits}");
        }
    }
}
