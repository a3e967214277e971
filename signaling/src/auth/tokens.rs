//! Static tokens: lines of the configuration, each with what its token is good for.

use std::fmt;
use std::str::FromStr;

use super::grant::{Action, Basis, Denial, Grant, GrantLimits, Identity, TokenDigest};
use super::pattern::{BadPattern, StreamPattern};

/// One token and what it is good for. Text: `[NAME@][publish:|watch:]STREAM=TOKEN`, where the token may stand as
/// `sha256:HEX`. Its text and debug forms hide it.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessToken {
    /// The holder's name.
    name: Option<String>,
    /// What it allows; `None` for both.
    action: Option<Action>,
    streams: StreamPattern,
    digest: TokenDigest,
}

/// Why a token was not taken into the configuration. No text of it holds the token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// No `=`.
    #[error("no = between stream and token")]
    NoToken,
    /// Nothing before the `=`.
    #[error("no stream before the =")]
    NoStream,
    /// The name is no stream name and no pattern.
    #[error(transparent)]
    BadStream(#[from] BadPattern),
    /// A holder's name with other characters.
    #[error("a holder's name before the @ has 1 to 64 letters, digits and ._- only")]
    BadName,
    /// Empty, or with characters that an Authorization header cannot carry.
    #[error("the token of `{0}` is empty or holds characters other than A-Z a-z 0-9 - . _ ~ + /, and = at its end")]
    BadToken(String),
    /// No SHA-256 in hexadecimal digits.
    #[error("what follows `sha256:` in the line of `{0}` is not 64 hexadecimal digits")]
    BadDigest(String),
}

impl AccessToken {
    /// The token's streams.
    pub fn streams(&self) -> &StreamPattern {
        &self.streams
    }

    /// It allows to watch and nothing else.
    pub fn only_watches(&self) -> bool {
        self.action == Some(Action::Watch)
    }

    fn allows(&self, stream: &str, action: Action) -> bool {
        self.streams.covers(stream) && self.action.is_none_or(|allowed| allowed == action)
    }
}

impl FromStr for AccessToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<AccessToken, TokenError> {
        let (left, token) = text.split_once('=').ok_or(TokenError::NoToken)?;
        let (left, token) = (left.trim(), token.trim());
        let (name, right) = match left.split_once('@') {
            Some((name, right)) => (Some(holder(name)?), right.trim()),
            None => (None, left),
        };
        let (action, streams) = if let Some(streams) = right.strip_prefix("publish:") {
            (Some(Action::Publish), streams)
        } else if let Some(streams) = right.strip_prefix("watch:") {
            (Some(Action::Watch), streams)
        } else {
            (None, right)
        };
        if streams.is_empty() {
            return Err(TokenError::NoStream);
        }
        let digest = match token.strip_prefix("sha256:") {
            Some(digits) => digest(digits).ok_or_else(|| TokenError::BadDigest(streams.to_owned()))?,
            None if is_token(token) => TokenDigest::of(token.as_bytes()),
            None => return Err(TokenError::BadToken(streams.to_owned())),
        };
        Ok(AccessToken { name, action, streams: streams.parse()?, digest })
    }
}

impl fmt::Display for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.name {
            write!(f, "{name}@")?;
        }
        if let Some(action) = self.action {
            write!(f, "{}:", action.as_str())?;
        }
        write!(f, "{}=<redacted>", self.streams)
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn holder(name: &str) -> Result<String, TokenError> {
    let name = name.trim();
    let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    match name.len() {
        1..=64 if is_plain => Ok(name.to_owned()),
        _ => Err(TokenError::BadName),
    }
}

/// RFC 6750 §2.1 `b64token`.
pub(crate) fn is_token(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    !body.is_empty() && body.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte))
}

fn digest(digits: &str) -> Option<TokenDigest> {
    let mut bytes = [0; 32];
    if digits.len() != 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(TokenDigest(bytes))
}

/// The line of a token file that holds a token as its SHA-256. Its right is `[NAME@][publish:|watch:]STREAM`.
///
/// # Errors
///
/// A right or a token that the file could not hold.
pub fn hashed_line(right: &str, token: &str) -> Result<String, TokenError> {
    let line: AccessToken = format!("{right}={token}").parse()?;
    if !is_token(token) {
        return Err(TokenError::BadToken(line.streams.to_string()));
    }
    let digits: String = line.digest.0.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{right}=sha256:{digits}"))
}

/// The tokens of a configuration.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Tokens {
    entries: Vec<AccessToken>,
}

impl Tokens {
    /// Adds a token for the streams of a pattern, to publish and to watch. A stream may have several.
    ///
    /// # Errors
    ///
    /// A pattern or a token that is none.
    pub fn add(&mut self, streams: &str, token: &str) -> Result<(), TokenError> {
        let streams: StreamPattern = streams.parse()?;
        if !is_token(token) {
            return Err(TokenError::BadToken(streams.to_string()));
        }
        self.push(AccessToken { name: None, action: None, streams, digest: TokenDigest::of(token.as_bytes()) });
        Ok(())
    }

    /// Adds a token.
    pub fn push(&mut self, token: AccessToken) {
        self.entries.push(token);
    }

    /// There is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// True if a token names this very stream.
    pub fn names(&self, stream: &str) -> bool {
        self.entries.iter().any(|entry| matches!(&entry.streams, StreamPattern::Exact(name) if name == stream))
    }

    /// Judges a token; `None` if it is not known. Every entry is compared, in constant time each, so that the time tells
    /// nothing about the tokens (AUTH-04).
    pub(crate) fn judge(&self, stream: &str, action: Action, shown: &TokenDigest) -> Option<Result<Grant, Denial>> {
        let mut judged = None;
        for entry in &self.entries {
            if entry.digest != *shown {
                continue;
            }
            if entry.allows(stream, action) && !matches!(judged, Some(Ok(_))) {
                judged = Some(Ok(Grant {
                    identity: Identity::of("token", entry.name.as_deref(), shown),
                    basis: Basis::Token(*shown),
                    credential: Some(*shown),
                    expires: None,
                    limits: GrantLimits::default(),
                    redirect: None,
                }));
            } else if judged.is_none() {
                judged = Some(Err(Denial::OutOfScope("the token does not cover this stream")));
            }
        }
        judged
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("count", &self.entries.len()).finish()
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

    /// `None` if the token is not known, else whether it was granted.
    fn allowed(tokens: &Tokens, stream: &str, action: Action, token: &str) -> Option<bool> {
        tokens.judge(stream, action, &TokenDigest::of(token.as_bytes())).map(|judged| judged.is_ok())
    }

    fn holder(tokens: &Tokens, stream: &str, token: &str) -> Identity {
        let digest = TokenDigest::of(token.as_bytes());
        tokens.judge(stream, Action::Publish, &digest).unwrap().unwrap().identity
    }

    // AUTH-01
    #[test]
    fn a_token_opens_its_own_stream_only() {
        let tokens = tokens();
        for action in [Action::Publish, Action::Watch] {
            assert_eq!(allowed(&tokens, "a", action, "alpha"), Some(true));
            assert_eq!(allowed(&tokens, "b", action, "alpha"), Some(false));
            assert_eq!(allowed(&tokens, "b", action, "master"), Some(true));
            assert_eq!(allowed(&tokens, "a", action, "alph"), None);
        }
    }

    // AUTH-01
    #[test]
    fn rights_to_publish_and_to_watch_are_apart() {
        let mut tokens = Tokens::default();
        for line in ["publish:show=pub", "watch:show=view", "watch:live/*=many", "show=both"] {
            tokens.push(line.parse().unwrap());
        }
        for (token, publish, watch) in [("pub", true, false), ("view", false, true), ("both", true, true)] {
            assert_eq!(allowed(&tokens, "show", Action::Publish, token), Some(publish), "{token}");
            assert_eq!(allowed(&tokens, "show", Action::Watch, token), Some(watch), "{token}");
        }
        assert_eq!(allowed(&tokens, "live/x", Action::Watch, "many"), Some(true));
        assert_eq!(allowed(&tokens, "live/x", Action::Publish, "many"), Some(false));
        assert_eq!(allowed(&tokens, "show", Action::Watch, "many"), Some(false));
    }

    // AUTH-04
    #[test]
    fn one_token_may_serve_two_streams() {
        let mut tokens = tokens();
        tokens.add("b", "alpha").unwrap();
        assert_eq!(allowed(&tokens, "b", Action::Publish, "alpha"), Some(true));
        assert_eq!(allowed(&tokens, "a", Action::Publish, "alpha"), Some(true));
        assert_eq!(holder(&tokens, "a", "alpha"), holder(&tokens, "b", "alpha"), "one holder");
    }

    // AUTH-03: a token is changed without its holder losing a session
    #[test]
    fn tokens_of_one_name_have_one_holder() {
        let mut tokens = Tokens::default();
        for line in ["studio@show=old", "studio@publish:show=new", "guest@show=guest", "show=nameless"] {
            tokens.push(line.parse().unwrap());
        }
        assert_eq!(holder(&tokens, "show", "old"), holder(&tokens, "show", "new"));
        assert_eq!(holder(&tokens, "show", "old").name(), Some("token:studio"));
        assert_ne!(holder(&tokens, "show", "old"), holder(&tokens, "show", "guest"));
        assert_ne!(holder(&tokens, "show", "old"), holder(&tokens, "show", "nameless"));
    }

    // AUTH-04
    #[test]
    fn a_token_may_stand_in_the_file_as_its_digest() {
        let line = hashed_line("studio@publish:live/*", "s3cret-s3cret").unwrap();
        assert!(line.starts_with("studio@publish:live/*=sha256:") && !line.contains("s3cret"), "{line}");
        let mut tokens = Tokens::default();
        tokens.push(line.parse().unwrap());
        assert_eq!(allowed(&tokens, "live/cam", Action::Publish, "s3cret-s3cret"), Some(true));
        let digits = line.split_once("sha256:").unwrap().1;
        assert_eq!(allowed(&tokens, "live/cam", Action::Publish, digits), None, "the digest is no token");
        assert!(hashed_line("a b", "token").is_err() && hashed_line("a", "to ken").is_err());
        assert!(hashed_line("a", &format!("sha256:{digits}")).is_err(), "hashed already");
    }

    #[test]
    fn lines_are_read_strictly_and_their_errors_hold_no_token() {
        let e = |text: &str| text.parse::<AccessToken>().unwrap_err();
        assert_eq!(e("s3cret"), TokenError::NoToken);
        assert_eq!(e("=s3cret"), TokenError::NoStream);
        assert_eq!(e("publish:=s3cret"), TokenError::NoStream);
        assert_eq!(e("@a=s3cret"), TokenError::BadName);
        assert_eq!(e("a b@a=s3cret"), TokenError::BadName);
        assert!(matches!(e("a b=s3cret"), TokenError::BadStream(_)));
        for text in ["a=", "a===", "a=s3 cret", "a=s3cr\u{e9}t", "a=:s3cret", "a=sha256:s3cret", "a=sha256:"] {
            let error = e(text);
            assert!(matches!(error, TokenError::BadToken(_) | TokenError::BadDigest(_)), "{text}: {error:?}");
            assert!(!error.to_string().contains("cr"), "{text}: {error}");
        }
        let spaced: AccessToken = " me @ watch:a = s3cret== ".parse().unwrap();
        assert_eq!(format!("{spaced} {spaced:?}"), "me@watch:a=<redacted> me@watch:a=<redacted>");
        assert_eq!(spaced, "me@watch:a=s3cret==".parse().unwrap());
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
        assert!(tokens.names("live/cam1") && !tokens.names("live"));
    }

    // OPS-10
    #[test]
    fn debug_output_holds_no_token() {
        assert_eq!(format!("{:?}", tokens()), "Tokens { count: 3 }");
    }
}
