//! The mongod that is read from, and what it has spent: CPU from the operating system, bytes from its own count.

use anyhow::{Context, Result};
use bson::{Bson, Document, doc};
use mongodb::Client;

use crate::mongod::Mongod;
use crate::process::Cpu;

/// A running mongod and a connection to it.
pub struct Server {
    pub mongod: Mongod,
    pub client: Client,
}

/// What it had spent at some time, or between two.
#[derive(Clone, Copy, Debug)]
pub struct Spent {
    pub cpu_s: f64,
    /// All that it sent, to whomever: replies with their headers, without those of TCP.
    pub sent_bytes: i64,
}

impl Server {
    /// For the daemon and the loops.
    pub fn uri(&self) -> String {
        self.mongod.uri()
    }

    /// Reads its clocks. What is asked for here is about 1 KB of the difference of two looks.
    pub async fn look(&self) -> Result<Spent> {
        let mut status = doc! { "serverStatus": 1 };
        // By default they are all in the answer.
        for section in ["metrics", "wiredTiger", "locks", "opLatencies", "tcmalloc", "transactions", "repl"] {
            status.insert(section, 0);
        }
        let status = self.client.database("admin").run_command(status).await.context("ask for serverStatus")?;
        let network = status.get_document("network").context("serverStatus has no network")?;
        Ok(Spent { cpu_s: Cpu::of(self.mongod.pid())?.seconds(), sent_bytes: whole(network, "bytesOut")? })
    }
}

fn whole(document: &Document, name: &str) -> Result<i64> {
    match document.get(name) {
        Some(Bson::Int64(number)) => Ok(*number),
        Some(Bson::Int32(number)) => Ok(i64::from(*number)),
        other => anyhow::bail!("serverStatus has {other:?} as {name}"),
    }
}

impl Spent {
    /// What was spent between two looks.
    pub fn since(self, before: &Spent) -> Spent {
        Spent { cpu_s: self.cpu_s - before.cpu_s, sent_bytes: self.sent_bytes - before.sent_bytes }
    }
}
