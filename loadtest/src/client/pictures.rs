//! Which pictures a viewer could have shown, and at which layer: a decoder's rules without a decoder.
//!
//! Every packet says by its stamp which frame it is a part of and what that frame refers to. A frame can be decoded once all of it
//! is there and all that it refers to was decoded; a keyframe makes a decoder forget what was before.

use std::collections::VecDeque;

use crate::media::scalability::LayerId;
use crate::media::stamp::{FramePart, Stamp};

/// Frames that wait for packets, or for what they refer to.
const MAX_WAITING: usize = 64;
/// Decoded frames that others may refer to.
const MAX_DECODED: usize = 64;
/// Changes and freezes of one viewer that are kept.
const MAX_EVENTS: usize = 4096;
/// Pictures whose pace is the usual one.
const PACE: usize = 30;
/// A pause is a freeze if it is so much longer than the usual pace, in seconds, and longer than three times that (W3C webrtc-stats,
/// `freezeCount`). No pace is usual that is slower than that of the lowest temporal layer.
const FREEZE: f64 = 0.15;
/// The temporal layer is the highest of which a picture was shown in this time, in seconds.
const TEMPORAL_WINDOW: f64 = 0.5;

/// What a viewer saw of a track. Times are seconds since its POST.
#[derive(Clone, Debug, Default)]
pub struct Pictures {
    /// When another layer was shown than before, and which.
    pub changes: Vec<(f64, LayerId)>,
    /// Begin and end of each freeze.
    pub freezes: Vec<(f64, f64)>,
    /// Pictures that could be shown.
    pub shown: u64,
    /// Frames that were whole and never could be decoded.
    pub undecodable: u64,
    /// When the last picture was shown.
    pub last: Option<f64>,
}

/// A frame that is not decoded.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    epoch: u32,
    part: FramePart,
    /// When the publisher sent the first packet of it that came, in ns.
    sent: u64,
    received: u16,
}

/// A frame by its RTP stream, picture and spatial layer.
type FrameId = (u32, u32, u8);

/// Counts the pictures of one track at one viewer.
#[derive(Debug, Default)]
pub(super) struct PictureTally {
    pictures: Pictures,
    waiting: VecDeque<Waiting>,
    decoded: VecDeque<FrameId>,
    /// The present picture: its RTP stream and number, when its first frame was decoded, and its highest layer.
    present: Option<(u32, u32, f64, LayerId)>,
    /// The last intervals between pictures.
    pace: VecDeque<f64>,
    /// When each temporal layer was shown last.
    temporal: [Option<f64>; 4],
    /// The last picture that was shown by its RTP stream, its number and when it was sent, in ns.
    sent: Option<(u32, u32, u64)>,
    /// Seconds from one picture of the publisher to the next.
    interval: Option<f64>,
}

impl PictureTally {
    /// A packet that was not received before, at `at` seconds.
    pub(super) fn note(&mut self, at: f64, stamp: &Stamp) {
        let (epoch, part) = (stamp.epoch, stamp.part);
        let same =
            |frame: &Waiting| (frame.epoch, frame.part.picture, frame.part.layer) == (epoch, part.picture, part.layer);
        match self.waiting.iter_mut().find(|frame| same(frame)) {
            Some(frame) => frame.received = frame.received.saturating_add(1),
            None => {
                if self.waiting.len() == MAX_WAITING
                    && let Some(frame) = self.waiting.pop_front()
                {
                    self.pictures.undecodable += u64::from(frame.received >= frame.part.packets);
                }
                self.waiting.push_back(Waiting { epoch, part, sent: stamp.sent, received: 1 });
            }
        }
        while let Some(index) = self.waiting.iter().position(|frame| self.is_decodable(frame)) {
            if let Some(frame) = self.waiting.remove(index) {
                self.decode(at, frame);
            }
        }
    }

    /// What was seen so far.
    pub(super) fn pictures(&self) -> Pictures {
        let mut pictures = self.pictures.clone();
        let whole = self.waiting.iter().filter(|frame| frame.received >= frame.part.packets).count();
        pictures.undecodable += whole as u64;
        if let Some((_, _, at, layer)) = self.present {
            note_layer(&mut pictures, at, self.shown_layer(at, layer));
        }
        pictures
    }

    fn is_decodable(&self, frame: &Waiting) -> bool {
        let Waiting { epoch, part, received, .. } = *frame;
        let FramePart { layer, picture, reference, inter_layer, packets } = part;
        let has = |picture, spatial| self.decoded.contains(&(epoch, picture, spatial));
        received >= packets
            && reference.is_none_or(|reference| has(reference, layer.spatial))
            && (!inter_layer || layer.spatial.checked_sub(1).is_some_and(|below| has(picture, below)))
    }

    fn decode(&mut self, at: f64, Waiting { epoch, part, sent, .. }: Waiting) {
        let FramePart { layer, picture, reference, .. } = part;
        if reference.is_none() && layer.spatial == 0 {
            self.decoded.clear();
        }
        if self.decoded.len() == MAX_DECODED {
            self.decoded.pop_front();
        }
        self.decoded.push_back((epoch, picture, layer.spatial));
        match &mut self.present {
            Some((of, number, _, highest)) if (*of, *number) == (epoch, picture) => {
                highest.spatial = highest.spatial.max(layer.spatial);
            }
            // One that comes after a later one is shown no more.
            Some((of, number, ..)) if *of == epoch && picture < *number => {}
            _ => self.show(at, epoch, part, sent),
        }
    }

    /// Another picture begins.
    fn show(&mut self, at: f64, epoch: u32, part: FramePart, sent: u64) {
        let before = self.sent.replace((epoch, part.picture, sent));
        if let Some((_, number, at)) = before.filter(|(of, number, _)| *of == epoch && *number < part.picture) {
            let interval = sent.saturating_sub(at) as f64 / 1e9 / f64::from(part.picture - number);
            self.interval = Some(self.interval.map_or(interval, |known| known + (interval - known) / 8.0));
        }
        if let Some((_, _, before, layer)) = self.present.take() {
            let shown = self.shown_layer(before, layer);
            note_layer(&mut self.pictures, before, shown);
            self.note_interval(before, at);
        }
        if let Some(last) = self.temporal.get_mut(usize::from(part.layer.temporal)) {
            *last = Some(at);
        }
        self.pictures.shown += 1;
        self.pictures.last = Some(at);
        self.present = Some((epoch, part.picture, at, part.layer));
    }

    /// The layer of a picture, with the temporal layer that its neighbours have.
    fn shown_layer(&self, at: f64, layer: LayerId) -> LayerId {
        let recent = |last: &Option<f64>| last.is_some_and(|last| at - last <= TEMPORAL_WINDOW);
        let temporal = self.temporal.iter().rposition(recent).map_or(layer.temporal, |highest| highest as u8);
        LayerId { temporal, ..layer }
    }

    fn note_interval(&mut self, from: f64, to: f64) {
        let interval = to - from;
        let mean = self.pace.iter().sum::<f64>() / self.pace.len().max(1) as f64;
        let highest = self.temporal.iter().rposition(Option::is_some).unwrap_or_default();
        // Each temporal layer doubles the pace.
        let slowest = self.interval.map(|interval| interval * f64::from(1_u32 << highest));
        let usual = slowest.map_or(mean, |slowest| if self.pace.is_empty() { slowest } else { mean.min(slowest) });
        if usual > 0.0 && interval > freeze_beyond(usual) {
            if self.pictures.freezes.len() < MAX_EVENTS {
                self.pictures.freezes.push((from, to));
            }
            return;
        }
        if self.pace.len() == PACE {
            self.pace.pop_front();
        }
        self.pace.push_back(interval);
    }
}

fn freeze_beyond(usual: f64) -> f64 {
    (3.0 * usual).max(usual + FREEZE)
}

fn note_layer(pictures: &mut Pictures, at: f64, layer: LayerId) {
    let is_new = pictures.changes.last().is_none_or(|(_, last)| *last != layer);
    if is_new && pictures.changes.len() < MAX_EVENTS {
        pictures.changes.push((at, layer));
    }
}

impl Pictures {
    /// The layer at a time; none before the first picture, and in a freeze.
    pub fn at(&self, at: f64) -> Option<LayerId> {
        let index = self.changes.partition_point(|(begin, _)| *begin <= at).checked_sub(1)?;
        let frozen = self.freezes.partition_point(|(begin, _)| *begin <= at).checked_sub(1);
        // The first moments of a pause are those of any other picture.
        let is_frozen = frozen.is_some_and(|index| {
            let (begin, end) = self.freezes[index];
            at < end && at > begin + FREEZE
        });
        (!is_frozen && self.last.is_some_and(|last| at <= last + FREEZE)).then(|| self.changes[index].1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::PublisherOptions;
    use crate::client::encoder::{EncodedPayload, Encoder};
    use crate::client::figures::PublisherFigures;
    use crate::media::scalability::Scalability;
    use crate::media::stamp::Content;
    use media_core::media::Codec;
    use std::time::{Duration, Instant};

    /// What encoders send in some seconds of virtual time: when, and the stamp of each packet.
    fn sent(media: &PublisherOptions, codec: Codec, encoding: u8, seconds: f64) -> Vec<(f64, Stamp)> {
        let mut encoder = Encoder::new(codec, encoding, 0, media);
        let begun = Instant::now();
        encoder.start(begun);
        let mut packets = Vec::new();
        let mut figures = PublisherFigures::default();
        for tick in 0..(seconds * 100.0) as u32 {
            let at = f64::from(tick) / 100.0;
            encoder.produce(begun + Duration::from_secs_f64(at), media, &mut figures, |payload| {
                let EncodedPayload { content, part, .. } = payload;
                let counter = packets.len() as u64;
                let sent = (at * 1e9) as u64;
                packets.push((at, Stamp { stream: 1, epoch: encoding.into(), content, part, counter, sent }));
            });
        }
        packets
    }

    fn seen(packets: &[(f64, Stamp)]) -> Pictures {
        let mut tally = PictureTally::default();
        packets.iter().for_each(|(at, stamp)| tally.note(*at, stamp));
        tally.pictures()
    }

    fn layered(mode: &str) -> PublisherOptions {
        PublisherOptions { svc: Some(mode.parse::<Scalability>().unwrap()), ..PublisherOptions::default() }
    }

    fn layer(encoding: u8, spatial: u8, temporal: u8) -> LayerId {
        LayerId { encoding, spatial, temporal }
    }

    #[test]
    fn everything_that_is_sent_can_be_shown_at_the_highest_layer() {
        for mode in ["L1T1", "L1T2", "L1T3", "L2T1", "L3T3", "L3T3_KEY"] {
            let media = layered(mode);
            let pictures = seen(&sent(&media, Codec::Vp9, 0, 4.0));
            let Scalability { spatial, temporal, .. } = media.svc.unwrap();
            assert_eq!(pictures.changes.last().unwrap().1, layer(0, spatial - 1, temporal - 1), "{mode}");
            assert_eq!((pictures.shown, pictures.undecodable, pictures.freezes.len()), (120, 0, 0), "{mode}");
        }
    }

    #[test]
    fn a_viewer_of_fewer_layers_misses_nothing_if_none_of_them_needs_what_is_left_out() {
        for (mode, point, shown) in
            [("L1T3", (0, 1), 60), ("L1T3", (0, 0), 30), ("L3T3", (1, 2), 120), ("L3T3_KEY", (0, 0), 30)]
        {
            let fits = |(_, stamp): &(f64, Stamp)| {
                let LayerId { spatial, temporal, .. } = stamp.part.layer;
                spatial <= point.0 && temporal <= point.1
            };
            let packets: Vec<_> = sent(&layered(mode), Codec::Vp9, 0, 4.0).into_iter().filter(fits).collect();
            let pictures = seen(&packets);
            assert_eq!(pictures.changes.last().unwrap().1, layer(0, point.0, point.1), "{mode}");
            assert_eq!((pictures.shown, pictures.undecodable, pictures.freezes.len()), (shown, 0, 0), "{mode}");
        }
        // With keyframes alone between the layers the top layer needs the others in keyframes only.
        let top = |(_, stamp): &(f64, Stamp)| stamp.part.layer.spatial == 2 || stamp.part.reference.is_none();
        let packets: Vec<_> = sent(&layered("L3T3_KEY"), Codec::Vp9, 0, 4.0).into_iter().filter(top).collect();
        assert_eq!((seen(&packets).shown, seen(&packets).undecodable), (120, 0));
        let packets: Vec<_> = sent(&layered("L3T3"), Codec::Vp9, 0, 4.0).into_iter().filter(top).collect();
        assert!(seen(&packets).undecodable > 0, "those of the other mode need them always");
    }

    #[test]
    fn a_switch_between_encodings_needs_a_keyframe() {
        let media = PublisherOptions { simulcast: 2, gop: Duration::from_secs(2), ..PublisherOptions::default() };
        let encodings = [sent(&media, Codec::Vp8, 0, 4.0), sent(&media, Codec::Vp8, 1, 4.0)];
        let switched = |at: f64| -> Vec<(f64, Stamp)> {
            let low = encodings[0].iter().filter(|(time, _)| *time < at);
            low.chain(encodings[1].iter().filter(|(time, _)| *time >= at)).copied().collect()
        };
        let pictures = seen(&switched(2.0));
        assert_eq!((pictures.undecodable, pictures.freezes.len()), (0, 0));
        assert_eq!(pictures.changes.iter().map(|(_, layer)| layer.encoding).collect::<Vec<_>>(), [0, 1]);
        assert!((pictures.changes[1].0 - 2.0).abs() < 0.02);
        let early = seen(&switched(1.5));
        assert!(early.undecodable >= 14, "half a second of the other encoding: {}", early.undecodable);
        let (begin, end) = early.freezes[0];
        assert!(begin < 1.5 && (end - 2.0).abs() < 0.02, "{begin} to {end}");
        assert_eq!((early.at(1.0), early.at(1.8), early.at(3.0)), (Some(layer(0, 0, 0)), None, Some(layer(1, 0, 0))));
        assert_eq!(early.at(9.0), None, "nothing was shown for long");
    }

    #[test]
    fn losses_freeze_the_picture_until_they_are_repaired() {
        let media = PublisherOptions { gop: Duration::from_secs(60), ..PublisherOptions::default() };
        let mut packets = sent(&media, Codec::Vp8, 0, 2.0);
        let lost = packets.iter().position(|(at, _)| *at >= 1.0).unwrap();
        let (_, stamp) = packets.remove(lost);
        assert_eq!(seen(&packets).pictures_after(1.1), 0, "all later ones refer to it");
        let late = packets.iter().position(|(at, _)| *at >= 1.4).unwrap();
        packets.insert(late, (1.4, stamp));
        let pictures = seen(&packets);
        assert_eq!((pictures.undecodable, pictures.freezes.len()), (0, 1));
        assert!((pictures.freezes[0].1 - 1.4).abs() < 0.03, "{:?}", pictures.freezes);
        assert_eq!(stamp.content, Content::Video);
    }

    #[test]
    fn single_pictures_of_a_stream_are_frozen_ones_whatever_their_pace() {
        // Keyframes alone, as of a stream whose link carries no more.
        let media = PublisherOptions { gop: Duration::from_secs(1), ..PublisherOptions::default() };
        let key = |(_, stamp): &(f64, Stamp)| stamp.part.reference.is_none();
        let packets: Vec<_> = sent(&media, Codec::Vp8, 0, 6.0).into_iter().filter(key).collect();
        let pictures = seen(&packets);
        assert_eq!((pictures.shown, pictures.freezes.len()), (6, 5));
        assert_eq!((pictures.at(3.1).is_some(), pictures.at(3.5)), (true, None));
    }

    impl Pictures {
        fn pictures_after(&self, at: f64) -> u64 {
            u64::from(self.last.is_some_and(|last| last > at))
        }
    }
}
