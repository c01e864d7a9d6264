//! SIGHUP: added, removed and changed outputs take effect and the unchanged ones do not notice; a file that is wrong, or that the
//! server refuses, changes nothing; no position is lost when the filter of the shared stream changes.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use bson::{Document, doc};
use mongodb::Collection;
use rustix::process::Signal;

use crate::harness::{Daemon, Lines, Mongod, config, eventually};

const DEADLINE: Duration = Duration::from_secs(60);

fn output(name: &str, more: &str) -> String {
    format!("[outputs.{name}]\nplugin = \"stdout\"\n{more}\noptions = {{ path = \"{name}.jsonl\" }}\n")
}

fn orders(mongod: &Mongod) -> Collection<Document> {
    mongod.client().database("shop").collection("orders")
}

fn numbers(folder: &Path, output: &str) -> Vec<i64> {
    let lines = Lines::new(folder.join(format!("{output}.jsonl")));
    lines.events().iter().map(|event| event["documentKey"]["_id"].as_i64().expect("a number")).collect()
}

fn write(folder: &Path, text: &str) {
    std::fs::write(folder.join("config.toml"), text).expect("write config.toml");
}

async fn reloaded(daemon: &mut Daemon, words: &[&str]) {
    daemon.signal(Signal::HUP);
    eventually(&format!("the log has {words:?}"), DEADLINE, || daemon.has_logged(words)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_come_go_and_change_while_others_do_not_notice() {
    let mongod = Mongod::start().await;
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path();
    let even = "match = { \"fullDocument.even\" = true }";
    let odd = "match = { \"fullDocument.even\" = false }";
    let text = |outputs: &str| config(&mongod, outputs);
    let kept = output("kept", even);
    let mut daemon =
        Daemon::start(path, &text(&format!("{kept}{}{}", output("gone", ""), output("changed", even)))).await;

    // Written all the time, so that an event that is missed anywhere is noticed.
    let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI64::new(0)));
    let writer = tokio::spawn({
        let (orders, stop, written) = (orders(&mongod), Arc::clone(&stop), Arc::clone(&written));
        async move {
            while !stop.load(Ordering::SeqCst) {
                let id = written.load(Ordering::SeqCst);
                orders.insert_one(doc! { "_id": id, "even": id % 2 == 0 }).await.expect("insert");
                written.store(id + 1, Ordering::SeqCst);
            }
        }
    });
    let some = |output: &'static str| {
        let path = path.to_owned();
        async move {
            let before = numbers(&path, output).len();
            eventually(&format!("{output} delivers"), DEADLINE, || numbers(&path, output).len() > before + 20).await;
        }
    };
    some("kept").await;
    some("gone").await;

    // An output without a match widens the filter of the stream; `gone` had none either, so it stays as it was until it goes.
    write(path, &text(&format!("{kept}{}{}", output("changed", odd), output("added", odd))));
    reloaded(&mut daemon, &["reloaded", "1 added, 1 changed, 1 removed, 1 unchanged"]).await;
    some("added").await;
    some("changed").await;
    eventually("the removed output has ended", DEADLINE, || daemon.has_logged(&["output removed", "gone"])).await;
    assert!(daemon.metric("tailwater_output_lag_seconds", &[("output", "gone")]).is_none(), "its metrics are gone");
    let gone = numbers(path, "gone").len();

    // Wider again, and back.
    write(path, &text(&format!("{kept}{}{}{}", output("changed", odd), output("added", odd), output("gone", ""))));
    reloaded(&mut daemon, &["reloaded", "1 added, 0 changed, 0 removed, 3 unchanged"]).await;
    eventually("the output is back", DEADLINE, || numbers(path, "gone").len() > gone).await;

    stop.store(true, Ordering::SeqCst);
    writer.await.expect("the writer");
    let all: Vec<i64> = (0..written.load(Ordering::SeqCst)).collect();
    let evens: Vec<i64> = all.iter().copied().filter(|id| id % 2 == 0).collect();
    eventually("kept has every even one", DEADLINE, || numbers(path, "kept").len() >= evens.len()).await;
    assert_eq!(numbers(path, "kept"), evens, "the unchanged output got everything once, in order");
    // It was away for a while, and went on at its checkpoint.
    eventually("gone has all", DEADLINE, || {
        let mut seen = numbers(path, "gone");
        seen.sort_unstable();
        seen.dedup();
        seen == all
    })
    .await;
    // Even ones until the change, odd ones from then on, none missed in between.
    let changed = numbers(path, "changed");
    let first_odd = changed.iter().copied().find(|id| id % 2 == 1).expect("odd ones");
    let last_even = changed.iter().copied().filter(|id| id % 2 == 0).max().expect("even ones");
    let expected: Vec<i64> =
        (all.iter().copied()).filter(|id| if id % 2 == 0 { *id <= last_even } else { *id >= first_odd }).collect();
    eventually("changed has the last odd one", DEADLINE, || {
        let mut seen = numbers(path, "changed");
        seen.sort_unstable();
        seen.dedup();
        seen == expected
    })
    .await;
    assert!(first_odd <= last_even + 4, "nothing between the last even one {last_even} and {first_odd} was skipped");
    assert_eq!(daemon.metric("tailwater_reloads_total", &[]), Some(2.0));
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_file_changes_nothing() {
    let mongod = Mongod::start().await;
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path();
    let good = config(&mongod, &output("one", ""));
    let mut daemon = Daemon::start(path, &good).await;
    let other = output("two", "");
    let bad: [(&str, String, &[&str]); 6] = [
        ("no TOML", "= 1".to_owned(), &["not reloaded", "not valid TOML"]),
        ("an unknown key", format!("{good}ouptut = 1\n"), &["not reloaded", "unknown key"]),
        ("no such plugin", good.replace("\"stdout\"", "\"nowhere\""), &["not reloaded", "nowhere"]),
        (
            "another server",
            good.replace("[source]", "[source]\nfull_document = \"update_lookup\"") + &other,
            &["not reloaded", "[source] has changed, which takes effect only with a restart; nothing was changed"],
        ),
        (
            "a query of ours alone",
            format!("{good}{}", output("two", "match = { a = { \"$nope\" = 1 } }")),
            &["not reloaded", "$nope"],
        ),
        ("no output", config(&mongod, ""), &["not reloaded", "no output is enabled"]),
    ];
    for (what, text, words) in &bad {
        write(path, text);
        let before = daemon.metric("tailwater_reloads_refused_total", &[]).unwrap_or(0.0);
        daemon.signal(Signal::HUP);
        eventually(&format!("{what}: refused"), DEADLINE, || {
            daemon.metric("tailwater_reloads_refused_total", &[]).unwrap_or(0.0) > before
        })
        .await;
        eventually(&format!("{what}: {words:?}"), DEADLINE, || daemon.has_logged(words)).await;
    }
    orders(&mongod).insert_one(doc! { "_id": 1 }).await.expect("insert");
    eventually("one delivers on", DEADLINE, || numbers(path, "one") == [1]).await;
    write(path, &format!("{good}{other}"));
    reloaded(&mut daemon, &["reloaded", "1 added, 0 changed, 0 removed, 1 unchanged"]).await;
    orders(&mongod).insert_one(doc! { "_id": 2 }).await.expect("insert");
    eventually("both deliver", DEADLINE, || numbers(path, "one") == [1, 2] && numbers(path, "two") == [2]).await;
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
}
