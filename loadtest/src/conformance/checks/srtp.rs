//! SRTP: keys, and what does not authenticate.

use std::collections::BTreeMap;

use media_core::internals::rtcp::{RtcpPacket, RtcpPackets};
use media_core::internals::srtp::SrtpProfile;

use super::super::case::Case;
use super::super::link::{Event, Link, SOON};
use super::super::media::Media;
use super::super::probe::Role;
use super::super::row::{Miss, Row, Verdict, demand, rows};
use super::dtls::{serves, with_profile};
use super::rtp::{MEDIA, REPORTS, WATCHED, headers, publisher, received};

pub(super) const ROWS: &[Row] = rows! {
    "SRTP-01" Must "RFC 5764 §4.2" "Keys are exported as both sides agree, under every profile that the server serves, in both directions" profiles;
    "SRTP-03" Must "RFC 8827 §6.5, RFC 3711 §3.3" "All media and reports that are sent authenticate" authentic;
    "SRTP-04" Must "RFC 3711 §3.3" "Packets that do not authenticate change nothing" forged;
    "SRTP-05" Must "RFC 3711 §3.3.2" "Packets that come twice are no harm" replayed;
    "SRTP-06" Must "RFC 3711 §3.3.1" "Sequence numbers of a publisher may wrap" wrap;
    "SRTP-07" Should "RFC 3711 §3.3.1" "What a viewer is sent begins with a sequence number below 2^15" first_numbers;
};

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
pub(super) async fn goes_on(link: &mut Link, media: &mut Media) -> Result<(), Miss> {
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
        highest = highest_reported(&event, known).or(highest);
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

async fn wrap(case: &Case<'_>) -> Verdict {
    let session = case.open_plain(Role::Publisher).await?;
    let mut link = Link::connect(case, &session).await?;
    let mut media = Media::starting_at(&session, u16::MAX - 30)?;
    let (known, mut highest) = (session.offered.ssrcs[1].media, None);
    let seen = |event: Event| {
        highest = highest_reported(&event, known).or(highest);
        highest.is_some_and(|highest| highest < u16::MAX - 30)
    };
    let got = media.run(&mut link, REPORTS, seen).await;
    demand(got, || format!("the highest number in the reports is {highest:?}"))?;
    Ok(format!("from {} to {highest:?}", u16::MAX - 30))
}

/// The highest sequence number of an SSRC that a report tells.
fn highest_reported(event: &Event, ssrc: u32) -> Option<u16> {
    let Event::Rtcp(packet) = event else { return None };
    let blocks = RtcpPackets::new(packet).flatten().filter_map(|message| match message {
        RtcpPacket::ReceiverReport(report) => report.blocks().find(|block| block.ssrc == ssrc),
        RtcpPacket::SenderReport(report) => report.blocks().find(|block| block.ssrc == ssrc),
        _ => None,
    });
    blocks.last().map(|block| (block.extended_highest_sequence & 0xffff) as u16)
}
