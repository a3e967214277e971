//! Errors, methods, media types and limits of HTTP.

use serde_json::Value;

use super::super::case::{Case, SDP};
use super::super::probe::Role;
use super::super::reply::Reply;
use super::super::row::{Miss, Row, Verdict, demand, not_applicable, rows};

/// Longer than any offer.
const BIG: usize = 2 << 20;

pub(super) const ROWS: &[Row] = rows! {
    "ERR-01" Should "RFC 9457 §3" "An error reply is application/problem+json whose status is that of the reply" problems;
    "ERR-02" Should "RFC 9457 §3.1" "The same fault has the same type and title each time" constant_problems;
    "ERR-06" Must "RFC 9110 §10.2.3" "A Retry-After is a number of seconds or a date" retry_after;
    "HTTP-01" Must "RFC 9725 §5" "Endpoints are served by HTTPS, but on loopback" https;
    "HTTP-02" Should "RFC 9113" "A session is opened, read and ended over HTTP/2 as over HTTP/1.1, where ALPN or clear text has it" http2;
    "HTTP-03" Must "RFC 9725 §4.1" "GET on an endpoint and on a session is answered without content" get;
    "HTTP-04" Should "WHEP §4.2" "HEAD on a WHEP endpoint is 2xx with the media type application/sdp" head;
    "HTTP-05" Must "RFC 9110 §15.5.6" "A method that a resource does not have is 405 with Allow" methods;
    "HTTP-06" Must "RFC 9110 §8.3.1" "A media type is read without case and parameters; another one or none is refused" media_types;
    "HTTP-07" Should "RFC 9110 §15.5.14" "An offer of megabytes is refused" big_bodies;
    "HTTP-08" Should "practice" "An offer is answered whatever Accept says" accept;
    "HTTP-09" Should "RFC 9111 §5.2.2.5" "The reply to an offer is not to be stored" no_store;
    "HTTP-10" Should "RFC 9110 §10.1.1" "An offer behind Expect: 100-continue is taken" expect_continue;
};

/// A refusal that any server can be brought to: a type that is no SDP.
async fn refusal(case: &Case<'_>) -> Result<Reply, Miss> {
    let role = *case.roles().first().unwrap_or(&Role::Publisher);
    let url = case.endpoint(role).await?;
    let reply = case.send("POST", &url, &[("content-type", "text/plain")], "hello").await?;
    demand(reply.is_client_error(), || format!("an offer of type text/plain was answered with {}", reply.code()))?;
    Ok(reply)
}

async fn problems(case: &Case<'_>) -> Verdict {
    let reply = refusal(case).await?;
    let is_problem = reply.media_type() == "application/problem+json";
    demand(is_problem, || format!("the error's type is {:?}", reply.media_type()))?;
    let read: Option<Value> = serde_json::from_str(&reply.body).ok();
    let read = read.filter(Value::is_object);
    let read = read.ok_or_else(|| Miss::Fail("the problem is no JSON object".into()))?;
    let status = read["status"].as_u64();
    let agrees = status.is_none_or(|status| status == u64::from(reply.code()));
    demand(agrees, || format!("the problem says status {status:?}"))?;
    Ok(format!("a problem of type {}", read["type"]))
}

async fn constant_problems(case: &Case<'_>) -> Verdict {
    let kind = |reply: &Reply| {
        let read: Value = serde_json::from_str(&reply.body).unwrap_or_default();
        (read["type"].clone(), read["title"].clone())
    };
    let (first, second) = (refusal(case).await?, refusal(case).await?);
    if kind(&first) == (Value::Null, Value::Null) {
        return not_applicable("errors have neither type nor title");
    }
    demand(kind(&first) == kind(&second), || format!("{:?}, then {:?}", kind(&first), kind(&second)))?;
    Ok(format!("twice {}", kind(&first).0))
}

async fn retry_after(case: &Case<'_>) -> Verdict {
    let url = case.idle_endpoint().await?;
    let offered = case.offer(Role::Viewer)?;
    let reply = case.send("POST", &url, &[("content-type", SDP)], &offered.sdp).await?;
    let Some(value) = reply.header("retry-after") else {
        return not_applicable(format!("a stream without publisher is {} without Retry-After", reply.code()));
    };
    let is_seconds = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    let is_date = value.ends_with(" GMT") && value.len() == "Sun, 06 Nov 1994 08:49:37 GMT".len();
    demand(is_seconds || is_date, || format!("Retry-After is {value:?}"))?;
    Ok(format!("Retry-After {value}"))
}

async fn https(case: &Case<'_>) -> Verdict {
    for (_, url) in case.endpoints()? {
        if url.scheme() == "https" {
            continue;
        }
        if crate::attack::is_loopback(url.as_str()) {
            return not_applicable("plain HTTP on loopback");
        }
        return super::super::row::fail(format!("{url} is plain HTTP"));
    }
    Ok("https".into())
}

async fn http2(case: &Case<'_>) -> Verdict {
    for role in case.roles() {
        let url = case.endpoint(role).await?;
        let offered = case.offer(role)?;
        let reply = case.send_by_http2("POST", &url, &[("content-type", SDP)], &offered.sdp).await?;
        demand(reply.code() == 201 && reply.is_sdp(), || {
            format!("over HTTP/2 the offer was answered with {}", reply.shown())
        })?;
        let session =
            reply.location().ok_or_else(|| Miss::Fail("the 201 over HTTP/2 has no usable Location".into()))?;
        for method in ["GET", "DELETE"] {
            let reply = case.send_by_http2(method, &session, &[], "").await?;
            demand(reply.status.is_success(), || format!("over HTTP/2 {method} was {}", reply.code()))?;
        }
    }
    Ok("201, 2xx, 2xx over HTTP/2".into())
}

async fn get(case: &Case<'_>) -> Verdict {
    for role in case.roles() {
        let session = case.open_plain(role).await?;
        let endpoint = case.endpoint(role).await?;
        for url in [&endpoint, &session.url] {
            let reply = case.send("GET", url, &[], "").await?;
            let empty = reply.status.is_success() && reply.body.is_empty();
            demand(empty, || format!("GET {} was {} with {} bytes", url.path(), reply.code(), reply.body.len()))?;
        }
        case.end(&session).await?;
    }
    Ok("2xx without content".into())
}

async fn head(case: &Case<'_>) -> Verdict {
    let url = case.endpoint(Role::Viewer).await?;
    let reply = case.send("HEAD", &url, &[], "").await?;
    demand(reply.status.is_success() && reply.is_sdp(), || {
        format!("HEAD was {} of type {:?}", reply.code(), reply.media_type())
    })?;
    Ok("2xx, application/sdp".into())
}

async fn methods(case: &Case<'_>) -> Verdict {
    for role in case.roles() {
        let session = case.open_plain(role).await?;
        let endpoint = case.endpoint(role).await?;
        for (url, has) in [(&endpoint, "POST"), (&session.url, "DELETE")] {
            let reply = case.send("PUT", url, &[("content-type", SDP)], "v=0\r\n").await?;
            demand(reply.code() == 405, || format!("PUT {} was {}", url.path(), reply.code()))?;
            demand(reply.lists("allow", has), || format!("the 405 of {} does not allow {has}", url.path()))?;
        }
        case.end(&session).await?;
    }
    Ok("PUT is 405 with Allow".into())
}

async fn media_types(case: &Case<'_>) -> Verdict {
    for role in case.roles() {
        let offered = case.offer(role)?;
        let url = case.endpoint(role).await?;
        let odd = "Application/SDP; charset=UTF-8";
        let reply = case.send("POST", &url, &[("content-type", odd)], &offered.sdp).await?;
        demand(reply.code() == 201, || format!("{odd} was answered with {}", reply.code()))?;
        if let Some(session) = reply.location() {
            case.send("DELETE", &session, &[], "").await?;
        }
        for headers in [&[("content-type", "application/json")][..], &[]] {
            let url = case.endpoint(role).await?;
            let reply = case.send("POST", &url, headers, &offered.sdp).await?;
            let wanted = if headers.is_empty() { reply.is_client_error() } else { reply.code() == 415 };
            demand(wanted, || format!("an offer of type {headers:?} was answered with {}", reply.code()))?;
        }
    }
    Ok("by media type alone".into())
}

async fn big_bodies(case: &Case<'_>) -> Verdict {
    let role = *case.roles().first().unwrap_or(&Role::Publisher);
    let url = case.endpoint(role).await?;
    let line = format!("a=x-long:{}\r\n", "y".repeat(1000));
    let body = case.offer(role)?.sdp + &line.repeat(BIG / line.len());
    match case.send("POST", &url, &[("content-type", SDP)], &body).await {
        Ok(reply) => {
            demand(reply.is_client_error(), || format!("2 MiB were answered with {}", reply.code()))?;
            Ok(format!("2 MiB are {}", reply.code()))
        }
        // It need not read to the end of what it refuses.
        Err(_) => Ok("the connection of 2 MiB is closed".into()),
    }
}

async fn accept(case: &Case<'_>) -> Verdict {
    for role in case.roles() {
        for accept in ["text/html", "application/json", "*/*"] {
            let url = case.endpoint(role).await?;
            let offered = case.offer(role)?;
            let reply = case.send("POST", &url, &[("content-type", SDP), ("accept", accept)], &offered.sdp).await?;
            demand(reply.code() == 201, || format!("with Accept: {accept} the reply was {}", reply.code()))?;
            if let Some(session) = reply.location() {
                case.send("DELETE", &session, &[], "").await?;
            }
        }
    }
    Ok("201 whatever Accept says".into())
}

async fn no_store(case: &Case<'_>) -> Verdict {
    for role in case.roles() {
        let session = case.open_plain(role).await?;
        let kept = !session.reply.lists("cache-control", "no-store");
        case.end(&session).await?;
        demand(!kept, || "the 201 has no Cache-Control: no-store".into())?;
    }
    Ok("no-store".into())
}

async fn expect_continue(case: &Case<'_>) -> Verdict {
    let role = *case.roles().first().unwrap_or(&Role::Publisher);
    let url = case.endpoint(role).await?;
    let offered = case.offer(role)?;
    let headers = [("content-type", SDP), ("expect", "100-continue")];
    let reply = case.send("POST", &url, &headers, &offered.sdp).await?;
    demand(reply.code() == 201, || format!("the reply was {}", reply.code()))?;
    Ok("201".into())
}
