//! Types of settings about WHIP and WHEP, and of those that are numbers with names.

use std::fmt;
use std::str::FromStr;

use media_core::{Dscp, NoDscp};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use signaling::{BadRedirect, RedirectRule, RedirectStatus, UnknownStream};

use super::values::{BadValue, bad, by_text};

by_text!(Redirect);

/// Lets a type whose text is a number stand in a file with and without quotes.
macro_rules! by_number {
    ($($type:ty),+) => {$(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$type, D::Error> {
                let value = toml::Value::deserialize(deserializer)?;
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                text.parse().map_err(D::Error::custom)
            }
        }
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )+};
}

by_number!(UnknownStatus, RedirectCode, CodePoint);

/// Streams that another node serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect(pub RedirectRule);

impl FromStr for Redirect {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Redirect, BadValue> {
        text.parse().map(Redirect).map_err(|error: BadRedirect| bad(error.to_string()))
    }
}

impl fmt::Display for Redirect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The status of a redirect: `307` or `308`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RedirectCode(pub RedirectStatus);

impl FromStr for RedirectCode {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<RedirectCode, BadValue> {
        text.parse().map(RedirectCode).map_err(|_| bad("no status of a redirect that keeps the method"))
    }
}

impl fmt::Display for RedirectCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A differentiated services code point, by name or number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CodePoint(pub Dscp);

impl FromStr for CodePoint {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<CodePoint, BadValue> {
        text.parse().map(CodePoint).map_err(|error: NoDscp| bad(error.to_string()))
    }
}

impl fmt::Display for CodePoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// What a viewer gets of a stream that nobody has published: `404` or `409`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnknownStatus(pub UnknownStream);

impl FromStr for UnknownStatus {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<UnknownStatus, BadValue> {
        text.parse().map(UnknownStatus).map_err(|_| bad("unknown status"))
    }
}

impl fmt::Display for UnknownStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // WHEP-06
    #[test]
    fn the_status_of_an_unknown_stream_is_written_as_it_is_read() {
        for text in ["404", "409"] {
            assert_eq!(text.parse::<UnknownStatus>().map(|status| status.to_string()), Ok(text.to_owned()));
        }
        assert!("410".parse::<UnknownStatus>().is_err() && "".parse::<UnknownStatus>().is_err());
    }

    // WHIP-19
    #[test]
    fn a_status_may_stand_in_the_file_as_a_number_and_is_one_that_keeps_the_method() {
        let read = |text: &str| toml::from_str::<std::collections::HashMap<String, RedirectCode>>(text);
        assert_eq!(read("a = 308\nb = \"308\"").unwrap()["a"], RedirectCode(RedirectStatus::Permanent));
        for text in ["a = 302", "a = 301", "a = true", "a = \"\""] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
