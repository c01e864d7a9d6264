//! What concerns the whole process because plugins share it: its allocator, and its end.

/// Keeps the C allocator from spreading: one arena instead of eight per core, because replies of the server are large,
/// short-lived and freed on another thread than they were made on, and each arena keeps its own. What a usual reply takes
/// (0.5 MB) stays with the allocator; larger ones go back to the system.
///
/// Call before the first thread. Measured with the null output at full speed: 45–49 MB resident without, 38 MB with one
/// arena. With a threshold of 128 KiB a tenth of the CPU went into page faults. Does nothing where the allocator is not
/// glibc's.
pub fn bound_allocator() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const LARGE_BYTES: i32 = 4 << 20;
        // SAFETY: sets numbers of the allocator; no other thread runs yet.
        unsafe {
            libc::mallopt(libc::M_ARENA_MAX, 1);
            libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BYTES);
            libc::mallopt(libc::M_TRIM_THRESHOLD, LARGE_BYTES);
        }
    }
}

/// Ends the process at once, without exit handlers and static destructors: plugins' threads may still run, and what those
/// tear down is theirs. (Daemons with plugins that skip this crash or hang at exit: fluent-bit#2127, #6641, arrow-adbc#4210.)
///
/// Standard error is not buffered; nothing else of the daemon waits to be written when this is called.
pub fn end_process(status: i32) -> ! {
    // SAFETY: no memory is involved; `_exit` may be called at any time from any thread.
    unsafe { libc::_exit(status) }
}
