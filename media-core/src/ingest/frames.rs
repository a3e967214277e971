//! What the packets of a section say of its frames: where keyframes begin, which parameter sets belong to them, and whether
//! frames are sent in the order in which they are shown.

use crate::media::{Codec, Extension, Format, MediaKind};
use crate::rtp::codec::parameter_sets::ParameterSets;
use crate::rtp::codec::{self, Start};
use crate::rtp::profile::Profile;
use crate::rtp::sequence::timestamp_distance;
use crate::stream::{Place, StoredExtensions};

/// Steps back in RTP time that make B-frames: a sender that sets its clock steps once.
const B_FRAMES: u32 = 3;

/// What a section's packets have said so far.
pub(super) struct Frames {
    /// By format.
    sets: Vec<Option<ParameterSets>>,
    /// What the stream says of its profile, by format.
    profiles: Vec<Option<Profile>>,
    /// Width and height of the pictures, as the last sequence parameter set says them.
    size: Option<(u16, u16)>,
    /// The sender's RTP time of the last sequence parameter set in the stream.
    sets_at: Option<u32>,
    /// The latest keyframe: RTP time and sequence number of its first packet, on the time line.
    keyframe: Option<Place>,
    /// RTP time of the latest recovery point at which viewers start, on the time line.
    recovery: Option<u32>,
    steps_back: u32,
    /// The video's orientation, as received last (3GPP TS 26.114 §7.4.5).
    orientation: Option<u8>,
}

/// Whether a decoder can start at a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FrameStart {
    /// It cannot.
    None,
    /// It cannot, but what it needs for the frame behind them may be in this packet.
    ParameterSets,
    /// It can.
    Keyframe,
    /// It can once it has the parameter sets, which were not sent with this frame.
    KeyframeWithoutSets,
    /// A recovery point: what a decoder shows becomes right within some time.
    RecoveryPoint,
}

impl FrameStart {
    /// True for keyframes.
    pub(super) fn is_keyframe(self) -> bool {
        matches!(self, FrameStart::Keyframe | FrameStart::KeyframeWithoutSets)
    }

    /// True for all with which a decoder can begin.
    pub(super) fn is_decodable(self) -> bool {
        self.is_keyframe() || self == FrameStart::RecoveryPoint
    }
}

impl Frames {
    pub(super) fn new(formats: &[Format]) -> Frames {
        let sets = formats.iter().map(ParameterSets::of).collect();
        let profiles = formats.iter().map(described_profile).collect();
        Frames {
            sets,
            profiles,
            size: None,
            sets_at: None,
            keyframe: None,
            recovery: None,
            steps_back: 0,
            orientation: None,
        }
    }

    /// Another RTP stream: parameter sets and orientation of the one before do not apply to it.
    pub(super) fn on_new_stream(&mut self, formats: &[Format]) {
        *self = Frames { steps_back: self.steps_back, keyframe: self.keyframe, ..Frames::new(formats) };
    }

    /// Looks at a packet of a format; `timestamp` is the sender's own.
    pub(super) fn inspect(&mut self, format: usize, codec: Codec, payload: &[u8], timestamp: u32) -> FrameStart {
        let start = codec::start(codec, payload);
        let Some(Some(sets)) = self.sets.get_mut(format) else {
            if start == Start::Keyframe && codec.kind() == MediaKind::Video {
                self.profiles[format] = Profile::of_payload(codec, payload).or(self.profiles[format]);
            }
            return if start == Start::Keyframe { FrameStart::Keyframe } else { FrameStart::None };
        };
        if sets.learn(payload) {
            self.sets_at = Some(timestamp);
            let unit = codec::h264::parameter_set(payload).filter(|_| codec == Codec::H264);
            self.size = unit.and_then(codec::h264_size::picture_size).or(self.size);
            self.profiles[format] = Profile::of_payload(codec, payload).or(self.profiles[format]);
        }
        let has_sets = || sets.complete().next().is_some();
        match start {
            Start::ParameterSets => FrameStart::ParameterSets,
            Start::RecoveryPoint if has_sets() => FrameStart::RecoveryPoint,
            Start::Keyframe if self.sets_at == Some(timestamp) => FrameStart::Keyframe,
            Start::Keyframe if has_sets() => FrameStart::KeyframeWithoutSets,
            // Where the sets were lost, or are delayed, no decoder starts with this frame alone.
            Start::None | Start::RecoveryPoint | Start::Keyframe => FrameStart::None,
        }
    }

    /// The parameter sets of a format, or none if some are missing.
    pub(super) fn sets(&self, format: usize) -> impl Iterator<Item = &[u8]> {
        self.sets.get(format).into_iter().flatten().flat_map(ParameterSets::complete)
    }

    /// What the stream of a format says of its profile, once it did.
    pub(super) fn profile(&self, format: usize) -> Option<Profile> {
        self.profiles.get(format).copied().flatten()
    }

    /// Width and height of the pictures in pixels, if parameter sets say them.
    pub(super) fn size(&self) -> Option<(u16, u16)> {
        self.size
    }

    /// A packet that begins a keyframe has this place. Returns whether it is the keyframe's first one so far, and whether the
    /// keyframe is a new one: several packets of one RTP time may begin it, received in any order (COD-10).
    pub(super) fn on_keyframe(&mut self, place: Place) -> (bool, bool) {
        match &mut self.keyframe {
            Some(known) if known.timestamp == place.timestamp => {
                let earlier = place.sequence < known.sequence;
                known.sequence = known.sequence.min(place.sequence);
                (earlier, false)
            }
            // Received after a newer keyframe, it answers no keyframe request.
            Some(known) if place.sequence < known.sequence => (true, false),
            _ => {
                self.keyframe = Some(place);
                (true, true)
            }
        }
    }

    /// Viewers start at a recovery point with this RTP time of the time line.
    pub(super) fn on_recovery_point(&mut self, timestamp: u32) {
        self.recovery = Some(timestamp);
    }

    /// True if a packet at this RTP time of the time line is part of the frame at which viewers start.
    pub(super) fn is_start(&self, timestamp: u32) -> bool {
        self.recovery == Some(timestamp) || self.keyframe.is_some_and(|keyframe| keyframe.timestamp == timestamp)
    }

    /// Notes the video's orientation. A sender may include it only when it changes; it is repeated in the last packet of every
    /// frame at which viewers start (EXT-H09).
    pub(super) fn repeat_orientation(&mut self, extensions: &mut StoredExtensions, ends_start: bool) {
        match (extensions.get(Extension::VideoOrientation), self.orientation) {
            (Some(&[orientation]), _) => self.orientation = Some(orientation),
            (None, Some(orientation)) if ends_start => {
                // If there is no room, the header is full of extensions of equal weight.
                extensions.push(Extension::VideoOrientation, &[orientation]);
            }
            _ => {}
        }
    }

    /// The sender's RTP time of the newest frame, and of the newest before it. Returns true if it goes back from one to the
    /// other.
    pub(super) fn on_frame(&mut self, kind: MediaKind, timestamp: u32, before: u32, clock_rate: u32) -> bool {
        let step = timestamp_distance(timestamp, before);
        let goes_back = kind == MediaKind::Video && step < 0 && step.unsigned_abs() < clock_rate;
        self.steps_back = self.steps_back.saturating_add(u32::from(goes_back));
        goes_back
    }

    /// True if RTP time goes back from frame to frame: the encoder sends B-frames, which WebRTC receivers show in the order
    /// of sending (RTP-11).
    pub(super) fn has_b_frames(&self) -> bool {
        self.steps_back >= B_FRAMES
    }
}

/// The profile of the parameter sets that the description names: they are those of the stream, unless it sends others.
fn described_profile(format: &Format) -> Option<Profile> {
    let sets = ParameterSets::of(format)?;
    sets.complete().find_map(|unit| Profile::of_payload(format.codec, unit))
}
