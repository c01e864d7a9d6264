//! A plugin written in C from the header alone is compiled, loaded and gets every event.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bson::{Document, doc};

use crate::harness::{Daemon, Mongod, eventually};

const DEADLINE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_in_c_gets_every_event() {
    let folder = tempfile::tempdir().expect("temporary folder");
    compile(folder.path());
    let mongod = Mongod::start().await;
    let config = format!(
        "[source]\nuri = \"{}\"\nwatch = [\"shop.*\"]\n[admin]\nlisten = \"127.0.0.1:0\"\n[plugins]\ndir = {:?}\n\
         [outputs.c]\nplugin = \"cfile\"\noptions = {{ path = \"changes\" }}\n",
        mongod.uri(),
        folder.path(),
    );
    let daemon = Daemon::start(folder.path(), &config).await;
    let orders = mongod.client().database("shop").collection::<Document>("orders");
    orders.insert_many((0..500).map(|id| doc! { "_id": id })).await.expect("insert");
    orders.delete_one(doc! { "_id": 7 }).await.expect("delete");

    let lines = || std::fs::read_to_string(folder.path().join("changes")).unwrap_or_default();
    eventually("501 lines", DEADLINE, || lines().lines().count() == 501).await;
    let all = lines();
    assert_eq!(all.lines().filter(|line| line.ends_with(" insert shop.orders")).count(), 500);
    assert_eq!(all.lines().filter(|line| line.ends_with(" delete shop.orders")).count(), 1);
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
}

/// With the same strictness as its Makefile.
fn compile(folder: &Path) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let mut cc = Command::new("cc");
    cc.args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-fPIC", "-fvisibility=hidden", "-shared", "-pthread"]);
    cc.arg("-I").arg(root.join("sdk/include")).arg(root.join("examples/c-plugin/cfile.c"));
    let status = cc.arg("-o").arg(folder.join("libtailwater_cfile.so")).status();
    let status = status.expect("run cc: install a C compiler (Debian, Ubuntu: apt-get install gcc libc6-dev)");
    assert!(status.success(), "cc: {status}");
}
