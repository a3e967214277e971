//! POSTs that another node serves: 307 or 308 (RFC 9725 §4.5). A session's URL is never redirected: it is its own node's.

use std::fmt;
use std::str::FromStr;

use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, LOCATION};
use http::request::Parts;
use http::{HeaderValue, StatusCode, Uri};
use media_core::media::Role;
use strum::{Display, EnumString};

use crate::auth::{Action, Grant, StreamPattern, authorization, bearer};
use crate::problem::{Problem, Slug};
use crate::state::RouterState;

/// Which streams are served elsewhere, and how clients are told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redirects {
    /// The first one that is for a request counts.
    pub rules: Vec<RedirectRule>,
    /// The status of the reply.
    pub status: RedirectStatus,
    /// The target has the client's token in its query: browsers drop the Authorization header where a redirect leads to another
    /// origin (WHIP-20).
    pub with_token: bool,
}

/// Streams whose sessions another node opens, as `[publish:|watch:]STREAM=URL`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedirectRule {
    /// Of one kind of session; `None` of both.
    action: Option<Action>,
    streams: StreamPattern,
    /// `http[s]://host[:port][/prefix]` of the node.
    base: String,
}

/// The status of a redirect; both keep method and body (RFC 9110 §15.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Display, EnumString)]
pub enum RedirectStatus {
    /// 307: the next POST comes here again.
    #[default]
    #[strum(serialize = "307")]
    Temporary,
    /// 308: clients may keep the target.
    #[strum(serialize = "308")]
    Permanent,
}

/// Neither a rule nor close to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not [publish:|watch:]STREAM=URL with an http or https URL without query, user and password")]
pub struct BadRedirect;

impl Redirects {
    /// Origins of the nodes, which pages of this server are led to.
    pub fn origins(&self) -> Vec<String> {
        let uris = self.rules.iter().filter_map(|rule| rule.base.parse::<Uri>().ok());
        uris.filter_map(|uri| Some(format!("{}://{}", uri.scheme_str()?, uri.authority()?))).collect()
    }

    fn base_for(&self, action: Action, stream: &str) -> Option<&str> {
        let fits = |rule: &&RedirectRule| rule.action.is_none_or(|only| only == action) && rule.streams.covers(stream);
        self.rules.iter().find(fits).map(|rule| rule.base.as_str())
    }
}

impl RedirectRule {
    /// The node's base URL.
    pub fn base(&self) -> &str {
        &self.base
    }
}

impl FromStr for RedirectRule {
    type Err = BadRedirect;

    fn from_str(text: &str) -> Result<RedirectRule, BadRedirect> {
        let (streams, base) = text.trim().split_once('=').ok_or(BadRedirect)?;
        let (action, streams) = match streams.split_once(':') {
            Some(("publish", streams)) => (Some(Action::Publish), streams),
            Some(("watch", streams)) => (Some(Action::Watch), streams),
            _ => (None, streams),
        };
        let streams = streams.parse().map_err(|_| BadRedirect)?;
        let uri: Uri = base.parse().map_err(|_| BadRedirect)?;
        if !is_target(&uri) || uri.query().is_some() || base.contains('#') {
            return Err(BadRedirect);
        }
        Ok(RedirectRule { action, streams, base: base.trim_end_matches('/').to_owned() })
    }
}

impl fmt::Display for RedirectRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(action) = self.action {
            write!(f, "{}:", action.as_str())?;
        }
        write!(f, "{}={}", self.streams, self.base)
    }
}

/// An http or https URL without user and password.
pub(crate) fn is_target(uri: &Uri) -> bool {
    let has_host =
        uri.authority().is_some_and(|authority| !authority.as_str().contains('@') && !authority.host().is_empty());
    matches!(uri.scheme_str(), Some("http" | "https")) && has_host
}

/// The reply to a POST that another node serves, by the word of the webhook or by a rule.
pub(crate) fn elsewhere(
    state: &RouterState,
    stream: &str,
    parts: &Parts,
    grant: &Grant,
) -> Result<Option<Response>, Problem> {
    let config = state.signaling.config();
    let redirects = &config.redirects;
    let target = match (&grant.redirect, redirects.base_for(state.role.into(), stream)) {
        (Some(target), _) => target.to_string(),
        (None, Some(base)) => {
            let shown = authorization(parts, &config);
            let token = shown.as_deref().and_then(bearer).filter(|_| redirects.with_token);
            target(base, state.role, stream, parts.uri.query(), token)
        }
        (None, None) => return Ok(None),
    };
    let mut location = HeaderValue::from_str(&target)
        .map_err(|_| Problem::new(Slug::Internal, "the target of a redirect does not fit a header"))?;
    location.set_sensitive(true);
    let status = match redirects.status {
        RedirectStatus::Temporary => StatusCode::TEMPORARY_REDIRECT,
        RedirectStatus::Permanent => StatusCode::PERMANENT_REDIRECT,
    };
    let headers = [(LOCATION, location), (CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    Ok(Some((status, headers).into_response()))
}

/// The same endpoint of another node. The request's own query goes along, and a token that it showed in a header if told so.
fn target(base: &str, role: Role, stream: &str, query: Option<&str>, token: Option<&[u8]>) -> String {
    let endpoint = match role {
        Role::Publisher => "whip",
        Role::Viewer => "whep",
    };
    let own = query.filter(|query| !query.is_empty());
    let is_token = |name: &str| name == "access_token" || name == "token";
    let names_token = own.is_some_and(|own| form_urlencoded::parse(own.as_bytes()).any(|(name, _)| is_token(&name)));
    let token = token.and_then(|token| std::str::from_utf8(token).ok()).filter(|_| !names_token);
    let added =
        token.map(|token| form_urlencoded::Serializer::new(String::new()).append_pair("access_token", token).finish());
    let mut target = format!("{base}/{endpoint}/{stream}");
    for (part, separator) in [own, added.as_deref()].into_iter().flatten().zip(['?', '&']) {
        target.push(separator);
        target.push_str(part);
    }
    target
}

#[cfg(test)]
mod tests {
    use super::*;

    // WHIP-19
    #[test]
    fn rules_are_for_streams_and_lead_to_nodes() {
        for text in
            ["live-*=https://b.example", "watch:cam=http://10.0.0.7:8080/sluice", "publish:*=https://[::1]:8443"]
        {
            assert_eq!(text.parse::<RedirectRule>().map(|rule| rule.to_string()), Ok(text.to_owned()));
        }
        assert_eq!(
            "a=https://b.example/".parse::<RedirectRule>().map(|rule| rule.base),
            Ok("https://b.example".into())
        );
        for text in [
            "",
            "cam",
            "cam=b.example",
            "cam=ftp://b.example",
            "cam=https://me:secret@b.example",
            "cam=https://b.example/?x=y",
            "cam=https://b.example/#x",
            "c m=https://b.example",
            "cam=/whep/cam",
        ] {
            assert_eq!(text.parse::<RedirectRule>(), Err(BadRedirect), "{text}");
        }
        let rules = ["watch:cam=https://edge.example", "*=https://b.example:8443/x"];
        let rules = rules.iter().map(|rule| rule.parse().unwrap()).collect();
        let redirects = Redirects { rules, ..Redirects::default() };
        assert_eq!(redirects.base_for(Action::Watch, "cam"), Some("https://edge.example"));
        assert_eq!(redirects.base_for(Action::Publish, "cam"), Some("https://b.example:8443/x"));
        assert_eq!(redirects.origins(), ["https://edge.example", "https://b.example:8443"]);
    }

    // WHIP-20
    #[test]
    fn the_token_goes_along_in_the_query_of_the_target_once() {
        let at = |query, token: Option<&str>| {
            target("https://b.example", Role::Viewer, "cam", query, token.map(str::as_bytes))
        };
        assert_eq!(at(None, None), "https://b.example/whep/cam");
        assert_eq!(at(Some("a=b"), None), "https://b.example/whep/cam?a=b");
        assert_eq!(at(None, Some("a+b/=")), "https://b.example/whep/cam?access_token=a%2Bb%2F%3D");
        assert_eq!(at(Some("a=b"), Some("x")), "https://b.example/whep/cam?a=b&access_token=x");
        assert_eq!(at(Some("token=y"), Some("x")), "https://b.example/whep/cam?token=y");
    }
}
