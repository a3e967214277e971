//! The Authorization header (RFC 6750 §2.1): a token after the scheme Bearer, and what people send in its place.

/// The token of `Bearer <token>`; the scheme's case does not matter (RFC 9110 §11.1).
pub(crate) fn bearer(value: &[u8]) -> Option<&[u8]> {
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
            "no Authorization header: a token in the URL is not read, as it would end up in logs, unless the server is set \
             to url_tokens; send `Authorization: Bearer TOKEN`",
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

    // AUTH-01
    #[test]
    fn the_scheme_is_bearer_in_any_case() {
        for (value, token) in [
            ("Bearer alpha", Some("alpha")),
            ("bEARER   alpha ", Some("alpha")),
            ("Basic alpha", None),
            ("Bearer ", None),
            ("Bearer", None),
            ("", None),
        ] {
            assert_eq!(bearer(value.as_bytes()), token.map(str::as_bytes), "{value:?}");
        }
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
}
