//! Which layers a viewer is sent: what its path carries, what it wants, and what the publisher sends (RTCP-16).
//!
//! A track's layers make a ladder. A viewer stands on the highest rung that fits its path. It goes down at once when the path
//! breaks, and after a while when it is only a little too narrow; it goes up when the path has carried the next rung's rate for
//! a moment, with a margin. A rung that proved too high is not tried again for a time, which doubles.
//!
//! Sans-IO: `(now, input) -> choice`.

use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::layers::{Layer, LayerSelection, OperatingPoint};

use super::late_drop::LONGEST_WAIT;

/// What a layer needs is this factor of its rate: header bytes, and keyframes above the mean.
pub(super) const NEED: f64 = 1.1;
/// What an audio track needs besides its payload, in bit/s: headers of 50 packets a second.
pub(super) const AUDIO_OVERHEAD: u64 = 25_000;
/// A rung is climbed with this margin …
const CLIMB: f64 = 1.08;
/// … once it has fitted for so long.
const CLIMB_AFTER: Duration = Duration::from_millis(300);
/// The same soon after a fall, while the path seems no wider than then: an encoder's rate falls and rises by a third within seconds.
const CLIMB_AGAIN_AFTER: Duration = Duration::from_millis(2_000);
/// A path that carries less than this part of what is needed is broken: the viewer goes down at once.
pub(super) const BROKEN: f64 = 0.7;
/// From a rung that is only a little too high it goes down after this time: an estimate falls with every over-use, and what
/// then arrives without a queue lifts it again. But at once where packets are about to be dropped as late: a keyframe is needed then.
const DESCEND_AFTER: Duration = Duration::from_millis(1_000);
/// Who falls from a rung within this time after it was climbed has tried too much.
const TRIAL: Duration = Duration::from_secs(10);
/// Such a rung is not tried again for this time at first, and for this at most.
const FIRST_BLOCK: Duration = Duration::from_secs(5);
const LONGEST_BLOCK: Duration = Duration::from_secs(60);
/// It is tried all the same where the path carries this factor of what it seemed to carry then.
const WIDER: f64 = 1.5;
/// A viewer goes only where the path carries a keyframe within this time: while it takes longer, what follows it is dropped as
/// too late, and the next keyframe is needed already.
const KEYFRAME_WITHIN: Duration = LONGEST_WAIT;
/// Where the path carries less than this part of what the lowest rung needs …
const PAUSE: f64 = 0.8;
/// … for so long, video pauses, so that audio comes through: not while a queue that a broken path has left holds the estimate
/// down …
const PAUSE_AFTER: Duration = Duration::from_millis(3_000);
/// … until the lowest rung has fitted for so long.
const RESUME_AFTER: Duration = Duration::from_millis(500);
/// A viewer that tells of its path by loss or REMB alone proves a higher rung by being sent it: it is tried after this time.
const TRY_AFTER: Duration = Duration::from_secs(8);
/// Loss that such a viewer reports, 0 to 1: this is too much …
const MUCH_LOSS: f64 = 0.1;
/// … and this little enough to try the next rung.
const LITTLE_LOSS: f64 = 0.02;
/// The path of such a viewer never seems wider than it was.
const UNKNOWN: f64 = 0.0;
/// Frames a second with which movement is smooth.
const SMOOTH: f32 = 14.5;

/// What is known of the path to a viewer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Path {
    /// An estimate in bit/s, which probes may lift.
    Probed(u64),
    /// An estimate in bit/s that no probe lifts: the viewer sends REMB.
    Estimated(u64),
    /// Nothing but the loss of its receiver reports, 0 to 1, and how many of them there were.
    Unknown {
        /// As the last report has it.
        lost: f64,
        /// Reports so far.
        reports: u64,
        /// The most that the viewer may be sent, in bit/s.
        most: f64,
    },
}

impl Path {
    /// Bits per second that it carries, as far as is known.
    pub(super) fn carries(self) -> f64 {
        match self {
            Path::Probed(bits) | Path::Estimated(bits) => bits as f64,
            Path::Unknown { most, .. } => most,
        }
    }
}

/// What a choice is made from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Situation<'a> {
    pub(super) now: Instant,
    pub(super) path: Path,
    /// Bits per second that it carries, while `path` may say less so that a queue drains.
    pub(super) carries: f64,
    /// What audio and the other tracks need of it, in bit/s.
    pub(super) others: u64,
    /// The layers that are sent at present, from low to high quality.
    pub(super) layers: &'a [Layer],
    /// The viewer can be sent others than those of the lowest spatial layer.
    pub(super) takes_spatial_layers: bool,
    /// The encoding that the viewer wants by its rid, if the publisher has one of that name.
    pub(super) rid: Option<u8>,
    /// Where the viewer is.
    pub(super) present: OperatingPoint,
    /// Encodings, one bit each, of which the cache has everything since a keyframe.
    pub(super) ready: u8,
    /// The viewer can go on with none of what it is sent: it waits for a keyframe.
    pub(super) waits: bool,
    /// Packets have waited for the pacer for half of the time after which they are dropped as late.
    pub(super) nears_late_drop: bool,
}

/// Where a viewer is to go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Choice {
    /// What it is to be sent.
    pub(super) target: OperatingPoint,
    /// Of the encoding that it is sent until then.
    pub(super) interim: Option<OperatingPoint>,
    /// The path does not carry what the viewer is sent, or that cannot be decoded: bits per second that the path has for the track.
    pub(super) urgent: Option<u64>,
    /// The path does not even carry the lowest layer: no video at all.
    pub(super) is_paused: bool,
    /// If there are layers to choose from: bits per second that are sent whatever the estimate, those of the lowest layer with audio
    /// if the viewer is to be sent that.
    pub(super) least: Option<u64>,
    /// Bits per second of the best that the viewer may be sent, with audio: what probing is for. 0 if it is sent that.
    pub(super) wanted: u64,
}

/// A layer that the viewer may be sent.
#[derive(Clone, Copy, Debug)]
struct Rung {
    layer: Layer,
    /// Bits per second of the path, audio included.
    need: f64,
    /// The same, so that a keyframe comes in time.
    to_begin: f64,
}

type Ladder = SmallVec<[Rung; 16]>;

/// How long something has been so.
#[derive(Clone, Copy, Debug, Default)]
struct Since(Option<Instant>);

impl Since {
    /// True if it has been so for `long`.
    fn holds(&mut self, now: Instant, is_so: bool, long: Duration) -> bool {
        if !is_so {
            self.0 = None;
            return false;
        }
        now.saturating_duration_since(*self.0.get_or_insert(now)) >= long
    }
}

/// One viewer's choice of the layers of one track.
#[derive(Debug, Default)]
pub(super) struct Selector {
    selection: LayerSelection,
    target: Option<OperatingPoint>,
    fits: Since,
    short: Since,
    calm: Since,
    below: Since,
    is_paused: bool,
    climb: Climb,
    loss: Loss,
}

/// A rung that was climbed.
#[derive(Clone, Copy, Debug)]
struct Climbed {
    at: Instant,
    /// What it needs, in bit/s.
    need: f64,
    /// What the path seemed to carry.
    carries: f64,
}

/// How climbing went.
#[derive(Debug, Default)]
struct Climb {
    last: Option<Climbed>,
    /// When the viewer fell last, and what the path seemed to carry.
    fallen: Option<(Instant, f64)>,
    /// What needs as much as this is not tried before that time.
    blocked: Option<(Instant, Climbed)>,
    block: Duration,
}

impl Climb {
    fn allows(&self, now: Instant, carries: f64, need: f64) -> bool {
        self.blocked.is_none_or(|(until, blocked)| {
            now >= until || need < 0.95 * blocked.need || carries > WIDER * blocked.carries
        })
    }

    fn on_climbed(&mut self, at: Instant, carries: f64, need: f64) {
        self.last = Some(Climbed { at, need, carries });
    }

    /// How long a rung has to have fitted.
    fn after(&self, now: Instant, carries: f64) -> Duration {
        let is_soon = |(at, then): (Instant, f64)| now.saturating_duration_since(at) < TRIAL && carries <= WIDER * then;
        if self.fallen.is_some_and(is_soon) { CLIMB_AGAIN_AFTER } else { CLIMB_AFTER }
    }

    fn on_fallen(&mut self, now: Instant, carries: f64) {
        self.fallen = Some((now, carries));
        let Some(climbed) = self.last.take() else { return };
        if now.saturating_duration_since(climbed.at) < TRIAL {
            self.block = (2 * self.block).clamp(FIRST_BLOCK, LONGEST_BLOCK);
            self.blocked = Some((now + self.block, climbed));
        } else {
            self.block = Duration::ZERO;
        }
    }
}

/// What receiver reports said of a viewer of which nothing else is known.
#[derive(Debug, Default)]
struct Loss {
    reports: u64,
    /// Reports in a row with much loss.
    high: u32,
    /// Rungs, counted from the top, that it has gone down.
    down: usize,
}

impl Selector {
    /// What the viewer wants from now on.
    pub(super) fn set_selection(&mut self, selection: LayerSelection) {
        if selection != self.selection {
            *self = Selector { selection, is_paused: self.is_paused, ..Selector::default() };
        }
    }

    /// The rid that the viewer names.
    pub(super) fn rid(&self) -> Option<&str> {
        self.selection.rid.as_deref()
    }

    /// Where a viewer is to be now; `None` where there is nothing to choose.
    pub(super) fn choose(&mut self, situation: &Situation<'_>) -> Option<Choice> {
        let carries = situation.path.carries();
        let for_track = (carries - situation.others as f64) as u64;
        if situation.layers.len() < 2 {
            (self.target, self.is_paused) = (None, false);
            // Of a stream with one layer everything is sent, however late: there is nothing to choose.
            let only = situation.layers.first().filter(|layer| layer.point.encoding != situation.present.encoding)?;
            return Some(Choice {
                target: only.point,
                interim: None,
                urgent: Some(for_track),
                is_paused: false,
                least: None,
                wanted: only.bitrate + situation.others,
            });
        }
        let allowed = self.allowed(situation);
        let ladder = ladder(&allowed, situation.others);
        let index = self.step(situation, &ladder);
        let rung = ladder[index];
        if self.target != Some(rung.layer.point) {
            self.target = Some(rung.layer.point);
            (self.fits, self.short, self.calm) = Default::default();
        }
        let has_choice = situation.rid.is_none() && self.selection.spatial.is_none();
        let was_paused = self.is_paused;
        self.is_paused = has_choice && self.is_below(situation, &ladder[0]);
        if self.is_paused != was_paused {
            self.below = Since::default();
        }
        let target = rung.layer.point;
        let is_urgent = situation.waits || need_of_picture(situation) > carries;
        Some(Choice {
            target,
            interim: interim(situation, target),
            urgent: is_urgent.then_some(for_track),
            is_paused: self.is_paused,
            least: Some(if index == 0 && !self.is_paused { rung.need as u64 } else { 0 }),
            wanted: ladder[index + 1..].last().map_or(0, |best| need_to_go(situation, best) as u64),
        })
    }

    /// The rung on which the viewer is to stand.
    fn step(&mut self, situation: &Situation<'_>, ladder: &Ladder) -> usize {
        let (now, carries) = (situation.now, situation.path.carries());
        let fits = |rung: &Rung| need_to_go(situation, rung) <= carries;
        let highest = || ladder.iter().rposition(fits).unwrap_or(0);
        let present = self.target.and_then(|target| ladder.iter().position(|rung| rung.layer.point == target));
        if let Path::Unknown { lost, reports, .. } = situation.path {
            return self.step_by_loss(now, (lost, reports), &ladder[..=highest()]);
        }
        // At first, and where the layer is not sent any more, what is there now.
        let Some(present) = present.filter(|_| !situation.waits) else {
            let allowed = ladder.iter().rposition(|rung| self.climb.allows(now, carries, rung.need)).unwrap_or(0);
            // Nobody climbs while it waits for a keyframe: that was requested of where it was to be.
            return begin(situation, ladder, highest().min(allowed).min(present.unwrap_or(usize::MAX)));
        };
        let need = ladder[present].need;
        let is_short = need > carries && present > 0;
        let is_pressing = need * BROKEN > carries || situation.nears_late_drop;
        if is_short && (is_pressing || self.short.holds(now, true, DESCEND_AFTER)) {
            self.climb.on_fallen(now, carries);
            return highest().min(present);
        }
        self.short.holds(now, is_short, DESCEND_AFTER);
        let best = (present + 1..ladder.len()).rev();
        let best = best
            .filter(|&rung| self.climb.allows(now, carries, ladder[rung].need))
            .find(|&rung| ladder[rung].need * CLIMB <= carries && fits(&ladder[rung]));
        if self.fits.holds(now, best.is_some(), self.climb.after(now, carries))
            && let Some(rung) = best
        {
            self.climb.on_climbed(now, carries, ladder[rung].need);
            return rung;
        }
        // No probe lifts what a viewer's REMB says: only what it is sent does.
        let is_calm = matches!(situation.path, Path::Estimated(_)) && !is_short && best.is_none();
        if self.calm.holds(now, is_calm, TRY_AFTER)
            && let Some(rung) = ladder.get(present + 1)
            && self.climb.allows(now, carries, rung.need)
        {
            self.climb.on_climbed(now, carries, rung.need);
            return present + 1;
        }
        present
    }

    /// Without an estimate a viewer is sent the best that it may be, until it reports that much of it is lost.
    fn step_by_loss(&mut self, now: Instant, (lost, reports): (f64, u64), ladder: &[Rung]) -> usize {
        let top = ladder.len() - 1;
        self.loss.down = self.loss.down.min(top);
        let present = top - self.loss.down;
        if reports != self.loss.reports {
            self.loss.reports = reports;
            self.loss.high = if lost > MUCH_LOSS { self.loss.high + 1 } else { 0 };
            // One bad second is no bad path, unless it is very bad.
            if present > 0 && (self.loss.high >= 2 || lost > 3.0 * MUCH_LOSS) {
                self.climb.on_fallen(now, UNKNOWN);
                (self.loss.down, self.loss.high) = (self.loss.down + 1, 0);
                return present - 1;
            }
        }
        let is_calm = lost < LITTLE_LOSS;
        if self.calm.holds(now, is_calm, TRY_AFTER)
            && present < top
            && self.climb.allows(now, UNKNOWN, ladder[present + 1].need)
        {
            self.climb.on_climbed(now, UNKNOWN, ladder[present + 1].need);
            self.loss.down -= 1;
            return present + 1;
        }
        present
    }

    /// True while not even the lowest rung fits.
    fn is_below(&mut self, situation: &Situation<'_>, lowest: &Rung) -> bool {
        let (now, carries) = (situation.now, situation.carries);
        if self.is_paused {
            return !self.below.holds(now, lowest.need <= carries, RESUME_AFTER);
        }
        self.below.holds(now, lowest.need * PAUSE > carries, PAUSE_AFTER)
    }

    /// The layers that the viewer wants, or what there is in place of them.
    fn allowed(&self, situation: &Situation<'_>) -> SmallVec<[Layer; 16]> {
        let LayerSelection { spatial, temporal, max_spatial, max_temporal, max_width, max_height, .. } = self.selection;
        let mut layers: SmallVec<[Layer; 16]> = situation.layers.iter().copied().collect();
        if let Some(encoding) = situation.rid {
            keep(&mut layers, |layer| layer.point.encoding == encoding);
        }
        if !situation.takes_spatial_layers {
            keep(&mut layers, |layer| layer.point.spatial == 0);
        }
        let fits = |size: u16, limit: Option<u16>| limit.is_none_or(|limit| size <= limit);
        keep(&mut layers, |layer| fits(layer.width, max_width) && fits(layer.height, max_height));
        if let Some(most) = spatial.or(max_spatial) {
            let most = at_most(&layers, most, |layer| layer.point.spatial);
            layers.retain(|layer| match spatial {
                Some(_) => layer.point.spatial == most,
                None => layer.point.spatial <= most,
            });
        }
        if let Some(most) = temporal.or(max_temporal) {
            let most = at_most(&layers, most, |layer| layer.point.temporal);
            layers.retain(|layer| match temporal {
                Some(_) => layer.point.temporal == most,
                None => layer.point.temporal <= most,
            });
        }
        layers
    }
}

/// The highest rung up to `highest` of which the viewer can be sent a keyframe at once, if there is one.
fn begin(situation: &Situation<'_>, ladder: &Ladder, highest: usize) -> usize {
    let is_ready = |rung: &Rung| situation.ready & (1 << rung.layer.point.encoding) != 0;
    ladder[..=highest].iter().rposition(is_ready).unwrap_or(highest)
}

/// Keeps the layers that are wanted; the lowest one if none is.
fn keep(layers: &mut SmallVec<[Layer; 16]>, is_wanted: impl Fn(&Layer) -> bool) {
    if layers.iter().any(&is_wanted) {
        layers.retain(|layer| is_wanted(layer));
    } else {
        layers.truncate(1);
    }
}

/// The highest that there is up to `most`, or else the lowest.
fn at_most(layers: &[Layer], most: u8, of: impl Fn(&Layer) -> u8) -> u8 {
    let below = layers.iter().map(&of).filter(|&value| value <= most).max();
    below.or_else(|| layers.iter().map(&of).min()).unwrap_or(most)
}

/// What a layer needs of a path, in bit/s.
fn need(layer: &Layer, others: u64) -> f64 {
    layer.bitrate as f64 * NEED + others as f64
}

/// What the picture that the viewer is sent needs with all of its frames, in bit/s.
fn need_of_picture(situation: &Situation<'_>) -> f64 {
    let point = OperatingPoint { temporal: u8::MAX, ..situation.present };
    sent_at(situation.layers, point).map_or(0.0, |layer| need(layer, situation.others))
}

/// The layer that a viewer at a point is sent: the highest of its encoding up to there.
pub(super) fn sent_at(layers: &[Layer], point: OperatingPoint) -> Option<&Layer> {
    let is_sent = |layer: &&Layer| {
        let OperatingPoint { encoding, spatial, temporal } = layer.point;
        encoding == point.encoding && spatial <= point.spatial && temporal <= point.temporal
    };
    layers.iter().filter(is_sent).max_by_key(|layer| (layer.point.spatial, layer.point.temporal))
}

/// The layers on which a viewer may stay, from low to high. Temporal layers are thinned first, as long as movement stays smooth;
/// before it does not, the next lower picture with all of its frames is better. Of the lowest picture all are there.
fn ladder(layers: &[Layer], others: u64) -> Ladder {
    let picture = |layer: &Layer| layer.point.picture();
    let Some(lowest) = layers.first().map(picture) else { return Ladder::new() };
    let stays = layers.iter().filter(|layer| {
        let all = layers.iter().filter(|other| picture(other) == picture(layer));
        let full = all.max_by_key(|other| other.point.temporal).unwrap_or(layer);
        picture(layer) == lowest || is_smooth(layer, full)
    });
    let rung = |layer: &Layer| {
        let (need, keyframe) = (need(layer, others), layer.keyframe_bytes as f64 * 8.0 * NEED);
        Rung { layer: *layer, need, to_begin: need.max(keyframe / KEYFRAME_WITHIN.as_secs_f64()) }
    };
    stays.map(rung).collect()
}

/// What the path has to carry for a viewer to go to a layer: if that is of another picture, or nothing can be decoded, it begins
/// with a keyframe.
fn need_to_go(situation: &Situation<'_>, rung: &Rung) -> f64 {
    let goes_on = !situation.waits && situation.present.picture() == rung.layer.point.picture();
    if goes_on { rung.need } else { rung.to_begin }
}

/// True if a layer has at least half of the frames of the `full` one, or enough of them.
fn is_smooth(layer: &Layer, full: &Layer) -> bool {
    if layer.frame_rate > 0.0 && full.frame_rate > 0.0 {
        layer.frame_rate >= SMOOTH || layer.frame_rate >= 0.48 * full.frame_rate
    } else {
        layer.point.temporal + 1 >= full.point.temporal
    }
}

/// What of its present encoding a viewer is sent until it has got to its target: the most that fits, or else the least.
fn interim(situation: &Situation<'_>, target: OperatingPoint) -> Option<OperatingPoint> {
    let present = situation.present;
    let is_same = |layer: &&Layer| layer.point.encoding == present.encoding;
    if target.picture() == present.picture() {
        return None;
    }
    let carries = situation.path.carries();
    let fits = |layer: &&Layer| need(layer, situation.others) <= carries;
    let within = |layer: &&Layer| layer.point.spatial == present.spatial && layer.point.temporal <= present.temporal;
    let layers = || situation.layers.iter().filter(is_same).filter(within);
    let most = layers().filter(fits).max_by_key(|layer| layer.bitrate);
    let least = || layers().min_by_key(|layer| layer.bitrate);
    most.or_else(least).map(|layer| layer.point)
}

#[cfg(test)]
mod tests;
