//! What goes wrong in the storm: faults of the daemons, of the servers and the network between, and of the receivers, drawn from one
//! seed. Each heals what it has broken.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::fleet::Fleet;
use super::receiver::{OUTAGES, Receiver};
use crate::harness::ReplicaSet;

/// How often each kind came.
pub type Faults = BTreeMap<String, usize>;

/// How long a takeover is waited for before the next fault of a daemon comes all the same.
const TAKEOVER_MAX: Duration = Duration::from_secs(25);

/// A member that was cut off keeps no old bytes: time for its connections to end.
const CUT: Duration = Duration::from_millis(100);

/// When it began, how long it lasts, and where chance comes from.
pub struct Weather {
    pub started: Instant,
    pub lasting: Duration,
    pub seed: u64,
}

/// The faults of one kind of part, one after another.
struct Strand<'a> {
    weather: &'a Weather,
    random: StdRng,
    faults: Faults,
}

impl Weather {
    fn strand(&self, number: u64) -> Strand<'_> {
        Strand { weather: self, random: StdRng::seed_from_u64(self.seed ^ (number << 32)), faults: Faults::new() }
    }

    fn is_over(&self) -> bool {
        self.started.elapsed() >= self.lasting
    }
}

impl Strand<'_> {
    /// Waits between `from` and `to` milliseconds.
    async fn wait(&mut self, from: u64, to: u64) {
        let time = self.random.random_range(from..=to);
        tokio::time::sleep(Duration::from_millis(time)).await;
    }

    fn note(&mut self, kind: &str, of: &str) {
        eprintln!("{:7.2} s: {kind} {of}", self.weather.started.elapsed().as_secs_f64());
        *self.faults.entry(kind.to_owned()).or_default() += 1;
    }
}

/// Kills, drains and pauses of the daemons. Where there are several, mostly of the one that delivers.
pub async fn of_daemons(weather: &Weather, fleet: &mut Fleet, receivers: &[Receiver]) -> Faults {
    let mut strand = weather.strand(1);
    let is_alone = fleet.count() == 1;
    while !weather.is_over() {
        strand.wait(500, if is_alone { 5_000 } else { 3_000 }).await;
        for instance in 0..fleet.count() {
            if fleet.revive(instance) {
                strand.note("daemon ended by itself", &format!("instance {instance}"));
            }
        }
        let newest = receivers.iter().filter_map(Receiver::newest).max().map_or(0, |(_, run)| run);
        let instance = match strand.random.random_range(0..4) {
            0 => strand.random.random_range(0..fleet.count()),
            _ => fleet.runs()[newest].instance,
        };
        let name = format!("instance {instance}");
        match strand.random.random_range(0..10) {
            0..2 => {
                strand.note("daemon paused", &name);
                fleet.pause(instance);
                // Longer than a lease where there is another to take it.
                if is_alone {
                    strand.wait(500, 4_000).await
                } else {
                    strand.wait(16_000, 20_000).await
                }
                fleet.resume(instance);
            }
            2..5 => {
                strand.note("daemon drained", &name);
                fleet.drain(instance).await;
                strand.wait(0, 2_000).await;
                fleet.start(instance);
            }
            _ => {
                strand.note("daemon killed", &name);
                fleet.kill9(instance);
                strand.wait(0, 2_000).await;
                fleet.start(instance);
            }
        }
        let since = Instant::now();
        // Every second time, the next fault meets a daemon that has come to deliver.
        let patient = !is_alone || strand.random.random_bool(0.5);
        let by_another = |(_, run): (Instant, usize)| run != newest;
        while patient && since.elapsed() < TAKEOVER_MAX && !weather.is_over() {
            if receivers.iter().filter_map(Receiver::newest).max().is_some_and(by_another) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    for instance in 0..fleet.count() {
        if fleet.revive(instance) {
            strand.note("daemon ended by itself", &format!("instance {instance}"));
        }
    }
    strand.faults
}

/// Elections, kills, cut and half-open connections.
pub async fn of_servers(weather: &Weather, set: &mut ReplicaSet) -> Faults {
    let mut strand = weather.strand(2);
    let longest = (weather.lasting.as_millis() as u64 / 10).clamp(4_000, 20_000);
    while !weather.is_over() {
        strand.wait(1_000, 5_000).await;
        let primary = set.primary().await;
        let any = strand.random.random_range(0..3);
        let member = |index: usize| format!("member {index}{}", if index == primary { ", the primary" } else { "" });
        match strand.random.random_range(0..10) {
            0..2 => {
                strand.note("stepdown", &member(primary));
                set.step_down().await;
            }
            2..4 => {
                strand.note("primary killed", &member(primary));
                set.kill9(primary);
                strand.wait(200, 4_000).await;
                set.start_again(primary).await;
            }
            4..6 => {
                let index = if strand.random.random_bool(0.7) { primary } else { any };
                strand.note("half-open connections", &member(index));
                set.proxy(index).freeze();
                strand.wait(500, longest).await;
                set.proxy(index).cut();
                tokio::time::sleep(CUT).await;
                set.proxy(index).thaw();
            }
            _ => {
                let all = strand.random.random_bool(0.5);
                strand.note("sockets cut", &if all { "all".to_owned() } else { member(any) });
                (0..3).filter(|index| all || *index == any).for_each(|index| set.proxy(index).cut());
            }
        }
    }
    set.wait_until_ready().await;
    strand.faults
}

/// Outages of each receiver, of all kinds.
pub async fn of_receivers(weather: &Weather, receivers: &[Receiver]) -> Faults {
    let longest = (weather.lasting.as_millis() as u64 / 12).clamp(2_000, 20_000);
    let of_one = async |(number, receiver): (usize, &Receiver)| {
        let mut strand = weather.strand(3 + number as u64);
        while !weather.is_over() {
            strand.wait(500, 6_000).await;
            let mood = OUTAGES[strand.random.random_range(0..OUTAGES.len())];
            strand.note(&format!("receiver: {mood:?}"), &format!("receiver {number}"));
            receiver.fall(mood);
            strand.wait(100, longest).await;
            receiver.heal();
        }
        strand.faults
    };
    let mut sum = Faults::new();
    for (kind, count) in join_all(receivers.iter().enumerate().map(of_one)).await.into_iter().flatten() {
        *sum.entry(kind).or_default() += count;
    }
    sum
}
