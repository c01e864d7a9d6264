//! Nothing before a checkpoint is unsettled, every event that the output wants comes to an end, order and bounds are kept:
//! over seeded interleavings of verdicts, crashes of the instance and of the process, catch-up, reload, pause, and stores that
//! fail. Engine, settle, schedule and window are the real ones; time is virtual.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::lane::config::{Config, OnReject};
use crate::lane::tests::reader::{Found, Stream, reached};
use crate::lane::tests::run::{Fate, Run};
use crate::lane::tests::settings::{Match, event, index, narrow};
use crate::plugin::{Verdict, Verdicts};
use crate::source::place::Place;
use crate::source::token::Timestamp64;

const SEEDS: u64 = 10_000;
const STEPS: usize = 120;
const THREADS: u64 = 2;

/// One seed: a stream, one output over all its runs, and what is durable.
struct World {
    seed: u64,
    random: StdRng,
    now: Instant,
    config: Config,
    stream: Stream,
    fates: Vec<Fate>,
    run: Run,
    runs: usize,
    /// The checkpoint, and how many events it is known to be right about.
    durable: (Place, usize),
    /// Events in the dead letters.
    letters: BTreeSet<usize>,
    /// How often a lane fell off the window, over all runs.
    falls: usize,
    /// Events that the window passed over.
    skipped: usize,
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = StdRng::seed_from_u64(seed);
        let now = Instant::now();
        let config = narrow(&mut random);
        let stream = Stream::new(random.random_range(2_000..9_000));
        let query = Match::EACH[random.random_range(0..4)];
        let run = Run::new(format!("seed {seed} run 1"), &config, query, &stream, &reached(0), now);
        let (fates, durable) = (Vec::new(), (reached(0), 0));
        World {
            seed,
            random,
            now,
            config,
            stream,
            fates,
            run,
            runs: 1,
            durable,
            letters: BTreeSet::new(),
            falls: 0,
            skipped: 0,
        }
    }

    fn newest(&self) -> Timestamp64 {
        Timestamp64((self.stream.all.len() as u64) << 32)
    }

    fn step(&mut self) {
        match self.random.random_range(0..100) {
            0..=17 => self.write(),
            18..=27 => self.stream.push(),
            28..=41 => self.read(),
            42..=57 => {
                for _ in 0..self.random.random_range(1..4) {
                    self.hand_out();
                }
            }
            58..=73 => self.answer(),
            74..=82 => self.pass_time(),
            83..=88 => self.checkpoint(),
            89..=92 => self.bury(),
            93..=94 => self.replay(),
            95 => self.run.crash_instance(self.newest(), &mut self.fates),
            96 => self.crash_process(),
            97 => self.reload(),
            98 => self.answer_late(),
            _ => self.run.up = true,
        }
        if self.run.stopped && self.random.random_bool(0.2) {
            // The operator mends the cause and starts again.
            self.begin_run(self.run.query);
        }
    }

    fn write(&mut self) {
        for _ in 0..self.random.random_range(1..5) {
            let id = (!self.random.random_bool(0.04)).then(|| self.random.random_range(0..5));
            // With `on_reject = "stop"` an operator would have to change the config to get past it.
            let poison = self.config.on_reject != OnReject::Stop && self.random.random_bool(0.04);
            let second = self.stream.all.len() as u32 + 1;
            self.stream.all.push(event(second, id, self.random.random_bool(0.2), poison));
            self.fates.push(Fate::Open);
        }
    }

    fn read(&mut self) {
        let newest = self.newest();
        for _ in 0..self.random.random_range(1..12) {
            if !self.run.engine.has_room() {
                return;
            }
            let fates = &mut self.fates;
            let read_to = self.run.engine.settle().read_to().clone();
            let mut left_out = |index: usize| {
                if fates[index] == Fate::Open {
                    fates[index] = Fate::LeftOut;
                }
            };
            match self.run.reader.next(&self.stream, &read_to, &mut left_out) {
                Some(Found::Event(event)) => self.run.take(event, newest, fates),
                Some(Found::Skipped(count, place)) => {
                    let all = self.stream.all.iter();
                    let run: Vec<_> = all.filter(|e| read_to.is_behind(e) && !place.is_behind(e)).collect();
                    let wrong = run.iter().find(|event| self.run.query.wants(event) || event.poison().is_some());
                    assert!(wrong.is_none(), "seed {}: passed over {wrong:?}", self.seed);
                    assert_eq!(run.len() as u64, count, "seed {}: passed over to {place}", self.seed);
                    run.iter().for_each(|event| left_out(index(event)));
                    self.skipped += run.len();
                    self.run.engine.pass(place);
                }
                Some(Found::Reached(place)) => self.run.engine.pass(place),
                None => return,
            }
        }
    }

    fn hand_out(&mut self) -> bool {
        self.run.up && self.run.hand_out(self.now, self.newest(), &mut self.fates)
    }

    fn answer(&mut self) {
        let nth = self.random.random_range(0..4);
        let Some((delivery, len)) = self.run.batch(nth).or(self.run.batch(0)) else { return };
        let mut verdicts = Verdicts::all(self.verdict());
        for _ in 0..self.random.random_range(0..3) {
            verdicts.overrides.push((self.random.random_range(0..len as u32), self.verdict()));
        }
        if self.random.random_bool(0.08) {
            verdicts.pause_output = Some(Duration::from_millis(self.random.random_range(0..50)));
        }
        self.run.complete(delivery, verdicts, self.now, self.newest(), &mut self.fates);
    }

    fn verdict(&mut self) -> Verdict {
        let reason = String::new();
        match self.random.random_range(0..12) {
            0 | 1 => Verdict::Retry { after: None, reason },
            2 | 3 => Verdict::Retry { after: Some(Duration::from_millis(self.random.random_range(0..30))), reason },
            // Where a reject stops the output little else would happen.
            4 if self.config.on_reject != OnReject::Stop || self.random.random_bool(0.2) => Verdict::Reject { reason },
            _ => Verdict::Ack,
        }
    }

    fn answer_late(&mut self) {
        let delivery = self.random.random_range(0..20);
        if (0..4).all(|nth| self.run.batch(nth).is_none_or(|(open, _)| open != delivery)) {
            let mut verdicts = Verdicts::all(Verdict::Ack);
            verdicts.pause_output = Some(Duration::from_secs(9));
            self.run.complete(delivery, verdicts, self.now, self.newest(), &mut self.fates);
        }
    }

    fn pass_time(&mut self) {
        self.now += Duration::from_millis(self.random.random_range(0..60));
        if self.run.engine.is_late(self.now) {
            self.run.crash_instance(self.newest(), &mut self.fates);
        }
    }

    /// Begins a write, or ends the one under way, well or badly.
    fn checkpoint(&mut self) {
        if self.run.saving.is_none() {
            let settle = self.run.engine.settle();
            self.run.saving = Some((settle.first_unsettled(), settle.low_water().clone()));
        } else if self.random.random_bool(0.2) {
            self.run.saving = None;
        } else {
            self.saved();
        }
    }

    fn saved(&mut self) {
        let Some(place) = self.run.saved() else { return };
        let (seed, (old, known)) = (self.seed, &mut self.durable);
        assert!(place.is_covered_since(old), "seed {seed}: the checkpoint goes back from {old} to {place}");
        while self.stream.all.get(*known).is_some_and(|event| !place.is_behind(event)) {
            assert!(self.fates[*known] != Fate::Open, "seed {seed}: {:?} is before {place}", self.stream.all[*known]);
            *known += 1;
        }
        *old = place;
    }

    /// Begins to write letters, or ends the write under way, well or badly.
    fn bury(&mut self) {
        match self.run.burying {
            None if self.run.engine.letters_waiting() == 0 => {}
            None => self.run.burying = Some(self.random.random_range(1..4).min(self.run.engine.letters_waiting())),
            Some(_) if self.random.random_bool(0.4) => self.run.burying = None,
            Some(_) => self.buried(),
        }
    }

    fn buried(&mut self) {
        let letters = self.run.engine.letters(self.run.burying.unwrap_or(0));
        assert!(self.config.on_reject == OnReject::DeadLetter || letters.is_empty(), "seed {}: {letters:?}", self.seed);
        self.letters.extend(letters.iter().map(|letter| index(&letter.event)));
        // The store has them, but nobody is told.
        if self.random.random_bool(0.1) {
            return self.crash_process();
        }
        self.run.buried(self.newest(), &mut self.fates);
    }

    fn replay(&mut self) {
        let nth = self.random.random_range(0..3);
        if let Some(letter) = self.letters.iter().nth(nth) {
            self.run.replay(&self.stream.all[*letter]);
        }
    }

    fn crash_process(&mut self) {
        // The shared stream begins somewhere at or behind this output's place; others decide where.
        let from = self.durable.1;
        let from = self.random.random_range(from..=self.stream.all.len());
        self.stream.begin(from);
        self.begin_run(self.run.query);
    }

    /// The lane ends in good order, or without having saved all; another `match` may be in force then.
    fn reload(&mut self) {
        if self.run.saving.is_some() {
            self.saved();
        } else if self.random.random_bool(0.5) {
            self.checkpoint();
            self.saved();
        }
        let query =
            if self.random.random_bool(0.5) { Match::EACH[self.random.random_range(0..4)] } else { self.run.query };
        self.begin_run(query);
    }

    fn begin_run(&mut self, query: Match) {
        self.falls += self.run.reader.falls;
        for event in self.stream.all.iter().filter(|event| self.durable.0.is_behind(event)) {
            let fate = &mut self.fates[index(event)];
            // It is read again, and decided again.
            if *fate == Fate::LeftOut {
                *fate = Fate::Open;
            }
        }
        self.runs += 1;
        let context = format!("seed {} run {}", self.seed, self.runs);
        self.run = Run::new(context, &self.config, query, &self.stream, &self.durable.0, self.now);
    }

    /// From now on all goes well: everything must come to its end, by what the engine says about when to look again.
    fn finish(&mut self) {
        let ack = || Verdicts::all(Verdict::Ack);
        for round in 0.. {
            assert!(round < 3_000, "seed {}: it does not come to an end", self.seed);
            self.stream.push();
            self.run.up = true;
            if self.run.stopped {
                self.begin_run(self.run.query);
            }
            self.read();
            assert!(!self.run.engine.is_late(self.now), "seed {}: all was answered", self.seed);
            let mut moved = false;
            while self.hand_out() {
                moved = true;
            }
            while let Some((delivery, _)) = self.run.batch(0) {
                self.run.complete(delivery, ack(), self.now, self.newest(), &mut self.fates);
                moved = true;
            }
            if self.run.engine.letters_waiting() > 0 {
                self.run.burying = Some(self.run.engine.letters_waiting());
                self.buried();
                moved = true;
            }
            let settle = self.run.engine.settle();
            let low_water = settle.low_water().clone();
            moved |= low_water != self.durable.0;
            self.run.saving = Some((settle.first_unsettled(), low_water));
            self.saved();
            if self.durable.1 == self.stream.all.len() && self.run.is_finished() {
                break;
            }
            if !moved && self.run.engine.queued() > 0 {
                let wake = self.run.engine.next_wake(true);
                let wake = wake.unwrap_or_else(|| panic!("seed {}: waits for nothing", self.seed));
                assert!(wake > self.now, "seed {}: turns without end", self.seed);
                self.now = wake;
            }
        }
        let open = self.fates.iter().position(|fate| *fate == Fate::Open);
        assert!(open.is_none(), "seed {}: {:?} came to no end", self.seed, self.stream.all[open.unwrap_or(0)]);
        self.falls += self.run.reader.falls;
    }
}

/// What happened over all seeds: a test in which nothing happens proves nothing.
#[derive(Default)]
struct Sum {
    events: usize,
    runs: usize,
    falls: usize,
    letters: usize,
    skipped: usize,
}

fn run_seeds(seeds: Range<u64>) -> Sum {
    let mut sum = Sum::default();
    for seed in seeds {
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            world.step();
        }
        world.finish();
        sum.events += world.stream.all.len();
        sum.runs += world.runs;
        sum.falls += world.falls;
        sum.letters += world.letters.len();
        sum.skipped += world.skipped;
    }
    sum
}

#[test]
fn nothing_is_lost_and_nothing_is_out_of_order_whatever_happens() {
    let part = SEEDS / THREADS;
    let threads = (0..THREADS).map(|nth| std::thread::spawn(move || run_seeds(nth * part..(nth + 1) * part)));
    for thread in threads.collect::<Vec<_>>() {
        let sum = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let seeds = part as usize;
        println!("{} events, {} runs, {} falls, {} letters", sum.events, sum.runs, sum.falls, sum.letters);
        assert!(sum.events > 20 * seeds && sum.runs > 2 * seeds && sum.falls > seeds / 2 && sum.letters > seeds / 2);
        assert!(sum.skipped > seeds / 5, "{} events were passed over", sum.skipped);
    }
}
