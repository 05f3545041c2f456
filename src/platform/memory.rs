//! Memory of this process.

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
