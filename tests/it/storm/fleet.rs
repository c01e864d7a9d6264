//! The instances of the daemon in the storm: started, killed, drained, paused; each start is a run with a number of its own,
//! which the receivers see.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::harness::{Daemon, eventually};

/// Longer than `shutdown_grace`.
const DRAIN_MAX: Duration = Duration::from_secs(40);

/// What ended a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Killed,
    Drained,
    Itself,
}

/// One life of one instance.
pub struct Run {
    pub instance: usize,
    /// When it was told to end, or was found ended, and how.
    pub ended: Option<(Instant, End)>,
    log: Vec<String>,
}

struct Instance {
    folder: PathBuf,
    daemon: Option<Daemon>,
    /// Of `runs`, the newest one of this instance.
    run: usize,
}

/// All instances, with the same `name`.
pub struct Fleet {
    /// The configuration of a run.
    text: Box<dyn Fn(usize) -> String>,
    instances: Vec<Instance>,
    runs: Vec<Run>,
}

impl Fleet {
    /// None is running yet. Each gets a folder in `folder`.
    pub fn new(folder: &Path, count: usize, text: impl Fn(usize) -> String + 'static) -> Fleet {
        let instance = |number| {
            let folder = folder.join(format!("instance-{number}"));
            std::fs::create_dir(&folder).expect("make a folder");
            Instance { folder, daemon: None, run: 0 }
        };
        Fleet { text: Box::new(text), instances: (0..count).map(instance).collect(), runs: Vec::new() }
    }

    pub fn count(&self) -> usize {
        self.instances.len()
    }

    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Begins a run.
    pub fn start(&mut self, instance: usize) {
        let run = self.runs.len();
        self.runs.push(Run { instance, ended: None, log: Vec::new() });
        let text = (self.text)(run);
        let one = &mut self.instances[instance];
        one.run = run;
        one.daemon = Some(Daemon::spawn(&one.folder, &text));
    }

    /// Waits until it is ready.
    pub async fn wait_until_ready(&mut self, instance: usize) {
        self.instances[instance].daemon.as_mut().expect("running").wait_until_ready().await;
    }

    /// Whether it had ended without being told to: then it is started again, as a supervisor would.
    pub fn revive(&mut self, instance: usize) -> bool {
        if self.instances[instance].daemon.as_mut().is_none_or(Daemon::is_running) {
            return false;
        }
        self.end(instance, Instant::now(), End::Itself);
        self.start(instance);
        true
    }

    pub fn kill9(&mut self, instance: usize) {
        self.end(instance, Instant::now(), End::Killed);
    }

    /// SIGTERM; waits until it has ended.
    pub async fn drain(&mut self, instance: usize) {
        let (at, one) = (Instant::now(), &mut self.instances[instance]);
        let daemon = one.daemon.as_mut().expect("running");
        daemon.terminate();
        daemon.wait_until_ended(DRAIN_MAX).await;
        self.end(instance, at, End::Drained);
    }

    pub fn pause(&self, instance: usize) {
        self.instances[instance].daemon.as_ref().expect("running").pause();
    }

    pub fn resume(&self, instance: usize) {
        self.instances[instance].daemon.as_ref().expect("running").resume();
    }

    fn end(&mut self, instance: usize, at: Instant, end: End) {
        let one = &mut self.instances[instance];
        let daemon = one.daemon.take().expect("running");
        let run = &mut self.runs[one.run];
        (run.ended, run.log) = (Some((at, end)), daemon.log());
        daemon.kill9();
    }

    /// Ends all, each in an orderly way.
    ///
    /// # Panics
    /// When one fails at that.
    pub async fn finish(&mut self) {
        for one in &mut self.instances {
            let mut daemon = one.daemon.take().expect("running");
            daemon.terminate();
            let mut log = Vec::new();
            eventually("the daemon has drained", DRAIN_MAX, || {
                log = daemon.log();
                !daemon.is_running()
            })
            .await;
            self.runs[one.run].log = log;
            let status = daemon.wait_until_ended(DRAIN_MAX).await;
            assert!(status.success(), "after SIGTERM: {status}");
        }
    }

    /// Leaves what every run has logged in one file, for whoever looks into a failure.
    pub fn write_logs(&self, path: &Path) {
        let mut text = String::new();
        for (number, run) in self.runs.iter().enumerate() {
            text +=
                &format!("=== run {number} of instance {}, ended {:?}\n", run.instance, run.ended.map(|(_, end)| end));
            let running = self.instances.iter().find(|one| one.run == number).and_then(|one| one.daemon.as_ref());
            let log = running.map_or_else(|| run.log.clone(), Daemon::log);
            text += &log.join("\n");
            text.push('\n');
        }
        std::fs::write(path, text).expect("write the logs");
    }
}
