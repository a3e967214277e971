//! A server's reply to one request.

use reqwest::header::HeaderMap;
use reqwest::{StatusCode, Url, Version};

/// Characters of a body that are shown as evidence.
const SHOWN: usize = 120;

/// A reply, read to its end.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(super) url: Url,
    pub(super) status: StatusCode,
    pub(super) version: Version,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

impl Reply {
    pub(super) fn code(&self) -> u16 {
        self.status.as_u16()
    }

    /// The value of a field, the first one if there are several; nothing for one that is no text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// All values of a field.
    pub(super) fn all(&self, name: &str) -> Vec<&str> {
        self.headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect()
    }

    /// True if one of the members of a field's comma-separated list is this, without case.
    pub(super) fn lists(&self, name: &str, member: &str) -> bool {
        let all = self.all(name);
        all.iter().flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(member))
    }

    /// The media type of the body without its parameters, in lower case; empty if there is none.
    pub(super) fn media_type(&self) -> String {
        let value = self.header("content-type").unwrap_or_default();
        value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }

    pub(super) fn is_sdp(&self) -> bool {
        self.media_type() == "application/sdp"
    }

    pub(super) fn is_client_error(&self) -> bool {
        self.status.is_client_error()
    }

    /// The resource of `Location`.
    pub(super) fn location(&self) -> Option<Url> {
        self.url.join(self.header("location")?).ok()
    }

    /// In a few words.
    pub(super) fn shown(&self) -> String {
        let mut text = self.code().to_string();
        for name in ["location", "etag", "content-type", "retry-after", "allow"] {
            if let Some(value) = self.header(name) {
                text += &format!(" {name}: {value}");
            }
        }
        if !self.status.is_success() && !self.body.is_empty() {
            let body: String = self.body.split_whitespace().collect::<Vec<_>>().join(" ");
            text += &format!(" {}", body.chars().take(SHOWN).collect::<String>());
        }
        text
    }
}

/// One `Link` (RFC 8288): target and parameters, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) target: String,
    pub(super) parameters: Vec<(String, String)>,
}

impl Link {
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// The links of one field (RFC 8288 §3), read strictly; `None` if it does not parse.
pub(super) fn links(field: &str) -> Option<Vec<Link>> {
    let mut rest = field.trim();
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (target, after) = rest.strip_prefix('<')?.split_once('>')?;
        rest = after.trim_start();
        let mut parameters = Vec::new();
        while let Some(after) = rest.strip_prefix(';') {
            let (name, after) = after.split_once('=')?;
            let (value, after) = value(after.trim_start())?;
            parameters.push((name.trim().to_ascii_lowercase(), value));
            rest = after.trim_start();
        }
        found.push(Link { target: target.to_owned(), parameters });
        rest = match rest.strip_prefix(',') {
            Some(after) => after.trim_start(),
            None if rest.is_empty() => rest,
            None => return None,
        };
    }
    Some(found)
}

/// A token or a quoted string (RFC 9110 §5.6.2, §5.6.4), and what follows it.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([';', ',', ' ', '\t']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let (mut value, mut escaped) = (String::new(), false);
    for (at, character) in quoted.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => {
                escaped = true;
                continue;
            }
            '"' => return Some((value, &quoted[at + 1..])),
            _ => {}
        }
        value.push(character);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_read_strictly() {
        let field = r#"<turn:h:3478?transport=udp>; rel="ice-server"; username="u\"x"; credential-type=password, <stun:h>;rel=a"#;
        let found = links(field).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].target, "turn:h:3478?transport=udp");
        assert_eq!(found[0].parameter("username"), Some("u\"x"));
        assert_eq!(found[0].parameter("credential-type"), Some("password"));
        assert_eq!(found[1].parameter("rel"), Some("a"));
        for wrong in ["stun:h", "<stun:h> rel=a", "<stun:h>; rel=\"a", "<stun:h"] {
            assert_eq!(links(wrong), None, "{wrong}");
        }
    }
}
