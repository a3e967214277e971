//! No body, however broken, may panic the server or leave a half-made session behind (OPS-07).

#[path = "../support/mod.rs"]
mod support;

use rand::SeedableRng;
use rand::rngs::StdRng;
use signaling::{Limits, SignalingConfig};
use support::{App, PUBLISH_OFFERS, WATCH_OFFERS, golden, mutate};

#[tokio::test]
async fn broken_offers_get_an_answer_or_a_problem() {
    let mut random = StdRng::seed_from_u64(0x9e37_79b9_7f4a_7c15);
    let app = App::new(SignalingConfig { limits: Limits::NONE, ..SignalingConfig::default() });
    app.post("/whip/watched", &golden("chromium-publish")).await;
    let (mut taken, mut refused) = (0, 0);
    for round in 0..150 {
        let offers =
            PUBLISH_OFFERS.iter().map(|name| ("whip", name)).chain(WATCH_OFFERS.iter().map(|name| ("whep", name)));
        for (side, name) in offers {
            let body = mutate(&mut random, golden(name).as_bytes());
            let path = if side == "whip" { format!("/whip/{name}-{round}") } else { "/whep/watched".to_owned() };
            let reply = app.send("POST", &path, &[("content-type", "application/sdp")], body).await;
            match reply.status.as_u16() {
                201 => taken += 1,
                400 | 422 => {
                    reply.code();
                    refused += 1;
                }
                status => panic!("{status} to a mutation of {name}: {}", reply.body),
            }
        }
    }
    assert!(taken > 200 && refused > 200, "{taken} taken, {refused} refused");
    assert_eq!(app.core.recorded().opened.len(), taken + 1);
}

#[tokio::test]
async fn broken_fragments_are_taken_or_get_a_problem() {
    let mut random = StdRng::seed_from_u64(42);
    let app = App::new(SignalingConfig { limits: Limits::NONE, ..SignalingConfig::default() });
    let mut restarts = 0;
    let mut session = None;
    for _ in 0..3000 {
        let (url, etag, fragment) = match session.take() {
            Some(session) => session,
            None => open_for_fragments(&app, restarts).await,
        };
        let body = mutate(&mut random, fragment.as_bytes());
        let headers = [("content-type", "application/trickle-ice-sdpfrag"), ("if-match", etag.as_str())];
        let status = app.send("PATCH", &url, &headers, body).await.status.as_u16();
        assert!([200, 204, 400, 422].contains(&status), "{status}");
        // Two credentials that were both changed are a restart: the session has others from now on.
        if status == 200 {
            restarts += 1;
        } else {
            session = Some((url, etag, fragment));
        }
    }
    assert!(app.core.recorded().candidates.len() <= 100 * (1 + restarts));
}

/// A session's URL and tag, and a fragment for it.
async fn open_for_fragments(app: &App, nth: usize) -> (String, String, String) {
    let reply = app.post(&format!("/whip/s{nth}"), &golden("chromium-publish")).await;
    let remote = app.core.last().ice.remote;
    let fragment = format!(
        "a=ice-ufrag:{}\r\na=ice-pwd:{}\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n\
        a=candidate:1 1 udp 1 192.0.2.1 61764 typ host generation 0 ufrag {}\r\na=end-of-candidates\r\n",
        remote.ufrag, remote.pwd, remote.ufrag
    );
    (reply.header("location").to_owned(), reply.header("etag").to_owned(), fragment)
}
