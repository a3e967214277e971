//! Pages of other origins, and tokens.

use super::super::case::{Case, FRAGMENT, SDP};
use super::super::probe::Role;
use super::super::reply::Reply;
use super::super::row::{Miss, Row, Verdict, demand, not_applicable, rows};

const ORIGIN: &str = "https://app.example";

pub(super) const ROWS: &[Row] = rows! {
    "CORS-01" Must "RFC 9725 §4.2" "OPTIONS on an endpoint is 2xx" options;
    "CORS-02" Should "RFC 9725 §4.2" "OPTIONS names the types that are taken: Accept-Post on endpoints, Accept-Patch on sessions" accepted_types;
    "CORS-03" Should "Fetch standard" "A preflight allows POST, of a session DELETE, and Content-Type and Authorization by name" preflight;
    "CORS-04" Should "Fetch standard" "A page can read Location and ETag of the 201" exposed;
    "CORS-05" Must "Fetch standard" "Credentials are never allowed together with the origin *" credentials;
    "CORS-06" Must "RFC 9725 §4.7.1" "A preflight needs no token" preflight_without_token;
    "ERR-05" Should "Fetch standard" "A page can read the errors, too" readable_errors;
    "AUTH-01" Must "RFC 9725 §4.7, RFC 6750 §3" "Without a token, and with a wrong one, the reply is 401 with a challenge; Bearer may be written in any case" tokens;
    "AUTH-03" Should "RFC 9725 §5" "A wrong token does not end a session" wrong_token;
};

async fn ask_before(case: &Case<'_>, url: &reqwest::Url, method: &str) -> Result<Reply, Miss> {
    let headers = [
        ("origin", ORIGIN),
        ("access-control-request-method", method),
        ("access-control-request-headers", "authorization,content-type"),
    ];
    case.send_as(false, "OPTIONS", url, &headers, "").await
}

async fn options(case: &Case<'_>) -> Verdict {
    for role in case.roles() {
        let url = case.endpoint(role).await?;
        let plain = case.send_as(false, "OPTIONS", &url, &[], "").await?;
        let preflight = ask_before(case, &url, "POST").await?;
        for reply in [plain, preflight] {
            demand(reply.status.is_success(), || format!("OPTIONS {} was {}", url.path(), reply.code()))?;
        }
    }
    Ok("2xx".into())
}

async fn accepted_types(case: &Case<'_>) -> Verdict {
    for role in case.roles() {
        let session = case.open_plain(role).await?;
        let url = case.endpoint(role).await?;
        let endpoint = case.send_as(false, "OPTIONS", &url, &[], "").await?;
        let resource = case.send_as(false, "OPTIONS", &session.url, &[], "").await?;
        case.end(&session).await?;
        demand(endpoint.lists("accept-post", SDP), || "OPTIONS of the endpoint has no Accept-Post".into())?;
        if resource.lists("allow", "PATCH") || session.reply.header("accept-patch").is_some() {
            demand(resource.lists("accept-patch", FRAGMENT), || "OPTIONS of the session has no Accept-Patch".into())?;
        }
    }
    Ok("named".into())
}

async fn preflight(case: &Case<'_>) -> Verdict {
    for role in case.roles() {
        let url = case.endpoint(role).await?;
        let reply = ask_before(case, &url, "POST").await?;
        let Some(origin) = reply.header("access-control-allow-origin") else {
            return not_applicable(format!("{ORIGIN} is not allowed"));
        };
        demand(origin == "*" || origin == ORIGIN, || format!("Access-Control-Allow-Origin is {origin}"))?;
        demand(reply.lists("access-control-allow-methods", "POST"), || "POST is not allowed".into())?;
        for header in ["content-type", "authorization"] {
            demand(reply.lists("access-control-allow-headers", header), || format!("{header} is not allowed by name"))?;
        }
        let session = case.open_plain(role).await?;
        let reply = ask_before(case, &session.url, "DELETE").await?;
        case.end(&session).await?;
        demand(reply.lists("access-control-allow-methods", "DELETE"), || "DELETE of a session is not allowed".into())?;
    }
    Ok("allowed by name".into())
}

async fn exposed(case: &Case<'_>) -> Verdict {
    for role in case.roles() {
        let url = case.endpoint(role).await?;
        let offered = case.offer(role)?;
        let reply = case.send("POST", &url, &[("content-type", SDP), ("origin", ORIGIN)], &offered.sdp).await?;
        if let Some(session) = reply.location() {
            case.send("DELETE", &session, &[], "").await?;
        }
        if reply.header("access-control-allow-origin").is_none() {
            return not_applicable(format!("{ORIGIN} is not allowed"));
        }
        for header in ["location", "etag"] {
            let shown = reply.header(header).is_none() || reply.lists("access-control-expose-headers", header);
            demand(shown, || format!("{header} is not exposed"))?;
        }
    }
    Ok("exposed".into())
}

async fn credentials(case: &Case<'_>) -> Verdict {
    for (_, url) in case.endpoints()? {
        let reply = ask_before(case, &url, "POST").await?;
        let star = reply.header("access-control-allow-origin") == Some("*");
        let allowed = reply.header("access-control-allow-credentials") == Some("true");
        demand(!(star && allowed), || "both are allowed".into())?;
    }
    Ok("never both".into())
}

async fn preflight_without_token(case: &Case<'_>) -> Verdict {
    if case.probe.options.token.is_none() {
        return not_applicable("no --token is given");
    }
    for (_, url) in case.endpoints()? {
        let reply = ask_before(case, &url, "POST").await?;
        demand(reply.status.is_success(), || format!("the preflight was {}", reply.code()))?;
    }
    Ok("2xx without a token".into())
}

async fn readable_errors(case: &Case<'_>) -> Verdict {
    let role = *case.roles().first().unwrap_or(&Role::Publisher);
    let url = case.endpoint(role).await?;
    if ask_before(case, &url, "POST").await?.header("access-control-allow-origin").is_none() {
        return not_applicable(format!("{ORIGIN} is not allowed"));
    }
    let reply = case.send("POST", &url, &[("content-type", "text/plain"), ("origin", ORIGIN)], "hello").await?;
    let readable = reply.header("access-control-allow-origin").is_some();
    demand(readable, || format!("the {} has no Access-Control-Allow-Origin", reply.code()))?;
    Ok(format!("the {} is readable", reply.code()))
}

async fn tokens(case: &Case<'_>) -> Verdict {
    let Some(token) = case.probe.options.token.clone() else {
        return not_applicable("no --token is given");
    };
    let mut guarded = false;
    for role in case.roles() {
        let (url, offered) = (case.endpoint(role).await?, case.offer(role)?);
        let post = async |headers: &[(&str, &str)]| {
            let mut all = vec![("content-type", SDP)];
            all.extend(headers);
            case.send_as(false, "POST", &url, &all, &offered.sdp).await
        };
        let without = post(&[]).await?;
        if without.code() == 201 {
            // Watching may be free.
            continue;
        }
        guarded = true;
        let wrong = post(&[("authorization", "Bearer no-such-token-here")]).await?;
        for (what, reply) in [("without a token", &without), ("with a wrong one", &wrong)] {
            demand(reply.code() == 401, || format!("{what} the reply was {}", reply.code()))?;
            let challenge = reply.header("www-authenticate").is_some();
            demand(challenge, || format!("the 401 {what} has no WWW-Authenticate"))?;
        }
        let odd = post(&[("authorization", &format!("bEARER {token}"))]).await?;
        demand(odd.code() == 201, || format!("bEARER in odd case was answered with {}", odd.code()))?;
        if let Some(session) = odd.location() {
            case.send("DELETE", &session, &[], "").await?;
        }
    }
    if !guarded {
        return not_applicable("the endpoints ask nobody for a token");
    }
    Ok("401 with a challenge".into())
}

async fn wrong_token(case: &Case<'_>) -> Verdict {
    let Some(role) = case.probe.options.token.as_ref().and(case.roles().first().copied()) else {
        return not_applicable("no --token is given");
    };
    let session = case.open_plain(role).await?;
    let wrong = [("authorization", "Bearer no-such-token-here")];
    let reply = case.send_as(false, "DELETE", &session.url, &wrong, "").await?;
    demand(reply.is_client_error(), || format!("DELETE with a wrong token was {}", reply.code()))?;
    let reply = case.end(&session).await?;
    demand(reply.status.is_success(), || format!("then the right DELETE was {}", reply.code()))?;
    Ok("refused, and the session stays".into())
}
