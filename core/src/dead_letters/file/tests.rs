//! The journal: torn and damaged lines, bounds, expiry, and random histories against a plain model.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use bson::DateTime;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;

use super::journal::Journal;
use super::line;
use crate::dead_letters::record::Record;
use crate::dead_letters::{Chosen, DeadLetterError, Filter, Kind, Letter, LetterKey, Letters};
use crate::event::fixture::{event, token_data};

const DAY: Duration = Duration::from_secs(24 * 3600);
const ROOM: u64 = 1 << 30;

fn at(seconds: i64) -> DateTime {
    DateTime::from_millis(1_800_000_000_000 + seconds * 1_000)
}

fn letter(output: &str, number: u32, padding: usize) -> Letter {
    let event = event(&token_data(1_000 + number, 1, 0), Some(number as i32), padding);
    let reason = format!("reason of {number}");
    Letter { output: output.into(), id: *event.id(), kind: Kind::Rejected, reason, attempts: 1, event }
}

fn record(letter: &Letter) -> Record {
    line::exact(|form| Record::new("default", letter, form))
}

fn key(letter: &Letter) -> LetterKey {
    LetterKey::new(letter.output.clone(), letter.id)
}

struct Fixture {
    folder: TempDir,
    bytes_max: u64,
}

impl Fixture {
    fn new(bytes_max: u64) -> Fixture {
        Fixture { folder: tempfile::tempdir().unwrap(), bytes_max }
    }

    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("default.dead-letters.jsonl")
    }

    fn open(&self, now: DateTime) -> Journal {
        Journal::open(&self.path(), self.bytes_max, DAY, now).unwrap()
    }

    fn append(&self, bytes: &[u8]) {
        use std::io::Write;
        std::fs::File::options().append(true).open(self.path()).unwrap().write_all(bytes).unwrap();
    }
}

fn keys(journal: &Journal) -> Vec<LetterKey> {
    journal.list(&Filter::default()).unwrap().letters.into_iter().map(|summary| summary.key).collect()
}

#[test]
fn what_was_put_is_there_after_a_reopening_once_and_in_stream_order() {
    let fixture = Fixture::new(ROOM);
    let mut journal = fixture.open(at(0));
    let letters: Vec<Letter> = [3, 1, 2].map(|number| letter("live", number, 10)).into();
    journal.put(letters.iter().map(record).collect(), at(0)).unwrap();
    let again = Letter { reason: "worse".into(), attempts: 9, ..letter("live", 1, 10) };
    journal.put(vec![record(&again), record(&letter("hooks", 2, 10))], at(5)).unwrap();
    let live = fixture.open(at(5)).account();
    assert_eq!(live, journal.account());
    let journal = fixture.open(at(5));
    let expected = [key(&letters[1]), key(&letter("hooks", 2, 10)), key(&letters[2]), key(&letters[0])];
    assert_eq!(keys(&journal), expected);
    let stored = journal.get(&expected[0]).unwrap().unwrap();
    assert_eq!((stored.summary.reason.as_str(), stored.summary.attempts), ("worse", 9));
    assert_eq!((stored.summary.buried_at, stored.summary.updated_at), (at(0), at(5)));
    assert_eq!(stored.letter().unwrap().event.raw().as_bytes(), letters[1].event.raw().as_bytes());
    assert_eq!(journal.account().letters, BTreeMap::from([("hooks".into(), 1), ("live".into(), 3)]));
    assert!(journal.get(&key(&letter("hooks", 1, 10))).unwrap().is_none());
}

#[test]
fn a_torn_last_line_is_cut_and_the_next_letter_is_whole() {
    let fixture = Fixture::new(ROOM);
    fixture.open(at(0)).put(vec![record(&letter("live", 1, 10))], at(0)).unwrap();
    let whole = std::fs::read(fixture.path()).unwrap();
    let torn = line::write(&record(&letter("live", 2, 10)).document, at(0), at(0)).unwrap();
    // Also the whole line but for its end: it was never durable, and nobody was told that it is.
    for length in [1, 2, torn.len() / 2, torn.len() - 1] {
        fixture.append(&torn[..length]);
        let mut journal = fixture.open(at(0));
        assert_eq!(keys(&journal), [key(&letter("live", 1, 10))], "{length}");
        assert_eq!(std::fs::read(fixture.path()).unwrap(), whole, "{length}");
        journal.put(vec![record(&letter("live", 3, 10))], at(0)).unwrap();
        let mut journal = fixture.open(at(0));
        assert_eq!(keys(&journal).len(), 2, "{length}");
        journal.remove(&[key(&letter("live", 3, 10))]).unwrap();
        std::fs::write(fixture.path(), &whole).unwrap();
    }
}

#[test]
fn nothing_is_acknowledged_in_a_file_whose_name_is_not_on_the_disk() {
    let fixture = Fixture::new(ROOM);
    let mut journal = fixture.open(at(0));
    journal.unname();
    // The folder cannot be synced where it is not.
    let (folder, elsewhere) = (fixture.folder.path(), fixture.folder.path().with_extension("elsewhere"));
    std::fs::rename(folder, &elsewhere).unwrap();
    for _ in 0..2 {
        let error = journal.put(vec![record(&letter("live", 1, 10))], at(0)).unwrap_err().to_string();
        assert!(error.starts_with("sync "), "{error}");
    }
    assert_eq!(journal.account().bytes, 0);
    std::fs::rename(&elsewhere, folder).unwrap();
    journal.put(vec![record(&letter("live", 1, 10))], at(0)).unwrap();
    assert_eq!(keys(&fixture.open(at(0))).len(), 1);
}

#[test]
fn a_damaged_line_is_set_aside_and_the_others_stay() {
    let fixture = Fixture::new(ROOM);
    fixture.open(at(0)).put(vec![record(&letter("live", 1, 10))], at(0)).unwrap();
    fixture.append(b"\0\0\0\0\n{\"removed\":\"nothing\"}\n");
    let mut journal = fixture.open(at(0));
    journal.put(vec![record(&letter("live", 2, 10))], at(0)).unwrap();
    let expected = [key(&letter("live", 1, 10)), key(&letter("live", 2, 10))];
    assert_eq!(keys(&journal), expected);
    assert_eq!(keys(&fixture.open(at(0))), expected);
    let aside = std::fs::read(fixture.path().with_extension("damaged")).unwrap();
    assert_eq!(aside, b"\0\0\0\0\n{\"removed\":\"nothing\"}\n");
}

#[test]
fn full_writes_nothing_and_what_is_there_can_still_be_overwritten() {
    let fixture = Fixture::new(10_000);
    let mut journal = fixture.open(at(0));
    journal.put(vec![record(&letter("live", 1, 6_000))], at(0)).unwrap();
    let before = (std::fs::read(fixture.path()).unwrap(), journal.account());
    let two = vec![record(&letter("live", 2, 10)), record(&letter("live", 3, 6_000))];
    let error = journal.put(two, at(0)).unwrap_err();
    let DeadLetterError::Full { used, bytes, bytes_max } = error else { panic!("{error}") };
    assert!(used == before.1.bytes && bytes > 6_000 && bytes_max == 10_000);
    assert_eq!((std::fs::read(fixture.path()).unwrap(), journal.account()), before);
    for _ in 0..5 {
        journal.put(vec![record(&letter("live", 1, 6_000))], at(1)).unwrap();
    }
    journal.put(vec![record(&letter("live", 1, 12_000))], at(1)).unwrap();
    journal.put(vec![record(&letter("live", 4, 10))], at(1)).unwrap_err();
    assert_eq!(journal.remove(&[key(&letter("live", 1, 0))]).unwrap(), 1);
    journal.put(vec![record(&letter("live", 4, 10))], at(1)).unwrap();
    // The same bound after a restart.
    drop(journal);
    fixture.open(at(1)).put(vec![record(&letter("live", 5, 12_000))], at(1)).unwrap_err();
}

#[test]
fn letters_expire_after_they_were_last_written() {
    let fixture = Fixture::new(ROOM);
    let day = 24 * 3600;
    let mut journal = fixture.open(at(0));
    journal.put([1, 2, 3].map(|number| record(&letter("live", number, 10))).into(), at(0)).unwrap();
    assert!(journal.update(&key(&letter("live", 2, 10)), "again", 7, at(day / 2)).unwrap());
    journal.prune(at(day - 1)).unwrap();
    assert_eq!(keys(&journal).len(), 3);
    journal.prune(at(day)).unwrap();
    assert_eq!(keys(&journal), [key(&letter("live", 2, 10))]);
    let stored = journal.get(&key(&letter("live", 2, 10))).unwrap().unwrap();
    assert_eq!((stored.summary.reason.as_str(), stored.summary.attempts), ("again", 7));
    assert_eq!((stored.summary.buried_at, stored.summary.updated_at), (at(0), at(day / 2)));
    // They do not come back for who waits longer, and an opening removes what has expired too.
    let longer = Journal::open(&fixture.path(), ROOM, 10 * DAY, at(day)).unwrap();
    assert_eq!(keys(&longer).len(), 1);
    drop(longer);
    assert_eq!(fixture.open(at(day + day / 2)).account().letters, BTreeMap::from([("live".into(), 0)]));
}

#[test]
fn a_crash_while_the_file_is_written_anew_loses_nothing() {
    let fixture = Fixture::new(ROOM);
    let mut journal = fixture.open(at(0));
    journal.put([1, 2, 3].map(|number| record(&letter("live", number, 400_000))).into(), at(0)).unwrap();
    // A new file that is not in place yet counts for nothing, whatever is in it.
    std::fs::write(fixture.path().with_extension("jsonl.new"), vec![b'x'; 10_000]).unwrap();
    drop(journal);
    let mut journal = fixture.open(at(0));
    assert_eq!(keys(&journal).len(), 3);
    let long = std::fs::metadata(fixture.path()).unwrap().len();
    // Now there is more to leave out than to keep: the file is written anew.
    journal.remove(&[1, 2].map(|number| key(&letter("live", number, 0)))).unwrap();
    journal.put(vec![record(&letter("live", 3, 400_000))], at(0)).unwrap();
    journal.put(vec![record(&letter("live", 3, 400_000))], at(0)).unwrap();
    assert!(std::fs::metadata(fixture.path()).unwrap().len() < long / 2);
    assert_eq!(keys(&journal), [key(&letter("live", 3, 0))]);
    journal.put(vec![record(&letter("live", 4, 10))], at(0)).unwrap();
    let again = fixture.open(at(0));
    assert_eq!((keys(&again).len(), again.account()), (2, journal.account()));
}

#[test]
fn letters_are_loaded_in_bounded_pages() {
    let fixture = Fixture::new(ROOM);
    let mut journal = fixture.open(at(0));
    for output in ["live", "hooks"] {
        journal.put((1..=9).map(|number| record(&letter(output, number, 1_000))).collect(), at(0)).unwrap();
    }
    let pages = |letters: &Letters, limit, bytes_max| {
        let (mut pages, mut after) = (Vec::new(), None);
        loop {
            let page = journal.load("live", letters, after, limit, bytes_max).unwrap();
            let Some(last) = page.last() else { return pages };
            after = Some(last.summary.key.id);
            pages.push(
                page.iter()
                    .map(|stored| {
                        stored
                            .letter()
                            .unwrap()
                            .event
                            .raw()
                            .get_document("documentKey")
                            .unwrap()
                            .get_i32("_id")
                            .unwrap()
                    })
                    .collect::<Vec<_>>(),
            );
        }
    };
    assert_eq!(pages(&Letters::All, 4, ROOM), [vec![1, 2, 3, 4], vec![5, 6, 7, 8], vec![9]]);
    assert_eq!(pages(&Letters::All, 4, 1), [1, 2, 3, 4, 5, 6, 7, 8, 9].map(|number| vec![number]));
    let some = Letters::Of([8, 2].map(|number| letter("live", number, 0).id).into());
    assert_eq!(pages(&some, 4, ROOM), [[2, 8]]);
    assert!(pages(&Letters::All, 0, ROOM).is_empty());
}

/// What a journal should be.
#[derive(Default)]
struct Model {
    letters: BTreeMap<LetterKey, (String, u32, DateTime, usize)>,
}

fn check(journal: &Journal, model: &Model, seed: u64, events: bool) {
    let all = journal.list(&Filter { limit: 1_000, ..Filter::default() }).unwrap();
    assert!(!all.more);
    let found: Vec<_> =
        all.letters.iter().map(|s| (s.key.clone(), s.reason.clone(), s.attempts, s.updated_at)).collect();
    let expected: Vec<_> = model
        .letters
        .iter()
        .map(|(key, (reason, attempts, at, _))| (key.clone(), reason.clone(), *attempts, *at))
        .collect();
    assert_eq!(found, expected, "seed {seed}");
    let account = journal.account();
    assert_eq!(account.bytes, all.letters.iter().map(|summary| summary.bytes).sum::<u64>(), "seed {seed}");
    for (output, letters) in &account.letters {
        let expected = model.letters.keys().filter(|key| key.output == *output).count() as u64;
        assert_eq!(*letters, expected, "seed {seed}: {output}");
    }
    if !events {
        return;
    }
    for output in ["a", "b"] {
        let loaded = journal.load(output, &Letters::All, None, 1_000, ROOM).unwrap();
        for stored in &loaded {
            let padding = model.letters[&stored.summary.key].3;
            let letter = stored.letter().unwrap();
            let text = letter.event.full_document().unwrap().get_str("padding").unwrap().len();
            assert_eq!(text, padding, "seed {seed}");
        }
        assert_eq!(loaded.len() as u64, account.letters.get(output).copied().unwrap_or(0), "seed {seed}");
    }
}

/// Everything at random, and a reopening with a torn end at any moment.
#[test]
fn random_histories_agree_with_a_plain_model() {
    let seeds = std::env::var("TAILWATER_SEED").map_or(0..20, |seed| {
        let seed = seed.parse().unwrap();
        seed..seed + 1
    });
    for seed in seeds {
        run(seed);
    }
}

fn run(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let bytes_max = if random.random_bool(0.5) { ROOM } else { 200_000 };
    let fixture = Fixture::new(bytes_max);
    let (mut now, mut model, mut journal) = (0, Model::default(), fixture.open(at(0)));
    let pick = |random: &mut StdRng| (if random.random_bool(0.5) { "a" } else { "b" }, random.random_range(0..30_u32));
    for step in 0..60 {
        now += random.random_range(0..7_200);
        match random.random_range(0..10) {
            0..5 => {
                let mut letters = Vec::new();
                for _ in 0..random.random_range(1..4) {
                    let (output, number) = pick(&mut random);
                    let padding = random.random_range(0..60_000);
                    let (reason, attempts) = (format!("at {now}"), random.random());
                    letters.push((Letter { reason, attempts, ..letter(output, number, padding) }, padding));
                }
                let before = journal.account();
                match journal.put(letters.iter().map(|(letter, _)| record(letter)).collect(), at(now)) {
                    Ok(()) => {
                        for (letter, padding) in letters {
                            let value = (letter.reason.clone(), letter.attempts, at(now), padding);
                            model.letters.insert(key(&letter), value);
                        }
                    }
                    Err(DeadLetterError::Full { .. }) => assert_eq!(journal.account(), before, "seed {seed}"),
                    Err(error) => panic!("seed {seed}: {error}"),
                }
            }
            5 => {
                let keys: Vec<LetterKey> = (0..random.random_range(1..8))
                    .map(|_| pick(&mut random))
                    .map(|(output, number)| key(&letter(output, number, 0)))
                    .collect();
                let expected = keys.iter().filter(|key| model.letters.remove(key).is_some()).count() as u64;
                assert_eq!(journal.remove(&keys).unwrap(), expected, "seed {seed}");
            }
            6 => {
                let (output, number) = pick(&mut random);
                let key = key(&letter(output, number, 0));
                let known = model.letters.get_mut(&key);
                assert_eq!(journal.update(&key, "again", 5, at(now)).unwrap(), known.is_some(), "seed {seed}");
                if let Some(known) = known {
                    (known.0, known.1, known.2) = ("again".into(), 5, at(now));
                }
            }
            7 if random.random_bool(0.2) => {
                let chosen = Chosen { outputs: ["a".into()].into(), ..Chosen::default() };
                let before = model.letters.len();
                assert_eq!(journal.count(&chosen).letters, journal.drop_chosen(&chosen).unwrap(), "seed {seed}");
                model.letters.retain(|key, _| key.output != "a");
                assert!(model.letters.len() <= before);
            }
            7 | 8 => {
                drop(journal);
                if random.random_bool(0.5) {
                    let torn = line::write(&record(&letter("a", 99, 50)).document, at(now), at(now)).unwrap();
                    fixture.append(&torn[..random.random_range(1..torn.len())]);
                }
                journal = fixture.open(at(now));
                expire(&mut model, now);
            }
            _ => {
                journal.prune(at(now)).unwrap();
                expire(&mut model, now);
            }
        }
        check(&journal, &model, seed, step % 8 == 7);
        // Live lines and, at most, as much again, or what is not worth the writing.
        let bytes = std::fs::metadata(Path::new(&fixture.path())).unwrap().len();
        assert!(bytes <= 2 * journal.account().bytes.max(1 << 20), "seed {seed}: {bytes}");
    }
}

fn expire(model: &mut Model, now: i64) {
    let limit = at(now).timestamp_millis() - DAY.as_millis() as i64;
    model.letters.retain(|_, (_, _, updated, _)| updated.timestamp_millis() > limit);
}
