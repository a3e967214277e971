//! The dependency descriptor (AV1 RTP payload specification, appendix A): to which frame a packet belongs, on which frames that
//! one depends, and for which decode targets it is needed. Any codec may carry it.

use super::bits::Bits;

/// Templates of a structure at most (A.4.1, `MAX_TEMPLATE_ID`).
pub const MAX_TEMPLATES: usize = 64;
/// Decode targets of a structure at most: `dtis_cnt_minus_one` has five bits.
pub const MAX_TARGETS: usize = 32;
/// Spatial layers at most (A.4.1, `MAX_SPATIAL_ID`).
pub const MAX_SPATIAL: usize = 4;
/// Temporal layers at most (A.4.1, `MAX_TEMPORAL_ID`).
const MAX_TEMPORAL: u8 = 8;
/// Frames on which one depends that are told; AV1 has eight slots for references.
pub const MAX_REFERENCES: usize = 8;

/// Why a descriptor is not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DescriptorError {
    /// It ends too early.
    #[error("the dependency descriptor is cut")]
    Cut,
    /// A layer or a count above what the specification allows.
    #[error("the dependency structure is beyond its bounds")]
    Bounds,
    /// The structure that it goes by has not been seen.
    #[error("the dependency structure is not known")]
    UnknownStructure,
    /// No template of the structure has its number.
    #[error("the dependency structure has no such template")]
    UnknownTemplate,
}

/// What a frame is to one decode target (table A.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Indication {
    /// Not part of it.
    NotPresent,
    /// Part of it, and no other frame of it refers to this one.
    Discardable,
    /// Part of it; whoever can decode this frame can decode all that follow.
    Switch,
    /// Part of it, and neither of these.
    Required,
}

/// The indications of a frame, one for each decode target: two bits each, those of target 0 lowest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Indications(u64);

impl Indications {
    /// What the frame is to this decode target.
    #[inline]
    pub fn of(self, target: usize) -> Indication {
        match self.0 >> (2 * target.min(MAX_TARGETS - 1)) & 3 {
            0 => Indication::NotPresent,
            1 => Indication::Discardable,
            2 => Indication::Switch,
            _ => Indication::Required,
        }
    }

    fn read(bits: &mut Bits<'_>, targets: u8) -> Option<Indications> {
        let mut value = 0;
        for target in 0..targets {
            value |= u64::from(bits.take(2)?) << (2 * target);
        }
        Some(Indications(value))
    }
}

/// The frames on which one depends, as differences of frame numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct References {
    differences: [u16; MAX_REFERENCES],
    count: u8,
}

impl References {
    /// The differences; `None` if there are more than are told.
    pub fn differences(&self) -> Option<&[u16]> {
        self.differences.get(..usize::from(self.count))
    }

    fn push(&mut self, difference: u16) {
        if let Some(free) = self.differences.get_mut(usize::from(self.count)) {
            *free = difference;
        }
        self.count = self.count.saturating_add(1);
    }
}

/// What frames of one kind have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Template {
    /// Spatial layer, 0..=3.
    pub spatial: u8,
    /// Temporal layer, 0..=7.
    pub temporal: u8,
    /// What they are to the decode targets.
    pub indications: Indications,
    /// On which frames they depend.
    pub references: References,
}

/// A template dependency structure, which holds until the next one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Structure {
    first_template: u8,
    templates: [Template; MAX_TEMPLATES],
    count: u8,
    targets: u8,
    chains: u8,
    resolutions: Option<[(u16, u16); MAX_SPATIAL]>,
    spatial_layers: u8,
}

impl Structure {
    /// Its templates; that of index 0 has the number `template_id_offset`.
    pub fn templates(&self) -> &[Template] {
        &self.templates[..usize::from(self.count)]
    }

    /// Number of decode targets.
    pub fn targets(&self) -> u8 {
        self.targets
    }

    /// Width and height of a spatial layer in pixels, at most; `None` where nothing says it.
    pub fn resolution(&self, spatial: u8) -> Option<(u16, u16)> {
        let resolutions = self.resolutions.as_ref().filter(|_| spatial < self.spatial_layers)?;
        resolutions.get(usize::from(spatial)).copied()
    }

    /// The index of a template by its number.
    #[inline]
    pub fn index(&self, template_id: u8) -> Option<usize> {
        let index = template_id.wrapping_sub(self.first_template) & (MAX_TEMPLATES as u8 - 1);
        (index < self.count).then_some(usize::from(index))
    }

    fn read(bits: &mut Bits<'_>) -> Result<Structure, DescriptorError> {
        use DescriptorError::{Bounds, Cut};
        let mut structure = Structure {
            first_template: bits.take(6).ok_or(Cut)? as u8,
            templates: [Template::default(); MAX_TEMPLATES],
            count: 0,
            targets: bits.take(5).ok_or(Cut)? as u8 + 1,
            chains: 0,
            resolutions: None,
            spatial_layers: 0,
        };
        let (mut spatial, mut temporal) = (0u8, 0u8);
        loop {
            let template = structure.templates.get_mut(usize::from(structure.count)).ok_or(Bounds)?;
            (template.spatial, template.temporal) = (spatial, temporal);
            structure.count += 1;
            match bits.take(2).ok_or(Cut)? {
                0 => {}
                1 => temporal += 1,
                2 => (spatial, temporal) = (spatial + 1, 0),
                _ => break,
            }
            if usize::from(spatial) >= MAX_SPATIAL || temporal >= MAX_TEMPORAL {
                return Err(Bounds);
            }
        }
        structure.spatial_layers = spatial + 1;
        structure.read_templates(bits).ok_or(Cut)?;
        Ok(structure)
    }

    /// What follows the layers of the templates.
    fn read_templates(&mut self, bits: &mut Bits<'_>) -> Option<()> {
        let targets = self.targets;
        let templates = &mut self.templates[..usize::from(self.count)];
        for template in &mut *templates {
            template.indications = Indications::read(bits, targets)?;
        }
        for template in templates {
            while bits.take(1)? == 1 {
                template.references.push(bits.take(4)? as u16 + 1);
            }
        }
        self.chains = non_symmetric(bits, u32::from(targets) + 1)? as u8;
        if self.chains > 0 {
            for _ in 0..targets {
                non_symmetric(bits, u32::from(self.chains))?;
            }
            bits.skip(4 * usize::from(self.count) * usize::from(self.chains))?;
        }
        if bits.take(1)? == 1 {
            let mut resolutions = [(0, 0); MAX_SPATIAL];
            for resolution in &mut resolutions[..usize::from(self.spatial_layers)] {
                let (width, height) = (bits.take(16)?, bits.take(16)?);
                // A side of 65,536 is told as one less.
                let side = |minus_one: u32| u16::try_from(minus_one + 1).unwrap_or(u16::MAX);
                *resolution = (side(width), side(height));
            }
            self.resolutions = Some(resolutions);
        }
        Some(())
    }
}

/// A number below `count` (A.4.1, `ns(n)`).
fn non_symmetric(bits: &mut Bits<'_>, count: u32) -> Option<u32> {
    let width = u32::BITS - count.leading_zeros();
    let short = (1 << width) - count;
    let value = bits.take(width - 1)?;
    if value < short {
        return Some(value);
    }
    Some((value << 1) - short + bits.take(1)?)
}

/// The first three bytes, which every descriptor has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    /// The first packet of a frame.
    pub start_of_frame: bool,
    /// The last packet of a frame.
    pub end_of_frame: bool,
    /// Number of the template that the frame goes by.
    pub template_id: u8,
    /// Grows with every frame, in the order of decoding.
    pub frame_number: u16,
}

impl Fields {
    /// Bytes that they take.
    pub const LEN: usize = 3;

    /// Reads them.
    #[inline]
    pub fn parse(descriptor: &[u8]) -> Option<Fields> {
        let &[first, high, low] = descriptor.first_chunk()?;
        Some(Fields {
            start_of_frame: first & 0x80 != 0,
            end_of_frame: first & 0x40 != 0,
            template_id: first & 0x3f,
            frame_number: u16::from_be_bytes([high, low]),
        })
    }
}

/// A whole descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// The first three bytes.
    pub fields: Fields,
    /// The decode targets that are sent at present, if it says so: bit by bit.
    pub active_targets: Option<u32>,
    /// Indications that differ from those of the template.
    pub indications: Option<Indications>,
    /// References that differ from those of the template.
    pub references: Option<References>,
    /// Number of decode targets.
    targets: u8,
}

impl Descriptor {
    /// Reads a descriptor; `known` is the structure that came last, `fresh` becomes the one that comes with this packet.
    pub fn parse(
        bytes: &[u8],
        known: Option<&Structure>,
        fresh: &mut Option<Structure>,
    ) -> Result<Descriptor, DescriptorError> {
        use DescriptorError::{Cut, UnknownStructure, UnknownTemplate};
        let fields = Fields::parse(bytes).ok_or(Cut)?;
        let mut bits = Bits::new(bytes);
        bits.skip(8 * Fields::LEN).ok_or(Cut)?;
        let mut flags = 0;
        if bytes.len() > Fields::LEN {
            flags = bits.take(5).ok_or(Cut)?;
            if flags & STRUCTURE_PRESENT != 0 {
                *fresh = Some(Structure::read(&mut bits)?);
            }
        }
        let current = fresh.as_ref().or(known).ok_or(UnknownStructure)?;
        let (targets, chains) = (current.targets, current.chains);
        current.index(fields.template_id).ok_or(UnknownTemplate)?;
        let mut descriptor = Descriptor { fields, active_targets: None, indications: None, references: None, targets };
        descriptor.read_customs(&mut bits, flags, chains).ok_or(Cut)?;
        Ok(descriptor)
    }

    fn read_customs(&mut self, bits: &mut Bits<'_>, flags: u32, chains: u8) -> Option<()> {
        if flags & TARGETS_PRESENT != 0 {
            self.active_targets = Some(bits.take(u32::from(self.targets))?);
        }
        if flags & CUSTOM_INDICATIONS != 0 {
            self.indications = Some(Indications::read(bits, self.targets)?);
        }
        if flags & CUSTOM_REFERENCES != 0 {
            let mut references = References::default();
            loop {
                let size = bits.take(2)?;
                if size == 0 {
                    break;
                }
                // Twelve bits at most: no overflow.
                references.push(bits.take(4 * size)? as u16 + 1);
            }
            self.references = Some(references);
        }
        if flags & CUSTOM_CHAINS != 0 {
            bits.skip(8 * usize::from(chains))?;
        }
        Some(())
    }
}

/// Of the five flags behind the first three bytes (A.4.1).
const STRUCTURE_PRESENT: u32 = 0x10;
const TARGETS_PRESENT: u32 = 0x08;
const CUSTOM_INDICATIONS: u32 = 0x04;
const CUSTOM_REFERENCES: u32 = 0x02;
const CUSTOM_CHAINS: u32 = 0x01;

/// Writes a descriptor that says which of `count` decode targets are active: with every structure, with the first packet of
/// every frame, and where it said so before, of which no more are active then. Its length; `None` if it is to stay as it is.
pub fn with_active_targets(bytes: &[u8], mask: u32, count: u8, out: &mut [u8]) -> Option<usize> {
    let fields = Fields::parse(bytes)?;
    let mut bits = Bits::new(bytes);
    bits.skip(8 * Fields::LEN)?;
    let flags = if bytes.len() > Fields::LEN { bits.take(5)? } else { 0 };
    if !fields.start_of_frame && flags & (STRUCTURE_PRESENT | TARGETS_PRESENT) == 0 {
        return None;
    }
    if flags & STRUCTURE_PRESENT != 0 && Structure::read(&mut bits).ok()?.targets != count {
        return None;
    }
    let mut writer = BitWriter::new(out);
    let mut head = Bits::new(bytes);
    let end = bits.position();
    writer.put(head.take(24)?, 24)?;
    writer.put(flags | TARGETS_PRESENT, 5)?;
    if bytes.len() > Fields::LEN {
        head.skip(5)?;
        writer.copy(&mut head, end)?;
    }
    let mut active = mask;
    if flags & TARGETS_PRESENT != 0 {
        let theirs = bits.take(u32::from(count))?;
        // A sender that makes none of them at present is heard.
        active = if theirs & mask == 0 { theirs } else { theirs & mask };
    }
    writer.put(active, u32::from(count))?;
    if flags & (CUSTOM_INDICATIONS | CUSTOM_REFERENCES | CUSTOM_CHAINS) != 0 {
        writer.copy(&mut bits, 8 * bytes.len())?;
    }
    Some(writer.position.div_ceil(8))
}

/// Writes bits from the front, the highest of each byte first.
struct BitWriter<'a> {
    bytes: &'a mut [u8],
    position: usize,
}

impl BitWriter<'_> {
    fn new(bytes: &mut [u8]) -> BitWriter<'_> {
        BitWriter { bytes, position: 0 }
    }

    /// The lowest `count` bits of a value; `None` beyond the end.
    fn put(&mut self, value: u32, count: u32) -> Option<()> {
        for bit in (0..count).rev() {
            let byte = self.bytes.get_mut(self.position / 8)?;
            let mask = 0x80 >> (self.position % 8);
            *byte = if value >> bit & 1 == 1 { *byte | mask } else { *byte & !mask };
            self.position += 1;
        }
        // What is behind the last bit is zero.
        if !self.position.is_multiple_of(8) {
            self.bytes[self.position / 8] &= !(0xff >> (self.position % 8));
        }
        Some(())
    }

    /// Bits of a reader, up to this position of it.
    fn copy(&mut self, from: &mut Bits<'_>, end: usize) -> Option<()> {
        while from.position() < end {
            let count = (end - from.position()).min(32) as u32;
            self.put(from.take(count)?, count)?;
        }
        Some(())
    }
}

#[cfg(test)]
pub(crate) mod tests;
