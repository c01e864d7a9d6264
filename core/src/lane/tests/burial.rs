//! Letters are written again until the store has them, as many as fit; a full store is not asked again. Replays end also where their lane ends.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::FutureExt;
use tokio::sync::oneshot;

use crate::dead_letters::{DeadLetterError, Letter};
use crate::lane::burial::{Burial, Buried, Bury};
use crate::lane::engine::effects::{Effects, ReplayEnd};
use crate::lane::engine::{Engine, Setup};
use crate::lane::replay::{Replay, Replays};
use crate::lane::tests::reader::reached;
use crate::lane::tests::settings::{defaults, event};
use crate::plugin::{Verdict, Verdicts};
use crate::source::token::Timestamp64;

fn engine() -> Engine {
    let config = defaults();
    let place = reached(0);
    let setup = Setup {
        config: &config,
        matcher: None,
        place,
        snapshot: None,
        batch_events_max: None,
        wants_json: false,
        broadcast: false,
    };
    Engine::new(setup, Instant::now())
}

/// An engine with so many letters that wait.
fn with_letters(count: u32) -> Engine {
    let (mut engine, now, newest) = (engine(), Instant::now(), Timestamp64(0));
    for second in 1..=count {
        engine.take(event(second, Some(second as i32), false, false), newest);
    }
    while let Some(leaving) = engine.hand_out(now, newest, &mut Effects::default()) {
        let reject = Verdicts::all(Verdict::Reject { reason: "no".to_owned() });
        engine.complete(leaving.delivery, reject, now, &mut || 0.5);
    }
    assert_eq!(engine.letters_waiting(), count as usize);
    engine
}

/// What comes of the next write that is due.
async fn write(burial: &mut Burial, engine: &Engine) -> Buried {
    burial.begin(engine, burial.due(engine).expect("letters wait"));
    assert!(burial.is_writing() && burial.due(engine).is_none(), "one write at a time");
    burial.done().await
}

#[tokio::test]
async fn letters_are_written_in_order_until_the_store_has_them() {
    let kept: Arc<Mutex<Vec<Letter>>> = Arc::default();
    let (store, calls) = (Arc::clone(&kept), AtomicUsize::new(0));
    let bury: Bury = Arc::new(move |letters| {
        let (store, fails) = (Arc::clone(&store), calls.fetch_add(1, Ordering::Relaxed) < 2);
        async move {
            if fails {
                return Err(DeadLetterError::MongoDb { what: "write", reason: "no primary".to_owned(), denied: false });
            }
            store.lock().expect("not poisoned").extend(letters);
            Ok(())
        }
        .boxed()
    });
    let mut engine = with_letters(130);
    let mut burial = Burial::new("one", Some(bury));
    for _ in 0..2 {
        assert!(matches!(write(&mut burial, &engine).await, Buried::Failed));
        assert!(burial.due(&engine) > Some(Instant::now()), "not at once again");
        burial.begin(&engine, Instant::now());
        assert!(!burial.is_writing());
    }
    while engine.letters_waiting() > 0 {
        let Buried::Durable(count) = write(&mut burial, &engine).await else { panic!("the store takes them now") };
        engine.buried(count);
    }
    assert_eq!((burial.due(&engine), engine.settle().unsettled()), (None, 0));
    let kept = kept.lock().expect("not poisoned");
    let expected: Vec<_> = (1..=130).map(|second| *event(second, Some(second as i32), false, false).id()).collect();
    assert_eq!(kept.iter().map(|letter| letter.id).collect::<Vec<_>>(), expected);
    assert!(kept.iter().all(|letter| letter.output == "one" && letter.attempts == 1 && letter.reason == "no"));
}

#[tokio::test]
async fn a_full_store_is_not_asked_again() {
    let bury: Bury = Arc::new(|_| async { Err(DeadLetterError::Full { used: 90, bytes: 20, bytes_max: 100 }) }.boxed());
    let engine = with_letters(1);
    let mut burial = Burial::new("one", Some(bury));
    let Buried::Full(reason) = write(&mut burial, &engine).await else { panic!("it is full") };
    assert!(reason.contains("dead_letters.bytes_max"), "{reason}");
    burial.begin(&engine, Instant::now() + Duration::from_secs(3600));
    assert!(!burial.is_writing() && burial.due(&engine).is_none());
}

#[tokio::test]
async fn what_fits_is_kept_before_the_store_is_called_full() {
    let kept = Arc::new(AtomicUsize::new(0));
    let store = Arc::clone(&kept);
    let bury: Bury = Arc::new(move |letters| {
        let (used, more) = (store.load(Ordering::Relaxed), letters.len());
        let full = DeadLetterError::Full { used: used as u64, bytes: more as u64, bytes_max: 7 };
        let fits = used + more <= 7;
        store.fetch_add(if fits { more } else { 0 }, Ordering::Relaxed);
        async move { if fits { Ok(()) } else { Err(full) } }.boxed()
    });
    let mut engine = with_letters(90);
    let mut burial = Burial::new("one", Some(bury));
    loop {
        match write(&mut burial, &engine).await {
            Buried::Durable(count) => engine.buried(count),
            Buried::Failed => assert!(burial.due(&engine) <= Some(Instant::now()), "fewer of them, at once"),
            Buried::Full(_) => break,
        }
    }
    assert_eq!((kept.load(Ordering::Relaxed), engine.letters_waiting()), (7, 83));
}

#[tokio::test]
async fn a_replay_hears_of_its_end_or_that_its_lane_is_gone() {
    let (sender, mut replays) = Replays::new();
    let mut engine = engine();
    let mut ends = Vec::new();
    for second in 1..=3 {
        let (end, ended) = oneshot::channel();
        sender.send(Replay { event: event(second, Some(1), false, false), attempts: 1, end }).await.expect("open");
        ends.push(ended);
    }
    for _ in 0..2 {
        let replay = replays.next().await;
        replays.accept(replay, &mut engine);
    }
    replays.ended(0, ReplayEnd::Acked);
    // One is in the lane, one still in the channel.
    replays.drop_all();
    for (ended, expected) in ends.into_iter().zip([ReplayEnd::Acked, ReplayEnd::Dropped, ReplayEnd::Dropped]) {
        assert_eq!(ended.await, Ok(expected));
    }
    let (end, _) = oneshot::channel();
    let refused = sender.send(Replay { event: event(4, Some(1), false, false), attempts: 1, end }).await;
    assert!(refused.is_err(), "no new one gets in");
}
