//! Which events of a delivery go into the next request. Pure: knows nothing of HTTP.
//!
//! Requests follow the order of the events and are sent one after the other, so that each channel gets its events in that
//! order. An event with one channel shares a `batch_events` request with its neighbours of that kind; one with several channels
//! is an `events` request of its own, since an entry of a batch has but one channel.

use crate::{entry::Entry, names::BATCH_ENTRIES_MAX};

/// The events of a delivery that are not settled yet.
pub(crate) struct Plan<'a> {
    /// In the order of the change stream.
    rest: Vec<Entry<'a>>,
    /// Events before this place of the batch go alone: the server has refused them together.
    alone_before: usize,
}

impl<'a> Plan<'a> {
    pub(crate) fn new(entries: Vec<Entry<'a>>) -> Self {
        Self { rest: entries, alone_before: 0 }
    }

    /// All that is not settled.
    pub(crate) fn rest(&self) -> &[Entry<'a>] {
        &self.rest
    }

    /// The entries of the next request. Empty when nothing is left.
    pub(crate) fn request(&self) -> &[Entry<'a>] {
        let shares = |entry: &&Entry<'_>| entry.channels.len() == 1 && entry.index >= self.alone_before;
        let count = self.rest.iter().take(BATCH_ENTRIES_MAX).take_while(shares).count();
        &self.rest[..count.max(1).min(self.rest.len())]
    }

    /// The next request was taken: its entries.
    pub(crate) fn taken(&mut self) -> Vec<Entry<'a>> {
        let count = self.request().len();
        self.rest.drain(..count).collect()
    }

    /// Nothing more is sent: what was left.
    pub(crate) fn give_up(&mut self) -> Vec<Entry<'a>> {
        std::mem::take(&mut self.rest)
    }

    /// The next request was refused for what is in it. Nobody knows which of its entries is at fault, nor which of them were
    /// sent on all the same: each goes once more, alone. `Some` is the entry that is at fault, because it was alone; the later
    /// events of its document go with it, since they must not overtake it.
    pub(crate) fn refused(&mut self) -> Option<(Entry<'a>, Vec<Entry<'a>>)> {
        let request = self.request();
        if let [_, .., last] = request {
            self.alone_before = last.index + 1;
            return None;
        }
        let refused = self.rest.remove(0);
        let follows = |entry: &mut Entry<'_>| refused.key != 0 && entry.key == refused.key;
        let followers = self.rest.extract_if(.., follows).collect();
        Some((refused, followers))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn entry(index: usize, key: u64, channels: &[&str]) -> Entry<'static> {
        let channels = channels.iter().map(|channel| (*channel).to_owned()).collect();
        Entry { index, key, channels, name: "insert".to_owned(), data: "{}" }
    }

    /// The places of the events of each request, where the server takes everything.
    fn requests(entries: Vec<Entry<'static>>) -> Vec<Vec<usize>> {
        let mut plan = Plan::new(entries);
        let mut requests = Vec::new();
        while !plan.request().is_empty() {
            requests.push(plan.taken().into_iter().map(|entry| entry.index).collect());
        }
        requests
    }

    #[test]
    fn neighbours_with_one_channel_share_a_request_and_others_do_not() {
        // The number of channels of each event, and the sizes of the requests.
        let table: [(&[usize], &[usize]); 8] = [
            (&[], &[]),
            (&[1], &[1]),
            (&[3], &[1]),
            (&[1; 10], &[10]),
            (&[1; 11], &[10, 1]),
            (&[1; 25], &[10, 10, 5]),
            (&[2, 2], &[1, 1]),
            (&[1, 1, 2, 1, 1, 1], &[2, 1, 3]),
        ];
        for (channels, expected) in table {
            let names = ["a", "b", "c"];
            let entries =
                channels.iter().enumerate().map(|(index, count)| entry(index, index as u64 + 1, &names[..*count]));
            let sizes: Vec<_> = requests(entries.collect()).iter().map(Vec::len).collect();
            assert_eq!(sizes, expected, "{channels:?}");
        }
    }

    /// A small generator of its own, so that a seed names a run for ever.
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, end: u64) -> u64 {
            // splitmix64.
            self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut mixed = self.0;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            (mixed ^ (mixed >> 31)) % end
        }
    }

    #[test]
    fn whatever_the_server_refuses_each_event_ends_once_and_each_channel_keeps_its_order() {
        for seed in 0..2000 {
            let mut dice = Dice(seed);
            let count = dice.below(40) as usize;
            let entries: Vec<_> = (0..count)
                .map(|index| {
                    let channels = &["a", "b", "c", "d"][..if dice.below(4) == 0 { 2 } else { 1 }];
                    let first = dice.below(3) as usize;
                    let names: Vec<_> =
                        channels.iter().enumerate().map(|(n, _)| ["a", "b", "c", "d"][first + n]).collect();
                    entry(index, dice.below(8), &names)
                })
                .collect();
            let bad: Vec<bool> = (0..count).map(|_| dice.below(5) == 0).collect();
            run(seed, &entries, &bad);
        }
    }

    /// A server that sends on the entries before a bad one and then refuses the request.
    fn run(seed: u64, entries: &[Entry<'static>], bad: &[bool]) {
        let mut plan = Plan::new(entries.to_vec());
        let (mut taken, mut refused, mut held) = (Vec::new(), Vec::new(), Vec::new());
        let mut requests = 0;
        while !plan.request().is_empty() {
            requests += 1;
            assert!(requests <= 2 * entries.len(), "seed {seed}: it never ends");
            let request = plan.request();
            assert!(request.len() <= BATCH_ENTRIES_MAX, "seed {seed}");
            assert!(request.len() == 1 || request.iter().all(|entry| entry.channels.len() == 1), "seed {seed}");
            if !request.iter().any(|entry| bad[entry.index]) {
                taken.extend(plan.taken());
            } else if let Some((entry, followers)) = plan.refused() {
                held.extend(followers.iter().map(|follower| (follower.index, entry.index)));
                refused.push(entry.index);
            }
        }
        assert!(refused.iter().all(|index| bad[*index]), "seed {seed}: only what is bad is refused");
        for (follower, first) in &held {
            assert!(follower > first && entries[*follower].key == entries[*first].key, "seed {seed}");
            assert_ne!(entries[*first].key, 0, "seed {seed}: what has no document holds nobody back");
        }
        let mut ends: Vec<_> = taken.iter().map(|entry| entry.index).chain(refused.iter().copied()).collect();
        ends.extend(held.iter().map(|(follower, _)| *follower));
        ends.sort_unstable();
        assert!(ends.into_iter().eq(0..entries.len()), "seed {seed}: each event ends once");
        let mut last: HashMap<&str, usize> = HashMap::new();
        for entry in &taken {
            for channel in &entry.channels {
                let before = last.insert(channel, entry.index);
                assert!(before.is_none_or(|before| before < entry.index), "seed {seed}: order on {channel}");
            }
        }
    }
}
