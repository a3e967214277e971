//! ICE restarts by PATCH (RFC 9725 §4.3.3).

use std::time::Duration;

use media_core::IceCredentials;
use media_core::internals::ice::random_credentials;

use super::super::case::{Case, FRAGMENT, Session};
use super::super::description::Description;
use super::super::link::{Event, Link, SOON};
use super::super::media::Media;
use super::super::probe::Role;
use super::super::reply::Reply;
use super::super::row::{Miss, Row, Verdict, demand, not_applicable, rows};
use super::super::stun;
use super::trickle::{fragment, patch};

const CANDIDATE: &str = "a=candidate:1 1 udp 2122260223 192.0.2.1 61764 typ host";
/// Media goes on within this after a restart.
const GAP: Duration = Duration::from_secs(5);

pub(super) const ROWS: &[Row] = rows! {
    "WHIP-17" May "RFC 9725 §4.3.3" "ICE restarts are served by PATCH" served;
    "TRK-10" Must "RFC 9725 §4.3.3" "A restart is answered by 200, a fragment with new credentials, and a new ETag" answered;
    "TRK-11" Must "RFC 9725 §4.3.3" "Checks with the new credentials are answered" new_checks;
    "TRK-12" Must "RFC 8445 §9, RFC 8842 §4" "The old path serves until the new one is nominated, and media goes on under the same keys" media_goes_on;
    "TRK-13" Must "RFC 9725 §4.3.3" "A restart that is refused leaves the session as it was" refused_restart;
    "TRK-14" Must "RFC 9725 §4.3.1" "After a restart the old ETag is 412" old_tag;
    "TRK-15" Should "practice" "The same restart again has the same answer" repeated;
};

/// What a restart agreed on.
struct Restarted {
    reply: Reply,
    local: IceCredentials,
    remote: IceCredentials,
}

fn restart_body(local: &IceCredentials) -> String {
    format!("a=ice-ufrag:{}\r\na=ice-pwd:{}\r\n", local.ufrag, local.pwd)
}

/// Restarts a session; a server that does not serve that makes the row not applicable.
async fn restart(case: &Case<'_>, session: &Session, local: &IceCredentials) -> Result<Restarted, Miss> {
    let reply = patch(case, session, Some("*"), &restart_body(local)).await?;
    match reply.code() {
        200 => {}
        405 | 422 | 501 => return not_applicable(format!("restarts are not served: {}", reply.code())),
        code => return Err(Miss::Fail(format!("the restart was {code}"))),
    }
    let answer = Description::read(&reply.body);
    let value = |name: &str| {
        let value = answer.first(name).map(str::to_owned);
        value.ok_or_else(|| Miss::Fail(format!("the fragment has no {name}")))
    };
    let remote = IceCredentials { ufrag: value("ice-ufrag")?, pwd: value("ice-pwd")? };
    Ok(Restarted { reply, local: local.clone(), remote })
}

async fn served(case: &Case<'_>) -> Verdict {
    for role in case.roles() {
        let session = case.open_plain(role).await?;
        restart(case, &session, &random_credentials()).await?;
        case.end(&session).await?;
    }
    Ok("200".into())
}

async fn answered(case: &Case<'_>) -> Verdict {
    for role in case.roles() {
        let session = case.open_plain(role).await?;
        let Restarted { reply, remote, .. } = restart(case, &session, &random_credentials()).await?;
        case.end(&session).await?;
        demand(reply.media_type() == FRAGMENT, || format!("it is of type {:?}", reply.media_type()))?;
        let tag = reply.header("etag");
        demand(tag.is_some() && tag != session.etag.as_deref(), || format!("the ETag is {tag:?}"))?;
        let old = &session.read.ice;
        demand(remote.ufrag != old.ufrag && remote.pwd != old.pwd, || "the credentials are the old ones".into())?;
        demand(Description::read(&reply.body).has("ice-lite") == session.read.ice_lite, || {
            "ice-lite differs from the answer's".into()
        })?;
    }
    Ok("200 with new credentials and a new ETag".into())
}

async fn new_checks(case: &Case<'_>) -> Verdict {
    for role in case.roles() {
        let session = case.open_plain(role).await?;
        let mut link = Link::connect(case, &session).await?;
        let restarted = restart(case, &session, &random_credentials()).await?;
        (link.local, link.remote) = (restarted.local, restarted.remote);
        link.relocate()?;
        link.validate(case).await?;
        case.end(&session).await?;
    }
    Ok("answered, from a new address".into())
}

async fn media_goes_on(case: &Case<'_>) -> Verdict {
    let session = case.open_plain(Role::Publisher).await?;
    let mut link = Link::connect(case, &session).await?;
    let mut media = Media::new(&session)?;
    let reports = |event: Event| matches!(event, Event::Rtcp(_));
    demand(media.run(&mut link, GAP, reports).await, || "no RTCP before the restart".into())?;
    let restarted = restart(case, &session, &random_credentials()).await?;
    let old = link.ask(&link.check_with(&[]), SOON).await;
    let answered = old.is_some_and(|answer| answer.kind == stun::SUCCESS);
    demand(answered, || {
        "a check with the old credentials is answered no more before the new path is nominated".into()
    })?;
    demand(media.run(&mut link, GAP, reports).await, || "no RTCP on the old path after the restart".into())?;
    (link.local, link.remote) = (restarted.local, restarted.remote);
    link.validate(case).await?;
    demand(media.run(&mut link, GAP, reports).await, || "no RTCP on the new path".into())?;
    let closed = link.find(SOON / 10, |event| matches!(event, Event::Closed | Event::Unauthentic).then_some(())).await;
    demand(closed.is_none(), || "the association or the keys did not last".into())?;
    Ok("SRTCP under the same keys before, between and after".into())
}

async fn refused_restart(case: &Case<'_>) -> Verdict {
    for role in case.roles() {
        let session = case.open_plain(role).await?;
        let mut link = Link::connect(case, &session).await?;
        let local = IceCredentials { ufrag: "x".into(), pwd: "tooshort".into() };
        let reply = patch(case, &session, Some("*"), &restart_body(&local)).await?;
        demand(!reply.status.is_success(), || format!("credentials that are too short were {}", reply.code()))?;
        let answer = link.ask(&link.check(), SOON).await;
        demand(answer.is_some_and(|answer| answer.kind == stun::SUCCESS), || "then the old checks fail".into())?;
        case.end(&session).await?;
    }
    Ok("refused, and the session lives".into())
}

async fn old_tag(case: &Case<'_>) -> Verdict {
    for role in case.roles() {
        let session = case.open_plain(role).await?;
        let restarted = restart(case, &session, &random_credentials()).await?;
        let Some(tag) = session.etag.clone() else { return not_applicable("the session has no ETag") };
        let body = fragment(&session, &[CANDIDATE]);
        let reply = patch(case, &session, Some(&tag), &body).await?;
        demand(reply.code() == 412, || format!("the old ETag was {}", reply.code()))?;
        let new = restarted.reply.header("etag").map(str::to_owned);
        let body = format!("{}{CANDIDATE}\r\n", restart_body(&restarted.local));
        let reply = patch(case, &session, new.as_deref(), &body).await?;
        demand(reply.status.is_success(), || format!("the new ETag was {}", reply.code()))?;
        case.end(&session).await?;
    }
    Ok("412".into())
}

async fn repeated(case: &Case<'_>) -> Verdict {
    for role in case.roles() {
        let session = case.open_plain(role).await?;
        let local = random_credentials();
        let (first, second) = (restart(case, &session, &local).await?, restart(case, &session, &local).await?);
        let same = first.remote == second.remote && first.reply.header("etag") == second.reply.header("etag");
        demand(same, || "the answers differ".into())?;
        case.end(&session).await?;
    }
    Ok("the same".into())
}
