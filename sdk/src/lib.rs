//! Write an output plugin for Tailwater: implement [`Output`], write [`export_output!`] once, build a `cdylib`.
//!
//! ```toml
//! # Cargo.toml
//! [package]
//! name = "tailwater-announce"        # `plugin = "announce"` finds libtailwater_announce.so
//! edition = "2024"
//!
//! [lib]
//! crate-type = ["cdylib", "rlib"]    # rlib: for the plugin's own tests
//!
//! [dependencies]
//! tailwater-sdk = "0.1"
//! serde = { version = "1", features = ["derive"] }
//! schemars = "1"
//! ```
//!
//! ```
//! use tailwater_sdk::{Batch, Context, Counter, DeliverError, Output, StartError, export_output, tokio, tracing};
//! use tokio::{io::AsyncWriteExt, net::TcpStream, sync::Mutex};
//!
//! /// The keys of `[outputs.NAME.options]`.
//! #[derive(serde::Deserialize, schemars::JsonSchema)]
//! #[serde(deny_unknown_fields)]
//! struct Options {
//!     /// Where to send the lines, as `host:port`.
//!     address: String,
//! }
//!
//! struct Announce {
//!     stream: Mutex<TcpStream>,
//!     sent: Counter,
//! }
//!
//! impl Output for Announce {
//!     type Options = Options;
//!     const SUMMARY: &'static str = "Sends each event as a line of JSON over TCP.";
//!
//!     fn validate(options: &Options) -> Result<(), tailwater_sdk::Error> {
//!         if options.address.contains(':') { Ok(()) } else { Err("address must be host:port".into()) }
//!     }
//!
//!     async fn start(options: Options, context: Context) -> Result<Self, StartError> {
//!         // Nobody listens yet: the daemon tries again, with backoff.
//!         let stream = TcpStream::connect(&options.address).await.map_err(StartError::retry)?;
//!         tracing::info!(address = options.address, "connected");
//!         Ok(Self { stream: Mutex::new(stream), sent: context.counter("lines_total", "Lines sent.") })
//!     }
//!
//!     async fn deliver(&self, batch: &Batch) -> Result<(), DeliverError> {
//!         let mut lines = Vec::new();
//!         for event in batch.iter() {
//!             lines.extend_from_slice(event.json()?);
//!             lines.push(b'\n');
//!         }
//!         // An IO error means "deliver this batch again".
//!         self.stream.lock().await.write_all(&lines).await?;
//!         self.sent.add(batch.len() as u64);
//!         Ok(())
//!     }
//! }
//!
//! export_output!(Announce);
//! ```
//!
//! The daemon does the rest: position, order, batches, retries with backoff, rate limit, dead letters, metrics of delivery.
//! Nothing of a batch can outlive its delivery:
//!
//! ```compile_fail,E0521
//! # use tailwater_sdk::{Batch, DeliverError};
//! async fn deliver(batch: &Batch) -> Result<(), DeliverError> {
//!     let first = batch.get(0).expect("a batch is never empty");
//!     tailwater_sdk::tokio::spawn(async move { println!("{}", first.id()) }); // borrowed data escapes
//!     Ok(())
//! }
//! ```
//!
//! `tracing` records go to the daemon's log, under the output's name. All `unsafe` of a plugin is in this crate.
//! Features:
//!
//! - `template`: templates over an event, for options such as a topic or a URL.
//! - `http`: a small HTTP client with a deadline over the whole exchange and a capped answer.
//! - `testing`: a harness that drives an output inside a test, without a daemon, and an HTTP receiver that misbehaves on demand.

mod batch;
mod context;
mod descriptor;
mod event;
mod host;
mod instance;
mod log;
mod output;
mod runtime;
mod tasks;
mod thunk;
mod verdict;

pub mod units;

#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "template")]
pub mod template;
#[cfg(feature = "testing")]
pub mod testing;

pub use batch::Batch;
pub use context::{BlockingError, Context, Counter, Gauge};
#[doc(hidden)]
pub use descriptor::{Descriptor, Package, descriptor, entry, functions};
pub use event::{Event, JsonError, JsonForm, Op};
pub use output::{DeliverError, Error, Output, Progress, StartError};
pub use verdict::{Verdict, Verdicts};

#[cfg(feature = "http")]
pub use ::bytes;
pub use tailwater_abi as abi;
pub use {schemars, serde, serde_json, tokio, tracing};
