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

    /// How long the file is now.
    pub fn bytes(&self) -> u64 {
        std::fs::metadata(&self.path).map_or(0, |metadata| metadata.len())
    }

    /// Every whole event in the file, in order, repeats included, with the offset of its line. A line that was torn by
    /// `kill -9` is not an event: it was never acknowledged and comes again.
    pub fn events_at(&self) -> Vec<(u64, Value)> {
        let bytes = std::fs::read(&self.path).unwrap_or_default();
        let mut offset = 0;
        let event = |line: &[u8]| {
            let start = offset;
            offset += line.len() as u64 + 1;
            serde_json::from_slice(line).ok().map(|event| (start, event))
        };
        bytes.split(|byte| *byte == b'\n').filter_map(event).collect()
    }

    /// The same without offsets.
    pub fn events(&self) -> Vec<Value> {
        self.events_at().into_iter().map(|(_, event)| event).collect()
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
