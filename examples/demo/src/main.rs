//! `cargo xtask demo`: a throw-away MongoDB, a shop that writes orders into it, Tailwater with three outputs, and a page where the
//! orders arrive. Everything is gone at the end, by itself, by Ctrl-C or by an error; only `kill -9` leaves it behind.

mod child;
mod daemon;
mod event_source;
mod hook;
mod http;
mod ledger;
mod lines;
mod mongod;
mod page;
mod shop;
mod terminal;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use mongodb::Client;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, interval, sleep, sleep_until};

use crate::daemon::{Daemon, Wiring};
use crate::event_source::Connections;
use crate::ledger::Ledger;
use crate::mongod::Mongod;
use crate::shop::Shop;
use crate::terminal::Terminal;

/// Between two looks at the children and two lines of status.
const LOOK: Duration = Duration::from_secs(1);
/// How long the outputs get for the last changes.
const SETTLE_MAX: Duration = Duration::from_secs(20);
const SETTLE_LOOK: Duration = Duration::from_millis(20);
/// How long the own client of the event stream may take to connect.
const CONNECT_MAX: Duration = Duration::from_secs(20);

#[derive(Parser)]
#[command(about = "A shop's orders on their way from MongoDB to a browser, a file and a webhook")]
struct Arguments {
    /// The program mongod
    #[arg(long)]
    mongod: PathBuf,
    /// The program tailwater, with its plugins beside it
    #[arg(long)]
    tailwater: PathBuf,
    /// Stop after so many seconds; without it, Ctrl-C stops
    #[arg(long = "for", value_name = "SECONDS")]
    seconds: Option<u64>,
    /// Where the page is served; 0: on a free port
    #[arg(long, default_value_t = 8090)]
    port: u16,
    /// Where the event stream is served; 0: on a free port
    #[arg(long, default_value_t = 0)]
    sse_port: u16,
}

/// Ends with 0 only where every output has received every change.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<bool> {
    let mut interrupt = Interrupt::new()?;
    let mut terminal = Terminal::new();
    // What has been started by then is dropped, and with that killed.
    let mut demo = tokio::select! {
        demo = Demo::start(&arguments, &mut terminal) => demo?,
        () = interrupt.asked() => return Ok(false),
    };
    let deadline = arguments.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    demo.watch(&mut terminal, &mut interrupt, deadline).await?;
    tokio::select! {
        complete = demo.end(&mut terminal) => complete,
        // Asked twice: at once.
        () = interrupt.asked() => Ok(false),
    }
}

/// Ctrl-C, `kill`, or a terminal that was closed.
struct Interrupt([Signal; 3]);

impl Interrupt {
    fn new() -> Result<Interrupt> {
        let listen = |kind| signal(kind).context("listen for signals");
        Ok(Interrupt([
            listen(SignalKind::interrupt())?,
            listen(SignalKind::terminate())?,
            listen(SignalKind::hangup())?,
        ]))
    }

    async fn asked(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// All of it, running. Dropped in this order.
struct Demo {
    /// The page's server, the readers of what the outputs deliver. None of them ends.
    readers: JoinSet<Result<()>>,
    shop: JoinHandle<Result<()>>,
    close_shop: oneshot::Sender<()>,
    ledger: Arc<Ledger>,
    daemon: Daemon,
    mongod: Mongod,
    _folder: tempfile::TempDir,
}

impl Demo {
    async fn start(arguments: &Arguments, terminal: &mut Terminal) -> Result<Demo> {
        let listener = listen(arguments.port, "--port").await?;
        // The daemon would wait for a port in use, as long as it takes.
        drop(listen(arguments.sse_port, "--sse-port").await?);
        let page = listener.local_addr()?;
        let folder = tempfile::Builder::new().prefix("tailwater-demo-").tempdir().context("create a folder")?;
        let mongod = Mongod::start(&arguments.mongod, folder.path()).await?;
        terminal.step("MongoDB, a replica set of one node", &mongod.uri());

        let secret = hook::Secret::random();
        let wiring = Wiring { mongodb: mongod.uri(), page, sse_port: arguments.sse_port, secret: secret.as_text() };
        let config = folder.path().join("config.toml");
        std::fs::write(&config, wiring.to_toml()).with_context(|| format!("write {}", config.display()))?;
        // It runs in its folder, where a relative path would lead elsewhere.
        let tailwater = std::path::absolute(&arguments.tailwater).context("the path of tailwater")?;
        let daemon = Daemon::start(&tailwater, folder.path(), &config).await?;
        terminal.step("Tailwater, with sse, stdout and webhook", &config.display().to_string());

        let client = Client::with_uri_str(mongod.uri()).await.context("connect to MongoDB")?;
        let (ledger, connections) = (Arc::new(Ledger::default()), Connections::default());
        let mut readers = JoinSet::new();
        let served = page::Served {
            client: client.clone(),
            ledger: Arc::clone(&ledger),
            secret,
            config: wiring.to_toml(),
            events: daemon.events,
        };
        readers.spawn(page::serve(listener, served));
        readers.spawn(lines::follow(folder.path().join(daemon::LINES_FILE), Arc::clone(&ledger)));
        let path = daemon::EVENTS_PATH.to_owned();
        readers.spawn(event_source::follow(daemon.events, path, Arc::clone(&ledger), connections.clone()));
        // An event stream begins where its reader connects: the first change comes after that.
        let connected = Instant::now() + CONNECT_MAX;
        while connections.count() == 0 {
            ensure!(Instant::now() < connected, "nobody can read http://{}{}", daemon.events, daemon::EVENTS_PATH);
            sleep(SETTLE_LOOK).await;
        }
        let (close_shop, closing) = oneshot::channel();
        let shop = tokio::spawn(Shop::new(&client, Arc::clone(&ledger)).trade(closing));
        terminal.step("A shop, 4 changes a second", &format!("{}.{}", shop::DATABASE, shop::COLLECTION));
        terminal.open(&format!("http://{page}"));
        Ok(Demo { readers, shop, close_shop, ledger, daemon, mongod, _folder: folder })
    }

    /// Shows how it goes, until it is time or somebody asks for the end.
    async fn watch(
        &mut self,
        terminal: &mut Terminal,
        interrupt: &mut Interrupt,
        deadline: Option<Instant>,
    ) -> Result<()> {
        let mut look = interval(LOOK);
        loop {
            tokio::select! {
                _ = look.tick() => {
                    self.daemon.alarms().iter().for_each(|line| terminal.line(line));
                    self.daemon.check()?;
                    self.mongod.check()?;
                    terminal.status(&self.ledger);
                }
                // Only one that failed ends.
                Some(ended) = self.readers.join_next() => ended.context("a reader panicked")??,
                ended = &mut self.shop => return ended.context("the shop panicked")?,
                () = interrupt.asked() => return Ok(()),
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => return Ok(()),
            }
        }
    }

    /// Closes the shop, waits for the last changes, and ends everything in the order of the flow. True where nothing is missing.
    async fn end(mut self, terminal: &mut Terminal) -> Result<bool> {
        let _ = self.close_shop.send(());
        self.shop.await.context("the shop panicked")??;
        let deadline = Instant::now() + SETTLE_MAX;
        while !self.ledger.is_complete() && Instant::now() < deadline {
            self.daemon.check()?;
            sleep(SETTLE_LOOK).await;
        }
        self.daemon.alarms().iter().for_each(|line| terminal.line(line));
        terminal.status(&self.ledger);
        terminal.table(&self.ledger);
        let complete = self.ledger.is_complete();
        if complete {
            terminal.line("  Every output has received every change.");
        }
        self.daemon.end().await?;
        self.readers.shutdown().await;
        self.mongod.end().await?;
        Ok(complete)
    }
}

async fn listen(port: u16, option: &str) -> Result<TcpListener> {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port))).await;
    listener.with_context(|| format!("port {port} cannot be used, choose another one with {option}"))
}
