//! What is wrong with the deployment ends the daemon soon, with exit code 1 and one line that says what and what to do.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use bson::{Document, doc};
use mongodb::Client;

use crate::harness::{Daemon, Lines, Mongod, config_of, eventually};

/// From start to end: the driver looks for a server for ten seconds, then each host is asked what is wrong.
const END_MAX: Duration = Duration::from_secs(25);
const SHOP: &str = "watch = [\"shop.*\"]";
const OUTPUT: &str = "[outputs.all]\nplugin = \"stdout\"\noptions = { path = \"all.jsonl\" }\n";
const IN_FILES: &str = "[checkpoint]\nstore = \"file\"\npath = \"state\"\n";

/// Runs until the daemon ends; the only line of level ERROR must contain all of `words`.
async fn check(uri: &str, source: &str, checkpoint: &str, words: &[&str]) {
    let folder = tempfile::tempdir().expect("temporary folder");
    let started = Instant::now();
    let mut daemon = Daemon::spawn(folder.path(), &config_of(uri, source, &format!("{checkpoint}{OUTPUT}")));
    let status = daemon.wait_until_ended(END_MAX).await;
    assert_eq!(status.code(), Some(1), "{uri}: {status}");
    let errors = || -> Vec<String> { daemon.log().into_iter().filter(|line| line.contains(" ERROR ")).collect() };
    eventually("an error in the log", END_MAX, || !errors().is_empty()).await;
    let errors = errors();
    eprintln!("{:.1} s: {}", started.elapsed().as_secs_f64(), errors.join("\n"));
    assert_eq!(errors.len(), 1, "one line: {errors:?}");
    for word in words {
        assert!(errors[0].contains(word), "{word:?} is missing: {}", errors[0]);
    }
    assert!(!errors[0].contains("secret"), "no password in a log: {}", errors[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_no_replica_set() {
    let mongod = Mongod::start_bare(&[]).await;
    let address = format!("127.0.0.1:{}", mongod.port());
    let words = [
        &format!("{address} is not a member of a replica set"),
        "change streams need one: start mongod with --replSet rs0 and run rs.initiate() once",
    ];
    check(&format!("mongodb://{address}/"), SHOP, "", &words).await;
    check(&format!("mongodb://{address}/?replicaSet=rs0"), SHOP, "", &words).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_set_that_is_not_initiated() {
    let mongod = Mongod::start_bare(&["--replSet", "rs0"]).await;
    let words = ["was started as a replica set but not initiated; run rs.initiate() once"];
    check(&mongod.uri(), SHOP, "", &words).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_replica_set_than_the_uri_says() {
    let mongod = Mongod::start().await;
    let uri = mongod.uri().replace("rs0", "other");
    check(&uri, SHOP, "", &["belongs to replica set \"rs0\", source.uri says \"other\""]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_such_host() {
    let uri = "mongodb://tailwater.invalid:27017/?replicaSet=rs0";
    check(uri, SHOP, "", &["no such host tailwater.invalid", "check source.uri"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_listens() {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port();
    let uri = format!("mongodb://127.0.0.1:{port}/?replicaSet=rs0");
    let refused = format!("cannot connect to 127.0.0.1:{port}: Connection refused");
    check(&uri, SHOP, "", &[&refused, "is mongod running there?"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_the_server_does_not_take() {
    let mongod = Mongod::start().await;
    let source = format!("{SHOP}\npipeline = [{{ \"$match\" = {{ \"fullDocument.a\" = {{ \"$bogus\" = 1 }} }} }}]");
    let words = ["open change stream on database shop", "unknown operator: $bogus", "check source.pipeline and match"];
    check(&mongod.uri(), &source, "", &words).await;
}

/// A replica set that asks for passwords, with a user for the test and one that may only read `other`.
pub async fn with_users(folder: &std::path::Path) -> Mongod {
    let key = folder.join("key");
    std::fs::write(&key, "c2VjcmV0LXRoYXQtbWVtYmVycy1zaGFyZQ==").expect("write the key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("only for us");
    let mongod = Mongod::start_with(&["--auth", "--keyFile", key.to_str().expect("a path")]).await;
    // The first user may be made without one, from this machine.
    let root = doc! { "createUser": "root", "pwd": "secret", "roles": ["root"] };
    mongod.client().database("admin").run_command(root).await.expect("create root");
    let uri = format!("mongodb://root:secret@127.0.0.1:{}/?directConnection=true", mongod.port());
    let admin = Client::with_uri_str(uri).await.expect("client").database("admin");
    let roles = |roles: &[(&str, &str)]| -> Vec<Document> {
        roles.iter().map(|(role, db)| doc! { "role": *role, "db": *db }).collect()
    };
    for (user, roles) in [
        ("stranger", roles(&[("read", "other")])),
        ("reader", roles(&[("read", "shop")])),
        ("full", roles(&[("read", "shop"), ("readWrite", "tailwater")])),
    ] {
        admin.run_command(doc! { "createUser": user, "pwd": "secret", "roles": roles }).await.expect("create user");
    }
    mongod
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_the_privileges_or_the_password() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let mongod = with_users(folder.path()).await;
    let uri =
        |user: &str, password: &str| format!("mongodb://{user}:{password}@127.0.0.1:{}/?replicaSet=rs0", mongod.port());
    let stream =
        ["open change stream on database shop", "not authorized on shop", "grant the user find and changeStream"];
    check(&uri("stranger", "secret"), SHOP, IN_FILES, &stream).await;
    let everything =
        ["open change stream on the deployment", "not authorized on admin", "grant the user find and changeStream"];
    check(&uri("full", "secret"), "watch = [\"*\"]", "", &everything).await;
    let checkpoint =
        ["lease of default in MongoDB", "not authorized on tailwater", "grant the user readWrite on tailwater"];
    check(&uri("reader", "secret"), SHOP, "", &checkpoint).await;
    let password = ["connect to MongoDB", "Authentication failed", "check user, password and authSource in source.uri"];
    check(&uri("full", "wrong"), SHOP, "", &password).await;

    // With what the messages ask for it runs.
    let text = config_of(&uri("full", "secret"), SHOP, OUTPUT);
    let daemon = Daemon::start(folder.path(), &text).await;
    assert!(daemon.terminate_and_wait(END_MAX).await.success());
}

/// What is required and missing never comes to be: the event is put aside with what to do, and the stream goes on, after a restart too.
#[tokio::test(flavor = "multi_thread")]
async fn a_required_image_that_is_missing() {
    for (key, image) in [("full_document", "post-image"), ("full_document_before_change", "pre-image")] {
        let (mongod, folder) = (Mongod::start().await, tempfile::tempdir().expect("temporary folder"));
        let orders = mongod.client().database("shop").collection::<Document>("orders");
        orders.insert_one(doc! { "_id": 1 }).await.expect("insert");
        let source = format!("{SHOP}\n{key} = \"required\"");
        let config = config_of(&mongod.uri(), &source, OUTPUT);
        let lines = Lines::new(folder.path().join("all.jsonl"));
        for round in 1..=2 {
            let daemon = Daemon::start(folder.path(), &config).await;
            for _ in 0..5 {
                orders.update_one(doc! { "_id": 1 }, doc! { "$inc": { "n": 1 } }).await.expect("update");
            }
            orders.insert_one(doc! { "_id": 1 + round }).await.expect("insert");
            eventually("what is behind them", Duration::from_secs(60), || lines.events().len() == round as usize).await;
            let metric = || daemon.metric("tailwater_source_poison_events_total", &[]);
            assert_eq!(metric(), Some(5.0), "each once");
            let said = format!("its {image} is required and was not there");
            let words = [" WARN ", &said, "write \"when_available\""];
            assert!(daemon.has_logged(&words), "what to do");
            let warnings =
                daemon.log().into_iter().filter(|line| line.contains("cannot be delivered as it is")).count();
            assert_eq!(warnings, 1, "one for all of a spell");
            assert!(daemon.terminate_and_wait(END_MAX).await.success());
        }
    }
}
