//! The mongod that is measured: a replica set of one node on a free port, gone when the benchmark ends, however it ends.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bson::doc;
use mongodb::Client;
use tempfile::TempDir;

/// How long it may take to become primary on a busy machine.
const START_MAX: Duration = Duration::from_secs(60);

/// When a write is one of the majority's, which is when change streams show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Majority {
    /// On the disk: MongoDB's default.
    Journaled,
    /// In memory: the disk's time is in no latency.
    Applied,
}

/// A running replica set of one node.
pub struct Mongod {
    process: Child,
    port: u16,
    // Dropped after `drop` has ended the process that writes into it.
    _folder: TempDir,
}

impl Mongod {
    /// Starts one and waits until it is primary.
    ///
    /// # Errors
    /// When it does not start; with the end of its log.
    pub async fn start(binary: &Path, oplog_mb: u64, majority: Majority) -> Result<Mongod> {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr())?.port();
        let folder = tempfile::tempdir().context("make a folder for mongod")?;
        let log = folder.path().join("mongod.log");
        let mut command = Command::new(binary);
        command.args(["--replSet", "rs0", "--bind_ip", "127.0.0.1", "--nounixsocket", "--port", &port.to_string()]);
        command.arg("--dbpath").arg(folder.path()).arg("--logpath").arg(&log);
        // Everything stays in its cache: what is measured is the stream, not the disk.
        command.args(["--oplogSize", &oplog_mb.to_string(), "--wiredTigerCacheSizeGB", "1"]);
        command.args(["--setParameter", "diagnosticDataCollectionEnabled=false"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().with_context(|| format!("start {}", binary.display()))?;
        let mut mongod = Mongod { process, port, _folder: folder };
        if let Err(error) = mongod.become_primary(majority).await {
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            bail!("{error:#}; the end of its log:\n{}", lines[lines.len().saturating_sub(5)..].join("\n"));
        }
        Ok(mongod)
    }

    async fn become_primary(&mut self, majority: Majority) -> Result<()> {
        let started = Instant::now();
        while tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            if let Some(status) = self.process.try_wait()? {
                bail!("mongod ended at once, {status}");
            }
            ensure!(started.elapsed() < START_MAX, "mongod does not listen after {START_MAX:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let direct = Client::with_uri_str(format!("mongodb://127.0.0.1:{}/?directConnection=true", self.port)).await?;
        let admin = direct.database("admin");
        let member = doc! { "_id": 0, "host": format!("127.0.0.1:{}", self.port) };
        let config = doc! {
            "_id": "rs0",
            "members": [member],
            "writeConcernMajorityJournalDefault": majority == Majority::Journaled,
        };
        admin.run_command(doc! { "replSetInitiate": config }).await.context("replSetInitiate")?;
        while !admin.run_command(doc! { "hello": 1 }).await?.get_bool("isWritablePrimary").unwrap_or(false) {
            ensure!(started.elapsed() < START_MAX, "mongod is not primary after {START_MAX:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// The connection string.
    pub fn uri(&self) -> String {
        format!("mongodb://127.0.0.1:{}/?replicaSet=rs0", self.port)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Mongod {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
