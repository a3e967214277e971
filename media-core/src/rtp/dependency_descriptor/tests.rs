use super::*;

/// Writes descriptors as the specification has them, bit by bit.
#[derive(Clone, Default)]
pub(crate) struct Written(Vec<bool>);

impl Written {
    pub(crate) fn put(mut self, value: u32, count: u32) -> Written {
        self.0.extend((0..count).rev().map(|bit| value >> bit & 1 == 1));
        self
    }

    fn put_non_symmetric(self, value: u32, count: u32) -> Written {
        let width = u32::BITS - count.leading_zeros();
        let short = (1 << width) - count;
        if value < short { self.put(value, width - 1) } else { self.put(value + short, width) }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let byte = |bits: &[bool]| bits.iter().enumerate().fold(0, |byte, (at, bit)| byte | u8::from(*bit) << (7 - at));
        self.0.chunks(8).map(byte).collect()
    }
}

/// A template: layers, indications as the specification writes them, references, chains.
pub(crate) type Row = (u8, u8, &'static str, &'static [u32], &'static [u32]);

pub(crate) struct Example {
    pub(crate) offset: u32,
    pub(crate) rows: &'static [Row],
    /// By decode target.
    pub(crate) protected_by: &'static [u32],
    pub(crate) resolutions: &'static [(u32, u32)],
}

impl Example {
    fn targets(&self) -> u32 {
        self.rows[0].2.len() as u32
    }

    /// The three bytes of a packet of the frame that goes by this row.
    pub(crate) fn fields(&self, row: usize, number: u16, (start, end): (bool, bool)) -> Written {
        let id = (self.offset + row as u32) % 64;
        Written::default().put(u32::from(start) << 1 | u32::from(end), 2).put(id, 6).put(u32::from(number), 16)
    }

    /// A packet without more than these.
    pub(crate) fn packet(&self, row: usize, number: u16) -> Vec<u8> {
        self.fields(row, number, (true, true)).bytes()
    }

    /// The first packet of a frame, with the structure, and behind it this mask of decode targets.
    pub(crate) fn with_structure(&self, row: usize, number: u16, mask: Option<u32>) -> Vec<u8> {
        let flags = 0x10 | if mask.is_some() { 0x08 } else { 0 };
        let written = self.structure(self.fields(row, number, (true, false)).put(flags, 5));
        mask.map_or(written.clone(), |mask| written.put(mask, self.targets())).bytes()
    }

    /// The only packet of a frame, with the structure and indications of its own.
    pub(crate) fn with_structure_and(&self, row: usize, number: u16, own: &str) -> Vec<u8> {
        indications(own, self.structure(self.fields(row, number, (true, true)).put(0x14, 5))).bytes()
    }

    fn structure(&self, written: Written) -> Written {
        let mut written = written.put(self.offset, 6).put(self.targets() - 1, 5);
        for (index, row) in self.rows.iter().enumerate() {
            let next = self.rows.get(index + 1).map_or(3, |next| match (next.0 - row.0, next.1.wrapping_sub(row.1)) {
                (0, 0) => 0,
                (0, 1) => 1,
                (1, _) if next.1 == 0 => 2,
                _ => panic!("rows out of order"),
            });
            written = written.put(next, 2);
        }
        for row in self.rows {
            written = indications(row.2, written);
        }
        for row in self.rows {
            for &difference in row.3 {
                written = written.put(1, 1).put(difference - 1, 4);
            }
            written = written.put(0, 1);
        }
        let chains = self.rows[0].4.len() as u32;
        written = written.put_non_symmetric(chains, self.targets() + 1);
        if chains > 0 {
            for &chain in self.protected_by {
                written = written.put_non_symmetric(chain, chains);
            }
            for &difference in self.rows.iter().flat_map(|row| row.4) {
                written = written.put(difference, 4);
            }
        }
        written = written.put(u32::from(!self.resolutions.is_empty()), 1);
        for &(width, height) in self.resolutions {
            written = written.put(width - 1, 16).put(height - 1, 16);
        }
        written
    }
}

pub(crate) fn indications(text: &str, written: Written) -> Written {
    text.chars().fold(written, |written, symbol| written.put("-DSR".find(symbol).unwrap() as u32, 2))
}

/// Reads a descriptor, and the structure that holds from it on.
fn parse(bytes: &[u8], known: Option<&Structure>) -> Result<(Descriptor, Option<Structure>), DescriptorError> {
    let mut fresh = None;
    let descriptor = Descriptor::parse(bytes, known, &mut fresh)?;
    Ok((descriptor, fresh))
}

fn structure(bytes: &[u8]) -> Option<Structure> {
    parse(bytes, None).unwrap().1
}

/// A.6.1
pub(crate) const L1T3: Example = Example {
    offset: 60,
    rows: &[
        (0, 0, "SSS", &[], &[0]),
        (0, 0, "SSS", &[4], &[4]),
        (0, 1, "SD-", &[2], &[2]),
        (0, 2, "D--", &[1], &[1]),
        (0, 2, "D--", &[1], &[3]),
    ],
    protected_by: &[0, 0, 0],
    resolutions: &[],
};

/// A.6.2
pub(crate) const L2T1: Example = Example {
    offset: 7,
    rows: &[
        (0, 0, "SS", &[], &[0, 0]),
        (0, 0, "RS", &[2], &[2, 1]),
        (0, 0, "SS", &[2], &[2, 1]),
        (1, 0, "S-", &[1], &[1, 1]),
        (1, 0, "R-", &[2, 1], &[1, 1]),
    ],
    protected_by: &[1, 0],
    resolutions: &[(320, 180), (640, 360)],
};

#[test]
fn the_examples_of_the_specification_are_read() {
    // EXT-H12
    for example in [L1T3, L2T1] {
        let bytes = example.with_structure(0, 0x1234, None);
        let (descriptor, structure) = parse(&bytes, None).unwrap();
        let structure = structure.unwrap();
        assert_eq!(u32::from(structure.targets()), example.targets());
        assert_eq!(structure.templates().len(), example.rows.len());
        for (template, row) in structure.templates().iter().zip(example.rows) {
            assert_eq!((template.spatial, template.temporal), (row.0, row.1));
            let expected: Vec<u16> = row.3.iter().map(|&difference| difference as u16).collect();
            assert_eq!(template.references.differences().unwrap(), expected);
            for (target, symbol) in row.2.chars().enumerate() {
                assert_eq!("-DSR".find(symbol).unwrap(), template.indications.of(target) as usize);
            }
        }
        for spatial in 0..4 {
            let expected = example.resolutions.get(spatial).map(|&(width, height)| (width as u16, height as u16));
            assert_eq!(structure.resolution(spatial as u8), expected);
        }
        let fields = descriptor.fields;
        assert!(fields.start_of_frame && !fields.end_of_frame);
        assert_eq!((fields.frame_number, structure.index(fields.template_id)), (0x1234, Some(0)));
        for end in 0..bytes.len() {
            assert!(parse(&bytes[..end], None).is_err(), "cut at {end}");
        }
    }
}

#[test]
fn what_a_frame_has_of_its_own_is_read() {
    // EXT-H12
    let known = structure(&L2T1.with_structure(0, 1, None));
    let written = L2T1.fields(3, 2, (false, true)).put(0x0f, 5).put(0b10, 2);
    let written = indications("D-", written).put(1, 2).put(0, 4).put(3, 2).put(0xfff, 12).put(0, 2).put(9, 8).put(1, 8);
    let descriptor = parse(&written.bytes(), known.as_ref()).unwrap().0;
    assert_eq!(descriptor.active_targets, Some(0b10));
    let own = descriptor.indications.unwrap();
    assert_eq!((own.of(0), own.of(1)), (Indication::Discardable, Indication::NotPresent));
    assert_eq!(descriptor.references.unwrap().differences(), Some(&[1, 4096][..]));
    assert_eq!(parse(&written.bytes()[..7], known.as_ref()), Err(DescriptorError::Cut));
}

#[test]
fn what_no_structure_explains_is_refused() {
    // EXT-H12
    let known = structure(&L1T3.with_structure(0, 1, None));
    assert_eq!(parse(&L1T3.packet(1, 2), None), Err(DescriptorError::UnknownStructure));
    assert!(parse(&L1T3.packet(4, 2), known.as_ref()).is_ok(), "number 0, as 64 is");
    assert_eq!(parse(&L1T3.packet(5, 2), known.as_ref()), Err(DescriptorError::UnknownTemplate));
    let begin = || L1T3.fields(0, 1, (true, false)).put(0x10, 5).put(60, 6).put(0, 5);
    let spatial = (0..4).fold(begin(), |written, _| written.put(2, 2));
    assert_eq!(parse(&spatial.bytes(), None), Err(DescriptorError::Bounds));
    let temporal = (0..8).fold(begin(), |written, _| written.put(1, 2));
    assert_eq!(parse(&temporal.bytes(), None), Err(DescriptorError::Bounds));
    let templates = (0..4).fold(begin(), |written, _| written.put(0, 32));
    assert_eq!(parse(&templates.bytes(), None), Err(DescriptorError::Bounds));
}

#[test]
fn a_frame_with_more_references_than_are_told_has_none_that_can_be_relied_on() {
    let known = structure(&L1T3.with_structure(0, 1, None));
    let nine = (0..9).fold(L1T3.fields(1, 2, (true, true)).put(0x02, 5), |written, _| written.put(1, 2).put(3, 4));
    let descriptor = parse(&nine.put(0, 2).bytes(), known.as_ref()).unwrap().0;
    assert_eq!(descriptor.references.unwrap().differences(), None);
}

/// The descriptor with these targets active, if it says so.
fn active(bytes: &[u8], mask: u32, count: u8) -> Option<Vec<u8>> {
    let mut out = [0xff; 255];
    let length = with_active_targets(bytes, mask, count, &mut out)?;
    Some(out[..length].to_vec())
}

#[test]
fn active_targets_are_told_with_structures_and_at_the_begin_of_frames() {
    // EXT-H12
    for theirs in [None, Some(0b11), Some(0b10), Some(0b01)] {
        let bytes = L2T1.with_structure(0, 9, theirs);
        let parsed = parse(&bytes, None).unwrap();
        let told = parse(&active(&bytes, 0b10, 2).unwrap(), None).unwrap();
        assert_eq!(told.0.active_targets, Some(if theirs == Some(0b01) { 0b01 } else { 0b10 }));
        assert_eq!((told.0.fields, &told.1), (parsed.0.fields, &parsed.1));
    }
    assert_eq!(active(&L2T1.with_structure(0, 9, None), 0b110, 3), None, "of another structure");
    let known = structure(&L2T1.with_structure(0, 9, None));
    let told = parse(&active(&L2T1.packet(1, 11), 0b10, 2).unwrap(), known.as_ref()).unwrap().0;
    assert_eq!((told.fields.frame_number, told.active_targets), (11, Some(0b10)));
    assert_eq!(active(&L2T1.fields(1, 11, (false, true)).bytes(), 0b10, 2), None);
    let own = indications("DR", L2T1.fields(1, 11, (true, false)).put(0x04, 5));
    let told = parse(&active(&own.bytes(), 0b10, 2).unwrap(), known.as_ref()).unwrap().0;
    assert_eq!(told.indications, parse(&own.bytes(), known.as_ref()).unwrap().0.indications);
    let mut short = [0; 3];
    assert_eq!(with_active_targets(&L2T1.packet(1, 11), 0b10, 2, &mut short), None);
}

// EXT-H12: as Chromium sends them for VP9 and H.264 in mode L1T3; the second ends with the last bit of its last byte.
#[test]
fn structures_of_chromium_are_read_to_their_last_bit() {
    let vp9 = [0xc0, 0, 1, 0x80, 2, 0x14, 0xea, 0xa8, 0x60, 0x41, 0x4d, 0x14, 0x10, 0x20, 0x84, 0x27, 1, 0x3f, 0, 0xb3];
    let structure = |bytes: &[u8]| parse(bytes, None).map(|(_, structure)| structure.unwrap());
    let read = structure(&vp9).unwrap();
    assert_eq!((read.targets(), read.templates().len(), read.resolution(0)), (3, 5, Some((320, 180))));
    assert_eq!(structure(&vp9[..19]), Err(DescriptorError::Cut));
    let mut h264 = vp9[..16].to_vec();
    h264[15] = 0x26;
    assert_eq!(structure(&h264).unwrap().resolution(0), None);
    assert_eq!(structure(&h264[..15]), Err(DescriptorError::Cut));
}
