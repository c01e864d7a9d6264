//! An output proved as far as it can be without a server: its plugin loaded, its options accepted, its `match` compiled.

use std::path::{Path, PathBuf};

use tailwater_match::{MatchError, Matcher};

use crate::config::Config;
use crate::lane;
use crate::plugin::{Library, LoadError, default_dir};

/// One enabled output, ready to be started.
pub struct PreparedOutput {
    /// `[outputs.NAME]`.
    pub config: lane::config::Config,
    /// Its plugin.
    pub library: Library,
    /// Its `match`.
    pub matcher: Option<Matcher>,
}

/// Why an output cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The folder of plugins cannot be known.
    #[error("find the plugin folder: {0}; set plugins.dir")]
    Folder(std::io::Error),
    /// Its plugin does not load.
    #[error("outputs.{output}.plugin: {error}")]
    Load {
        /// The output.
        output: String,
        /// Why.
        error: LoadError,
    },
    /// Its options are refused.
    #[error("outputs.{output}.{fault}")]
    Options {
        /// The output.
        output: String,
        /// Why; begins with the key.
        fault: String,
    },
    /// Its `match` is not a query.
    #[error("outputs.{output}.match: {error}")]
    Match {
        /// The output.
        output: String,
        /// Why.
        error: MatchError,
    },
}

/// The folder plugins are loaded from.
///
/// # Errors
/// [`OutputError::Folder`].
pub fn plugin_folder(config: &Config) -> Result<PathBuf, OutputError> {
    config.plugins.dir.clone().map_or_else(default_dir, Ok).map_err(OutputError::Folder)
}

/// Prepares the enabled outputs.
///
/// # Errors
/// All that is wrong, not only the first.
pub fn prepare_all(config: &Config) -> Result<Vec<PreparedOutput>, Vec<OutputError>> {
    let folder = plugin_folder(config).map_err(|error| vec![error])?;
    let mut prepared = Vec::new();
    let mut problems = Vec::new();
    for output in config.outputs.iter().filter(|output| output.enabled) {
        match prepare(output, &folder) {
            Ok(output) => prepared.push(output),
            Err(errors) => problems.extend(errors),
        }
    }
    if problems.is_empty() { Ok(prepared) } else { Err(problems) }
}

/// Prepares one output.
///
/// # Errors
/// All that is wrong with it.
pub fn prepare(config: &lane::config::Config, folder: &Path) -> Result<PreparedOutput, Vec<OutputError>> {
    let name = || config.name.clone();
    let mut problems = Vec::new();
    let library = match Library::load(folder, &config.plugin) {
        Ok(library) => {
            if let Err(error) = library.check_options(&config.options) {
                let faults = error.faults.into_iter().map(|fault| OutputError::Options { output: name(), fault });
                problems.extend(faults);
            }
            Some(library)
        }
        Err(error) => {
            problems.push(OutputError::Load { output: name(), error });
            None
        }
    };
    let matcher = match config.query.as_ref().map(Matcher::compile).transpose() {
        Ok(matcher) => matcher,
        Err(error) => {
            problems.push(OutputError::Match { output: name(), error });
            None
        }
    };
    match library {
        Some(library) if problems.is_empty() => Ok(PreparedOutput { config: config.clone(), library, matcher }),
        _ => Err(problems),
    }
}
