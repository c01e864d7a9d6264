//! At any time at most one instance holds the lease, whether it is given back, runs out, cannot be renewed or its server stands
//! still; a holder that lapsed goes on in its epoch when nobody has taken the lease; a hand-over takes well under two seconds.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use bson::{Document, doc};
use futures::TryStreamExt;
use mongodb::Client;
use mongodb::options::ClientOptions;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tailwater::admin::metrics::SharedRegistry;
use tailwater::checkpoint::mongodb::MongoDbStore;
use tailwater::lease::metrics::LeaseMetrics;
use tailwater::lease::mongodb::MongoDbArbiter;
use tailwater::lease::{Arbiter, Guard, Lease, LeaseError, Standing, Times};
use tailwater::source::place::Place;
use tailwater::source::token::Timestamp64;

use crate::harness::{Mongod, Proxy, ReplicaSet, TEST_COMMANDS, eventually};

const DEADLINE: Duration = Duration::from_secs(60);

/// Short, so that leases run out while the test waits. No margin: all parts are on one machine and read one clock.
const SHORT: Times = Times {
    duration: Duration::from_millis(2000),
    margin: Duration::ZERO,
    renew_every: Duration::from_millis(200),
    ask_every: Duration::from_millis(100),
    attempt_max: Duration::from_millis(700),
};

async fn client(uri: &str) -> Client {
    let mut options = ClientOptions::parse(uri).await.expect("client options");
    options.app_name = Some("tailwater".to_owned());
    Client::with_options(options).expect("client")
}

async fn begin(client: &Client, instance: &str, times: Times, metrics: LeaseMetrics) -> Result<Lease, LeaseError> {
    Lease::begin(Arbiter::MongoDb(MongoDbArbiter::new(client, "default", instance, &times)), times, metrics).await
}

async fn contend(client: &Client, instance: &str, times: Times) -> Lease {
    contend_counted(client, instance, times, LeaseMetrics::default()).await
}

/// Asks until there is an answer: on a busy machine the first may take too long.
async fn contend_counted(client: &Client, instance: &str, times: Times, metrics: LeaseMetrics) -> Lease {
    let started = Instant::now();
    loop {
        match begin(client, instance, times, metrics.clone()).await {
            Ok(lease) => return lease,
            Err(error) => assert!(started.elapsed() < DEADLINE, "{error}"),
        }
    }
}

fn epoch(lease: &Lease) -> Option<u64> {
    match *lease.standing().borrow() {
        Standing::Holder { epoch } => Some(epoch),
        Standing::Standby { .. } => None,
    }
}

async fn wait_until_holder(lease: &Lease) -> u64 {
    eventually("it holds the lease", DEADLINE, || epoch(lease).is_some()).await;
    epoch(lease).expect("just seen")
}

/// What the server has of the leases.
fn leases(client: &Client) -> mongodb::Collection<Document> {
    client.database("tailwater").collection("leases")
}

/// Metrics that are seen as a scrape sees them.
fn scraped() -> (LeaseMetrics, impl Fn(&str) -> Option<f64>) {
    let (metrics, registry) = (LeaseMetrics::default(), SharedRegistry::default());
    registry.with(|registry| metrics.register(registry));
    let value = move |name: &str| {
        let text = registry.render().expect("metrics");
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    };
    (metrics, value)
}

/// Looks at the guards of all holdings there ever were, from several threads, all the time.
struct Watch {
    guards: Arc<RwLock<Vec<(u64, Guard)>>>,
    /// Of the newest holding that a guard was seen to hold in.
    newest: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<u64>>,
}

impl Watch {
    fn start() -> Watch {
        let (guards, newest) = (Arc::new(RwLock::new(Vec::<(u64, Guard)>::new())), Arc::new(AtomicU64::new(0)));
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..4).map(|_| {
            let (guards, newest, stop) = (Arc::clone(&guards), Arc::clone(&newest), Arc::clone(&stop));
            std::thread::spawn(move || {
                let mut held = 0;
                while !stop.load(Ordering::Relaxed) {
                    // The writers of the list would starve without a pause.
                    std::thread::sleep(Duration::from_micros(200));
                    for (epoch, guard) in guards.read().expect("guards").iter() {
                        // A newer holding was seen before this one is asked: then this one must be over.
                        let before = newest.load(Ordering::SeqCst);
                        if guard.holds() {
                            assert!(*epoch >= before, "epoch {epoch} holds after epoch {before} did");
                            newest.fetch_max(*epoch, Ordering::SeqCst);
                            held += 1;
                        }
                    }
                }
                held
            })
        });
        let threads = threads.collect();
        Watch { guards, newest, stop, threads }
    }

    /// Waits until one of these holds in an epoch after `epoch`, and says which.
    async fn next_holder(&self, contenders: &[Contender], after: u64) -> usize {
        let mut holder = None;
        eventually(&format!("an epoch after {after}"), DEADLINE, || {
            for (index, contender) in contenders.iter().enumerate() {
                let Some(lease) = &contender.lease else { continue };
                let Some(epoch) = epoch(lease) else { continue };
                let mut guards = self.guards.write().expect("guards");
                if guards.iter().all(|(known, _)| *known != epoch) {
                    guards.push((epoch, lease.guard(epoch)));
                }
                // Also one that does not know yet that it has lost is a holder in its own eyes.
                if epoch > after && lease.guard(epoch).holds() {
                    holder = Some(index);
                }
            }
            holder.is_some()
        })
        .await;
        holder.expect("just seen")
    }

    fn newest(&self) -> u64 {
        let known = self.guards.read().expect("guards").iter().map(|(epoch, _)| *epoch).max();
        known.unwrap_or(0).max(self.newest.load(Ordering::SeqCst))
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        let held: u64 = self.threads.into_iter().map(|thread| thread.join().expect("never two holders")).sum();
        assert!(held > 1000, "the guards were seen to hold only {held} times");
    }
}

struct Contender {
    proxy: Proxy,
    client: Client,
    lease: Option<Lease>,
    lives: u32,
}

impl Contender {
    async fn start(mongod: &Mongod, number: usize) -> Contender {
        let proxy = Proxy::start(mongod.port()).await;
        let client = client(&proxy.uri()).await;
        let mut contender = Contender { proxy, client, lease: None, lives: 0 };
        contender.begin(number).await;
        contender
    }

    /// As a new instance.
    async fn begin(&mut self, number: usize) {
        self.lives += 1;
        let instance = format!("instance-{number}-{}", self.lives);
        self.lease = Some(contend(&self.client, &instance, SHORT).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn at_most_one_holds_whatever_happens() {
    let seed = rand::random::<u64>();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mongod = Mongod::start().await;
    let mut contenders = Vec::new();
    for number in 0..3 {
        contenders.push(Contender::start(&mongod, number).await);
    }
    let watch = Watch::start();
    let mut holder = watch.next_holder(&contenders, 0).await;
    // Each fault at least twice, in a new order each time.
    let mut faults: Vec<u32> = (0..10).map(|fault| fault % 5).collect();
    for last in (1..faults.len()).rev() {
        faults.swap(last, random.random_range(0..=last));
    }
    for fault in faults {
        let before = watch.newest();
        match fault {
            0 => {
                contenders[holder].lease.take().expect("its lease").release().await;
                holder = watch.next_holder(&contenders, before).await;
            }
            1 => {
                // As a crash does: nothing is given back.
                drop(contenders[holder].lease.take());
                holder = watch.next_holder(&contenders, before).await;
            }
            2 | 3 => {
                // Its renewals arrive when another has the lease.
                let frozen = holder;
                contenders[frozen].proxy.freeze();
                holder = watch.next_holder(&contenders, before).await;
                assert_ne!(holder, frozen);
                contenders[frozen].proxy.thaw();
                let lost = || contenders[frozen].lease.as_ref().and_then(epoch) != Some(before);
                eventually("it knows that it has lost the lease", DEADLINE, lost).await;
            }
            _ => {
                // What was asked before the server stood still is answered afterwards, when every lease has run out.
                mongod.pause();
                let guard = contenders[holder].lease.as_ref().map(|lease| lease.guard(before)).expect("its lease");
                eventually("its lease has run out", DEADLINE, || !guard.holds()).await;
                mongod.resume();
                holder = watch.next_holder(&contenders, before - 1).await;
            }
        }
        for (number, contender) in contenders.iter_mut().enumerate() {
            if contender.lease.is_none() {
                contender.begin(number).await;
            }
        }
    }
    watch.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_lapsed_goes_on_in_its_epoch_when_nobody_has_taken_the_lease() {
    let mongod = Mongod::start().await;
    let proxy = Proxy::start(mongod.port()).await;
    let (metrics, value) = scraped();
    let lease = contend_counted(&client(&proxy.uri()).await, "first", SHORT, metrics).await;
    let (first, guard) = (wait_until_holder(&lease).await, lease.guard(1));
    assert_eq!(first, 1);
    tokio::time::timeout(DEADLINE, guard.held()).await.expect("it holds");
    assert_eq!(value("tailwater_lease_epoch"), Some(1.0));
    eventually("it is seen to hold", DEADLINE, || value("tailwater_lease_held") == Some(1.0)).await;

    let mut changes = lease.standing();
    changes.mark_unchanged();
    proxy.freeze();
    eventually("it lapses", DEADLINE, || !guard.holds()).await;
    eventually("the lapse is counted", DEADLINE, || value("tailwater_lease_lapses_total") >= Some(1.0)).await;
    assert_eq!(value("tailwater_lease_held"), Some(0.0));
    assert!(value("tailwater_lease_renewal_failures_total") >= Some(1.0));
    proxy.thaw();
    tokio::time::timeout(DEADLINE, guard.held()).await.expect("it holds again");
    eventually("it is seen to hold again", DEADLINE, || value("tailwater_lease_held") == Some(1.0)).await;
    assert!(!changes.has_changed().expect("at work"), "nothing is restarted");
    assert_eq!(epoch(&lease), Some(first));
    assert_eq!(value("tailwater_lease_losses_total"), Some(0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_whose_lease_was_taken_stands_by_and_says_for_whom() {
    let mongod = Mongod::start().await;
    let proxy = Proxy::start(mongod.port()).await;
    let (metrics, value) = scraped();
    let first = contend_counted(&client(&proxy.uri()).await, "first", SHORT, metrics).await;
    let second = contend(mongod.client(), "second", SHORT).await;
    assert_eq!(epoch(&first), Some(1));
    assert_eq!(*second.standing().borrow(), Standing::Standby { holder: Some("first".to_owned()) });
    proxy.freeze();
    assert_eq!(wait_until_holder(&second).await, 2);
    assert!(!first.guard(1).holds());
    proxy.thaw();
    let standby = Standing::Standby { holder: Some("second".to_owned()) };
    eventually("it stands by for the second", DEADLINE, || *first.standing().borrow() == standby).await;
    assert_eq!((value("tailwater_lease_losses_total"), value("tailwater_lease_held")), (Some(1.0), Some(0.0)));
    assert!(value("tailwater_lease_lapses_total") >= Some(1.0));
    let guard = second.guard(2);
    tokio::time::timeout(DEADLINE, guard.held()).await.expect("it holds");
    drop(second);
    assert!(!guard.holds(), "what was dropped holds nothing");
    assert_eq!(wait_until_holder(&first).await, 3);
    tokio::time::timeout(DEADLINE, first.guard(3).held()).await.expect("it holds");
    assert!(!first.guard(1).holds(), "what was started in the first holding is not part of the third");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_was_renewed_since_it_was_looked_at_is_not_taken() {
    let mongod = Mongod::start_with(&TEST_COMMANDS).await;
    let proxy = Proxy::start(mongod.port()).await;
    let first = contend(&client(&proxy.uri()).await, "first", SHORT).await;
    let direct = client(&format!("mongodb://127.0.0.1:{}/?directConnection=true", mongod.port())).await;
    let patient = Times { attempt_max: DEADLINE, ..SHORT };
    let second = contend(&direct, "second", patient).await;
    // The server has the second's question and waits before it looks whether the lease has ended.
    let admin = mongod.client().database("admin");
    let wait = doc! {
        "failCommands": ["findAndModify"], "appName": "tailwater", "blockConnection": true, "blockTimeMS": 8000,
    };
    let fail = doc! { "configureFailPoint": "failCommand", "mode": { "times": 1 }, "data": wait };
    admin.run_command(fail).await.expect("configureFailPoint");
    proxy.freeze();
    let waiting = doc! { "waitForFailPoint": "failCommand", "timesEntered": 1, "maxTimeMS": 60_000 };
    admin.run_command(waiting).await.expect("the second takes a lease that has run out");
    assert!(!first.guard(1).holds());
    proxy.thaw();
    tokio::time::timeout(DEADLINE, first.guard(1).held()).await.expect("it is renewed");
    let is_waiting = async || {
        let waiting = doc! { "$match": { "command.findAndModify": "leases", "appName": "tailwater" } };
        let operations = admin.aggregate([doc! { "$currentOp": {} }, waiting]).await.expect("$currentOp");
        !operations.try_collect::<Vec<_>>().await.expect("$currentOp").is_empty()
    };
    assert!(is_waiting().await, "the second has not been answered yet");
    let started = Instant::now();
    while is_waiting().await {
        assert!(started.elapsed() < DEADLINE, "the second is never answered");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let stored = leases(mongod.client()).find_one(doc! { "_id": "default" }).await.expect("find").expect("the lease");
    assert_eq!(stored.get_str("holder").ok(), Some("first"), "taken although it was renewed");
    assert_eq!((epoch(&first), epoch(&second)), (Some(1), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_election_costs_no_hand_over() {
    let mut set = ReplicaSet::start().await;
    // As long as an election may take on a busy machine.
    let times = Times { duration: 3 * DEADLINE, ..Times::STANDARD };
    let client = client(&set.uri()).await;
    let (first, standby) = (contend(&client, "first", times).await, contend(&client, "standby", times).await);
    assert_eq!((epoch(&first), epoch(&standby)), (Some(1), None));
    let renewed = async || {
        let lease = leases(&client).find_one(doc! { "_id": "default" }).await.ok().flatten();
        lease.and_then(|lease| lease.get_datetime("renewedAt").ok().copied())
    };
    let mut last = renewed().await;
    for fault in ["a stepdown", "a killed primary"] {
        let old = set.primary().await;
        match fault {
            "a stepdown" => drop(set.step_down().await),
            _ => set.kill9(old),
        }
        let started = Instant::now();
        // By the clock of a primary that may be behind: any other time will do.
        while renewed().await.is_none_or(|now| Some(now) == last) || set.primary().await == old {
            assert!(started.elapsed() < DEADLINE, "not renewed after {fault}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        last = renewed().await;
        assert!(first.guard(1).holds());
        assert_eq!((epoch(&first), epoch(&standby)), (Some(1), None), "after {fault}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hand_over_takes_well_under_two_seconds() {
    let mongod = Mongod::start().await;
    let mut holder = contend(mongod.client(), "0", Times::STANDARD).await;
    let mut took = Vec::new();
    for round in 1..=10 {
        let standby = contend(mongod.client(), &round.to_string(), Times::STANDARD).await;
        assert_eq!(epoch(&standby), None);
        let mut standing = standby.standing();
        let started = Instant::now();
        holder.release().await;
        let changed = standing.wait_for(|standing| matches!(standing, Standing::Holder { .. }));
        tokio::time::timeout(DEADLINE, changed).await.expect("a hand-over").expect("at work");
        took.push(started.elapsed());
        holder = standby;
    }
    took.sort();
    println!("hand-over: median {:?}, longest {:?}", took[took.len() / 2], took[took.len() - 1]);
    assert!(took[took.len() - 1] < Times::STANDARD.duration / 2, "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_granted_by_an_answer_that_was_lost_is_not_waited_for() {
    let mongod = Mongod::start().await;
    // The server granted it, and this instance does not know: as if it had never asked.
    drop(contend(mongod.client(), "first", Times::STANDARD).await);
    let again = contend(mongod.client(), "first", Times::STANDARD).await;
    assert_eq!(epoch(&again), Some(1));
    // But what was given back is taken anew.
    again.release().await;
    let anew = contend(mongod.client(), "first", Times::STANDARD).await;
    assert_eq!(epoch(&anew), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn epochs_go_on_when_the_lease_was_removed_by_hand() {
    let mongod = Mongod::start().await;
    let store = MongoDbStore::new(mongod.client(), "default").with_epoch(7);
    store.save("hooks", &Place::From(Timestamp64(1 << 32)), None).await.expect("saved");
    MongoDbStore::new(mongod.client(), "other").with_epoch(90).load("hooks").await.expect("claimed");
    let first = contend(mongod.client(), "first", SHORT).await;
    assert_eq!(epoch(&first), None, "not before a holder that does not know of the removal has lapsed");
    assert_eq!(wait_until_holder(&first).await, 8);
    leases(mongod.client()).drop().await.expect("drop the collection");
    let guard = first.guard(8);
    eventually("it knows", DEADLINE, || !guard.holds()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_privilege_is_said_at_the_start_and_survived_later() {
    let mongod = Mongod::start_with(&TEST_COMMANDS).await;
    let client = client(&format!("mongodb://127.0.0.1:{}/?directConnection=true", mongod.port())).await;
    mongod.fail_commands(&["aggregate"], 13, Some(1)).await;
    let refused = begin(&client, "first", SHORT, LeaseMetrics::default()).await.err().expect("refused").to_string();
    assert!(refused.starts_with("take lease of default in MongoDB: "), "{refused}");
    assert!(
        refused.ends_with("; grant the user readWrite on tailwater, or set checkpoint.store = \"file\""),
        "{refused}"
    );

    let (metrics, value) = scraped();
    let lease = contend_counted(&client, "first", SHORT, metrics).await;
    mongod.fail_commands(&["update"], 13, Some(2)).await;
    let failed = || value("tailwater_lease_renewal_failures_total") >= Some(2.0);
    eventually("two renewals have failed", DEADLINE, failed).await;
    tokio::time::timeout(DEADLINE, lease.guard(1).held()).await.expect("it holds");
    let stored = leases(mongod.client()).find_one(doc! { "_id": "default" }).await.expect("find").expect("the lease");
    assert_eq!((stored.get_str("holder").ok(), stored.get_i64("epoch").ok()), (Some("first"), Some(1)));
}
