//! Layers by the dependency descriptor, whatever the codec (AV1 RTP payload specification, appendix A).

use crate::layers::{
    MAX_SPATIAL_LAYERS, MAX_TEMPORAL_LAYERS, OperatingPoint, POINTS, PacketLayer, PointSet, point_bit, point_index,
};
use crate::rtp::dependency_descriptor::{
    Descriptor, Fields, Indication, Indications, MAX_TARGETS, MAX_TEMPLATES, References, Structure,
};

use super::points::LOWEST_TEMPORAL;

/// Frames that are remembered; a frame that refers further back allows nothing to go up.
const REMEMBERED: usize = 64;
/// A structure whose frame is older than the present one's by less than so many frames was received late.
const LATE: u16 = 1 << 10;

/// True if the descriptor claims to have a dependency structure.
pub(super) fn has_structure(bytes: &[u8]) -> bool {
    bytes.get(Fields::LEN).is_some_and(|flags| flags & 0x80 != 0)
}

/// Which decode target each point stands for.
#[derive(Clone, Copy)]
struct Targets {
    /// By point.
    of: [u8; POINTS],
    /// Points that stand for the same target as the one a temporal layer below.
    repeated: PointSet,
    /// One point a target.
    points: PointSet,
}

impl Targets {
    /// Of these, which are sent at present. A target's layers are the highest of the frames that belong to it. A point stands
    /// for the target of its own layers, or else for the nearest below, or else for the lowest.
    fn of(structure: &Structure, active: u32) -> Targets {
        let mut layers = [None; MAX_TARGETS];
        for template in structure.templates() {
            for (target, layer) in layers[..usize::from(structure.targets())].iter_mut().enumerate() {
                if active & 1 << target != 0 && template.indications.of(target) != Indication::NotPresent {
                    let (spatial, temporal) = layer.unwrap_or((0, 0));
                    *layer = Some((template.spatial.max(spatial), template.temporal.max(temporal)));
                }
            }
        }
        let layers = || layers.iter().enumerate().filter_map(|(target, layer)| Some((target as u8, (*layer)?)));
        let mut targets = Targets { of: [0; POINTS], repeated: 0, points: 0 };
        for (index, of) in targets.of.iter_mut().enumerate() {
            let (spatial, temporal) = layers_of(index);
            // The highest temporal layer that is told apart stands for all above.
            let is_below = |layer: u8| layer <= temporal || temporal == MAX_TEMPORAL_LAYERS - 1;
            let below = layers().filter(|(_, (s, t))| *s <= spatial && is_below(*t)).max_by_key(|(_, layers)| *layers);
            *of = below.or_else(|| layers().min_by_key(|(_, layers)| *layers)).map_or(0, |(target, _)| target);
        }
        for index in 0..POINTS {
            let is_first = targets.of[..index].iter().all(|of| *of != targets.of[index]);
            targets.points |= u16::from(is_first) << index;
            let repeats = index % usize::from(MAX_TEMPORAL_LAYERS) != 0 && targets.of[index] == targets.of[index - 1];
            targets.repeated |= u16::from(repeats) << index;
        }
        targets
    }

    /// The points whose target takes a frame for one of these.
    fn points_where(&self, indications: Indications, is: impl Fn(Indication) -> bool) -> PointSet {
        let is_at = |(index, target): (usize, &u8)| u16::from(is(indications.of(usize::from(*target)))) << index;
        self.of.iter().enumerate().map(is_at).fold(0, |all, bit| all | bit)
    }

    fn sets(&self, indications: Indications) -> Sets {
        Sets {
            present: self.points_where(indications, |is| is != Indication::NotPresent),
            allowed: self.points_where(indications, |is| is == Indication::Switch),
        }
    }
}

/// Spatial and temporal layer of a point by its bit's place.
fn layers_of(index: usize) -> (u8, u8) {
    let index = index as u8;
    (index / MAX_TEMPORAL_LAYERS, index % MAX_TEMPORAL_LAYERS)
}

/// What a frame is to the points.
#[derive(Clone, Copy, Default)]
struct Sets {
    /// It is part of them.
    present: PointSet,
    /// They can be decoded from this frame on by whoever can decode the frame.
    allowed: PointSet,
}

/// The structure in force and the frames that were described by it.
pub(super) struct Dependencies {
    structure: Option<Structure>,
    /// Decode targets that are sent at present.
    active: u32,
    /// Frame number with which the structure came, or the active targets.
    since: u16,
    targets: Targets,
    /// By template.
    sets: [Sets; MAX_TEMPLATES],
    /// Frame number and points at which it was present, by the number's lowest bits.
    frames: [Option<(u16, PointSet)>; REMEMBERED],
    /// The structure changed, or what is active of it.
    has_news: bool,
}

impl Default for Dependencies {
    fn default() -> Dependencies {
        Dependencies {
            structure: None,
            active: u32::MAX,
            since: 0,
            targets: Targets { of: [0; POINTS], repeated: 0, points: 0 },
            sets: [Sets::default(); MAX_TEMPLATES],
            frames: [None; REMEMBERED],
            has_news: false,
        }
    }
}

impl Dependencies {
    /// The layer of a packet with this descriptor; `None` if it is not understood.
    #[inline]
    pub(super) fn read(&mut self, bytes: &[u8]) -> Option<PacketLayer> {
        if bytes.len() > Fields::LEN {
            return self.read_extended(bytes);
        }
        let fields = Fields::parse(bytes)?;
        let structure = self.structure.as_ref()?;
        let index = structure.index(fields.template_id)?;
        let template = &structure.templates()[index];
        let (layers, references) = ((template.spatial, template.temporal), template.references);
        Some(self.note(fields, layers, self.sets[index], &references))
    }

    /// A descriptor with more than the three bytes that all have.
    fn read_extended(&mut self, bytes: &[u8]) -> Option<PacketLayer> {
        let mut fresh = None;
        let descriptor = match Descriptor::parse(bytes, self.structure.as_ref(), &mut fresh) {
            Ok(descriptor) => descriptor,
            Err(_) => {
                // What follows would go by a structure that was not understood.
                if has_structure(bytes) {
                    self.structure = None;
                }
                return None;
            }
        };
        let fields = descriptor.fields;
        // What was received late does not replace what is newer.
        let is_late = (1..LATE).contains(&self.since.wrapping_sub(fields.frame_number)) && self.structure.is_some();
        if !is_late {
            self.learn(fields.frame_number, fresh, descriptor.active_targets);
        }
        let structure = self.structure.as_ref()?;
        let index = structure.index(fields.template_id)?;
        let template = &structure.templates()[index];
        let sets = descriptor.indications.map_or(self.sets[index], |indications| self.targets.sets(indications));
        let references = descriptor.references.unwrap_or(template.references);
        Some(self.note(fields, (template.spatial, template.temporal), sets, &references))
    }

    /// A structure makes all of its decode targets active, unless it is said which are.
    fn learn(&mut self, frame_number: u16, structure: Option<Structure>, active: Option<u32>) {
        let Some(active) = active.or(structure.as_ref().map(|_| u32::MAX)) else { return };
        self.since = frame_number;
        let is_known = structure.is_none() || structure == self.structure;
        if is_known && active == self.active {
            return;
        }
        self.structure = structure.or(self.structure.take());
        self.active = active;
        self.set_targets();
    }

    #[cold]
    fn set_targets(&mut self) {
        let Some(structure) = &self.structure else { return };
        self.targets = Targets::of(structure, self.active);
        for (sets, template) in self.sets.iter_mut().zip(structure.templates()) {
            *sets = self.targets.sets(template.indications);
        }
        self.has_news = true;
    }

    #[inline]
    fn note(
        &mut self,
        fields: Fields,
        (spatial, temporal): (u8, u8),
        sets: Sets,
        references: &References,
    ) -> PacketLayer {
        self.frames[usize::from(fields.frame_number) % REMEMBERED] = Some((fields.frame_number, sets.present));
        let switch = match fields.start_of_frame {
            true => self.switch(fields.frame_number, sets, references),
            false => 0,
        };
        PacketLayer {
            present: sets.present,
            switch,
            spatial,
            temporal: temporal.min(MAX_TEMPORAL_LAYERS - 1),
            frame_end: fields.end_of_frame,
        }
    }

    /// Which points a decoder may go up to: those which the frame allows, if a decoder at a lower one had all to which the
    /// frame refers.
    fn switch(&self, frame_number: u16, sets: Sets, references: &References) -> PointSet {
        if sets.allowed == 0 {
            return 0;
        }
        let had = self.had(frame_number, references);
        // Temporal layer by temporal layer.
        let below = (sets.present | had) << 1 & !LOWEST_TEMPORAL;
        // The lowest one of a spatial layer from any spatial layer below.
        let mut from_lower = 0;
        for spatial in 0..MAX_SPATIAL_LAYERS {
            let lower = LOWEST_TEMPORAL & (point_bit(spatial, 0) - 1);
            let is_key = references.differences().is_some_and(<[u16]>::is_empty);
            if had & lower == lower && (spatial > 0 || is_key) {
                from_lower |= point_bit(spatial, 0);
            }
        }
        let mut switch = sets.allowed & (below | from_lower);
        for _ in 1..MAX_TEMPORAL_LAYERS {
            switch |= switch << 1 & self.targets.repeated;
        }
        switch
    }

    /// The points at which a decoder had all these frames.
    fn had(&self, frame_number: u16, references: &References) -> PointSet {
        let Some(differences) = references.differences() else { return 0 };
        let had = |difference: &u16| {
            let number = frame_number.wrapping_sub(*difference);
            let frame = self.frames[usize::from(number) % REMEMBERED].filter(|(found, _)| *found == number);
            frame.map_or(0, |(_, present)| present)
        };
        differences.iter().map(had).fold(PointSet::MAX, |all, present| all & present)
    }

    /// True once after the structure has changed.
    pub(super) fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.has_news)
    }

    /// One point for every decode target.
    pub(super) fn points(&self) -> PointSet {
        self.targets.points
    }

    /// Width and height of a spatial layer, as the structure says.
    pub(super) fn resolution(&self, spatial: u8) -> Option<(u16, u16)> {
        self.structure.as_ref()?.resolution(spatial)
    }
}

/// The decode targets of a structure, as far as viewers are told which of them they are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeTargets {
    /// By point: bit by bit the targets of which everything is sent there.
    active: [u32; POINTS],
    count: u8,
}

impl DecodeTargets {
    /// Those of the structure in a dependency descriptor, if it has one.
    pub fn of(descriptor: &[u8]) -> Option<DecodeTargets> {
        if !has_structure(descriptor) {
            return None;
        }
        let mut structure = None;
        Descriptor::parse(descriptor, None, &mut structure).ok()?;
        let structure = structure?;
        let targets = Targets::of(&structure, u32::MAX);
        let all = u32::MAX >> (MAX_TARGETS as u32 - u32::from(structure.targets()));
        let mut active = [all; POINTS];
        for template in structure.templates() {
            let present = targets.sets(template.indications).present;
            let needed = (0..structure.targets())
                .filter(|&target| template.indications.of(usize::from(target)) != Indication::NotPresent);
            let needed = needed.fold(0, |all, target| all | 1 << target);
            for (index, active) in active.iter_mut().enumerate() {
                if present & 1 << index == 0 {
                    *active &= !needed;
                }
            }
        }
        Some(DecodeTargets { active, count: structure.targets() })
    }

    /// Those that a viewer at a point is sent.
    pub fn at(&self, point: OperatingPoint) -> ActiveTargets {
        let index = point_index(point.spatial, point.temporal);
        ActiveTargets { mask: self.active[index], count: self.count }
    }
}

/// The decode targets that a viewer is sent (A.4.1, `active_decode_targets_bitmask`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActiveTargets {
    /// Bit by bit.
    pub mask: u32,
    /// How many the structure has, 1..=32.
    pub count: u8,
}

impl ActiveTargets {
    /// True if every one is sent, as a structure has it that says nothing else.
    pub fn are_all(&self) -> bool {
        self.mask == u32::MAX >> (MAX_TARGETS as u32 - u32::from(self.count))
    }
}
