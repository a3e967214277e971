//! What a process and the machine used, from `/proc`.

use std::collections::BTreeMap;
use std::time::Duration;

use procfs::process::{Process, Task};
use procfs::{CurrentSI, KernelStats};

/// CPU time and memory of a process at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// User time of all its threads.
    pub user: Duration,
    /// System time of all its threads.
    pub system: Duration,
    /// Both, of the threads that it has now, to the ns; the others are counted in ticks of some ms.
    pub precise: Duration,
    /// Resident memory, in bytes.
    pub resident: u64,
    /// Number of threads.
    pub threads: u64,
}

impl Usage {
    /// Reads it; `None` if there is no such process.
    pub fn of(pid: u32) -> Option<Usage> {
        let process = process(pid)?;
        let stat = process.stat().ok()?;
        Some(Usage {
            user: ticks(stat.utime),
            system: ticks(stat.stime),
            precise: tasks(&process).map(|task| on_cpu(&task)).sum(),
            resident: stat.rss * procfs::page_size(),
            threads: stat.num_threads.unsigned_abs(),
        })
    }

    /// User and system time.
    pub fn cpu(&self) -> Duration {
        // Only the ticks count the threads that have ended.
        self.precise.max(self.user + self.system)
    }
}

/// Context switches of a process: of the threads that it has now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Switches {
    /// A thread waited.
    pub(crate) voluntary: u64,
    /// A thread had to make room for another.
    pub(crate) involuntary: u64,
}

impl Switches {
    /// Adds them up over its threads; `None` if there is no such process.
    pub(crate) fn of(pid: u32) -> Option<Switches> {
        let mut all = Switches::default();
        // A thread may end meanwhile.
        for status in tasks(&process(pid)?).filter_map(|task| task.status().ok()) {
            all.voluntary += status.voluntary_ctxt_switches.unwrap_or(0);
            all.involuntary += status.nonvoluntary_ctxt_switches.unwrap_or(0);
        }
        Some(all)
    }
}

fn process(pid: u32) -> Option<Process> {
    Process::new(i32::try_from(pid).ok()?).ok()
}

fn tasks(process: &Process) -> impl Iterator<Item = Task> {
    process.tasks().into_iter().flatten().flatten()
}

/// CPU time of a thread, by the scheduler; zero where the system does not keep it.
fn on_cpu(task: &Task) -> Duration {
    task.schedstat().map_or(Duration::ZERO, |times| Duration::from_nanos(times.sum_exec_runtime))
}

fn ticks(count: u64) -> Duration {
    Duration::from_nanos(count.saturating_mul(1_000_000_000) / procfs::ticks_per_second().max(1))
}

/// Open file descriptors of a process; `None` if there is no such process or it is somebody else's.
pub(crate) fn descriptors(pid: u32) -> Option<u64> {
    Some(process(pid)?.fd_count().ok()? as u64)
}

/// Name and CPU time of every thread of this process, by its id.
pub(crate) fn own_threads() -> BTreeMap<i32, (String, Duration)> {
    let Ok(own) = Process::myself() else { return BTreeMap::new() };
    let threads = tasks(&own).filter_map(|task| {
        let stat = task.stat().ok()?;
        Some((task.tid, (stat.comm, ticks(stat.utime + stat.stime))))
    });
    threads.collect()
}

/// Datagrams that the sockets of the whole machine had no room for: the server's sockets count too.
pub(crate) fn receive_buffer_errors() -> Option<u64> {
    Some(procfs::net::snmp().ok()?.udp_rcvbuf_errors)
}

/// Time that the machine's CPUs worked, and all their time; in ticks.
pub(crate) fn machine_ticks() -> Option<(u64, u64)> {
    let times = KernelStats::current().ok()?.total;
    let later = [times.irq?, times.softirq?, times.steal.unwrap_or(0)];
    // The guests' times are part of the first two.
    let worked = times.user + times.nice + times.system + later.iter().sum::<u64>();
    Some((worked, worked + times.idle + times.iowait?))
}

/// Lifts this process's limit of open files to what the system lets it have: every client has a socket, and while it
/// joins an HTTP connection. Returns the limit, `None` if there is none.
pub fn raise_file_limit() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // A refusal leaves the old limit, and the number says which it is.
    match setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_the_more_precise_sum_unless_threads_have_ended() {
        let (user, system) = (Duration::from_millis(1500), Duration::from_millis(500));
        let usage = Usage { user, system, precise: Duration::ZERO, resident: 256 * 4096, threads: 3 };
        assert_eq!(usage.cpu(), Duration::from_secs(2));
        assert_eq!(Usage { precise: Duration::from_millis(2001), ..usage }.cpu(), Duration::from_millis(2001));
        assert_eq!(ticks(150), 150 * Duration::from_secs(1) / procfs::ticks_per_second() as u32);
    }

    #[test]
    fn the_machine_works_part_of_its_time() {
        let (worked, all) = machine_ticks().unwrap();
        assert!(0 < worked && worked < all, "{worked} of {all}");
    }

    #[test]
    fn the_file_limit_only_grows() {
        let before = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let after = raise_file_limit();
        assert!(after.is_none_or(|after| before.is_some_and(|before| after >= before)));
    }

    #[test]
    fn this_process_is_known() {
        let own = std::process::id();
        assert!(Usage::of(own).unwrap().resident > 0);
        assert!(descriptors(own).unwrap() > 0 && Switches::of(own).is_some());
        assert!(own_threads().contains_key(&own.cast_signed()));
        assert!(receive_buffer_errors().is_some() && machine_ticks().is_some());
        assert_eq!(Usage::of(u32::MAX), None);
        assert_eq!((Switches::of(u32::MAX), descriptors(u32::MAX)), (None, None));
    }
}
