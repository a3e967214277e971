//! From an agreement to a running session: the part that WHIP and WHEP share.

use std::time::Instant;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, LOCATION};
use http::{HeaderName, HeaderValue, StatusCode};
use media_core::ice::random_credentials;
use media_core::ledger::Reason;
use media_core::media::Role;
use media_core::session::{IceParameters, SessionId, SessionSpec};

use crate::auth::Identity;
use crate::problem::{Problem, Slug};
use crate::random;
use crate::registry::NewSession;
use crate::routes::{self, SDP, SDPFRAG};
use crate::sdp::answer::{self, Local};
use crate::sdp::negotiate::Agreement;
use crate::sdp::offer::Offer;
use crate::service::Signaling;

/// Candidates of a client over its whole life, in the offer and trickled (SDP-06).
const MAX_CANDIDATES: usize = 100;

/// A client that may join.
pub(crate) struct Join<'a> {
    pub(crate) role: Role,
    pub(crate) stream: &'a str,
    pub(crate) identity: Identity,
    pub(crate) received: Instant,
    pub(crate) offer: Offer,
    pub(crate) agreement: Agreement,
}

/// Reads the offer of a POST.
pub(crate) async fn read_offer(signaling: &Signaling, request: Request) -> Result<Offer, Problem> {
    let (parts, body) = request.into_parts();
    if !routes::has_media_type(&parts.headers, SDP) {
        let problem = Problem::new(Slug::UnsupportedMediaType, format!("send {SDP}"));
        return Err(problem.with(HeaderName::from_static("accept-post"), HeaderValue::from_static(SDP)));
    }
    let config = &signaling.config;
    let body = routes::read_body(&parts.headers, body, config.max_offer, config.body_timeout).await?;
    if body.is_empty() {
        return Err(Problem::new(Slug::EmptyBody, "an SDP offer is needed"));
    }
    Ok(Offer::parse(&body)?)
}

/// Enters the session, hands it to the core and writes the 201.
pub(crate) fn open(signaling: &Signaling, join: Join<'_>) -> Result<Response, Problem> {
    let Join { role, stream, identity, received, offer, agreement } = join;
    let Signaling { config, core, registry, .. } = signaling;
    let counts = registry.counts();
    if registry.is_draining() || counts.publishers + counts.viewers >= config.max_sessions {
        let detail = if registry.is_draining() { "the server is about to stop" } else { "no room for another session" };
        return Err(Problem::new(Slug::Overloaded, detail).retry_after(config.retry_after.as_secs()));
    }

    let id = SessionId(random::number()?);
    let secret = random::hex::<16>()?;
    let etag = format!("\"{}\"", random::hex::<8>()?);
    let cname = random::hex::<8>()?;
    let stream_id = registry.stream_id(received, stream);
    let shard = core.shard_for(stream_id, role);
    let ice = random_credentials();
    let text = answer::write(
        &agreement,
        &Local {
            session_id: random::number()? >> 1,
            ice: &ice,
            ice_mode: config.ice_mode,
            candidates: &core.local_candidates(shard),
            fingerprint: &core.fingerprint(),
            rtcp_mux_only: config.answer_rtcp_mux_only,
            stream_id: &id.to_string(),
            cname: &cname,
        },
    );
    let location = location(config.public_base_url.as_deref(), role, stream, &secret)?;
    let etag_value = header(&etag)?;

    let sections: Vec<_> = agreement.live().map(|live| live.media.clone()).collect();
    let detail = detail(&offer, &agreement);
    let new = NewSession {
        id,
        secret,
        stream: stream.to_owned(),
        stream_id,
        role,
        identity,
        shard,
        etag,
        remote: agreement.remote.clone(),
        mids: offer.sections.iter().map(|section| section.mid.clone().unwrap_or_default()).collect(),
        candidate_room: MAX_CANDIDATES.saturating_sub(agreement.remote_candidates.len()),
        sections: sections.clone(),
        created: received,
        detail,
    };
    let replaced = registry
        .open(Instant::now(), new)
        .map_err(|_| Problem::new(Slug::PublishConflict, "another publisher holds the stream; it must end first"))?;
    if let Some((shard, session)) = replaced {
        core.close(shard, session, Reason::Replaced);
    }
    core.open(
        shard,
        SessionSpec {
            id,
            stream: stream_id,
            role,
            ice: IceParameters {
                mode: config.ice_mode,
                local: ice,
                remote: agreement.remote,
                remote_is_lite: agreement.remote_is_lite,
                remote_candidates: agreement.remote_candidates,
            },
            dtls: agreement.dtls,
            sections,
            cname,
        },
    );
    tracing::debug!(session = %id, stream, role = role.as_str(), shard, "session opened");

    let mut response = Response::new(Body::from(text));
    *response.status_mut() = StatusCode::CREATED;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(SDP));
    headers.insert(LOCATION, location);
    headers.insert(ETAG, etag_value);
    headers.insert(routes::ACCEPT_PATCH, HeaderValue::from_static(SDPFRAG));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Absolute where the public base is known, else an absolute path: clients resolve anything shorter wrongly (WHIP-03).
fn location(base: Option<&str>, role: Role, stream: &str, secret: &str) -> Result<HeaderValue, Problem> {
    let side = match role {
        Role::Publisher => "whip",
        Role::Viewer => "whep",
    };
    header(&format!("{}/{side}/{stream}/{secret}", base.unwrap_or_default().trim_end_matches('/')))
}

fn header(value: &str) -> Result<HeaderValue, Problem> {
    HeaderValue::from_str(value).map_err(|_| Problem::new(Slug::Internal, "a header value is not ASCII"))
}

/// The facts of the first stage, for the ledger.
fn detail(offer: &Offer, agreement: &Agreement) -> String {
    let mut parts = Vec::new();
    for live in agreement.live() {
        let mut codecs: Vec<&str> = live.media.formats.iter().map(|format| format.codec.encoding_name()).collect();
        codecs.dedup();
        parts.push(format!("{} {}", live.media.kind.as_str(), codecs.join("/")));
    }
    let candidates = agreement.remote_candidates.len();
    let more = if offer.trickle { ", more may come" } else { "" };
    parts.push(format!("{candidates} usable client candidates{more}"));
    let layers: usize = offer.sections.iter().map(|section| section.rids.len()).sum();
    if layers > 0 {
        parts.push(format!("simulcast of {layers} layers answered without"));
    }
    parts.join("; ")
}
