//! A broken configuration is refused with exit code 64 and one line that names the place, the key, what is wrong and what
//! to do.

use std::time::{Duration, SystemTime};

use tailwater::config::Config;

use crate::harness::{daemon, plugins_dir};

/// A configuration that is right; line numbers of the table count from here.
const RIGHT: &str = r#"name = "test"
[source]
uri = "mongodb://127.0.0.1:27017/?replicaSet=rs0"
watch = ["shop.orders"]
[outputs.live]
plugin = "stdout"
batch = { events_max = 100 }
"#;

/// What to write in place of what, and the error that follows. A `from` that is empty appends.
struct Case {
    from: &'static str,
    to: &'static str,
    error: &'static str,
}

const fn case(from: &'static str, to: &'static str, error: &'static str) -> Case {
    Case { from, to, error }
}

const WATCH: &str = "watch = [\"shop.orders\"]";
const BATCH: &str = "batch = { events_max = 100 }";
const URI: &str = "\"mongodb://127.0.0.1:27017/?replicaSet=rs0\"";

const CASES: &[Case] = &[
    // Shape of the file.
    case("name = \"test\"", "name = \"test", "config.toml:1:13: not valid TOML: invalid basic string, expected `\"`"),
    case("", "[outputs.live]\nplugin = \"stdout\"\n", "config.toml:8:10: not valid TOML: duplicate key"),
    // Unknown keys.
    case(
        BATCH,
        "concurency = 4",
        "config.toml:7:1: unknown key \"outputs.live.concurency\", did you mean \"concurrency\"?",
    ),
    case("name =", "nmae =", "config.toml:1:1: unknown key \"nmae\", did you mean \"name\"?"),
    case(WATCH, "wacth = [\"shop.orders\"]", "config.toml:4:1: unknown key \"source.wacth\", did you mean \"watch\"?"),
    case(
        BATCH,
        "batch = { event_max = 100 }",
        "config.toml:7:11: unknown key \"outputs.live.batch.event_max\", did you mean \"events_max\"?",
    ),
    case(
        "",
        "[chekpoint]\nstore = \"file\"\n",
        "config.toml:8:2: unknown key \"chekpoint\", did you mean \"checkpoint\"?",
    ),
    case(
        "",
        "[nothing]\nstore = \"file\"\n",
        "config.toml:8:2: unknown key \"nothing\", known here: name, shutdown_grace, source, window, checkpoint, dead_letters, admin, plugins, outputs",
    ),
    case(
        BATCH,
        "zzz = 1",
        "config.toml:7:1: unknown key \"outputs.live.zzz\", known here: plugin, match, ordering, concurrency, batch, timeout, ahead_max, in_flight_bytes_max, json, envelope, project, retry, rate_limit, backlog, on_reject, history_lost, enabled, options",
    ),
    case(
        BATCH,
        "project = { exclude = [\"fullDocument.card\"], redact = { \"fullDocument.card.pin\" = \"mask\" } }",
        "config.toml:7:11: outputs.live.project: \"fullDocument.card.pin\" is inside of \"fullDocument.card\", which is excluded with all that is in it; remove one of them",
    ),
    case(
        BATCH,
        "project = { redact = { \"fullDocument.card\" = \"hash\" }, hash_key = \"0123456789\" }",
        "config.toml:7:67: outputs.live.project.hash_key: is too short, write 16 to 4096 bytes, such as openssl rand -base64 32 makes",
    ),
    case(
        BATCH,
        "envelope = \"cloudevent\"",
        "config.toml:7:12: outputs.live.envelope: \"cloudevent\" is not known, write \"none\", \"debezium\" or \"cloudevents\"",
    ),
    // Missing keys.
    case("plugin = \"stdout\"", "", "config.toml:5:1: outputs.live.plugin: missing, add plugin = \"stdout\""),
    case(WATCH, "", "config.toml:2:1: source.watch: missing, add watch = [\"db.collection\"]"),
    case(
        "[source]\nuri = \"mongodb://127.0.0.1:27017/?replicaSet=rs0\"\nwatch = [\"shop.orders\"]\n",
        "",
        "config.toml: source.uri: missing, add uri = \"mongodb://127.0.0.1:27017/?replicaSet=rs0\" under [source]",
    ),
    case(
        BATCH,
        "enabled = false",
        "config.toml: no output is enabled, add [outputs.NAME] with a plugin, or remove enabled = false",
    ),
    case(
        BATCH,
        "rate_limit = { burst = 5 }",
        "config.toml:7:14: outputs.live.rate_limit.per_second: missing, add per_second = 500",
    ),
    case(
        "",
        "[checkpoint]\nstore = \"file\"\n",
        "config.toml:8:1: checkpoint: store = \"file\" needs path, add path = \"state\"",
    ),
    case(
        "",
        "[dead_letters]\nstore = \"file\"\n",
        "config.toml:8:1: dead_letters: store = \"file\" needs path, add path = \"dead-letters\"",
    ),
    case(
        "",
        "[dead_letters]\npath = \"dead-letters\"\n",
        "config.toml:9:8: dead_letters.path: is used only with store = \"file\", remove it or set that",
    ),
    case(
        "",
        "[dead_letters]\nexpires_after = \"30d\"\n",
        "config.toml:9:1: unknown key \"dead_letters.expires_after\", did you mean \"expire_after\"?",
    ),
    case(
        "",
        "[dead_letters]\nexpire_after = \"off\"\n",
        "config.toml:9:16: dead_letters.expire_after: \"off\" is not a duration, write a whole number with ms, s, m, h or d, such as \"500ms\"",
    ),
    case(
        "",
        "[dead_letters]\nexpire_after = \"4000d\"\n",
        "config.toml:9:16: dead_letters.expire_after: \"4000d\" is out of range, write 1s to 3650d",
    ),
    case(
        "",
        "[dead_letters]\nbytes_max = \"1KiB\"\n",
        "config.toml:9:13: dead_letters.bytes_max: \"1KiB\" is out of range, write 1MiB to 1024GiB",
    ),
    // Wrong types.
    case(
        BATCH,
        "concurrency = \"4\"",
        "config.toml:7:15: outputs.live.concurrency: expected a whole number, found a string",
    ),
    case(BATCH, "enabled = 1", "config.toml:7:11: outputs.live.enabled: expected true or false, found an integer"),
    case(
        BATCH,
        "timeout = 60",
        "config.toml:7:11: outputs.live.timeout: expected a duration such as \"500ms\", found an integer",
    ),
    case(BATCH, "batch = 100", "config.toml:7:9: outputs.live.batch: expected a table, found an integer"),
    case(
        BATCH,
        "match = \"insert\"",
        "config.toml:7:9: outputs.live.match: expected a table such as { operationType = \"insert\" }, found a string",
    ),
    case(BATCH, "options = [1]", "config.toml:7:11: outputs.live.options: expected a table, found an array"),
    case(
        WATCH,
        "watch = \"shop.orders\"",
        "config.toml:4:9: source.watch: expected an array such as [\"db.collection\"], found a string",
    ),
    case(
        "",
        "[window]\nbytes_max = 16777216\n",
        "config.toml:9:13: window.bytes_max: expected a byte size such as \"16MiB\", found an integer",
    ),
    // Values that cannot be read.
    case(
        BATCH,
        "timeout = \"60 sec\"",
        "config.toml:7:11: outputs.live.timeout: \"60 sec\" is not a duration, write a whole number with ms, s, m, h or d, such as \"500ms\"",
    ),
    case(
        "",
        "[window]\nbytes_max = \"16mb\"\n",
        "config.toml:9:13: window.bytes_max: \"16mb\" is not a byte size, write a whole number with B, KiB, MiB, GiB, KB, MB or GB, such as \"16MiB\"",
    ),
    case(
        BATCH,
        "ordering = \"strickt\"",
        "config.toml:7:12: outputs.live.ordering: \"strickt\" is not known, write \"key\", \"strict\" or \"none\"",
    ),
    case(
        "",
        "[admin]\nlisten = \"localhost\"\n",
        "config.toml:9:10: admin.listen: \"localhost\" is not an address, write IP:PORT, such as \"127.0.0.1:8081\", or \"off\"",
    ),
    case(
        "name = \"test\"",
        "name = \"My Test\"",
        "config.toml:1:8: name: \"My Test\" is not a name, use 1 to 64 of a-z, 0-9, _ and -",
    ),
    case(
        "[outputs.live]",
        "[outputs.Live]",
        "config.toml:5:1: outputs.Live: \"Live\" is not a name, use 1 to 64 of a-z, 0-9, _ and -",
    ),
    case(
        "\"stdout\"",
        "\"../stdout\"",
        "config.toml:6:10: outputs.live.plugin: \"../stdout\" is not a name, use 1 to 64 of a-z, 0-9, _ and -",
    ),
    case(
        "\"mongodb://",
        "\"http://",
        "config.toml:3:7: source.uri: not a MongoDB address, begin it with mongodb:// or mongodb+srv://",
    ),
    case(
        URI,
        "\"mongodb://127.0.0.1:port/\"",
        "config.toml:3:7: source.uri: not a MongoDB address: invalid server address 127.0.0.1:port: the port must be an integer between 1 and 65535, got port",
    ),
    case(
        URI,
        "\"mongodb://user:p@ss@127.0.0.1/\"",
        "config.toml:3:7: source.uri: not a MongoDB address: password must be URL encoded",
    ),
    case(
        URI,
        "\"mongodb://user:pa?ss@127.0.0.1/\"",
        "config.toml:3:7: source.uri: not a MongoDB address: there is an @ behind the first ?, write ? in a user name or password as %3F and @ in an option as %40",
    ),
    case(
        URI,
        "\"mongodb://127.0.0.1/?authMechanismProperties=s3cret\"",
        "config.toml:3:7: source.uri: not a MongoDB address: its options cannot be read; write authMechanismProperties as name:value, separated by commas",
    ),
    case(
        URI,
        "\"mongodb://${TAILWATER_NO_SUCH}/\"",
        "config.toml:3:7: source.uri: environment variable TAILWATER_NO_SUCH is not set, set it or write \"$${\" for a literal \"${\"",
    ),
    case(
        URI,
        "\"${file:no-such-file}\"",
        "config.toml:3:7: source.uri: read file no-such-file: No such file or directory (os error 2), correct the path or create it",
    ),
    case(
        URI,
        "\"mongodb://${HOST/\"",
        "config.toml:3:7: source.uri: \"${\" without \"}\", write \"$${\" for a literal \"${\"",
    ),
    // Out of range.
    case(BATCH, "concurrency = 0", "config.toml:7:15: outputs.live.concurrency: 0 is out of range, write 1 to 1024"),
    case(BATCH, "ahead_max = -1", "config.toml:7:13: outputs.live.ahead_max: -1 is out of range, write 1 to 10000000"),
    case(
        BATCH,
        "ahead_max = 99999999999999999999999",
        "config.toml:7:13: outputs.live.ahead_max: 99999999999999999999999 is out of range, write 1 to 10000000",
    ),
    case(BATCH, "timeout = \"0s\"", "config.toml:7:11: outputs.live.timeout: \"0s\" is out of range, write 10ms to 1h"),
    case(
        "",
        "[window]\nbytes_max = \"1KiB\"\n",
        "config.toml:9:13: window.bytes_max: \"1KiB\" is out of range, write 64KiB to 64GiB",
    ),
    case(
        "",
        "[checkpoint]\ninterval = \"2h\"\n",
        "config.toml:9:12: checkpoint.interval: \"2h\" is out of range, write 10ms to 10m",
    ),
    // Values that contradict each other.
    case(
        BATCH,
        "batch = { linger = \"30s\" }\ntimeout = \"30s\"",
        "config.toml:5:1: outputs.live: batch.linger is not shorter than timeout, shorten it or lengthen timeout",
    ),
    case(
        BATCH,
        "batch = { events_max = 100 }\nahead_max = 50",
        "config.toml:5:1: outputs.live: batch.events_max is more than ahead_max, write less or raise that",
    ),
    case(
        BATCH,
        "batch = { bytes_max = \"2MiB\" }\nin_flight_bytes_max = \"1MiB\"",
        "config.toml:5:1: outputs.live: batch.bytes_max is more than in_flight_bytes_max, write less or raise that",
    ),
    case(
        BATCH,
        "retry = { backoff_min = \"2s\", backoff_max = \"1s\" }",
        "config.toml:7:9: outputs.live.retry: backoff_max is shorter than backoff_min, write at least as long a time",
    ),
    case(
        BATCH,
        "ordering = \"strict\"\nconcurrency = 4",
        "config.toml:5:1: outputs.live: ordering = \"strict\" has one batch in flight, remove concurrency",
    ),
    case(
        "",
        "[checkpoint]\npath = \"state\"\n",
        "config.toml:9:8: checkpoint.path: is used only with store = \"file\", remove it or set that",
    ),
    case(
        "",
        "[checkpoint]\ninterval = \"10s\"\nidle_interval = \"1s\"\n",
        "config.toml:10:17: checkpoint.idle_interval: is shorter than checkpoint.interval, write at least as long a time",
    ),
    // Namespaces.
    case("\"shop.orders\"", "", "config.toml:4:9: source.watch: empty, write \"db.collection\", \"db.*\" or \"*\""),
    case(
        "\"shop.orders\"",
        "\"orders\"",
        "config.toml:4:10: source.watch[0]: \"orders\" is not a namespace, write \"db.collection\", \"db.*\" or \"*\"",
    ),
    case(
        "\"shop.orders\"",
        "\"tailwater.*\"",
        "config.toml:4:10: source.watch[0]: database \"tailwater\" cannot be watched, remove \"tailwater.*\"",
    ),
    case(
        "\"shop.orders\"",
        "\"admin.users\"",
        "config.toml:4:10: source.watch[0]: database \"admin\" cannot be watched, remove \"admin.users\"",
    ),
    case(
        "\"shop.orders\"",
        "\"shop.*\", \"shop.*\"",
        "config.toml:4:20: source.watch[1]: \"shop.*\" is there twice, remove one",
    ),
    case(
        "\"shop.orders\"",
        "\"*\", \"shop.orders\"",
        "config.toml:4:9: source.watch: \"*\" already contains the others, write it alone",
    ),
    // Where to start.
    case(
        WATCH,
        "watch = [\"*\"]\nstart = \"snapshot\"\npipeline = [{ \"$unset\" = \"fullDocument.secret\" }]",
        "config.toml:5:9: source.start: source.pipeline is not applied to the rows of a snapshot, which would show what it hides; \
         remove one of the two",
    ),
    case(
        WATCH,
        "watch = [\"*\"]\nstart = \"2100-01-01T00:00:00Z\"",
        "config.toml:5:9: source.start: \"2100-01-01T00:00:00Z\" is in the future, write a time that has passed, or \"now\"",
    ),
    case(
        WATCH,
        "watch = [\"*\"]\nstart = \"yesterday\"",
        "config.toml:5:9: source.start: \"yesterday\" is not a start, write \"now\", \"snapshot\", a time such as \"2026-01-31T00:00:00Z\" or an event id",
    ),
    // What need not be delivered, and what cannot be.
    case(
        BATCH,
        "backlog = { keep = \"newest\" }",
        "config.toml:7:20: outputs.live.backlog.keep: \"newest\" is not known, write \"all\" or \"latest_per_key\"",
    ),
    case(
        BATCH,
        "backlog = { max_age = \"never\" }",
        "config.toml:7:23: outputs.live.backlog.max_age: \"never\" is not a duration, write a whole number with ms, s, m, h or d, such as \"500ms\", or \"off\"",
    ),
    case(
        BATCH,
        "backlog = { max_age = 5 }",
        "config.toml:7:23: outputs.live.backlog.max_age: expected a duration such as \"500ms\", found an integer",
    ),
    case(
        BATCH,
        "retry = { give_up_after = \"10ms\" }",
        "config.toml:7:27: outputs.live.retry.give_up_after: \"10ms\" is out of range, write 1s to 365d, or \"off\"",
    ),
    case(
        BATCH,
        "backlog = { keep = \"latest_per_key\" }",
        "config.toml:5:1: outputs.live: backlog.keep = \"latest_per_key\" needs full documents, set source.full_document to \"update_lookup\" or \"when_available\"",
    ),
    case(
        BATCH,
        "backlog = { keep = \"latest_per_key\" }\nordering = \"none\"",
        "config.toml:5:1: outputs.live: backlog.keep = \"latest_per_key\" leaves out events of a document, which needs ordering = \"key\", write that or keep = \"all\"",
    ),
    case(
        BATCH,
        "history_lost = \"ignore\"",
        "config.toml:7:16: outputs.live.history_lost: \"ignore\" is not known, write \"stop\" or \"resume\"",
    ),
    case(
        BATCH,
        "on_reject = \"drop\"",
        "config.toml:7:13: outputs.live.on_reject: \"drop\" is not known, write \"dead_letter\", \"skip\" or \"stop\"",
    ),
    // Stages that would break positions.
    case(
        WATCH,
        "watch = [\"*\"]\npipeline = [{ \"$group\" = { _id = 1 } }]",
        "config.toml:5:13: source.pipeline[0]: stage \"$group\" is not possible in a change stream, use one of $match, $project, $addFields, $set, $unset, $redact",
    ),
    case(
        WATCH,
        "watch = [\"*\"]\npipeline = [{ \"$project\" = { _id = 0 } }]",
        "config.toml:5:13: source.pipeline[0]: stage \"$project\" removes or changes \"_id\", which positions and order need, leave _id, operationType, ns, documentKey alone",
    ),
    case(
        WATCH,
        "watch = [\"*\"]\npipeline = [{ \"$unset\" = \"documentKey\" }]",
        "config.toml:5:13: source.pipeline[0]: stage \"$unset\" removes or changes \"documentKey\", which positions and order need, leave _id, operationType, ns, documentKey alone",
    ),
    case(
        WATCH,
        "watch = [\"*\"]\npipeline = [{ \"$replaceWith\" = \"$fullDocument\" }]",
        "config.toml:5:13: source.pipeline[0]: stage \"$replaceWith\" may remove \"_id\", which positions need, use $project, $set or $unset",
    ),
    // Queries.
    case(
        BATCH,
        "match = { a = { \"$oid\" = \"123\" } }",
        "config.toml:7:15: outputs.live.match.a: is not an Extended JSON value: invalid value: string \"123\", expected 24-character, big-endian hex string",
    ),
    case(
        BATCH,
        "match = { at = 2026-01-31T00:00:00 }",
        "config.toml:7:16: outputs.live.match.at: has no offset, write a time such as 2026-01-31T00:00:00Z",
    ),
];

fn broken(case: &Case) -> String {
    if case.from.is_empty() {
        return format!("{RIGHT}{}", case.to);
    }
    assert!(RIGHT.contains(case.from), "{:?} is not in the right configuration", case.from);
    RIGHT.replacen(case.from, case.to, 1)
}

#[test]
fn the_right_one_is_accepted() {
    Config::parse(RIGHT, "config.toml", &|_| None, SystemTime::now()).expect("right");
}

#[test]
fn each_error_has_its_text() {
    let mut wrong = Vec::new();
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    for case in CASES {
        let text = broken(case);
        let error = Config::parse(&text, "config.toml", &|_| None, now).map(|_| ()).map_err(|error| error.to_string());
        if error.as_ref().err().map(String::as_str) != Some(case.error) {
            wrong.push(format!("{:?}\n  expected {}\n  found    {error:?}", case.to, case.error));
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), CASES.len(), wrong.join("\n"));
}

#[test]
fn the_binary_says_each_in_one_line_and_ends_with_64() {
    let folder = tempfile::tempdir().expect("temporary folder");
    for case in CASES {
        let output = daemon::check(folder.path(), &broken(case));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(64), "{:?}: {said}", case.to);
        assert_eq!(said.lines().count(), 1, "{:?}: {said}", case.to);
        assert!(said.trim_end().ends_with(case.error), "{:?}\n  expected {}\n  found    {said}", case.to, case.error);
    }
}

/// What only a loaded plugin or a compiled query can tell; part of the one line that follows.
const WITH_PLUGINS: &[(&str, &str)] = &[
    ("plugin = \"nosuch\"", "config.toml: outputs.live.plugin: no plugin \"nosuch\" in "),
    (
        "plugin = \"stdout\"\noptions = { pth = \"x\" }",
        "config.toml: outputs.live.options.pth: unknown option, did you mean \"path\"?",
    ),
    (
        "plugin = \"stdout\"\noptions = { path = 5 }",
        "config.toml: outputs.live.options.path: value is not of types \"null\", \"string\"",
    ),
    (
        "plugin = \"stdout\"\noptions = { fsync = \"often\" }",
        "config.toml: outputs.live.options.fsync: value is not valid",
    ),
    (
        "plugin = \"stdout\"\nmatch = { a = { \"$sizes\" = 1 } }",
        "config.toml: outputs.live.match: compile match: unknown operator $sizes on the field a; did you mean $size?",
    ),
    (
        "plugin = \"stdout\"\nmatch = { \"$nro\" = 1 }",
        "config.toml: outputs.live.match: compile match: unknown operator $nro at the top; did you mean $nor?",
    ),
    (
        "plugin = \"stdout\"\nmatch = { \"$expr\" = 1 }",
        "compile match: $expr at the top is evaluated by the server only, put it into source.pipeline",
    ),
    (
        "plugin = \"stdout\"\nmatch = { a = { \"$regex\" = \"(\\n\" } }",
        "compile match: the regular expression \"(\\n\" on the field a is not valid: missing closing parenthesis at byte 2",
    ),
];

#[test]
fn what_a_plugin_or_a_query_refuses_is_one_line_too() {
    let folder = tempfile::tempdir().expect("temporary folder");
    for (output, part) in WITH_PLUGINS {
        let right = RIGHT.replace("plugin = \"stdout\"", output);
        let output = daemon::check(folder.path(), &format!("{right}[plugins]\ndir = {:?}\n", plugins_dir()));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), said.lines().count()), (Some(64), 1), "{right}: {said}");
        assert!(said.contains(part), "expected {part}\nfound    {said}");
    }
}

#[test]
fn the_binary_accepts_the_right_one() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let config = format!("{RIGHT}[plugins]\ndir = {:?}\n", plugins_dir());
    let output = daemon::check(folder.path(), &config);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_missing_file_is_named() {
    let error = Config::load("no-such.toml".as_ref()).expect_err("there is none").to_string();
    assert_eq!(error, "read no-such.toml: No such file or directory (os error 2), pass --config FILE");
}
