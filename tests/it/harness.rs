//! What every integration test stands on: a real mongod, the real daemon, and waiting for a condition.

pub mod browser;
pub mod daemon;
pub mod event_source;
pub mod lines;
pub mod mongod;
pub mod mongod_process;
pub mod page;
pub mod proxy;
pub mod replica_set;
pub mod stream;
pub mod streams;

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

pub use self::browser::Browser;
pub use self::daemon::Daemon;
pub use self::event_source::EventSource;
pub use self::lines::Lines;
pub use self::mongod::{Mongod, TEST_COMMANDS};
pub use self::page::Seen;
pub use self::proxy::Proxy;
pub use self::replica_set::ReplicaSet;

/// Waits until `condition` holds. Panics with `what` when it does not within `deadline`.
pub async fn eventually(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < deadline, "not within {deadline:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A port to listen on that stays free while nothing listens there: below those that the system gives to connections. With one
/// of those, a browser that tries again and again could meet itself.
pub fn fixed_port() -> u16 {
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let mut ports = (0..100).map(|_| rand::random_range(15_000..32_000));
    ports.find(free).expect("a free port in 100 attempts")
}

/// SIGSTOP: the process keeps its sockets and memory and does nothing. It can still be killed.
pub fn pause(process: &Child) {
    kill_process(Pid::from_child(process), Signal::STOP).expect("send SIGSTOP");
    // The signal goes to one thread, which stops the others when it gets a processor: until then they work on.
    let started = Instant::now();
    while !is_stopped(process.id()) {
        assert!(started.elapsed() < Duration::from_secs(30), "process {} does not stop", process.id());
        std::thread::yield_now();
    }
}

/// Whether every thread of the process is stopped.
fn is_stopped(id: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{id}/task")).expect("threads of the process");
    threads.flatten().all(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with(['T', 't']))
    })
}

/// SIGCONT.
pub fn resume(process: &Child) {
    kill_process(Pid::from_child(process), Signal::CONT).expect("send SIGCONT");
}

/// The folder of the test executable: cargo puts the plugins' libraries there, because the package depends on them.
pub fn plugins_dir() -> PathBuf {
    let executable = std::env::current_exe().expect("own path");
    executable.parent().expect("folder of the executable").to_owned()
}

/// A configuration with what every test needs: this server, all of database `shop`, a free admin port and the plugins of
/// this build. `tables` is appended.
pub fn config(mongod: &Mongod, tables: &str) -> String {
    config_of(&mongod.uri(), "watch = [\"shop.*\"]", tables)
}

/// The same with another address and other keys of `[source]`.
pub fn config_of(uri: &str, source: &str, tables: &str) -> String {
    let plugins = plugins_dir();
    format!(
        "[source]\nuri = \"{uri}\"\n{source}\n[admin]\nlisten = \"127.0.0.1:0\"\n[plugins]\ndir = {plugins:?}\n{tables}"
    )
}
