//! What a process on this machine used, from `/proc`.

use std::time::Duration;

/// CPU time and memory of a process at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// User and system time of all its threads.
    pub cpu: Duration,
    /// Resident memory, in bytes.
    pub resident: u64,
}

impl Usage {
    /// Reads it; `None` if there is no such process.
    pub fn of(pid: u32) -> Option<Usage> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        parse(&stat, rustix::param::clock_ticks_per_second(), rustix::param::page_size() as u64)
    }
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

/// The fields of proc(5): utime 14, stime 15, rss 24. The name, field 2, may hold anything but ends with the last `)`.
fn parse(stat: &str, ticks_per_second: u64, page: u64) -> Option<Usage> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let ticks = field(14)? + field(15)?;
    let cpu = Duration::from_nanos(ticks.saturating_mul(1_000_000_000).checked_div(ticks_per_second)?);
    Some(Usage { cpu, resident: field(24)? * page })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_proc_is_read_whatever_the_name() {
        let stat =
            "42 (a) b) c) S 1 42 42 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 3 0 100 1000000 256 18446744073709551615";
        let usage = Usage { cpu: Duration::from_secs(2), resident: 256 * 4096 };
        assert_eq!(parse(stat, 100, 4096), Some(usage));
        assert_eq!(parse("42 (a) S", 100, 4096), None);
    }

    #[test]
    fn the_file_limit_only_grows() {
        let before = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let after = raise_file_limit();
        assert!(after.is_none_or(|after| before.is_some_and(|before| after >= before)));
    }

    #[test]
    fn this_process_has_memory() {
        assert!(Usage::of(std::process::id()).unwrap().resident > 0);
        assert_eq!(Usage::of(u32::MAX), None);
    }
}
