//! What the daemon sends to a webhook is verified by the published libraries of Standard Webhooks for Python, JavaScript and Rust:
//! with either of two secrets, with text from all over the world, with large bodies. What was tampered with is refused.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bson::{Document, doc};
use serde_json::{Value, json};

use crate::harness::{Daemon, Mongod, config};
use crate::webhook_receiver::{Arrival, Receiver};

/// The second secret is the new one of a rotation.
const SECRETS: [&str; 2] =
    ["whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="];
const WRONG_SECRET: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDI=";

/// A request as a library is given it, and whether it must take it.
struct Case {
    request: Value,
    good: bool,
}

fn documents() -> [Document; 5] {
    [
        doc! { "_id": 1, "text": "plain" },
        doc! { "_id": 2, "text": "Grüße, 你好, שלום, 👩‍👩‍👧, \u{2028}\u{feff} \u{0} \u{1b} \" \\ \r\n" },
        doc! { "_id": 3, "text": "é and e\u{301} are not the same bytes" },
        doc! { "_id": 4, "text": "large 🌊 ".repeat(50_000) },
        doc! { "_id": 5, "wide": (0..5_000).map(|n| (format!("key{n}"), n.into())).collect::<Document>() },
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_published_libraries_verify_what_the_daemon_sends() {
    let (python, modules) = (tool("TAILWATER_PYTHON"), tool("TAILWATER_NODE_MODULES"));
    let (mongod, receiver) = (Mongod::start().await, Receiver::start(&SECRETS));
    let folder = tempfile::tempdir().expect("temporary folder");
    let options = format!("url = \"{}\"\nsecrets = {SECRETS:?}\n", receiver.url("/hook"));
    let text = config(&mongod, &format!("[outputs.hook]\nplugin = \"webhook\"\n[outputs.hook.options]\n{options}"));
    let daemon = Daemon::start(folder.path(), &text).await;
    let orders = mongod.client().database("shop").collection("orders");
    orders.insert_many(documents()).await.expect("insert");
    let record = receiver.wait_until("all events", |record| record.taken.len() == documents().len());
    // The receiver itself has verified them with the Rust library.
    assert!(record.violations.is_empty(), "{:?}", record.violations);
    drop(daemon);

    let cases: Vec<Case> = record.arrivals.iter().flat_map(cases).collect();
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/receivers");
    check("Python", Command::new(python).arg(scripts.join("verify.py")), &cases);
    check("JavaScript", Command::new("node").arg(scripts.join("verify.mjs")).env("NODE_PATH", modules), &cases);
}

/// A thing that `cargo xtask test` has fetched.
fn tool(variable: &str) -> PathBuf {
    let found = std::env::var_os(variable).map(PathBuf::from).filter(|path| path.exists());
    found.unwrap_or_else(|| {
        panic!(
            "{variable} leads nowhere: run `cargo xtask test`, which fetches the libraries, or set TAILWATER_PYTHON to a python with \
             standardwebhooks==1.1.0 and TAILWATER_NODE_MODULES to a node_modules folder with standardwebhooks@1.1.1"
        )
    })
}

/// The request as it came, with each secret, and what a receiver must refuse.
fn cases(arrival: &Arrival) -> Vec<Case> {
    let body = String::from_utf8(arrival.body.clone()).expect("UTF-8");
    let case = |body: &str, secret: &str, good: bool| {
        let request = json!({ "headers": arrival.headers, "body": body, "secret": secret });
        Case { request, good }
    };
    let mut cases: Vec<Case> = SECRETS.iter().map(|secret| case(&body, secret, true)).collect();
    cases.push(case(&body, WRONG_SECRET, false));
    let tampered = body.replacen("insert", "delete", 1);
    assert_ne!(tampered, body);
    cases.push(case(&tampered, SECRETS[0], false));
    for (name, value) in [("webhook-id", "0000000000000001-0000000000000000"), ("webhook-timestamp", "1700000000")] {
        let mut forged = case(&body, SECRETS[0], false);
        forged.request["headers"][name] = value.into();
        cases.push(forged);
    }
    cases
}

/// Hands each request to a library's script, which answers line by line.
fn check(library: &str, command: &mut Command, cases: &[Case]) {
    let shown = format!("{command:?}");
    let process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut process = process.unwrap_or_else(|error| panic!("start {shown}: {error}; install node and python3"));
    let mut stdin = process.stdin.take().expect("piped");
    let lines: String = cases.iter().map(|case| format!("{}\n", case.request)).collect();
    // On a thread of its own: the script answers while it reads.
    let writing = std::thread::spawn(move || stdin.write_all(lines.as_bytes()));
    let output = process.wait_with_output().expect("its output");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{shown}: {error}");
    writing.join().expect("the writing thread").expect("write to the script");
    let answers = String::from_utf8(output.stdout).expect("UTF-8");
    let answers: Vec<&str> = answers.lines().collect();
    assert_eq!(answers.len(), cases.len(), "{library}: one answer each; {error}");
    for (case, answer) in cases.iter().zip(answers) {
        let right = if case.good { answer == "ok" } else { answer.starts_with("bad: WebhookVerificationError") };
        assert!(
            right,
            "{library} says {answer:?} where it should {}: {}",
            if case.good { "verify" } else { "refuse" },
            case.request["headers"]
        );
    }
    eprintln!(
        "{library}: {} requests verified, {} refused",
        cases.iter().filter(|case| case.good).count(),
        cases.iter().filter(|case| !case.good).count()
    );
}
