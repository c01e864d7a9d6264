//! On a terminal `tailwater snapshot` shows one bar that grows, and whatever ends it stands on a line of its own: the last row, an
//! empty collection, a pause, a stop of the output, the end of the daemon.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bson::doc;

use crate::harness::{Daemon, Mongod, config, eventually};

const DEADLINE: Duration = Duration::from_secs(60);
const ROWS: i64 = 1_000;

/// The command on a pseudo-terminal, which util-linux's `script` makes.
struct Terminal {
    process: Child,
}

impl Terminal {
    fn begin(daemon: &Daemon, collection: &str) -> Terminal {
        let binary = env!("CARGO_BIN_EXE_tailwater");
        let line = format!("{binary} snapshot one --collection {collection} --admin {}", daemon.url());
        let mut command = Command::new("script");
        command.args(["-qec", &line, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        Terminal { process: command.spawn().expect("start script; install bsdutils") }
    }

    /// Waits for its end; whether it succeeded, and what is left on the screen: of each line what no later text has covered.
    fn end(mut self) -> (bool, Vec<String>, usize) {
        let mut text = String::new();
        self.process.stdout.take().expect("piped").read_to_string(&mut text).expect("read the terminal");
        let status = self.process.wait().expect("wait for script");
        let bars = text.matches("\r").count() - text.matches("\r\n").count();
        let lines = text.trim_end().split("\r\n");
        let left = lines.map(|line| line.rsplit('\r').next().unwrap_or_default().replace("\x1b[K", ""));
        (status.success(), left.collect(), bars)
    }
}

async fn until_in_the_middle(daemon: &Daemon) {
    let rows = || daemon.status_of("one")["snapshot"]["settled"].as_i64().unwrap_or(0);
    eventually("the snapshot is in the middle", DEADLINE, || rows() > 100).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_ends_it_is_said_below_the_bar() {
    let (mongod, folder) = (Mongod::start().await, tempfile::tempdir().expect("temporary folder"));
    let shop = mongod.client().database("shop");
    let rows = (0..ROWS).map(|n| doc! { "_id": n, "text": if n == ROWS - 1 { "needle" } else { "" } });
    shop.collection("orders").insert_many(rows).await.expect("insert");
    shop.collection("few").insert_one(doc! { "_id": 1 }).await.expect("insert");
    shop.create_collection("none").await.expect("create");
    let output = "plugin = \"faulty\"\non_reject = \"stop\"\nrate_limit = { per_second = 300, burst = 50 }\n\
        options = { path = \"one.jsonl\", mode = \"reject_matching\", text = \"needle\" }\n";
    let text = config(&mongod, &format!("[checkpoint]\nstore = \"file\"\npath = \"state\"\n[outputs.one]\n{output}"));
    let daemon = Daemon::start(folder.path(), &text).await;

    for collection in ["shop.few", "shop.none"] {
        let (succeeded, left, _) = Terminal::begin(&daemon, collection).end();
        let over = left.last().is_some_and(|line| line.starts_with("one: every row is delivered, state "));
        assert!(succeeded && over && left[0] == "one: snapshot begun" && left.len() == 2, "{collection}: {left:?}");
    }

    let terminal = Terminal::begin(&daemon, "shop.orders");
    until_in_the_middle(&daemon).await;
    daemon.told(&["output", "pause", "one"]);
    let (succeeded, left, bars) = terminal.end();
    assert!(!succeeded && bars > 0 && left.len() == 3, "{bars}, {left:?}");
    assert!(left[1].contains("% of about 1000 rows"), "{left:?}");
    assert_eq!(left[2], "tailwater: output one is paused; the snapshot goes on after: tailwater output resume one");

    // Forgotten, so that the next one begins anew.
    daemon.told(&["checkpoint", "reset", "one"]);
    daemon.told(&["output", "resume", "one"]);
    let (succeeded, left, bars) = Terminal::begin(&daemon, "shop.orders").end();
    assert!(!succeeded && bars > 1 && left.len() == 3, "{bars}, {left:?}");
    let stopped =
        "tailwater: output one has stopped, its log says why; the snapshot goes on after: tailwater output resume one";
    assert_eq!(left[2], stopped);
    let refused = daemon.refused(&["snapshot", "one"]);
    assert!(refused.contains("a snapshot of output one is under way"), "{refused}");

    daemon.told(&["output", "pause", "one"]);
    daemon.told(&["checkpoint", "reset", "one"]);
    daemon.told(&["output", "resume", "one"]);
    let terminal = Terminal::begin(&daemon, "shop.orders");
    until_in_the_middle(&daemon).await;
    daemon.kill9();
    let (succeeded, left, bars) = terminal.end();
    assert!(!succeeded && bars > 0 && left.len() == 3, "{bars}, {left:?}");
    assert!(left[2].starts_with("tailwater: no tailwater answers at"), "{left:?}");
}
