//! PATCH: trickled candidates (RFC 8840, RFC 9725 §4.3).

use super::super::case::{Case, FRAGMENT, SDP, Session};
use super::super::link::Link;
use super::super::probe::Role;
use super::super::reply::Reply;
use super::super::row::{Miss, Row, Verdict, demand, not_applicable, rows};

const CANDIDATE: &str = "a=candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host generation 0";

pub(super) const ROWS: &[Row] = rows! {
    "WHIP-13" Must "RFC 9725 §4.3" "PATCH with application/sdp is no second offer: it is refused" no_second_offer;
    "WHIP-16" May "RFC 9725 §4.3" "Candidates are taken by PATCH" trickle;
    "WHIP-18" Must "RFC 9725 §4.3.1" "PATCH of another type is 415, and of what is no fragment 400" wrong_patch;
    "TRK-01" Must "RFC 8840 §9" "Unknown attributes of a fragment are ignored, and a fragment that says nothing is refused" fragments;
    "TRK-02" Must "RFC 9725 §4.3.2" "A part may name any section of the bundle, by its mid, and an unknown mid hinders nothing" parts;
    "TRK-03" Must "RFC 9725 §4.3.2" "A trickled fragment is answered by 204 without a body and without ETag" no_content;
    "TRK-04" Must "RFC 9725 §4.3.2" "Candidates that cannot be used are passed over" unusable;
    "TRK-05" Must "RFC 8838 §13" "The end of candidates alone is a fragment, and ends nothing else" end_alone;
    "TRK-06" Must "RFC 9725 §4.3.2, RFC 9110 §13.1.1" "If-Match is compared strongly, as a list: no match is 412" if_match;
    "TRK-07" Must "RFC 9725 §4.3.2, RFC 6585 §3" "A fragment without If-Match is 428, if the session has an ETag" no_if_match;
    "TRK-08" Should "RFC 9110 §13.1.1" "If-Match: * is taken for a fragment" any_tag;
    "TRK-09" Must "RFC 8839 §4.4.1.1.1" "A fragment in which only one of ufrag and password is new is refused" half_new;
    "TRK-16" Must "RFC 9725 §4.2" "PATCH after the session's end is refused" after_end;
};

/// The lines by which a fragment names its ICE session.
pub(super) fn credentials(session: &Session) -> String {
    let local = &session.offered.local;
    format!("a=ice-ufrag:{}\r\na=ice-pwd:{}\r\n", local.ufrag, local.pwd)
}

/// A fragment of these lines for the first section.
pub(super) fn fragment(session: &Session, lines: &[&str]) -> String {
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    format!("{}m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n{lines}", credentials(session))
}

pub(super) async fn patch(
    case: &Case<'_>,
    session: &Session,
    if_match: Option<&str>,
    body: &str,
) -> Result<Reply, Miss> {
    let mut headers = vec![("content-type", FRAGMENT)];
    headers.extend(if_match.map(|tag| ("if-match", tag)));
    case.send("PATCH", &session.url, &headers, body).await
}

/// One candidate with the right ETag.
pub(super) async fn plain_trickle(case: &Case<'_>, session: &Session) -> Result<Reply, Miss> {
    patch(case, session, session.etag.as_deref(), &fragment(session, &[CANDIDATE])).await
}

/// A session that takes trickled candidates.
async fn trickling(case: &Case<'_>, role: Role) -> Result<Session, Miss> {
    let session = case.open_plain(role).await?;
    let reply = plain_trickle(case, &session).await?;
    match reply.code() {
        200..=299 => Ok(session),
        405 | 422 | 501 => not_applicable(format!("candidates are not taken by PATCH: {}", reply.code())),
        code => Err(Miss::Fail(format!("a candidate was answered with {code}"))),
    }
}

async fn no_second_offer(case: &Case<'_>) -> Verdict {
    let session = case.open_plain(Role::Publisher).await?;
    let offer = case.offer(Role::Publisher)?.sdp;
    let reply = case.send("PATCH", &session.url, &[("content-type", SDP), ("if-match", "*")], &offer).await?;
    demand(reply.is_client_error() || reply.code() == 501, || format!("it was {}", reply.code()))?;
    Ok(format!("{}", reply.code()))
}

async fn trickle(case: &Case<'_>) -> Verdict {
    for role in case.roles() {
        let session = trickling(case, role).await?;
        Link::open(&session).await?.validate(case).await?;
        case.end(&session).await?;
    }
    Ok("taken, and checks are answered".into())
}

async fn wrong_patch(case: &Case<'_>) -> Verdict {
    for role in case.roles() {
        let session = trickling(case, role).await?;
        let body = fragment(&session, &[CANDIDATE]);
        let tag = session.etag.clone().unwrap_or("*".into());
        let headers = [("content-type", "text/plain"), ("if-match", tag.as_str())];
        let reply = case.send("PATCH", &session.url, &headers, &body).await?;
        demand(reply.code() == 415, || format!("a fragment of type text/plain was {}", reply.code()))?;
        let reply = patch(case, &session, Some(&tag), "this is no fragment\r\n").await?;
        demand(reply.code() == 400, || format!("what is no fragment was {}", reply.code()))?;
        case.end(&session).await?;
    }
    Ok("415 and 400".into())
}

async fn fragments(case: &Case<'_>) -> Verdict {
    for role in case.roles() {
        let session = trickling(case, role).await?;
        let tag = session.etag.as_deref();
        let odd = fragment(&session, &["a=x-unknown:1", CANDIDATE, "a=x-flag", "a=end-of-candidates"]);
        let reply = patch(case, &session, tag, &odd).await?;
        demand(reply.status.is_success(), || format!("unknown attributes were {}", reply.code()))?;
        let reply = patch(case, &session, tag, "a=x-unknown:1\r\n").await?;
        demand(reply.is_client_error(), || format!("a fragment that says nothing was {}", reply.code()))?;
        case.end(&session).await?;
    }
    Ok("read as they should be".into())
}

async fn parts(case: &Case<'_>) -> Verdict {
    for role in case.roles() {
        let session = trickling(case, role).await?;
        for mid in ["0", "1", "no-such-mid"] {
            let body = fragment(&session, &[CANDIDATE]).replace("a=mid:0", &format!("a=mid:{mid}"));
            let reply = patch(case, &session, session.etag.as_deref(), &body).await?;
            demand(reply.status.is_success(), || format!("mid {mid} was {}", reply.code()))?;
        }
        case.end(&session).await?;
    }
    Ok("taken".into())
}

async fn no_content(case: &Case<'_>) -> Verdict {
    for role in case.roles() {
        let session = trickling(case, role).await?;
        let reply = plain_trickle(case, &session).await?;
        let right = reply.code() == 204 && reply.body.is_empty();
        demand(right, || format!("it was {} with {} bytes", reply.code(), reply.body.len()))?;
        demand(reply.header("etag").is_none(), || "the 204 has an ETag".into())?;
        case.end(&session).await?;
    }
    Ok("204".into())
}

async fn unusable(case: &Case<'_>) -> Verdict {
    let lines = [
        "a=candidate:1 1 tcp 1518280447 192.0.2.1 9 typ host tcptype active",
        "a=candidate:2 2 udp 2122260223 192.0.2.1 61764 typ host",
        "a=candidate:3 1 udp 2122260223 0f8fad5b-d9cb-469f-a165-70867728950e.local 61764 typ host",
        "a=candidate:4 1 udp 2122260223 no.such.host.example 61764 typ host",
        "a=candidate:5 1 udp 2122260223 192.0.2.1 61764 typ host ufrag another",
        "a=candidate:6 1 udp 2122260223 2001:db8::1 61764 typ host",
    ];
    for role in case.roles() {
        let session = trickling(case, role).await?;
        for line in lines {
            let reply = patch(case, &session, session.etag.as_deref(), &fragment(&session, &[line])).await?;
            demand(reply.status.is_success(), || format!("{line} was {}", reply.code()))?;
        }
        case.end(&session).await?;
    }
    Ok(format!("{} kinds passed over", lines.len()))
}

async fn end_alone(case: &Case<'_>) -> Verdict {
    for role in case.roles() {
        let session = trickling(case, role).await?;
        let body = format!("{}a=end-of-candidates\r\n", credentials(&session));
        let reply = patch(case, &session, session.etag.as_deref(), &body).await?;
        demand(reply.status.is_success(), || format!("it was {}", reply.code()))?;
        Link::open(&session).await?.validate(case).await?;
        case.end(&session).await?;
    }
    Ok("taken, and checks are answered all the same".into())
}

async fn if_match(case: &Case<'_>) -> Verdict {
    for role in case.roles() {
        let session = trickling(case, role).await?;
        let Some(tag) = session.etag.clone() else { return not_applicable("the session has no ETag") };
        let body = fragment(&session, &[CANDIDATE]);
        let list = format!("\"x\", {tag}");
        for (value, wanted) in [(list, 204), ("\"no-such-tag\"".into(), 412), (format!("W/{tag}"), 412)] {
            let reply = patch(case, &session, Some(&value), &body).await?;
            let right = reply.code() == wanted || wanted == 204 && reply.status.is_success();
            demand(right, || format!("If-Match: {value} was {} and not {wanted}", reply.code()))?;
        }
        case.end(&session).await?;
    }
    Ok("as a list, strongly".into())
}

async fn no_if_match(case: &Case<'_>) -> Verdict {
    for role in case.roles() {
        let session = trickling(case, role).await?;
        if session.etag.is_none() {
            return not_applicable("the session has no ETag");
        }
        let reply = patch(case, &session, None, &fragment(&session, &[CANDIDATE])).await?;
        demand(reply.code() == 428, || format!("it was {}", reply.code()))?;
        case.end(&session).await?;
    }
    Ok("428".into())
}

async fn any_tag(case: &Case<'_>) -> Verdict {
    for role in case.roles() {
        let session = trickling(case, role).await?;
        let reply = patch(case, &session, Some("*"), &fragment(&session, &[CANDIDATE])).await?;
        demand(reply.status.is_success(), || format!("it was {}", reply.code()))?;
        case.end(&session).await?;
    }
    Ok("taken".into())
}

async fn half_new(case: &Case<'_>) -> Verdict {
    for role in case.roles() {
        let session = trickling(case, role).await?;
        let local = &session.offered.local;
        let bodies = [
            format!("a=ice-ufrag:fresh\r\na=ice-pwd:{}\r\n", local.pwd),
            format!("a=ice-ufrag:{}\r\na=ice-pwd:fresh89012345678901234567\r\n", local.ufrag),
        ];
        for body in bodies {
            let reply = patch(case, &session, Some("*"), &(body + "a=end-of-candidates\r\n")).await?;
            demand(reply.is_client_error(), || format!("it was {}", reply.code()))?;
        }
        case.end(&session).await?;
    }
    Ok("refused".into())
}

async fn after_end(case: &Case<'_>) -> Verdict {
    for role in case.roles() {
        let session = trickling(case, role).await?;
        case.end(&session).await?;
        let reply = plain_trickle(case, &session).await?;
        demand(reply.is_client_error(), || format!("it was {}", reply.code()))?;
    }
    Ok("refused".into())
}
