//! A throw-away MongoDB: a replica set of one node on a free port. Change streams need a replica set; one node is enough.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bson::doc;
use mongodb::Client;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::child::Child;

/// How long it may take to become primary on a busy machine.
const START_MAX: Duration = Duration::from_secs(60);
/// How long it may take to end before it is killed: its files are thrown away.
const END_MAX: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);

/// A running replica set of one node.
pub struct Mongod {
    child: Child,
    port: u16,
    log: PathBuf,
}

impl Mongod {
    /// Starts one with its files in `folder` and waits until it is primary.
    ///
    /// # Errors
    /// When it does not start; with the end of its log.
    pub async fn start(binary: &Path, folder: &Path) -> Result<Mongod> {
        let files = folder.join("mongod");
        std::fs::create_dir(&files).with_context(|| format!("create {}", files.display()))?;
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr())?.port();
        let log = folder.join("mongod.log");
        let mut command = Command::new(binary);
        command.args(["--replSet", "rs0", "--bind_ip", "127.0.0.1", "--nounixsocket", "--port", &port.to_string()]);
        command.arg("--dbpath").arg(&files).arg("--logpath").arg(&log);
        // Small: a laptop has other things to do.
        command.args(["--oplogSize", "64", "--wiredTigerCacheSizeGB", "0.25"]);
        command.args(["--setParameter", "diagnosticDataCollectionEnabled=false"]);
        let child = Child::start("mongod", command.stdout(Stdio::null()).stderr(Stdio::null()))?;
        let mut mongod = Mongod { child, port, log };
        if let Err(error) = mongod.become_primary().await {
            bail!("{error:#}; the end of its log:\n{}", mongod.end_of_log());
        }
        Ok(mongod)
    }

    async fn become_primary(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_MAX;
        while TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            self.check()?;
            ensure!(Instant::now() < deadline, "mongod does not listen after {START_MAX:?}");
            sleep(LOOK).await;
        }
        let direct = format!("mongodb://127.0.0.1:{}/?directConnection=true", self.port);
        let admin = Client::with_uri_str(direct).await?.database("admin");
        let member = doc! { "_id": 0, "host": format!("127.0.0.1:{}", self.port) };
        let config = doc! { "_id": "rs0", "members": [member] };
        admin.run_command(doc! { "replSetInitiate": config }).await.context("initiate the replica set")?;
        while !admin.run_command(doc! { "hello": 1 }).await?.get_bool("isWritablePrimary").unwrap_or(false) {
            ensure!(Instant::now() < deadline, "mongod is not primary after {START_MAX:?}");
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// # Errors
    /// When it has ended.
    pub fn check(&mut self) -> Result<()> {
        let Some(status) = self.child.ended()? else { return Ok(()) };
        bail!("mongod ended, {status}; the end of its log:\n{}", self.end_of_log())
    }

    /// The connection string.
    pub fn uri(&self) -> String {
        format!("mongodb://127.0.0.1:{}/?replicaSet=rs0", self.port)
    }

    /// Ends it.
    pub async fn end(self) -> Result<()> {
        // Killed where it takes longer: nothing of it is kept.
        self.child.terminate(END_MAX).await.map(drop)
    }

    fn end_of_log(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }
}
