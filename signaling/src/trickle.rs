//! PATCH on a session: trickled candidates (RFC 9725 §4.3). ICE restart is not served: its fragments get 422.

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, IF_MATCH};
use http::{HeaderMap, StatusCode};
use media_core::{IceCredentials, SessionId};

use crate::client_address::ClientAddress;
use crate::extract::SessionUrl;
use crate::limits::MAX_FRAGMENT;
use crate::problem::{Problem, Slug};
use crate::request::{IfMatch, SDPFRAG, read_body};
use crate::sdp::negotiate::{IgnoredCandidates, own_candidate};
use crate::sdpfrag::Fragment;
use crate::service::Signaling;
use crate::state::RouterState;

/// What a fragment's credentials say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Generation {
    /// The current ones, or none.
    Current,
    /// Both new.
    Restart,
    /// One of them new.
    Half,
}

/// Answers a PATCH: 204 if its candidates were taken or rightly ignored.
pub(crate) async fn patch(
    State(state): State<RouterState>,
    session: SessionUrl,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let id = session.live()?;
    session.authorize(&state, &parts).await?;
    state.signaling.take_request(ClientAddress::of(&parts.extensions), id)?;
    SDPFRAG.demand(&parts.headers)?;
    let body = read_body(&parts.headers, body, MAX_FRAGMENT).await?;

    let signaling = &state.signaling;
    let (if_match, remote) = precondition(signaling, id, &parts.headers)?;
    if body.is_empty() {
        return Err(Problem::new(Slug::EmptyBody, "a trickle fragment is needed"));
    }
    let fragment = Fragment::parse(&body).map_err(|error| Problem::new(Slug::SdpfragSyntax, error.to_string()))?;
    match generation(&fragment, &remote) {
        Generation::Restart => {
            return Err(Problem::new(Slug::RestartUnsupported, "new ICE credentials: open a new session instead"));
        }
        Generation::Half => {
            return Err(Problem::new(Slug::SdpfragSyntax, "ice-ufrag and ice-pwd must change together"));
        }
        // Leniency reaches only to fragments that prove to know the session (TRK-07).
        Generation::Current if if_match == IfMatch::Missing && fragment.ufrag.is_none() => {
            return Err(if_match_required());
        }
        Generation::Current => {}
    }
    let ignored = take_candidates(signaling, id, &fragment, &remote.ufrag)?;
    signaling.observer.candidates_ignored(state.role, ignored.unusable, ignored.surplus);
    Ok((StatusCode::NO_CONTENT, [(CACHE_CONTROL, "no-store")]).into_response())
}

/// Compares If-Match with the ETag of the session, and returns the client's credentials.
fn precondition(
    signaling: &Signaling,
    id: SessionId,
    headers: &HeaderMap,
) -> Result<(IfMatch, IceCredentials), Problem> {
    let judged = signaling.registry.with_live(id, |session| {
        let if_match = IfMatch::judge(headers.get_all(IF_MATCH).iter(), &session.new.etag);
        (if_match, session.new.remote.clone())
    });
    let (if_match, remote) = judged.ok_or_else(Problem::session_over)?;
    match if_match {
        IfMatch::Any | IfMatch::Matches => Ok((if_match, remote)),
        IfMatch::Missing if signaling.config().lenient_if_match => Ok((if_match, remote)),
        IfMatch::Missing => Err(if_match_required()),
        IfMatch::Fails => Err(Problem::new(Slug::PreconditionFailed, "If-Match is not the ETag of this ICE session")),
        IfMatch::Malformed => Err(Problem::new(Slug::BadRequest, "If-Match does not parse")),
    }
}

fn if_match_required() -> Problem {
    Problem::new(Slug::PreconditionRequired, "send If-Match with the ETag of the 201")
}

/// Hands the usable candidates of the session's own sections on, as many as it may still send; the rest is counted (F-08).
fn take_candidates(
    signaling: &Signaling,
    id: SessionId,
    fragment: &Fragment,
    ufrag: &str,
) -> Result<IgnoredCandidates, Problem> {
    let taken = signaling.registry.with_live(id, |session| {
        let of_session = fragment.candidates.iter().filter(|(part, _)| part.belongs_to(&session.new.mids));
        let mut candidates: Vec<_> = of_session.filter_map(|(_, line)| own_candidate(line, ufrag)).collect();
        let usable = candidates.len();
        candidates.truncate(session.new.candidate_room);
        session.new.candidate_room -= candidates.len();
        let ignored = IgnoredCandidates {
            unusable: fragment.unusable + fragment.candidates.len() - usable,
            surplus: usable - candidates.len(),
        };
        (session.new.shard, candidates, ignored)
    });
    let (shard, candidates, ignored) = taken.ok_or_else(Problem::session_over)?;
    if !candidates.is_empty() {
        signaling.media_plane.add_remote_candidates(shard, id, candidates);
    }
    Ok(ignored)
}

fn generation(fragment: &Fragment, current: &IceCredentials) -> Generation {
    let changed = |sent: &Option<String>, current: &String| sent.as_ref().is_some_and(|sent| sent != current);
    match (changed(&fragment.ufrag, &current.ufrag), changed(&fragment.pwd, &current.pwd)) {
        (false, false) => Generation::Current,
        (true, true) => Generation::Restart,
        _ => Generation::Half,
    }
}
