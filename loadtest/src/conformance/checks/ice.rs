//! Connectivity checks, right ones and wrong ones (RFC 8445, RFC 8489), and what else arrives on the port.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::case::{Case, Session};
use super::super::hello::Hello;
use super::super::link::{CONNECT, Event, Link, QUIET, SOON, random, transaction};
use super::super::media::Media;
use super::super::probe::Role;
use super::super::row::{Miss, Row, Verdict, demand, fail, not_applicable, rows};
use super::super::stun::{self, Message, Write};

/// Media follows to a new address within this.
const FOLLOWS: Duration = Duration::from_secs(5);
/// A TCP connection, and a message over it.
const TCP: Duration = Duration::from_secs(3);

pub(super) const ROWS: &[Row] = rows! {
    "ICE-03" Must "RFC 8445 §6.1.1" "A full server takes the controlling role towards a client that is lite, and checks" lite_client;
    "ICE-14" Must "RFC 8445 §7.3.1.3" "A client is reached where its checks come from, without any candidate of it" peer_reflexive;
    "ICE-11" Must "RFC 8445 §8.1.1" "Media follows to the address that the client nominates last" nomination_moves;
    "ICE-15" Must "RFC 7675 §5.1" "A full server goes on asking for consent" consent;
    "ICE-19" Should "RFC 8445 §7.3" "A session survives a new port of its client" rebinding;
    "ICE-20" May "RFC 6544 §7, RFC 4571" "A TCP candidate takes connections, and answers framed checks" tcp;
    "STUN-01" Must "RFC 8489 §6.3" "What is no STUN, or cut off, is ignored" garbage;
    "STUN-02" Must "RFC 8489 §14.7" "A wrong FINGERPRINT is no check, and a missing one hinders nothing" fingerprints;
    "STUN-03" Must "RFC 8489 §9.1.3, RFC 8445 §7.3" "A check with a wrong password, or without USERNAME or MESSAGE-INTEGRITY, gets no success" credentials;
    "STUN-04" Must "RFC 8445 §7.3, RFC 8489 §14.2" "A success has XOR-MAPPED-ADDRESS, MESSAGE-INTEGRITY with the server's password, and FINGERPRINT" success;
    "STUN-05" Should "RFC 8489 §16" "The answer to a check of no session is not longer than the check" no_amplification;
    "STUN-06" Must "RFC 8489 §6.3.1" "An unknown attribute that must be understood is 420, and one that need not be is ignored" unknown_attributes;
    "STUN-07" Should "practice" "A check without PRIORITY and role is answered" bare;
    "STUN-09" Must "RFC 8445 §7.3.1.1" "A check with the server's own role, of the greater tie-breaker, is 487 or changes the role" role_conflict;
    "STUN-11" Must "RFC 8445 §11" "Binding indications are not answered" indications;
    "STUN-13" Must "RFC 8445 §7.3" "A check right after the 201 is answered" early;
    "STUN-15" Should "RFC 8489 §6.3.1" "The same request again has the same answer" repeated;
    "DMX-01" Must "RFC 7983 §7" "Datagrams of other protocols are ignored" other_protocols;
    "DMX-05" Should "practice" "DTLS from an address without a valid check gets no answer" dtls_before_check;
};

/// A path whose plain check is answered.
async fn valid(case: &Case<'_>) -> Result<(Session, Link), Miss> {
    let session = case.open_plain(*case.roles().first().unwrap_or(&Role::Publisher)).await?;
    let mut link = Link::open(&session).await?;
    link.validate(case).await?;
    Ok((session, link))
}

/// The answer to a message, if there is one by then, in words: SOON where there is to be one, QUIET where not.
async fn answer_to(case: &Case<'_>, link: &mut Link, what: &str, message: &Write, within: Duration) -> Option<Message> {
    let answer = link.ask(message, within).await;
    case.note(format!("{what} → {}", answer.as_ref().map_or("nothing".to_owned(), Message::shown)));
    answer
}

async fn must_succeed(case: &Case<'_>, link: &mut Link, what: &str, message: &Write) -> Result<Message, Miss> {
    match answer_to(case, link, what, message, SOON).await {
        Some(answer) if answer.kind == stun::SUCCESS => Ok(answer),
        Some(answer) => fail(format!("{what} got {}", answer.shown())),
        None => fail(format!("{what} got no answer")),
    }
}

async fn must_not_succeed(case: &Case<'_>, link: &mut Link, what: &str, message: &Write) -> Result<(), Miss> {
    let answer = answer_to(case, link, what, message, QUIET).await;
    demand(answer.is_none_or(|answer| answer.kind != stun::SUCCESS), || format!("{what} was answered with success"))
}

async fn lite_client(case: &Case<'_>) -> Verdict {
    let role = *case.roles().first().unwrap_or(&Role::Publisher);
    let change = |sdp: String| sdp.replacen("a=group:", "a=ice-lite\r\na=group:", 1);
    let session = case.open(role, change).await?;
    if session.read.ice_lite {
        return not_applicable("the server is lite");
    }
    let mut link = Link::open(&session).await?;
    let address = link.local_address()?;
    let line = format!("a=candidate:1 1 udp 2130706431 {} {} typ host", address.ip(), address.port());
    let body = super::trickle::fragment(&session, &[&line, "a=end-of-candidates"]);
    let reply = super::trickle::patch(case, &session, session.etag.as_deref(), &body).await?;
    if !reply.status.is_success() {
        return Err(Miss::Skip(format!("the client's address cannot be trickled: {}", reply.code())));
    }
    link.find(SOON, |_| None::<()>).await;
    demand(link.asked > 0, || "the server makes no check".into())?;
    Ok(format!("{} checks", link.asked))
}

async fn peer_reflexive(case: &Case<'_>) -> Verdict {
    for role in case.roles() {
        let session = case.open_plain(role).await?;
        Link::connect(case, &session).await?;
        case.end(&session).await?;
    }
    Ok("connected without a candidate of the client".into())
}

/// A publisher whose media is reported.
async fn reported(case: &Case<'_>) -> Result<(Link, Media), Miss> {
    let session = case.open_plain(Role::Publisher).await?;
    let mut link = Link::connect(case, &session).await?;
    let mut media = Media::new(&session)?;
    let got = media.run(&mut link, FOLLOWS, |event| matches!(event, Event::Rtcp(_))).await;
    demand(got, || "no RTCP for a publisher".into())?;
    Ok((link, media))
}

async fn nomination_moves(case: &Case<'_>) -> Verdict {
    let (mut link, mut media) = reported(case).await?;
    let old = link.relocate()?;
    link.validate(case).await?;
    let got = media.run(&mut link, FOLLOWS, |event| matches!(event, Event::Rtcp(_))).await;
    drop(old);
    demand(got, || "RTCP does not follow to the nominated address".into())?;
    Ok("RTCP follows".into())
}

async fn consent(case: &Case<'_>) -> Verdict {
    /// A consent check comes every 4 to 6 s (RFC 7675 §5.1).
    const CONSENT: Duration = Duration::from_secs(7);
    let role = *case.roles().first().unwrap_or(&Role::Publisher);
    let session = case.open_plain(role).await?;
    if session.read.ice_lite {
        return not_applicable("the server is lite");
    }
    let mut link = Link::connect(case, &session).await?;
    link.find(SOON / 3, |_| None::<()>).await;
    let before = link.asked;
    link.find(CONSENT, |_| None::<()>).await;
    demand(link.asked > before, || "no check of the server in 7 s".into())?;
    Ok(format!("{} checks in 7 s", link.asked - before))
}

async fn rebinding(case: &Case<'_>) -> Verdict {
    let (mut link, mut media) = reported(case).await?;
    drop(link.relocate()?);
    // As behind a NAT that lost its mapping: media first, and the checks that keep the path alive anyway.
    media.run(&mut link, QUIET, |_| false).await;
    link.validate(case).await?;
    let got = media.run(&mut link, FOLLOWS, |event| matches!(event, Event::Rtcp(_))).await;
    demand(got, || "no RTCP at the new port".into())?;
    Ok("RTCP at the new port".into())
}

async fn tcp(case: &Case<'_>) -> Verdict {
    let role = *case.roles().first().unwrap_or(&Role::Publisher);
    let session = case.open_plain(role).await?;
    let passive = session.answer.everywhere("candidate").into_iter().find_map(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        let is_passive = words.windows(2).any(|pair| pair == ["tcptype", "passive"]);
        let is_tcp = words.get(2)?.eq_ignore_ascii_case("tcp") && is_passive;
        is_tcp.then(|| Some(SocketAddr::new(words.get(4)?.parse().ok()?, words.get(5)?.parse().ok()?)))?
    });
    let Some(to) = passive else { return not_applicable("the answer has no passive TCP candidate") };
    let link = Link::open(&session).await?;
    let check = link.check();
    let bytes = check.to_bytes();
    let exchange = async {
        let mut stream = TcpStream::connect(to).await?;
        let mut framed = (bytes.len() as u16).to_be_bytes().to_vec();
        framed.extend(&bytes);
        stream.write_all(&framed).await?;
        loop {
            let length = usize::from(stream.read_u16().await?);
            let mut frame = vec![0; length];
            stream.read_exact(&mut frame).await?;
            let answer = Message::read(&frame).filter(|answer| answer.transaction == check.transaction);
            if let Some(answer) = answer {
                return Ok::<_, std::io::Error>(answer);
            }
        }
    };
    match tokio::time::timeout(TCP, exchange).await {
        Ok(Ok(answer)) => {
            demand(answer.kind == stun::SUCCESS, || format!("the framed check got {}", answer.shown()))?;
            Ok(format!("{to} → success"))
        }
        Ok(Err(error)) => fail(format!("{to}: {error}")),
        Err(_) => fail(format!("{to}: no answer to a framed check")),
    }
}

async fn garbage(case: &Case<'_>) -> Verdict {
    let (_, mut link) = valid(case).await?;
    let whole = link.check().to_bytes();
    let mut long = whole.clone();
    long[3] = long[3].wrapping_add(4);
    let mut cookie = whole.clone();
    cookie[4] ^= 1;
    let noise: [u8; 64] = random();
    for wrong in [&whole[..whole.len() - 4], &long, &whole[..19], &[], &[0, 1], &noise[..], &cookie] {
        link.send(wrong).await;
    }
    let check = link.check();
    must_succeed(case, &mut link, "a check after garbage", &check).await?;
    Ok("ignored".into())
}

async fn fingerprints(case: &Case<'_>) -> Verdict {
    let (_, mut link) = valid(case).await?;
    let wrong = Write { fingerprint: Some(false), ..link.check() };
    must_not_succeed(case, &mut link, "a wrong FINGERPRINT", &wrong).await?;
    let missing = Write { fingerprint: None, ..link.check() };
    must_succeed(case, &mut link, "a check without FINGERPRINT", &missing).await?;
    Ok("judged".into())
}

async fn credentials(case: &Case<'_>) -> Verdict {
    let (_, mut link) = valid(case).await?;
    let check = link.check();
    let mut anonymous = Write { transaction: transaction(), ..check.clone() };
    anonymous.attributes.retain(|(kind, _)| *kind != stun::USERNAME);
    let wrong =
        Write { password: Some("this-is-not-the-password".into()), transaction: transaction(), ..check.clone() };
    let unsigned = Write { password: None, transaction: transaction(), ..check };
    for (what, message) in [("a wrong password", wrong), ("no USERNAME", anonymous), ("no MESSAGE-INTEGRITY", unsigned)]
    {
        must_not_succeed(case, &mut link, what, &message).await?;
    }
    Ok("no success".into())
}

async fn success(case: &Case<'_>) -> Verdict {
    for role in case.roles() {
        let session = case.open_plain(role).await?;
        let mut link = Link::open(&session).await?;
        let answer = link.validate(case).await?;
        case.end(&session).await?;
        let port = link.local_address()?.port();
        let mapped = answer.mapped();
        demand(mapped.is_some(), || "no XOR-MAPPED-ADDRESS".into())?;
        let here = mapped.is_some_and(|mapped| mapped.port() == port || !mapped.ip().is_loopback());
        demand(here, || format!("{mapped:?} is not port {port}"))?;
        let integrity = answer.integrity(&link.remote.pwd);
        demand(integrity == Some(true), || format!("MESSAGE-INTEGRITY: {integrity:?}"))?;
        let fingerprint = answer.fingerprint();
        demand(fingerprint == Some(true), || format!("FINGERPRINT: {fingerprint:?}"))?;
    }
    Ok("all three, and right".into())
}

async fn no_amplification(case: &Case<'_>) -> Verdict {
    let (_, mut link) = valid(case).await?;
    drop(link.relocate()?);
    link.remote.ufrag = "nosuchufrag0".into();
    let check = link.check();
    let sent = check.to_bytes().len();
    let Some(answer) = answer_to(case, &mut link, "a check of no session", &check, QUIET).await else {
        return Ok("nothing".into());
    };
    demand(answer.kind != stun::SUCCESS, || "it was answered with success".into())?;
    demand(answer.len() <= sent, || format!("{} bytes for {sent}", answer.len()))?;
    Ok(format!("{}, {} bytes for {sent}", answer.shown(), answer.len()))
}

async fn unknown_attributes(case: &Case<'_>) -> Verdict {
    let (_, mut link) = valid(case).await?;
    let optional = link.check_with(&[(0xc057, vec![0; 4]), (0x9999, vec![1, 2, 3])]);
    must_succeed(case, &mut link, "a check with an optional attribute", &optional).await?;
    let demanded = link.check_with(&[(0x7777, vec![0; 4])]);
    let answer = answer_to(case, &mut link, "a check with attribute 0x7777", &demanded, SOON).await;
    let Some(answer) = answer else { return fail("no answer to an unknown attribute that must be understood") };
    let named = answer.attribute(stun::UNKNOWN_ATTRIBUTES).is_some_and(|value| value.starts_with(&[0x77, 0x77]));
    demand(answer.error_code() == Some(420) && named, || {
        format!("it got {}, UNKNOWN-ATTRIBUTES: {named}", answer.shown())
    })?;
    Ok("420 with UNKNOWN-ATTRIBUTES".into())
}

async fn bare(case: &Case<'_>) -> Verdict {
    let (_, mut link) = valid(case).await?;
    let mut check = link.check();
    check.attributes.retain(|(kind, _)| !matches!(*kind, stun::PRIORITY | stun::ICE_CONTROLLING));
    must_succeed(case, &mut link, "USERNAME and USE-CANDIDATE alone", &check).await?;
    Ok("answered".into())
}

async fn role_conflict(case: &Case<'_>) -> Verdict {
    let (session, mut link) = valid(case).await?;
    let mut check = link.check_with(&[(stun::ICE_CONTROLLED, vec![0xff; 8])]);
    check.attributes.retain(|(kind, _)| *kind != stun::ICE_CONTROLLING);
    let answer = answer_to(case, &mut link, "a check of a controlled agent", &check, SOON).await;
    let Some(answer) = answer else { return fail("no answer to a check with ICE-CONTROLLED") };
    let conflict = answer.error_code() == Some(487);
    // A full agent may change its role; a lite one never does (RFC 8445 §6.1.1).
    let right = conflict || answer.kind == stun::SUCCESS && !session.read.ice_lite;
    demand(right, || format!("it got {}", answer.shown()))?;
    Ok(answer.shown())
}

async fn indications(case: &Case<'_>) -> Verdict {
    let (_, mut link) = valid(case).await?;
    let indication = Write { kind: stun::INDICATION, attributes: Vec::new(), password: None, ..link.check() };
    let answer = answer_to(case, &mut link, "a Binding indication", &indication, QUIET).await;
    demand(answer.is_none(), || "it was answered".into())?;
    Ok("nothing".into())
}

async fn early(case: &Case<'_>) -> Verdict {
    for role in case.roles() {
        let session = case.open_plain(role).await?;
        let mut link = Link::open(&session).await?;
        let answer = link.ask(&link.check(), CONNECT).await;
        demand(answer.is_some_and(|answer| answer.kind == stun::SUCCESS), || "it was not".into())?;
        case.end(&session).await?;
    }
    Ok("answered".into())
}

async fn repeated(case: &Case<'_>) -> Verdict {
    let (_, mut link) = valid(case).await?;
    let check = link.check();
    let mut answers = Vec::new();
    for _ in 0..3 {
        answers.push(must_succeed(case, &mut link, "the same check", &check).await?.mapped());
    }
    demand(answers.windows(2).all(|pair| pair[0] == pair[1]), || format!("{answers:?}"))?;
    Ok("the same".into())
}

async fn other_protocols(case: &Case<'_>) -> Verdict {
    let session = case.open_plain(*case.roles().first().unwrap_or(&Role::Publisher)).await?;
    let mut link = Link::connect(case, &session).await?;
    let tail: [u8; 99] = random();
    for first in [4, 16, 19, 64, 79, 80, 127, 192, 255] {
        let mut datagram = vec![first];
        datagram.extend(tail);
        link.send(&datagram).await;
    }
    let check = link.check();
    must_succeed(case, &mut link, "a check after them", &check).await?;
    let ended = |event: &Event| matches!(event, Event::Closed | Event::Failed(_)).then_some(());
    demand(link.find(QUIET, ended).await.is_none(), || "the session ended".into())?;
    Ok("ignored".into())
}

async fn dtls_before_check(case: &Case<'_>) -> Verdict {
    let role = *case.roles().first().unwrap_or(&Role::Publisher);
    let session = case.open_plain(role).await?;
    let mut link = Link::open(&session).await?;
    let flight = Hello::default().exchange(&mut link, QUIET).await;
    demand(flight.datagrams.is_empty(), || format!("{} datagrams came back", flight.datagrams.len()))?;
    Ok("nothing".into())
}
