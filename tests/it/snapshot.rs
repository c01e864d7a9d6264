//! Kill the daemon again and again in the middle of a snapshot, while documents are changed, replaced, deleted and inserted: it
//! goes on in the range where it was, every document that was there comes at least once, every change too, and later changes win.
//! 100,000 documents; 1,000,000 with `TAILWATER_LONG=1`.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bson::oid::ObjectId;
use bson::{Bson, DateTime, Document, doc};
use futures::TryStreamExt;
use mongodb::{Client, Collection};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::Deserialize;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::harness::{Daemon, Mongod, config, eventually};

const COLLECTIONS: [&str; 2] = ["carts", "orders"];
/// Small beside the distance between two kills.
const AHEAD_MAX: usize = 2_000;
const WRITERS: i64 = 4;
/// Between two writes of one writer: enough of them, and the server has time for the snapshot.
const WRITE_EVERY: Duration = Duration::from_millis(4);
/// Documents that are changed often.
const HOT: i64 = 40;

fn documents() -> i64 {
    if std::env::var("TAILWATER_LONG").is_ok_and(|long| long == "1") { 1_000_000 } else { 100_000 }
}

fn deadline() -> Duration {
    Duration::from_secs(120 + documents() as u64 / 1_000)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_snapshot_goes_on_in_its_range_with_checkpoints_in_files() {
    run("[checkpoint]\nstore = \"file\"\npath = \"state\"\ninterval = \"100ms\"\n", documents(), 6).await;
}

/// Each start waits for the lease of the killed one, so there are fewer kills.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_snapshot_goes_on_in_its_range_with_checkpoints_in_mongodb() {
    run("[checkpoint]\nstore = \"mongodb\"\ninterval = \"100ms\"\n", documents() / 4, 2).await;
}

async fn run(checkpoint: &str, documents: i64, kill_count: usize) {
    let mongod = Mongod::start().await;
    let started = Instant::now();
    fill(mongod.client(), documents).await;
    eprintln!("{documents} documents written in {:?}", started.elapsed());
    let folder = tempfile::tempdir().expect("temporary folder");
    let output =
        format!("[outputs.all]\nplugin = \"stdout\"\nahead_max = {AHEAD_MAX}\noptions = {{ path = \"all.jsonl\" }}\n");
    // `start` belongs to the table that `config` writes first.
    let text = config(&mongod, &format!("{checkpoint}{output}")).replacen("watch", "start = \"snapshot\"\nwatch", 1);
    let mut written = Written::new(&folder.path().join("all.jsonl"));

    let started = Instant::now();
    let mut daemon = Daemon::start(folder.path(), &text).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        writers.spawn(Writer::new(mongod.client().clone(), writer, documents).run(Arc::clone(&stop)));
    }
    let mut kills = Vec::new();
    let mut random = StdRng::seed_from_u64(7);
    for kill in 0..kill_count {
        // The first one hits the very beginning.
        let part = documents / (kill_count as i64 + 2);
        let until = written.lines() + if kill == 0 { 300usize } else { part as usize - random.random_range(0..1_000) };
        eventually("rows are delivered", deadline(), || written.lines() >= until).await;
        daemon.kill9();
        kills.push(written.bytes());
        daemon = Daemon::spawn(folder.path(), &text);
    }
    daemon.wait_until_ready().await;
    eventually("the snapshot is over", deadline(), || daemon.has_logged(&["snapshot done: every row is settled"]))
        .await;
    let took = started.elapsed();
    let rows = written.lines();
    eprintln!(
        "about {rows} lines in {took:?} with {kill_count} kills: {:.0} lines/s",
        rows as f64 / took.as_secs_f64()
    );

    stop.store(true, Ordering::Relaxed);
    let mut wanted = HashMap::new();
    for history in writers.join_all().await {
        wanted.extend(history);
    }
    // Behind this one there is nothing.
    mongod
        .client()
        .database("shop")
        .collection("orders")
        .insert_one(doc! { "_id": -1, "version": 1 })
        .await
        .expect("insert");
    wanted.insert(key("orders", &Bson::Int32(-1)), vec![Change::Insert(1)]);
    eventually("the last change is delivered", deadline(), || written.has("{\"_id\":-1}")).await;
    // Others may still be in flight, and what is not would not leave any more.
    eventually("all is settled", deadline(), || daemon.status_of("all")["unsettled"] == 0).await;
    let status = daemon.terminate_and_wait(Duration::from_secs(30)).await;
    assert!(status.success(), "after SIGTERM: {status}");

    let seen = Seen::read(&folder.path().join("all.jsonl"), &kills);
    seen.check_rows(documents, &wanted);
    seen.check_changes(&wanted);
    seen.check_states(&states(mongod.client()).await);
}

fn collection(n: i64) -> &'static str {
    COLLECTIONS[n.rem_euclid(2) as usize]
}

/// Half of them of many types.
fn id(n: i64) -> Bson {
    match n % 8 {
        0 => Bson::String(format!("cart {n}")),
        2 => Bson::ObjectId(ObjectId::parse_str(format!("{n:024x}")).expect("24 digits")),
        4 => Bson::DateTime(DateTime::from_millis(n * 1_000)),
        6 => Bson::Document(doc! { "n": n as i32 }),
        _ => Bson::Int32(n as i32),
    }
}

/// What is in the JSON of an event of this document, as one text.
fn key(coll: &str, id: &Bson) -> String {
    format!("{coll} {}", id.clone().into_relaxed_extjson())
}

fn document(n: i64, version: i64) -> Document {
    let size = match n {
        n if n % 20_000 == 7 => 300_000,
        n if n % 500 == 3 => 8_000,
        n => n % 200,
    };
    doc! { "_id": id(n), "version": version, "text": "x".repeat(size as usize) }
}

async fn fill(client: &Client, documents: i64) {
    for coll in COLLECTIONS {
        let target = client.database("shop").collection::<Document>(coll);
        let own: Vec<i64> = (0..documents).filter(|n| collection(*n) == coll).collect();
        for part in own.chunks(5_000) {
            target.insert_many(part.iter().map(|n| document(*n, 0))).await.expect("insert");
        }
    }
    // The stream begins at the time of the last write, inclusive: that is to be none of these.
    client.database("elsewhere").collection("any").insert_one(doc! {}).await.expect("insert");
}

/// What was done to a document, and the version that it has since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Insert(i64),
    Update(i64),
    Replace(i64),
    Delete,
}

/// Changes documents of its own, one after the other, so that the order of their versions is known.
struct Writer {
    client: Client,
    random: StdRng,
    number: i64,
    documents: i64,
    /// Of the documents that were changed: the version, and whether it is there.
    now: HashMap<i64, (i64, bool)>,
    history: HashMap<String, Vec<Change>>,
}

impl Writer {
    fn new(client: Client, number: i64, documents: i64) -> Writer {
        let (now, history) = (HashMap::new(), HashMap::new());
        Writer { client, random: StdRng::seed_from_u64(number as u64), number, documents, now, history }
    }

    async fn run(mut self, stop: Arc<AtomicBool>) -> HashMap<String, Vec<Change>> {
        let mut tick = tokio::time::interval(WRITE_EVERY);
        let mut fresh = self.documents;
        while !stop.load(Ordering::Relaxed) {
            tick.tick().await;
            let within = match self.random.random_range(0..10) {
                0..3 => HOT,
                _ => self.documents,
            };
            let mut n = self.random.random_range(0..within / WRITERS) * WRITERS + self.number;
            if self.random.random_bool(0.1) {
                n = fresh + self.number;
                fresh += WRITERS;
            }
            self.change(n).await;
        }
        self.history
    }

    async fn change(&mut self, n: i64) {
        let target: Collection<Document> = self.client.database("shop").collection(collection(n));
        let (version, exists) = self.now.get(&n).copied().unwrap_or((0, n < self.documents));
        let (version, by_id) = (version + 1, doc! { "_id": id(n) });
        let change = match self.random.random_range(0..10) {
            _ if !exists => {
                target.insert_one(document(n, version)).await.expect("insert");
                Change::Insert(version)
            }
            0..2 => {
                target.delete_one(by_id).await.expect("delete");
                Change::Delete
            }
            2..5 => {
                target.replace_one(by_id, document(n, version)).await.expect("replace");
                Change::Replace(version)
            }
            _ => {
                target.update_one(by_id, doc! { "$set": { "version": version } }).await.expect("update");
                Change::Update(version)
            }
        };
        self.now.insert(n, (version, change != Change::Delete));
        self.history.entry(key(collection(n), &id(n))).or_default().push(change);
    }
}

/// The version of every document that is in the database.
async fn states(client: &Client) -> HashMap<String, i64> {
    let mut states = HashMap::new();
    for coll in COLLECTIONS {
        let target = client.database("shop").collection::<Document>(coll);
        let mut found = target.find(doc! {}).projection(doc! { "version": 1 }).await.expect("find");
        while let Some(document) = found.try_next().await.expect("a document") {
            let id = document.get("_id").expect("an id");
            states.insert(
                key(coll, id),
                document.get_i64("version").or_else(|_| document.get_i32("version").map(i64::from)).expect("a version"),
            );
        }
    }
    states
}

/// The file of the output while it grows.
struct Written {
    path: PathBuf,
    read: u64,
    lines: usize,
}

impl Written {
    fn new(path: &Path) -> Written {
        Written { path: path.to_owned(), read: 0, lines: 0 }
    }

    fn lines(&mut self) -> usize {
        self.more();
        self.lines
    }

    /// True when a line that was not counted yet contains this.
    fn has(&mut self, text: &str) -> bool {
        String::from_utf8_lossy(&self.more()).contains(text)
    }

    /// The whole lines since the last call.
    fn more(&mut self) -> Vec<u8> {
        let mut buffer = Vec::new();
        // It is made with the first delivery.
        let Ok(mut file) = File::open(&self.path) else { return buffer };
        file.seek(SeekFrom::Start(self.read)).expect("seek");
        file.read_to_end(&mut buffer).expect("read");
        buffer.truncate(buffer.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1));
        self.read += buffer.len() as u64;
        self.lines += buffer.iter().filter(|byte| **byte == b'\n').count();
        buffer
    }

    fn bytes(&self) -> u64 {
        std::fs::metadata(&self.path).expect("a file").len()
    }
}

/// What is needed of a line.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    id: String,
    operation_type: String,
    ns: Names,
    document_key: Key,
    full_document: Option<Versioned>,
    update_description: Option<Described>,
}

#[derive(Deserialize)]
struct Names {
    coll: String,
}

#[derive(Deserialize)]
struct Key {
    #[serde(rename = "_id")]
    id: Value,
}

#[derive(Deserialize)]
struct Versioned {
    version: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Described {
    updated_fields: Versioned,
}

impl Line {
    /// `None`: a row.
    fn change(&self) -> Option<Change> {
        let full = || self.full_document.as_ref().expect("a document").version;
        match self.operation_type.as_str() {
            "snapshot" => None,
            "insert" => Some(Change::Insert(full())),
            "replace" => Some(Change::Replace(full())),
            "delete" => Some(Change::Delete),
            "update" => {
                Some(Change::Update(self.update_description.as_ref().expect("a description").updated_fields.version))
            }
            other => panic!("{other} was not done"),
        }
    }
}

/// All that the file says about one document.
#[derive(Default)]
struct Told {
    row: Option<String>,
    /// Each change once.
    changes: Vec<(String, Change)>,
    /// The last change within the run of this number.
    last_in: (usize, String),
    /// As the last line has it; `None`: it is gone.
    state: Option<i64>,
}

struct Seen {
    told: HashMap<String, Told>,
    /// Of each run: rows, and how many of them had been there before.
    rows: Vec<(usize, usize)>,
}

impl Seen {
    /// Checks the order within each run on the way.
    fn read(path: &Path, kills: &[u64]) -> Seen {
        let mut seen = Seen { told: HashMap::new(), rows: vec![(0, 0); kills.len() + 1] };
        let mut file = BufReader::new(File::open(path).expect("open the file"));
        let (mut offset, mut torn, mut bytes) = (0, 0, Vec::new());
        loop {
            bytes.clear();
            let read = file.read_until(b'\n', &mut bytes).expect("read the file");
            if read == 0 {
                break;
            }
            let run = kills.partition_point(|kill| *kill <= offset);
            offset += read as u64;
            match serde_json::from_slice(&bytes) {
                Ok(line) => seen.take(run, line),
                // What a kill has cut was never acknowledged.
                Err(error) => {
                    torn += 1;
                    assert!(torn <= kills.len(), "{error}: {}", String::from_utf8_lossy(&bytes));
                }
            }
        }
        seen
    }

    fn take(&mut self, run: usize, line: Line) {
        let change = line.change();
        let Line { id, ns, document_key, full_document, .. } = line;
        let key = format!("{} {}", ns.coll, document_key.id);
        let told = self.told.entry(key).or_default();
        let Some(change) = change else {
            assert!(
                told.last_in.0 != run || told.last_in.1.is_empty(),
                "run {run}: row {id} behind {}",
                told.last_in.1
            );
            let (rows, repeated) = &mut self.rows[run];
            *rows += 1;
            match &told.row {
                Some(known) => {
                    assert_eq!(*known, id, "a row has one id in all runs");
                    *repeated += 1;
                }
                None => told.row = Some(id),
            }
            told.state = Some(full_document.expect("a row has its document").version);
            return;
        };
        if told.last_in.0 != run {
            told.last_in = (run, String::new());
        }
        assert!(told.last_in.1 < id, "run {run}: {id} behind {}", told.last_in.1);
        told.last_in.1.clone_from(&id);
        told.state = match change {
            Change::Insert(version) | Change::Update(version) | Change::Replace(version) => Some(version),
            Change::Delete => None,
        };
        if !told.changes.iter().any(|(known, _)| *known == id) {
            told.changes.push((id, change));
        }
    }
    /// Every document that there was came, and a kill has repeated a little of it.
    fn check_rows(&self, documents: i64, wanted: &HashMap<String, Vec<Change>>) {
        for n in 0..documents {
            let key = key(collection(n), &id(n));
            // What was deleted before it was read is told by that.
            let deleted = wanted.get(&key).is_some_and(|changes| changes.contains(&Change::Delete));
            let row = self.told.get(&key).and_then(|told| told.row.as_ref());
            assert!(row.is_some() || deleted, "document {key} never came");
        }
        eprintln!("rows, and of these repeated, in each run: {:?}", self.rows);
        let interrupted = self.rows.iter().filter(|(rows, _)| *rows > 0).count();
        assert_eq!(interrupted, self.rows.len(), "each kill was in the middle of the rows");
        assert!(self.rows.iter().all(|(_, repeated)| *repeated <= AHEAD_MAX), "a run went back too far");
        assert!(self.rows.iter().any(|(_, repeated)| *repeated > 0), "no kill hit what was not durable");
    }

    fn check_changes(&self, wanted: &HashMap<String, Vec<Change>>) {
        let told: usize = self.told.values().filter(|told| !told.changes.is_empty()).count();
        assert_eq!(told, wanted.len(), "documents that were changed");
        for (key, wanted) in wanted {
            let told = self.told.get(key).unwrap_or_else(|| panic!("no change of {key} came: {wanted:?}"));
            let changes: Vec<Change> = told.changes.iter().map(|(_, change)| *change).collect();
            assert_eq!(changes, *wanted, "the changes of {key}");
        }
    }

    /// The last that was told of a document is how it is.
    fn check_states(&self, states: &HashMap<String, i64>) {
        for (key, told) in &self.told {
            assert_eq!(
                told.state,
                states.get(key).copied(),
                "{key} as it was told last, and as it is; {:?}",
                told.changes
            );
        }
        assert!(states.keys().all(|key| self.told.contains_key(key)), "a document is there that was never told");
    }
}
