//! Output plugin `csv`: each change as one line of a CSV file, with the columns that the operator names.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use tailwater_sdk::{Batch, Context, Counter, DeliverError, Error, Output, StartError, export_output, tracing};

/// The keys of `[outputs.NAME.options]`. The daemon checks them against the schema that is made of this.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// File to append to; made where it does not exist.
    path: PathBuf,
    /// What to write of each event: names of its fields, with dots, as in `fullDocument.status`.
    #[serde(default = "default_columns")]
    columns: Vec<String>,
}

fn default_columns() -> Vec<String> {
    ["id", "operationType", "ns.db", "ns.coll", "documentKey._id"].map(str::to_owned).to_vec()
}

/// One output of `config.toml`.
pub struct Csv {
    columns: Vec<String>,
    // Deliveries run side by side, as many as the output's `concurrency`; one at a time may write.
    file: Arc<Mutex<File>>,
    written: Counter,
    context: Context,
}

impl Output for Csv {
    type Options = Options;
    const SUMMARY: &'static str = "Appends each event to a CSV file.";
    // Every event's JSON is read, so the daemon counts it as memory in flight.
    const WANTS_JSON: bool = true;

    /// `tailwater check` calls this, too: nothing is opened here.
    fn validate(options: &Options) -> Result<(), Error> {
        match &options.columns[..] {
            [] => Err("columns is empty: name at least one field of the event, as \"id\"".into()),
            columns if columns.iter().any(String::is_empty) => Err("columns has an empty name".into()),
            _ => Ok(()),
        }
    }

    async fn start(options: Options, context: Context) -> Result<Csv, StartError> {
        let Options { path, columns } = options;
        let header = line(columns.iter().map(String::as_str));
        // Whatever may block goes to a thread where it may.
        let opened = context.spawn_blocking({
            let path = path.clone();
            move || open(&path, &header)
        });
        // A folder that is not there will not appear by waiting. Where waiting can help: `StartError::retry`.
        let file = opened.await?.map_err(|error| StartError::fatal(format!("open {}: {error}", path.display())))?;
        tracing::info!(path = %path.display(), "appending");
        let written = context.counter("lines_total", "Lines written.");
        Ok(Csv { columns, file: Arc::new(Mutex::new(file)), written, context })
    }

    /// `Ok` says that all of the batch is written; an error, that all of it has to come again.
    async fn deliver(&self, batch: &Batch) -> Result<(), DeliverError> {
        let mut lines = String::new();
        for event in batch.iter() {
            let json: Value = serde_json::from_slice(event.json()?)?;
            lines += &line(self.columns.iter().map(|column| cell(&json, column)));
        }
        let file = Arc::clone(&self.file);
        let write = self.context.spawn_blocking(move || append(&file, lines.as_bytes()));
        write.await??;
        self.written.add(batch.len() as u64);
        Ok(())
    }
}

export_output!(Csv);

/// A file that is new begins with the names of the columns.
fn open(path: &Path, header: &str) -> io::Result<File> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    if file.metadata()?.len() == 0 {
        file.write_all(header.as_bytes())?;
    }
    Ok(file)
}

/// All or nothing: the lines come again after an error, and must not stand behind half of themselves.
fn append(file: &Mutex<File>, lines: &[u8]) -> io::Result<()> {
    let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
    let before = file.seek(SeekFrom::End(0))?;
    file.write_all(lines).inspect_err(|_| {
        let _ = file.set_len(before);
    })
}

/// The text of one field. What is not there is empty; what is not a text is JSON.
fn cell(event: &Value, column: &str) -> String {
    match event.pointer(&format!("/{}", column.replace('.', "/"))) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// One line, quoted where CSV asks for it (RFC 4180).
fn line(cells: impl Iterator<Item = impl AsRef<str>>) -> String {
    let quoted = cells.map(|cell| match cell.as_ref() {
        cell if cell.contains(['"', ',', '\n', '\r']) => format!("\"{}\"", cell.replace('"', "\"\"")),
        cell => cell.to_owned(),
    });
    quoted.collect::<Vec<_>>().join(",") + "\r\n"
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tailwater_sdk::testing::{Harness, TestEvent, Verdict};

    use super::*;

    /// Through the same functions that the daemon calls, without a daemon.
    #[test]
    fn events_become_lines() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("changes.csv");
        let options = json!({ "path": path, "columns": ["operationType", "fullDocument.note", "fullDocument.items"] });
        let event = |json: Value| {
            let mut event = TestEvent::new("insert", "shop", "orders");
            event.json = Some(json.to_string());
            event
        };
        // Twice: a file that is there gets no second header.
        for _ in 0..2 {
            let harness = Harness::<Csv>::start(options.clone()).expect("it starts");
            let outcome = harness.deliver(vec![
                event(json!({ "operationType": "insert", "fullDocument": { "note": "a \"b\", c", "items": [1, 2] } })),
                event(json!({ "operationType": "delete" })),
            ]);
            assert_eq!(outcome.verdicts, [Verdict::Ack, Verdict::Ack]);
            harness.stop();
        }
        let lines = "insert,\"a \"\"b\"\", c\",\"[1,2]\"\r\ndelete,,\r\n";
        let header = "operationType,fullDocument.note,fullDocument.items\r\n";
        assert_eq!(std::fs::read_to_string(path).expect("a file"), format!("{header}{lines}{lines}"));
    }

    #[test]
    fn options_that_cannot_work_are_refused() {
        for (options, expected) in [
            (json!({}), "missing field `path`"),
            (json!({ "path": "x", "columns": [] }), "columns is empty"),
            (json!({ "path": "x", "column": ["id"] }), "unknown field `column`"),
        ] {
            let error = Harness::<Csv>::validate(options.clone()).expect_err(expected);
            assert!(error.contains(expected), "{options}: {error}");
        }
    }
}
