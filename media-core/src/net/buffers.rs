//! Memory of large buffers, such as those of packet caches.

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
