//! The example plugin outside the workspace is built as its README says, and gets every event.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bson::{Document, doc};

use crate::harness::{Daemon, Mongod, eventually};

const DEADLINE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_outside_the_workspace_gets_every_event() {
    let plugins = build();
    let folder = tempfile::tempdir().expect("temporary folder");
    let mongod = Mongod::start().await;
    let config = format!(
        "[source]\nuri = \"{}\"\nwatch = [\"shop.*\"]\n[admin]\nlisten = \"127.0.0.1:0\"\n[plugins]\ndir = {plugins:?}\n\
         [outputs.audit]\nplugin = \"csv\"\n\
         options = {{ path = \"changes.csv\", columns = [\"operationType\", \"ns.coll\", \"documentKey._id\", \"fullDocument.note\"] }}\n",
        mongod.uri(),
    );
    let daemon = Daemon::start(folder.path(), &config).await;
    let orders = mongod.client().database("shop").collection::<Document>("orders");
    orders.insert_many((0..300).map(|id| doc! { "_id": id, "note": "one, two" })).await.expect("insert");
    orders.delete_one(doc! { "_id": 7 }).await.expect("delete");

    let text = || std::fs::read_to_string(folder.path().join("changes.csv")).unwrap_or_default();
    eventually("a header and 301 lines", DEADLINE, || text().lines().count() == 302).await;
    let all = text();
    let mut lines = all.lines();
    assert_eq!(lines.next(), Some("operationType,ns.coll,documentKey._id,fullDocument.note"));
    let mut keys: Vec<i32> = lines
        .clone()
        .filter_map(|line| line.strip_prefix("insert,orders,")?.strip_suffix(",\"one, two\"")?.parse().ok())
        .collect();
    keys.sort_unstable();
    assert_eq!(keys, (0..300).collect::<Vec<_>>());
    assert_eq!(lines.filter(|line| *line == "delete,orders,7,").count(), 1);
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
}

/// Builds and tests it, in a folder of its own below the workspace's target folder. Returns the folder of the library.
fn build() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let package = root.join("examples/plugin");
    // The versions that the workspace has: nothing new is downloaded, and a new release of somebody else's breaks nothing here.
    std::fs::copy(root.join("Cargo.lock"), package.join("Cargo.lock")).expect("copy Cargo.lock");
    let executable = std::env::current_exe().expect("own path");
    let profile = executable.ancestors().nth(2).expect("target/PROFILE/deps/it");
    let target = profile.with_file_name("example-plugin");
    for command in ["build", "test"] {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.arg(command).arg("--manifest-path").arg(package.join("Cargo.toml")).arg("--target-dir").arg(&target);
        let output = cargo.output().expect("start cargo");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "cargo {command}: {errors}\n{}", String::from_utf8_lossy(&output.stdout));
    }
    target.join("debug")
}
