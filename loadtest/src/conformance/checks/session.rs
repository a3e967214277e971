//! Opening and ending sessions: WHIP and WHEP alike.

use std::time::{Duration, Instant};

use reqwest::Url;

use super::super::case::{Case, SDP};
use super::super::description::Description;
use super::super::link::{Event, Link, QUIET, SOON};
use super::super::probe::Role;
use super::super::reply::{Link as WebLink, links};
use super::super::row::{Miss, Row, Verdict, demand, fail, not_applicable, rows};

/// The random part of a session's URL (RFC 9725 §5), in bits.
const SECRET_BITS: f64 = 122.0;
/// A server may take its time to see that a peer has left.
const SEEN_LEAVING: Duration = Duration::from_secs(5);

pub(super) const ROWS: &[Row] = rows! {
    "WHIP-01" Must "RFC 9725 §4.2" "POST takes application/sdp: another type is 415, a body that is no SDP 400" bodies;
    "WHIP-02" Must "RFC 9725 §4.2" "The reply to an offer is 201 with the answer and a Location" created;
    "WHIP-03" Should "RFC 9110 §10.2.2" "Location is absolute, or a path from the root" absolute_location;
    "WHIP-04" Should "RFC 9725 §5" "A session's URL cannot be guessed" secret_url;
    "WHIP-05" Must "RFC 9725 §4.3.1" "The ETag of the 201 is a strong one of its own for each session" entity_tags;
    "WHIP-06" Should "RFC 5789 §3.1" "The 201 names the fragment's type in Accept-Patch where PATCH is served" accept_patch;
    "WHIP-14" Must "RFC 9725 §4.2" "DELETE ends the session with 2xx, whatever If-Match says; then it is gone" delete;
    "WHIP-15" Should "practice" "DELETE after the session's own end is answered well: clients close first" late_delete;
    "WHIP-19" Must "RFC 9725 §4.5" "A POST is redirected by 307 or 308 alone" redirects;
    "WHIP-22" May "RFC 9725 §4.6" "ICE servers come as Link with rel=ice-server, a stun or turn URI and, for TURN, credentials" ice_servers;
    "WHIP-23" Should "practice" "Each ICE server has a Link field of its own, in the order rel, username, credential, credential-type" link_fields;
    "WHIP-24" Should "RFC 9725 §4.6" "A preflight gets no TURN credentials" preflight_links;
    "WHIP-25" Should "practice" "TURN credentials differ from session to session" fresh_credentials;
    "WHIP-31" Should "practice" "While a connected publisher sends, another one is refused by 409, or takes over" one_publisher;
    "WHIP-32" Should "practice" "A POST that is made again after its reply was lost opens a session that connects" repeated_post;
    "DTLS-41" Should "RFC 5246 §7.2.1, RFC 9725 §4.2" "DELETE makes the server say close_notify, and a client's close_notify ends the session" close_notify;
    "ICE-17" Must "RFC 7675 §5.2" "After DELETE checks are answered no more, and no media is sent" silence_after_end;
    "WHEP-12" Must "WHEP §4.10" "Extensions are advertised by Link with a rel of urn:ietf:params:whep:ext" extensions;
};

async fn bodies(case: &Case<'_>) -> Verdict {
    let mut seen = Vec::new();
    for role in case.roles() {
        let url = case.endpoint(role).await?;
        let offer = case.offer(role)?.sdp;
        let typed = case.send("POST", &url, &[("content-type", "text/plain")], &offer).await?;
        demand(typed.code() == 415, || format!("an offer of type text/plain was {}", typed.code()))?;
        for body in ["this is no SDP\r\n", ""] {
            let reply = case.send("POST", &url, &[("content-type", SDP)], body).await?;
            demand(reply.code() == 400, || format!("a body of {body:?} was {}", reply.code()))?;
        }
        seen.push(role);
    }
    Ok(format!("415 and 400 by {} endpoints", seen.len()))
}

async fn created(case: &Case<'_>) -> Verdict {
    for role in case.roles() {
        let session = case.open_plain(role).await?;
        let is_sdp = session.reply.is_sdp();
        demand(is_sdp, || format!("the 201 is of type {:?}", session.reply.media_type()))?;
        let endpoint = case.endpoint(role).await?;
        demand(session.url != endpoint, || "Location is the endpoint itself".into())?;
        case.end(&session).await?;
    }
    Ok("201, answer, Location".into())
}

async fn absolute_location(case: &Case<'_>) -> Verdict {
    for role in case.roles() {
        let session = case.open_plain(role).await?;
        case.end(&session).await?;
        let location = session.reply.header("location").unwrap_or_default();
        let absolute = location.starts_with('/') || Url::parse(location).is_ok();
        demand(absolute, || format!("Location is {location}"))?;
    }
    Ok("absolute".into())
}

/// Bits of the longest part of a URL that two sessions do not share, if every character were random.
fn random_bits(first: &Url, second: &Url) -> f64 {
    let parts = |url: &Url| url.as_str().split(['/', '?', '&', '=']).map(str::to_owned).collect::<Vec<_>>();
    let (first, second) = (parts(first), parts(second));
    let bits = |part: &String| {
        let hex = part.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        let digits = part.bytes().all(|byte| byte.is_ascii_digit());
        let characters = part.bytes().filter(|byte| *byte != b'-').count() as f64;
        // A UUID has six bits that say only that it is one.
        let fixed = if part.len() == 36 && part.matches('-').count() == 4 { 6.0 } else { 0.0 };
        characters
            * if digits {
                3.3
            } else if hex {
                4.0
            } else {
                5.9
            }
            - fixed
    };
    first.iter().filter(|part| !second.contains(part)).map(bits).fold(0.0, f64::max)
}

async fn secret_url(case: &Case<'_>) -> Verdict {
    let role = *case.roles().first().unwrap_or(&Role::Publisher);
    let mut urls = Vec::new();
    for _ in 0..2 {
        let session = case.open_plain(role).await?;
        case.end(&session).await?;
        urls.push(session.url);
    }
    let bits = random_bits(&urls[0], &urls[1]);
    demand(bits >= SECRET_BITS, || format!("at most {bits:.0} bits differ between {} and {}", urls[0], urls[1]))?;
    Ok(format!("room for {bits:.0} bits"))
}

async fn entity_tags(case: &Case<'_>) -> Verdict {
    let mut known: Vec<String> = Vec::new();
    for role in case.roles().into_iter().cycle().take(2 * case.roles().len()) {
        let session = case.open_plain(role).await?;
        case.end(&session).await?;
        let Some(tag) = session.etag else {
            return not_applicable("no ETag: it is optional where ICE restarts are not served");
        };
        let quoted = tag.len() > 2 && tag.starts_with('"') && tag.ends_with('"');
        demand(quoted, || format!("the ETag {tag} is not strong and quoted"))?;
        demand(!known.contains(&tag), || format!("two sessions have the ETag {tag}"))?;
        known.push(tag);
    }
    Ok(format!("{} tags, all different", known.len()))
}

async fn accept_patch(case: &Case<'_>) -> Verdict {
    for role in case.roles() {
        let session = case.open_plain(role).await?;
        let trickled = super::trickle::plain_trickle(case, &session).await?;
        case.end(&session).await?;
        if !trickled.status.is_success() {
            return not_applicable(format!("PATCH is {}", trickled.code()));
        }
        let named = session.reply.lists("accept-patch", super::super::case::FRAGMENT);
        demand(named, || "the 201 has no Accept-Patch, but PATCH is served".into())?;
    }
    Ok("named".into())
}

/// The status of a session that ended.
async fn gone(case: &Case<'_>, url: &Url, within: Duration) -> Result<u16, Miss> {
    let end = Instant::now() + within;
    loop {
        let reply = case.send("GET", url, &[], "").await?;
        if matches!(reply.code(), 404 | 410) || Instant::now() >= end {
            return Ok(reply.code());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn delete(case: &Case<'_>) -> Verdict {
    for role in case.roles() {
        let session = case.open_plain(role).await?;
        let reply = case.send("DELETE", &session.url, &[("if-match", "\"stale\"")], "").await?;
        demand(reply.status.is_success(), || format!("DELETE with a stale If-Match was {}", reply.code()))?;
        let fragment = "a=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuv\r\n";
        let headers = [("content-type", super::super::case::FRAGMENT), ("if-match", "*")];
        let reply = case.send("PATCH", &session.url, &headers, fragment).await?;
        demand(reply.is_client_error(), || format!("PATCH of the ended session was {}", reply.code()))?;
    }
    Ok("2xx, then gone".into())
}

async fn late_delete(case: &Case<'_>) -> Verdict {
    let role = *case.roles().first().unwrap_or(&Role::Publisher);
    let session = case.open_plain(role).await?;
    let mut link = Link::connect(case, &session).await?;
    link.close().await;
    case.note("close_notify");
    gone(case, &session.url, SEEN_LEAVING).await?;
    let reply = case.end(&session).await?;
    demand(reply.status.is_success(), || format!("DELETE after close_notify was {}", reply.code()))?;
    Ok(format!("{}", reply.code()))
}

async fn redirects(case: &Case<'_>) -> Verdict {
    for role in case.roles() {
        let (_, reply) = case.post(role, |sdp| sdp).await?;
        if let Some(session) = reply.location().filter(|_| reply.code() == 201) {
            case.send("DELETE", &session, &[], "").await?;
        }
        if !reply.status.is_redirection() {
            return not_applicable(format!("the POST is not redirected, but {}", reply.code()));
        }
        demand(matches!(reply.code(), 307 | 308), || format!("the POST was redirected by {}", reply.code()))?;
    }
    Ok("307 or 308".into())
}

/// The fields of ICE servers in the 201.
async fn ice_server_fields(case: &Case<'_>, role: Role) -> Result<Vec<(String, Vec<WebLink>)>, Miss> {
    let session = case.open_plain(role).await?;
    case.end(&session).await?;
    let mut found = Vec::new();
    for field in session.reply.all("link") {
        let read = links(field).ok_or_else(|| Miss::Fail(format!("Link {field:?} does not parse")))?;
        if read.iter().any(|link| link.parameter("rel") == Some("ice-server")) {
            found.push((field.to_owned(), read));
        }
    }
    if found.is_empty() {
        return not_applicable("the 201 names no ICE servers");
    }
    Ok(found)
}

async fn ice_servers(case: &Case<'_>) -> Verdict {
    let mut count = 0;
    for role in case.roles() {
        for (_, read) in ice_server_fields(case, role).await? {
            for link in read.iter().filter(|link| link.parameter("rel") == Some("ice-server")) {
                let scheme = link.target.split(':').next().unwrap_or_default();
                let is_turn = matches!(scheme, "turn" | "turns");
                demand(is_turn || matches!(scheme, "stun" | "stuns"), || format!("{} is no ICE server", link.target))?;
                let credentials = ["username", "credential"].iter().all(|name| link.parameter(name).is_some());
                demand(!is_turn || credentials, || format!("{} has no credentials", link.target))?;
                count += 1;
            }
        }
    }
    Ok(format!("{count} ICE servers"))
}

async fn link_fields(case: &Case<'_>) -> Verdict {
    const ORDER: [&str; 4] = ["rel", "username", "credential", "credential-type"];
    for role in case.roles() {
        for (field, read) in ice_server_fields(case, role).await? {
            demand(read.len() == 1, || format!("several servers in one field: {field}"))?;
            let places: Vec<Option<usize>> =
                read[0].parameters.iter().map(|(name, _)| ORDER.iter().position(|known| known == name)).collect();
            demand(places.is_sorted(), || format!("another order: {field}"))?;
        }
    }
    Ok("one field a server, in order".into())
}

async fn preflight_links(case: &Case<'_>) -> Verdict {
    for (_, url) in case.endpoints()? {
        let headers = [("origin", "https://app.example"), ("access-control-request-method", "POST")];
        let reply = case.send_as(false, "OPTIONS", &url, &headers, "").await?;
        let told = reply.all("link").iter().any(|field| field.contains("credential"));
        demand(!told, || "the preflight has credentials".into())?;
    }
    Ok("none".into())
}

async fn fresh_credentials(case: &Case<'_>) -> Verdict {
    let role = *case.roles().first().unwrap_or(&Role::Publisher);
    let mut seen: Vec<Vec<String>> = Vec::new();
    for _ in 0..2 {
        let fields = ice_server_fields(case, role).await?;
        let all = fields.iter().flat_map(|(_, read)| read).filter_map(|link| link.parameter("credential"));
        seen.push(all.map(str::to_owned).collect());
    }
    if seen[0].is_empty() {
        return not_applicable("no TURN server");
    }
    demand(!seen[0].iter().any(|credential| seen[1].contains(credential)), || "two sessions have the same".into())?;
    Ok("different".into())
}

async fn one_publisher(case: &Case<'_>) -> Verdict {
    let session = case.open_plain(Role::Publisher).await?;
    let mut link = Link::connect(case, &session).await?;
    let mut media = super::super::media::Media::new(&session)?;
    media.run(&mut link, QUIET, |_| false).await;
    let (_, second) = case.post(Role::Publisher, |sdp| sdp).await?;
    match second.code() {
        409 => Ok("409".into()),
        201 => {
            let closed = link.find(SOON, |event| matches!(event, Event::Closed).then_some(())).await;
            demand(closed.is_some(), || "the second publisher got 201, and the first was not closed".into())?;
            Ok("the second takes over, and the first is closed".into())
        }
        code => fail(format!("the second publisher got {code}")),
    }
}

async fn repeated_post(case: &Case<'_>) -> Verdict {
    // The reply to this one is lost, and so is its Location.
    case.post(Role::Publisher, |sdp| sdp).await?;
    let session = case.open_plain(Role::Publisher).await?;
    Link::connect(case, &session).await?;
    Ok("the second session connects".into())
}

async fn close_notify(case: &Case<'_>) -> Verdict {
    for role in case.roles() {
        let session = case.open_plain(role).await?;
        let mut link = Link::connect(case, &session).await?;
        case.end(&session).await?;
        let closed = link.find(SOON, |event| matches!(event, Event::Closed).then_some(())).await;
        demand(closed.is_some(), || "no close_notify after DELETE".into())?;

        let session = case.open_plain(role).await?;
        let mut link = Link::connect(case, &session).await?;
        link.close().await;
        let code = gone(case, &session.url, SEEN_LEAVING).await?;
        demand(matches!(code, 404 | 410), || format!("the session is still {code} after close_notify"))?;
    }
    Ok("both ways".into())
}

async fn silence_after_end(case: &Case<'_>) -> Verdict {
    for role in case.roles() {
        let session = case.open_plain(role).await?;
        let mut link = Link::connect(case, &session).await?;
        let media = |event: &Event| matches!(event, Event::Rtp(_)).then_some(());
        if role == Role::Viewer {
            demand(link.find(SOON, media).await.is_some(), || "a viewer got no media at all".into())?;
        }
        case.end(&session).await?;
        // What was under way may still arrive.
        while link.next(Instant::now() + QUIET / 7).await.is_some_and(|event| !matches!(event, Event::Closed)) {}
        demand(link.find(QUIET, media).await.is_none(), || "media after DELETE".into())?;
        let answer = link.ask(&link.check(), QUIET).await;
        let is_success = answer.is_some_and(|answer| answer.kind == super::super::stun::SUCCESS);
        demand(!is_success, || "a check after DELETE was answered with success".into())?;
    }
    Ok("neither after DELETE".into())
}

async fn extensions(case: &Case<'_>) -> Verdict {
    let session = case.open_plain(Role::Viewer).await?;
    case.end(&session).await?;
    let mut named = Vec::new();
    for field in session.reply.all("link") {
        let read = links(field).ok_or_else(|| Miss::Fail(format!("Link {field:?} does not parse")))?;
        let known = read.iter().filter_map(|link| link.parameter("rel"));
        named.extend(known.filter(|rel| *rel != "ice-server").map(str::to_owned));
    }
    if named.is_empty() {
        return not_applicable("no extension is advertised");
    }
    demand(named.iter().all(|rel| rel.starts_with("urn:ietf:params:whep:ext:")), || format!("{named:?}"))?;
    Ok(named.join(", "))
}

/// The answer's text for those who only look at it; its session is ended.
pub(super) async fn answer(case: &Case<'_>, role: Role) -> Result<(Description, Description, String), Miss> {
    let session = case.open_plain(role).await?;
    case.end(&session).await?;
    let offer = Description::read(&session.offered.sdp);
    Ok((offer, session.answer, session.reply.body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guessable_urls_are_told_from_secret_ones() {
        let url = |path: &str| Url::parse(&format!("http://h/{path}")).unwrap();
        let uuids = ["whip/s/6fa459ea-ee8a-4ca4-894e-db77e160355e", "whip/s/16fd2706-8baf-433b-82eb-8c7fada847da"];
        assert!(random_bits(&url(uuids[0]), &url(uuids[1])) >= SECRET_BITS);
        assert!(random_bits(&url("whip/s/1"), &url("whip/s/2")) < 10.0);
        assert!(random_bits(&url("same/same"), &url("same/same")) < 1.0);
    }
}
