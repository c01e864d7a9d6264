//! `tailwater check --explain` shows, without a server, what MongoDB is asked to filter, and what of each `match` is left to the
//! daemon and why.

use crate::harness::{daemon, plugins_dir};

fn explain(outputs: &str) -> std::process::Output {
    let folder = tempfile::tempdir().expect("temporary folder");
    let text = format!(
        "[source]\nuri = \"mongodb://127.0.0.1:1/?replicaSet=rs0\"\nwatch = [\"shop.orders\", \"shop.carts\"]\n\
         pipeline = [{{ \"$match\" = {{ \"fullDocument.test\" = {{ \"$ne\" = true }} }} }}]\n[plugins]\ndir = {:?}\n{outputs}",
        plugins_dir()
    );
    std::fs::write(folder.path().join("config.toml"), text).expect("write config.toml");
    daemon::command(folder.path(), &["check", "--config", "config.toml", "--explain"])
}

fn output(name: &str, query: &str) -> String {
    let query = if query.is_empty() { String::new() } else { format!("match = {query}\n") };
    format!("[outputs.{name}]\nplugin = \"stdout\"\n{query}")
}

const SCOPE: &str = r#"change stream of database shop, for all outputs:
  scope:
    {
      "$or": [
        { "ns.coll": { "$in": ["orders", "carts"] } },
        { "to.coll": { "$in": ["orders", "carts"] } },
        { "operationType": { "$in": ["dropDatabase", "invalidate"] } }
      ]
    }
  source.pipeline:
    { "$match": { "fullDocument.test": { "$ne": true } } }
"#;

#[track_caller]
fn check(outputs: &[(&str, &str)], expected: &str) {
    let text: String = outputs.iter().map(|(name, query)| output(name, query)).collect();
    let ran = explain(&text);
    let version = env!("CARGO_PKG_VERSION");
    let fine: String = outputs.iter().map(|(name, _)| format!("outputs.{name}: plugin stdout {version}\n")).collect();
    assert_eq!(String::from_utf8_lossy(&ran.stdout), format!("{fine}{SCOPE}{expected}ok\n"));
    assert!(ran.status.success() && ran.stderr.is_empty(), "{}", String::from_utf8_lossy(&ran.stderr));
}

#[test]
fn the_filter_of_all_outputs_and_of_each_is_shown() {
    let outputs = [
        ("eu", r#"{ operationType = "insert", "fullDocument.region" = "eu" }"#),
        ("us", r#"{ "fullDocument.region" = "us", operationType = "insert" }"#),
        ("odd", r#"{ "ns.coll" = "carts", "_id._data" = "82" }"#),
    ];
    check(
        &outputs,
        r#"  $match of the outputs, 170 bytes:
    {
      "$or": [
        { "operationType": "invalidate" },
        { "operationType": "insert", "fullDocument.region": { "$in": ["eu", "us"] } },
        { "ns.coll": "carts" }
      ]
    }
outputs.eu:
  the server is asked for exactly what its match lets through
  decided by the daemon for each event it gets:
    { "operationType": "insert", "fullDocument.region": "eu" }
  $match while it catches up on its own, 115 bytes:
    { "$or": [{ "operationType": "invalidate" }, { "operationType": "insert", "fullDocument.region": "eu" }] }
outputs.us:
  the server is asked for exactly what its match lets through
  decided by the daemon for each event it gets:
    { "fullDocument.region": "us", "operationType": "insert" }
  $match while it catches up on its own, 115 bytes:
    { "$or": [{ "operationType": "invalidate" }, { "operationType": "insert", "fullDocument.region": "us" }] }
outputs.odd:
  the server is asked for more than its match lets through
  left to the daemon, the server sees this field otherwise:
    { "_id._data": "82" }
  decided by the daemon for each event it gets:
    { "ns.coll": "carts", "_id._data": "82" }
  $match while it catches up on its own, 80 bytes:
    { "$or": [{ "operationType": "invalidate" }, { "ns.coll": "carts" }] }
"#,
    );
}

#[test]
fn an_output_without_a_match_has_everything_sent() {
    check(
        &[("all", ""), ("deletes", r#"{ operationType = "delete" }"#)],
        r#"  $match of the outputs: none, outputs.all has no match
outputs.all:
  no match: every event is for it
outputs.deletes:
  the server is asked for exactly what its match lets through
  decided by the daemon for each event it gets:
    { "operationType": "delete" }
  $match while it catches up on its own, 87 bytes:
    { "$or": [{ "operationType": "invalidate" }, { "operationType": "delete" }] }
"#,
    );
}

#[test]
fn more_than_the_server_is_to_bear_is_said() {
    let names: Vec<String> = (0..40).map(|k| format!("o{k}")).collect();
    let queries: Vec<String> =
        (0..40).map(|k| format!(r#"{{ operationType = "update", a{k} = {{ "$exists" = true }} }}"#)).collect();
    let text: String = names.iter().zip(&queries).map(|(name, query)| output(name, query)).collect();
    let ran = explain(&text);
    let shown = String::from_utf8_lossy(&ran.stdout);
    let filter = r#"    { "$or": [{ "operationType": "invalidate" }, { "operationType": "update" }] }"#;
    assert!(shown.contains(&format!("  $match of the outputs, 87 bytes:\n{filter}\n")), "{shown}");
    let why = "the match of all outputs together costs it too much";
    assert_eq!(shown.matches(why).count(), 40, "{shown}");
}

#[test]
fn what_is_wrong_is_said_and_nothing_explained() {
    let ran = explain(&output("one", r#"{ a = { "$nope" = 1 } }"#));
    assert_eq!(ran.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&ran.stderr).contains("$nope"));
    assert!(ran.stdout.is_empty(), "{}", String::from_utf8_lossy(&ran.stdout));
}
