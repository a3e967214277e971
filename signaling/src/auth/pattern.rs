//! Which streams a right is for: one, those whose names begin alike, or all.

use std::fmt;
use std::str::FromStr;

use crate::names::NameRule;

/// The streams of a right. Names may have `/` here; whether a request may name such a stream is
/// [`SignalingConfig::slash_names`](crate::SignalingConfig::slash_names).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamPattern {
    /// `*`
    All,
    /// A name.
    Exact(String),
    /// `live/*`, `cam-*`: names that begin like this and go on.
    Prefix(String),
}

/// Neither a stream name, nor one with `*` at its end, nor `*`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no stream name: 1 to 128 of A-Z a-z 0-9 . _ ~ - :, with single / between its parts, * for every stream, or * at \
     the end for all that begin so"
)]
pub struct BadPattern(pub String);

impl StreamPattern {
    /// True if the right is for this stream.
    pub fn covers(&self, stream: &str) -> bool {
        match self {
            StreamPattern::All => true,
            StreamPattern::Exact(name) => name == stream,
            StreamPattern::Prefix(prefix) => stream.len() > prefix.len() && stream.starts_with(prefix),
        }
    }

    /// True if only streams with `/` in their names are meant.
    pub fn has_slash(&self) -> bool {
        matches!(self, StreamPattern::Exact(text) | StreamPattern::Prefix(text) if text.contains('/'))
    }
}

impl FromStr for StreamPattern {
    type Err = BadPattern;

    fn from_str(text: &str) -> Result<StreamPattern, BadPattern> {
        let is_name = |name: &str| NameRule { slashes: true }.allows(name);
        match text.strip_suffix('*') {
            Some("") => Ok(StreamPattern::All),
            Some(prefix) if is_name(prefix.strip_suffix('/').unwrap_or(prefix)) => {
                Ok(StreamPattern::Prefix(prefix.to_owned()))
            }
            None if is_name(text) => Ok(StreamPattern::Exact(text.to_owned())),
            _ => Err(BadPattern(text.to_owned())),
        }
    }
}

impl fmt::Display for StreamPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StreamPattern::All => f.write_str("*"),
            StreamPattern::Exact(name) => f.write_str(name),
            StreamPattern::Prefix(prefix) => write!(f, "{prefix}*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // AUTH-01
    #[test]
    fn a_pattern_covers_what_begins_like_it_and_goes_on() {
        for (pattern, covered, not_covered) in [
            ("*", &["a", "live/x", "*"][..], &[][..]),
            ("cam", &["cam"], &["cam1", "ca", "*"]),
            ("cam-*", &["cam-1", "cam--"], &["cam-", "cam", "xcam-1", "*"]),
            ("live/*", &["live/a", "live/a/b"], &["live", "live/", "livex/a"]),
        ] {
            let read: StreamPattern = pattern.parse().unwrap();
            assert_eq!(read.to_string(), pattern);
            assert!(covered.iter().all(|name| read.covers(name)), "{pattern}");
            assert!(!not_covered.iter().any(|name| read.covers(name)), "{pattern}");
        }
        let long = format!("{}*", "x".repeat(129));
        for pattern in ["", "a b", "a*b", "**", "/*", "a//*", "..", "../*", &long] {
            assert!(pattern.parse::<StreamPattern>().is_err(), "{pattern:?}");
        }
    }
}
