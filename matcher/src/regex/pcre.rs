//! PCRE2 behind a safe border. All `unsafe` of this package is here.
//!
//! A match is bounded in steps and in memory. What it needs to work in is kept for each thread.

use std::ffi::c_int;
use std::ptr::{self, NonNull};

use pcre2_sys::{
    PCRE2_CASELESS, PCRE2_DOTALL, PCRE2_ERROR_JIT_STACKLIMIT, PCRE2_ERROR_NOMATCH, PCRE2_EXTENDED, PCRE2_JIT_COMPLETE,
    PCRE2_MULTILINE, PCRE2_NEVER_BACKSLASH_C, PCRE2_NO_JIT, PCRE2_NO_UTF_CHECK, PCRE2_UTF, pcre2_code_8,
    pcre2_code_free_8, pcre2_compile_8, pcre2_get_error_message_8, pcre2_jit_compile_8, pcre2_match_8,
    pcre2_match_context_8, pcre2_match_context_create_8, pcre2_match_context_free_8, pcre2_match_data_8,
    pcre2_match_data_create_8, pcre2_match_data_free_8, pcre2_set_heap_limit_8, pcre2_set_match_limit_8,
};

pub(super) const CASELESS: u32 = PCRE2_CASELESS;
pub(super) const MULTILINE: u32 = PCRE2_MULTILINE;
pub(super) const DOT_MATCHES_ALL: u32 = PCRE2_DOTALL;
pub(super) const EXTENDED: u32 = PCRE2_EXTENDED;

/// Steps of backtracking in one text; tens of milliseconds.
const STEPS_MAX: u32 = 1_000_000;

/// Memory for backtracking of the interpreter, which is at work where machine code cannot be made or has too small a stack.
const MEMORY_MAX_KIB: u32 = 8 * 1024;

/// A compiled pattern.
#[derive(Debug)]
pub(super) struct Code(NonNull<pcre2_code_8>);

// SAFETY: compiled code does not change after `new` (pcre2api, MULTITHREADING); `new` alone makes machine code for it.
unsafe impl Send for Code {}
// SAFETY: as above; what matching writes to belongs to the thread.
unsafe impl Sync for Code {}

/// What became of one text.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Yes,
    No,
    /// It would have cost too much.
    GivenUp,
}

impl Code {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn new(pattern: &str, flags: u32) -> Result<Code, String> {
        let (mut code, mut at): (c_int, usize) = (0, 0);
        // `\C` could end a match within a character, which PCRE2 does not define.
        let flags = flags | PCRE2_UTF | PCRE2_NEVER_BACKSLASH_C;
        // SAFETY: pointer and length are of one text, `code` and `at` live on, and no context means the defaults.
        let compiled =
            unsafe { pcre2_compile_8(pattern.as_ptr(), pattern.len(), flags, &mut code, &mut at, ptr::null_mut()) };
        let compiled = NonNull::new(compiled).ok_or_else(|| format!("is not valid: {} at byte {at}", message(code)))?;
        // Where machine code cannot be made, the interpreter does the same, only slower.
        // SAFETY: the code was just made and nobody else has it.
        unsafe { pcre2_jit_compile_8(compiled.as_ptr(), PCRE2_JIT_COMPLETE) };
        Ok(Code(compiled))
    }

    /// Whether the pattern is found in the text.
    pub fn find(&self, text: &str) -> Found {
        thread_local! {
            static SPACE: Space = Space::new();
        }
        SPACE.with(|space| match self.run(text, space, PCRE2_NO_UTF_CHECK) {
            // Machine code has a small stack of its own; the interpreter gets on with memory.
            PCRE2_ERROR_JIT_STACKLIMIT => Found::of(self.run(text, &Space::new(), PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT)),
            answer => Found::of(answer),
        })
    }

    fn run(&self, text: &str, space: &Space, flags: u32) -> c_int {
        // SAFETY: pointer and length are of one text, which is UTF-8, so that it need not be checked again; code and space are alive,
        // and the space is this thread's own, as it can neither be sent nor shared.
        unsafe {
            let (data, context) = (space.data.as_ptr(), space.context.as_ptr());
            pcre2_match_8(self.0.as_ptr(), text.as_ptr(), text.len(), 0, flags, data, context)
        }
    }
}

impl Drop for Code {
    fn drop(&mut self) {
        // SAFETY: made by pcre2_compile and freed only here.
        unsafe { pcre2_code_free_8(self.0.as_ptr()) }
    }
}

impl Found {
    fn of(answer: c_int) -> Found {
        match answer {
            // Zero when there was no room for all groups, which nobody asks for.
            0.. => Found::Yes,
            PCRE2_ERROR_NOMATCH => Found::No,
            // Steps, depth, memory, recursion without end: of a valid text and valid code there are no other errors.
            _ => Found::GivenUp,
        }
    }
}

/// What one thread matches with.
struct Space {
    data: NonNull<pcre2_match_data_8>,
    context: NonNull<pcre2_match_context_8>,
}

impl Space {
    fn new() -> Space {
        // SAFETY: no general context means malloc and free.
        let (data, context) =
            unsafe { (pcre2_match_data_create_8(1, ptr::null_mut()), pcre2_match_context_create_8(ptr::null_mut())) };
        let (data, context) = (NonNull::new(data).expect("memory"), NonNull::new(context).expect("memory"));
        // SAFETY: the context is alive; limits are plain numbers.
        unsafe {
            pcre2_set_match_limit_8(context.as_ptr(), STEPS_MAX);
            pcre2_set_heap_limit_8(context.as_ptr(), MEMORY_MAX_KIB);
        }
        Space { data, context }
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        // SAFETY: made in `new` and freed only here.
        unsafe {
            pcre2_match_data_free_8(self.data.as_ptr());
            pcre2_match_context_free_8(self.context.as_ptr());
        }
    }
}

/// PCRE2's words for an error.
fn message(code: c_int) -> String {
    let mut buffer = [0u8; 256];
    // SAFETY: pointer and length are of one buffer; the text is cut off where it does not fit.
    let len = unsafe { pcre2_get_error_message_8(code, buffer.as_mut_ptr(), buffer.len()) };
    let len = usize::try_from(len).unwrap_or_default();
    String::from_utf8_lossy(buffer.get(..len).unwrap_or_default()).into_owned()
}
