//! Settings of the C library's allocator, which is Rust's allocator here. Other C libraries than glibc need none.

/// Blocks of this size and above are mapped alone and go back to the kernel when they are freed.
#[cfg(target_env = "gnu")]
const MAP_FROM: libc::c_int = 64 << 10;
/// Arenas: one for each two or so threads that allocate at the same moment is plenty.
#[cfg(target_env = "gnu")]
const ARENAS: libc::c_int = 2;

/// Makes freed memory go back to the kernel: by default every thread gets an arena of its own, which keeps what it once
/// needed, and the size from which blocks are mapped alone grows with use. For a program that is idle most of its life
/// and has many short-lived threads. Call it first, before other threads exist.
pub fn return_freed_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two integers and touches the allocator's own settings only; unknown parameters are refused
    // by its return value, which does not matter.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAP_FROM);
        libc::mallopt(libc::M_TRIM_THRESHOLD, MAP_FROM);
    }
}

/// Gives every free page back to the kernel, also those between blocks that are in use: after something large that was made
/// of many small blocks. It walks all of the heap.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes no pointer and may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}
