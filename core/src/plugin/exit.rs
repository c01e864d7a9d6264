//! The end of a process that has loaded plugins.

/// Ends the process at once, without exit handlers and static destructors: plugins' threads may still run, and what those
/// tear down is theirs. (Daemons with plugins that skip this crash or hang at exit: fluent-bit#2127, #6641, arrow-adbc#4210.)
///
/// Standard error is not buffered; nothing else of the daemon waits to be written when this is called.
pub fn end_process(status: i32) -> ! {
    // SAFETY: no memory is involved; `_exit` may be called at any time from any thread.
    unsafe { libc::_exit(status) }
}
