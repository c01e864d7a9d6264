//! Where dead letters cannot be kept, nothing is lost: an output stops at a full store until there is room, and waits for one that
//! fails. An event too large to be sent is a stub among them.

use std::collections::BTreeSet;

use bson::doc;

use crate::dead_letters::{DEADLINE, STORES, Scene, letter_ids, letters, metric, until_letters};
use crate::harness::{Daemon, Lines, Mongod, TEST_COMMANDS, config_of, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn an_output_stops_at_full_dead_letters_and_goes_on_when_there_is_room() {
    const EVENTS: i64 = 20;
    for store in
        [format!("{}[dead_letters]\nbytes_max = \"1MiB\"\n", STORES[0]), format!("{}bytes_max = \"1MiB\"\n", STORES[1])]
    {
        let scene = Scene::new(&store, "ordering = \"strict\"\n").await;
        scene.answer(&[("bad", 422)]);
        let daemon = scene.daemon().await;
        let pad = "x".repeat(150_000);
        let documents = (0..EVENTS).map(|id| doc! { "_id": id, "kind": "bad", "pad": &pad });
        scene.orders().insert_many(documents).await.expect("insert");
        scene.insert(1000..1001, |_| "good").await;
        let mut seen = BTreeSet::new();
        // At most 6 of them have room at a time.
        for _ in 0..EVENTS {
            eventually("it stops, or all are kept", DEADLINE, || {
                let kept = || letter_ids(&daemon, "hooks").into_iter().filter(|id| !seen.contains(id)).count();
                daemon.is_in_state("hooks", "stopped")
                    || (seen.len() + kept() == EVENTS as usize && scene.receiver.look(|record| record.taken.len() == 1))
            })
            .await;
            let ids = letter_ids(&daemon, "hooks");
            let stopped = daemon.is_in_state("hooks", "stopped");
            assert!(ids.len() <= 6 && (!stopped || !ids.is_empty()), "as many as fit: {}", ids.len());
            seen.extend(ids);
            if !stopped {
                break;
            }
            assert!(daemon.has_logged(&["ERROR", "output stopped: dead letters are full", "dead_letters.bytes_max"]));
            assert!(daemon.has_logged(&["tailwater output resume hooks"]));
            let refused = daemon.refused(&["dead-letters", "replay", "hooks"]);
            assert!(refused.contains("it has stopped"), "{refused}");
            daemon.told(&["dead-letters", "drop", "hooks", "--yes"]);
            daemon.told(&["output", "resume", "hooks"]);
        }
        eventually("the other output has all", DEADLINE, || scene.all().len() == EVENTS as usize + 1).await;
        assert_eq!(seen, scene.ids("bad"), "each was a dead letter");
        scene.receiver.wait_until("what came behind them", |record| record.taken.len() == 1);
        assert!(daemon.terminate_and_wait(DEADLINE).await.success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_for_a_while_loses_nothing() {
    const EVENTS: usize = 40;
    /// Unauthorized: somebody took the user's right away.
    const CODE: i32 = 13;
    let mut scene = Scene::new(STORES[0], "").await;
    scene.mongod = Mongod::start_with(&TEST_COMMANDS).await;
    scene.text = scene.text.replace(scene.text.split('"').nth(1).expect("the address"), &scene.mongod.uri());
    scene.answer(&[("bad", 422)]);
    let daemon = scene.daemon().await;
    let fails = ["insert", "update", "findAndModify"];
    scene.mongod.fail_commands_on("tailwater.dead_letters", &fails, CODE).await;
    scene.insert(0..2 * EVENTS as i64, |id| if id % 2 == 0 { "bad" } else { "good" }).await;
    eventually("the good ones, and writes that fail", DEADLINE, || {
        scene.receiver.look(|record| record.taken.len() == EVENTS)
            && metric(&daemon, "dead_letter_failures_total", "hooks") >= 2.0
            && metric(&daemon, "output_unsettled_events", "hooks") == EVENTS as f64
    })
    .await;
    assert!(daemon.has_logged(&["WARN", "output=\"hooks\"", "grant the user readWrite on tailwater", "trying again"]));
    assert!(!daemon.is_in_state("hooks", "stopped"));
    assert!(letters(&daemon).is_empty());
    // Also a killed process does not lose them: they were never settled.
    daemon.kill9();
    let daemon = scene.daemon().await;
    eventually("they are met again", DEADLINE, || {
        metric(&daemon, "output_unsettled_events", "hooks") == EVENTS as f64
            && metric(&daemon, "dead_letter_failures_total", "hooks") >= 1.0
    })
    .await;
    scene.mongod.heal_commands().await;
    until_letters(&daemon, EVENTS).await;
    assert_eq!(letter_ids(&daemon, "hooks").into_iter().collect::<BTreeSet<_>>(), scene.ids("bad"));
    eventually("all is settled", DEADLINE, || metric(&daemon, "output_unsettled_events", "hooks") == 0.0).await;

    // A replay whose letters cannot be taken away for a while.
    scene.answer(&[]);
    scene.mongod.fail_commands_on("tailwater.dead_letters", &["delete"], CODE).await;
    let url = daemon.url();
    let replay = tokio::task::spawn_blocking(move || {
        let arguments = ["dead-letters", "replay", "hooks", "--admin", &url];
        crate::harness::daemon::command(std::path::Path::new("."), &arguments)
    });
    eventually("they are delivered and stay", DEADLINE, || {
        scene.receiver.look(|record| record.taken.len() == 2 * EVENTS)
            && daemon.has_logged(&["remove dead letters", "trying again"])
    })
    .await;
    assert_eq!(letters(&daemon).len(), EVENTS);
    scene.mongod.heal_commands().await;
    let replay = replay.await.expect("run tailwater");
    assert_eq!(String::from_utf8_lossy(&replay.stdout), "replayed 40 of 40 (0 rejected again)\n");
    assert!(letters(&daemon).is_empty());
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
}

/// The server here is 6.0.5, which splits nothing.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_cannot_be_sent_is_a_stub_in_the_dead_letters_of_every_output_that_wants_it() {
    for store in STORES {
        let (mongod, folder) = (Mongod::start().await, tempfile::tempdir().expect("temporary folder"));
        let create = doc! { "create": "orders", "changeStreamPreAndPostImages": { "enabled": true } };
        mongod.client().database("shop").run_command(create).await.expect("create");
        let orders = mongod.client().database("shop").collection("orders");
        let output = |name: &str, query: &str| {
            format!("[outputs.{name}]\nplugin = \"stdout\"\n{query}options = {{ path = \"{name}.jsonl\" }}\n")
        };
        let outputs = output("one", "")
            + &output("two", "match = { \"ns.coll\" = \"orders\" }\n")
            + &output("inserts", "match = { operationType = \"insert\" }\n");
        // With both images an update of a document of 9 MB makes an event of 18 MB.
        let source =
            "watch = [\"shop.*\"]\nfull_document = \"update_lookup\"\nfull_document_before_change = \"when_available\"";
        let daemon =
            Daemon::start(folder.path(), &config_of(&mongod.uri(), source, &format!("{store}{outputs}"))).await;
        orders.insert_one(doc! { "_id": 1, "v": 0, "pad": "x".repeat(9_000_000) }).await.expect("insert");
        orders.update_one(doc! { "_id": 1 }, doc! { "$set": { "v": 1 } }).await.expect("update");
        orders.insert_one(doc! { "_id": 2 }).await.expect("insert");
        let kinds = |output: &str| -> Vec<String> {
            let events = Lines::new(folder.path().join(format!("{output}.jsonl"))).events();
            events.iter().map(|event| format!("{} {}", event["operationType"], event["documentKey"]["_id"])).collect()
        };
        eventually("the stream goes on behind it", DEADLINE, || {
            ["one", "two", "inserts"].iter().all(|output| kinds(output).len() == 2)
        })
        .await;
        for output in ["one", "two", "inserts"] {
            assert_eq!(kinds(output), ["\"insert\" 1", "\"insert\" 2"]);
        }
        eventually("two letters", DEADLINE, || letters(&daemon).len() == 2).await;
        let found = letters(&daemon);
        assert_eq!([&found[0]["output"], &found[1]["output"]], ["one", "two"], "not of the one that does not want it");
        assert_eq!(found[0]["id"], found[1]["id"]);
        for letter in &found {
            assert_eq!((letter["kind"].as_str(), letter["stub"].as_bool()), (Some("poison"), Some(true)), "{letter}");
            assert_eq!((&letter["operation_type"], &letter["document_key"]["_id"]), (&"update".into(), &1.into()));
        }
        let name = found[0]["letter"].as_str().expect("a name");
        let shown = daemon.told(&["dead-letters", "show", name]);
        assert!(
            shown.contains("replay        not possible: kept only as a stub") && shown.contains("10334"),
            "{shown}"
        );
        let replay = daemon.ask(&["dead-letters", "replay", name]);
        assert!(replay.status.success());
        assert_eq!(String::from_utf8_lossy(&replay.stdout), "nothing to replay\n");
        assert!(String::from_utf8_lossy(&replay.stderr).contains("1 of 1 are kept only as stubs and stay"));
        // Not again after a restart.
        assert!(daemon.terminate_and_wait(DEADLINE).await.success());
        let daemon =
            Daemon::start(folder.path(), &std::fs::read_to_string(folder.path().join("config.toml")).expect("read"))
                .await;
        orders.insert_one(doc! { "_id": 3 }).await.expect("insert");
        eventually("the next", DEADLINE, || ["one", "two", "inserts"].iter().all(|output| kinds(output).len() == 3))
            .await;
        assert_eq!(letters(&daemon).len(), 2);
        assert!(daemon.terminate_and_wait(DEADLINE).await.success());
    }
}
