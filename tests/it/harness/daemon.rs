//! The real daemon as a child process: started from a configuration text, watched through its log and its admin port.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{eventually, pause, resume};

/// How long the daemon may take to be ready on a busy machine.
const READY_MAX: Duration = Duration::from_secs(30);

/// A running `tailwater run`.
pub struct Daemon {
    process: Child,
    /// Every line of its standard error so far; the reading thread holds the other end.
    log: Arc<Mutex<Vec<String>>>,
}

impl Daemon {
    /// Writes `config` into `folder`, starts the daemon there and waits until it is ready.
    pub async fn start(folder: &Path, config: &str) -> Daemon {
        let mut daemon = Daemon::spawn(folder, config);
        daemon.wait_until_ready().await;
        daemon
    }

    /// The same without waiting.
    pub fn spawn(folder: &Path, config: &str) -> Daemon {
        let mut command = tailwater(folder, config);
        let mut process = command.arg("run").args(["--config", "config.toml"]).spawn().expect("start tailwater");
        let log = Arc::new(Mutex::new(Vec::new()));
        let (stderr, lines) = (process.stderr.take().expect("piped"), Arc::clone(&log));
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines.lock().expect("log").push(line);
            }
        });
        Daemon { process, log }
    }

    /// Waits until `/readyz` answers 200; panics when the daemon ends before.
    pub async fn wait_until_ready(&mut self) {
        let started = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().expect("wait for tailwater") {
                panic!("tailwater ended before it was ready, {status}");
            }
            if self.get("/readyz").is_some_and(|answer| answer.status == 200) {
                return;
            }
            assert!(started.elapsed() < READY_MAX, "tailwater is not ready after {READY_MAX:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// One sample of `/metrics`: the value of `name` whose labels contain all of `labels`. `None` while there is none.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let answer = self.get("/metrics").filter(|answer| answer.status == 200)?;
        answer.body.lines().find_map(|line| sample(line, name, labels))
    }

    /// A GET on the admin port; `None` while nothing listens.
    pub fn get(&self, path: &str) -> Option<Answer> {
        let admin = self.admin()?;
        let mut stream = TcpStream::connect(&admin).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        Some(Answer { status: head.split(' ').nth(1)?.parse().ok()?, body: body.to_owned() })
    }

    /// True while `output` is in this state, in the metrics' words.
    pub fn is_in_state(&self, output: &str, state: &str) -> bool {
        self.metric("tailwater_output_state", &[("output", output), ("state", state)]) == Some(1.0)
    }

    /// Its memory now, as the kernel counts it.
    pub fn memory(&self) -> Memory {
        let path = format!("/proc/{}/status", self.process.id());
        let status = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {path}: {error}"));
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line of /proc/…/status");
            line.trim().trim_end_matches(" kB").parse::<u64>().expect("kilobytes") * 1024
        };
        Memory { resident: field("VmRSS:"), anonymous: field("RssAnon:"), resident_max: field("VmHWM:") }
    }

    /// True when a line of the log contains all of `words`.
    pub fn has_logged(&self, words: &[&str]) -> bool {
        self.log().iter().any(|line| words.iter().all(|word| line.contains(word)))
    }

    /// True while the process has not ended.
    pub fn is_running(&mut self) -> bool {
        self.process.try_wait().expect("wait for tailwater").is_none()
    }

    /// Waits until the process has ended by itself. Panics after `deadline`.
    pub async fn wait_until_ended(&mut self, deadline: Duration) -> ExitStatus {
        let mut ended = None;
        eventually("tailwater has ended by itself", deadline, || {
            ended = self.process.try_wait().expect("wait for tailwater");
            ended.is_some()
        })
        .await;
        ended.expect("just seen")
    }

    /// The log so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().expect("log").clone()
    }

    /// `kill -9`, and waits until the process is gone.
    pub fn kill9(mut self) {
        self.process.kill().expect("kill");
        self.process.wait().expect("wait");
    }

    /// Sends a signal, such as SIGHUP.
    pub fn signal(&mut self, signal: Signal) {
        assert!(self.is_running(), "tailwater has ended before {signal:?}");
        kill_process(Pid::from_child(&self.process), signal).expect("send a signal");
    }

    /// Where its admin port is, as a URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.admin().expect("an admin port"))
    }

    /// Runs `tailwater ARGUMENTS… --admin URL` and gives back what it said.
    pub fn ask(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(PathBuf::from(env!("CARGO_BIN_EXE_tailwater")));
        command.args(arguments).args(["--admin", &self.url()]).stdin(Stdio::null()).output().expect("run tailwater")
    }

    /// The same, for what must succeed: its standard output.
    pub fn told(&self, arguments: &[&str]) -> String {
        let output = self.ask(arguments);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "tailwater {arguments:?}: {}\n{out}{err}", output.status);
        out.into_owned()
    }

    /// The same, for what must be refused: its standard error.
    pub fn refused(&self, arguments: &[&str]) -> String {
        let output = self.ask(arguments);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(!output.status.success(), "tailwater {arguments:?} was not refused: {out}{err}");
        err.into_owned()
    }

    /// Its status, as JSON: the part about one output.
    pub fn status_of(&self, output: &str) -> serde_json::Value {
        let answer = self.get("/api/status").expect("an answer");
        let status: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
        let outputs = status["outputs"].as_array().expect("outputs");
        outputs.iter().find(|found| found["name"] == output).cloned().unwrap_or(serde_json::Value::Null)
    }

    /// SIGTERM, and waits until the process has ended by itself. Panics after `deadline`.
    pub async fn terminate_and_wait(mut self, deadline: Duration) -> ExitStatus {
        self.terminate();
        self.wait_until_ended(deadline).await
    }

    /// SIGTERM, and no wait.
    pub fn terminate(&mut self) {
        self.signal(Signal::TERM);
    }

    /// Stops it without ending it (SIGSTOP), as a machine that sleeps.
    pub fn pause(&self) {
        pause(&self.process);
    }

    /// Lets it go on after [`Daemon::pause`].
    pub fn resume(&self) {
        resume(&self.process);
    }

    /// Where the admin port is, once the log has said so.
    fn admin(&self) -> Option<String> {
        let log = self.log.lock().expect("log");
        let found = log.iter().find_map(|line| line.split_once("admin listening on "))?.1;
        found.split_whitespace().next().map(str::to_owned)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("--- log of tailwater\n{}\n---", self.log().join("\n"));
        }
    }
}

/// Bytes of memory.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Resident, pages of the executable and its libraries included.
    pub resident: u64,
    /// Resident and not backed by a file: heap and stacks.
    pub anonymous: u64,
    /// The most that was ever resident.
    pub resident_max: u64,
}

/// What the admin port said.
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// Everything behind the head.
    pub body: String,
}

/// Runs `tailwater check` on a configuration and gives back everything it said.
pub fn check(folder: &Path, config: &str) -> Output {
    tailwater(folder, config).args(["check", "--config", "config.toml"]).output().expect("run tailwater check")
}

/// Runs `tailwater ARGUMENTS…` in a folder.
pub fn command(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(PathBuf::from(env!("CARGO_BIN_EXE_tailwater")));
    command.current_dir(folder).args(arguments).stdin(Stdio::null()).output().expect("run tailwater")
}

/// The binary, in a folder with this configuration, with its own words caught.
fn tailwater(folder: &Path, config: &str) -> Command {
    std::fs::write(folder.join("config.toml"), config).expect("write config.toml");
    let mut command = Command::new(PathBuf::from(env!("CARGO_BIN_EXE_tailwater")));
    command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// The value of one line of the Prometheus text format, when it is the wanted one.
fn sample(line: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let rest = line.strip_prefix(name)?;
    let (set, value) = match rest.strip_prefix('{') {
        Some(rest) => rest.split_once('}')?,
        None => ("", rest),
    };
    let has = |(label, value): &(&str, &str)| set.split(',').any(|pair| pair == format!("{label}=\"{value}\""));
    if !value.starts_with(' ') || !labels.iter().all(has) {
        return None;
    }
    value.trim().parse().ok()
}
