//! An attack under way.

use super::flood::Flood;
use super::requests::Requests;
use super::{
    Attack, AttackCounts, Target, admin, bodies, candidates, connections, dtls, feedback, half_open, http2,
    keyframe_requests, media_connections, nack, names, noise, peers, publisher_rtp, replay, reports, resources, srtp,
    ssrcs, stun, tokens, viewer_rtp,
};
use crate::client::{ClientError, Resource};

/// Why an attack did not take place.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttackError {
    /// It needs something that was not given.
    #[error("it needs {0}")]
    Needs(&'static str),
    /// An attacker could not do what everybody may.
    #[error("{0}")]
    Client(#[from] ClientError),
}

impl From<std::io::Error> for AttackError {
    fn from(error: std::io::Error) -> AttackError {
        AttackError::Client(ClientError::Socket(error.to_string()))
    }
}

/// An attack under way. Dropping it stops it.
pub(crate) enum Assault {
    /// Datagrams.
    Flood(Flood),
    /// Datagrams of peers, whose sessions are to be ended.
    Peers(Flood, Vec<Resource>),
    /// Connections and requests.
    Requests(Requests),
}

impl Assault {
    /// Begins an attack.
    pub(crate) async fn start(attack: Attack, target: &Target) -> Result<Assault, AttackError> {
        let strangers = |flood: Result<Flood, AttackError>| flood.map(Assault::Flood);
        match attack {
            Attack::Noise => strangers(noise::start(target)),
            Attack::Stun => strangers(stun::start(target)),
            Attack::Replay => strangers(replay::start(target)),
            Attack::Dtls => strangers(dtls::start(target)),
            Attack::Srtp => strangers(srtp::start(target)),
            Attack::Feedback => peers::viewers(attack, target, feedback::Feedback::default()).await,
            Attack::Nack => peers::viewers(attack, target, nack::Nacks::default()).await,
            Attack::KeyframeRequests => {
                peers::viewers(attack, target, keyframe_requests::KeyframeRequests::default()).await
            }
            Attack::Reports => peers::viewers(attack, target, reports::Reports).await,
            Attack::ViewerRtp => peers::viewers(attack, target, viewer_rtp::ViewerRtp::default()).await,
            Attack::PublisherRtp => peers::publishers(attack, target, publisher_rtp::Garbage::default()).await,
            Attack::Rtx => peers::publishers(attack, target, publisher_rtp::Rtx::default()).await,
            Attack::Ssrcs => peers::publishers(attack, target, ssrcs::Ssrcs).await,
            Attack::Candidates => candidates::start(target).map(Assault::Requests),
            Attack::MediaConnections => media_connections::start(target).map(Assault::Requests),
            Attack::SilentConnections => connections::silent(target).map(Assault::Requests),
            Attack::SlowHeads => connections::slow_heads(target).map(Assault::Requests),
            Attack::SlowBodies => connections::slow_bodies(target).map(Assault::Requests),
            Attack::HalfPrefaces => http2::half_prefaces(target).map(Assault::Requests),
            Attack::Pings => http2::pings(target).map(Assault::Requests),
            Attack::HalfOpen => half_open::start(target).map(Assault::Requests),
            Attack::Names => names::start(target).map(Assault::Requests),
            Attack::BigBodies => bodies::start(target).map(Assault::Requests),
            Attack::Resources => resources::start(target).map(Assault::Requests),
            Attack::Tokens => tokens::start(target).map(Assault::Requests),
            Attack::Admin => admin::start(target).map(Assault::Requests),
        }
    }

    /// Ends it, lets its sessions leave in order, and tells what happened.
    pub(crate) async fn stop(self) -> AttackCounts {
        match self {
            Assault::Flood(flood) => joined(move || flood.stop()).await,
            Assault::Peers(flood, sessions) => {
                let counts = joined(move || flood.stop()).await;
                for session in sessions {
                    // A session that the server has ended is gone as well.
                    let _ = session.delete().await;
                }
                counts
            }
            Assault::Requests(requests) => joined(move || requests.stop()).await,
        }
    }
}

/// Waits for a thread without holding up the honest clients.
async fn joined(stop: impl FnOnce() -> AttackCounts + Send + 'static) -> AttackCounts {
    // It fails only if it panicked, and then nothing is known.
    tokio::task::spawn_blocking(stop).await.unwrap_or_default()
}
