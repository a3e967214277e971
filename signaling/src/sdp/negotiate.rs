//! From an offer to what both sides will do: which sections live, with which formats and extensions, over which transport.

use media_core::ledger::{Warning, WarningCode};
use media_core::media::{Extension, ExtensionMap, Format, MediaKind, MediaSection, SendSsrcs};
use media_core::negotiation::{MAX_REMOTE_CANDIDATES, candidate_ufrag, parse_candidate};
use media_core::{DtlsParameters, DtlsRole, IceCredentials, RemoteCandidate};

use super::offer::{Candidates, Direction, Offer, OfferedExtension, Section, Setup};
use super::{SdpError, payload_types, reach};
use crate::problem::Slug;
use crate::registry::Published;

/// Extensions that a publisher may send; those that name encodings if it has rids.
const FROM_PUBLISHER: [Extension; 11] = [
    Extension::Mid,
    Extension::RtpStreamId,
    Extension::RepairedRtpStreamId,
    Extension::TransportCc,
    Extension::AbsSendTime,
    Extension::AbsCaptureTime,
    Extension::AudioLevel,
    Extension::VideoOrientation,
    Extension::PlayoutDelay,
    Extension::DependencyDescriptor,
    Extension::VideoLayersAllocation,
];

/// Extensions that a viewer is sent.
const TO_VIEWER: [Extension; 7] = [
    Extension::Mid,
    Extension::TransportCc,
    Extension::AbsCaptureTime,
    Extension::AudioLevel,
    Extension::VideoOrientation,
    Extension::PlayoutDelay,
    Extension::DependencyDescriptor,
];

/// What was agreed.
#[derive(Clone, Debug)]
pub(crate) struct Agreement {
    /// One for each m-section of the offer, in its order.
    pub(crate) sections: Vec<Agreed>,
    pub(crate) remote: IceCredentials,
    pub(crate) remote_is_lite: bool,
    pub(crate) remote_candidates: Vec<RemoteCandidate>,
    pub(crate) ignored_candidates: IgnoredCandidates,
    pub(crate) dtls: DtlsParameters,
    /// The answer groups its sections.
    pub(crate) bundle: bool,
    pub(crate) extmap_allow_mixed: bool,
    /// Sections of audio and video that were rejected, with what the client can take.
    pub(crate) refused: Vec<MediaSection>,
    /// What the client does not get of what it offered.
    pub(crate) warnings: Vec<Warning>,
}

/// Candidates that a client named and that are not used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct IgnoredCandidates {
    /// TCP, names, further components, another ICE generation.
    pub(crate) unusable: usize,
    /// Usable ones beyond [`MAX_REMOTE_CANDIDATES`].
    pub(crate) surplus: usize,
}

/// One section of the answer.
#[derive(Clone, Debug)]
pub(crate) enum Agreed {
    /// It carries media.
    Live(Box<LiveSection>),
    /// Port 0 (RFC 3264 §6).
    Rejected { media: String, protocol: String, format: String, mid: Option<String> },
}

/// A section that carries media.
#[derive(Clone, Debug)]
pub(crate) struct LiveSection {
    pub(crate) media: MediaSection,
    pub(crate) protocol: String,
    pub(crate) has_mid: bool,
    pub(crate) extmap_allow_mixed: bool,
    /// Nothing is sent in it: it carries the transport of the others.
    pub(crate) inactive: bool,
    /// Extensions whose offered lines had a direction; the answer mirrors it.
    pub(crate) one_way: Vec<Extension>,
    /// Rids that the offer marks as not sent at first; the answer repeats the mark.
    pub(crate) paused: Vec<String>,
}

impl Agreed {
    /// The section, unless it is rejected.
    pub(crate) fn live(&self) -> Option<&LiveSection> {
        match self {
            Agreed::Live(live) => Some(live),
            Agreed::Rejected { .. } => None,
        }
    }
}

impl Agreement {
    /// The sections in which media flows, in order.
    pub(crate) fn live(&self) -> impl Iterator<Item = &LiveSection> {
        self.bundled().filter(|live| !live.inactive)
    }

    /// All sections that are not rejected, in order.
    pub(crate) fn bundled(&self) -> impl Iterator<Item = &LiveSection> {
        self.sections.iter().filter_map(Agreed::live)
    }
}

/// Agrees with a publisher (WHIP): every track is taken with all formats that Sluice forwards, and of simulcast `max_layers` encodings
/// at most.
pub(crate) fn publisher(offer: &Offer, max_layers: usize) -> Result<Agreement, SdpError> {
    let chosen = one_of_each_kind(offer)?;
    check_sections(offer, &chosen, Direction::sends)?;
    let mut streams: Vec<&String> = chosen.iter().flat_map(|&index| &offer.sections[index].stream_ids).collect();
    streams.dedup();
    if streams.len() > 1 {
        let detail = "the msid lines name more than one MediaStream; all tracks must be of one";
        return Err(SdpError::new(Slug::SdpMultipleStreams, detail));
    }
    let mut warnings = other_media(offer);
    let ccfb = offers_ccfb(offer, &chosen);
    let live = |section: &Section, kind, formats: Vec<Format>| {
        let extensions = answered(section, &FROM_PUBLISHER, Direction::sends);
        let (formats, extensions) = congestion_control(formats, extensions, ccfb, |_| true);
        live_section(offer, section, kind, formats, extensions)
    };
    let sections = offer.sections.iter().enumerate().map(|(index, section)| match section.kind {
        Some(kind) if chosen.contains(&index) => {
            let (mut formats, ignored) = reach::usable(section, kind).map_err(reach::Refusal::into_error)?;
            warnings.extend(ignored);
            reach::order(&mut formats);
            let mut live = live(section, kind, formats.iter().map(agreed_format).collect());
            live.media.declared_ssrcs.clone_from(&section.ssrcs);
            receive_encodings(section, &mut live, chosen.len() == 1, max_layers);
            Ok(Agreed::Live(Box::new(live)))
        }
        _ => Ok(rejected(section)),
    });
    let mut sections = sections.collect::<Result<Vec<_>, _>>()?;
    payload_types::settle(&offer.sections, &mut sections)?;
    agreement(offer, sections, (Vec::new(), warnings))
}

/// Settles which encodings of a section are received. The extensions that name them are agreed only with rids.
fn receive_encodings(section: &Section, live: &mut LiveSection, is_alone: bool, most: usize) {
    let LiveSection { media, paused, .. } = live;
    let received = section.simulcast.received(&media.formats, &media.extensions, is_alone, most);
    (media.simulcast, *paused) = (received.encodings, received.paused);
    if !media.simulcast.iter().any(|encoding| encoding.rid.is_some()) {
        media.extensions.set(Extension::RtpStreamId, 0);
        media.extensions.set(Extension::RepairedRtpStreamId, 0);
    }
}

/// The live sections of audio and video, of which there may be one of each.
pub(crate) fn one_of_each_kind(offer: &Offer) -> Result<Vec<usize>, SdpError> {
    let mut chosen: Vec<usize> = Vec::new();
    for (index, section) in offer.sections.iter().enumerate() {
        if section.kind.is_none() || !section.is_live() {
            continue;
        }
        if chosen.iter().any(|&other| offer.sections[other].kind == section.kind) {
            let detail = format!("{} is a second one of its kind; a session has one stream", section.name());
            return Err(SdpError::new(Slug::SdpDuplicateKind, detail));
        }
        chosen.push(index);
    }
    Ok(chosen)
}

/// Agrees with a viewer (WHEP): of each kind that the stream has, the first section, with all formats that the viewer takes
/// and Sluice forwards, if what the publisher sends is among them: the next publisher may send another. Other sections are
/// rejected. Of a stream that is not live it gets all that it and Sluice can do. `ssrcs` holds a media and an RTX SSRC for each
/// kind.
pub(crate) fn viewer(offer: &Offer, published: &Published, ssrcs: [u32; 4]) -> Result<Agreement, SdpError> {
    let mut chosen: Vec<usize> = Vec::new();
    for (index, section) in offer.sections.iter().enumerate() {
        let taken = chosen.iter().any(|&other| offer.sections[other].kind == section.kind);
        if section.kind.is_some() && section.is_live() && !taken {
            chosen.push(index);
        }
    }
    check_sections(offer, &chosen, Direction::receives)?;
    let ccfb = offers_ccfb(offer, &chosen);
    let mut refusals = Vec::new();
    let (mut refused, mut warnings) = (Vec::new(), other_media(offer));
    let mut sections = Vec::new();
    for (index, section) in offer.sections.iter().enumerate() {
        let Some(kind) = section.kind.filter(|_| chosen.contains(&index)) else {
            sections.push(rejected(section));
            continue;
        };
        match reach::viewer_formats(section, kind, published) {
            Ok((formats, ignored)) => {
                warnings.extend(ignored);
                let formats = formats.iter().map(agreed_format).collect();
                let extensions = answered(section, &TO_VIEWER, Direction::receives);
                // A packet with a transport-wide number cannot be made again bit for bit: a NACK needs RTX then.
                let (formats, extensions) = congestion_control(formats, extensions, ccfb, |format| {
                    !format.feedback.nack || format.rtx_payload_type.is_some()
                });
                let mut live = live_section(offer, section, kind, formats, extensions);
                let [audio, audio_rtx, video, video_rtx] = ssrcs;
                live.media.send_ssrcs = Some(match kind {
                    MediaKind::Audio => SendSsrcs { media: audio, rtx: audio_rtx },
                    MediaKind::Video => SendSsrcs { media: video, rtx: video_rtx },
                });
                sections.push(Agreed::Live(Box::new(live)));
            }
            Err(refusal) => {
                refusals.push(refusal);
                let (mid, formats) = (section.mid.clone().unwrap_or_default(), reach::bounded(&section.formats));
                refused.push(MediaSection::new(mid, kind, formats));
                sections.push(rejected(section));
            }
        }
    }
    if !sections.iter().any(|section| matches!(section, Agreed::Live(_))) {
        return Err(reach::Refusal::all_into_error(refusals));
    }
    warnings.extend(refusals.into_iter().filter_map(reach::Refusal::into_warning));
    let mut agreement = agreement(offer, sections, (refused, warnings))?;
    keep_transport(offer, &chosen, ccfb, &mut agreement);
    Ok(agreement)
}

/// The first section of a BUNDLE group has the transport of all that have none of their own. It is not rejected while one of
/// those lives (RFC 9143 §7.3.1), though nothing is sent in it: Chromium with `max-bundle` cannot apply such an answer.
fn keep_transport(offer: &Offer, chosen: &[usize], ccfb: bool, agreement: &mut Agreement) {
    let tagged = offer.bundle.as_ref().and_then(|group| group.first());
    let Some(index) = chosen.iter().copied().find(|&index| offer.sections[index].mid.as_ref() == tagged) else {
        return;
    };
    let section = &offer.sections[index];
    let shares = |(other, agreed): (&Section, &Agreed)| {
        let has_candidates = !other.candidates.usable.is_empty() || other.candidates.unusable > 0;
        let has_own = !other.bundle_only && (other.ufrag != section.ufrag || has_candidates);
        matches!(agreed, Agreed::Live(_)) && !has_own
    };
    let is_needed = offer.sections.iter().zip(&agreement.sections).any(shares);
    let formats: Vec<Format> = reach::bounded(&section.formats).iter().map(agreed_format).collect();
    let is_rejected = matches!(agreement.sections[index], Agreed::Rejected { .. });
    if let Some(kind) = section.kind.filter(|_| is_rejected && is_needed && !formats.is_empty()) {
        let (formats, extensions) = congestion_control(formats, Vec::new(), ccfb, |_| true);
        let live = live_section(offer, section, kind, formats, extensions);
        agreement.sections[index] = Agreed::Live(Box::new(LiveSection { inactive: true, ..live }));
    }
}

/// Sections that are neither audio nor video; they are rejected.
fn other_media(offer: &Offer) -> Vec<Warning> {
    let others = offer.sections.iter().filter(|section| section.kind.is_none() && section.is_live());
    let names: Vec<String> = others.map(|section| format!("m={}", section.media.media)).collect();
    let detail = format!("{} is not forwarded", names.join(", "));
    let warning = Warning { key: (WarningCode::MediaTypeRefused, None), detail };
    if names.is_empty() { Vec::new() } else { vec![warning] }
}

/// What every chosen section must fulfil, whichever way media goes.
fn check_sections(offer: &Offer, chosen: &[usize], fits: fn(Direction) -> bool) -> Result<(), SdpError> {
    if chosen.is_empty() {
        return Err(SdpError::new(Slug::SdpSemantics, "no live audio or video section"));
    }
    for (index, section) in offer.sections.iter().enumerate() {
        let Some(mid) = &section.mid else { continue };
        let token = |byte: u8| byte.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]".contains(&byte);
        if mid.is_empty() || mid.len() > 16 || !mid.bytes().all(token) {
            let detail = format!("line {}: a mid must be 1 to 16 token characters", section.media.line);
            return Err(SdpError::new(Slug::SdpSemantics, detail));
        }
        if offer.sections[..index].iter().any(|other| other.mid.as_ref() == Some(mid)) {
            return Err(SdpError::new(Slug::SdpSemantics, format!("two sections have the mid `{mid}`")));
        }
    }
    let tagged = transport_section(offer, chosen);
    for section in chosen.iter().map(|&index| &offer.sections[index]) {
        if !fits(section.direction) {
            let detail = format!("{} is {}", section.name(), section.direction.as_str());
            return Err(SdpError::new(Slug::SdpDirection, detail));
        }
        let protocol = section.media.protocol.as_str();
        if !matches!(protocol, "UDP/TLS/RTP/SAVPF" | "UDP/TLS/RTP/SAVP" | "RTP/SAVPF" | "TCP/TLS/RTP/SAVPF") {
            let detail = format!("{}: {protocol} is not served, only DTLS-SRTP (UDP/TLS/RTP/SAVPF)", section.name());
            return Err(SdpError::new(Slug::SdpSemantics, detail));
        }
        if chosen.len() > 1 && !offer.is_bundled(section) {
            let detail = format!(
                "{} is in no BUNDLE group; use one transport (GStreamer: bundle-policy=max-bundle)",
                section.name()
            );
            return Err(SdpError::new(Slug::SdpBundle, detail));
        }
        // A bundle-only section takes this from the section that it is bundled with (RFC 9143 §7.1.3).
        let multiplexed = section.rtcp_mux || (section.bundle_only && tagged.rtcp_mux);
        if !multiplexed {
            return Err(SdpError::new(Slug::SdpRtcpMux, format!("{} has no a=rtcp-mux", section.name())));
        }
    }
    Ok(())
}

/// The section whose transport the session uses: the first chosen one that has its own (RFC 9143 §7.3.1). Bundle-only ones
/// need not repeat it.
fn transport_section<'a>(offer: &'a Offer, chosen: &[usize]) -> &'a Section {
    let sections = || chosen.iter().map(|&index| &offer.sections[index]);
    let whole = |section: &&Section| section.ufrag.is_some() && section.pwd.is_some();
    sections()
        .find(whole)
        .or_else(|| offer.sections.iter().filter(|section| offer.is_bundled(section)).find(whole))
        .unwrap_or(&offer.sections[chosen[0]])
}

fn agreement(
    offer: &Offer,
    sections: Vec<Agreed>,
    (refused, warnings): (Vec<MediaSection>, Vec<Warning>),
) -> Result<Agreement, SdpError> {
    let live: Vec<usize> = sections
        .iter()
        .enumerate()
        .filter(|(_, section)| matches!(section, Agreed::Live(_)))
        .map(|(index, _)| index)
        .collect();
    let transport = transport_section(offer, &live);
    let role = match transport.setup.as_ref().unwrap_or(&Setup::ActPass) {
        Setup::ActPass | Setup::Active => DtlsRole::Server,
        Setup::Passive => DtlsRole::Client,
        Setup::Other => {
            let detail = format!("{}: a=setup must be actpass, active or passive", transport.name());
            return Err(SdpError::new(Slug::SdpSetup, detail));
        }
    };
    if transport.fingerprints.is_empty() {
        let detail = format!("{} has no a=fingerprint with sha-256, sha-384 or sha-512", transport.name());
        return Err(SdpError::new(Slug::SdpFingerprint, detail));
    }
    let remote = credentials(transport)?;
    let (remote_candidates, ignored_candidates) = candidates(offer, transport, &remote.ufrag);
    Ok(Agreement {
        bundle: live.iter().all(|&index| offer.is_bundled(&offer.sections[index])),
        remote,
        remote_is_lite: offer.ice_lite,
        remote_candidates,
        ignored_candidates,
        dtls: DtlsParameters { role, fingerprints: transport.fingerprints.clone() },
        extmap_allow_mixed: offer.extmap_allow_mixed,
        sections,
        refused,
        warnings,
    })
}

/// The client's usable candidates, each address once, and how many others it named (F-08).
///
/// Each offered transport has its own candidates, and only one transport is used (RFC 9143 §7.3.1). A section that shares
/// another one's may leave them to it.
fn candidates(offer: &Offer, transport: &Section, ufrag: &str) -> (Vec<RemoteCandidate>, IgnoredCandidates) {
    let shares = |section: &&Section| {
        std::ptr::eq(*section, transport) || (offer.is_bundled(section) && section.ufrag == transport.ufrag)
    };
    let mut levels: Vec<&Candidates> = vec![&transport.candidates];
    if transport.candidates.usable.is_empty() {
        levels = offer.sections.iter().filter(shares).map(|section| &section.candidates).collect();
    }
    levels.push(&offer.candidates);
    let mut taken: Vec<RemoteCandidate> = Vec::new();
    let mut ignored = IgnoredCandidates::default();
    for level in levels {
        ignored.unusable += level.unusable;
        for line in &level.usable {
            match own_candidate(line, ufrag) {
                None => ignored.unusable += 1,
                Some(candidate) if taken.iter().any(|known| known.address == candidate.address) => {}
                Some(_) if taken.len() == MAX_REMOTE_CANDIDATES => ignored.surplus += 1,
                Some(candidate) => taken.push(candidate),
            }
        }
    }
    (taken, ignored)
}

/// A usable candidate of this ICE generation (TRK-04).
pub(crate) fn own_candidate(line: &str, ufrag: &str) -> Option<RemoteCandidate> {
    if candidate_ufrag(line).is_some_and(|named| named != ufrag) {
        return None;
    }
    parse_candidate(line)
}

fn credentials(section: &Section) -> Result<IceCredentials, SdpError> {
    ice_credentials(&section.name(), section.ufrag.as_deref(), section.pwd.as_deref())
}

/// Credentials that fit RFC 8839 §5.4; `named` says where they stand.
pub(crate) fn ice_credentials(named: &str, ufrag: Option<&str>, pwd: Option<&str>) -> Result<IceCredentials, SdpError> {
    let fits = |text: &str, least| (least..=256).contains(&text.len()) && text.bytes().all(is_ice_char);
    let (Some(ufrag), Some(pwd)) = (ufrag, pwd) else {
        let detail = format!("{named} has no a=ice-ufrag or no a=ice-pwd");
        return Err(SdpError::new(Slug::SdpIceCredentials, detail));
    };
    if !fits(ufrag, 4) || !fits(pwd, 22) {
        let detail = format!("{named}: ice-ufrag needs 4 to 256 ice-chars, ice-pwd 22 to 256");
        return Err(SdpError::new(Slug::SdpIceCredentials, detail));
    }
    Ok(IceCredentials { ufrag: ufrag.to_owned(), pwd: pwd.to_owned() })
}

/// RFC 8839 §5.1, with the `-`, `_` and `=` that some clients take from base64.
fn is_ice_char(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+/-_=".contains(&byte)
}

/// The offered extensions that go into the answer: those that Sluice handles, if media goes the way of their suffix.
fn answered(section: &Section, handled: &[Extension], fits: fn(Direction) -> bool) -> Vec<OfferedExtension> {
    let fits = |offered: &&OfferedExtension| handled.contains(&offered.extension) && offered.direction.is_none_or(fits);
    section.extensions.iter().filter(fits).copied().collect()
}

fn live_section(
    offer: &Offer,
    section: &Section,
    kind: MediaKind,
    formats: Vec<Format>,
    extensions: Vec<OfferedExtension>,
) -> LiveSection {
    let mut map = ExtensionMap::default();
    for offered in &extensions {
        map.set(offered.extension, offered.id);
    }
    let reduced_size_rtcp = section.rtcp_rsize
        // As with rtcp-mux: a bundle-only section need not repeat it.
        || (section.bundle_only && offer.sections.iter().any(|other| offer.is_bundled(other) && other.rtcp_rsize));
    LiveSection {
        media: MediaSection {
            extensions: map,
            reduced_size_rtcp,
            ..MediaSection::new(section.mid.clone().unwrap_or_default(), kind, formats)
        },
        protocol: section.media.protocol.clone(),
        has_mid: section.mid.is_some(),
        extmap_allow_mixed: section.extmap_allow_mixed,
        inactive: false,
        one_way: extensions
            .iter()
            .filter(|offered| matches!(offered.direction, Some(Direction::SendOnly | Direction::RecvOnly)))
            .map(|offered| offered.extension)
            .collect(),
        paused: Vec::new(),
    }
}

/// A format with the feedback that Sluice gives or follows. RTX is kept for video only.
fn agreed_format(offered: &Format) -> Format {
    let mut format = offered.clone();
    if format.codec.kind() == MediaKind::Audio {
        format.rtx_payload_type = None;
    }
    format
}

/// True if feedback of RFC 8888 is offered for all that is to be sent: it is one for the whole transport, and libwebrtc ignores
/// a section whose formats disagree.
fn offers_ccfb(offer: &Offer, chosen: &[usize]) -> bool {
    let mut formats = chosen.iter().flat_map(|&index| &offer.sections[index].formats).peekable();
    formats.peek().is_some() && formats.all(|format| format.feedback.ccfb)
}

/// Settles which congestion control feedback the sender of a section gets: that of RFC 8888 where it is offered (`ccfb`), else
/// transport-wide feedback where all formats fit it, else REMB (RTCP-13 to RTCP-15); never two of them.
fn congestion_control(
    mut formats: Vec<Format>,
    mut extensions: Vec<OfferedExtension>,
    ccfb: bool,
    fits: impl Fn(&Format) -> bool,
) -> (Vec<Format>, Vec<OfferedExtension>) {
    let numbered = extensions.iter().any(|offered| offered.extension == Extension::TransportCc);
    let wanted = formats.iter().any(|format| format.feedback.transport_cc);
    let transport_wide = !ccfb && numbered && wanted && formats.iter().all(fits);
    for format in &mut formats {
        format.feedback.ccfb = ccfb;
        format.feedback.transport_cc &= transport_wide;
        format.feedback.remb &= !ccfb && !transport_wide;
    }
    let remb = formats.iter().any(|format| format.feedback.remb);
    extensions.retain(|offered| match offered.extension {
        Extension::TransportCc => transport_wide,
        Extension::AbsSendTime => remb,
        _ => true,
    });
    (formats, extensions)
}

fn rejected(section: &Section) -> Agreed {
    Agreed::Rejected {
        media: section.media.media.clone(),
        protocol: section.media.protocol.clone(),
        // The line reader refuses m-lines without a format.
        format: section.media.formats.first().cloned().unwrap_or_default(),
        mid: section.mid.clone(),
    }
}
