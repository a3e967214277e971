//! What a viewer knows of one SSRC that sends to it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use media_core::internals::rtcp::{ReportBlock, ntp};
use media_core::internals::rtp::sequence::SequenceExtender;
use media_core::media::MediaKind;

use super::figures::ViewerFigures;
use super::options::Verify;
use super::pictures::{PictureTally, Pictures};
use crate::media::stamp::{Content, Stamp};
use crate::tally::TrackTally;

/// A gap is NACKed this often, and this many times.
const NACK_INTERVAL: Duration = Duration::from_millis(40);
const NACK_TRIES: u8 = 5;
/// The first NACK waits this long: most gaps are reordering.
pub(super) const NACK_DELAY: Duration = Duration::from_millis(10);
/// No fast start takes longer.
const FAST_START: f64 = 2.0;
/// SSRCs of one viewer; a server has no reason for more.
const MAX_STREAMS: usize = 8;

/// A packet's sequence number, and where it belongs.
pub(super) struct Placed {
    pub(super) extended: u64,
    /// The highest extended number before it.
    pub(super) before: Option<u64>,
    /// It did not come before.
    pub(super) is_new: bool,
}

impl Placed {
    /// It is higher than all before.
    pub(super) fn in_order(&self) -> bool {
        self.before.is_none_or(|before| self.extended > before)
    }

    /// It leaves a gap.
    pub(super) fn after_gap(&self) -> bool {
        self.before.is_some_and(|before| self.extended > before + 1)
    }
}

/// The packets received of one SSRC.
pub(super) struct ReceivedStream {
    pub(super) ssrc: u32,
    pub(super) kind: MediaKind,
    /// That of its media packets, once one was verified.
    pub(super) payload_type: Option<u8>,
    extender: SequenceExtender,
    pub(super) track: TrackTally,
    /// What a decoder could show, of video with layers.
    pub(super) pictures: Option<PictureTally>,
    pub(super) clock_rate: f64,
    transit: Option<f64>,
    jitter: f64,
    pub(super) last_timestamp: Option<u32>,
    time_steps_back: u64,
    longest_time_step: f64,
    /// Arrival of the first packet, in seconds, and of the first one after the fast start its transit in ticks.
    begun: Option<f64>,
    reference: Option<f64>,
    longest_time_error: f64,
    /// Delivered and lost packets at the last report.
    reported: (u64, u64),
    pub(super) last_report: Option<(u32, Instant)>,
    /// By sequence number: how often it was NACKed, and when that is due again.
    nacks: HashMap<u64, (u8, Instant)>,
}

impl ReceivedStream {
    fn new(ssrc: u32, kind: MediaKind, has_layers: bool) -> ReceivedStream {
        let has_layers = has_layers && kind == MediaKind::Video;
        ReceivedStream {
            ssrc,
            kind,
            payload_type: None,
            extender: SequenceExtender::new(),
            track: if has_layers { TrackTally::of_layers() } else { TrackTally::default() },
            pictures: has_layers.then(PictureTally::default),
            clock_rate: if kind == MediaKind::Video { 90_000.0 } else { 48_000.0 },
            transit: None,
            jitter: 0.0,
            last_timestamp: None,
            time_steps_back: 0,
            longest_time_step: 0.0,
            begun: None,
            reference: None,
            longest_time_error: 0.0,
            reported: (0, 0),
            last_report: None,
            nacks: HashMap::new(),
        }
    }

    /// Counts a packet by its sequence number.
    pub(super) fn note_sequence(&mut self, number: u16, payload_len: usize, recovered: bool) -> Placed {
        let before = self.extender.highest();
        let extended = self.extender.extend(number);
        let is_new = self.track.note_sequence(extended, payload_len, recovered);
        Placed { extended, before, is_new }
    }

    /// Counts the stamp of a packet that was verified; true if it is the start of the first keyframe.
    pub(super) fn note_stamp(&mut self, stamp: &Stamp, verify: Verify, extended: u64) -> bool {
        let first = !self.track.has_keyframe();
        match verify {
            Verify::All => self.track.note_stamp(stamp),
            Verify::Sample(_) => self.track.note_sampled_stamp(stamp, extended),
        }
        first && stamp.content == Content::KeyframeStart
    }

    /// Interarrival jitter (RFC 3550 A.8) and steps of the RTP time; `arrival` in seconds.
    pub(super) fn note_arrival(&mut self, arrival: f64, timestamp: u32, in_order: bool) {
        if in_order {
            let before = self.last_timestamp.replace(timestamp);
            self.time_steps_back += u64::from(before.is_some_and(|before| timestamp.wrapping_sub(before) > 1 << 31));
        }
        let transit = arrival * self.clock_rate - f64::from(timestamp);
        if let Some(before) = self.transit {
            let difference = (transit - before).abs();
            // A wrap of the timestamp is no jitter.
            if difference < self.clock_rate * 60.0 {
                self.longest_time_step = self.longest_time_step.max(difference / self.clock_rate);
                self.jitter += (difference - self.jitter) / 16.0;
            }
        }
        self.transit = Some(transit);
        if arrival > *self.begun.get_or_insert(arrival) + FAST_START {
            // Half the circle of timestamps is more than 6 hours.
            let error = (transit - *self.reference.get_or_insert(transit)) as i64 as u32 as i32;
            self.longest_time_error = self.longest_time_error.max(f64::from(error).abs() / self.clock_rate);
        }
    }

    /// The block of a receiver report; `None` before the first packet.
    pub(super) fn report(&mut self, now: Instant) -> Option<ReportBlock> {
        let highest = self.track.highest()?;
        let figures = self.track.figures();
        let (delivered, lost) = (figures.delivered, figures.lost);
        let fresh = (delivered.saturating_sub(self.reported.0), lost.saturating_sub(self.reported.1));
        self.reported = (delivered, lost);
        let (last_sr, since) = self.last_report.map_or((0, Duration::ZERO), |(sr, at)| (sr, now - at));
        Some(ReportBlock {
            ssrc: self.ssrc,
            fraction_lost: (fresh.1 * 256 / (fresh.0 + fresh.1).max(1)).min(255) as u8,
            cumulative_lost: i32::try_from(lost).unwrap_or(i32::MAX).min(0x7f_ffff),
            extended_highest_sequence: highest as u32,
            jitter: self.jitter as u32,
            last_sr,
            delay_since_last_sr: ntp::compact_duration(since),
        })
    }

    /// Sequence numbers to NACK now.
    pub(super) fn due_nacks(&mut self, now: Instant) -> Vec<u16> {
        let gaps: Vec<u64> = self.track.gaps().collect();
        self.nacks.retain(|number, _| gaps.binary_search(number).is_ok());
        let mut due = Vec::new();
        for number in gaps {
            let (tries, at) = self.nacks.entry(number).or_insert((0, now + NACK_DELAY));
            if *tries < NACK_TRIES && now >= *at {
                *tries += 1;
                *at = now + NACK_INTERVAL;
                due.push(number as u16);
            }
        }
        due
    }

    /// True while a gap is left that may still be NACKed.
    pub(super) fn waits_for_gaps(&self) -> bool {
        self.nacks.values().any(|(tries, _)| *tries < NACK_TRIES)
    }
}

/// All that a viewer received.
#[derive(Default)]
pub(super) struct Received {
    pub(super) figures: ViewerFigures,
    pub(super) streams: Vec<ReceivedStream>,
}

impl Received {
    /// The figures so far.
    pub(super) fn figures(&self) -> ViewerFigures {
        let mut figures = self.figures;
        figures.sources = self.streams.len() as u64;
        for stream in &self.streams {
            figures.time_steps_back += stream.time_steps_back;
            figures.longest_time_error = figures.longest_time_error.max(stream.longest_time_error);
            figures.longest_time_step = figures.longest_time_step.max(stream.longest_time_step);
            match stream.kind {
                MediaKind::Audio => figures.audio.add(&stream.track.figures()),
                MediaKind::Video => figures.video.add(&stream.track.figures()),
            }
        }
        figures
    }

    /// What could be shown of video with layers.
    pub(super) fn pictures(&self) -> Pictures {
        let tallies = self.streams.iter().filter_map(|stream| stream.pictures.as_ref());
        tallies.map(PictureTally::pictures).next().unwrap_or_default()
    }

    /// The stream of an SSRC, a new one if need be; `None` if it is of another kind, or there are too many.
    pub(super) fn stream(&mut self, ssrc: u32, kind: MediaKind, has_layers: bool) -> Option<&mut ReceivedStream> {
        let index = match self.streams.iter().position(|stream| stream.ssrc == ssrc) {
            Some(index) => index,
            None if self.streams.len() >= MAX_STREAMS => return None,
            None => {
                self.streams.push(ReceivedStream::new(ssrc, kind, has_layers));
                self.streams.len() - 1
            }
        };
        self.streams.get_mut(index).filter(|stream| stream.kind == kind)
    }
}
