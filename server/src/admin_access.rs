//! Who may use the admin listener: nobody's web page, and with a token only who has it.
//!
//! Who reaches it may end sessions. A browser on the operator's machine reaches it, too, and sends requests for every page that
//! is open there.

use std::sync::{Arc, PoisonError, RwLock};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, header};
use openssl::memcmp;
use openssl::sha::sha256;
use signaling::{Problem, Site, Slug};

/// Load balancers and process managers ask these, which tell no more than a refused connection would.
const WITHOUT_TOKEN: [&str; 2] = ["/healthz", "/readyz"];

/// The rules of the admin listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdminAccess {
    /// Names under which it is reached, beside IP addresses and localhost.
    hosts: Vec<String>,
    /// SHA-256 of its token.
    token: Option<[u8; 32]>,
}

impl AdminAccess {
    /// Rules with these names, in lower case and without port, and the digest of a token.
    pub fn new(hosts: Vec<String>, token: Option<[u8; 32]>) -> AdminAccess {
        AdminAccess { hosts, token }
    }

    /// Whether a token is needed.
    pub fn wants_token(&self) -> bool {
        self.token.is_some()
    }

    /// Why a request is not served.
    fn refusal(&self, request: &Request) -> Option<Problem> {
        let site = Site::of(request);
        if !site.is_addressed_to(&self.hosts) {
            let detail = "the Host header names a host that this listener does not know: use an IP address or localhost, or add \
                          the name to admin_hosts";
            return Some(Problem::new(Slug::HostNotAllowed, detail));
        }
        if site.is_from_elsewhere() {
            return Some(Problem::new(
                Slug::CrossOrigin,
                "a web page of another origin may neither read nor change anything here",
            ));
        }
        if WITHOUT_TOKEN.contains(&request.uri().path()) {
            return None;
        }
        match (self.token, bearer(request.headers())) {
            (None, _) => None,
            (Some(_), None) => {
                let detail = "this listener takes a token: send `Authorization: Bearer TOKEN` with that of admin_token";
                Some(Problem::new(Slug::Unauthorized, detail).challenge(None))
            }
            // Digests of one length, in constant time.
            (Some(digest), Some(token)) if memcmp::eq(&digest, &sha256(token)) => None,
            (Some(_), Some(_)) => Some(
                Problem::new(Slug::Unauthorized, "the token is not that of admin_token")
                    .challenge(Some("invalid_token")),
            ),
        }
    }
}

/// The rules as they are now.
pub(crate) type Rules = Arc<RwLock<AdminAccess>>;

/// Lets a request through, or refuses it.
pub(crate) async fn guard(State(rules): State<Rules>, request: Request, next: Next) -> Response {
    let refusal = rules.read().unwrap_or_else(PoisonError::into_inner).refusal(&request);
    match refusal {
        Some(problem) => problem.into_response(),
        None => next.run(request).await,
    }
}

/// The token of an `Authorization: Bearer` header (RFC 6750 §2.1).
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes().trim_ascii();
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}
