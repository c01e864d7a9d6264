//! The keys of `[outputs.NAME.options]`.

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tailwater_sdk::template::{Escape, Template};
use tailwater_sdk::units::{Size, Span};

/// Options of the plugin `sse`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Address and port to listen on, for example "127.0.0.1:8080"; behind a proxy or on a network that may read everything.
    pub listen: String,
    /// Path of the stream.
    pub path: String,
    /// What an event is about: templates over the event, such as "orders-{{ fullDocument.userId }}". Clients choose with ?topic=,
    /// once or several times; a client that names none gets all events. A template that gives no text gives no topic;
    /// one with a line end or a NUL in it rejects the event.
    pub topics: Vec<String>,
    /// Origins whose pages may read the stream, such as `https://shop.example`; `*` is any page, without cookies.
    pub cors_origins: Vec<String>,
    /// What a client that comes back can be given.
    pub history: History,
    /// A client that was sent nothing for this long is sent a comment. 1 s to 1 h; less than the proxies' own timeouts.
    pub keep_alive: Span,
    /// How long a browser waits before it comes back; spread by half of it. 100 ms to 1 h.
    pub retry: Span,
    /// Most clients at once; more are told to come back later. 1 to 1,000,000.
    pub clients_max: u32,
    /// Most bytes that wait for one client that reads slowly. Beyond, it is given the rest from the history as it reads; one that reads
    /// nothing for 5 s is cut off, and may come back with its id. 4 KiB to 1 GiB.
    pub queue_bytes_max: Size,
}

/// The history, in memory. The first bound that is reached counts.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct History {
    /// How long an event is kept, by the stream's own clock. At a start the daemon reads so far back. 0 s to 7 d.
    pub max_age: Span,
    /// How many bytes are kept. Up to 64 GiB.
    pub bytes_max: Size,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            listen: "127.0.0.1:8080".to_owned(),
            path: "/events".to_owned(),
            topics: Vec::new(),
            cors_origins: Vec::new(),
            history: History::default(),
            keep_alive: Span::from_secs(15),
            retry: Span::from_secs(2),
            clients_max: 10_000,
            queue_bytes_max: Size(1 << 20),
        }
    }
}

impl Default for History {
    fn default() -> Self {
        History { max_age: Span::from_secs(300), bytes_max: Size(32 << 20) }
    }
}

impl Options {
    /// What the schema cannot say.
    ///
    /// # Errors
    /// One sentence that names the key.
    pub fn check(&self) -> Result<(), String> {
        self.address()?;
        self.templates()?;
        let plain = |byte: u8| byte.is_ascii_graphic() && !b"?#%\"<>".contains(&byte);
        if !self.path.starts_with('/') || !self.path.bytes().all(plain) {
            return Err(format!("path {:?} is no path: write one such as \"/events\"", self.path));
        }
        if let Some(origin) = self.cors_origins.iter().find(|origin| !is_origin(origin)) {
            return Err(format!(
                "cors_origins: {origin:?} is no origin: write \"*\", or scheme, host and port such as \
                 \"https://shop.example\", without a path"
            ));
        }
        within("keep_alive", self.keep_alive, Span::from_secs(1), Span::from_secs(3600))?;
        within("retry", self.retry, Span::from_millis(100), Span::from_secs(3600))?;
        within("history.max_age", self.history.max_age, Span::from_secs(0), Span::from_secs(7 * 24 * 3600))?;
        within("history.bytes_max", self.history.bytes_max, Size(0), Size(64 << 30))?;
        within("queue_bytes_max", self.queue_bytes_max, Size(4 << 10), Size(1 << 30))?;
        if !(1..=1_000_000).contains(&self.clients_max) {
            return Err(format!("clients_max is {}: write 1 to 1000000", self.clients_max));
        }
        Ok(())
    }

    /// `listen`, read.
    ///
    /// # Errors
    /// Where it is no address.
    pub fn address(&self) -> Result<SocketAddr, String> {
        self.listen.parse().map_err(|_| {
            format!("listen {:?} is no address: write one with its port, such as \"127.0.0.1:8080\"", self.listen)
        })
    }

    /// `topics`, compiled.
    ///
    /// # Errors
    /// Where one is no template.
    pub fn templates(&self) -> Result<Vec<Template>, String> {
        let compile = |(index, topic): (usize, &String)| {
            Template::compile(topic, Escape::Name).map_err(|error| format!("topics[{index}]: {error}"))
        };
        self.topics.iter().enumerate().map(compile).collect()
    }
}

/// `scheme://host[:port]`, as browsers write it.
fn is_origin(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let host = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-:[]".contains(&byte);
    text == "*" || rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(host))
}

fn within<T: PartialOrd + std::fmt::Display>(key: &str, value: T, min: T, max: T) -> Result<(), String> {
    if value < min || value > max {
        return Err(format!("{key} is {value}: write {min} to {max}"));
    }
    Ok(())
}
