//! PATCH on a session: trickled candidates and ICE restarts (RFC 9725 §4.3).

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_MATCH};
use http::{HeaderValue, StatusCode};
use media_core::negotiation::{MAX_REMOTE_CANDIDATES, random_credentials};
use media_core::{IceCredentials, IceRestart, RemoteCandidate};

use crate::clock;
use crate::config::SignalingConfig;
use crate::extract::SessionUrl;
use crate::ice_generations::{Generation, Meaning, Precondition};
use crate::limits::MAX_FRAGMENT;
use crate::problem::{Problem, Slug};
use crate::random;
use crate::rates::TooFast;
use crate::registry::SessionRecord;
use crate::request::{SDPFRAG, read_body};
use crate::sdp::answer;
use crate::sdp::negotiate::{IgnoredCandidates, ice_credentials, own_candidate};
use crate::sdpfrag::Fragment;
use crate::service::Signaling;
use crate::session_resource;
use crate::state::RouterState;

/// What a PATCH came to.
enum Outcome {
    /// Its candidates were taken or rightly ignored.
    Trickled,
    /// Its restart is under way, perhaps since an earlier request.
    Restarted { etag: HeaderValue, fragment: String },
}

/// Why it came to nothing.
enum Fault {
    Problem(Problem),
    TooFast(TooFast),
}

/// Answers a PATCH: 204 for candidates, 200 with the server's new credentials for a restart.
pub(crate) async fn patch(
    State(state): State<RouterState>,
    session: SessionUrl,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let config = state.signaling.config();
    if !config.takes_fragments() {
        return Err(Problem::method_not_allowed(session_resource::methods(&config)));
    }
    let id = session.live()?;
    session.admit(&state, &parts).await?;
    SDPFRAG.demand(&parts.headers)?;
    let body = read_body(&parts.headers, body, MAX_FRAGMENT).await?;

    let signaling = &state.signaling;
    let forgives = config.lenient_if_match;
    let fields: Vec<&HeaderValue> = parts.headers.get_all(IF_MATCH).iter().collect();
    let precondition = |session: &SessionRecord| session.new.ice.precondition(&fields, forgives);
    let judged = signaling.registry.with_live(id, |session| precondition(session));
    let judged = judged.ok_or_else(Problem::session_over)??;
    let fragment = read_fragment(&body, judged)?;
    // Another PATCH may have come first: all that counts is judged and done in one step (TRK-14).
    let done = signaling.registry.with_live(id, |session| {
        let judged = precondition(session)?;
        apply(signaling, &config, session, judged, &fragment)
    });
    let (outcome, ignored) = done.ok_or_else(Problem::session_over)?.map_err(|fault| match fault {
        Fault::Problem(problem) => problem,
        Fault::TooFast(refusal) => signaling.refuse(refusal.limit, refusal),
    })?;
    signaling.observer.candidates_ignored(state.role, ignored.unusable, ignored.surplus);
    let no_store = (CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(match outcome {
        Outcome::Trickled => (StatusCode::NO_CONTENT, [no_store]).into_response(),
        Outcome::Restarted { etag, fragment } => {
            let headers = [no_store, (CONTENT_TYPE, HeaderValue::from_static(SDPFRAG.name)), (ETAG, etag)];
            (StatusCode::OK, headers, fragment).into_response()
        }
    })
}

fn read_fragment(body: &[u8], precondition: Precondition) -> Result<Fragment, Problem> {
    let read = match body {
        [] => Err(Problem::new(Slug::EmptyBody, "a trickle fragment is needed")),
        body => Fragment::parse(body).map_err(|error| Problem::new(Slug::SdpfragSyntax, error.to_string())),
    };
    match read {
        // A former tag is good for one thing only, and this is not it.
        Err(_) if precondition == Precondition::Former => {
            Err(Problem::new(Slug::PreconditionFailed, "If-Match is not the ETag of this ICE session"))
        }
        read => read,
    }
}

/// Does what the fragment asks for.
fn apply(
    signaling: &Signaling,
    config: &SignalingConfig,
    session: &mut SessionRecord,
    precondition: Precondition,
    fragment: &Fragment,
) -> Result<(Outcome, IgnoredCandidates), Fault> {
    match session.new.ice.meaning(precondition, fragment)? {
        Meaning::Restart(_) if !config.ice_restart => {
            let detail = "this server restarts no ICE session: open a new session";
            Err(Problem::new(Slug::RestartUnsupported, detail).into())
        }
        Meaning::Trickle if !config.trickle => {
            let detail = "this server takes the candidates of the offer alone, and those that checks come from";
            Err(Problem::new(Slug::TrickleUnsupported, detail).into())
        }
        Meaning::Restart(remote) => restart(signaling, session, remote, fragment),
        Meaning::Repeated(generation) => {
            let outcome = restarted(signaling, session, generation)?;
            let ignored = trickle(signaling, session, fragment);
            Ok((outcome, ignored))
        }
        Meaning::Trickle => Ok((Outcome::Trickled, trickle(signaling, session, fragment))),
    }
}

/// The answer to the restart that began a generation.
fn restarted(signaling: &Signaling, session: &SessionRecord, generation: &Generation) -> Result<Outcome, Problem> {
    let etag = HeaderValue::from_str(&generation.etag);
    let etag = etag.map_err(|_| Problem::new(Slug::Internal, "a header value is not ASCII"))?;
    let candidates = signaling.media_plane.local_candidates(session.new.shard);
    Ok(Outcome::Restarted { etag, fragment: answer::fragment(&session.new.ice.head, &generation.local, &candidates) })
}

/// Begins a generation. The one before it goes on to serve until the media core has a nominated pair.
fn restart(
    signaling: &Signaling,
    session: &mut SessionRecord,
    remote: IceCredentials,
    fragment: &Fragment,
) -> Result<(Outcome, IgnoredCandidates), Fault> {
    let remote = ice_credentials("the fragment", Some(&remote.ufrag), Some(&remote.pwd)).map_err(Problem::from)?;
    if !session.new.ice.has_room() {
        let detail = "the ICE restarts before this one are still under way";
        return Err(Problem::retry_later(Slug::Overloaded, detail).into());
    }
    session.take_restart(clock::now()).map_err(Fault::TooFast)?;
    let (shard, id) = (session.new.shard, session.new.id);
    let local = random_credentials();
    let etag = format!("\"{}\"", random::hex::<8>().map_err(Problem::from)?);
    let next = Generation { etag, local: local.clone(), remote: remote.clone() };
    let outcome = restarted(signaling, session, &next)?;
    let (remote_candidates, ignored) = own_candidates(session, fragment, &remote.ufrag, MAX_REMOTE_CANDIDATES);
    session.new.ice.begin(next, remote_candidates.len());
    signaling.media_plane.restart_ice(shard, id, IceRestart { local, remote, remote_candidates });
    Ok((outcome, ignored))
}

/// Hands the usable candidates of the session's own sections on, as many as it may still send.
fn trickle(signaling: &Signaling, session: &mut SessionRecord, fragment: &Fragment) -> IgnoredCandidates {
    let (ufrag, room) = (session.new.ice.current().remote.ufrag.clone(), session.new.ice.candidate_room);
    let (candidates, ignored) = own_candidates(session, fragment, &ufrag, room);
    session.new.ice.candidate_room -= candidates.len();
    if !candidates.is_empty() {
        signaling.media_plane.add_remote_candidates(session.new.shard, session.new.id, candidates);
    }
    ignored
}

/// The first `room` usable candidates of a generation; the rest is counted (F-08).
fn own_candidates(
    session: &SessionRecord,
    fragment: &Fragment,
    ufrag: &str,
    room: usize,
) -> (Vec<RemoteCandidate>, IgnoredCandidates) {
    let of_session = fragment.candidates.iter().filter(|(part, _)| part.belongs_to(&session.new.mids));
    let mut candidates: Vec<_> = of_session.filter_map(|(_, line)| own_candidate(line, ufrag)).collect();
    let usable = candidates.len();
    candidates.truncate(room);
    let ignored = IgnoredCandidates {
        unusable: fragment.unusable + fragment.candidates.len() - usable,
        surplus: usable - candidates.len(),
    };
    (candidates, ignored)
}

impl From<Problem> for Fault {
    fn from(problem: Problem) -> Fault {
        Fault::Problem(problem)
    }
}
