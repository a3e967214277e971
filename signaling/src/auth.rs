//! Bearer tokens (RFC 6750): who may publish a stream and who may watch it.
//!
//! Without any token everybody may do everything. With tokens, publishing a stream needs a token of that stream or one of
//! `*`; watching needs it too if `protect_viewers` is on, and nothing otherwise.

use openssl::memcmp;
use openssl::sha::sha256;

use crate::names::NameRule;

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
    #[error(
        "`{0}` is no stream name: 1 to 128 of A-Z a-z 0-9 . _ ~ - :, with single / between its parts, or * for every stream"
    )]
    BadStream(String),
    /// Empty, or with characters that an Authorization header cannot carry.
    #[error("the token of `{0}` is empty or holds characters other than A-Z a-z 0-9 - . _ ~ + / =")]
    BadToken(String),
}

/// Whose session it is: equal for requests that showed the same token, and for all requests where none was needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
    /// Adds a token for a stream, or for every stream by the name `*`. A stream may have several. Names may have `/` here;
    /// whether a request may name such a stream is [`SignalingConfig::slash_names`](crate::SignalingConfig::slash_names).
    pub fn add(&mut self, stream: &str, token: &str) -> Result<(), TokenError> {
        if stream != "*" && !(NameRule { slashes: true }).allows(stream) {
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

/// Why a request shows no token that can be known, as far as its form tells (F-22). What stands there may be the secret
/// itself, so none of it is repeated.
pub(crate) fn misplaced_token(authorization: Option<&[u8]>, query: Option<&str>) -> Option<&'static str> {
    let Some(value) = authorization else {
        let names_token = |pair: &str| matches!(pair.split('=').next(), Some("token" | "access_token" | "jwt" | "key"));
        return query.unwrap_or_default().split('&').any(names_token).then_some(
            "no Authorization header: a token in the URL is not read, as it would end up in logs; \
             send `Authorization: Bearer TOKEN`",
        );
    };
    let value = value.trim_ascii();
    let Some(token) = bearer(value) else {
        let scheme = value.split(u8::is_ascii_whitespace).next().unwrap_or_default();
        return Some(if scheme.eq_ignore_ascii_case(b"basic") || scheme.eq_ignore_ascii_case(b"digest") {
            "user and password are not known here: the scheme must be Bearer, as in `Authorization: Bearer TOKEN`"
        } else if scheme.eq_ignore_ascii_case(b"bearer") {
            "no token follows the scheme: `Authorization: Bearer TOKEN`"
        } else {
            "the scheme `Bearer ` is missing in front of the token: `Authorization: Bearer TOKEN`"
        });
    };
    if token.iter().any(|byte| b"\"'`<>".contains(byte)) {
        Some("the token stands in quotes or brackets: `Authorization: Bearer TOKEN` has none")
    } else if token.iter().any(u8::is_ascii_whitespace) {
        Some("the token has white space inside: `Authorization: Bearer TOKEN` is all of the header")
    } else {
        None
    }
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
        assert!(matches!(tokens.add(&"x".repeat(129), "x"), Err(TokenError::BadStream(_))));
        assert_eq!(tokens.add("live/cam1", "x"), Ok(()));
    }

    // F-22
    #[test]
    fn a_token_in_the_wrong_place_or_form_is_told_so_and_not_repeated() {
        for (authorization, query, what) in [
            (Some("s3cret"), None, "`Bearer ` is missing"),
            (Some("Token s3cret"), None, "`Bearer ` is missing"),
            (Some("Bearer:s3cret"), None, "`Bearer ` is missing"),
            (Some("Basic czNjcmV0"), None, "user and password"),
            (Some("Bearer"), None, "no token follows"),
            (Some("Bearer \"s3cret\""), None, "quotes"),
            (Some("Bearer <s3cret>"), None, "quotes"),
            (Some("Bearer Bearer s3cret"), None, "white space"),
            (None, Some("a=b&access_token=s3cret"), "in the URL"),
            (None, Some("token=s3cret"), "in the URL"),
        ] {
            let told = misplaced_token(authorization.map(str::as_bytes), query).unwrap();
            assert!(told.contains(what) && !told.contains("s3cret"), "{authorization:?} {query:?}: {told}");
        }
        for (authorization, query) in
            [(None, None), (None, Some("tokens=1")), (Some("bearer  s3cret "), Some("token=x"))]
        {
            assert_eq!(misplaced_token(authorization.map(str::as_bytes), query), None);
        }
    }

    // OPS-10
    #[test]
    fn debug_output_holds_no_token() {
        assert_eq!(format!("{:?}", tokens()), "Tokens { count: 3 }");
    }
}
