//! `tailwater run`: the daemon, from a config that was read to an exit code.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};

use super::EXIT_USAGE;
use crate::admin::{self, AdminState, Readiness, SharedRegistry};
use crate::config::Config;
use crate::control::control;
use crate::output::{PreparedOutput, prepare_all};
use crate::pipeline::{self, PipelineError, PipelineMetrics, Reload, ReloadMetrics, ReloadRequest};
use crate::plugin::{end_process, register_metrics};

/// For a start to end in good order.
const GOOD_ORDER: Duration = Duration::from_secs(5);

/// Signals within this time count as one.
const SAME_SIGNAL: Duration = Duration::from_millis(100);

/// Runs until SIGTERM or SIGINT, then drains and ends the process; a second signal ends it at once. Returns only where nothing
/// was started. The log must be set up.
pub fn run(config: Config, path: PathBuf) -> ExitCode {
    let outputs = match prepare_all(&config) {
        Ok(outputs) => outputs,
        Err(problems) => {
            // As for a config that cannot be read, whatever the log level.
            for problem in problems {
                eprintln!("tailwater: {problem}");
            }
            return ExitCode::from(EXIT_USAGE);
        }
    };
    raise_file_limit();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("tailwater").build() {
        Ok(runtime) => runtime,
        Err(e) => {
            error!("start the runtime: {e}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(serve(config, outputs, path)) {
        Ok(()) => end_process(0),
        Err(message) => {
            error!("{message}");
            end_process(1)
        }
    }
}

/// As many open files as the system allows: the soft limit is for programs that use `select`, and each client of an output is one.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // Where it is refused the old limit stays, and an output that needs more says so.
    if current != maximum && setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_err() {
        warn!("the limit of open files could not be raised from {current:?} to {maximum:?}");
    }
}

async fn serve(config: Config, outputs: Vec<PreparedOutput>, path: PathBuf) -> Result<(), String> {
    let readiness = Readiness::default();
    let registry = SharedRegistry::default();
    let metrics = PipelineMetrics::default();
    registry.with(|registry| {
        metrics.register(registry);
        register_metrics(registry);
    });
    let starting = readiness.wait_for("start");
    let (control, requests) = control();
    if let Some(listen) = config.admin.listen {
        serve_admin(listen, AdminState { readiness: readiness.clone(), registry, control }).await?;
    }
    let stop = stop_signal()?;
    let reloads = reload_on_hangup(path, metrics.reloads().clone())?;
    let running = tokio::select! {
        running = pipeline::start(config, outputs, metrics, &readiness, stop.asked()) => match running {
            Err(PipelineError::Stopped) => return Ok(()),
            running => running.map_err(|e| e.to_string())?,
        },
        // Where not even the lease could be asked for.
        () = stop.asked_long_ago() => return Ok(()),
    };
    starting.done();
    running.until(stop.asked(), requests, reloads).await.map_err(|e| e.to_string())
}

async fn serve_admin(listen: SocketAddr, state: AdminState) -> Result<(), String> {
    let in_use = |e| format!("listen on admin.listen {listen}: {e}; choose another address, or \"off\"");
    let listener = TcpListener::bind(listen).await.map_err(in_use)?;
    let address = listener.local_addr().map_err(in_use)?;
    info!("admin listening on {address}");
    // It answers to the last moment: a drain can be watched.
    tokio::spawn(admin::serve(listener, state, std::future::pending()));
    Ok(())
}

/// SIGTERM or SIGINT, remembered.
struct StopSignal(tokio::sync::watch::Receiver<bool>);

impl StopSignal {
    /// Resolves some seconds after a signal has come: whatever can end in good order has ended by then.
    async fn asked_long_ago(&self) {
        self.asked().await;
        tokio::time::sleep(GOOD_ORDER).await;
    }

    /// Resolves once a signal has come.
    async fn asked(&self) {
        let mut asked = self.0.clone();
        // An error means that the task which listens is gone with the runtime.
        if asked.wait_for(|asked| *asked).await.is_err() {
            std::future::pending().await
        }
    }
}

fn stop_signal() -> Result<StopSignal, String> {
    let listen = |kind| signal(kind).map_err(|e| format!("listen for signals: {e}"));
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let (sender, asked) = tokio::sync::watch::channel(false);
    tokio::spawn(async move {
        let mut first: Option<Instant> = None;
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            sender.send_replace(true);
            // A terminal or a supervisor that signals the process and its group sends two at once and means one.
            if first.get_or_insert_with(Instant::now).elapsed() > SAME_SIGNAL {
                warn!("second signal, stopping at once");
                end_process(1);
            }
        }
    });
    Ok(StopSignal(asked))
}

/// Reads the file again at every SIGHUP and hands it to the pipeline, one after the other. What is wrong with it is logged and
/// counted, and changes nothing.
fn reload_on_hangup(path: PathBuf, metrics: ReloadMetrics) -> Result<mpsc::Receiver<ReloadRequest>, String> {
    let mut hangup = signal(SignalKind::hangup()).map_err(|e| format!("listen for signals: {e}"))?;
    let (sender, reloads) = mpsc::channel(1);
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            info!("SIGHUP: reading {} again", path.display());
            let file = path.clone();
            // Plugins are loaded from disk here.
            let read = tokio::task::spawn_blocking(move || read_again(&file)).await;
            let reload = match read.unwrap_or_else(|e| Err(e.to_string())) {
                Ok(reload) => reload,
                Err(problem) => {
                    metrics.refused();
                    error!("not reloaded: {problem}; what is running goes on");
                    continue;
                }
            };
            let (reply, outcome) = oneshot::channel();
            if sender.send((reload, reply)).await.is_err() {
                return;
            }
            if let Ok(Err(problem)) = outcome.await {
                error!("not reloaded: {problem}; what is running goes on");
            }
        }
    });
    Ok(reloads)
}

fn read_again(path: &Path) -> Result<Reload, String> {
    let config = Config::load(path).map_err(|e| e.to_string())?;
    let outputs = prepare_all(&config).map_err(|problems| {
        let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
        all.join("; ")
    })?;
    Ok(Reload { config, outputs })
}
