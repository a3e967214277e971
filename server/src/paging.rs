//! Lists by pages: `?limit=N&cursor=C`, and a `Link` header with `rel="next"` (RFC 8288) to the page after.

use std::fmt::Display;

use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use form_urlencoded::Serializer;
use http::header::LINK;
use http::{HeaderMap, HeaderValue};
use serde::Deserialize;
use signaling::{Problem, Slug};

/// Entries of a page where the request does not say.
const DEFAULT_LIMIT: usize = 500;

/// Entries of a page at most; at some 3 KiB each, sessions take 3 MiB.
const MAX_LIMIT: usize = 1000;

/// Which part of a list is wanted.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Part {
    /// Entries at most.
    #[serde(default)]
    pub(crate) limit: Option<usize>,
    /// Where the page before ended.
    #[serde(default)]
    pub(crate) cursor: Option<String>,
}

/// The query of a list, or why it is none.
pub(crate) fn read<Q>(query: Result<Query<Q>, QueryRejection>) -> Result<Q, Problem> {
    query.map(|Query(query)| query).map_err(|error| bad_request(error.body_text()))
}

pub(crate) fn bad_request(detail: impl Into<String>) -> Problem {
    Problem::new(Slug::BadRequest, detail)
}

impl Part {
    /// How many entries the page has at most. More than there may be are cut to that: the `Link` leads on.
    pub(crate) fn limit(&self) -> usize {
        self.limit.unwrap_or(DEFAULT_LIMIT).clamp(1, MAX_LIMIT)
    }

    /// The header that leads to the next page, which is filtered as this one is.
    pub(crate) fn next(&self, cursor: Option<impl Display>, filter: &[(&str, Option<&str>)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let Some(cursor) = cursor else { return headers };
        let mut query = Serializer::new(String::new());
        query.append_pair("cursor", &cursor.to_string());
        query.append_pair("limit", &self.limit().to_string());
        for (name, value) in filter {
            if let Some(value) = value {
                query.append_pair(name, value);
            }
        }
        // Relative to the request's own address, which a proxy may have changed. Encoded text is ASCII.
        if let Ok(link) = HeaderValue::try_from(format!("<?{}>; rel=\"next\"", query.finish())) {
            headers.insert(LINK, link);
        }
        headers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_filtered_as_this_one_is() {
        let part = Part { limit: Some(2), cursor: None };
        let headers = part.next(Some("a/b"), &[("stream", Some("x y&limit=9>")), ("state", None)]);
        assert_eq!(headers[LINK], "<?cursor=a%2Fb&limit=2&stream=x+y%26limit%3D9%3E>; rel=\"next\"");
        assert!(part.next(None::<&str>, &[]).is_empty());
    }

    #[test]
    fn pages_are_bounded() {
        let limit = |limit| Part { limit, cursor: None }.limit();
        assert_eq!((limit(None), limit(Some(7)), limit(Some(0)), limit(Some(1_000_000))), (500, 7, 1, 1000));
    }
}
