//! The core extensions of WHEP: server-sent events and the choice of a layer.

use std::time::Duration;

use reqwest::Url;
use serde_json::Value;

use super::super::case::{Case, Session};
use super::super::probe::Role;
use super::super::reply::{Link, links};
use super::super::row::{Miss, Row, Verdict, demand, fail, not_applicable, rows};

const JSON: &str = "application/json";

/// The events of the draft.
const EVENTS: [&str; 6] = ["active", "inactive", "layers", "reconnect", "viewercount", "scte35"];

/// An event that describes how things are comes within this time.
const SOON: Duration = Duration::from_secs(5);

pub(super) const ROWS: &[Row] = rows! {
    "EXT-01" May "WHEP core extensions" "Server-sent events are advertised with the names of the events, or without any" advertised;
    "EXT-02" May "WHEP core extensions" "POST makes an event stream of the events that are asked for, and none of unknown ones" made;
    "EXT-03" May "WHEP core extensions, HTML §9.2" "GET is a text/event-stream whose messages have a name and one line of JSON" streamed;
    "EXT-05" May "WHEP core extensions" "DELETE ends an event stream, which is 404 then, and so does the end of the session" ended;
    "EXT-06" May "WHEP core extensions" "A viewer of a stream with a publisher is told that it is active" active;
    "EXT-11" May "WHEP core extensions" "Who advertises the choice of a layer advertises the event layers, too" paired;
    "EXT-12" May "WHEP core extensions" "A limit for the layer is taken and taken back, and an unknown rid or m-line is refused" chosen;
    "EXT-13" May "practice" "An event stream can be read without a token, and its URL cannot be guessed" capability;
};

/// A viewer's session and what its answer advertises by this name.
async fn extension(case: &Case<'_>, name: &str) -> Result<(Session, Link, Url), Miss> {
    let session = case.open_plain(Role::Viewer).await?;
    for field in session.reply.all("link") {
        let read = links(field).ok_or_else(|| Miss::Fail(format!("Link {field:?} does not parse")))?;
        let rel = format!("urn:ietf:params:whep:ext:core:{name}");
        if let Some(link) = read.into_iter().find(|link| link.parameter("rel") == Some(&rel)) {
            let url = session.url.join(&link.target).map_err(|error| Miss::Fail(error.to_string()))?;
            return Ok((session, link, url));
        }
    }
    not_applicable("it is not advertised")
}

async fn events(case: &Case<'_>) -> Result<(Session, Link, Url), Miss> {
    extension(case, "server-sent-events").await
}

async fn advertised(case: &Case<'_>) -> Verdict {
    let (session, link, url) = events(case).await?;
    case.end(&session).await?;
    let names = link.parameter("events").unwrap_or_default();
    let unknown: Vec<&str> = names.split(',').map(str::trim).filter(|name| !EVENTS.contains(name)).collect();
    demand(names.is_empty() || unknown.is_empty(), || format!("{unknown:?} are none of the draft's events"))?;
    Ok(format!("{} with events {names:?}", url.path()))
}

/// Makes an event stream of these events.
async fn make(case: &Case<'_>, url: &Url, names: &str) -> Result<Url, Miss> {
    let reply = case.send("POST", url, &[("content-type", JSON)], names).await?;
    demand(reply.code() == 201, || format!("{names} was {}", reply.code()))?;
    reply.location().ok_or_else(|| Miss::Fail("the 201 has no usable Location".into()))
}

async fn made(case: &Case<'_>) -> Verdict {
    let (session, _, url) = events(case).await?;
    let of_one = make(case, &url, "[\"active\"]").await?;
    let of_all = case.send("POST", &url, &[], "").await?;
    demand(of_all.code() == 201, || format!("a POST without body was {}", of_all.code()))?;
    demand(of_all.location().is_some_and(|all| all != of_one), || "two event streams have one URL".into())?;
    for (body, of, status) in [
        ("[\"active\",\"no-such-event\"]", JSON, 400),
        ("{\"active\":true}", JSON, 400),
        ("[\"active\"", JSON, 400),
        ("[\"active\"]", "text/plain", 415),
    ] {
        let reply = case.send("POST", &url, &[("content-type", of)], body).await?;
        demand(reply.code() == status, || format!("{body} of type {of} was {}", reply.code()))?;
        demand(reply.location().is_none(), || format!("{body} made an event stream"))?;
    }
    case.end(&session).await?;
    Ok("201 each with a URL of its own; 400 and 415 make none".into())
}

/// The first message of an event stream: its name and its data. Comments are passed over.
async fn first_event(case: &Case<'_>, url: &Url, with_token: bool) -> Result<(String, Value), Miss> {
    let request = case.probe.http.get(url.clone());
    let request = if with_token { case.authorized(request) } else { request };
    let failed = |error: reqwest::Error| Miss::Fail(format!("GET {}: {error}", url.path()));
    let read = async {
        let mut response = request.send().await.map_err(failed)?;
        let status = response.status();
        demand(status == 200, || format!("GET was {status}"))?;
        let media_type = response.headers().get("content-type").and_then(|value| value.to_str().ok());
        let media_type = media_type.unwrap_or_default().to_owned();
        case.note(format!("GET {} → {status} {media_type}", url.path()));
        demand(media_type.starts_with("text/event-stream"), || format!("GET is of type {media_type:?}"))?;
        let mut text = String::new();
        while let Some(part) = response.chunk().await.map_err(failed)? {
            text += &String::from_utf8_lossy(&part);
            while let Some((message, rest)) = text.split_once("\n\n") {
                if let Some(event) = event(message)? {
                    return Ok(event);
                }
                text = rest.to_owned();
            }
        }
        fail("the event stream ended")
    };
    tokio::time::timeout(SOON, read).await.unwrap_or_else(|_| fail(format!("no event in {SOON:?}")))
}

/// A message, unless it is a comment alone.
fn event(message: &str) -> Result<Option<(String, Value)>, Miss> {
    let lines: Vec<&str> = message.lines().filter(|line| !line.is_empty() && !line.starts_with(':')).collect();
    if lines.is_empty() {
        return Ok(None);
    }
    let of = |field: &str| -> Vec<&str> {
        let values = lines.iter().filter_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        values.map(|value| value.strip_prefix(' ').unwrap_or(value)).collect()
    };
    let ([name], [data]) = (&of("event")[..], &of("data")[..]) else {
        return fail(format!("{message:?} has not one name and one line of data"));
    };
    let data = serde_json::from_str(data).map_err(|error| Miss::Fail(format!("{data:?} is no JSON: {error}")))?;
    Ok(Some(((*name).to_owned(), data)))
}

async fn streamed(case: &Case<'_>) -> Verdict {
    let (session, _, url) = events(case).await?;
    let of_all = case.send("POST", &url, &[], "").await?;
    let of_all = of_all.location().ok_or_else(|| Miss::Fail("there is no Location".into()))?;
    let (name, data) = first_event(case, &of_all, true).await?;
    case.end(&session).await?;
    demand(EVENTS.contains(&name.as_str()), || format!("{name:?} is none of the draft's events"))?;
    Ok(format!("{name} {data}"))
}

async fn active(case: &Case<'_>) -> Verdict {
    let (session, link, url) = events(case).await?;
    if link.parameter("events").is_some_and(|names| !names.split(',').any(|name| name.trim() == "active")) {
        return not_applicable("the event is not advertised");
    }
    let stream = make(case, &url, "[\"active\",\"inactive\"]").await?;
    let (name, data) = first_event(case, &stream, true).await?;
    case.end(&session).await?;
    demand(name == "active" && data.is_object(), || format!("the first event is {name} {data}"))?;
    Ok(format!("active {data}"))
}

async fn ended(case: &Case<'_>) -> Verdict {
    let (session, _, url) = events(case).await?;
    let (one, two) = (make(case, &url, "[\"active\"]").await?, make(case, &url, "[\"active\"]").await?);
    let reply = case.send("DELETE", &one, &[], "").await?;
    demand(reply.status.is_success(), || format!("DELETE was {}", reply.code()))?;
    case.end(&session).await?;
    for (url, of) in [(one, "the one that was deleted"), (two, "one whose session is over")] {
        let reply = case.send("GET", &url, &[], "").await?;
        demand(reply.code() == 404, || format!("{of} is {}", reply.code()))?;
    }
    Ok("404 after DELETE, and after the session".into())
}

async fn paired(case: &Case<'_>) -> Verdict {
    let (session, _, url) = extension(case, "layer").await?;
    case.end(&session).await?;
    let field = session.reply.all("link").join(",");
    let read = links(&field).unwrap_or_default();
    let events = read.iter().find(|link| link.parameter("rel").is_some_and(|rel| rel.ends_with(":server-sent-events")));
    let names = events.map(|link| link.parameter("events").unwrap_or("layers"));
    let has_layers = names.is_some_and(|names| names.split(',').any(|name| name.trim() == "layers"));
    demand(has_layers, || format!("{} without the event layers", url.path()))?;
    Ok("both".into())
}

async fn chosen(case: &Case<'_>) -> Verdict {
    let (session, _, url) = extension(case, "layer").await?;
    let video = session.answer.sections.iter().position(|section| section.medium() == "video").unwrap_or_default();
    for (body, status) in [
        (format!("{{\"mediaId\":\"{video}\",\"maxHeight\":360}}"), 200),
        (format!("{{\"mediaId\":\"{video}\"}}"), 200),
        ("{\"mediaId\":\"99\"}".to_owned(), 422),
        ("{\"rid\":\"no-such-rid\"}".to_owned(), 422),
        ("{\"maxHeight\":\"high\"}".to_owned(), 400),
        ("{".to_owned(), 400),
    ] {
        let reply = case.send("POST", &url, &[("content-type", JSON)], &body).await?;
        demand(reply.code() == status, || format!("{body} was {}", reply.code()))?;
    }
    case.end(&session).await?;
    Ok("200, 422 and 400".into())
}

async fn capability(case: &Case<'_>) -> Verdict {
    let (session, _, url) = events(case).await?;
    let stream = make(case, &url, "[\"active\"]").await?;
    let secret = stream.path_segments().and_then(Iterator::last).unwrap_or_default();
    demand(secret.len() >= 21, || format!("{secret:?} has less than 122 bits"))?;
    let (name, _) = first_event(case, &stream, false).await?;
    case.end(&session).await?;
    Ok(format!("{name} without a token"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_one_name_and_one_line_of_json() {
        let read = |message| event(message).ok().flatten().map(|(name, data)| format!("{name} {data}"));
        assert_eq!(read("event: active\ndata: {}").as_deref(), Some("active {}"));
        assert_eq!(
            read(": beat\nid:7\ndata:{\"viewercount\":3}\nevent:viewercount").as_deref(),
            Some("viewercount {\"viewercount\":3}")
        );
        assert_eq!(event(":").ok(), Some(None));
        for wrong in ["data: {}", "event: active", "event: a\ndata: {\ndata: }", "event: a\ndata: {a:1}"] {
            assert!(event(wrong).is_err(), "{wrong}");
        }
    }
}
