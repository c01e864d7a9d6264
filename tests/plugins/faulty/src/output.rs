//! The faults that an author of an output could write.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    path::PathBuf,
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tailwater_sdk::{Batch, Context, DeliverError, Event, Output, StartError, Verdict, Verdicts, tokio};

use crate::config::{Mode, Options};

/// Writes what it acknowledges, and misbehaves on request.
pub struct Faulty {
    options: Options,
    record: Mutex<File>,
    /// Batches in the mode `slow`.
    batches: AtomicU32,
}

impl Output for Faulty {
    type Options = Options;
    const SUMMARY: &'static str = "Misbehaves on request; for tests of the daemon.";
    const BATCH_EVENTS_MAX: u32 = 1000;
    const WANTS_JSON: bool = true;

    fn validate(options: &Options) -> Result<(), tailwater_sdk::Error> {
        match options.mode {
            Mode::RetryFor if options.gate.is_none() => Err("mode = \"retry_for\" needs a gate".into()),
            Mode::RejectMatching if options.text.is_none() => Err("mode = \"reject_matching\" needs a text".into()),
            _ => Ok(()),
        }
    }

    async fn start(options: Options, _: Context) -> Result<Self, StartError> {
        let record = OpenOptions::new().append(true).create(true).open(&options.path)?;
        Ok(Self { options, record: Mutex::new(record), batches: AtomicU32::new(0) })
    }

    async fn deliver(&self, batch: &Batch) -> Result<(), DeliverError> {
        let gate_is_shut = || self.options.gate.as_ref().is_some_and(|gate| !gate.exists());
        match self.options.mode {
            Mode::RetryFor if gate_is_shut() => return Err(DeliverError::retry("the gate is shut")),
            Mode::PanicOnce if self.first_time()? => panic!("the fault that was asked for"),
            Mode::Hang if self.first_time()? => std::future::pending::<()>().await,
            Mode::Fatal => return Err(DeliverError::fatal("the fault that was asked for")),
            Mode::Slow => tokio::time::sleep(self.delay()).await,
            Mode::RejectMatching => return self.reject_matching(batch),
            _ => {}
        }
        self.write(batch.iter())
    }
}

impl Faulty {
    fn delay(&self) -> Duration {
        let delay = Duration::from_millis(self.options.delay_ms);
        let batch = self.batches.fetch_add(1, Ordering::Relaxed);
        if self.options.uneven && batch.is_multiple_of(2) { delay * 4 } else { delay }
    }

    fn reject_matching(&self, batch: &Batch) -> Result<(), DeliverError> {
        let text = self.options.text.as_deref().unwrap_or_default();
        let mut verdicts = Verdicts::new(Verdict::Ack);
        let mut acknowledged = Vec::new();
        for event in batch.iter() {
            if String::from_utf8_lossy(event.json()?).contains(text) {
                verdicts.set(&event, Verdict::reject(format!("it contains {text:?}")));
            } else {
                acknowledged.push(event);
            }
        }
        self.write(acknowledged.into_iter())?;
        if verdicts.is_uniform() { Ok(()) } else { Err(verdicts.into()) }
    }

    /// In the kernel's hands, by one `write`, before anything is acknowledged: a killed process loses none of it.
    fn write<'a>(&self, events: impl Iterator<Item = Event<'a>>) -> Result<(), DeliverError> {
        let mut lines = Vec::new();
        for event in events {
            let json = event.json()?;
            write!(lines, "{{\"attempt\":{},", event.attempt())?;
            lines.extend_from_slice(&json[1..]);
            lines.push(b'\n');
        }
        let mut record = self.record.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        record.write_all(&lines)?;
        Ok(())
    }

    /// True once per `path`, for all instances and processes together.
    fn first_time(&self) -> Result<bool, std::io::Error> {
        let mut marker = self.options.path.clone().into_os_string();
        marker.push(".fault");
        match OpenOptions::new().write(true).create_new(true).open(PathBuf::from(marker)) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use serde_json::{Value, json};
    use tailwater_sdk::testing::{Harness, TestEvent, Verdict};

    use super::*;

    fn start(path: &Path, mode: Value) -> Harness<Faulty> {
        let mut options = json!({ "path": path });
        options.as_object_mut().expect("an object").extend(mode.as_object().expect("an object").clone());
        Harness::start(options).expect("it starts")
    }

    fn event() -> TestEvent {
        TestEvent::new("insert", "shop", "orders").attempt(3)
    }

    #[test]
    fn a_line_is_the_events_json_and_the_attempt() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("out");
        let event = event();
        let id = event.id.clone();
        assert_eq!(start(&path, json!({})).deliver(vec![event]).verdicts, [Verdict::Ack]);
        let line: Value = serde_json::from_str(&fs::read_to_string(path).expect("a file")).expect("json");
        assert_eq!((&line["attempt"], &line["id"]), (&json!(3), &json!(id)));
    }

    #[test]
    fn a_shut_gate_retries_and_an_open_one_lets_through() {
        let folder = tempfile::tempdir().expect("a folder");
        let gate = folder.path().join("gate");
        let harness = start(&folder.path().join("out"), json!({ "mode": "retry_for", "gate": gate }));
        let retry = |verdict: &Verdict| matches!(verdict, Verdict::Retry { .. });
        assert!(retry(&harness.deliver(vec![event()]).verdicts[0]));
        fs::write(&gate, "").expect("a file");
        assert_eq!(harness.deliver(vec![event()]).verdicts, [Verdict::Ack]);
    }

    #[test]
    fn a_panic_happens_once_per_path() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("out");
        let mode = json!({ "mode": "panic_once" });
        let verdicts = start(&path, mode.clone()).deliver(vec![event()]).verdicts;
        assert!(matches!(verdicts[..], [Verdict::Failed { .. }]), "{verdicts:?}");
        assert_eq!(start(&path, mode).deliver(vec![event()]).verdicts, [Verdict::Ack]);
    }

    #[test]
    fn only_what_matches_is_rejected_and_only_the_rest_is_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("out");
        let harness = start(&path, json!({ "mode": "reject_matching", "text": "poison" }));
        let [good, bad] = ["{\"a\":1}", "{\"a\":\"poison\"}"].map(|json| event().json(json));
        let verdicts = harness.deliver(vec![good, bad]).verdicts;
        assert!(matches!(verdicts[..], [Verdict::Ack, Verdict::Reject { .. }]), "{verdicts:?}");
        assert_eq!(fs::read_to_string(path).expect("a file"), "{\"attempt\":3,\"a\":1}\n");
    }
}
