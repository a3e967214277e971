//! The DTLS handshake, by raw first flights and by whole handshakes (RFC 6347, RFC 5764, RFC 8827).

use std::time::{Duration, Instant};

use media_core::Fingerprint;
use media_core::internals::dtls::{Certificate, DtlsContext};
use media_core::internals::srtp::SrtpProfile;

use super::super::case::{Case, Session};
use super::super::hello::{
    DTLS_1_0, DTLS_1_2, DTLS_1_3, ECDHE_ECDSA_AES_128_GCM, EXTENDED_MASTER_SECRET, Flight, Hello, P256, USE_SRTP,
    X25519,
};
use super::super::link::{Direction, Event, Link, QUIET, SOON};
use super::super::probe::Role;
use super::super::row::{Miss, Row, Verdict, demand, fail, not_applicable, rows};
use crate::sdp::{Imitation, Setup};

/// A datagram that every path carries, in bytes.
const MTU: usize = 1200;
/// A flight is repeated within this, if its answer does not come.
const REPEATED: Duration = Duration::from_secs(5);
/// A hello is answered within this.
const ANSWER: Duration = Duration::from_secs(4);
/// Extension supported_versions (RFC 8446 §4.2.1), and key_share.
const SUPPORTED_VERSIONS: u16 = 43;
const KEY_SHARE: u16 = 51;
/// X25519MLKEM768, and a value of RFC 8701.
const HYBRID: u16 = 0x11ec;
const GREASE: u16 = 0x5a5a;

pub(super) const ROWS: &[Row] = rows! {
    "DTLS-01" Must "RFC 8827 §6.5" "DTLS 1.2 is served" version;
    "DTLS-03" Must "RFC 8446 §4.2, RFC 8701" "A hello that offers 1.3 as well, and values that nobody knows, is served" unknown_values;
    "DTLS-04" Must "RFC 8827 §6.5" "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 is served alone" cipher;
    "DTLS-05" Must "RFC 8827 §6.5" "P-256 is served alone" group;
    "DTLS-07" Must "RFC 5763 §5, RFC 8827 §6.5" "The server asks for the client's certificate" certificate_request;
    "DTLS-08" Must "RFC 8122 §6, RFC 8827 §6.5" "The server's certificate is that of the answer, and a client with another than that of its offer is refused" fingerprints;
    "DTLS-12" Must "RFC 8842 §5.3" "A server that answered active begins the handshake; one that answered passive waits" roles;
    "DTLS-13" Should "RFC 7627 §5.1" "Extended master secret is used" master_secret;
    "DTLS-15" Should "RFC 8842 §4" "A ClientHello after the handshake does not end it" late_hello;
    "DTLS-16" Must "RFC 5764 §4.1" "Without a common SRTP profile nothing is sent, and no session connects" no_profile;
    "DTLS-17" Must "RFC 5764 §4.1.1" "use_srtp is answered with one profile, and no MKI that was not offered" one_profile;
    "DTLS-18" Must "RFC 8827 §6.5" "SRTP_AES128_CM_HMAC_SHA1_80 is served" mandatory_profile;
    "DTLS-30" Must "RFC 6347 §4.2.3" "A ClientHello in many fragments, in any order, is served" fragments;
    "DTLS-34" Should "RFC 6347 §4.1.1" "No datagram of the handshake has more than 1,200 bytes" datagram_size;
    "DTLS-35" Must "RFC 6347 §4.2.4" "A flight that is not answered is sent again" retransmission;
    "DTLS-37" Must "RFC 6347 §4.2.4" "Any one datagram of the handshake may be lost, in either direction, the last ones too" lost_datagrams;
    "DTLS-39" Should "RFC 6347 §4.1.2.7" "Records that do not decrypt are dropped, and the session goes on" broken_records;
    "DTLS-42" Should "RFC 6347 §4.1.2.7" "A plaintext alert after the handshake is ignored" forged_alert;
};

/// A path on which the client may begin the handshake.
async fn passive(case: &Case<'_>) -> Result<(Session, Link), Miss> {
    let role = *case.roles().first().unwrap_or(&Role::Publisher);
    let offered = case.offer_with(role, Setup::Active, Imitation::Browser)?;
    let session = case.open_offer(role, offered).await?;
    let mut link = Link::open(&session).await?;
    link.validate(case).await?;
    Ok((session, link))
}

/// The server's flight upon a hello.
async fn flight(case: &Case<'_>, what: &str, hello: Hello) -> Result<(Session, Flight), Miss> {
    let (session, mut link) = passive(case).await?;
    let flight = hello.exchange(&mut link, ANSWER).await;
    case.note(format!(
        "ClientHello, {what} → version {:04x}, cipher {:04x}, alert {:?}, {} datagrams",
        flight.version.unwrap_or_default(),
        flight.cipher,
        flight.alert,
        flight.datagrams.len()
    ));
    case.end(&session).await?;
    Ok((session, flight))
}

/// The same, and it is whole.
async fn served(case: &Case<'_>, what: &str, hello: Hello) -> Result<(Session, Flight), Miss> {
    let (session, flight) = flight(case, what, hello).await?;
    if let Some(alert) = flight.alert {
        return fail(format!("{what}: the server says alert {alert}"));
    }
    demand(flight.done, || format!("{what}: the server's flight is not whole"))?;
    Ok((session, flight))
}

async fn version(case: &Case<'_>) -> Verdict {
    let (_, flight) = served(case, "DTLS 1.2", Hello::default()).await?;
    demand(flight.version == Some(DTLS_1_2), || format!("version {:04x}", flight.version.unwrap_or_default()))?;
    let old = Hello { version: DTLS_1_0, ciphers: vec![0xc009, 0xc00a, 0xc013], ..Hello::default() };
    let (_, flight) = self::flight(case, "DTLS 1.0", old).await?;
    demand(!flight.done, || "DTLS 1.0 is served, too".into())?;
    Ok("1.2, and not 1.0".into())
}

async fn unknown_values(case: &Case<'_>) -> Verdict {
    let mut versions = vec![6];
    for version in [GREASE, DTLS_1_3, DTLS_1_2] {
        versions.extend(version.to_be_bytes());
    }
    // One share of a group that few know, as long as a real one.
    let mut share = HYBRID.to_be_bytes().to_vec();
    share.extend(1216_u16.to_be_bytes());
    share.resize(share.len() + 1216, 0x5a);
    let mut shares = (share.len() as u16).to_be_bytes().to_vec();
    shares.extend(&share);
    let further = vec![(GREASE, vec![0]), (SUPPORTED_VERSIONS, versions), (KEY_SHARE, shares), (0x9a9a, Vec::new())];
    let mut hello = Hello { further, groups: vec![GREASE, HYBRID, X25519, P256], ..Hello::default() };
    hello.ciphers.splice(0..0, [GREASE, 0x1301, 0x1303]);
    let (_, mut link) = passive(case).await?;
    let flight = hello.exchange(&mut link, ANSWER).await;
    if let Some(alert) = flight.alert {
        return fail(format!("the server says alert {alert}"));
    }
    // One of 1.3 encrypts what comes after its hello.
    demand(flight.version == Some(DTLS_1_2), || "no ServerHello".into())?;
    Ok(format!("served in {} datagrams", flight.datagrams.len()))
}

async fn cipher(case: &Case<'_>) -> Verdict {
    let hello = Hello { ciphers: vec![ECDHE_ECDSA_AES_128_GCM], ..Hello::default() };
    let (_, flight) = served(case, "one cipher suite", hello).await?;
    demand(flight.cipher == ECDHE_ECDSA_AES_128_GCM, || format!("it chose {:04x}", flight.cipher))?;
    Ok("c02b".into())
}

async fn group(case: &Case<'_>) -> Verdict {
    let (_, flight) = served(case, "P-256 alone", Hello { groups: vec![P256], ..Hello::default() }).await?;
    demand(flight.group == Some(P256), || format!("it chose group {:?}", flight.group))?;
    Ok("P-256".into())
}

async fn certificate_request(case: &Case<'_>) -> Verdict {
    let (_, flight) = served(case, "plain", Hello::default()).await?;
    demand(flight.asks_for_certificate, || "no CertificateRequest".into())?;
    Ok("CertificateRequest".into())
}

async fn fingerprints(case: &Case<'_>) -> Verdict {
    let (session, flight) = served(case, "plain", Hello::default()).await?;
    let Some(certificate) = flight.certificate else { return fail("the server shows no certificate") };
    let matches = session.read.fingerprints.iter().any(|known| known.matches(&certificate));
    demand(matches, || "the server's certificate has none of the answer's fingerprints".into())?;

    let skip = |error: media_core::internals::dtls::DtlsError| Miss::Skip(error.to_string());
    let other: Fingerprint = Certificate::generate().map_err(skip)?.fingerprint().clone();
    let role = *case.roles().first().unwrap_or(&Role::Publisher);
    let own = case.probe.identity.fingerprint().to_sdp();
    let session = case.open(role, |sdp| sdp.replace(&own, &other.to_sdp())).await?;
    let mut link = Link::open(&session).await?;
    link.validate(case).await?;
    match link.secure(case, &session, &case.probe.identity.context).await {
        Err(Miss::Fail(why)) => Ok(format!("another certificate than announced: {why}")),
        Err(other) => Err(other),
        Ok(_) => {
            // A server that judges after the handshake ends the association then.
            let ended = |event: &Event| matches!(event, Event::Closed | Event::Failed(_)).then_some(());
            let refused = link.find(REPEATED, ended).await.is_some();
            demand(refused, || "a client with another certificate than announced is connected".into())?;
            Ok("another certificate than announced is closed".into())
        }
    }
}

async fn roles(case: &Case<'_>) -> Verdict {
    let role = *case.roles().first().unwrap_or(&Role::Publisher);
    let (first, mut waiting) = passive(case).await?;
    let spoke = waiting.find(QUIET, |event| matches!(event, Event::Dtls(_)).then_some(())).await;
    demand(spoke.is_none(), || "the server answered passive, and begins all the same".into())?;
    case.end(&first).await?;
    let offered = case.offer_with(role, Setup::Passive, Imitation::Browser)?;
    let reply = case.post_offer(role, &offered).await?;
    if reply.code() != 201 {
        return Ok(format!("it waits when passive, and refuses to be active: {}", reply.code()));
    }
    if let Some(url) = reply.location() {
        case.send("DELETE", &url, &[], "").await?;
    }
    let offered = case.offer_with(role, Setup::Passive, Imitation::Browser)?;
    let session = case.open_offer(role, offered).await?;
    Link::connect(case, &session).await?;
    Ok("it waits when passive, and begins when active".into())
}

async fn master_secret(case: &Case<'_>) -> Verdict {
    let (_, flight) = served(case, "plain", Hello::default()).await?;
    demand(flight.extensions.contains_key(&EXTENDED_MASTER_SECRET), || "the ServerHello has no such extension".into())?;
    Ok("extended_master_secret".into())
}

/// True if a connected session goes on after these datagrams.
async fn survives(case: &Case<'_>, datagrams: &[Vec<u8>]) -> Result<(), Miss> {
    let role = *case.roles().first().unwrap_or(&Role::Publisher);
    let session = case.open_plain(role).await?;
    let mut link = Link::connect(case, &session).await?;
    for datagram in datagrams {
        link.send(datagram).await;
    }
    let ended = |event: &Event| matches!(event, Event::Closed | Event::Failed(_)).then_some(());
    demand(link.find(QUIET, ended).await.is_none(), || "the association ended".into())?;
    let answer = link.ask(&link.check(), SOON).await;
    demand(answer.is_some(), || "checks are answered no more".into())?;
    let reply = case.end(&session).await?;
    demand(reply.status.is_success(), || format!("the session is gone: DELETE was {}", reply.code()))
}

async fn late_hello(case: &Case<'_>) -> Verdict {
    survives(case, &Hello::default().first_flight()).await?;
    Ok("the session goes on".into())
}

async fn no_profile(case: &Case<'_>) -> Verdict {
    let skip = |error: media_core::internals::dtls::DtlsError| Miss::Skip(error.to_string());
    let certificate = Certificate::generate().map_err(skip)?;
    let context = DtlsContext::with_profiles(&certificate, &[]).map_err(skip)?;
    let role = *case.roles().first().unwrap_or(&Role::Publisher);
    let own = case.probe.identity.fingerprint().to_sdp();
    let session = case.open(role, |sdp| sdp.replace(&own, &certificate.fingerprint().to_sdp())).await?;
    let mut link = Link::open(&session).await?;
    link.validate(case).await?;
    match link.secure(case, &session, &context).await {
        Err(Miss::Fail(why)) => Ok(why),
        Err(other) => Err(other),
        Ok(_) => fail("it connects"),
    }
}

async fn one_profile(case: &Case<'_>) -> Verdict {
    let hello = Hello { mki: vec![1, 2, 3, 4], ..Hello::default() };
    let (_, flight) = served(case, "with an MKI", hello).await?;
    let Some(data) = flight.extensions.get(&USE_SRTP) else { return fail("use_srtp is not answered") };
    let one = data.len() >= 5 && data[..2] == [0, 2];
    let known = data.get(2..4).is_some_and(|id| [[0, 1], [0, 7], [0, 8]].iter().any(|known| known == id));
    demand(one && known, || format!("use_srtp is answered with {data:02x?}"))?;
    let mki = &data[5.min(data.len())..];
    demand(mki.is_empty() || mki == [1, 2, 3, 4], || format!("its MKI is {mki:02x?}"))?;
    Ok(format!("profile {:02x}{:02x}, MKI of {} bytes", data[2], data[3], mki.len()))
}

async fn mandatory_profile(case: &Case<'_>) -> Verdict {
    let hello = Hello { profiles: vec![SrtpProfile::Aes128CmHmacSha1_80.dtls_id()], ..Hello::default() };
    let (_, flight) = served(case, "profile 0001 alone", hello).await?;
    let chosen = flight.extensions.get(&USE_SRTP).and_then(|data| data.get(2..4)).map(<[u8]>::to_vec);
    demand(chosen == Some(vec![0, 1]), || format!("use_srtp is answered with {chosen:?}"))?;
    Ok("0001".into())
}

async fn fragments(case: &Case<'_>) -> Verdict {
    for (what, hello) in [
        ("in fragments of 60 bytes", Hello { fragment: 60, ..Hello::default() }),
        ("in fragments of 60 bytes, the last one first", Hello { fragment: 60, reversed: true, ..Hello::default() }),
    ] {
        served(case, what, hello).await?;
    }
    Ok("served".into())
}

async fn datagram_size(case: &Case<'_>) -> Verdict {
    let (_, flight) = served(case, "plain", Hello::default()).await?;
    let longest = flight.datagrams.iter().copied().max().unwrap_or_default();
    demand(longest <= MTU, || format!("{longest} bytes"))?;
    Ok(format!("at most {longest} bytes"))
}

async fn retransmission(case: &Case<'_>) -> Verdict {
    let (_, mut link) = passive(case).await?;
    let flight = Hello::default().exchange(&mut link, ANSWER).await;
    demand(flight.done, || "there is no flight".into())?;
    let begun = Instant::now();
    let again = link.find(REPEATED, |event| matches!(event, Event::Dtls(_)).then_some(())).await;
    demand(again.is_some(), || "it is not sent again".into())?;
    Ok(format!("again after {} ms", begun.elapsed().as_millis()))
}

async fn lost_datagrams(case: &Case<'_>) -> Verdict {
    let role = *case.roles().first().unwrap_or(&Role::Publisher);
    for direction in [Direction::ToServer, Direction::ToClient] {
        for place in 0..3 {
            let session = case.open_plain(role).await?;
            let mut link = Link::open(&session).await?;
            link.validate(case).await?;
            link.lose = Some((direction, place));
            link.secure(case, &session, &case.probe.identity.context).await.map_err(|miss| match miss {
                Miss::Fail(why) => Miss::Fail(format!("{direction:?}, datagram {place}: {why}")),
                other => other,
            })?;
            case.end(&session).await?;
        }
    }
    Ok("three of each direction".into())
}

/// A record of DTLS 1.2.
fn record(kind: u8, epoch: u16, number: u8, body: &[u8]) -> Vec<u8> {
    let mut record = vec![kind];
    record.extend(DTLS_1_2.to_be_bytes());
    record.extend(epoch.to_be_bytes());
    record.extend([0, 0, 0, 0, 0, number]);
    record.extend((body.len() as u16).to_be_bytes());
    record.extend(body);
    record
}

async fn broken_records(case: &Case<'_>) -> Verdict {
    let broken = [22, 23, 21].map(|kind| record(kind, 1, 200, &[0x5a; 60]));
    survives(case, &broken).await?;
    Ok("dropped".into())
}

async fn forged_alert(case: &Case<'_>) -> Verdict {
    // Fatal handshake_failure, and close_notify.
    survives(case, &[record(21, 0, 99, &[2, 40]), record(21, 0, 100, &[1, 0])]).await?;
    Ok("ignored".into())
}

/// Rows of profiles need a client that offers one alone.
pub(super) fn with_profile(profile: SrtpProfile) -> Result<(DtlsContext, Fingerprint), Miss> {
    let skip = |error: media_core::internals::dtls::DtlsError| Miss::Skip(error.to_string());
    let certificate = Certificate::generate().map_err(skip)?;
    let context = DtlsContext::with_profiles(&certificate, &[profile]).map_err(skip)?;
    Ok((context, certificate.fingerprint().clone()))
}

/// True if the server serves a profile at all; only one is mandatory.
pub(super) async fn serves(case: &Case<'_>, profile: SrtpProfile) -> Result<bool, Miss> {
    let hello = Hello { profiles: vec![profile.dtls_id()], ..Hello::default() };
    let (_, flight) = flight(case, &format!("profile {:04x} alone", profile.dtls_id()), hello).await?;
    let answered =
        flight.extensions.get(&USE_SRTP).is_some_and(|data| data.get(2..4) == Some(&profile.dtls_id().to_be_bytes()));
    if !answered && profile == SrtpProfile::Aes128CmHmacSha1_80 {
        return not_applicable("see DTLS-18");
    }
    Ok(answered)
}
