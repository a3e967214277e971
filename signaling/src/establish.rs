//! From an agreement to a running session: the part that WHIP and WHEP share.

use std::time::{Instant, SystemTime};

use axum::extract::Request;
use axum::response::{AppendHeaders, IntoResponse, IntoResponseParts, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, LINK, LOCATION};
use http::{HeaderValue, StatusCode};
use media_core::ledger::Reason;
use media_core::media::{MediaKind, Role};
use media_core::negotiation::random_credentials;
use media_core::{
    Fingerprint, IceCredentials, IceMode, IceParameters, LocalCandidate, SessionId, SessionSpec, ShardIndex, StreamId,
};

use crate::admission::{Entrant, Holder};
use crate::auth::Grant;
use crate::client_address::ClientAddress;
use crate::clock;
use crate::extensions;
use crate::ice_generations::{Generation, IceGenerations};
use crate::limits::MAX_OFFER;
use crate::problem::{Problem, Slug};
use crate::random;
use crate::registry::NewSession;
use crate::request::{SDP, SDPFRAG, read_body};
use crate::sdp::answer::{self, Local};
use crate::sdp::negotiate::{Agreed, Agreement, IgnoredCandidates};
use crate::sdp::offer::Offer;
use crate::service::{Place, Signaling};
use crate::state::{RouterState, header_value};
use crate::takeover::TakeoverRule;

/// A client that may join.
pub(crate) struct Join {
    pub(crate) id: SessionId,
    pub(crate) stream: String,
    pub(crate) grant: Grant,
    pub(crate) address: ClientAddress,
    pub(crate) received: Instant,
    pub(crate) offer: Offer,
    pub(crate) agreement: Agreement,
}

/// What a new session is known by.
#[derive(Clone)]
pub(crate) struct Names {
    pub(crate) id: SessionId,
    /// The unguessable part of its URL.
    pub(crate) secret: String,
    etag: String,
    cname: String,
    stream: StreamId,
    shard: ShardIndex,
    /// The shard's candidates as they are now.
    candidates: Vec<LocalCandidate>,
    certificate: Fingerprint,
    ice: IceCredentials,
    ice_mode: IceMode,
    /// Session id of `o=`.
    sdp_id: u64,
    /// MediaStream id of a viewer's sections.
    stream_label: String,
}

impl Names {
    /// Names for a session of the stream.
    pub(crate) fn new(
        state: &RouterState,
        id: SessionId,
        stream: &str,
        received: Instant,
        ice_mode: IceMode,
    ) -> Result<Names, Problem> {
        let (signaling, role) = (&state.signaling, state.role);
        let stream = signaling.registry.stream_id(received, stream);
        let shard = signaling.media_plane.shard_for(stream, role);
        Ok(Names {
            id,
            secret: random::hex::<16>()?,
            etag: format!("\"{}\"", random::hex::<8>()?),
            cname: random::hex::<8>()?,
            stream,
            shard,
            candidates: signaling.media_plane.local_candidates(shard),
            certificate: signaling.media_plane.fingerprint(),
            ice: random_credentials(),
            ice_mode,
            sdp_id: random::number()? >> 1,
            stream_label: id.to_string(),
        })
    }

    /// The server's side of a description.
    pub(crate) fn local(&self, signaling: &Signaling) -> Local<'_> {
        let config = signaling.config();
        Local {
            session_id: self.sdp_id,
            ice: &self.ice,
            ice_mode: self.ice_mode,
            trickle: config.trickle,
            rtcp_mux_only: config.answer_rtcp_mux_only,
            candidates: &self.candidates,
            fingerprint: &self.certificate,
            stream_id: &self.stream_label,
            cname: &self.cname,
        }
    }

    /// What is said of the session beside its description.
    pub(crate) fn headers(&self, state: &RouterState, stream: &str) -> Result<impl IntoResponseParts + use<>, Problem> {
        let config = state.signaling.config();
        let path = format!("{stream}/{}", self.secret);
        let headers = [
            (LOCATION, state.url(&path)?),
            (ETAG, header_value(&self.etag)?),
            (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        ];
        let mut links = config.ice_servers.links(self.id, SystemTime::now());
        if state.role == Role::Viewer && config.whep_extensions {
            links.extend(extensions::links(state, &path)?);
        }
        Ok((headers, AppendHeaders(links.into_iter().map(|link| (LINK, link)))))
    }
}

/// Reads the offer of a POST.
pub(crate) async fn read_offer(request: Request) -> Result<Offer, Problem> {
    let (parts, body) = request.into_parts();
    SDP.demand(&parts.headers)?;
    let body = read_body(&parts.headers, body, MAX_OFFER).await?;
    if body.is_empty() {
        return Err(Problem::new(Slug::EmptyBody, "an SDP offer is needed"));
    }
    Ok(Offer::parse(&body)?)
}

/// Enters the session, hands it to the media plane and writes the 201.
pub(crate) fn open(state: &RouterState, join: Join) -> Result<Response, Problem> {
    let signaling = &state.signaling;
    let place = take_place(signaling, state.role, &join)?;
    let names = Names::new(state, join.id, &join.stream, join.received, signaling.config().ice_mode)?;
    let text = answer::write(&join.agreement, &names.local(signaling));
    let accept_patch = signaling.config().takes_fragments().then(|| [SDPFRAG.accept()]);
    let headers =
        (names.headers(state, &join.stream)?, [(CONTENT_TYPE, HeaderValue::from_static(SDP.name))], accept_patch);
    enter(state, join, names, None)?;
    place.keep();
    Ok((StatusCode::CREATED, headers, text).into_response())
}

/// The same for a session that the server offered, by the answer with this hash.
pub(crate) fn open_answered(state: &RouterState, join: Join, names: Names, digest: [u8; 32]) -> Result<(), Problem> {
    let place = take_place(&state.signaling, state.role, &join)?;
    enter(state, join, names, Some(digest))?;
    place.keep();
    Ok(())
}

/// Refuses a session that would not last.
pub(crate) fn refuse_while_draining(signaling: &Signaling) -> Result<(), Problem> {
    if signaling.registry.is_draining() {
        return Err(Problem::retry_later(Slug::Overloaded, "the server is about to stop"));
    }
    Ok(())
}

/// Capacity, the last of the checks (ERR-04). A refused request leaves nothing behind, not even its stream's name.
fn take_place<'a>(signaling: &'a Signaling, role: Role, join: &Join) -> Result<Place<'a>, Problem> {
    refuse_while_draining(signaling)?;
    let stream = join.stream.clone();
    let replaces = role == Role::Publisher && signaling.registry.has_publisher(&stream);
    let holder = Holder::of(&join.grant.identity);
    let entrant = Entrant { id: join.id, role, address: join.address.customer(), holder, stream, replaces };
    signaling.admit(entrant, join.grant.limits.max_sessions)
}

/// Writes the session down and opens it on its shard. A session that it replaces is closed.
fn enter(state: &RouterState, join: Join, names: Names, answer_digest: Option<[u8; 32]>) -> Result<(), Problem> {
    let RouterState { signaling, role } = state;
    let (Join { stream, grant, received, offer, agreement, .. }, role) = (join, *role);
    let (max_bitrate, name) = (grant.limits.max_bitrate, stream.clone());
    let sections: Vec<_> = agreement.live().map(|live| live.media.clone()).collect();
    let first = Generation { etag: names.etag, local: names.ice.clone(), remote: agreement.remote.clone() };
    let config = signaling.config();
    let head = answer::fragment_head(&agreement, names.ice_mode, config.trickle);
    let ice = IceGenerations::new(first, head, agreement.remote_candidates.len());
    let new = NewSession {
        id: names.id,
        secret: names.secret,
        stream,
        stream_id: names.stream,
        role,
        grant,
        shard: names.shard,
        ice,
        mids: offer.sections.iter().map(|section| section.mid.clone().unwrap_or_default()).collect(),
        video_line: agreement.sections.iter().position(is_live_video),
        // Of a viewer nobody asks for them.
        sections: if role == Role::Publisher { sections.clone() } else { Vec::new() },
        created: received,
        answer_digest,
        detail: detail(&offer, &agreement, config.trickle),
        warnings: agreement.warnings,
    };
    let replaced = signaling.registry.open(clock::now(), new, &TakeoverRule::of(&signaling.config()))?;
    if let Some((shard, session)) = replaced {
        signaling.media_plane.close(shard, session, Reason::Replaced);
    }
    let ice = IceParameters {
        mode: names.ice_mode,
        local: names.ice,
        remote: agreement.remote,
        remote_is_lite: agreement.remote_is_lite,
        remote_candidates: agreement.remote_candidates,
    };
    let (id, stream, cname, certificate) = (names.id, names.stream, names.cname, names.certificate);
    let (dtls, refused) = (agreement.dtls, agreement.refused);
    let mut limits = if role == Role::Publisher { config.publisher_limits } else { config.viewer_limits };
    if let Some(most) = max_bitrate.filter(|_| role == Role::Publisher) {
        limits.bits_per_second = Some(limits.bits_per_second.map_or(most, |max| max.min(most)));
    }
    let ignored = agreement.ignored_candidates;
    let spec = SessionSpec { id, stream, role, ice, dtls, sections, refused, certificate, cname, limits };
    signaling.media_plane.open(names.shard, spec);
    signaling.observer.candidates_ignored(role, ignored.unusable, ignored.surplus);
    tracing::debug!(session = %id, stream = name, role = role.as_str(), shard = names.shard, "session opened");
    Ok(())
}

fn is_live_video(section: &Agreed) -> bool {
    section.live().is_some_and(|live| !live.inactive && live.media.kind == MediaKind::Video)
}

/// The facts of the first stage, for the ledger. `trickle`: more candidates are taken.
fn detail(offer: &Offer, agreement: &Agreement, trickle: bool) -> String {
    let mut parts = Vec::new();
    for live in agreement.live() {
        let mut codecs: Vec<&str> = live.media.formats.iter().map(|format| format.codec.encoding_name()).collect();
        codecs.dedup();
        parts.push(format!("{} {}", live.media.kind.as_str(), codecs.join("/")));
    }
    parts.push(candidates_detail(agreement, offer.trickle && trickle));
    if offer.surplus > 0 {
        parts.push(format!("{} fingerprints, SSRCs and layers too many, ignored", offer.surplus));
    }
    let offered: usize = offer.sections.iter().map(|section| section.simulcast.len()).sum();
    let received: usize = agreement.live().map(|live| live.media.simulcast.len()).sum();
    match received {
        _ if offered == 0 => {}
        0 => parts.push(format!("simulcast of {offered} layers answered without")),
        _ if received == offered => parts.push(format!("simulcast of {received} layers")),
        _ => parts.push(format!("simulcast of {received} of {offered} layers")),
    }
    parts.join("; ")
}

/// How many candidates the client named, and what became of them (F-08).
fn candidates_detail(agreement: &Agreement, more_may_come: bool) -> String {
    let mut detail = format!("{} usable client candidates", agreement.remote_candidates.len());
    let IgnoredCandidates { unusable, surplus } = agreement.ignored_candidates;
    for (count, what) in [(unusable, "of no use (TCP, names or other components)"), (surplus, "too many")] {
        if count > 0 {
            detail.push_str(&format!(", {count} {what}"));
        }
    }
    if more_may_come {
        detail.push_str(", more may come");
    }
    detail
}
