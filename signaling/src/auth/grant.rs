//! What a request asks for, and what it is granted or why not.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroUsize;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use media_core::SessionId;
use media_core::media::Role;
use openssl::memcmp;
use openssl::sha::sha256;
use serde::Serialize;
use strum::{EnumString, IntoStaticStr};

use super::failures::Credential;
use super::jwt::KeyDigest;
use crate::client_address::ClientAddress;

/// What a right allows to do with a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, EnumString, IntoStaticStr)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Action {
    /// Open a publisher's session.
    Publish,
    /// Open a viewer's session.
    Watch,
}

impl Action {
    /// The name in tokens, claims and requests.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

impl From<Role> for Action {
    fn from(role: Role) -> Action {
        match role {
            Role::Publisher => Action::Publish,
            Role::Viewer => Action::Watch,
        }
    }
}

/// A request whose right is to be judged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask<'a> {
    pub(crate) stream: &'a str,
    pub(crate) action: Action,
    /// The value of the Authorization header.
    pub(crate) authorization: Option<&'a [u8]>,
    pub(crate) address: ClientAddress,
    /// The session that the request would open, or that it names.
    pub(crate) session: SessionId,
}

/// SHA-256 of a token: all that is kept of one. Compared in constant time (AUTH-04), and never shown: a weak token could be
/// guessed from it.
#[derive(Clone, Copy)]
pub struct TokenDigest(pub(crate) [u8; 32]);

impl TokenDigest {
    /// Of a token as it was shown.
    pub fn of(token: &[u8]) -> TokenDigest {
        TokenDigest(sha256(token))
    }

    /// A number for names, which tells nothing about the token.
    fn keyed(&self) -> u64 {
        KEY.hash_one(self.0)
    }

    /// What counts as a guess, if it is none. Where nothing was shown, the stream does.
    pub(crate) fn credential(shown: Option<&TokenDigest>, stream: &str) -> Credential {
        let guess = KEY.hash_one((shown.map(|shown| shown.0), stream));
        Credential { token: shown.map_or(guess, TokenDigest::keyed), guess }
    }
}

/// Numbers that are made with it tell nothing about what they are made of: it is this process's own.
static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);

impl PartialEq for TokenDigest {
    fn eq(&self, other: &TokenDigest) -> bool {
        memcmp::eq(&self.0, &other.0)
    }
}

impl Eq for TokenDigest {}

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

/// Whose session it is: equal for requests of one holder, and for all requests where nothing had to be shown.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// Nothing had to be shown.
    Anyone,
    /// The holder by name, such as `token:studio`. The names of two sources never agree.
    Holder(Arc<str>),
}

/// Bytes of the longest name that is shown as it is.
const MAX_HOLDER: usize = 128;

impl Identity {
    /// The holder of a name by a source, or of a token where it has no name. A name that is too long or that a terminal would
    /// not show becomes a number.
    pub(crate) fn of(source: &str, name: Option<&str>, token: &TokenDigest) -> Identity {
        let is_plain = |name: &str| {
            !name.is_empty()
                && name.len() <= MAX_HOLDER
                && !name.starts_with('~')
                && name.bytes().all(|b| b.is_ascii_graphic())
        };
        let holder = match name {
            Some(name) if is_plain(name) => format!("{source}:{name}"),
            Some(name) => format!("{source}:~~{:016x}", TokenDigest::of(name.as_bytes()).keyed()),
            None => format!("{source}:~{:016x}", token.keyed()),
        };
        Identity::Holder(holder.into())
    }

    /// The name, if there is one.
    pub fn name(&self) -> Option<&str> {
        match self {
            Identity::Anyone => None,
            Identity::Holder(name) => Some(name),
        }
    }
}

/// What a session rests on: whether it still stands after a change of the settings is asked of this source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Basis {
    /// Nothing had to be shown.
    Open,
    /// This static token.
    Token(TokenDigest),
    /// A JWT that this key verified.
    Jwt(KeyDigest),
    /// The webhook.
    Webhook,
}

/// How far a right goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct GrantLimits {
    /// What a publisher may send, in bits a second.
    pub(crate) max_bitrate: Option<u64>,
    /// Sessions that the holder may have at a time.
    pub(crate) max_sessions: Option<NonZeroUsize>,
}

/// A right that was granted.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pub(crate) identity: Identity,
    pub(crate) basis: Basis,
    /// The token that was shown.
    pub(crate) credential: Option<TokenDigest>,
    /// When it ends.
    pub(crate) expires: Option<Instant>,
    pub(crate) limits: GrantLimits,
    /// The endpoint that its session is to be opened at, if that is another one.
    pub(crate) redirect: Option<Arc<str>>,
}

impl Grant {
    /// Of those who need to show nothing.
    pub(crate) fn open() -> Grant {
        Grant {
            identity: Identity::Anyone,
            basis: Basis::Open,
            credential: None,
            expires: None,
            limits: GrantLimits::default(),
            redirect: None,
        }
    }
}

/// Why a right was not granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Denial {
    /// No token was shown: 401.
    Missing,
    /// A token that nobody knows, or no Bearer scheme: 401 `invalid_token`.
    Unknown,
    /// A token that was verified and is not good now, or not here: 401 `invalid_token`.
    Refused(&'static str),
    /// The webhook said no: 403 `insufficient_scope`.
    ByWebhook,
    /// Those who would know cannot be asked now: 503.
    Unavailable,
    /// A good token, for something else: 403 `insufficient_scope`.
    OutOfScope(&'static str),
    /// Too many unknown tokens came from this address: 429, until this time has passed.
    TooManyFailures(Duration),
}

impl Denial {
    /// It may have been an attempt to find a token out.
    pub(crate) fn is_guess(&self) -> bool {
        matches!(self, Denial::Missing | Denial::Unknown | Denial::ByWebhook)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // OPS-10
    #[test]
    fn a_holder_has_a_name_and_never_the_token() {
        let (one, two) = (TokenDigest::of(b"s3cret"), TokenDigest::of(b"other"));
        assert_eq!(Identity::of("token", Some("studio"), &one).name(), Some("token:studio"));
        let unnamed = Identity::of("token", None, &one);
        assert_eq!(unnamed, Identity::of("token", None, &one));
        assert_ne!(unnamed, Identity::of("token", None, &two));
        let digest: String = one.0.iter().map(|byte| format!("{byte:02x}")).collect();
        let name = unnamed.name().unwrap();
        assert!(name.starts_with("token:~") && !digest.contains(&name[7..]), "{name}");
        assert_eq!(format!("{one:?}"), "<redacted>");
    }

    #[test]
    fn names_that_cannot_be_shown_become_numbers_and_stay_apart() {
        let token = TokenDigest::of(b"x");
        let long = "x".repeat(129);
        let names = ["", "a b", "a\nb", "\u{202e}", "~0000000000000000", long.as_str()];
        let mut seen: Vec<Identity> = names.iter().map(|name| Identity::of("jwt", Some(name), &token)).collect();
        seen.push(Identity::of("jwt", None, &token));
        for (index, identity) in seen.iter().enumerate() {
            assert!(identity.name().unwrap().starts_with("jwt:~"), "{identity:?}");
            assert!(!seen[..index].contains(identity), "{identity:?}");
        }
    }
}
