//! In steady state a shard allocates nothing for a packet: receive, decrypt, fan out, send, and feedback for it.
//!
//! A binary of its own: its allocator counts what threads named `shard-…` allocate while it is asked to.

// Tests say what went wrong by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used)]
// The counters of a global allocator are shared by all threads.
#![allow(clippy::disallowed_types)]
// A global allocator cannot be had without.
#![allow(unsafe_code)]

#[path = "support/mod.rs"]
mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use media_core::internals::ingest::arrival::ArrivalLog;
use support::*;

struct Counting;

static COUNTING: AtomicBool = AtomicBool::new(false);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// Whether this thread is a shard, once that is known.
    static IS_SHARD: Cell<Option<bool>> = const { Cell::new(None) };
}

impl Counting {
    fn count() {
        if COUNTING.load(Ordering::Relaxed) && is_shard() {
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Asks the system for the thread's name: `std::thread::current` may allocate.
fn is_shard() -> bool {
    let known = IS_SHARD.try_with(Cell::get).unwrap_or(Some(false));
    known.unwrap_or_else(|| {
        let mut name = [0_u8; 16];
        // SAFETY: PR_GET_NAME writes at most 16 bytes to where the pointer leads.
        let result = unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
        let is_shard = result == 0 && name.starts_with(b"shard-");
        let _ = IS_SHARD.try_with(|known| known.set(Some(is_shard)));
        is_shard
    })
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Counting::count();
        // SAFETY: the caller vouches for the layout.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller got the pointer from `alloc` with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Counting::count();
        // SAFETY: as for `dealloc`; the caller vouches for the size.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Sends video and audio for a while, a keyframe now and then and a packet missing here and there, and has viewers
/// receive and report. Returns how many packets were sent.
fn run(publisher: &mut Peer, viewers: &mut [(Peer, Option<ArrivalLog>)], sequence: &mut u16, time: Duration) -> u64 {
    let begun = Instant::now();
    let mut sent = 0;
    let mut last_report = begun;
    let mut reported = HashSet::new();
    let frame: Vec<u8> = DELTA.iter().copied().chain([7; 1000]).collect();
    while begun.elapsed() < time {
        for packet in 0..40 {
            *sequence = sequence.wrapping_add(1);
            let payload = if sequence.is_multiple_of(200) { KEYFRAME } else { &frame[..frame.len() - packet % 2] };
            if !sequence.is_multiple_of(97) {
                publisher.video(*sequence, u32::from(*sequence / 8) * 3_000, payload);
                sent += 1;
            }
        }
        publisher.audio(*sequence / 8, u32::from(*sequence / 8) * 960);
        sent += 1;
        publisher.turn();
        for (viewer, arrivals) in viewers.iter_mut() {
            viewer.turn();
            viewer.raw.clear();
            viewer.rtcp.clear();
            if let Some(header) = viewer.headers(VIEWER_VIDEO).last()
                && reported.insert(viewer.id)
            {
                let number = header.sequence_number.wrapping_sub(3);
                viewer.rtcp(|writer| {
                    writer.receiver_report(1, &[]).unwrap();
                    writer.nack(1, VIEWER_VIDEO, &[number]);
                    writer.pli(1, VIEWER_VIDEO).unwrap();
                });
            }
            if let Some(arrivals) = arrivals {
                viewer.report_arrivals(arrivals);
            }
            viewer.rtp.clear();
        }
        if last_report.elapsed() > Duration::from_millis(200) {
            last_report = Instant::now();
            reported.clear();
        }
    }
    sent
}

#[tokio::test]
async fn forwarding_allocates_nothing_in_the_shard() {
    for shards in [1, 2] {
        let server = Server::start(shards);
        let stream = shards as u64;
        let viewer = |index| {
            let viewer = server.answered_viewer(index % shards, stream, index < 3);
            // One of those that NACK and one of those that have a shard of their own is there by TCP.
            let viewer = if index % 3 == 2 { viewer.over_tcp() } else { viewer };
            (server.connected(viewer), None)
        };
        let mut viewers: Vec<(Peer, Option<ArrivalLog>)> = (0..6).map(viewer).collect();
        let mut publisher = server.publisher(stream);
        let mut sequence = 199;
        run(&mut publisher, &mut viewers, &mut sequence, Duration::from_millis(1_500));
        // Until here no viewer told what arrives: there is room for as many packets in flight as there can be.
        viewers.iter_mut().for_each(|(_, arrivals)| *arrivals = Some(ArrivalLog::new(Instant::now())));
        let before = server.counters(0).await;
        ALLOCATIONS.store(0, Ordering::Relaxed);
        COUNTING.store(true, Ordering::Relaxed);
        let sent = run(&mut publisher, &mut viewers, &mut sequence, Duration::from_millis(2_500));
        COUNTING.store(false, Ordering::Relaxed);
        let after = server.counters(0).await;
        let received = after.rtp_received - before.rtp_received;
        assert!(received > 500 && received + 64 > sent, "{received} of {sent} packets");
        assert!(after.rtp_retransmitted > before.rtp_retransmitted);
        assert!(after.nacks_sent > before.nacks_sent);
        let allocations = ALLOCATIONS.load(Ordering::Relaxed);
        println!("{shards} shards: {allocations} allocations for {received} packets");
        // Two exceptions, neither of them for each packet. Where a viewer's reports come later than ever, the memory of
        // packets in flight to it doubles, a few times at most. And while another shard lags, the home shard makes
        // room for one more batch (an Arc and two lists) and keeps it, up to 64 of them.
        let allowed = 3 * viewers.len() as u64 + if shards == 1 { 0 } else { 3 * 64 };
        assert!(allocations <= allowed, "{allocations} allocations for {received} packets with {shards} shards");
        server.core.shutdown().await;
    }
}
