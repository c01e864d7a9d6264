//! The window against a plain list of all events, over seeded pushes, filters, restarts and readers; a failure prints its
//! seed.

use bson::doc;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::event::JsonForm;
use crate::event::fixture::{event, mark_data, token, token_data};
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

/// Queries are only compared here: which events they let through is the model's own choice.
fn query(number: usize) -> Document {
    doc! { "query": number as i64 }
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
        self.0.as_ref().map_or_else(Coverage::everything, |some| Coverage::of(some.iter().map(|n| Some(query(*n)))))
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
        }
    }

    /// A place without an event, behind all there are.
    fn end(&self) -> Place {
        Place::After(token(&mark_data(self.all.len() as u32 + 1, 0)))
    }

    fn make(&mut self, pushed: bool) {
        let (time, random) = (self.all.len() as u32 + 1, &mut self.random);
        let data = token_data(time, 1, random.random_range(0..60));
        let event = event(&data, Some(time as i32), random.random_range(0..3000));
        let matches = std::array::from_fn(|_| random.random_bool(0.4));
        let filter = &self.filters.last().expect("the first").1;
        let pushed = pushed && filter.0.as_ref().is_none_or(|some| some.iter().any(|query| matches[*query]));
        self.all.push(Made { event, matches, pushed });
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
        let mut found = VecDeque::new();
        let wanted = reader.query.map(query);
        match self.window.read(seq, wanted.as_ref(), limit, bytes, &mut found) {
            Read::Events(next) => {
                assert!(!found.is_empty() && found.len() <= limit, "seed {seed}");
                assert!(!reader.restarted, "seed {seed}: a reader outlived a restart");
                for event in found {
                    let skipped = self.all[reader.next..].iter().take_while(|made| !Arc::ptr_eq(&made.event, &event));
                    let skipped: Vec<_> = skipped.collect();
                    assert!(!skipped.iter().any(|made| reader.wants(made)), "seed {seed}: a gap at {}", reader.next);
                    reader.next += skipped.len() + 1;
                    assert!(reader.next <= self.all.len(), "seed {seed}: an event came twice, or too early");
                    reader.place = Place::After(event.token().clone());
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
        let wanted = reader.query.map(query);
        reader.seq = self.window.join(&reader.place, wanted.as_ref(), self.random.random_bool(0.5));
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
    let mut joined = 0;
    for seed in 0..SEEDS {
        let mut model = Model::new(seed);
        let mut readers: Vec<_> = [None, Some(0), Some(1), Some(2)]
            .map(|wanted| {
                let place = model.end();
                let seq = model.window.join(&place, wanted.map(query).as_ref(), false);
                assert!(seq.is_some(), "an empty window serves who starts with it");
                Reader { query: wanted, seq, next: 0, place, restarted: false }
            })
            .into();
        for _ in 0..300 {
            model.step(&mut readers);
        }
        joined += readers.iter().filter(|reader| reader.seq.is_some()).count();
    }
    assert!(joined > SEEDS as usize, "only {joined} readers ended in the window: the test shows little");
}

#[test]
fn a_lane_joins_only_where_all_stretches_cover_it() {
    let (a, b) = (query(0), query(1));
    let of = |queries: &[&Document]| Coverage::of(queries.iter().map(|query| Some((*query).clone())));
    let at = |time: u32| Place::After(token(&mark_data(time, 0)));
    let one = |time: u32| vec![event(&token_data(time, 1, 0), Some(1), 0)];
    let window = Window::new(1 << 20, at(1), of(&[&a]));
    window.push(one(1), at(2));
    window.refilter(of(&[&a, &b]));
    window.push(one(2), at(3));
    // a was in the filter all the time; b only from 2 on.
    assert_eq!(window.join(&at(1), Some(&a), false), Some(0));
    assert_eq!(window.join(&at(1), Some(&b), false), None, "the first stretch left b out");
    let joined = window.join(&at(2), Some(&b), false).expect("the second one has it");
    let mut found = VecDeque::new();
    assert!(matches!(window.read(joined, Some(&b), 10, 10, &mut found), Read::Events(_)));
    assert_eq!(found.len(), 1);
    assert_eq!(window.join(&at(1), None, false), None);
    // A filter without b: who reads b reads to its end and not further.
    window.refilter(of(&[&a]));
    assert!(matches!(window.read(joined + 1, Some(&b), 10, 10, &mut found), Read::FellOff));
    assert!(matches!(window.read(joined + 1, Some(&a), 10, 10, &mut found), Read::CaughtUp(..)));
    assert_eq!(window.join(&at(3), Some(&b), false), None);
}

#[test]
fn two_filters_with_nothing_between_hide_what_the_first_left_out() {
    let (a, b) = (query(0), query(1));
    let of = |query: &Document| Coverage::of([Some(query.clone())]);
    let at = |time: u32| Place::After(token(&mark_data(time, 0)));
    let window = Window::new(1 << 20, at(1), of(&b));
    let reader = window.join(&at(1), Some(&b), false).expect("it begins here");
    window.refilter(of(&a));
    // Something that only b wants passes meanwhile, and is not there.
    window.push(Vec::new(), at(5));
    window.refilter(of(&b));
    assert!(matches!(window.read(reader, Some(&b), 10, 10, &mut VecDeque::new()), Read::FellOff));
    assert_eq!(window.join(&at(1), Some(&b), false), None);
    assert!(window.join(&at(5), Some(&b), false).is_some());
}

#[test]
fn stretches_are_bounded() {
    let window = whole(1 << 20);
    for number in 0..10 * STRETCHES_MAX {
        window.refilter(Coverage::of([Some(query(number))]));
        window.push(vec![event(&token_data(number as u32 + 1, 1, 0), Some(1), 0)], start());
    }
    let stretches = window.lock().stretches.len();
    assert_eq!((stretches, window.size().0), (STRETCHES_MAX, STRETCHES_MAX));
    assert!(matches!(window.read(0, None, 10, 10, &mut VecDeque::new()), Read::FellOff));
}

#[test]
fn a_restart_leaves_nothing_behind() {
    let window = whole(100_000);
    let events: Vec<_> = (1..=3).map(|i| event(&token_data(i, 1, 0), Some(1), 500)).collect();
    window.push(events.clone(), start());
    let end = window.join(&Place::After(events[2].token().clone()), None, false).expect("nothing is missing");
    let _ = events[0].json(JsonForm::Relaxed).expect("JSON");
    let floor = Place::After(token(&mark_data(9, 0)));
    let mut woken = window.subscribe();
    window.restart(floor.clone());
    assert!(woken.has_changed().expect("the window is there") && *woken.borrow_and_update() > 0);
    let _ = events[1].json(JsonForm::Relaxed).expect("JSON");
    assert_eq!(window.size(), (0, 0), "JSON included, also what is made later");
    for reader in 0..=end {
        assert!(matches!(window.read(reader, None, 10, 10, &mut VecDeque::new()), Read::FellOff), "reader at {reader}");
    }
    let again = window.join(&floor, None, true).expect("it begins there");
    assert!(again > end && matches!(window.read(again, None, 1, 1, &mut VecDeque::new()), Read::CaughtUp(..)));
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

#[test]
fn an_event_larger_than_the_window_still_passes() {
    let window = whole(1000);
    let large = event(&token_data(1, 1, 0), Some(1), 50_000);
    window.push(vec![large], start());
    let mut found = VecDeque::new();
    assert!(matches!(window.read(0, None, 10, 10, &mut found), Read::Events(1)));
    assert_eq!(found.len(), 1);
}

#[test]
fn settling_in_asks_for_the_newer_half() {
    let window = whole(1_000_000);
    let events: Vec<_> = (1..=10).map(|i| event(&token_data(i, 1, 0), Some(1), 90_000)).collect();
    window.push(events.clone(), start());
    assert_eq!(window.join(&start(), None, false), Some(0));
    assert_eq!(window.join(&start(), None, true), None, "900 KB of a 1 MB window are ahead");
    assert_eq!(window.join(&Place::After(events[5].token().clone()), None, true), Some(6), "360 KB are");
}
