//! Guessed tokens, for a stream that is not there: a server without tokens says so, too.

use media_core::internals::ice::random_credentials;
use rand::Rng;
use rand::SeedableRng;
use rand::distr::Alphanumeric;
use rand::rngs::StdRng;

use super::peer::{Role, offer};
use super::requests::{Requests, repeated};
use super::{AttackError, Target};

/// No other attack publishes it.
const STREAM: u64 = 999;

pub(super) fn start(target: &Target) -> Result<Requests, AttackError> {
    let url = target.own_watched(STREAM)?;
    let mut random = StdRng::seed_from_u64(0x0074_6f6b_656e);
    let (sdp, _) = offer(&target.identity, &random_credentials(), Role::Viewer)?;
    repeated("tokens", target, move |client| {
        let token: String = (&mut random).sample_iter(Alphanumeric).take(16).map(char::from).collect();
        let request = client.post(&url).header("content-type", "application/sdp").bearer_auth(token);
        Some((request.body(sdp.clone()), sdp.len()))
    })
}
