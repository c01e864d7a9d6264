//! Random events under random projections, with a marker in every value that must not be told: it is nowhere in what comes out, and
//! everything else is there byte for byte. The expectation is made with the driver's documents, a step at a time, and knows nothing of
//! trees of paths.

use bson::{Array, Bson, Document, doc};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

/// Few names, so that paths meet fields; some are numbers, as fields of documents too.
const NAMES: [&str; 6] = ["a", "b", "c", "dd", "0", "12"];
const ROUNDS: u32 = 6_000;
const MARK: &str = "hidden";

type Names = Vec<&'static str>;

fn path(rng: &mut StdRng) -> Names {
    (0..rng.random_range(1..4)).map(|_| NAMES[rng.random_range(0..4)]).collect()
}

/// What stands at `at`: numbers in it are left out, they are no step.
fn value(rng: &mut StdRng, at: &Names, named: &[Names], level: u32) -> Bson {
    let is_named = named.iter().any(|path| at.starts_with(path));
    match rng.random_range(0..if level < 4 { 8 } else { 5 }) {
        _ if is_named && rng.random_bool(0.7) => Bson::String(MARK.into()),
        0 => Bson::Int32(rng.random_range(0..9)),
        1 => Bson::Null,
        2 => Bson::Boolean(true),
        3 | 4 => Bson::String(if is_named { MARK.into() } else { format!("plain{}", rng.random_range(0..9)) }),
        5 | 6 => Bson::Document(document(rng, at, named, level + 1)),
        _ => Bson::Array((0..rng.random_range(0..4)).map(|_| value(rng, at, named, level + 1)).collect()),
    }
}

fn document(rng: &mut StdRng, at: &Names, named: &[Names], level: u32) -> Document {
    let mut document = Document::new();
    for _ in 0..rng.random_range(0..6) {
        let name = NAMES[rng.random_range(0..NAMES.len())];
        let mut below = at.clone();
        below.extend((!is_number(name)).then_some(name));
        document.insert(name, value(rng, &below, named, level));
    }
    document
}

fn is_number(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_digit())
}

/// Dotted names of changed fields, with a marker where the document would have it.
fn updated(rng: &mut StdRng, named: &[Names]) -> Document {
    let mut updated = Document::new();
    for _ in 0..rng.random_range(0..6) {
        let steps: Names = (0..rng.random_range(1..5)).map(|_| NAMES[rng.random_range(0..NAMES.len())]).collect();
        let at: Names = steps.iter().copied().filter(|name| !is_number(name)).collect();
        updated.insert(steps.join("."), value(rng, &at, named, 2));
    }
    updated
}

fn without(document: &Document, at: &Names, named: &[Names]) -> Document {
    let mut left = Document::new();
    for (name, value) in document {
        let mut below = at.clone();
        below.extend(
            name.split('.')
                .filter(|name| !is_number(name))
                .map(|name| NAMES[NAMES.iter().position(|known| *known == name).expect("known")]),
        );
        // Also a path that ends on the way of a dotted name.
        if !named.iter().any(|path| below.starts_with(path)) {
            left.insert(name, rest(value, &below, named));
        }
    }
    left
}

fn rest(value: &Bson, at: &Names, named: &[Names]) -> Bson {
    match value {
        Bson::Document(document) => Bson::Document(without(document, at, named)),
        Bson::Array(places) => Bson::Array(places.iter().map(|value| rest(value, at, named)).collect::<Array>()),
        value => value.clone(),
    }
}

fn has_mark(bytes: &[u8]) -> bool {
    bytes.windows(MARK.len()).any(|window| window == MARK.as_bytes())
}

/// Paths none of which is inside of another.
fn apart(rng: &mut StdRng) -> Vec<Names> {
    let mut named: Vec<Names> = Vec::new();
    for _ in 0..rng.random_range(1..4) {
        let path = path(rng);
        if !named.iter().any(|other| other.starts_with(&path) || path.starts_with(other)) {
            named.push(path);
        }
    }
    named
}

#[test]
fn what_is_not_to_be_told_is_nowhere_and_the_rest_is_untouched() {
    let seed = rand::random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut hidden, mut told) = (0, 0);
    for _ in 0..ROUNDS {
        let named = apart(&mut rng);
        let top = Names::new();
        let (full, before) = (document(&mut rng, &top, &named, 0), document(&mut rng, &top, &named, 0));
        let (key, updated) = (document(&mut rng, &top, &named, 3), updated(&mut rng, &named));
        let event = event(doc! {
            "documentKey": key.clone(), "fullDocument": full.clone(), "fullDocumentBeforeChange": before.clone(),
            "updateDescription": { "updatedFields": updated.clone() }, "clusterTime": bson::Timestamp { time: 1, increment: 2 },
        });
        let list: Vec<_> = named.iter().map(|path| format!("\"fullDocument.{}\"", path.join("."))).collect();
        let list = list.join(", ");
        hidden += u32::from(has_mark(event.raw().as_bytes()));

        let exclude = projection(&format!("exclude = [{list}]"));
        let left = |document: &Document| without(document, &top, &named);
        let mut expected = doc! {
            "documentKey": left(&key), "fullDocument": left(&full), "fullDocumentBeforeChange": left(&before),
            "updateDescription": { "updatedFields": left(&updated) }, "clusterTime": bson::Timestamp { time: 1, increment: 2 },
        };
        if left(&key).is_empty() && !key.is_empty() {
            expected.remove("documentKey");
        }
        let excluded = event.projected(&exclude);
        assert!(!has_mark(excluded.raw().as_bytes()), "{named:?}: {:?}", event.raw());
        assert_eq!(fields(excluded), expected, "{named:?}: {:?}", event.raw());
        let expected = RawDocumentBuf::try_from(&expected).expect("BSON");
        let bytes = excluded.raw().as_bytes();
        assert!(bytes.ends_with(&expected.as_bytes()[4..]), "byte for byte, {named:?}: {:?}", event.raw());
        told += u32::from(bytes.windows(5).any(|window| window == b"plain"));

        let how = named.iter().map(|path| if path.len() == 2 { "hash" } else { "mask" });
        let said =
            named.iter().zip(how.clone()).map(|(path, how)| format!("\"fullDocument.{}\" = \"{how}\"", path.join(".")));
        let key = if how.clone().any(|how| how == "hash") { KEY } else { "" };
        let redact = projection(&format!("redact = {{ {} }}\n{key}", said.collect::<Vec<_>>().join(", ")));
        let redacted = event.projected(&redact);
        assert!(!has_mark(redacted.raw().as_bytes()), "{named:?}: {:?}", event.raw());
        fields(redacted);

        // Only what is named stays, and none of what is not: the marks are in the part that is named.
        let include = projection(&format!("include = [{list}]"));
        let included = event.projected(&include);
        assert!(!included.raw().as_bytes().windows(5).any(|window| window == b"plain"), "{named:?}: {:?}", event.raw());
        fields(included);
    }
    assert!(
        hidden > ROUNDS / 3 && told > ROUNDS / 3,
        "{hidden} events had something to hide, {told} something to tell"
    );
}

#[test]
fn damage_never_panics_and_never_leaves_as_it_was() {
    let seed = rand::random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let exclude = projection("exclude = [\"fullDocument.a.b\", \"fullDocument.list.b\", \"documentKey\"]");
    let whole = event(everywhere());
    for _ in 0..ROUNDS {
        let mut bytes = whole.raw().as_bytes().to_vec();
        for _ in 0..rng.random_range(1..4) {
            let at = rng.random_range(4..bytes.len());
            bytes[at] = rng.random();
        }
        let Ok(Ok(event)) = RawDocument::from_bytes(&bytes).map(Event::from_raw) else { continue };
        let projected = event.projected(&exclude);
        if projected.poison().is_none() {
            assert!(RawDocument::from_bytes(projected.raw().as_bytes()).is_ok());
            assert!(projected.document_key().is_none());
        } else {
            let known = ["_id", "operationType", "ns"];
            assert!(projected.raw().iter().all(|field| known.contains(&field.expect("whole").0.as_str())));
        }
    }
}
