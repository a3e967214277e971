use super::*;

fn connections(total: usize, per_address: usize) -> Arc<Connections> {
    let limits = ConnectionLimits { total, per_address, ..ConnectionLimits::default() };
    Connections::new(limits, Arc::new(Metrics::new().unwrap()))
}

fn ip(text: &str) -> ClientAddress {
    ClientAddress(text.parse().unwrap())
}

// F-09
#[tokio::test(start_paused = true)]
async fn the_longest_quiet_connection_of_an_address_gives_place_to_its_next_one() {
    let connections = connections(100, 2);
    let one = Arc::new(connections.admit(Listener::Public, ip("2001:db8::1")).unwrap());
    let busy = one.request();
    busy.received();
    let _two = connections.admit(Listener::Public, ip("2001:db8::2")).unwrap();
    assert!(connections.admit(Listener::Public, ip("2001:db8::3")).is_none(), "both may just be beginning");
    tokio::time::advance(GRACE).await;
    let three = connections.admit(Listener::Public, ip("2001:db8::3")).unwrap();
    assert!(connections.admit(Listener::Public, ip("2001:db8:0:1::1")).is_some(), "another customer");
    assert!(connections.admit(Listener::Admin, ip("2001:db8::1")).is_some(), "another listener");
    tokio::time::advance(GRACE).await;
    let four = connections.admit(Listener::Public, ip("2001:db8::4"));
    assert!(four.is_some(), "the third one gave place");
    three.evicted().await;
    assert!(connections.admit(Listener::Public, ip("2001:db8::5")).is_none(), "one is busy, one is new");
    drop(busy);
    tokio::time::advance(GRACE).await;
    assert!(connections.admit(Listener::Public, ip("2001:db8::5")).is_some());
}

// F-09
#[tokio::test(start_paused = true)]
async fn the_total_is_bounded_for_each_listener() {
    let connections = connections(3, 2);
    let held: Vec<_> = (1..=3).map(|n| connections.admit(Listener::Public, ip(&format!("192.0.2.{n}")))).collect();
    assert!(held.iter().all(Option::is_some));
    assert!(connections.admit(Listener::Public, ip("192.0.2.4")).is_none());
    assert!(connections.admit(Listener::Admin, ip("192.0.2.4")).is_some());
    tokio::time::advance(GRACE).await;
    let next = connections.admit(Listener::Public, ip("192.0.2.4"));
    assert!(next.is_some());
    held[0].as_ref().unwrap().evicted().await;
    drop((held, next));
    let open = connections.lock();
    assert!(open.entries.is_empty() && open.addresses.is_empty());
    for listener in &open.listeners {
        assert!(listener.total == 0 && listener.quiet.is_empty() && listener.ranking.is_empty());
    }
}

// H2
#[tokio::test(start_paused = true)]
async fn the_address_with_the_most_quiet_connections_gives_place_at_once() {
    let connections = connections(10, 10);
    let mut greedy: Vec<_> =
        (0..9).map(|_| Arc::new(connections.admit(Listener::Public, ip("192.0.2.1")).unwrap())).collect();
    let one = Arc::new(connections.admit(Listener::Public, ip("192.0.2.2")).unwrap());
    // All of them may just be beginning, and it has not one.
    let newcomer = connections.admit(Listener::Public, ip("192.0.2.3"));
    assert!(newcomer.is_some());
    greedy.remove(0).evicted().await;
    assert!(connections.admit(Listener::Public, ip("192.0.2.1")).is_none(), "not by its own newcomers");
    assert!(connections.is_full_for(Listener::Public, ip("192.0.2.1")), "but in a moment");
    // Requests in progress are not taken from anybody.
    let busy: Vec<_> = greedy.iter().map(Connection::request).collect();
    busy.iter().for_each(RequestInProgress::received);
    assert!(connections.admit(Listener::Public, ip("192.0.2.3")).is_none());
    drop(busy);
    assert!(connections.admit(Listener::Public, ip("192.0.2.4")).is_some());
    drop(one);
}

// H2
#[tokio::test(start_paused = true)]
async fn trusted_proxies_have_no_bound_of_their_own_and_others_keep_theirs() {
    let metrics = Arc::new(Metrics::new().unwrap());
    let limits = ConnectionLimits { total: 10, per_address: 2, ..ConnectionLimits::default() };
    let is_proxy = |ip: IpAddr| ip == IpAddr::from([10, 0, 0, 1]);
    let connections = Connections::behind_proxies(limits, metrics, Box::new(is_proxy));
    let of_proxy: Vec<_> = (0..8).map(|_| connections.admit(Listener::Public, ip("::ffff:10.0.0.1"))).collect();
    assert!(of_proxy.iter().all(Option::is_some));
    let others: Vec<_> = (0..3).map(|_| connections.admit(Listener::Public, ip("192.0.2.1"))).collect();
    assert_eq!(others.iter().flatten().count(), 2);
    assert!(connections.admit(Listener::Public, ip("192.0.2.2")).is_none(), "the total counts for all");
}

// H2
#[tokio::test(start_paused = true)]
async fn where_files_are_short_the_admin_listener_keeps_its_connections() {
    let connections = connections(10, 10);
    let admin = connections.admit(Listener::Admin, ip("127.0.0.1")).unwrap();
    tokio::time::advance(GRACE).await;
    assert!(!connections.make_room());
    let public = connections.admit(Listener::Public, ip("192.0.2.1")).unwrap();
    tokio::time::advance(GRACE).await;
    assert!(connections.make_room());
    public.evicted().await;
    assert!(connections.lock().entries.contains_key(&admin.id));
}

// H2
#[tokio::test(start_paused = true)]
async fn a_request_whose_body_is_not_complete_keeps_no_place() {
    let connections = connections(2, 2);
    let slow = Arc::new(connections.admit(Listener::Public, ip("192.0.2.1")).unwrap());
    let busy = Arc::new(connections.admit(Listener::Public, ip("192.0.2.1")).unwrap());
    let (unfinished, finished) = (slow.request(), busy.request());
    finished.received();
    tokio::time::advance(GRACE).await;
    assert!(connections.admit(Listener::Public, ip("192.0.2.1")).is_some());
    slow.evicted().await;
    drop((unfinished, slow));
    assert!(busy.quiet_since().is_none());
    drop(finished);
    assert!(busy.quiet_since().is_some());
}

// H2
#[test]
fn files_are_kept_for_the_admin_listener_and_for_work() {
    let limits = ConnectionLimits::default();
    assert_eq!(limits.within_files(usize::MAX), limits);
    let within = limits.within_files(1000);
    assert_eq!((within.total, within.admin), (872, 64));
    let within = limits.within_files(30);
    assert_eq!((within.total, within.admin), (15, 7));
    let within = limits.within_files(0);
    assert_eq!((within.total, within.admin), (1, 1));
}

// H2
#[tokio::test]
async fn bytes_that_ask_for_nothing_are_bounded_between_requests() {
    let connections = connections(10, 10);
    let one = Arc::new(connections.admit(Listener::Public, ip("192.0.2.1")).unwrap());
    for _ in 0..3 {
        assert!(one.received(MAX_UNASKED as usize));
        one.request().answered();
    }
    assert!(one.received(MAX_UNASKED as usize) && !one.received(1));
}

// H2
#[tokio::test]
async fn who_abandons_far_more_requests_than_it_lets_be_answered_is_closed() {
    let connections = connections(10, 10);
    let one = Arc::new(connections.admit(Listener::Public, ip("192.0.2.1")).unwrap());
    let is_closed = async || tokio::time::timeout(Duration::ZERO, one.evicted()).await.is_ok();
    for _ in 0..1000 {
        drop(one.request());
        one.request().answered();
    }
    assert!(!is_closed().await, "each second one was answered");
    (0..MAX_ABANDONED).for_each(|_| drop(one.request()));
    assert!(!is_closed().await);
    drop(one.request());
    assert!(is_closed().await);
}
