//! What signalling reports to whoever keeps metrics. Every argument has few possible values, so each may be a label.

use std::time::Duration;

use media_core::ledger::{Reason, Stage, StageState, WarningCode};
use media_core::media::Role;
use strum::{IntoStaticStr, VariantArray};

use crate::auth::{Action, Denial, Grant};

use crate::limits::Limit;

/// Receives what happens, as it happens. Calls come from many threads and must return at once.
pub trait Observer: Send + Sync + 'static {
    /// A session was answered with 201.
    fn session_opened(&self, role: Role) {
        let _ = role;
    }

    /// A stage ended: `state` is `Done`, for the first time, or `Failed` with its reason, which may happen again and again.
    /// `duration` runs from the stage's begin.
    fn stage_ended(&self, role: Role, stage: Stage, state: StageState, reason: Option<Reason>, duration: Duration) {
        let _ = (role, stage, state, reason, duration);
    }

    /// A stage that had failed, or that had been done and did not hold, is done again.
    fn stage_healed(&self, role: Role, stage: Stage) {
        let _ = (role, stage);
    }

    /// A session has less than it could have; each warning of a session comes once, until it is over.
    fn warned(&self, role: Role, code: WarningCode) {
        let _ = (role, code);
    }

    /// A session is over; `duration` runs from its POST.
    fn session_ended(&self, role: Role, reason: Reason, duration: Duration) {
        let _ = (role, reason, duration);
    }

    /// An offer or a fragment named candidates that are not used: `unusable` ones (TCP, names, further components, another
    /// ICE generation), and a `surplus` over as many as a session may name.
    fn candidates_ignored(&self, role: Role, unusable: usize, surplus: usize) {
        let _ = (role, unusable, surplus);
    }

    /// A request was refused by a limit.
    fn refused(&self, limit: Limit) {
        let _ = limit;
    }

    /// A right was judged, where any is needed.
    fn access_judged(&self, action: Action, outcome: AccessOutcome) {
        let _ = (action, outcome);
    }

    /// A source of rights that is asked elsewhere did not answer, or not as it should.
    fn access_source_failed(&self, source: AccessSource) {
        let _ = source;
    }

    /// A request was answered. `method` is one of the standard ones or `other`.
    fn http_response(&self, resource: Resource, method: &'static str, status: u16) {
        let _ = (resource, method, status);
    }
}

/// What became of a request for a right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub enum AccessOutcome {
    /// It was granted.
    Granted,
    /// No token was shown.
    NoToken,
    /// The token is not known.
    UnknownToken,
    /// The token was verified and has expired, or is for another audience.
    Refused,
    /// The token is good for something else, or the webhook said no.
    OutOfScope,
    /// Those who would know could not be asked.
    Unavailable,
    /// Too many unknown tokens came from the address.
    TooManyFailures,
}

impl AccessOutcome {
    pub(crate) fn of(judged: &Result<Grant, Denial>) -> AccessOutcome {
        match judged {
            Ok(_) => AccessOutcome::Granted,
            Err(Denial::Missing) => AccessOutcome::NoToken,
            Err(Denial::Unknown) => AccessOutcome::UnknownToken,
            Err(Denial::Refused(_)) => AccessOutcome::Refused,
            Err(Denial::Unavailable) => AccessOutcome::Unavailable,
            Err(Denial::OutOfScope(_) | Denial::ByWebhook) => AccessOutcome::OutOfScope,
            Err(Denial::TooManyFailures(_)) => AccessOutcome::TooManyFailures,
        }
    }

    /// The metric label.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// A source of rights that is asked elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub enum AccessSource {
    /// The JWKS URL.
    Jwks,
    /// The webhook.
    Webhook,
}

impl AccessSource {
    /// The metric label.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Which kind of resource answered a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Resource {
    /// `/whip/{stream}`
    WhipEndpoint,
    /// `/whip/{stream}/{secret}` and what lies under it.
    WhipSession,
    /// `/whep/{stream}`
    WhepEndpoint,
    /// `/whep/{stream}/{secret}` and what lies under it.
    WhepSession,
    /// None: 404.
    Unknown,
}

impl Resource {
    /// The metric label.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}
