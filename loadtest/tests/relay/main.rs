//! The relay with real sockets: an echo and a small HTTP server after it.

// Helpers of tests may panic like the tests themselves.
#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use loadtest::relay::{Direction, LinkOptions, Relay, RelayCounts, RelayOptions};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;
use tokio::time::timeout;

/// Nothing takes this long, not even on a machine that does other things.
const LONG: Duration = Duration::from_secs(10);
/// What has not come by then, does not come.
const SILENCE: Duration = Duration::from_millis(200);

/// Sends every datagram back, and knows where they came from.
struct Echo {
    address: SocketAddr,
    sources: Arc<Mutex<Vec<SocketAddr>>>,
}

impl Echo {
    async fn start() -> Echo {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let echo = Echo { address: socket.local_addr().unwrap(), sources: Arc::default() };
        let sources = Arc::clone(&echo.sources);
        tokio::spawn(async move {
            let mut buffer = [0; 2048];
            loop {
                // The errors are those of clients that are gone.
                let Ok((length, source)) = socket.recv_from(&mut buffer).await else { continue };
                sources.lock().unwrap().push(source);
                let _ = socket.send_to(&buffer[..length], source).await;
            }
        });
        echo
    }

    fn sources(&self) -> HashSet<SocketAddr> {
        self.sources.lock().unwrap().iter().copied().collect()
    }

    fn received(&self) -> usize {
        self.sources.lock().unwrap().len()
    }
}

/// A client of one port of a relay.
struct Client(UdpSocket);

impl Client {
    async fn of(port: SocketAddr) -> Client {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(port).await.unwrap();
        Client(socket)
    }

    async fn send(&self, number: u32) {
        self.0.send(&number.to_be_bytes()).await.unwrap();
    }

    async fn receive(&self, within: Duration) -> Option<u32> {
        let mut buffer = [0; 2048];
        let length = timeout(within, self.0.recv(&mut buffer)).await.ok()?.unwrap();
        Some(u32::from_be_bytes(buffer[..length].get(..4)?.try_into().unwrap()))
    }

    /// Sends one and waits until it is back.
    async fn ping(&self, number: u32) -> Duration {
        let begun = Instant::now();
        self.send(number).await;
        assert_eq!(self.receive(LONG).await, Some(number));
        begun.elapsed()
    }
}

fn relay(up: LinkOptions, down: LinkOptions) -> Relay {
    Relay::start(RelayOptions { up, down, ..RelayOptions::default() }).unwrap()
}

fn perfect() -> LinkOptions {
    LinkOptions::default()
}

/// Waits until the counts satisfy a condition.
async fn counted(relay: &Relay, what: &str, condition: impl Fn(&RelayCounts) -> bool) -> RelayCounts {
    let begun = Instant::now();
    loop {
        let counts = relay.counts();
        if condition(&counts) {
            return counts;
        }
        assert!(begun.elapsed() < LONG, "{what}: {counts:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn every_client_has_a_port_of_its_own_towards_the_server() {
    let echo = Echo::start().await;
    let relay = relay(perfect(), perfect());
    let port = relay.port_to(echo.address).unwrap();
    assert_eq!(relay.port_to(echo.address).unwrap(), port, "one port leads to one address");
    let clients = [Client::of(port).await, Client::of(port).await];
    for number in 0..50 {
        for client in &clients {
            client.ping(number).await;
        }
    }
    assert_eq!((echo.received(), echo.sources().len()), (100, 2));
    let counts = counted(&relay, "all passed", |counts| counts.down.forwarded == 100).await;
    assert_eq!((counts.up.received, counts.up.forwarded, counts.down.received), (100, 100, 100));
    assert_eq!((counts.up.received_bytes, counts.down.forwarded_bytes), (400, 400));
    assert_eq!((counts.ports, counts.flows, counts.flows_opened), (1, 2, 2));
    assert_eq!((counts.refused, counts.overflowed, counts.unsent), (0, 0, 0));
    relay.stop();
}

#[tokio::test]
async fn delays_of_both_ways_add_up_and_are_kept_to_a_few_milliseconds() {
    let echo = Echo::start().await;
    let delayed = |delay| LinkOptions { delay, ..perfect() };
    let relay = relay(delayed(30.0), delayed(10.0));
    let client = Client::of(relay.port_to(echo.address).unwrap()).await;
    let mut fastest = LONG;
    for number in 0..20 {
        fastest = fastest.min(client.ping(number).await);
    }
    // The machine may pause now and then, but not each time.
    assert!((Duration::from_millis(39)..Duration::from_millis(55)).contains(&fastest), "{fastest:?}");
}

#[tokio::test]
async fn losses_and_duplicates_are_those_that_are_counted() {
    let echo = Echo::start().await;
    let up = LinkOptions { loss: 20.0, ..perfect() };
    let down = LinkOptions { burst_enter: 5.0, burst_leave: 50.0, duplicate: 10.0, ..perfect() };
    let relay = relay(up, down);
    let client = Client::of(relay.port_to(echo.address).unwrap()).await;
    let mut received = 0;
    for number in 0..1000 {
        client.send(number).await;
        if number % 10 == 9 {
            let whole = |counts: &RelayCounts| {
                let (up, down) = (counts.up, counts.down);
                up.received == u64::from(number) + 1
                    && up.forwarded + up.lost == up.received
                    && down.received == up.forwarded
                    && down.forwarded + down.lost_in_bursts == down.received + down.duplicated
            };
            let counts = counted(&relay, "what is not lost passes", whole).await;
            while received < counts.down.forwarded {
                assert!(client.receive(LONG).await.is_some());
                received += 1;
            }
        }
    }
    let counts = relay.stop();
    assert_eq!(echo.received() as u64, counts.up.forwarded);
    assert!((140..260).contains(&counts.up.lost), "{counts:?}");
    assert!((20..160).contains(&counts.down.lost_in_bursts), "{counts:?}");
    assert!((40..130).contains(&counts.down.duplicated), "{counts:?}");
    assert_eq!(client.receive(SILENCE).await, None);
}

#[tokio::test]
async fn a_bottleneck_lets_through_what_its_rate_allows_and_drops_the_rest() {
    let echo = Echo::start().await;
    // 1000 bytes with headers: 4 ms each. 26 find a place: one that is sent, and 100 ms of others.
    let relay = relay(LinkOptions { rate: 2000.0, queue: 100.0, ..perfect() }, perfect());
    let client = Client::of(relay.port_to(echo.address).unwrap()).await;
    let begun = Instant::now();
    for _ in 0..60 {
        client.0.send(&[0; 972]).await.unwrap();
    }
    let counts =
        counted(&relay, "the queue is empty", |counts| counts.up.forwarded + counts.up.dropped_by_queue == 60).await;
    // As many more as the burst itself took time.
    let took = begun.elapsed();
    assert!(counts.up.forwarded >= 26 && took >= Duration::from_millis(4) * counts.up.forwarded as u32, "{counts:?}");
    let longest = counts.up.longest_queue_us;
    assert!(counts.up.dropped_by_queue > 0 && (50_000..=100_000).contains(&longest), "{counts:?}");
    relay.set_link(Direction::Up, perfect()).unwrap();
    assert_eq!(relay.counts().up.longest_queue_us, 0, "it is that of the links as they are");
}

#[tokio::test]
async fn links_change_while_packets_pass() {
    let echo = Echo::start().await;
    let relay = relay(perfect(), perfect());
    let client = Client::of(relay.port_to(echo.address).unwrap()).await;
    client.ping(0).await;
    let lossy = LinkOptions { loss: 100.0, ..perfect() };
    relay.set_link(Direction::Down, lossy).unwrap();
    assert_eq!((relay.link(Direction::Up), relay.link(Direction::Down)), (perfect(), lossy));
    client.send(1).await;
    counted(&relay, "it is lost", |counts| counts.down.lost == 1).await;
    assert!(relay.set_link(Direction::Down, LinkOptions { loss: 101.0, ..perfect() }).is_err());
    relay.set_link(Direction::Down, perfect()).unwrap();
    client.ping(2).await;
    assert_eq!(echo.received(), 3);
}

#[tokio::test]
async fn a_rebound_client_comes_from_another_port_and_receives_nothing_through_the_old_one() {
    let echo = Echo::start().await;
    let relay = relay(perfect(), LinkOptions { delay: 1.0, ..perfect() });
    let client = Client::of(relay.port_to(echo.address).unwrap()).await;
    for round in 0..3 {
        client.ping(round).await;
        relay.rebind();
        counted(&relay, "it is rebound", |counts| counts.rebound == u64::from(round) + 1).await;
    }
    client.ping(9).await;
    assert_eq!(echo.sources().len(), 4);
    let old = echo.sources.lock().unwrap()[0];
    let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    server.send_to(b"late", old).await.unwrap();
    assert_eq!(client.receive(SILENCE).await, None);
    assert_eq!(relay.stop().flows_opened, 1);
}

#[tokio::test]
async fn ports_change_by_themselves_when_asked_to() {
    let echo = Echo::start().await;
    let rebind_every = Some(Duration::from_millis(20));
    let relay = Relay::start(RelayOptions { rebind_every, ..RelayOptions::default() }).unwrap();
    let client = Client::of(relay.port_to(echo.address).unwrap()).await;
    client.send(0).await;
    counted(&relay, "several ports", |counts| counts.rebound >= 3).await;
}

#[tokio::test]
async fn clients_beyond_the_limit_are_refused_and_counted() {
    let echo = Echo::start().await;
    let relay = Relay::start(RelayOptions { max_flows: 2, ..RelayOptions::default() }).unwrap();
    let port = relay.port_to(echo.address).unwrap();
    let clients = [Client::of(port).await, Client::of(port).await, Client::of(port).await];
    clients[0].ping(0).await;
    clients[1].ping(1).await;
    clients[2].send(2).await;
    let counts = counted(&relay, "one is refused", |counts| counts.refused == 1).await;
    assert_eq!((counts.flows, counts.flows_opened), (2, 2));
    clients[0].ping(3).await;
    assert_eq!(echo.received(), 3);
}

#[tokio::test]
async fn server_addresses_beyond_the_limit_get_no_port() {
    let relay = relay(perfect(), perfect());
    let server = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let opened = (1..=1000).take_while(|port| relay.port_to(server(*port)).is_ok()).count();
    assert_eq!(opened, 256);
    assert!(relay.port_to(server(1)).is_ok(), "known ones keep theirs");
}

/// What the server behind the relay was asked.
type Asked = Arc<Mutex<Vec<(Method, String, HeaderMap, String)>>>;

/// A WHIP server as far as HTTP goes. Its candidates are those of the echo.
struct Fake {
    url: String,
    asked: Asked,
}

impl Fake {
    async fn start(echo: SocketAddr) -> Fake {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Asked::default();
        let state = (echo, url.clone(), Arc::clone(&asked));
        let routes = Router::new()
            .route("/moved", get(async || (StatusCode::TEMPORARY_REDIRECT, [("location", "//elsewhere.example/x")])))
            .fallback(any(answer))
            .with_state(state);
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Fake { url, asked }
    }

    fn last(&self) -> (Method, String, HeaderMap, String) {
        self.asked.lock().unwrap().last().unwrap().clone()
    }
}

async fn answer(State((echo, url, asked)): State<(SocketAddr, String, Asked)>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let path = parts.uri.to_string();
    let text = String::from_utf8(body.to_vec()).unwrap();
    asked.lock().unwrap().push((parts.method.clone(), path.clone(), parts.headers, text));
    let candidates = format!(
        "a=candidate:1 1 udp 2130706431 {} {} typ host\r\na=candidate:2 1 tcp 1 {0} 1 typ host tcptype passive\r\n",
        echo.ip(),
        echo.port()
    );
    match (parts.method.as_str(), path.as_str()) {
        ("POST", _) => {
            let location =
                if path.ends_with("absolute") { format!("{url}/session/1?a=b") } else { "/session/1".into() };
            let link = format!("<{url}/session/1/events>; rel=\"events\", <stun:stun.example>; rel=\"ice-server\"");
            let headers = [("content-type", "application/sdp"), ("etag", "\"tag\""), ("connection", "x-private")];
            let more = [("location", location), ("link", link), ("x-private", "1".into())];
            (StatusCode::CREATED, headers, more, format!("v=0\r\nm=audio 9 X 111\r\n{candidates}")).into_response()
        }
        ("PATCH", _) => ([("content-type", "application/trickle-ice-sdpfrag")], candidates).into_response(),
        ("OPTIONS", _) => (StatusCode::NO_CONTENT, [("access-control-allow-headers", "Authorization")]).into_response(),
        ("GET", "/page") => "a=candidate:1 1 udp 1 1.2.3.4 5 typ host".into_response(),
        _ => (StatusCode::IM_A_TEAPOT, [("x-reason", "none")], "short").into_response(),
    }
}

async fn in_front_of(fake: &Fake) -> (Relay, reqwest::Client) {
    let options = RelayOptions { target: fake.url.clone(), ..RelayOptions::default() };
    let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().build().unwrap();
    (Relay::start(options).unwrap(), http)
}

/// The address in the only candidate of a description.
fn only_candidate(sdp: &str) -> SocketAddr {
    let mut lines = sdp.lines().filter_map(|line| line.strip_prefix("a=candidate:"));
    let words: Vec<&str> = lines.next().unwrap().split(' ').collect();
    assert!(lines.next().is_none(), "{sdp}");
    format!("{}:{}", words[4], words[5]).parse().unwrap()
}

const OFFER: &str =
    "v=0\r\nm=audio 50000 X 111\r\nc=IN IP4 192.0.2.1\r\na=candidate:1 1 udp 1 192.0.2.1 50000 typ host\r\n";

#[tokio::test]
async fn a_session_leads_through_the_relay_in_http_and_in_media() {
    let echo = Echo::start().await;
    let fake = Fake::start(echo.address).await;
    let (relay, http) = in_front_of(&fake).await;
    let post = |path: &str| {
        let request = http.post(format!("{}{path}", relay.url())).header("content-type", "application/sdp");
        request.bearer_auth("secret").header("accept-encoding", "gzip").body(OFFER).send()
    };
    let reply = post("/whep/s?x=%20y").await.unwrap();
    assert_eq!(reply.status(), 201);
    let header = |name: &str| reply.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    assert_eq!(header("location").unwrap(), "/session/1");
    assert_eq!(header("etag").unwrap(), "\"tag\"");
    let link = format!("<{}/session/1/events>; rel=\"events\", <stun:stun.example>; rel=\"ice-server\"", relay.url());
    assert_eq!((header("link").unwrap(), header("x-private")), (link, None));
    let sdp = reply.text().await.unwrap();
    let port = only_candidate(&sdp);
    assert!(port != echo.address && sdp.starts_with("v=0\r\nm=audio 9 X 111\r\na=candidate:1 1 udp"), "{sdp}");
    Client::of(port).await.ping(1).await;

    let (method, path, headers, body) = fake.last();
    assert_eq!((method, path.as_str()), (Method::POST, "/whep/s?x=%20y"));
    assert_eq!((&headers["authorization"], headers.get("accept-encoding")), (&"Bearer secret".parse().unwrap(), None));
    assert_eq!(format!("http://{}", headers["host"].to_str().unwrap()), fake.url);
    assert_eq!(body, "v=0\r\nm=audio 9 X 111\r\nc=IN IP4 0.0.0.0\r\n", "the client's addresses stay hidden");

    let reply = post("/whep/absolute").await.unwrap();
    assert_eq!(reply.headers()["location"], format!("{}/session/1?a=b", relay.url()));
    assert_eq!(only_candidate(&reply.text().await.unwrap()), port, "one address of the server is one port");

    let patch = http.patch(format!("{}/session/1", relay.url())).header("if-match", "\"tag\"");
    let fragment = "a=ice-ufrag:u\r\na=candidate:1 1 udp 1 192.0.2.1 50000 typ host\r\n";
    let patch = patch.header("content-type", "application/trickle-ice-sdpfrag").body(fragment);
    let reply = patch.send().await.unwrap();
    assert_eq!((reply.status().as_u16(), only_candidate(&reply.text().await.unwrap())), (200, port));
    let (_, _, headers, body) = fake.last();
    assert_eq!((headers["if-match"].to_str().unwrap(), body.as_str()), ("\"tag\"", "a=ice-ufrag:u\r\n"));
    assert_eq!(relay.stop().ports, 1);
}

#[tokio::test]
async fn everything_else_passes_as_it_is() {
    let fake = Fake::start("127.0.0.1:9".parse().unwrap()).await;
    let (relay, http) = in_front_of(&fake).await;
    let url = |path: &str| format!("{}{path}", relay.url());
    let reply = http.request(Method::OPTIONS, url("/whip/s")).header("origin", "http://o").send().await.unwrap();
    assert_eq!(
        (reply.status().as_u16(), &reply.headers()["access-control-allow-headers"]),
        (204, &"Authorization".parse().unwrap())
    );
    assert_eq!(fake.last().2["origin"], "http://o");
    let reply = http.delete(url("/session/1")).send().await.unwrap();
    assert_eq!((reply.status().as_u16(), &reply.headers()["x-reason"]), (418, &"none".parse().unwrap()));
    assert_eq!(reply.text().await.unwrap(), "short");
    let reply = http.head(url("//two/slashes")).send().await.unwrap();
    assert_eq!((reply.status().as_u16(), &reply.headers()["content-length"]), (418, &"5".parse().unwrap()));
    assert_eq!(fake.last().1, "//two/slashes");
    let page = http.get(url("/page")).send().await.unwrap().text().await.unwrap();
    assert_eq!(page, "a=candidate:1 1 udp 1 1.2.3.4 5 typ host", "only descriptions are rewritten");
    let reply = http.get(url("/moved")).send().await.unwrap();
    assert_eq!(
        (reply.status().as_u16(), reply.headers()["location"].to_str().unwrap()),
        (307, "//elsewhere.example/x")
    );
    assert_eq!(relay.counts().ports, 0);
}

#[tokio::test]
async fn what_the_relay_cannot_hand_on_it_refuses() {
    let fake = Fake::start("127.0.0.1:9".parse().unwrap()).await;
    let (relay, http) = in_front_of(&fake).await;
    let reply = http.post(format!("{}/whip/s", relay.url())).body(vec![b'x'; (1 << 20) + 1]).send().await.unwrap();
    assert_eq!(reply.status(), 413);
    let offer = http.post(format!("{}/whip/s", relay.url())).header("content-type", "application/sdp; charset=x");
    assert_eq!(offer.body(vec![0xff]).send().await.unwrap().status(), 400);
    assert!(fake.asked.lock().unwrap().is_empty());

    // Nobody listens at port 9, and the system gives it to nobody.
    let options = RelayOptions { target: "http://127.0.0.1:9".into(), ..RelayOptions::default() };
    let relay = Relay::start(options).unwrap();
    assert_eq!(http.get(relay.url()).send().await.unwrap().status(), 502);
}

/// A server that closes a connection with its second request, as one does that has just found it idle for too long.
async fn one_answer_a_connection() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut connection, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut request = [0; 4096];
                let length = connection.read(&mut request).await.unwrap();
                assert!(request[..length].ends_with(b"\r\n\r\n"));
                connection.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
                let _ = connection.read(&mut request).await;
            });
        }
    });
    url
}

#[tokio::test]
async fn a_connection_that_the_server_closes_takes_no_request_with_it() {
    let options = RelayOptions { target: one_answer_a_connection().await, ..RelayOptions::default() };
    let relay = Relay::start(options).unwrap();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    for _ in 0..2 {
        assert_eq!(http.post(relay.url()).send().await.unwrap().status(), 204);
    }
}

#[tokio::test]
async fn links_are_changed_and_counts_read_over_http() {
    let echo = Echo::start().await;
    let fake = Fake::start(echo.address).await;
    let (relay, http) = in_front_of(&fake).await;
    let url = |path: &str| format!("{}/relay/{path}", relay.url());
    let body = json!({ "both": { "loss": 5, "delay": 50 }, "down": { "loss": 2.5, "queue-bytes": 4000 } });
    let reply = http.post(url("link")).body(body.to_string()).send().await.unwrap();
    assert_eq!(reply.status(), 200);
    let links: Value = serde_json::from_str(&reply.text().await.unwrap()).unwrap();
    assert_eq!((&links["up"]["loss"], &links["down"]["loss"]), (&json!(5.0), &json!(2.5)));
    let down = LinkOptions { loss: 2.5, delay: 50.0, queue_bytes: 4000, ..perfect() };
    assert_eq!(relay.link(Direction::Down), down);
    assert_eq!(relay.link(Direction::Up), LinkOptions { loss: 5.0, delay: 50.0, ..perfect() });

    for bad in [r#"{"both": {"lost": 5}}"#, r#"{"up": {"loss": 500}}"#, r#"{"loss": 5}"#, "", "5"] {
        let reply = http.post(url("link")).body(bad).send().await.unwrap();
        assert_eq!(reply.status(), 400, "{bad}");
    }
    assert_eq!(relay.link(Direction::Down), down, "what is refused changes nothing");
    let reply = http.post(url("link")).body(r#"{"both": {"loss": 0, "delay": 0}}"#).send().await.unwrap();
    assert_eq!(reply.status(), 200);

    let client = Client::of(relay.port_to(echo.address).unwrap()).await;
    client.ping(1).await;
    assert_eq!(http.post(url("rebind")).send().await.unwrap().status(), 204);
    counted(&relay, "it is rebound", |counts| counts.rebound == 1).await;
    client.ping(2).await;
    counted(&relay, "both passed", |counts| counts.down.forwarded == 2).await;
    let counts = http.get(url("counts")).send().await.unwrap().text().await.unwrap();
    let counts: Value = serde_json::from_str(&counts).unwrap();
    assert_eq!(
        (&counts["up"]["forwarded"], &counts["down"]["lost"], &counts["rebound"]),
        (&json!(2), &json!(0), &json!(1))
    );
    assert!(fake.asked.lock().unwrap().is_empty(), "the server is not asked");
}
