//! What an output's projection withholds is nowhere in what its receivers get, in the dead letters, the log or the admin API, whichever way
//! an event came; and an output beside it, of the same plugin, has all of it. With both stores.

use std::path::Path;
use std::time::Duration;

use bson::{Document, doc};
use futures::TryStreamExt;
use rustix::process::Signal;
use serde_json::Value;

use crate::harness::lines::id;
use crate::harness::{Daemon, EventSource, Lines, Mongod, config_of, eventually, fixed_port};
use crate::webhook_receiver::{Receiver, Reply};

const DEADLINE: Duration = Duration::from_secs(60);
const SIGNATURE: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

/// In every value that must not be told, and the same as the server writes it into a resume token.
const MARK: &str = "HIDDEN";
const MARK_HEX: &str = "48494444454E";

const PROJECT: &str = r#"project = { exclude = ["fullDocument.notes", "fullDocument.address.street"], rename = { "fullDocument.userId" = "user" }, redact = { "fullDocument._id" = "hash", "fullDocument.email" = "hash", "fullDocument.items.card" = "mask" }, hash_key = "HIDDEN-0123456789" }
"#;

const STORES: [&str; 2] = ["", "[dead_letters]\nstore = \"file\"\npath = \"letters\"\n"];

fn tables(store: &str, port: u16, url: &str, open: &str) -> String {
    format!(
        "{store}[checkpoint]\ninterval = \"100ms\"\n\
         [outputs.open]\nplugin = \"stdout\"\noptions = {{ path = \"open.jsonl\" }}\n{open}\
         [outputs.closed]\nplugin = \"stdout\"\noptions = {{ path = \"closed.jsonl\" }}\n{PROJECT}\
         [outputs.cloud]\nplugin = \"stdout\"\nenvelope = \"cloudevents\"\noptions = {{ path = \"cloud.jsonl\" }}\n{PROJECT}\
         [outputs.debezium]\nplugin = \"stdout\"\nenvelope = \"debezium\"\njson = \"plain\"\noptions = {{ path = \"debezium.jsonl\" }}\n{PROJECT}\
         [outputs.some]\nplugin = \"stdout\"\noptions = {{ path = \"some.jsonl\" }}\n\
         match = {{ \"fullDocument.email\" = {{ \"$exists\" = true }} }}\n\
         project = {{ include = [\"fullDocument.status\", \"fullDocument.items.n\"] }}\n\
         [outputs.live]\nplugin = \"sse\"\nenvelope = \"cloudevents\"\noptions = {{ listen = \"127.0.0.1:{port}\", topics = [\"{{{{ documentKey._id }}}}\"] }}\n{PROJECT}\
         [outputs.hooks]\nplugin = \"webhook\"\n{PROJECT}\
         options = {{ url = \"{url}\", secrets = [\"{SIGNATURE}\"], client_error_tries = 1 }}\n"
    )
}

fn document(n: i32) -> Document {
    doc! {
        "_id": format!("HIDDEN-id-{n}"), "email": "HIDDEN-email", "notes": "HIDDEN-notes", "userId": 7, "status": "open",
        "items": [{ "card": "HIDDEN-card", "n": 1 }, { "card": { "number": "HIDDEN-number" }, "n": 2 }],
        "address": { "street": "HIDDEN-street", "city": "Bern" },
    }
}

/// A document that was there, one that comes and is changed in every way that names its fields, and one that is replaced and goes.
async fn write(mongod: &Mongod) {
    let orders = mongod.client().database("shop").collection::<Document>("orders");
    orders.insert_one(document(2)).await.expect("insert");
    for update in [
        doc! { "$set": { "email": "HIDDEN-other", "items.0.card": "HIDDEN-card-2", "address.street": "HIDDEN-way", "status": "paid" } },
        doc! { "$set": { "items.1.card.pin": "HIDDEN-pin", "notes.HIDDEN-name": 1 } },
        doc! { "$push": { "items": { "card": "HIDDEN-card-3", "n": 3 } }, "$unset": { "notes": 1, "userId": 1 } },
        doc! { "$set": { "items": [{ "card": "HIDDEN-card-4", "n": 4 }], "address": { "street": "HIDDEN-lane" } } },
    ] {
        // A path that leads through a string is an error of the server's, and no event.
        let _ = orders.update_one(doc! { "_id": "HIDDEN-id-2" }, update).await;
    }
    orders
        .replace_one(doc! { "_id": "HIDDEN-id-2" }, doc! { "email": "HIDDEN-e", "status": "done" })
        .await
        .expect("replace");
    orders.delete_one(doc! { "_id": "HIDDEN-id-2" }).await.expect("delete");
}

fn assert_clean(what: &str, text: &str) {
    for mark in [MARK, MARK_HEX, &MARK_HEX.to_lowercase()] {
        let at = text.find(mark);
        let around = at.map(|at| text[at.saturating_sub(200)..].chars().take(400).collect::<String>());
        assert!(at.is_none(), "{what} has {mark}: {around:?}");
    }
}

fn text_of(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_else(|error| panic!("read {path:?}: {error}"))).into_owned()
}

/// All that is kept of dead letters; what is kept as binary is read as text, too.
async fn kept(mongod: &Mongod, folder: &Path) -> String {
    let letters = mongod.client().database("tailwater").collection::<Document>("dead_letters");
    let mut letters: Vec<Document> = letters.find(doc! {}).await.expect("find").try_collect().await.expect("documents");
    let mut text = String::new();
    for file in std::fs::read_dir(folder.join("letters")).into_iter().flatten() {
        let lines = text_of(&file.expect("a file").path());
        text.push_str(&lines);
        let documents = lines.lines().filter_map(|line| serde_json::from_str::<serde_json::Map<_, _>>(line).ok());
        letters.extend(documents.map(|line| Document::try_from(line).expect("Extended JSON")));
    }
    for letter in letters {
        text.push_str(&letter.to_string());
        if let Ok(event) = letter.get_binary_generic("event") {
            text.push_str(&String::from_utf8_lossy(event));
        }
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_withheld_is_nowhere() {
    for store in STORES {
        let (mongod, receiver, port) = (Mongod::start().await, Receiver::start(&[SIGNATURE]), fixed_port());
        let shop = mongod.client().database("shop");
        let images = doc! { "create": "orders", "changeStreamPreAndPostImages": { "enabled": true } };
        shop.run_command(images).await.expect("create");
        shop.collection("orders").insert_one(document(1)).await.expect("insert");
        let folder = tempfile::tempdir().expect("temporary folder");
        let source = "watch = [\"shop.*\"]\nfull_document = \"when_available\"\nfull_document_before_change = \"when_available\"\n\
                      start = \"snapshot\"";
        let text = |open: &str| config_of(&mongod.uri(), source, &tables(store, port, &receiver.url("/hook"), open));
        receiver.answer_with(|_| Reply::Status(422));
        let mut daemon = Daemon::start(folder.path(), &text("")).await;
        let page = EventSource::open(port, "/events", None);
        write(&mongod).await;

        let lines = |name: &str| Lines::new(folder.path().join(format!("{name}.jsonl")));
        let ends = |name: &str| text_of(&folder.path().join(format!("{name}.jsonl"))).contains("delete");
        let debezium_ends = || text_of(&folder.path().join("debezium.jsonl")).contains("\"op\":\"d\"");
        let all = ["open", "closed", "cloud"];
        eventually("every output has the delete", DEADLINE, || {
            all.iter().all(|name| lines(name).bytes() > 0 && ends(name)) && debezium_ends()
        })
        .await;
        let events = lines("open").first_occurrences();
        assert!(events.len() >= 7, "a row, an insert, updates, a replace and a delete: {events:?}");
        let count = events.len();
        eventually("all of them are dead letters", DEADLINE, || {
            daemon.metric("tailwater_dead_letters", &[("output", "hooks")]) == Some(count as f64)
        })
        .await;
        eventually("the page has them, too", DEADLINE, || page.count() >= count - 1).await;

        // The output beside them has everything, those with a projection have the same events without it.
        assert!(text_of(&folder.path().join("open.jsonl")).matches(MARK).count() > 30);
        for name in ["closed", "cloud", "debezium", "some"] {
            assert_clean(name, &text_of(&folder.path().join(format!("{name}.jsonl"))));
        }
        // The row of each has the time of its own snapshot.
        let ids = |name: &str| lines(name).events().iter().skip(1).map(id).collect::<Vec<_>>();
        assert_eq!(ids("closed"), ids("open"));
        assert_eq!((ids("cloud"), ids("debezium")), (ids("open"), ids("open")));
        let closed = lines("closed").events();
        let insert = &closed[1];
        let (hidden_id, email) = (&insert["documentKey"]["_id"], &insert["fullDocument"]["email"]);
        assert!([hidden_id, email].iter().all(|hash| hash.as_str().is_some_and(|hash| hash.len() == 64)), "{insert}");
        assert_eq!((hidden_id, &insert["fullDocument"]["user"]), (&insert["fullDocument"]["_id"], &Value::from(7)));
        assert_eq!(closed[0]["fullDocument"]["email"], *email, "the same in the row of the snapshot");
        assert_eq!(insert["fullDocument"]["items"][1], serde_json::json!({ "card": "[redacted]", "n": 2 }));
        assert_eq!(insert["fullDocument"]["address"], serde_json::json!({ "city": "Bern" }));
        let changed = &closed[2]["updateDescription"]["updatedFields"];
        assert!(changed.get("address.street").is_none() && changed["items.0.card"] == "[redacted]", "{changed}");
        assert_eq!(closed[2]["fullDocumentBeforeChange"]["email"], *email);
        assert!(lines("some").events().iter().all(|event| event["fullDocument"].get("email").is_none()));
        assert_eq!(lines("some").events()[1]["fullDocument"]["items"][0], serde_json::json!({ "n": 1 }));

        // Receivers, dead letters, log and admin API.
        for arrival in receiver.record().arrivals {
            assert_clean("a webhook", &String::from_utf8_lossy(&arrival.body));
        }
        let messages = page.record().messages;
        messages.iter().for_each(|message| assert_clean("the page", &message.data));
        // Its topics are made of the event, its data is in the envelope.
        assert!(
            messages.iter().all(|message| message.json()["specversion"] == "1.0" && message.json()["id"] == message.id)
        );
        let stored = kept(&mongod, folder.path()).await;
        assert!(stored.matches("[redacted]").count() > 5, "{stored}");
        assert_clean("the store of dead letters", &stored);
        let listed = daemon.told(&["dead-letters", "list", "--json", "--limit", "1000"]);
        assert_clean("dead-letters list", &listed);
        for letter in listed.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")) {
            let name = format!("hooks/{}", id(&letter));
            assert_clean("dead-letters show", &daemon.told(&["dead-letters", "show", &name]));
        }
        for path in ["/metrics", "/api/status"] {
            assert_clean(path, &daemon.get(path).expect("an answer").body);
        }
        assert_clean("the log", &daemon.log().join("\n"));

        // Delivered again, a hash is not hashed once more.
        let before = receiver.record().arrivals;
        receiver.answer_with(|_| Reply::Status(204));
        let told = daemon.told(&["dead-letters", "replay", "hooks"]);
        assert_eq!(told, format!("replayed {count} of {count} (0 rejected again)\n"));
        let record = receiver.record();
        for again in &record.arrivals[before.len()..] {
            let first = before.iter().find(|arrival| arrival.id == again.id).expect("it was sent before");
            assert_eq!(String::from_utf8_lossy(&again.body), String::from_utf8_lossy(&first.body));
        }
        assert_eq!(record.arrivals.len(), before.len() + count);

        // A projection that is added while it runs holds for what comes from then on.
        std::fs::write(folder.path().join("config.toml"), text(PROJECT)).expect("write config.toml");
        daemon.signal(Signal::HUP);
        eventually("the reload is done", DEADLINE, || daemon.has_logged(&["reloaded:", "1 changed"])).await;
        let from = lines("open").bytes() as usize;
        shop.collection("orders").insert_one(document(3)).await.expect("insert");
        eventually("one event more", DEADLINE, || lines("open").events().len() > count).await;
        assert_clean("what comes after the reload", &text_of(&folder.path().join("open.jsonl"))[from..]);
        assert!(daemon.terminate_and_wait(DEADLINE).await.success());
    }
}
