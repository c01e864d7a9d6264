//! A replica set of three real mongods that elects a new primary within seconds; gone when the test ends, also when it fails.

use std::time::{Duration, Instant};

use bson::{Document, doc};
use mongodb::Client;
use mongodb::options::ClientOptions;

use super::mongod::START_MAX;
use super::{Mongod, Proxy};

/// A member that hears of no primary for so long calls an election (MongoDB's own default is ten seconds).
const ELECTION_TIMEOUT: Duration = Duration::from_secs(2);

/// How long an election may take on a busy machine.
const ELECTION_MAX: Duration = Duration::from_secs(60);

/// Three running members of one set.
pub struct ReplicaSet {
    members: Vec<Mongod>,
    /// In front of the members, in their order; empty when the members talk directly.
    proxies: Vec<Proxy>,
    client: Client,
}

impl ReplicaSet {
    /// Starts three members and waits until one is primary and the others are secondaries.
    pub async fn start() -> ReplicaSet {
        ReplicaSet::start_with(&[]).await
    }

    /// The same with further arguments for each mongod.
    pub async fn start_with(arguments: &[&str]) -> ReplicaSet {
        ReplicaSet::start_set(arguments, false).await
    }

    /// The same with a proxy in front of each member, by whose address clients and the other members know it.
    pub async fn start_behind_proxies() -> ReplicaSet {
        ReplicaSet::start_behind_proxies_with(&[]).await
    }

    /// The same with further arguments for each mongod.
    pub async fn start_behind_proxies_with(arguments: &[&str]) -> ReplicaSet {
        ReplicaSet::start_set(arguments, true).await
    }

    async fn start_set(arguments: &[&str], with_proxies: bool) -> ReplicaSet {
        let arguments = [&["--replSet", "rs0"], arguments].concat();
        let (mut members, mut proxies) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let member = Mongod::start_bare(&arguments).await;
            if with_proxies {
                proxies.push(Proxy::start(member.port()).await);
            }
            members.push(member);
        }
        let hosts = hosts(&members, &proxies);
        let config = doc! {
            "_id": "rs0",
            "members": hosts.iter().zip(0..).map(|(host, id)| doc! { "_id": id, "host": host }).collect::<Vec<_>>(),
            "settings": {
                "electionTimeoutMillis": ELECTION_TIMEOUT.as_millis() as i32,
                "heartbeatIntervalMillis": 500,
                "heartbeatTimeoutSecs": 2,
                // A primary that has just been elected does not wait for writes that only it lacks.
                "catchUpTimeoutMillis": 2000,
            },
        };
        let admin = members[0].client().database("admin");
        admin.run_command(doc! { "replSetInitiate": config }).await.expect("replSetInitiate");
        let client = client_of(&hosts).await;
        let set = ReplicaSet { members, proxies, client };
        set.wait_until_ready().await;
        set
    }

    /// The connection string with all members.
    pub fn uri(&self) -> String {
        uri_of(&hosts(&self.members, &self.proxies))
    }

    /// A client of the test's own that finds the primary; its writes wait for the majority.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// One member.
    pub fn member(&self, index: usize) -> &Mongod {
        &self.members[index]
    }

    /// The proxy in front of one member of a set [behind proxies](ReplicaSet::start_behind_proxies).
    pub fn proxy(&self, index: usize) -> &Proxy {
        &self.proxies[index]
    }

    /// The member that is primary; waits while there is none. Do not call it while a member is paused.
    pub async fn primary(&self) -> usize {
        let started = Instant::now();
        loop {
            for index in 0..self.members.len() {
                if self.hello(index).await.is_some_and(|hello| hello.get_bool("isWritablePrimary").unwrap_or(false)) {
                    return index;
                }
            }
            assert!(started.elapsed() < ELECTION_MAX, "no primary after {ELECTION_MAX:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Lets the primary step down; gives back the new one, which is another member.
    pub async fn step_down(&self) -> usize {
        let (started, old) = (Instant::now(), self.primary().await);
        // As long as the old one may not be elected again.
        let command = doc! { "replSetStepDown": 20, "secondaryCatchUpPeriodSecs": 10 };
        loop {
            match self.members[old].client().database("admin").run_command(command.clone()).await {
                Ok(_) => break,
                // While no secondary has caught up with it.
                Err(error) => assert!(started.elapsed() < ELECTION_MAX, "replSetStepDown: {error}"),
            }
        }
        loop {
            let primary = self.primary().await;
            if primary != old {
                return primary;
            }
            assert!(started.elapsed() < ELECTION_MAX, "no other primary after {ELECTION_MAX:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// `kill -9`, and waits until the process is gone. Its data stay.
    pub fn kill9(&mut self, index: usize) {
        self.members[index].kill9();
    }

    /// Starts a killed member again and waits until it is primary or secondary.
    pub async fn start_again(&mut self, index: usize) {
        self.members[index].start_process_again().await;
        self.wait_until_member_is_ready(index).await;
    }

    /// SIGSTOP: the member keeps its connections and answers nothing.
    pub fn pause(&self, index: usize) {
        self.members[index].pause();
    }

    /// SIGCONT.
    pub fn resume(&self, index: usize) {
        self.members[index].resume();
    }

    /// Waits until there is a primary and every member is primary or secondary.
    pub async fn wait_until_ready(&self) {
        self.primary().await;
        for index in 0..self.members.len() {
            self.wait_until_member_is_ready(index).await;
        }
    }

    async fn wait_until_member_is_ready(&self, index: usize) {
        let started = Instant::now();
        let is = |hello: &Document, what| hello.get_bool(what).unwrap_or(false);
        while !self.hello(index).await.is_some_and(|hello| is(&hello, "isWritablePrimary") || is(&hello, "secondary")) {
            assert!(
                started.elapsed() < START_MAX,
                "member {index} is neither primary nor secondary after {START_MAX:?}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What the member says of itself; nothing while it is down. The driver asks again by itself after a lost connection.
    async fn hello(&self, index: usize) -> Option<Document> {
        self.members[index].client().database("admin").run_command(doc! { "hello": 1 }).await.ok()
    }
}

fn hosts(members: &[Mongod], proxies: &[Proxy]) -> Vec<String> {
    let ports: Vec<u16> = match proxies {
        [] => members.iter().map(Mongod::port).collect(),
        proxies => proxies.iter().map(Proxy::port).collect(),
    };
    ports.into_iter().map(|port| format!("127.0.0.1:{port}")).collect()
}

fn uri_of(hosts: &[String]) -> String {
    format!("mongodb://{}/?replicaSet=rs0", hosts.join(","))
}

async fn client_of(hosts: &[String]) -> Client {
    let options = ClientOptions::parse(uri_of(hosts)).await.expect("client options");
    Client::with_options(options).expect("client")
}
