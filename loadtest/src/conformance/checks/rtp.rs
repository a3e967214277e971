//! RTP: what a viewer is sent.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use media_core::internals::rtcp::{RtcpPacket, RtcpPackets};
use media_core::internals::rtp::codec::{Start, start};
use media_core::internals::rtp::packet::RtpHeader;
use media_core::media::Codec;

use super::super::case::{Case, Session};
use super::super::link::{Event, Link};
use super::super::media::Media;
use super::super::probe::Role;
use super::super::row::{Miss, Row, Verdict, demand, not_applicable, rows};
use super::offers::renumbered;

/// Reports come at least this often (RFC 3550 §6.2).
pub(super) const REPORTS: Duration = Duration::from_secs(8);
/// Media has come by then.
pub(super) const MEDIA: Duration = Duration::from_secs(5);
pub(super) const WATCHED: Duration = Duration::from_millis(1500);

pub(super) const ROWS: &[Row] = rows! {
    "RTP-04" Must "RFC 3550 §8" "Each medium has one SSRC of its own" own_ssrcs;
    "RTP-05" Should "RFC 3550 §5.1" "Sequence numbers of what was sent whole have no gaps" no_gaps;
    "RTP-10" Must "RFC 3264 §5.1" "A viewer with numbers of its own for the formats is sent those" own_numbers;
    "RTP-14" Must "RFC 3550 §6.5.1, RFC 7022" "Audio and video of a viewer have one CNAME" cname;
    "WHEP-13" Should "practice" "A viewer whose publisher leaves and returns goes on" returning_publisher;
    "WHEP-15" Must "RFC 3264 §5.1" "Only payload types of the answer are sent" payload_types;
    "WHEP-16" Should "practice" "A viewer's first video frame is a keyframe, and comes within 5 s" keyframe_first;
    "EXT-H02" Must "RFC 8285 §6" "Only header extensions of the answer are sent" extension_ids;
    "EXT-H03" Should "RFC 9143 §9.2" "The MID of what a viewer is sent is that of its section" viewer_mid;
};

/// A viewer of the published stream.
pub(super) async fn viewer(case: &Case<'_>) -> Result<(Session, Link), Miss> {
    let session = case.open_plain(Role::Viewer).await?;
    let link = Link::connect(case, &session).await?;
    Ok((session, link))
}

/// A publisher, after a change to its offer.
pub(super) async fn publisher(
    case: &Case<'_>,
    change: impl Fn(String) -> String,
) -> Result<(Session, Link, Media), Miss> {
    let session = case.open(Role::Publisher, change).await?;
    let link = Link::connect(case, &session).await?;
    let media = Media::new(&session)?;
    Ok((session, link, media))
}

/// What a viewer is sent in a while.
pub(super) async fn received(case: &Case<'_>) -> Result<(Session, Vec<Vec<u8>>), Miss> {
    let (session, mut link) = viewer(case).await?;
    let mut packets = Vec::new();
    link.find(MEDIA, |event| {
        matches!(event, Event::Rtp(packet) if { packets.push(packet.clone()); true }).then_some(())
    })
    .await;
    link.find(WATCHED, |event| {
        if let Event::Rtp(packet) = event {
            packets.push(packet.clone());
        }
        None::<()>
    })
    .await;
    case.note(format!("{} RTP packets", packets.len()));
    demand(!packets.is_empty(), || "no media".into())?;
    Ok((session, packets))
}

pub(super) fn headers(packets: &[Vec<u8>]) -> Result<Vec<RtpHeader>, Miss> {
    let parse =
        |packet: &Vec<u8>| RtpHeader::parse(packet).map_err(|error| Miss::Fail(format!("an RTP packet: {error}")));
    packets.iter().map(parse).collect()
}

/// The medium of each payload type of the answer that is not RTX.
pub(super) fn media_types(session: &Session) -> BTreeMap<u8, String> {
    let mut types = BTreeMap::new();
    for section in session.answer.live() {
        for format in section.formats() {
            let rtx =
                section.encoding(format).is_some_and(|encoding| encoding.to_ascii_lowercase().starts_with("rtx/"));
            if let (false, Ok(number)) = (rtx, format.parse()) {
                types.insert(number, section.medium().to_owned());
            }
        }
    }
    types
}

async fn own_ssrcs(case: &Case<'_>) -> Verdict {
    let (session, packets) = received(case).await?;
    let types = media_types(&session);
    let mut media: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
    for header in headers(&packets)? {
        if let Some(medium) = types.get(&header.payload_type) {
            media.entry(medium.clone()).or_default().insert(header.ssrc);
        }
    }
    let all: BTreeSet<u32> = media.values().flatten().copied().collect();
    let one_each = media.values().all(|ssrcs| ssrcs.len() == 1);
    demand(one_each && all.len() == media.len(), || format!("{media:?}"))?;
    Ok(format!("{media:?}"))
}

async fn no_gaps(case: &Case<'_>) -> Verdict {
    let (session, packets) = received(case).await?;
    let types = media_types(&session);
    let mut numbers: BTreeMap<u32, BTreeSet<u16>> = BTreeMap::new();
    for header in headers(&packets)?.iter().filter(|header| types.contains_key(&header.payload_type)) {
        numbers.entry(header.ssrc).or_default().insert(header.sequence_number);
    }
    for (ssrc, numbers) in &numbers {
        let (first, last) = (numbers.first().copied().unwrap_or(0), numbers.last().copied().unwrap_or(0));
        let span = usize::from(last.wrapping_sub(first)) + 1;
        // A path may lose some.
        demand(span <= numbers.len() + numbers.len() / 20, || format!("SSRC {ssrc}: {} of {span}", numbers.len()))?;
    }
    Ok(format!("{} SSRCs", numbers.len()))
}

async fn cname(case: &Case<'_>) -> Verdict {
    let (_, mut link) = viewer(case).await?;
    let mut names: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
    link.find(REPORTS, |event| {
        let Event::Rtcp(packet) = event else { return None };
        for message in RtcpPackets::new(packet).flatten() {
            if let RtcpPacket::Sdes(sdes) = message {
                names.extend(sdes.items().filter(|item| item.kind == 1).map(|item| (item.ssrc, item.value.to_vec())));
            }
        }
        (names.len() >= 2).then_some(())
    })
    .await;
    if names.len() < 2 {
        return not_applicable(format!("{} SSRCs have said a CNAME", names.len()));
    }
    let different: BTreeSet<&Vec<u8>> = names.values().collect();
    demand(different.len() == 1, || format!("{} CNAMEs", different.len()))?;
    Ok(format!("{} SSRCs, one CNAME", names.len()))
}

async fn payload_types(case: &Case<'_>) -> Verdict {
    let (session, packets) = received(case).await?;
    let known: BTreeSet<String> = session.answer.live().flat_map(|section| section.formats().to_vec()).collect();
    for header in headers(&packets)? {
        let format = header.payload_type.to_string();
        demand(known.contains(&format), || format!("payload type {format} is not one of {known:?}"))?;
    }
    Ok(format!("{} packets", packets.len()))
}

async fn keyframe_first(case: &Case<'_>) -> Verdict {
    let (session, packets) = received(case).await?;
    let Some(video) = session.answer.medium("video") else { return not_applicable("there is no video") };
    let vp8 = video.format_of("VP8").and_then(|format| format.parse::<u8>().ok());
    let first = headers(&packets)?.into_iter().zip(&packets).find(|(header, _)| Some(header.payload_type) == vp8);
    let Some((header, packet)) = first else { return not_applicable("no VP8 was sent") };
    let begins = start(Codec::Vp8, header.payload(packet));
    demand(begins == Start::Keyframe, || "the first video packet begins no keyframe".into())?;
    Ok("a keyframe".into())
}

async fn extension_ids(case: &Case<'_>) -> Verdict {
    let (session, packets) = received(case).await?;
    let known: BTreeSet<u8> =
        session.answer.live().flat_map(|section| section.extensions()).filter_map(|(id, _)| id.parse().ok()).collect();
    let mut seen = BTreeSet::new();
    for (header, packet) in headers(&packets)?.iter().zip(&packets) {
        seen.extend(header.extensions(packet).map(|(id, _)| id));
    }
    let strange: Vec<&u8> = seen.difference(&known).collect();
    demand(strange.is_empty(), || format!("ids {strange:?} were not negotiated"))?;
    Ok(format!("ids {seen:?} of {known:?}"))
}

async fn viewer_mid(case: &Case<'_>) -> Verdict {
    let (session, packets) = received(case).await?;
    let mut seen = 0;
    for section in session.answer.live() {
        let Some(id) = section.extension("urn:ietf:params:rtp-hdrext:sdes:mid") else { continue };
        for (header, packet) in headers(&packets)?.iter().zip(&packets) {
            if !section.formats().contains(&header.payload_type.to_string()) {
                continue;
            }
            let Some(mid) = header.extension(packet, id) else { continue };
            demand(mid == section.mid().as_bytes(), || format!("MID {mid:?} in section {}", section.mid()))?;
            seen += 1;
        }
    }
    if seen == 0 { not_applicable("no packet has a MID") } else { Ok(format!("{seen} packets")) }
}

async fn own_numbers(case: &Case<'_>) -> Verdict {
    let session = case.open(Role::Viewer, |sdp| renumbered(&sdp)).await?;
    if session.answer.medium("video").and_then(|video| video.format_of("VP8")) != Some("35") {
        return not_applicable("VP8 is not answered as 35: see SDP-25");
    }
    let mut link = Link::connect(case, &session).await?;
    let video = |event: &Event| {
        let Event::Rtp(packet) = event else { return None };
        let number = RtpHeader::parse(packet).ok()?.payload_type;
        (number != 111).then_some(number)
    };
    let number = link.find(MEDIA, video).await;
    demand(number == Some(35), || format!("the first packet that is not audio has payload type {number:?}"))?;
    Ok("35".into())
}

async fn returning_publisher(case: &Case<'_>) -> Verdict {
    let (whip, whep) = case.own_stream()?;
    let publisher = case.probe.publish(whip.clone()).await?;
    let session = case.open_at(&whep, Role::Viewer).await?;
    let mut link = Link::connect(case, &session).await?;
    let media = |event: &Event| matches!(event, Event::Rtp(_)).then_some(());
    demand(link.find(MEDIA, media).await.is_some(), || "no media at first".into())?;
    // What the server says to that is no matter of this row.
    let _ = publisher.stop().await;
    let ended = |event: &Event| matches!(event, Event::Closed | Event::Failed(_)).then_some(());
    demand(link.find(WATCHED, ended).await.is_none(), || "the viewer's session ended with the publisher's".into())?;
    let publisher = case.probe.publish(whip).await?;
    let again = link.find(MEDIA, media).await;
    // As above.
    let _ = publisher.stop().await;
    demand(again.is_some(), || "no media after the publisher has returned".into())?;
    Ok("media again without another POST".into())
}
