//! What systemd is told, over a real datagram socket.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use crate::support::{LONG, Sluice};

/// A service manager's socket, under an abstract name or in the file system.
fn socket(name: &str) -> UnixDatagram {
    let address = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name).unwrap(),
        None => SocketAddr::from_pathname(name).unwrap(),
    };
    let socket = UnixDatagram::bind_addr(&address).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

/// The next word that is no ping.
async fn next(socket: &UnixDatagram) -> String {
    let word = async {
        loop {
            match heard(socket) {
                Some(word) if word != "WATCHDOG=1" => return word,
                Some(_) => {}
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    tokio::time::timeout(LONG, word).await.unwrap()
}

fn heard(socket: &UnixDatagram) -> Option<String> {
    let mut buffer = [0; 512];
    let length = socket.recv(&mut buffer).ok()?;
    Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
}

#[tokio::test]
async fn the_service_manager_is_told_of_start_reload_and_stop() {
    let id = std::process::id();
    let path = std::env::temp_dir().join(format!("sluice-notify-{id}"));
    for name in [path.to_str().unwrap(), &format!("@sluice-notify-{id}")] {
        let manager = socket(name);
        let mut server = Sluice::start_in(&[("NOTIFY_SOCKET", name)], &["--drain-timeout", "10s"]).await;
        assert_eq!(next(&manager).await, "READY=1");
        for cause in ["signal", "API"] {
            match cause {
                "signal" => server.signal("HUP"),
                _ => drop(server.http.post(format!("{}/api/v1/reload", server.admin)).send().await.unwrap()),
            }
            let word = next(&manager).await;
            let time = word.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect(&word);
            assert!(time.parse::<u64>().unwrap() > 0);
            assert_eq!(next(&manager).await, "READY=1");
        }
        server.terminate();
        assert_eq!(next(&manager).await, "STOPPING=1\nEXTEND_TIMEOUT_USEC=14000000");
        assert_eq!(server.exited(LONG).await.code(), Some(0));
    }
    std::fs::remove_file(path).unwrap();
}

// C2
#[tokio::test]
async fn the_watchdog_is_pinged_while_every_part_lives_and_no_longer() {
    let name = format!("@sluice-watchdog-{}", std::process::id());
    let manager = socket(&name);
    // As systemd does it: the process, if it says which one, is this one; of an unknown process it is none.
    let mut server =
        Sluice::start_in(&[("NOTIFY_SOCKET", &name), ("WATCHDOG_USEC", "900000")], &["--shards", "2"]).await;
    server.expects_errors();
    let mut pings = 0;
    let begun = Instant::now();
    while pings < 5 {
        assert!(begun.elapsed() < LONG);
        match heard(&manager) {
            Some(word) => pings += usize::from(word == "WATCHDOG=1"),
            None => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
    server.fault("shard/1/freeze").await;
    assert_eq!(server.exited(LONG).await.code(), Some(70));
    // From the missed beats on there was none: 300 ms apart they would be 30 in the time until the end.
    let pings = std::iter::from_fn(|| heard(&manager)).count();
    assert!(pings < 15, "{pings}");
}

// C1: whoever does not read holds nobody up.
#[tokio::test]
async fn a_service_manager_that_does_not_read_is_not_waited_for() {
    let name = format!("@sluice-deaf-{}", std::process::id());
    let _manager = socket(&name);
    let environment = [("NOTIFY_SOCKET", name.as_str()), ("WATCHDOG_USEC", "3000")];
    let mut server = Sluice::start_in(&environment, &[]).await;
    // Its queue holds some hundred words at most; these are more.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(server.ask("/healthz").await.0, 200);
    server.terminate();
    assert_eq!(server.exited(LONG).await.code(), Some(0));
}
