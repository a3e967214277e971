//! A synthetic encoder: how big a track's frames are, and when they are due.

use std::time::{Duration, Instant};

use media_core::media::{Codec, MediaKind};

use super::figures::PublisherFigures;
use super::media_clock::ClockFaults;
use super::publisher_options::{AUDIO_BYTES, AUDIO_INTERVAL, PublisherOptions};
use crate::media::frames::{LayerFrame, Packetizer, Payload};
use crate::media::scalability::{LayerId, Scalability, picture_size, share};
use crate::media::stamp::{Content, FramePart};

/// A frame that leaves later than this after its time is late: whoever measures latency should know.
const LATE: Duration = Duration::from_millis(10);
/// What an encoder makes of an interframe while it saves the bytes of keyframes that it was asked for.
const SAVING: f64 = 0.7;

/// A payload that is to be sent.
pub(super) struct EncodedPayload {
    pub(super) payload: Payload,
    pub(super) content: Content,
    pub(super) part: FramePart,
    pub(super) marker: bool,
    pub(super) timestamp: u32,
}

/// The encoder of one track, or of one encoding of it.
pub(super) struct Encoder {
    codec: Codec,
    packetizer: Packetizer,
    /// Its number among the encodings of the track, and the layers inside it.
    encoding: u8,
    scalability: Scalability,
    /// Pictures since the last keyframe.
    position: u32,
    interval: Duration,
    /// Bytes of an interframe and of a keyframe, and of the average frame.
    sizes: (usize, usize),
    average: f64,
    /// Bytes that were sent beyond the average.
    debt: f64,
    first_timestamp: u32,
    faults: ClockFaults,
    frames: u64,
    next_frame: Instant,
    /// `None`: on request only.
    next_keyframe: Option<Instant>,
    /// When the next frame is due that begins a refresh, of an encoder with intra refresh.
    next_refresh: Instant,
}

/// What kind of frame is made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FrameKind {
    Key,
    /// An interframe behind parameter sets and a recovery point.
    Refresh,
    Inter,
}

impl Encoder {
    /// The first frame is due now, at `first_timestamp`. `encoding` is its number of those of the track.
    pub(super) fn new(codec: Codec, encoding: u8, first_timestamp: u32, media: &PublisherOptions) -> Encoder {
        let video = codec.kind() == MediaKind::Video;
        let now = Instant::now();
        let mut packetizer = Packetizer::new(codec, media.packet_size);
        packetizer.set_profile(media.profile);
        let (encodings, scalability) = (media.encodings(), media.svc.unwrap_or(Scalability::ONLY));
        if media.has_layers() {
            let count = encodings + scalability.spatial - 1;
            packetizer.set_layers(scalability, picture_size(count, encoding + scalability.spatial - 1));
        }
        let part = share(encodings, encoding);
        let (interframe, keyframe) = media.frame_sizes();
        let scaled = |bytes: usize| ((bytes as f64 * part) as usize).max(1);
        Encoder {
            codec,
            packetizer,
            encoding,
            scalability,
            position: 0,
            interval: if video { Duration::from_secs(1) / media.fps.max(1) } else { AUDIO_INTERVAL },
            sizes: if video { (scaled(interframe), scaled(keyframe)) } else { (AUDIO_BYTES, AUDIO_BYTES) },
            average: part * f64::from(media.bitrate) * 125.0 / f64::from(media.fps.max(1)),
            debt: 0.0,
            first_timestamp,
            faults: media.faults,
            frames: 0,
            next_frame: now,
            next_keyframe: Some(now),
            next_refresh: now,
        }
    }

    fn clock_rate(&self) -> u32 {
        if self.codec.kind() == MediaKind::Video { 90_000 } else { 48_000 }
    }

    /// The RTP timestamp of the next frame.
    pub(super) fn timestamp(&self) -> u32 {
        let nanos = self.interval.as_nanos() as u64 * self.frames;
        let ticks = self.faults.rtp_time(Duration::from_nanos(nanos)) * f64::from(self.clock_rate());
        self.first_timestamp.wrapping_add(ticks.round() as i64 as u32)
    }

    /// The next frame is due now, and is a keyframe.
    pub(super) fn start(&mut self, now: Instant) {
        self.next_frame = now;
        self.next_keyframe = Some(now);
    }

    /// Makes the next frame a keyframe.
    pub(super) fn request_keyframe(&mut self, now: Instant) {
        self.next_keyframe = Some(now);
    }

    /// The next frame is a keyframe, whose parameter sets name another profile.
    pub(super) fn set_profile(&mut self, now: Instant, profile: u32) {
        self.packetizer.set_profile(profile);
        self.next_keyframe = Some(now);
    }

    /// When the next frame is due.
    pub(super) fn deadline(&self) -> Instant {
        self.next_frame
    }

    /// Bytes of the next frame. Keyframes in their cadence are part of the plan; those beyond it, for which viewers asked,
    /// are saved again in the frames that follow.
    fn video_size(&mut self, keyframe: bool, temporal: u8) -> usize {
        let weight = self.scalability.weight(temporal);
        let size = match self.sizes {
            (_, size) if keyframe => size,
            (size, largest) if self.debt > largest as f64 => (size as f64 * weight * SAVING) as usize,
            (size, _) => (size as f64 * weight) as usize,
        };
        self.debt = (self.debt + size as f64 - self.average * weight).max(0.0);
        size
    }

    /// What the next frame is.
    fn kind(&mut self, now: Instant, media: &PublisherOptions) -> FrameKind {
        if self.codec.kind() == MediaKind::Audio {
            return FrameKind::Inter;
        }
        if media.keyframes && self.next_keyframe.is_some_and(|due| now >= due) {
            self.next_keyframe = (!media.intra_refresh).then(|| now + media.gop);
            self.next_refresh = now + media.gop;
            return FrameKind::Key;
        }
        if media.intra_refresh && now >= self.next_refresh {
            self.next_refresh = now + media.gop;
            return FrameKind::Refresh;
        }
        FrameKind::Inter
    }

    /// Hands the payloads of the frames that are due to `take`.
    pub(super) fn produce(
        &mut self,
        now: Instant,
        media: &PublisherOptions,
        figures: &mut PublisherFigures,
        mut take: impl FnMut(EncodedPayload),
    ) {
        if now > self.next_frame + Duration::from_secs(1) {
            // The machine slept or is overloaded: go on from here instead of catching up in a burst.
            self.next_frame = now;
        }
        while now >= self.next_frame {
            let late = now - self.next_frame;
            figures.frames += 1;
            figures.late_frames += u64::from(late > LATE);
            let video = self.codec.kind() == MediaKind::Video;
            let kind = self.kind(now, media);
            figures.keyframes += u64::from(kind == FrameKind::Key);
            let timestamp = self.timestamp();
            let frames = if video { self.picture(kind) } else { vec![(FramePart::default(), self.audio())] };
            let last_frame = frames.len() - 1;
            for (index, (part, payloads)) in frames.into_iter().enumerate() {
                let last = payloads.len() - 1;
                for (packet, payload) in payloads.into_iter().enumerate() {
                    let is_start = index == 0 && packet == 0;
                    let content = match (video, kind == FrameKind::Key && is_start) {
                        (false, _) => Content::Audio,
                        (true, true) => Content::KeyframeStart,
                        (true, false) => Content::Video,
                    };
                    // The marker ends a picture; audio has it on the first packet of a talkspurt.
                    let marker = if video { index == last_frame && packet == last } else { self.frames == 0 };
                    take(EncodedPayload { payload, content, part, marker, timestamp });
                }
            }
            self.frames += 1;
            self.next_frame += self.interval;
        }
    }

    fn audio(&mut self) -> Vec<Payload> {
        self.packetizer.frame(false, self.sizes.0)
    }

    /// The frames of the next picture, one for each spatial layer.
    fn picture(&mut self, kind: FrameKind) -> Vec<(FramePart, Vec<Payload>)> {
        let (keyframe, mode) = (kind == FrameKind::Key, self.scalability);
        self.position = if keyframe { 0 } else { self.position + 1 };
        let (picture, pattern) = (self.frames as u32, mode.pattern());
        let place = self.position as usize % pattern.len();
        let temporal = pattern[place];
        // Layers that were skipped begin with a keyframe, so that what is referred to was sent; the first picture of a stream
        // that begins without one refers to nothing.
        let earlier = || picture.checked_sub(mode.distance(place).min(self.position));
        let reference = if keyframe { None } else { earlier() };
        let bytes = self.video_size(keyframe, temporal);
        let refers_down = keyframe || !mode.key_only;
        (0..mode.spatial)
            .map(|spatial| {
                let inter_layer = spatial > 0 && refers_down;
                let frame = LayerFrame {
                    keyframe,
                    spatial,
                    temporal,
                    inter_layer,
                    not_reference_for_inter_layer: spatial + 1 == mode.spatial || !refers_down,
                    // The last picture of a period refers to one of a higher layer than the lowest, if there are three.
                    sync: temporal > 0 && place < 3,
                };
                let size = ((bytes as f64 * mode.own_share(spatial)) as usize).max(1);
                let payloads = match kind {
                    FrameKind::Refresh => self.packetizer.refresh(size),
                    FrameKind::Key | FrameKind::Inter => self.packetizer.layer_frame(&frame, size),
                };
                let layer = LayerId { encoding: self.encoding, spatial, temporal };
                let packets = u16::try_from(payloads.len()).unwrap_or(u16::MAX);
                (FramePart { layer, picture, reference, inter_layer, packets }, payloads)
            })
            .collect()
    }

    /// Lets time pass without frames; the next one is a keyframe.
    pub(super) fn skip(&mut self, now: Instant) {
        while now >= self.next_frame {
            self.frames += 1;
            self.next_frame += self.interval;
        }
        self.next_keyframe = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keyframes_on_request_are_saved_again() {
        let media = PublisherOptions::default();
        let mut encoder = Encoder::new(Codec::Vp8, 0, 1, &media);
        let bytes: usize = (0..600).map(|frame| encoder.video_size(frame % 10 == 0, 0)).sum();
        let planned = 20.0 * f64::from(media.bitrate) * 125.0;
        assert!((bytes as f64 / planned - 1.0).abs() < 0.1, "{bytes} of {planned}");
    }
}
