//! The library's own change stream in a test, for what a daemon does not show: places, tokens, stubs.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bson::Timestamp;
use tailwater::config::Config;
use tailwater::event::Event;
use tailwater::source::connect::connect;
use tailwater::source::place::Place;
use tailwater::source::prepare;
use tailwater::source::stream::{ChangeStream, StreamOptions};
use tailwater::source::token::Timestamp64;

use super::{Mongod, config_of};

/// What events may take on a busy machine.
const READ_MAX: Duration = Duration::from_secs(60);

/// What the daemon would open its streams with for these keys of `[source]`.
pub async fn options(uri: &str, source: &str) -> StreamOptions {
    let text = config_of(uri, source, "[outputs.all]\nplugin = \"stdout\"\n");
    let config = Config::parse(&text, "config.toml", &|_| None, SystemTime::now()).unwrap_or_else(|e| panic!("{e}"));
    let deployment = connect(uri, 16).await.unwrap_or_else(|e| panic!("{e}"));
    prepare(deployment.client, &config.source).await.unwrap_or_else(|e| panic!("{e}"))
}

/// Everything from the server's next operation on.
pub async fn now(mongod: &Mongod) -> Place {
    let hello = mongod.client().database("admin").run_command(bson::doc! { "hello": 1 }).await.expect("hello");
    let now: Timestamp = hello.get_timestamp("operationTime").expect("a cluster time");
    Place::From(Timestamp64(Timestamp64::from(now).0 + 1))
}

/// Reads until there are `count` events, with how far reading had come behind each reply's last one. Panics when they do not come.
pub async fn read(stream: &mut ChangeStream, count: usize) -> Vec<Arc<Event>> {
    let mut events: Vec<Arc<Event>> = Vec::new();
    let reading = async {
        while events.len() < count {
            events.extend(stream.next().await.unwrap_or_else(|error| panic!("read: {error}")).events);
        }
    };
    if tokio::time::timeout(READ_MAX, reading).await.is_err() {
        panic!("{} of {count} events after {READ_MAX:?}: {:?}", events.len(), words(&events));
    }
    events
}

/// The same for a new stream from `place` on.
pub async fn read_from(options: &StreamOptions, place: Place, count: usize) -> Vec<Arc<Event>> {
    read(&mut ChangeStream::new(options.clone(), place), count).await
}

/// Each event as `insert 1`, and `poison update 2` where it is a stub.
pub fn words(events: &[Arc<Event>]) -> Vec<String> {
    let word = |event: &Arc<Event>| {
        let key = event.document_key().and_then(|key| key.get("_id").ok().flatten());
        let key = key.and_then(|id| id.as_i32()).map(|id| format!(" {id}")).unwrap_or_default();
        let poison = if event.poison().is_some() { "poison " } else { "" };
        format!("{poison}{}{key}", event.operation_type())
    };
    events.iter().map(word).collect()
}
