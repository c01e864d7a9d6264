//! The configuration file: lists each module's `Config`, loads them and checks them against each other. Knows no
//! other module's keys or defaults.

pub mod document;
pub mod entry;
pub mod error;
pub mod expand;
pub mod section;
#[cfg(test)]
mod tests;
pub mod units;
pub mod uri;

use std::path::Path;
use std::time::{Duration, SystemTime};

use toml::de::DeTable;

use self::entry::check_name;
pub use self::error::ConfigError;
use self::section::{Context, Section};
use crate::{admin, checkpoint, dead_letters, lane, plugin, source, window};

/// The keys outside of tables, and the tables.
pub const KEYS: &[&str] =
    &["name", "shutdown_grace", "source", "window", "checkpoint", "dead_letters", "admin", "plugins", "outputs"];

/// How many outputs one file may have.
const OUTPUTS_MAX: usize = 256;

/// Everything the file says, checked as far as it can be without plugins and without a server.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Instances with the same name are one deployment. Default `"default"`.
    pub name: String,
    /// How long draining may take after a signal. 1 ms to 1 h, default 20 s.
    pub shutdown_grace: Duration,
    /// The change stream.
    pub source: source::config::Config,
    /// The shared ring of recent events.
    pub window: window::config::Config,
    /// Where positions are made durable.
    pub checkpoint: checkpoint::config::Config,
    /// Where events that could not be delivered are kept.
    pub dead_letters: dead_letters::config::Config,
    /// Health and metrics.
    pub admin: admin::config::Config,
    /// Where plugins are found.
    pub plugins: plugin::config::Config,
    /// In the order of the file; at least one of them is enabled.
    pub outputs: Vec<lane::config::Config>,
}

impl Config {
    /// Reads and checks a file, with the process's own environment and clock.
    ///
    /// # Errors
    /// The file cannot be read, or the first thing in it that is wrong.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Config::parse(&text, &path.to_string_lossy(), &|name| std::env::var(name).ok(), SystemTime::now())
    }

    /// The same for a text that is already here. Relative paths start at the folder of `file_name`.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse(
        text: &str,
        file_name: &str,
        env: &dyn Fn(&str) -> Option<String>,
        now: SystemTime,
    ) -> Result<Config, ConfigError> {
        let folder = Path::new(file_name).parent().unwrap_or(Path::new(""));
        let context = Context { file_name, text, folder, env, now };
        let table = DeTable::parse(text).map_err(|error| {
            let message = error.message().lines().collect::<Vec<_>>().join(", ");
            context.error(error.span(), format!("not valid TOML: {message}"))
        })?;
        Config::read(&Section::top(&context, table.get_ref(), KEYS)?)
    }

    fn read(top: &Section<'_>) -> Result<Config, ConfigError> {
        let source = source::config::Config::read(&top.section("source", source::config::KEYS)?)?;
        let grace = Duration::from_millis(1)..=Duration::from_secs(3600);
        let name = top.get("name").map_or(Ok("default".to_owned()), |entry| entry.name())?;
        Ok(Config {
            shutdown_grace: top.duration("shutdown_grace", grace, Duration::from_secs(20))?,
            window: window::config::Config::read(&top.section("window", window::config::KEYS)?)?,
            checkpoint: checkpoint::config::Config::read(&top.section("checkpoint", checkpoint::config::KEYS)?)?,
            dead_letters: dead_letters::config::Config::read(
                &top.section("dead_letters", dead_letters::config::KEYS)?,
            )?,
            admin: admin::config::Config::read(&top.section("admin", admin::config::KEYS)?)?,
            plugins: plugin::config::Config::read(&top.section("plugins", plugin::config::KEYS)?)?,
            outputs: read_outputs(top, &name, &source)?,
            name,
            source,
        })
    }
}

fn read_outputs(
    top: &Section<'_>,
    deployment: &str,
    source: &source::config::Config,
) -> Result<Vec<lane::config::Config>, ConfigError> {
    let mut outputs = Vec::new();
    if let Some(tables) = top.get("outputs") {
        for (name, entry) in tables.free_section()?.entries() {
            check_name(&name).map_err(|message| entry.error(message))?;
            let output = lane::config::Config::read(deployment, &name, &entry.section(lane::config::KEYS)?)?;
            if let Some(key) = output.needs_full_documents().filter(|_| !source.has_full_documents()) {
                return Err(entry.error(format!(
                    "{key} needs full documents, set source.full_document to \"update_lookup\" or \"when_available\""
                )));
            }
            outputs.push(output);
        }
    }
    if !outputs.iter().any(|output| output.enabled) {
        return Err(top.error("no output is enabled, add [outputs.NAME] with a plugin, or remove enabled = false"));
    }
    if outputs.len() > OUTPUTS_MAX {
        return Err(top.error(format!("{} outputs, write at most {OUTPUTS_MAX}", outputs.len())));
    }
    Ok(outputs)
}
