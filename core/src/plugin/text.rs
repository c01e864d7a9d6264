//! Texts that cross the border: copied in and capped at once, since nothing a plugin lends outlives the call.

use std::ffi::c_void;

use tailwater_abi::{tw_sink, tw_str};

/// Longest message, reason or log text taken from a plugin, in bytes.
pub(crate) const MESSAGE_BYTES_MAX: usize = 4096;

/// Why a text of a descriptor was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum TextFault {
    Null,
    TooLong { len: usize, max: usize },
    NotUtf8,
}

/// Copies at most `max` bytes of a message; what is not UTF-8 is replaced.
///
/// # Safety
/// `text` points to `text.len` readable bytes, or is null.
pub(crate) unsafe fn copy_lossy(text: tw_str, max: usize) -> String {
    if text.ptr.is_null() || text.len == 0 {
        return String::new();
    }
    // SAFETY: the caller vouches for `len` bytes and no more than that is read.
    let bytes = unsafe { std::slice::from_raw_parts(text.ptr, text.len.min(max)) };
    String::from_utf8_lossy(bytes).into_owned()
}

/// Copies a text that must be whole and valid, as those of a descriptor.
///
/// # Safety
/// As [`copy_lossy`].
pub(crate) unsafe fn copy_strict(text: tw_str, max: usize) -> Result<String, TextFault> {
    if text.len == 0 {
        return Ok(String::new());
    }
    if text.ptr.is_null() {
        return Err(TextFault::Null);
    }
    if text.len > max {
        return Err(TextFault::TooLong { len: text.len, max });
    }
    // SAFETY: not null, and the caller vouches for `len` bytes.
    let bytes = unsafe { std::slice::from_raw_parts(text.ptr, text.len) };
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| TextFault::NotUtf8)
}

/// Collects what a plugin writes into a `tw_sink`, up to [`MESSAGE_BYTES_MAX`].
#[derive(Default)]
pub(crate) struct Sink {
    bytes: Vec<u8>,
}

impl Sink {
    /// The C view of this sink, valid while `self` is borrowed and not otherwise used.
    pub(crate) fn border(&mut self) -> tw_sink {
        tw_sink { ctx: (&raw mut *self).cast(), write: Some(sink_write) }
    }

    /// What was written, or `otherwise` when nothing was.
    pub(crate) fn text_or(&self, otherwise: &str) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        let text = text.trim();
        if text.is_empty() { otherwise.to_owned() } else { text.to_owned() }
    }
}

unsafe extern "C" fn sink_write(ctx: *mut c_void, ptr: *const u8, len: usize) {
    if ctx.is_null() || ptr.is_null() {
        return;
    }
    // SAFETY: `ctx` is the `Sink` that `border` was called on, whose owner waits in the call this write belongs to.
    let sink = unsafe { &mut *ctx.cast::<Sink>() };
    let len = len.min(MESSAGE_BYTES_MAX.saturating_sub(sink.bytes.len()));
    // SAFETY: the plugin vouches for at least `len` bytes.
    sink.bytes.extend_from_slice(unsafe { std::slice::from_raw_parts(ptr, len) });
}
