//! The HTTP client of the sources that are asked elsewhere.

use std::time::Duration;

use http::StatusCode;
use reqwest::redirect::Policy;
use reqwest::{RequestBuilder, Response};

/// Why there is no answer. It holds neither the URL nor anything of the request.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct FetchError(pub(crate) String);

impl From<reqwest::Error> for FetchError {
    fn from(error: reqwest::Error) -> FetchError {
        // What went wrong stands in the innermost cause.
        let error = error.without_url();
        let mut cause: &dyn std::error::Error = &error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        FetchError(format!("{error}: {cause}"))
    }
}

/// A client that follows no redirect, waits for so long and reads so much.
pub(crate) struct Client {
    /// Without it TLS cannot be set up, and every request fails.
    http: Result<reqwest::Client, String>,
}

impl Client {
    /// `timeout` is for all of a request.
    pub(crate) fn new(timeout: Duration) -> Client {
        let built = reqwest::Client::builder()
            // Whatever other clients in the process were built with.
            .http1_only()
            .timeout(timeout)
            // An answer from elsewhere is not the one of whom the operator named.
            .redirect(Policy::none())
            .user_agent(concat!("sluice/", env!("CARGO_PKG_VERSION")))
            .build();
        Client { http: built.map_err(|error| error.to_string()) }
    }

    pub(crate) async fn get(&self, url: &str, limit: usize) -> Result<(StatusCode, Vec<u8>), FetchError> {
        send(self.http()?.get(url), limit).await
    }

    /// Posts a body with these headers.
    pub(crate) async fn post(
        &self,
        url: &str,
        headers: Vec<(&'static str, String)>,
        body: String,
        limit: usize,
    ) -> Result<(StatusCode, Vec<u8>), FetchError> {
        let request = self.http()?.post(url).body(body);
        send(headers.into_iter().fold(request, |request, (name, value)| request.header(name, value)), limit).await
    }

    fn http(&self) -> Result<&reqwest::Client, FetchError> {
        self.http.as_ref().map_err(|error| FetchError(error.clone()))
    }
}

async fn send(request: RequestBuilder, limit: usize) -> Result<(StatusCode, Vec<u8>), FetchError> {
    let mut response: Response = request.send().await?;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > limit {
            return Err(FetchError(format!("the answer has more than {limit} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok((response.status(), body))
}
