//! What a stream may be called, and how a path is read that has its name (F-22).

use axum::extract::Request;
use http::Uri;
use http::uri::PathAndQuery;

/// Bytes of a stream's name.
const MAX_NAME: usize = 128;

/// Hexadecimal digits of the unguessable part of a session's URL.
const SECRET_DIGITS: usize = 32;

/// Last segment of the URL of a session's ledger.
const STAGES: &str = "stages";

/// Last segments of the URLs of a viewer's extensions.
const EXTENSIONS: [&str; 2] = ["sse", "layer"];

/// Which names streams may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NameRule {
    /// Parts with `/` between are allowed.
    pub(crate) slashes: bool,
}

impl NameRule {
    /// A stream name: 1 to 128 characters that stand in a URL path as they are (RFC 3986 unreserved, and `:`).
    pub(crate) fn allows(self, name: &str) -> bool {
        let mut parts = name.split('/');
        let first = parts.next().unwrap_or_default();
        name.len() <= MAX_NAME
            && is_part(first)
            // A further part that looks like a session's secret would make its path that of a session.
            && parts.all(|part| self.slashes && is_part(part) && !is_secret(part))
    }

    /// The rule in words, for people whose name it refuses.
    pub(crate) fn in_words(self) -> &'static str {
        if self.slashes {
            "a stream name is 1 to 128 of A-Z a-z 0-9 . _ ~ - :, with single `/` between its parts"
        } else {
            "a stream name is 1 to 128 of A-Z a-z 0-9 . _ ~ - :, without `/` unless the server is set to slash_names"
        }
    }
}

fn is_part(part: &str) -> bool {
    // `.` and `..` would be eaten by URL normalisation on the way.
    !part.is_empty()
        && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._~-:".contains(&byte))
        && part != "."
        && part != ".."
}

/// Looks like the unguessable part of a session's URL.
pub(crate) fn is_secret(text: &str) -> bool {
    text.len() == SECRET_DIGITS && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Writes the `/` of a stream's name as `%2F`, so that the routes find the name in one segment. What follows the name is a
/// session's secret, perhaps with `stages` or an extension: no name has a part like that.
pub(crate) fn join_parts(mut request: Request) -> Request {
    let Some(segments) = request.uri().path().strip_prefix('/').map(|path| path.split('/').collect::<Vec<_>>()) else {
        return request;
    };
    let tail = match segments[..] {
        [_, .., secret, "sse", events] if is_secret(secret) && is_secret(events) => 3,
        [_, .., secret, last] if is_secret(secret) && (last == STAGES || EXTENSIONS.contains(&last)) => 2,
        [_, .., secret] if is_secret(secret) => 1,
        _ => 0,
    };
    let (name, rest) = segments.split_at(segments.len() - tail);
    let path = [&[name.join("%2F").as_str()][..], rest].concat().join("/");
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    // It was a valid path, and `%2F` is one, too.
    if let Ok(path) = format!("/{path}{query}").parse::<PathAndQuery>() {
        *request.uri_mut() = Uri::from(path);
    }
    request
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    const PLAIN: NameRule = NameRule { slashes: false };
    const SLASHES: NameRule = NameRule { slashes: true };
    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn names_are_what_a_path_carries_as_it_is() {
        let longest = "x".repeat(128);
        for name in ["a", "A-Z.0_9~:", "...", SECRET, &longest] {
            assert!(PLAIN.allows(name) && SLASHES.allows(name), "{name}");
        }
        for name in ["", ".", "..", "a b", "a%2Fb", "gr\u{fc}n", &format!("{longest}x")] {
            assert!(!PLAIN.allows(name) && !SLASHES.allows(name), "{name}");
        }
    }

    // F-22
    #[test]
    fn parts_of_a_name_are_a_matter_of_the_setting() {
        for name in ["live/cam1", "a/b/c", "live/stages", &format!("{SECRET}/stages")] {
            assert!(!PLAIN.allows(name) && SLASHES.allows(name), "{name}");
        }
        let session = format!("live/{SECRET}");
        for name in ["/a", "a/", "a//b", "a/./b", "a/..", &session, &format!("{session}/stages")] {
            assert!(!PLAIN.allows(name) && !SLASHES.allows(name), "{name}");
        }
    }

    // F-22
    #[test]
    fn a_path_is_cut_at_its_secret() {
        let joined = |path: &str| {
            let request = Request::builder().uri(path).body(Body::empty()).unwrap();
            join_parts(request).uri().to_string()
        };
        for (path, expected) in [
            ("/show", "/show".to_owned()),
            ("/live/cam1", "/live%2Fcam1".to_owned()),
            ("/live/cam1/", "/live%2Fcam1%2F".to_owned()),
            ("/live%2Fcam1?x=/y", "/live%2Fcam1?x=/y".to_owned()),
            (&format!("/live/cam1/{SECRET}"), format!("/live%2Fcam1/{SECRET}")),
            (&format!("/live/cam1/{SECRET}/stages"), format!("/live%2Fcam1/{SECRET}/stages")),
            (&format!("/live/cam1/{SECRET}/sse"), format!("/live%2Fcam1/{SECRET}/sse")),
            (&format!("/live/cam1/{SECRET}/layer"), format!("/live%2Fcam1/{SECRET}/layer")),
            (&format!("/live/cam1/{SECRET}/sse/{SECRET}"), format!("/live%2Fcam1/{SECRET}/sse/{SECRET}")),
            (&format!("/show/{SECRET}?x"), format!("/show/{SECRET}?x")),
            (&format!("/{SECRET}"), format!("/{SECRET}")),
            (&format!("/{SECRET}/stages"), format!("/{SECRET}%2Fstages")),
            ("/live/stages", "/live%2Fstages".to_owned()),
            ("/", "/".to_owned()),
        ] {
            assert_eq!(joined(path), expected);
        }
    }
}
