//! Catch-up over a written stream, with paused time: who waits, who shares, who is let go. What change streams themselves do is
//! shown by the integration tests.

pub(crate) mod script;

use std::sync::atomic::Ordering;

use bson::Document;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinHandle;

use self::script::{Script, behind, matches, number, query};
use super::*;
use crate::lane::intake::{Intake, Next};
use crate::window::{Coverage, Window};

/// Of paused time: longer than anything here takes.
const NEVER: Duration = Duration::from_secs(100_000);

fn pool(script: Script, streams_max: u32) -> (Arc<CatchUps>, Arc<Script>) {
    let script = Arc::new(script);
    (CatchUps::of(Feeds::Scripted(Arc::clone(&script)), streams_max, CatchUpMetrics::default()), script)
}

type LaneTask = JoinHandle<Result<(), SourceError>>;

/// A lane: what it wants, how long it takes over a piece, and what it has got.
struct Lane {
    catch_ups: Arc<CatchUps>,
    query: Option<Document>,
    pace: Duration,
    place: usize,
    got: Arc<Mutex<Vec<usize>>>,
}

impl Lane {
    fn new(catch_ups: &Arc<CatchUps>, place: usize, query: Option<Document>) -> Lane {
        Lane { catch_ups: Arc::clone(catch_ups), query, pace: Duration::ZERO, place, got: Arc::default() }
    }

    /// Reads until it has come to `end`, as a lane does: asks again where it is whenever its stream is given back.
    async fn run(mut self, end: usize) -> Result<(), SourceError> {
        while self.place < end {
            let mut stream = self.catch_ups.request(behind(self.place), self.query.clone());
            while let Some(batch) = stream.next().await {
                let batch = batch?;
                for event in batch.events {
                    let number = number(&event);
                    assert!(number > self.place, "{number} comes to a lane that is at {}", self.place);
                    self.place = number;
                    if self.query.as_ref().is_none_or(|query| matches(query, number)) {
                        self.got.lock().expect("got").push(number);
                    }
                }
                self.place = self.place.max(batch.reached.time().seconds() as usize);
                if self.place >= end {
                    break;
                }
                if !self.pace.is_zero() {
                    tokio::time::sleep(self.pace).await;
                }
            }
        }
        Ok(())
    }

    fn spawn(self, end: usize) -> (LaneTask, Arc<Mutex<Vec<usize>>>) {
        let got = Arc::clone(&self.got);
        (tokio::spawn(self.run(end)), got)
    }
}

/// Waits for a lane; panics when it never ends.
async fn ended(lane: LaneTask) -> Result<(), SourceError> {
    tokio::time::timeout(NEVER, lane).await.expect("a lane that ends").expect("a lane")
}

fn expected(query: Option<&Document>, from: usize, end: usize) -> Vec<usize> {
    (from + 1..=end).filter(|number| query.is_none_or(|query| matches(query, *number))).collect()
}

#[tokio::test(start_paused = true)]
async fn lanes_at_one_place_share_one_stream() {
    let (catch_ups, script) = pool(Script::new(300), 4);
    // Nobody has its turn before all have asked: they wait behind one stream that is taken by none of them.
    let queries = [Some(query(2)), Some(query(3)), Some(query(2))];
    let lanes: Vec<_> =
        queries.clone().into_iter().map(|query| (query.clone(), Lane::new(&catch_ups, 10, query))).collect();
    let full = Lane::new(&catch_ups, 1000, None);
    let busy: Vec<_> = (0..4).map(|i| catch_ups.request(behind(1000 * (i + 1)), full.query.clone())).collect();
    let lanes: Vec<_> = lanes.into_iter().map(|(query, lane)| (query, lane.spawn(300))).collect();
    tokio::task::yield_now().await;
    assert_eq!((catch_ups.metrics.streams.get(), catch_ups.metrics.waiting.get()), (4, 3));
    drop(busy);
    for (query, (lane, got)) in lanes {
        ended(lane).await.expect("no error");
        assert_eq!(*got.lock().expect("got"), expected(query.as_ref(), 10, 300));
    }
    let union = Coverage::of(queries).to_match().cloned();
    assert_eq!(script.opened()[4..], [(behind(10), union)]);
    assert_eq!((catch_ups.metrics.opened.get(), catch_ups.metrics.detached.get()), (5, 0));
}

#[tokio::test(start_paused = true)]
async fn who_is_near_shares_and_who_is_alone_has_its_own_query() {
    let (catch_ups, script) = pool(Script::new(400), 1);
    let busy = catch_ups.request(behind(399), Some(query(7)));
    // Where it is, what it wants, in the order of asking.
    let lanes = [(100, query(2)), (131, query(3)), (80, query(5)), (110, query(2)), (300, query(3))];
    let lanes: Vec<_> = lanes
        .map(|(place, query)| (place, query.clone(), Lane::new(&catch_ups, place, Some(query)).spawn(400)))
        .into_iter()
        .collect();
    tokio::task::yield_now().await;
    drop(busy);
    for (place, query, (lane, got)) in lanes {
        ended(lane).await.expect("no error");
        assert_eq!(*got.lock().expect("got"), expected(Some(&query), place, 400), "from {place}");
    }
    let opened = script.opened();
    let shared = Coverage::of([query(2), query(5), query(2)]).to_match().cloned();
    assert_eq!(opened[1], (behind(80), shared), "131 is too far from 80");
    assert_eq!(opened[2], (behind(131), Some(query(3))));
    // 300 is on the way of the stream from 131, and wants nothing else.
    assert_eq!(opened.len(), 3, "{opened:?}");
    assert_eq!(script.open_max.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lane_joins_a_stream_that_comes_its_way() {
    let (catch_ups, script) = pool(Script::new(200), 4);
    let mut first = catch_ups.request(behind(10), Some(query(1)));
    first.next().await.expect("a stream").expect("no error");
    // Near and covered; near and not covered; too far ahead; behind what the stream has read.
    let second = Lane::new(&catch_ups, 30, Some(query(1))).spawn(200);
    let third = Lane::new(&catch_ups, 30, Some(query(2))).spawn(200);
    let fourth = Lane::new(&catch_ups, 160, Some(query(1))).spawn(200);
    let fifth = Lane::new(&catch_ups, 5, Some(query(1))).spawn(200);
    tokio::task::yield_now().await;
    let places: Vec<_> = script.opened().into_iter().map(|(place, _)| place).collect();
    assert_eq!(places, [behind(10), behind(30), behind(160), behind(5)]);
    drop(first);
    for ((lane, got), (divisor, from)) in
        [second, third, fourth, fifth].into_iter().zip([(1, 30), (2, 30), (1, 160), (1, 5)])
    {
        ended(lane).await.expect("no error");
        assert_eq!(*got.lock().expect("got"), expected(Some(&query(divisor)), from, 200));
    }
}

#[tokio::test(start_paused = true)]
async fn more_lanes_than_streams_all_go_on() {
    let mut script = Script::new(20_000);
    script.reply = (1, Duration::from_millis(100));
    let (catch_ups, script) = pool(script, 2);
    let lanes: Vec<_> = (0..5).map(|i| Lane::new(&catch_ups, 3000 * i, None).spawn(20_000)).collect();
    // A slice is about 100 events. Each of five lanes has its turn within three slices of two streams.
    let mut before = [0; 5];
    for round in 0..5 {
        tokio::time::sleep(3 * SLICE + Duration::from_secs(1)).await;
        for (lane, (_, got)) in lanes.iter().enumerate() {
            let got = got.lock().expect("got").len();
            assert!(got >= before[lane] + 90, "round {round}: lane {lane} had {} and has {got}", before[lane]);
            before[lane] = got;
        }
    }
    assert_eq!(script.open_max.load(Ordering::SeqCst), 2);
    for (i, (lane, got)) in lanes.iter().enumerate() {
        lane.abort();
        let got = got.lock().expect("got");
        assert_eq!(*got, expected(None, 3000 * i, 3000 * i + got.len()), "no gap and no repeat");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_kept_while_nobody_waits() {
    let (catch_ups, script) = pool(Script::new(5000), 2);
    let lanes =
        [(0, None), (3000, Some(query(1)))].map(|(place, query)| Lane::new(&catch_ups, place, query).spawn(5000));
    for (lane, _) in lanes {
        ended(lane).await.expect("no error");
    }
    assert_eq!(script.opened().len(), 2, "in fifty seconds");
}

#[tokio::test(start_paused = true)]
async fn a_slow_lane_is_let_go_and_delays_nobody() {
    let (catch_ups, script) = pool(Script::new(500), 2);
    let (mut slow, fast) = (Lane::new(&catch_ups, 0, None), Lane::new(&catch_ups, 0, None));
    slow.pace = Duration::from_millis(400);
    let busy = [9000, 8000].map(|place| catch_ups.request(behind(place), None));
    let started = Instant::now();
    let (slow, fast) = (slow.spawn(500), fast.spawn(500));
    tokio::task::yield_now().await;
    drop(busy);
    ended(fast.0).await.expect("no error");
    let (took, alone) = (started.elapsed(), 101 * Duration::from_millis(50));
    assert!(took <= alone + PATIENCE + Duration::from_millis(100), "the fast one took {took:?}");
    assert_eq!(catch_ups.metrics.detached.get(), 1);
    assert!(slow.1.lock().expect("got").len() < 200, "it is slow");
    ended(slow.0).await.expect("no error");
    for got in [slow.1, fast.1] {
        assert_eq!(*got.lock().expect("got"), expected(None, 0, 500));
    }
    assert_eq!(script.opened().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_is_hardly_slower_cannot_hold_the_others_up_for_long() {
    let (catch_ups, _script) = pool(Script::new(2000), 2);
    let (mut slow, fast) = (Lane::new(&catch_ups, 0, None), Lane::new(&catch_ups, 0, None));
    // Never does one piece take longer than the patience, and still.
    slow.pace = Duration::from_millis(100);
    let busy = [9000, 8000].map(|place| catch_ups.request(behind(place), None));
    let (started, slow, fast) = (Instant::now(), slow.spawn(2000), fast.spawn(2000));
    tokio::task::yield_now().await;
    drop(busy);
    ended(fast.0).await.expect("no error");
    let (took, alone) = (started.elapsed(), 401 * Duration::from_millis(50));
    assert!(took <= alone + 2 * PATIENCE, "the fast one took {took:?}");
    ended(slow.0).await.expect("no error");
    assert_eq!(*slow.1.lock().expect("got"), expected(None, 0, 2000));
}

#[tokio::test(start_paused = true)]
async fn lanes_that_are_slow_together_stay_together() {
    let (catch_ups, script) = pool(Script::new(200), 1);
    let busy = catch_ups.request(behind(9000), None);
    let lanes = [0, 1].map(|_| {
        let mut lane = Lane::new(&catch_ups, 0, None);
        lane.pace = Duration::from_millis(700);
        lane.spawn(200)
    });
    tokio::task::yield_now().await;
    drop(busy);
    for (lane, got) in lanes {
        ended(lane).await.expect("no error");
        assert_eq!(*got.lock().expect("got"), expected(None, 0, 200));
    }
    assert_eq!((script.opened().len(), catch_ups.metrics.detached.get()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_stream_reads_no_further_ahead_than_its_bound() {
    let (catch_ups, script) = pool(Script::new(500), 1);
    let mut lane = catch_ups.request(behind(0), None);
    lane.next().await.expect("a stream").expect("no error");
    tokio::time::sleep(NEVER).await;
    // One is taken, the queue is full, and one more is there to be handed out.
    assert_eq!(script.replies.load(Ordering::SeqCst), 1 + QUEUE + 1);
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_takes_nothing_keeps_no_stream_from_others() {
    let (catch_ups, script) = pool(Script::new(500), 1);
    let mut full = catch_ups.request(behind(0), None);
    full.next().await.expect("a stream").expect("no error");
    tokio::time::sleep(NEVER).await;
    let (other, got) = Lane::new(&catch_ups, 300, Some(query(2))).spawn(500);
    ended(other).await.expect("no error");
    assert_eq!(*got.lock().expect("got"), expected(Some(&query(2)), 300, 500));
    // What had been read for it is still there, then it is told.
    let mut rest = 0;
    while let Some(batch) = tokio::time::timeout(NEVER, full.next()).await.expect("an answer") {
        rest += batch.expect("no error").events.len();
    }
    assert_eq!(rest, 5 * QUEUE);
    assert_eq!(script.open_max.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn who_leaves_frees_what_it_held() {
    let mut script = Script::new(500);
    script.hangs_at = Some(7);
    let (catch_ups, script) = pool(script, 1);
    let holds = catch_ups.request(behind(7), None);
    let waits = catch_ups.request(behind(200), None);
    let mut last = catch_ups.request(behind(400), Some(query(3)));
    tokio::time::sleep(NEVER).await;
    assert_eq!((catch_ups.metrics.streams.get(), catch_ups.metrics.waiting.get()), (1, 2));
    drop(waits);
    assert_eq!(catch_ups.metrics.waiting.get(), 1);
    drop(holds);
    let turn = tokio::time::timeout(NEVER, last.next()).await.expect("an answer");
    turn.expect("its turn").expect("no error");
    drop(last);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((catch_ups.metrics.streams.get(), catch_ups.metrics.waiting.get()), (0, 0));
    assert_eq!(script.opened().len(), 2, "the one that left had no turn");
}

#[tokio::test(start_paused = true)]
async fn lost_history_of_one_lane_is_not_that_of_another() {
    let mut script = Script::new(300);
    script.oldest = 20;
    let (catch_ups, script) = pool(script, 1);
    let busy = catch_ups.request(behind(299), Some(query(7)));
    let old = Lane::new(&catch_ups, 15, Some(query(2))).spawn(300);
    let young = Lane::new(&catch_ups, 25, Some(query(3))).spawn(300);
    tokio::task::yield_now().await;
    drop(busy);
    let error = ended(old.0).await.expect_err("it has lost history");
    assert!(matches!(&error, SourceError::HistoryLost { place, .. } if *place == behind(15)), "{error}");
    assert!(old.1.lock().expect("got").is_empty());
    ended(young.0).await.expect("the other has not");
    assert_eq!(*young.1.lock().expect("got"), expected(Some(&query(3)), 25, 300));
    let alone: Vec<_> = script.opened().split_off(2);
    assert_eq!(alone, [(behind(15), Some(query(2))), (behind(25), Some(query(3)))]);
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_one_who_left_is_not_that_of_who_is_left() {
    let mut script = Script::new(300);
    script.oldest = 20;
    let (catch_ups, _script) = pool(script, 1);
    let busy = catch_ups.request(behind(299), Some(query(7)));
    let old = catch_ups.request(behind(15), None);
    let (young, got) = Lane::new(&catch_ups, 25, None).spawn(300);
    tokio::task::yield_now().await;
    drop(busy);
    tokio::task::yield_now().await;
    assert_eq!(catch_ups.metrics.opened.get(), 2, "their stream is open, and has not answered");
    drop(old);
    ended(young).await.expect("it has lost nothing");
    assert_eq!(*got.lock().expect("got"), expected(None, 25, 300));
}

#[tokio::test(start_paused = true)]
async fn lanes_of_a_stream_that_fails_go_on_where_they_are() {
    let script = Script::new(300);
    *script.fails_behind.lock().expect("fails") = Some(100);
    let (catch_ups, script) = pool(script, 1);
    // The second one joins when the first one has its stream.
    let first = Lane::new(&catch_ups, 10, None).spawn(300);
    tokio::task::yield_now().await;
    let second = Lane::new(&catch_ups, 20, None).spawn(300);
    for ((lane, got), from) in [(first, 10), (second, 20)] {
        ended(lane).await.expect("an error of a shared stream is nobody's own");
        assert_eq!(*got.lock().expect("got"), expected(None, from, 300));
    }
    let places: Vec<_> = script.opened().into_iter().map(|(place, _)| place).collect();
    assert_eq!(places, [behind(10), behind(100), behind(100)]);
}

#[tokio::test(start_paused = true)]
async fn nobody_joins_a_stream_that_is_about_to_be_given_back() {
    let (catch_ups, script) = pool(Script::new(5000), 1);
    let _busy = Lane::new(&catch_ups, 0, None).spawn(5000);
    tokio::task::yield_now().await;
    let _waits = catch_ups.request(behind(4000), None);
    tokio::time::sleep(SLICE * 3 / 4).await;
    let head = script.replies.load(Ordering::SeqCst) * 5;
    let _late = catch_ups.request(behind(head + 10), None);
    assert_eq!(script.opened()[0].0, behind(0), "the stream that is read is the one that it could join");
    assert_eq!(catch_ups.metrics.waiting.get(), 2, "it keeps its place in the queue");
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_is_slow_for_a_moment_is_kept() {
    let (catch_ups, script) = pool(Script::new(300), 1);
    let busy = catch_ups.request(behind(9000), None);
    let mut slow = catch_ups.request(behind(0), None);
    let (fast, _) = Lane::new(&catch_ups, 0, None).spawn(300);
    tokio::task::yield_now().await;
    drop(busy);
    // The third piece is there after 150 ms and finds no room.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut got = 0;
    while got < 300 {
        got += slow.next().await.expect("it was not let go").expect("no error").events.len();
    }
    ended(fast).await.expect("no error");
    assert_eq!((script.opened().len(), catch_ups.metrics.detached.get()), (2, 0));
}

/// A lane as it is in the daemon, with its intake; it takes its time, rests, and starts again where it is.
async fn real_lane(
    window: Arc<Window>,
    catch_ups: Arc<CatchUps>,
    from: usize,
    query: Option<Document>,
    end: usize,
    mut random: StdRng,
) -> (Vec<usize>, u64) {
    let mut place = behind(from);
    let (mut got, mut falls) = (Vec::new(), 0);
    let pace = Duration::from_millis(random.random_range(0..120));
    let mut intake = Intake::new(Arc::clone(&window), &place, query.clone(), Arc::clone(&catch_ups));
    loop {
        match intake.next(&place) {
            Next::Event(event) => {
                place = Place::After(event.token().clone());
                let number = number(&event);
                if query.as_ref().is_none_or(|query| matches(query, number)) {
                    got.push(number);
                }
                if random.random_bool(0.01) {
                    tokio::time::sleep(pace * 30).await;
                }
                continue;
            }
            Next::Reached(reached) | Next::Skipped(_, reached) => {
                place = reached;
                continue;
            }
            Next::Nothing => {}
        }
        if place.time().seconds() as usize >= end && intake.is_live() {
            return (got, falls);
        }
        if random.random_bool(0.02) {
            intake.rest();
        }
        if random.random_bool(0.01) {
            falls += intake.falls();
            intake = Intake::new(Arc::clone(&window), &place, query.clone(), Arc::clone(&catch_ups));
            continue;
        }
        if random.random_bool(0.3) {
            tokio::time::sleep(pace).await;
        }
        intake.more().await.expect("nothing is lost");
    }
}

/// Pushes what happens into the window, under changing filters; now and then the window begins anew.
async fn source(window: Arc<Window>, script: Arc<Script>, mut random: StdRng, filters: [Coverage; 2]) {
    let mut covering = true;
    while script.head.load(Ordering::SeqCst) < script.log.len() || !covering {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let head = script.head.load(Ordering::SeqCst);
        let next = (head + random.random_range(0..12)).min(script.log.len());
        let filter = filters[usize::from(!covering)].to_match().cloned();
        let wanted =
            |event: &&Arc<crate::event::Event>| filter.as_ref().is_none_or(|filter| matches(filter, number(event)));
        if random.random_bool(0.01) {
            // What came last was not read for the window.
            window.restart(behind(next));
        } else {
            window.push(script.log[head..next].iter().filter(wanted).cloned().collect(), behind(next));
        }
        script.head.store(next, Ordering::SeqCst);
        if random.random_bool(0.03) || next == script.log.len() {
            covering = !covering || next == script.log.len();
            window.refilter(filters[usize::from(!covering)].clone());
        }
    }
}

#[test]
fn lanes_come_and_go_without_loss_or_repeat() {
    let mut fell = 0;
    for seed in 0..40 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        fell += runtime.expect("a runtime").block_on(async {
            let mut random = StdRng::seed_from_u64(seed);
            let script = Script::new(1500);
            script.head.store(600, Ordering::SeqCst);
            let streams_max = random.random_range(1..4);
            let (catch_ups, script) = pool(script, streams_max);
            let queries = [None, Some(query(2)), Some(query(3))];
            let filters = [Coverage::of(queries.clone()), Coverage::of([query(2)])];
            let window = Arc::new(Window::new(30_000, behind(600), filters[0].clone()));
            let lanes: Vec<_> = (0..6)
                .map(|_| {
                    let (from, query) = (random.random_range(0..600), queries[random.random_range(0..3)].clone());
                    let random = StdRng::seed_from_u64(random.random());
                    let lane =
                        real_lane(Arc::clone(&window), Arc::clone(&catch_ups), from, query.clone(), 1500, random);
                    (from, query, tokio::spawn(lane))
                })
                .collect();
            let random = StdRng::seed_from_u64(random.random());
            tokio::spawn(source(Arc::clone(&window), Arc::clone(&script), random, filters));
            let mut fell = 0;
            for (from, query, lane) in lanes {
                let ended = tokio::time::timeout(NEVER, lane).await;
                let (got, falls) =
                    ended.unwrap_or_else(|_| panic!("seed {seed}: a lane does not end")).expect("a lane");
                assert_eq!(got, expected(query.as_ref(), from, 1500), "seed {seed}, {query:?}");
                fell += falls;
            }
            let open_max = script.open_max.load(Ordering::SeqCst);
            assert!(open_max <= streams_max as usize, "seed {seed}: {open_max} streams");
            // The last lane has gone, the last stream may still be ending.
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            assert_eq!((catch_ups.metrics.streams.get(), catch_ups.metrics.waiting.get()), (0, 0), "seed {seed}");
            fell
        });
    }
    assert!(fell > 10, "lanes fell off the window {fell} times: the test shows little");
}
