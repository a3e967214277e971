//! RTCP: reports and feedback.

use std::collections::BTreeSet;

use media_core::internals::rtcp::{MAX_RTCP_LEN, RtcpPacket, RtcpPackets, RtcpWriter};
use media_core::internals::rtp::codec::{Start, start};
use media_core::internals::rtp::packet::RtpHeader;
use media_core::media::Codec;

use super::super::case::{Case, Session};
use super::super::link::{Event, Link, SOON};
use super::super::media::Media;
use super::super::probe::Role;
use super::super::row::{Row, Verdict, demand, fail, not_applicable, rows};
use super::offers::without;
use super::rtp::{MEDIA, REPORTS, WATCHED, media_types, publisher, viewer};
use crate::sdp::{Imitation, Setup};

/// Types and formats of RTCP (RFC 4585 §6.1, RFC 8888 §3.1, REMB's draft).
const TRANSPORT: u8 = 205;
const PAYLOAD: u8 = 206;

pub(super) const ROWS: &[Row] = rows! {
    "RTP-02" Must "RFC 9143 §9.2" "Media without the MID extension belongs to its section by SSRC or payload type" no_mid;
    "RTCP-03" Must "RFC 3550 §6.4.2" "A publisher gets receiver reports on its SSRCs" receiver_reports;
    "RTCP-04" Must "RFC 3550 §6.4.1" "A viewer gets sender reports on the SSRCs that it receives" sender_reports;
    "RTCP-08" Should "RFC 4585 §6.2.1, RFC 4588 §4" "A packet that a viewer asks for by NACK is sent again" retransmissions;
    "RTCP-09" Should "RFC 4585 §6.2.1" "A packet that a publisher's path lost is asked for by NACK" nacks;
    "RTCP-11" Should "RFC 4585 §6.3.1" "A viewer that asks by PLI gets a keyframe" keyframe_requests;
    "RTCP-13" Should "practice" "A publisher that was answered goog-remb and nothing better gets REMB" remb;
    "RTCP-14" Should "draft-holmer-rmcat-transport-wide-cc-extensions-01 §3" "A publisher that was answered transport-cc gets its feedback" transport_feedback;
    "RTCP-15" May "RFC 8888 §3" "A publisher that was answered ack ccfb gets its feedback" congestion_feedback;
    "RTCP-20" Must "RFC 3550 §6.1, RFC 5506 §4" "RTCP is compound, unless reduced size was negotiated" compound;
    "RTCP-21" Must "RFC 4585 §4.2" "A publisher that negotiated no feedback gets none" no_feedback;
};

/// Type and format, or count, of each message of a compound packet.
fn kinds(packet: &[u8]) -> Vec<(u8, u8)> {
    let (mut rest, mut found) = (packet, Vec::new());
    while let Some((&[first, kind, l0, l1], _)) = rest.split_first_chunk::<4>() {
        found.push((kind, first & 0x1f));
        rest = rest.get(4 * (usize::from(u16::from_be_bytes([l0, l1])) + 1)..).unwrap_or_default();
    }
    found
}

/// The SSRCs of a publisher that no report was about.
async fn unreported(session: &Session, link: &mut Link, media: &mut Media) -> BTreeSet<u32> {
    let mut left: BTreeSet<u32> = session.offered.ssrcs.iter().map(|pair| pair.media).collect();
    let seen = |event: Event| {
        let Event::Rtcp(packet) = event else { return false };
        for message in RtcpPackets::new(&packet).flatten() {
            let blocks: Vec<u32> = match message {
                RtcpPacket::ReceiverReport(report) => report.blocks().map(|block| block.ssrc).collect(),
                RtcpPacket::SenderReport(report) => report.blocks().map(|block| block.ssrc).collect(),
                _ => Vec::new(),
            };
            left.retain(|ssrc| !blocks.contains(ssrc));
        }
        left.is_empty()
    };
    media.run(link, REPORTS, seen).await;
    left
}

async fn receiver_reports(case: &Case<'_>) -> Verdict {
    let (session, mut link, mut media) = publisher(case, |sdp| sdp).await?;
    let left = unreported(&session, &mut link, &mut media).await;
    demand(left.is_empty(), || format!("none on {} of 2 SSRCs in 8 s", left.len()))?;
    Ok("on audio and video".into())
}

async fn no_mid(case: &Case<'_>) -> Verdict {
    let (session, mut link, mut media) = publisher(case, |sdp| without(&sdp, &["a=extmap:4 "])).await?;
    let left = unreported(&session, &mut link, &mut media).await;
    demand(left.is_empty(), || format!("no reports on {} of 2 SSRCs in 8 s", left.len()))?;
    Ok("reports on audio and video".into())
}

async fn remb(case: &Case<'_>) -> Verdict {
    let change = |sdp: String| {
        let sdp = without(&sdp, &["a=extmap:3 ", "a=rtcp-fb:111 "]);
        sdp.replace(" transport-cc\r\n", " goog-remb\r\n")
    };
    feedback(case, "goog-remb", change, |kind| kind == (PAYLOAD, 15)).await
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
