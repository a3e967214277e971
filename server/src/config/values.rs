//! Types of settings whose text form is their own.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use media_core::IceMode;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use signaling::{PublishTakeover, WebhookAway};
use tracing_subscriber::EnvFilter;

/// A value that does not fit its setting; the text says what is wrong, never the value of a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadValue(pub String);

pub(super) fn bad(text: impl Into<String>) -> BadValue {
    BadValue(text.into())
}

/// Lets serde read a type from its text form, and write it so.
macro_rules! by_text {
    ($($type:ty),+) => {$(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$type, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )+};
}

pub(super) use by_text;

by_text!(BaseUrl, ServiceUrl, Origin, AccessToken, Away, Ice, Takeover, LogFilter, LogFormat);

/// Reads a value of the file. Where a list is wanted, a single value stands for a list of one.
pub fn lenient<'de, T: DeserializeOwned, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    let value = toml::Value::deserialize(deserializer)?;
    let alone = !value.is_array();
    match T::deserialize(value.clone()) {
        Ok(read) => Ok(Some(read)),
        Err(error) if alone => match T::deserialize(toml::Value::Array(vec![value])) {
            Ok(read) => Ok(Some(read)),
            Err(in_list) if in_list.message().starts_with("invalid type: sequence") => Err(plain(&error)),
            Err(in_list) => Err(plain(&in_list)),
        },
        Err(error) => Err(plain(&error)),
    }
}

fn plain<E: serde::de::Error>(error: &toml::de::Error) -> E {
    E::custom(error.message())
}

/// A time span. Text: a number of seconds, or a number with `ms`, `s`, `m` or `h`. Above 0, up to 24 hours.
///
/// By hand: `humantime` reads neither a bare number nor a fraction, and writes 1500ms as two words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seconds(pub Duration);

impl FromStr for Seconds {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Seconds, BadValue> {
        let text = text.trim();
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let factor = match &text[digits.len()..] {
            "" | "s" => 1.0,
            "ms" => 0.001,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            unit => return Err(bad(format!("unknown unit {unit:?}"))),
        };
        let number: f64 = digits.trim().parse().map_err(|_| bad("not a time"))?;
        Seconds::checked(number * factor)
    }
}

impl Seconds {
    fn checked(seconds: f64) -> Result<Seconds, BadValue> {
        let span = Duration::try_from_secs_f64(seconds).map_err(|_| bad("not a time"))?;
        if span < Duration::from_millis(1) || span > Duration::from_secs(86_400) {
            return Err(bad("out of range"));
        }
        // Whole milliseconds: what is finer is an artefact of binary fractions.
        Ok(Seconds(Duration::from_millis((seconds * 1000.0).round() as u64)))
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_millis() {
            millis if millis % 1000 == 0 => write!(f, "{}s", millis / 1000),
            millis => write!(f, "{millis}ms"),
        }
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Seconds, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Number(f64),
            Text(String),
        }
        match Form::deserialize(deserializer).map_err(|_| D::Error::custom("not a time"))? {
            Form::Number(number) => Seconds::checked(number),
            Form::Text(text) => text.parse(),
        }
        .map_err(D::Error::custom)
    }
}

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A time span that may be none. Text as of [`Seconds`], or 0. Up to 24 hours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Grace(pub Duration);

impl FromStr for Grace {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Grace, BadValue> {
        let is_none = matches!(text.trim(), "0" | "0s" | "0ms" | "0m" | "0min" | "0h");
        if is_none { Ok(Grace::default()) } else { text.parse().map(|Seconds(span)| Grace(span)) }
    }
}

impl fmt::Display for Grace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Seconds(self.0).fmt(f)
    }
}

impl<'de> Deserialize<'de> for Grace {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Grace, D::Error> {
        let value = toml::Value::deserialize(deserializer)?;
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        text.parse().map_err(D::Error::custom)
    }
}

impl Serialize for Grace {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// An absolute http or https URL without query and without a slash at its end, or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BaseUrl(pub Option<String>);

impl FromStr for BaseUrl {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<BaseUrl, BadValue> {
        if text.is_empty() {
            return Ok(BaseUrl(None));
        }
        let uri: http::Uri = text.parse().map_err(|_| bad("not a URL"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.authority().is_none() {
            return Err(bad("not an http or https URL"));
        }
        if uri.query().is_some() || text.contains('#') {
            return Err(bad("a base URL has no query and no fragment"));
        }
        Ok(BaseUrl(Some(text.trim_end_matches('/').to_owned())))
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_deref().unwrap_or_default())
    }
}

/// An absolute http or https URL of another service, or nothing. It holds no user and password: it appears in the effective
/// configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceUrl(pub Option<String>);

impl FromStr for ServiceUrl {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<ServiceUrl, BadValue> {
        if text.is_empty() {
            return Ok(ServiceUrl(None));
        }
        let uri: http::Uri = text.parse().map_err(|_| bad("not a URL"))?;
        let host = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        if !matches!(uri.scheme_str(), Some("http" | "https")) || host.is_empty() || text.contains('#') {
            return Err(bad("not an http or https URL"));
        }
        if host.contains('@') {
            return Err(bad("a URL with user or password"));
        }
        Ok(ServiceUrl(Some(text.to_owned())))
    }
}

impl ServiceUrl {
    /// It is read over the network by whoever is on the way.
    pub fn is_clear_text(&self) -> bool {
        let uri = self.0.as_ref().and_then(|url| url.parse::<http::Uri>().ok());
        uri.is_some_and(|uri| {
            let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
            let is_local =
                host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback());
            uri.scheme_str() == Some("http") && !is_local
        })
    }
}

impl fmt::Display for ServiceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_deref().unwrap_or_default())
    }
}

/// What happens while the access webhook is away: `deny` or `cached`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Away(pub WebhookAway);

impl FromStr for Away {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Away, BadValue> {
        text.parse().map(Away).map_err(|_| bad("unknown policy"))
    }
}

impl fmt::Display for Away {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// `*`, or a web origin: scheme, host and port, without a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(pub String);

impl Origin {
    /// Every origin.
    pub fn any() -> Origin {
        Origin("*".to_owned())
    }
}

impl FromStr for Origin {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Origin, BadValue> {
        if text == "*" || text == "null" {
            return Ok(Origin(text.to_owned()));
        }
        let uri: http::Uri = text.parse().map_err(|_| bad("not an origin"))?;
        match (uri.scheme_str(), uri.authority()) {
            (Some("http" | "https"), Some(authority)) if !text.ends_with('/') && uri.path() == "/" => {
                // Browsers send origins in lower case.
                Ok(Origin(format!("{}://{authority}", uri.scheme_str().unwrap_or_default()).to_ascii_lowercase()))
            }
            _ => Err(bad("not an origin: scheme://host or scheme://host:port, no path")),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A line of [`signaling::AccessToken`]. Its text and debug forms hide the token.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessToken(pub signaling::AccessToken);

impl FromStr for AccessToken {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<AccessToken, BadValue> {
        text.parse().map(AccessToken).map_err(|error: signaling::TokenError| bad(error.to_string()))
    }
}

impl fmt::Display for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Which ICE implementation serves the sessions: `lite` or `full`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ice(pub IceMode);

const ICE_MODES: [(&str, IceMode); 2] = [("lite", IceMode::Lite), ("full", IceMode::Full)];

impl FromStr for Ice {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Ice, BadValue> {
        let found = ICE_MODES.into_iter().find(|(name, _)| *name == text);
        found.map(|(_, mode)| Ice(mode)).ok_or_else(|| bad("unknown ICE implementation"))
    }
}

impl fmt::Display for Ice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(ICE_MODES.iter().find(|(_, mode)| *mode == self.0).map_or("", |(name, _)| name))
    }
}

/// When a publisher's own earlier session gives way to its next POST: `silent`, `never` or `always`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Takeover(pub PublishTakeover);

impl FromStr for Takeover {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Takeover, BadValue> {
        text.parse().map(Takeover).map_err(|_| bad("unknown policy"))
    }
}

impl fmt::Display for Takeover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A filter of tracing-subscriber, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter(pub String);

impl Default for LogFilter {
    fn default() -> LogFilter {
        LogFilter("info".to_owned())
    }
}

impl FromStr for LogFilter {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<LogFilter, BadValue> {
        // A single word that is no level would be taken for a target, and silence everything else: a misspelt level.
        let word = !text.contains(['=', ',', ':']);
        if text.is_empty() || (word && text.parse::<tracing_subscriber::filter::LevelFilter>().is_err()) {
            return Err(bad("not a log level"));
        }
        EnvFilter::builder().parse(text).map_err(|error| bad(error.to_string()))?;
        Ok(LogFilter(text.to_owned()))
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display, strum::EnumString)]
#[strum(serialize_all = "lowercase", parse_err_ty = BadValue, parse_err_fn = unknown_log_format)]
pub enum LogFormat {
    /// For people; coloured on a terminal.
    Human,
    /// One JSON object a line.
    Json,
}

fn unknown_log_format(_: &str) -> BadValue {
    bad("unknown log format")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_and_without_units() {
        let read = |text: &str| text.parse::<Seconds>().map(|seconds| seconds.0);
        assert_eq!(read("30"), Ok(Duration::from_secs(30)));
        assert_eq!(read("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(read("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(read("1.5 m"), Ok(Duration::from_secs(90)));
        for text in ["", "s", "0", "-1", "25h", "NaN", "inf", "3 weeks", "1e400"] {
            assert!(read(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn times_are_written_as_they_are_read() {
        for text in ["30s", "500ms", "1500ms", "86400s"] {
            assert_eq!(text.parse::<Seconds>().map(|seconds| seconds.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn a_grace_may_be_none() {
        for (text, millis) in [("0", 0), ("0s", 0), (" 0m ", 0), ("90", 90_000), ("1.5m", 90_000)] {
            assert_eq!(text.parse::<Grace>(), Ok(Grace(Duration::from_millis(millis))), "{text:?}");
        }
        for text in ["", "-1", "0.1ms", "25h"] {
            assert!(text.parse::<Grace>().is_err(), "{text:?}");
        }
        let read: std::collections::HashMap<String, Grace> = toml::from_str("a = 0\nb = \"5m\"\nc = 2.5").unwrap();
        assert_eq!([read["a"], read["b"], read["c"]].map(|grace| grace.0.as_millis()), [0, 300_000, 2500]);
        assert_eq!(Grace::default().to_string(), "0s");
    }

    #[test]
    fn tokens_are_checked_and_never_shown() {
        let token: AccessToken = "cam=s3cr3t==".parse().unwrap();
        assert_eq!((token.0.streams().covers("cam"), token.0.streams().covers("other")), (true, false));
        assert!("*=x".parse::<AccessToken>().unwrap().0.streams().covers("other"));
        assert_eq!(format!("{token} {token:?}"), "cam=<redacted> cam=<redacted>");
        for text in ["", "secret", "=secret", "cam=", "cam==", "a b=secret", "cam=sec ret", "cam=s\u{e9}cret"] {
            let error = text.parse::<AccessToken>().unwrap_err().to_string();
            assert!(!error.contains("sec"), "{error}");
        }
    }

    #[test]
    fn base_urls_and_origins_are_checked() {
        assert_eq!("https://a.example/x/".parse(), Ok(BaseUrl(Some("https://a.example/x".into()))));
        assert_eq!("".parse(), Ok(BaseUrl(None)));
        for text in ["a.example", "ftp://a.example", "https://a.example/?q", "/path"] {
            assert!(text.parse::<BaseUrl>().is_err(), "{text}");
        }
        assert_eq!("HTTPS://App.example:8443".parse(), Ok(Origin("https://app.example:8443".into())));
        for text in ["app.example", "https://app.example/", "https://app.example/x", ""] {
            assert!(text.parse::<Origin>().is_err(), "{text}");
        }
    }

    #[test]
    fn urls_of_services_hold_no_secret_and_those_in_clear_text_are_known() {
        for (text, clear) in [
            ("https://id.example/jwks.json?x=1", false),
            ("http://127.0.0.1:9/hook", false),
            ("http://[::1]:9/hook", false),
            ("http://localhost/hook", false),
            ("http://hooks.internal/auth", true),
            ("http://10.0.0.7/auth", true),
        ] {
            let url: ServiceUrl = text.parse().unwrap();
            assert_eq!((url.to_string().as_str(), url.is_clear_text()), (text, clear));
        }
        assert_eq!("".parse(), Ok(ServiceUrl(None)));
        for text in
            ["id.example", "ftp://id.example", "/path", "https://me:secret@id.example/", "https://id.example/#x"]
        {
            let error = text.parse::<ServiceUrl>().unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
        assert_eq!("cached".parse::<Away>().map(|away| away.to_string()), Ok("cached".to_owned()));
        assert!("open".parse::<Away>().is_err());
    }

    // F-10
    #[test]
    fn policies_of_takeover_are_written_as_they_are_read() {
        for text in ["silent", "never", "always"] {
            assert_eq!(text.parse::<Takeover>().map(|policy| policy.to_string()), Ok(text.to_owned()));
        }
        assert!("Silent ".parse::<Takeover>().is_err() && "".parse::<Takeover>().is_err());
    }

    #[test]
    fn a_misspelt_log_level_is_refused() {
        assert!("info".parse::<LogFilter>().is_ok());
        assert!("warn,signaling=debug".parse::<LogFilter>().is_ok());
        for text in ["inof", "", "signaling=loud"] {
            assert!(text.parse::<LogFilter>().is_err(), "{text}");
        }
    }
}
