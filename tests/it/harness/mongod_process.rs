//! The process of a mongod on a free port. Also of the matcher's tests, which ask one for its answers.

use std::env;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a mongod may take to become primary on a busy machine.
pub const START_MAX: Duration = Duration::from_secs(60);

/// One that listens. Whoever has it ends it.
pub struct Started {
    pub process: Child,
    pub port: u16,
    pub folder: TempDir,
}

/// Starts one in a folder of its own.
pub async fn start(binary: &Path, arguments: &[String]) -> Started {
    // Between finding a free port and mongod binding it, another process may take it.
    for _ in 0..5 {
        let port = free_port();
        let folder = tempfile::tempdir().expect("temporary folder");
        let mut process = spawn(binary, port, folder.path(), arguments);
        if wait_for_socket(&mut process, port).await {
            return Started { process, port, folder };
        }
        let log = std::fs::read_to_string(folder.path().join("mongod.log")).unwrap_or_default();
        assert!(log.contains("Address already in use"), "mongod did not start: {}", tail(&log));
    }
    panic!("no free port for mongod in 5 attempts");
}

/// A port of 127.0.0.1 that nobody listens on now.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind a free port");
    listener.local_addr().expect("bound address").port()
}

/// The mongod that `cargo xtask test` has found, or one on PATH.
pub fn binary() -> PathBuf {
    if let Some(given) = env::var_os("TAILWATER_MONGOD") {
        return given.into();
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).map(|folder| folder.join("mongod")).find(|file| file.is_file());
    found.expect(
        "this test needs a mongod: run `cargo xtask test`, which fetches one, or put mongod on PATH or set TAILWATER_MONGOD",
    )
}

/// The process, of which nobody knows yet whether it will listen.
pub fn spawn(binary: &Path, port: u16, folder: &Path, arguments: &[String]) -> Child {
    let mut command = Command::new(binary);
    command.args(["--bind_ip", "127.0.0.1", "--nounixsocket", "--port", &port.to_string()]);
    command.arg("--dbpath").arg(folder).arg("--logpath").arg(folder.join("mongod.log"));
    command.args(["--wiredTigerCacheSizeGB", "0.25", "--setParameter", "diagnosticDataCollectionEnabled=false"]);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap_or_else(|error| panic!("start {}: {error}", binary.display()))
}

/// Whether it listens; `false` when the process has ended before.
pub async fn wait_for_socket(process: &mut Child, port: u16) -> bool {
    let started = Instant::now();
    while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        if process.try_wait().expect("wait for mongod").is_some() {
            return false;
        }
        if started.elapsed() > START_MAX {
            let _ = process.kill();
            panic!("mongod does not listen after {START_MAX:?}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    true
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}
