//! A snapshot reads every document that was there once, whatever its `_id` is and whatever happens meanwhile; taken up again in
//! the middle, it goes on behind what is settled.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use bson::raw::RawDocumentBuf;
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, Decimal128, Document, doc};
use mongodb::{Client, Collection};
use tailwater::event::EventId;
use tailwater::snapshot::metrics::SnapshotMetrics;
use tailwater::snapshot::range::between;
use tailwater::snapshot::{Progress, RangeNumber, Read, Row, SnapshotReader, plan};
use tailwater::source::config::watch::Watched;

use crate::harness::Mongod;

const DEADLINE: Duration = Duration::from_secs(120);

fn shop() -> [Watched; 1] {
    [Watched::Database("shop".to_owned())]
}

async fn everything(client: &Client) -> Progress {
    plan(client, &shop(), &[]).await.expect("a plan")
}

async fn next(reader: &mut SnapshotReader) -> Option<Read> {
    tokio::time::timeout(DEADLINE, reader.next()).await.expect("something within the deadline").expect("no error")
}

/// Reads on to the end, settling all; `each` sees every row.
async fn read(client: &Client, progress: &mut Progress, mut each: impl FnMut(&Row)) {
    let mut reader = SnapshotReader::start(client, progress, &SnapshotMetrics::default());
    while let Some(read) = next(&mut reader).await {
        match read {
            Read::Row(row) => {
                each(&row);
                progress.settled(row.range, row.id(), 1);
            }
            Read::Exhausted(range) => progress.finished(range),
        }
    }
    assert!(progress.is_done() && reader.is_done());
}

fn id(row: &Row) -> Bson {
    let key = Document::try_from(row.event.document_key().expect("a key")).expect("BSON");
    key.get("_id").expect("an id").clone()
}

/// How often each `_id` of a collection came, and in which order.
#[derive(Default)]
struct Seen {
    times: HashMap<String, u32>,
    last: BTreeMap<RangeNumber, i32>,
}

impl Seen {
    /// For collections of the test whose `_id`s are numbers: in order inside a range.
    fn row(&mut self, row: &Row) {
        let id = id(row).as_i32().expect("a number");
        assert!(self.last.insert(row.range, id).is_none_or(|last| last < id), "{id} is in order");
        self.add(row);
    }

    fn add(&mut self, row: &Row) {
        *self.times.entry(format!("{} {:?}", row.event.coll(), id(row))).or_default() += 1;
    }

    fn check_once(&self, expected: usize) {
        let twice: Vec<_> = self.times.iter().filter(|(_, times)| **times != 1).take(5).collect();
        assert!(twice.is_empty(), "not once: {twice:?}");
        assert_eq!(self.times.len(), expected);
    }
}

async fn insert(collection: &Collection<Document>, ids: impl IntoIterator<Item = i32>, padding: usize) {
    let documents: Vec<_> = ids.into_iter().map(|id| doc! { "_id": id, "padding": "x".repeat(padding) }).collect();
    for part in documents.chunks(2_000) {
        collection.insert_many(part).await.expect("insert");
    }
}

/// Every type that MongoDB takes for an `_id`.
fn mixed_ids() -> Vec<Bson> {
    let decimal = |text: &str| Bson::Decimal128(text.parse::<Decimal128>().expect("a decimal"));
    let binary = |subtype, bytes: &[u8]| Bson::Binary(Binary { subtype, bytes: bytes.to_owned() });
    vec![
        Bson::MinKey,
        Bson::MaxKey,
        Bson::Null,
        Bson::Int32(1),
        Bson::Int64(2),
        Bson::Double(3.0),
        Bson::Double(3.5),
        decimal("4"),
        decimal("4.25"),
        Bson::Int32(-5),
        Bson::Double(f64::NAN),
        Bson::Double(f64::INFINITY),
        Bson::Double(f64::NEG_INFINITY),
        Bson::Int64(i64::MAX),
        Bson::from(""),
        Bson::from("a"),
        Bson::from("B"),
        Bson::from("2"),
        Bson::from("10"),
        Bson::from("ä"),
        Bson::Symbol("symbol".to_owned()),
        doc! {}.into(),
        doc! { "a": 1, "b.c": [1, 2] }.into(),
        doc! { "b": "x" }.into(),
        binary(BinarySubtype::Generic, b""),
        binary(BinarySubtype::Generic, b"abc"),
        binary(BinarySubtype::Uuid, &[7; 16]),
        bson::oid::ObjectId::from_bytes([1; 12]).into(),
        bson::oid::ObjectId::from_bytes([2; 12]).into(),
        Bson::Boolean(false),
        Bson::Boolean(true),
        bson::DateTime::from_millis(-1).into(),
        bson::DateTime::from_millis(1).into(),
        Bson::Timestamp(bson::Timestamp { time: 5, increment: 1 }),
        Bson::JavaScriptCode("f()".to_owned()),
    ]
}

/// Interrupted behind every row, one after the other: each new reader begins with what the last one had stored.
async fn one_row_at_a_time(client: &Client, mut progress: Progress) -> Vec<String> {
    let mut found = Vec::new();
    while !progress.is_done() {
        progress = Progress::from_document(&progress.to_document()).expect("readable");
        let mut reader = SnapshotReader::start(client, &progress, &SnapshotMetrics::default());
        match next(&mut reader).await.expect("not done") {
            Read::Row(row) => {
                found.push(format!("{:?}", id(&row)));
                progress.settled(row.range, row.id(), 1);
            }
            Read::Exhausted(range) => progress.finished(range),
        }
        assert!(found.len() < 1000, "it goes on for ever: {found:?}");
    }
    found
}

async fn check_mixed(options: Document) {
    let mongod = Mongod::start().await;
    let collated = options.contains_key("collation");
    let database = mongod.client().database("shop");
    let mut create = doc! { "create": "mixed" };
    create.extend(options);
    database.run_command(create).await.expect("create");
    let mut ids = mixed_ids();
    // No index with a collation takes a symbol.
    ids.retain(|id| !collated || !matches!(id, Bson::Symbol(_)));
    let documents: Vec<Document> = ids.iter().map(|id| doc! { "_id": id }).collect();
    database.collection::<Document>("mixed").insert_many(&documents).await.expect("insert");
    let mut progress = everything(mongod.client()).await;
    let start = progress.clone();
    let (mut whole, mut cuts) = (Vec::new(), Vec::new());
    read(mongod.client(), &mut progress, |row| {
        whole.push(format!("{:?}", id(row)));
        cuts.push(row.id());
    })
    .await;
    let sorted = |ids: &[String]| {
        let mut ids = ids.to_vec();
        ids.sort();
        ids
    };
    let expected: Vec<String> = ids.iter().map(|id| format!("{id:?}")).collect();
    assert_eq!(sorted(&whole), sorted(&expected), "complete, each once");
    let place = |id: &str| whole.iter().position(|other| *other == format!("{:?}", Bson::from(id)));
    assert_eq!(place("2") < place("10"), collated, "the collation is at work");
    assert_eq!(one_row_at_a_time(mongod.client(), start.clone()).await, whole, "the same order when taken up anew");
    // Cut before every row, and once everywhere.
    let every_cut = cuts.iter().map(|cut| vec![cut.clone()]).chain([cuts.clone()]);
    let collections: Vec<_> = start.open_ranges().map(|(_, namespace, _)| namespace.clone()).collect();
    for cut in every_cut {
        let context = format!("cut at {cut:?}");
        let mut progress = Progress::new(start.time(), false, collections.clone(), between(0, cut), 0);
        let mut found = Vec::new();
        read(mongod.client(), &mut progress, |row| found.push(format!("{:?}", id(row)))).await;
        assert_eq!(sorted(&found), sorted(&expected), "{context}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_of_all_types_come_once() {
    check_mixed(doc! {}).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_of_all_types_come_once_under_a_collation() {
    check_mixed(doc! { "collation": { "locale": "de", "strength": 2, "numericOrdering": true } }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_of_all_types_come_once_out_of_a_clustered_collection() {
    check_mixed(doc! { "clusteredIndex": { "key": { "_id": 1 }, "unique": true } }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_collections_that_are_watched_are_read() {
    let mongod = Mongod::start().await;
    let (shop, client) = (mongod.client().database("shop"), mongod.client());
    for (db, coll) in [("shop", "orders"), ("shop", "carts.eu"), ("crm", "people"), ("tailwater", "checkpoints")] {
        insert(&client.database(db).collection(coll), 0..3, 0).await;
    }
    shop.create_collection("empty").await.expect("create");
    shop.run_command(doc! { "create": "open", "viewOn": "orders", "pipeline": [] }).await.expect("create a view");
    shop.run_command(doc! { "create": "ts", "timeseries": { "timeField": "t" } }).await.expect("create a time series");
    shop.run_command(doc! { "create": "capped", "capped": true, "size": 100_000 }).await.expect("create");
    let point = doc! { "t": bson::DateTime::from_millis(1), "n": 1 };
    shop.collection::<Document>("ts").insert_one(point).await.expect("insert");
    insert(&shop.collection("capped"), 0..3, 0).await;
    let check = async |watch: &[Watched], only: &[&str], expected: &[&str]| {
        let only: Vec<String> = only.iter().map(|name| (*name).to_owned()).collect();
        let mut progress = plan(client, watch, &only).await.expect("a plan");
        let chosen: Vec<String> = progress.open_ranges().map(|(_, ns, _)| ns.to_string()).collect();
        assert_eq!(chosen, expected);
        let mut rows = 0;
        read(client, &mut progress, |_| rows += 1).await;
        assert_eq!(rows, 3 * expected.iter().filter(|name| **name != "shop.empty").count());
    };
    let all = ["crm.people", "shop.capped", "shop.carts.eu", "shop.empty", "shop.orders"];
    check(&[Watched::Everything], &[], &all).await;
    check(&[Watched::Database("shop".to_owned())], &[], &all[1..]).await;
    let collection = |coll: &str| Watched::Collection { db: "shop".to_owned(), coll: coll.to_owned() };
    check(&[collection("orders"), collection("open"), collection("ts"), collection("gone")], &[], &["shop.orders"])
        .await;
    check(&[Watched::Everything], &["shop.carts.eu", "crm.people"], &["crm.people", "shop.carts.eu"]).await;
    for (only, expected) in [
        ("shop.open", "there is no collection shop.open"),
        ("shop.ts", "there is no collection shop.ts"),
        ("shop.gone", "there is no collection shop.gone"),
        ("tailwater.checkpoints", "is not watched"),
    ] {
        let error = plan(client, &[Watched::Everything], &[only.to_owned()]).await.expect_err(only).to_string();
        assert!(error.contains(expected), "{error}");
    }
}

/// The row is read as of the snapshot's time or later, and has the form of an event.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_is_an_event() {
    let mongod = Mongod::start().await;
    let orders = mongod.client().database("shop").collection::<Document>("orders");
    orders.insert_one(doc! { "status": "open", "_id": 1 }).await.expect("insert");
    let mut progress = everything(mongod.client()).await;
    let time: bson::Timestamp = progress.time().into();
    let mut rows = Vec::new();
    read(mongod.client(), &mut progress, |row| rows.push(row.clone())).await;
    let event = Document::try_from(rows[0].event.raw()).expect("BSON");
    assert_eq!(rows.len(), 1);
    assert_eq!(
        (event.get_str("operationType").ok(), event.get_timestamp("clusterTime").ok()),
        (Some("snapshot"), Some(time))
    );
    assert_eq!(event.get_document("fullDocument").ok(), Some(&doc! { "status": "open", "_id": 1 }));
    let id: EventId = rows[0].event.id().as_str().parse().expect("an id");
    assert_eq!(id.position().time, progress.time());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_goes_on_in_the_middle_of_its_ranges() {
    let mongod = Mongod::start().await;
    let orders = mongod.client().database("shop").collection::<Document>("orders");
    insert(&orders, 0..200_000, 10).await;
    let mut progress = everything(mongod.client()).await;
    assert!(progress.open_ranges().count() >= 3, "200,000 documents are read in several ranges");
    let mut seen = Seen::default();
    let (mut starts, mut before) = (0, 0);
    while !progress.is_done() {
        let mut reader = SnapshotReader::start(mongod.client(), &progress, &SnapshotMetrics::default());
        // Some of what is read is not settled: the process dies first.
        for _ in 0..30_000 {
            match next(&mut reader).await {
                Some(Read::Row(row)) => {
                    seen.row(&row);
                    progress.settled(row.range, row.id(), 1);
                }
                Some(Read::Exhausted(range)) => progress.finished(range),
                None => break,
            }
        }
        for _ in 0..100 {
            next(&mut reader).await;
        }
        assert!(progress.rows_settled() > before || progress.is_done(), "each start makes progress");
        (starts, before) = (starts + 1, progress.rows_settled());
        progress = Progress::from_document(&progress.to_document()).expect("readable");
        seen.last.clear();
    }
    seen.check_once(200_000);
    assert!(starts >= 7, "{starts} starts");
}

/// A row shows what was there at the snapshot's time, though not yet on a majority: the stream would not bring it.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_read_as_of_before_the_snapshots_time() {
    let mongod = Mongod::start().await;
    let shop = mongod.client().database("shop");
    for n in 0..50 {
        // On a majority only with the journal's next write, some 50 ms later.
        let command = doc! { "insert": "orders", "documents": [{ "_id": n }], "writeConcern": { "w": 1, "j": false } };
        shop.run_command(command).await.expect("insert");
        let mut progress = everything(mongod.client()).await;
        let mut rows = 0;
        read(mongod.client(), &mut progress, |_| rows += 1).await;
        assert_eq!(rows, n + 1);
    }
}

async fn documents_returned(client: &Client) -> i64 {
    let status = client.database("admin").run_command(doc! { "serverStatus": 1 }).await.expect("serverStatus");
    let documents = status.get_document("metrics").and_then(|metrics| metrics.get_document("document"));
    documents.and_then(|documents| documents.get_i64("returned")).expect("metrics.document.returned")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_nobody_reads_stops_and_one_that_is_dropped_leaves_nothing() {
    const DOCUMENTS: i32 = 5_000;
    let mongod = Mongod::start().await;
    let orders = mongod.client().database("shop").collection::<Document>("orders");
    insert(&orders, 0..DOCUMENTS, 20_000).await;
    let progress = everything(mongod.client()).await;
    let before = documents_returned(mongod.client()).await;
    let mut reader = SnapshotReader::start(mongod.client(), &progress, &SnapshotMetrics::default());
    next(&mut reader).await;
    // Time enough: another one reads all of it meanwhile, and it is 100 MB.
    let mut own = orders.find(doc! {}).await.expect("find");
    while own.advance().await.expect("next") {}
    let returned = documents_returned(mongod.client()).await - before - i64::from(DOCUMENTS);
    // 4 MiB of rows and one reply.
    assert!((200..500).contains(&returned), "{returned} documents were read for one that was taken");
    assert!(open_cursors(mongod.client()).await.len() == 1);
    drop(reader);
    let started = Instant::now();
    while !open_cursors(mongod.client()).await.is_empty() {
        assert!(started.elapsed() < DEADLINE, "the cursor is still open");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The reader's cursors on the server.
async fn open_cursors(client: &Client) -> Vec<i64> {
    let admin = client.database("admin");
    let open = admin.aggregate([
        doc! { "$currentOp": { "idleCursors": true, "allUsers": true } },
        doc! { "$match": { "cursor.originatingCommand.comment": "tailwater snapshot" } },
    ]);
    let mut cursors = open.await.expect("currentOp");
    let mut open = Vec::new();
    while cursors.advance().await.expect("next") {
        let found: Document = cursors.deserialize_current().expect("a document");
        let cursor = found.get_document("cursor").and_then(|cursor| cursor.get_i64("cursorId"));
        open.push(cursor.expect("a cursor id"));
    }
    open
}

async fn kill_cursors(client: &Client) -> usize {
    let command = doc! { "killCursors": "orders", "cursors": open_cursors(client).await };
    let reply = client.database("shop").run_command(command).await.expect("killCursors");
    reply.get_array("cursorsKilled").map_or(0, Vec::len)
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_cursors_and_a_restart_of_the_server_lose_and_repeat_nothing() {
    let mut mongod = Mongod::start().await;
    let orders = mongod.client().database("shop").collection::<Document>("orders");
    // More than fits into the reader's buffer and the replies under way.
    insert(&orders, 0..120_000, 300).await;
    // The reader's own client, which has to find the server again.
    let client = Client::with_uri_str(format!("mongodb://127.0.0.1:{}/?directConnection=true", mongod.port())).await;
    let client = client.expect("client");
    let mut progress = everything(&client).await;
    let metrics = SnapshotMetrics::default();
    let mut reader = SnapshotReader::start(&client, &progress, &metrics);
    let (mut seen, mut rows, mut killed) = (Seen::default(), 0u32, 0);
    while let Some(read) = next(&mut reader).await {
        match read {
            Read::Row(row) => {
                seen.row(&row);
                rows += 1;
                match rows {
                    10_000 | 30_000 | 50_000 => killed += kill_cursors(mongod.client()).await,
                    70_000 => {
                        mongod.kill9();
                        mongod.start_again().await;
                    }
                    _ => {}
                }
            }
            Read::Exhausted(range) => progress.finished(range),
        }
    }
    seen.check_once(120_000);
    assert!(progress.is_done());
    assert!(killed > 0, "there were cursors to kill");
    assert!(metrics.interruptions.get() > 0, "and it was noticed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_dropped_meanwhile_is_done_and_the_others_go_on() {
    let mongod = Mongod::start().await;
    let shop = mongod.client().database("shop");
    for coll in ["a", "b", "c", "d", "e", "f"] {
        insert(&shop.collection(coll), 0..30_000, 500).await;
    }
    let mut progress = everything(mongod.client()).await;
    let mut reader = SnapshotReader::start(mongod.client(), &progress, &SnapshotMetrics::default());
    let (mut seen, mut rows) = (Seen::default(), 0);
    while let Some(read) = next(&mut reader).await {
        match read {
            Read::Row(row) => {
                seen.row(&row);
                rows += 1;
                if rows == 1_000 {
                    // One that is being read, one that is not yet.
                    for coll in ["a", "f"] {
                        shop.collection::<Document>(coll).drop().await.expect("drop");
                    }
                }
            }
            Read::Exhausted(range) => progress.finished(range),
        }
    }
    assert!(progress.is_done());
    let of = |coll: &str| seen.times.keys().filter(|key| key.starts_with(coll)).count();
    for coll in ["b", "c", "d", "e"] {
        assert_eq!(of(coll), 30_000, "{coll}");
    }
    assert!(of("a") < 30_000 && of("f") == 0, "dropped in the middle and before");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_documents_pass_and_the_buffer_stays_small() {
    let mongod = Mongod::start().await;
    let orders = mongod.client().database("shop").collection::<Document>("orders");
    // The harness's small cache does not let a document of 16 MiB in.
    let cache = doc! { "setParameter": 1, "wiredTigerEngineRuntimeConfig": "cache_size=1G" };
    mongod.client().database("admin").run_command(cache).await.expect("setParameter");
    // The largest that there can be, then small ones, then some between.
    let head = RawDocumentBuf::try_from(&doc! { "_id": 0, "padding": "" }).expect("BSON").as_bytes().len();
    insert(&orders, [0], (16 << 20) - head).await;
    insert(&orders, 1..500, 10).await;
    for id in 500..520 {
        insert(&orders, [id], 3 << 20).await;
    }
    let mut progress = everything(mongod.client()).await;
    let mut seen = Seen::default();
    read(mongod.client(), &mut progress, |row| seen.row(row)).await;
    seen.check_once(520);
}

/// What was there before and is there after is read once. What came or went meanwhile may be read or not: the stream that
/// follows has it.
#[tokio::test(flavor = "multi_thread")]
async fn ranges_in_parallel_are_complete_under_deletes_and_inserts() {
    let mongod = Mongod::start().await;
    let orders = mongod.client().database("shop").collection::<Document>("orders");
    insert(&orders, (0..200_000).map(|n| 2 * n), 200).await;
    let mut progress = everything(mongod.client()).await;
    let ranges = progress.open_ranges().count();
    let writer = orders.clone();
    let writes = tokio::spawn(async move {
        for n in 0i32.. {
            let id = n.wrapping_mul(7919).rem_euclid(200_000);
            let gone = writer.delete_one(doc! { "_id": 2 * id + if n % 3 == 0 { 0 } else { 1 } }).await;
            let came = writer.update_one(doc! { "_id": 2 * id + 1 }, doc! { "$set": { "n": n } }).upsert(true).await;
            gone.and(came.map(|_| Default::default())).map(|_: mongodb::results::DeleteResult| ()).expect("write");
        }
    });
    let started = Instant::now();
    let mut seen = Seen::default();
    let mut together = 0;
    let mut last = None;
    read(mongod.client(), &mut progress, |row| {
        seen.row(row);
        together += u32::from(last.replace(row.range).is_some_and(|range| range != row.range));
    })
    .await;
    let elapsed = started.elapsed();
    writes.abort();
    let _ = writes.await;
    eprintln!(
        "{} rows in {elapsed:?}, {ranges} ranges: {:.0} rows/s",
        seen.times.len(),
        seen.times.len() as f64 / elapsed.as_secs_f64()
    );
    assert!(ranges >= 3 && together > 10, "{ranges} ranges, {together} changes between them");
    assert!(seen.times.values().all(|times| *times == 1), "none twice");
    let mut left = orders.find(doc! { "_id": { "$mod": [2, 0] } }).projection(doc! { "_id": 1 }).await.expect("find");
    let mut stayed = 0;
    while left.advance().await.expect("next") {
        let id = left.current().get_i32("_id").expect("a number");
        assert!(seen.times.contains_key(&format!("orders {:?}", Bson::Int32(id))), "{id} was there all the time");
        stayed += 1;
    }
    assert!(stayed < 200_000 && stayed > 100_000, "{stayed} documents were left alone");
}
