//! A mongod of the test's own: a replica set of one node on a free port, gone when the test ends, also when it fails.

use std::env;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use bson::{Bson, Document, doc};
use mongodb::Client;
use mongodb::options::ClientOptions;
use tempfile::TempDir;

pub(super) use super::mongod_process::START_MAX;
use super::mongod_process::{Started, binary, spawn, start, wait_for_socket};
use super::{pause, resume};

/// Arguments for [`Mongod::start_with`] that allow [`Mongod::fail_commands`].
pub const TEST_COMMANDS: [&str; 2] = ["--setParameter", "enableTestCommands=1"];

/// A running replica set of one node.
pub struct Mongod {
    process: Child,
    port: u16,
    client: Client,
    binary: PathBuf,
    arguments: Vec<String>,
    // Dropped after `drop` has ended the process that writes into it.
    folder: TempDir,
}

impl Mongod {
    /// Starts one and waits until it is primary.
    pub async fn start() -> Mongod {
        Mongod::start_with(&[]).await
    }

    /// The same with arguments of the test's own, such as `["--oplogSize", "990"]` or `["--setParameter", "…"]`.
    pub async fn start_with(arguments: &[&str]) -> Mongod {
        let mongod = Mongod::start_bare(&[&["--replSet", "rs0"], arguments].concat()).await;
        mongod.initiate().await;
        mongod
    }

    /// The same with a server that splits large events, for which 6.0.5 is too old.
    pub async fn start_splitting(arguments: &[&str]) -> Mongod {
        let mongod = Mongod::start_binary(splitting_binary(), &[&["--replSet", "rs0"], arguments].concat()).await;
        mongod.initiate().await;
        mongod
    }

    /// One that is in no replica set, or in one that is not initiated: only `arguments` decide.
    pub async fn start_bare(arguments: &[&str]) -> Mongod {
        Mongod::start_binary(binary(), arguments).await
    }

    async fn start_binary(binary: PathBuf, arguments: &[&str]) -> Mongod {
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let Started { process, port, folder } = start(&binary, &arguments).await;
        let client = direct_client(port).await;
        Mongod { process, port, client, binary, arguments, folder }
    }

    /// The connection string for the daemon.
    pub fn uri(&self) -> String {
        format!("mongodb://127.0.0.1:{}/?replicaSet=rs0", self.port)
    }

    /// The port it listens on, at 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `kill -9`, and waits until the process is gone. Its data stay.
    pub fn kill9(&mut self) {
        self.process.kill().expect("kill mongod");
        self.process.wait().expect("wait for mongod");
    }

    /// Stops it without ending it (SIGSTOP): connections stay, nothing is answered.
    pub fn pause(&self) {
        pause(&self.process);
    }

    /// Lets it go on after [`Mongod::pause`].
    pub fn resume(&self) {
        resume(&self.process);
    }

    /// Starts it again on the same port and data, and waits until it is primary.
    pub async fn start_again(&mut self) {
        self.start_process_again().await;
        self.wait_until_primary().await;
    }

    /// The same without waiting for more than that it listens.
    pub(super) async fn start_process_again(&mut self) {
        let started = Instant::now();
        loop {
            self.process = spawn(&self.binary, self.port, self.folder.path(), &self.arguments);
            if wait_for_socket(&mut self.process, self.port).await {
                break;
            }
            // The port may still be in the hands of the one that was killed.
            assert!(started.elapsed() < START_MAX, "mongod does not start again within {START_MAX:?}");
        }
        self.client = direct_client(self.port).await;
    }

    /// A client of the test's own.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Lets commands of these names fail with a code of the server, as its own failpoint does: the next `times` of them, or all while
    /// there is no number, until [`Mongod::heal_commands`]. Needs [`TEST_COMMANDS`] at the start. Only commands of the daemon and of
    /// the library in a test fail, the test's own do not.
    pub async fn fail_commands(&self, names: &[&str], code: i32, times: Option<i32>) {
        let _ =
            self.set_failpoint(times, doc! { "failCommands": names, "errorCode": code, "appName": "tailwater" }).await;
    }

    /// Lets commands of these names on one collection fail, all of them until [`Mongod::heal_commands`].
    pub async fn fail_commands_on(&self, namespace: &str, names: &[&str], code: i32) {
        let what = doc! { "failCommands": names, "errorCode": code, "appName": "tailwater", "namespace": namespace };
        let _ = self.set_failpoint(None, what).await;
    }

    /// As [`Mongod::fail_commands`], but the next command is only answered after `time`, as of a server that has much to do. Waits until it is held.
    pub async fn block_next_command(&self, name: &str, time: Duration) {
        let time = i32::try_from(time.as_millis()).expect("a short time");
        let what =
            doc! { "failCommands": [name], "blockConnection": true, "blockTimeMS": time, "appName": "tailwater" };
        let before = self.set_failpoint(Some(1), what).await;
        let wait = doc! { "waitForFailPoint": "failCommand", "timesEntered": before + 1, "maxTimeMS": 30_000 };
        self.client.database("admin").run_command(wait).await.expect("waitForFailPoint");
    }

    /// Ends [`Mongod::fail_commands`].
    pub async fn heal_commands(&self) {
        let command = doc! { "configureFailPoint": "failCommand", "mode": "off" };
        self.client.database("admin").run_command(command).await.expect("configureFailPoint");
    }

    /// How often it was entered before is given back.
    async fn set_failpoint(&self, times: Option<i32>, what: Document) -> i64 {
        let mode = times.map_or(Bson::from("alwaysOn"), |times| doc! { "times": times }.into());
        let command = doc! { "configureFailPoint": "failCommand", "mode": mode, "data": what };
        let reply = self.client.database("admin").run_command(command).await.expect("configureFailPoint");
        let count = reply.get("count").expect("how often");
        count.as_i64().or(count.as_i32().map(i64::from)).expect("a number")
    }

    /// How many commands of this name the server has had, by its own count.
    pub async fn commands(&self, name: &str) -> i64 {
        let status = self.client.database("admin").run_command(doc! { "serverStatus": 1 }).await.expect("serverStatus");
        let commands = status.get_document("metrics").and_then(|metrics| metrics.get_document("commands"));
        let command = commands.and_then(|commands| commands.get_document(name)).expect("a command's count");
        command.get_i64("total").expect("a number")
    }

    async fn initiate(&self) {
        let member = doc! { "_id": 0, "host": format!("127.0.0.1:{}", self.port) };
        let admin = self.client.database("admin");
        let config = doc! { "_id": "rs0", "members": [member] };
        admin.run_command(doc! { "replSetInitiate": config }).await.expect("replSetInitiate");
        self.wait_until_primary().await;
    }

    async fn wait_until_primary(&self) {
        let (started, admin) = (Instant::now(), self.client.database("admin"));
        loop {
            let hello = admin.run_command(doc! { "hello": 1 }).await.expect("hello");
            if hello.get_bool("isWritablePrimary").unwrap_or(false) {
                return;
            }
            assert!(started.elapsed() < START_MAX, "mongod is not primary after {START_MAX:?}: {hello}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Mongod {
    fn drop(&mut self) {
        // Also while a test panics; its data is thrown away, so a clean shutdown would only take time.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The mongod from 6.0.9 on that `cargo xtask test` has found.
fn splitting_binary() -> PathBuf {
    let given = env::var_os("TAILWATER_MONGOD_SPLIT").map(PathBuf::from);
    given.expect(
        "this test needs a mongod with $changeStreamSplitLargeEvent (6.0.9 or later): run `cargo xtask test`, which fetches one, \
         or set TAILWATER_MONGOD_SPLIT to its path",
    )
}

async fn direct_client(port: u16) -> Client {
    let uri = format!("mongodb://127.0.0.1:{port}/?directConnection=true");
    let options = ClientOptions::parse(uri).await.expect("client options");
    Client::with_options(options).expect("client")
}
