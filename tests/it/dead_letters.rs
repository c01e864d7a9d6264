//! What a receiver rejects for good becomes a dead letter of its output, with the event's id, while the others go on in order; over
//! restarts and kills each event is acknowledged or a dead letter, never neither. With both stores.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::time::Duration;

use bson::{Document, doc};
use mongodb::Collection;
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::lines::id;
use crate::harness::{Daemon, Lines, Mongod, config, eventually};
use crate::webhook_receiver::{Receiver, Record, Reply};

pub const DEADLINE: Duration = Duration::from_secs(60);
const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

/// Both places for dead letters; checkpoints are where they are.
pub const STORES: [&str; 2] = [
    "[checkpoint]\ninterval = \"100ms\"\n",
    "[checkpoint]\ninterval = \"100ms\"\nstore = \"file\"\npath = \"state\"\n[dead_letters]\nstore = \"file\"\npath = \"state\"\n",
];

/// A mongod, a receiver that the output `hooks` posts to, and the output `all`, which takes everything into a file.
pub struct Scene {
    pub mongod: Mongod,
    pub receiver: Receiver,
    pub folder: TempDir,
    pub text: String,
}

impl Scene {
    /// `tables` come first, `keys` are more of the output `hooks`.
    pub async fn new(tables: &str, keys: &str) -> Scene {
        let (mongod, receiver) = (Mongod::start().await, Receiver::start(&[SECRET]));
        let folder = tempfile::tempdir().expect("temporary folder");
        let url = receiver.url("/hook");
        let text = config(
            &mongod,
            &format!(
                "{tables}[outputs.hooks]\nplugin = \"webhook\"\nretry = {{ backoff_min = \"50ms\", backoff_max = \"200ms\" }}\n{keys}\
                 options = {{ url = \"{url}\", secrets = [\"{SECRET}\"], client_error_tries = 1 }}\n\
                 [outputs.all]\nplugin = \"stdout\"\noptions = {{ path = \"all.jsonl\" }}\n"
            ),
        );
        Scene { mongod, receiver, folder, text }
    }

    /// Starts the daemon and waits until it delivers: after a kill the lease must end first.
    pub async fn daemon(&self) -> Daemon {
        let daemon = Daemon::start(self.folder.path(), &self.text).await;
        eventually("the daemon delivers", DEADLINE, || daemon.status_of("hooks")["state"] == "live").await;
        daemon
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn orders(&self) -> Collection<Document> {
        self.mongod.client().database("shop").collection("orders")
    }

    /// Documents with these ids; each has a `kind` for the receiver to decide by.
    pub async fn insert(&self, ids: std::ops::Range<i64>, kind: impl Fn(i64) -> &'static str) {
        let documents = ids.map(|id| doc! { "_id": id, "kind": kind(id), "version": 0 });
        self.orders().insert_many(documents).await.expect("insert");
    }

    /// From now on events of these kinds are answered so, and all others taken.
    pub fn answer(&self, kinds: &'static [(&'static str, u16)]) {
        self.receiver.answer_with(move |call| {
            let event: Value = serde_json::from_slice(&call.body).expect("JSON");
            let kind = event["fullDocument"]["kind"].as_str().unwrap_or_default();
            Reply::Status(kinds.iter().find(|(name, _)| *name == kind).map_or(204, |(_, status)| *status))
        });
    }

    /// By the output `all`: the id of every event that there was, and its document.
    pub fn all(&self) -> BTreeMap<String, Value> {
        let events = Lines::new(self.path().join("all.jsonl")).first_occurrences();
        events.into_iter().map(|event| (id(&event), event["fullDocument"].clone())).collect()
    }

    /// The ids of all events whose document is of this kind.
    pub fn ids(&self, kind: &str) -> BTreeSet<String> {
        self.all().into_iter().filter(|(_, document)| document["kind"] == kind).map(|(id, _)| id).collect()
    }
}

/// What `tailwater dead-letters list` shows.
pub fn letters(daemon: &Daemon) -> Vec<Value> {
    let listed = daemon.told(&["dead-letters", "list", "--json", "--limit", "100000"]);
    listed.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// The event ids of an output's letters, in the order of the list.
pub fn letter_ids(daemon: &Daemon, output: &str) -> Vec<String> {
    letters(daemon).iter().filter(|letter| letter["output"] == output).map(id).collect()
}

pub fn metric(daemon: &Daemon, name: &str, output: &str) -> f64 {
    daemon.metric(&format!("tailwater_{name}"), &[("output", output)]).unwrap_or(0.0)
}

/// Waits until so many letters are there.
pub async fn until_letters(daemon: &Daemon, count: usize) {
    eventually(&format!("{count} dead letters"), DEADLINE, || {
        daemon.metric("tailwater_dead_letters", &[("output", "hooks")]) == Some(count as f64)
    })
    .await;
}

/// Per document the versions that the receiver took, repeats left out, in the order of their coming.
pub fn versions(record: &Record, taken: bool) -> HashMap<i64, Vec<i64>> {
    let (mut seen, mut found) = (BTreeSet::new(), HashMap::<i64, Vec<i64>>::new());
    for arrival in record.arrivals.iter().filter(|arrival| arrival.reply.takes() == taken) {
        if seen.insert(&arrival.id) {
            let document = &serde_json::from_slice::<Value>(&arrival.body).expect("JSON")["fullDocument"];
            let number = |key: &str| document[key].as_i64().expect("a number");
            found.entry(number("_id")).or_default().push(number("version"));
        }
    }
    found
}

/// Replaces documents in turn; every third version of a document is `bad`.
async fn write(orders: Collection<Document>, documents: i64, versions: i64) {
    for version in 0..versions {
        for document in 0..documents {
            let kind = if version % 3 == 1 { "bad" } else { "good" };
            let replacement = doc! { "_id": document, "kind": kind, "version": version };
            orders.replace_one(doc! { "_id": document }, replacement).upsert(true).await.expect("write");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_rejected_for_good_is_a_dead_letter_and_the_rest_goes_on() {
    const DOCUMENTS: i64 = 20;
    const VERSIONS: i64 = 12;
    for store in STORES {
        let scene = Scene::new(store, "").await;
        scene.answer(&[("bad", 422)]);
        let daemon = scene.daemon().await;
        write(scene.orders(), DOCUMENTS, VERSIONS).await;
        let total = (DOCUMENTS * VERSIONS) as usize;
        let record =
            scene.receiver.wait_until_within(DEADLINE, "every event once", |record| record.arrivals.len() >= total);
        until_letters(&daemon, total / 3).await;
        eventually("the other output has all", DEADLINE, || scene.all().len() == total).await;
        assert_eq!((record.arrivals.len(), &record.violations), (total, &vec![]), "nothing twice");
        let good: Vec<i64> = (0..VERSIONS).filter(|version| version % 3 != 1).collect();
        for (document, found) in versions(&record, true) {
            assert_eq!(found, good, "document {document}: the others, in order");
        }
        let bad = scene.ids("bad");
        assert_eq!(
            letter_ids(&daemon, "hooks"),
            bad.iter().cloned().collect::<Vec<_>>(),
            "the same ids, in stream order"
        );
        for letter in letters(&daemon) {
            let of = (letter["kind"].as_str(), letter["attempts"].as_u64(), letter["ns"].as_str());
            assert_eq!(of, (Some("rejected"), Some(1), Some("shop.orders")), "{letter}");
            assert!(letter["reason"].as_str().is_some_and(|reason| reason.contains("422")), "{letter}");
            assert_eq!(letter["output"], "hooks", "the other output has none");
        }
        let one = bad.first().expect("one");
        let shown = daemon.told(&["dead-letters", "show", &format!("hooks/{one}")]);
        assert!(shown.contains("replay        possible") && shown.contains("\"kind\": \"bad\""), "{shown}");

        // A restart delivers nothing of it again.
        assert!(daemon.terminate_and_wait(DEADLINE).await.success());
        let daemon = scene.daemon().await;
        scene.insert(1000..1001, |_| "good").await;
        let record = scene.receiver.wait_until("the new one", |record| record.arrivals.len() > total);
        assert_eq!(record.arrivals.len(), total + 1, "nothing is delivered again");
        assert_eq!(letter_ids(&daemon, "hooks").len(), total / 3, "all of them are still there");
        assert!(daemon.terminate_and_wait(DEADLINE).await.success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_killed_amid_many_rejects_loses_none() {
    const DOCUMENTS: i64 = 50;
    const VERSIONS: i64 = 60;
    const KILLS: usize = 4;
    for store in STORES {
        let scene = Scene::new(store, "").await;
        scene.answer(&[("bad", 422)]);
        let mut daemon = scene.daemon().await;
        let writer = tokio::spawn(write(scene.orders(), DOCUMENTS, VERSIONS));
        let arrivals = || scene.receiver.look(|record| record.arrivals.len());
        for kill in 0..KILLS {
            // At another place of the way from a verdict to a letter each time.
            let enough = arrivals() + 40 + 61 * kill;
            eventually("the receiver is in the middle of it", DEADLINE, || arrivals() >= enough).await;
            daemon.kill9();
            daemon = Daemon::spawn(scene.path(), &scene.text);
        }
        writer.await.expect("writer");
        daemon.wait_until_ready().await;
        let total = (DOCUMENTS * VERSIONS) as usize;
        eventually("the other output has all", DEADLINE, || scene.all().len() == total).await;
        let last = scene.orders();
        last.insert_one(doc! { "_id": 1000, "kind": "good", "version": 0 }).await.expect("insert");
        eventually("everything is settled", DEADLINE, || {
            scene.receiver.look(|record| record.taken.len() > total * 2 / 3)
                && metric(&daemon, "output_unsettled_events", "hooks") == 0.0
        })
        .await;
        let record = scene.receiver.record();
        let taken: BTreeSet<String> = record.taken.iter().cloned().collect();
        let buried: BTreeSet<String> = letter_ids(&daemon, "hooks").into_iter().collect();
        let (good, bad) = (scene.ids("good"), scene.ids("bad"));
        assert_eq!(bad.len(), total / 3);
        assert!(taken == good, "acknowledged are {} of {}", taken.len(), good.len());
        assert!(buried == bad, "dead letters are {} of {}", buried.len(), bad.len());
        let again = record.arrivals.len() - total - 1;
        eprintln!("{again} deliveries were repeated over {KILLS} kills");
        assert!(again > 0, "kills that hit nothing prove nothing");
        let expected: Vec<i64> = (0..VERSIONS).filter(|version| version % 3 != 1).collect();
        for (document, found) in versions(&record, true).into_iter().filter(|(document, _)| *document < DOCUMENTS) {
            assert_eq!(found, expected, "document {document}: in order");
        }
        assert!(record.violations.is_empty(), "{:?}", record.violations);
        assert!(daemon.terminate_and_wait(DEADLINE).await.success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_shown_and_dropped_through_the_daemon() {
    for store in STORES {
        let scene = Scene::new(store, "").await;
        scene.answer(&[("bad", 422)]);
        let daemon = scene.daemon().await;
        scene.insert(0..6, |_| "bad").await;
        until_letters(&daemon, 6).await;
        let ids = letter_ids(&daemon, "hooks");
        let none = daemon.refused(&["dead-letters", "show", &format!("all/{}", ids[0])]);
        assert!(none.contains(&format!("there is no dead letter all/{}", ids[0])), "{none}");
        for (arguments, expected) in [
            (&["dead-letters", "drop", "hooks"][..], "add --yes"),
            (&["dead-letters", "drop", "--yes"], "nothing is chosen"),
            (&["dead-letters", "replay"], "nothing is chosen"),
            (&["dead-letters", "replay", "hooks", "--all"], "all and names together"),
            (&["dead-letters", "replay", "nobody"], "no output nobody is configured and enabled; there are"),
        ] {
            let refused = daemon.refused(arguments);
            assert!(refused.contains(expected), "{arguments:?}: {refused}");
        }
        daemon.told(&["output", "pause", "hooks"]);
        for what in ["hooks".to_owned(), format!("hooks/{}", ids[0])] {
            let refused = daemon.refused(&["dead-letters", "replay", &what]);
            assert!(refused.contains("it is paused, run: tailwater output resume hooks"), "{refused}");
        }
        // Of everything, what belongs to outputs that are not at work stays; that is no success.
        let some = daemon.refused(&["dead-letters", "replay", "--all"]);
        assert!(some.contains("6 dead letters stay: their outputs are not at work"), "{some}");
        assert_eq!(daemon.told(&["dead-letters", "drop", &ids[1], "--yes"]), "dropped 1\n");
        assert_eq!(daemon.told(&["dead-letters", "drop", &format!("hooks/{}", ids[2]), "--yes"]), "dropped 1\n");
        assert_eq!(letter_ids(&daemon, "hooks"), [&ids[0], &ids[3], &ids[4], &ids[5]].map(String::clone));
        assert_eq!(daemon.told(&["dead-letters", "drop", "hooks", "--yes"]), "dropped 4\n");
        assert_eq!(daemon.told(&["dead-letters", "drop", "--all", "--yes"]), "dropped 0\n");
        daemon.told(&["output", "resume", "hooks"]);
        assert_eq!(daemon.told(&["dead-letters", "replay", "hooks"]), "nothing to replay\n");
        assert!(daemon.terminate_and_wait(DEADLINE).await.success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_that_stops_at_a_reject_goes_on_with_it_when_it_is_resumed() {
    let scene = Scene::new("", "on_reject = \"stop\"\nordering = \"strict\"\n").await;
    scene.answer(&[("bad", 422)]);
    let daemon = scene.daemon().await;
    scene.insert(0..10, |id| if id == 4 { "bad" } else { "good" }).await;
    eventually("it stops", DEADLINE, || daemon.is_in_state("hooks", "stopped")).await;
    eventually("the other has all", DEADLINE, || scene.all().len() == 10).await;
    assert!(daemon.has_logged(&["ERROR", "output=\"hooks\"", "output stopped: event", "rejected", "422"]));
    assert!(scene.receiver.look(|record| record.taken.len() == 4), "nothing goes past it");
    assert!(letters(&daemon).is_empty());
    let refused = daemon.refused(&["dead-letters", "replay", "hooks"]);
    assert!(refused.contains("it has stopped; mend the cause, then run: tailwater output resume hooks"), "{refused}");
    scene.answer(&[]);
    daemon.told(&["output", "resume", "hooks"]);
    let record = scene.receiver.wait_until("all", |record| record.taken.len() == 10);
    assert_eq!(record.taken.into_iter().collect::<BTreeSet<_>>(), scene.all().into_keys().collect());
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_that_skips_counts_what_it_skips() {
    let scene = Scene::new("", "on_reject = \"skip\"\n").await;
    scene.answer(&[("bad", 422)]);
    let daemon = scene.daemon().await;
    scene.insert(0..10, |id| if id % 3 == 0 { "bad" } else { "good" }).await;
    eventually("all is settled", DEADLINE, || {
        let skipped = [("output", "hooks"), ("reason", "rejected")];
        daemon.metric("tailwater_output_skipped_total", &skipped) == Some(4.0)
            && metric(&daemon, "output_unsettled_events", "hooks") == 0.0
            && scene.receiver.look(|record| record.taken.len() == 6)
    })
    .await;
    assert!(letters(&daemon).is_empty());
    assert!(daemon.has_logged(&["WARN", "output=\"hooks\"", "event rejected and skipped"]));
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
}
