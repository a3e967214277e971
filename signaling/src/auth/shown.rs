//! What a request shows: the Authorization header, or where that is allowed a token in its URL (RFC 9725 §4.7.1, RFC 6750 §2.3).

use std::borrow::Cow;

use http::HeaderValue;
use http::header::AUTHORIZATION;
use http::request::Parts;

use crate::config::SignalingConfig;

/// The value of the Authorization header. With [`url_tokens`](SignalingConfig::url_tokens) a token of the query stands for one.
pub(crate) fn authorization<'a>(parts: &'a Parts, config: &SignalingConfig) -> Option<Cow<'a, [u8]>> {
    if let Some(value) = parts.headers.get(AUTHORIZATION) {
        return Some(Cow::Borrowed(HeaderValue::as_bytes(value)));
    }
    let token = url_token(parts.uri.query()?).filter(|_| config.url_tokens)?;
    Some(Cow::Owned(format!("Bearer {token}").into_bytes()))
}

/// The first `access_token` (RFC 6750 §2.3) or `token`, as players call it.
fn url_token(query: &str) -> Option<Cow<'_, str>> {
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    pairs.find(|(name, token)| matches!(&**name, "access_token" | "token") && !token.is_empty()).map(|(_, token)| token)
}

#[cfg(test)]
mod tests {
    use super::*;

    // AUTH-02
    #[test]
    fn a_token_of_the_query_is_read_decoded() {
        for (query, token) in [
            ("access_token=abc", Some("abc")),
            ("a=b&token=a%2Bb%3D%3D&token=c", Some("a+b==")),
            ("token=&access_token=x", Some("x")),
            ("token", None),
            ("tokens=a&key=b", None),
            ("", None),
        ] {
            assert_eq!(url_token(query).as_deref(), token, "{query}");
        }
    }
}
