//! The compiled templates of the process, so that each source is compiled once: by the check of the options, by the output that
//! starts, and by its next instance after a fault.

use std::sync::{Arc, Mutex, PoisonError};

use super::{Compiled, Escape, TemplateError};

/// Most templates that are kept. More work as well, each compiled for itself.
pub(super) const KEPT_MAX: usize = 256;

static KEPT: Mutex<Vec<Arc<Compiled>>> = Mutex::new(Vec::new());

/// The kept one, or a new one, which is then kept. Those that nobody uses go first where there are too many.
pub(super) fn get_or_compile(
    source: &str,
    escape: Escape,
    compile: impl FnOnce() -> Result<Compiled, TemplateError>,
) -> Result<Arc<Compiled>, TemplateError> {
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = kept.iter().find(|kept| kept.escape == escape && kept.source == source) {
        return Ok(Arc::clone(found));
    }
    let compiled = Arc::new(compile()?);
    if kept.len() >= KEPT_MAX {
        kept.retain(|kept| Arc::strong_count(kept) > 1);
    }
    if kept.len() < KEPT_MAX {
        kept.push(Arc::clone(&compiled));
    }
    Ok(compiled)
}

/// How many are kept.
#[cfg(test)]
pub(super) fn kept() -> usize {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner).len()
}
