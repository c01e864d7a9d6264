//! The output: events become entries of the hub, requests its clients.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tailwater_sdk::template::{Scope, Template};
use tailwater_sdk::tokio::sync::watch;
use tailwater_sdk::{
    Batch, Context, DeliverError, Event, Output, Progress, StartError, Verdict, Verdicts, tokio, tracing,
};

use crate::config::Options;
use crate::frame;
use crate::history::{Entry, History};
use crate::hub::Hub;
use crate::id::Id;
use crate::request::{Offer, TOPIC_BYTES_MAX};
use crate::server::{self, Server};

/// How long the streams may take to end when the output stops.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Events that are given to all clients before any of them is written to.
const PIECE: usize = 64;

/// File descriptors that the rest of the daemon may need.
const OTHER_FILES: u64 = 200;

/// Sends each event to browsers.
pub struct Sse {
    hub: Arc<Hub>,
    topics: Vec<Template>,
    /// Told when no more connections are taken; the server listens.
    stop: watch::Sender<bool>,
}

impl Output for Sse {
    type Options = Options;
    const SUMMARY: &'static str =
        "Sends each event to browsers as Server-Sent Events, resumed from memory by event id.";
    const BROADCAST: bool = true;
    const BATCH_EVENTS_MAX: u32 = 1000;
    const WANTS_JSON: bool = true;

    fn validate(options: &Options) -> Result<(), tailwater_sdk::Error> {
        Ok(options.check()?)
    }

    async fn start(options: Options, context: Context) -> Result<Self, StartError> {
        // Before anything can fail: the daemon decides by it where the stream begins, also where the port is free only later.
        context.want_history(options.history.max_age.0);
        let topics = options.templates().map_err(StartError::fatal)?;
        let address = options.address().map_err(StartError::fatal)?;
        let listener = server::listen(address).map_err(|error| cannot_listen(&options.listen, &error))?;
        let local = listener.local_addr()?;
        let clients_max = options.clients_max as usize;
        warn_of_few_files(options.clients_max);
        let queue_bytes_max = usize::try_from(options.queue_bytes_max.0).unwrap_or(usize::MAX);
        let history_bytes_max = usize::try_from(options.history.bytes_max.0).unwrap_or(usize::MAX);
        let history = History::new(whole_seconds(options.history.max_age.0), history_bytes_max);
        let hub = Arc::new(Hub::new(history, clients_max, queue_bytes_max, &context));
        let (stop, stopped) = watch::channel(false);
        let path = options.path;
        let offer = Offer { path: path.clone(), has_topics: !topics.is_empty(), cors_origins: options.cors_origins };
        let server = Server::new(Arc::clone(&hub), offer, options.retry.0, clients_max, stopped, context.clone());
        context.spawn(server.run(listener));
        context.spawn(server::sweep(Arc::clone(&hub), options.keep_alive.0));
        tracing::info!("listening on http://{local}{path}");
        Ok(Sse { hub, topics, stop })
    }

    async fn deliver(&self, batch: &Batch) -> Result<(), DeliverError> {
        let mut entries = Vec::with_capacity(batch.len());
        let mut failed = None;
        for event in batch.iter() {
            match self.entry(event) {
                Ok(entry) => entries.push(entry),
                Err(verdict) => {
                    failed = Some((event, verdict));
                    break;
                }
            }
        }
        let good = entries.len();
        // In pieces: between them the connections write what they were given, on this same thread.
        let mut entries = entries.into_iter();
        while entries.len() > 0 {
            self.hub.publish(entries.by_ref().take(PIECE));
            tokio::task::yield_now().await;
        }
        let Some((event, verdict)) = failed else { return Ok(()) };
        // What is behind it comes again, behind it: clients count on the order.
        let mut verdicts = Verdicts::new(Verdict::retry("an event before it could not be sent"));
        for sent in batch.iter().take(good) {
            verdicts.set(&sent, Verdict::Ack);
        }
        verdicts.set(&event, verdict);
        Err(verdicts.into())
    }

    fn progress(&self, progress: Progress) {
        self.hub.progress(progress);
    }

    async fn stop(&self) {
        self.stop.send_replace(true);
        self.hub.close();
        // Clients that read nothing are not waited for: their connections end with the output.
        if tokio::time::timeout(LAST_WORDS, self.hub.emptied()).await.is_err() {
            tracing::info!("some clients did not take the end of their stream in time: their connections are cut");
        }
    }
}

impl Sse {
    fn entry(&self, event: Event<'_>) -> Result<Entry, Verdict> {
        let id = Id::parse(event.id()).ok_or_else(|| Verdict::reject(format!("{:?} is no event id", event.id())))?;
        let scope = Scope::of(event);
        let mut topics: Vec<Arc<str>> = Vec::with_capacity(self.topics.len());
        for template in &self.topics {
            let topic = template.render(&scope)?;
            if topic.len() > TOPIC_BYTES_MAX {
                let source = template.source();
                return Err(Verdict::reject(format!("topic {source:?} gives more than {TOPIC_BYTES_MAX} bytes")));
            }
            if !topic.is_empty() && !topics.iter().any(|known| **known == *topic) {
                topics.push(topic.into());
            }
        }
        let frame = frame::event(&id, event.json()?);
        Ok(Entry { id, frame, topics: topics.into() })
    }
}

/// The stream's clock counts in seconds: what is asked for is kept at least.
fn whole_seconds(age: Duration) -> u64 {
    age.as_secs() + u64::from(age.subsec_nanos() > 0)
}

fn cannot_listen(listen: &str, error: &io::Error) -> StartError {
    match error.kind() {
        // The one that has it may be the daemon that this one replaces.
        io::ErrorKind::AddrInUse => {
            StartError::retry(format!("listen on {listen}: the port is in use; end who has it, or change `listen`"))
        }
        io::ErrorKind::PermissionDenied => {
            StartError::fatal(format!("listen on {listen}: not permitted; choose a port above 1023, or allow this one"))
        }
        io::ErrorKind::AddrNotAvailable => {
            StartError::fatal(format!("listen on {listen}: this machine has no such address; change `listen`"))
        }
        // Out of open files, for example: it may pass.
        _ => StartError::retry(format!("listen on {listen}: {error}")),
    }
}

fn warn_of_few_files(clients_max: u32) {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    if let Some(limit) = limit.filter(|limit| *limit < u64::from(clients_max) + OTHER_FILES) {
        tracing::warn!(
            "clients_max is {clients_max}, but this process may open {limit} files: raise the limit (ulimit -n, LimitNOFILE) \
             or lower clients_max"
        );
    }
}
