//! The way of log lines to stderr: a bounded queue, and a thread of its own that writes them.
//!
//! Whoever logs must not wait for whoever reads the log, nor fail with it: a pipe that nobody reads would stop the server, a closed
//! one or a full disk would make it panic. By hand, since `tracing-appender` prints to stdout at its end and does not count the
//! lines that its sink refuses.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait: some seconds of the busiest log.
const MAX_LINES: usize = 8192;

/// Bytes of them. Lines hold texts of clients, which are bounded, but not short.
const MAX_BYTES: usize = 4 << 20;

/// How often [`LogQueue::flush`] looks.
const GLANCE: Duration = Duration::from_millis(2);

/// Takes log lines. No call waits or fails; what the queue or the sink does not take is lost and counted.
#[derive(Clone, Debug)]
pub struct LogQueue {
    shared: Arc<Shared>,
    lines: SyncSender<Vec<u8>>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Bytes that wait or are just being written.
    waiting: AtomicUsize,
    lost: AtomicU64,
}

impl LogQueue {
    /// The queue before stderr.
    pub fn stderr() -> LogQueue {
        // A descriptor of its own: the lock of `io::stderr` would be held while a write waits.
        match io::stderr().as_fd().try_clone_to_owned() {
            Ok(descriptor) => LogQueue::new(File::from(descriptor)),
            Err(_) => LogQueue::new(io::stderr()),
        }
    }

    /// The queue before any sink.
    pub fn new(sink: impl Write + Send + 'static) -> LogQueue {
        LogQueue::with_room(sink, MAX_LINES)
    }

    fn with_room(sink: impl Write + Send + 'static, room: usize) -> LogQueue {
        let (lines, receiver) = sync_channel(room);
        let shared = Arc::<Shared>::default();
        let writer = Arc::clone(&shared);
        // Without a thread every line is lost and counted, and the server runs.
        let _ = std::thread::Builder::new().name("log".to_owned()).spawn(move || writer.write(&receiver, sink));
        LogQueue { shared, lines }
    }

    /// Queues a line, which has its newline.
    pub fn push(&self, line: &[u8]) {
        let waiting = self.shared.waiting.fetch_add(line.len(), Ordering::Relaxed);
        if waiting + line.len() > MAX_BYTES || self.lines.try_send(line.to_vec()).is_err() {
            self.shared.waiting.fetch_sub(line.len(), Ordering::Relaxed);
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many lines nobody will read.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// Waits until all lines are written, but not longer than that.
    pub fn flush(&self, within: Duration) {
        let begun = Instant::now();
        while self.shared.waiting.load(Ordering::Acquire) > 0 && begun.elapsed() < within {
            std::thread::sleep(GLANCE);
        }
    }
}

impl Shared {
    /// Writes until nobody can log any more.
    fn write(&self, lines: &Receiver<Vec<u8>>, mut sink: impl Write) {
        for line in lines {
            if sink.write_all(&line).is_err() {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
            self.waiting.fetch_sub(line.len(), Ordering::Release);
        }
    }
}

impl<'a> MakeWriter<'a> for LogQueue {
    type Writer = LineWriter<'a>;

    fn make_writer(&'a self) -> LineWriter<'a> {
        LineWriter(self)
    }
}

/// What the formatter of log lines writes to: a whole line at once.
#[derive(Debug)]
pub struct LineWriter<'a>(&'a LogQueue);

impl Write for LineWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read};
    use std::sync::mpsc;

    use super::*;

    /// Takes a line once it is allowed to, and tells when it begins to.
    struct Gate {
        begins: mpsc::Sender<()>,
        allowed: mpsc::Receiver<io::Result<()>>,
    }

    impl Write for Gate {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.begins.send(()).unwrap();
            self.allowed.recv().unwrap_or(Ok(()))?;
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    // C1
    #[test]
    fn a_sink_that_takes_nothing_costs_lines_which_are_counted_but_nobody_waits() {
        let ((begins, has_begun), (allow, allowed)) = (mpsc::channel(), mpsc::channel());
        let queue = LogQueue::with_room(Gate { begins, allowed }, 8);
        queue.push(b"the first\n");
        has_begun.recv().unwrap();
        for _ in 0..8 {
            queue.push(b"waits\n");
        }
        assert_eq!(queue.lost(), 0);
        queue.push(b"too many\n");
        assert_eq!(queue.lost(), 1);
        drop(allow);
        queue.flush(Duration::from_secs(20));
        assert_eq!(has_begun.try_iter().count(), 8);
        queue.push(b"goes on\n");
        has_begun.recv().unwrap();
        assert_eq!(queue.lost(), 1);
    }

    // C1
    #[test]
    fn what_waits_is_bounded_in_bytes() {
        let ((begins, has_begun), (allow, allowed)) = (mpsc::channel(), mpsc::channel());
        let queue = LogQueue::new(Gate { begins, allowed });
        let line = vec![b'x'; MAX_BYTES / 4];
        (0..4).for_each(|_| queue.push(&line));
        assert_eq!(queue.lost(), 0);
        queue.push(b"y");
        assert_eq!(queue.lost(), 1);
        drop((allow, has_begun));
    }

    // C1
    #[test]
    fn a_line_that_the_sink_refuses_is_counted_and_the_next_one_is_tried() {
        let ((begins, has_begun), (allow, allowed)) = (mpsc::channel(), mpsc::channel());
        let queue = LogQueue::new(Gate { begins, allowed });
        for result in [Err(ErrorKind::StorageFull.into()), Err(ErrorKind::BrokenPipe.into()), Ok(())] {
            allow.send(result).unwrap();
            queue.push(b"line\n");
            has_begun.recv().unwrap();
        }
        queue.flush(Duration::from_secs(20));
        assert_eq!(queue.lost(), 2);
    }

    #[test]
    fn lines_come_whole_and_in_order() {
        let (mut reader, writer) = io::pipe().unwrap();
        let queue = LogQueue::new(writer);
        for number in 0..100 {
            writeln!(queue.make_writer(), "line {number}").ok();
        }
        queue.flush(Duration::from_secs(20));
        drop(queue);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text.split_whitespace().filter(|word| *word == "line").count(), 100);
    }
}
