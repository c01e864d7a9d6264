//! A page's `EventSource` gets each change as a `message`: its `lastEventId` is the event's id and its data the event's JSON,
//! whatever the documents hold and however long they are.

use std::time::Duration;

use bson::{Bson, DateTime, Document, doc};

use crate::harness::{Browser, Daemon, Lines, Mongod, config, eventually, fixed_port, lines};

const DEADLINE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_a_message_with_the_events_id_and_json() {
    let (mongod, browser) = tokio::join!(Mongod::start(), Browser::start());
    let folder = tempfile::tempdir().expect("temporary folder");
    let (port, origin) = (fixed_port(), browser.origin());
    let text = config(
        &mongod,
        &format!(
            "[outputs.page]\nplugin = \"sse\"\n[outputs.page.options]\nlisten = \"127.0.0.1:{port}\"\n\
             cors_origins = [\"{origin}\"]\n\
             [outputs.file]\nplugin = \"stdout\"\noptions = {{ path = \"all.jsonl\" }}\n"
        ),
    );
    let file = Lines::new(folder.path().join("all.jsonl"));
    let _daemon = Daemon::start(folder.path(), &text).await;
    let url = format!("http://127.0.0.1:{port}/events");
    browser.open("live", &url);
    eventually("the stream is open", DEADLINE, || browser.times_opened("live") == 1).await;

    let orders = mongod.client().database("shop").collection::<Document>("orders");
    let documents = texts().into_iter().enumerate().map(|(number, text)| doc! { "_id": number as i32, "text": text });
    orders.insert_many(documents).await.expect("insert");
    let kinds = doc! {
        "_id": "kinds", "int64": i64::MAX, "double": 0.1, "nan": f64::NAN, "none": Bson::Null, "at": DateTime::from_millis(-1),
        "decimal": Bson::Decimal128("1E+3".parse().expect("a decimal")), "deep": [[{ "a\"\n": [true] }], {}],
        "bytes": bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes: vec![0, 10, 13, 255] },
    };
    orders.insert_one(kinds).await.expect("insert");
    orders.update_one(doc! { "_id": 1 }, doc! { "$set": { "text": "new" } }).await.expect("update");
    orders.delete_one(doc! { "_id": 1 }).await.expect("delete");
    let rename = doc! { "renameCollection": "shop.orders", "to": "shop.old" };
    mongod.client().database("admin").run_command(rename).await.expect("rename");

    let count = texts().len() + 4;
    eventually("every change in the page and in the file", DEADLINE, || {
        browser.events("live").len() >= count && file.events().len() >= count
    })
    .await;
    let events = browser.events("live");
    for (event, text) in events.iter().zip(texts()) {
        assert_eq!(event["fullDocument"]["text"], *text, "{:.200}", event.to_string());
    }
    let kind: Vec<_> = events[count - 4..].iter().map(|event| event["operationType"].clone()).collect();
    assert_eq!(kind, ["insert", "update", "delete", "rename"]);
    let mut expected = file.events();
    expected.sort_by_key(lines::id);
    assert!(events == expected, "the page and the file have the same events");
    assert_eq!((browser.times_opened("live"), browser.ends("live")), (1, vec![]), "never interrupted");
}

/// What is hard to frame: line ends of all kinds, what looks like a field, what is no character of its own, and much of it.
fn texts() -> Vec<String> {
    let mut texts: Vec<String> = [
        "",
        " ",
        "a\nb\r\nc\rd",
        "\n\ndata: x\nid: 1\nevent: reset\n\n",
        ": comment",
        "\u{feff}mark",
        "\0\u{1}\u{7f}\u{85}",
        "line\u{2028}paragraph\u{2029}end",
        "Grüße, Ελλάδα, 日本語, עברית",
        "🦀👩‍👩‍👧‍👦🏳️‍🌈 e\u{301}",
        "</script><!-- \" ' \\ & %00",
    ]
    .map(str::to_owned)
    .into();
    texts.push("ü🦀\n".repeat(300_000));
    texts
}
