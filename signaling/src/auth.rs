//! Bearer tokens (RFC 6750): who may publish a stream and who may watch it.
//!
//! Without any token everybody may do everything. With tokens, publishing a stream needs a token of that stream or one of
//! `*`; watching needs it too if `protect_viewers` is on, and nothing otherwise.

use openssl::memcmp;
use openssl::sha::sha256;

/// The tokens of a configuration. They are kept as SHA-256 digests only.
#[derive(Clone, Default)]
pub struct Tokens {
    entries: Vec<Entry>,
}

#[derive(Clone)]
struct Entry {
    /// `None` stands for `*`.
    stream: Option<String>,
    digest: [u8; 32],
}

/// Why a token was not taken into the configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The name is neither `*` nor a stream name.
    #[error("`{0}` is no stream name: 1 to 128 of A-Z a-z 0-9 . _ ~ - :, or * for every stream")]
    BadStream(String),
    /// Empty, or with characters that an Authorization header cannot carry.
    #[error("the token of `{0}` is empty or holds characters other than A-Z a-z 0-9 - . _ ~ + / =")]
    BadToken(String),
}

/// Whose session it is: equal for requests that showed the same token, and for all requests where none was needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// No token was needed.
    Anyone,
    /// The holder of this entry.
    Token(usize),
}

/// What the tokens say to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Go on.
    Granted(Identity),
    /// No token was shown: 401.
    Missing,
    /// A token that nobody knows, or no Bearer scheme: 401 `invalid_token`.
    Invalid,
    /// A good token, of another stream: 403 `insufficient_scope`.
    OtherStream,
}

impl Tokens {
    /// Adds a token for a stream, or for every stream by the name `*`. A stream may have several.
    pub fn add(&mut self, stream: &str, token: &str) -> Result<(), TokenError> {
        if stream != "*" && !is_stream_name(stream) {
            return Err(TokenError::BadStream(stream.to_owned()));
        }
        let token_char = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
        if token.is_empty() || !token.bytes().all(token_char) {
            return Err(TokenError::BadToken(stream.to_owned()));
        }
        let stream = (stream != "*").then(|| stream.to_owned());
        self.entries.push(Entry { stream, digest: sha256(token.as_bytes()) });
        Ok(())
    }

    /// True if a token names this very stream.
    pub fn names(&self, stream: &str) -> bool {
        self.entries.iter().any(|entry| entry.stream.as_deref() == Some(stream))
    }

    /// Judges the value of an Authorization header for a stream. Every entry is compared, in constant time each, so that
    /// the time tells nothing about the tokens (AUTH-04).
    pub fn check(&self, stream: &str, authorization: Option<&[u8]>) -> Access {
        if self.entries.is_empty() {
            return Access::Granted(Identity::Anyone);
        }
        let Some(value) = authorization else { return Access::Missing };
        let Some(token) = bearer(value) else { return Access::Invalid };
        let digest = sha256(token);
        let mut access = Access::Invalid;
        for (index, entry) in self.entries.iter().enumerate() {
            if !memcmp::eq(&entry.digest, &digest) {
                continue;
            }
            let covers = entry.stream.as_deref().is_none_or(|name| name == stream);
            match access {
                Access::Granted(_) => {}
                _ if covers => access = Access::Granted(Identity::Token(index)),
                _ => access = Access::OtherStream,
            }
        }
        access
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Digests stay out of logs too: a weak token could be guessed from one.
        f.debug_struct("Tokens").field("count", &self.entries.len()).finish()
    }
}

/// The token of `Bearer <token>`; the scheme's case does not matter (RFC 9110 §11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let value = value.trim_ascii();
    let (scheme, token) = value.split_at_checked(7)?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty()).then_some(token)
}

/// A stream name: 1 to 128 characters that stand in a URL path as they are (RFC 3986 unreserved, and `:`).
pub(crate) fn is_stream_name(name: &str) -> bool {
    // `.` and `..` would be eaten by URL normalisation on the way.
    (1..=128).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._~-:".contains(&byte))
        && name != "."
        && name != ".."
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> Tokens {
        let mut tokens = Tokens::default();
        tokens.add("a", "alpha").unwrap();
        tokens.add("b", "beta").unwrap();
        tokens.add("*", "master").unwrap();
        tokens
    }

    // AUTH-01
    #[test]
    fn a_token_opens_its_own_stream_only() {
        let tokens = tokens();
        assert_eq!(tokens.check("a", Some(b"Bearer alpha")), Access::Granted(Identity::Token(0)));
        assert_eq!(tokens.check("a", Some(b"bEARER   alpha ")), Access::Granted(Identity::Token(0)));
        assert_eq!(tokens.check("b", Some(b"Bearer alpha")), Access::OtherStream);
        assert_eq!(tokens.check("b", Some(b"Bearer master")), Access::Granted(Identity::Token(2)));
        assert_eq!(tokens.check("a", Some(b"Bearer alph")), Access::Invalid);
        assert_eq!(tokens.check("a", Some(b"Basic alpha")), Access::Invalid);
        assert_eq!(tokens.check("a", Some(b"Bearer ")), Access::Invalid);
        assert_eq!(tokens.check("a", None), Access::Missing);
    }

    #[test]
    fn without_tokens_everybody_may() {
        assert_eq!(Tokens::default().check("a", None), Access::Granted(Identity::Anyone));
    }

    // AUTH-04
    #[test]
    fn one_token_may_serve_two_streams() {
        let mut tokens = tokens();
        tokens.add("b", "alpha").unwrap();
        assert_eq!(tokens.check("b", Some(b"Bearer alpha")), Access::Granted(Identity::Token(3)));
        assert_eq!(tokens.check("a", Some(b"Bearer alpha")), Access::Granted(Identity::Token(0)));
    }

    #[test]
    fn names_and_tokens_are_checked_when_configured() {
        let mut tokens = Tokens::default();
        assert!(matches!(tokens.add("a b", "x"), Err(TokenError::BadStream(_))));
        assert!(matches!(tokens.add("..", "x"), Err(TokenError::BadStream(_))));
        assert!(matches!(tokens.add("a", ""), Err(TokenError::BadToken(_))));
        assert!(matches!(tokens.add("a", "x y"), Err(TokenError::BadToken(_))));
        assert!(!is_stream_name(&"x".repeat(129)));
    }

    // OPS-10
    #[test]
    fn debug_output_holds_no_token() {
        assert_eq!(format!("{:?}", tokens()), "Tokens { count: 3 }");
    }
}
