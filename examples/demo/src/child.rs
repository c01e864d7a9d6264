//! A program that this one started, and that it ends with itself: asked to end where there is time, killed where there is not.

use std::path::Path;
use std::process::{Child as Process, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

/// Between looks at whether it has ended.
const LOOK: Duration = Duration::from_millis(20);

/// A running program.
pub struct Child {
    process: Process,
    name: &'static str,
}

impl Child {
    /// Starts `command`, called `name` in messages.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn start(name: &'static str, command: &mut Command) -> Result<Child> {
        use std::os::unix::process::CommandExt;
        // A process group of its own: Ctrl-C in the terminal reaches this program alone, which ends the others in their order.
        let process = command.stdin(Stdio::null()).process_group(0).spawn();
        let process = process.with_context(|| format!("start {}", Path::new(command.get_program()).display()))?;
        Ok(Child { process, name })
    }

    /// Its standard error, where that was piped; once.
    pub fn stderr(&mut self) -> Option<std::process::ChildStderr> {
        self.process.stderr.take()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.process.try_wait().with_context(|| format!("wait for {}", self.name))
    }

    /// SIGTERM, then at most `patience`. `None` where it had to be killed.
    pub async fn terminate(mut self, patience: Duration) -> Result<Option<ExitStatus>> {
        if let Some(status) = self.ended()? {
            return Ok(Some(status));
        }
        // It was not waited for, so the number is still its own.
        kill_process(Pid::from_child(&self.process), Signal::TERM).with_context(|| format!("end {}", self.name))?;
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if let Some(status) = self.ended()? {
                return Ok(Some(status));
            }
            sleep(LOOK).await;
        }
        Ok(None)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Both fail where it has ended, which is what is wanted.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
