//! Errors of the admin API and of the pages: signalling's problem+json, with the path that it is about.

use axum::response::{IntoResponse, Response};
use signaling::Slug;

/// Where WHIP and WHEP send `Retry-After`, so do these: long enough to matter, short enough to be back soon.
const RETRY_AFTER_SECONDS: u64 = 5;

/// One error reply.
#[derive(Clone, Debug)]
pub struct Problem {
    problem: Box<signaling::Problem>,
    instance: String,
}

impl Problem {
    fn new(problem: signaling::Problem, instance: &str) -> Problem {
        Problem { problem: Box::new(problem), instance: instance.to_owned() }
    }

    /// 400
    pub fn bad_request(instance: &str, detail: impl Into<String>) -> Problem {
        Problem::new(signaling::Problem::new(Slug::BadRequest, detail), instance)
    }

    /// 401; `shown` says that a token came, and was not good for this.
    pub fn unauthorized(instance: &str, detail: impl Into<String>, shown: bool) -> Problem {
        let problem = signaling::Problem::new(Slug::Unauthorized, detail).challenge(shown.then_some("invalid_token"));
        Problem::new(problem, instance)
    }

    /// 404
    pub fn not_found(instance: &str, detail: impl Into<String>) -> Problem {
        Problem::new(signaling::Problem::new(Slug::NotFound, detail), instance)
    }

    /// 405; the router adds `Allow`.
    pub fn method_not_allowed(instance: &str) -> Problem {
        let detail = "the Allow header lists the methods of this resource";
        Problem::new(signaling::Problem::new(Slug::MethodNotAllowed, detail), instance)
    }

    /// 500
    pub fn internal(instance: &str) -> Problem {
        Problem::new(signaling::Problem::new(Slug::Internal, "a bug; the log says more"), instance)
    }

    /// 503
    pub fn unavailable(instance: &str, detail: impl Into<String>) -> Problem {
        let problem = signaling::Problem::new(Slug::Overloaded, detail).retry_after(RETRY_AFTER_SECONDS);
        Problem::new(problem, instance)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.problem.into_response(None, &self.instance)
    }
}
