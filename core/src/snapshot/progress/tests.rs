//! Progress through the form in which it is stored: what comes back, what is merged, and how large it can become.

use bson::spec::BinarySubtype;
use bson::{Binary, Bson, Decimal128, RawDocumentBuf, doc};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::snapshot::range::between;

fn id(value: impl Into<Bson>) -> RowId {
    let document = RawDocumentBuf::try_from(&doc! { "_id": value.into() }).expect("can be encoded");
    RowId::of(&document).expect("an id")
}

fn ns(coll: &str) -> Namespace {
    Namespace { db: "shop".to_owned(), coll: coll.to_owned() }
}

/// Three ranges of `a`, one of `b`.
fn progress() -> Progress {
    let mut ranges = between(0, vec![id(10), id("x")]);
    ranges.extend(between(1, Vec::new()));
    Progress::new(Timestamp64(7 << 32 | 1), false, vec![ns("a"), ns("b")], ranges, 40)
}

fn again(progress: &Progress) -> Progress {
    Progress::from_document(&progress.to_document()).expect("readable")
}

/// Collection, lower bound and whether it is exclusive, upper bound: what is still to be read.
fn open(progress: &Progress) -> Vec<(String, Option<RowId>, bool, Option<RowId>)> {
    let ranges = progress.open_ranges();
    ranges
        .map(|(_, ns, range)| {
            let lower = range.after.clone().or(range.from.clone());
            (ns.to_string(), lower, range.after.is_some(), range.until.clone())
        })
        .collect()
}

#[test]
fn what_is_settled_comes_back() {
    let mut progress = progress();
    assert_eq!((progress.is_done(), again(&progress)), (false, progress.clone()));
    progress.settled(RangeNumber(1), id(11), 3);
    progress.settled(RangeNumber(1), id(12.5), 1);
    progress.finished(RangeNumber(0));
    let version = progress.version();
    let stored = again(&progress);
    let a = || "shop.a".to_owned();
    let expected = vec![
        (a(), Some(id(12.5)), true, Some(id("x"))),
        (a(), Some(id("x")), false, None),
        ("shop.b".to_owned(), None, false, None),
    ];
    assert_eq!((open(&progress), open(&stored)), (expected.clone(), expected));
    assert_eq!((stored.rows_settled(), stored.total()), (4, 40));
    assert_eq!((stored.time(), stored.is_sharded()), (progress.time(), false));
    // What is done says nothing more; the numbers there may be others now.
    progress.settled(RangeNumber(0), id(3), 0);
    assert!(progress.version() > version && open(&progress) == open(&stored));
    for number in 1..4 {
        assert!(!progress.is_done());
        progress.finished(RangeNumber(number));
        progress.finished(RangeNumber(number));
    }
    assert!(progress.is_done() && again(&progress).is_done());
    assert_eq!(
        progress.to_document().get_array("collections").map(Vec::len).ok(),
        Some(0),
        "done ranges leave nothing"
    );
}

#[test]
fn an_id_of_every_type_comes_back_in_its_own_bytes() {
    let values = [
        Bson::MinKey,
        Bson::Null,
        Bson::Double(f64::NAN),
        Bson::Decimal128("1.00".parse::<Decimal128>().expect("a decimal")),
        Bson::Int64(1),
        Bson::Symbol("s".to_owned()),
        Bson::Undefined,
        Bson::Document(doc! { "a.b": { "x": 1 } }),
        Bson::Binary(Binary { subtype: BinarySubtype::Uuid, bytes: vec![1; 16] }),
        Bson::JavaScriptCode("f".to_owned()),
        Bson::MaxKey,
    ];
    for value in values {
        let mut progress = progress();
        progress.settled(RangeNumber(3), id(value.clone()), 1);
        let json = serde_json::to_value(Bson::from(progress.to_document()).into_canonical_extjson()).expect("JSON");
        let through_json = Document::try_from(json.as_object().expect("an object").clone()).expect("BSON");
        assert_eq!(open(&Progress::from_document(&through_json).expect("readable")), open(&progress), "{value}");
    }
}

/// Whatever is settled in whatever order, what is stored begins no range later than it may.
#[test]
fn a_range_never_begins_behind_what_is_settled() {
    for seed in 0..500 {
        let random = &mut StdRng::seed_from_u64(seed);
        let mut progress = progress();
        let mut settled = [0i64; 4];
        let mut done = [false; 4];
        for _ in 0..60 {
            let range = random.random_range(0..4usize);
            match random.random_range(0..12) {
                0 => {
                    progress.finished(RangeNumber(range as u32));
                    done[range] = true;
                }
                1 => {
                    // Too long to be stored.
                    let long = Bson::from(doc! { "n": settled[range] + 1, "pad": "x".repeat(AFTER_BYTES_MAX) });
                    progress.settled(RangeNumber(range as u32), id(long), 1);
                }
                _ => {
                    settled[range] += 1;
                    progress.settled(RangeNumber(range as u32), id(settled[range]), 1);
                }
            }
            let stored = again(&progress);
            let open: Vec<usize> = (0..4).filter(|range| !done[*range]).collect();
            assert_eq!(stored.open_ranges().count(), open.len(), "seed {seed}");
            for ((_, _, range), number) in stored.open_ranges().zip(open) {
                let expected = (settled[number] > 0).then(|| id(settled[number]));
                assert_eq!(range.after, expected, "seed {seed}: range {number}");
            }
        }
    }
}

#[test]
fn the_stored_form_is_bounded() {
    let name = |n: usize| Namespace { db: "d".repeat(63), coll: format!("{n:0>190}") };
    let collections: Vec<_> = (0..COLLECTIONS_MAX).map(name).collect();
    let cut = |n: usize| id(format!("{n:0>1000}"));
    let mut ranges: Vec<Range> = between(0, (0..CUTS_BYTES_MAX / 1020).map(cut).collect());
    ranges.extend((1..COLLECTIONS_MAX).map(|collection| Range::new(collection, None, None)));
    let mut progress = Progress::new(Timestamp64(1), false, collections, ranges, 1);
    let numbers: Vec<_> = progress.open_ranges().map(|(number, _, _)| number).collect();
    // Again and again, because what was stored once is the lower bound of the next time.
    for round in 0..3 {
        for number in &numbers {
            progress.settled(*number, id(format!("{round}{}", "x".repeat(60_000))), 1);
        }
        let bytes = RawDocumentBuf::try_from(&progress.to_document()).expect("can be encoded").as_bytes().len();
        assert!(bytes < 8 << 20, "{bytes} bytes");
        progress = again(&progress);
        assert_eq!(progress.open_ranges().count(), numbers.len());
    }
}

#[test]
fn what_is_no_progress_is_an_error() {
    let check = |change: &dyn Fn(&mut Document), expected: &str| {
        let mut stored = progress().to_document();
        change(&mut stored);
        let error = Progress::from_document(&stored).expect_err(expected).to_string();
        assert!(error.contains(expected) && error.contains("tailwater snapshot"), "{error}");
    };
    check(&|stored| drop(stored.remove("time")), "\"time\". Kind: An error");
    check(&|stored| drop(stored.insert("collections", 1)), "\"collections\". Kind: An error");
    check(&|stored| drop(stored.insert("collections", vec![1])), "a collection is no document");
    let bound = |bound: Bson| doc! { "db": "a", "coll": "b", "ranges": [{ "after": bound }] };
    check(&|stored| drop(stored.insert("collections", vec![bound(Bson::Int32(1))])), "a bound is not binary");
    let empty = Binary { subtype: BinarySubtype::Generic, bytes: Vec::new() };
    check(&|stored| drop(stored.insert("collections", vec![bound(empty.clone().into())])), "a bound holds no _id");
}
