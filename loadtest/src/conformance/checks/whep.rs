//! What only viewers meet: streams without a publisher, and offers of the server's own (draft-ietf-wish-whep).

use std::fmt::Write as _;

use media_core::internals::ice::random_credentials;

use super::super::case::{Case, Offered, SDP, Session};
use super::super::description::{Description, Section};
use super::super::link::{Event, Link, SOON};
use super::super::probe::Role;
use super::super::reply::Reply;
use super::super::row::{Miss, Row, Verdict, demand, fail, not_applicable, rows};
use crate::sdp::{Answer, Ssrcs};

pub(super) const ROWS: &[Row] = rows! {
    "WHEP-01" Must "WHEP §4.3" "A viewer's offer is answered, and media flows" watched;
    "WHEP-05" Should "WHEP §4.3" "A stream without publisher is 409 with Retry-After, or the viewer waits with a session" not_live;
    "WHEP-07" May "WHEP §4.3.2" "An offer that cannot be served is answered by 406 with an offer of the server's own" counter_offer;
    "WHEP-08" Should "WHEP §4.3.2" "The valid-until of a counter-offer is a date of HTTP in the future" valid_until;
    "WHEP-09" Must "WHEP §4.3.2" "PATCH with the answer to a counter-offer is 204, and media flows; another answer is refused" answered_offer;
    "WHEP-10" Must "WHEP §4.3.3" "A 406 has an SDP offer and a Location" whole_406;
};

async fn watched(case: &Case<'_>) -> Verdict {
    let session = case.open_plain(Role::Viewer).await?;
    let mut link = Link::connect(case, &session).await?;
    let got = link.find(SOON, |event| matches!(event, Event::Rtp(_)).then_some(())).await;
    demand(got.is_some(), || "no media in 3 s".into())?;
    Ok("media flows".into())
}

async fn not_live(case: &Case<'_>) -> Verdict {
    let url = case.idle_endpoint().await?;
    let offered = case.offer(Role::Viewer)?;
    let reply = case.send("POST", &url, &[("content-type", SDP)], &offered.sdp).await?;
    match reply.code() {
        409 => {
            demand(reply.header("retry-after").is_some(), || "the 409 has no Retry-After".into())?;
            Ok("409 with Retry-After".into())
        }
        201 => Ok("201: the viewer waits".into()),
        404 => Ok("404: there is no such stream".into()),
        code => fail(format!("a stream without publisher is {code}")),
    }
}

/// The 406 to an offer that nobody can serve.
async fn countered(case: &Case<'_>) -> Result<Reply, Miss> {
    let change = |sdp: String| {
        sdp.replace("VP8/90000", "x-none/90000")
            .replace("H264/90000", "x-no/90000")
            .replace("opus/48000/2", "x-not/8000")
    };
    let (_, reply) = case.post(Role::Viewer, change).await?;
    match reply.code() {
        406 => Ok(reply),
        code if reply.is_client_error() => not_applicable(format!("no counter-offers: {code}")),
        code => fail(format!("an offer without a known codec was {code}")),
    }
}

async fn whole_406(case: &Case<'_>) -> Verdict {
    let reply = countered(case).await?;
    demand(reply.is_sdp() && reply.body.starts_with("v=0"), || format!("it is of type {:?}", reply.media_type()))?;
    demand(reply.location().is_some(), || "it has no Location".into())?;
    Ok("offer and Location".into())
}

async fn counter_offer(case: &Case<'_>) -> Verdict {
    let offer = Description::read(&countered(case).await?.body);
    for section in offer.live() {
        let sends = matches!(section.direction(), "sendonly" | "sendrecv");
        demand(sends, || format!("section {} is {}", section.mid(), section.direction()))?;
        let setup = offer.of(section, "setup");
        demand(setup == Some("actpass"), || format!("setup of section {} is {setup:?}", section.mid()))?;
    }
    demand(!offer.everywhere("candidate").is_empty(), || "it has no candidates".into())?;
    Ok(format!("{} sections", offer.sections.len()))
}

async fn valid_until(case: &Case<'_>) -> Verdict {
    let reply = countered(case).await?;
    let value = reply.header("content-type").unwrap_or_default();
    let Some((_, date)) = value.split_once("valid-until=") else { return not_applicable("it has no valid-until") };
    let date = date.trim_matches('"');
    let right = date.ends_with(" GMT") && date.len() == "Sun, 06 Nov 1994 08:49:37 GMT".len();
    demand(right, || format!("valid-until is {date:?}"))?;
    Ok(date.to_owned())
}

/// The answer of a viewer that takes the first format of each section, and its RTX.
fn answer_to(case: &Case<'_>, offer: &Description) -> Offered {
    let local = random_credentials();
    let mids: Vec<&str> = offer.sections.iter().map(Section::mid).collect();
    let mut sdp = format!("v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {}\r\n", mids.join(" "));
    for section in &offer.sections {
        let format = section.formats().first().cloned().unwrap_or_default();
        let mut line = |text: std::fmt::Arguments<'_>| {
            // Writing to a string cannot fail.
            let _ = write!(sdp, "{text}\r\n");
        };
        line(format_args!("m={} 9 {} {format}", section.medium(), section.protocol()));
        line(format_args!("c=IN IP4 0.0.0.0\r\na=mid:{}\r\na=recvonly\r\na=rtcp-mux\r\na=setup:active", section.mid()));
        line(format_args!("a=ice-ufrag:{}\r\na=ice-pwd:{}", local.ufrag, local.pwd));
        line(format_args!("a=fingerprint:{}", case.probe.identity.fingerprint().to_sdp()));
        for name in ["rtpmap", "fmtp", "rtcp-fb"] {
            let own = section.values(name).filter(|value| value.split(' ').next() == Some(format.as_str()));
            own.for_each(|value| line(format_args!("a={name}:{value}")));
        }
    }
    Offered { sdp, local, ssrcs: [Ssrcs { media: 0, rtx: 0 }; 2] }
}

/// A counter-offer that was answered.
async fn accepted(case: &Case<'_>) -> Result<Session, Miss> {
    let reply = countered(case).await?;
    let offer = Description::read(&reply.body);
    let offered = answer_to(case, &offer);
    let url = reply.location().ok_or_else(|| Miss::Fail("the 406 has no Location".into()))?;
    // A server that offers actpass has its answer in the client's setup:active.
    let read = Answer::parse(&reply.body.replace("a=setup:actpass", "a=setup:passive"));
    let read = read.map_err(|error| Miss::Fail(error.to_string()))?;
    let etag = reply.header("etag").map(str::to_owned);
    let headers = [("content-type", SDP), ("if-match", etag.as_deref().unwrap_or("*"))];
    let taken = case.send("PATCH", &url, &headers, &offered.sdp).await?;
    demand(taken.code() == 204, || format!("the answer was {}", taken.code()))?;
    Ok(Session { offered, reply, url, etag, answer: offer, read })
}

async fn answered_offer(case: &Case<'_>) -> Verdict {
    let session = accepted(case).await?;
    let mut link = Link::connect(case, &session).await?;
    let got = link.find(SOON, |event| matches!(event, Event::Rtp(_)).then_some(())).await;
    demand(got.is_some(), || "no media in 3 s".into())?;
    let other = answer_to(case, &session.answer);
    let headers = [("content-type", SDP), ("if-match", session.etag.as_deref().unwrap_or("*"))];
    let reply = case.send("PATCH", &session.url, &headers, &other.sdp).await?;
    demand(reply.is_client_error(), || format!("another answer was {}", reply.code()))?;
    Ok(format!("204, and media flows; another answer is {}", reply.code()))
}
