//! The running daemon delivers dead letters again: with their ids, in their order, marked as redeliveries; each goes as it is
//! acknowledged, what is rejected again stays, and the live events are not held up. With both stores.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use bson::doc;
use serde_json::Value;

use crate::dead_letters::{DEADLINE, STORES, Scene, letter_ids, letters, metric, until_letters, versions};
use crate::harness::lines::id;
use crate::harness::{Daemon, Lines, config, eventually};

/// A replay that is watched by a process of its own. Ends with the test.
struct Watched(Child);

impl Watched {
    fn begin(daemon: &Daemon, which: &str) -> Watched {
        let mut command = Command::new(PathBuf::from(env!("CARGO_BIN_EXE_tailwater")));
        command.args(["dead-letters", "replay", which, "--admin", &daemon.url()]).stdin(Stdio::null());
        Watched(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("run tailwater"))
    }

    fn is_over(&mut self) -> bool {
        self.0.try_wait().expect("wait for tailwater").is_some()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn bodies(scene: &Scene, from: usize) -> Vec<Value> {
    let record = scene.receiver.record();
    record.arrivals[from..].iter().map(|arrival| serde_json::from_slice(&arrival.body).expect("JSON")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_delivered_again_and_those_rejected_again_stay() {
    const DOCUMENTS: i64 = 10;
    const VERSIONS: i64 = 6;
    for store in STORES {
        let scene = Scene::new(store, "").await;
        scene.answer(&[("bad", 422), ("worse", 422)]);
        let daemon = scene.daemon().await;
        for version in 0..VERSIONS {
            for document in 0..DOCUMENTS {
                let kind = if version == 3 { "worse" } else { "bad" };
                let replacement = doc! { "_id": document, "kind": kind, "version": version };
                scene.orders().replace_one(doc! { "_id": document }, replacement).upsert(true).await.expect("write");
            }
        }
        let total = (DOCUMENTS * VERSIONS) as usize;
        until_letters(&daemon, total).await;
        let (before, ids) = (scene.receiver.record().arrivals, letter_ids(&daemon, "hooks"));

        // Mended, but not for all; those are tried twice before they are rejected.
        scene.receiver.answer_with({
            let worse = std::sync::Mutex::new(BTreeSet::new());
            move |call| {
                let event: Value = serde_json::from_slice(&call.body).expect("JSON");
                let first = || worse.lock().expect("not poisoned").insert(id(&event));
                crate::webhook_receiver::Reply::Status(match event["fullDocument"]["kind"] == "worse" {
                    false => 204,
                    true if first() => 500,
                    true => 404,
                })
            }
        });
        assert_eq!(daemon.told(&["dead-letters", "replay", "hooks"]), "replayed 60 of 60 (10 rejected again)\n");
        let record = scene.receiver.record();
        let again: BTreeSet<_> = record.arrivals[before.len()..].iter().map(|arrival| arrival.id.clone()).collect();
        assert_eq!(again, ids.iter().cloned().collect(), "with the ids that they had");
        for (document, found) in versions(&record, true) {
            assert_eq!(found, [0, 1, 2, 4, 5], "document {document}: in their order");
        }
        let left = letters(&daemon);
        assert_eq!(left.iter().map(id).collect::<BTreeSet<_>>(), scene.ids("worse"));
        for letter in &left {
            // Once live, and twice in the replay.
            assert_eq!(letter["attempts"], 3, "{letter}");
            assert!(letter["reason"].as_str().is_some_and(|reason| reason.contains("404")), "the new reason: {letter}");
        }
        let labels = |end| [("output", "hooks"), ("end", end)];
        let replayed = |end| daemon.metric("tailwater_output_replayed_total", &labels(end)).expect("a counter");
        assert_eq!((replayed("acked"), replayed("rejected"), replayed("dropped")), (50.0, 10.0, 0.0));

        // One, one of an event in every output, and the rest.
        scene.answer(&[]);
        let [one, another] = [&left[0], &left[1]].map(id);
        let from = record.arrivals.len();
        assert_eq!(
            daemon.told(&["dead-letters", "replay", &format!("hooks/{one}")]),
            "replayed 1 of 1 (0 rejected again)\n"
        );
        assert_eq!(daemon.told(&["dead-letters", "replay", &another]), "replayed 1 of 1 (0 rejected again)\n");
        assert_eq!(bodies(&scene, from).iter().map(id).collect::<Vec<_>>(), [one, another]);
        assert_eq!(daemon.told(&["dead-letters", "replay", "--all"]), "replayed 8 of 8 (0 rejected again)\n");
        assert!(letters(&daemon).is_empty());
        assert_eq!(scene.receiver.record().arrivals.len(), from + 10, "each once");
        assert_eq!(metric(&daemon, "output_delivered_total", "hooks"), 0.0, "replays are not news");
        assert!(scene.receiver.look(|record| record.violations.is_empty()));
        assert!(daemon.terminate_and_wait(DEADLINE).await.success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_is_marked_as_a_redelivery_and_keeps_the_whole_order_of_a_strict_output() {
    let scene = Scene::new("", "").await;
    let text = |rejects: &str| {
        let options = format!("path = \"strict.jsonl\", mode = \"reject_matching\", text = \"{rejects}\"");
        config(
            &scene.mongod,
            &format!("[outputs.hooks]\nplugin = \"faulty\"\nordering = \"strict\"\noptions = {{ {options} }}\n"),
        )
    };
    let daemon = Daemon::start(scene.path(), &text("order")).await;
    scene.insert(0..300, |_| "bad").await;
    until_letters(&daemon, 300).await;
    // In a batch, what comes behind a rejected one is handed out again.
    let before: Vec<_> = letters(&daemon).iter().map(|letter| (id(letter), letter["attempts"].as_u64())).collect();
    // The mended one, started anew.
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
    let daemon = Daemon::start(scene.path(), &text("nothing of the kind")).await;
    assert_eq!(daemon.told(&["dead-letters", "replay", "hooks"]), "replayed 300 of 300 (0 rejected again)\n");
    let events = Lines::new(scene.path().join("strict.jsonl")).events();
    let attempts = |event: &Value| event["attempt"].as_u64().map(|attempt| attempt - 1);
    assert_eq!(events.iter().map(|event| (id(event), attempts(event))).collect::<Vec<_>>(), before);
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_letter_goes_as_it_is_acknowledged_and_what_a_kill_interrupts_stays() {
    const LETTERS: usize = 400;
    for store in STORES {
        let scene = Scene::new(store, "").await;
        scene.answer(&[("bad", 422), ("stuck", 422)]);
        let mut daemon = scene.daemon().await;
        scene.insert(0..LETTERS as i64, |id| if id == 7 { "stuck" } else { "bad" }).await;
        until_letters(&daemon, LETTERS).await;
        let from = scene.receiver.record().arrivals.len();
        // One of the first is asked for again and again. It holds back only itself.
        scene.answer(&[("stuck", 500)]);
        let mut replay = Watched::begin(&daemon, "hooks");
        eventually("the others are done", DEADLINE, || letter_ids(&daemon, "hooks").len() == 1).await;
        assert!(!replay.is_over(), "one is still being tried");
        // Live events go on beside it.
        scene.insert(1000..1010, |_| "good").await;
        let live = |record: &crate::webhook_receiver::Record| versions(record, true).len() >= LETTERS - 1 + 10;
        scene.receiver.wait_until("the live ones", live);
        eventually("it is live", DEADLINE, || daemon.is_in_state("hooks", "live")).await;

        // Four jobs are the most at once; those for an output that is being replayed wait for their turn.
        let more = [0; 3].map(|_| Watched::begin(&daemon, "hooks"));
        eventually("four are at work", DEADLINE, || {
            daemon.get("/api/dead-letters/replay/4").is_some_and(|answer| answer.status == 200)
        })
        .await;
        let refused = daemon.refused(&["dead-letters", "replay", "hooks"]);
        assert!(refused.contains("4 replays are at work"), "{refused}");
        drop(more);

        daemon.kill9();
        drop(replay);
        daemon = scene.daemon().await;
        assert_eq!(letter_ids(&daemon, "hooks").into_iter().collect::<BTreeSet<_>>(), scene.ids("stuck"));
        let arrivals = bodies(&scene, from);
        let bad = arrivals.iter().filter(|event| event["fullDocument"]["kind"] == "bad").count();
        assert_eq!(bad, LETTERS - 1, "none of the others was delivered twice");
        scene.answer(&[]);
        assert_eq!(daemon.told(&["dead-letters", "replay", "hooks"]), "replayed 1 of 1 (0 rejected again)\n");
        assert!(daemon.terminate_and_wait(DEADLINE).await.success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_is_killed_keeps_what_was_not_acknowledged() {
    const LETTERS: usize = 600;
    for store in STORES {
        let scene = Scene::new(store, "concurrency = 4\n").await;
        scene.answer(&[("bad", 422)]);
        let mut daemon = scene.daemon().await;
        scene.insert(0..LETTERS as i64, |_| "bad").await;
        until_letters(&daemon, LETTERS).await;
        let ids: BTreeSet<String> = letter_ids(&daemon, "hooks").into_iter().collect();
        scene.answer(&[]);
        for kill in 0..2 {
            let enough = scene.receiver.look(|record| record.taken.len()) + 50 + 17 * kill;
            let replay = Watched::begin(&daemon, "hooks");
            eventually("it is in the middle", DEADLINE, || scene.receiver.look(|record| record.taken.len() >= enough))
                .await;
            daemon.kill9();
            drop(replay);
            let taken = scene.receiver.look(|record| record.taken.iter().cloned().collect::<BTreeSet<_>>());
            daemon = scene.daemon().await;
            let left: BTreeSet<String> = letter_ids(&daemon, "hooks").into_iter().collect();
            let lost = ids.iter().filter(|id| !left.contains(*id) && !taken.contains(*id)).count();
            assert_eq!(lost, 0, "neither a dead letter nor with the receiver");
        }
        daemon.told(&["dead-letters", "replay", "--all"]);
        assert!(letters(&daemon).is_empty());
        let record = scene.receiver.record();
        assert_eq!(record.taken.iter().cloned().collect::<BTreeSet<_>>(), ids);
        let again = record.arrivals.iter().filter(|arrival| arrival.reply.takes()).count() - LETTERS;
        eprintln!("{again} of {LETTERS} were delivered twice over 2 kills");
        assert!(again < LETTERS / 4, "letters go one by one: {again}");
        assert!(daemon.terminate_and_wait(DEADLINE).await.success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn live_events_keep_their_order_beside_a_replay_and_their_letters_are_not_part_of_it() {
    const LETTERS: i64 = 300;
    const DOCUMENTS: i64 = 10;
    const VERSIONS: i64 = 60;
    for store in STORES {
        let scene = Scene::new(store, "concurrency = 4\n").await;
        scene.answer(&[("bad", 422)]);
        let daemon = scene.daemon().await;
        scene.insert(1000..1000 + LETTERS, |_| "bad").await;
        until_letters(&daemon, LETTERS as usize).await;
        let from = scene.receiver.record().arrivals.len();
        scene.answer(&[("refused", 422)]);
        let orders = scene.orders();
        let writer = tokio::spawn(async move {
            for version in 0..VERSIONS {
                for document in 0..DOCUMENTS {
                    // Rejected while the replay runs: no business of a replay that began before.
                    let kind = if version == VERSIONS / 2 { "refused" } else { "good" };
                    let replacement = doc! { "_id": document, "kind": kind, "version": version };
                    orders.replace_one(doc! { "_id": document }, replacement).upsert(true).await.expect("write");
                }
            }
        });
        scene.receiver.wait_until("live events flow", |record| record.arrivals.len() > from + 20);
        assert_eq!(daemon.told(&["dead-letters", "replay", "hooks"]), "replayed 300 of 300 (0 rejected again)\n");
        writer.await.expect("writer");
        let total = (LETTERS + DOCUMENTS * VERSIONS) as usize;
        let record = scene.receiver.wait_until("all", |record| record.arrivals.len() >= from + total);
        assert_eq!(record.arrivals.len(), from + total, "each once");
        let expected: Vec<i64> = (0..VERSIONS).filter(|version| *version != VERSIONS / 2).collect();
        for (document, found) in versions(&record, true).into_iter().filter(|(document, _)| *document < DOCUMENTS) {
            assert_eq!(found, expected, "document {document}");
        }
        assert_eq!(scene.ids("refused"), letter_ids(&daemon, "hooks").into_iter().collect());
        assert!(daemon.terminate_and_wait(DEADLINE).await.success());
    }
}
