//! The window against a plain list of all events, over seeded pushes, filters, restarts and readers; a failure prints its
//! seed.

use bson::{Document, doc};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::event::fixture::{event, event_in, mark_data, token, token_data};
use crate::event::{JsonForm, projection};
use crate::source::token::Timestamp64;

const SEEDS: u64 = 200;
const BYTES_MAX: u64 = 20_000;
const QUERIES: usize = 3;

fn start() -> Place {
    Place::From(Timestamp64(0))
}

fn whole(bytes_max: u64) -> Window {
    Window::new(bytes_max, start(), Coverage::everything())
}

/// What queries ask beside the head is only compared here: which events they let through is the model's own choice, but for the
/// head. The first asks nothing of it, the others want these collections.
fn query(number: usize) -> Document {
    let mut query = doc! { "query": number as i64 };
    match number {
        1 => _ = query.insert("ns.coll", "c1"),
        2 => query.extend(doc! { "operationType": "insert", "ns.coll": { "$in": ["c1", "c2"] } }),
        _ => {}
    }
    query
}

/// Whether the query lets events of this collection through, `c0` to `c3`.
fn suits(number: usize, collection: usize) -> bool {
    match number {
        1 => collection == 1,
        2 => [1, 2].contains(&collection),
        _ => true,
    }
}

fn wanted(number: Option<usize>) -> Wanted {
    Wanted::new(number.map(query))
}

/// The events among what was found.
fn events(found: &VecDeque<Found>) -> usize {
    found.iter().filter(|found| matches!(found, Found::Event(_))).count()
}

/// A filter over some of the queries; `None` = everything.
#[derive(Clone)]
struct Filter(Option<Vec<usize>>);

impl Filter {
    fn random(random: &mut StdRng) -> Filter {
        let some = (0..QUERIES).filter(|_| random.random_bool(0.6)).collect();
        Filter(random.random_bool(0.7).then_some(some))
    }

    fn coverage(&self) -> Coverage {
        self.0.as_ref().map_or_else(Coverage::everything, |some| Coverage::of(some.iter().map(|n| query(*n))))
    }

    fn covers(&self, wanted: Option<usize>) -> bool {
        self.0.as_ref().is_none_or(|some| wanted.is_some_and(|wanted| some.contains(&wanted)))
    }
}

/// One event of the stream, and what became of it.
struct Made {
    event: Arc<Event>,
    /// By query, whether it lets the event through.
    matches: [bool; QUERIES],
    /// It is a stub: nobody but the reader may leave it out.
    poison: bool,
    /// It was pushed: not left out by the filter, nor lost with history.
    pushed: bool,
}

/// A reader, and the index in the list of all events of the first that it does not know of.
struct Reader {
    query: Option<usize>,
    seq: Option<u64>,
    next: usize,
    place: Place,
    /// The window began anew since it joined.
    restarted: bool,
}

impl Reader {
    fn wants(&self, made: &Made) -> bool {
        self.query.is_none_or(|query| made.matches[query])
    }
}

/// The window and everything that ever happened to it.
struct Model {
    window: Window,
    all: Vec<Made>,
    /// The filters, each with the number of events before it.
    filters: Vec<(usize, Filter)>,
    random: StdRng,
    seed: u64,
    /// Events that readers passed over.
    skipped: u64,
}

impl Model {
    fn new(seed: u64) -> Model {
        let filter = Filter(None);
        let floor = Place::After(token(&mark_data(1, 0)));
        Model {
            window: Window::new(BYTES_MAX, floor, filter.coverage()),
            all: Vec::new(),
            filters: vec![(0, filter)],
            random: StdRng::seed_from_u64(seed),
            seed,
            skipped: 0,
        }
    }

    /// A place without an event, behind all there are.
    fn end(&self) -> Place {
        Place::After(token(&mark_data(self.all.len() as u32 + 1, 0)))
    }

    fn make(&mut self, pushed: bool) {
        let (time, random) = (self.all.len() as u32 + 1, &mut self.random);
        let data = token_data(time, 1, random.random_range(0..60));
        let (collection, poison) = (random.random_range(0..4), random.random_bool(0.05));
        let mut event = event_in(&format!("c{collection}"), &data, Some(time as i32), random.random_range(0..3000));
        if poison {
            event = Arc::new(Event::from_poison(event.raw(), "too large".to_owned()).expect("a stub"));
        }
        let matches = std::array::from_fn(|query| suits(query, collection) && random.random_bool(0.6));
        let filter = &self.filters.last().expect("the first").1;
        let pushed = pushed && filter.0.as_ref().is_none_or(|some| some.iter().any(|query| matches[*query]));
        self.all.push(Made { event, matches, poison, pushed });
    }

    fn push(&mut self) {
        let before = self.all.len();
        for _ in 0..self.random.random_range(0..6) {
            self.make(true);
        }
        let batch = self.all[before..].iter().filter(|made| made.pushed).map(|made| Arc::clone(&made.event)).collect();
        self.window.push(batch, self.end());
        assert_eq!(self.window.reached(), self.end());
        // JSON that lanes make later is trimmed with the next push; the source pushes progress every 100 ms.
        let (events, bytes) = self.window.size();
        assert!(events <= 1 || bytes <= BYTES_MAX as usize, "seed {}: {events} events hold {bytes} bytes", self.seed);
    }

    fn refilter(&mut self) {
        let filter = Filter::random(&mut self.random);
        self.window.refilter(filter.coverage());
        self.filters.push((self.all.len(), filter));
    }

    fn restart(&mut self, readers: &mut [Reader]) {
        for _ in 0..self.random.random_range(0..3) {
            self.make(false);
        }
        self.window.restart(self.end());
        assert_eq!((self.window.size(), self.window.reached()), ((0, 0), self.end()), "seed {}", self.seed);
        for reader in readers {
            reader.restarted = true;
        }
    }

    fn read(&mut self, reader: &mut Reader, seq: u64) {
        let seed = self.seed;
        let (limit, bytes) = (self.random.random_range(1..5), self.random.random_range(1..9000));
        let (mut found, all) = (VecDeque::new(), self.random.random_bool(0.1));
        match self.window.read(seq, &wanted(reader.query), all, (limit, bytes), &mut found) {
            Read::Events(next) => {
                assert!(!found.is_empty() && events(&found) <= limit, "seed {seed}");
                assert!(!reader.restarted, "seed {seed}: a reader outlived a restart");
                for found in found {
                    let (Found::Event(last) | Found::Skipped(_, last)) = &found;
                    let before = self.all[reader.next..].iter().take_while(|made| !Arc::ptr_eq(&made.event, last));
                    let before: Vec<_> = before.collect();
                    assert!(!before.iter().any(|made| reader.wants(made)), "seed {seed}: a gap at {}", reader.next);
                    let end = reader.next + before.len() + 1;
                    assert!(end <= self.all.len(), "seed {seed}: an event came twice, or too early");
                    if let Found::Skipped(count, _) = found {
                        let run: Vec<_> = self.all[reader.next..end].iter().filter(|made| made.pushed).collect();
                        let wrong = run.iter().any(|made| reader.wants(made) || made.poison);
                        assert!(!wrong && !all, "seed {seed}: passed over what it may want at {}", reader.next);
                        assert_eq!(count, run.len() as u64, "seed {seed}: passed over at {}", reader.next);
                        self.skipped += count;
                    }
                    reader.next = end;
                    reader.place = Place::After(last.token().clone());
                }
                reader.seq = Some(next);
            }
            Read::CaughtUp(next, reached) => {
                assert!(!reader.restarted, "seed {seed}: a reader outlived a restart");
                let missed = self.all[reader.next..].iter().any(|made| reader.wants(made));
                assert!(!missed, "seed {seed}: caught up too early");
                assert_eq!(reached, self.end());
                (reader.next, reader.seq, reader.place) = (self.all.len(), Some(next), reached);
            }
            Read::FellOff => {
                let pushed = self.all[reader.next..].iter().filter(|made| made.pushed).count();
                let uncovered = |(at, filter): &(usize, Filter)| *at >= reader.next && !filter.covers(reader.query);
                let why = reader.restarted || pushed > self.window.size().0 || self.filters.iter().any(uncovered);
                assert!(why, "seed {seed}: fell off what the window still holds");
                reader.seq = None;
            }
        }
    }

    /// As in catch-up: some events pass outside the window, then the reader tries to come back.
    fn come_back(&mut self, reader: &mut Reader) {
        let left = self.all.len() - reader.next;
        let passed = self.random.random_range(0..=left.min(8));
        reader.next += passed;
        if passed == left {
            reader.place = self.end();
        } else if passed > 0 {
            reader.place = Place::After(self.all[reader.next - 1].event.token().clone());
        }
        reader.seq = self.window.join(&reader.place, &wanted(reader.query), self.random.random_bool(0.5));
        reader.restarted = false;
        let covered = self.filters.last().expect("the first").1.covers(reader.query);
        if passed == left {
            assert_eq!(reader.seq.is_some(), covered, "seed {}: at the end, only the filter decides", self.seed);
        }
        assert!(covered || reader.seq.is_none(), "seed {}: joined what the filter leaves out", self.seed);
    }

    fn step(&mut self, readers: &mut [Reader]) {
        if self.random.random_bool(0.4) {
            self.push();
        }
        if self.random.random_bool(0.2) && !self.all.is_empty() {
            let any = self.random.random_range(0..self.all.len());
            let _ = self.all[any].event.json(JsonForm::Plain).expect("JSON");
        }
        if self.random.random_bool(0.05) {
            self.refilter();
        }
        if self.random.random_bool(0.01) {
            self.restart(readers);
        }
        for reader in readers {
            match reader.seq {
                Some(seq) => self.read(reader, seq),
                None => self.come_back(reader),
            }
        }
    }
}

#[test]
fn readers_see_every_event_once_or_are_told() {
    let (mut joined, mut skipped) = (0, 0);
    for seed in 0..SEEDS {
        let mut model = Model::new(seed);
        let mut readers: Vec<_> = [None, Some(0), Some(1), Some(2)]
            .map(|query| {
                let place = model.end();
                let seq = model.window.join(&place, &wanted(query), false);
                assert!(seq.is_some(), "an empty window serves who starts with it");
                Reader { query, seq, next: 0, place, restarted: false }
            })
            .into();
        for _ in 0..300 {
            model.step(&mut readers);
        }
        joined += readers.iter().filter(|reader| reader.seq.is_some()).count();
        skipped += model.skipped;
    }
    assert!(skipped > 8_000, "only {skipped} events were passed over: the test shows little");
    assert!(joined > SEEDS as usize, "only {joined} readers ended in the window: the test shows little");
}

#[test]
fn a_lane_joins_only_where_all_stretches_cover_it() {
    let (a, b) = (wanted(Some(0)), Wanted::from(doc! { "b": 1 }));
    let of = |readers: &[&Wanted]| Coverage::of(readers.iter().map(|wanted| (*wanted).clone()));
    let at = |time: u32| Place::After(token(&mark_data(time, 0)));
    let one = |time: u32| vec![event(&token_data(time, 1, 0), Some(1), 0)];
    let window = Window::new(1 << 20, at(1), of(&[&a]));
    window.push(one(1), at(2));
    window.refilter(of(&[&a, &b]));
    window.push(one(2), at(3));
    // a was in the filter all the time; b only from 2 on.
    assert_eq!(window.join(&at(1), &a, false), Some(0));
    assert_eq!(window.join(&at(1), &b, false), None, "the first stretch left b out");
    let joined = window.join(&at(2), &b, false).expect("the second one has it");
    let mut found = VecDeque::new();
    assert!(matches!(window.read(joined, &b, false, (10, 10), &mut found), Read::Events(_)));
    assert_eq!(found.len(), 1);
    assert_eq!(window.join(&at(1), &Wanted::everything(), false), None);
    // A filter without b: who reads b reads to its end and not further.
    window.refilter(of(&[&a]));
    assert!(matches!(window.read(joined + 1, &b, false, (10, 10), &mut found), Read::FellOff));
    assert!(matches!(window.read(joined + 1, &a, false, (10, 10), &mut found), Read::CaughtUp(..)));
    assert_eq!(window.join(&at(3), &b, false), None);
}

#[test]
fn two_filters_with_nothing_between_hide_what_the_first_left_out() {
    let (a, b) = (wanted(Some(0)), Wanted::from(doc! { "b": 1 }));
    let of = |wanted: &Wanted| Coverage::of([wanted.clone()]);
    let at = |time: u32| Place::After(token(&mark_data(time, 0)));
    let window = Window::new(1 << 20, at(1), of(&b));
    let reader = window.join(&at(1), &b, false).expect("it begins here");
    window.refilter(of(&a));
    // Something that only b wants passes meanwhile, and is not there.
    window.push(Vec::new(), at(5));
    window.refilter(of(&b));
    assert!(matches!(window.read(reader, &b, false, (10, 10), &mut VecDeque::new()), Read::FellOff));
    assert_eq!(window.join(&at(1), &b, false), None);
    assert!(window.join(&at(5), &b, false).is_some());
}

#[test]
fn stretches_are_bounded() {
    let window = whole(1 << 20);
    for number in 0..10 * STRETCHES_MAX {
        window.refilter(Coverage::of([query(number)]));
        window.push(vec![event(&token_data(number as u32 + 1, 1, 0), Some(1), 0)], start());
    }
    let stretches = window.lock().stretches.len();
    assert_eq!((stretches, window.size().0), (STRETCHES_MAX, STRETCHES_MAX));
    assert!(matches!(window.read(0, &Wanted::everything(), false, (10, 10), &mut VecDeque::new()), Read::FellOff));
}

#[test]
fn a_restart_leaves_nothing_behind() {
    let window = whole(100_000);
    let events: Vec<_> = (1..=3).map(|i| event(&token_data(i, 1, 0), Some(1), 500)).collect();
    window.push(events.clone(), start());
    let end = window
        .join(&Place::After(events[2].token().clone()), &Wanted::everything(), false)
        .expect("nothing is missing");
    let _ = events[0].json(JsonForm::Relaxed).expect("JSON");
    let floor = Place::After(token(&mark_data(9, 0)));
    let mut woken = window.subscribe();
    window.restart(floor.clone());
    assert!(woken.has_changed().expect("the window is there") && *woken.borrow_and_update() > 0);
    let _ = events[1].json(JsonForm::Relaxed).expect("JSON");
    assert_eq!(window.size(), (0, 0), "JSON included, also what is made later");
    for reader in 0..=end {
        assert!(
            matches!(window.read(reader, &Wanted::everything(), false, (10, 10), &mut VecDeque::new()), Read::FellOff),
            "reader at {reader}"
        );
    }
    let again = window.join(&floor, &Wanted::everything(), true).expect("it begins there");
    assert!(
        again > end
            && matches!(
                window.read(again, &Wanted::everything(), false, (1, 1), &mut VecDeque::new()),
                Read::CaughtUp(..)
            )
    );
}

#[test]
fn json_leaves_with_its_event() {
    let window = whole(100_000);
    let events: Vec<_> = (1..=3).map(|i| event(&token_data(i, 1, 0), Some(1), 500)).collect();
    window.push(events.clone(), start());
    let before = window.size().1;
    let json = events[0].json(JsonForm::Relaxed).expect("JSON").len();
    assert_eq!(window.size().1, before + json, "JSON counts");
    window.push(vec![event(&token_data(9, 1, 0), Some(1), 99_000)], start());
    let _ = events[1].json(JsonForm::Relaxed).expect("JSON");
    let (left, bytes) = window.size();
    let last = event(&token_data(9, 1, 0), Some(1), 99_000).bytes();
    assert_eq!((left, bytes), (1, last), "what left takes its JSON along, and adds none later");
}

/// What comes out of projections is held by the event it came out of, and so by the window.
#[test]
fn projections_and_their_json_leave_with_their_event() {
    let window = whole(100_000);
    let projection = projection::fixture("exclude = [\"fullDocument._id\"]");
    let events: Vec<_> = (1..=3).map(|i| event(&token_data(i, 1, 0), Some(1), 500)).collect();
    let before = events[0].projected(&projection).bytes();
    window.push(events.clone(), start());
    let whole: usize = events.iter().map(|event| event.bytes()).sum();
    assert_eq!(window.size().1, whole + before, "made before it came");
    let inside = events[1].projected(&projection);
    let json = inside.json(JsonForm::Relaxed).expect("JSON").len();
    assert_eq!(window.size().1, whole + before + inside.bytes() + json, "made while it is here, once");
    events[1].projected(&projection);
    assert_eq!(window.size().1, whole + before + inside.bytes() + json);
    window.restart(Place::After(token(&mark_data(9, 0))));
    let late = events[2].projected(&projection);
    let _ = (late.json(JsonForm::Plain).expect("JSON"), inside.json(JsonForm::Plain).expect("JSON"));
    assert_eq!(window.size(), (0, 0));
}

#[test]
fn an_event_larger_than_the_window_still_passes() {
    let window = whole(1000);
    let large = event(&token_data(1, 1, 0), Some(1), 50_000);
    window.push(vec![large], start());
    let mut found = VecDeque::new();
    assert!(matches!(window.read(0, &Wanted::everything(), false, (10, 10), &mut found), Read::Events(1)));
    assert_eq!(found.len(), 1);
}

#[test]
fn settling_in_asks_for_the_newer_half() {
    let window = whole(1_000_000);
    let events: Vec<_> = (1..=10).map(|i| event(&token_data(i, 1, 0), Some(1), 90_000)).collect();
    window.push(events.clone(), start());
    assert_eq!(window.join(&start(), &Wanted::everything(), false), Some(0));
    assert_eq!(window.join(&start(), &Wanted::everything(), true), None, "900 KB of a 1 MB window are ahead");
    assert_eq!(
        window.join(&Place::After(events[5].token().clone()), &Wanted::everything(), true),
        Some(6),
        "360 KB are"
    );
}
