//! If-Match (RFC 9110 §13.1.1), as clients write it: by hand, since typed parsers refuse tags without quotes and `*` in
//! quotes, which real clients send (TRK-06).

use http::HeaderValue;

/// What If-Match says about the current ICE session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IfMatch {
    /// No such header.
    Missing,
    /// `*`, also in quotes as an example of RFC 9725 writes it.
    Any,
    /// A tag equals the current one.
    Matches,
    /// None does; weak tags never do.
    Fails,
    /// It does not parse.
    Malformed,
}

impl IfMatch {
    /// Judges all If-Match fields against the current tag, which is quoted.
    pub(crate) fn judge<'a>(fields: impl Iterator<Item = &'a HeaderValue>, current: &str) -> IfMatch {
        let current = current.trim_matches('"');
        let mut verdict = IfMatch::Missing;
        for field in fields {
            let Ok(mut rest) = field.to_str() else { return IfMatch::Malformed };
            if verdict == IfMatch::Missing {
                verdict = IfMatch::Fails;
            }
            let mut tags = 0;
            loop {
                rest = rest.trim_start_matches([' ', '\t', ',']);
                if rest.is_empty() {
                    break;
                }
                let Some((tag, after)) = next_tag(rest) else { return IfMatch::Malformed };
                rest = after;
                tags += 1;
                match tag {
                    Tag::Strong("*") => return IfMatch::Any,
                    Tag::Strong(tag) if tag == current => verdict = IfMatch::Matches,
                    Tag::Strong(_) | Tag::Weak => {}
                }
            }
            if tags == 0 {
                return IfMatch::Malformed;
            }
        }
        verdict
    }
}

enum Tag<'a> {
    /// Without its quotes.
    Strong(&'a str),
    Weak,
}

/// The first tag and what follows. A tag without quotes is taken as it is: some clients strip them (TRK-06).
fn next_tag(text: &str) -> Option<(Tag<'_>, &str)> {
    let (weak, quoted) = match text.strip_prefix("W/") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (tag, rest) = match quoted.strip_prefix('"') {
        Some(inside) => inside.split_once('"')?,
        None => {
            let (tag, rest) = text.split_at(text.find([',', ' ', '\t']).unwrap_or(text.len()));
            if tag.contains('"') {
                return None;
            }
            return Some((Tag::Strong(tag), rest));
        }
    };
    Some((if weak { Tag::Weak } else { Tag::Strong(tag) }, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    // TRK-06, TRK-08
    #[test]
    fn if_match_is_judged_by_strong_comparison() {
        for (fields, verdict) in [
            (&[][..], IfMatch::Missing),
            (&["*"], IfMatch::Any),
            (&["\"*\""], IfMatch::Any),
            (&["\"abc\""], IfMatch::Matches),
            (&["\"x\", \"abc\""], IfMatch::Matches),
            (&["\"x\",\"abc\""], IfMatch::Matches),
            (&["\"x\"", "\"abc\""], IfMatch::Matches),
            (&["abc"], IfMatch::Matches),
            (&["W/\"abc\""], IfMatch::Fails),
            (&["\"x\""], IfMatch::Fails),
            (&["\"abc"], IfMatch::Malformed),
            (&["a\"bc"], IfMatch::Malformed),
            (&[""], IfMatch::Malformed),
        ] {
            let values: Vec<HeaderValue> = fields.iter().map(|field| HeaderValue::from_static(field)).collect();
            assert_eq!(IfMatch::judge(values.iter(), "\"abc\""), verdict, "{fields:?}");
        }
    }
}
