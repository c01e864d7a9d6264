//! The daemon's log: on stderr, for people or as JSON lines, everything through `tracing`.

use std::io::IsTerminal;
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};

use tailwater_abi::{TW_LEVEL_DEBUG, TW_LEVEL_ERROR, TW_LEVEL_INFO, TW_LEVEL_TRACE, TW_LEVEL_WARN};
use thiserror::Error;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

/// Level that plugins may log at, `TW_LEVEL_*`; read by them through `tw_host.log_level`.
static MAX_LEVEL: AtomicU32 = AtomicU32::new(TW_LEVEL_INFO);

/// Shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// One line for people.
    #[default]
    Human,
    /// One JSON object per line.
    Json,
}

/// The log cannot be set up.
#[derive(Debug, Error)]
pub enum LogError {
    /// The filter is not one.
    #[error("log level {text:?}: {reason}; use error, warn, info, debug or trace, or a filter as tailwater=debug,warn")]
    Filter {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Someone else set up a log in this process.
    #[error("set up the log: {0}")]
    Installed(#[from] tracing::subscriber::SetGlobalDefaultError),
}

/// Sets up the log of this process, once. `filter` is a level or a list as `tailwater=debug,mongodb=warn`.
///
/// # Errors
/// When `filter` is not one, or the log was set up before.
pub fn init(format: LogFormat, filter: &str) -> Result<(), LogError> {
    let fault = |reason: String| LogError::Filter { text: filter.to_owned(), reason };
    // `EnvFilter` takes any word as the name of a module, which would turn a typing error into silence.
    let bare = !filter.contains('=') && !filter.contains(',');
    // An empty one, as from a variable that is set to nothing, would mean `error`.
    if filter.trim().is_empty() || bare && LevelFilter::from_str(filter).is_err() {
        return Err(fault("not a level".to_owned()));
    }
    let filter = EnvFilter::try_new(filter).map_err(|error| fault(error.to_string()))?;
    MAX_LEVEL.store(level_of(plugin_level(&filter)), Ordering::Relaxed);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_span_events(FmtSpan::NONE)
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Human => tracing::subscriber::set_global_default(builder.finish())?,
        LogFormat::Json => tracing::subscriber::set_global_default(builder.json().flatten_event(true).finish())?,
    }
    Ok(())
}

/// The highest level a plugin may log at. Plugins read it before they make a record.
pub fn max_level() -> &'static AtomicU32 {
    &MAX_LEVEL
}

/// The most that any part of the filter lets through. A record that only another target wants is dropped later, by the filter.
fn plugin_level(filter: &EnvFilter) -> LevelFilter {
    use tracing_subscriber::layer::Filter;
    Filter::<tracing_subscriber::Registry>::max_level_hint(filter).unwrap_or(LevelFilter::TRACE)
}

fn level_of(filter: LevelFilter) -> u32 {
    match filter.into_level() {
        None => 0,
        Some(tracing::Level::ERROR) => TW_LEVEL_ERROR,
        Some(tracing::Level::WARN) => TW_LEVEL_WARN,
        Some(tracing::Level::INFO) => TW_LEVEL_INFO,
        Some(tracing::Level::DEBUG) => TW_LEVEL_DEBUG,
        Some(tracing::Level::TRACE) => TW_LEVEL_TRACE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_refused_before_anything_is_set_up() {
        for filter in ["dbug", "", "tailwater=loud"] {
            let error = init(LogFormat::Human, filter).unwrap_err().to_string();
            assert!(error.starts_with(&format!("log level {filter:?}: ")), "{error}");
        }
    }

    #[test]
    fn plugins_may_log_what_any_part_of_the_filter_lets_through() {
        let table = [("off", 0), ("error", TW_LEVEL_ERROR), ("warn,tailwater=debug", TW_LEVEL_DEBUG), ("trace", 5)];
        for (filter, expected) in table {
            assert_eq!(level_of(plugin_level(&EnvFilter::new(filter))), expected, "{filter}");
        }
    }
}
