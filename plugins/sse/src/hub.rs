//! Who is to get what: the history, the clients by topic, and the one lock that makes the way from history to live exact. An
//! event is either in the history when a client's replay looks, or offered to it as live; never both, never neither.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use tailwater_sdk::tokio::sync::Notify;
use tailwater_sdk::{Context, Counter, Gauge, Progress};

use crate::client::{Client, End, Mode, Offered, wake};
use crate::frame;
use crate::history::{Behind, Entry, Found, History};
use crate::id::Id;

/// An id may be this far ahead of the clocks; one further ahead was never given out.
const AHEAD_MAX: Duration = Duration::from_secs(600);

/// A client whose queue is full and that takes nothing for this long is cut off.
const STALLED_AFTER: Duration = Duration::from_secs(5);

/// The clients of one output and what they are given.
pub struct Hub {
    state: Mutex<State>,
    clients_max: usize,
    queue_bytes_max: usize,
    /// A client has left.
    left: Notify,
    metrics: Metrics,
}

struct State {
    history: History,
    /// `None` until the stream begins.
    live_from: Option<u64>,
    clients: HashMap<u64, Arc<Client>>,
    /// Those that want all events.
    of_all: HashSet<u64>,
    of_topic: HashMap<Arc<str>, HashSet<u64>>,
    next_key: u64,
    closed: bool,
}

struct Metrics {
    clients: Gauge,
    topics: Gauge,
    connections: Counter,
    refused: Counter,
    resumed: Counter,
    resets: Counter,
    sent: Counter,
    full: Counter,
    stalled: Counter,
    outruns: Counter,
    history_events: Gauge,
    history_bytes: Gauge,
}

/// What a request asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// The topics; none means all events.
    pub topics: Vec<String>,
    /// The last event it saw, as it says: may be anything.
    pub last_event_id: Option<Box<str>>,
}

/// Why there is no place for a client.
#[derive(Debug, PartialEq, Eq)]
pub enum NoPlace {
    /// There are `clients_max` already.
    Full,
    /// The output ends.
    Closed,
}

impl Hub {
    /// A hub without clients whose stream has not begun.
    pub fn new(history: History, clients_max: usize, queue_bytes_max: usize, context: &Context) -> Self {
        let state = State {
            history,
            live_from: None,
            clients: HashMap::new(),
            of_all: HashSet::new(),
            of_topic: HashMap::new(),
            next_key: 0,
            closed: false,
        };
        Hub {
            state: Mutex::new(state),
            clients_max,
            queue_bytes_max,
            left: Notify::new(),
            metrics: Metrics::new(context),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change under it is complete before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a client. Its first frame is `hello`; `cut` is notified when its connection must be closed at once.
    ///
    /// # Errors
    /// Where there is no place for it.
    pub fn add(&self, wish: Wish, hello: Bytes, cut: Arc<Notify>) -> Result<Arc<Client>, NoPlace> {
        let mut state = self.state();
        if state.closed {
            return Err(NoPlace::Closed);
        }
        if state.clients.len() >= self.clients_max {
            drop(state);
            self.metrics.refused.add(1);
            return Err(NoPlace::Full);
        }
        let key = state.next_key;
        state.next_key += 1;
        let topics: Box<[Arc<str>]> = wish.topics.into_iter().map(|topic| state.intern(topic)).collect();
        let client = Arc::new(Client::new(key, topics, Mode::Waiting(wish.last_event_id), hello, cut));
        for topic in &client.topics {
            state.of_topic.entry(Arc::clone(topic)).or_default().insert(key);
        }
        if client.topics.is_empty() {
            state.of_all.insert(key);
        }
        state.clients.insert(key, Arc::clone(&client));
        if let Some(live_from) = state.live_from {
            self.place(&state.history, live_from, &client);
        }
        let (count, topics) = (state.clients.len(), state.of_topic.len());
        drop(state);
        self.metrics.connections.add(1);
        self.metrics.clients.set(count as f64);
        self.metrics.topics.set(topics as f64);
        Ok(client)
    }

    /// Takes a client out. Does nothing for one that was taken out before.
    pub fn remove(&self, client: &Client) {
        let mut state = self.state();
        if state.clients.remove(&client.key).is_none() {
            return;
        }
        state.of_all.remove(&client.key);
        for topic in &client.topics {
            if let Some(keys) = state.of_topic.get_mut(topic) {
                keys.remove(&client.key);
                if keys.is_empty() {
                    state.of_topic.remove(topic);
                }
            }
        }
        let (count, topics) = (state.clients.len(), state.of_topic.len());
        drop(state);
        self.metrics.clients.set(count as f64);
        self.metrics.topics.set(topics as f64);
        self.left.notify_waiters();
    }

    /// Gives events to the history and to all who want them. In the order of the stream.
    pub fn publish(&self, entries: impl IntoIterator<Item = Entry>) {
        let (mut wakers, mut sent, mut full, now) = (Vec::new(), 0, 0, Instant::now());
        let mut state = self.state();
        for entry in entries {
            let Some((seq, entry)) = state.history.push(entry) else { continue };
            for client in state.wanting(&entry) {
                match client.queue().offer(seq, &entry, self.queue_bytes_max, now) {
                    Offered::Taken(waker) => {
                        sent += 1;
                        wakers.extend(waker);
                    }
                    Offered::Later => full += 1,
                    Offered::No => {}
                }
            }
        }
        let size = state.history.size();
        drop(state);
        self.metrics.sent.add(sent);
        self.metrics.full.add(full);
        self.metrics.history(size);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// How far the stream has come. The first time, clients that waited for it are placed.
    pub fn progress(&self, progress: Progress) {
        let mut state = self.state();
        let begins = state.live_from.is_none();
        if begins {
            state.history.begin(progress.complete_from);
            state.live_from = Some(progress.live_from);
        }
        state.history.reach(progress.reached);
        if begins {
            for client in state.clients.values() {
                self.place(&state.history, progress.live_from, client);
            }
        }
        let size = state.history.size();
        drop(state);
        self.metrics.history(size);
    }

    fn place(&self, history: &History, live_from: u64, client: &Client) {
        let mut queue = client.queue();
        let Mode::Waiting(asked) = &mut queue.mode else { return };
        let fresh = Some(Behind(Id::at(live_from)));
        let Some(asked) = asked.take() else {
            // What it is cut off from before its first event it can ask for, too.
            let before = queue.put(frame::place(&history.here(live_from)));
            let waker = before.or(queue.place(Mode::Live, fresh));
            drop(queue);
            return wake(waker);
        };
        let id = Id::parse(&asked);
        let found = match id.map(|id| (id, history.find(&id))) {
            // Nobody was ever given it, so nobody would ever get past it.
            Some((id, Found::Ahead)) if is_ahead_of_time(id.place().time, history.reached()) => Found::Lost,
            Some((_, found)) => found,
            None => Found::Lost,
        };
        let waker = match (found, id) {
            (Found::At(seq), _) => queue.place(Mode::Replaying(seq), None),
            (Found::Ahead, Some(id)) => queue.place(Mode::Live, Some(Behind(id))),
            (Found::Lost | Found::Ahead, id) => {
                self.metrics.resets.add(1);
                let reason = if id.is_some() { "history" } else { "id" };
                let here = history.here(live_from);
                let before = queue.put(frame::reset(&here, reason, &asked));
                before.or(queue.place(Mode::Live, Some(Behind(here))))
            }
        };
        drop(queue);
        if found != Found::Lost {
            self.metrics.resumed.add(1);
        }
        wake(waker);
    }

    /// More of the history for a client that replays.
    pub fn replay(&self, client: &Client, seq: u64) {
        let state = self.state();
        if let Some(entries) = state.history.since(seq) {
            return client.queue().replay(&client.topics, seq, entries);
        }
        drop(state);
        self.metrics.outruns.add(1);
        client.end(End::Outrun);
    }

    /// Writes a comment, with the place in the stream, to every client that was sent nothing for `quiet`, and cuts off those that
    /// are stalled.
    pub fn sweep(&self, quiet: Duration, now: Instant) {
        // The place and who is there belong together: all of them were offered everything up to it. A client that is offered
        // more meanwhile is not quiet.
        let (clients, here) = {
            let state = self.state();
            // Not `live_from`: one that resumed is still to be given what is before it.
            let here = state.live_from.map(|_| state.history.here(0));
            (state.clients.values().cloned().collect::<Vec<Arc<Client>>>(), here)
        };
        let here = here.map(|id| (id.place(), frame::place(&id)));
        let (quiet, stalled) = (now.checked_sub(quiet), now.checked_sub(STALLED_AFTER));
        for client in clients {
            if stalled.is_some_and(|before| client.queue().is_stalled(before)) {
                self.metrics.stalled.add(1);
                client.end(End::Stalled);
            } else if let Some(before) = quiet {
                let waker = client.queue().keep_alive(before, here.as_ref());
                wake(waker);
            }
        }
    }

    /// Ends every stream behind what waits for it, and takes no more clients.
    pub fn close(&self) {
        let clients: Vec<Arc<Client>> = {
            let mut state = self.state();
            state.closed = true;
            state.clients.values().cloned().collect()
        };
        for client in clients {
            client.end(End::Drained);
        }
    }

    /// Waits until no client is left.
    pub async fn emptied(&self) {
        loop {
            let left = self.left.notified();
            if self.state().clients.is_empty() {
                return;
            }
            left.await;
        }
    }
}

impl State {
    /// The topic as it is known already, so that each is in memory once.
    fn intern(&self, topic: String) -> Arc<str> {
        self.of_topic.get_key_value(topic.as_str()).map_or_else(|| topic.into(), |(known, _)| Arc::clone(known))
    }

    /// The clients that want the event; one of several topics may come several times.
    fn wanting<'a>(&'a self, entry: &'a Entry) -> impl Iterator<Item = &'a Arc<Client>> {
        let of_topics = entry.topics.iter().filter_map(|topic| self.of_topic.get(topic)).flatten();
        self.of_all.iter().chain(of_topics).filter_map(|key| self.clients.get(key))
    }
}

/// Ahead of this machine's clock and of the stream, whose clock is another one.
fn is_ahead_of_time(time: u64, reached: u64) -> bool {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    time >> 32 > now.max(reached >> 32) + AHEAD_MAX.as_secs()
}

impl Metrics {
    fn history(&self, (events, bytes): (usize, usize)) {
        self.history_events.set(events as f64);
        self.history_bytes.set(bytes as f64);
    }

    fn new(context: &Context) -> Self {
        let counter = |name: &str, help: &str| context.counter(name, help);
        let cut = |reason| {
            let help = "Clients that were cut off, by reason; each comes back with its id.";
            context.counter_with("sse_evictions_total", help, &[("reason", reason)])
        };
        Metrics {
            clients: context.gauge("sse_clients", "Clients that are connected."),
            topics: context.gauge("sse_topics", "Topics that some client has named."),
            connections: counter("sse_connections_total", "Streams that were begun."),
            refused: counter("sse_refused_total", "Requests refused because there were clients_max clients."),
            resumed: counter("sse_resumed_total", "Clients that went on behind the id they named."),
            resets: counter("sse_resets_total", "Clients whose id was not in the history any more, or no id."),
            sent: counter("sse_events_total", "Events put into a client's queue as they came."),
            full: counter(
                "sse_full_queues_total",
                "Times that a client's queue was full, so that it went on in the history.",
            ),
            stalled: cut("stalled"),
            outruns: cut("outrun"),
            history_events: context.gauge("sse_history_events", "Events in the history."),
            history_bytes: context.gauge("sse_history_bytes", "Bytes of the history."),
        }
    }
}
