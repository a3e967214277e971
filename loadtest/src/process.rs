//! What a process and the machine used, from `/proc`.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

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
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let usage = parse(&stat, rustix::param::clock_ticks_per_second(), rustix::param::page_size() as u64)?;
        Some(Usage { precise: precise(pid), ..usage })
    }

    /// User and system time.
    pub fn cpu(&self) -> Duration {
        // What threads used that have ended stands in the ticks only.
        self.precise.max(self.user + self.system)
    }
}

/// Context switches of a process: of the threads that it has now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Switches {
    /// A thread waited.
    pub voluntary: u64,
    /// A thread had to make room for another.
    pub involuntary: u64,
}

impl Switches {
    /// Adds them up over `/proc/PID/task`; `None` if there is no such process.
    pub fn of(pid: u32) -> Option<Switches> {
        let mut all = Switches::default();
        for task in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
            // A thread may end meanwhile.
            let Ok(status) = fs::read_to_string(task.path().join("status")) else { continue };
            all.voluntary += number_after(&status, "voluntary_ctxt_switches:").unwrap_or(0);
            all.involuntary += number_after(&status, "nonvoluntary_ctxt_switches:").unwrap_or(0);
        }
        Some(all)
    }
}

/// CPU time of a process's threads, by the scheduler; zero where the system does not keep it.
fn precise(pid: u32) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let times = tasks.filter_map(|task| parse_schedstat(&fs::read_to_string(task.path().join("schedstat")).ok()?));
    times.sum()
}

/// Time on a CPU in ns, time of waiting for one, number of turns.
fn parse_schedstat(text: &str) -> Option<Duration> {
    text.split_ascii_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

/// Open file descriptors of a process; `None` if there is no such process or it is somebody else's.
pub fn descriptors(pid: u32) -> Option<u64> {
    Some(fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64)
}

/// Name and CPU time of every thread of this process.
pub fn own_threads() -> BTreeMap<String, (String, Duration)> {
    let mut threads = BTreeMap::new();
    for task in fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let read = |file| fs::read_to_string(task.path().join(file)).unwrap_or_default();
        let ticks = rustix::param::clock_ticks_per_second();
        let Some(usage) = parse(&read("stat"), ticks, rustix::param::page_size() as u64) else { continue };
        let id = task.file_name().to_string_lossy().into_owned();
        threads.insert(id, (read("comm").trim().to_owned(), usage.cpu()));
    }
    threads
}

/// Datagrams that the sockets of the whole machine had no room for, by `/proc/net/snmp`: the server's sockets count too.
pub fn receive_buffer_errors() -> Option<u64> {
    parse_snmp(&fs::read_to_string("/proc/net/snmp").ok()?)
}

/// Time that the machine's CPUs worked, and all their time; in ticks.
pub fn machine_ticks() -> Option<(u64, u64)> {
    parse_machine(&fs::read_to_string("/proc/stat").ok()?)
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

/// The fields of proc(5): utime 14, stime 15, num_threads 20, rss 24. The name, field 2, may hold anything but ends with
/// the last `)`.
fn parse(stat: &str, ticks_per_second: u64, page: u64) -> Option<Usage> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let time = |number| {
        let nanos = field(number)?.saturating_mul(1_000_000_000).checked_div(ticks_per_second)?;
        Some(Duration::from_nanos(nanos))
    };
    let (user, system, resident) = (time(14)?, time(15)?, field(24)? * page);
    Some(Usage { user, system, precise: Duration::ZERO, resident, threads: field(20)? })
}

fn number_after(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key))?.trim().parse().ok()
}

/// Two lines a protocol: names, then values.
fn parse_snmp(text: &str) -> Option<u64> {
    let mut lines = text.lines().filter(|line| line.starts_with("Udp:"));
    let column = lines.next()?.split_ascii_whitespace().position(|name| name == "RcvbufErrors")?;
    lines.next()?.split_ascii_whitespace().nth(column)?.parse().ok()
}

/// user, nice, system, idle, iowait, irq, softirq, steal; the guests' times are part of the first two.
fn parse_machine(text: &str) -> Option<(u64, u64)> {
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let times: Vec<u64> = line.split_ascii_whitespace().take(8).filter_map(|time| time.parse().ok()).collect();
    let all = times.iter().sum::<u64>();
    Some((all - times.get(3)? - times.get(4)?, all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_proc_is_read_whatever_the_name() {
        let stat =
            "42 (a) b) c) S 1 42 42 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 3 0 100 1000000 256 18446744073709551615";
        let usage = parse(stat, 100, 4096).unwrap();
        let (user, system) = (Duration::from_millis(1500), Duration::from_millis(500));
        assert_eq!(usage, Usage { user, system, precise: Duration::ZERO, resident: 256 * 4096, threads: 3 });
        assert_eq!(usage.cpu(), Duration::from_secs(2));
        let precise = parse_schedstat("2001000000 5 7\n").unwrap();
        assert_eq!(Usage { precise, ..usage }.cpu(), Duration::from_millis(2001));
        assert_eq!(parse_schedstat(""), None);
        assert_eq!(parse("42 (a) S", 100, 4096), None);
    }

    #[test]
    fn the_machine_is_read() {
        let snmp = "Tcp: A RcvbufErrors\nTcp: 1 2\nUdp: InDatagrams RcvbufErrors X\nUdp: 5 7 9\n";
        assert_eq!(parse_snmp(snmp), Some(7));
        assert_eq!(parse_snmp("Udp: InDatagrams\nUdp: 5\n"), None);
        assert_eq!(parse_machine("cpu  10 1 9 70 5 2 2 1 3 3\ncpu0 1\n"), Some((25, 100)));
        assert_eq!(parse_machine("intr 5"), None);
        assert_eq!(number_after("a: 1\nvoluntary_ctxt_switches:\t12\n", "voluntary_ctxt_switches:"), Some(12));
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
        assert!(own_threads().contains_key(&own.to_string()));
        assert!(receive_buffer_errors().is_some() && machine_ticks().is_some());
        assert_eq!(Usage::of(u32::MAX), None);
        assert_eq!((Switches::of(u32::MAX), descriptors(u32::MAX)), (None, None));
    }
}
