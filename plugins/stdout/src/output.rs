//! The output: a batch becomes one write.

use std::{io, path::PathBuf, sync::Mutex};

use tailwater_sdk::{Batch, Context, Counter, DeliverError, Output, StartError, tracing};

use crate::{
    config::{Fsync, Options},
    lines::{self, Shared},
};

/// Writes each event as a line of JSON.
pub struct Stdout {
    /// The file, opened again where `path` leads to another one by now.
    lines: Mutex<Shared>,
    /// `None` is standard output.
    path: Option<PathBuf>,
    /// For messages: the path, or "standard output".
    target: String,
    fsync: Fsync,
    context: Context,
    bytes: Counter,
}

impl Output for Stdout {
    type Options = Options;
    const SUMMARY: &'static str = "Writes each event as a line of JSON, to standard output or to a file.";
    const BATCH_EVENTS_MAX: u32 = 1000;
    const WANTS_JSON: bool = true;

    fn validate(options: &Options) -> Result<(), tailwater_sdk::Error> {
        match &options.path {
            Some(path) if path.as_os_str().is_empty() => Err("path is empty: leave it out for standard output".into()),
            None if options.fsync == Fsync::Batch => Err("fsync = \"batch\" needs a path".into()),
            _ => Ok(()),
        }
    }

    async fn start(options: Options, context: Context) -> Result<Self, StartError> {
        let target = options.path.as_ref().map_or("standard output".to_owned(), |path| path.display().to_string());
        let path = options.path.clone();
        let opened = context.spawn_blocking(move || match &options.path {
            Some(path) => lines::append_to(path),
            None => lines::stdout(),
        });
        let lines = Mutex::new(opened.await?.map_err(|error| cannot_open(&target, &error))?);
        let bytes = context.counter("stdout_bytes_total", "Bytes written to standard output or the file.");
        Ok(Self { lines, path, target, fsync: options.fsync, context, bytes })
    }

    async fn deliver(&self, batch: &Batch) -> Result<(), DeliverError> {
        let mut buffer = Vec::with_capacity(batch.bytes() as usize * 2);
        for event in batch.iter() {
            buffer.extend_from_slice(event.json()?);
            buffer.push(b'\n');
        }
        let length = buffer.len() as u64;
        let mut lines = self.current();
        if let Some(rest) = self.write(&lines, buffer).await? {
            // Rotated or deleted: once more, at the file that is there now. Gone again at once is for the next delivery.
            lines = self.open_again().await?;
            if self.write(&lines, rest).await?.is_some() {
                return Err(DeliverError::retry(format!("write to {}: it is replaced all the time", self.target)));
            }
        }
        self.bytes.add(length);
        Ok(())
    }
}

impl Stdout {
    fn current(&self) -> Shared {
        self.lines.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// Gives `buffer` back where it was not written because `path` leads to another file by now.
    async fn write(&self, lines: &Shared, buffer: Vec<u8>) -> Result<Option<Vec<u8>>, DeliverError> {
        // On a thread of its own: a pipe that nobody reads blocks for as long as it likes, and this library has one worker for
        // all its outputs. The lock goes along, so that the lines stay whole even where this future is dropped meanwhile.
        let mut lines = lines.clone().lock_owned().await;
        let (fsync, path) = (self.fsync, self.path.clone());
        let written = self.context.spawn_blocking(move || {
            if path.is_some_and(|path| !lines.is_at(&path)) {
                return Ok(Some(buffer));
            }
            lines.write(&buffer)?;
            if fsync == Fsync::Batch {
                lines.sync()?;
            }
            Ok(None)
        });
        written.await?.map_err(|error| cannot_write(&self.target, &error))
    }

    async fn open_again(&self) -> Result<Shared, DeliverError> {
        let path = self.path.clone().unwrap_or_default();
        let opened = self.context.spawn_blocking(move || lines::append_to(&path)).await?;
        let lines = opened.map_err(|error| DeliverError::retry(format!("open {} again: {error}", self.target)))?;
        *self.lines.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = lines.clone();
        tracing::info!(path = self.target, "the file was replaced: opened the new one");
        Ok(lines)
    }
}

fn cannot_open(target: &str, error: &io::Error) -> StartError {
    match error.kind() {
        io::ErrorKind::NotFound => {
            StartError::fatal(format!("open {target}: its folder does not exist; make it, or change `path`"))
        }
        io::ErrorKind::StorageFull => StartError::retry(format!("open {target}: the disk is full")),
        _ if error.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) => {
            StartError::retry(format!("open {target}: nobody reads this named pipe; start its reader"))
        }
        _ => StartError::fatal(format!("open {target}: {error}")),
    }
}

fn cannot_write(target: &str, error: &io::Error) -> DeliverError {
    match error.kind() {
        io::ErrorKind::BrokenPipe => {
            DeliverError::fatal(format!("write to {target}: its reader is gone; start the reader and the daemon again"))
        }
        io::ErrorKind::StorageFull => {
            DeliverError::retry(format!("write to {target}: the disk is full; this passes when there is room"))
        }
        _ => DeliverError::retry(format!("write to {target}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::Read,
        path::Path,
        process::Command,
        thread,
        time::{Duration, Instant},
    };

    use serde_json::json;
    use tailwater_sdk::testing::{Harness, Outcome, StartFailure, TestEvent, Verdict};

    use super::*;

    fn events(first: u32, count: u32) -> Vec<TestEvent> {
        let event = |n| TestEvent::new("insert", "shop", "orders").json(&format!("{{\"n\":{n}}}"));
        (first..first + count).map(event).collect()
    }

    fn acked(outcome: &Outcome) -> bool {
        outcome.verdicts.iter().all(|verdict| *verdict == Verdict::Ack)
    }

    #[test]
    fn a_batch_is_appended_line_by_line_and_a_second_run_goes_on_at_the_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("events.jsonl");
        for first in [0, 2] {
            let harness = Harness::<Stdout>::start(json!({ "path": path, "fsync": "batch" })).expect("it starts");
            assert!(acked(&harness.deliver(events(first, 2))));
            assert_eq!(harness.metric("stdout_bytes_total"), 16.0);
            assert_eq!(harness.stop(), Verdict::Ack);
        }
        assert_eq!(fs::read_to_string(path).expect("a file"), "{\"n\":0}\n{\"n\":1}\n{\"n\":2}\n{\"n\":3}\n");
    }

    #[test]
    fn two_outputs_with_batches_in_flight_never_write_into_each_others_lines() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("events.jsonl");
        let long = format!("{{\"text\":\"{}\"}}", "x".repeat(100_000));
        let outputs: Vec<_> =
            (0..2).map(|_| Harness::<Stdout>::start(json!({ "path": path })).expect("it starts")).collect();
        let pending: Vec<_> = (0..20)
            .map(|n| outputs[n % 2].begin_delivery(vec![TestEvent::new("insert", "a", "b").json(&long)]))
            .collect();
        assert!(pending.into_iter().all(|pending| acked(&pending.wait())));
        let text = fs::read_to_string(path).expect("a file");
        assert_eq!(text.lines().count(), 20);
        assert!(text.lines().all(|line| line == long));
    }

    #[test]
    fn a_full_disk_is_retried() {
        let harness = Harness::<Stdout>::start(json!({ "path": "/dev/full" })).expect("it starts");
        let outcome = harness.deliver(events(0, 1));
        let [Verdict::Retry { reason, .. }] = &outcome.verdicts[..] else { panic!("retry, not {outcome:?}") };
        assert!(reason.contains("/dev/full") && reason.contains("full"), "{reason}");
    }

    /// A pipe and its reading end, which reads nothing by itself.
    fn pipe(folder: &tempfile::TempDir) -> (std::path::PathBuf, thread::JoinHandle<fs::File>) {
        let path = folder.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&path).status().expect("mkfifo runs").success());
        let reader = path.clone();
        // Opening the reading end waits for the writing one.
        (path, thread::spawn(move || fs::File::open(reader).expect("the reading end")))
    }

    /// Tries again as the daemon does, until the pipe has its reader.
    fn start_when_read(path: &Path) -> Harness<Stdout> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            match Harness::<Stdout>::start(json!({ "path": path })) {
                Ok(harness) => return harness,
                Err(StartFailure::Verdict(Verdict::Retry { .. })) if Instant::now() < deadline => thread::yield_now(),
                Err(failure) => panic!("it starts or asks for another try, not {failure:?}"),
            }
        }
    }

    #[test]
    fn a_pipe_without_a_reader_is_tried_again_later() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&path).status().expect("mkfifo runs").success());
        let failure = Harness::<Stdout>::start(json!({ "path": path })).err();
        let Some(StartFailure::Verdict(Verdict::Retry { reason, .. })) = failure else {
            panic!("retry, not {failure:?}")
        };
        assert!(reason.ends_with("nobody reads this named pipe; start its reader"), "{reason}");
    }

    #[test]
    fn a_rotated_or_deleted_file_is_made_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, old) = (folder.path().join("events.jsonl"), folder.path().join("events.jsonl.1"));
        let outputs: Vec<_> =
            (0..2).map(|_| Harness::<Stdout>::start(json!({ "path": path })).expect("it starts")).collect();
        let deliver = |output: usize, n| assert!(acked(&outputs[output].deliver(events(n, 1))));
        deliver(0, 0);
        fs::rename(&path, &old).expect("a rotation");
        deliver(0, 1);
        deliver(1, 2);
        deliver(0, 3);
        assert_eq!(fs::read_to_string(&old).expect("a file"), "{\"n\":0}\n");
        assert_eq!(fs::read_to_string(&path).expect("a file"), "{\"n\":1}\n{\"n\":2}\n{\"n\":3}\n");
        fs::remove_file(&path).expect("deleted");
        deliver(1, 4);
        assert_eq!(fs::read_to_string(&path).expect("a file"), "{\"n\":4}\n");
    }

    #[test]
    fn a_pipe_that_nobody_reads_delays_its_own_output_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, reader) = pipe(&folder);
        let slow = start_when_read(&path);
        let mut reader = reader.join().expect("the reader");
        // More than a pipe holds.
        let long = format!("\"{}\"", "x".repeat(1 << 20));
        let pending = slow.begin_delivery(vec![TestEvent::new("insert", "a", "b").json(&long)]);
        let other = Harness::<Stdout>::start(json!({ "path": "/dev/null" })).expect("it starts");
        assert!(acked(&other.deliver(events(0, 10))));
        assert!(!pending.is_completed());
        let mut text = vec![0; long.len() + 1];
        reader.read_exact(&mut text).expect("the line");
        assert!(acked(&pending.wait()));
    }

    #[test]
    fn a_pipe_whose_reader_is_gone_stops_the_output() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, reader) = pipe(&folder);
        let harness = start_when_read(&path);
        drop(reader.join().expect("the reader"));
        let outcome = harness.deliver(events(0, 1));
        let [Verdict::Fatal { reason }] = &outcome.verdicts[..] else { panic!("fatal, not {outcome:?}") };
        assert!(reason.contains("its reader is gone"), "{reason}");
    }

    #[test]
    fn a_missing_folder_is_named() {
        let failure = Harness::<Stdout>::start(json!({ "path": "/nowhere/at/all.jsonl" })).err();
        let Some(StartFailure::Verdict(Verdict::Fatal { reason })) = failure else { panic!("fatal, not {failure:?}") };
        assert_eq!(reason, "open /nowhere/at/all.jsonl: its folder does not exist; make it, or change `path`");
    }

    #[test]
    fn an_event_without_json_is_rejected_and_the_others_come_again() {
        let harness = Harness::<Stdout>::start(json!({ "path": "/dev/null" })).expect("it starts");
        let mut batch = events(0, 2);
        batch[1].json = None;
        let outcome = harness.deliver(batch);
        assert!(matches!(outcome.verdicts[..], [Verdict::Retry { .. }, Verdict::Reject { .. }]), "{outcome:?}");
    }

    #[test]
    fn options_that_cannot_work_are_refused() {
        for (options, expected) in [
            (json!({ "path": "" }), "path is empty"),
            (json!({ "fsync": "batch" }), "needs a path"),
            (json!({ "pat": "x" }), "unknown field `pat`"),
            (json!({ "fsync": "always" }), "unknown variant `always`"),
        ] {
            let error = Harness::<Stdout>::validate(options.clone()).expect_err(expected);
            assert!(error.contains(expected), "{options}: {error}");
        }
    }
}
