//! Memory that goes back to the system: large buffers, such as those of packet caches, and what lies free between others.

/// Blocks from here on have pages of their own, in bytes.
#[cfg(target_env = "gnu")]
const OWN_PAGES: libc::c_int = 256 << 10;

/// Makes large blocks go back to the system as soon as they are freed, for the whole process.
///
/// The C library's own threshold grows to the size of the largest block that was ever freed: packet caches would from then on
/// come out of its heaps, which shrink only from their ends, and what a thousand streams took for a minute would stay taken.
pub fn return_large_blocks() {
    // SAFETY: the call reads its two numbers and sets a parameter of the allocator under the allocator's own lock. A refusal
    // leaves everything as it is.
    #[cfg(target_env = "gnu")]
    let _accepted = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_PAGES) };
}

/// Gives the pages back to the system that lie free between what is allocated, for the whole process.
///
/// The C library returns by itself only what is free at the end of a heap. Sessions come and go, and records of those that ended stay
/// for minutes in between: what is free grows with the coming and going until it is as large as what is in use. Takes about a
/// millisecond for 10 MiB of heap, in which other threads may wait for memory; call it seldom, and from no shard.
pub fn return_free_memory() {
    // SAFETY: the call takes the allocator's own locks and touches only what is free.
    #[cfg(target_env = "gnu")]
    let _any = unsafe { libc::malloc_trim(0) };
}

/// What the C library's allocator has of the system, for the whole process, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeapUse {
    /// In blocks that are allocated.
    pub in_use: u64,
    /// In blocks that are free, of which some are given back already.
    pub free: u64,
}

/// How much of the heap is in use; `None` where the C library does not say. What is resident besides is code, stacks and what lies
/// free between blocks: memory that grows while this does not is no leak. It counts free blocks one by one, while other threads
/// may wait for memory; call it for a scrape, and from no shard.
pub fn heap_use() -> Option<HeapUse> {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: the call takes the allocator's own locks and returns numbers.
        let info = unsafe { libc::mallinfo2() };
        Some(HeapUse { in_use: (info.uordblks + info.hblkhd) as u64, free: info.fordblks as u64 })
    }
    #[cfg(not(target_env = "gnu"))]
    None
}

#[cfg(test)]
#[cfg(target_env = "gnu")]
mod tests {
    use super::*;

    const BLOCK: usize = 2 << 10;
    const BLOCKS: usize = 50_000;

    /// Resident memory of this process, in bytes.
    fn resident() -> usize {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    }

    // The finding of the soak "memory grows for half an hour, and stays so".
    #[test]
    fn what_lies_free_between_blocks_in_use_goes_back_to_the_system() {
        let mut blocks: Vec<Box<[u8]>> = (0..BLOCKS).map(|_| vec![1; BLOCK].into_boxed_slice()).collect();
        let mut index = 0;
        // One in a hundred stays, as a record of a session that ended does: no page at the end of the heap becomes free.
        blocks.retain(|_| {
            index += 1;
            index % 100 == 0
        });
        let before = resident();
        return_free_memory();
        let returned = before.saturating_sub(resident());
        assert!(returned > BLOCK * BLOCKS / 2, "{returned} bytes of {} were returned", BLOCK * BLOCKS);
        assert_eq!(blocks.len(), BLOCKS / 100);
    }

    #[test]
    fn what_is_allocated_is_in_use() {
        // Other tests allocate and free meanwhile, but nothing of that size; nothing is written to it, so that it takes no memory.
        const MANY: usize = 1 << 30;
        let before = heap_use().unwrap().in_use;
        let block = std::hint::black_box(Vec::<u8>::with_capacity(MANY));
        let during = heap_use().unwrap().in_use;
        drop(block);
        assert!(during > before + (MANY / 2) as u64, "{before}, {during}");
        assert!(heap_use().unwrap().in_use < during - (MANY / 2) as u64);
    }
}
