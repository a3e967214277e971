//! Simulcast: the encodings that a section offers to send beside each other, and which of them are received. By rids (RFC 8853,
//! RFC 8851), or by a group of SSRCs as clients wrote it before there were rids.

use std::collections::HashMap;

use media_core::media::{Extension, ExtensionMap, Format, SimulcastEncoding};

/// Encodings of a section that are looked at, alternatives among them; OBS and browsers have up to four.
const MAX_OFFERED_ENCODINGS: usize = 16;

/// What a section offers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Simulcast {
    /// The streams of `a=simulcast:send` in its order, each with its alternatives in theirs; those with an `a=rid` line.
    streams: Vec<Vec<Offered>>,
    /// The SSRCs of `a=ssrc-group:SIM`.
    group: Vec<u32>,
    /// Encodings beyond [`MAX_OFFERED_ENCODINGS`].
    pub(crate) surplus: usize,
}

/// One alternative of a stream.
#[derive(Clone, Debug)]
struct Offered {
    encoding: SimulcastEncoding,
    /// It is not sent at first (`~`).
    is_paused: bool,
    /// Payload types of `pt=`.
    restriction: Option<Vec<u8>>,
}

/// The encodings that are received.
#[derive(Clone, Debug, Default)]
pub(crate) struct Received {
    pub(crate) encodings: Vec<SimulcastEncoding>,
    /// The rids among them that are not sent at first.
    pub(crate) paused: Vec<String>,
}

impl Simulcast {
    /// Reads the attributes of a section; `values` yields the values of all those of a name.
    pub(crate) fn read<'a, I: Iterator<Item = &'a str>>(values: impl Fn(&'static str) -> I) -> Simulcast {
        let mut simulcast = Simulcast { group: group(values("ssrc-group")), ..Simulcast::default() };
        let Some(list) = values("simulcast").next().and_then(sent) else { return simulcast };
        let rids = rids(values("rid"));
        let mut named: Vec<&str> = Vec::new();
        for stream in list.split(';') {
            let mut alternatives = Vec::new();
            for alternative in stream.split(',') {
                let (is_paused, rid) = alternative.strip_prefix('~').map_or((false, alternative), |rid| (true, rid));
                let Some(restrictions) = rids.get(rid) else { continue };
                // One rid stands for one encoding (RFC 8853 §5.1).
                if named.contains(&rid) {
                    continue;
                }
                if named.len() == MAX_OFFERED_ENCODINGS {
                    simulcast.surplus += 1;
                    continue;
                }
                named.push(rid);
                alternatives.push(Offered::read(rid, restrictions, is_paused));
            }
            if !alternatives.is_empty() {
                simulcast.streams.push(alternatives);
            }
        }
        simulcast
    }

    /// Encodings that are offered beside each other.
    pub(crate) fn len(&self) -> usize {
        if self.streams.is_empty() { self.group.len() } else { self.streams.len() }
    }

    /// Those that are received, `most` at most: of each stream the first alternative of which a format was agreed. Rids need
    /// their header extension, and where the section is not alone that of its mid (RFC 8853 §5.4).
    pub(crate) fn received(
        &self,
        formats: &[Format],
        extensions: &ExtensionMap,
        is_alone: bool,
        most: usize,
    ) -> Received {
        let is_told =
            extensions.id(Extension::RtpStreamId).is_some() && (is_alone || extensions.id(Extension::Mid).is_some());
        let mut received = Received::default();
        let streams = self.streams.iter().filter(|_| is_told);
        for offered in streams.filter_map(|alternatives| alternatives.iter().find_map(|one| one.within(formats))) {
            if received.encodings.len() == most {
                break;
            }
            received.paused.extend(offered.encoding.rid.clone().filter(|_| offered.is_paused));
            received.encodings.push(offered.encoding);
        }
        if received.encodings.is_empty() {
            let encoding = |ssrc: &u32| SimulcastEncoding { ssrc: Some(*ssrc), ..SimulcastEncoding::default() };
            received.encodings = self.group.iter().take(most).map(encoding).collect();
        }
        received
    }
}

impl Offered {
    /// Restrictions that are unknown or do not parse are passed over: they bind the client alone (RFC 8851 §10).
    fn read(rid: &str, restrictions: &str, is_paused: bool) -> Offered {
        let mut encoding = SimulcastEncoding { rid: Some(rid.to_owned()), ..SimulcastEncoding::default() };
        let mut restriction = None;
        for part in restrictions.split(';') {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let value = value.trim();
            match name.trim() {
                "pt" => {
                    let listed = value.split(',').filter_map(|number| number.trim().parse().ok());
                    restriction = Some(listed.filter(|number: &u8| *number < 128).take(128).collect());
                }
                "max-width" => encoding.max_width = value.parse().ok(),
                "max-height" => encoding.max_height = value.parse().ok(),
                "max-fps" => encoding.max_frame_rate = value.parse().ok(),
                "max-br" => encoding.max_bitrate = value.parse().ok(),
                _ => {}
            }
        }
        Offered { encoding, is_paused, restriction }
    }

    /// The same of the agreed formats; `None` if it may have none of them.
    fn within(&self, formats: &[Format]) -> Option<Offered> {
        let mut offered = self.clone();
        let Some(restriction) = &self.restriction else { return Some(offered) };
        if !formats.iter().any(|format| restriction.contains(&format.payload_type)) {
            return None;
        }
        let is_agreed = |number: &u8| {
            formats.iter().any(|format| format.payload_type == *number || format.rtx_payload_type == Some(*number))
        };
        offered.encoding.payload_types = restriction.iter().copied().filter(is_agreed).collect();
        Some(offered)
    }
}

/// The values of `a=rid` and `a=simulcast` in the answer to these encodings, of which some are `paused`; `None` without rids. The
/// restrictions are those of the offer: an answer has no others (RFC 8851 §6).
pub(crate) fn answered(encodings: &[SimulcastEncoding], paused: &[String]) -> Option<(Vec<String>, String)> {
    let rids = || encodings.iter().filter_map(|encoding| Some((encoding, encoding.rid.as_deref()?)));
    let lines: Vec<String> = rids().map(|(encoding, rid)| format!("{rid} recv{}", restrictions(encoding))).collect();
    let mark = |rid: &str| if paused.iter().any(|paused| paused == rid) { "~" } else { "" };
    let list: Vec<String> = rids().map(|(_, rid)| format!("{}{rid}", mark(rid))).collect();
    (!list.is_empty()).then(|| (lines, format!("recv {}", list.join(";"))))
}

/// The restrictions of an `a=rid` line, with the space in front of them.
fn restrictions(encoding: &SimulcastEncoding) -> String {
    let SimulcastEncoding { payload_types, max_width, max_height, max_frame_rate, max_bitrate, .. } = encoding;
    let mut parts = Vec::new();
    if !payload_types.is_empty() {
        let numbers: Vec<String> = payload_types.iter().map(u8::to_string).collect();
        parts.push(format!("pt={}", numbers.join(",")));
    }
    for (name, value) in [("max-width", max_width), ("max-height", max_height), ("max-fps", max_frame_rate)] {
        parts.extend(value.map(|value| format!("{name}={value}")));
    }
    parts.extend(max_bitrate.map(|value| format!("max-br={value}")));
    if parts.is_empty() { String::new() } else { format!(" {}", parts.join(";")) }
}

/// The list of `a=simulcast` that the client would send (RFC 8853 §5.1).
fn sent(value: &str) -> Option<&str> {
    let mut words = value.split_ascii_whitespace();
    while let (Some(direction), Some(list)) = (words.next(), words.next()) {
        if direction == "send" {
            return Some(list);
        }
    }
    None
}

/// `a=rid:<id> send <restrictions>` (RFC 8851 §4), the first of each id. It goes into a header extension of at most 255 bytes.
fn rids<'a>(values: impl Iterator<Item = &'a str>) -> HashMap<&'a str, &'a str> {
    let mut rids = HashMap::new();
    for value in values {
        let Some((id, rest)) = value.split_once(' ') else { continue };
        let (direction, restrictions) = rest.trim_start().split_once(' ').unwrap_or((rest.trim_start(), ""));
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if direction == "send" && (1..=255).contains(&id.len()) && id.bytes().all(is_plain) {
            rids.entry(id).or_insert(restrictions);
        }
    }
    rids
}

/// The SSRCs of the first `a=ssrc-group:SIM`, if there are several.
fn group<'a>(mut groups: impl Iterator<Item = &'a str>) -> Vec<u32> {
    let list = groups.find_map(|group| group.strip_prefix("SIM ")).unwrap_or_default();
    let mut ssrcs: Vec<u32> = Vec::new();
    for ssrc in list.split_ascii_whitespace().filter_map(|word| word.parse().ok()).take(MAX_OFFERED_ENCODINGS) {
        if !ssrcs.contains(&ssrc) {
            ssrcs.push(ssrc);
        }
    }
    if ssrcs.len() < 2 { Vec::new() } else { ssrcs }
}
