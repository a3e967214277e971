//! File descriptors of this process.

use rustix::process::{Resource, getrlimit};

/// How many files the process can open more; where the system does not tell, all that anybody could want.
pub(crate) fn free() -> usize {
    let limit = getrlimit(Resource::Nofile).current.and_then(|limit| usize::try_from(limit).ok());
    let open = std::fs::read_dir("/proc/self/fd").map(Iterator::count);
    match (limit, open) {
        (Some(limit), Ok(open)) => limit.saturating_sub(open),
        _ => usize::MAX,
    }
}
