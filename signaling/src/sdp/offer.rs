//! What an offer says: the attributes of its sections with their meaning, session-level ones inherited.

use std::io::Cursor;

use media_core::Fingerprint;
use media_core::media::{Extension, Format, MediaKind};
use media_core::negotiation::parse_candidate;
use sdp::SessionDescription;
use sdp::description::common::Attribute;
use strum::{EnumString, IntoStaticStr};

use super::lines::{self, MediaLine};
use super::simulcast::Simulcast;
use super::{SdpError, formats};
use crate::problem::Slug;

/// An offer.
#[derive(Clone, Debug)]
pub(crate) struct Offer {
    pub(crate) sections: Vec<Section>,
    /// Mids of the first BUNDLE group; `None` without one.
    pub(crate) bundle: Option<Vec<String>>,
    /// `a=extmap-allow-mixed` at session level.
    pub(crate) extmap_allow_mixed: bool,
    pub(crate) ice_lite: bool,
    /// The client may send more candidates (RFC 8838 §4).
    pub(crate) trickle: bool,
    /// Candidates of the session level, which are every section's.
    pub(crate) candidates: Candidates,
    /// Fingerprints, SSRCs and encodings beyond those that are kept.
    pub(crate) surplus: usize,
}

/// One m-section of an offer.
#[derive(Clone, Debug)]
pub(crate) struct Section {
    pub(crate) media: MediaLine,
    /// `None` for media other than audio and video.
    pub(crate) kind: Option<MediaKind>,
    pub(crate) mid: Option<String>,
    pub(crate) bundle_only: bool,
    pub(crate) direction: Direction,
    pub(crate) rtcp_mux: bool,
    pub(crate) rtcp_rsize: bool,
    pub(crate) setup: Option<Setup>,
    pub(crate) ufrag: Option<String>,
    pub(crate) pwd: Option<String>,
    /// Those with a hash that Sluice supports, the first [`MAX_FINGERPRINTS`] of them.
    pub(crate) fingerprints: Vec<Fingerprint>,
    /// Formats that Sluice forwards.
    pub(crate) formats: Vec<Format>,
    /// Header extensions that Sluice knows.
    pub(crate) extensions: Vec<OfferedExtension>,
    pub(crate) extmap_allow_mixed: bool,
    /// Stream ids of `a=msid`, or of `a=ssrc:… msid:`; without `-`.
    pub(crate) stream_ids: Vec<String>,
    /// Declared SSRCs: media, and RTX by `a=ssrc-group:FID`; the first [`MAX_SSRCS`] of them.
    pub(crate) ssrcs: Vec<(u32, Option<u32>)>,
    /// Fingerprints, SSRCs and encodings of its own beyond those.
    pub(crate) surplus: usize,
    pub(crate) candidates: Candidates,
    /// The encodings that it offers to send beside each other.
    pub(crate) simulcast: Simulcast,
}

/// The `a=candidate` lines of one level. Their number is a matter of the client's networks (F-08).
#[derive(Clone, Debug, Default)]
pub(crate) struct Candidates {
    /// Values of those that Sluice can use.
    pub(crate) usable: Vec<String>,
    /// The others: TCP, names, further components.
    pub(crate) unusable: usize,
}

/// One `a=extmap` line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OfferedExtension {
    pub(crate) extension: Extension,
    pub(crate) id: u8,
    /// The suffix, if there is one.
    pub(crate) direction: Option<Direction>,
}

/// `a=sendrecv` and its kin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub(crate) enum Direction {
    SendRecv,
    SendOnly,
    RecvOnly,
    Inactive,
}

/// `a=setup` (RFC 8842 §5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Setup {
    ActPass,
    Active,
    Passive,
    /// `holdconn`, or no such value.
    Other,
}

impl Direction {
    pub(crate) fn as_str(self) -> &'static str {
        self.into()
    }

    fn parse(text: &str) -> Option<Direction> {
        text.parse().ok()
    }

    /// The offerer would send.
    pub(crate) fn sends(self) -> bool {
        matches!(self, Direction::SendRecv | Direction::SendOnly)
    }

    /// The offerer would receive.
    pub(crate) fn receives(self) -> bool {
        matches!(self, Direction::SendRecv | Direction::RecvOnly)
    }
}

/// SSRCs that are kept of a section; the largest real client, with three layers and RTX, declares six.
const MAX_SSRCS: usize = 16;

/// Fingerprints that are kept of a section; aiortc has three, one for each hash.
const MAX_FINGERPRINTS: usize = 16;

/// MediaStream ids that are looked at; a second one is one too many.
const MAX_STREAM_IDS: usize = 4;

impl Offer {
    /// Reads an offer.
    pub(crate) fn parse(body: &[u8]) -> Result<Offer, SdpError> {
        let checked = lines::check(body)?;
        let parsed = SessionDescription::unmarshal(&mut Cursor::new(checked.text.as_bytes()))
            .map_err(|error| SdpError::new(Slug::SdpSyntax, error.to_string()))?;
        let session = Attributes(&parsed.attributes);
        let media = checked.media.into_iter().zip(&parsed.media_descriptions);
        let sections: Vec<Section> =
            media.map(|(line, media)| Section::read(line, session, Attributes(&media.attributes))).collect();
        let group = session.values("group").find_map(|group| group.strip_prefix("BUNDLE"));
        let options = |attributes: Attributes<'_>| {
            // Older libdatachannel writes `ice2,trickle` (SDP-05).
            attributes.values("ice-options").any(|value| value.split([' ', ',']).any(|option| option == "trickle"))
        };
        Ok(Offer {
            bundle: group.map(|group| group.split_ascii_whitespace().map(str::to_owned).collect()),
            extmap_allow_mixed: session.has("extmap-allow-mixed"),
            ice_lite: session.has("ice-lite"),
            trickle: options(session) || parsed.media_descriptions.iter().any(|m| options(Attributes(&m.attributes))),
            candidates: candidates(session),
            surplus: surplus_fingerprints(session) + sections.iter().map(|section| section.surplus).sum::<usize>(),
            sections,
        })
    }

    /// True if this section is in the BUNDLE group.
    pub(crate) fn is_bundled(&self, section: &Section) -> bool {
        let (Some(group), Some(mid)) = (&self.bundle, &section.mid) else { return false };
        group.contains(mid)
    }
}

impl Section {
    fn read(media: MediaLine, session: Attributes<'_>, own: Attributes<'_>) -> Section {
        let kind = match media.media.as_str() {
            "audio" => Some(MediaKind::Audio),
            "video" => Some(MediaKind::Video),
            _ => None,
        };
        let inherited = |name| own.value(name).or_else(|| session.value(name)).map(str::to_owned);
        let directions = |attributes: Attributes<'_>| attributes.keys().find_map(Direction::parse);
        let fingerprints = |attributes: Attributes<'_>| {
            let parsed = attributes.values("fingerprint").filter_map(|value| value.parse().ok());
            parsed.take(MAX_FINGERPRINTS).collect::<Vec<Fingerprint>>()
        };
        let formats = match kind {
            Some(kind) => formats::read(kind, &media.formats, |name| own.values(name)),
            None => Vec::new(),
        };
        let mid = own.value("mid").map(str::to_owned);
        let (ssrcs, surplus_ssrcs) = ssrcs(own);
        let simulcast = match kind {
            Some(MediaKind::Video) => Simulcast::read(|name| own.values(name)),
            _ => Simulcast::default(),
        };
        Section {
            kind,
            mid,
            bundle_only: own.has("bundle-only"),
            // None at all means sendrecv (RFC 8866 §6.7).
            direction: directions(own).or_else(|| directions(session)).unwrap_or(Direction::SendRecv),
            // rtcp-mux-only implies it (RFC 8858 §3).
            rtcp_mux: own.has("rtcp-mux") || own.has("rtcp-mux-only"),
            rtcp_rsize: own.has("rtcp-rsize"),
            setup: inherited("setup").map(|setup| match setup.as_str() {
                "actpass" => Setup::ActPass,
                "active" => Setup::Active,
                "passive" => Setup::Passive,
                _ => Setup::Other,
            }),
            ufrag: inherited("ice-ufrag"),
            pwd: inherited("ice-pwd"),
            fingerprints: if own.has("fingerprint") { fingerprints(own) } else { fingerprints(session) },
            formats,
            extensions: extensions(session, own),
            extmap_allow_mixed: own.has("extmap-allow-mixed"),
            stream_ids: stream_ids(own),
            ssrcs,
            surplus: surplus_fingerprints(own) + surplus_ssrcs + simulcast.surplus,
            candidates: candidates(own),
            simulcast,
            media,
        }
    }

    /// Part of the session: a real port, or none because it shares another section's (RFC 9143 §6).
    pub(crate) fn is_live(&self) -> bool {
        self.media.port != 0 || self.bundle_only
    }

    /// How errors name it.
    pub(crate) fn name(&self) -> String {
        // An error names a client's words, at a length fit for a log.
        let short = |text: &str| text.chars().take(32).collect::<String>();
        let (line, media) = (self.media.line, short(&self.media.media));
        match &self.mid {
            Some(mid) => format!("section `{}` (m={media}, line {line})", short(mid)),
            None => format!("section m={media} (line {line})"),
        }
    }
}

/// The attributes of the session or of one section.
#[derive(Clone, Copy)]
struct Attributes<'a>(&'a [Attribute]);

impl<'a> Attributes<'a> {
    fn keys(self) -> impl Iterator<Item = &'a str> {
        self.0.iter().map(|attribute| attribute.key.trim())
    }

    fn has(self, name: &str) -> bool {
        self.keys().any(|key| key == name)
    }

    fn values(self, name: &'static str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |attribute| attribute.key.trim() == name)
            .map(|attribute| attribute.value.as_deref().unwrap_or_default().trim())
    }

    fn value(self, name: &'static str) -> Option<&'a str> {
        self.values(name).next()
    }
}

/// Known extensions, each once; session-level lines hold for every section (RFC 8285 §5).
fn extensions(session: Attributes<'_>, own: Attributes<'_>) -> Vec<OfferedExtension> {
    let mut found: Vec<OfferedExtension> = Vec::new();
    for line in own.values("extmap").chain(session.values("extmap")) {
        let mut words = line.split_ascii_whitespace();
        let (Some(id), Some(uri)) = (words.next(), words.next()) else { continue };
        let (id, suffix) = id.split_once('/').map_or((id, None), |(id, suffix)| (id, Some(suffix)));
        // 15 ends a one-byte header and is no id (RFC 8285 §4.2).
        let Some(id) = id.parse::<u8>().ok().filter(|id| !matches!(id, 0 | 15)) else { continue };
        let Some(extension) = Extension::from_uri(uri) else { continue };
        let direction = match suffix.map(Direction::parse) {
            Some(None) => continue,
            Some(direction) => direction,
            None => None,
        };
        if !found.iter().any(|known| known.extension == extension || known.id == id) {
            found.push(OfferedExtension { extension, id, direction });
        }
    }
    found
}

fn candidates(level: Attributes<'_>) -> Candidates {
    let mut candidates = Candidates::default();
    for line in level.values("candidate") {
        match parse_candidate(line) {
            Some(_) => candidates.usable.push(line.to_owned()),
            None => candidates.unusable += 1,
        }
    }
    candidates
}

fn surplus_fingerprints(level: Attributes<'_>) -> usize {
    level.values("fingerprint").count().saturating_sub(MAX_FINGERPRINTS)
}

/// MediaStream ids (RFC 8830 §2); `-` stands for "none".
fn stream_ids(own: Attributes<'_>) -> Vec<String> {
    let of_ssrcs = own.values("ssrc").filter_map(|value| value.split_once(' ')?.1.trim().strip_prefix("msid:"));
    let mut ids: Vec<String> = Vec::new();
    for msid in own.values("msid").chain(of_ssrcs) {
        let Some(id) = msid.split_ascii_whitespace().next().filter(|id| *id != "-") else { continue };
        if ids.len() < MAX_STREAM_IDS && !ids.iter().any(|known| known == id) {
            ids.push(id.to_owned());
        }
    }
    ids
}

/// `a=ssrc` and `a=ssrc-group:FID` (RFC 5576): the first ones, and how many lines name others.
fn ssrcs(own: Attributes<'_>) -> (Vec<(u32, Option<u32>)>, usize) {
    let mut pairs: Vec<(u32, Option<u32>)> = Vec::new();
    let mut surplus = 0;
    for group in own.values("ssrc-group") {
        let mut words = group.split_ascii_whitespace();
        if words.next() == Some("FID")
            && let (Some(Ok(media)), Some(Ok(rtx))) = (words.next().map(str::parse), words.next().map(str::parse))
        {
            match pairs.len() < MAX_SSRCS {
                true => pairs.push((media, Some(rtx))),
                false => surplus += 1,
            }
        }
    }
    for value in own.values("ssrc") {
        let Some(Ok(ssrc)) = value.split_ascii_whitespace().next().map(str::parse::<u32>) else { continue };
        match pairs.iter().any(|(media, rtx)| *media == ssrc || *rtx == Some(ssrc)) {
            true => {}
            false if pairs.len() < MAX_SSRCS => pairs.push((ssrc, None)),
            false => surplus += 1,
        }
    }
    (pairs, surplus)
}
