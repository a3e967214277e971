//! The process needs no privilege, and writes to no file.

use procfs::process::{FDPermissions, FDTarget};

use crate::support::{LONG, Sluice, viewer_sees};

#[tokio::test]
async fn a_process_without_any_capability_serves_and_writes_to_no_file() {
    let server = Sluice::start_unprivileged(&[]).await;
    let publisher = server.publisher("s").await;
    let viewer = server.viewer("s").await;
    viewer_sees("media", &viewer, LONG, |figures| figures.video.keyframes > 0).await;
    server.metrics().await;

    let status = server.process().status().unwrap();
    assert_eq!((status.capeff, status.capprm), (0, 0));
    // The first three are those of whoever started it.
    let own = server.process().fd().unwrap().flatten().filter(|file| file.fd > 2);
    let written = own.filter_map(|file| match &file.target {
        FDTarget::Path(path) if file.mode().contains(FDPermissions::WRITE) => Some(path.clone()),
        _ => None,
    });
    let written: Vec<_> = written.filter(|path| !path.starts_with("/dev")).collect();
    assert!(written.is_empty(), "{written:?}");
    viewer.stop().await.unwrap();
    publisher.stop().await.unwrap();
}
