//! HTTP towards a certificate authority, with bounds.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt as _;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use reqwest::redirect::Policy;

/// For all of a request.
const REQUEST_TIME: Duration = Duration::from_secs(30);

/// Bytes of the longest answer that is read; a chain has some 8 KiB.
const LONGEST_ANSWER: usize = 256 * 1024;

/// Follows no redirect, waits for so long and reads so much. Who it is that answers, OpenSSL checks by the system's roots.
pub(super) struct Client(reqwest::Client);

impl Client {
    pub(super) fn new() -> Result<Client, Error> {
        let built = reqwest::Client::builder().http1_only().timeout(REQUEST_TIME).redirect(Policy::none()).build();
        built.map(Client).map_err(other)
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let http = self.0.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let Ok(body) = body.collect().await;
            let body = body.to_bytes();
            let request = reqwest::Request::try_from(Request::from_parts(parts, body)).map_err(other)?;
            let mut answer = http.execute(request).await.map_err(other)?;
            let mut read = Vec::new();
            while let Some(chunk) = answer.chunk().await.map_err(other)? {
                if read.len() + chunk.len() > LONGEST_ANSWER {
                    return Err(Error::Other(format!("the answer has more than {LONGEST_ANSWER} bytes").into()));
                }
                read.extend_from_slice(&chunk);
            }
            let (parts, ()) = http::Response::<reqwest::Body>::from(answer).map(|_| ()).into_parts();
            Ok(BytesResponse { parts, body: Box::new(Bytes::from(read)) })
        })
    }
}

/// What went wrong stands in the innermost cause.
fn other(error: reqwest::Error) -> Error {
    let mut cause: &dyn std::error::Error = &error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    Error::Other(format!("{error}: {cause}").into())
}
