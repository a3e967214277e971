//! Nobody reads the log, or nobody can: the server does its work all the same.

use std::fs::File;
use std::io::{PipeReader, Write};
use std::process::Stdio;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::support::{LONG, Sluice, eventually, viewer_sees};

/// A pipe whose reader is gone.
fn closed_pipe() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

/// A pipe that takes nothing more, and its reader, which does not read.
fn full_pipe() -> (PipeReader, Stdio) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let takes_more = |writer: &_| {
        let mut descriptors = [PollFd::new(writer, PollFlags::OUT)];
        poll(&mut descriptors, Some(&Timespec::default())).unwrap() > 0
    };
    while takes_more(&writer) {
        writer.write_all(&[b'x'; 4096]).unwrap();
    }
    (reader, writer.into())
}

/// Publishes and watches, ends both, and does it again under the same name, after a panic as well.
async fn serves(server: &mut Sluice) {
    server.fault("shard/0/panic").await;
    for _ in 0..2 {
        let publisher = server.publisher("s").await;
        let viewer = server.viewer("s").await;
        viewer_sees("media", &viewer, LONG, |figures| figures.video.keyframes > 0).await;
        viewer.stop().await.unwrap();
        publisher.stop().await.unwrap();
        eventually("the stream is free", LONG, async || {
            let sessions = server.get("/api/v1/sessions?stream=s&state=live").await;
            sessions.as_array().unwrap().is_empty().then_some(())
        })
        .await;
    }
    assert_eq!(server.metric("sluice_panics_total", &[]).await, 1.0);
    server.terminate();
    assert_eq!(server.exited(LONG).await.code(), Some(0));
}

// C1
#[tokio::test]
async fn a_log_that_can_not_be_written_costs_its_lines_and_nothing_else() {
    for stderr in [closed_pipe(), File::options().write(true).open("/dev/full").unwrap().into()] {
        let mut server = Sluice::start_unheard(stderr, &["--log", "debug"]).await;
        eventually("lost lines are counted", LONG, async || {
            (server.metric("sluice_log_lines_lost_total", &[]).await > 0.0).then_some(())
        })
        .await;
        serves(&mut server).await;
    }
}

// C1
#[tokio::test]
async fn a_log_that_nobody_reads_stops_nothing() {
    let (_reader, stderr) = full_pipe();
    let mut server = Sluice::start_unheard(stderr, &["--log", "trace"]).await;
    serves(&mut server).await;
}
