//! The configuration as a whole: defaults, every key, and what is kept as it was written.

use std::time::{Duration, SystemTime};

use bson::doc;

use super::*;
use crate::checkpoint::config::Store;
use crate::event::JsonForm;
use crate::lane::config::{HistoryLost, Keep, OnReject, Ordering};
use crate::source::config::{FullDocument, Start, watch::Watched};

const SMALL: &str = r#"
[source]
uri = "mongodb://127.0.0.1:27017/?replicaSet=rs0"
watch = ["shop.orders"]
[outputs.live]
plugin = "stdout"
"#;

fn parse(text: &str) -> Result<Config, ConfigError> {
    let env = |name: &str| (name == "SECRET").then(|| "s3cret".to_owned());
    Config::parse(text, "dir/config.toml", &env, SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000))
}

#[test]
fn a_small_file_gets_the_defaults() {
    let config = parse(SMALL).unwrap();
    assert_eq!(config.name, "default");
    assert_eq!(config.shutdown_grace, Duration::from_secs(20));
    assert_eq!(config.source.watch, [Watched::Collection { db: "shop".into(), coll: "orders".into() }]);
    assert_eq!(config.source.full_document, FullDocument::Off);
    assert_eq!(config.source.start, Start::Now);
    assert_eq!(config.window.bytes_max, 16 << 20);
    assert_eq!(config.checkpoint.store, Store::MongoDb);
    assert_eq!(config.checkpoint.idle_interval, Duration::from_secs(30));
    assert_eq!(config.dead_letters.place, crate::dead_letters::config::Place::MongoDb);
    assert_eq!(config.dead_letters.bytes_max, 1 << 30);
    assert_eq!(config.dead_letters.expire_after, Duration::from_secs(30 * 24 * 3600));
    assert_eq!(config.admin.listen.unwrap().to_string(), "127.0.0.1:8081");
    assert_eq!(config.plugins.dir, None);
    let output = &config.outputs[0];
    assert_eq!((output.name.as_str(), output.plugin.as_str(), output.query.as_ref()), ("live", "stdout", None));
    assert_eq!((output.ordering, output.concurrency, output.ahead_max), (Ordering::Key, 16, 10_000));
    assert_eq!((output.batch.events_max, output.batch.bytes_max, output.batch.linger), (None, 1 << 20, Duration::ZERO));
    assert_eq!((output.json, output.on_reject, output.enabled), (JsonForm::Relaxed, OnReject::DeadLetter, true));
    assert_eq!(
        (output.backlog.keep, output.backlog.max_age, output.history_lost),
        (Keep::All, None, HistoryLost::Stop)
    );
    assert_eq!(output.retry.give_up_after, Some(Duration::from_secs(24 * 3600)));
    assert_eq!((output.rate_limit.as_ref(), &output.options), (None, &serde_json::json!({})));
}

#[test]
fn policies_of_an_output() {
    let policies = "retry = { give_up_after = \"off\" }\nbacklog = { keep = \"latest_per_key\", max_age = \"1h\" }\n\
                    on_reject = \"skip\"\nhistory_lost = \"resume\"\n";
    let text = SMALL.replace("[outputs", "full_document = \"when_available\"\n[outputs");
    let output = parse(&format!("{text}{policies}")).unwrap().outputs.remove(0);
    assert_eq!(output.retry.give_up_after, None);
    assert_eq!((output.backlog.keep, output.backlog.max_age), (Keep::LatestPerKey, Some(Duration::from_secs(3600))));
    assert_eq!((output.on_reject, output.history_lost), (OnReject::Skip, HistoryLost::Resume));
}

#[test]
fn references_reach_every_string_and_paths_start_at_the_file() {
    let text = r#"
[source]
uri = "mongodb://u:${SECRET}@h/"
watch = ["*"]
pipeline = [{ "$match" = { "fullDocument.key" = "${SECRET}" } }]
[checkpoint]
store = "file"
path = "state"
[outputs.a]
plugin = "stdout"
match = { "ns.coll" = "${SECRET}" }
options = { path = "out-${SECRET}", deep = [{ x = "$${x}" }] }
"#;
    let config = parse(text).unwrap();
    assert_eq!(config.source.uri.expose(), "mongodb://u:s3cret@h/");
    assert!(!format!("{config:?}").contains("u:s3cret"));
    assert_eq!(config.source.pipeline, [doc! { "$match": { "fullDocument.key": "s3cret" } }]);
    assert_eq!(config.checkpoint.store, Store::File { path: "dir/state".into() });
    assert_eq!(config.outputs[0].query, Some(doc! { "ns.coll": "s3cret" }));
    assert_eq!(config.outputs[0].options, serde_json::json!({ "path": "out-s3cret", "deep": [{ "x": "${x}" }] }));
}

#[test]
fn a_match_keeps_order_and_types() {
    let text = format!(
        "{SMALL}match = {{ z = 1, a = 3000000000, o = {{ \"$oid\" = \"0123456789abcdef01234567\" }}, \
         d = 2026-01-31T00:00:00Z, e = {{ \"$date\" = \"2026-01-31T00:00:00Z\" }}, \
         n = {{ \"$numberLong\" = \"5\" }}, f = 1.5, m = {{ \"$date\" = 1000 }} }}\n"
    );
    let date = bson::DateTime::from_millis(1_769_817_600_000);
    let oid = bson::oid::ObjectId::parse_str("0123456789abcdef01234567").unwrap();
    let expected = doc! {
        "z": 1, "a": 3_000_000_000_i64, "o": oid, "d": date, "e": date, "n": 5_i64, "f": 1.5,
        "m": bson::DateTime::from_millis(1000),
    };
    let query = parse(&text).unwrap().outputs.remove(0).query.unwrap();
    assert_eq!(query, expected);
    assert!(query.keys().eq(expected.keys()), "order of {query}");
}

#[test]
fn every_type_can_be_written_in_a_match() {
    use bson::{Binary, Bson, DateTime, Decimal128, JavaScriptCodeWithScope, Regex, Timestamp, spec::BinarySubtype};
    let oid = "0123456789abcdef01234567";
    let uuid = bson::Uuid::parse_str("c8edabc3-f738-4ca3-b68d-ab92a91478a3").unwrap();
    let regex = Regex { pattern: bson::cstr!("^a.b").into(), options: bson::cstr!("i").into() };
    let scoped = JavaScriptCodeWithScope { code: "f()".into(), scope: doc! { "x": 1 } };
    let date = |ms| Bson::DateTime(DateTime::from_millis(ms));
    let table: [(&str, Bson); 22] = [
        ("{ '$oid' = '0123456789abcdef01234567' }", bson::oid::ObjectId::parse_str(oid).unwrap().into()),
        ("{ '$date' = '2026-01-31T00:00:00Z' }", date(1_769_817_600_000)),
        ("{ '$date' = 2026-01-31T00:00:00Z }", date(1_769_817_600_000)),
        ("{ '$date' = -1 }", date(-1)),
        ("{ '$date' = { '$numberLong' = '-1' } }", date(-1)),
        ("2026-01-31T01:00:00+01:00", date(1_769_817_600_000)),
        ("{ '$numberInt' = '5' }", Bson::Int32(5)),
        ("{ '$numberDouble' = '-Infinity' }", Bson::Double(f64::NEG_INFINITY)),
        ("-inf", Bson::Double(f64::NEG_INFINITY)),
        ("{ '$numberDecimal' = '1.50' }", "1.50".parse::<Decimal128>().unwrap().into()),
        (
            "{ '$binary' = { base64 = 'AQID', subType = '80' } }",
            Binary { subtype: BinarySubtype::UserDefined(0x80), bytes: vec![1, 2, 3] }.into(),
        ),
        ("{ '$uuid' = 'c8edabc3-f738-4ca3-b68d-ab92a91478a3' }", uuid.into()),
        ("{ '$timestamp' = { t = 3, i = 4 } }", Timestamp { time: 3, increment: 4 }.into()),
        ("{ '$regularExpression' = { pattern = '^a.b', options = 'i' } }", Bson::RegularExpression(regex)),
        ("{ '$minKey' = 1 }", Bson::MinKey),
        ("{ '$maxKey' = 1 }", Bson::MaxKey),
        ("{ '$symbol' = 's' }", Bson::Symbol("s".into())),
        ("{ '$code' = 'f()' }", Bson::JavaScriptCode("f()".into())),
        ("{ '$code' = 'f()', '$scope' = { x = 1 } }", Bson::JavaScriptCodeWithScope(scoped)),
        ("{ '$undefined' = true }", Bson::Undefined),
        // Operators and references stay what they are.
        ("{ '$regex' = '^a', '$options' = 'i' }", doc! { "$regex": "^a", "$options": "i" }.into()),
        ("{ '$ref' = 'x', '$id' = 1 }", doc! { "$ref": "x", "$id": 1 }.into()),
    ];
    for (written, expected) in table {
        for (query, expected) in [
            (format!("{{ a = {written} }}"), doc! { "a": expected.clone() }),
            (format!("{{ a = {{ '$in' = [1, {written}] }} }}"), doc! { "a": { "$in": [1, expected.clone()] } }),
            (format!("{{ a = {{ '$gt' = {written} }} }}"), doc! { "a": { "$gt": expected } }),
        ] {
            let config = parse(&format!("{SMALL}match = {query}\n")).unwrap_or_else(|error| panic!("{query}: {error}"));
            assert_eq!(config.outputs[0].query, Some(expected), "{query}");
        }
    }
    let pointer = format!("{{ '$dbPointer' = {{ '$ref' = 'db.c', '$id' = {{ '$oid' = '{oid}' }} }} }}");
    let query = parse(&format!("{SMALL}match = {{ a = {pointer} }}\n")).unwrap().outputs.remove(0).query.unwrap();
    assert!(matches!(query.get("a"), Some(Bson::DbPointer(_))), "{query}");
}

#[test]
fn starts() {
    for (value, start) in [
        ("\"now\"", Start::Now),
        ("\"2026-01-31T00:00:00Z\"", Start::Time { seconds: 1_769_817_600 }),
        ("2026-01-31T01:00:00+01:00", Start::Time { seconds: 1_769_817_600 }),
        (
            "\"6553f10000000001-00000000deadbeef\"",
            Start::Event { id: "6553f10000000001-00000000deadbeef".parse().unwrap() },
        ),
    ] {
        let text = SMALL.replace("[outputs", &format!("start = {value}\n[outputs"));
        assert_eq!(parse(&text).unwrap().source.start, start, "{value}");
    }
}

#[test]
fn outputs_keep_the_order_of_the_file() {
    let text = format!("{SMALL}[outputs.b]\nplugin = \"x\"\n[outputs.a]\nplugin = \"y\"\nenabled = false\n");
    let names: Vec<String> = parse(&text).unwrap().outputs.into_iter().map(|output| output.name).collect();
    assert_eq!(names, ["live", "b", "a"]);
}
