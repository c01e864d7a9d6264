//! A stream that ends again and again, with an error or without one, is opened at a bounded rate; when the trouble is over it goes on.

use std::time::{Duration, Instant};

use bson::{Document, doc};

use crate::harness::{Daemon, Lines, Mongod, TEST_COMMANDS, config, eventually};

const DEADLINE: Duration = Duration::from_secs(60);
/// How long the trouble lasts.
const TROUBLE: Duration = Duration::from_secs(8);
/// Waits of 100 ms at least, whose mean doubles: in [`TROUBLE`] there is room for about eight. A loop without waits opens thousands.
const OPENS_MAX: i64 = 40;
/// Drops to follow.
const DROPS: u32 = 40;
/// The shortest wait before a stream is opened again.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const OUTPUT: &str = "[checkpoint]\nstore = \"file\"\npath = \"state\"\n\
    [outputs.all]\nplugin = \"stdout\"\noptions = { path = \"all.jsonl\" }\n";

struct Scene {
    mongod: Mongod,
    daemon: Daemon,
    lines: Lines,
    folder: tempfile::TempDir,
}

impl Scene {
    async fn new() -> Scene {
        let mongod = Mongod::start_with(&TEST_COMMANDS).await;
        let folder = tempfile::tempdir().expect("temporary folder");
        let lines = Lines::new(folder.path().join("all.jsonl"));
        let daemon = Daemon::start(folder.path(), &config(&mongod, OUTPUT)).await;
        Scene { mongod, daemon, lines, folder }
    }

    async fn insert(&self, id: &str) {
        let orders = self.mongod.client().database("shop").collection::<Document>("orders");
        orders.insert_one(doc! { "_id": id }).await.expect("insert");
    }

    async fn has(&self, id: &str) {
        let has = || self.lines.events().iter().any(|event| event["documentKey"]["_id"] == id);
        eventually(&format!("the insert {id}"), DEADLINE, has).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_that_is_always_gone_at_the_first_read() {
    let scene = Scene::new().await;
    let before = scene.mongod.commands("aggregate").await;
    scene.mongod.fail_commands(&["getMore"], 43, None).await;
    let started = Instant::now();
    while started.elapsed() < TROUBLE {
        scene.insert(&format!("{:?}", started.elapsed())).await;
        assert_eq!(scene.daemon.get("/healthz").map(|answer| answer.status), Some(200));
    }
    let opened = scene.mongod.commands("aggregate").await - before;
    eprintln!("opened {opened} times in {TROUBLE:?}");
    assert!((2..=OPENS_MAX).contains(&opened), "{opened}");
    scene.mongod.heal_commands().await;
    scene.insert("last").await;
    scene.has("last").await;
}

/// Every dropDatabase ends a database stream without an error, right behind events that were good. Many that happened while the
/// daemon was away are followed at a bounded rate, and all the way.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_was_dropped_again_and_again() {
    let Scene { mongod, daemon, lines, folder } = Scene::new().await;
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
    for _ in 0..DROPS {
        let orders = mongod.client().database("shop").collection::<Document>("orders");
        orders.insert_one(doc! { "_id": "same" }).await.expect("insert");
        mongod.client().database("shop").drop().await.expect("dropDatabase");
    }
    let (started, before) = (Instant::now(), mongod.commands("aggregate").await);
    let daemon = Daemon::start(folder.path(), &config(&mongod, OUTPUT)).await;
    let scene = Scene { mongod, daemon, lines, folder };
    scene.insert("last").await;
    scene.has("last").await;
    let (took, opened) = (started.elapsed(), scene.mongod.commands("aggregate").await - before);
    eprintln!("followed {DROPS} drops in {took:?}, opened {opened} times");
    assert!(took > PAUSE_MIN * DROPS, "{took:?}: each reopening waits");
    let of = |kind: &str| scene.lines.events().iter().filter(|event| event["operationType"] == kind).count();
    assert_eq!((of("dropDatabase"), of("drop")), (DROPS as usize, DROPS as usize));
}
