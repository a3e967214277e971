//! SRTP, RTP and RTCP: what the server sends to publishers and to viewers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use media_core::internals::rtcp::{MAX_RTCP_LEN, RtcpPacket, RtcpPackets, RtcpWriter};
use media_core::internals::rtp::codec::{Start, start};
use media_core::internals::rtp::packet::RtpHeader;
use media_core::internals::srtp::SrtpProfile;
use media_core::media::Codec;

use super::super::case::{Case, Session};
use super::super::link::{Event, Link, SOON};
use super::super::media::Media;
use super::super::probe::Role;
use super::super::row::{Miss, Row, Verdict, demand, fail, not_applicable, rows};
use super::dtls::{serves, with_profile};
use super::offers::without;
use crate::sdp::{Imitation, Setup};

/// Reports come at least this often (RFC 3550 §6.2).
const REPORTS: Duration = Duration::from_secs(8);
/// Media has come by then.
const MEDIA: Duration = Duration::from_secs(5);
const WATCHED: Duration = Duration::from_millis(1500);
/// Types and formats of RTCP (RFC 4585 §6.1, RFC 8888 §3.1, REMB's draft).
const TRANSPORT: u8 = 205;
const PAYLOAD: u8 = 206;

pub(super) const ROWS: &[Row] = rows! {
    "SRTP-01" Must "RFC 5764 §4.2" "Keys are exported as both sides agree, under every profile that the server serves, in both directions" profiles;
    "SRTP-03" Must "RFC 8827 §6.5, RFC 3711 §3.3" "All media and reports that are sent authenticate" authentic;
    "SRTP-04" Must "RFC 3711 §3.3" "Packets that do not authenticate change nothing" forged;
    "SRTP-05" Must "RFC 3711 §3.3.2" "Packets that come twice are no harm" replayed;
    "SRTP-07" Should "RFC 3711 §3.3.1" "What a viewer is sent begins with a sequence number below 2^15" first_numbers;
    "RTP-04" Must "RFC 3550 §8" "Each medium has one SSRC of its own" own_ssrcs;
    "RTP-05" Should "RFC 3550 §5.1" "Sequence numbers of what was sent whole have no gaps" no_gaps;
    "RTP-14" Must "RFC 3550 §6.5.1, RFC 7022" "Audio and video of a viewer have one CNAME" cname;
    "WHEP-15" Must "RFC 3264 §5.1" "Only payload types of the answer are sent" payload_types;
    "WHEP-16" Should "practice" "A viewer's first video frame is a keyframe, and comes within 5 s" keyframe_first;
    "EXT-H02" Must "RFC 8285 §6" "Only header extensions of the answer are sent" extension_ids;
    "EXT-H03" Should "RFC 9143 §9.2" "The MID of what a viewer is sent is that of its section" viewer_mid;
    "RTCP-03" Must "RFC 3550 §6.4.2" "A publisher gets receiver reports on its SSRCs" receiver_reports;
    "RTCP-04" Must "RFC 3550 §6.4.1" "A viewer gets sender reports on the SSRCs that it receives" sender_reports;
    "RTCP-08" Should "RFC 4585 §6.2.1, RFC 4588 §4" "A packet that a viewer asks for by NACK is sent again" retransmissions;
    "RTCP-09" Should "RFC 4585 §6.2.1" "A packet that a publisher's path lost is asked for by NACK" nacks;
    "RTCP-11" Should "RFC 4585 §6.3.1" "A viewer that asks by PLI gets a keyframe" keyframe_requests;
    "RTCP-14" Should "draft-holmer-rmcat-transport-wide-cc-extensions-01 §3" "A publisher that was answered transport-cc gets its feedback" transport_feedback;
    "RTCP-15" May "RFC 8888 §3" "A publisher that was answered ack ccfb gets its feedback" congestion_feedback;
    "RTCP-20" Must "RFC 3550 §6.1, RFC 5506 §4" "RTCP is compound, unless reduced size was negotiated" compound;
    "RTCP-21" Must "RFC 4585 §4.2" "A publisher that negotiated no feedback gets none" no_feedback;
};

/// A viewer of the published stream.
async fn viewer(case: &Case<'_>) -> Result<(Session, Link), Miss> {
    let session = case.open_plain(Role::Viewer).await?;
    let link = Link::connect(case, &session).await?;
    Ok((session, link))
}

/// A publisher, after a change to its offer.
async fn publisher(case: &Case<'_>, change: impl Fn(String) -> String) -> Result<(Session, Link, Media), Miss> {
    let session = case.open(Role::Publisher, change).await?;
    let link = Link::connect(case, &session).await?;
    let media = Media::new(&session)?;
    Ok((session, link, media))
}

/// What a viewer is sent in a while.
async fn received(case: &Case<'_>) -> Result<(Session, Vec<Vec<u8>>), Miss> {
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

fn headers(packets: &[Vec<u8>]) -> Result<Vec<RtpHeader>, Miss> {
    let parse =
        |packet: &Vec<u8>| RtpHeader::parse(packet).map_err(|error| Miss::Fail(format!("an RTP packet: {error}")));
    packets.iter().map(parse).collect()
}

/// Type and format, or count, of each message of a compound packet.
fn kinds(packet: &[u8]) -> Vec<(u8, u8)> {
    let (mut rest, mut found) = (packet, Vec::new());
    while let Some((&[first, kind, l0, l1], _)) = rest.split_first_chunk::<4>() {
        found.push((kind, first & 0x1f));
        rest = rest.get(4 * (usize::from(u16::from_be_bytes([l0, l1])) + 1)..).unwrap_or_default();
    }
    found
}

async fn profiles(case: &Case<'_>) -> Verdict {
    let mut served = Vec::new();
    for profile in SrtpProfile::ALL {
        if !serves(case, profile).await? {
            continue;
        }
        for role in case.roles() {
            let (context, fingerprint) = with_profile(profile)?;
            let own = case.probe.identity.fingerprint().to_sdp();
            let session = case.open(role, |sdp| sdp.replace(&own, &fingerprint.to_sdp())).await?;
            let mut link = Link::open(&session).await?;
            link.validate(case).await?;
            let agreed = link.secure(case, &session, &context).await?;
            demand(agreed == profile, || format!("{agreed} was agreed on"))?;
            let packets = |event: &Event| match event {
                Event::Rtp(_) | Event::Rtcp(_) => Some(true),
                Event::Unauthentic => Some(false),
                _ => None,
            };
            let authentic = match role {
                Role::Viewer => link.find(MEDIA, packets).await,
                // Its own packets have authenticated if they are reported, and so do the reports.
                Role::Publisher => {
                    let mut found = None;
                    Media::new(&session)?
                        .run(&mut link, REPORTS, |event| {
                            found = packets(&event);
                            found.is_some()
                        })
                        .await;
                    found
                }
            };
            demand(authentic == Some(true), || format!("{profile}, {role:?}: {authentic:?}"))?;
            case.end(&session).await?;
        }
        served.push(profile.to_string());
    }
    Ok(served.join(", "))
}

async fn authentic(case: &Case<'_>) -> Verdict {
    let (mut good, mut bad) = (0, 0);
    let mut count = |event: &Event| match event {
        Event::Rtp(_) | Event::Rtcp(_) => good += 1,
        Event::Unauthentic => bad += 1,
        _ => {}
    };
    for role in case.roles() {
        let session = case.open_plain(role).await?;
        let mut link = Link::connect(case, &session).await?;
        match role {
            Role::Viewer => {
                link.find(WATCHED, |event| {
                    count(event);
                    None::<()>
                })
                .await;
            }
            Role::Publisher => {
                Media::new(&session)?
                    .run(&mut link, WATCHED, |event| {
                        count(&event);
                        false
                    })
                    .await;
            }
        }
        case.end(&session).await?;
    }
    demand(good > 0 && bad == 0, || format!("{good} authenticate and {bad} do not"))?;
    Ok(format!("all {good}"))
}

/// Reports still come after these packets.
async fn goes_on(link: &mut Link, media: &mut Media) -> Result<(), Miss> {
    let got = media.run(link, REPORTS, |event| matches!(event, Event::Rtcp(_))).await;
    demand(got, || "no reports come any more".into())
}

async fn forged(case: &Case<'_>) -> Verdict {
    let (session, mut link, mut media) = publisher(case, |sdp| sdp).await?;
    goes_on(&mut link, &mut media).await?;
    let known = session.offered.ssrcs[1].media;
    for number in 0..50_u16 {
        let mut packet = vec![0x80, 96];
        packet.extend((20_000 + number).to_be_bytes());
        packet.extend([0; 4]);
        packet.extend(known.to_be_bytes());
        packet.resize(200, 0x5a);
        link.send(&packet).await;
    }
    let mut highest = None;
    let seen = |event: Event| {
        let Event::Rtcp(packet) = event else { return false };
        let blocks = RtcpPackets::new(&packet).flatten().filter_map(|message| match message {
            RtcpPacket::ReceiverReport(report) => report.blocks().find(|block| block.ssrc == known),
            RtcpPacket::SenderReport(report) => report.blocks().find(|block| block.ssrc == known),
            _ => None,
        });
        highest = blocks.last().map(|block| block.extended_highest_sequence & 0xffff).or(highest);
        highest.is_some()
    };
    let got = media.run(&mut link, REPORTS, seen).await;
    demand(got, || "no reports on the SSRC any more".into())?;
    demand(highest.is_some_and(|highest| highest < 20_000), || format!("forged packets are reported: {highest:?}"))?;
    Ok("no trace of 50 forged packets in the reports".into())
}

async fn replayed(case: &Case<'_>) -> Verdict {
    let (_, mut link, mut media) = publisher(case, |sdp| sdp).await?;
    goes_on(&mut link, &mut media).await?;
    for packet in media.next_packets() {
        if let Some(protected) = link.protect(&packet, false) {
            for _ in 0..3 {
                link.send(&protected).await;
            }
        }
    }
    goes_on(&mut link, &mut media).await?;
    let ended = link.find(SOON / 6, |event| matches!(event, Event::Closed | Event::Failed(_)).then_some(())).await;
    demand(ended.is_none(), || "the session ended".into())?;
    Ok("the session goes on".into())
}

async fn first_numbers(case: &Case<'_>) -> Verdict {
    let (_, packets) = received(case).await?;
    let mut first = BTreeMap::new();
    for header in headers(&packets)? {
        first.entry(header.ssrc).or_insert(header.sequence_number);
    }
    let late: Vec<_> = first.iter().filter(|(_, number)| **number >= 1 << 15).collect();
    demand(late.is_empty(), || format!("SSRC and first number: {late:?}"))?;
    Ok(format!("{:?}", first.values().collect::<Vec<_>>()))
}

/// The medium of each payload type of the answer that is not RTX.
fn media_types(session: &Session) -> BTreeMap<u8, String> {
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

async fn receiver_reports(case: &Case<'_>) -> Verdict {
    let (session, mut link, mut media) = publisher(case, |sdp| sdp).await?;
    let mut left: BTreeSet<u32> = session.offered.ssrcs.iter().map(|pair| pair.media).collect();
    let count = left.len();
    let seen = |event: Event| {
        let Event::Rtcp(packet) = event else { return false };
        for message in RtcpPackets::new(&packet).flatten() {
            match message {
                RtcpPacket::ReceiverReport(report) => report.blocks().for_each(|block| {
                    left.remove(&block.ssrc);
                }),
                RtcpPacket::SenderReport(report) => report.blocks().for_each(|block| {
                    left.remove(&block.ssrc);
                }),
                _ => {}
            }
        }
        left.is_empty()
    };
    media.run(&mut link, REPORTS, seen).await;
    demand(left.is_empty(), || format!("none on {} of {count} SSRCs in 8 s", left.len()))?;
    Ok(format!("on {count} SSRCs"))
}

async fn sender_reports(case: &Case<'_>) -> Verdict {
    let (session, mut link) = viewer(case).await?;
    let types = media_types(&session);
    let (mut heard, mut reported) = (BTreeSet::new(), BTreeSet::new());
    link.find(REPORTS, |event| {
        match event {
            Event::Rtp(packet) => {
                let header = RtpHeader::parse(packet).ok().filter(|header| types.contains_key(&header.payload_type));
                heard.extend(header.map(|header| header.ssrc));
            }
            Event::Rtcp(packet) => {
                reported.extend(RtcpPackets::new(packet).flatten().filter_map(|message| match message {
                    RtcpPacket::SenderReport(report) => Some(report.sender_ssrc),
                    _ => None,
                }))
            }
            _ => {}
        }
        (heard.len() >= 2 && heard.is_subset(&reported)).then_some(())
    })
    .await;
    demand(!heard.is_empty(), || "no media".into())?;
    demand(heard.is_subset(&reported), || format!("media of {heard:?}, reports of {reported:?}"))?;
    Ok(format!("of {} SSRCs", heard.len()))
}

async fn retransmissions(case: &Case<'_>) -> Verdict {
    let (session, mut link) = viewer(case).await?;
    let Some(video) = session.answer.medium("video") else { return not_applicable("there is no video") };
    if !video.feedback().iter().any(|(_, feedback)| feedback == "nack") {
        return not_applicable("nack is not in the answer");
    }
    let formats = video.formats().to_vec();
    let is_video = |header: &RtpHeader| formats.contains(&header.payload_type.to_string());
    let types = media_types(&session);
    let mut count = 0;
    let wanted = link.find(MEDIA, |event| {
        let Event::Rtp(packet) = event else { return None };
        let header = RtpHeader::parse(packet)
            .ok()
            .filter(|header| is_video(header) && types.contains_key(&header.payload_type))?;
        count += 1;
        (count == 10).then_some((header.ssrc, header.sequence_number))
    });
    let Some((ssrc, number)) = wanted.await else { return fail("no video") };
    let mut buffer = [0; MAX_RTCP_LEN];
    let mut writer = RtcpWriter::new(&mut buffer);
    let written = writer.receiver_report(1, &[]).is_ok() && writer.nack(1, ssrc, &[number]) == 1;
    demand(written, || "the NACK cannot be written".into())?;
    let request = writer.as_bytes().to_vec();
    link.send_protected(&request, true).await;
    case.note(format!("NACK of {number}"));
    let again = link.find(SOON, |event| {
        let Event::Rtp(packet) = event else { return None };
        let header = RtpHeader::parse(packet).ok().filter(is_video)?;
        let plain = types.contains_key(&header.payload_type);
        let original = header.payload(packet).first_chunk::<2>().map(|bytes| u16::from_be_bytes(*bytes));
        let repeated = if plain { header.sequence_number == number } else { original == Some(number) };
        repeated.then_some(if plain { "as it was" } else { "as RTX" })
    });
    match again.await {
        Some(how) => Ok(how.into()),
        // libsrtp drops a second copy of a packet as a replay.
        None if video.format_of("rtx").is_none() => not_applicable("no RTX, and a copy cannot be told from a replay"),
        None => fail("it is not sent again"),
    }
}

async fn nacks(case: &Case<'_>) -> Verdict {
    let (session, mut link, mut media) = publisher(case, |sdp| sdp).await?;
    let video = session.answer.medium("video");
    if !video.is_some_and(|video| video.feedback().iter().any(|(_, feedback)| feedback == "nack")) {
        return not_applicable("nack is not in the answer");
    }
    media.lose = vec![30, 31];
    let ssrc = session.offered.ssrcs[1].media;
    let mut asked = Vec::new();
    let seen = |event: Event| {
        let Event::Rtcp(packet) = event else { return false };
        for message in RtcpPackets::new(&packet).flatten() {
            if let RtcpPacket::Nack(nack) = message
                && nack.media_ssrc == ssrc
            {
                asked.extend(nack.sequence_numbers());
            }
        }
        !asked.is_empty()
    };
    media.run(&mut link, MEDIA, seen).await;
    let lost = media.lost.clone();
    demand(asked.iter().any(|number| lost.contains(number)), || format!("lost {lost:?}, asked for {asked:?}"))?;
    Ok(format!("lost {lost:?}, asked for {asked:?}"))
}

async fn keyframe_requests(case: &Case<'_>) -> Verdict {
    let (session, mut link) = viewer(case).await?;
    let video = session.answer.medium("video");
    let Some(vp8) = video.and_then(|video| video.format_of("VP8")?.parse::<u8>().ok()) else {
        return not_applicable("no VP8");
    };
    let keyframe = |event: &Event| {
        let Event::Rtp(packet) = event else { return None };
        let header = RtpHeader::parse(packet).ok().filter(|header| header.payload_type == vp8)?;
        (start(Codec::Vp8, header.payload(packet)) == Start::Keyframe).then_some(header.ssrc)
    };
    let Some(ssrc) = link.find(MEDIA, keyframe).await else { return fail("no keyframe at the start") };
    let mut buffer = [0; MAX_RTCP_LEN];
    let mut writer = RtcpWriter::new(&mut buffer);
    let written = writer.receiver_report(1, &[]).and_then(|()| writer.pli(1, ssrc));
    demand(written.is_ok(), || "the PLI cannot be written".into())?;
    let request = writer.as_bytes().to_vec();
    link.send_protected(&request, true).await;
    case.note("PLI");
    demand(link.find(MEDIA, keyframe).await.is_some(), || "no keyframe after a PLI".into())?;
    Ok("a keyframe".into())
}

/// Feedback of one kind after an offer of it.
async fn feedback(
    case: &Case<'_>,
    name: &str,
    change: impl Fn(String) -> String,
    is_it: impl Fn((u8, u8)) -> bool,
) -> Verdict {
    let (session, mut link, mut media) = publisher(case, change).await?;
    let taken = session.answer.live().any(|section| section.feedback().iter().any(|(_, known)| known == name));
    if !taken {
        return not_applicable(format!("{name} is not in the answer"));
    }
    let seen = |event: Event| matches!(&event, Event::Rtcp(packet) if kinds(packet).into_iter().any(&is_it));
    demand(media.run(&mut link, MEDIA, seen).await, || "no such feedback in 5 s".into())?;
    Ok(format!("{name} comes"))
}

async fn transport_feedback(case: &Case<'_>) -> Verdict {
    feedback(case, "transport-cc", |sdp| sdp, |kind| kind == (TRANSPORT, 15)).await
}

async fn congestion_feedback(case: &Case<'_>) -> Verdict {
    // Alone: where both are offered a server may choose.
    let change = |sdp: String| {
        let extension = "a=extmap:3 ";
        without(&sdp, &[extension]).replace(" transport-cc\r\n", " ack ccfb\r\n")
    };
    feedback(case, "ack ccfb", change, |kind| kind == (TRANSPORT, 11)).await
}

async fn compound(case: &Case<'_>) -> Verdict {
    let (_, mut link, mut media) = publisher(case, |sdp| without(&sdp, &["a=rtcp-rsize"])).await?;
    let (mut whole, mut reduced) = (0, Vec::new());
    let seen = |event: Event| {
        if let Event::Rtcp(packet) = event {
            match kinds(&packet).first() {
                Some((200 | 201, _)) => whole += 1,
                first => reduced.push(first.copied()),
            }
        }
        false
    };
    media.run(&mut link, WATCHED * 2, seen).await;
    demand(whole > 0 && reduced.is_empty(), || {
        format!("{whole} compound packets, and some that begin with {reduced:?}")
    })?;
    Ok(format!("all {whole}"))
}

async fn no_feedback(case: &Case<'_>) -> Verdict {
    let offered = case.offer_with(Role::Publisher, Setup::ActPass, Imitation::Ffmpeg)?;
    let session = case.open_offer(Role::Publisher, offered).await?;
    let mut link = Link::connect(case, &session).await?;
    let mut media = Media::new(&session)?;
    media.lose = vec![10, 11, 30];
    let mut strange = BTreeSet::new();
    let seen = |event: Event| {
        if let Event::Rtcp(packet) = event {
            strange.extend(kinds(&packet).into_iter().filter(|(kind, _)| matches!(*kind, TRANSPORT | PAYLOAD)));
        }
        false
    };
    media.run(&mut link, WATCHED * 2, seen).await;
    demand(strange.is_empty(), || format!("type and format: {strange:?}"))?;
    Ok("reports only".into())
}
