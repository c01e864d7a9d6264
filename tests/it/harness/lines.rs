//! What an output has written to its JSON Lines file.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// A file of JSON Lines that a daemon writes, possibly one that was killed while it wrote.
pub struct Lines {
    path: PathBuf,
}

impl Lines {
    /// The file need not exist yet.
    pub fn new(path: impl AsRef<Path>) -> Lines {
        Lines { path: path.as_ref().to_owned() }
    }

    /// Every whole event in the file, in order, repeats included. A line that was torn by `kill -9` is not an event: it was
    /// never acknowledged and comes again.
    pub fn events(&self) -> Vec<Value> {
        let bytes = std::fs::read(&self.path).unwrap_or_default();
        bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
    }

    /// The events without those whose id was there before.
    pub fn first_occurrences(&self) -> Vec<Value> {
        let mut seen = HashSet::new();
        self.events().into_iter().filter(|event| seen.insert(id(event))).collect()
    }
}

/// The event id.
pub fn id(event: &Value) -> String {
    event["id"].as_str().unwrap_or_else(|| panic!("an event has an id: {event}")).to_owned()
}
