//! The HTTP side of a session (RFC 9725 §4.2, §4.3.3): POST an offer, PATCH for an ICE restart, DELETE the session.

use media_core::internals::ice::parse_candidate;
use media_core::{IceCredentials, RemoteCandidate};
use reqwest::header::{CONTENT_TYPE, IF_MATCH, LOCATION};
use reqwest::{Client, StatusCode, Url};

use super::error::ClientError;
use crate::sdp::Answer;

/// Characters of an error body that are kept.
const MAX_BODY: usize = 400;

/// A WHIP or WHEP endpoint.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Shared by all clients.
    pub http: Client,
    /// Where offers go.
    pub url: String,
    /// Bearer token.
    pub token: Option<String>,
}

/// What the server answered to an ICE restart.
pub(crate) struct RestartedIce {
    pub(super) credentials: IceCredentials,
    pub(super) candidates: Vec<RemoteCandidate>,
}

/// A created session.
#[derive(Clone, Debug)]
pub(crate) struct Resource {
    pub(super) url: Url,
    http: Client,
    token: Option<String>,
}

impl Endpoint {
    /// The stream's name: the last segment of the path, and the query, in which some servers have it.
    pub fn stream(&self) -> &str {
        let url = self.url.split('#').next().unwrap_or_default().trim_end_matches('/');
        let path = url.split('?').next().unwrap_or_default();
        url.get(path.rfind('/').map_or(0, |slash| slash + 1)..).unwrap_or_default()
    }

    /// Posts an offer.
    pub(crate) async fn offer(&self, sdp: String) -> Result<(Answer, Resource), ClientError> {
        let http = |error: reqwest::Error| ClientError::Http(error.to_string());
        let url = Url::parse(&self.url).map_err(|error| ClientError::Http(error.to_string()))?;
        let mut request = self.http.post(url.clone()).header(CONTENT_TYPE, "application/sdp").body(sdp);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let response = request.send().await.map_err(http)?;
        let status = response.status();
        let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let body = response.text().await.map_err(http)?;
        if status != StatusCode::CREATED {
            return Err(ClientError::Refused { status: status.as_u16(), body: body.chars().take(MAX_BODY).collect() });
        }
        let location = location.and_then(|location| url.join(&location).ok());
        let url = location.ok_or_else(|| ClientError::Answer("the answer has no usable Location".into()))?;
        Ok((Answer::parse(&body)?, Resource { url, http: self.http.clone(), token: self.token.clone() }))
    }
}

impl Resource {
    /// Asks for an ICE restart with these credentials of the client (RFC 9725 §4.3.3).
    pub(crate) async fn restart_ice(&self, local: &IceCredentials) -> Result<RestartedIce, ClientError> {
        let http = |error: reqwest::Error| ClientError::Http(error.to_string());
        let fragment = format!("a=ice-ufrag:{}\r\na=ice-pwd:{}\r\n", local.ufrag, local.pwd);
        let mut request = self.http.patch(self.url.clone()).header(IF_MATCH, "*").body(fragment);
        request = request.header(CONTENT_TYPE, "application/trickle-ice-sdpfrag");
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let response = request.send().await.map_err(http)?;
        let status = response.status();
        let body = response.text().await.map_err(http)?;
        if status != StatusCode::OK {
            return Err(ClientError::Refused { status: status.as_u16(), body: body.chars().take(MAX_BODY).collect() });
        }
        let values = |name: &'static str| body.lines().filter_map(move |line| line.trim_end().strip_prefix(name));
        let (ufrag, pwd) = (values("a=ice-ufrag:").next(), values("a=ice-pwd:").next());
        let (Some(ufrag), Some(pwd)) = (ufrag, pwd) else {
            return Err(ClientError::Answer("the fragment has no ICE credentials".into()));
        };
        Ok(RestartedIce {
            credentials: IceCredentials { ufrag: ufrag.into(), pwd: pwd.into() },
            candidates: values("a=candidate:").filter_map(parse_candidate).collect(),
        })
    }

    /// Ends the session at the server. A server that has forgotten it already is as good.
    pub(crate) async fn delete(&self) -> Result<(), ClientError> {
        let mut request = self.http.delete(self.url.clone());
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let response = request.send().await.map_err(|error| ClientError::Http(error.to_string()))?;
        match response.status() {
            StatusCode::OK | StatusCode::NO_CONTENT | StatusCode::NOT_FOUND => Ok(()),
            status => Err(ClientError::Refused { status: status.as_u16(), body: String::new() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_the_last_segment_with_the_query() {
        for (url, stream) in [
            ("http://h/whip/a", "a"),
            ("http://h/whip/a/", "a"),
            ("http://h/whip/a#part", "a"),
            ("http://h/whip?app=live&stream=a", "whip?app=live&stream=a"),
            ("http://h/whip/a?x=/y", "a?x=/y"),
        ] {
            let endpoint = Endpoint { http: Client::new(), url: url.into(), token: None };
            assert_eq!(endpoint.stream(), stream);
        }
    }
}
