//! Memory of this process.

/// Limits the heaps of the C library. It gives each thread that meets another one in a heap a new heap, up to eight for each processor,
/// and each keeps what its busiest moment needed; so a broker would slowly grow. To be called before any thread starts.
#[cfg_attr(
    all(target_os = "linux", target_env = "gnu"),
    expect(unsafe_code, reason = "no safe crate that is used here calls it")
)]
pub fn limit_heaps() {
    // SAFETY: no other thread allocates yet. If it fails, more heaps are used, which only costs memory.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2)
    };
}

/// Gives unused memory back to the system. Threads free it in pieces, which the C library otherwise keeps for later, in each of
/// its heaps; so a broker would slowly grow by what its busiest moments needed.
#[cfg_attr(
    all(target_os = "linux", target_env = "gnu"),
    expect(unsafe_code, reason = "no safe crate that is used here calls it")
)]
pub fn give_back() {
    // SAFETY: it may be called at any time, from any thread.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    unsafe {
        libc::malloc_trim(0)
    };
}
