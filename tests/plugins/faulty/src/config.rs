//! The keys of `[outputs.NAME.options]`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

/// Options of the plugin `faulty`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Where acknowledged events go: the event's JSON with the key `attempt` before the others, one line each.
    pub path: PathBuf,
    /// What goes wrong.
    #[serde(default)]
    pub mode: Mode,
    /// `retry_for`: while this file does not exist, every delivery is answered "retry".
    pub gate: Option<PathBuf>,
    /// `reject_matching`: an event whose JSON contains this text is rejected.
    pub text: Option<String>,
    /// `slow`: how long each batch takes, in milliseconds.
    #[serde(default)]
    pub delay_ms: u64,
    /// `slow`: every second batch takes four times as long, so that later ones end before it.
    #[serde(default)]
    pub uneven: bool,
}

/// What goes wrong. "Once" means once per `path`, also over restarts: a file `<path>.fault` says that it has happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Nothing.
    #[default]
    Ok,
    /// "Retry" until the file `gate` exists.
    RetryFor,
    /// `deliver` panics, once.
    PanicOnce,
    /// Each token is completed a second time.
    DoubleVerdict,
    /// The first batch is written, but its verdict is kept until the instance was stopped, once.
    VerdictAfterStop,
    /// `deliver` never ends, once.
    Hang,
    /// Events that contain `text` are rejected.
    RejectMatching,
    /// Each batch takes `delay_ms`.
    Slow,
    /// Every delivery is answered "fatal".
    Fatal,
}
