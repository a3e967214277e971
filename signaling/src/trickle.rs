//! PATCH on a session: trickled candidates (RFC 9725 §4.3). ICE restart is not served: its fragments get 422.

use axum::extract::Request;
use axum::response::Response;
use http::header::{CACHE_CONTROL, IF_MATCH};
use http::{HeaderValue, StatusCode};
use media_core::session::{IceCredentials, SessionId};

use crate::problem::{Problem, Slug};
use crate::routes::{self, SDPFRAG, Verdict};
use crate::sdp::negotiate::own_candidate;
use crate::sdpfrag::Fragment;
use crate::service::Signaling;

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
pub(crate) async fn patch(signaling: &Signaling, id: SessionId, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    if !routes::has_media_type(&parts.headers, SDPFRAG) {
        let problem = Problem::new(Slug::UnsupportedMediaType, format!("send {SDPFRAG}"));
        return Err(problem.with(routes::ACCEPT_PATCH, HeaderValue::from_static(SDPFRAG)));
    }
    let config = &signaling.config;
    let body = routes::read_body(&parts.headers, body, config.max_fragment, config.body_timeout).await?;

    let gone = || Problem::new(Slug::NotFound, "the session is over");
    let (verdict, remote) = signaling
        .registry
        .with_live(id, |session| {
            let verdict = routes::judge_if_match(parts.headers.get_all(IF_MATCH).iter(), &session.new.etag);
            (verdict, session.new.remote.clone())
        })
        .ok_or_else(gone)?;
    match verdict {
        Verdict::Any | Verdict::Matches => {}
        Verdict::Missing if config.lenient_if_match => {}
        Verdict::Missing => {
            return Err(Problem::new(Slug::PreconditionRequired, "send If-Match with the ETag of the 201"));
        }
        Verdict::Fails => {
            return Err(Problem::new(Slug::PreconditionFailed, "If-Match is not the ETag of this ICE session"));
        }
        Verdict::Malformed => return Err(Problem::new(Slug::BadRequest, "If-Match does not parse")),
    }
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
        Generation::Current if verdict == Verdict::Missing && fragment.ufrag.is_none() => {
            return Err(Problem::new(Slug::PreconditionRequired, "send If-Match with the ETag of the 201"));
        }
        Generation::Current => {}
    }
    let (shard, candidates) = signaling
        .registry
        .with_live(id, |session| {
            let of_session = fragment.candidates.iter().filter(|(part, _)| part.belongs_to(&session.new.mids));
            let mut candidates: Vec<_> =
                of_session.filter_map(|(_, line)| own_candidate(line, &remote.ufrag)).collect();
            candidates.truncate(session.new.candidate_room);
            session.new.candidate_room -= candidates.len();
            (session.new.shard, candidates)
        })
        .ok_or_else(gone)?;
    if !candidates.is_empty() {
        signaling.core.add_remote_candidates(shard, id, candidates);
    }
    let mut response = routes::empty(StatusCode::NO_CONTENT);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn generation(fragment: &Fragment, current: &IceCredentials) -> Generation {
    let changed = |sent: &Option<String>, current: &String| sent.as_ref().is_some_and(|sent| sent != current);
    match (changed(&fragment.ufrag, &current.ufrag), changed(&fragment.pwd, &current.pwd)) {
        (false, false) => Generation::Current,
        (true, true) => Generation::Restart,
        _ => Generation::Half,
    }
}
