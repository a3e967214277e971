//! If-Match (RFC 9110 §13.1.1), as clients write it.

use http::HeaderValue;

/// What If-Match says about the current ICE session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
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

/// Judges all If-Match fields against the current tag, which is quoted.
pub(crate) fn judge<'a>(fields: impl Iterator<Item = &'a HeaderValue>, current: &str) -> Verdict {
    let current = current.trim_matches('"');
    let mut verdict = Verdict::Missing;
    for field in fields {
        let Ok(mut rest) = field.to_str() else { return Verdict::Malformed };
        if verdict == Verdict::Missing {
            verdict = Verdict::Fails;
        }
        let mut tags = 0;
        loop {
            rest = rest.trim_start_matches([' ', '\t', ',']);
            if rest.is_empty() {
                break;
            }
            let Some((tag, after)) = next_tag(rest) else { return Verdict::Malformed };
            rest = after;
            tags += 1;
            match tag {
                Tag::Strong("*") => return Verdict::Any,
                Tag::Strong(tag) if tag == current => verdict = Verdict::Matches,
                Tag::Strong(_) | Tag::Weak => {}
            }
        }
        if tags == 0 {
            return Verdict::Malformed;
        }
    }
    verdict
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
            (&[][..], Verdict::Missing),
            (&["*"], Verdict::Any),
            (&["\"*\""], Verdict::Any),
            (&["\"abc\""], Verdict::Matches),
            (&["\"x\", \"abc\""], Verdict::Matches),
            (&["\"x\",\"abc\""], Verdict::Matches),
            (&["\"x\"", "\"abc\""], Verdict::Matches),
            (&["abc"], Verdict::Matches),
            (&["W/\"abc\""], Verdict::Fails),
            (&["\"x\""], Verdict::Fails),
            (&["\"abc"], Verdict::Malformed),
            (&["a\"bc"], Verdict::Malformed),
            (&[""], Verdict::Malformed),
        ] {
            let values: Vec<HeaderValue> = fields.iter().map(|field| HeaderValue::from_static(field)).collect();
            assert_eq!(judge(values.iter(), "\"abc\""), verdict, "{fields:?}");
        }
    }
}
